package wire

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/sigv4"
)

const prefix = "Kinesis_20131202."

// Each row breaks everything from its step on, so that it passes only if its
// step comes first.
func TestOrderOfChecks(t *testing.T) {
	w := newWorld(t, worldOptions{keys: true, wire: Options{MaxBody: 1 << 20}})
	const denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n"
	const serialization = `{"__type":"SerializationException"}`
	const unknown = `{"__type":"UnknownOperationException"}`
	mistyped := map[string][]byte{
		typeJSON: []byte(`{"StreamName":true,"Limit":0}`),
		typeCBOR: {0xa1, 0x6a, 'S', 't', 'r', 'e', 'a', 'm', 'N', 'a', 'm', 'e', 0xf5},
	}
	garbage := map[string][]byte{typeJSON: []byte(`{"StreamName":`), typeCBOR: {0xa1, 0x6a, 'S'}}
	invalid := func(contentType string) []byte {
		return encode(t, contentType, &kinesis.DescribeStreamInput{StreamName: api.Ptr("a b"), Limit: api.Ptr(int32(0))})
	}
	valid := func(contentType string) []byte {
		return encode(t, contentType, &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")})
	}

	type row struct {
		name   string
		method string
		target string
		form   string // overrides the content type under test
		body   func(contentType string) []byte
		key    string // signs if set
		auth   string // raw header otherwise
		status int
		want   string
		plain  bool // the reply has no content type
	}
	rows := []row{
		{name: "1 body over the cap", method: "PUT", form: "text/plain", body: func(string) []byte { return make([]byte, 1<<20+1) }, status: 413, plain: true},
		{name: "2 preflight", method: "OPTIONS", form: "text/plain", status: 200, plain: true},
		{name: "3 method", method: "PUT", target: prefix + "ListStreams", body: valid, status: 403, want: denied, plain: true},
		{name: "4 empty body, known operation", target: prefix + "ListStreams", status: 400, want: serialization},
		{name: "4 empty body, unknown operation", target: prefix + "Nope", status: 400, want: unknown},
		{name: "4 empty body, no target", status: 400, want: unknown},
		{name: "5 foreign content type, no target", form: "text/plain", body: valid, status: 403, want: denied, plain: true},
		{name: "5 foreign content type, target", form: "text/plain", target: prefix + "ListStreams", body: valid, status: 404, want: "<UnknownOperationException/>", plain: true},
		{name: "6 malformed body", target: prefix + "Nope", body: func(c string) []byte { return garbage[c] }, status: 400, want: serialization},
		{name: "6 other codec's bytes", target: prefix + "DescribeStream", body: func(c string) []byte {
			if c == typeJSON {
				return valid(typeCBOR)
			}
			return valid(typeJSON)
		}, status: 400, want: serialization},
		{name: "8 unknown operation", target: prefix + "Nope", body: valid, status: 400, want: unknown},
		{name: "8 unknown service", target: "Nope_20131202.ListStreams", body: valid, status: 400, want: unknown},
		{name: "8 no target", body: valid, status: 400, want: unknown},
		{name: "9 no authentication", target: prefix + "DescribeStream", body: func(c string) []byte { return mistyped[c] }, status: 400,
			want: `{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`},
		{name: "9 incomplete authentication", target: prefix + "DescribeStream", auth: "AWS4-HMAC-SHA256 Credential=a", body: func(c string) []byte { return mistyped[c] }, status: 400,
			want: `{"__type":"IncompleteSignatureException","message":"Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256 Credential=a"}`},
		{name: "10 unknown key", target: prefix + "DescribeStream", key: "AKIANOSUCHKEY0000000", body: func(c string) []byte { return mistyped[c] }, status: 400,
			want: `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`},
		{name: "11 wrong type", target: prefix + "DescribeStream", key: lameKey, body: func(c string) []byte { return mistyped[c] }, status: 400,
			want: `{"Message":"class java.lang.Boolean can not be converted to an String","__type":"SerializationException"}`},
		{name: "12 validation", target: prefix + "DescribeStream", key: lameKey, body: invalid, status: 400,
			want: `{"__type":"ValidationException","message":"2 validation errors detected: Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"}`},
		{name: "13 authorisation", target: prefix + "DescribeStream", key: lameKey, body: valid, status: 400,
			want: `{"__type":"AccessDeniedException","message":"User: arn:aws:iam::000000000000:user/lame is not authorized to perform: kinesis:DescribeStream on resource: arn:aws:kinesis:us-east-1:000000000000:stream/s because no identity-based policy allows the kinesis:DescribeStream action"}`},
		{name: "15 the service", target: prefix + "DescribeStream", key: testKey, body: valid, status: 400,
			want: `{"__type":"ResourceNotFoundException","message":"Stream <s> not found."}`},
		{name: "15 unescaped path and parameters of the content type", target: prefix + "DescribeStream", key: testKey, body: valid, status: 400,
			want: `{"__type":"ResourceNotFoundException","message":"Stream <s> not found."}`},
	}
	for _, contentType := range []string{typeJSON, typeCBOR} {
		for _, c := range rows {
			t.Run(contentType[len(contentType)-8:len(contentType)-4]+"/"+c.name, func(t *testing.T) {
				var body []byte
				if c.body != nil {
					body = c.body(contentType)
				}
				form := contentType
				if c.form != "" {
					form = c.form
				}
				r := w.request(t, c.target, form, body)
				r.Header.Del("Authorization")
				if c.method != "" {
					r.Method = c.method
				}
				switch {
				case c.key != "":
					sigv4.Sign(r, body, sigv4.Credentials{AccessKey: c.key, SecretKey: testSecret}, "us-east-1", "kinesis", time.Now())
				case c.auth != "":
					r.Header.Set("Authorization", c.auth)
				}
				a := w.do(t, r)
				if a.status != c.status {
					t.Errorf("status %d, want %d", a.status, c.status)
				}
				if got := text(t, a); !sameText(got, c.want) {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				if got := a.header.Get("Content-Type"); c.plain && got != "" || !c.plain && got != contentType {
					t.Errorf("content type %q", got)
				}
			})
		}
	}
}

// sameText compares JSON error bodies whatever the order of their two members.
func sameText(got, want string) bool {
	if got == want {
		return true
	}
	parts := regexp.MustCompile(`^\{(".*?":".*?"),(".*":".*")\}$`)
	if m := parts.FindStringSubmatch(want); m != nil {
		return got == "{"+m[2]+","+m[1]+"}"
	}
	return false
}

func TestWrapperOfPlainJSON(t *testing.T) {
	w := newWorld(t, worldOptions{keys: true})
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{`{`, 400, `{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}`},
		{`{}`, 404, `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`},
	} {
		a := w.do(t, w.request(t, prefix+"ListStreams", "application/json; charset=utf-8", []byte(c.body)))
		if a.status != c.status || string(a.body) != c.want || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s %s", c.body, a.status, a.header.Get("Content-Type"), a.body)
		}
	}
}

