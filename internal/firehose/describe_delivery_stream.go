package firehose

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// destinationID is the id of a delivery stream's only destination.
const destinationID = "destinationId-000000000001"

// DescribeDeliveryStream describes a delivery stream in any state, with the
// defaults that are in force filled in. Passwords, access keys and private keys
// are not shown. A page behind the only destination is empty.
func (s *Service) DescribeDeliveryStream(ctx context.Context, call *api.Call, in *firehose.DescribeDeliveryStreamInput) (*firehose.DescribeDeliveryStreamOutput, error) {
	st, err := s.resolve(call, in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	start := s.now()
	d, err := s.revealed(st)
	if err != nil {
		return nil, err
	}
	defer func() {
		st.series.Add(describeRequests, 1)
		st.series.Add(describeLatency, since(start, s.now()))
	}()
	record := &st.record
	out := &firehose.DeliveryStreamDescription{
		DeliveryStreamName: &st.name, DeliveryStreamARN: &st.arn, DeliveryStreamStatus: &record.Status, DeliveryStreamType: &record.Type,
		FailureDescription: record.Failure.describe(), VersionId: api.Ptr(strconv.Itoa(record.Version)),
		CreateTimestamp: api.Ptr(time.UnixMilli(record.CreatedAt)), Source: st.describeSource(),
		Destinations: []firehose.DestinationDescription{}, HasMoreDestinations: api.Ptr(false),
	}
	if record.UpdatedAt != 0 {
		out.LastUpdateTimestamp = api.Ptr(time.UnixMilli(record.UpdatedAt))
	}
	if record.Type == firehose.DeliveryStreamTypeDirectPut {
		out.DeliveryStreamEncryptionConfiguration = record.Encryption.describe()
	}
	if api.Val(in.ExclusiveStartDestinationId) < destinationID {
		out.Destinations = append(out.Destinations, d.effective().describe())
	}
	return &firehose.DescribeDeliveryStreamOutput{DeliveryStreamDescription: out}, nil
}

func (f *failureRecord) describe() *firehose.FailureDescription {
	if f == nil {
		return nil
	}
	return &firehose.FailureDescription{Type: &f.Type, Details: &f.Details}
}

func (e encryptionRecord) describe() *firehose.DeliveryStreamEncryptionConfiguration {
	out := &firehose.DeliveryStreamEncryptionConfiguration{Status: api.Ptr(firehose.DeliveryStreamEncryptionStatusDisabled), FailureDescription: e.Failure.describe()}
	if e.Status != "" {
		out.Status = &e.Status
	}
	if e.KeyType != "" {
		out.KeyType = &e.KeyType
	}
	if e.KeyARN != "" {
		out.KeyARN = &e.KeyARN
	}
	return out
}

// describeSource shows where records come from; nil for direct puts without
// settings of their own.
func (st *stream) describeSource() *firehose.SourceDescription {
	start := api.Ptr(time.UnixMilli(st.record.CreatedAt))
	switch source := &st.record.Source; {
	case source.Kinesis != nil:
		return &firehose.SourceDescription{KinesisStreamSourceDescription: &firehose.KinesisStreamSourceDescription{
			KinesisStreamARN: source.Kinesis.KinesisStreamARN, RoleARN: source.Kinesis.RoleARN, DeliveryStartTimestamp: start,
		}}
	case source.MSK != nil:
		out := &firehose.MSKSourceDescription{
			MSKClusterARN: &source.MSK.ClusterARN, TopicName: &source.MSK.Topic, DeliveryStartTimestamp: start,
			AuthenticationConfiguration: &firehose.AuthenticationConfiguration{RoleARN: &source.MSK.RoleARN, Connectivity: api.Ptr(firehose.Connectivity(source.MSK.Connectivity))},
		}
		if source.MSK.ReadFrom != nil {
			out.ReadFromTimestamp = api.Ptr(time.UnixMilli(*source.MSK.ReadFrom))
		}
		return &firehose.SourceDescription{MSKSourceDescription: out}
	case source.DirectPut != nil:
		return &firehose.SourceDescription{DirectPutSourceDescription: reshape[firehose.DirectPutSourceDescription](source.DirectPut)}
	}
	return nil
}

// describe shows an effective destination. Members go by name; what the
// description has no name for, such as secrets, stays behind.
func (d *destination) describe() firehose.DestinationDescription {
	out := firehose.DestinationDescription{DestinationId: api.Ptr(destinationID)}
	switch {
	case d.ExtendedS3 != nil:
		out.ExtendedS3DestinationDescription = reshape[firehose.ExtendedS3DestinationDescription](d.ExtendedS3)
		out.S3DestinationDescription = reshape[firehose.S3DestinationDescription](d.ExtendedS3)
	case d.Redshift != nil:
		out.RedshiftDestinationDescription = reshape[firehose.RedshiftDestinationDescription](d.Redshift)
	case d.Elasticsearch != nil:
		out.ElasticsearchDestinationDescription = reshape[firehose.ElasticsearchDestinationDescription](d.Elasticsearch)
		describeVPC(out.ElasticsearchDestinationDescription.VpcConfigurationDescription)
	case d.OpenSearch != nil:
		out.AmazonopensearchserviceDestinationDescription = reshape[firehose.AmazonopensearchserviceDestinationDescription](d.OpenSearch)
		describeVPC(out.AmazonopensearchserviceDestinationDescription.VpcConfigurationDescription)
	case d.Serverless != nil:
		out.AmazonOpenSearchServerlessDestinationDescription = reshape[firehose.AmazonOpenSearchServerlessDestinationDescription](d.Serverless)
		describeVPC(out.AmazonOpenSearchServerlessDestinationDescription.VpcConfigurationDescription)
	case d.Splunk != nil:
		out.SplunkDestinationDescription = reshape[firehose.SplunkDestinationDescription](d.Splunk)
	case d.HTTP != nil:
		out.HttpEndpointDestinationDescription = reshape[firehose.HttpEndpointDestinationDescription](d.HTTP)
	case d.Snowflake != nil:
		out.SnowflakeDestinationDescription = reshape[firehose.SnowflakeDestinationDescription](d.Snowflake)
	case d.Iceberg != nil:
		out.IcebergDestinationDescription = reshape[firehose.IcebergDestinationDescription](d.Iceberg)
	}
	return out
}

// describeVPC names the network that subnets belong to. There are no networks
// here, so the name only has to be the same for the same subnets.
func describeVPC(v *firehose.VpcConfigurationDescription) {
	if v == nil {
		return
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(v.SubnetIds)), " ")))
	v.VpcId = api.Ptr("vpc-" + hex.EncodeToString(sum[:])[:17])
}
