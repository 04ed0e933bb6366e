package integrations

import (
	"context"
	"net/mail"
	"strings"

	"trustpager/typeid"
)

// Sender returns what the server itself sends as.
func (m *Mailer) Sender() mail.Address { return m.from }

// Wrote reports whether a message of the id is one of the server's own to people.
func (m *Mailer) Wrote(messageID string) bool {
	id, host, ok := strings.Cut(messageID, "@")
	return ok && typeid.ValidID("job", id) && strings.EqualFold(host, m.host)
}

// Post hands a letter of a workspace that has no mail account to the server's
// own mail server, or writes it to the outbox, which it reports. An error is as
// of [SMTPAccount.Send] and [Outbox.Write].
func (m *Mailer) Post(ctx context.Context, l Letter) (written bool, err error) {
	if m.server == nil {
		if m.outbox == "" {
			return false, failure(Refused, "letter", errNowhere)
		}
		_, err := Outbox{m.outbox}.Write(l)
		return true, err
	}
	built, err := l.build()
	if err != nil {
		return false, failure(Refused, "letter", err)
	}
	server := *m.server
	server.network.Timeout = m.Timeout
	if f := server.send(ctx, built, m.host); f != nil {
		return false, f
	}
	return false, nil
}
