package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/cloudwatchlogs"
	firehoseapi "github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/api/lambda"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

// analyticsRig calls every service of a server with JSON as it is.
type analyticsRig struct {
	t           *testing.T
	s           *testkit.Server
	credentials sigv4.Credentials
}

func startAnalytics(t *testing.T, change func(*config.Config)) *analyticsRig {
	s := testkit.Start(t, testkit.Options{Files: vfs.NewMemory(), Configure: change})
	return &analyticsRig{t, s, sigv4.Credentials{AccessKey: "test", SecretKey: "test"}}
}

// targets are the prefixes of X-Amz-Target and the names that requests are signed
// for.
var targets = map[string][2]string{
	"v1":       {"KinesisAnalytics_20150814", "kinesisanalytics"},
	"v2":       {"KinesisAnalytics_20180523", "kinesisanalytics"},
	"control":  {"MillraceAnalytics_20260101", "kinesisanalytics"},
	"kinesis":  {"Kinesis_20131202", "kinesis"},
	"firehose": {"Firehose_20150804", "firehose"},
	"logs":     {"Logs_20140328", "logs"},
}

func (r *analyticsRig) try(service, operation, body string) (status int, reply string) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "http://"+r.s.Address()+"/", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/x-amz-json-1.1")
	q.Header.Set("X-Amz-Target", targets[service][0]+"."+operation)
	sigv4.Sign(q, []byte(body), r.credentials, testkit.Region, targets[service][1], time.Now())
	answer, err := r.s.Client(testkit.Forms[0]).Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, string(raw)
}

func (r *analyticsRig) must(service, operation, body string) string {
	r.t.Helper()
	status, reply := r.try(service, operation, body)
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %s", service, operation, status, reply)
	}
	return reply
}

