package functions

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/sigv4"
)

// endpoint serves one answer, and keeps what it was asked.
type endpoint struct {
	*httptest.Server
	status  int
	headers map[string]string
	body    string
	asked   *http.Request
	event   string
}

func newEndpoint(t *testing.T) *endpoint {
	e := &endpoint{status: 200, body: `{"ok":true}`}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		e.asked, e.event = r, string(b)
		for k, v := range e.headers {
			w.Header().Set(k, v)
		}
		w.WriteHeader(e.status)
		_, _ = io.WriteString(w, e.body)
	}))
	t.Cleanup(e.Close)
	return e
}

func (f *fixture) routesAre(t *testing.T, text string) {
	t.Helper()
	write(t, filepath.Join(f.dir, routesFile), text, 0o644)
	table, err := f.loadRoutes()
	if err != nil {
		t.Fatal(err)
	}
	f.routes.Swap(table).close()
}

func TestLambdaAPI(t *testing.T) {
	e := newEndpoint(t)
	f := start(t, nil)
	f.routesAre(t, `
functions:
  - match: arn:aws:lambda:*:function:far-*
    invoker: lambda-api
    url: `+e.URL+`/
    region: us-west-2
    access_key: AKIDFAR
    secret_key: far-secret
`)
	e.headers = map[string]string{"X-Amz-Executed-Version": "12", "X-Amz-Log-Result": "bG9n"}
	a, err := f.Invoke(t.Context(), Request{Function: "arn:aws:lambda:us-west-2:123456789012:function:far-one:prod", Payload: []byte(`{"n":1}`), ClientContext: `{}`, Tail: true})
	if err != nil || string(a.Payload) != `{"ok":true}` || a.Version != "12" || string(a.Log) != "log" {
		t.Fatalf("%+v %v", a, err)
	}
	if got := e.asked.URL.EscapedPath() + "?" + e.asked.URL.RawQuery; got != "/2015-03-31/functions/arn:aws:lambda:us-west-2:123456789012:function:far-one/invocations?Qualifier=prod" || e.event != `{"n":1}` ||
		e.asked.Header.Get("X-Amz-Invocation-Type") != "RequestResponse" || e.asked.Header.Get("X-Amz-Log-Type") != "Tail" || e.asked.Header.Get("X-Amz-Client-Context") != "e30=" {
		t.Errorf("asked %s %v %s", got, e.asked.Header, e.event)
	}
	verifier := sigv4.NewVerifier(sigv4.KeysFunc(func(key, _ string) (string, error) {
		if key != "AKIDFAR" {
			return "", sigv4.ErrUnknownKey
		}
		return "far-secret", nil
	}), sigv4.Options{})
	if signed, err := verifier.Verify(e.asked, sigv4.Request{Service: "lambda", Sum: func() [sha256.Size]byte { return sha256.Sum256([]byte(e.event)) }}); err != nil || signed.Region != "us-west-2" {
		t.Errorf("the signature does not hold: %v", err)
	}

	e.headers = map[string]string{"X-Amz-Function-Error": "Unhandled"}
	if a, err := f.Invoke(t.Context(), Request{Function: "far-two"}); err != nil || a.FunctionError != "Unhandled" || e.asked.URL.Path != "/2015-03-31/functions/far-two/invocations" {
		t.Errorf("%+v %v %s", a, err, e.asked.URL)
	}

	for name, c := range map[string]struct {
		status                         int
		kind, body                     string
		code, message, delivery, after string
	}{
		"throttled":  {429, "TooManyRequestsException", `{"Reason":"x","Type":"User","message":"Rate Exceeded."}`, "TooManyRequestsException", "Rate Exceeded.", "Lambda.InvokeLimitExceeded", "2"},
		"missing":    {404, "ResourceNotFoundException", `{"Type":"User","Message":"Function not found: x"}`, "ResourceNotFoundException", "Function not found: x", "Lambda.ResourceNotFound", ""},
		"denied":     {403, "AccessDeniedException:http://internal.amazon.com/", `{"Message":"no"}`, "AccessDeniedException", "no", "Lambda.InvokeAccessDenied", ""},
		"token":      {403, "UnrecognizedClientException", `{"message":"no"}`, "UnrecognizedClientException", "no", "Lambda.InvalidSecurityToken", ""},
		"zip":        {502, "InvalidZipFileException", `{"Message":"bad"}`, "InvalidZipFileException", "bad", "Lambda.InvalidZipFileException", ""},
		"internal":   {500, "ServiceException", `{"Message":"oops"}`, "ServiceException", "oops", "Lambda.InternalServerError", ""},
		"proxy":      {503, "", `<html>`, "ServiceException", "answered 503.", "Lambda.ServiceUnavailable", ""},
		"json style": {400, "", `{"__type":"com.amazon#InvalidParameterValueException","message":"hm"}`, "InvalidParameterValueException", "hm", "Lambda.InvocationFailure", ""},
		"redirected": {302, "", ``, "ServiceException", "answered 302.", "Lambda.InvocationFailure", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e.status, e.body = c.status, c.body
			e.headers = map[string]string{"X-Amzn-Errortype": c.kind, "Retry-After": c.after, "Location": "http://127.0.0.1:1/"}
			_, err := f.Invoke(t.Context(), Request{Function: "far-two"})
			var got *Error
			if !errors.As(err, &got) || got.Code != c.code || !strings.HasSuffix(got.Message, c.message) || got.Delivery != c.delivery || got.Status != c.status ||
				got.Throttled != (c.status == 429 || c.status == 503) || (got.After == 2*time.Second) != (c.after != "") {
				t.Errorf("%+v", err)
			}
		})
	}
}

