package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/testkit"
)

// functionVariable makes the test's own program a bootstrap.
const functionVariable = "MILLRACE_TEST_FUNCTION"

func TestMain(m *testing.M) {
	if os.Getenv(functionVariable) != "" {
		serveFunction()
		return
	}
	testkit.Main(m)
}

// serveFunction is a function for scripts: it answers transformations in capitals,
// drops records with "drop", fails those with "fail" and ends at "crash"; another
// event is its own answer.
func serveFunction() {
	base := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	for {
		next, err := http.Get(base + "next")
		if err != nil {
			return
		}
		body, _ := io.ReadAll(next.Body)
		next.Body.Close()
		var event struct {
			Records []map[string]any `json:"records"`
		}
		answer := body
		if json.Unmarshal(body, &event) == nil && event.Records != nil {
			fmt.Println("transforming", len(event.Records), "records")
			for i, r := range event.Records {
				data, _ := base64.StdEncoding.DecodeString(r["data"].(string))
				result := "Ok"
				switch {
				case bytes.Contains(data, []byte("crash")):
					os.Exit(1)
				case bytes.Contains(data, []byte("drop")):
					result = "Dropped"
				case bytes.Contains(data, []byte("fail")):
					result = "ProcessingFailed"
				}
				event.Records[i] = map[string]any{"recordId": r["recordId"], "result": result, "data": bytes.ToUpper(data)}
			}
			answer, _ = json.Marshal(event)
		}
		done, err := http.Post(base+next.Header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", "application/json", bytes.NewReader(answer))
		if err != nil {
			return
		}
		done.Body.Close()
	}
}

// TestScripts runs the commands against real servers; see testkit.Scripts for
// the language.
func TestScripts(t *testing.T) { testkit.Scripts(t, "testdata/*.txt", execute) }

// execute runs a command line as the program does.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{Use: "millrace", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands()...)
	Tidy(root)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "millrace: %v\n", err)
		return 1
	}
	return 0
}
