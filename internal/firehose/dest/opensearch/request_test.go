package opensearch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/sigv4"
)

var _ dest.Annotator = (*Destination)(nil)

func TestIndexNames(t *testing.T) {
	for _, c := range []struct {
		rotation Rotation
		iso      bool
		at       string
		want     string
	}{
		{"", false, "2016-02-25T13:00:00Z", "i"},
		{NoRotation, false, "2016-02-25T13:00:00Z", "i"},
		{OneHour, false, "2016-02-25T13:59:59Z", "i-2016-02-25-13"},
		{OneDay, false, "2016-02-25T23:59:59Z", "i-2016-02-25"},
		{OneMonth, false, "2016-02-25T13:00:00Z", "i-2016-02"},
		{OneWeek, false, "2016-02-25T13:00:00Z", "i-2016-w09"},
		{OneWeek, true, "2016-02-25T13:00:00Z", "i-2016-w08"},
		{OneWeek, false, "2016-01-02T00:00:00Z", "i-2016-w01"}, // the first Saturday
		{OneWeek, false, "2016-01-03T00:00:00Z", "i-2016-w02"}, // a Sunday
		{OneWeek, false, "2015-12-31T00:00:00Z", "i-2016-w01"},
		{OneWeek, true, "2016-01-03T00:00:00Z", "i-2015-w53"},
		{OneWeek, false, "2026-12-31T00:00:00Z", "i-2027-w01"},
		{OneWeek, false, "2022-01-01T23:59:59Z", "i-2022-w01"}, // a Saturday
		{OneWeek, false, "2022-01-02T00:00:00Z", "i-2022-w02"},
	} {
		d := open(t, Config{Endpoint: "http://x", Index: "i", Rotation: c.rotation, ISOWeeks: c.iso})
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(d.index(nil, at.UnixMilli())); got != c.want {
			t.Errorf("%s of %s: %s, want %s", c.rotation, c.at, got, c.want)
		}
	}
}

func batch(records ...string) *record.Batch {
	var list []record.Record
	for i, r := range records {
		list = append(list, record.Record{
			Data: []byte(r), Arrival: desttest.Arrival + int64(i), Lane: desttest.Lane("shard"), Position: record.Position{Index: uint64(i), Sub: 2},
		})
	}
	return record.Of(desttest.Stream, desttest.ID(0), list...)
}

