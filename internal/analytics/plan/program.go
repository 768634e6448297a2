package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// Options of a compilation.
type Options struct {
	// Extensions turns on what is not part of the dialect: WITH, LIMIT, QUALIFY,
	// session windows, JSON functions, TRY_CAST, FILTER, COUNT(DISTINCT …).
	Extensions bool
	// Bound, if set, is told what each expression of the program means: a
	// translation into another dialect needs types. An expression that is bound
	// more than once is told of each time.
	Bound func(sql.Expr, Expr)
}

// Compile plans a program. The error is of type sql.Errors and has the first
// error of each statement.
func Compile(text string, catalog Catalog, o Options) (*Program, error) {
	tree, err := sql.Parse(text)
	c := &compiler{text: text, options: o, program: &Program{}, streams: map[string]*Stream{}, tables: map[string]*Table{}, views: map[string]*sql.CreateView{},
		functions: map[string][]*sql.CreateFunction{}, pumps: map[string]*Pump{}, used: map[*Stream]bool{}, refused: map[string]bool{}}
	if err != nil {
		c.errors = err.(sql.Errors)
	}
	for _, s := range catalog.Sources {
		stream := &Stream{Name: s.Name, Source: true, Columns: append(slices.Clone(s.Columns), HiddenColumns...)}
		c.streams[s.Name] = stream
		c.program.Streams = append(c.program.Streams, stream)
	}
	for _, t := range catalog.Tables {
		table := &Table{Name: t.Name, Columns: t.Columns}
		c.tables[t.Name] = table
		c.program.Tables = append(c.program.Tables, table)
	}
	for _, n := range tree.Refused {
		c.refused[n.Last().Name] = true
	}
	for _, s := range tree.Statements {
		if !c.recovered(func() { c.statement(s) }) {
			c.refuse(s)
		}
	}
	if len(c.errors) == 0 {
		c.recovered(c.order)
	}
	if len(c.errors) > 0 {
		sort.SliceStable(c.errors, func(i, j int) bool { return c.errors[i].Span.Start < c.errors[j].Span.Start })
		return nil, c.errors
	}
	return c.program, nil
}

type compiler struct {
	text      string
	options   Options
	program   *Program
	streams   map[string]*Stream
	tables    map[string]*Table
	views     map[string]*sql.CreateView
	functions map[string][]*sql.CreateFunction
	pumps     map[string]*Pump
	places    map[*Pump]sql.Span
	used      map[*Stream]bool // by a pump
	refused   map[string]bool  // names that statements with errors were to give
	ctes      []cte
	outer     *correlation // what a query in an expression sees outside
	depth     int          // of functions and views in one another
	queries   int          // planned so far
	weights   map[Expr]int // of expressions with parts
	errors    sql.Errors
}

// cte is a query of WITH that can be seen.
type cte struct {
	name string
	with sql.With
	seen int // how many of the others it sees
	// outer is what it sees of a query around it.
	outer *correlation
}

type bail struct{ err *sql.Error }

func (c *compiler) fail(at sql.Span, hint, format string, args ...any) {
	err := sql.NewError(c.text, at, hint, format, args...)
	// INTEGER and INTERVAL are the types that begin with a vowel.
	err.Message = strings.ReplaceAll(err.Message, "a INTE", "an INTE")
	panic(bail{err})
}

// followUp is an error that another one is the reason of, so that nobody needs to
// be told.
var followUp = &sql.Error{}

// known gives up where a name is missing because its statement was refused.
func (c *compiler) known(name string) {
	if c.refused[name] {
		panic(bail{followUp})
	}
}

// refuse remembers what a statement with an error was to create.
func (c *compiler) refuse(s sql.Statement) {
	switch s := s.(type) {
	case *sql.CreateStream:
		c.refused[s.Name.Last().Name] = true
	case *sql.CreatePump:
		c.refused[s.Name.Last().Name] = true
	case *sql.CreateFunction:
		c.refused[s.Name.Last().Name] = true
	case *sql.CreateView:
		c.refused[s.Name.Last().Name] = true
		delete(c.views, s.Name.Last().Name)
	}
}

