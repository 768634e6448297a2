package firehose

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// destination is the configuration of a delivery stream's destination as its
// owner gave it, defaults not filled in. Exactly one member is set. An S3
// destination of the old form is kept as the extended one it is part of.
type destination struct {
	ExtendedS3    *firehose.ExtendedS3DestinationConfiguration                 `json:"extendedS3,omitempty"`
	Redshift      *firehose.RedshiftDestinationConfiguration                   `json:"redshift,omitempty"`
	Elasticsearch *firehose.ElasticsearchDestinationConfiguration              `json:"elasticsearch,omitempty"`
	OpenSearch    *firehose.AmazonopensearchserviceDestinationConfiguration    `json:"openSearch,omitempty"`
	Serverless    *firehose.AmazonOpenSearchServerlessDestinationConfiguration `json:"openSearchServerless,omitempty"`
	Splunk        *firehose.SplunkDestinationConfiguration                     `json:"splunk,omitempty"`
	HTTP          *firehose.HttpEndpointDestinationConfiguration               `json:"httpEndpoint,omitempty"`
	Snowflake     *firehose.SnowflakeDestinationConfiguration                  `json:"snowflake,omitempty"`
	Iceberg       *firehose.IcebergDestinationConfiguration                    `json:"iceberg,omitempty"`
}

// kind is a type of destination.
type kind int

const (
	kindS3 kind = iota
	kindRedshift
	kindElasticsearch
	kindOpenSearch
	kindServerless
	kindSplunk
	kindHTTP
	kindSnowflake
	kindIceberg
	kinds // how many there are
)

// String is the kind's name in texts.
func (k kind) String() string {
	return [...]string{"S3", "Redshift", "Elasticsearch", "OpenSearch", "OpenSearch Serverless", "Splunk", "HTTP endpoint", "Snowflake", "Iceberg"}[k]
}

// kind returns which member is set. It panics if none is: a destination is
// checked where it comes in.
func (d *destination) kind() kind {
	v := reflect.ValueOf(d).Elem()
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			return kind(i)
		}
	}
	panic("firehose: a delivery stream without destination")
}

// count is how many members are set.
func (d *destination) count() int {
	n := 0
	for v, i := reflect.ValueOf(d).Elem(), 0; i < v.NumField(); i++ {
		if !v.Field(i).IsNil() {
			n++
		}
	}
	return n
}

// config is the member that is set: a pointer to a configuration shape.
func (d *destination) config() any {
	return reflect.ValueOf(d).Elem().Field(int(d.kind())).Interface()
}

// newDestination is an empty configuration of a kind.
func newDestination(k kind) *destination {
	d := new(destination)
	f := reflect.ValueOf(d).Elem().Field(int(k))
	f.Set(reflect.New(f.Type().Elem()))
	return d
}

// clone is a deep copy.
func (d *destination) clone() *destination {
	next := newDestination(d.kind())
	copyShape(next.config(), d.config())
	return next
}

// MarshalJSON leaves out what is not set.
func (d *destination) MarshalJSON() ([]byte, error) {
	type plain destination
	data, err := json.Marshal((*plain)(d))
	if err != nil {
		return nil, err
	}
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	return json.Marshal(withoutNulls(tree))
}

func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if member == nil {
				delete(v, name)
				continue
			}
			v[name] = withoutNulls(member)
		}
	case []any:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
	}
	return v
}

// shared are the members that most configurations have, by the names they have
// there.
type shared struct {
	RoleARN                     *string
	BufferingHints              *firehose.BufferingHints
	RetryOptions                *firehose.RetryOptions
	S3BackupMode                *string
	S3Configuration             *firehose.S3DestinationConfiguration
	S3BackupConfiguration       *firehose.S3DestinationConfiguration
	ProcessingConfiguration     *firehose.ProcessingConfiguration
	CloudWatchLoggingOptions    *firehose.CloudWatchLoggingOptions
	SecretsManagerConfiguration *firehose.SecretsManagerConfiguration
	VpcConfiguration            *firehose.VpcConfiguration
}

// shared are copies of the members that this configuration has.
func (d *destination) shared() *shared { return reshape[shared](d.config()) }

