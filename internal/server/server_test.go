package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func create(t *testing.T, c *testkit.Client, name string, shards int32) {
	t.Helper()
	if err := c.Call(t.Context(), kinesis.OpCreateStream, &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}, nil); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, c *testkit.Client, stream string, data ...string) {
	t.Helper()
	in := &kinesis.PutRecordsInput{StreamName: &stream}
	for _, d := range data {
		in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: []byte(d), PartitionKey: api.Ptr("k")})
	}
	out := new(kinesis.PutRecordsOutput)
	if err := c.Call(t.Context(), kinesis.OpPutRecords, in, out); err != nil {
		t.Fatal(err)
	}
	if n := api.Val(out.FailedRecordCount); n != 0 {
		t.Fatalf("%d records failed", n)
	}
}

func read(t *testing.T, c *testkit.Client, stream string) []string {
	t.Helper()
	iterator := new(kinesis.GetShardIteratorOutput)
	if err := c.Call(t.Context(), kinesis.OpGetShardIterator, &kinesis.GetShardIteratorInput{
		StreamName: &stream, ShardId: api.Ptr("shardId-000000000000"), ShardIteratorType: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon),
	}, iterator); err != nil {
		t.Fatal(err)
	}
	out := new(kinesis.GetRecordsOutput)
	if err := c.Call(t.Context(), kinesis.OpGetRecords, &kinesis.GetRecordsInput{ShardIterator: iterator.ShardIterator}, out); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range out.Records {
		list = append(list, string(r.Data))
	}
	return list
}

func TestRecordsTravelInEveryProtocol(t *testing.T) {
	testkit.EachProtocol(t, func(t *testing.T, c *testkit.Client) {
		create(t, c, "s", 1)
		put(t, c, "s", "a", "b", "")
		if got := read(t, c, "s"); fmt.Sprint(got) != "[a b ]" {
			t.Errorf("read %q", got)
		}
		err := c.Call(t.Context(), kinesis.OpDescribeStream, &kinesis.DescribeStreamInput{StreamName: api.Ptr("none")}, nil)
		if testkit.Code(err) != "ResourceNotFoundException" {
			t.Errorf("unknown stream: %v", err)
		}
	})
}

func TestStateSurvivesAStopAndACrash(t *testing.T) {
	files := vfs.NewMemory()
	s := testkit.Start(t, testkit.Options{Files: files})
	c := s.Client(testkit.Forms[0])
	create(t, c, "s", 1)
	put(t, c, "s", "a", "b")
	// What was acknowledged is durable: a copy that lost everything else has it.
	for _, crash := range []bool{true, false} {
		clone := files
		if crash {
			clone = files.CrashClone(1)
		} else if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		again := testkit.Start(t, testkit.Options{Files: clone})
		if got := read(t, again.Client(testkit.Forms[0]), "s"); fmt.Sprint(got) != "[a b]" {
			t.Errorf("crash %v: read %q", crash, got)
		}
	}
}

func TestADirectoryInUseIsRefusedInOneLine(t *testing.T) {
	files := vfs.NewMemory()
	testkit.Start(t, testkit.Options{Files: files})
	_, err := testkit.Open(t.Context(), testkit.Options{Files: files})
	if err == nil || !strings.Contains(err.Error(), "is in use by another process") || strings.Contains(err.Error(), "\n") {
		t.Errorf("second server: %v", err)
	}
}

func TestATakenPortIsRefusedInOneLine(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	_, err := testkit.Open(t.Context(), testkit.Options{Configure: func(c *config.Config) { c.Listen = s.Address() }})
	if err == nil || !strings.Contains(err.Error(), "is taken by another process") || strings.Contains(err.Error(), "\n") {
		t.Errorf("second server: %v", err)
	}
}

