package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

const hour = time.Hour

// clock is a clock that tests set.
type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func open(t *testing.T, fsys vfs.FS, o local.Options) *local.Log {
	t.Helper()
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 10
	}
	if o.SegmentCount == 0 {
		o.SegmentCount = 4
	}
	if o.MaintenanceInterval == 0 {
		o.MaintenanceInterval = time.Hour
	}
	l, err := local.Open(t.Context(), fsys, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write appends n records of 1000 bytes to each shard.
func write(t *testing.T, l *local.Log, n int, shards ...driver.ShardID) {
	t.Helper()
	for range n {
		var batches []*driver.Batch
		for _, id := range shards {
			batches = append(batches, &driver.Batch{Shard: id, Count: 1, Size: 1000, Payload: driver.Bytes(bytes.Repeat([]byte{byte(id)}, 1000))})
		}
		must(t, l.Append(t.Context(), batches))
		for _, b := range batches {
			must(t, b.Err)
		}
	}
}

// expect reads a shard whole and checks the indexes and bytes.
func expect(t *testing.T, l *local.Log, id driver.ShardID, first, next driver.Index) {
	t.Helper()
	bounds, err := l.Bounds(t.Context(), id)
	must(t, err)
	if bounds.First != first || bounds.Next != next {
		t.Fatalf("shard %d is readable from %d to %d, want %d to %d", id, bounds.First, bounds.Next, first, next)
	}
	for from := first; from < next; {
		batches, _, err := l.Read(t.Context(), id, from, 10_000, nil)
		must(t, err)
		if len(batches) == 0 {
			t.Fatalf("shard %d: nothing at %d", id, from)
		}
		for _, b := range batches {
			if b.Base != from || !bytes.Equal(b.Payload, bytes.Repeat([]byte{byte(id)}, 1000)) {
				t.Fatalf("shard %d: batch at %d, want %d", id, b.Base, from)
			}
			from = b.Next()
		}
	}
}

func sealedFiles(t *testing.T, fsys vfs.FS) []string {
	t.Helper()
	var names []string
	dirs, err := fsys.ReadDir("seg")
	must(t, err)
	for _, dir := range dirs {
		files, err := fsys.ReadDir("seg/" + dir.Name)
		must(t, err)
		for _, f := range files {
			names = append(names, "seg/"+dir.Name+"/"+f.Name)
		}
	}
	return names
}

func createShards(t *testing.T, l *local.Log, retention time.Duration, ids ...driver.ShardID) {
	t.Helper()
	var shards []driver.Shard
	for _, id := range ids {
		shards = append(shards, driver.Shard{ID: id, Retention: retention})
	}
	must(t, l.Create(t.Context(), shards))
}

func TestExpiredFilesAreUnlinkedTogether(t *testing.T) {
	fsys := vfs.NewMemory()
	c := &clock{}
	c.ms.Store(1_000_000)
	l := open(t, fsys, local.Options{Now: c.now})
	createShards(t, l, 24*hour, 1)
	createShards(t, l, 0, 2)
	write(t, l, 100, 1, 2)
	must(t, l.Maintain(t.Context()))
	before := len(sealedFiles(t, fsys))
	expect(t, l, 1, 1, 101)
	c.ms.Add((25 * hour).Milliseconds())
	must(t, l.Maintain(t.Context()))
	after := sealedFiles(t, fsys)
	if len(after) >= before || strings.Contains(strings.Join(after, " "), "seg/24/") {
		t.Errorf("%d files before, then %v; want those of class 24 gone", before, after)
	}
	bounds, err := l.Bounds(t.Context(), 1)
	must(t, err)
	if bounds.First == 1 || bounds.Next != 101 {
		t.Errorf("bounds of the expired shard are %+v", bounds)
	}
	expect(t, l, 1, bounds.First, 101)
	expect(t, l, 2, 1, 101)
	must(t, l.Close())
	l = open(t, fsys, local.Options{Now: c.now})
	expect(t, l, 1, bounds.First, 101)
	write(t, l, 1, 1)
	expect(t, l, 1, bounds.First, 102)
}

func TestLongerRetentionKeepsWhatIsStored(t *testing.T) {
	fsys := vfs.NewMemory()
	c := &clock{}
	c.ms.Store(1_000_000)
	l := open(t, fsys, local.Options{Now: c.now})
	createShards(t, l, 24*hour, 1, 2)
	write(t, l, 100, 1, 2)
	must(t, l.SetRetention(t.Context(), 7*24*hour, 1))
	c.ms.Add((25 * hour).Milliseconds())
	must(t, l.Maintain(t.Context()))
	expect(t, l, 1, 1, 101)
}

func TestNextSurvivesWhenAllDataIsGone(t *testing.T) {
	fsys := vfs.NewMemory()
	l := open(t, fsys, local.Options{})
	createShards(t, l, hour, 1)
	write(t, l, 150, 1)
	want, err := l.Bounds(t.Context(), 1)
	must(t, err)
	must(t, l.Truncate(t.Context(), 1, 151))
	must(t, l.Maintain(t.Context()))
	if left := sealedFiles(t, fsys); len(left) > 0 {
		t.Errorf("files %v are left", left)
	}
	must(t, l.Close())
	l = open(t, fsys, local.Options{})
	must(t, l.Maintain(t.Context()))
	got, err := l.Bounds(t.Context(), 1)
	must(t, err)
	if got.Next != want.Next || got.First != got.Next || got.LastAt != want.LastAt {
		t.Errorf("bounds after reopening are %+v, were %+v", got, want)
	}
}

func TestSmallChunksAreMerged(t *testing.T) {
	fsys := vfs.NewMemory()
	l := open(t, fsys, local.Options{})
	ids := []driver.ShardID{1, 2, 3, 4, 5, 6, 7, 8}
	createShards(t, l, 24*hour, ids...)
	write(t, l, 120, ids...)
	must(t, l.Delete(t.Context(), 8))
	must(t, l.Truncate(t.Context(), 7, 60))
	must(t, l.Maintain(t.Context()))
	if n := len(sealedFiles(t, fsys)); n > 8 {
		t.Errorf("%d sealed files, want few large ones", n)
	}
	for _, id := range ids[:6] {
		expect(t, l, id, 1, 121)
	}
	expect(t, l, 7, 60, 121)
	if at, err := l.FirstAt(t.Context(), 1, 0); err != nil || at != 1 {
		t.Errorf("first at 0 is %d, %v", at, err)
	}
	must(t, l.Close())
	l = open(t, fsys, local.Options{})
	for _, id := range ids[:6] {
		expect(t, l, id, 1, 121)
	}
	must(t, l.Close())
	if err := local.Verify(t.Context(), fsys, func(local.Checked) {}); err != nil {
		t.Error(err)
	}
}

func TestTruncatedSpaceIsGivenBack(t *testing.T) {
	memory := vfs.NewMemory()
	faults := &vfs.Faults{}
	l := open(t, vfs.WithFaults(memory, faults), local.Options{SegmentBytes: 512 << 10})
	createShards(t, l, 24*hour, 1, 2, 3, 4)
	write(t, l, 300, 1, 2, 3, 4)
	must(t, l.Maintain(t.Context()))
	must(t, l.Truncate(t.Context(), 2, 301))
	must(t, l.Maintain(t.Context()))
	if faults.Count(vfs.PunchCall) == 0 {
		t.Error("no hole was punched")
	}
	for _, id := range []driver.ShardID{1, 3, 4} {
		expect(t, l, id, 1, 301)
	}
	must(t, l.Close())
	if err := local.Verify(t.Context(), memory, func(local.Checked) {}); err != nil {
		t.Error(err)
	}
}

func TestFullDiskRefusesAppendsUntilThereIsSpace(t *testing.T) {
	memory := vfs.NewMemory()
	l := open(t, memory, local.Options{LowWatermarkBytes: 1 << 20})
	createShards(t, l, 24*hour, 1)
	write(t, l, 10, 1)
	memory.SetCapacity(1 << 10)
	must(t, l.Maintain(t.Context()))
	b := &driver.Batch{Shard: 1, Count: 1, Size: 1, Payload: driver.Bytes("x")}
	if err := l.Append(t.Context(), []*driver.Batch{b}); !errors.Is(err, driver.ErrFull) {
		t.Fatalf("append on a full disk: %v, want ErrFull", err)
	}
	expect(t, l, 1, 1, 11)
	memory.SetCapacity(1 << 30)
	must(t, l.Maintain(t.Context()))
	write(t, l, 1, 1)
	expect(t, l, 1, 1, 12)
}

func TestFailedWriteGoesToAnotherSegment(t *testing.T) {
	memory := vfs.NewMemory()
	faults := &vfs.Faults{}
	l := open(t, vfs.WithFaults(memory, faults), local.Options{})
	createShards(t, l, 24*hour, 1)
	write(t, l, 10, 1)
	faults.Fail(vfs.WriteCall, 1, syscall.EIO)
	write(t, l, 10, 1)
	expect(t, l, 1, 1, 21)
	crashed := memory.CrashClone(0)
	expect(t, open(t, crashed, local.Options{}), 1, 1, 21)
}

func TestSecondFailedWriteMakesTheLogReadOnly(t *testing.T) {
	memory := vfs.NewMemory()
	faults := &vfs.Faults{}
	l := open(t, vfs.WithFaults(memory, faults), local.Options{})
	createShards(t, l, 24*hour, 1)
	write(t, l, 10, 1)
	faults.FailFrom(vfs.WriteCall, 1, syscall.EIO)
	b := &driver.Batch{Shard: 1, Count: 1, Size: 1000, Payload: driver.Bytes(bytes.Repeat([]byte{1}, 1000))}
	for range 2 {
		if err := l.Append(t.Context(), []*driver.Batch{b}); !errors.Is(err, driver.ErrReadOnly) {
			t.Fatalf("append: %v, want ErrReadOnly", err)
		}
	}
	faults.Heal()
	if err := l.Append(t.Context(), []*driver.Batch{b}); !errors.Is(err, driver.ErrReadOnly) {
		t.Fatalf("append: %v, want ErrReadOnly until a restart", err)
	}
	expect(t, l, 1, 1, 11)
	l.Close()
	write(t, open(t, memory, local.Options{}), 1, 1)
}

func TestRepairKeepsWhatIsWhole(t *testing.T) {
	memory := vfs.NewMemory()
	l := open(t, memory, local.Options{SegmentBytes: 256 << 10})
	createShards(t, l, 24*hour, 1)
	write(t, l, 20, 1)
	must(t, l.Close())
	name := "wal/00000000"
	data, err := vfs.ReadFile(memory, name, 1<<30)
	must(t, err)
	at := bytes.Index(data, bytes.Repeat([]byte{1}, 1000))
	at += bytes.Index(data[at+5000:], bytes.Repeat([]byte{1}, 1000)) + 5000
	data[at] ^= 0xff
	f, err := memory.Open(name, vfs.Write)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())

	_, err = local.Open(t.Context(), memory, local.Options{SegmentBytes: 256 << 10, SegmentCount: 4})
	var corrupt *driver.CorruptError
	if !errors.As(err, &corrupt) || corrupt.File != name {
		t.Fatalf("open: %v, want damage in %s named", err, name)
	}
	if err := local.Verify(t.Context(), memory, func(local.Checked) {}); !errors.As(err, &corrupt) || corrupt.File != name {
		t.Errorf("verify: %v, want damage in %s named", err, name)
	}
	l = open(t, memory, local.Options{SegmentBytes: 256 << 10, Repair: true})
	if len(l.Repairs()) != 1 || l.Repairs()[0].File != name {
		t.Errorf("repairs are %v", l.Repairs())
	}
	got := 0
	for from := driver.Index(1); ; {
		batches, _, err := l.Read(t.Context(), 1, from, 1, nil)
		must(t, err)
		if len(batches) == 0 {
			break
		}
		got += len(batches)
		from = batches[0].Next()
	}
	if got != 19 {
		t.Errorf("%d batches are readable after the repair, want 19", got)
	}
	write(t, l, 1, 1)
	must(t, l.Close())
	open(t, memory, local.Options{SegmentBytes: 256 << 10})
}

