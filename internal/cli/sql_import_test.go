package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/testkit"
)

// commandLine runs a command as a user does, and fails the test if it fails.
func commandLine(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	if code := execute(ctx, args, strings.NewReader(stdin), &out, &errs); code != 0 {
		t.Fatalf("millrace %s: %d\n%s%s", strings.Join(args, " "), code, out.String(), errs.String())
	}
	return out.String()
}

// An application that describe-application has printed starts with one command,
// with everything else that it needs in place, and its rows arrive.
func TestAnExportedApplicationProducesItsRows(t *testing.T) {
	export, err := filepath.Abs("testdata/applications/v1.json")
	if err != nil {
		t.Fatal(err)
	}
	s := testkit.Start(t, testkit.Options{})
	t.Setenv("MILLRACE_ENDPOINT", "http://"+s.Address())
	commandLine(t, "", "delivery", "create", "trades-by-sector", "--bucket", "ticker-reference-us-west-2", "--make-bucket", "--interval", "60")
	cl, err := client.New(client.Config{Endpoint: "http://" + s.Address(), Region: "us-east-1", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.Send(t.Context(), "s3", "PUT", "/ticker-reference-us-west-2/companies/TickerReference.csv", nil, []byte("WAS,Washing Machines\nTBV,Television\n")); err != nil {
		t.Fatal(err)
	}
	said := commandLine(t, "", "sql", "import", export, "--create-streams", "--start", "--from", "trim")
	if !strings.Contains(said, "started TickerAnalytics") {
		t.Errorf("import says %s", said)
	}
	commandLine(t, `{"TICKER_SYMBOL":"TBV","SECTOR":"TECHNOLOGY","CHANGE":1.5,"PRICE":10}
{"TICKER_SYMBOL":"ENE","SECTOR":"ENERGY","CHANGE":0,"PRICE":20}
{"TICKER_SYMBOL":"NEW","SECTOR":"TECHNOLOGY","CHANGE":0,"PRICE":30.25}
`, "put", "kinesis-analytics-demo-stream", "--key", "one")
	got := commandLine(t, "", "sql", "tail", "TickerAnalytics", "--output", "DESTINATION_SQL_STREAM", "--from", "trim", "-n", "2")
	want := `{"ticker_symbol":"TBV","Company":"Television","SECTOR":"TECHNOLOGY","CHANGE":1.5,"PRICE":10}
{"ticker_symbol":"NEW","Company":null,"SECTOR":"TECHNOLOGY","CHANGE":0,"PRICE":30.25}
`
	if got != want {
		t.Errorf("the rows are\n%s\nand not\n%s", got, want)
	}
}

// functionServer answers calls of functions that run elsewhere, and keeps what they
// were called with.
type functionServer struct {
	*httptest.Server
	mu    sync.Mutex
	calls map[string][]string // data of records, by function
}

// startFunctions serves the functions whose names are given: each answers a record
// with what answer makes of its data.
func startFunctions(t *testing.T, functions map[string]func(data []byte) (result string, changed []byte)) (directory string, s *functionServer) {
	s = &functionServer{calls: map[string][]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		var event struct {
			Records []struct {
				ID   string `json:"recordId"`
				Data []byte `json:"data"`
			} `json:"records"`
		}
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			t.Error(err)
		}
		var out struct {
			Records []map[string]any `json:"records"`
		}
		s.mu.Lock()
		for _, e := range event.Records {
			s.calls[name] = append(s.calls[name], string(e.Data))
			result, data := functions[name](e.Data)
			out.Records = append(out.Records, map[string]any{"recordId": e.ID, "result": result, "data": data})
		}
		s.mu.Unlock()
		if err := json.NewEncoder(w).Encode(out); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	directory = t.TempDir()
	text := "functions:\n"
	for name := range functions {
		text += "  - match: " + name + "\n    invoker: http\n    url: " + s.URL + "/" + name + "\n"
	}
	if err := os.WriteFile(filepath.Join(directory, "functions.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return directory, s
}

// Exports as the service printed them, by both versions of the API and through the
// clients that people used, start and produce their rows.
func TestExportsOfAllShapesProduceTheirRows(t *testing.T) {
	directory, called := startFunctions(t, map[string]func([]byte) (string, []byte){
		// What the beacon sends is JSON in base64, and sometimes nothing.
		"clickstream-decode": func(data []byte) (string, []byte) {
			decoded, err := base64.StdEncoding.DecodeString(string(data))
			if err != nil {
				return "Dropped", nil
			}
			return "Ok", decoded
		},
		"clickstream-alarm": func([]byte) (string, []byte) { return "Ok", nil },
	})
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.Functions = directory }})
	t.Setenv("MILLRACE_ENDPOINT", "http://"+s.Address())
	cl, err := client.New(client.Config{Endpoint: "http://" + s.Address(), Region: "us-east-1", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	export := func(name string) string { return filepath.Join("testdata", "applications", name) }
	rows := func(application, output string, n int) string {
		t.Helper()
		return commandLine(t, "", "sql", "tail", application, "--output", output, "--from", "trim", "-n", strconv.Itoa(n))
	}
	same := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: the rows are\n%s\nand not\n%s", what, got, want)
		}
	}

	// Version 1, CLI 1: a function before the input, and one as an output.
	commandLine(t, "", "sql", "import", export("v1-clickstream.json"), "--create-streams", "--start")
	var clicks strings.Builder
	for _, click := range []string{
		`{"v":"ann","request":{"path":"/"},"response":{"status":200,"ms":12},"agent":"Mozilla"}`,
		`{"v":"crawler","request":{"path":"/"},"response":{"status":200,"ms":3},"agent":"somebot/2"}`,
		`{"v":"ann","request":{"path":"/buy"},"response":{"status":503,"ms":3000},"agent":"Mozilla"}`,
		`{"v":"bob","request":{"path":"/"},"response":{"status":200,"ms":9},"agent":"Mozilla"}`,
	} {
		clicks.WriteString(base64.StdEncoding.EncodeToString([]byte(click)) + "\n%\n")
	}
	commandLine(t, clicks.String(), "put", "clickstream", "--key", "one")
	same("clickstream", rows("clickstream", "VISITS", 3), `{"visitor":"ann","path":"/","nth":1}
{"visitor":"ann","path":"/buy","nth":2}
{"visitor":"bob","path":"/","nth":1}
`)
	eventually(t, func() bool {
		called.mu.Lock()
		defer called.mu.Unlock()
		alarms := called.calls["clickstream-alarm"]
		return len(alarms) == 1 && strings.HasPrefix(alarms[0], `{"path":"/buy","status":503,"at":"`)
	})

	// Version 1: a delivery stream of CSV, a reference table, a delivery stream.
	commandLine(t, "", "delivery", "create", "calls", "--bucket", "tariffs", "--make-bucket", "--interval", "60", "--prefix", "raw/")
	commandLine(t, "", "delivery", "create", "rated", "--bucket", "tariffs", "--interval", "60", "--prefix", "rated/")
	if _, err := cl.Send(t.Context(), "s3", "PUT", "/tariffs/2017/prefixes.csv", nil, []byte("49,Germany,3\n39,Italy,12.5\n")); err != nil {
		t.Fatal(err)
	}
	commandLine(t, "", "sql", "import", export("v1-calls.json"), "--start")
	commandLine(t, "", "delivery", "put", "calls", "0301|49|61\r\n0302|39|10\r\n0303|999|5\r\n0304|49|0\r\n")
	eventually(t, func() bool {
		return strings.Contains(commandLine(t, "", "sql", "status", "call-rating"), "rows       4 in, 3 out")
	})
	commandLine(t, "", "delivery", "flush", "rated")
	list, err := cl.Send(t.Context(), "s3", "GET", "/tariffs?list-type=2&prefix=rated/", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile("<Key>(.*)</Key>").FindStringSubmatch(string(list.Body))
	if key == nil {
		t.Fatalf("no object: %s", list.Body)
	}
	object, err := cl.Send(t.Context(), "s3", "GET", "/tariffs/"+key[1], nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	same("call-rating", string(object.Body), "0301,Germany,61,6.00\n0302,Italy,10,12.50\n0303,,5,\n")

	// Version 2, CLI 2: arrays become rows, and what fails is an output of its own.
	commandLine(t, "", "sql", "import", export("v2-meters.json"), "--create-streams", "--start")
	commandLine(t, `{"gateway":"g1","readings":[{"meter":"m1","kwh":100,"at":1767225600000},{"meter":"m2","kwh":7.5,"at":1767225600000}]}
{"gateway":"g1","readings":[{"meter":"m1","kwh":101.5,"at":1767229200000},{"meter":"m2","kwh":"none","at":1767229200000}]}
`, "put", "meter-batches", "--key", "one")
	same("meters", rows("meters", "USED", 3), `{"meter":"m1","kwh":null,"since":null}
{"meter":"m2","kwh":null,"since":null}
{"meter":"m1","kwh":1.5,"since":"2026-01-01 00:00:00.000"}
`)
	if failed := rows("meters", "error_stream", 1); !strings.Contains(failed, `"ERROR_NAME":"COERCION_ERROR"`) {
		t.Errorf("meters: the row that failed is %s", failed)
	}

	// Version 2 from an SDK: without the outer member, several in one file, one of
	// them with nothing to run; from standard input.
	several, err := os.ReadFile(export("v2-several.json"))
	if err != nil {
		t.Fatal(err)
	}
	said := commandLine(t, string(several), "sql", "import", "-", "--create-streams")
	for _, want := range []string{"created orders (version 2 of the API): reads stream orders, writes stream paid-orders\n", "created begun (version 2 of the API): reads and writes nothing\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("import says %s", said)
		}
	}
	commandLine(t, "", "sql", "start", "orders", "--from", "trim")
	commandLine(t, `{"id":1,"kind":"order","amount":0,"time":"2026-01-01T10:00:00Z"}
{"id":2,"kind":"order","amount":0,"time":"2026-01-01T10:00:01Z"}
{"id":1,"kind":"payment","amount":19.9,"time":"2026-01-01T10:02:00Z"}
`, "put", "orders", "--key", "one")
	same("orders", rows("orders", "DESTINATION_SQL_STREAM", 1), `{"order_id":1,"ordered":"2026-01-01 10:00:00.000","amount":19.90}
`)
}

// eventually polls until f is true.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !f() {
		if err := client.Sleep(ctx, 20*time.Millisecond); err != nil {
			t.Fatal("it never came to be")
		}
	}
}

