package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/analytics/cases"
	"github.com/millrace/millrace/internal/analytics/discover"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/client"
)

// sqlCommand holds what can be done with programs of streaming SQL, without a
// server and with one.
func sqlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sql", Short: "Write, run and move streaming SQL applications",
		Long: `Streaming SQL: programs on this machine (check, explain, run, test, to-flink), and
applications that a server runs (demo, import, list, status, start, stop, edit,
tail, logs, delete).`,
	}
	cmd.AddCommand(
		sqlCheckCommand(), sqlExplainCommand(), sqlRunCommand(), sqlTestCommand(), sqlFlinkCommand(),
		sqlDemoCommand(), sqlImportCommand(), sqlListCommand(), sqlStatusCommand(), sqlStartCommand(), sqlStopCommand(),
		sqlEditCommand(), sqlTailCommand(), sqlLogsCommand(), sqlDeleteCommand(),
	)
	return cmd
}

// sources say what input streams and reference tables a program has.
type sources struct {
	schema     string
	inputs     []string // NAME=FILE
	extensions bool
	rowtime    string // column that is the time of a row; guessed to be a TIMESTAMP if it can

	parsers map[string]*run.Parser
	formats map[string]run.Format
	schemas cases.Case // what the schema says
	files   map[string]string
	catalog plan.Catalog
	tables  map[string]*run.Rows // of reference tables that the schema has rows of
	names   []string
	samples map[string][]string // records that have been read to guess a schema
	stdin   *bufio.Reader
	// sample reads records of a data stream to guess a schema; nil where none can be
	// an input.
	sample func(cmd *cobra.Command, stream string) ([]string, error)
}

func (s *sources) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.schema, "schema", "", "JSON file with the inputs and reference tables of the program, in the form of a case")
	f.StringArrayVar(&s.inputs, "input", nil, "records of an input stream: FILE, or NAME=FILE; - is standard input; for run also stream:NAME. Without --schema its columns are guessed from the records")
	f.BoolVar(&s.extensions, "extensions", true, "allow what is not part of the original dialect")
}

const (
	defaultStream = "SOURCE_SQL_STREAM_001"
	sampledLines  = 100
)

