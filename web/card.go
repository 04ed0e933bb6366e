package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/currency"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/unseen"
)

// A card shows one approval: the facts first, then the agent's words.
type card struct {
	ID, Action, Object string
	Fact               string // the title: what is to be done, and to what
	Yes                string // what approving does, in a word
	Who, Via           string // who asks, and through what
	Tool               string
	Made, Expires      *moment
	Asked              int64
	Badge              status

	Changes, Others []shownFact
	Fresh           bool // there is nothing yet that it changes
	Checks          []approvals.Check
	Foreseen        []template.HTML // what approving would do
	Says            string          // the agent's own words
	Raw             string

	Pending, Failed bool
	MayDecide       bool
	WhyNot          string
	Blocked         bool // a check stands against approving
	Stale           bool
	Untouched       int
	Rebases         bool // nothing but the change of the target stands against it
	TargetVersion   int64
	Digest          string
	Voters          []string
	Noted           bool // one of them is the reader, and nobody has changed it since
	Edits           bool // there is something to edit
	Rejecting       bool // the form to reject lacked a reason
	Needed          int
	Assignee        []option
	Extensions      []option
	Lends           []option
	Lent            []loanRow // to the credential that asks
	Reasons         []radio
	List            string // the query of the list beside it

	Decided   *moment
	DecidedBy string
	AtOnce    bool   // nobody was asked
	Reason    string // of a rejection
	Edited    bool
	Original  []shownFact // of an edited request: what the agent had asked for instead
	Outside   status      // how far it has come outside, zero if it has nothing to do there
	Unsettled bool        // that may change by itself
	Sent      string      // path of the message's page, "" if there is none
	Warning   string      // about what came to pass outside
	Error     string      // of a failed execution
	ErrorFix  string
	Result    string
	Message   string // what the agent is told
	Closed    bool   // it needs no decision any more
}

// A shownFact is a field as people read it.
type shownFact struct {
	Name, Label             string
	Base, Current, Proposed shown
	Changes, Stale          bool
}

// A shown is a value as people read it; long ones fold.
type shown struct {
	Empty bool
	Head  template.HTML
	Rest  template.HTML // after the first lines, "" if that is all
}

func (p *Pages) card(in room, c approvals.Card, l listQuery, deciders []access.User) *card {
	now, zone := p.Now(), in.zone()
	v := &card{ID: c.ID, Action: p.actionTitle(c.Action), Object: c.Title, Who: c.RequestedBy.Name, Via: viaOf(c.View), Tool: c.Request.Tool,
		Made: momentOf(c.CreatedAt, now, zone), Expires: momentOf(c.ExpiresAt, now, zone), Asked: c.Asked, Badge: p.badge(c.Status, c.Execution, c.ExpiresAt),
		Checks: c.Checks, Foreseen: p.foreseen(c.Effects), Says: c.View.Reason, Raw: c.Raw, Pending: c.Status == approvals.Pending, Failed: c.Execution == approvals.Failed,
		MayDecide: c.MayDecide, WhyNot: c.WhyNot, Blocked: c.Blocked(), Stale: c.Stale, Untouched: c.Untouched, TargetVersion: c.TargetVersion, Digest: c.Digest,
		Needed: c.Needed, List: strings.TrimPrefix(l.path(""), apiPath), Reasons: quickReasons(),
		Decided: momentOf(c.DecidedAt, now, zone), Reason: c.DecisionReason, Edited: c.Edited != nil, Message: c.Message, Edits: p.edits(c.Action)}
	if v.Object == "" {
		v.Object = c.TargetID
	}
	v.Fact, v.Yes = v.Action, "Approve"
	if a, ok := p.Catalog.Find(c.Action); ok && a.Lends() {
		v.Fact, v.Yes = "Lend", "Lend"
	}
	if v.Object != "" {
		v.Fact += " “" + visibleText(v.Object) + "”"
	}
	v.Closed = !v.Pending && !v.Failed
	v.Rebases = c.Stale && onlyStale(c.Checks)
	for _, w := range c.ApprovedBy {
		v.Voters = append(v.Voters, w.Name)
		v.Noted = v.Noted || w.ID == in.me.User.ID
	}
	if c.DecidedBy != nil {
		v.DecidedBy = c.DecidedBy.Name
		v.AtOnce = c.Status == approvals.Approved && c.DecidedBy.Kind == access.KindSystem
	}
	if c.Error != nil {
		v.Error, v.ErrorFix = sentence(c.Error.Message), c.Error.Fix
	}
	if c.Result != nil {
		v.Result = indent(c.Result)
	}
	if c.Outside != "" {
		v.Outside, v.Warning = outsideStatus(c.Outside), catalog.Warning(c.Result)
		v.Unsettled = c.Outside == catalog.Queued
		var made struct{ ID string }
		if json.Unmarshal(c.Result, &made) == nil && slices.Contains(messageKinds, c.Resource) {
			v.Sent = messagesPath + "/" + made.ID
		}
		if c.Execution == approvals.Done {
			v.Badge = v.Outside
		}
	}
	v.facts(c, zone)
	v.original(c, zone)
	v.choices(c, deciders, now)
	return v
}

