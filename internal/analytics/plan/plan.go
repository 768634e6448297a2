// Package plan gives a program its meaning: names become streams and columns,
// expressions get types, and every pump becomes a tree of operators that is
// known to run in bounded state.
//
// The one idea: time is not a column. Every row carries its ROWTIME beside its
// columns, and an expression that depends on nothing else is known as such
// (Column.Of, timeOnly), through subqueries and windows. So the planner can say
// of a grouping key when its groups are complete without looking at data, and
// refuses a query whose state would grow for ever with a text that says which
// key is missing.
//
// A plan knows nothing of batches, files or threads: package run executes it.
// Start reading at Compile in program.go, then query.go.
package plan

import "github.com/millrace/millrace/internal/analytics/sql"

// ErrorStream is the name of the system's stream of errors.
const ErrorStream = "error_stream"

// Catalog is what exists before the program's first statement.
type Catalog struct {
	Sources []Relation // the in-application input streams
	Tables  []Relation // reference tables
}

// Relation is a stream or table with its columns.
type Relation struct {
	Name    string
	Columns []ColumnInfo
}

// ColumnInfo is a column of a relation or of an operator's output.
type ColumnInfo struct {
	Name    string
	Type    sql.Type
	NotNull bool
	// Hidden columns are not part of * and not counted.
	Hidden bool
	// merged columns are found by their qualifier only: USING shows the other
	// side's.
	merged bool
	// Of and Order carry over what is known of the column; see Column.
	Of    Expr
	Order Monotonicity
}

// HiddenColumns are the service's columns that every input stream has in
// addition, in this order behind its own.
var HiddenColumns = []ColumnInfo{
	{Name: "APPROXIMATE_ARRIVAL_TIME", Type: sql.Type{Kind: sql.KindTimestamp}, Hidden: true},
	{Name: "PARTITION_KEY", Type: sql.Type{Kind: sql.KindVarchar, Length: 256}, Hidden: true},
	{Name: "SEQUENCE_NUMBER", Type: sql.Type{Kind: sql.KindVarchar, Length: 128}, Hidden: true},
	{Name: "SHARD_ID", Type: sql.Type{Kind: sql.KindVarchar, Length: 64}, Hidden: true},
}

// Program is a planned program.
type Program struct {
	Streams []*Stream // sources first, then in order of creation
	Tables  []*Table
	Pumps   []*Pump   // in an order in which no pump reads what a later one writes
	Inserts []*Insert // run once at the start
}

// Stream is an in-application stream.
type Stream struct {
	Name    string
	Source  bool
	Columns []ColumnInfo
	Writers int // pumps that write to it
}

// Table is a reference table.
type Table struct {
	Name    string
	Columns []ColumnInfo
}

// Pump is a continuous query into a stream.
type Pump struct {
	Name    string
	Stopped bool
	Target  *Stream
	// Root yields the target's columns, in order and in their types; rows whose
	// NOT NULL columns are null are for the target to refuse.
	Root Node
	// Text is the pump's query, canonical, with a mark of its plan: what tells
	// whether a changed program still has the same pump, and so its state.
	Text string
}

// Insert is INSERT INTO … VALUES.
type Insert struct {
	Target *Stream
	Rows   [][]Expr
	// Times are the rows' times; nil if they are those of the insert.
	Times []Expr
}

// Node is an operator.
type Node interface {
	// Columns is what the operator puts out.
	Columns() []ColumnInfo
	// Inputs are the operators it reads.
	Inputs() []Node
}

type output struct{ columns []ColumnInfo }

func (o output) Columns() []ColumnInfo { return o.columns }

