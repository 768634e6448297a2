package streams

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

// limitedQuota refuses what its functions say.
type limitedQuota struct {
	noQuota
	write    func(size int) bool
	iterator func() bool
	read     func() bool
}

func (limitedQuota) Enforced() bool                     { return true }
func (q limitedQuota) Write(_ uint64, size, _ int) bool { return q.write == nil || q.write(size) }
func (q limitedQuota) Iterator(uint64) bool             { return q.iterator == nil || q.iterator() }
func (q limitedQuota) Read(uint64) bool                 { return q.read == nil || q.read() }

func (r *rig) put(stream, key string, data []byte) *kinesis.PutRecordOutput {
	r.t.Helper()
	call := r.call()
	out, err := r.PutRecord(r.t.Context(), call, &kinesis.PutRecordInput{StreamName: &stream, PartitionKey: &key, Data: data})
	if err != nil {
		r.t.Fatal(err)
	}
	// What the reply points to is used again after Finish.
	copied := &kinesis.PutRecordOutput{ShardId: api.Ptr(strings.Clone(*out.ShardId)), SequenceNumber: api.Ptr(strings.Clone(*out.SequenceNumber)), EncryptionType: out.EncryptionType}
	call.Finish()
	return copied
}

func (r *rig) iterator(stream, shard string, kind kinesis.ShardIteratorType, number *string, at *time.Time) (string, error) {
	out, err := r.GetShardIterator(r.t.Context(), r.call(), &kinesis.GetShardIteratorInput{
		StreamName: &stream, ShardId: &shard, ShardIteratorType: &kind, StartingSequenceNumber: number, Timestamp: at,
	})
	if err != nil {
		return "", err
	}
	return *out.ShardIterator, nil
}

func (r *rig) mustIterator(stream, shard string, kind kinesis.ShardIteratorType, number *string, at *time.Time) string {
	r.t.Helper()
	text, err := r.iterator(stream, shard, kind, number, at)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// read is GetRecords whose reply is the caller's own.
func (r *rig) read(iterator string, limit int32) *kinesis.GetRecordsOutput {
	r.t.Helper()
	call := r.call()
	in := &kinesis.GetRecordsInput{ShardIterator: &iterator}
	if limit > 0 {
		in.Limit = &limit
	}
	out, err := r.GetRecords(r.t.Context(), call, in)
	if err != nil {
		r.t.Fatal(err)
	}
	own := *out
	own.MillisBehindLatest = api.Ptr(*out.MillisBehindLatest)
	own.Records = cloneRecords(out.Records)
	call.Finish()
	return &own
}

func cloneRecords(records []kinesis.Record) []kinesis.Record {
	own := []kinesis.Record{}
	for _, rec := range records {
		rec.Data = append([]byte{}, rec.Data...)
		rec.SequenceNumber = api.Ptr(strings.Clone(*rec.SequenceNumber))
		rec.ApproximateArrivalTimestamp = api.Ptr(*rec.ApproximateArrivalTimestamp)
		if rec.PartitionKey != nil {
			rec.PartitionKey = api.Ptr(strings.Clone(*rec.PartitionKey))
		}
		own = append(own, rec)
	}
	return own
}

func texts(records []kinesis.Record) string {
	var parts []string
	for _, r := range records {
		parts = append(parts, string(r.Data))
	}
	return strings.Join(parts, " ")
}

const (
	trim      = kinesis.ShardIteratorTypeTrimHorizon
	latest    = kinesis.ShardIteratorTypeLatest
	atNumber  = kinesis.ShardIteratorTypeAtSequenceNumber
	afterNum  = kinesis.ShardIteratorTypeAfterSequenceNumber
	atTime    = kinesis.ShardIteratorTypeAtTimestamp
	notExists = "Shard shardId-%012d in stream %s under account " + testAccount + " does not exist"
)

func (r *rig) split(stream string, shard string) {
	r.t.Helper()
	_, err := r.SplitShard(r.t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: &stream, ShardToSplit: &shard, NewStartingHashKey: api.Ptr("170141183460469231731687303715884105728")})
	if err != nil {
		r.t.Fatal(err)
	}
}

