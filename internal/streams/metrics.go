package streams

// Metrics is where measurements go. Names and meanings are those that the
// service publishes to CloudWatch.
type Metrics interface {
	// Series returns what collects the samples of a stream, of one of its
	// shards, or of one of its consumers. For streams and consumers it is called
	// when the object appears and the result is kept; for shards with every
	// sample. Samples of a part whose stream has been dropped are nobody's.
	Series(l Labels) Series
	// Drop forgets the series with these labels and, for a stream, all below it.
	Drop(l Labels)
}

// Labels name what a series is about. Shard and Consumer are empty for a
// stream's own series.
type Labels struct{ Account, Region, Stream, Shard, Consumer string }

// Series takes samples; it is called concurrently, on the path of every record,
// and must not block.
type Series interface {
	// Add records one sample: a number of bytes or records, a latency in
	// milliseconds, or 1 or 0 for a success or failure.
	Add(m Metric, value float64)
}

// Metric is a CloudWatch metric of the namespace AWS/Kinesis.
type Metric uint8

// The metrics.
const (
	IncomingBytes Metric = iota
	IncomingRecords
	OutgoingBytes   // shard level: GetRecords only
	OutgoingRecords // shard level: GetRecords only
	GetRecordsBytes
	GetRecordsRecords
	GetRecordsLatency
	GetRecordsSuccess
	GetRecordsIteratorAge // milliseconds; at shard level IteratorAgeMilliseconds
	PutRecordBytes
	PutRecordLatency
	PutRecordSuccess
	PutRecordsBytes
	PutRecordsLatency
	PutRecordsSuccess
	PutRecordsTotalRecords
	PutRecordsSuccessfulRecords
	PutRecordsFailedRecords
	PutRecordsThrottledRecords
	ReadProvisionedThroughputExceeded
	WriteProvisionedThroughputExceeded
	SubscribeToShardSuccess
	SubscribeToShardRateExceeded
	SubscribeToShardEventSuccess
	SubscribeToShardEventBytes
	SubscribeToShardEventRecords
	SubscribeToShardEventMillisBehindLatest

	// MetricCount is how many metrics there are.
	MetricCount
)

// Unit is a metric's unit in CloudWatch's words.
type Unit string

// The units.
const (
	UnitBytes        Unit = "Bytes"
	UnitCount        Unit = "Count"
	UnitMilliseconds Unit = "Milliseconds"
)

var metricInfo = [MetricCount]struct {
	name string
	unit Unit
}{
	IncomingBytes:                           {"IncomingBytes", UnitBytes},
	IncomingRecords:                         {"IncomingRecords", UnitCount},
	OutgoingBytes:                           {"OutgoingBytes", UnitBytes},
	OutgoingRecords:                         {"OutgoingRecords", UnitCount},
	GetRecordsBytes:                         {"GetRecords.Bytes", UnitBytes},
	GetRecordsRecords:                       {"GetRecords.Records", UnitCount},
	GetRecordsLatency:                       {"GetRecords.Latency", UnitMilliseconds},
	GetRecordsSuccess:                       {"GetRecords.Success", UnitCount},
	GetRecordsIteratorAge:                   {"GetRecords.IteratorAgeMilliseconds", UnitMilliseconds},
	PutRecordBytes:                          {"PutRecord.Bytes", UnitBytes},
	PutRecordLatency:                        {"PutRecord.Latency", UnitMilliseconds},
	PutRecordSuccess:                        {"PutRecord.Success", UnitCount},
	PutRecordsBytes:                         {"PutRecords.Bytes", UnitBytes},
	PutRecordsLatency:                       {"PutRecords.Latency", UnitMilliseconds},
	PutRecordsSuccess:                       {"PutRecords.Success", UnitCount},
	PutRecordsTotalRecords:                  {"PutRecords.TotalRecords", UnitCount},
	PutRecordsSuccessfulRecords:             {"PutRecords.SuccessfulRecords", UnitCount},
	PutRecordsFailedRecords:                 {"PutRecords.FailedRecords", UnitCount},
	PutRecordsThrottledRecords:              {"PutRecords.ThrottledRecords", UnitCount},
	ReadProvisionedThroughputExceeded:       {"ReadProvisionedThroughputExceeded", UnitCount},
	WriteProvisionedThroughputExceeded:      {"WriteProvisionedThroughputExceeded", UnitCount},
	SubscribeToShardSuccess:                 {"SubscribeToShard.Success", UnitCount},
	SubscribeToShardRateExceeded:            {"SubscribeToShard.RateExceeded", UnitCount},
	SubscribeToShardEventSuccess:            {"SubscribeToShardEvent.Success", UnitCount},
	SubscribeToShardEventBytes:              {"SubscribeToShardEvent.Bytes", UnitBytes},
	SubscribeToShardEventRecords:            {"SubscribeToShardEvent.Records", UnitCount},
	SubscribeToShardEventMillisBehindLatest: {"SubscribeToShardEvent.MillisBehindLatest", UnitMilliseconds},
}

// String is the metric's name in CloudWatch.
func (m Metric) String() string { return metricInfo[m].name }

// Unit is what a sample counts.
func (m Metric) Unit() Unit { return metricInfo[m].unit }

// noMetrics is the Metrics of a Service without any.
type noMetrics struct{}

func (noMetrics) Series(Labels) Series { return noSeries{} }
func (noMetrics) Drop(Labels)          {}

type noSeries struct{}

func (noSeries) Add(Metric, float64) {}
