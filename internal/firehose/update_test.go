package firehose

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

func (r *rig) s3Update(name string, u *firehose.ExtendedS3DestinationUpdate) error {
	return r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: &name, ExtendedS3DestinationUpdate: u})
}

func (r *rig) extended(name string) *firehose.ExtendedS3DestinationDescription {
	r.t.Helper()
	return r.describe(name).Destinations[0].ExtendedS3DestinationDescription
}

func TestUpdatesNameTheVersionTheyChange(t *testing.T) {
	r := newRig(t, nil)
	st := r.mustCreate(input("s", minimal(kindS3)))
	if d := r.describe("s"); *d.VersionId != "1" || d.LastUpdateTimestamp != nil {
		t.Errorf("version %s, updated %v", *d.VersionId, d.LastUpdateTimestamp)
	}
	u := &firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), CurrentDeliveryStreamVersionId: api.Ptr("2"), ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{Prefix: api.Ptr("x/")}}
	wantError(t, r.update(u), "ConcurrentModificationException", "Cannot update firehose: s since the current version id: 1 and specified version id: 2 do not match")
	u.CurrentDeliveryStreamVersionId, u.DestinationId = api.Ptr("1"), api.Ptr("destinationId-000000000002")
	wantError(t, r.update(u), invalid, "Destination Id destinationId-000000000002 not found")
	u.DestinationId = nil
	if err := r.update(u); err != nil {
		t.Fatal(err)
	}
	d := r.describe("s")
	if *d.VersionId != "2" || d.LastUpdateTimestamp == nil || !d.LastUpdateTimestamp.Equal(r.time().Truncate(1e6)) || *d.DeliveryStreamStatus != firehose.DeliveryStreamStatusActive {
		t.Errorf("version %s, updated %v, %s", *d.VersionId, d.LastUpdateTimestamp, *d.DeliveryStreamStatus)
	}
	if got := r.engine.definition(st.record.ID).Version; got != 2 {
		t.Errorf("version %d runs", got)
	}
	wantError(t, r.update(u), "ConcurrentModificationException", "Cannot update firehose: s since the current version id: 2 and specified version id: 1 do not match")
	u.DeliveryStreamName = api.Ptr("nobody")
	_, err := r.UpdateDestination(t.Context(), r.call(), u)
	wantError(t, err, "ResourceNotFoundException", "Firehose nobody under account 123456789012 not found.")
}

func TestMembersThatAreGivenReplaceThoseThatAreStored(t *testing.T) {
	r := newRig(t, nil)
	d := minimal(kindS3)
	d.ExtendedS3.Prefix, d.ExtendedS3.BufferingHints, d.ExtendedS3.CompressionFormat = api.Ptr("a/"), sizes(3, 70), api.Ptr(firehose.CompressionFormatGzip)
	d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeAppendDelimiterToRecord), step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction))
	d.ExtendedS3.EncryptionConfiguration = &firehose.EncryptionConfiguration{KMSEncryptionConfig: &firehose.KMSEncryptionConfig{AWSKMSKeyARN: api.Ptr("arn:aws:kms:eu-central-1:123456789012:key/k")}}
	r.mustCreate(input("s", d))
	if err := r.s3Update("s", &firehose.ExtendedS3DestinationUpdate{CompressionFormat: api.Ptr(firehose.CompressionFormatZip)}); err != nil {
		t.Fatal(err)
	}
	got := r.extended("s")
	if *got.Prefix != "a/" || *got.BufferingHints.SizeInMBs != 3 || *got.CompressionFormat != firehose.CompressionFormatZip || len(got.ProcessingConfiguration.Processors) != 2 {
		t.Errorf("an update of one member gives %s", golden(t, got))
	}
	// Lists, processing and encryption are replaced whole.
	if err := r.s3Update("s", &firehose.ExtendedS3DestinationUpdate{
		ProcessingConfiguration: processing(step(firehose.ProcessorTypeAppendDelimiterToRecord)),
		EncryptionConfiguration: &firehose.EncryptionConfiguration{NoEncryptionConfig: api.Ptr(firehose.NoEncryptionConfigNoEncryption)},
		BufferingHints:          sizes(9, 90),
	}); err != nil {
		t.Fatal(err)
	}
	got = r.extended("s")
	if len(got.ProcessingConfiguration.Processors) != 1 || got.EncryptionConfiguration.KMSEncryptionConfig != nil || *got.BufferingHints.IntervalInSeconds != 90 {
		t.Errorf("replacing gives %s", golden(t, got))
	}
	// An update of the old form changes the same destination.
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), S3DestinationUpdate: &firehose.S3DestinationUpdate{Prefix: api.Ptr("b/")}}); err != nil {
		t.Fatal(err)
	}
	if got = r.extended("s"); *got.Prefix != "b/" || len(got.ProcessingConfiguration.Processors) != 1 {
		t.Errorf("the old form gives %s", golden(t, got))
	}
}

