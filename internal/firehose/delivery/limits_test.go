package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/keyring"
)

// A partition that gets nothing more does not let the account grow while others
// go on: it is delivered early.
func TestAccountsDoNotGrowForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		query, err := process.NewQuery(`{k: .k}`)
		if err != nil {
			t.Fatal(err)
		}
		d := define(p)
		d.Hints = record.Hints{Bytes: 2000, Interval: time.Hour}
		d.Chain = process.NewChain(process.Config{Query: query}, nil)
		d.Partitioning = &Partitioning{Prefix: template(t, "p=!{partitionKeyFromQuery:k}/")}
		r.start(d)
		r.engine.window = 500
		want := []string{`{"k":"rare"}`}
		r.put("d1", want[0])
		for i := range 200 {
			var put []string
			for j := range 10 {
				put = append(put, fmt.Sprintf(`{"k":"busy","n":%d}`, i*10+j))
			}
			want = append(want, put...)
			r.put("d1", put...)
			synctest.Wait()
			if s := r.engine.find("d1"); s.serials[0].account.window() > 600 {
				t.Fatalf("the account spans %d records", s.serials[0].account.window())
			}
		}
		if !slices.Contains(p.all(), want[0]) {
			t.Error("the rare partition waits")
		}
		r.flush("d1")
		same(t, "partitions", p.all(), want)
	})
}

// What cannot be read for want of a key waits for it, and says so.
func TestUnreadableRecordsWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		scope := keyring.Scope{Account: "000000000000", Region: "us-east-1"}
		key, err := r.ring.NewDataKey(t.Context(), scope, "k", "arn")
		if err != nil {
			t.Fatal(err)
		}
		d := define(p)
		d.Encryption = &Encryption{DataKey: key}
		r.start(d)
		if err := r.engine.Pause(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		r.put("d1", "a")
		for _, c := range []struct {
			state  keyring.State
			metric Metric
			code   string
		}{
			{keyring.Disabled, KMSKeyDisabled, "Firehose.KMS.KeyDisabled"},
			{keyring.PendingDeletion, KMSKeyInvalidState, "Firehose.KMS.InvalidStateException"},
		} {
			if err := r.ring.SetState(t.Context(), scope, "k", c.state); err != nil {
				t.Fatal(err)
			}
			if err := r.engine.Resume(t.Context(), "d1"); err != nil {
				t.Fatal(err)
			}
			wait(time.Minute)
			if r.metrics.sum(c.metric) == 0 || !slices.ContainsFunc(r.events.all(), func(s string) bool { return strings.Contains(s, c.code) }) {
				t.Errorf("%s: %v %q", c.state, r.metrics.sums, r.events.all())
			}
		}
		if err := r.ring.SetState(t.Context(), scope, "k", keyring.Enabled); err != nil {
			t.Fatal(err)
		}
		r.flush("d1")
		same(t, "with the key", p.all(), []string{"a"})
	})
}

func TestBacklogIsSmallAndRight(t *testing.T) {
	var b backlog
	total := int64(0)
	for i := range uint64(100_000) {
		b.add(i+1, int64(i%7))
		total += int64(i % 7)
	}
	if b.bytes != total || len(b.puts) > maxBacklogPuts {
		t.Errorf("%d bytes in %d entries, want %d", b.bytes, len(b.puts), total)
	}
	b.settle(50_001)
	if b.bytes < total*4/10 || b.bytes > total*8/10 {
		t.Errorf("%d of %d bytes are left after half", b.bytes, total)
	}
	b.settle(100_001)
	if b.bytes != 0 || len(b.puts) != 0 {
		t.Errorf("%d bytes in %d entries are left", b.bytes, len(b.puts))
	}
}

func TestTopicsWithoutBrokersAreReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, func(o *Options) { o.Topics = &Topics{} }), newPeer()
		d := topicDefinition(p)
		r.start(d)
		wait(time.Minute)
		if !slices.ContainsFunc(r.events.all(), func(s string) bool {
			return strings.Contains(s, "MSK.ServiceException") && strings.Contains(s, testCluster)
		}) {
			t.Errorf("%q", r.events.all())
		}
	})
}

func TestDefinitionsAreChecked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		e := r.start()
		for name, change := range map[string]func(*Definition){
			"no id":          func(d *Definition) { d.ID = "" },
			"long id":        func(d *Definition) { d.ID = strings.Repeat("x", 65) },
			"no destination": func(d *Definition) { d.Main = nil },
			"no streams":     func(d *Definition) { d.Source.Stream = &StreamConfig{} },
			"no topics":      func(d *Definition) { d.Source.Topic = &TopicConfig{} },
		} {
			d := define(p)
			change(d)
			if err := e.Apply(t.Context(), d); err == nil {
				t.Errorf("%s: applied", name)
			}
		}
		for name, err := range map[string]error{
			"put":    func() error { _, _, err := e.Put(t.Context(), "x", [][]byte{{1}}); return err }(),
			"flush":  e.Flush(t.Context(), "x"),
			"pause":  e.Pause(t.Context(), "x"),
			"status": func() error { _, err := e.Status("x"); return err }(),
			"ledger": func() error { _, err := e.Ledger("x", 0); return err }(),
		} {
			if err != ErrNotFound {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := New(Options{}); err == nil {
			t.Error("made an engine of nothing")
		}
		r.stop()
		if err := e.Apply(t.Context(), define(p)); err != ErrClosed {
			t.Error(err)
		}
	})
}

// Without files to spill to, a delivery stream that cannot deliver leaves memory
// to the others.
func TestStuckDeliveryStreamsLeaveRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, stuck, p := newRig(t, func(o *Options) { o.BufferMemory = 16 << 20 }), newPeer(), newPeer()
		stuck.wait = func(ctx context.Context) { <-ctx.Done() }
		var definitions []*Definition
		for i := range 4 {
			d := define(stuck)
			d.ID = fmt.Sprint("stuck", i)
			d.Hints.Bytes = 64 << 20
			definitions = append(definitions, d)
		}
		good := define(p)
		good.Hints.Interval = time.Second
		r.start(append(definitions, good)...)
		r.engine.o.DrainTimeout = -1
		data := strings.Repeat("x", 1<<20)
		for range 30 {
			for _, d := range definitions {
				r.put(d.ID, data)
			}
			synctest.Wait()
		}
		used := r.engine.memory.used
		for i := range 10 {
			r.put("d1", fmt.Sprint(i, data))
			wait(2 * time.Second)
			if n := len(p.all()); n != i+1 {
				t.Fatalf("%d of %d records arrived with %d bytes of memory taken", n, i+1, used)
			}
		}
	})
}
