package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/keyring"
)

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestHintsSealBuffers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		d.Hints = record.Hints{Bytes: 100, Interval: time.Minute}
		r.start(d)
		r.put("d1", strings.Repeat("a", 60))
		wait(30 * time.Second)
		if n := p.count(); n != 0 {
			t.Errorf("%d objects before anything is due", n)
		}
		// The next one does not fit beside the first, so the first goes.
		r.put("d1", strings.Repeat("b", 60))
		synctest.Wait()
		if n := p.count(); n != 1 {
			t.Errorf("%d objects when the size is reached", n)
		}
		// What is left goes a minute after it came.
		wait(59 * time.Second)
		if n := p.count(); n != 1 {
			t.Errorf("%d objects early", n)
		}
		wait(time.Second)
		if n := p.count(); n != 2 {
			t.Errorf("%d objects after a minute", n)
		}
		same(t, "objects", p.all(), []string{strings.Repeat("a", 60), strings.Repeat("b", 60)})
		st, err := r.engine.Status("d1")
		if err != nil || st.Records != 0 || st.Lanes[0].Delivered != 3 || st.Lanes[0].Available != 3 {
			t.Errorf("%+v, %v", st, err)
		}
		entries, err := r.engine.Ledger("d1", 0)
		if err != nil || len(entries) != 2 || entries[0].Sequence != 2 || entries[0].Outcome != Delivered || len(entries[0].From) != 56 || len(entries[0].Objects) != 1 {
			t.Errorf("%+v, %v", entries, err)
		}
		if r.metrics.sum("DeliveryToS3.Records") != 2 || r.metrics.sum("DeliveryToS3.Success") != 2 || r.metrics.sum("DeliveryToS3.Bytes") != 120 {
			t.Errorf("%v", r.metrics.sums)
		}
	})
}

func TestZeroIntervalDeliversAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		d.Hints, d.Kind = record.Hints{Bytes: 1 << 20}, KindHTTPEndpoint
		busy := make(chan struct{})
		p.wait = func(ctx context.Context) {
			select {
			case <-busy:
			case <-ctx.Done():
			}
		}
		r.start(d)
		r.put("d1", "1")
		synctest.Wait()
		// While the first is under way, what comes is gathered.
		r.put("d1", "2")
		r.put("d1", "3")
		synctest.Wait()
		close(busy)
		synctest.Wait()
		if got := p.all(); !slices.Equal(got, []string{"1", "2", "3"}) || p.count() != 2 {
			t.Errorf("%q in %d batches", got, p.count())
		}
	})
}

func TestRecordIDsGrow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start(define(newPeer()))
		var last string
		for range 20 {
			for _, id := range r.put("d1", "a", "b") {
				if len(id) != 56 || id <= last || !strings.HasPrefix(id, "4") {
					t.Errorf("%s after %s", id, last)
				}
				last = id
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestSealedPutsAreDelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		key, err := r.ring.NewDataKey(t.Context(), keyring.Scope{Account: "000000000000", Region: "us-east-1"}, "k", "arn")
		if err != nil {
			t.Fatal(err)
		}
		d := define(p)
		r.start(d)
		r.put("d1", "plain")
		sealed := *d
		sealed.Encryption = &Encryption{DataKey: key}
		if err := r.engine.Apply(t.Context(), &sealed); err != nil {
			t.Fatal(err)
		}
		if _, encrypted, err := r.engine.Put(t.Context(), "d1", [][]byte{[]byte("secret"), {}}); err != nil || !encrypted {
			t.Errorf("%v, %v", encrypted, err)
		}
		batches, _, err := r.log.Read(t.Context(), r.engine.find("d1").direct.shard, 2, 1<<20, nil)
		if err != nil || len(batches) == 0 || strings.Contains(string(batches[len(batches)-1].Payload), "secret") {
			t.Errorf("the log holds what was to be sealed: %v", err)
		}
		r.flush("d1")
		if got := p.all(); !slices.Equal(got, []string{"plain", "secret", ""}) {
			t.Errorf("%q", got)
		}
		// Without its key a record waits, and the reason is told.
		scope := keyring.Scope{Account: "000000000000", Region: "us-east-1"}
		r.put("d1", "later")
		if err := r.ring.SetState(t.Context(), scope, "k", keyring.Disabled); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r.start(&sealed)
		if _, _, err := r.engine.Put(t.Context(), "d1", [][]byte{{1}}); err == nil {
			t.Error("sealed with a disabled key")
		}
		if err := r.ring.SetState(t.Context(), scope, "k", keyring.Enabled); err != nil {
			t.Fatal(err)
		}
		wait(time.Minute)
		r.flush("d1")
		if got := p.all(); !slices.Equal(got, []string{"plain", "secret", "", "later"}) {
			t.Errorf("%q", got)
		}
	})
}

