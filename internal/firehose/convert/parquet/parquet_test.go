package parquet

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

func fields(t testing.TB, text string) []hive.Field {
	t.Helper()
	var list []hive.Field
	for part := range strings.SplitSeq(text, ";") {
		name, typ, _ := strings.Cut(strings.TrimSpace(part), " ")
		parsed, err := hive.Parse(typ)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, hive.Field{Name: name, Type: parsed})
	}
	return list
}

func write(t testing.TB, list []hive.Field, b *column.Batch, o *Options) *pq.File {
	t.Helper()
	var out bytes.Buffer
	w, err := New(&out, list, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := pq.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestSchema pins names, types and the order of columns: readers go by all three.
func TestSchema(t *testing.T) {
	list := fields(t, "z boolean; i8 tinyint; i16 smallint; i32 int; i64 bigint; f float; d double; dec decimal(20,4); s string; v varchar(5); c char(3); "+
		"bin binary; day date; ts timestamp; list array<int>; m map<string,int>; st struct<y:int,x:string>; deep array<map<date,struct<b:array<double>>>>; a,b int")
	const want = `message hive_schema {
	optional boolean z;
	optional int32 i8 (INT(8,true));
	optional int32 i16 (INT(16,true));
	optional int32 i32 (INT(32,true));
	optional int64 i64 (INT(64,true));
	optional float f;
	optional double d;
	optional fixed_len_byte_array(9) dec (DECIMAL(20,4));
	optional binary s (STRING);
	optional binary v (STRING);
	optional binary c (STRING);
	optional binary bin;
	optional int32 day (DATE);
	optional int96 ts;
	optional group list (LIST) {
		repeated group bag {
			optional int32 array_element (INT(32,true));
		}
	}
	optional group m (MAP) {
		repeated group key_value {
			required binary key (STRING);
			optional int32 value (INT(32,true));
		}
	}
	optional group st {
		optional int32 y (INT(32,true));
		optional binary x (STRING);
	}
	optional group deep (LIST) {
		repeated group bag {
			optional group array_element (MAP) {
				repeated group key_value {
					required int32 key (DATE);
					optional group value {
						optional group b (LIST) {
							repeated group bag {
								optional double array_element;
							}
						}
					}
				}
			}
		}
	}
	optional int32 a,b (INT(32,true));
}`
	f := write(t, list, column.NewBatch(list), &Options{})
	if got := f.Schema().String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	f = write(t, fields(t, "ts timestamp"), column.NewBatch(fields(t, "ts timestamp")), &Options{Timestamps: TimestampMicros})
	if got, want := f.Schema().String(), "message hive_schema {\n\toptional int64 ts (TIMESTAMP(isAdjustedToUTC=false,unit=MICROS));\n}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecimalsHaveTheFewestBytes(t *testing.T) {
	// The widths of the format's first implementation.
	for precision, want := range map[int]int{1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 9: 4, 10: 5, 18: 8, 19: 9, 38: 16} {
		if got := decimalWidth(precision); got != want {
			t.Errorf("%d digits in %d bytes, want %d", precision, got, want)
		}
	}
}

// TestLevels writes every way in which nested values can be null or empty.
func TestLevels(t *testing.T) {
	list := fields(t, "a array<array<int>>; m map<string,struct<x:int>>")
	b := column.NewBatch(list)
	a, m := b.Columns[0], b.Columns[1]
	inner := a.Children[0]
	row := func(elements ...[]any) {
		for _, e := range elements {
			if e == nil {
				inner.AppendNull()
				continue
			}
			for _, v := range e {
				if v == nil {
					inner.Children[0].AppendNull()
				} else {
					inner.Children[0].AppendInt(int64(v.(int)))
				}
			}
			inner.EndList()
		}
		a.EndList()
	}
	a.AppendNull()
	m.AppendNull()
	b.EndRow()
	row()
	m.EndList()
	b.EndRow()
	row(nil, []any{}, []any{nil}, []any{1, 2}, []any{3})
	m.Children[0].AppendBytes([]byte("k"))
	m.Children[1].AppendNull()
	m.Children[0].AppendBytes([]byte("l"))
	m.Children[1].Children[0].AppendNull()
	m.Children[1].EndStruct()
	m.Children[0].AppendBytes([]byte("n"))
	m.Children[1].Children[0].AppendInt(7)
	m.Children[1].EndStruct()
	m.EndList()
	b.EndRow()
	f := write(t, list, b, &Options{})
	var got []string
	for _, c := range f.RowGroups()[0].ColumnChunks() {
		var parts []string
		pages := c.Pages()
		for {
			p, err := pages.ReadPage()
			if err != nil {
				break
			}
			values := make([]pq.Value, p.NumValues())
			if _, err := p.Values().ReadValues(values); err != nil && len(values) == 0 {
				t.Fatal(err)
			}
			for _, v := range values {
				parts = append(parts, fmt.Sprintf("%v@%d/%d", v, v.RepetitionLevel(), v.DefinitionLevel()))
			}
		}
		if err := pages.Close(); err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join(parts, " "))
	}
	want := []string{
		"<null>@0/0 <null>@0/1 <null>@0/2 <null>@1/3 <null>@1/4 1@1/5 2@2/5 3@1/5",
		"<null>@0/0 <null>@0/1 k@0/2 l@1/2 n@1/2",
		"<null>@0/0 <null>@0/1 <null>@0/2 <null>@1/3 7@1/4",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("leaf %d: got %s, want %s", i, got[i], want[i])
		}
	}
}

