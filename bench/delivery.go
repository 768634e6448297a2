package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/test/harness"
)

// Names that the rows of delivery streams share.
const (
	bucket   = "bench"
	database = "bench"
	table    = "events"
	idle     = "ingest" // takes records and is paused
	live     = "deliver"
)

// column is one member of an event and its type in the catalog.
type column struct{ name, kind string }

var columns = []column{
	{"ts", "timestamp"}, {"level", "string"}, {"request_id", "string"}, {"host", "string"}, {"path", "string"}, {"status", "int"},
	{"bytes", "bigint"}, {"duration", "double"}, {"user_agent", "string"}, {"message", "string"}, {"ok", "boolean"}, {"customer", "string"},
}

// event is a line such as a web service logs, about 400 bytes, which ends with a
// newline. The request's id and the numbers do not repeat.
func event(random *rand.Rand) []byte {
	agents := []string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0", "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Version/17.5 Safari/605.1.15",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
	}
	levels := []string{"INFO", "INFO", "INFO", "WARN", "ERROR"}
	return fmt.Appendf(nil, `{"ts":"2026-09-07T12:%02d:%02d.%03dZ","level":%q,"request_id":"%08x-77aa-4c1e-9d55-%012x","host":"web-%d.example.com",`+
		`"path":"/api/v1/orders/%d/items","status":%d,"bytes":%d,"duration":%.4f,"user_agent":%q,`+
		`"message":"request finished after the cache was asked %d times","ok":%t,"customer":"customer-%02d"}`+"\n",
		random.IntN(60), random.IntN(60), random.IntN(1000), levels[random.IntN(5)], random.Uint32(), random.Uint64()>>16, random.IntN(16),
		random.IntN(1_000_000), 200+random.IntN(4)*100, random.IntN(100_000), random.Float64()*5, agents[random.IntN(3)],
		random.IntN(10), random.IntN(3) != 0, random.IntN(50))
}

// batches are prepared PutRecordBatch calls, and what they hold.
type batches struct {
	requests []*request
	records  int   // of one call
	bytes    int64 // of all calls together, as records
	lines    []byte
}

// events makes n calls of 500 events each.
func events(stream string, n, salt int) *batches {
	b := &batches{records: 500}
	random := rand.New(rand.NewPCG(uint64(salt), 7))
	for range n {
		var body bytes.Buffer
		fmt.Fprintf(&body, `{"DeliveryStreamName":%q,"Records":[`, stream)
		for i := range b.records {
			if i > 0 {
				body.WriteByte(',')
			}
			e := event(random)
			b.bytes += int64(len(e))
			b.lines = append(b.lines, e...)
			fmt.Fprintf(&body, `{"Data":%q}`, base64.StdEncoding.EncodeToString(e))
		}
		body.WriteString("]}")
		b.requests = append(b.requests, newRequest("PutRecordBatch", jsonType, body.Bytes()))
	}
	return b
}

func noneFailed(reply []byte) error {
	if !bytes.Contains(reply, []byte(`"FailedPutCount":0`)) {
		return fmt.Errorf("records failed: %.200s", reply)
	}
	return nil
}

// pour sends the calls over a few connections, rounds times all of them, and
// returns how many records that are.
func pour(address string, b *batches, rounds int) (records int64, err error) {
	const connections = 4
	var sent atomic.Int64
	var errs [connections]error
	var workers sync.WaitGroup
	for i := range connections {
		workers.Go(func() {
			c, err := dial(address, user)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			for range rounds {
				for n := i; n < len(b.requests); n += connections {
					reply, err := c.do(b.requests[n])
					if err == nil {
						err = noneFailed(reply)
					}
					if err != nil {
						errs[i] = err
						return
					}
					sent.Add(int64(b.records))
				}
			}
		})
	}
	workers.Wait()
	return sent.Load(), errors.Join(errs[:]...)
}

// quiet waits until the server does nothing more, such as sealing, and returns
// its processor time.
func quiet(s *harness.Server) (time.Duration, error) {
	last, err := s.CPU()
	for range 60 {
		if err != nil {
			return 0, err
		}
		time.Sleep(500 * time.Millisecond)
		var now time.Duration
		if now, err = s.CPU(); now-last < 20*time.Millisecond {
			return now, err
		}
		last = now
	}
	return last, errors.New("the server does not come to rest")
}

