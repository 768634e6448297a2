package serde

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// fields reads "name type; name type".
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

// show is a value in a form that tells types apart.
func show(c *column.Column, i int) string {
	if !c.Valid[i] {
		return "null"
	}
	switch c.Type.Kind {
	case hive.Boolean:
		return strconv.FormatBool(c.Ints[i] != 0)
	case hive.Float, hive.Double:
		return strconv.FormatFloat(c.Floats[i], 'g', -1, 64)
	case hive.Decimal:
		v := new(big.Int).Lsh(big.NewInt(c.Decimals[i].Hi), 64)
		v.Add(v, new(big.Int).SetUint64(c.Decimals[i].Lo))
		return fmt.Sprintf("%se-%d", v, c.Type.Scale)
	case hive.String, hive.Char, hive.Varchar:
		return strconv.Quote(string(c.Bytes(i)))
	case hive.Binary:
		return "b" + base64.StdEncoding.EncodeToString(c.Bytes(i))
	case hive.Date:
		return time.Unix(c.Ints[i]*86400, 0).UTC().Format(time.DateOnly)
	case hive.Timestamp:
		return time.Unix(0, c.Ints[i]).UTC().Format("2006-01-02 15:04:05.999999999")
	case hive.Array, hive.Map:
		var parts []string
		for j := c.Start(i); j < c.Ends[i]; j++ {
			s := show(c.Children[0], int(j))
			if c.Type.Kind == hive.Map {
				s += ":" + show(c.Children[1], int(j))
			}
			parts = append(parts, s)
		}
		if c.Type.Kind == hive.Map {
			return "{" + strings.Join(parts, ",") + "}"
		}
		return "[" + strings.Join(parts, ",") + "]"
	case hive.Struct:
		var parts []string
		for j, f := range c.Type.Fields {
			parts = append(parts, f.Name+"="+show(c.Children[j], i))
		}
		return "(" + strings.Join(parts, ",") + ")"
	}
	return strconv.FormatInt(c.Ints[i], 10)
}

func showRows(b *column.Batch) string {
	var rows []string
	for i := range b.Rows {
		var parts []string
		for _, c := range b.Columns {
			parts = append(parts, show(c, i))
		}
		rows = append(rows, strings.Join(parts, " "))
	}
	return strings.Join(rows, " | ")
}

// intact fails unless every buffer of the batch has as many values as its rows
// demand.
func intact(t testing.TB, c *column.Column, n int) {
	t.Helper()
	if c.Len() != n {
		t.Fatalf("%s: %d values, want %d", c.Type, c.Len(), n)
	}
	want := func(what string, got int, used bool) {
		t.Helper()
		if used && got != n || !used && got != 0 {
			t.Fatalf("%s: %d %s for %d values", c.Type, got, what, n)
		}
	}
	k := c.Type.Kind
	want("floats", len(c.Floats), k == hive.Float || k == hive.Double)
	want("decimals", len(c.Decimals), k == hive.Decimal)
	want("ends", len(c.Ends), k.Text() || k == hive.Binary || k == hive.Array || k == hive.Map)
	want("ints", len(c.Ints), k >= hive.Boolean && k <= hive.BigInt || k == hive.Date || k == hive.Timestamp)
	switch k {
	case hive.String, hive.Char, hive.Varchar, hive.Binary:
		if int(c.Start(n)) != len(c.Data) {
			t.Fatalf("%s: %d bytes, the last value ends at %d", c.Type, len(c.Data), c.Start(n))
		}
	case hive.Struct:
		for _, child := range c.Children {
			intact(t, child, n)
		}
	case hive.Array, hive.Map:
		for _, child := range c.Children {
			intact(t, child, int(c.Start(n)))
		}
	}
}

