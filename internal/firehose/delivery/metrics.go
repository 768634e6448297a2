package delivery

import "time"

// Metrics is where measurements go. Names and meanings are those that the
// service publishes to CloudWatch in the namespace AWS/Firehose.
type Metrics interface {
	// Series returns what collects the samples of a delivery stream. It is
	// called when the delivery stream is applied, and the result is kept.
	Series(account, region, name string) Series
	// Drop forgets a delivery stream's series.
	Drop(account, region, name string)
}

// Series takes samples of one delivery stream; it is called concurrently, on the
// path of every batch of records, and must not block.
type Series interface {
	// Add records one sample: a number of bytes or records, a duration in the
	// metric's unit, or 1 or 0 for a success or failure.
	Add(m Metric, value float64)
}

// Metric is the name of a CloudWatch metric, as in the namespace AWS/Firehose.
type Metric string

// The metrics that a delivery reports, besides those that Deliveries names. The
// service that takes the calls reports IncomingBytes and its like with the same
// Series.
const (
	IncomingBytes       Metric = "IncomingBytes"
	IncomingRecords     Metric = "IncomingRecords"
	IncomingPutRequests Metric = "IncomingPutRequests"
	ThrottledRecords    Metric = "ThrottledRecords"

	BytesPerSecondLimit       Metric = "BytesPerSecondLimit"
	RecordsPerSecondLimit     Metric = "RecordsPerSecondLimit"
	PutRequestsPerSecondLimit Metric = "PutRequestsPerSecondLimit"

	DataReadFromKinesisStreamBytes   Metric = "DataReadFromKinesisStream.Bytes"
	DataReadFromKinesisStreamRecords Metric = "DataReadFromKinesisStream.Records"
	KinesisMillisBehindLatest        Metric = "KinesisMillisBehindLatest"

	DataReadFromSourceBytes         Metric = "DataReadFromSource.Bytes"
	DataReadFromSourceRecords       Metric = "DataReadFromSource.Records"
	DataReadFromSourceBackpressured Metric = "DataReadFromSource.Backpressured"
	KafkaOffsetLag                  Metric = "KafkaOffsetLag"
	FailedValidationRecords         Metric = "FailedValidation.Records"
	FailedValidationBytes           Metric = "FailedValidation.Bytes"

	BackupToS3Bytes         Metric = "BackupToS3.Bytes"
	BackupToS3Records       Metric = "BackupToS3.Records"
	BackupToS3Success       Metric = "BackupToS3.Success"
	BackupToS3DataFreshness Metric = "BackupToS3.DataFreshness"

	ExecuteProcessingDuration Metric = "ExecuteProcessing.Duration" // milliseconds
	ExecuteProcessingSuccess  Metric = "ExecuteProcessing.Success"
	SucceedProcessingRecords  Metric = "SucceedProcessing.Records"
	SucceedProcessingBytes    Metric = "SucceedProcessing.Bytes"

	OutputDecompressedBytesSuccess   Metric = "OutputDecompressedBytes.Success"
	OutputDecompressedBytesFailed    Metric = "OutputDecompressedBytes.Failed"
	OutputDecompressedRecordsSuccess Metric = "OutputDecompressedRecords.Success"
	OutputDecompressedRecordsFailed  Metric = "OutputDecompressedRecords.Failed"

	SucceedConversionRecords Metric = "SucceedConversion.Records"
	SucceedConversionBytes   Metric = "SucceedConversion.Bytes"
	FailedConversionRecords  Metric = "FailedConversion.Records"
	FailedConversionBytes    Metric = "FailedConversion.Bytes"

	PartitionCount         Metric = "PartitionCount"
	PartitionCountExceeded Metric = "PartitionCountExceeded"
	PerPartitionThroughput Metric = "PerPartitionThroughput"
	JQProcessingDuration   Metric = "JQProcessing.Duration" // milliseconds

	KMSKeyAccessDenied Metric = "KMSKeyAccessDenied"
	KMSKeyDisabled     Metric = "KMSKeyDisabled"
	KMSKeyInvalidState Metric = "KMSKeyInvalidState"
	KMSKeyNotFound     Metric = "KMSKeyNotFound"

	// RecordsExpired counts records that their source no longer had when their
	// turn came. The service has no such metric: it drops them in silence.
	RecordsExpired Metric = "RecordsExpired"
)

// Delivery metrics are named after the destination: see Kind.metric.
const (
	suffixBytes         = ".Bytes"
	suffixRecords       = ".Records"
	suffixSuccess       = ".Success"
	suffixFreshness     = ".DataFreshness" // seconds
	suffixObjectCount   = ".ObjectCount"
	suffixAckLatency    = ".DataAckLatency"
	suffixCommitLatency = ".DataCommitLatency"
)

// Kind is what a delivery stream delivers to. It is the middle of metric names:
// DeliveryToSplunk.Success.
type Kind string

// The kinds of the service, and one for what it does not have.
const (
	KindS3                   Kind = "S3"
	KindRedshift             Kind = "Redshift"
	KindOpenSearch           Kind = "AmazonOpenSearchService"
	KindElasticsearch        Kind = "Elasticsearch"
	KindOpenSearchServerless Kind = "AmazonOpenSearchServerless"
	KindSplunk               Kind = "Splunk"
	KindHTTPEndpoint         Kind = "HttpEndpoint"
	KindSnowflake            Kind = "Snowflake"
	KindIceberg              Kind = "Iceberg"
	KindOther                Kind = "Other"
)

func (k Kind) metric(suffix string) Metric { return Metric("DeliveryTo" + string(k) + suffix) }

// ErrorType is the error-output-type of records that the destination refused.
func (k Kind) ErrorType() string {
	switch k {
	case KindOpenSearch, KindOpenSearchServerless:
		return "AmazonOpenSearchService-failed"
	case KindElasticsearch:
		return "elasticsearch-failed"
	case KindSplunk:
		return "splunk-failed"
	case KindHTTPEndpoint:
		return "http-endpoint-failed"
	case KindSnowflake:
		return "snowflake-failed"
	case KindIceberg:
		return "iceberg-failed"
	}
	return "delivery-failed"
}

// noMetrics is the Metrics of an engine without one.
type noMetrics struct{}

func (noMetrics) Series(string, string, string) Series { return noSeries{} }
func (noMetrics) Drop(string, string, string)          {}

type noSeries struct{}

func (noSeries) Add(Metric, float64) {}

func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }
