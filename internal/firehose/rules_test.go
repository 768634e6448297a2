package firehose

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// testPrivateKey is a key in the form in which Snowflake users give it.
var testPrivateKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
})

const invalid = "InvalidArgumentException"

// rules are the conditions that a destination must meet, with the words of the
// refusal. They hold for what is created and for what an update results in.
var rules = []struct {
	name   string
	kind   kind
	change func(d *destination)
	text   string // empty: accepted
}{
	{"hints of S3 are a pair", kindS3, func(d *destination) {
		d.ExtendedS3.BufferingHints = &firehose.BufferingHints{SizeInMBs: api.Ptr(int32(5))}
	}, "Both SizeInMBs and IntervalInSeconds of BufferingHints are needed: if one is specified, the other must be too."},
	{"hints of HTTP endpoints are a pair", kindHTTP, func(d *destination) {
		d.HTTP.BufferingHints = &firehose.HttpEndpointBufferingHints{IntervalInSeconds: api.Ptr(int32(5))}
	}, "Both SizeInMBs and IntervalInSeconds of BufferingHints are needed: if one is specified, the other must be too."},
	{"hints of backups are a pair", kindOpenSearch, func(d *destination) {
		d.OpenSearch.S3Configuration.BufferingHints = &firehose.BufferingHints{SizeInMBs: api.Ptr(int32(5))}
	}, "Both SizeInMBs and IntervalInSeconds of BufferingHints are needed: if one is specified, the other must be too."},
	{"Splunk takes one hint alone", kindSplunk, func(d *destination) {
		d.Splunk.BufferingHints = &firehose.SplunkBufferingHints{SizeInMBs: api.Ptr(int32(1))}
	}, ""},
	{"a backup has no zero buffering", kindHTTP, func(d *destination) { d.HTTP.S3Configuration.BufferingHints = sizes(5, 0) },
		"IntervalInSeconds of the BufferingHints of S3Configuration must be at least 60: zero buffering is not available for backups."},
	{"staging for Redshift may have it", kindRedshift, func(d *destination) { d.Redshift.S3Configuration.BufferingHints = sizes(5, 0) }, ""},
	{"zero buffering of S3", kindS3, func(d *destination) { d.ExtendedS3.BufferingHints = sizes(1, 0) }, ""},

	{"a time zone that does not exist", kindS3, func(d *destination) { d.ExtendedS3.CustomTimeZone = api.Ptr("Europe/Atlantis") },
		"CustomTimeZone Europe/Atlantis is not a valid time zone."},
	{"the machine's own time zone", kindS3, func(d *destination) { d.ExtendedS3.CustomTimeZone = api.Ptr("Local") },
		"CustomTimeZone Local is not a valid time zone."},
	{"a time zone", kindS3, func(d *destination) { d.ExtendedS3.CustomTimeZone = api.Ptr("Europe/Berlin") }, ""},

	{"conversion with compression", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.CompressionFormat = api.Ptr(firehose.CompressionFormatGzip)
	}, "S3 compression format must be set to UNCOMPRESSED when data format conversion is enabled."},
	{"conversion with small buffers", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.BufferingHints = sizes(63, 300)
	}, "BufferingHints.SizeInMBs must be at least 64 when data format conversion is enabled."},
	{"conversion with its own default", kindS3, func(d *destination) { d.ExtendedS3.DataFormatConversionConfiguration = conversion() }, ""},
	{"conversion without a schema", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.SchemaConfiguration = nil
	}, "SchemaConfiguration is required when data format conversion is enabled."},
	{"conversion without input", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.InputFormatConfiguration = nil
	}, "InputFormatConfiguration is required when data format conversion is enabled."},
	{"conversion without output", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.OutputFormatConfiguration = nil
	}, "OutputFormatConfiguration is required when data format conversion is enabled."},
	{"conversion that is off is not looked at", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = &firehose.DataFormatConversionConfiguration{Enabled: api.Ptr(false)}
	}, ""},
	{"conversion that does not say so is on", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = &firehose.DataFormatConversionConfiguration{}
	}, "SchemaConfiguration is required when data format conversion is enabled."},
	{"two serializers", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.OutputFormatConfiguration.Serializer.OrcSerDe = &firehose.OrcSerDe{}
	}, "More than one serializer specified."},
	{"no serializer", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.OutputFormatConfiguration.Serializer = &firehose.Serializer{}
	}, "Serializer must not be null."},
	{"two deserializers", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.InputFormatConfiguration.Deserializer.HiveJsonSerDe = &firehose.HiveJsonSerDe{}
	}, "More than one deserializer specified."},
	{"no deserializer", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.InputFormatConfiguration.Deserializer = nil
	}, "Deserializer must not be null."},
	{"a schema without table", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.SchemaConfiguration.TableName = nil
	}, "TableName is required in SchemaConfiguration when data format conversion is enabled."},
	{"a table that does not exist", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.SchemaConfiguration.TableName = api.Ptr("elsewhere")
	}, "Access to the schema of table db.elsewhere failed: EntityNotFoundException: Entity Not Found"},
	{"a time format that cannot be", kindS3, func(d *destination) {
		d.ExtendedS3.DataFormatConversionConfiguration = conversion()
		d.ExtendedS3.DataFormatConversionConfiguration.InputFormatConfiguration.Deserializer = &firehose.Deserializer{
			HiveJsonSerDe: &firehose.HiveJsonSerDe{TimestampFormats: []string{"yyyy-bb"}}}
	}, "Invalid deserializer option(s)…"},

	{"a backup without a place", kindS3, func(d *destination) { d.ExtendedS3.S3BackupMode = api.Ptr(firehose.S3BackupModeEnabled) },
		"S3 backup destination configuration is required when S3BackupMode is Enabled."},
	{"a backup of Redshift without a place", kindRedshift, func(d *destination) { d.Redshift.S3BackupMode = api.Ptr(firehose.RedshiftS3BackupModeEnabled) },
		"S3 backup destination configuration is required when S3BackupMode is Enabled."},
	{"encrypted and not", kindS3, func(d *destination) {
		d.ExtendedS3.EncryptionConfiguration = &firehose.EncryptionConfiguration{
			NoEncryptionConfig:  api.Ptr(firehose.NoEncryptionConfigNoEncryption),
			KMSEncryptionConfig: &firehose.KMSEncryptionConfig{AWSKMSKeyARN: api.Ptr("arn:aws:kms:eu-central-1:123456789012:key/k")}}
	}, "NoEncryptionConfig and KMSEncryptionConfig are mutually exclusive."},
	{"a key of another region", kindSplunk, func(d *destination) {
		d.Splunk.S3Configuration.EncryptionConfiguration = &firehose.EncryptionConfiguration{
			KMSEncryptionConfig: &firehose.KMSEncryptionConfig{AWSKMSKeyARN: api.Ptr("arn:aws:kms:us-west-2:123456789012:key/k")}}
	}, "The region of the KMS key arn:aws:kms:us-west-2:123456789012:key/k does not match the region of the bucket, eu-central-1: region mismatch."},
	{"logging without names", kindS3, func(d *destination) {
		d.ExtendedS3.CloudWatchLoggingOptions = &firehose.CloudWatchLoggingOptions{Enabled: api.Ptr(true), LogGroupName: api.Ptr("g")}
	}, "Log group and log stream names required when CloudWatch logging is enabled."},
	{"logging of a backup without names", kindHTTP, func(d *destination) {
		d.HTTP.S3Configuration.CloudWatchLoggingOptions = &firehose.CloudWatchLoggingOptions{Enabled: api.Ptr(true)}
	}, "Log group and log stream names required when CloudWatch logging is enabled."},

	{"processing without processors", kindS3, func(d *destination) { d.ExtendedS3.ProcessingConfiguration = processing() },
		"A maximum of 5 and a minimum of 1 processor can be configured when processing is enabled"},
	{"six processors", kindS3, func(d *destination) {
		s := step(firehose.ProcessorTypeAppendDelimiterToRecord)
		d.ExtendedS3.ProcessingConfiguration = processing(s, s, s, s, s, s)
	}, "A maximum of 5 and a minimum of 1 processor can be configured when processing is enabled"},
	{"processing that is off is not looked at", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = &firehose.ProcessingConfiguration{Enabled: api.Ptr(false)}
	}, ""},
	{"two functions", kindS3, func(d *destination) {
		s := step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction)
		d.ExtendedS3.ProcessingConfiguration = processing(s, s)
	}, "Cannot have more than 1 Lambda processor"},
	{"a function without ARN", kindHTTP, func(d *destination) { d.HTTP.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda)) },
		"LambdaArn is required for Lambda processor"},
	{"too many retries", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "NumberOfRetries", "301"))
	}, "NumberOfRetries of Lambda processor must be between 0 and 300"},
	{"retries that are no number", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "NumberOfRetries", "many"))
	}, "NumberOfRetries of Lambda processor must be between 0 and 300"},
	{"a function's buffer too large", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "BufferSizeInMBs", "3.1", "BufferIntervalInSeconds", "60"))
	}, "BufferSizeInMBs of Lambda processor must be between 0.2 and 3"},
	{"a function's buffer too slow", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "BufferSizeInMBs", "0.2", "BufferIntervalInSeconds", "901"))
	}, "BufferIntervalInSeconds of Lambda processor must be between 0 and 900"},
	{"half of a function's buffer", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "BufferSizeInMBs", "1"))
	}, "Both BufferSizeInMBs and BufferIntervalInSeconds are required to configure buffering for Lambda processor"},
	{"a function", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction+":$LATEST", "NumberOfRetries", "0", "BufferSizeInMBs", "0.2", "BufferIntervalInSeconds", "0", "RoleArn", testRole))
	}, ""},
	{"a query without partitioning", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeMetadataExtraction, "MetadataExtractionQuery", "{a:.a}", "JsonParsingEngine", "JQ-1.6"))
	}, "MetadataExtraction processor can only be present when Dynamic Partitioning is enabled"},
	{"taking records apart without partitioning", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeRecordDeAggregation, "SubRecordType", "JSON"))
	}, "RecordDeAggregation processor can only be present when Dynamic Partitioning is enabled"},
	{"a query that routes to tables", kindIceberg, func(d *destination) {
		d.Iceberg.ProcessingConfiguration = processing(step(firehose.ProcessorTypeMetadataExtraction, "MetadataExtractionQuery", "{destinationTableName:.t}", "JsonParsingEngine", "JQ-1.6"))
	}, ""},
	{"an engine that does not exist", kindS3, func(d *destination) {
		partitioned(d)
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeMetadataExtraction, "MetadataExtractionQuery", "{a:.a}", "JsonParsingEngine", "JQ-1.7"))
	}, "Parsing Engine has to be one of JQ-1.6"},
	{"a query that is no program", kindS3, func(d *destination) {
		partitioned(d)
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeMetadataExtraction, "MetadataExtractionQuery", "{a:", "JsonParsingEngine", "JQ-1.6"))
	}, "…"},
	{"sub-records of no type", kindS3, func(d *destination) {
		partitioned(d)
		d.ExtendedS3.ProcessingConfiguration.Processors = append(d.ExtendedS3.ProcessingConfiguration.Processors, step(firehose.ProcessorTypeRecordDeAggregation, "SubRecordType", "XML"))
	}, "SubRecordType has to be one of JSON, DELIMITED"},
	{"delimited by nothing", kindS3, func(d *destination) {
		partitioned(d)
		d.ExtendedS3.ProcessingConfiguration.Processors = append(d.ExtendedS3.ProcessingConfiguration.Processors, step(firehose.ProcessorTypeRecordDeAggregation, "SubRecordType", "DELIMITED"))
	}, "Delimiter should be present for DELIMITED SubRecordType"},
	{"log processing without decompression", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeCloudWatchLogProcessing, "DataMessageExtraction", "true"))
	}, "CloudWatchLogProcessing can only be enabled with DecompressionProcessor"},
	{"a parameter of another processor", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeAppendDelimiterToRecord, "SubRecordType", "JSON"))
	}, "Parameter SubRecordType is not valid for processor AppendDelimiterToRecord."},
	{"a parameter twice", kindS3, func(d *destination) {
		d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "LambdaArn", testFunction))
	}, "Parameter LambdaArn is specified more than once for processor Lambda."},

	{"partitioning with small buffers", kindS3, func(d *destination) { partitioned(d); d.ExtendedS3.BufferingHints = sizes(63, 60) },
		"BufferingHints.SizeInMBs must be at least 64 when Dynamic Partitioning is enabled."},
	{"partitioning with default buffers", kindS3, func(d *destination) { partitioned(d); d.ExtendedS3.BufferingHints = nil },
		"BufferingHints.SizeInMBs must be at least 64 when Dynamic Partitioning is enabled."},
	{"partitioning without waiting", kindS3, func(d *destination) { partitioned(d); d.ExtendedS3.BufferingHints = sizes(64, 0) },
		"BufferingHints.IntervalInSeconds must be at least 60 when Dynamic Partitioning is enabled."},
	{"partitioning", kindS3, partitioned, ""},

	{"neither name of a cluster", kindElasticsearch, func(d *destination) { d.Elasticsearch.ClusterEndpoint = nil },
		"Provide either the Elasticsearch or OpenSearch cluster endpoint or domain arn, not both."},
	{"both names of a cluster", kindOpenSearch, func(d *destination) {
		d.OpenSearch.DomainARN = api.Ptr("arn:aws:es:eu-central-1:123456789012:domain/search")
	}, "Provide either the Elasticsearch or OpenSearch cluster endpoint or domain arn, not both."},
	{"a type in OpenSearch", kindOpenSearch, func(d *destination) { d.OpenSearch.TypeName = api.Ptr("doc") },
		"Types are deprecated in OpenSearch and in Elasticsearch 7 and later: TypeName must be empty."},
	{"a type in Elasticsearch", kindElasticsearch, func(d *destination) { d.Elasticsearch.TypeName = api.Ptr("doc") }, ""},
	{"a collection without endpoint", kindServerless, func(d *destination) { d.Serverless.CollectionEndpoint = nil },
		"Provide the collection endpoint in CollectionEndpoint."},

	{"Redshift without password", kindRedshift, func(d *destination) { d.Redshift.Password = nil },
		"Password is required when SecretsManagerConfiguration is not enabled."},
	{"Redshift without user", kindRedshift, func(d *destination) { d.Redshift.Username = nil },
		"Username is required when SecretsManagerConfiguration is not enabled."},
	{"Redshift with a secret", kindRedshift, func(d *destination) {
		d.Redshift.Username, d.Redshift.Password, d.Redshift.SecretsManagerConfiguration = nil, nil, testSecret()
	}, ""},
	{"Redshift cannot read Snappy", kindRedshift, func(d *destination) {
		d.Redshift.S3Configuration.CompressionFormat = api.Ptr(firehose.CompressionFormatSnappy)
	}, "CompressionFormat Snappy is not supported for a Redshift destination: COPY cannot read it. Use UNCOMPRESSED or GZIP."},
	{"Redshift reads GZIP", kindRedshift, func(d *destination) {
		d.Redshift.S3Configuration.CompressionFormat = api.Ptr(firehose.CompressionFormatGzip)
		d.Redshift.CopyCommand.CopyOptions = api.Ptr("GZIP")
	}, ""},
	{"Redshift with expressions", kindRedshift, func(d *destination) {
		d.Redshift.S3Configuration.Prefix = api.Ptr("x/!{timestamp:yyyy}/")
	}, "Prefix of a Redshift destination's S3Configuration must not contain expressions."},
	{"Redshift with an error prefix", kindRedshift, func(d *destination) { d.Redshift.S3Configuration.ErrorOutputPrefix = api.Ptr("errors/") },
		"ErrorOutputPrefix of a Redshift destination's S3Configuration must be null."},

	{"Splunk without port", kindSplunk, func(d *destination) { d.Splunk.HECEndpoint = api.Ptr("https://splunk.example.com") },
		"Invalid HECEndpoint https://splunk.example.com: it must have the form https://host:port."},
	{"Splunk in clear text", kindSplunk, func(d *destination) { d.Splunk.HECEndpoint = api.Ptr("http://splunk.example.com:8088") },
		"Invalid HECEndpoint http://splunk.example.com:8088: it must have the form https://host:port."},
	{"Splunk with a path", kindSplunk, func(d *destination) { d.Splunk.HECEndpoint = api.Ptr("https://splunk.example.com:8088/services") },
		"Invalid HECEndpoint https://splunk.example.com:8088/services: it must have the form https://host:port."},
	{"Splunk without token", kindSplunk, func(d *destination) { d.Splunk.HECToken = nil },
		"HECToken is required when SecretsManagerConfiguration is not enabled."},
	{"Splunk's secret needs a role", kindSplunk, func(d *destination) { d.Splunk.SecretsManagerConfiguration = testSecret() },
		"RoleARN is required in SecretsManagerConfiguration for a Splunk destination."},

	{"an attribute twice", kindHTTP, func(d *destination) {
		a := firehose.HttpEndpointCommonAttribute{AttributeName: api.Ptr("env"), AttributeValue: api.Ptr("x")}
		d.HTTP.RequestConfiguration = &firehose.HttpEndpointRequestConfiguration{CommonAttributes: []firehose.HttpEndpointCommonAttribute{a, a}}
	}, "Common attributes have duplicate name env."},
	{"a URL that is none", kindHTTP, func(d *destination) { d.HTTP.EndpointConfiguration.Url = api.Ptr("https://%zz/") },
		"Url https://%zz/ of the HTTP endpoint is not valid."},
	{"a destination that the operator does not have", kindHTTP, func(d *destination) {
		d.HTTP.EndpointConfiguration.Url = api.Ptr("https://destinations.millrace.internal/archive")
	}, "There is no destination named archive on this server"},

	{"Snowflake without user", kindSnowflake, func(d *destination) { d.Snowflake.User = nil },
		"User must be provided when SecretsManagerConfiguration is not enabled."},
	{"Snowflake without key", kindSnowflake, func(d *destination) { d.Snowflake.PrivateKey = nil },
		"PrivateKey must be provided when SecretsManagerConfiguration is not enabled."},
	{"Snowflake's metadata without column", kindSnowflake, func(d *destination) {
		d.Snowflake.DataLoadingOption = api.Ptr(firehose.SnowflakeDataLoadingOptionVariantContentAndMetadataMapping)
		d.Snowflake.ContentColumnName = api.Ptr("C")
	}, "Must provide ContentColumnName and MetaDataColumnName for DataLoadingOption VARIANT_CONTENT_AND_METADATA_MAPPING."},
	{"Snowflake's content without column", kindSnowflake, func(d *destination) {
		d.Snowflake.DataLoadingOption = api.Ptr(firehose.SnowflakeDataLoadingOptionVariantContentMapping)
	}, "Must provide ContentColumnName for DataLoadingOption VARIANT_CONTENT_MAPPING."},
	{"Snowflake's role without name", kindSnowflake, func(d *destination) {
		d.Snowflake.SnowflakeRoleConfiguration = &firehose.SnowflakeRoleConfiguration{Enabled: api.Ptr(true)}
	}, "Must provide SnowflakeRole when SnowflakeRoleConfiguration is enabled."},

	{"a secret without ARN", kindHTTP, func(d *destination) {
		d.HTTP.SecretsManagerConfiguration = &firehose.SecretsManagerConfiguration{Enabled: api.Ptr(true)}
	}, "Invalid secret ARN: null"},
	{"a secret of another region", kindHTTP, func(d *destination) {
		d.HTTP.SecretsManagerConfiguration = &firehose.SecretsManagerConfiguration{Enabled: api.Ptr(true), SecretARN: api.Ptr("arn:aws:secretsmanager:us-west-2:123456789012:secret:s")}
	}, "Invalid secret ARN: arn:aws:secretsmanager:us-west-2:123456789012:secret:s: the secret must be in the region of the delivery stream, eu-central-1."},

	{"Iceberg with all data", kindIceberg, func(d *destination) { d.Iceberg.S3BackupMode = api.Ptr(firehose.IcebergS3BackupModeAllData) },
		"S3BackupMode AllData is not supported for an Iceberg destination; only FailedDataOnly is."},
	{"Iceberg without a catalog", kindIceberg, func(d *destination) { d.Iceberg.CatalogConfiguration = &firehose.CatalogConfiguration{} },
		"CatalogConfiguration must provide CatalogARN or WarehouseLocation."},
	{"Iceberg with a table twice", kindIceberg, func(d *destination) {
		l := d.Iceberg.DestinationTableConfigurationList
		d.Iceberg.DestinationTableConfigurationList = append(l, l[0])
	}, "DestinationTableConfigurationList has more than one entry for table db.events."},
	{"Iceberg with an error output of a table that names no type", kindIceberg, func(d *destination) {
		d.Iceberg.DestinationTableConfigurationList[0].S3ErrorOutputPrefix = api.Ptr("bad/!{timestamp:yyyy}/")
	}, "S3ErrorOutputPrefix of table db.events: !{firehose:error-output-type} must be included in ErrorOutputPrefix when it contains expressions"},
}