func TestBackupOfALogInUse(t *testing.T) {
	memory := vfs.NewMemory()
	l := open(t, memory, local.Options{MaintenanceInterval: 5 * time.Millisecond})
	createShards(t, l, 24*hour, 1, 2)
	write(t, l, 150, 1, 2)
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			b := &driver.Batch{Shard: 2, Count: 1, Size: 1000, Payload: driver.Bytes(bytes.Repeat([]byte{2}, 1000))}
			if err := l.Append(context.Background(), []*driver.Batch{b}); err != nil {
				t.Error(err)
			}
		}
	})
	backup := vfs.NewMemory()
	err := l.Backup(t.Context(), backup)
	cancel()
	writer.Wait()
	must(t, err)
	if err := local.Verify(t.Context(), backup, func(local.Checked) {}); err != nil {
		t.Fatalf("verify the backup: %v", err)
	}
	restored := open(t, backup, local.Options{})
	expect(t, restored, 1, 1, 151)
	bounds, err := restored.Bounds(t.Context(), 2)
	must(t, err)
	if bounds.Next < 151 {
		t.Errorf("shard 2 ends at %d in the backup", bounds.Next)
	}
	expect(t, restored, 2, 1, bounds.Next)

	must(t, l.Close())
	second := vfs.NewMemory()
	must(t, local.Backup(t.Context(), second, memory))
	expect(t, open(t, second, local.Options{}), 1, 1, 151)
}

