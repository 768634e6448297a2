package server_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/testkit"
)

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// streamSeries scrapes the series of streams, as name{stream shard consumer}.
func streamSeries(t *testing.T, s *testkit.Server) map[string]float64 {
	t.Helper()
	status, text := get(t, "http://"+s.AdminAddress()+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("metrics: %d %s", status, text)
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, "{")
		name, ours := strings.CutPrefix(name, "millrace_stream_")
		if !ok || !ours {
			continue
		}
		labels, value, _ := strings.Cut(rest, "} ")
		of := map[string]string{}
		for _, l := range strings.Split(labels, ",") {
			k, v, _ := strings.Cut(l, "=")
			of[k], _ = strconv.Unquote(v)
		}
		key := name + "{" + strings.TrimSpace(of["stream"]+" "+of["shard"]+of["consumer"]) + "}"
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			t.Fatal(err)
		}
		all[key] = n
	}
	return all
}

// TestMetricsCountWhatWasDone sends known traffic on a clock that stands still,
// with the service's limits enforced, and wants every number to be exact.
func TestMetricsCountWhatWasDone(t *testing.T) {
	now := newClock()
	s := testkit.Start(t, testkit.Options{Now: now.now, Configure: func(c *config.Config) {
		c.Limits = "aws"
		c.ClockWindow = 24 * time.Hour
	}})
	c := s.Client(testkit.Forms[0])
	ctx := t.Context()
	const shard = "shardId-000000000000"
	create(t, c, "m", 1)
	create(t, c, "plain", 1)
	call := func(want string, op *api.Operation, in, out api.Shape) {
		t.Helper()
		if err := c.Call(ctx, op, in, out); testkit.Code(err) != want || want == "" && err != nil {
			t.Fatalf("%s: %v, want %q", op.Name, err, want)
		}
	}
	// Until it is switched on, there is nothing about shards.
	put(t, c, "plain", "abc")
	call("", kinesis.OpEnableEnhancedMonitoring, &kinesis.EnableEnhancedMonitoringInput{
		StreamName: api.Ptr("m"), ShardLevelMetrics: []kinesis.MetricsName{kinesis.MetricsNameAll}}, nil)
	consumer := new(kinesis.RegisterStreamConsumerOutput)
	call("", kinesis.OpRegisterStreamConsumer, &kinesis.RegisterStreamConsumerInput{
		StreamARN: api.Ptr("arn:aws:kinesis:us-east-1:000000000000:stream/m"), ConsumerName: api.Ptr("c")}, consumer)

	one := &kinesis.PutRecordInput{StreamName: api.Ptr("m"), Data: make([]byte, 100), PartitionKey: api.Ptr("k")}
	many := func(n, size int) *kinesis.PutRecordsInput {
		in := &kinesis.PutRecordsInput{StreamName: api.Ptr("m")}
		for range n {
			in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: bytes.Repeat([]byte{'x'}, size), PartitionKey: api.Ptr("k")})
		}
		return in
	}
	// A shard takes 1,000 records a second: 1 + 3 + 500 + 496.
	call("", kinesis.OpPutRecord, one, nil)
	for _, step := range []struct{ n, size, failed int }{{3, 20, 0}, {500, 10, 0}, {500, 10, 4}, {500, 10, 500}} {
		out := new(kinesis.PutRecordsOutput)
		call("", kinesis.OpPutRecords, many(step.n, step.size), out)
		if n := int(api.Val(out.FailedRecordCount)); n != step.failed {
			t.Fatalf("%d of %d records failed, want %d", n, step.n, step.failed)
		}
	}
	call("ProvisionedThroughputExceededException", kinesis.OpPutRecord, one, nil)
	const records, size = 1000, 100 + 3*20 + 996*10

	// A shard takes five reads a second.
	now.advance(7 * time.Second)
	iterator := new(kinesis.GetShardIteratorOutput)
	call("", kinesis.OpGetShardIterator, &kinesis.GetShardIteratorInput{
		StreamName: api.Ptr("m"), ShardId: api.Ptr(shard), ShardIteratorType: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon)}, iterator)
	next := iterator.ShardIterator
	get := func(want string, limit int32) {
		t.Helper()
		out := new(kinesis.GetRecordsOutput)
		call(want, kinesis.OpGetRecords, &kinesis.GetRecordsInput{ShardIterator: next, Limit: &limit}, out)
		if want == "" {
			next = out.NextShardIterator
		}
	}
	get("", 2)
	behind := streamSeries(t, s)
	for _, key := range []string{"get_records_iterator_age_seconds{m}", "get_records_iterator_age_seconds{m " + shard + "}"} {
		if behind[key] != 7 {
			t.Errorf("%s is %v after a page from the middle, want 7", key, behind[key])
		}
	}
	get("", 10_000)
	for range 3 {
		get("", 10)
	}
	get("ProvisionedThroughputExceededException", 10)
	// Two minutes later that age is of the past.
	now.advance(2 * time.Minute)
	get("", 10)

	subscribe := func() (*testkit.Subscription, error) {
		return c.Subscribe(ctx, kinesis.OpSubscribeToShard, &kinesis.SubscribeToShardInput{
			ConsumerARN: consumer.Consumer.ConsumerARN, ShardId: api.Ptr(shard),
			StartingPosition: &kinesis.StartingPosition{Type: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon)}})
	}
	sub, err := subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	event := new(kinesis.SubscribeToShardEvent)
	if err := sub.Next(event); err != nil || len(event.Records) != records {
		t.Fatalf("first event: %d records, %v", len(event.Records), err)
	}
	if _, err := subscribe(); testkit.Code(err) != "LimitExceededException" {
		t.Fatalf("second subscription in a second: %v", err)
	}
	now.advance(2 * time.Second)
	if _, err := subscribe(); testkit.Code(err) != "ResourceInUseException" {
		t.Fatalf("subscription beside a young one: %v", err)
	}

	want := map[string]float64{
		"incoming_bytes_total{plain}": 3, "incoming_records_total{plain}": 1,
		"put_records_bytes_total{plain}": 3, "put_records_total_records_total{plain}": 1, "put_records_successful_records_total{plain}": 1,
		"put_records_failed_records_total{plain}": 0, "put_records_throttled_records_total{plain}": 0,
		"put_records_success_calls_total{plain}": 1, "put_records_success_total{plain}": 1, "put_records_latency_seconds_count{plain}": 1,

		"incoming_bytes_total{m}": size, "incoming_records_total{m}": records,
		"put_record_bytes_total{m}": 100, "put_record_latency_seconds_count{m}": 1,
		"put_record_success_calls_total{m}": 2, "put_record_success_total{m}": 1,
		"put_records_bytes_total{m}": size - 100, "put_records_latency_seconds_count{m}": 4,
		"put_records_success_calls_total{m}": 4, "put_records_success_total{m}": 3,
		"put_records_total_records_total{m}": 1503, "put_records_successful_records_total{m}": 999,
		"put_records_failed_records_total{m}": 0, "put_records_throttled_records_total{m}": 504,
		"write_provisioned_throughput_exceeded_total{m}": 505,
		"get_records_bytes_total{m}":                     size, "get_records_records_total{m}": records,
		"get_records_latency_seconds_count{m}": 6, "get_records_success_calls_total{m}": 7, "get_records_success_total{m}": 6,
		"get_records_iterator_age_seconds{m}":           0,
		"read_provisioned_throughput_exceeded_total{m}": 1,

		"incoming_bytes_total{m " + shard + "}": size, "incoming_records_total{m " + shard + "}": records,
		"outgoing_bytes_total{m " + shard + "}": size, "outgoing_records_total{m " + shard + "}": records,
		"get_records_iterator_age_seconds{m " + shard + "}":            0,
		"write_provisioned_throughput_exceeded_total{m " + shard + "}": 505,
		"read_provisioned_throughput_exceeded_total{m " + shard + "}":  1,

		"subscribe_to_shard_success_calls_total{m c}": 3, "subscribe_to_shard_success_total{m c}": 1,
		"subscribe_to_shard_rate_exceeded_total{m c}":       2,
		"subscribe_to_shard_event_success_calls_total{m c}": 1, "subscribe_to_shard_event_success_total{m c}": 1,
		"subscribe_to_shard_event_bytes_total{m c}": size, "subscribe_to_shard_event_records_total{m c}": records,
		"subscribe_to_shard_event_behind_latest_seconds{m c}": 0,
	}
	var got map[string]float64
	// An event is counted when it has been sent, which its reader may see first.
	for got == nil || got["subscribe_to_shard_event_behind_latest_seconds{m c}"] != 0 || got["subscribe_to_shard_event_success_total{m c}"] == 0 {
		got = streamSeries(t, s)
	}
	maps.DeleteFunc(got, func(k string, _ float64) bool { return strings.Contains(k, "_sum{") })
	// Events without records, sent to keep the connection alive, are events too.
	for _, k := range []string{"subscribe_to_shard_event_success_calls_total{m c}", "subscribe_to_shard_event_success_total{m c}"} {
		got[k] = min(got[k], 1)
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[k]; !ok || v != want[k] {
			t.Errorf("%s is %v, want %v", k, v, want[k])
		}
		delete(got, k)
	}
	for k, v := range got {
		t.Errorf("%s is %v, and should not be there", k, v)
	}
}

