package awsjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/kinesis"
)

func TestWrongTypesEarnTheServicesTexts(t *testing.T) {
	const (
		boolean = "class java.lang.Boolean"
		text    = "class java.lang.String"
		number  = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
		list    = "Start of list found where not expected"
		mapping = "Start of structure or map found where not expected."
	)
	for _, c := range []struct {
		name string
		in   api.Shape
		body string
		want string
	}{
		{"string from boolean", new(kinesis.DescribeStreamInput), `{"StreamName":true}`, boolean + " can not be converted to an String"},
		{"string from number", new(kinesis.DescribeStreamInput), `{"StreamName":-1.5e3}`, number + " can not be converted to an String"},
		{"string from list", new(kinesis.DescribeStreamInput), `{"StreamName":[]}`, list},
		{"string from structure", new(kinesis.DescribeStreamInput), `{"StreamName":{"a":[1]}}`, mapping},
		{"enumeration from number", new(kinesis.StartStreamEncryptionInput), `{"EncryptionType":1}`, number + " can not be converted to an String"},
		{"integer from string", new(kinesis.DescribeStreamInput), `{"Limit":"1"}`, text + " can not be converted to an Integer"},
		{"integer from boolean", new(kinesis.DescribeStreamInput), `{"Limit":false}`, boolean + " can not be converted to an Integer"},
		{"integer from list", new(kinesis.DescribeStreamInput), `{"Limit":[]}`, list},
		{"long from string", new(kinesis.GetRecordsOutput), `{"MillisBehindLatest":"1"}`, text + " can not be converted to an Long"},
		{"long from boolean", new(kinesis.GetRecordsOutput), `{"MillisBehindLatest":true}`, boolean + " can not be converted to an Long"},
		{"boolean from string", new(kinesis.DeleteStreamInput), `{"EnforceConsumerDeletion":"23"}`, "'23' can not be converted to an Boolean"},
		{"boolean from number", new(kinesis.DeleteStreamInput), `{"EnforceConsumerDeletion":1}`, number + " can not be converted to an Boolean"},
		{"boolean from structure", new(kinesis.DeleteStreamInput), `{"EnforceConsumerDeletion":{}}`, mapping},
		{"timestamp from string", new(kinesis.GetShardIteratorInput), `{"Timestamp":"2024-01-01T00:00:00Z"}`, text + " can not be converted to milliseconds since epoch"},
		{"timestamp from boolean", new(kinesis.GetShardIteratorInput), `{"Timestamp":true}`, boolean + " can not be converted to milliseconds since epoch"},
		{"double from string", new(firehose.OrcSerDe), `{"PaddingTolerance":"1"}`, text + " can not be converted to an Double"},
		{"blob from number", new(kinesis.PutRecordInput), `{"Data":1}`, number + " can not be converted to a Blob"},
		{"blob from boolean", new(kinesis.PutRecordInput), `{"Data":true}`, boolean + " can not be converted to a Blob"},
		{"blob from list", new(kinesis.PutRecordInput), `{"Data":[]}`, list},
		{"blob of bad length", new(kinesis.PutRecordInput), `{"Data":"AAAAA"}`, "'AAAAA' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5"},
		{"blob with a pad inside", new(kinesis.PutRecordInput), `{"Data":"=AAA"}`, "'=AAA' can not be converted to a Blob: Invalid Base64 character: '='"},
		{"blob with another character", new(kinesis.PutRecordInput), `{"Data":"AA_A"}`, "'AA_A' can not be converted to a Blob: Invalid Base64 character: '_'"},
		{"blob with stray bits", new(kinesis.PutRecordInput), `{"Data":"AAF="}`, "'AAF=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"},
		{"blob in a list", new(kinesis.PutRecordsInput), `{"Records":[{"Data":"AAAA"},{"Data":"A"}]}`, "'A' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 1"},
		{"list from string", new(kinesis.PutRecordsInput), `{"Records":"x"}`, "Expected list or null"},
		{"list from boolean", new(kinesis.PutRecordsInput), `{"Records":false}`, "Expected list or null"},
		{"list from structure", new(kinesis.PutRecordsInput), `{"Records":{}}`, mapping},
		{"map from number", new(kinesis.AddTagsToStreamInput), `{"Tags":3}`, "Expected map or null"},
		{"map from list", new(kinesis.AddTagsToStreamInput), `{"Tags":[]}`, list},
		{"map value from number", new(kinesis.AddTagsToStreamInput), `{"Tags":{"a":3}}`, number + " can not be converted to an String"},
		{"structure from string", new(kinesis.SubscribeToShardInput), `{"StartingPosition":"x"}`, "Expected null"},
		{"structure from list", new(kinesis.SubscribeToShardInput), `{"StartingPosition":[]}`, list},
		{"structure in a list from string", new(kinesis.PutRecordsInput), `{"Records":["x"]}`, "Expected null"},
		{"the first in reading order", new(kinesis.DescribeStreamInput), `{"Limit":"1","StreamName":true}`, text + " can not be converted to an Integer"},
		{"before a later null", new(kinesis.DescribeStreamInput), `{"Limit":"1","Limit":null}`, text + " can not be converted to an Integer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Unmarshal([]byte(c.body), c.in)
			var wrong *api.TypeError
			if !errors.As(err, &wrong) || wrong.Message != c.want {
				t.Errorf("%s\ngot  %v\nwant %s", c.body, err, c.want)
			}
		})
	}
}

