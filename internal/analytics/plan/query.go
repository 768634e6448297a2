package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// maxQueries is how many queries a program may have, views and queries of WITH
// counted where they are read.
const maxQueries = 10_000

// query plans a query.
func (c *compiler) query(q *sql.Query) Node {
	if c.queries++; c.queries > maxQueries {
		c.fail(q.Place(), "read streams in place of views that are read often", "the program is too large: it has more than %d queries, those of views counted where they are read", maxQueries)
	}
	before := len(c.ctes)
	defer func() { c.ctes = c.ctes[:before] }()
	c.define(q.With)
	var n Node
	switch body := q.Body.(type) {
	case *sql.Select:
		n = c.selection(body, q.OrderBy)
	case *sql.Query:
		n = c.ordered(c.query(body), q.OrderBy)
	case *sql.Values:
		n = c.ordered(c.values(body), q.OrderBy)
	case *sql.SetOperation:
		n = c.ordered(c.setOperation(body), q.OrderBy)
	}
	if q.Limit != nil {
		c.extension(q.Limit, "LIMIT")
		b := &binder{c: c, where: "in LIMIT"}
		count, ok := b.expr(q.Limit).(*Const)
		if !ok || !isInteger(count.T.Kind) || count.Value.Null || count.Value.I < 0 {
			c.fail(q.Limit.Place(), "", "LIMIT takes a number of rows")
		}
		n = &Limit{n, count.Value.I}
	}
	return n
}

// define makes the queries of WITH known.
func (c *compiler) define(list []sql.With) {
	for _, w := range list {
		c.extension(&w, "WITH")
		c.ctes = append(c.ctes, cte{w.Name.Name, w, len(c.ctes), c.outer})
	}
}

func (c *compiler) body(b sql.Body) Node {
	switch b := b.(type) {
	case *sql.Select:
		return c.selection(b, nil)
	case *sql.Query:
		return c.query(b)
	case *sql.Values:
		return c.values(b)
	}
	return c.setOperation(b.(*sql.SetOperation))
}

func (c *compiler) values(v *sql.Values) *Rows {
	b := &binder{c: c, where: "in VALUES"}
	n := &Rows{}
	var types []sql.Type
	for i, row := range v.Rows {
		if i > 0 && len(row) != len(types) {
			c.fail(v.Place(), "", "the rows of VALUES differ in length")
		}
		var out []Expr
		for j, e := range row {
			x := b.expr(e)
			if i == 0 {
				types = append(types, x.Type())
			} else {
				t, ok := common(types[j], x.Type())
				if !ok {
					c.fail(e.Place(), "convert it with CAST", "%s and %s have no common type", types[j], x.Type())
				}
				types[j] = t
			}
			out = append(out, x)
		}
		n.Values = append(n.Values, out)
	}
	for _, row := range n.Values {
		for j := range row {
			if types[j].Kind != sql.KindNull {
				row[j] = convert(row[j], types[j], false)
			}
		}
	}
	for j, t := range types {
		if t.Kind == sql.KindNull {
			t = varchar(1)
		}
		n.columns = append(n.columns, ColumnInfo{Name: "EXPR$" + strconv.Itoa(j), Type: t})
	}
	return n
}

