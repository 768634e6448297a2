package streams

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// GetShardIterator fixes a place in a shard from which GetRecords reads. The
// place is decided now: LATEST is behind what has been accepted at this moment,
// not at the first read. Closed shards take every type while they are listed.
//
// Checks in order: the shard's id can be read, stream and shard exist, the
// position makes sense, the shard's call rate.
func (s *Service) GetShardIterator(ctx context.Context, call *api.Call, in *kinesis.GetShardIteratorInput) (*kinesis.GetShardIteratorOutput, error) {
	n, err := s.resolveName(call, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	now := s.now()
	st, sh, err := s.findShard(n, api.Val(in.ShardId), now)
	if err != nil {
		return nil, err
	}
	next, err := s.position(ctx, st, sh, now, position{
		kind: api.Val(in.ShardIteratorType), number: in.StartingSequenceNumber, timestamp: in.Timestamp,
	})
	if err != nil {
		return nil, err
	}
	if api.Val(in.DryRun) {
		return nil, dryRun()
	}
	if !s.quota.Iterator(uint64(sh.log)) {
		return nil, &kinesis.ProvisionedThroughputExceededException{Message: rateExceeded(sh.index, n)}
	}
	text := s.sealIterator(shardIterator{issued: now.UnixMilli(), stream: n, id: st.id, shard: sh.index, next: next})
	return &kinesis.GetShardIteratorOutput{ShardIterator: &text}, nil
}

// findShard finds a shard for a call that reads.
func (s *Service) findShard(n streamName, raw string, now time.Time) (*stream, *shard, error) {
	index, ok := parseShardID(raw)
	if !ok {
		return nil, nil, shardNotFound(raw, n.name, n.account)
	}
	st := s.registry.stream(n)
	if st == nil || !st.readable() {
		return nil, nil, shardMissing(index, n)
	}
	sh := st.listed(index, now)
	if sh == nil {
		return nil, nil, shardMissing(index, n)
	}
	return st, sh, nil
}

// position is where a caller wants to start.
type position struct {
	kind      kinesis.ShardIteratorType
	number    *string
	timestamp *time.Time
}

// position is the index of the first record that a reader gets who starts
// there. It may be below what is still stored, and beyond what is.
func (s *Service) position(ctx context.Context, st *stream, sh *shard, now time.Time, p position) (uint64, error) {
	byNumber := p.kind == kinesis.ShardIteratorTypeAtSequenceNumber || p.kind == kinesis.ShardIteratorTypeAfterSequenceNumber
	if byNumber != (p.number != nil) {
		what := "no"
		if p.number != nil {
			what = "also a"
		}
		return 0, invalidArgument("Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "+
			"(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified %s and %s StartingSequenceNumber.", p.kind, what)
	}
	switch p.kind {
	case kinesis.ShardIteratorTypeAtSequenceNumber, kinesis.ShardIteratorTypeAfterSequenceNumber:
		return numberPosition(st, sh, *p.number, p.kind)
	case kinesis.ShardIteratorTypeLatest:
		bounds, err := s.log.Bounds(ctx, sh.log)
		if err != nil {
			return 0, readError(err)
		}
		return uint64(bounds.Next), nil
	case kinesis.ShardIteratorTypeAtTimestamp:
		if p.timestamp == nil {
			return 0, invalidArgument("Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
		}
		at := p.timestamp.UnixMilli()
		if p.timestamp.After(time.UnixMilli(at)) {
			at++ // a record of this millisecond is before the wanted time
		}
		if current := now.UnixMilli(); at > current {
			return 0, invalidArgument("The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "+
				"timestampInMillis: %d, currentTimestampInMillis: %d", at, current)
		}
		index, err := s.log.FirstAt(ctx, sh.log, at)
		if err != nil {
			return 0, readError(err)
		}
		return uint64(index), nil
	}
	return 1, nil // TRIM_HORIZON: what is trimmed is skipped by the read
}

// numberPosition checks a sequence number against the shard it is used with.
func numberPosition(st *stream, sh *shard, text string, kind kinesis.ShardIteratorType) (uint64, error) {
	n, ok := parseSequenceNumber(text)
	if !ok {
		return 0, invalidArgument("StartingSequenceNumber %s used in GetShardIterator on shard %s in stream %s under account %s is invalid.",
			text, sh.id(), st.name, st.account)
	}
	if n.version != 0 && n.shard != sh.index {
		other := "shardId-" + "-" + shardID(-n.shard)[len("shardId-"):]
		if int32(n.shard) >= 0 {
			other = shardID(n.shard)
		}
		return 0, invalidArgument("Invalid StartingSequenceNumber. It encodes %s, while it was used in a call to a shard with %s", other, sh.id())
	}
	if n.version != 2 || n.created != sh.created {
		return 0, invalidArgument("StartingSequenceNumber %s used in GetShardIterator on shard %s in stream %s under account %s is invalid because it did not come from this stream.",
			text, sh.id(), st.name, st.account)
	}
	if kind == kinesis.ShardIteratorTypeAfterSequenceNumber {
		if n.index == endIndex {
			return 0, invalidArgument("Invalid SequenceNumber for ShardIteratorType AFTER_SEQUENCE_NUMBER, SequenceNumber has reached max possible value for the shard.")
		}
		return n.index + 1, nil
	}
	return max(n.index, 1), nil
}

// readError turns a failure of the log into the caller's error.
func readError(err error) error { return storeError(err) }
