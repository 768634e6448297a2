package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// maxNesting is how deep queries stand in one another's expressions.
const maxNesting = 8

type (
	// Subquery is a query over tables as a value: whether it has rows, whether a
	// value is among them, or the one value it has.
	Subquery struct {
		Kind SubqueryKind
		// Query yields the rows; it reads tables only. Its Params stand for Outer.
		Query Node
		Outer []Expr // of the row outside
		// Operand are the values that IN looks for, Found what it compares them with,
		// over the columns of Query and pairwise of one type.
		Operand, Found []Expr
		T              sql.Type
	}
	// Param is a value of the row outside, in a query that is a value.
	Param struct {
		Index int
		T     sql.Type
		Name  string
	}
	// SemiJoin lets the rows of a stream pass for which another stream has a row in
	// its window, or has none. A window ends with the row that is asked for, at its
	// instant. The output is the input's.
	SemiJoin struct {
		Input, Other Node
		Anti         bool // rows without a partner pass
		// A row of Other stays for so long: milliseconds, or a number of rows.
		Window int64
		Rows   bool
		// Keys are equal pairwise, over the side's own columns. The last Loose of them
		// are those of NOT IN, which a NULL on either side meets too.
		InputKeys, OtherKeys []Expr
		Loose                int
		// Condition is over the input's columns, its ROWTIME, the other's columns, and
		// the other's ROWTIME; nil if always true.
		Condition Expr
	}
)

// SubqueryKind says what of a query is its value.
type SubqueryKind uint8

// The kinds.
const (
	ExistsQuery SubqueryKind = iota
	InQuery
	ScalarQuery
)

var subqueryNames = [...]string{"exists", "in", "the value of"}

// Type implements Expr.
func (e *Subquery) Type() sql.Type { return e.T }

// Type implements Expr.
func (e *Param) Type() sql.Type { return e.T }

// Columns implements Node.
func (n *SemiJoin) Columns() []ColumnInfo { return n.Input.Columns() }

// Inputs implements Node.
func (n *SemiJoin) Inputs() []Node { return []Node{n.Input, n.Other} }

// correlation is how the names of a row outside are seen in a query that is a
// value.
type correlation struct {
	b      *binder // of the expression the query stands in
	parent *correlation
	depth  int
	args   []Expr
	keys   []string
	// direct, if set, is used instead of parameters.
	direct func(Expr) Expr
}

// knows reports whether a name means something outside.
func (k *correlation) knows(e *sql.Column) bool {
	if k == nil {
		return false
	}
	b := k.b
	first := e.Parts[0].Name
	if len(e.Parts) == 1 {
		if _, ok := b.params[first]; ok || first == "ROWTIME" && b.rowtime != nil {
			return true
		}
	}
	for _, t := range b.scope.entries {
		for _, part := range e.Parts[:len(e.Parts)-1] {
			if t.alias != "" && t.alias == part.Name {
				return true
			}
		}
		for _, c := range t.columns {
			if c.Name == first && !c.merged {
				return true
			}
		}
	}
	return k.parent.knows(e)
}

// column binds a name outside.
func (k *correlation) column(e *sql.Column) Expr {
	c := k.b.c
	inner := c.outer
	c.outer = k.parent
	x := k.b.expr(e)
	c.outer = inner
	if k.direct != nil {
		return k.direct(x)
	}
	if _, ok := x.(*Const); ok {
		return x
	}
	if x.Type().Kind == sql.KindRow {
		k.b.fail(e, "name its members", "a row of the query outside cannot be used as a whole")
	}
	key := Key(x)
	for i, have := range k.keys {
		if have == key {
			return &Param{i, x.Type(), sql.Text(e)}
		}
	}
	k.args, k.keys = append(k.args, x), append(k.keys, key)
	return &Param{len(k.args) - 1, x.Type(), sql.Text(e)}
}

// nested plans a query that stands in an expression.
func (b *binder) nested(at sql.Node, q *sql.Query) (Node, []Expr) {
	c := b.c
	k := &correlation{b: b, parent: c.outer, depth: 1}
	if k.parent != nil {
		k.depth = k.parent.depth + 1
	}
	if k.depth > maxNesting {
		b.fail(at, "", "queries stand in one another more than %d deep", maxNesting)
	}
	if c.readsStream(q) {
		b.overStream(at)
	}
	defer func(outer *correlation) { c.outer = outer }(c.outer)
	c.outer = k
	n := c.query(q)
	if Streaming(n) {
		b.overStream(at)
	}
	return n, k.args
}

