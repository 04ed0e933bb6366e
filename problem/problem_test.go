package problem_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"trustpager/problem"
)

var kinds = []problem.Kind{problem.InvalidBody, problem.MissingFields, problem.Validation, problem.Unauthorized, problem.InsufficientScope,
	problem.PlanRequired, problem.NotFound, problem.MethodNotAllowed, problem.Conflict, problem.VersionMismatch, problem.TooLarge,
	problem.UnsupportedType, problem.RateLimited, problem.QueueFull, problem.Unavailable, problem.Unknown, problem.Internal}

func TestEveryKindHasAStatusAndACode(t *testing.T) {
	for _, k := range append(kinds, "MADE_UP", "") {
		e := problem.Errorf(k, "x")
		if s := e.Status(); s < 400 || s > 599 {
			t.Errorf("%q: got status %d", k, s)
		}
		if c := e.Code(); c >= 0 {
			t.Errorf("%q: got code %d, want a negative one", k, c)
		}
	}
	for k, want := range map[problem.Kind]int{"INVALID_BODY": 400, "MISSING_FIELDS": 400, "VALIDATION_ERROR": 400, "UNAUTHORIZED": 401, "INSUFFICIENT_SCOPE": 403,
		"PLAN_REQUIRED": 403, "NOT_FOUND": 404, "CONFLICT": 409, "VERSION_MISMATCH": 412, "PAYLOAD_TOO_LARGE": 413, "RATE_LIMITED": 429,
		"APPROVAL_QUEUE_FULL": 429, "INTERNAL_ERROR": 500} {
		if got := problem.Errorf(k, "x").Status(); got != want {
			t.Errorf("%s: got status %d, want %d", k, got, want)
		}
	}
}

func TestOfTellsNothingOfTheServersFaults(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)

	e := problem.Report(t.Context(), fmt.Errorf("read users: %w", errors.New("password=hunter2")))
	if e.Kind != problem.Internal || strings.Contains(e.Error()+e.Fix+e.Hint, "hunter2") || !strings.Contains(log.String(), "hunter2") {
		t.Errorf("got %+v and the log %q, want the details only in the log", e, log.String())
	}
	log.Reset()
	problem.Report(t.Context(), problem.Errorf(problem.NotFound, "no such thing"))
	if log.Len() > 0 {
		t.Errorf("got %q in the log, want nothing of a caller's fault", log.String())
	}
	problem.Report(t.Context(), errors.Join(errors.New("disk full"), problem.Errorf(problem.Unavailable, "not now")))
	if !strings.Contains(log.String(), "disk full") {
		t.Errorf("got %q in the log, want why the database could not do it", log.String())
	}
}

func TestOfFindsTheWrapped(t *testing.T) {
	inner := problem.Errorf(problem.Conflict, "taken")
	err := fmt.Errorf("outer: %w", errors.Join(errors.New("x"), inner))
	if problem.Of(err) != inner || !problem.Is(err, problem.Conflict) || problem.Is(err, problem.NotFound) || problem.Is(nil, problem.Internal) {
		t.Errorf("got %v, want the wrapped conflict", problem.Of(err))
	}
}

func TestWrite(t *testing.T) {
	e := problem.Errorf(problem.RateLimited, "slow down, <%s>", "agent").WithFix("Wait %d seconds.", 2).WithHint("Or ask.")
	e.RetryAfter = 1500 * time.Millisecond
	e.Fields = []problem.Field{{Path: "a", Expected: "b", Got: "c"}}
	w := httptest.NewRecorder()
	problem.Write(w, httptest.NewRequest("GET", "/", nil), fmt.Errorf("wrapped: %w", e))
	want := `{"error":{"code":"RATE_LIMITED","message":"slow down, \u003cagent\u003e","fix":"Wait 2 seconds.","hint":"Or ask.","status":429,"fields":[{"path":"a","expected":"b","got":"c"}]}}`
	if w.Code != 429 || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("got %d %s, want 429 %s", w.Code, w.Body, want)
	}
	for name, want := range map[string]string{"Retry-After": "2", "Content-Type": "application/json", "Cache-Control": "no-store"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
