package firehose

import (
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/process"
)

// parametersOf are the parameters that a processor takes.
var parametersOf = map[firehose.ProcessorType][]firehose.ProcessorParameterName{
	firehose.ProcessorTypeLambda: {
		firehose.ProcessorParameterNameLambdaArn, firehose.ProcessorParameterNameNumberOfRetries, firehose.ProcessorParameterNameRoleArn,
		firehose.ProcessorParameterNameBufferSizeInMBs, firehose.ProcessorParameterNameBufferIntervalInSeconds,
	},
	firehose.ProcessorTypeMetadataExtraction: {
		firehose.ProcessorParameterNameMetadataExtractionQuery, firehose.ProcessorParameterNameJsonParsingEngine,
	},
	firehose.ProcessorTypeRecordDeAggregation: {
		firehose.ProcessorParameterNameSubRecordType, firehose.ProcessorParameterNameDelimiter,
	},
	firehose.ProcessorTypeAppendDelimiterToRecord: {firehose.ProcessorParameterNameDelimiter},
	firehose.ProcessorTypeDecompression:           {firehose.ProcessorParameterNameCompressionFormat},
	firehose.ProcessorTypeCloudWatchLogProcessing: {firehose.ProcessorParameterNameDataMessageExtraction},
}

// processing checks processors and their parameters. What a processor wants of
// its parameters is the business of package process; that it gets no others,
// which would be passed over in silence, is checked here.
func (c *checker) processing() error {
	config := c.shared.ProcessingConfiguration
	if !processes(config) {
		return nil
	}
	lambdas := 0
	for i := range config.Processors {
		p := &config.Processors[i]
		if *p.Type == firehose.ProcessorTypeLambda {
			if lambdas++; lambdas > 1 {
				return invalidArgument("Cannot have more than 1 Lambda processor")
			}
		}
	}
	if _, err := chainConfig(c.d); err != nil {
		return invalidArgument("%s", err.Error())
	}
	for i := range config.Processors {
		p := &config.Processors[i]
		given := map[firehose.ProcessorParameterName]bool{}
		for _, q := range p.Parameters {
			switch {
			case !slices.Contains(parametersOf[*p.Type], *q.ParameterName):
				return invalidArgument("Parameter %s is not valid for processor %s.", *q.ParameterName, *p.Type)
			case given[*q.ParameterName]:
				return invalidArgument("Parameter %s is specified more than once for processor %s.", *q.ParameterName, *p.Type)
			}
			given[*q.ParameterName] = true
		}
	}
	return nil
}

// chainConfig are the steps that a destination wants records to take.
func chainConfig(d *destination) (process.Config, error) {
	c := d.shared().ProcessingConfiguration
	if c != nil {
		fillProcessing(&c)
	}
	o := process.Context{Partitioning: partitions(d.ExtendedS3), Routing: d.Iceberg != nil}
	switch d.kind() {
	case kindSplunk:
		o.Destination = "splunk"
	case kindSnowflake:
		o.Destination = "snowflake"
	}
	return process.Parse(c, o)
}

func (c *checker) conversion() error {
	e := c.d.ExtendedS3
	if !converts(e) {
		return nil
	}
	if f := api.Val(e.CompressionFormat); f != "" && f != firehose.CompressionFormatUncompressed {
		return invalidArgument("S3 compression format must be set to UNCOMPRESSED when data format conversion is enabled.")
	}
	conversion := e.DataFormatConversionConfiguration
	switch {
	case conversion.SchemaConfiguration == nil:
		return invalidArgument("SchemaConfiguration is required when data format conversion is enabled.")
	case conversion.InputFormatConfiguration == nil:
		return invalidArgument("InputFormatConfiguration is required when data format conversion is enabled.")
	case conversion.OutputFormatConfiguration == nil:
		return invalidArgument("OutputFormatConfiguration is required when data format conversion is enabled.")
	}
	out := conversion.OutputFormatConfiguration.Serializer
	switch {
	case out == nil || out.OrcSerDe == nil && out.ParquetSerDe == nil:
		return invalidArgument("Serializer must not be null.")
	case out.OrcSerDe != nil && out.ParquetSerDe != nil:
		return invalidArgument("More than one serializer specified.")
	}
	in := conversion.InputFormatConfiguration.Deserializer
	switch {
	case in == nil || in.HiveJsonSerDe == nil && in.OpenXJsonSerDe == nil:
		return invalidArgument("Deserializer must not be null.")
	case in.HiveJsonSerDe != nil && in.OpenXJsonSerDe != nil:
		return invalidArgument("More than one deserializer specified.")
	}
	schema := conversion.SchemaConfiguration
	for _, member := range []struct {
		name  string
		value *string
	}{{"RoleARN", schema.RoleARN}, {"DatabaseName", schema.DatabaseName}, {"TableName", schema.TableName}} {
		if api.Val(member.value) == "" {
			return invalidArgument("%s is required in SchemaConfiguration when data format conversion is enabled.", member.name)
		}
	}
	return nil
}
