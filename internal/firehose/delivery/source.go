package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// StreamSource reads data streams.
type StreamSource interface {
	// OpenStream finds a stream.
	OpenStream(ctx context.Context, arn string) (Stream, error)
}

// Stream is one data stream, open for reading.
type Stream interface {
	// ID is unique among all streams that ever were.
	ID() uint64
	// Shards lists the shards that can be read, in the order of their numbers.
	Shards(ctx context.Context) ([]Shard, error)
	// Resharded is closed when Shards may have changed after the call, or a shard
	// was closed.
	Resharded() <-chan struct{}
	// Gone is closed when the stream is deleted.
	Gone() <-chan struct{}
	// At is the index of the first record of a shard that arrived at or after at.
	At(ctx context.Context, shard uint32, at time.Time) (uint64, error)
	// Read fills run with records of a shard from an index on: about maxBytes of
	// data but one record in any case, if one is there.
	Read(ctx context.Context, shard uint32, from uint64, maxBytes int, run *Run) error
	// Tail returns the index that the shard's next record will have, and a channel
	// that is closed when there may be more.
	Tail(shard uint32) (next uint64, changed <-chan struct{})
	// SequenceNumber names a record of a shard.
	SequenceNumber(shard uint32, index uint64, arrival int64) string
	// Hash is the place of a key in the hash space, and Explicit that of a hash key
	// in decimal.
	Hash(partitionKey string) [16]byte
	Explicit(hashKey string) ([16]byte, bool)
}

// Shard is one shard of a data stream.
type Shard struct {
	Number     uint32
	Name       string
	Parents    []uint32
	Start, End [16]byte // hash key range, big endian, inclusive
}

// Run is what one read gave. Its memory is used again by the next.
type Run struct {
	Records []RunRecord
	Next    uint64 // index behind what was looked at
	// End says that nothing follows, ever: a closed shard was read to its end.
	End bool
	// Lost counts records between the wanted index and the first one that is
	// still stored.
	Lost uint64
	// Page is the reader's own memory, kept from read to read.
	Page any

	buf []byte
}

// RunRecord is one record as it is stored in its source.
type RunRecord struct {
	Index        uint64
	Arrival      int64 // milliseconds since 1970
	PartitionKey []byte
	Data         []byte
}

// source is what a lane is read from.
type source interface {
	read(ctx context.Context, from uint64, maxBytes int, run *Run) error
	// tail is the index that the next record will have, and what is closed when
	// there may be more.
	tail() (next uint64, changed <-chan struct{})
	// ending is closed when the source may have come to its end; nil if it has none.
	ending() <-chan struct{}
	number(index uint64, arrival int64) string
}

// direct is the log of a delivery stream that is put to directly.
type direct struct {
	log     *shardlog.Log
	ring    *keyring.Ring
	shard   driver.ShardID
	created int64 // seconds since 1970

	mu  sync.Mutex
	key *keyring.ShardKey // the one used last
}

// directLane is the name of the one lane of direct puts.
const directLane = "shardId-000000000000"

// The stored form of a direct put: docs/formats/delivery.md.
const (
	directVersion = 1
	directSealed  = 1
	directKeySize = 12
)

var errDirect = errors.New("stored record of a delivery stream is damaged")

func (d *direct) sealing(id string) (*keyring.ShardKey, error) {
	if d.ring == nil {
		return nil, errors.New("delivery: no key ring to seal records with")
	}
	k, err := d.ring.DataKey(id)
	if err != nil {
		return nil, err
	}
	return d.shardKey(k), nil
}

func (d *direct) shardKey(k *keyring.Key) *keyring.ShardKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.key == nil || d.key.ID != k.ID || d.key.Version != k.Version {
		d.key = k.Shard(uint64(d.shard))
	}
	return d.key
}

// directPut is the payload of a batch of direct puts.
type directPut struct {
	shard   driver.ShardID
	records [][]byte
	key     *keyring.ShardKey // nil: stored as they are
}

func (p *directPut) sizeOf(r []byte) int {
	if p.key == nil {
		return 1 + len(r)
	}
	return 1 + directKeySize + len(r) + keyring.Overhead
}

func (p *directPut) size() int {
	n := 0
	for _, r := range p.records {
		n += shardlog.FrameSize(p.sizeOf(r))
	}
	return n
}

// Encode writes the records into the log's memory.
func (p *directPut) Encode(dst []byte, base driver.Index, at int64) {
	var bound [17 + directKeySize]byte
	for i, r := range p.records {
		dst = dst[shardlog.PutFrame(dst, p.sizeOf(r)):]
		n := 1
		dst[0] = directVersion << 4
		if p.key == nil {
			n += copy(dst[n:], r)
		} else {
			dst[0] |= directSealed
			binary.BigEndian.PutUint64(dst[1:], p.key.ID)
			binary.BigEndian.PutUint32(dst[9:], p.key.Version)
			n += directKeySize
			index := uint64(base) + uint64(i)
			n += len(p.key.Seal(dst[n:n:n+len(r)+keyring.Overhead], r, index, at, directBound(bound[:0], p.shard, index, dst[:n])))
		}
		dst = dst[n:]
	}
}

