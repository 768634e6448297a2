package run_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// A script is a program with what happens to it and what it puts out:
//
//	# what the script is about
//	input S K VARCHAR(4), V INTEGER      an input stream with its columns
//	table T K VARCHAR(4), N INTEGER      a reference table
//	CREATE STREAM …; CREATE PUMP …;
//	----
//	T a,1; b,2                           the table is loaded, in place of what it had
//	10:00:01 S a,7; b,-                  rows come; - is NULL
//	10:00:05                             time goes on without rows
//	----
//	OUT                                  each stream that is no input, with its rows
//	10:00:01 a|7
//	====
//
// Every script runs straight through, row by row; and again in batches of every
// size, shared by several workers, and stopped behind every insert and gone on from
// the snapshot, by as many workers or by others. The rows are the same.
type script struct {
	head    string // with the program
	catalog plan.Catalog
	program *plan.Program
	events  []event
	lines   []string // of events, as written
	want    string
}

type event struct {
	at    int64
	input string // empty where time just goes on
	table bool
	rows  []string
}

const scriptDay = "2026-03-02 "

func parseScript(t *testing.T, block string) *script {
	t.Helper()
	head, rest, _ := strings.Cut(block, "\n----\n")
	events, want, ok := strings.Cut(rest, "\n----\n")
	if !ok {
		events = strings.TrimSuffix(events, "\n----")
	}
	s := &script{head: head, want: want}
	var program []string
	for _, line := range strings.Split(head, "\n") {
		kind, def, _ := strings.Cut(line, " ")
		switch kind {
		case "#":
		case "input", "table":
			name, columns, _ := strings.Cut(def, " ")
			r := plan.Relation{Name: name}
			for _, col := range splitColumns(columns) {
				n, typ, _ := strings.Cut(strings.TrimSpace(col), " ")
				r.Columns = append(r.Columns, plan.ColumnInfo{Name: n, Type: typed(t, typ)})
			}
			if kind == "input" {
				s.catalog.Sources = append(s.catalog.Sources, r)
			} else {
				s.catalog.Tables = append(s.catalog.Tables, r)
			}
		default:
			program = append(program, line)
		}
	}
	var err error
	if s.program, err = plan.Compile(strings.Join(program, "\n"), s.catalog, plan.Options{Extensions: true}); err != nil {
		t.Fatalf("%s\n%v", head, err)
	}
	for _, line := range strings.Split(events, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		s.lines = append(s.lines, line)
		var e event
		word, rest, _ := strings.Cut(line, " ")
		if word[0] >= '0' && word[0] <= '9' {
			at, err := time.Parse("2006-01-02 15:04:05.999", scriptDay+word)
			if err != nil {
				t.Fatal(err)
			}
			e.at = at.UnixMilli()
			e.input, rest, _ = strings.Cut(rest, " ")
		} else {
			e.table, e.input = true, word
		}
		if e.input != "" && rest != "" {
			for _, row := range strings.Split(rest, ";") {
				e.rows = append(e.rows, strings.TrimSpace(row))
			}
		}
		s.events = append(s.events, e)
	}
	return s
}

// splitColumns splits at commas that are not in parentheses.
func splitColumns(text string) []string {
	var list []string
	depth, from := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			list = append(list, text[from:i])
			from = i + 1
		}
	}
	return append(list, text[from:])
}

// how says in which way a script is run.
type how struct {
	batch   int // rows at most; 0 is as the script has them
	workers int
	resume  bool
	relay   bool // those that go on have other numbers of workers
}

// runner is one run of a script.
type runner struct {
	t    *testing.T
	s    *script
	how  how
	app  *run.Application
	now  int64
	rows map[string][]string
	load map[string]*run.Rows
}

