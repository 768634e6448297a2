package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/vfs"
)

// InMetadata keeps keys in the metadata store, beside the streams that use
// them. They are wrapped: without the master key they are of no use.
func InMetadata(s *meta.Store) Store { return metaStore{s} }

type metaStore struct{ store *meta.Store }

func (m metaStore) Get(key string) ([]byte, uint64, bool) {
	r, ok := m.store.Get(key)
	return r.Value, uint64(r.Version), ok
}

func (m metaStore) List(prefix string) []string {
	var keys []string
	for _, r := range m.store.List(prefix, "", 0) {
		keys = append(keys, r.Key)
	}
	return keys
}

func (m metaStore) Put(ctx context.Context, key string, value []byte, version uint64) error {
	op := meta.Op{Key: key, Value: value, Cond: meta.IfVersion, Version: meta.Version(version)}
	if version == 0 {
		op.Cond = meta.Absent
	}
	_, err := m.store.Commit(ctx, op)
	if conflict := (*meta.ConflictError)(nil); errors.As(err, &conflict) {
		return ErrConflict
	}
	return err
}

// InMemory keeps keys until the process ends.
func InMemory() Store { return &memoryStore{records: map[string]memoryRecord{}} }

type memoryStore struct {
	mu      sync.RWMutex
	records map[string]memoryRecord
}

type memoryRecord struct {
	value   []byte
	version uint64
}

func (m *memoryStore) Get(key string) ([]byte, uint64, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.records[key]
	return r.value, r.version, ok
}

func (m *memoryStore) List(prefix string) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var keys []string
	for key := range m.records {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *memoryStore) Put(_ context.Context, key string, value []byte, version uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records[key].version != version {
		return ErrConflict
	}
	m.records[key] = memoryRecord{value, version + 1}
	return nil
}

// OpenMasterKey reads the master key from a file, and makes the file first if
// there is none; it is durable at return. A file of another length is an error:
// a key is never replaced.
func OpenMasterKey(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return createMasterKey(fsys, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open master key: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	if size != MasterKeySize {
		return nil, fmt.Errorf("master key file %s has %d bytes, want %d", name, size, MasterKeySize)
	}
	key := make([]byte, MasterKeySize)
	if _, err := f.ReadAt(key, 0); err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	return key, nil
}

// createMasterKey writes beside the name and renames, so that a crash leaves a
// whole key or none.
func createMasterKey(fsys vfs.FS, name string) (key []byte, err error) {
	key = NewMasterKey()
	temporary := name + ".new"
	f, err := fsys.Open(temporary, vfs.Write|vfs.Create|vfs.Empty)
	if err != nil {
		return nil, fmt.Errorf("make master key: %w", err)
	}
	_, err = f.WriteAt(key, 0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsys.Rename(temporary, name)
	}
	if err == nil {
		err = fsys.SyncDir(".")
	}
	if err != nil {
		return nil, fmt.Errorf("make master key: %w", err)
	}
	return key, nil
}