// T1, T2, T3, T34: a closed shard is read to its end, and then names its
// children.
func TestClosedShardEndsWithItsChildren(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	r.put("s", "k", []byte("a"))
	r.put("s", "k", []byte("b"))
	it := r.mustIterator("s", "0", trim, nil, nil)
	r.split("s", "0")
	out := r.read(it, 1)
	if texts(out.Records) != "a" || out.NextShardIterator == nil || out.ChildShards != nil {
		t.Fatalf("first page %q, next %v, children %v", texts(out.Records), out.NextShardIterator, out.ChildShards)
	}
	out = r.read(*out.NextShardIterator, 0)
	if texts(out.Records) != "b" || out.NextShardIterator == nil || out.ChildShards != nil {
		t.Fatalf("last page %q, next %v, children %v", texts(out.Records), out.NextShardIterator, out.ChildShards)
	}
	out = r.read(*out.NextShardIterator, 0)
	if len(out.Records) != 0 || out.NextShardIterator != nil || len(out.ChildShards) != 2 || *out.MillisBehindLatest != 0 {
		t.Fatalf("after the end: %+v", out)
	}
	for i, c := range out.ChildShards {
		if *c.ShardId != shardID(uint32(i+1)) || len(c.ParentShards) != 1 || c.ParentShards[0] != shardID(0) {
			t.Errorf("child %d: %s of %v", i, *c.ShardId, c.ParentShards)
		}
	}
	// LATEST of a closed shard is its end.
	if out = r.read(r.mustIterator("s", "0", latest, nil, nil), 0); out.NextShardIterator != nil || len(out.ChildShards) != 2 {
		t.Errorf("LATEST of a closed shard: %+v", out)
	}
	// Both parents of a merge are named.
	if _, err := r.MergeShards(t.Context(), r.call(), &kinesis.MergeShardsInput{StreamName: api.Ptr("s"), ShardToMerge: api.Ptr("1"), AdjacentShardToMerge: api.Ptr("2")}); err != nil {
		t.Fatal(err)
	}
	for _, shard := range []string{"1", "2"} {
		out = r.read(r.mustIterator("s", shard, trim, nil, nil), 0)
		if out.NextShardIterator != nil || len(out.ChildShards) != 1 || fmt.Sprint(out.ChildShards[0].ParentShards) != "[shardId-000000000001 shardId-000000000002]" {
			t.Errorf("merged shard %s: %+v", shard, out.ChildShards)
		}
	}
	// Puts go to the child, whose numbers are above its parents'.
	put := r.put("s", "k", []byte("c"))
	if *put.ShardId != shardID(3) {
		t.Errorf("put into %s after the merge", *put.ShardId)
	}
	if end := endOf(r.get("s").shard(1)).String(); *put.SequenceNumber <= end {
		t.Errorf("child's number %s is not above its parent's end %s", *put.SequenceNumber, end)
	}
}

// T4: iterators go by index, however many records share a second.
func TestRecordsOfOneSecondAreReadOnce(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	for i := range 20 {
		r.put("s", "k", fmt.Appendf(nil, "%02d", i))
	}
	it, got := r.mustIterator("s", "0", trim, nil, nil), []string{}
	for range 20 {
		out := r.read(it, 3)
		for _, rec := range out.Records {
			got = append(got, string(rec.Data))
			// A restart from each record's number sees the next.
			next := r.read(r.mustIterator("s", "0", afterNum, rec.SequenceNumber, nil), 1)
			if n := len(got); n < 20 && texts(next.Records) != fmt.Sprintf("%02d", n) {
				t.Fatalf("after record %d comes %q", n-1, texts(next.Records))
			}
		}
		it = *out.NextShardIterator
	}
	if want := 20; len(got) != want || got[0] != "00" || got[19] != "19" {
		t.Errorf("read %v", got)
	}
}

// T5: every reply has another iterator, and old ones work again.
func TestIteratorsAlwaysDiffer(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	it, seen := r.mustIterator("s", "0", trim, nil, nil), map[string]bool{}
	for range 5 {
		if seen[it] || len(it) > maxIteratorText {
			t.Fatalf("iterator %s came again, or is too long", it)
		}
		seen[it] = true
		it = *r.read(it, 0).NextShardIterator
	}
	r.put("s", "k", []byte("a"))
	for old := range seen {
		if got := texts(r.read(old, 0).Records); got != "a" {
			t.Errorf("an old iterator reads %q", got)
		}
	}
}