// target is where a delivery stream of the rows delivers to.
func target(hints object, more object) object {
	o := object{
		"RoleARN": "arn:aws:iam::" + harness.Account + ":role/delivery", "BucketARN": "arn:aws:s3:::" + bucket, "BufferingHints": hints,
	}
	for k, v := range more {
		o[k] = v
	}
	return o
}

// toParquet is the conversion of events.
func toParquet() object {
	return object{"DataFormatConversionConfiguration": object{
		"Enabled":                   true,
		"InputFormatConfiguration":  object{"Deserializer": object{"OpenXJsonSerDe": object{}}},
		"OutputFormatConfiguration": object{"Serializer": object{"ParquetSerDe": object{"Compression": "SNAPPY"}}},
		"SchemaConfiguration": object{
			"RoleARN": "arn:aws:iam::" + harness.Account + ":role/delivery", "DatabaseName": database, "TableName": table, "Region": harness.Region, "VersionId": "LATEST",
		},
	}}
}

func createDelivery(c *conn, name string, destination object) error {
	in := object{"DeliveryStreamName": name, "DeliveryStreamType": "DirectPut", "ExtendedS3DestinationConfiguration": destination}
	if err := c.call("CreateDeliveryStream", in, nil); err != nil {
		return err
	}
	return activeDelivery(c, name)
}

func activeDelivery(c *conn, name string) error {
	var out struct {
		DeliveryStreamDescription struct{ DeliveryStreamStatus string }
	}
	for range 3000 {
		if err := c.call("DescribeDeliveryStream", object{"DeliveryStreamName": name}, &out); err != nil {
			return err
		}
		if out.DeliveryStreamDescription.DeliveryStreamStatus == "ACTIVE" {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("delivery stream %s is %s", name, out.DeliveryStreamDescription.DeliveryStreamStatus)
}

// catalogue makes the table that events are converted after.
func catalogue(c *conn) error {
	if err := c.call("CreateDatabase", object{"DatabaseInput": object{"Name": database}}, nil); err != nil {
		return err
	}
	var list []object
	for _, col := range columns {
		list = append(list, object{"Name": col.name, "Type": col.kind})
	}
	return c.call("CreateTable", object{"DatabaseName": database, "TableInput": object{"Name": table, "StorageDescriptor": object{"Columns": list}}}, nil)
}

// delivered checks that the ledger holds all records that were put, and none
// that failed, and returns in how many objects they are.
func delivered(c *conn, name string, records int64) (objects int, err error) {
	var out struct {
		Deliveries []struct {
			Outcome         string
			Output          string
			Records, Failed int64
			Objects         []string
		}
	}
	if err := c.call("ListDeliveries", object{"DeliveryStreamName": name, "Limit": 1000}, &out); err != nil {
		return 0, err
	}
	n := int64(0)
	for _, d := range out.Deliveries {
		if d.Failed > 0 || d.Output != "delivery" {
			return 0, fmt.Errorf("a delivery of %d records to %s was %s, %d failed", d.Records, d.Output, d.Outcome, d.Failed)
		}
		n += d.Records
		objects += len(d.Objects)
	}
	if n != records {
		return 0, fmt.Errorf("%d records were put and %d delivered, by the latest %d deliveries", records, n, len(out.Deliveries))
	}
	return objects, nil
}

// deliver measures what delivery costs beyond ingest.
func (b *bench) deliver() error {
	for _, r := range []struct {
		what   string
		more   object
		budget float64
	}{
		{"JSON → GZIP → S3, embedded", object{"CompressionFormat": "GZIP"}, 150},
		{"JSON → Parquet/Snappy → S3, embedded", toParquet(), 80},
		{"JSON → S3, embedded, as it is", object{}, 0},
	} {
		f, err := b.through(r.more)
		if err != nil {
			return fmt.Errorf("%s: %w", r.what, err)
		}
		budget := ""
		if r.budget > 0 {
			budget = fmt.Sprintf("≥ %.0f MB", r.budget)
		}
		b.row(r.what, fmt.Sprintf("%.0f MB of records / CPU s beyond ingest; %.0f MB with it", f.beyond(), f.whole()), budget, f.beyond() >= r.budget,
			fmt.Sprintf("%d MB in lines of %d bytes, %d objects; ingest alone %.0f MB / CPU s", f.bytes/1e6, f.line, f.objects, f.ingest()))
	}
	return nil
}

// ingest compares the two calls for the same bytes, in turn.
func (b *bench) ingest() error {
	var put, batch load
	for range 3 {
		err := b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
			if err := createStream(c, "load", 1); err != nil {
				return err
			}
			l, err := drive(s.Address, s.PID(), 8, b.duration/2, func(i int) []*request {
				return []*request{putRecords("load", jsonType, 500, 1024, i)}
			}, allStored)
			put.calls, put.cpu = put.calls+l.calls, put.cpu+l.cpu
			return err
		})
		if err != nil {
			return err
		}
		err = b.with(harness.Options{Args: []string{"--delivery-quota", "0"}}, func(s *harness.Server, c *conn) error {
			if err := prepare(c, false); err != nil {
				return err
			}
			l, err := drive(s.Address, s.PID(), 8, b.duration/2, func(i int) []*request { return []*request{putRecordBatch(idle, 500, 1024)} }, noneFailed)
			batch.calls, batch.cpu = batch.calls+l.calls, batch.cpu+l.cpu
			return err
		})
		if err != nil {
			return err
		}
	}
	ratio := batch.perCPU(500) / put.perCPU(500)
	b.row("PutRecordBatch 500 × 1 KiB, JSON, open, durable", fmt.Sprintf("%.0f records / CPU s; PutRecords %.0f; %.2f ×", batch.perCPU(500), put.perCPU(500), ratio),
		"≥ 0.80 ×", ratio >= 0.8, "8 connections, three turns each; one shard, and a delivery stream that is paused")
	return nil
}

