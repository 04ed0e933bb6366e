package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"trustpager/admin"
	"trustpager/problem"
)

// A browser that has logged in to an account shows a cookie that says so when
// it comes again. It opens nothing: it only keeps strangers who try passwords
// from using up the tries of the account's owner.

// knownLifetime is how long a browser is known.
const knownLifetime = 365 * 24 * time.Hour

// knownSuffix makes the cookie's name of that of the session.
const knownSuffix = "-known"

// knownBrowser is what is stored of a known browser, beside the sessions.
type knownBrowser struct {
	Known string `json:"known"` // the account's e-mail address
}

// knownHash is what the token is stored under: never that of a session.
func knownHash(token string) string { return hashToken("known " + token) }

// knows reports whether the browser has logged in to the account before.
func (p *Pages) knows(r *http.Request, email string) (bool, error) {
	c, err := r.Cookie(p.sessions.Cookie.Name + knownSuffix)
	if err != nil {
		return false, nil
	}
	data, expires, err := p.Sessions.Session(r.Context(), knownHash(c.Value))
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var b knownBrowser
	if err := json.Unmarshal(data, &b); err != nil {
		return false, err
	}
	return p.Now().Before(expires) && b.Known != "" && strings.EqualFold(b.Known, email), nil
}

// remember makes the browser known, and returns the cookie that says so.
func (p *Pages) remember(ctx context.Context, me admin.Person) (*http.Cookie, error) {
	token := rand.Text()
	data, err := json.Marshal(knownBrowser{me.User.Email})
	if err != nil {
		return nil, err
	}
	if err := p.Sessions.CreateSession(ctx, knownHash(token), data, p.Now().Add(knownLifetime)); err != nil {
		return nil, err
	}
	session := p.sessions.Cookie
	return &http.Cookie{Name: session.Name + knownSuffix, Value: token, Path: "/", MaxAge: int(knownLifetime / time.Second),
		HttpOnly: true, Secure: session.Secure, SameSite: http.SameSiteStrictMode}, nil
}
