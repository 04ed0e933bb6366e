package access_test

import (
	"testing"
	"time"

	"trustpager/access"
)

func TestTally(t *testing.T) {
	var tally access.Tally
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	told := 0
	for range 10 {
		if _, tell := tally.Count("a", 3, now); tell {
			told++
		}
	}
	if told != 3 {
		t.Errorf("told %d times, want 3", told)
	}
	if _, tell := tally.Count("b", 3, now); !tell {
		t.Error("somebody else is not told")
	}
	if suppressed, tell := tally.Count("a", 3, now.Add(time.Hour)); !tell || suppressed != 7 {
		t.Errorf("an hour later: got %d, %t; want the 7 that were not told", suppressed, tell)
	}
	if suppressed, _ := tally.Count("a", 3, now.Add(time.Hour)); suppressed != 0 {
		t.Errorf("then: got %d, want none", suppressed)
	}
}
