package run

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// Rows collects rows one by one.
type Rows struct {
	columns []plan.ColumnInfo
	t       *table
}

// NewRows makes an empty collection.
func NewRows(columns []plan.ColumnInfo) *Rows { return &Rows{columns, newTable(columns)} }

// Add appends a row.
func (r *Rows) Add(time int64, values ...plan.Value) {
	r.t.time = append(r.t.time, time)
	for i, c := range r.t.cols {
		c.addValue(values[i])
	}
}

// Len is the number of rows.
func (r *Rows) Len() int { return r.t.len() }

// Reset forgets all rows.
func (r *Rows) Reset() { r.t.clear() }

// Batch shows the rows, without copying them.
func (r *Rows) Batch() *Batch { return r.t.batch() }

// Value is the value of a column at a position of a batch.
func (b *Batch) Value(columns []plan.ColumnInfo, column int, row int32) plan.Value {
	return b.Cols[column].at(&columns[column].Type, row)
}

// Encoder writes rows of columns as JSON objects or lines of CSV: the columns in
// order, hidden ones left out. It holds nothing but what it was made from, and may
// be used by many goroutines.
type Encoder struct {
	csv    bool
	fields []field
}

// field is a column that is written.
type field struct {
	index int
	name  string // as JSON has it, with the comma before and the colon behind
	t     sql.Type
	class plan.Class
	plain bool // its texts are written as they are, but for what has to be escaped
}

// NewEncoder makes an encoder.
func NewEncoder(columns []plan.ColumnInfo, csv bool) *Encoder {
	e := &Encoder{csv: csv}
	for i, c := range columns {
		if c.Hidden {
			continue
		}
		name := appendString([]byte{','}, c.Name)
		if len(e.fields) == 0 {
			name[0] = '{'
		}
		e.fields = append(e.fields, field{index: i, name: string(append(name, ':')), t: c.Type, class: plan.ClassOf(c.Type), plain: isCharacter(c.Type.Kind)})
	}
	return e
}

// Append appends a row: a JSON object without a newline, or a line of CSV with one.
// Nulls are null in JSON and empty in CSV.
func (e *Encoder) Append(dst []byte, b *Batch, row int32) []byte {
	if e.csv {
		for i := range e.fields {
			f := &e.fields[i]
			if i > 0 {
				dst = append(dst, ',')
			}
			if v := b.Cols[f.index]; !v.null(row) {
				dst = f.appendCSV(dst, v, row)
			}
		}
		return append(dst, '\n')
	}
	if len(e.fields) == 0 {
		return append(dst, "{}"...)
	}
	for i := range e.fields {
		f := &e.fields[i]
		dst = append(dst, f.name...)
		dst = f.appendJSON(dst, b.Cols[f.index], row)
	}
	return append(dst, '}')
}

func (f *field) appendJSON(dst []byte, v *Vector, row int32) []byte {
	switch {
	case v.null(row):
		return append(dst, "null"...)
	case f.plain:
		return appendString(dst, v.S[row])
	case f.t.Kind == sql.KindDouble:
		if x := v.F[row]; x-x == 0 {
			return appendFloat(dst, x, 64)
		}
		return append(dst, "null"...) // JSON has neither NaN nor infinities
	case isInteger(f.t.Kind):
		return strconv.AppendInt(dst, v.I[row], 10)
	}
	return appendJSONValue(dst, v.at(&f.t, row), f.t)
}

func (f *field) appendCSV(dst []byte, v *Vector, row int32) []byte {
	if f.plain {
		s := v.S[row]
		if !strings.ContainsAny(s, ",\"\r\n") {
			return append(dst, s...)
		}
		dst = append(dst, '"')
		dst = append(dst, strings.ReplaceAll(s, `"`, `""`)...)
		return append(dst, '"')
	}
	from := len(dst)
	dst = f.appendJSON(dst, v, row)
	if n := len(dst); n-from >= 2 && dst[from] == '"' {
		// Dates and bytes have no quotes here.
		copy(dst[from:], dst[from+1:n-1])
		dst = dst[:n-2]
	}
	return dst
}

// AppendJSON appends a row as an Encoder does: for a few rows that are not worth
// one. Columns that the batch does not have are left out.
func AppendJSON(dst []byte, columns []plan.ColumnInfo, b *Batch, row int32) []byte {
	return NewEncoder(columns[:min(len(columns), len(b.Cols))], false).Append(dst, b, row)
}

func appendJSONValue(dst []byte, v plan.Value, t sql.Type) []byte {
	if v.Null {
		return append(dst, "null"...)
	}
	switch t.Kind {
	case sql.KindBoolean:
		if v.I != 0 {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case sql.KindDate:
		return append(appendDate(append(dst, '"'), v.I), '"')
	case sql.KindTime:
		return append(appendTime(append(dst, '"'), v.I, false), '"')
	case sql.KindTimestamp:
		return append(appendTimestamp(append(dst, '"'), v.I, true), '"')
	case sql.KindInterval:
		return appendString(dst, intervalText(v.I, t.Interval))
	case sql.KindBinary, sql.KindVarbinary:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, []byte(v.S))
		return append(dst, '"')
	case sql.KindChar, sql.KindVarchar:
		return appendString(dst, v.S)
	case sql.KindDouble, sql.KindReal:
		if v.F != v.F || v.F-v.F != 0 {
			return append(dst, "null"...) // JSON has neither NaN nor infinities
		}
	case sql.KindRow:
		dst = append(dst, '{')
		for i, f := range t.Fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, f.Name), ':')
			dst = appendJSONValue(dst, v.Row[i], f.Type)
		}
		return append(dst, '}')
	}
	return appendNumber(dst, v, t)
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := simple(s, 0); i < len(s); i = simple(s, i) {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			dst = append(dst, s[from:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			from = i
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}

// simple is the first place from i on where a text has something else than ASCII
// characters that JSON has as they are; len(s) if there is none.
func simple(s string, i int) int {
	for ; i+8 <= len(s); i += 8 {
		w := word(s, i)
		if w&highs == 0 && special(w) == 0 {
			continue
		}
		break
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return i
		}
	}
	return i
}
