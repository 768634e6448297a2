// Package metastore keeps the identity directory in the server's metadata. It
// is the only place where the two meet: iam knows no storage, meta no users.
package metastore

import (
	"context"
	"errors"

	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/meta"
)

// Store is an iam.Store over a meta.Store.
type Store struct{ meta *meta.Store }

// New makes the adapter.
func New(m *meta.Store) *Store { return &Store{m} }

// Commit implements iam.Store.
func (s *Store) Commit(ctx context.Context, writes ...iam.Write) error {
	ops := make([]meta.Op, len(writes))
	for i, w := range writes {
		ops[i] = meta.Op{Key: w.Key, Value: w.Value, Delete: w.Value == nil}
		switch {
		case w.Create:
			ops[i].Cond = meta.Absent
		case w.Exists:
			ops[i].Cond = meta.Present
		}
	}
	_, err := s.meta.Commit(ctx, ops...)
	var conflict *meta.ConflictError
	if errors.As(err, &conflict) {
		return iam.ErrConflict
	}
	return err
}

// Watch implements iam.Store.
func (s *Store) Watch(prefix string, f func([]iam.Write)) (cancel func()) {
	return s.meta.Watch(prefix, func(changes []meta.Change) {
		writes := make([]iam.Write, len(changes))
		for i, c := range changes {
			writes[i] = iam.Write{Key: c.Key, Value: c.Value}
			if c.Deleted {
				writes[i].Value = nil
			}
		}
		f(writes)
	})
}