// T6, T7, T31: numbers with which a reader may start.
func TestStartingSequenceNumbers(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 2)
	r.create("other", 1)
	r.advance(time.Second)
	put, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), ExplicitHashKey: api.Ptr("0"), Data: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	sh := r.get("s").shard(0)
	if got := texts(r.read(r.mustIterator("s", "0", atNumber, api.Ptr(startOf(sh).String()), nil), 0).Records); got != "a" {
		t.Errorf("AT the shard's start reads %q", got)
	}
	if got := texts(r.read(r.mustIterator("s", "0", afterNum, api.Ptr(startOf(sh).String()), nil), 0).Records); got != "a" {
		t.Errorf("AFTER the shard's start reads %q", got)
	}
	if got := texts(r.read(r.mustIterator("s", "0", atNumber, put.SequenceNumber, nil), 0).Records); got != "a" {
		t.Errorf("AT the record reads %q", got)
	}
	if got := texts(r.read(r.mustIterator("s", "0", afterNum, put.SequenceNumber, nil), 0).Records); got != "" {
		t.Errorf("AFTER the record reads %q", got)
	}
	future := recordNumber(sh, 1000, 0).String()
	if got := texts(r.read(r.mustIterator("s", "0", atNumber, &future, nil), 0).Records); got != "" {
		t.Errorf("AT a number to come reads %q", got)
	}
	foreign := *sh
	foreign.created--
	end := sequenceNumber{created: sh.created, index: endIndex, at: sh.created + 5, version: 2}.String()
	suffix := " used in GetShardIterator on shard shardId-000000000000 in stream s under account " + testAccount + " is invalid"
	for _, c := range []struct {
		name, number, want string
		kind               kinesis.ShardIteratorType
	}{
		{"another shard's", startOf(r.get("s").shard(1)).String(), "Invalid StartingSequenceNumber. It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000", atNumber},
		{"another stream's", startOf(&foreign).String(), "StartingSequenceNumber " + startOf(&foreign).String() + suffix + " because it did not come from this stream.", atNumber},
		{"version 0", "0", "StartingSequenceNumber 0" + suffix + " because it did not come from this stream.", afterNum},
		{"not a number of ours", "123456789012345678901234567890123456789012345678901234567", "StartingSequenceNumber 123456789012345678901234567890123456789012345678901234567" + suffix + ".", atNumber},
		{"the shard's end", end, "Invalid SequenceNumber for ShardIteratorType AFTER_SEQUENCE_NUMBER, SequenceNumber has reached max possible value for the shard.", afterNum},
	} {
		_, err := r.iterator("s", "0", c.kind, &c.number, nil)
		wantError(t, err, "InvalidArgumentException", c.want)
	}
}

func TestIteratorArguments(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	number := startOf(r.get("s").shard(0)).String()
	must := "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified "
	_, err := r.iterator("s", "0", atNumber, nil, nil)
	wantError(t, err, "InvalidArgumentException", must+"AT_SEQUENCE_NUMBER and no StartingSequenceNumber.")
	_, err = r.iterator("s", "0", latest, &number, nil)
	wantError(t, err, "InvalidArgumentException", must+"LATEST and also a StartingSequenceNumber.")
	_, err = r.iterator("s", "0", atTime, nil, nil)
	wantError(t, err, "InvalidArgumentException", "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
	later := r.time().Add(time.Minute)
	_, err = r.iterator("s", "0", atTime, nil, &later)
	wantError(t, err, "InvalidArgumentException", fmt.Sprintf("The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d", later.UnixMilli(), r.time().UnixMilli()))
	_, err = r.iterator("s", "7", trim, nil, nil)
	wantError(t, err, "ResourceNotFoundException", fmt.Sprintf(notExists, 7, "s"))
	_, err = r.iterator("none", "7", trim, nil, nil)
	wantError(t, err, "ResourceNotFoundException", fmt.Sprintf(notExists, 7, "none"))
	_, err = r.iterator("s", "shard", trim, nil, nil)
	wantError(t, err, "ResourceNotFoundException", "Could not find shard shard in stream s under account "+testAccount+".")
	// T32: shard ids are read leniently.
	for _, id := range []string{"0", "shardId-0", "foo-0000", "shardId-000000000000"} {
		if _, err := r.iterator("s", id, trim, nil, nil); err != nil {
			t.Errorf("shard id %q: %v", id, err)
		}
	}
}

// T8: LATEST is fixed when it is asked for.
func TestLatestIsFixedAtIssue(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	r.put("s", "k", []byte("before"))
	it := r.mustIterator("s", "0", latest, nil, nil)
	r.put("s", "k", []byte("after"))
	if got := texts(r.read(it, 0).Records); got != "after" {
		t.Errorf("LATEST reads %q", got)
	}
}

// T9: iterators expire after 300 seconds, in words.
func TestIteratorExpires(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	it := r.mustIterator("s", "0", trim, nil, nil)
	r.advance(300 * time.Second)
	r.read(it, 0)
	r.advance(time.Second)
	_, err := r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it})
	wantError(t, err, "ExpiredIteratorException", "Iterator expired. The iterator was created at time Fri May 01 12:00:00 UTC 2026 while right now it is Fri May 01 12:05:01 UTC 2026 which is further in the future than the tolerated delay of 300000 milliseconds.")
}

