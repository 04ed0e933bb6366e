package integrations_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"trustpager/access"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/secret"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// trusted is the certificate of test servers that this process believes, other
// one that it does not.
var trusted, other tls.Certificate

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "tp-mail-")
	if err != nil {
		panic(err)
	}
	var root []byte
	trusted, root = certificate()
	other, _ = certificate()
	path := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(path, root, 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", path) // read at the first verification
	code := storagetest.Run(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// certificate makes a certificate for this machine, and returns it as PEM too.
func certificate() (tls.Certificate, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A mailbox is a mail server that keeps what it gets.
type mailbox struct {
	addr   string
	refuse map[string]error // by step: auth, from, to, data
	got    chan received
}

type received struct {
	user, from, to string
	tls            bool
	raw            string
}

const password = "p4ss/word:%"

func (m *mailbox) NewSession(c *smtp.Conn) (smtp.Session, error) {
	_, encrypted := c.TLSConnectionState()
	return &session{m, received{tls: encrypted}}, nil
}

type session struct {
	m *mailbox
	received
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if err := s.m.refuse["auth"]; err != nil {
			return err
		}
		if user != "pager" || pass != password {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return s.m.refuse["from"]
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return s.m.refuse["to"]
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.m.refuse["data"]; err != nil {
		return err
	}
	s.raw = string(raw)
	s.m.got <- s.received
	return nil
}

func (s *session) Reset()        {}
func (s *session) Logout() error { return nil }

// newMailbox starts a mail server on this machine, with STARTTLS if it is given
// a certificate; implicit makes it speak TLS from the first byte.
func newMailbox(t *testing.T, cert *tls.Certificate, implicit bool) *mailbox {
	t.Helper()
	m := &mailbox{refuse: map[string]error{}, got: make(chan received, 100)}
	s := smtp.NewServer(m)
	s.Domain, s.AllowInsecureAuth = "localhost", cert == nil
	s.ErrorLog = silent{}
	if cert != nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	if implicit {
		l = tls.NewListener(l, s.TLSConfig)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return m
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// A world is a running mailer on a database.
type world struct {
	*integrations.Mailer
	t      *testing.T
	db     *storage.DB
	clock  *storagetest.Clock
	runner *jobs.Runner
	ended  chan jobs.Ending
}

func start(t *testing.T, db *storage.DB, m integrations.Mail, change ...func(*integrations.Mailer)) *world {
	t.Helper()
	w := &world{t: t, db: db, clock: storagetest.NewClock(), ended: make(chan jobs.Ending, 100)}
	var err error
	if w.Mailer, err = integrations.NewMailer(m, "https://pager.example.com", storagetest.Key, w.clock.Now); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(w.Mailer)
	}
	k := w.Jobs()
	k.End = func(ctx context.Context, e jobs.Ending) error {
		err := e.Apply(ctx, db)
		w.ended <- e
		return err
	}
	changed, unwatch := db.Watch(storage.JobsTopic)
	w.runner = &jobs.Runner{Store: db, Now: w.clock.Now, Changed: changed, Kinds: map[string]jobs.Kind{integrations.MailKind: k}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.runner.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		unwatch()
	})
	return w
}

// enqueue enqueues a message and returns how its first try ended.
func (w *world) enqueue(msg integrations.Message) jobs.Ending {
	w.t.Helper()
	if err := w.Enqueue(w.t.Context(), w.db, "ws_1", msg); err != nil {
		w.t.Fatal(err)
	}
	return <-w.ended
}

var hello = integrations.Message{To: "ada@example.org", Name: "Ada Lovelace", Subject: "Grüße", Body: "Hello Ada,\n\n.\nhttps://pager.example.com/x\n"}

const from = `Acme Pager <pager@example.com>`

// body returns the headers and the decoded text of what was received.
func body(t *testing.T, raw string) (mail.Header, string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	content := m.Body
	if m.Header.Get("Content-Transfer-Encoding") != "8bit" { // as in the outbox
		content = quotedprintable.NewReader(m.Body)
	}
	text, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	return m.Header, strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestMessageArrives(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		box := newMailbox(t, &trusted, false)
		w := start(t, db, integrations.Mail{SMTP: "smtp://pager:p4ss%2Fword%3A%25@" + box.addr, From: from})
		if e := w.enqueue(hello); e.State != "" {
			t.Fatalf("the job ended as %q: %s", e.State, e.Job.LastError)
		}
		got := <-box.got
		if got.from != "pager@example.com" || got.to != "ada@example.org" || got.user != "pager" || !got.tls {
			t.Errorf("got %+v, want it from us, to Ada, logged in, over TLS", got)
		}
		h, text := body(t, got.raw)
		if text != hello.Body {
			t.Errorf("body = %q, want %q", text, hello.Body)
		}
		subject, _ := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
		if subject != "Grüße" || !strings.Contains(h.Get("From"), "Acme Pager") || !strings.Contains(h.Get("To"), "Ada Lovelace") || h.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("headers = %v", h)
		}
		if id := h.Get("Message-ID"); !strings.HasPrefix(id, "<job_") || !strings.HasSuffix(id, "@pager.example.com>") {
			t.Errorf("Message-ID = %q, want it made of the job's id", id)
		}
		if date, err := h.Date(); err != nil || !date.Equal(w.clock.Now()) {
			t.Errorf("Date = %v (%v), want %v", date, err, w.clock.Now())
		}
	})
}

// What becomes of a message whose server cannot take it shows in the job.
func TestWhatAMailServerRefuses(t *testing.T) {
	smtpError := func(code int, text string) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: text}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silentServer, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silentServer.Close()
	for _, tt := range []struct {
		name  string
		url   string // HOST stands for the server
		cert  *tls.Certificate
		step  string
		err   error
		state jobs.State
		want  string
	}{
		{"unknown receiver", "smtp://HOST", nil, "to", smtpError(550, "no such user"), jobs.Dead, "no such user"},
		{"mailbox full", "smtp://HOST", nil, "to", smtpError(452, "try later"), jobs.Ready, "try later"},
		{"refused as spam", "smtp://HOST", nil, "data", smtpError(554, "spam"), jobs.Dead, "spam"},
		{"greylisted", "smtp://HOST", nil, "data", smtpError(451, "greylisted"), jobs.Ready, "greylisted"},
		{"sender not allowed", "smtp://HOST", nil, "from", smtpError(553, "not your address"), jobs.Ready, "not your address"},
		{"wrong password", "smtp://pager:wrong@HOST", &trusted, "", nil, jobs.Ready, "535"},
		{"password repeated", "smtp://pager:p4ss%2Fword%3A%25@HOST", &trusted, "auth", smtpError(535, "bad "+password), jobs.Ready, "bad [password]"},
		{"certificate of somebody else", "smtp://pager:x@HOST", &other, "", nil, jobs.Ready, "certificate"},
		{"no answer", "smtp://" + silentServer.Addr().String(), nil, "", nil, jobs.Ready, "timeout"},
		{"not there", "smtp://" + closed.Addr().String(), nil, "", nil, jobs.Ready, "refused"},
		{"no TLS there", "smtps://HOST", nil, "", nil, jobs.Ready, "tls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			box := newMailbox(t, tt.cert, false)
			box.refuse[tt.step] = tt.err
			db := storagetest.Open(t, t.TempDir()+"/test.db")
			w := start(t, db, integrations.Mail{SMTP: strings.Replace(tt.url, "HOST", box.addr, 1), From: from}, func(m *integrations.Mailer) {
				m.Timeout = 5 * time.Second
				if tt.name == "no answer" {
					m.Timeout = 200 * time.Millisecond
				}
			})
			e := w.enqueue(hello)
			if e.State != tt.state || !strings.Contains(e.Job.LastError, tt.want) {
				t.Errorf("got %q, %q; want %q with %q", e.State, e.Job.LastError, tt.state, tt.want)
			}
			if strings.Contains(e.Job.LastError, password) {
				t.Errorf("the password shows in %q", e.Job.LastError)
			}
			if len(box.got) > 0 {
				t.Error("the message arrived all the same")
			}
		})
	}
}

