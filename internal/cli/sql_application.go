package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/wire/awsjson"
)

// application is an SQL application as DescribeApplication shows it, of either
// version of the API, in the form of the first.
type application struct {
	kinesisanalytics.ApplicationDetail
	second bool   // the description is of the second version
	role   string // of the second version: the role for everything
	tags   []kinesisanalytics.Tag
}

func (a *application) name() string { return api.Val(a.ApplicationName) }

// parseApplications reads what `describe-application` of either version has
// printed, or several of them in an array. edit, which may be nil, changes each
// description before it is read.
func parseApplications(raw []byte, edit func(map[string]any)) ([]*application, error) {
	raw = bytes.TrimSpace(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")))
	var documents []json.RawMessage
	if len(raw) > 0 && raw[0] == '[' {
		if err := json.Unmarshal(raw, &documents); err != nil {
			return nil, notADescription(err)
		}
	} else {
		d := json.NewDecoder(bytes.NewReader(raw))
		for d.More() {
			var one json.RawMessage
			if err := d.Decode(&one); err != nil {
				return nil, notADescription(err)
			}
			documents = append(documents, one)
		}
	}
	var all []*application
	for _, doc := range documents {
		a, err := parseApplication(doc, edit)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no application in it; save what `aws kinesisanalyticsv2 describe-application` prints")
	}
	return all, nil
}

func notADescription(err error) error {
	return fmt.Errorf("it is not JSON as `aws kinesisanalyticsv2 describe-application --output json` prints it: %w", err)
}

func parseApplication(raw []byte, edit func(map[string]any)) (*application, error) {
	var outer map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&outer); err != nil {
		return nil, notADescription(err)
	}
	detail, ok := outer["ApplicationDetail"].(map[string]any)
	if !ok {
		detail = outer
	}
	if name, ok := detail["ApplicationName"].(string); !ok || name == "" {
		return nil, errors.New("it is no description of an application: save what `aws kinesisanalyticsv2 describe-application` prints, or that of kinesisanalytics")
	}
	// Command lines print times as numbers or as texts; they are of no use here.
	delete(detail, "CreateTimestamp")
	delete(detail, "LastUpdateTimestamp")
	if tags, ok := outer["Tags"]; ok && detail["Tags"] == nil {
		detail["Tags"] = tags
	}
	if edit != nil {
		edit(detail)
	}
	a := &application{}
	if runtime, ok := detail["RuntimeEnvironment"].(string); ok {
		if !strings.HasPrefix(runtime, "SQL") {
			return nil, fmt.Errorf("%s runs in %s; only SQL applications can be run here", detail["ApplicationName"], runtime)
		}
		a.second = true
		a.role, _ = detail["ServiceExecutionRole"].(string)
		config, _ := detail["ApplicationConfigurationDescription"].(map[string]any)
		program, _ := config["SqlApplicationConfigurationDescription"].(map[string]any)
		for name, value := range program {
			detail[name] = value
		}
		code, _ := config["ApplicationCodeConfigurationDescription"].(map[string]any)
		content, _ := code["CodeContentDescription"].(map[string]any)
		detail["ApplicationCode"] = content["TextContent"]
	}
	var tagged struct {
		Tags []struct{ Key, Value string }
	}
	if err := remarshal(detail, &tagged); err != nil {
		return nil, fmt.Errorf("the tags of %s: %w", detail["ApplicationName"], err)
	}
	for _, t := range tagged.Tags {
		a.tags = append(a.tags, kinesisanalytics.Tag{Key: &t.Key, Value: &t.Value})
	}
	document, err := json.Marshal(detail)
	if err != nil {
		return nil, err
	}
	out := &kinesisanalytics.DescribeApplicationOutput{}
	if err := client.Parse([]byte(`{"ApplicationDetail":`+string(document)+`}`), out); err != nil {
		return nil, fmt.Errorf("the description of %s: %w", detail["ApplicationName"], err)
	}
	a.ApplicationDetail = *out.ApplicationDetail
	return a, nil
}

