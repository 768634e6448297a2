package plan

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// grouping collects the aggregates of a grouped query.
type grouping struct {
	c    *compiler
	in   *binder // over the rows that are grouped
	keys []Expr
	text []string // of keys
	aggs []Agg
	seen []string // of aggs
	// queries is set if a key has a query in it.
	queries bool
	// columns describes the output; filled in for keys first.
	columns []ColumnInfo
}

// groupedSelection plans a SELECT with GROUP BY, WINDOWED BY, or aggregates over
// a whole table.
func (c *compiler) groupedSelection(s *sql.Select, orderBy []sql.SortItem, node Node, in, out *binder, streaming bool) Node {
	if s.Qualify != nil {
		c.fail(s.Qualify.Place(), "use HAVING", "QUALIFY does not go with GROUP BY")
	}
	g := &grouping{c: c, in: &binder{c: c, scope: in.scope, rowtime: in.rowtime, where: "in GROUP BY"}}
	exprs := s.GroupBy
	if s.Window != nil {
		exprs = s.Window.PartitionBy
	}
	for _, e := range exprs {
		x := g.in.expr(e)
		if x.Type().Kind == sql.KindRow {
			c.fail(e.Place(), "group by its members", "a row cannot be a grouping key")
		}
		g.queries = g.queries || containsQuery(e)
		g.keys, g.text = append(g.keys, x), append(g.text, Key(x))
		g.columns = append(g.columns, ColumnInfo{Name: keyName(e), Type: x.Type()})
	}
	g.in.where = "in an aggregate"
	group := g.operator(s, node, streaming)
	out.hook = g.hook
	out.rowtime = nil
	if streaming {
		out.rowtime = &Rowtime{}
	}
	project, aliases := c.items(s, out, in.scope.entries)
	var having Expr
	if s.Having != nil {
		out.where = "in HAVING"
		having = out.boolean(out.expr(s.Having), s.Having)
	}
	out.where = "in ORDER BY"
	for _, item := range orderBy {
		if _, ordinal := item.Expr.(*sql.Number); !ordinal {
			if col, ok := item.Expr.(*sql.Column); !ok || len(col.Parts) != 1 || !slices.Contains(aliases, col.Parts[0].Name) {
				out.expr(item.Expr) // collects its aggregates
			}
		}
	}
	for _, a := range g.aggs {
		g.columns = append(g.columns, ColumnInfo{Name: strings.ToUpper(a.Func), Type: a.T})
	}
	switch n := group.(type) {
	case *Aggregate:
		n.Aggs, n.columns = g.aggs, g.columns
	case *Stagger:
		n.Aggs, n.columns = g.aggs, g.columns
	}
	project.Input = group
	if having != nil {
		project.Input = &Filter{group, having}
	}
	return c.finish(s, project, aliases, orderBy, out, streaming)
}

// streamsIn counts the sides of a join that are streams, seen through filters.
func streamsIn(n Node) int {
	switch n := n.(type) {
	case *Filter:
		return streamsIn(n.Input)
	case *Lookup:
		return streamsIn(n.Input)
	case *Join:
		return 2
	}
	return 1
}

func keyName(e sql.Expr) string {
	if col, ok := e.(*sql.Column); ok {
		return col.Parts[len(col.Parts)-1].Name
	}
	return "KEY"
}

