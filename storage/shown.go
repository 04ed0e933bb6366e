package storage

import "sync"

// A memory remembers what the rows behind a credential say, by a name of the
// credential, so that a request reads only the rows' versions, of type V, and
// decodes them again when one has moved. The versions are read with every
// request, and every statement that changes what a credential may do moves one,
// so a change still holds from the next request on, on every node. Nobody
// changes what it holds. It is safe for concurrent use.
type memory[V comparable, T any] struct {
	mu sync.RWMutex
	of map[string]remembered[V, T]
}

// remembered is what was decoded under the versions.
type remembered[V comparable, T any] struct {
	versions V
	value    T
}

// maxDecoded bounds how many credentials a memory holds; then it begins anew.
const maxDecoded = 20_000

func (m *memory[V, T]) get(name string, versions V) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.of[name]
	return r.value, ok && r.versions == versions
}

func (m *memory[V, T]) put(name string, versions V, value T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil || len(m.of) >= maxDecoded {
		m.of = map[string]remembered[V, T]{}
	}
	m.of[name] = remembered[V, T]{versions, value}
}

// keyVersions are the versions of the rows that say what a key may do.
type keyVersions struct{ key, workspace int64 }

// delegationVersions are the versions of the rows that say what an OAuth
// credential may do.
type delegationVersions struct{ grant, policy, client, workspace int64 }