func (c *compiler) recovered(f func()) (ok bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case bail:
			if r.err != followUp {
				c.errors = append(c.errors, r.err)
			}
			c.depth, c.ctes, c.outer = 0, nil, nil
		default:
			panic(r)
		}
	}()
	f()
	return true
}

func (c *compiler) extension(at sql.Node, what string) {
	if !c.options.Extensions {
		c.fail(at.Place(), "turn on millrace's additions to the dialect for this application to use it", "%s is not part of the dialect", what)
	}
}

func (c *compiler) statement(s sql.Statement) {
	switch s := s.(type) {
	case *sql.CreateStream:
		c.createStream(s)
	case *sql.CreatePump:
		c.createPump(s)
	case *sql.CreateFunction:
		c.createFunction(s)
	case *sql.CreateView:
		name := s.Name.Last().Name
		c.free(s.Name, s.Replace, "view")
		c.views[name] = s
		c.viewQuery(s) // so that it is refused here and not where it is used
	case *sql.Drop:
		c.drop(s)
	case *sql.AlterPump:
		if s.Names == nil {
			for _, p := range c.program.Pumps {
				p.Stopped = s.Stop
			}
		}
		for _, n := range s.Names {
			p := c.pumps[n.Last().Name]
			if p == nil {
				c.known(n.Last().Name)
				c.fail(n.Place(), "", "there is no pump %s", sql.Quote(n.Last().Name))
			}
			p.Stopped = s.Stop
		}
	case *sql.SetSchema:
	case *sql.Insert:
		c.insertValues(s)
	case *sql.QueryStatement:
		c.fail(s.Place(), "write CREATE PUMP … AS INSERT INTO … SELECT STREAM …", "a query does nothing by itself")
	case *sql.Explain:
		c.fail(s.Place(), "use millrace sql explain", "EXPLAIN is not part of an application")
	}
}

// free checks that a name can be given.
func (c *compiler) free(n sql.Name, replace bool, what string) {
	name := n.Last().Name
	old := ""
	switch {
	case strings.EqualFold(name, ErrorStream):
		c.fail(n.Place(), "choose another name", "%s is the service's stream of errors", ErrorStream)
	case c.streams[name] != nil:
		old = "stream"
		if c.streams[name].Source {
			c.fail(n.Place(), "choose another name", "%s is an input stream", sql.Quote(name))
		}
	case c.tables[name] != nil:
		c.fail(n.Place(), "choose another name", "%s is a reference table", sql.Quote(name))
	case c.views[name] != nil:
		old = "view"
	}
	if old != "" && (!replace || old != what) {
		hint := ""
		if old == what {
			hint = "write CREATE OR REPLACE"
		}
		c.fail(n.Place(), hint, "there is a %s %s already", old, sql.Quote(name))
	}
}

func (c *compiler) createStream(s *sql.CreateStream) {
	name := s.Name.Last().Name
	c.free(s.Name, s.Replace, "stream")
	if old := c.streams[name]; old != nil {
		if c.used[old] {
			c.fail(s.Name.Place(), "define it before the pumps that use it", "the stream %s is in use and cannot be replaced", sql.Quote(name))
		}
		c.forget(old)
	}
	stream := &Stream{Name: name}
	seen := map[string]bool{}
	for _, col := range s.Columns {
		if seen[col.Name.Name] {
			c.fail(col.Place(), "", "there are two columns %s", sql.Quote(col.Name.Name))
		}
		seen[col.Name.Name] = true
		if k := col.Type.Type.Kind; k == sql.KindInterval || k == sql.KindRow {
			c.fail(col.Type.Place(), "store a number and multiply it with an interval where it is used", "a stream has no columns of type %s", k)
		}
		stream.Columns = append(stream.Columns, ColumnInfo{Name: col.Name.Name, Type: col.Type.Type, NotNull: col.NotNull})
	}
	if len(stream.Columns) > 1000 {
		c.fail(s.Place(), "", "a stream has at most 1000 columns")
	}
	c.streams[name] = stream
	c.program.Streams = append(c.program.Streams, stream)
}