func (c *compiler) setOperation(s *sql.SetOperation) Node {
	left, right := c.body(s.Left), c.body(s.Right)
	l, r := left.Columns(), right.Columns()
	if len(l) != len(r) {
		c.fail(s.Right.Place(), "", "%s joins queries with the same number of columns, not %d and %d", s.Op, len(l), len(r))
	}
	ls, rs := Streaming(left), Streaming(right)
	columns := make([]ColumnInfo, len(l))
	for i := range l {
		t, ok := common(l[i].Type, r[i].Type)
		switch {
		case untyped(left, i):
			t, ok = r[i].Type, true
		case untyped(right, i):
			t, ok = l[i].Type, true
		}
		if !ok {
			c.fail(s.Right.Place(), "convert one with CAST", "column %d is a %s on the left and a %s on the right", i+1, l[i].Type, r[i].Type)
		}
		columns[i] = ColumnInfo{Name: l[i].Name, Type: t}
		// What both sides say of their column's relation to time holds for both.
		if l[i].Of != nil && r[i].Of != nil && Key(l[i].Of) == Key(r[i].Of) {
			columns[i].Of = l[i].Of
		}
	}
	left, right = retyped(left, columns), retyped(right, columns)
	switch {
	case ls != rs:
		c.fail(s.Right.Place(), "", "%s joins streams or tables, not a stream and a table", s.Op)
	case ls && (s.Op != "UNION" || !s.All):
		c.fail(s.Right.Place(), map[string]string{"UNION": "write UNION ALL", "EXCEPT": "write WHERE NOT EXISTS (SELECT STREAM … FROM s OVER (RANGE INTERVAL '1' MINUTE PRECEDING) …)", "INTERSECT": "write WHERE EXISTS (SELECT STREAM … FROM s OVER (RANGE INTERVAL '1' MINUTE PRECEDING) …)"}[s.Op], "%s of streams would have to remember every row for ever: streams know UNION ALL only", s.Op)
	case s.Op == "UNION" && s.All:
		n := &Union{output: output{columns}}
		for _, side := range []Node{left, right} {
			if u, ok := side.(*Union); ok {
				n.Branches = append(n.Branches, u.Branches...)
			} else {
				n.Branches = append(n.Branches, side)
			}
		}
		return n
	}
	return &SetOp{output{columns}, s.Op, s.All, left, right}
}

// retyped brings a query's columns to types.
func retyped(n Node, columns []ColumnInfo) Node {
	same := true
	exprs := make([]Expr, len(columns))
	for i, col := range n.Columns() {
		from := columnAt(n, i)
		exprs[i] = convert(from, columns[i].Type, false)
		if untyped(n, i) {
			exprs[i] = &Const{Value{Null: true}, columns[i].Type}
		}
		same = same && exprs[i] == Expr(from) && col.Type.Kind == columns[i].Type.Kind
	}
	if same {
		return n
	}
	return &Project{output: output{columns}, Input: n, Exprs: exprs}
}

func columnAt(n Node, i int) *Column {
	col := n.Columns()[i]
	return &Column{i, col.Type, col.Name, col.Of, col.Order}
}

// ordered sorts the output of a query that is no SELECT.
func (c *compiler) ordered(n Node, orderBy []sql.SortItem) Node {
	if orderBy == nil {
		return n
	}
	b := &binder{c: c, scope: scope{[]entry{{columns: n.Columns(), rowtime: &Rowtime{}}}}, rowtime: &Rowtime{}, where: "in ORDER BY"}
	return c.sorted(n, orderBy, b, nil, nil)
}

// sorted sorts n, a projection whose items are named by the query, by keys bound
// with b over input (n itself if nil), which then is projected again.
func (c *compiler) sorted(n Node, orderBy []sql.SortItem, b *binder, project *Project, aliases []string) Node {
	sort := &Sort{Table: !Streaming(n)}
	width := len(n.Columns())
	base := project
	if base == nil {
		base = &Project{Input: n, output: output{slices.Clone(n.Columns())}}
		for i := range n.Columns() {
			base.Exprs = append(base.Exprs, columnAt(n, i))
		}
	}
	extended := *base
	extended.columns = slices.Clone(base.columns)
	extended.Exprs = slices.Clone(base.Exprs)
	var first Expr
	for i, item := range orderBy {
		column := -1
		switch e := item.Expr.(type) {
		case *sql.Number:
			at, err := strconv.Atoi(e.Text)
			if err != nil || at < 1 || at > width {
				c.fail(e.Place(), "", "there is no column %s to order by; the query has %s", e.Text, counted(width, "column"))
			}
			column = at - 1
		case *sql.Column:
			if len(e.Parts) == 1 {
				column = slices.Index(aliases, e.Parts[0].Name)
			}
		}
		if column < 0 {
			x := b.expr(item.Expr)
			for j, have := range extended.Exprs {
				if Key(have) == Key(x) {
					column = j
				}
			}
			if column < 0 {
				column = len(extended.Exprs)
				extended.Exprs = append(extended.Exprs, x)
				extended.columns = append(extended.columns, columnInfo("", x, extended.Time != nil))
			}
		}
		if i == 0 {
			first = extended.Exprs[column]
		}
		if extended.columns[column].Type.Kind == sql.KindRow {
			c.fail(item.Place(), "", "rows have no order")
		}
		sort.Keys = append(sort.Keys, SortKey{column, item.Descending, nullsFirst(item)})
	}
	if !sort.Table {
		switch m := Monotonic(first); {
		case m != Ascending && m != Descending:
			c.fail(orderBy[0].Place(), "begin with ROWTIME or FLOOR(ROWTIME TO MINUTE)", "a stream is ordered by a time first: %s never says that no smaller value will come, so nothing could ever be put out", sql.Text(orderBy[0].Expr))
		case (m == Descending) != orderBy[0].Descending:
			c.fail(orderBy[0].Place(), "", "the first key of a stream's order goes the way of time")
		}
		if of, ok := timeOnly(first); ok && extended.Time == nil {
			sort.Time = of
		}
		if col, ok := first.(*Column); ok {
			sort.Grouped = groupTime(extended.Input, col.Index)
		}
	}
	sort.Input = &extended
	if len(extended.Exprs) == width {
		return sort
	}
	out := &Project{Input: sort, output: output{base.columns}}
	for i := range width {
		out.Exprs = append(out.Exprs, columnAt(&extended, i))
	}
	return out
}

