package conformance

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/test/harness"
)

// TestReadmeLiveSQL runs the README's way to live SQL as it stands, but for the
// server's address and for where its binary comes from: the demonstration in one
// terminal, the rest in another, until Ctrl-C in the first.
func TestReadmeLiveSQL(t *testing.T) {
	install(t, "python")
	raw, err := os.ReadFile(filepath.Join(harness.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## Five minutes to live SQL\n")
	if !ok {
		t.Fatal("the README has no such section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := shellBlocks.FindAllStringSubmatch(section, -1)
	if len(blocks) < 6 || strings.TrimSpace(blocks[0][1]) != "go run ./cmd/millrace sql demo" {
		t.Fatalf("there are %d blocks of commands, and the first is\n%s", len(blocks), blocks[0][1])
	}
	dir := t.TempDir()
	s := started(t, harness.Options{Data: filepath.Join(dir, "data"), Args: []string{"--region", "us-east-1"}})
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	// Clients of the README's server need no address: it listens where they look.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := func(text string) *exec.Cmd {
		text = strings.NewReplacer("127.0.0.1:4567", s.Address, "go run ./cmd/millrace", binary).Replace(text)
		c := exec.CommandContext(ctx, "bash", "-e", "-u", "-o", "pipefail", "-c", text)
		c.Dir = dir
		c.WaitDelay = 10 * time.Second // what the shell has started may outlive it
		c.Env = append(os.Environ(), "PATH="+inCache("python", "bin")+":"+os.Getenv("PATH"), "MILLRACE_ENDPOINT=http://"+s.Address,
			"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "LC_ALL=C.UTF-8", "PYTHONUTF8=1")
		return c
	}
	run := func(texts ...string) string {
		t.Helper()
		text := strings.Join(texts, "")
		out, err := command(text).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\nof\n%s", err, out, text)
		}
		return string(out)
	}
	demo := command("exec " + blocks[0][1])
	said := &lineWatch{want: "in another terminal", found: make(chan struct{})}
	pipe, err := demo.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	demo.Stdout = said
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			fmt.Fprintln(said, lines.Text())
		}
	})
	// In the end it is gone, whatever has failed before.
	end := sync.OnceValue(func() error {
		demo.Process.Signal(os.Interrupt)
		reading.Wait()
		return demo.Wait()
	})
	defer end()
	select {
	case <-said.found:
	case <-ctx.Done():
		t.Fatalf("the demonstration has not begun:\n%s", said)
	}
	var between []string
	for _, b := range blocks[1 : len(blocks)-1] {
		between = append(between, b[1])
	}
	out := run(between...)
	for _, want := range []string{
		"SOURCE_SQL_STREAM_001 from stream demo-ticker",                   // status
		"STEP(\"SOURCE_SQL_STREAM_001\".ROWTIME BY INTERVAL '10' SECOND)", // status --code
		`"LOWEST":`, // rows before
		"demo-tumbling has version 2 and is RUNNING",
		"pump STREAM_PUMP has changed and begins anew",
		`"AVERAGE":`, // rows afterwards
		"demo-anomalies",
		"deleted demo-tumbling",
		"created demo-tumbling (version 2 of the API): reads stream demo-ticker, writes stream demo-tumbling",
		"started demo-tumbling",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output has no %q:\n%s", want, out)
		}
	}
	// Five rows each: before the change, after it, and of what was imported.
	if before, after := strings.Count(out, `{"SECTOR":`), strings.Count(out, `{"STOCK":`); before != 5 || after != 10 {
		t.Errorf("%d rows of the first query and %d of the second:\n%s", before, after, out)
	}
	if strings.LastIndex(out, `{"SECTOR":`) > strings.Index(out, `{"STOCK":`) {
		t.Errorf("the old query has rows after the new one:\n%s", out)
	}
	if err := end(); err != nil {
		t.Errorf("the demonstration ended with %v:\n%s", err, said)
	}
	if text := said.String(); !strings.Contains(text, "the applications go on running") {
		t.Errorf("the demonstration says at its end\n%s", text)
	}
	run(blocks[len(blocks)-1][1])
	if left := run("go run ./cmd/millrace sql list; go run ./cmd/millrace stream list"); strings.Contains(left, "demo-") {
		t.Errorf("what is left is\n%s", left)
	}
}

// TestPageOfStreamingSQL runs all commands of docs/sql.md in their order, and looks
// at what the page says that they print.
func TestPageOfStreamingSQL(t *testing.T) {
	install(t, "python")
	raw, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "sql.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := started(t, harness.Options{Data: filepath.Join(dir, "data"), Args: []string{"--region", "us-east-1"}})
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, b := range shellBlocks.FindAllStringSubmatch(string(raw), -1) {
		script.WriteString(b[1])
	}
	text := strings.NewReplacer("127.0.0.1:4567", s.Address, "127.0.0.1:4568", s.Admin).Replace(script.String())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-e", "-u", "-x", "-o", "pipefail", "-c", "millrace() { "+binary+" \"$@\"; }\n"+text)
	c.Dir = dir
	c.WaitDelay = 10 * time.Second
	c.Env = append(os.Environ(), "PATH="+inCache("python", "bin")+":"+os.Getenv("PATH"),
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "LC_ALL=C.UTF-8", "PYTHONUTF8=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What the page shows is printed, line by line.
	wants := []string{
		"1 passed, 0 failed",
		`{"TICKER":"MSFT","TRADES":1,"HIGH":20.5}`,
		`"HIGH":14}`,      // behind a function
		`"Name": "price"`, // discovered
		`"errorCode":"OutputError"`,
		`"problem":"ResourceNotFoundException: Stream counted`,
		`{"stream":"SESSIONS","rowtime":"2026-03-01T10:00:31.000Z","row":{"TICKER":"AMZN","TRADES":1,"DEAR":0,"PRICES":1}}`,
		`{"stream":"RISES","rowtime":"2026-03-01T10:00:50.000Z","row":{"TICKER":"AMZN","PRICE":11.5}}`,
		`{"N":null,"INNER_TEXT":"1","LIST":"[1, 2]"}`,
		"created trades (version 2 of the API): reads stream trades, looks up s3://reference/companies.csv, writes stream counted",
		"started trades",
		"GROUP BY `window_start`, `window_end`, `window_time`, `ticker`;",
	}
	for _, line := range shownOutput(string(raw)) {
		if line != "…" && !strings.HasPrefix(line, "rows ") {
			wants = append(wants, line)
		}
	}
	for _, want := range wants {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("the output is\n%s", out)
	}
}

// shownOutput are the lines of a page's blocks that are in no language: what it
// says that its commands print.
func shownOutput(page string) (lines []string) {
	fence := ""
	for _, line := range strings.Split(page, "\n") {
		switch {
		case fence == "" && strings.HasPrefix(line, "```"):
			fence = line
		case line == "```":
			fence = ""
		case fence == "```":
			lines = append(lines, line)
		}
	}
	return lines
}

// lineWatch keeps what is written to it, and tells when it has seen a text.
type lineWatch struct {
	want  string
	found chan struct{}

	mu   sync.Mutex
	text strings.Builder
	seen bool
}

func (w *lineWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if !w.seen && strings.Contains(w.text.String(), w.want) {
		w.seen = true
		close(w.found)
	}
	return len(p), nil
}

func (w *lineWatch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
