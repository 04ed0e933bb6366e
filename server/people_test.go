package server_test

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"trustpager/admin"
	"trustpager/integrations"
	"trustpager/jobs/jobstest"
	"trustpager/server"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// newcomer starts a server that nobody has set up, with an outbox, and returns
// the token of the set-up.
func newcomer(t *testing.T, db string) (s *servertest.Server, outbox, token string) {
	t.Helper()
	outbox = filepath.Join(t.TempDir(), "outbox")
	s = servertest.New(t, db, servertest.Options{Config: func(c *server.Config) { c.Mail.Outbox = outbox }})
	token, err := s.Desk.OfferSetUp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, outbox, token
}

// sendMail does the jobs that send messages, and returns what they have written
// to the outbox.
func sendMail(t *testing.T, s *servertest.Server, outbox string) []string {
	t.Helper()
	var all []string
	for _, e := range jobstest.Do(t, s.DB, s.Clock.Now, integrations.MailKind, s.Mail.Jobs()) {
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		raw, err := os.ReadFile(filepath.Join(outbox, e.Job.ID+".eml"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.ReplaceAll(string(raw), "\r\n", "\n"))
	}
	return all
}

// The first person sets the server up, forgets their password, and changes it,
// in a browser.
func TestFirstPerson(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s, outbox, token := newcomer(t, db)
		b := browsertest.New(t)
		submit := func(then string) {
			t.Helper()
			b.Do(browsertest.Press("main button.primary"), browsertest.See(then))
		}

		b.Do(browsertest.Open(s.URL+"/"), browsertest.See("main .notice.wait"))
		if got := b.Text("main"); !strings.Contains(got, "Nobody can log in yet") {
			t.Errorf("the login before the set-up: got %q", got)
		}
		b.Do(browsertest.Open(s.URL+"/setup?token="+url.QueryEscape(token)), browsertest.See("input[name=workspace]"))
		b.Look("setup")
		b.Do(browsertest.Fill("name", "Ada Lovelace"), browsertest.Fill("email", "ada@example.com"), browsertest.Fill("password", "ada@example.com"))
		submit("[role=alert]")
		if got := b.Text(".error"); !strings.Contains(got, "something else than your name") {
			t.Errorf("a password that others know: got %q", got)
		}
		b.Look("setup-wrong")
		b.Do(browsertest.Fill("password", pagesPassword))
		submit("header button.quiet")
		if got := b.Text("main"); !strings.Contains(got, "Ada Lovelace") || !strings.Contains(got, "owner") {
			t.Errorf("after the set-up: got %q, want Ada as the owner", got)
		}
		b.Do(browsertest.Open(s.URL+"/setup?token="+url.QueryEscape(token)), browsertest.See(`main a[href="/login"]`))
		b.Look("setup-used")

		b.Do(browsertest.Open(s.URL+"/account"), browsertest.See("input[name=present]"))
		b.Look("account")
		b.Do(browsertest.Open(s.URL+"/forgot"), browsertest.See("input[name=email]"))
		b.Look("forgot")
		b.Do(browsertest.Fill("email", "ada@example.com"))
		submit("main [role=status]")
		b.Look("forgot-sent")
		sent := sendMail(t, s, outbox)
		link := regexp.MustCompile(regexp.QuoteMeta(s.URL) + `/reset\?token=\S+`).FindString(strings.Join(sent, "\n"))
		if len(sent) != 1 || link == "" {
			t.Fatalf("got %q, want one message with a link", sent)
		}
		b.Do(browsertest.Open(link), browsertest.See("input[name=again]"))
		b.Look("reset")
		b.Do(browsertest.Fill("password", "kitchen plumb orbit"), browsertest.Fill("again", "kitchen plumb orbit"))
		submit(`input[autocomplete="current-password"]`) // the session has ended: the login
		b.Do(browsertest.Fill("email", "ada@example.com"), browsertest.Fill("password", "kitchen plumb orbit"))
		submit("header button.quiet")
		b.Behaved(s.URL + "/")
	})
}

// A server that works tells people by itself of what agents ask, on any node.
func TestServerTellsPeople(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		outbox := filepath.Join(t.TempDir(), "outbox")
		s := servertest.New(t, db, servertest.Options{Work: true, Config: func(c *server.Config) { c.Mail.Outbox = outbox }})
		addAdmin(t, s)
		other := servertest.Join(t, s, servertest.Options{})
		until := func(what string, done func() bool) {
			t.Helper()
			for end := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatalf("%s: not within 20 s", what)
				}
			}
		}
		queued(t, other, s.Agent, "POST", "/v1/contacts", `{"first_name":"Grace"}`)
		until("the job is expected", func() bool {
			due, ok, err := s.DB.NextJobDue(t.Context(), admin.NoticeKind)
			if err != nil {
				t.Fatal(err)
			}
			return ok && due.Sub(s.Clock.Now()) < 2*time.Minute
		})
		s.Clock.Advance(2 * time.Minute)
		if err := s.DB.ResumeJobs(t.Context()); err != nil { // wakes the runner, which cannot know of the clock
			t.Fatal(err)
		}
		until("the message is sent", func() bool {
			files, _ := filepath.Glob(filepath.Join(outbox, "*.eml"))
			return len(files) == 1
		})
	})
}
