package analytics

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// One application is seen through both versions, whichever made it.
func TestDescriptions(t *testing.T) {
	for _, made := range []struct{ by, create string }{{"v1", createV1}, {"v2", createV2}} {
		t.Run(made.by, func(t *testing.T) {
			r := newRig(t, nil)
			r.must(made.by, "CreateApplication", made.create)
			look := func(when string) {
				t.Helper()
				for _, by := range []string{"v1", "v2"} {
					out := r.must(by, "DescribeApplication", `{"ApplicationName": "a"}`)
					// The id is random, and the token depends on it.
					out = strings.ReplaceAll(out, r.get("a").record.token(), "TOKEN")
					compareGolden(t, fmt.Sprintf("describe/made-by-%s-%s-as-%s.json", made.by, when, by), out)
				}
			}
			look("at-first")
			if made.by == "v1" {
				r.must("v1", "AddApplicationReferenceDataSource", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ReferenceDataSource": `+referenceV1+`}`)
				r.must("v1", "AddApplicationInputProcessingConfiguration", `{"ApplicationName": "a", "CurrentApplicationVersionId": 2, "InputId": "1.1", "InputProcessingConfiguration": `+processed+`}`)
			} else {
				r.must("v2", "AddApplicationOutput", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "Output": {"Name": "error_stream", "LambdaOutput": {`+lambdaARN+`}, "DestinationSchema": {"RecordFormatType": "CSV"}}}`)
				r.must("v2", "AddApplicationInputProcessingConfiguration", `{"ApplicationName": "a", "CurrentApplicationVersionId": 2, "InputId": "1.1", "InputProcessingConfiguration": {"InputLambdaProcessor": {`+lambdaARN+`}}}`)
			}
			r.advance(3e9)
			r.must("v2", "StartApplication", `{"ApplicationName": "a"}`)
			r.settle()
			look("running")
			// What is described is stored.
			before := pretty(t, r.get("a").detailV2())
			if r.restart(); pretty(t, r.get("a").detailV2()) != before {
				t.Error("a restart changes the description")
			}
		})
	}
}

// What an application was not given is absent: it is no empty description.
func TestWhatIsNotThereIsNotDescribed(t *testing.T) {
	const bare = `{"ApplicationName": "a", "RuntimeEnvironment": "SQL-1_0", "ServiceExecutionRole": "arn:aws:iam::123456789012:role/sql"`
	for create, want := range map[string]string{
		bare + `}`: "",
		bare + `, "ApplicationConfiguration": {"ApplicationCodeConfiguration": {"CodeContentType": "PLAINTEXT"}, "SqlApplicationConfiguration": {}}}`:                              "kind",
		bare + `, "ApplicationConfiguration": {"ApplicationCodeConfiguration": {"CodeContentType": "PLAINTEXT", "CodeContent": {"TextContent": "CREATE STREAM S (A INTEGER);"}}}}`: "code",
		bare + `, "ApplicationConfiguration": {"SqlApplicationConfiguration": {"Inputs": [` + inputV2 + `]}}}`:                                                                     "sql",
	} {
		r := newRig(t, nil)
		r.must("v2", "CreateApplication", create)
		got := ""
		if c := r.get("a").detailV2().ApplicationConfigurationDescription; c != nil {
			if code := c.ApplicationCodeConfigurationDescription; code != nil && code.CodeContentDescription != nil {
				got += "code"
			} else if code != nil {
				got += "kind"
			}
			if c.SqlApplicationConfigurationDescription != nil {
				got += "sql"
			}
		}
		if got != want {
			t.Errorf("%s: described %q, want %q", create, got, want)
		}
	}
}

// Answers to changes through version 2 show what is there then.
func TestAnswersOfVersion2(t *testing.T) {
	r := newRig(t, nil)
	r.must("v2", "CreateApplication", `{"ApplicationName": "a", "RuntimeEnvironment": "SQL-1_0", "ServiceExecutionRole": "arn:aws:iam::123456789012:role/sql"}`)
	version := 1
	var all []string
	for _, step := range []struct{ operation, members string }{
		{"AddApplicationInput", `"Input": ` + inputV2},
		{"AddApplicationInputProcessingConfiguration", `"InputId": "2.1", "InputProcessingConfiguration": {"InputLambdaProcessor": {` + lambdaARN + `}}`},
		{"DeleteApplicationInputProcessingConfiguration", `"InputId": "2.1"`},
		{"AddApplicationOutput", `"Output": ` + outputV2},
		{"DeleteApplicationOutput", `"OutputId": "5.1"`},
		{"AddApplicationReferenceDataSource", `"ReferenceDataSource": ` + referenceV2},
		{"DeleteApplicationReferenceDataSource", `"ReferenceId": "7.1"`},
		{"AddApplicationCloudWatchLoggingOption", `"CloudWatchLoggingOption": {` + logARN + `}`},
		{"DeleteApplicationCloudWatchLoggingOption", `"CloudWatchLoggingOptionId": "9.1"`},
	} {
		out := r.must("v2", step.operation, fmt.Sprintf(`{"ApplicationName": "a", "CurrentApplicationVersionId": %d, %s}`, version, step.members))
		version++
		var answer struct{ ApplicationVersionId int }
		if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.ApplicationVersionId != version {
			t.Errorf("%s: version %d, %v; want %d", step.operation, answer.ApplicationVersionId, err, version)
		}
		all = append(all, step.operation+" "+out)
	}
	compareGolden(t, "answers.txt", strings.Join(all, ""))
}
