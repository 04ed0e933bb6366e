// Package jobstest does jobs when a test says so.
package jobstest

import (
	"context"
	"testing"
	"time"

	"trustpager/jobs"
)

// Do does the jobs of a kind that are due now, and those that come due at once
// thereby, by a real runner. It returns how each ended, and fails the test if
// they do not come to rest.
func Do(tb testing.TB, store jobs.Store, now func() time.Time, name string, k jobs.Kind) []jobs.Ending {
	tb.Helper()
	var all []jobs.Ending
	k.Workers = 1
	for {
		due, ok, err := store.NextJobDue(tb.Context(), name)
		if err != nil {
			tb.Fatal(err)
		}
		if !ok || due.After(now()) {
			return all
		}
		if len(all) == 1000 {
			tb.Fatalf("jobs of kind %s do not come to rest", name)
		}
		ctx, stop := context.WithCancel(tb.Context())
		one := k
		one.End = func(ctx context.Context, e jobs.Ending) error {
			defer stop()
			all = append(all, e)
			if k.End != nil {
				return k.End(ctx, e)
			}
			return e.Apply(ctx, store)
		}
		if err := (&jobs.Runner{Store: store, Now: now, Kinds: map[string]jobs.Kind{name: one}}).Run(ctx); err != nil {
			tb.Fatal(err)
		}
	}
}