// until polls what f says until it is what is wanted.
func (r *analyticsRig) until(want string, f func() string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for {
		got := f()
		if got == want {
			return
		}
		select {
		case <-ctx.Done():
			_, overview := get(r.t, "http://"+r.s.AdminAddress()+"/applications")
			r.t.Fatalf("got\n%s\nwant\n%s\n%s", got, want, overview)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var statusPattern = regexp.MustCompile(`"ApplicationStatus":"(\w+)"`)

func (r *analyticsRig) wait(name, status string) {
	r.t.Helper()
	r.until(status, func() string {
		code, reply := r.try("v1", "DescribeApplication", fmt.Sprintf(`{"ApplicationName":%q}`, name))
		if code != http.StatusOK {
			return "gone"
		}
		return statusPattern.FindStringSubmatch(reply)[1]
	})
}

// start starts an application from the oldest record of its input.
func (r *analyticsRig) start(name string) {
	r.t.Helper()
	r.must("v1", "StartApplication", fmt.Sprintf(`{"ApplicationName":%q,"InputConfigurations":[{"Id":"1.1","InputStartingPositionConfiguration":{"InputStartingPosition":"TRIM_HORIZON"}}]}`, name))
	r.wait(name, "RUNNING")
}

func (r *analyticsRig) stream(name string, shards int) {
	r.t.Helper()
	r.must("kinesis", "CreateStream", fmt.Sprintf(`{"StreamName":%q,"ShardCount":%d}`, name, shards))
}

func (r *analyticsRig) put(stream string, records ...string) {
	r.t.Helper()
	var entries []string
	for i, data := range records {
		entries = append(entries, fmt.Sprintf(`{"PartitionKey":"%d","Data":%q}`, i, base64.StdEncoding.EncodeToString([]byte(data))))
	}
	if reply := r.must("kinesis", "PutRecords", fmt.Sprintf(`{"StreamName":%q,"Records":[%s]}`, stream, strings.Join(entries, ","))); !strings.Contains(reply, `"FailedRecordCount":0`) {
		r.t.Fatal(reply)
	}
}

// rows are the records of the only shard of a stream.
func (r *analyticsRig) rows(stream string) []string {
	r.t.Helper()
	var iterator struct{ ShardIterator string }
	r.parse(r.must("kinesis", "GetShardIterator", fmt.Sprintf(`{"StreamName":%q,"ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON"}`, stream)), &iterator)
	var page struct{ Records []struct{ Data []byte } }
	r.parse(r.must("kinesis", "GetRecords", fmt.Sprintf(`{"ShardIterator":%q}`, iterator.ShardIterator)), &page)
	rows := []string{}
	for _, rec := range page.Records {
		rows = append(rows, string(rec.Data))
	}
	return rows
}

func (r *analyticsRig) parse(reply string, into any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(reply), into); err != nil {
		r.t.Fatalf("%v: %s", err, reply)
	}
}

// sorted waits until a stream has so many rows, and joins them in order.
func (r *analyticsRig) sorted(stream, want string) {
	r.t.Helper()
	r.until(want, func() string {
		rows := r.rows(stream)
		slices.Sort(rows)
		return strings.Join(rows, "")
	})
}

const (
	inARN    = "arn:aws:kinesis:us-east-1:000000000000:stream/in"
	outARN   = "arn:aws:kinesis:us-east-1:000000000000:stream/out"
	roleARN  = "arn:aws:iam::000000000000:role/sql"
	jsonRows = `"InputSchema":{"RecordFormat":{"RecordFormatType":"JSON"},"RecordColumns":[{"Name":"k","SqlType":"VARCHAR(16)","Mapping":"$.k"},{"Name":"v","SqlType":"INTEGER","Mapping":"$.v"}]}`
	passing  = `CREATE STREAM \"OUT\" (\"k\" VARCHAR(16), \"v\" INTEGER); CREATE PUMP P AS INSERT INTO \"OUT\" SELECT STREAM \"k\", \"v\" FROM \"IN_001\";`
)

// application is the body of a CreateApplication of version 1: code over one input
// of JSON into OUT.
func application(name, code, source, destination string) string {
	return fmt.Sprintf(`{"ApplicationName":%q,"ApplicationCode":"%s","Inputs":[{"NamePrefix":"IN",%s,%s}],"Outputs":[{"Name":"OUT",%s,"DestinationSchema":{"RecordFormatType":"JSON"}}],
		"CloudWatchLoggingOptions":[{"LogStreamARN":"arn:aws:logs:us-east-1:000000000000:log-group:/aws/kinesis-analytics/%s:log-stream:errors","RoleARN":%q}]}`,
		name, code, source, jsonRows, destination, name, roleARN)
}

func resourceOf(kind, arn string) string {
	return fmt.Sprintf(`%q:{"ResourceARN":%q,"RoleARN":%q}`, kind, arn, roleARN)
}

// events are what an application's log stream holds.
func (r *analyticsRig) events(name string) string {
	r.t.Helper()
	status, reply := r.try("logs", "GetLogEvents", fmt.Sprintf(`{"logGroupName":"/aws/kinesis-analytics/%s","logStreamName":"errors","startFromHead":true}`, name))
	if status != http.StatusOK {
		return ""
	}
	var page struct{ Events []struct{ Message string } }
	r.parse(reply, &page)
	var lines []string
	for _, e := range page.Events {
		lines = append(lines, e.Message)
	}
	return strings.Join(lines, "\n")
}

// An application made with one version of the API and started with the other
// counts what comes, goes on when the server comes back, and takes nothing with it
// when it is deleted.
func TestApplicationBetweenStreams(t *testing.T) {
	files := vfs.NewMemory()
	o := testkit.Options{Files: files}
	r := &analyticsRig{t, testkit.Start(t, o), sigv4.Credentials{AccessKey: "test", SecretKey: "test"}}
	r.stream("in", 2)
	r.stream("out", 1)
	// The window ends when a row says so, and no sooner.
	code := `CREATE STREAM \"OUT\" (\"k\" VARCHAR(16), n BIGINT); CREATE PUMP P AS INSERT INTO \"OUT\" SELECT STREAM \"k\", COUNT(*) FROM \"IN_001\" WHERE \"v\" > 0 GROUP BY \"k\", FLOOR(\"IN_001\".ROWTIME TO SECOND);`
	r.must("v1", "CreateApplication", application("a", code, resourceOf("KinesisStreamsInput", inARN), resourceOf("KinesisStreamsOutput", outARN)))
	if reply := r.must("v2", "DescribeApplication", `{"ApplicationName":"a"}`); !strings.Contains(reply, `"RuntimeEnvironment":"SQL-1_0"`) {
		t.Errorf("version 2 sees %s", reply)
	}
	r.must("v2", "StartApplication", `{"ApplicationName":"a","RunConfiguration":{"SqlRunConfigurations":[{"InputId":"1.1","InputStartingPositionConfiguration":{"InputStartingPosition":"TRIM_HORIZON"}}]}}`)
	r.wait("a", "RUNNING")
	total := func() string {
		n := 0
		for _, row := range r.rows("out") {
			var v struct{ N int }
			r.parse(row, &v)
			n += v.N
		}
		return strconv.Itoa(n)
	}
	r.put("in", `{"k":"x","v":1}`, `{"k":"y","v":1}`, `{"k":"x","v":0}`, `{"k":"x","v":2}`)
	r.until("3", total)
	if err := r.s.Stop(); err != nil {
		t.Fatal(err)
	}
	r.s = testkit.Start(t, o)
	r.wait("a", "RUNNING")
	r.put("in", `{"k":"x","v":1}`, `{"k":"z","v":1}`)
	r.until("5", total)
	var described struct {
		ApplicationDetail struct{ CreateTimestamp json.Number }
	}
	r.parse(r.must("v1", "DescribeApplication", `{"ApplicationName":"a"}`), &described)
	r.must("v1", "DeleteApplication", fmt.Sprintf(`{"ApplicationName":"a","CreateTimestamp":%s}`, described.ApplicationDetail.CreateTimestamp))
	r.wait("a", "gone")
	if names, err := files.ReadDir("applications"); err != nil || len(names) != 0 {
		t.Errorf("checkpoints stay: %v, %v", names, err)
	}
}

// Delivery streams are read, whether they are put to or read a data stream
// themselves, and take rows.
func TestApplicationsOnDeliveryStreams(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "destinations.yaml")
	if err := os.WriteFile(file, []byte("destinations:\n  sink: {type: file, directory: "+dir+"/sink, delimiter: \"\"}\n  other: {type: file, directory: "+dir+"/other, delimiter: \"\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startAnalytics(t, func(c *config.Config) { c.Destinations = file })
	hose := func(name, source, to string) string {
		r.must("firehose", "CreateDeliveryStream", fmt.Sprintf(`{"DeliveryStreamName":%q,%s"HttpEndpointDestinationConfiguration":{
			"EndpointConfiguration":{"Url":"https://destinations.millrace.internal/%s"},"BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":0},
			"S3Configuration":{"RoleARN":%q,"BucketARN":"arn:aws:s3:::bucket"}}}`, name, source, to, roleARN))
		wait(t, r.s, name, "ACTIVE")
		return "arn:aws:firehose:us-east-1:000000000000:deliverystream/" + name
	}
	r.stream("in", 2)
	r.stream("out", 1)
	raw, sink := hose("raw", "", "other"), hose("sink", "", "sink")
	reading := hose("reading", fmt.Sprintf(`"DeliveryStreamType":"KinesisStreamAsSource","KinesisStreamSourceConfiguration":{"KinesisStreamARN":%q,"RoleARN":%q},`, inARN, roleARN), "other")
	direct := application("direct", passing, resourceOf("KinesisFirehoseInput", raw), resourceOf("KinesisFirehoseOutput", sink))
	r.must("v1", "CreateApplication", direct)
	r.must("v1", "CreateApplication", application("behind", passing, resourceOf("KinesisFirehoseInput", reading), resourceOf("KinesisStreamsOutput", outARN)))
	if status, reply := r.try("v1", "StartApplication", `{"ApplicationName":"direct","InputConfigurations":[{"Id":"1.1","InputStartingPositionConfiguration":{"InputStartingPosition":"TRIM_HORIZON"}}]}`); status != 400 || !strings.Contains(reply, "TRIM_HORIZON is not supported") {
		t.Errorf("a delivery stream from its beginning: %d %s", status, reply)
	}
	// What is put before the start does not count.
	r.must("firehose", "PutRecord", `{"DeliveryStreamName":"raw","Record":{"Data":"eyJrIjoiZWFybHkiLCJ2IjoxfQ=="}}`)
	time.Sleep(2 * time.Millisecond) // the start is of a later millisecond
	for _, name := range []string{"direct", "behind"} {
		r.must("v2", "StartApplication", fmt.Sprintf(`{"ApplicationName":%q}`, name))
		r.wait(name, "RUNNING")
	}
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	r.must("firehose", "PutRecordBatch", fmt.Sprintf(`{"DeliveryStreamName":"raw","Records":[{"Data":%q},{"Data":%q}]}`, encode(`{"k":"a","v":1}{"k":"b","v":2}`), encode(`{"k":"c","v":3}`)))
	r.put("in", `{"k":"d","v":4}`, `{"k":"e","v":5}`)
	r.sorted("out", "{\"k\":\"d\",\"v\":4}\n{\"k\":\"e\",\"v\":5}\n")
	r.until("{\"k\":\"a\",\"v\":1}\n{\"k\":\"b\",\"v\":2}\n{\"k\":\"c\",\"v\":3}\n", func() string { return contents(t, filepath.Join(dir, "sink")) })

	// The delivery stream goes away and comes back: the application says so and
	// reads the new one.
	r.must("firehose", "DeleteDeliveryStream", `{"DeliveryStreamName":"raw"}`)
	wait(t, r.s, "raw", "gone")
	r.until("true", func() string { return strconv.FormatBool(strings.Contains(r.events("direct"), "raw")) })
	hose("raw", "", "other")
	r.must("firehose", "PutRecord", fmt.Sprintf(`{"DeliveryStreamName":"raw","Record":{"Data":%q}}`, encode(`{"k":"f","v":6}`)))
	r.until("true", func() string {
		return strconv.FormatBool(strings.Contains(contents(t, filepath.Join(dir, "sink")), `{"k":"f","v":6}`))
	})
}

// A function sees records first, a reference table of an object is joined, and
// another function takes the rows.
func TestApplicationsWithFunctionsAndTables(t *testing.T) {
	dir := t.TempDir()
	function := func(name, code string) string {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "lambda_function.py"), []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		return "arn:aws:lambda:us-east-1:000000000000:function:" + name
	}
	upper := function("upper", `import base64, json
def lambda_handler(event, context):
    out = []
    for r in event["records"]:
        d = base64.b64decode(r["data"]).decode()
        if "drop" in d:
            out.append({"recordId": r["recordId"], "result": "Dropped"})
        elif "fail" in d:
            out.append({"recordId": r["recordId"], "result": "ProcessingFailed", "data": r["data"]})
        else:
            assert event["applicationArn"].endswith("application/a") or event["applicationArn"].endswith("/discovery"), event["applicationArn"]
            out.append({"recordId": r["recordId"], "result": "Ok", "data": base64.b64encode(d.replace("low", "LOW").encode()).decode()})
    return {"records": out}
`)
	taken := filepath.Join(dir, "taken")
	taker := function("taker", `import base64
def lambda_handler(event, context):
    with open(`+strconv.Quote(taken)+`, "ab") as f:
        for r in event["records"]:
            assert r["lambdaDeliveryRecordMetadata"]["retryHint"] == 0
            f.write(base64.b64decode(r["data"]))
    return {"records": [{"recordId": r["recordId"], "result": "Ok"} for r in event["records"]]}
`)
	r := startAnalytics(t, func(c *config.Config) { c.Functions = dir })
	store := buckets(t, r.s)
	makeBucket(t, store, "tables")
	put := func(text string) {
		t.Helper()
		if _, err := store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr("tables"), Key: ptr("names.csv"), Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	put("LOW,lower\nx,unknown\n")
	r.stream("in", 2)
	code := `CREATE STREAM \"OUT\" (\"k\" VARCHAR(16), \"v\" INTEGER, name VARCHAR(16)); CREATE PUMP P AS INSERT INTO \"OUT\" SELECT STREAM s.\"k\", s.\"v\", n.\"name\" FROM \"IN_001\" s LEFT JOIN \"NAMES\" n ON s.\"k\" = n.\"k\";`
	body := fmt.Sprintf(`{"ApplicationName":"a","RuntimeEnvironment":"SQL-1_0","ServiceExecutionRole":%q,"ApplicationConfiguration":{
		"ApplicationCodeConfiguration":{"CodeContent":{"TextContent":"%s"},"CodeContentType":"PLAINTEXT"},
		"SqlApplicationConfiguration":{
		"Inputs":[{"NamePrefix":"IN","KinesisStreamsInput":{"ResourceARN":%q},%s,"InputProcessingConfiguration":{"InputLambdaProcessor":{"ResourceARN":%q}}}],
		"ReferenceDataSources":[{"TableName":"NAMES","S3ReferenceDataSource":{"BucketARN":"arn:aws:s3:::tables","FileKey":"names.csv"},
			"ReferenceSchema":{"RecordFormat":{"RecordFormatType":"CSV","MappingParameters":{"CSVMappingParameters":{"RecordRowDelimiter":"\n","RecordColumnDelimiter":","}}},
			"RecordColumns":[{"Name":"k","SqlType":"VARCHAR(16)"},{"Name":"name","SqlType":"VARCHAR(16)"}]}}],
		"Outputs":[{"Name":"OUT","LambdaOutput":{"ResourceARN":%q},"DestinationSchema":{"RecordFormatType":"CSV"}}]}}}`, roleARN, code, inARN, jsonRows, upper, taker)
	r.must("v2", "CreateApplication", body)
	r.start("a")
	r.put("in", `{"k":"low","v":1}`, `{"k":"drop","v":2}`, `{"k":"fail","v":3}`, `{"k":"z","v":4}`)
	lines := func() string {
		raw, err := os.ReadFile(taken)
		if err != nil {
			return err.Error()
		}
		list := strings.SplitAfter(string(raw), "\n")
		slices.Sort(list)
		return strings.Join(list, "")
	}
	r.until("LOW,1,lower\nz,4,\n", lines)

	// The object is read again when an update says so, while the application runs.
	put("z,found\n")
	var described struct {
		ApplicationDetail struct {
			ApplicationConfigurationDescription struct {
				SqlApplicationConfigurationDescription struct {
					ReferenceDataSourceDescriptions []struct{ ReferenceId string }
				}
			}
		}
	}
	r.parse(r.must("v2", "DescribeApplication", `{"ApplicationName":"a"}`), &described)
	id := described.ApplicationDetail.ApplicationConfigurationDescription.SqlApplicationConfigurationDescription.ReferenceDataSourceDescriptions[0].ReferenceId
	r.must("v2", "UpdateApplication", fmt.Sprintf(`{"ApplicationName":"a","CurrentApplicationVersionId":1,"ApplicationConfigurationUpdate":{"SqlApplicationConfigurationUpdate":{"ReferenceDataSourceUpdates":[{"ReferenceId":%q}]}}}`, id))
	r.wait("a", "RUNNING")
	r.put("in", `{"k":"z","v":5}`)
	r.until("LOW,1,lower\nz,4,\nz,5,found\n", lines)

	// Without its table the program is held, and goes on where it was when the table
	// is back.
	r.must("v2", "DeleteApplicationReferenceDataSource", fmt.Sprintf(`{"ApplicationName":"a","CurrentApplicationVersionId":2,"ReferenceId":%q}`, id))
	r.wait("a", "RUNNING")
	r.put("in", `{"k":"z","v":6}`)
	if status := r.must("control", "GetApplicationStatus", `{"ApplicationName":"a"}`); !strings.Contains(status, `"Runs":false,"Problem":"the program cannot be run: line 1, column `) {
		t.Errorf("without its table: %s", status)
	}
	_, table, _ := strings.Cut(body, `"ReferenceDataSources":[`)
	table, _, _ = strings.Cut(table, `],
		"Outputs"`)
	r.must("v2", "AddApplicationReferenceDataSource", `{"ApplicationName":"a","CurrentApplicationVersionId":3,"ReferenceDataSource":`+table+`}`)
	r.wait("a", "RUNNING")
	r.until("LOW,1,lower\nz,4,\nz,5,found\nz,6,found\n", lines)

	// What the function makes of a sample is what the schema is discovered from.
	reply := r.must("v2", "DiscoverInputSchema", fmt.Sprintf(`{"ServiceExecutionRole":%q,"ResourceARN":%q,"InputProcessingConfiguration":{"InputLambdaProcessor":{"ResourceARN":%q}}}`, roleARN, inARN, upper))
	if !strings.Contains(reply, `"RawInputRecords":["{\"k\":\"`) || !strings.Contains(reply, `LOW`) || strings.Count(reply, "fail") != 1 {
		t.Errorf("discovered %s", reply)
	}
}

func ptr[T any](v T) *T { return &v }

// Schemas are discovered from data streams, delivery streams and objects, as they
// are and as they come.
func TestDiscovery(t *testing.T) {
	r := startAnalytics(t, nil)
	r.stream("in", 4)
	discover := func(what string) (int, string) {
		t.Helper()
		return r.try("v1", "DiscoverInputSchema", what)
	}
	ask := func(arn, more string) string {
		return fmt.Sprintf(`{"ResourceARN":%q,"RoleARN":%q%s}`, arn, roleARN, more)
	}
	if status, reply := discover(ask(inARN, "")); status != 400 || !strings.Contains(reply, `"__type":"UnableToDetectSchemaException"`) {
		t.Errorf("of an empty stream: %d %s", status, reply)
	}
	if status, reply := discover(ask("arn:aws:kinesis:us-east-1:000000000000:stream/none", "")); status != 400 || !strings.Contains(reply, `"__type":"InvalidArgumentException"`) {
		t.Errorf("of a stream that is not there: %d %s", status, reply)
	}
	for i := range 30 {
		r.put("in", fmt.Sprintf(`{"n":%d,"text":"of %d"}`, i, i), fmt.Sprintf(`{"n":%d,"text":"more"}`, 100+i))
	}
	const schema = `"RecordColumns":[{"Name":"n","SqlType":"INTEGER","Mapping":"$.n"},{"Name":"text","SqlType":"VARCHAR(16)","Mapping":"$.text"}]`
	sorted := func(reply string) string { // columns in any order of members
		return strings.NewReplacer(`"Mapping":"$.n","SqlType":"INTEGER"`, `"SqlType":"INTEGER","Mapping":"$.n"`, `"Mapping":"$.text","SqlType":"VARCHAR(16)"`, `"SqlType":"VARCHAR(16)","Mapping":"$.text"`).Replace(reply)
	}
	for _, position := range []string{"", `,"InputStartingPositionConfiguration":{"InputStartingPosition":"TRIM_HORIZON"}`} {
		status, reply := discover(ask(inARN, position))
		if status != 200 || !strings.Contains(sorted(reply), schema) {
			t.Errorf("%q: %d %s", position, status, reply)
		}
		if oldest := strings.Contains(reply, `["0","of 0"]`); oldest != (position != "") && position != "" {
			t.Errorf("%q: the oldest record is shown: %v: %s", position, oldest, reply)
		}
	}
	// What comes while it waits.
	done := make(chan string, 1)
	question := ask(inARN, `,"InputStartingPositionConfiguration":{"InputStartingPosition":"NOW"}`)
	coming := func() { // through another client, beside the puts below
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.s.Address()+"/", strings.NewReader(question))
		if err != nil {
			done <- err.Error()
			return
		}
		q.Header.Set("Content-Type", "application/x-amz-json-1.1")
		q.Header.Set("X-Amz-Target", "KinesisAnalytics_20150814.DiscoverInputSchema")
		sigv4.Sign(q, []byte(question), r.credentials, testkit.Region, "kinesisanalytics", time.Now())
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		answer, err := client.Do(q)
		if err != nil {
			done <- err.Error()
			return
		}
		defer answer.Body.Close()
		raw, _ := io.ReadAll(answer.Body)
		done <- string(raw)
	}
	var waiting sync.WaitGroup
	waiting.Go(coming)
	defer waiting.Wait()
	for got := ""; got == ""; {
		r.put("in", `{"later":true}`)
		select {
		case got = <-done:
			if !strings.Contains(got, `"SqlType":"BOOLEAN"`) || strings.Contains(got, "text") {
				t.Errorf("of what comes: %s", got)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}

	store := buckets(t, r.s)
	makeBucket(t, store, "samples")
	if _, err := store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr("samples"), Key: ptr("a.csv"), Body: strings.NewReader("id,name\n1,one\n2,two\n")}); err != nil {
		t.Fatal(err)
	}
	object := func(key string) (int, string) {
		return discover(fmt.Sprintf(`{"S3Configuration":{"RoleARN":%q,"BucketARN":"arn:aws:s3:::samples","FileKey":%q}}`, roleARN, key))
	}
	if status, reply := object("a.csv"); status != 200 || !strings.Contains(reply, `"RecordFormatType":"CSV"`) || !strings.Contains(reply, `["1","one"]`) {
		t.Errorf("of an object: %d %s", status, reply)
	}
	if status, reply := object("none.csv"); status != 400 || !strings.Contains(reply, "NoSuchKey") {
		t.Errorf("of an object that is not there: %d %s", status, reply)
	}
	r.must("firehose", "CreateDeliveryStream", fmt.Sprintf(`{"DeliveryStreamName":"raw","ExtendedS3DestinationConfiguration":{"RoleARN":%q,"BucketARN":"arn:aws:s3:::samples"}}`, roleARN))
	wait(t, r.s, "raw", "ACTIVE")
	r.must("firehose", "PutRecord", fmt.Sprintf(`{"DeliveryStreamName":"raw","Record":{"Data":%q}}`, base64.StdEncoding.EncodeToString([]byte("7|seven\n8|eight\n"))))
	if status, reply := discover(ask("arn:aws:firehose:us-east-1:000000000000:deliverystream/raw", "")); status != 200 || !strings.Contains(reply, `["7","seven"]`) {
		t.Errorf("of a delivery stream: %d %s", status, reply)
	}
}

// A stream that is read too often says so, if the service's limits are kept.
func TestDiscoveryOfABusyStream(t *testing.T) {
	now := newClock()
	s := testkit.Start(t, testkit.Options{Now: now.now, Configure: func(c *config.Config) { c.Limits = "aws" }})
	r := &analyticsRig{t, s, sigv4.Credentials{AccessKey: "test", SecretKey: "test"}}
	r.stream("in", 1)
	r.put("in", `{"n":1}`)
	for i := range 6 {
		status, reply := r.try("v1", "DiscoverInputSchema", fmt.Sprintf(`{"ResourceARN":%q,"RoleARN":%q}`, inARN, roleARN))
		if i < 5 && status != 200 || i == 5 && !strings.Contains(reply, `"__type":"ResourceProvisionedThroughputExceededException"`) {
			t.Errorf("call %d: %d %s", i, status, reply)
		}
	}
}

// What keeps an application from working is told as the service tells it, once,
// and shown to the operator, and the application goes on when it is gone.
func TestApplicationsSayWhatTheyLack(t *testing.T) {
	r := startAnalytics(t, nil)
	r.must("v1", "CreateApplication", application("a", passing, resourceOf("KinesisStreamsInput", inARN), resourceOf("KinesisStreamsOutput", outARN)))
	r.start("a")
	r.until(`{"applicationARN":"arn:aws:kinesisanalytics:us-east-1:000000000000:application/a","applicationVersionId":"1","messageType":"ERROR","message":"ResourceNotFoundException: Stream in under account 000000000000 not found.","inputId":"1.1","errorCode":"InputError","messageSchemaVersion":"1"}`,
		func() string { return r.events("a") })
	overview := func() string {
		_, text := get(t, "http://"+r.s.AdminAddress()+"/applications")
		return strings.TrimSpace(text)
	}
	r.until(`[{"account":"000000000000","region":"us-east-1","name":"a","status":"RUNNING","version":1,"runs":true,"problem":"ResourceNotFoundException: Stream in under account 000000000000 not found.","millisBehindLatest":0,"rowsIn":0,"rowsOut":0}]`, overview)
	if status := r.must("control", "GetApplicationStatus", `{"ApplicationName":"a"}`); status != `{"ApplicationStatus":"RUNNING","ApplicationVersionId":1,"Runs":true,"Problem":"ResourceNotFoundException: Stream in under account 000000000000 not found.","MillisBehindLatest":0,"RowsIn":0,"RowsOut":0}` {
		t.Errorf("status: %s", status)
	}
	if code, reply := r.try("control", "GetApplicationStatus", `{"ApplicationName":"b"}`); code != 400 || !strings.Contains(reply, `"__type":"ResourceNotFoundException"`) {
		t.Errorf("status of none: %d %s", code, reply)
	}
	if _, text := get(t, "http://"+r.s.AdminAddress()+"/health/ready"); !strings.HasPrefix(text, "ready, but 1 of the SQL applications are held up") {
		t.Errorf("ready: %s", text)
	}
	r.stream("in", 1)
	r.until("true", func() string { return strconv.FormatBool(!strings.Contains(overview(), "problem")) })
	r.put("in", `{"k":"a","v":1}`)
	r.until("true", func() string {
		return strconv.FormatBool(strings.Contains(r.events("a"), `"outputId":"1.1","errorCode":"OutputError"`))
	})
	r.stream("out", 1)
	r.sorted("out", "{\"k\":\"a\",\"v\":1}\n")
	r.until(`[{"account":"000000000000","region":"us-east-1","name":"a","status":"RUNNING","version":1,"runs":true,"millisBehindLatest":0,"rowsIn":1,"rowsOut":1}]`, overview)
	if n := strings.Count(r.events("a"), "\n"); n > 3 {
		t.Errorf("it says %d things:\n%s", n+1, r.events("a"))
	}
}

const analyticsSeed = `
users:
  - name: maker
    account: "000000000000"
    keys: [{id: AKIAMAKER00000000001, secret: secretsecretsecretsecretsecretsecret1111}]
    policies:
      - name: applications
        document:
          Version: "2012-10-17"
          Statement:
            - {Effect: Allow, Action: ["kinesis:*", "kinesisanalytics:*", "logs:*", "iam:PutRolePolicy"], Resource: "*"}
            - {Effect: Allow, Action: "iam:PassRole", Resource: ["arn:aws:iam::000000000000:role/sql", "arn:aws:iam::000000000000:role/distrustful", "arn:aws:iam::000000000000:role/nobody"],
               Condition: {StringEquals: {"iam:PassedToService": "kinesisanalytics.amazonaws.com"}}}
            - {Effect: Deny, Action: "kinesisanalytics:TagResource", Resource: "*"}
            - {Effect: Deny, Action: "kinesisanalytics:*", Resource: "*", Condition: {StringEquals: {"aws:ResourceTag/for": "others"}}}
roles:
  - name: sql
    account: "000000000000"
    trust: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "sts:AssumeRole", Principal: {Service: kinesisanalytics.amazonaws.com}}]}
    policies:
      - name: logs
        document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "logs:PutLogEvents", Resource: "*"}]}
  - name: distrustful
    account: "000000000000"
    trust: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "000000000000"}}]}
    policies:
      - name: everything
        document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}
`

// With keys, roles are passed by those who may; what they permit and whom they
// trust is found out by the application that runs, at every use.
func TestApplicationsActInTheirRoles(t *testing.T) {
	dir := t.TempDir()
	seed, audit := filepath.Join(dir, "seed.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(seed, []byte(analyticsSeed), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startAnalytics(t, func(c *config.Config) { c.Auth, c.Seed, c.AuditLog = "keys", seed, audit })
	r.credentials = sigv4.Credentials{AccessKey: "AKIAMAKER00000000001", SecretKey: "secretsecretsecretsecretsecretsecret1111"}
	r.stream("in", 1)
	r.stream("out", 1)
	body := application("a", passing, resourceOf("KinesisStreamsInput", inARN), resourceOf("KinesisStreamsOutput", outARN))
	for text, changed := range map[string]string{
		"iam:PassRole on resource: arn:aws:iam::000000000000:role/admin":                                          strings.ReplaceAll(body, roleARN, "arn:aws:iam::000000000000:role/admin"),
		"kinesisanalytics:TagResource on resource: arn:aws:kinesisanalytics:us-east-1:000000000000:application/a": strings.Replace(body, "{", `{"Tags":[{"Key":"k"}],`, 1),
		"iam:PassRole on resource: arn:aws:iam::000000000000:role/elsewhere":                                      strings.Replace(body, roleARN, "arn:aws:iam::000000000000:role/elsewhere", 1),
	} {
		if status, reply := r.try("v1", "CreateApplication", changed); status != 400 || !strings.Contains(reply, "AccessDeniedException") || !strings.Contains(reply, text) {
			t.Errorf("%s: %d %s", text, status, reply)
		}
	}
	grant := func(policy string) {
		t.Helper()
		form := "Action=PutRolePolicy&Version=2010-05-08&RoleName=sql&PolicyName=more&PolicyDocument=" + url.QueryEscape(policy)
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.s.Address()+"/", strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		sigv4.Sign(q, []byte(form), r.credentials, testkit.Region, "iam", time.Now())
		answer, err := r.s.Client(testkit.Forms[0]).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if raw, _ := io.ReadAll(answer.Body); answer.StatusCode != 200 {
			t.Fatalf("%d %s", answer.StatusCode, raw)
		}
	}
	// A role that may do nothing, none at all, and one that trusts others: the
	// application is made and runs, and waits.
	names := map[string]string{"a": roleARN, "b": "arn:aws:iam::000000000000:role/nobody", "c": "arn:aws:iam::000000000000:role/distrustful"}
	for name, role := range names {
		own := application(name, passing, resourceOf("KinesisStreamsInput", inARN), resourceOf("KinesisStreamsOutput", outARN))
		// The log stream stays in the good role.
		inputs, logging, _ := strings.Cut(own, `"CloudWatchLoggingOptions"`)
		r.must("v1", "CreateApplication", strings.ReplaceAll(inputs, roleARN, role)+`"CloudWatchLoggingOptions"`+logging)
		r.start(name)
	}
	told := func(name, text string) {
		t.Helper()
		r.until("true", func() string { return strconv.FormatBool(strings.Contains(r.events(name), text)) })
	}
	told("a", "User: arn:aws:sts::000000000000:assumed-role/sql/analytics is not authorized to perform: kinesis:DescribeStream on resource: "+inARN)
	told("b", "role arn:aws:iam::000000000000:role/nobody does not exist")
	told("c", "role arn:aws:iam::000000000000:role/distrustful does not trust kinesisanalytics.amazonaws.com")
	r.put("in", `{"k":"a","v":1}`)
	const allow = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":%s,"Resource":"*"}]}`
	grant(fmt.Sprintf(allow, `["kinesis:DescribeStream","kinesis:GetShardIterator"]`))
	told("a", "kinesis:GetRecords on resource: "+inARN)
	grant(fmt.Sprintf(allow, `["kinesis:DescribeStream","kinesis:GetShardIterator","kinesis:GetRecords"]`))
	told("a", "kinesis:PutRecords on resource: "+outARN)
	if rows := r.rows("out"); len(rows) != 0 {
		t.Errorf("rows without permission: %q", rows)
	}
	grant(fmt.Sprintf(allow, `"kinesis:*"`))
	r.sorted("out", "{\"k\":\"a\",\"v\":1}\n")
	// And it is taken away again.
	grant(fmt.Sprintf(allow, `"kinesis:Describe*"`))
	r.put("in", `{"k":"b","v":2}`)
	time.Sleep(300 * time.Millisecond)
	r.sorted("out", "{\"k\":\"a\",\"v\":1}\n")
	if status, reply := r.try("v1", "DiscoverInputSchema", fmt.Sprintf(`{"ResourceARN":%q,"RoleARN":%q}`, inARN, roleARN)); status != 400 || !strings.Contains(reply, `"__type":"InvalidArgumentException"`) || !strings.Contains(reply, "not authorized") {
		t.Errorf("a discovery without permission: %d %s", status, reply)
	}
	lines, err := os.ReadFile(audit)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"action":"kinesisanalytics:StartApplication","resource":"arn:aws:kinesisanalytics:us-east-1:000000000000:application/a","result":"ok","principal":"arn:aws:iam::000000000000:user/maker"`; !strings.Contains(string(lines), want) {
		t.Errorf("the audit log lacks %s:\n%s", want, lines)
	}
}

// The series of an application say what really happened, and nothing else.
func TestApplicationMetrics(t *testing.T) {
	r := startAnalytics(t, nil)
	r.stream("in", 1)
	r.stream("out", 1)
	code := `CREATE STREAM \"OUT\" (\"k\" VARCHAR(16), \"v\" INTEGER); CREATE PUMP P AS INSERT INTO \"OUT\" SELECT STREAM \"k\", \"v\" FROM \"IN_001\" WHERE \"v\" <> 2;`
	r.must("v1", "CreateApplication", application("a", code, resourceOf("KinesisStreamsInput", inARN), resourceOf("KinesisStreamsOutput", outARN)))
	r.put("in", `{"k":"a","v":1}`, `{"k":"b","v":2}`, `{"k":"c","v":"x"}`, `{"k":"d","v":4}{"k":"e","v":5}`)
	r.start("a")
	const rows = "{\"k\":\"a\",\"v\":1}\n{\"k\":\"d\",\"v\":4}\n{\"k\":\"e\",\"v\":5}\n"
	r.sorted("out", rows)
	series := func() map[string]string {
		_, text := get(t, "http://"+r.s.AdminAddress()+"/metrics")
		all := map[string]string{}
		for _, m := range regexp.MustCompile(`(?m)^millrace_analytics_(\w+)\{account="(\d*)",application="(\w+)",flow="(\w*)",id="([\d.]*)",region="([\w-]*)"\} (\S+)$`).FindAllStringSubmatch(text, -1) {
			if m[2] != "000000000000" || m[3] != "a" || m[6] != testkit.Region {
				t.Errorf("a series of something else: %s", m[0])
			}
			all[strings.TrimSpace(m[1]+" "+m[4]+m[5])] = m[7]
		}
		return all
	}
	want := map[string]string{
		"records_total Input1.1": "4", "bytes_total Input1.1": strconv.Itoa(15*3 + 2 + 30), "rows_total Input1.1": "4", "refused_rows_total Input1.1": "1",
		"behind_latest_seconds Input1.1": "0",
		"records_total Output1.1":        "3", "bytes_total Output1.1": strconv.Itoa(len(rows)), "success_attempts_total Output1.1": "1", "success_total Output1.1": "1",
	}
	r.until("true", func() string {
		got := series()
		for k, v := range want {
			if got[k] != v {
				return fmt.Sprintf("%s is %q, want %q in %v", k, got[k], v, got)
			}
		}
		for k := range got {
			if _, ok := want[k]; !ok && k != "kpus" && k != "state_bytes" && !strings.HasPrefix(k, "checkpoint_") {
				return "unexpected " + k
			}
		}
		return strconv.FormatBool(got["kpus"] != "" && got["state_bytes"] != "")
	})
	// A checkpoint at the end of the run.
	r.must("v1", "StopApplication", `{"ApplicationName":"a"}`)
	r.wait("a", "READY")
	if got := series(); got["checkpoint_success_total"] == "" || got["checkpoint_success_total"] != got["checkpoint_success_attempts_total"] || got["checkpoint_bytes"] == "" || got["checkpoint_duration_seconds_count"] != got["checkpoint_success_total"] {
		t.Errorf("checkpoints: %v", got)
	}
	var described struct {
		ApplicationDetail struct{ CreateTimestamp json.Number }
	}
	r.parse(r.must("v1", "DescribeApplication", `{"ApplicationName":"a"}`), &described)
	r.must("v1", "DeleteApplication", fmt.Sprintf(`{"ApplicationName":"a","CreateTimestamp":%s}`, described.ApplicationDetail.CreateTimestamp))
	r.wait("a", "gone")
	if got := series(); len(got) != 0 {
		t.Errorf("series of an application that is gone: %v", got)
	}
}

// Every service that the API port has is named at the start.
func TestEveryEndpointIsAnnounced(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	for _, service := range []*api.Service{kinesis.Service, firehoseapi.Service, kinesisanalytics.Service, kinesisanalyticsv2.Service, glue.Service, cloudwatchlogs.Service, lambda.Service} {
		if name := strings.ToUpper(strings.ReplaceAll(service.ID, " ", "_")); !regexp.MustCompile(`\b` + name + `\b`).MatchString(s.Log()) {
			t.Errorf("%s is not named:\n%s", name, s.Log())
		}
	}
	if !strings.Contains(s.Log(), "export AWS_ENDPOINT_URL=http://"+s.Address()+"\n") {
		t.Errorf("no address for all:\n%s", s.Log())
	}
}

// The state of applications is part of backups, and damage in it is found: an
// application of a restored directory counts on.
func TestApplicationsAreBackedUpAndVerified(t *testing.T) {
	dir := t.TempDir()
	data, backup := dir+"/data", dir+"/backup"
	run := func(files string, f func(r *analyticsRig)) {
		if err := os.MkdirAll(files, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := testkit.Open(t.Context(), testkit.Options{Files: vfs.OS(files), Configure: func(c *config.Config) { c.Data = files }})
		if err != nil {
			t.Fatal(err)
		}
		f(&analyticsRig{t, s, sigv4.Credentials{AccessKey: "test", SecretKey: "test"}})
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	const counting = `CREATE STREAM \"OUT\" (\"k\" VARCHAR(16), \"n\" INTEGER); CREATE PUMP p AS INSERT INTO \"OUT\" SELECT STREAM \"k\", COUNT(*) OVER (ROWS 99 PRECEDING) FROM \"IN_001\";`
	run(data, func(r *analyticsRig) {
		r.stream("in", 1)
		r.stream("out", 1)
		r.must("v1", "CreateApplication", application("a", counting, resourceOf("KinesisStreamsInput", inARN), resourceOf("KinesisStreamsOutput", outARN)))
		r.start("a")
		r.put("in", `{"k":"a","v":1}`)
		r.put("in", `{"k":"b","v":1}`)
		r.sorted("out", "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":2}\n")
	})
	var report bytes.Buffer
	if err := server.CopyDirectory(t.Context(), data, backup, &report); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`ok +applications/[0-9a-f]+\.checkpoint  [0-9]+ bytes of state`).MatchString(report.String()) {
		t.Errorf("the report:\n%s", report.String())
	}
	run(backup, func(r *analyticsRig) {
		r.put("in", `{"k":"c","v":1}`)
		r.sorted("out", "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":2}\n{\"k\":\"c\",\"n\":3}\n")
	})
	files, err := filepath.Glob(backup + "/applications/*.checkpoint")
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 0xff
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	report.Reset()
	if err := server.VerifyDirectory(t.Context(), backup, &report); err == nil || !strings.Contains(report.String(), "DAMAGED  applications/"+filepath.Base(files[0])) {
		t.Errorf("verify: %v\n%s", err, report.String())
	}
}
