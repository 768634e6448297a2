package sigv4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
)

const (
	testKey    = "AKIDEXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func testKeys(tokens ...string) Keys {
	return KeysFunc(func(accessKey, token string) (string, error) {
		if accessKey != testKey {
			return "", ErrUnknownKey
		}
		if token == "old" {
			return "", ErrExpiredToken
		}
		if token != "" && (len(tokens) == 0 || tokens[0] != token) {
			return "", ErrUnknownKey
		}
		return testSecret, nil
	})
}

func testVerifier(now time.Time, tokens ...string) *Verifier {
	return NewVerifier(testKeys(tokens...), Options{Now: func() time.Time { return now }})
}

func sumOf(body []byte) func() [32]byte {
	return func() [32]byte { return sha256.Sum256(body) }
}

// arrive turns a client's request into what a server sees of it.
func arrive(t testing.TB, r *http.Request, body []byte) *http.Request {
	t.Helper()
	s := httptest.NewRequestWithContext(context.Background(), r.Method, r.URL.RequestURI(), bytes.NewReader(body))
	s.Host = r.Host
	if s.Host == "" {
		s.Host = r.URL.Host
	}
	s.Header = r.Header.Clone()
	return s
}

func signed(t testing.TB, c Credentials) (*http.Request, []byte) {
	t.Helper()
	body := []byte(`{"StreamName":"orders"}`)
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://127.0.0.1:4567/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.DescribeStream")
	Sign(r, body, c, "us-east-1", "kinesis", testTime)
	return r, body
}

func TestPublishedVectors(t *testing.T) {
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for _, c := range []struct {
		name, method, url, service string
		signed                     []string
		header                     http.Header
		want                       string
	}{
		{"get-vanilla", "GET", "https://example.amazonaws.com/", "service", []string{"host", "x-amz-date"}, nil, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"post-vanilla", "POST", "https://example.amazonaws.com/", "service", []string{"host", "x-amz-date"}, nil, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"get-vanilla-query-order-key-case", "GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1", "service", []string{"host", "x-amz-date"}, nil, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"list users", "GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", "iam", []string{"content-type", "host", "x-amz-date"},
			http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(context.Background(), c.method, c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.header != nil {
				r.Header = c.header
			}
			Sign(r, nil, Credentials{AccessKey: testKey, SecretKey: testSecret}, "us-east-1", c.service, at)
			want := "SignedHeaders=" + strings.Join(c.signed, ";") + ", Signature=" + c.want
			if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, want) {
				t.Errorf("Authorization = %s\nwant suffix %s", got, want)
			}
		})
	}
}

