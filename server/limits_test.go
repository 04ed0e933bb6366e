package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// flood sends tries requests with the key at once, to the nodes and both doors
// in turn, and returns how many of them had each status.
func flood(t *testing.T, tries int, key string, nodes ...*servertest.Server) map[int]int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: tries}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range tries {
		r, err := http.NewRequest("GET", nodes[i%len(nodes)].URL+"/v1/me", nil)
		if i%4 < 2 {
			r, err = http.NewRequest("POST", nodes[i%len(nodes)].URL+"/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		wg.Go(func() {
			<-start
			res, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			statuses[res.StatusCode]++
		})
	}
	close(start)
	wg.Wait()
	return statuses
}

// The database's clock counts, whatever the clocks of the nodes say.
func TestLimitsAreExactAcrossNodes(t *testing.T) {
	for _, skew := range []time.Duration{0, -7 * time.Minute, 15 * time.Hour} {
		t.Run(fmt.Sprint("skew ", skew), func(t *testing.T) {
			t.Parallel()
			s := servertest.New(t, storagetest.Postgres(t), servertest.Options{})
			other := servertest.Join(t, s, servertest.Options{Config: func(c *server.Config) {
				c.Now = func() time.Time { return s.Clock.Now().Add(skew) }
			}})
			s.Pass(0)
			add := func(l access.Limits) (secret, id string) {
				return s.AddKey(admin.KeyInput{Name: new("limited"), FullAccess: new(true), Limits: &l})
			}
			check := func(what, key string, want int) {
				t.Helper()
				if got := flood(t, 800, key, s, other); got[200] != want || got[429] != 800-want {
					t.Errorf("%s: got %v, want 200 %d times and else 429", what, got, want)
				}
			}
			minute, id := add(access.Limits{PerMinute: 60})
			check("minute", minute, 60)
			both, _ := add(access.Limits{PerMinute: 1000, PerDay: 130})
			check("day", both, 130)
			s.Pass(10 * time.Second)
			check("10 seconds later, minute", minute, 10)
			check("10 seconds later, day", both, 0)
			// What an admin changes holds from the next request on, on each node.
			for _, tt := range []struct {
				limits access.Limits
				want   int
			}{{access.Limits{PerDay: 71}, 1}, {access.Limits{PerMinute: 600}, 40}, {access.Limits{}, 800}} {
				s.Pass(2 * time.Second) // both together are worth 40 of 600 a minute
				if _, err := s.Desk.UpdateKey(t.Context(), admin.OperatorGrant(s.Workspace), id, admin.KeyInput{Limits: &tt.limits}); err != nil {
					t.Fatal(err)
				}
				check(fmt.Sprint("changed to ", tt.limits), minute, tt.want)
			}
			s.Pass(14 * time.Hour)
			check("the next day", both, 130)
		})
	}
}