func testSecret() *firehose.SecretsManagerConfiguration {
	return &firehose.SecretsManagerConfiguration{Enabled: api.Ptr(true), SecretARN: api.Ptr("arn:aws:secretsmanager:eu-central-1:123456789012:secret:s-abcdef")}
}

// partitioned makes a destination one that partitions.
func partitioned(d *destination) {
	c := d.ExtendedS3
	c.BufferingHints = sizes(64, 60)
	c.Prefix, c.ErrorOutputPrefix = api.Ptr("a=!{partitionKeyFromQuery:a}/"), api.Ptr("errors/!{firehose:error-output-type}/")
	c.DynamicPartitioningConfiguration = &firehose.DynamicPartitioningConfiguration{Enabled: api.Ptr(true)}
	c.ProcessingConfiguration = processing(step(firehose.ProcessorTypeMetadataExtraction, "MetadataExtractionQuery", "{a: .a}", "JsonParsingEngine", "JQ-1.6"))
}

func TestRulesAtCreation(t *testing.T) {
	r := newRig(t, nil)
	for i, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			d := minimal(rule.kind)
			rule.change(d)
			err := r.create(input(fmt.Sprint("rule-", i), d))
			if rule.text == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantError(t, err, invalid, rule.text)
		})
	}
}

// The same rules hold for what an update makes of a delivery stream.
func TestRulesAtUpdate(t *testing.T) {
	r := newRig(t, nil)
	for k := range kinds {
		if err := r.create(input(fmt.Sprint("kind-", int(k)), minimal(k))); err != nil {
			t.Fatal(k, err)
		}
	}
	r.settleAll()
	skipped := 0
	for _, rule := range rules {
		d := minimal(rule.kind)
		rule.change(d)
		in := &firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr(fmt.Sprint("kind-", int(rule.kind)))}
		set := false
		switch rule.kind {
		case kindS3:
			if d.ExtendedS3.DynamicPartitioningConfiguration != nil {
				break // only at creation
			}
			in.ExtendedS3DestinationUpdate, set = reshape[firehose.ExtendedS3DestinationUpdate](d.ExtendedS3), true
		case kindSplunk:
			in.SplunkDestinationUpdate, set = reshape[firehose.SplunkDestinationUpdate](d.Splunk), true
		case kindHTTP:
			in.HttpEndpointDestinationUpdate, set = reshape[firehose.HttpEndpointDestinationUpdate](d.HTTP), true
		case kindOpenSearch:
			in.AmazonopensearchserviceDestinationUpdate, set = reshape[firehose.AmazonopensearchserviceDestinationUpdate](d.OpenSearch), true
		case kindSnowflake:
			in.SnowflakeDestinationUpdate, set = reshape[firehose.SnowflakeDestinationUpdate](d.Snowflake), true
		case kindIceberg:
			in.IcebergDestinationUpdate, set = reshape[firehose.IcebergDestinationUpdate](d.Iceberg), true
		}
		// What an update leaves out stays, so rules about what is missing hold
		// for creation alone.
		if !set || rule.text == "" || strings.Contains(rule.text, "must be provided") || strings.Contains(rule.text, "HECToken is required") || strings.Contains(rule.text, "is required when data format") {
			skipped++
			continue
		}
		t.Run(rule.name, func(t *testing.T) {
			before := r.describe(*in.DeliveryStreamName)
			wantError(t, r.update(in), invalid, rule.text)
			if after := r.describe(*in.DeliveryStreamName); *after.VersionId != *before.VersionId {
				t.Error("a refused update counts as a version")
			}
		})
	}
	if skipped > len(rules)*2/3 {
		t.Errorf("%d of %d rules were left out", skipped, len(rules))
	}
}