func TestConversionIsMergedDeeply(t *testing.T) {
	r := newRig(t, nil)
	d := minimal(kindS3)
	d.ExtendedS3.DataFormatConversionConfiguration = conversion()
	r.mustCreate(input("s", d))
	off := &firehose.DataFormatConversionConfiguration{Enabled: api.Ptr(false)}
	if err := r.s3Update("s", &firehose.ExtendedS3DestinationUpdate{DataFormatConversionConfiguration: off}); err != nil {
		t.Fatal(err)
	}
	got := r.extended("s").DataFormatConversionConfiguration
	if *got.Enabled || got.SchemaConfiguration == nil || *got.SchemaConfiguration.TableName != "events" || got.InputFormatConfiguration == nil || got.OutputFormatConfiguration == nil {
		t.Errorf("switching off leaves %s", golden(t, got))
	}
	if hints := r.extended("s").BufferingHints; *hints.SizeInMBs != 5 {
		t.Errorf("default size %d without conversion", *hints.SizeInMBs)
	}
	version := &firehose.DataFormatConversionConfiguration{Enabled: api.Ptr(true), SchemaConfiguration: &firehose.SchemaConfiguration{VersionId: api.Ptr("3")}}
	if err := r.s3Update("s", &firehose.ExtendedS3DestinationUpdate{DataFormatConversionConfiguration: version}); err != nil {
		t.Fatal(err)
	}
	got = r.extended("s").DataFormatConversionConfiguration
	if !*got.Enabled || *got.SchemaConfiguration.VersionId != "3" || *got.SchemaConfiguration.DatabaseName != "db" {
		t.Errorf("a schema's version gives %s", golden(t, got))
	}
	if hints := r.extended("s").BufferingHints; *hints.SizeInMBs != 128 {
		t.Errorf("default size %d with conversion", *hints.SizeInMBs)
	}
	// The merged result is what the rules hold for.
	bad := &firehose.DataFormatConversionConfiguration{OutputFormatConfiguration: &firehose.OutputFormatConfiguration{Serializer: &firehose.Serializer{OrcSerDe: &firehose.OrcSerDe{}}}}
	if err := r.s3Update("s", &firehose.ExtendedS3DestinationUpdate{DataFormatConversionConfiguration: bad}); err != nil {
		t.Errorf("another serializer takes the place of the first: %v", err)
	}
	wantError(t, r.s3Update("s", &firehose.ExtendedS3DestinationUpdate{CompressionFormat: api.Ptr(firehose.CompressionFormatGzip)}), invalid,
		"S3 compression format must be set to UNCOMPRESSED when data format conversion is enabled.")
}

func TestBackupsAreMerged(t *testing.T) {
	r := newRig(t, nil)
	d := minimal(kindSplunk)
	d.Splunk.S3Configuration.Prefix = api.Ptr("a/")
	r.mustCreate(input("s", d))
	u := &firehose.SplunkDestinationUpdate{S3Update: &firehose.S3DestinationUpdate{CompressionFormat: api.Ptr(firehose.CompressionFormatGzip)}, HECToken: api.Ptr("another")}
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), SplunkDestinationUpdate: u}); err != nil {
		t.Fatal(err)
	}
	got := r.describe("s").Destinations[0].SplunkDestinationDescription
	if *got.S3DestinationDescription.Prefix != "a/" || *got.S3DestinationDescription.CompressionFormat != firehose.CompressionFormatGzip || *got.HECToken != "another" {
		t.Errorf("merged into %s", golden(t, got))
	}
	// A backup that is not there yet needs all of its members.
	r.mustCreate(input("e", minimal(kindS3)))
	half := &firehose.ExtendedS3DestinationUpdate{S3BackupMode: api.Ptr(firehose.S3BackupModeEnabled), S3BackupUpdate: &firehose.S3DestinationUpdate{RoleARN: api.Ptr(testRole)}}
	wantError(t, r.s3Update("e", half), "ValidationException", "1 validation error detected: Value null at 'extendedS3DestinationUpdate.s3BackupConfiguration.bucketARN' failed to satisfy constraint: Member must not be null")
	half.S3BackupUpdate.BucketARN = api.Ptr(testBucket)
	if err := r.s3Update("e", half); err != nil {
		t.Fatal(err)
	}
	if r.extended("e").S3BackupDescription == nil {
		t.Error("no backup")
	}
}