// T10: equal times are included, and no record yet behaves as LATEST.
func TestAtTimestamp(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	r.advance(time.Second)
	r.put("s", "k", []byte("a"))
	first := r.time()
	r.advance(time.Millisecond)
	r.put("s", "k", []byte("b"))
	r.advance(time.Second)
	now := r.time()
	waiting := r.mustIterator("s", "0", atTime, nil, &now)
	r.put("s", "k", []byte("c"))
	early, fraction := first.Add(-time.Hour), first.Add(time.Microsecond)
	for _, c := range []struct {
		at   time.Time
		want string
	}{{first, "a b c"}, {first.Add(time.Millisecond), "b c"}, {fraction, "b c"}, {early, "a b c"}} {
		if got := texts(r.read(r.mustIterator("s", "0", atTime, nil, &c.at), 0).Records); got != c.want {
			t.Errorf("at %v reads %q, want %q", c.at, got, c.want)
		}
	}
	if got := texts(r.read(waiting, 0).Records); got != "c" {
		t.Errorf("a time without records reads %q", got)
	}
}

// T11: MillisBehindLatest is time.
func TestMillisBehindLatest(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	r.advance(time.Second)
	r.put("s", "k", []byte("a"))
	r.put("s", "k", []byte("b"))
	it := r.mustIterator("s", "0", trim, nil, nil)
	for _, wait := range []time.Duration{0, 1500 * time.Millisecond, time.Second} {
		r.advance(wait)
	}
	if got := *r.read(it, 1).MillisBehindLatest; got != 2500 {
		t.Errorf("%d ms behind, want 2500", got)
	}
	out := r.read(it, 2)
	if got := *out.MillisBehindLatest; got != 0 {
		t.Errorf("%d ms behind at the tip", got)
	}
	if got := *r.read(*out.NextShardIterator, 0).MillisBehindLatest; got != 0 {
		t.Errorf("%d ms behind on an empty page at the tip", got)
	}
}

func TestForgedIterators(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	good := r.mustIterator("s", "0", trim, nil, nil)
	raw, _ := base64.StdEncoding.DecodeString(good)
	for _, bad := range []string{"x", "", `"`, `""`, good[:len(good)-4], good + "AAAA", strings.Repeat("A", 600), strings.Repeat("A", 512), `""` + good + `""`} {
		_, err := r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &bad})
		wantError(t, err, "InvalidArgumentException", "Invalid ShardIterator.")
	}
	for i := range raw {
		forged := bytes.Clone(raw)
		forged[i] ^= 1
		if _, ok := r.openIterator(base64.StdEncoding.EncodeToString(forged)); ok {
			t.Errorf("byte %d changed, iterator accepted", i)
		}
	}
	if r.read(`"`+good+`"`, 0).NextShardIterator == nil {
		t.Error("a quoted iterator does not work")
	}
	// The key is stored: a restart changes nothing.
	r.restart()
	if r.read(good, 0).NextShardIterator == nil {
		t.Error("an iterator does not survive a restart")
	}
}

