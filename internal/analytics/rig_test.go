package analytics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

var update = flag.Bool("update", false, "rewrite goldens")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testAccount = "123456789012"
	testRegion  = "eu-central-1"
)

// host keeps what it is told.
type host struct {
	mu      sync.Mutex
	running map[string]*app.Application
	log     []string      // of calls
	err     error         // of the next call
	gate    chan struct{} // what Stop waits for, nil if for nothing
}

func (h *host) told(what, id string, a *app.Application) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.err; err != nil {
		h.err = nil
		return err
	}
	if a == nil {
		delete(h.running, id)
		h.log = append(h.log, what)
		return nil
	}
	h.running[id] = a
	h.log = append(h.log, fmt.Sprintf("%s run %d version %d", what, a.Run, a.Version))
	return nil
}

func (h *host) Start(_ context.Context, a *app.Application) error  { return h.told("start", a.ID, a) }
func (h *host) Update(_ context.Context, a *app.Application) error { return h.told("update", a.ID, a) }
func (h *host) Hold(_ context.Context, a *app.Application, reason error) error {
	return h.told("hold ("+reason.Error()+")", a.ID, a)
}
func (h *host) Stop(ctx context.Context, id string) error {
	if h.gate != nil {
		select {
		case <-h.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.told("stop", id, nil)
}
func (h *host) Remove(_ context.Context, id string) error { return h.told("remove", id, nil) }
func (h *host) Status(string) app.Status                  { return app.Status{} }

// calls are those since the last time it was asked.
func (h *host) calls() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := strings.Join(h.log, "; ")
	h.log = nil
	return calls
}

// rig is a Service with a clock that only tests move.
type rig struct {
	*Service
	t     testing.TB
	clock atomic.Int64 // nanoseconds
	log   *shardlog.Log
	host  *host
	opts  Options
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.clock.Store(time.Date(2026, 5, 1, 12, 0, 0, 250e6, time.UTC).UnixNano())
	r.log = shardlog.New(memory.New(memory.Options{Now: r.time}), shardlog.Options{})
	t.Cleanup(func() {
		if err := r.log.Close(); err != nil {
			t.Error(err)
		}
	})
	r.opts = Options{Now: r.time}
	if change != nil {
		change(&r.opts)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) time() time.Time         { return time.Unix(0, r.clock.Load()) }
func (r *rig) advance(d time.Duration) { r.clock.Add(int64(d)) }

func (r *rig) start() {
	r.t.Helper()
	store, err := meta.Open(context.Background(), r.log, nil, meta.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.opts
	r.host = &host{running: map[string]*app.Application{}}
	o.Meta, o.Host = store, r.host
	if r.Service, err = New(context.Background(), o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	if err := r.Service.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.Service.meta.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart forgets everything that is not stored.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// finishDue finishes what is due and returns how long until the next change is.
func (r *rig) finishDue(ctx context.Context) (wait time.Duration, any bool) {
	r.startDue(ctx)
	r.finishers.group.Wait()
	wait, any = r.startDue(ctx)
	r.finishers.group.Wait()
	return wait, any
}

// settle lets every change of state end.
func (r *rig) settle() {
	r.t.Helper()
	for range 10 {
		r.advance(time.Minute)
		if _, any := r.finishDue(r.t.Context()); !any {
			return
		}
	}
	r.t.Fatal("changes of state do not end")
}

// do makes a call as the wire does behind authorisation: the members of a JSON
// text are validated by the model and served.
func (r *rig) do(account, version, operation, input string) (string, error) {
	r.t.Helper()
	bindings := kinesisanalytics.Bind(V1{r.Service})
	if version == "v2" {
		bindings = kinesisanalyticsv2.Bind(V2{r.Service})
	}
	for _, b := range bindings {
		if b.Operation.Name != operation {
			continue
		}
		in := b.Operation.NewInput()
		d := json.NewDecoder(strings.NewReader(input))
		d.DisallowUnknownFields()
		if err := d.Decode(in); err != nil {
			r.t.Fatalf("%s %s: %v", operation, input, err)
		}
		if err := b.Operation.Validate(in); err != nil {
			return "", err
		}
		call := &api.Call{Account: account, Region: testRegion, Partition: "aws", RequestID: "test", Operation: b.Operation}
		out, err := b.Handle(r.t.Context(), call, in)
		if err != nil {
			return "", err
		}
		return pretty(r.t, out), nil
	}
	r.t.Fatalf("no operation %s", operation)
	return "", nil
}

func (r *rig) v1(operation, input string) error {
	r.t.Helper()
	_, err := r.do(testAccount, "v1", operation, input)
	return err
}

func (r *rig) v2(operation, input string) error {
	r.t.Helper()
	_, err := r.do(testAccount, "v2", operation, input)
	return err
}

func (r *rig) must(version, operation, input string) string {
	r.t.Helper()
	out, err := r.do(testAccount, version, operation, input)
	if err != nil {
		r.t.Fatalf("%s: %v", operation, err)
	}
	return out
}

func (r *rig) get(name string) *application {
	r.t.Helper()
	a := r.registry.application(applicationName{testAccount, testRegion, name})
	if a == nil {
		r.t.Fatalf("no application %s", name)
	}
	return a
}

// pretty writes a shape as JSON, without what is not set.
func pretty(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(withoutNulls(tree)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		maps.DeleteFunc(v, func(_ string, value any) bool { return value == nil })
		for k := range v {
			v[k] = withoutNulls(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
	}
	return v
}

func compareGolden(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\ngot\n%s\nwant\n%s", path, got, want)
	}
}

// wantError checks an error's code and text; the text may end in … to match a
// beginning.
func wantError(t testing.TB, err error, code, message string) {
	t.Helper()
	var e api.Error
	if !errors.As(err, &e) {
		t.Errorf("got error %v, want %s %q", err, code, message)
		return
	}
	begin, open := strings.CutSuffix(message, "…")
	if e.ErrorCode() != code || e.ErrorMessage() != message && !(open && strings.HasPrefix(e.ErrorMessage(), begin)) {
		t.Errorf("got  %s %q\nwant %s %q", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
}

// The parts of applications. Those of version 1 have roles.

const (
	program = `CREATE OR REPLACE STREAM \"OUT\" (ticker VARCHAR(4), price INTEGER); CREATE OR REPLACE PUMP p AS INSERT INTO \"OUT\" SELECT STREAM \"ticker\", \"price\" FROM \"SOURCE_SQL_STREAM_001\";`

	role      = `"RoleARN": "arn:aws:iam::123456789012:role/sql"`
	columns   = `"RecordColumns": [{"Name": "ticker", "SqlType": "VARCHAR(4)", "Mapping": "$.ticker"}, {"Name": "price", "SqlType": "INTEGER", "Mapping": "$.price"}]`
	schema    = `{"RecordFormat": {"RecordFormatType": "JSON", "MappingParameters": {"JSONMappingParameters": {"RecordRowPath": "$"}}}, "RecordEncoding": "UTF-8", ` + columns + `}`
	csvSchema = `{"RecordFormat": {"RecordFormatType": "CSV", "MappingParameters": {"CSVMappingParameters": {"RecordRowDelimiter": "\n", "RecordColumnDelimiter": ","}}}, "RecordColumns": [{"Name": "ticker", "SqlType": "VARCHAR(4)"}, {"Name": "company", "SqlType": "VARCHAR(64)"}]}`
	streamARN = `"ResourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/in"`
	outputARN = `"ResourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/out"`
	hoseARN   = `"ResourceARN": "arn:aws:firehose:eu-central-1:123456789012:deliverystream/hose"`
	lambdaARN = `"ResourceARN": "arn:aws:lambda:eu-central-1:123456789012:function:f"`
	bucketARN = `"BucketARN": "arn:aws:s3:::bucket"`
	logARN    = `"LogStreamARN": "arn:aws:logs:eu-central-1:123456789012:log-group:g:log-stream:s"`
	processed = `{"InputLambdaProcessor": {` + lambdaARN + `, ` + role + `}}`

	inputV1     = `{"NamePrefix": "SOURCE_SQL_STREAM", "KinesisStreamsInput": {` + streamARN + `, ` + role + `}, "InputSchema": ` + schema + `}`
	inputV2     = `{"NamePrefix": "SOURCE_SQL_STREAM", "KinesisStreamsInput": {` + streamARN + `}, "InputSchema": ` + schema + `}`
	outputV1    = `{"Name": "OUT", "KinesisStreamsOutput": {` + outputARN + `, ` + role + `}, "DestinationSchema": {"RecordFormatType": "JSON"}}`
	outputV2    = `{"Name": "OUT", "KinesisStreamsOutput": {` + outputARN + `}, "DestinationSchema": {"RecordFormatType": "JSON"}}`
	referenceV1 = `{"TableName": "COMPANIES", "S3ReferenceDataSource": {` + bucketARN + `, "FileKey": "companies.csv", "ReferenceRoleARN": "arn:aws:iam::123456789012:role/sql"}, "ReferenceSchema": ` + csvSchema + `}`
	referenceV2 = `{"TableName": "COMPANIES", "S3ReferenceDataSource": {` + bucketARN + `, "FileKey": "companies.csv"}, "ReferenceSchema": ` + csvSchema + `}`

	createV1 = `{"ApplicationName": "a", "ApplicationDescription": "of tests", "ApplicationCode": "` + program + `", "Inputs": [` + inputV1 + `], "Outputs": [` + outputV1 + `], "CloudWatchLoggingOptions": [{` + logARN + `, ` + role + `}]}`
	createV2 = `{"ApplicationName": "a", "ApplicationDescription": "of tests", "RuntimeEnvironment": "SQL-1_0", "ServiceExecutionRole": "arn:aws:iam::123456789012:role/sql", "ApplicationMode": "STREAMING",
		"ApplicationConfiguration": {"SqlApplicationConfiguration": {"Inputs": [` + inputV2 + `], "Outputs": [` + outputV2 + `], "ReferenceDataSources": [` + referenceV2 + `]},
		"ApplicationCodeConfiguration": {"CodeContentType": "PLAINTEXT", "CodeContent": {"TextContent": "` + program + `"}}}, "CloudWatchLoggingOptions": [{` + logARN + `}]}`
)
