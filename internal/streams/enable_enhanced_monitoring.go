package streams

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// EnableEnhancedMonitoring switches shard-level metrics on; ALL means the seven
// of them. The reply has the metrics before and after. Switching on what is on
// changes nothing.
func (s *Service) EnableEnhancedMonitoring(ctx context.Context, call *api.Call, in *kinesis.EnableEnhancedMonitoringInput) (*kinesis.EnableEnhancedMonitoringOutput, error) {
	wanted := expandMetrics(in.ShardLevelMetrics)
	st, before, after, err := s.setMonitoring(ctx, call, in.StreamName, in.StreamARN, func(m kinesis.MetricsName, on bool) bool {
		return on || slices.Contains(wanted, m)
	})
	if err != nil {
		return nil, err
	}
	return &kinesis.EnableEnhancedMonitoringOutput{
		StreamName: &st.name, StreamARN: &st.arn, CurrentShardLevelMetrics: before, DesiredShardLevelMetrics: after,
	}, nil
}

// expandMetrics replaces ALL by every metric.
func expandMetrics(names []kinesis.MetricsName) []kinesis.MetricsName {
	if slices.Contains(names, kinesis.MetricsNameAll) {
		return kinesis.MetricsNameValues()
	}
	return names
}

// setMonitoring switches each metric to what want says of it.
func (s *Service) setMonitoring(ctx context.Context, call *api.Call, name, arn *string, want func(m kinesis.MetricsName, on bool) bool) (st *stream, before, after []kinesis.MetricsName, err error) {
	for {
		if st, err = s.resolve(call, name, arn); err != nil {
			return nil, nil, nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, nil, nil, notActive(st)
		}
		before, after = append([]kinesis.MetricsName{}, st.monitoring...), []kinesis.MetricsName{}
		for _, m := range kinesis.MetricsNameValues() {
			if m != kinesis.MetricsNameAll && want(m, st.monitors(m)) {
				after = append(after, m)
			}
		}
		if slices.Equal(before, after) {
			return st, before, after, nil
		}
		conflict, err := s.begin(ctx, st, st.record, transition{Kind: kindSetting, Change: &settings{Monitoring: after, SetMonitoring: true}})
		if err != nil {
			return nil, nil, nil, err
		}
		if !conflict {
			return st, before, after, nil
		}
	}
}
