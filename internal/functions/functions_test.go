package functions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	golambda "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"go.uber.org/goleak"
)

// The test binary is its own bootstrap: with this variable it serves events in
// the way that the value names.
const modeVariable = "MILLRACE_TEST_BOOTSTRAP"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(modeVariable); mode {
	case "":
		goleak.VerifyTestMain(m)
	case "library":
		golambda.Start(libraryHandler)
	case "server":
		serveUntilKilled()
	default:
		misbehave(mode)
	}
}

func libraryHandler(ctx context.Context, event map[string]any) (map[string]any, error) {
	if text, ok := event["fail"].(string); ok {
		return nil, errors.New(text)
	}
	if event["panic"] != nil {
		panic("gone")
	}
	lc, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	fmt.Println("event", event["n"])
	return map[string]any{"n": event["n"], "arn": lc.InvokedFunctionArn, "id": lc.AwsRequestID, "left": time.Until(deadline) > 0, "client": lc.ClientContext.Custom["who"]}, nil
}

// runtimeClient speaks the Runtime API in any order, also a wrong one.
type runtimeClient struct{ base string }

func (c runtimeClient) do(method, path, body string) (status int, text, id string) {
	base := c.base
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		base, path = strings.TrimSuffix(base, "/2018-06-01/runtime"), "/"+rest
	}
	r, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error(), ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b), res.Header.Get("Lambda-Runtime-Aws-Request-Id")
}