// A destination that fails for a while gets everything in the end, and the pauses
// grow.
func TestObjectsAreTriedForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		var attempts []time.Time
		p.fault = func(attempt int, b *record.Batch, stored bool) (dest.Result, error) {
			if stored || len(attempts) >= 40 {
				return dest.Result{}, nil
			}
			attempts = append(attempts, time.Now())
			return dest.Result{}, &dest.Error{Code: "S3.AccessDenied", Message: "no"}
		}
		r.start(define(p))
		r.put("d1", "a")
		wait(time.Minute)
		wait(40 * 35 * time.Second)
		if got := p.all(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%q after %d attempts", got, len(attempts))
		}
		first, last := attempts[1].Sub(attempts[0]), attempts[39].Sub(attempts[38])
		if first < 850*time.Millisecond || first > 1150*time.Millisecond || last < 25*time.Second || last > 35*time.Second {
			t.Errorf("pauses of %v and %v", first, last)
		}
		events := r.events.all()
		want := `group/DestinationDelivery {"deliveryStreamARN":"arn:aws:firehose:us-east-1:000000000000:deliverystream/d","destination":"S3","deliveryStreamVersionId":1,"message":"no","errorCode":"S3.AccessDenied"}`
		if len(events) == 0 || events[0] != want || len(events) > 40 {
			t.Errorf("%d events, the first %s", len(events), events[0])
		}
		if e, _ := r.engine.Ledger("d1", 1); e[0].Attempts != 41 || e[0].Error == "" {
			t.Errorf("%+v", e)
		}
	})
}

func TestDirectPutsExpireLoudly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		p.fault = func(int, *record.Batch, bool) (dest.Result, error) {
			return dest.Result{}, &dest.Error{Code: "S3.NoSuchBucket", Message: "gone"}
		}
		r.start(define(p))
		r.put("d1", "a", "b")
		wait(25 * time.Hour)
		if r.metrics.sum(RecordsExpired) != 2 {
			t.Errorf("%v expired", r.metrics.sum(RecordsExpired))
		}
		if e, _ := r.engine.Ledger("d1", 1); len(e) != 1 || e[0].Outcome != Expired {
			t.Errorf("%+v", e)
		}
		if !slices.ContainsFunc(r.events.all(), func(s string) bool { return strings.Contains(s, "DataExpired") }) {
			t.Errorf("%v", r.events.all())
		}
	})
}

// The retry clocks of the service: from the first attempt, or from the first
// failure without the time that was spent waiting.
func TestRetryClocks(t *testing.T) {
	for _, c := range []struct {
		name     string
		retry    dest.Retry
		attempt  time.Duration // how long one takes
		waited   time.Duration
		attempts int
	}{
		{"no retry", dest.Retry{}, time.Second, 0, 1},
		{"an attempt longer than the duration is the last", dest.Retry{Duration: 10 * time.Second, FromFirstAttempt: true}, 11 * time.Second, 0, 1},
		{"the first attempt does not count", dest.Retry{Duration: 10 * time.Second, Initial: time.Minute}, 11 * time.Second, 0, 2},
		{"waiting does not count", dest.Retry{Duration: 10 * time.Second, Initial: 4 * time.Second, Factor: 1, Jitter: 1e-9}, time.Minute, time.Minute, 4},
		{"everything counts", dest.Retry{Duration: 130 * time.Second, FromFirstAttempt: true, Initial: 4 * time.Second, Factor: 1}, time.Minute, time.Minute, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r, p, errors := newRig(t, nil), newPeer(), newPeer()
				p.fault = func(int, *record.Batch, bool) (dest.Result, error) {
					time.Sleep(c.attempt)
					return dest.Result{Waited: c.waited}, &dest.Error{Code: "HttpEndpoint.X", Message: "no"}
				}
				d := define(p)
				d.Kind, d.Retry, d.Errors = KindHTTPEndpoint, c.retry, errors
				r.start(d)
				r.put("d1", "a")
				r.flush("d1")
				lines := parseLines(t, errors)
				if len(lines) != 1 || lines[0].AttemptsMade != c.attempts || string(lines[0].RawData) != "a" || lines[0].ErrorCode != "HttpEndpoint.X" {
					t.Errorf("%+v, want %d attempts", lines, c.attempts)
				}
				if lines[0].AttemptEnding <= lines[0].ArrivalTimestamp {
					t.Errorf("%+v", lines[0])
				}
			})
		})
	}
}

