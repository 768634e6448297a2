package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

type benchOptions struct {
	stream   string
	shards   int32
	size     int
	batch    int
	clients  int
	duration time.Duration
	read     bool
	asJSON   bool
}

func benchCommand() *cobra.Command {
	c := &connection{}
	var o benchOptions
	var keep bool
	cmd := &cobra.Command{
		Use:   "bench [STREAM]",
		Short: "Load a server with puts and reads, and show rates and latencies as they go",
		Long: `Put records from several connections and, unless --read=false, read them back
side by side. Without STREAM a stream is made for the run and deleted after it.

The figures include this program's own work on the same machine; they compare
settings within one run, not machines.`,
		Args: cobra.MaximumNArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) (err error) {
			if o.size < 1 || o.size > maxLineBytes || o.batch < 1 || o.batch > maxBatchRecords || o.clients < 1 || o.clients > 4096 || o.size*o.batch > 9<<20 {
				return errors.New("--size is 1 to 10485760, --batch 1 to 500, --clients 1 to 4096, and a batch at most 9 MiB")
			}
			if len(args) == 1 {
				o.stream = args[0]
			} else {
				o.stream = "bench-" + rand.Text()[:8]
				in := &kinesis.CreateStreamInput{StreamName: &o.stream, ShardCount: &o.shards}
				if err := cl.Call(ctx, kinesis.OpCreateStream, in, nil); err != nil {
					return err
				}
				defer func() {
					if keep {
						return
					}
					// The run may have been interrupted; its stream goes all the same.
					ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
					defer cancel()
					err = errors.Join(err, cl.Call(ctx, kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: &o.stream}, nil))
				}()
				if err := waitActive(ctx, cl, o.stream); err != nil {
					return err
				}
			}
			return bench(ctx, cl, o, cmd.OutOrStdout())
		}),
	}
	c.register(cmd)
	f := cmd.Flags()
	f.Int32Var(&o.shards, "shards", 4, "shards of the stream made for the run")
	f.IntVar(&o.size, "size", 1024, "bytes a record")
	f.IntVar(&o.batch, "batch", 500, "records a PutRecords call; 1 uses PutRecord")
	f.IntVarP(&o.clients, "clients", "c", 4, "connections that put")
	f.DurationVarP(&o.duration, "duration", "d", 10*time.Second, "how long")
	f.BoolVar(&o.read, "read", true, "read side by side")
	f.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	f.BoolVar(&keep, "keep", false, "keep the stream made for the run")
	return cmd
}

// counters are what the load has done so far.
type counters struct {
	put, putBytes, read, readBytes, calls, refused atomic.Int64

	mu        sync.Mutex
	latencies []time.Duration // of put calls
}

func (n *counters) called(took time.Duration) {
	n.calls.Add(1)
	n.mu.Lock()
	n.latencies = append(n.latencies, took)
	n.mu.Unlock()
}

func bench(ctx context.Context, cl *client.Client, o benchOptions, w io.Writer) error {
	shards, err := listShards(ctx, cl, o.stream)
	if err != nil {
		return err
	}
	n := &counters{}
	puts, stopPuts := context.WithTimeout(ctx, o.duration)
	defer stopPuts()
	reads, stopReads := context.WithCancel(ctx)
	defer stopReads()
	start := time.Now()

	var readers, writers errgroup.Group
	if o.read {
		for _, s := range shards {
			if s.SequenceNumberRange.EndingSequenceNumber == nil {
				readers.Go(func() error { return benchRead(reads, cl, o.stream, *s.ShardId, n) })
			}
		}
	}
	for range o.clients {
		writers.Go(func() error { return benchPut(puts, cl, o, n) })
	}
	var display sync.WaitGroup
	if !o.asJSON {
		display.Go(func() { showBench(puts, n, start, w) })
	}

	err = writers.Wait()
	stopPuts()
	took := time.Since(start)
	display.Wait()
	// Readers get a moment to catch up, so that the totals can be compared.
	for deadline := time.Now().Add(5 * time.Second); o.read && n.read.Load() < n.put.Load() && time.Now().Before(deadline) && ctx.Err() == nil; {
		if client.Sleep(ctx, 20*time.Millisecond) != nil {
			break
		}
	}
	stopReads()
	err = errors.Join(err, readers.Wait())
	if err != nil {
		return err
	}
	return summarize(w, n, o, took)
}

