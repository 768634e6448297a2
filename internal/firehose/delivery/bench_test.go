//go:build unix

package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// demo is a record like those that people try things out with.
func demo(rng *rand.Rand) []byte {
	symbols := []string{"QXZ", "ABCD", "MLR", "TRN", "KIN"}
	sectors := []string{"HEALTHCARE", "ENERGY", "FINANCIAL", "TECHNOLOGY", "RETAIL"}
	return fmt.Appendf(nil, `{"TICKER_SYMBOL":%q,"SECTOR":%q,"CHANGE":%.2f,"PRICE":%.2f,"id":"%016x%016x"}`+"\n",
		symbols[rng.IntN(5)], sectors[rng.IntN(5)], rng.Float64()-0.5, rng.Float64()*100, rng.Uint64(), rng.Uint64())
}

// BenchmarkDelivery reads what is in a log and delivers it to the embedded store.
// cpu-MB/s is megabytes of input per second of processor time.
func BenchmarkDelivery(b *testing.B) {
	const total = 256 << 20
	for _, c := range []struct {
		name       string
		config     s3.Config
		partitions bool
		discard    bool
	}{
		{"to=nowhere", s3.Config{}, false, true},
		{"to=s3", s3.Config{}, false, false},
		{"to=s3/compression=gzip", s3.Config{Compression: "GZIP"}, false, false},
		{"to=s3/compression=zstd", s3.Config{Compression: "ZSTD"}, false, false},
		{"to=nowhere/partitioned", s3.Config{}, true, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.Background()
			dir := vfs.OS(b.TempDir())
			engine, err := local.Open(ctx, vfs.Sub(dir, "log"), local.Options{})
			if err != nil {
				b.Fatal(err)
			}
			log := shardlog.New(engine, shardlog.Options{})
			defer log.Close()
			store, err := meta.Open(ctx, log, vfs.NewMemory(), meta.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			bucket, err := objects.Open(objects.Options{Files: vfs.Sub(dir, "objects")})
			if err != nil {
				b.Fatal(err)
			}
			defer bucket.Close()
			if err := bucket.CreateBucket(ctx, "bucket", "000000000000", "us-east-1"); err != nil {
				b.Fatal(err)
			}
			prefix, err := naming.ParsePrefix("", naming.Options{})
			if err != nil {
				b.Fatal(err)
			}
			d := define(nil)
			c.config.Store, c.config.Bucket, c.config.Prefix = bucket, "bucket", prefix
			d.Main = s3.New(c.config)
			d.Hints = record.Hints{Bytes: 16 << 20, Interval: time.Minute}
			if c.discard {
				d.Main = discard{}
			}
			if c.partitions {
				query, err := process.NewQuery(`{k: .SECTOR}`)
				if err != nil {
					b.Fatal(err)
				}
				d.Chain = process.NewChain(process.Config{Query: query}, nil)
				keyed, err := naming.ParsePrefix("!{partitionKeyFromQuery:k}/", naming.Options{Partitioning: true})
				if err != nil {
					b.Fatal(err)
				}
				d.Partitioning = &Partitioning{Prefix: keyed}
			}
			rng := rand.New(rand.NewPCG(1, 1))
			var records [][]byte
			for size := 0; size < 4<<20-4096 && len(records) < 500; {
				var r []byte
				for len(r) < 1000 {
					r = append(r, demo(rng)...)
				}
				if c.partitions {
					r = demo(rng)
				}
				records = append(records, r)
				size += len(r)
			}
			var used time.Duration
			var bytes int64
			for b.Loop() {
				b.StopTimer()
				e, err := New(Options{Log: log, Meta: store, DrainTimeout: -1})
				if err != nil {
					b.Fatal(err)
				}
				if err := e.Apply(ctx, d); err != nil {
					b.Fatal(err)
				}
				for size := 0; size < total; {
					if _, _, err := e.Put(ctx, d.ID, records); err != nil {
						b.Fatal(err)
					}
					for _, r := range records {
						size += len(r)
						bytes += int64(len(r))
					}
				}
				runtime.GC()
				b.StartTimer()
				before := processorTime(b)
				run, cancel := context.WithCancel(ctx)
				var group errgroup.Group
				group.Go(func() error { return e.Run(run) })
				if err := e.Flush(ctx, d.ID); err != nil {
					b.Fatal(err)
				}
				used += processorTime(b) - before
				b.StopTimer()
				cancel()
				if err := group.Wait(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.SetBytes(bytes / int64(b.N))
			b.ReportMetric(float64(bytes)/1e6/used.Seconds(), "cpu-MB/s")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// discard reads everything once.
type discard struct{}

func (discard) Deliver(_ context.Context, b *record.Batch) (dest.Result, error) {
	n := 0
	err := b.Each(func(_ int, r *record.Record) error { n += len(r.Data); return nil })
	return dest.Result{}, err
}

func (discard) Close() error { return nil }
