package access

import (
	"encoding/json"
	"testing"
)

func TestSendCap(t *testing.T) {
	for _, tt := range []struct {
		stored string
		want   int64
	}{
		{`{}`, DefaultSendsPerDay}, // as every workspace stood before there was a cap
		{`{"sends_per_day": null}`, DefaultSendsPerDay},
		{`{"sends_per_day": 0}`, 0},
		{`{"sends_per_day": 7}`, 7},
		{`{"sends_per_day": 10000}`, MaxSendsPerDay},
		{`{"sends_per_day": 99999}`, MaxSendsPerDay},
		{`{"sends_per_day": -1}`, 0},
	} {
		var s Settings
		if err := json.Unmarshal([]byte(tt.stored), &s); err != nil {
			t.Fatal(err)
		}
		if got := s.SendCap(); got != tt.want {
			t.Errorf("SendCap of %s = %d, want %d", tt.stored, got, tt.want)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Settings
		if err := json.Unmarshal(again, &back); err != nil || back.SendCap() != tt.want {
			t.Errorf("SendCap of %s, stored again, = %d, %v; want %d", tt.stored, back.SendCap(), err, tt.want)
		}
	}
}
