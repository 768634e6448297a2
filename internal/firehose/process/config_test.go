package process

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api/firehose"
)

// configuration reads processors in the form "Type Name=value Name=value".
func configuration(enabled bool, processors ...string) *firehose.ProcessingConfiguration {
	c := &firehose.ProcessingConfiguration{Enabled: &enabled}
	for _, text := range processors {
		fields := strings.Split(text, "|")
		kind := firehose.ProcessorType(fields[0])
		p := firehose.Processor{Type: &kind}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(f, "=")
			n := firehose.ProcessorParameterName(name)
			p.Parameters = append(p.Parameters, firehose.ProcessorParameter{ParameterName: &n, ParameterValue: &value})
		}
		c.Processors = append(c.Processors, p)
	}
	return c
}

var partitioned = Context{Partitioning: true}

func TestConfigurationsOfProcessors(t *testing.T) {
	for _, c := range []struct {
		name       string
		context    Context
		processors []string
		want       func(Config) string
		is         string
	}{
		{"a function's defaults", Context{}, []string{"Lambda|LambdaArn=arn:f"}, showFunction, "arn:f  3 1048576 1m0s"},
		{"for Splunk", Context{Destination: "splunk"}, []string{"Lambda|LambdaArn=arn:f"}, showFunction, "arn:f  3 262144 1m0s"},
		{"for Snowflake", Context{Destination: "snowflake"}, []string{"Lambda|LambdaArn=arn:f"}, showFunction, "arn:f  3 262144 30s"},
		{"all of its parameters", Context{}, []string{"Lambda|LambdaArn=arn:f|NumberOfRetries=0|RoleArn=arn:r|BufferSizeInMBs=0.2|BufferIntervalInSeconds=900"}, showFunction, "arn:f arn:r 0 209715 15m0s"},
		{"their bounds", Context{}, []string{"Lambda|LambdaArn=arn:f|NumberOfRetries=300|BufferSizeInMBs=3|BufferIntervalInSeconds=0"}, showFunction, "arn:f  300 3145728 0s"},
		{"a delimiter", Context{}, []string{"AppendDelimiterToRecord"}, showAppend, `"\n"`},
		{"escaped", Context{}, []string{`AppendDelimiterToRecord|Delimiter=\n`}, showAppend, `"\n"`},
		{"escaped twice", Context{}, []string{`AppendDelimiterToRecord|Delimiter=\\n`}, showAppend, `"\n"`},
		{"another", Context{}, []string{`AppendDelimiterToRecord|Delimiter=||`}, showAppend, `"\n"`},
		{"carriage return", Context{}, []string{`AppendDelimiterToRecord|Delimiter=;\r\n`}, showAppend, `";\r\n"`},
		{"JSON parts", partitioned, []string{"RecordDeAggregation|SubRecordType=JSON"}, showSplit, `""`},
		{"delimited parts", partitioned, []string{"RecordDeAggregation|SubRecordType=DELIMITED|Delimiter=IyMjIw=="}, showSplit, `"####"`},
		{"a query", partitioned, []string{"MetadataExtraction|JsonParsingEngine=JQ-1.6|MetadataExtractionQuery={a:.b}"}, showQuery, "{a:.b} [a] false"},
		{"a route", Context{Routing: true}, []string{"MetadataExtraction|JsonParsingEngine=JQ-1.6|MetadataExtractionQuery={a:.b}"}, showQuery, "{a:.b} [a] true"},
		{"logs", Context{}, []string{"CloudWatchLogProcessing|DataMessageExtraction=true", "Decompression|CompressionFormat=GZIP"}, showLogs, "true true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := Parse(configuration(true, c.processors...), c.context)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.want(config); got != c.is {
				t.Errorf("got %s, want %s", got, c.is)
			}
		})
	}
}

func showFunction(c Config) string {
	f := c.Function
	return fmt.Sprintf("%s %s %d %d %s", f.ARN, f.RoleARN, f.Retries, f.Buffer.Bytes, f.Buffer.Interval)
}
func showAppend(c Config) string { return fmt.Sprintf("%q", c.Append) }
func showSplit(c Config) string  { return fmt.Sprintf("%q", c.Split.Delimiter) }
func showQuery(c Config) string {
	return fmt.Sprint(c.Query, c.Query.Keys(), c.Query.routing)
}
func showLogs(c Config) string { return fmt.Sprint(c.Decompress, c.LogMessages) }

