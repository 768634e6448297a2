package analytics

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/discover"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/objects"
)

// What a source can say instead of samples.
var (
	ErrNoSource  = errors.New("there is no such source")
	ErrThrottled = errors.New("the source is read too often")
	ErrDenied    = errors.New("the role may not read it")
)

// Recent asks a source for records of late; the other starts are those of inputs.
const Recent = app.LastStopped

// Sources gives samples of what streams hold.
type Sources interface {
	// Sample reads up to max records, and no more than about maxBytes of them,
	// from where start says: with Recent the newest there are, with Now those that
	// come while ctx lasts. ErrNoSource, ErrThrottled, ErrDenied.
	Sample(ctx context.Context, source app.Resource, start app.Start, max, maxBytes int) ([]app.Record, error)
}

// Functions process records.
type Functions interface {
	// Invoke calls a function in a role and returns its answer; an error that the
	// function reports is an error.
	Invoke(ctx context.Context, function app.Resource, payload []byte) ([]byte, error)
}

// Bounds of a discovery.
const (
	maxSamples      = 200
	maxSampleBytes  = 1 << 20
	discoveryBound  = 20 * time.Second
	maxShownRecords = 20
)

// discover guesses the schema of a source from samples, processed by a function
// if the call names one.
func (s *Service) discover(ctx context.Context, call *api.Call, in *kinesisanalytics.DiscoverInputSchemaInput, role string) (*kinesisanalytics.DiscoverInputSchemaOutput, error) {
	if (in.ResourceARN == nil) == (in.S3Configuration == nil) {
		return nil, invalid("Exactly one of ResourceARN and S3Configuration must be given.")
	}
	function := ""
	if p := in.InputProcessingConfiguration; p != nil {
		if p.InputLambdaProcessor == nil || !resource(api.Val(p.InputLambdaProcessor.ResourceARN), "lambda", "function:") {
			return nil, invalid("The input processing configuration does not name a Lambda function.")
		}
		function = *p.InputLambdaProcessor.ResourceARN
	}
	ctx, cancel := context.WithTimeout(ctx, discoveryBound)
	defer cancel()
	var raw []app.Record
	var source app.Resource
	var err error
	if o := in.S3Configuration; o != nil {
		raw, err = s.sampleObject(ctx, api.Val(o.BucketARN), api.Val(o.FileKey), role)
	} else {
		source = app.Resource{Kind: app.DataStream, ARN: *in.ResourceARN, Role: role}
		raw, err = s.sampleStream(ctx, call, &source, in.InputStartingPositionConfiguration)
	}
	if err != nil {
		return nil, err
	}
	undetected := func(processed []app.Record, message string) error {
		return &kinesisanalytics.UnableToDetectSchemaException{Message: message, RawInputRecords: texts(raw), ProcessedInputRecords: texts(processed)}
	}
	if len(raw) == 0 {
		return nil, undetected(nil, "There are no records to detect a schema from.")
	}
	processed, samples := []app.Record(nil), raw
	if function != "" {
		by := app.Resource{Kind: app.Function, ARN: function, Role: role}
		if own := in.InputProcessingConfiguration.InputLambdaProcessor.RoleARN; own != nil {
			by.Role = *own
		}
		if processed, err = s.process(ctx, call, by, source, raw); err != nil {
			return nil, undetected(nil, "The records could not be processed: "+err.Error())
		}
		samples = processed
	}
	list := make([]string, len(samples))
	for i, r := range samples {
		list[i] = string(r.Data)
	}
	format, err := discover.Most(list)
	if err != nil {
		return nil, undetected(processed, "Unable to detect the schema: "+err.Error()+".")
	}
	out := &kinesisanalytics.DiscoverInputSchemaOutput{InputSchema: schemaOf(format), RawInputRecords: texts(raw), ProcessedInputRecords: texts(processed)}
	out.ParsedInputRecords = parsed(format, list)
	return out, nil
}

