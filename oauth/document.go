package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"trustpager/problem"
)

// Clients that are known by a metadata document (Client ID Metadata Documents):
// the id is the https URL of JSON that says what the client would say at
// registration. Whoever controls the URL is the client.

const (
	maxDocument     = 5 << 10         // bytes
	documentTimeout = 5 * time.Second // of a whole fetch, and of the wait for one
	maxFetches      = 8               // at a time
	minFresh        = 5 * time.Minute
	defaultFresh    = time.Hour // if the host does not say
	maxFresh        = 24 * time.Hour
)

// isDocumentID reports whether a client id is the URL of a metadata document.
func isDocumentID(id string) bool { return strings.HasPrefix(id, "https://") }

// checkDocumentID says why a URL cannot be a client id.
func checkDocumentID(id string) error {
	// What holds for https redirect URIs holds here too: no fragment, user name,
	// dot segment, or character that two readers could take for another.
	if err := CheckRedirectURI(id); err != nil {
		return err
	}
	u, err := url.Parse(id)
	if err != nil || u.Path == "" || u.Path == "/" {
		return errors.New("it has no path")
	}
	return nil
}

// metadataDocument is a client's metadata document.
type metadataDocument struct {
	clientMetadata
	ID      string         `json:"client_id"`
	Secret  jsontext.Value `json:"client_secret"`
	Keys    jsontext.Value `json:"jwks"`
	KeysURI string         `json:"jwks_uri"`
}

// digest returns what a consent holds for: name, redirect URIs and keys.
func (d *metadataDocument) digest() (string, error) {
	uris := slices.Sorted(slices.Values(d.RedirectURIs))
	keys := slices.Clone(d.Keys)
	if len(keys) > 0 {
		if err := keys.Canonicalize(); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal([]any{d.Name, uris, keys.String(), d.KeysURI})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// documentClient returns the client of a metadata document: the stored copy
// while it is fresh, or as long as nobody is logged in; otherwise a new one.
func (s *Server) documentClient(ctx context.Context, id, user string) (Client, error) {
	if err := checkDocumentID(id); err != nil {
		return Client{}, refuseDocument("Its client_id is not the URL of a metadata document: " + err.Error())
	}
	stored, known, err := s.storedDocument(ctx, id)
	switch {
	case err != nil:
		return Client{}, err
	case known && (user == "" || s.Now().Before(stored.Document.FreshTill)):
		return stored, nil
	case user == "":
		return Client{}, ErrLoginFirst
	}
	fetched, err := s.fetchFor(ctx, user, id)
	if !errors.Is(err, errBusy) {
		return fetched, err
	}
	// That we are busy says nothing about the document, so nothing is stored.
	slog.WarnContext(ctx, "client metadata document not fetched", "client", id, "user", user, "err", err)
	if known {
		return stored, nil
	}
	return Client{}, &RequestError{Code: codeUnavailable, Message: "Too much is being looked up just now to verify the app that asks.",
		Fix: "Try again in a minute."}
}

// storedDocument returns the stored copy of a document's client, if there is one.
func (s *Server) storedDocument(ctx context.Context, id string) (stored Client, known bool, err error) {
	stored, err = s.Store.Client(ctx, id)
	if problem.Is(err, problem.NotFound) {
		return Client{}, false, nil
	}
	return stored, err == nil, err
}

// errBusy says that a document was not fetched because of our own limits.
var errBusy = errors.New("too many fetches")

// fetchFor fetches a document for the user, whose fetches are counted.
func (s *Server) fetchFor(ctx context.Context, user, id string) (Client, error) {
	u, err := url.Parse(id)
	if err != nil {
		return Client{}, err
	}
	host := u.Hostname()
	if _, ok := s.people.Allow(user); !ok {
		return Client{}, fmt.Errorf("%w by this user", errBusy)
	}
	if _, ok := s.peopleOnHost.Allow(user + " " + host); !ok {
		return Client{}, fmt.Errorf("%w by this user from %s", errBusy, host)
	}
	// The fetch serves all who wait for it, so it does not end with the first.
	return s.documents.do(ctx, id, func() (Client, error) {
		// It waits for its turn, fetches, and stores.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*documentTimeout)
		defer cancel()
		// Who looked at the store before another fetch ended, and comes here
		// after it, finds what that fetch has stored.
		stored, known, err := s.storedDocument(ctx, id)
		if err != nil || known && s.Now().Before(stored.Document.FreshTill) {
			return stored, err
		}
		if _, ok := s.hosts.Allow(host); !ok {
			return Client{}, fmt.Errorf("%w from %s", errBusy, host)
		}
		if err := s.startFetch(ctx); err != nil {
			return Client{}, err
		}
		defer func() { <-s.fetching }()
		return s.refetch(ctx, stored, known, id)
	})
}

// startFetch waits until fewer than [maxFetches] run. Who gets nil takes one out
// of fetching afterwards.
func (s *Server) startFetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, documentTimeout)
	defer cancel()
	select {
	case s.fetching <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w at a time", errBusy)
	}
}