func TestRefusedProcessors(t *testing.T) {
	const query = "MetadataExtraction|JsonParsingEngine=JQ-1.6|MetadataExtractionQuery="
	for _, c := range []struct {
		name       string
		context    Context
		processors []string
		want       string
	}{
		{"none", Context{}, nil, "A maximum of 5 and a minimum of 1 processor"},
		{"six", Context{}, []string{"Lambda", "Lambda", "Lambda", "Lambda", "Lambda", "Lambda"}, "A maximum of 5 and a minimum of 1 processor"},
		{"two functions", Context{}, []string{"Lambda|LambdaArn=a", "Lambda|LambdaArn=b"}, "Cannot have more than 1 Lambda processor"},
		{"a function without a name", Context{}, []string{"Lambda|NumberOfRetries=1"}, "LambdaArn is required"},
		{"too many retries", Context{}, []string{"Lambda|LambdaArn=a|NumberOfRetries=301"}, "must be between 0 and 300"},
		{"retries that are no number", Context{}, []string{"Lambda|LambdaArn=a|NumberOfRetries=x"}, "must be between 0 and 300"},
		{"too small a buffer", Context{}, []string{"Lambda|LambdaArn=a|BufferSizeInMBs=0.1|BufferIntervalInSeconds=60"}, "must be between 0.2 and 3"},
		{"no size", Context{}, []string{"Lambda|LambdaArn=a|BufferSizeInMBs=NaN|BufferIntervalInSeconds=60"}, "must be between 0.2 and 3"},
		{"too long an interval", Context{}, []string{"Lambda|LambdaArn=a|BufferSizeInMBs=1|BufferIntervalInSeconds=901"}, "must be between 0 and 900"},
		{"a size alone", Context{}, []string{"Lambda|LambdaArn=a|BufferSizeInMBs=1"}, "Both BufferSizeInMBs and BufferIntervalInSeconds are required"},
		{"an interval alone", Context{}, []string{"Lambda|LambdaArn=a|BufferIntervalInSeconds=60"}, "Both BufferSizeInMBs and BufferIntervalInSeconds are required"},
		{"a query without an engine", partitioned, []string{"MetadataExtraction|MetadataExtractionQuery={a:1}"}, "Parsing Engine has to be one of JQ-1.6"},
		{"another engine", partitioned, []string{"MetadataExtraction|MetadataExtractionQuery={a:1}|JsonParsingEngine=JQ-1.7"}, "Parsing Engine has to be one of JQ-1.6"},
		{"an engine without a query", partitioned, []string{"MetadataExtraction|JsonParsingEngine=JQ-1.6"}, "Parsing Engine has to be one of JQ-1.6"},
		{"a query that is none", partitioned, []string{query + "{a:"}, "not a valid JQ-1.6 expression"},
		{"an unknown function", partitioned, []string{query + "{a:nope(1)}"}, "not a valid JQ-1.6 expression"},
		{"a module", partitioned, []string{query + `import "a" as a; {a: a::b}`}, "cannot import modules"},
		{"a module of another form", partitioned, []string{query + `include "a"; {a: b}`}, "cannot import modules"},
		{"too long a query", partitioned, []string{query + strings.Repeat(" ", 5120) + "."}, "at most 5120"},
		{"too many keys", partitioned, []string{query + "{" + manyKeys(51) + "}"}, "at most 50"},
		{"a query without partitioning", Context{}, []string{query + "{a:1}"}, "MetadataExtraction processor can only be present when Dynamic Partitioning is enabled"},
		{"parts without partitioning", Context{}, []string{"RecordDeAggregation|SubRecordType=JSON"}, "RecordDeAggregation processor can only be present when Dynamic Partitioning is enabled"},
		{"parts of no kind", partitioned, []string{"RecordDeAggregation"}, "SubRecordType has to be one of JSON, DELIMITED"},
		{"parts of another kind", partitioned, []string{"RecordDeAggregation|SubRecordType=CSV"}, "SubRecordType has to be one of JSON, DELIMITED"},
		{"no delimiter", partitioned, []string{"RecordDeAggregation|SubRecordType=DELIMITED"}, "Delimiter should be present for DELIMITED"},
		{"a delimiter in clear text", partitioned, []string{"RecordDeAggregation|SubRecordType=DELIMITED|Delimiter=####"}, "base64"},
		{"messages without decompression", Context{}, []string{"CloudWatchLogProcessing|DataMessageExtraction=true"}, "CloudWatchLogProcessing can only be enabled with DecompressionProcessor"},
		{"messages that are not wanted", Context{}, []string{"Decompression|CompressionFormat=GZIP", "CloudWatchLogProcessing|DataMessageExtraction=false"}, "DataMessageExtraction"},
		{"another compression", Context{}, []string{"Decompression|CompressionFormat=ZSTD"}, "CompressionFormat"},
		{"an unknown processor", Context{}, []string{"Encryption"}, "is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := Parse(configuration(true, c.processors...), c.context)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a text with %q", err, c.want)
			}
			if !config.Empty() {
				t.Errorf("refused, and %+v", config)
			}
		})
	}
}

func TestProcessingThatIsOff(t *testing.T) {
	for _, c := range []*firehose.ProcessingConfiguration{nil, {}, configuration(false), configuration(false, "Lambda")} {
		if config, err := Parse(c, Context{}); err != nil || !config.Empty() {
			t.Errorf("got %+v (%v)", config, err)
		}
	}
}

func TestBatchLimits(t *testing.T) {
	config, err := Parse(configuration(true, "Lambda|LambdaArn=arn:f|BufferSizeInMBs=2|BufferIntervalInSeconds=5"), Context{})
	if err != nil {
		t.Fatal(err)
	}
	if got := NewChain(config, function(nil)).BatchLimits(); got.Bytes != 2<<20 || got.Interval != 5*time.Second {
		t.Errorf("limits %+v", got)
	}
}
