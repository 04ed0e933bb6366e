package access_test

import (
	"strings"
	"testing"

	"trustpager/access"
)

func TestWeakPassword(t *testing.T) {
	own := []string{"Ada Lovelace", "ada.lovelace@example.com", "Harbour & Pine Interiors"}
	for _, weak := range []string{
		"", "short", "elevenchars", "ééééééééééé",
		"aaaaaaaaaaaa", "abababababab", "121212121212", "abcdabcdabcd", "            ", "!!!!!!!!!!!!",
		"123456789012", "1234567890123", "0987654321098", "987654321098", "abcdefghijklm", "qwertyuiopas", "qwertzuiopasd", "poiuytrewqlkj", "1qaz2wsx3edc", "1q2w3e4r5t6y",
		"password1234", "Password1234!", "P@ssw0rd1234", "p4$$w0rd!!!!", "PASSWORDpassword", "password-password", "passwordadmin", "letmein12345", "iloveyou2026",
		"welcome2026!!", "Sunshine!2026", "summer-winter-2026", "qwertyuiop123", "qwerty123456", "trustpager2026", "dragondragondragon", "changeme1234", "admin1234567", "20260101password",
		"ada.lovelace", "AdaLovelace1815", "adalovelace!!", "ada.lovelace@example.com", "harbourpineinteriors", "Harbour & Pine Interiors 1",
		strings.Repeat("correct horse ", 80), "correct horse\x00 battery", "correct horse \xff battery",
	} {
		if got := access.WeakPassword(weak, own...); got == "" {
			t.Errorf("WeakPassword(%.40q) = \"\", want what is wrong", weak)
		}
	}
	for _, fine := range []string{
		"correct horse battery staple", "Tr0ub4dor&3xkcd", "kitchen plumb orbit", "ZsDf8_-2kQ!m", "mein Fahrrad ist grün", "東京の天気は晴れですねとても良い", "lovelace and the engine",
		"dragon sells teapots", "y7#Hq2$Lm9!z",
	} {
		if got := access.WeakPassword(fine, own...); got != "" {
			t.Errorf("WeakPassword(%q) = %q, want it taken", fine, got)
		}
	}
	if got := access.WeakPassword("kitchen plumb orbit", "", "@", "&"); got != "" {
		t.Errorf("with an empty name: got %q, want it taken", got)
	}
}

func FuzzWeakPassword(f *testing.F) {
	f.Add("password1234", "Ada", "ada@example.com")
	f.Fuzz(func(t *testing.T, password, name, email string) {
		if access.WeakPassword(password, name, email) == "" && len(password) < 12 {
			t.Errorf("%q was taken", password)
		}
	})
}
