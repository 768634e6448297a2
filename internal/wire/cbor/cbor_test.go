package cbor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func at(ms int64) *time.Time { return api.Ptr(time.UnixMilli(ms).UTC()) }

// item builds CBOR by hand for tests: member is a text string and raw items.
func member(name string, items ...string) string {
	return string(append(appendHead(nil, majorText, uint64(len(name))), name...)) + strings.Join(items, "")
}

func text(s string) string { return member(s) }
func blob(s string) string { return string(appendHead(nil, majorBytes, uint64(len(s)))) + s }
func open(items ...string) string {
	return "\xbf" + strings.Join(items, "") + "\xff"
}

func TestReplyBytes(t *testing.T) {
	var out []byte
	add := func(name string, b []byte) { out = fmt.Appendf(out, "%s\n%s", name, hex.Dump(b)) }
	add("PutRecords", Append(nil, &kinesis.PutRecordsOutput{FailedRecordCount: api.Ptr(int32(0)), Records: []kinesis.PutRecordsResultEntry{{ShardId: api.Ptr("shardId-000000000000"), SequenceNumber: api.Ptr("1")}}}))
	add("GetRecords", Append(nil, &kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(0)), Records: []kinesis.Record{
		{Data: []byte{0, 255}, PartitionKey: api.Ptr("é"), SequenceNumber: api.Ptr("1"), ApproximateArrivalTimestamp: at(1717171717123)},
		{SequenceNumber: api.Ptr("2"), ApproximateArrivalTimestamp: at(-1)},
	}}))
	add("tags", Append(nil, &kinesis.AddTagsToStreamInput{Tags: map[string]string{"b": "2", "a": "\xff"}}))
	add("nulls", Append(nil, &kinesisanalytics.DiscoverInputSchemaOutput{ParsedInputRecords: [][]*string{{nil, api.Ptr("a")}}}))
	add("no output", Append(nil, &kinesis.SubscribeToShardOutput{}))
	add("modelled error", AppendError(nil, &kinesis.ResourceNotFoundException{Message: "gone"}))
	add("wrong type", AppendError(nil, api.NewFrontError(api.CodeSerialization, "Expected null")))
	add("malformed", AppendError(nil, api.NewFrontError(api.CodeSerialization, "")))
	path := filepath.Join("testdata", "replies.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, want) {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

// Java clients depend on this form and break on the one of RFC 8949.
func TestTimesAreMillisecondsInAnInteger(t *testing.T) {
	got := Append(nil, &kinesis.GetShardIteratorInput{Timestamp: at(1717171717123)})
	want := open(member("Timestamp", "\xc1\x1b\x00\x00\x01\x8f\xcf\x69\x04\x03"))
	if string(got) != want {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestIntegersAreAsShortAsCanBe(t *testing.T) {
	for n, want := range map[int64]string{0: "00", 23: "17", 24: "1818", 255: "18ff", 256: "190100", 65535: "19ffff", 65536: "1a00010000", 1 << 32: "1b0000000100000000", -1: "20", -25: "3818", math.MinInt64: "3b7fffffffffffffff"} {
		e := encoder{}
		if e.Int64(n); hex.EncodeToString(e.dst) != want {
			t.Errorf("%d: got %x, want %s", n, e.dst, want)
		}
	}
}

func TestUnusualBodiesAreRead(t *testing.T) {
	deep := strings.Repeat("\x81", 62) + "\x80"
	for _, c := range []struct {
		name string
		in   api.Shape
		body string
		want api.Shape
	}{
		{"definite map", new(kinesis.DescribeStreamInput), "\xa1" + member("StreamName", text("s")), &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")}},
		{"self-described", new(kinesis.DescribeStreamInput), "\xd9\xd9\xf7" + open(), &kinesis.DescribeStreamInput{}},
		{"null and undefined are absent", new(kinesis.DescribeStreamInput), open(member("StreamName", "\xf6"), member("Limit", "\xf7")), &kinesis.DescribeStreamInput{}},
		{"unknown members", new(kinesis.DescribeStreamInput), open(member("A", open("\x01\x02", text("x"), "\x9f\xf9\x00\x00\xff")), member("B", deep), member("StreamName", text("s")), member("C", "\xf8\x20")), &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")}},
		{"unknown tags", new(kinesis.DescribeStreamInput), open(member("StreamName", "\xd8\x20\xc0"+text("s")), "\xc5"+member("Limit", "\xc6\x07")), &kinesis.DescribeStreamInput{StreamName: api.Ptr("s"), Limit: api.Ptr(int32(7))}},
		{"the last of repeated members", new(kinesis.DescribeStreamInput), open(member("StreamName", text("a")), member("StreamName", text("b"))), &kinesis.DescribeStreamInput{StreamName: api.Ptr("b")}},
		{"chunked text", new(kinesis.DescribeStreamInput), open("\x7f"+text("Stream")+text("Name")+"\xff", "\x7f"+text("a")+text("")+text("é")+"\xff"), &kinesis.DescribeStreamInput{StreamName: api.Ptr("aé")}},
		{"chunked bytes", new(kinesis.PutRecordInput), open(member("Data", "\x5f"+blob("ab")+blob("c")+"\xff")), &kinesis.PutRecordInput{Data: []byte("abc")}},
		{"no bytes", new(kinesis.PutRecordInput), open(member("Data", "\x40")), &kinesis.PutRecordInput{Data: []byte{}}},
		{"no chunks", new(kinesis.PutRecordInput), open(member("Data", "\x5f\xff")), &kinesis.PutRecordInput{Data: []byte{}}},
		{"bytes that are copied", new(firehose.Record), open(member("Data", blob("x"))), &firehose.Record{Data: []byte("x")}},
		{"half float", new(kinesis.DescribeStreamInput), open(member("Limit", "\xf9\x4a\x00")), &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(12))}},
		{"single float", new(kinesis.DescribeStreamInput), open(member("Limit", "\xfa\x41\x48\xcc\xcd")), &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(12))}},
		{"double float", new(kinesis.DescribeStreamInput), open(member("Limit", "\xfb\xc0\x28\xcc\xcc\xcc\xcc\xcc\xcd")), &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(-12))}},
		{"infinity", new(kinesis.DescribeStreamInput), open(member("Limit", "\xf9\x7c\x00")), &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(math.MaxInt32))}},
		{"not a number", new(kinesis.DescribeStreamInput), open(member("Limit", "\xf9\x7e\x00")), &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(0))}},
		{"largest integer", new(kinesis.GetRecordsOutput), open(member("MillisBehindLatest", "\x1b\xff\xff\xff\xff\xff\xff\xff\xff")), &kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(math.MaxInt64))}},
		{"smallest integer", new(kinesis.GetRecordsOutput), open(member("MillisBehindLatest", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff")), &kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(math.MinInt64))}},
		{"tagged milliseconds", new(kinesis.GetShardIteratorInput), open(member("Timestamp", "\xc1\x1b\x00\x00\x01\x8f\xcf\x69\x04\x03")), &kinesis.GetShardIteratorInput{Timestamp: at(1717171717123)}},
		{"milliseconds without a tag", new(kinesis.GetShardIteratorInput), open(member("Timestamp", "\x1b\x00\x00\x01\x8f\xcf\x69\x04\x03")), &kinesis.GetShardIteratorInput{Timestamp: at(1717171717123)}},
		{"seconds in a float", new(kinesis.GetShardIteratorInput), open(member("Timestamp", "\xc1\xfb\x41\xd9\x96\x78\xa1\x40\x00\x00")), &kinesis.GetShardIteratorInput{Timestamp: at(1717166725000)}},
		{"integer for a double", new(firehose.OrcSerDe), open(member("PaddingTolerance", "\x01")), &firehose.OrcSerDe{PaddingTolerance: api.Ptr(1.0)}},
		{"list", new(kinesis.RemoveTagsFromStreamInput), open(member("TagKeys", "\x82"+text("a")+"\xf6")), &kinesis.RemoveTagsFromStreamInput{TagKeys: []string{"a", ""}}},
		{"map", new(kinesis.AddTagsToStreamInput), open(member("Tags", "\xa1"+text("a")+text("1"))), &kinesis.AddTagsToStreamInput{Tags: map[string]string{"a": "1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Unmarshal([]byte(c.body), c.in); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(c.in, c.want) {
				t.Errorf("got  %+v\nwant %+v", c.in, c.want)
			}
		})
	}
}

func TestHalfFloats(t *testing.T) {
	for h, want := range map[uint16]float64{0: 0, 1: 0x1p-24, 0x3ff: 0x1.ff8p-15, 0x400: 0x1p-14, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0xfc00: math.Inf(-1)} {
		if got := half(h); got != want {
			t.Errorf("%#04x: got %v, want %v", h, got, want)
		}
	}
	if !math.IsNaN(half(0x7e01)) {
		t.Error("0x7e01 is a number")
	}
}

func TestMalformedBodies(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":                 "",
		"JSON":                    `{"StreamName":"a"}`,
		"list":                    "\x80",
		"null":                    "\xf6",
		"text":                    text("a"),
		"break":                   "\xff",
		"tag alone":               "\xc1",
		"unclosed map":            "\xbf",
		"short map":               "\xa1",
		"key alone":               "\xa1" + text("X"),
		"key alone before break":  "\xbf" + text("X") + "\xff",
		"key that is a number":    "\xa1\x01\x02",
		"trailing byte":           "\xa0\x00",
		"text longer than body":   open(member("X", "\x7b\xff\xff\xff\xff\xff\xff\xff\xff")),
		"bytes longer than body":  open(member("Data", "\x5a\xff\xff\xff\xff")),
		"list longer than body":   open(member("X", "\x9b\x7f\xff\xff\xff\xff\xff\xff\xff")),
		"map longer than body":    "\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
		"bad UTF-8":               open(member("X", text("\xff"))),
		"bad UTF-8 in a name":     open(member("\xff", "\x01")),
		"reserved length":         open(member("X", "\x1c")),
		"endless integer":         open(member("X", "\x1f")),
		"endless known integer":   open(member("Limit", "\x1f")),
		"endless tag":             open(member("X", "\xdf\x01")),
		"short head":              open(member("X", "\x19\x01")),
		"chunk of another type":   open(member("X", "\x7f\x41a\xff")),
		"chunk without length":    open(member("X", "\x7f\x7f\xff\xff")),
		"chunks without an end":   open(member("X", "\x7f"+text("a"))),
		"break inside an array":   open(member("X", "\x82\x01\xff")),
		"simple value in 2 bytes": open(member("X", "\xf8\x14")),
		"after a wrong type":      open(member("StreamName", "\x01"), member("X", "\x1c")),
		"too deep":                open(member("X", strings.Repeat("\x81", 64)+"\x80")),
		"far too deep":            open(member("X", strings.Repeat("\x9f", 1_000_000))),
		"deep tags":               open(member("X", strings.Repeat("\xc1", 1_000_000))),
	} {
		for _, in := range []api.Shape{new(kinesis.PutRecordInput), new(kinesis.DescribeStreamInput), new(kinesis.PutRecordsInput)} {
			var bad *api.SyntaxError
			if err := Unmarshal([]byte(body), in); !errors.As(err, &bad) {
				t.Errorf("%s, %T: got %v", name, in, err)
			}
		}
	}
}