// Requests that botocore signed verify, and stop verifying when a byte of the
// body, the secret or a signed header changes.
func TestVectorsOfBotocore(t *testing.T) {
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Method, URL, Body, Token string
		Headers                        map[string]string
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			body, err := hex.DecodeString(v.Body)
			if err != nil {
				t.Fatal(err)
			}
			request := func() *http.Request {
				r, err := http.NewRequestWithContext(context.Background(), v.Method, v.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				for k, value := range v.Headers {
					r.Header.Set(k, value)
				}
				s := arrive(t, r, body)
				// The address is taken as it was written.
				s.RequestURI = strings.TrimPrefix(strings.TrimPrefix(v.URL, "https://"), "http://")
				s.RequestURI = s.RequestURI[strings.IndexByte(s.RequestURI, '/'):]
				return s
			}
			verifier := testVerifier(testTime, v.Token)
			res, err := verifier.Verify(request(), Request{Service: "kinesis", Sum: sumOf(body)})
			if err != nil {
				var refusal *Error
				if errors.As(err, &refusal) {
					t.Log(refusal.Detail)
				}
				t.Fatal(err)
			}
			if res.AccessKey != testKey || res.Region != "eu-west-1" || res.Token != v.Token {
				t.Errorf("result = %+v", res)
			}
			if _, err := verifier.Verify(request(), Request{Sum: sumOf(append(body, 'x'))}); err == nil {
				t.Error("another body is accepted")
			}
			other := request()
			other.Host = "elsewhere"
			if _, err := verifier.Verify(other, Request{Sum: sumOf(body)}); err == nil {
				t.Error("another host is accepted")
			}
			wrong := NewVerifier(KeysFunc(func(string, string) (string, error) { return "secret", nil }), Options{Now: func() time.Time { return testTime }})
			if _, err := wrong.Verify(request(), Request{Sum: sumOf(body)}); err == nil {
				t.Error("another secret is accepted")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	const mismatch = "InvalidSignatureException: " + mismatchText
	auth := func(f func(string) string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", f(r.Header.Get("Authorization"))) }
	}
	replace := func(old, with string) func(*http.Request) {
		return auth(func(s string) string { return strings.Replace(s, old, with, 1) })
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		now    time.Time
		want   string
	}{
		{name: "nothing wrong", want: ""},
		{name: "no authentication", change: func(r *http.Request) { r.Header.Del("Authorization") },
			want: "MissingAuthenticationTokenException: Missing Authentication Token"},
		{name: "another scheme", change: auth(func(string) string { return "Bearer x" }),
			want: "MissingAuthenticationTokenException: Missing Authentication Token"},
		{name: "both forms", change: func(r *http.Request) { r.URL.RawQuery = "X-Amz-Algorithm=x" },
			want: "InvalidSignatureException: Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."},
		{name: "all parts missing", change: func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256")
			r.Header.Del("X-Amz-Date")
		}, want: "IncompleteSignatureException: Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256"},
		{name: "signature missing", change: auth(func(string) string { return "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b" }),
			want: "IncompleteSignatureException: Authorization header requires 'Signature' parameter. Authorization=AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b"},
		{name: "query parts missing", change: func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "X-Amz-Algorithm=&X-Amz-Date=20260304T050607Z"
		}, want: "IncompleteSignatureException: AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include 'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-Signature'. AWS query-string parameters must include 'X-Amz-SignedHeaders'. Re-examine the query-string parameters."},
		{name: "asymmetric", change: replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
			want: "IncompleteSignatureException: Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'."},
		{name: "short credential", change: replace("/us-east-1/kinesis", ""),
			want: "IncompleteSignatureException: Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKIDEXAMPLE/20260304/aws4_request'"},
		{name: "date in words", change: func(r *http.Request) { r.Header.Set("X-Amz-Date", "today") },
			want: "IncompleteSignatureException: Date must be in ISO-8601 'basic format'. Got 'today'. See http://en.wikipedia.org/wiki/ISO_8601"},
		{name: "another service", change: replace("/kinesis/", "/firehose/"),
			want: "InvalidSignatureException: Credential should be scoped to correct service: 'kinesis'."},
		{name: "no region", change: replace("/us-east-1/", "//"),
			want: "InvalidSignatureException: Credential should be scoped to a valid region, not ''."},
		{name: "another terminator", change: replace("aws4_request", "aws5"),
			want: "InvalidSignatureException: Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5'."},
		{name: "another date in the scope", change: replace("/20260304/", "/20260303/"),
			want: "InvalidSignatureException: Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20260303' != '20260304', from '20260304T050607Z'."},
		{name: "unknown key", change: replace("AKIDEXAMPLE", "AKIDOTHER"),
			want: "UnrecognizedClientException: The security token included in the request is invalid."},
		{name: "foreign token", change: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "foreign") },
			want: "UnrecognizedClientException: The security token included in the request is invalid."},
		{name: "expired token", change: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "old") },
			want: "ExpiredTokenException: The security token included in the request is expired"},
		{name: "exactly five minutes late", now: testTime.Add(5 * time.Minute), want: ""},
		{name: "too late", now: testTime.Add(5*time.Minute + time.Second),
			want: "InvalidSignatureException: Signature expired: 20260304T050607Z is now earlier than 20260304T050608Z (20260304T051108Z - 5 min.)"},
		{name: "too early", now: testTime.Add(-6 * time.Minute),
			want: "InvalidSignatureException: Signature not yet current: 20260304T050607Z is still later than 20260304T050507Z (20260304T050007Z + 5 min.)"},
		{name: "another operation", change: func(r *http.Request) { r.Header.Set("X-Amz-Target", "Kinesis_20131202.DeleteStream") }, want: mismatch},
		{name: "operation not signed", change: replace(";x-amz-target", ""),
			want: "InvalidSignatureException: 'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization."},
		{name: "host not signed", change: replace(";host", ""),
			want: "InvalidSignatureException: 'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."},
		{name: "header signed twice", change: replace("content-type;", "content-type;Content-Type;"),
			want: "InvalidSignatureException: 'Content-Type' is listed twice among the signed headers."},
		{name: "hash of another body", change: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", emptyHash) },
			want: "InvalidSignatureException: The provided 'x-amz-content-sha256' header does not match what was computed."},
		{name: "unsigned payload in clear text", change: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", unsignedPayload) },
			want: "InvalidSignatureException: UNSIGNED-PAYLOAD is accepted over TLS only."},
		{name: "chunks", change: func(r *http.Request) {
			r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
		}, want: "InvalidSignatureException: The payload signature form 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD' is not supported by this service."},
		{name: "signature is no hexadecimal", change: auth(func(s string) string { return s[:len(s)-2] + "zz" }), want: mismatch},
		{name: "signature is short", change: auth(func(s string) string { return s[:len(s)-2] }), want: mismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, body := signed(t, Credentials{AccessKey: testKey, SecretKey: testSecret})
			s := arrive(t, r, body)
			if c.change != nil {
				c.change(s)
			}
			now := c.now
			if now.IsZero() {
				now = testTime
			}
			_, err := testVerifier(now).Verify(s, Request{Service: "kinesis", Sum: sumOf(body)})
			got := ""
			if err != nil {
				got = err.Error()
				var modelled api.Error
				if !errors.As(err, &modelled) || modelled.HTTPStatus() != 400 {
					t.Errorf("%T is not a modelled error with status 400", err)
				}
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMismatchDetailHidesTheToken(t *testing.T) {
	r, body := signed(t, Credentials{AccessKey: testKey, SecretKey: testSecret, SessionToken: "very/secret+token"})
	s := arrive(t, r, body)
	s.Header.Set("Content-Type", "text/plain")
	_, err := testVerifier(testTime, "very/secret+token").Verify(s, Request{Sum: sumOf(body)})
	var refusal *Error
	if !errors.As(err, &refusal) {
		t.Fatal(err)
	}
	if strings.Contains(refusal.Detail, "very/secret") || !strings.Contains(refusal.Detail, "content-type:text/plain\n") || !strings.Contains(refusal.Detail, "string to sign:\nAWS4-HMAC-SHA256\n20260304T050607Z") {
		t.Errorf("detail = %s", refusal.Detail)
	}
	if strings.Contains(refusal.ErrorMessage(), "text/plain") {
		t.Error("the message shows the canonical request")
	}
}

// What Go's server takes out of the header map is put back: these headers are
// signed by clients in C and by the JavaScript SDK.
func TestHeadersThatTheServerMoves(t *testing.T) {
	for _, c := range []struct {
		header, value string
		arrange       func(*http.Request)
	}{
		{":authority", "127.0.0.1:4567", func(*http.Request) {}},
		{"content-length", "23", func(r *http.Request) { r.ContentLength = 23; r.Header.Del("Content-Length") }},
		{"transfer-encoding", "chunked", func(r *http.Request) { r.TransferEncoding = []string{"chunked"} }},
		{"x-amz-twice", "a,b c", func(r *http.Request) { r.Header["X-Amz-Twice"] = []string{" a", "b  c "} }},
		{"x-amz-absent", "", func(*http.Request) {}},
	} {
		t.Run(c.header, func(t *testing.T) {
			body := []byte(`{"StreamName":"orders"}`)
			sum := sha256.Sum256(body)
			names := "host;" + c.header
			lines := "host:127.0.0.1:4567\n" + c.header + ":" + c.value + "\n"
			if c.header == ":authority" {
				names, lines = c.header, c.header+":"+c.value+"\n"
			}
			canonical := "POST\n/\n\n" + lines + "\n" + names + "\n" + hex.EncodeToString(sum[:])
			digest := sha256.Sum256([]byte(canonical))
			toSign := "AWS4-HMAC-SHA256\n20260304T050607Z\n20260304/us-east-1/kinesis/aws4_request\n" + hex.EncodeToString(digest[:])
			key := deriveKey(testSecret, "20260304", "us-east-1", "kinesis")
			signature := mac(key[:], toSign)

			r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "http://127.0.0.1:4567/", bytes.NewReader(body))
			r.RequestURI = "/"
			r.Header.Set("X-Amz-Date", "20260304T050607Z")
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260304/us-east-1/kinesis/aws4_request,SignedHeaders="+names+",Signature="+hex.EncodeToString(signature[:]))
			c.arrange(r)
			if _, err := testVerifier(testTime).Verify(r, Request{Service: "kinesis", Sum: sumOf(body)}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPresigned(t *testing.T) {
	body := []byte("{}")
	make := func(c Credentials) *http.Request {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://localhost:4567/a%20b?q=1+2", nil)
		if err != nil {
			t.Fatal(err)
		}
		Presign(r, sha256.Sum256(body), c, "us-east-1", "kinesis", testTime, time.Hour)
		return arrive(t, r, body)
	}
	key := Credentials{AccessKey: testKey, SecretKey: testSecret}
	with := key
	with.SessionToken = "session"
	want := Request{Service: "kinesis", Sum: sumOf(body)}
	for _, now := range []time.Time{testTime, testTime.Add(time.Hour), testTime.Add(-time.Minute)} {
		if _, err := testVerifier(now).Verify(make(key), want); err != nil {
			t.Errorf("at %v: %v", now, err)
		}
	}
	if _, err := testVerifier(testTime.Add(time.Hour+time.Second)).Verify(make(key), want); err == nil || !strings.Contains(err.Error(), "- 60 min.)") {
		t.Errorf("after its life: %v", err)
	}
	if _, err := testVerifier(testTime, "session").Verify(make(with), want); err != nil {
		t.Errorf("signed token: %v", err)
	}
	appended := make(key)
	appended.URL.RawQuery += "&X-Amz-Security-Token=session"
	if _, err := testVerifier(testTime, "session").Verify(appended, want); err != nil {
		t.Errorf("appended token: %v", err)
	}
	for _, bad := range []string{"0", "604801", "-1", "x"} {
		r := make(key)
		r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "X-Amz-Expires=3600", "X-Amz-Expires="+bad, 1)
		var refusal *Error
		if _, err := testVerifier(testTime).Verify(r, want); !errors.As(err, &refusal) || refusal.Code != api.CodeIncompleteSignature {
			t.Errorf("expires %s: %v", bad, err)
		}
	}
}

func TestUnsignedPayload(t *testing.T) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	Sign(r, nil, Credentials{AccessKey: testKey, SecretKey: testSecret}, "us-east-1", "kinesis", testTime)
	never := func() [32]byte { t.Error("the body is hashed"); return [32]byte{} }
	if _, err := testVerifier(testTime).Verify(arrive(t, r, nil), Request{Secure: true, Sum: never}); err != nil {
		t.Errorf("over TLS: %v", err)
	}
	open := NewVerifier(testKeys(), Options{Now: func() time.Time { return testTime }, AllowUnsignedPayload: true})
	if _, err := open.Verify(arrive(t, r, nil), Request{Sum: never}); err != nil {
		t.Errorf("when configured: %v", err)
	}
}

// A cached signing key is of no use to a secret that has been replaced.
func TestReplacedSecret(t *testing.T) {
	secret := testSecret
	v := NewVerifier(KeysFunc(func(string, string) (string, error) { return secret, nil }), Options{Now: func() time.Time { return testTime }})
	r, body := signed(t, Credentials{AccessKey: testKey, SecretKey: testSecret})
	for range 2 {
		if _, err := v.Verify(arrive(t, r, body), Request{Sum: sumOf(body)}); err != nil {
			t.Fatal(err)
		}
	}
	secret = "another"
	if _, err := v.Verify(arrive(t, r, body), Request{Sum: sumOf(body)}); err == nil {
		t.Error("the old secret still verifies")
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c keyCache
	for i := range 5 * cacheGeneration {
		c.put(&Result{AccessKey: fmt.Sprint(i)}, "s", [32]byte{})
		if n := len(c.young) + len(c.old); n > 2*cacheGeneration {
			t.Fatalf("%d keys are kept", n)
		}
	}
	if _, ok := c.get(&Result{AccessKey: fmt.Sprint(5*cacheGeneration - 1)}, "s"); !ok {
		t.Error("the newest key is gone")
	}
}

func FuzzVerify(f *testing.F) {
	r, body := signed(f, Credentials{AccessKey: testKey, SecretKey: testSecret})
	f.Add(r.Header.Get("Authorization"), "", "/")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/d/aws4_request&X-Amz-Signature=0&X-Amz-SignedHeaders=host&X-Amz-Date=20260304T050607Z", "//a/../b%zz")
	f.Add("AWS4-HMAC-SHA256 Credential=,,=,Signature", "a=%&%=+", "*")
	v := testVerifier(testTime)
	good := r.Header.Get("Authorization")
	f.Fuzz(func(t *testing.T, auth, query, path string) {
		s := arrive(t, r, body)
		s.Header.Set("Authorization", auth)
		if auth == "" {
			s.Header.Del("Authorization")
		}
		s.URL.RawQuery, s.RequestURI = query, path
		_, err := v.Verify(s, Request{Service: "kinesis", Sum: sumOf(body)})
		if err == nil && !strings.Contains(auth, good[len(good)-64:]) && !strings.Contains(strings.ToLower(auth), good[len(good)-64:]) {
			t.Errorf("accepted %q %q %q", auth, query, path)
		}
		var modelled api.Error
		if err != nil && !errors.As(err, &modelled) {
			t.Errorf("%T: %v", err, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, size := range []int{0, 1 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			body := make([]byte, size)
			r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://127.0.0.1:4567/", nil)
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-amz-json-1.1")
			r.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
			Sign(r, body, Credentials{AccessKey: testKey, SecretKey: testSecret}, "us-east-1", "kinesis", testTime)
			s := arrive(b, r, body)
			v := testVerifier(testTime)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(s, Request{Service: "kinesis", Sum: sumOf(body)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	r, body := signed(b, Credentials{AccessKey: testKey, SecretKey: testSecret})
	b.ReportAllocs()
	for b.Loop() {
		Sign(r, body, Credentials{AccessKey: testKey, SecretKey: testSecret}, "us-east-1", "kinesis", testTime)
	}
}

// State is kept by region even where nothing is verified, so what cannot be one
// is refused there too.
func TestParseRefusesWhatCannotBeARegion(t *testing.T) {
	parse := func(region, terminator string) error {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=key/20260101/"+region+"/kinesis/"+terminator+", SignedHeaders=host, Signature=0")
		r.Header.Set("X-Amz-Date", "20260101T000000Z")
		_, err := Parse(r)
		return err
	}
	for _, good := range []string{"us-east-1", "local", "My_Region", strings.Repeat("r", 64)} {
		if err := parse(good, "aws4_request"); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a:b", "..", "\u00e9", strings.Repeat("r", 65), strings.Repeat("r", 60000)} {
		err := parse(bad, "aws4_request")
		if err == nil || !strings.Contains(err.Error(), "Credential should be scoped to a valid region, not '") || len(err.Error()) > 5000 {
			t.Errorf("%.70s: %.200v", bad, err)
		}
	}
	if err := parse("a:b", "x"); err == nil || !strings.Contains(err.Error(), "valid terminator") {
		t.Errorf("terminator and region: %v", err)
	}
}