// overStream refuses a query over a stream where it can have no value.
func (b *binder) overStream(at sql.Node) {
	switch at.(type) {
	case *sql.Exists, *sql.In:
		b.fail(at, "put it into WHERE, joined to other conditions with AND only, or join the streams with windows",
			"whether a stream has such a row is known for one row of another stream at a time: %s cannot be said here", map[bool]string{true: "EXISTS", false: "IN"}[isExists(at)])
	}
	b.fail(at, "join the streams, with OVER (RANGE INTERVAL '1' MINUTE PRECEDING) on each", "a query over a stream never ends, so that it has no value")
}

func isExists(at sql.Node) bool { _, ok := at.(*sql.Exists); return ok }

// exists binds EXISTS (query).
func (b *binder) exists(e *sql.Exists) Expr {
	n, outer := b.nested(e, e.Query)
	return &Subquery{Kind: ExistsQuery, Query: n, Outer: outer, T: booleanType}
}

// scalar binds a query in parentheses.
func (b *binder) scalar(e *sql.Subquery) Expr {
	n, outer := b.nested(e, e.Query)
	columns := visibleColumns(n)
	if len(columns) != 1 {
		b.fail(e, "", "a query that is a value has one column, not %d", len(columns))
	}
	t := n.Columns()[columns[0]].Type
	if t.Kind == sql.KindRow {
		b.fail(e, "name one of its members", "a row is not a value")
	}
	if columns[0] != 0 {
		n = &Project{output: output{[]ColumnInfo{n.Columns()[columns[0]]}}, Input: n, Exprs: []Expr{columnAt(n, columns[0])}}
	}
	return &Subquery{Kind: ScalarQuery, Query: n, Outer: outer, T: t}
}

func visibleColumns(n Node) []int {
	var list []int
	for i, c := range n.Columns() {
		if !c.Hidden {
			list = append(list, i)
		}
	}
	return list
}

