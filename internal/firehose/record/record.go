// Package record is what moves through a delivery stream: records, where they
// stand in their source, and sealed batches of them.
//
// The one idea: a record knows its place, so that everything that is said about
// it later (what was delivered, what failed, where to begin again) is said in
// places, not in copies. Nothing here does I/O by itself: a batch reads its
// records through a function that whoever buffered them provides.
package record

import (
	"cmp"
	"time"
)

// Lane is one ordered part of a source: the internal shard log of a delivery
// stream that is put to directly, a shard of a data stream, or a partition of a
// topic.
type Lane interface {
	// Name is the lane's name in texts: "shardId-000000000003", a partition's number.
	Name() string
	// SequenceNumber names a record of the lane to people and functions.
	SequenceNumber(index uint64, arrival int64) string
}

// Position is a place in a lane. Sub counts the parts of one stored record: user
// records of an aggregate, log events, sub-records.
type Position struct {
	Index uint64
	Sub   uint32
}

// Compare orders positions of one lane.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Index, q.Index); c != 0 {
		return c
	}
	return cmp.Compare(p.Sub, q.Sub)
}

// Record is one record on its way. Its bytes are valid until the function it was
// handed to returns, unless that function says otherwise.
type Record struct {
	Data    []byte
	Arrival int64 // approximate arrival in milliseconds since 1970
	Lane    Lane
	Position
	// PartitionKey is the data stream's or the topic's key; nil for direct puts.
	PartitionKey []byte
	// Original is what arrived, where an error output must show that instead of
	// Data (compressed bytes after Decompression); nil if it is Data.
	Original []byte
	// Keys are the partition keys that functions and queries found.
	Keys *Keys
	// Table routes the record to a table and says what to do there; nil leaves it
	// to the destination's configuration.
	Table *Table
}

// Keys are the partition keys of a record, by namespace.
type Keys struct {
	Query    map[string]string // partitionKeyFromQuery
	Function map[string]string // partitionKeyFromLambda
}

// Table is a record's place in an open table format.
type Table struct {
	Database, Name string
	Operation      string // insert, update, delete; empty is insert
}

// Stream says on whose behalf a batch travels.
type Stream struct {
	ARN, Name, Account, Region string
	Version                    int // of the destination's configuration
	SourceARN                  string
}

// Hints say when a buffer is sealed: at so many bytes or after so long,
// whichever comes first.
type Hints struct {
	Bytes    int64
	Interval time.Duration
}

// Batch is a sealed buffer: records of one lane (or, where Partition is set, of
// one partition of the delivery stream), ready for a destination.
type Batch struct {
	Stream Stream
	// ID is 32 hexadecimal digits that depend on the first record's place and
	// the destination's version alone: the same after a crash, so that what is
	// named after it overwrites itself.
	ID        string
	Partition string // the evaluated prefix; empty without dynamic partitioning
	Keys      *Keys  // those of the partition
	Lane      Lane   // of the first record
	First     Position
	Last      Position
	Oldest    int64 // smallest arrival, in milliseconds since 1970
	Newest    int64
	Count     int
	Bytes     int64 // of all Data
	// Attempt counts deliveries of this batch from 1; FirstAttempt is when the
	// first of them began.
	Attempt      int
	FirstAttempt time.Time

	each func(func(i int, r *Record) error) error
}

// NewBatch makes a batch of what each yields; the caller fills in the rest. each
// can be called any number of times, also concurrently, and yields the same
// records in the same order; it ends with the first error of its argument.
func NewBatch(each func(func(i int, r *Record) error) error) *Batch {
	return &Batch{each: each}
}

// Of makes a batch of records at hand and fills in what follows from them.
func Of(stream Stream, id string, records ...Record) *Batch {
	b := NewBatch(func(f func(int, *Record) error) error {
		for i := range records {
			r := records[i]
			if err := f(i, &r); err != nil {
				return err
			}
		}
		return nil
	})
	b.Stream, b.ID, b.Count, b.Attempt = stream, id, len(records), 1
	for i, r := range records {
		if i == 0 {
			b.Lane, b.First, b.Oldest, b.Newest, b.Keys = r.Lane, r.Position, r.Arrival, r.Arrival, r.Keys
		}
		b.Last, b.Oldest, b.Newest = r.Position, min(b.Oldest, r.Arrival), max(b.Newest, r.Arrival)
		b.Bytes += int64(len(r.Data))
	}
	return b
}

// Each calls f for every record, i counting from 0. The record and its bytes are
// valid until f returns. It ends with f's first error, or that of reading what
// was buffered.
func (b *Batch) Each(f func(i int, r *Record) error) error { return b.each(f) }

// Subset is the batch of the records at the given indexes, which are in order,
// under the same name.
func (b *Batch) Subset(indexes []int) *Batch {
	s := *b
	s.Count, s.Bytes = len(indexes), 0
	at := map[int]int{}
	for n, i := range indexes {
		at[i] = n
	}
	s.each = func(f func(int, *Record) error) error {
		return b.each(func(i int, r *Record) error {
			n, ok := at[i]
			if !ok {
				return nil
			}
			return f(n, r)
		})
	}
	first := true
	// The sizes of what was buffered once can be had again; an error shows when
	// the subset is read.
	_ = s.each(func(_ int, r *Record) error {
		if first {
			s.First, s.Oldest, s.Newest, first = r.Position, r.Arrival, r.Arrival, false
		}
		s.Last, s.Oldest, s.Newest = r.Position, min(s.Oldest, r.Arrival), max(s.Newest, r.Arrival)
		s.Bytes += int64(len(r.Data))
		return nil
	})
	return &s
}
