package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/test/harness"
)

var user = signer{key: harness.AccessKey, secret: harness.SecretKey, region: harness.Region}

// with runs f against a fresh server and removes its data.
func (b *bench) with(o harness.Options, f func(s *harness.Server, c *conn) error) error {
	if o.Data == "" && !slices.Contains(o.Args, "--ephemeral") {
		dir, err := os.MkdirTemp("", "millrace-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.Data = filepath.Join(dir, "data")
	}
	s, err := harness.Start(b.ctx, o)
	if err != nil {
		return err
	}
	defer s.Kill()
	c, err := dial(s.Address, user)
	if err != nil {
		return err
	}
	defer c.close()
	return f(s, c)
}

func createStream(c *conn, name string, shards int) error {
	if err := c.call("CreateStream", object{"StreamName": name, "ShardCount": shards}, nil); err != nil {
		return err
	}
	for range 6000 {
		var out struct {
			StreamDescriptionSummary struct{ StreamStatus string }
		}
		if err := c.call("DescribeStreamSummary", object{"StreamName": name}, &out); err != nil {
			return err
		}
		if out.StreamDescriptionSummary.StreamStatus == "ACTIVE" {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the stream does not become ACTIVE")
}

// load is what a number of connections achieved.
type load struct {
	calls   int64
	cpu     time.Duration
	elapsed time.Duration
}

// perCPU is how many things per second of server processor time.
func (l load) perCPU(things int64) float64 { return float64(l.calls*things) / l.cpu.Seconds() }

// drive sends each connection's requests in turn for the given time. The first
// second warms up and does not count.
func drive(address string, pid int, connections int, duration time.Duration, make func(i int) []*request, check func(reply []byte) error) (load, error) {
	var calls atomic.Int64
	var stop atomic.Bool
	var first error
	var once sync.Once
	var workers sync.WaitGroup
	for i := range connections {
		c, err := dial(address, user)
		if err != nil {
			return load{}, err
		}
		requests := make(i)
		workers.Go(func() {
			defer c.close()
			for n := 0; !stop.Load(); n++ {
				reply, err := c.do(requests[n%len(requests)])
				if err == nil {
					err = check(reply)
				}
				if err != nil {
					once.Do(func() { first = err })
					stop.Store(true)
					return
				}
				calls.Add(1)
			}
		})
	}
	time.Sleep(time.Second)
	n0, t0 := calls.Load(), time.Now()
	c0, err := harness.ProcessCPU(pid)
	if err == nil {
		for time.Since(t0) < duration && !stop.Load() {
			time.Sleep(20 * time.Millisecond)
		}
	}
	n1, elapsed := calls.Load(), time.Since(t0)
	c1, err1 := harness.ProcessCPU(pid)
	stop.Store(true)
	workers.Wait()
	if err := errors.Join(err, err1, first); err != nil {
		return load{}, err
	}
	return load{calls: n1 - n0, cpu: c1 - c0, elapsed: elapsed}, nil
}

func allStored(reply []byte) error {
	if bytes.Contains(reply, []byte("ErrorCode")) {
		return fmt.Errorf("records failed: %.200s", reply)
	}
	return nil
}

func (b *bench) put() error {
	for _, r := range []struct {
		what        string
		contentType string
		size        int
		keys        bool
		budget      float64
	}{
		{"PutRecords 500 × 1 KiB, JSON, signed, durable", jsonType, 1024, true, 250_000},
		{"PutRecords 500 × 1 KiB, JSON, open, durable", jsonType, 1024, false, 400_000},
		{"PutRecords 500 × 100 B, JSON, signed, durable", jsonType, 100, true, 600_000},
		{"PutRecords 500 × 1 KiB, CBOR, signed, durable", cborType, 1024, true, 300_000},
	} {
		err := b.with(harness.Options{Keys: r.keys}, func(s *harness.Server, c *conn) error {
			if err := createStream(c, "load", 16); err != nil {
				return err
			}
			l, err := drive(s.Address, s.PID(), 8, b.duration, func(i int) []*request {
				return []*request{putRecords("load", r.contentType, 500, r.size, i), putRecords("load", r.contentType, 500, r.size, i+100)}
			}, allStored)
			if err != nil {
				return err
			}
			rate := l.perCPU(500)
			b.row(r.what, fmt.Sprintf("%.0f records / CPU s (%.0f /s elapsed)", rate, float64(l.calls*500)/l.elapsed.Seconds()),
				fmt.Sprintf("≥ %.0f", r.budget), rate >= r.budget, "8 connections, 16 shards")
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", r.what, err)
		}
	}
	return b.with(harness.Options{Keys: true}, func(s *harness.Server, c *conn) error {
		if err := createStream(c, "load", 16); err != nil {
			return err
		}
		l, err := drive(s.Address, s.PID(), 16, b.duration, func(i int) []*request {
			body, _ := json.Marshal(object{"StreamName": "load", "Data": payload(1024, i), "PartitionKey": fmt.Sprint(i)})
			return []*request{newRequest("PutRecord", jsonType, body)}
		}, func(reply []byte) error {
			if !bytes.Contains(reply, []byte("SequenceNumber")) {
				return fmt.Errorf("reply %.100s", reply)
			}
			return nil
		})
		if err != nil {
			return err
		}
		b.row("PutRecord 1 KiB, JSON, signed, durable", fmt.Sprintf("%.0f records / CPU s (%.0f /s elapsed)", l.perCPU(1), float64(l.calls)/l.elapsed.Seconds()),
			"≥ 20000", l.perCPU(1) >= 20_000, "16 connections, one call in flight each")
		return nil
	})
}

// fill puts some bytes of 1 KiB records into a stream.
func fill(address, stream string, total int64) error {
	const perCall = 500 << 10
	var left atomic.Int64
	left.Store(total)
	var errs [6]error
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			c, err := dial(address, user)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			r := putRecords(stream, cborType, 500, 1024, i)
			for left.Add(-perCall) > -perCall {
				if _, err := c.do(r); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(errs[:]...)
}

func shardID(i int) string { return fmt.Sprintf("shardId-%012d", i) }

func (b *bench) get() error {
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		const shards = 4
		total := int64(2 << 30)
		if err := createStream(c, "drain", shards); err != nil {
			return err
		}
		if err := fill(s.Address, "drain", total); err != nil {
			return err
		}
		time.Sleep(3 * time.Second) // let sealing end, so that it does not count as reading
		c0, err := s.CPU()
		if err != nil {
			return err
		}
		t0 := time.Now()
		var bytesRead atomic.Int64
		var errs [shards]error
		var workers sync.WaitGroup
		for i := range shards {
			workers.Go(func() {
				n, err := drain(s.Address, "drain", shardID(i))
				bytesRead.Add(n)
				errs[i] = err
			})
		}
		workers.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		c1, err := s.CPU()
		if err != nil {
			return err
		}
		if bytesRead.Load() < total {
			return fmt.Errorf("%d bytes were read of %d", bytesRead.Load(), total)
		}
		rate := float64(bytesRead.Load()) / (c1 - c0).Seconds() / 1e6
		b.row("GetRecords drain, JSON", fmt.Sprintf("%.0f MB payload / CPU s (%.0f MB/s elapsed)", rate, float64(bytesRead.Load())/time.Since(t0).Seconds()/1e6),
			"≥ 800 MB", rate >= 800, "2 GiB of 1 KiB records, 4 shards, 4 connections, replies counted and not parsed, auth=open")
		return nil
	})
}

// drain reads a shard to its tip and returns the payload bytes, counted by the
// records in each reply.
func drain(address, stream, shard string) (int64, error) {
	c, err := dial(address, user)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var it struct{ ShardIterator string }
	if err := c.call("GetShardIterator", object{"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}, &it); err != nil {
		return 0, err
	}
	const mark, next = `"SequenceNumber"`, `"NextShardIterator":"`
	total := int64(0)
	for {
		reply, err := c.do(newRequest("GetRecords", jsonType, []byte(`{"ShardIterator":"`+it.ShardIterator+`"}`)))
		if err != nil {
			return total, err
		}
		n := bytes.Count(reply, []byte(mark))
		total += int64(n) << 10
		i := bytes.LastIndex(reply, []byte(next))
		if n == 0 || i < 0 {
			return total, nil
		}
		rest := reply[i+len(next):]
		it.ShardIterator = string(rest[:bytes.IndexByte(rest, '"')])
	}
}

// fanOut measures from before a put is sent to when its event has arrived,
// while other writers keep the server at about half of what it can take.
func (b *bench) fanOut() error {
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		if err := createStream(c, "fan", 4); err != nil {
			return err
		}
		var registered struct{ Consumer struct{ ConsumerARN string } }
		arn := "arn:aws:kinesis:" + harness.Region + ":" + harness.Account + ":stream/fan"
		if err := c.call("RegisterStreamConsumer", object{"StreamARN": arn, "ConsumerName": "bench"}, &registered); err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond)
		sub, err := dial(s.Address, user)
		if err != nil {
			return err
		}
		defer sub.close()
		body, _ := json.Marshal(object{"ConsumerARN": registered.Consumer.ConsumerARN, "ShardId": shardID(0), "StartingPosition": object{"Type": "LATEST"}})
		if err := sub.send(newRequest("SubscribeToShard", jsonType, body)); err != nil {
			return err
		}
		status, _, err := sub.receive()
		if err != nil || status != 200 {
			return fmt.Errorf("subscribe: status %d, %v", status, err)
		}
		// Probes go to the first shard by explicit hash key; the data of a probe
		// is the time it was sent.
		arrived := make(chan time.Duration, 100_000)
		var workers sync.WaitGroup
		var stop atomic.Bool
		workers.Go(func() { readProbes(sub, arrived) })
		for i := range 2 {
			workers.Go(func() {
				w, err := dial(s.Address, user)
				if err != nil {
					return
				}
				defer w.close()
				// Half load: as much pause as work.
				var records []object
				for j := range 200 {
					records = append(records, object{"Data": payload(1024, j), "PartitionKey": "x", "ExplicitHashKey": "340282366920938463463374607431768211455"})
				}
				body, _ := json.Marshal(object{"StreamName": "fan", "Records": records})
				r := newRequest("PutRecords", jsonType, body)
				for !stop.Load() {
					t := time.Now()
					if _, err := w.do(r); err != nil {
						return
					}
					time.Sleep(time.Since(t) + time.Duration(i)*100*time.Microsecond)
				}
			})
		}
		time.Sleep(time.Second)
		var latencies []time.Duration
		deadline := time.Now().Add(b.duration)
		for time.Now().Before(deadline) {
			var data [8]byte
			binary.BigEndian.PutUint64(data[:], uint64(time.Now().UnixNano()))
			body := []byte(`{"StreamName":"fan","Data":"` + base64.StdEncoding.EncodeToString(data[:]) + `","PartitionKey":"probe","ExplicitHashKey":"0"}`)
			if _, err := c.do(newRequest("PutRecord", jsonType, body)); err != nil {
				return err
			}
			select {
			case d := <-arrived:
				latencies = append(latencies, d)
			case <-time.After(5 * time.Second):
				return errors.New("a probe did not arrive within five seconds")
			}
			time.Sleep(3 * time.Millisecond)
		}
		stop.Store(true)
		sub.close()
		workers.Wait()
		slices.Sort(latencies)
		p := func(q float64) time.Duration { return latencies[int(q*float64(len(latencies)-1))] }
		b.row("put → SubscribeToShard event, half load", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", p(0.5).Seconds()*1e3, p(0.99).Seconds()*1e3),
			"p50 ≤ 1 ms, p99 ≤ 5 ms", p(0.5) <= time.Millisecond && p(0.99) <= 5*time.Millisecond,
			fmt.Sprintf("%d probes from before the put is sent to the event's arrival; two writers of 200 × 1 KiB beside it", len(latencies)))
		return nil
	})
}

// readProbes scans the event stream for probe records.
func readProbes(c *conn, arrived chan<- time.Duration) {
	var seen []byte
	buf := make([]byte, 64<<10)
	const mark = `"Data":"`
	for {
		n, err := c.in.Read(buf)
		now := time.Now().UnixNano()
		seen = append(seen, buf[:n]...)
		for {
			i := bytes.Index(seen, []byte(mark))
			if i < 0 || len(seen) < i+len(mark)+12 {
				break
			}
			var data [9]byte
			if _, err := base64.StdEncoding.Decode(data[:], seen[i+len(mark):i+len(mark)+12]); err == nil {
				arrived <- time.Duration(now - int64(binary.BigEndian.Uint64(data[:8])))
			}
			seen = seen[i+len(mark)+12:]
		}
		if len(seen) > 1<<20 {
			seen = append([]byte(nil), seen[len(seen)-64:]...)
		}
		if err != nil {
			return
		}
	}
}

func (b *bench) shards() error {
	err := b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		t0 := time.Now()
		if err := createStream(c, "many", 10_000); err != nil {
			return err
		}
		took := time.Since(t0)
		time.Sleep(2 * time.Second)
		rss, err := harness.ResidentBytes(s.PID())
		if err != nil {
			return err
		}
		b.row("10,000 shards idle", fmt.Sprintf("created in %.2f s, RSS %d MiB", took.Seconds(), rss>>20), "≤ 2 s, ≤ 120 MB", took <= 2*time.Second && rss <= 120e6, "CreateStream until ACTIVE; memory two seconds later")
		return nil
	})
	if err != nil {
		return err
	}
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		t0 := time.Now()
		for i := range 10 {
			if err := createStream(c, fmt.Sprintf("many-%d", i), 10_000); err != nil {
				return err
			}
		}
		took := time.Since(t0)
		for i := range 10 {
			if _, err := c.do(putRecords(fmt.Sprintf("many-%d", i), jsonType, 500, 100, i)); err != nil {
				return err
			}
		}
		rss, err := harness.ResidentBytes(s.PID())
		if err != nil {
			return err
		}
		b.row("100,000 shards", fmt.Sprintf("created in %.1f s, RSS %d MiB", took.Seconds(), rss>>20), "work", true, "ten streams of 10,000, then 500 records into each")
		return nil
	})
}

