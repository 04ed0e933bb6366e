// Package integrationstest holds the outside services as tests need them: a
// mail server with mailboxes, a phone provider and model providers. They speak
// the real protocols on this machine, keep what they get, and fail as a test
// says.
//
// Each peer ends with its test. What a client does against the protocol fails
// the test.
package integrationstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"trustpager/webhook"
)

// A Fault is what goes wrong at a peer. The empty Fault is none.
type Fault string

// Faults of every peer.
const (
	BadLogin Fault = "bad login" // the login is refused: SMTP 535, IMAP NO, HTTP 401

	// Hang takes what comes, and then holds the answer until Release: of a mail
	// server the answer to the receiver, so that it has not taken the letter.
	Hang Fault = "hang"
	// Drop takes all of a letter or request and keeps it, and closes the
	// connection instead of answering.
	Drop Fault = "drop"
)

// Faults of a [Mail].
const (
	NoSuchReceiver Fault = "no such receiver"   // SMTP 550
	Greylist       Fault = "greylist"           // SMTP 451
	NotThisSender  Fault = "not this sender"    // SMTP 553 to MAIL
	MailboxFull    Fault = "mailbox full"       // SMTP 552 to the message
	HangAfterData  Fault = "hang after data"    // holds the answer to the message, which it keeps
	OtherName      Fault = "certificate's name" // the certificate is for another host
	Untrusted      Fault = "certificate's CA"   // the certificate is of an unknown authority
	NoAuth         Fault = "no auth"            // the server offers LOGIN only, and not PLAIN
)

// Faults of the HTTP peers.
const (
	Broken      Fault = "500"
	BadGateway  Fault = "502"
	Overloaded  Fault = "503"
	TooMany     Fault = "429"         // Retry-After: 7
	Invalid     Fault = "400"         // Twilio's error 21211, a model's invalid_request_error
	NoQuota     Fault = "no quota"    // a model's 429 that paying alone helps
	Elsewhere   Fault = "302"         // redirects to itself
	Endless     Fault = "endless"     // answers more than anybody reads
	Garbage     Fault = "garbage"     // 200 with what is no JSON
	CutOff      Fault = "cut off"     // 200 whose body ends too early
	RepeatsKey  Fault = "repeats key" // 400 with the credential in the text
	Refuses     Fault = "refuses"     // the model does not want to
	EndsByLimit Fault = "length"      // the model reached its limit
)

// A valve makes a peer fail.
type valve struct {
	mu      sync.Mutex
	fault   Fault
	ended   bool // nothing is held any more
	release chan struct{}
	held    chan struct{}
}

func newValve(t testing.TB) *valve {
	v := &valve{release: make(chan struct{}), held: make(chan struct{}, 1000)}
	t.Cleanup(v.shut)
	return v
}

// Fail makes the peer fail from the next step on, until another Fault is set.
func (v *valve) Fail(f Fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

// Release lets go of everything that is held by now.
func (v *valve) Release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ended {
		close(v.release)
		v.release = make(chan struct{})
	}
}

// shut lets go of everything for good.
func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ended {
		close(v.release)
		v.ended = true
	}
}

// Held gives a value for each time that a client is left waiting.
func (v *valve) Held() <-chan struct{} { return v.held }

func (v *valve) now() Fault {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fault
}

// hold waits for Release, or until done is closed.
func (v *valve) hold(done <-chan struct{}) {
	v.mu.Lock()
	release := v.release
	v.mu.Unlock()
	v.held <- struct{}{}
	select {
	case <-release:
	case <-done:
	}
}

// Loopback returns a Guard that allows the addresses of this machine.
func Loopback() *webhook.Guard {
	return &webhook.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

// An authority makes certificates that its Roots believe.
type authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	Roots *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, Roots: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Roots.AddCert(a.cert)
	return a
}

// certificate returns one for the names and addresses.
func (a *authority) certificate(t testing.TB, names []string, addresses ...net.IP) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test peer"}, DNSNames: names, IPAddresses: addresses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