func TestAnAccessKeySurvivesAnotherName(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindHTTP)))
	u := &firehose.HttpEndpointDestinationUpdate{EndpointConfiguration: &firehose.HttpEndpointConfiguration{Url: api.Ptr("https://elsewhere.example.com/")}}
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), HttpEndpointDestinationUpdate: u}); err != nil {
		t.Fatal(err)
	}
	d, err := r.revealed(r.get("s"))
	if err != nil {
		t.Fatal(err)
	}
	if e := d.HTTP.EndpointConfiguration; *e.Url != "https://elsewhere.example.com/" || *e.AccessKey != "key" || *e.Name != "logs" {
		t.Errorf("merged into %s", golden(t, e))
	}
}

func TestADomainTakesTheEndpointsPlace(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindElasticsearch)))
	u := &firehose.ElasticsearchDestinationUpdate{DomainARN: api.Ptr("arn:aws:es:eu-central-1:123456789012:domain/search")}
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), ElasticsearchDestinationUpdate: u}); err != nil {
		t.Fatal(err)
	}
	if d := r.describe("s").Destinations[0].ElasticsearchDestinationDescription; d.ClusterEndpoint != nil || d.DomainARN == nil {
		t.Errorf("merged into %s", golden(t, d))
	}
}

func TestOtherTypesNeedEverything(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindS3)))
	wantError(t, r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), SplunkDestinationUpdate: &firehose.SplunkDestinationUpdate{HECToken: api.Ptr("t")}}),
		"ValidationException", "3 validation errors detected: Value null at 'splunkDestinationUpdate.hECEndpoint' failed to satisfy constraint: Member must not be null; …")
	full := reshape[firehose.SplunkDestinationUpdate](minimal(kindSplunk).Splunk)
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), SplunkDestinationUpdate: full}); err != nil {
		t.Fatal(err)
	}
	d := r.describe("s").Destinations[0]
	if d.SplunkDestinationDescription == nil || d.ExtendedS3DestinationDescription != nil || d.S3DestinationDescription != nil || *d.DestinationId != destinationID {
		t.Errorf("now it is %s", golden(t, d))
	}
	for i, refused := range []struct {
		from kind
		u    firehose.UpdateDestinationInput
		text string
	}{
		{kindS3, firehose.UpdateDestinationInput{HttpEndpointDestinationUpdate: reshape[firehose.HttpEndpointDestinationUpdate](minimal(kindHTTP).HTTP)},
			"The destination of a delivery stream cannot be changed from S3 to HTTP endpoint."},
		{kindHTTP, firehose.UpdateDestinationInput{ExtendedS3DestinationUpdate: reshape[firehose.ExtendedS3DestinationUpdate](minimal(kindS3).ExtendedS3)},
			"The destination of a delivery stream cannot be changed from HTTP endpoint to S3."},
		{kindElasticsearch, firehose.UpdateDestinationInput{AmazonopensearchserviceDestinationUpdate: reshape[firehose.AmazonopensearchserviceDestinationUpdate](minimal(kindOpenSearch).OpenSearch)},
			"The destination of a delivery stream cannot be changed from Elasticsearch to OpenSearch."},
		{kindServerless, firehose.UpdateDestinationInput{ExtendedS3DestinationUpdate: reshape[firehose.ExtendedS3DestinationUpdate](minimal(kindS3).ExtendedS3)},
			"The destination of a delivery stream cannot be changed from OpenSearch Serverless to S3."},
	} {
		name := fmt.Sprint("from-", i)
		r.mustCreate(input(name, minimal(refused.from)))
		u := refused.u
		u.DeliveryStreamName = &name
		wantError(t, r.update(&u), invalid, refused.text)
	}
}