// The rules of prefixes, in the words of package naming.
func TestPrefixRules(t *testing.T) {
	const function = "function"
	tests := []struct{ name, prefix, errors, with, text string }{
		{"literal", "logs/", "", "", ""},
		{"nothing at all", "", "", "", ""},
		{"date", "!{timestamp:yyyy/MM}/", "e/!{firehose:error-output-type}/", "", ""},
		{"no error prefix", "!{timestamp:yyyy}/", "", "", "ErrorOutputPrefix cannot be null or empty when Prefix contains expressions"},
		{"not an expression", "a!{b", "e!{firehose:error-output-type}/", "", "Invalid expression usage…"},
		{"unknown namespace", "!{time:yyyy}/", "e!{firehose:error-output-type}/", "", "Namespace to the left of colon (time) is an invalid keyword!…"},
		{"unknown value", "!{firehose:uuid}/", "e!{firehose:error-output-type}/", "", "Invalid conversion character used in the value of the expression…"},
		{"bad letter", "!{timestamp:yyyyTHH}/", "e!{firehose:error-output-type}/", "", "Invalid conversion character used in the value of the expression…"},
		{"error type in prefix", "!{firehose:error-output-type}/", "e!{firehose:error-output-type}/", "", "Prefix must not contain any occurrence of…"},
		{"error type missing", "", "!{timestamp:yyyy}/", "", "…must be included…"},
		{"partition in error prefix", "", "!{firehose:error-output-type}/!{partitionKeyFromQuery:a}/", "", "…"},
		{"partition without partitioning", "!{partitionKeyFromQuery:a}/", "e!{firehose:error-output-type}/", "", "…can only be part of a prefix expression when Dynamic Partitioning is enabled…"},
		{"partitioning without partition", "!{timestamp:yyyy}/", "e!{firehose:error-output-type}/", "query", "S3 Prefix should contain Dynamic Partitioning namespaces…"},
		{"key that the query lacks", "!{partitionKeyFromQuery:b}/", "e!{firehose:error-output-type}/", "query", "…"},
		{"function keys without function", "!{partitionKeyFromLambda:b}/", "e!{firehose:error-output-type}/", "query", "…"},
		{"function keys", "!{partitionKeyFromLambda:b}/", "e!{firehose:error-output-type}/", function, ""},
		{"too long", strings.Repeat("x", 513), "", "", "Length of evaluated prefix cannot be greater than 512…"},
		{"error prefix too long", "", strings.Repeat("x", 513), "", "Length of evaluated ErrorOutputPrefix cannot be greater than 512…"},
	}
	r := newRig(t, nil)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := minimal(kindS3)
			if test.with != "" {
				partitioned(d)
			}
			if test.with == function {
				d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction))
			}
			d.ExtendedS3.Prefix, d.ExtendedS3.ErrorOutputPrefix = &test.prefix, &test.errors
			err := r.create(input(fmt.Sprint("prefix-", i), d))
			if test.text == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var e *firehose.InvalidArgumentException
			want := strings.Trim(test.text, "…")
			if !errors.As(err, &e) || !strings.Contains(e.Message, want) || !strings.HasPrefix(test.text, "…") && !strings.HasPrefix(e.Message, want) {
				t.Errorf("got %v, want %q", err, test.text)
			}
		})
	}
}