// nullsFirst: NULL is the largest value, unless the order says where it stands.
func nullsFirst(item sql.SortItem) bool {
	if item.NullsFirst != nil {
		return *item.NullsFirst
	}
	return item.Descending
}

// groupTime reports whether a column is the time key of groups, seen through
// filters and window functions.
func groupTime(n Node, column int) bool {
	switch n := n.(type) {
	case *Aggregate:
		return n.Time != nil && n.TimeIndex == column
	case *Filter:
		return groupTime(n.Input, column)
	case *Windowed:
		return groupTime(n.Input, column)
	}
	return false
}

// columnInfo describes a projected expression.
func columnInfo(name string, e Expr, retimed bool) ColumnInfo {
	info := ColumnInfo{Name: name, Type: e.Type()}
	if info.Type.Kind == sql.KindNull {
		info.Type = varchar(1)
	}
	if retimed {
		return info
	}
	if of, ok := timeOnly(e); ok {
		info.Of = of
	}
	if m := Monotonic(e); m == Ascending || m == Descending {
		info.Order = m
	}
	return info
}

// from is what a table reference gives: an operator and what names stand for.
type from struct {
	node    Node
	entries []entry
	over    *sql.WindowSpec
	looked  bool // the window is that of a stream which tables are looked up for
	at      sql.Node
}

// selection plans a SELECT.
func (c *compiler) selection(s *sql.Select, orderBy []sql.SortItem) Node {
	f := c.tableRef(s.From, s)
	if f.over != nil && !f.looked {
		c.fail(f.over.Place(), "put OVER behind a function of the select list", "a window on a table has a meaning in joins only")
	}
	node := f.node
	streaming := Streaming(node)
	if s.Stream && !streaming {
		c.fail(s.From.Place(), "leave STREAM out", "SELECT STREAM needs a stream, and there are only tables in FROM")
	}
	in := &binder{c: c, scope: scope{f.entries}, where: "in WHERE"}
	if streaming {
		in.rowtime = &Rowtime{}
	}
	if s.Where != nil {
		node = c.where(node, in, s.Where)
	}
	grouped := s.GroupBy != nil || s.Window != nil || hasAggregates(s)
	if s.Having != nil && !grouped {
		c.fail(s.Having.Place(), "use WHERE", "HAVING goes with GROUP BY or WINDOWED BY")
	}
	out := &binder{c: c, scope: scope{f.entries}, rowtime: in.rowtime, where: "in the select list"}
	if grouped {
		return c.groupedSelection(s, orderBy, node, in, out, streaming)
	}
	w := &windowCollector{c: c, s: s, in: &binder{c: c, scope: scope{f.entries}, rowtime: in.rowtime, where: "in a window function"}, base: len(node.Columns()), streaming: streaming}
	out.hook = w.hook
	project, aliases := c.items(s, out, f.entries)
	var qualify Expr
	if s.Qualify != nil {
		c.extension(s.Qualify, "QUALIFY")
		qualify = out.boolean(out.expr(s.Qualify), s.Qualify)
	}
	for _, item := range orderBy {
		if containsAggregate(item.Expr) {
			out.expr(item.Expr) // collects its window functions
		}
	}
	node = w.node(node)
	if qualify != nil {
		node = &Filter{node, qualify}
	}
	project.Input = node
	return c.finish(s, project, aliases, orderBy, out, streaming)
}

