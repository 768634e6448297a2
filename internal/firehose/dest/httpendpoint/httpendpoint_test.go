package httpendpoint

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anywhere = outbound.Policy{AllowPrivate: true}

// receiver keeps the contract as receivers in the field do: it rejects what they
// reject.
type receiver struct {
	t  *testing.T
	mu sync.Mutex
	// requests are the ids in the order of their first arrival.
	requests []string
	data     map[string][][]byte
	discard  bool
	count    int
	// maxRecords answers more with 413.
	maxRecords int
	// refuse is an answer for one request; nil accepts it.
	refuse func(id string, n int) (status int, message string)
}

type wanted struct {
	RequestID *string `json:"requestId"`
	Timestamp *int64  `json:"timestamp"`
	Records   []struct {
		Data *[]byte `json:"data"`
	} `json:"records"`
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	h := q.Header
	bad := func(format string, args ...any) {
		r.t.Errorf(format, args...)
		w.WriteHeader(http.StatusBadRequest)
	}
	for name, want := range map[string]string{
		"X-Amz-Firehose-Protocol-Version": "1.0", "X-Amz-Firehose-Source-Arn": desttest.Stream.ARN,
		"Content-Type": "application/json", "User-Agent": "Amazon Kinesis Data Firehose Agent/1.0",
	} {
		if v := h.Values(name); len(v) != 1 || v[0] != want {
			bad("%s is %q", name, v)
			return
		}
	}
	body := io.Reader(q.Body)
	if e := h.Values("Content-Encoding"); len(e) > 0 {
		z, err := gzip.NewReader(q.Body)
		if err != nil || e[0] != "gzip" {
			bad("Content-Encoding %q: %v", e, err)
			return
		}
		body = z
	}
	if q.Method != http.MethodPost || q.ContentLength <= 0 {
		bad("%s with length %d", q.Method, q.ContentLength)
		return
	}
	var in wanted
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		if q.Context().Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			r.t.Logf("a body that cannot be read: %v", err) // the client gave up
		}
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	id := h.Get("X-Amz-Firehose-Request-Id")
	switch {
	case in.RequestID == nil || *in.RequestID != id || !guid.MatchString(id):
		bad("request id %q in the header, %v in the body", id, in.RequestID)
	case in.Timestamp == nil || len(in.Records) == 0 || len(in.Records) > 10_000:
		bad("timestamp %v, %d records", in.Timestamp, len(in.Records))
	case r.maxRecords > 0 && len(in.Records) > r.maxRecords:
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	default:
		r.take(w, id, in)
	}
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func (r *receiver) take(w http.ResponseWriter, id string, in wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, message := http.StatusOK, ""
	if r.refuse != nil {
		status, message = r.refuse(id, len(in.Records))
	}
	if status == 0 {
		status = http.StatusOK
	}
	if status == http.StatusOK {
		if _, again := r.data[id]; !again {
			r.requests = append(r.requests, id)
		}
		r.count += len(in.Records)
		if !r.discard {
			var list [][]byte
			for _, record := range in.Records {
				list = append(list, *record.Data)
			}
			if r.data == nil {
				r.data = map[string][][]byte{}
			}
			r.data[id] = list // a repetition is recognised by its id
		}
	}
	answer(w, status, id, message)
}

func answer(w http.ResponseWriter, status int, id, message string) {
	out := map[string]any{"requestId": id, "timestamp": time.Now().UnixMilli()}
	if message != "" {
		out["errorMessage"] = message
	}
	body, _ := json.Marshal(out)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (r *receiver) stored() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []byte
	for _, id := range r.requests {
		all = append(all, bytes.Join(r.data[id], nil)...)
	}
	return all
}

