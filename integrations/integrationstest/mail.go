package integrationstest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/mail"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"trustpager/integrations"
)

// The login of a [Mail]. The password is of characters that the protocols treat
// in their own ways.
const (
	MailUser     = "team@example.com"
	MailPassword = `p4ss "wörd\:%`
)

// A Mail is a mail server: it takes letters by SMTP, and has a mailbox INBOX
// that is read by IMAP. Its methods may be called concurrently.
type Mail struct {
	*valve
	SMTP  integrations.SMTPAccount // a good account
	IMAP  integrations.IMAPAccount // a good account
	Roots *x509.CertPool           // who believe the server

	t       testing.TB
	arrived chan Letter
	mu      sync.Mutex
	letters []Letter
	user    *imapmemserver.User
	certs   map[Fault]*tls.Certificate
}

// A Letter is what a [Mail] took.
type Letter struct {
	From string   // of the envelope
	To   []string // of the envelope, in the order given
	User string   // who was logged in, or ""
	TLS  bool
	Raw  string // as it came, lines ending with CRLF
}

// NewMail starts a mail server on 127.0.0.1 for as long as the test runs.
func NewMail(t testing.TB, security integrations.Security) *Mail {
	t.Helper()
	ca := newAuthority(t)
	local := net.IPv4(127, 0, 0, 1)
	m := &Mail{valve: newValve(t), Roots: ca.Roots, t: t, arrived: make(chan Letter, 1000), certs: map[Fault]*tls.Certificate{
		"":        ca.certificate(t, []string{"localhost", "mail.test"}, local),
		OtherName: ca.certificate(t, []string{"other.test"}),
		Untrusted: newAuthority(t).certificate(t, []string{"localhost", "mail.test"}, local),
	}}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c, ok := m.certs[m.now()]; ok {
			return c, nil
		}
		return m.certs[""], nil
	}}
	m.SMTP = integrations.SMTPAccount{Host: "127.0.0.1", Port: m.serveSMTP(config, security), Security: security,
		Username: MailUser, Password: MailPassword, From: mail.Address{Name: "Team", Address: MailUser}}
	m.IMAP = integrations.IMAPAccount{Host: "127.0.0.1", Port: m.serveIMAP(config, security), Security: security,
		Username: MailUser, Password: MailPassword}
	return m
}

// Network returns a network that reaches this machine and believes the server.
func (m *Mail) Network() integrations.Network {
	return integrations.Network{Guard: Loopback(), Roots: m.Roots, Timeout: 20 * time.Second}
}

// listen returns a listener, which speaks TLS from the first byte if that is
// the security.
func (m *Mail) listen(config *tls.Config, security integrations.Security) (net.Listener, int) {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if security == integrations.TLS {
		l = tls.NewListener(l, config)
	}
	return l, port
}

func (m *Mail) serveSMTP(config *tls.Config, security integrations.Security) (port int) {
	m.t.Helper()
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		_, encrypted := c.TLSConnectionState()
		return &smtpSession{m: m, conn: c, letter: Letter{TLS: encrypted}}, nil
	}))
	s.Domain, s.ErrorLog, s.AllowInsecureAuth = "mail.test", silent{}, security == integrations.NoTLS
	s.MaxMessageBytes = 20 << 20
	if security == integrations.STARTTLS {
		s.TLSConfig = config
	}
	l, port := m.listen(config, security)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	m.t.Cleanup(func() { m.shut(); s.Close(); <-done })
	return port
}

// Next waits for the next letter and returns it.
func (m *Mail) Next() Letter {
	m.t.Helper()
	select {
	case l := <-m.arrived:
		return l
	case <-m.t.Context().Done():
		m.t.Fatal("no letter came")
		return Letter{}
	}
}

// Letters returns all letters that have come.
func (m *Mail) Letters() []Letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Letter(nil), m.letters...)
}

func (m *Mail) keep(l Letter) {
	m.mu.Lock()
	m.letters = append(m.letters, l)
	m.mu.Unlock()
	m.arrived <- l
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// A smtpSession is one connection.
type smtpSession struct {
	m      *Mail
	conn   *smtp.Conn
	letter Letter
}

func reply(code, subject, detail int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, subject, detail}, Message: text}
}

func (s *smtpSession) AuthMechanisms() []string {
	if s.m.now() == NoAuth {
		return []string{"LOGIN"}
	}
	return []string{sasl.Plain, "LOGIN"}
}