// finish adds DISTINCT and ORDER BY to a projection.
func (c *compiler) finish(s *sql.Select, project *Project, aliases []string, orderBy []sql.SortItem, b *binder, streaming bool) Node {
	var n Node = project
	if s.Distinct {
		key := -1
		if streaming {
			for i, e := range project.Exprs {
				if m := Monotonic(e); (m == Ascending || m == Descending) && project.Time == nil && !(rowtimeItem(e) && key >= 0) {
					if _, plain := e.(*Rowtime); !plain {
						key = i
						break
					}
				}
			}
			if key < 0 {
				c.fail(s.Place(), "add FLOOR(ROWTIME TO MINUTE) or the like to the select list", "SELECT STREAM DISTINCT needs a column that grows with time; without one it would have to remember every row for ever")
			}
		}
		n = &Distinct{n, key}
		if orderBy != nil {
			return c.ordered(n, orderBy)
		}
		return n
	}
	if orderBy != nil {
		return c.sorted(n, orderBy, b, project, aliases)
	}
	return n
}

func rowtimeItem(e Expr) bool { _, ok := e.(*Rowtime); return ok }

// items binds the select list.
func (c *compiler) items(s *sql.Select, b *binder, entries []entry) (*Project, []string) {
	p := &Project{}
	var aliases []string
	type named struct {
		name string
		e    Expr
	}
	var list []named
	for _, item := range s.Items {
		if item.Star {
			n := 0
			for _, t := range entries {
				if item.Of != nil && t.alias != item.Of.Last().Name {
					continue
				}
				n++
				for i, col := range t.columns {
					if col.Hidden {
						continue
					}
					ref := &sql.Column{}
					e, ok := Expr(nil), false
					if b.hook != nil {
						e, ok = b.starColumn(t, i, ref)
					}
					if !ok {
						e = &Column{t.offset + i, col.Type, col.Name, col.Of, col.Order}
					}
					list = append(list, named{col.Name, e})
				}
			}
			if n == 0 {
				var names []string
				for _, t := range entries {
					names = append(names, t.alias)
				}
				c.fail(item.Place(), didYouMean(item.Of.Last().Name, names), "there is no table %s in FROM", sql.Quote(item.Of.Last().Name))
			}
			continue
		}
		e := b.expr(item.Expr)
		name := "EXPR$" + strconv.Itoa(len(list))
		switch x := item.Expr.(type) {
		case *sql.Column:
			name = x.Parts[len(x.Parts)-1].Name
		}
		if item.Alias != nil {
			name = item.Alias.Name
			if name == "ROWTIME" {
				if e.Type().Kind != sql.KindTimestamp {
					c.fail(item.Place(), "", "ROWTIME is a TIMESTAMP, not a %s", e.Type())
				}
				if p.Time != nil {
					c.fail(item.Place(), "", "ROWTIME is set twice")
				}
				if !rowtimeItem(e) {
					p.Time = e
				}
				continue
			}
		}
		list = append(list, named{name, e})
	}
	if len(list) == 0 {
		c.fail(s.Place(), "list what the stream takes", "the select list has no columns: ROWTIME is none")
	}
	if len(list) > 1000 {
		c.fail(s.Place(), "", "a query has at most 1000 columns")
	}
	for _, item := range list {
		p.Exprs = append(p.Exprs, item.e)
		p.columns = append(p.columns, columnInfo(item.name, item.e, p.Time != nil))
		aliases = append(aliases, item.name)
	}
	return p, aliases
}

// starColumn asks the hook about a column that * stands for.
func (b *binder) starColumn(t entry, i int, ref *sql.Column) (Expr, bool) {
	ref.Parts = []sql.Ident{{Name: t.alias, Quoted: true}, {Name: t.columns[i].Name, Quoted: true}}
	if t.alias == "" {
		ref.Parts = ref.Parts[1:]
	}
	return b.hook(ref)
}

