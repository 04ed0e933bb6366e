package messages

import (
	"context"

	"trustpager/jobs"
)

// ReadNow reads one mailbox, as its job does.
func (cr *Carrier) ReadNow(ctx context.Context, workspace, account string) error {
	j, err := jobs.New(cr.now(), workspace, readKind, account, readPayload{account}, cr.now())
	if err != nil {
		return err
	}
	return cr.read(ctx, j)
}