func (s *Service) sampleStream(ctx context.Context, call *api.Call, source *app.Resource, position *kinesisanalytics.InputStartingPositionConfiguration) ([]app.Record, error) {
	switch {
	case resource(source.ARN, "kinesis", "stream/"):
	case resource(source.ARN, "firehose", "deliverystream/"):
		source.Kind = app.DeliveryStream
	default:
		return nil, invalid("ResourceARN %s is not the ARN of a data stream or delivery stream.", source.ARN)
	}
	if account := strings.SplitN(source.ARN, ":", 6)[4]; account != call.Account {
		return nil, invalid("ResourceARN %s is not of account %s.", source.ARN, call.Account)
	}
	start := Recent
	if position != nil && position.InputStartingPosition != nil {
		switch *position.InputStartingPosition {
		case kinesisanalytics.InputStartingPositionNow:
			start = app.Now
		case kinesisanalytics.InputStartingPositionTrimHorizon:
			start = app.TrimHorizon
		default:
			return nil, invalid("The starting position %s is not supported for the discovery of a schema.", *position.InputStartingPosition)
		}
	}
	if s.options.Sources == nil {
		return nil, invalid("ResourceARN %s: %v.", source.ARN, ErrNoSource)
	}
	records, err := s.options.Sources.Sample(ctx, *source, start, maxSamples, maxSampleBytes)
	switch {
	case errors.Is(err, ErrNoSource):
		return nil, invalid("ResourceARN %s: %v.", source.ARN, ErrNoSource)
	case errors.Is(err, ErrDenied):
		return nil, invalid("ResourceARN %s: %v.", source.ARN, err)
	case errors.Is(err, ErrThrottled):
		return nil, &kinesisanalytics.ResourceProvisionedThroughputExceededException{Message: "The rate of reads of " + source.ARN + " is exceeded."}
	case err != nil:
		s.logger.Warn("sample a source", "source", source.ARN, "error", err)
		return nil, &kinesisanalytics.ServiceUnavailableException{Message: source.ARN + " cannot be read now."}
	}
	return records[:min(len(records), maxSamples)], nil
}

// sampleObject takes the beginning of an object as one record, cut at the end of
// a line if there is more.
func (s *Service) sampleObject(ctx context.Context, bucketARN, key, role string) ([]app.Record, error) {
	if !bucket(bucketARN) {
		return nil, invalid("BucketARN %s is not the ARN of a bucket.", bucketARN)
	}
	refused := func(err error) error {
		var known *objects.Error
		if !errors.As(err, &known) || known.Status >= 500 && known.Code != "SlowDown" {
			s.logger.Warn("sample an object", "bucket", bucketARN, "key", key, "error", err)
			return &kinesisanalytics.ServiceUnavailableException{Message: "The object " + key + " cannot be read now."}
		}
		if known.Code == "SlowDown" {
			return &kinesisanalytics.ResourceProvisionedThroughputExceededException{Message: "The rate of reads of " + bucketARN + " is exceeded."}
		}
		return invalid("The object %s in %s cannot be read: %s.", key, bucketARN, known.Code)
	}
	if s.options.Objects == nil {
		return nil, refused(&objects.Error{Code: "NoSuchBucket", Status: 404})
	}
	body, info, err := s.options.Objects(ctx, role).Get(ctx, bucketName(bucketARN), key, objects.Range{Length: maxSampleBytes})
	if known := (*objects.Error)(nil); errors.As(err, &known) && known.Code == objects.CodeInvalidRange {
		return nil, nil // it is empty
	}
	if err != nil {
		return nil, refused(err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxSampleBytes))
	if err != nil {
		return nil, refused(err)
	}
	if int64(len(data)) < info.Size {
		if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
			data = data[:i+1]
		}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	return []app.Record{{ID: "0", Data: data}}, nil
}

