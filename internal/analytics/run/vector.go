package run

import (
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// Vector is a column of a batch. Which of its slices has the values follows from
// the type's class; see plan.Value.
type Vector struct {
	Null []bool // nil if no value is null
	I    []int64
	F    []float64
	S    []string
	R    []*Vector // members of rows
}

// Batch is a piece of a stream, in order of time.
type Batch struct {
	N    int
	Time []int64 // milliseconds since 1970
	Cols []*Vector
	Sel  []int32 // positions that count, ascending
}

// identity are the positions 0, 1, 2 …; it is never written to after it was made.
var identity = func() []int32 {
	s := make([]int32, 1<<16)
	for i := range s {
		s[i] = int32(i)
	}
	return s
}()

// all selects the first n positions.
func all(n int) []int32 {
	if n <= len(identity) {
		return identity[:n]
	}
	s := make([]int32, n)
	for i := range s {
		s[i] = int32(i)
	}
	return s
}

func (v *Vector) null(i int32) bool { return v.Null != nil && v.Null[i] }

// resize makes room for n values of a class; their contents are left over from
// before, and none is null.
func (v *Vector) resize(class plan.Class, n int) {
	v.Null = nil
	switch class {
	case plan.ClassInt:
		if cap(v.I) < n {
			v.I = make([]int64, n, n+n/4)
		}
		v.I = v.I[:n]
	case plan.ClassFloat:
		if cap(v.F) < n {
			v.F = make([]float64, n, n+n/4)
		}
		v.F = v.F[:n]
	case plan.ClassString:
		if cap(v.S) < n {
			v.S = make([]string, n, n+n/4)
		}
		v.S = v.S[:n]
	}
}

// nulls gives a vector a mask of n values, none of them null, from a spare one if
// it fits.
func (v *Vector) nulls(spare *[]bool, n int) []bool {
	if cap(*spare) < n {
		*spare = make([]bool, n, n+n/4)
	}
	v.Null = (*spare)[:n]
	clear(v.Null)
	return v.Null
}

// at is the value at a position.
func (v *Vector) at(t *sql.Type, i int32) plan.Value {
	if v.null(i) {
		return plan.Value{Null: true}
	}
	switch plan.ClassOf(*t) {
	case plan.ClassFloat:
		return plan.Value{F: v.F[i]}
	case plan.ClassString:
		return plan.Value{S: v.S[i]}
	case plan.ClassRow:
		row := make([]plan.Value, len(t.Fields))
		for f := range t.Fields {
			row[f] = v.R[f].at(&t.Fields[f].Type, i)
		}
		return plan.Value{Row: row}
	}
	return plan.Value{I: v.I[i]}
}

// column is a growing column of kept rows.
type column struct {
	class plan.Class
	t     sql.Type
	Vector
	n int
}

func newColumn(t sql.Type) *column {
	c := &column{class: plan.ClassOf(t), t: t}
	for _, f := range t.Fields {
		c.R = append(c.R, &newColumn(f.Type).Vector)
	}
	return c
}

// add appends the value of a vector at a position.
func (c *column) add(v *Vector, i int32) {
	c.addValue(v.at(&c.t, i))
}

func (c *column) addValue(v plan.Value) {
	if v.Null && c.Null == nil {
		c.Null = make([]bool, c.n, max(c.n*2, 16))
	}
	if c.Null != nil {
		c.Null = append(c.Null, v.Null)
	}
	c.n++
	switch c.class {
	case plan.ClassInt:
		c.I = append(c.I, v.I)
	case plan.ClassFloat:
		c.F = append(c.F, v.F)
	case plan.ClassString:
		c.S = append(c.S, v.S)
	case plan.ClassRow:
		for f := range c.t.Fields {
			member := column{class: plan.ClassOf(c.t.Fields[f].Type), t: c.t.Fields[f].Type, Vector: *c.R[f], n: c.n - 1}
			if v.Null {
				member.addValue(plan.Value{Null: true})
			} else {
				member.addValue(v.Row[f])
			}
			*c.R[f] = member.Vector
		}
	}
}

func (c *column) value(i int) plan.Value { return c.at(&c.t, int32(i)) }

// drop forgets the first n values. Their room comes back when what is behind it
// has to move anyway.
func (c *column) drop(n int) {
	c.n -= n
	if c.Null != nil {
		c.Null = dropped(c.Null, n)
	}
	switch c.class {
	case plan.ClassInt:
		c.I = dropped(c.I, n)
	case plan.ClassFloat:
		c.F = dropped(c.F, n)
	case plan.ClassString:
		clear(c.S[:n])
		c.S = dropped(c.S, n)
	case plan.ClassRow:
		for f := range c.t.Fields {
			member := column{class: plan.ClassOf(c.t.Fields[f].Type), t: c.t.Fields[f].Type, Vector: *c.R[f], n: c.n + n}
			member.drop(n)
			*c.R[f] = member.Vector
		}
	}
}

func dropped[T any](s []T, n int) []T {
	if n == len(s) {
		return s[:0]
	}
	return s[n:]
}

// table is a store of kept rows, oldest first. Rows are numbered from the first
// that ever was; head is the number of the first that still is.
type table struct {
	head int64
	time []int64
	cols []*column
}

func newTable(columns []plan.ColumnInfo) *table {
	t := &table{}
	for _, c := range columns {
		t.cols = append(t.cols, newColumn(c.Type))
	}
	return t
}

func (t *table) len() int { return len(t.time) }

func (t *table) add(b *Batch, i int32) {
	t.time = append(t.time, b.Time[i])
	for j, c := range t.cols {
		c.add(b.Cols[j], i)
	}
}

// drop forgets the first n rows.
func (t *table) drop(n int) {
	if n == 0 {
		return
	}
	t.head += int64(n)
	t.time = dropped(t.time, n)
	for _, c := range t.cols {
		c.drop(n)
	}
}

// clear forgets everything and begins to count anew.
func (t *table) clear() {
	t.drop(len(t.time))
	t.head = 0
}

// batch shows all rows, without copying them.
func (t *table) batch() *Batch {
	b := &Batch{N: len(t.time), Time: t.time, Sel: all(len(t.time))}
	for _, c := range t.cols {
		b.Cols = append(b.Cols, &c.Vector)
	}
	return b
}
