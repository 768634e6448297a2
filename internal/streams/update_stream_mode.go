package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateStreamMode switches between provisioned and on-demand capacity. The
// shards stay as they are; resharding by hand is possible in provisioned mode
// only. The mode it has already is a success without effect. Twice per stream in
// 24 hours. A stream with queues or channels, which need on-demand mode, does
// not become provisioned (ResourceInUse); the record distribution strategy and
// the warm throughput end with on-demand mode.
func (s *Service) UpdateStreamMode(ctx context.Context, call *api.Call, in *kinesis.UpdateStreamModeInput) (*kinesis.UpdateStreamModeOutput, error) {
	mode := kinesis.StreamMode("")
	if in.StreamModeDetails != nil {
		mode = api.Val(in.StreamModeDetails.StreamMode)
	}
	for {
		st, err := s.resolve(call, nil, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, notActive(st)
		}
		account := accountName{st.account, st.region}
		use := s.registry.usage(account)
		if in.WarmThroughputMiBps != nil {
			if err := checkWarmThroughput(mode, s.committed(use.account.record), *in.WarmThroughputMiBps); err != nil {
				return nil, err
			}
		}
		if mode == st.mode {
			return &kinesis.UpdateStreamModeOutput{}, nil
		}
		record := st.record
		recent := withinDay(record.ModeSwitches, s.now())
		if s.limits.Daily && len(recent) >= 2 {
			return nil, limitExceeded("UpdateStreamMode can be called at most 2 times per stream in a rolling 24-hour period.")
		}
		if mode == kinesis.StreamModeOnDemand {
			if exceeds(use.onDemand+1, s.limits.OnDemandStreams) {
				return nil, limitExceeded("This request would exceed the limit of %d streams in On-Demand mode for the account %s in %s.", s.limits.OnDemandStreams, st.account, st.region)
			}
		} else if s.queues.count(st.id) > 0 || s.channelCount(st) > 0 {
			return nil, resourceInUse("Stream %s under account %s has queues or channels. Delete them before switching to Provisioned mode.", st.name, st.account)
		}
		record.ModeSwitches = addUse(recent, s.now(), 2)
		t := transition{Kind: kindSetting, Change: &settings{Mode: &mode}}
		if warm := api.Val(in.WarmThroughputMiBps); warm > 0 {
			record.WarmTarget, t.Change.WarmCurrent = warm, &warm
			if more := int(warm) - len(st.open); more > 0 {
				if use.open+more > s.maxShards {
					return nil, shardLimit(st.account, st.region, use.open, s.maxShards, more)
				}
				t.Kind, t.Target, t.From = kindScale, uint32(warm), uint32(len(st.open))
			}
		}
		conflict, err := s.begin(ctx, st, record, t, touchAccount(account, use.account, nil))
		if err != nil {
			return nil, err
		}
		if conflict {
			continue
		}
		return &kinesis.UpdateStreamModeOutput{}, nil
	}
}
