package integrations

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

// An IMAPAccount is a workspace's account at a mail server, from which the
// answers to its letters are read. The mailbox is only looked at: nothing in it
// is changed, and what is unread stays unread.
type IMAPAccount struct {
	Host     string
	Port     int // usually 993 for tls, 143 for starttls
	Security Security
	Username string
	Password string
	Mailbox  string // "" means INBOX
}

// A Cursor says up to where a mailbox has been read. The zero Cursor is that of
// a mailbox which was never looked at. It is kept as JSON.
type Cursor struct {
	Validity uint32 `json:"validity"` // UIDVALIDITY of the mailbox (RFC 9051 §2.3.1.1)
	UID      uint32 `json:"uid"`      // of the last message that was read, or passed over
	// Arrived is when that message arrived at the server, in Unix seconds, 0 if
	// there was none: where to go on if the server numbers its messages anew.
	Arrived int64 `json:"arrived,omitempty"`
}

// maxReceived is how many bytes of a message are fetched.
const maxReceived = 1 << 20

// Check connects as [IMAPAccount.Fetch] does, logs in and looks at the mailbox.
// Its error is a [Failure].
func (a IMAPAccount) Check(ctx context.Context, n Network) error {
	ctx, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	s, err := a.open(ctx, n, maxReceived)
	if err != nil {
		return a.failure(err)
	}
	s.leave()
	return nil
}

// Fetch returns up to most messages that have come since the cursor, the oldest
// first, and the cursor to go on from; more reports whether there are more.
//
// The first time, with the zero Cursor, it returns no messages: it begins at the
// newest one and does not import the past. When the server has numbered the
// messages anew (another UIDVALIDITY), it goes on with those that arrived in the
// second of the last one or later, so a message may come twice: tell by its
// MessageID.
//
// What has been read before the connection was lost is returned without an
// error; the next call meets it again. An error is a [Failure], and the cursor
// is then the one that was given.
func (a IMAPAccount) Fetch(ctx context.Context, n Network, after Cursor, most int) (got []Received, next Cursor, more bool, err error) {
	if most < 1 {
		return nil, after, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	s, err := a.open(ctx, n, int64(most+8)*(maxReceived+64<<10))
	if err != nil {
		return nil, after, false, a.failure(err)
	}
	defer s.leave()
	if next, err = s.begin(after); err != nil {
		return nil, after, false, a.failure(err)
	}
	uids, err := s.since(next)
	if err != nil {
		return nil, after, false, a.failure(err)
	}
	// After a new UIDVALIDITY the search is by day, and passes over what had
	// arrived earlier that day.
	floor := int64(0)
	if next.UID == 0 {
		floor = next.Arrived
	}
	for i, uid := range uids {
		if len(got) == most {
			return got, next, true, nil
		}
		r, arrived, err := s.read(uid)
		if err != nil {
			if i == 0 {
				return nil, after, false, a.failure(err)
			}
			return got, next, true, nil
		}
		next.UID, next.Arrived = uint32(uid), max(next.Arrived, arrived)
		if r != nil && arrived >= floor {
			got = append(got, *r)
		}
	}
	return got, next, false, nil
}

// failure returns err as a [Failure] that never holds the password.
func (a IMAPAccount) failure(err error) *Failure {
	f := failure(Temporary, "mailbox at "+clip(a.Host, 100), err, a.Password, "\x00"+a.Username+"\x00"+a.Password)
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		f.Err = fmt.Errorf("%w (timeout)", f.Err)
	}
	if e, ok := errors.AsType[*imap.Error](err); ok {
		f.Code = clip(string(e.Code), 50)
	}
	return f
}

// An imapSession is a connection to a mailbox that is open for reading.
type imapSession struct {
	client  *imapclient.Client
	conn    *metered
	mailbox *imap.SelectData
}

// open connects, logs in and opens the mailbox with EXAMINE. Not more than most
// bytes are read from the server.
func (a IMAPAccount) open(ctx context.Context, n Network, most int64) (*imapSession, error) {
	if err := a.Security.check(a.Host, a.Password); err != nil {
		return nil, err
	}
	conn, err := n.connect(ctx, a.Host, a.Port, a.Security == TLS)
	if err != nil {
		return nil, err
	}
	s := &imapSession{conn: &metered{Conn: conn, left: most}}
	if a.Security == STARTTLS {
		s.client, err = imapclient.NewStartTLS(s.conn, &imapclient.Options{TLSConfig: n.tls(a.Host)})
		if err != nil {
			conn.Close()
			return nil, err
		}
	} else {
		s.client = imapclient.New(s.conn, nil)
	}
	if err := s.enter(a); err != nil {
		s.client.Close()
		return nil, err
	}
	return s, nil
}

