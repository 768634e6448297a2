package plan

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// tableRef plans what stands in FROM.
func (c *compiler) tableRef(t sql.TableRef, s *sql.Select) from {
	switch t := t.(type) {
	case *sql.NamedTable:
		node := c.relation(t.Name)
		alias := t.Name.Last().Name
		if t.Alias != nil {
			alias = t.Alias.Name
		}
		return c.source(t, node, alias, t.Columns, t.Over, s)
	case *sql.QueryTable:
		alias := ""
		if t.Alias != nil {
			alias = t.Alias.Name
		}
		return c.source(t, c.query(t.Query), alias, t.Columns, t.Over, s)
	case *sql.FunctionTable:
		alias := ""
		if t.Alias != nil {
			alias = t.Alias.Name
		}
		return c.source(t, c.tableFunction(t.Call), alias, t.Columns, t.Over, s)
	}
	return c.join(t.(*sql.Join), s)
}

// source makes the scope of one table.
func (c *compiler) source(at sql.Node, node Node, alias string, names []sql.Ident, over *sql.WindowSpec, s *sql.Select) from {
	columns := slices.Clone(node.Columns())
	if names != nil {
		visible := 0
		for i := range columns {
			if columns[i].Hidden {
				continue
			}
			if visible < len(names) {
				columns[i].Name = names[visible].Name
			}
			visible++
		}
		if visible != len(names) {
			c.fail(at.Place(), "", "the alias names %d columns, but there are %d", len(names), visible)
		}
	}
	e := entry{alias: alias, columns: columns}
	if Streaming(node) {
		e.rowtime = &Rowtime{}
	}
	return from{node: node, entries: []entry{e}, over: over, at: at}
}

// relation finds a stream, a table, a view or a query of WITH.
func (c *compiler) relation(n sql.Name) Node {
	name := n.Last().Name
	for i := len(c.ctes) - 1; i >= 0; i-- {
		if w := c.ctes[i]; w.name == name && len(n.Parts) == 1 {
			ctes, outer := c.ctes, c.outer
			c.ctes, c.outer = slices.Clone(c.ctes[:w.seen]), w.outer
			defer func() { c.ctes, c.outer = ctes, outer }()
			return c.named(w.with.Query, w.with.Columns, &w.with)
		}
	}
	if s := c.streams[name]; s != nil {
		return &Scan{output{s.Columns}, s}
	}
	if t := c.tables[name]; t != nil {
		return &TableScan{output{t.Columns}, t}
	}
	if v := c.views[name]; v != nil {
		return c.viewQuery(v)
	}
	if strings.EqualFold(name, ErrorStream) {
		c.fail(n.Place(), "make it an output of the application", "%s cannot be read", ErrorStream)
	}
	c.known(name)
	c.fail(n.Place(), c.nearestRelation(n.Last()), "there is no stream or table %s", sql.Quote(name))
	return nil
}

func (c *compiler) viewQuery(v *sql.CreateView) Node {
	if c.depth++; c.depth > 50 {
		c.fail(v.Place(), "", "the view %s reads itself", sql.Quote(v.Name.Last().Name))
	}
	ctes, outer := c.ctes, c.outer
	c.ctes, c.outer = nil, nil
	defer func() { c.depth--; c.ctes, c.outer = ctes, outer }()
	return c.named(v.Query, v.Columns, v)
}

// named plans a query and names its columns.
func (c *compiler) named(q *sql.Query, names []sql.Ident, at sql.Node) Node {
	n := c.query(q)
	if names == nil {
		return n
	}
	columns := slices.Clone(n.Columns())
	if len(names) != len(columns) {
		c.fail(at.Place(), "", "%d columns are named, but the query has %d", len(names), len(columns))
	}
	p := &Project{Input: n}
	for i := range columns {
		columns[i].Name = names[i].Name
		p.Exprs = append(p.Exprs, columnAt(n, i))
	}
	p.columns = columns
	return p
}

