package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/client"
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