// open reads the schema, or guesses it from the inputs.
func (s *sources) open(cmd *cobra.Command) error {
	s.parsers, s.files, s.samples = map[string]*run.Parser{}, map[string]string{}, map[string][]string{}
	s.tables, s.formats = map[string]*run.Rows{}, map[string]run.Format{}
	for _, in := range s.inputs {
		name, file, ok := strings.Cut(in, "=")
		if !ok {
			name, file = defaultStream, in
		}
		if _, again := s.files[name]; again {
			return fmt.Errorf("--input names %s twice", name)
		}
		s.files[name] = file
	}
	if s.schema != "" {
		raw, err := os.ReadFile(s.schema)
		if err != nil {
			return err
		}
		c := &s.schemas
		if err := json.Unmarshal(raw, c); err != nil {
			return fmt.Errorf("%s: %w", s.schema, err)
		}
		for _, in := range c.Inputs {
			format := run.Format{CSV: in.Format == "CSV", RowPath: in.RowPath, RowDelimiter: in.RowDelimiter, ColumnDelimiter: in.ColumnDelimiter}
			for _, col := range in.Columns {
				t, err := sql.ParseType(col.Type)
				if err != nil {
					return fmt.Errorf("%s: column %s: %w", s.schema, col.Name, err)
				}
				format.Columns = append(format.Columns, run.SourceColumn{Name: col.Name, Type: t, Mapping: col.Mapping})
			}
			if err := s.add(in.Stream, format); err != nil {
				return fmt.Errorf("%s: %w", s.schema, err)
			}
		}
		for _, ref := range c.Reference {
			r, rows, err := ref.Load()
			if err != nil {
				return fmt.Errorf("%s: %w", s.schema, err)
			}
			s.catalog.Tables = append(s.catalog.Tables, r)
			s.tables[r.Name] = rows
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if s.parsers[name] != nil {
			continue
		}
		if err := s.guess(cmd, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *sources) add(name string, format run.Format) error {
	p, err := run.NewParser(format)
	if err != nil {
		return fmt.Errorf("input %s: %w", name, err)
	}
	r := plan.Relation{Name: name}
	for _, col := range format.Columns {
		r.Columns = append(r.Columns, plan.ColumnInfo{Name: col.Name, Type: col.Type})
	}
	s.parsers[name], s.formats[name] = p, format
	s.names = append(s.names, name)
	s.catalog.Sources = append(s.catalog.Sources, r)
	return nil
}

// guess finds the columns of an input in its first records.
func (s *sources) guess(cmd *cobra.Command, name string) error {
	var samples []string
	if stream, ok := strings.CutPrefix(s.files[name], streamPrefix); ok {
		if s.sample == nil {
			return fmt.Errorf("input %s: a data stream can be read by `millrace sql run` only", name)
		}
		var err error
		if samples, err = s.sample(cmd, stream); err != nil {
			return err
		}
	} else if s.files[name] == "-" {
		s.stdin = bufio.NewReaderSize(cmd.InOrStdin(), 1<<20)
		// The columns must be known before anything runs: the first line decides.
		line, err := s.stdin.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		samples = []string{line}
		s.samples[name] = samples
	} else {
		f, err := os.Open(s.files[name])
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 2<<20)
		for len(samples) < sampledLines && lines.Scan() {
			samples = append(samples, lines.Text()+"\n")
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.files[name], err)
		}
	}
	format, err := s.discover(cmd, s.files[name], samples)
	if err != nil {
		return fmt.Errorf("input %s: %w; describe it in a file and give that as --schema", name, err)
	}
	s.timestamp(&format, samples)
	if err := s.add(name, format); err != nil {
		return err
	}
	var columns []string
	for _, c := range format.Columns {
		columns = append(columns, sql.Quote(c.Name)+" "+c.Type.String())
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s has %s\n", sql.Quote(name), strings.Join(columns, ", "))
	return nil
}

// discover guesses the format of samples. Lines between documents of JSON that are
// none are left out and told: they will be rows of error_stream, and are no reason
// to know nothing of the others.
func (s *sources) discover(cmd *cobra.Command, file string, samples []string) (run.Format, error) {
	if strings.TrimSpace(strings.Join(samples, "")) == "" {
		return run.Format{}, fmt.Errorf("%s has no records to see its columns in", file)
	}
	format, err := discover.Schema(samples)
	if err == nil {
		return format, nil
	}
	var documents []string
	first := 0
	for i, sample := range samples {
		if text := strings.TrimSpace(sample); text == "" || json.Valid([]byte(text)) {
			documents = append(documents, sample)
		} else if first == 0 {
			first = i + 1
		}
	}
	wrong := len(samples) - len(documents)
	if wrong == 0 || wrong > len(documents) {
		return format, err
	}
	if format, err = discover.Schema(documents); err != nil {
		return format, err
	}
	more := ""
	if wrong > 1 {
		more = fmt.Sprintf(", and %d more", wrong-1)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: record %d%s: not JSON like the others, a row of error_stream\n", file, first, more)
	return format, nil
}

// timestamp makes the column of --rowtime a TIMESTAMP if all samples have one in
// it. Discovery never does, as the service's does not.
func (s *sources) timestamp(format *run.Format, samples []string) {
	name := timeName(*format, s.rowtime)
	at := slices.IndexFunc(format.Columns, func(c run.SourceColumn) bool { return c.Name == name })
	if at < 0 || format.Columns[at].Type.Kind != sql.KindVarchar {
		return
	}
	refused := func(f run.Format) int {
		p, err := run.NewParser(f)
		if err != nil {
			return len(samples) + 1
		}
		var columns []plan.ColumnInfo
		for _, c := range f.Columns {
			columns = append(columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
		}
		n := 0
		rows := run.NewRows(columns)
		for _, sample := range samples {
			p.Parse(rows, sample, 0, nil, func(string, string, string) { n++ })
		}
		return n
	}
	timed := *format
	timed.Columns = slices.Clone(format.Columns)
	timed.Columns[at].Type = sql.Type{Kind: sql.KindTimestamp}
	most := refused(*format)
	if format.CSV && len(samples) > 1 {
		most++ // the names in the first line
	}
	if refused(timed) <= most {
		*format = timed
	}
}

// timeName is the column that --rowtime names: by its name, or by that of the
// member that it is read from.
func timeName(format run.Format, rowtime string) string {
	for _, c := range format.Columns {
		if c.Name == rowtime {
			return rowtime
		}
	}
	for _, c := range format.Columns {
		if c.Mapping == "$."+rowtime {
			return c.Name
		}
	}
	return rowtime
}

// compile plans a program file. Errors are shown with the lines they are in.
func (s *sources) compile(cmd *cobra.Command, path string) (*plan.Program, error) {
	raw, err := readProgram(cmd, path)
	if err != nil {
		return nil, err
	}
	if err := s.open(cmd); err != nil {
		return nil, err
	}
	program, err := plan.Compile(raw, s.catalog, plan.Options{Extensions: s.extensions})
	var wrong sql.Errors
	if errors.As(err, &wrong) {
		err := showErrors(cmd, path, raw, wrong)
		if len(s.names) == 0 && slices.ContainsFunc(wrong, func(e *sql.Error) bool { return strings.HasPrefix(e.Message, "there is no stream or table ") }) {
			return nil, advise(err, "--input FILE, or --schema FILE, says what the program reads")
		}
		return nil, err
	}
	return program, err
}

// showErrors shows what is wrong with a program, with the lines it is in.
func showErrors(cmd *cobra.Command, path, text string, wrong sql.Errors) error {
	var b strings.Builder
	for _, e := range wrong {
		fmt.Fprintf(&b, "%s:%d:%d: %s\n", path, e.Line, e.Column, e.Message)
		for _, line := range strings.Split(e.Excerpt(text), "\n") {
			fmt.Fprintf(&b, "    %s\n", line)
		}
		if e.Hint != "" {
			fmt.Fprintf(&b, "    %s\n", e.Hint)
		}
	}
	fmt.Fprint(cmd.ErrOrStderr(), b.String())
	return fmt.Errorf("%s has %s", path, counted(len(wrong), "error"))
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func readProgram(cmd *cobra.Command, path string) (string, error) {
	if path == "-" {
		raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
		return string(raw), err
	}
	raw, err := os.ReadFile(path)
	return string(raw), err
}

func sqlCheckCommand() *cobra.Command {
	var s sources
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Show what is wrong with a program", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.compile(cmd, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is right: %s, %s\n", args[0], counted(len(p.Streams)-len(s.names), "stream"), counted(len(p.Pumps), "pump"))
			return nil
		},
	}
	s.register(cmd)
	return cmd
}

func sqlExplainCommand() *cobra.Command {
	var s sources
	cmd := &cobra.Command{
		Use: "explain FILE", Short: "Show how a program is run, and what it keeps in memory", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.compile(cmd, args[0])
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), plan.Explain(p))
			return nil
		},
	}
	s.register(cmd)
	return cmd
}

