package integrations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"trustpager/access"
	"trustpager/jobs"
	"trustpager/unseen"
)

// MailKind is the kind of the jobs that send messages.
const MailKind = "mail.send"

// retries are the delays between the tries of a message. The last one is a day
// after the first.
var retries = []time.Duration{
	30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 8 * time.Hour,
}

// defaultTimeout is how long a mail server may take for one message.
const defaultTimeout = 30 * time.Second

// A Message is an e-mail to one person, in plain text.
type Message struct {
	To      string // address
	Name    string // of the person, "" if unknown
	Subject string
	Body    string

	// Member, if not "", is the id of the user who gets it only as a member of
	// the workspace, with the role.
	Member string      `json:",omitempty"`
	Role   access.Role `json:",omitempty"`
	// Until, if not zero, is when the message loses its point, as when the link in
	// it ends.
	Until time.Time `json:",omitzero"`
}

// A Sealer keeps what a job holds from whoever reads the database;
// [secret.Key] is one.
type Sealer interface {
	Seal(plain []byte, context string) (string, error)
	Open(sealed, context string) ([]byte, error)
}

// Mail says how messages leave the server.
type Mail struct {
	SMTP   string // smtp:// or smtps:// URL of the mail server, "" for none; it holds the password
	From   string // the sender: an address, perhaps with a name; required with SMTP
	Outbox string // folder where messages are written if there is no mail server
}

// A Mailer sends messages. It is safe for concurrent use.
type Mailer struct {
	Sealer  Sealer
	Now     func() time.Time
	Timeout time.Duration // of one try; 0 means 30 seconds

	// IsMember reports whether the user belongs to the workspace with the role.
	IsMember func(ctx context.Context, workspace, user string, role access.Role) (bool, error)

	from   mail.Address
	host   string // of this server, for message ids
	outbox string
	server *smtpServer // nil without one
}

// NewMailer returns a Mailer. It fails if the settings are not right; the error
// does not repeat the URL, which holds a password. baseURL is the server's.
func NewMailer(m Mail, baseURL string, sealer Sealer, now func() time.Time) (*Mailer, error) {
	base, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	mr := &Mailer{Sealer: sealer, Now: now, host: base.Hostname(), outbox: m.Outbox}
	if _, err := netip.ParseAddr(mr.host); err == nil || mr.host == "" {
		mr.host = "localhost" // an address is no domain of a sender
	}
	mr.from = mail.Address{Name: "TrustPager", Address: "trustpager@" + mr.host}
	if m.From != "" {
		from, err := mail.ParseAddress(m.From)
		if err != nil || strings.ContainsFunc(m.From, unseen.Hidden) {
			return nil, fmt.Errorf("the sender %.200q is not an e-mail address, as in \"Acme <pager@example.com>\"", m.From)
		}
		mr.from = *from
	}
	if m.SMTP == "" {
		return mr, nil
	}
	if mr.server, err = parseSMTP(m.SMTP); err != nil {
		return nil, err
	}
	if m.From == "" {
		return nil, errors.New("a mail server needs a sender: name one with --mail-from")
	}
	return mr, nil
}

// parseSMTP reads the URL of a mail server.
func parseSMTP(text string) (*smtpServer, error) {
	bad := errors.New("the URL of the mail server is not of the form smtp://user:password@host:587 or smtps://user:password@host:465 (write special characters of the password as %XX)")
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.Fragment != "" {
		return nil, bad // without err, which repeats the URL
	}
	s := &smtpServer{host: u.Hostname(), user: u.User.Username(), port: 587, security: STARTTLS, network: Network{Guard: anywhere}}
	s.password, _ = u.User.Password()
	switch u.Scheme {
	case "smtps":
		s.security, s.port = TLS, 465
	case "smtp":
		if isLoopback(s.host) {
			s.security = offered
		}
	default:
		return nil, bad
	}
	if p := u.Port(); p != "" {
		if s.port, err = net.LookupPort("tcp", p); err != nil {
			return nil, bad
		}
	}
	for name, values := range u.Query() {
		if name != "tls" || len(values) != 1 || values[0] != "none" || s.security == TLS {
			return nil, errors.New("the URL of the mail server may end with ?tls=none (with smtp://) and with nothing else")
		}
		s.security = NoTLS
	}
	return s, nil
}

// Sends reports whether there is a mail server. Without one messages wait in the
// outbox for the operator.
func (m *Mailer) Sends() bool { return m.server != nil }

