package reliability

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// place is where an acknowledged record must be.
type place struct{ shard, sequence string }

// ledger knows what has been acknowledged. Records carry a number, a size that
// follows from it, and a checksum, so that any of them can be judged alone.
type ledger struct {
	mu    sync.Mutex
	next  uint64
	acked map[uint64]place
}

func newLedger() *ledger { return &ledger{acked: map[uint64]place{}} }

// take reserves n record numbers.
func (l *ledger) take(n int) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.next
	l.next += uint64(n)
	return first
}

func (l *ledger) acknowledge(number uint64, shard, sequence string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[number] = place{shard, sequence}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// recordData makes a record's bytes from its number.
func recordData(number uint64) []byte {
	size := 16 + int(number*2654435761%3000)
	b := make([]byte, size)
	binary.BigEndian.PutUint64(b, number)
	x := number
	for i := 12; i < size; i++ {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	binary.BigEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[12:]))
	return b
}

// numberOf returns the number of a record, or an error if it was altered.
func numberOf(b []byte) (uint64, error) {
	if len(b) < 16 {
		return 0, fmt.Errorf("record of %d bytes", len(b))
	}
	n := binary.BigEndian.Uint64(b)
	if len(b) != len(recordData(n)) || binary.BigEndian.Uint32(b[8:]) != crc32.ChecksumIEEE(b[12:]) {
		return 0, fmt.Errorf("record %d was altered", n)
	}
	return n, nil
}

// write puts records until ctx ends or the server does not answer any more.
func (l *ledger) write(ctx context.Context, client *kinesis.Client, stream string, batch int) error {
	for ctx.Err() == nil {
		first := l.take(batch)
		in := &kinesis.PutRecordsInput{StreamName: &stream}
		for i := range batch {
			n := first + uint64(i)
			in.Records = append(in.Records, types.PutRecordsRequestEntry{Data: recordData(n), PartitionKey: aws.String(fmt.Sprint(n))})
		}
		out, err := client.PutRecords(ctx, in)
		if err != nil {
			return err
		}
		for i, r := range out.Records {
			if r.SequenceNumber != nil {
				l.acknowledge(first+uint64(i), *r.ShardId, *r.SequenceNumber)
			}
		}
	}
	return nil
}

// read returns all records of a stream by shard.
func read(ctx context.Context, client *kinesis.Client, stream string) (map[string][]types.Record, error) {
	shards := map[string][]types.Record{}
	in := &kinesis.ListShardsInput{StreamName: &stream}
	for {
		page, err := client.ListShards(ctx, in, reading)
		if err != nil {
			return nil, err
		}
		for _, s := range page.Shards {
			records, err := readShard(ctx, client, stream, *s.ShardId)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", *s.ShardId, err)
			}
			shards[*s.ShardId] = records
		}
		if page.NextToken == nil {
			return shards, nil
		}
		in = &kinesis.ListShardsInput{NextToken: page.NextToken}
	}
}

// reading repeats a call that changes nothing if the client has closed its own
// connection under it: the SDK closes a request's body once it is answered, and
// an answer that comes while net/http makes sure that the body holds nothing
// more turns into a write error, for the closed body's WriteTo reports io.EOF.
// An end by the server reads as EOF or a reset, and is a failure.
func reading(o *kinesis.Options) {
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = 10
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		o.RateLimiter = ratelimit.None
		o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			return aws.BoolTernary(errors.Is(err, net.ErrClosed))
		})}
	})
}

// answered says that a call that cannot be repeated was answered with success
// before the client closed its connection (see reading).
func answered(err error) bool {
	var reply *smithyhttp.ResponseError
	return errors.Is(err, net.ErrClosed) && errors.As(err, &reply) && reply.HTTPStatusCode() == http.StatusOK
}

func readShard(ctx context.Context, client *kinesis.Client, stream, shard string) ([]types.Record, error) {
	it, err := client.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{StreamName: &stream, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}, reading)
	if err != nil {
		return nil, err
	}
	var records []types.Record
	for next := it.ShardIterator; next != nil; {
		out, err := client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next}, reading)
		if err != nil {
			return nil, err
		}
		records = append(records, out.Records...)
		if len(out.Records) == 0 && aws.ToInt64(out.MillisBehindLatest) == 0 {
			break
		}
		next = out.NextShardIterator
	}
	return records, nil
}

// audit compares what can be read with what was acknowledged: every
// acknowledged record is there once, where and as it was acknowledged, and
// every shard is in order. A record that was sent and not acknowledged may be
// there, once at most, for nobody was told otherwise.
func (l *ledger) audit(shards map[string][]types.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[uint64]place{}
	var problems []error
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		last := ""
		for _, r := range shards[shard] {
			n, err := numberOf(r.Data)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s %s: %w", shard, *r.SequenceNumber, err))
				continue
			}
			if *r.SequenceNumber <= last {
				problems = append(problems, fmt.Errorf("%s: %s follows %s", shard, *r.SequenceNumber, last))
			}
			last = *r.SequenceNumber
			if before, twice := seen[n]; twice {
				problems = append(problems, fmt.Errorf("record %d is at %v and at %s %s", n, before, shard, last))
			}
			if n >= l.next {
				problems = append(problems, fmt.Errorf("record %d was never sent", n))
			}
			seen[n] = place{shard, last}
		}
	}
	for n, p := range l.acked {
		switch got, ok := seen[n]; {
		case !ok:
			problems = append(problems, fmt.Errorf("record %d, acknowledged at %v, is lost", n, p))
		case got != p:
			problems = append(problems, fmt.Errorf("record %d, acknowledged at %v, is at %v", n, p, got))
		}
	}
	if len(problems) > 10 {
		problems = append(problems[:10], fmt.Errorf("and %d more", len(problems)-10))
	}
	return errors.Join(problems...)
}
