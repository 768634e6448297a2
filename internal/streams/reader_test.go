package streams

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

func (r *rig) reader(name string) *Reader {
	r.t.Helper()
	reader, err := r.OpenReader(r.get(name).arn)
	if err != nil {
		r.t.Fatal(err)
	}
	return reader
}

func TestReaderReadsWhatWasPut(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprint("encrypted=", encrypted), func(t *testing.T) {
			r := newRig(t, nil)
			st := r.create("s", 1)
			if encrypted {
				if _, err := r.StartStreamEncryption(t.Context(), r.call(), &kinesis.StartStreamEncryptionInput{
					StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: api.Ptr("alias/aws/kinesis"),
				}); err != nil {
					t.Fatal(err)
				}
			}
			reader := r.reader("s")
			if reader.ID() != st.id {
				t.Errorf("id %d", reader.ID())
			}
			var numbers []string
			for i := range 50 {
				out, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{
					StreamName: api.Ptr("s"), PartitionKey: api.Ptr(fmt.Sprint("key", i)), Data: []byte(fmt.Sprint("data", i)),
				})
				if err != nil {
					t.Fatal(err)
				}
				numbers = append(numbers, *out.SequenceNumber)
				r.advance(time.Second)
			}
			var p ReaderPage
			next, n := uint64(1), 0
			for n < 50 {
				if err := reader.Read(t.Context(), 0, next, 200, &p); err != nil {
					t.Fatal(err)
				}
				if len(p.Records) == 0 || p.First != next || p.Tail != 51 || p.End {
					t.Fatalf("%+v after %d records", p, n)
				}
				for _, rec := range p.Records {
					want := fmt.Sprintf("%d key%d data%d", n+1, n, n)
					if got := fmt.Sprintf("%d %s %s", rec.Index, rec.Key, rec.Data); got != want {
						t.Errorf("%s, want %s", got, want)
					}
					if got := reader.SequenceNumber(0, rec.Index, rec.Arrival); got != numbers[n] {
						t.Errorf("%s, want %s", got, numbers[n])
					}
					n++
				}
				next = p.Next
			}
			if err := reader.Read(t.Context(), 0, next, 200, &p); err != nil || len(p.Records) != 0 || p.Next != 51 || p.End {
				t.Errorf("%+v, %v", p, err)
			}
			// A place by time, and the end of retention.
			at, err := reader.At(t.Context(), 0, r.time().Add(-10*time.Second))
			if err != nil || at != 41 {
				t.Errorf("%d, %v", at, err)
			}
			r.advance(24*time.Hour - 10*time.Second)
			if err := reader.Read(t.Context(), 0, 1, 1<<20, &p); err != nil || len(p.Records) != 10 || p.First != 41 {
				t.Errorf("%d records from %d, %v", len(p.Records), p.First, err)
			}
			r.advance(time.Hour)
			if err := reader.Read(t.Context(), 0, 1, 1<<20, &p); err != nil || len(p.Records) != 0 || p.Next != 51 || p.First != 51 {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

func TestReaderIsWoken(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	reader := r.reader("s")
	next, changed := reader.Tail(0)
	if next != 1 {
		t.Errorf("next is %d", next)
	}
	select {
	case <-changed:
		t.Error("woken for nothing")
	default:
	}
	if _, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if next, _ = reader.Tail(0); next != 2 {
		t.Errorf("next is %d", next)
	}
	resharded := reader.Resharded()
	if _, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: api.Ptr("0"), NewStartingHashKey: api.Ptr("9")}); err != nil {
		t.Fatal(err)
	}
	<-resharded
	shards, err := reader.Shards()
	if err != nil || len(shards) != 3 || !shards[0].Closed || shards[1].Closed || !slices.Equal(shards[1].Parents, []uint32{0}) || shards[1].End[15] != 8 || shards[2].Start[15] != 9 {
		t.Errorf("%+v, %v", shards, err)
	}
	var p ReaderPage
	if err := reader.Read(t.Context(), 0, 1, 1<<20, &p); err != nil || len(p.Records) != 1 || p.End {
		t.Errorf("%+v, %v", p, err)
	}
	if err := reader.Read(t.Context(), 0, p.Next, 1<<20, &p); err != nil || !p.End {
		t.Errorf("%+v, %v", p, err)
	}
	if hash := HashOf("a"); hash[0] == 0 {
		t.Errorf("%x", hash)
	}
	if key, ok := ParseHashKey("256"); !ok || key[14] != 1 || key[15] != 0 {
		t.Errorf("%x", key)
	}
}

// A reader does not continue with a stream that is made anew.
func TestReaderEndsWithItsStream(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	reader := r.reader("s")
	if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}); err != nil {
		t.Fatal(err)
	}
	<-reader.Gone()
	r.advance(time.Minute)
	r.create("s", 1)
	var p ReaderPage
	if err := reader.Read(t.Context(), 0, 1, 1, &p); !IsGone(err) {
		t.Errorf("%v", err)
	}
	if _, err := reader.Shards(); !IsGone(err) {
		t.Errorf("%v", err)
	}
	if _, err := reader.At(t.Context(), 0, time.Time{}); !IsGone(err) {
		t.Errorf("%v", err)
	}
	_, changed := reader.Tail(0)
	<-changed
	if _, err := r.OpenReader("arn:aws:kinesis:us-east-1:000000000000:stream/none"); !IsGone(err) {
		t.Errorf("%v", err)
	}
	if _, err := r.OpenReader("nonsense"); err == nil || IsGone(err) {
		t.Errorf("%v", err)
	}
	if IsGone(errors.New("other")) {
		t.Error("any error is gone")
	}
}

func TestWriterRoutesByKey(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 4)
	w, err := r.OpenWriter(st.arn)
	if err != nil {
		t.Fatal(err)
	}
	var records []WriteRecord
	for i := range 1300 {
		records = append(records, WriteRecord{Key: fmt.Sprint("key", i%50), Data: []byte(fmt.Sprint(i))})
	}
	records[7].Key = ""
	records[8].Data = make([]byte, st.maxRecordBytes+1)
	records[9].Key = strings.Repeat("k", 257)
	results, err := w.Write(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	// Each accepted record is in the shard that it was said to be in, in order.
	reader := r.reader("s")
	found := map[string]string{}
	for _, sh := range st.open {
		var p ReaderPage
		if err := reader.Read(t.Context(), sh.index, 1, 8<<20, &p); err != nil {
			t.Fatal(err)
		}
		last := map[string]int{}
		for _, rec := range p.Records {
			var i int
			if _, err := fmt.Sscan(string(rec.Data), &i); err != nil {
				t.Fatal(err)
			}
			if i < last[string(rec.Key)] {
				t.Errorf("record %d after %d", i, last[string(rec.Key)])
			}
			last[string(rec.Key)] = i
			found[reader.SequenceNumber(sh.index, rec.Index, rec.Arrival)] = fmt.Sprint(sh.id(), " ", i)
		}
	}
	if len(found) != 1297 {
		t.Errorf("%d records are stored", len(found))
	}
	for i, result := range results {
		if i >= 7 && i <= 9 {
			if result.Code != "ValidationException" || result.Retry || result.SequenceNumber != "" {
				t.Errorf("record %d: %+v", i, result)
			}
			continue
		}
		if got := found[result.SequenceNumber]; got != fmt.Sprint(result.Shard, " ", i) {
			t.Errorf("record %d: %+v is %s", i, result, got)
		}
	}
}
