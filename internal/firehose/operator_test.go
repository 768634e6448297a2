package firehose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/httpendpoint"
	"github.com/millrace/millrace/internal/firehose/dest/redshift"
	"github.com/millrace/millrace/internal/firehose/dest/splunk"
	datastream "github.com/millrace/millrace/internal/firehose/dest/stream"
	"github.com/millrace/millrace/internal/firehose/record"
)

func TestOperatorFiles(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"unknown section", "destination: {}\n", `unknown field "destination"`},
		{"no type", "destinations:\n  a: {bucket: b}\n", `destination a: type "" does not exist; there are`},
		{"unknown type", "destinations:\n  a: {type: pigeon}\n", `destination a: type "pigeon" does not exist; there are`},
		{"unknown key", "destinations:\n  a: {type: s3, buckets: b}\n", `destination a: `},
		{"unknown key below", "destinations:\n  a: {type: file, directory: /d, keep: {feathers: 3}}\n", `destination a: `},
		{"wrong kind of value", "destinations:\n  a: {type: file, directory: [1, 2]}\n", `destination a: `},
		{"name with a slash", "destinations:\n  a/b: {type: s3, bucket: b}\n", `destination "a/b": a name has no spaces and none of / ? # % @`},
		{"unknown key of an endpoint", "endpoints:\n  https://x.example.com: {colour: red}\n", `endpoint https://x.example.com: `},
		{"key of another destination", "endpoints:\n  jdbc:redshift://c.redshift.amazonaws.com:5439/db: {username: u}\n", `endpoint jdbc:redshift`},
		{"topics without servers", "topics:\n  arn:aws:kafka:c: []\n", "topics: arn:aws:kafka:c: the ARN of a cluster and at least one server are needed"},
		{"not YAML", "destinations: [", ""},
		{"everything", "destinations:\n" +
			"  files: {type: file, directory: /d, delimiter: \"\\n\", keep: {files: 3, age: 1h}}\n" +
			"  lines: {type: s3, bucket: b, encode: {format: ndjson}}\n" +
			"  collector: {type: splunk, endpoint: \"https://localhost:8088\", endpoint_type: Raw, token: t, no_acknowledgements: true}\n" +
			"  topic: {type: kafka, brokers: [\"localhost:9092\"], topic: t}\n" +
			"  database: {type: postgresql, dsn: \"postgres://localhost/db\", table: t}\n" +
			"  other: {type: stream, stream: s}\n" +
			"  plain: {type: http, url: \"http://localhost:8080/in\", timeout: 5s}\n" +
			"  search: {type: opensearch, endpoint: \"http://localhost:9200\", index: i}\n" +
			"endpoints:\n" +
			"  https://logs.example.com/in: {timeout: 7s, headers: {x: y}}\n" +
			"  jdbc:redshift://c.redshift.amazonaws.com:5439/db: {dsn: \"postgres://localhost/db\"}\n" +
			"  s3://bucket/warehouse: {type: rest, uri: \"http://localhost:8181\"}\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseOperator([]byte(test.text))
			switch {
			case test.name == "not YAML":
				if err == nil {
					t.Error("accepted")
				}
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// What the operator says of an endpoint goes over what the API says, and only
// that.
func TestOperatorsChangesToEndpoints(t *testing.T) {
	operator, err := ParseOperator([]byte("endpoints:\n  https://logs.example.com/in: {timeout: 7s, url: \"http://localhost:1/\"}\n  https://splunk.example.com:8088: {gzip: true}\n" +
		"  jdbc:redshift://c.example.redshift.amazonaws.com:5439/db: {dsn: \"postgres://localhost/x\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Parts{Operator: operator}
	h, err := p.httpConfig(minimal(kindHTTP).effective().HTTP)
	if want := (httpendpoint.Config{URL: "http://localhost:1/", Name: "logs", AccessKey: "key", Timeout: 7 * time.Second}); err != nil || fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("%v %+v", err, h)
	}
	s, err := p.splunkConfig(minimal(kindSplunk).effective().Splunk)
	if want := (splunk.Config{Endpoint: "https://splunk.example.com:8088", Type: "Raw", Token: "11111111-2222-3333-4444-555555555555", AckTimeout: 3 * time.Minute, GZIP: true}); err != nil || s != want {
		t.Errorf("%v %+v", err, s)
	}
	e := redshift.Endpoint{Connections: 9}
	if err := operator.adjust(&e, "jdbc:redshift://c.example.redshift.amazonaws.com:5439/db"); err != nil || e.DSN != "postgres://localhost/x" || e.Connections != 9 {
		t.Errorf("%v %+v", err, e)
	}
	if h, err = p.httpConfig(&firehose.HttpEndpointDestinationConfiguration{EndpointConfiguration: &firehose.HttpEndpointConfiguration{Url: api.Ptr("https://elsewhere.example.com/")}}); err != nil || h.Timeout != 0 {
		t.Errorf("an endpoint that nobody mentioned: %v %+v", err, h)
	}
}

// Every kind of destination is really built, with its own way to retry and its
// own error output.
func TestEveryDestinationIsBuilt(t *testing.T) {
	r := newRig(t, nil)
	const forEver = -1
	for _, test := range []struct {
		kind      kind
		main      string
		of        delivery.Kind
		retry     time.Duration
		fromFirst bool
		size      int64
		interval  time.Duration
	}{
		{kindS3, "*s3.Destination", delivery.KindS3, forEver, false, 5 << 20, 300 * time.Second},
		{kindRedshift, "*redshift.Destination", delivery.KindRedshift, time.Hour, true, 5 << 20, 300 * time.Second},
		{kindElasticsearch, "*opensearch.Destination", delivery.KindElasticsearch, 300 * time.Second, true, 5 << 20, 300 * time.Second},
		{kindOpenSearch, "*opensearch.Destination", delivery.KindOpenSearch, 300 * time.Second, true, 5 << 20, 300 * time.Second},
		{kindServerless, "*opensearch.Destination", delivery.KindOpenSearchServerless, 300 * time.Second, true, 5 << 20, 300 * time.Second},
		{kindSplunk, "*splunk.Destination", delivery.KindSplunk, time.Hour, false, 5 << 20, 60 * time.Second},
		{kindHTTP, "*httpendpoint.Destination", delivery.KindHTTPEndpoint, 300 * time.Second, false, 5 << 20, 300 * time.Second},
		{kindSnowflake, "*snowflake.Destination", delivery.KindSnowflake, 60 * time.Second, false, 1 << 20, 0},
		{kindIceberg, "*iceberg.Destination", delivery.KindIceberg, 300 * time.Second, false, 5 << 20, 300 * time.Second},
	} {
		t.Run(test.kind.String(), func(t *testing.T) {
			name := fmt.Sprint("kind-", int(test.kind))
			st := r.mustCreate(input(name, minimal(test.kind)))
			d := r.engine.definition(st.record.ID)
			if got := fmt.Sprintf("%T", d.Main); got != test.main || d.Kind != test.of {
				t.Errorf("%s of kind %s", got, d.Kind)
			}
			if d.Retry.Duration != test.retry || d.Retry.FromFirstAttempt != test.fromFirst {
				t.Errorf("retries %+v", d.Retry)
			}
			if d.Hints.Bytes != test.size || d.Hints.Interval != test.interval {
				t.Errorf("hints %+v", d.Hints)
			}
			if d.Errors == nil || d.Backup != nil || d.Chain != nil || d.Partitioning != nil || d.Converts || d.Log != nil {
				t.Errorf("%+v", d)
			}
			if d.ID != st.record.ID || d.Name != name || d.Account != testAccount || d.Region != testRegion || d.Version != 1 {
				t.Errorf("%+v", d)
			}
			full := minimal(test.kind)
			fillIn(full)
			st = r.mustCreate(input(name+"-full", full))
			d = r.engine.definition(st.record.ID)
			if d.Chain == nil || d.Log == nil || d.Log.Group != "/main" || d.BackupLog == nil && test.kind != kindIceberg || d.Errors == nil {
				t.Errorf("%+v", d)
			}
			if test.kind != kindIceberg && (d.Backup == nil || d.BackupHints.Bytes != 10<<20 || d.BackupHints.Interval != time.Minute) {
				t.Errorf("backup %v %+v", d.Backup, d.BackupHints)
			}
			if partitions := d.Partitioning != nil; partitions != (test.kind == kindS3) || d.Converts != partitions {
				t.Errorf("partitioning %v, converts %v", partitions, d.Converts)
			}
		})
	}
}

func TestNamedDestinationsAreBuilt(t *testing.T) {
	operator, err := ParseOperator([]byte("destinations:\n" +
		"  files: {type: file, directory: " + t.TempDir() + ", encode: {format: ndjson}}\n" +
		"  bucket: {type: s3, bucket: archive, compression: ZSTD, delimiter: \"\\\\n\", prefix: \"x/!{timestamp:yyyy}/\", time_zone: Europe/Berlin}\n" +
		"  topic: {type: kafka, brokers: [\"localhost:9092\"], topic: t}\n" +
		"  database: {type: postgresql, dsn: \"postgres://localhost/db\", table: t}\n" +
		"  other: {type: stream, stream: s}\n" +
		"  plain: {type: http, url: \"http://localhost:8080/in\"}\n" +
		"  collector: {type: splunk, endpoint: \"http://localhost:8088\", endpoint_type: Raw, token: t}\n" +
		"  search: {type: opensearch, endpoint: \"http://localhost:9200\", index: i}\n" +
		"  nowhere: {type: s3}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options) {
		o.Parts.Operator = operator
		o.Parts.OpenStream = func(string) (datastream.Writer, error) { return nil, nil }
	})
	for name, want := range map[string]string{
		"files": "*file.Destination Other", "bucket": "*s3.Destination S3", "topic": "*kafka.Destination Other", "database": "*postgres.Destination Other",
		"other": "*stream.Destination Other", "plain": "*httpendpoint.Destination HttpEndpoint", "collector": "*splunk.Destination Splunk", "search": "*opensearch.Destination AmazonOpenSearchService",
	} {
		t.Run(name, func(t *testing.T) {
			d := minimal(kindHTTP)
			d.HTTP.EndpointConfiguration.Url = api.Ptr("https://" + NamedHost + "/" + name)
			st := r.mustCreate(input("to-"+name, d))
			definition := r.engine.definition(st.record.ID)
			if got := fmt.Sprintf("%T %s", definition.Main, definition.Kind); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			// Failures have a place in any case: that of the endpoint they stand for.
			if definition.ErrorType != "http-endpoint-failed" || definition.Converts != (name == "files") {
				t.Errorf("error type %q, converts %v", definition.ErrorType, definition.Converts)
			}
		})
	}
	d := minimal(kindHTTP)
	d.HTTP.EndpointConfiguration.Url = api.Ptr("https://" + NamedHost + "/nowhere")
	wantError(t, r.create(input("to-nowhere", d)), invalid, "a destination of type s3 needs a bucket")
}

// A part that the server does not have refuses what needs it, when it is asked
// for and not when records are lost.
func TestMissingPartsAreTold(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Parts.Invoker, o.Parts.Schemas, o.Parts.OpenStream = nil, nil, nil })
	d := minimal(kindS3)
	d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction))
	wantError(t, r.create(input("f", d)), invalid, "this server runs no functions")
	d = minimal(kindS3)
	d.ExtendedS3.DataFormatConversionConfiguration = conversion()
	wantError(t, r.create(input("c", d)), invalid, "this server has no catalog of tables")
	d = minimal(kindIceberg)
	d.Iceberg.CatalogConfiguration = &firehose.CatalogConfiguration{CatalogARN: api.Ptr("arn:aws:glue:eu-central-1:123456789012:catalog")}
	wantError(t, r.create(input("i", d)), invalid, "The catalog arn:aws:glue:eu-central-1:123456789012:catalog is not known: the operator has not said where it is, and there is no WarehouseLocation")
}