func TestKeysArePrintedOnceAndWork(t *testing.T) {
	files := vfs.NewMemory()
	keys := func(c *config.Config) { c.Auth = "keys" }
	s := testkit.Start(t, testkit.Options{Files: files, Configure: keys})
	var id, secret string
	for line := range strings.Lines(s.Log()) {
		fmt.Sscanf(line, "export AWS_ACCESS_KEY_ID=%s", &id)
		fmt.Sscanf(line, "export AWS_SECRET_ACCESS_KEY=%s", &secret)
	}
	c := s.Client(testkit.Forms[0])
	if err := c.Call(t.Context(), kinesis.OpListStreams, &kinesis.ListStreamsInput{}, nil); testkit.Code(err) != "UnrecognizedClientException" {
		t.Errorf("unknown key: %v", err)
	}
	c.Credentials = sigv4.Credentials{AccessKey: id, SecretKey: secret}
	if err := c.Call(t.Context(), kinesis.OpListStreams, &kinesis.ListStreamsInput{}, nil); err != nil {
		t.Errorf("root key: %v", err)
	}
	c.Credentials.SecretKey += "x"
	if err := c.Call(t.Context(), kinesis.OpListStreams, &kinesis.ListStreamsInput{}, nil); testkit.Code(err) != "InvalidSignatureException" {
		t.Errorf("wrong secret: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again := testkit.Start(t, testkit.Options{Files: files, Configure: keys})
	if strings.Contains(again.Log(), secret) {
		t.Error("the root secret is printed again")
	}
}

func TestSeedCreatesWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.yaml")
	if err := os.WriteFile(path, []byte(`
streams:
  - {name: orders, shards: 3, retention-hours: 48, tags: {team: shop}}
  - {name: clicks, on-demand: true}
users:
  - name: u
    keys: [{id: AKIAEXAMPLEEXAMPLE00, secret: sesame}]
    policies: [{name: all, document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "kinesis:*", Resource: "*"}]}}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	files := vfs.NewMemory()
	o := testkit.Options{Files: files, Configure: func(c *config.Config) {
		c.Auth, c.Seed, c.InitializeStreams = "keys", path, "early:2"
	}}
	for range 2 { // the second start finds everything there
		s := testkit.Start(t, o)
		c := s.Client(testkit.Forms[0])
		c.Credentials = sigv4.Credentials{AccessKey: "AKIAEXAMPLEEXAMPLE00", SecretKey: "sesame"}
		list := new(kinesis.ListStreamsOutput)
		if err := c.Call(t.Context(), kinesis.OpListStreams, &kinesis.ListStreamsInput{}, list); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(list.StreamNames) != "[clicks early orders]" {
			t.Errorf("streams %v", list.StreamNames)
		}
		about := new(kinesis.DescribeStreamSummaryOutput)
		if err := c.Call(t.Context(), kinesis.OpDescribeStreamSummary, &kinesis.DescribeStreamSummaryInput{StreamName: api.Ptr("orders")}, about); err != nil {
			t.Fatal(err)
		}
		if d := about.StreamDescriptionSummary; api.Val(d.OpenShardCount) != 3 || api.Val(d.RetentionPeriodHours) != 48 {
			t.Errorf("orders is %d shards, %d hours", api.Val(d.OpenShardCount), api.Val(d.RetentionPeriodHours))
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

func TestAdminPort(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.MetricsStreams = 1 }})
	c := s.Client(testkit.Forms[0])
	create(t, c, "one", 1)
	create(t, c, "two", 1)
	put(t, c, "one", "a")
	put(t, c, "two", "a", "b")
	admin := "http://" + s.AdminAddress()
	for path, want := range map[string]string{"/health/live": "live\n", "/health/ready": "ready\n"} {
		if status, body := get(t, admin+path); status != 200 || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	_, metrics := get(t, admin+"/metrics")
	for _, want := range []string{
		`millrace_requests_total{code="",encoding="json",http="1",operation="PutRecords"} 2`,
		`millrace_request_seconds_count{operation="CreateStream"} 2`,
		`millrace_stream_incoming_records_total{account="000000000000",consumer="",region="us-east-1",shard="",stream="one"} 1`,
		`millrace_stream_incoming_records_total{account="",consumer="",region="",shard="",stream="other"} 2`,
		`millrace_limit_within_total{kind="write"} 3`,
		`go_goroutines`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if status, _ := get(t, admin+"/debug/pprof/cmdline"); status != 200 {
		t.Errorf("profiles: %d", status)
	}
}

func TestAccessAndAuditLogs(t *testing.T) {
	access, audit := filepath.Join(t.TempDir(), "access"), filepath.Join(t.TempDir(), "audit")
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) {
		c.AccessLog, c.AuditLog, c.LogFormat = access, audit, "json"
	}})
	c := s.Client(testkit.Forms[0])
	create(t, c, "s", 1)
	put(t, c, "s", "a")
	_ = c.Call(t.Context(), kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: api.Ptr("none")}, nil)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	lines := func(path string) (all []map[string]any) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for d := json.NewDecoder(bytes.NewReader(raw)); d.More(); {
			var m map[string]any
			if err := d.Decode(&m); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		return all
	}
	var got []string
	for _, l := range lines(access) {
		if l["id"] == "" {
			t.Error("a line without request id")
		}
		got = append(got, fmt.Sprint(l["operation"], " ", l["status"], " ", l["code"]))
	}
	if want := "[CreateStream 200  PutRecords 200  DeleteStream 400 ResourceNotFoundException]"; fmt.Sprint(got) != want {
		t.Errorf("access log %v", got)
	}
	got = nil
	for _, l := range lines(audit) {
		got = append(got, fmt.Sprint(l["action"], " ", l["resource"], " ", l["result"], " ", l["principal"]))
	}
	if want := "[kinesis:CreateStream arn:aws:kinesis:us-east-1:000000000000:stream/s ok arn:aws:iam::000000000000:root" +
		" kinesis:DeleteStream arn:aws:kinesis:us-east-1:000000000000:stream/none ResourceNotFoundException arn:aws:iam::000000000000:root]"; fmt.Sprint(got) != want {
		t.Errorf("audit log %v", got)
	}
}

func TestStopEndsSubscriptions(t *testing.T) {
	for _, form := range testkit.Forms {
		t.Run(form.Name, func(t *testing.T) {
			s := testkit.Start(t, testkit.Options{})
			c := s.Client(form)
			create(t, c, "s", 1)
			consumer := new(kinesis.RegisterStreamConsumerOutput)
			arn := "arn:aws:kinesis:us-east-1:000000000000:stream/s"
			if err := c.Call(t.Context(), kinesis.OpRegisterStreamConsumer, &kinesis.RegisterStreamConsumerInput{StreamARN: &arn, ConsumerName: api.Ptr("c")}, consumer); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			sub, err := c.Subscribe(ctx, kinesis.OpSubscribeToShard, &kinesis.SubscribeToShardInput{
				ConsumerARN: consumer.Consumer.ConsumerARN, ShardId: api.Ptr("shardId-000000000000"),
				StartingPosition: &kinesis.StartingPosition{Type: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon)},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			put(t, c, "s", "a")
			event := new(kinesis.SubscribeToShardEvent)
			for len(event.Records) == 0 {
				*event = kinesis.SubscribeToShardEvent{}
				if err := sub.Next(event); err != nil {
					t.Fatal(err)
				}
			}
			var stopping sync.WaitGroup
			stopping.Go(func() { s.Stop() })
			for err == nil {
				err = sub.Next(event)
			}
			if err != io.EOF {
				t.Errorf("the stream ends with %v", err)
			}
			sub.Close()
			stopping.Wait()
		})
	}
}

func TestIdentityCallsShareThePort(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	for _, form := range testkit.Forms {
		c := s.Client(form)
		c.Credentials.AccessKey = "123456789012"
		body := "Action=GetCallerIdentity&Version=2011-06-15"
		r, err := c.Request(t.Context(), kinesis.OpListStreams, &kinesis.ListStreamsInput{})
		if err != nil {
			t.Fatal(err)
		}
		r, err = http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL.String(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		sigv4.Sign(r, []byte(body), c.Credentials, "us-east-1", "sts", time.Now())
		reply, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reply.Body)
		reply.Body.Close()
		if err != nil || reply.StatusCode != 200 || !strings.Contains(string(text), "<Arn>arn:aws:iam::123456789012:root</Arn>") {
			t.Errorf("%s: %d %s %v", form.Name, reply.StatusCode, text, err)
		}
	}
}

func TestUnsupportedTraceExportersAreRefused(t *testing.T) {
	loaded, err := config.Load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	loaded.Listen, loaded.AdminListen, loaded.Ephemeral = "127.0.0.1:0", "off", true
	for name, want := range map[string]string{
		"OTEL_TRACES_EXPORTER=zipkin":      `environment OTEL_TRACES_EXPORTER: "zipkin" is not built in; use otlp or none`,
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc": `environment OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not built in; use http/protobuf`,
	} {
		_, err := server.Open(t.Context(), server.Options{Config: loaded, Getenv: func(key string) string {
			k, v, _ := strings.Cut(name, "=")
			if key == k {
				return v
			}
			if key == "OTEL_EXPORTER_OTLP_ENDPOINT" {
				return "http://127.0.0.1:1"
			}
			return ""
		}})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wholeDirectory is every byte that a data directory holds.
func wholeDirectory(t *testing.T, files vfs.FS, dir string) []byte {
	t.Helper()
	list, err := files.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range list {
		name := filepath.Join(dir, f.Name)
		if f.Dir {
			all = append(all, wholeDirectory(t, files, name)...)
			continue
		}
		b, err := vfs.ReadFile(files, name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

func TestSecretsAreNowhereInTheDataDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.yaml")
	const secret = "open-sesame-and-nothing-else"
	if err := os.WriteFile(path, []byte(`users: [{name: ali, keys: [{id: AKIAEXAMPLEEXAMPLE00, secret: `+secret+`}]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	files := vfs.NewMemory()
	o := testkit.Options{Files: files, Configure: func(c *config.Config) { c.Auth, c.Seed = "keys", path }}
	for range 2 { // the second start writes a snapshot of the first's metadata
		if err := testkit.Start(t, o).Stop(); err != nil {
			t.Fatal(err)
		}
	}
	all := wholeDirectory(t, files, ".")
	if !bytes.Contains(all, []byte("AKIAEXAMPLEEXAMPLE00")) {
		t.Error("the key's id is not in the data directory either: nothing was looked at")
	}
	if bytes.Contains(all, []byte(secret)) {
		t.Error("the data directory holds a secret")
	}

	// Without the master key nothing opens, and no other is put in its place.
	if err := files.Remove("master.key"); err != nil {
		t.Fatal(err)
	}
	_, err := testkit.Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "master.key is missing") || strings.Contains(err.Error(), "\n") {
		t.Errorf("without the master key: %v", err)
	}
	if _, err := files.Stat("master.key"); err == nil {
		t.Error("a lost master key was replaced")
	}
}

func TestStrictKeysAndIssuersComeFromSettings(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.KMS = "strict" }})
	c := s.Client(testkit.Forms[0])
	create(t, c, "s", 1)
	start := func(key string) error {
		return c.Call(t.Context(), kinesis.OpStartStreamEncryption, &kinesis.StartStreamEncryptionInput{
			StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: &key,
		}, nil)
	}
	if err := start("alias/mine"); testkit.Code(err) != "KMSNotFoundException" {
		t.Errorf("a key that nobody made: %v", err)
	}
	if err := start("alias/aws/kinesis"); err != nil {
		t.Errorf("the service's key: %v", err)
	}

	path := filepath.Join(t.TempDir(), "issuers.json")
	if err := os.WriteFile(path, []byte(`{"issuers":[{"url":"x"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := testkit.Open(t.Context(), testkit.Options{Configure: func(c *config.Config) { c.WebIdentityIssuers = path }})
	if want := "web-identity-issuers: " + path + `: issuer 1: "x" is not a URL`; err == nil || err.Error() != want {
		t.Errorf("a bad file of issuers: %v, want %s", err, want)
	}
}
