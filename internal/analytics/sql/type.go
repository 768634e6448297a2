package sql

import (
	"fmt"
	"strings"
)

// Kind is a type without its parameters.
type Kind uint8

// The kinds. KindNull is the type of a bare NULL, KindRow that of the log
// parsers' results.
const (
	KindNull Kind = iota
	KindBoolean
	KindTinyint
	KindSmallint
	KindInteger
	KindBigint
	KindDecimal
	KindReal
	KindDouble
	KindChar
	KindVarchar
	KindBinary
	KindVarbinary
	KindDate
	KindTime
	KindTimestamp
	KindInterval
	KindRow
)

var kindNames = [...]string{
	"NULL", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DECIMAL", "REAL", "DOUBLE", "CHAR", "VARCHAR",
	"BINARY", "VARBINARY", "DATE", "TIME", "TIMESTAMP", "INTERVAL", "ROW",
}

func (k Kind) String() string { return kindNames[k] }

// Limits of types' parameters.
const (
	MaxLength    = 65535 // of CHAR, VARCHAR, BINARY, VARBINARY
	MaxPrecision = 19    // of DECIMAL; arithmetic keeps 18
)

// Type is an SQL type.
type Type struct {
	Kind      Kind
	Length    int       // of CHAR, VARCHAR in characters; of BINARY, VARBINARY in bytes
	Precision int       // of DECIMAL
	Scale     int       // of DECIMAL
	Interval  Qualifier // of INTERVAL
	Fields    []Field   // of ROW
}

// Field is a member of a row.
type Field struct {
	Name string
	Type Type
}

// String is the type as one would write it.
func (t Type) String() string {
	switch t.Kind {
	case KindChar, KindVarchar, KindBinary, KindVarbinary:
		return fmt.Sprintf("%s(%d)", t.Kind, t.Length)
	case KindDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case KindInterval:
		return "INTERVAL " + t.Interval.String()
	case KindRow:
		fields := make([]string, len(t.Fields))
		for i, f := range t.Fields {
			fields[i] = f.Name + " " + f.Type.String()
		}
		return "ROW(" + strings.Join(fields, ", ") + ")"
	}
	return t.Kind.String()
}

// Unit is a field of dates, times and intervals, the largest first.
type Unit uint8

// The units.
const (
	UnitNone Unit = iota
	Year
	Month
	Day
	Hour
	Minute
	Second
)

var unitNames = [...]string{"", "YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"}

func (u Unit) String() string { return unitNames[u] }

func unitOf(word string) Unit {
	for u, name := range unitNames {
		if u > 0 && name == word {
			return Unit(u)
		}
	}
	return UnitNone
}

// Qualifier says which fields an interval has.
type Qualifier struct {
	Start, End Unit // End is Start for a single field
	Precision  int  // digits of the first field, 1 to 10
	Fraction   int  // digits of the seconds' fraction, 0 to 9
}

// YearMonth reports whether the interval counts months and not milliseconds.
func (q Qualifier) YearMonth() bool { return q.Start <= Month }

func (q Qualifier) String() string {
	text := q.Start.String()
	if q.Start == Second {
		if q.Precision != 2 || q.Fraction != 3 {
			text += fmt.Sprintf("(%d,%d)", q.Precision, q.Fraction)
		}
		return text
	}
	if q.Precision != 2 {
		text += fmt.Sprintf("(%d)", q.Precision)
	}
	if q.End != q.Start {
		text += " TO " + q.End.String()
		if q.End == Second && q.Fraction != 3 {
			text += fmt.Sprintf("(%d)", q.Fraction)
		}
	}
	return text
}
