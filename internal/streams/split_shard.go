package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// SplitShard closes a shard and opens two that share its range: the lower one,
// with the lower id, up to NewStartingHashKey - 1, the other from there on.
// Checks, in order: shard id readable, stream exists, not on-demand, ACTIVE,
// shard exists, is open, quota, and the key above the shard's start + 1 and below
// its end, so that no shard of one value comes about.
func (s *Service) SplitShard(ctx context.Context, call *api.Call, in *kinesis.SplitShardInput) (*kinesis.SplitShardOutput, error) {
	raw := api.Val(in.ShardToSplit)
	for {
		n, err := s.resolveName(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		index, ok := parseShardID(raw)
		if !ok {
			return nil, shardNotFound(raw, n.name, n.account)
		}
		st, err := s.reshardable(n)
		if err != nil {
			return nil, err
		}
		sh, err := s.openShard(st, index)
		if err != nil {
			return nil, err
		}
		account := accountName{st.account, st.region}
		use := s.registry.usage(account)
		if use.open+1 > s.maxShards {
			return nil, shardLimit(st.account, st.region, use.open, s.maxShards, 1)
		}
		key, ok := parseHashKey(api.Val(in.NewStartingHashKey))
		// The end is never below start + 1, so the sum does not wrap where it counts.
		if !ok || key.compare(after(sh.start)) <= 0 || key.compare(sh.end) >= 0 || sh.start.compare(maxHash) == 0 {
			return nil, invalidArgument("NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s is not both greater than "+
				"one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s.",
				api.Val(in.NewStartingHashKey), sh.id(), st.name, st.account, sh.start, sh.end)
		}
		conflict, err := s.begin(ctx, st, st.record, transition{Kind: kindSplit, Shards: []uint32{sh.index}, Key: key.String()},
			touchAccount(account, use.account, nil))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.SplitShardOutput{}, nil
		}
	}
}

// reshardable finds a stream whose shards may be changed by hand.
func (s *Service) reshardable(n streamName) (*stream, error) {
	st := s.registry.stream(n)
	if st == nil {
		return nil, streamNotFound(n.account, n.name)
	}
	if st.mode == kinesis.StreamModeOnDemand {
		return nil, onDemandRefusal(st)
	}
	if st.status != kinesis.StreamStatusActive {
		return nil, notActive(st)
	}
	return st, nil
}

// openShard finds a shard that may be split or merged.
func (s *Service) openShard(st *stream, index uint32) (*shard, error) {
	sh := st.listed(index, s.now())
	if sh == nil {
		return nil, shardNotFound(shardID(index), st.name, st.account)
	}
	if sh.closed != 0 {
		return nil, invalidArgument("Shard %s in stream %s under account %s has already been merged or split, and thus is not eligible for merging or splitting.",
			sh.id(), st.name, st.account)
	}
	return sh, nil
}
