package sql

// Node is any part of the tree.
type Node interface {
	// Place is the piece of the program the node stands for.
	Place() Span
}

// node is embedded by all nodes.
type node struct{ span Span }

// Place implements Node.
func (n node) Place() Span { return n.span }

// Ident is one name, folded as it is stored.
type Ident struct {
	node
	Name   string
	Quoted bool
}

// Name is a possibly qualified name, outermost part first.
type Name struct {
	node
	Parts []Ident
}

// Last is the part that names the object itself.
func (n Name) Last() Ident { return n.Parts[len(n.Parts)-1] }

// Program is a sequence of statements.
type Program struct {
	Text       string
	Statements []Statement
	// Refused are the names that statements with errors were to give.
	Refused []Name
}

// Statement is one of CreateStream, CreatePump, CreateFunction, CreateView, Drop,
// AlterPump, SetSchema, Insert, QueryStatement, Explain.
type Statement interface {
	Node
	statement()
}

type (
	// CreateStream is CREATE STREAM.
	CreateStream struct {
		node
		Replace     bool
		Name        Name
		Columns     []ColumnDef
		Description *string
	}
	// ColumnDef is a column of a stream.
	ColumnDef struct {
		node
		Name    Ident
		Type    TypeName
		NotNull bool
	}
	// CreatePump is CREATE PUMP … AS INSERT ….
	CreatePump struct {
		node
		Replace     bool
		Name        Name
		Stopped     bool
		Description *string
		Insert      *Insert
	}
	// Insert is INSERT INTO; in a program of its own it runs once.
	Insert struct {
		node
		Expedited bool
		Target    Name
		Columns   []Ident // nil if all
		Query     *Query
	}
	// CreateFunction is CREATE FUNCTION with an SQL body.
	CreateFunction struct {
		node
		Replace     bool
		Name        Name
		Params      []ColumnDef
		Returns     TypeName
		NullOnNull  bool // RETURNS NULL ON NULL INPUT
		Determinism *bool
		Body        Expr
	}
	// CreateView is CREATE VIEW.
	CreateView struct {
		node
		Replace     bool
		Name        Name
		Columns     []Ident
		Description *string
		Query       *Query
	}
	// Drop is DROP STREAM, PUMP, FUNCTION or VIEW.
	Drop struct {
		node
		What    string // STREAM, PUMP, FUNCTION, VIEW
		Name    Name
		Cascade bool
	}
	// AlterPump is ALTER PUMP … START or STOP.
	AlterPump struct {
		node
		Names []Name // nil for ALL
		Stop  bool
	}
	// SetSchema is SET SCHEMA, which changes nothing.
	SetSchema struct {
		node
		Schema string
	}
	// QueryStatement is a query that stands alone.
	QueryStatement struct {
		node
		Query *Query
	}
	// Explain is EXPLAIN before another statement; an addition to the dialect.
	Explain struct {
		node
		Statement Statement
	}
)

func (*CreateStream) statement()   {}
func (*CreatePump) statement()     {}
func (*Insert) statement()         {}
func (*CreateFunction) statement() {}
func (*CreateView) statement()     {}
func (*Drop) statement()           {}
func (*AlterPump) statement()      {}
func (*SetSchema) statement()      {}
func (*QueryStatement) statement() {}
func (*Explain) statement()        {}

// TypeName is a type as written.
type TypeName struct {
	node
	Type Type
}

// Query is a query with what may stand around its body.
type Query struct {
	node
	With    []With // an addition to the dialect
	Body    Body
	OrderBy []SortItem
	Limit   Expr // nil without; an addition to the dialect
}

// With is one named query of a WITH clause.
type With struct {
	node
	Name    Ident
	Columns []Ident
	Query   *Query
}

// Body is one of Select, SetOperation, Values, or a nested Query.
type Body interface {
	Node
	body()
}

type (
	// Select is SELECT.
	Select struct {
		node
		Stream   bool // STREAM is written
		Distinct bool
		Items    []SelectItem
		From     TableRef // several separated by commas are a CROSS Join with Comma set
		Where    Expr
		GroupBy  []Expr
		Window   *WindowedBy
		Having   Expr
		Windows  []WindowDef
		Qualify  Expr // an addition to the dialect
	}
	// SelectItem is an expression, * or name.*.
	SelectItem struct {
		node
		Star  bool
		Of    *Name // of name.*
		Expr  Expr
		Alias *Ident
	}
	// WindowedBy is WINDOWED BY STAGGER, or SESSION, an addition to the dialect.
	WindowedBy struct {
		node
		Session     bool
		PartitionBy []Expr
		Length      Expr // of a stagger window its age, of a session the gap
	}
	// WindowDef is a named window.
	WindowDef struct {
		node
		Name Ident
		Spec *WindowSpec
	}
	// SetOperation is UNION, EXCEPT or INTERSECT.
	SetOperation struct {
		node
		Op          string
		All         bool
		Left, Right Body
	}
	// Values is VALUES.
	Values struct {
		node
		Rows [][]Expr
	}
)

