package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateChannel changes how fresh a channel keeps its destination, or its
// logging; nothing else can change. The channel must be ACTIVE or FAILED, else
// ResourceInUse; it is UPDATING in the reply, and a FAILED one tries to deliver
// again.
func (s *Service) UpdateChannel(ctx context.Context, call *api.Call, in *kinesis.UpdateChannelInput) (*kinesis.UpdateChannelOutput, error) {
	for {
		ch, err := s.resolveChannel(call, in.ChannelARN)
		if err != nil {
			return nil, err
		}
		if ch.Status != kinesis.ChannelStatusActive && ch.Status != kinesis.ChannelStatusFailed {
			return nil, resourceInUse("Channel %s under account %s not ACTIVE, instead in state %s", ch.Name, ch.Account, ch.Status)
		}
		row := ch.row()
		if in.S3DestinationConfiguration != nil {
			if ch.S3 == nil {
				return nil, validation("Channel %s does not deliver to an S3 bucket.", ch.Name)
			}
			if err := checkFreshness(in.S3DestinationConfiguration.DataFreshnessInSeconds); err != nil {
				return nil, err
			}
			d := *ch.S3
			d.DataFreshnessInSeconds = in.S3DestinationConfiguration.DataFreshnessInSeconds
			row.Value.S3 = &d
		}
		if in.S3TablesDestinationConfiguration != nil {
			if ch.S3Tables == nil {
				return nil, validation("Channel %s does not deliver to an S3 table.", ch.Name)
			}
			if err := checkFreshness(in.S3TablesDestinationConfiguration.DataFreshnessInSeconds); err != nil {
				return nil, err
			}
			d := *ch.S3Tables
			d.DataFreshnessInSeconds = in.S3TablesDestinationConfiguration.DataFreshnessInSeconds
			row.Value.S3Tables = &d
		}
		if l := in.LoggingConfiguration; l != nil && l.CloudWatchLogs != nil {
			row.Value.setLogging(l.CloudWatchLogs.Enabled, l.CloudWatchLogs.LogGroupName, l.CloudWatchLogs.LogStreamName)
		}
		row.Value.Status, row.Value.Reason = kinesis.ChannelStatusUpdating, ""
		row.Value.Due = s.now().Add(s.stateDelay).UnixMilli()
		conflict, err := s.commit(ctx, channelTable.Update(row))
		if err != nil {
			return nil, err
		}
		if !conflict {
			s.settleChannel(ctx, ch.ARN)
			return &kinesis.UpdateChannelOutput{ChannelDescription: row.Value.describe()}, nil
		}
	}
}
