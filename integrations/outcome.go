package integrations

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"trustpager/unseen"
)

// An Outcome says what became of something that was handed to the outside and
// did not succeed. The zero Outcome is none.
type Outcome string

// The outcomes.
const (
	// Refused means that the peer said no for good: it has not taken it, and is
	// not going to if it is asked again.
	Refused Outcome = "refused"
	// Temporary means that nothing was taken, and that another try may help:
	// the peer could not be reached or was busy, or the account is not set up
	// right, which an admin may mend.
	Temporary Outcome = "temporary"
	// Unknown means that it may have been taken: all of it had been sent when
	// the connection was lost, or when the peer answered with a fault of its own
	// that does not say.
	Unknown Outcome = "unknown"
)

// A Failure is the error of something that was handed to the outside. Its text
// is fit for people to read: it holds no password, key or token, and what the
// peer said stands in it shortened and with hidden characters visible.
type Failure struct {
	Outcome    Outcome
	Err        error
	Code       string        // the peer's own code, as in "550", "21211" or "insufficient_quota"; "" if it gave none
	RetryAfter time.Duration // how long the peer wants to be left alone, a day at most; 0 means unsaid
}

// Error returns what was tried and what the peer said.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// OutcomeOf returns the outcome that err, or an error that it wraps, tells of.
// An error that is no [Failure] is [Temporary]: it arose before anything was
// sent. Of nil it is "".
func OutcomeOf(err error) Outcome {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Outcome
	}
	return Temporary
}

// maxReason is how many characters of a peer's words stand in an error.
const maxReason = 500

// failure returns err as a [Failure] with the outcome, whose text begins with
// what was tried. The secrets are taken out of it, should a peer repeat them.
func failure(outcome Outcome, tried string, err error, secrets ...string) *Failure {
	f := &Failure{Outcome: outcome}
	if inner, ok := errors.AsType[*Failure](err); ok {
		f.Code, f.RetryAfter = inner.Code, inner.RetryAfter
	}
	f.Err = fmt.Errorf("%s: %w", tried, clean(err, secrets...))
	return f
}

// clean returns err itself if its text is fit to be shown, and otherwise an
// error with what can be shown of it.
func clean(err error, secrets ...string) error {
	text := err.Error()
	for _, s := range secrets {
		if len(s) < 4 { // to take it out of every word would only show it
			continue
		}
		quoted := strconv.Quote(s)
		for _, form := range []string{s, quoted[1 : len(quoted)-1], base64.StdEncoding.EncodeToString([]byte(s)), url.QueryEscape(s), url.PathEscape(s)} {
			text = strings.ReplaceAll(text, form, "[password]")
		}
	}
	text = clip(unseen.Text(strings.Join(strings.Fields(text), " ")), maxReason)
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
