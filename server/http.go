package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"trustpager/access"
	"trustpager/oauth"
	"trustpager/problem"
	"trustpager/typeid"
)

// routes returns all that the server answers, each request with an id, a line
// in the log and its place in the metrics.
func (s *Server) routes(api, pages http.Handler) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := newMetrics(registry)

	mux := http.NewServeMux()
	api = m.observe("rest", api)
	mux.Handle("/v1", api)
	mux.Handle("/v1/", api)
	mux.Handle("/openapi.json", api)
	mux.Handle("/mcp", m.observe("mcp", s.mcp))
	mux.Handle("/mcp/", m.observe("mcp", s.mcp))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := s.DB.Ping(ctx); err != nil {
			slog.WarnContext(ctx, "not ready", "err", err)
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "trustpager_database_statements_total",
		Help: "Statements that the database was given."}, func() float64 { return float64(s.DB.Statements()) }))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/callbacks/", m.observe("callbacks", s.Messages.Callbacks()))
	programs := m.observe("oauth", s.OAuth.Handler())
	for _, pattern := range oauth.Patterns() {
		mux.Handle(pattern, programs)
	}
	mux.Handle("/", m.observe("web", pages))
	return outer(mux)
}

// metrics counts requests. They carry no names of workspaces or credentials.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trustpager_http_requests_total",
			Help: "Requests by door and status class."}, []string{"door", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "trustpager_http_request_seconds",
			Help: "Time to answer by door.", Buckets: []float64{.001, .005, .02, .1, .5, 2, 10, 60}}, []string{"door"}),
	}
	r.MustRegister(m.requests, m.seconds)
	return m
}

// observe counts the requests that h answers as those of a door.
func (m *metrics) observe(door string, h http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(door)
	var classes [6]prometheus.Counter
	for i := range classes {
		classes[i] = m.requests.WithLabelValues(door, strconv.Itoa(i)+"xx")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		status := http.StatusInternalServerError // if h panics
		defer func() {
			seconds.Observe(time.Since(start).Seconds())
			classes[min(max(status/100, 0), 5)].Inc()
		}()
		h.ServeHTTP(w, r)
		if rec, ok := w.(*recorder); ok {
			status = rec.status
		}
	})
}

// A recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach what is underneath.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// outer gives each request an id and a line in the log, and survives panics.
func outer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := typeid.NewID("req")
		rec := &recorder{ResponseWriter: w}
		header := w.Header()
		header["X-Request-Id"] = []string{id}
		header["X-Content-Type-Options"] = []string{"nosniff"}
		r = r.WithContext(access.WithRequestID(r.Context(), id))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				if rec.status != 0 {
					slog.ErrorContext(r.Context(), "request failed after its answer had begun", "err", err)
				} else {
					problem.Write(rec, r, err)
				}
			}
			if !slog.Default().Enabled(r.Context(), slog.LevelInfo) {
				return
			}
			// No query strings: they hold what people search for.
			slog.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("method", r.Method), slog.String("path", clean(r.URL.Path)),
				slog.Int("status", rec.status), slog.Int("bytes", rec.bytes), slog.Duration("took", time.Since(start)))
		}()
		if !canonical(r.URL.EscapedPath()) {
			// http.ServeMux would redirect, and clients repeat a POST as a GET.
			problem.Write(rec, r, problem.Errorf(problem.NotFound, "the path %q holds empty or dotted parts", clean(r.URL.Path)).
				WithFix("Ask for %q.", clean(path.Clean("/"+r.URL.Path))))
			return
		}
		h.ServeHTTP(rec, r)
	})
}

// canonical reports whether p has no parts that are empty, "." or "..".
func canonical(p string) bool {
	return p == "*" || strings.HasPrefix(p, "/") && (path.Clean(p) == p || path.Clean(p)+"/" == p)
}

// clean shortens a path, and hides what looks like a secret in it.
func clean(p string) string {
	for _, prefix := range []string{access.SecretPrefix, oauth.ClientSecretPrefix, oauth.RefreshTokenPrefix, "eyJ", "whsec_"} {
		if i := strings.Index(p, prefix); i >= 0 {
			p = p[:i] + "[secret]"
		}
	}
	if len(p) > 200 {
		p = p[:200] + "…"
	}
	return strings.ToValidUTF8(p, "\ufffd")
}

// A LogHandler adds the request's id to each line of the log.
type LogHandler struct{ slog.Handler }

// Handle adds the id to the record.
func (h LogHandler) Handle(ctx context.Context, r slog.Record) error {
	if id := access.RequestID(ctx); id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the handler around what it wraps.
func (h LogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return LogHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the handler around what it wraps.
func (h LogHandler) WithGroup(name string) slog.Handler { return LogHandler{h.Handler.WithGroup(name)} }
