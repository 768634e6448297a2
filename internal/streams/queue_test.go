package streams

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// queueRig is a rig with an on-demand stream s and a queue on it.
type queueRig struct {
	*rig
	arn string
}

func newQueueRig(t *testing.T, change func(*kinesis.CreateQueueInput)) *queueRig {
	t.Helper()
	r := newRig(t, nil)
	st := r.createOnDemand("s")
	in := &kinesis.CreateQueueInput{QueueName: api.Ptr("q"), StreamConfigurationList: []kinesis.QueueStreamConfiguration{{StreamARN: &st.arn}}}
	if change != nil {
		change(in)
	}
	out, err := r.CreateQueue(t.Context(), r.call(), in)
	if err != nil {
		t.Fatal(err)
	}
	return &queueRig{r, *out.QueueDescription.QueueARN}
}

// receive takes records without waiting for them: the wait has ended before it
// begins.
func (r *queueRig) receive(dead bool, limit int, visibility int32) []kinesis.QueueRecord {
	r.t.Helper()
	records, err := r.Service.receive(r.t.Context(), r.call(), r.arn, receiveRequest{dead: dead, limit: limit, visibility: &visibility})
	if err != nil {
		r.t.Fatal(err)
	}
	return records
}

func (r *queueRig) acknowledge(handles ...string) (failed []string) {
	r.t.Helper()
	in := &kinesis.AcknowledgeQueueRecordsInput{QueueARN: &r.arn}
	for _, h := range handles {
		in.Entries = append(in.Entries, kinesis.AcknowledgeQueueRecordsRequestEntry{ReceiptHandle: &h})
	}
	out, err := r.AcknowledgeQueueRecords(r.t.Context(), r.call(), in)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(out.Failed)+len(out.Successful) != len(handles) {
		r.t.Errorf("%d entries answered, want %d", len(out.Failed)+len(out.Successful), len(handles))
	}
	for _, f := range out.Failed {
		failed = append(failed, *f.ErrorCode)
	}
	return failed
}

func datas(records []kinesis.QueueRecord) string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Data))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestQueueDeliversUntilAcknowledged(t *testing.T) {
	r := newQueueRig(t, nil)
	for i := range 5 {
		r.put("s", fmt.Sprint("key", i), fmt.Append(nil, i))
	}
	first := r.receive(false, 3, 30)
	second := r.receive(false, 10, 60)
	if got := datas(append(slices.Clone(first), second...)); len(first) != 3 || got != "0 1 2 3 4" {
		t.Fatalf("received %q, %d at first", got, len(first))
	}
	for _, record := range first {
		if *record.ReceiveCount != 1 || !record.FirstReceiveTimestamp.Equal(r.time().Truncate(time.Millisecond)) || *record.PartitionKey != "key"+string(record.Data) {
			t.Errorf("record %+v", record)
		}
	}
	if left := r.receive(false, 10, 30); len(left) != 0 {
		t.Errorf("received %q while all are in flight", datas(left))
	}
	if failed := r.acknowledge(*first[0].ReceiptHandle, "forged", *first[0].ReceiptHandle); !slices.Equal(failed, []string{"InvalidArgumentException"}) {
		t.Errorf("failures %v", failed)
	}
	r.restart()
	r.advance(31 * time.Second)
	again := r.receive(false, 10, 30)
	if datas(again) != datas(first[1:]) {
		t.Errorf("received again %q, want %q", datas(again), datas(first[1:]))
	}
	for _, record := range again {
		if *record.ReceiveCount != 2 || record.FirstReceiveTimestamp.Equal(r.time()) {
			t.Errorf("record %+v", record)
		}
		i := slices.IndexFunc(first, func(f kinesis.QueueRecord) bool { return *f.RecordId == *record.RecordId })
		if i < 0 || *first[i].ReceiptHandle == *record.ReceiptHandle {
			t.Error("a second delivery needs the same record id and another handle")
		}
	}
	// A handle of the first delivery still acknowledges, and once is enough.
	if failed := r.acknowledge(*first[1].ReceiptHandle, *first[2].ReceiptHandle, *again[0].ReceiptHandle); len(failed) != 0 {
		t.Errorf("failures %v", failed)
	}
	r.advance(time.Hour)
	if left := r.receive(false, 10, 0); datas(left) != datas(second) {
		t.Errorf("received %q, want %q", datas(left), datas(second))
	}
}

