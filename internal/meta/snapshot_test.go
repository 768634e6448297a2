package meta_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

func files(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	infos, err := fs.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.Name)
	}
	return names
}

func read(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	data, err := vfs.ReadFile(fs, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	if err := vfs.WriteFile(fs, name, data); err != nil {
		t.Fatal(err)
	}
}

func snapshot(t *testing.T, s *meta.Store) {
	t.Helper()
	if err := s.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func first(t *testing.T, log *shardlog.Log) driver.Index {
	t.Helper()
	b, err := log.Bounds(t.Context(), meta.LogShard)
	if err != nil {
		t.Fatal(err)
	}
	return b.First
}

// twice makes a store's worth of two snapshots and a log after them, closed.
func twice(t *testing.T) (log *shardlog.Log, fs *vfs.Memory, state string) {
	t.Helper()
	log, fs = newLog(t), vfs.NewMemory()
	s := open(t, log, fs, meta.Options{})
	for round := range 3 {
		for i := range 10 {
			commit(t, s, put(fmt.Sprintf("k/%d-%d", round, i), "value"), meta.Op{Key: fmt.Sprintf("k/%d-%d", round-1, i), Delete: i%3 == 0})
		}
		if round < 2 {
			snapshot(t, s)
		}
	}
	state = dump(s)
	s.Close()
	if got := fmt.Sprint(files(t, fs)); got != "[000000000000000a.snapshot 0000000000000014.snapshot]" {
		t.Fatalf("files are %v", got)
	}
	if got := first(t, log); got != 11 {
		t.Fatalf("log begins at %d, want the one after the older snapshot", got)
	}
	return log, fs, state
}

func TestSnapshotsBoundTheLog(t *testing.T) {
	log, fs := newLog(t), vfs.NewMemory()
	state := ""
	for i := range 5 {
		s := open(t, log, fs, meta.Options{SnapshotBytes: 1})
		if got := dump(s); got != state {
			t.Fatalf("opened as\n%swas\n%s", got, state)
		}
		commit(t, s, put(fmt.Sprint("key", i), strings.Repeat("v", 1000)))
		state = dump(s)
		s.Close()
	}
	if got := files(t, fs); len(got) != 2 {
		t.Errorf("files are %v", got)
	}
	if got := first(t, log); got < 2 {
		t.Errorf("log begins at %d", got)
	}
}

func TestEveryCrashWithinASnapshotLeavesTheWholeState(t *testing.T) {
	memory, faults := vfs.NewMemory(), &vfs.Faults{}
	log := newLog(t)
	var s *meta.Store
	points := 0
	check := func(what string) {
		points++
		want := dump(s)
		for seed := range uint64(4) {
			after, err := meta.Open(t.Context(), log, memory.CrashClone(seed), meta.Options{})
			if err != nil {
				t.Errorf("crash at %s, seed %d: %v", what, seed, err)
				continue
			}
			if got := dump(after); got != want {
				t.Errorf("crash at %s, seed %d: got\n%swant\n%s", what, seed, got, want)
			}
			after.Close()
		}
	}
	faults.OnSync = func(before bool, kind vfs.Kind, name string) {
		if s != nil {
			check(fmt.Sprintf("%v of %s, before: %v", kind, name, before))
		}
	}
	s = open(t, log, vfs.WithFaults(memory, faults), meta.Options{})
	for i := range 4 {
		commit(t, s, put(fmt.Sprint("key", i), strings.Repeat("v", 3000)))
		commit(t, s, put("same", fmt.Sprint(i)))
		snapshot(t, s)
		check("rest")
	}
	if points < 20 {
		t.Errorf("only %d points were tried", points)
	}
}

func TestEveryFailureOfASnapshotIsSurvived(t *testing.T) {
	broken := errors.New("input/output error")
	for n := 1; ; n++ {
		memory, faults := vfs.NewMemory(), &vfs.Faults{}
		log := newLog(t)
		s := open(t, log, vfs.WithFaults(memory, faults), meta.Options{})
		commit(t, s, put("a", "1"))
		snapshot(t, s)
		commit(t, s, put("b", "2"))
		faults.Fail(vfs.AnyCall, n, broken)
		err := s.Snapshot(t.Context())
		faults.Heal()
		commit(t, s, put("c", "3"))
		want := dump(s)
		s.Close()
		after := open(t, log, memory.CrashClone(0), meta.Options{})
		if got := dump(after); got != want {
			t.Errorf("call %d failed (%v): got\n%swant\n%s", n, err, got, want)
		}
		snapshot(t, after)
		after.Close()
		if err == nil {
			if n < 6 {
				t.Errorf("a snapshot makes %d calls only", n-1)
			}
			return
		}
		if !errors.Is(err, broken) {
			t.Errorf("call %d: %v", n, err)
		}
	}
}

func TestDamagedSnapshotGivesWayToTheOneBefore(t *testing.T) {
	log, fs, want := twice(t)
	const name = "0000000000000014.snapshot"
	whole := read(t, fs, name)
	damages := map[string][]byte{"cut to nothing": {}, "grown": append(bytes.Clone(whole), 0)}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x20
		damages[fmt.Sprintf("bit flipped at %d", i)] = flipped
		damages[fmt.Sprintf("cut at %d", i)] = whole[:i]
	}
	for what, data := range damages {
		clone := fs.CrashClone(0)
		write(t, clone, name, data)
		var logged bytes.Buffer
		s, err := meta.Open(t.Context(), log, clone, meta.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if got := dump(s); got != want {
			t.Errorf("%s: got\n%s", what, got)
		}
		if !strings.Contains(logged.String(), "corrupt data in "+name) {
			t.Errorf("%s: logged %s", what, &logged)
		}
		if got := fmt.Sprint(files(t, clone)); got != "[000000000000000a.snapshot 0000000000000014.snapshot.damaged]" {
			t.Errorf("%s: files are %s", what, got)
		}
		s.Close()
	}

	// The older one is what the next snapshot is kept with.
	write(t, fs, name, whole[:100])
	s := open(t, log, fs, meta.Options{})
	snapshot(t, s)
	s.Close()
	if got := fmt.Sprint(files(t, fs)); got != "[000000000000000a.snapshot 0000000000000014.snapshot.damaged 000000000000001e.snapshot]" {
		t.Errorf("files are %s", got)
	}
	if got := first(t, log); got != 11 {
		t.Errorf("log begins at %d", got)
	}
}

func TestDirectoriesThatCannotBeRightAreRefused(t *testing.T) {
	newer := func(data []byte) []byte {
		data = bytes.Clone(data)
		data[8]++
		binary.LittleEndian.PutUint32(data[60:], crc32.Checksum(data[:60], crc32.MakeTable(crc32.Castagnoli)))
		return data
	}
	const older, newest = "000000000000000a.snapshot", "0000000000000014.snapshot"
	for _, test := range []struct {
		name  string
		spoil func(fs vfs.FS, log *shardlog.Log) *shardlog.Log
		is    error
		want  []string
	}{
		{"both snapshots damaged", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			write(t, fs, older, read(t, fs, older)[:70])
			write(t, fs, newest, read(t, fs, newest)[:80])
			return log
		}, nil, []string{"no snapshot can be used", "begins at index 11", older + " at offset 64", newest + " at offset 64", "backup"}},
		{"no snapshots", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			fs.Remove(older)
			fs.Remove(newest)
			return log
		}, nil, []string{"no snapshot can be used", "there is none"}},
		{"newer snapshot", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			write(t, fs, newest, newer(read(t, fs, newest)))
			return log
		}, driver.ErrNewerVersion, []string{newest, "format 2", "formats up to 1"}},
		{"no log", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			return newLog(t)
		}, nil, []string{"no metadata log", newest}},
		{"log that ends early", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			short := newLog(t)
			s := open(t, short, nil, meta.Options{})
			commit(t, s, put("a", "b"))
			s.Close()
			return short
		}, nil, []string{"ahead of the metadata log", "ends at index 1"}},
		{"newer command", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			if err := log.Append(t.Context(), []*driver.Batch{shardlog.NewBatch(meta.LogShard, []byte{2, 1, 0, 1, 'k', 0})}); err != nil {
				t.Fatal(err)
			}
			return log
		}, driver.ErrNewerVersion, []string{"index 31", "format 2"}},
		{"damaged command", func(fs vfs.FS, log *shardlog.Log) *shardlog.Log {
			if err := log.Append(t.Context(), []*driver.Batch{shardlog.NewBatch(meta.LogShard, []byte{1, 1, 0, 1, 'k', 5})}); err != nil {
				t.Fatal(err)
			}
			return log
		}, nil, []string{"corrupt data in metadata log, index 31"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, fs, _ := twice(t)
			s, err := meta.Open(t.Context(), test.spoil(fs, log), fs, meta.Options{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestVerifyNamesEveryDamagedSnapshot(t *testing.T) {
	_, fs, _ := twice(t)
	if found, err := meta.VerifySnapshots(fs); found != 2 || err != nil {
		t.Errorf("got %d, %v", found, err)
	}
	for _, name := range files(t, fs) {
		data := read(t, fs, name)
		data[len(data)-1] ^= 1
		write(t, fs, name, data)
	}
	found, err := meta.VerifySnapshots(fs)
	if found != 2 || err == nil {
		t.Fatalf("got %d, %v", found, err)
	}
	for _, name := range files(t, fs) {
		if !strings.Contains(err.Error(), "corrupt data in "+name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
}

// A damaged only snapshot costs nothing while the log is whole.
func TestWholeLogNeedsNoSnapshot(t *testing.T) {
	log, fs := newLog(t), vfs.NewMemory()
	s := open(t, log, fs, meta.Options{})
	commit(t, s, put("a", "1"))
	snapshot(t, s)
	commit(t, s, put("b", "2"))
	want := dump(s)
	s.Close()
	write(t, fs, "0000000000000001.snapshot", []byte("nonsense"))
	if got := dump(open(t, log, fs, meta.Options{})); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestCommandOfANewerReleaseEndsARunningStore(t *testing.T) {
	log := newLog(t)
	s := open(t, log, nil, meta.Options{})
	commit(t, s, put("a", "1"))
	if err := log.Append(t.Context(), []*driver.Batch{shardlog.NewBatch(meta.LogShard, []byte{2})}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), put("a", "2")); !errors.Is(err, driver.ErrNewerVersion) {
		t.Errorf("got %v", err)
	}
	if r, _ := s.Get("a"); string(r.Value) != "1" {
		t.Error("what followed the command was applied")
	}
}

func TestLargeValuesFitIntoSnapshots(t *testing.T) {
	log, fs := newLog(t), vfs.NewMemory()
	s := open(t, log, fs, meta.Options{})
	commit(t, s, put("a", strings.Repeat("x", 1<<20-100)))
	commit(t, s, put("b", strings.Repeat("y", meta.MaxCommitBytes-100)))
	commit(t, s, put("c", ""))
	snapshot(t, s)
	commit(t, s, put("d", ""))
	snapshot(t, s)
	want := dump(s)
	s.Close()
	s = open(t, log, fs, meta.Options{})
	if got := dump(s); got != want || s.Len() != 4 {
		t.Errorf("got\n%s", got)
	}
}