// flat compares the cost of a record as shards grow.
func (b *bench) flat() error {
	base := 0.0
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		err := b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
			if err := createStream(c, "flat", n); err != nil {
				return err
			}
			l, err := drive(s.Address, s.PID(), 8, b.duration/2, func(i int) []*request {
				return []*request{putRecords("flat", jsonType, 500, 1024, i), putRecords("flat", jsonType, 500, 1024, i+50)}
			}, allStored)
			if err != nil {
				return err
			}
			rate := l.perCPU(500)
			if base == 0 {
				base = rate
			}
			b.row(fmt.Sprintf("PutRecords into %d shards", n), fmt.Sprintf("%.0f records / CPU s, %.2f × the cost at one shard", rate, base/rate), "≤ 1.5 ×", base/rate <= 1.5, "500 × 1 KiB, JSON, open, durable, 8 connections")
			return nil
		})
		if err != nil {
			return fmt.Errorf("%d shards: %w", n, err)
		}
	}
	return nil
}

func (b *bench) restart() error {
	total := int64(2 << 30)
	if b.full {
		total = 10 << 30
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := harness.Options{Data: filepath.Join(dir, "data")}
	err = b.with(o, func(s *harness.Server, c *conn) error {
		if err := createStream(c, "restart", 100); err != nil {
			return err
		}
		return fill(s.Address, "restart", total)
	})
	if err != nil {
		return err
	}
	t0 := time.Now()
	return b.with(o, func(s *harness.Server, c *conn) error {
		var out struct{ StreamNames []string }
		if err := c.call("ListStreams", object{}, &out); err != nil {
			return err
		}
		took := time.Since(t0)
		if len(out.StreamNames) != 1 {
			return fmt.Errorf("streams after the restart: %v", out.StreamNames)
		}
		b.row(fmt.Sprintf("start with %d GiB after kill -9", total>>30), fmt.Sprintf("%.2f s to the first answer", took.Seconds()), "≤ 1 s", took <= time.Second, "process start until ListStreams has answered; 100 shards")
		return nil
	})
}

func (b *bench) idle() error {
	return b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		time.Sleep(2 * time.Second)
		c0, err := s.CPU()
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
		b.row("idle server", fmt.Sprintf("RSS %d MiB, %.1f %% of a core", rss>>20, share), "≤ 40 MB, < 0.5 %", rss <= 40e6 && share < 0.5, "fresh, after two seconds, over ten")
		return nil
	})
}

