package admin

import "trustpager/catalog"

// Services returns what performs the actions of the resources by which a
// workspace is steered, by resource.
func (d *Desk) Services() map[string]catalog.Service {
	return map[string]catalog.Service{
		"integrations": d.integrations,
	}
}