// prepare makes the bucket and the paused delivery stream.
func prepare(c *conn, catalog bool) error {
	if err := c.putBucket(bucket); err != nil {
		return err
	}
	if catalog {
		if err := catalogue(c); err != nil {
			return err
		}
	}
	if err := createDelivery(c, idle, target(object{"SizeInMBs": 1, "IntervalInSeconds": 900}, nil)); err != nil {
		return err
	}
	return c.call("PauseDeliveryStream", object{"DeliveryStreamName": idle}, nil)
}

func putRecordBatch(stream string, n, size int) *request {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"DeliveryStreamName":%q,"Records":[`, stream)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Data":%q}`, base64.StdEncoding.EncodeToString(payload(size, i)))
	}
	b.WriteString("]}")
	return newRequest("PutRecordBatch", jsonType, b.Bytes())
}

// figures of a delivery row: the same bytes were put twice, once to be delivered.
type figures struct {
	bytes     int64
	line      int64
	objects   int
	put, both time.Duration // of ingest alone, and with delivery
}

func megabytes(n int64, t time.Duration) float64 { return float64(n) / t.Seconds() / 1e6 }

func (f figures) ingest() float64 { return megabytes(f.bytes, f.put) }
func (f figures) whole() float64  { return megabytes(f.bytes, f.both) }
func (f figures) beyond() float64 { return megabytes(f.bytes, f.both-f.put) }

// through puts the same records to a delivery stream that is paused and to one
// that delivers, in turn, each until the server is at rest again. The first turn
// warms up and does not count.
func (b *bench) through(more object) (f figures, err error) {
	const turns, calls = 3, 64
	rounds := max(1, int(b.duration/time.Second)) * 2
	err = b.with(harness.Options{Args: []string{"--delivery-quota", "0"}}, func(s *harness.Server, c *conn) error {
		if err := prepare(c, true); err != nil {
			return err
		}
		if err := createDelivery(c, live, target(object{"SizeInMBs": 64, "IntervalInSeconds": 60}, more)); err != nil {
			return err
		}
		total := int64(0)
		aside, through := events(idle, calls, 1), events(live, calls, 1)
		f.line = through.bytes / int64(calls*through.records)
		for turn := range turns + 1 {
			n := rounds
			if turn == 0 {
				n = 1
			}
			t0, err := quiet(s)
			if err != nil {
				return err
			}
			if _, err := pour(s.Address, aside, n); err != nil {
				return err
			}
			t1, err := quiet(s)
			if err != nil {
				return err
			}
			records, err := pour(s.Address, through, n)
			if err != nil {
				return err
			}
			total += records
			if err := c.call("FlushDeliveryStream", object{"DeliveryStreamName": live}, nil); err != nil {
				return err
			}
			t2, err := quiet(s)
			if err != nil {
				return err
			}
			if turn > 0 {
				f.bytes += through.bytes * int64(n)
				f.put += t1 - t0
				f.both += t2 - t1
			}
		}
		f.objects, err = delivered(c, live, total)
		return err
	})
	return f, err
}