// onlyStale reports whether nothing but the change of the target stands against
// approving.
func onlyStale(checks []approvals.Check) bool {
	for _, check := range checks {
		if check.Blocks && !check.OK && check.Name != "target" {
			return false
		}
	}
	return true
}

// choices fills what the decider can choose.
func (v *card) choices(c approvals.Card, deciders []access.User, now time.Time) {
	if c.MayLend {
		v.Lends = lendOptions()
	}
	if deciders != nil {
		v.Assignee = []option{{"", "Nobody in particular", c.Assignee == ""}}
		for _, u := range deciders {
			v.Assignee = append(v.Assignee, option{u.ID, visibleText(u.Name), u.ID == c.Assignee})
		}
	}
	for _, h := range []int{24, 72, 168, 720} {
		if now.Add(time.Duration(h) * time.Hour).After(c.ExpiresAt) {
			v.Extensions = append(v.Extensions, option{fmt.Sprint(h), hoursTitle(h) + " from now", false})
		}
	}
}

// viaOf says through what the request came.
func viaOf(v approvals.View) string {
	kind := map[access.Kind]string{access.KindKey: "API key", access.KindOAuth: "connected app"}[v.RequestedBy.Kind]
	if kind == "" {
		kind = string(v.RequestedBy.Kind)
	}
	switch v.Request.Door {
	case "mcp":
		return kind + " over MCP"
	case "rest":
		return kind + " over REST"
	}
	return kind
}

// facts shows the fields, what changes apart from the rest.
func (v *card) facts(c approvals.Card, zone string) {
	unit := ""
	for _, f := range c.Facts {
		if f.Name == "currency" {
			for _, raw := range []json.RawMessage{f.Current, f.Proposed} {
				if s, ok := textOf(raw); ok {
					unit = s
				}
			}
		}
	}
	for _, f := range c.Facts {
		show := func(raw json.RawMessage) shown { return showValue(raw, f, c.Titles, unit, zone) }
		s := shownFact{f.Name, labelOf(f.Name), show(f.Base), show(f.Current), show(f.Proposed), f.Changes, f.Stale}
		if f.Changes || f.Stale {
			v.Changes = append(v.Changes, s)
		} else {
			v.Others = append(v.Others, s)
		}
	}
	v.Fresh = !slices.ContainsFunc(v.Changes, func(s shownFact) bool { return s.Stale || !s.Base.Empty || !s.Current.Empty })
}

