package access_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"trustpager/access"
)

func TestSecretForm(t *testing.T) {
	seen := map[access.Secret]bool{}
	for range 1000 {
		s := access.NewSecret()
		if !regexp.MustCompile(`^tp_live_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`).MatchString(string(s)) || !s.WellFormed() || seen[s] {
			t.Fatalf("got %q, want a new, well-formed secret", string(s))
		}
		seen[s] = true
		if got, want := s.Last4(), string(s)[53:]; got != want {
			t.Errorf("last 4: got %q, want %q", got, want)
		}
		h := sha256.Sum256([]byte(s))
		if got, want := s.Hash(), hex.EncodeToString(h[:]); got != want {
			t.Errorf("hash: got %s, want %s", got, want)
		}
	}
}

func TestChecksumFindsTypingErrors(t *testing.T) {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_ é"
	for range 20 {
		s := string(access.NewSecret())
		check := func(wrong string) {
			if wrong != s && access.Secret(wrong).WellFormed() {
				t.Fatalf("got %q for well-formed, a typing error of %q", wrong, s)
			}
		}
		for i := range s {
			for _, c := range alphabet {
				check(s[:i] + string(c) + s[i+1:])
				check(s[:i] + string(c) + s[i:])
			}
			check(s[:i] + s[i+1:])
			check(s[:i])
			for j := range i {
				b := []byte(s)
				b[i], b[j] = b[j], b[i]
				check(string(b))
			}
		}
		check(s + "\n")
		check(" " + s)
		check(strings.ToUpper(s))
	}
	for _, s := range []access.Secret{"", "tp_live_", "x"} {
		if s.WellFormed() {
			t.Errorf("%q: got well-formed, want not", string(s))
		}
		s.Last4() // must not panic
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	s := access.NewSecret()
	made := struct {
		Name   string
		Secret access.Secret
	}{"agent", s}
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, format+" "+format+" "+format+"\n", s, made, &made)
	}
	fmt.Fprintln(&out, s, made)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("made", "secret", s, "made", made, "pointer", &made, "group", slog.GroupValue(slog.Any("secret", s)))
	}
	b, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	for _, shown := range []string{string(s), string(s)[8:30], hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s)))} {
		if strings.Contains(out.String(), shown) {
			t.Errorf("the secret %q was printed:\n%s", string(s), out.String())
		}
	}
	if !strings.Contains(out.String(), "[secret]") {
		t.Errorf("got %s, want [secret] in its place", out.String())
	}
}
