package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// MergeShards closes two neighbours at the same instant and opens one shard over
// both ranges, whose parent is ShardToMerge and whose adjacent parent is the
// other.
// Checks, in order: both shard ids readable, stream exists, not on-demand,
// ACTIVE, both exist, both open, and ShardToMerge ends right below
// AdjacentShardToMerge: the reverse order is refused, as is a shard with itself.
func (s *Service) MergeShards(ctx context.Context, call *api.Call, in *kinesis.MergeShardsInput) (*kinesis.MergeShardsOutput, error) {
	for {
		n, err := s.resolveName(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		var indexes [2]uint32
		for i, raw := range []string{api.Val(in.ShardToMerge), api.Val(in.AdjacentShardToMerge)} {
			var ok bool
			if indexes[i], ok = parseShardID(raw); !ok {
				return nil, shardNotFound(raw, n.name, n.account)
			}
		}
		st, err := s.reshardable(n)
		if err != nil {
			return nil, err
		}
		for _, index := range indexes {
			if st.listed(index, s.now()) == nil {
				return nil, shardNotFound(shardID(index), st.name, st.account)
			}
		}
		low, err := s.openShard(st, indexes[0])
		if err != nil {
			return nil, err
		}
		high, err := s.openShard(st, indexes[1])
		if err != nil {
			return nil, err
		}
		if low.end == maxHash || after(low.end) != high.start {
			return nil, invalidArgument("Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging",
				low.id(), high.id(), st.name, st.account)
		}
		conflict, err := s.begin(ctx, st, st.record, transition{Kind: kindMerge, Shards: indexes[:]})
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.MergeShardsOutput{}, nil
		}
	}
}
