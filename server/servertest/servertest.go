// Package servertest gives tests a whole server that listens: a fresh database,
// a workspace with two keys, a clock that the test sets, and a client that
// compares every answer with the OpenAPI document.
package servertest

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/catalog"
	"trustpager/server"
	"trustpager/storage"
	"trustpager/storage/storagetest"
)

// A Server is a server with a workspace in it. On PostgreSQL it is two nodes
// behind one address, each with its own connections and background work, and
// each request goes to one of them at random: so every story is one of two nodes
// too. Its parts, which tests call directly, are those of the first node.
type Server struct {
	*server.Server
	URL       string // of the server, without a slash at the end
	Database  string // URL of the database
	Clock     *storagetest.Clock
	Workspace access.Workspace
	Agent     string // secret of a key on the recommended preset
	AgentID   string
	Full      string // secret of a full-access key that may decide
	FullID    string
	Client    *http.Client // checks each answer against the OpenAPI document

	tb    testing.TB
	nodes []*server.Server
}

// Options say how a server differs from the usual one.
type Options struct {
	Work   bool                 // do the background work: deliveries, expiries, usage counters
	Alone  bool                 // one node also on PostgreSQL, for what is of one process by its nature
	Config func(*server.Config) // changes the configuration before the start
}

// New starts a server on the database that url names, with keys without
// limits. It ends with the test.
func New(tb testing.TB, url string, o Options) *Server {
	tb.Helper()
	s := start(tb, &Server{Database: url, Clock: storagetest.NewClock()}, o)
	ctx := context.Background()
	var err error
	if s.Workspace, err = s.Desk.CreateWorkspace(ctx, "Test", "UTC"); err != nil {
		tb.Fatal(err)
	}
	recommended := s.Catalog.Scopes(catalog.PresetRecommended)
	scopes := make([]string, len(recommended))
	for i, scope := range recommended {
		scopes[i] = scope.String()
	}
	yes := true
	s.Agent, s.AgentID = s.AddKey(admin.KeyInput{Name: new("agent"), Scopes: &scopes})
	s.Full, s.FullID = s.AddKey(admin.KeyInput{Name: new("full"), FullAccess: &yes, MayDecide: &yes})
	return s
}

// Join starts another server on the database of s, with the same clock.
func Join(tb testing.TB, s *Server, o Options) *Server {
	tb.Helper()
	other := *s
	return start(tb, &other, o)
}

// FlushUsage stores what the nodes have counted of calls.
func (s *Server) FlushUsage() {
	s.tb.Helper()
	for _, node := range s.nodes {
		if err := node.Usage.Flush(context.Background()); err != nil {
			s.tb.Fatal(err)
		}
	}
}

// Pass lets time pass: for the server, and for PostgreSQL's limits, which go by
// the database's clock. From then on that stands still too.
func (s *Server) Pass(d time.Duration) {
	s.tb.Helper()
	s.Clock.Advance(d)
	if storage.IsPostgres(s.Database) {
		storagetest.SetClock(s.tb, s.Database, s.Clock.Now())
	}
}

// start starts a server on the database that s names, and fills s.
func start(tb testing.TB, s *Server, o Options) *Server {
	tb.Helper()
	cat, err := catalog.Load()
	if err != nil {
		tb.Fatal(err)
	}
	front := httptest.NewUnstartedServer(nil)
	s.URL, s.tb = "http://"+front.Listener.Addr().String(), tb
	c := server.Config{BaseURL: s.URL, WebhookNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Version: "test", Now: s.Clock.Now}
	if o.Config != nil {
		o.Config(&c)
	}
	n := 1
	if storage.IsPostgres(s.Database) && !o.Alone {
		n = 2
	}
	s.nodes = make([]*server.Server, n)
	for i := range s.nodes {
		if s.nodes[i], err = server.New(tb.Context(), storagetest.OpenAt(tb, s.Database, c.Now), storagetest.Key, cat, c); err != nil {
			tb.Fatal(err)
		}
		if o.Work {
			s.work(s.nodes[i])
		}
	}
	s.Server = s.nodes[0]
	front.Config.Handler = s.balance()
	front.Start()
	tb.Cleanup(front.Close)
	s.Client = front.Client()
	s.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.Client.Transport = newChecker(tb, s.URL, s.Client.Transport)
	return s
}

// balance returns what has each request answered by one of the nodes.
func (s *Server) balance() http.Handler {
	if len(s.nodes) == 1 {
		return s.Handler()
	}
	seed := rand.Uint64()
	if set, err := strconv.ParseUint(os.Getenv("TRUSTPAGER_TEST_SEED"), 10, 64); err == nil {
		seed = set
	}
	s.tb.Cleanup(func() {
		if s.tb.Failed() {
			s.tb.Logf("requests went to the nodes of %s by TRUSTPAGER_TEST_SEED=%d", s.URL, seed)
		}
	})
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		node := s.nodes[random.IntN(len(s.nodes))]
		mu.Unlock()
		node.Handler().ServeHTTP(w, r)
	})
}

// work does the background work of a node until the test ends.
func (s *Server) work(node *server.Server) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Work(ctx) }()
	s.tb.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			s.tb.Errorf("background work: %v", err)
		}
	})
}

// AddKey makes a key, as the operator does, without limits unless in has some,
// and returns its secret and id.
func (s *Server) AddKey(in admin.KeyInput) (secret, id string) {
	s.tb.Helper()
	if in.Limits == nil {
		in.Limits = &access.Limits{}
	}
	made, err := s.Desk.CreateKey(context.Background(), admin.OperatorGrant(s.Workspace), in)
	if err != nil {
		s.tb.Fatal(err)
	}
	return string(made.Secret), made.Key.ID
}

// A Response is an answer that was read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request with a key and a JSON body, both left out if "", and with
// further headers, names and values in turn.
func (s *Server) Do(method, path, key, body string, headers ...string) Response {
	s.tb.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, s.URL+path, content)
	if err != nil {
		s.tb.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return s.Send(r)
}

// Send sends a request.
func (s *Server) Send(r *http.Request) Response {
	s.tb.Helper()
	res, err := s.Client.Do(r)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return Response{res.StatusCode, res.Header, body}
}

// Want fails the test unless the answer has the status.
func (r Response) Want(tb testing.TB, status int) Response {
	tb.Helper()
	if r.Status != status {
		tb.Fatalf("got %d %s, want %d", r.Status, r.Body, status)
	}
	return r
}

// Get returns the value at the path in the answer, as in "data.0.id", and nil
// if there is none.
func (r Response) Get(path string) any {
	var v any
	if json.Unmarshal(r.Body, &v) != nil {
		return nil
	}
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

// Text is Get for a string; what is none is "".
func (r Response) Text(path string) string {
	text, _ := r.Get(path).(string)
	return text
}

// Len returns how many elements the array at the path has.
func (r Response) Len(path string) int {
	list, _ := r.Get(path).([]any)
	return len(list)
}
