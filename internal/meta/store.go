// Package meta keeps the server's metadata: which streams, shards, consumers,
// policies and leases there are.
//
// The one idea: the store is a deterministic state machine fed by one shard
// log. A commit is encoded as a command and appended to the log; commands are
// applied strictly in the order of the log, and whether a conditional write
// succeeds is decided only then. So everybody who follows the log arrives at the
// same state with the same verdicts, and a restart is nothing but following it
// again. Snapshots of the state bound how far back that has to go. The bytes
// are described in docs/formats/metadata.md.
//
// # One goroutine applies
//
// Store.run alone appends to the log and applies it. It takes all commits that
// wait as one group, so that concurrent callers share one sync of the disk, and
// applies the group from the bytes it appended, without reading them back. That
// is the same as reading them: the append's answer says at which index they
// are, and if anything lies between the last applied command and that index, it
// is read from the log and applied first. While there is nothing to commit,
// run tails the log and applies what others append.
//
// A command that cannot be read or decoded ends the store: what follows it must
// not be applied, so every later Commit fails with the reason. Reads go on.
//
// # Locks
//
// In this order: Store.snapshotMu (one snapshot at a time), Store.applyMu (held
// while commands are applied and watchers called), Store.mu (the map; never held
// while anything is called or waited for). Store.queueMu stands alone. The log is
// appended to and read without any of them.
//
// # What is not done here
//
// Values are opaque; Table gives them a type. There is no transaction that
// reads: callers read, then commit with conditions on what they read, and start
// over on a *ConflictError.
package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

const (
	// LogShard is the shard log that holds the commands.
	LogShard driver.ShardID = 1
	// firstShardID is the first number NextShardID gives away; the ones below
	// are for logs of the server's own.
	firstShardID driver.ShardID = 16
	nextShardKey                = "shards/next"

	// MaxCommitBytes bounds the encoded size of one commit.
	MaxCommitBytes = 8 << 20
	// MaxKeyBytes bounds a key.
	MaxKeyBytes = 4096

	// maxQueuedBytes bounds the commits that wait or are being stored; who comes
	// later waits before Commit takes its place in the order.
	maxQueuedBytes = 4 * MaxCommitBytes
	// A group stays well below the limits of a batch.
	maxGroupBytes   = MaxCommitBytes + 4<<20
	maxGroupCommits = 4096

	// replayBytes is how much of the log is read at a time.
	replayBytes = 4 << 20

	// DefaultSnapshotBytes is how much log may follow a snapshot before the next
	// one is taken.
	DefaultSnapshotBytes = 16 << 20
)

// Errors of Commit, besides *ConflictError and those of the log.
var (
	ErrClosed   = errors.New("metadata: closed")
	ErrTooLarge = fmt.Errorf("metadata: commit is larger than %d bytes", MaxCommitBytes)
	ErrKey      = fmt.Errorf("metadata: keys have 1 to %d bytes", MaxKeyBytes)
)

// Version is the index of the commit that wrote a record. Zero is the version
// of a record that is not there.
type Version uint64

// Record is a key with its value. The value belongs to the store: it must not
// be modified.
type Record struct {
	Key     string
	Version Version
	Value   []byte
}

// Cond is what must be true of a record for an Op to take effect.
type Cond uint8

const (
	Any       Cond = iota
	Absent         // there is no such record
	Present        // there is one, of any version
	IfVersion      // there is one, and it has Op.Version
)

// Op is one write of a commit: a put, or a delete if Delete is set. Deleting
// what is not there is no error unless Cond says so.
type Op struct {
	Key     string
	Value   []byte
	Delete  bool
	Cond    Cond
	Version Version // for IfVersion
}

// Change is what a commit did to one record. The value belongs to the store.
type Change struct {
	Key     string
	Version Version // of the commit
	Value   []byte
	Deleted bool
}

// ConflictError means that a condition did not hold when the commit's turn
// came. Nothing of the commit took effect.
type ConflictError struct {
	Key     string  // of the first operation whose condition failed
	Version Version // the record's version at that time, 0 if it was absent
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("metadata: conflicting change of %q, which has version %d", e.Key, e.Version)
}

