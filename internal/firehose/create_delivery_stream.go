package firehose

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// CreateDeliveryStream makes a delivery stream in the caller's account and
// region. It is CREATING when the call returns, and ACTIVE a moment later, or
// CREATING_FAILED if its key cannot be used. A name that exists in any state is
// ResourceInUse.
//
// Checks in order: the number of destinations, the source against the type,
// encryption, tags, the rules of the destination (validate.go), the name, quotas.
// Differs from the service: an S3 destination of the old form is described in
// both forms, like an extended one.
func (s *Service) CreateDeliveryStream(ctx context.Context, call *api.Call, in *firehose.CreateDeliveryStreamInput) (*firehose.CreateDeliveryStreamOutput, error) {
	name := streamName{call.Account, call.Region, api.Val(in.DeliveryStreamName)}
	d, err := destinationOf(in)
	if err != nil {
		return nil, err
	}
	record := streamRecord{Type: firehose.DeliveryStreamTypeDirectPut, Version: 1, Status: firehose.DeliveryStreamStatusCreating}
	if in.DeliveryStreamType != nil {
		record.Type = *in.DeliveryStreamType
	}
	if record.Source, err = s.source(ctx, call, record.Type, in); err != nil {
		return nil, err
	}
	if input := in.DeliveryStreamEncryptionConfigurationInput; input != nil {
		if record.Type != firehose.DeliveryStreamTypeDirectPut {
			return nil, invalidArgument("DeliveryStreamEncryptionConfigurationInput is only supported for delivery streams of type DirectPut, not for type %s.", record.Type)
		}
		e := &record.Encryption
		e.Status = firehose.DeliveryStreamEncryptionStatusEnabling
		if e.KeyType, e.KeyARN, err = encryptionInput(call, input); err != nil {
			return nil, err
		}
	}
	if record.Tags, err = mergeTags(name, nil, in.Tags); err != nil {
		return nil, err
	}
	if err := s.validate(ctx, call, record.Type, d); err != nil {
		return nil, err
	}
	id := make([]byte, 12)
	rand.Read(id)
	record.ID = hex.EncodeToString(id)
	s.conceal(&record, d)
	account := accountName{name.account, name.region}
	for {
		if s.registry.stream(name) != nil {
			return nil, resourceInUse("Firehose %s under accountId %s already exists", name.name, name.account)
		}
		total, underKey, state := s.registry.usage(account, record.Encryption.KeyARN)
		if total >= s.options.MaxStreams {
			return nil, limitExceeded("You have already consumed your firehose quota of %d hoses. Firehose names: %s", s.options.MaxStreams, s.someNames(account))
		}
		if s.options.Daily && record.Encryption.KeyARN != "" && underKey >= maxStreamsUnderKey {
			return nil, limitExceeded("The KMS key %s is in use by %d delivery streams, which is the limit.", record.Encryption.KeyARN, underKey)
		}
		record.CreatedAt = millis(s.now())
		record.Pending = &transition{Kind: creating, Due: s.due()}
		conflict, err := s.commit(ctx,
			streamTable.Insert(record, name.account, name.region, name.name),
			touchAccount(account, state))
		if err != nil {
			return nil, err
		}
		if !conflict {
			arn := name.arn()
			return &firehose.CreateDeliveryStreamOutput{DeliveryStreamARN: &arn}, nil
		}
	}
}

// someNames lists a few names for the text about the quota.
func (s *Service) someNames(a accountName) string {
	names := s.registry.names(a)
	out := "["
	for i, n := range names {
		if i == 10 {
			out += ", …"
			break
		}
		if i > 0 {
			out += ", "
		}
		out += n
	}
	return out + "]"
}

// destinationOf is the one destination of a request.
func destinationOf(in *firehose.CreateDeliveryStreamInput) (*destination, error) {
	d := &destination{
		ExtendedS3: in.ExtendedS3DestinationConfiguration, Redshift: in.RedshiftDestinationConfiguration,
		Elasticsearch: in.ElasticsearchDestinationConfiguration, OpenSearch: in.AmazonopensearchserviceDestinationConfiguration,
		Serverless: in.AmazonOpenSearchServerlessDestinationConfiguration, Splunk: in.SplunkDestinationConfiguration,
		HTTP: in.HttpEndpointDestinationConfiguration, Snowflake: in.SnowflakeDestinationConfiguration, Iceberg: in.IcebergDestinationConfiguration,
	}
	n := d.count()
	if in.S3DestinationConfiguration != nil {
		n++
		if d.ExtendedS3 == nil {
			d.ExtendedS3 = reshape[firehose.ExtendedS3DestinationConfiguration](in.S3DestinationConfiguration)
		}
	}
	if n != 1 {
		return nil, invalidArgument("Exactly one destination configuration is supported for a Firehose")
	}
	return d, nil
}

// conceal stores a destination in a record, its secrets sealed.
func (s *Service) conceal(record *streamRecord, d *destination) {
	d = d.clone()
	secrets := map[string]string{}
	for name, member := range d.secrets() {
		secrets[name] = **member
		*member = nil
	}
	record.Destination, record.Secrets = d, nil
	if len(secrets) > 0 {
		record.Secrets = s.keyring.SealSecret(secretPurpose(record.ID), encodeSecrets(secrets))
	}
}

// revealed is a delivery stream's destination with its secrets.
func (s *Service) revealed(st *stream) (*destination, error) {
	d := st.record.Destination.clone()
	if len(st.record.Secrets) == 0 {
		return d, nil
	}
	raw, err := s.keyring.OpenSecret(secretPurpose(st.record.ID), st.record.Secrets)
	if err != nil {
		return nil, &secretsError{st.name, err}
	}
	secrets, err := decodeSecrets(raw)
	if err != nil {
		return nil, &secretsError{st.name, err}
	}
	d.reveal(secrets)
	return d, nil
}

// secretPurpose binds sealed secrets to a delivery stream.
func secretPurpose(id string) string { return "firehose " + id }
