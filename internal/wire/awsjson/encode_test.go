package awsjson

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func at(ms int64) *time.Time { return api.Ptr(time.UnixMilli(ms).UTC()) }

// The replies of the operations that clients lean on most.
func TestReplyBytes(t *testing.T) {
	var out []byte
	for _, v := range []api.Shape{
		&kinesis.PutRecordsOutput{FailedRecordCount: api.Ptr(int32(1)), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), Records: []kinesis.PutRecordsResultEntry{
			{ShardId: api.Ptr("shardId-000000000000"), SequenceNumber: api.Ptr("49600000000000000000000000000000000000000000000000000001")},
			{ErrorCode: api.Ptr("InternalFailure"), ErrorMessage: api.Ptr("Internal service failure.")},
			{},
		}},
		&kinesis.PutRecordsOutput{},
		&kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(0)), NextShardIterator: api.Ptr("AAAA"), Records: []kinesis.Record{
			{Data: []byte("<a&b>"), PartitionKey: api.Ptr("k\"\\\n\x01é"), SequenceNumber: api.Ptr("1"), ApproximateArrivalTimestamp: at(1717171717123)},
			{PartitionKey: api.Ptr(""), SequenceNumber: api.Ptr("2"), ApproximateArrivalTimestamp: at(1717171717100), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms)},
		}},
		&kinesis.GetRecordsOutput{MillisBehindLatest: api.Ptr(int64(5)), ChildShards: []kinesis.ChildShard{
			{ShardId: api.Ptr("shardId-000000000001"), ParentShards: []string{"shardId-000000000000"}, HashKeyRange: &kinesis.HashKeyRange{StartingHashKey: api.Ptr("0"), EndingHashKey: api.Ptr("1")}},
			{ShardId: api.Ptr("shardId-000000000002")},
		}},
		&kinesis.SubscribeToShardEvent{ContinuationSequenceNumber: api.Ptr("3"), MillisBehindLatest: api.Ptr(int64(0))},
		&kinesis.DescribeStreamOutput{StreamDescription: &kinesis.StreamDescription{
			StreamName: api.Ptr("s"), StreamStatus: api.Ptr(kinesis.StreamStatusActive), HasMoreShards: api.Ptr(false),
			StreamCreationTimestamp: at(1717171717000), EnhancedMonitoring: []kinesis.EnhancedMetrics{{ShardLevelMetrics: []kinesis.MetricsName{}}},
		}},
		&kinesis.ListStreamsOutput{StreamNames: []string{"a", "b"}, HasMoreStreams: api.Ptr(true)},
		&kinesis.AddTagsToStreamInput{Tags: map[string]string{"b": "2", "a": "1", "": ""}},
		&kinesis.SubscribeToShardOutput{},
		&kinesis.DescribeLimitsInput{},
		&kinesisanalytics.DiscoverInputSchemaOutput{ParsedInputRecords: [][]*string{{nil, api.Ptr("a"), nil}, {}}},
		&firehose.OrcSerDe{PaddingTolerance: api.Ptr(0.05)},
	} {
		out = Append(out, v)
		out = append(out, '\n')
	}
	for _, err := range []api.Error{
		&kinesis.ResourceNotFoundException{Message: "Stream s under account 000000000000 not found."},
		&kinesis.ResourceNotFoundException{},
		api.NewFrontError(api.CodeSerialization, "Expected null"),
		api.NewFrontError(api.CodeSerialization, ""),
		api.NewFrontError(api.CodeUnknownOperation, ""),
		api.NewFrontError(api.CodeMissingAuthentication, "Missing Authentication Token"),
	} {
		out = AppendError(out, err)
		out = append(out, '\n')
	}
	golden(t, "replies.jsonl", out)
	for line := range bytes.Lines(out) {
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update to rewrite)\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestStringsAndNumbers(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", `""`}, {"<&>\u2028", "\"<&>\u2028\""}, {"\x7f", "\"\x7f\""}, {"\b\f\n\r\t\x00\x1f", `"\b\f\n\r\t\u0000\u001f"`},
		{"a\xffb\xc3", "\"a\ufffdb\ufffd\""}, {"\ufffd😀", "\"\ufffd😀\""},
	} {
		if got := string(appendString(nil, c.in)); got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
	// Every character at every place of a word.
	for i := range 9 {
		for c := range 256 {
			b := []byte("abcdefghi")
			b[i] = byte(c)
			want := c >= 0x20 && c < 0x80 && c != '"' && c != '\\'
			if got := bare(string(b)); got != want {
				t.Errorf("%q: bare is %v", b, got)
			}
			if got := simple(b[:9]); got != (c >= 0x20 && c < 0x80 && c != '\\') {
				t.Errorf("%q: simple is %v", b, got)
			}
		}
	}
	for _, c := range []struct {
		in   float64
		want string
	}{{0, "0"}, {0.05, "0.05"}, {1e21, "1e+21"}, {1e-7, "1e-07"}, {-2.5, "-2.5"}, {math.NaN(), `"NaN"`}, {math.Inf(1), `"Infinity"`}, {math.Inf(-1), `"-Infinity"`}} {
		e := encoder{}
		e.Float64(c.in)
		if string(e.dst) != c.want {
			t.Errorf("%v: got %s, want %s", c.in, e.dst, c.want)
		}
	}
}

