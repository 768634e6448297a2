package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/analytics/text"
)

// scope is what names in an expression can stand for.
type scope struct {
	entries []entry
}

// entry is one table of FROM.
type entry struct {
	alias   string
	columns []ColumnInfo
	offset  int  // of the first column in the operator's output
	rowtime Expr // nil for tables
}

// binder turns expressions of the syntax tree into bound ones.
type binder struct {
	c     *compiler
	scope scope
	// hook is asked first about every part of an expression.
	hook func(e sql.Expr) (Expr, bool)
	// rowtime is what ROWTIME without a qualifier is; nil if nothing.
	rowtime Expr
	// params are those of a function's body.
	params map[string]Expr
	where  string // names the clause in messages
}

func (b *binder) fail(at sql.Node, hint, format string, args ...any) {
	b.c.fail(at.Place(), hint, format, args...)
}

// expr binds an expression.
func (b *binder) expr(e sql.Expr) Expr {
	x := b.bind(e)
	if b.c.weigh(x) > maxWeight {
		b.fail(e, "name parts of it in a query in FROM", "the expression is too large: with the functions it calls it has more than %d parts", maxWeight)
	}
	if b.c.options.Bound != nil {
		b.c.options.Bound(e, x)
	}
	return x
}

func (b *binder) bind(e sql.Expr) Expr {
	if b.hook != nil {
		if x, ok := b.hook(e); ok {
			return x
		}
	}
	switch e := e.(type) {
	case *sql.Number:
		return b.number(e)
	case *sql.String:
		return &Const{Value{S: e.Value}, sql.Type{Kind: sql.KindChar, Length: max(len([]rune(e.Value)), 1)}}
	case *sql.Binary:
		return &Const{Value{S: string(e.Value)}, sql.Type{Kind: sql.KindBinary, Length: max(len(e.Value), 1)}}
	case *sql.Boolean:
		v := Value{}
		if e.Value {
			v.I = 1
		}
		return &Const{v, booleanType}
	case *sql.Null:
		if e.Boolean {
			return &Const{Value{Null: true}, booleanType}
		}
		return &Const{Value{Null: true}, sql.Type{Kind: sql.KindNull}}
	case *sql.Datetime:
		return &Const{Value{I: e.Millis}, sql.Type{Kind: e.Kind}}
	case *sql.Interval:
		return &Const{Value{I: e.Value}, sql.Type{Kind: sql.KindInterval, Interval: e.Qualifier}}
	case *sql.Column:
		return b.column(e)
	case *sql.Unary:
		return b.unary(e)
	case *sql.Operation:
		return b.operation(e)
	case *sql.Difference:
		return b.difference(e)
	case *sql.Is:
		x := b.expr(e.Operand)
		if e.What != "NULL" {
			x = b.boolean(x, e.Operand)
		}
		what := "is_" + strings.ToLower(e.What)
		if e.What == "UNKNOWN" {
			what = "is_null"
		}
		return negate(e.Not, &Call{Func: what, Args: []Expr{x}, T: booleanType})
	case *sql.IsDistinct:
		l, r := b.comparable(e, e.Left, e.Right)
		return negate(e.Not, &Call{Func: "is_distinct", Args: []Expr{l, r}, T: booleanType})
	case *sql.Between:
		return b.between(e)
	case *sql.Like:
		return b.like(e)
	case *sql.In:
		return b.in(e)
	case *sql.Period:
		return b.period(e)
	case *sql.Case:
		return b.caseExpr(e)
	case *sql.Cast:
		if e.Try {
			b.extension(e, "TRY_CAST")
		}
		x := b.expr(e.Operand)
		if !castable(x.Type(), e.To.Type) {
			b.fail(e, conversion(x.Type(), e.To.Type), "a %s cannot be cast to %s", x.Type(), e.To.Type)
		}
		if x.Type().Kind == sql.KindNull {
			return &Const{Value{Null: true}, e.To.Type}
		}
		return &Cast{Arg: x, T: e.To.Type, Try: e.Try}
	case *sql.FloorTo:
		x := typedNull(b.expr(e.Operand), timestampType)
		return b.floorTo(e, x)
	case *sql.Step:
		return b.step(e)
	case *sql.Extract:
		x := typedNull(b.expr(e.Operand), timestampType)
		k := x.Type().Kind
		if !isDatetime(k) && k != sql.KindInterval {
			b.fail(e.Operand, "", "EXTRACT takes a date, a time or an interval, not %s", x.Type())
		}
		t := bigintType
		if e.Unit == sql.Second {
			t = sql.Type{Kind: sql.KindDecimal, Precision: 5, Scale: 3}
		}
		return &Call{Func: "extract", Args: []Expr{x}, T: t, Unit: e.Unit}
	case *sql.Substring:
		return b.substring(e)
	case *sql.SubstringSimilar:
		x := b.character(e.Operand)
		return &Call{Func: "substring_similar", Args: []Expr{x, b.character(e.Pattern), b.character(e.Escape)}, T: varchar(x.Type().Length)}
	case *sql.Overlay:
		x, r := b.character(e.Operand), b.character(e.Placing)
		args := []Expr{x, r, b.integer(e.From)}
		if e.For != nil {
			args = append(args, b.integer(e.For))
		}
		return &Call{Func: "overlay", Args: args, T: varchar(x.Type().Length + r.Type().Length)}
	case *sql.Position:
		return &Call{Func: "position", Args: []Expr{b.character(e.Needle), b.character(e.Operand)}, T: integerType}
	case *sql.Trim:
		x := b.character(e.Operand)
		var chars Expr = &Const{Value{S: " "}, sql.Type{Kind: sql.KindChar, Length: 1}}
		if e.Chars != nil {
			chars = b.character(e.Chars)
		}
		return &Call{Func: "trim_" + strings.ToLower(e.Side), Args: []Expr{x, chars}, T: varchar(x.Type().Length)}
	case *sql.Call:
		return b.call(e)
	case *sql.Row:
		b.fail(e, "", "a list in parentheses stands beside =, <> and IN, or in a period predicate")
	case *sql.Cursor:
		b.fail(e, "", "CURSOR is an argument of a table function, in TABLE(…)")
	case *sql.Exists:
		return b.exists(e)
	case *sql.Subquery:
		return b.scalar(e)
	}
	panic(fmt.Sprintf("plan: %T is not bound", e))
}

