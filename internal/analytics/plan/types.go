package plan

import (
	"math"

	"github.com/millrace/millrace/internal/analytics/sql"
)

var (
	booleanType   = sql.Type{Kind: sql.KindBoolean}
	integerType   = sql.Type{Kind: sql.KindInteger}
	bigintType    = sql.Type{Kind: sql.KindBigint}
	doubleType    = sql.Type{Kind: sql.KindDouble}
	timestampType = sql.Type{Kind: sql.KindTimestamp}
)

func varchar(n int) sql.Type {
	return sql.Type{Kind: sql.KindVarchar, Length: min(max(n, 1), sql.MaxLength)}
}

// decimalOf is the DECIMAL that an exact number counts as.
func decimalOf(t sql.Type) sql.Type {
	switch t.Kind {
	case sql.KindDecimal:
		return t
	case sql.KindTinyint:
		return sql.Type{Kind: sql.KindDecimal, Precision: 3}
	case sql.KindSmallint:
		return sql.Type{Kind: sql.KindDecimal, Precision: 5}
	case sql.KindInteger:
		return sql.Type{Kind: sql.KindDecimal, Precision: 10}
	}
	return sql.Type{Kind: sql.KindDecimal, Precision: 18}
}

// arithmeticType is the type of a op b for numbers.
func arithmeticType(op string, a, b sql.Type) sql.Type {
	switch {
	case isApproximate(a.Kind) || isApproximate(b.Kind):
		return doubleType
	case isInteger(a.Kind) && isInteger(b.Kind):
		return sql.Type{Kind: max(a.Kind, b.Kind)}
	}
	x, y := decimalOf(a), decimalOf(b)
	r := sql.Type{Kind: sql.KindDecimal}
	switch op {
	case "+", "-":
		r.Scale = max(x.Scale, y.Scale)
		r.Precision = min(18, max(x.Precision-x.Scale, y.Precision-y.Scale)+r.Scale+1)
	case "*":
		r.Precision = min(18, x.Precision+y.Precision)
		r.Scale = min(x.Scale+y.Scale, r.Precision)
	default:
		whole := x.Precision - x.Scale + y.Scale
		r.Scale = max(6, x.Scale+y.Precision+1)
		if whole+r.Scale > 18 {
			r.Scale = max(min(x.Scale, 18), 18-whole)
		}
		r.Precision = min(18, whole+r.Scale)
	}
	r.Precision = max(r.Precision, r.Scale, 1)
	return r
}

// common is the type that values of both types can be brought to without loss of
// meaning; ok is false if there is none.
func common(a, b sql.Type) (t sql.Type, ok bool) {
	switch {
	case a.Kind == sql.KindNull:
		return b, true
	case b.Kind == sql.KindNull:
		return a, true
	case isNumeric(a.Kind) && isNumeric(b.Kind):
		switch {
		case isApproximate(a.Kind) || isApproximate(b.Kind):
			if a.Kind == sql.KindReal && b.Kind == sql.KindReal {
				return a, true
			}
			return doubleType, true
		case isInteger(a.Kind) && isInteger(b.Kind):
			return sql.Type{Kind: max(a.Kind, b.Kind)}, true
		}
		x, y := decimalOf(a), decimalOf(b)
		scale := max(x.Scale, y.Scale)
		return sql.Type{Kind: sql.KindDecimal, Scale: scale, Precision: min(sql.MaxPrecision, max(x.Precision-x.Scale, y.Precision-y.Scale)+scale)}, true
	case isCharacter(a.Kind) && isCharacter(b.Kind):
		if a.Kind == sql.KindChar && b.Kind == sql.KindChar {
			return sql.Type{Kind: sql.KindChar, Length: max(a.Length, b.Length)}, true
		}
		return varchar(max(a.Length, b.Length)), true
	case isBinary(a.Kind) && isBinary(b.Kind):
		k := sql.KindVarbinary
		if a.Kind == sql.KindBinary && b.Kind == sql.KindBinary && a.Length == b.Length {
			k = sql.KindBinary
		}
		return sql.Type{Kind: k, Length: max(a.Length, b.Length)}, true
	case a.Kind == sql.KindInterval && b.Kind == sql.KindInterval && a.Interval.YearMonth() == b.Interval.YearMonth():
		q := a.Interval
		q.Start, q.End = min(q.Start, b.Interval.Start), max(q.End, b.Interval.End)
		q.Precision, q.Fraction = max(q.Precision, b.Interval.Precision), max(q.Fraction, b.Interval.Fraction)
		return sql.Type{Kind: sql.KindInterval, Interval: q}, true
	case a.Kind == b.Kind && a.Kind != sql.KindRow && a.Kind != sql.KindInterval:
		return a, true
	}
	return sql.Type{}, false
}

