// Package strictjson refuses JSON that two readers could understand
// differently, or that the database cannot keep, before anything acts on it.
package strictjson

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"trustpager/problem"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 32

// MaxTokens is how many names, values and brackets a body may have: what reads
// it takes far longer over each than over a byte of text.
const MaxTokens = 20_000

// maxEnvelopeNames bounds the members of the two outer objects that
// [CheckEnvelope] compares with each other.
const maxEnvelopeNames = 64

// Check reports whether b is exactly one JSON value that every reader
// understands the same way: valid UTF-8 without lone surrogates or NUL, no
// name twice in an object, nested no deeper than [MaxDepth], of no more than
// [MaxTokens], nothing after it.
// Otherwise it fails with [problem.InvalidBody], saying where and how to mend
// it. Names that differ only in case are different names.
func Check(b []byte) error { return check(b, false) }

// CheckEnvelope is [Check] for a protocol message: an object whose own names,
// and the names in its member params, must also differ by more than case, as
// some JSON readers take "METHOD" for "method". Deeper names are the caller's
// data and may.
func CheckEnvelope(b []byte) error { return check(b, true) }

// A decoder is what one check needs; it is kept for the next.
type decoder struct {
	buf   bytes.Buffer
	json  jsontext.Decoder
	names [2][]string // of the envelope and of its params
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

func check(b []byte, envelope bool) error {
	d := decoders.Get().(*decoder)
	defer func() {
		d.buf = bytes.Buffer{}
		d.json.Reset(&d.buf) // b belongs to the caller
		decoders.Put(d)
	}()
	d.buf = *bytes.NewBuffer(b)
	d.json.Reset(&d.buf)
	// The escape is the only way to write NUL in valid JSON.
	err := d.walk(b, envelope, bytes.Contains(b, []byte(`\u0000`)))
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*problem.Error](err); ok {
		return e
	}
	return d.refusal(b, err)
}

// walk reads all of d's tokens. What jsontext refuses by itself comes back as
// its error.
func (d *decoder) walk(b []byte, envelope, nul bool) error {
	dec := &d.json
	for i := range d.names {
		d.names[i] = d.names[i][:0]
	}
	if envelope && dec.PeekKind() != '{' && dec.PeekKind() != 0 {
		return problem.Errorf(problem.InvalidBody, "the body is %s, not an object", kindName(dec.PeekKind())).
			WithFix("Send one JSON object.")
	}
	inParams, tokens := false, 0
	for first := true; ; first = false {
		depth := dec.StackDepth()
		if depth == 0 && !first {
			break
		}
		tok, err := dec.ReadToken()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if tokens++; tokens > MaxTokens {
			return refuse(b, dec.InputOffset()-1, "more than %d names, values and brackets", MaxTokens).
				WithFix("Send less data; split the work into several calls.")
		}
		switch tok.Kind() {
		case '{', '[':
			if depth == MaxDepth {
				return refuse(b, dec.InputOffset()-1, "nested deeper than %d levels at %s", MaxDepth, dotted(dec.StackPointer())).
					WithFix("Send flatter data.")
			}
		case '"':
			if nul && strings.IndexByte(tok.String(), 0) >= 0 {
				return refuse(b, dec.InputOffset()-1, "the string at %s holds the character NUL (\\u0000)", dotted(dec.StackPointer())).
					WithFix("Leave NUL characters out; they cannot be stored.")
			}
			if !envelope || depth > 2 || depth == 2 && !inParams {
				break
			}
			if kind, length := dec.StackIndex(depth); kind != '{' || length%2 == 0 {
				break // an element or a value, not a name
			}
			name := tok.String()
			if depth == 1 {
				inParams = name == "params"
			}
			if err := d.addName(depth-1, name); err != nil {
				return refuse(b, dec.InputOffset()-1, "%s", err)
			}
		}
	}
	if _, err := dec.ReadToken(); err == nil {
		return refuse(b, dec.InputOffset()-1, "something follows the end of the value").
			WithFix("Send exactly one JSON value.")
	} else if err != io.EOF {
		return err
	}
	return nil
}

