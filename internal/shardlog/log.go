// Package shardlog is the log that services and metadata use: many ordered,
// durable, append-only sequences of records, known by number.
//
// The one idea: a driver stores batches and reports when they are durable;
// everything that is the same for every driver is written here once, around
// it. That is
//
//   - admission: the bytes of appends in flight have a bound, and whoever
//     comes later waits in order (Append);
//   - fencing: a shard can be closed to appends, and the one who closes it
//     learns when the last append before it is over (Fence);
//   - tailing: any number of readers wait for one shard at the price of one
//     channel (Tail);
//   - framing: how records lie inside a batch (Records, docs/formats/record-batch.md).
//
// # What is not done here
//
// Grouping commits, files, checksums and recovery are the driver's. What a
// record means, when it becomes invisible and how it is numbered for clients is
// the caller's. There is no cache of a shard's bounds: a driver keeps them in
// memory for every shard that is written or read, and a second copy could only
// be wrong. A fence is memory only; that a shard is closed for good is for the
// caller to store.
//
// # Locks
//
// Fences and tails are each spread over stripes with a mutex of their own. No
// two of these mutexes are ever held together, and none is held while the
// driver is called or a channel is waited for, so there is no order to keep: a
// driver may call back from under its own locks.
//
// # What an idle shard costs
//
// Nothing. An entry for a shard exists only while an append to it is in
// flight, while it is fenced, or while somebody waits for it.
package shardlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// ErrFenced is the Err of a batch whose shard is fenced. Nothing of it was
// stored.
var ErrFenced = errors.New("shard log: shard is fenced")

// DefaultMaxInflightBytes is used when Options leaves the bound open: room for
// a dozen requests of the largest size.
const DefaultMaxInflightBytes = 128 << 20

// Options of a Log. The zero value is usable.
type Options struct {
	// Now is the clock for durations and for forgetting waiters that went away;
	// time.Now if nil. Arrival times are the driver's clock.
	Now func() time.Time
	// MaxInflightBytes bounds the payload bytes of all appends in flight;
	// DefaultMaxInflightBytes if zero.
	MaxInflightBytes int64
	// Metrics is told what happened; nil tells nobody.
	Metrics Metrics
}

// Metrics receives measurements. Methods are called concurrently, after the
// fact and outside all locks; they must not block.
type Metrics interface {
	// AppendDone reports one Append that reached the driver: how many batches,
	// records and payload bytes were stored, how long the driver took and how
	// it failed as a whole. Batches that carry an Err of their own are not
	// counted.
	AppendDone(batches, records int, bytes int64, took time.Duration, err error)
	// AppendWaited reports that an Append had to wait for others to finish
	// before it was admitted, for how long, and the context's error if it gave
	// up.
	AppendWaited(waited time.Duration, err error)
}

// Log is a driver with admission, fencing and tailing. All methods may be
// called concurrently. Errors of the driver are passed on wrapped.
type Log struct {
	driver  driver.Driver
	now     func() time.Time
	metrics Metrics

	inflight    *semaphore.Weighted
	maxInflight int64

	fences fences
	tails  tails
}

// New makes a Log over d, which it owns from now on: Close closes it. It must
// be called before the first append to d.
func New(d driver.Driver, o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxInflightBytes <= 0 {
		o.MaxInflightBytes = DefaultMaxInflightBytes
	}
	l := &Log{
		driver:      d,
		now:         o.Now,
		metrics:     o.Metrics,
		inflight:    semaphore.NewWeighted(o.MaxInflightBytes),
		maxInflight: o.MaxInflightBytes,
	}
	l.tails.now = o.Now
	d.Notify(func(shard driver.ShardID, _ driver.Index, _ int64) { l.tails.wake(shard) })
	return l
}

// Create makes empty shards, all or none, durable at return.
// driver.ErrExists if one is there already.
func (l *Log) Create(ctx context.Context, shards []driver.Shard) error {
	if err := l.driver.Create(ctx, shards); err != nil {
		return fmt.Errorf("create %d shards: %w", len(shards), err)
	}
	return nil
}

// SetRetention changes how long the records of shards must stay readable,
// those already stored included. Zero keeps them until Truncate.
func (l *Log) SetRetention(ctx context.Context, retention time.Duration, shards ...driver.ShardID) error {
	if err := l.driver.SetRetention(ctx, retention, shards...); err != nil {
		return fmt.Errorf("set retention of %d shards: %w", len(shards), err)
	}
	return nil
}

// Append stores batches and returns when all of them are durable, with the
// guarantees of driver.Driver.Append. On top of them it waits, in order of
// arrival and as long as ctx allows, until the bytes in flight leave room; and
// a batch for a fenced shard gets ErrFenced as its Err, while the others are
// stored.
//
// An append bigger than the whole bound is admitted when it is alone.
func (l *Log) Append(ctx context.Context, batches []*driver.Batch) error {
	if len(batches) == 0 {
		return nil
	}
	admitted, err := l.admit(ctx, batches)
	if err != nil {
		return fmt.Errorf("wait for appends in flight: %w", err)
	}
	defer l.inflight.Release(admitted)

	// The fence is passed after admission: a Fence waits for stores only,
	// never for the queue before them.
	entered := l.fences.enter(batches)
	if len(entered) == 0 {
		return nil
	}
	defer l.fences.leave(entered)

	start := l.now()
	err = l.driver.Append(ctx, entered)
	if l.metrics != nil {
		l.report(entered, l.now().Sub(start), err)
	}
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	return nil
}

