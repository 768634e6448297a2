package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// Value is a single SQL value. Which member holds it follows from the type's
// class: I has integers, decimals (times ten to their scale), booleans (0 or 1),
// dates and timestamps (milliseconds since 1970), times (milliseconds since
// midnight) and intervals (milliseconds or months); F has REAL and DOUBLE; S has
// characters and bytes; Row the members of a row.
type Value struct {
	Null bool
	I    int64
	F    float64
	S    string
	Row  []Value
}

// Class is how values of a type are stored.
type Class uint8

// The classes.
const (
	ClassInt Class = iota
	ClassFloat
	ClassString
	ClassRow
)

// ClassOf says how values of a type are stored.
func ClassOf(t sql.Type) Class {
	switch t.Kind {
	case sql.KindReal, sql.KindDouble:
		return ClassFloat
	case sql.KindChar, sql.KindVarchar, sql.KindBinary, sql.KindVarbinary:
		return ClassString
	case sql.KindRow:
		return ClassRow
	}
	return ClassInt
}

// Expr is an expression that is bound to the columns of its input and typed.
type Expr interface {
	Type() sql.Type
}

type (
	// Column is a column of the input.
	Column struct {
		Index int
		T     sql.Type
		Name  string
		// Of marks a function of the row's time: the column's value is this
		// expression over Rowtime; nil for others.
		Of Expr
		// Order is set for columns that never go back.
		Order Monotonicity
	}
	// Rowtime is the row's time.
	Rowtime struct{}
	// Const is a constant.
	Const struct {
		Value Value
		T     sql.Type
	}
	// Call is a function or operator, named as in functions.go.
	Call struct {
		Func string
		Args []Expr
		T    sql.Type
		Unit sql.Unit // of floor_to, ceil_to, extract
	}
	// Case is the searched CASE.
	Case struct {
		Whens []When
		Else  Expr // a typed NULL if it was left out
		T     sql.Type
	}
	// When is a branch of a Case.
	When struct{ Condition, Result Expr }
	// Cast converts. Assign marks an assignment, which cuts long text and never
	// pads it.
	Cast struct {
		Arg    Expr
		T      sql.Type
		Assign bool
		Try    bool
	}
	// Field is a member of a row.
	Field struct {
		Arg   Expr
		Index int
		T     sql.Type
	}
)

// Type implements Expr.
func (e *Column) Type() sql.Type  { return e.T }
func (e *Rowtime) Type() sql.Type { return sql.Type{Kind: sql.KindTimestamp} }
func (e *Const) Type() sql.Type   { return e.T }
func (e *Call) Type() sql.Type    { return e.T }
func (e *Case) Type() sql.Type    { return e.T }
func (e *Cast) Type() sql.Type    { return e.T }
func (e *Field) Type() sql.Type   { return e.T }

// Key is a text that is the same for expressions that are the same.
func Key(e Expr) string {
	var b strings.Builder
	writeKey(&b, e)
	return b.String()
}

func writeKey(b *strings.Builder, e Expr) {
	list := func(args []Expr) {
		for i, a := range args {
			if i > 0 {
				b.WriteByte(',')
			}
			writeKey(b, a)
		}
	}
	switch e := e.(type) {
	case *Column:
		fmt.Fprintf(b, "#%d", e.Index)
	case *Rowtime:
		b.WriteString("ROWTIME")
	case *Const:
		b.WriteString(e.T.String() + ":" + valueText(e.Value, e.T))
	case *Call:
		b.WriteString(e.Func)
		if e.Unit != sql.UnitNone {
			b.WriteString(" " + e.Unit.String())
		}
		b.WriteByte('(')
		list(e.Args)
		b.WriteByte(')')
		if e.T.Kind == sql.KindInterval {
			b.WriteString(e.T.String())
		}
	case *Case:
		b.WriteString("case(")
		for _, w := range e.Whens {
			list([]Expr{w.Condition, w.Result})
			b.WriteByte(';')
		}
		writeKey(b, e.Else)
		b.WriteByte(')')
	case *Cast:
		fmt.Fprintf(b, "cast[%s %t %t](", e.T, e.Assign, e.Try)
		writeKey(b, e.Arg)
		b.WriteByte(')')
	case *Field:
		writeKey(b, e.Arg)
		fmt.Fprintf(b, ".%d", e.Index)
	case *Param:
		fmt.Fprintf(b, "?%d", e.Index)
	case *Subquery:
		b.WriteString(subqueryNames[e.Kind] + "{" + queryText(e.Query) + "}(")
		list(e.Outer)
		b.WriteByte(';')
		list(e.Operand)
		b.WriteByte(';')
		list(e.Found)
		b.WriteByte(')')
	}
}

