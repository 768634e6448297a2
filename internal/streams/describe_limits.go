package streams

import (
	"context"
	"math"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DescribeLimits reports the account's quotas in the region and their use.
// OpenShardCount counts the open shards of provisioned streams.
func (s *Service) DescribeLimits(ctx context.Context, call *api.Call, in *kinesis.DescribeLimitsInput) (*kinesis.DescribeLimitsOutput, error) {
	use := s.registry.usage(accountName{call.Account, call.Region})
	return &kinesis.DescribeLimitsOutput{
		ShardLimit: count(s.maxShards), OpenShardCount: count(use.provisioned),
		OnDemandStreamCount: count(use.onDemand), OnDemandStreamCountLimit: count(s.limits.OnDemandStreams),
		ChannelCount: count(use.channels), ChannelCountLimit: count(s.limits.Channels),
	}, nil
}

// count is a number as the model bounds it; no limit is the highest one.
func count(n int) *int32 {
	const most = 1_000_000
	if n < 0 || n > most || n > math.MaxInt32 {
		n = most
	}
	return api.Ptr(int32(n))
}