func (b *binder) number(n *sql.Number) Expr {
	v := Value{}
	switch n.Type.Kind {
	case sql.KindDouble:
		v.F, _ = strconv.ParseFloat(n.Text, 64)
	default:
		v.I, _ = strconv.ParseInt(strings.Replace(n.Text, ".", "", 1), 10, 64)
	}
	return &Const{v, n.Type}
}

func negate(not bool, e Expr) Expr {
	if !not {
		return e
	}
	return &Call{Func: "not", Args: []Expr{e}, T: booleanType}
}

// column finds what a name stands for.
func (b *binder) column(e *sql.Column) Expr {
	first := e.Parts[0]
	if b.params != nil && len(e.Parts) == 1 {
		if p, ok := b.params[first.Name]; ok {
			return p
		}
	}
	// The longest qualifier wins: table.column.member before column.member.
	if len(e.Parts) > 1 {
		if x := b.qualified(e); x != nil {
			return x
		}
	}
	var found Expr
	n := 0
	for _, t := range b.scope.entries {
		before := n
		for i, c := range t.columns {
			// A column of the records stands before one of the service's with its name.
			if c.Name == first.Name && !c.merged && !(c.Hidden && n > before) {
				found = &Column{t.offset + i, c.Type, c.Name, c.Of, c.Order}
				n++
			}
		}
	}
	if n == 0 && (b.rowtime == nil || first.Name != "ROWTIME" || len(e.Parts) > 1) && b.c.outer.knows(e) {
		return b.c.outer.column(e)
	}
	if n == 0 && first.Name == "ROWTIME" && !first.Quoted || n == 0 && first.Name == "ROWTIME" && len(e.Parts) == 1 {
		if b.rowtime == nil {
			b.fail(e, "", "ROWTIME has no meaning %s", b.where)
		}
		return b.rowtime
	}
	if n == 0 && first.Name == "CURRENT_ROW_TIMESTAMP" && !first.Quoted && len(e.Parts) == 1 {
		// Not a reserved word, and yet called without parentheses.
		return functions[first.Name].bind(b, nil)
	}
	switch {
	case n == 1:
		return b.members(e, found, 1)
	case n > 1:
		b.fail(e, "qualify it with the table's name or alias", "%s is in more than one table", sql.Quote(first.Name))
	}
	b.unknownColumn(e, first)
	return nil
}

