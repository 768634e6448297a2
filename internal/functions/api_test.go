package functions

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/sigv4"
)

const seed = `
users:
  - name: caller
    keys: [{id: AKIACALLER0000000000, secret: caller-secret}]
    policies:
      - name: call
        document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "lambda:InvokeFunction", Resource: "arn:aws:lambda:us-east-1:123456789012:function:f*"}]}
  - name: reader
    keys: [{id: AKIAREADER0000000000, secret: reader-secret}]
    policies:
      - name: read
        document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: ["lambda:Get*", "lambda:List*"], Resource: "*"}]}
`

type client struct {
	t       *testing.T
	handler *Handler
	key     sigv4.Credentials
}

func (c *client) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:4567"+path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	sigv4.Sign(r, []byte(body), c.key, "us-east-1", "lambda", time.Now())
	w := httptest.NewRecorder()
	if !Recognises(r, []byte(body)) {
		c.t.Fatalf("%s is not recognised", path)
	}
	c.handler.ServeCall(w, r, &api.Call{RequestID: "the-request", Time: time.Now()})
	return w
}

func serve(t *testing.T, f *fixture) (caller, reader *client) {
	t.Helper()
	d, err := iam.Open(context.Background(), &iam.MemoryStore{}, iam.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	s, err := iam.ParseSeed([]byte(seed), "123456789012")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	h := NewHandler(HandlerOptions{Registry: f.Registry, Directory: d, Verifier: sigv4.NewVerifier(d, sigv4.Options{})})
	return &client{t, h, sigv4.Credentials{AccessKey: "AKIACALLER0000000000", SecretKey: "caller-secret"}},
		&client{t, h, sigv4.Credentials{AccessKey: "AKIAREADER0000000000", SecretKey: "reader-secret"}}
}

func TestInvokeAPI(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "f", "print:2", "")
	f.bootstrap(t, "fail", "exit:1", "")
	f.bootstrap(t, "g", "echo", "")
	caller, reader := serve(t, f)
	const invoke = "/2015-03-31/functions/f/invocations"
	for name, c := range map[string]struct {
		who        *client
		path, body string
		headers    []string
		status     int
		want       string   // body
		shows      []string // headers of the answer
	}{
		"answer":          {caller, invoke, `{"n":1}`, nil, 200, `{"n":1}`, []string{"X-Amz-Executed-Version", "$LATEST", "X-Amz-Function-Error", ""}},
		"no event":        {caller, invoke, ``, nil, 200, `{}`, nil},
		"by ARN":          {caller, "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af%3Aprod/invocations", `1`, nil, 200, `1`, nil},
		"by qualifier":    {caller, invoke + "?Qualifier=prod", `1`, nil, 200, `1`, nil},
		"two qualifiers":  {caller, "/2015-03-31/functions/f:a/invocations?Qualifier=b", `1`, nil, 400, `{"Type":"User","Message":"The derived qualifier from the function name does not match the specified qualifier."}`, []string{"X-Amzn-Errortype", "InvalidParameterValueException"}},
		"function error":  {caller, "/2015-03-31/functions/fail/invocations", `{}`, nil, 200, `{"errorMessage":"RequestId: the-request Error: Runtime exited with error: exit status 1","errorType":"Runtime.ExitError"}`, []string{"X-Amz-Function-Error", "Unhandled"}},
		"dry run":         {caller, invoke, `{}`, []string{"X-Amz-Invocation-Type", "DryRun"}, 204, ``, nil},
		"event":           {caller, invoke, `{}`, []string{"X-Amz-Invocation-Type", "Event"}, 202, ``, nil},
		"large event":     {caller, invoke, `"` + strings.Repeat("x", MaxEventPayload) + `"`, []string{"X-Amz-Invocation-Type", "Event"}, 413, `{"Type":"User","Message":"1048578 byte payload is too large for the Event invocation type (limit 1048576 bytes)"}`, []string{"X-Amzn-Errortype", "RequestTooLargeException"}},
		"too large":       {caller, invoke, `"` + strings.Repeat("x", MaxPayload) + `"`, nil, 413, `{"Type":"User","Message":"6291458 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)"}`, nil},
		"unknown type":    {caller, invoke, `{}`, []string{"X-Amz-Invocation-Type", "Later"}, 400, ``, nil},
		"not JSON":        {caller, invoke, `{`, nil, 400, `{"Type":"User","Message":"Could not parse request body into json: unexpected end of JSON input"}`, []string{"X-Amzn-Errortype", "InvalidRequestContentException"}},
		"bad context":     {caller, invoke, `{}`, []string{"X-Amz-Client-Context", "@"}, 400, `{"Type":"User","Message":"Client context must be a valid Base64-encoded JSON object."}`, nil},
		"not there":       {caller, "/2015-03-31/functions/f2/invocations", `{}`, nil, 404, `{"Type":"User","Message":"Function not found: arn:aws:lambda:us-east-1:123456789012:function:f2"}`, []string{"X-Amzn-Errortype", "ResourceNotFoundException"}},
		"dry run of none": {caller, "/2015-03-31/functions/f2/invocations", `{}`, []string{"X-Amz-Invocation-Type", "DryRun"}, 404, `{"Type":"User","Message":"Function not found: arn:aws:lambda:us-east-1:123456789012:function:f2"}`, nil},
		"not allowed": {caller, "/2015-03-31/functions/g/invocations", `{}`, nil, 403,
			`{"Type":"User","Message":"User: arn:aws:iam::123456789012:user/caller is not authorized to perform: lambda:InvokeFunction on resource: arn:aws:lambda:us-east-1:123456789012:function:g because no identity-based policy allows the lambda:InvokeFunction action"}`, []string{"X-Amzn-Errortype", "AccessDeniedException"}},
		"reader calls": {reader, invoke, `{}`, nil, 403, ``, nil},
		"stranger":     {&client{t, caller.handler, sigv4.Credentials{AccessKey: "AKIANOBODY0000000000", SecretKey: "x"}}, invoke, `{}`, nil, 403, ``, []string{"X-Amzn-Errortype", "UnrecognizedClientException"}},
		"wrong secret": {&client{t, caller.handler, sigv4.Credentials{AccessKey: "AKIACALLER0000000000", SecretKey: "x"}}, invoke, `{}`, nil, 403, ``, []string{"X-Amzn-Errortype", "InvalidSignatureException"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.who.t = t
			w := c.who.do("POST", c.path, c.body, c.headers...)
			if w.Code != c.status || c.want != "" && w.Body.String() != c.want {
				t.Errorf("got  %d %s\nwant %d %s", w.Code, w.Body, c.status, c.want)
			}
			for i := 0; i < len(c.shows); i += 2 {
				if got := w.Header().Get(c.shows[i]); got != c.shows[i+1] {
					t.Errorf("%s: %q, want %q", c.shows[i], got, c.shows[i+1])
				}
			}
		})
	}
	w := caller.do("POST", invoke, `{}`, "X-Amz-Log-Type", "Tail")
	tail, err := base64.StdEncoding.DecodeString(w.Header().Get("X-Amz-Log-Result"))
	if err != nil || !strings.Contains(string(tail), "line 1 of the event\n") {
		t.Errorf("log result %q %v", tail, err)
	}
	if w := caller.do("DELETE", "/2015-03-31/functions/f", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "installed by whoever runs the server") {
		t.Errorf("deleting: %d %s", w.Code, w.Body)
	}
}

