package flink

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// window is a tumbling window that a grouping key stands for.
type window struct {
	size, offset int64 // milliseconds
	ceil         bool  // the key's value is the end of the window
	moved        bool  // the key's value is neither end
}

func (w window) text() string {
	if w.offset != 0 {
		return interval(w.size) + ", " + interval(w.offset)
	}
	return interval(w.size)
}

// key is the value of the key within its window.
func (w window) key() string {
	if w.ceil {
		return "`window_end`"
	}
	return "`window_start`"
}

// interval writes milliseconds as an interval with the largest unit that they are
// a multiple of.
func interval(ms int64) string {
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	for _, u := range []struct {
		name string
		ms   int64
	}{{"DAY", sql.MillisPerDay}, {"HOUR", sql.MillisPerHour}, {"MINUTE", sql.MillisPerMinute}, {"SECOND", sql.MillisPerSecond}} {
		if ms%u.ms == 0 {
			n := ms / u.ms
			precision := ""
			if n > 99 {
				precision = fmt.Sprintf("(%d)", len(strconv.FormatInt(n, 10)))
			}
			return fmt.Sprintf("INTERVAL %s'%d' %s%s", sign, n, u.name, precision)
		}
	}
	return fmt.Sprintf("INTERVAL %s'%d.%03d' SECOND(%d, 3)", sign, ms/1000, ms%1000, max(2, len(strconv.FormatInt(ms/1000, 10))))
}

var units = map[sql.Unit]int64{sql.Day: sql.MillisPerDay, sql.Hour: sql.MillisPerHour, sql.Minute: sql.MillisPerMinute, sql.Second: sql.MillisPerSecond}

// overTime is an expression as a function of ROWTIME alone.
func overTime(e plan.Expr) (plan.Expr, bool) {
	only, found := true, false
	out := plan.Replace(e, func(part plan.Expr) plan.Expr {
		switch part := part.(type) {
		case *plan.Column:
			if part.Of == nil {
				only = false
				return part
			}
			found = true
			return part.Of
		case *plan.Rowtime:
			found = true
		}
		return nil
	})
	return out, only && found
}

// windowAt reads the window that a function of ROWTIME steps through.
func windowAt(e plan.Expr) (w window, ok bool) {
	call, is := e.(*plan.Call)
	if !is {
		return w, false
	}
	constant := func(i int) (int64, bool) {
		c, ok := call.Args[i].(*plan.Const)
		if !ok || c.Value.Null || plan.ClassOf(c.T) != plan.ClassInt || c.T.Kind == sql.KindInterval && c.T.Interval.YearMonth() {
			return 0, false
		}
		return c.Value.I, true
	}
	switch call.Func {
	case "floor_to", "ceil_to":
		size, fixed := units[call.Unit]
		if !fixed {
			return w, false
		}
		w.size, w.ceil = size, call.Func == "ceil_to"
		if offset, ok := shift(call.Args[0]); ok {
			w.offset = floorMod(offset, size)
			w.moved = w.offset != 0
			return w, true
		}
		// FLOOR((ROWTIME - TIMESTAMP '1970-01-01 00:00:00') SECOND / 10 TO SECOND)
		n := int64(1)
		inner, is := call.Args[0].(*plan.Call)
		if is && inner.Func == "/" {
			c, ok := inner.Args[1].(*plan.Const)
			if !ok || plan.ClassOf(c.T) != plan.ClassInt || c.Value.I <= 0 {
				return w, false
			}
			n = c.Value.I
			inner, is = inner.Args[0].(*plan.Call)
		}
		if !is || inner.Func != "difference" {
			return w, false
		}
		offset, ok1 := shift(inner.Args[0])
		from, ok2 := inner.Args[1].(*plan.Const)
		if !ok1 || !ok2 {
			return w, false
		}
		w.size *= n
		w.offset, w.moved = floorMod(offset+from.Value.I, w.size), true
		return w, true
	case "step":
		size, ok1 := constant(1)
		offset, ok2 := shift(call.Args[0])
		if !ok1 || !ok2 || call.T.Kind != sql.KindTimestamp {
			return w, false
		}
		w.size, w.offset = size, floorMod(offset, size)
		w.moved = w.offset != 0
		return w, true
	case "monotonic":
		return windowAt(call.Args[0])
	case "+", "-":
		w, ok = windowAt(call.Args[0])
		w.moved = true
		_, isConst := constant(1)
		return w, ok && isConst
	}
	return w, false
}

