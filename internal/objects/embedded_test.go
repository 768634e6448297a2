package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/objects/index"
	"github.com/millrace/millrace/internal/vfs"
)

func openStore(t testing.TB, fsys vfs.FS) *Embedded {
	t.Helper()
	e, err := Open(Options{Files: fsys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	e.minPart = testPart
	return e
}

// testPart is the least size of parts in these tests: more than a block.
const testPart = 70_000

func contents(t testing.TB, e *Embedded) map[string]string {
	t.Helper()
	all := map[string]string{}
	list, more, err := e.List(context.Background(), "bkt", "", "", 10_000)
	if Code(err) == CodeNoSuchBucket {
		return all
	}
	if err != nil || more {
		t.Fatalf("list: %v, more %t", err, more)
	}
	for _, o := range list {
		body, _, err := e.Get(context.Background(), "bkt", o.Key, Range{})
		if err != nil {
			t.Fatalf("get %s: %v", o.Key, err)
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil || int64(len(b)) != o.Size {
			t.Fatalf("read %s: %d bytes of %d: %v", o.Key, len(b), o.Size, err)
		}
		all[o.Key] = string(b)
	}
	return all
}

// orphans counts the files of bytes, and those that no entry names.
func orphans(t testing.TB, e *Embedded, fsys vfs.FS) (files, lost int) {
	t.Helper()
	named := map[uint64]bool{}
	for _, kind := range []string{"p\x00", "o\x00"} {
		if err := e.blobs.references(context.Background(), kind, func(id uint64) { named[id] = true }); err != nil {
			t.Fatal(err)
		}
	}
	folders, err := fsys.ReadDir(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		list, err := fsys.ReadDir(dataDir + "/" + f.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range list {
			files++
			var id uint64
			fmt.Sscanf(file.Name, "%x", &id)
			if !named[id] {
				lost++
			}
			delete(named, id)
		}
	}
	if len(named) > 0 {
		t.Errorf("entries name %d files that are not there", len(named))
	}
	return files, lost
}

// history makes n changes of a store, and tells of each before and after.
func history(t testing.TB, e *Embedded, seed uint64, n int, before, after func(map[string]string)) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 3))
	model := map[string]string{}
	if err := e.CreateBucket(ctx, "bkt", "1", "r"); err != nil {
		t.Fatal(err)
	}
	for range n {
		key := fmt.Sprint("key ", rng.IntN(5))
		then := maps.Clone(model)
		var do func() error
		switch rng.IntN(4) {
		case 0:
			delete(then, key)
			do = func() error { return e.Delete(ctx, "bkt", key) }
		case 1: // in parts
			parts := []string{strings.Repeat(string(rune('a'+rng.IntN(26))), testPart), strings.Repeat("z", 1+rng.IntN(100))}
			then[key] = strings.Join(parts, "")
			do = func() error {
				id, err := e.createUpload(ctx, "bkt", key, uploadRecord{})
				if err != nil {
					return err
				}
				var named []completedPart
				for i, p := range parts {
					if i == 1 { // replaced before it counts
						if _, err := e.putPart(ctx, "bkt", key, id, i+1, strings.NewReader("other"), 5, "", nil); err != nil {
							return err
						}
					}
					r, err := e.putPart(ctx, "bkt", key, id, i+1, strings.NewReader(p), int64(len(p)), "", nil)
					if err != nil {
						return err
					}
					named = append(named, completedPart{number: i + 1, etag: r.ETag})
				}
				_, err = e.completeUpload(ctx, "bkt", key, id, named, false, "", func(*objectRecord) error { return nil })
				return err
			}
		default:
			value := strings.Repeat(fmt.Sprint(rng.Uint32()), rng.IntN(20_000))
			then[key] = value
			do = func() error {
				_, err := e.Put(ctx, "bkt", key, strings.NewReader(value), int64(len(value)), PutOptions{})
				return err
			}
		}
		before(then)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		model = then
		after(model)
	}
}

// At every sync the power goes. What comes back is what was acknowledged, or
// that and the change in flight; never a part of an object, and after the sweep
// no file that belongs to nobody.
func TestPowerLossAtEverySync(t *testing.T) {
	for seed := range uint64(3) {
		memory, faults := vfs.NewMemory(), &vfs.Faults{}
		var mu sync.Mutex
		acknowledged, inFlight := map[string]string{}, map[string]string{}
		clones := uint64(0)
		faults.OnSync = func(before bool, kind vfs.Kind, name string) {
			mu.Lock()
			defer mu.Unlock()
			clones++
			clone := memory.CrashClone(clones * seed)
			e, err := Open(Options{Files: clone})
			if err != nil {
				t.Fatalf("at %s of %s (before=%t): %v", kind, name, before, err)
			}
			defer e.Close()
			e.sweeping.Wait()
			got := contents(t, e)
			if !maps.Equal(got, acknowledged) && !maps.Equal(got, inFlight) {
				t.Fatalf("at %s of %s (before=%t): neither what was acknowledged nor with the change in flight", kind, name, before)
			}
			if _, lost := orphans(t, e, clone); lost > 0 {
				t.Errorf("at %s of %s: %d files belong to nobody", kind, name, lost)
			}
		}
		e := openStore(t, vfs.WithFaults(memory, faults))
		history(t, e, seed, 10, func(m map[string]string) {
			mu.Lock()
			inFlight = m
			mu.Unlock()
		}, func(m map[string]string) {
			mu.Lock()
			acknowledged = m
			mu.Unlock()
		})
		e.Close()
		if clones < 50 {
			t.Errorf("only %d syncs", clones)
		}
	}
}

// Any call may fail at any time. What was acknowledged stays; a refused change
// happened or did not; and no file is left behind by the next start.
func TestFailuresLoseNothing(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []vfs.Kind{vfs.WriteCall, vfs.SyncCall, vfs.SyncDirCall, vfs.OpenCall, vfs.RemoveCall, vfs.MkdirCall, vfs.AnyCall} {
		t.Run(kind.String(), func(t *testing.T) {
			for seed := range uint64(6) {
				rng := rand.New(rand.NewPCG(seed, uint64(kind)))
				memory, faults := vfs.NewMemory(), &vfs.Faults{}
				e := openStore(t, vfs.WithFaults(memory, faults))
				if err := e.CreateBucket(ctx, "bkt", "1", "r"); err != nil {
					t.Fatal(err)
				}
				model := map[string]string{}
				doubtful := map[string]map[string]bool{} // key → further possible values
				for range 60 {
					if rng.IntN(3) == 0 {
						faults.Fail(kind, 1+rng.IntN(3), syscall.EIO)
					}
					key, value := fmt.Sprint(rng.IntN(4)), strings.Repeat(fmt.Sprint(rng.Uint32()), rng.IntN(9000))
					if _, err := e.Put(ctx, "bkt", key, strings.NewReader(value), int64(len(value)), PutOptions{}); err != nil {
						if e, ok := errors.AsType[*Error](err); !ok || !e.Retryable() {
							t.Errorf("a failing disk is %v", err)
						}
						if doubtful[key] == nil {
							doubtful[key] = map[string]bool{}
						}
						doubtful[key][value] = true
						continue
					}
					model[key] = value
					delete(doubtful, key)
				}
				faults.Heal()
				if got := contents(t, e); !maps.Equal(got, model) {
					t.Fatal("what was acknowledged is not what is there")
				}
				e.Close()
				for crash := range uint64(3) {
					clone := memory.CrashClone(crash)
					again := openStore(t, clone)
					again.sweeping.Wait()
					got := contents(t, again)
					for _, k := range slices.Sorted(maps.Keys(got)) {
						if got[k] != model[k] && !doubtful[k][got[k]] {
							t.Errorf("%s holds what nobody put there last", k)
						}
					}
					for k := range model {
						if _, ok := got[k]; !ok {
							t.Errorf("%s is gone", k)
						}
					}
					if _, lost := orphans(t, again, clone); lost > 0 {
						t.Errorf("%d files belong to nobody", lost)
					}
					again.Close()
				}
			}
		})
	}
}

func TestAFullDiskIsRetryableAndLosesNothing(t *testing.T) {
	ctx := context.Background()
	for name, o := range map[string]Options{"to the last byte": {}, "to the watermark": {LowWatermark: 1 << 20}} {
		t.Run(name, func(t *testing.T) {
			memory := vfs.NewMemory()
			memory.SetCapacity(8 << 20)
			o.Files = memory
			e, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if err := e.CreateBucket(ctx, "bkt", "1", "r"); err != nil {
				t.Fatal(err)
			}
			model := map[string]string{}
			var refusal error
			for i := 0; refusal == nil; i++ {
				value := strings.Repeat(fmt.Sprint(i%10), 300_000)
				if _, refusal = e.Put(ctx, "bkt", fmt.Sprint(i), strings.NewReader(value), -1, PutOptions{}); refusal == nil {
					model[fmt.Sprint(i)] = value
				}
			}
			full, ok := errors.AsType[*Error](refusal)
			if !ok || full.Code != CodeServiceUnavailable || full.Status != 503 || !full.Retryable() || len(model) < 3 {
				t.Fatalf("a full disk is %v after %d objects", refusal, len(model))
			}
			if got := contents(t, e); !maps.Equal(got, model) {
				t.Error("a full disk has changed objects")
			}
			// Room comes back by deleting.
			if err := e.Delete(ctx, "bkt", "0"); err != nil {
				t.Fatal(err)
			}
			if err := e.Delete(ctx, "bkt", "1"); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Put(ctx, "bkt", "again", strings.NewReader("x"), 1, PutOptions{}); err != nil {
				t.Errorf("with room again: %v", err)
			}
			if _, lost := orphans(t, e, memory); lost > 0 {
				t.Errorf("%d files belong to nobody", lost)
			}
		})
	}
}

func TestBytesThatRotAreNotServed(t *testing.T) {
	ctx := context.Background()
	memory := vfs.NewMemory()
	e := openStore(t, memory)
	if err := e.CreateBucket(ctx, "bkt", "1", "r"); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789"), 30_000)
	if _, err := e.Put(ctx, "bkt", "k", bytes.NewReader(data), -1, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	name := dataDir + "/" + blobName(0)
	for _, at := range []int64{0, 65536, 65540 + 10, fileSize(int64(len(data))) - 1} {
		f, err := memory.Open(name, vfs.Write)
		if err != nil {
			t.Fatal(err)
		}
		flip := func() {
			b := make([]byte, 1)
			f.ReadAt(b, at)
			b[0] ^= 1
			f.WriteAt(b, at)
		}
		flip()
		body, _, err := e.Get(ctx, "bkt", "k", Range{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if damage, ok := errors.AsType[*DamageError](err); !ok || damage.File != blobName(0) {
			t.Errorf("byte %d: %v", at, err)
		}
		if !bytes.HasPrefix(data, got) {
			t.Errorf("byte %d: damaged bytes are served", at)
		}
		found := 0
		e.Close()
		if err := Verify(ctx, memory, func(c Checked) {
			if c.Damage != nil {
				found++
			}
		}); err != nil || found != 1 {
			t.Errorf("byte %d: verify finds %d, %v", at, found, err)
		}
		flip()
		e = openStore(t, memory)
	}
}

// A reader of an object that is replaced reads it to its end, and the files go
// afterwards.
func TestReadersKeepWhatTheyRead(t *testing.T) {
	ctx := context.Background()
	memory := vfs.NewMemory()
	e := openStore(t, memory)
	if err := e.CreateBucket(ctx, "bkt", "1", "r"); err != nil {
		t.Fatal(err)
	}
	history := func(key, value string) {
		id, err := e.createUpload(ctx, "bkt", key, uploadRecord{})
		if err != nil {
			t.Fatal(err)
		}
		var named []completedPart
		for i, v := range []string{strings.Repeat(value, testPart), value} {
			p, err := e.putPart(ctx, "bkt", key, id, i+1, strings.NewReader(v), int64(len(v)), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			named = append(named, completedPart{number: i + 1, etag: p.ETag})
		}
		if _, err := e.completeUpload(ctx, "bkt", key, id, named, false, "", func(*objectRecord) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	history("k", "a")
	body, _, err := e.Get(ctx, "bkt", "k", Range{})
	if err != nil {
		t.Fatal(err)
	}
	history("k", "b")
	if err := e.Delete(ctx, "bkt", "k"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err != nil || len(b) != testPart+1 || bytes.Count(b, []byte("a")) != len(b) {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	body.Close()
	if files, _ := orphans(t, e, memory); files != 0 {
		t.Errorf("%d files stay", files)
	}
}

func TestDeletingABucket(t *testing.T) {
	ctx := context.Background()
	memory := vfs.NewMemory()
	e := openStore(t, memory)
	if err := e.CreateBucket(ctx, "bucket", "1", "r"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Put(ctx, "bucket", "k", strings.NewReader("x"), 1, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	id, err := e.createUpload(ctx, "bucket", "k", uploadRecord{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.putPart(ctx, "bucket", "k", id, 1, strings.NewReader("x"), 1, "", nil); err != nil {
		t.Fatal(err)
	}
	if err := e.DeleteBucket(ctx, "bucket"); Code(err) != "BucketNotEmpty" {
		t.Errorf("with an object: %v", err)
	}
	if err := e.Delete(ctx, "bucket", "k"); err != nil {
		t.Fatal(err)
	}
	if err := e.DeleteBucket(ctx, "bucket"); err != nil {
		t.Errorf("with an upload: %v", err)
	}
	if files, _ := orphans(t, e, memory); files != 0 {
		t.Errorf("%d files stay", files)
	}
	if _, err := e.putPart(ctx, "bucket", "k", id, 2, strings.NewReader("x"), 1, "", nil); Code(err) != CodeNoSuchBucket {
		t.Errorf("a part after the end: %v", err)
	}
}

func TestBucketNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"abc": true, "a-b.c-d": true, "a1b": true, strings.Repeat("a", 63): true,
		"": false, "ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "a..b": false, "-ab": false, "ab-": false,
		".ab": false, "192.168.1.1": false, "a\x00b": false, "../x": false, "a/b": false, "å-b": false,
	} {
		if err := checkBucketName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A million objects must not cost memory for each of them.
func TestMemoryDoesNotGrowWithObjects(t *testing.T) {
	m := vfs.NewMemory()
	x, err := index.Open(m, index.Options{TableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	n := 30_000
	for i := 0; i < n; i += 100 {
		var b index.Batch
		for j := range 100 {
			b.Put(objectKey("b", fmt.Sprintf("year=2026/month=11/day=%02d/part-%09d.parquet", i%28, i+j)), encodeRecord(objectRecord{Size: 1 << 20, ETag: strings.Repeat("e", 32), Modified: 1763712000000, Segments: []segment{{uint64(i), 1 << 20}}}))
		}
		if err := x.Commit(&b); err != nil {
			t.Fatal(err)
		}
	}
	_, _, memory := x.Size()
	if memory > 5*(256<<10)+(256<<10) {
		t.Errorf("%d objects hold %d bytes", n, memory)
	}
}