// partitions keeps fifty buffers of one delivery stream open and looks at the
// most memory that the server ever had.
func (b *bench) partitions() error {
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		if err := c.putBucket(bucket); err != nil {
			return err
		}
		err := createDelivery(c, live, target(object{"SizeInMBs": 64, "IntervalInSeconds": 900}, object{
			"CompressionFormat": "GZIP",
			"Prefix":            "customer=!{partitionKeyFromQuery:customer}/", "ErrorOutputPrefix": "failed/!{firehose:error-output-type}/",
			"DynamicPartitioningConfiguration": object{"Enabled": true},
			"ProcessingConfiguration": object{"Enabled": true, "Processors": []object{{"Type": "MetadataExtraction", "Parameters": []object{
				{"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{customer: .customer}"},
				{"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
			}}}},
		}))
		if err != nil {
			return err
		}
		all := events(live, 64, 1)
		rounds := max(1, int(b.duration/time.Second)) * 6
		before, err := s.CPU()
		if err != nil {
			return err
		}
		records, err := pour(s.Address, all, rounds)
		if err != nil {
			return err
		}
		if _, err := quiet(s); err != nil {
			return err
		}
		var status struct {
			Partitions    int
			BufferedBytes int64
		}
		if err := c.call("GetDeliveryStatus", object{"DeliveryStreamName": live}, &status); err != nil {
			return err
		}
		filled, err := peak(s.PID())
		if err != nil {
			return err
		}
		// Images of the log that had been filled last go after some seconds.
		time.Sleep(10 * time.Second)
		rest, err := harness.ResidentBytes(s.PID())
		if err != nil {
			return err
		}
		if err := c.call("FlushDeliveryStream", object{"DeliveryStreamName": live}, nil); err != nil {
			return err
		}
		if _, err := delivered(c, live, records); err != nil {
			return err
		}
		after, err := quiet(s)
		if err != nil {
			return err
		}
		most, err := peak(s.PID())
		if err != nil {
			return err
		}
		put := all.bytes * int64(rounds)
		b.row("50 partitions open, buffers of 64 MiB", fmt.Sprintf("RSS %d MB at rest; at most %d MB while they fill at full speed, %d MB when all was delivered at once", rest/1e6, filled/1e6, most/1e6),
			"≤ 300 MB", most <= 300e6 && status.Partitions == 50, fmt.Sprintf("%d MB in %d open buffers, GZIP, delivery-memory as by default; %.0f MB of records / CPU s with ingest", status.BufferedBytes/1e6, status.Partitions, megabytes(put, after-before)))
		return nil
	})
}

// peak is the most memory that a process has had in residence.
func peak(pid int) (int64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the kernel tells no VmHWM")
}

// idleStreams makes a thousand delivery streams to which nothing is put.
func (b *bench) idleStreams() error {
	const count = 1000
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		if err := c.putBucket(bucket); err != nil {
			return err
		}
		start := time.Now()
		for i := range count {
			in := object{"DeliveryStreamName": fmt.Sprintf("idle-%d", i), "ExtendedS3DestinationConfiguration": target(object{"SizeInMBs": 5, "IntervalInSeconds": 300}, nil)}
			if err := c.call("CreateDeliveryStream", in, nil); err != nil {
				return err
			}
		}
		for i := range count {
			if err := activeDelivery(c, fmt.Sprintf("idle-%d", i)); err != nil {
				return err
			}
		}
		took := time.Since(start)
		c0, err := quiet(s)
		if err != nil {
			return err
		}
		const pause = 10 * time.Second
		time.Sleep(pause)
		c1, err := s.CPU()
		if err != nil {
			return err
		}
		rss, err := harness.ResidentBytes(s.PID())
		if err != nil {
			return err
		}
		share := 100 * (c1 - c0).Seconds() / pause.Seconds()
		b.row("1,000 delivery streams idle", fmt.Sprintf("RSS %d MB, %.1f %% of a core", rss/1e6, share), "≤ 200 MB", rss <= 200e6, fmt.Sprintf("created and ACTIVE in %.1f s; over ten seconds", took.Seconds()))
		return nil
	})
}
