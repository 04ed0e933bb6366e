package mcp_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"trustpager/access"
)

// A goneClient is the connection of a client that has gone.
type goneClient struct{ header http.Header }

func (g goneClient) Header() http.Header       { return g.header }
func (g goneClient) WriteHeader(int)           {}
func (g goneClient) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
func (g goneClient) FlushError() error         { return errors.New("broken pipe") }

// Clients that are gone before their stream has begun leave the others theirs, and
// are not counted.
func TestGoneClientsHoldNoStreams(t *testing.T) {
	w := newWorld(t, t.TempDir()+"/test.db")
	token, _ := w.key(access.Key{}, "contacts:write-approval")
	_, e := modernCall(token, "create_contact", `{"first_name":"Ada"}`, takesTasks).over(t, w.url)
	id := result(t, e)["taskId"].(string)
	for range 40 { // more than a credential may have open
		w.server.ServeHTTP(goneClient{http.Header{}}, listenTools(token, "").request())
		w.server.ServeHTTP(goneClient{http.Header{}}, old(token, "tasks/result", fmt.Sprintf(`"taskId":%q`, id)).request())
	}
	if got := listenTools(token, "").listen(t, w.url).method(); got != "notifications/subscriptions/acknowledged" {
		t.Errorf("after them: got %q, want the acknowledgement", got)
	}
}
