// Package problem defines the errors that a caller may see, and is the only
// place that maps them to HTTP statuses, JSON-RPC codes and error codes.
//
// An error that does not wrap an [*Error] is a fault of the server: the caller
// is told only "internal error", and the details go to the log.
package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// A Kind says what went wrong. Its text is the error code of the API.
type Kind string

// The kinds of errors.
const (
	InvalidBody       Kind = "INVALID_BODY"        // the body is not what JSON or the protocol allows
	MissingFields     Kind = "MISSING_FIELDS"      // required fields are absent
	Validation        Kind = "VALIDATION_ERROR"    // a value is wrong
	Unauthorized      Kind = "UNAUTHORIZED"        // no credential, or one that is not accepted
	InsufficientScope Kind = "INSUFFICIENT_SCOPE"  // the credential may not do this
	Forbidden         Kind = "FORBIDDEN"           // it comes from where it may not come from
	Paused            Kind = "PAUSED"              // an admin has paused the credential, or all
	PlanRequired      Kind = "PLAN_REQUIRED"       // the workspace's plan has no API access
	NotFound          Kind = "NOT_FOUND"           // no such thing, or none that the caller may see
	MethodNotAllowed  Kind = "METHOD_NOT_ALLOWED"  // the path exists, the method does not
	Conflict          Kind = "CONFLICT"            // the state of the thing forbids it
	VersionMismatch   Kind = "VERSION_MISMATCH"    // If-Match names another version
	TooLarge          Kind = "PAYLOAD_TOO_LARGE"   // the body exceeds the limit
	UnsupportedType   Kind = "UNSUPPORTED_MEDIA"   // the Content-Type is not JSON
	RateLimited       Kind = "RATE_LIMITED"        // the minute's or the day's limit is used up
	QueueFull         Kind = "APPROVAL_QUEUE_FULL" // too many approvals of this credential are open
	Unavailable       Kind = "UNAVAILABLE"         // the server cannot do it now; nothing was done
	Unknown           Kind = "OUTCOME_UNKNOWN"     // the connection was lost before the answer: it may have been done
	Outside           Kind = "OUTSIDE_FAILED"      // a service outside has refused it, or could not be reached
	Internal          Kind = "INTERNAL_ERROR"      // a fault of the server
)

// wire holds, for each kind, how it is told over each protocol.
var wire = map[Kind]struct {
	status int // HTTP status
	code   int // JSON-RPC error code
}{
	InvalidBody:       {http.StatusBadRequest, -32600},
	MissingFields:     {http.StatusBadRequest, -32602},
	Validation:        {http.StatusBadRequest, -32602},
	Unauthorized:      {http.StatusUnauthorized, -32001},
	InsufficientScope: {http.StatusForbidden, -32003},
	Forbidden:         {http.StatusForbidden, -32003},
	Paused:            {http.StatusForbidden, -32003},
	PlanRequired:      {http.StatusForbidden, -32003},
	NotFound:          {http.StatusNotFound, -32602},
	MethodNotAllowed:  {http.StatusMethodNotAllowed, -32601},
	Conflict:          {http.StatusConflict, -32009},
	VersionMismatch:   {http.StatusPreconditionFailed, -32009},
	TooLarge:          {http.StatusRequestEntityTooLarge, -32600},
	UnsupportedType:   {http.StatusUnsupportedMediaType, -32600},
	RateLimited:       {http.StatusTooManyRequests, -32029},
	QueueFull:         {http.StatusTooManyRequests, -32029},
	Unavailable:       {http.StatusServiceUnavailable, -32603},
	Unknown:           {http.StatusServiceUnavailable, -32603},
	Outside:           {http.StatusBadGateway, -32603},
	Internal:          {http.StatusInternalServerError, -32603},
}

// A Field says what is wrong with one member of the input.
type Field struct {
	Path     string `json:"path"`     // dotted, as in "stages.0.name"
	Expected string `json:"expected"` // what would be accepted
	Got      string `json:"got"`      // what was sent, shortened
}

// An Error is an error that may be shown to the caller. Message says what was
// wrong, Fix how to mend it, and Hint what else may help.
type Error struct {
	Kind       Kind
	Message    string
	Fix        string
	Hint       string
	Fields     []Field
	RetryAfter time.Duration // of RateLimited and QueueFull; 0 means unsaid
}

// Error returns the code and the message.
func (e *Error) Error() string { return string(e.Kind) + ": " + e.Message }

// Status returns the HTTP status of e.
func (e *Error) Status() int {
	if w, ok := wire[e.Kind]; ok {
		return w.status
	}
	return wire[Internal].status // as stored by another version of the program
}

// Code returns the JSON-RPC error code of e.
func (e *Error) Code() int {
	if w, ok := wire[e.Kind]; ok {
		return w.code
	}
	return wire[Internal].code
}

// MarshalJSON returns the error envelope's inner object.
func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Code    Kind    `json:"code"`
		Message string  `json:"message"`
		Fix     string  `json:"fix,omitempty"`
		Hint    string  `json:"hint,omitempty"`
		Status  int     `json:"status"`
		Fields  []Field `json:"fields,omitempty"`
	}{e.Kind, e.Message, e.Fix, e.Hint, e.Status(), e.Fields})
}

// Errorf returns an [*Error] of the given kind.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// WithFix sets how to mend the error, and returns e.
func (e *Error) WithFix(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// WithHint sets what else may help, and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Is reports whether err is, or wraps, an [*Error] of the given kind.
func Is(err error, kind Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == kind
}

// Of returns the part of err that the caller may see. It never returns nil.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Internal, Message: "internal error",
		Fix: "Try again; if it happens again, give the operator the request id."}
}

// Report returns the part of err that the caller may see, and logs err in full
// if it is a fault of the server, which it is not if the caller has gone. Each
// protocol calls it once, last.
func Report(ctx context.Context, err error) *Error {
	e := Of(err)
	gone := errors.Is(err, context.Canceled) && ctx.Err() != nil
	switch e.Kind {
	case Internal, Unknown, Unavailable:
		if gone {
			break
		}
		slog.ErrorContext(ctx, "request failed", "err", err)
	}
	return e
}

// Write answers r with err as the error envelope {"error": …}.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	e := Report(r.Context(), err)
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	enc.Encode(map[string]any{"error": e}) // cannot fail: e holds only strings
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(e.Status())
	w.Write(body.Bytes())
}