// join plans a join of two streams, or of a stream and a table.
func (c *compiler) join(t *sql.Join, s *sql.Select) from {
	left, right := c.tableRef(t.Left, s), c.tableRef(t.Right, s)
	kind := t.Kind
	ls, rs := Streaming(left.node), Streaming(right.node)
	for _, l := range left.entries {
		for _, r := range right.entries {
			if l.alias != "" && l.alias == r.alias {
				c.fail(t.Right.Place(), "give one another alias", "%s stands in FROM twice", sql.Quote(l.alias))
			}
		}
	}
	switch {
	case ls && rs:
		return c.streamJoin(t, kind, left, right, s)
	case left.over != nil && !ls || right.over != nil && !rs:
		c.fail(t.Place(), "", "a reference table has no window")
	}
	// The table is looked up from the other side.
	input, table, kept := left, right, kind == sql.LeftJoin
	swapped := !ls && (rs || kind == sql.RightJoin)
	if swapped {
		input, table, kept = right, left, kind == sql.RightJoin
	}
	if kind == sql.FullJoin || kind == sql.LeftJoin && swapped || kind == sql.RightJoin && !swapped {
		c.fail(t.Place(), "keep the stream's rows instead", "the rows of a reference table cannot be kept in a join: it is never known that no match will come")
	}
	n := &Lookup{Left: kept, Input: input.node, Table: table.node}
	width := len(input.node.Columns())
	n.columns = append(slices.Clone(input.node.Columns()), forgotten(table.node.Columns())...)
	entries := make([]entry, 0, len(left.entries)+len(right.entries))
	add := func(f from, shift int) {
		for _, e := range f.entries {
			e.offset += shift
			if shift > 0 {
				e.columns = forgotten(e.columns)
			}
			entries = append(entries, e)
		}
	}
	if swapped {
		add(left, width)
		add(right, 0)
	} else {
		add(left, 0)
		add(right, width)
	}
	side := func(index int) int {
		if index < width {
			return 0
		}
		return 1
	}
	lk, rk, rest := c.condition(t, entries, len(left.entries), ls || rs, side)
	for i := range lk {
		n.InputKeys = append(n.InputKeys, lk[i])
		n.TableKeys = append(n.TableKeys, shifted(rk[i], -width, -1))
	}
	n.Condition = rest
	return from{node: n, entries: entries, at: t, over: input.over, looked: true}
}

// forgotten are columns whose relation to time does not hold behind a join.
func forgotten(columns []ColumnInfo) []ColumnInfo {
	out := slices.Clone(columns)
	for i := range out {
		out[i].Of, out[i].Order = nil, Unordered
	}
	return out
}

// shifted moves the columns of an expression; the column at rowtime becomes the
// row's time.
func shifted(e Expr, by, rowtime int) Expr {
	return Replace(e, func(part Expr) Expr {
		if col, ok := part.(*Column); ok {
			if col.Index == rowtime {
				return &Rowtime{}
			}
			moved := *col
			moved.Index += by
			return &moved
		}
		return nil
	})
}

func (c *compiler) streamJoin(t *sql.Join, kind sql.JoinKind, left, right from, s *sql.Select) from {
	n := &Join{Kind: kind, Left: left.node, Right: right.node}
	n.LeftRows, n.LeftWindow = c.joinWindow(left.over, s)
	n.RightRows, n.RightWindow = c.joinWindow(right.over, s)
	lw, rw := len(left.node.Columns()), len(right.node.Columns())
	time := ColumnInfo{Name: "ROWTIME", Type: timestampType, Hidden: true}
	n.columns = append(forgotten(left.node.Columns()), time)
	n.columns = append(append(n.columns, forgotten(right.node.Columns())...), time)
	var entries []entry
	add := func(f from, shift, rowtime int) {
		for _, e := range f.entries {
			e.columns = forgotten(e.columns)
			if e.rowtime != nil {
				if col, ok := e.rowtime.(*Column); ok {
					e.rowtime = &Column{Index: col.Index + shift, T: timestampType, Name: "ROWTIME"}
				} else {
					e.rowtime = &Column{Index: rowtime, T: timestampType, Name: "ROWTIME"}
				}
			}
			e.offset += shift
			entries = append(entries, e)
		}
	}
	add(left, 0, lw)
	add(right, lw+1, lw+1+rw)
	side := func(index int) int {
		if index <= lw {
			return 0
		}
		return 1
	}
	lk, rk, rest := c.condition(t, entries, len(left.entries), true, side)
	for i := range lk {
		n.LeftKeys = append(n.LeftKeys, shifted(lk[i], 0, lw))
		n.RightKeys = append(n.RightKeys, shifted(rk[i], -(lw+1), lw+1+rw))
	}
	n.Condition = rest
	return from{node: n, entries: entries, at: t}
}