// shift reads ROWTIME ± a constant; the result is by how much windows are moved.
func shift(e plan.Expr) (int64, bool) {
	switch e := e.(type) {
	case *plan.Rowtime:
		return 0, true
	case *plan.Call:
		if e.Func != "+" && e.Func != "-" {
			return 0, false
		}
		at, ok := shift(e.Args[0])
		c, isConst := e.Args[1].(*plan.Const)
		if !ok || !isConst || c.T.Kind != sql.KindInterval || c.T.Interval.YearMonth() {
			return 0, false
		}
		if e.Func == "+" {
			return at - c.Value.I, true
		}
		return at + c.Value.I, true
	}
	return 0, false
}

func floorMod(a, b int64) int64 { return (a%b + b) % b }

// windowOf is the window of the first key of ORDER BY. The key may be an alias or
// the number of an item.
func (t *translator) windowOf(e sql.Expr, q *query, s *sql.Select) (window, bool) {
	x := t.boundOf(e)
	at := -1
	if n, ok := e.(*sql.Number); ok {
		if _, err := fmt.Sscan(n.Text, &at); err == nil {
			at--
		}
	}
	if col, ok := e.(*sql.Column); ok && len(col.Parts) == 1 {
		for i, it := range s.Items {
			if it.Alias != nil && it.Alias.Name == col.Parts[0].Name {
				at = i
			}
		}
	}
	if at >= 0 && at < len(s.Items) && s.Items[at].Expr != nil {
		x = t.boundOf(s.Items[at].Expr)
	}
	of, ok := overTime(x)
	if !ok {
		return window{}, false
	}
	return windowAt(of)
}

