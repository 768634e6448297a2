package flink

import (
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// boundOf is what an expression means; nil if the planner did not look at it.
func (t *translator) boundOf(e sql.Expr) plan.Expr {
	if e == nil {
		return nil
	}
	return t.bound[placeOf(e)]
}

func (t *translator) typeOf(e sql.Expr) sql.Type {
	if x := t.boundOf(e); x != nil {
		return x.Type()
	}
	return sql.Type{}
}

// level is how tightly an expression binds in Flink SQL.
type level int

const (
	disjunction level = iota
	conjunction
	negation
	predicate
	sum
	product
	sign
	primary
)

// expr translates an expression.
func (t *translator) expr(s *scope, e sql.Expr) string {
	out, _ := t.leveled(s, e)
	return out
}

// operand is an expression that binds at least so tightly, in parentheses if it
// needs them.
func (t *translator) operand(s *scope, e sql.Expr, least level) string {
	out, have := t.leveled(s, e)
	if have < least {
		return "(" + out + ")"
	}
	return out
}

func (t *translator) leveled(s *scope, e sql.Expr) (string, level) {
	if s.hook != nil {
		if out, ok := s.hook(e); ok {
			if strings.HasPrefix(out, "`") || strings.HasSuffix(out, ")") && !strings.HasPrefix(out, "(") && !strings.Contains(out, " = ") {
				return out, primary
			}
			return out, disjunction
		}
	}
	not := func(yes bool) string {
		if yes {
			return "NOT "
		}
		return ""
	}
	switch e := e.(type) {
	case *sql.Number:
		return e.Text, primary
	case *sql.String:
		return text(e.Value), primary
	case *sql.Binary:
		return fmt.Sprintf("X'%X'", e.Value), primary
	case *sql.Boolean:
		return strings.ToUpper(fmt.Sprint(e.Value)), primary
	case *sql.Null:
		if e.Boolean {
			return "CAST(NULL AS BOOLEAN)", primary
		}
		return "NULL", primary
	case *sql.Datetime:
		return e.Kind.String() + " " + text(e.Text), primary
	case *sql.Interval:
		return sql.Text(e), primary
	case *sql.Column:
		return t.column(s, e), primary
	case *sql.Unary:
		if e.Op == "NOT" {
			return "NOT " + t.operand(s, e.Operand, predicate), negation
		}
		return e.Op + t.operand(s, e.Operand, primary), sign
	case *sql.Operation:
		return t.operation(s, e)
	case *sql.Difference:
		return t.missing(e, "a difference as an interval", "Flink has no values of intervals; cast the difference to a number where it is taken, which becomes TIMESTAMPDIFF"), primary
	case *sql.Is:
		return t.operand(s, e.Operand, sum) + " IS " + not(e.Not) + e.What, predicate
	case *sql.IsDistinct:
		return t.operand(s, e.Left, sum) + " IS " + not(e.Not) + "DISTINCT FROM " + t.operand(s, e.Right, sum), predicate
	case *sql.Between:
		symmetric := ""
		if e.Symmetric {
			symmetric = "SYMMETRIC "
		}
		return t.operand(s, e.Operand, sum) + " " + not(e.Not) + "BETWEEN " + symmetric + t.operand(s, e.Low, sum) + " AND " + t.operand(s, e.High, sum), predicate
	case *sql.Like:
		word := "LIKE"
		if e.Similar {
			word = "SIMILAR TO"
		}
		out := t.operand(s, e.Operand, sum) + " " + not(e.Not) + word + " " + t.operand(s, e.Pattern, sum)
		if e.Escape != nil {
			out += " ESCAPE " + t.operand(s, e.Escape, sum)
		}
		return out, predicate
	case *sql.In:
		list := make([]string, len(e.List))
		for i, x := range e.List {
			list[i] = t.expr(s, x)
		}
		return t.operand(s, e.Operand, sum) + " " + not(e.Not) + "IN (" + strings.Join(list, ", ") + ")", predicate
	case *sql.Period:
		return t.period(s, e), disjunction
	case *sql.Case:
		return t.cases(s, e), primary
	case *sql.Cast:
		return t.cast(s, e), primary
	case *sql.FloorTo:
		word := "FLOOR"
		if e.Ceil {
			word = "CEIL"
		}
		if t.typeOf(e.Operand).Kind == sql.KindInterval {
			return t.missing(e, word+" of an interval", "Flink rounds dates and times only"), primary
		}
		return word + "(" + t.expr(s, e.Operand) + " TO " + e.Unit.String() + ")", primary
	case *sql.Step:
		return t.step(s, e), primary
	case *sql.Extract:
		if e.Unit == sql.Second {
			t.differs(e, "EXTRACT(SECOND …)", "it is a whole number in Flink")
		}
		return "EXTRACT(" + e.Unit.String() + " FROM " + t.expr(s, e.Operand) + ")", primary
	case *sql.Substring:
		if k := t.typeOf(e.From).Kind; k == sql.KindChar || k == sql.KindVarchar {
			return "REGEXP_EXTRACT(" + t.expr(s, e.Operand) + ", " + t.expr(s, e.From) + ", 0)", primary
		}
		out := "SUBSTRING(" + t.expr(s, e.Operand) + " FROM " + t.expr(s, e.From)
		if e.For != nil {
			out += " FOR " + t.expr(s, e.For)
		}
		return out + ")", primary
	case *sql.SubstringSimilar:
		return t.missing(e, "SUBSTRING … SIMILAR", "write it with REGEXP_EXTRACT and a regular expression"), primary
	case *sql.Overlay:
		out := "OVERLAY(" + t.expr(s, e.Operand) + " PLACING " + t.expr(s, e.Placing) + " FROM " + t.expr(s, e.From)
		if e.For != nil {
			out += " FOR " + t.expr(s, e.For)
		}
		return out + ")", primary
	case *sql.Position:
		return "POSITION(" + t.operand(s, e.Needle, sum) + " IN " + t.operand(s, e.Operand, sum) + ")", primary
	case *sql.Trim:
		chars := "' '"
		if e.Chars != nil {
			chars = t.expr(s, e.Chars)
		}
		return "TRIM(" + e.Side + " " + chars + " FROM " + t.expr(s, e.Operand) + ")", primary
	case *sql.Call:
		out := t.call(s, e)
		if strings.HasPrefix(out, "(") || !strings.HasSuffix(out, ")") && strings.Contains(out, " ") {
			return out, disjunction
		}
		return out, primary
	case *sql.Row:
		list := make([]string, len(e.Items))
		for i, x := range e.Items {
			list[i] = t.expr(s, x)
		}
		return "ROW(" + strings.Join(list, ", ") + ")", primary
	}
	return t.missing(e, strings.TrimPrefix(fmt.Sprintf("%T", e), "*sql."), "it has no counterpart"), primary
}

var infix = map[string]level{"OR": disjunction, "AND": conjunction, "=": predicate, "<>": predicate, "<": predicate, "<=": predicate, ">": predicate, ">=": predicate,
	"+": sum, "-": sum, "||": sum, "*": product, "/": product}

func (t *translator) operation(s *scope, e *sql.Operation) (string, level) {
	at := infix[e.Op]
	l, r := t.typeOf(e.Left), t.typeOf(e.Right)
	if (e.Op == "*" || e.Op == "/") && (l.Kind == sql.KindInterval || r.Kind == sql.KindInterval) {
		return t.scaled(e)
	}
	if e.Op == "/" || e.Op == "*" || e.Op == "+" || e.Op == "-" {
		if c, ok := t.boundOf(e.Right).(*plan.Const); e.Op == "/" && (!ok || c.Value.I == 0 && c.Value.F == 0) {
			t.differs(e, "division", "a division by zero fails the job in Flink, or is Infinity; here its row goes to error_stream")
		}
		return t.operand(s, e.Left, at) + " " + e.Op + " " + t.operand(s, e.Right, at+1), at
	}
	if at == predicate {
		return t.operand(s, e.Left, sum) + " " + e.Op + " " + t.operand(s, e.Right, sum), at
	}
	return t.operand(s, e.Left, at) + " " + e.Op + " " + t.operand(s, e.Right, at), at
}

// scaled multiplies an interval by a number that is not known beforehand.
func (t *translator) scaled(e *sql.Operation) (string, level) {
	if c, ok := t.boundOf(e).(*plan.Const); ok && !c.T.Interval.YearMonth() {
		return interval(c.Value.I), primary
	}
	l, r := t.boundOf(e.Left), t.boundOf(e.Right)
	lc, lok := l.(*plan.Const)
	rc, rok := r.(*plan.Const)
	if lok && rok && e.Op == "*" && plan.ClassOf(lc.T) == plan.ClassInt && plan.ClassOf(rc.T) == plan.ClassInt {
		return interval(lc.Value.I * rc.Value.I), primary
	}
	if lok && lc.T.Kind == sql.KindInterval && rok && e.Op == "/" && plan.ClassOf(rc.T) == plan.ClassInt && rc.Value.I > 0 {
		return interval(lc.Value.I / rc.Value.I), primary
	}
	return t.missing(e, "an interval times a number", "intervals are constants in Flink; use TIMESTAMPADD with the number"), primary
}

// column translates a name.
func (t *translator) column(s *scope, e *sql.Column) string {
	first := e.Parts[0]
	if s.params != nil && len(e.Parts) == 1 {
		if out, ok := s.params[first.Name]; ok {
			return out
		}
	}
	for skip := 0; skip < len(e.Parts)-1 && skip < 3; skip++ {
		for _, tb := range s.tables {
			if tb.alias == "" || tb.alias != e.Parts[skip].Name {
				continue
			}
			name := e.Parts[skip+1].Name
			if name == "ROWTIME" && tb.time != "" {
				return s.short(tb.time)
			}
			for i := range tb.columns {
				if c := &tb.columns[i]; c.name == name {
					return s.short(t.member(tb, c, e, skip+2))
				}
			}
		}
	}
	for _, tb := range s.tables {
		for i := range tb.columns {
			if c := &tb.columns[i]; c.name == first.Name && !c.merged {
				return s.short(t.member(tb, c, e, 1))
			}
		}
	}
	switch first.Name {
	case "ROWTIME":
		return s.short(s.time)
	case "CURRENT_ROW_TIMESTAMP":
		return "CAST(CURRENT_ROW_TIMESTAMP() AS TIMESTAMP(3))"
	}
	if t.broken {
		return "NULL" // of a query that is not translated, which is noted
	}
	return t.missing(e, sql.Text(e), "it has no counterpart")
}

func (t *translator) member(tb *table, c *column, e *sql.Column, from int) string {
	if why := tb.missing[c.name]; why != "" {
		return t.missing(e, sql.Text(e), "%s", why)
	}
	if c.typ.Kind != sql.KindRow {
		return c.text
	}
	if from >= len(e.Parts) {
		return t.missing(e, sql.Text(e), "a whole row is no value in Flink; take its members")
	}
	return c.fields[e.Parts[from].Name]
}

// period compares two periods.
func (t *translator) period(s *scope, e *sql.Period) string {
	pair := func(x sql.Expr) (string, string) {
		if row, ok := x.(*sql.Row); ok && len(row.Items) == 2 {
			return t.operand(s, row.Items[0], sum), t.operand(s, row.Items[1], sum)
		}
		return "NULL", "NULL"
	}
	a, z := pair(e.Left)
	c, d := pair(e.Right)
	form, ok := map[string]string{
		"CONTAINS": "%a <= %c AND %d <= %z", "STRICTLY CONTAINS": "%a < %c AND %d < %z",
		"OVERLAPS": "%a < %d AND %c < %z", "STRICTLY OVERLAPS": "%a < %c AND %c < %z AND %z < %d",
		"EQUALS": "%a = %c AND %z = %d", "PRECEDES": "%z <= %c", "STRICTLY PRECEDES": "%z < %c", "SUCCEEDS": "%d <= %a", "STRICTLY SUCCEEDS": "%d < %a",
		"IMMEDIATELY PRECEDES": "%z = %c", "IMMEDIATELY SUCCEEDS": "%d = %a",
		"LEADS": "%a <= %c AND %z <= %d AND %c <= %z", "STRICTLY LEADS": "%a < %c AND %z < %d AND %c < %z", "IMMEDIATELY LEADS": "%z = %d AND %a <= %c",
		"LAGS": "%c <= %a AND %d <= %z AND %a <= %d", "STRICTLY LAGS": "%c < %a AND %d < %z AND %a < %d", "IMMEDIATELY LAGS": "%a = %c AND %d <= %z",
	}[e.Op]
	if !ok {
		return t.missing(e, e.Op, "it has no counterpart")
	}
	return strings.NewReplacer("%a", a, "%z", z, "%c", c, "%d", d).Replace(form)
}

func (t *translator) cases(s *scope, e *sql.Case) string {
	var b strings.Builder
	b.WriteString("CASE")
	if e.Operand != nil {
		b.WriteString(" " + t.expr(s, e.Operand))
	}
	for _, w := range e.Whens {
		b.WriteString(" WHEN " + t.expr(s, w.Condition) + " THEN " + t.typed(s, w.Result, t.typeOf(e)))
	}
	if e.Else != nil {
		b.WriteString(" ELSE " + t.typed(s, e.Else, t.typeOf(e)))
	}
	return b.String() + " END"
}

// typed gives a bare NULL the type of its place.
func (t *translator) typed(s *scope, e sql.Expr, typ sql.Type) string {
	if n, ok := e.(*sql.Null); ok && !n.Boolean && typ.Kind != sql.KindNull {
		return "CAST(NULL AS " + typeName(typ) + ")"
	}
	return t.expr(s, e)
}

// cast translates CAST and TRY_CAST.
func (t *translator) cast(s *scope, e *sql.Cast) string {
	to := e.To.Type
	from := t.typeOf(e.Operand)
	character := from.Kind == sql.KindChar || from.Kind == sql.KindVarchar
	if d, ok := e.Operand.(*sql.Difference); ok && (integer(to.Kind) || to.Kind == sql.KindDecimal) && d.Qualifier.Start == d.Qualifier.End {
		return "CAST(TIMESTAMPDIFF(" + d.Qualifier.Start.String() + ", " + t.expr(s, d.Right) + ", " + t.expr(s, d.Left) + ") AS " + typeName(to) + ")"
	}
	if from.Kind == sql.KindInterval || to.Kind == sql.KindInterval {
		return t.missing(e, "CAST from or to an interval", "Flink has no values of intervals; TIMESTAMPDIFF gives a difference as a number")
	}
	x := t.expr(s, e.Operand)
	switch {
	case e.Try:
		return "TRY_CAST(" + x + " AS " + typeName(to) + ")"
	case character && to.Kind != sql.KindChar && to.Kind != sql.KindVarchar:
		t.differs(e, "CAST of a text", "a text that does not fit is NULL in Flink, by TRY_CAST, where its row goes to error_stream here")
		return "TRY_CAST(" + x + " AS " + typeName(to) + ")"
	case integer(to.Kind) && (from.Kind == sql.KindDecimal || from.Kind == sql.KindDouble || from.Kind == sql.KindReal):
		return "CAST(ROUND(" + x + ", 0) AS " + typeName(to) + ")"
	case from.Kind == sql.KindTimestamp && (to.Kind == sql.KindChar || to.Kind == sql.KindVarchar):
		t.differs(e, "CAST of a TIMESTAMP to text", "milliseconds are left out")
		return "DATE_FORMAT(" + x + ", 'yyyy-MM-dd HH:mm:ss')"
	}
	return "CAST(" + x + " AS " + typeName(to) + ")"
}

const epoch = "TIMESTAMP '1970-01-01 00:00:00'"

// step translates STEP that is not a window.
func (t *translator) step(s *scope, e *sql.Step) string {
	x := t.operand(s, e.Operand, primary)
	by, _ := t.boundOf(e.By).(*plan.Const)
	if by == nil {
		return t.missing(e, "STEP", "it has no counterpart")
	}
	typ := t.typeOf(e.Operand)
	if integer(typ.Kind) {
		n := by.Value.I
		return fmt.Sprintf("(%s - MOD(MOD(%s, %d) + %d, %d))", x, x, n, n, n)
	}
	ms := by.Value.I
	if typ.Kind != sql.KindTimestamp || by.T.Interval.YearMonth() || ms%1000 != 0 {
		return t.missing(e, "STEP", "only steps of whole seconds to days of a TIMESTAMP can be computed in Flink")
	}
	for unit, size := range units {
		if ms == size {
			return "FLOOR(" + x + " TO " + unit.String() + ")"
		}
	}
	return fmt.Sprintf("TIMESTAMPADD(SECOND, TIMESTAMPDIFF(SECOND, %s, %s) / %d * %d, %s)", epoch, x, ms/1000, ms/1000, epoch)
}

// walk visits an expression; visit says whether to go on below.
func walk(e sql.Expr, visit func(sql.Expr) bool) {
	if e == nil || !visit(e) {
		return
	}
	for _, x := range children(e) {
		if x != nil {
			walk(x, visit)
		}
	}
}

// children are the parts of an expression.
func children(e sql.Expr) []sql.Expr {
	switch e := e.(type) {
	case *sql.Unary:
		return []sql.Expr{e.Operand}
	case *sql.Operation:
		return []sql.Expr{e.Left, e.Right}
	case *sql.Difference:
		return []sql.Expr{e.Left, e.Right}
	case *sql.Is:
		return []sql.Expr{e.Operand}
	case *sql.IsDistinct:
		return []sql.Expr{e.Left, e.Right}
	case *sql.Between:
		return []sql.Expr{e.Operand, e.Low, e.High}
	case *sql.Like:
		return []sql.Expr{e.Operand, e.Pattern, e.Escape}
	case *sql.In:
		return append([]sql.Expr{e.Operand}, e.List...)
	case *sql.Period:
		return []sql.Expr{e.Left, e.Right}
	case *sql.Row:
		return e.Items
	case *sql.Case:
		list := []sql.Expr{e.Operand, e.Else}
		for _, w := range e.Whens {
			list = append(list, w.Condition, w.Result)
		}
		return list
	case *sql.Cast:
		return []sql.Expr{e.Operand}
	case *sql.FloorTo:
		return []sql.Expr{e.Operand}
	case *sql.Step:
		return []sql.Expr{e.Operand, e.By}
	case *sql.Extract:
		return []sql.Expr{e.Operand}
	case *sql.Substring:
		return []sql.Expr{e.Operand, e.From, e.For}
	case *sql.SubstringSimilar:
		return []sql.Expr{e.Operand, e.Pattern, e.Escape}
	case *sql.Overlay:
		return []sql.Expr{e.Operand, e.Placing, e.From, e.For}
	case *sql.Position:
		return []sql.Expr{e.Needle, e.Operand}
	case *sql.Trim:
		return []sql.Expr{e.Chars, e.Operand}
	case *sql.Call:
		return e.Args
	}
	return nil
}
