package oauth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"trustpager/access"
	"trustpager/oauth"
)

// A site serves a client's metadata document.
type site struct {
	*httptest.Server
	id    string // the client id
	asked atomic.Int64

	mu   sync.Mutex
	next func(w http.ResponseWriter, r *http.Request)
}

func (s *site) serve(next func(w http.ResponseWriter, r *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
}

// serveJSON serves a body as a good document would be.
func (s *site) serveJSON(body string, header ...string) {
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Write([]byte(body))
	})
}

func (s *site) document(changes string) string {
	return `{"client_id":"` + s.id + `","client_name":"Claude","redirect_uris":["` + callback + `"]` + changes + `}`
}

// newSite starts a TLS server that the fixture reaches as agent.example.
func newSite(t *testing.T) (*site, option) {
	s := &site{id: "https://agent.example/oauth/client.json"}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		next := s.next
		s.mu.Unlock()
		next(w, r)
	}))
	t.Cleanup(s.Close)
	s.serveJSON(s.document(""))
	return s, func(c *oauth.Config) {
		c.Documents = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the test's own server
		}}
	}
}

func (f *fixture) byDocument(id, user string) (oauth.AuthorizationRequest, error) {
	return f.s.Authorize(f.ctx, f.query("client_id", id), user)
}

func TestOAuth_2_10_FetchedOnlyForAPerson(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	if _, err := f.byDocument(s.id, ""); !errors.Is(err, oauth.ErrLoginFirst) || s.asked.Load() != 0 {
		t.Errorf("nobody logged in: got %v after %d fetches", err, s.asked.Load())
	}
	req, err := f.byDocument(s.id, f.user.ID)
	must(t, err)
	if c := req.Client; c.Origin != oauth.Metadata || c.Name != "Claude" || !c.Public() || c.Document.Digest == "" || c.Workspace != "" {
		t.Errorf("got %+v", req.Client)
	}
	if _, err := f.byDocument(s.id, ""); err != nil || s.asked.Load() != 1 {
		t.Errorf("known by now: got %v after %d fetches", err, s.asked.Load())
	}
	r := f.exchange(f.consent("contacts:read", "client_id", s.id), "client_id", s.id)
	want(t, r, 200, "")
	f.works(r.str("access_token"), mcp, true)
	want(t, f.refresh(r.str("refresh_token"), "client_id", s.id), 200, "")
	if _, err := f.s.Authorize(f.ctx, f.query("client_id", s.id, "redirect_uri", "https://evil.example/"), f.user.ID); requestError(t, err).Location != "" {
		t.Error("a redirect URI that is not in the document")
	}
}

func TestOAuth_2_10_HostileDocuments(t *testing.T) {
	s, o := newSite(t)
	for name, body := range map[string]string{
		"other client_id":      strings.Replace(s.document(""), "client.json", "other.json", 1),
		"no client_id":         `{"client_name":"x","redirect_uris":["` + callback + `"]}`,
		"no redirect URIs":     `{"client_id":"` + s.id + `"}`,
		"hostile redirect URI": strings.Replace(s.document(""), callback, "javascript:alert(1)", 1),
		"a secret":             s.document(`,"client_secret":"x"`),
		"private_key_jwt":      s.document(`,"token_endpoint_auth_method":"private_key_jwt"`),
		"client_secret_basic":  s.document(`,"token_endpoint_auth_method":"client_secret_basic"`),
		"only for itself":      s.document(`,"grant_types":["client_credentials"]`),
		"two client ids":       s.document(`,"client_id":"x"`),
		"too long":             s.document(`,"x":"` + strings.Repeat("x", 5<<10) + `"`),
		"too long, by spaces":  s.document("") + strings.Repeat(" ", 5<<10),
		"no JSON":              "<html>",
		"a list":               "[]",
		"NUL":                  s.document(`,"client_uri":"a\u0000"`),
	} {
		f := one(t, o)
		s.serveJSON(body)
		if e := requestError(t, second(f.byDocument(s.id, f.user.ID))); e.Location != "" || e.Fix == "" {
			t.Errorf("%s: got %+v, want a page", name, e)
		}
	}
	for name, next := range map[string]http.HandlerFunc{
		"a redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"not there":    http.NotFound,
		"an outage":    func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"not modified": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotModified) },
		"no media type": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, s.document(""))
		},
	} {
		f := one(t, o)
		s.serve(next)
		before := s.asked.Load()
		if e := requestError(t, second(f.byDocument(s.id, f.user.ID))); e.Location != "" || s.asked.Load() != before+1 {
			t.Errorf("%s: got %+v after %d fetches, want a page", name, e, s.asked.Load()-before)
		}
	}
	f := one(t, o)
	before := s.asked.Load()
	for _, id := range []string{"https://agent.example", "https://agent.example/", "https://agent.example/a#b", "https://u@agent.example/a", "https://agent.example/../a",
		"https://agent.example/./a", "https://agent.example/%2e%2e/a", "HTTPS://agent.example/a", "http://agent.example/a", "https://AGENT.example/a"} {
		if e := requestError(t, second(f.byDocument(id, f.user.ID))); e.Location != "" || s.asked.Load() != before {
			t.Errorf("%s is fetched: %v", id, e)
		}
	}
	refuse := func(c *oauth.Config) {
		o(c)
		c.CheckURL = func(context.Context, string) error { return errors.New("not public") }
	}
	if _, err := one(t, refuse).byDocument(s.id, f.user.ID); err == nil || s.asked.Load() != before {
		t.Error("a URL is fetched that the guard refuses")
	}
}

