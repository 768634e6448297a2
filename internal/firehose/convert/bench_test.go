package convert

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/millrace/millrace/internal/firehose/convert/orc"
	"github.com/millrace/millrace/internal/firehose/convert/parquet"
)

var shapes = []struct {
	name    string
	columns []Column
	record  func(i int) string
}{
	{"ticker", []Column{{"ticker_symbol", "varchar(4)"}, {"sector", "varchar(16)"}, {"change", "float"}, {"price", "float"}}, func(i int) string {
		return fmt.Sprintf(`{"TICKER_SYMBOL":"%s","SECTOR":"%s","CHANGE":%.2f,"PRICE":%.2f}`,
			[]string{"QXZ", "AMZN", "IOP", "WSB", "NGC"}[i%5], []string{"HEALTHCARE", "TECHNOLOGY", "ENERGY"}[i%3], float64(i%1000)/100-5, float64(i%100000)/100)
	}},
	{"event", []Column{
		{"ts", "timestamp"}, {"level", "string"}, {"request_id", "string"}, {"host", "string"}, {"path", "string"}, {"status", "int"},
		{"bytes", "bigint"}, {"duration", "double"}, {"user_agent", "string"}, {"message", "string"}, {"ok", "boolean"}, {"tags", "array<string>"},
	}, func(i int) string {
		return fmt.Sprintf(`{"ts":"2026-09-07T12:%02d:%02d.%03dZ","level":"INFO","request_id":"3f0c%08x-77aa-4c1e-9d55-0123456789ab","host":"web-%d.example.com",`+
			`"path":"/api/v1/orders/%d/items","status":%d,"bytes":%d,"duration":%.4f,"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0",`+
			`"message":"request finished after the cache was asked %d times","ok":%t,"tags":["web","order-%d"],"unwanted":{"a":[1,2,3],"b":"skipped"}}`,
			i/60%60, i%60, i%1000, uint32(i)*2654435761, i%16, i*7919%1_000_000, 200+i%3*100, i*37%100_000, float64(i%5000)/997, i%10, i%3 != 0, i%100)
	}},
	{"numbers", []Column{
		{"a", "bigint"}, {"b", "bigint"}, {"c", "bigint"}, {"d", "double"}, {"e", "double"}, {"f", "int"}, {"g", "int"}, {"h", "decimal(12,2)"},
	}, func(i int) string {
		return fmt.Sprintf(`{"a":%d,"b":%d,"c":%d,"d":%.6f,"e":%.3f,"f":%d,"g":%d,"h":%d.%02d}`,
			i, int64(i)*7919, 1_700_000_000_000+int64(i), float64(i)/7, float64(i)*1.001, i%100, i*13%10_000, i, i%100)
	}},
}

func BenchmarkConvert(b *testing.B) {
	for _, format := range []struct {
		name string
		o    Options
	}{
		{"parquet-snappy", Options{Parquet: &parquet.Options{}}},
		{"parquet-dictionary", Options{Parquet: &parquet.Options{Dictionary: true}}},
		{"orc-snappy", Options{ORC: &orc.Options{}}},
	} {
		for _, s := range shapes {
			b.Run("format="+format.name+"/records="+s.name, func(b *testing.B) {
				var records []string
				size := 0
				for size < 16<<20 {
					records = append(records, s.record(len(records)))
					size += len(records[len(records)-1])
				}
				o := format.o
				o.Schemas = &fixed{schema: &Schema{Version: "0", Columns: s.columns}}
				c, err := New(o)
				if err != nil {
					b.Fatal(err)
				}
				in := batch(records...)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					rows, failed, err := c.Convert(context.Background(), in, io.Discard)
					if err != nil || len(failed) > 0 || rows != len(records) {
						b.Fatal(rows, len(records), failed[:min(1, len(failed))], err)
					}
				}
			})
		}
	}
}

// BenchmarkSmall converts what a quiet delivery stream has after a second.
func BenchmarkSmall(b *testing.B) {
	for name, o := range map[string]Options{"parquet": {Parquet: &parquet.Options{}}, "orc": {ORC: &orc.Options{}}} {
		b.Run("format="+name, func(b *testing.B) {
			var records []string
			for i := range 100 {
				records = append(records, shapes[1].record(i))
			}
			c := converter(b, o, shapes[1].columns...)
			in := batch(records...)
			b.ReportAllocs()
			for b.Loop() {
				if rows, _, err := c.Convert(context.Background(), in, io.Discard); err != nil || rows != 100 {
					b.Fatal(rows, err)
				}
			}
		})
	}
}
