package integrations_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"trustpager/integrations"
	"trustpager/integrations/integrationstest"
	"trustpager/webhook"
)

// A service is a client of this package at its simplest.
type service struct {
	name string
	call func(ctx context.Context, n integrations.Network, host string, port int) error
}

// services holds each client, as it reaches a host.
var services = []service{
	{"SMTP", func(ctx context.Context, n integrations.Network, host string, port int) error {
		return integrations.SMTPAccount{Host: host, Port: port, Security: integrations.TLS}.Check(ctx, n)
	}},
	{"SMTP letter", func(ctx context.Context, n integrations.Network, host string, port int) error {
		return integrations.SMTPAccount{Host: host, Port: port, Security: integrations.NoTLS}.Send(ctx, n, letter())
	}},
	{"IMAP", func(ctx context.Context, n integrations.Network, host string, port int) error {
		_, _, _, err := integrations.IMAPAccount{Host: host, Port: port, Security: integrations.STARTTLS, Username: "u", Password: "p"}.Fetch(ctx, n, integrations.Cursor{}, 1)
		return err
	}},
	{"Twilio", func(ctx context.Context, n integrations.Network, host string, port int) error {
		_, err := integrations.Twilio{BaseURL: base("https", host, port), AccountSID: "AC1", AuthToken: "t"}.SendSMS(ctx, n, integrations.SMS{To: "+15550100000"})
		return err
	}},
	{"Twilio without TLS", func(ctx context.Context, n integrations.Network, host string, port int) error {
		return integrations.Twilio{BaseURL: base("http", host, port), AccountSID: "AC1", AuthToken: "t"}.Check(ctx, n)
	}},
	{"Anthropic", func(ctx context.Context, n integrations.Network, host string, port int) error {
		return integrations.Anthropic{BaseURL: base("https", host, port), APIKey: "k", Model: "m", Network: n}.Check(ctx)
	}},
	{"OpenAI", func(ctx context.Context, n integrations.Network, host string, port int) error {
		_, err := integrations.OpenAI{BaseURL: base("http", host, port) + "/v1", APIKey: "k", Model: "m", Network: n}.Complete(ctx, integrations.Prompt{Task: "x"})
		return err
	}},
}

func base(scheme, host string, port int) string {
	return scheme + "://" + net.JoinHostPort(host, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)).String()[len("0.0.0.0:"):])
}

// What somebody in a workspace writes as a host must not lead into the
// operator's network, whatever the name looks like and resolves to.
func TestNoClientReachesTheInside(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan net.Addr, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(reached)
				return
			}
			reached <- c.RemoteAddr()
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	public := netip.MustParseAddr("93.184.216.34")
	for _, s := range services {
		for _, tt := range []struct {
			host  string
			addrs []netip.Addr // of the name
		}{
			{"127.0.0.1", nil},
			{"::1", nil},
			{"::ffff:127.0.0.1", nil},
			{"localhost", []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
			{"rebound.example.com", []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
			{"both.example.com", []netip.Addr{public, netip.MustParseAddr("127.0.0.1")}},
			{"metadata.example.com", []netip.Addr{netip.MustParseAddr("169.254.169.254")}},
			{"private.example.com", []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
			{"zone.example.com", []netip.Addr{netip.MustParseAddr("fe80::1%lo")}},
			{"nowhere.example.com", nil},
		} {
			n := integrations.Network{Timeout: 5 * time.Second, Guard: &webhook.Guard{Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
				return tt.addrs, nil
			}}}
			err := s.call(t.Context(), n, tt.host, port)
			if err == nil || integrations.OutcomeOf(err) != integrations.Temporary {
				t.Errorf("%s at %s: got %v, want a temporary failure", s.name, tt.host, err)
				continue
			}
			if text := err.Error(); !strings.Contains(text, "refused: it") && !strings.Contains(text, "cannot be found") {
				t.Errorf("%s at %s: got %q, want that the address is refused", s.name, tt.host, text)
			}
		}
	}
	l.Close()
	for a := range reached {
		t.Errorf("a client connected from %v", a)
	}
}

// A name that is public when it is looked at and private when it is connected
// to gains nothing, as there is only one look.
func TestNameIsLookedUpOnce(t *testing.T) {
	peer := integrationstest.NewTwilio(t)
	lookups := 0
	n := peer.Network()
	n.Guard.Lookup = func(context.Context, string) ([]netip.Addr, error) {
		lookups++
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	account := peer.Account()
	account.BaseURL = strings.Replace(account.BaseURL, "127.0.0.1", "example.com", 1)
	if err := account.Check(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if lookups != 1 {
		t.Errorf("the name was looked up %d times, want once", lookups)
	}
}

func TestOutcomeOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want integrations.Outcome
	}{
		{nil, ""},
		{errors.New("no failure"), integrations.Temporary},
		{&integrations.Failure{Outcome: integrations.Unknown, Err: errors.New("lost")}, integrations.Unknown},
		{errors.Join(errors.New("send"), &integrations.Failure{Outcome: integrations.Refused, Err: errors.New("no")}), integrations.Refused},
	} {
		if got := integrations.OutcomeOf(tt.err); got != tt.want {
			t.Errorf("OutcomeOf(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}