// assignable reports whether values of one type can be stored in columns of
// another without a CAST.
func assignable(from, to sql.Type) bool {
	switch {
	case from.Kind == sql.KindNull:
		return true
	case isNumeric(from.Kind):
		return isNumeric(to.Kind)
	case isCharacter(from.Kind):
		return isCharacter(to.Kind)
	case isBinary(from.Kind):
		return isBinary(to.Kind)
	case from.Kind == sql.KindInterval:
		return to.Kind == sql.KindInterval && from.Interval.YearMonth() == to.Interval.YearMonth()
	}
	return from.Kind == to.Kind && from.Kind != sql.KindRow
}

// castable reports whether CAST can bring one type to another.
func castable(from, to sql.Type) bool {
	f, t := from.Kind, to.Kind
	switch {
	case f == sql.KindNull:
		return t != sql.KindRow
	case f == sql.KindRow || t == sql.KindRow || t == sql.KindNull:
		return false
	case isCharacter(f):
		return isNumeric(t) || isCharacter(t) || isDatetime(t) || t == sql.KindBoolean || t == sql.KindInterval
	case isCharacter(t):
		return !isBinary(f)
	case isNumeric(f):
		return isNumeric(t)
	case f == sql.KindDate:
		return t == sql.KindDate || t == sql.KindTimestamp
	case f == sql.KindTime:
		return t == sql.KindTime || t == sql.KindTimestamp
	case f == sql.KindTimestamp:
		return isDatetime(t)
	case f == sql.KindInterval:
		if t == sql.KindInterval {
			return from.Interval.YearMonth() == to.Interval.YearMonth()
		}
		return isNumeric(t) && from.Interval.Start == from.Interval.End
	case f == sql.KindBoolean:
		return t == sql.KindBoolean
	case isBinary(f):
		return isBinary(t)
	}
	return false
}

// convert brings an expression to a type where it is not of it yet.
func convert(e Expr, t sql.Type, assign bool) Expr {
	from := e.Type()
	if from.Kind == t.Kind && (t.Kind != sql.KindDecimal || from.Scale == t.Scale && from.Precision <= t.Precision) {
		switch t.Kind {
		case sql.KindVarchar, sql.KindVarbinary:
			if from.Length <= t.Length {
				return e
			}
		case sql.KindChar, sql.KindBinary:
			if from.Length == t.Length {
				return e
			}
		case sql.KindInterval:
			return e
		default:
			return e
		}
	}
	if from.Kind == sql.KindChar && t.Kind == sql.KindVarchar && from.Length <= t.Length {
		return e // the same text; only the type's name differs
	}
	if c, ok := e.(*Const); ok && c.Value.Null {
		return &Const{Value: Value{Null: true}, T: t}
	}
	if c, ok := e.(*Const); ok && isNumeric(from.Kind) {
		switch {
		case isInteger(from.Kind) && isInteger(t.Kind) && t.Kind > from.Kind:
			return &Const{c.Value, t}
		case t.Kind == sql.KindDouble && !isApproximate(from.Kind):
			return &Const{Value{F: float64(c.Value.I) / math.Pow10(from.Scale)}, t}
		}
	}
	return &Cast{Arg: e, T: t, Assign: assign}
}
