package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/test/harness"
)

// TestFunctionsCLI calls a local function through the AWS CLI and finds it where
// the CLI looks for functions and for their logs.
func TestFunctionsCLI(t *testing.T) {
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
	aws := func(arguments ...string) string {
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
		reply = aws(append([]string{"lambda", "invoke", "--function-name", "measure", "--payload", payload, answer}, more...)...)
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
	contains("the list", aws("lambda", "list-functions"), arn)
	contains("the function", aws("lambda", "get-function", "--function-name", arn), `"FunctionName": "measure"`)
	contains("its configuration", aws("lambda", "get-function-configuration", "--function-name", "measure"), `"State": "Active"`)
	contains("its logs", aws("logs", "filter-log-events", "--log-group-name", "/aws/lambda/measure", "--filter-pattern", "measuring"), "measuring rhine", "measuring styx")
}