// Only what failed is sent again; what cannot be accepted ever goes aside at
// once, what was not accepted in time in the end.
func TestFailedRecordsAreRepeatedAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, errors := newRig(t, nil), newPeer(), newPeer()
		p.nameless = true
		var sizes []int
		p.fault = func(attempt int, b *record.Batch, stored bool) (dest.Result, error) {
			if stored {
				return dest.Result{}, nil
			}
			sizes = append(sizes, b.Count)
			var result dest.Result
			err := b.Each(func(i int, r *record.Record) error {
				switch {
				case string(r.Data) == "never":
					result.Failed = append(result.Failed, dest.Failure{Index: i, Code: "400", Message: "bad", Fields: []dest.Field{{Name: "esIndexName", Value: "i"}}})
				case strings.HasPrefix(string(r.Data), "later") && attempt < 3, string(r.Data) == "later2":
					result.Failed = append(result.Failed, dest.Failure{Index: i, Code: "429", Message: "busy", Retry: true})
				}
				return nil
			})
			return result, err
		}
		d := define(p)
		d.Kind, d.Retry, d.Errors = KindOpenSearch, dest.Retry{Duration: 10 * time.Second, FromFirstAttempt: true}, errors
		r.start(d)
		r.put("d1", "a", "later1", "never", "b", "later2")
		r.flush("d1")
		same(t, "destination", p.all(), []string{"a", "b", "later1"})
		lines := parseLines(t, errors)
		if len(lines) != 2 || string(lines[0].RawData) != "never" || lines[0].AttemptsMade != 1 || string(lines[1].RawData) != "later2" || lines[1].ErrorCode != "429" {
			t.Errorf("%+v", lines)
		}
		if sizes[0] != 5 || sizes[1] != 2 || sizes[2] != 2 || sizes[3] != 1 {
			t.Errorf("sent %v records", sizes)
		}
		if !strings.HasPrefix(errors.order[0], "AmazonOpenSearchService-failed|") || !strings.Contains(errors.all()[0], `"esIndexName":"i","rawData"`) {
			t.Errorf("%s: %s", errors.order[0], errors.all()[0])
		}
		if e, _ := r.engine.Ledger("d1", 1); e[0].Outcome != Partly || e[0].Failed != 2 {
			t.Errorf("%+v", e)
		}
	})
}

// With the error output down as well, nothing is given up and reading stops.
func TestFailingErrorOutputHoldsTheLane(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, errors := newRig(t, nil), newPeer(), newPeer()
		var down atomic.Bool
		down.Store(true)
		no := func(int, *record.Batch, bool) (dest.Result, error) {
			if down.Load() {
				return dest.Result{}, &dest.Error{Code: "S3.AccessDenied", Message: "no"}
			}
			return dest.Result{}, nil
		}
		p.fault, errors.fault = no, no
		d := define(p)
		d.Kind, d.Errors, d.Hints = KindSplunk, errors, record.Hints{Bytes: 1 << 10, Interval: time.Minute}
		r.start(d)
		var want []string
		for i := range 2000 {
			text := fmt.Sprintf("%04d%s", i, strings.Repeat("x", 996))
			want = append(want, text)
			r.put("d1", text)
		}
		wait(time.Hour)
		st, err := r.engine.Status("d1")
		if err != nil || !st.Stalled || st.Lanes[0].Delivered != 1 || st.Bytes > 3<<20 || st.LastError.Code != "S3.AccessDenied" {
			t.Errorf("%+v, %v", st, err)
		}
		down.Store(false)
		r.flush("d1")
		got := p.all()
		for _, l := range parseLines(t, errors) {
			got = append(got, string(l.RawData))
		}
		same(t, "everywhere", got, want)
		if st, _ := r.engine.Status("d1"); st.Stalled || st.Records != 0 || st.Bytes != 0 || st.Batches != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestNewVersionSealsTheOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, first, second := newRig(t, nil), newPeer(), newPeer()
		d1 := define(first)
		r.start(d1)
		r.put("d1", "a")
		synctest.Wait()
		d2 := define(second)
		d2.Version = 2
		if err := r.engine.Apply(t.Context(), d2); err != nil {
			t.Fatal(err)
		}
		r.put("d1", "b")
		synctest.Wait()
		if got := first.all(); !slices.Equal(got, []string{"a"}) || !strings.HasPrefix(first.order[0], "||1|") || first.closed != 1 {
			t.Errorf("%q as %q, closed %d times", got, first.order, first.closed)
		}
		wait(time.Minute)
		if got := second.all(); !slices.Equal(got, []string{"b"}) || !strings.HasPrefix(second.order[0], "||2|") || second.closed != 0 {
			t.Errorf("%q as %q", got, second.order)
		}
		r.stop()
		if first.closed != 1 || second.closed != 1 {
			t.Errorf("closed %d and %d times", first.closed, second.closed)
		}
	})
}

