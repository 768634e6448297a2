package iceberg

import (
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/parquet-go/parquet-go"
)

// nested is a type three levels deep.
var nested = &iceberg.StructType{FieldList: []iceberg.NestedField{
	{ID: 10, Name: "a", Type: iceberg.PrimitiveTypes.Int32, Required: true},
	{ID: 11, Name: "m", Type: &iceberg.MapType{KeyID: 12, KeyType: iceberg.PrimitiveTypes.String, ValueID: 13, ValueType: &iceberg.ListType{ElementID: 14, Element: iceberg.PrimitiveTypes.Int64}}},
}}

// TestValues writes JSON into a table and reads it back as Apache's library shows it; an
// empty want is a refusal.
func TestValues(t *testing.T) {
	for _, c := range []struct {
		typ  iceberg.Type
		json string
		want string
	}{
		{iceberg.PrimitiveTypes.Bool, `true`, `true`},
		{iceberg.PrimitiveTypes.Bool, `"false"`, `false`},
		{iceberg.PrimitiveTypes.Bool, `1`, `true`},
		{iceberg.PrimitiveTypes.Bool, `0`, `false`},
		{iceberg.PrimitiveTypes.Bool, `2`, ``},
		{iceberg.PrimitiveTypes.Bool, `"yes"`, ``},
		{iceberg.PrimitiveTypes.Int32, `-7`, `-7`},
		{iceberg.PrimitiveTypes.Int32, `"42"`, `42`},
		{iceberg.PrimitiveTypes.Int32, `1e3`, `1000`},
		{iceberg.PrimitiveTypes.Int32, `2147483648`, ``},
		{iceberg.PrimitiveTypes.Int32, `1.5`, ``},
		{iceberg.PrimitiveTypes.Int32, `"Infinity"`, ``},
		{iceberg.PrimitiveTypes.Int32, `{}`, ``},
		{iceberg.PrimitiveTypes.Int64, `9007199254740993`, `9007199254740993`},
		{iceberg.PrimitiveTypes.Int64, `1e40`, ``},
		{iceberg.PrimitiveTypes.Float32, `"1.25"`, `1.25`},
		{iceberg.PrimitiveTypes.Float64, `-1.5e-3`, `-0.0015`},
		{iceberg.PrimitiveTypes.Float64, `"0x10"`, ``},
		{iceberg.PrimitiveTypes.Float64, `1e999`, ``},
		{iceberg.DecimalTypeOf(9, 2), `12.5`, `"12.5"`},
		{iceberg.DecimalTypeOf(9, 2), `"-0.05"`, `"-0.05"`},
		{iceberg.DecimalTypeOf(4, 2), `12345`, ``},
		{iceberg.PrimitiveTypes.Date, `"2026-07-13"`, `"2026-07-13"`},
		{iceberg.PrimitiveTypes.Date, `0`, `"1970-01-01"`},
		{iceberg.PrimitiveTypes.Date, `"13.07.2026"`, ``},
		{iceberg.PrimitiveTypes.Time, `"14:05:09.123"`, `"14:05:09.123"`},
		{iceberg.PrimitiveTypes.Time, `1000000`, `"00:00:01"`},
		{iceberg.PrimitiveTypes.Time, `86400000000`, ``},
		{iceberg.PrimitiveTypes.Timestamp, `1783951509000001`, `"2026-07-13T14:05:09.000001"`},
		{iceberg.PrimitiveTypes.Timestamp, `"2026-07-13T14:05:09.5"`, `"2026-07-13T14:05:09.5"`},
		{iceberg.PrimitiveTypes.TimestampTz, `"2026-07-13T16:05:09+02:00"`, `"2026-07-13T14:05:09Z"`},
		{iceberg.PrimitiveTypes.TimestampTz, `"yesterday"`, ``},
		{iceberg.PrimitiveTypes.String, `"caf\u00e9"`, `"café"`},
		{iceberg.PrimitiveTypes.String, `12`, `"12"`},
		{iceberg.PrimitiveTypes.String, `{"a":1}`, ``},
		{iceberg.PrimitiveTypes.UUID, `"f79c3e09-677c-4bbd-a479-3f349cb785e7"`, `"f79c3e09-677c-4bbd-a479-3f349cb785e7"`},
		{iceberg.PrimitiveTypes.UUID, `"f79c3e09"`, ``},
		{iceberg.PrimitiveTypes.Binary, `"aGVsbG8="`, `"aGVsbG8="`},
		{iceberg.PrimitiveTypes.Binary, `"aGVs\r\nbG8="`, `"aGVsbG8="`},
		{iceberg.PrimitiveTypes.Binary, `"_-8="`, `"/+8="`},
		{iceberg.PrimitiveTypes.Binary, `"!"`, ``},
		{iceberg.FixedTypeOf(4), `"deadbeef"`, `"3q2+7w=="`},
		{iceberg.FixedTypeOf(4), `"deadbe"`, ``},
		{nested, `{"a":1,"m":{"x":[1,null],"y":null},"z":0}`, `{"a":1,"m":[{"key":"x","value":[1,null]},{"key":"y","value":null}]}`},
		{nested, `"{\"a\":2}"`, `{"a":2,"m":null}`},
		{nested, `{"m":{}}`, ``},
		{nested, `[1]`, ``},
		{nested, `{"a":1,"m":{"x":1}}`, ``},
		{&iceberg.ListType{ElementID: 9, Element: iceberg.PrimitiveTypes.String, ElementRequired: true}, `["a",null]`, ``},
	} {
		t.Run(c.typ.String()+" "+c.json, func(t *testing.T) {
			schema := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "c", Type: c.typ})
			row := make([]any, 1)
			_, err := fields("", schema.Fields(), []byte(`{"c":`+c.json+`}`), row)
			if c.want == "" {
				if err == nil || !strings.HasPrefix(err.Error(), "column c") {
					t.Errorf("got %v, %v", row[0], err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d, _ := lake(t, Config{TableCreation: true}, nil) // makes none by itself
			if err := d.catalog.create(t.Context(), "db", "people", schema, nil); err != nil {
				t.Fatal(err)
			}
			if got := failures(deliver(t, d, batch(0, do{"", `{"c":` + c.json + `}`}, do{"", `{"c":null}`}))); got != "" {
				t.Fatal(got)
			}
			rows := read(t, d, people)
			if len(rows) != 2 || rows[1]["c"] != nil {
				t.Fatalf("rows are %v", rows)
			}
			var want any
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(rows[0]["c"], want) {
				t.Errorf("got %v, want %s", rows[0]["c"], c.want)
			}
		})
	}
}

func FuzzRow(f *testing.F) {
	schema := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "i", Type: iceberg.PrimitiveTypes.Int64},
		iceberg.NestedField{ID: 2, Name: "d", Type: iceberg.DecimalTypeOf(38, 10)},
		iceberg.NestedField{ID: 3, Name: "t", Type: iceberg.PrimitiveTypes.TimestampTz},
		iceberg.NestedField{ID: 4, Name: "b", Type: iceberg.PrimitiveTypes.Binary},
		iceberg.NestedField{ID: 5, Name: "n", Type: nested},
	)
	for _, seed := range []string{`{"i":1,"d":"1.5","t":"2026-07-13T00:00:00Z","b":"AA==","n":{"a":1,"m":{"x":[1]}}}`, `{"n":"{\"a\":1}"}`, `{"d":1e-400}`, `{"":[]}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &change{schema: schema, columns: schema.Fields()}
		row := make([]any, 5)
		if c.row(data, row) != nil {
			return
		}
		var leaves []*node
		root := &node{required: true}
		layout := root.group(c.columns, &leaves)
		w := parquet.NewWriter(io.Discard, parquet.NewSchema("table", layout))
		for i, n := range root.children {
			n.put(row[i], 0, 0)
		}
		for i, column := range w.ColumnWriters() {
			rows, err := column.WriteRowValues(leaves[i].values)
			if err != nil || rows != 1 {
				t.Fatalf("column %d: %d rows, %v", i, rows, err)
			}
			leaves[i].bounds()
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