func second[T any](_ T, err error) error { return err }

func TestOAuth_2_10_Caching(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	fetches := func(want int64) {
		t.Helper()
		before := s.asked.Load()
		_, err := f.byDocument(s.id, f.user.ID)
		must(t, err)
		if got := s.asked.Load() - before; got != want {
			t.Errorf("%d fetches, want %d", got, want)
		}
	}
	s.serveJSON(s.document(""), "Cache-Control", "public, max-age=7200", "ETag", `"one"`)
	fetches(1)
	f.pass(2*time.Hour - time.Second)
	fetches(0)
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != `"one"` {
			t.Errorf("If-None-Match is %q", r.Header.Get("If-None-Match"))
		}
		w.Header().Set("Cache-Control", "no-store") // at least five minutes anyway
		w.WriteHeader(http.StatusNotModified)
	})
	f.pass(time.Second)
	fetches(1)
	f.pass(5*time.Minute - time.Second)
	fetches(0)
	s.serve(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	f.pass(time.Second)
	fetches(1) // the last good copy
	fetches(0)
	s.serveJSON(s.document(""), "Cache-Control", "max-age=99999999")
	f.pass(5 * time.Minute)
	fetches(1)
	f.pass(24 * time.Hour)
	fetches(1)
	s.serve(http.NotFound)
	f.pass(24 * time.Hour)
	if _, err := f.byDocument(s.id, f.user.ID); err == nil {
		t.Error("a client whose document is gone is accepted")
	}
}

func TestOAuth_2_10_AChangeAsksAgain(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	changed := func(document string) bool {
		t.Helper()
		s.serveJSON(document)
		f.pass(24 * time.Hour)
		req, err := f.byDocument(s.id, f.user.ID)
		must(t, err)
		offer, err := f.s.Offer(f.ctx, req, f.ws, f.user)
		must(t, err)
		return offer.Changed
	}
	two := strings.Replace(s.document(""), `"]`, `","https://b.example/cb"]`, 1)
	swapped := strings.Replace(s.document(""), `["`, `["https://b.example/cb","`, 1)
	f.consent("contacts:read", "client_id", s.id)
	if changed(s.document("")) || changed(s.document(`,"client_uri":"https://agent.example/about"`)) {
		t.Error("nothing of weight has changed")
	}
	for name, document := range map[string]string{
		"name": strings.Replace(s.document(""), "Claude", "Clyde", 1),
		"URIs": two,
		"keys": s.document(`,"jwks":{"keys":[]}`),
	} {
		if !changed(document) {
			t.Errorf("a change of the %s is not noticed", name)
		}
	}
	if !changed(two) {
		t.Error("the change was forgotten")
	}
	f.consent("contacts:read", "client_id", s.id)
	if changed(two) || changed(swapped) {
		t.Error("asks again after the consent, or for the order")
	}
	// Between the page and the answer counts too.
	req, err := f.byDocument(s.id, f.user.ID)
	must(t, err)
	offer, err := f.s.Offer(f.ctx, req, f.ws, f.user)
	must(t, err)
	s.serveJSON(strings.Replace(s.document(""), "Claude", "Clyde", 1))
	f.pass(24 * time.Hour)
	_, err = f.byDocument(s.id, f.user.ID)
	must(t, err)
	if _, err := f.s.Allow(f.ctx, offer, []access.Scope{{Resource: "contacts", Rung: "read"}}); err == nil {
		t.Error("the consent to what was shown counts for something else")
	}
}

func TestOAuth_2_10_ConcurrentFetchesAreOne(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	release := make(chan struct{})
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, s.document(""))
	})
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 8 {
		wg.Go(func() {
			if _, err := f.byDocument(s.id, f.user.ID); err != nil {
				failed.Add(1)
			}
		})
	}
	close(release)
	wg.Wait()
	// Whoever comes after the fetch has ended finds the stored copy.
	if failed.Load() != 0 || s.asked.Load() != 1 {
		t.Errorf("%d of eight failed, after %d fetches", failed.Load(), s.asked.Load())
	}
}

