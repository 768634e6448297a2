package run

import (
	"encoding/base64"
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

// AppendJSON appends a row as a JSON object: the columns in order, hidden ones
// left out.
func AppendJSON(dst []byte, columns []plan.ColumnInfo, b *Batch, row int32) []byte {
	dst = append(dst, '{')
	first := true
	for i, c := range columns {
		if c.Hidden || i >= len(b.Cols) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendString(dst, c.Name)
		dst = append(dst, ':')
		dst = appendJSONValue(dst, b.Cols[i].at(&c.Type, row), c.Type)
	}
	return append(dst, '}')
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
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
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

// AppendCSV appends a row as a line of CSV: the columns in order, hidden ones left
// out, nulls empty.
func AppendCSV(dst []byte, columns []plan.ColumnInfo, b *Batch, row int32) []byte {
	first := true
	for i, c := range columns {
		if c.Hidden || i >= len(b.Cols) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		v := b.Cols[i].at(&c.Type, row)
		if v.Null {
			continue
		}
		switch c.Type.Kind {
		case sql.KindChar, sql.KindVarchar:
			if strings.ContainsAny(v.S, ",\"\r\n") {
				dst = append(dst, '"')
				dst = append(dst, strings.ReplaceAll(v.S, `"`, `""`)...)
				dst = append(dst, '"')
			} else {
				dst = append(dst, v.S...)
			}
		default:
			from := len(dst)
			dst = appendJSONValue(dst, v, c.Type)
			if n := len(dst); n-from >= 2 && dst[from] == '"' {
				// Dates and bytes have no quotes here.
				copy(dst[from:], dst[from+1:n-1])
				dst = dst[:n-2]
			}
		}
	}
	return append(dst, '\n')
}
