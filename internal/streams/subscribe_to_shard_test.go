package streams

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// subscriber is a client of SubscribeToShard in a synctest bubble.
type subscriber struct {
	mu     sync.Mutex
	events []kinesis.SubscribeToShardEvent
	times  []time.Time
	err    error
	ended  time.Time
	done   bool
	// hold, if set, is waited for before each event is taken.
	hold chan struct{}
}

func (sub *subscriber) all() []kinesis.SubscribeToShardEvent {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return append([]kinesis.SubscribeToShardEvent(nil), sub.events...)
}

// at is when event i came.
func (sub *subscriber) at(i int) time.Time {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.times[i]
}

func (sub *subscriber) text() string {
	var all []kinesis.Record
	for _, e := range sub.all() {
		all = append(all, e.Records...)
	}
	return texts(all)
}

func newFanOutRig(t *testing.T) (*rig, string) {
	r := newRig(t, func(o *Options) { o.Now = time.Now })
	st := r.create("s", 1)
	out, err := r.RegisterStreamConsumer(t.Context(), r.call(), &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("c")})
	if err != nil {
		t.Fatal(err)
	}
	return r, *out.Consumer.ConsumerARN
}

func (r *rig) subscribe(ctx context.Context, group *sync.WaitGroup, arn string, at kinesis.StartingPosition, hold chan struct{}) (*subscriber, error) {
	call := r.call()
	out, err := r.SubscribeToShard(ctx, call, &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: api.Ptr("0"), StartingPosition: &at})
	if err != nil {
		return nil, err
	}
	sub := &subscriber{hold: hold}
	group.Go(func() {
		err := out.Events(ctx, func(u *kinesis.SubscribeToShardEventStream) error {
			if sub.hold != nil {
				select {
				case <-sub.hold:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			e := *u.SubscribeToShardEvent
			e.Records = cloneRecords(e.Records)
			e.MillisBehindLatest = api.Ptr(*e.MillisBehindLatest)
			sub.mu.Lock()
			defer sub.mu.Unlock()
			sub.events, sub.times = append(sub.events, e), append(sub.times, time.Now())
			return nil
		})
		call.Finish()
		sub.mu.Lock()
		defer sub.mu.Unlock()
		sub.err, sub.ended, sub.done = err, time.Now(), true
	})
	return sub, nil
}

func from(kind kinesis.ShardIteratorType) kinesis.StartingPosition {
	return kinesis.StartingPosition{Type: &kind}
}

// T24, T25: heartbeats, five minutes, a clean end, and numbers to go on with.
func TestSubscriptionLivesFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, arn := newFanOutRig(t)
		var group sync.WaitGroup
		start := time.Now()
		sub, err := r.subscribe(t.Context(), &group, arn, from(trim), nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		put := time.Now()
		r.put("s", "k", []byte("a"))
		synctest.Wait()
		events := sub.all()
		last := events[len(events)-1]
		if texts(last.Records) != "a" || !sub.at(len(events)-1).Equal(put) {
			t.Errorf("the record came in %q at %v, put at %v", texts(last.Records), sub.at(len(events)-1), put)
		}
		if *last.ContinuationSequenceNumber != *last.Records[0].SequenceNumber {
			t.Error("the continuation is not the last record's number")
		}
		group.Wait()
		if sub.err != nil || sub.ended.Sub(start) != 5*time.Minute {
			t.Errorf("ended after %v with %v", sub.ended.Sub(start), sub.err)
		}
		previous, before := start, ""
		for i, e := range sub.events {
			if gap := sub.times[i].Sub(previous); gap > 5*time.Second {
				t.Errorf("silent for %v before event %d", gap, i)
			}
			if e.ContinuationSequenceNumber == nil || *e.ContinuationSequenceNumber == "0" || *e.ContinuationSequenceNumber < before {
				t.Fatalf("event %d continues at %v, before it %s", i, e.ContinuationSequenceNumber, before)
			}
			if e.Records == nil || e.MillisBehindLatest == nil || e.ChildShards != nil {
				t.Errorf("event %d: %+v", i, e)
			}
			previous, before = sub.times[i], *e.ContinuationSequenceNumber
		}
		// Going on after the last number repeats nothing, and so does going on
		// after the first, which came before any record, with the record.
		for number, want := range map[string]string{before: "", *sub.events[0].ContinuationSequenceNumber: "a"} {
			ctx, cancel := context.WithCancel(t.Context())
			again, err := r.subscribe(ctx, &group, arn, kinesis.StartingPosition{Type: api.Ptr(afterNum), SequenceNumber: &number}, nil)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := again.text(); got != want {
				t.Errorf("after %s comes %q, want %q", number, got, want)
			}
			cancel()
			group.Wait()
		}
	})
}