// What an application lacks is said when it is imported, with what to do, and by
// the application itself for as long as it is so.
func TestWhatAnImportedApplicationLacks(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	t.Setenv("MILLRACE_ENDPOINT", "http://"+s.Address())
	var out, said bytes.Buffer
	if code := execute(t.Context(), []string{"sql", "import", "testdata/applications/v1.json", "--start"}, strings.NewReader(""), &out, &said); code != 0 {
		t.Fatalf("%d: %s", code, said.String())
	}
	want := `TickerAnalytics: there is no stream kinesis-analytics-demo-stream; --create-streams makes it
TickerAnalytics: there is no stream technology-stocks; --create-streams makes it
TickerAnalytics: there is no delivery stream trades-by-sector, and the application waits for it; ` + "`millrace delivery create trades-by-sector --bucket BUCKET --make-bucket` makes one" + `
TickerAnalytics: there is no function ticker-errors, and the application waits for it; it is a folder ticker-errors with lambda_function.py, index.mjs or bootstrap among the server's functions
TickerAnalytics: there is no bucket ticker-reference-us-west-2, and the application reads nothing before it has the table CompanyName; ` + "`aws s3 mb s3://ticker-reference-us-west-2` makes it, `aws s3 cp FILE s3://ticker-reference-us-west-2/companies/TickerReference.csv` brings the object\n"
	if said.String() != want {
		t.Errorf("import says\n%s\nand not\n%s", said.String(), want)
	}
	eventually(t, func() bool {
		return strings.Contains(commandLine(t, "", "sql", "status", "TickerAnalytics"), "held up    object companies/TickerReference.csv in bucket ticker-reference-us-west-2: NoSuchBucket")
	})
	if list := commandLine(t, "", "sql", "list"); !strings.HasPrefix(list, "NAME             STATUS   VERSION  HELD UP BY\nTickerAnalytics  RUNNING  3        object companies/") {
		t.Errorf("the list is\n%s", list)
	}
	if list := commandLine(t, "", "sql", "list", "--json"); !strings.Contains(list, `"Problem": "object companies/`) {
		t.Errorf("the list is\n%s", list)
	}
}