func TestWrongTypes(t *testing.T) {
	for _, c := range []struct {
		name string
		in   api.Shape
		body string
		want string
	}{
		{"string from boolean", new(kinesis.DescribeStreamInput), open(member("StreamName", "\xf5")), "class java.lang.Boolean can not be converted to an String"},
		{"string from integer", new(kinesis.DescribeStreamInput), open(member("StreamName", "\x20")), "class java.lang.Long can not be converted to an String"},
		{"string from float", new(kinesis.DescribeStreamInput), open(member("StreamName", "\xf9\x00\x00")), "class java.lang.Double can not be converted to an String"},
		{"string from bytes", new(kinesis.DescribeStreamInput), open(member("StreamName", "\x41a")), "class java.nio.HeapByteBuffer can not be converted to an String"},
		{"string from list", new(kinesis.DescribeStreamInput), open(member("StreamName", "\x80")), "Start of list found where not expected"},
		{"string from map", new(kinesis.DescribeStreamInput), open(member("StreamName", "\xa0")), "Start of structure or map found where not expected."},
		{"integer from text", new(kinesis.DescribeStreamInput), open(member("Limit", text("1"))), "class java.lang.String can not be converted to an Integer"},
		{"long from boolean", new(kinesis.GetRecordsOutput), open(member("MillisBehindLatest", "\xf4")), "class java.lang.Boolean can not be converted to an Long"},
		{"boolean from text", new(kinesis.DeleteStreamInput), open(member("EnforceConsumerDeletion", text("23"))), "'23' can not be converted to an Boolean"},
		{"boolean from integer", new(kinesis.DeleteStreamInput), open(member("EnforceConsumerDeletion", "\x01")), "class java.lang.Long can not be converted to an Boolean"},
		{"timestamp from text", new(kinesis.GetShardIteratorInput), open(member("Timestamp", "\xc0"+text("2024"))), "class java.lang.String can not be converted to milliseconds since epoch"},
		{"blob from text", new(kinesis.PutRecordInput), open(member("Data", text("QUJD"))), "class java.lang.String can not be converted to a Blob"},
		{"list from text", new(kinesis.PutRecordsInput), open(member("Records", text("x"))), "Expected list or null"},
		{"list from map", new(kinesis.PutRecordsInput), open(member("Records", "\xa0")), "Start of structure or map found where not expected."},
		{"map from integer", new(kinesis.AddTagsToStreamInput), open(member("Tags", "\x01")), "Expected map or null"},
		{"structure from boolean", new(kinesis.PutRecordsInput), open(member("Records", "\x81\xf5")), "Expected null"},
		{"the first in reading order", new(kinesis.DescribeStreamInput), open(member("Limit", text("1")), member("StreamName", "\x01")), "class java.lang.String can not be converted to an Integer"},
	} {
		var wrong *api.TypeError
		if err := Unmarshal([]byte(c.body), c.in); !errors.As(err, &wrong) || wrong.Message != c.want {
			t.Errorf("%s\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
}

func TestPutRequestsAreNotCopied(t *testing.T) {
	body := putRecordsBody(3, 1000)
	in := new(kinesis.PutRecordsInput)
	if !scan(body, in) {
		t.Fatal("left to the decoder")
	}
	if n := testing.AllocsPerRun(10, func() { scan(body, in) }); n > 6 {
		t.Errorf("%v allocations", n)
	}
	in.Records[0].Data[0] = 'X'
	if !bytes.Contains(body, in.Records[0].Data) {
		t.Error("data does not point into the body")
	}
}

func TestBoundedAllocation(t *testing.T) {
	for name, body := range map[string]string{
		"records":      open(member("Records", "\x9f"+strings.Repeat("\xa0", 1_000_000)+"\xff")),
		"tags":         open(member("Tags", "\xbf"+strings.Repeat("\x60\x60", 1_000_000)+"\xff")),
		"tag keys":     open(member("TagKeys", "\x9a\x00\x0f\x42\x40"+strings.Repeat("\x60", 1_000_000))),
		"announced":    open(member("TagKeys", "\x9a\x7f\xff\xff\xff")),
		"long strings": open(member("StreamName", "\x7a\x7f\xff\xff\xff")),
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

var seeds = []string{
	open(member("StreamName", text("s")), member("Records", "\x9f", open(member("Data", blob("abc")), member("PartitionKey", text("k"))), "\xa1", member("Data", "\x40"), "\xff")),
	"\xa2" + member("StreamARN", text("a")) + member("Records", "\x81\xa3", member("PartitionKey", text("é")), member("ExplicitHashKey", text("0")), member("Data", blob("x"))),
	open(member("Data", blob("abc")), member("PartitionKey", text("k")), member("StreamName", text("s")), member("SequenceNumberForOrdering", text("1"))),
	open(member("Data", "\x5f"+blob("abc")+"\xff"), member("PartitionKey", "\x7f"+text("k")+"\xff"), member("DryRun", "\xf5")),
	open(member("Records", "\x81\xa2", member("Data", blob("a")), member("Data", blob("b")))),
	open(member("Limit", "\xf9\x4a\x00"), member("Tags", "\xa1"+text("a")+text("1")), member("Timestamp", "\xc1\x1a\x00\x00\x00\x01")),
	open(member("Records", "\x80"), member("MillisBehindLatest", "\x00")),
}

// FuzzScanner holds the scanner against the decoder: equal inputs and errors.
func FuzzScanner(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, in := range []func() api.Shape{
			func() api.Shape { return new(kinesis.PutRecordsInput) },
			func() api.Shape { return new(kinesis.PutRecordInput) },
		} {
			got, want := in(), in()
			gotErr := Unmarshal(bytes.Clone(body), got)
			wantErr := unmarshal(bytes.Clone(body), want)
			if !reflect.DeepEqual(gotErr, wantErr) {
				t.Fatalf("%x: scanner says %v, decoder %v", body, gotErr, wantErr)
			}
			if wantErr == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%x: scanner reads %+v, decoder %+v", body, got, want)
			}
		}
	})
}

// FuzzUnmarshal checks that what was read survives being written and read again.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	shapes := []func() api.Shape{
		func() api.Shape { return new(kinesis.DescribeStreamInput) },
		func() api.Shape { return new(kinesis.AddTagsToStreamInput) },
		func() api.Shape { return new(kinesis.GetShardIteratorInput) },
		func() api.Shape { return new(kinesis.GetRecordsOutput) },
		func() api.Shape { return new(firehose.CreateDeliveryStreamInput) },
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, shape := range shapes {
			v := shape()
			if Unmarshal(bytes.Clone(body), v) != nil {
				continue
			}
			out, again := Append(nil, v), shape()
			if err := Unmarshal(bytes.Clone(out), again); err != nil {
				t.Fatalf("%x: %v", out, err)
			}
			if out2 := Append(nil, again); !bytes.Equal(out, out2) {
				t.Fatalf("%x became %x", out, out2)
			}
		}
	})
}

