package reliability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millrace/millrace/test/harness"
)

// footprint is what a server holds when its garbage has been collected.
type footprint struct {
	heap       int64
	goroutines int
}

func (f footprint) String() string {
	return fmt.Sprintf("%.1f MiB in use, %d goroutines", float64(f.heap)/(1<<20), f.goroutines)
}

var (
	heapPattern      = regexp.MustCompile(`# HeapInuse = (\d+)`)
	goroutinePattern = regexp.MustCompile(`goroutine profile: total (\d+)`)
)

func measure(ctx context.Context, s *harness.Server) (f footprint, err error) {
	// A transport of its own: an idle connection would be goroutines of the server.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	number := func(path string, pattern *regexp.Regexp) (int64, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Admin+path, nil)
		if err != nil {
			return 0, err
		}
		reply, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			return 0, err
		}
		m := pattern.FindSubmatch(body)
		if m == nil {
			return 0, fmt.Errorf("%s has no %s", path, pattern)
		}
		return strconv.ParseInt(string(m[1]), 10, 64)
	}
	for range 2 { // what pools hold goes with the second collection
		if f.heap, err = number("/debug/pprof/heap?gc=1&debug=1", heapPattern); err != nil {
			return f, err
		}
	}
	n, err := number("/debug/pprof/goroutine?debug=1", goroutinePattern)
	f.goroutines = int(n)
	return f, err
}

// soak is a load of every kind that leaves nothing behind but records.
type soak struct {
	server                                                         *harness.Server
	stream, arn                                                    string
	puts, gets, events, sleepers, streams, reshards, fails, closed atomic.Int64
	lastFailure                                                    atomic.Pointer[error]
}

// failed counts what the server did wrong. A connection that this process has
// closed itself, as its transport does at times under load, is not its fault: an
// end by the server reads as EOF or a reset.
func (k *soak) failed(ctx context.Context, err error) {
	if errors.Is(err, net.ErrClosed) {
		k.closed.Add(1)
		return
	}
	if err != nil && ctx.Err() == nil {
		k.fails.Add(1)
		k.lastFailure.Store(&err)
	}
}

// client has no limit in time, which would end event streams, and connections
// of its own.
func (k *soak) client() (client *kinesis.Client, done func()) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	return kinesis.New(kinesis.Options{
		Region: harness.Region, BaseEndpoint: aws.String(k.server.URL(false)),
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		Retryer:     aws.NopRetryer{}, HTTPClient: &http.Client{Transport: transport},
	}), transport.CloseIdleConnections
}

// run loads the server for a while and returns when every client has gone.
func (k *soak) run(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var workers sync.WaitGroup
	worker := func(f func(client *kinesis.Client)) {
		workers.Go(func() {
			client, done := k.client()
			defer done()
			for ctx.Err() == nil {
				f(client)
			}
		})
	}
	for range 2 {
		worker(func(client *kinesis.Client) {
			l := newLedger()
			short, stop := context.WithTimeout(ctx, time.Second)
			_ = l.write(short, client, k.stream, 50)
			stop()
			k.puts.Add(int64(l.count()))
		})
	}
	worker(func(client *kinesis.Client) { k.failed(ctx, k.read(ctx, client)) })
	for i, name := range []string{"awake", "awake2", "asleep"} {
		worker(func(client *kinesis.Client) {
			k.failed(ctx, k.subscribe(ctx, client, name, fmt.Sprintf("shardId-%012d", i), name == "asleep"))
		})
	}
	round := 0
	worker(func(client *kinesis.Client) {
		round++
		k.failed(ctx, k.comeAndGo(ctx, client, fmt.Sprint("passing-", round%5)))
	})
	workers.Wait()
}

// read follows a shard from its tip for a few calls.
func (k *soak) read(ctx context.Context, client *kinesis.Client) error {
	it, err := client.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{StreamName: &k.stream, ShardId: aws.String("shardId-000000000003"), ShardIteratorType: types.ShardIteratorTypeLatest})
	if err != nil {
		return err
	}
	next := it.ShardIterator
	for range 50 {
		out, err := client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next})
		if err != nil {
			return err
		}
		k.gets.Add(int64(len(out.Records)))
		next = out.NextShardIterator
	}
	return nil
}