func (s *imapSession) enter(a IMAPAccount) error {
	if err := s.client.WaitGreeting(); err != nil {
		return err
	}
	var err error
	switch caps := s.client.Caps(); {
	case s.client.State() != imap.ConnStateNotAuthenticated:
		err = errors.New("the server takes everybody without a login")
	case caps.Has(imap.AuthCap(sasl.Plain)): // RFC 4616; takes any characters
		err = s.client.Authenticate(sasl.NewPlainClient("", a.Username, a.Password))
	case caps.Has(imap.CapLoginDisabled):
		err = errors.New("the server offers no way to log in that is known here")
	default:
		err = s.client.Login(a.Username, a.Password).Wait()
	}
	if err != nil {
		return fmt.Errorf("login as %.100s: %w", a.Username, err)
	}
	mailbox := a.Mailbox
	if mailbox == "" {
		mailbox = "INBOX"
	}
	s.mailbox, err = s.client.Select(mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return fmt.Errorf("mailbox %.100s: %w", mailbox, err)
	}
	if s.mailbox.UIDValidity == 0 {
		return fmt.Errorf("mailbox %.100s: the server does not number its messages for good", mailbox)
	}
	return nil
}

// leave logs out and closes the connection.
func (s *imapSession) leave() {
	s.client.Logout().Wait() // what fails now has no say
	s.client.Close()
}

// begin returns the cursor to go on from: after itself, the newest message if
// the mailbox is looked at for the first time, or none of the numbers if they
// are new.
func (s *imapSession) begin(after Cursor) (Cursor, error) {
	next := Cursor{Validity: s.mailbox.UIDValidity}
	switch {
	case after.Validity == next.Validity:
		return after, nil
	case after.Validity != 0:
		next.Arrived = after.Arrived
		return next, nil
	case s.mailbox.NumMessages == 0:
		if s.mailbox.UIDNext > 0 {
			next.UID = uint32(s.mailbox.UIDNext) - 1
		}
		return next, nil
	}
	var newest imap.SeqSet
	newest.AddNum(s.mailbox.NumMessages)
	all, err := s.client.Fetch(newest, &imap.FetchOptions{UID: true, InternalDate: true}).Collect()
	if err != nil {
		return next, err
	}
	for _, m := range all {
		next.UID, next.Arrived = max(next.UID, uint32(m.UID)), max(next.Arrived, unix(m.InternalDate))
	}
	if s.mailbox.UIDNext > 0 {
		next.UID = max(next.UID, uint32(s.mailbox.UIDNext)-1)
	}
	return next, nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// since returns the UIDs after the cursor's in ascending order.
func (s *imapSession) since(c Cursor) ([]imap.UID, error) {
	if s.mailbox.NumMessages == 0 || s.mailbox.UIDNext != 0 && uint32(s.mailbox.UIDNext) <= c.UID+1 {
		return nil, nil
	}
	var rest imap.UIDSet
	rest.AddRange(imap.UID(c.UID+1), 0) // "n:*", which holds the last message whatever n is
	criteria := &imap.SearchCriteria{UID: []imap.UIDSet{rest}}
	if c.UID == 0 && c.Arrived != 0 {
		criteria.Since = time.Unix(c.Arrived, 0).UTC().AddDate(0, 0, -1) // a day, in the server's zone
	}
	found, err := s.client.UIDSearch(criteria, nil).Wait()
	if err != nil {
		return nil, err
	}
	uids := found.AllUIDs()
	slices.Sort(uids)
	return slices.DeleteFunc(slices.Compact(uids), func(u imap.UID) bool { return uint32(u) <= c.UID }), nil
}

// read reads a message without marking it as seen, and returns when it arrived
// in Unix seconds. It returns nil if the message is gone by now.
func (s *imapSession) read(uid imap.UID) (*Received, int64, error) {
	section := &imap.FetchItemBodySection{Peek: true, Partial: &imap.SectionPartial{Size: maxReceived}}
	all, err := s.client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, InternalDate: true, RFC822Size: true,
		BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		return nil, 0, err
	}
	for _, m := range all {
		if m.UID != uid {
			continue // about another message, on the server's own account
		}
		raw := m.FindBodySection(section)
		if raw == nil && len(m.BodySection) > 0 {
			raw = m.BodySection[0].Bytes
		}
		r, err := ParseReceived(raw[:min(len(raw), maxReceived)])
		if err != nil {
			r = Received{} // an empty one is one, too
		}
		r.UID = uint32(uid)
		r.Truncated = r.Truncated || m.RFC822Size > int64(len(raw)) || len(raw) > maxReceived
		if r.Date.IsZero() {
			r.Date = m.InternalDate
		}
		return &r, unix(m.InternalDate), nil
	}
	return nil, 0, nil
}

// A metered connection gives left bytes and then fails, so that a server cannot
// fill the memory.
type metered struct {
	net.Conn
	left int64
}

func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errTooLong
	}
	n, err := m.Conn.Read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)
	return n, err
}
