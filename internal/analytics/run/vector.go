package run

import (
	"strings"
	"unsafe"

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

// set puts a single value into a vector.
func set(v *Vector, class plan.Class, n int, i int32, value *plan.Value) {
	if value.Null {
		if v.Null == nil {
			v.Null = make([]bool, n)
		}
		v.Null[i] = true
		return
	}
	switch class {
	case plan.ClassInt:
		v.I[i] = value.I
	case plan.ClassFloat:
		v.F[i] = value.F
	case plan.ClassString:
		v.S[i] = value.S
	}
}

// sized is a slice of n elements whose values are left over from before.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

// column is a growing column of kept rows.
type column struct {
	class plan.Class
	t     sql.Type
	Vector
	n     int
	spare []bool // a mask that is not in use
	texts texts
}

func newColumn(t sql.Type) *column {
	c := &column{class: plan.ClassOf(t), t: t}
	for _, f := range t.Fields {
		c.R = append(c.R, &newColumn(f.Type).Vector)
	}
	return c
}

// texts copies strings to memory of their own, many into one piece: what is kept
// of a row does not hold on to the page that the row came in.
type texts struct{ piece []byte }

const (
	firstPiece = 64
	lastPiece  = 16 << 10
)

func (t *texts) own(s string) string {
	if len(s) == 0 {
		return ""
	}
	if len(s) > cap(t.piece)-len(t.piece) {
		if len(s) > lastPiece/8 {
			return strings.Clone(s)
		}
		t.piece = make([]byte, 0, max(min(2*cap(t.piece), lastPiece), firstPiece, 2*len(s)))
	}
	from := len(t.piece)
	t.piece = append(t.piece, s...)
	// Pieces are written once: what is behind from is never touched again.
	return unsafe.String(&t.piece[from], len(s))
}

// add appends the value of a vector at a position; texts are copied.
func (c *column) add(v *Vector, i int32) {
	if c.Null == nil && !v.null(i) {
		switch c.class {
		case plan.ClassInt:
			c.I = append(c.I, v.I[i])
			c.n++
			return
		case plan.ClassFloat:
			c.F = append(c.F, v.F[i])
			c.n++
			return
		case plan.ClassString:
			c.S = append(c.S, c.texts.own(v.S[i]))
			c.n++
			return
		}
	}
	c.addValue(c.owned(v.at(&c.t, i)))
}

// owned copies the texts of a value.
func (c *column) owned(v plan.Value) plan.Value {
	v.S = c.texts.own(v.S)
	for i := range v.Row {
		v.Row[i] = c.owned(v.Row[i])
	}
	return v
}

// show appends the value of a vector at a position, for as long as that keeps its
// texts.
func (c *column) show(v *Vector, i int32) {
	if c.Null == nil && !v.null(i) {
		switch c.class {
		case plan.ClassInt:
			c.I = append(c.I, v.I[i])
			c.n++
			return
		case plan.ClassFloat:
			c.F = append(c.F, v.F[i])
			c.n++
			return
		case plan.ClassString:
			c.S = append(c.S, v.S[i])
			c.n++
			return
		}
	}
	c.addValue(v.at(&c.t, i))
}

// choose appends the values of a vector at positions, nulls for those below 0, for
// as long as the vector keeps its texts.
func (c *column) choose(v *Vector, at []int32) {
	whole := c.Null == nil && v.Null == nil && c.class != plan.ClassRow
	for _, i := range at {
		whole = whole && i >= 0
	}
	if !whole {
		for _, i := range at {
			if i < 0 {
				c.addValue(plan.Value{Null: true})
			} else {
				c.show(v, i)
			}
		}
		return
	}
	c.n += len(at)
	switch c.class {
	case plan.ClassInt:
		for _, i := range at {
			c.I = append(c.I, v.I[i])
		}
	case plan.ClassFloat:
		for _, i := range at {
			c.F = append(c.F, v.F[i])
		}
	case plan.ClassString:
		for _, i := range at {
			c.S = append(c.S, v.S[i])
		}
	}
}

// masked has the column say which values are null.
func (c *column) masked() {
	if c.Null != nil {
		return
	}
	if c.spare == nil || cap(c.spare) < c.n {
		c.spare = make([]bool, 0, max(c.n*2, 16))
	}
	c.Null = c.spare[:c.n]
	clear(c.Null)
}

// addValue appends a value without copying its texts.
func (c *column) addValue(v plan.Value) {
	if v.Null {
		c.masked()
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

// put changes a value in the middle; only columns of keys do, which have no rows.
// Texts get memory of their own, since values that were put at one time do not
// leave at one time.
func (c *column) put(at int, v *Vector, i int32) {
	null := v.null(i)
	if null {
		c.masked()
	}
	if c.Null != nil {
		c.Null[at] = null
	}
	if null {
		return
	}
	switch c.class {
	case plan.ClassInt:
		c.I[at] = v.I[i]
	case plan.ClassFloat:
		c.F[at] = v.F[i]
	case plan.ClassString:
		c.S[at] = strings.Clone(v.S[i])
	}
}

// empty forgets a value in the middle.
func (c *column) empty(at int) {
	if c.class == plan.ClassString {
		c.S[at] = ""
	}
}

func (c *column) value(i int) plan.Value { return c.at(&c.t, int32(i)) }

// drop forgets the first n values; those behind them move.
func (c *column) drop(n int) {
	c.n -= n
	if c.Null != nil {
		c.Null = dropped(c.Null, n)
		if c.n == 0 {
			c.Null, c.spare = nil, c.Null
		}
	}
	switch c.class {
	case plan.ClassInt:
		c.I = dropped(c.I, n)
	case plan.ClassFloat:
		c.F = dropped(c.F, n)
	case plan.ClassString:
		kept := dropped(c.S, n)
		clear(c.S[len(kept):])
		c.S = kept
	case plan.ClassRow:
		for f := range c.t.Fields {
			member := column{class: plan.ClassOf(c.t.Fields[f].Type), t: c.t.Fields[f].Type, Vector: *c.R[f], n: c.n + n}
			member.drop(n)
			*c.R[f] = member.Vector
		}
	}
}

// dropped takes the first n off. What is left moves to the front, so that room
// for more is not made anew; whoever drops little of much collects it first.
// Slices that had room for far more are given up.
func dropped[T any](s []T, n int) []T {
	left := len(s) - n
	if cap(s) > 1<<16 && left < cap(s)/8 && n < cap(s)/8 {
		return append(make([]T, 0, left+left/2), s[n:]...)
	}
	copy(s, s[n:])
	return s[:left]
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

// add appends a row, with texts of its own.
func (t *table) add(b *Batch, i int32) {
	t.time = append(t.time, b.Time[i])
	for j, c := range t.cols {
		c.add(b.Cols[j], i)
	}
}

// drop forgets the first n rows; the others move, and so what batch has shown
// changes.
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

// shorten keeps the first n values.
func (c *column) shorten(n int) {
	c.n = n
	if c.Null != nil {
		c.Null = c.Null[:n]
	}
	switch c.class {
	case plan.ClassInt:
		c.I = c.I[:n]
	case plan.ClassFloat:
		c.F = c.F[:n]
	case plan.ClassString:
		c.S = c.S[:n]
	case plan.ClassRow:
		for f := range c.t.Fields {
			member := column{class: plan.ClassOf(c.t.Fields[f].Type), t: c.t.Fields[f].Type, Vector: *c.R[f]}
			member.shorten(n)
			*c.R[f] = member.Vector
		}
	}
}
