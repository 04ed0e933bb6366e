package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/admin"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/unseen"
)

// markup is what would run, or break out, if a page took it for more than text.
// Each sets pwned if it does.
var markup = []string{
	`<script>pwned=1</script>`,
	`<img src=x onerror=pwned=1>`,
	`"><img src=x onerror="pwned=1">`,
	`'><svg onload=pwned=1>`,
	`</title><script>pwned=1</script>`,
	`</textarea><script>pwned=1</script>`,
	`</style><script>pwned=1</script>`,
	`<svg><animate onbegin=pwned=1 attributeName=x dur=1s>`,
	`<math><mtext></mtext><script>pwned=1</script></math>`,
	`<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>`,
	`<iframe src="javascript:parent.pwned=1"></iframe>`,
	`<a href="javascript:pwned=1" autofocus onfocus=pwned=1>x</a>`,
	`javascript:pwned=1`,
	`" autofocus onfocus="pwned=1" x="`,
	`' onmouseover='pwned=1`,
	`<details open ontoggle=pwned=1>`,
	`<video><source onerror=pwned=1></video>`,
	`<body onload=pwned=1>`,
	`<input autofocus onfocus=pwned=1>`,
	`<form action="/settings/pause" method="post"><button autofocus>x</button></form>`,
	`<meta http-equiv="refresh" content="0;url=/logout">`,
	`<base href="https://evil.example/">`,
	`<link rel=stylesheet href="https://evil.example/x.css">`,
	`<object data="https://evil.example/x"></object>`,
	`<template><script>pwned=1</script></template>`,
	`<!--><script>pwned=1</script-->`,
	`<![CDATA[<script>pwned=1</script>]]>`,
	`&lt;script&gt;pwned=1&lt;/script&gt;`,
	`&#x3c;script&#x3e;pwned=1&#x3c;/script&#x3e;`,
	`{{.Me}}<script>{{"pwned=1"}}</script>`,
	`${pwned=1}`,
	"`;pwned=1//",
	`\u003cscript\u003epwned=1\u003c/script\u003e`,
	`<plaintext>`,
	`<xmp><script>pwned=1</script></xmp>`,
	`<noscript><p title="</noscript><img src=x onerror=pwned=1>">`,
}

// unseenRunes are characters that people do not see as what they are: bidi
// controls, zero widths, spaces, tags, fillers, variation selectors, private use.
var unseenRunes = []rune{0x00a0, 0x00ad, 0x034f, 0x061c, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x180e, 0x2000, 0x2003, 0x2009, 0x200a, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f,
	0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x202f, 0x205f, 0x2060, 0x2061, 0x2062, 0x2063, 0x2064, 0x2066, 0x2067, 0x2068, 0x2069, 0x206a, 0x206f,
	0x2800, 0x3000, 0x3164, 0xfe00, 0xfe0f, 0xfeff, 0xffa0, 0xfff9, 0xfffb, 0x1d173, 0xe0001, 0xe0041, 0xe007f, 0xe0100, 0xe000, 0xf0000}

// rawRunes are the characters in the text of the page that are not seen, beside
// the white space of its source.
const rawRunes = `[...document.body.textContent].filter(c => /[\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|[^\P{Zs} ]|\p{Variation_Selector}|[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]/u.test(c)).map(c => 'U+' + c.codePointAt(0).toString(16)).join(' ')`

