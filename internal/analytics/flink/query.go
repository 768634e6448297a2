package flink

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// column is one that expressions can name.
type column struct {
	name   string // in the program
	text   string // in Flink SQL
	typ    sql.Type
	fields map[string]string // texts of a row's members
	hidden bool
	merged bool // by USING: found by its qualifier only
}

// table is one of FROM.
type table struct {
	alias   string
	columns []column
	time    string // ROWTIME as a value; empty for tables
	missing map[string]string
}

// scope is what names in expressions stand for.
type scope struct {
	tables []*table
	time   string // ROWTIME without a qualifier, as a value
	params map[string]string
	// sessions marks the aggregates of windows that can be merged.
	sessions bool
	// hook is asked first about every part of an expression.
	hook func(sql.Expr) (string, bool)
}

// relation is what FROM gives.
type relation struct {
	from      string
	tables    []*table
	attribute string // the time attribute; empty for tables
	ends      bool   // the attribute is the last instant of a window
	stream    bool
	// later is ROWTIME as a value where it is not the attribute's.
	later string
}

// value is a relation's ROWTIME as the dialect has it.
func (r *relation) value() string {
	if r.later != "" {
		return r.later
	}
	if r.attribute == "" || !r.ends {
		return r.attribute
	}
	return "(" + r.attribute + " + INTERVAL '0.001' SECOND)"
}

// item is a column of a query.
type item struct {
	name, text string
	typ        sql.Type
	fields     []item // of a row, which becomes columns
	hidden     bool
}

// short leaves out the alias where there is only one.
func (s *scope) short(text string) string {
	if len(s.tables) != 1 || s.tables[0].alias == "" {
		return text
	}
	return strings.ReplaceAll(text, quote(s.tables[0].alias)+".", "")
}

// query is a translated query.
type query struct {
	items    []item
	time     string // the time attribute it can hand on
	ends     bool
	stream   bool
	tail     string // all from FROM on
	branches []*query
	distinct bool
}

// text writes a query out; timed adds the time attribute.
func (q *query) text(timed bool) string {
	if q.branches != nil {
		parts := make([]string, len(q.branches))
		for i, b := range q.branches {
			parts[i] = b.text(timed)
		}
		return strings.Join(parts, "\n"+q.tail+"\n")
	}
	var items []string
	for _, it := range q.items {
		if it.fields != nil {
			for _, f := range it.fields {
				items = append(items, f.text+" AS "+quote(f.name))
			}
			continue
		}
		s := it.text
		if it.name != "" && s != quote(it.name) && !strings.HasSuffix(s, "."+quote(it.name)) {
			s += " AS " + quote(it.name)
		}
		items = append(items, s)
	}
	if timed && q.time != "" {
		s := q.time
		if s != quote(rowtime) && !strings.HasSuffix(s, "."+quote(rowtime)) {
			s += " AS " + quote(rowtime)
		}
		items = append(items, s)
	}
	word := "SELECT "
	if q.distinct {
		word = "SELECT DISTINCT "
	}
	list := strings.Join(items, ", ")
	if len(list) > 100 {
		list = strings.Join(items, ",\n  ")
	}
	if q.tail == "" {
		return word + list
	}
	return word + list + "\n" + q.tail
}

// shape brings the items into the order and types of a pump's target.
func (q *query) shape(t *translator, p *pump) {
	if q.branches != nil {
		for _, b := range q.branches {
			b.shape(t, p)
		}
		return
	}
	if len(q.items) != len(p.to) {
		return // the query is broken, and said so
	}
	columns := p.target.columns
	items := make([]item, len(columns))
	for i, c := range columns {
		items[i] = item{name: c.Name, text: "CAST(NULL AS " + typeName(c.Type) + ")", typ: c.Type}
	}
	for i, at := range p.to {
		if at < 0 {
			t.missing(p.tree.Insert, "ROWTIME in INSERT", promotion)
			continue
		}
		items[at].text = t.converted(q.items[i].text, q.items[i].typ, columns[at].Type)
	}
	q.items = items
}

const promotion = "the time of a row is set where its table is declared in Flink: make the expression a computed column of the input's table, and its WATERMARK"

