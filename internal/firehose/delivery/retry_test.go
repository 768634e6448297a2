package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

func TestPausesGrowAndHeedHints(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newClock(dest.Retry{Duration: time.Hour}, now)
	var got []time.Duration
	for range 12 {
		pause, more := c.next(now, 0, 0)
		if !more {
			t.Fatal("ended early")
		}
		got = append(got, pause)
	}
	for i, base := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 120, 120, 120, 120, 120} {
		base *= time.Second
		if low, high := base*85/100, base*115/100; got[i] < low || got[i] > high {
			t.Errorf("pause %d is %v, want %v to %v", i, got[i], low, high)
		}
	}
	if pause, _ := c.next(now, 0, 5*time.Minute); pause != 5*time.Minute {
		t.Errorf("asked for five minutes, got %v", pause)
	}
	// The last attempt comes when the time is over.
	if pause, more := c.next(now.Add(59*time.Minute), 0, time.Hour); pause != time.Minute || !more {
		t.Errorf("%v, %v", pause, more)
	}
	if _, more := c.next(now.Add(time.Hour), 0, 0); more {
		t.Error("goes on after the end")
	}
	if pause, more := newClock(dest.Retry{Duration: -1, Max: time.Second}, now).next(now.Add(1e6*time.Hour), 0, 0); !more || pause > 1200*time.Millisecond {
		t.Errorf("%v, %v", pause, more)
	}
}

// annotated is a destination that adds members to failure records.
type annotated struct{ *peer }

func (a annotated) FailureFields(r *record.Record) []dest.Field {
	return []dest.Field{{Name: "EventId", Value: fmt.Sprint(len(r.Lane.SequenceNumber(r.Index, r.Arrival)), ".", r.Sub)}}
}

func TestFailureRecordsCarryWhatDestinationsAdd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, failures := newRig(t, nil), newPeer(), newPeer()
		p.fault = func(int, *record.Batch, bool) (dest.Result, error) {
			return dest.Result{}, &dest.Error{Code: "Splunk.InvalidToken", Message: `"bad"`, Permanent: true}
		}
		d := define(p)
		d.Main, d.Kind, d.Retry, d.Errors = annotated{p}, KindSplunk, dest.Retry{Duration: time.Hour}, failures
		r.start(d)
		r.put("d1", "a")
		r.flush("d1")
		const want = `{"attemptsMade":1,"arrivalTimestamp":946684800000,"errorCode":"Splunk.InvalidToken","errorMessage":"\"bad\"",` +
			`"attemptEndingTimestamp":946684800000,"rawData":"YQ==","EventId":"56.0"}` + "\n"
		if got := failures.all(); len(got) != 1 || got[0] != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
		if !strings.HasPrefix(failures.order[0], "splunk-failed|") {
			t.Errorf("%s", failures.order[0])
		}
		if r.metrics.sum("DeliveryToSplunk.Success") != 0 || r.metrics.counts["DeliveryToSplunk.Success"] != 1 {
			t.Errorf("%v", r.metrics.counts)
		}
	})
}

// tabled is a destination whose records have error outputs of their own.
type tabled struct{ *peer }

func (tabled) ErrorOutput(r *record.Record) string {
	table, _, _ := strings.Cut(string(r.Data), " ")
	return strings.TrimPrefix(table, "-")
}

func TestFailuresOfTablesAreKeptApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// The outputs write to one place, as those with the same prefix do.
		r, p, failures := newRig(t, nil), newPeer(), newPeer()
		p.fault = func(_ int, b *record.Batch, stored bool) (result dest.Result, err error) {
			err = b.Each(func(i int, r *record.Record) error {
				if !strings.HasPrefix(string(r.Data), "good") {
					result.Failed = append(result.Failed, dest.Failure{Index: i, Code: "Iceberg.MalformedData", Message: "no"})
				}
				return nil
			})
			return result, err
		}
		d := define(p)
		d.Main, d.Kind, d.Errors, d.ErrorsOf = tabled{p}, KindIceberg, failures, map[string]Writer{"one": failures, "two": failures}
		r.start(d)
		r.put("d1", "one a", "good", "two b", "- c", "one d", "three e", "good")
		r.flush("d1")
		var got []string
		for _, name := range failures.order {
			var data []string
			for _, l := range failures.objects[name] {
				var v struct{ RawData []byte }
				if err := json.Unmarshal([]byte(l), &v); err != nil {
					t.Fatal(err)
				}
				data = append(data, string(v.RawData))
			}
			got = append(got, strings.Join(data, ", "))
		}
		// There is no output for three: its failures are with the destination's.
		if want := []string{"- c", "one a, one d", "three e", "two b"}; !slices.Equal(got, want) || len(failures.objects) != 4 {
			t.Errorf("%d objects, %q; want %q", len(failures.objects), got, want)
		}
		e, _ := r.engine.Ledger("d1", 1)
		if e[0].Outcome != Partly || e[0].Failed != 5 || e[0].Records != 7 {
			t.Errorf("%+v", e)
		}
	})
}