func TestMalformedBodies(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":                    ``,
		"space":                      ` `,
		"null":                       `null`,
		"list":                       `[]`,
		"string":                     `"x"`,
		"number":                     `12`,
		"byte-order mark":            "\ufeff{}",
		"trailing text":              `{}x`,
		"second object":              `{}{}`,
		"gzip":                       "\x1f\x8b\x08\x00",
		"CBOR":                       "\xbf\xff",
		"unclosed object":            `{`,
		"unclosed string":            `{"StreamName":"a`,
		"unclosed list":              `{"X":[1`,
		"no value":                   `{"StreamName":}`,
		"no colon":                   `{"StreamName" "a"}`,
		"no comma":                   `{"StreamName":"a" "Limit":1}`,
		"trailing comma":             `{"StreamName":"a",}`,
		"trailing comma in a list":   `{"X":[1,]}`,
		"leading comma":              `{,"StreamName":"a"}`,
		"bare name":                  `{StreamName:"a"}`,
		"single quotes":              `{'StreamName':'a'}`,
		"mismatched brackets":        `{"X":[}]}`,
		"wrong literal":              `{"X":nul}`,
		"longer literal":             `{"X":nullx}`,
		"number with a leading zero": `{"X":01}`,
		"number with a plus":         `{"X":+1}`,
		"number without digits":      `{"X":-}`,
		"fraction without digits":    `{"X":1.}`,
		"exponent without digits":    `{"Limit":1e}`,
		"not a number":               `{"X":NaN}`,
		"unknown escape":             `{"X":"\x"}`,
		"short escape":               `{"X":"\u12"}`,
		"control character":          "{\"X\":\"a\nb\"}",
		"control character in data":  "{\"Data\":\"QUJD\nAAAA\"}",
		"bad UTF-8":                  "{\"X\":\"\xff\"}",
		"overlong UTF-8":             "{\"StreamName\":\"\xc0\x80\"}",
		"surrogate in UTF-8":         "{\"StreamName\":\"\xed\xa0\x80\"}",
		"after a wrong type":         `{"StreamName":1,"X":}`,
		"after a bad blob":           `{"Data":"A","X":}`,
		"too deep":                   `{"X":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`,
		"far too deep":               `{"X":` + strings.Repeat(`{"a":`, 1_000_000),
		"comment":                    `{/* */}`,
	} {
		for _, in := range []api.Shape{new(kinesis.PutRecordInput), new(kinesis.DescribeStreamInput), new(kinesis.PutRecordsInput)} {
			var bad *api.SyntaxError
			if err := Unmarshal([]byte(body), in); !errors.As(err, &bad) {
				t.Errorf("%s, %T: got %v", name, in, err)
			}
		}
	}
}

