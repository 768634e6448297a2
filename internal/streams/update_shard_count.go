package streams

import (
	"context"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

const (
	// scalingCeiling is the highest target of one UpdateShardCount.
	scalingCeiling = 10_000
	day            = 24 * time.Hour
)

// UpdateShardCount changes a provisioned stream to TargetShardCount shards of
// equal ranges, by splits and merges that follow each other while the stream is
// UPDATING; see sweep for which. The reply has the count before.
// The target must lie between half (rounded up) and double of what is open, and
// not above 10,000; the net growth must fit the account's shard quota; the count
// there already is a success without effect. Ten calls per stream in 24 hours.
// Differs from the service: ids of intermediate shards (public observations of
// the real ones do not agree with each other), and the text of the last limit.
func (s *Service) UpdateShardCount(ctx context.Context, call *api.Call, in *kinesis.UpdateShardCountInput) (*kinesis.UpdateShardCountOutput, error) {
	target := int(api.Val(in.TargetShardCount))
	for {
		n, err := s.resolveName(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		st, err := s.reshardable(n)
		if err != nil {
			return nil, err
		}
		open := len(st.open)
		switch {
		case target > 2*open:
			return nil, invalidArgument("UpdateShardCount cannot scale up over double your current open shard count. "+
				"Current open shard count: %d Target shard count: %d", open, target)
		case target < (open+1)/2:
			return nil, invalidArgument("UpdateShardCount cannot scale down below half your current open shard count. "+
				"Current open shard count: %d Target shard count: %d", open, target)
		case target > scalingCeiling, open > scalingCeiling && target >= scalingCeiling:
			return nil, invalidArgument("UpdateShardCount cannot scale a stream to more than %d shards, nor one with more than %d shards to %d or more. "+
				"Current open shard count: %d Target shard count: %d", scalingCeiling, scalingCeiling, scalingCeiling, open, target)
		}
		account := accountName{st.account, st.region}
		use := s.registry.usage(account)
		if more := target - open; more > 0 && use.open+more > s.maxShards {
			return nil, shardLimit(st.account, st.region, use.open, s.maxShards, more)
		}
		record := st.record
		recent := withinDay(record.Scalings, s.now())
		if s.limits.Daily && len(recent) >= 10 {
			return nil, limitExceeded("UpdateShardCount can be called at most 10 times per stream in a rolling 24-hour period.")
		}
		out := &kinesis.UpdateShardCountOutput{
			StreamName: &st.name, StreamARN: &st.arn, CurrentShardCount: api.Ptr(int32(open)), TargetShardCount: api.Ptr(int32(target)),
		}
		if target == open {
			return out, nil
		}
		record.Scalings = addUse(recent, s.now(), 10)
		conflict, err := s.begin(ctx, st, record, transition{Kind: kindScale, Target: uint32(target), From: uint32(open)}, touchAccount(account, use.account, nil))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return out, nil
		}
	}
}

// withinDay keeps the uses of the last 24 hours.
func withinDay(uses []int64, now time.Time) []int64 {
	return slices.DeleteFunc(slices.Clone(uses), func(at int64) bool { return at <= now.Add(-day).UnixMilli() })
}

// addUse counts one more use. Only the latest limit ones are kept: more make no
// difference.
func addUse(uses []int64, now time.Time, limit int) []int64 {
	uses = append(uses, now.UnixMilli())
	return uses[max(0, len(uses)-limit):]
}