func putRecordsBody(records, size int) []byte {
	in := &kinesis.PutRecordsInput{StreamName: api.Ptr("orders")}
	for i := range records {
		in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{
			Data: bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4), PartitionKey: api.Ptr(fmt.Sprintf("customer-%06d", i)),
		})
	}
	return Append(nil, in)
}

func BenchmarkPutRecordsInput(b *testing.B) {
	for _, size := range []int{100, 1024} {
		body := putRecordsBody(500, size)
		for _, path := range []struct {
			name string
			read func([]byte, api.Shape) error
		}{{"scanner", Unmarshal}, {"decoder", unmarshal}} {
			b.Run(fmt.Sprintf("size=%dB/records=500/%s", size, path.name), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if err := path.read(body, new(kinesis.PutRecordsInput)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

func BenchmarkGetRecordsOutput(b *testing.B) {
	out := &kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(0))}
	for i := range 1000 {
		out.Records = append(out.Records, kinesis.Record{Data: make([]byte, 1024), PartitionKey: api.Ptr(fmt.Sprint(i)), SequenceNumber: api.Ptr(strings.Repeat("4", 56)), ApproximateArrivalTimestamp: at(1717171717123)})
	}
	buf := Append(nil, out)
	b.SetBytes(1000 * 1024) // of payload
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], out)
	}
}
