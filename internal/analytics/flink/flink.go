// Package flink translates applications of the streaming SQL dialect into Flink
// SQL, and says construct by construct what it cannot translate.
//
// The one idea: the tree of the program is walked as it was written, and the
// planner is asked what each expression means. So the result reads like the
// original, an expression that depends on types is translated by its type, and
// whether a grouping key is a window is the planner's answer and not a guess.
//
// # How things are carried over
//
// An input becomes a table over its data stream. ROWTIME, which in the dialect is
// the instant at which a row is read, becomes the record's time of arrival with a
// watermark: the same windows come out whenever the job runs. In-application
// streams become views that hand ROWTIME on as a time attribute, outputs become
// sink tables, and pumps become the INSERT statements of one statement set.
//
// A construct without a counterpart takes its pump with it: the pump stands in
// the script as a comment, and a stream that only it writes becomes a table that
// another job fills, so that the rest still is a script that runs.
//
// Start reading at Translate, then query.go.
package flink

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// Note is about a construct that has no counterpart, or one that differs.
type Note struct {
	// Line and Column are where it stands in the program, both from 1; 0 if it is
	// part of the application's configuration.
	Line, Column int
	What, Text   string
	// Missing marks what the script does not do.
	Missing bool
}

func (n Note) String() string {
	if n.Line == 0 {
		return n.What + ": " + n.Text
	}
	return fmt.Sprintf("line %d, column %d: %s: %s", n.Line, n.Column, n.What, n.Text)
}

// Script is a translated application.
type Script struct {
	// SQL is the whole script, with the notes as its first lines.
	SQL string
	// Notes are in order of their place, configuration first.
	Notes []Note
}

// Missing counts the notes on what is not translated.
func (s *Script) Missing() int {
	n := 0
	for _, note := range s.Notes {
		if note.Missing {
			n++
		}
	}
	return n
}

// Translate translates an application. Without outputs, the streams that no pump
// reads are taken for outputs. The error is of type sql.Errors if the program
// is wrong.
func Translate(a *app.Application) (*Script, error) {
	t := &translator{
		app: a, bound: map[place]plan.Expr{}, streams: map[string]*stream{}, references: map[string]*reference{}, views: map[string]*view{},
		functions: map[string][]*sql.CreateFunction{}, noted: map[string]bool{}, names: map[string]bool{},
	}
	program, err := plan.Compile(a.Code, a.Catalog(), plan.Options{Extensions: a.Extensions, Bound: func(e sql.Expr, x plan.Expr) {
		at := placeOf(e)
		if _, again := t.bound[at]; !again {
			t.bound[at] = x
		}
	}})
	if err != nil {
		return nil, err
	}
	tree, err := sql.Parse(a.Code)
	if err != nil {
		return nil, err
	}
	t.program = program
	return t.script(tree), nil
}

// place tells expressions apart: those in parentheses can share a span.
type place struct {
	span sql.Span
	kind string
}

func placeOf(e sql.Expr) place { return place{e.Place(), fmt.Sprintf("%T", e)} }

type translator struct {
	app        *app.Application
	program    *plan.Program
	bound      map[place]plan.Expr // what expressions mean where they were bound first
	streams    map[string]*stream
	references map[string]*reference
	views      map[string]*view
	functions  map[string][]*sql.CreateFunction
	pumps      []*pump
	inserts    []*sql.Insert

	tables strings.Builder // DDL of tables
	body   strings.Builder // views
	notes  []Note
	noted  map[string]bool
	names  map[string]bool // taken in Flink's catalog
	// broken is set by a construct of the current pump or view that is not
	// translated.
	broken   bool
	notNull  bool   // a sink has NOT NULL columns
	owner    string // the pump or view that auxiliary views are named after
	expanded int    // functions in one another
}

// stream is an in-application stream.
type stream struct {
	name    string
	columns []plan.ColumnInfo
	writers []*pump
	source  bool
	read    bool // by a pump
	made    bool // stands in Flink's catalog
	// ends marks that ROWTIME in Flink is the last instant of a window, where the
	// dialect's is the instant behind it.
	ends bool
	// texts of columns that are not there by their name
	missing map[string]string
}

type reference struct {
	app.Reference
	made bool
}