func TestReadingFunctions(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "one", "echo", "description: The first\ntimeout: 1500ms\nmemory: 100\nconcurrency: 3")
	f.bootstrap(t, "two", "echo", "runtime: ruby")
	write(t, filepath.Join(f.dir, "README", "x"), "", 0o644)
	write(t, filepath.Join(f.dir, ".hidden", "bootstrap"), "", 0o755)
	f.routesAre(t, "functions:\n- {match: far, invoker: http, url: 'http://127.0.0.1:1/', description: Elsewhere, timeout: 7s}\n- {match: 'some-*', invoker: http, url: 'http://127.0.0.1:1/'}\n")
	caller, reader := serve(t, f)
	var list struct {
		Functions []struct {
			FunctionName, FunctionArn, Runtime, Handler, Description, State, StateReason, CodeSha256 string
			Timeout, MemorySize                                                                      int
		}
		NextMarker string
	}
	get := func(path string, v any) {
		t.Helper()
		w := reader.do("GET", path, "")
		if err := json.Unmarshal(w.Body.Bytes(), v); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	get("/2015-03-31/functions?MaxItems=3", &list)
	if len(list.Functions) != 3 || list.Functions[0].FunctionName != "README" || list.Functions[0].State != "Failed" || list.Functions[1].FunctionName != "far" || list.NextMarker != "one" {
		t.Errorf("%+v", list)
	}
	if one := list.Functions[2]; one.FunctionArn != "arn:aws:lambda:us-east-1:123456789012:function:one" || one.Runtime != "provided.al2023" || one.Handler != "bootstrap" ||
		one.Description != "The first" || one.Timeout != 2 || one.MemorySize != 100 || one.State != "Active" || len(one.CodeSha256) != 44 {
		t.Errorf("%+v", one)
	}
	marker := list.NextMarker
	list.NextMarker = ""
	get("/2015-03-31/functions/?Marker="+marker, &list)
	if len(list.Functions) != 1 || list.Functions[0].FunctionName != "two" || !strings.Contains(list.Functions[0].StateReason, `runtime "ruby"`) || list.NextMarker != "" {
		t.Errorf("%+v", list)
	}
	var full struct {
		Configuration struct{ FunctionName, FunctionArn string }
		Concurrency   struct{ ReservedConcurrentExecutions int }
	}
	get("/2015-03-31/functions/one?Qualifier=x", &full)
	if full.Configuration.FunctionArn != "arn:aws:lambda:us-east-1:123456789012:function:one:x" || full.Concurrency.ReservedConcurrentExecutions != 3 {
		t.Errorf("%+v", full)
	}
	var short struct {
		FunctionName string
		Timeout      int
	}
	get("/2015-03-31/functions/some-thing/configuration", &short)
	if short.FunctionName != "some-thing" || short.Timeout != 300 {
		t.Errorf("%+v", short)
	}
	if w := reader.do("GET", "/2015-03-31/functions/nobody", ""); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := caller.do("GET", "/2015-03-31/functions", ""); w.Code != 403 {
		t.Errorf("a caller lists: %d %s", w.Code, w.Body)
	}
}