func TestRecordsThatAreNoDocument(t *testing.T) {
	var sent []byte
	server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"took":1,"errors":false,"items":[{"index":{"_id":"x","status":201}}]}`)
	}))
	d := open(t, Config{Endpoint: server.URL + "/proxy/", Index: "i", Type: "doc", Rotation: OneMonth})
	r, err := d.Deliver(t.Context(), batch(
		"{\"a\":\n1}", "{\"a\":1}{\"b\":2}", "[1]", "", "{\"a\":\"\xff\"}", "{\"a\":", " {\"a\":1} \r\n",
		"{\"index\":{\"_index\":\"secrets\"}}\n{\"a\":1}", `"text"`,
	))
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, f := range r.Failed {
		if f.Code != "OS.MalformedData" || f.Retry {
			t.Errorf("%+v", f)
		}
		told = append(told, fmt.Sprint(f.Index))
	}
	if got := strings.Join(told, ","); got != "0,1,2,3,4,5,7,8" {
		t.Errorf("failed are %s", got)
	}
	want := "{\"index\":{\"_index\":\"i-2026-07\",\"_type\":\"doc\",\"_id\":\"" + fmt.Sprintf("4%055d.2", 6) + "\"}}\n{\"a\":1}\n"
	if string(sent) != want {
		t.Errorf("sent %q, want %q", sent, want)
	}
	fields := fmt.Sprint(d.FailureFields(&record.Record{Arrival: desttest.Arrival, Lane: desttest.Lane("s")}))
	if fields != fmt.Sprintf("[{esDocumentId 4%055d.0} {esIndexName i-2026-07} {esTypeName doc}]", 0) {
		t.Errorf("fields are %s", fields)
	}
	s := open(t, Config{Kind: Serverless, Endpoint: server.URL, Index: "i", NoDocumentID: true})
	if got := fmt.Sprint(s.FailureFields(&record.Record{Arrival: desttest.Arrival})); got != "[{osDocumentId <nil>} {osIndexName i}]" {
		t.Errorf("fields are %s", got)
	}
}

// TestDocumentNames wants names that differ for records that differ.
func TestDocumentNames(t *testing.T) {
	seen := map[string]bool{}
	for _, stream := range []string{"arn:a", "arn:b"} {
		n := laneNames{stream}
		for _, r := range []record.Record{
			{Lane: partition("0"), Arrival: 1}, {Lane: partition("1"), Arrival: 1}, {Lane: partition("0"), Arrival: 2},
			{Lane: partition("0"), Arrival: 1, Position: record.Position{Index: 1}}, {Lane: partition("0"), Arrival: 1, Position: record.Position{Sub: 1}},
		} {
			id := string(n.document(nil, &r))
			if seen[id] || id != string(n.document(nil, &r)) || len(id) > 512 {
				t.Errorf("%s is no name", id)
			}
			seen[id] = true
		}
	}
}

// partition is a lane whose sequence numbers are its own only.
type partition string

func (p partition) Name() string                                { return string(p) }
func (p partition) SequenceNumber(index uint64, _ int64) string { return fmt.Sprint(index) }

// TestAnswersToTheRequest gives answers to a request as a whole. Those marked
// were recorded from an OpenSearch of that version.
func TestAnswersToTheRequest(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{401, `Unauthorized`, "OS.AccessDenied"},
		{403, `{"Message":"User: anonymous is not authorized to perform: es:ESHttpPost"}`, "OS.AccessDenied"},
		{404, `{"error":{"type":"index_not_found_exception","reason":"no such index [x]"},"status":404}`, "OS.ResourceNotFound"},
		{400, `{"error":{"root_cause":[{"type":"illegal_argument_exception","reason":"explicit index in bulk is not allowed"}],"type":"illegal_argument_exception","reason":"explicit index in bulk is not allowed"},"status":400}`, "OS.ExplicitIndexInBulkNotAllowed"},
		{400, `{"error":{"root_cause":[{"type":"illegal_argument_exception","reason":"The bulk request must be terminated by a newline [\\n]"}],"type":"illegal_argument_exception","reason":"The bulk request must be terminated by a newline [\\n]"},"status":400}`, "OS.ValidationException"}, // 2.19.1
		{400, `{"error":{"root_cause":[{"type":"action_request_validation_exception","reason":"Validation Failed: 1: no requests added;"}],"type":"action_request_validation_exception","reason":"Validation Failed: 1: no requests added;"},"status":400}`, "OS.ValidationException"},           // 2.19.1
		{400, `{"error":{"root_cause":[{"type":"x_content_parse_exception","reason":"[1:3] Unexpected character"}],"type":"x_content_parse_exception","reason":"[1:3] Unexpected character"},"status":400}`, "OS.AmazonOpenSearchServiceParseException"},
		{403, `{"error":{"type":"cluster_block_exception","reason":"blocked by: [FORBIDDEN/8/index write (api)];"},"status":403}`, "OS.ClusterBlockException"},
		{406, `{"error":"Content-Type header [text/plain] is not supported","status":406}`, "OS.UnsupportedVersion"},                                                                                                                                                                                            // 2.19.1
		{400, `{"error":{"root_cause":[{"type":"parse_exception","reason":"request body is required"}],"type":"parse_exception","reason":"request body is required"},"status":400}`, "OS.AmazonOpenSearchServiceParseException"},                                                                                // 2.19.1
		{400, `{"error":{"root_cause":[{"type":"illegal_argument_exception","reason":"Action/metadata line [1] contains an unknown parameter [_type]"}],"type":"illegal_argument_exception","reason":"Action/metadata line [1] contains an unknown parameter [_type]"},"status":400}`, "OS.UnsupportedVersion"}, // 2.19.1
		{408, ``, "OS.RequestTimeout"},
		{429, `{"error":{"type":"circuit_breaking_exception","reason":"[parent] Data too large"},"status":429}`, "OS.ClusterError"},
		{500, ``, "OS.ClusterError"},
		{502, `<html>`, "OS.BadGateway"},
		{504, `<html>`, "OS.GatewayTimeout"},
		{302, ``, "OS.ServiceException"},
		{200, `{"items":[]}`, "OS.ResponseEntryCountMismatch"},
		{200, `{"items":[{"index":{"status":201}},{"index":{"status":201}}]}`, "OS.ResponseEntryCountMismatch"},
		{200, `{"items":[{"index":{"status":201}}`, "OS.JsonParseException"},
		{200, `[]`, "OS.JsonParseException"},
		{200, ``, "OS.JsonParseException"},
	} {
		server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.status == 429 {
				w.Header().Set("Retry-After", "7")
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		d := open(t, Config{Endpoint: server.URL, Index: "i"})
		_, err := d.Deliver(t.Context(), batch(`{}`))
		var e *dest.Error
		if !errors.As(err, &e) || e.Code != c.want || e.Permanent {
			t.Errorf("%d %s: %v, want %s", c.status, c.body, err, c.want)
		}
		if c.status == 429 && (e == nil || e.After != 7*time.Second) {
			t.Errorf("After is not what the cluster asked for: %+v", e)
		}
	}
	gone := open(t, Config{Kind: Elasticsearch, Endpoint: "http://127.0.0.1:1", Index: "i"})
	var e *dest.Error
	if _, err := gone.Deliver(t.Context(), batch(`{}`)); !errors.As(err, &e) || e.Code != "ES.ConnectionFailed" {
		t.Errorf("no cluster: %v", err)
	}
}

// TestAnswersToDocuments has a cluster refuse some documents for now and some
// for ever.
func TestAnswersToDocuments(t *testing.T) {
	server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"took":3,"errors":true,"items":[
			{"index":{"_index":"i","_id":"0","status":201,"result":"created"}},
			{"index":{"_index":"i","_id":"1","status":429,"error":{"type":"opensearch_rejected_execution_exception","reason":"rejected execution"}}},
			{"index":{"_index":"i","_id":"2","status":503,"error":{"type":"unavailable_shards_exception","reason":"primary shard is not active"}}},
			{"index":{"_index":"i","_id":"3","status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse"}}},
			{"index":{"_index":"i","_id":"4","status":403,"error":{"type":"cluster_block_exception","reason":"index [i] blocked"}}},
			{"index":{"_index":"i","_id":"5","status":400,"error":{"type":"illegal_argument_exception","reason":"no write index is defined for alias [i]."}}},
			{"create":{"_index":"i","_id":"6","status":200}},
			{"index":{}}]}`)
	}))
	d := open(t, Config{Endpoint: server.URL, Index: "i"})
	r, err := d.Deliver(t.Context(), batch(`{}`, `{}`, `{}`, `{}`, `{}`, `{}`, `{}`, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.Failed {
		got = append(got, fmt.Sprintf("%d %s %v", f.Index, f.Code, f.Retry))
	}
	const want = "1 429 true,2 503 true,3 400 false,4 403 true,5 OS.AliasWithMultipleIndicesNotAllowed false,7 OS.InternalError true"
	if strings.Join(got, ",") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ","), want)
	}
	if r.Failed[2].Message != `{"type":"mapper_parsing_exception","reason":"failed to parse"}` {
		t.Errorf("the message is %s", r.Failed[2].Message)
	}
}

