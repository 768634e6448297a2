// Package memory is the shard log engine that keeps everything in memory, for
// --ephemeral servers and for tests.
//
// The one idea: a shard is a sorted slice of stored batches, so every question
// is a binary search and an idle shard is one small struct. Records end by
// retention, truncation and deletion like anywhere else; what the others expect
// of an engine (package driver) holds, except that nothing survives Close.
//
// Records whose retention is over are dropped when their shard is appended to,
// and once a minute in all shards as long as anything is appended; until then
// they stay readable, which the contract allows. Options.MaxBytes bounds the
// memory: an append that would exceed it first drops whatever may go, and fails
// with driver.ErrFull if that is not enough.
//
// # Locks
//
// Engine.mu guards the map of shards, shard.mu one shard; in this order. An
// append holds Engine.mu shared for its whole duration, so that Create, Delete
// and Close see no append half done. Payloads are encoded under shard.mu, since
// the next batch of the shard must not be readable before them, and copied out
// without it. The function set by Notify is called without any lock.
package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	// batchOverhead is what a stored batch costs besides its payload: its place
	// in the slice, half of which may be spare, and the allocator's rounding.
	batchOverhead = 96
	// sweepEvery is the least time between two looks at all shards.
	sweepEvery = time.Minute
)

// errEmpty is a batch's error if it breaks the contract from below.
var errEmpty = errors.New("shard log: batch without records")

// Options of an engine. The zero value is usable.
type Options struct {
	// Now is the clock for arrival times and retention; time.Now if nil.
	Now func() time.Time
	// MaxBytes bounds the memory for records, overhead included, as well as it
	// can be estimated. Zero means no bound.
	MaxBytes int64
}

// Engine implements driver.Driver.
type Engine struct {
	now      func() time.Time
	maxBytes int64
	notify   func(driver.ShardID, driver.Index, int64)

	used  atomic.Int64 // bytes of all shards, and reserved by appends
	swept atomic.Int64 // when expired records were last looked for, milliseconds

	mu     sync.RWMutex
	shards map[driver.ShardID]*shard
	closed bool
}

type shard struct {
	mu        sync.Mutex
	batches   []driver.StoredBatch // in order; immutable, but for dropping at the front
	first     driver.Index         // readable from here, maybe within batches[0]
	next      driver.Index
	lastAt    int64
	retention int64 // milliseconds, 0 = no end
}

// New makes an empty engine.
func New(o Options) driver.Driver {
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{now: o.Now, maxBytes: o.MaxBytes, shards: make(map[driver.ShardID]*shard)}
	e.swept.Store(e.now().UnixMilli())
	return e
}

func (e *Engine) Notify(f func(driver.ShardID, driver.Index, int64)) { e.notify = f }

func (e *Engine) Create(ctx context.Context, shards []driver.Shard) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return driver.ErrClosed
	}
	for i, s := range shards {
		if _, ok := e.shards[s.ID]; ok {
			for _, made := range shards[:i] {
				delete(e.shards, made.ID)
			}
			return fmt.Errorf("shard %d: %w", s.ID, driver.ErrExists)
		}
		e.shards[s.ID] = &shard{first: 1, next: 1, lastAt: s.NotBefore, retention: s.Retention.Milliseconds()}
	}
	return nil
}

func (e *Engine) SetRetention(ctx context.Context, retention time.Duration, ids ...driver.ShardID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	shards, err := e.lookupRLocked(ids...)
	if err != nil {
		return err
	}
	now := e.now().UnixMilli()
	for _, s := range shards {
		s.mu.Lock()
		s.retention = retention.Milliseconds()
		e.used.Add(-s.expireLocked(now))
		s.mu.Unlock()
	}
	return nil
}

func (e *Engine) Append(ctx context.Context, batches []*driver.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.store(batches); err != nil {
		return err
	}
	if e.notify == nil {
		return nil
	}
	for _, b := range batches {
		if b.Err == nil {
			e.notify(b.Shard, b.Base+driver.Index(b.Count), b.At)
		}
	}
	return nil
}

func (e *Engine) store(batches []*driver.Batch) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return driver.ErrClosed
	}
	var size int64
	for _, b := range batches {
		if b.Err = e.checkRLocked(b); b.Err == nil {
			size += int64(b.Size) + batchOverhead
		}
	}
	now := e.now().UnixMilli()
	if swept := e.swept.Load(); now-swept >= sweepEvery.Milliseconds() && e.swept.CompareAndSwap(swept, now) {
		e.sweepRLocked(now)
	}
	if !e.reserveRLocked(size, now) {
		return driver.ErrFull
	}
	for _, b := range batches {
		if b.Err == nil {
			e.storeRLocked(b, now)
		}
	}
	return nil
}

func (e *Engine) checkRLocked(b *driver.Batch) error {
	switch _, ok := e.shards[b.Shard]; {
	case b.Size > driver.MaxBatchBytes || b.Count > driver.MaxBatchRecords:
		return driver.ErrTooLarge
	case b.Size < 1 || b.Count < 1:
		return errEmpty
	case !ok:
		return driver.ErrNotFound
	}
	return nil
}

// reserveRLocked counts size bytes as used, if the bound allows it.
func (e *Engine) reserveRLocked(size, now int64) bool {
	if e.used.Add(size) <= e.maxBytes || e.maxBytes <= 0 {
		return true
	}
	e.sweepRLocked(now)
	if e.used.Load() <= e.maxBytes {
		return true
	}
	e.used.Add(-size)
	return false
}

