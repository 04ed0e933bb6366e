package audit_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"trustpager/audit"
)

var key = []byte("a key of the tests")

// chain returns n sealed rows.
func chain(t *testing.T, n int) []audit.Row {
	t.Helper()
	var rows []audit.Row
	prev := ""
	for i := range n {
		stored, err := json.Marshal(audit.Entry{Workspace: "ws_1", Seq: int64(i + 1), Time: time.Unix(int64(i), 0).UTC(),
			Actor: audit.Actor{Kind: "key", ID: "key_1"}, Event: audit.ActionRun})
		if err != nil {
			t.Fatal(err)
		}
		prev = audit.Seal(key, prev, stored)
		rows = append(rows, audit.Row{Seq: int64(i + 1), Stored: stored, Seal: prev})
	}
	return rows
}

// verify checks the rows against the head that the chain of n rows has.
func verify(key []byte, rows []audit.Row, head audit.Row) error {
	v := audit.Verifier{Key: key}
	for _, r := range rows {
		if err := v.Next(r); err != nil {
			return err
		}
	}
	return v.End(head.Seq, head.Seal)
}

func TestVerify(t *testing.T) {
	whole := chain(t, 5)
	edited := func(i int, old, new string) []audit.Row {
		rows := slices.Clone(whole)
		rows[i].Stored = []byte(strings.Replace(string(rows[i].Stored), old, new, 1))
		return rows
	}
	resealed := edited(2, "key_1", "key_2")
	resealed[2].Seal = audit.Seal([]byte("another key"), resealed[1].Seal, resealed[2].Stored)
	renumbered := slices.Delete(slices.Clone(whole), 1, 2)
	for i := range renumbered {
		renumbered[i].Seq = int64(i + 1)
	}
	swapped := slices.Clone(whole)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	twice := slices.Insert(slices.Clone(whole), 2, whole[1])
	for _, tt := range []struct {
		name string
		key  []byte
		rows []audit.Row
		want string // "" if the log is sound
	}{
		{"whole", key, whole, ""},
		{"removed", key, slices.Delete(slices.Clone(whole), 2, 3), "entry 4 follows entry 2"},
		{"first removed", key, whole[1:], "entry 2 follows entry 0"},
		{"removed at the end", key, whole[:4], "entry 5 was written"},
		{"all removed", key, nil, "entry 5 was written"},
		{"swapped", key, swapped, "entry 3 follows entry 1"},
		{"twice", key, twice, "entry 2 follows entry 2"},
		{"changed", key, edited(2, "key_1", "key_2"), "entry 3 was changed"},
		{"a space more", key, edited(4, ",", ", "), "entry 5 was changed"},
		{"changed and sealed with another key", key, resealed, "entry 3 was changed"},
		{"removed and renumbered", key, renumbered, "entry 2 was changed: it does not hold its own number"},
		{"no JSON", key, edited(0, "{", "["), "entry 1 was changed"},
		{"another key", []byte("x"), whole, "secret key is not the one"},
	} {
		err := verify(tt.key, tt.rows, whole[4])
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := verify(key, nil, audit.Row{}); err != nil {
		t.Errorf("an empty log: got %v, want it sound", err)
	}
}

// No bit of what is stored can change unseen.
func TestEveryByteIsSealed(t *testing.T) {
	rows := chain(t, 2)
	for i := range rows[0].Stored {
		changed := slices.Clone(rows)
		changed[0].Stored = slices.Clone(rows[0].Stored)
		changed[0].Stored[i] ^= 1
		if verify(key, changed, rows[1]) == nil {
			t.Errorf("byte %d was changed unseen", i)
		}
	}
}
