// Package access says who is asking, what they may do, and how often.
//
// A credential is shown with a request, the [Authenticator] finds the [Grant]
// that it stands for, and [Grant.Decide] says how far each verb of each
// resource may go. Nothing about rights is kept from one request to the next,
// so that a change holds from the next request on, on every node.
package access
