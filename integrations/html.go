package integrations

import (
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// unseenElements are those whose content nobody sees.
var unseenElements = map[atom.Atom]bool{
	atom.Script: true, atom.Style: true, atom.Head: true, atom.Template: true, atom.Noscript: true, atom.Iframe: true,
	atom.Object: true, atom.Svg: true, atom.Math: true, atom.Select: true, atom.Textarea: true, atom.Title: true,
}

// blocks are the elements that begin and end on a line of their own; true for
// those with a blank line around.
var blocks = map[atom.Atom]bool{
	atom.P: true, atom.H1: true, atom.H2: true, atom.H3: true, atom.H4: true, atom.H5: true, atom.H6: true, atom.Blockquote: true,
	atom.Ul: true, atom.Ol: true, atom.Table: true, atom.Pre: true, atom.Hr: true,
	atom.Div: false, atom.Tr: false, atom.Li: false, atom.Section: false, atom.Article: false, atom.Header: false, atom.Footer: false,
	atom.Dt: false, atom.Dd: false, atom.Address: false, atom.Center: false, atom.Form: false, atom.Body: false,
}

// voids are the elements that have no end (HTML §13.1.2).
var voids = map[atom.Atom]bool{
	atom.Area: true, atom.Base: true, atom.Br: true, atom.Col: true, atom.Embed: true, atom.Hr: true, atom.Img: true,
	atom.Input: true, atom.Link: true, atom.Meta: true, atom.Source: true, atom.Track: true, atom.Wbr: true,
}

// plainText returns what a person would see of HTML, without what is hidden
// from them, as texts to mislead a program often are. The address of a link
// follows its words. It takes time and memory in proportion to the input.
func plainText(source string) string {
	var out layout
	z := html.NewTokenizer(strings.NewReader(source))
	z.SetMaxBuf(maxText)
	var hidden atom.Atom // the element that hides what we are in
	var hiddenTag string
	depth := 0 // how many elements of that name are open
	var link string
	var linkStart int
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			break
		}
		t := z.Token()
		if depth > 0 {
			switch {
			case hidden == atom.Head && kind == html.StartTagToken && t.DataAtom == atom.Body: // HTML lets the end be left out
				depth = 0
			case t.Data != hiddenTag || t.DataAtom != hidden:
			case kind == html.StartTagToken:
				depth++
			case kind == html.EndTagToken:
				depth--
			}
			continue
		}
		switch kind {
		case html.TextToken:
			out.text(t.Data)
		case html.StartTagToken, html.SelfClosingTagToken:
			if !voids[t.DataAtom] && (unseenElements[t.DataAtom] || hides(t.Attr)) {
				if kind == html.StartTagToken {
					hidden, hiddenTag, depth = t.DataAtom, t.Data, 1
				}
				continue
			}
			blank, block := blocks[t.DataAtom]
			switch {
			case t.DataAtom == atom.Br:
				out.line()
			case block:
				out.block(blank)
			}
			switch t.DataAtom {
			case atom.Li:
				out.text("- ")
			case atom.Td, atom.Th:
				out.text(" ")
			case atom.A:
				link, linkStart = href(t.Attr), out.b.Len()
			}
		case html.EndTagToken:
			if t.DataAtom == atom.A && link != "" {
				words := strings.TrimSpace(out.b.String()[min(linkStart, out.b.Len()):])
				if words != link && words != strings.TrimPrefix(link, "mailto:") && words != "" {
					out.text(" <" + link + ">")
				}
				link = ""
			}
			if blank, block := blocks[t.DataAtom]; block {
				out.block(blank)
			}
		}
	}
	return strings.TrimSpace(cleanText(limit(out.b.String(), maxText)))
}

// hides reports whether an element with the attributes is not seen.
func hides(attributes []html.Attribute) bool {
	for _, a := range attributes {
		switch a.Key {
		case "hidden":
			return true
		case "style":
			style := strings.ToLower(strings.Join(strings.Fields(a.Val), ""))
			for _, s := range []string{"display:none", "visibility:hidden", "font-size:0;", "font-size:0px", "opacity:0;", "mso-hide:all"} {
				if strings.Contains(style+";", s) {
					return true
				}
			}
		}
	}
	return false
}

// href returns where a link leads to, if that is worth telling.
func href(attributes []html.Attribute) string {
	for _, a := range attributes {
		if a.Key == "href" {
			to := cleanLine(a.Val)
			for _, scheme := range []string{"https://", "http://", "mailto:"} {
				if strings.HasPrefix(strings.ToLower(to), scheme) {
					return to
				}
			}
		}
	}
	return ""
}

// A layout sets text in lines, with spaces as HTML has them.
type layout struct {
	b       strings.Builder
	space   bool // a space is due before the next word
	breaks  int  // how many line ends stand at the end
	written bool
}

// text adds text in which runs of white space count as one space.
func (l *layout) text(s string) {
	for i, word := range strings.FieldsFunc(s, isHTMLSpace) {
		if i > 0 || strings.IndexFunc(s, func(r rune) bool { return !isHTMLSpace(r) }) > 0 {
			l.space = true
		}
		if l.space && l.written && l.breaks == 0 {
			l.b.WriteByte(' ')
		}
		l.b.WriteString(word)
		l.space, l.breaks, l.written = false, 0, true
	}
	if s != "" && isHTMLSpace(rune(s[len(s)-1])) {
		l.space = true
	}
}

// isHTMLSpace is the white space of HTML, which the no-break space is not.
func isHTMLSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\f' }

// line ends the line.
func (l *layout) line() {
	if l.written && l.breaks < 2 {
		l.b.WriteByte('\n')
		l.breaks++
	}
	l.space = false
}

// block begins a new line unless one has just begun, with a blank line before it
// if blank.
func (l *layout) block(blank bool) {
	want := 1
	if blank {
		want = 2
	}
	for l.written && l.breaks < want {
		l.line()
	}
	l.space = false
}
