package objects_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/objects/objectstest"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/vfs"
	"github.com/millrace/millrace/internal/wire"
)

const (
	account = "123456789012"
	rootKey = "AKIAROOTROOTROOTROOT"
	userKey = "AKIAUSERUSERUSERUSER"
	otherID = "AKIAOTHEROTHEROTHERO"
	secret  = "secretsecretsecretsecretsecret"
)

// world is a server with nothing but buckets.
type world struct {
	t     testing.TB
	store *objects.Embedded
	url   string
	addr  string
	http  *http.Client
}

type worldOptions struct {
	open     bool
	files    vfs.FS
	policies map[string]string // of the user
	now      func() time.Time
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	if o.files == nil {
		o.files = vfs.NewMemory()
	}
	store, err := objects.Open(objects.Options{Files: o.files})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	ctx := context.Background()
	directory, err := iam.Open(ctx, &iam.MemoryStore{}, iam.Options{DefaultAccount: account})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(directory.Close)
	if err := directory.PutUser(ctx, &iam.User{Account: account, Name: "user", Policies: o.policies}, false); err != nil {
		t.Fatal(err)
	}
	for id, k := range map[string]iam.AccessKey{rootKey: {Account: account}, userKey: {Account: account, User: "user"}, otherID: {Account: "999999999999"}, "AKIAIOSFODNN7EXAMPLE": {Account: account, Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}} {
		k.ID, k.Active = id, true
		if k.Secret == "" {
			k.Secret = secret
		}
		if err := directory.PutAccessKey(ctx, &k); err != nil {
			t.Fatal(err)
		}
	}
	h := objects.HandlerOptions{Directory: directory}
	if !o.open {
		h.Verifier = sigv4.NewVerifier(directory, sigv4.Options{Now: o.now})
	}
	handler := store.Handler(h)
	mux := wire.NewMux(wire.Options{Directory: directory, Verifier: h.Verifier})
	mux.RouteStream(handler.Recognises, handler)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := wire.NewServer(wire.ServerOptions{Handler: mux})
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
	return &world{t: t, store: store, url: "http://" + l.Addr().String(), addr: l.Addr().String(), http: client}
}

func (w *world) sdk(key string, options ...func(*s3.Options)) *s3.Client {
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &w.url, UsePathStyle: true, HTTPClient: w.http, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	}, options...)
}

func (w *world) bucket(name string) {
	w.t.Helper()
	if err := w.store.CreateBucket(context.Background(), name, account, "us-east-1"); err != nil {
		w.t.Fatal(err)
	}
}

type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request as it stands.
func (w *world) do(method, target string, header map[string]string, body string) reply {
	w.t.Helper()
	r, err := http.NewRequest(method, w.url+target, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v
		}
		r.Header.Set(k, v)
	}
	return w.send(r)
}

func (w *world) send(r *http.Request) reply {
	w.t.Helper()
	a, err := w.http.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{a.StatusCode, a.Header, string(b)}
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestContract(t *testing.T) {
	embedded := func(fsys vfs.FS) func(*testing.T) objects.Store {
		return func(t *testing.T) objects.Store {
			e, err := objects.Open(objects.Options{Files: fsys})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { e.Close() })
			if err := e.CreateBucket(t.Context(), objectstest.Bucket, account, "us-east-1"); err != nil {
				t.Fatal(err)
			}
			return e
		}
	}
	t.Run("in memory", func(t *testing.T) {
		objectstest.Run(t, func(t *testing.T) objects.Store { return embedded(vfs.NewMemory())(t) })
	})
	t.Run("on disk", func(t *testing.T) {
		objectstest.Run(t, func(t *testing.T) objects.Store { return embedded(vfs.OS(t.TempDir()))(t) })
	})
	t.Run("remote", func(t *testing.T) {
		objectstest.Run(t, func(t *testing.T) objects.Store {
			w := newWorld(t, worldOptions{})
			w.bucket(objectstest.Bucket)
			return w.remote(w.url, true)
		})
	})
}