// qualified resolves table.column; nil if the first part is no table.
func (b *binder) qualified(e *sql.Column) Expr {
	for skip := 0; skip < len(e.Parts)-1 && skip < 3; skip++ {
		for _, t := range b.scope.entries {
			if t.alias == "" || t.alias != e.Parts[skip].Name {
				continue
			}
			name := e.Parts[skip+1]
			// A column that is merely called ROWTIME stands behind the system's.
			if name.Name == "ROWTIME" && t.rowtime != nil {
				return t.rowtime
			}
			for i, c := range t.columns {
				if c.Name == name.Name {
					return b.members(e, &Column{t.offset + i, c.Type, c.Name, c.Of, c.Order}, skip+2)
				}
			}
			b.unknownColumn(e, name, t)
		}
	}
	return nil
}

// members follows the parts of a name behind a column into its row.
func (b *binder) members(e *sql.Column, x Expr, from int) Expr {
	for _, part := range e.Parts[from:] {
		if x.Type().Kind != sql.KindRow {
			b.fail(e, "", "%s has no members: it is a %s", sql.Text(e), x.Type())
		}
		at := -1
		for i, f := range x.Type().Fields {
			if f.Name == part.Name {
				at = i
			}
		}
		if at < 0 {
			names := make([]string, len(x.Type().Fields))
			for i, f := range x.Type().Fields {
				names[i] = f.Name
			}
			b.fail(e, didYouMean(part.Name, names), "there is no member %s in %s", sql.Quote(part.Name), x.Type())
		}
		x = &Field{x, at, x.Type().Fields[at].Type}
	}
	return x
}

func (b *binder) unknownColumn(e *sql.Column, name sql.Ident, in ...entry) {
	unqualified := in == nil
	if unqualified {
		in = b.scope.entries
	}
	var names, shown []string
	for _, t := range in {
		if unqualified && len(e.Parts) > 1 && t.alias != "" {
			names = append(names, t.alias)
		}
		for _, c := range t.columns {
			names = append(names, c.Name)
			if !c.Hidden {
				shown = append(shown, c.Name)
			}
		}
	}
	hint := ""
	for _, n := range names {
		if strings.EqualFold(n, name.Name) {
			hint = "the name is case-sensitive; write " + sql.Quote(n)
		}
	}
	if near := didYouMean(name.Name, names); hint == "" && near != "" {
		hint = near
	} else if hint == "" && name.Quoted && len(e.Parts) == 1 {
		hint = "a text stands in ', a name in \""
		if list := allOf(shown); list != "" {
			hint = list + "; " + hint
		}
	} else if hint == "" {
		hint = allOf(shown)
	}
	if unqualified && len(e.Parts) > 1 {
		b.fail(e, hint, "there is no table or column %s here", sql.Quote(name.Name))
	}
	b.fail(e, hint, "there is no column %s", sql.Quote(name.Name))
}

// allOf lists what there is, if that is short.
func allOf(names []string) string {
	if len(names) == 0 || len(names) > 12 {
		return ""
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = sql.Quote(n)
	}
	if len(names) == 1 {
		return "there is " + quoted[0]
	}
	return "there are " + strings.Join(quoted[:len(names)-1], ", ") + " and " + quoted[len(names)-1]
}

func nearOrAll(name string, names []string) string {
	if near := didYouMean(name, names); near != "" {
		return near
	}
	return allOf(names)
}

// conversion says how one type is brought to another; empty if there is no way.
func conversion(from, to sql.Type) string {
	switch {
	case from.Kind == sql.KindRow:
		return "name one of its members"
	case castable(from, to):
		return "convert it with CAST"
	case from.Kind == sql.KindTimestamp && isNumeric(to.Kind):
		return "convert it with UNIX_TIMESTAMP"
	case isInteger(from.Kind) && to.Kind == sql.KindTimestamp:
		return "convert it with TO_TIMESTAMP, which takes milliseconds"
	case isNumeric(from.Kind) && to.Kind == sql.KindBoolean:
		return "write a comparison, such as <> 0"
	case from.Kind == sql.KindBoolean && isNumeric(to.Kind):
		return "write CASE WHEN … THEN 1 ELSE 0 END"
	case isNumeric(from.Kind) && to.Kind == sql.KindInterval:
		return "multiply it with INTERVAL '1' SECOND"
	}
	return ""
}

