package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/client"
)

const (
	maxDeliveryRecords = 500
	maxDeliveryBytes   = 4 << 20
	// putPauses bounds how often what was throttled is put again.
	putPauses = 12
)

// putter puts records to a delivery stream in batches.
type putter struct {
	client *client.Client
	stream string
	batch  []firehose.Record
	bytes  int
	total  int
}

func (p *putter) add(ctx context.Context, data []byte) error {
	if len(p.batch) == maxDeliveryRecords || p.bytes+len(data) > maxDeliveryBytes {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	p.batch = append(p.batch, firehose.Record{Data: data})
	p.bytes += len(data)
	return nil
}

// flush puts what has been added. Records that are throttled are put again, after
// pauses that grow.
func (p *putter) flush(ctx context.Context) error {
	for attempt := 0; len(p.batch) > 0; attempt++ {
		if attempt > 0 {
			if err := client.Sleep(ctx, min(50*time.Millisecond<<attempt, 5*time.Second)); err != nil {
				return err
			}
		}
		out := &firehose.PutRecordBatchOutput{}
		if err := p.client.Call(ctx, firehose.OpPutRecordBatch, &firehose.PutRecordBatchInput{DeliveryStreamName: &p.stream, Records: p.batch}, out); err != nil {
			return deliveryHint(err)
		}
		var again []firehose.Record
		reason := ""
		for i, r := range out.RequestResponses {
			if r.ErrorCode != nil && i < len(p.batch) {
				again = append(again, p.batch[i])
				reason = *r.ErrorCode + ": " + api.Val(r.ErrorMessage)
			}
		}
		p.total += len(p.batch) - len(again)
		if p.batch = again; len(again) > 0 && attempt == putPauses {
			return fmt.Errorf("after %d records: %s", p.total, reason)
		}
	}
	p.batch, p.bytes = nil, 0
	return nil
}

// plural counts records in words.
func plural(n int) string {
	if n == 1 {
		return "1 record"
	}
	return strconv.Itoa(n) + " records"
}

func deliveryPut(c *connection) *cobra.Command {
	var files []string
	var newline bool
	cmd := &cobra.Command{
		Use:   "put NAME [DATA]",
		Short: "Put records: the argument, or each line of standard input or of files",
		Long: `Put records to a delivery stream: the argument as one record, or else each line of
the files or of standard input. Records are put without their line ends, and
delivery streams add none of their own: lines that shall be lines in an object
need --newline here, or AppendDelimiterToRecord in the delivery stream.`,
		Example: `  millrace delivery put clicks '{"page":"/"}' --newline
  kubectl logs -f app | millrace delivery put logs --newline`,
		Args: cobra.RangeArgs(1, 2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			p := &putter{client: cl, stream: args[0]}
			add := func(line []byte) error {
				if newline {
					line = append(line, '\n')
				}
				return p.add(ctx, line)
			}
			switch {
			case len(args) == 2 && len(files) > 0:
				return errors.New("give DATA or --file, not both")
			case len(args) == 2:
				if err := add([]byte(args[1])); err != nil {
					return err
				}
			case len(files) > 0:
				for _, name := range files {
					if err := eachFileLine(name, add); err != nil {
						return err
					}
				}
			default:
				in, _ := input(ctx, cmd, "reading records, one a line")
				if err := eachLine(in, "standard input", add); err != nil {
					return err
				}
			}
			if err := p.flush(ctx); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s put to %s\n", plural(p.total), args[0])
			return nil
		}),
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "file whose lines are records; may be repeated")
	cmd.Flags().BoolVar(&newline, "newline", false, "end every record with a newline")
	return cmd
}

func eachFileLine(name string, f func([]byte) error) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return eachLine(file, name, f)
}

// ticker makes the records of a stock exchange that never was. The same seed makes
// the same records.
type ticker struct {
	random *rand.Rand
	stocks []stock
}

type stock struct {
	Symbol string  `json:"TICKER_SYMBOL"`
	Sector string  `json:"SECTOR"`
	Change float64 `json:"CHANGE"`
	Price  float64 `json:"PRICE"`
}

