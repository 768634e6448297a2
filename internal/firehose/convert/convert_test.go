package convert

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pq "github.com/parquet-go/parquet-go"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
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
	calls  atomic.Int64
}

func (f *fixed) Schema(context.Context, Table) (*Schema, error) {
	f.calls.Add(1)
	return f.schema, f.err
}

func stream() record.Stream {
	return record.Stream{ARN: "arn:aws:firehose:us-east-1:000000000000:deliverystream/s", Name: "s", Account: "000000000000", Region: "us-east-1", Version: 1}
}

type lane struct{}

func (lane) Name() string { return "lane" }

func (lane) SequenceNumber(index uint64, _ int64) string { return fmt.Sprintf("number %d", index) }

func batch(records ...string) *record.Batch {
	list := make([]record.Record, len(records))
	for i, r := range records {
		list[i] = record.Record{Data: []byte(r), Arrival: int64(i), Lane: lane{}, Position: record.Position{Index: uint64(i)}}
	}
	return record.Of(stream(), "00000000000000000000000000000001", list...)
}

// forms are the formats with the options that change most.
func forms() map[string]Options {
	return map[string]Options{
		"plain.parquet": {Parquet: &parquet.Options{}},
		"other.parquet": {Parquet: &parquet.Options{
			Dictionary: true, DataPageVersion: 2, Compression: parquet.GZIP, Timestamps: parquet.TimestampMicros, PageBytes: 64 << 10,
		}},
		"plain.orc":  {ORC: &orc.Options{}},
		"other.orc":  {ORC: &orc.Options{OldFormat: true, Compression: orc.ZLIB, DictionaryThreshold: 0.5, RowIndexStride: 1003, BloomColumns: []string{"s", "i64"}}},
		"blocks.orc": {ORC: &orc.Options{Compression: orc.None, DictionaryThreshold: 1, StripeBytes: 1 << 20, Padding: true, BlockBytes: 3 << 20}},
	}
}

