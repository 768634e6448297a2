package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DescribeAccountSettings reports the account's throughput commitment in the
// region.
func (s *Service) DescribeAccountSettings(ctx context.Context, call *api.Call, in *kinesis.DescribeAccountSettingsInput) (*kinesis.DescribeAccountSettingsOutput, error) {
	state := s.registry.usage(accountName{call.Account, call.Region}).account
	return &kinesis.DescribeAccountSettingsOutput{MinimumThroughputBillingCommitment: state.record.Commitment.describe(s.now())}, nil
}