func TestTLSAsTheURLSays(t *testing.T) {
	for _, tt := range []struct {
		url      string
		cert     *tls.Certificate
		implicit bool
		tls      bool
	}{
		{"smtp://HOST", nil, false, false}, // on this machine
		{"smtp://HOST", &trusted, false, true},
		{"smtp://HOST?tls=none", &other, false, false},
		{"smtps://pager:p4ss%2Fword%3A%25@HOST", &trusted, true, true},
		{"smtp://pager:p4ss%2Fword%3A%25@HOST", nil, false, false},
	} {
		box := newMailbox(t, tt.cert, tt.implicit)
		w := start(t, storagetest.Open(t, t.TempDir()+"/test.db"), integrations.Mail{SMTP: strings.Replace(tt.url, "HOST", box.addr, 1), From: from})
		if e := w.enqueue(hello); e.State != "" {
			t.Errorf("%s: the job ended as %q: %s", tt.url, e.State, e.Job.LastError)
			continue
		}
		if got := <-box.got; got.tls != tt.tls || (got.user != "") != strings.Contains(tt.url, "pager:") {
			t.Errorf("%s: got TLS %v as %q, want TLS %v", tt.url, got.tls, got.user, tt.tls)
		}
	}
}

func TestFailingServerIsTriedForADayWithOneID(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		box := newMailbox(t, nil, false)
		w := start(t, db, integrations.Mail{SMTP: "smtp://" + box.addr, From: from})
		box.refuse["data"] = &smtp.SMTPError{Code: 451, Message: "later"}
		e := w.enqueue(hello)
		for tries := 1; e.State == jobs.Ready; tries++ {
			if tries == 3 {
				box.refuse["data"] = nil
			}
			w.clock.Advance(e.RunAt.Sub(w.clock.Now()) + time.Millisecond)
			w.runner.Wake()
			e = <-w.ended
		}
		h, _ := body(t, (<-box.got).raw)
		if e.State != "" || h.Get("Message-ID") != "<"+e.Job.ID+"@pager.example.com>" {
			t.Errorf("ended as %q with %q", e.State, h.Get("Message-ID"))
		}
		box.refuse["data"] = &smtp.SMTPError{Code: 451, Message: "later"}
		begin := w.clock.Now()
		for e = w.enqueue(hello); e.State == jobs.Ready; e = <-w.ended {
			w.clock.Advance(e.RunAt.Sub(w.clock.Now()) + time.Millisecond)
			w.runner.Wake()
		}
		if d := w.clock.Now().Sub(begin); e.State != jobs.Dead || d < 20*time.Hour || d > 28*time.Hour {
			t.Errorf("ended as %q after %v, want dead after about a day", e.State, d)
		}
	})
}