func TestSourceRules(t *testing.T) {
	kinesis := &firehose.KinesisStreamSourceConfiguration{KinesisStreamARN: api.Ptr("arn:aws:kinesis:eu-central-1:123456789012:stream/s"), RoleARN: api.Ptr(testRole)}
	msk := &firehose.MSKSourceConfiguration{MSKClusterARN: api.Ptr("arn:aws:kafka:eu-central-1:123456789012:cluster/c"), TopicName: api.Ptr("t"),
		AuthenticationConfiguration: &firehose.AuthenticationConfiguration{RoleARN: api.Ptr(testRole), Connectivity: api.Ptr(firehose.ConnectivityPrivate)}}
	database := &firehose.DatabaseSourceConfiguration{}
	sse := &firehose.DeliveryStreamEncryptionConfigurationInput{KeyType: api.Ptr(firehose.KeyTypeAwsOwnedCmk)}
	tests := []struct {
		name string
		t    firehose.DeliveryStreamType
		in   firehose.CreateDeliveryStreamInput
		text string
	}{
		{"a stream is no direct put", firehose.DeliveryStreamTypeDirectPut, firehose.CreateDeliveryStreamInput{KinesisStreamSourceConfiguration: kinesis},
			"KinesisStreamSourceConfiguration can only be specified for delivery streams of type KinesisStreamAsSource, not for type DirectPut."},
		{"a stream without source", firehose.DeliveryStreamTypeKinesisStreamAsSource, firehose.CreateDeliveryStreamInput{},
			"KinesisStreamSourceConfiguration is required for delivery streams of type KinesisStreamAsSource."},
		{"two sources", firehose.DeliveryStreamTypeKinesisStreamAsSource, firehose.CreateDeliveryStreamInput{KinesisStreamSourceConfiguration: kinesis, MSKSourceConfiguration: msk},
			"MSKSourceConfiguration can only be specified for delivery streams of type MSKAsSource, not for type KinesisStreamAsSource."},
		{"a stream elsewhere", firehose.DeliveryStreamTypeKinesisStreamAsSource, firehose.CreateDeliveryStreamInput{KinesisStreamSourceConfiguration: &firehose.KinesisStreamSourceConfiguration{
			KinesisStreamARN: api.Ptr("arn:aws:kinesis:us-west-2:123456789012:stream/s"), RoleARN: api.Ptr(testRole)}},
			"The Kinesis stream arn:aws:kinesis:us-west-2:123456789012:stream/s is not in the region of the delivery stream, eu-central-1."},
		{"a stream encrypted here", firehose.DeliveryStreamTypeKinesisStreamAsSource, firehose.CreateDeliveryStreamInput{KinesisStreamSourceConfiguration: kinesis, DeliveryStreamEncryptionConfigurationInput: sse},
			"DeliveryStreamEncryptionConfigurationInput is only supported for delivery streams of type DirectPut, not for type KinesisStreamAsSource."},
		{"a database", firehose.DeliveryStreamTypeDatabaseAsSource, firehose.CreateDeliveryStreamInput{DatabaseSourceConfiguration: database},
			"DeliveryStreamType DatabaseAsSource is not supported: database sources are no longer available."},
		{"an unknown cluster", firehose.DeliveryStreamTypeMSKAsSource, firehose.CreateDeliveryStreamInput{MSKSourceConfiguration: &firehose.MSKSourceConfiguration{
			MSKClusterARN: api.Ptr("arn:aws:kafka:eu-central-1:123456789012:cluster/x"), TopicName: api.Ptr("t"), AuthenticationConfiguration: msk.AuthenticationConfiguration}},
			"The MSK cluster arn:aws:kafka:eu-central-1:123456789012:cluster/x is not known: the operator has not said where its brokers are."},
		{"a stream", firehose.DeliveryStreamTypeKinesisStreamAsSource, firehose.CreateDeliveryStreamInput{KinesisStreamSourceConfiguration: kinesis}, ""},
		{"a topic", firehose.DeliveryStreamTypeMSKAsSource, firehose.CreateDeliveryStreamInput{MSKSourceConfiguration: msk}, ""},
	}
	r := newRig(t, nil)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := test.in
			in.DeliveryStreamName, in.DeliveryStreamType = api.Ptr(fmt.Sprint("source-", i)), &test.t
			in.ExtendedS3DestinationConfiguration = minimal(kindS3).ExtendedS3
			err := r.create(&in)
			if test.text == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantError(t, err, invalid, test.text)
		})
	}
}

