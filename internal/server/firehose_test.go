package server_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

var update = flag.Bool("update", false, "rewrite what scripts expect")

// send makes a request of Firehose out of an operation and a body as it is.
func send(t *testing.T, s *testkit.Server, operation, body string) (status int, reply string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Address()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "Firehose_20150804."+operation)
	sigv4.Sign(r, []byte(body), sigv4.Credentials{AccessKey: "test", SecretKey: "test"}, testkit.Region, "firehose", time.Now())
	answer, err := s.Client(testkit.Forms[0]).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(raw)
}

// wait polls until a delivery stream is in a state, "gone" for none.
func wait(t *testing.T, s *testkit.Server, name, state string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		status, reply := send(t, s, "DescribeDeliveryStream", fmt.Sprintf(`{"DeliveryStreamName":%q}`, name))
		if status == http.StatusOK && strings.Contains(reply, `"DeliveryStreamStatus":"`+state+`"`) || state == "gone" && strings.Contains(reply, "ResourceNotFoundException") ||
			strings.HasPrefix(state, "sse-") && strings.Contains(reply, `"Status":"`+strings.TrimPrefix(state, "sse-")+`"`) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not become %s: %s", name, state, reply)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// What differs from run to run.
var varyingReply = []struct {
	pattern *regexp.Regexp
	in      string
}{
	{regexp.MustCompile(`Timestamp":[0-9.E]+`), `Timestamp":0`},
	{regexp.MustCompile(`"RecordId":"[0-9]{56}"`), `"RecordId":"…"`},
}

// TestFirehoseScripts sends requests to a real server and compares replies, all
// of them as they are on the wire. A script is read from top to bottom: a line
// with an operation and its body, followed by the status and body of the reply;
// "wait NAME STATE", "restart", and remarks.
func TestFirehoseScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/firehose/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o := testkit.Options{Files: vfs.NewMemory(), Configure: func(c *config.Config) {
				c.Account, c.KMS, c.StateDelay = "123456789012", "strict", 300*time.Millisecond
			}}
			s := testkit.Start(t, o)
			var out bytes.Buffer
			lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
			for i := 0; i < len(lines); i++ {
				line := lines[i]
				fmt.Fprintln(&out, line)
				verb, rest, _ := strings.Cut(line, " ")
				switch verb {
				case "", "#":
				case "wait":
					name, state, _ := strings.Cut(rest, " ")
					wait(t, s, name, state)
				case "restart":
					if err := s.Stop(); err != nil {
						t.Fatal(err)
					}
					s = testkit.Start(t, o)
				default:
					status, reply := send(t, s, verb, rest)
					for _, v := range varyingReply {
						reply = v.pattern.ReplaceAllString(reply, v.in)
					}
					got := fmt.Sprintf("  %d %s", status, reply)
					want := ""
					if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "  ") {
						i++
						want = lines[i]
					}
					if got = strings.TrimRight(got, " "); got != want && !*update {
						t.Errorf("%s:%d: %s\n got %s\nwant %s", file, i+1, line, got, want)
					}
					fmt.Fprintln(&out, got)
				}
			}
			if *update && !t.Failed() {
				if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