func (s *smtpSession) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		if s.m.now() == BadLogin || user != MailUser || password != MailPassword {
			return reply(535, 7, 8, "wrong user or password "+password)
		}
		s.letter.User = user
		return nil
	}
	if mechanism == sasl.Plain {
		return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
	}
	return &loginServer{check: check}, nil
}

// A loginServer speaks the mechanism LOGIN (draft-murchison-sasl-login).
type loginServer struct {
	check func(user, password string) error
	step  int
	user  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

func (s *smtpSession) Mail(from string, _ *smtp.MailOptions) error {
	switch {
	case s.letter.User == "":
		return reply(530, 7, 0, "log in first")
	case s.m.now() == NotThisSender:
		return reply(553, 7, 1, "not your address")
	}
	s.letter.From = from
	return nil
}

func (s *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch s.m.now() {
	case NoSuchReceiver:
		return reply(550, 1, 1, "no such user: "+to)
	case Greylist:
		return reply(451, 7, 1, "greylisted, try again")
	case Hang:
		s.m.hold(nil)
	}
	s.letter.To = append(s.letter.To, to)
	return nil
}

func (s *smtpSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	l := s.letter
	l.Raw = string(raw)
	switch s.m.now() {
	case MailboxFull:
		return reply(552, 2, 2, "over quota")
	case Drop:
		s.m.keep(l)
		s.conn.Conn().Close()
		return errors.New("dropped")
	case HangAfterData:
		s.m.keep(l)
		s.m.hold(nil)
		return nil
	}
	s.m.keep(l)
	return nil
}

func (s *smtpSession) Reset()        { s.letter.From, s.letter.To = "", nil }
func (s *smtpSession) Logout() error { return nil }

func (m *Mail) serveIMAP(config *tls.Config, security integrations.Security) (port int) {
	m.t.Helper()
	m.user = imapmemserver.NewUser(MailUser, MailPassword)
	if err := m.user.Create("INBOX", nil); err != nil {
		m.t.Fatal(err)
	}
	server := imapmemserver.New()
	server.AddUser(m.user)
	options := &imapserver.Options{Logger: silent{}, InsecureAuth: security == integrations.NoTLS,
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &imapSession{Session: server.NewSession(), m: m}, nil, nil
		}}
	if security == integrations.STARTTLS {
		options.TLSConfig = config
	}
	s := imapserver.New(options)
	l, port := m.listen(config, security)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	m.t.Cleanup(func() { m.shut(); s.Close(); <-done })
	return port
}

// An imapSession is one connection, which may only look.
type imapSession struct {
	imapserver.Session
	m *Mail
}

func (s *imapSession) Login(user, password string) error {
	if s.m.now() == BadLogin {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeAuthenticationFailed, Text: "wrong password " + password}
	}
	return s.Session.Login(user, password)
}

func (s *imapSession) Select(mailbox string, o *imap.SelectOptions) (*imap.SelectData, error) {
	if !o.ReadOnly {
		s.m.t.Errorf("mailbox %s was opened for changes", mailbox)
	}
	return s.Session.Select(mailbox, o)
}

func (s *imapSession) Fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions) error {
	for _, section := range o.BodySection {
		if !section.Peek {
			s.m.t.Error("a message was fetched in a way that marks it as seen")
		}
		switch s.m.now() {
		case Hang:
			s.m.hold(nil)
		case Drop:
			return errors.New("dropped")
		}
	}
	return s.Session.Fetch(w, set, o)
}

// Deliver puts a message into INBOX. Lines may end with LF.
func (m *Mail) Deliver(raw string) {
	m.t.Helper()
	m.DeliverAt(raw, time.Now())
}

// DeliverAt puts a message into INBOX that arrived at the given time.
func (m *Mail) DeliverAt(raw string, at time.Time) {
	m.t.Helper()
	b := bytes.ReplaceAll([]byte(raw), []byte("\r\n"), []byte("\n"))
	b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	if _, err := m.user.Append("INBOX", bytes.NewReader(b), &imap.AppendOptions{Time: at}); err != nil {
		m.t.Error(err)
	}
}

// Renumber empties INBOX and gives it another UIDVALIDITY, as when a mailbox is
// moved to another server.
func (m *Mail) Renumber() {
	m.t.Helper()
	if err := errors.Join(m.user.Delete("INBOX"), m.user.Create("INBOX", nil)); err != nil {
		m.t.Error(err)
	}
}