// The encoders of the hot outputs against the generated one, on random values
// with every subset of members.
func TestHotEncodersAgreeWithTheGeneratedOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	text := func() *string {
		if rng.IntN(4) == 0 {
			return nil
		}
		b := make([]byte, rng.IntN(40))
		for i := range b {
			b[i] = byte(rng.IntN(256))
		}
		return api.Ptr(string(b))
	}
	long := func() *int64 {
		if rng.IntN(4) == 0 {
			return nil
		}
		return api.Ptr(rng.Int64N(1e6))
	}
	records := func() (out []kinesis.Record) {
		if rng.IntN(5) == 0 {
			return nil
		}
		for range rng.IntN(6) {
			r := kinesis.Record{PartitionKey: text(), SequenceNumber: text()}
			if rng.IntN(4) > 0 {
				r.Data = []byte(api.Val(text()))
			}
			if rng.IntN(4) > 0 {
				r.ApproximateArrivalTimestamp = at(rng.Int64N(2e12) - 1000)
			}
			if rng.IntN(3) == 0 {
				r.EncryptionType = api.Ptr(kinesis.EncryptionTypeKms)
			}
			out = append(out, r)
		}
		return out
	}
	children := func() (out []kinesis.ChildShard) {
		for range rng.IntN(3) {
			out = append(out, kinesis.ChildShard{ShardId: text(), ParentShards: []string{"a"}})
		}
		return out
	}
	for range 3000 {
		put := &kinesis.PutRecordsOutput{}
		if n := long(); n != nil {
			put.FailedRecordCount = api.Ptr(int32(*n))
		}
		for range rng.IntN(5) {
			put.Records = append(put.Records, kinesis.PutRecordsResultEntry{ShardId: text(), SequenceNumber: text(), ErrorCode: text(), ErrorMessage: text()})
		}
		if rng.IntN(2) == 0 {
			put.EncryptionType = api.Ptr(kinesis.EncryptionTypeKms)
		}
		for _, v := range []api.Shape{
			put,
			&kinesis.PutRecordOutput{ShardId: text(), SequenceNumber: text(), EncryptionType: put.EncryptionType},
			&kinesis.GetRecordsOutput{Records: records(), NextShardIterator: text(), MillisBehindLatest: long(), ChildShards: children()},
			&kinesis.SubscribeToShardEvent{Records: records(), ContinuationSequenceNumber: text(), MillisBehindLatest: long(), ChildShards: children()},
		} {
			got, want := Append([]byte("x"), v), appendShape([]byte("x"), v)
			if !bytes.Equal(got, want) {
				t.Fatalf("%T\ngot  %s\nwant %s", v, got, want)
			}
		}
	}
}

// The size worked out beforehand is enough, so that dst grows once.
func TestHotEncodersGrowOnce(t *testing.T) {
	get := getRecordsOutput(1000, 1000)
	for i := range get.Records {
		get.Records[i].EncryptionType = api.Ptr(kinesis.EncryptionTypeKms)
	}
	if size, need := recordsSize(get.Records)+128, len(Append(nil, get))-len(*get.NextShardIterator); size < need || size > need*11/10 {
		t.Errorf("GetRecords: %d bytes foreseen, %d written", size, need)
	}
	put := putRecordsOutput(500)
	for i := range put.Records {
		put.Records[i].ErrorCode, put.Records[i].ErrorMessage = api.Ptr("c"), api.Ptr("m") // all members at once
	}
	if size, need := putRecordsSize(put), len(Append(nil, put)); size < need || size > need*13/10 {
		t.Errorf("PutRecords: %d bytes foreseen, %d written", size, need)
	}
}

func getRecordsOutput(records, size int) *kinesis.GetRecordsOutput {
	out := &kinesis.GetRecordsOutput{NextShardIterator: api.Ptr("AAAAAAAAAAHSywljv0zEgPX4NyKdZ5wryMzP9yALs8NeKbUjp1IxtZs1Sp"), MillisBehindLatest: api.Ptr(int64(0))}
	for i := range records {
		out.Records = append(out.Records, kinesis.Record{
			Data: make([]byte, size), PartitionKey: api.Ptr(fmt.Sprintf("customer-%06d", i)), ApproximateArrivalTimestamp: at(1717171717123),
			SequenceNumber: api.Ptr(fmt.Sprintf("4960000000000000000000000000000000000000000000%010d", i)),
		})
	}
	return out
}

func putRecordsOutput(records int) *kinesis.PutRecordsOutput {
	out := &kinesis.PutRecordsOutput{FailedRecordCount: api.Ptr(int32(0))}
	for i := range records {
		out.Records = append(out.Records, kinesis.PutRecordsResultEntry{
			ShardId: api.Ptr("shardId-000000000000"), SequenceNumber: api.Ptr(fmt.Sprintf("4960000000000000000000000000000000000000000000%010d", i)),
		})
	}
	return out
}

func BenchmarkGetRecordsOutput(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("size=%dB/records=1000", size), func(b *testing.B) {
			out := getRecordsOutput(1000, size)
			buf := Append(nil, out)
			b.SetBytes(int64(1000 * size)) // of payload
			b.ReportAllocs()
			for b.Loop() {
				buf = Append(buf[:0], out)
			}
		})
	}
}

func BenchmarkPutRecordsOutput(b *testing.B) {
	out := putRecordsOutput(500)
	buf := Append(nil, out)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], out)
	}
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "records/s")
}
