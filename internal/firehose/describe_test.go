package firehose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// golden writes a shape as JSON, without what is not set.
func golden(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	raw, err = json.MarshalIndent(withoutNulls(tree), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw) + "\n"
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update rewrites it\n%s", path, got)
	}
}

// What clients such as Terraform read back after creating: every kind with the
// least that it needs, where all else is defaults, and with everything set.
func TestDescriptionsOfEveryKind(t *testing.T) {
	r := newRig(t, nil)
	for k := range kinds {
		for _, form := range []string{"minimal", "full"} {
			name := strings.ToLower(strings.ReplaceAll(k.String(), " ", "-")) + "-" + form
			t.Run(name, func(t *testing.T) {
				d := minimal(k)
				if form == "full" {
					fillIn(d)
				}
				r.mustCreate(input(name, d))
				compareGolden(t, "describe/"+name+".json", golden(t, r.describe(name)))
			})
		}
	}
}

// fillIn sets what can be set in a configuration.
func fillIn(d *destination) {
	logging := func(group string) *firehose.CloudWatchLoggingOptions {
		return &firehose.CloudWatchLoggingOptions{Enabled: api.Ptr(true), LogGroupName: &group, LogStreamName: api.Ptr("DestinationDelivery")}
	}
	kms := &firehose.EncryptionConfiguration{KMSEncryptionConfig: &firehose.KMSEncryptionConfig{AWSKMSKeyARN: api.Ptr("arn:aws:kms:eu-central-1:123456789012:key/k")}}
	full := func(c *firehose.S3DestinationConfiguration) *firehose.S3DestinationConfiguration {
		c.Prefix, c.ErrorOutputPrefix = api.Ptr("in/!{timestamp:yyyy}/"), api.Ptr("out/!{firehose:error-output-type}/")
		c.BufferingHints, c.CompressionFormat = sizes(10, 60), api.Ptr(firehose.CompressionFormatGzip)
		c.EncryptionConfiguration, c.CloudWatchLoggingOptions = kms, logging("/backup")
		return c
	}
	function := processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction+":live", "NumberOfRetries", "3"))
	secret := testSecret()
	secret.RoleARN = api.Ptr(testRole)
	vpc := &firehose.VpcConfiguration{SubnetIds: []string{"subnet-1", "subnet-2"}, RoleARN: api.Ptr(testRole), SecurityGroupIds: []string{"sg-1"}}
	switch {
	case d.ExtendedS3 != nil:
		partitioned(d)
		c := d.ExtendedS3
		c.BufferingHints, c.EncryptionConfiguration, c.CloudWatchLoggingOptions = sizes(64, 60), kms, logging("/main")
		c.ProcessingConfiguration.Processors = append(c.ProcessingConfiguration.Processors, function.Processors[0], step(firehose.ProcessorTypeAppendDelimiterToRecord))
		c.S3BackupMode, c.S3BackupConfiguration = api.Ptr(firehose.S3BackupModeEnabled), full(s3Block())
		c.DataFormatConversionConfiguration = conversion()
		c.DataFormatConversionConfiguration.OutputFormatConfiguration.Serializer.ParquetSerDe.Compression = api.Ptr(firehose.ParquetCompressionGzip)
		c.DataFormatConversionConfiguration.InputFormatConfiguration.Deserializer.OpenXJsonSerDe.ColumnToJsonKeyMappings = map[string]string{"id": "ID"}
		c.FileExtension, c.CustomTimeZone = api.Ptr(".parquet"), api.Ptr("Europe/Berlin")
	case d.Redshift != nil:
		c := d.Redshift
		c.CopyCommand.DataTableColumns, c.CopyCommand.CopyOptions = api.Ptr("a, b"), api.Ptr("JSON 'auto' GZIP")
		c.RetryOptions = &firehose.RedshiftRetryOptions{DurationInSeconds: api.Ptr(int32(0))}
		c.S3Configuration = full(c.S3Configuration)
		c.S3Configuration.Prefix, c.S3Configuration.ErrorOutputPrefix = api.Ptr("stage/"), nil
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions = function, logging("/main")
		c.S3BackupMode, c.S3BackupConfiguration = api.Ptr(firehose.RedshiftS3BackupModeEnabled), full(s3Block())
	case d.Elasticsearch != nil:
		c := d.Elasticsearch
		c.ClusterEndpoint, c.DomainARN = nil, api.Ptr("arn:aws:es:eu-central-1:123456789012:domain/search")
		c.TypeName, c.IndexRotationPeriod = api.Ptr("doc"), api.Ptr(firehose.ElasticsearchIndexRotationPeriodOneWeek)
		c.BufferingHints = &firehose.ElasticsearchBufferingHints{SizeInMBs: api.Ptr(int32(1)), IntervalInSeconds: api.Ptr(int32(60))}
		c.RetryOptions = &firehose.ElasticsearchRetryOptions{DurationInSeconds: api.Ptr(int32(7200))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.ElasticsearchS3BackupModeAllDocuments), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions, c.VpcConfiguration = function, logging("/main"), vpc
		c.DocumentIdOptions = &firehose.DocumentIdOptions{DefaultDocumentIdFormat: api.Ptr(firehose.DefaultDocumentIdFormatNoDocumentId)}
	case d.OpenSearch != nil:
		c := d.OpenSearch
		c.IndexRotationPeriod = api.Ptr(firehose.AmazonopensearchserviceIndexRotationPeriodNoRotation)
		c.BufferingHints = &firehose.AmazonopensearchserviceBufferingHints{SizeInMBs: api.Ptr(int32(100)), IntervalInSeconds: api.Ptr(int32(0))}
		c.RetryOptions = &firehose.AmazonopensearchserviceRetryOptions{DurationInSeconds: api.Ptr(int32(10))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.AmazonopensearchserviceS3BackupModeAllDocuments), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions, c.VpcConfiguration = function, logging("/main"), vpc
	case d.Serverless != nil:
		c := d.Serverless
		c.BufferingHints = &firehose.AmazonOpenSearchServerlessBufferingHints{SizeInMBs: api.Ptr(int32(2)), IntervalInSeconds: api.Ptr(int32(61))}
		c.RetryOptions = &firehose.AmazonOpenSearchServerlessRetryOptions{DurationInSeconds: api.Ptr(int32(11))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.AmazonOpenSearchServerlessS3BackupModeAllDocuments), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions, c.VpcConfiguration = function, logging("/main"), vpc
	case d.Splunk != nil:
		c := d.Splunk
		c.HECAcknowledgmentTimeoutInSeconds = api.Ptr(int32(300))
		c.RetryOptions = &firehose.SplunkRetryOptions{DurationInSeconds: api.Ptr(int32(12))}
		c.BufferingHints = &firehose.SplunkBufferingHints{SizeInMBs: api.Ptr(int32(1)), IntervalInSeconds: api.Ptr(int32(0))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.SplunkS3BackupModeAllEvents), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions, c.SecretsManagerConfiguration = function, logging("/main"), secret
	case d.HTTP != nil:
		c := d.HTTP
		c.BufferingHints = &firehose.HttpEndpointBufferingHints{SizeInMBs: api.Ptr(int32(64)), IntervalInSeconds: api.Ptr(int32(900))}
		c.RequestConfiguration = &firehose.HttpEndpointRequestConfiguration{CommonAttributes: []firehose.HttpEndpointCommonAttribute{{AttributeName: api.Ptr("env"), AttributeValue: api.Ptr("")}}}
		c.RetryOptions = &firehose.HttpEndpointRetryOptions{DurationInSeconds: api.Ptr(int32(13))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.HttpEndpointS3BackupModeAllData), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions, c.SecretsManagerConfiguration = function, logging("/main"), secret
	case d.Snowflake != nil:
		c := d.Snowflake
		c.SnowflakeRoleConfiguration = &firehose.SnowflakeRoleConfiguration{Enabled: api.Ptr(true), SnowflakeRole: api.Ptr("WRITER")}
		c.DataLoadingOption = api.Ptr(firehose.SnowflakeDataLoadingOptionVariantContentAndMetadataMapping)
		c.ContentColumnName, c.MetaDataColumnName = api.Ptr("CONTENT"), api.Ptr("META")
		c.SnowflakeVpcConfiguration = &firehose.SnowflakeVpcConfiguration{PrivateLinkVpceId: api.Ptr("com.amazonaws.vpce.eu-central-1.vpce-svc-01234567890abcdef")}
		c.RetryOptions = &firehose.SnowflakeRetryOptions{DurationInSeconds: api.Ptr(int32(14))}
		c.BufferingHints = &firehose.SnowflakeBufferingHints{SizeInMBs: api.Ptr(int32(128)), IntervalInSeconds: api.Ptr(int32(900))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.SnowflakeS3BackupModeAllData), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions = function, logging("/main")
	case d.Iceberg != nil:
		c := d.Iceberg
		c.DestinationTableConfigurationList[0].UniqueKeys = []string{"id"}
		c.DestinationTableConfigurationList[0].PartitionSpec = &firehose.PartitionSpec{Identity: []firehose.PartitionField{{SourceName: api.Ptr("day")}}}
		c.DestinationTableConfigurationList[0].S3ErrorOutputPrefix = api.Ptr("errors/")
		c.BufferingHints, c.RetryOptions = sizes(128, 900), &firehose.RetryOptions{DurationInSeconds: api.Ptr(int32(15))}
		c.S3BackupMode, c.S3Configuration = api.Ptr(firehose.IcebergS3BackupModeFailedDataOnly), full(c.S3Configuration)
		c.ProcessingConfiguration, c.CloudWatchLoggingOptions, c.AppendOnly = function, logging("/main"), api.Ptr(true)
	}
}