// grouped translates a SELECT with GROUP BY, WINDOWED BY or DISTINCT.
func (t *translator) grouped(s *sql.Select, orderBy []sql.SortItem, r *relation) *query {
	if !r.stream {
		return t.groupedTable(s, r)
	}
	keys := s.GroupBy
	if s.Window != nil {
		keys = s.Window.PartitionBy
		if !s.Window.Session {
			t.missing(s.Window, "WINDOWED BY STAGGER", "Flink has no window that opens with the first row of a key and closes at a fixed age; a session window closes after a gap instead, and a process function of the DataStream API can do the same")
			return &query{stream: true, time: r.attribute}
		}
	}
	if s.Distinct {
		keys = nil
		for _, it := range s.Items {
			if _, is := t.boundOf(it.Expr).(*plan.Rowtime); !is && it.Expr != nil {
				keys = append(keys, it.Expr)
			}
		}
		t.differs(s, "SELECT DISTINCT", "a value comes out at the end of its window in Flink, and not at its first row")
	}
	// Which key is the window?
	at := -1
	var w window
	for i, e := range keys {
		of, ok := overTime(t.boundOf(e))
		if !ok || s.Window != nil {
			continue
		}
		if w, ok = windowAt(of); !ok {
			t.missing(e, "the key "+sql.Text(e), "a window of Flink has a fixed length; months, years and other functions of ROWTIME have none")
			return &query{stream: true, time: r.attribute}
		}
		at = i
		break
	}
	if at < 0 && s.Window == nil {
		t.missing(keys[0], "GROUP BY", "none of the keys is a step of ROWTIME: Flink cannot close a group because a value of the data has changed. Declare that column as the time attribute of the input's table")
		return &query{stream: true, time: r.attribute}
	}
	if w.ceil {
		t.differs(keys[at], "CEIL of ROWTIME", "a row at exactly the boundary belongs to the next window in Flink")
	}
	if r.ends {
		// The last instant of a window is a millisecond before the dialect's.
		if s.Window == nil {
			w.offset = floorMod(w.offset-1, w.size)
			if w.offset == w.size-1 {
				w.offset = 0
				t.differs(keys[at], "a window over the results of windows", "the results of a window belong to the same longer window as their rows in Flink; in the dialect they carry the end of their window, which may be the begin of the next longer one")
			}
		}
	}
	function := "TUMBLE(%s, DESCRIPTOR(`ROWTIME`), " + w.text() + ")"
	if s.Window != nil {
		if _, ok := simple(s.From); !ok {
			t.missing(s.Window, "WINDOWED BY SESSION", "put what it reads into a stream or a view")
			return &query{stream: true, time: r.attribute}
		}
		sc := &scope{tables: r.tables, time: r.value()}
		var columns []string
		for _, e := range keys {
			col, isColumn := e.(*sql.Column)
			if !isColumn {
				t.missing(e, "WINDOWED BY SESSION", "the key of a session is a column in Flink; compute it in a stream before")
				return &query{stream: true, time: r.attribute}
			}
			text := t.expr(sc, col)
			columns = append(columns, text[strings.LastIndex(text, ".")+1:])
		}
		length, _ := t.boundOf(s.Window.Length).(*plan.Const)
		gap := int64(1000)
		if length != nil {
			gap = length.Value.I
		}
		function = "SESSION(%s PARTITION BY (" + strings.Join(columns, ", ") + "), DESCRIPTOR(`ROWTIME`), " + interval(gap) + ")"
	}
	d := t.tumbling(s.From, r, function)
	sc := &scope{tables: d.tables, time: d.value()}
	where := t.where(s, sc)
	texts := make([]string, len(keys))
	canonical := make([]string, len(keys))
	for i, e := range keys {
		canonical[i] = sql.Text(e)
		if i == at {
			texts[i] = w.key()
			if w.moved {
				inner := *sc
				inner.time = "`window_start`"
				inner.tables = retimed(sc.tables, "`window_start`")
				texts[i] = t.expr(&inner, e)
			}
			continue
		}
		texts[i] = t.expr(sc, e)
	}
	sc.sessions = s.Window != nil
	output := &scope{tables: d.tables, time: "`window_end`"}
	output.hook = func(e sql.Expr) (string, bool) {
		if call, ok := e.(*sql.Call); ok && isAggregate(call) {
			return t.call(sc, call), true // over the rows, where ROWTIME is theirs
		}
		have := sql.Text(e)
		for i, c := range canonical {
			if have == c || sameKey(t.boundOf(e), t.boundOf(keys[i])) {
				return texts[i], true
			}
		}
		// The window's key as a column of a query below.
		return "", false
	}
	q := &query{time: "`window_time`", ends: true, stream: true}
	t.items(s, output, q)
	list := []string{"`window_start`", "`window_end`", "`window_time`"}
	seen := map[string]bool{}
	for i, text := range texts {
		if e, constant := t.boundOf(keys[i]).(*plan.Const); i == at || constant && e != nil || seen[text] {
			continue
		}
		seen[text] = true
		list = append(list, text)
	}
	q.tail = "FROM " + d.from + where + "\nGROUP BY " + strings.Join(list, ", ")
	if s.Having != nil {
		q.tail += "\nHAVING " + t.expr(output, s.Having)
	}
	if orderBy != nil {
		q.tail += t.order(orderBy, output, q.items, "`window_time`", func(e sql.Expr) bool {
			_, ok := overTime(t.boundOf(e))
			if col, is := e.(*sql.Column); is && !ok && len(col.Parts) == 1 {
				ok = true // an alias of the key, as the planner has checked
			}
			return ok
		})
	}
	return q
}

// sameKey reports whether two expressions are the same of the same input.
func sameKey(a, b plan.Expr) bool {
	if a == nil || b == nil {
		return false
	}
	if _, constant := a.(*plan.Const); constant {
		return false
	}
	// Behind a group, columns count anew; a bare column can be another one.
	if _, column := a.(*plan.Column); column {
		return false
	}
	return plan.Key(a) == plan.Key(b) && !strings.Contains(plan.Key(a), "#")
}