// T47: iterators of a deleted stream do not work on its successor.
func TestIteratorOfADeletedStream(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	it := r.mustIterator("s", "0", trim, nil, nil)
	if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}); err != nil {
		t.Fatal(err)
	}
	_, err := r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it})
	wantError(t, err, "ResourceNotFoundException", fmt.Sprintf(notExists, 0, "s"))
	r.create("s", 1)
	_, err = r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it})
	wantError(t, err, "ResourceNotFoundException", fmt.Sprintf(notExists, 0, "s"))
}

func TestExpiredRecordsAreSkipped(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	r.advance(time.Second)
	r.put("s", "k", []byte("a"))
	r.advance(time.Millisecond)
	r.put("s", "k", []byte("b"))
	r.advance(24*time.Hour - time.Millisecond)
	for _, want := range []string{"a b", "b", ""} {
		out := r.read(r.mustIterator("s", "0", trim, nil, nil), 0)
		if got := texts(out.Records); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
		r.advance(time.Millisecond)
	}
}

// T35: a throttled entry fails alone, a malformed one fails all.
func TestPutRecordsFailures(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Quota = limitedQuota{write: func(size int) bool { return size < 10 }} })
	r.create("s", 1)
	entries := func(keys ...string) (out []kinesis.PutRecordsRequestEntry) {
		for _, k := range keys {
			out = append(out, kinesis.PutRecordsRequestEntry{Data: []byte(k), PartitionKey: api.Ptr("k")})
		}
		return out
	}
	out, err := r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: entries("a", "far too long", "b")})
	if err != nil {
		t.Fatal(err)
	}
	if *out.FailedRecordCount != 1 || out.EncryptionType != nil || len(out.Records) != 3 {
		t.Errorf("reply %+v", out)
	}
	e := out.Records[1]
	if e.ShardId != nil || e.SequenceNumber != nil || *e.ErrorCode != "ProvisionedThroughputExceededException" ||
		*e.ErrorMessage != "Rate exceeded for shard shardId-000000000000 in stream s under account "+testAccount+"." {
		t.Errorf("throttled entry %+v", e)
	}
	for _, i := range []int{0, 2} {
		if e := out.Records[i]; e.ErrorCode != nil || e.ErrorMessage != nil || *e.ShardId != shardID(0) || len(*e.SequenceNumber) != sequenceDigits {
			t.Errorf("entry %d %+v", i, e)
		}
	}
	if *out.Records[0].SequenceNumber >= *out.Records[2].SequenceNumber {
		t.Error("numbers are not in the order of the list")
	}
	bad := entries("a", "b")
	bad[1].ExplicitHashKey = api.Ptr("340282366920938463463374607431768211456")
	_, err = r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: bad})
	wantError(t, err, "InvalidArgumentException", "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 340282366920938463463374607431768211456")
	bad = entries("a", "b")
	bad[1].PartitionKey = nil
	_, err = r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: bad})
	wantError(t, err, "ValidationException", "1 validation error detected: Value null at 'records.2.member.partitionKey' failed to satisfy constraint: Member must not be null")
	out, err = r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: entries("c")})
	if err != nil || out.FailedRecordCount == nil || *out.FailedRecordCount != 0 {
		t.Errorf("a good call: %+v, %v", out, err)
	}
	if got := texts(r.read(r.mustIterator("s", "0", trim, nil, nil), 0).Records); got != "a b c" {
		t.Errorf("stored %q", got)
	}
}