func TestRepliesHaveTheirHeaders(t *testing.T) {
	w := newWorld(t, worldOptions{})
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, contentType := range []string{typeJSON, typeCBOR} {
		for target, body := range map[string][]byte{
			"ListStreams":    encode(t, contentType, &kinesis.ListStreamsInput{}),
			"CreateStream":   encode(t, contentType, &kinesis.CreateStreamInput{StreamName: api.Ptr("a"), ShardCount: api.Ptr(int32(1))}),
			"DescribeStream": encode(t, contentType, &kinesis.DescribeStreamInput{StreamName: api.Ptr("a")}),
		} {
			r := w.request(t, prefix+target, contentType+" ; charset=utf-8", body)
			r.Header.Set("Origin", "http://example.com")
			a := w.do(t, r)
			if id := a.header.Get("X-Amzn-Requestid"); !uuid.MatchString(id) {
				t.Errorf("%s: request id %q", target, id)
			}
			if raw, err := base64.StdEncoding.DecodeString(a.header.Get("X-Amz-Id-2")); err != nil || len(raw) < 64 {
				t.Errorf("%s: id-2 %q", target, a.header.Get("X-Amz-Id-2"))
			}
			if a.header.Get("Date") == "" || a.header.Get("Content-Length") == "" || a.header.Get("Content-Type") != contentType {
				t.Errorf("%s: headers %v", target, a.header)
			}
			if a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Expose-Headers") != exposed {
				t.Errorf("%s: CORS headers %v", target, a.header)
			}
			if target == "CreateStream" && (a.status != 200 || len(a.body) != 0) {
				t.Errorf("an operation without output answers %d %q", a.status, a.body)
			}
		}
	}
}