// T26: a young subscription stands, an older one gives way, an ended one is free.
func TestSubscriptionTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, arn := newFanOutRig(t)
		var group sync.WaitGroup
		const text = "Another active subscription exists for this consumer: " + testAccount + ":s:shardId-000000000000:c"
		first, err := r.subscribe(t.Context(), &group, arn, from(latest), nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Second - time.Millisecond)
		_, err = r.subscribe(t.Context(), &group, arn, from(latest), nil)
		wantError(t, err, "ResourceInUseException", text)
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		second, err := r.subscribe(ctx, &group, arn, from(latest), nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !first.done {
			t.Error("the old subscription goes on")
		}
		wantError(t, first.err, "ResourceInUseException", text)
		cancel()
		synctest.Wait()
		if !second.done || !errors.Is(second.err, context.Canceled) {
			t.Errorf("the second ended %v with %v", second.done, second.err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		if _, err := r.subscribe(ctx, &group, arn, from(latest), nil); err != nil {
			t.Errorf("an ended subscription still holds its place: %v", err)
		}
		cancel()
		group.Wait()
	})
}

func TestSubscriptionEndsWithItsShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, arn := newFanOutRig(t)
		var group sync.WaitGroup
		sub, err := r.subscribe(t.Context(), &group, arn, from(trim), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.put("s", "k", []byte("a"))
		synctest.Wait()
		r.split("s", "0")
		synctest.Wait()
		if !sub.done || sub.err != nil {
			t.Fatalf("ended %v with %v", sub.done, sub.err)
		}
		last := sub.events[len(sub.events)-1]
		if last.ContinuationSequenceNumber != nil || len(last.ChildShards) != 2 || len(last.Records) != 0 || sub.text() != "a" {
			t.Errorf("last event %+v, read %q", last, sub.text())
		}
		for _, e := range sub.events[:len(sub.events)-1] {
			if e.ContinuationSequenceNumber == nil || e.ChildShards != nil {
				t.Errorf("event before the last: %+v", e)
			}
		}
		group.Wait()
	})
}

// T27: consumers that are not there or gone.
func TestSubscriptionNeedsItsConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, arn := newFanOutRig(t)
		var group sync.WaitGroup
		_, err := r.subscribe(t.Context(), &group, r.get("s").arn+"/consumer/other:1", from(trim), nil)
		wantError(t, err, "ResourceNotFoundException", "Consumer other, account "+testAccount+" not found.")
		_, err = r.subscribe(t.Context(), &group, r.get("s").arn+"/consumer/c", from(trim), nil)
		wantError(t, err, "InvalidArgumentException", "…")
		sub, err := r.subscribe(t.Context(), &group, arn, from(trim), nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := r.DeregisterStreamConsumer(t.Context(), r.call(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: &arn}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantError(t, sub.err, "ResourceNotFoundException", "Consumer c, account "+testAccount+" not found.")
		group.Wait()
	})
}

func TestSubscriptionEndsWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, arn := newFanOutRig(t)
		var group sync.WaitGroup
		sub, err := r.subscribe(t.Context(), &group, arn, from(trim), nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s"), EnforceConsumerDeletion: api.Ptr(true)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantError(t, sub.err, "ResourceNotFoundException", "…")
		group.Wait()
	})
}

// A client that does not read gets one event, and everything else when it reads.
func TestSlowSubscriberHoldsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, arn := newFanOutRig(t)
		var group sync.WaitGroup
		hold := make(chan struct{})
		sub, err := r.subscribe(t.Context(), &group, arn, from(trim), hold)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 300<<10)
		for range 40 {
			r.put("s", "k", data)
		}
		synctest.Wait()
		if n := len(sub.all()); n != 0 {
			t.Errorf("%d events passed a client that does not read", n)
		}
		close(hold)
		synctest.Wait()
		records := 0
		for _, e := range sub.all() {
			records += len(e.Records)
			if len(e.Records) > 3 {
				t.Errorf("an event of %d × 300 KiB", len(e.Records))
			}
		}
		if records != 40 {
			t.Errorf("read %d records, want 40", records)
		}
		group.Wait()
	})
}