func sqlRunCommand() *cobra.Command {
	var s sources
	var outputs []string
	var rowtime string
	c := &connection{}
	l := &live{}
	cmd := &cobra.Command{
		Use: "run FILE --input RECORDS", Short: "Run a program over files or data streams, and print its rows", Args: cobra.ExactArgs(1),
		Long: `Run a program here, over files or over data streams of a server, and print its rows:
as JSON lines, or for data streams on a terminal as a live table.

Records of files are lines. Each becomes rows of its input stream at the time it is
read; with --rowtime, at the time in one of its columns, so that windows close as
they would have when the records were made. --input stream:NAME reads a data
stream, and goes on until it is interrupted; nothing of it is kept, and the stream
is as it was.`,
		Example: `  millrace sql run per-minute.sql --input trades.jsonl
  millrace sql run per-minute.sql --input stream:trades --from 1h
  millrace sql run joined.sql --input ORDERS_001=stream:orders --input TRADES_001=stream:trades`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(s.inputs) == 0 {
				return errors.New("--input says where the records are: a file, - for standard input, or stream:NAME for a data stream")
			}
			s.rowtime = rowtime
			streams := 0
			for _, in := range s.inputs {
				if _, file, ok := strings.Cut(in, "="); ok {
					in = file
				}
				if strings.HasPrefix(in, streamPrefix) {
					streams++
				}
			}
			if streams == 0 {
				program, err := s.compile(cmd, args[0])
				if err != nil {
					return err
				}
				if os.Getenv("GOGC") == "" {
					// What stays is little beside the rows that pass.
					defer debug.SetGCPercent(debug.SetGCPercent(400))
				}
				return s.run(cmd, program, outputs, rowtime, l.limit)
			}
			if streams < len(s.inputs) {
				return errors.New("inputs are either files or data streams: their rows cannot be brought into one order of time")
			}
			return c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
				var err error
				if l.position, err = parsePosition(l.from, time.Now()); err != nil {
					return err
				}
				if l.position.sequence != "" {
					return errors.New("--from is trim, latest, a duration or a time")
				}
				l.cl = cl
				s.sample = func(cmd *cobra.Command, stream string) ([]string, error) { return l.sampleStream(ctx, cmd, stream) }
				program, err := s.compile(cmd, args[0])
				if err != nil {
					return err
				}
				return s.runStreams(ctx, cmd, l, program, outputs, rowtime)
			})(cmd, args)
		},
	}
	c.register(cmd)
	cmd.ValidArgsFunction = nil
	s.register(cmd)
	l.register(cmd)
	cmd.Flags().StringSliceVar(&outputs, "output", nil, "print these streams only (default all that pumps write to and none reads, and error_stream)")
	cmd.Flags().StringVar(&rowtime, "rowtime", "", "TIMESTAMP column, or BIGINT column of milliseconds, that is the time of a row; a column of texts that are all timestamps is one")
	return cmd
}

