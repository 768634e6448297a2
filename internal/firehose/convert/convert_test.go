package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/firehose/convert/orc"
	"github.com/millrace/millrace/internal/firehose/convert/parquet"
	"github.com/millrace/millrace/internal/firehose/convert/serde"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// everything has each type once, and containers of them.
var everything = []Column{
	{"b", "boolean"}, {"i8", "tinyint"}, {"i16", "smallint"}, {"i32", "int"}, {"i64", "bigint"}, {"f", "float"}, {"d", "double"},
	{"dec", "decimal(20,4)"}, {"small", "decimal(5,2)"}, {"s", "string"}, {"v", "varchar(5)"}, {"c", "char(3)"}, {"bin", "binary"},
	{"day", "date"}, {"ts", "timestamp"},
	{"list", "array<int>"}, {"dict", "map<string,int>"}, {"st", "struct<x:int,y:string>"},
	{"deep", "array<struct<k:string,m:map<string,array<double>>>>"},
}

// everyRecord is record i of everything; nulls come with the number.
func everyRecord(i int) string {
	if i%7 == 3 {
		return `{"s":"` + strings.Repeat("only ", i%5) + `"}`
	}
	r := rand.New(rand.NewPCG(uint64(i), 1))
	var b strings.Builder
	fmt.Fprintf(&b, `{"b":%t,"i8":%d,"i16":%d,"i32":%d,"i64":%d,"f":%g,"d":%g,`, i%3 == 0, int8(r.Uint32()), int16(r.Uint32()), int32(r.Uint32()), int64(r.Uint64()), float32(i)/4, r.Float64())
	fmt.Fprintf(&b, `"dec":%d.%04d,"small":"%d.5","s":"text %d","v":"abcdefg","c":"x%d","bin":"AAEC","day":"20%02d-0%d-1%d",`, r.Int64N(1e15)-5e14, i%10000, i%100, i%50, i%10, i%90+10, i%9+1, i%9)
	fmt.Fprintf(&b, `"ts":"20%02d-0%d-1%d 01:02:%02d.%06d",`, i%60+10, i%9+1, i%9, i%60, i)
	b.WriteString(`"list":[`)
	for j := range i % 4 {
		if j > 0 {
			b.WriteByte(',')
		}
		if j == 2 {
			b.WriteString("null")
		} else {
			fmt.Fprintf(&b, "%d", i*j)
		}
	}
	fmt.Fprintf(&b, `],"dict":{"k%d":%d,"n":null},"st":{"x":%d,"y":"%s"},`, i%3, i, i, strings.Repeat("y", i%9))
	if i%5 == 0 {
		b.WriteString(`"deep":null}`)
	} else {
		fmt.Fprintf(&b, `"deep":[{"k":"a","m":{"p":[1.5,%d],"q":[]}},null,{"m":{}}]}`, i)
	}
	return b.String()
}

type fixed struct {
	schema *Schema
	err    error
	calls  int
}

func (f *fixed) Schema(context.Context, Table) (*Schema, error) {
	f.calls++
	return f.schema, f.err
}

func stream() record.Stream {
	return record.Stream{ARN: "arn:aws:firehose:us-east-1:000000000000:deliverystream/s", Name: "s", Account: "000000000000", Region: "us-east-1", Version: 1}
}

func batch(records ...string) *record.Batch {
	list := make([]record.Record, len(records))
	for i, r := range records {
		list[i] = record.Record{Data: []byte(r), Arrival: int64(i), Position: record.Position{Index: uint64(i)}}
	}
	return record.Of(stream(), "00000000000000000000000000000001", list...)
}

var _ = errors.New
var _ = io.Discard
var _ dest.Failure

func TestScratch(t *testing.T) {
	out := os.Getenv("OUT")
	if out == "" {
		t.Skip()
	}
	var rs []string
	for i := range 20000 {
		rs = append(rs, everyRecord(i))
	}
	_ = os.WriteFile(out+"/in.json", []byte(strings.Join(rs, "\n")), 0o644)
	for name, o := range map[string]Options{
		"a.parquet": {Parquet: &parquet.Options{}}, "dict.parquet": {Parquet: &parquet.Options{Dictionary: true, DataPageVersion: 2, Compression: "GZIP", Timestamps: parquet.TimestampMicros, PageBytes: 1 << 16}},
		"a.orc": {ORC: &orc.Options{}}, "b.orc": {ORC: &orc.Options{OldFormat: true, Compression: "ZLIB", DictionaryThreshold: 0.5, RowIndexStride: 1003, BloomColumns: []string{"s", "i64"}}},
		"c.orc": {ORC: &orc.Options{Compression: "NONE", DictionaryThreshold: 1, StripeBytes: 1 << 20, Padding: true, BlockBytes: 3 << 20}},
	} {
		o.Schemas = &fixed{schema: &Schema{Version: "0", Columns: everything}}
		o.Input = serde.Options{}
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		var w bytes.Buffer
		rows, failed, err := c.Convert(context.Background(), batch(rs...), &w)
		if err != nil || len(failed) > 0 || rows != len(rs) {
			t.Fatal(name, rows, err, failed[:min(3, len(failed))])
		}
		if err := os.WriteFile(out+"/"+name, w.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
