package streams

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// commitmentTerm is how long a throughput commitment lasts at least.
const commitmentTerm = 24 * time.Hour

// UpdateAccountSettings enables or disables the account's throughput commitment,
// which unlocks warm throughput and 50 consumers a stream. It lasts at least 24
// hours: disabled earlier, it ends then. Repeating a setting changes nothing;
// enabling again before the end takes the ending back.
func (s *Service) UpdateAccountSettings(ctx context.Context, call *api.Call, in *kinesis.UpdateAccountSettingsInput) (*kinesis.UpdateAccountSettingsOutput, error) {
	account := accountName{call.Account, call.Region}
	wanted := kinesis.MinimumThroughputBillingCommitmentInputStatus("")
	if in.MinimumThroughputBillingCommitment != nil {
		wanted = api.Val(in.MinimumThroughputBillingCommitment.Status)
	}
	for {
		state := s.registry.usage(account).account
		now := s.now()
		c := state.record.Commitment
		on := s.committed(state.record)
		switch {
		case wanted == kinesis.MinimumThroughputBillingCommitmentInputStatusEnabled && !on:
			c = commitmentRecord{StartedAt: now.UnixMilli()}
		case wanted == kinesis.MinimumThroughputBillingCommitmentInputStatusEnabled:
			c.EndsAt = 0
		case on && c.EndsAt == 0:
			c.EndsAt = max(now.UnixMilli(), c.StartedAt+commitmentTerm.Milliseconds())
		}
		if c != state.record.Commitment {
			conflict, err := s.commit(ctx, touchAccount(account, state, func(r *accountRecord) { r.Commitment = c }))
			if err != nil {
				return nil, err
			}
			if conflict {
				continue
			}
		}
		return &kinesis.UpdateAccountSettingsOutput{MinimumThroughputBillingCommitment: c.describe(now)}, nil
	}
}

// committed reports whether an account's throughput commitment holds.
func (s *Service) committed(r accountRecord) bool {
	c := r.Commitment
	return c.StartedAt != 0 && (c.EndsAt == 0 || c.EndsAt > s.now().UnixMilli())
}

func (c commitmentRecord) describe(now time.Time) *kinesis.MinimumThroughputBillingCommitmentOutput {
	out := &kinesis.MinimumThroughputBillingCommitmentOutput{}
	status := kinesis.MinimumThroughputBillingCommitmentOutputStatusDisabled
	if c.StartedAt != 0 {
		out.StartedAt = api.Ptr(time.UnixMilli(c.StartedAt))
		switch {
		case c.EndsAt == 0:
			status = kinesis.MinimumThroughputBillingCommitmentOutputStatusEnabled
			out.EarliestAllowedEndAt = api.Ptr(time.UnixMilli(c.StartedAt).Add(commitmentTerm))
		case c.EndsAt > now.UnixMilli():
			status = kinesis.MinimumThroughputBillingCommitmentOutputStatusEnabledUntilEarliestAllowedEnd
			out.EarliestAllowedEndAt = api.Ptr(time.UnixMilli(c.EndsAt))
		default:
			out.EndedAt = api.Ptr(time.UnixMilli(c.EndsAt))
		}
	}
	out.Status = &status
	return out
}