func (r *runner) open() {
	r.app = run.New(r.s.program, run.Options{Now: func() time.Time { return time.UnixMilli(r.now) }, Seed: 1, Workers: r.how.workers})
	for name, rows := range r.load {
		if err := r.app.SetTable(name, rows); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, st := range r.s.program.Streams {
		if !st.Source {
			r.tap(st.Name)
		}
	}
	r.tap(plan.ErrorStream)
}

func (r *runner) tap(name string) {
	columns, _ := r.app.Stream(name)
	if err := r.app.Tap(name, func(b *run.Batch) {
		for _, i := range b.Sel {
			at := time.UnixMilli(b.Time[i]).UTC()
			line := strings.TrimSuffix(at.Format("15:04:05.000"), ".000")
			if at.Format("2006-01-02 ") != scriptDay {
				line = at.Format("2006-01-02 ") + line
			}
			if name == plan.ErrorStream {
				data, _ := hex.DecodeString(b.Cols[5].S[i])
				line = fmt.Sprintf("%s %s: %s: %s", b.Value(columns, 6, i).S, b.Cols[2].S[i], b.Cols[3].S[i], strings.TrimSpace(string(data)))
			} else {
				var values []string
				for k, col := range columns {
					v := b.Value(columns, k, i)
					one := run.NewRows([]plan.ColumnInfo{col})
					one.Add(0, v)
					text := strings.TrimSuffix(string(run.NewEncoder([]plan.ColumnInfo{col}, true).Append(nil, one.Batch(), 0)), "\n")
					if v.Null {
						text = "-"
					}
					values = append(values, text)
				}
				line += " " + strings.Join(values, "|")
			}
			r.rows[name] = append(r.rows[name], line)
		}
	}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *runner) resumed() {
	if !r.how.resume {
		return
	}
	snapshot := r.app.Snapshot(nil)
	if r.how.relay {
		r.how.workers = r.how.workers%4 + 1
	}
	r.open()
	kept, err := r.app.Restore(snapshot)
	if err != nil {
		r.t.Fatalf("%s\n%v", r.s.head, err)
	}
	running := 0
	for _, p := range r.s.program.Pumps {
		if !p.Stopped {
			running++
		}
	}
	if len(kept) < running {
		r.t.Fatalf("%s\nonly %v went on", r.s.head, kept)
	}
}

// run gives the rows of every stream.
func (s *script) run(t *testing.T, h how) string {
	t.Helper()
	r := &runner{t: t, s: s, how: h, rows: map[string][]string{}, load: map[string]*run.Rows{}}
	for _, e := range s.events {
		if !e.table {
			r.now = e.at
			break
		}
	}
	r.open()
	started := false
	var columns []plan.ColumnInfo
	parse := func(name string, tables bool, rows []string, at int64) *run.Rows {
		f := run.Format{}
		list := s.catalog.Sources
		if tables {
			list = s.catalog.Tables
		}
		columns = nil
		for _, rel := range list {
			if rel.Name == name {
				columns = rel.Columns
			}
		}
		if columns == nil {
			t.Fatalf("%s\nthere is no %s", s.head, name)
		}
		for _, c := range columns {
			f.Columns = append(f.Columns, run.SourceColumn{Name: c.Name, Type: c.Type, Mapping: "$." + c.Name})
		}
		var hidden []plan.Value
		if !tables {
			columns = append(slices.Clone(columns), plan.HiddenColumns...)
			hidden = []plan.Value{{I: at}, {Null: true}, {Null: true}, {S: "shardId-000000000000"}}
		}
		out := run.NewRows(columns)
		p, err := run.NewParser(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			record := map[string]any{}
			for i, v := range strings.Split(row, ",") {
				if v != "-" {
					record[f.Columns[i].Name] = strings.TrimSpace(v)
				}
			}
			raw, err := json.Marshal(record)
			if err != nil {
				t.Fatal(err)
			}
			p.Parse(out, string(raw), at, hidden, func(name, message, _ string) { t.Fatalf("%s\n%s: %s %s", s.head, row, name, message) })
		}
		return out
	}
	for i := 0; i < len(s.events); i++ {
		e := s.events[i]
		if e.table {
			r.load[e.input] = parse(e.input, true, e.rows, 0)
			if err := r.app.SetTable(e.input, r.load[e.input]); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !started {
			r.now = e.at
			r.app.Start()
			started = true
		}
		r.now = e.at
		if e.input == "" {
			for _, in := range s.catalog.Sources {
				if err := r.app.Advance(in.Name, e.at); err != nil {
					t.Fatal(err)
				}
			}
			r.resumed()
			continue
		}
		rows := run.NewRows(nil)
		add := func(e event) { // rows of one batch
			parsed := parse(e.input, false, e.rows, e.at)
			if rows.Len() == 0 {
				rows = parsed
				return
			}
			b := parsed.Batch()
			for _, k := range b.Sel {
				values := make([]plan.Value, len(columns))
				for c := range columns {
					values[c] = b.Value(columns, c, k)
				}
				rows.Add(b.Time[k], values...)
			}
		}
		insert := func() {
			if rows.Len() > 0 {
				b := rows.Batch()
				spoil := b.Lend()
				if err := r.app.Insert(e.input, b); err != nil {
					t.Fatal(err)
				}
				spoil()
			}
			rows = run.NewRows(nil)
		}
		switch {
		case h.batch == 1:
			for _, row := range e.rows {
				add(event{at: e.at, input: e.input, rows: []string{row}})
				insert()
				r.resumed()
			}
		case h.batch == 0:
			add(e)
			insert()
		default:
			add(e)
			for i+1 < len(s.events) && s.events[i+1].input == e.input && !s.events[i+1].table && rows.Len() < h.batch {
				i++
				add(s.events[i])
				r.now = s.events[i].at
			}
			insert()
		}
		r.resumed()
	}
	var out strings.Builder
	for _, st := range s.program.Streams {
		if st.Source {
			continue
		}
		fmt.Fprintf(&out, "%s\n", st.Name)
		for _, line := range r.rows[st.Name] {
			fmt.Fprintf(&out, "%s\n", line)
		}
	}
	if lines := r.rows[plan.ErrorStream]; lines != nil {
		fmt.Fprintf(&out, "%s\n", plan.ErrorStream)
		for _, line := range lines {
			fmt.Fprintf(&out, "%s\n", line)
		}
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func TestScripts(t *testing.T) {
	shared(t)
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for _, block := range strings.Split(strings.TrimSuffix(string(raw), "\n====\n"), "\n====\n") {
				s := parseScript(t, block)
				got := s.run(t, how{batch: 1, workers: 1})
				if !*update && got != s.want {
					t.Errorf("%s\n  got:\n%s\n  want:\n%s", s.head, got, s.want)
				}
				fmt.Fprintf(&out, "%s\n----\n%s\n----\n%s\n====\n", s.head, strings.Join(s.lines, "\n"), got)
				for _, batch := range []int{0, 1, 3, 1000} {
					for _, workers := range []int{1, 2, 8} {
						for _, h := range []how{{}, {resume: true}, {resume: true, relay: true}} {
							h.batch, h.workers = batch, workers
							if again := s.run(t, h); again != got {
								t.Errorf("%s\n  run with %+v:\n%s\n  and straight:\n%s", s.head, h, again, got)
							}
						}
					}
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