func TestQueueStartingPositions(t *testing.T) {
	r := newRig(t, nil)
	st := r.createOnDemand("s")
	r.put("s", "a", []byte("old"))
	r.advance(time.Minute)
	middle := r.time()
	r.put("s", "b", []byte("middle"))
	r.advance(time.Minute)
	create := func(name string, p *kinesis.QueueStartingPosition) (*kinesis.CreateQueueOutput, error) {
		return r.CreateQueue(t.Context(), r.call(), &kinesis.CreateQueueInput{
			QueueName: &name, StreamConfigurationList: []kinesis.QueueStreamConfiguration{{StreamARN: &st.arn, StartingPosition: p}},
		})
	}
	at := func(kind kinesis.QueueStartingPositionType, at *time.Time) *kinesis.QueueStartingPosition {
		return &kinesis.QueueStartingPosition{Type: &kind, Timestamp: at}
	}
	tests := []struct {
		name  string
		start *kinesis.QueueStartingPosition
		want  string
	}{
		{"default", nil, "new"},
		{"latest", at(kinesis.QueueStartingPositionTypeLatest, nil), "new"},
		{"horizon", at(kinesis.QueueStartingPositionTypeTrimHorizon, nil), "middle new old"},
		{"time", at(kinesis.QueueStartingPositionTypeAtTimestamp, &middle), "middle new"},
	}
	var queues []*queueRig
	for _, tt := range tests {
		out, err := create(tt.name, tt.start)
		if err != nil {
			t.Fatal(err)
		}
		d := out.QueueDescription
		if *d.QueueStatus != kinesis.QueueStatusActive || d.StreamConfigurationList[0].StartingPosition.Timestamp == nil {
			t.Errorf("%s: %+v", tt.name, d)
		}
		queues = append(queues, &queueRig{r, *d.QueueARN})
	}
	// What comes after a split is delivered from both sides of it.
	r.put("s", "c", []byte("new"))
	for i, tt := range tests {
		if got := datas(queues[i].receive(false, 10, 30)); got != tt.want {
			t.Errorf("%s: received %q, want %q", tt.name, got, tt.want)
		}
	}
	_, err := create("bad", at(kinesis.QueueStartingPositionTypeAtTimestamp, nil))
	wantError(t, err, "ValidationException", "Timestamp must be set when Type is AT_TIMESTAMP.")
	_, err = create("bad", at(kinesis.QueueStartingPositionTypeLatest, &middle))
	wantError(t, err, "ValidationException", "Timestamp must not be set when Type is LATEST.")
	_, err = create("latest", nil)
	wantError(t, err, "ResourceInUseException", "Queue latest under account …")
}

func TestQueueDeadLetters(t *testing.T) {
	r := newQueueRig(t, func(in *kinesis.CreateQueueInput) {
		in.QueueAttributes = &kinesis.QueueAttributes{DeadLetterConfiguration: &kinesis.DeadLetterConfiguration{
			TargetType: api.Ptr(kinesis.TargetTypeBuiltIn), MaxReceiveCount: api.Ptr(int32(2)),
		}}
	})
	r.put("s", "k", []byte("poison"))
	for range 2 {
		if got := r.receive(false, 10, 1); len(got) != 1 {
			t.Fatalf("received %q", datas(got))
		}
		if got := r.receive(true, 10, 1); len(got) != 0 {
			t.Fatalf("dead too early: %q", datas(got))
		}
		r.advance(2 * time.Second)
	}
	if got := r.receive(false, 10, 1); len(got) != 0 {
		t.Fatalf("received a third time: %q", datas(got))
	}
	dead := r.receive(true, 10, 30)
	if datas(dead) != "poison" || *dead[0].ReceiveCount != 3 {
		t.Fatalf("dead letters %+v", dead)
	}
	if failed := r.acknowledge(*dead[0].ReceiptHandle); !slices.Equal(failed, []string{"ResourceNotFoundException"}) {
		t.Errorf("a dead letter is acknowledged like a live record: %v", failed)
	}
	restored, err := r.RestoreDeadLetterQueueRecords(t.Context(), r.call(), &kinesis.RestoreDeadLetterQueueRecordsInput{
		QueueARN: &r.arn, Entries: []kinesis.RestoreDeadLetterQueueRecordsRequestEntry{{ReceiptHandle: dead[0].ReceiptHandle}},
	})
	if err != nil || len(restored.Successful) != 1 {
		t.Fatalf("%+v %v", restored, err)
	}
	live := r.receive(false, 10, 30)
	if datas(live) != "poison" || *live[0].ReceiveCount != 1 {
		t.Errorf("restored %+v", live)
	}
}