func didYouMean(name string, names []string) string {
	if near := sql.Nearest(name, names); near != "" {
		return "did you mean " + sql.Quote(near) + "?"
	}
	return ""
}

func (b *binder) unary(e *sql.Unary) Expr {
	if e.Op == "NOT" {
		return &Call{Func: "not", Args: []Expr{b.boolean(b.expr(e.Operand), e.Operand)}, T: booleanType}
	}
	x := b.expr(e.Operand)
	t := x.Type()
	if !isNumeric(t.Kind) && t.Kind != sql.KindInterval && t.Kind != sql.KindNull {
		b.fail(e, "", "%s has no sign", t)
	}
	if e.Op == "+" {
		return x
	}
	if c, ok := x.(*Const); ok && !c.Value.Null {
		return &Const{Value{I: -c.Value.I, F: -c.Value.F}, t}
	}
	return &Call{Func: "neg", Args: []Expr{x}, T: t}
}

func (b *binder) operation(e *sql.Operation) Expr {
	switch e.Op {
	case "AND", "OR":
		l, r := b.boolean(b.expr(e.Left), e.Left), b.boolean(b.expr(e.Right), e.Right)
		return &Call{Func: strings.ToLower(e.Op), Args: []Expr{l, r}, T: booleanType}
	case "=", "<>", "<", "<=", ">", ">=":
		_, left := e.Left.(*sql.Row)
		_, right := e.Right.(*sql.Row)
		if left && right && (e.Op == "=" || e.Op == "<>") {
			return negate(e.Op == "<>", b.equal(e, b.operands(e.Left), b.operands(e.Right)))
		}
		l, r := b.comparable(e, e.Left, e.Right)
		return &Call{Func: e.Op, Args: []Expr{l, r}, T: booleanType}
	case "||":
		l, r := b.expr(e.Left), b.expr(e.Right)
		lt, rt := l.Type(), r.Type()
		switch {
		case isBinary(lt.Kind) && isBinary(rt.Kind):
			if lt.Kind == sql.KindBinary || rt.Kind == sql.KindBinary {
				b.fail(e, "", "|| does not join values of type BINARY")
			}
			return &Call{Func: "||", Args: []Expr{l, r}, T: sql.Type{Kind: sql.KindVarbinary, Length: min(lt.Length+rt.Length, sql.MaxLength)}}
		case textual(lt) && textual(rt):
			return &Call{Func: "||", Args: []Expr{l, r}, T: varchar(lt.Length + rt.Length)}
		}
		b.fail(e, "convert with CAST", "|| joins texts, not %s and %s", lt, rt)
	}
	return b.arithmetic(e, b.expr(e.Left), b.expr(e.Right))
}

func textual(t sql.Type) bool { return isCharacter(t.Kind) || t.Kind == sql.KindNull }

