package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"sync"
	"testing"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// fill puts so many contacts, and so many approvals of keys of 50 each, into the
// server's workspace.
func fill(tb testing.TB, s *servertest.Server, contacts, waiting int) {
	tb.Helper()
	ask := func(key string) func(i int) {
		g, err := s.Auth.Authenticate(context.Background(), key, "")
		if err != nil {
			tb.Fatal(err)
		}
		create, _ := s.Catalog.Find("create_contact")
		return func(i int) {
			body := fmt.Appendf(nil, `{"first_name":"Contact %d","last_name":"Bench","email":"c%d@example.com","notes":"Number %d","reason":"There was none yet."}`, i, i, i)
			if _, err := s.Gate.Do(context.Background(), g, create, approvals.Incoming{Input: body,
				Request: approvals.Request{Door: "rest", Method: "POST", Path: "/v1/contacts", Body: body}}); err != nil {
				tb.Error(err)
			}
		}
	}
	var all sync.WaitGroup
	const workers = 16
	for worker := range workers {
		make := ask(s.Full)
		all.Go(func() {
			for i := worker; i < contacts; i += workers {
				make(i)
			}
		})
	}
	scopes := []string{"contacts:delete-approval"}
	for i := 0; i < waiting; i += 50 {
		key, _ := s.AddKey(admin.KeyInput{Name: new(fmt.Sprintf("Agent %d", i/50)), Scopes: &scopes})
		propose := ask(key)
		all.Go(func() {
			for j := i; j < min(i+50, waiting); j++ {
				propose(j)
			}
		})
	}
	all.Wait()
}

// A visitor is somebody who is logged in, without a browser.
type visitor struct {
	tb     testing.TB
	s      *servertest.Server
	client *http.Client
}

func visit(tb testing.TB, s *servertest.Server, u access.User) *visitor {
	tb.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		tb.Fatal(err)
	}
	v := &visitor{tb, s, &http.Client{Jar: jar}}
	res, err := v.client.PostForm(s.URL+"/login", url.Values{"email": {u.Email}, "password": {pagesPassword}})
	if err != nil {
		tb.Fatal(err)
	}
	res.Body.Close()
	if res.Request.URL.Path != "/" {
		tb.Fatalf("the login led to %s", res.Request.URL)
	}
	return v
}

// get fetches a page.
func (v *visitor) get(path string) {
	res, err := v.client.Get(v.s.URL + path)
	if err != nil {
		v.tb.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := res.Body.Read(make([]byte, 1)); err != nil || res.StatusCode != 200 {
		v.tb.Fatalf("%s: got %d, %v", path, res.StatusCode, err)
	}
}

// somePages are the pages that an admin looks at, by their names.
func somePages(tb testing.TB, s *servertest.Server) map[string]string {
	tb.Helper()
	list := s.Do("GET", "/v1/approvals?status=pending&limit=1", s.Full, "").Want(tb, 200)
	id := list.Text("data.0.id")
	client, err := s.Desk.CreateClient(tb.Context(), admin.OperatorGrant(s.Workspace), admin.ClientInput{Name: new("Service"), ClientCredentials: new(true)})
	if err != nil {
		tb.Fatal(err)
	}
	hook, _ := subscribe(tb, s, s.Full, "http://127.0.0.1:9999/", "contacts.*")
	return map[string]string{
		"home":      "/",
		"inbox":     inbox,
		"grouped":   inbox + "&group=agent",
		"card":      inbox + "&approval=" + id,
		"all":       inbox + "&show=all",
		"decided":   inbox + "&show=decided",
		"assigned":  inbox + "&show=mine",
		"of one":    inbox + "&by=" + list.Text("data.0.requested_by.id"),
		"edit":      "/settings/api/approvals/" + id + "/edit",
		"keys":      "/settings/api?tab=keys",
		"key":       "/settings/api/keys/" + s.AgentID,
		"usage":     "/settings/api/keys/" + s.AgentID + "/usage",
		"clients":   "/settings/api?tab=clients",
		"client":    "/settings/api/clients/" + client.Client.ID,
		"tokens":    "/settings/api/clients/" + client.Client.ID + "?tab=tokens",
		"rules":     "/settings/approvals",
		"webhooks":  "/settings/webhooks",
		"webhook":   "/settings/webhooks/" + hook,
		"log":       "/settings/webhooks/" + hook + "/deliveries",
		"billing":   "/settings/billing",
		"pause":     "/settings/pause",
		"connect":   "/connect",
		"connected": "/connections",
		"account":   "/account",
	}
}

// Each page with 100,000 contacts and 10,000 approvals that wait, for one person
// at a time.
func BenchmarkPages(b *testing.B) {
	for engine, url := range map[string]func() string{
		"sqlite":   func() string { return b.TempDir() + "/bench.db" },
		"postgres": func() string { return storagetest.Postgres(b) },
	} {
		s := servertest.New(b, url(), servertest.Options{Alone: true, Config: func(c *server.Config) { c.Now = nil }})
		fill(b, s, 100_000, 10_000)
		v := visit(b, s, addAdmin(b, s))
		for name, path := range somePages(b, s) {
			b.Run(engine+"/"+name, func(b *testing.B) {
				for b.Loop() {
					v.get(path)
				}
			})
		}
	}
}

// No page asks the database for each of its rows: with ten times as many rows it
// runs no more statements.
func TestPagesRunNoStatementPerRow(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Alone: true}) // each process remembers what it has read
		fill(t, s, 4, 4)
		v := visit(t, s, addAdmin(t, s))
		pages := somePages(t, s)
		count := func() map[string]int64 {
			counts := map[string]int64{}
			for name, path := range pages {
				v.get(path) // what is remembered is remembered
				before := s.DB.Statements()
				v.get(path)
				counts[name] = s.DB.Statements() - before
			}
			return counts
		}
		few := count()
		fill(t, s, 40, 40)
		for range 10 {
			addKeyAndClient(t, s)
		}
		for name, many := range count() {
			if many > few[name] || few[name] == 0 {
				t.Errorf("%s: %d statements with few rows, %d with many", name, few[name], many)
			}
		}
	})
}

// addKeyAndClient makes a key and a client that has been connected.
func addKeyAndClient(t *testing.T, s *servertest.Server) {
	t.Helper()
	scopes := []string{"contacts:read"}
	s.AddKey(admin.KeyInput{Name: new("one more"), Scopes: &scopes})
	c := newService(t, s, "contacts:read")
	s.Do("GET", "/v1/me", c.token(t, s.URL), "").Want(t, 200)
}
