package web

import (
	"context"
	"crypto/rand"
)

// A form whose answer shows a secret cannot be answered with a redirect, so a
// browser that reloads the answer sends the form again. The form holds a random
// name, which the session remembers once it was used.

// newOnce returns the name of a form that is to be taken once.
func newOnce() string { return rand.Text() }

// takeOnce reports whether the form is taken for the first time.
func (p *Pages) takeOnce(ctx context.Context, once string) bool {
	if len(once) == 0 || len(once) > 64 || p.sessions.GetString(ctx, onceKey) == once {
		return false
	}
	p.sessions.Put(ctx, onceKey, once)
	return true
}