// admit waits until the batches fit into the bound and returns what to release
// afterwards.
func (l *Log) admit(ctx context.Context, batches []*driver.Batch) (int64, error) {
	var size int64
	for _, b := range batches {
		// A size out of range earns its batch an error from the driver, later;
		// here it must only not upset the sum.
		size += int64(min(max(b.Size, 0), driver.MaxBatchBytes))
	}
	size = min(size, l.maxInflight)
	if l.inflight.TryAcquire(size) {
		return size, nil
	}
	start := l.now()
	err := l.inflight.Acquire(ctx, size)
	if l.metrics != nil {
		l.metrics.AppendWaited(l.now().Sub(start), err)
	}
	return size, err
}

func (l *Log) report(batches []*driver.Batch, took time.Duration, err error) {
	var stored, records int
	var bytes int64
	if err == nil {
		for _, b := range batches {
			if b.Err == nil {
				stored++
				records += b.Count
				bytes += int64(b.Size)
			}
		}
	}
	l.metrics.AppendDone(stored, records, bytes, took, err)
}

// Fence closes a shard to appends and returns when none to it is in flight any
// more, so that its Next stays what Bounds says from then on. Later appends get
// ErrFenced until Unfence or Delete. Fencing a shard twice is no error.
//
// A shard has one owner who fences it: if ctx ends first, the shard is left as
// it was before the call, whatever others meanwhile relied on.
func (l *Log) Fence(ctx context.Context, id driver.ShardID) error {
	if err := l.fences.fence(ctx, id); err != nil {
		return fmt.Errorf("fence shard %d: %w", id, err)
	}
	return nil
}

// Unfence opens a fenced shard to appends again. Shards that are not fenced
// are left alone.
func (l *Log) Unfence(id driver.ShardID) { l.fences.unfence(id) }

// Bounds returns the readable range of a shard and the arrival time of its
// newest record. Drivers answer from memory for shards in use.
func (l *Log) Bounds(ctx context.Context, id driver.ShardID) (driver.Bounds, error) {
	b, err := l.driver.Bounds(ctx, id)
	if err != nil {
		return driver.Bounds{}, fmt.Errorf("bounds of shard %d: %w", id, err)
	}
	return b, nil
}

// FirstAt returns the index of the first readable record that arrived at or
// after at (milliseconds since 1970), or Next if there is none.
func (l *Log) FirstAt(ctx context.Context, id driver.ShardID, at int64) (driver.Index, error) {
	index, err := l.driver.FirstAt(ctx, id, at)
	if err != nil {
		return 0, fmt.Errorf("find arrival time in shard %d: %w", id, err)
	}
	return index, nil
}

// Read appends to buf whole stored batches of the shard, as
// driver.Driver.Read: the first one may begin before from, payloads point into
// the returned buffer, no batches and no error means that there is nothing at
// or after from yet.
func (l *Log) Read(ctx context.Context, id driver.ShardID, from driver.Index, maxBytes int, buf []byte) ([]driver.StoredBatch, []byte, error) {
	batches, buf, err := l.driver.Read(ctx, id, from, maxBytes, buf)
	if err != nil {
		return nil, buf, fmt.Errorf("read shard %d from index %d: %w", id, from, err)
	}
	return batches, buf, nil
}

// Truncate makes records before the index unreadable; see
// driver.Driver.Truncate.
func (l *Log) Truncate(ctx context.Context, id driver.ShardID, before driver.Index) error {
	if err := l.driver.Truncate(ctx, id, before); err != nil {
		return fmt.Errorf("truncate shard %d before index %d: %w", id, before, err)
	}
	return nil
}

// Delete drops shards with their records and fences, durable at return, and
// wakes whoever waits for them. Unknown numbers are ignored.
func (l *Log) Delete(ctx context.Context, ids ...driver.ShardID) error {
	if err := l.driver.Delete(ctx, ids...); err != nil {
		return fmt.Errorf("delete %d shards: %w", len(ids), err)
	}
	for _, id := range ids {
		l.fences.unfence(id)
		l.tails.wake(id)
	}
	return nil
}

// Tail returns a shard's Next and a channel that is closed when there may be
// more: at an append that becomes readable, or at the shard's deletion or the
// log's end, after the call. For a shard that is not there, next is 0 and the
// channel is closed already, so that the caller's next Read tells it why.
//
// No wake-up is lost. The channel is in place before next is read, and a driver
// reports an append only after it has become readable: an append that next does
// not include is reported later than next was read, hence to this channel. An
// append in between is in next and closes the channel as well, which costs the
// caller one look for nothing.
//
// A wake-up is therefore a hint: look, then call Tail again. Waiters that
// stopped waiting need not say so. All waiters of a shard share one channel,
// and a channel older than a minute or so may be closed for no other reason
// than to find out whether anybody still cares: those who do come back.
func (l *Log) Tail(id driver.ShardID) (next driver.Index, changed <-chan struct{}) {
	changed = l.tails.wait(id)
	bounds, err := l.driver.Bounds(context.Background(), id)
	if err != nil {
		// Wakes others who tail the shard, too; they shall learn of it as well.
		l.tails.wake(id)
		return 0, closed
	}
	return bounds.Next, changed
}

// Close ends the driver, waits for it and wakes all who tail. It may be called
// twice.
func (l *Log) Close() error {
	err := l.driver.Close()
	l.tails.wakeAll()
	if err != nil {
		return fmt.Errorf("close shard log: %w", err)
	}
	return nil
}
