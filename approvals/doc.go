// Package approvals holds the one [Gate] that every action passes, from
// whatever door it comes: the gate refuses it, runs it, or queues it as an
// [Approval] that a person decides.
//
//	                       ┌─ Deny ──▶ refused, audited
//	grant, action, input ──┼─ Run ───▶ one transaction: action + audit
//	                       └─ Queue ─▶ one transaction: approval + expiry job + audit
//	                                        │
//	             Approve ◀──────────────────┼────▶ Reject, Withdraw, expiry
//	one transaction: decision + action      one transaction: decision + audit
//	+ audit + webhook deliveries            + webhook deliveries
//
// A dry run goes the same way in a transaction that never commits, and tells what
// would have become of the action as a [DryRun].
//
// An approval's status and the fate of its execution are two facts. The status
// moves once, by a conditional update that only one of many deciders wins; the
// action runs in the same transaction, so it takes effect exactly once or not
// at all.
package approvals