func TestOAuth_2_10_HostsOfDocuments(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	req, err := f.byDocument(s.id, f.user.ID)
	must(t, err)
	w := f.ws
	w.Settings.ClientHosts = []string{"client.example"} // that of its redirect URI, which it may claim
	if _, err := f.s.Offer(f.ctx, req, w, f.user); err == nil {
		t.Error("a document's client passes by its redirect host")
	}
	w.Settings.ClientHosts = []string{"agent.example"}
	if _, err := f.s.Offer(f.ctx, req, w, f.user); err != nil {
		t.Errorf("the document's own host: %v", err)
	}
}

func TestOAuth_2_10_FetchesArePerPersonAndHost(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"client_id":"https://%s%s","redirect_uris":["%s"]}`, r.Host, r.URL.RequestURI(), callback)
	})
	// fetched counts how many of n made-up ids of a host somebody may look up.
	fetched := func(user, host string, n int) int {
		t.Helper()
		ok := 0
		for i := range n {
			_, err := f.byDocument(fmt.Sprintf("https://%s/%s?%d", host, user, i), user)
			if err == nil {
				ok++
				continue
			}
			if e := requestError(t, err); e.Location != "" || e.Code != "temporarily_unavailable" || e.Fix == "" {
				t.Errorf("got %+v, want a page that says when", e)
			}
		}
		return ok
	}
	if n := fetched("usr_a", "one.example", 12); n != 10 {
		t.Errorf("%d of twelve at one host, want ten", n)
	}
	if n := fetched("usr_b", "one.example", 3); n != 3 {
		t.Errorf("%d of three by another person at that host", n)
	}
	// Two more of the first person's twenty were counted when they were refused.
	if n := fetched("usr_a", "two.example", 10) + fetched("usr_a", "three.example", 10); n != 8 {
		t.Errorf("%d of twenty at other hosts, want the eight that are left of twenty in all", n)
	}
	f.pass(time.Minute)
	if n := fetched("usr_a", "four.example", 10); n != 10 {
		t.Errorf("%d of ten after a minute", n)
	}
	// However many persons make up ids, a host is not asked without end.
	n := 0
	for i := range 20 {
		n += fetched(fmt.Sprint("usr_", i), "five.example", 10)
	}
	if n != 120 {
		t.Errorf("%d of two hundred at one host, want 120", n)
	}
}

func TestOAuth_2_10_ALimitLeavesTheStoredCopy(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	before, err := f.byDocument(s.id, f.user.ID)
	must(t, err)
	f.pass(24 * time.Hour)
	for i := range 20 {
		f.byDocument(fmt.Sprintf("https://other%d.example/x", i), f.user.ID)
	}
	req, err := f.byDocument(s.id, f.user.ID)
	must(t, err)
	stored, err := f.db.Client(f.ctx, s.id)
	must(t, err)
	if !req.Client.Document.FreshTill.Equal(before.Client.Document.FreshTill) || !stored.Document.FreshTill.Equal(before.Client.Document.FreshTill) {
		t.Error("whoever has used up their fetches makes an old copy fresh")
	}
}

func TestOAuth_2_10_EightFetchesAtATime(t *testing.T) {
	s, o := newSite(t)
	f := one(t, o)
	here, release := make(chan struct{}, 9), make(chan struct{})
	var running, most atomic.Int64
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		here <- struct{}{}
		<-release
		running.Add(-1)
		http.NotFound(w, r)
	})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			e, ok := errors.AsType[*oauth.RequestError](second(f.byDocument(fmt.Sprintf("https://h%d.example/slow", i), f.user.ID)))
			if !ok || e.Code != "invalid_client" || strings.Contains(e.Message, "404") {
				t.Errorf("got %v, want that it could not be fetched, and no status", e)
			}
		})
	}
	for range 8 {
		<-here
	}
	close(release)
	wg.Wait()
	if most.Load() != 8 || s.asked.Load() != 12 {
		t.Errorf("%d fetches at a time, %d in all; want eight, and all twelve in the end", most.Load(), s.asked.Load())
	}
}

func TestOAuth_2_10_WaitingForAFetchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := oauth.FetchServer()
		start := time.Now()
		if err := oauth.StartFetch(t.Context(), s); !errors.Is(err, oauth.ErrBusy) || time.Since(start) != 5*time.Second {
			t.Errorf("got %v after %v, want that it is busy after five seconds", err, time.Since(start))
		}
		oauth.EndFetch(s)
		if err := oauth.StartFetch(t.Context(), s); err != nil {
			t.Errorf("one has ended: %v", err)
		}
	})
}
