package process

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Config is a chain's steps, checked. The zero value has none.
type Config struct {
	Decompress  bool   // Decompression, GZIP
	LogMessages bool   // CloudWatchLogProcessing with DataMessageExtraction
	Split       *Split // RecordDeAggregation
	Function    *Function
	Query       *Query // MetadataExtraction
	Append      []byte // AppendDelimiterToRecord; nil is none
}

// Split is how records are taken apart: at a delimiter, or between JSON values if
// it is empty.
type Split struct{ Delimiter []byte }

// Function is a Lambda processor.
type Function struct {
	ARN, RoleARN string
	Retries      int // after the first attempt
	Buffer       record.Hints
}

// Empty reports whether there are no steps.
func (c Config) Empty() bool {
	return !c.Decompress && !c.LogMessages && c.Split == nil && c.Function == nil && c.Query == nil && c.Append == nil
}

// Context is what the rules about processors depend on besides themselves.
type Context struct {
	// Partitioning says that dynamic partitioning is enabled.
	Partitioning bool
	// Routing says that MetadataExtraction routes records to tables (Iceberg),
	// which needs no dynamic partitioning.
	Routing bool
	// Destination is the kind of destination, on which the function's default
	// buffer depends: "splunk" and "snowflake" differ from the rest.
	Destination string
}

const (
	maxProcessors = 5
	maxQuery      = 5120 // characters
	mib           = 1 << 20
)