// An error output of a table lies in the bucket of all, below a prefix of its own.
func TestTablesHaveErrorOutputs(t *testing.T) {
	r := newRig(t, nil)
	d := minimal(kindIceberg)
	d.Iceberg.DestinationTableConfigurationList[0].S3ErrorOutputPrefix = api.Ptr("of-events/")
	d.Iceberg.S3Configuration.ErrorOutputPrefix = api.Ptr("of-all/!{firehose:error-output-type}/")
	st := r.mustCreate(input("s", d))
	a := &assembly{ctx: t.Context(), parts: &r.options.Parts, id: st.record.ID, d: d.effective(), out: &delivery.Definition{}}
	a.shared = a.d.shared()
	main, err := a.iceberg()
	if err != nil {
		t.Fatal(err)
	}
	defer main.Close()
	for database, want := range map[string]string{"": "db.events", "db": "db.events", "other": ""} {
		rec := &record.Record{}
		if database != "" {
			rec.Table = &record.Table{Database: database, Name: "events"}
		}
		if got := main.(dest.Placer).ErrorOutput(rec); got != want {
			t.Errorf("%q: %q", database, got)
		}
	}
	if l, err := r.Locate(r.call(), api.Ptr("s")); err != nil || l.Errors.Prefix != "of-" {
		t.Errorf("%+v, %v", l, err)
	}
	if len(a.out.ErrorsOf) != 1 || a.out.ErrorsOf["db.events"] == nil {
		t.Errorf("%v", a.out.ErrorsOf)
	}
}

