package host

// Metrics is where measurements go. Names and meanings are those that the service
// publishes to CloudWatch in the namespace AWS/KinesisAnalytics, and some of our
// own.
type Metrics interface {
	// Series returns what collects the samples of one input or output of an
	// application, or with an empty Flow and id those of the application as a
	// whole. It is called when the application is started, and the result is kept.
	Series(account, region, application string, flow Flow, id string) Series
	// Drop forgets all series of an application.
	Drop(account, region, application string)
}

// Series takes samples; it is called concurrently, on the path of every batch of
// records, and must not block.
type Series interface {
	// Add records one sample: a number of bytes, records or rows, a duration in
	// milliseconds, or 1 or 0 for a success or failure.
	Add(m Metric, value float64)
}

// Flow says which way records go: the value of the dimension Flow.
type Flow string

// The flows.
const (
	FlowInput  Flow = "Input"
	FlowOutput Flow = "Output"
)

// Metric is the name of a metric.
type Metric string

// The metrics of the service.
const (
	// Bytes and Records are what was read of an input's source, or has become
	// durable at an output's destination.
	Bytes   Metric = "Bytes"
	Records Metric = "Records"
	// MillisBehindLatest is how long ago the record arrived behind which an input is
	// to be read on; 0 if all is read. It is sampled once a second.
	MillisBehindLatest Metric = "MillisBehindLatest"
	// Success has a sample for each attempt to deliver rows of an output: 1 if it
	// succeeded, 0 if not.
	Success Metric = "Success"
	// KPUs is what an application takes of the machine as the service counts it, as
	// a fraction: the greater of cores and of 4 GiB of memory. It is sampled once a
	// second.
	KPUs Metric = "KPUs"

	// Of the function that an input's records pass through first.
	InputProcessingOkRecords               Metric = "InputProcessing.OkRecords"
	InputProcessingOkBytes                 Metric = "InputProcessing.OkBytes"
	InputProcessingDroppedRecords          Metric = "InputProcessing.DroppedRecords"
	InputProcessingProcessingFailedRecords Metric = "InputProcessing.ProcessingFailedRecords"
	InputProcessingSuccess                 Metric = "InputProcessing.Success"
	InputProcessingDuration                Metric = "InputProcessing.Duration" // milliseconds

	// Of a function that an output's rows go to.
	LambdaDeliveryOkRecords             Metric = "LambdaDelivery.OkRecords"
	LambdaDeliveryDeliveryFailedRecords Metric = "LambdaDelivery.DeliveryFailedRecords"
	LambdaDeliveryDuration              Metric = "LambdaDelivery.Duration" // milliseconds
)

// The metrics that are not the service's.
const (
	// Rows are the rows that an input's records became.
	Rows Metric = "Rows"
	// RefusedRows are rows and records of an input that went to the error stream
	// because they could not be read.
	RefusedRows Metric = "RefusedRows"
	// LostRecords are records that were not in their source any more when they were
	// to be read.
	LostRecords Metric = "LostRecords"
	// StateBytes is the memory that an application's state takes, sampled once a
	// second.
	StateBytes Metric = "StateBytes"
	// CheckpointBytes and CheckpointDuration, in milliseconds, have a sample for
	// each checkpoint, CheckpointSuccess one for each attempt.
	CheckpointBytes    Metric = "CheckpointBytes"
	CheckpointDuration Metric = "CheckpointDuration"
	CheckpointSuccess  Metric = "CheckpointSuccess"
)

// nowhere forgets all measurements.
type nowhere struct{}

func (nowhere) Series(string, string, string, Flow, string) Series { return nowhere{} }
func (nowhere) Drop(string, string, string)                        {}
func (nowhere) Add(Metric, float64)                                {}