var sectors = []string{"AGRICULTURE", "CHEMICALS", "ENERGY", "FINANCIAL", "HEALTHCARE", "LOGISTICS", "MEDIA", "RETAIL", "TECHNOLOGY", "UTILITIES"}

func newTicker(seed uint64) *ticker {
	t := &ticker{random: rand.New(rand.NewPCG(seed, 4567))}
	for i := range 40 {
		symbol := make([]byte, 3+t.random.IntN(2))
		for i := range symbol {
			symbol[i] = byte('A' + t.random.IntN(26))
		}
		// Every sector has some: programs ask for one.
		t.stocks = append(t.stocks, stock{Symbol: string(symbol), Sector: sectors[i%len(sectors)], Price: cents(5 + 200*t.random.Float64())})
	}
	return t
}

func cents(f float64) float64 { return math.Round(f*100) / 100 }

// next moves a stock and describes it.
func (t *ticker) next() []byte {
	s := &t.stocks[t.random.IntN(len(t.stocks))]
	before := s.Price
	s.Price = max(cents(s.Price*(1+(t.random.Float64()-0.5)/25)), 0.01)
	s.Change = cents(s.Price - before)
	// Text and two numbers always encode.
	b, _ := json.Marshal(s)
	return b
}

// parseRate reads a rate: 10, 10/s, 600/m.
func parseRate(text string) (perSecond float64, err error) {
	number, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(number, 64)
	seconds, known := map[string]float64{"": 1, "s": 1, "m": 60, "h": 3600}[unit]
	if err != nil || !known || !(n > 0) || n > 1e6 {
		return 0, fmt.Errorf("--rate %q is not a number of records with /s, /m or /h behind it", text)
	}
	return n / seconds, nil
}

func deliveryDemo(c *connection) *cobra.Command {
	var rate string
	var count int
	var seed uint64
	var newline bool
	cmd := &cobra.Command{
		Use:   "demo NAME",
		Short: "Put made-up stock prices until interrupted",
		Long: `Put demo records, the prices of stocks that do not exist, until interrupted:
{"TICKER_SYMBOL":"QXZ","SECTOR":"HEALTHCARE","CHANGE":-0.05,"PRICE":84.51}`,
		Example: `  millrace delivery demo clicks --rate 10/s
  millrace delivery demo clicks --count 1000 --newline`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			perSecond, err := parseRate(rate)
			if err != nil {
				return err
			}
			if seed == 0 {
				seed = rand.Uint64()
			}
			t, p := newTicker(seed), &putter{client: cl, stream: args[0]}
			began := time.Now()
			done := func() { fmt.Fprintf(cmd.ErrOrStderr(), "%s put to %s\n", plural(p.total), args[0]) }
			for n := 0; count == 0 || n < count; {
				// As many as are due, so that high rates need no short pauses.
				due := int(perSecond*time.Since(began).Seconds()) + 1
				if count > 0 && !cmd.Flags().Changed("rate") {
					due = count
				}
				for ; n < due && (count == 0 || n < count); n++ {
					record := t.next()
					if newline {
						record = append(record, '\n')
					}
					if err := p.add(ctx, record); err != nil {
						return err
					}
				}
				if err := p.flush(ctx); err != nil {
					if ctx.Err() != nil {
						break
					}
					return err
				}
				if count > 0 && n >= count {
					break
				}
				pause := max(10*time.Millisecond, time.Duration(float64(time.Second)/perSecond/2))
				if err := client.Sleep(ctx, min(pause, time.Second)); err != nil {
					break // interrupted, as it is meant to be
				}
			}
			done()
			return nil
		}),
	}
	cmd.Flags().StringVar(&rate, "rate", "10/s", "how many records: 10/s, 600/m")
	cmd.Flags().IntVarP(&count, "count", "n", 0, "stop after so many records, put as fast as they go unless --rate is given")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "make the same records again (default by chance)")
	cmd.Flags().BoolVar(&newline, "newline", false, "end every record with a newline")
	return cmd
}
