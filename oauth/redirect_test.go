package oauth_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"trustpager/oauth"
)

// registered are redirect URIs as real clients register them.
var registered = []string{
	"https://claude.ai/api/mcp/auth_callback",
	"https://claude.com/api/mcp/auth_callback",
	"https://chatgpt.com/connector/oauth/abc123_-",
	"https://chatgpt.com/connector_platform_oauth_redirect",
	"https://vscode.dev/redirect",
	"https://insiders.vscode.dev/redirect",
	"http://127.0.0.1/",
	"http://127.0.0.1:33418/",
	"cursor://anysphere.cursor-mcp/oauth/callback",
	"https://www.cursor.com/agents/mcp/oauth/callback",
	"http://localhost:8787/callback",
	"http://localhost/callback",
	"http://[::1]/cb",
	"com.example.app:/oauth2redirect",
	"vscode://vscode.github-authentication/did-authenticate",
	"https://client.example/cb?tenant=1",
	"https://client.example:8443/cb",
	"https://xn--bcher-kva.example/cb",
	"https://192.0.2.1/cb",
	"https://[2001:db8::1]:8443/cb",
}

func TestOAuth_2_3_RealClientsRegisterAndMatch(t *testing.T) {
	for _, uri := range registered {
		if err := oauth.CheckRedirectURI(uri); err != nil {
			t.Errorf("CheckRedirectURI(%q) = %v", uri, err)
		}
		if !oauth.MatchRedirect([]string{"https://other.example/", uri}, uri) {
			t.Errorf("%q does not match itself", uri)
		}
	}
	for _, tt := range []struct{ registered, asked string }{
		{"http://localhost/callback", "http://localhost:53124/callback"}, // Claude Code
		{"http://127.0.0.1/", "http://127.0.0.1:33418/"},                 // VS Code
		{"http://127.0.0.1/", "http://127.0.0.1:50000/"},
		{"http://127.0.0.1:33418/", "http://127.0.0.1:50001"},
		{"http://127.0.0.1", "http://127.0.0.1:50001/"},
		{"http://[::1]/cb", "http://[::1]:9/cb"},
		{"http://localhost:8787/callback", "http://localhost/callback"},
	} {
		if !oauth.MatchRedirect([]string{tt.registered}, tt.asked) {
			t.Errorf("%q does not match the registered %q", tt.asked, tt.registered)
		}
	}
}