func converter(t testing.TB, o Options, columns ...Column) *Converter {
	t.Helper()
	o.Schemas = &fixed{schema: &Schema{Version: "0", Columns: columns}}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// readParquet reads a file of plain columns back with the library's own reader.
func readParquet(t testing.TB, data []byte) (rows []string, file *pq.File) {
	t.Helper()
	f, err := pq.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]pq.Row, 100)
	for _, group := range f.RowGroups() {
		r := group.Rows()
		for {
			n, err := r.ReadRows(buf)
			for _, row := range buf[:n] {
				rows = append(rows, fmt.Sprintf("%v", row))
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return rows, f
}

func TestRecordsThatDoNotFitFailAlone(t *testing.T) {
	table := Table{Account: "000000000000", Region: "us-east-1", Database: "db", Name: "events", RoleARN: "arn:aws:iam::000000000000:role/r"}
	for name, o := range forms() {
		t.Run(name, func(t *testing.T) {
			o.Table = table
			c := converter(t, o, Column{"a", "int"}, Column{"s", "string"})
			var out bytes.Buffer
			rows, failed, err := c.Convert(t.Context(), batch(`{"a":1,"s":"x"}`, `{"a":"oops"}`, `{"a":2}{"a":3}`, `not json`, `{"a":4}{"a":[1]}`, `{}`), &out)
			if err != nil {
				t.Fatal(err)
			}
			if rows != 4 {
				t.Errorf("%d rows, want 4", rows)
			}
			var got []string
			for _, f := range failed {
				got = append(got, fmt.Sprintf("%d %s %s", f.Index, f.Code, f.Message))
			}
			want := []string{
				`1 DataFormatConversion.MalformedData Data does not match the schema. For input string: "oops"`,
				`3 DataFormatConversion.ParseError Encountered malformed JSON. Unexpected character ('o' (code 111)) at offset 1`,
				`4 DataFormatConversion.MalformedData Data does not match the schema. For input string: "[1]"`,
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			fields := []dest.Field{{Name: "dataCatalogTable", Value: []dest.Field{
				{Name: "catalogId", Value: "000000000000"}, {Name: "databaseName", Value: "db"}, {Name: "tableName", Value: "events"},
				{Name: "region", Value: "us-east-1"}, {Name: "versionId", Value: "LATEST"}, {Name: "roleArn", Value: "arn:aws:iam::000000000000:role/r"},
			}}}
			if !reflect.DeepEqual(failed[0].Fields, fields) {
				t.Errorf("fields %v", failed[0].Fields)
			}
			if strings.HasSuffix(name, "parquet") {
				if got, _ := readParquet(t, out.Bytes()); len(got) != 4 || got[0] != "[1 x]" || got[1] != "[2 <null>]" || got[2] != "[3 <null>]" || got[3] != "[<null> <null>]" {
					t.Errorf("rows %q", got)
				}
			}
		})
	}
}

func TestFailuresNameTheirPlace(t *testing.T) {
	var annotator dest.Annotator = converter(t, Options{ORC: &orc.Options{}}, Column{"a", "int"})
	for _, c := range []struct {
		r    record.Record
		want []dest.Field
	}{
		{record.Record{Lane: lane{}, Position: record.Position{Index: 7}}, []dest.Field{{Name: "sequenceNumber", Value: "number 7"}, {Name: "subSequenceNumber"}}},
		{record.Record{Lane: lane{}, Position: record.Position{Index: 7, Sub: 2}}, []dest.Field{{Name: "sequenceNumber", Value: "number 7"}, {Name: "subSequenceNumber", Value: int64(2)}}},
		{record.Record{}, []dest.Field{{Name: "sequenceNumber"}, {Name: "subSequenceNumber"}}},
	} {
		if got := annotator.FailureFields(&c.r); !reflect.DeepEqual(got, c.want) {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// TestManyFailuresShareWhatTheyCan holds that the messages of many bad records do
// not fill the memory.
func TestManyFailuresShareWhatTheyCan(t *testing.T) {
	c := converter(t, Options{Parquet: &parquet.Options{}}, Column{"a", "int"})
	var records []string
	for i := range maxMessages + 100 {
		records = append(records, fmt.Sprintf(`{"a":"x%d"}`, i))
	}
	records = append(records, `{"a":"x5"}`)
	_, failed, err := c.Convert(t.Context(), batch(records...), io.Discard)
	if err != nil || len(failed) != len(records) {
		t.Fatal(len(failed), err)
	}
	if got, want := failed[maxMessages-1].Message, fmt.Sprintf(`Data does not match the schema. For input string: "x%d"`, maxMessages-1); got != want {
		t.Errorf("the last detailed message: %s", got)
	}
	if got := failed[maxMessages].Message; got != "Data does not match the schema." {
		t.Errorf("beyond: %s", got)
	}
	if got := failed[len(failed)-1].Message; got != `Data does not match the schema. For input string: "x5"` {
		t.Errorf("a message that is there already: %s", got)
	}
}

func TestNothingIsWrittenWithoutRows(t *testing.T) {
	for name, o := range forms() {
		var out bytes.Buffer
		rows, failed, err := converter(t, o, Column{"a", "int"}).Convert(t.Context(), batch(`x`, `{"a":"x"}`), &out)
		if rows != 0 || len(failed) != 2 || err != nil || out.Len() != 0 {
			t.Errorf("%s: %d rows, %d failures, %v, %d bytes", name, rows, len(failed), err, out.Len())
		}
	}
}

func TestTheSchemaIsFollowed(t *testing.T) {
	catalog := &fixed{schema: &Schema{Version: "0", Columns: []Column{{"a", "int"}}}}
	convert := func(c *Converter, record string) (string, []dest.Failure, error) {
		var out bytes.Buffer
		rows, failed, err := c.Convert(t.Context(), batch(record), &out)
		if err != nil || rows == 0 {
			return "", failed, err
		}
		got, _ := readParquet(t, out.Bytes())
		return strings.Join(got, ""), failed, nil
	}
	latest, err := New(Options{Schemas: catalog, Parquet: &parquet.Options{}})
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := New(Options{Schemas: catalog, Parquet: &parquet.Options{}, Table: Table{Version: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, c *Converter, want string) {
		t.Helper()
		if got, failed, err := convert(c, `{"a":1,"b":"x"}`); got != want || len(failed) > 0 || err != nil {
			t.Errorf("%s: %s, %v, %v, want %s", what, got, failed, err, want)
		}
	}
	expect("latest", latest, "[1]")
	expect("pinned", pinned, "[1]")
	catalog.schema = &Schema{Version: "1", Columns: []Column{{"a", "bigint"}, {"b", "string"}}}
	expect("latest, changed", latest, "[1 x]")
	expect("pinned, changed", pinned, "[1]")
	// An update that keeps the version's number is seen as well.
	catalog.schema = &Schema{Version: "1", Columns: []Column{{"b", "string"}}}
	expect("latest, changed in place", latest, "[x]")
	catalog.err = &SchemaError{Code: "EntityNotFound", Message: "Table events not found."}
	expect("the catalog fails", latest, "[x]")
	expect("the catalog fails, pinned", pinned, "[1]")
	before := catalog.calls.Load()
	expect("pinned", pinned, "[1]")
	if catalog.calls.Load() != before {
		t.Error("a pinned schema was read again")
	}

	fresh, err := New(Options{Schemas: catalog, Parquet: &parquet.Options{}})
	if err != nil {
		t.Fatal(err)
	}
	_, failed, err := convert(fresh, `{"a":1}`)
	var fault *dest.Error
	if !errors.As(err, &fault) || fault.Permanent || len(failed) != 0 || fault.Code != "DataFormatConversion.EntityNotFound" ||
		!strings.HasPrefix(fault.Message, "The specified table/database could not be found.") {
		t.Errorf("without a schema: %v, %v", failed, err)
	}
	catalog.err = &SchemaError{Code: "AccessDenied", Message: "no"}
	if _, _, err := convert(fresh, `{"a":1}`); !errors.As(err, &fault) || fault.Code != "DataFormatConversion.AccessDenied" || fault.Message != "no" {
		t.Errorf("access denied: %v", err)
	}
	catalog.err = errors.New("disk on fire")
	if _, _, err := convert(fresh, `{"a":1}`); !errors.As(err, &fault) || fault.Code != "DataFormatConversion.InternalError" || strings.Contains(fault.Message, "fire") {
		t.Errorf("another fault: %v", err)
	}
	catalog.err = nil
	expect("the catalog is back", fresh, "[x]")
}

func TestSchemasThatCannotBeConverted(t *testing.T) {
	for _, c := range []struct {
		columns []Column
		dialect serde.Dialect
		want    string
	}{
		{nil, serde.OpenX, "The schema is invalid. The specified table has no columns."},
		{[]Column{{"a", "int"}, {"b", "set<string>"}}, serde.OpenX, "The schema is invalid. Error parsing the schema: Error: type expected at the position 0 of 'set<string>' but 'set' is found."},
		{[]Column{{"a", "int"}, {"A", "int"}}, serde.OpenX, "The schema is invalid. Error parsing the schema: the column 'A' appears twice."},
		{[]Column{{"a.b", "int"}}, serde.Hive, "The schema is invalid. Error parsing the schema: the column 'a.b' has a dot in its name."},
		{[]Column{{"", "int"}}, serde.OpenX, "The schema is invalid. Error parsing the schema: a column has no name."},
	} {
		conv := converter(t, Options{Parquet: &parquet.Options{}, Input: serde.Options{Dialect: c.dialect}}, c.columns...)
		rows, failed, err := conv.Convert(t.Context(), batch(`{"a":1}`, `{"a":2}`), io.Discard)
		if rows != 0 || err != nil || len(failed) != 2 || failed[1].Index != 1 || failed[0].Code != "DataFormatConversion.InvalidSchema" || failed[0].Message != c.want {
			t.Errorf("%v: %d rows, %v, %v", c.columns, rows, failed, err)
		}
	}
}

func TestTimestampsAreSwitched(t *testing.T) {
	catalog := &fixed{schema: &Schema{Version: "0", Columns: []Column{{"t", "timestamp"}}}}
	c, err := New(Options{Schemas: catalog, Parquet: &parquet.Options{}})
	if err != nil {
		t.Fatal(err)
	}
	for parameter, want := range map[string]string{"": "int96 t", "micros": "int64 t (TIMESTAMP(isAdjustedToUTC=false,unit=MICROS))", "INT96": "int96 t"} {
		catalog.schema.Parameters = map[string]string{TimestampsParameter: parameter}
		var out bytes.Buffer
		if rows, failed, err := c.Convert(t.Context(), batch(`{"t":0}`), &out); rows != 1 || len(failed) > 0 || err != nil {
			t.Fatal(rows, failed, err)
		}
		if _, f := readParquet(t, out.Bytes()); !strings.Contains(f.Schema().String(), "optional "+want+";") {
			t.Errorf("%s: %s", parameter, f.Schema())
		}
	}
	catalog.schema.Parameters = map[string]string{TimestampsParameter: "nanos"}
	_, failed, err := c.Convert(t.Context(), batch(`{"t":0}`), io.Discard)
	if err != nil || len(failed) != 1 || failed[0].Message != "The schema is invalid. The table parameter millrace.parquet.timestamps is neither int96 nor micros." {
		t.Errorf("%v, %v", failed, err)
	}
}

// TestUnusualNames has names that a path or a tag could trip over.
// TestBatchesDoNotShow converts the same records in batches of different sizes:
// what is read back is the same.
func TestBatchesDoNotShow(t *testing.T) {
	var records []string
	for i := range 3000 {
		records = append(records, everyRecord(i))
		if i%100 == 50 {
			records = append(records, "broken", `{"list":["x"]}`)
		}
	}
	for name, o := range forms() {
		var first []string
		var bytesOf []byte
		for _, size := range []int{1 << 20, 1, 5000} {
			o.BatchBytes = size
			var out bytes.Buffer
			rows, failed, err := converter(t, o, everything...).Convert(t.Context(), batch(records...), &out)
			if rows != 3000 || len(failed) != 60 || err != nil {
				t.Fatal(name, rows, len(failed), err)
			}
			if o.ORC != nil {
				// Where ORC begins what it writes depends on rows alone.
				if bytesOf == nil {
					bytesOf = out.Bytes()
				} else if !bytes.Equal(bytesOf, out.Bytes()) {
					t.Errorf("%s: batches of %d bytes make another file", name, size)
				}
				continue
			}
			got, _ := readParquet(t, out.Bytes())
			if first == nil {
				first = got
			} else if !slices.Equal(first, got) {
				t.Errorf("%s: batches of %d bytes make other rows", name, size)
			}
		}
	}
}

func TestUnusualNames(t *testing.T) {
	names := []string{"a.b", "a", "b,c", "order by", "ä", "with`tick", "list", "key_value", "a_b"}
	var columns []Column
	record := "{"
	for i, n := range names {
		columns = append(columns, Column{n, "struct<`" + strings.ReplaceAll(n, "`", "``") + "`:int,x:array<int>>"})
		record += fmt.Sprintf(`%q:{%q:%d,"x":[%d]},`, n, n, i, i)
	}
	record = strings.TrimSuffix(record, ",") + "}"
	for name, o := range forms() {
		var out bytes.Buffer
		rows, failed, err := converter(t, o, columns...).Convert(t.Context(), batch(record), &out)
		if rows != 1 || len(failed) > 0 || err != nil {
			t.Fatal(name, rows, failed, err)
		}
		if strings.HasSuffix(name, "parquet") {
			if got, _ := readParquet(t, out.Bytes()); got[0] != "[0 0 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8]" {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

func TestTablesTooWideAndTypesTooDeep(t *testing.T) {
	deep := strings.Repeat("array<", 32) + "int" + strings.Repeat(">", 32)
	record := `{"a":` + strings.Repeat("[", 32) + "1" + strings.Repeat("]", 32) + "}"
	var wide []Column
	for i := range maxLeaves {
		wide = append(wide, Column{fmt.Sprintf("c%d", i), "int"})
	}
	for name, o := range forms() {
		if rows, failed, err := converter(t, o, Column{"a", deep}).Convert(t.Context(), batch(record), io.Discard); rows != 1 || len(failed) > 0 || err != nil {
			t.Errorf("%s, deep: %d, %v, %v", name, rows, failed, err)
		}
		if rows, failed, err := converter(t, o, wide...).Convert(t.Context(), batch(`{"c7":1}`), io.Discard); rows != 1 || len(failed) > 0 || err != nil {
			t.Errorf("%s, wide: %d, %v, %v", name, rows, failed, err)
		}
		_, failed, err := converter(t, o, append(wide, Column{"more", "int"})...).Convert(t.Context(), batch(`{}`), io.Discard)
		if err != nil || len(failed) != 1 || failed[0].Message != "The schema is invalid. The table has 4097 columns, members included; at most 4096 can be converted." {
			t.Errorf("%s, too wide: %v, %v", name, failed, err)
		}
	}
}

type failing struct{ after int }

var errFull = errors.New("no space")

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestFaultsOfOthersAreErrors(t *testing.T) {
	for name, o := range forms() {
		c := converter(t, o, Column{"a", "int"})
		if _, _, err := c.Convert(t.Context(), batch(`{"a":1}`), &failing{after: 10}); !errors.Is(err, errFull) {
			t.Errorf("%s: a full disk: %v", name, err)
		}
		broken := errors.New("spilled bytes are gone")
		b := record.NewBatch(func(f func(int, *record.Record) error) error {
			if err := f(0, &record.Record{Data: []byte(`{"a":1}`)}); err != nil {
				return err
			}
			return broken
		})
		if _, _, err := c.Convert(t.Context(), b, io.Discard); !errors.Is(err, broken) {
			t.Errorf("%s: a broken batch: %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o.BatchBytes = 1
		if _, _, err := converter(t, o, Column{"a", "int"}).Convert(ctx, batch(`{"a":1}`), io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: ended: %v", name, err)
		}
	}
}

func TestConversionsRunSideBySide(t *testing.T) {
	c := converter(t, Options{Parquet: &parquet.Options{}}, everything...)
	var records []string
	for i := range 500 {
		records = append(records, everyRecord(i))
	}
	var first bytes.Buffer
	if _, _, err := c.Convert(t.Context(), batch(records...), &first); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 3 {
				var out bytes.Buffer
				if rows, failed, err := c.Convert(context.Background(), batch(records...), &out); rows != 500 || len(failed) > 0 || err != nil {
					t.Errorf("%d rows, %v, %v", rows, failed, err)
				}
				if !bytes.Equal(out.Bytes(), first.Bytes()) {
					t.Error("the same batch became another file")
				}
			}
		})
	}
	group.Wait()
}

// TestMemoryIsBounded converts a batch of 128 MiB that is made while it is read,
// and looks at the heap whenever something is written and at its end.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 128 MiB in each format")
	}
	wide := []Column{{"id", "bigint"}}
	for i := range 300 {
		wide = append(wide, Column{fmt.Sprintf("c%d", i), "string"})
	}
	// Noise that comes again too late for a compressor to notice.
	raw := make([]byte, 3<<19)
	r := rand.NewChaCha8([32]byte{9})
	if _, err := r.Read(raw); err != nil {
		t.Fatal(err)
	}
	noise := base64.StdEncoding.EncodeToString(raw)
	for name, o := range forms() {
		for _, shape := range []struct {
			name    string
			columns []Column
			record  func(i int) string
		}{
			{"noise", []Column{{"id", "bigint"}, {"noise", "string"}}, func(i int) string {
				at := i * 1013 % (len(noise) - 1000)
				return fmt.Sprintf(`{"id":%d,"noise":"%s"}`, i, noise[at:at+1000])
			}},
			{"wide", wide, func(i int) string { return fmt.Sprintf(`{"id":%d,"c%d":"a value"}`, i, i%300) }},
		} {
			t.Run(name+"/"+shape.name, func(t *testing.T) {
				size := 128 << 20
				switch {
				case shape.name == "wide":
					size = 1 << 20 // 300 values for every two that are there
				case name != "plain.parquet":
					size = 40 << 20
				}
				c := converter(t, o, shape.columns...)
				var heap runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&heap)
				before, peak, written := heap.HeapAlloc, uint64(0), 0
				look := func() {
					runtime.GC()
					runtime.ReadMemStats(&heap)
					peak = max(peak, heap.HeapAlloc)
				}
				b := record.NewBatch(func(f func(int, *record.Record) error) error {
					for i, n := 0, 0; n < size; i++ {
						r := record.Record{Data: []byte(shape.record(i))}
						if n/(size/32) != (n+len(r.Data))/(size/32) {
							look()
						}
						n += len(r.Data)
						if err := f(i, &r); err != nil {
							return err
						}
					}
					return nil
				})
				_, failed, err := c.Convert(t.Context(), b, writerFunc(func(p []byte) (int, error) {
					written += len(p)
					return len(p), nil
				}))
				if err != nil || len(failed) > 0 {
					t.Fatal(err, failed)
				}
				look()
				const bound = 64 << 20
				if peak-min(peak, before) > bound {
					t.Errorf("the heap grew by %d MiB at most, %d MiB are allowed", (peak-before)>>20, bound>>20)
				}
				t.Logf("%d MiB in, %d MiB out, the heap grew by %d MiB at most", size>>20, written>>20, (peak-min(peak, before))>>20)
			})
		}
	}
}

// TestConversionsSideBySideShareMemory holds that many conversions at once make
// smaller row groups than one alone.
func TestConversionsSideBySideShareMemory(t *testing.T) {
	raw := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(raw); err != nil {
		t.Fatal(err)
	}
	noise := base64.StdEncoding.EncodeToString(raw)
	var records []string
	for i := range 12 {
		records = append(records, fmt.Sprintf(`{"s":"%d%s"}`, i, noise))
	}
	groups := func() int {
		var out bytes.Buffer
		c := converter(t, Options{Parquet: &parquet.Options{Compression: parquet.Uncompressed}}, Column{"s", "string"})
		if _, _, err := c.Convert(t.Context(), batch(records...), &out); err != nil {
			t.Fatal(err)
		}
		_, f := readParquet(t, out.Bytes())
		return len(f.RowGroups())
	}
	if n := groups(); n != 1 {
		t.Errorf("alone: %d row groups of 16 MiB", n)
	}
	active.Add(11)
	defer active.Add(-11)
	if n := groups(); n < 3 {
		t.Errorf("with eleven others: %d row groups", n)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestConfigure(t *testing.T) {
	parquetOut := &firehose.OutputFormatConfiguration{Serializer: &firehose.Serializer{ParquetSerDe: &firehose.ParquetSerDe{
		BlockSizeBytes: api.Ptr(int32(1 << 27)), PageSizeBytes: api.Ptr(int32(1 << 17)), Compression: api.Ptr(firehose.ParquetCompression("GZIP")),
		EnableDictionaryCompression: api.Ptr(true), WriterVersion: api.Ptr(firehose.ParquetWriterVersionV2),
	}}}
	c := &firehose.DataFormatConversionConfiguration{
		SchemaConfiguration: &firehose.SchemaConfiguration{
			RoleARN: api.Ptr("role"), DatabaseName: api.Ptr("DB"), TableName: api.Ptr("T"), CatalogId: api.Ptr("111122223333"), Region: api.Ptr("eu-west-1"), VersionId: api.Ptr("3"),
		},
		InputFormatConfiguration: &firehose.InputFormatConfiguration{Deserializer: &firehose.Deserializer{OpenXJsonSerDe: &firehose.OpenXJsonSerDe{
			CaseInsensitive: api.Ptr(false), ConvertDotsInJsonKeysToUnderscores: api.Ptr(true), ColumnToJsonKeyMappings: map[string]string{"a": "b"},
		}}},
		OutputFormatConfiguration: parquetOut,
	}
	got, err := Configure(c, "000000000000", "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	want := Options{
		Table:   Table{Account: "111122223333", Region: "eu-west-1", Database: "DB", Name: "T", Version: "3", CatalogID: "111122223333", RoleARN: "role"},
		Input:   serde.Options{CaseSensitive: true, DotsToUnderscores: true, Keys: map[string]string{"a": "b"}},
		Parquet: &parquet.Options{BlockBytes: 1 << 27, PageBytes: 1 << 17, Compression: parquet.GZIP, Dictionary: true, DataPageVersion: 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	c.SchemaConfiguration = &firehose.SchemaConfiguration{DatabaseName: api.Ptr("db"), TableName: api.Ptr("t")}
	c.InputFormatConfiguration.Deserializer = &firehose.Deserializer{HiveJsonSerDe: &firehose.HiveJsonSerDe{TimestampFormats: []string{"millis"}}}
	c.OutputFormatConfiguration = &firehose.OutputFormatConfiguration{Serializer: &firehose.Serializer{OrcSerDe: &firehose.OrcSerDe{
		StripeSizeBytes: api.Ptr(int32(1 << 23)), BlockSizeBytes: api.Ptr(int32(1 << 26)), RowIndexStride: api.Ptr(int32(1000)), EnablePadding: api.Ptr(true),
		PaddingTolerance: api.Ptr(0.1), Compression: api.Ptr(firehose.OrcCompression("ZLIB")), BloomFilterColumns: []string{"x"},
		BloomFilterFalsePositiveProbability: api.Ptr(0.01), DictionaryKeyThreshold: api.Ptr(0.5), FormatVersion: api.Ptr(firehose.OrcFormatVersionV0_11),
	}}}
	if got, err = Configure(c, "000000000000", "us-east-1"); err != nil {
		t.Fatal(err)
	}
	want = Options{
		Table: Table{Account: "000000000000", Region: "us-east-1", Database: "db", Name: "t", Version: "LATEST"},
		Input: serde.Options{Dialect: serde.Hive, TimestampFormats: []string{"millis"}},
		ORC: &orc.Options{
			StripeBytes: 1 << 23, BlockBytes: 1 << 26, RowIndexStride: 1000, Compression: orc.ZLIB, Padding: true, PaddingTolerance: api.Ptr(0.1),
			BloomColumns: []string{"x"}, BloomFalsePositives: 0.01, DictionaryThreshold: 0.5, OldFormat: true,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	c.InputFormatConfiguration.Deserializer.HiveJsonSerDe.TimestampFormats = []string{"yyyy-bb"}
	var bad *OptionError
	if _, err := Configure(c, "", ""); !errors.As(err, &bad) || bad.Message != `Invalid deserializer option(s): Illegal pattern component: bb in timestamp format "yyyy-bb"` {
		t.Errorf("error %v", err)
	}
	c.InputFormatConfiguration.Deserializer.OpenXJsonSerDe = &firehose.OpenXJsonSerDe{}
	if _, err := Configure(c, "", ""); !errors.As(err, &bad) || bad.Message != "More than one deserializer specified" {
		t.Errorf("error %v", err)
	}
}
