package analytics

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/meta"
)

func TestAnApplicationsLife(t *testing.T) {
	r := newRig(t, func(o *Options) { o.StateDelay = time.Second })
	r.must("v1", "CreateApplication", createV1)
	state := func(want status) {
		t.Helper()
		if got := r.get("a").record.Status; got != want {
			t.Fatalf("state %s, want %s", got, want)
		}
	}
	told := func(want string) {
		t.Helper()
		if got := r.host.calls(); got != want {
			t.Fatalf("the host was told %q, want %q", got, want)
		}
	}
	state(ready)
	told("")
	wantError(t, r.v1("StopApplication", `{"ApplicationName": "a"}`), "ResourceInUseException", "Application a is in state READY; only one that is RUNNING can be stopped.")
	start := `{"ApplicationName": "a", "InputConfigurations": [{"Id": "1.1", "InputStartingPositionConfiguration": {"InputStartingPosition": "TRIM_HORIZON"}}]}`
	r.must("v1", "StartApplication", start)
	state(starting)
	r.advance(500 * time.Millisecond)
	if wait, any := r.finishDue(t.Context()); !any || wait <= 0 || wait > time.Second {
		t.Fatalf("the next change is in %v, %v", wait, any)
	}
	state(starting)
	told("")
	for _, change := range []struct{ operation, input string }{
		{"StartApplication", start},
		{"StopApplication", `{"ApplicationName": "a"}`},
		{"UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ApplicationUpdate": {}}`},
		{"DeleteApplication", `{"ApplicationName": "a", "CreateTimestamp": "2026-05-01T12:00:00Z"}`},
		{"AddApplicationOutput", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "Output": ` + outputV1 + `}`},
	} {
		wantError(t, r.v1(change.operation, change.input), "ResourceInUseException", "Application a is in state STARTING; …")
	}
	r.settle()
	state(running)
	told("start run 1 version 1")
	if got := r.host.running[r.get("a").record.ID].Inputs[0].Start; got != (app.Position{Start: app.TrimHorizon, At: time.Date(2026, 5, 1, 12, 0, 0, 250e6, time.UTC)}) {
		t.Errorf("the input begins at %+v", got)
	}
	wantError(t, r.v1("StartApplication", start), "ResourceInUseException", "Application a is in state RUNNING; only one that is READY can be started.")

	// A change of one that runs.
	r.must("v1", "UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ApplicationUpdate": {}}`)
	state(updating)
	r.settle()
	state(running)
	told("update run 1 version 2")

	// A server that comes back goes on with the run.
	r.restart()
	state(running)
	told("start run 1 version 2")

	r.must("v2", "StopApplication", `{"ApplicationName": "a"}`)
	state(stopping)
	r.settle()
	state(ready)
	told("stop")
	r.restart()
	told("")

	// Where it stopped is where it begins, if nothing else is said.
	r.must("v2", "StartApplication", `{"ApplicationName": "a"}`)
	r.settle()
	told("start run 2 version 2")
	if got := r.host.running[r.get("a").record.ID].Inputs[0].Start.Start; got != app.LastStopped {
		t.Errorf("the second run begins at %v", got)
	}
	wantError(t, r.v1("DeleteApplication", `{"ApplicationName": "a", "CreateTimestamp": "2026-05-01T12:00:01Z"}`), "InvalidArgumentException", "CreateTimestamp is not that of application a.")
	r.must("v1", "DeleteApplication", `{"ApplicationName": "a", "CreateTimestamp": "2026-05-01T12:00:00.9Z"}`)
	state(deleting)
	r.settle()
	told("remove")
	wantError(t, r.v1("DescribeApplication", `{"ApplicationName": "a"}`), "ResourceNotFoundException", "Application a under account 123456789012 not found.")
	r.must("v1", "CreateApplication", createV1)
	if r.restart(); r.get("a").record.Runs != 0 {
		t.Error("an application made anew has runs")
	}
}

func TestAChangeThatWasCutShortIsFinished(t *testing.T) {
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", createV1)
	for _, step := range []struct{ operation, input, told string }{
		{"StartApplication", `{"ApplicationName": "a", "InputConfigurations": []}`, "start run 1 version 1"},
		{"UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ApplicationUpdate": {}}`, "start run 1 version 2"},
		{"StopApplication", `{"ApplicationName": "a"}`, ""},
		{"DeleteApplication", `{"ApplicationName": "a", "CreateTimestamp": "2026-05-01T12:00:00Z"}`, "remove"},
	} {
		r.must("v1", step.operation, step.input)
		r.restart()
		r.settle()
		if got := r.host.calls(); got != step.told {
			t.Errorf("after %s and a restart the host is told %q, want %q", step.operation, got, step.told)
		}
	}
}

