package web

import "strings"

// A field is an input with its label, its hint and what is wrong with it.
type field struct {
	Name, Label, Type, Value string
	Autocomplete             string
	List                     string // id of the datalist with suggestions
	Hint, Error              string
	Blame                    string // id of a message elsewhere that says what is wrong
	Placeholder              string
	Lines                    int // of a text of several lines, 0 for one
	Options                  []option
	Required                 bool
}

// An option is one of several values of a field.
type option struct {
	Value, Title string
	Selected     bool
}

// ID returns the id of the input.
func (f field) ID() string { return "f-" + f.Name }

// Invalid reports whether something is wrong with the value.
func (f field) Invalid() bool { return f.Error != "" || f.Blame != "" }

// DescribedBy returns the ids of the texts that belong to the input.
func (f field) DescribedBy() string {
	var ids []string
	if f.Hint != "" {
		ids = append(ids, f.ID()+"-hint")
	}
	if f.Error != "" {
		ids = append(ids, f.ID()+"-error")
	}
	if f.Blame != "" {
		ids = append(ids, f.Blame)
	}
	return strings.Join(ids, " ")
}

// A radio is one of several choices, with a sentence that explains it.
type radio struct {
	Name, Value, Title, Says string
	Checked                  bool
}

// A tick is a choice for itself.
type tick struct {
	Name, Value, Title, Says string
	Checked, Disabled        bool
}

// A ladder is a radio group that reads as one control.
type ladder struct {
	Name, Label, Hint string
	Steps             []step
}

// A step is one place of a ladder.
type step struct {
	Value, Title  string
	Asks, Checked bool
	Presets       string // the presets that choose it, separated by spaces
	Acts          bool   // it allows more than reading
	Tools, Waits  int    // how many tools it shows, and how many of these wait for a person
}
