package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/testkit"
)

// receiver takes spans as a collector does.
type receiver struct {
	mu        sync.Mutex
	spans     []*traces.Span
	resources []*common.KeyValue
	err       error
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	take := func() error {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				return err
			}
			body = z
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			return fmt.Errorf("%s with %s", r.URL.Path, r.Header.Get("Content-Type"))
		}
		in := new(collector.ExportTraceServiceRequest)
		if err := proto.Unmarshal(raw, in); err != nil {
			return err
		}
		for _, from := range in.ResourceSpans {
			c.resources = from.GetResource().GetAttributes()
			for _, scope := range from.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := take(); err != nil {
		c.err = err
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	answer, _ := proto.Marshal(new(collector.ExportTraceServiceResponse))
	_, _ = w.Write(answer)
}

func attributes(list []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, kv := range list {
		all[kv.Key] = kv.GetValue().GetStringValue()
		if n, ok := kv.GetValue().GetValue().(*common.AnyValue_IntValue); ok {
			all[kv.Key] = fmt.Sprint(n.IntValue)
		}
	}
	return all
}

func TestSpansReachACollector(t *testing.T) {
	for _, compression := range []string{"", "gzip"} {
		t.Run("compression="+compression, func(t *testing.T) {
			c := new(receiver)
			sink := httptest.NewServer(c)
			defer sink.Close()
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.URL)
			t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
			s := testkit.Start(t, testkit.Options{Getenv: os.Getenv})
			client := s.Client(testkit.Forms[0])
			create(t, client, "s", 1)
			send := func(op *api.Operation, in api.Shape, parent string) (id string) {
				t.Helper()
				r, err := client.Request(t.Context(), op, in)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Traceparent", parent)
				reply, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, reply.Body)
				reply.Body.Close()
				return reply.Header.Get("X-Amzn-Requestid")
			}
			const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
			putID := send(kinesis.OpPutRecord, &kinesis.PutRecordInput{StreamName: api.Ptr("s"), Data: []byte("secret-data"), PartitionKey: api.Ptr("k")}, "00-"+trace+"-"+parent+"-01")
			send(kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: api.Ptr("none")}, "00-"+trace+"-"+parent+"-01")
			send(kinesis.OpListStreams, &kinesis.ListStreamsInput{}, "00-"+trace+"-"+parent+"-00") // not sampled by the caller
			read(t, client, "s")
			if err := s.Stop(); err != nil { // sends what is left
				t.Fatal(err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.err != nil {
				t.Fatal(c.err)
			}
			if r := attributes(c.resources); r["service.name"] != "millrace" || r["deployment.environment"] != "test" {
				t.Errorf("resource %v", r)
			}
			var got []string
			for _, span := range c.spans {
				a := attributes(span.Attributes)
				got = append(got, fmt.Sprint(span.Name, " ", a["rpc.method"], " ", a["aws.kinesis.stream_name"], " ", a["http.response.status_code"], " ", a["error.type"]))
				if span.Kind != traces.Span_SPAN_KIND_SERVER || span.EndTimeUnixNano < span.StartTimeUnixNano || a["aws.request_id"] == "" {
					t.Errorf("span %v", span)
				}
				raw, err := proto.Marshal(span)
				if err != nil || bytes.Contains(raw, []byte("secret-data")) {
					t.Errorf("the span shows the record: %v", err)
				}
			}
			want := []string{
				"Kinesis.CreateStream CreateStream s 200 ",
				"Kinesis.PutRecord PutRecord s 200 ",
				"Kinesis.DeleteStream DeleteStream none 400 ResourceNotFoundException",
				"Kinesis.GetShardIterator GetShardIterator s 200 ",
				"Kinesis.GetRecords GetRecords s 200 ",
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Fatalf("spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			put := c.spans[1]
			if hex.EncodeToString(put.TraceId) != trace || hex.EncodeToString(put.ParentSpanId) != parent {
				t.Errorf("trace %x, parent %x", put.TraceId, put.ParentSpanId)
			}
			if id := attributes(put.Attributes)["aws.request_id"]; id != putID {
				t.Errorf("request id %s, want %s", id, putID)
			}
			if first := c.spans[0]; len(first.ParentSpanId) != 0 || len(first.TraceId) != 16 {
				t.Errorf("a call without parent: trace %x, parent %x", first.TraceId, first.ParentSpanId)
			}
		})
	}
}

// TestTracesAreOffUnlessAskedFor wants no exporter, and so no goroutine and no
// connection, without the variables; off is off whatever else is set.
func TestTracesAreOffUnlessAskedFor(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"nothing":  {},
		"none":     {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"disabled": {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_PROPAGATORS": "b3"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testkit.Start(t, testkit.Options{Getenv: func(k string) string { return env[k] }})
			if s.Traces() {
				t.Error("traces are on")
			}
		})
	}
}

func TestUnsupportedTraceSettingsAreRefusedInOneLine(t *testing.T) {
	loaded, err := config.Load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	loaded.Listen, loaded.AdminListen, loaded.Ephemeral = "127.0.0.1:0", "off", true
	for _, c := range []struct{ key, value, more, want string }{
		{"OTEL_PROPAGATORS", "b3", "", "tracecontext"},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "", "gzip or none"},
		{"OTEL_TRACES_SAMPLER", "jaeger_remote", "", "parentbased_always_on"},
		{"OTEL_TRACES_SAMPLER_ARG", "2", "traceidratio", "from 0 to 1"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "", "not a URL"},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "", "use http/protobuf"},
	} {
		_, err := server.Open(t.Context(), server.Options{Config: loaded, Getenv: func(k string) string {
			switch k {
			case c.key:
				return c.value
			case "OTEL_TRACES_SAMPLER":
				return c.more
			case "OTEL_EXPORTER_OTLP_ENDPOINT":
				return "http://127.0.0.1:1"
			}
			return ""
		}})
		if err == nil || !strings.HasPrefix(err.Error(), "environment "+c.key+": ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%s: %v", c.key, c.value, err)
		}
	}
}