// TestRequestsThatAreTooLarge has a cluster that takes 300 bytes at once.
func TestRequestsThatAreTooLarge(t *testing.T) {
	requests := 0
	server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests++
		if len(body) > 300 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		items := strings.Repeat(`{"index":{"status":201}},`, bytes.Count(body, []byte("\n"))/2)
		_, _ = io.WriteString(w, `{"items":[`+strings.TrimSuffix(items, ",")+`]}`)
	}))
	d := open(t, Config{Endpoint: server.URL, Index: "i"})
	records := []string{`{"n":0}`, `{"n":1}`, `{"n":2}`, `{"n":"` + strings.Repeat("x", 400) + `"}`, `{"n":4}`}
	r, err := d.Deliver(t.Context(), batch(records...))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Failed) != 1 || r.Failed[0].Index != 3 || r.Failed[0].Code != "OS.LargeFieldData" || r.Objects[0].Records != 4 {
		t.Errorf("failed %+v, objects %+v", r.Failed, r.Objects)
	}
}

// TestALaterRequestThatFails wants the records of earlier requests counted as
// stored, and all others as such that may come again.
func TestALaterRequestThatFails(t *testing.T) {
	requests := 0
	server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if requests++; requests == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		items := strings.Repeat(`{"index":{"status":201}},`, bytes.Count(body, []byte("\n"))/2)
		_, _ = io.WriteString(w, `{"items":[`+strings.TrimSuffix(items, ",")+`]}`)
	}))
	d := open(t, Config{Endpoint: server.URL, Index: "i", RequestBytes: 1200})
	var records []string
	for n := range 20 {
		records = append(records, fmt.Sprintf(`{"n":%d,"x":"%s"}`, n, strings.Repeat("x", 100)))
	}
	r, err := d.Deliver(t.Context(), batch(records...))
	if err != nil {
		t.Fatal(err)
	}
	stored := r.Objects[0].Records
	if requests != 2 || stored == 0 || stored+len(r.Failed) != 20 || r.Failed[0].Index != stored || !r.Failed[0].Retry {
		t.Errorf("%d requests, %d stored, %d failed from %d on", requests, stored, len(r.Failed), r.Failed[0].Index)
	}
}