func TestEmulator(t *testing.T) {
	e := newEndpoint(t)
	f := start(t, nil)
	f.routesAre(t, "functions: [{match: box, invoker: rie, url: '"+e.URL+"'}]")
	for name, c := range map[string]struct {
		status        int
		body          string
		payload, kind string
		code          string
	}{
		"result":         {200, `{"records":[],"errorMessage":"of a record"}`, `{"records":[],"errorMessage":"of a record"}`, "", ""},
		"text":           {200, `"errorMessage"`, `"errorMessage"`, "", ""},
		"function error": {200, `{"errorMessage":"bad","errorType":"ValueError"}`, `{"errorMessage":"bad","errorType":"ValueError"}`, "Unhandled", ""},
		"timeout":        {200, `Task timed out after 3.00 seconds`, `{"errorMessage":"Task timed out after 3.00 seconds","errorType":"Sandbox.Timedout"}`, "Unhandled", ""},
		"crash":          {502, `{"errorMessage":"exit status 1"}`, `{"errorMessage":"exit status 1","errorType":"Runtime.ExitError"}`, "Unhandled", ""},
		"busy":           {400, ``, "", "", "TooManyRequestsException"},
		"reservation":    {504, ``, "", "", "ServiceException"},
	} {
		t.Run(name, func(t *testing.T) {
			e.status, e.body = c.status, c.body
			a, err := f.Invoke(t.Context(), Request{Function: "box"})
			var got *Error
			if c.code != "" {
				if !errors.As(err, &got) || got.Code != c.code {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || string(a.Payload) != c.payload || a.FunctionError != c.kind {
				t.Errorf("%s %s %v", a.Payload, a.FunctionError, err)
			}
			if e.asked.URL.Path != "/2015-03-31/functions/function/invocations" {
				t.Errorf("asked %s", e.asked.URL)
			}
		})
	}
}

func TestPlainHTTP(t *testing.T) {
	e := newEndpoint(t)
	f := start(t, nil)
	f.routesAre(t, "functions: [{match: 'web?', invoker: http, url: '"+e.URL+"/in?x=1', headers: {X-Key: k}}]")
	if a, err := f.Invoke(t.Context(), Request{Function: "web1:v", Payload: []byte("[1]")}); err != nil || string(a.Payload) != `{"ok":true}` ||
		e.asked.URL.String() != "/in?x=1" || e.asked.Header.Get("X-Key") != "k" || e.event != "[1]" || e.asked.Header.Get("Authorization") != "" {
		t.Errorf("%s %v %v", a.Payload, err, e.asked)
	}
	e.body = strings.Repeat("x", MaxPayload+answerMargin+1)
	if a, err := f.Invoke(t.Context(), Request{Function: "web1"}); err != nil || a.FunctionError != "Unhandled" || !strings.Contains(string(a.Payload), "ResponseSizeTooLarge") {
		t.Errorf("%s %v", a.FunctionError, err)
	}
	if _, err := f.Invoke(t.Context(), Request{Function: "web1", Payload: make([]byte, MaxPayload+1)}); err == nil || !strings.Contains(err.Error(), "RequestTooLargeException") {
		t.Errorf("a large event: %v", err)
	}
}

func TestEndpointsThatDoNotAnswer(t *testing.T) {
	stuck := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stuck:
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(stuck)
	nobody := newEndpoint(t)
	nobody.Close()
	f := start(t, nil)
	f.routesAre(t, "functions:\n- {match: slow, invoker: http, url: '"+silent.URL+"', timeout: 50ms, concurrency: 1}\n- {match: dead, invoker: http, url: '"+nobody.URL+"'}\n")
	for name, want := range map[string]string{"slow": "Lambda.FunctionRequestTimedOut", "dead": "Lambda.ServiceUnavailable"} {
		_, err := f.Invoke(t.Context(), Request{Function: name})
		var got *Error
		if !errors.As(err, &got) || got.Delivery != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Invoke(ctx, Request{Function: "slow"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
	closed := start(t, func(o *Options) { o.Outbound = outbound.Policy{ListOnly: true} })
	closed.routesAre(t, "functions: [{match: f, invoker: http, url: 'http://127.0.0.1:1/'}]")
	if _, err := closed.Invoke(t.Context(), Request{Function: "f"}); err == nil || !strings.Contains(err.Error(), "The setting outbound does not let functions be called at 127.0.0.1:1.") {
		t.Errorf("against the policy: %v", err)
	}
}

// Names are looked up exactly, then without their qualifier, then among the
// directories, then by pattern.
func TestWhichEntryIsTaken(t *testing.T) {
	f := start(t, nil)
	e := newEndpoint(t)
	at := func(path string) string { return e.URL + path }
	f.routesAre(t, `
functions:
  - {match: '*', invoker: http, url: `+at("/any")+`}
  - {match: 'f:blue', invoker: http, url: `+at("/blue")+`}
  - {match: 'arn:aws:lambda:us-east-1:123456789012:function:f', invoker: http, url: `+at("/arn")+`}
  - {match: 'g', invoker: http, url: `+at("/g")+`}
`)
	f.bootstrap(t, "here", "echo", "")
	f.bootstrap(t, "g", "echo", "")
	for name, want := range map[string]string{
		"f:blue": "/blue", "f": "/any", "arn:aws:lambda:us-east-1:123456789012:function:f:green": "/arn", "arn:aws:lambda:us-east-1:123456789012:function:f:blue": "/blue",
		"g:x": "/g", "other": "/any", "here": "",
	} {
		e.asked = &http.Request{URL: &url.URL{}}
		if _, err := f.Invoke(t.Context(), Request{Function: name}); err != nil || e.asked.URL.Path != want {
			t.Errorf("%s went to %q (%v), want %q", name, e.asked.URL.Path, err, want)
		}
	}
}

func TestRoutesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {"functions: [{match: f, invokr: http}]", "unknown field"},
		"no match":    {"functions: [{invoker: http, url: 'http://x'}]", "function 1: match is empty"},
		"bad match":   {"functions: [{match: a.b, invoker: http, url: 'http://x'}]", `match "a.b" is neither`},
		"invoker":     {"functions: [{match: f, invoker: telnet, url: 'http://x'}]", `invoker "telnet" is not lambda-api, rie or http`},
		"url":         {"functions: [{match: f, invoker: http, url: 'file:///etc/passwd'}]", "is not an http or https address"},
		"half a key":  {"functions: [{match: f, invoker: lambda-api, url: 'http://x', access_key: a}]", "access_key and secret_key go together"},
		"not signed":  {"functions: [{match: f, invoker: http, url: 'http://x', access_key: a, secret_key: b}]", "does not sign"},
		"timeout":     {"functions: [{match: f, invoker: http, url: 'http://x', timeout: 1h}]", "timeout 1h0m0s is out of range"},
		"concurrency": {"functions: [{match: f, invoker: http, url: 'http://x', concurrency: -1}]", "concurrency -1 is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, routesFile), c.text, 0o644)
			if _, err := New(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// While the server runs, a file that cannot be read changes nothing.
func TestRoutesAreReadAgain(t *testing.T) {
	e := newEndpoint(t)
	f := start(t, func(o *Options) { o.Recheck = time.Nanosecond })
	ask := func() error {
		_, err := f.Invoke(t.Context(), Request{Function: "f"})
		return err
	}
	if ask() == nil {
		t.Fatal("a function out of nothing")
	}
	write(t, filepath.Join(f.dir, routesFile), "functions: [{match: f, invoker: http, url: '"+e.URL+"'}]", 0o644)
	if err := ask(); err != nil {
		t.Errorf("after the file came: %v", err)
	}
	write(t, filepath.Join(f.dir, routesFile), "functions: broken", 0o644)
	if err := ask(); err != nil {
		t.Errorf("with a broken file: %v", err)
	}
	write(t, filepath.Join(f.dir, routesFile), "functions: []", 0o644)
	if ask() == nil {
		t.Error("an entry that was taken out still counts")
	}
}
