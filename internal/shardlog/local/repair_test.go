package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// overwrite changes one byte of a stored file for good.
func overwrite(t *testing.T, fsys vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fsys.Open(name, vfs.Write)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b[:], at)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

// indexes reads what a shard still has, checks the bytes, and returns the indexes.
func indexes(t *testing.T, l *local.Log, id driver.ShardID) map[driver.Index]bool {
	t.Helper()
	got := map[driver.Index]bool{}
	for from := driver.Index(1); ; {
		batches, _, err := l.Read(t.Context(), id, from, 10_000, nil)
		must(t, err)
		if len(batches) == 0 {
			return got
		}
		for _, b := range batches {
			if b.Base < from || !bytes.Equal(b.Payload, bytes.Repeat([]byte{byte(id)}, 1000)) {
				t.Fatalf("shard %d: batch at %d when reading from %d", id, b.Base, from)
			}
			got[b.Base] = true
			from = b.Next()
		}
	}
}

// sealed is a directory with one large sealed file of four shards.
func sealed(t *testing.T) (*vfs.Memory, string) {
	t.Helper()
	memory := vfs.NewMemory()
	o := local.Options{SegmentBytes: 1 << 20, LowWatermarkBytes: -1}
	l := open(t, memory, o)
	createShards(t, l, 24*hour, 1, 2, 3, 4)
	write(t, l, 150, 1, 2, 3, 4)
	must(t, l.Maintain(t.Context()))
	must(t, l.Close())
	files := sealedFiles(t, memory)
	if len(files) != 1 {
		t.Fatalf("sealed files are %v, want one", files)
	}
	return memory, files[0]
}

func TestRepairIsolatesDamageInASealedFile(t *testing.T) {
	clean, name := sealed(t)
	info, err := clean.Stat(name)
	must(t, err)
	o := local.Options{SegmentBytes: 1 << 20, LowWatermarkBytes: -1, Repair: true}
	for _, test := range []struct {
		what    string
		at      int64
		mayLose int // records at most
	}{
		{"header", 9, 0},
		{"size of the first batch", 64 + 5, 70},
		{"payload of the first batch", 64 + 100, 1},
		{"shard of a batch", 64 + 3*1040 + 8, 1},
		{"payload in the middle", info.Size / 2, 1},
		{"directory page", info.Size - 128 - 8 - 4096 + 70, 0},
		{"page index", info.Size - 128 - 4, 0},
		{"trailer", info.Size - 60, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			memory := clean.CrashClone(0)
			overwrite(t, memory, name, test.at)
			var corrupt *driver.CorruptError
			if err := local.Verify(t.Context(), memory, func(local.Checked) {}); !errors.As(err, &corrupt) || corrupt.File != name {
				t.Fatalf("verify: %v, want damage in %s", err, name)
			}

			// Without a repair what is damaged is refused by name.
			l := open(t, memory, local.Options{SegmentBytes: 1 << 20, LowWatermarkBytes: -1})
			refused := 0
			for id := driver.ShardID(1); id <= 4; id++ {
				for from := driver.Index(1); from <= 150; {
					batches, _, err := l.Read(t.Context(), id, from, 1, nil)
					if err != nil {
						if !errors.As(err, &corrupt) || corrupt.File != name {
							t.Fatalf("read: %v, want damage in %s", err, name)
						}
						refused++
						from++
						continue
					}
					if len(batches) == 0 {
						break
					}
					from = batches[0].Next()
				}
			}
			if refused == 0 {
				t.Error("damage was not noticed when reading")
			}
			must(t, l.Close())

			l = open(t, memory, o)
			repairs := l.Repairs()
			if len(repairs) == 0 || repairs[0].File != name {
				t.Fatalf("repairs are %v", repairs)
			}
			lost := 0
			for id := driver.ShardID(1); id <= 4; id++ {
				got := indexes(t, l, id)
				for i := driver.Index(1); i <= 150; i++ {
					if got[i] {
						continue
					}
					lost++
					reported := false
					for _, r := range repairs {
						var from, to, shard int
						if n, _ := fmt.Sscanf(r.Reason, "records %d to %d of shard log %d are lost", &from, &to, &shard); n == 3 {
							reported = reported || shard == int(id) && from <= int(i) && int(i) <= to
						}
					}
					if !reported {
						t.Errorf("record %d of shard %d is gone, and the report does not say so: %v", i, id, repairs)
					}
				}
				if id > 1 && test.at < 5000 && len(got) != 150 {
					t.Errorf("shard %d has %d records; its chunk was not damaged", id, len(got))
				}
			}
			if lost > test.mayLose {
				t.Errorf("%d records are lost, at most %d need be: %v", lost, test.mayLose, repairs)
			}
			write(t, l, 1, 1)
			must(t, l.Close())
			if kept, err := memory.ReadDir("damaged"); err != nil || len(kept) != 1 {
				t.Errorf("the damaged file is not kept: %v, %v", kept, err)
			}

			// From now on everything is whole.
			if err := local.Verify(t.Context(), memory, func(local.Checked) {}); err != nil {
				t.Errorf("verify after the repair: %v", err)
			}
			l = open(t, memory, local.Options{SegmentBytes: 1 << 20, LowWatermarkBytes: -1})
			if got := indexes(t, l, 1); !got[151] {
				t.Error("what was appended after the repair is not there")
			}
		})
	}
}