// notRegistrable are URIs that no client may register.
var notRegistrable = []string{
	"", " ", "/callback", "//evil.example/cb", "callback", "?x", "https:", "https:/", "https://", "https:///cb", "https:evil.example",
	"https://?x", "https://:443/cb", "http://client.example/cb", "HTTPS://client.example/cb", "Https://client.example/cb",
	"javascript:alert(1)", "javascript://client.example/%0aalert(1)", "JavaScript://client.example/", "javascript:/x",
	"data:text/html,x", "data://text/html,x", "vbscript://x/y", "file:///etc/passwd", "file://client.example/x", "blob:https://client.example/x",
	"about://blank/", "view-source://client.example/", "ftp://client.example/cb", "ws://client.example/", "wss://client.example/",
	"mailto://a@client.example", "chrome://settings/", "chrome-extension://abc/cb", "intent://client.example/#Intent;end", "ms-msdt:/id",
	"ms-settings:/x", "web+app://claude.ai/cb", "search-ms://x/y", "content://x/y", "jar:/x", "filesystem:/x", "shell:/x",
	"https://client.example/cb#", "https://client.example/cb#f", "http://localhost/cb#f", "cursor://a/b#c",
	"https://*.client.example/cb", "https://client.example/*", "https://*", "http://localhost:*/cb", "https://client.example/cb?x=*",
	"https://user@client.example/cb", "https://user:pw@client.example/cb", "https://client.example@evil.example/cb", "https://@client.example/cb",
	"http://localhost@evil.example/cb", "http://127.0.0.1:80@evil.example/", "cursor://user@app/cb", "http://localhost:@evil.example/",
	"https://client.example/a/../cb", "https://client.example/./cb", "https://client.example/..", "https://client.example/a/%2e%2e/cb", "https://client.example/%2E/cb",
	"https://client.example\\@evil.example/", "https:\\\\client.example\\cb", "https://client.example/\\evil", "https:/\\client.example/",
	"https://client.example/cb\n", "https://client.example/\r\nLocation: x", "https://client.example/\x00", "https://client.example/%00", "https://client.example/%0d%0aX:y",
	"https://client.example/%7f", "https://client.example/\tcb", "https://client.example/c b", "https://client.example/cb ", " https://client.example/cb",
	"https://client.example/%zz", "https://client.example/%", "https://client.example/%4", "https://client.example/?%g0",
	"https://client.example:0/cb", "https://client.example:65536/cb", "https://client.example:/cb", "https://client.example:80a/cb", "https://client.example:-1/cb",
	"https://client.example:0443/cb", "https://client.example.:443/cb", "https://.client.example/cb", "https://client..example/cb", "https://-client.example/cb",
	"https://client_.example/cb", "https://CLIENT.example/cb", "https://clïent.example/cb", "https://client%2eexample/cb", "https://client.example%00.evil.example/cb",
	"https://127.1/cb", "https://0x7f.1/cb", "https://2130706433/cb", "https://0x7f000001/cb", "https://[::1/cb", "https://::1/cb", "https://[fe80::1%25eth0]/cb", "https://[127.0.0.1]/cb",
	"http://localhost.evil.example/cb", "http://localhostevil/cb", "http://127.0.0.1.evil.example/", "http://127.0.0.2/cb", "http://0.0.0.0/cb", "http://[::]/cb",
	"http://LOCALHOST/cb", "http://localhost./cb", "http://localhost:99999/cb", "http://localhost:/cb", "http://localhost:08/cb", "http://[::1]evil/cb", "http://[0:0:0:0:0:0:0:1]/cb",
	"http://2130706433/", "http://0x7f.0.0.1/", "http:localhost/cb", "http:/localhost/cb", "http:///localhost/cb",
	"c:/windows", "a://b", "1app://x/y", "my_app://x/y", "app scheme://x", "cursor:", "cursor:/", "cursor://", "cursor://?x", "cursor:x/y", ":/x", "://x/y",
	"https://client.example/<script>", "https://client.example/\"x", "https://client.example/{x}", "https://client.example/|x", "https://client.example/`x", "https://client.example/^x",
	"https://client.example/\u202ecb", "https://client.example/\u200b", "https://client.example/é", "https://client.example/\xff",
	"https://client.example/" + strings.Repeat("a", 2000), "urn:ietf:wg:oauth:2.0:oob", "urn:ietf:wg:oauth:2.0:oob:auto",
}

// notAsked are good URIs that are none of the registered ones.
var notAsked = []string{
	"https://client.example/", "https://client.example", "https://client.example/cb/", "https://client.example/CB", "https://client.example/cb?", "https://client.example/cb?x=1",
	"https://client.example/cb/evil", "https://client.example/c", "https://evil.example/cb", "https://evil.client.example/cb", "https://client.example.evil.example/cb",
	"https://evilclient.example/cb", "https://client.example:443/cb", "https://client.example:8443/cb", "https://client.example/%63b", "https://client.example//cb",
	"https://client.example/cb?redirect=https://evil.example/", "https://client.exampl/cb", "http://localhost/other", "http://localhost:1234/", "http://localhost/callback/",
	"http://localhost/callback?x=1", "http://localhost:1234/callback?", "http://localhost/Callback", "http://127.0.0.1/callback", "http://[::1]/callback", "http://localhost/callback/../x",
	"https://localhost/callback", "https://localhost:1234/callback", "cursor://anysphere.cursor-mcp/oauth/callback/", "cursor://anysphere.cursor-mcp/oauth", "cursor://evil/oauth/callback",
	"cursor://anysphere.cursor-mcp:1/oauth/callback", "vscode://anysphere.cursor-mcp/oauth/callback", "http://127.0.0.1:8080/x", "http://127.0.0.1//", "http://127.0.0.1/?",
}

