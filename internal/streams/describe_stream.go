package streams

import (
	"context"
	"sort"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// describeLimit is how many shards DescribeStream returns, by default and at
// most.
const describeLimit = 100

// DescribeStream describes a stream in any state with its shards by id: open
// ones, and closed ones that have not expired. Limit is 100 by default and at
// most; ExclusiveStartShardId need not exist.
func (s *Service) DescribeStream(ctx context.Context, call *api.Call, in *kinesis.DescribeStreamInput) (*kinesis.DescribeStreamOutput, error) {
	n, err := s.resolveName(call, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	from := uint32(0)
	if in.ExclusiveStartShardId != nil {
		index, ok := parseShardID(*in.ExclusiveStartShardId)
		if !ok {
			return nil, shardNotFound(*in.ExclusiveStartShardId, n.name, n.account)
		}
		from = index + 1
	}
	st := s.registry.stream(n)
	if st == nil {
		return nil, streamNotFound(n.account, n.name)
	}
	limit := describeLimit
	if in.Limit != nil {
		limit = min(limit, int(*in.Limit))
	}
	shards := st.visible(s.now())
	if st.status == kinesis.StreamStatusDeleting {
		shards = nil
	}
	shards = shards[sort.Search(len(shards), func(i int) bool { return shards[i].index >= from }):]
	more := len(shards) > limit
	shards = shards[:min(len(shards), limit)]
	d := &kinesis.StreamDescription{
		StreamName: &st.name, StreamARN: &st.arn, StreamStatus: &st.status,
		StreamModeDetails: &kinesis.StreamModeDetails{StreamMode: &st.mode},
		Shards:            make([]kinesis.Shard, 0, len(shards)), HasMoreShards: &more,
		RetentionPeriodHours: &st.record.RetentionHours, StreamCreationTimestamp: api.Ptr(time.UnixMilli(st.createdAt)),
		EnhancedMonitoring: st.enhancedMonitoring(),
	}
	d.EncryptionType, d.KeyId = st.encryptionDescription()
	for _, sh := range shards {
		d.Shards = append(d.Shards, sh.describe())
	}
	return &kinesis.DescribeStreamOutput{StreamDescription: d}, nil
}

// describe is the shard on the wire. EndingSequenceNumber is there only for a
// closed shard, parents only for a shard that has them.
func (sh *shard) describe() kinesis.Shard {
	d := kinesis.Shard{
		ShardId:             api.Ptr(sh.id()),
		HashKeyRange:        &kinesis.HashKeyRange{StartingHashKey: api.Ptr(sh.start.String()), EndingHashKey: api.Ptr(sh.end.String())},
		SequenceNumberRange: &kinesis.SequenceNumberRange{StartingSequenceNumber: api.Ptr(startOf(sh).String())},
	}
	if sh.parent >= 0 {
		d.ParentShardId = api.Ptr(shardID(uint32(sh.parent)))
	}
	if sh.adjacent >= 0 {
		d.AdjacentParentShardId = api.Ptr(shardID(uint32(sh.adjacent)))
	}
	if sh.closed != 0 {
		d.SequenceNumberRange.EndingSequenceNumber = api.Ptr(endOf(sh).String())
	}
	return d
}

// enhancedMonitoring is the list of one member that descriptions carry, also
// when nothing is switched on.
func (st *stream) enhancedMonitoring() []kinesis.EnhancedMetrics {
	return []kinesis.EnhancedMetrics{{ShardLevelMetrics: append([]kinesis.MetricsName{}, st.monitoring...)}}
}

func (st *stream) encryptionDescription() (*kinesis.EncryptionType, *string) {
	if st.encryption == nil {
		return api.Ptr(kinesis.EncryptionTypeNone), nil
	}
	return api.Ptr(kinesis.EncryptionTypeKms), &st.encryption.keyID
}