// T45, T50: the limit is the stream's.
func TestRecordSizeIsTheStreams(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	big := make([]byte, 1<<20+1)
	_, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), Data: big})
	wantError(t, err, "ValidationException", "1 validation error detected: Value at 'data' failed to satisfy constraint: Member must have length less than or equal to 1048576")
	_, err = r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: []kinesis.PutRecordsRequestEntry{{Data: big, PartitionKey: api.Ptr("k")}}})
	wantError(t, err, "ValidationException", "1 validation error detected: Value at 'records.1.member.data' failed to satisfy constraint: Member must have length less than or equal to 1048576")
	if _, err := r.UpdateMaxRecordSize(t.Context(), r.call(), &kinesis.UpdateMaxRecordSizeInput{StreamARN: &r.get("s").arn, MaxRecordSizeInKiB: api.Ptr(int32(10240))}); err != nil {
		t.Fatal(err)
	}
	huge := bytes.Repeat([]byte("x"), 10<<20)
	r.put("s", "k", huge)
	r.put("s", "k", []byte("y"))
	out := r.read(r.mustIterator("s", "0", trim, nil, nil), 0)
	if len(out.Records) != 1 || !bytes.Equal(out.Records[0].Data, huge) {
		t.Errorf("a page of %d records", len(out.Records))
	}
	if got := texts(r.read(*out.NextShardIterator, 0).Records); got != "y" {
		t.Errorf("then %q", got)
	}
	_, err = r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: []kinesis.PutRecordsRequestEntry{{Data: huge, PartitionKey: api.Ptr("k")}}})
	wantError(t, err, "InvalidArgumentException", "Records size exceeds 10 MB limit")
}

// T30, T36, T37: plain records have no EncryptionType, empty data is data.
func TestPlainAndEmptyRecords(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	if put := r.put("s", "k", []byte{}); put.EncryptionType != nil {
		t.Errorf("EncryptionType %v of a plain stream", *put.EncryptionType)
	}
	rec := r.read(r.mustIterator("s", "0", trim, nil, nil), 0).Records[0]
	if rec.Data == nil || len(rec.Data) != 0 || rec.EncryptionType != nil || *rec.PartitionKey != "k" {
		t.Errorf("record %+v", rec)
	}
	if !rec.ApproximateArrivalTimestamp.Equal(r.time().Truncate(time.Millisecond)) && rec.ApproximateArrivalTimestamp.Before(r.time()) {
		t.Errorf("arrival %v, put at %v", rec.ApproximateArrivalTimestamp, r.time())
	}
}

func TestOrderingNumber(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	r.advance(2 * time.Second)
	put := r.put("s", "k", []byte("a"))
	for number, ok := range map[string]bool{*put.SequenceNumber: true, "0": false, "7": false, recordNumber(r.get("s").shard(0), 1, r.time().Add(time.Hour).UnixMilli()).String(): false} {
		_, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), Data: []byte("b"), SequenceNumberForOrdering: &number})
		if ok {
			if err != nil {
				t.Errorf("%s: %v", number, err)
			}
			continue
		}
		wantError(t, err, "InvalidArgumentException", "ExclusiveMinimumSequenceNumber "+number+" used in PutRecord on stream s under account "+testAccount+" is invalid.")
	}
}

func TestDryRunsHaveNoEffect(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	it := r.mustIterator("s", "0", trim, nil, nil)
	yes, name, key := api.Ptr(true), api.Ptr("s"), api.Ptr("k")
	const text = "Request would have succeeded, but DryRun flag is set."
	_, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: name, PartitionKey: key, Data: []byte("a"), DryRun: yes})
	wantError(t, err, "DryRunOperationException", text)
	_, err = r.PutRecords(t.Context(), r.call(), &kinesis.PutRecordsInput{StreamName: name, Records: []kinesis.PutRecordsRequestEntry{{PartitionKey: key, Data: []byte("a")}}, DryRun: yes})
	wantError(t, err, "DryRunOperationException", text)
	_, err = r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it, DryRun: yes})
	wantError(t, err, "DryRunOperationException", text)
	kind := trim
	_, err = r.GetShardIterator(t.Context(), r.call(), &kinesis.GetShardIteratorInput{StreamName: name, ShardId: api.Ptr("0"), ShardIteratorType: &kind, DryRun: yes})
	wantError(t, err, "DryRunOperationException", text)
	if got := r.read(it, 0); len(got.Records) != 0 {
		t.Errorf("%d records stored", len(got.Records))
	}
}

