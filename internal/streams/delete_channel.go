package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DeleteChannel ends a channel's delivery and removes it; what was delivered
// stays. Deleting one that is DELETING is a success.
func (s *Service) DeleteChannel(ctx context.Context, call *api.Call, in *kinesis.DeleteChannelInput) (*kinesis.DeleteChannelOutput, error) {
	for {
		ch, err := s.resolveChannel(call, in.ChannelARN)
		if err != nil {
			return nil, err
		}
		if ch.Status == kinesis.ChannelStatusDeleting {
			return &kinesis.DeleteChannelOutput{}, nil
		}
		row := ch.row()
		row.Value.Status, row.Value.Due = kinesis.ChannelStatusDeleting, s.now().Add(s.stateDelay).UnixMilli()
		conflict, err := s.commit(ctx, channelTable.Update(row))
		if err != nil {
			return nil, err
		}
		if !conflict {
			s.settleChannel(ctx, ch.ARN)
			return &kinesis.DeleteChannelOutput{}, nil
		}
	}
}
