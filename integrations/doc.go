// Package integrations is how the server reaches the outside: people by e-mail,
// text message and call, and the models that write for them.
//
// What workspaces use are accounts at outside services, whose clients are here:
//
//	[SMTPAccount]          sends a [Letter]
//	[IMAPAccount]          reads what came into a mailbox, as [Received]
//	[Twilio]               sends text messages, makes calls, tells genuine call-backs
//	[Anthropic], [OpenAI]  write text, as a [Model]
//
// Each of them goes by a [Network], which keeps it out of the operator's own, and
// ends with nil or a [Failure], whose [Outcome] says whether something may have
// happened: only that decides whether to try again. None of them waits and tries
// again by itself.
//
// The server's own mail needs no account. A [Message] is enqueued with the transaction that is its reason, and sent
// later by a job:
//
//	Mailer.Enqueue ─▶ job mail.send (sealed) ─▶ Mailer.send ─▶ SMTP server, or a file in the outbox
//
// The job is tried again for a day, and each try has the same Message-ID, so
// that a receiver which gets a message twice can tell. What the job holds is
// sealed with the secret key: a link that lets somebody in is not to be found
// in the database.
package integrations