// hasAggregates reports whether a SELECT without GROUP BY aggregates all the
// same.
func hasAggregates(s *sql.Select) bool {
	found := false
	look := func(e sql.Expr) {
		walkSQL(e, func(e sql.Expr) bool {
			if call, ok := e.(*sql.Call); ok {
				if call.Over != nil {
					return false
				}
				if _, is := aggregates[call.Name.Name]; is && call.Name.Name != "LAG" && call.Name.Name != "NTH_VALUE" {
					found = true
				}
			}
			return true
		})
	}
	for _, item := range s.Items {
		look(item.Expr)
	}
	look(s.Having)
	return found
}

// windowCollector takes analytic functions out of expressions.
type windowCollector struct {
	c         *compiler
	s         *sql.Select
	in        *binder
	base      int // columns of the input
	windows   []Window
	keys      []string
	streaming bool
}

func (w *windowCollector) hook(e sql.Expr) (Expr, bool) {
	call, ok := e.(*sql.Call)
	if !ok || call.Over == nil {
		return nil, false
	}
	if _, ok := aggregates[call.Name.Name]; !ok {
		return nil, false
	}
	win := w.window(call)
	key := windowKey(win)
	at := slices.Index(w.keys, key)
	if at < 0 {
		at = len(w.windows)
		w.windows, w.keys = append(w.windows, win), append(w.keys, key)
	}
	return &Column{Index: w.base + at, T: win.T, Name: call.Name.Name}, true
}

func windowKey(w Window) string {
	var b strings.Builder
	list := func(args ...Expr) {
		for _, a := range args {
			if a != nil {
				writeKey(&b, a)
			}
			b.WriteByte(';')
		}
	}
	b.WriteString(w.Func)
	list(w.Arg, w.Offset, w.Default)
	list(w.PartitionBy...)
	b.WriteString(strconv.FormatInt(w.Preceding, 10) + strconv.FormatInt(w.HalfLife, 10))
	for _, flag := range []bool{w.Distinct, w.Rows, w.IgnoreNulls, w.FromLast} {
		b.WriteString(strconv.FormatBool(flag))
	}
	return b.String()
}

func (w *windowCollector) window(call *sql.Call) Window {
	c := w.c
	if !w.streaming {
		c.fail(call.Place(), "", "windows slide over streams, and there are only tables in FROM")
	}
	if call.Name.Name == "ANY" || call.Name.Name == "EVERY" || call.Name.Name == "SOME" {
		c.fail(call.Place(), "", "%s goes with GROUP BY only", call.Name.Name)
	}
	win := Window{Agg: w.in.aggregate(call, w.in), FromLast: call.FromLast}
	if call.IgnoreNulls != nil {
		switch win.Func {
		case "first_value", "last_value", "lag", "nth_value":
			win.IgnoreNulls = *call.IgnoreNulls
		default:
			c.fail(call.Place(), "", "IGNORE NULLS goes with FIRST_VALUE, LAST_VALUE, LAG and NTH_VALUE")
		}
	}
	switch win.Func {
	case "lag":
		win.Offset = &Const{Value{I: 1}, bigintType}
		if len(call.Args) > 1 {
			win.Offset = w.in.integer(call.Args[1])
		}
		if len(call.Args) > 2 {
			d := w.in.expr(call.Args[2])
			if !assignable(d.Type(), win.T) {
				c.fail(call.Args[2].Place(), "convert it with CAST", "the default of LAG is a %s, not a %s", win.T, d.Type())
			}
			win.Default = convert(d, win.T, true)
		}
	case "nth_value":
		win.Offset = w.in.integer(call.Args[1])
	}
	if at, ok := win.Offset.(*Const); ok && !at.Value.Null {
		switch {
		case win.Func == "lag" && at.Value.I < 0:
			c.fail(call.Args[1].Place(), "", "LAG looks back: its offset is not negative")
		case win.Func == "nth_value" && at.Value.I < 1:
			c.fail(call.Args[1].Place(), "", "NTH_VALUE counts rows from 1")
		}
	}
	spec := c.resolveWindow(call.Over, w.s, 0)
	if spec.OrderBy != nil {
		c.fail(spec.OrderBy[0].Place(), "leave it out: rows are in order of ROWTIME", "a window over a stream has no ORDER BY")
	}
	for _, e := range spec.PartitionBy {
		win.PartitionBy = append(win.PartitionBy, w.in.expr(e))
	}
	if win.Rows, win.Preceding = c.frame(spec, w.in); win.Preceding == 0 && spec.Frame.Start.Kind != sql.CurrentRow {
		c.fail(spec.Frame.Place(), "write CURRENT ROW", "a window has a size: 0 PRECEDING is no start of one")
	}
	return win
}

