package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, fsys vfs.FS, o Options) *Store {
	t.Helper()
	s, err := Open(fsys, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func contents(t testing.TB, s *Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	i := s.Iterate()
	defer i.Close()
	last := ""
	for ok := i.Seek(""); ok; ok = i.Next() {
		if i.Key() <= last {
			t.Fatalf("%q after %q", i.Key(), last)
		}
		last = i.Key()
		all[i.Key()] = string(i.Value())
	}
	if i.Err() != nil {
		t.Fatal(i.Err())
	}
	return all
}

func check(t testing.TB, s *Store, want map[string]string) {
	t.Helper()
	if got := contents(t, s); !maps.Equal(got, want) {
		t.Fatalf("the index holds %d entries that are not the %d expected", len(got), len(want))
	}
	for k, v := range want {
		if got, ok, err := s.Get(k); err != nil || !ok || string(got) != v {
			t.Fatalf("get %q: %q, %t, %v", k, got, ok, err)
		}
	}
}

// change makes a batch and does the same to the model.
func change(rng *rand.Rand, model map[string]string, n int) *Batch {
	b := &Batch{}
	for range n {
		k := fmt.Sprintf("key/%0*d", 1+rng.IntN(40), rng.IntN(300))
		if rng.IntN(4) == 0 {
			b.Delete(k)
			delete(model, k)
			continue
		}
		v := strings.Repeat(fmt.Sprint(rng.Uint32()), rng.IntN(12))
		b.Put(k, []byte(v))
		model[k] = v
	}
	return b
}

func TestHistoriesInEverySize(t *testing.T) {
	for _, size := range []int64{512, 4 << 10, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(size)))
			fsys := vfs.NewMemory()
			model := map[string]string{}
			s := open(t, fsys, Options{TableBytes: size})
			for step := range 600 {
				if err := s.Commit(change(rng, model, 1+rng.IntN(5))); err != nil {
					t.Fatal(err)
				}
				if step%97 == 0 {
					check(t, s, model)
				}
				if step%50 == 0 {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = open(t, fsys, Options{TableBytes: size})
				}
			}
			check(t, s, model)
			// From any key on.
			i := s.Iterate()
			defer i.Close()
			keys := slices.Sorted(maps.Keys(model))
			for _, from := range []string{"", "key/1", "key/2", keys[len(keys)/2], keys[len(keys)-1], "z"} {
				at, _ := slices.BinarySearch(keys, from)
				if ok := i.Seek(from); ok != (at < len(keys)) || ok && i.Key() != keys[at] {
					t.Errorf("seek %q: %t %q", from, ok, i.Key())
				}
			}
			s.Close()
			if err := Verify(fsys, func(file string, _ int64, damage error) {
				if damage != nil {
					t.Errorf("%s: %v", file, damage)
				}
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// At every sync of a history, the power goes, and what comes back holds exactly
// what was acknowledged, or that and the one commit in flight.
func TestPowerLossAtEverySync(t *testing.T) {
	for seed := range uint64(6) {
		memory := vfs.NewMemory()
		faults := &vfs.Faults{}
		var mu sync.Mutex
		acknowledged, inFlight := map[string]string{}, map[string]string{}
		clones := 0
		faults.OnSync = func(before bool, kind vfs.Kind, name string) {
			mu.Lock()
			defer mu.Unlock()
			clones++
			clone := memory.CrashClone(seed * uint64(clones))
			s, err := Open(clone, Options{TableBytes: 2048})
			if err != nil {
				t.Fatalf("seed %d, at %s of %s (before=%t): %v", seed, kind, name, before, err)
			}
			defer s.Close()
			got := contents(t, s)
			if !maps.Equal(got, acknowledged) && !maps.Equal(got, inFlight) {
				t.Fatalf("seed %d, at %s of %s (before=%t): neither what was acknowledged nor with the commit in flight", seed, kind, name, before)
			}
		}
		rng := rand.New(rand.NewPCG(seed, 7))
		s := open(t, vfs.WithFaults(memory, faults), Options{TableBytes: 2048})
		model := map[string]string{}
		for range 60 {
			b := change(rng, model, 1+rng.IntN(3))
			mu.Lock()
			inFlight = maps.Clone(model)
			mu.Unlock()
			if err := s.Commit(b); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			acknowledged = maps.Clone(model)
			mu.Unlock()
		}
		s.Close()
		if clones < 150 {
			t.Errorf("only %d syncs", clones)
		}
	}
}

// Any call may fail at any time: what was acknowledged stays, what was refused
// may come or not, and afterwards the store goes on.
func TestFailuresLoseNothing(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.WriteCall, vfs.SyncCall, vfs.SyncDirCall, vfs.OpenCall, vfs.AllocateCall, vfs.RenameCall, vfs.ReadCall, vfs.AnyCall} {
		t.Run(kind.String(), func(t *testing.T) {
			for seed := range uint64(8) {
				rng := rand.New(rand.NewPCG(seed, uint64(kind)))
				memory, faults := vfs.NewMemory(), &vfs.Faults{}
				s := open(t, vfs.WithFaults(memory, faults), Options{TableBytes: 1024})
				model := map[string]string{}
				refused := 0
				for range 200 {
					if rng.IntN(5) == 0 {
						faults.Fail(kind, 1+rng.IntN(3), syscall.EIO)
					}
					after := maps.Clone(model)
					if err := s.Commit(change(rng, after, 2)); err != nil {
						refused++
						continue
					}
					model = after
				}
				faults.Heal()
				check(t, s, model)
				b := &Batch{}
				b.Put("last", []byte("1"))
				model["last"] = "1"
				if err := s.Commit(b); err != nil {
					t.Fatalf("after the failures: %v", err)
				}
				check(t, s, model)
				s.Close()
				// Refused commits are ruled out by what was written after them.
				for crash := range uint64(4) {
					again := open(t, memory.CrashClone(crash), Options{TableBytes: 1024})
					check(t, again, model)
					again.Close()
				}
			}
		})
	}
}

func TestDiskFullAndSpaceAgain(t *testing.T) {
	memory := vfs.NewMemory()
	memory.SetCapacity(20 << 10)
	s := open(t, memory, Options{TableBytes: 4096})
	model := map[string]string{}
	var err error
	for i := 0; err == nil; i++ {
		b := &Batch{}
		k := fmt.Sprintf("%08d", i)
		b.Put(k, bytes.Repeat([]byte("v"), 100))
		if err = s.Commit(b); err == nil {
			model[k] = strings.Repeat("v", 100)
		}
	}
	if !vfs.IsNoSpace(err) {
		t.Fatalf("a full disk is %v", err)
	}
	check(t, s, model)
	memory.SetCapacity(1 << 20)
	b := &Batch{}
	b.Put("x", nil)
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	model["x"] = ""
	s.Close()
	check(t, open(t, memory.CrashClone(0), Options{TableBytes: 4096}), model)
}

func TestDamageIsFound(t *testing.T) {
	build := func() *vfs.Memory {
		m := vfs.NewMemory()
		s := open(t, m, Options{TableBytes: 2048})
		for i := range 200 {
			b := &Batch{}
			b.Put(fmt.Sprintf("%04d", i), bytes.Repeat([]byte{byte(i)}, 40))
			if err := s.Commit(b); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		return m
	}
	files, err := build().ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, at := range []int64{0, 9, 50, 60, f.Size / 2, f.Size - 3} {
			m := build()
			if _, err := m.Stat(f.Name); err != nil {
				continue // merges go their own way
			}
			file, err := m.Open(f.Name, vfs.Write)
			if err != nil {
				t.Fatal(err)
			}
			one := make([]byte, 1)
			if n, _ := file.ReadAt(one, at); n == 0 {
				continue
			}
			if strings.HasSuffix(f.Name, ".log") && one[0] == 0 && at > 60 {
				continue // reserved room
			}
			one[0] ^= 0x41
			file.WriteAt(one, at)
			file.Sync()
			file.Close()
			found := 0
			Verify(m, func(name string, _ int64, damage error) {
				if damage != nil {
					found++
				}
			})
			if found == 0 {
				t.Errorf("%s damaged at %d: not found", f.Name, at)
			}
		}
	}
}

func TestALaterFormatIsRefused(t *testing.T) {
	m := vfs.NewMemory()
	s := open(t, m, Options{TableBytes: 1024})
	for i := range 40 {
		b := &Batch{}
		b.Put(fmt.Sprintf("%04d", i), bytes.Repeat([]byte{1}, 40))
		if err := s.Commit(b); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	newer := manifest{Format: formatVersion + 1, Floor: 1, Next: 1}
	if err := vfs.WriteFile(m, manifestName, newer.encode()); err != nil {
		t.Fatal(err)
	}
	_, err := Open(m, Options{})
	if e, ok := errors.AsType[*NewerError](err); !ok || e.File != manifestName {
		t.Errorf("a later manifest: %v", err)
	}
	b := logHeader{id: 1}.encode()
	b[7]++
	if _, err := decodeLogHeader("x", b); !errors.As(err, new(*NewerError)) {
		t.Errorf("a later log: %v", err)
	}
}

func TestCommitsFromManyAtOnce(t *testing.T) {
	m, faults := vfs.NewMemory(), &vfs.Faults{}
	s := open(t, vfs.WithFaults(m, faults), Options{TableBytes: 8 << 10})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 100 {
				b := &Batch{}
				b.Put(fmt.Sprintf("%d/%d", w, i), []byte{byte(i)})
				if err := s.Commit(b); err != nil {
					t.Error(err)
				}
				if _, ok, err := s.Get(fmt.Sprintf("%d/%d", w, i)); !ok || err != nil {
					t.Errorf("own write is not read: %v", err)
				}
			}
		})
	}
	all.Wait()
	if n := len(contents(t, s)); n != 800 {
		t.Errorf("%d entries", n)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, 1, appendOperation(nil, operation{key: "a", value: []byte("b")})))
	f.Fuzz(func(t *testing.T, b []byte) {
		if payload, ok := decodeFrame(b, 1); ok {
			_ = decodeOperations(payload, func(o operation) {
				if o.key == "" {
					t.Error("an empty key")
				}
			})
		}
		_ = decodeOperations(b, func(operation) {})
		laterFrame(b, 1)
	})
}

func FuzzTable(f *testing.F) {
	m := vfs.NewMemory()
	s := &Store{fs: m, nextID: 1}
	if _, err := s.writeTable(func(add func(*operation) error) error {
		return errors.Join(add(&operation{key: "a", value: []byte("b")}), add(&operation{key: "ab", deleted: true}))
	}); err != nil {
		f.Fatal(err)
	}
	raw, err := vfs.ReadFile(m, tableName(1), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(binary.AppendUvarint(nil, 1<<60))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _ = decodeEntry(b, "previous")
		m := vfs.NewMemory()
		if err := vfs.WriteFile(m, tableName(1), b); err != nil {
			t.Fatal(err)
		}
		table, err := openTable(m, 1)
		if err != nil {
			return
		}
		_ = table.verify()
		table.file.Close()
	})
}

func BenchmarkCommit(b *testing.B) {
	s := open(b, vfs.OS(b.TempDir()), Options{})
	value := make([]byte, 120)
	for i := 0; b.Loop(); i++ {
		batch := &Batch{}
		batch.Put(fmt.Sprintf("b/%016x", i*7919), value)
		if err := s.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
}
