package iam

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Store keeps the directory's records, JSON under keys below "iam/". A commit
// is atomic and durable when it returns, and watchers have been told by then.
type Store interface {
	// Commit applies all writes, or none: ErrConflict if one that must create
	// its record finds it there, or one that must find it does not.
	Commit(ctx context.Context, writes ...Write) error
	// Watch calls f with all records whose keys have the prefix, before it
	// returns, and then with the writes of every commit, in their order.
	Watch(prefix string, f func([]Write)) (cancel func())
}

// Write is a change of one record.
type Write struct {
	Key    string
	Value  []byte // nil deletes
	Create bool   // the record must not exist
	Exists bool   // the record must exist
}

// ErrConflict means that a record was there, or was not, against expectation.
var ErrConflict = errors.New("iam: record exists or is missing")

// MemoryStore is a Store that forgets. The zero value is empty.
type MemoryStore struct {
	mu       sync.Mutex
	records  map[string][]byte
	watchers map[int]watcher
	next     int
}

type watcher struct {
	prefix string
	f      func([]Write)
}

// Commit implements Store.
func (m *MemoryStore) Commit(_ context.Context, writes ...Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range writes {
		_, there := m.records[w.Key]
		if w.Create && there || w.Exists && !there {
			return ErrConflict
		}
	}
	if m.records == nil {
		m.records = make(map[string][]byte)
	}
	for _, w := range writes {
		if w.Value == nil {
			delete(m.records, w.Key)
		} else {
			m.records[w.Key] = slices.Clone(w.Value)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.watchers)) {
		m.watchers[id].tell(writes)
	}
	return nil
}

func (w watcher) tell(writes []Write) {
	var mine []Write
	for _, write := range writes {
		if strings.HasPrefix(write.Key, w.prefix) {
			mine = append(mine, write)
		}
	}
	if mine != nil {
		w.f(mine)
	}
}

// Watch implements Store.
func (m *MemoryStore) Watch(prefix string, f func([]Write)) (cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Write, 0, len(m.records))
	for _, key := range slices.Sorted(maps.Keys(m.records)) {
		all = append(all, Write{Key: key, Value: m.records[key]})
	}
	w := watcher{prefix, f}
	w.tell(all)
	if m.watchers == nil {
		m.watchers = make(map[int]watcher)
	}
	id := m.next
	m.next++
	m.watchers[id] = w
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, id)
	}
}
