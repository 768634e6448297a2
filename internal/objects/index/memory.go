package index

import (
	"slices"
	"strings"
	"sync"
)

// operation is one change, and an entry of a table. The value of a deleted key
// is nil.
type operation struct {
	key     string
	value   []byte
	deleted bool
}

// entryOverhead is what an entry costs in memory besides its bytes.
const entryOverhead = 64

// memoryTable is what was committed since the last sorted file.
type memoryTable struct {
	mu      sync.RWMutex
	entries []*operation // by key; replaced, never modified
	bytes   int64
	lastLog uint64 // the newest log it was written to
}

func (m *memoryTable) find(key string) (int, bool) {
	return slices.BinarySearchFunc(m.entries, key, func(o *operation, k string) int { return strings.Compare(o.key, k) })
}

func (m *memoryTable) apply(o operation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, found := m.find(o.key)
	if found {
		m.bytes += int64(len(o.value) - len(m.entries[i].value))
		m.entries[i] = &o
		return
	}
	m.bytes += int64(len(o.key)+len(o.value)) + entryOverhead
	m.entries = slices.Insert(m.entries, i, &o)
}

func (m *memoryTable) get(key string) *operation {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if i, found := m.find(key); found {
		return m.entries[i]
	}
	return nil
}

// from returns the first entry at or after key.
func (m *memoryTable) from(key string) *operation {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if i, _ := m.find(key); i < len(m.entries) {
		return m.entries[i]
	}
	return nil
}