// rowLines makes lines of JSON of the rows of a stream.
type rowLines struct {
	columns []plan.ColumnInfo
	encoder *run.Encoder // nil before the first row
	begin   []byte       // of every line
	head    []byte       // of the lines of one instant
	instant int64
	buf     []byte
}

func newRowLines(stream string, columns []plan.ColumnInfo) *rowLines {
	quoted, _ := json.Marshal(stream) // texts always encode
	return &rowLines{columns: columns, begin: append([]byte(`{"stream":`), quoted...), instant: math.MinInt64}
}

// row is a row as a JSON object. It lasts until the next one.
func (l *rowLines) row(b *run.Batch, i int32) []byte {
	l.buf = l.append(l.buf[:0], b, i)
	return l.buf
}

// line is a row with its stream and its time, and a newline. It lasts until the
// next one.
func (l *rowLines) line(b *run.Batch, i int32) []byte {
	if t := b.Time[i]; t != l.instant {
		l.head = append(append(l.head[:0], l.begin...), `,"rowtime":"`...)
		l.head = time.UnixMilli(t).UTC().AppendFormat(l.head, "2006-01-02T15:04:05.000Z")
		l.head, l.instant = append(l.head, `","row":`...), t
	}
	l.buf = append(l.append(append(l.buf[:0], l.head...), b, i), "}\n"...)
	return l.buf
}

func (l *rowLines) append(dst []byte, b *run.Batch, i int32) []byte {
	if l.encoder == nil {
		l.encoder = run.NewEncoder(l.columns[:min(len(l.columns), len(b.Cols))], false)
	}
	return l.encoder.Append(dst, b, i)
}

