package integrations

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/mail"
	"slices"
	"time"

	"trustpager/problem"
)

// A Kind is a kind of outside service that a workspace uses.
type Kind string

// The kinds.
const (
	EmailKind     Kind = "email"  // a mailbox: what sends and what is read
	TwilioKind    Kind = "twilio" // text messages and calls
	AnthropicKind Kind = "anthropic"
	OpenAIKind    Kind = "openai"
)

// Kinds lists the kinds, in the order in which people see them.
var Kinds = []Kind{EmailKind, TwilioKind, AnthropicKind, OpenAIKind}

// The purposes of services. One that serves the same purpose can stand in for
// another.
const (
	MailPurpose  = "mail"
	PhonePurpose = "phone"
	ModelPurpose = "model"
)

// Purpose returns what services of the kind are for.
func (k Kind) Purpose() string {
	switch k {
	case EmailKind:
		return MailPurpose
	case TwilioKind:
		return PhonePurpose
	}
	return ModelPurpose
}

// AccountTopic is what is touched when the accounts of the workspace change, or
// what is known of their state.
func AccountTopic(workspace string) string { return "integrations:" + workspace }

// The states of an account: what its last check has found.
const (
	Unchecked = ""         // not since it was made, or since its settings changed
	Checking  = "checking" // a check is on its way
	Working   = "ok"
	Failing   = "failed" // StateText says why
)