func TestQueueOpensEncryptedRecords(t *testing.T) {
	r := newQueueRig(t, nil)
	if _, err := r.StartStreamEncryption(t.Context(), r.call(), &kinesis.StartStreamEncryptionInput{
		StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: api.Ptr("alias/aws/kinesis")}); err != nil {
		t.Fatal(err)
	}
	r.put("s", "k", []byte("secret"))
	if got := r.receive(false, 10, 0); datas(got) != "secret" {
		t.Errorf("received %q", datas(got))
	}
	if got := r.receive(false, 10, 0); datas(got) != "secret" {
		t.Errorf("received again %q", datas(got))
	}
}

func TestQueueVisibility(t *testing.T) {
	r := newQueueRig(t, nil)
	r.put("s", "k", []byte("x"))
	first := r.receive(false, 10, 30)
	change := func(handle *string, seconds int32) []kinesis.UpdateQueueRecordsVisibilityErrorEntry {
		t.Helper()
		out, err := r.UpdateQueueRecordsVisibility(t.Context(), r.call(), &kinesis.UpdateQueueRecordsVisibilityInput{
			QueueARN: &r.arn, Entries: []kinesis.UpdateQueueRecordsVisibilityRequestEntry{{ReceiptHandle: handle, VisibilityTimeoutSeconds: &seconds}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.Failed
	}
	if failed := change(first[0].ReceiptHandle, 100); len(failed) != 0 {
		t.Fatal(failed)
	}
	r.advance(50 * time.Second)
	if got := r.receive(false, 10, 30); len(got) != 0 {
		t.Error("visible before its extended timeout")
	}
	if failed := change(first[0].ReceiptHandle, 0); len(failed) != 0 {
		t.Fatal(failed)
	}
	second := r.receive(false, 10, 30)
	if len(second) != 1 {
		t.Fatal("not visible at once")
	}
	if failed := change(first[0].ReceiptHandle, 0); len(failed) != 1 || *failed[0].ErrorCode != "InvalidArgumentException" {
		t.Errorf("an earlier delivery's handle changes a later one: %+v", failed)
	}
	r.acknowledge(*second[0].ReceiptHandle)
	if failed := change(second[0].ReceiptHandle, 0); len(failed) != 1 || *failed[0].ErrorCode != "ResourceNotFoundException" {
		t.Errorf("an acknowledged record's visibility changes: %+v", failed)
	}
}

func TestQueueRetention(t *testing.T) {
	r := newQueueRig(t, nil)
	r.put("s", "k", []byte("in flight"))
	r.receive(false, 10, 1)
	r.put("s", "k", []byte("never received"))
	r.advance(25 * time.Hour)
	r.put("s", "k", []byte("fresh"))
	if got := datas(r.receive(false, 10, 1)); got != "fresh" {
		t.Errorf("received %q", got)
	}
	if err := r.queues.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.meta.List(deliveryTable.Key(), "", 0)); n != 1 {
		t.Errorf("%d deliveries are remembered, want 1", n)
	}
}

func TestQueueLifecycle(t *testing.T) {
	r := newQueueRig(t, func(in *kinesis.CreateQueueInput) { in.Tags = map[string]string{"a": "b"} })
	tags, err := r.ListTagsForResource(t.Context(), r.call(), &kinesis.ListTagsForResourceInput{ResourceARN: &r.arn})
	if err != nil || len(tags.Tags) != 1 {
		t.Errorf("tags %+v, %v", tags, err)
	}
	_, err = r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s"), EnforceConsumerDeletion: api.Ptr(true)})
	wantError(t, err, "ResourceInUseException", "…")
	out, err := r.UpdateQueue(t.Context(), r.call(), &kinesis.UpdateQueueInput{QueueARN: &r.arn, QueueAttributes: &kinesis.QueueAttributes{VisibilityTimeoutSeconds: api.Ptr(int32(7))}})
	if err != nil || *out.QueueDescription.QueueAttributes.VisibilityTimeoutSeconds != 7 || *out.QueueDescription.QueueAttributes.DeadLetterConfiguration.MaxReceiveCount != 6 {
		t.Errorf("%+v, %v", out, err)
	}
	_, err = r.UpdateQueue(t.Context(), r.call(), &kinesis.UpdateQueueInput{QueueARN: &r.arn, QueueAttributes: &kinesis.QueueAttributes{
		DeadLetterConfiguration: &kinesis.DeadLetterConfiguration{TargetType: api.Ptr(kinesis.TargetTypeBuiltIn)}}})
	wantError(t, err, "ValidationException", "MaxReceiveCount must be set when TargetType is BUILT_IN.")
	for _, name := range []string{"r", "p"} {
		if _, err := r.CreateQueue(t.Context(), r.call(), &kinesis.CreateQueueInput{QueueName: &name, StreamConfigurationList: []kinesis.QueueStreamConfiguration{{StreamARN: &r.get("s").arn}}}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	in := &kinesis.ListQueuesInput{MaxResults: api.Ptr(int32(2)), StreamFilter: []kinesis.QueueStreamFilter{{StreamARN: &r.get("s").arn}}}
	for {
		page, err := r.ListQueues(t.Context(), r.call(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range page.QueueSummaries {
			names = append(names, *q.QueueName)
		}
		if page.NextToken == nil {
			break
		}
		in = &kinesis.ListQueuesInput{NextToken: page.NextToken}
	}
	if !slices.Equal(names, []string{"p", "q", "r"}) {
		t.Errorf("listed %v", names)
	}
	r.put("s", "k", []byte("x"))
	held := r.receive(false, 10, 30)
	if _, err := r.DeleteQueue(t.Context(), r.call(), &kinesis.DeleteQueueInput{QueueARN: &r.arn}); err != nil {
		t.Fatal(err)
	}
	_, err = r.DescribeQueue(t.Context(), r.call(), &kinesis.DescribeQueueInput{QueueARN: &r.arn})
	wantError(t, err, "ResourceNotFoundException", "Queue …")
	_, err = r.AcknowledgeQueueRecords(t.Context(), r.call(), &kinesis.AcknowledgeQueueRecordsInput{
		QueueARN: &r.arn, Entries: []kinesis.AcknowledgeQueueRecordsRequestEntry{{ReceiptHandle: held[0].ReceiptHandle}}})
	wantError(t, err, "ResourceNotFoundException", "Queue …")
	if n := len(r.meta.List(deliveryTable.Key(), "", 0)); n != 0 {
		t.Errorf("%d deliveries of the deleted queue are left", n)
	}
	_, err = r.CreateQueue(t.Context(), r.call(), &kinesis.CreateQueueInput{QueueName: api.Ptr("x"), StreamConfigurationList: []kinesis.QueueStreamConfiguration{{StreamARN: &r.create("provisioned", 1).arn}}})
	wantError(t, err, "InvalidArgumentException", "Stream provisioned under account …")
}

func TestQueueWaitsForRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.Now = time.Now })
		st := r.createOnDemand("s")
		out, err := r.CreateQueue(t.Context(), r.call(), &kinesis.CreateQueueInput{QueueName: api.Ptr("q"), StreamConfigurationList: []kinesis.QueueStreamConfiguration{{StreamARN: &st.arn}}})
		if err != nil {
			t.Fatal(err)
		}
		arn := out.QueueDescription.QueueARN
		receive := func(ctx context.Context) (*kinesis.ReceiveQueueRecordsOutput, time.Duration, error) {
			start := time.Now()
			out, err := r.ReceiveQueueRecords(ctx, r.call(), &kinesis.ReceiveQueueRecordsInput{QueueARN: arn, VisibilityTimeoutSeconds: api.Ptr(int32(3))})
			return out, time.Since(start), err
		}
		if out, took, err := receive(t.Context()); err != nil || len(out.QueueRecords) != 0 || took != 9*time.Second {
			t.Errorf("an empty queue answered %v after %v, %v", out, took, err)
		}
		time.AfterFunc(2*time.Second, func() { r.put("s", "k", []byte("x")) })
		if out, took, err := receive(t.Context()); err != nil || len(out.QueueRecords) != 1 || took != 2*time.Second {
			t.Errorf("a put woke the receive after %v, %v, %v", took, out, err)
		}
		// What is in flight wakes a receive when its timeout passes.
		if out, took, err := receive(t.Context()); err != nil || len(out.QueueRecords) != 1 || took > 3100*time.Millisecond {
			t.Errorf("the timeout woke the receive after %v, %v, %v", took, out, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, took, err := receive(ctx); err == nil || took != time.Second {
			t.Errorf("a client that went away was waited for %v, %v", took, err)
		}
	})
}
