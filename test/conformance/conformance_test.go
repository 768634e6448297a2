package conformance

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"golang.org/x/net/http2"

	"github.com/millrace/millrace/test/harness"
)

var update = flag.Bool("update", false, "rewrite proven.txt")

var (
	server    *harness.Server
	authority string // file with the server's own CA
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "millrace-conformance-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	data := filepath.Join(dir, "data")
	server, err = harness.Start(ctx, harness.Options{Data: data, Keys: true})
	if err != nil {
		return 0, err
	}
	pem, stderr, code, err := harness.Run(ctx, "ca", "--data", data)
	if err != nil || code != 0 {
		return 0, fmt.Errorf("millrace ca: exit code %d, %v: %s", code, err, stderr)
	}
	authority = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(authority, []byte(pem), 0o600); err != nil {
		return 0, err
	}
	result := m.Run()
	stop, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	exit, err := server.Stop(stop)
	if err == nil && exit != 0 {
		err = fmt.Errorf("the server ended with exit code %d", exit)
	}
	if out := server.Output(); result != 0 || err != nil || strings.Contains(out, "panic") {
		fmt.Fprintf(os.Stderr, "--- the server's last words\n%s\n", out[max(0, len(out)-8000):])
		if strings.Contains(out, "panic") {
			err = fmt.Errorf("the server panicked")
		}
	}
	return result, err
}

var dataStreams = &service{name: "kinesis", target: "Kinesis_20131202", inGo: func(endpoint, region string, keys aws.CredentialsProvider, over *http.Client) any {
	return kinesis.New(kinesis.Options{Region: region, BaseEndpoint: &endpoint, Credentials: keys, Retryer: aws.NopRetryer{}, HTTPClient: over})
}}

// way is a client over one wire.
type way struct {
	name string
	open func(t *testing.T, region string) Client
	// lacks matches operations that this client may not know.
	lacks string
}

func environment(region string, secure bool) []string {
	env := []string{
		"AWS_ACCESS_KEY_ID=" + harness.AccessKey, "AWS_SECRET_ACCESS_KEY=" + harness.SecretKey,
		"AWS_REGION=" + region, "AWS_DEFAULT_REGION=" + region,
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "AWS_EC2_METADATA_DISABLED=true",
		"ENDPOINT=" + server.URL(secure),
	}
	if secure {
		env = append(env, "CA="+authority, "NODE_EXTRA_CA_CERTS="+authority, "AWS_CA_BUNDLE="+authority)
	}
	return env
}

func inCache(parts ...string) string {
	return filepath.Join(append([]string{harness.Root(), ".cache"}, parts...)...)
}

func inClients(parts ...string) string {
	return filepath.Join(append([]string{harness.Root(), "test", "conformance", "clients"}, parts...)...)
}

// started is a server of the test's own, which ends as it should when the test does.
func started(t *testing.T, o harness.Options) *harness.Server {
	t.Helper()
	s, err := harness.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if code, err := s.Stop(stop); code != 0 || err != nil {
			t.Errorf("the server ended with exit code %d, %v", code, err)
		}
	})
	return s
}

// install brings a part of the cache up to date; a test without its client is
// a failure, not a skip.
var install = func() func(t *testing.T, part string) {
	var mu sync.Mutex
	done := map[string]bool{}
	return func(t *testing.T, part string) {
		mu.Lock()
		defer mu.Unlock()
		if done[part] {
			return
		}
		if out, err := exec.Command(filepath.Join(harness.Root(), "scripts", "install"), part).CombinedOutput(); err != nil {
			t.Fatalf("install %s: %v\n%s", part, err, out)
		}
		done[part] = true
	}
}()

