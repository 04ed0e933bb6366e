package admin

import (
	"context"
	"encoding/json"

	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
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

// Outgoing says what the jobs of these kinds take outside; see [approvals.Gate].
func (d *Desk) Outgoing() map[string]func(ctx context.Context, tx approvals.Store, j jobs.Job) (approvals.Sending, error) {
	return map[string]func(ctx context.Context, tx approvals.Store, j jobs.Job) (approvals.Sending, error){
		integrations.MailKind: func(_ context.Context, _ approvals.Store, j jobs.Job) (approvals.Sending, error) {
			msg, err := d.Mail.Read(j)
			return approvals.Sending{Kind: "email", To: []string{msg.To}, Subject: msg.Subject}, err
		},
		IntegrationTestKind: func(_ context.Context, _ approvals.Store, j jobs.Job) (approvals.Sending, error) {
			s := approvals.Sending{Kind: "test"}
			var test integrationTest
			err := json.Unmarshal(j.Payload, &test)
			if test.To != "" {
				s.To = []string{test.To}
			}
			return s, err
		},
	}
}

// Lookups returns what the actions of these resources need from outside of the
// database, before their transactions.
func (d *Desk) Lookups() map[string]func(ctx context.Context, a *catalog.Action, c catalog.Call) error {
	return map[string]func(ctx context.Context, a *catalog.Action, c catalog.Call) error{
		webhooksResource: d.lookUpWebhook,
	}
}