func TestAsynchronousCallsAreRepeated(t *testing.T) {
	e := newEndpoint(t)
	now := time.Now()
	f := start(t, func(o *Options) { o.Now = func() time.Time { return now } })
	f.routesAre(t, "functions: [{match: f, invoker: http, url: '"+e.URL+"'}]")
	if err := f.InvokeAsync(Request{Function: "g"}); err == nil {
		t.Error("a call of nothing was taken on")
	}
	e.headers = map[string]string{"X-Amz-Function-Error": "Unhandled"}
	if err := f.InvokeAsync(Request{Function: "f", Payload: []byte("7")}); err != nil {
		t.Fatal(err)
	}
	a := f.async
	for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 0} {
		p, pause := a.due(now)
		if p == nil {
			t.Fatalf("attempt %d: nothing is due for %v", i+1, pause)
		}
		if again, _ := a.due(now); again != nil {
			t.Fatal("one call runs twice")
		}
		got := a.attempt(t.Context(), p)
		a.done(p, got)
		if got != want || e.event != "7" {
			t.Errorf("attempt %d: again after %v, want %v", i+1, got, want)
		}
		if p, pause := a.due(now); p != nil || want > 0 && pause > want {
			t.Errorf("attempt %d: due at once, or %v", i+1, pause)
		}
		now = now.Add(want)
	}
	if len(a.waiting) != 0 || a.bytes != 0 {
		t.Errorf("%d calls and %d bytes remain", len(a.waiting), a.bytes)
	}
	// A function that is busy is asked for hours.
	e.status, e.headers = 429, nil
	if err := f.InvokeAsync(Request{Function: "f"}); err != nil {
		t.Fatal(err)
	}
	p, _ := a.due(now)
	if got := a.attempt(t.Context(), p); got != time.Second || p.failures != 0 {
		t.Errorf("again after %v, %d failures", got, p.failures)
	}
	now = now.Add(maxAge)
	if got := a.attempt(t.Context(), p); got != time.Minute || p.failures != 1 {
		t.Errorf("again after %v, %d failures", got, p.failures)
	}
	a.done(p, 0)
	for range maxQueued {
		if err := f.InvokeAsync(Request{Function: "f"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.InvokeAsync(Request{Function: "f"}); err == nil || !strings.Contains(err.Error(), "TooManyRequestsException") {
		t.Errorf("the queue has no bound: %v", err)
	}
}

func TestRunMakesAsynchronousCalls(t *testing.T) {
	called := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{} }))
	defer server.Close()
	f := start(t, nil)
	f.routesAre(t, "functions: [{match: f, invoker: http, url: '"+server.URL+"'}]")
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- f.Run(ctx) }()
	if err := f.InvokeAsync(Request{Function: "f"}); err != nil {
		t.Fatal(err)
	}
	<-called
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
