package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

// streamPrefix marks an input that is a data stream of a server.
const streamPrefix = "stream:"

// boundInterval is how often a stream that is silent lets windows close.
const boundInterval = 250 * time.Millisecond

// live runs a program over data streams.
type live struct {
	from     string
	noFollow bool
	json     bool
	limit    int
	length   time.Duration

	position startingPosition
	cl       *client.Client
}

func (l *live) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.from, "from", "latest", "with a stream, where to begin: trim, latest, a duration back from now, or a time")
	f.BoolVar(&l.noFollow, "no-follow", false, "with a stream, stop at the newest record")
	f.BoolVar(&l.json, "json", false, "print JSON lines on a terminal too, in place of a live table")
	f.IntVarP(&l.limit, "limit", "n", 0, "stop after so many rows")
	f.DurationVar(&l.length, "for", 0, "with a stream, stop after so long")
}

// streams are the inputs that are data streams, by the names they have in the
// program.
func (s *sources) streams() map[string]string {
	streams := map[string]string{}
	for name, file := range s.files {
		if stream, ok := strings.CutPrefix(file, streamPrefix); ok {
			streams[name] = stream
		}
	}
	return streams
}

// sampleStream reads some records to guess the columns of: those that are there,
// and if there are none the first that come.
func (l *live) sampleStream(ctx context.Context, cmd *cobra.Command, stream string) ([]string, error) {
	var samples []string
	look := func(from startingPosition, follow bool) error {
		p := &printer{w: io.Discard, remarks: io.Discard}
		p.each = func(_ string, _ *kinesis.Record, data []byte) error {
			if samples = append(samples, string(data)); len(samples) >= sampledLines || follow {
				return errLimit
			}
			return nil
		}
		if err := tail(ctx, l.cl, stream, "", from, follow, p); !errors.Is(err, errLimit) {
			return err
		}
		return nil
	}
	if err := look(startingPosition{kind: kinesis.ShardIteratorTypeTrimHorizon}, false); err != nil || len(samples) > 0 {
		return samples, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "waiting for a record of %s, to see its columns\n", stream)
	err := look(startingPosition{kind: kinesis.ShardIteratorTypeLatest}, true)
	return samples, err
}

// arrival is a record on its way from a stream to the program.
type arrival struct {
	at                   int // of the input
	key, sequence, shard string
	time                 int64 // of arrival, in milliseconds
	data                 string
}

// runStreams feeds data streams to a program until the user interrupts, the limit
// is reached or, without following, all records are read.
func (s *sources) runStreams(ctx context.Context, cmd *cobra.Command, l *live, program *plan.Program, outputs []string, rowtime string) error {
	if l.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.length)
		defer cancel()
	}
	begun := time.Now()
	clock := func() time.Time { return time.Now() }
	engine := run.New(program, run.Options{Now: clock})
	if outputs == nil {
		outputs = append(plan.Ends(program), plan.ErrorStream)
	}
	show, err := l.shown(cmd, engine, outputs)
	if err != nil {
		return err
	}
	for _, p := range program.Tables {
		if err := engine.SetTable(p.Name, s.tables[p.Name]); err != nil {
			return err
		}
	}
	streams := s.streams()
	var inputs []int
	columns := make([][]plan.ColumnInfo, len(s.names))
	timed := make([]int, len(s.names))
	for at, name := range s.names {
		if streams[name] == "" {
			continue
		}
		inputs = append(inputs, at)
		columns[at] = append(append([]plan.ColumnInfo{}, s.catalog.Sources[at].Columns...), plan.HiddenColumns...)
		if timed[at], err = timeColumn(columns[at], name, timeName(s.formats[name], rowtime)); err != nil {
			return err
		}
	}
	engine.Start()
	// Readers hand records on; the program runs here.
	arrivals := make(chan arrival, 1000)
	reading, stop := context.WithCancel(ctx)
	group, reading := errgroup.WithContext(reading)
	defer group.Wait()
	defer stop()
	for _, at := range inputs {
		p := &printer{w: io.Discard, remarks: io.Discard}
		p.each = func(shard string, r *kinesis.Record, data []byte) error {
			a := arrival{at: at, shard: shard, key: api.Val(r.PartitionKey), sequence: api.Val(r.SequenceNumber), data: string(data)}
			if r.ApproximateArrivalTimestamp != nil {
				a.time = r.ApproximateArrivalTimestamp.UnixMilli()
			}
			select {
			case arrivals <- a:
				return nil
			case <-reading.Done():
				return reading.Err()
			}
		}
		group.Go(func() error { return tail(reading, l.cl, streams[s.names[at]], "", l.position, !l.noFollow, p) })
	}
	done := make(chan error, 1)
	finished := errgroup.Group{}
	finished.Go(func() error {
		err := group.Wait()
		done <- err
		return err
	})
	defer finished.Wait()
	defer stop()
	bounds := time.NewTicker(boundInterval)
	defer bounds.Stop()
	rows := map[int]*run.Rows{}
	end := begun.UnixMilli()
	insert := func(a arrival) error {
		r := rows[a.at]
		if r == nil {
			r = run.NewRows(columns[a.at])
			rows[a.at] = r
		}
		r.Reset()
		ms := time.Now().UnixMilli()
		name := s.names[a.at]
		hidden := []plan.Value{{I: a.time}, {S: a.key}, {S: a.sequence}, {S: a.shard}}
		s.parsers[name].Parse(r, a.data, ms, hidden, func(problem, message, row string) { engine.Refuse(problem, message, row, ms) })
		if r.Len() == 0 {
			return nil
		}
		b := r.Batch()
		if timed[a.at] >= 0 {
			for _, i := range b.Sel {
				if v := b.Value(columns[a.at], timed[a.at], i); !v.Null {
					b.Time[i] = v.I
				}
			}
		}
		for _, i := range b.Sel {
			end = max(end, b.Time[i])
		}
		return engine.Insert(name, b)
	}
	// What is still open when all is read is brought to its end, as with files.
	finish := func() error {
		for {
			select {
			case a := <-arrivals:
				if err := insert(a); err != nil {
					return err
				}
				continue
			default:
			}
			break
		}
		for _, at := range inputs {
			if err := engine.Advance(s.names[at], end+int64(10*365*24*time.Hour/time.Millisecond)); err != nil {
				return err
			}
		}
		return show.flush()
	}
	for {
		if show.full() {
			return show.flush()
		}
		select {
		case a := <-arrivals:
			if err := insert(a); err != nil {
				return err
			}
		case <-bounds.C:
			// The clock closes windows of streams that are silent. With --rowtime only
			// the data does.
			if rowtime == "" {
				for _, at := range inputs {
					if err := engine.Advance(s.names[at], time.Now().UnixMilli()); err != nil {
						return err
					}
				}
			}
			if err := show.flush(); err != nil {
				return err
			}
		case err := <-done:
			if ctx.Err() != nil { // interrupted, or the time is over
				return show.flush()
			}
			if err != nil {
				return err
			}
			return finish()
		}
	}
}

