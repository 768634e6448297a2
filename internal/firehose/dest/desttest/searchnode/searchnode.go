// Package searchnode runs a real OpenSearch node for tests.
//
// The one idea: one node a test binary, with everything in a temporary folder;
// tests use indexes of their own. scripts/install puts the node together from
// published Java archives. It needs about 400 MB of memory and some seconds to
// start.
package searchnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Node is a running node.
type Node struct {
	URL   string
	dir   string
	cmd   *exec.Cmd
	stdin io.Closer
	log   *os.File
}

// ErrMissing says that the node is not installed.
var ErrMissing = errors.New("OpenSearch is not installed: scripts/install opensearch")

// Main is what a TestMain calls: it runs the tests with a node, which is nil if
// it is not installed, unless the environment says PEERS=required.
func Main(m *testing.M, use func(n *Node)) (code int) {
	n, err := start()
	switch {
	case err == nil:
		use(n)
		defer func() {
			if err := n.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop OpenSearch:", err)
				code = 1
			}
		}()
	case !errors.Is(err, ErrMissing) || os.Getenv("PEERS") == "required":
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func start() (*Node, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return nil, errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	installed := filepath.Join(dir, ".cache", "opensearch")
	classpath, err := os.ReadFile(filepath.Join(installed, "classpath"))
	if err != nil {
		return nil, ErrMissing
	}
	if _, err := os.Stat(filepath.Join(installed, "classes")); err != nil {
		return nil, ErrMissing
	}
	n := &Node{}
	if n.dir, err = os.MkdirTemp("", "millrace-opensearch-"); err != nil {
		return nil, err
	}
	web, err := freePort()
	if err != nil {
		return nil, err
	}
	transport, err := freePort()
	if err != nil {
		return nil, err
	}
	if n.log, err = os.Create(filepath.Join(n.dir, "log")); err != nil {
		return nil, err
	}
	n.cmd = exec.Command("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=error",
		"-cp", filepath.Join(installed, "classes")+":"+strings.TrimSpace(string(classpath)),
		"SearchNode", filepath.Join(n.dir, "home"), strconv.Itoa(web), strconv.Itoa(transport))
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, errors.Join(ErrMissing, err, os.RemoveAll(n.dir))
	}
	n.URL = "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(web))
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		reply, err := client.Get(n.URL + "/_cluster/health")
		if err == nil {
			_ = reply.Body.Close()
			if reply.StatusCode == http.StatusOK {
				return n, nil
			}
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(filepath.Join(n.dir, "log"))
			return nil, errors.Join(fmt.Errorf("OpenSearch does not answer: %w: %s", err, out), n.stop())
		}
	}
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (n *Node) stop() error {
	closed := n.stdin.Close()
	kill := time.AfterFunc(20*time.Second, func() { _ = n.cmd.Process.Kill() })
	defer kill.Stop()
	waited := n.cmd.Wait()
	return errors.Join(closed, waited, n.log.Close(), os.RemoveAll(n.dir))
}

// Call makes a request of the node and decodes the answer, which must be good.
func (n *Node) Call(t *testing.T, method, path, body string, answer any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(reply.Body, 64<<20))
	if err != nil || reply.StatusCode > 299 {
		t.Fatalf("%s %s: %d %s %v", method, path, reply.StatusCode, raw, err)
	}
	if answer != nil {
		if err := json.Unmarshal(raw, answer); err != nil {
			t.Fatal(err)
		}
	}
}