func (b *binder) arithmetic(e *sql.Operation, l, r Expr) Expr {
	lt, rt := l.Type(), r.Type()
	if null := other(e.Op, lt, rt); null.Kind != sql.KindNull {
		l, r = typedNull(l, null), typedNull(r, null)
		lt, rt = l.Type(), r.Type()
	}
	if lt.Kind == sql.KindNull && rt.Kind != sql.KindNull {
		l, lt = &Const{Value{Null: true}, rt}, rt
	}
	if rt.Kind == sql.KindNull {
		if lt.Kind == sql.KindNull {
			l, lt = &Const{Value{Null: true}, integerType}, integerType
		}
		r, rt = &Const{Value{Null: true}, lt}, lt
	}
	switch {
	case isNumeric(lt.Kind) && isNumeric(rt.Kind):
		t := arithmeticType(e.Op, lt, rt)
		if t.Kind != sql.KindDecimal {
			return &Call{Func: e.Op, Args: []Expr{convert(l, t, false), convert(r, t, false)}, T: t}
		}
		return &Call{Func: e.Op, Args: []Expr{l, r}, T: t} // scales differ; run minds them
	case isDatetime(lt.Kind) && rt.Kind == sql.KindInterval && (e.Op == "+" || e.Op == "-"):
		if lt.Kind == sql.KindTime && rt.Interval.YearMonth() {
			b.fail(e, "", "a TIME has no months")
		}
		return &Call{Func: e.Op, Args: []Expr{l, r}, T: lt}
	case lt.Kind == sql.KindInterval && isDatetime(rt.Kind) && e.Op == "+":
		return &Call{Func: "+", Args: []Expr{r, l}, T: rt}
	case lt.Kind == sql.KindInterval && rt.Kind == sql.KindInterval && (e.Op == "+" || e.Op == "-"):
		if t, ok := common(lt, rt); ok {
			return &Call{Func: e.Op, Args: []Expr{l, r}, T: t}
		}
	case lt.Kind == sql.KindInterval && isNumeric(rt.Kind) && (e.Op == "*" || e.Op == "/"):
		return &Call{Func: e.Op, Args: []Expr{l, numberForInterval(r)}, T: lt}
	case isNumeric(lt.Kind) && rt.Kind == sql.KindInterval && e.Op == "*":
		return &Call{Func: "*", Args: []Expr{r, numberForInterval(l)}, T: rt}
	case isDatetime(lt.Kind) && isDatetime(rt.Kind) && e.Op == "-":
		b.fail(e, "write ("+sql.Text(e.Left)+" - "+sql.Text(e.Right)+") SECOND or with another unit", "the difference of two %s values needs a unit", lt.Kind)
	}
	hint := ""
	switch {
	case isCharacter(lt.Kind) || isCharacter(rt.Kind):
		hint = "convert the text with CAST"
	case isDatetime(lt.Kind) && isNumeric(rt.Kind):
		hint = "write an interval, such as INTERVAL '5' SECOND"
	}
	b.fail(e, hint, "%s cannot stand between %s and %s", e.Op, lt, rt)
	return nil
}

// other is the type that a bare NULL has beside a time or an interval; NULL where
// it is that of the other side.
func other(op string, l, r sql.Type) sql.Type {
	beside := l
	switch {
	case l.Kind == sql.KindNull:
		beside = r
	case r.Kind != sql.KindNull:
		return sql.Type{}
	}
	switch {
	case isDatetime(beside.Kind) && (op == "+" || op == "-" && r.Kind == sql.KindNull):
		return millisecond
	case beside.Kind == sql.KindInterval && (op == "*" || op == "/"):
		return integerType
	}
	return sql.Type{}
}

// numberForInterval brings a factor to BIGINT or DOUBLE.
func numberForInterval(e Expr) Expr {
	if isInteger(e.Type().Kind) {
		return convert(e, bigintType, false)
	}
	return convert(e, doubleType, false)
}

func (b *binder) difference(e *sql.Difference) Expr {
	l, r := b.expr(e.Left), b.expr(e.Right)
	t := sql.Type{Kind: sql.KindInterval, Interval: e.Qualifier}
	lt, rt := l.Type(), r.Type()
	switch {
	case isDatetime(lt.Kind) && lt.Kind == rt.Kind:
		return &Call{Func: "difference", Args: []Expr{l, r}, T: t}
	case lt.Kind == sql.KindNull || rt.Kind == sql.KindNull:
		return &Const{Value{Null: true}, t}
	case isDatetime(lt.Kind) && rt.Kind == sql.KindInterval:
		b.fail(e, "leave the unit out", "subtracting an interval gives a %s, which has no unit", lt)
	}
	b.fail(e, "convert one with CAST", "a difference needs two values of the same datetime type, not %s and %s", lt, rt)
	return nil
}

// comparable binds two operands and brings them to one type.
func (b *binder) comparable(at sql.Node, left, right sql.Expr) (Expr, Expr) {
	return b.same(at, b.expr(left), b.expr(right))
}

