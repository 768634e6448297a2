package streams

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// run starts Run in a synctest bubble; stop ends and waits for it.
func (r *rig) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		if err := r.Service.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

func TestStatesWithADelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.StateDelay, o.Now = 500*time.Millisecond, time.Now })
		stop := r.run(t.Context())
		status := func(want kinesis.StreamStatus, shards int) {
			t.Helper()
			d, err := r.DescribeStream(t.Context(), r.call(), &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")})
			if err != nil {
				t.Fatal(err)
			}
			if got := *d.StreamDescription.StreamStatus; got != want || len(d.StreamDescription.Shards) != shards {
				t.Errorf("%s with %d shards, want %s with %d", got, len(d.StreamDescription.Shards), want, shards)
			}
		}
		wait := func() {
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		st := r.create("s", 2)
		status(kinesis.StreamStatusCreating, 0)
		_, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: api.Ptr("0"), NewStartingHashKey: api.Ptr("9")})
		wantError(t, err, "ResourceInUseException", "Stream s under account "+testAccount+" not ACTIVE, instead in state CREATING")
		_, err = r.ListShards(t.Context(), r.call(), &kinesis.ListShardsInput{StreamName: api.Ptr("s")})
		wantError(t, err, "ResourceInUseException", "…")
		wait()
		status(kinesis.StreamStatusActive, 2)

		if _, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: api.Ptr("0"), NewStartingHashKey: api.Ptr("9")}); err != nil {
			t.Fatal(err)
		}
		status(kinesis.StreamStatusUpdating, 2)
		// A stop in the middle: what was accepted is finished after the start.
		stop()
		r.restart()
		status(kinesis.StreamStatusUpdating, 2)
		stop = r.run(t.Context())
		wait()
		status(kinesis.StreamStatusActive, 4)
		checkTiling(t, r.get("s"))

		out, err := r.RegisterStreamConsumer(t.Context(), r.call(), &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("c")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.DeregisterStreamConsumer(t.Context(), r.call(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: out.Consumer.ConsumerARN})
		wantError(t, err, "ResourceInUseException", "Consumer c with creation timestamp …")
		wait()
		if c := r.consumerByARN(*out.Consumer.ConsumerARN); c.status != kinesis.ConsumerStatusActive {
			t.Errorf("consumer is %s", c.status)
		}

		// Deleting while UPDATING takes the place of the other change.
		if _, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(int32(5))}); err != nil {
			t.Fatal(err)
		}
		del := &kinesis.DeleteStreamInput{StreamName: api.Ptr("s"), EnforceConsumerDeletion: api.Ptr(true)}
		if _, err := r.DeleteStream(t.Context(), r.call(), del); err != nil {
			t.Fatal(err)
		}
		<-r.get("s").gone
		status(kinesis.StreamStatusDeleting, 0)
		_, err = r.DeleteStream(t.Context(), r.call(), del)
		wantError(t, err, "ResourceInUseException", "…")
		_, err = r.CreateStream(t.Context(), r.call(), &kinesis.CreateStreamInput{StreamName: api.Ptr("s"), ShardCount: api.Ptr(int32(1))})
		wantError(t, err, "ResourceInUseException", "…")
		wait()
		if r.lookup(testAccount, testRegion, "s") != nil {
			t.Error("the stream is still there")
		}
		for i, want := range []string{"", "", "", "", "", "LimitExceededException"} {
			_, err := r.CreateStream(t.Context(), r.call(), &kinesis.CreateStreamInput{StreamName: api.Ptr(string(rune('a' + i))), ShardCount: api.Ptr(int32(1))})
			if want != "" {
				wantError(t, err, want, "…")
			} else if err != nil {
				t.Error(err)
			}
		}
		stop()
	})
}

// A scaling that was stopped between two steps goes on to the same result.
func TestScalingGoesOnAfterAStop(t *testing.T) {
	for stopAfter := range 14 {
		r := newRig(t, func(o *Options) { o.StateDelay = time.Second })
		r.create("s", 4)
		r.advance(time.Hour)
		r.finishDue(t.Context())
		if _, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(int32(3))}); err != nil {
			t.Fatal(err)
		}
		r.advance(time.Second)
		// Steps end when the context does: after so many changes of the record.
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0
		unwatch := r.meta.Watch("streams.stream/", func(c []meta.Change) {
			if changes += len(c); changes > stopAfter {
				cancel()
			}
		})
		_, _ = r.finishDue(ctx)
		cancel()
		unwatch()
		r.restart()
		checkTiling(t, r.get("s"))
		r.finishDue(t.Context())
		st := r.get("s")
		checkTiling(t, st)
		if len(st.shards) != 11 || len(st.open) != 3 || st.status != kinesis.StreamStatusActive || st.open[0].index != 6 || st.open[2].index != 10 {
			t.Errorf("stopped after %d changes: %d shards, %d open, %s", stopAfter, len(st.shards), len(st.open), st.status)
		}
	}
}

func TestOnDemandStreamsGrow(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Scaler = ScalerOptions{Interval: time.Minute, RecordsPerShard: 1, MaxShards: 10} })
	st := r.createOnDemand("s")
	r.create("p", 1)
	r.scale(t.Context())
	r.advance(time.Minute)
	r.append(st.open[0], 400)
	r.append(r.get("p").open[0], 400)
	r.scale(t.Context())
	if n := len(r.get("s").open); n != 8 {
		t.Errorf("%d shards after a busy minute", n)
	}
	if n := len(r.get("p").open); n != 1 {
		t.Errorf("a provisioned stream has %d shards", n)
	}
	r.advance(time.Minute)
	r.scale(t.Context())
	r.advance(time.Minute)
	r.scale(t.Context())
	if n := len(r.get("s").open); n != 8 {
		t.Errorf("%d shards after idle minutes", n)
	}
	checkTiling(t, r.get("s"))
}

// A sweep that meets a stream which is being deleted has nothing to complain
// about; a shard that a living stream has lost is another matter.
func TestTrimmingAStreamThatIsDeletedMeanwhile(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	r.create("gone", 1)
	r.create("lost", 1)
	gone, lost := r.lookup(testAccount, testRegion, "gone"), r.lookup(testAccount, testRegion, "lost")
	if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("gone")}); err != nil {
		t.Fatal(err)
	}
	if err := r.log.Delete(t.Context(), gone.shards[0].log, lost.shards[0].log); err != nil {
		t.Fatal(err)
	}
	r.trimAll(t.Context(), []*stream{gone})
	if log.Len() > 0 {
		t.Errorf("a deleted stream: %s", &log)
	}
	r.trimAll(t.Context(), []*stream{lost})
	if !strings.Contains(log.String(), "no such shard") {
		t.Errorf("a lost shard goes unnoticed: %q", &log)
	}
}
