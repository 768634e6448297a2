package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/firehose/record"
)

const testCluster = "arn:aws:kafka:us-east-1:000000000000:cluster/c/1"

// topicRig is a rig with a cluster beside it.
type topicRig struct {
	*rig
	cluster  *kfake.Cluster
	producer *kgo.Client
}

func newTopicRig(t *testing.T, partitions int32) *topicRig {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "topic"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("topic"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	r := newRig(t, func(o *Options) { o.Topics = &Topics{Brokers: map[string][]string{testCluster: cluster.ListenAddrs()}} })
	return &topicRig{r, cluster, producer}
}

func (r *topicRig) produce(partition int32, at time.Time, values ...string) {
	r.t.Helper()
	for _, v := range values {
		res := r.producer.ProduceSync(r.t.Context(), &kgo.Record{Partition: partition, Value: []byte(v), Key: []byte("key"), Timestamp: at})
		if err := res.FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// await waits until peers hold n records.
func await(t *testing.T, n int, peers ...*peer) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got := 0
		for _, p := range peers {
			got += len(p.all())
		}
		if got >= n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d of %d records arrived", got, n)
		}
	}
}

func topicDefinition(p *peer) *Definition {
	d := define(p)
	d.Source.Topic = &TopicConfig{ClusterARN: testCluster, Topic: "topic"}
	d.Hints = record.Hints{Bytes: 4 << 10}
	return d
}

func TestTopicsAreRead(t *testing.T) {
	r, p, errors := newTopicRig(t, 3), newPeer(), newPeer()
	var want []string
	for i := range 90 {
		want = append(want, fmt.Sprintf("%03d %s", i, strings.Repeat("z", 100)))
		r.produce(int32(i%3), time.Now(), want[i])
	}
	d := topicDefinition(p)
	d.Errors = errors
	d.Source.Topic.MaxRecordBytes = 1000
	r.start(d)
	await(t, 90, p)
	same(t, "topic", p.all(), want)
	// Each partition is in order.
	for part := range 3 {
		var got []string
		for _, s := range p.all() {
			var i int
			if _, err := fmt.Sscanf(s, "%03d", &i); err == nil && i%3 == part {
				got = append(got, s)
			}
		}
		if !slices.IsSorted(got) {
			t.Errorf("partition %d: %.80q", part, got)
		}
	}
	r.produce(1, time.Now(), strings.Repeat("l", 1001))
	await(t, 1, errors)
	if lines := parseLines(t, errors); lines[0].ErrorCode != "MSK.RecordTooLarge" || len(lines[0].RawData) != 1001 {
		t.Errorf("%.200v", lines)
	}
	r.flush("d1")
	st, err := r.engine.Status("d1")
	if err != nil || len(st.Lanes) != 3 || st.Lanes[1].Name != "1" || st.Lanes[1].Delivered != 32 || st.Lanes[1].Available != 32 {
		t.Errorf("%+v, %v", st, err)
	}
	if e, _ := r.engine.Ledger("d1", 1); e[0].From != "30" || e[0].Lane != "1" {
		t.Errorf("%+v", e)
	}
	if r.metrics.sum(DataReadFromSourceRecords) != 91 || r.metrics.sum(FailedValidationRecords) != 1 {
		t.Errorf("%v", r.metrics.sums)
	}

	// What was delivered is not read again, after a stop and after a crash.
	r.stop()
	admin := kadm.NewClient(r.producer)
	if offsets, err := admin.FetchOffsets(context.Background(), "millrace-d"); err != nil || offsets["topic"][1].At != 31 {
		t.Errorf("the group is at %+v, %v", offsets["topic"], err)
	}
	r.produce(0, time.Now(), "after the stop")
	r.start(d)
	await(t, 91, p)
	r.kill()
	r.produce(2, time.Now(), "after the crash")
	r.start(d)
	await(t, 92, p)
	same(t, "after starts", p.all(), append(want, "after the stop", "after the crash"))
	r.stop()
}

func TestTopicsAreReadFromATime(t *testing.T) {
	r, p := newTopicRig(t, 1), newPeer()
	now := time.Now().Truncate(time.Millisecond)
	r.produce(0, now.Add(-2*time.Hour), "old")
	r.produce(0, now.Add(-time.Hour), "at", "later")
	d := topicDefinition(p)
	d.Source.Topic.From = now.Add(-time.Hour)
	r.start(d)
	await(t, 2, p)
	if got := p.all(); !slices.Equal(got, []string{"at", "later"}) {
		t.Errorf("%q", got)
	}
	r.stop()
}
