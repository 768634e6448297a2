package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/testkit"
)

// heapInUse is what is reachable, more or less.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// TestASlowReaderCostsLittleAndDelaysNobody has subscribers that do not read
// while far more is written than buffers hold. Puts, reads and another
// subscriber go on to the end, in order, and memory stays bounded by the number
// of subscribers. When they wake up, nothing is missing.
func TestASlowReaderCostsLittleAndDelaysNobody(t *testing.T) {
	const (
		slow       = 6
		records    = 384
		recordSize = 64 << 10
		// What one subscriber may cost: an event as stored, as text, and the
		// windows of this process's own clients. Everything would be four times that.
		perReader = 8 << 20
	)
	for _, form := range []testkit.Form{testkit.Forms[0], testkit.Forms[2]} {
		t.Run(form.Name, func(t *testing.T) {
			s := testkit.Start(t, testkit.Options{Files: testkit.TempDir(t), Configure: func(c *config.Config) { c.WALSegments = 4 }})
			c := s.Client(form)
			create(t, c, "s", 1)
			subscribe := func(name string) *testkit.Subscription {
				t.Helper()
				consumer := new(kinesis.RegisterStreamConsumerOutput)
				if err := c.Call(t.Context(), kinesis.OpRegisterStreamConsumer, &kinesis.RegisterStreamConsumerInput{
					StreamARN: api.Ptr("arn:aws:kinesis:us-east-1:000000000000:stream/s"), ConsumerName: &name}, consumer); err != nil {
					t.Fatal(err)
				}
				// A client of its own: what does not read must not share a connection.
				sub, err := s.Client(form).Subscribe(t.Context(), kinesis.OpSubscribeToShard, &kinesis.SubscribeToShardInput{
					ConsumerARN: consumer.Consumer.ConsumerARN, ShardId: api.Ptr("shardId-000000000000"),
					StartingPosition: &kinesis.StartingPosition{Type: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon)}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(sub.Close)
				return sub
			}
			drain := func(sub *testkit.Subscription) error {
				for n := uint64(0); n < records; {
					event := new(kinesis.SubscribeToShardEvent)
					if err := sub.Next(event); err != nil {
						return fmt.Errorf("after %d records: %w", n, err)
					}
					for _, r := range event.Records {
						if got := binary.BigEndian.Uint64(r.Data); got != n {
							return fmt.Errorf("record %d where %d belongs", got, n)
						}
						n++
					}
				}
				return nil
			}
			write := func(from, to int) {
				t.Helper()
				for i := from; i < to; i += 8 {
					in := &kinesis.PutRecordsInput{StreamName: api.Ptr("s")}
					for j := range 8 {
						data := bytes.Repeat([]byte{'x'}, recordSize)
						binary.BigEndian.PutUint64(data, uint64(i+j))
						in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: data, PartitionKey: api.Ptr("k")})
					}
					if err := c.Call(t.Context(), kinesis.OpPutRecords, in, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			// The log's own memory is there before anything is measured.
			fast := subscribe("fast")
			write(0, records/2)
			before := heapInUse()

			var sleepers []*testkit.Subscription
			for i := range slow {
				sleepers = append(sleepers, subscribe(fmt.Sprint("slow", i)))
			}
			var reading sync.WaitGroup
			reading.Go(func() {
				if err := drain(fast); err != nil {
					t.Errorf("the reader that reads: %v", err)
				}
			})
			write(records/2, records)
			reading.Wait()
			grown := heapInUse() - before
			t.Logf("%d MiB for %d readers", grown>>20, slow)
			if grown > slow*perReader {
				t.Errorf("%d readers that do not read cost %d MiB", slow, grown>>20)
			}
			// They have been held back, so this was about something.
			for k, v := range streamSeries(t, s) {
				for i := range slow {
					if k == fmt.Sprintf("subscribe_to_shard_event_records_total{s slow%d}", i) && v >= records {
						t.Errorf("slow%d was sent everything: %v records", i, v)
					}
				}
			}
			// Late is not too late.
			for i, sub := range sleepers[:2] {
				if err := drain(sub); err != nil {
					t.Errorf("slow%d, awake: %v", i, err)
				}
			}
		})
	}
}