type view struct {
	tree *sql.CreateView
	made bool
	out  *query // its columns
}

type pump struct {
	tree    *sql.CreatePump
	stopped bool
	target  *stream
	// The query's columns, and of each the column of the target, -1 for ROWTIME.
	to []int
}

func (t *translator) note(n Note) {
	if key := n.String(); !t.noted[key] {
		t.noted[key] = true
		t.notes = append(t.notes, n)
	}
}

// missing notes that a construct is not translated; what it returns stands in its
// place in the text, which is not used.
func (t *translator) missing(at sql.Node, what, format string, args ...any) string {
	line, column := sql.Place(t.app.Code, at.Place().Start)
	t.note(Note{line, column, what, fmt.Sprintf(format, args...), true})
	t.broken = true
	return "NULL"
}

// differs notes that what a construct is translated to does not mean the same in
// all cases; the first of its kind in a program.
func (t *translator) differs(at sql.Node, what, format string, args ...any) {
	line, column := sql.Place(t.app.Code, at.Place().Start)
	n := Note{line, column, what, fmt.Sprintf(format, args...), false}
	if key := n.What + n.Text; !t.noted[key] {
		t.noted[key] = true
		t.notes = append(t.notes, n)
	}
}

// configured notes something about the configuration.
func (t *translator) configured(missing bool, what, format string, args ...any) {
	t.note(Note{0, 0, what, fmt.Sprintf(format, args...), missing})
}

// name is an unused name in Flink's catalog, as near to the wanted one as can be.
func (t *translator) name(wanted string) string {
	name := wanted
	for n := 2; t.names[name]; n++ {
		name = fmt.Sprintf("%s_%d", wanted, n)
	}
	t.names[name] = true
	return name
}

