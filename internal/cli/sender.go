package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

const (
	maxBatchRecords = 500
	maxBatchBytes   = 4 << 20 // below the service's limit in every release of it
	firstPause      = 50 * time.Millisecond
	longestPause    = 2 * time.Second
)

// sender collects records into PutRecords calls. One call is under way at a
// time and an entry that is refused is sent again before anything that came
// after it, so records of one partition key keep their order.
type sender struct {
	client *client.Client
	stream string
	// sent is told about the records of each successful call.
	sent func(records, bytes int)
	// stored, which may be nil, is told where each record went.
	stored func(*kinesis.PutRecordsRequestEntry, *kinesis.PutRecordsResultEntry) error

	failed  bool // a call has: what is collected cannot be stored
	entries []kinesis.PutRecordsRequestEntry
	bytes   int
}

// add takes ownership of data.
func (s *sender) add(ctx context.Context, key, explicitHashKey string, data []byte) error {
	size := len(data) + len(key)
	if len(s.entries) == maxBatchRecords || len(s.entries) > 0 && s.bytes+size > maxBatchBytes {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	entry := kinesis.PutRecordsRequestEntry{Data: data, PartitionKey: &key}
	if explicitHashKey != "" {
		entry.ExplicitHashKey = &explicitHashKey
	}
	s.entries = append(s.entries, entry)
	s.bytes += size
	return nil
}

// flush sends what is collected and returns when the server has stored it.
func (s *sender) flush(ctx context.Context) error {
	pause := firstPause
	for len(s.entries) > 0 {
		out := &kinesis.PutRecordsOutput{}
		in := &kinesis.PutRecordsInput{StreamName: &s.stream, Records: s.entries}
		if err := s.client.Call(ctx, kinesis.OpPutRecords, in, out); err != nil {
			s.failed = true
			return hint(err, s.stream)
		}
		if len(out.Records) != len(s.entries) {
			return fmt.Errorf("the server answered %d entries to %d records", len(out.Records), len(s.entries))
		}
		var refused []kinesis.PutRecordsRequestEntry
		stored, storedBytes := 0, 0
		for i := range out.Records {
			if out.Records[i].SequenceNumber == nil {
				refused = append(refused, s.entries[i])
				continue
			}
			if s.stored != nil {
				if err := s.stored(&s.entries[i], &out.Records[i]); err != nil {
					return err
				}
			}
			stored++
			storedBytes += len(s.entries[i].Data)
		}
		if s.sent != nil && stored > 0 {
			s.sent(stored, storedBytes)
		}
		if len(refused) == 0 {
			break
		}
		s.entries = refused
		if stored > 0 {
			pause = firstPause
		}
		if err := client.Sleep(ctx, pause/2+rand.N(pause/2)); err != nil {
			return fmt.Errorf("%d records not stored: %w", len(refused), err)
		}
		pause = min(2*pause, longestPause)
	}
	s.entries, s.bytes = nil, 0
	return nil
}

// finish stores what is collected when the input has ended, with err if it ended
// badly: what stands before the place is stored even so, and the rest can follow
// in another run.
func (s *sender) finish(ctx context.Context, err error) error {
	if s.failed {
		return err
	}
	if rest := s.flush(ctx); err == nil {
		err = rest
	}
	return err
}

// position is a place in a stream as people write it.
type startingPosition struct {
	kind     kinesis.ShardIteratorType
	at       time.Time
	sequence string
}

// parsePosition reads trim, latest, a duration back from now, a time, or a
// sequence number.
func parsePosition(s string, now time.Time) (startingPosition, error) {
	switch s {
	case "trim", "start", "TRIM_HORIZON":
		return startingPosition{kind: kinesis.ShardIteratorTypeTrimHorizon}, nil
	case "latest", "end", "LATEST":
		return startingPosition{kind: kinesis.ShardIteratorTypeLatest}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return startingPosition{kind: kinesis.ShardIteratorTypeAtTimestamp, at: now.Add(-d.Abs())}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return startingPosition{kind: kinesis.ShardIteratorTypeAtTimestamp, at: t}, nil
		}
	}
	if len(s) >= 20 && allDigits(s) {
		return startingPosition{kind: kinesis.ShardIteratorTypeAtSequenceNumber, sequence: s}, nil
	}
	return startingPosition{}, fmt.Errorf("%q is no position: use trim, latest, a duration such as 15m, a time such as 2026-01-31T09:00:00Z, or a sequence number with --shard", s)
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// iterator opens a shard at the position.
func (p startingPosition) iterator(ctx context.Context, cl *client.Client, stream, shard string) (string, error) {
	in := &kinesis.GetShardIteratorInput{StreamName: &stream, ShardId: &shard, ShardIteratorType: &p.kind}
	switch p.kind {
	case kinesis.ShardIteratorTypeAtTimestamp:
		in.Timestamp = &p.at
	case kinesis.ShardIteratorTypeAtSequenceNumber, kinesis.ShardIteratorTypeAfterSequenceNumber:
		in.StartingSequenceNumber = &p.sequence
	}
	out := &kinesis.GetShardIteratorOutput{}
	if err := cl.Call(ctx, kinesis.OpGetShardIterator, in, out); err != nil {
		return "", hint(err, stream)
	}
	return api.Val(out.ShardIterator), nil
}

// shardReader pages through one shard. An expired iterator is replaced by one
// behind the last record.
type shardReader struct {
	client   *client.Client
	stream   string
	shard    string
	position startingPosition
	limit    int32 // records a page; 0 leaves it to the server

	iterator string
	children []kinesis.ChildShard
	done     bool // the shard is closed and read to its end
}

// next reads one page, which may be empty. behind is how far the page is from
// the newest record.
func (r *shardReader) next(ctx context.Context) (records []kinesis.Record, behind time.Duration, err error) {
	if r.iterator == "" {
		if r.iterator, err = r.position.iterator(ctx, r.client, r.stream, r.shard); err != nil {
			return nil, 0, err
		}
	}
	in := &kinesis.GetRecordsInput{ShardIterator: &r.iterator}
	if r.limit > 0 {
		in.Limit = &r.limit
	}
	out := &kinesis.GetRecordsOutput{}
	err = r.client.Call(ctx, kinesis.OpGetRecords, in, out)
	if client.IsCode(err, "ExpiredIteratorException") {
		r.iterator = ""
		return nil, time.Second, nil
	}
	if err != nil {
		return nil, 0, hint(err, r.stream)
	}
	if n := len(out.Records); n > 0 {
		r.position = startingPosition{kind: kinesis.ShardIteratorTypeAfterSequenceNumber, sequence: *out.Records[n-1].SequenceNumber}
	}
	if out.NextShardIterator == nil {
		r.done, r.children = true, out.ChildShards
	} else {
		r.iterator = *out.NextShardIterator
	}
	return out.Records, time.Duration(api.Val(out.MillisBehindLatest)) * time.Millisecond, nil
}
