package conformance

import (
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/millrace/millrace/test/harness"
)

// TestFunctions calls a local function through the AWS CLI, boto3 and the SDK for
// Go, and finds it where they look for functions and for their logs.
func TestFunctions(t *testing.T) {
	install(t, "python")
	dir := t.TempDir()
	function := filepath.Join(dir, "functions", "measure")
	if err := os.MkdirAll(function, 0o700); err != nil {
		t.Fatal(err)
	}
	const handler = `def lambda_handler(event, context):
    print("measuring", event["river"])
    if event["river"] == "styx":
        raise ValueError("no way back")
    return {"level": len(event["river"]), "arn": context.invoked_function_arn}
`
	if err := os.WriteFile(filepath.Join(function, "lambda_function.py"), []byte(handler), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := harness.Start(t.Context(), harness.Options{Data: filepath.Join(dir, "data"), Keys: true, Args: []string{"--functions", filepath.Join(dir, "functions")}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	env := objectsEnvironment(false, "AWS_ENDPOINT_URL="+s.URL(false), "AWS_REGION="+harness.Region, "AWS_DEFAULT_REGION="+harness.Region, "LC_ALL=C.UTF-8", "PYTHONUTF8=1")
	cli := func(arguments ...string) string {
		t.Helper()
		return succeeds(t, env, inCache("python", "bin", "aws"), arguments...)
	}
	contains := func(what, text string, wanted ...string) {
		t.Helper()
		for _, w := range wanted {
			if !strings.Contains(text, w) {
				t.Errorf("%s has no %q:\n%s", what, w, text)
			}
		}
	}
	arn := "arn:aws:lambda:" + harness.Region + ":" + harness.Account + ":function:measure"
	answer := filepath.Join(dir, "answer.json")
	invoke := func(payload string, more ...string) (reply, result string) {
		t.Helper()
		reply = cli(append([]string{"lambda", "invoke", "--function-name", "measure", "--payload", payload, answer}, more...)...)
		raw, err := os.ReadFile(answer)
		if err != nil {
			t.Fatal(err)
		}
		return reply, string(raw)
	}
	reply, result := invoke(`{"river":"rhine"}`, "--log-type", "Tail")
	contains("the reply", reply, `"StatusCode": 200`, `"LogResult"`)
	contains("the answer", result, `"level": 5`, arn)
	reply, result = invoke(`{"river":"styx"}`)
	contains("the reply to a failure", reply, `"StatusCode": 200`, `"FunctionError": "Unhandled"`)
	contains("the failure", result, `"errorType": "ValueError"`, "no way back")
	reply, _ = invoke(`{"river":"po"}`, "--invocation-type", "DryRun")
	contains("the reply to a rehearsal", reply, `"StatusCode": 204`)
	contains("the list", cli("lambda", "list-functions"), arn)
	contains("the function", cli("lambda", "get-function", "--function-name", arn), `"FunctionName": "measure"`)
	contains("its configuration", cli("lambda", "get-function-configuration", "--function-name", "measure"), `"State": "Active"`)
	contains("its logs", cli("logs", "filter-log-events", "--log-group-name", "/aws/lambda/measure", "--filter-pattern", "measuring"), "measuring rhine", "measuring styx")

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	boto3, err := startProcess(append(env, "ENDPOINT="+s.URL(false)), inCache("python", "bin", "python"), inClients("python", "calls.py"), "boto3", "lambda")
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]Client{
		"boto3": boto3,
		"go": &goClient{sdk: lambda.New(lambda.Options{
			Region: harness.Region, BaseEndpoint: new(s.URL(false)), Retryer: aws.NopRetryer{}, HTTPClient: &http.Client{Transport: transport},
			Credentials: credentials.NewStaticCredentialsProvider(harness.AccessKey, harness.SecretKey, ""),
		})},
	} {
		defer client.Close()
		invoke := func(what string, in M) (out M, payload string) {
			t.Helper()
			out, err := client.Call(t.Context(), "Invoke", in, 0)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, what, err)
			}
			bytes, _ := out["Payload"].([]byte)
			return out, string(bytes)
		}
		out, payload := invoke("a call", M{"FunctionName": arn, "Payload": []byte(`{"river":"elbe"}`), "LogType": "Tail", "Qualifier": "$LATEST"})
		logged, _ := base64.StdEncoding.DecodeString(text(out, "LogResult"))
		if number(out, "StatusCode") != 200 || text(out, "ExecutedVersion") != "$LATEST" || at(out, "FunctionError") != nil {
			t.Errorf("%s: a call: %v", name, out)
		}
		contains(name+"'s answer", payload, `"level": 4`, arn)
		contains(name+"'s tail of the log", string(logged), "measuring elbe")
		out, payload = invoke("a call that fails", M{"FunctionName": "measure", "Payload": []byte(`{"river":"styx"}`)})
		if number(out, "StatusCode") != 200 || text(out, "FunctionError") != "Unhandled" {
			t.Errorf("%s: a call that fails: %v", name, out)
		}
		contains(name+"'s failure", payload, `"errorType": "ValueError"`, "no way back")
		if out, _ = invoke("an event", M{"FunctionName": harness.Account + ":function:measure", "InvocationType": "Event", "Payload": []byte(`{"river":"oder"}`)}); number(out, "StatusCode") != 202 {
			t.Errorf("%s: an event: %v", name, out)
		}
		if out, _ = invoke("a rehearsal", M{"FunctionName": "measure", "InvocationType": "DryRun"}); number(out, "StatusCode") != 204 {
			t.Errorf("%s: a rehearsal: %v", name, out)
		}
		for op, c := range map[string]struct {
			in   M
			code string
		}{
			"Invoke":      {M{"FunctionName": "missing", "Payload": []byte("{}")}, "ResourceNotFoundException"},
			"GetFunction": {M{"FunctionName": "missing"}, "ResourceNotFoundException"},
		} {
			var refused *Failure
			if _, err := client.Call(t.Context(), op, c.in, 0); !errors.As(err, &refused) || refused.Code != c.code || refused.Status != 404 {
				t.Errorf("%s: %s of a missing function: %v", name, op, err)
			}
		}
		var refused *Failure
		if _, err := client.Call(t.Context(), "Invoke", M{"FunctionName": "measure", "Payload": []byte("{river}")}, 0); !errors.As(err, &refused) || refused.Code != "InvalidRequestContentException" || refused.Status != 400 {
			t.Errorf("%s: a payload that is not JSON: %v", name, err)
		}
		listed, err := client.Call(t.Context(), "ListFunctions", M{}, 0)
		if err != nil || len(list(listed, "Functions")) != 1 || text(listed, "Functions", 0, "FunctionArn") != arn {
			t.Errorf("%s: list: %v, %v", name, listed, err)
		}
	}
}