// compare runs the same load against other servers, each over a directory on
// the same disk.
func (b *bench) compare() error {
	measure := func(address string, pid int) (float64, error) {
		c, err := dial(address, user)
		if err != nil {
			return 0, err
		}
		defer c.close()
		if err := createStream(c, "load", 4); err != nil {
			return 0, err
		}
		l, err := drive(address, pid, 8, b.duration, func(i int) []*request {
			return []*request{putRecords("load", jsonType, 500, 1024, i)}
		}, allStored)
		return l.perCPU(500), err
	}
	var ours float64
	const method = "500 × 1 KiB, JSON, 4 shards, 8 connections, data on disk"
	err := b.with(harness.Options{}, func(s *harness.Server, c *conn) error {
		var err error
		ours, err = measure(s.Address, s.PID())
		return err
	})
	if err != nil {
		return fmt.Errorf("millrace: %w", err)
	}
	b.row("millrace, beside the following", fmt.Sprintf("%.0f records / CPU s", ours), "", true, method+", open, every reply durable")
	for _, p := range []struct {
		name    string
		command func(port, dir string) []string
		ratio   float64
		durable string
	}{
		{"kinesalite 3.3.3", func(port, dir string) []string {
			return []string{"node", filepath.Join(b.cache, "bench/kinesalite/node_modules/kinesalite/cli.js"), "--port", port, "--path", dir,
				"--createStreamMs", "10", "--shardLimit", "100"}
		}, 20, "LevelDB on disk, its own settings: written, not synced"},
		{"ferrokinesis 0.7.0", func(port, dir string) []string {
			return []string{filepath.Join(b.cache, "bench/ferrokinesis/bin/ferrokinesis"), "--port", port, "--state-dir", dir, "--create-stream-ms", "10",
				"--shard-limit", "100", "--log-level", "error", "--account-id", harness.Account, "--region", harness.Region}
		}, 2, "write-ahead log on disk"},
	} {
		rate, err := b.peer(p.command, measure)
		if errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "bench: %s is not installed\n", p.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		b.row(p.name, fmt.Sprintf("%.0f records / CPU s; millrace does %.1f ×", rate, ours/rate), fmt.Sprintf("≥ %.0f ×", p.ratio), ours/rate >= p.ratio, method+", "+p.durable)
	}
	return nil
}

func (b *bench) peer(command func(port, dir string) []string, measure func(string, int) (float64, error)) (float64, error) {
	dir, err := os.MkdirTemp("", "peer-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	address, err := harness.FreeAddress()
	if err != nil {
		return 0, err
	}
	_, port, _ := net.SplitHostPort(address)
	line := command(port, filepath.Join(dir, "data"))
	for _, f := range line {
		if strings.HasPrefix(f, b.cache) {
			if _, err := os.Stat(f); err != nil {
				return 0, err
			}
		}
	}
	process := exec.Command(line[0], line[1:]...)
	var output bytes.Buffer
	process.Stdout, process.Stderr = &output, &output
	if err := process.Start(); err != nil {
		return 0, err
	}
	var wait sync.WaitGroup
	wait.Go(func() { process.Wait() })
	defer wait.Wait()
	defer process.Process.Kill()
	for range 500 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			rate, err := measure(address, process.Process.Pid)
			if err != nil {
				return 0, fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.Bytes()))
			}
			return rate, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0, fmt.Errorf("it does not listen: %s", output.String())
}