// sweepRLocked drops expired records of all shards.
func (e *Engine) sweepRLocked(now int64) {
	for _, s := range e.shards {
		s.mu.Lock()
		e.used.Add(-s.expireLocked(now))
		s.mu.Unlock()
	}
}

func (e *Engine) storeRLocked(b *driver.Batch, now int64) {
	s := e.shards[b.Shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	b.Base, b.At = s.next, max(now, s.lastAt)
	payload := make([]byte, b.Size)
	b.Payload.Encode(payload, b.Base, b.At)
	e.used.Add(-s.expireLocked(now))
	s.batches = append(s.batches, driver.StoredBatch{Base: b.Base, Count: b.Count, At: b.At, Payload: payload})
	s.next += driver.Index(b.Count)
	s.lastAt = b.At
}

func (e *Engine) Read(ctx context.Context, id driver.ShardID, from driver.Index, maxBytes int, buf []byte) ([]driver.StoredBatch, []byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, buf, err
	}
	s, err := e.lookup(id)
	if err != nil {
		return nil, buf, err
	}
	batches, size := s.choose(from, maxBytes)
	// The payloads are immutable, so that they can be copied without the lock;
	// into a buffer that does not move any more.
	buf = slices.Grow(buf, size)
	for i := range batches {
		start := len(buf)
		buf = append(buf, batches[i].Payload...)
		batches[i].Payload = buf[start:len(buf):len(buf)]
	}
	return batches, buf, nil
}

// choose returns copies of the descriptors that Read is to return, and the
// bytes of their payloads.
func (s *shard) choose(from driver.Index, maxBytes int) (batches []driver.StoredBatch, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from = max(from, s.first)
	start := sort.Search(len(s.batches), func(i int) bool { return s.batches[i].Next() > from })
	end := start
	for end < len(s.batches) {
		n := len(s.batches[end].Payload)
		if end > start && size+n > maxBytes {
			break
		}
		size += n
		end++
	}
	return slices.Clone(s.batches[start:end]), size
}

func (e *Engine) Bounds(ctx context.Context, id driver.ShardID) (driver.Bounds, error) {
	if err := ctx.Err(); err != nil {
		return driver.Bounds{}, err
	}
	s, err := e.lookup(id)
	if err != nil {
		return driver.Bounds{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return driver.Bounds{First: s.first, Next: s.next, LastAt: s.lastAt}, nil
}

func (e *Engine) FirstAt(ctx context.Context, id driver.ShardID, at int64) (driver.Index, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s, err := e.lookup(id)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := sort.Search(len(s.batches), func(i int) bool { return s.batches[i].At >= at })
	if i == len(s.batches) {
		return s.next, nil
	}
	return max(s.batches[i].Base, s.first), nil
}

func (e *Engine) Truncate(ctx context.Context, id driver.ShardID, before driver.Index) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := e.lookup(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.used.Add(-s.truncateLocked(before))
	return nil
}

func (e *Engine) Delete(ctx context.Context, ids ...driver.ShardID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return driver.ErrClosed
	}
	for _, id := range ids {
		s, ok := e.shards[id]
		if !ok {
			continue
		}
		delete(e.shards, id)
		s.mu.Lock()
		e.used.Add(-s.truncateLocked(s.next))
		s.mu.Unlock()
	}
	return nil
}

func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.shards = nil
	return nil
}

func (e *Engine) lookup(id driver.ShardID) (*shard, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	shards, err := e.lookupRLocked(id)
	if err != nil {
		return nil, err
	}
	return shards[0], nil
}

func (e *Engine) lookupRLocked(ids ...driver.ShardID) ([]*shard, error) {
	if e.closed {
		return nil, driver.ErrClosed
	}
	shards := make([]*shard, len(ids))
	for i, id := range ids {
		s, ok := e.shards[id]
		if !ok {
			return nil, fmt.Errorf("shard %d: %w", id, driver.ErrNotFound)
		}
		shards[i] = s
	}
	return shards, nil
}

// expireLocked drops batches whose retention is over and returns the bytes
// that this gives back.
func (s *shard) expireLocked(now int64) int64 {
	if s.retention == 0 || len(s.batches) == 0 || s.batches[0].At+s.retention > now {
		return 0
	}
	i := sort.Search(len(s.batches), func(i int) bool { return s.batches[i].At+s.retention > now })
	return s.truncateLocked(s.batches[i-1].Next())
}

// truncateLocked makes records before the index unreadable and returns the
// bytes that this gives back: those of batches that are unreadable to the last
// record.
func (s *shard) truncateLocked(before driver.Index) (freed int64) {
	s.first = max(s.first, min(before, s.next))
	n := sort.Search(len(s.batches), func(i int) bool { return s.batches[i].Next() > s.first })
	for _, b := range s.batches[:n] {
		freed += int64(len(b.Payload)) + batchOverhead
	}
	clear(s.batches[:n])
	s.batches = s.batches[n:]
	// Appending moves the rest to a slice of its own size once the room behind
	// it is used up; a shard that ran empty gives its slice back at once.
	if len(s.batches) == 0 {
		s.batches = nil
	}
	return freed
}