func (*Select) body()       {}
func (*SetOperation) body() {}
func (*Values) body()       {}
func (*Query) body()        {}

// SortItem is one key of ORDER BY.
type SortItem struct {
	node
	Expr       Expr
	Descending bool
	NullsFirst *bool // nil if not said
}

// WindowSpec is what stands after OVER: a name, or a partition and a frame.
type WindowSpec struct {
	node
	Name        *Ident // OVER name, or the window that this one refines
	PartitionBy []Expr
	OrderBy     []SortItem
	Frame       *Frame
}

// Frame is ROWS or RANGE with its bounds.
type Frame struct {
	node
	Rows       bool
	Start, End Bound
}

// BoundKind says where a frame begins or ends.
type BoundKind uint8

// The bounds of frames.
const (
	CurrentRow BoundKind = iota
	Preceding
	Following
	UnboundedPreceding
	UnboundedFollowing
)

// Bound is one end of a frame.
type Bound struct {
	node
	Kind   BoundKind
	Offset Expr // of Preceding and Following
}

// TableRef is one of NamedTable, QueryTable, FunctionTable, Join.
type TableRef interface {
	Node
	table()
}

type (
	// NamedTable is a stream, view or reference table.
	NamedTable struct {
		node
		Name    Name
		Over    *WindowSpec
		Alias   *Ident
		Columns []Ident
	}
	// QueryTable is a query in FROM.
	QueryTable struct {
		node
		Query   *Query
		Over    *WindowSpec
		Alias   *Ident
		Columns []Ident
	}
	// FunctionTable is TABLE(f(…)).
	FunctionTable struct {
		node
		Call    *Call
		Over    *WindowSpec
		Alias   *Ident
		Columns []Ident
	}
	// Join joins two tables.
	Join struct {
		node
		Kind        JoinKind
		Natural     bool
		Comma       bool
		Left, Right TableRef
		On          Expr
		Using       []Ident
	}
)

func (*NamedTable) table()    {}
func (*QueryTable) table()    {}
func (*FunctionTable) table() {}
func (*Join) table()          {}

// JoinKind says which unmatched rows are kept.
type JoinKind uint8

// The joins.
const (
	InnerJoin JoinKind = iota
	LeftJoin
	RightJoin
	FullJoin
	CrossJoin
)

var joinNames = [...]string{"INNER JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"}

func (k JoinKind) String() string { return joinNames[k] }

// Expr is an expression.
type Expr interface {
	Node
	expr()
}