// subscribe holds a subscription for a second or two; asleep, it takes no event.
func (k *soak) subscribe(ctx context.Context, client *kinesis.Client, name, shard string, asleep bool) error {
	// Resubscribing early is refused while the server has not seen the end of the
	// subscription before.
	consumer, err := client.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{StreamARN: &k.arn, ConsumerName: &name})
	if err != nil {
		return err
	}
	out, err := client.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{ConsumerARN: consumer.ConsumerDescription.ConsumerARN, ShardId: &shard,
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}})
	var busy *types.ResourceInUseException
	if errors.As(err, &busy) {
		return nil
	}
	if err != nil {
		return err
	}
	stream := out.GetStream()
	defer stream.Close()
	life := time.After(1500 * time.Millisecond)
	if asleep {
		k.sleepers.Add(1)
		select {
		case <-life:
		case <-ctx.Done():
		}
		return nil
	}
	for {
		select {
		case _, ok := <-stream.Events():
			if !ok {
				return stream.Err()
			}
			k.events.Add(1)
		case <-life:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// comeAndGo makes a stream, writes to it, reshards it and deletes it.
func (k *soak) comeAndGo(ctx context.Context, client *kinesis.Client, name string) error {
	if _, err := client.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &name, ShardCount: aws.Int32(4)}); err != nil {
		return err
	}
	k.streams.Add(1)
	_, err := client.EnableEnhancedMonitoring(ctx, &kinesis.EnableEnhancedMonitoringInput{StreamName: &name, ShardLevelMetrics: []types.MetricsName{types.MetricsNameAll}})
	for _, target := range []int32{6, 3} {
		if err == nil {
			_, err = client.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &name, Data: recordData(7), PartitionKey: aws.String("k")})
		}
		if err == nil {
			_, err = client.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{StreamName: &name, TargetShardCount: &target, ScalingType: types.ScalingTypeUniformScaling})
		}
		if err == nil {
			k.reshards.Add(1)
			err = kinesis.NewStreamExistsWaiter(client, func(o *kinesis.StreamExistsWaiterOptions) {
				o.MinDelay, o.MaxDelay = 10*time.Millisecond, 50*time.Millisecond
			}).Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &name}, time.Minute)
		}
	}
	// In any case, even when ctx has ended: the next one has the name again.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	_, gone := client.DeleteStream(after, &kinesis.DeleteStreamInput{StreamName: &name})
	if gone == nil {
		gone = kinesis.NewStreamNotExistsWaiter(client, func(o *kinesis.StreamNotExistsWaiterOptions) {
			o.MinDelay, o.MaxDelay = 10*time.Millisecond, 50*time.Millisecond
		}).Wait(after, &kinesis.DescribeStreamInput{StreamName: &name}, 30*time.Second)
	}
	return errors.Join(err, gone)
}

// TestSoak puts, gets, subscribes with and without reading, reshards and deletes,
// twice. What the server holds after the second, much longer time is what it
// held after the first, and its goroutines are those of the start.
func TestSoak(t *testing.T) {
	// Small segments: the log's memory has its full size early.
	s := start(t, harness.Options{Data: filepath.Join(t.TempDir(), "data"), Args: []string{"--wal-segment-bytes", "4MiB", "--wal-segments", "4"}})
	k := &soak{server: s, stream: "soak", arn: "arn:aws:kinesis:" + harness.Region + ":" + harness.Account + ":stream/soak"}
	client := newClient(t, s)
	create(t, client, k.stream, 4)
	for _, name := range []string{"awake", "awake2", "asleep"} {
		if _, err := client.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: &k.arn, ConsumerName: aws.String(name)}); err != nil {
			t.Fatal(err)
		}
	}
	client.Options().HTTPClient.(*http.Client).CloseIdleConnections()
	// An idle server has a few goroutines more at some moments than at others.
	var begin footprint
	for range 10 {
		time.Sleep(200 * time.Millisecond)
		f, err := measure(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		begin = footprint{f.heap, max(begin.goroutines, f.goroutines)}
	}
	// settled waits until the ends of connections have arrived.
	settled := func() (f footprint) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			var err error
			if f, err = measure(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if f.goroutines <= begin.goroutines || time.Now().After(deadline) {
				return f
			}
		}
	}
	k.run(t.Context(), period(6*time.Second, 5*time.Minute))
	base := settled()
	k.run(t.Context(), period(14*time.Second, 25*time.Minute))
	end := settled()
	t.Logf("at the start %v; after the first part %v; at the end %v", begin, base, end)
	t.Logf("%d records put, %d read, %d events, %d sleeping subscriptions, %d streams made and deleted, %d reshardings, %d connections closed here",
		k.puts.Load(), k.gets.Load(), k.events.Load(), k.sleepers.Load(), k.streams.Load(), k.reshards.Load(), k.closed.Load())
	for name, n := range map[string]int64{"puts": k.puts.Load(), "gets": k.gets.Load(), "events": k.events.Load(), "sleepers": k.sleepers.Load(), "streams": k.streams.Load(), "reshardings": k.reshards.Load()} {
		if n == 0 {
			t.Errorf("the load had no %s", name)
		}
	}
	if n := k.fails.Load(); n > 0 {
		t.Errorf("%d calls failed; the last: %v", n, *k.lastFailure.Load())
	}
	if end.heap > base.heap+base.heap/5+8<<20 {
		t.Errorf("memory grows: %v, then %v", base, end)
	}
	if end.goroutines > begin.goroutines {
		t.Errorf("goroutines stay behind: %v, then %v", begin, end)
	}
	select {
	case <-s.Done():
		t.Errorf("the server ended: %s", s.Output())
	default:
	}
	if out := s.Output(); strings.Contains(out, "level=ERROR") {
		t.Errorf("the server complains:\n%s", out)
	}
}
