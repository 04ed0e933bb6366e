package access

import "time"

// A Key is an API key: a credential for scripts and agents. Only the hash of
// its secret is stored.
type Key struct {
	ID          string    `json:"id"` // key_…
	Workspace   string    `json:"-"`
	Name        string    `json:"name"`
	Last4       string    `json:"last4"` // the secret's last four characters
	FullAccess  bool      `json:"full_access"`
	MayDecide   bool      `json:"may_decide"` // only with FullAccess
	Scopes      []Scope   `json:"-"`
	Limits      Limits    `json:"limits"`
	CreatedBy   Principal `json:"-"`
	Parent      string    `json:"parent,omitempty"` // the key that made it
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	LastUsedAt  time.Time `json:"last_used_at,omitzero"`
	LastUsedFor string    `json:"last_used_for,omitempty"` // the action of that use

	OldSecretUntil time.Time `json:"old_secret_until,omitzero"` // the end of the last rotation's overlap, also a past one
}
