package delivery

import (
	"context"
	"time"
)

// StreamSource reads data streams.
type StreamSource interface {
	// OpenStream finds a stream. The error is for good if the stream does not
	// exist.
	OpenStream(ctx context.Context, arn string) (Stream, error)
}

// Stream is one data stream, open for reading.
type Stream interface {
	// Shards lists the shards that can be read, in the order of their numbers, and
	// gives a channel that is closed when the list may have changed, or that a
	// shard was closed.
	Shards(ctx context.Context) ([]Shard, <-chan struct{}, error)
	// At is the index of the first record of a shard that arrived at or after at.
	At(ctx context.Context, shard uint32, at time.Time) (uint64, error)
	// Read appends records of a shard from an index on to run: up to maxBytes of
	// data but one record in any case, if one is there.
	Read(ctx context.Context, shard uint32, from uint64, maxBytes int, run *Run) error
	// Tail returns the index that the shard's next record will have, and a channel
	// that is closed when there may be more.
	Tail(shard uint32) (next uint64, changed <-chan struct{})
	// Gone is closed when the stream is deleted.
	Gone() <-chan struct{}
	// SequenceNumber names a record of a shard.
	SequenceNumber(shard uint32, index uint64, arrival int64) string
}

// Shard is one shard of a data stream.
type Shard struct {
	Number     uint32
	Name       string
	Parents    []uint32
	Start, End [16]byte // hash key range, inclusive
}

// Run is what one read gave. Its memory is used again by the next.
type Run struct {
	Records []RunRecord
	Buffer  []byte // what the records point into
	Next    uint64 // index behind what was looked at
	Tail    uint64 // index that the next record of the lane will have
	// End says that nothing follows, ever: a closed shard was read to its end.
	End bool
	// Lost counts records between the wanted index and the first one that is
	// still stored.
	Lost uint64
}

// RunRecord is one record as it is stored in its source.
type RunRecord struct {
	Index        uint64
	Arrival      int64 // milliseconds since 1970
	PartitionKey []byte
	Data         []byte
}

// Topics says where Kafka topics are.
type Topics struct {
	// Brokers maps cluster ARNs to bootstrap servers.
	Brokers map[string][]string
}