// TestShardMetricsGoWithWhatTheyAreAbout switches shard metrics off again, and
// reshards and deletes streams: no series stays behind.
func TestShardMetricsGoWithWhatTheyAreAbout(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	c := s.Client(testkit.Forms[0])
	count := func(part string) (n int) {
		for k := range streamSeries(t, s) {
			if strings.Contains(k, part) {
				n++
			}
		}
		return n
	}
	create(t, c, "s", 4)
	all := []kinesis.MetricsName{kinesis.MetricsNameAll}
	monitor := func(on bool, metrics ...kinesis.MetricsName) {
		t.Helper()
		var err error
		if on {
			err = c.Call(t.Context(), kinesis.OpEnableEnhancedMonitoring, &kinesis.EnableEnhancedMonitoringInput{StreamName: api.Ptr("s"), ShardLevelMetrics: metrics}, nil)
		} else {
			err = c.Call(t.Context(), kinesis.OpDisableEnhancedMonitoring, &kinesis.DisableEnhancedMonitoringInput{StreamName: api.Ptr("s"), ShardLevelMetrics: metrics}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	monitor(true, all...)
	put(t, c, "s", "a")
	if n := count("shardId-"); n != 2 {
		t.Errorf("%d series of shards after a put, want bytes and records of one", n)
	}
	monitor(false, kinesis.MetricsNameIncomingBytes)
	put(t, c, "s", "a")
	if n := count("shardId-"); n != 1 {
		t.Errorf("%d series of shards after IncomingBytes was switched off, want 1", n)
	}
	monitor(false, all...)
	put(t, c, "s", "a")
	if n := count("shardId-"); n != 0 {
		t.Errorf("%d series of shards after all were switched off", n)
	}
	monitor(true, all...)
	put(t, c, "s", "a")
	if err := c.Call(t.Context(), kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}, nil); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; {
		err = c.Call(t.Context(), kinesis.OpDescribeStreamSummary, &kinesis.DescribeStreamSummaryInput{StreamName: api.Ptr("s")}, nil)
	}
	if n := count("{s"); n != 0 {
		t.Errorf("%d series of a deleted stream", n)
	}
}

// TestSeriesAreBoundedUnderRealTraffic makes more streams, shards and consumers
// than there may be series.
func TestSeriesAreBoundedUnderRealTraffic(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.MetricsStreams, c.MetricsShards = 3, 5 }})
	c := s.Client(testkit.Forms[0])
	for i := range 8 {
		name := fmt.Sprint("s", i)
		create(t, c, name, 4)
		if err := c.Call(t.Context(), kinesis.OpEnableEnhancedMonitoring, &kinesis.EnableEnhancedMonitoringInput{
			StreamName: &name, ShardLevelMetrics: []kinesis.MetricsName{kinesis.MetricsNameIncomingRecords}}, nil); err != nil {
			t.Fatal(err)
		}
		in := &kinesis.PutRecordsInput{StreamName: &name}
		for k := range 64 {
			in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: []byte("a"), PartitionKey: api.Ptr(fmt.Sprint(k))})
		}
		if err := c.Call(t.Context(), kinesis.OpPutRecords, in, nil); err != nil {
			t.Fatal(err)
		}
	}
	owners, parts, records := map[string]bool{}, map[string]bool{}, 0.0
	for k, v := range streamSeries(t, s) {
		name, of, _ := strings.Cut(strings.TrimSuffix(k, "}"), "{")
		if strings.Contains(of, " ") {
			parts[of] = true
			continue
		}
		owners[of] = true
		if name == "incoming_records_total" {
			records += v
		}
	}
	if len(owners) != 3+1 || len(parts) != 5 {
		t.Errorf("series of %d streams and %d shards, want 3 and other, and 5", len(owners), len(parts))
	}
	if records != 8*64 {
		t.Errorf("%v records are counted, want all %d", records, 8*64)
	}
}
