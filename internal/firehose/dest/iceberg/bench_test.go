package iceberg

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// BenchmarkDeliver writes batches of 8 MiB, in records of about 300 bytes, to a
// table in memory; bytes are those of the records.
func BenchmarkDeliver(b *testing.B) {
	d, err := New(Config{
		Catalog: Catalog{Type: "files", Warehouse: "s3://lake/warehouse"}, Tables: []Table{{Database: "db", Name: "events"}},
	}, Deps{Store: &desttest.Store{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if err := d.catalog.create(b.Context(), "db", "events", eventSchema, nil); err != nil {
		b.Fatal(err)
	}
	const count = 8 << 20 / 300
	data := make([][]byte, 1000)
	for i := range data {
		data[i] = desttest.JSON(i, 270)
	}
	b.SetBytes(count * 300)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		batch := record.NewBatch(func(f func(int, *record.Record) error) error {
			for i := range count {
				r := record.Record{Data: data[i%len(data)], Arrival: int64(n), Position: record.Position{Index: uint64(n*count + i)}}
				if err := f(i, &r); err != nil {
					return err
				}
			}
			return nil
		})
		batch.Stream, batch.ID, batch.Count, batch.Oldest, batch.Newest = desttest.Stream, fmt.Sprintf("%032x", n), count, int64(n), int64(n)
		if _, err := d.Deliver(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
