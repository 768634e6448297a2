package meta_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

const manyRecords = 100_000

// fill commits many records of 200 bytes.
func fill(b *testing.B, s *meta.Store) {
	b.Helper()
	for start := 0; start < manyRecords; start += 1000 {
		ops := make([]meta.Op, 1000)
		for i := range ops {
			ops[i] = meta.Op{Key: meta.Key("shards", "000000000000", "eu-west-1", "stream", fmt.Sprintf("%06d", start+i)), Value: make([]byte, 200)}
		}
		if _, err := s.Commit(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
		s, err := meta.Open(b.Context(), log, nil, meta.Options{})
		if err != nil {
			b.Fatal(err)
		}
		fill(b, s)
		var with, without runtime.MemStats
		log.Truncate(b.Context(), meta.LogShard, 1<<40)
		runtime.GC()
		runtime.ReadMemStats(&with)
		runtime.KeepAlive(s)
		s.Close()
		s = nil
		runtime.GC()
		runtime.ReadMemStats(&without)
		b.ReportMetric(float64(with.HeapAlloc-without.HeapAlloc)/manyRecords, "bytes/record")
		log.Close()
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, from := range []string{"snapshot", "log"} {
		b.Run(fmt.Sprintf("records=%d/from=%s", manyRecords, from), func(b *testing.B) {
			log, disk := shardlog.New(memory.New(memory.Options{}), shardlog.Options{}), vfs.NewMemory()
			defer log.Close()
			o := meta.Options{SnapshotBytes: 1 << 40}
			s, err := meta.Open(b.Context(), log, disk, o)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, s)
			if from == "snapshot" {
				if err := s.Snapshot(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			s.Close()
			for b.Loop() {
				s, err := meta.Open(b.Context(), log, disk, o)
				if err != nil || s.Len() != manyRecords {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
			defer log.Close()
			s, err := meta.Open(b.Context(), log, nil, meta.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			value := make([]byte, 200)
			b.ReportAllocs()
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := s.Commit(b.Context(), meta.Op{Key: fmt.Sprint("key", i%1000), Value: value}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
