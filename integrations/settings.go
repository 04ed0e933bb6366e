package integrations

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"trustpager/problem"
	"trustpager/webhook"
)

// The names of the secrets, as admins enter them.
const (
	SMTPPassword = "smtp_password"
	IMAPPassword = "imap_password"
	AuthToken    = "auth_token"
	APIKey       = "api_key"
)

// settingsOf lists what each kind takes, with its secrets.
var settingsOf = map[Kind][]string{
	EmailKind: {"address", "sender_name", "smtp_host", "smtp_port", "smtp_security", "smtp_username", SMTPPassword,
		"imap_host", "imap_port", "imap_security", "imap_username", IMAPPassword, "imap_mailbox"},
	TwilioKind:    {"base_url", "account_sid", AuthToken, "numbers"},
	AnthropicKind: {"base_url", APIKey, "model", "max_tokens", "input_price", "output_price", "currency", "monthly_limit"},
	OpenAIKind:    {"base_url", APIKey, "model", "max_tokens", "input_price", "output_price", "currency", "monthly_limit"},
}

// Takes returns the names of the settings and secrets that services of the kind
// have.
func (k Kind) Takes() []string { return slices.Clone(settingsOf[k]) }

// defaultURLs is where the APIs of the providers are.
var defaultURLs = map[Kind]string{
	TwilioKind:    "https://api.twilio.com",
	AnthropicKind: "https://api.anthropic.com",
	OpenAIKind:    "https://api.openai.com/v1",
}

// BaseURL returns where the provider of the kind has its API, "" if it has none.
func (k Kind) BaseURL() string { return defaultURLs[k] }

// smtpPorts and imapPorts are those that servers usually have (RFC 8314, RFC
// 6409, RFC 9051).
var (
	smtpPorts = map[string]int{string(TLS): 465, string(STARTTLS): 587, string(NoTLS): 25}
	imapPorts = map[string]int{string(TLS): 993, string(STARTTLS): 143, string(NoTLS): 143}
)

// With returns the settings with other values, by the names that they have in
// JSON; nil stands for the default. What the kind needs and nobody has said is
// filled in.
func (s Settings) With(k Kind, values map[string]any) (Settings, error) {
	all := s.Values()
	for name, v := range values {
		if v == nil {
			delete(all, name)
		} else {
			all[name] = v
		}
	}
	encoded, err := json.Marshal(all)
	if err != nil {
		return s, fmt.Errorf("encode settings: %w", err)
	}
	var next Settings
	if err := json.Unmarshal(encoded, &next); err != nil {
		return s, fmt.Errorf("settings: %w", err)
	}
	switch {
	case k == EmailKind:
		next.SMTPSecurity = cmp.Or(next.SMTPSecurity, string(TLS))
		next.SMTPPort = cmp.Or(next.SMTPPort, smtpPorts[next.SMTPSecurity])
		if next.IMAPHost == "" {
			next.IMAPPort, next.IMAPSecurity, next.IMAPUsername, next.IMAPMailbox = 0, "", "", ""
			break
		}
		next.IMAPSecurity = cmp.Or(next.IMAPSecurity, string(TLS))
		next.IMAPPort = cmp.Or(next.IMAPPort, imapPorts[next.IMAPSecurity])
		next.IMAPMailbox = cmp.Or(next.IMAPMailbox, "INBOX")
	default:
		next.BaseURL = strings.TrimRight(cmp.Or(next.BaseURL, k.BaseURL()), "/")
	}
	return next, nil
}

// Values returns the settings that are set, by their names.
func (s Settings) Values() map[string]any {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(err) // there is nothing in it that JSON has not
	}
	values := map[string]any{}
	d := json.NewDecoder(strings.NewReader(string(encoded)))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		panic(err)
	}
	return values
}

// faulty collects what cannot be like that.
type faulty []problem.Field

func (f *faulty) put(path, expected string, got any) {
	*f = append(*f, problem.Field{Path: path, Expected: expected, Got: fmt.Sprintf("%.100q", fmt.Sprint(got))})
}