func TestWhatCannotBeChangedBack(t *testing.T) {
	r := newRig(t, nil)
	backup := func(d *destination) {
		d.ExtendedS3.S3BackupMode, d.ExtendedS3.S3BackupConfiguration = api.Ptr(firehose.S3BackupModeEnabled), s3Block()
	}
	for i, test := range []struct {
		kind  kind
		given func(d *destination)
		u     firehose.UpdateDestinationInput
		text  string
	}{
		{kindS3, backup, firehose.UpdateDestinationInput{ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{S3BackupMode: api.Ptr(firehose.S3BackupModeDisabled)}},
			"S3BackupMode cannot be changed from Enabled to Disabled: once it is Enabled, it stays so."},
		{kindRedshift, func(d *destination) {
			d.Redshift.S3BackupMode, d.Redshift.S3BackupConfiguration = api.Ptr(firehose.RedshiftS3BackupModeEnabled), s3Block()
		}, firehose.UpdateDestinationInput{RedshiftDestinationUpdate: &firehose.RedshiftDestinationUpdate{S3BackupMode: api.Ptr(firehose.RedshiftS3BackupModeDisabled)}},
			"S3BackupMode cannot be changed from Enabled to Disabled: once it is Enabled, it stays so."},
		{kindSplunk, func(d *destination) { d.Splunk.S3BackupMode = api.Ptr(firehose.SplunkS3BackupModeAllEvents) },
			firehose.UpdateDestinationInput{SplunkDestinationUpdate: &firehose.SplunkDestinationUpdate{S3BackupMode: api.Ptr(firehose.SplunkS3BackupModeFailedEventsOnly)}},
			"S3BackupMode cannot be changed from AllEvents to FailedEventsOnly: once it is AllEvents, it stays so."},
		{kindSnowflake, func(d *destination) { d.Snowflake.S3BackupMode = api.Ptr(firehose.SnowflakeS3BackupModeAllData) },
			firehose.UpdateDestinationInput{SnowflakeDestinationUpdate: &firehose.SnowflakeDestinationUpdate{S3BackupMode: api.Ptr(firehose.SnowflakeS3BackupModeFailedDataOnly)}},
			"S3BackupMode cannot be changed from AllData to FailedDataOnly: once it is AllData, it stays so."},
		{kindHTTP, func(d *destination) { d.HTTP.S3BackupMode = api.Ptr(firehose.HttpEndpointS3BackupModeAllData) },
			firehose.UpdateDestinationInput{HttpEndpointDestinationUpdate: &firehose.HttpEndpointDestinationUpdate{S3BackupMode: api.Ptr(firehose.HttpEndpointS3BackupModeFailedDataOnly)}}, ""},
		{kindSplunk, func(*destination) {}, firehose.UpdateDestinationInput{SplunkDestinationUpdate: &firehose.SplunkDestinationUpdate{S3BackupMode: api.Ptr(firehose.SplunkS3BackupModeAllEvents)}}, ""},
		{kindS3, partitioned, firehose.UpdateDestinationInput{ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{DynamicPartitioningConfiguration: &firehose.DynamicPartitioningConfiguration{Enabled: api.Ptr(false)}}},
			"Dynamic Partitioning cannot be disabled once it is enabled."},
		{kindS3, func(*destination) {}, firehose.UpdateDestinationInput{ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{DynamicPartitioningConfiguration: &firehose.DynamicPartitioningConfiguration{Enabled: api.Ptr(true)}}},
			"Dynamic Partitioning can only be enabled when the delivery stream is created."},
		{kindS3, partitioned, firehose.UpdateDestinationInput{ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{
			Prefix:                  api.Ptr("b=!{partitionKeyFromQuery:b}/"),
			ProcessingConfiguration: processing(step(firehose.ProcessorTypeMetadataExtraction, "MetadataExtractionQuery", "{b: .b}", "JsonParsingEngine", "JQ-1.6"))}}, ""},
		{kindIceberg, func(*destination) {}, firehose.UpdateDestinationInput{IcebergDestinationUpdate: &firehose.IcebergDestinationUpdate{AppendOnly: api.Ptr(true)}},
			"AppendOnly can only be set when the delivery stream is created."},
	} {
		t.Run(strconv.Itoa(i)+" "+test.kind.String(), func(t *testing.T) {
			name := fmt.Sprint("s", i)
			d := minimal(test.kind)
			test.given(d)
			r.mustCreate(input(name, d))
			u := test.u
			u.DeliveryStreamName = &name
			err := r.update(&u)
			if test.text != "" {
				wantError(t, err, invalid, test.text)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