// What import makes of a description is what the description said, in both
// versions, but for account, region and what a server adds.
func TestImportedApplicationsAreDescribedAsExported(t *testing.T) {
	files, err := filepath.Glob("testdata/applications/*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	s := testkit.Start(t, testkit.Options{})
	t.Setenv("MILLRACE_ENDPOINT", "http://"+s.Address())
	cl, err := client.New(client.Config{Endpoint: "http://" + s.Address(), Region: "eu-west-1", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, file := range files {
		commandLine(t, "", "sql", "import", file, "--region", "eu-west-1")
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := &importer{cl: cl, owner: "000000000000"}
		list, err := parseApplications(raw, func(d map[string]any) { i.rewrite(d, nil) })
		if err != nil {
			t.Fatal(err)
		}
		have, err := describeApplication(t.Context(), cl, list[0].name())
		if err != nil {
			t.Fatal(err)
		}
		if lacking, other := differences(list[0], have); lacking != nil || other != nil {
			t.Errorf("%s: lacks %v, differs in %v", file, lacking, other)
		}
	}
}

// An import that was interrupted behind the application itself is completed.
func TestAnInterruptedImportIsCompleted(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	t.Setenv("MILLRACE_ENDPOINT", "http://"+s.Address())
	cl, err := client.New(client.Config{Endpoint: "http://" + s.Address(), Region: "us-east-1", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	name := "TickerAnalytics"
	if err := cl.Call(t.Context(), kinesisanalytics.OpCreateApplication, &kinesisanalytics.CreateApplicationInput{ApplicationName: &name}, nil); err != nil {
		t.Fatal(err)
	}
	said := commandLine(t, "", "sql", "import", "testdata/applications/v1.json")
	if want := "added to TickerAnalytics what it lacks: code, inputs, outputs, reference data, logging\n"; said != want {
		t.Errorf("import says %q, not %q", said, want)
	}
	if said := commandLine(t, "", "sql", "import", "testdata/applications/v1.json"); said != "TickerAnalytics is there already, and the same\n" {
		t.Errorf("import again says %q", said)
	}
}

// Account, region and roles become those of the caller; code and buckets stay.
func TestResourcesBecomeTheCallers(t *testing.T) {
	cl, err := client.New(client.Config{Endpoint: "http://localhost:1", Region: "eu-north-1"})
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]string{"analytics": "reader", "*": "arn:aws:iam::9:role/any"}
	for _, test := range []struct {
		in   string
		keep bool
		want string
	}{
		{"arn:aws:kinesis:us-west-2:123456789012:stream/s", false, "arn:aws:kinesis:eu-north-1:1:stream/s"},
		{"arn:aws:kinesis:us-west-2:123456789012:stream/s", true, "arn:aws:kinesis:us-west-2:123456789012:stream/s"},
		{"arn:aws:lambda:us-west-2:123456789012:function:f:$LATEST", false, "arn:aws:lambda:eu-north-1:1:function:f:$LATEST"},
		{"arn:aws:s3:::bucket", false, "arn:aws:s3:::bucket"},
		{"arn:aws:iam::123456789012:role/service-role/analytics", false, "arn:aws:iam::1:role/reader"},
		{"arn:aws:iam::123456789012:role/service-role/analytics", true, "arn:aws:iam::123456789012:role/reader"},
		{"arn:aws:iam::123456789012:role/other", false, "arn:aws:iam::9:role/any"},
	} {
		i := &importer{cl: cl, owner: "1", keepARNs: test.keep}
		d := map[string]any{"ApplicationCode": test.in, "List": []any{map[string]any{"ResourceARN": test.in}}}
		i.rewrite(d, roles)
		got, err := json.Marshal(d["List"])
		if err != nil {
			t.Fatal(err)
		}
		if want := `[{"ResourceARN":"` + test.want + `"}]`; string(got) != want || d["ApplicationCode"] != test.in {
			t.Errorf("%s becomes %s in %s, and code %s", test.in, got, want, d["ApplicationCode"])
		}
	}
}

// Descriptions come from outside: whatever they hold, they are read or refused.
func FuzzParseApplications(f *testing.F) {
	files, err := filepath.Glob("testdata/applications/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`[{"ApplicationName":"a","InputDescriptions":[{}],"OutputDescriptions":[{"DestinationSchema":{}}]}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := parseApplications(raw, nil)
		if err != nil {
			return
		}
		for _, a := range all {
			if lacking, other := differences(a, a); lacking != nil || other != nil {
				t.Errorf("it differs from itself: %v, %v", lacking, other)
			}
			if _, err := a.definition(); err == nil {
				summary(a)
			}
		}
	})
}
