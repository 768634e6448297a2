package streams

import (
	"fmt"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// openDurable is a Service on the real engine; stop ends it.
func openDurable(t *testing.T, fs vfs.FS) (r *rig, stop func()) {
	t.Helper()
	engine, err := local.Open(t.Context(), fs, local.Options{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	log := shardlog.New(engine, shardlog.Options{})
	store, err := meta.Open(t.Context(), log, nil, meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(keyring.Options{Store: keyring.InMetadata(store), Master: make([]byte, keyring.MasterKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Log: log, Meta: store, Keyring: ring})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Service: s, t: t}, func() {
		for _, closer := range []interface{ Close() error }{s, store, log} {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// What was acknowledged is there after a power cut, once and in order, sealed
// records and iterators included.
func TestRecordsSurviveACrash(t *testing.T) {
	fs := vfs.NewMemory()
	r, stop := openDurable(t, fs)
	r.create("s", 1)
	it := r.mustIterator("s", "0", trim, nil, nil)
	want := ""
	for i := range 10 {
		if i == 5 {
			if _, err := r.StartStreamEncryption(t.Context(), r.call(), &kinesis.StartStreamEncryptionInput{StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: api.Ptr("k")}); err != nil {
				t.Fatal(err)
			}
		}
		put := r.put("s", "k", fmt.Appendf(nil, "%d", i))
		want += *put.SequenceNumber + fmt.Sprintf("=%d ", i)
	}
	crashed := fs.CrashClone(1)
	stop()
	r, stop = openDurable(t, crashed)
	defer stop()
	got := ""
	for _, rec := range r.read(it, 0).Records {
		got += *rec.SequenceNumber + "=" + string(rec.Data) + " "
	}
	if got != want {
		t.Errorf("after the crash:\n%s\nwant\n%s", got, want)
	}
	if next := r.put("s", "k", []byte("next")); *next.SequenceNumber <= want[len(want)-sequenceDigits-3:len(want)-3] {
		t.Errorf("the next number %s is not above the last", *next.SequenceNumber)
	}
}

// Puts that meet a resharding go to the children; nothing is lost or doubled.
func TestPutsDuringResharding(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	const writers, each = 4, 100
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				call := r.call()
				_, err := r.PutRecord(t.Context(), call, &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr(fmt.Sprint(w, i)), Data: fmt.Appendf(nil, "%d-%d", w, i)})
				call.Finish()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, target := range []int32{2, 4, 3, 2} {
		if _, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: &target, ScalingType: api.Ptr(kinesis.ScalingTypeUniformScaling)}); err != nil {
			t.Fatal(err)
		}
	}
	group.Wait()
	seen := map[string]int{}
	for _, sh := range r.get("s").shards {
		for _, rec := range r.read(r.mustIterator("s", sh.id(), trim, nil, nil), 0).Records {
			seen[string(rec.Data)]++
			if h := hashOf(*rec.PartitionKey); h.less(sh.start) || sh.end.less(h) {
				t.Errorf("record %s is in %s, whose range it is not in", rec.Data, sh.id())
			}
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d records", len(seen), writers*each)
	}
	for data, n := range seen {
		if n != 1 {
			t.Errorf("record %s is there %d times", data, n)
		}
	}
}