func (c *compiler) createFunction(s *sql.CreateFunction) {
	name := s.Name.Last().Name
	if _, ok := aggregates[name]; ok {
		c.fail(s.Name.Place(), "choose another name", "%s is a function of the dialect", name)
	}
	if _, ok := functions[name]; ok {
		c.fail(s.Name.Place(), "choose another name", "%s is a function of the dialect", name)
	}
	same := func(f *sql.CreateFunction) bool {
		return slices.EqualFunc(f.Params, s.Params, func(a, b sql.ColumnDef) bool { return a.Type.Type.Kind == b.Type.Type.Kind })
	}
	if at := slices.IndexFunc(c.functions[name], same); at >= 0 {
		if !s.Replace {
			c.fail(s.Name.Place(), "write CREATE OR REPLACE", "there is a function %s with these parameters already", sql.Quote(name))
		}
		c.functions[name] = slices.Delete(slices.Clone(c.functions[name]), at, at+1)
	}
	params := map[string]Expr{}
	for i, p := range s.Params {
		if params[p.Name.Name] != nil {
			c.fail(p.Place(), "", "there are two parameters %s", sql.Quote(p.Name.Name))
		}
		params[p.Name.Name] = &Column{Index: i, T: p.Type.Type, Name: p.Name.Name}
	}
	b := &binder{c: c, params: params, where: "in a function"}
	if t := b.expr(s.Body).Type(); t.Kind != sql.KindNull && !exactly(t, s.Returns.Type) {
		c.fail(s.Body.Place(), "convert it with CAST", "the function returns %s, but its expression is a %s", s.Returns.Type, t)
	}
	c.functions[name] = append(c.functions[name], s)
}

func (c *compiler) drop(s *sql.Drop) {
	name := s.Name.Last().Name
	missing := func() {
		c.known(name)
		c.fail(s.Name.Place(), "", "there is no %s %s", strings.ToLower(s.What), sql.Quote(name))
	}
	switch s.What {
	case "STREAM":
		st := c.streams[name]
		if st == nil || st.Source {
			missing()
		}
		if s.Cascade {
			for _, p := range slices.Clone(c.program.Pumps) {
				if p.Target == st || reads(p, st) {
					c.dropPump(p)
				}
			}
		}
		if c.used[st] {
			c.fail(s.Name.Place(), "drop the pumps first, or write CASCADE", "the stream %s is in use", sql.Quote(name))
		}
		delete(c.streams, name)
		c.forget(st)
	case "PUMP":
		p := c.pumps[name]
		if p == nil {
			missing()
		}
		c.dropPump(p)
	case "FUNCTION":
		if c.functions[name] == nil {
			missing()
		}
		delete(c.functions, name)
	case "VIEW":
		if c.views[name] == nil {
			missing()
		}
		delete(c.views, name)
	}
}

// forget takes a stream out of the program, with what was inserted into it.
func (c *compiler) forget(s *Stream) {
	c.program.Streams = slices.DeleteFunc(c.program.Streams, func(x *Stream) bool { return x == s })
	c.program.Inserts = slices.DeleteFunc(c.program.Inserts, func(x *Insert) bool { return x.Target == s })
}

func (c *compiler) dropPump(p *Pump) {
	delete(c.pumps, p.Name)
	c.program.Pumps = slices.DeleteFunc(c.program.Pumps, func(x *Pump) bool { return x == p })
	p.Target.Writers--
	clear(c.used)
	for _, p := range c.program.Pumps {
		c.uses(p)
	}
}

// reads reports whether a pump reads a stream.
func reads(p *Pump, s *Stream) bool {
	found := false
	visit(p.Root, func(n Node) {
		if scan, ok := n.(*Scan); ok && scan.Stream == s {
			found = true
		}
	})
	return found
}

func (c *compiler) uses(p *Pump) {
	c.used[p.Target] = true
	visit(p.Root, func(n Node) {
		if s, ok := n.(*Scan); ok {
			c.used[s.Stream] = true
		}
	})
}

func visit(n Node, f func(Node)) {
	f(n)
	for _, in := range n.Inputs() {
		visit(in, f)
	}
}