// quote is a name as Flink SQL writes it.
func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func text(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// script collects what the program leaves standing and emits it in an order in
// which everything exists before it is used.
func (t *translator) script(tree *sql.Program) *Script {
	t.collect(tree)
	read := map[string]bool{}
	for _, p := range t.program.Pumps {
		walkNodes(p.Root, func(n plan.Node) {
			if scan, ok := n.(*plan.Scan); ok {
				read[scan.Stream.Name] = true
			}
		})
	}
	for _, s := range t.streams {
		s.read = read[s.name]
	}
	t.sources()
	outputs := t.app.Outputs
	if outputs == nil {
		for _, name := range plan.Ends(t.program) {
			outputs = append(outputs, app.Output{Stream: name})
		}
	}
	var statements []string
	delivered := map[string]bool{}
	sinks := map[string]int{}
	for _, o := range outputs {
		sinks[o.Stream]++
	}
	for _, o := range outputs {
		if strings.EqualFold(o.Stream, plan.ErrorStream) {
			t.configured(true, "the output "+plan.ErrorStream, "Flink SQL has no stream of errors; a side output of the DataStream API does what it did")
			continue
		}
		s := t.streams[o.Stream]
		if s == nil || s.source {
			t.configured(false, "the output "+sql.Quote(o.Stream), "the program has no such stream, so that nothing is delivered, in the service as here")
			continue
		}
		delivered[s.name] = true
		var group []string
		viewed := s.read || sinks[s.name] > 1
		if viewed {
			if !t.stream(s) {
				continue
			}
		} else {
			for _, p := range s.writers {
				if text, ok := t.pump(p, false); ok {
					group = append(group, text)
				}
			}
			for _, insert := range t.inserts {
				if insert.Target.Last().Name == s.name {
					group = append(group, t.values(insert, s))
				}
			}
			if len(group) == 0 {
				continue
			}
		}
		sink := t.sink(s, o, viewed)
		if viewed {
			columns := make([]string, len(s.columns))
			for i, c := range s.columns {
				columns[i] = quote(c.Name)
			}
			group = append(group, "SELECT "+strings.Join(columns, ", ")+"\nFROM "+quote(s.name))
		}
		for _, text := range group {
			statements = append(statements, "INSERT INTO "+quote(sink)+"\n"+text+";")
		}
	}
	for _, p := range t.pumps {
		if !delivered[p.target.name] && !p.target.read {
			t.differs(p.tree, "the pump "+sql.Quote(p.tree.Name.Last().Name), "it is left out: nothing reads the stream %s, and no output delivers it", sql.Quote(p.target.name))
		}
	}
	for _, insert := range t.inserts {
		if s := t.streams[insert.Target.Last().Name]; s != nil && s.read {
			t.missing(insert, "INSERT … VALUES", "rows that a program begins with have no time of arrival in Flink; put them into the data stream")
		}
	}
	slices.SortStableFunc(t.notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Script{SQL: t.assemble(statements), Notes: t.notes}
}

func walkNodes(n plan.Node, f func(plan.Node)) {
	f(n)
	for _, in := range n.Inputs() {
		walkNodes(in, f)
	}
}

// collect follows the statements to what there is at their end.
func (t *translator) collect(tree *sql.Program) {
	for _, s := range t.program.Streams {
		t.streams[s.Name] = &stream{name: s.Name, columns: s.Columns, source: s.Source}
		t.names[s.Name] = true
	}
	for _, r := range t.app.References {
		t.references[r.Table] = &reference{Reference: r}
		t.names[r.Table] = true
	}
	find := func(name string) int {
		return slices.IndexFunc(t.pumps, func(p *pump) bool { return p.tree.Name.Last().Name == name })
	}
	drop := func(name string) {
		if at := find(name); at >= 0 {
			t.pumps = slices.Delete(t.pumps, at, at+1)
		}
	}
	for _, s := range tree.Statements {
		switch s := s.(type) {
		case *sql.CreatePump:
			drop(s.Name.Last().Name)
			t.pumps = append(t.pumps, &pump{tree: s, stopped: s.Stopped})
		case *sql.CreateView:
			t.views[s.Name.Last().Name] = &view{tree: s}
			t.names[s.Name.Last().Name] = true
		case *sql.CreateFunction:
			t.functions[s.Name.Last().Name] = append(t.functions[s.Name.Last().Name], s)
		case *sql.Insert:
			t.inserts = append(t.inserts, s)
		case *sql.Drop:
			switch name := s.Name.Last().Name; s.What {
			case "PUMP":
				drop(name)
			case "VIEW":
				delete(t.views, name)
			case "FUNCTION":
				delete(t.functions, name)
			}
		case *sql.AlterPump:
			for _, p := range t.pumps {
				if s.Names == nil || slices.ContainsFunc(s.Names, func(n sql.Name) bool { return n.Last().Name == p.tree.Name.Last().Name }) {
					p.stopped = s.Stop
				}
			}
		}
	}
	for _, p := range t.pumps {
		insert := p.tree.Insert
		p.target = t.streams[insert.Target.Last().Name]
		if insert.Columns == nil {
			for i := range p.target.columns {
				p.to = append(p.to, i)
			}
		}
		for _, id := range insert.Columns {
			p.to = append(p.to, slices.IndexFunc(p.target.columns, func(c plan.ColumnInfo) bool { return c.Name == id.Name }))
		}
		if p.stopped {
			t.differs(p.tree, "the pump "+sql.Quote(p.tree.Name.Last().Name), "it is stopped, and left out")
			continue
		}
		p.target.writers = append(p.target.writers, p)
	}
	t.pumps = slices.DeleteFunc(t.pumps, func(p *pump) bool { return p.stopped })
}

// stream makes a stream that is read: a view of what its pumps write.
func (t *translator) stream(s *stream) bool {
	if s.made {
		return true
	}
	s.made = true
	var branches []string
	failed := false
	for _, p := range s.writers {
		text, ok := t.pump(p, true)
		if !ok {
			failed = true
			continue
		}
		branches = append(branches, text)
	}
	if len(branches) == 0 {
		// What reads the stream is still worth having.
		why := "nothing writes to it"
		if failed {
			why = "what writes to it is not translated"
		}
		t.configured(false, "the stream "+sql.Quote(s.name), "%s: it is a table here, over a data stream that another job is to fill", why)
		t.external(s)
		return true
	}
	t.view(s.name, columnNames(s.columns), strings.Join(branches, "\nUNION ALL\n"))
	return true
}

func columnNames(columns []plan.ColumnInfo) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

// view emits CREATE TEMPORARY VIEW with the columns and ROWTIME.
func (t *translator) view(name string, columns []string, query string) {
	quoted := make([]string, 0, len(columns)+1)
	for _, c := range columns {
		quoted = append(quoted, quote(c))
	}
	quoted = append(quoted, quote(rowtime))
	fmt.Fprintf(&t.body, "CREATE TEMPORARY VIEW %s (%s) AS\n%s;\n\n", quote(name), strings.Join(quoted, ", "), query)
}

// rowtime is what the time attribute of tables and views is called.
const rowtime = "ROWTIME"

// pump translates the query of a pump to the columns of its target, and ROWTIME if
// timed. It reports false if something in it is missing; then it stands in the
// script as a comment.
func (t *translator) pump(p *pump, timed bool) (string, bool) {
	name := p.tree.Name.Last().Name
	broken, owner := t.broken, t.owner
	t.broken, t.owner = false, name
	defer func() { t.broken, t.owner = broken, owner }()
	q := t.query(p.tree.Insert.Query)
	q.shape(t, p)
	if timed && q.time == "" {
		t.missing(p.tree, "the pump "+sql.Quote(name), "the rows of its query have no time attribute in Flink")
	}
	if timed && q.ends {
		p.target.ends = true
	}
	text := q.text(timed)
	if !t.broken {
		return text, true
	}
	fmt.Fprintf(&t.body, "-- Not translated; the notes say why.\n%s\n\n", commented(t.source(p.tree)))
	return "", false
}

// source is a piece of the program as it was written.
func (t *translator) source(n sql.Node) string {
	at := n.Place()
	return t.app.Code[at.Start:at.End]
}

func commented(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight("-- "+strings.TrimRight(l, "\r"), " ")
	}
	return strings.Join(lines, "\n")
}

// values translates INSERT … VALUES.
func (t *translator) values(insert *sql.Insert, s *stream) string {
	v := insert.Query.Body.(*sql.Values)
	var rows []string
	for _, row := range v.Rows {
		cells := make([]string, len(s.columns))
		for i, c := range s.columns {
			cells[i] = "CAST(NULL AS " + typeName(c.Type) + ")"
		}
		for i, e := range row {
			at := i
			if insert.Columns != nil {
				at = slices.IndexFunc(s.columns, func(c plan.ColumnInfo) bool { return c.Name == insert.Columns[i].Name })
			}
			if at < 0 {
				return t.missing(insert, "ROWTIME in INSERT", "a sink has no row time")
			}
			cells[at] = t.converted(t.expr(&scope{}, e), t.typeOf(e), s.columns[at].Type)
		}
		rows = append(rows, "  ("+strings.Join(cells, ", ")+")")
	}
	return "VALUES\n" + strings.Join(rows, ",\n")
}

// assemble puts the script together.
func (t *translator) assemble(statements []string) string {
	var b strings.Builder
	title := "a program"
	if t.app.Name != "" {
		title = "the application " + t.app.Name
	}
	fmt.Fprintf(&b, `-- Flink SQL (1.20 and later) of %s.
--
-- ROWTIME is the time of arrival of a record here, with a watermark, where the
-- dialect takes the instant at which a row is read. Windows close when a later
-- record or the idle timeout says so. A record that is not as its table says has
-- NULLs; there is no stream of errors.
`, title)
	if len(t.notes) > 0 {
		b.WriteString("--\n")
		for _, n := range t.notes {
			word := "differs"
			if n.Missing {
				word = "missing"
			}
			wrap(&b, word+"  "+n.String())
		}
	}
	b.WriteString("\nSET 'execution.runtime-mode' = 'streaming';\nSET 'table.local-time-zone' = 'UTC';\nSET 'table.exec.source.idle-timeout' = '10 s';\n")
	if t.notNull {
		b.WriteString("SET 'table.exec.sink.not-null-enforcer' = 'DROP';\n")
	}
	b.WriteString("\n")
	b.WriteString(t.tables.String())
	b.WriteString(t.body.String())
	switch len(statements) {
	case 0:
	case 1:
		b.WriteString(statements[0] + "\n")
	default:
		b.WriteString("EXECUTE STATEMENT SET\nBEGIN\n" + strings.Join(statements, "\n\n") + "\nEND;\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// wrap writes a remark in lines of comments.
func wrap(b *strings.Builder, s string) {
	line := "--"
	for _, word := range strings.Fields(s) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "--  "
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