// addName remembers a name of the envelope (level 0) or of its params (1).
func (d *decoder) addName(level int, name string) error {
	if len(d.names[level]) == maxEnvelopeNames {
		return errors.New("the message has more than " + strconv.Itoa(maxEnvelopeNames) + " members")
	}
	for _, other := range d.names[level] {
		if strings.EqualFold(other, name) {
			return errors.New("the names " + strconv.Quote(other) + " and " + strconv.Quote(name) + " differ only in case")
		}
	}
	d.names[level] = append(d.names[level], name)
	return nil
}

// refusal puts what jsontext says about b in our words.
func (d *decoder) refusal(b []byte, err error) error {
	offset, path := d.json.InputOffset(), d.json.StackPointer()
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset, path = e.ByteOffset, e.JSONPointer
		err = e.Err
	}
	if path.LastToken() != "" && errors.Is(err, jsontext.ErrDuplicateName) {
		return refuse(b, offset, "the name %s stands twice in one object", dotted(path)).
			WithFix("Send each name once.")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return problem.Errorf(problem.InvalidBody, "the body is empty").WithFix("Send JSON.")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(b, int64(len(b)), "the JSON ends too early").
			WithFix("Send the whole value; check that every bracket and quote is closed.")
	}
	text := strings.TrimPrefix(err.Error(), "jsontext: ")
	e := refuse(b, offset, "the body is not valid JSON: %s", text)
	if strings.Contains(text, "UTF-8") || strings.Contains(text, "surrogate") {
		return e.WithFix("Encode text as UTF-8, without lone surrogates.")
	}
	return e.WithFix("Mend the JSON there.")
}

// refuse returns the error for what stands at offset in b.
func refuse(b []byte, offset int64, format string, args ...any) *problem.Error {
	offset = min(max(offset, 0), int64(len(b)))
	before := b[:offset]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := 1 + len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	e := problem.Errorf(problem.InvalidBody, format, args...)
	e.Message += " (line " + strconv.Itoa(line) + ", column " + strconv.Itoa(column) + ")"
	return e
}

// dotted returns p as a path like stages.0.name, shortened.
func dotted(p jsontext.Pointer) string {
	if p == "" {
		return "the top"
	}
	var parts []string
	for t := range p.Tokens() {
		parts = append(parts, t)
	}
	s := strconv.Quote(strings.Join(parts, "."))
	if r := []rune(s); len(r) > 120 {
		s = string(r[:119]) + `…"`
	}
	return s
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	}
	return k.String()
}

// ReadBody returns the body of r, which must be JSON by its Content-Type (or
// say nothing about it), not compressed, and no longer than limit bytes. It fails with
// [problem.UnsupportedType], [problem.TooLarge] or, if the body cannot be
// read, [problem.InvalidBody]. It does not look into the body; see [Check].
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	if t := r.Header.Get("Content-Type"); t != "" && t != "application/json" {
		media, params, err := mime.ParseMediaType(t)
		charset := params["charset"]
		if err != nil || media != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
			return nil, problem.Errorf(problem.UnsupportedType, "the Content-Type is %.100q", t).
				WithFix("Send JSON in UTF-8 with Content-Type: application/json.")
		}
	}
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 && !strings.EqualFold(strings.Join(e, ","), "identity") {
		return nil, problem.Errorf(problem.UnsupportedType, "the Content-Encoding is %.50q", strings.Join(e, ",")).
			WithFix("Send the body as it is, without Content-Encoding.")
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	var buf bytes.Buffer
	// Beyond that the memory comes with the bytes: a client that only announces
	// them does not hold it for as long as it can keep the connection open.
	if n := r.ContentLength; n > 0 {
		buf.Grow(int(min(n, 64<<10)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(http.MaxBytesReader(nil, r.Body, limit)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge(limit)
		}
		return nil, problem.Errorf(problem.InvalidBody, "the body could not be read to its end").
			WithFix("Send it again.")
	}
	return buf.Bytes(), nil
}

func tooLarge(limit int64) error {
	return problem.Errorf(problem.TooLarge, "the body is larger than %d bytes", limit).
		WithFix("Send at most %d bytes; split the work into several calls.", limit)
}