func TestOAuth_2_3_HostileRedirectURIs(t *testing.T) {
	for _, uri := range notRegistrable {
		if err := oauth.CheckRedirectURI(uri); err == nil {
			t.Errorf("CheckRedirectURI accepts %q", uri)
		}
		// Not even one that is stored, however it came there.
		if oauth.MatchRedirect([]string{uri}, uri) {
			t.Errorf("a request for the registered %q is accepted", uri)
		}
	}
	has := []string{"https://client.example/cb", "http://localhost/callback", "http://127.0.0.1/", "cursor://anysphere.cursor-mcp/oauth/callback"}
	for _, uri := range append(notRegistrable, notAsked...) {
		if oauth.MatchRedirect(has, uri) {
			t.Errorf("%q is accepted for %q", uri, has)
		}
	}
	if n := len(notRegistrable) + len(notAsked); n < 100 {
		t.Errorf("the corpus has %d URIs", n)
	}
}

// What the rule accepts is what was registered, byte for byte, but for the port
// and the bare slash of a loopback URI.
func FuzzMatchRedirect(f *testing.F) {
	for _, uri := range append(append(notRegistrable, notAsked...), registered...) {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if !oauth.MatchRedirect(registered, uri) {
			return
		}
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatalf("%q is accepted and does not parse", uri)
		}
		for _, r := range registered {
			v, _ := url.Parse(r)
			if r == uri || u.Scheme == "http" && v.Scheme == "http" && u.Hostname() == v.Hostname() && u.RawQuery == v.RawQuery &&
				(u.Path == v.Path || strings.Trim(u.Path+v.Path, "/") == "") {
				return
			}
		}
		t.Errorf("%q is accepted", uri)
	})
}

func TestOAuth_2_3_LocationKeepsTheRedirectURI(t *testing.T) {
	for _, tt := range []struct{ uri, want string }{
		{"https://a.example/cb", "https://a.example/cb?code=x"},
		{"https://a.example/cb?", "https://a.example/cb?code=x"},
		{"https://a.example/cb?b=%7e&a=1", "https://a.example/cb?b=%7e&a=1&code=x"},
		{"https://a.example/cb?a=1&", "https://a.example/cb?a=1&code=x"},
		{"app.example:/cb", "app.example:/cb?code=x"},
	} {
		if got := oauth.Location(tt.uri, url.Values{"code": {"x"}}); got != tt.want {
			t.Errorf("Location(%q) = %q, want %q", tt.uri, got, tt.want)
		}
	}
}

func TestOAuth_2_9_NamesAreNormalised(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"Claude", "Claude"},
		{"  Two \n  lines\t", "Two lines"},
		{"Cafe\u0301", "Café"},
		{"safe\u202etxt.exe", "safetxt.exe"},
		{"zero\u200bwidth\U000e0041", "zerowidth"},
		{"nul\x00\x1b[31m", "nul[31m"},
		{"bad\xffbytes", "badbytes"},
		{"", "Unnamed client"},
		{"\u200b\u2066", "Unnamed client"},
		{strings.Repeat("ä", 200), strings.Repeat("ä", 100)},
	} {
		if got := oauth.ClientName(tt.name); got != tt.want {
			t.Errorf("ClientName(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestClientSecretNeverPrints(t *testing.T) {
	s := oauth.NewClientSecret()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if out := fmt.Sprintf(format, s); strings.Contains(out, string(s)[5:]) || out != "[secret]" {
			t.Errorf("%s prints %q", format, out)
		}
	}
	if !strings.HasPrefix(string(s), "tpcs_") || len(s) < 48 || len(s.Hash()) != 64 {
		t.Errorf("the secret has a wrong form, length %d", len(s))
	}
}

// The host in the URI of an app is only a name: it does not make the app one of
// that host's.
func TestHostOfARedirectURI(t *testing.T) {
	for uri, want := range map[string]string{
		"https://Claude.ai/cb":      "claude.ai",
		"https://claude.ai:8443/cb": "claude.ai",
		"http://localhost:33418/":   "localhost",
		"evilapp://claude.ai/cb":    "",
		"com.example.app:/cb":       "",
	} {
		if got := oauth.RedirectHost(uri); got != want {
			t.Errorf("%s: got %q, want %q", uri, got, want)
		}
	}
}
