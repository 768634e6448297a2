package streams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Records that were acknowledged while shards were split and merged are in
// exactly one shard each, and that shard was the one that owned their hash.
func TestWritesDuringResharding(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 2)
	stop := make(chan struct{})
	var acknowledged atomic.Int64
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			for {
				select {
				case <-stop:
					return
				default:
				}
				h := hashKey{random.Uint64(), random.Uint64()}
				for {
					sh := r.get("s").route(h)
					if sh.start.compare(h) > 0 || sh.end.compare(h) < 0 {
						t.Errorf("hash %s was routed to %s-%s", h, sh.start, sh.end)
						return
					}
					b := &driver.Batch{Shard: sh.log, Count: 1, Size: 1, Payload: driver.Bytes{1}}
					if err := r.log.Append(t.Context(), []*driver.Batch{b}); err != nil {
						t.Error(err)
						return
					}
					if b.Err == nil {
						acknowledged.Add(1)
						break
					}
					if !errors.Is(b.Err, shardlog.ErrFenced) {
						t.Error(b.Err)
						return
					}
				}
			}
		})
	}
	for _, target := range []int32{4, 7, 5, 3, 2, 4, 8} {
		if _, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: &target}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	writers.Wait()
	checkTiling(t, r.get("s"))
	var stored int64
	for _, sh := range r.get("s").shards {
		b, err := r.log.Bounds(t.Context(), sh.log)
		if err != nil {
			t.Fatal(err)
		}
		stored += int64(b.Next) - 1
		if sh.closed != 0 && b.Next > 1 && b.LastAt > sh.closed {
			t.Errorf("%s closed at %d and has a record of %d", sh.id(), sh.closed, b.LastAt)
		}
	}
	if stored != acknowledged.Load() {
		t.Errorf("%d records acknowledged, %d stored", acknowledged.Load(), stored)
	}
}

// Calls that change the same few streams at once either take effect or are
// refused in the API's words, and quotas hold.
func TestConcurrentChanges(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxShards = 12 })
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 3))
			for range 40 {
				name := string(rune('a' + random.IntN(3)))
				var err error
				switch random.IntN(6) {
				case 0, 1:
					_, err = r.CreateStream(t.Context(), r.call(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: api.Ptr(int32(1 + random.IntN(5)))})
				case 2:
					_, err = r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: &name, TargetShardCount: api.Ptr(int32(1 + random.IntN(8)))})
				case 3:
					_, err = r.AddTagsToStream(t.Context(), r.call(), &kinesis.AddTagsToStreamInput{StreamName: &name, Tags: map[string]string{fmt.Sprint(c): "x"}})
				case 4:
					_, err = r.RegisterStreamConsumer(t.Context(), r.call(), &kinesis.RegisterStreamConsumerInput{
						StreamARN: api.Ptr(streamName{testAccount, testRegion, name}.arn()), ConsumerName: api.Ptr(fmt.Sprint("c", c))})
				case 5:
					_, err = r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: &name, EnforceConsumerDeletion: api.Ptr(true)})
				}
				var modelled api.Error
				if err != nil && !errors.As(err, &modelled) {
					t.Errorf("not a modelled error: %v", err)
				}
				if open := r.registry.usage(accountName{testAccount, testRegion}).open; open > 12 {
					t.Errorf("%d shards are open", open)
				}
			}
		})
	}
	callers.Wait()
	before := map[string]string{}
	for _, st := range r.registry.all() {
		checkTiling(t, st)
		if st.status != kinesis.StreamStatusActive {
			t.Errorf("%s was left %s", st.name, st.status)
		}
		before[st.name] = fmt.Sprint(st.id, len(st.shards), r.registry.attributesOf(st.arn).Tags)
	}
	r.restart()
	for _, st := range r.registry.all() {
		if got := fmt.Sprint(st.id, len(st.shards), r.registry.attributesOf(st.arn).Tags); got != before[st.name] {
			t.Errorf("%s after a restart: %s, before %s", st.name, got, before[st.name])
		}
		delete(before, st.name)
	}
	if len(before) > 0 {
		t.Errorf("gone after a restart: %v", before)
	}
}

func TestListStreamsPages(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"b", "a", "d", "c", "B"} {
		r.create(name, 1)
	}
	var got []string
	in := &kinesis.ListStreamsInput{Limit: api.Ptr(int32(2))}
	for {
		out, err := r.ListStreams(t.Context(), r.call(), in)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, out.StreamNames...)
		if len(out.StreamSummaries) != len(out.StreamNames) || *out.HasMoreStreams != (out.NextToken != nil) {
			t.Errorf("%+v", out)
		}
		if out.NextToken == nil {
			break
		}
		in = &kinesis.ListStreamsInput{NextToken: out.NextToken}
	}
	if names := strings.Join(got, " "); names != "B a b c d" {
		t.Errorf("listed %s", names)
	}
	out, err := r.ListStreams(t.Context(), r.call(), &kinesis.ListStreamsInput{ExclusiveStartStreamName: api.Ptr("bb")})
	if err != nil || strings.Join(out.StreamNames, " ") != "c d" {
		t.Error(out, err)
	}
}