// target finds the stream that is inserted into.
func (c *compiler) target(n sql.Name) *Stream {
	name := n.Last().Name
	if s := c.streams[name]; s != nil {
		if s.Source {
			c.fail(n.Place(), "", "%s is an input stream and cannot be inserted into", sql.Quote(name))
		}
		return s
	}
	if strings.EqualFold(name, ErrorStream) {
		c.fail(n.Place(), "", "only the service writes to %s", ErrorStream)
	}
	if c.tables[name] != nil || c.views[name] != nil {
		c.fail(n.Place(), "", "%s is not a stream", sql.Quote(name))
	}
	c.known(name)
	c.fail(n.Place(), c.nearestRelation(n.Last()), "there is no stream %s", sql.Quote(name))
	return nil
}

func (c *compiler) nearestRelation(id sql.Ident) string {
	var names []string
	for n := range c.streams {
		names = append(names, n)
	}
	for n := range c.tables {
		names = append(names, n)
	}
	for n := range c.views {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if strings.EqualFold(n, id.Name) {
			return "the name is case-sensitive; write " + sql.Quote(n)
		}
	}
	return didYouMean(id.Name, names)
}

func (c *compiler) createPump(s *sql.CreatePump) {
	name := s.Name.Last().Name
	if old := c.pumps[name]; old != nil {
		if !s.Replace {
			c.fail(s.Name.Place(), "write CREATE OR REPLACE", "there is a pump %s already", sql.Quote(name))
		}
		c.program.Pumps = slices.DeleteFunc(c.program.Pumps, func(p *Pump) bool { return p == old })
		old.Target.Writers--
	}
	p := &Pump{Name: name, Stopped: s.Stopped, Target: c.target(s.Insert.Target), Text: sql.StatementText(s.Insert)}
	node := c.query(s.Insert.Query)
	if !Streaming(node) {
		hint := ""
		if _, values := s.Insert.Query.Body.(*sql.Values); values {
			hint = "leave CREATE PUMP … AS out: INSERT INTO … VALUES runs once"
		}
		c.fail(s.Insert.Query.Place(), hint, "a pump reads at least one stream")
	}
	p.Root = c.insertion(s.Insert, p.Target, node)
	p.Text += fingerprint(p.Root)
	p.Target.Writers++
	c.pumps[name] = p
	c.program.Pumps = append(c.program.Pumps, p)
	if c.places == nil {
		c.places = map[*Pump]sql.Span{}
	}
	c.places[p] = s.Name.Place()
	c.uses(p)
}

// fingerprint tells whether two plans of the same text are the same: the views,
// functions and streams it names may have become others.
func fingerprint(root Node) string {
	h := sha256.New()
	io.WriteString(h, queryText(root))
	visit(root, func(n Node) {
		for _, col := range n.Columns() {
			io.WriteString(h, col.Type.String()+";")
		}
	})
	return " /* " + hex.EncodeToString(h.Sum(nil)[:16]) + " */"
}