var cases = []struct {
	name    string
	columns string
	options Options
	record  string
	want    string // rows, or an error
}{
	{"plain values", "a boolean; b tinyint; c smallint; d int; e bigint; f float; g double; h string", Options{},
		`{"a":true,"b":-128,"c":32767,"d":-2147483648,"e":9223372036854775807,"f":1.5,"g":-2.25e-3,"h":"x"}`,
		`true -128 32767 -2147483648 9223372036854775807 1.5 -0.00225 "x"`},
	{"missing keys and null are null, unknown keys are skipped", "a int; b string; c array<int>", Options{},
		`{"x":{"y":[1,"]",{"z":null}]},"b":null,"w":-0.5e+3}`, `null null null`},
	{"an empty object is a row of nulls", "a int", Options{}, ` { } `, `null`},
	{"several objects are rows", "a int", Options{}, `{"a":1}{"a":2} {"a":3}` + "\n", `1 | 2 | 3`},
	{"keys are folded", "a int; b struct<c:int>", Options{}, `{"A":1,"B":{"C":2}}`, `1 (c=2)`},
	{"keys of maps are folded", "m map<string,int>", Options{}, `{"m":{"Key":1,"ÄÖ":2}}`, `{"key":1,"äö":2}`},
	{"keys as they are", "a int; b struct<c:int>; m map<string,int>", Options{CaseSensitive: true},
		`{"A":1,"b":{"C":2},"m":{"Key":1}}`, `null (c=null) {"Key":1}`},
	{"keys with escapes", "a int", Options{}, `{"\u0061":1}`, `1`},
	{"the last of equal keys counts", "a int; s struct<b:string,c:int>", Options{}, `{"a":1,"s":{"b":"x","c":1,"b":"yy"},"a":2}`, `2 (b="yy",c=1)`},
	{"the last of equal keys of a map counts", "m map<string,array<int>>; z int", Options{},
		`{"m":{"k":[1,2],"x":[3],"K":[4]},"z":1}`, `{"x":[3],"k":[4]} 1`},
	{"dots", "a_b int; c int", Options{DotsToUnderscores: true}, `{"a.b":1,"c":2}`, `1 2`},
	{"dots stay", "a_b int", Options{}, `{"a.b":1}`, `null`},
	{"other names", "ts int; s struct<ts:int>", Options{Keys: map[string]string{"ts": "TimeStamp"}}, `{"timestamp":1,"s":{"TIMESTAMP":2},"ts":3}`, `1 (ts=2)`},
	{"other names with dots", "a int; b_c int", Options{DotsToUnderscores: true, Keys: map[string]string{"a": "x.y"}}, `{"x.y":1,"b.c":2}`, `1 2`},
	{"other names, case matters", "ts int", Options{CaseSensitive: true, Keys: map[string]string{"ts": "TS"}}, `{"TS":1,"ts":2}`, `1`},

	{"numbers in texts", "a int; b double; c decimal(5,2); d bigint", Options{}, `{"a":"10","b":"2.25","c":"1.005","d":"-7"}`, `10 2.25 101e-2 -7`},
	{"whole numbers with a point", "a int; b bigint", Options{}, `{"a":1.0,"b":12e3}`, `1 12000`},
	{"texts of other values", "a string; b string; c string; d string; e string", Options{},
		`{"a":1.50,"b":true,"c":{"Nested": 1 , "L":[ {"X":null} ]},"d":[1, "A"],"e":-0}`,
		`"1.50" "true" "{\"nested\":1,\"l\":[{\"x\":null}]}" "[1,\"A\"]" "-0"`},
	{"texts with escapes", "a string", Options{}, `{"a":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00\ud83d"}`, `"\"\\/\b\f\n\r\tä😀�"`},
	{"long texts", "a string", Options{}, `{"a":"` + strings.Repeat("0123456789ä", 50) + `"}`, strconv.Quote(strings.Repeat("0123456789ä", 50))},
	{"varchar and char are cut by characters", "a varchar(3); b char(2)", Options{}, `{"a":"äöüß","b":"abc"}`, `"äöü" "ab"`},
	{"booleans in texts", "a boolean; b boolean", Options{}, `{"a":"TRUE","b":"false"}`, `true false`},
	{"binary", "a binary", Options{}, `{"a":"AQID"}`, `bAQID`},
	{"a single value becomes an array", "a array<string>; b array<struct<c:int>>; d array<array<int>>", Options{},
		`{"a":"solo","b":{"c":1},"d":5}`, `["solo"] [(c=1)] [[5]]`},
	{"an array fills a structure", "s struct<a:string,b:int>; t struct<a:string,b:int>", Options{},
		`{"s":["Zoe",9,{"ignored":[]}],"t":["Zoe"]}`, `(a="Zoe",b=9) (a="Zoe",b=null)`},
	{"empty containers are not null", "a array<int>; m map<string,int>; s struct<a:int>", Options{}, `{"a":[],"m":{},"s":{}}`, `[] {} (a=null)`},
	{"nulls in containers", "a array<string>; m map<string,int>; s array<struct<a:int>>", Options{},
		`{"a":["x",null],"m":{"k":null},"s":[null,{}]}`, `["x",null] {"k":null} [null,(a=null)]`},
	{"deep", "a array<map<string,struct<b:int,c:array<decimal(10,2)>>>>", Options{},
		`{"a":[{"x":{"b":1,"c":[1.5,2]},"y":null},{}]}`, `[{"x":(b=1,c=[150e-2,200e-2]),"y":null},{}]`},
	{"maps with other keys", "a map<int,string>; b map<date,int>; c map<boolean,int>; d map<decimal(3,1),int>", Options{},
		`{"a":{"1":"x"},"b":{"2020-01-02":1},"c":{"true":1},"d":{"1.25":2}}`, `{1:"x"} {2020-01-02:1} {true:1} {13e-1:2}`},

	{"decimals are rounded half away from zero", "a decimal(4,2); b decimal(4,2); c decimal(4,2); d decimal", Options{},
		`{"a":12.345,"b":-12.345,"c":1e-9,"d":2.5}`, `1235e-2 -1235e-2 0e-2 3e-0`},
	{"long decimals", "a decimal(38,2); b decimal(38,38); c decimal(22,2)", Options{},
		`{"a":123456789012345678901234567890123456.785,"b":0.12345678901234567890123456789012345678,"c":"12345678901234567890.12"}`,
		`12345678901234567890123456789012345679e-2 12345678901234567890123456789012345678e-38 1234567890123456789012e-2`},
	{"decimals with exponents", "a decimal(22,2); b decimal(22,2); c decimal(38,0); d decimal(5,1)", Options{},
		`{"a":"1e-1000000000","b":"0e1000000000","c":1.5e30,"d":123456789012345678901234567890e-27}`,
		`0e-2 0e-2 1500000000000000000000000000000e-0 1235e-1`},
	{"huge exponents fail quietly", "a decimal(22,2)", Options{}, `{"a":"1e1000000000"}`,
		`MalformedData: Data does not match the schema. Value 1e1000000000 is out of range for type decimal(22,2)`},
	{"decimals out of range", "a decimal(4,2)", Options{}, `{"a":12345.67}`,
		`MalformedData: Data does not match the schema. Value 12345.67 is out of range for type decimal(4,2)`},
	{"rounding out of range", "a decimal(4,2)", Options{}, `{"a":99.995}`,
		`MalformedData: Data does not match the schema. Value 99.995 is out of range for type decimal(4,2)`},

	{"timestamps", "a timestamp; b timestamp; c timestamp; d timestamp; e timestamp; f timestamp; g timestamp", Options{},
		`{"a":"2017-02-07T15:13:01.39256Z","b":"2018-2-7 1:2:3.5","c":1518033528,"d":1518033528123,"e":1518033528.123,"f":"1518033528","g":"2026-09-07T12:00:02+02:00"}`,
		`2017-02-07 15:13:01.39256 2018-02-07 01:02:03.5 2018-02-07 19:58:48 2018-02-07 19:58:48.123 2018-02-07 19:58:48.123 2018-02-07 19:58:48 2026-09-07 10:00:02`},
	{"timestamps at the edges", "a timestamp; b timestamp; c timestamp; d timestamp; e timestamp", Options{},
		`{"a":0,"b":-1000,"c":1000000000000,"d":"1e-1000000000","e":-1.5}`,
		`1970-01-01 00:00:00 1969-12-31 23:43:20 2001-09-09 01:46:40 1970-01-01 00:00:00 1969-12-31 23:59:58.5`},
	{"timestamps out of range wrap", "a timestamp", Options{}, `{"a":999999999999}`, `2092-10-26 00:40:18.684212736`},
	{"ISO timestamps are strict", "a timestamp", Options{}, `{"a":"2026-9-7T12:00:02Z"}`,
		`MalformedData: Data does not match the schema. Timestamp format must be yyyy-mm-dd hh:mm:ss[.fffffffff], found "2026-9-7T12:00:02Z"`},
	{"no such day", "a timestamp", Options{}, `{"a":"2026-02-29 00:00:00"}`,
		`MalformedData: Data does not match the schema. Timestamp format must be yyyy-mm-dd hh:mm:ss[.fffffffff], found "2026-02-29 00:00:00"`},
	{"timestamps beyond 64 bits", "a timestamp", Options{}, `{"a":18446744073709551616}`,
		`MalformedData: Data does not match the schema. For input string: "18446744073709551616"`},
	{"dates", "a date; b date; c date", Options{}, `{"a":"2026-09-07","b":"2026-9-7","c":"1969-12-31"}`, `2026-09-07 2026-09-07 1969-12-31`},
	{"not a date", "a date", Options{}, `{"a":"yesterday"}`, `MalformedData: Data does not match the schema. Date format must be yyyy-[m]m-[d]d, found "yesterday"`},

	{"not a number", "a int", Options{}, `{"a":"oops"}`, `MalformedData: Data does not match the schema. For input string: "oops"`},
	{"an object is no number", "a int", Options{}, `{"a":{"b":1}}`, `MalformedData: Data does not match the schema. For input string: "{\"b\":1}"`},
	{"a fraction is no int", "a int", Options{}, `{"a":1.5}`, `MalformedData: Data does not match the schema. For input string: "1.5"`},
	{"tinyint out of range", "a tinyint", Options{}, `{"a":128}`, `MalformedData: Data does not match the schema. Value out of range. Value:"128" Radix:10`},
	{"int out of range", "a int", Options{}, `{"a":2147483648}`, `MalformedData: Data does not match the schema. For input string: "2147483648"`},
	{"bigint out of range", "a bigint", Options{}, `{"a":9223372036854775808}`, `MalformedData: Data does not match the schema. For input string: "9223372036854775808"`},
	{"smallest bigint", "a bigint", Options{}, `{"a":-9223372036854775808}`, `-9223372036854775808`},
	{"double out of range", "a double", Options{}, `{"a":1e1000}`, `MalformedData: Data does not match the schema. Value 1e1000 is out of range for type double`},
	{"float out of range", "a float", Options{}, `{"a":1e100}`, `MalformedData: Data does not match the schema. Value 1e100 is out of range for type float`},
	{"not a boolean", "a boolean", Options{}, `{"a":"maybe"}`, `MalformedData: Data does not match the schema. For input string: "maybe"`},
	{"a scalar is no structure", "a struct<b:int>", Options{}, `{"a":42}`, `MalformedData: Data does not match the schema. Data is not JSONObject  but java.lang.Long with value 42`},
	{"a text is no structure", "a struct<b:int>", Options{}, `{"a":"x\ty"}`, `MalformedData: Data does not match the schema. Data is not JSONObject  but java.lang.String with value x` + "\ty"},
	{"an array is no map", "a map<string,int>", Options{}, `{"a":[["k",1]]}`, `MalformedData: Data does not match the schema. A map column cannot hold a JSON array.`},
	{"a scalar is no map", "a map<string,int>", Options{}, `{"a":true}`, `MalformedData: Data does not match the schema. Data is not JSONObject  but java.lang.Boolean with value true`},
	{"not base64", "a binary", Options{}, `{"a":"AQ="}`, `MalformedData: Data does not match the schema. A binary value is not base64: base64 data at input byte 3`},
	{"a mismatch deep inside", "a array<struct<b:string,c:int>>; d int", Options{}, `{"d":1,"a":[{"b":"x","c":1},{"b":"y","c":"oops"}]}`,
		`MalformedData: Data does not match the schema. For input string: "oops"`},
	{"one bad object of several fails all", "a int", Options{}, `{"a":1}{"a":"x"}`, `MalformedData: Data does not match the schema. For input string: "x"`},

	{"empty", "a int", Options{}, ``, `MalformedData: The record was empty or contained only whitespace.`},
	{"white space", "a int", Options{}, " \n", `MalformedData: The record was empty or contained only whitespace.`},
	{"primitive", "a int", Options{}, `42`, `MalformedData: The input JSON contained a primitive at the top level. The top level must be an object or array.`},
	{"array", "a int", Options{}, `[{"a":1}]`, `MalformedData: Data does not match the schema. The top level is a JSON array, not an object`},
	{"no JSON", "a int", Options{}, `this is not json`, `ParseError: Encountered malformed JSON. Unexpected character ('h' (code 104)) at offset 1`},
	{"behind the object", "a int", Options{}, `{"a":1} and`, `ParseError: Encountered malformed JSON. Unexpected character ('a' (code 97)) at offset 8`},
	{"cut off", "a int", Options{}, `{"a":1`, `ParseError: Encountered malformed JSON. Unexpected end-of-input at offset 6`},
	{"cut off in a text", "a string", Options{}, `{"a":"x`, `ParseError: Encountered malformed JSON. Unexpected end-of-input at offset 7`},
	{"a comma too many", "a int", Options{}, `{"a":1,}`, `ParseError: Encountered malformed JSON. Unexpected character ('}' (code 125)) at offset 7`},
	{"a leading zero", "a int", Options{}, `{"a":01}`, `ParseError: Encountered malformed JSON. Unexpected character ('1' (code 49)) at offset 6`},
	{"a bare point", "a double", Options{}, `{"a":1.}`, `ParseError: Encountered malformed JSON. Unexpected character ('}' (code 125)) at offset 7`},
	{"a plus", "a int", Options{}, `{"a":+1}`, `ParseError: Encountered malformed JSON. Unexpected character ('+' (code 43)) at offset 5`},
	{"NaN", "a double", Options{}, `{"a":NaN}`, `ParseError: Encountered malformed JSON. Unexpected character ('N' (code 78)) at offset 5`},
	{"a control character", "a string", Options{}, "{\"a\":\"x\x00\"}", `ParseError: Encountered malformed JSON. Illegal character ((CTRL-CHAR, code 0)) at offset 7`},
	{"a bad escape", "a string", Options{}, `{"a":"\x"}`, `ParseError: Encountered malformed JSON. Unexpected character ('x' (code 120)) at offset 7`},
	{"not UTF-8", "a string", Options{}, "{\"a\":\"ab\xff\"}", `ParseError: Encountered malformed JSON. Invalid UTF-8 byte 0xff at offset 8`},
	{"malformed in a value that nobody wants", "a int", Options{}, `{"b":[1,2}}`, `ParseError: Encountered malformed JSON. Unexpected character ('}' (code 125)) at offset 9`},
	{"words", "a boolean", Options{}, `{"a":truely}`, `ParseError: Encountered malformed JSON. Unexpected character ('l' (code 108)) at offset 9`},

	{"hive: what it reads", "id string; tags array<string>; person struct<name:string,age:int>; attrs map<string,int>", Options{Dialect: Hive},
		`{"ID":1.5,"tags":[1,2,null],"PERSON":{"Name":"Dan","extra":1},"attrs":{"MixedKey":7}}`, `"1.5" ["1","2",null] (name="Dan",age=null) {"MixedKey":7}`},
	{"hive: no array", "a array<string>", Options{Dialect: Hive}, `{"a":"solo"}`, `MalformedData: Data does not match the schema. java.io.IOException: Start of Array expected`},
	{"hive: no structure by position", "a struct<b:int>", Options{Dialect: Hive}, `{"a":[1]}`, `MalformedData: Data does not match the schema. java.io.IOException: Start of Object expected`},
	{"hive: no structure", "a struct<b:int>", Options{Dialect: Hive}, `{"a":42}`, `MalformedData: Data does not match the schema. java.io.IOException: Start of Object expected`},
	{"hive: no number in a text", "a int", Options{Dialect: Hive}, `{"a":"7"}`, `MalformedData: Data does not match the schema. Current token (VALUE_STRING) not numeric, can not use numeric value accessors`},
	{"hive: no boolean in a text", "a boolean", Options{Dialect: Hive}, `{"a":"true"}`, `MalformedData: Data does not match the schema. Current token (VALUE_STRING) not of boolean type`},
	{"hive: no object in a text", "a string", Options{Dialect: Hive}, `{"a":{"b":1}}`, `MalformedData: One or more fields have incorrect format. Exception when validating field (root)`},
	{"hive: decimals in texts", "a decimal(4,1)", Options{Dialect: Hive}, `{"a":"7.25"}`, `73e-1`},
	{"hive: timestamps", "a timestamp", Options{Dialect: Hive}, `{"a":"2018-02-07 15:13:01.5"}`, `2018-02-07 15:13:01.5`},
	{"hive: no ISO timestamps", "a timestamp", Options{Dialect: Hive}, `{"a":"2018-02-07T15:13:01Z"}`,
		`MalformedData: Data does not match the schema. Timestamp format must be yyyy-mm-dd hh:mm:ss[.fffffffff], found "2018-02-07T15:13:01Z"`},
	{"hive: formats", "a timestamp; b timestamp; c timestamp", Options{Dialect: Hive, TimestampFormats: []string{"millis", "yyyy-MM-dd'T'HH:mm:ssZ", "dd/MMM/yyyy:HH:mm:ss Z"}},
		`{"a":1518033528123,"b":"2018-02-07T15:13:01+01:00","c":"07/Feb/2018:15:13:01 +0000"}`, `2018-02-07 19:58:48.123 2018-02-07 14:13:01 2018-02-07 15:13:01`},
}

