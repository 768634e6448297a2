package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/aggregate"
	"github.com/millrace/millrace/internal/testkit"
)

// start runs a server and points the commands at it.
func start(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("MILLRACE_ENDPOINT", "http://"+testkit.Start(t, testkit.Options{}).Address())
}

// millrace runs a command that must succeed and returns its standard output.
func millrace(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := execute(t.Context(), args, strings.NewReader(stdin), &out, &errs); code != 0 {
		t.Fatalf("%v: exit code %d: %s", args, code, errs.String())
	}
	return out.String()
}

// follower is a command that runs on, whose lines can be waited for.
type follower struct {
	t      *testing.T
	lines  chan string
	cancel context.CancelFunc
	done   sync.WaitGroup
	code   int
	errs   bytes.Buffer
}

func follow(t *testing.T, stdin io.Reader, args ...string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t, lines: make(chan string, 10_000), cancel: cancel}
	f.done.Go(func() {
		f.code = execute(ctx, args, stdin, lineWriter(f.lines), &f.errs)
		close(f.lines)
	})
	t.Cleanup(func() { f.stop() })
	return f
}

// lineWriter sends what is written, a line a write as printers do.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- strings.TrimSuffix(string(p), "\n")
	return len(p), nil
}

// take waits for n lines.
func (f *follower) take(n int) []string {
	f.t.Helper()
	var lines []string
	for range n {
		line, ok := <-f.lines
		if !ok {
			f.t.Fatalf("ended after %d of %d lines: %s", len(lines), n, f.errs.String())
		}
		lines = append(lines, line)
	}
	return lines
}

// stop interrupts the command and returns its exit code.
func (f *follower) stop() int {
	f.cancel()
	f.done.Wait()
	return f.code
}

func TestTailFollowsThroughSplitsAndMerges(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	f := follow(t, nil, "tail", "s", "--from", "trim")
	n := 0
	put := func() {
		t.Helper()
		var b strings.Builder
		var want []string
		for range 50 {
			want = append(want, fmt.Sprintf("record %04d", n))
			fmt.Fprintf(&b, "record %04d\n", n)
			n++
		}
		millrace(t, b.String(), "put", "s")
		got := f.take(50)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("printed %q, want %q", got, want)
		}
	}
	put()
	for _, change := range [][]string{
		{"split", "s", "0"}, {"split", "s", "1"}, {"merge", "s", "4", "2"}, {"merge", "s", "3", "5"}, {"scale", "s", "2"}, {"scale", "s", "3"},
	} {
		millrace(t, "", append([]string{"stream"}, change...)...)
		put()
	}
	if code := f.stop(); code != 0 {
		t.Errorf("interrupted: exit code %d: %s", code, f.errs.String())
	}
}