func TestVerifyRefusesADirectoryInUse(t *testing.T) {
	fsys := vfs.NewMemory()
	open(t, fsys, local.Options{})
	if err := local.Verify(t.Context(), fsys, func(local.Checked) {}); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("verify: %v, want ErrLocked", err)
	}
}

func TestHundredThousandShards(t *testing.T) {
	fsys := vfs.NewMemory()
	l := open(t, fsys, local.Options{SegmentBytes: 1 << 20})
	shards := make([]driver.Shard, 100_000)
	for i := range shards {
		shards[i] = driver.Shard{ID: driver.ShardID(16 + i), Retention: 24 * hour}
	}
	must(t, l.Create(t.Context(), shards))
	write(t, l, 3, 16, 50_000, 100_015)
	must(t, l.Close())
	info, err := fsys.Stat("MANIFEST")
	must(t, err)
	if info.Size > 4096 {
		t.Errorf("manifest of idle shards has %d bytes", info.Size)
	}
	l = open(t, fsys, local.Options{SegmentBytes: 1 << 20})
	for i, id := range []driver.ShardID{16, 50_000, 100_015} {
		bounds, err := l.Bounds(t.Context(), id)
		must(t, err)
		if bounds.Next != 4 {
			t.Errorf("%d: shard %d ends at %d", i, id, bounds.Next)
		}
	}
	if err := l.Create(t.Context(), []driver.Shard{{ID: 70_000}}); !errors.Is(err, driver.ErrExists) {
		t.Errorf("create: %v, want ErrExists", err)
	}
}

