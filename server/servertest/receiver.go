package servertest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A Receiver is a server on this machine that webhooks are sent to.
type Receiver struct {
	URL string
	got chan Delivery
	tb  testing.TB
}

// A Delivery is what a webhook has brought.
type Delivery struct {
	Header http.Header
	Body   []byte
}

// NewReceiver starts a receiver that accepts all. It ends with the test.
func NewReceiver(tb testing.TB) *Receiver {
	r := &Receiver{got: make(chan Delivery, 100), tb: tb}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.got <- Delivery{req.Header, body}
	}))
	tb.Cleanup(s.Close)
	r.URL = s.URL
	return r
}

// Next returns the next delivery, and fails the test if none comes.
func (r *Receiver) Next() Delivery {
	r.tb.Helper()
	select {
	case d := <-r.got:
		return d
	case <-time.After(20 * time.Second):
		r.tb.Fatal("no delivery came within 20 s")
		return Delivery{}
	}
}