func TestUnusualBodiesAreRead(t *testing.T) {
	deep := strings.Repeat("[", 63) + strings.Repeat("]", 63)
	for _, c := range []struct {
		name string
		in   api.Shape
		body string
		want api.Shape
	}{
		{"empty", new(kinesis.DescribeStreamInput), " {\r\n\t} ", &kinesis.DescribeStreamInput{}},
		{"null is absent", new(kinesis.DescribeStreamInput), `{"StreamName":null,"Limit":null,"Unknown":null}`, &kinesis.DescribeStreamInput{}},
		{"unknown members", new(kinesis.DescribeStreamInput), `{"A":{"b":[1,2.5e-3,true,null,{"c":"\ud83d\ude00"}]},"streamName":"no","StreamName":"s","Z":` + deep + `}`, &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")}},
		{"the last of repeated members", new(kinesis.DescribeStreamInput), `{"StreamName":"a","StreamName":"b"}`, &kinesis.DescribeStreamInput{StreamName: api.Ptr("b")}},
		{"a repeated list starts again", new(kinesis.RemoveTagsFromStreamInput), `{"TagKeys":["a","b"],"TagKeys":["c"]}`, &kinesis.RemoveTagsFromStreamInput{TagKeys: []string{"c"}}},
		{"null after a value", new(kinesis.RemoveTagsFromStreamInput), `{"TagKeys":["a"],"TagKeys":null}`, &kinesis.RemoveTagsFromStreamInput{}},
		{"empty list", new(kinesis.RemoveTagsFromStreamInput), `{"TagKeys":[]}`, &kinesis.RemoveTagsFromStreamInput{TagKeys: []string{}}},
		{"null in a list", new(kinesis.RemoveTagsFromStreamInput), `{"TagKeys":[null]}`, &kinesis.RemoveTagsFromStreamInput{TagKeys: []string{""}}},
		{"escaped names", new(kinesis.DescribeStreamInput), `{"\u0053treamName":"\u0061\/\b\f\n\r\t\"\\"}`, &kinesis.DescribeStreamInput{StreamName: api.Ptr("a/\b\f\n\r\t\"\\")}},
		{"surrogate pair", new(kinesis.DescribeStreamInput), `{"StreamName":"\ud83d\ude00é"}`, &kinesis.DescribeStreamInput{StreamName: api.Ptr("😀é")}},
		{"half a surrogate pair", new(kinesis.DescribeStreamInput), `{"StreamName":"\ud83dx\ude00\ud83d\u0041"}`, &kinesis.DescribeStreamInput{StreamName: api.Ptr("\ufffdx\ufffd\ufffdA")}},
		{"fraction dropped", new(kinesis.DescribeStreamInput), `{"Limit":5.99}`, &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(5))}},
		{"negative fraction dropped", new(kinesis.DescribeStreamInput), `{"Limit":-5.99}`, &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(-5))}},
		{"exponent", new(kinesis.DescribeStreamInput), `{"Limit":1.5E1}`, &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(15))}},
		{"clamped", new(kinesis.DescribeStreamInput), `{"Limit":1e12}`, &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(math.MaxInt32))}},
		{"clamped below", new(kinesis.DescribeStreamInput), `{"Limit":-99999999999999999999999}`, &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(math.MinInt32))}},
		{"clamped beyond floats", new(kinesis.DescribeStreamInput), `{"Limit":1e999}`, &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(math.MaxInt32))}},
		{"long with a fraction stays exact", new(kinesis.GetRecordsOutput), `{"MillisBehindLatest":9007199254740993.9}`, &kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(9007199254740993))}},
		{"empty blob", new(kinesis.PutRecordInput), `{"Data":"","Unknown":1}`, &kinesis.PutRecordInput{Data: []byte{}}},
		{"escaped blob", new(kinesis.PutRecordInput), `{"Data":"\/\u002b8="}`, &kinesis.PutRecordInput{Data: []byte{0xff, 0xef}}},
		{"map", new(kinesis.AddTagsToStreamInput), `{"Tags":{"a":"1","b":"","a":"2"}}`, &kinesis.AddTagsToStreamInput{Tags: map[string]string{"a": "2", "b": ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Unmarshal([]byte(c.body), c.in); err != nil {
				t.Fatalf("%s: %v", c.body, err)
			}
			if !reflect.DeepEqual(c.in, c.want) {
				t.Errorf("%s\ngot  %s\nwant %s", c.body, Append(nil, c.in), Append(nil, c.want))
			}
		})
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64 // milliseconds
		out  string
	}{
		{"0", 0, "0"},
		{"1717171717", 1717171717000, "1717171717"},
		{"1717171717.123", 1717171717123, "1717171717.123"},
		{"1717171717.1239999", 1717171717123, "1717171717.123"},
		{"1717171717.1", 1717171717100, "1717171717.1"},
		{"1717171717.05", 1717171717050, "1717171717.05"},
		{"1.717171717123E9", 1717171717123, "1717171717.123"},
		{"1717171717e0", 1717171717000, "1717171717"},
		{"1717171717.1234e0", 1717171717123, "1717171717.123"},
		{"-1.5", -1500, "-1.5"},
		{"-0.001", -1, "-0.001"},
		{"1e300", 1 << 53, "9007199254740.992"},
		{"-123456789012345678901234567890", -(1 << 53), "-9007199254740.992"},
		{"99999999999999999", 1 << 53, "9007199254740.992"},
	} {
		var in kinesis.GetShardIteratorInput
		if err := Unmarshal([]byte(`{"Timestamp":`+c.text+`}`), &in); err != nil || in.Timestamp == nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := in.Timestamp.UnixMilli(); got != c.want {
			t.Errorf("%s: got %d ms, want %d", c.text, got, c.want)
		}
		if got := string(Append(nil, &in)); got != `{"Timestamp":`+c.out+`}` {
			t.Errorf("%s: written as %s", c.text, got)
		}
	}
}