// An Account is one outside service that a workspace uses: whose it is, how it
// is reached, and what it is asked with.
type Account struct {
	ID        string // int_…
	Workspace string
	Kind      Kind
	Name      string // what people call it
	Settings  Settings
	Sealed    string // its [Secrets], sealed for this account; "" if it has none
	Active    bool   // it may be used
	Default   bool   // it is used where none is named; one of a purpose at most
	State     string
	StateText string    // a sentence about the state, for people
	CheckedAt time.Time // when the state was found out; zero if never
	Cursor    json.RawMessage
	Version   int64 // 1 when made, one more with each change of anything but state and cursor
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Settings say how a service is reached. Each kind uses some of them.
type Settings struct {
	// Of a mailbox. Without an IMAP host nothing is read.
	Address      string `json:"address,omitempty"`
	SenderName   string `json:"sender_name,omitempty"`
	SMTPHost     string `json:"smtp_host,omitempty"`
	SMTPPort     int    `json:"smtp_port,omitempty"`
	SMTPSecurity string `json:"smtp_security,omitempty"` // tls, starttls or none
	SMTPUsername string `json:"smtp_username,omitempty"`
	IMAPHost     string `json:"imap_host,omitempty"`
	IMAPPort     int    `json:"imap_port,omitempty"`
	IMAPSecurity string `json:"imap_security,omitempty"`
	IMAPUsername string `json:"imap_username,omitempty"`
	IMAPMailbox  string `json:"imap_mailbox,omitempty"`

	// Of Twilio and of models: where the API is.
	BaseURL string `json:"base_url,omitempty"`

	// Of Twilio.
	AccountSID string   `json:"account_sid,omitempty"`
	Numbers    []string `json:"numbers,omitempty"` // that messages and calls come from, in the form of E.164

	// Of models. Prices are per million tokens, like the limit in minor units of
	// the currency; a limit of 0 is none.
	Model        string `json:"model,omitempty"`
	MaxTokens    int    `json:"max_tokens,omitempty"`
	InputPrice   int64  `json:"input_price,omitempty"`
	OutputPrice  int64  `json:"output_price,omitempty"`
	Currency     string `json:"currency,omitempty"`
	MonthlyLimit int64  `json:"monthly_limit,omitempty"`
}

// CostParts is how many parts of a minor unit what models cost is counted in:
// prices are per million tokens.
const CostParts = 1_000_000

// CostTally is the tally of what an account has cost in a [Month], in
// [CostParts].
const CostTally = "cost"

// Month names the period of [CostTally] at t, in UTC.
func Month(t time.Time) string { return t.UTC().Format("2006-01") }

// Secrets are what a service is asked with. They never show themselves in logs,
// formatted text or JSON.
type Secrets struct {
	SMTPPassword string
	IMAPPassword string
	AuthToken    string
	APIKey       string
}

// hiddenSecrets is how secrets show themselves.
const hiddenSecrets = "[secrets]"

// Format prints a placeholder for every verb.
func (Secrets) Format(s fmt.State, _ rune) { s.Write([]byte(hiddenSecrets)) }

// String returns a placeholder.
func (Secrets) String() string { return hiddenSecrets }

// LogValue keeps the secrets out of logs.
func (Secrets) LogValue() slog.Value { return slog.StringValue(hiddenSecrets) }

// MarshalJSON keeps the secrets out of JSON.
func (Secrets) MarshalJSON() ([]byte, error) { return []byte(`"` + hiddenSecrets + `"`), nil }

// An AccountStore keeps accounts. But for those that say otherwise, its methods
// see and touch only the rows of the workspace that they are given.
type AccountStore interface {
	// Accounts returns the accounts of the kind, "" for all, the oldest first.
	Accounts(ctx context.Context, workspace string, kind Kind) ([]Account, error)

	// Account returns one account, with forUpdate locked until the transaction
	// ends. It fails with [problem.NotFound].
	Account(ctx context.Context, workspace, id string, forUpdate bool) (Account, error)

	// AccountByID returns the account of any workspace: for calls of a provider,
	// which name nothing else. It fails with [problem.NotFound].
	AccountByID(ctx context.Context, id string) (Account, error)

	// CreateAccount stores a new account. If it is the default of its purpose,
	// the one before is no longer.
	CreateAccount(ctx context.Context, a Account) error

	// UpdateAccount replaces the account, but for its cursor, if its stored version
	// is a.Version-1; otherwise it fails with [problem.Conflict]. If it becomes the
	// default of its purpose, the one before is no longer, and counts as changed.
	UpdateAccount(ctx context.Context, a Account) error

	// DeleteAccount removes the account if its stored version is version, and fails
	// with [problem.Conflict] otherwise.
	DeleteAccount(ctx context.Context, workspace, id string, version int64) error

	// SetAccountState notes what a check has found at the time; with
	// [Checking] and [Unchecked], that one is on its way or was never made. It
	// fails with [problem.NotFound].
	SetAccountState(ctx context.Context, workspace, id, state, text string, at time.Time) error

	// SetAccountCursor notes how far the mailbox of the account was read, nil for
	// not at all. It fails with [problem.Conflict] unless the account still has the
	// version: its settings may name another mailbox by now.
	SetAccountCursor(ctx context.Context, workspace, id string, version int64, cursor json.RawMessage) error

	// ReadableAccounts returns the active accounts of all workspaces whose mailbox
	// is read.
	ReadableAccounts(ctx context.Context) ([]Account, error)
}

// Accounts opens the accounts of workspaces. It is safe for concurrent use.
type Accounts struct {
	Store   AccountStore
	Sealer  Sealer
	Network Network
}

// AccountPlace is the context that the secrets of an account are sealed for.
func AccountPlace(workspace, id string) string { return "integration " + workspace + " " + id }

// plainSecrets is Secrets as they are sealed.
type plainSecrets struct {
	SMTPPassword string `json:"smtp_password,omitempty"`
	IMAPPassword string `json:"imap_password,omitempty"`
	AuthToken    string `json:"auth_token,omitempty"`
	APIKey       string `json:"api_key,omitempty"`
}

// Seal returns the secrets as the account keeps them, "" if there are none.
func (as *Accounts) Seal(a Account, s Secrets) (string, error) {
	if s == (Secrets{}) {
		return "", nil
	}
	plain, err := json.Marshal(plainSecrets(s))
	if err != nil {
		return "", fmt.Errorf("encode the secrets of %s: %w", a.ID, err)
	}
	sealed, err := as.Sealer.Seal(plain, AccountPlace(a.Workspace, a.ID))
	if err != nil {
		return "", fmt.Errorf("seal the secrets of %s: %w", a.ID, err)
	}
	return sealed, nil
}

// Open returns the secrets of the account.
func (as *Accounts) Open(a Account) (Secrets, error) {
	if a.Sealed == "" {
		return Secrets{}, nil
	}
	plain, err := as.Sealer.Open(a.Sealed, AccountPlace(a.Workspace, a.ID))
	if err != nil {
		return Secrets{}, fmt.Errorf("the secrets of %s: %w", a.ID, err)
	}
	var s plainSecrets
	if err := json.Unmarshal(plain, &s); err != nil {
		return Secrets{}, fmt.Errorf("the secrets of %s are damaged", a.ID) // without err, which may quote them
	}
	return Secrets(s), nil
}

// Default returns the account that is used where none is named: the active
// default of the purpose, or the only active one. It fails with
// [problem.Conflict] if there is none, or if nobody has chosen between several.
func (as *Accounts) Default(ctx context.Context, workspace, purpose string) (Account, error) {
	all, err := as.Store.Accounts(ctx, workspace, "")
	if err != nil {
		return Account{}, err
	}
	var active []Account
	for _, a := range all {
		if a.Active && a.Kind.Purpose() == purpose {
			active = append(active, a)
		}
	}
	chosen := slices.IndexFunc(active, func(a Account) bool { return a.Default })
	switch {
	case chosen >= 0:
		return active[chosen], nil
	case len(active) == 1:
		return active[0], nil
	case len(active) == 0:
		return Account{}, problem.Errorf(problem.Conflict, "the workspace has no active integration for %s", purposeWords[purpose]).
			WithFix("An admin connects one under Integrations.")
	}
	return Account{}, problem.Errorf(problem.Conflict, "none of the workspace's integrations for %s is the default", purposeWords[purpose]).
		WithFix("Name one, or have an admin choose the default under Integrations.")
}

// purposeWords are the purposes as people read them.
var purposeWords = map[string]string{MailPurpose: "e-mail", PhonePurpose: "text messages and calls", ModelPurpose: "AI"}

// SMTP returns the account at the mail server of a mailbox.
func (as *Accounts) SMTP(a Account) (SMTPAccount, error) {
	s, err := as.open(a, EmailKind)
	if err != nil {
		return SMTPAccount{}, err
	}
	c := a.Settings
	return SMTPAccount{Host: c.SMTPHost, Port: c.SMTPPort, Security: Security(c.SMTPSecurity), Username: login(c.SMTPUsername, c.Address, s.SMTPPassword), Password: s.SMTPPassword,
		From: mail.Address{Name: c.SenderName, Address: c.Address}}, nil
}

// IMAP returns the account from which a mailbox is read.
func (as *Accounts) IMAP(a Account) (IMAPAccount, error) {
	s, err := as.open(a, EmailKind)
	if err != nil {
		return IMAPAccount{}, err
	}
	c := a.Settings
	return IMAPAccount{Host: c.IMAPHost, Port: c.IMAPPort, Security: Security(c.IMAPSecurity), Username: login(c.IMAPUsername, c.Address, s.IMAPPassword), Password: s.IMAPPassword,
		Mailbox: c.IMAPMailbox}, nil
}

// login returns the user name for a mail server: where none is set, the address
// is it, and without a password there is no login.
func login(username, address, password string) string {
	if username == "" && password != "" {
		return address
	}
	return username
}

// Twilio returns the account at Twilio.
func (as *Accounts) Twilio(a Account) (Twilio, error) {
	s, err := as.open(a, TwilioKind)
	if err != nil {
		return Twilio{}, err
	}
	return Twilio{BaseURL: a.Settings.BaseURL, AccountSID: a.Settings.AccountSID, AuthToken: s.AuthToken}, nil
}

// Model returns the language model.
func (as *Accounts) Model(a Account) (Model, error) { return as.model(a) }

// A checkedModel is a model whose account can be looked at.
type checkedModel interface {
	Model
	Check(ctx context.Context) error
}

func (as *Accounts) model(a Account) (checkedModel, error) {
	s, err := as.open(a, AnthropicKind, OpenAIKind)
	switch {
	case err != nil:
		return nil, err
	case a.Kind == AnthropicKind:
		return Anthropic{BaseURL: a.Settings.BaseURL, APIKey: s.APIKey, Model: a.Settings.Model, Network: as.Network}, nil
	}
	return OpenAI{BaseURL: a.Settings.BaseURL, APIKey: s.APIKey, Model: a.Settings.Model, Network: as.Network}, nil
}

// open is Open for an account that has to be of one of the kinds.
func (as *Accounts) open(a Account, kinds ...Kind) (Secrets, error) {
	if !slices.Contains(kinds, a.Kind) {
		return Secrets{}, fmt.Errorf("the account %s is of the kind %s, not %s", a.ID, a.Kind, kinds[0])
	}
	return as.Open(a)
}

// Check finds out whether the account works: it logs in, and does nothing else.
// An error of the peer is a [Failure], whose text is fit for people.
func (as *Accounts) Check(ctx context.Context, a Account) error {
	switch a.Kind {
	case EmailKind:
		out, err := as.SMTP(a)
		if err != nil {
			return err
		}
		if err := out.Check(ctx, as.Network); err != nil || a.Settings.IMAPHost == "" {
			return err
		}
		in, err := as.IMAP(a)
		if err != nil {
			return err
		}
		return in.Check(ctx, as.Network)
	case TwilioKind:
		t, err := as.Twilio(a)
		if err != nil {
			return err
		}
		return t.Check(ctx, as.Network)
	}
	m, err := as.model(a)
	if err != nil {
		return err
	}
	return m.Check(ctx)
}

// SendTest sends a letter by the mail server of a mailbox. The id tells it from
// others, and is the same at each try.
func (as *Accounts) SendTest(ctx context.Context, a Account, id string, l Letter) error {
	out, err := as.SMTP(a)
	if err != nil {
		return err
	}
	l.MessageID = id + "@" + domain(a.Settings.Address)
	return out.Send(ctx, as.Network, l)
}
