package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"trustpager/secret"
)

func TestLoadKeysMakesTheFileOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	keys := make([]secret.Key, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := secret.LoadKeys(path)
			if err != nil || len(k) != 1 {
				t.Errorf("LoadKeys: got %d keys, %v", len(k), err)
				return
			}
			keys[i] = k[0]
		})
	}
	wg.Wait()
	for i, k := range keys {
		if k != keys[0] || k == (secret.Key{}) {
			t.Errorf("process %d has another key than process 0, or none", i)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode of the key file = %#o, want 0600", got)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if len(left) > 0 {
		t.Errorf("files left behind: %v", left)
	}
}

func TestLoadKeysRefusesWhatIsNoKey(t *testing.T) {
	random := bytes.Repeat([]byte{7}, 32)
	for _, tt := range []struct {
		name string
		body []byte
		mode os.FileMode
		want string
	}{
		{"empty", nil, 0o600, "0 bytes"},
		{"short", random[:31], 0o600, "31 bytes"},
		{"long", append(bytes.Clone(random), 1), 0o600, "33 bytes"},
		{"zeros", make([]byte, 32), 0o600, "only zeros"},
		{"a key and zeros", append(bytes.Clone(random), make([]byte, 32)...), 0o600, "only zeros"},
		{"three", bytes.Repeat(random, 3), 0o600, "96 bytes"},
		{"group may read", random, 0o640, "chmod 600"},
		{"world may read", random, 0o604, "chmod 600"},
		{"group may write", random, 0o620, "chmod 600"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret.key")
			if err := os.WriteFile(path, tt.body, tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
			k, err := secret.LoadKeys(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("LoadKeys error = %v, want one with %q", err, tt.want)
			}
			if k != nil {
				t.Error("LoadKeys returned a key with its error")
			}
			if got, _ := os.ReadFile(path); !bytes.Equal(got, tt.body) {
				t.Error("LoadKeys changed the file")
			}
		})
	}
	if _, err := secret.LoadKeys(t.TempDir()); err == nil {
		t.Error("LoadKeys of a directory succeeded")
	}
}

func TestSealOpensOnlyInItsPlace(t *testing.T) {
	k := secret.NewKey()
	sealed, err := k.Seal([]byte("hunter2"), "webhook wh_1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open(sealed, "webhook wh_1"); err != nil || string(got) != "hunter2" {
		t.Errorf("Open = %q, %v; want hunter2", got, err)
	}
	again, _ := k.Seal([]byte("hunter2"), "webhook wh_1")
	if again == sealed {
		t.Error("sealing twice gave the same text")
	}
	if _, err := k.Open(sealed, "webhook wh_2"); err == nil {
		t.Error("opened in another place")
	}
	if _, err := secret.NewKey().Open(sealed, "webhook wh_1"); err == nil {
		t.Error("opened with another key")
	}
	for _, bad := range []string{"", "v1.", "v2" + sealed[2:], sealed[:len(sealed)-1], sealed + "A", "hunter2"} {
		if _, err := k.Open(bad, "webhook wh_1"); err == nil {
			t.Errorf("Open(%q) succeeded", bad)
		}
	}
}

func TestZeroKeyRefuses(t *testing.T) {
	if _, err := (secret.Key{}).Seal([]byte("x"), ""); err == nil {
		t.Error("the zero key sealed")
	}
	if _, err := (secret.Key{}).Open("v1.AAAA", ""); err == nil {
		t.Error("the zero key opened")
	}
}

func TestDerive(t *testing.T) {
	k := secret.NewKey()
	if !bytes.Equal(k.Derive("audit"), k.Derive("audit")) {
		t.Error("Derive is not stable")
	}
	if bytes.Equal(k.Derive("audit"), k.Derive("session")) {
		t.Error("two purposes gave the same bytes")
	}
	if bytes.Equal(k.Derive("audit"), secret.NewKey().Derive("audit")) {
		t.Error("two keys gave the same bytes")
	}
}

func TestKeyNeverShows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, bytes.Repeat([]byte("A"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := secret.LoadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	k := keys[0]
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v\n", keys, keys, keys)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", &k)
		fmt.Fprintf(&out, verb+"\n", struct{ Key secret.Key }{k})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", struct{ K secret.Key }{k})
	if err := json.NewEncoder(&out).Encode(map[string]any{"k": k}); err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{"AAAA", "41414141", "65 65", "65, 65", "0x41"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("the key shows as %q in:\n%s", leak, out.String())
		}
	}
}

func TestReplaceKeys(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret.key")
	old, next := secret.NewKey(), secret.NewKey()
	if err := secret.ReplaceKeys(path, next); err == nil {
		t.Error("keys were put into a file that is not there")
	}
	if _, err := secret.LoadKeys(path); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]secret.Key{{next, old}, {next}} {
		if err := secret.ReplaceKeys(path, want...); err != nil {
			t.Fatal(err)
		}
		if got, err := secret.LoadKeys(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %d keys, %v; want the %d that were put there", len(got), err, len(want))
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: got %v, %v; want mode 0600", info, err)
	}
	link := filepath.Join(dir, "link.key")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := secret.ReplaceKeys(link, old); err == nil {
		t.Error("a link was replaced, want it refused: the file that it names would keep its key")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("files left behind: %v", left)
	}
}