func open(t *testing.T, c Config) *Destination {
	t.Helper()
	d, err := New(c, Deps{Policy: anywhere})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestContract(t *testing.T) {
	for _, zip := range []bool{false, true} {
		t.Run(fmt.Sprintf("gzip=%v", zip), func(t *testing.T) {
			desttest.Run(t, desttest.Harness{
				Open: func(t *testing.T) *desttest.Peer {
					r := &receiver{t: t}
					server := desttest.NewHTTPS(t, r)
					ca := filepath.Join(t.TempDir(), "ca.pem")
					writeCA(t, server.Server, ca)
					d, err := New(Config{URL: server.URL + "/in?a=b", GZIP: zip, TLS: outbound.TLS{CAFile: ca}}, Deps{Policy: anywhere})
					if err != nil {
						t.Fatal(err)
					}
					return &desttest.Peer{
						Destination: d,
						Stored:      func(t *testing.T) []desttest.Entry { return desttest.Parse(t, r.stored()) },
						Break:       server.Break,
						Discard: func() func() int {
							r.mu.Lock()
							r.discard = true
							r.mu.Unlock()
							return func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.count }
						},
					}
				},
				Codes:  []string{"HttpEndpoint."},
				Faults: desttest.HTTPFaults,
				// The records of a request are decoded at the peer all the same.
				Memory: 40 << 20,
			})
		})
	}
}

// batch is n records of size bytes.
func batch(n, size int) *record.Batch {
	data := bytes.Repeat([]byte("a"), size)
	b := record.NewBatch(func(f func(int, *record.Record) error) error {
		for i := range n {
			if err := f(i, &record.Record{Data: data, Lane: desttest.Lane("shardId-000000000001"), Position: record.Position{Index: uint64(i + 7)}}); err != nil {
				return err
			}
		}
		return nil
	})
	b.Stream, b.ID, b.Count, b.Lane, b.Attempt = desttest.Stream, desttest.ID(1), n, desttest.Lane("shardId-000000000001"), 1
	return b
}

// TestRequestOnTheWire compares a whole request, byte for byte.
func TestRequestOnTheWire(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var got bytes.Buffer
	var group sync.WaitGroup
	group.Go(func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		q, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, &got)))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
	})
	d := open(t, Config{
		URL: "http://" + listener.Addr().String() + "/a%2Fb/c?x=%41&y=+z", AccessKey: `k"ey`,
		Attributes: []Attribute{{"env", "prod"}, {"naïve\"", "日本\n😀"}}, Headers: map[string]string{"x-tenant": "7"},
	})
	b := batch(2, 4)
	b.ID = "0123456789abcdef0123456789abcdef"
	if _, err := d.Deliver(t.Context(), b); err == nil {
		t.Error("Deliver succeeded")
	}
	group.Wait()
	text := strings.ReplaceAll(got.String(), listener.Addr().String(), "HOST")
	text = regexp.MustCompile(`"timestamp":\d{13}`).ReplaceAllString(text, `"timestamp":NOW`)
	text = regexp.MustCompile(`Root=1-[0-9a-f]{8}`).ReplaceAllString(text, `Root=1-NOW`)
	text = strings.ReplaceAll(text, "\r\n", "\n")
	golden := filepath.Join("testdata", "request.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || text != string(want) {
		t.Errorf("the request is\n%s\n%v", text, err)
	}
}

func TestAbsentHeadersAreAbsent(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		for _, name := range []string{"X-Amz-Firehose-Access-Key", "X-Amz-Firehose-Common-Attributes", "Content-Encoding", "Accept-Encoding"} {
			if v, ok := q.Header[name]; ok {
				t.Errorf("%s: %q", name, v)
			}
		}
		answer(w, 200, q.Header.Get("X-Amz-Firehose-Request-Id"), "")
	}))
	defer server.Close()
	if _, err := open(t, Config{URL: server.URL}).Deliver(t.Context(), batch(1, 1)); err != nil {
		t.Error(err)
	}
}

