// Package driver is the contract between a shard log and the engine that
// stores it.
//
// A shard log is an ordered, durable, append-only sequence of records. An
// engine keeps many of them, knows them by number, and stores records in
// batches: a batch is one shard's share of one request, opaque bytes with a
// record count, a base index and one arrival time. An engine never looks into
// a batch. What records look like inside, who waits for them and when they
// become invisible is the business of package shardlog, which is what services
// use.
//
// Start reading at Driver. Every implementation passes the suites of
// shardlogtest.
package driver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ShardID names a shard log inside one engine. Callers allot the numbers and
// never use one twice, not even after Delete.
type ShardID uint64

// Index is a record's place in its shard log. The first record has index 1 and
// every further one the next number, without gaps. Zero is before the first.
type Index uint64

const (
	// MaxBatchBytes bounds Batch.Size: a 10 MiB request with its framing, or a
	// metadata transaction, fits well.
	MaxBatchBytes = 16 << 20
	// MaxBatchRecords bounds Batch.Count.
	MaxBatchRecords = 1 << 16
)

// Sentinels that drivers return, wrapped or bare.
var (
	ErrClosed   = errors.New("shard log: closed")
	ErrNotFound = errors.New("shard log: no such shard")
	ErrExists   = errors.New("shard log: shard exists")
	// ErrFull means that the disk is below its low watermark. Nothing was
	// stored; the same append succeeds once there is space. Reads go on.
	ErrFull = errors.New("shard log: disk full")
	// ErrReadOnly means that storing failed in a way that writing on could
	// make worse. Reads go on; only a restart ends the state.
	ErrReadOnly = errors.New("shard log: read-only after a failed write")
	// ErrTooLarge means a batch over MaxBatchBytes or MaxBatchRecords.
	ErrTooLarge = errors.New("shard log: batch too large")
	// ErrNewerVersion means data written by a newer release.
	ErrNewerVersion = errors.New("shard log: data was written by a newer version")
)

// CorruptError reports stored bytes that do not match their checksum or their
// format. The bytes are never served.
type CorruptError struct {
	File   string // path within the data directory
	Offset int64  // byte offset of the damaged unit
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt data in %s at offset %d: %s", e.File, e.Offset, e.Reason)
}

// Shard is what Create needs to know.
type Shard struct {
	ID ShardID
	// Retention is how long records must stay readable. An engine may keep
	// them longer, never shorter. Zero keeps them until Truncate.
	Retention time.Duration
	// NotBefore is a floor for the arrival times the engine assigns,
	// milliseconds since 1970.
	NotBefore int64
}

// Payload writes a batch's bytes into the engine's own memory, which saves a
// copy.
type Payload interface {
	// Encode fills dst, whose length is the batch's Size, completely. base and
	// at are the batch's base index and arrival time. It may run concurrently
	// with other batches' Encode and more than once, must not block, must not
	// fail, and must not keep dst.
	Encode(dst []byte, base Index, at int64)
}

// Bytes is a Payload that is already encoded.
type Bytes []byte

func (b Bytes) Encode(dst []byte, _ Index, _ int64) { copy(dst, b) }

// Batch is one shard's part of an append.
type Batch struct {
	Shard   ShardID
	Count   int // records, 1 to MaxBatchRecords
	Size    int // bytes, 1 to MaxBatchBytes
	Payload Payload

	// Results, set by Append.
	Base Index // index of the batch's first record
	At   int64 // arrival time of all its records, milliseconds since 1970
	Err  error // why this batch was not stored; nil when it was
}

// StoredBatch is a batch as it was stored.
type StoredBatch struct {
	Base    Index
	Count   int
	At      int64
	Payload []byte
}

// Next is the index behind the batch's last record.
func (b *StoredBatch) Next() Index { return b.Base + Index(b.Count) }

// Bounds are the readable range of a shard: [First, Next). They are equal when
// there is nothing to read.
type Bounds struct {
	First, Next Index
	// LastAt is the arrival time of the record before Next, or NotBefore if
	// there never was one.
	LastAt int64
}

// Driver is an engine. All methods may be called concurrently with each other;
// after Close they return ErrClosed.
type Driver interface {
	// Create makes empty shards, all or none, durable at return. It is made for
	// tens of thousands at once. ErrExists if one exists.
	Create(ctx context.Context, shards []Shard) error

	// SetRetention changes the retention of shards; it affects what is still
	// stored.
	SetRetention(ctx context.Context, retention time.Duration, shards ...ShardID) error

	// Append stores batches and returns when all of them are durable. It
	// assigns Base and At: indexes follow each other without gaps in the order
	// the engine takes the batches, batches of one call and one shard in their
	// order in the slice; At is the clock's time but never below the shard's
	// previous At nor its NotBefore.
	//
	// A batch that could not be stored carries its Err (ErrNotFound, ErrTooLarge
	// …) and uses no index; the others are stored. The returned error is for
	// failures of the whole: ErrFull, ErrReadOnly, ErrClosed. After an error of
	// the whole no batch is acknowledged, and a batch may or may not be there
	// after a restart, but entire if it is.
	//
	// A cancelled ctx stops waiting for admission; a batch already taken is
	// waited for.
	Append(ctx context.Context, batches []*Batch) error

	// Read appends to buf whole stored batches of the shard, in order, starting
	// with the one that holds index from, or the first one after it if from is
	// below First. It returns at least one batch if there is one, and then stops
	// before payloads exceed maxBytes. Payloads point into the returned buffer,
	// which is the caller's. No batches and no error: nothing at or after from.
	// A batch is returned only once it is durable. Damage is a *CorruptError.
	Read(ctx context.Context, shard ShardID, from Index, maxBytes int, buf []byte) ([]StoredBatch, []byte, error)

	// Bounds returns the readable range; a record counts once it is durable.
	Bounds(ctx context.Context, shard ShardID) (Bounds, error)

	// FirstAt returns the index of the first readable record with arrival time
	// at or after at, or Next if there is none.
	FirstAt(ctx context.Context, shard ShardID, at int64) (Index, error)

	// Truncate makes records before the index unreadable and lets the engine
	// reuse their space. Going backwards or beyond Next is not an error: the
	// point is clamped. It need not be durable at return: after a crash an older
	// truncation may show again.
	Truncate(ctx context.Context, shard ShardID, before Index) error

	// Delete drops shards and their records, durable at return. Unknown ids are
	// ignored.
	Delete(ctx context.Context, shards ...ShardID) error

	// Notify sets the function called whenever batches of a shard have become
	// durable and readable, before their Append returns. next is the shard's new
	// Next; at the arrival time of the newest record. It is set once, before the
	// first Append, and must not block.
	Notify(func(shard ShardID, next Index, at int64))

	// Close ends all work and returns when nothing runs any more. Appends in
	// flight are stored or fail with ErrClosed. It may be called twice.
	Close() error
}
