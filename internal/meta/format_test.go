package meta

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tidwall/btree"

	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata of the present format")

// format1 is a metadata directory as the first release left it: a snapshot, and
// the commands from behind it as lines of hexadecimal digits. It is not
// rewritten when formats change; -update serves a format that is not released.
const format1 = "testdata/format1"

// history is what was committed to make the stored directory.
func history(t *testing.T, s *Store) {
	t.Helper()
	type stream struct {
		Name   string
		Shards int
	}
	table := Table[stream]{Prefix: "streams", Format: 1}
	must := func(ops ...Op) Version {
		v, err := s.Commit(t.Context(), ops...)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	must(table.Insert(stream{"clicks", 4}, "000000000000", "eu-west-1", "clicks"))
	v := must(Op{Key: "plain", Value: []byte{0, 1, 255}}, Op{Key: Key("a/b", "", "100%"), Value: nil})
	if _, err := s.NextShardID(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(Op{Key: "plain", Value: []byte("second"), Cond: IfVersion, Version: v})
	if _, err := s.Commit(t.Context(), Op{Key: "plain", Cond: IfVersion, Version: v}, Op{Key: "lost", Value: []byte("x")}); err == nil {
		t.Fatal("no conflict")
	}
	must(Op{Key: Key("a/b", "", "100%"), Delete: true, Cond: Present}, Op{Key: "large", Value: bytes.Repeat([]byte("z"), 300), Cond: Absent})
	must(table.Put(stream{"clicks", 8}, "000000000000", "eu-west-1", "clicks"))
}

func describe(s *Store) string {
	var b strings.Builder
	for _, r := range s.List("", "", 0) {
		fmt.Fprintf(&b, "%s @%d %q\n", r.Key, r.Version, r.Value)
	}
	return b.String()
}

func TestDirectoryOfTheFirstFormatOpens(t *testing.T) {
	disk := vfs.NewMemory()
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	defer log.Close()
	const snapshot = "0000000000000003.snapshot"
	if *update {
		writeFormat1(t, snapshot)
	}
	data, err := os.ReadFile(filepath.Join(format1, snapshot))
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(disk, snapshot, data); err != nil {
		t.Fatal(err)
	}
	// A log that was truncated behind the snapshot, with one batch a command.
	if err := log.Create(t.Context(), []driver.Shard{{ID: LogShard}}); err != nil {
		t.Fatal(err)
	}
	add := func(command []byte) {
		if err := log.Append(t.Context(), []*driver.Batch{shardlog.NewBatch(LogShard, command)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		add([]byte("dropped"))
	}
	if err := log.Truncate(t.Context(), LogShard, 4); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(filepath.Join(format1, "log.hex"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		command, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		add(command)
	}
	s, err := Open(t.Context(), log, disk, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want, err := os.ReadFile(filepath.Join(format1, "state.golden"))
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(s); got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if first, err := s.NextShardID(t.Context(), 1); err != nil || first != 20 {
		t.Errorf("next shard number is %d, %v", first, err)
	}

	// What this release writes for the same history is still that format.
	if commandFormat == 1 && snapshotFormat == 1 {
		gotSnapshot, gotLog, _ := record(t, snapshot)
		if !bytes.Equal(gotSnapshot, data) {
			t.Error("the same state is written as another snapshot; a change of format needs a new number")
		}
		if gotLog != string(lines) {
			t.Errorf("the same history is written as other commands; a change of format needs a new number\n%s", gotLog)
		}
	}
}

// record runs the history and returns what it left: the snapshot, the commands
// after it, and the state.
func record(t *testing.T, name string) (snapshot []byte, commands, state string) {
	t.Helper()
	disk := vfs.NewMemory()
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	defer log.Close()
	s, err := Open(t.Context(), log, disk, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	history(t, s)
	if snapshot, err = vfs.ReadFile(disk, name, 1<<20); err != nil {
		t.Fatal(err)
	}
	batches, _, err := log.Read(t.Context(), LogShard, 4, 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		for r, err := range shardlog.Records(b) {
			if err != nil {
				t.Fatal(err)
			}
			commands += hex.EncodeToString(r.Data) + "\n"
		}
	}
	return snapshot, commands, describe(s)
}

func writeFormat1(t *testing.T, name string) {
	t.Helper()
	snapshot, commands, state := record(t, name)
	if err := os.MkdirAll(format1, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{name: string(snapshot), "log.hex": commands, "state.golden": state} {
		if err := os.WriteFile(filepath.Join(format1, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMalformedCommandsAreNamed(t *testing.T) {
	for _, test := range []struct{ name, command, want string }{
		{"empty", "", "end within"},
		{"format zero", "\x00\x01\x00\x01k\x00", "format is zero"},
		{"newer format", "\x02", "newer version"},
		{"no operations", "\x01\x00", "number of operations"},
		{"more operations than bytes", "\x01\xff\xff\xff\xff\x0f\x00\x01k\x00", "number of operations"},
		{"unknown kind", "\x01\x01\x08\x01k\x00", "unknown kind"},
		{"empty key", "\x01\x01\x00\x00\x00", "key is empty"},
		{"key cut off", "\x01\x01\x00\x09key", "end within"},
		{"value cut off", "\x01\x01\x00\x01k\x05abc", "end within"},
		{"number in long form", "\x01\x81\x00\x00\x01k\x00", "shortest form"},
		{"number without end", "\x01\x01\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "end within"},
		{"bytes left", "\x01\x01\x01\x01k\x00", "after the last"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := decodeCommand([]byte(test.command), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
			if errors.Is(err, driver.ErrNewerVersion) != (test.name == "newer format") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(appendCommand(nil, []Op{{Key: "k", Value: []byte("v")}, {Key: "d", Delete: true, Cond: IfVersion, Version: 300}}))
	f.Add(appendCommand(nil, []Op{{Key: strings.Repeat("k", 200), Cond: Absent}, {Key: "x", Cond: Present, Value: make([]byte, 200)}}))
	f.Add([]byte("\x01\x01\x00\x01k\x05abc"))
	f.Fuzz(func(t *testing.T, command []byte) {
		decoded, err := decodeCommand(command, nil)
		if err != nil {
			return
		}
		ops := make([]Op, len(decoded))
		for i, op := range decoded {
			ops[i] = Op{Key: string(op.key), Value: op.value, Delete: op.delete, Cond: op.cond, Version: op.version}
		}
		if again := appendCommand(nil, ops); !bytes.Equal(again, command) {
			t.Errorf("% x is written as % x", command, again)
		}
	})
}

// buffer is an io.WriterAt for appending.
type buffer struct{ data []byte }

func (b *buffer) WriteAt(p []byte, offset int64) (int, error) {
	if offset != int64(len(b.data)) {
		return 0, io.ErrShortWrite
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

func FuzzSnapshot(f *testing.F) {
	seed := func(n, size int) {
		records := btree.NewMap[string, entry](0)
		for i := range n {
			records.Set(fmt.Sprintf("key%04d", i), entry{version: Version(i%7 + 1), value: make([]byte, size)})
		}
		var b buffer
		if _, err := encodeSnapshot(&b, 7, records); err != nil {
			f.Fatal(err)
		}
		f.Add(b.data)
	}
	seed(0, 0)
	seed(3, 5)
	seed(60, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := decodeSnapshot(bytes.NewReader(data), "file", 7)
		if err != nil {
			var corrupt *driver.CorruptError
			if !errors.As(err, &corrupt) && !errors.Is(err, driver.ErrNewerVersion) {
				t.Errorf("damage is reported as %v", err)
			}
			return
		}
		// Blocks may be cut elsewhere; the records are the same.
		var b buffer
		if _, err := encodeSnapshot(&b, 7, records); err != nil {
			t.Fatal(err)
		}
		again, err := decodeSnapshot(bytes.NewReader(b.data), "file", 7)
		if err != nil || !reflect.DeepEqual(again.Keys(), records.Keys()) || !reflect.DeepEqual(again.Values(), records.Values()) {
			t.Errorf("changes when written again: %v", err)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add("a/b", "")
	f.Add("100%", "%2F")
	f.Fuzz(func(t *testing.T, a, b string) {
		key := Key(a, b)
		parts, err := SplitKey(key)
		if err != nil || len(parts) != 2 || parts[0] != a || parts[1] != b {
			t.Errorf("%q, %q became %q became %q, %v", a, b, key, parts, err)
		}
	})
}