func TestLargeBatchesAreSeveralRequests(t *testing.T) {
	for _, c := range []struct {
		name    string
		n, size int
		gzip    bool
		want    []int
	}{
		{"as many as fit", 10_000, 10, false, []int{10_000}},
		{"one more", 10_001, 10, false, []int{10_000, 1}},
		{"by size", 70, 1_000_000, false, []int{50, 20}},
		{"by size, compressed", 70, 1_000_000, true, []int{25, 25, 20}},
		{"empty records", 3, 0, false, []int{3}},
		{"the largest record", 1, 1_024_000, false, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []int
			var ids []string
			// The receiver of the other tests is strict and slow; this one counts.
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				body := io.Reader(q.Body)
				if c.gzip {
					z, err := gzip.NewReader(q.Body)
					if err != nil {
						t.Error(err)
						return
					}
					body = z
				}
				raw, err := io.ReadAll(body)
				if err != nil || len(raw) > 64<<20 {
					t.Errorf("a body of %d bytes, %v", len(raw), err)
				}
				id := q.Header.Get("X-Amz-Firehose-Request-Id")
				got, ids = append(got, bytes.Count(raw, []byte(`{"data":"`))), append(ids, id)
				answer(w, 200, id, "")
			}))
			defer server.Close()
			d := open(t, Config{URL: server.URL, GZIP: c.gzip})
			var first []string
			for range 2 {
				got, ids = nil, nil
				result, err := d.Deliver(t.Context(), batch(c.n, c.size))
				if err != nil || len(result.Failed) > 0 {
					t.Fatalf("%v, %d failed", err, len(result.Failed))
				}
				if !slices.Equal(got, c.want) || len(result.Objects) != len(c.want) {
					t.Errorf("requests of %v records, %d objects", got, len(result.Objects))
				}
				if first == nil {
					first = ids
				} else if !slices.Equal(first, ids) {
					t.Errorf("the second attempt has other ids: %v, %v", first, ids)
				}
			}
			if len(ids) != len(slices.Compact(slices.Sorted(slices.Values(ids)))) {
				t.Errorf("ids are not unique: %v", ids)
			}
		})
	}
}

func TestRecordsThatAreTooLarge(t *testing.T) {
	r := &receiver{t: t}
	server := httptest.NewServer(r)
	defer server.Close()
	result, err := open(t, Config{URL: server.URL}).Deliver(t.Context(), batch(2, 1_024_001))
	if err != nil || len(result.Failed) != 2 || result.Failed[0].Retry || r.count != 0 {
		t.Errorf("%v, %+v, %d records arrived", err, result.Failed, r.count)
	}
}

// What has gone through is not sent again: the rest of the batch is tried alone,
// under the same ids.
func TestAFailureInTheMiddle(t *testing.T) {
	failing := true
	var seen []string
	r := &receiver{t: t, discard: true}
	r.refuse = func(id string, n int) (int, string) {
		seen = append(seen, id+" "+strconv.Itoa(n))
		if failing && len(seen) == 2 {
			return 500, "not now"
		}
		return 0, ""
	}
	server := httptest.NewServer(r)
	defer server.Close()
	d := open(t, Config{URL: server.URL})
	b := batch(25_000, 1)
	result, err := d.Deliver(t.Context(), b)
	if err != nil || len(result.Failed) != 15_000 || result.Failed[0].Index != 10_000 || !result.Failed[0].Retry {
		t.Fatalf("%v, %d failed", err, len(result.Failed))
	}
	if !strings.Contains(result.Failed[0].Message, "not now") || result.Failed[0].Code != "HttpEndpoint.DestinationException" {
		t.Errorf("%+v", result.Failed[0])
	}
	if len(seen) != 2 {
		t.Errorf("%d requests, want the third not to be made", len(seen))
	}
	failing = false
	var rest []int
	for _, f := range result.Failed {
		rest = append(rest, f.Index)
	}
	if result, err = d.Deliver(t.Context(), b.Subset(rest)); err != nil || len(result.Failed) > 0 {
		t.Fatalf("%v, %d failed", err, len(result.Failed))
	}
	if len(seen) != 4 || seen[2] != seen[1] {
		t.Errorf("requests are %v", seen)
	}
	if r.count != 25_000 {
		t.Errorf("%d records arrived", r.count)
	}
}

func Test413(t *testing.T) {
	poison := 4
	for _, c := range []struct {
		name     string
		strict   bool
		limit    int
		n        int
		requests []int // that were taken
		failed   []int
	}{
		{"cut in halves", false, 3, 10, []int{3, 2, 3, 2}, nil},
		{"as the service does", true, 3, 10, nil, nil},
		{"nothing is small enough", false, -1, 3, nil, []int{0, 1, 2}},
		{"one record is too much", false, -2, 8, []int{4, 1, 2}, []int{poison}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var taken []int
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				var in wanted
				if err := json.NewDecoder(q.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				large := len(in.Records) > c.limit
				if c.limit == -2 {
					large = slices.ContainsFunc(in.Records, func(r struct {
						Data *[]byte `json:"data"`
					}) bool {
						return string(*r.Data) == "poison"
					})
				}
				if large {
					w.WriteHeader(413)
					return
				}
				taken = append(taken, len(in.Records))
				answer(w, 200, *in.RequestID, "")
			}))
			defer server.Close()
			b := batch(c.n, 5)
			if c.limit == -2 {
				var records []record.Record
				for i := range c.n {
					records = append(records, record.Record{Data: []byte("fine"), Position: record.Position{Index: uint64(i)}})
				}
				records[poison].Data = []byte("poison")
				b = record.Of(desttest.Stream, desttest.ID(1), records...)
			}
			result, err := open(t, Config{URL: server.URL, Strict413: c.strict}).Deliver(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(taken, c.requests) {
				t.Errorf("requests of %v were taken, want %v", taken, c.requests)
			}
			var failed []int
			for _, f := range result.Failed {
				failed = append(failed, f.Index)
				if f.Retry || f.Code != "HttpEndpoint.DestinationException" || !strings.Contains(f.Message, "413") {
					t.Errorf("%+v", f)
				}
			}
			if !slices.Equal(failed, c.failed) {
				t.Errorf("failed are %v, want %v", failed, c.failed)
			}
			if c.strict && (len(result.Objects) != 1 || !strings.Contains(result.Objects[0].Name, "413")) {
				t.Errorf("nothing tells of the loss: %+v", result.Objects)
			}
		})
	}
}

