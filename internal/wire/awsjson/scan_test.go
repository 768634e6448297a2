package awsjson

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

var scanSeeds = []string{
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"},{"PartitionKey":"é","ExplicitHashKey":"0","Data":""}],"StreamName":"s"}`,
	` { "StreamARN" : "arn:aws:kinesis:us-east-1:123456789012:stream/s" , "Records" : [ { "Data" : "QQ==" , "PartitionKey" : "k" } ] } ` + "\n",
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"},{"Data":"QUJ","PartitionKey":"b"}]}`,
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"},{"Data":"Q` + "\n" + `JD","PartitionKey":"b"}]}`,
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"},{"Data":"Q\/JD","PartitionKey":"\u00e9"}],"StreamName":"s"}`,
	`{"Records":[{"Data":"QUJD","Data":"QUJE","PartitionKey":"a"}],"Records":null,"StreamName":1}`,
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"}]`,
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"},{"Data":"****"}]}x`,
	`{"Records":[{"Data":"QUJD","PartitionKey":"a"},{"Data":"****"}],"DryRun":true}`,
	`{"Records":[],"StreamName":"s"}`,
	`{"Records":[{}]}`,
	`{"Data":"QUJD","PartitionKey":"a","StreamName":"s"}`,
	`{"Data":"QUJD","PartitionKey":"a","SequenceNumberForOrdering":"1","ExplicitHashKey":"2","StreamARN":"x","DryRun":false}`,
	"{\"Data\":\"\xff\",\"PartitionKey\":\"\xff\"}",
	"\ufeff{}",
}

// FuzzScanner holds the scanner against the decoder: equal inputs and errors.
func FuzzScanner(f *testing.F) {
	for _, s := range scanSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		compareScanner(t, body, func() api.Shape { return new(kinesis.PutRecordsInput) })
		compareScanner(t, body, func() api.Shape { return new(kinesis.PutRecordInput) })
	})
}

func compareScanner(t *testing.T, body []byte, make func() api.Shape) {
	t.Helper()
	got, want := make(), make()
	b := bytes.Clone(body)
	if done, _ := scan(b, got); !done && !bytes.Equal(b, body) {
		t.Fatalf("the scanner gave up on %q and left %q", body, b)
	}
	gotErr := Unmarshal(bytes.Clone(body), got)
	wantErr := unmarshal(bytes.Clone(body), want)
	if !reflect.DeepEqual(gotErr, wantErr) {
		t.Fatalf("%q: scanner says %v, decoder %v", body, gotErr, wantErr)
	}
	if wantErr == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: scanner reads %s, decoder %s", body, Append(nil, got), Append(nil, want))
	}
}

// TestScannerTakesTheUsualForms makes sure that the fast path is in use at all.
func TestScannerTakesTheUsualForms(t *testing.T) {
	for _, body := range scanSeeds[:2] {
		if done, _ := scan([]byte(body), new(kinesis.PutRecordsInput)); !done {
			t.Errorf("left to the decoder: %s", body)
		}
	}
	if done, _ := scan([]byte(`{"Data":"QUJD","PartitionKey":"a","StreamName":"s"}`), new(kinesis.PutRecordInput)); !done {
		t.Error("PutRecord left to the decoder")
	}
}

// A request that grows past every guess made from its first record.
func TestScannerFollowsRecordsOfChangingSize(t *testing.T) {
	for _, n := range []int{1, 2, 3, 63, 499, 500, 501, 502} {
		var b strings.Builder
		b.WriteString(`{"StreamName":"s","Records":[`)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			extra := ""
			if i%3 == 1 {
				extra = fmt.Sprintf(`,"ExplicitHashKey":"%d"`, i)
			}
			size := 600 / (i + 1)
			fmt.Fprintf(&b, `{"Data":"%s","PartitionKey":"%d"%s}`, strings.Repeat("QUJD", size), i, extra)
		}
		b.WriteString(`]}`)
		compareScanner(t, []byte(b.String()), func() api.Shape { return new(kinesis.PutRecordsInput) })
	}
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
	for _, size := range []int{100, 1024, 10240} {
		body := putRecordsBody(500, size)
		for _, path := range []struct {
			name string
			read func([]byte, api.Shape) error
		}{{"scanner", Unmarshal}, {"decoder", unmarshal}} {
			b.Run(fmt.Sprintf("size=%dB/records=500/%s", size, path.name), func(b *testing.B) {
				buf := make([]byte, len(body))
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, body)
					if err := path.read(buf, new(kinesis.PutRecordsInput)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

func BenchmarkPutRecordInput(b *testing.B) {
	body := Append(nil, &kinesis.PutRecordInput{StreamName: api.Ptr("orders"), PartitionKey: api.Ptr("customer-1"), Data: make([]byte, 1024)})
	buf := make([]byte, len(body))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, body)
		if err := Unmarshal(buf, new(kinesis.PutRecordInput)); err != nil {
			b.Fatal(err)
		}
	}
}