func (b *binder) same(at sql.Node, l, r Expr) (Expr, Expr) {
	lt, rt := l.Type(), r.Type()
	if lt.Kind == sql.KindNull && rt.Kind == sql.KindNull {
		return &Const{Value{Null: true}, integerType}, &Const{Value{Null: true}, integerType}
	}
	t, ok := common(lt, rt)
	if !ok {
		hint := conversion(lt, rt)
		if hint == "" {
			hint = conversion(rt, lt)
		}
		for i, t := range []sql.Type{lt, rt} {
			if other := []sql.Type{rt, lt}[i]; isDatetime(t.Kind) && isCharacter(other.Kind) {
				hint = fmt.Sprintf("write %s '…', or convert the text with CAST or CHAR_TO_%[1]s", t.Kind)
			}
		}
		hint = strings.Replace(hint, "convert it", "convert one", 1)
		b.fail(at, hint, "%s and %s cannot be compared", lt, rt)
	}
	if isCharacter(t.Kind) || t.Kind == sql.KindInterval || isBinary(t.Kind) {
		return typedNull(l, t), typedNull(r, t) // compared as they are
	}
	if t.Kind == sql.KindDecimal && lt.Kind != sql.KindNull && rt.Kind != sql.KindNull {
		// A comparison cannot fail, so where one type does not hold both, decimals
		// are compared as they are too.
		x, y := decimalOf(lt), decimalOf(rt)
		if lt.Kind == sql.KindBigint || rt.Kind == sql.KindBigint || max(x.Precision-x.Scale, y.Precision-y.Scale)+t.Scale > t.Precision {
			return l, r
		}
	}
	return convert(l, t, false), convert(r, t, false)
}

func typedNull(e Expr, t sql.Type) Expr {
	if e.Type().Kind == sql.KindNull {
		return &Const{Value{Null: true}, t}
	}
	return e
}

func (b *binder) boolean(x Expr, at sql.Node) Expr {
	switch x.Type().Kind {
	case sql.KindBoolean:
		return x
	case sql.KindNull:
		return &Const{Value{Null: true}, booleanType}
	}
	b.fail(at, conversion(x.Type(), booleanType), "a condition is needed here, not a %s", x.Type())
	return nil
}

func (b *binder) character(e sql.Expr) Expr {
	x := b.expr(e)
	switch {
	case isCharacter(x.Type().Kind):
		return x
	case x.Type().Kind == sql.KindNull:
		return &Const{Value{Null: true}, varchar(1)}
	}
	b.fail(e, "convert it with CAST", "a text is needed here, not a %s", x.Type())
	return nil
}

func (b *binder) integer(e sql.Expr) Expr {
	x := b.expr(e)
	switch {
	case isInteger(x.Type().Kind):
		return convert(x, bigintType, false)
	case x.Type().Kind == sql.KindNull:
		return &Const{Value{Null: true}, bigintType}
	case x.Type().Kind == sql.KindDecimal && x.Type().Scale == 0:
		return convert(x, bigintType, false)
	}
	b.fail(e, "convert it with CAST", "an integer is needed here, not a %s", x.Type())
	return nil
}

func (b *binder) between(e *sql.Between) Expr {
	x, low, high := b.expr(e.Operand), b.expr(e.Low), b.expr(e.High)
	in := func(low, high Expr) Expr {
		x1, l := b.same(e, x, low)
		x2, h := b.same(e, x, high)
		return &Call{Func: "and", T: booleanType, Args: []Expr{
			&Call{Func: ">=", Args: []Expr{x1, l}, T: booleanType},
			&Call{Func: "<=", Args: []Expr{x2, h}, T: booleanType},
		}}
	}
	r := in(low, high)
	if e.Symmetric {
		r = &Call{Func: "or", Args: []Expr{r, in(high, low)}, T: booleanType}
	}
	return negate(e.Not, r)
}

func (b *binder) like(e *sql.Like) Expr {
	args := []Expr{b.character(e.Operand), b.character(e.Pattern)}
	if e.Escape != nil {
		args = append(args, b.character(e.Escape))
		if c, ok := args[2].(*Const); ok && !c.Value.Null && len([]rune(c.Value.S)) != 1 {
			b.fail(e.Escape, "", "ESCAPE takes one character")
		}
	}
	f := "like"
	if e.Similar {
		f = "similar"
	}
	if c, ok := args[1].(*Const); ok && !c.Value.Null {
		escape := ""
		if len(args) == 3 {
			if ec, ok := args[2].(*Const); ok {
				escape = ec.Value.S
			}
		}
		if len(args) == 2 || escape != "" {
			if err := text.CheckPattern(c.Value.S, escape, e.Similar); err != nil {
				b.fail(e.Pattern, "", "%v", err)
			}
		}
	}
	return negate(e.Not, &Call{Func: f, Args: args, T: booleanType})
}

func (b *binder) in(e *sql.In) Expr {
	if e.Query != nil {
		return b.inQuery(e)
	}
	x := b.operands(e.Operand)
	var r Expr
	for _, item := range e.List {
		eq := b.equal(item, x, b.operands(item))
		if r == nil {
			r = eq
		} else {
			r = &Call{Func: "or", Args: []Expr{r, eq}, T: booleanType}
		}
	}
	return negate(e.Not, r)
}