// knownRoles can be assumed; others cannot.
type knownRoles []string

func (k knownRoles) Assumable(arn string) error {
	for _, known := range k {
		if arn == known {
			return nil
		}
	}
	return errors.New("no such role")
}

func TestRoles(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Roles = knownRoles{testRole} })
	if err := r.create(input("known", minimal(kindS3))); err != nil {
		t.Error(err)
	}
	d := minimal(kindOpenSearch)
	d.OpenSearch.S3Configuration.RoleARN = api.Ptr("arn:aws:iam::123456789012:role/nobody")
	// Clients try again for minutes when they read this beginning.
	wantError(t, r.create(input("unknown", d)), invalid, "Firehose is unable to assume role arn:aws:iam::123456789012:role/nobody. Please check the role provided.")
	d = minimal(kindS3)
	d.ExtendedS3.RoleARN = api.Ptr("arn:aws:iam::999999999999:role/delivery")
	wantError(t, r.create(input("foreign", d)), invalid, "Cross-account pass role is not allowed.")
}

func TestExactlyOneDestination(t *testing.T) {
	r := newRig(t, nil)
	const text = "Exactly one destination configuration is supported for a Firehose"
	wantError(t, r.create(&firehose.CreateDeliveryStreamInput{DeliveryStreamName: api.Ptr("none")}), invalid, text)
	two := input("two", minimal(kindS3))
	two.SplunkDestinationConfiguration = minimal(kindSplunk).Splunk
	wantError(t, r.create(two), invalid, text)
	both := input("both", minimal(kindS3))
	both.S3DestinationConfiguration = s3Block()
	wantError(t, r.create(both), invalid, text)
	r.mustCreate(input("one", minimal(kindS3)))
	wantError(t, r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("one")}), invalid, text)
}
