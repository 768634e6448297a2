package firehose

import (
	"context"
	"errors"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// source checks the source of a new delivery stream against its type.
// DatabaseAsSource is refused: the service has withdrawn it.
func (s *Service) source(ctx context.Context, call *api.Call, t firehose.DeliveryStreamType, in *firehose.CreateDeliveryStreamInput) (sourceRecord, error) {
	var none sourceRecord
	blocks := []struct {
		of    firehose.DeliveryStreamType
		name  string
		given bool
	}{
		{firehose.DeliveryStreamTypeDirectPut, "DirectPutSourceConfiguration", in.DirectPutSourceConfiguration != nil},
		{firehose.DeliveryStreamTypeKinesisStreamAsSource, "KinesisStreamSourceConfiguration", in.KinesisStreamSourceConfiguration != nil},
		{firehose.DeliveryStreamTypeMSKAsSource, "MSKSourceConfiguration", in.MSKSourceConfiguration != nil},
		{firehose.DeliveryStreamTypeDatabaseAsSource, "DatabaseSourceConfiguration", in.DatabaseSourceConfiguration != nil},
	}
	for _, b := range blocks {
		switch {
		case b.given && b.of != t:
			return none, invalidArgument("%s can only be specified for delivery streams of type %s, not for type %s.", b.name, b.of, t)
		case !b.given && b.of == t && t != firehose.DeliveryStreamTypeDirectPut:
			return none, invalidArgument("%s is required for delivery streams of type %s.", b.name, t)
		}
	}
	switch t {
	case firehose.DeliveryStreamTypeDatabaseAsSource:
		return none, invalidArgument("DeliveryStreamType DatabaseAsSource is not supported: database sources are no longer available.")
	case firehose.DeliveryStreamTypeKinesisStreamAsSource:
		c := in.KinesisStreamSourceConfiguration
		arn := *c.KinesisStreamARN
		if arnRegion(arn) != call.Region {
			return none, invalidArgument("The Kinesis stream %s is not in the region of the delivery stream, %s.", arn, call.Region)
		}
		if arnAccount(arn) != call.Account {
			return none, invalidArgument("The Kinesis stream %s does not belong to the account of the delivery stream, %s.", arn, call.Account)
		}
		if err := s.checkRoles(call, *c.RoleARN); err != nil {
			return none, err
		}
		if s.options.Parts.StreamExists != nil {
			if err := s.options.Parts.StreamExists(ctx, arn); err != nil {
				reason := err.Error()
				var modelled api.Error
				if errors.As(err, &modelled) {
					reason = modelled.ErrorMessage()
				}
				return none, invalidArgument("The Kinesis stream %s cannot be read: %s", arn, reason)
			}
		}
		return sourceRecord{Kinesis: reshape[firehose.KinesisStreamSourceConfiguration](c)}, nil
	case firehose.DeliveryStreamTypeMSKAsSource:
		c := in.MSKSourceConfiguration
		if len(s.options.Parts.Topics[*c.MSKClusterARN]) == 0 {
			return none, invalidArgument("The MSK cluster %s is not known: the operator has not said where its brokers are.", *c.MSKClusterARN)
		}
		if err := s.checkRoles(call, *c.AuthenticationConfiguration.RoleARN); err != nil {
			return none, err
		}
		m := &mskSource{
			ClusterARN: *c.MSKClusterARN, Topic: *c.TopicName,
			RoleARN: *c.AuthenticationConfiguration.RoleARN, Connectivity: string(*c.AuthenticationConfiguration.Connectivity),
		}
		if c.ReadFromTimestamp != nil {
			m.ReadFrom = api.Ptr(millis(*c.ReadFromTimestamp))
		}
		return sourceRecord{MSK: m}, nil
	}
	if in.DirectPutSourceConfiguration != nil {
		return sourceRecord{DirectPut: reshape[firehose.DirectPutSourceConfiguration](in.DirectPutSourceConfiguration)}, nil
	}
	return none, nil
}
