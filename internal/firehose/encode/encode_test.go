package encode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2/ocf"
	"github.com/klauspost/compress/gzip"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

func batch(id string, texts ...string) *record.Batch {
	var records []record.Record
	for i, text := range texts {
		records = append(records, record.Record{Data: []byte(text), Position: record.Position{Index: uint64(i)}})
	}
	return record.Of(record.Stream{}, id, records...)
}

func converter(t testing.TB, schema, compression string) *Converter {
	t.Helper()
	c := Config{Format: NDJSON, Compression: compression}
	if schema != "" {
		c.Format, c.Schema = Avro, filepath.Join(t.TempDir(), "schema.avsc")
		if err := os.WriteFile(c.Schema, []byte(schema), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func convert(t testing.TB, k *Converter, b *record.Batch) ([]byte, int, []dest.Failure) {
	t.Helper()
	var out bytes.Buffer
	rows, failed, err := k.Convert(t.Context(), b, &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), rows, failed
}

func TestNDJSON(t *testing.T) {
	k := converter(t, "", "")
	out, rows, failed := convert(t, k, batch("1",
		`{"a":1}`, " {\"a\":\r\n 2}\n", `{"a":3}{"a":4} 5`, `{"a":`, ``, "\xff", `{"a":6} x`, `"7"`))
	want := "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":4}\n5\n\"7\"\n"
	if string(out) != want || rows != 6 {
		t.Errorf("%d rows: %s", rows, out)
	}
	var indexes []int
	for _, f := range failed {
		indexes = append(indexes, f.Index)
		if f.Code != codeParse || f.Retry || f.Message == "" {
			t.Errorf("%+v", f)
		}
	}
	if !reflect.DeepEqual(indexes, []int{3, 4, 5, 6}) {
		t.Errorf("failed are %v", indexes)
	}
	if k.Extension() != ".ndjson" || k.ContentEncoding() != "" {
		t.Errorf("%q, %q", k.Extension(), k.ContentEncoding())
	}
}

func TestNDJSONCompressed(t *testing.T) {
	k := converter(t, "", "GZIP")
	out, _, _ := convert(t, k, batch("1", `{"a":1}`))
	again, _, _ := convert(t, k, batch("1", `{"a":1}`))
	if !bytes.Equal(out, again) {
		t.Error("the same batch gave other bytes")
	}
	r, err := gzip.NewReader(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(r); err != nil || text.String() != "{\"a\":1}\n" {
		t.Errorf("%q, %v", text.String(), err)
	}
	if k.Extension() != ".ndjson.gz" || k.ContentEncoding() != "gzip" {
		t.Errorf("%q, %q", k.Extension(), k.ContentEncoding())
	}
}

// read decodes a container file with the library, which knows nothing of how it
// was encoded.
func read(t testing.TB, file []byte) []any {
	t.Helper()
	d, err := ocf.NewDecoder(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var rows []any
	for d.HasNext() {
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, v)
	}
	if err := d.Error(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func field(name, kind string) string {
	return fmt.Sprintf(`{"type":"record","name":"R","fields":[{"name":%q,"type":%s}]}`, name, kind)
}

func TestAvroValues(t *testing.T) {
	day := time.Date(2026, 7, 13, 0, 0, 0, 0, time.UTC)
	at := time.Date(2026, 7, 13, 14, 5, 9, 123e6, time.UTC)
	for _, c := range []struct {
		kind, json string
		want       any // nil: refused
		null       bool
	}{
		{`"boolean"`, `true`, true, false},
		{`"boolean"`, `1`, nil, false},
		{`"int"`, `-2147483648`, -2147483648, false},
		{`"int"`, `2147483648`, nil, false},
		{`"int"`, `1.5`, nil, false},
		{`"int"`, `1e3`, 1000, false},
		{`"int"`, `1e999999999`, nil, false},
		{`"int"`, `"1"`, nil, false},
		{`"long"`, `9223372036854775807`, int64(9223372036854775807), false},
		{`"long"`, `9223372036854775808`, nil, false},
		{`"float"`, `0.5`, float32(0.5), false},
		{`"float"`, `1e39`, nil, false},
		{`"double"`, `-1e300`, -1e300, false},
		{`"string"`, `"añ😀"`, "añ😀", false},
		{`"string"`, `1`, nil, false},
		{`"bytes"`, `"\u0000\u00ffA"`, []byte("\x00\xffA"), false},
		{`"bytes"`, `"Ā"`, nil, false},
		{`{"type":"fixed","name":"F","size":2}`, `"\u0001ÿ"`, [2]byte{1, 255}, false},
		{`{"type":"fixed","name":"F","size":2}`, `"abc"`, nil, false},
		{`{"type":"enum","name":"E","symbols":["A","B"]}`, `"B"`, "B", false},
		{`{"type":"enum","name":"E","symbols":["A","B"]}`, `"C"`, nil, false},
		{`{"type":"enum","name":"E","symbols":["A","B"],"default":"A"}`, `"C"`, "A", false},
		{`{"type":"array","items":"int"}`, `[1,2]`, []any{1, 2}, false},
		{`{"type":"array","items":"int"}`, `[]`, []any{}, false},
		{`{"type":"array","items":"int"}`, `[1,"2"]`, nil, false},
		{`{"type":"map","values":"int"}`, `{"b":2,"a":1}`, map[string]any{"a": 1, "b": 2}, false},
		{`{"type":"map","values":"int"}`, `{"a":null}`, nil, false},
		{`["null","string"]`, `"x"`, "x", false},
		{`["null","string"]`, `{"string":"x"}`, "x", false},
		{`["null","string"]`, `null`, nil, true},
		{`["null","string"]`, `7`, nil, false},
		{`["int","string",{"type":"map","values":"int"}]`, `{"int":7}`, 7, false},
		{`["int","string",{"type":"map","values":"int"}]`, `{"ints":7}`, map[string]any{"ints": 7}, false},
		{`{"type":"int","logicalType":"date"}`, `"2026-07-13"`, day, false},
		{`{"type":"int","logicalType":"date"}`, `"13.7.2026"`, nil, false},
		{`{"type":"int","logicalType":"time-millis"}`, `"14:05:09.123"`, 14*time.Hour + 5*time.Minute + 9*time.Second + 123*time.Millisecond, false},
		{`{"type":"long","logicalType":"timestamp-millis"}`, `"2026-07-13T16:05:09.123+02:00"`, at, false},
		{`{"type":"long","logicalType":"timestamp-millis"}`, `1783951509123`, at, false},
		{`{"type":"long","logicalType":"timestamp-micros"}`, `"2026-07-13T14:05:09.123Z"`, at, false},
		{`{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}`, `-12.34`, big.NewRat(-1234, 100), false},
		{`{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}`, `"128"`, big.NewRat(128, 1), false},
		{`{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}`, `0.001`, nil, false},
		{`{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}`, `10000`, nil, false},
		{`{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}`, `1e999999999`, nil, false},
		{`{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}`, `"1/3"`, nil, false},
		{`{"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":6,"scale":2}`, `-0.01`, big.NewRat(-1, 100), false},
		{`{"type":"record","name":"Inner","fields":[{"name":"x","type":"int"}]}`, `{"x":1,"y":2}`, map[string]any{"x": 1}, false},
		{`{"type":"record","name":"Inner","fields":[{"name":"x","type":"int"}]}`, `{}`, nil, false},
		{`{"type":"record","name":"Inner","fields":[{"name":"x","type":"int","default":7},{"name":"y","type":["null","int"]},{"name":"z","type":"bytes","default":"a"}]}`,
			`{}`, map[string]any{"x": 7, "y": nil, "z": []byte("a")}, false},
		{`{"type":"record","name":"Tree","fields":[{"name":"n","type":"int"},{"name":"below","type":{"type":"array","items":"Tree"}}]}`,
			`{"n":1,"below":[{"n":2,"below":[]}]}`, map[string]any{"n": 1, "below": []any{map[string]any{"n": 2, "below": []any{}}}}, false},
	} {
		t.Run(c.kind+" "+c.json, func(t *testing.T) {
			k := converter(t, field("v", c.kind), "none")
			out, rows, failed := convert(t, k, batch("1", `{"v":`+c.json+`}`))
			if c.want == nil && !c.null {
				if rows != 0 || len(failed) != 1 || failed[0].Code != codeMalformed {
					t.Errorf("%d rows, %+v", rows, failed)
				}
				if !strings.Contains(failed[0].Message, ": v: ") {
					t.Errorf("the message does not name the member: %s", failed[0].Message)
				}
				return
			}
			if len(failed) > 0 || rows != 1 {
				t.Fatalf("%d rows, %+v", rows, failed)
			}
			got := read(t, out)[0].(map[string]any)["v"]
			if d, ok := got.(*big.Rat); ok {
				if d.Cmp(c.want.(*big.Rat)) != 0 {
					t.Errorf("got %v", got)
				}
				return
			}
			// The library shows values of unions by the name of their branch.
			if m, ok := got.(map[string]any); ok && len(m) == 1 && strings.HasPrefix(c.kind, "[") {
				for _, inner := range m {
					got = inner
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

const ticker = `{"type":"record","name":"Ticker","doc":"of the demo","fields":[
 {"name":"TICKER_SYMBOL","type":"string"},{"name":"SECTOR","type":"string"},{"name":"CHANGE","type":"double"},{"name":"PRICE","type":"double"}]}`

func TestAvroFiles(t *testing.T) {
	for _, codec := range []string{"", "none", "deflate", "snappy", "zstandard"} {
		t.Run(codec, func(t *testing.T) {
			k := converter(t, ticker, codec)
			var texts []string
			for i := range 5000 {
				text := fmt.Sprintf(`{"TICKER_SYMBOL":"S%d","SECTOR":"HEALTHCARE","CHANGE":-0.05,"PRICE":%d}`, i, i)
				if i%10 == 9 {
					texts[len(texts)-1] += text // two rows in one record
					continue
				}
				texts = append(texts, text)
			}
			texts = append(texts, `{"TICKER_SYMBOL":"X"}`, `[`, `{"TICKER_SYMBOL":"Y","SECTOR":"","CHANGE":0,"PRICE":0}{`)
			b := batch("1", texts...)
			out, rows, failed := convert(t, k, b)
			if rows != 5000 || len(failed) != 3 {
				t.Fatalf("%d rows, %+v", rows, failed)
			}
			for n, code := range []string{codeMalformed, codeParse, codeParse} {
				if failed[n].Code != code || failed[n].Index != 4500+n {
					t.Errorf("%+v", failed[n])
				}
			}
			got := read(t, out)
			for i, row := range got {
				if m := row.(map[string]any); m["TICKER_SYMBOL"] != fmt.Sprint("S", i) || m["PRICE"] != float64(i) {
					t.Fatalf("row %d is %v", i, m)
				}
			}
			if len(got) != 5000 {
				t.Errorf("read %d rows", len(got))
			}
			if again, _, _ := convert(t, k, b); !bytes.Equal(again, out) {
				t.Error("the same batch gave other bytes")
			}
			if other, _, _ := convert(t, k, batch("2", texts...)); bytes.Equal(other, out) {
				t.Error("another batch has the same sync marker")
			}
			if k.Extension() != ".avro" || k.ContentEncoding() != "" {
				t.Errorf("%q, %q", k.Extension(), k.ContentEncoding())
			}
			if !bytes.Contains(out[:1000], []byte(`"doc":"of the demo"`)) {
				t.Error("the file does not hold the whole schema")
			}
		})
	}
}

func TestBadConfigurations(t *testing.T) {
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{Format: "csv"}, "neither ndjson nor avro"},
		{Config{Format: NDJSON, Schema: "x"}, "has no schema"},
		{Config{Format: NDJSON, Compression: "7z"}, "7z"},
		{Config{Format: Avro}, "needs a schema"},
		{Config{Format: Avro, Schema: "missing"}, "no such file"},
		{Config{Format: Avro, Schema: write("{")}, "not a schema"},
		{Config{Format: Avro, Schema: write(`"string"`)}, "must be a record"},
		{Config{Format: Avro, Schema: write(ticker), Compression: "GZIP"}, "none of none, deflate"},
		{Config{Format: Avro, Schema: write(field("v", `{"type":"bytes","logicalType":"decimal","precision":100000,"scale":2}`))}, "precision"},
	} {
		if _, err := New(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.config, err, c.want)
		}
	}
}

type brokenWriter struct{ after int }

var errWriter = errors.New("the disk is full")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errWriter
	}
	return len(p), nil
}

func TestErrorsThatAreNoRecordsFault(t *testing.T) {
	texts := make([]string, 3000)
	for i := range texts {
		texts[i] = `{"TICKER_SYMBOL":"` + strings.Repeat("x", 100) + `","SECTOR":"","CHANGE":0,"PRICE":0}`
	}
	for _, schema := range []string{"", ticker} {
		k := converter(t, schema, map[bool]string{true: "none"}[schema != ""])
		for _, after := range []int{0, 10_000, 200_000} {
			if _, _, err := k.Convert(t.Context(), batch("1", texts...), &brokenWriter{after}); !errors.Is(err, errWriter) {
				t.Errorf("after %d bytes: %v", after, err)
			}
		}
		unreadable := errors.New("unreadable")
		b := record.NewBatch(func(func(int, *record.Record) error) error { return unreadable })
		if _, _, err := k.Convert(t.Context(), b, &bytes.Buffer{}); !errors.Is(err, unreadable) {
			t.Errorf("unreadable: %v", err)
		}
	}
}

func FuzzAvro(f *testing.F) {
	schema := `{"type":"record","name":"R","fields":[
 {"name":"i","type":["null","int"]},{"name":"d","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":3}]},
 {"name":"t","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},{"name":"m","type":["null",{"type":"map","values":["string","double","R"]}]},
 {"name":"f","type":["null",{"type":"fixed","name":"F","size":4}]},{"name":"a","type":["null",{"type":"array","items":"bytes"}]}]}`
	k := converter(f, schema, "none")
	for _, seed := range []string{`{}`, `{"i":1,"d":"1.5","t":"2026-07-13T14:05:09Z"}`, `{"m":{"a":"b","c":1.5,"r":{"i":2}}}`, `{"f":"abcd","a":["\u00ff"]}`, `{}{}`, `[`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out, rows, failed := convert(t, k, batch("1", string(data)))
		if (rows == 0) != (len(failed) == 1) {
			t.Fatalf("%d rows, %+v", rows, failed)
		}
		if got := read(t, out); len(got) != rows {
			t.Errorf("%d rows were written, %d read", rows, len(got))
		}
		lines := converter(t, "", "")
		text, n, _ := convert(t, lines, batch("1", string(data)))
		if bytes.Count(text, []byte("\n")) != n {
			t.Errorf("%d lines of %q", n, text)
		}
		for line := range bytes.Lines(text) {
			if !json.Valid(line) {
				t.Errorf("%q is not JSON", line)
			}
		}
	})
}

func BenchmarkConvert(b *testing.B) {
	var texts []string
	size := 0
	for i := range 10_000 {
		texts = append(texts, fmt.Sprintf(`{"TICKER_SYMBOL":"S%d","SECTOR":"HEALTHCARE","CHANGE":-0.05,"PRICE":%d.25}`, i, i))
		size += len(texts[i])
	}
	in := batch("1", texts...)
	for _, c := range []struct{ name, schema, compression string }{{"ndjson", "", ""}, {"avro/none", ticker, "none"}, {"avro/snappy", ticker, "snappy"}} {
		k := converter(b, c.schema, c.compression)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := k.Convert(b.Context(), in, &bytes.Buffer{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
