package web

import (
	"context"
	"encoding/json"
	"fmt"

	"trustpager/approvals"
	"trustpager/catalog"
)

// act does an action of the catalog on behalf of the person, as at any other
// door. id names its target and version the one that is wanted of it, "" and 0
// if there is none.
func (p *Pages) act(ctx context.Context, in room, name, id string, version int64, input any) (catalog.Result, error) {
	a, ok := p.Catalog.Find(name)
	if !ok {
		return catalog.Result{}, fmt.Errorf("there is no action %s", name)
	}
	raw, err := json.Marshal(input)
	if err != nil {
		return catalog.Result{}, fmt.Errorf("input of %s: %w", name, err)
	}
	out, err := p.Gate.Do(ctx, in.grant, a, approvals.Incoming{ID: id, IfVersion: version, Input: raw, Request: approvals.Request{Door: "web"}})
	if err == nil && out.Approval != nil {
		return catalog.Result{}, fmt.Errorf("%s of a person has become an approval", name)
	}
	return out.Result, err
}