// Parse checks a processing configuration, as CreateDeliveryStream and
// UpdateDestination do. nil and a configuration that is not enabled have no
// steps. Errors are in the words of the service, to be given as an
// InvalidArgumentException.
func Parse(in *firehose.ProcessingConfiguration, o Context) (Config, error) {
	var c Config
	if in == nil || in.Enabled == nil || !*in.Enabled {
		return c, nil
	}
	if n := len(in.Processors); n == 0 || n > maxProcessors {
		return c, errors.New("A maximum of 5 and a minimum of 1 processor can be configured when processing is enabled")
	}
	seen := map[firehose.ProcessorType]bool{}
	for _, p := range in.Processors {
		kind := deref(p.Type)
		if seen[kind] {
			return Config{}, fmt.Errorf("Cannot have more than 1 %s processor", kind)
		}
		seen[kind] = true
		parameters := map[firehose.ProcessorParameterName]string{}
		for _, q := range p.Parameters {
			parameters[deref(q.ParameterName)] = deref(q.ParameterValue)
		}
		if err := c.add(kind, parameters, o); err != nil {
			return Config{}, err
		}
	}
	if c.LogMessages && !c.Decompress {
		return Config{}, errors.New("CloudWatchLogProcessing can only be enabled with DecompressionProcessor")
	}
	return c, nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (c *Config) add(kind firehose.ProcessorType, parameters map[firehose.ProcessorParameterName]string, o Context) error {
	switch kind {
	case firehose.ProcessorTypeDecompression:
		if parameters[firehose.ProcessorParameterNameCompressionFormat] != "GZIP" {
			return errors.New("CompressionFormat of Decompression processor has to be one of GZIP")
		}
		c.Decompress = true
	case firehose.ProcessorTypeCloudWatchLogProcessing:
		if !strings.EqualFold(parameters[firehose.ProcessorParameterNameDataMessageExtraction], "true") {
			return errors.New("DataMessageExtraction of CloudWatchLogProcessing processor has to be true")
		}
		c.LogMessages = true
	case firehose.ProcessorTypeRecordDeAggregation:
		return c.addSplit(parameters, o)
	case firehose.ProcessorTypeLambda:
		return c.addFunction(parameters, o)
	case firehose.ProcessorTypeMetadataExtraction:
		return c.addQuery(parameters, o)
	case firehose.ProcessorTypeAppendDelimiterToRecord:
		c.Append = []byte(unescape(parameters[firehose.ProcessorParameterNameDelimiter]))
		if len(c.Append) == 0 {
			c.Append = []byte("\n")
		}
	default:
		return fmt.Errorf("Processor type %q is not supported", clip(string(kind)))
	}
	return nil
}

// unescape reads a delimiter that may have been escaped for a shell or a template
// once too often.
func unescape(s string) string {
	return strings.NewReplacer(`\\n`, "\n", `\\r`, "\r", `\\t`, "\t", `\n`, "\n", `\r`, "\r", `\t`, "\t").Replace(s)
}

func clip(s string) string {
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}

func (c *Config) addSplit(parameters map[firehose.ProcessorParameterName]string, o Context) error {
	if !o.Partitioning {
		return errors.New("RecordDeAggregation processor can only be present when Dynamic Partitioning is enabled")
	}
	switch parameters[firehose.ProcessorParameterNameSubRecordType] {
	case "JSON":
		c.Split = &Split{}
		return nil
	case "DELIMITED":
		text := parameters[firehose.ProcessorParameterNameDelimiter]
		if text == "" {
			return errors.New("Delimiter should be present for DELIMITED SubRecordType")
		}
		delimiter, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(delimiter) == 0 {
			return errors.New("Delimiter of RecordDeAggregation processor has to be base64 encoded")
		}
		c.Split = &Split{Delimiter: delimiter}
		return nil
	}
	return errors.New("SubRecordType has to be one of JSON, DELIMITED")
}

func (c *Config) addFunction(parameters map[firehose.ProcessorParameterName]string, o Context) error {
	f := &Function{
		ARN:     parameters[firehose.ProcessorParameterNameLambdaArn],
		RoleARN: parameters[firehose.ProcessorParameterNameRoleArn],
		Retries: 3,
		Buffer:  record.Hints{Bytes: mib, Interval: time.Minute},
	}
	if f.ARN == "" {
		return errors.New("LambdaArn is required for Lambda processor")
	}
	switch o.Destination {
	case "splunk":
		f.Buffer.Bytes = mib / 4
	case "snowflake":
		f.Buffer = record.Hints{Bytes: mib / 4, Interval: 30 * time.Second}
	}
	if text, ok := parameters[firehose.ProcessorParameterNameNumberOfRetries]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 300 {
			return errors.New("NumberOfRetries of Lambda processor must be between 0 and 300")
		}
		f.Retries = n
	}
	size, hasSize := parameters[firehose.ProcessorParameterNameBufferSizeInMBs]
	interval, hasInterval := parameters[firehose.ProcessorParameterNameBufferIntervalInSeconds]
	if hasSize != hasInterval {
		return errors.New("Both BufferSizeInMBs and BufferIntervalInSeconds are required to configure buffering for Lambda processor")
	}
	if hasSize {
		mb, err := strconv.ParseFloat(size, 64)
		if err != nil || math.IsNaN(mb) || mb < 0.2 || mb > 3 {
			return errors.New("BufferSizeInMBs of Lambda processor must be between 0.2 and 3")
		}
		seconds, err := strconv.Atoi(interval)
		if err != nil || seconds < 0 || seconds > 900 {
			return errors.New("BufferIntervalInSeconds of Lambda processor must be between 0 and 900")
		}
		f.Buffer = record.Hints{Bytes: int64(mb * mib), Interval: time.Duration(seconds) * time.Second}
	}
	c.Function = f
	return nil
}

func (c *Config) addQuery(parameters map[firehose.ProcessorParameterName]string, o Context) error {
	if !o.Partitioning && !o.Routing {
		return errors.New("MetadataExtraction processor can only be present when Dynamic Partitioning is enabled")
	}
	text := parameters[firehose.ProcessorParameterNameMetadataExtractionQuery]
	if engine := parameters[firehose.ProcessorParameterNameJsonParsingEngine]; engine != "JQ-1.6" {
		return errors.New("Parsing Engine has to be one of JQ-1.6")
	}
	if text == "" {
		return errors.New("MetadataExtractionQuery is required for MetadataExtraction processor. Parsing Engine has to be one of JQ-1.6")
	}
	q, err := NewQuery(text)
	if err != nil {
		return err
	}
	q.routing = o.Routing
	c.Query = q
	return nil
}
