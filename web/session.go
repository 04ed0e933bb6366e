package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"

	"trustpager/admin"
	"trustpager/problem"
)

// Sessions keeps sessions by the SHA-256 of their token, in hex.
type Sessions interface {
	// Session returns a session's data and when it ends. It fails with
	// [problem.NotFound].
	Session(ctx context.Context, hash string) (data []byte, expires time.Time, err error)
	// CreateSession stores a new session.
	CreateSession(ctx context.Context, hash string, data []byte, expires time.Time) error
	// UpdateSession changes a session. One that is gone stays gone.
	UpdateSession(ctx context.Context, hash string, data []byte, expires time.Time) error
	// DeleteSession forgets a session. Doing it twice is fine.
	DeleteSession(ctx context.Context, hash string) error
}

// How long a session lasts.
const (
	sessionLifetime = 14 * 24 * time.Hour
	sessionIdle     = 24 * time.Hour
	// seenEvery is how often the last use is stored: a page costs no write.
	seenEvery = 10 * time.Minute
)

// What a session holds.
const (
	userKey   = "user"   // id
	stampKey  = "stamp"  // Person.Stamp as of the login
	seenKey   = "seen"   // last use, RFC 3339
	noticeKey = "notice" // shown on the next page, once
	badKey    = "bad"    // the same, of what did not work

	workspaceKey = "workspace" // that the pages are about
	onceKey      = "once"      // the last form that was taken of those that are taken once
)

// newSessions returns the sessions' manager. The name of its cookie keeps other
// hosts of the domain from setting it.
func newSessions(store Sessions, now func() time.Time, secure bool) *scs.SessionManager {
	clock := clock{now}
	m := scs.New()
	m.Lifetime = sessionLifetime
	m.Store = sessionStore{store, clock}
	m.Codec = clock
	m.Cookie.Name = "trustpager"
	if secure {
		m.Cookie.Name = "__Host-trustpager"
		m.Cookie.Secure = true
	}
	return m
}

// loadedKey is the context key of the token whose session the request came
// with, "" if none.
type loadedKey struct{}

// visitor returns r with its session, and who is logged in by it, or nil. A
// session that no longer holds ends.
func (p *Pages) visitor(r *http.Request) (*http.Request, *admin.Person, error) {
	token := ""
	if c, err := r.Cookie(p.sessions.Cookie.Name); err == nil {
		token = c.Value
	}
	ctx, err := p.sessions.Load(r.Context(), token)
	if err != nil {
		return r, nil, err
	}
	ctx = context.WithValue(ctx, loadedKey{}, p.sessions.Token(ctx))
	r = r.WithContext(ctx)
	user := p.sessions.GetString(ctx, userKey)
	if user == "" {
		return r, nil, nil
	}
	seen, err := time.Parse(time.RFC3339, p.sessions.GetString(ctx, seenKey))
	idle := p.Now().Sub(seen)
	if err != nil || idle > sessionIdle {
		return r, nil, p.sessions.Destroy(ctx)
	}
	me, err := p.Desk.Person(ctx, user)
	if problem.Is(err, problem.NotFound) || err == nil && me.Stamp != p.sessions.GetString(ctx, stampKey) {
		return r, nil, p.sessions.Destroy(ctx)
	}
	if err != nil {
		return r, nil, err
	}
	if idle > seenEvery {
		p.sessions.Put(ctx, seenKey, p.Now().Format(time.RFC3339))
	}
	return r, &me, nil
}

// begin makes the session that of a person. Its new token is unknown to whoever
// may have planted the old one.
func (p *Pages) begin(ctx context.Context, me admin.Person) error {
	if err := p.sessions.RenewToken(ctx); err != nil {
		return err
	}
	p.sessions.Put(ctx, userKey, me.User.ID)
	p.sessions.Put(ctx, stampKey, me.Stamp)
	p.sessions.Put(ctx, seenKey, p.Now().Format(time.RFC3339))
	return nil
}

// tell has the next page say what has happened.
func (p *Pages) tell(ctx context.Context, notice string) { p.sessions.Put(ctx, noticeKey, notice) }

// warn is tell for what did not work.
func (p *Pages) warn(ctx context.Context, notice string) { p.sessions.Put(ctx, badKey, notice) }

// saveSession stores what has changed, and tells the browser. It is ours, not
// the middleware of scs, which sends an error and the page after it if the
// store fails.
func (p *Pages) saveSession(w http.ResponseWriter, ctx context.Context) error {
	switch p.sessions.Status(ctx) {
	case scs.Modified:
		token, expires, err := p.sessions.Commit(ctx)
		if err != nil {
			return err
		}
		p.sessions.WriteSessionCookie(ctx, w, token, expires)
	case scs.Destroyed:
		p.sessions.WriteSessionCookie(ctx, w, "", time.Time{})
	}
	return nil
}

// A clock translates between the time of scs, which is always the system's, and
// ours, so that everything stored is in ours. It is the codec of sessions too,
// because their deadline is in the data.
type clock struct{ now func() time.Time }

func (c clock) ours(t time.Time) time.Time   { return c.now().Add(time.Until(t)) }
func (c clock) theirs(t time.Time) time.Time { return time.Now().Add(t.Sub(c.now())) }

// A sessionBody is a session as it is stored.
type sessionBody struct {
	Deadline time.Time      `json:"deadline"`
	Values   map[string]any `json:"values"`
}

// Encode returns the session as it is stored.
func (c clock) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return json.Marshal(sessionBody{c.ours(deadline), values})
}

// Decode is the inverse of Encode.
func (c clock) Decode(b []byte) (time.Time, map[string]any, error) {
	s := sessionBody{Values: map[string]any{}}
	err := json.Unmarshal(b, &s)
	return c.theirs(s.Deadline), s.Values, err
}

// A sessionStore is the store that scs wants, which sees hashes only.
type sessionStore struct {
	sessions Sessions
	clock    clock
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// FindCtx returns the session of the token, if there is one in force.
func (s sessionStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	data, expires, err := s.sessions.Session(ctx, hashToken(token))
	if problem.Is(err, problem.NotFound) {
		return nil, false, nil
	}
	return data, err == nil && expires.After(s.clock.now()), err
}

// CommitCtx stores the session of the token. One that the request came with is
// only changed: a request in flight must not bring back what another has ended
// meanwhile by logging out.
func (s sessionStore) CommitCtx(ctx context.Context, token string, data []byte, expires time.Time) error {
	save := s.sessions.CreateSession
	if loaded, _ := ctx.Value(loadedKey{}).(string); loaded == token {
		save = s.sessions.UpdateSession
	}
	return save(ctx, hashToken(token), data, s.clock.ours(expires))
}

// DeleteCtx forgets the session of the token.
func (s sessionStore) DeleteCtx(ctx context.Context, token string) error {
	return s.sessions.DeleteSession(ctx, hashToken(token))
}

// Find is FindCtx; scs calls it for stores without contexts only.
func (s sessionStore) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit is CommitCtx; scs calls it for stores without contexts only.
func (s sessionStore) Commit(token string, data []byte, expires time.Time) error {
	return s.CommitCtx(context.Background(), token, data, expires)
}

// Delete is DeleteCtx; scs calls it for stores without contexts only.
func (s sessionStore) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }
