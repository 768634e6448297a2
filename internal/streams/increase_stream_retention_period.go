package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// The range of retention periods, in hours.
const (
	minRetentionHours = 24
	maxRetentionHours = 8760
)

// IncreaseStreamRetentionPeriod lengthens how long records stay readable, up to
// 8,760 hours; the present period again is a success. Records that are trimmed
// already do not return.
func (s *Service) IncreaseStreamRetentionPeriod(ctx context.Context, call *api.Call, in *kinesis.IncreaseStreamRetentionPeriodInput) (*kinesis.IncreaseStreamRetentionPeriodOutput, error) {
	hours := api.Val(in.RetentionPeriodHours)
	err := s.setRetention(ctx, call, in.StreamName, in.StreamARN, hours, func(st *stream) error {
		if hours < st.record.RetentionHours {
			return invalidArgument("Requested retention period (%d hours) for stream %s can not be shorter than existing retention period (%d hours). Use DecreaseRetentionPeriod API.",
				hours, st.name, st.record.RetentionHours)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &kinesis.IncreaseStreamRetentionPeriodOutput{}, nil
}

// setRetention changes a retention period that check lets pass.
func (s *Service) setRetention(ctx context.Context, call *api.Call, name, arn *string, hours int32, check func(*stream) error) error {
	for {
		st, err := s.resolve(call, name, arn)
		if err != nil {
			return err
		}
		if st.status != kinesis.StreamStatusActive {
			return notActive(st)
		}
		if hours < minRetentionHours {
			return invalidArgument("Minimum allowed retention period is %d hours. Requested retention period (%d hours) is too short.", minRetentionHours, hours)
		}
		if hours > maxRetentionHours {
			return invalidArgument("Maximum allowed retention period is %d hours. Requested retention period (%d hours) is too long.", maxRetentionHours, hours)
		}
		if err := check(st); err != nil {
			return err
		}
		if hours == st.record.RetentionHours {
			return nil
		}
		record := st.record
		conflict, err := s.begin(ctx, st, record, transition{Kind: kindSetting, Change: &settings{RetentionHours: &hours}})
		if err != nil || !conflict {
			return err
		}
	}
}