// converted assigns a value to a column of another type.
func (t *translator) converted(text string, from, to sql.Type) string {
	character := func(k sql.Kind) bool { return k == sql.KindChar || k == sql.KindVarchar }
	switch {
	case from.Kind == to.Kind && from.Kind != sql.KindDecimal, character(from.Kind) && character(to.Kind):
		return text
	case from.Kind == sql.KindDecimal && to.Kind == sql.KindDecimal && from.Scale == to.Scale && from.Precision == to.Precision:
		return text
	case integer(to.Kind) && !integer(from.Kind) && from.Kind != sql.KindNull:
		return "CAST(ROUND(" + text + ", 0) AS " + typeName(to) + ")"
	}
	return "CAST(" + text + " AS " + typeName(to) + ")"
}

func integer(k sql.Kind) bool { return k >= sql.KindTinyint && k <= sql.KindBigint }

// query translates a query.
func (t *translator) query(q *sql.Query) *query {
	for _, w := range q.With {
		t.views[w.Name.Name] = &view{tree: &sql.CreateView{Name: sql.Name{Parts: []sql.Ident{w.Name}}, Columns: w.Columns, Query: w.Query}}
		t.names[w.Name.Name] = true
	}
	var out *query
	switch body := q.Body.(type) {
	case *sql.Select:
		out = t.selection(body, q.OrderBy)
	default:
		out = t.queryBody(q.Body)
		if q.OrderBy != nil {
			out = t.ordered(out, q.OrderBy)
		}
	}
	if q.Limit != nil {
		t.missing(q.Limit, "LIMIT", "over a stream it is an updating result in Flink, which a data stream cannot take")
	}
	return out
}

func (t *translator) queryBody(b sql.Body) *query {
	switch b := b.(type) {
	case *sql.Select:
		return t.selection(b, nil)
	case *sql.Query:
		return t.query(b)
	case *sql.SetOperation:
		left, right := t.queryBody(b.Left), t.queryBody(b.Right)
		word := b.Op
		if b.All {
			word += " ALL"
		}
		out := &query{items: slices.Clone(left.items), tail: word, branches: []*query{left, right}, stream: left.stream, time: left.time, ends: left.ends || right.ends}
		if right.time == "" {
			out.time = ""
		}
		return out
	case *sql.Values:
		t.missing(b, "VALUES", "a table of constants in a query over streams is left to you")
	}
	return &query{}
}

// ordered sorts a query that is no SELECT.
func (t *translator) ordered(q *query, orderBy []sql.SortItem) *query {
	r := t.derived(q, "")
	s := &scope{tables: r.tables, time: r.value()}
	out := &query{time: r.attribute, ends: r.ends, stream: r.stream}
	for _, c := range r.tables[0].columns {
		out.items = append(out.items, item{name: c.name, text: c.text, typ: c.typ})
	}
	out.tail = "FROM " + r.from + t.order(orderBy, s, out.items, r.attribute, nil)
	return out
}

// derived makes a query one that can stand in FROM.
func (t *translator) derived(q *query, alias string) *relation {
	if alias == "" {
		alias = "t"
	}
	text := "(\n" + indent(q.text(true)) + "\n) AS " + quote(alias)
	r := &relation{from: text, stream: q.stream, ends: q.ends}
	if q.time != "" {
		r.attribute = quote(alias) + "." + quote(rowtime)
	}
	r.tables = []*table{{alias: alias, columns: t.columnsOf(q, quote(alias)), time: r.value()}}
	return r
}

