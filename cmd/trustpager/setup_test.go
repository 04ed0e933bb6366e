package main

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"trustpager/storage/storagetest"
)

// A server that nobody can log in to says how to set it up, on each start anew,
// until somebody has.
func TestServePrintsTheSetUpLink(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		first := serveBeside(t, db)
		old := first.info.SetUpURL
		if !strings.HasPrefix(old, first.info.BaseURL+"/setup?token=") {
			t.Fatalf("setup_url = %q, want a link", old)
		}
		if code := first.stop(); code != 0 {
			t.Fatalf("exit status %d", code)
		}
		var logged struct {
			Level string `json:"level"`
			Link  string `json:"setup_url"`
		}
		if err := json.Unmarshal(first.stderr.Bytes(), &logged); err != nil || logged.Link != old || logged.Level != "WARN" {
			t.Errorf("standard error has %q (%v), want the link", first.stderr.String(), err)
		}

		p := serveBeside(t, db)
		link, err := url.Parse(p.info.SetUpURL)
		if err != nil || p.info.SetUpURL == old {
			t.Fatalf("the second start printed %q (%v), want another link", p.info.SetUpURL, err)
		}
		jar, _ := cookiejar.New(nil) // cannot fail
		browser := &http.Client{Jar: jar}
		status := func(res *http.Response, err error) int {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode
		}
		form := url.Values{"workspace": {"Acme"}, "time_zone": {"UTC"}, "name": {"Ada"}, "email": {"ada@example.com"}, "password": {"kitchen plumb orbit"}}
		form.Set("token", strings.TrimPrefix(old, first.info.BaseURL+"/setup?token="))
		if got := status(browser.PostForm(p.info.BaseURL+"/setup", form)); got != 404 {
			t.Errorf("with the link of the first start: got %d, want 404", got)
		}
		form.Set("token", link.Query().Get("token"))
		if got := status(browser.PostForm(p.info.BaseURL+"/setup", form)); got != 200 {
			t.Errorf("set up: got %d, want the first page", got)
		}
		if got := status(browser.Get(p.info.BaseURL + "/connections")); got != 200 {
			t.Errorf("after the set-up: got %d, want to be logged in", got)
		}
		p.stop()
		if n := strings.Count(p.stderr.String(), form.Get("token")); n != 1 {
			t.Errorf("the token is %d times in the log, want once, at the start:\n%s", n, p.stderr.String())
		}
		if last := serveBeside(t, db); last.info.SetUpURL != "" {
			t.Errorf("after the set-up: setup_url = %q, want none", last.info.SetUpURL)
		}
		if out := ok(t, db, "user", "list"); !strings.Contains(out, "owner") {
			t.Errorf("user list: got %q, want the owner", out)
		}
	})
}

func TestDemoPrintsNoSetUpLink(t *testing.T) {
	p := demo(t, t.TempDir()+"/demo.db")
	p.stop() // nobody writes to its standard error then
	if p.info.SetUpURL != "" || strings.Contains(p.stderr.String(), "setup") {
		t.Errorf("got %q, %q; want nothing about setting up", p.info.SetUpURL, p.stderr.String())
	}
}

func TestMailSettingsAreCheckedAtStart(t *testing.T) {
	dir := t.TempDir() + "/x.db"
	for _, tt := range []struct{ want, flag, value string }{
		{"--mail-from", "--smtp-url", "smtp://user:hunter2@mail.example.com"},
		{"not of the form", "--smtp-url", "smtp://user:hunter2@mail.example.com:x"},
		{"not an e-mail address", "--mail-from", "nobody"},
	} {
		_, errs, code := command(t, dir, "", "serve", "--listen", "127.0.0.1:0", tt.flag, tt.value)
		if code != 1 || !strings.Contains(errs, tt.want) || strings.Contains(errs, "hunter2") {
			t.Errorf("%s %s: got exit status %d, %q; want 1 and %q", tt.flag, tt.value, code, errs, tt.want)
		}
	}
}
