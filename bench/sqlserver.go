package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/test/harness"
)

const (
	sqlInput = "rows"
	sqlRole  = "arn:aws:iam::" + harness.Account + ":role/analytics"
)

func streamARN(name string) string {
	return "arn:aws:kinesis:" + harness.Region + ":" + harness.Account + ":stream/" + name
}

// serverProgram is a program that an application of a server runs, from one data
// stream to another.
type serverProgram struct {
	name     string
	code     string
	budget   float64
	rows     float64 // of the usual number
	perMilli int
	shards   int // of both streams
	packed   int // rows in a record of the source
	// window is how long the last rows may wait for the end of their window.
	window time.Duration
	// check tells whether the rows of the output are those of n rows of input.
	check func(out []json.RawMessage, n int) error
}

// What a program begins with whose rows have a time of their own.
const promoted = `CREATE STREAM TIMED (id VARCHAR(16), kind VARCHAR(16), v DOUBLE);
CREATE PUMP T AS INSERT INTO TIMED (ROWTIME, id, kind, v) SELECT STREAM TO_TIMESTAMP("ts"), "id", "kind", "v" FROM "` + inputName + `";
`

var (
	tumblingCode = filePrograms[0].code
	filterCode   = filePrograms[1].code
)

var serverPrograms = []serverProgram{
	{name: "tumbling 10 s, count, sum and average per key", code: tumblingCode, budget: 600_000, rows: 1, perMilli: 20, shards: 4, packed: 1, window: 10 * time.Second, check: allCounted},
	{name: "the same, 100 rows a record", code: tumblingCode, rows: 1, perMilli: 20, shards: 4, packed: 100, window: 10 * time.Second, check: allCounted},
	{name: "filter and projection, a quarter of the rows", code: filterCode, budget: 800_000, rows: 1, perMilli: 20, shards: 4, packed: 1, check: about(0.25)},
	{name: "the same, 100 rows a record", code: filterCode, rows: 1, perMilli: 20, shards: 4, packed: 100, check: about(0.25)},
	{
		name: "sliding 60 s, count, sum and average per key", budget: 300_000, rows: 0.5, perMilli: 2, shards: 1, packed: 1, check: about(1),
		code: promoted + resultStream + `id, COUNT(*) OVER w, SUM(v) OVER w, AVG(v) OVER w FROM TIMED WINDOW w AS (PARTITION BY id RANGE INTERVAL '60' SECOND PRECEDING);`,
	},
	{
		name: "join of two streams within 10 s", budget: 300_000, rows: 0.5, perMilli: 2, shards: 1, packed: 1, check: about(1),
		code: promoted + `CREATE STREAM "OUT" (id VARCHAR(16), a DOUBLE, b DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM l.id, l.v, r.v
FROM (SELECT STREAM id, v FROM TIMED WHERE kind = 'a') OVER (RANGE INTERVAL '10' SECOND PRECEDING) AS l
JOIN (SELECT STREAM id, v FROM TIMED WHERE kind = 'b') OVER (RANGE INTERVAL '10' SECOND PRECEDING) AS r ON l.id = r.id;`,
	},
	{name: "RANDOM_CUT_FOREST, 100 trees of 256, one dimension", code: filePrograms[4].code, budget: 30_000, rows: 0.05, perMilli: 20, shards: 1, packed: 1, check: about(1)},
}

// allCounted looks at rows with counts: together they must count every row.
func allCounted(out []json.RawMessage, n int) error {
	total := 0
	for _, raw := range out {
		var row struct{ N int }
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		total += row.N
	}
	if total != n {
		return fmt.Errorf("%d rows were counted of %d", total, n)
	}
	return nil
}

// about expects a share of the rows, give or take three hundredths of it.
func about(share float64) func([]json.RawMessage, int) error {
	return func(out []json.RawMessage, n int) error {
		if got := float64(len(out)) / float64(n); got < share*0.97 || got > share*1.03 {
			return fmt.Errorf("%d rows came of %d, want a share of %.2f", len(out), n, share)
		}
		return nil
	}
}