// Every member of a configuration that the description has too is shown as it
// was given: a member that the model adds cannot be forgotten.
func TestWhatIsGivenIsShown(t *testing.T) {
	hidden := map[string]bool{"Password": true, "AccessKey": true, "PrivateKey": true, "KeyPassphrase": true}
	var compare func(t *testing.T, path string, given, shown reflect.Value)
	compare = func(t *testing.T, path string, given, shown reflect.Value) {
		for given.Kind() == reflect.Pointer {
			if given.IsNil() {
				return
			}
			if shown.IsNil() {
				t.Errorf("%s is not shown", path)
				return
			}
			given, shown = given.Elem(), shown.Elem()
		}
		switch given.Kind() {
		case reflect.Struct:
			for i := range given.NumField() {
				name := given.Type().Field(i).Name
				f := shown.FieldByName(name)
				if !f.IsValid() {
					f = shown.FieldByName(reverse(shown.Type(), name))
				}
				if !f.IsValid() {
					if !hidden[name] && !given.Field(i).IsZero() {
						t.Errorf("%s.%s has no place in the description", path, name)
					}
					continue
				}
				compare(t, path+"."+name, given.Field(i), f)
			}
		case reflect.Slice:
			if given.Len() != shown.Len() {
				t.Errorf("%s has %d entries, shown are %d", path, given.Len(), shown.Len())
				return
			}
			for i := range given.Len() {
				compare(t, fmt.Sprintf("%s[%d]", path, i), given.Index(i), shown.Index(i))
			}
		default:
			if got, want := fmt.Sprint(shown), fmt.Sprint(given); got != want {
				t.Errorf("%s is %s, given was %s", path, got, want)
			}
		}
	}
	for k := range kinds {
		d := minimal(k)
		fillIn(d)
		out := d.effective().describe()
		v := reflect.ValueOf(out)
		shown := v.FieldByName([...]string{"ExtendedS3DestinationDescription", "RedshiftDestinationDescription", "ElasticsearchDestinationDescription",
			"AmazonopensearchserviceDestinationDescription", "AmazonOpenSearchServerlessDestinationDescription", "SplunkDestinationDescription",
			"HttpEndpointDestinationDescription", "SnowflakeDestinationDescription", "IcebergDestinationDescription"}[k])
		compare(t, k.String(), reflect.ValueOf(d.config()), shown)
	}
}

