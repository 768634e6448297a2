package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

// jsonLines reads a log file.
func jsonLines(t *testing.T, path string) (all []map[string]any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(raw)); d.More(); {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// form sends a call of the query protocol, such as those of IAM and STS.
func form(t *testing.T, c *testkit.Client, service, body string) (requestID, reply string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.Server.Address()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	sigv4.Sign(r, []byte(body), c.Credentials, "us-east-1", service, time.Now())
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ids := answer.Header.Values("X-Amzn-Requestid"); len(ids) != 1 || !strings.Contains(string(text), ids[0]) {
		t.Errorf("request ids %q, reply %s", ids, text)
	}
	return answer.Header.Get("X-Amzn-Requestid"), string(text)
}

func TestAccessLogSaysWhoDidWhat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access")
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.AccessLog, c.LogFormat = path, "json" }})
	c := s.Client(testkit.Forms[0])
	create(t, c, "s", 1)
	r, err := c.Request(t.Context(), kinesis.OpPutRecord, &kinesis.PutRecordInput{StreamName: api.Ptr("s"), Data: []byte("a"), PartitionKey: api.Ptr("k")})
	if err != nil {
		t.Fatal(err)
	}
	length := r.ContentLength
	r.Header.Set("Amz-Sdk-Request", "attempt=2; max=3")
	reply, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(reply.Body)
	reply.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	read(t, c, "s") // GetRecords names its stream by the iterator alone
	stsID, _ := form(t, c, "sts", "Action=GetCallerIdentity&Version=2011-06-15")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	lines := jsonLines(t, path)
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l["operation"], " ", l["stream"], " ", l["status"]))
	}
	if want := "[CreateStream s 200 PutRecord s 200 GetShardIterator s 200 GetRecords s 200 GetCallerIdentity  200]"; fmt.Sprint(got) != want {
		t.Fatalf("access log %v", got)
	}
	l := lines[1]
	for key, want := range map[string]any{
		"id": reply.Header.Get("X-Amzn-Requestid"), "attempt": "attempt=2; max=3", "in": float64(length), "out": float64(len(body)),
		"principal": "arn:aws:iam::000000000000:root", "key": "test", "code": "", "encoding": "json", "http": 1.0,
	} {
		if l[key] != want {
			t.Errorf("%s is %v, want %v", key, l[key], want)
		}
	}
	if l["remote"] == "" || l["took"] == nil {
		t.Errorf("line %v", l)
	}
	if lines[4]["id"] != stsID {
		t.Errorf("GetCallerIdentity is logged as %v and was answered as %s", lines[4]["id"], stsID)
	}
}

func TestAuditLogKeepsSecretsOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.AuditLog, c.Auth = path, "keys" }})
	c := s.Client(testkit.Forms[0])
	for line := range strings.Lines(s.Log()) {
		fmt.Sscanf(line, "export AWS_ACCESS_KEY_ID=%s", &c.Credentials.AccessKey)
		fmt.Sscanf(line, "export AWS_SECRET_ACCESS_KEY=%s", &c.Credentials.SecretKey)
	}
	create(t, c, "s", 1)
	put(t, c, "s", "record-data-of-nobodys-business")
	if err := c.Call(t.Context(), kinesis.OpAddTagsToStream, &kinesis.AddTagsToStreamInput{
		StreamName: api.Ptr("s"), Tags: map[string]string{"password": "tag-that-is-a-secret"}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), kinesis.OpPutResourcePolicy, &kinesis.PutResourcePolicyInput{
		ResourceARN: api.Ptr("arn:aws:kinesis:us-east-1:000000000000:stream/s"), Policy: api.Ptr(`{"Sid":"policy-text"}`)}, nil); err == nil {
		t.Error("a policy without statements is taken")
	}
	_, _ = form(t, c, "iam", "Action=CreateUser&Version=2010-05-08&UserName=u")
	keyID, key := form(t, c, "iam", "Action=CreateAccessKey&Version=2010-05-08&UserName=u")
	_, secret, _ := strings.Cut(key, "<SecretAccessKey>")
	secret, _, ok := strings.Cut(secret, "</SecretAccessKey>")
	if !ok {
		t.Fatalf("no key: %s", key)
	}
	_, session := form(t, c, "sts", "Action=GetSessionToken&Version=2011-06-15")
	_, token, _ := strings.Cut(session, "<SessionToken>")
	token, _, _ = strings.Cut(token, "</SessionToken>")
	_, _ = form(t, c, "iam", "Action=DeleteUser&Version=2010-05-08&UserName=nobody")
	stranger := s.Client(testkit.Forms[0])
	stranger.Credentials = sigv4.Credentials{AccessKey: c.Credentials.AccessKey, SecretKey: "wrong"}
	_ = stranger.Call(t.Context(), kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}, nil)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"nobodys", "tag-that-is", "policy-text", secret, token, c.Credentials.SecretKey, "Signature="} {
		if no == "" || strings.Contains(string(raw), no) {
			t.Errorf("the audit log shows %q", no)
		}
	}
	const root, stream, user = "arn:aws:iam::000000000000:root", "arn:aws:kinesis:us-east-1:000000000000:stream/s", "arn:aws:iam::000000000000:user/"
	want := [][4]string{
		{"kinesis:CreateStream", stream, "ok", root},
		{"kinesis:AddTagsToStream", stream, "ok", root},
		{"kinesis:PutResourcePolicy", stream, "InvalidArgumentException", root},
		{"iam:CreateUser", user + "u", "ok", root},
		{"iam:CreateAccessKey", user + "u", "ok", root},
		{"sts:GetSessionToken", "", "ok", root},
		{"iam:DeleteUser", user + "nobody", "NoSuchEntity", root},
		{"kinesis:DeleteStream", "", "InvalidSignatureException", ""},
	}
	lines := jsonLines(t, path)
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), raw)
	}
	for i, l := range lines {
		if got := [4]string{l["action"].(string), l["resource"].(string), l["result"].(string), l["principal"].(string)}; got != want[i] {
			t.Errorf("line %d: %q, want %q", i, got, want[i])
		}
		if l["id"] == "" || l["remote"] == "" {
			t.Errorf("line %d: %v", i, l)
		}
	}
	if lines[4]["id"] != keyID {
		t.Errorf("CreateAccessKey is logged as %v and was answered as %s", lines[4]["id"], keyID)
	}
}

