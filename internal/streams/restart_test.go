package streams

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// newDiskRig is a rig on the embedded engine over a memory file system.
func newDiskRig(t testing.TB, disk *vfs.Memory, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.clock.Store(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	engine, err := local.Open(t.Context(), disk, local.Options{Now: r.time, SegmentBytes: 4 << 20, SegmentCount: 4, LowWatermarkBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	r.log = shardlog.New(engine, shardlog.Options{})
	r.opts = Options{Log: r.log, Now: r.time}
	if change != nil {
		change(&r.opts)
	}
	r.start()
	return r
}

// close stops everything in order.
func (r *rig) close() {
	r.t.Helper()
	r.stop()
	if err := r.log.Close(); err != nil {
		r.t.Error(err)
	}
}

// What was acknowledged is there after a crash, whatever else was under way: a
// stream with its shards, its number of the next shard, tags and consumers.
func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	disk := vfs.NewMemory()
	r := newDiskRig(t, disk, nil)
	ctx := t.Context()
	var want []string
	var clones []*vfs.Memory
	var states []string
	state := func(r *rig) string {
		st := r.lookup(testAccount, testRegion, "s")
		if st == nil {
			return "none"
		}
		out := fmt.Sprint(st.status, st.retention, len(st.shards), st.record.NextShard, r.registry.attributesOf(st.arn).Tags)
		for _, sh := range st.shards {
			out += fmt.Sprint(" ", sh.index, ":", sh.start, "-", sh.end, ":", sh.log, ":", sh.closed != 0)
		}
		for _, c := range r.registry.consumersOf(streamName{testAccount, testRegion, "s"}) {
			out += " " + c.arn + " " + string(c.status)
		}
		return out
	}
	steps := []func() error{
		func() error {
			_, err := r.CreateStream(ctx, r.call(), &kinesis.CreateStreamInput{StreamName: api.Ptr("s"), ShardCount: api.Ptr(int32(3)), Tags: map[string]string{"a": "1"}})
			return err
		},
		func() error {
			_, err := r.SplitShard(ctx, r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: api.Ptr("1"), NewStartingHashKey: api.Ptr("150000000000000000000000000000000000000")})
			return err
		},
		func() error {
			_, err := r.UpdateShardCount(ctx, r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(int32(7))})
			return err
		},
		func() error {
			_, err := r.IncreaseStreamRetentionPeriod(ctx, r.call(), &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: api.Ptr("s"), RetentionPeriodHours: api.Ptr(int32(48))})
			return err
		},
		func() error {
			_, err := r.RegisterStreamConsumer(ctx, r.call(), &kinesis.RegisterStreamConsumerInput{StreamARN: api.Ptr(r.get("s").arn), ConsumerName: api.Ptr("c")})
			return err
		},
		func() error {
			_, err := r.DeleteStream(ctx, r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s"), EnforceConsumerDeletion: api.Ptr(true)})
			return err
		},
	}
	for i, step := range steps {
		r.advance(2 * time.Second)
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		want = append(want, state(r))
		clones = append(clones, disk.CrashClone(uint64(i)))
	}
	now := r.time()
	r.close()
	for i, clone := range clones {
		again := newDiskRig(t, clone, nil)
		again.clock.Store(now.UnixNano())
		states = append(states, state(again))
		if states[i] != want[i] {
			t.Errorf("after step %d:\n got %s\nwant %s", i, states[i], want[i])
		}
		if st := again.lookup(testAccount, testRegion, "s"); st != nil {
			checkTiling(t, st)
			for _, sh := range st.open {
				again.append(sh, 1)
			}
		}
		again.close()
	}
}

func BenchmarkCreateStream(b *testing.B) {
	for _, shards := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			r := newDiskRig(b, vfs.NewMemory(), nil)
			defer r.close()
			for b.Loop() {
				r.create("s", shards)
				if _, err := r.DeleteStream(b.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUpdateShardCount(b *testing.B) {
	for _, shards := range []int32{50, 1000, 5000} {
		b.Run(fmt.Sprintf("from=%d/to=%d", shards, 2*shards), func(b *testing.B) {
			r := newDiskRig(b, vfs.NewMemory(), nil)
			defer r.close()
			for b.Loop() {
				r.create("s", int(shards))
				if _, err := r.UpdateShardCount(b.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(2 * shards)}); err != nil {
					b.Fatal(err)
				}
				if _, err := r.DeleteStream(b.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