// Options of a Store. The zero value is usable.
type Options struct {
	// SnapshotBytes is how much log may follow a snapshot before the next one
	// is taken; DefaultSnapshotBytes if zero. Large states wait for as much log
	// as the last snapshot was long, so that snapshots never write more than
	// the log does.
	SnapshotBytes int64
	// Logger receives what happens in the background: damaged snapshots that
	// were passed over, snapshots that failed, the end of the store. Nothing is
	// logged if nil.
	Logger *slog.Logger
}

// Store is the metadata. All methods may be called concurrently.
type Store struct {
	log     *shardlog.Log
	options Options
	fs      vfs.FS // nil = no snapshots

	admission *semaphore.Weighted // bytes of commits that wait or are being stored
	stop      chan struct{}       // closed by Close
	group     sync.WaitGroup      // run, and a snapshot in the background

	queueMu sync.Mutex
	queue   []*commit
	queued  chan struct{} // holds one signal while queue is not empty
	err     error         // why no commit is taken any more

	snapshotMu   sync.Mutex
	newest       driver.Index // of the newest snapshot, 0 = none
	snapshotSize atomic.Int64 // bytes of the newest snapshot
	snapshotting atomic.Bool  // one is under way in the background
	ended        bool         // no further snapshot

	applyMu  sync.Mutex
	watchers []*watcher
	ops      []operation // scratch of apply

	mu      sync.RWMutex
	records btree.Map[string, entry]
	applied driver.Index
	logged  int64 // bytes of commands since the newest snapshot was taken
}

type entry struct {
	version Version
	value   []byte
}

type watcher struct {
	prefix string
	f      func([]Change)
}

// commit is one Commit on its way.
type commit struct {
	command []byte
	version Version
	err     error
	done    chan struct{}
}

// Open restores the state from the newest readable snapshot in fs and the log
// after it, and starts following the log. The log's shard is made if there is
// none. Snapshots live in the root of fs; with a nil fs none are taken and the
// log is kept whole.
//
// The log must not be closed before the store. Errors: damage is a
// *driver.CorruptError, data of a newer release driver.ErrNewerVersion.
func Open(ctx context.Context, log *shardlog.Log, fs vfs.FS, o Options) (*Store, error) {
	if o.SnapshotBytes <= 0 {
		o.SnapshotBytes = DefaultSnapshotBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		log:       log,
		options:   o,
		fs:        fs,
		admission: semaphore.NewWeighted(maxQueuedBytes),
		stop:      make(chan struct{}),
		queued:    make(chan struct{}, 1),
	}
	if err := s.restore(ctx); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	s.group.Go(s.run)
	return s, nil
}

// Close ends the store and returns when nothing runs any more. Commits that
// are being stored are finished, those that wait fail with ErrClosed. Reads go
// on working. It may be called twice.
func (s *Store) Close() error {
	s.queueMu.Lock()
	if s.err == nil {
		s.err = ErrClosed
	}
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.queueMu.Unlock()
	s.group.Wait()
	s.snapshotMu.Lock()
	defer s.snapshotMu.Unlock()
	s.ended = true
	return nil
}

// Err is why no commit is taken any more; nil while the store works, ErrClosed
// after Close.
func (s *Store) Err() error {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	return s.err
}

// Get returns the record with the key.
func (s *Store) Get(key string) (Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.records.Get(key)
	if !ok {
		return Record{}, false
	}
	return Record{Key: key, Version: e.version, Value: e.value}, true
}

// List returns the records whose keys begin with prefix and come after after,
// in key order, at most limit of them or all if limit is 0. An empty after
// starts at the beginning.
func (s *Store) List(prefix, after string, limit int) []Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []Record
	s.records.Ascend(max(prefix, after), func(key string, e entry) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if key != after {
			list = append(list, Record{Key: key, Version: e.version, Value: e.value})
		}
		return limit <= 0 || len(list) < limit
	})
	return list
}

// Len is how many records there are.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.records.Len()
}

// Applied is the index of the newest command the state contains.
func (s *Store) Applied() Version {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Version(s.applied)
}