// putRows puts n rows over one connection, so that they stay in order.
func putRows(address string, m *rowMaker, n, packed int) error {
	c, err := dial(address, user)
	if err != nil {
		return err
	}
	defer c.close()
	perCall := 500
	if packed > 1 {
		perCall = 50
	}
	var rows []byte
	for made := 0; made < n; {
		records := min(perCall, (n-made+packed-1)/packed)
		b := cborText(append(make([]byte, 0, 200*perCall*packed), 0xa2), "StreamName")
		b = cborText(cborText(b, sqlInput), "Records")
		b = cborHead(b, 0x80, records)
		for range records {
			rows = rows[:0]
			for range min(packed, n-made) {
				rows = m.next(rows)
				made++
			}
			b = cborHead(cborText(append(b, 0xa2), "Data"), 0x40, len(rows))
			b = append(b, rows...)
			b = cborText(cborText(b, "PartitionKey"), strconv.Itoa(made))
		}
		reply, err := c.do(newRequest("PutRecords", cborType, b))
		if err != nil {
			return err
		}
		if bytes.Contains(reply, []byte("ErrorCode")) {
			return fmt.Errorf("records failed: %.200q", reply)
		}
	}
	return nil
}

// output is where the rows of an in-application stream go.
func output(stream, target string) object {
	return object{"Name": stream, "KinesisStreamsOutput": object{"ResourceARN": streamARN(target)}, "DestinationSchema": object{"RecordFormatType": "JSON"}}
}

// createApplication makes one that reads the rows.
func createApplication(c *conn, name, code string, outputs ...object) error {
	var columns []object
	for _, col := range sqlColumns {
		columns = append(columns, object{"Name": col.name, "SqlType": col.kind, "Mapping": "$." + col.name})
	}
	return c.call("CreateApplication", object{
		"ApplicationName": name, "RuntimeEnvironment": "SQL-1_0", "ServiceExecutionRole": sqlRole,
		"ApplicationConfiguration": object{
			"ApplicationCodeConfiguration": object{"CodeContentType": "PLAINTEXT", "CodeContent": object{"TextContent": code}},
			"SqlApplicationConfiguration": object{
				"Inputs": []object{{
					"NamePrefix": "SOURCE_SQL_STREAM", "KinesisStreamsInput": object{"ResourceARN": streamARN(sqlInput)},
					"InputSchema": object{
						"RecordColumns": columns, "RecordEncoding": "UTF-8",
						"RecordFormat": object{"RecordFormatType": "JSON", "MappingParameters": object{"JSONMappingParameters": object{"RecordRowPath": "$"}}},
					},
				}},
				"Outputs": outputs,
			},
		},
	}, nil)
}

func startApplication(c *conn, name, position string) error {
	err := c.call("StartApplication", object{"ApplicationName": name, "RunConfiguration": object{"SqlRunConfigurations": []object{{
		"InputId": "1.1", "InputStartingPositionConfiguration": object{"InputStartingPosition": position},
	}}}}, nil)
	if err != nil {
		return err
	}
	return settle(c, name, "RUNNING")
}

func stopApplication(c *conn, name string) error {
	if err := c.call("StopApplication", object{"ApplicationName": name}, nil); err != nil {
		return err
	}
	return settle(c, name, "READY")
}