// A peer may say 413 before it has read the body, and close the connection.
func Test413BeforeTheBodyIsRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }))
	defer server.Close()
	result, err := open(t, Config{URL: server.URL}).Deliver(t.Context(), batch(8, 1_000_000))
	if err != nil || len(result.Failed) != 8 || result.Failed[7].Retry {
		t.Errorf("%v, %d failed", err, len(result.Failed))
	}
}

// A half that went through stays so when the other one fails.
func Test413ThenAFailure(t *testing.T) {
	r := &receiver{t: t, maxRecords: 2, discard: true}
	calls := 0
	r.refuse = func(string, int) (int, string) {
		if calls++; calls == 2 {
			return 503, ""
		}
		return 0, ""
	}
	server := httptest.NewServer(r)
	defer server.Close()
	result, err := open(t, Config{URL: server.URL}).Deliver(t.Context(), batch(4, 5))
	if err != nil || len(result.Failed) != 2 || result.Failed[0].Index != 2 || result.Failed[1].Index != 3 || !result.Failed[0].Retry || r.count != 2 {
		t.Errorf("%v, %+v, %d arrived", err, result.Failed, r.count)
	}
}

func TestConfigurationIsReadAtEachAttempt(t *testing.T) {
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		keys = append(keys, q.URL.Path+" "+q.Header.Get("X-Amz-Firehose-Access-Key"))
		answer(w, 200, q.Header.Get("X-Amz-Firehose-Request-Id"), "")
	}))
	defer server.Close()
	var current atomic.Pointer[Config]
	current.Store(&Config{URL: "http://127.0.0.1:1/"})
	secret := secrets{"arn:s": {"api_key": "first"}}
	d, err := New(*current.Load(), Deps{Policy: anywhere, Secrets: secret, Current: func() Config { return *current.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	deliver := func() string {
		_, err := d.Deliver(t.Context(), batch(1, 1))
		var e *dest.Error
		if errors.As(err, &e) {
			return e.Code
		}
		return fmt.Sprint(err)
	}
	if got := deliver(); got != "HttpEndpoint.ConnectionFailed" {
		t.Error(got)
	}
	current.Store(&Config{URL: server.URL + "/a", AccessKey: "inline"})
	if got := deliver(); got != "<nil>" {
		t.Error(got)
	}
	current.Store(&Config{URL: server.URL + "/b", AccessKey: "inline", Secret: "arn:s"})
	if got := deliver(); got != "<nil>" {
		t.Error(got)
	}
	secret["arn:s"]["api_key"] = "second"
	if got := deliver(); got != "<nil>" {
		t.Error(got)
	}
	for _, broken := range []secrets{{"arn:s": {"other": "x"}}, {}} {
		clear(secret)
		for k, v := range broken {
			secret[k] = v
		}
		if got := deliver(); got != "HttpEndpoint.DestinationException" {
			t.Error(got)
		}
	}
	if want := []string{"/a inline", "/b first", "/b second"}; !slices.Equal(keys, want) {
		t.Errorf("got %v, want %v", keys, want)
	}
}

type secrets map[string]map[string]string

func (s secrets) Resolve(_ context.Context, arn string) (map[string]string, error) {
	if v, ok := s[arn]; ok {
		return v, nil
	}
	return nil, errors.New("no such secret")
}

// piped makes a destination's connections pipes that end in serve, so that a
// bubble's clock drives both ends. Connecting takes five seconds.
func piped(d *Destination, serve func(c net.Conn, id string)) (wait func()) {
	var group sync.WaitGroup
	d.client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		time.Sleep(5 * time.Second)
		ours, theirs := net.Pipe()
		group.Go(func() {
			defer theirs.Close()
			q, err := http.ReadRequest(bufio.NewReader(theirs))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, q.Body)
			serve(theirs, q.Header.Get("X-Amz-Firehose-Request-Id"))
		})
		return ours, nil
	}
	return group.Wait
}