func misbehave(mode string) {
	c := runtimeClient{"http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime"}
	mode, argument, _ := strings.Cut(mode, ":")
	if counter := os.Getenv("COUNTER"); counter != "" {
		f, _ := os.OpenFile(counter, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		fmt.Fprintln(f, os.Getpid())
		f.Close()
	}
	switch mode {
	case "exit-at-start":
		fmt.Println("cannot go on")
		os.Exit(3)
	case "init-error":
		early, text, _ := c.do("POST", "/invocation/none/response", "{}")
		fmt.Println(early, text)
		fmt.Println(c.do("POST", "/init/error", `{"errorMessage":"no database","errorType":"Setup.Failed"}`))
		<-make(chan struct{}) // stays, as it should not
	case "never-ready":
		select {}
	}
	for {
		_, event, id := c.do("GET", "/invocation/next", "")
		answer := "/invocation/" + id + "/response"
		var said string
		say := func(status int, text, _ string) { said += fmt.Sprintf("%d %s|", status, strings.TrimSpace(text)) }
		switch mode {
		case "hang":
			fmt.Println("hanging")
			select {}
		case "exit":
			code, _ := strconv.Atoi(argument)
			fmt.Println("about to exit")
			os.Exit(code)
		case "orphan":
			child := exec.Command("sleep", "1000")
			if err := child.Start(); err != nil {
				panic(err)
			}
			c.do("POST", answer, fmt.Sprintf(`{"child":%d}`, child.Process.Pid))
			continue
		case "oversize":
			n, _ := strconv.Atoi(argument)
			status, _, _ := c.do("POST", answer, `"`+strings.Repeat("x", n-2)+`"`)
			fmt.Println("answered", status)
			continue
		case "order":
			say(c.do("POST", "/invocation/not-mine/response", "{}"))
			say(c.do("POST", "/invocation/not-mine/error", "{}"))
			say(c.do("GET", "/invocation/next", ""))
			say(c.do("POST", "/init/error", "{}"))
			say(c.do("POST", "/invocation/"+id+"/nonsense", "{}"))
			say(c.do("GET", "//2018-06-01/ping", ""))
			say(c.do("PUT", "//2022-07-01/telemetry", "{}"))
			quoted, _ := json.Marshal(said)
			c.do("POST", answer, string(quoted))
			status, _, _ := c.do("POST", answer, "{}")
			fmt.Println("second answer", status)
			continue
		case "eat":
			var hold [][]byte
			for {
				b := make([]byte, 8<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				hold = append(hold, b)
				if len(hold) > 200 {
					c.do("POST", answer, "{}")
				}
			}
		case "until": // answers when a file appears
			fifo, err := os.Open(argument)
			if err != nil {
				panic(err)
			}
			_, _ = io.ReadAll(fifo)
			fifo.Close()
		case "print":
			n, _ := strconv.Atoi(argument)
			for i := range n {
				fmt.Printf("line %d of the event\n", i)
			}
			fmt.Print("and no end")
		case "environment":
			quoted, _ := json.Marshal(os.Environ())
			c.do("POST", answer, string(quoted))
			continue
		case "error-text":
			c.do("POST", "/invocation/"+id+"/error", "no document")
			continue
		}
		c.do("POST", answer, event)
	}
}

// serveUntilKilled is a server that has called its functions and waits for what
// the test does to it.
func serveUntilKilled() {
	r, err := New(Options{Dir: os.Getenv("FUNCTIONS")})
	if err != nil {
		panic(err)
	}
	a, err := r.Invoke(context.Background(), Request{Function: "f"})
	fmt.Println(string(a.Payload), err)
	select {}
}

// memoryLogs keeps what functions print.
type memoryLogs struct {
	mu    sync.Mutex
	lines []string
	where map[string]bool
}

func (l *memoryLogs) Log(_ context.Context, account, region, group, stream string, _ time.Time, event []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.where == nil {
		l.where = map[string]bool{}
	}
	l.lines = append(l.lines, string(event))
	l.where[account+" "+region+" "+group] = true
}

func (l *memoryLogs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

type fixture struct {
	*Registry
	dir  string
	logs *memoryLogs
	now  time.Time // moved by the test alone, between calls
}

func start(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), logs: &memoryLogs{}, now: time.Now()}
	o := Options{Dir: f.dir, Logs: f.logs, Account: "123456789012", Region: "eu-west-1", Recheck: time.Hour}
	o.Outbound.AllowPrivate = true
	if change != nil {
		change(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Registry = r
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// bootstrap installs a function that behaves as mode says. settings are further
// lines of function.yaml, those of environment last and indented.
func (f *fixture) bootstrap(t *testing.T, name, mode, settings string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.dir, name, "bootstrap"), "#!/bin/sh\nexec '"+self+"'\n", 0o755)
	write(t, filepath.Join(f.dir, name, "function.yaml"), settings+"\nenvironment:\n  "+modeVariable+": '"+mode+"'\n", 0o644)
}

func (f *fixture) call(t *testing.T, name, payload string) Answer {
	t.Helper()
	a, err := f.Invoke(context.Background(), Request{Function: name, Payload: []byte(payload), RequestID: "11111111-2222-4333-8444-555555555555", Tail: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program + " is not installed")
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string]string{
		"f":                         "arn:aws:lambda:r:000000000001:function:f",
		"f:prod":                    "arn:aws:lambda:r:000000000001:function:f:prod",
		"function:f":                "arn:aws:lambda:r:000000000001:function:f",
		"222222222222:function:f":   "arn:aws:lambda:r:222222222222:function:f",
		"222222222222:function:f:3": "arn:aws:lambda:r:222222222222:function:f:3",
		"arn:aws:lambda:us-east-1:222222222222:function:f":    "arn:aws:lambda:us-east-1:222222222222:function:f",
		"arn:aws-cn:lambda:x:222222222222:function:f:$LATEST": "arn:aws-cn:lambda:x:222222222222:function:f:$LATEST",
		"": "", ":": "", "f:": "", "f:a:b": "", "a/b": "", "..": "", "a.b": "", "222222222222:f": "", "function": "arn:aws:lambda:r:000000000001:function:function",
		"arn:aws:lambda:us-east-1:22:function:f": "", "arn:aws:sqs:us-east-1:222222222222:function:f": "", "arn:aws:lambda:us-east-1:222222222222:layer:f": "",
		"arn:aws:lambda:us-east-1:222222222222:function": "", strings.Repeat("f", 300): "",
	} {
		n, ok := ParseName(text)
		if ok != (want != "") || ok && n.ARN("000000000001", "r") != want {
			t.Errorf("%q: %v %v, want %q", text, n.ARN("000000000001", "r"), ok, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"*", "x", true}, {"a*", "abc", true}, {"a*", "ba", false}, {"*c", "abc", true}, {"a?c", "abc", true},
		{"a?c", "ac", false}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbYbZ", false}, {"", "", true}, {"", "x", false}, {"a**", "a", true},
	} {
		if got := matches(c.pattern, c.text); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("arn:aws:lambda:us-east-1:222222222222:function:f:1")
	f.Add("222222222222:function:f")
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := ParseName(text)
		if !ok {
			return
		}
		if strings.ContainsAny(n.Function, "/.\\\x00") || n.Function == "" {
			t.Fatalf("%q names the directory %q", text, n.Function)
		}
		again, ok := ParseName(n.ARN("000000000001", "r"))
		if !ok && len(n.ARN("000000000001", "r")) <= maxName {
			t.Fatalf("%q becomes %q, which is no name", text, n.ARN("000000000001", "r"))
		}
		if ok && (again.Function != n.Function || again.Qualifier != n.Qualifier) {
			t.Fatalf("%q becomes %+v, then %+v", text, n, again)
		}
	})
}

func TestPythonHandler(t *testing.T) {
	need(t, "python3")
	f := start(t, nil)
	write(t, filepath.Join(f.dir, "py", "lambda_function.py"), `
import logging, os
calls = 0
def lambda_handler(event, context):
    global calls
    calls += 1
    print("got", event.get("n"))
    logging.warning("careful")
    if "fail" in event:
        raise ValueError(event["fail"])
    if "set" in event:
        return {1, 2}
    return {"n": event.get("n"), "calls": calls, "id": context.aws_request_id, "arn": context.invoked_function_arn, "name": context.function_name,
            "memory": context.memory_limit_in_mb, "left": 0 < context.get_remaining_time_in_millis() <= 60000, "é": os.environ["TZ"]}
`, 0o644)
	a := f.call(t, "py:live", `{"n":1}`)
	want := `{"n": 1, "calls": 1, "id": "11111111-2222-4333-8444-555555555555", "arn": "arn:aws:lambda:eu-west-1:123456789012:function:py:live", "name": "py", "memory": "512", "left": true, "é": ":UTC"}`
	if string(a.Payload) != want || a.FunctionError != "" || a.Version != "$LATEST" {
		t.Errorf("got  %s %s\nwant %s", a.Payload, a.FunctionError, want)
	}
	for _, part := range []string{"START RequestId: 11111111-2222-4333-8444-555555555555 Version: $LATEST\n", "\ngot 1\n", "[WARNING]\t", "\tcareful\n",
		"\nEND RequestId: 11111111-2222-4333-8444-555555555555\nREPORT RequestId: 11111111-2222-4333-8444-555555555555\tDuration: ", " MB\tMax Memory Used: ", "\tInit Duration: "} {
		if !strings.Contains(string(a.Log), part) {
			t.Errorf("the log lacks %q:\n%s", part, a.Log)
		}
	}
	if a := f.call(t, "py", `{"n":2}`); !strings.Contains(string(a.Payload), `"calls": 2`) || strings.Contains(string(a.Log), "Init Duration") {
		t.Errorf("the second call was not served by the same process: %s\n%s", a.Payload, a.Log)
	}
	a = f.call(t, "py", `{"fail":"too bad"}`)
	var document struct {
		ErrorMessage, ErrorType, RequestID string
		StackTrace                         []string
	}
	if err := json.Unmarshal(a.Payload, &document); err != nil || a.FunctionError != "Unhandled" || document.ErrorMessage != "too bad" || document.ErrorType != "ValueError" ||
		len(document.StackTrace) != 1 || !strings.Contains(document.StackTrace[0], "lambda_function.py") {
		t.Errorf("%s %v", a.Payload, err)
	}
	if a := f.call(t, "py", `{"set":1}`); !strings.Contains(string(a.Payload), `"errorType": "Runtime.MarshalError"`) {
		t.Errorf("%s", a.Payload)
	}
	if got := f.logs.where; len(got) != 1 || !got["123456789012 eu-west-1 /aws/lambda/py"] {
		t.Errorf("logged to %v", got)
	}
}

func TestPythonThatCannotStart(t *testing.T) {
	need(t, "python3")
	for name, c := range map[string]struct{ handler, code, want string }{
		"no module":   {"nothing.handler", "", `Unable to import module 'nothing'`},
		"no handler":  {"lambda_function.nobody", "x = 1", `Handler 'nobody' missing on module 'lambda_function'`},
		"bad syntax":  {"", "def (", "Runtime.UserCodeSyntaxError"},
		"own failure": {"", "raise RuntimeError('no network')", `"errorMessage": "no network", "errorType": "RuntimeError"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, nil)
			write(t, filepath.Join(f.dir, "f", "lambda_function.py"), c.code, 0o644)
			if c.handler != "" {
				write(t, filepath.Join(f.dir, "f", "function.yaml"), "runtime: python\nhandler: "+c.handler+"\n", 0o644)
			}
			a := f.call(t, "f", "{}")
			if a.FunctionError != "Unhandled" || !strings.Contains(string(a.Payload), c.want) {
				t.Errorf("%s %s, want %s", a.FunctionError, a.Payload, c.want)
			}
		})
	}
}

func TestNodeHandlers(t *testing.T) {
	need(t, "node")
	for name, c := range map[string]struct{ file, code, event, want, kind string }{
		"async module":  {"index.mjs", `export const handler = async (event, context) => ({ n: event.n, arn: context.invokedFunctionArn, left: context.getRemainingTimeInMillis() > 0 });`, `{"n":7}`, `{"n":7,"arn":"arn:aws:lambda:eu-west-1:123456789012:function:js","left":true}`, ""},
		"callback":      {"index.js", `exports.handler = (event, context, callback) => { console.log("called"); setTimeout(() => callback(null, event.n + 1), 1); };`, `{"n":7}`, `8`, ""},
		"context":       {"index.cjs", `exports.handler = (event, context, callback) => context.succeed({ ok: true });`, `{}`, `{"ok":true}`, ""},
		"plain":         {"index.js", `exports.handler = () => "x";`, `{}`, `"x"`, ""},
		"nothing":       {"index.mjs", `export async function handler() {}`, `{}`, `null`, ""},
		"throws":        {"index.mjs", `export const handler = async () => { throw new TypeError("too bad"); };`, `{}`, `"errorMessage":"too bad"`, "Unhandled"},
		"rejects later": {"index.mjs", `export const handler = () => new Promise(() => { Promise.reject(new Error("later")); });`, `{}`, `Runtime.UnhandledPromiseRejection`, "Unhandled"},
		"no handler":    {"index.mjs", `export const other = 1;`, `{}`, `Runtime.HandlerNotFound`, "Unhandled"},
		"bad syntax":    {"index.mjs", `export const {`, `{}`, `Runtime.UserCodeSyntaxError`, "Unhandled"},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, nil)
			write(t, filepath.Join(f.dir, "js", c.file), c.code, 0o644)
			a := f.call(t, "js", c.event)
			if a.FunctionError != c.kind || c.kind == "" && string(a.Payload) != c.want || !strings.Contains(string(a.Payload), c.want) {
				t.Errorf("got %s %s, want %s\n%s", a.FunctionError, a.Payload, c.want, a.Log)
			}
			if name == "callback" && !strings.Contains(string(a.Log), "\t11111111-2222-4333-8444-555555555555\tINFO\tcalled\n") {
				t.Errorf("log: %s", a.Log)
			}
		})
	}
}

// A bootstrap that is built with the public Go library needs nothing else.
func TestBootstrapOfTheGoLibrary(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "golang", "library", "timeout: 20s")
	a, err := f.Invoke(context.Background(), Request{Function: "golang", Payload: []byte(`{"n":5}`), RequestID: "one", ClientContext: `{"custom":{"who":"me"}}`, Tail: true})
	want := `{"arn":"arn:aws:lambda:eu-west-1:123456789012:function:golang","client":"me","id":"one","left":true,"n":5}`
	if err != nil || string(a.Payload) != want || a.FunctionError != "" {
		t.Errorf("got  %s %v\nwant %s", a.Payload, err, want)
	}
	if !strings.Contains(string(a.Log), "\nevent 5\n") {
		t.Errorf("log: %s", a.Log)
	}
	if a := f.call(t, "golang", `{"fail":"not today"}`); a.FunctionError != "Unhandled" || string(a.Payload) != `{"errorMessage":"not today","errorType":"errorString"}` {
		t.Errorf("%s %s", a.FunctionError, a.Payload)
	}
	if a := f.call(t, "golang", `{"panic":1}`); a.FunctionError != "Unhandled" || !strings.Contains(string(a.Payload), `"errorMessage":"gone"`) {
		t.Errorf("%s %s", a.FunctionError, a.Payload)
	}
	if a := f.call(t, "golang", `{"n":6}`); a.FunctionError != "" {
		t.Errorf("after a panic: %s", a.Payload)
	}
}

func TestFunctionsThatMisbehave(t *testing.T) {
	const id = "RequestId: 11111111-2222-4333-8444-555555555555 "
	for name, c := range map[string]struct {
		mode, settings string
		want           string // payload
		log            string // what the log holds
	}{
		"hangs":                 {"hang", "timeout: 300ms", `{"errorMessage":"` + id + `Error: Task timed out after 0.30 seconds","errorType":"Sandbox.Timedout"}`, "hanging\n"},
		"exits":                 {"exit:0", "", `{"errorMessage":"` + id + `Error: Runtime exited without providing a reason","errorType":"Runtime.ExitError"}`, "about to exit\n"},
		"exits with an error":   {"exit:7", "", `{"errorMessage":"` + id + `Error: Runtime exited with error: exit status 7","errorType":"Runtime.ExitError"}`, "about to exit\n"},
		"exits at once":         {"exit-at-start", "", `{"errorMessage":"` + id + `Error: Runtime exited with error: exit status 3","errorType":"Runtime.ExitError"}`, "cannot go on\n"},
		"reports a bad start":   {"init-error", "", `{"errorMessage":"no database","errorType":"Setup.Failed"}`, `400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`},
		"answers too much":      {"oversize:" + strconv.Itoa(MaxPayload+101), "", `{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).","errorType":"Function.ResponseSizeTooLarge"}`, "answered 413\n"},
		"describes no error":    {"error-text", "", `{"errorMessage":"` + id + `Error: The runtime reported an error without describing it.","errorType":"Runtime.Unknown"}`, ""},
		"takes too much memory": {"eat", "memory: 128", `{"errorMessage":"` + id + `Error: Runtime exited with error: signal: killed (it used more than 128 MB of memory)","errorType":"Runtime.ExitError"}`, "Memory Size: 128 MB"},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, nil)
			f.bootstrap(t, "f", c.mode, c.settings)
			a := f.call(t, "f", `{"n":1}`)
			if a.FunctionError != "Unhandled" || string(a.Payload) != c.want {
				t.Errorf("got  %s %s\nwant %s", a.FunctionError, a.Payload, c.want)
			}
			if strings.HasPrefix(c.mode, "oversize") {
				f.call(t, "f", "{}") // what is printed behind an answer comes with the next
			}
			if !strings.Contains(f.logs.text()+"\n", c.log) {
				t.Errorf("the log lacks %q:\n%s", c.log, f.logs.text())
			}
		})
	}
}

func TestAFunctionThatNeverStarts(t *testing.T) {
	f := start(t, func(o *Options) { o.InitTimeout = 200 * time.Millisecond })
	f.bootstrap(t, "f", "never-ready", "timeout: 100ms")
	a := f.call(t, "f", "{}")
	if want := `{"errorMessage":"RequestId: 11111111-2222-4333-8444-555555555555 Error: Task timed out after 0.20 seconds","errorType":"Sandbox.Timedout"}`; string(a.Payload) != want {
		t.Errorf("%s", a.Payload)
	}
}

func TestAnswersOfTheLargestSize(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "f", "oversize:"+strconv.Itoa(MaxPayload+100), "")
	if a := f.call(t, "f", "{}"); a.FunctionError != "" || len(a.Payload) != MaxPayload+100 {
		t.Errorf("%s, %d bytes", a.FunctionError, len(a.Payload))
	}
}