func TestOptionsReachTheFile(t *testing.T) {
	list := fields(t, "s string; n bigint")
	b := column.NewBatch(list)
	for i := range 50_000 {
		b.Columns[0].AppendBytes([]byte([]string{"one", "another", "a third"}[i%3]))
		b.Columns[1].AppendInt(int64(i) * 7919)
		b.EndRow()
	}
	for name, c := range map[string]struct {
		o       Options
		codec   format.CompressionCodec
		version format.PageType
		first   format.Encoding // of the texts
	}{
		"defaults":     {Options{}, format.Snappy, format.DataPage, format.Plain},
		"gzip":         {Options{Compression: GZIP}, format.Gzip, format.DataPage, format.Plain},
		"uncompressed": {Options{Compression: Uncompressed}, format.Uncompressed, format.DataPage, format.Plain},
		"version 2":    {Options{DataPageVersion: 2}, format.Snappy, format.DataPageV2, format.Plain},
		"dictionary":   {Options{Dictionary: true, PageBytes: 64 << 10}, format.Snappy, format.DataPage, format.RLEDictionary},
	} {
		f := write(t, list, b, &c.o)
		meta := f.Metadata().RowGroups[0].Columns[0].MetaData
		if meta.Codec != c.codec {
			t.Errorf("%s: codec %v", name, meta.Codec)
		}
		found := false
		for _, s := range meta.EncodingStats {
			if s.PageType == c.version && s.Encoding == c.first {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: pages %v", name, meta.EncodingStats)
		}
		// The numbers' dictionary outgrows a page, and the column goes on without.
		if c.o.Dictionary {
			stats := fmt.Sprint(f.Metadata().RowGroups[0].Columns[1].MetaData.EncodingStats)
			if !strings.Contains(stats, "PLAIN") {
				t.Errorf("numbers are %s", stats)
			}
		}
		index, err := f.RowGroups()[0].ColumnChunks()[1].OffsetIndex()
		if err != nil {
			t.Fatal(err)
		}
		if n := index.NumPages(); c.o.PageBytes != 0 && n < 6 {
			t.Errorf("%s: %d pages", name, n)
		}
	}
}

// TestLongValuesAreWrittenOnce holds that statistics do not repeat them.
func TestLongValuesAreWrittenOnce(t *testing.T) {
	list := fields(t, "s string; b array<binary>")
	b := column.NewBatch(list)
	for i := range 20 {
		long := bytes.Repeat([]byte{byte('a' + i)}, 1<<20)
		b.Columns[0].AppendBytes(long)
		b.Columns[1].Children[0].AppendBytes(long)
		b.Columns[1].EndList()
		b.EndRow()
	}
	f := write(t, list, b, &Options{Compression: Uncompressed})
	const want = 40 << 20
	if size := f.Size(); size > want*11/10 {
		t.Errorf("%d bytes for %d", size, want)
	}
	for i, has := range []bool{true, false} {
		if s := f.Metadata().RowGroups[0].Columns[i].MetaData.Statistics; (s.MaxValue != nil) != has {
			t.Errorf("column %d: bounds of %d bytes", i, len(s.MaxValue))
		}
	}
}

// TestRowGroupsAreBounded writes more than a row group may hold.
func TestRowGroupsAreBounded(t *testing.T) {
	list := fields(t, "s string")
	var out bytes.Buffer
	w, err := New(&out, list, &Options{Compression: Uncompressed, BlockBytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	b := column.NewBatch(list)
	for range 1000 {
		b.Columns[0].AppendBytes(bytes.Repeat([]byte("x"), 1000))
		b.EndRow()
	}
	for range 70 {
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := pq.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.RowGroups()); n != 3 || f.NumRows() != 70_000 {
		t.Errorf("%d row groups, %d rows; want 3, 70000", n, f.NumRows())
	}
}