type (
	// Scan reads a stream, hidden columns included.
	Scan struct {
		output
		Stream *Stream
	}
	// TableScan reads a reference table.
	TableScan struct {
		output
		Table *Table
	}
	// Rows are constants.
	Rows struct {
		output
		Values [][]Expr
	}
	// Filter keeps rows for which the condition is true.
	Filter struct {
		Input     Node
		Condition Expr
	}
	// Project computes columns. Time, if set, becomes the row's time.
	Project struct {
		output
		Input Node
		Exprs []Expr
		Time  Expr
	}
	// Aggregate groups. Its output is the keys, then the aggregates.
	Aggregate struct {
		output
		Input Node
		// Time is the key that bounds the groups, an expression over Rowtime; its
		// column is at TimeIndex of Keys. Nil with Order or over a table.
		Time      Expr
		TimeIndex int
		// Order is the index of a key that never goes back, -1 if there is none:
		// groups are complete when it changes.
		Order int
		Keys  []Expr
		Aggs  []Agg
	}
	// Stagger is WINDOWED BY STAGGER and SESSION; output as of Aggregate.
	Stagger struct {
		output
		Input   Node
		Session bool
		Length  int64 // milliseconds
		Keys    []Expr
		Aggs    []Agg
	}
	// Distinct lets each row pass once for as long as the key stays the same.
	Distinct struct {
		Input Node
		Key   int // column that never goes back; -1 over a table
	}
	// Windowed appends the values of sliding windows to its input's columns.
	Windowed struct {
		output
		Input   Node
		Windows []Window
	}
	// Join joins two streams. Output: the left columns, the left ROWTIME, the
	// right columns, the right ROWTIME.
	Join struct {
		output
		Kind        sql.JoinKind
		Left, Right Node
		// A row stays in its window for so long: milliseconds, or a number of rows
		// where LeftRows and RightRows are set.
		LeftWindow, RightWindow int64
		LeftRows, RightRows     bool
		LeftKeys, RightKeys     []Expr // equal pairwise, over the side's own columns
		Condition               Expr   // the rest, over the output; nil if always true
	}
	// Lookup joins a stream with a table. Output: the stream's columns, then the
	// table's.
	Lookup struct {
		output
		Left                 bool // rows without a match stay
		Input                Node
		Table                Node // over tables only
		InputKeys, TableKeys []Expr
		Condition            Expr
	}
	// Union merges streams by ROWTIME; over tables it is their concatenation.
	Union struct {
		output
		Branches []Node
	}
	// SetOp is a set operation on tables.
	SetOp struct {
		output
		Op          string // UNION, EXCEPT, INTERSECT
		All         bool
		Left, Right Node
	}
	// Sort orders the rows of each batch, which ends when the first key changes.
	Sort struct {
		Input Node
		Keys  []SortKey
		// Time is the first key as a function of Rowtime; nil if it is data.
		Time Expr
		// Grouped marks that the first key is the time key of the groups below, so
		// that a batch is complete with its window.
		Grouped bool
		// Table sorts once, at the end.
		Table bool
	}
	// Limit ends after so many rows.
	Limit struct {
		Input Node
		Count int64
	}
	// TableFunction is one of the functions of spec 5.10.
	TableFunction struct {
		output
		Input Node
		Name  string
		// Column is the column the function is about; -1 if it takes all numeric ones.
		Column  int
		Numeric []int // columns that the learning functions take
		Args    []Value
	}
)

// SortKey is one key of a Sort.
type SortKey struct {
	Column     int
	Descending bool
	NullsFirst bool
}

// Agg is an aggregate.
type Agg struct {
	Func     string // count, sum, avg, min, max, stddev_pop, stddev_samp, var_pop, var_samp, any, every, first_value, last_value, exp_avg
	Arg      Expr   // nil for COUNT(*)
	Distinct bool
	HalfLife int64 // of exp_avg, milliseconds
	T        sql.Type
}

// Window is an aggregate or analytic function over a sliding window.
type Window struct {
	Agg         // Func may also be lag, nth_value
	PartitionBy []Expr
	Rows        bool
	Preceding   int64 // milliseconds or rows; Unbounded
	IgnoreNulls bool
	FromLast    bool
	Offset      Expr // of lag and nth_value
	Default     Expr // of lag; nil is NULL
}

// Unbounded is the size of a window without a bound.
const Unbounded = int64(-1)

// Columns implements Node for operators that pass their input's columns on.
func (n *Filter) Columns() []ColumnInfo   { return n.Input.Columns() }
func (n *Distinct) Columns() []ColumnInfo { return n.Input.Columns() }
func (n *Sort) Columns() []ColumnInfo     { return n.Input.Columns() }
func (n *Limit) Columns() []ColumnInfo    { return n.Input.Columns() }

// Inputs implements Node.
func (n *Scan) Inputs() []Node          { return nil }
func (n *TableScan) Inputs() []Node     { return nil }
func (n *Rows) Inputs() []Node          { return nil }
func (n *Filter) Inputs() []Node        { return []Node{n.Input} }
func (n *Project) Inputs() []Node       { return []Node{n.Input} }
func (n *Aggregate) Inputs() []Node     { return []Node{n.Input} }
func (n *Stagger) Inputs() []Node       { return []Node{n.Input} }
func (n *Distinct) Inputs() []Node      { return []Node{n.Input} }
func (n *Windowed) Inputs() []Node      { return []Node{n.Input} }
func (n *Join) Inputs() []Node          { return []Node{n.Left, n.Right} }
func (n *Lookup) Inputs() []Node        { return []Node{n.Input, n.Table} }
func (n *Union) Inputs() []Node         { return n.Branches }
func (n *SetOp) Inputs() []Node         { return []Node{n.Left, n.Right} }
func (n *Sort) Inputs() []Node          { return []Node{n.Input} }
func (n *Limit) Inputs() []Node         { return []Node{n.Input} }
func (n *TableFunction) Inputs() []Node { return []Node{n.Input} }

// Streaming reports whether a node reads a stream.
func Streaming(n Node) bool {
	if _, ok := n.(*Scan); ok {
		return true
	}
	for _, in := range n.Inputs() {
		if Streaming(in) {
			return true
		}
	}
	return false
}