// operator decides when groups are complete.
func (g *grouping) operator(s *sql.Select, node Node, streaming bool) Node {
	c := g.c
	if w := s.Window; w != nil {
		if w.Session {
			c.extension(w, "WINDOWED BY SESSION")
		}
		if !streaming {
			c.fail(w.Place(), "", "WINDOWED BY needs a stream in FROM")
		}
		if join, ok := s.From.(*sql.Join); ok && streamsIn(node) > 1 {
			c.fail(join.Place(), "join the streams in a query in FROM", "WINDOWED BY goes with one stream in FROM")
		}
		length, ok := g.in.expr(w.Length).(*Const)
		if !ok || length.T.Kind != sql.KindInterval || length.T.Interval.YearMonth() || length.Value.I <= 0 {
			c.fail(w.Length.Place(), "write INTERVAL '1' MINUTE", "the length of a window is an interval of days to seconds, and longer than nothing")
		}
		return &Stagger{Input: node, Session: w.Session, Length: length.Value.I, Keys: g.keys}
	}
	n := &Aggregate{Input: node, Keys: g.keys, Order: -1, TimeIndex: -1}
	if !streaming {
		return n
	}
	if s.GroupBy == nil {
		c.fail(s.Place(), "add GROUP BY FLOOR("+hintName(s)+"ROWTIME TO MINUTE), or OVER (RANGE INTERVAL '1' MINUTE PRECEDING) behind the aggregate", "an aggregate over a stream needs a window: without one it would never be complete")
	}
	based := 0 // keys that are functions of ROWTIME
	for i, k := range g.keys {
		of, ok := timeOnly(k)
		if !ok {
			continue
		}
		if seen := slices.Index(g.text[:i], g.text[i]); seen >= 0 {
			continue
		}
		if based++; based > 1 {
			c.fail(s.GroupBy[i].Place(), "", "only one grouping key can be based on ROWTIME")
		}
		if m := Monotonic(of); m != Ascending && m != Descending {
			continue
		}
		n.Time, n.TimeIndex = of, i
		// Groups carry the end of their window as ROWTIME, a millisecond after the
		// last instant at which the key had its value.
		g.columns[i].Of = Replace(of, func(part Expr) Expr {
			if _, ok := part.(*Rowtime); ok {
				return &Call{Func: "-", Args: []Expr{&Rowtime{}, &Const{Value{I: 1}, millisecond}}, T: timestampType}
			}
			return nil
		})
		g.columns[i].Order = Monotonic(of)
	}
	if n.Time != nil {
		return n
	}
	for i, k := range g.keys {
		if m := Monotonic(k); m == Ascending || m == Descending {
			n.Order = i
			g.columns[i].Order = m
			return n
		}
	}
	why := ""
	for _, k := range g.keys {
		if isDatetime(k.Type().Kind) {
			why = "; a time in the data can go back, only ROWTIME never does"
		}
	}
	c.fail(s.GroupBy[0].Place(), "add FLOOR("+hintName(s)+"ROWTIME TO MINUTE) to GROUP BY, or use WINDOWED BY STAGGER",
		"GROUP BY over a stream needs a key that grows with time: none of these says when a group is complete, so it would have to be kept for ever%s", why)
	return nil
}

var millisecond = sql.Type{Kind: sql.KindInterval, Interval: sql.Qualifier{Start: sql.Second, End: sql.Second, Precision: 2, Fraction: 3}}

// hintName is the qualifier that a hint suggests for ROWTIME.
func hintName(s *sql.Select) string {
	if t, ok := s.From.(*sql.NamedTable); ok {
		if t.Alias != nil {
			return sql.Quote(t.Alias.Name) + "."
		}
		return sql.Quote(t.Name.Last().Name) + "."
	}
	return ""
}

// hook puts keys and aggregates in place of what they stand for.
func (g *grouping) hook(e sql.Expr) (Expr, bool) {
	if call, ok := e.(*sql.Call); ok {
		if _, is := aggregates[call.Name.Name]; is {
			if call.Over != nil {
				g.c.fail(e.Place(), "put the grouped query into FROM of another one", "a window function cannot stand in a query with GROUP BY")
			}
			if call.Name.Name != "LAG" && call.Name.Name != "NTH_VALUE" {
				return g.aggregate(call), true
			}
		}
	}
	switch e := e.(type) {
	case *sql.Number, *sql.String, *sql.Binary, *sql.Boolean, *sql.Null, *sql.Datetime, *sql.Interval:
		return nil, false
	case *sql.Column:
		x, err := g.bound(e)
		if err != nil {
			panic(bail{err})
		}
		if at := slices.Index(g.text, Key(x)); at >= 0 {
			return g.key(at), true
		}
		if _, ok := x.(*Rowtime); ok && len(e.Parts) == 1 {
			return x, true // that of the row which is put out
		}
		switch x.(type) {
		case *Const, *Param: // of a parameter's or of the query outside
			return x, true
		}
		g.c.fail(e.Place(), "add it to GROUP BY or put it into an aggregate", "%s is neither a grouping key nor in an aggregate", sql.Text(e))
	}
	if containsAggregate(e) || containsQuery(e) && !g.queries {
		return nil, false
	}
	x, err := g.bound(e)
	if err != nil {
		return nil, false // a part of it is wrong and will be found
	}
	if at := slices.Index(g.text, Key(x)); at >= 0 {
		return g.key(at), true
	}
	return nil, false
}

