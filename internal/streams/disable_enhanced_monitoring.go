package streams

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DisableEnhancedMonitoring switches shard-level metrics off; ALL means every
// one. The reply has the metrics before and after.
func (s *Service) DisableEnhancedMonitoring(ctx context.Context, call *api.Call, in *kinesis.DisableEnhancedMonitoringInput) (*kinesis.DisableEnhancedMonitoringOutput, error) {
	unwanted := expandMetrics(in.ShardLevelMetrics)
	st, before, after, err := s.setMonitoring(ctx, call, in.StreamName, in.StreamARN, func(m kinesis.MetricsName, on bool) bool {
		return on && !slices.Contains(unwanted, m)
	})
	if err != nil {
		return nil, err
	}
	return &kinesis.DisableEnhancedMonitoringOutput{
		StreamName: &st.name, StreamARN: &st.arn, CurrentShardLevelMetrics: before, DesiredShardLevelMetrics: after,
	}, nil
}
