package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateStreamRecordDistributionStrategy decides who spreads records over the
// shards of an on-demand stream: the producer by partition key, or with AUTO the
// server, evenly. It takes effect at once; records stay where they are. AUTO on
// a provisioned stream is InvalidArgument.
func (s *Service) UpdateStreamRecordDistributionStrategy(ctx context.Context, call *api.Call, in *kinesis.UpdateStreamRecordDistributionStrategyInput) (*kinesis.UpdateStreamRecordDistributionStrategyOutput, error) {
	auto := api.Val(in.RecordDistributionStrategy) == kinesis.RecordDistributionStrategyAuto
	for {
		st, err := s.resolve(call, nil, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, notActive(st)
		}
		if auto && st.mode != kinesis.StreamModeOnDemand {
			return nil, invalidArgument("RecordDistributionStrategy AUTO is only supported for streams in On-Demand mode.")
		}
		record := st.record
		record.Auto = auto
		conflict, err := s.commit(ctx, st.update(record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.UpdateStreamRecordDistributionStrategyOutput{}, nil
		}
	}
}
