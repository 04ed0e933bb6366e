package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"trustpager/access"
	"trustpager/problem"
)

// The error codes of RFC 6749 §4.1.2.1 and §5.2, RFC 7591 §3.2.2, RFC 8707 §2.
const (
	codeInvalidRequest       = "invalid_request"
	codeInvalidClient        = "invalid_client"
	codeInvalidGrant         = "invalid_grant"
	codeInvalidScope         = "invalid_scope"
	codeInvalidTarget        = "invalid_target"
	codeUnauthorizedClient   = "unauthorized_client"
	codeUnsupportedGrantType = "unsupported_grant_type"
	codeAccessDenied         = "access_denied"
	codeServerError          = "server_error"
	codeUnavailable          = "temporarily_unavailable"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// A refusal is an error that a client is told (RFC 6749 §5.2).
type refusal struct {
	status      int
	code        string
	description string
	basic       bool // the client authenticated by HTTP Basic
	retryAfter  time.Duration
}

// Error returns the code and the description.
func (e *refusal) Error() string { return e.code + ": " + e.description }

// refuse returns a refusal with status 400.
func refuse(code, description string) error {
	return &refusal{status: http.StatusBadRequest, code: code, description: description}
}

func refuseClient(basic bool, description string) error {
	return &refusal{status: http.StatusUnauthorized, code: codeInvalidClient, description: description, basic: basic}
}

// What browsers are told. No page gains anything by these doors that a program
// would not: they know no cookies (so any page may call).
const (
	corsHeaders = "Authorization, Content-Type, Accept, Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID"
	corsExpose  = "WWW-Authenticate, Mcp-Session-Id, Retry-After"
)

// door answers preflights, and checks the name of the server and the method,
// before it calls serve.
func (s *Server) door(method string, serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", corsExpose)
		allowed := method + ", OPTIONS"
		if method == http.MethodGet {
			allowed = "GET, HEAD, OPTIONS"
		}
		switch {
		case r.Method == http.MethodOptions:
			h.Set("Allow", allowed)
			h.Set("Access-Control-Allow-Methods", allowed)
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", "7200") // seconds
			w.WriteHeader(http.StatusNoContent)
			return
		case r.Method != method && !(r.Method == http.MethodHead && method == http.MethodGet):
			h.Set("Allow", allowed)
			writeError(w, r, &refusal{status: http.StatusMethodNotAllowed, code: codeInvalidRequest, description: "The method has to be " + method})
			return
		}
		if err := s.Origin.CheckHost(r); err != nil {
			problem.Write(w, r, err)
			return
		}
		if err := serve(w, r); err != nil {
			writeError(w, r, err)
		}
	})
}

// endpoint serves what clients post.
func (s *Server) endpoint(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return s.door(http.MethodPost, serve)
}

// document serves what anybody may read.
func (s *Server) document(method string, read func(*http.Request) (any, error)) http.Handler {
	return s.door(method, func(w http.ResponseWriter, r *http.Request) error {
		v, err := read(r)
		if err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "public, max-age=300")
		return writeJSON(w, http.StatusOK, v)
	})
}

// writeJSON answers with v. It encodes v before it writes, so that an error can
// still become a proper answer.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body.Bytes()) // fails only if the client has gone
	return nil
}

// answer is writeJSON for what must not be kept (RFC 6749 §5.1).
func answer(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, status, v)
}

// writeError answers with err. What is not a refusal is a fault of the server
// whatever its kind, and goes to the log.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = &refusal{status: http.StatusInternalServerError, code: codeServerError, description: "Internal error; try again"}
		slog.ErrorContext(r.Context(), "request failed", "err", err)
		if p := problem.Of(err); p.Status() == http.StatusServiceUnavailable {
			e = &refusal{status: p.Status(), code: codeUnavailable, description: "The server cannot do this now; try again"}
		}
	}
	h := w.Header()
	if e.status == http.StatusUnauthorized && e.basic {
		h.Set("WWW-Authenticate", `Basic realm="oauth", charset="UTF-8"`)
	}
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.retryAfter+time.Second-1)/time.Second), 10))
	}
	answer(w, e.status, struct {
		Code        string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.code, describe(e.description)})
}

// describe keeps a description to the characters that it may have (RFC 6749
// §5.2).
func describe(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}

// throttle counts a request under the key.
func throttle(t *access.Throttle, key string) error {
	if wait, ok := t.Allow(key); !ok {
		return &refusal{status: http.StatusTooManyRequests, code: codeUnavailable, description: "Too many requests; wait and try again", retryAfter: wait}
	}
	return nil
}

// readBody returns the body, if it has the media type.
func readBody(w http.ResponseWriter, r *http.Request, mediaType string) ([]byte, error) {
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != mediaType {
		return nil, &refusal{status: http.StatusUnsupportedMediaType, code: codeInvalidRequest, description: "The Content-Type has to be " + mediaType}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, code: codeInvalidRequest, description: "The body is longer than " + strconv.Itoa(maxBody) + " bytes"}
	}
	if err != nil {
		return nil, refuse(codeInvalidRequest, "The body could not be read")
	}
	return body, nil
}

// readForm returns the parameters of the body, and never those of the URL, which
// end up in logs (RFC 6749 §2.3.1). It makes them the request's form, so that
// nobody reads others.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	body, err := readBody(w, r, "application/x-www-form-urlencoded")
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse(codeInvalidRequest, "The body is not form-encoded")
	}
	if err := checkParams(form); err != nil {
		return nil, err
	}
	r.Form, r.PostForm = form, form
	return form, nil
}

// checkParams refuses repeated parameters, and those that cannot be stored. One
// without a value counts as omitted (RFC 6749 §3.1, §3.2).
func checkParams(params url.Values) error {
	for name, values := range params {
		switch {
		case len(values) > 1 && name == "resource":
			return refuse(codeInvalidTarget, "Tokens are for one resource; name one")
		case len(values) > 1:
			return refuse(codeInvalidRequest, "The parameter "+name+" is repeated")
		case !text(name) || !text(values[0]):
			return refuse(codeInvalidRequest, "A parameter is not valid UTF-8, or holds NUL")
		case values[0] == "":
			delete(params, name)
		}
	}
	return nil
}