// A follower sees the records of one key in their order while shards come and
// go under it.
func TestTailKeepsTheOrderOfAKeyWhileShardsChange(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	f := follow(t, nil, "tail", "s", "--from", "trim", "-n", "600")
	var puts sync.WaitGroup
	for key := range 3 {
		puts.Go(func() {
			for i := range 200 {
				text := fmt.Sprintf("%d %d", key, i)
				var out, errs bytes.Buffer
				if execute(t.Context(), []string{"put", "s", text, "--key", fmt.Sprint(key)}, strings.NewReader(""), &out, &errs) != 0 {
					t.Error(errs.String())
					return
				}
			}
		})
	}
	for _, count := range []string{"2", "3", "2", "4"} {
		millrace(t, "", "stream", "scale", "s", count)
	}
	puts.Wait()
	next := map[int]int{}
	for _, line := range f.take(600) {
		var key, i int
		if _, err := fmt.Sscan(line, &key, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[key] {
			t.Fatalf("key %d: record %d, want %d", key, i, next[key])
		}
		next[key]++
	}
}

func TestTailTakesAggregatesApart(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	packed := aggregate.Append(nil, []aggregate.Record{
		{PartitionKey: "a", Data: []byte(`{"n":1}`)}, {PartitionKey: "b", Data: []byte(`{"n":2}`)},
	})
	file := t.TempDir() + "/packed"
	if err := os.WriteFile(file, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	millrace(t, "", "put", "s", "--whole", "--file", file)
	millrace(t, "plain\n", "put", "s")
	if got := millrace(t, "", "tail", "s", "--from", "trim", "--no-follow"); got != "{\"n\":1}\n{\"n\":2}\nplain\n" {
		t.Errorf("tail prints %q", got)
	}
	if got := millrace(t, "", "tail", "s", "--from", "trim", "--no-follow", "--jq", ".n", "-n", "1"); got != "1\n" {
		t.Errorf("tail --jq prints %q", got)
	}
	for _, want := range []string{`"subSequenceNumber":0`, `"subSequenceNumber":1`, `"partitionKey":"b"`} {
		if got := millrace(t, "", "tail", "s", "--from", "trim", "--no-follow", "--json"); !strings.Contains(got, want) {
			t.Errorf("tail --json prints %q, without %s", got, want)
		}
	}
	if got := millrace(t, "", "tail", "s", "--from", "trim", "--no-follow", "--no-deaggregation", "--raw", "-n", "1"); got != string(packed)+"\n" {
		t.Errorf("tail --no-deaggregation prints %q", got)
	}
}

// Lines that trickle out of a pipe are put as they come, not when it ends.
func TestPutDoesNotWaitForAPipeToEnd(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	reader := follow(t, nil, "tail", "s", "--from", "trim")
	r, w := io.Pipe()
	writer := follow(t, r, "put", "s", "--key", "k")
	for i := range 5 {
		want := fmt.Sprint("line ", i)
		fmt.Fprintln(w, want)
		if got := reader.take(1)[0]; got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
	fmt.Fprint(w, "the last has no end")
	w.Close()
	if got := reader.take(1)[0]; got != "the last has no end" {
		t.Errorf("printed %q", got)
	}
	writer.done.Wait()
	if writer.code != 0 || writer.errs.String() != "6 records put into s\n" {
		t.Errorf("exit code %d: %q", writer.code, writer.errs.String())
	}
}

func TestPutRefusesALineThatNoRecordHolds(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	var out, errs bytes.Buffer
	code := execute(t.Context(), []string{"put", "s"}, strings.NewReader("short\n"+strings.Repeat("x", maxLineBytes+1)+"\n"), &out, &errs)
	if want := "millrace: after 1 records: standard input, line 2: longer than a record may be (10485760 bytes)\n"; code != 1 || errs.String() != want {
		t.Errorf("exit code %d: %q", code, errs.String())
	}
	// A stream takes 1 MiB unless it is told otherwise.
	errs.Reset()
	code = execute(t.Context(), []string{"put", "s"}, strings.NewReader(strings.Repeat("x", 1<<20+1)+"\n"), &out, &errs)
	if code != 1 || strings.Count(errs.String(), "\n") != 1 {
		t.Errorf("exit code %d: %q", code, errs.String())
	}
}

// What is exported and imported again is the same, also where it is not text,
// and the records of a key are in the same order, also where shards changed
// between them.
func TestExportAndImportKeepEveryRecord(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string][]string{}
	dir := t.TempDir()
	put := func(n int) {
		for i := range n {
			key := fmt.Sprint("key ", random.IntN(5))
			data := make([]byte, 1+random.IntN(64))
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			if i%7 == 0 {
				data = []byte("text with \"quotes\" \u2028 and \x00")
			}
			want[key] = append(want[key], string(data))
			if err := os.WriteFile(dir+"/data", data, 0o600); err != nil {
				t.Fatal(err)
			}
			millrace(t, "", "put", "s", "--whole", "--file", dir+"/data", "--key", key)
		}
	}
	put(20)
	for _, count := range []string{"2", "3", "2", "1"} {
		millrace(t, "", "stream", "scale", "s", count)
		put(20)
	}
	millrace(t, "", "export", "s", "--output", dir+"/first")
	millrace(t, "", "stream", "create", "copy", "--shards", "3")
	millrace(t, "", "import", "copy", dir+"/first")
	millrace(t, "", "export", "copy", "--output", dir+"/second")
	for _, name := range []string{"first", "second"} {
		f, err := os.Open(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]string{}
		err = eachImportLine(f, name, func(l *line, _ int) error {
			data, err := l.bytes()
			got[l.PartitionKey] = append(got[l.PartitionKey], string(data))
			return err
		})
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for key := range want {
			if !slices.Equal(got[key], want[key]) {
				t.Errorf("%s: %s has %d records, want %d, in order", name, key, len(got[key]), len(want[key]))
			}
		}
	}
}

// An interrupt ends a put that waits for more, after what has come is stored.
func TestPutEndsWhenItIsInterrupted(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	reader := follow(t, nil, "tail", "s", "--from", "trim")
	for _, command := range [][]string{{"put", "s"}, {"put", "s", "--whole"}, {"import", "s"}} {
		r, w := io.Pipe()
		writer := follow(t, r, command...)
		if len(command) == 2 && command[0] == "put" {
			fmt.Fprintln(w, "one")
			reader.take(1)
		}
		if code := writer.stop(); code != 1 || !strings.Contains(writer.errs.String(), "interrupted") || strings.Count(writer.errs.String(), "\n") != 1 {
			t.Errorf("%v: exit code %d: %q", command, code, writer.errs.String())
		}
		w.Close()
	}
}