func TestPreflight(t *testing.T) {
	w := newWorld(t, worldOptions{keys: true})
	r := w.request(t, "", "", nil)
	r.Method = http.MethodOptions
	r.Header.Set("Origin", "http://example.com")
	r.Header.Set("Access-Control-Request-Headers", "x-amz-target,authorization")
	r.Header.Set("Access-Control-Request-Method", "POST")
	a := w.do(t, r)
	if a.status != 200 || len(a.body) != 0 {
		t.Errorf("preflight answers %d %q", a.status, a.body)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "x-amz-target,authorization",
		"Access-Control-Allow-Methods": "POST", "Access-Control-Max-Age": "172800", "X-Amz-Id-2": "",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestOpenAccessTakesRegionAndAccountFromTheCredentials(t *testing.T) {
	w := newWorld(t, worldOptions{})
	r := w.request(t, prefix+"ListStreams", typeJSON, []byte(`{}`))
	r.Header.Set("Authorization", strings.Replace(anyCredentials, "local/", "123456789012/", 1))
	if a := w.do(t, r); !bytes.Contains(a.body, []byte(`["123456789012","eu-west-1"]`)) {
		t.Errorf("answer is %s", a.body)
	}
}

func TestPanicIsAnInternalFailureAndTheConnectionGoesOn(t *testing.T) {
	w := newWorld(t, worldOptions{})
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for _, c := range []struct{ stream, want, logged string }{
		{"panic", `{"__type":"InternalFailure"}`, "on purpose"},
		{"broken", `{"__type":"InternalFailure"}`, "read shard 7: disk on fire"},
		{"s", `{"__type":"ResourceNotFoundException","message":"Stream <s> not found."}`, ""},
	} {
		reply, err := client.Do(w.request(t, prefix+"DescribeStream", typeJSON, []byte(`{"StreamName":"`+c.stream+`"}`)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(reply.Body)
		reply.Body.Close()
		if string(body) != c.want {
			t.Errorf("%s: %s", c.stream, body)
		}
		if c.logged != "" {
			if reply.StatusCode != 500 {
				t.Errorf("%s: status %d", c.stream, reply.StatusCode)
			}
			if log := w.log.String(); !strings.Contains(log, c.logged) || !strings.Contains(log, reply.Header.Get("X-Amzn-Requestid")) {
				t.Errorf("%s: the log does not tell: %s", c.stream, log)
			}
		}
	}
	if n := len(w.outcomes); n != 3 {
		t.Errorf("%d outcomes", n)
	}
}

func TestCallsAboveTheirRateAreRefused(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := quota.New(quota.Options{Enforce: true, Now: func() time.Time { return now }})
	w := newWorld(t, worldOptions{limiter: l})
	refused := 0
	for range 50 {
		a := w.do(t, w.request(t, prefix+"DescribeStream", typeJSON, []byte(`{"StreamName":"s"}`)))
		if bytes.Contains(a.body, []byte(`"LimitExceededException"`)) {
			refused++
			if want := `{"__type":"LimitExceededException","message":"Rate exceeded for stream s under account 000000000000."}`; string(a.body) != want {
				t.Fatalf("refusal is %s", a.body)
			}
		}
	}
	if refused == 0 || refused == 50 {
		t.Errorf("%d of 50 calls refused", refused)
	}
}

func TestLargeBodiesArriveWhole(t *testing.T) {
	w := newWorld(t, worldOptions{keys: true})
	for _, size := range []int{100, 64 << 10, 1 << 20, 1<<20 + 1, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			in := &kinesis.PutRecordsInput{StreamName: api.Ptr("s")}
			for left := size; left > 0; left -= 900 << 10 {
				in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: bytes.Repeat([]byte{7}, min(left, 900<<10)), PartitionKey: api.Ptr("k")})
			}
			body := encode(t, typeJSON, in)
			r := w.request(t, prefix+"PutRecords", typeJSON, body)
			r.Header.Del("Authorization")
			sigv4.Sign(r, body, sigv4.Credentials{AccessKey: testKey, SecretKey: testSecret}, "us-east-1", "kinesis", time.Now())
			if chunked {
				r.ContentLength = -1
			}
			if a := w.do(t, r); a.status != 200 || bytes.Count(a.body, []byte("SequenceNumber")) != len(in.Records) {
				t.Errorf("size %d, chunked %v: %d %.300s", size, chunked, a.status, a.body)
			}
		}
	}
}

// FuzzPipeline finds requests that panic or are not answered.
func FuzzPipeline(f *testing.F) {
	f.Add("POST", prefix+"ListStreams", typeJSON, anyCredentials, []byte(`{}`))
	f.Add("POST", prefix+"PutRecords", typeCBOR, anyCredentials, []byte{0xa0})
	f.Add("GET", "", "", "", []byte(nil))
	f.Add("POST", prefix+"DescribeStream", "application/json", anyCredentials, []byte(`{"StreamName":"s"}`))
	w := newWorld(f, worldOptions{})
	f.Fuzz(func(t *testing.T, method, target, contentType, authorization string, body []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Method = method
		r.Header.Set("X-Amz-Target", target)
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Authorization", authorization)
		record := &memoryWriter{header: http.Header{}}
		w.mux.ServeHTTP(record, r)
		if record.status == 0 || record.status == 500 {
			t.Fatalf("status %d", record.status)
		}
	})
}

type memoryWriter struct {
	header http.Header
	status int
}

func (m *memoryWriter) Header() http.Header         { return m.header }
func (m *memoryWriter) Write(p []byte) (int, error) { return len(p), nil }
func (m *memoryWriter) WriteHeader(status int)      { m.status = status }