// Whoever steals the database finds no link in it.
func TestWhatIsStoredIsSealed(t *testing.T) {
	db := storagetest.Open(t, t.TempDir()+"/test.db")
	m, err := integrations.NewMailer(integrations.Mail{}, "https://pager.example.com", storagetest.Key, storagetest.NewClock().Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Enqueue(t.Context(), db, "", hello); err != nil {
		t.Fatal(err)
	}
	now := storagetest.NewClock().Now()
	claimed, err := db.ClaimJobs(t.Context(), integrations.MailKind, now, now.Add(time.Minute), "t", 1)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("got %d jobs (%v), want 1", len(claimed), err)
	}
	if p := string(claimed[0].Payload); strings.Contains(p, "ada@") || strings.Contains(p, "example") {
		t.Errorf("payload = %s, want it sealed", p)
	}
	moved := claimed[0]
	moved.ID = "job_other"
	if err := m.Jobs().Handle(t.Context(), moved); err == nil || !strings.Contains(err.Error(), "another place") {
		t.Errorf("the payload of another job: got %v, want it not to open", err)
	}
	foreign, _ := integrations.NewMailer(integrations.Mail{}, "https://pager.example.com", secret.NewKey(), storagetest.NewClock().Now)
	if err := foreign.Jobs().Handle(t.Context(), claimed[0]); err == nil {
		t.Error("it opened with another key")
	}
}