// Faults says what is wrong with the settings of an account of the kind, and
// with the secrets that it will have. The guard knows which addresses may be
// reached.
func (s Settings) Faults(k Kind, secrets Secrets, guard *webhook.Guard) []problem.Field {
	var f faulty
	switch {
	case k == EmailKind:
		if a, err := parseAddress(s.Address); err != nil || a.Name != "" || strings.ContainsAny(s.Address, "<>") {
			f.put("address", "an e-mail address, as in sales@example.com", s.Address)
		}
		s.server(&f, "smtp", s.SMTPHost, s.SMTPPort, s.SMTPSecurity, secrets.SMTPPassword, guard)
		if s.IMAPHost != "" {
			s.server(&f, "imap", s.IMAPHost, s.IMAPPort, s.IMAPSecurity, secrets.IMAPPassword, guard)
		} else if secrets.IMAPPassword != "" {
			f.put(IMAPPassword, "nothing without imap_host", "(secret)")
		}
	default:
		if err := checkBase(s.BaseURL, guard); err != nil {
			f.put("base_url", err.Error(), s.BaseURL)
		}
	}
	switch {
	case k == TwilioKind:
		if !isSID(s.AccountSID) {
			f.put("account_sid", "the account's SID, as in AC0123456789abcdef0123456789abcdef", s.AccountSID)
		}
		for i, n := range s.Numbers {
			if !e164.MatchString(n) {
				f.put(fmt.Sprintf("numbers.%d", i), "a number in the form of E.164, as in +4930123456", n)
			}
		}
		if len(s.Numbers) == 0 {
			f.put("numbers", "at least one number that messages and calls come from", "")
		}
		token(&f, AuthToken, secrets.AuthToken)
	case k.Purpose() == ModelPurpose:
		if !modelName.MatchString(s.Model) {
			f.put("model", "the model's name, as the provider writes it", s.Model)
		}
		if s.MaxTokens < 0 || s.MaxTokens > maxTokens {
			f.put("max_tokens", fmt.Sprintf("1 to %d", maxTokens), s.MaxTokens)
		}
		for _, m := range []struct {
			name string
			v    int64
		}{{"input_price", s.InputPrice}, {"output_price", s.OutputPrice}, {"monthly_limit", s.MonthlyLimit}} {
			if m.v < 0 {
				f.put(m.name, "an amount in minor units, not below 0", m.v)
			}
		}
		if s.MonthlyLimit > 0 && s.InputPrice == 0 && s.OutputPrice == 0 {
			f.put("monthly_limit", "a limit only with the prices, without which nothing counts towards it", s.MonthlyLimit)
		}
		if (s.MonthlyLimit > 0 || s.InputPrice > 0 || s.OutputPrice > 0) && s.Currency == "" {
			f.put("currency", "the currency of prices and limit, as in EUR", "")
		}
		token(&f, APIKey, secrets.APIKey)
	}
	return f
}

var (
	e164      = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$`)
)

// token refuses a secret that no provider gives: it would end up in a header.
func token(f *faulty, name, secret string) {
	if secret != "" && badKey(secret) != nil {
		f.put(name, "the secret as the provider shows it: printable, without spaces", "(secret)")
	}
}

// server says what is wrong with how a mail server is reached.
func (s Settings) server(f *faulty, name, host string, port int, security, password string, guard *webhook.Guard) {
	if err := guard.CheckHost(host); err != nil {
		f.put(name+"_host", "the name of a mail server, as in "+name+".example.com: "+err.Error(), host)
	}
	if port < 1 || port > 65535 {
		f.put(name+"_port", "1 to 65535", port)
	}
	if err := Security(security).check(host, password); err != nil {
		f.put(name+"_security", err.Error(), security)
	}
}

// checkBase refuses what is no base URL of an API. Without TLS only an address
// can be reached that the operator allows.
func checkBase(raw string, guard *webhook.Guard) error {
	if _, err := endpoint(raw, ""); err != nil || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("a URL, as in https://api.example.com")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	if u.Scheme == "http" {
		addr, err := netip.ParseAddr(u.Hostname())
		if err != nil || (Network{Guard: guard}).checkPlain(addr) != nil {
			return fmt.Errorf("an https:// URL; http:// is for addresses that the operator allows with --allow-webhook-net")
		}
		return nil
	}
	if err := guard.CheckHost(u.Hostname()); err != nil {
		return fmt.Errorf("a URL that may be reached: %w", err)
	}
	return nil
}

// A target is where a secret goes, and as whom.
type target struct {
	host, user string
	port       int
	security   string
}

// targets returns where each secret goes.
func (s Settings) targets() map[string]target {
	return map[string]target{
		SMTPPassword: {strings.ToLower(s.SMTPHost), login(s.SMTPUsername, s.Address, "x"), s.SMTPPort, s.SMTPSecurity},
		IMAPPassword: {strings.ToLower(s.IMAPHost), login(s.IMAPUsername, s.Address, "x"), s.IMAPPort, s.IMAPSecurity},
		AuthToken:    {host: s.BaseURL, user: s.AccountSID},
		APIKey:       {host: s.BaseURL},
	}
}

// Follow returns the secrets that go with settings which have changed from old,
// and the names of those that do not. A secret was given for one server and one
// user name: sent elsewhere, it would be in the hands of whoever changed the
// settings.
func (s Settings) Follow(old Settings, secrets Secrets) (kept Secrets, dropped []string) {
	before, after := old.targets(), s.targets()
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if v := secrets.At(name); *v != "" && before[name] != after[name] {
			*v = ""
			dropped = append(dropped, name)
		}
	}
	return secrets, dropped
}

// At returns where the secret of the name is.
func (s *Secrets) At(name string) *string {
	switch name {
	case SMTPPassword:
		return &s.SMTPPassword
	case IMAPPassword:
		return &s.IMAPPassword
	case AuthToken:
		return &s.AuthToken
	case APIKey:
		return &s.APIKey
	}
	panic("there is no secret " + name) // the names are constants
}

// SameMailbox reports whether both settings read the same mailbox.
func (s Settings) SameMailbox(o Settings) bool {
	a, b := s.targets()[IMAPPassword], o.targets()[IMAPPassword]
	return a.host == b.host && a.user == b.user && s.IMAPMailbox == o.IMAPMailbox
}