// What agents write is shown as what it is on every page that shows it: markup
// as text, and characters that are not seen as their code points.
func TestHostileTextOnPages(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{Work: true})
	addAdmin(t, s)
	hook := servertest.NewReceiver(t)
	scopes := []string{"contacts:delete-approval"}
	key, keyID := s.AddKey(admin.KeyInput{Name: new(`<img src=x onerror=pwned=1>"'`), Scopes: &scopes, WebhookURL: &hook.URL})
	b := browsertest.New(t)
	logIn(b, s, "robin@example.com", "/")

	body := func(v map[string]any) string {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(j)
	}
	// look opens a page on which the texts stand, and a character if it is not 0.
	look := func(path string, char rune, texts ...string) {
		t.Helper()
		b.Do(browsertest.Open(s.URL+path), browsertest.See("main"))
		got := browsertest.Get(b, chromedp.Evaluate[string](`document.body.innerText`))
		for _, text := range texts {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %q does not stand on the page: %.2000s", path, text, got)
			}
		}
		if char != 0 && !strings.Contains(got, unseen.Name(char)) {
			t.Errorf("%s: %s is not shown", path, unseen.Name(char))
		}
		if raw := browsertest.Get(b, chromedp.Evaluate[string](rawRunes)); raw != "" {
			t.Errorf("%s: %s stand on the page unseen", path, raw)
		}
		if browsertest.Get(b, chromedp.Evaluate[bool](`typeof pwned !== "undefined"`)) {
			t.Fatalf("%s: the page has run what an agent wrote", path)
		}
	}
	ask := func(text string) string {
		return queued(t, s, key, "POST", "/v1/contacts", body(map[string]any{"first_name": text, "last_name": "x" + text, "notes": "n" + text + "\nn", "metadata": map[string]any{"m" + text: text}, "reason": "r" + text}))
	}
	decideAll := func(ids []string, reason string) {
		for _, id := range ids {
			s.Do("POST", "/v1/approvals/"+id+"/reject", s.Full, body(map[string]any{"reason": reason})).Want(t, 200)
		}
	}
	markup, unseenRunes := markup, unseenRunes
	if testing.Short() { // the pages are the same under the race detector
		markup, unseenRunes = markup[:4], unseenRunes[:4]
	}
	const most = 40 // fewer than may be open
	seen := 0
	for start := 0; start < len(markup); start += most {
		var ids []string
		for _, text := range markup[start:min(start+most, len(markup))] {
			id := ask(text)
			ids = append(ids, id)
			look(inbox+"&approval="+id, 0, text, "n"+text, "r"+text)
			look("/settings/api/approvals/"+id+"/edit", 0)
			seen++
		}
		look(inbox, 0, markup[min(start+most, len(markup))-1])
		decideAll(ids, markup[start])
	}
	for start := 0; start < len(unseenRunes); start += most {
		var ids []string
		for _, r := range unseenRunes[start:min(start+most, len(unseenRunes))] {
			id := ask("A" + string(r) + "B")
			ids = append(ids, id)
			look(inbox+"&approval="+id, r, "Checks")
			if !strings.Contains(b.Text(".checks"), unseen.Name(r)) {
				t.Errorf("%s: no check tells of it", unseen.Name(r))
			}
			b.Do(browsertest.Open(s.URL + "/settings/api/approvals/" + id + "/edit"))
			if got := b.Text("main"); !strings.Contains(got, unseen.Name(r)) {
				t.Errorf("%s: the form to edit does not tell of it: %q", unseen.Name(r), got)
			}
			seen++
		}
		decideAll(ids, "A"+string(unseenRunes[start])+"B")
	}
	if want := len(markup) + len(unseenRunes); seen != want {
		t.Errorf("%d of %d looked at", seen, want)
	}
	pwnedKey := `<img src=x onerror=pwned=1>"'`
	look(inbox+"&show=decided", unseenRunes[len(unseenRunes)-1], "Rejected")
	look("/settings/api?tab=keys", 0, pwnedKey)
	look("/settings/api/keys/"+keyID, 0, pwnedKey)
	look("/settings/api/keys/"+keyID+"/usage", 0, pwnedKey)
	look("/settings/api/keys/"+keyID+"/delete", 0, pwnedKey)
	look("/settings/api/keys/"+keyID+"/webhook", 0, pwnedKey)
	b.Behaved(s.URL + "/")
}

// Pages of other sites change nothing, and show none of ours in a frame.
func TestForeignPages(t *testing.T) {
	s := servertest.New(t, t.TempDir()+"/test.db", servertest.Options{})
	addAdmin(t, s)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/frame" {
			fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><iframe id="f" src="%s/settings/pause"></iframe>`, s.URL)
			return
		}
		fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><form method="post" action="%s/settings/pause"></form><script>document.forms[0].submit()</script>`, s.URL)
	}))
	t.Cleanup(evil.Close)
	foreign := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1) // another site, whatever the port
	b := browsertest.New(t)
	logIn(b, s, "robin@example.com", "/")
	b.Behaved(s.URL + "/")
	b.Do(browsertest.Open(foreign+"/form"), browsertest.See("h1"))
	if got := b.Text("main"); !strings.Contains(got, "came from another site") {
		t.Errorf("a form of another site: got %q at %s", got, b.URL())
	}
	w, err := s.DB.Workspace(t.Context(), s.Workspace.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, paused := w.AllPaused(); paused {
		t.Error("a form of another site has paused all agents")
	}
	b.Console()
	b.Do(browsertest.Open(foreign + "/frame"))
	if got := strings.Join(b.Console(), "\n"); !strings.Contains(got, "frame-ancestors") && !strings.Contains(got, "X-Frame-Options") {
		t.Errorf("a frame on another site: the console says %q, want it refused", got)
	}
}