func TestRepairTakesWhatIsLeftOfAShortFile(t *testing.T) {
	memory, name := sealed(t)
	f, err := memory.Open(name, vfs.Write)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	must(t, f.Truncate(size/2))
	must(t, f.Sync())
	must(t, f.Close())
	o := local.Options{SegmentBytes: 1 << 20, SegmentCount: 4, LowWatermarkBytes: -1}
	var corrupt *driver.CorruptError
	if _, err := local.Open(t.Context(), memory, o); !errors.As(err, &corrupt) || corrupt.File != name {
		t.Fatalf("open: %v, want damage in %s", err, name)
	}
	o.Repair = true
	l := open(t, memory, o)
	if got := indexes(t, l, 1); len(got) != 150 {
		t.Errorf("shard 1 has %d records, want all", len(got))
	}
	if got := indexes(t, l, 4); got[1] || !got[150] {
		t.Errorf("shard 4 has %d records: those of the short file must be gone, those of the log be there", len(got))
	}
	if r := fmt.Sprint(l.Repairs()); !strings.Contains(r, name) {
		t.Errorf("repairs are %v", r)
	}
	write(t, l, 1, 4)
}

// What a user stores may look like a batch of another shard. A repair must not take
// it for one.
func TestRepairDoesNotBelieveRecords(t *testing.T) {
	// A whole stored batch of shard 2, as it stands in a sealed file.
	source, name := sealed(t)
	data, err := vfs.ReadFile(source, name, 1<<30)
	must(t, err)
	at := bytes.Index(data, bytes.Repeat([]byte{2}, 1000)) - 40
	forged := bytes.Repeat(data[at:at+1040], 3)

	memory := vfs.NewMemory()
	o := local.Options{SegmentBytes: 256 << 10, LowWatermarkBytes: -1}
	l := open(t, memory, o)
	createShards(t, l, 24*hour, 1, 2)
	for range 100 {
		must(t, l.Append(t.Context(), []*driver.Batch{{Shard: 1, Count: 1, Size: len(forged), Payload: driver.Bytes(forged)}}))
	}
	must(t, l.Maintain(t.Context()))
	must(t, l.Close())
	for _, name := range sealedFiles(t, memory) {
		overwrite(t, memory, name, 64+10*int64(40+len(forged))+4) // the size of a batch
		info, err := memory.Stat(name)
		must(t, err)
		overwrite(t, memory, name, info.Size-128-8-4000) // and the directory
	}
	o.Repair = true
	l = open(t, memory, o)
	if got := indexes(t, l, 2); len(got) != 0 {
		t.Errorf("shard 2 has records %v that nobody put there", got)
	}
	bounds, err := l.Bounds(t.Context(), 1)
	must(t, err)
	if bounds.Next != 101 {
		t.Errorf("shard 1 ends at %d, want 101", bounds.Next)
	}
}

// A segment that lost its header may be the newest, and then nothing else says that
// something is missing.
func TestLostHeaderOfALogSegmentIsNoticed(t *testing.T) {
	memory := vfs.NewMemory()
	l := open(t, memory, local.Options{})
	createShards(t, l, 24*hour, 1)
	write(t, l, 5, 1)
	crashed := memory.CrashClone(0)
	const name = "wal/00000000"
	f, err := crashed.Open(name, vfs.Write)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	var corrupt *driver.CorruptError
	if _, err := local.Open(t.Context(), crashed, local.Options{SegmentBytes: 64 << 10, SegmentCount: 4}); !errors.As(err, &corrupt) || corrupt.File != name {
		t.Fatalf("open: %v, want damage in %s", err, name)
	}
	if err := local.Verify(t.Context(), crashed, func(local.Checked) {}); !errors.As(err, &corrupt) || corrupt.File != name {
		t.Errorf("verify: %v, want damage in %s", err, name)
	}
	l = open(t, crashed, local.Options{Repair: true})
	if r := l.Repairs(); len(r) != 1 || r[0].File != name {
		t.Errorf("repairs are %v", r)
	}
	if _, err := crashed.Stat("damaged/wal-00000000"); err != nil {
		t.Errorf("the damaged segment is not kept: %v", err)
	}
	createShards(t, l, 24*hour, 2)
	write(t, l, 5, 2)
	must(t, l.Close())
	l = open(t, crashed, local.Options{})
	expect(t, l, 2, 1, 6)
}