// A batch may be a million of records, and what is kept about each that is refused
// is a fraction of what the smallest one takes in a buffer.
func TestRefusalsOfAWholeBatchAreSmall(t *testing.T) {
	const records = 1 << 20
	f := &flight{attempts: 1}
	problem := &dest.Error{Code: "HttpEndpoint.DestinationException", Message: strings.Repeat("no", 4000)}
	before := allocated()
	f.refuse(nil, everything(records), problem, time.Unix(1, 0))
	if each := (allocated() - before) / records; each > 64 {
		t.Errorf("%d bytes a record", each)
	}
	f.refused = nil
	for i := range 3 {
		f.refused = append(f.refused, f.refusal(nil, dest.Failure{Index: i, Code: "Splunk.ServerError", Message: problem.Message}, time.Unix(1, 0)))
	}
	if f.refused[2].why != f.refused[0].why {
		t.Error("the same reason is there again")
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// keeper is a destination that keeps what it could not deliver.
type keeper struct {
	*peer
	kept    []string
	refuses int
}

func (k *keeper) Abandon(_ context.Context, b *record.Batch, cause error) (dest.Result, error) {
	if k.refuses > 0 {
		k.refuses--
		return dest.Result{}, errors.New("not now")
	}
	k.kept = append(k.kept, fmt.Sprint(b.Count, " ", cause))
	return dest.Result{Objects: []dest.Object{{Name: "errors/manifests/1"}}}, nil
}

func TestDestinationsMayKeepWhatTheyCouldNotDeliver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p, failures := newRig(t, nil), newPeer(), newPeer()
		p.fault = func(int, *record.Batch, bool) (dest.Result, error) {
			return dest.Result{}, &dest.Error{Code: "Redshift.TableNotFound", Message: "no table"}
		}
		k := &keeper{peer: p, refuses: 2}
		d := define(p)
		d.Main, d.Kind, d.Errors = k, KindRedshift, failures
		d.Retry = dest.Retry{Duration: 19 * time.Minute, FromFirstAttempt: true, Initial: 5 * time.Minute, Max: 5 * time.Minute, Factor: 1, Jitter: 1e-9}
		r.start(d)
		r.put("d1", "a", "b")
		r.flush("d1")
		if !slices.Equal(k.kept, []string{"2 Redshift.TableNotFound: no table"}) || failures.count() != 0 {
			t.Errorf("%q; %d failure objects", k.kept, failures.count())
		}
		e, _ := r.engine.Ledger("d1", 1)
		if e[0].Outcome != Refused || e[0].Attempts != 5 || e[0].Failed != 2 || !slices.Equal(e[0].Objects, []string{"errors/manifests/1"}) {
			t.Errorf("%+v", e)
		}
	})
}

// A retry goes where an update says.
func TestRetriesFollowAnUpdate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, first, second := newRig(t, nil), newPeer(), newPeer()
		first.fault = func(int, *record.Batch, bool) (dest.Result, error) {
			return dest.Result{}, &dest.Error{Code: "HttpEndpoint.ConnectionFailed", Message: "no"}
		}
		d := define(first)
		d.Kind, d.Retry, d.Hints.Interval = KindHTTPEndpoint, dest.Retry{Duration: time.Hour}, 0
		r.start(d)
		r.put("d1", "a")
		wait(time.Minute)
		next := define(second)
		next.Kind, next.Version, next.Hints.Interval = KindHTTPEndpoint, 2, 0
		if err := r.engine.Apply(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Minute)
		if got := second.all(); !slices.Equal(got, []string{"a"}) || !strings.HasPrefix(second.order[0], "||1|") || first.closed != 1 {
			t.Errorf("%q as %q, closed %d times", got, second.order, first.closed)
		}
	})
}

func TestFreshnessIsReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, p := newRig(t, nil), newPeer()
		d := define(p)
		d.Hints.Interval = 10 * time.Minute
		r.start(d)
		r.put("d1", "a")
		wait(9*time.Minute + time.Second)
		m := r.metrics
		if n, sum := m.counts["DeliveryToS3.DataFreshness"], m.sum("DeliveryToS3.DataFreshness"); n < 8 || n > 10 || sum < 60 || sum > 9*60*10 {
			t.Errorf("%d samples, %v together", n, sum)
		}
		wait(2 * time.Minute)
		n := m.counts["DeliveryToS3.DataFreshness"]
		wait(time.Hour)
		if more := m.counts["DeliveryToS3.DataFreshness"] - n; more != 0 {
			t.Errorf("%d samples while there is nothing", more)
		}
	})
}