// process has a function look at samples and returns those that it kept.
func (s *Service) process(ctx context.Context, call *api.Call, function, source app.Resource, records []app.Record) ([]app.Record, error) {
	if s.options.Functions == nil {
		return nil, errors.New("there are no functions")
	}
	// No application is behind the call, and functions expect the ARN of one.
	arn := applicationName{call.Account, call.Region, "discovery"}.arn()
	payload, err := app.ProcessingEvent(rand.Text(), arn, source, records)
	if err != nil {
		return nil, err
	}
	answer, err := s.options.Functions.Invoke(ctx, function, payload)
	if err != nil {
		return nil, err
	}
	results, err := app.ProcessingAnswer(records, answer)
	if err != nil {
		return nil, err
	}
	var kept []app.Record
	for i, r := range results {
		if r.Result == app.Kept {
			kept = append(kept, app.Record{ID: records[i].ID, Data: r.Data})
		}
	}
	return kept, nil
}

// texts are records as they are shown to callers.
func texts(records []app.Record) []string {
	var out []string
	for _, r := range records[:min(len(records), maxShownRecords)] {
		out = append(out, strings.ToValidUTF8(string(r.Data), "\uFFFD"))
	}
	return out
}

// schemaOf is a format in the API's words.
func schemaOf(f run.Format) *kinesisanalytics.SourceSchema {
	schema := &kinesisanalytics.SourceSchema{RecordEncoding: api.Ptr("UTF-8"), RecordFormat: &kinesisanalytics.RecordFormat{}}
	if f.CSV {
		schema.RecordFormat.RecordFormatType = api.Ptr(kinesisanalytics.RecordFormatTypeCsv)
		schema.RecordFormat.MappingParameters = &kinesisanalytics.MappingParameters{CSVMappingParameters: &kinesisanalytics.CSVMappingParameters{
			RecordRowDelimiter: &f.RowDelimiter, RecordColumnDelimiter: &f.ColumnDelimiter,
		}}
	} else {
		schema.RecordFormat.RecordFormatType = api.Ptr(kinesisanalytics.RecordFormatTypeJson)
		schema.RecordFormat.MappingParameters = &kinesisanalytics.MappingParameters{JSONMappingParameters: &kinesisanalytics.JSONMappingParameters{RecordRowPath: &f.RowPath}}
	}
	for _, c := range f.Columns {
		column := kinesisanalytics.RecordColumn{Name: api.Ptr(c.Name), SqlType: api.Ptr(c.Type.String())}
		if c.Mapping != "" {
			column.Mapping = api.Ptr(c.Mapping)
		}
		schema.RecordColumns = append(schema.RecordColumns, column)
	}
	return schema
}

// parsed are the samples as rows of text. A value that does not fit its column,
// as in a line of headings, is null like one that is not there.
func parsed(f run.Format, samples []string) [][]*string {
	asText := f
	asText.Columns = nil
	var columns []plan.ColumnInfo
	for _, c := range f.Columns {
		c.Type = sql.Type{Kind: sql.KindVarchar, Length: sql.MaxLength}
		asText.Columns = append(asText.Columns, c)
		columns = append(columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
	}
	parser, err := run.NewParser(asText)
	if err != nil {
		return nil
	}
	rows := run.NewRows(columns)
	for _, sample := range samples {
		parser.Parse(rows, sample, 0, nil, func(string, string, string) {})
		if rows.Len() >= maxShownRecords {
			break
		}
	}
	batch := rows.Batch()
	out := [][]*string{}
	for row := range min(rows.Len(), maxShownRecords) {
		values := make([]*string, len(columns))
		for i := range columns {
			if v := batch.Value(columns, i, int32(row)); !v.Null && fits(v.S, f.Columns[i].Type) {
				values[i] = api.Ptr(v.S)
			}
		}
		out = append(out, values)
	}
	return out
}

func fits(value string, t sql.Type) bool {
	switch t.Kind {
	case sql.KindInteger, sql.KindBigint, sql.KindDouble:
		_, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		return err == nil
	}
	return true
}