func TestRotatedLogsAreReopened(t *testing.T) {
	dir := t.TempDir()
	access, audit := filepath.Join(dir, "access"), filepath.Join(dir, "audit")
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.AccessLog, c.AuditLog, c.LogFormat = access, audit, "json" }})
	c := s.Client(testkit.Forms[0])
	create(t, c, "before", 1)
	for _, path := range []string{access, audit} {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	create(t, c, "renamed", 1) // still into the old files
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	create(t, c, "after", 1)
	// What cannot be reopened goes on where it was, and nobody falls over it.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Reopen(); err == nil {
		t.Error("files of a folder that is gone are reopened")
	}
	create(t, c, "homeless", 1)
}

func TestRotationLosesNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.AuditLog = path }})
	c := s.Client(testkit.Forms[0])
	const rounds = 20
	for i := range rounds {
		create(t, c, fmt.Sprint("s", i), 1)
		if err := os.Rename(path, fmt.Sprint(path, ".", i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for i := range rounds {
		lines := jsonLines(t, fmt.Sprint(path, ".", i))
		if len(lines) != 1 || !strings.HasSuffix(lines[0]["resource"].(string), fmt.Sprint("/s", i)) {
			t.Errorf("file %d: %v", i, lines)
		}
	}
}

func TestReadinessSaysThatTheLogIsReadOnly(t *testing.T) {
	faults := new(vfs.Faults)
	files := vfs.WithFaults(vfs.NewMemory(), faults)
	s := testkit.Start(t, testkit.Options{Files: files})
	c := s.Client(testkit.Forms[0])
	create(t, c, "s", 1)
	admin := "http://" + s.AdminAddress()
	if status, body := get(t, admin+"/health/ready"); status != 200 || body != "ready\n" {
		t.Fatalf("before: %d %q", status, body)
	}
	faults.FailFrom(vfs.WriteCall, 1, errors.New("input/output error"))
	err := c.Call(t.Context(), kinesis.OpPutRecord, &kinesis.PutRecordInput{StreamName: api.Ptr("s"), Data: []byte("a"), PartitionKey: api.Ptr("k")}, nil)
	if testkit.Code(err) == "" {
		t.Errorf("put on a broken disk: %v", err)
	}
	if status, body := get(t, admin+"/health/ready"); status != 503 || !strings.Contains(body, "log is read-only") {
		t.Errorf("after: %d %q", status, body)
	}
	if status, _ := get(t, admin+"/health/live"); status != 200 {
		t.Errorf("live: %d", status)
	}
	var unready *server.NotReadyError
	if _, err := server.CheckHealth(t.Context(), s.AdminAddress()); !errors.As(err, &unready) || strings.Contains(err.Error(), "\n") {
		t.Errorf("check: %v", err)
	}
	if _, metrics := get(t, admin+"/metrics"); !strings.Contains(metrics, "\nmillrace_log_read_only 1\n") {
		t.Error("the metric does not show it")
	}
	// Reads go on.
	if got := read(t, c, "s"); len(got) != 0 {
		t.Errorf("read %q", got)
	}
	faults.Heal()
}

// TestProbesAreAnsweredWhileStartingAndStopping looks at the admin port from
// inside the recovery of the log, and again while a request holds up the stop.
func TestProbesAreAnsweredWhileStartingAndStopping(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	admin := "http://" + address
	var once sync.Once
	looked := false
	faults := &vfs.Faults{OnSync: func(bool, vfs.Kind, string) {
		once.Do(func() {
			looked = true
			if status, body := get(t, admin+"/health/ready"); status != 503 || body != "starting\n" {
				t.Errorf("starting: %d %q", status, body)
			}
			if status, body := get(t, admin+"/health/live"); status != 200 || body != "live\n" {
				t.Errorf("starting: %d %q", status, body)
			}
		})
	}}
	s := testkit.Start(t, testkit.Options{
		Files:     vfs.WithFaults(vfs.NewMemory(), faults),
		Configure: func(c *config.Config) { c.AdminListen = address },
	})
	if !looked {
		t.Fatal("nothing was synced")
	}
	if status, body := get(t, admin+"/health/ready"); status != 200 || body != "ready\n" {
		t.Errorf("running: %d %q", status, body)
	}

	slow, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\r\n")
	// The server asks for the body: the request is being served.
	if line, err := bufio.NewReader(slow).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v", line, err)
	}
	var stop sync.WaitGroup
	stop.Go(func() { s.Stop() })
	for {
		status, body := get(t, admin+"/health/ready")
		if status == 503 {
			if body != "stopping\n" {
				t.Errorf("stopping: %q", body)
			}
			break
		}
	}
	if status, _ := get(t, admin+"/health/live"); status != 200 {
		t.Errorf("stopping: live is %d", status)
	}
	fmt.Fprint(slow, "{}")
	stop.Wait()
}