func TestBatchesLongerThanTheLimitAreReadFromSealedFiles(t *testing.T) {
	fsys := vfs.NewMemory()
	l := open(t, fsys, local.Options{SegmentBytes: 4 << 20})
	createShards(t, l, 24*hour, 1)
	sizes := []int{10, 300_000, 5, 900_000, 70_000, 1}
	for range 4 {
		for _, size := range sizes {
			b := &driver.Batch{Shard: 1, Count: 2, Size: size, Payload: driver.Bytes(bytes.Repeat([]byte{byte(size)}, size))}
			must(t, l.Append(t.Context(), []*driver.Batch{b}))
		}
	}
	must(t, l.Maintain(t.Context()))
	for _, limit := range []int{1, 1000, 100_000, 400_000, 10 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			n := 0
			for from := driver.Index(2); ; {
				batches, _, err := l.Read(t.Context(), 1, from, limit, nil)
				must(t, err)
				if len(batches) == 0 {
					break
				}
				total := 0
				for _, b := range batches {
					size := sizes[n%len(sizes)]
					if len(b.Payload) != size || !bytes.Equal(b.Payload, bytes.Repeat([]byte{byte(size)}, size)) {
						t.Fatalf("batch %d has %d bytes, want %d", n, len(b.Payload), size)
					}
					total += size
					n++
					from = b.Next()
				}
				if total > limit && len(batches) > 1 {
					t.Errorf("%d bytes in %d batches, at most %d wanted", total, len(batches), limit)
				}
			}
			if n != 24 {
				t.Errorf("%d batches, want 24", n)
			}
		})
	}
}

func TestShardThatChangedItsClassAndCameBackReadsInOrder(t *testing.T) {
	fsys := vfs.NewMemory()
	l := open(t, fsys, local.Options{})
	createShards(t, l, 24*hour, 1, 2, 3, 4, 5, 6, 7)
	n := driver.Index(1)
	for round := range 12 {
		retention := 24 * hour
		if round%4 == 1 {
			retention = 7 * 24 * hour
		}
		must(t, l.SetRetention(t.Context(), retention, 1))
		write(t, l, 30, 1, 2, 3, 4, 5, 6, 7)
		n += 30
		must(t, l.Maintain(t.Context()))
		expect(t, l, 1, 1, n)
		for _, from := range []driver.Index{2, n / 4, n / 3, n / 2, n - 20} {
			batches, _, err := l.Read(t.Context(), 1, max(from, 1), 1, nil)
			must(t, err)
			if len(batches) != 1 || batches[0].Base != max(from, 1) {
				t.Fatalf("round %d: read from %d gives %+v", round, from, batches)
			}
		}
	}
}