func benchPut(ctx context.Context, cl *client.Client, o benchOptions, n *counters) error {
	data := make([]byte, o.size)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	for call := 0; ctx.Err() == nil; call++ {
		start := time.Now()
		stored := 0
		var err error
		if o.batch == 1 {
			in := &kinesis.PutRecordInput{StreamName: &o.stream, Data: data, PartitionKey: api.Ptr(rand.Text())}
			if err = cl.Call(ctx, kinesis.OpPutRecord, in, nil); err == nil {
				stored = 1
			}
		} else {
			in := &kinesis.PutRecordsInput{StreamName: &o.stream, Records: make([]kinesis.PutRecordsRequestEntry, o.batch)}
			for i := range in.Records {
				in.Records[i] = kinesis.PutRecordsRequestEntry{Data: data, PartitionKey: api.Ptr(strconv.Itoa(call*o.batch + i))}
			}
			out := &kinesis.PutRecordsOutput{}
			if err = cl.Call(ctx, kinesis.OpPutRecords, in, out); err == nil {
				stored = o.batch - int(api.Val(out.FailedRecordCount))
				n.refused.Add(int64(api.Val(out.FailedRecordCount)))
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return hint(err, o.stream)
		}
		n.put.Add(int64(stored))
		n.putBytes.Add(int64(stored * o.size))
		n.called(time.Since(start))
	}
	return nil
}

func benchRead(ctx context.Context, cl *client.Client, stream, shard string, n *counters) error {
	r := &shardReader{client: cl, stream: stream, shard: shard, position: startingPosition{kind: kinesis.ShardIteratorTypeLatest}}
	for ctx.Err() == nil && !r.done {
		records, behind, err := r.next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range records {
			n.readBytes.Add(int64(len(records[i].Data)))
		}
		n.read.Add(int64(len(records)))
		if behind == 0 && len(records) == 0 {
			if client.Sleep(ctx, 20*time.Millisecond) != nil {
				return nil
			}
		}
	}
	return nil
}

// showBench prints a line a second: over itself on a terminal.
func showBench(ctx context.Context, n *counters, start time.Time, w io.Writer) {
	lead, tail := "", "\n"
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		lead, tail = "\r\x1b[K", ""
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var put, putBytes, read int64
	for {
		select {
		case <-ctx.Done():
			fmt.Fprint(w, lead)
			return
		case <-ticker.C:
		}
		nowPut, nowBytes, nowRead := n.put.Load(), n.putBytes.Load(), n.read.Load()
		fmt.Fprintf(w, "%s%4.0fs  put %8d records/s %7.1f MB/s   read %8d records/s   refused %d%s", lead,
			time.Since(start).Seconds(), nowPut-put, float64(nowBytes-putBytes)/1e6, nowRead-read, n.refused.Load(), tail)
		put, putBytes, read = nowPut, nowBytes, nowRead
	}
}

func summarize(w io.Writer, n *counters, o benchOptions, took time.Duration) error {
	slices.Sort(n.latencies)
	at := func(q float64) time.Duration {
		if len(n.latencies) == 0 {
			return 0
		}
		return n.latencies[min(int(q*float64(len(n.latencies))), len(n.latencies)-1)]
	}
	if o.asJSON {
		milliseconds := func(q float64) float64 { return float64(at(q).Microseconds()) / 1000 }
		return printJSON(w, map[string]any{
			"seconds": took.Seconds(), "putRecords": n.put.Load(), "putBytes": n.putBytes.Load(), "putCalls": n.calls.Load(),
			"refusedRecords": n.refused.Load(), "readRecords": n.read.Load(), "readBytes": n.readBytes.Load(),
			"putMilliseconds": map[string]float64{"p50": milliseconds(.5), "p90": milliseconds(.9), "p99": milliseconds(.99), "max": milliseconds(1)},
		})
	}
	rows := [][]string{
		{"put", fmt.Sprintf("%d records in %.1f s", n.put.Load(), took.Seconds()), fmt.Sprintf("%.0f records/s", float64(n.put.Load())/took.Seconds()), fmt.Sprintf("%.1f MB/s", float64(n.putBytes.Load())/1e6/took.Seconds())},
		{"put calls", strconv.FormatInt(n.calls.Load(), 10), fmt.Sprintf("p50 %s  p90 %s  p99 %s", round(at(.5)), round(at(.9)), round(at(.99))), "max " + round(at(1)).String()},
		{"refused", fmt.Sprintf("%d records", n.refused.Load())},
	}
	if o.read {
		rows = append(rows, []string{"read", fmt.Sprintf("%d records", n.read.Load()), fmt.Sprintf("%.1f MB", float64(n.readBytes.Load())/1e6)})
	}
	return table(w, rows)
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