// equal compares the members of two lists.
func (b *binder) equal(at sql.Node, left, right []Expr) Expr {
	if len(left) != len(right) {
		b.fail(at, "", "%s cannot be compared with %s", counted(len(left), "value"), counted(len(right), "value"))
	}
	var all Expr
	for i := range left {
		l, r := b.same(at, left[i], right[i])
		var eq Expr = &Call{Func: "=", Args: []Expr{l, r}, T: booleanType}
		if all != nil {
			eq = &Call{Func: "and", Args: []Expr{all, eq}, T: booleanType}
		}
		all = eq
	}
	return all
}

// period predicates compare (start, end) pairs; the end is exclusive.
func (b *binder) period(e *sql.Period) Expr {
	pair := func(side sql.Expr) [2]Expr {
		row, ok := side.(*sql.Row)
		if !ok || len(row.Items) != 2 {
			b.fail(side, "", "a period is written (start, end)")
		}
		s, end := b.comparable(row, row.Items[0], row.Items[1])
		if !isDatetime(s.Type().Kind) {
			b.fail(side, "", "a period has dates or times as its ends, not %s", s.Type())
		}
		return [2]Expr{s, end}
	}
	x, y := pair(e.Left), pair(e.Right)
	rel := func(op string, l, r Expr) Expr {
		l, r = b.same(e, l, r)
		return &Call{Func: op, Args: []Expr{l, r}, T: booleanType}
	}
	and := func(list ...Expr) Expr {
		r := list[0]
		for _, c := range list[1:] {
			r = &Call{Func: "and", Args: []Expr{r, c}, T: booleanType}
		}
		return r
	}
	a, z, c, d := x[0], x[1], y[0], y[1]
	switch e.Op {
	case "CONTAINS":
		return and(rel("<=", a, c), rel("<=", d, z))
	case "STRICTLY CONTAINS":
		return and(rel("<", a, c), rel("<", d, z))
	case "OVERLAPS":
		return and(rel("<", a, d), rel("<", c, z))
	case "STRICTLY OVERLAPS":
		return and(rel("<", a, c), rel("<", c, z), rel("<", z, d))
	case "EQUALS":
		return and(rel("=", a, c), rel("=", z, d))
	case "PRECEDES":
		return rel("<=", z, c)
	case "STRICTLY PRECEDES":
		return rel("<", z, c)
	case "SUCCEEDS":
		return rel("<=", d, a)
	case "STRICTLY SUCCEEDS":
		return rel("<", d, a)
	case "IMMEDIATELY PRECEDES":
		return rel("=", z, c)
	case "IMMEDIATELY SUCCEEDS":
		return rel("=", d, a)
	case "LEADS":
		return and(rel("<=", a, c), rel("<=", z, d), rel("<=", c, z))
	case "STRICTLY LEADS":
		return and(rel("<", a, c), rel("<", z, d), rel("<", c, z))
	case "IMMEDIATELY LEADS":
		return and(rel("=", z, d), rel("<=", a, c))
	case "LAGS":
		return and(rel("<=", c, a), rel("<=", d, z), rel("<=", a, d))
	case "STRICTLY LAGS":
		return and(rel("<", c, a), rel("<", d, z), rel("<", a, d))
	}
	return and(rel("=", a, c), rel("<=", d, z)) // IMMEDIATELY LAGS
}

func (b *binder) caseExpr(e *sql.Case) Expr {
	c := &Case{}
	var operand Expr
	if e.Operand != nil {
		operand = b.expr(e.Operand)
	}
	results := make([]Expr, 0, len(e.Whens)+1)
	for _, w := range e.Whens {
		var cond Expr
		if operand != nil {
			l, r := b.same(w.Condition, operand, b.expr(w.Condition))
			cond = &Call{Func: "=", Args: []Expr{l, r}, T: booleanType}
		} else {
			cond = b.boolean(b.expr(w.Condition), w.Condition)
		}
		c.Whens = append(c.Whens, When{Condition: cond})
		results = append(results, b.expr(w.Result))
	}
	if e.Else != nil {
		results = append(results, b.expr(e.Else))
	} else {
		results = append(results, &Const{Value{Null: true}, sql.Type{Kind: sql.KindNull}})
	}
	t := b.commonOf(e, results)
	c.T = t
	for i := range c.Whens {
		c.Whens[i].Result = convert(results[i], t, false)
	}
	c.Else = convert(results[len(results)-1], t, false)
	return c
}

