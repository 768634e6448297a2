package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// maxWarmMiBps is the highest warm throughput of a stream.
const maxWarmMiBps = 10_240

// UpdateStreamWarmThroughput has an on-demand stream keep shards for a write
// rate: at least one a MiB per second. The reply has the target at once; the
// current value follows when the shards are there. Shards are never merged for
// it. Only in on-demand mode and in accounts with a throughput commitment.
func (s *Service) UpdateStreamWarmThroughput(ctx context.Context, call *api.Call, in *kinesis.UpdateStreamWarmThroughputInput) (*kinesis.UpdateStreamWarmThroughputOutput, error) {
	warm := api.Val(in.WarmThroughputMiBps)
	for {
		st, err := s.resolve(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, notActive(st)
		}
		account := accountName{st.account, st.region}
		use := s.registry.usage(account)
		if err := checkWarmThroughput(st.mode, s.committed(use.account.record), warm); err != nil {
			return nil, err
		}
		record := st.record
		record.WarmTarget = warm
		t := transition{Kind: kindSetting, Change: &settings{WarmCurrent: &warm}}
		if more := int(warm) - len(st.open); more > 0 {
			if use.open+more > s.maxShards {
				return nil, shardLimit(st.account, st.region, use.open, s.maxShards, more)
			}
			t.Kind, t.Target, t.From = kindScale, uint32(warm), uint32(len(st.open))
		}
		before := record.WarmCurrent
		conflict, err := s.begin(ctx, st, record, t, touchAccount(account, use.account, nil))
		if err != nil {
			return nil, err
		}
		if conflict {
			continue
		}
		out := &kinesis.WarmThroughputObject{TargetMiBps: &warm, CurrentMiBps: &before}
		if now := s.current(st); now != nil && now.record.Pending == nil {
			out = now.warmThroughput()
		}
		return &kinesis.UpdateStreamWarmThroughputOutput{StreamARN: &st.arn, StreamName: &st.name, WarmThroughput: out}, nil
	}
}

func (st *stream) warmThroughput() *kinesis.WarmThroughputObject {
	return &kinesis.WarmThroughputObject{TargetMiBps: &st.record.WarmTarget, CurrentMiBps: &st.record.WarmCurrent}
}

// checkWarmThroughput refuses a warm throughput where there can be none.
func checkWarmThroughput(mode kinesis.StreamMode, committed bool, warm int32) error {
	switch {
	case mode != kinesis.StreamModeOnDemand:
		return validation("WarmThroughputMiBps is only supported for streams in On-Demand mode.")
	case !committed:
		return validation("WarmThroughputMiBps requires an account with MinimumThroughputBillingCommitment enabled.")
	case warm > maxWarmMiBps:
		return validation("WarmThroughputMiBps must not be above %d.", maxWarmMiBps)
	}
	return nil
}
