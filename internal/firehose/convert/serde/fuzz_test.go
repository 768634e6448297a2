package serde

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"testing"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/convert/column"
)

// objects reads data with the standard library: how many objects it is, and
// whether it is nothing but objects.
func objects(data []byte) (n int, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if err == io.EOF {
			return n, n > 0
		}
		if err != nil {
			return n, false
		}
		if raw[0] != '{' {
			return n, false
		}
		n++
	}
}

const fuzzColumns = "a string; b int; c double; d decimal(20,4); e timestamp; f date; g array<string>; h map<string,string>; i struct<x:string,y:struct<z:array<bigint>>>; j boolean; k binary; l varchar(3)"

// FuzzDecode holds that a record is either rows or an error that leaves nothing
// behind; that what is called malformed JSON is malformed to the standard library
// too; and that a decoder that has seen other records says the same as a new one.
func FuzzDecode(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(c.record), c.options.Dialect == Hive)
	}
	f.Add([]byte(`{"a":"x","b":1,"c":"2.5","d":1.00005,"e":"2020-01-01 00:00:00","f":"2020-1-1","g":["a",1],"h":{"K":"v","k":2},"i":{"y":{"z":[1,null]}},"j":"true","k":"AA==","l":"abcd"}`), false)
	list := fields(f, fuzzColumns)
	f.Fuzz(func(t *testing.T, data []byte, hive bool) {
		o := Options{DotsToUnderscores: true, Keys: map[string]string{"l": "L.1"}}
		if hive {
			o = Options{Dialect: Hive, TimestampFormats: []string{"yyyy-MM-dd'T'HH:mm:ss.SSSZ", "millis"}}
		}
		d, err := New(list, o)
		if err != nil {
			t.Fatal(err)
		}
		b := column.NewBatch(list)
		if _, err := d.Decode([]byte(`{"a":"before","g":["x"],"h":{"k":"v"},"i":{"x":"y"}}`), b); err != nil {
			t.Fatal(err)
		}
		before := showRows(b)
		n, err := d.Decode(data, b)
		for _, c := range b.Columns {
			intact(t, c, 1+n)
		}
		count, valid := objects(data)
		var e *Error
		switch {
		case err == nil:
			if n != count || !valid {
				t.Fatalf("%d rows of what is %d objects (%t) to the standard library", n, count, valid)
			}
		case !errors.As(err, &e):
			t.Fatalf("error %T", err)
		case n != 0 || showRows(b) != before:
			t.Fatal("a failed record left something behind")
		case !utf8.ValidString(e.Message):
			t.Fatalf("the message is not UTF-8: %q", e.Message)
		case e.Code == ParseError && valid && utf8.Valid(data):
			t.Fatalf("%s, but the standard library reads it", e.Message)
		}
		fresh, err2 := New(list, o)
		if err2 != nil {
			t.Fatal(err2)
		}
		other := column.NewBatch(list)
		m, err2 := fresh.Decode(data, other)
		if m != n || (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("%d, %v from a used decoder; %d, %v from a new one", n, err, m, err2)
		}
		b.Truncate(b.Rows)
		all := showRows(b)
		if n > 0 && all != before+" | "+showRows(other) {
			t.Fatalf("%s after %s", all, showRows(other))
		}
	})
}

// FuzzNumber holds that numbers have the value that the standard library finds.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-1.5", "1e22", "123456789012345678901234567890", "9007199254740993", "1e-400", "4.9e-324", "1.7976931348623157e308", "00012", "+5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n number
		size, ok := n.scan([]byte(s))
		if !ok || size != len(s) {
			return
		}
		want, err := parseStandard(s)
		got := n.float()
		if err != nil && !math.IsInf(got, 0) {
			t.Fatalf("%s: %g, the standard library has %v", s, got, err)
		}
		if err == nil && got != want {
			t.Fatalf("%s: %g, the standard library has %g", s, got, want)
		}
		if v, ok := n.int(); ok && !sameInt(s, v) {
			t.Fatalf("%s: %d", s, v)
		}
		if v, ok := n.decimal(38, 4); ok && !sameDecimal(s, v, 4) {
			t.Fatalf("%s: %d %d", s, v.Hi, v.Lo)
		}
	})
}

func FuzzJoda(f *testing.F) {
	for _, p := range []string{"yyyy-MM-dd'T'HH:mm:ss.SSSZZ", "millis", "xxxx-'W'ww-e", "hh:mm a", "EEE, dd MMM yyyy HH:mm:ss z", "yyyyDDD", "CCyy", "''"} {
		f.Add(p, "2020-01-02T03:04:05.678+01:00")
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		j, err := parseJoda(pattern)
		if err != nil {
			return
		}
		j.parse([]byte(text))
	})
}
