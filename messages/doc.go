// Package messages is what a workspace says to the outside and hears from it:
// e-mail, text messages, calls, and what language models write.
//
// An action writes a record and a job in its transaction, and does nothing else:
//
//	Gate.Do ─▶ Carrier.email ─▶ record, status queued ─┬─ job ─▶ SMTP server ─▶ sent
//	                                                   │                  ├──▶ failed
//	                                                   └─ again, same id ─┴──▶ unknown
//
// A [Carrier] carries the jobs out. What it hands over has the same id at each
// try: the Message-ID of an e-mail, the Idempotency-Key of everything else. So
// after a crash it may go out twice, as the same thing, and is recorded once.
// What was refused for good, and what nobody can know, is not tried again by
// itself: it comes back to a person, by [approvals.Gate.StoreEffect].
//
// What comes in, by IMAP or by the calls of a provider, becomes records beside
// what went out, in the same threads.
package messages