// What is being retried goes where the newest update says.
func TestEndpointsFollowUpdates(t *testing.T) {
	r := newRig(t, nil)
	st := r.mustCreate(input("s", minimal(kindHTTP)))
	d, err := r.revealed(st)
	if err != nil {
		t.Fatal(err)
	}
	a := &assembly{parts: &r.options.Parts, id: st.record.ID, d: d.effective()}
	a.current = func() *destination {
		d, err := r.revealed(r.get("s"))
		if err != nil {
			t.Fatal(err)
		}
		return d.effective()
	}
	current := a.currentHTTP(httpendpoint.Config{})
	if c := current(); c.URL != "https://logs.example.com/in" || c.AccessKey != "key" {
		t.Errorf("%+v", c)
	}
	u := &firehose.HttpEndpointDestinationUpdate{EndpointConfiguration: &firehose.HttpEndpointConfiguration{Url: api.Ptr("https://elsewhere.example.com/"), AccessKey: api.Ptr("new")}}
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), HttpEndpointDestinationUpdate: u}); err != nil {
		t.Fatal(err)
	}
	if c := current(); c.URL != "https://elsewhere.example.com/" || c.AccessKey != "new" {
		t.Errorf("%+v", c)
	}
}

// FuzzParseOperator looks for files that end the server instead of being refused.
func FuzzParseOperator(f *testing.F) {
	f.Add([]byte("destinations:\n  a: {type: file, directory: /d}\nendpoints:\n  https://x: {gzip: true}\ntopics:\n  arn:x: [a]\n"))
	f.Add([]byte("destinations: {a: {type: splunk, endpoint_type: [1]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := ParseOperator(text)
		if err == nil && o == nil {
			t.Error("neither a file nor an error")
		}
	})
}

func TestALineBreakAsADelimiterSurvives(t *testing.T) {
	for _, delimiter := range []string{"\n", "\r\n", "\\n", "\n\n", " "} {
		text, err := settingsYAML(map[string]any{"directory": "d", "delimiter": delimiter})
		if err != nil {
			t.Fatal(err)
		}
		var c fileConfig
		if err := overlay(&c, text); err != nil || c.Delimiter != delimiter {
			t.Errorf("%q became %q (%v)", delimiter, c.Delimiter, err)
		}
	}
}
