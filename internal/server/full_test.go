package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

// eventually calls f until it is satisfied: what happens in the background has no
// hook that a client could wait for.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// An operator's way out of a full disk is to delete a stream: that works while
// records are refused, and afterwards they are taken again without a restart.
func TestDeletingAStreamFreesAFullDisk(t *testing.T) {
	files := vfs.NewMemory()
	s := testkit.Start(t, testkit.Options{Files: files, Configure: func(c *config.Config) {
		c.WALSegmentBytes, c.WALSegments, c.LowWatermark = 1<<20, 3, 2<<20
	}})
	c := s.Client(testkit.Forms[0])
	create(t, c, "big", 1)
	create(t, c, "kept", 1)
	put(t, c, "kept", "a", "b")
	files.SetCapacity(12 << 20)

	store := func(stream string, size int) error {
		return c.Call(t.Context(), kinesis.OpPutRecord, &kinesis.PutRecordInput{StreamName: &stream, Data: bytes.Repeat([]byte("x"), size), PartitionKey: api.Ptr("k")}, nil)
	}
	var refused error
	for n := 0; refused == nil; n++ {
		if n > 1000 {
			t.Fatal("the disk never got full")
		}
		refused = store("big", 100_000)
	}
	var e *testkit.Error
	if !errors.As(refused, &e) || e.Status != 503 || !strings.Contains(e.Message, "no space left") {
		t.Fatalf("put on a full disk: %v, want 503 in words", refused)
	}
	if got := read(t, c, "kept"); fmt.Sprint(got) != "[a b]" {
		t.Errorf("reads on a full disk: %q", got)
	}
	// Metadata goes on, and so does the way out.
	if err := c.Call(t.Context(), kinesis.OpAddTagsToStream, &kinesis.AddTagsToStreamInput{StreamName: api.Ptr("kept"), Tags: map[string]string{"a": "b"}}, nil); err != nil {
		t.Errorf("tag on a full disk: %v", err)
	}
	if err := c.Call(t.Context(), kinesis.OpDecreaseStreamRetentionPeriod, &kinesis.DecreaseStreamRetentionPeriodInput{StreamName: api.Ptr("kept"), RetentionPeriodHours: api.Ptr(int32(24))}, nil); err != nil {
		t.Errorf("set retention on a full disk: %v", err)
	}
	if err := c.Call(t.Context(), kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: api.Ptr("big")}, nil); err != nil {
		t.Fatalf("delete a stream on a full disk: %v", err)
	}
	eventually(t, "puts after the deletion", func() bool { return store("kept", 100_000) == nil })
	for range 20 {
		eventually(t, "further puts", func() bool { return store("kept", 100_000) == nil })
	}
	if got := read(t, c, "kept"); len(got) < 23 || got[0] != "a" || len(got[22]) != 100_000 {
		t.Errorf("%d records are readable after the disk was full, want all", len(got))
	}
	clone := files.CrashClone(1)
	again := testkit.Start(t, testkit.Options{Files: clone})
	if got := read(t, again.Client(testkit.Forms[0]), "kept"); len(got) < 23 {
		t.Errorf("%d records are readable after a crash", len(got))
	}
}

// Damage inside a stored file fails the reads that meet it, by name in the log; a
// start with repair leaves it out, and consumers go on behind it.
func TestRepairLetsConsumersPassDamage(t *testing.T) {
	for name, lost := range map[string]int{"in the middle": 50, "at the end": 59} {
		t.Run(name, func(t *testing.T) { testRepair(t, lost) })
	}
}

func testRepair(t *testing.T, lost int) {
	const records = 60
	files := vfs.NewMemory()
	o := testkit.Options{Files: files, Configure: func(c *config.Config) {
		c.WALSegmentBytes, c.WALSegments, c.LowWatermark = 1<<20, 3, 0
	}}
	s := testkit.Start(t, o)
	c := s.Client(testkit.Forms[0])
	create(t, c, "s", 1)
	create(t, c, "other", 1)
	payload := func(n int) string { return fmt.Sprintf("%04d", n) + strings.Repeat("x", 9996) }
	for n := range records {
		put(t, c, "s", payload(n))
	}
	sealed := ""
	eventually(t, "a sealed file", func() bool {
		put(t, c, "other", strings.Repeat("y", 100_000))
		infos, _ := files.ReadDir("seg/24")
		for _, info := range infos {
			if !strings.HasSuffix(info.Name, ".tmp") {
				sealed = "seg/24/" + info.Name
			}
		}
		return sealed != ""
	})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	data, err := vfs.ReadFile(files, sealed, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, fmt.Appendf(nil, "%04dxxxx", lost))
	if at < 0 {
		t.Fatalf("record %d is not in %s", lost, sealed)
	}
	data[at+1000] ^= 1
	if err := vfs.WriteFile(files, sealed, data); err != nil {
		t.Fatal(err)
	}

	// readAll follows the iterators until nothing is behind; the error is that of
	// the call which fails.
	readAll := func(c *testkit.Client) (list []string, err error) {
		iterator := new(kinesis.GetShardIteratorOutput)
		call(t, c, kinesis.OpGetShardIterator, &kinesis.GetShardIteratorInput{StreamName: api.Ptr("s"), ShardId: api.Ptr("shardId-000000000000"), ShardIteratorType: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon)}, iterator)
		for next, page := iterator.ShardIterator, 0; page < 20; page++ {
			out := new(kinesis.GetRecordsOutput)
			if err := c.Call(t.Context(), kinesis.OpGetRecords, &kinesis.GetRecordsInput{ShardIterator: next, Limit: api.Ptr(int32(20))}, out); err != nil {
				return list, err
			}
			for _, r := range out.Records {
				list = append(list, string(r.Data))
			}
			if len(out.Records) == 0 && api.Val(out.MillisBehindLatest) == 0 {
				return list, nil
			}
			next = out.NextShardIterator
		}
		return list, errors.New("the end never comes")
	}
	s = testkit.Start(t, o)
	got, err := readAll(s.Client(testkit.Forms[0]))
	var e *testkit.Error
	if !errors.As(err, &e) || e.Status != 500 || e.Code != "InternalFailure" {
		t.Errorf("read of damage: %v after %d records, want an internal failure", err, len(got))
	}
	if strings.Contains(fmt.Sprint(err), sealed) || !strings.Contains(s.Log(), sealed) {
		t.Errorf("the file belongs in the log and not in the answer: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	configure := o.Configure
	repair := o
	repair.Configure = func(c *config.Config) { configure(c); c.Repair = true }
	s = testkit.Start(t, repair)
	if log := s.Log(); !strings.Contains(log, sealed) || !strings.Contains(log, fmt.Sprintf("records %d to %d of shard log", lost+1, lost+1)) {
		t.Errorf("the log does not name what is gone:\n%s", log)
	}
	want := records - 1
	for _, when := range []string{"repaired", "started again"} {
		c := s.Client(testkit.Forms[0])
		got, err := readAll(c)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if len(got) != want || got[lost-1] != payload(lost-1) || lost+1 < records && got[lost] != payload(lost+1) {
			t.Errorf("%s: %d records, want all but one", when, len(got))
		}
		put(t, c, "s", "after")
		want++
		if got, err := readAll(c); err != nil || len(got) != want || got[len(got)-1] != "after" {
			t.Errorf("%s: a put afterwards: %d records, %v", when, len(got), err)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		s = testkit.Start(t, o)
	}
}