func TestAHostThatFailsIsAskedAgain(t *testing.T) {
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", createV1)
	r.must("v1", "StartApplication", `{"ApplicationName": "a", "InputConfigurations": []}`)
	r.host.err = errors.New("no room")
	r.advance(time.Second)
	if wait, any := r.finishDue(t.Context()); !any || wait != retryAfter {
		t.Errorf("asked again in %v, %v", wait, any)
	}
	if got := r.get("a").record.Status; got != starting {
		t.Errorf("state %s", got)
	}
	if list := r.Overviews(); !strings.Contains(list[0].Problem, "could not finish") || r.HeldUp() != 1 {
		t.Errorf("shown as %+v", list)
	}
	r.settle()
	if list := r.Overviews(); list[0].Problem != "" || r.HeldUp() != 0 {
		t.Errorf("shown as %+v", list)
	}
	if got := r.get("a").record.Status; got != running {
		t.Errorf("state %s", got)
	}
	// At the start of the server, others must come up.
	r.stop()
	r.start()
	r.must("v1", "StopApplication", `{"ApplicationName": "a"}`)
	r.host.err = errors.New("no room")
	r.settle()
	if got := r.get("a").record.Status; got != ready {
		t.Errorf("state %s", got)
	}
}

// A program that has lost what it reads runs and says so: a state that never ends
// would bar the change that mends it.
func TestAProgramThatHasLostItsTableIsHeld(t *testing.T) {
	r := newRig(t, nil)
	join := replaced(t, createV2, `FROM \"SOURCE_SQL_STREAM_001\"`, `FROM \"SOURCE_SQL_STREAM_001\" AS s JOIN \"COMPANIES\" AS c ON s.\"ticker\" = c.\"ticker\"`, `SELECT STREAM \"ticker\", `, `SELECT STREAM s.\"ticker\", `)
	r.must("v2", "CreateApplication", join)
	r.must("v2", "StartApplication", `{"ApplicationName": "a"}`)
	r.settle()
	r.host.calls()
	told := func(want string) {
		t.Helper()
		if got := r.host.calls(); !strings.HasPrefix(got, want) {
			t.Errorf("the host was told %q, want %q", got, want)
		}
		if got := r.get("a").record.Status; got != running {
			t.Errorf("state %s", got)
		}
	}
	r.must("v2", "DeleteApplicationReferenceDataSource", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ReferenceId": "1.1"}`)
	r.settle()
	const lost = "hold (line 1, column "
	told(lost)
	r.settle()
	told("")
	r.restart()
	told(lost)
	r.must("v1", "AddApplicationReferenceDataSource", `{"ApplicationName": "a", "CurrentApplicationVersionId": 2, "ReferenceDataSource": `+referenceV1+`}`)
	r.settle()
	told("update run 1 version 3")
}

func TestRunFinishesChanges(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Now = nil })
	done := make(chan error, 1)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { done <- r.Run(ctx) })
	r.must("v1", "CreateApplication", createV1)
	r.must("v1", "StartApplication", `{"ApplicationName": "a", "InputConfigurations": []}`)
	changed := make(chan struct{}, 64)
	unwatch := r.Service.meta.Watch(watchPrefix, func(changes []meta.Change) { changed <- struct{}{} })
	for r.get("a").record.Status != "RUNNING" {
		<-changed
	}
	unwatch()
	cancel()
	running.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// One that takes its time to end holds up no other.