// commonOf is the type that several results have in common.
func (b *binder) commonOf(at sql.Node, list []Expr) sql.Type {
	t := sql.Type{Kind: sql.KindNull}
	for _, x := range list {
		next, ok := common(t, x.Type())
		if !ok {
			b.fail(at, "convert one with CAST", "the results have no common type: %s and %s", t, x.Type())
		}
		t = next
	}
	if t.Kind == sql.KindNull {
		b.fail(at, "give one a type with CAST(NULL AS …)", "all results are NULL")
	}
	return t
}

func (b *binder) floorTo(e *sql.FloorTo, x Expr) Expr {
	name := "floor_to"
	if e.Ceil {
		name = "ceil_to"
	}
	switch t := x.Type(); {
	case t.Kind == sql.KindTime && e.Unit <= sql.Day:
		b.fail(e, "", "a TIME has no %s", e.Unit)
	case isDatetime(t.Kind), t.Kind == sql.KindInterval:
	default:
		hint := ""
		if isCharacter(t.Kind) {
			hint = "convert it with CAST or CHAR_TO_TIMESTAMP"
		}
		b.fail(e.Operand, hint, "%s TO %s takes a date, a time or an interval, not %s", strings.ToUpper(name[:len(name)-3]), e.Unit, t)
	}
	return &Call{Func: name, Args: []Expr{x}, T: x.Type(), Unit: e.Unit}
}

func (b *binder) step(e *sql.Step) Expr {
	x, by := b.expr(e.Operand), b.expr(e.By)
	if by.Type().Kind == sql.KindInterval {
		x = typedNull(x, timestampType)
	}
	x = typedNull(x, integerType)
	c, ok := by.(*Const)
	switch t := x.Type(); {
	case !ok || c.Value.Null:
		b.fail(e.By, "", "STEP goes BY a constant")
	case c.Value.I <= 0:
		b.fail(e.By, "", "STEP goes BY more than nothing")
	case isDatetime(t.Kind) && by.Type().Kind == sql.KindInterval:
		return &Call{Func: "step", Args: []Expr{x, by}, T: t}
	case isInteger(t.Kind) && isInteger(by.Type().Kind):
		return &Call{Func: "step", Args: []Expr{convert(x, bigintType, false), convert(by, bigintType, false)}, T: bigintType}
	}
	b.fail(e, "", "STEP takes a date or time BY an interval, or an integer BY an integer, not %s BY %s", x.Type(), by.Type())
	return nil
}

func (b *binder) substring(e *sql.Substring) Expr {
	x := b.expr(e.Operand)
	from := b.expr(e.From)
	if isCharacter(from.Type().Kind) {
		if e.For != nil {
			b.fail(e.For, "", "FOR does not go with a regular expression")
		}
		b.checkRegexp(e.From, from)
		return &Call{Func: "substring_regex", Args: []Expr{b.characterOf(e.Operand, x), from}, T: varchar(x.Type().Length)}
	}
	args := []Expr{x, b.integer(e.From)}
	if e.For != nil {
		args = append(args, b.integer(e.For))
	}
	if isBinary(x.Type().Kind) {
		return &Call{Func: "substring_bytes", Args: args, T: sql.Type{Kind: sql.KindVarbinary, Length: x.Type().Length}}
	}
	args[0] = b.characterOf(e.Operand, x)
	return &Call{Func: "substring", Args: args, T: varchar(args[0].Type().Length)}
}

func (b *binder) characterOf(at sql.Node, x Expr) Expr {
	switch {
	case isCharacter(x.Type().Kind):
		return x
	case x.Type().Kind == sql.KindNull:
		return &Const{Value{Null: true}, varchar(1)}
	}
	b.fail(at, "convert it with CAST", "a text is needed here, not a %s", x.Type())
	return nil
}

func (b *binder) checkRegexp(at sql.Node, e Expr) {
	if c, ok := e.(*Const); ok && !c.Value.Null {
		if _, err := text.CompileRegexp(c.Value.S); err != nil {
			b.fail(at, "", "the regular expression is wrong: %v", err)
		}
	}
}
