package local_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

type sealCount struct {
	local.Metrics
	bytes atomic.Int64
}

func (s *sealCount) GroupWritten(time.Duration, int, int)       {}
func (s *sealCount) StateChanged(bool, bool)                    {}
func (s *sealCount) SegmentSealed(_ time.Duration, bytes int64) { s.bytes.Add(bytes) }

// TestRestSealsWhatABurstLeft: a segment that is not full is sealed once nothing
// has been appended for a while, unless it holds next to nothing.
func TestRestSealsWhatABurstLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var metrics sealCount
		l, err := local.Open(t.Context(), vfs.NewMemory(), local.Options{SegmentBytes: 1 << 20, Metrics: &metrics})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := l.Create(t.Context(), []driver.Shard{{ID: 1}}); err != nil {
			t.Fatal(err)
		}
		put := func(size int) {
			t.Helper()
			if err := l.Append(t.Context(), []*driver.Batch{{Shard: 1, Count: 1, Size: size, Payload: driver.Bytes(make([]byte, size))}}); err != nil {
				t.Fatal(err)
			}
		}
		put(1000)
		time.Sleep(time.Minute)
		synctest.Wait()
		if metrics.bytes.Load() != 0 {
			t.Errorf("%d bytes were sealed for one small record", metrics.bytes.Load())
		}
		put(300_000)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if metrics.bytes.Load() != 0 {
			t.Error("sealed five seconds after an append")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if metrics.bytes.Load() < 300_000 {
			t.Errorf("%d bytes are sealed a minute after the last append", metrics.bytes.Load())
		}
		put(500)
		if batches, _, err := l.Read(t.Context(), 1, 1, 1<<20, nil); err != nil || len(batches) != 3 {
			t.Errorf("%d batches, %v", len(batches), err)
		}
	})
}
