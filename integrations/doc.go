// Package integrations is how the server reaches people outside of it: by
// e-mail.
//
// A [Message] is enqueued with the transaction that is its reason, and sent
// later by a job:
//
//	Mailer.Enqueue ─▶ job mail.send (sealed) ─▶ Mailer.send ─▶ SMTP server, or a file in the outbox
//
// The job is tried again for a day, and each try has the same Message-ID, so
// that a receiver which gets a message twice can tell. What the job holds is
// sealed with the secret key: a link that lets somebody in is not to be found
// in the database.
package integrations
