package webhook_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"trustpager/webhook"
)

func TestIndependentLibraryVerifiesAndSigns(t *testing.T) {
	secret := webhook.NewSecret()
	theirs, err := standardwebhooks.NewWebhook(secret.Text())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	body := []byte(`{"type":"approval.rejected"}`)
	h := http.Header{}
	h.Set(webhook.HeaderID, "msg_1")
	h.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(webhook.HeaderSignature, webhook.Sign(secret, "msg_1", now, body))
	if err := theirs.Verify(body, h); err != nil {
		t.Errorf("their Verify of our signature: %v", err)
	}
	signature, err := theirs.Sign("msg_1", now, body)
	if err != nil {
		t.Fatal(err)
	}
	h.Set(webhook.HeaderSignature, signature)
	if err := webhook.VerifyRequest(secret, h, body, now); err != nil {
		t.Errorf("our VerifyRequest of their signature: %v", err)
	}
}

func TestVerifyRequest(t *testing.T) {
	secret, at, body := webhook.NewSecret(), time.Unix(1700000000, 0), []byte("{}")
	good := webhook.Sign(secret, "msg_1", at, body)
	other := webhook.Sign(webhook.NewSecret(), "msg_1", at, body)
	for _, tt := range []struct {
		name, id, time, signature string
		after                     time.Duration
		want                      bool
	}{
		{"good", "msg_1", "1700000000", good, 0, true},
		{"one of two", "msg_1", "1700000000", other + " " + good, 0, true},
		{"another version beside it", "msg_1", "1700000000", "v2,abc v1a,def " + good, 0, true},
		{"five minutes late", "msg_1", "1700000000", good, 5 * time.Minute, true},
		{"too late", "msg_1", "1700000000", good, 5*time.Minute + time.Second, false},
		{"too early", "msg_1", "1700000000", good, -5*time.Minute - time.Second, false},
		{"another id", "msg_2", "1700000000", good, 0, false},
		{"another time", "msg_1", "1700000001", good, 0, false},
		{"another secret", "msg_1", "1700000000", other, 0, false},
		{"no id", "", "1700000000", good, 0, false},
		{"no time", "msg_1", "", good, 0, false},
		{"no signature", "msg_1", "1700000000", "", 0, false},
		{"no version", "msg_1", "1700000000", strings.TrimPrefix(good, "v1,"), 0, false},
		{"two, glued", "msg_1", "1700000000", good + "," + good, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			h.Set(webhook.HeaderID, tt.id)
			h.Set(webhook.HeaderTimestamp, tt.time)
			h.Set(webhook.HeaderSignature, tt.signature)
			if err := webhook.VerifyRequest(secret, h, body, at.Add(tt.after)); (err == nil) != tt.want {
				t.Errorf("VerifyRequest = %v, want ok: %v", err, tt.want)
			}
		})
	}
	if webhook.Verify(nil, "msg_1", at, body, webhook.Sign(nil, "msg_1", at, body)) {
		t.Error("the empty secret verifies")
	}
}

func TestSecretShowsItselfOnlyAsText(t *testing.T) {
	s := webhook.NewSecret()
	text := s.Text()
	if got, err := webhook.ParseSecret(text); err != nil || got.Text() != text {
		t.Errorf("ParseSecret(Text()) = %v, want the same secret", err)
	}
	for _, bad := range []string{"", "whsec_", "whsec_AAAA", strings.TrimPrefix(text, "whsec_"), text + "=", "WHSEC_" + text[6:]} {
		if _, err := webhook.ParseSecret(bad); err == nil {
			t.Errorf("ParseSecret(%q) succeeded", bad)
		}
	}
	j, err := json.Marshal(struct{ S webhook.Secret }{s})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %x %q %d", s, s, s, s, s, s, s) + string(j)
	if strings.Contains(all, text[6:20]) || strings.Contains(all, fmt.Sprintf("%x", []byte(s))) || strings.Contains(all, strconv.Itoa(int(s[0]))+" ") {
		t.Errorf("the secret shows in %s", all)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("secret"), "msg_1", []byte(`{"status":"rejected"}`), "v1,AAAA")
	f.Fuzz(func(t *testing.T, secret []byte, id string, body []byte, other string) {
		at := time.Unix(1700000000, 0)
		sig := webhook.Sign(secret, id, at, body)
		if len(secret) == 0 {
			return
		}
		if !webhook.Verify(secret, id, at, body, other+" "+sig) {
			t.Error("own signature refused")
		}
		if webhook.Verify(secret, id, at, append(body, 'x'), sig) {
			t.Error("signature accepted for another body")
		}
		if webhook.Verify(secret, id, at.Add(time.Second), body, sig) {
			t.Error("signature accepted for another time")
		}
		if !strings.Contains(other, sig[3:]) && webhook.Verify(secret, id, at, body, other) {
			t.Errorf("foreign signature %q accepted", other)
		}
	})
}