// insertion brings the columns of a query into the order and types of a stream.
func (c *compiler) insertion(s *sql.Insert, target *Stream, node Node) Node {
	columns := node.Columns()
	place := func(i int) sql.Span {
		if sel, ok := s.Query.Body.(*sql.Select); ok && i < len(sel.Items) && len(sel.Items) == len(columns) {
			return sel.Items[i].Place()
		}
		return s.Query.Place()
	}
	n := &Project{Input: node, output: output{target.Columns}}
	var to []int // the target's column of each of the query's; -1 is ROWTIME
	if s.Columns == nil {
		for i := range target.Columns {
			to = append(to, i)
		}
	}
	for _, id := range s.Columns {
		at := slices.IndexFunc(target.Columns, func(col ColumnInfo) bool { return col.Name == id.Name })
		switch {
		case at < 0 && id.Name == "ROWTIME":
		case at < 0:
			names := make([]string, len(target.Columns))
			for i, col := range target.Columns {
				names[i] = col.Name
			}
			c.fail(id.Place(), nearOrAll(id.Name, names), "the stream %s has no column %s", sql.Quote(target.Name), sql.Quote(id.Name))
		case slices.Contains(to, at):
			c.fail(id.Place(), "", "the column %s is listed twice", sql.Quote(id.Name))
		}
		to = append(to, at)
	}
	if len(to) != len(columns) {
		c.fail(s.Query.Place(), "", "%s takes %s, but the query has %d", sql.Quote(target.Name), counted(len(to), "column"), len(columns))
	}
	for _, col := range target.Columns {
		n.Exprs = append(n.Exprs, &Const{Value{Null: true}, col.Type})
	}
	for i, t := range to {
		from := &Column{Index: i, T: columns[i].Type, Name: columns[i].Name, Of: columns[i].Of, Order: columns[i].Order}
		if t >= 0 && untyped(node, i) {
			continue // the column has NULL already
		}
		if t < 0 {
			if from.T.Kind != sql.KindTimestamp {
				c.fail(place(i), "", "ROWTIME is a TIMESTAMP, not a %s", from.T)
			}
			n.Time = from
			continue
		}
		col := target.Columns[t]
		if !assignable(from.T, col.Type) {
			c.fail(place(i), conversion(from.T, col.Type), "a %s cannot be stored in the column %s, a %s", from.T, sql.Quote(col.Name), col.Type)
		}
		n.Exprs[t] = convert(from, col.Type, true)
	}
	return n
}

// untyped reports whether a column of a query is a bare NULL, which takes any
// type.
func untyped(n Node, column int) bool {
	bare := func(e Expr) bool {
		c, ok := e.(*Const)
		return ok && c.Value.Null && c.T.Kind == sql.KindNull
	}
	switch n := n.(type) {
	case *Project:
		return bare(n.Exprs[column])
	case *Rows:
		for _, row := range n.Values {
			if !bare(row[column]) {
				return false
			}
		}
		return true
	}
	return false
}

func (c *compiler) insertValues(s *sql.Insert) {
	v, ok := s.Query.Body.(*sql.Values)
	if !ok {
		c.fail(s.Place(), "put it into CREATE PUMP … AS", "an INSERT of a query runs in a pump")
	}
	target := c.target(s.Target)
	insert := &Insert{Target: target}
	for _, row := range v.Rows {
		if len(row) != len(v.Rows[0]) {
			c.fail(v.Place(), "", "the rows of VALUES differ in length")
		}
		// Each row by itself: texts are not padded to the length of others.
		one := *v
		one.Rows = [][]sql.Expr{row}
		rows := c.values(&one)
		project := c.insertion(s, target, rows).(*Project)
		value := func(e Expr) Expr {
			return Replace(e, func(part Expr) Expr {
				if col, ok := part.(*Column); ok {
					return rows.Values[0][col.Index]
				}
				return nil
			})
		}
		out := make([]Expr, len(project.Exprs))
		for i, e := range project.Exprs {
			out[i] = value(e)
		}
		insert.Rows = append(insert.Rows, out)
		if project.Time != nil {
			insert.Times = append(insert.Times, value(project.Time))
		}
	}
	c.program.Inserts = append(c.program.Inserts, insert)
}

// order sorts pumps so that none reads what a later one writes.
func (c *compiler) order() {
	writers := map[*Stream][]*Pump{}
	for _, p := range c.program.Pumps {
		writers[p.Target] = append(writers[p.Target], p)
	}
	const open, done = 1, 2
	state := map[*Pump]int{}
	var sorted []*Pump
	var place func(p *Pump)
	place = func(p *Pump) {
		switch state[p] {
		case done:
			return
		case open:
			c.fail(c.places[p], "", "the pump %s reads, directly or through others, what it writes", sql.Quote(p.Name))
		}
		state[p] = open
		visit(p.Root, func(n Node) {
			if s, ok := n.(*Scan); ok {
				for _, w := range writers[s.Stream] {
					place(w)
				}
			}
		})
		state[p] = done
		sorted = append(sorted, p)
	}
	for _, p := range c.program.Pumps {
		place(p)
	}
	c.program.Pumps = sorted
}