// fill appends to a shard until the disk is said to be full, and returns how many
// appends were taken.
func fill(t *testing.T, l *local.Log, id driver.ShardID, size int) int {
	t.Helper()
	for n := range 100_000 {
		b := &driver.Batch{Shard: id, Count: 1, Size: size, Payload: driver.Bytes(bytes.Repeat([]byte{byte(id)}, size))}
		err := l.Append(t.Context(), []*driver.Batch{b})
		if errors.Is(err, driver.ErrFull) {
			return n
		}
		must(t, err)
	}
	t.Fatal("the disk never got full")
	return 0
}

func TestDeletionMakesSpaceOnAFullDisk(t *testing.T) {
	for _, watermark := range []int64{-1, 200 << 10} {
		t.Run(fmt.Sprintf("watermark %d", watermark), func(t *testing.T) {
			memory := vfs.NewMemory()
			l := open(t, memory, local.Options{LowWatermarkBytes: watermark, MaintenanceInterval: 5 * time.Millisecond})
			createShards(t, l, 0, 1)
			createShards(t, l, 24*hour, 2, 3)
			write(t, l, 10, 1, 3)
			memory.SetCapacity(1 << 20)
			n := fill(t, l, 2, 1000)
			if n < 200 {
				t.Errorf("full after %d appends", n)
			}
			// Metadata, and everything that makes space, is still taken.
			write(t, l, 1, 1)
			must(t, l.SetRetention(t.Context(), 48*hour, 3))
			must(t, l.Truncate(t.Context(), 3, 5))
			expect(t, l, 3, 5, 11)
			must(t, l.Delete(t.Context(), 2))
			write(t, l, 1, 1)
			b := &driver.Batch{Shard: 3, Count: 1, Size: 1000, Payload: driver.Bytes(bytes.Repeat([]byte{3}, 1000))}
			for deadline := time.Now().Add(20 * time.Second); ; {
				err := l.Append(t.Context(), []*driver.Batch{b})
				if err == nil {
					break
				}
				if !errors.Is(err, driver.ErrFull) || time.Now().After(deadline) {
					t.Fatalf("append after the deletion: %v", err)
				}
				must(t, l.Maintain(t.Context()))
			}
			expect(t, l, 1, 1, 13)
			expect(t, l, 3, 5, 12)
			must(t, l.Close())
			l = open(t, memory, local.Options{LowWatermarkBytes: watermark})
			expect(t, l, 1, 1, 13)
			expect(t, l, 3, 5, 12)
			if _, err := l.Bounds(t.Context(), 2); !errors.Is(err, driver.ErrNotFound) {
				t.Errorf("bounds of the deleted shard: %v", err)
			}
		})
	}
}

// A log that met a full disk starts again there, and a deletion frees it.
func TestStartOnAFullDisk(t *testing.T) {
	memory := vfs.NewMemory()
	l := open(t, memory, local.Options{LowWatermarkBytes: 200 << 10})
	createShards(t, l, 0, 1)
	createShards(t, l, 24*hour, 2)
	memory.SetCapacity(1 << 20)
	n := fill(t, l, 2, 1000)
	crashed := memory.CrashClone(0)
	l = open(t, crashed, local.Options{LowWatermarkBytes: 200 << 10})
	expect(t, l, 2, 1, driver.Index(n+1))
	write(t, l, 1, 1)
	must(t, l.Maintain(t.Context()))
	b := &driver.Batch{Shard: 2, Count: 1, Size: 1, Payload: driver.Bytes("x")}
	if err := l.Append(t.Context(), []*driver.Batch{b}); !errors.Is(err, driver.ErrFull) {
		t.Fatalf("append: %v, want ErrFull", err)
	}
	must(t, l.Delete(t.Context(), 2))
	for range 3 {
		must(t, l.Maintain(t.Context()))
	}
	createShards(t, l, 24*hour, 3)
	write(t, l, 100, 3)
	expect(t, l, 3, 1, 101)
	expect(t, l, 1, 1, 2)
}