// run feeds the files to a program. No more than limit rows are printed, if it is
// not 0.
func (s *sources) run(cmd *cobra.Command, program *plan.Program, outputs []string, rowtime string, limit int) error {
	clock := time.Now()
	now := func() time.Time { return clock }
	app := run.New(program, run.Options{Now: now})
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	defer out.Flush()
	if outputs == nil {
		outputs = append(plan.Ends(program), plan.ErrorStream)
	}
	printed := 0
	for _, name := range outputs {
		columns, ok := app.Stream(name)
		if !ok {
			return fmt.Errorf("the program has no stream %s", sql.Quote(name))
		}
		lines := newRowLines(name, columns)
		if err := app.Tap(name, func(b *run.Batch) {
			for _, i := range b.Sel {
				if limit > 0 && printed >= limit {
					return
				}
				printed++
				out.Write(lines.line(b, i))
			}
		}); err != nil {
			return err
		}
	}
	for _, p := range program.Tables {
		if err := app.SetTable(p.Name, s.tables[p.Name]); err != nil {
			return err
		}
	}
	app.Start()
	end := int64(0)
	for at, name := range s.names {
		file, ok := s.files[name]
		if !ok {
			continue
		}
		columns := s.catalog.Sources[at].Columns
		column, err := timeColumn(columns, name, timeName(s.formats[name], rowtime))
		if err != nil {
			return err
		}
		rows, parser := run.NewRows(columns), s.parsers[name]
		var arrivals []int64
		var nulls []bool
		var none, files []string
		ms := int64(0)
		refuse := func(problem, message, row string) { app.Refuse(problem, message, row, ms) }
		err = s.records(cmd, name, file, func(records [][]byte) error {
			if rowtime == "" {
				clock = time.Now()
			}
			ms = clock.UnixMilli()
			rows.Reset()
			for _, record := range records {
				parser.ParseBytes(rows, record, ms, nil, refuse)
			}
			n := rows.Len()
			if n == 0 {
				return nil
			}
			b := rows.Batch()
			if column >= 0 {
				v := b.Cols[column]
				for i, t := range v.I {
					if v.Null == nil || !v.Null[i] {
						b.Time[i] = t
					}
				}
				clock = time.UnixMilli(slices.Max(b.Time))
			}
			end = max(end, slices.Max(b.Time))
			for len(files) < n {
				arrivals, nulls, none, files = append(arrivals, 0), append(nulls, true), append(none, ""), append(files, file)
			}
			for i := range n {
				arrivals[i] = ms
			}
			// The hidden columns: records of a file have neither keys nor numbers.
			nothing := &run.Vector{Null: nulls[:n], S: none[:n]}
			b.Cols = append(b.Cols, &run.Vector{I: arrivals[:n]}, nothing, nothing, &run.Vector{S: files[:n]})
			return app.Insert(name, b)
		})
		if err != nil {
			return err
		}
		if s.stdin != nil {
			out.Flush()
		}
	}
	// What is still open when the records are through is brought to its end.
	for _, name := range s.names {
		if err := app.Advance(name, end+int64(10*365*24*time.Hour/time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// A record of a file is a line of at most maxRecord bytes.
const (
	maxRecord = 2 << 20
	readBytes = 256 << 10
)

// records reads the records of an input, as many together as one read gives. They
// are f's until it returns.
func (s *sources) records(cmd *cobra.Command, name, file string, f func(records [][]byte) error) error {
	var r io.Reader
	if file == "-" {
		if s.stdin == nil {
			s.stdin = bufio.NewReaderSize(cmd.InOrStdin(), 1<<20)
		}
		r = io.MultiReader(strings.NewReader(strings.Join(s.samples[name], "")), s.stdin)
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return err
		}
		defer opened.Close()
		r = opened
	}
	var records [][]byte
	buf, held := make([]byte, readBytes), 0 // the first held bytes are a line that has not ended
	for {
		n, err := r.Read(buf[held:])
		filled := held + n
		whole := bytes.LastIndexByte(buf[held:filled], '\n') + 1
		if whole > 0 {
			whole += held
		}
		if err == io.EOF && whole < filled {
			buf = append(buf[:filled], '\n')
			filled++
			whole = filled
		}
		if whole > 0 {
			records = records[:0]
			for rest := buf[:whole]; len(rest) > 0; {
				end := bytes.IndexByte(rest, '\n') + 1
				line := rest[:end:end]
				rest = rest[end:]
				if line[0] > ' ' || len(bytes.TrimSpace(line)) > 0 {
					records = append(records, line)
				}
			}
			if len(records) > 0 {
				if err := f(records); err != nil {
					return err
				}
			}
		}
		held = copy(buf, buf[whole:filled])
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", file, err)
		case held > maxRecord:
			return fmt.Errorf("%s: a line has more than %d bytes", file, maxRecord)
		case held == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func sqlTestCommand() *cobra.Command {
	var batch int
	cmd := &cobra.Command{
		Use: "test PATH...", Short: "Run case files, and compare the rows with those they expect", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := caseFiles(args)
			if err != nil {
				return err
			}
			passed, failed := 0, 0
			for _, name := range files {
				err := runCase(name, batch)
				if err != nil {
					failed++
					fmt.Fprintf(cmd.OutOrStdout(), "FAIL %s: %v\n", name, err)
					continue
				}
				passed++
				fmt.Fprintf(cmd.OutOrStdout(), "ok   %s\n", name)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d passed, %d failed\n", passed, failed)
			if failed > 0 {
				return fmt.Errorf("%s failed", counted(failed, "case"))
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&batch, "batch", 1, "insert up to so many rows together")
	return cmd
}

// caseFiles finds the case files at paths: files, and what is in directories.
func caseFiles(paths []string) ([]string, error) {
	var files []string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		if err := filepath.WalkDir(p, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(name, ".json") {
				files = append(files, name)
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there are no case files (*.json) in %s", strings.Join(paths, ", "))
	}
	return files, nil
}

func runCase(name string, batch int) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	c, err := cases.Parse(raw)
	if err != nil {
		return err
	}
	return c.Run(cases.Options{Batch: batch})
}