func TestOutbox(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		dir := filepath.Join(t.TempDir(), "data", "outbox")
		w := start(t, db, integrations.Mail{Outbox: dir})
		if w.Sends() || !strings.Contains(w.Describe(), "written to "+dir) {
			t.Errorf("Describe = %q", w.Describe())
		}
		e := w.enqueue(hello)
		path := filepath.Join(dir, e.Job.ID+".eml")
		for file, mode := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != mode {
				t.Errorf("mode of %s = %#o, want %#o", file, info.Mode().Perm(), mode)
			}
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if h, text := body(t, string(raw)); text != hello.Body || !strings.Contains(h.Get("From"), "trustpager@pager.example.com") {
			t.Errorf("got %v, %q", h, text)
		}
		if all, _ := os.ReadDir(dir); len(all) != 1 {
			t.Errorf("%d files in the outbox, want 1", len(all))
		}
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 { // whom no mode stops
			os.RemoveAll(dir)
			os.WriteFile(dir, nil, 0o600)
		}
		if e := w.enqueue(hello); e.State != jobs.Ready || !strings.Contains(e.Job.LastError, "outbox") {
			t.Errorf("with a folder that cannot be written: got %q, %q; want another try", e.State, e.Job.LastError)
		}
	})
}

func TestPausedJobsHoldMailBack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		if !(&integrations.Mailer{}).Jobs().Outgoing {
			t.Fatal("messages are not outgoing jobs")
		}
		if err := db.PauseJobs(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		box := newMailbox(t, nil, false)
		w := start(t, db, integrations.Mail{SMTP: "smtp://" + box.addr, From: from})
		if err := w.Enqueue(t.Context(), db, "ws_1", hello); err != nil {
			t.Fatal(err)
		}
		if err := db.ResumeJobs(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-w.ended
		if len(box.got) != 1 {
			t.Errorf("%d messages after the pause, want 1", len(box.got))
		}
	})
}

func TestWhoGetsNothing(t *testing.T) {
	member, lookup := false, error(nil)
	db := storagetest.Open(t, t.TempDir()+"/test.db")
	dir := t.TempDir()
	w := start(t, db, integrations.Mail{Outbox: dir}, func(m *integrations.Mailer) {
		m.IsMember = func(_ context.Context, workspace, user string, role access.Role) (bool, error) {
			return member && workspace == "ws_1" && user == "usr_1" && role == access.Admin, lookup
		}
	})
	msg := hello
	msg.Member, msg.Role = "usr_1", access.Admin
	files := func() int {
		all, _ := os.ReadDir(dir)
		return len(all)
	}
	if e := w.enqueue(msg); e.State != "" || files() != 0 {
		t.Errorf("who is no member: got %q and %d messages, want none", e.State, files())
	}
	lookup = errors.New("away")
	if e := w.enqueue(msg); e.State != jobs.Ready || files() != 0 {
		t.Errorf("who may be no member: got %q and %d messages, want another try", e.State, files())
	}
	member, lookup = true, nil
	if e := w.enqueue(msg); e.State != "" || files() != 1 {
		t.Errorf("a member: got %q and %d messages, want 1", e.State, files())
	}
	msg.Until = w.clock.Now()
	if e := w.enqueue(msg); e.State != jobs.Dead || files() != 1 {
		t.Errorf("after its time: got %q and %d messages, want it dead", e.State, files())
	}
}