func TestEncryptedRecords(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 2)
	r.put("s", "k", []byte("plain"))
	start := func(key string) {
		t.Helper()
		if _, err := r.StartStreamEncryption(t.Context(), r.call(), &kinesis.StartStreamEncryptionInput{StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: &key}); err != nil {
			t.Fatal(err)
		}
	}
	start("alias/aws/kinesis")
	put := r.put("s", "k", []byte("secret one"))
	if put.EncryptionType == nil || *put.EncryptionType != kinesis.EncryptionTypeKms {
		t.Errorf("EncryptionType %v of an encrypted stream", put.EncryptionType)
	}
	if err := r.keyring.Rotate(t.Context(), r.get("s").encryption.dataKey); err != nil {
		t.Fatal(err)
	}
	r.put("s", "k", []byte("secret two"))
	start("alias/mine")
	r.put("s", "k", []byte("secret three"))
	r.restart()
	index, _ := parseShardID(*put.ShardId)
	sh := r.get("s").shard(index)
	_, stored, err := r.Service.log.Read(t.Context(), sh.log, 1, 1<<20, nil)
	if err != nil || bytes.Contains(stored, []byte("secret")) || !bytes.Contains(stored, []byte("plain")) {
		t.Errorf("stored %q, %v", stored, err)
	}
	out := r.read(r.mustIterator("s", *put.ShardId, trim, nil, nil), 0)
	if got := texts(out.Records); got != "plain secret one secret two secret three" {
		t.Errorf("read %q", got)
	}
	for i, rec := range out.Records {
		if sealed := rec.EncryptionType != nil; sealed != (i > 0) {
			t.Errorf("record %d: encrypted %v", i, sealed)
		}
	}
	// The state of the named key decides.
	scope := keyring.Scope{Account: testAccount, Region: testRegion}
	for state, code := range map[keyring.State]string{keyring.Disabled: "KMSDisabledException", keyring.PendingDeletion: "KMSInvalidStateException"} {
		if err := r.keyring.SetState(t.Context(), scope, "alias/mine", state); err != nil {
			t.Fatal(err)
		}
		_, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), Data: []byte("x")})
		wantError(t, err, code, "…")
		it := r.mustIterator("s", *put.ShardId, trim, nil, nil)
		_, err = r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it})
		wantError(t, err, code, "…")
	}
}

func TestManyShardsManyRecords(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 37)
	want := map[string][]string{}
	for round := range 10 {
		in := &kinesis.PutRecordsInput{StreamName: api.Ptr("s")}
		for i := range 500 {
			key := fmt.Sprintf("key-%d-%d", round, i)
			in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: []byte(key), PartitionKey: &key})
		}
		call := r.call()
		out, err := r.PutRecords(t.Context(), call, in)
		if err != nil || *out.FailedRecordCount != 0 {
			t.Fatal(err, out)
		}
		for i, e := range out.Records {
			key := *in.Records[i].PartitionKey
			if sh := r.get("s").route(hashOf(key)); sh.id() != *e.ShardId {
				t.Fatalf("%s went to %s, its hash belongs to %s", key, *e.ShardId, sh.id())
			}
			id := strings.Clone(*e.ShardId)
			want[id] = append(want[id], key+" "+strings.Clone(*e.SequenceNumber))
		}
		call.Finish()
	}
	for id, list := range want {
		var got []string
		for _, rec := range r.read(r.mustIterator("s", id, trim, nil, nil), 0).Records {
			got = append(got, string(rec.Data)+" "+*rec.SequenceNumber)
		}
		if fmt.Sprint(got) != fmt.Sprint(list) {
			t.Errorf("shard %s: read %d records, put %d", id, len(got), len(list))
		}
	}
}

func TestThrottledCalls(t *testing.T) {
	no := func() bool { return false }
	r := newRig(t, func(o *Options) {
		o.Quota = limitedQuota{write: func(int) bool { return false }, iterator: no, read: no}
	})
	st := r.create("s", 1)
	text := "Rate exceeded for shard shardId-000000000000 in stream s under account " + testAccount + "."
	_, err := r.PutRecord(t.Context(), r.call(), &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), Data: []byte("b")})
	wantError(t, err, "ProvisionedThroughputExceededException", text)
	_, err = r.iterator("s", "0", trim, nil, nil)
	wantError(t, err, "ProvisionedThroughputExceededException", text)
	it := r.sealIterator(shardIterator{issued: r.time().UnixMilli(), stream: st.place(), id: st.id, next: 1})
	_, err = r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it})
	wantError(t, err, "ProvisionedThroughputExceededException", text)
}

