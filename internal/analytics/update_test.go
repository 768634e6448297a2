package analytics

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
)

// An update changes the lines that it names, and no others.
func TestUpdatesAreMerged(t *testing.T) {
	const other = `"ResourceARNUpdate": "arn:aws:kinesis:eu-central-1:123456789012:stream/other"`
	for name, test := range map[string]struct {
		update  string
		removed []string // what the description loses
		added   []string // what it gains
	}{
		"nothing":         {`{}`, nil, nil},
		"a source's role": {`{"InputUpdates": [{"InputId": "1.1", "KinesisStreamsInputUpdate": {"RoleARNUpdate": "arn:aws:iam::123456789012:role/x"}}]}`, []string{"role/sql"}, []string{"role/x"}},
		"a source":        {`{"InputUpdates": [{"InputId": "1.1", "KinesisStreamsInputUpdate": {` + other + `}}]}`, []string{"stream/in"}, []string{"stream/other"}},
		"a format alone": {`{"InputUpdates": [{"InputId": "1.1", "InputSchemaUpdate": {"RecordFormatUpdate": {"RecordFormatType": "JSON", "MappingParameters": {"JSONMappingParameters": {"RecordRowPath": "$.rows"}}}}}]}`,
			[]string{`"RecordRowPath": "$"`}, []string{`"RecordRowPath": "$.rows"`}},
		"parallelism":      {`{"InputUpdates": [{"InputId": "1.1", "InputParallelismUpdate": {"CountUpdate": 2}}]}`, []string{`"Count": 1`}, []string{`"Count": 2`, "SOURCE_SQL_STREAM_002"}},
		"an output's name": {`{"OutputUpdates": [{"OutputId": "1.1", "NameUpdate": "error_stream"}]}`, []string{`"Name": "OUT"`}, []string{`"Name": "error_stream"`}},
		"a log stream":     {`{"CloudWatchLoggingOptionUpdates": [{"CloudWatchLoggingOptionId": "1.1", "LogStreamARNUpdate": "arn:aws:logs:eu-central-1:123456789012:log-group:g:log-stream:t"}]}`, []string{"log-stream:s"}, []string{"log-stream:t"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.must("v1", "CreateApplication", createV1)
			before := lines(r)
			r.must("v1", "UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ApplicationUpdate": `+test.update+`}`)
			after := lines(r)
			check := func(what string, from, to, want []string) {
				var changed []string
				for _, l := range from {
					if !slices.Contains(to, l) {
						changed = append(changed, l)
					}
				}
				if len(changed) != len(want) {
					t.Errorf("%s %q, want %q", what, changed, want)
					return
				}
				for i := range want {
					if !strings.Contains(strings.Join(changed, "\n"), want[i]) {
						t.Errorf("%s %q, want %q", what, changed, want)
					}
				}
			}
			check("lost", before, after, test.removed)
			check("gained", after, before, test.added)
		})
	}
}

// lines are those of a description that configuration decides, each said once
// per place: a line with its number of occurrences before it.
func lines(r *rig) []string {
	r.t.Helper()
	var out []string
	seen := map[string]int{}
	for l := range strings.Lines(r.must("v1", "DescribeApplication", `{"ApplicationName": "a"}`)) {
		l = strings.TrimRight(strings.TrimSpace(l), ",")
		if len(l) < 3 || strings.Contains(l, "VersionId") || strings.Contains(l, "Timestamp") {
			continue
		}
		seen[l]++
		out = append(out, fmt.Sprint(l, " #", seen[l]))
	}
	return out
}

func TestUpdatesOfKinds(t *testing.T) {
	const at = `{"ApplicationName": "a", "CurrentApplicationVersionId": %d, "ApplicationUpdate": %s}`
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", createV1)
	hose := strings.Replace(hoseARN, "ResourceARN", "ResourceARNUpdate", 1)
	stream := strings.Replace(streamARN, "ResourceARN", "ResourceARNUpdate", 1)
	lambda := strings.Replace(lambdaARN, "ResourceARN", "ResourceARNUpdate", 1)
	for text, update := range map[string]string{
		"Only one of KinesisStreamsInputUpdate and KinesisFirehoseInputUpdate can be given for input 1.1.":                        `{"InputUpdates": [{"InputId": "1.1", "KinesisStreamsInputUpdate": {` + stream + `}, "KinesisFirehoseInputUpdate": {` + hose + `}}]}`,
		"Only one of KinesisStreamsOutputUpdate, KinesisFirehoseOutputUpdate and LambdaOutputUpdate can be given for output 1.1.": `{"OutputUpdates": [{"OutputId": "1.1", "LambdaOutputUpdate": {` + lambda + `}, "KinesisFirehoseOutputUpdate": {` + hose + `}}]}`,
		"Input 1.1 has no input processing configuration to update.":                                                              `{"InputUpdates": [{"InputId": "1.1", "InputProcessingConfigurationUpdate": {"InputLambdaProcessorUpdate": {` + lambda + `}}}]}`,
		"ResourceARN arn:aws:lambda:eu-central-1:123456789012:function:f is not the ARN of a data stream.":                        `{"InputUpdates": [{"InputId": "1.1", "KinesisStreamsInputUpdate": {` + lambda + `}}]}`,
	} {
		wantError(t, r.v1("UpdateApplication", fmt.Sprintf(at, 1, update)), "InvalidArgumentException", text)
	}
	// The role goes over to the kind that takes its place.
	r.must("v1", "UpdateApplication", fmt.Sprintf(at, 1, `{"InputUpdates": [{"InputId": "1.1", "KinesisFirehoseInputUpdate": {`+hose+`}}], "OutputUpdates": [{"OutputId": "1.1", "LambdaOutputUpdate": {`+lambda+`}}]}`))
	definition, err := r.define(&r.get("a").record, r.get("a").applicationName)
	if err != nil {
		t.Fatal(err)
	}
	const role = "arn:aws:iam::123456789012:role/sql"
	if got, want := definition.Inputs[0].Source, (app.Resource{Kind: app.DeliveryStream, ARN: "arn:aws:firehose:eu-central-1:123456789012:deliverystream/hose", Role: role}); got != want {
		t.Errorf("source %+v", got)
	}
	if got, want := definition.Outputs[0].Destination, (app.Resource{Kind: app.Function, ARN: "arn:aws:lambda:eu-central-1:123456789012:function:f", Role: role}); got != want {
		t.Errorf("destination %+v", got)
	}
}

// An update that names a reference data source has it read again, changed or not.
func TestAnUpdateReadsReferenceDataAgain(t *testing.T) {
	r := newRig(t, nil)
	r.must("v2", "CreateApplication", createV2)
	loaded := func() int64 { return r.get("a").record.References[0].Loaded }
	r.must("v2", "UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1}`)
	if loaded() != 1 {
		t.Errorf("an update of nothing has version %d read", loaded())
	}
	r.must("v2", "UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 2, "ApplicationConfigurationUpdate": {"SqlApplicationConfigurationUpdate": {"ReferenceDataSourceUpdates": [{"ReferenceId": "1.1"}]}}}`)
	if loaded() != 3 {
		t.Errorf("version %d is read", loaded())
	}
}

func TestWhatACallAsksFor(t *testing.T) {
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", `{"ApplicationName": "a", "Tags": [{"Key": "team", "Value": "x"}]}`)
	const arn = "arn:aws:kinesisanalytics:eu-central-1:123456789012:application/a"
	call := func(op *api.Operation) *api.Call {
		return &api.Call{Account: testAccount, Region: testRegion, Operation: op}
	}
	in := &kinesisanalytics.TagResourceInput{ResourceARN: api.Ptr(arn), Tags: []kinesisanalytics.Tag{{Key: api.Ptr("stage"), Value: api.Ptr("y")}}}
	if got, owner := r.ResourceARN(call(kinesisanalytics.OpTagResource), in); got != arn || owner != testAccount {
		t.Errorf("resource %s of %s", got, owner)
	}
	values := r.ConditionValues(call(kinesisanalytics.OpTagResource), in)
	if fmt.Sprint(values) != "map[aws:RequestTag/stage:[y] aws:ResourceTag/team:[x] aws:TagKeys:[stage]]" {
		t.Errorf("values %v", values)
	}
	if got, _ := r.ResourceARN(call(kinesisanalytics.OpListApplications), &kinesisanalytics.ListApplicationsInput{}); got != "*" {
		t.Errorf("resource of a list %s", got)
	}
	create := &kinesisanalyticsv2.CreateApplicationInput{ApplicationName: api.Ptr("b"), ServiceExecutionRole: api.Ptr("arn:aws:iam::123456789012:role/sql"), Tags: []kinesisanalyticsv2.Tag{{Key: api.Ptr("k")}}}
	tags, roles := r.Passes(call(kinesisanalyticsv2.OpCreateApplication), create)
	if !tags || fmt.Sprint(roles) != "[{arn:aws:iam::123456789012:role/sql 123456789012}]" {
		t.Errorf("tags %v, roles %v", tags, roles)
	}
}