// What owns its memory must not change when the body's buffer is used again.
func TestOnlyMarkedInputsAlias(t *testing.T) {
	body := []byte(`{"StreamName":"stream","Tags":{"key":"value"}}`)
	var in kinesis.AddTagsToStreamInput
	if err := Unmarshal(body, &in); err != nil {
		t.Fatal(err)
	}
	clear(body)
	if *in.StreamName != "stream" || in.Tags["key"] != "value" {
		t.Errorf("changed to %q %v", *in.StreamName, in.Tags)
	}
}

// A small body must not make a large structure, however it is put together.
func TestBoundedAllocation(t *testing.T) {
	for name, body := range map[string]string{
		"empty records": `{"Records":[` + strings.Repeat("{},", 100_000) + `{}]}`,
		"empty tags":    `{"Tags":{` + strings.Repeat(`"":"",`, 100_000) + `"":""}}`,
		"too many":      `{"TagKeys":[` + strings.Repeat(`"",`, 1_000_000) + `""]}`,
		"repeated":      `{` + strings.Repeat(`"TagKeys":[],`, 100_000) + `"TagKeys":[]}`,
	} {
		for _, in := range []api.Shape{new(kinesis.PutRecordsInput), new(kinesis.AddTagsToStreamInput), new(kinesis.RemoveTagsFromStreamInput)} {
			b := []byte(body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_ = Unmarshal(b, in) // only its appetite matters
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
				t.Errorf("%s, %T: %d bytes allocated for %d", name, in, took, len(body))
			}
		}
	}
}

// FuzzUnmarshal holds the decoder against the standard library's idea of syntax
// and checks that what was read survives being written and read again.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range append(scanSeeds,
		`{"StreamName":"\u00e9\ud83d\ude00","Limit":1e3,"X":[1,{"a":null}]}`,
		`{"Tags":{"a":"b"},"TagKeys":["x"],"Timestamp":1717171717.123,"StartingPosition":{"Type":"LATEST"}}`,
		`{"StreamName":1,"Limit":"x","Tags":[]}`,
	) {
		f.Add([]byte(s))
	}
	shapes := []func() api.Shape{
		func() api.Shape { return new(kinesis.DescribeStreamInput) },
		func() api.Shape { return new(kinesis.AddTagsToStreamInput) },
		func() api.Shape { return new(kinesis.SubscribeToShardInput) },
		func() api.Shape { return new(kinesis.GetRecordsOutput) },
		func() api.Shape { return new(kinesis.CreateChannelInput) },
		func() api.Shape { return new(firehose.CreateDeliveryStreamInput) },
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, shape := range shapes {
			v := shape()
			err := Unmarshal(bytes.Clone(body), v)
			var bad *api.SyntaxError
			var object map[string]json.RawMessage
			valid := json.Valid(body) && json.Unmarshal(body, &object) == nil && object != nil
			if !valid && !errors.As(err, &bad) {
				t.Fatalf("%q is no object, got %v", body, err)
			}
			if err != nil {
				continue
			}
			var val api.Validator
			v.Validate(&val)
			if val.Failures() > 10 {
				t.Fatalf("%d failures", val.Failures())
			}
			out := Append(nil, v)
			if !json.Valid(out) {
				t.Fatalf("%q became %q", body, out)
			}
			again := shape()
			if err := Unmarshal(bytes.Clone(out), again); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			if out2 := Append(nil, again); !bytes.Equal(out, out2) {
				t.Fatalf("%q became %q", out, out2)
			}
		}
	})
}