// No secret leaves in a description, and none is in metadata in clear.
func TestSecretsStayInside(t *testing.T) {
	r := newRig(t, nil)
	secrets := map[kind][]string{
		kindRedshift: {"Secret12"}, kindHTTP: {"\"key\""}, kindSnowflake: {testPrivateKey(), "passphrase"}, kindSplunk: {"11111111-2222-3333-4444-555555555555"},
	}
	for k, hidden := range secrets {
		name := fmt.Sprint("s", int(k))
		st := r.mustCreate(input(name, minimal(k)))
		shown := golden(t, r.describe(name))
		stored, _ := r.Service.meta.Get(streamTable.Key(testAccount, testRegion, name))
		for _, secret := range hidden {
			if k != kindSplunk && strings.Contains(shown, secret) { // a collector's token is shown
				t.Errorf("%s: the description has %.20s", k, secret)
			}
			if bytes.Contains(stored.Value, []byte(strings.Trim(secret, `"`))) && k != kindHTTP {
				t.Errorf("%s: metadata has %.20s", k, secret)
			}
		}
		if len(st.record.Secrets) == 0 {
			t.Errorf("%s has no sealed secrets", k)
		}
		// Sealed secrets do not open in another delivery stream's place.
		moved := *st
		moved.record.ID = "another"
		if _, err := r.revealed(&moved); err == nil {
			t.Errorf("%s: secrets open elsewhere", k)
		}
		d, err := r.revealed(st)
		if err != nil || golden(t, d) != golden(t, minimal(k)) {
			t.Errorf("%s: secrets do not come back: %v", k, err)
		}
	}
	if d := r.describe(fmt.Sprint("s", int(kindSplunk))); *d.Destinations[0].SplunkDestinationDescription.HECToken == "" {
		t.Error("a collector's token is part of its description")
	}
}

