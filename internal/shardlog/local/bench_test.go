//go:build unix

package local_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

func openBench(b *testing.B, fsys vfs.FS, shards int) *local.Log {
	b.Helper()
	l, err := local.Open(b.Context(), fsys, local.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if shards > 0 {
		created := make([]driver.Shard, shards)
		for i := range created {
			created[i] = driver.Shard{ID: driver.ShardID(i + 1), Retention: 24 * time.Hour}
		}
		if err := l.Create(b.Context(), created); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// request is 500 records of 1 KiB, spread over the shards.
func request(n, shards int, payload []byte) []*driver.Batch {
	if shards == 1 {
		return []*driver.Batch{{Shard: 1, Count: 500, Size: 500 * len(payload), Payload: repeat(payload)}}
	}
	batches := make([]*driver.Batch, 500)
	for i := range batches {
		batches[i] = &driver.Batch{Shard: driver.ShardID((n*7919+i*104729)%shards + 1), Count: 1, Size: len(payload), Payload: driver.Bytes(payload)}
	}
	return batches
}

type repeat []byte

func (r repeat) Encode(dst []byte, _ driver.Index, _ int64) {
	for len(dst) > 0 {
		dst = dst[copy(dst, r):]
	}
}

// BenchmarkAppend has 16 writers append requests of 500 records of 1 KiB.
func BenchmarkAppend(b *testing.B) {
	for _, shards := range []int{1, 1000, 10_000} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			l := openBench(b, vfs.OS(b.TempDir()), shards)
			payload := make([]byte, 1024)
			b.SetBytes(500 << 10)
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			cpu := cpuSeconds()
			var writers sync.WaitGroup
			for w := range 16 {
				writers.Go(func() {
					for n := w; left.Add(-1) >= 0; n += 16 {
						if err := l.Append(context.Background(), request(n, shards, payload)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			writers.Wait()
			b.StopTimer()
			b.ReportMetric((cpuSeconds()-cpu)/(float64(b.N)*500*1024/1e9), "cpu-s/GB")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkAppendOne is the latency of one writer with one record.
func BenchmarkAppendOne(b *testing.B) {
	l := openBench(b, vfs.OS(b.TempDir()), 1)
	defer l.Close()
	payload := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(b.Context(), []*driver.Batch{{Shard: 1, Count: 1, Size: len(payload), Payload: driver.Bytes(payload)}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendSmall has 16 writers append one record of 1 KiB each, which is
// what decides the cost of PutRecord: how many of them a write carries.
func BenchmarkAppendSmall(b *testing.B) {
	l := openBench(b, vfs.OS(b.TempDir()), 16)
	defer l.Close()
	payload := make([]byte, 1024)
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	cpu := cpuSeconds()
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for left.Add(-1) >= 0 {
				if err := l.Append(context.Background(), []*driver.Batch{{Shard: driver.ShardID(w + 1), Count: 1, Size: len(payload), Payload: driver.Bytes(payload)}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	b.StopTimer()
	b.ReportMetric((cpuSeconds()-cpu)/float64(b.N)*1e6, "cpu-µs/op")
}

// BenchmarkReadCold reads one shard out of 1000 from sealed files.
func BenchmarkReadCold(b *testing.B) {
	fsys := vfs.OS(b.TempDir())
	l := openBench(b, fsys, 1000)
	payload := make([]byte, 1024)
	for n := range 800 {
		if err := l.Append(b.Context(), request(n, 1000, payload)); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Maintain(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var buf []byte
	var bytes int64
	for b.Loop() {
		for from := driver.Index(1); ; {
			batches, out, err := l.Read(b.Context(), 7, from, 1<<20, buf[:0])
			if err != nil {
				b.Fatal(err)
			}
			buf = out
			if len(batches) == 0 {
				break
			}
			for i := range batches {
				bytes += int64(len(batches[i].Payload))
			}
			from = batches[len(batches)-1].Next()
		}
	}
	b.SetBytes(bytes / int64(b.N))
}

// BenchmarkDrain reads four shards of sealed data once, as a consumer that is
// behind does.
func BenchmarkDrain(b *testing.B) {
	fsys := vfs.OS(b.TempDir())
	l := openBench(b, fsys, 4)
	payload := make([]byte, 1024)
	const requests = 400
	for n := range requests {
		if err := l.Append(b.Context(), request(n, 4, payload)); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(requests * 500 << 10)
	var buf []byte
	var spent float64
	for b.Loop() {
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		l = openBench(b, fsys, 0)
		b.StartTimer()
		cpu := cpuSeconds()
		for id := driver.ShardID(1); id <= 4; id++ {
			for from := driver.Index(1); ; {
				batches, out, err := l.Read(b.Context(), id, from, 10<<20, buf[:0])
				if err != nil {
					b.Fatal(err)
				}
				buf = out
				if len(batches) == 0 {
					break
				}
				from = batches[len(batches)-1].Next()
			}
		}
		spent += cpuSeconds() - cpu
	}
	b.ReportMetric(spent/(float64(b.N)*requests*500*1024/1e9), "cpu-s/GB")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMerge seals and merges 256 MB of records of 10,000 shards.
func BenchmarkMerge(b *testing.B) {
	payload := make([]byte, 1024)
	const requests, shards = 500, 10_000
	var spent float64
	for b.Loop() {
		b.StopTimer()
		l, err := local.Open(b.Context(), vfs.OS(b.TempDir()), local.Options{SegmentBytes: 16 << 20, MaintenanceInterval: time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		created := make([]driver.Shard, shards)
		for i := range created {
			created[i] = driver.Shard{ID: driver.ShardID(i + 1), Retention: 24 * time.Hour}
		}
		if err := l.Create(b.Context(), created); err != nil {
			b.Fatal(err)
		}
		for n := range requests {
			if err := l.Append(b.Context(), request(n, shards, payload)); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		cpu := cpuSeconds()
		if err := l.Maintain(b.Context()); err != nil {
			b.Fatal(err)
		}
		spent += cpuSeconds() - cpu
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(spent/(float64(b.N)*requests*500*1024/1e9), "cpu-s/GB")
}

// BenchmarkOpen opens a log whose whole ring must be replayed.
func BenchmarkOpen(b *testing.B) {
	dir := vfs.OS(b.TempDir())
	l := openBench(b, dir, 10_000)
	payload := make([]byte, 1024)
	for n := range 1000 {
		if err := l.Append(b.Context(), request(n, 10_000, payload)); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l := openBench(b, dir, 0)
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