// secrets are pointers to the members that hold secrets, those that are set, by
// the name under which they are sealed.
func (d *destination) secrets() map[string]**string {
	all := map[string]**string{}
	add := func(name string, member **string) {
		if *member != nil {
			all[name] = member
		}
	}
	switch {
	case d.Redshift != nil:
		add("Password", &d.Redshift.Password)
	case d.Splunk != nil:
		add("HECToken", &d.Splunk.HECToken)
	case d.HTTP != nil && d.HTTP.EndpointConfiguration != nil:
		add("AccessKey", &d.HTTP.EndpointConfiguration.AccessKey)
	case d.Snowflake != nil:
		add("PrivateKey", &d.Snowflake.PrivateKey)
		add("KeyPassphrase", &d.Snowflake.KeyPassphrase)
	}
	return all
}

// reveal puts opened secrets in their places.
func (d *destination) reveal(secrets map[string]string) {
	for name, value := range secrets {
		switch name {
		case "Password":
			d.Redshift.Password = &value
		case "HECToken":
			d.Splunk.HECToken = &value
		case "AccessKey":
			d.HTTP.EndpointConfiguration.AccessKey = &value
		case "PrivateKey":
			d.Snowflake.PrivateKey = &value
		case "KeyPassphrase":
			d.Snowflake.KeyPassphrase = &value
		}
	}
}

// fill sets *p if it is nil.
func fill[T any](p **T, value T) {
	if *p == nil {
		*p = api.Ptr(value)
	}
}