func (w *world) remote(endpoint string, pathStyle bool) *objects.Remote {
	w.t.Helper()
	r, err := objects.NewRemote(context.Background(), objects.RemoteOptions{Endpoint: endpoint, Region: "us-east-1", PathStyle: pathStyle, AccessKey: rootKey, SecretKey: secret, Client: w.http, Attempts: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestBucketsInHosts(t *testing.T) {
	w := newWorld(t, worldOptions{})
	w.bucket("my.bucket-1")
	w.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, w.addr)
	}
	for _, endpoint := range []string{"http://localhost:4567", "http://s3.eu-west-1.amazonaws.com", "http://s3.internal.example:80"} {
		r := w.remote(endpoint, false)
		if _, err := r.Put(t.Context(), "my.bucket-1", "a/b c", strings.NewReader("x"), 1, objects.PutOptions{}); err != nil {
			t.Fatalf("%s: %v", endpoint, err)
		}
		if list, _, err := r.List(t.Context(), "my.bucket-1", "a/", "", 5); err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %v", endpoint, list, err)
		}
		if err := r.HeadBucket(t.Context(), "other"); objects.Code(err) != objects.CodeNoSuchBucket {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestRemoteFailures(t *testing.T) {
	for status, want := range map[int]struct{ body, code, family string }{
		503: {"<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>", "SlowDown", "S3.SlowDown"},
		403: {"<Error><Code>AccessDenied</Code><Message>no</Message></Error>", "AccessDenied", "S3.AccessDenied"},
		400: {"<Error><Code>KMS.NotFoundException</Code><Message>no</Message></Error>", "KMS.NotFoundException", "S3.KMS.NotFoundException"},
		500: {"", "InternalError", "InternalError"},
		405: {"<Error><Code>MethodNotAllowed</Code></Error>", "MethodNotAllowed", "S3.MethodNotAllowed"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			client := &http.Client{Transport: answers(func(*http.Request) *http.Response {
				return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(want.body))}
			})}
			r, err := objects.NewRemote(t.Context(), objects.RemoteOptions{Endpoint: "http://store", Region: "r", AccessKey: "a", SecretKey: "b", Client: client, PathStyle: true, Attempts: 1})
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Put(t.Context(), "bkt", "k", strings.NewReader("x"), 1, objects.PutOptions{})
			if objects.Code(err) != want.code || objects.Family(err) != want.family {
				t.Errorf("%v is %s, family %s", err, objects.Code(err), objects.Family(err))
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		client := &http.Client{Transport: answers(func(*http.Request) *http.Response { return nil })}
		r, err := objects.NewRemote(t.Context(), objects.RemoteOptions{Endpoint: "http://store", Region: "r", AccessKey: "a", SecretKey: "b", Client: client, PathStyle: true, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Put(t.Context(), "bkt", "k", strings.NewReader("x"), 1, objects.PutOptions{})
		if e, ok := errors.AsType[*objects.Error](err); !ok || !e.Retryable() {
			t.Errorf("%v", err)
		}
	})
	t.Run("uploads that fail are aborted", func(t *testing.T) {
		aborted := false
		client := &http.Client{Transport: answers(func(r *http.Request) *http.Response {
			if r.Body != nil {
				io.Copy(io.Discard, r.Body)
			}
			a := &http.Response{StatusCode: 200, Header: http.Header{"Etag": {`"x"`}}, Body: io.NopCloser(strings.NewReader("<R><UploadId>id</UploadId></R>"))}
			switch {
			case r.Method == "DELETE":
				aborted = true
				a.StatusCode = 204
			case r.URL.Query().Get("partNumber") == "2":
				a.StatusCode, a.Body = 500, io.NopCloser(strings.NewReader(""))
			}
			return a
		})}
		r, err := objects.NewRemote(t.Context(), objects.RemoteOptions{Endpoint: "http://store", Region: "r", AccessKey: "a", SecretKey: "b", Client: client, PathStyle: true, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Put(t.Context(), "bkt", "k", bytes.NewReader(make([]byte, 30<<20)), -1, objects.PutOptions{})
		if objects.Code(err) != objects.CodeInternal || !aborted {
			t.Errorf("%v, aborted %t", err, aborted)
		}
	})
}

type answers func(*http.Request) *http.Response

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if a := f(r); a != nil {
		a.Request = r
		return a, nil
	}
	return nil, errors.New("connection refused")
}

// The examples of the service's documentation: a body in signed chunks, and a
// presigned address.
func TestDocumentedSignatures(t *testing.T) {
	w := newWorld(t, worldOptions{now: func() time.Time { return time.Date(2013, 5, 24, 0, 0, 5, 0, time.UTC) }})
	w.bucket("examplebucket")
	data := strings.Repeat("a", 66560)
	chunk := func(part, signature string) string {
		return fmt.Sprintf("%x;chunk-signature=%s\r\n%s\r\n", len(part), signature, part)
	}
	signatures := []string{"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"}
	send := func(body string) reply {
		r, err := http.NewRequest("PUT", w.url+"/examplebucket/chunkObject.txt", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "s3.amazonaws.com"
		for k, v := range map[string]string{
			"x-amz-date": "20130524T000000Z", "x-amz-storage-class": "REDUCED_REDUNDANCY", "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
			"Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": "66560",
			"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
		} {
			r.Header.Set(k, v)
		}
		return w.send(r)
	}
	whole := chunk(data[:65536], signatures[0]) + chunk(data[65536:], signatures[1]) + chunk("", signatures[2])
	if len(whole) != 66824 {
		t.Fatalf("the example has 66824 bytes, not %d", len(whole))
	}
	if a := send(whole); a.status != 200 {
		t.Errorf("the documented chunks: %d %s", a.status, a.body)
	}
	info, err := w.store.Head(t.Context(), "examplebucket", "chunkObject.txt")
	if err != nil || info.Size != 66560 || info.ContentEncoding != "" {
		t.Errorf("%+v, %v", info, err)
	}
	for name, body := range map[string]string{
		"a changed byte":        strings.Replace(whole, "aaaa", "aaba", 1),
		"a changed signature":   strings.Replace(whole, signatures[1], strings.Repeat("0", 64), 1),
		"chunks out of order":   chunk(data[65536:], signatures[1]) + chunk(data[:65536], signatures[0]) + chunk("", signatures[2]),
		"another last chunk":    strings.Replace(whole, signatures[2], strings.Repeat("0", 64), 1),
		"lengths that disagree": "g" + whole[1:],
	} {
		if err := w.store.Delete(t.Context(), "examplebucket", "chunkObject.txt"); err != nil {
			t.Fatal(err)
		}
		if a := send(body); a.status != 403 && a.status != 400 {
			t.Errorf("%s: %d", name, a.status)
		}
		if _, err := w.store.Head(t.Context(), "examplebucket", "chunkObject.txt"); objects.Code(err) != objects.CodeNoSuchKey {
			t.Errorf("%s is stored: %v", name, err)
		}
	}

	if _, err := w.store.Put(t.Context(), "examplebucket", "test.txt", strings.NewReader("hello"), 5, objects.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	const presigned = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
	host := map[string]string{"Host": "examplebucket.s3.amazonaws.com"}
	if a := w.do("GET", presigned, host, ""); a.status != 200 || a.body != "hello" {
		t.Errorf("the documented address: %d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		method, target string
		header         map[string]string
		want           string
	}{
		"another method":   {"PUT", presigned, nil, "SignatureDoesNotMatch"},
		"another key":      {"GET", strings.Replace(presigned, "test", "tesu", 1), nil, "SignatureDoesNotMatch"},
		"longer life":      {"GET", strings.Replace(presigned, "86400", "86401", 1), nil, "SignatureDoesNotMatch"},
		"a header besides": {"GET", presigned, map[string]string{"X-Amz-Copy-Source": "/a/b"}, "AccessDenied"},
		"a part missing":   {"GET", strings.Replace(presigned, "X-Amz-Date", "X-Amz-Dote", 1), nil, "AuthorizationQueryParametersError"},
	} {
		header := map[string]string{"Host": "examplebucket.s3.amazonaws.com"}
		for k, v := range c.header {
			header[k] = v
		}
		if a := w.do(c.method, c.target, header, ""); !strings.Contains(a.body, "<Code>"+c.want+"</Code>") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func TestWhoMayWhat(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, worldOptions{policies: map[string]string{"p": `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::open/mine/*"},
		{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::open","Condition":{"StringLike":{"s3:prefix":"mine/*"}}}]}`}})
	w.bucket("open")
	w.bucket("shut")
	root, user, other := w.sdk(rootKey), w.sdk(userKey), w.sdk(otherID)
	put := func(c *s3.Client, bucket, key string) error {
		_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("x")})
		return err
	}
	list := func(c *s3.Client, bucket, prefix string) error {
		_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"root puts":                  {put(root, "shut", "k"), ""},
		"user puts where allowed":    {put(user, "open", "mine/k"), ""},
		"user puts elsewhere":        {put(user, "open", "k"), "AccessDenied"},
		"user puts in another":       {put(user, "shut", "mine/k"), "AccessDenied"},
		"user lists where allowed":   {list(user, "open", "mine/"), ""},
		"user lists all":             {list(user, "open", ""), "AccessDenied"},
		"another account puts":       {put(other, "open", "mine/k"), "AccessDenied"},
		"another account, no bucket": {put(other, "none", "k"), "NoSuchBucket"},
		"unknown key":                {put(w.sdk("AKIAUNKNOWN"), "open", "k"), "InvalidAccessKeyId"},
		"user copies from elsewhere": {func() error {
			_, err := user.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("open"), Key: aws.String("mine/c"), CopySource: aws.String("shut/k")})
			return err
		}(), "AccessDenied"},
	} {
		if got := code(c.err); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	// A policy of the bucket lets another account in, when its own does too: its
	// root may everything.
	if _, err := root.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: aws.String("shut"), Policy: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"999999999999"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::shut/*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	if out, err := other.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("shut"), Key: aws.String("k")}); err != nil {
		t.Error(err)
	} else {
		out.Body.Close()
	}
	if err := put(other, "shut", "k"); code(err) != "AccessDenied" {
		t.Errorf("what the policy does not say: %v", err)
	}
	if err := func() error {
		_, err := other.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("shut")})
		return err
	}(); code(err) != "BucketAlreadyExists" {
		t.Errorf("another's bucket: %v", err)
	}
	if out, err := other.ListBuckets(ctx, &s3.ListBucketsInput{}); err != nil || len(out.Buckets) != 0 {
		t.Errorf("another's buckets are listed: %v", err)
	}
	// Delete many: each is asked about.
	out, err := user.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String("open"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("mine/k")}}}})
	if code(err) != "AccessDenied" && (err != nil || len(out.Errors) != 1) {
		t.Errorf("%v, %v", out, err)
	}
	for _, target := range []string{"/open/mine/k", "/open", "/open?list-type=2"} {
		if a := w.do("GET", target, nil, ""); a.status != 403 || !strings.Contains(a.body, "<Code>AccessDenied</Code>") {
			t.Errorf("without a signature, %s: %d %s", target, a.status, a.body)
		}
	}
	wrong := s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &w.url, UsePathStyle: true, HTTPClient: w.http, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(rootKey, "wrong", "")})
	if err := put(wrong, "open", "k"); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("a wrong secret: %v", err)
	}
}

func TestConditionsAndRanges(t *testing.T) {
	w := newWorld(t, worldOptions{open: true})
	w.bucket("bkt")
	if _, err := w.store.Put(t.Context(), "bkt", "k", strings.NewReader("0123456789"), 10, objects.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum([]byte("0123456789"))
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	past, future := "Mon, 01 Jan 2001 00:00:00 GMT", "Sun, 01 Jan 2090 00:00:00 GMT"
	for _, c := range []struct {
		name   string
		header map[string]string
		status int
		body   string
	}{
		{"nothing", nil, 200, "0123456789"},
		{"match", map[string]string{"If-Match": etag}, 200, "0123456789"},
		{"match of any", map[string]string{"If-Match": "*"}, 200, "0123456789"},
		{"match of others", map[string]string{"If-Match": `"a", "b"`}, 412, ""},
		{"match outweighs the date", map[string]string{"If-Match": etag, "If-Unmodified-Since": past}, 200, "0123456789"},
		{"unmodified since long", map[string]string{"If-Unmodified-Since": past}, 412, ""},
		{"none match", map[string]string{"If-None-Match": etag}, 304, ""},
		{"none match of others", map[string]string{"If-None-Match": `"x"`}, 200, "0123456789"},
		{"not modified", map[string]string{"If-Modified-Since": future}, 304, ""},
		{"modified", map[string]string{"If-Modified-Since": past}, 200, "0123456789"},
		{"none match outweighs the date", map[string]string{"If-None-Match": `"x"`, "If-Modified-Since": future}, 200, "0123456789"},
		{"range", map[string]string{"Range": "bytes=2-4"}, 206, "234"},
		{"open range", map[string]string{"Range": "bytes=7-"}, 206, "789"},
		{"last bytes", map[string]string{"Range": "bytes=-3"}, 206, "789"},
		{"more last bytes than there are", map[string]string{"Range": "bytes=-30"}, 206, "0123456789"},
		{"range beyond", map[string]string{"Range": "bytes=5-50"}, 206, "56789"},
		{"range behind", map[string]string{"Range": "bytes=10-"}, 416, ""},
		{"huge range", map[string]string{"Range": "bytes=0-9223372036854775807"}, 206, "0123456789"},
		{"no bytes", map[string]string{"Range": "bytes=-0"}, 416, ""},
		{"ranges", map[string]string{"Range": "bytes=0-1,3-4"}, 200, "0123456789"},
		{"nonsense", map[string]string{"Range": "lines=1-2"}, 200, "0123456789"},
		{"backwards", map[string]string{"Range": "bytes=4-2"}, 200, "0123456789"},
		{"range if the same", map[string]string{"Range": "bytes=0-0", "If-Range": etag}, 206, "0"},
		{"range if another", map[string]string{"Range": "bytes=0-0", "If-Range": `"x"`}, 200, "0123456789"},
	} {
		a := w.do("GET", "/bkt/k", c.header, "")
		if a.status != c.status || c.body != "" && a.body != c.body {
			t.Errorf("%s: %d %q", c.name, a.status, a.body)
		}
		head := w.do("HEAD", "/bkt/k", c.header, "")
		if head.status != c.status || head.body != "" || c.status < 300 && head.header.Get("Content-Length") != fmt.Sprint(len(c.body)) {
			t.Errorf("%s, head: %d %s", c.name, head.status, head.header.Get("Content-Length"))
		}
	}
}

func TestDigestsAreHeld(t *testing.T) {
	w := newWorld(t, worldOptions{open: true})
	w.bucket("bkt")
	body := "hello"
	sum := md5.Sum([]byte(body))
	good := base64.StdEncoding.EncodeToString(sum[:])
	crc := crc32.ChecksumIEEE([]byte(body))
	goodCRC := base64.StdEncoding.EncodeToString([]byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
	chunked := func(trailer string) string { return "5\r\nhello\r\n0\r\n" + trailer + "\r\n" }
	trailing := map[string]string{"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Decoded-Content-Length": "5", "X-Amz-Trailer": "x-amz-checksum-crc32", "Content-Encoding": "gzip,aws-chunked"}
	for _, c := range []struct {
		name   string
		header map[string]string
		body   string
		want   string
	}{
		{"digest", map[string]string{"Content-Md5": good}, body, ""},
		{"another digest", map[string]string{"Content-Md5": good}, "other", "BadDigest"},
		{"no digest at all", map[string]string{"Content-Md5": "x"}, body, "InvalidDigest"},
		{"checksum", map[string]string{"X-Amz-Checksum-Crc32": goodCRC}, body, ""},
		{"another checksum", map[string]string{"X-Amz-Checksum-Crc32": "AAAAAA=="}, body, "BadDigest"},
		{"no checksum at all", map[string]string{"X-Amz-Checksum-Sha256": "AAAA"}, body, "InvalidRequest"},
		{"two checksums", map[string]string{"X-Amz-Checksum-Crc32": goodCRC, "X-Amz-Checksum-Crc32c": goodCRC}, body, "InvalidRequest"},
		{"trailing checksum", trailing, chunked("x-amz-checksum-crc32:" + goodCRC + "\r\n"), ""},
		{"another trailing checksum", trailing, chunked("x-amz-checksum-crc32:AAAAAA==\r\n"), "BadDigest"},
		{"no trailing checksum", trailing, chunked(""), "MalformedTrailerError"},
		{"chunks that end early", trailing, "5\r\nhel", "IncompleteBody"},
		{"chunks longer than said", trailing, "6\r\nhello!\r\n0\r\n\r\n", "IncompleteBody"},
		{"chunks shorter than said", trailing, "4\r\nhell\r\n0\r\n\r\n", "IncompleteBody"},
		{"no chunks at all", trailing, "hello\r\n", "InvalidChunk"},
		{"a negative chunk", trailing, "-5\r\nhello\r\n", "InvalidChunk"},
		{"a huge chunk", trailing, "7fffffffffffffff\r\nhello\r\n", "IncompleteBody"},
		{"an endless line", trailing, strings.Repeat("0", 100_000), "InvalidChunk"},
	} {
		if err := w.store.Delete(t.Context(), "bkt", "k"); err != nil {
			t.Fatal(err)
		}
		a := w.do("PUT", "/bkt/k", c.header, c.body)
		ok := c.want == "" && a.status == 200 || c.want != "" && strings.Contains(a.body, "<Code>"+c.want+"</Code>")
		if !ok {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
		info, err := w.store.Head(t.Context(), "bkt", "k")
		if c.want != "" && objects.Code(err) != objects.CodeNoSuchKey {
			t.Errorf("%s is stored", c.name)
		}
		if c.want == "" && (info.Size != 5 || strings.Contains(info.ContentEncoding, "chunked")) {
			t.Errorf("%s: %+v, %v", c.name, info, err)
		}
	}
}

func TestLists(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, worldOptions{})
	w.bucket("bkt")
	for _, k := range []string{"a", "dir/1", "dir/2", "dir/sub/3", "dir0", "e", "x&<\"\x01>"} {
		if _, err := w.store.Put(ctx, "bkt", k, strings.NewReader(k), -1, objects.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c := w.sdk(rootKey)
	for most := int32(1); most < 9; most++ {
		for _, q := range []struct{ prefix, delimiter, want string }{
			{"", "/", `a dir/ dir0 e x&<"` + "\x01>"}, {"dir/", "/", "dir/1 dir/2 dir/sub/"}, {"dir", "", "dir/1 dir/2 dir/sub/3 dir0"}, {"dir", "/", "dir/ dir0"},
			{"", "r", `a dir e x&<"` + "\x01>"}, {"none", "/", ""}, {"", "dir/s", `a dir/1 dir/2 dir/s dir0 e x&<"` + "\x01>"},
		} {
			var got []string
			pages := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), Prefix: &q.prefix, Delimiter: &q.delimiter, MaxKeys: &most, EncodingType: types.EncodingTypeUrl})
			for pages.HasMorePages() {
				p, err := pages.NextPage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Contents)+len(p.CommonPrefixes) > int(most) {
					t.Errorf("a page of %d", len(p.Contents)+len(p.CommonPrefixes))
				}
				got = append(got, merged(t, p.Contents, p.CommonPrefixes)...)
			}
			if text := strings.Join(got, " "); text != q.want {
				t.Errorf("%q by %q, pages of %d: %q", q.prefix, q.delimiter, most, text)
			}
			got = nil
			marker := aws.String("")
			for {
				p, err := c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: aws.String("bkt"), Prefix: &q.prefix, Delimiter: &q.delimiter, MaxKeys: &most, Marker: marker, EncodingType: types.EncodingTypeUrl})
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, merged(t, p.Contents, p.CommonPrefixes)...)
				if !aws.ToBool(p.IsTruncated) {
					break
				}
				next := got[len(got)-1]
				if p.NextMarker != nil {
					next, _ = url.QueryUnescape(*p.NextMarker)
				}
				marker = &next
			}
			if text := strings.Join(got, " "); text != q.want {
				t.Errorf("first version, %q by %q, pages of %d: %q", q.prefix, q.delimiter, most, text)
			}
		}
	}
	for query, want := range map[string]string{"max-keys=-1": "InvalidArgument", "max-keys=x": "InvalidArgument", "encoding-type=x": "InvalidArgument", "list-type=2&continuation-token=*": "InvalidArgument"} {
		r, err := http.NewRequest("GET", w.url+"/bkt?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		sigv4.Sign(r, nil, sigv4.Credentials{AccessKey: rootKey, SecretKey: secret}, "us-east-1", "s3", time.Now())
		if a := w.send(r); !strings.Contains(a.body, "<Code>"+want+"</Code>") {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// merged is a page in the order of its keys, which come encoded.
func merged(t *testing.T, contents []types.Object, prefixes []types.CommonPrefix) []string {
	t.Helper()
	var all []string
	add := func(s string) {
		k, err := url.QueryUnescape(s)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for i < len(all) && all[i] < k {
			i++
		}
		all = append(all[:i], append([]string{k}, all[i:]...)...)
	}
	for _, o := range contents {
		add(*o.Key)
	}
	for _, p := range prefixes {
		add(*p.Prefix)
	}
	return all
}

func TestUploads(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, worldOptions{})
	w.bucket("bkt")
	c := w.sdk(rootKey)
	bucket, key := aws.String("bkt"), aws.String("big file+1")
	for _, algorithm := range []types.ChecksumAlgorithm{"", types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmCrc64nvme, types.ChecksumAlgorithmSha256} {
		for _, kind := range []types.ChecksumType{"", types.ChecksumTypeFullObject} {
			if kind != "" && (algorithm == "" || algorithm == types.ChecksumAlgorithmSha256) {
				continue
			}
			up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ChecksumAlgorithm: algorithm, ChecksumType: kind, ContentType: aws.String("a/b"), Metadata: map[string]string{"m": "v"}})
			if err != nil {
				t.Fatal(err)
			}
			var all []byte
			var parts []types.CompletedPart
			for i, n := range []int{objects.MinPartBytes, objects.MinPartBytes + 1, 17} {
				b := objectstest.Bytes(n)
				all = append(all, b...)
				p, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i*2 + 1)), Body: bytes.NewReader(b), ChecksumAlgorithm: algorithm})
				if err != nil {
					t.Fatalf("%s %s: %v", algorithm, kind, err)
				}
				parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(int32(i*2 + 1)), ETag: p.ETag, ChecksumCRC32: p.ChecksumCRC32, ChecksumCRC32C: p.ChecksumCRC32C, ChecksumCRC64NVME: p.ChecksumCRC64NVME, ChecksumSHA256: p.ChecksumSHA256})
			}
			listed, err := c.ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId})
			if err != nil || len(listed.Parts) != 3 {
				t.Errorf("%v, %v", listed, err)
			}
			uploads, err := c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: bucket})
			if err != nil || len(uploads.Uploads) != 1 || *uploads.Uploads[0].Key != *key {
				t.Errorf("%v, %v", uploads, err)
			}
			in := &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, ChecksumType: kind}
			out, err := c.CompleteMultipartUpload(ctx, in)
			if err != nil {
				t.Fatalf("%s %s: %v", algorithm, kind, err)
			}
			if again, err := c.CompleteMultipartUpload(ctx, in); err != nil || *again.ETag != *out.ETag {
				t.Errorf("the same again: %v", err)
			}
			got, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(got.Body) // the SDK holds it to a checksum of the whole
			got.Body.Close()
			if err != nil || !bytes.Equal(b, all) || aws.ToString(got.ContentType) != "a/b" || got.Metadata["m"] != "v" || *got.ETag != *out.ETag {
				t.Errorf("%s %s: %d bytes, %v", algorithm, kind, len(b), err)
			}
			if kind == types.ChecksumTypeFullObject && aws.ToString(got.ChecksumCRC32)+aws.ToString(got.ChecksumCRC32C)+aws.ToString(got.ChecksumCRC64NVME) == "" {
				t.Error("no checksum of the whole")
			}
			second, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, PartNumber: aws.Int32(2)})
			if err != nil {
				t.Fatal(err)
			}
			b, _ = io.ReadAll(second.Body)
			second.Body.Close()
			if !bytes.Equal(b, objectstest.Bytes(objects.MinPartBytes+1)) || aws.ToInt32(second.PartsCount) != 3 {
				t.Errorf("the second part has %d bytes", len(b))
			}
		}
	}
	begin := func() *string {
		up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return up.UploadId
	}
	part := func(id *string, n int32, size int) types.CompletedPart {
		p, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: id, PartNumber: &n, Body: bytes.NewReader(objectstest.Bytes(size))})
		if err != nil {
			t.Fatal(err)
		}
		return types.CompletedPart{PartNumber: &n, ETag: p.ETag}
	}
	complete := func(id *string, parts ...types.CompletedPart) error {
		_, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
		return err
	}
	id := begin()
	small, large := part(id, 1, 10), part(id, 2, 20)
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"small parts":    {complete(id, small, large), "EntityTooSmall"},
		"order":          {complete(id, large, small), "InvalidPartOrder"},
		"another tag":    {complete(id, types.CompletedPart{PartNumber: aws.Int32(1), ETag: aws.String("x")}), "InvalidPart"},
		"no such part":   {complete(id, types.CompletedPart{PartNumber: aws.Int32(7), ETag: small.ETag}), "InvalidPart"},
		"none":           {complete(id), "MalformedXML"},
		"no such upload": {complete(aws.String("nothing"), small), "NoSuchUpload"},
		"one is enough":  {complete(id, large), ""},
	} {
		if name == "one is enough" {
			continue // below: it ends the upload
		}
		if got := code(c.err); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	id = begin()
	part(id, 1, 5)
	if _, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id}); err != nil {
		t.Error(err)
	}
	if _, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id}); code(err) != "NoSuchUpload" {
		t.Errorf("an upload that has been aborted: %v", err)
	}
	id = begin()
	p, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(1), CopySource: aws.String("bkt/" + url.PathEscape(*key)), CopySourceRange: aws.String("bytes=1-3")})
	if err != nil {
		t.Fatal(err)
	}
	before, _, err := w.store.Get(ctx, "bkt", *key, objects.Range{Offset: 1, Length: 3})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := io.ReadAll(before)
	before.Close()
	if err := complete(id, types.CompletedPart{PartNumber: aws.Int32(1), ETag: p.CopyPartResult.ETag}); err != nil {
		t.Fatal(err)
	}
	after, _, err := w.store.Get(ctx, "bkt", *key, objects.Range{})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(after)
	after.Close()
	if !bytes.Equal(got, want) {
		t.Errorf("a copied part holds %q, not %q", got, want)
	}
}

func TestCopies(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, worldOptions{})
	w.bucket("from")
	w.bucket("to-there")
	c := w.sdk(rootKey)
	key := "dir/sp ace+plus%25ü"
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("from"), Key: &key, Body: strings.NewReader("data"), ContentType: aws.String("t/x"), Metadata: map[string]string{"a": "1"}, Tagging: aws.String("k=v")}); err != nil {
		t.Fatal(err)
	}
	source := aws.String("from/" + strings.ReplaceAll(url.QueryEscape(key), "+", "%20"))
	for name, x := range map[string]struct {
		in          *s3.CopyObjectInput
		kind, value string
		want        string
	}{
		"as it is":   {&s3.CopyObjectInput{}, "t/x", "1", ""},
		"with other": {&s3.CopyObjectInput{MetadataDirective: types.MetadataDirectiveReplace, ContentType: aws.String("t/y"), Metadata: map[string]string{"a": "2"}}, "t/y", "2", ""},
		"if another": {&s3.CopyObjectInput{CopySourceIfMatch: aws.String("x")}, "", "", "PreconditionFailed"},
		"nothing":    {&s3.CopyObjectInput{CopySource: aws.String("from/none")}, "", "", "NoSuchKey"},
	} {
		x.in.Bucket, x.in.Key = aws.String("to-there"), aws.String(name)
		if x.in.CopySource == nil {
			x.in.CopySource = source
		}
		_, err := c.CopyObject(ctx, x.in)
		if code(err) != x.want {
			t.Errorf("%s: %v", name, err)
		}
		if x.want != "" {
			continue
		}
		head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("to-there"), Key: aws.String(name)})
		if err != nil || aws.ToString(head.ContentType) != x.kind || head.Metadata["a"] != x.value || aws.ToInt64(head.ContentLength) != 4 {
			t.Errorf("%s: %+v, %v", name, head, err)
		}
	}
	if _, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("from"), Key: &key, CopySource: source}); code(err) != "InvalidRequest" {
		t.Errorf("onto itself: %v", err)
	}
	tags, err := c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: aws.String("to-there"), Key: aws.String("as it is")})
	if err != nil || len(tags.TagSet) != 1 {
		t.Errorf("tags: %v, %v", tags, err)
	}
}

// What is not for objects is left to others.
func TestOthersRequestsAreNotTaken(t *testing.T) {
	w := newWorld(t, worldOptions{open: true})
	w.bucket("bkt")
	h := w.store.Handler(objects.HandlerOptions{Hosts: []string{"mill.example"}})
	for _, c := range []struct {
		name, method, target string
		header               map[string]string
		want                 bool
	}{
		{"scope s3", "POST", "/", map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=x"}, true},
		{"scope kinesis on a bucket's path", "POST", "/bkt", map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/r/kinesis/aws4_request, SignedHeaders=host, Signature=x"}, false},
		{"scope lambda", "GET", "/2015-03-31/functions/bkt", map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/r/lambda/aws4_request, SignedHeaders=host, Signature=x"}, false},
		{"target", "POST", "/bkt", map[string]string{"X-Amz-Target": "Kinesis_20131202.ListStreams"}, false},
		{"presigned s3", "GET", "/bkt/k?X-Amz-Credential=A%2F20260101%2Fr%2Fs3%2Faws4_request", nil, true},
		{"presigned sts", "GET", "/bkt?Action=GetCallerIdentity&X-Amz-Credential=A%2F20260101%2Fr%2Fsts%2Faws4_request", nil, false},
		{"unsigned, a bucket", "GET", "/bkt/k", nil, true},
		{"unsigned, no bucket", "GET", "/other/k", nil, false},
		{"unsigned, the root", "GET", "/", nil, false},
		{"unsigned call of STS", "POST", "/", nil, false},
		{"a question of a browser", "OPTIONS", "/bkt/k", nil, false},
		{"host of a bucket", "GET", "/k", map[string]string{"Host": "some.s3.eu-west-1.example.com"}, true},
		{"host of ours", "GET", "/k", map[string]string{"Host": "bkt.mill.example:4567"}, true},
		{"our host", "GET", "/k", map[string]string{"Host": "mill.example"}, false},
		{"an address", "GET", "/k", map[string]string{"Host": "[::1]:4567"}, false},
		{"another service's host", "POST", "/", map[string]string{"Host": "kinesis.us-east-1.amazonaws.com"}, false},
	} {
		r, err := http.NewRequest(c.method, "http://127.0.0.1"+c.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range c.header {
			if k == "Host" {
				r.Host = v
				continue
			}
			r.Header.Set(k, v)
		}
		if got := h.Recognises(r); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestHostileDocuments(t *testing.T) {
	w := newWorld(t, worldOptions{open: true})
	w.bucket("bkt")
	if _, err := w.store.Put(t.Context(), "bkt", "k", strings.NewReader("x"), 1, objects.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	many := strings.Repeat("<Object><Key>k</Key></Object>", 1001)
	for name, body := range map[string]string{
		"nothing":         "",
		"not XML":         "{}",
		"cut off":         "<Delete><Object><Key>k",
		"another root":    "<Remove/>",
		"no objects":      "<Delete></Delete>",
		"too many":        "<Delete>" + many + "</Delete>",
		"an entity":       `<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&e;</Key></Object></Delete>`,
		"laughs":          `<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>`,
		"two documents":   "<Delete><Object><Key>k</Key></Object></Delete><Delete/>",
		"deep":            "<Delete>" + strings.Repeat("<a>", 200_000),
		"another charset": `<?xml version="1.0" encoding="UTF-16"?><Delete/>`,
	} {
		if a := w.do("POST", "/bkt?delete", nil, body); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if _, err := w.store.Head(t.Context(), "bkt", "k"); err != nil {
		t.Errorf("a refused document has deleted: %v", err)
	}
	if a := w.do("POST", "/bkt?delete", nil, strings.Repeat(" ", 5<<20)); a.status != 400 || !strings.Contains(a.body, "EntityTooLarge") {
		t.Errorf("a large document: %d", a.status)
	}
	for name, c := range map[string]struct {
		method, target string
		header         map[string]string
		status         int
	}{
		"a long key":             {"PUT", "/bkt/" + strings.Repeat("k", 1025), nil, 400},
		"bytes that are no text": {"PUT", "/bkt/%ff%fe", nil, 400},
		"dots for a bucket":      {"GET", "/..%2f..%2fetc", map[string]string{"Host": "x.s3.local"}, 404},
		"another method":         {"PATCH", "/bkt/k", nil, 405},
		"encryption":             {"PUT", "/bkt?encryption", nil, 501},
		"versioning":             {"PUT", "/bkt?versioning", nil, 400},
		"metadata without end":   {"PUT", "/bkt/k", map[string]string{"X-Amz-Meta-A": strings.Repeat("a", 3000)}, 400},
		"an access list":         {"PUT", "/bkt/k", map[string]string{"X-Amz-Acl": "public-read"}, 400},
		"a customer's key":       {"PUT", "/bkt/k", map[string]string{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}, 501},
		"a part of no number":    {"PUT", "/bkt/k?uploadId=x&partNumber=0", nil, 400},
		"a query of nonsense":    {"GET", "/bkt?%zz", nil, 400},
	} {
		if a := w.do(c.method, c.target, c.header, ""); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// What is stored under strange names comes back under them, and from nowhere
	// else.
	for _, key := range []string{"../../etc/passwd", "a//b", "./c", "nul\x00nul", "new\nline"} {
		target := "/bkt/" + strings.ReplaceAll(url.PathEscape(key), "%2F", "/")
		r, err := http.NewRequest("PUT", w.url, strings.NewReader(key))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque = "//" + w.addr + target
		if a := w.send(r); a.status != 200 {
			t.Errorf("put %q: %d %s", key, a.status, a.body)
		}
		if info, err := w.store.Head(t.Context(), "bkt", key); err != nil || info.Size != int64(len(key)) {
			t.Errorf("%q: %v", key, err)
		}
	}
}
