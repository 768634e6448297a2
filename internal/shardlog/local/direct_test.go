package local_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// TestReadPastPageCache reads sealed data in pieces of many sizes, each several
// times: the first time past the page cache where the file system allows it,
// afterwards through it. All must see the same bytes.
func TestReadPastPageCache(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS(t.TempDir()), "memory": vfs.NewMemory()} {
		t.Run(name, func(t *testing.T) {
			l, err := local.Open(t.Context(), fsys, local.Options{SegmentBytes: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			const shards = 3
			for id := driver.ShardID(1); id <= shards; id++ {
				if err := l.Create(t.Context(), []driver.Shard{{ID: id, Retention: time.Hour}}); err != nil {
					t.Fatal(err)
				}
			}
			random := rand.New(rand.NewPCG(1, 2))
			var want [shards + 1][]byte
			for range 900 {
				data := make([]byte, 1+random.IntN(30_000))
				for i := range data {
					data[i] = byte(random.Uint32())
				}
				id := driver.ShardID(1 + random.IntN(shards))
				if err := l.Append(t.Context(), []*driver.Batch{{Shard: id, Count: 1, Size: len(data), Payload: driver.Bytes(data)}}); err != nil {
					t.Fatal(err)
				}
				want[id] = append(want[id], data...)
			}
			if err := l.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, maxBytes := range []int{100, 130_000, 300_000, 1 << 20, 10 << 20} {
				for id := driver.ShardID(1); id <= shards; id++ {
					t.Run(fmt.Sprintf("%d bytes of shard %d", maxBytes, id), func(t *testing.T) {
						for pass := range 3 {
							var got []byte
							buf := make([]byte, pass*7) // another alignment each time
							for from := driver.Index(1); ; {
								batches, _, err := l.Read(t.Context(), id, from, maxBytes, buf)
								if err != nil {
									t.Fatal(err)
								}
								if len(batches) == 0 {
									break
								}
								for i := range batches {
									got = append(got, batches[i].Payload...)
								}
								from = batches[len(batches)-1].Next()
							}
							if !bytes.Equal(got, want[id]) {
								t.Fatalf("pass %d: %d bytes were read that are not the %d written", pass, len(got), len(want[id]))
							}
						}
					})
				}
			}
		})
	}
}