// resolveWindow follows names into the WINDOW clause.
func (c *compiler) resolveWindow(spec *sql.WindowSpec, s *sql.Select, depth int) *sql.WindowSpec {
	if spec.Name == nil {
		return spec
	}
	var names []string
	for _, d := range s.Windows {
		names = append(names, d.Name.Name)
		if d.Name.Name != spec.Name.Name || depth > len(s.Windows) {
			continue
		}
		base := c.resolveWindow(d.Spec, s, depth+1)
		merged := *base
		if spec.PartitionBy != nil {
			if base.PartitionBy != nil {
				c.fail(spec.Place(), "", "the window %s is partitioned already", sql.Quote(spec.Name.Name))
			}
			merged.PartitionBy = spec.PartitionBy
		}
		if spec.OrderBy != nil {
			merged.OrderBy = spec.OrderBy
		}
		if spec.Frame != nil {
			if base.Frame != nil {
				c.fail(spec.Place(), "", "the window %s has a frame already", sql.Quote(spec.Name.Name))
			}
			merged.Frame = spec.Frame
		}
		merged.Name = nil
		return &merged
	}
	c.fail(spec.Name.Place(), didYouMean(spec.Name.Name, names), "there is no window %s in the WINDOW clause", sql.Quote(spec.Name.Name))
	return nil
}

// frame reads the size of a window that ends at the current row.
func (c *compiler) frame(spec *sql.WindowSpec, b *binder) (rows bool, preceding int64) {
	f := spec.Frame
	if f == nil {
		c.fail(spec.Place(), "add RANGE INTERVAL '1' MINUTE PRECEDING or ROWS 10 PRECEDING", "the window has no size, so that it would remember every row for ever")
	}
	if f.End.Kind != sql.CurrentRow {
		c.fail(f.Place(), "", "a window over a stream ends at CURRENT ROW: later rows have not come yet")
	}
	switch f.Start.Kind {
	case sql.CurrentRow:
		return f.Rows, 0
	case sql.UnboundedPreceding:
		return f.Rows, Unbounded
	case sql.Preceding:
	default:
		c.fail(f.Place(), "", "a window over a stream ends at CURRENT ROW: later rows have not come yet")
	}
	return f.Rows, c.frameSize(f, f.Start.Offset, b)
}

func (c *compiler) frameSize(f *sql.Frame, e sql.Expr, b *binder) int64 {
	offset, ok := b.expr(e).(*Const)
	switch {
	case !ok || offset.Value.Null:
		c.fail(e.Place(), "", "the size of a window is a constant")
	case offset.Value.I < 0:
		c.fail(e.Place(), "", "the size of a window cannot be negative")
	case f.Rows && !isInteger(offset.T.Kind):
		c.fail(e.Place(), "", "ROWS takes a number of rows")
	case !f.Rows && offset.T.Kind != sql.KindInterval:
		c.fail(e.Place(), "write RANGE INTERVAL '1' MINUTE PRECEDING", "RANGE takes an interval")
	case !f.Rows && offset.T.Interval.YearMonth():
		c.fail(e.Place(), "write it in days", "RANGE takes an interval of days to seconds: months differ in length")
	case f.Rows && offset.Value.I > 1<<24:
		c.fail(e.Place(), "", "a window has at most %d rows", 1<<24)
	}
	return offset.Value.I
}

func (w *windowCollector) node(n Node) Node {
	if len(w.windows) == 0 {
		return n
	}
	out := &Windowed{Input: n, Windows: w.windows, output: output{slices.Clone(n.Columns())}}
	for _, win := range w.windows {
		out.columns = append(out.columns, ColumnInfo{Name: strings.ToUpper(win.Func), Type: win.T, Hidden: true})
	}
	return out
}