// original shows what the agent had asked for where a person has edited it.
func (v *card) original(c approvals.Card, zone string) {
	var asked, edited map[string]json.RawMessage
	if c.Edited == nil || json.Unmarshal(c.Input, &asked) != nil || json.Unmarshal(c.Edited, &edited) != nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		if !bytes.Equal(asked[name], edited[name]) {
			f := approvals.Fact{Name: name}
			for _, each := range c.Facts {
				if each.Name == name {
					f.Type, f.Ref = each.Type, each.Ref
				}
			}
			v.Original = append(v.Original, shownFact{Name: name, Label: labelOf(name), Proposed: showValue(asked[name], f, c.Titles, "", zone)})
		}
	}
}

// labelOf makes words of a field's name.
func labelOf(name string) string {
	words := strings.ReplaceAll(strings.TrimSuffix(name, "_id"), "_", " ")
	return strings.ToUpper(words[:1]) + words[1:]
}

func textOf(raw json.RawMessage) (string, bool) {
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil && raw != nil
}

// foldAfter is how many lines of a value show before it folds, and foldChars how
// many characters.
const (
	foldAfter = 12
	foldChars = 1200
)

// showValue returns a value as people read it.
func showValue(raw json.RawMessage, f approvals.Fact, titles map[string]string, unit, zone string) shown {
	if raw == nil {
		return shown{Empty: true}
	}
	var b strings.Builder
	text, isText := textOf(raw)
	switch {
	case f.Ref != "" && isText:
		if title := titles[text]; title != "" {
			return shown{Head: visible(title) + template.HTML(` <span class="mono small soft">`+template.HTMLEscapeString(text)+`</span>`)}
		}
		b.WriteString(text)
	case f.Type == catalog.TypeMoney:
		b.WriteString(money(string(raw), unit))
	case f.Type == catalog.TypeDateTime && isText:
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			b.WriteString(text)
			break
		}
		b.WriteString(t.In(location(zone)).Format("2 January 2006, 15:04 MST"))
	case f.Type == catalog.TypeBoolean:
		b.WriteString(map[string]string{"true": "yes", "false": "no"}[string(raw)])
	case f.Type == catalog.TypeTags:
		var tags []string
		if json.Unmarshal(raw, &tags) == nil {
			b.WriteString(strings.Join(tags, ", "))
			break
		}
		b.WriteString(indent(raw))
	case isText:
		b.WriteString(text)
	default:
		b.WriteString(indent(raw))
	}
	return fold(b.String())
}

// fold shows the first lines of a long text, and the rest apart.
func fold(s string) shown {
	end, lines := 0, 0
	for end < len(s) && lines < foldAfter && end < foldChars {
		i := strings.IndexByte(s[end:], '\n')
		if i < 0 {
			i = len(s) - end - 1
		}
		end += i + 1
		lines++
	}
	if end >= len(s) && len(s) <= foldChars {
		return shown{Head: visibleLines(s)}
	}
	if end > foldChars {
		end = foldChars
		for end > 0 && s[end]&0xc0 == 0x80 { // within a character
			end--
		}
	}
	return shown{Head: visibleLines(s[:end]), Rest: visibleLines(s[end:])}
}

// visibleLines is visible for text of several lines.
func visibleLines(s string) template.HTML {
	return markHidden(s, func(r rune) bool { return r != '\n' && r != '\t' && unseen.Hidden(r) })
}

// money shows an amount in minor units with its currency.
func money(minor, unit string) string {
	n, ok := new(big.Int).SetString(minor, 10)
	if !ok {
		return minor
	}
	c, err := currency.ParseISO(unit)
	if err != nil {
		return minor + " (minor units)"
	}
	scale, _ := currency.Standard.Rounding(c)
	one := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)
	amount := new(big.Rat).SetFrac(n, one).FloatString(scale)
	return grouped(amount) + " " + c.String()
}

// grouped puts commas into the whole part of a number.
func grouped(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, rest, dot := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dot {
		whole += "." + rest
	}
	return sign + whole
}

func indent(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}