func FuzzStoredRecord(f *testing.F) {
	f.Add([]byte{0x11, 1, 'k', 'd'})
	f.Add([]byte{0x13, 1, 'k'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseStored(b)
		if err != nil {
			return
		}
		if len(r.header)+len(r.data) != len(b) || len(r.key) > maxStoredKey {
			t.Fatalf("%x: %d bytes before %d of data, key of %d", b, len(r.header), len(r.data), len(r.key))
		}
	})
}

func TestStoredRecordOfANewerVersion(t *testing.T) {
	if _, err := parseStored([]byte{0x21, 1, 'k'}); err != errRecordNewer {
		t.Errorf("got %v", err)
	}
	if _, err := parseStored([]byte{0x01}); err != errRecordDamaged {
		t.Errorf("got %v", err)
	}
}

func BenchmarkPutRecords(b *testing.B) {
	for _, shards := range []int{1, 1000, 10_000} {
		b.Run(fmt.Sprintf("size=1KiB/batch=500/shards=%d", shards), func(b *testing.B) {
			s, st := benchStream(b, shards)
			in := &kinesis.PutRecordsInput{StreamName: &st.name}
			for i := range 500 {
				in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: make([]byte, 1024), PartitionKey: api.Ptr(fmt.Sprintf("partition-key-%d", i))})
			}
			call := testCall(testAccount, testRegion)
			p := newPut()
			b.SetBytes(500 * 1024)
			b.ReportAllocs()
			_ = s
			var dst []byte
			for b.Loop() {
				p.records, p.groups, p.names = p.records[:0], p.groups[:0], p.names[:0]
				for i := range in.Records {
					r := &in.Records[i]
					if err := p.add(s, st, r.Data, r.PartitionKey, nil); err != nil {
						b.Fatal(err)
					}
				}
				p.reserve()
				p.begin(st, time.Time{})
				s.admit(p)
				for i := range p.records {
					p.place(int32(i))
				}
				for i := range p.groups {
					g := &p.groups[i]
					if cap(dst) < g.size {
						dst = make([]byte, g.size)
					}
					g.Encode(dst[:g.size], 1, 1e12)
					g.name = p.name(g.shard.index)
					for j := g.first; j >= 0; j = p.records[j].next {
						at := int(j) * sequenceDigits
						recordNumber(g.shard, 5, 1e12).appendTo(p.numbers[at : at : at+sequenceDigits])
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
			call.Finish()
		})
	}
}

// benchStream is a stream that exists in memory only: what is measured is the
// service, not the log.
func benchStream(b *testing.B, shards int) (*Service, *stream) {
	b.Helper()
	st := &stream{account: testAccount, region: testRegion, name: "s", status: kinesis.StreamStatusActive, maxRecordBytes: 1 << 20, series: noSeries{}}
	for i := range shards {
		sh := &shard{index: uint32(i), created: 1700000000}
		sh.start, sh.end = uniformRange(uint32(i), uint32(shards))
		st.open = append(st.open, sh)
	}
	s := &Service{metrics: noMetrics{}, now: time.Now}
	s.quota = noQuota{}
	return s, st
}

func BenchmarkGetRecords(b *testing.B) {
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	defer log.Close()
	sh := &shard{log: 77, created: 1700000000}
	if err := log.Create(b.Context(), []driver.Shard{{ID: sh.log}}); err != nil {
		b.Fatal(err)
	}
	s, st := benchStream(b, 1)
	s.log = log
	sh.start, sh.end = uniformRange(0, 1)
	st.open = []*shard{sh}
	st.retention = 24 * time.Hour
	p := newPut()
	for range 20 {
		p.records = p.records[:0]
		for i := range 500 {
			if err := p.add(s, st, make([]byte, 1024), api.Ptr(fmt.Sprint(i)), nil); err != nil {
				b.Fatal(err)
			}
		}
		p.reserve()
		p.begin(st, time.Time{})
		if err := s.putAll(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.SetBytes(10_000 * 1024)
	for b.Loop() {
		page := newPage()
		if err := s.readPage(b.Context(), page, st, sh, 1, maxPageRecords, maxPageBytes, time.Now()); err != nil || len(page.records) != 10_000 {
			b.Fatal(err, len(page.records))
		}
		page.release()
	}
}