// columnsOf are the columns of a query under an alias.
func (t *translator) columnsOf(q *query, alias string) []column {
	var columns []column
	for _, it := range q.items {
		c := column{name: it.name, text: alias + "." + quote(it.name), typ: it.typ, hidden: it.hidden}
		if it.fields != nil {
			c.fields = map[string]string{}
			for i, f := range it.fields {
				c.fields[it.typ.Fields[i].Name] = alias + "." + quote(f.name)
			}
		}
		columns = append(columns, c)
	}
	return columns
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

// from translates a table reference.
func (t *translator) from(ref sql.TableRef, s *sql.Select) *relation {
	switch ref := ref.(type) {
	case *sql.NamedTable:
		alias := ref.Name.Last().Name
		if ref.Alias != nil {
			alias = ref.Alias.Name
		}
		r := t.named(ref.Name, alias)
		t.rename(r, ref.Columns)
		return r
	case *sql.QueryTable:
		alias := ""
		if ref.Alias != nil {
			alias = ref.Alias.Name
		}
		r := t.derived(t.query(ref.Query), alias)
		if ref.Alias == nil {
			r.tables[0].alias = ""
		}
		t.rename(r, ref.Columns)
		return r
	case *sql.FunctionTable:
		alias := ""
		if ref.Alias != nil {
			alias = ref.Alias.Name
		}
		r := t.derived(t.tableFunction(ref.Call), alias)
		t.rename(r, ref.Columns)
		return r
	}
	return t.join(ref.(*sql.Join), s)
}

// rename gives columns the names of an alias list.
func (t *translator) rename(r *relation, names []sql.Ident) {
	n := 0
	for i := range r.tables[0].columns {
		if c := &r.tables[0].columns[i]; !c.hidden && n < len(names) {
			c.name = names[n].Name
			n++
		}
	}
}

// named is a stream, a view or a reference table.
func (t *translator) named(n sql.Name, alias string) *relation {
	name := n.Last().Name
	if v := t.views[name]; v != nil && t.streams[name] == nil {
		return t.viewed(name, v, alias)
	}
	r := &relation{from: quote(name)}
	if alias != name {
		r.from += " AS " + quote(alias)
	}
	out := &table{alias: alias}
	r.tables = []*table{out}
	if s := t.streams[name]; s != nil {
		t.stream(s)
		r.stream, r.ends = true, s.ends
		r.attribute = quote(alias) + "." + quote(rowtime)
		out.time, out.missing = r.value(), s.missing
		for _, c := range s.columns {
			out.columns = append(out.columns, column{name: c.Name, text: quote(alias) + "." + quote(c.Name), typ: c.Type, hidden: c.Hidden})
		}
		return r
	}
	if ref := t.references[name]; ref != nil {
		t.reference(ref)
		for _, c := range ref.Format.Columns {
			out.columns = append(out.columns, column{name: c.Name, text: quote(alias) + "." + quote(c.Name), typ: c.Type})
		}
	}
	return r
}

// viewed makes a view of the program a view of Flink's.
func (t *translator) viewed(name string, v *view, alias string) *relation {
	if !v.made {
		v.made = true
		owner := t.owner
		t.owner = name
		q := t.query(v.tree.Query)
		t.owner = owner
		v.out = q
		var names []string
		for i := range q.items {
			if v.tree.Columns != nil && i < len(v.tree.Columns) {
				q.items[i].name = v.tree.Columns[i].Name
			}
			if q.items[i].fields != nil {
				for _, f := range q.items[i].fields {
					names = append(names, f.name)
				}
				continue
			}
			names = append(names, q.items[i].name)
		}
		if q.time == "" {
			fmt.Fprintf(&t.body, "CREATE TEMPORARY VIEW %s AS\n%s;\n\n", quote(name), q.text(false))
		} else {
			t.view(name, names, q.text(true))
		}
	}
	r := &relation{from: quote(name), stream: v.out.stream, ends: v.out.ends}
	if alias != name {
		r.from += " AS " + quote(alias)
	}
	if v.out.time != "" {
		r.attribute = quote(alias) + "." + quote(rowtime)
	}
	r.tables = []*table{{alias: alias, columns: t.columnsOf(v.out, quote(alias)), time: r.value()}}
	return r
}

// stored makes a relation a view of its own, for what takes names of tables only.
// The alias is that of the result.
func (t *translator) stored(r *relation, where string) (name string, out *relation) {
	alias := "t"
	if len(r.tables) == 1 && r.tables[0].alias != "" {
		alias = r.tables[0].alias
	}
	q := &query{time: r.attribute, ends: r.ends, stream: true, tail: "FROM " + r.from + where}
	out = &relation{ends: r.ends, stream: true, attribute: quote(alias) + "." + quote(rowtime)}
	seen := map[string]bool{rowtime: true}
	var names []string
	for _, tb := range r.tables {
		moved := *tb
		moved.columns = slices.Clone(tb.columns)
		if tb.time != "" {
			moved.time = out.value()
			if tb.time != r.value() {
				name := unused(seen, tb.alias+"_ROWTIME")
				q.items = append(q.items, item{name: name, text: tb.time})
				names = append(names, name)
				moved.time = quote(alias) + "." + quote(name)
			}
		}
		for i, c := range moved.columns {
			if c.text == "" {
				continue
			}
			add := func(wanted, text string) string {
				if seen[wanted] {
					wanted = tb.alias + "_" + wanted
				}
				name := unused(seen, wanted)
				q.items = append(q.items, item{name: name, text: text})
				names = append(names, name)
				return quote(alias) + "." + quote(name)
			}
			if tb.missing[c.name] != "" {
				continue
			}
			if c.fields != nil {
				fields := map[string]string{}
				for _, f := range c.typ.Fields {
					fields[f.Name] = add(c.name+"_"+f.Name, c.fields[f.Name])
				}
				moved.columns[i].fields = fields
				continue
			}
			moved.columns[i].text = add(c.name, c.text)
		}
		out.tables = append(out.tables, &moved)
	}
	name = t.name(t.owner + "_ROWS")
	t.view(name, names, q.text(true))
	out.from = quote(name) + " AS " + quote(alias)
	return name, out
}

func unused(seen map[string]bool, wanted string) string {
	name := wanted
	for n := 2; seen[name]; n++ {
		name = fmt.Sprintf("%s_%d", wanted, n)
	}
	seen[name] = true
	return name
}

// simple is the name of a relation that is one table or view by itself.
func simple(ref sql.TableRef) (string, bool) {
	n, ok := ref.(*sql.NamedTable)
	if !ok {
		return "", false
	}
	return n.Name.Last().Name, true
}

// tumbling stands a window function of Flink around a relation.
func (t *translator) tumbling(ref sql.TableRef, r *relation, function string) *relation {
	name, ok := simple(ref)
	out := r
	if !ok {
		name, out = t.stored(r, "")
	}
	alias := "t"
	if len(out.tables) == 1 && out.tables[0].alias != "" {
		alias = out.tables[0].alias
	} else if i := strings.LastIndex(out.from, " AS `"); i >= 0 {
		alias = strings.Trim(out.from[i+4:], "`")
	}
	moved := *out
	moved.from = "TABLE(" + fmt.Sprintf(function, "TABLE "+quote(name)) + ")"
	if len(out.tables) > 1 {
		moved.from += " AS " + quote(alias)
	}
	return &moved
}

// selection translates a SELECT.
func (t *translator) selection(s *sql.Select, orderBy []sql.SortItem) *query {
	r := t.from(s.From, s)
	if s.GroupBy != nil || s.Window != nil || s.Distinct && r.stream || r.stream && aggregates(s) {
		return t.grouped(s, orderBy, r)
	}
	sc := &scope{tables: r.tables, time: r.value()}
	where := t.where(s, sc)
	specs, calls := t.overs(s, r)
	if len(specs) > 1 {
		// Flink computes one window a SELECT.
		_, r = t.stored(r, where)
		where = ""
		sc = &scope{tables: r.tables, time: r.value()}
		specs, calls = t.overs(s, r)
	}
	texts := map[sql.Expr]string{}
	for i, spec := range specs {
		last := i == len(specs)-1
		extra := ""
		n := 0
		for _, call := range calls[spec] {
			text := t.over(sc, call, spec)
			if last {
				texts[call] = text
				continue
			}
			n++
			name := fmt.Sprintf("window_%d_%d", i+1, n)
			extra += ", " + text + " AS " + quote(name)
			texts[call] = quote(name)
		}
		if last {
			break
		}
		name := t.name(t.owner + "_ROWS")
		alias := strings.Trim(r.attribute[:strings.LastIndexByte(r.attribute, '.')], "`")
		fmt.Fprintf(&t.body, "CREATE TEMPORARY VIEW %s AS\nSELECT *%s\nFROM %s;\n\n", quote(name), extra, r.from)
		r.from = quote(name) + " AS " + quote(alias)
	}
	sc.hook = func(e sql.Expr) (string, bool) {
		text, ok := texts[e]
		return text, ok
	}
	out := &query{time: sc.short(r.attribute), ends: r.ends, stream: r.stream, distinct: s.Distinct}
	t.items(s, sc, out)
	out.tail = "FROM " + r.from + where
	if s.Having != nil {
		out.tail += "\nHAVING " + t.expr(sc, s.Having)
	}
	if s.Qualify != nil {
		inner := *out
		inner.items = slices.Clone(out.items)
		inner.items = append(inner.items, item{name: "qualifies", text: t.expr(sc, s.Qualify), hidden: true})
		d := t.derived(&inner, "t")
		out = &query{time: d.attribute, ends: d.ends, stream: d.stream}
		for _, c := range d.tables[0].columns[:len(inner.items)-1] {
			out.items = append(out.items, item{name: c.name, text: c.text, typ: c.typ})
		}
		out.tail = "FROM " + d.from + "\nWHERE `t`.`qualifies`"
		if orderBy != nil {
			out.tail += t.order(orderBy, &scope{tables: d.tables, time: d.value()}, out.items, d.attribute, nil)
		}
		return out
	}
	if orderBy == nil {
		return out
	}
	if !r.stream {
		t.missing(orderBy[0], "ORDER BY", "the order of a reference table is not kept")
		return out
	}
	// Rows that are sorted by a step of time are sorted within windows.
	if w, ok := t.windowOf(orderBy[0].Expr, out, s); ok && w.size > 0 {
		if len(specs) > 0 {
			t.missing(orderBy[0], "ORDER BY", "rows with window functions are sorted by their time attribute alone in Flink; put them into a stream, and sort that")
			return out
		}
		d := t.tumbling(s.From, r, "TUMBLE(%s, DESCRIPTOR(`ROWTIME`), "+w.text()+")")
		sc = &scope{tables: d.tables, time: d.value(), hook: t.keyHook(orderBy[0].Expr, w)}
		again := &query{time: "`window_time`", ends: true, stream: true}
		t.items(s, sc, again)
		again.tail = "FROM " + d.from + t.where(s, sc)
		again.tail += t.order(orderBy, sc, again.items, "`window_time`", func(e sql.Expr) bool { return e == orderBy[0].Expr })
		return again
	}
	out.tail += t.order(orderBy, sc, out.items, sc.short(r.attribute), func(e sql.Expr) bool {
		_, is := t.boundOf(e).(*plan.Rowtime)
		return is
	})
	return out
}

// keyHook puts the start of a window in place of what says which window it is.
func (t *translator) keyHook(key sql.Expr, w window) func(sql.Expr) (string, bool) {
	want := sql.Text(key)
	return func(e sql.Expr) (string, bool) {
		if sql.Text(e) == want {
			return w.key(), true
		}
		return "", false
	}
}

func (t *translator) where(s *sql.Select, sc *scope) string {
	if s.Where == nil {
		return ""
	}
	return "\nWHERE " + t.expr(sc, s.Where)
}

// items translates the select list.
func (t *translator) items(s *sql.Select, sc *scope, out *query) {
	for _, it := range s.Items {
		if it.Star {
			for _, tb := range sc.tables {
				if it.Of != nil && tb.alias != it.Of.Last().Name {
					continue
				}
				for _, c := range tb.columns {
					if c.hidden {
						continue
					}
					text := sc.short(c.text)
					if sc.hook != nil {
						if hooked, ok := sc.hook(&sql.Column{Parts: []sql.Ident{{Name: c.name, Quoted: true}}}); ok {
							text = hooked
						}
					}
					out.items = append(out.items, item{name: c.name, text: text, typ: c.typ})
				}
			}
			continue
		}
		name := fmt.Sprintf("EXPR$%d", len(out.items))
		if col, ok := it.Expr.(*sql.Column); ok {
			name = col.Parts[len(col.Parts)-1].Name
		}
		if it.Alias != nil {
			name = it.Alias.Name
		}
		typ := t.typeOf(it.Expr)
		if name == "ROWTIME" && it.Alias != nil {
			if _, same := t.boundOf(it.Expr).(*plan.Rowtime); !same {
				t.missing(it, "AS ROWTIME", promotion)
			}
			continue
		}
		if typ.Kind == sql.KindRow {
			out.items = append(out.items, item{name: name, typ: typ, fields: t.record(sc, it.Expr, name, typ)})
			continue
		}
		text := t.expr(sc, it.Expr)
		if _, is := t.boundOf(it.Expr).(*plan.Rowtime); is || strings.HasSuffix(text, quote(rowtime)) {
			// As a value: a table has one time attribute.
			text = "CAST(" + text + " AS TIMESTAMP(3))"
		}
		if typ.Kind == sql.KindNull {
			text = "CAST(NULL AS VARCHAR(1))"
		}
		out.items = append(out.items, item{name: name, text: text, typ: typ})
	}
	// Two columns of one name are legal where only their place counts.
	seen := map[string]bool{rowtime: true}
	for i := range out.items {
		out.items[i].name = unused(seen, out.items[i].name)
	}
}

// order translates ORDER BY of a stream. The first key is the time attribute if
// leading says that it stands for it.
func (t *translator) order(orderBy []sql.SortItem, sc *scope, items []item, attribute string, leading func(sql.Expr) bool) string {
	var keys []string
	for i, o := range orderBy {
		key := ""
		e := o.Expr
		if n, ok := e.(*sql.Number); ok {
			at := 0
			fmt.Sscan(n.Text, &at)
			if at >= 1 && at <= len(items) {
				key = items[at-1].text
			}
		}
		if col, ok := e.(*sql.Column); ok && len(col.Parts) == 1 && key == "" {
			for _, it := range items {
				if it.name == col.Parts[0].Name {
					key = it.text
				}
			}
		}
		if key == "" {
			key = t.expr(sc, e)
		}
		if i == 0 {
			if leading != nil && !leading(e) || o.Descending {
				t.missing(o, "ORDER BY", "a stream is sorted by its time attribute first in Flink, or by a step of it within windows")
			}
			key = attribute
		}
		if o.Descending {
			key += " DESC"
		}
		// NULL is the largest value here and the smallest in Flink; a time is never NULL.
		first := o.Descending
		if o.NullsFirst != nil {
			first = *o.NullsFirst
		}
		if i > 0 || o.NullsFirst != nil {
			key += map[bool]string{true: " NULLS FIRST", false: " NULLS LAST"}[first]
		}
		keys = append(keys, key)
	}
	return "\nORDER BY " + strings.Join(keys, ", ")
}

// overs finds the window functions of a SELECT by their windows, in order.
func (t *translator) overs(s *sql.Select, r *relation) (specs []string, calls map[string][]*sql.Call) {
	calls = map[string][]*sql.Call{}
	sc := &scope{tables: r.tables, time: r.value()}
	find := func(e sql.Expr) {
		walk(e, func(e sql.Expr) bool {
			call, ok := e.(*sql.Call)
			if !ok || call.Over == nil {
				return true
			}
			spec := t.overText(sc, call, s, r)
			if calls[spec] == nil {
				specs = append(specs, spec)
			}
			calls[spec] = append(calls[spec], call)
			return false
		})
	}
	for _, it := range s.Items {
		find(it.Expr)
	}
	find(s.Qualify)
	return specs, calls
}

// overText is what stands in OVER.
func (t *translator) overText(sc *scope, call *sql.Call, s *sql.Select, r *relation) string {
	spec := resolve(call.Over, s)
	var parts []string
	if spec.PartitionBy != nil {
		list := make([]string, len(spec.PartitionBy))
		for i, e := range spec.PartitionBy {
			list[i] = t.expr(sc, e)
		}
		parts = append(parts, "PARTITION BY "+strings.Join(list, ", "))
	}
	parts = append(parts, "ORDER BY "+sc.short(r.attribute))
	f := spec.Frame
	if call.Name.Name == "LAG" {
		t.differs(call, "LAG", "it looks back in the whole partition in Flink, however old the row is; the frame is not looked at")
		return strings.Join(parts, " ")
	}
	if f == nil {
		return strings.Join(parts, " ")
	}
	unit := "RANGE"
	if f.Rows {
		unit = "ROWS"
	} else {
		t.differs(call, "OVER … RANGE", "rows of the same time see each other in Flink, whichever came first")
	}
	if f.Start.Kind == sql.CurrentRow {
		return t.missing(call, "OVER with CURRENT ROW alone", "Flink has no window of one instant; a function of one row is an expression")
	}
	start := ""
	switch f.Start.Kind {
	case sql.Preceding:
		start = t.expr(sc, f.Start.Offset) + " PRECEDING"
	case sql.UnboundedPreceding:
		start = "UNBOUNDED PRECEDING"
	}
	return strings.Join(append(parts, unit+" BETWEEN "+start+" AND CURRENT ROW"), " ")
}

// resolve follows names into the WINDOW clause.
func resolve(spec *sql.WindowSpec, s *sql.Select) *sql.WindowSpec {
	for range len(s.Windows) + 1 {
		if spec.Name == nil {
			return spec
		}
		at := slices.IndexFunc(s.Windows, func(d sql.WindowDef) bool { return d.Name.Name == spec.Name.Name })
		if at < 0 {
			return spec
		}
		merged := *s.Windows[at].Spec
		if spec.PartitionBy != nil {
			merged.PartitionBy = spec.PartitionBy
		}
		if spec.Frame != nil {
			merged.Frame = spec.Frame
		}
		spec = &merged
	}
	return spec
}

// join translates a join.
func (t *translator) join(j *sql.Join, s *sql.Select) *relation {
	left, right := t.from(j.Left, s), t.from(j.Right, s)
	out := &relation{tables: append(slices.Clone(left.tables), right.tables...), stream: left.stream || right.stream}
	on := t.using(j, left, right)
	sc := &scope{tables: out.tables, time: left.value()}
	if j.On != nil {
		text := t.expr(sc, j.On)
		if op, ok := j.On.(*sql.Operation); ok && op.Op == "OR" {
			text = "(" + text + ")"
		}
		on = append(on, text)
	}
	word := map[sql.JoinKind]string{sql.InnerJoin: "JOIN", sql.CrossJoin: "JOIN", sql.LeftJoin: "LEFT JOIN", sql.RightJoin: "RIGHT JOIN", sql.FullJoin: "FULL JOIN"}[j.Kind]
	switch {
	case left.stream && right.stream:
		bounds, ok := t.interval(j, left, right, s)
		if !ok {
			break
		}
		on = append(on, bounds)
		out.attribute, out.ends = left.attribute, left.ends
		if j.Kind == sql.RightJoin {
			out.attribute, out.ends = right.attribute, right.ends
		}
		if j.Kind == sql.FullJoin {
			t.differs(j, "FULL JOIN", "rows that only the right side has are without a time in Flink")
		}
		t.differs(j, "the time of joined rows", "it is the time of one side's row in Flink; in the dialect it is the later of the two, and what has no match carries the end of its window")
		if l, r := left.value(), right.value(); j.Kind == sql.InnerJoin || j.Kind == sql.CrossJoin || j.Kind == sql.LeftJoin {
			out.later = "CASE WHEN " + r + " > " + l + " THEN " + r + " ELSE " + l + " END"
		} else {
			out.later = "CASE WHEN " + l + " > " + r + " THEN " + l + " ELSE COALESCE(" + r + ", " + l + ") END"
		}
		out.from = left.from + "\n" + word + " " + right.from + "\n  ON " + strings.Join(on, " AND ")
		return out
	case left.stream || right.stream:
		t.lookup(j, left, right, on, word, out)
		return out
	}
	if len(on) == 0 {
		word, on = "CROSS JOIN", nil
	}
	out.from = left.from + "\n" + word + " " + right.from
	if len(on) > 0 {
		out.from += "\n  ON " + strings.Join(on, " AND ")
	}
	return out
}

// using are the conditions of USING and NATURAL; it hides one of each pair.
func (t *translator) using(j *sql.Join, left, right *relation) []string {
	var names []string
	for _, id := range j.Using {
		names = append(names, id.Name)
	}
	each := func(r *relation, f func(*column)) {
		for _, tb := range r.tables {
			for i := range tb.columns {
				if !tb.columns[i].hidden {
					f(&tb.columns[i])
				}
			}
		}
	}
	if j.Natural {
		each(left, func(l *column) {
			each(right, func(r *column) {
				if l.name == r.name {
					names = append(names, l.name)
				}
			})
		})
	}
	var on []string
	for _, name := range names {
		var l, r *column
		each(left, func(c *column) {
			if c.name == name {
				l = c
			}
		})
		each(right, func(c *column) {
			if c.name == name {
				r = c
			}
		})
		if l == nil || r == nil {
			continue
		}
		on = append(on, l.text+" = "+r.text)
		hide := r
		if j.Kind == sql.RightJoin {
			hide = l
		}
		hide.hidden, hide.merged = true, true
	}
	return on
}

// interval is the condition on the times of two streams' rows.
func (t *translator) interval(j *sql.Join, left, right *relation, s *sql.Select) (string, bool) {
	size := func(ref sql.TableRef) (string, bool) {
		var over *sql.WindowSpec
		switch ref := ref.(type) {
		case *sql.NamedTable:
			over = ref.Over
		case *sql.QueryTable:
			over = ref.Over
		case *sql.FunctionTable:
			over = ref.Over
		}
		if over == nil {
			return "", true
		}
		f := resolve(over, s).Frame
		if f == nil || f.Start.Kind != sql.Preceding && f.Start.Kind != sql.CurrentRow {
			return "", true
		}
		if f.Rows {
			t.missing(ref, "a join window of rows", "Flink joins streams within intervals of time")
			return "", false
		}
		if f.Start.Kind == sql.CurrentRow {
			return "", true
		}
		return t.expr(&scope{}, f.Start.Offset), true
	}
	if _, nested := j.Left.(*sql.Join); nested && len(left.tables) > 1 {
		l, _ := j.Left.(*sql.Join)
		if t.streaming(l) {
			t.missing(j, "a join of three streams", "the joined rows' time is the later of two here, which is no time attribute in Flink; join two into a stream, and that with the third")
			return "", false
		}
	}
	lw, ok1 := size(j.Left)
	rw, ok2 := size(j.Right)
	if !ok1 || !ok2 {
		return "", false
	}
	low, high := left.attribute, left.attribute
	if rw != "" {
		low += " - " + rw
	}
	if lw != "" {
		high += " + " + lw
	}
	return right.attribute + " BETWEEN " + low + " AND " + high, true
}

// streaming tells whether both sides of a join are streams.
func (t *translator) streaming(j *sql.Join) bool {
	stream := func(ref sql.TableRef) bool {
		n, ok := ref.(*sql.NamedTable)
		return !ok || t.references[n.Name.Last().Name] == nil
	}
	return stream(j.Left) && stream(j.Right)
}

// lookup joins a stream with a reference table.
func (t *translator) lookup(j *sql.Join, left, right *relation, on []string, word string, out *relation) {
	stream, ref, table := left, j.Right, right
	if !left.stream {
		stream, ref, table = right, j.Left, left
		if j.Kind == sql.RightJoin {
			word = "LEFT JOIN"
		}
	}
	out.attribute, out.ends = stream.attribute, stream.ends
	n, plain := ref.(*sql.NamedTable)
	if !plain || t.references[n.Name.Last().Name] == nil {
		t.missing(j, "a join with a query over reference tables", "a lookup is into a table; make the query's result one")
		return
	}
	if len(on) == 0 || !strings.Contains(strings.Join(on, " "), " = ") {
		t.missing(j, "a join with a reference table without an equality", "a lookup in Flink asks for a key")
		return
	}
	alias := strings.Trim(stream.attribute[:strings.LastIndexByte(stream.attribute, '.')], "`")
	source := stream.from
	if len(stream.tables) > 1 {
		t.missing(j, "a lookup behind another join", "put the first join into a stream of its own")
		return
	}
	if strings.HasPrefix(source, "(") {
		source = "(\n  SELECT *, PROCTIME() AS `PROCESSED` FROM " + source + "\n) AS " + quote(alias)
	} else {
		source = "(SELECT *, PROCTIME() AS `PROCESSED` FROM " + source + ") AS " + quote(alias)
	}
	lookedUp := quote(n.Name.Last().Name) + " FOR SYSTEM_TIME AS OF " + quote(alias) + ".`PROCESSED` AS " + quote(table.tables[0].alias)
	out.from = source + "\n" + word + " " + lookedUp + "\n  ON " + strings.Join(on, " AND ")
}