// The clock of the retry duration stands still while an answer is waited for,
// and an attempt ends by itself after three minutes, whatever trickles in.
func TestWaitingAndTimeout(t *testing.T) {
	finish := func(c net.Conn, id string) {
		body := fmt.Sprintf(`{"requestId":%q,"timestamp":1}`, id)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	hold := func(c net.Conn, d time.Duration) { // until then, or the client is gone
		_ = c.SetReadDeadline(time.Now().Add(d))
		_, _ = c.Read(make([]byte, 1))
	}
	trickle := func(c net.Conn, head string) {
		for text := head + strings.Repeat("x", 1000); text != ""; text = text[1:] {
			if _, err := io.WriteString(c, text[:1]); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
	for _, c := range []struct {
		name  string
		serve func(net.Conn, string)
		took  time.Duration
		want  string
	}{
		{"a slow answer", func(c net.Conn, id string) { hold(c, 170*time.Second); finish(c, id) }, 175 * time.Second, ""},
		{"no answer", func(c net.Conn, _ string) { hold(c, time.Hour) }, 3 * time.Minute, "HttpEndpoint.RequestTimeout"},
		{"a head that trickles", func(c net.Conn, _ string) { trickle(c, "HTTP/1.1 200 OK\r\nX: ") }, 3 * time.Minute, "HttpEndpoint.RequestTimeout"},
		{"a body that trickles", func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n")
			trickle(c, "{")
		}, 3 * time.Minute, "HttpEndpoint.RequestTimeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t, Config{URL: "http://peer.test/"})
				wait := piped(d, c.serve)
				start := time.Now()
				result, err := d.Deliver(t.Context(), batch(3, 10))
				took := time.Since(start)
				var e *dest.Error
				errors.As(err, &e)
				switch {
				case c.want == "" && err != nil, c.want != "" && (e == nil || e.Code != c.want || e.Permanent):
					t.Errorf("%v", err)
				case took != c.took:
					t.Errorf("it took %v", took)
				case result.Waited != took-5*time.Second:
					t.Errorf("waited %v of %v", result.Waited, took)
				}
				_ = d.Close()
				wait()
			})
		})
	}
}

// The settings of an operator's file.
func TestSettings(t *testing.T) {
	var c Config
	err := yaml.UnmarshalWithOptions([]byte(`
url: http://collector.example.com:4433/in
name: collector
access_key: k
secret: arn:aws:secretsmanager:us-east-1:111122223333:secret:k
gzip: true
attributes: [{name: env, value: prod}]
tls: {ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, server_name: n, insecure_skip_verify: true}
timeout: 10s
headers: {x-tenant: "7"}
aws_strict_413: true
string_timestamps: true
`), &c, yaml.Strict())
	want := Config{
		URL: "http://collector.example.com:4433/in", Name: "collector", AccessKey: "k", Secret: "arn:aws:secretsmanager:us-east-1:111122223333:secret:k",
		GZIP: true, Attributes: []Attribute{{"env", "prod"}}, Timeout: 10 * time.Second, Headers: map[string]string{"x-tenant": "7"}, Strict413: true, StringTimestamps: true,
		TLS: outbound.TLS{CAFile: "ca.pem", CertFile: "c.pem", KeyFile: "k.pem", ServerName: "n", InsecureSkipVerify: true},
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestFailureFields(t *testing.T) {
	d := open(t, Config{URL: "https://a"})
	got := d.FailureFields(&record.Record{Lane: desttest.Lane("s"), Position: record.Position{Index: 7, Sub: 3}})
	want := []dest.Field{{Name: "subsequenceNumber", Value: int64(3)}, {Name: "dataId", Value: fmt.Sprintf("4%055d.3", 7)}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