// settle waits until an application is in a state.
func settle(c *conn, name, state string) error {
	for range 6000 {
		var out struct {
			ApplicationDetail struct{ ApplicationStatus string }
		}
		if err := c.call("DescribeApplication", object{"ApplicationName": name}, &out); err != nil {
			return err
		}
		if out.ApplicationDetail.ApplicationStatus == state {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the application does not become %s", state)
}

// readRows reads what was written to a stream.
func readRows(c *conn, stream string, shards int) (rows []json.RawMessage, err error) {
	for i := range shards {
		var it struct{ ShardIterator string }
		if err := c.call("GetShardIterator", object{"StreamName": stream, "ShardId": shardID(i), "ShardIteratorType": "TRIM_HORIZON"}, &it); err != nil {
			return nil, err
		}
		for {
			var page struct {
				Records            []struct{ Data []byte }
				NextShardIterator  string
				MillisBehindLatest int64
			}
			if err := c.call("GetRecords", object{"ShardIterator": it.ShardIterator}, &page); err != nil {
				return nil, err
			}
			for _, r := range page.Records {
				rows = append(rows, r.Data)
			}
			if len(page.Records) == 0 && page.MillisBehindLatest == 0 {
				break
			}
			it.ShardIterator = page.NextShardIterator
		}
	}
	return rows, nil
}

// atEnd waits for a window to end, and for a quiet server.
func atEnd(s *harness.Server, window time.Duration) (time.Duration, error) {
	cpu, err := quiet(s)
	if err != nil || window == 0 {
		return cpu, err
	}
	now := time.Now()
	time.Sleep(now.Truncate(window).Add(window + time.Second).Sub(now))
	return quiet(s)
}

// sqlServer puts rows beforehand and measures what reading, computing and writing
// them takes: the server's processor time from the start of an application at
// TRIM_HORIZON until the server is at rest.
func (b *bench) sqlServer() error {
	for _, p := range serverPrograms {
		n := int(p.rows * float64(b.sqlRows()))
		err := b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
			if err := createStream(c, sqlInput, p.shards); err != nil {
				return err
			}
			if err := putRows(s.Address, newRowMaker(rowKeys, p.perMilli), n, p.packed); err != nil {
				return err
			}
			var rate spread
			var out []json.RawMessage
			for turn := range sqlTurns {
				name := fmt.Sprintf("out-%d", turn)
				if err := createStream(c, name, p.shards); err != nil {
					return err
				}
				if err := createApplication(c, name, p.code, output("OUT", name)); err != nil {
					return err
				}
				before, err := quiet(s)
				if err != nil {
					return err
				}
				if err := startApplication(c, name, "TRIM_HORIZON"); err != nil {
					return err
				}
				after, err := atEnd(s, p.window)
				if err != nil {
					return err
				}
				rate.add(float64(n)/(after-before).Seconds(), turn)
				if err := stopApplication(c, name); err != nil {
					return err
				}
				if out, err = readRows(c, name, p.shards); err != nil {
					return err
				}
				if err := p.check(out, n); err != nil {
					return err
				}
			}
			budget, reached := "", true
			if p.budget > 0 {
				budget, reached = fmt.Sprintf("≥ %.0f", p.budget), rate.sum/sqlTurns >= p.budget
			}
			b.row("stream → stream, durable: "+p.name, fmt.Sprintf("%.0f to %.0f rows / CPU s", rate.low, rate.high), budget, reached,
				fmt.Sprintf("%d rows of %d bytes, %d shards; %d rows come out", n, rowBytes, p.shards, len(out)))
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// probeRow is a row that carries the time at which it is sent.
func probeRow() []byte {
	return fmt.Appendf(nil, `{"id":"sensor-0000000","kind":"p","n":0,"v":0,"ts":%d}`, time.Now().UnixNano())
}

const (
	probeStream = `CREATE STREAM "PROBE" (ts BIGINT); CREATE PUMP PP AS INSERT INTO "PROBE" SELECT STREAM "ts" FROM "` + inputName + `" WHERE "kind" = 'p' OR "v" > 99;
`
	probes = "probes"
)

// subscribe follows the only shard of a stream.
func subscribe(c *conn, address, stream string) (*conn, error) {
	var registered struct{ Consumer struct{ ConsumerARN string } }
	if err := c.call("RegisterStreamConsumer", object{"StreamARN": streamARN(stream), "ConsumerName": "bench"}, &registered); err != nil {
		return nil, err
	}
	time.Sleep(500 * time.Millisecond)
	sub, err := dial(address, user)
	if err != nil {
		return nil, err
	}
	body, _ := json.Marshal(object{"ConsumerARN": registered.Consumer.ConsumerARN, "ShardId": shardID(0), "StartingPosition": object{"Type": "LATEST"}})
	if err := sub.send(newRequest("SubscribeToShard", jsonType, body)); err != nil {
		return nil, err
	}
	status, _, err := sub.receive()
	if err == nil && status != 200 {
		err = fmt.Errorf("subscribe: status %d", status)
	}
	return sub, err
}

// readResults scans the event stream for rows of probes and tells how long after
// its sending each has arrived.
func readResults(c *conn, arrived chan<- time.Duration) {
	var seen, row []byte
	buf := make([]byte, 256<<10)
	const mark = `"Data":"`
	for {
		n, err := c.in.Read(buf)
		now := time.Now().UnixNano()
		seen = append(seen, buf[:n]...)
		for {
			i := bytes.Index(seen, []byte(mark))
			if i < 0 {
				break
			}
			end := bytes.IndexByte(seen[i+len(mark):], '"')
			if end < 0 {
				seen = append(seen[:0], seen[i:]...)
				break
			}
			row, _ = base64.StdEncoding.AppendDecode(row[:0], seen[i+len(mark):i+len(mark)+end])
			seen = seen[i+len(mark)+end:]
			var result struct{ TS int64 }
			// A row of the load has milliseconds there.
			if json.Unmarshal(row, &result) == nil && result.TS > firstStamp*1000 {
				select {
				case arrived <- time.Duration(now - result.TS):
				default:
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// probe sends probes for a time, one after the other, and returns how long after
// its sending each one's result arrived.
func probe(c *conn, arrived <-chan time.Duration, duration, within time.Duration) (latencies []time.Duration, err error) {
	for deadline := time.Now().Add(duration); time.Now().Before(deadline); {
		body := []byte(`{"StreamName":"` + sqlInput + `","PartitionKey":"p","Data":"` + base64.StdEncoding.EncodeToString(probeRow()) + `"}`)
		if _, err := c.do(newRequest("PutRecord", jsonType, body)); err != nil {
			return nil, err
		}
		select {
		case d := <-arrived:
			latencies = append(latencies, d)
		case <-time.After(within):
			return nil, fmt.Errorf("the result of a probe did not arrive within %v", within)
		}
		time.Sleep(3 * time.Millisecond)
	}
	if len(latencies) == 0 {
		return nil, errors.New("no probe was sent")
	}
	slices.Sort(latencies)
	return latencies, nil
}

func quantile(sorted []time.Duration, q float64) float64 {
	return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1e3
}

// sqlLatency measures from before a put is sent to when its result has arrived
// through an application and a subscription, while other writers keep the server
// at about half of what it can take.
func (b *bench) sqlLatency() error {
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		if err := errors.Join(createStream(c, sqlInput, 1), createStream(c, probes, 1)); err != nil {
			return err
		}
		if err := createApplication(c, "latency", probeStream, output("PROBE", probes)); err != nil {
			return err
		}
		if err := startApplication(c, "latency", "NOW"); err != nil {
			return err
		}
		sub, err := subscribe(c, s.Address, probes)
		if err != nil {
			return err
		}
		defer sub.close()
		arrived := make(chan time.Duration, 1000)
		var workers sync.WaitGroup
		var stop atomic.Bool
		workers.Go(func() { readResults(sub, arrived) })
		var loaded atomic.Int64
		for range 2 {
			workers.Go(func() {
				w, err := dial(s.Address, user)
				if err != nil {
					return
				}
				defer w.close()
				m := newRowMaker(rowKeys, 20)
				var records []object
				for range 200 {
					records = append(records, object{"Data": m.next(nil), "PartitionKey": "x"})
				}
				body, _ := json.Marshal(object{"StreamName": sqlInput, "Records": records})
				r := newRequest("PutRecords", jsonType, body)
				for !stop.Load() {
					t := time.Now()
					if _, err := w.do(r); err != nil {
						return
					}
					loaded.Add(200)
					time.Sleep(time.Since(t)) // half load: as much pause as work
				}
			})
		}
		time.Sleep(2 * time.Second)
		l0, t0 := loaded.Load(), time.Now()
		latencies, err := probe(c, arrived, b.duration, 5*time.Second)
		load := float64(loaded.Load()-l0) / time.Since(t0).Seconds()
		stop.Store(true)
		sub.close()
		workers.Wait()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, s.Output())
		}
		p50, p99 := quantile(latencies, 0.5), quantile(latencies, 0.99)
		b.row("put → result row of a stateless query, half load", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", p50, p99), "p99 < 20 ms", p99 < 20,
			fmt.Sprintf("%d probes through PutRecord, application, stream and SubscribeToShard; %.0f rows/s beside them, of which a hundredth come out", len(latencies), load))
		return nil
	})
}

// sqlState keeps a million keys in one window and looks at the memory they take,
// and at how long a row that goes through the same application waits while that
// state is stored.
func (b *bench) sqlState() error {
	const keys = 1_000_000
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		if err := errors.Join(createStream(c, sqlInput, 1), createStream(c, probes, 1), createStream(c, "out", 1)); err != nil {
			return err
		}
		if err := putRows(s.Address, newRowMaker(keys, 20), keys, 1); err != nil {
			return err
		}
		code := probeStream + resultStream + `"id", COUNT(*), SUM("v"), AVG("v") FROM "` + inputName + `" GROUP BY "id", FLOOR("` + inputName + `".ROWTIME TO DAY);`
		if err := createApplication(c, "state", code, output("PROBE", probes), output("OUT", "out")); err != nil {
			return err
		}
		if _, err := quiet(s); err != nil {
			return err
		}
		time.Sleep(10 * time.Second) // images of the log that were filled go
		before, err := harness.ResidentBytes(s.PID())
		if err != nil {
			return err
		}
		if err := startApplication(c, "state", "TRIM_HORIZON"); err != nil {
			return err
		}
		if _, err := quiet(s); err != nil {
			return err
		}
		time.Sleep(10 * time.Second)
		after, err := harness.ResidentBytes(s.PID())
		if err != nil {
			return err
		}
		sub, err := subscribe(c, s.Address, probes)
		if err != nil {
			return err
		}
		defer sub.close()
		arrived := make(chan time.Duration, 1000)
		var workers sync.WaitGroup
		workers.Go(func() { readResults(sub, arrived) })
		latencies, err := probe(c, arrived, 45*time.Second, 30*time.Second)
		sub.close()
		workers.Wait()
		if err != nil {
			return err
		}
		most, err := peak(s.PID())
		if err != nil {
			return err
		}
		b.row("1,000,000 keys in one window", fmt.Sprintf("RSS grows by %d MB, from %d to %d", (after-before)/1e6, before/1e6, after/1e6), "< 250 MB", after-before < 250e6,
			fmt.Sprintf("count, sum and average of each; ten seconds after the last row; at most %d MB in residence in all", most/1e6))
		longest := latencies[len(latencies)-1]
		b.row("the same while it is stored every ten seconds", fmt.Sprintf("the longest wait of a row is %.0f ms; p50 %.2f ms, p99 %.2f ms", longest.Seconds()*1e3,
			quantile(latencies, 0.5), quantile(latencies, 0.99)), "< 1 s", longest < time.Second, fmt.Sprintf("%d probes in 45 s through the same application", len(latencies)))
		return nil
	})
}
