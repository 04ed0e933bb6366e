package integrations_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"trustpager/integrations"
	"trustpager/secret"
)

func TestSecretsOfAnAccountAreSealedForItAlone(t *testing.T) {
	as := &integrations.Accounts{Sealer: secret.NewKey()}
	a := integrations.Account{ID: "int_1", Workspace: "ws_1"}
	want := integrations.Secrets{SMTPPassword: "alpha", IMAPPassword: "beta", AuthToken: "gamma", APIKey: "delta"}
	sealed, err := as.Seal(a, want)
	if err != nil || strings.Contains(sealed, "alpha") {
		t.Fatalf("Seal: got %q, %v", sealed, err)
	}
	a.Sealed = sealed
	if got, err := as.Open(a); err != nil || got != want {
		t.Errorf("Open: got an other secret or %v", err)
	}
	for _, other := range []integrations.Account{{ID: "int_2", Workspace: "ws_1", Sealed: sealed}, {ID: "int_1", Workspace: "ws_2", Sealed: sealed}} {
		if got, err := as.Open(other); err == nil || got != (integrations.Secrets{}) {
			t.Errorf("it opens as that of %s of %s", other.ID, other.Workspace)
		}
	}
	if sealed, err := as.Seal(a, integrations.Secrets{}); sealed != "" || err != nil {
		t.Errorf("Seal of none: got %q, %v; want nothing", sealed, err)
	}
}

func TestSecretsOfAnAccountDoNotShow(t *testing.T) {
	s := integrations.Secrets{SMTPPassword: "alpha", IMAPPassword: "alpha", AuthToken: "alpha", APIKey: "alpha"}
	held := struct{ S integrations.Secrets }{s}
	encoded, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "held", held)
	for _, got := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x", s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", held, held, held), fmt.Sprint(&s), string(encoded), log.String()} {
		if strings.Contains(got, "alpha") || strings.Contains(got, "616c706861") {
			t.Errorf("shown: %s", got)
		}
	}
}