// joinWindow reads the window of one side of a join.
func (c *compiler) joinWindow(over *sql.WindowSpec, s *sql.Select) (rows bool, size int64) {
	if over == nil {
		return false, 0
	}
	spec := c.resolveWindow(over, s, 0)
	if spec.PartitionBy != nil {
		c.fail(spec.PartitionBy[0].Place(), "put the condition into ON", "the window of a join is not partitioned")
	}
	for _, item := range spec.OrderBy {
		if col, ok := item.Expr.(*sql.Column); !ok || col.Parts[len(col.Parts)-1].Name != "ROWTIME" || item.Descending {
			c.fail(item.Place(), "", "the window of a join is in order of ROWTIME")
		}
	}
	b := &binder{c: c, where: "in a window"}
	rows, size = c.frame(spec, b)
	if size == Unbounded {
		c.fail(spec.Place(), "write RANGE INTERVAL '1' MINUTE PRECEDING", "the window of a join needs a size: without one every row would be kept for ever")
	}
	return rows, size
}

// condition binds ON, USING or NATURAL and splits it into pairs of keys that are
// equal, the first over columns of side 0, and the rest.
func (c *compiler) condition(t *sql.Join, entries []entry, leftEntries int, streaming bool, side func(index int) int) (lk, rk []Expr, rest Expr) {
	b := &binder{c: c, scope: scope{entries}, where: "in ON"}
	if streaming {
		b.rowtime = &Rowtime{}
	}
	names := t.Using
	if t.Natural {
		for _, l := range entries[:leftEntries] {
			for _, lc := range l.columns {
				for _, r := range entries[leftEntries:] {
					for _, rc := range r.columns {
						if lc.Name == rc.Name && !lc.Hidden && !rc.Hidden {
							names = append(names, sql.Ident{Name: lc.Name, Quoted: true})
						}
					}
				}
			}
		}
	}
	var conjuncts []Expr
	if len(names) > 0 {
		if t.Kind == sql.FullJoin {
			c.fail(t.Place(), "write ON", "FULL JOIN does not go with USING or NATURAL")
		}
		for _, name := range names {
			pair := [2]Expr{}
			for i, part := range [2][]entry{entries[:leftEntries], entries[leftEntries:]} {
				one := &binder{c: c, scope: scope{part}, where: "in USING"}
				pair[i] = one.column(sql.ColumnOf(name))
			}
			l, r := b.same(t, pair[0], pair[1])
			conjuncts = append(conjuncts, &Call{Func: "=", Args: []Expr{l, r}, T: booleanType})
			// The column is there once: what is not kept is found by its qualifier only.
			hide := entries[leftEntries:]
			if t.Kind == sql.RightJoin {
				hide = entries[:leftEntries]
			}
			for i := range hide {
				hide[i].columns = slices.Clone(hide[i].columns)
				for j := range hide[i].columns {
					if hide[i].columns[j].Name == name.Name {
						hide[i].columns[j].Hidden = true
						hide[i].columns[j].merged = true
					}
				}
			}
		}
	}
	if t.On != nil {
		conjuncts = append(conjuncts, split(b.boolean(b.expr(t.On), t.On))...)
	} else if len(names) == 0 && t.Kind != sql.CrossJoin && !t.Natural {
		c.fail(t.Place(), "add ON, or write CROSS JOIN", "a join needs a condition")
	}
	return equalities(conjuncts, side)
}