func TestRecords(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			list := fields(t, c.columns)
			d, err := New(list, c.options)
			if err != nil {
				t.Fatal(err)
			}
			// Rows before and after stay what they are, and the second time the keys
			// are known.
			b := column.NewBatch(list)
			for range 2 {
				before := b.Rows
				n, err := d.Decode([]byte(c.record), b)
				got := ""
				if err != nil {
					got = err.Error()
					var e *Error
					if !errors.As(err, &e) || n != 0 || b.Rows != before {
						t.Errorf("%d rows and the error %T", n, err)
					}
				} else {
					if n == 0 || n != b.Rows-before {
						t.Errorf("%d rows of %d", n, b.Rows-before)
					}
					all := strings.Split(showRows(b), " | ")
					got = strings.Join(all[before:], " | ")
				}
				if got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				for _, column := range b.Columns {
					intact(t, column, b.Rows)
				}
				if _, err := d.Decode([]byte(`{}`), b); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestAmplificationIsBounded(t *testing.T) {
	list := fields(t, "a array<struct<a:int,b:int,c:int,d:int,e:int,f:int,g:int,h:int>>")
	d, err := New(list, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := column.NewBatch(list)
	record := `{"a":[` + strings.TrimSuffix(strings.Repeat("{},", maxValues/8+1), ",") + `]}`
	if _, err := d.Decode([]byte(record), b); err == nil || !strings.Contains(err.Error(), "more than 4194304 values") {
		t.Errorf("error %v", err)
	}
}

func TestDepthIsBounded(t *testing.T) {
	list := fields(t, "a string")
	d, err := New(list, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		record := `{"` + key + `":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`
		if _, err := d.Decode([]byte(record), column.NewBatch(list)); err == nil || !strings.Contains(err.Error(), "nests deeper than 1000") {
			t.Errorf("%s: error %v", key, err)
		}
	}
}

func TestKeysAreLearntAgain(t *testing.T) {
	list := fields(t, "a int; b int; c int")
	d, err := New(list, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := column.NewBatch(list)
	for _, record := range []string{
		`{"a":1,"b":2,"c":3}`, `{"c":3,"b":2,"a":1}`, `{"b":2}`, `{"x":0,"ab":0,"a":1,"b":2,"c":3}`, `{"a":1,"b":2,"c":3}`, `{"ab":5}`,
	} {
		if _, err := d.Decode([]byte(record), b); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := showRows(b), "1 2 3 | 1 2 3 | null 2 null | 1 2 3 | 1 2 3 | null null null"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