func TestAuthorisationSeam(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 2)
	if _, err := r.AddTagsToStream(t.Context(), r.call(), &kinesis.AddTagsToStreamInput{StreamName: api.Ptr("s"), Tags: map[string]string{"team": "x"}}); err != nil {
		t.Fatal(err)
	}
	c, err := r.RegisterStreamConsumer(t.Context(), r.call(), &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("c")})
	if err != nil {
		t.Fatal(err)
	}
	page, err := r.ListShards(t.Context(), r.call(), &kinesis.ListShardsInput{StreamName: api.Ptr("s"), MaxResults: api.Ptr(int32(1))})
	if err != nil {
		t.Fatal(err)
	}
	other := "arn:aws:kinesis:" + testRegion + ":210987654321:stream/z"
	tests := []struct {
		op         *api.Operation
		in         api.Shape
		arn, owner string
	}{
		{kinesis.OpDescribeStream, &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")}, st.arn, testAccount},
		{kinesis.OpDescribeStream, &kinesis.DescribeStreamInput{StreamARN: &other}, other, "210987654321"},
		{kinesis.OpCreateStream, &kinesis.CreateStreamInput{StreamName: api.Ptr("new")}, streamName{testAccount, testRegion, "new"}.arn(), testAccount},
		{kinesis.OpListStreams, &kinesis.ListStreamsInput{}, "*", testAccount},
		{kinesis.OpListShards, &kinesis.ListShardsInput{NextToken: page.NextToken}, st.arn, testAccount},
		{kinesis.OpGetRecords, &kinesis.GetRecordsInput{ShardIterator: api.Ptr("forged")}, "*", testAccount},
		{kinesis.OpDescribeStreamConsumer, &kinesis.DescribeStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("c")}, *c.Consumer.ConsumerARN, testAccount},
	}
	for _, tt := range tests {
		call := r.call()
		call.Operation = tt.op
		if arn, owner := r.ResourceARN(call, tt.in); arn != tt.arn || owner != tt.owner {
			t.Errorf("%s: got %s of %s, want %s of %s", tt.op.Name, arn, owner, tt.arn, tt.owner)
		}
	}
	call := r.call()
	call.Operation = kinesis.OpTagResource
	got := r.ConditionValues(call, &kinesis.TagResourceInput{ResourceARN: &st.arn, Tags: map[string]string{"b": "2", "a": "1"}})
	if want := "map[aws:RequestTag/a:[1] aws:RequestTag/b:[2] aws:ResourceTag/team:[x] aws:TagKeys:[a b]]"; fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
}

// A caller who goes away does not stop a change that was accepted.
func TestAcceptedChangesOutliveTheirCaller(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 4)
	ctx, cancel := context.WithCancel(t.Context())
	unwatch := r.meta.Watch("streams.stream/", func([]meta.Change) { cancel() })
	defer unwatch()
	_, err := r.UpdateShardCount(ctx, r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(int32(8))})
	if err == nil && len(r.get("s").open) != 8 {
		t.Errorf("%d shards are open", len(r.get("s").open))
	}
	checkTiling(t, r.get("s"))
}

func FuzzPageToken(f *testing.F) {
	s := &Service{now: func() time.Time { return time.Time{} }}
	call := testCall(testAccount, testRegion)
	f.Add(s.seal(pageToken{Kind: "shards", Region: testRegion, After: "1"}))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		page, err := s.open(call, "shards", token)
		if err != nil {
			return
		}
		if again, err := s.open(call, "shards", s.seal(page)); err != nil || fmt.Sprint(again) != fmt.Sprint(page) {
			t.Errorf("%q: sealed again it is another page", token)
		}
	})
}

func FuzzARN(f *testing.F) {
	f.Add("arn:aws:kinesis:eu-central-1:123456789012:stream/s")
	f.Add("arn:aws:kinesis:eu-central-1:123456789012:stream/s/consumer/c:1700000000")
	f.Fuzz(func(t *testing.T, arn string) {
		if n, ok := parseStreamARN(arn); ok {
			if again, ok := parseStreamARN(n.arn()); !ok || again != n {
				t.Errorf("%q became %q", arn, n.arn())
			}
		}
		if n, name, second, ok := parseConsumerARN(arn); ok {
			if n2, name2, second2, ok := parseConsumerARN(consumerARN(n, name, second)); !ok || n2 != n || name2 != name || second2 != second {
				t.Errorf("%q became %q", arn, consumerARN(n, name, second))
			}
		}
	})
}