type (
	// Number is an unsigned numeric literal: INTEGER, BIGINT, DECIMAL or DOUBLE by
	// its form.
	Number struct {
		node
		Text string
		Type Type
	}
	// String is a character literal, of type CHAR of its length.
	String struct {
		node
		Value string
	}
	// Binary is X'…'.
	Binary struct {
		node
		Value []byte
	}
	// Boolean is TRUE or FALSE; UNKNOWN is a Null of type BOOLEAN.
	Boolean struct {
		node
		Value bool
	}
	// Null is NULL or UNKNOWN.
	Null struct {
		node
		Boolean bool
	}
	// Datetime is DATE '…', TIME '…' or TIMESTAMP '…'. Millis counts from
	// 1970-01-01 00:00:00, of a time from midnight.
	Datetime struct {
		node
		Kind   Kind
		Text   string
		Millis int64
	}
	// Interval is INTERVAL '…'. Value counts months or milliseconds.
	Interval struct {
		node
		Text      string
		Negative  bool
		Qualifier Qualifier
		Value     int64
	}
	// Column is a column, possibly qualified: table.column, or
	// alias.record.member.
	Column struct {
		node
		Parts []Ident
	}
	// Unary is a sign or NOT.
	Unary struct {
		node
		Op      string // + - NOT
		Operand Expr
	}
	// Operation is an infix operator: + - * / || = <> < <= > >= AND OR.
	Operation struct {
		node
		Op          string
		Left, Right Expr
	}
	// Difference is (a - b) qualifier.
	Difference struct {
		node
		Left, Right Expr
		Qualifier   Qualifier
	}
	// Is is IS [NOT] NULL, TRUE, FALSE or UNKNOWN.
	Is struct {
		node
		Operand Expr
		Not     bool
		What    string
	}
	// IsDistinct is IS [NOT] DISTINCT FROM.
	IsDistinct struct {
		node
		Left, Right Expr
		Not         bool
	}
	// Between is [NOT] BETWEEN.
	Between struct {
		node
		Operand, Low, High Expr
		Not, Symmetric     bool
	}
	// Like is [NOT] LIKE and SIMILAR TO.
	Like struct {
		node
		Operand, Pattern, Escape Expr // Escape is nil without
		Not, Similar             bool
	}
	// In is [NOT] IN.
	In struct {
		node
		Operand Expr
		Not     bool
		List    []Expr
		Query   *Query
	}
	// Period is a predicate on two periods.
	Period struct {
		node
		Op          string // as written, IMMEDIATELY PRECEDES and so on
		Left, Right Expr
	}
	// Exists is EXISTS (query).
	Exists struct {
		node
		Query *Query
	}
	// Subquery is a query as a value.
	Subquery struct {
		node
		Query *Query
	}
	// Row is (a, b, …).
	Row struct {
		node
		Items []Expr
	}
	// Case is CASE.
	Case struct {
		node
		Operand Expr // nil for the searched form
		Whens   []When
		Else    Expr
	}
	// When is one branch of a Case.
	When struct{ Condition, Result Expr }
	// Cast is CAST; Try is TRY_CAST, an addition to the dialect.
	Cast struct {
		node
		Operand Expr
		To      TypeName
		Try     bool
	}
	// FloorTo is FLOOR or CEIL of a date or time to a unit. Without a unit they are
	// Calls.
	FloorTo struct {
		node
		Ceil    bool
		Operand Expr
		Unit    Unit
	}
	// Step is STEP(x BY y).
	Step struct {
		node
		Operand, By Expr
	}
	// Extract is EXTRACT(unit FROM x).
	Extract struct {
		node
		Unit    Unit
		Operand Expr
	}
	// Substring is SUBSTRING in the form with FROM, where From may be a regular
	// expression. With commas it is a Call.
	Substring struct {
		node
		Operand, From, For Expr // For is nil without
	}
	// SubstringSimilar is SUBSTRING(x SIMILAR pattern ESCAPE e).
	SubstringSimilar struct {
		node
		Operand, Pattern, Escape Expr
	}
	// Overlay is OVERLAY(x PLACING y FROM i FOR n).
	Overlay struct {
		node
		Operand, Placing, From, For Expr // For is nil without
	}
	// Position is POSITION(x IN y).
	Position struct {
		node
		Needle, Operand Expr
	}
	// Trim is TRIM.
	Trim struct {
		node
		Side    string // LEADING, TRAILING, BOTH
		Chars   Expr   // nil for a blank
		Operand Expr
	}
	// Call is a function with arguments in the ordinary form, and what analytic
	// functions have after it.
	Call struct {
		node
		Name        Ident
		Star        bool // COUNT(*)
		Distinct    bool
		Args        []Expr
		FromLast    bool  // NTH_VALUE … FROM LAST
		IgnoreNulls *bool // nil if neither IGNORE nor RESPECT NULLS is written
		Filter      Expr  // refused by plan
		Over        *WindowSpec
	}
	// Cursor is CURSOR(query), an argument of table functions.
	Cursor struct {
		node
		Query *Query
	}
)

// ColumnOf is a column of which only the name is known.
func ColumnOf(name Ident) *Column { return &Column{name.node, []Ident{name}} }

func (*Number) expr()           {}
func (*String) expr()           {}
func (*Binary) expr()           {}
func (*Boolean) expr()          {}
func (*Null) expr()             {}
func (*Datetime) expr()         {}
func (*Interval) expr()         {}
func (*Column) expr()           {}
func (*Unary) expr()            {}
func (*Operation) expr()        {}
func (*Difference) expr()       {}
func (*Is) expr()               {}
func (*IsDistinct) expr()       {}
func (*Between) expr()          {}
func (*Like) expr()             {}
func (*In) expr()               {}
func (*Period) expr()           {}
func (*Exists) expr()           {}
func (*Subquery) expr()         {}
func (*Row) expr()              {}
func (*Case) expr()             {}
func (*Cast) expr()             {}
func (*FloorTo) expr()          {}
func (*Step) expr()             {}
func (*Extract) expr()          {}
func (*Substring) expr()        {}
func (*SubstringSimilar) expr() {}
func (*Overlay) expr()          {}
func (*Position) expr()         {}
func (*Trim) expr()             {}
func (*Call) expr()             {}
func (*Cursor) expr()           {}