func subprocess(part string, secure bool, more []string, command func() []string) func(*testing.T, string) Client {
	return func(t *testing.T, region string) Client {
		install(t, part)
		line := command()
		p, err := startProcess(append(environment(region, secure), more...), line[0], line[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func (s *service) python(kind string) func() []string {
	return func() []string {
		return []string{inCache("python", "bin", "python"), inClients("python", "calls.py"), kind, s.name}
	}
}

func node() []string { return []string{"node", inClients("node", "kinesis.mjs")} }

func java(kind string, service ...string) func() []string {
	return func() []string {
		path, err := os.ReadFile(inCache("java", "classpath"))
		if err != nil {
			return []string{"false"}
		}
		return append([]string{"java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", inCache("java", "classes") + ":" + strings.TrimSpace(string(path)), "Kinesis"}, append([]string{kind}, service...)...)
	}
}

func trust(t *testing.T) *tls.Config {
	pem, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("millrace ca printed no certificate")
	}
	return &tls.Config{RootCAs: pool}
}

func (s *service) sdk(secure bool) func(*testing.T, string) Client {
	return func(t *testing.T, region string) Client {
		transport := &http.Transport{}
		if secure {
			transport.TLSClientConfig = trust(t)
			transport.ForceAttemptHTTP2 = true
		}
		t.Cleanup(transport.CloseIdleConnections)
		keys := credentials.NewStaticCredentialsProvider(harness.AccessKey, harness.SecretKey, "")
		return &goClient{s.inGo(server.URL(secure), region, keys, &http.Client{Transport: transport})}
	}
}

func (s *service) raw(contentType, protocol string) func(*testing.T, string) Client {
	return func(t *testing.T, region string) Client {
		c := &rawClient{service: s, endpoint: server.URL(protocol == "tls-h2"), region: region, contentType: contentType, http: &http.Client{}}
		switch protocol {
		case "h1":
			c.http.Transport = &http.Transport{}
		case "h2c":
			p := new(http.Protocols)
			p.SetUnencryptedHTTP2(true)
			c.http.Transport = &http.Transport{Protocols: p}
		case "tls-h2":
			c.http.Transport = &http2.Transport{TLSClientConfig: trust(t)}
		}
		return c
	}
}

const (
	queueOperations   = `Queue`
	channelOperations = `Queue|Channel`
	newestOperations  = `Queue|Channel|RecordDistribution`
	noFanOut          = `|^SubscribeToShard$`
)

var ways = []way{
	{"go/http", dataStreams.sdk(false), queueOperations},
	{"go/tls", dataStreams.sdk(true), queueOperations},
	{"boto3/http", subprocess("python", false, nil, dataStreams.python("boto3")), `^$`},
	{"boto3/tls", subprocess("python", true, nil, dataStreams.python("boto3")), `^$`},
	{"cli/http", subprocess("python", false, nil, dataStreams.python("cli")), channelOperations + noFanOut},
	{"javascript/h2c", subprocess("node", false, []string{"MODULES=" + inCache("node")}, node), queueOperations},
	{"javascript/tls", subprocess("node", true, []string{"MODULES=" + inCache("node")}, node), queueOperations},
	{"java/sync-cbor", subprocess("java", false, nil, java("sync")), newestOperations + noFanOut},
	{"java/sync-json", subprocess("java", false, []string{"CBOR_ENABLED=false"}, java("sync")), newestOperations + noFanOut},
	{"java/async-h2c", subprocess("java", false, nil, java("async")), newestOperations},
	{"java/async-tls", subprocess("java", true, nil, java("async")), newestOperations},
	{"raw/json-h1", dataStreams.raw(jsonType, "h1"), `^$`},
	{"raw/cbor-h1", dataStreams.raw(cborType, "h1"), `^$`},
	{"raw/json-h2c", dataStreams.raw(jsonType, "h2c"), `^$`},
	{"raw/cbor-tls-h2", dataStreams.raw(cborType, "tls-h2"), `^$`},
}

// knownFailures reads the file of checks that fail today.
func knownFailures(t *testing.T) map[string]string {
	f, err := os.Open("known-failures.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	known := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, why, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("known-failures.txt: %q gives no reason", line)
		}
		known[name] = why
	}
	return known
}

// TestEveryOperationThroughEveryClient runs the scenario once per client, each
// in a region of its own, so that they do not see each other.
func TestEveryOperationThroughEveryClient(t *testing.T) {
	dataStreams.prove(t, ways, 57, "proven.txt", (*scenario).run)
}

// prove runs a scenario through clients, compares what fails with the failures
// that are known, and what was served with a file.
func (sv *service) prove(t *testing.T, ways []way, operations int, file string, run func(*scenario)) {
	known := knownFailures(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	called := map[string]int{}
	proven := map[string][]string{} // operation → ways it was served
	t.Run("clients", func(t *testing.T) {
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) {
				t.Parallel()
				region := strings.ReplaceAll(w.name, "/", "-") + "-1"
				if sv.region != nil {
					region = sv.region(w.name)
				}
				client := w.open(t, region)
				defer client.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
				defer cancel()
				s := &scenario{ctx: ctx, client: client, region: region, name: "rivers", called: map[string]int{}, served: map[string]int{}, absent: map[string]int{}}
				s.check = func(name string, f func()) {
					full := sv.name + "/" + w.name + "/" + name
					err, skipped := attempt(f)
					mu.Lock()
					seen[full] = true
					mu.Unlock()
					why, expected := known[full]
					switch {
					case skipped:
					case err != nil && expected:
						t.Logf("%s: known failure (%s): %v", name, why, err)
					case err != nil:
						t.Errorf("%s: %v", name, err)
					case expected:
						t.Errorf("%s passes; take it out of known-failures.txt", name)
					}
				}
				run(s)
				lacks := regexp.MustCompile(w.lacks)
				for op := range s.absent {
					if !lacks.MatchString(op) {
						t.Errorf("the client does not know %s", op)
					}
				}
				mu.Lock()
				for op, n := range s.called {
					called[op] += n
				}
				for op := range s.served {
					proven[op] = append(proven[op], w.name)
				}
				mu.Unlock()
				t.Logf("%d operations", len(s.called))
			})
		}
	})
	if t.Failed() || testing.Short() {
		return
	}
	for name := range known {
		if strings.HasPrefix(name, sv.name+"/") && !seen[name] && ranAll() {
			t.Errorf("known-failures.txt: no check is called %s", name)
		}
	}
	if ranAll() {
		if len(called) != operations {
			t.Errorf("%d of %d operations were called: %v", len(called), operations, slices.Sorted(maps.Keys(called)))
		}
		checkProven(t, file, proven)
	}
}