func TestBackupHoldsWhatArrived(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, backup, errors := newRig(t, nil), newPeer(), newPeer(), newPeer()
		d := define(p)
		d.Backup, d.Errors, d.BackupHints = backup, errors, record.Hints{Bytes: 1 << 20, Interval: 2 * time.Minute}
		d.Chain = process.NewChain(process.Config{Function: &process.Function{ARN: "f", Buffer: record.Hints{Bytes: 100, Interval: 10 * time.Second}}}, &function{
			invoker: invoker{result: func(data string) (string, string, map[string]string) {
				switch data {
				case "drop":
					return "Dropped", "", nil
				case "fail":
					return "ProcessingFailed", data, nil
				}
				return "Ok", strings.ToUpper(data), nil
			}},
		})
		r.start(d)
		r.put("d1", "a", "drop", "fail", "b")
		wait(10 * time.Second)
		if st, _ := r.engine.Status("d1"); st.Records != 7 {
			t.Errorf("%d buffered after the function's interval", st.Records)
		}
		wait(time.Minute)
		same(t, "main", p.all(), []string{"A", "B"})
		if lines := parseLines(t, errors); len(lines) != 1 || string(lines[0].RawData) != "fail" || lines[0].ErrorCode != "Lambda.ProcessingFailedStatus" {
			t.Errorf("%+v", lines)
		}
		if backup.count() != 0 {
			t.Error("the backup has hints of its own")
		}
		wait(time.Minute)
		same(t, "backup", backup.all(), []string{"a", "drop", "fail", "b"})
		if st, _ := r.engine.Status("d1"); st.Lanes[0].Delivered != 5 {
			t.Errorf("%+v", st)
		}
		if r.metrics.sum(BackupToS3Records) != 4 || r.metrics.sum(ExecuteProcessingSuccess) != 1 {
			t.Errorf("%v", r.metrics.sums)
		}
	})
}

// function is a process.Invoker.
type function struct {
	invoker
	wait func(payload []byte)
}

func (f *function) Invoke(ctx context.Context, arn string, payload []byte) (process.Answer, error) {
	if f.wait != nil {
		f.wait(payload)
	}
	if f.fault != nil {
		if err := f.fault(); err != nil {
			return process.Answer{}, err
		}
	}
	text, err := f.answer(payload)
	return process.Answer{Payload: text}, err
}

// Functions run beside each other, and the order comes back.
func TestOrderIsRestoredAfterFunctions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		running, most, calls := 0, 0, 0
		f := &function{invoker: invoker{result: func(data string) (string, string, map[string]string) { return "Ok", data, nil }}}
		mu := make(chan struct{}, 1)
		f.wait = func([]byte) {
			mu <- struct{}{}
			running++
			calls++
			most = max(most, running)
			pause := time.Duration(100-calls) * time.Second
			<-mu
			time.Sleep(pause) // later calls are faster
			mu <- struct{}{}
			running--
			<-mu
		}
		d.Chain = process.NewChain(process.Config{Function: &process.Function{ARN: "f", Buffer: record.Hints{Bytes: 1000, Interval: time.Second}}}, f)
		r.start(d)
		var want []string
		for i := range 40 {
			want = append(want, fmt.Sprintf("%02d%s", i, strings.Repeat("y", 500)))
			r.put("d1", want[i])
		}
		r.flush("d1")
		if got := p.all(); !slices.Equal(got, want) {
			t.Errorf("%.60q", got)
		}
		if most != 5 {
			t.Errorf("%d calls at a time", most)
		}
	})
}

func TestPauseHoldsAndLasts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		r.start(d)
		r.put("d1", "a")
		synctest.Wait()
		if err := r.engine.Pause(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		r.put("d1", "b")
		wait(time.Hour)
		if p.count() != 0 {
			t.Error("delivered in spite of the pause")
		}
		r.stop()
		r.start(d)
		wait(time.Hour)
		if st, _ := r.engine.Status("d1"); !st.Paused || p.count() != 0 {
			t.Errorf("%+v", st)
		}
		if err := r.engine.Resume(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		r.flush("d1")
		same(t, "after the pause", p.all(), []string{"a", "b"})
	})
}