func valueText(v Value, t sql.Type) string {
	if v.Null {
		return "NULL"
	}
	switch ClassOf(t) {
	case ClassFloat:
		return strconv.FormatFloat(v.F, 'g', -1, 64)
	case ClassString:
		return strconv.Quote(v.S)
	case ClassRow:
		parts := make([]string, len(v.Row))
		for i, f := range v.Row {
			parts[i] = valueText(f, t.Fields[i].Type)
		}
		return "(" + strings.Join(parts, ",") + ")"
	}
	return strconv.FormatInt(v.I, 10)
}

// Replace rebuilds an expression, f deciding first: what it returns, if not nil,
// takes the place of the part it was asked about.
func Replace(e Expr, f func(Expr) Expr) Expr {
	if n := f(e); n != nil {
		return n
	}
	list := func(args []Expr) []Expr {
		out := make([]Expr, len(args))
		for i, a := range args {
			out[i] = Replace(a, f)
		}
		return out
	}
	switch e := e.(type) {
	case *Call:
		c := *e
		c.Args = list(e.Args)
		return &c
	case *Case:
		c := *e
		c.Whens = make([]When, len(e.Whens))
		for i, w := range e.Whens {
			c.Whens[i] = When{Replace(w.Condition, f), Replace(w.Result, f)}
		}
		c.Else = Replace(e.Else, f)
		return &c
	case *Cast:
		c := *e
		c.Arg = Replace(e.Arg, f)
		return &c
	case *Field:
		c := *e
		c.Arg = Replace(e.Arg, f)
		return &c
	case *Subquery:
		// The query's own expressions are over other columns.
		c := *e
		c.Outer, c.Operand = list(e.Outer), list(e.Operand)
		return &c
	}
	return e
}

// maxWeight is how many parts an expression may have. A program's text has room
// for a fraction of that; functions and repeated operands mean more than is
// written.
const maxWeight = 1 << 18

// weigh counts the parts of an expression. Parts are shared where an operand is
// meant twice, so that counting them one by one could take forever.
func (c *compiler) weigh(e Expr) int {
	switch e.(type) {
	case *Rowtime, *Const, *Param:
		return 1
	}
	if n, ok := c.weights[e]; ok {
		return n
	}
	n := 1
	list := func(args ...Expr) {
		for _, a := range args {
			n = min(n+c.weigh(a), maxWeight+1)
		}
	}
	switch e := e.(type) {
	case *Column:
		if e.Of != nil {
			list(e.Of)
		}
	case *Call:
		list(e.Args...)
	case *Case:
		for _, w := range e.Whens {
			list(w.Condition, w.Result)
		}
		list(e.Else)
	case *Cast:
		list(e.Arg)
	case *Field:
		list(e.Arg)
	case *Subquery:
		list(e.Outer...)
		list(e.Operand...)
		list(e.Found...)
	}
	if c.weights == nil {
		c.weights = map[Expr]int{}
	}
	c.weights[e] = n
	return n
}

// Walk visits an expression and its parts, outermost first.
func Walk(e Expr, visit func(Expr)) {
	Replace(e, func(part Expr) Expr { visit(part); return nil })
}

// timeOnly reports whether an expression depends on the row's time and constants
// alone, through columns that do too, and returns it with them replaced.
func timeOnly(e Expr) (Expr, bool) {
	only, found := true, false
	out := Replace(e, func(part Expr) Expr {
		switch part := part.(type) {
		case *Column:
			if part.Of == nil {
				only = false
				return nil
			}
			found = true
			return part.Of
		case *Rowtime:
			found = true
		case *Call:
			if volatile[part.Func] {
				only = false
			}
		case *Subquery, *Param:
			only = false // tables are loaded anew
		}
		return nil
	})
	return out, only && found
}

// constant reports whether an expression has no columns in it.
func constant(e Expr) bool {
	yes := true
	Walk(e, func(part Expr) {
		switch part := part.(type) {
		case *Column, *Rowtime, *Subquery, *Param:
			yes = false
		case *Call:
			yes = yes && !volatile[part.Func]
		}
	})
	return yes
}

