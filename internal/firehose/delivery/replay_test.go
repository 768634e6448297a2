package delivery

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
)

// The first record of a stored batch takes another way after a crash, and comes
// back after the next: the batch that it then begins must not replace the object
// of the one that it was to begin.
func TestRecordsThatChangeTheirWayReplaceNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, failures := newRig(t, nil), newPeer(), newPeer()
		var phase atomic.Int32
		has := func(b *record.Batch, data string) bool {
			found := false
			_ = b.Each(func(_ int, r *record.Record) error { found = found || string(r.Data) == data; return nil })
			return found
		}
		no := &dest.Error{Code: "S3.SlowDown", Message: "busy"}
		p.fault = func(_ int, b *record.Batch, stored bool) (dest.Result, error) {
			if phase.Load() == 1 && (has(b, "record 1") || stored) {
				return dest.Result{}, no
			}
			return dest.Result{}, nil
		}
		failures.fault = func(int, *record.Batch, bool) (dest.Result, error) {
			if phase.Load() == 2 {
				return dest.Result{}, no
			}
			return dest.Result{}, nil
		}
		d := define(p)
		d.Errors, d.Hints = failures, record.Hints{Bytes: 16, Interval: time.Second}
		d.Chain = process.NewChain(process.Config{Function: &process.Function{ARN: "f", Buffer: record.Hints{Bytes: 1 << 20}}}, &function{
			invoker: invoker{result: func(data string) (string, string, map[string]string) {
				if phase.Load() == 2 && data == "record 3" {
					return "ProcessingFailed", data, nil
				}
				return "Ok", data, nil
			}},
		})
		phase.Store(1)
		r.start(d)
		r.put("d1", "record 1", "record 2", "record 3", "record 4")
		wait(10 * time.Second)
		if n := p.count(); n != 1 {
			t.Fatalf("%d objects in the first run", n)
		}
		r.kill()
		phase.Store(2)
		r.start(d)
		wait(10 * time.Second)
		r.kill()
		phase.Store(3)
		r.start(d)
		r.flush("d1")
		got := unique(p.all())
		same(t, "destination", got, []string{"record 1", "record 2", "record 3", "record 4"})
	})
}

// What was settled behind the place that a run came to stays settled for the one
// after it.
func TestAccountsOfEarlierRunsAreKept(t *testing.T) {
	l := &lane{}
	l.account.next = 10
	l.account.enter(10, 1, true)
	l.account.enter(11, 1, true)
	l.account.enter(12, 2, true)
	l.account.expect(12, nil)
	l.account.settle(spans{}.add(11, 0, false), false)
	l.account.settle(spans{}.add(12, 1, true), false)
	l.settled = &settled{
		delivery: runs{{11, 14}, {20, 30}}, backup: runs{{15, 16}},
		partial: map[uint64]*parts{12: {done: [][2]uint32{{0, 1}}}, 17: {done: [][2]uint32{{2, 5}}}},
	}
	row := laneRow{Low: l.account.low()}
	row.Delivery, row.Backup, row.Partial = l.account.encode()
	row.Delivery, row.Backup, row.Partial = l.mergeSettled(row)
	s, err := decodeSettled(row.Low, row.Delivery, row.Backup, row.Partial)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for index := uint64(10); index < 31; index++ {
		switch {
		case s.delivery.has(index):
			text.WriteByte('d')
		case s.backup.has(index):
			text.WriteByte('b')
		default:
			text.WriteByte('.')
		}
	}
	if got := text.String(); got != ".d.d.b....dddddddddd." || s.partial[12].has(0) || !s.partial[12].has(1) || !s.partial[17].has(4) {
		t.Errorf("%s, %v", got, s.partial)
	}
}

// Settled batches behind one that is stuck are not delivered again, however often
// the server crashes before it comes that far.
func TestCrashAfterCrashDeliversOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		p.nameless = true // every delivery counts
		var stuck atomic.Bool
		stuck.Store(true)
		p.fault = func(_ int, b *record.Batch, stored bool) (dest.Result, error) {
			if stuck.Load() && b.First.Index == 1 {
				return dest.Result{}, &dest.Error{Code: "S3.SlowDown", Message: "busy"}
			}
			return dest.Result{}, nil
		}
		d := define(p)
		d.Hints = record.Hints{Bytes: 8, Interval: time.Second}
		r.start(d)
		want := []string{"record 1", "record 2", "record 3", "record 4", "record 5"}
		for _, text := range want {
			r.put("d1", text)
			wait(2 * time.Second)
		}
		if n := p.count(); n != 4 {
			t.Fatalf("%d batches beside the one that is stuck", n)
		}
		for range 3 {
			r.kill()
			r.start(d)
			wait(time.Duration(100) * time.Millisecond)
		}
		stuck.Store(false)
		r.flush("d1")
		same(t, "deliveries", p.all(), want)
	})
}