func (g *grouping) key(at int) Expr {
	col := g.columns[at]
	return &Column{at, col.Type, col.Name, col.Of, col.Order}
}

// bound binds an expression over the rows that are grouped.
func (g *grouping) bound(e sql.Expr) (x Expr, err *sql.Error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case bail:
			err = r.err
		default:
			panic(r)
		}
	}()
	return g.in.expr(e), nil
}

func (g *grouping) aggregate(call *sql.Call) Expr {
	if call.IgnoreNulls != nil {
		g.c.fail(call.Place(), "", "IGNORE NULLS goes with OVER")
	}
	a := g.in.aggregate(call, g.in)
	key := windowKey(Window{Agg: a})
	at := slices.Index(g.seen, key)
	if at < 0 {
		at = len(g.aggs)
		g.aggs, g.seen = append(g.aggs, a), append(g.seen, key)
	}
	return &Column{Index: len(g.keys) + at, T: a.T, Name: strings.ToUpper(a.Func)}
}

func containsAggregate(e sql.Expr) bool {
	found := false
	walkSQL(e, func(e sql.Expr) bool {
		if call, ok := e.(*sql.Call); ok {
			if _, is := aggregates[call.Name.Name]; is {
				found = true
			}
		}
		return true
	})
	return found
}

// walkSQL visits an expression of the syntax tree; visit says whether to go on
// below.
func walkSQL(e sql.Expr, visit func(sql.Expr) bool) {
	if e == nil || !visit(e) {
		return
	}
	all := func(list ...sql.Expr) {
		for _, x := range list {
			if x != nil {
				walkSQL(x, visit)
			}
		}
	}
	switch e := e.(type) {
	case *sql.Unary:
		all(e.Operand)
	case *sql.Operation:
		all(e.Left, e.Right)
	case *sql.Difference:
		all(e.Left, e.Right)
	case *sql.Is:
		all(e.Operand)
	case *sql.IsDistinct:
		all(e.Left, e.Right)
	case *sql.Between:
		all(e.Operand, e.Low, e.High)
	case *sql.Like:
		all(e.Operand, e.Pattern, e.Escape)
	case *sql.In:
		all(e.Operand)
		all(e.List...)
	case *sql.Period:
		all(e.Left, e.Right)
	case *sql.Row:
		all(e.Items...)
	case *sql.Case:
		all(e.Operand, e.Else)
		for _, w := range e.Whens {
			all(w.Condition, w.Result)
		}
	case *sql.Cast:
		all(e.Operand)
	case *sql.FloorTo:
		all(e.Operand)
	case *sql.Step:
		all(e.Operand, e.By)
	case *sql.Extract:
		all(e.Operand)
	case *sql.Substring:
		all(e.Operand, e.From, e.For)
	case *sql.SubstringSimilar:
		all(e.Operand, e.Pattern, e.Escape)
	case *sql.Overlay:
		all(e.Operand, e.Placing, e.From, e.For)
	case *sql.Position:
		all(e.Needle, e.Operand)
	case *sql.Trim:
		all(e.Chars, e.Operand)
	case *sql.Call:
		all(e.Args...)
		all(e.Filter)
	}
}