func refuseDocument(message string) error {
	return &RequestError{Code: codeInvalidClient, Message: "The app that asks cannot be verified. " + message,
		Fix: "Try again later. If it stays so, report it to the maker of the app, or ask an admin of your workspace to register the app: then nothing has to be fetched."}
}

// errOutage says that a document's host is in trouble, which says nothing about
// the client: then the last good copy serves. A host that answers that there is
// no document, or that sends one which is not valid, has said no.
var errOutage = errors.New("the host did not answer")

// refetch fetches the document and stores the client.
func (s *Server) refetch(ctx context.Context, stored Client, known bool, id string) (Client, error) {
	now := s.Now()
	fetched, err := s.fetch(ctx, id, stored.Document, now)
	switch {
	case errors.Is(err, errOutage) && known:
		slog.WarnContext(ctx, "client metadata document not fetched; the last copy serves", "client", id, "err", err)
		stored.Document.FreshTill = now.Add(minFresh)
		return stored, s.Store.SaveDocumentClient(ctx, stored)
	case errors.Is(err, errOutage):
		slog.WarnContext(ctx, "client metadata document not fetched", "client", id, "err", err)
		return Client{}, refuseDocument("Its metadata document could not be fetched.")
	case err != nil:
		return Client{}, err
	}
	if fetched.ID == "" { // not modified
		stored.Document.FetchedAt, stored.Document.FreshTill = now, fetched.Document.FreshTill
		return stored, s.Store.SaveDocumentClient(ctx, stored)
	}
	fetched.CreatedAt = now
	if known {
		fetched.CreatedAt = stored.CreatedAt
	}
	return fetched, s.Store.SaveDocumentClient(ctx, fetched)
}

// fetch returns the client that the document describes, without an ID if the
// copy at hand is still the current one.
func (s *Server) fetch(ctx context.Context, id string, have Document, now time.Time) (Client, error) {
	ctx, cancel := context.WithTimeout(ctx, documentTimeout)
	defer cancel()
	if err := s.CheckURL(ctx, id); err != nil {
		return Client{}, fmt.Errorf("%w: %w", errOutage, err) // its name may not resolve just now
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, id, nil)
	if err != nil {
		return Client{}, err
	}
	req.Header.Set("Accept", "application/json")
	if have.ETag != "" {
		req.Header.Set("If-None-Match", have.ETag)
	}
	// The client is a copy, so that it follows no redirect whoever made it: a
	// redirect would let one host speak for another.
	client := *s.Documents
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return Client{}, fmt.Errorf("%w: %w", errOutage, err)
	}
	defer resp.Body.Close()
	doc := Document{FetchedAt: now, FreshTill: now.Add(freshness(resp.Header, now)), ETag: etag(resp.Header)}
	switch {
	case resp.StatusCode == http.StatusNotModified && have.ETag != "":
		return Client{Document: doc}, nil
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout:
		return Client{}, fmt.Errorf("%w: status %d", errOutage, resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		// The status is for the log: pages are not to tell what answers where.
		slog.WarnContext(ctx, "client metadata document is not there", "client", id, "status", resp.StatusCode)
		return Client{}, refuseDocument("Its metadata document could not be fetched.")
	}
	mt, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || mt != "application/json" && !(strings.HasPrefix(mt, "application/") && strings.HasSuffix(mt, "+json")) {
		return Client{}, refuseDocument("Its metadata document is not JSON.")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return Client{}, fmt.Errorf("%w: %w", errOutage, err)
	}
	if len(body) > maxDocument {
		return Client{}, refuseDocument(fmt.Sprintf("Its metadata document is longer than %d bytes.", maxDocument))
	}
	return parseDocument(id, body, doc)
}

