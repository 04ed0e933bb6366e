package integrations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"trustpager/webhook"
)

// A Security says how a connection to a mail server is kept private. The zero
// Security is refused.
type Security string

// The securities.
const (
	TLS      Security = "tls"      // from the first byte (RFC 8314 §3)
	STARTTLS Security = "starttls" // before anything else is said, or not at all
	NoTLS    Security = "none"     // in plain text: no password, unless the server is on this machine

	offered Security = "offered" // STARTTLS if the server has it; only for the operator's own server on this machine
)

// check refuses what is no Security, and a password that would be sent in plain
// text to another machine.
func (s Security) check(host, password string) error {
	switch {
	case !slices.Contains([]Security{TLS, STARTTLS, NoTLS}, s):
		return fmt.Errorf("the security %.20q is not tls, starttls or none", string(s))
	case s == NoTLS && password != "" && !isLoopback(host):
		return errors.New("without TLS the password could be read on the way; choose tls or starttls")
	}
	return nil
}

// An SMTPAccount is a workspace's account at a mail server, by which its letters
// leave.
type SMTPAccount struct {
	Host     string
	Port     int // usually 465 for tls, 587 for starttls
	Security Security
	Username string // "" if the server wants no login
	Password string
	From     mail.Address // of the account's letters, unless the letter says otherwise
}

// Check connects as [SMTPAccount.Send] does and logs in, but sends nothing. Its
// error is a [Failure].
func (a SMTPAccount) Check(ctx context.Context, n Network) error {
	s, err := a.server(n)
	if err != nil {
		return err
	}
	if err := s.check(ctx, domain(a.From.Address)); err != nil {
		return err
	}
	return nil
}

// Send gives the letter to the mail server. It returns nil once the server has
// taken the letter for all receivers, and otherwise a [*Failure]: then no
// receiver gets it, unless the outcome is [Unknown]. A letter that cannot be
// written is [Refused].
func (a SMTPAccount) Send(ctx context.Context, n Network, l Letter) error {
	s, err := a.server(n)
	if err != nil {
		return err
	}
	if l.From.Address == "" {
		l.From = a.From
	}
	built, err := l.build()
	if err != nil {
		return failure(Refused, "letter", err)
	}
	if err := s.send(ctx, built, domain(l.From.Address)); err != nil {
		return err
	}
	return nil
}

func (a SMTPAccount) server(n Network) (*smtpServer, error) {
	if err := a.Security.check(a.Host, a.Password); err != nil {
		return nil, failure(Temporary, "mail server "+clip(a.Host, 100), err, a.Password)
	}
	return &smtpServer{host: a.Host, port: a.Port, user: a.Username, password: a.Password, security: a.Security, network: n}, nil
}

// domain returns the part of an address after the last @, for the greeting.
func domain(address string) string {
	host := address[strings.LastIndexByte(address, '@')+1:]
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "localhost"
	}
	return host
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// An smtpServer is a mail server that takes messages from this one: the
// operator's or that of a workspace.
type smtpServer struct {
	host     string
	port     int
	user     string
	password string
	security Security
	network  Network
}

// anywhere is the Guard of a server that the operator chose.
var anywhere = &webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}

// check greets the server, logs in and leaves.
func (s *smtpServer) check(ctx context.Context, helo string) *Failure {
	ctx, cancel := context.WithTimeout(ctx, s.network.timeout())
	defer cancel()
	c, err := s.open(ctx, helo)
	if err != nil {
		return s.failure(Temporary, err)
	}
	defer c.Close()
	c.Quit() // what fails now has no say
	return nil
}