func TestApplicationsAreStoppedSideBySide(t *testing.T) {
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", createV1)
	r.must("v1", "CreateApplication", strings.Replace(createV1, `"ApplicationName": "a"`, `"ApplicationName": "b"`, 1))
	r.must("v1", "StartApplication", `{"ApplicationName": "a", "InputConfigurations": []}`)
	r.settle()
	r.host.gate = make(chan struct{})
	r.must("v1", "StopApplication", `{"ApplicationName": "a"}`)
	r.must("v1", "StartApplication", `{"ApplicationName": "b", "InputConfigurations": []}`)
	changed := make(chan struct{}, 64)
	unwatch := r.Service.meta.Watch(watchPrefix, func([]meta.Change) { changed <- struct{}{} })
	r.advance(time.Minute)
	r.startDue(t.Context())
	for r.get("b").record.Status != running {
		<-changed
	}
	unwatch()
	if got := r.get("a").record.Status; got != stopping {
		t.Errorf("a is %s", got)
	}
	close(r.host.gate)
	r.finishers.group.Wait()
	if got := r.get("a").record.Status; got != ready {
		t.Errorf("a is %s", got)
	}
}

func TestVersionsAndTokens(t *testing.T) {
	r := newRig(t, nil)
	r.must("v2", "CreateApplication", createV2)
	token := func() string { return r.get("a").record.token() }
	old := token()
	update := func(guard string) error {
		return r.v2("UpdateApplication", `{"ApplicationName": "a"`+guard+`, "ServiceExecutionRoleUpdate": "arn:aws:iam::123456789012:role/other"}`)
	}
	const both = "Exactly one of CurrentApplicationVersionId and ConditionalToken must be given."
	wantError(t, update(``), "InvalidArgumentException", both)
	wantError(t, update(`, "CurrentApplicationVersionId": 1, "ConditionalToken": "`+old+`"`), "InvalidArgumentException", both)
	wantError(t, update(`, "CurrentApplicationVersionId": 2`), "ConcurrentModificationException", "Application a is at version 1, not 2.")
	if err := update(`, "ConditionalToken": "` + old + `"`); err != nil {
		t.Error(err)
	}
	wantError(t, update(`, "ConditionalToken": "`+old+`"`), "ConcurrentModificationException", "Application a has changed since ConditionalToken was given.")
	// A start makes no version, and is a change all the same.
	old = token()
	r.must("v2", "StartApplication", `{"ApplicationName": "a"}`)
	r.settle()
	wantError(t, update(`, "ConditionalToken": "`+old+`"`), "ConcurrentModificationException", "Application a has changed since ConditionalToken was given.")
	if v := r.get("a").record.Version; v != 2 {
		t.Errorf("version %d", v)
	}
	wantError(t, r.v2("DeleteApplicationCloudWatchLoggingOption", `{"ApplicationName": "a", "CloudWatchLoggingOptionId": "1.1"}`), "InvalidArgumentException", both)
	wantError(t, r.v1("AddApplicationOutput", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "Output": `+outputV1+`}`), "ConcurrentModificationException", "Application a is at version 2, not 1.")
}

// Of writers that know the same version, one wins.
func TestOneOfManyWritersWins(t *testing.T) {
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", createV1)
	var writers sync.WaitGroup
	var mu sync.Mutex
	won, lost := 0, 0
	for i := range 8 {
		writers.Go(func() {
			_, err := r.do(testAccount, "v1", "UpdateApplication", fmt.Sprintf(`{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ApplicationUpdate": {"OutputUpdates": [{"OutputId": "1.1", "NameUpdate": "OUT%d"}]}}`, i))
			mu.Lock()
			defer mu.Unlock()
			var known api.Error
			switch {
			case err == nil:
				won++
			case errors.As(err, &known) && known.ErrorCode() == "ConcurrentModificationException":
				lost++
			default:
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if won != 1 || lost != 7 || r.get("a").record.Version != 2 {
		t.Errorf("%d won, %d lost, version %d", won, lost, r.get("a").record.Version)
	}
}

func TestTheQuotaHoldsAgainstConcurrentCalls(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxApplications = 3 })
	var writers sync.WaitGroup
	var made, refused sync.Map
	for i := range 8 {
		writers.Go(func() {
			_, err := r.do(testAccount, "v1", "CreateApplication", fmt.Sprintf(`{"ApplicationName": "a%d"}`, i))
			if err == nil {
				made.Store(i, true)
			} else {
				wantError(t, err, "LimitExceededException", "Account 123456789012 has 3 applications in this region, which is the limit.")
				refused.Store(i, true)
			}
		})
	}
	writers.Wait()
	count := func(m *sync.Map) (n int) {
		m.Range(func(any, any) bool { n++; return true })
		return n
	}
	if count(&made) != 3 || count(&refused) != 5 {
		t.Errorf("%d made, %d refused", count(&made), count(&refused))
	}
	if _, err := r.do("999999999999", "v1", "CreateApplication", `{"ApplicationName": "a0"}`); err != nil {
		t.Errorf("another account: %v", err)
	}
}

func TestLists(t *testing.T) {
	r := newRig(t, nil)
	for i := range 5 {
		r.must("v1", "CreateApplication", fmt.Sprintf(`{"ApplicationName": "a%d"}`, i))
	}
	names := func(out string) string {
		var found []string
		for i := range 5 {
			if strings.Contains(out, fmt.Sprintf(`"ApplicationName": "a%d"`, i)) {
				found = append(found, fmt.Sprint(i))
			}
		}
		return strings.Join(found, "")
	}
	for _, test := range []struct{ version, in, names, more string }{
		{"v1", `{}`, "01234", `"HasMoreApplications": false`},
		{"v1", `{"Limit": 2}`, "01", `"HasMoreApplications": true`},
		{"v1", `{"Limit": 2, "ExclusiveStartApplicationName": "a1"}`, "23", `"HasMoreApplications": true`},
		{"v1", `{"Limit": 2, "ExclusiveStartApplicationName": "a2x"}`, "34", `"HasMoreApplications": false`},
		{"v1", `{"ExclusiveStartApplicationName": "z"}`, "", `"ApplicationSummaries": []`},
		{"v2", `{"Limit": 2}`, "01", `"NextToken": "a1"`},
		{"v2", `{"Limit": 3, "NextToken": "a1"}`, "234", `"RuntimeEnvironment": "SQL-1_0"`},
	} {
		out := r.must(test.version, "ListApplications", test.in)
		if names(out) != test.names || !strings.Contains(out, test.more) {
			t.Errorf("%s %s: %s", test.version, test.in, out)
		}
	}
	if out := r.must("v2", "ListApplications", `{"Limit": 3, "NextToken": "a1"}`); strings.Contains(out, "NextToken") {
		t.Errorf("the last page has a token: %s", out)
	}
	if out, err := r.do("999999999999", "v1", "ListApplications", `{}`); err != nil || names(out) != "" {
		t.Errorf("another account sees %s, %v", out, err)
	}
}

func TestTags(t *testing.T) {
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", `{"ApplicationName": "a", "Tags": [{"Key": "team", "Value": "x"}]}`)
	const arn = `"ResourceARN": "arn:aws:kinesisanalytics:eu-central-1:123456789012:application/a"`
	r.must("v2", "TagResource", `{`+arn+`, "Tags": [{"Key": "stage"}, {"Key": "team", "Value": "y"}]}`)
	if got := r.get("a").record.Tags; len(got) != 2 || got["team"] != "y" || r.get("a").record.Version != 1 {
		t.Errorf("tags %v, version %d", got, r.get("a").record.Version)
	}
	r.must("v1", "UntagResource", `{`+arn+`, "TagKeys": ["stage", "never"]}`)
	if out := r.must("v1", "ListTagsForResource", `{`+arn+`}`); strings.Contains(out, "stage") || !strings.Contains(out, `"Value": "y"`) {
		t.Error(out)
	}
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf(`{"Key": "k%d"}`, i))
	}
	wantError(t, r.v1("TagResource", `{`+arn+`, "Tags": [`+strings.Join(many, ",")+`]}`), "TooManyTagsException", "An application can have at most 50 tags.")
	wantError(t, r.v1("TagResource", `{`+arn+`, "Tags": [{"Key": "AWS:x"}]}`), "InvalidArgumentException", "The tag key AWS:x begins with aws:, which is reserved.")
	wantError(t, r.v1("TagResource", `{`+arn+`, "Tags": [{"Key": "x"}, {"Key": "x"}]}`), "InvalidArgumentException", "The tag key x is given twice.")
	wantError(t, r.v2("ListTagsForResource", `{"ResourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/a"}`), "InvalidArgumentException", "ResourceARN arn:aws:kinesis:eu-central-1:123456789012:stream/a is not the ARN of an application.")
	_, err := r.do("999999999999", "v1", "ListTagsForResource", `{`+arn+`}`)
	wantError(t, err, "ResourceNotFoundException", "Resource arn:aws:kinesisanalytics:eu-central-1:123456789012:application/a not found.")
}