// effective is a copy with every default filled in: what is in force, and what
// descriptions show.
func (d *destination) effective() *destination {
	d = d.clone()
	switch {
	case d.ExtendedS3 != nil:
		c := d.ExtendedS3
		if conversion := c.DataFormatConversionConfiguration; conversion != nil {
			fill(&conversion.Enabled, true)
		}
		fill(&c.DataFormatConversionConfiguration, firehose.DataFormatConversionConfiguration{Enabled: api.Ptr(false)})
		size := int32(5)
		if *c.DataFormatConversionConfiguration.Enabled {
			size = 128
		}
		fill(&c.BufferingHints, firehose.BufferingHints{SizeInMBs: &size, IntervalInSeconds: api.Ptr(int32(300))})
		fill(&c.CompressionFormat, firehose.CompressionFormatUncompressed)
		fillEncryption(&c.EncryptionConfiguration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
		fill(&c.S3BackupMode, firehose.S3BackupModeDisabled)
		fillS3(c.S3BackupConfiguration)
		if p := c.DynamicPartitioningConfiguration; p != nil {
			fill(&p.Enabled, false)
			fillRetry(&p.RetryOptions, 300)
		}
	case d.Redshift != nil:
		c := d.Redshift
		fill(&c.RetryOptions, firehose.RedshiftRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 3600)
		fill(&c.S3BackupMode, firehose.RedshiftS3BackupModeDisabled)
		fillS3(c.S3Configuration)
		fillS3(c.S3BackupConfiguration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.Elasticsearch != nil:
		c := d.Elasticsearch
		fill(&c.IndexRotationPeriod, firehose.ElasticsearchIndexRotationPeriodOneDay)
		fill(&c.BufferingHints, firehose.ElasticsearchBufferingHints{SizeInMBs: api.Ptr(int32(5)), IntervalInSeconds: api.Ptr(int32(300))})
		fill(&c.RetryOptions, firehose.ElasticsearchRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 300)
		fill(&c.S3BackupMode, firehose.ElasticsearchS3BackupModeFailedDocumentsOnly)
		fill(&c.DocumentIdOptions, firehose.DocumentIdOptions{DefaultDocumentIdFormat: api.Ptr(firehose.DefaultDocumentIdFormatFirehoseDefault)})
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.OpenSearch != nil:
		c := d.OpenSearch
		fill(&c.IndexRotationPeriod, firehose.AmazonopensearchserviceIndexRotationPeriodOneDay)
		fill(&c.BufferingHints, firehose.AmazonopensearchserviceBufferingHints{SizeInMBs: api.Ptr(int32(5)), IntervalInSeconds: api.Ptr(int32(300))})
		fill(&c.RetryOptions, firehose.AmazonopensearchserviceRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 300)
		fill(&c.S3BackupMode, firehose.AmazonopensearchserviceS3BackupModeFailedDocumentsOnly)
		fill(&c.DocumentIdOptions, firehose.DocumentIdOptions{DefaultDocumentIdFormat: api.Ptr(firehose.DefaultDocumentIdFormatFirehoseDefault)})
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.Serverless != nil:
		c := d.Serverless
		fill(&c.BufferingHints, firehose.AmazonOpenSearchServerlessBufferingHints{SizeInMBs: api.Ptr(int32(5)), IntervalInSeconds: api.Ptr(int32(300))})
		fill(&c.RetryOptions, firehose.AmazonOpenSearchServerlessRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 300)
		fill(&c.S3BackupMode, firehose.AmazonOpenSearchServerlessS3BackupModeFailedDocumentsOnly)
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.Splunk != nil:
		c := d.Splunk
		fill(&c.HECAcknowledgmentTimeoutInSeconds, 180)
		fill(&c.BufferingHints, firehose.SplunkBufferingHints{})
		fill(&c.BufferingHints.SizeInMBs, 5)
		fill(&c.BufferingHints.IntervalInSeconds, 60)
		fill(&c.RetryOptions, firehose.SplunkRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 3600)
		fill(&c.S3BackupMode, firehose.SplunkS3BackupModeFailedEventsOnly)
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.HTTP != nil:
		c := d.HTTP
		fill(&c.BufferingHints, firehose.HttpEndpointBufferingHints{SizeInMBs: api.Ptr(int32(5)), IntervalInSeconds: api.Ptr(int32(300))})
		fill(&c.RetryOptions, firehose.HttpEndpointRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 300)
		fill(&c.S3BackupMode, firehose.HttpEndpointS3BackupModeFailedDataOnly)
		if c.RequestConfiguration != nil {
			fill(&c.RequestConfiguration.ContentEncoding, firehose.ContentEncodingNone)
		}
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.Snowflake != nil:
		c := d.Snowflake
		fill(&c.DataLoadingOption, firehose.SnowflakeDataLoadingOptionJsonMapping)
		fill(&c.BufferingHints, firehose.SnowflakeBufferingHints{})
		fill(&c.BufferingHints.SizeInMBs, 1)
		fill(&c.BufferingHints.IntervalInSeconds, 0)
		fill(&c.RetryOptions, firehose.SnowflakeRetryOptions{})
		fill(&c.RetryOptions.DurationInSeconds, 60)
		fill(&c.S3BackupMode, firehose.SnowflakeS3BackupModeFailedDataOnly)
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	case d.Iceberg != nil:
		c := d.Iceberg
		fill(&c.BufferingHints, firehose.BufferingHints{SizeInMBs: api.Ptr(int32(5)), IntervalInSeconds: api.Ptr(int32(300))})
		fillRetry(&c.RetryOptions, 300)
		fill(&c.S3BackupMode, firehose.IcebergS3BackupModeFailedDataOnly)
		fill(&c.AppendOnly, false)
		fillS3(c.S3Configuration)
		fillLogging(&c.CloudWatchLoggingOptions)
		fillProcessing(&c.ProcessingConfiguration)
	}
	return d
}

func fillS3(c *firehose.S3DestinationConfiguration) {
	if c == nil {
		return
	}
	fill(&c.BufferingHints, firehose.BufferingHints{SizeInMBs: api.Ptr(int32(5)), IntervalInSeconds: api.Ptr(int32(300))})
	fill(&c.CompressionFormat, firehose.CompressionFormatUncompressed)
	fillEncryption(&c.EncryptionConfiguration)
	fillLogging(&c.CloudWatchLoggingOptions)
}

func fillEncryption(p **firehose.EncryptionConfiguration) {
	if *p == nil || (*p).NoEncryptionConfig == nil && (*p).KMSEncryptionConfig == nil {
		*p = &firehose.EncryptionConfiguration{NoEncryptionConfig: api.Ptr(firehose.NoEncryptionConfigNoEncryption)}
	}
}

func fillLogging(p **firehose.CloudWatchLoggingOptions) {
	fill(p, firehose.CloudWatchLoggingOptions{})
	fill(&(*p).Enabled, false)
}

// fillProcessing takes processors without the switch for switched on.
func fillProcessing(p **firehose.ProcessingConfiguration) {
	fill(p, firehose.ProcessingConfiguration{})
	fill(&(*p).Enabled, len((*p).Processors) > 0)
}

func fillRetry(p **firehose.RetryOptions, seconds int32) {
	fill(p, firehose.RetryOptions{})
	fill(&(*p).DurationInSeconds, seconds)
}