// inQuery binds x IN (query).
func (b *binder) inQuery(e *sql.In) Expr {
	operand := b.operands(e.Operand)
	n, outer := b.nested(e, e.Query)
	columns := visibleColumns(n)
	if len(columns) != len(operand) {
		b.fail(e.Query, "", "IN compares %s with a query of %d columns", counted(len(operand), "value"), len(columns))
	}
	s := &Subquery{Kind: InQuery, Query: n, Outer: outer, T: booleanType}
	for i, x := range operand {
		l, r := b.keys(e, x, columnAt(n, columns[i]))
		s.Operand, s.Found = append(s.Operand, l), append(s.Found, r)
	}
	return negate(e.Not, s)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// operands are the values of (a, b), or the one of a.
func (b *binder) operands(e sql.Expr) []Expr {
	row, ok := e.(*sql.Row)
	if !ok {
		return []Expr{b.expr(e)}
	}
	var list []Expr
	for _, item := range row.Items {
		list = append(list, b.expr(item))
	}
	return list
}

// keys brings two values to a form in which they are equal if their bits are.
func (b *binder) keys(at sql.Node, l, r Expr) (Expr, Expr) {
	l, r = b.same(at, l, r)
	if scaleOf(l) != scaleOf(r) {
		// No type holds both, so they are compared as they are written.
		plain := func(e Expr) Expr { return &Call{Func: "plain_number", Args: []Expr{e}, T: varchar(24)} }
		return plain(l), plain(r)
	}
	return l, r
}

// containsQuery reports whether a query stands in an expression.
func containsQuery(e sql.Expr) bool {
	found := false
	walkSQL(e, func(e sql.Expr) bool {
		switch e := e.(type) {
		case *sql.Exists, *sql.Subquery:
			found = true
		case *sql.In:
			found = found || e.Query != nil
		}
		return !found
	})
	return found
}

// readsStream reports whether a query reads a stream in FROM. What is wrong with
// the query is for others to find.
func (c *compiler) readsStream(q *sql.Query) bool {
	return c.readsStreamUnless(q, map[*sql.Query]bool{})
}

// readsStreamUnless is readsStream but for the queries that it has seen.
func (c *compiler) readsStreamUnless(q *sql.Query, seen map[*sql.Query]bool) bool {
	if q == nil || seen[q] {
		return false
	}
	seen[q] = true
	local := map[string]*sql.Query{}
	for _, w := range q.With {
		local[w.Name.Name] = w.Query
	}
	var table func(t sql.TableRef) bool
	table = func(t sql.TableRef) bool {
		switch t := t.(type) {
		case *sql.NamedTable:
			name := t.Name.Last().Name
			if w := local[name]; w != nil {
				return c.readsStreamUnless(w, seen)
			}
			for i := len(c.ctes) - 1; i >= 0; i-- {
				if c.ctes[i].name == name {
					return c.readsStreamUnless(c.ctes[i].with.Query, seen)
				}
			}
			if v := c.views[name]; v != nil && c.streams[name] == nil {
				return c.readsStreamUnless(v.Query, seen)
			}
			return c.streams[name] != nil
		case *sql.QueryTable:
			return c.readsStreamUnless(t.Query, seen)
		case *sql.FunctionTable:
			return true
		case *sql.Join:
			return table(t.Left) || table(t.Right)
		}
		return false
	}
	var body func(b sql.Body) bool
	body = func(b sql.Body) bool {
		switch b := b.(type) {
		case *sql.Select:
			return table(b.From)
		case *sql.Query:
			return c.readsStreamUnless(b, seen)
		case *sql.SetOperation:
			return body(b.Left) || body(b.Right)
		}
		return false
	}
	return body(q.Body)
}

// conjuncts takes a condition apart at AND.
func conjuncts(e sql.Expr) []sql.Expr {
	if op, ok := e.(*sql.Operation); ok && op.Op == "AND" {
		return append(conjuncts(op.Left), conjuncts(op.Right)...)
	}
	return []sql.Expr{e}
}

// where plans the condition of a SELECT: filters, and what other streams are
// asked for.
func (c *compiler) where(node Node, in *binder, e sql.Expr) Node {
	var rest Expr
	type question struct {
		at    sql.Expr
		query *sql.Query
		in    *sql.In
		not   bool
	}
	var questions []question
	if !Streaming(node) || !containsQuery(e) {
		return &Filter{node, in.boolean(in.expr(e), e)}
	}
	for _, part := range conjuncts(e) {
		q := question{at: part}
		for {
			not, ok := q.at.(*sql.Unary)
			if !ok || not.Op != "NOT" {
				break
			}
			q.at, q.not = not.Operand, !q.not
		}
		switch x := q.at.(type) {
		case *sql.Exists:
			q.query = x.Query
		case *sql.In:
			if x.Query != nil {
				q.query, q.in, q.not = x.Query, x, q.not != x.Not
			}
		}
		if q.query != nil && c.readsStream(q.query) {
			questions = append(questions, q)
			continue
		}
		x := in.boolean(in.expr(part), part)
		if rest == nil {
			rest = x
		} else {
			rest = &Call{Func: "and", Args: []Expr{rest, x}, T: booleanType}
		}
	}
	if rest != nil {
		node = &Filter{node, rest}
	}
	for _, q := range questions {
		node = c.semiJoin(node, in, q.at, q.query, q.in, q.not)
	}
	return node
}

// semiJoin plans [NOT] EXISTS and [NOT] IN over another stream.
func (c *compiler) semiJoin(node Node, outer *binder, at sql.Expr, q *sql.Query, in *sql.In, not bool) Node {
	sel, ok := q.Body.(*sql.Select)
	switch {
	case !ok:
		c.fail(q.Place(), "put it into FROM of a SELECT", "a stream is asked for rows with a SELECT")
	case sel.GroupBy != nil || sel.Window != nil || hasAggregates(sel):
		c.fail(sel.Place(), "put the grouped query into FROM, with OVER behind it", "a stream is asked for rows, which are not grouped here")
	case sel.Qualify != nil:
		c.fail(sel.Qualify.Place(), "put the query into FROM", "QUALIFY does not go with a query that asks a stream for rows")
	case q.Limit != nil:
		c.fail(q.Limit.Place(), "leave it out", "LIMIT does not go with a query that asks a stream for rows")
	case q.With != nil:
		before := len(c.ctes)
		defer func() { c.ctes = c.ctes[:before] }()
		c.define(q.With)
	}
	defer func(outer *correlation) { c.outer = outer }(c.outer)
	k := &correlation{b: outer, parent: c.outer, depth: 1}
	c.outer = nil
	f := c.tableRef(sel.From, sel)
	n := &SemiJoin{Input: node, Other: f.node, Anti: not}
	n.Rows, n.Window = c.joinWindow(f.over, sel)

	lw, ow := len(node.Columns()), len(f.node.Columns())
	inputTime := &Column{Index: lw, T: timestampType, Name: "ROWTIME"}
	otherTime := &Column{Index: lw + 1 + ow, T: timestampType, Name: "ROWTIME"}
	k.direct = func(e Expr) Expr {
		return Replace(e, func(part Expr) Expr {
			switch part := part.(type) {
			case *Rowtime:
				return inputTime
			case *Column:
				plain := *part
				plain.Of, plain.Order = nil, Unordered
				return &plain
			}
			return nil
		})
	}
	c.outer = k
	var entries []entry
	for _, e := range f.entries {
		e.columns = forgotten(e.columns)
		e.offset += lw + 1
		if col, ok := e.rowtime.(*Column); ok { // of a join below
			e.rowtime = &Column{Index: col.Index + lw + 1, T: timestampType, Name: "ROWTIME"}
		} else if e.rowtime != nil {
			e.rowtime = otherTime
		}
		entries = append(entries, e)
	}
	b := &binder{c: c, scope: scope{entries}, rowtime: otherTime, where: "in a query that asks a stream for rows"}
	b.hook = func(e sql.Expr) (Expr, bool) {
		if call, ok := e.(*sql.Call); ok && call.Over != nil {
			c.fail(call.Place(), "put it into a query in FROM", "a window function cannot stand %s", b.where)
		}
		return nil, false
	}
	var parts []Expr
	if sel.Where != nil {
		parts = split(b.boolean(b.expr(sel.Where), sel.Where))
	}
	var same []Expr
	if in != nil {
		project, _ := c.items(sel, b, entries)
		operand := outer.operandsOutside(in.Operand, k)
		if len(project.Exprs) != len(operand) {
			c.fail(q.Place(), "", "IN compares %s with a query of %d columns", counted(len(operand), "value"), len(project.Exprs))
		}
		for i, x := range operand {
			l, r := b.same(in, x, project.Exprs[i])
			same = append(same, &Call{Func: "=", Args: []Expr{l, r}, T: booleanType})
		}
	} else {
		c.items(sel, b, entries)
	}
	side := func(index int) int {
		if index <= lw {
			return 0
		}
		return 1
	}
	own := func(e Expr, of int) Expr {
		if of == 0 {
			return shifted(e, 0, lw)
		}
		return shifted(e, -(lw + 1), lw+1+ow)
	}
	keys := func(list []Expr) (rest Expr) {
		lk, rk, rest := equalities(list, side)
		for i := range lk {
			n.InputKeys = append(n.InputKeys, own(lk[i], 0))
			n.OtherKeys = append(n.OtherKeys, own(rk[i], 1))
		}
		return rest
	}
	if !not || in == nil {
		n.Condition = keys(append(parts, same...))
		return n
	}
	// NOT IN holds where no value is equal and none may be: a NULL may.
	n.Condition = keys(parts)
	before := len(n.InputKeys)
	keys(same)
	n.Loose = len(n.InputKeys) - before
	for _, e := range same {
		var may Expr = &Call{Func: "not", Args: []Expr{&Call{Func: "is_false", Args: []Expr{e}, T: booleanType}}, T: booleanType}
		if n.Condition != nil {
			may = &Call{Func: "and", Args: []Expr{n.Condition, may}, T: booleanType}
		}
		n.Condition = may
	}
	return n
}

// operandsOutside binds the operand of IN as it is seen from the query.
func (b *binder) operandsOutside(e sql.Expr, k *correlation) []Expr {
	c := b.c
	inner := c.outer
	c.outer = k.parent
	list := b.operands(e)
	c.outer = inner
	for i := range list {
		list[i] = k.direct(list[i])
	}
	return list
}

// equalities splits conditions into pairs of keys that are equal, the first over
// columns of side 0, and the rest.
func equalities(list []Expr, side func(index int) int) (lk, rk []Expr, rest Expr) {
	for _, e := range list {
		if call, ok := e.(*Call); ok && call.Func == "=" {
			a, z := sides(call.Args[0], side), sides(call.Args[1], side)
			// Keys are looked up as they are, so they have the same form.
			if like := scaleOf(call.Args[0]) == scaleOf(call.Args[1]); like && (a == 1 && z == 2 || a == 2 && z == 1) {
				l, r := call.Args[0], call.Args[1]
				if a == 2 {
					l, r = r, l
				}
				lk, rk = append(lk, l), append(rk, r)
				continue
			}
		}
		if rest == nil {
			rest = e
		} else {
			rest = &Call{Func: "and", Args: []Expr{rest, e}, T: booleanType}
		}
	}
	return lk, rk, rest
}

// queryText is a text that is the same for queries that are the same.
func queryText(n Node) string {
	var b strings.Builder
	visit(n, func(n Node) {
		b.WriteString(describe(n) + ":")
		visitExprs(n, func(e Expr) {
			writeKey(&b, e)
			b.WriteByte(';')
		})
		switch n := n.(type) {
		case *Sort:
			fmt.Fprint(&b, n.Keys)
		case *SetOp:
			fmt.Fprint(&b, n.All)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

// visitExprs visits the expressions of an operator that may hold queries.
func visitExprs(n Node, f func(Expr)) {
	list := func(exprs ...Expr) {
		for _, e := range exprs {
			if e != nil {
				f(e)
			}
		}
	}
	switch n := n.(type) {
	case *Filter:
		list(n.Condition)
	case *Project:
		list(n.Exprs...)
		list(n.Time)
	case *Aggregate:
		list(n.Keys...)
		for _, a := range n.Aggs {
			list(a.Arg)
		}
	case *Stagger:
		list(n.Keys...)
		for _, a := range n.Aggs {
			list(a.Arg)
		}
	case *Windowed:
		for _, w := range n.Windows {
			list(w.Arg, w.Offset, w.Default)
			list(w.PartitionBy...)
		}
	case *Join:
		list(n.LeftKeys...)
		list(n.RightKeys...)
		list(n.Condition)
	case *SemiJoin:
		list(n.InputKeys...)
		list(n.OtherKeys...)
		list(n.Condition)
	case *Lookup:
		list(n.InputKeys...)
		list(n.TableKeys...)
		list(n.Condition)
	case *Rows:
		for _, row := range n.Values {
			list(row...)
		}
	}
}

// Tables are the reference tables that a query reads, those of queries in its
// expressions among them.
func Tables(n Node) []*Table {
	var found []*Table
	seen := map[*Table]bool{}
	var walk func(n Node)
	walk = func(n Node) {
		visit(n, func(n Node) {
			if scan, ok := n.(*TableScan); ok && !seen[scan.Table] {
				seen[scan.Table] = true
				found = append(found, scan.Table)
			}
			visitExprs(n, func(e Expr) {
				Walk(e, func(part Expr) {
					if s, ok := part.(*Subquery); ok {
						walk(s.Query)
					}
				})
			})
		})
	}
	walk(n)
	return found
}

// DependsOnRow reports whether a query or a part of it needs the row outside.
func DependsOnRow(n Node) bool {
	found := false
	visit(n, func(n Node) {
		visitExprs(n, func(e Expr) { found = found || HasParams(e) })
	})
	return found
}

// HasParams reports whether an expression needs the row outside its query.
func HasParams(e Expr) bool {
	found := false
	Walk(e, func(part Expr) {
		// The parameters of a query inside are its own; what it takes for them, Outer,
		// is walked.
		if _, ok := part.(*Param); ok {
			found = true
		}
	})
	return found
}

// Split takes a condition apart at AND.
func Split(e Expr) []Expr { return split(e) }