// checkProven compares what was served with the file that
// docs/supported-operations.md is made from.
func checkProven(t *testing.T, name string, proven map[string][]string) {
	var b strings.Builder
	b.WriteString("# Operations and the clients that they were served to, failures not counted.\n")
	b.WriteString("# Written by go test . -update in test/conformance; go test . -update in the root makes the page of it.\n")
	for _, op := range slices.Sorted(maps.Keys(proven)) {
		slices.Sort(proven[op])
		fmt.Fprintf(&b, "%s: %s\n", op, strings.Join(proven[op], " "))
	}
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if raw, err := os.ReadFile(name); err != nil || string(raw) != b.String() {
		t.Errorf("%s is not what was served (%v); rewrite it with -update if that is meant:\n%s", name, err, b.String())
	}
}

// ranAll is false when the command line picks single clients.
func ranAll() bool {
	for _, a := range os.Args {
		if strings.HasPrefix(a, "-test.run=") && a != "-test.run=" {
			return false
		}
	}
	return true
}

// attempt runs a check to its end or its failure.
func attempt(f func()) (err error, skipped bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failed:
			err = r.error
		case skip:
			skipped = true
		default:
			err = fmt.Errorf("reply of an unexpected form: %v", r)
		}
	}()
	f()
	return nil, false
}