func directBound(dst []byte, shard driver.ShardID, index uint64, header []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(shard))
	dst = binary.BigEndian.AppendUint64(dst, index)
	return append(dst, header...)
}

func (d *direct) read(ctx context.Context, from uint64, maxBytes int, run *Run) error {
	clear(run.Records)
	run.Records, run.Next, run.End, run.Lost = run.Records[:0], from, false, 0
	batches, buf, err := d.log.Read(ctx, d.shard, driver.Index(from), maxBytes, run.buf[:0])
	run.buf = buf
	if err != nil {
		return err
	}
	for _, b := range batches {
		if uint64(b.Base) > run.Next {
			run.Lost += uint64(b.Base) - run.Next
			run.Next = uint64(b.Base)
		}
		for stored, err := range shardlog.Records(b) {
			if err != nil {
				return err
			}
			if uint64(stored.Index) < run.Next {
				continue
			}
			data, err := d.open(stored.Data, uint64(stored.Index), b.At)
			if err != nil {
				return fmt.Errorf("record %d: %w", stored.Index, err)
			}
			run.Records = append(run.Records, RunRecord{Index: uint64(stored.Index), Arrival: b.At, Data: data})
			run.Next = uint64(stored.Index) + 1
		}
	}
	if len(batches) > 0 {
		return nil
	}
	// What is missing behind the last batch has expired, or a repair left it out.
	bounds, err := d.log.Bounds(ctx, d.shard)
	if err != nil {
		return err
	}
	first, next := uint64(bounds.First), uint64(bounds.Next)
	switch {
	case first > from:
		run.Lost, run.Next = first-from, first
	case from < next:
		// Either something has come since, or what is missing was left out.
		more, buf, err := d.log.Read(ctx, d.shard, driver.Index(from), 1, run.buf[:0])
		if run.buf = buf; err != nil {
			return err
		}
		if len(more) == 0 {
			run.Lost, run.Next = next-from, next
		}
	}
	return nil
}

// backlog counts the bytes of direct puts that are not settled.
type backlog struct {
	bytes int64
	puts  []backlogPut
}

// backlogPut is what one put added, or several that were merged.
type backlogPut struct {
	last  uint64 // index of its last record
	bytes int64
}

// maxBacklogPuts bounds the memory: when there are more, neighbours are merged,
// and are settled together.
const maxBacklogPuts = 4096

func (b *backlog) add(last uint64, bytes int64) {
	b.bytes += bytes
	if len(b.puts) >= maxBacklogPuts {
		// Two neighbours that are left have more than the limit together, so at most
		// half of the places are.
		kept, limit := b.puts[:0], b.bytes*4/maxBacklogPuts
		for _, p := range b.puts {
			if n := len(kept); n > 0 && kept[n-1].bytes+p.bytes <= limit {
				kept[n-1] = backlogPut{p.last, kept[n-1].bytes + p.bytes}
				continue
			}
			kept = append(kept, p)
		}
		b.puts = kept
	}
	b.puts = append(b.puts, backlogPut{last, bytes})
}

// settle takes out what is below low.
func (b *backlog) settle(low uint64) {
	for len(b.puts) > 0 && b.puts[0].last < low {
		b.bytes -= b.puts[0].bytes
		b.puts = b.puts[1:]
	}
}

func (d *direct) open(b []byte, index uint64, at int64) ([]byte, error) {
	if len(b) == 0 || b[0]>>4 == 0 || b[0]&15&^directSealed != 0 {
		return nil, errDirect
	}
	if b[0]>>4 > directVersion {
		return nil, driver.ErrNewerVersion
	}
	if b[0]&directSealed == 0 {
		return b[1:], nil
	}
	if len(b) < 1+directKeySize+keyring.Overhead {
		return nil, errDirect
	}
	if d.ring == nil {
		return nil, errors.New("no key ring to open records with")
	}
	id, version := binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint32(b[9:])
	k, err := d.ring.DataKeyVersion(id, version)
	if err != nil {
		return nil, err
	}
	var bound [17 + directKeySize]byte
	header, sealed := b[:1+directKeySize], b[1+directKeySize:]
	return d.shardKey(k).Open(sealed[:0], sealed, index, at, directBound(bound[:0], d.shard, index, header))
}

func (d *direct) tail() (uint64, <-chan struct{}) {
	next, changed := d.log.Tail(d.shard)
	return uint64(next), changed
}

func (d *direct) ending() <-chan struct{} { return nil }

func (d *direct) number(index uint64, arrival int64) string {
	return number(d.created, index, arrival)
}

// shardSource is one shard of a data stream.
type shardSource struct {
	stream Stream
	shard  Shard
}

func (s *shardSource) read(ctx context.Context, from uint64, maxBytes int, run *Run) error {
	return s.stream.Read(ctx, s.shard.Number, from, maxBytes, run)
}

func (s *shardSource) tail() (uint64, <-chan struct{}) { return s.stream.Tail(s.shard.Number) }

func (s *shardSource) ending() <-chan struct{} { return s.stream.Resharded() }

func (s *shardSource) number(index uint64, arrival int64) string {
	return s.stream.SequenceNumber(s.shard.Number, index, arrival)
}