// Whatever stands in a message, it becomes one message to one receiver, and no
// line of it becomes a header.
func TestNothingInAMessageBecomesAHeader(t *testing.T) {
	corpus := []string{
		"x\r\nBcc: eve@example.net", "x\nBcc: eve@example.net", "x\rBcc: eve@example.net", "x\r\n\r\nbody",
		"\r\n.\r\nMAIL FROM:<eve@example.net>", "x\u2028Bcc: eve@example.net", "x\u0085Bcc: eve@example.net", "x\x00y",
		"=?utf-8?q?x=0d=0aBcc:_eve@example.net?=", "\"<eve@example.net>\", ", "a@b, eve@example.net", strings.Repeat("long ", 500), "\u202egnp.exe", "",
	}
	dir := t.TempDir()
	w := start(t, storagetest.Open(t, t.TempDir()+"/test.db"), integrations.Mail{Outbox: dir, From: from})
	box := newMailbox(t, nil, false)
	ws := start(t, storagetest.Open(t, t.TempDir()+"/test.db"), integrations.Mail{SMTP: "smtp://" + box.addr, From: from})
	for _, evil := range corpus {
		msg := integrations.Message{To: "ada@example.org", Name: evil, Subject: evil, Body: evil + "\nend\n"}
		e := w.enqueue(msg)
		raw, err := os.ReadFile(filepath.Join(dir, e.Job.ID+".eml"))
		if err != nil {
			t.Fatalf("%q: %v (%s)", evil, err, e.Job.LastError)
		}
		if e := ws.enqueue(msg); e.State != "" {
			t.Fatalf("%q: %s", evil, e.Job.LastError)
		}
		got := <-box.got
		for _, raw := range []string{string(raw), got.raw} {
			h, text := body(t, raw)
			to, err := h.AddressList("To")
			if err != nil || len(to) != 1 || to[0].Address != "ada@example.org" {
				t.Errorf("%q: To = %v (%v), want Ada alone", evil, to, err)
			}
			if h.Get("Bcc") != "" || len(h["Subject"]) > 1 || len(h["To"]) != 1 || !strings.HasSuffix(text, "\nend\n") {
				t.Errorf("%q: headers %v, body %q", evil, h, text)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
			if err != nil || strings.ContainsAny(subject, "\r\n\x00\u202e\u2028\u0085") {
				t.Errorf("%q: subject %q (%v)", evil, subject, err)
			}
		}
		if got.to != "ada@example.org" || len(box.got) > 0 {
			t.Errorf("%q: sent to %q, and %d more", evil, got.to, len(box.got))
		}
	}
	for _, evil := range append(corpus, "ada@example.org\r\nBcc: eve@example.net", "Ada <ada@example.org>", "ada@example.org>", "ada@exam\u202eple.org", "ada@example.org,eve@example.net") {
		if e := w.enqueue(integrations.Message{To: evil, Subject: "s", Body: "b"}); e.State != jobs.Dead {
			t.Errorf("to %q: got %q, want it dead", evil, e.State)
		}
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	for _, m := range []integrations.Mail{
		{SMTP: "smtp://mail.example.com"}, // no sender
		{SMTP: "mail.example.com:587", From: from},
		{SMTP: "http://user:hunter2@mail.example.com", From: from},
		{SMTP: "smtp://user:hunter2%zz@mail.example.com", From: from},
		{SMTP: "smtp://user:hunter2@mail.example.com:port", From: from},
		{SMTP: "smtp://user:hunter2@", From: from},
		{SMTP: "smtp://user:hunter2@mail.example.com/path", From: from},
		{SMTP: "smtp://user:hunter2@mail.example.com?tls=maybe", From: from},
		{SMTP: "smtp://user:hunter2@mail.example.com?verify=no", From: from},
		{SMTP: "smtps://user:hunter2@mail.example.com?tls=none", From: from},
		{From: "not an address"},
		{From: "Acme\r\nBcc: <pager@example.com>"},
	} {
		_, err := integrations.NewMailer(m, "https://pager.example.com", storagetest.Key, time.Now)
		if err == nil {
			t.Errorf("%+v was taken", m)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password shows in %q", err)
		}
	}
	m, err := integrations.NewMailer(integrations.Mail{SMTP: "smtp://user:hunter2@mail.example.com", From: from}, "http://127.0.0.1:8080", storagetest.Key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Messages are sent by mail.example.com:587 as pager@example.com."; m.Describe() != want || !m.Sends() {
		t.Errorf("Describe = %q, want %q", m.Describe(), want)
	}
}