func TestDescribeSources(t *testing.T) {
	r := newRig(t, nil)
	in := input("direct", minimal(kindS3))
	in.DirectPutSourceConfiguration = &firehose.DirectPutSourceConfiguration{ThroughputHintInMBs: api.Ptr(int32(7))}
	r.mustCreate(in)
	in = input("stream", minimal(kindS3))
	in.DeliveryStreamType = api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource)
	in.KinesisStreamSourceConfiguration = &firehose.KinesisStreamSourceConfiguration{KinesisStreamARN: api.Ptr("arn:aws:kinesis:eu-central-1:123456789012:stream/s"), RoleARN: api.Ptr(testRole)}
	r.mustCreate(in)
	in = input("topic", minimal(kindS3))
	in.DeliveryStreamType = api.Ptr(firehose.DeliveryStreamTypeMSKAsSource)
	in.MSKSourceConfiguration = &firehose.MSKSourceConfiguration{MSKClusterARN: api.Ptr("arn:aws:kafka:eu-central-1:123456789012:cluster/c"), TopicName: api.Ptr("t"),
		AuthenticationConfiguration: &firehose.AuthenticationConfiguration{RoleARN: api.Ptr(testRole), Connectivity: api.Ptr(firehose.ConnectivityPrivate)},
		ReadFromTimestamp:           api.Ptr(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC))}
	r.mustCreate(in)
	r.mustCreate(input("plain", minimal(kindS3)))
	for _, name := range []string{"direct", "stream", "topic"} {
		compareGolden(t, "describe/source-"+name+".json", golden(t, r.describe(name).Source))
	}
	if source := r.describe("plain").Source; source != nil {
		t.Errorf("a direct put without settings has source %v", source)
	}
	if d := r.engine.definition(r.get("topic").record.ID); d.Source.Topic == nil || !d.Source.Topic.From.Equal(*in.MSKSourceConfiguration.ReadFromTimestamp) {
		t.Errorf("the topic is read as %+v", d.Source.Topic)
	}
	// Nothing that is put after the creation was asked for is missed.
	if d := r.engine.definition(r.get("stream").record.ID); d.Source.Stream == nil || d.Source.Stream.From.UnixMilli() != r.get("stream").record.CreatedAt {
		t.Errorf("the stream is read as %+v", d.Source.Stream)
	}
}

func TestDescribeBehindTheOnlyDestination(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindS3)))
	for start, want := range map[string]int{"": 1, "a": 1, destinationID: 0, "z": 0} {
		in := &firehose.DescribeDeliveryStreamInput{DeliveryStreamName: api.Ptr("s"), Limit: api.Ptr(int32(1))}
		if start != "" {
			in.ExclusiveStartDestinationId = &start
		}
		out, err := r.DescribeDeliveryStream(t.Context(), r.call(), in)
		if err != nil {
			t.Fatal(err)
		}
		if d := out.DeliveryStreamDescription; len(d.Destinations) != want || *d.HasMoreDestinations {
			t.Errorf("behind %q there are %d destinations", start, len(d.Destinations))
		}
	}
}