func TestStopDrains(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		r.start(d)
		r.put("d1", "a")
		synctest.Wait()
		r.stop()
		same(t, "after the stop", p.all(), []string{"a"})
		if p.closed != 1 {
			t.Errorf("closed %d times", p.closed)
		}
		// A destination that hangs does not hold the stop for longer than it may.
		r.start(d)
		r.put("d1", "b")
		synctest.Wait()
		p.wait = func(ctx context.Context) { <-ctx.Done() }
		start := time.Now()
		r.stop()
		if took := time.Since(start); took != r.o.DrainTimeout {
			t.Errorf("took %v", took)
		}
		p.wait = nil
		r.start(d)
		wait(time.Minute)
		same(t, "after another start", p.all(), []string{"a", "b"})
	})
}

func TestRemoveForgetsEverything(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		r.start(d)
		r.put("d1", "a")
		r.flush("d1")
		r.put("d1", "b")
		synctest.Wait()
		log := r.engine.find("d1").direct.shard
		if err := r.engine.Remove(t.Context(), "d1", false); err != nil {
			t.Fatal(err)
		}
		same(t, "without draining", p.all(), []string{"a"})
		if left := r.meta.List("delivery.", "", 0); len(left) != 0 {
			t.Errorf("%d records are left, such as %q", len(left), left[0].Key)
		}
		if _, err := r.log.Bounds(t.Context(), log); err == nil {
			t.Error("the log is still there")
		}
		if _, _, err := r.engine.Put(t.Context(), "d1", [][]byte{{1}}); err != ErrNotFound {
			t.Error(err)
		}
		if err := r.engine.Apply(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		r.put("d1", "c")
		if err := r.engine.Remove(t.Context(), "d1", true); err != nil {
			t.Fatal(err)
		}
		same(t, "with draining", p.all(), []string{"a", "c"})
	})
}

func TestQuotaRefusesPuts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, func(o *Options) { o.DirectQuota = 1000 }), newPeer()
		var stuck atomic.Bool
		stuck.Store(true)
		p.fault = func(int, *record.Batch, bool) (dest.Result, error) {
			if stuck.Load() {
				return dest.Result{}, &dest.Error{Code: "S3.SlowDown", Message: "slow"}
			}
			return dest.Result{}, nil
		}
		r.start(define(p))
		r.put("d1", strings.Repeat("a", 600))
		if _, _, err := r.engine.Put(t.Context(), "d1", [][]byte{make([]byte, 600)}); err != ErrFull {
			t.Error(err)
		}
		r.put("d1", strings.Repeat("b", 300))
		r.kill()
		r.start(define(p))
		synctest.Wait()
		if _, _, err := r.engine.Put(t.Context(), "d1", [][]byte{make([]byte, 600)}); err != ErrFull {
			t.Errorf("after a start: %v", err)
		}
		stuck.Store(false)
		r.flush("d1")
		r.put("d1", strings.Repeat("c", 900))
	})
}

func TestPartitionsHaveBuffersOfTheirOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, errors := newRig(t, nil), newPeer(), newPeer()
		d := define(p)
		d.Errors = errors
		query, err := process.NewQuery(`{k: .k}`)
		if err != nil {
			t.Fatal(err)
		}
		d.Chain = process.NewChain(process.Config{Query: query}, nil)
		d.Partitioning = &Partitioning{Prefix: template(t, "p=!{partitionKeyFromQuery:k}/!{timestamp:yyyy}/"), MaxActive: 2}
		r.start(d)
		r.put("d1", `{"k":"a","n":1}`, `{"k":"b","n":2}`, `{"k":"a","n":3}`, `{"k":"c","n":4}`, `{"n":5}`, `nonsense`)
		r.flush("d1")
		if p.count() != 2 {
			t.Errorf("%q", p.order)
		}
		same(t, "partitions", p.all(), []string{`{"k":"a","n":1}`, `{"k":"b","n":2}`, `{"k":"a","n":3}`})
		codes := map[string]string{}
		for _, l := range parseLines(t, errors) {
			codes[string(l.RawData)] = l.ErrorCode
		}
		if codes[`{"k":"c","n":4}`] != codePartitionLimit || codes[`{"n":5}`] != codePartition || codes[`nonsense`] != codePartition {
			t.Errorf("%v", codes)
		}
		if !slices.ContainsFunc(errors.order, func(s string) bool { return strings.HasPrefix(s, "activePartitionExceeded|") }) {
			t.Errorf("%q", errors.order)
		}
		// Partitions whose records are delivered make room.
		r.put("d1", `{"k":"c","n":6}`)
		r.flush("d1")
		if p.count() != 3 {
			t.Errorf("%q", p.order)
		}
	})
}