// timeColumn finds the column that --rowtime names; -1 if it names none.
func timeColumn(columns []plan.ColumnInfo, input, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	for i, c := range columns {
		if c.Name == name && (c.Type.Kind == sql.KindTimestamp || c.Type.Kind == sql.KindBigint) {
			return i, nil
		}
	}
	var have []string
	for _, c := range columns {
		if !slices.ContainsFunc(plan.HiddenColumns, func(h plan.ColumnInfo) bool { return h.Name == c.Name }) {
			have = append(have, sql.Quote(c.Name)+" "+c.Type.String())
		}
	}
	return 0, fmt.Errorf("--rowtime: %s has no TIMESTAMP or BIGINT column %s; it has %s", sql.Quote(input), sql.Quote(name), strings.Join(have, ", "))
}

// shower shows the rows of a program: JSON lines, or a live table.
type shower struct {
	limit, rows int
	flush       func() error
}

func (s *shower) full() bool { return s.limit > 0 && s.rows >= s.limit }

// tableRows is how many of a stream's newest rows a live table has at most.
const tableRows = 10

// errorColumns are those of error_stream that a live table shows.
var errorColumns = []string{"ERROR_NAME", "MESSAGE", "PUMP_NAME"}

func (l *live) shown(cmd *cobra.Command, engine *run.Application, outputs []string) (*shower, error) {
	out := &shower{limit: l.limit}
	table := newLiveTable(cmd.OutOrStdout())
	lines := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	out.flush = lines.Flush
	type section struct {
		name    string
		columns []string
		rows    [][]string
		count   int
	}
	var sections []*section
	for _, name := range outputs {
		columns, ok := engine.Stream(name)
		if !ok {
			return nil, fmt.Errorf("the program has no stream %s", sql.Quote(name))
		}
		one := &section{name: name, columns: []string{"ROWTIME"}}
		for _, c := range columns {
			// Of a row that failed a line has room for what and why.
			if name == plan.ErrorStream && !slices.Contains(errorColumns, c.Name) {
				continue
			}
			one.columns = append(one.columns, c.Name)
		}
		sections = append(sections, one)
		encoded := newRowLines(name, columns)
		if err := engine.Tap(name, func(b *run.Batch) {
			for _, i := range b.Sel {
				if out.full() {
					return
				}
				out.rows++
				if table.terminal && !l.json {
					at := time.UnixMilli(b.Time[i]).UTC()
					cells := append([]string{at.Format("15:04:05.000")}, rowCells(encoded.row(b, i), one.columns[1:])...)
					if one.rows = append(one.rows, cells); len(one.rows) > tableRows {
						one.rows = one.rows[1:]
					}
					one.count++
					continue
				}
				lines.Write(encoded.line(b, i))
			}
		}); err != nil {
			return nil, err
		}
	}
	if table.terminal && !l.json {
		out.flush = func() error {
			var text []string
			shown := slices.DeleteFunc(slices.Clone(sections), func(s *section) bool { return s.count == 0 && s.name == plan.ErrorStream })
			// Each has its share of the screen beside its head: a table that is cut lacks
			// the newest rows of the last.
			_, lines := table.size()
			most := min(max((lines-1)/max(len(shown), 1)-3, 1), tableRows)
			for _, s := range shown {
				text = append(text, fmt.Sprintf("%s, %s", s.name, counted(s.count, "row")))
				text = append(text, aligned(append([][]string{s.columns}, s.rows[max(len(s.rows)-most, 0):]...))...)
				text = append(text, "")
			}
			return table.draw(text)
		}
	}
	return out, nil
}
