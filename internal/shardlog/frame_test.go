package shardlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// encode frames records as a batch stored at index 10.
func encode(records ...[]byte) driver.StoredBatch {
	b := shardlog.NewBatch(1, records...)
	payload := make([]byte, b.Size)
	b.Payload.Encode(payload, 10, 0)
	return driver.StoredBatch{Base: 10, Count: b.Count, Payload: payload}
}

func TestFramesRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 1<<7 - 1, 1 << 7, 1<<14 - 1, 1 << 14, 1<<21 - 1, 1 << 21, driver.MaxBatchBytes} {
		t.Run(fmt.Sprintf("length %d", n), func(t *testing.T) {
			record := bytes.Repeat([]byte{7}, n)
			b := encode([]byte("before"), record, nil)
			if len(b.Payload) != 7+shardlog.FrameSize(n)+1 {
				t.Errorf("payload has %d bytes", len(b.Payload))
			}
			want := [][]byte{[]byte("before"), record, nil}
			i := 0
			for r, err := range shardlog.Records(b) {
				if err != nil {
					t.Fatal(err)
				}
				if r.Index != driver.Index(10+i) || !bytes.Equal(r.Data, want[i]) {
					t.Errorf("record %d has index %d and %d bytes", i, r.Index, len(r.Data))
				}
				i++
			}
			if i != 3 {
				t.Errorf("%d records", i)
			}
		})
	}
}

func TestFramesMatchTheDocument(t *testing.T) {
	if got := encode([]byte("hi"), nil).Payload; !bytes.Equal(got, []byte{2, 'h', 'i', 0}) {
		t.Errorf("got % x", got)
	}
}

func TestMalformedFramesAreNamed(t *testing.T) {
	for _, test := range []struct {
		name    string
		count   int
		payload string
		offset  int64
		want    string
	}{
		{"record cut off", 2, "\x01a\x05abc", 2, "beyond its batch"},
		{"length cut off", 2, "\x01a\x85", 2, "within a record length"},
		{"nothing there", 2, "\x01a", 2, "within a record length"},
		{"length in long form", 1, "\x81\x00a", 0, "shortest form"},
		{"zero in long form", 1, "\x80\x00", 0, "shortest form"},
		{"length over the limit", 1, "\x81\x80\x80\x08a", 0, "over the limit"},
		{"length without end", 1, "\xff\xff\xff\xff\xff\x01", 0, "over the limit"},
		{"more than was counted", 1, "\x01a\x01b", 2, "after the last"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got error
			for _, err := range shardlog.Records(driver.StoredBatch{Base: 1, Count: test.count, Payload: []byte(test.payload)}) {
				got = err
			}
			var corrupt *driver.CorruptError
			if !errors.As(got, &corrupt) || corrupt.Offset != test.offset || !strings.Contains(corrupt.Reason, test.want) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x02hi\x00"), 2)
	f.Add([]byte("\x80\x01"), 1)
	f.Add(append([]byte("\x80\x01"), make([]byte, 128)...), 1)
	f.Fuzz(func(t *testing.T, payload []byte, count int) {
		var records [][]byte
		for r, err := range shardlog.Records(driver.StoredBatch{Base: 1, Count: min(count, driver.MaxBatchRecords), Payload: payload}) {
			if err != nil {
				return
			}
			records = append(records, r.Data)
		}
		// What is read without complaint is the one encoding of its records.
		if got := encode(records...).Payload; !bytes.Equal(got, payload) {
			t.Errorf("% x reads as % x", payload, got)
		}
	})
}

func BenchmarkRecords(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("size=%d/batch=500", size), func(b *testing.B) {
			records := make([][]byte, 500)
			for i := range records {
				records[i] = make([]byte, size)
			}
			batch := encode(records...)
			b.SetBytes(int64(len(batch.Payload)))
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range shardlog.Records(batch) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