// parseDocument returns the client that the document at id describes.
func parseDocument(id string, body []byte, doc Document) (Client, error) {
	var d metadataDocument
	err := parseMetadata(body, &d)
	if err == nil {
		err = d.check()
	}
	if e, ok := errors.AsType[*refusal](err); ok {
		return Client{}, refuseDocument("Its metadata document is not valid: " + e.description + ".")
	}
	switch {
	case err != nil:
		return Client{}, err
	case d.ID != id:
		return Client{}, refuseDocument("Its metadata document is that of another client_id.")
	case len(d.Secret) > 0:
		return Client{}, refuseDocument("Its metadata document holds a secret, which everybody can read.")
	case d.AuthMethod != "" && d.AuthMethod != AuthNone:
		return Client{}, refuseDocument("Its metadata document demands the authentication method " + ClientName(d.AuthMethod) + ", which is not offered; only none is.")
	}
	if doc.Digest, err = d.digest(); err != nil {
		return Client{}, refuseDocument("Its metadata document is not valid: the keys cannot be read.")
	}
	return Client{ID: id, Origin: Metadata, Name: d.Name, URI: d.URI, RedirectURIs: d.RedirectURIs, AuthMethod: AuthNone,
		GrantTypes: d.GrantTypes, Scope: d.Scope, Document: doc}, nil
}

// freshness returns how long a document may be kept (RFC 9111 §4.2), within
// bounds of our own.
func freshness(h http.Header, now time.Time) time.Duration {
	fresh := defaultFresh
	if t, err := http.ParseTime(h.Get("Expires")); err == nil {
		fresh = t.Sub(now)
	}
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return minFresh
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				fresh = time.Duration(n) * time.Second
			}
		}
	}
	return min(max(fresh, minFresh), maxFresh)
}

// etag returns the answer's entity tag if it can be kept and sent back.
func etag(h http.Header) string {
	tag := h.Get("ETag")
	if len(tag) > 200 || !text(tag) || strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return ""
	}
	return tag
}

// fetches lets those who want the same document at the same time share one
// fetch. The zero value is ready.
type fetches struct {
	mu      sync.Mutex
	running map[string]*fetch
}

type fetch struct {
	done   chan struct{}
	client Client
	err    error
}

// do returns what get returns, which runs once for all who ask meanwhile.
func (f *fetches) do(ctx context.Context, id string, get func() (Client, error)) (Client, error) {
	f.mu.Lock()
	if one, ok := f.running[id]; ok {
		f.mu.Unlock()
		select {
		case <-one.done:
			return one.client, one.err
		case <-ctx.Done():
			return Client{}, ctx.Err()
		}
	}
	one := &fetch{done: make(chan struct{}), err: errors.New("the fetch panicked")}
	if f.running == nil {
		f.running = map[string]*fetch{}
	}
	f.running[id] = one
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.running, id)
		f.mu.Unlock()
		close(one.done)
	}()
	one.client, one.err = get()
	return one.client, one.err
}