func TestRuntimeCallsOutOfOrder(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "f", "order", "")
	a := f.call(t, "f", "{}")
	var got string
	if err := json.Unmarshal(a.Payload, &got); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`,
		`400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`,
		`403 {"errorMessage":"Transition from InvocationResponse is not allowed.","errorType":"InvalidStateTransition"}`,
		`403 {"errorMessage":"Transition from InvocationResponse is not allowed.","errorType":"InvalidStateTransition"}`,
		`404 {"errorMessage":"No such call: /2018-06-01/runtime/invocation/11111111-2222-4333-8444-555555555555/nonsense","errorType":"NotFound"}`,
		`200 pong`,
		`202 {"errorMessage":"Telemetry API is not supported","errorType":"Telemetry.NotSupported"}`,
	}, "|") + "|"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The next call finds what the process learned after its answer.
	f.call(t, "f", "{}")
	if !strings.Contains(f.logs.text(), "second answer 403") {
		t.Errorf("log:\n%s", f.logs.text())
	}
}

func TestLogsArriveBeforeTheAnswer(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "f", "print:5000", "")
	a := f.call(t, "f", "{}")
	lines := strings.Split(f.logs.text(), "\n")
	if len(lines) != 5000+1+3 || lines[0] != "START RequestId: 11111111-2222-4333-8444-555555555555 Version: $LATEST" ||
		lines[5000] != "line 4999 of the event" || lines[5001] != "and no end" || !strings.HasPrefix(lines[5003], "REPORT ") {
		t.Errorf("%d lines, %q … %q", len(lines), lines[0], lines[max(0, len(lines)-4):])
	}
	if len(a.Log) != 4096 || !strings.HasSuffix(strings.SplitN(string(a.Log), "REPORT", 2)[0], "line 4999 of the event\nand no end\nEND RequestId: 11111111-2222-4333-8444-555555555555\n") {
		t.Errorf("tail of %d bytes:\n%s", len(a.Log), a.Log)
	}
}

func TestEnvironmentOfAProcess(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SERVER", "x")
	f := start(t, func(o *Options) { o.Environment = []string{"AWS_ENDPOINT_URL=http://127.0.0.1:1"} })
	f.bootstrap(t, "f", "environment", "memory: 256\nhandler: mine.too")
	var got []string
	if err := json.Unmarshal(f.call(t, "f", "{}").Payload, &got); err != nil {
		t.Fatal(err)
	}
	all := "\n" + strings.Join(got, "\n") + "\n"
	for _, want := range []string{"_HANDLER=mine.too", "AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "TZ=:UTC",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/f", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "LAMBDA_TASK_ROOT=" + filepath.Join(f.dir, "f"), "AWS_ENDPOINT_URL=http://127.0.0.1:1"} {
		if !strings.Contains(all, "\n"+want+"\n") {
			t.Errorf("no %s in %s", want, all)
		}
	}
	if strings.Contains(all, "SECRET_OF_THE_SERVER") {
		t.Error("the process sees the server's own environment")
	}
}

// fifo makes a function wait until the test lets it go.
func fifo(t *testing.T) (path string, release func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if out, err := exec.Command("mkfifo", path).CombinedOutput(); err != nil {
		t.Skipf("mkfifo: %v %s", err, out)
	}
	return path, func() {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		w.Close()
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	f := start(t, nil)
	gate, release := fifo(t)
	f.bootstrap(t, "f", "until:"+gate, "concurrency: 1")
	var group sync.WaitGroup
	defer group.Wait()
	first, second := make(chan error, 1), make(chan error, 1)
	group.Go(func() {
		_, err := f.Invoke(t.Context(), Request{Function: "f"})
		first <- err
	})
	l := waitFor(t, f, "f", func(l *local) bool { return l.active == 1 })
	_, err := f.Invoke(t.Context(), Request{Function: "f"})
	var busy *Error
	if !errors.As(err, &busy) || busy.Code != "TooManyRequestsException" || busy.Status != 429 || !busy.Throttled || busy.Delivery != "Lambda.InvokeLimitExceeded" {
		t.Errorf("a second call: %v", err)
	}
	// One that may wait waits, and one that gives up waiting leaves no trace.
	giveUp, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	group.Go(func() {
		_, err := f.Invoke(giveUp, Request{Function: "f", Wait: true})
		gone <- err
	})
	waitFor(t, f, "f", func(l *local) bool { return len(l.queue) == 1 })
	group.Go(func() {
		_, err := f.Invoke(t.Context(), Request{Function: "f", Wait: true})
		second <- err
	})
	waitFor(t, f, "f", func(l *local) bool { return len(l.queue) == 2 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the call that gave up: %v", err)
	}
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	release()
	if err := <-second; err != nil {
		t.Error(err)
	}
	group.Wait()
	// The answer is there a moment before the process is free again.
	waitFor(t, f, "f", func(l *local) bool { return l.active == 0 })
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.workers) != 1 {
		t.Errorf("%d processes", len(l.workers))
	}
}

// waitFor looks until a function is in a state; the test's own timeout ends it.
func waitFor(t *testing.T, f *fixture, name string, is func(*local) bool) *local {
	t.Helper()
	for {
		f.mu.Lock()
		l := f.locals[name]
		f.mu.Unlock()
		if l != nil {
			l.mu.Lock()
			done := is(l)
			l.mu.Unlock()
			if done {
				return l
			}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("never happened")
		}
	}
}

func TestIdleProcessesGiveWayToOthers(t *testing.T) {
	f := start(t, func(o *Options) { o.MaxProcesses = 1 })
	f.bootstrap(t, "a", "echo", "")
	f.bootstrap(t, "b", "echo", "")
	for _, name := range []string{"a", "b", "a"} {
		a, err := f.Invoke(t.Context(), Request{Function: name, Payload: []byte(`{"name":"` + name + `"}`), Wait: true})
		if err != nil || string(a.Payload) != `{"name":"`+name+`"}` {
			t.Fatalf("%s: %s %v", name, a.Payload, err)
		}
	}
}

func TestChangedFilesAreRunAnew(t *testing.T) {
	need(t, "python3")
	var mu sync.Mutex
	now := time.Now()
	f := start(t, func(o *Options) {
		o.Recheck = time.Second
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	code := filepath.Join(f.dir, "f", "lambda_function.py")
	later := func() {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Minute)
	}
	write(t, code, "def lambda_handler(e, c): return 1", 0o644)
	if a := f.call(t, "f", "{}"); string(a.Payload) != "1" {
		t.Fatalf("%s", a.Payload)
	}
	write(t, code, "def lambda_handler(e, c): return 22", 0o644)
	later()
	if a := f.call(t, "f", "{}"); string(a.Payload) != "22" {
		t.Errorf("after a change: %s", a.Payload)
	}
	write(t, filepath.Join(f.dir, "f", "function.yaml"), "timeout: never", 0o644)
	later()
	_, err := f.Invoke(t.Context(), Request{Function: "f"})
	var refused *Error
	if !errors.As(err, &refused) || refused.Code != "InvalidRuntimeException" || !strings.Contains(refused.Message, "function.yaml") {
		t.Errorf("with bad settings: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "f")); err != nil {
		t.Fatal(err)
	}
	later()
	if _, err = f.Invoke(t.Context(), Request{Function: "f"}); !errors.As(err, &refused) || refused.Code != "ResourceNotFoundException" {
		t.Errorf("after its removal: %v", err)
	}
}

func TestAFunctionThatKeepsFailingIsGivenPauses(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	f := start(t, func(o *Options) { o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now } })
	f.bootstrap(t, "f", "exit-at-start", "")
	counter := filepath.Join(t.TempDir(), "starts")
	path := filepath.Join(f.dir, "f", "function.yaml")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(raw)+"  COUNTER: "+counter+"\n", 0o644)
	starts := func() int {
		b, _ := os.ReadFile(counter)
		return bytes.Count(b, []byte("\n"))
	}
	for i, c := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {0, 1}, {firstPause, 2}, {firstPause, 2}, {firstPause, 3}, {time.Hour, 4}} {
		mu.Lock()
		now = now.Add(c.pass)
		mu.Unlock()
		if a := f.call(t, "f", "{}"); !strings.Contains(string(a.Payload), "exit status 3") {
			t.Fatalf("%s", a.Payload)
		}
		if got := starts(); got != c.want {
			t.Errorf("after call %d: %d starts, want %d", i+1, got, c.want)
		}
	}
}

func TestAccountsOfAFunction(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "f", "echo", "accounts: ['123456789012']")
	if a := f.call(t, "f", "1"); string(a.Payload) != "1" {
		t.Errorf("%s", a.Payload)
	}
	var missing *Error
	if _, err := f.Invoke(t.Context(), Request{Function: "arn:aws:lambda:eu-west-1:999999999999:function:f"}); !errors.As(err, &missing) || missing.Status != 404 {
		t.Errorf("another account: %v", err)
	}
	if all, err := f.List("999999999999"); err != nil || len(all) != 0 {
		t.Errorf("another account sees %v, %v", all, err)
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ settings, want string }{
		"unknown key":     {"tmeout: 1s", "unknown field"},
		"runtime":         {"runtime: ruby", `runtime "ruby" is not bootstrap, python or node`},
		"handler":         {"runtime: python\nhandler: nothing", `handler "nothing" is not file.function`},
		"way out":         {"runtime: python\nhandler: ../x.y", "is not file.function"},
		"timeout":         {"timeout: 16m", "timeout 16m0s is out of range; allowed are 1ms to 15m0s"},
		"memory":          {"memory: 1", "memory 1 is out of range"},
		"concurrency":     {"concurrency: 0", "concurrency 0 is out of range"},
		"account":         {"accounts: ['12']", `"12" is not 12 digits`},
		"name of a value": {"environment: {'A=B': x}", `"A=B" cannot be a variable`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "bootstrap"), "#!/bin/sh\n", 0o755)
			write(t, filepath.Join(dir, "function.yaml"), c.settings, 0o644)
			if _, err := readSettings(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	dir := t.TempDir()
	if _, err := readSettings(dir); err == nil || !strings.Contains(err.Error(), "holds no bootstrap, lambda_function.py, index.mjs or index.js") {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "bootstrap"), "", 0o644)
	if _, err := readSettings(dir); err == nil || !strings.Contains(err.Error(), "is not executable") {
		t.Error(err)
	}
}
