package streams

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DescribeStreamSummary describes a stream in any state without its shards.
// OpenShardCount counts open shards only. WarmThroughput is there once it was
// set, RecordDistributionStrategy in on-demand mode. StreamId is never there:
// SDKs that know one leave the configured endpoint.
func (s *Service) DescribeStreamSummary(ctx context.Context, call *api.Call, in *kinesis.DescribeStreamSummaryInput) (*kinesis.DescribeStreamSummaryOutput, error) {
	st, err := s.resolve(call, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	d := &kinesis.StreamDescriptionSummary{
		StreamName: &st.name, StreamARN: &st.arn, StreamStatus: &st.status,
		StreamModeDetails:    &kinesis.StreamModeDetails{StreamMode: &st.mode},
		RetentionPeriodHours: &st.record.RetentionHours, StreamCreationTimestamp: api.Ptr(time.UnixMilli(st.createdAt)),
		EnhancedMonitoring: st.enhancedMonitoring(), OpenShardCount: api.Ptr(int32(len(st.open))),
		ConsumerCount:      api.Ptr(int32(len(s.registry.consumersOf(streamName{st.account, st.region, st.name})))),
		MaxRecordSizeInKiB: &st.record.MaxRecordKiB,
		ChannelCount:       api.Ptr(int32(s.channelCount(st))),
		QueueCount:         api.Ptr(int32(s.queues.count(st.id))),
	}
	d.EncryptionType, d.KeyId = st.encryptionDescription()
	if st.record.WarmTarget > 0 {
		d.WarmThroughput = st.warmThroughput()
	}
	if st.mode == kinesis.StreamModeOnDemand {
		strategy := kinesis.RecordDistributionStrategyUserPartitionKey
		if st.autoDistribution {
			strategy = kinesis.RecordDistributionStrategyAuto
		}
		d.RecordDistributionStrategy = &strategy
	}
	return &kinesis.DescribeStreamSummaryOutput{StreamDescriptionSummary: d}, nil
}