// retimed are tables whose ROWTIME is another text.
func retimed(tables []*table, time string) []*table {
	out := make([]*table, len(tables))
	for i, tb := range tables {
		moved := *tb
		if moved.time != "" {
			moved.time = time
		}
		out[i] = &moved
	}
	return out
}

// groupedTable groups the rows of reference tables, which are all there.
func (t *translator) groupedTable(s *sql.Select, r *relation) *query {
	sc := &scope{tables: r.tables}
	q := &query{}
	t.items(s, sc, q)
	q.tail = "FROM " + r.from + t.where(s, sc)
	if s.GroupBy != nil {
		keys := make([]string, len(s.GroupBy))
		for i, e := range s.GroupBy {
			keys[i] = t.expr(sc, e)
		}
		q.tail += "\nGROUP BY " + strings.Join(keys, ", ")
	}
	if s.Having != nil {
		q.tail += "\nHAVING " + t.expr(sc, s.Having)
	}
	return q
}

// tableFunction translates TABLE(f(CURSOR(…), …)).
func (t *translator) tableFunction(call *sql.Call) *query {
	name := call.Name.Name
	failed := &query{stream: true, time: quote(rowtime)}
	switch name {
	case "RANDOM_CUT_FOREST", "RANDOM_CUT_FOREST_WITH_EXPLANATION", "HOTSPOTS":
		why := map[string]string{
			"HOTSPOTS": "Flink has no function that finds dense regions; a table function over a library of clustering can",
		}[name]
		if why == "" {
			why = "Flink has no such function; a table function in Java over the library software.amazon.randomcutforest computes the same scores"
		}
		t.missing(call, name, "%s", why)
		return failed
	case "GROUP_RANK":
		t.missing(call, name, "Flink ranks rows of a window with ROW_NUMBER, which gives equal rows different numbers; for the best n of a window, see its Window Top-N")
		return failed
	}
	cursor := call.Args[0].(*sql.Cursor)
	q := t.query(cursor.Query)
	r := t.derived(q, "t")
	stored, _ := t.stored(r, "")
	literal := func(i int) string {
		if s, ok := call.Args[i].(*sql.String); ok {
			return s.Value
		}
		return ""
	}
	number := func(i int) int64 {
		c, _ := t.boundOf(call.Args[i]).(*plan.Const)
		if c == nil {
			return 0
		}
		return c.Value.I
	}
	item1 := literal(1)
	seconds := number(len(call.Args) - 1)
	source := "TABLE(TUMBLE(TABLE " + quote(stored) + ", DESCRIPTOR(`ROWTIME`), " + interval(seconds*1000) + "))"
	var typ sql.Type
	for _, it := range q.items {
		if it.name == item1 {
			typ = it.typ
		}
	}
	bigint := sql.Type{Kind: sql.KindBigint}
	if name == "COUNT_DISTINCT_ITEMS_TUMBLING" {
		return &query{stream: true, ends: true, time: "`window_time`",
			items: []item{{name: "NUMBER_OF_DISTINCT_ITEMS", text: "COUNT(DISTINCT " + quote(item1) + ")", typ: bigint}},
			tail:  "FROM " + source + "\nGROUP BY `window_start`, `window_end`, `window_time`"}
	}
	counts := "SELECT `window_start`, `window_end`, `window_time`, " + quote(item1) + ", COUNT(*) AS `MOST_FREQUENT_VALUES`\nFROM " + source +
		"\nGROUP BY `window_start`, `window_end`, `window_time`, " + quote(item1)
	ranked := "SELECT *, ROW_NUMBER() OVER (PARTITION BY `window_start`, `window_end` ORDER BY `MOST_FREQUENT_VALUES` DESC) AS `place`\nFROM (\n" + indent(counts) + "\n)"
	return &query{stream: true, ends: true, time: "`window_time`",
		items: []item{{name: item1, text: quote(item1), typ: typ}, {name: "MOST_FREQUENT_VALUES", text: "`MOST_FREQUENT_VALUES`", typ: bigint}},
		tail:  "FROM (\n" + indent(ranked) + "\n)\nWHERE `place` <= " + strconv.FormatInt(number(2), 10)}
}
