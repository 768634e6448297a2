package analytics

import (
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

// define makes of a record what a host needs. It fails only for a record that
// rules.go would refuse; what it returns then can be told of and not be run.
func (s *Service) define(r *record, n applicationName) (*app.Application, error) {
	a := &app.Application{
		ID: r.ID, ARN: n.arn(), Account: n.account, Region: n.region, Name: n.name,
		Version: r.Version, Run: r.Runs, Code: api.Val(r.Code), Extensions: s.extensions(r),
	}
	role := func(own *string) string {
		if own != nil {
			return *own
		}
		return r.Role
	}
	for _, l := range r.Logging {
		a.Logging = append(a.Logging, app.LogStream{ID: l.ID, ARN: api.Val(l.Config.LogStreamARN), Role: role(l.Config.RoleARN)})
	}
	for _, in := range r.Inputs {
		c := in.Config
		format, err := formatOf(c.InputSchema)
		if err != nil {
			return a, fmt.Errorf("input %s: %w", in.ID, err)
		}
		input := app.Input{ID: in.ID, Format: format, Start: app.Position{At: time.UnixMilli(in.PositionAt).UTC()}}
		switch in.Position {
		case kinesisanalytics.InputStartingPositionTrimHorizon:
			input.Start.Start = app.TrimHorizon
		case kinesisanalytics.InputStartingPositionLastStoppedPoint:
			input.Start.Start = app.LastStopped
		}
		if k := c.KinesisStreamsInput; k != nil {
			input.Source = app.Resource{Kind: app.DataStream, ARN: api.Val(k.ResourceARN), Role: role(k.RoleARN)}
		} else if k := c.KinesisFirehoseInput; k != nil {
			input.Source = app.Resource{Kind: app.DeliveryStream, ARN: api.Val(k.ResourceARN), Role: role(k.RoleARN)}
		}
		if p := processor(&c); p != nil {
			input.Processor = &app.Resource{Kind: app.Function, ARN: api.Val(p.ResourceARN), Role: role(p.RoleARN)}
		}
		for i := range parallelism(&c) {
			input.Streams = append(input.Streams, app.StreamName(api.Val(c.NamePrefix), i+1))
		}
		a.Inputs = append(a.Inputs, input)
	}
	for _, ref := range r.References {
		c := ref.Config
		format, err := formatOf(c.ReferenceSchema)
		if err != nil {
			return a, fmt.Errorf("reference data source %s: %w", ref.ID, err)
		}
		reference := app.Reference{ID: ref.ID, Table: api.Val(c.TableName), Format: format, Loaded: ref.Loaded}
		if o := c.S3ReferenceDataSource; o != nil {
			reference.Bucket, reference.Key = bucketName(api.Val(o.BucketARN)), api.Val(o.FileKey)
			reference.Role = role(o.ReferenceRoleARN)
		}
		a.References = append(a.References, reference)
	}
	for _, out := range r.Outputs {
		c := out.Config
		output := app.Output{ID: out.ID, Stream: api.Val(c.Name)}
		switch {
		case c.KinesisStreamsOutput != nil:
			output.Destination = app.Resource{Kind: app.DataStream, ARN: api.Val(c.KinesisStreamsOutput.ResourceARN), Role: role(c.KinesisStreamsOutput.RoleARN)}
		case c.KinesisFirehoseOutput != nil:
			output.Destination = app.Resource{Kind: app.DeliveryStream, ARN: api.Val(c.KinesisFirehoseOutput.ResourceARN), Role: role(c.KinesisFirehoseOutput.RoleARN)}
		case c.LambdaOutput != nil:
			output.Destination = app.Resource{Kind: app.Function, ARN: api.Val(c.LambdaOutput.ResourceARN), Role: role(c.LambdaOutput.RoleARN)}
		}
		if c.DestinationSchema != nil {
			output.CSV = api.Val(c.DestinationSchema.RecordFormatType) == kinesisanalytics.RecordFormatTypeCsv
		}
		a.Outputs = append(a.Outputs, output)
	}
	return a, nil
}

// extensions reports whether an application's program may use what is not part
// of the dialect.
func (s *Service) extensions(r *record) bool {
	return s.options.Extensions || strings.EqualFold(r.Tags[extensionsTag], "on")
}

// processor is an input's function, nil if it has none.
func processor(in *kinesisanalytics.Input) *kinesisanalytics.InputLambdaProcessor {
	if in.InputProcessingConfiguration == nil {
		return nil
	}
	return in.InputProcessingConfiguration.InputLambdaProcessor
}

// parallelism is the number of an input's in-application streams.
func parallelism(in *kinesisanalytics.Input) int {
	if in.InputParallelism == nil || in.InputParallelism.Count == nil {
		return 1
	}
	return int(*in.InputParallelism.Count)
}

// bucketName is the name in arn:aws:s3:::name.
func bucketName(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// formatOf is how records become rows. Errors are for callers.
func formatOf(schema *kinesisanalytics.SourceSchema) (run.Format, error) {
	if schema == nil || schema.RecordFormat == nil {
		return run.Format{}, invalid("A schema with a record format is required.")
	}
	var f run.Format
	format := schema.RecordFormat
	mapping := format.MappingParameters
	switch api.Val(format.RecordFormatType) {
	case kinesisanalytics.RecordFormatTypeJson:
		if mapping != nil && mapping.CSVMappingParameters != nil {
			return f, invalid("CSVMappingParameters cannot be given for the record format JSON.")
		}
		f.RowPath = "$"
		if mapping != nil && mapping.JSONMappingParameters != nil {
			f.RowPath = api.Val(mapping.JSONMappingParameters.RecordRowPath)
		}
	case kinesisanalytics.RecordFormatTypeCsv:
		if mapping != nil && mapping.JSONMappingParameters != nil {
			return f, invalid("JSONMappingParameters cannot be given for the record format CSV.")
		}
		if mapping == nil || mapping.CSVMappingParameters == nil {
			return f, invalid("CSVMappingParameters are required for the record format CSV.")
		}
		f.CSV = true
		f.RowDelimiter, f.ColumnDelimiter = api.Val(mapping.CSVMappingParameters.RecordRowDelimiter), api.Val(mapping.CSVMappingParameters.RecordColumnDelimiter)
	default:
		return f, invalid("The record format %q is unknown; it is JSON or CSV.", api.Val(format.RecordFormatType))
	}
	names := make(map[string]bool, len(schema.RecordColumns))
	for _, c := range schema.RecordColumns {
		column := run.SourceColumn{Name: api.Val(c.Name), Mapping: api.Val(c.Mapping)}
		if problem := identifier(column.Name, maxIdentifier); problem != "" {
			return f, invalid("The column name %q %s.", column.Name, problem)
		}
		if column.Name == "ROWTIME" {
			return f, invalid("The column name ROWTIME is that of the time of rows.")
		}
		if names[column.Name] {
			return f, invalid("The column name %q is given twice.", column.Name)
		}
		names[column.Name] = true
		var err error
		if column.Type, err = sql.ParseType(api.Val(c.SqlType)); err != nil {
			return f, invalid("The type %q of column %q is not valid: %v", api.Val(c.SqlType), column.Name, err)
		}
		switch column.Type.Kind {
		case sql.KindInterval, sql.KindNull, sql.KindRow:
			return f, invalid("A column cannot have the type %q of column %q.", api.Val(c.SqlType), column.Name)
		}
		if !f.CSV && column.Mapping == "" {
			return f, invalid("The column %q has no Mapping, which the record format JSON needs.", column.Name)
		}
		f.Columns = append(f.Columns, column)
	}
	if _, err := run.NewParser(f); err != nil {
		return f, invalid("The schema is not valid: %v.", err)
	}
	return f, nil
}

// maxIdentifier bounds names in programs, in characters.
const maxIdentifier = 128

// identifier says what is wrong with a name that is to be a quoted identifier;
// empty if nothing is.
func identifier(name string, limit int) string {
	if name == "" {
		return "is empty"
	}
	n := 0
	for _, r := range name {
		if r < 0x20 {
			return "has a control character"
		}
		if n++; n > limit {
			return fmt.Sprintf("has more than %d characters", limit)
		}
	}
	return ""
}