// Commit applies ops as one: all or, if a condition fails, none, which is a
// *ConflictError. Conditions are decided when the commit's turn comes, against
// the state that the commits before it left; operations on the same key take
// effect in their order. At return the commit is durable, visible to Get and
// List, and every watcher has been called with it.
//
// ctx ends waiting for a turn; a commit that has been handed to the log is
// waited for. Any error but *ConflictError, ErrTooLarge, ErrKey, ErrClosed, the
// context's and driver.ErrFull leaves open whether the commit is there after a
// restart. A commit without ops writes nothing and returns the newest version.
func (s *Store) Commit(ctx context.Context, ops ...Op) (Version, error) {
	if len(ops) == 0 {
		return s.Applied(), nil
	}
	for i := range ops {
		if n := len(ops[i].Key); n == 0 || n > MaxKeyBytes {
			return 0, ErrKey
		}
		if len(ops[i].Value) > MaxCommitBytes {
			return 0, ErrTooLarge
		}
	}
	c := &commit{command: appendCommand(make([]byte, 0, min(commandSize(ops), MaxCommitBytes)), ops), done: make(chan struct{})}
	size := int64(len(c.command))
	if size > MaxCommitBytes {
		return 0, ErrTooLarge
	}
	if err := s.admission.Acquire(ctx, size); err != nil {
		return 0, fmt.Errorf("commit metadata: %w", err)
	}
	defer s.admission.Release(size)
	if err := s.enqueue(c); err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if s.withdraw(c) {
			return 0, fmt.Errorf("commit metadata: %w", ctx.Err())
		}
		<-c.done
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.version, nil
}

func (s *Store) enqueue(c *commit) error {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.queue = append(s.queue, c)
	s.signal()
	return nil
}

func (s *Store) signal() {
	select {
	case s.queued <- struct{}{}:
	default:
	}
}

// withdraw takes c out of the queue, if it is still there.
func (s *Store) withdraw(c *commit) bool {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	i := slices.Index(s.queue, c)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}

// take removes the next group from the queue. What does not fit stays, with a
// signal.
func (s *Store) take() []*commit {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	n, size := 0, 0
	for n < len(s.queue) && n < maxGroupCommits {
		size += shardlog.FrameSize(len(s.queue[n].command))
		if n > 0 && size > maxGroupBytes {
			break
		}
		n++
	}
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	if len(s.queue) > 0 {
		s.signal()
	}
	return group
}

// Watch calls f with what has changed: first, before Watch returns, with all
// records whose keys begin with prefix, and from then on for every commit that
// changed such records, with those changes, in the order of the log and before
// that Commit returns. There is no gap and no repetition between the two. Calls
// never overlap. During a call Get and List may already show commits that f
// will be told about later.
//
// f is called by the goroutine that applies commits: it must be quick, and
// must not commit, watch or cancel. After cancel has returned f is not called
// any more.
func (s *Store) Watch(prefix string, f func(changes []Change)) (cancel func()) {
	w := &watcher{prefix: prefix, f: f}
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	var present []Change
	for _, r := range s.List(prefix, "", 0) {
		present = append(present, Change{Key: r.Key, Version: r.Version, Value: r.Value})
	}
	f(present)
	s.watchers = append(s.watchers, w)
	return func() {
		s.applyMu.Lock()
		defer s.applyMu.Unlock()
		if i := slices.Index(s.watchers, w); i >= 0 {
			s.watchers = slices.Delete(s.watchers, i, i+1)
		}
	}
}

// NextShardID allots n consecutive engine shard numbers, durable at return. No
// number is ever allotted twice.
func (s *Store) NextShardID(ctx context.Context, n int) (first driver.ShardID, err error) {
	if n < 1 {
		return 0, fmt.Errorf("allot shard numbers: %d is not a number of shards", n)
	}
	for {
		op := Op{Key: nextShardKey, Cond: Absent}
		first = firstShardID
		if r, ok := s.Get(nextShardKey); ok {
			if len(r.Value) != 8 {
				return 0, fmt.Errorf("allot shard numbers: %w", &driver.CorruptError{
					File: "metadata record " + nextShardKey, Reason: "not a number of eight bytes"})
			}
			first = driver.ShardID(binary.LittleEndian.Uint64(r.Value))
			op.Cond, op.Version = IfVersion, r.Version
		}
		op.Value = binary.LittleEndian.AppendUint64(nil, uint64(first)+uint64(n))
		_, err := s.Commit(ctx, op)
		var conflict *ConflictError
		if errors.As(err, &conflict) {
			continue // somebody else was allotted these
		}
		if err != nil {
			return 0, fmt.Errorf("allot shard numbers: %w", err)
		}
		return first, nil
	}
}
