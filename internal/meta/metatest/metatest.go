// Package metatest holds what a metadata store must do on every engine: the
// contract suite and the linearizability suite.
//
// A test gives them an Environment, the place where a store's log and snapshots
// live, which can be closed and opened again and which can lose its power.
// Memory is the environment over the memory engine; Disk puts an engine that
// writes files on a file system that forgets what was not synced.
//
// Suites run in seconds; with MILLRACE_TORTURE=1 in the environment they try
// many more histories. Start reading at Run.
package metatest

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

// Environment is where a store lives. At most one store is open in it.
type Environment interface {
	// Open opens the log and a store on it.
	Open(t testing.TB, o meta.Options) *meta.Store
	// Close ends the store and the log in good order. It may be called twice.
	Close(t testing.TB)
	// Crash returns the environment as a loss of power at this moment leaves
	// it. The store that was open may fail or go on; nothing it does from now
	// on reaches the new environment. The old one is still to be closed. A seed
	// other than 0 chooses what of the unsynced writes survived.
	Crash(t testing.TB, seed uint64) Environment
}

// Torture reports whether long forms of tests were asked for.
func Torture() bool { return os.Getenv("MILLRACE_TORTURE") == "1" }

// Run runs all suites over environments that fresh makes.
func Run(t *testing.T, fresh func(t testing.TB) Environment) {
	t.Run("contract", func(t *testing.T) { Contract(t, fresh) })
	t.Run("linearizable", func(t *testing.T) { Linearizable(t, fresh) })
}

// Memory makes an environment whose log is a memory engine. The log survives
// its store and a crash as if every append had been synced; snapshots are at
// the mercy of the crash.
func Memory() Environment {
	return &memoryEnvironment{
		engine:    memory.New(memory.Options{}),
		snapshots: vfs.NewMemory(),
	}
}

type memoryEnvironment struct {
	engine    driver.Driver
	snapshots *vfs.Memory

	power *switched
	log   *shardlog.Log
	store *meta.Store
}

func (e *memoryEnvironment) Open(t testing.TB, o meta.Options) *meta.Store {
	t.Helper()
	e.power = &switched{Driver: e.engine}
	e.log = shardlog.New(e.power, shardlog.Options{})
	e.store = openStore(t, e.log, e.snapshots, o)
	return e.store
}

func (e *memoryEnvironment) Close(t testing.TB) {
	t.Helper()
	closeBoth(t, e.store, e.log)
}

func (e *memoryEnvironment) Crash(t testing.TB, seed uint64) Environment {
	t.Helper()
	// Once the switch is off, nothing more is appended or truncated; what was
	// appended by then survives.
	e.power.turnOff()
	return &memoryEnvironment{engine: e.engine, snapshots: e.snapshots.CrashClone(seed)}
}

// switched is a driver that can be turned off: whatever changes something
// fails from then on, and Close ends nothing but the access.
type switched struct {
	driver.Driver
	mu  sync.RWMutex
	off bool
}

func (s *switched) turnOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
}

func (s *switched) change(do func() error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.off {
		return driver.ErrClosed
	}
	return do()
}

func (s *switched) Append(ctx context.Context, batches []*driver.Batch) error {
	// Memory is too quick for clients to meet; a disk gives them time.
	for range rand.IntN(8) {
		runtime.Gosched()
	}
	return s.change(func() error { return s.Driver.Append(ctx, batches) })
}

func (s *switched) Truncate(ctx context.Context, id driver.ShardID, before driver.Index) error {
	return s.change(func() error { return s.Driver.Truncate(ctx, id, before) })
}

func (s *switched) Close() error {
	s.turnOff()
	return nil
}

// Disk makes an environment over an engine that open opens on a file system.
func Disk(open func(ctx context.Context, fs vfs.FS) (driver.Driver, error)) Environment {
	return &diskEnvironment{open: open, disk: vfs.NewMemory()}
}

type diskEnvironment struct {
	open  func(ctx context.Context, fs vfs.FS) (driver.Driver, error)
	disk  *vfs.Memory
	log   *shardlog.Log
	store *meta.Store
}

func (e *diskEnvironment) Open(t testing.TB, o meta.Options) *meta.Store {
	t.Helper()
	if err := e.disk.MkdirAll("log"); err != nil {
		t.Fatal(err)
	}
	engine, err := e.open(context.Background(), vfs.Sub(e.disk, "log"))
	if err != nil {
		t.Fatal(err)
	}
	e.log = shardlog.New(engine, shardlog.Options{})
	e.store = openStore(t, e.log, vfs.Sub(e.disk, "meta"), o)
	return e.store
}

func (e *diskEnvironment) Close(t testing.TB) {
	t.Helper()
	closeBoth(t, e.store, e.log)
}

func (e *diskEnvironment) Crash(t testing.TB, seed uint64) Environment {
	t.Helper()
	return &diskEnvironment{open: e.open, disk: e.disk.CrashClone(seed)}
}

func openStore(t testing.TB, log *shardlog.Log, fs vfs.FS, o meta.Options) *meta.Store {
	t.Helper()
	store, err := meta.Open(context.Background(), log, fs, o)
	if err != nil {
		log.Close()
		t.Fatal(err)
	}
	return store
}

func closeBoth(t testing.TB, store *meta.Store, log *shardlog.Log) {
	t.Helper()
	if store == nil {
		return
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}