func remarshal(from, into any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// describeApplication asks the server about an application.
func describeApplication(ctx context.Context, cl *client.Client, name string) (*application, error) {
	out := &kinesisanalyticsv2.DescribeApplicationOutput{}
	if err := cl.Call(ctx, kinesisanalyticsv2.OpDescribeApplication, &kinesisanalyticsv2.DescribeApplicationInput{ApplicationName: &name}, out); err != nil {
		return nil, applicationHint(err)
	}
	a, err := parseApplication(awsjson.Append(nil, out), nil)
	if err != nil {
		return nil, err
	}
	a.CreateTimestamp = out.ApplicationDetail.CreateTimestamp
	return a, nil
}

// applicationHint adds to the reply that there is no such application what a
// person can do.
func applicationHint(err error) error {
	if client.IsCode(err, "ResourceNotFoundException") {
		return advise(err, "`millrace sql list` shows what there is in this region")
	}
	return err
}

// waitApplication waits until an application has settled, and returns how.
func waitApplication(ctx context.Context, cl *client.Client, name string) (*application, error) {
	for {
		a, err := describeApplication(ctx, cl, name)
		if err != nil {
			return nil, err
		}
		switch *a.ApplicationStatus {
		case kinesisanalytics.ApplicationStatusReady, kinesisanalytics.ApplicationStatusRunning:
			return a, nil
		}
		if err := client.Sleep(ctx, pollInterval/4); err != nil {
			return nil, err
		}
	}
}

// definition is the application as the engine takes it, without what a server adds.
func (a *application) definition() (*app.Application, error) {
	d := &app.Application{Name: a.name(), ARN: api.Val(a.ApplicationARN), Code: api.Val(a.ApplicationCode), Extensions: true, Outputs: []app.Output{}}
	for _, in := range a.InputDescriptions {
		format, err := formatOf(in.InputSchema)
		if err != nil {
			return nil, fmt.Errorf("the input %s of %s: %w", api.Val(in.NamePrefix), a.name(), err)
		}
		input := app.Input{ID: api.Val(in.InputId), Format: format}
		if p := in.InputStartingPositionConfiguration; p != nil && api.Val(p.InputStartingPosition) == kinesisanalytics.InputStartingPositionTrimHorizon {
			input.Start.Start = app.TrimHorizon
		}
		if k := in.KinesisStreamsInputDescription; k != nil {
			input.Source = app.Resource{Kind: app.DataStream, ARN: api.Val(k.ResourceARN)}
		} else if k := in.KinesisFirehoseInputDescription; k != nil {
			input.Source = app.Resource{Kind: app.DeliveryStream, ARN: api.Val(k.ResourceARN)}
		}
		if p := in.InputProcessingConfigurationDescription; p != nil && p.InputLambdaProcessorDescription != nil {
			input.Processor = &app.Resource{Kind: app.Function, ARN: api.Val(p.InputLambdaProcessorDescription.ResourceARN)}
		}
		count := 1
		if in.InputParallelism != nil && in.InputParallelism.Count != nil {
			count = int(*in.InputParallelism.Count)
		}
		for i := range min(max(count, 1), 64) {
			input.Streams = append(input.Streams, app.StreamName(api.Val(in.NamePrefix), i+1))
		}
		d.Inputs = append(d.Inputs, input)
	}
	for _, r := range a.ReferenceDataSourceDescriptions {
		format, err := formatOf(r.ReferenceSchema)
		if err != nil {
			return nil, fmt.Errorf("the reference table %s of %s: %w", api.Val(r.TableName), a.name(), err)
		}
		ref := app.Reference{ID: api.Val(r.ReferenceId), Table: api.Val(r.TableName), Format: format}
		if s := r.S3ReferenceDataSourceDescription; s != nil {
			arn := api.Val(s.BucketARN)
			ref.Bucket, ref.Key = arn[strings.LastIndexByte(arn, ':')+1:], api.Val(s.FileKey)
		}
		d.References = append(d.References, ref)
	}
	for _, o := range a.OutputDescriptions {
		output := app.Output{ID: api.Val(o.OutputId), Stream: api.Val(o.Name)}
		switch {
		case o.KinesisStreamsOutputDescription != nil:
			output.Destination = app.Resource{Kind: app.DataStream, ARN: api.Val(o.KinesisStreamsOutputDescription.ResourceARN)}
		case o.KinesisFirehoseOutputDescription != nil:
			output.Destination = app.Resource{Kind: app.DeliveryStream, ARN: api.Val(o.KinesisFirehoseOutputDescription.ResourceARN)}
		case o.LambdaOutputDescription != nil:
			output.Destination = app.Resource{Kind: app.Function, ARN: api.Val(o.LambdaOutputDescription.ResourceARN)}
		}
		if o.DestinationSchema != nil {
			output.CSV = api.Val(o.DestinationSchema.RecordFormatType) == kinesisanalytics.RecordFormatTypeCsv
		}
		d.Outputs = append(d.Outputs, output)
	}
	return d, nil
}

// formatOf reads a schema.
func formatOf(s *kinesisanalytics.SourceSchema) (run.Format, error) {
	f := run.Format{RowPath: "$"}
	if s == nil || s.RecordFormat == nil {
		return f, errors.New("it has no schema")
	}
	f.CSV = api.Val(s.RecordFormat.RecordFormatType) == kinesisanalytics.RecordFormatTypeCsv
	if f.CSV {
		f.RowDelimiter, f.ColumnDelimiter = "\n", ","
	}
	if m := s.RecordFormat.MappingParameters; m != nil {
		if m.JSONMappingParameters != nil {
			f.RowPath = api.Val(m.JSONMappingParameters.RecordRowPath)
		}
		if m.CSVMappingParameters != nil {
			f.RowDelimiter, f.ColumnDelimiter = api.Val(m.CSVMappingParameters.RecordRowDelimiter), api.Val(m.CSVMappingParameters.RecordColumnDelimiter)
		}
	}
	for _, c := range s.RecordColumns {
		t, err := sql.ParseType(api.Val(c.SqlType))
		if err != nil {
			return f, fmt.Errorf("the column %s: %w", api.Val(c.Name), err)
		}
		f.Columns = append(f.Columns, run.SourceColumn{Name: api.Val(c.Name), Type: t, Mapping: api.Val(c.Mapping)})
	}
	return f, nil
}

// differences names the parts in which two applications differ: those that the
// first has and the second lacks, and those that are not the same.
func differences(want, have *application) (lacking, other []string) {
	compare := func(what string, want, have any) {
		w, h := reflect.ValueOf(want), reflect.ValueOf(have)
		switch {
		case same(want, have):
		case w.Kind() == reflect.Slice && h.Len() == 0 && w.Len() > 0:
			lacking = append(lacking, what)
		default:
			other = append(other, what)
		}
	}
	wc, hc := want.comparable(), have.comparable()
	switch code := api.Val(have.ApplicationCode); {
	case code == api.Val(want.ApplicationCode):
	case code == "":
		lacking = append(lacking, "code")
	default:
		other = append(other, "code")
	}
	compare("inputs", wc.InputDescriptions, hc.InputDescriptions)
	compare("outputs", wc.OutputDescriptions, hc.OutputDescriptions)
	compare("reference data", wc.ReferenceDataSourceDescriptions, hc.ReferenceDataSourceDescriptions)
	compare("logging", wc.CloudWatchLoggingOptionDescriptions, hc.CloudWatchLoggingOptionDescriptions)
	return lacking, other
}

func same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// comparable is a copy without ids, positions, roles and defaults: what is the
// same application wherever it runs.
func (a *application) comparable() *kinesisanalytics.ApplicationDetail {
	d := &kinesisanalytics.ApplicationDetail{
		InputDescriptions:                   []kinesisanalytics.InputDescription{},
		OutputDescriptions:                  []kinesisanalytics.OutputDescription{},
		ReferenceDataSourceDescriptions:     []kinesisanalytics.ReferenceDataSourceDescription{},
		CloudWatchLoggingOptionDescriptions: []kinesisanalytics.CloudWatchLoggingOptionDescription{},
	}
	for _, in := range a.InputDescriptions {
		in.InputId, in.InAppStreamNames, in.InputStartingPositionConfiguration = nil, nil, nil
		if in.InputParallelism == nil || in.InputParallelism.Count == nil {
			in.InputParallelism = &kinesisanalytics.InputParallelism{Count: api.Ptr(int32(1))}
		}
		if k := in.KinesisStreamsInputDescription; k != nil {
			in.KinesisStreamsInputDescription = &kinesisanalytics.KinesisStreamsInputDescription{ResourceARN: k.ResourceARN}
		}
		if k := in.KinesisFirehoseInputDescription; k != nil {
			in.KinesisFirehoseInputDescription = &kinesisanalytics.KinesisFirehoseInputDescription{ResourceARN: k.ResourceARN}
		}
		if p := in.InputProcessingConfigurationDescription; p != nil && p.InputLambdaProcessorDescription != nil {
			in.InputProcessingConfigurationDescription = &kinesisanalytics.InputProcessingConfigurationDescription{
				InputLambdaProcessorDescription: &kinesisanalytics.InputLambdaProcessorDescription{ResourceARN: p.InputLambdaProcessorDescription.ResourceARN}}
		}
		in.InputSchema = plainSchema(in.InputSchema)
		d.InputDescriptions = append(d.InputDescriptions, in)
	}
	for _, o := range a.OutputDescriptions {
		o.OutputId = nil
		if k := o.KinesisStreamsOutputDescription; k != nil {
			o.KinesisStreamsOutputDescription = &kinesisanalytics.KinesisStreamsOutputDescription{ResourceARN: k.ResourceARN}
		}
		if k := o.KinesisFirehoseOutputDescription; k != nil {
			o.KinesisFirehoseOutputDescription = &kinesisanalytics.KinesisFirehoseOutputDescription{ResourceARN: k.ResourceARN}
		}
		if k := o.LambdaOutputDescription; k != nil {
			o.LambdaOutputDescription = &kinesisanalytics.LambdaOutputDescription{ResourceARN: k.ResourceARN}
		}
		d.OutputDescriptions = append(d.OutputDescriptions, o)
	}
	for _, r := range a.ReferenceDataSourceDescriptions {
		r.ReferenceId = nil
		if s := r.S3ReferenceDataSourceDescription; s != nil {
			r.S3ReferenceDataSourceDescription = &kinesisanalytics.S3ReferenceDataSourceDescription{BucketARN: s.BucketARN, FileKey: s.FileKey}
		}
		r.ReferenceSchema = plainSchema(r.ReferenceSchema)
		d.ReferenceDataSourceDescriptions = append(d.ReferenceDataSourceDescriptions, r)
	}
	for _, l := range a.CloudWatchLoggingOptionDescriptions {
		l.CloudWatchLoggingOptionId, l.RoleARN = nil, nil
		d.CloudWatchLoggingOptionDescriptions = append(d.CloudWatchLoggingOptionDescriptions, l)
	}
	return d
}

func plainSchema(s *kinesisanalytics.SourceSchema) *kinesisanalytics.SourceSchema {
	if s == nil {
		return nil
	}
	c := *s
	c.RecordEncoding = nil
	return &c
}

// compileApplication plans the program of an application. What is wrong is shown
// with the lines it is in.
func compileApplication(cmd *cobra.Command, d *app.Application, file string) (*plan.Program, error) {
	program, err := d.Compile()
	var wrong sql.Errors
	if errors.As(err, &wrong) {
		return nil, showErrors(cmd, file, d.Code, wrong)
	}
	return program, err
}

// applicationNames lists all applications of the region.
func applicationNames(ctx context.Context, cl *client.Client) ([]kinesisanalyticsv2.ApplicationSummary, error) {
	var all []kinesisanalyticsv2.ApplicationSummary
	in := &kinesisanalyticsv2.ListApplicationsInput{Limit: api.Ptr(int32(50))}
	for {
		out := &kinesisanalyticsv2.ListApplicationsOutput{}
		if err := cl.Call(ctx, kinesisanalyticsv2.OpListApplications, in, out); err != nil {
			return nil, err
		}
		all = append(all, out.ApplicationSummaries...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

// completeApplication is completeStream for applications.
func (c *connection) completeApplication(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cl, err := c.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	all, err := applicationNames(ctx, cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	for _, a := range all {
		if strings.HasPrefix(api.Val(a.ApplicationName), begun) {
			fit = append(fit, *a.ApplicationName)
		}
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}
