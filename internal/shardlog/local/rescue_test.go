package local_test

import (
	"bytes"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// gate is a file system that holds one write back, and fails it.
type gate struct {
	vfs.FS
	mu      sync.Mutex
	name    string        // whose next write is held; empty for none
	held    chan struct{} // closed when it has come
	release chan struct{} // closed to fail it
}

func (g *gate) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := g.FS.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &gatedFile{f, g, name}, nil
}

type gatedFile struct {
	vfs.File
	g    *gate
	name string
}

func (f *gatedFile) WriteAt(p []byte, offset int64) (int, error) {
	f.g.mu.Lock()
	mine := f.g.name == f.name
	if mine {
		f.g.name = ""
	}
	f.g.mu.Unlock()
	if mine {
		close(f.g.held)
		<-f.g.release
		return 0, syscall.EIO
	}
	return f.File.WriteAt(p, offset)
}

// announced is a payload that tells when it has a place in the log.
type announced struct {
	driver.Bytes
	placed chan struct{}
}

func (a announced) Encode(dst []byte, base driver.Index, at int64) {
	a.Bytes.Encode(dst, base, at)
	close(a.placed)
}

// The last write to a segment fails when appends already go to the next one: what
// is stored once more comes before what the next segment holds, also after a crash
// and in sealed files.
func TestFailedLastWriteOfASegmentKeepsItsPlace(t *testing.T) {
	memory := vfs.NewMemory()
	g := &gate{FS: memory, held: make(chan struct{}), release: make(chan struct{})}
	l := open(t, g, local.Options{})
	createShards(t, l, 24*hour, 1)
	write(t, l, 13, 1)

	wal, err := memory.ReadDir("wal")
	must(t, err)
	first := "wal/" + wal[0].Name
	g.mu.Lock()
	g.name = first
	g.mu.Unlock()
	payload := driver.Bytes(bytes.Repeat([]byte{1}, 1000))
	var appends sync.WaitGroup
	appends.Go(func() {
		if err := l.Append(t.Context(), []*driver.Batch{{Shard: 1, Count: 1, Size: 1000, Payload: payload}}); err != nil {
			t.Error(err)
		}
	})
	<-g.held
	placed := make(chan struct{})
	appends.Go(func() { // too much for what is left of the segment
		many := []*driver.Batch{{Shard: 1, Count: 1, Size: 1000, Payload: announced{payload, placed}}}
		for range 19 {
			many = append(many, &driver.Batch{Shard: 1, Count: 1, Size: 1000, Payload: payload})
		}
		if err := l.Append(t.Context(), many); err != nil {
			t.Error(err)
		}
	})
	<-placed
	close(g.release)
	appends.Wait()
	expect(t, l, 1, 1, 35)
	for seed := range uint64(3) {
		expect(t, open(t, memory.CrashClone(seed), local.Options{}), 1, 1, 35)
	}
	write(t, l, 60, 1)
	must(t, l.Maintain(t.Context()))
	expect(t, l, 1, 1, 95)
	must(t, l.Close())
	if all, err := memory.ReadDir("wal"); err != nil || strings.Contains(first, all[0].Name) {
		t.Errorf("log segments are %v, %v; %s was to be given up", all, err, first)
	}
	expect(t, open(t, memory, local.Options{}), 1, 1, 95)
}