// Describe says in a sentence, for admins and the operator, where messages go.
func (m *Mailer) Describe() string {
	switch {
	case m.server != nil:
		return fmt.Sprintf("Messages are sent by %s as %s.", net.JoinHostPort(m.server.host, fmt.Sprint(m.server.port)), m.from.Address)
	case m.outbox != "":
		return "No mail server is set up; messages are written to " + m.outbox + "."
	}
	return "No mail server and no outbox are set up; messages go nowhere."
}

// Enqueue has the message sent once the transaction commits. workspace is "" for
// what is of no workspace.
func (m *Mailer) Enqueue(ctx context.Context, tx jobs.Enqueuer, workspace string, msg Message) error {
	now := m.Now()
	j, err := jobs.New(now, workspace, MailKind, "", nil, now)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	sealed, err := m.Sealer.Seal(plain, MessagePlace(j.ID))
	if err != nil {
		return fmt.Errorf("seal message: %w", err)
	}
	if j.Payload, err = json.Marshal(sealed); err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	return tx.EnqueueJob(ctx, j)
}

// MessagePlace is the context that a message is sealed for: its own job.
func MessagePlace(job string) string { return "mail " + job }

// Jobs returns how jobs of [MailKind] are run.
func (m *Mailer) Jobs() jobs.Kind {
	return jobs.Kind{Handle: m.send, Retry: jobs.Delays(retries...), Timeout: defaultTimeout + 15*time.Second, Outgoing: true}
}

// Read returns the message that a job of [MailKind] is to send.
func (m *Mailer) Read(j jobs.Job) (msg Message, err error) {
	var sealed string
	if err := json.Unmarshal(j.Payload, &sealed); err != nil {
		return msg, fmt.Errorf("payload: %w", err)
	}
	plain, err := m.Sealer.Open(sealed, MessagePlace(j.ID))
	if err != nil {
		return msg, err
	}
	if err := json.Unmarshal(plain, &msg); err != nil {
		return msg, fmt.Errorf("payload: %w", err)
	}
	return msg, nil
}

// send makes one try.
func (m *Mailer) send(ctx context.Context, j jobs.Job) error {
	msg, err := m.Read(j)
	if err != nil {
		return jobs.Permanent(err)
	}
	if !msg.Until.IsZero() && !m.Now().Before(msg.Until) {
		return jobs.Permanent(errors.New("the message could not be sent before it lost its point"))
	}
	if msg.Member != "" {
		if ok, err := m.IsMember(ctx, j.Workspace, msg.Member, msg.Role); err != nil || !ok {
			return err // who has left, or may see less now, gets nothing
		}
	}
	built, err := m.build(j, msg)
	if err != nil {
		return jobs.Permanent(err)
	}
	if m.server == nil {
		_, err := Outbox{m.outbox}.write(built, j.ID)
		return err
	}
	server := *m.server
	server.network.Timeout = m.Timeout
	switch f := server.send(ctx, built, m.host); {
	case f == nil:
		return nil
	case f.Outcome == Refused:
		return jobs.Permanent(f)
	default:
		return f // it has the same id at each try
	}
}

// build returns the message as it goes out. It has the same id at each try.
func (m *Mailer) build(j jobs.Job, msg Message) (*gomail.Msg, error) {
	to, err := mail.ParseAddress(msg.To)
	if err != nil || to.Address != msg.To || strings.ContainsFunc(msg.To, unseen.Hidden) {
		return nil, fmt.Errorf("%.100q is not an e-mail address", msg.To)
	}
	var options []gomail.MsgOption
	if m.server == nil {
		options = append(options, gomail.WithEncoding(gomail.NoEncoding)) // people read the file, and copy the links in it
	}
	built := gomail.NewMsg(options...)
	built.FromMailAddress(&m.from)
	built.ToMailAddress(&mail.Address{Name: header(msg.Name), Address: to.Address})
	built.Subject(header(msg.Subject))
	built.SetDateWithValue(j.CreatedAt)
	built.SetMessageIDWithValue(j.ID + "@" + m.host)
	built.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no vacation answers
	built.SetUserAgent("TrustPager")
	built.SetBodyString(gomail.TypeTextPlain, lines(msg.Body))
	return built, nil
}

// maxHeader is how many characters of a text stand in a header.
const maxHeader = 150

// header returns a text for a header: on one line, with what is hidden in it
// visible, also what an encoded word (RFC 2047) would hide.
func header(s string) string {
	return strings.ReplaceAll(unseen.Text(clip(s, maxHeader)), "=?", "= ?")
}

// lines returns a text of several lines in which everything hidden but the ends
// of lines is visible.
func lines(s string) string {
	all := strings.Split(s, "\n")
	for i, l := range all {
		all[i] = unseen.Text(l)
	}
	return strings.Join(all, "\n")
}