// send gives the message to the mail server, to all its receivers or to none.
// The server refuses for good with a 5xx reply to a receiver or to the message;
// such a reply to a login or a sender concerns the account, which can be mended.
func (s *smtpServer) send(ctx context.Context, built *gomail.Msg, helo string) *Failure {
	from, err := built.GetSender(false)
	if err != nil {
		return s.failure(Refused, err)
	}
	to, err := built.GetRecipients()
	if err != nil {
		return s.failure(Refused, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.network.timeout())
	defer cancel()
	c, err := s.open(ctx, helo)
	if err != nil {
		return s.failure(Temporary, err)
	}
	defer c.Close()
	if ok, _ := c.Extension("SMTPUTF8"); !ok {
		for _, address := range append([]string{from}, to...) {
			if strings.ContainsFunc(address, func(r rune) bool { return r >= 0x80 }) {
				c.Quit()
				return s.failure(Refused, fmt.Errorf("the server takes no addresses such as %.100q (RFC 6531)", address))
			}
		}
	}
	if err := c.Mail(from); err != nil {
		return s.failure(Temporary, fmt.Errorf("sender %.100s: %w", from, err))
	}
	var refused *Failure
	for _, address := range to {
		err := c.Rcpt(address)
		if err == nil {
			continue
		}
		f := s.failure(final(err), fmt.Errorf("receiver %.100s: %w", address, err))
		if refused == nil || refused.Outcome == Temporary {
			refused = f
		}
		if _, replied := reply(err); !replied {
			return f
		}
	}
	if refused != nil {
		c.Quit()
		return refused
	}
	w, err := c.Data()
	if err != nil {
		return s.failure(final(err), fmt.Errorf("message: %w", err))
	}
	if _, err := built.WriteTo(w); err != nil {
		return s.failure(Temporary, fmt.Errorf("message: %w", err)) // the final dot was not sent
	}
	if err := w.Close(); err != nil {
		switch code, replied := reply(err); {
		case !replied: // RFC 5321 §4.5.3.2.6: it may have been taken
			return s.failure(Unknown, fmt.Errorf("no answer to the message: %w", err))
		case code/100 != 2:
			return s.failure(final(err), fmt.Errorf("message: %w", err))
		}
	}
	c.Quit() // what fails now has no say
	return nil
}

// open connects to the server, and logs in if there is a user.
func (s *smtpServer) open(ctx context.Context, helo string) (*smtp.Client, error) {
	conn, err := s.network.connect(ctx, s.host, s.port, s.security == TLS)
	if err != nil {
		return nil, err
	}
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := s.greet(c, helo); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (s *smtpServer) greet(c *smtp.Client, helo string) error {
	if err := c.Hello(helo); err != nil {
		return err
	}
	has, _ := c.Extension("STARTTLS")
	switch {
	case s.security == STARTTLS && !has:
		return errors.New("the server does not offer STARTTLS")
	case s.security == STARTTLS, s.security == offered && has:
		if err := c.StartTLS(s.network.tls(s.host)); err != nil {
			return err
		}
	}
	if s.user == "" {
		return nil
	}
	login, err := s.login(c)
	if err != nil {
		return err
	}
	if err := c.Auth(login); err != nil {
		return fmt.Errorf("login as %.100s: %w", s.user, err)
	}
	return nil
}

// login returns how to log in: the first of the ways that the server offers.
// Whether a password may go in plain text was decided before.
func (s *smtpServer) login(c *smtp.Client) (smtp.Auth, error) {
	has, list := c.Extension("AUTH")
	if !has {
		return nil, errors.New("the server offers no login")
	}
	offers := strings.Fields(strings.ToUpper(list))
	for _, way := range []struct {
		name string
		auth func() smtp.Auth
	}{
		{"SCRAM-SHA-256", func() smtp.Auth { return smtp.ScramSHA256Auth(s.user, s.password) }},
		{"SCRAM-SHA-1", func() smtp.Auth { return smtp.ScramSHA1Auth(s.user, s.password) }},
		{"PLAIN", func() smtp.Auth { return smtp.PlainAuth("", s.user, s.password, s.host, true) }},
		{"LOGIN", func() smtp.Auth { return smtp.LoginAuth(s.user, s.password, s.host, true) }},
		{"CRAM-MD5", func() smtp.Auth { return smtp.CRAMMD5Auth(s.user, s.password) }},
	} {
		if slices.Contains(offers, way.name) {
			return way.auth(), nil
		}
	}
	return nil, fmt.Errorf("the server offers no way to log in that is known here, but %.100s", list)
}

// reply returns the code of the server's reply that err is, if it is one.
func reply(err error) (code int, ok bool) {
	e, ok := errors.AsType[*textproto.Error](err)
	if !ok {
		return 0, false
	}
	return e.Code, true
}

// said returns err as people read it: without the quotation marks that
// [textproto.Error] sets around what the server said.
func said(err error) error {
	e, ok := errors.AsType[*textproto.Error](err)
	if !ok {
		return err
	}
	text := strings.Replace(err.Error(), e.Error(), fmt.Sprintf("%03d %s", e.Code, e.Msg), 1)
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// final returns [Refused] for a 5xx reply and [Temporary] for every other error.
func final(err error) Outcome {
	if code, ok := reply(err); ok && code/100 == 5 {
		return Refused
	}
	return Temporary
}

// failure returns err as a [Failure] that names the server and never the
// password.
func (s *smtpServer) failure(outcome Outcome, err error) *Failure {
	f := failure(outcome, "mail server "+clip(s.host, 100), said(err), s.password, "\x00"+s.user+"\x00"+s.password)
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		f.Err = fmt.Errorf("%w (timeout)", f.Err)
	}
	if code, ok := reply(err); ok {
		f.Code = cmp.Or(f.Code, fmt.Sprint(code))
	}
	return f
}