// volatile functions differ from row to row without arguments.
var volatile = map[string]bool{"current_row_timestamp": true}

// Monotonicity says how an expression behaves while rows come in.
type Monotonicity uint8

// The monotonicities.
const (
	Unordered Monotonicity = iota
	Constant
	Ascending
	Descending
)

func (m Monotonicity) reverse() Monotonicity {
	switch m {
	case Ascending:
		return Descending
	case Descending:
		return Ascending
	}
	return m
}

// Monotonic finds out how an expression behaves over a stream.
func Monotonic(e Expr) Monotonicity {
	switch e := e.(type) {
	case *Const:
		return Constant
	case *Rowtime:
		return Ascending
	case *Column:
		if e.Of != nil {
			return Monotonic(e.Of)
		}
		return e.Order
	case *Cast:
		from, to := e.Arg.Type().Kind, e.T.Kind
		if isDatetime(from) && isDatetime(to) && to != sql.KindTime || isNumeric(from) && isNumeric(to) {
			return Monotonic(e.Arg)
		}
		return constantOr(e.Arg)
	case *Call:
		return monotonicCall(e)
	case *Case:
		if constant(e) {
			return Constant
		}
	case *Field:
		return constantOr(e.Arg)
	}
	return Unordered
}

func constantOr(args ...Expr) Monotonicity {
	for _, a := range args {
		if !constant(a) {
			return Unordered
		}
	}
	return Constant
}

func monotonicCall(e *Call) Monotonicity {
	if len(e.Args) == 0 {
		switch e.Func {
		case "current_row_timestamp":
			return Ascending
		case "current_date", "current_time", "localtime", "current_timestamp", "localtimestamp":
			return Constant
		}
		return Unordered
	}
	first := Monotonic(e.Args[0])
	if len(e.Args) == 1 {
		switch e.Func {
		case "monotonic":
			if first == Unordered {
				return Ascending
			}
			return first
		case "floor", "ceil", "floor_to", "ceil_to", "unix_timestamp", "to_timestamp":
			return first
		case "neg":
			return first.reverse()
		}
		return constantOr(e.Args...)
	}
	second := Monotonic(e.Args[1])
	if first == Constant && second == Constant {
		return constantOr(e.Args...)
	}
	sign := func(i int) int {
		c, ok := e.Args[i].(*Const)
		switch {
		case !ok || c.Value.Null:
			return 0
		case c.Value.I > 0 || c.Value.F > 0:
			return 1
		case c.Value.I < 0 || c.Value.F < 0:
			return -1
		}
		return 0
	}
	scaled := func(m Monotonicity, s int) Monotonicity {
		switch s {
		case 1:
			return m
		case -1:
			return m.reverse()
		}
		return Unordered
	}
	switch e.Func {
	case "+":
		switch {
		case second == Constant:
			return first
		case first == Constant:
			return second
		case first == second:
			return first
		}
	case "-", "difference":
		switch {
		case second == Constant:
			return first
		case first == Constant:
			return second.reverse()
		case first == second.reverse():
			return first
		}
	case "*":
		switch {
		case second == Constant:
			return scaled(first, sign(1))
		case first == Constant:
			return scaled(second, sign(0))
		}
	case "/":
		if second == Constant {
			return scaled(first, sign(1))
		}
	case "step":
		if second == Constant {
			return first
		}
	case "substring":
		if c, ok := e.Args[1].(*Const); ok && len(e.Args) == 3 && c.Value.I == 1 && constant(e.Args[2]) {
			return first
		}
	}
	return constantOr(e.Args...)
}

func isDatetime(k sql.Kind) bool {
	return k == sql.KindDate || k == sql.KindTime || k == sql.KindTimestamp
}

func isInteger(k sql.Kind) bool { return k >= sql.KindTinyint && k <= sql.KindBigint }

func isApproximate(k sql.Kind) bool { return k == sql.KindReal || k == sql.KindDouble }

func isNumeric(k sql.Kind) bool { return k >= sql.KindTinyint && k <= sql.KindDouble }

func isCharacter(k sql.Kind) bool { return k == sql.KindChar || k == sql.KindVarchar }

func isBinary(k sql.Kind) bool { return k == sql.KindBinary || k == sql.KindVarbinary }
