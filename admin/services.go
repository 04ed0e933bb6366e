package admin

import (
	"context"

	"trustpager/catalog"
)

// Services returns what performs the actions of the resources by which a
// workspace is steered, by resource.
func (d *Desk) Services() map[string]catalog.Service {
	return map[string]catalog.Service{
		"integrations":   d.integrations,
		"company":        d.company,
		"users":          d.users,
		"billing":        d.billing,
		webhooksResource: d.planWebhook,
	}
}

// Lookups returns what the actions of these resources need from outside of the
// database, before their transactions.
func (d *Desk) Lookups() map[string]func(ctx context.Context, a *catalog.Action, c catalog.Call) error {
	return map[string]func(ctx context.Context, a *catalog.Action, c catalog.Call) error{
		webhooksResource: d.lookUpWebhook,
	}
}
