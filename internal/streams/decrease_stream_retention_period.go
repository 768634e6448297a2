package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DecreaseStreamRetentionPeriod shortens how long records stay readable, down to
// 24 hours; the present period again is a success. Older records are unreadable
// from the moment it takes effect, and stay so.
func (s *Service) DecreaseStreamRetentionPeriod(ctx context.Context, call *api.Call, in *kinesis.DecreaseStreamRetentionPeriodInput) (*kinesis.DecreaseStreamRetentionPeriodOutput, error) {
	hours := api.Val(in.RetentionPeriodHours)
	err := s.setRetention(ctx, call, in.StreamName, in.StreamARN, hours, func(st *stream) error {
		if hours > st.record.RetentionHours {
			return invalidArgument("Requested retention period (%d hours) for stream %s can not be longer than existing retention period (%d hours). Use IncreaseRetentionPeriod API.",
				hours, st.name, st.record.RetentionHours)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &kinesis.DecreaseStreamRetentionPeriodOutput{}, nil
}
