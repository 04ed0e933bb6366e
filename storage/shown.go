package storage

import (
	"sync"

	"trustpager/access"
)

// decoded remembers what the rows of a key and of its workspace say, by the
// hash of the secret, so that a request reads only the rows' versions and
// decodes them again when one has moved. The versions are read with every
// request, and every statement that changes what a key may do moves one, so a
// change still holds from the next request on, on every node. It is safe for
// concurrent use.
type decoded struct {
	mu    sync.RWMutex
	shown map[string]versioned
}

// versioned is what was shown under two versions.
type versioned struct {
	key, workspace int64
	shown          access.Shown
}

// maxDecoded bounds how many keys are remembered; then it begins anew.
const maxDecoded = 20_000

func (d *decoded) of(hash string, key, workspace int64) (access.Shown, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v, ok := d.shown[hash]
	return v.shown, ok && v.key == key && v.workspace == workspace
}

func (d *decoded) put(hash string, v versioned) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shown == nil || len(d.shown) >= maxDecoded {
		d.shown = map[string]versioned{}
	}
	d.shown[hash] = v
}
