package streams

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// CreateChannel makes a channel that delivers one ACTIVE on-demand stream to a
// bucket or to a table, exactly one of the two. Formats: JSON for both, STRING
// and BYTE_ARRAY for buckets, GSR_JSON for tables; a table needs a schema and a
// dead-letter bucket. Records are delivered at the latest every
// DataFreshnessInSeconds, 300 by default. The channel is CREATING in the reply,
// then ACTIVE, or FAILED with the reason why it cannot deliver.
// A name that is taken is ResourceInUse, a channel too many LimitExceeded.
func (s *Service) CreateChannel(ctx context.Context, call *api.Call, in *kinesis.CreateChannelInput) (*kinesis.CreateChannelOutput, error) {
	if err := checkChannel(in); err != nil {
		return nil, err
	}
	name := api.Val(in.ChannelName)
	source := in.StreamConfigurationList[0]
	account := accountName{call.Account, call.Region}
	for {
		st, err := s.resolve(call, nil, source.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.account != call.Account {
			return nil, invalidArgument("A channel must belong to the account of its stream.")
		}
		if !st.readable() {
			return nil, notActive(st)
		}
		if st.mode != kinesis.StreamModeOnDemand {
			return nil, validation("Channels are only supported for streams in On-Demand mode.")
		}
		use := s.registry.usage(account)
		if slices.ContainsFunc(s.registry.channelsOf(account), func(ch *channel) bool { return ch.Name == name }) {
			return nil, resourceInUse("Channel %s under account %s already exists.", name, call.Account)
		}
		if err := checkTags("channel "+name, call.Account, in.Tags, len(in.Tags)); err != nil {
			return nil, err
		}
		if exceeds(use.channels+1, s.limits.Channels) {
			return nil, limitExceeded("This request would exceed the limit of %d channels for the account %s in %s.", s.limits.Channels, call.Account, call.Region)
		}
		now := s.now()
		r := channelRecord{
			Account: call.Account, Region: call.Region, Name: name, ID: newChannelID(),
			Status: kinesis.ChannelStatusCreating, Due: now.Add(s.stateDelay).UnixMilli(), CreatedAt: now.UnixMilli(),
			StreamID: st.id, Stream: st.arn, StreamAt: st.createdAt, Role: api.Val(in.ServiceExecutionRoleARN),
			Record: source.RecordConfiguration, S3: in.S3DestinationConfiguration, S3Tables: in.S3TablesDestinationConfiguration,
			Encryption: in.EncryptionConfiguration,
		}
		r.ARN = "arn:aws:kinesis:" + call.Region + ":" + call.Account + ":channel/" + name + "/" + r.ID
		r.fillDestination()
		if in.LoggingConfiguration != nil && in.LoggingConfiguration.CloudWatchLogs != nil {
			l := in.LoggingConfiguration.CloudWatchLogs
			r.setLogging(l.Enabled, l.LogGroupName, l.LogStreamName)
		} else {
			r.setLogging(nil, nil, nil)
		}
		ops := []meta.Op{channelTable.Insert(r, r.Account, r.Region, r.Name), st.update(st.record), touchAccount(account, use.account, nil)}
		if len(in.Tags) > 0 {
			ops = append(ops, meta.Op{Key: attributesTable.Key(r.ARN), Value: attributesTable.Encode(attributesRecord{Tags: in.Tags})})
		}
		conflict, err := s.commit(ctx, ops...)
		if err != nil {
			return nil, err
		}
		if !conflict {
			s.settleChannel(ctx, r.ARN)
			return &kinesis.CreateChannelOutput{ChannelDescription: r.describe()}, nil
		}
	}
}

// fillDestination writes the destination's defaults into the record, in copies:
// the input is the caller's.
func (r *channelRecord) fillDestination() {
	if r.S3 != nil {
		d := *r.S3
		if d.DataFreshnessInSeconds == nil {
			d.DataFreshnessInSeconds = api.Ptr(int32(defaultFreshness))
		}
		if d.DeadLetterQueueS3Configuration == nil && d.StorageConfiguration != nil {
			d.DeadLetterQueueS3Configuration = &kinesis.DeadLetterQueueS3Configuration{
				BucketARN: d.StorageConfiguration.BucketARN, ExpectedBucketOwner: d.StorageConfiguration.ExpectedBucketOwner,
				ErrorOutputPrefix: api.Ptr(defaultErrorPrefix),
			}
		}
		r.S3 = &d
	}
	if r.S3Tables != nil {
		d := *r.S3Tables
		if d.DataFreshnessInSeconds == nil {
			d.DataFreshnessInSeconds = api.Ptr(int32(defaultFreshness))
		}
		r.S3Tables = &d
	}
}

// checkChannel refuses configurations that the model lets pass.
func checkChannel(in *kinesis.CreateChannelInput) error {
	s3, tables := in.S3DestinationConfiguration, in.S3TablesDestinationConfiguration
	if (s3 == nil) == (tables == nil) {
		return validation("Exactly one of S3DestinationConfiguration and S3TablesDestinationConfiguration must be provided.")
	}
	if len(in.StreamConfigurationList) != 1 {
		return validation("StreamConfigurationList must have exactly one stream.")
	}
	record := in.StreamConfigurationList[0].RecordConfiguration
	if record == nil {
		return validation("RecordConfiguration must be provided.")
	}
	format := api.Val(record.RecordFormatType)
	freshness := (*int32)(nil)
	if s3 != nil {
		freshness = s3.DataFreshnessInSeconds
		if format == kinesis.RecordFormatTypeGsrJson {
			return validation("RecordFormatType %s is only supported for S3 table destinations.", format)
		}
	} else {
		freshness = tables.DataFreshnessInSeconds
		if format != kinesis.RecordFormatTypeGsrJson && format != kinesis.RecordFormatTypeJson {
			return validation("RecordFormatType %s is only supported for S3 bucket destinations.", format)
		}
		if record.GSRSchemaARN == nil {
			return validation("GSRSchemaARN is required for S3 table destinations.")
		}
		if len(tables.S3TablesConfigurationList) != 1 {
			return validation("S3TablesConfigurationList must have exactly one table.")
		}
	}
	return checkFreshness(freshness)
}

func checkFreshness(seconds *int32) error {
	if seconds != nil && *seconds < 1 {
		return validation("DataFreshnessInSeconds must be positive.")
	}
	return nil
}