func TestAccess(t *testing.T) {
	var got http.Header
	server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		got.Set("Path", r.URL.Path)
		_, _ = io.WriteString(w, `{"items":[{"index":{"status":201}}]}`)
	}))
	at := time.Date(2026, 7, 13, 14, 5, 9, 0, time.UTC)
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"basic", Config{Access: Access{Username: "u", Password: "p"}}, "Basic dTpw"},
		{"basic in the URL", Config{Endpoint: strings.Replace(server.URL, "//", "//u:p@", 1)}, "Basic dTpw"},
		{"API key", Config{Access: Access{APIKey: "a2V5"}}, "ApiKey a2V5"},
		{"signature for a domain", Config{Access: Access{Region: "us-east-1"}}, "AWS4-HMAC-SHA256 Credential=AKID/20260713/us-east-1/es/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature="},
		{"signature for a collection", Config{Kind: Serverless, Access: Access{Region: "us-east-1"}}, "AWS4-HMAC-SHA256 Credential=AKID/20260713/us-east-1/aoss/aws4_request, SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, Signature="},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Index = "i"
			if c.config.Endpoint == "" {
				c.config.Endpoint = server.URL
			}
			d, err := New(c.config, Deps{
				Policy: outbound.Policy{AllowPrivate: true},
				Credentials: func(context.Context) (sigv4.Credentials, error) {
					return sigv4.Credentials{AccessKey: "AKID", SecretKey: "S"}, nil
				},
				Now: func() time.Time { return at },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close() }()
			if _, err := d.Deliver(t.Context(), batch(`{}`)); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(got.Get("Authorization"), c.want) || got.Get("Path") != "/_bulk" || got.Get("Content-Type") != "application/x-ndjson" {
				t.Errorf("the request has %v", got)
			}
		})
	}
	for _, c := range []Config{{}, {Endpoint: "ftp://x", Index: "i"}, {Endpoint: "http://x"}, {Endpoint: "http://x", Index: "i", Rotation: "Daily"}, {Endpoint: "http://x", Index: "i", Access: Access{Region: "r"}}} {
		if _, err := New(c, Deps{}); err == nil {
			t.Errorf("New accepts %+v", c)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"took":1,"errors":true,"items":[{"index":{"status":201}},{"index":{"status":400,"error":{"type":"a","reason":"b"}}}]}`))
	f.Add([]byte(`{"items":[{"a":{},"b":{}}],"items":[]}`))
	f.Fuzz(func(t *testing.T, reply []byte) {
		items, err := readItems(bytes.NewReader(reply), 2)
		if err == nil && len(items) != 2 {
			t.Fatalf("%d items", len(items))
		}
		for i, item := range items {
			if item.failed() {
				if f := item.failure(i, "OS."); f.Code == "" || f.Message == "" {
					t.Fatalf("%+v", f)
				}
			}
		}
		readError(reply)
	})
}