// scaleOf is the number of fraction digits of a decimal, 0 of all else.
func scaleOf(e Expr) int {
	if t := e.Type(); t.Kind == sql.KindDecimal {
		return t.Scale
	}
	return 0
}

// sides is a set of the sides an expression needs: 1, 2, 3 for both, 0 for none.
func sides(e Expr, side func(int) int) int {
	set := 0
	Walk(e, func(part Expr) {
		switch part := part.(type) {
		case *Column:
			set |= 1 << side(part.Index)
		case *Rowtime:
			set = 3
		}
	})
	return set
}

// split takes a condition apart at AND.
func split(e Expr) []Expr {
	if call, ok := e.(*Call); ok && call.Func == "and" {
		return append(split(call.Args[0]), split(call.Args[1])...)
	}
	return []Expr{e}
}

// tableFunction plans TABLE(f(CURSOR(…), …)).
func (c *compiler) tableFunction(call *sql.Call) Node {
	name := call.Name.Name
	if !slices.Contains(tableFunctions, name) {
		c.fail(call.Name.Place(), didYouMean(name, tableFunctions), "there is no table function %s", sql.Quote(name))
	}
	if len(call.Args) == 0 {
		c.fail(call.Place(), "", "%s takes CURSOR(SELECT STREAM …) first", name)
	}
	cursor, ok := call.Args[0].(*sql.Cursor)
	if !ok {
		c.fail(call.Args[0].Place(), "write CURSOR(SELECT STREAM …)", "%s takes a cursor first", name)
	}
	input := c.query(cursor.Query)
	if !Streaming(input) {
		c.fail(cursor.Place(), "", "%s takes a stream", name)
	}
	n := &TableFunction{Input: input, Name: name, Column: -1}
	b := &binder{c: c, where: "in the arguments of a table function"}
	args := make([]*Const, len(call.Args)-1)
	for i, a := range call.Args[1:] {
		if args[i], ok = b.expr(a).(*Const); !ok || args[i].Value.Null {
			c.fail(a.Place(), "", "the arguments of %s are constants", name)
		}
	}
	count := func(low, high int) {
		if len(args) < low || len(args) > high {
			c.fail(call.Place(), "", "%s takes %s besides the cursor, not %d", name, argumentCount(low, high), len(args))
		}
	}
	integer := func(i int, what string, low, high int64) int64 {
		v := args[i]
		if !isInteger(v.T.Kind) || v.Value.I < low || v.Value.I > high {
			c.fail(call.Args[i+1].Place(), "", "%s is %d to %d", what, low, high)
		}
		return v.Value.I
	}
	column := func(i int) int {
		v := args[i]
		if !isCharacter(v.T.Kind) {
			c.fail(call.Args[i+1].Place(), "", "the column's name stands in '")
		}
		var names []string
		for at, col := range input.Columns() {
			if col.Name == v.Value.S {
				return at
			}
			names = append(names, col.Name)
		}
		c.fail(call.Args[i+1].Place(), didYouMean(v.Value.S, names), "the cursor has no column %s; names are case-sensitive", sql.Quote(v.Value.S))
		return 0
	}
	visible := slices.DeleteFunc(forgotten(input.Columns()), func(col ColumnInfo) bool { return col.Hidden })
	keep := func(e ...Value) { n.Args = append(n.Args, e...) }
	switch name {
	case "TOP_K_ITEMS_TUMBLING":
		count(3, 3)
		n.Column = column(0)
		col := input.Columns()[n.Column]
		keep(Value{I: integer(1, "the number of items", 1, 100000)}, Value{I: integer(2, "the length of the window in seconds", 1, 3600)})
		n.columns = []ColumnInfo{{Name: col.Name, Type: col.Type}, {Name: "MOST_FREQUENT_VALUES", Type: bigintType}}
	case "COUNT_DISTINCT_ITEMS_TUMBLING":
		count(2, 2)
		n.Column = column(0)
		keep(Value{I: integer(1, "the length of the window in seconds", 1, 3600)})
		n.columns = []ColumnInfo{{Name: "NUMBER_OF_DISTINCT_ITEMS", Type: bigintType}}
	case "GROUP_RANK":
		count(6, 6)
		n.Column = column(0)
		if k := input.Columns()[n.Column].Type.Kind; !isInteger(k) && !isCharacter(k) {
			c.fail(call.Args[1].Place(), "", "GROUP_RANK ranks by an INTEGER, CHAR or VARCHAR column, not by a %s", k)
		}
		order := func(i int) Value {
			switch strings.ToLower(args[i].Value.S) {
			case "asc":
				return Value{}
			case "desc":
				return Value{I: 1}
			}
			c.fail(call.Args[i+1].Place(), "", "an order is 'asc' or 'desc'")
			return Value{}
		}
		if !isCharacter(args[1].T.Kind) || args[1].Value.S == "" {
			c.fail(call.Args[2].Place(), "", "the rank column's name stands in '")
		}
		keep(order(2), order(3), Value{I: integer(4, "the idle time in milliseconds", 0, 1<<31-1)}, Value{I: integer(5, "the number of rows put out", 0, 1<<31-1)})
		n.columns = append(visible, ColumnInfo{Name: args[1].Value.S, Type: integerType})
	case "RANDOM_CUT_FOREST", "RANDOM_CUT_FOREST_WITH_EXPLANATION":
		explain := name == "RANDOM_CUT_FOREST_WITH_EXPLANATION"
		high := 4
		if explain {
			high = 5
		}
		count(0, high)
		v := []int64{100, 256, 100000, 1}
		what := []string{"the number of trees", "the size of the sample", "the decay", "the shingle size"}
		low, top := []int64{1, 10, 1, 1}, []int64{1000, 1000, 1<<31 - 1, 30}
		directed := Value{}
		for i := range args {
			if i == 4 {
				if args[i].T.Kind != sql.KindBoolean {
					c.fail(call.Args[i+1].Place(), "", "whether directions are explained is TRUE or FALSE")
				}
				directed = args[i].Value
				break
			}
			v[i] = integer(i, what[i], low[i], top[i])
		}
		if v[1] >= v[2] {
			c.fail(call.Place(), "", "the size of the sample is smaller than the decay")
		}
		keep(Value{I: v[0]}, Value{I: v[1]}, Value{I: v[2]}, Value{I: v[3]}, directed)
		n.Numeric = c.numericColumns(call, input, 30)
		n.columns = append(visible, ColumnInfo{Name: "ANOMALY_SCORE", Type: doubleType})
		if explain {
			n.columns = append(n.columns, ColumnInfo{Name: "ANOMALY_EXPLANATION", Type: varchar(20480)})
		}
	case "HOTSPOTS":
		count(3, 3)
		window := integer(0, "the size of the window", 100, 1000)
		radius, ok := convert(args[1], doubleType, false).(*Const)
		if !isNumeric(args[1].T.Kind) || !ok || radius.Value.F <= 0 {
			c.fail(call.Args[2].Place(), "", "the radius is a number greater than 0")
		}
		keep(Value{I: window}, Value{F: radius.Value.F}, Value{I: integer(2, "the number of points of a hotspot", 2, window)})
		n.Numeric = c.numericColumns(call, input, 30)
		n.columns = append(visible, ColumnInfo{Name: "HOTSPOTS_RESULT", Type: varchar(10240)})
	}
	return n
}

// numericColumns are those that the learning functions take.
func (c *compiler) numericColumns(call *sql.Call, input Node, most int) []int {
	var list []int
	for i, col := range input.Columns() {
		if col.Hidden {
			continue
		}
		switch k := col.Type.Kind; {
		case k == sql.KindDecimal:
			c.fail(call.Args[0].Place(), "CAST it to DOUBLE", "%s takes no DECIMAL columns, and %s is one", call.Name.Name, sql.Quote(col.Name))
		case isNumeric(k):
			list = append(list, i)
		}
	}
	if len(list) == 0 || len(list) > most {
		c.fail(call.Args[0].Place(), "", "%s takes 1 to %d numeric columns, and the cursor has %d", call.Name.Name, most, len(list))
	}
	return list
}
