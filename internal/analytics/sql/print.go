package sql

import (
	"fmt"
	"strings"
)

// Text is an expression in a canonical form, fully in parentheses: two
// expressions of the same form mean the same wherever both may stand.
func Text(e Expr) string {
	var b strings.Builder
	write(&b, e)
	return b.String()
}

// Quote is a name as it is written in a program, in quotes if it needs them.
func Quote(name string) string {
	plain := name != "" && isLetter(name[0]) && name == strings.ToUpper(name) && !reserved[name]
	for i := range len(name) {
		plain = plain && (isLetter(name[i]) || isDigit(name[i]))
	}
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func quoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func writeList(b *strings.Builder, list []Expr) {
	for i, e := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		write(b, e)
	}
}

func not(yes bool) string {
	if yes {
		return "NOT "
	}
	return ""
}

func write(b *strings.Builder, e Expr) {
	p := func(format string, args ...any) {
		for i, a := range args {
			if x, ok := a.(Expr); ok {
				args[i] = Text(x)
			}
		}
		fmt.Fprintf(b, format, args...)
	}
	switch e := e.(type) {
	case *Number:
		b.WriteString(e.Text)
	case *String:
		b.WriteString(quoteString(e.Value))
	case *Binary:
		p("X'%X'", e.Value)
	case *Boolean:
		b.WriteString(strings.ToUpper(fmt.Sprint(e.Value)))
	case *Null:
		if e.Boolean {
			b.WriteString("UNKNOWN")
		} else {
			b.WriteString("NULL")
		}
	case *Datetime:
		p("%s '%s'", e.Kind, e.Text)
	case *Interval:
		sign := ""
		if e.Negative {
			sign = "-"
		}
		p("INTERVAL %s'%s' %s", sign, e.Text, e.Qualifier)
	case *Column:
		for i, part := range e.Parts {
			if i > 0 {
				b.WriteByte('.')
			}
			if systemColumns[part.Name] && !part.Quoted {
				b.WriteString(part.Name)
			} else {
				b.WriteString(Quote(part.Name))
			}
		}
	case *Unary:
		p("(%s %s)", e.Op, e.Operand)
	case *Operation:
		p("(%s %s %s)", e.Left, e.Op, e.Right)
	case *Difference:
		p("(%s - %s) %s", e.Left, e.Right, e.Qualifier)
	case *Is:
		p("(%s IS %s%s)", e.Operand, not(e.Not), e.What)
	case *IsDistinct:
		p("(%s IS %sDISTINCT FROM %s)", e.Left, not(e.Not), e.Right)
	case *Between:
		symmetric := ""
		if e.Symmetric {
			symmetric = "SYMMETRIC "
		}
		p("(%s %sBETWEEN %s%s AND %s)", e.Operand, not(e.Not), symmetric, e.Low, e.High)
	case *Like:
		word := "LIKE"
		if e.Similar {
			word = "SIMILAR TO"
		}
		p("(%s %s%s %s", e.Operand, not(e.Not), word, e.Pattern)
		if e.Escape != nil {
			p(" ESCAPE %s", e.Escape)
		}
		b.WriteByte(')')
	case *In:
		p("(%s %sIN (", e.Operand, not(e.Not))
		if e.Query != nil {
			writeQuery(b, e.Query)
		} else {
			writeList(b, e.List)
		}
		b.WriteString("))")
	case *Period:
		p("(%s %s %s)", e.Left, e.Op, e.Right)
	case *Exists:
		b.WriteString("EXISTS (")
		writeQuery(b, e.Query)
		b.WriteByte(')')
	case *Subquery:
		b.WriteByte('(')
		writeQuery(b, e.Query)
		b.WriteByte(')')
	case *Row:
		b.WriteString("ROW(")
		writeList(b, e.Items)
		b.WriteByte(')')
	case *Case:
		b.WriteString("CASE")
		if e.Operand != nil {
			p(" %s", e.Operand)
		}
		for _, w := range e.Whens {
			p(" WHEN %s THEN %s", w.Condition, w.Result)
		}
		if e.Else != nil {
			p(" ELSE %s", e.Else)
		}
		b.WriteString(" END")
	case *Cast:
		word := "CAST"
		if e.Try {
			word = "TRY_CAST"
		}
		p("%s(%s AS %s)", word, e.Operand, e.To.Type)
	case *FloorTo:
		word := "FLOOR"
		if e.Ceil {
			word = "CEIL"
		}
		p("%s(%s TO %s)", word, e.Operand, e.Unit)
	case *Step:
		p("STEP(%s BY %s)", e.Operand, e.By)
	case *Extract:
		p("EXTRACT(%s FROM %s)", e.Unit, e.Operand)
	case *Substring:
		p("SUBSTRING(%s FROM %s", e.Operand, e.From)
		if e.For != nil {
			p(" FOR %s", e.For)
		}
		b.WriteByte(')')
	case *SubstringSimilar:
		p("SUBSTRING(%s SIMILAR %s ESCAPE %s)", e.Operand, e.Pattern, e.Escape)
	case *Overlay:
		p("OVERLAY(%s PLACING %s FROM %s", e.Operand, e.Placing, e.From)
		if e.For != nil {
			p(" FOR %s", e.For)
		}
		b.WriteByte(')')
	case *Position:
		p("POSITION(%s IN %s)", e.Needle, e.Operand)
	case *Trim:
		p("TRIM(%s ", e.Side)
		if e.Chars != nil {
			p("%s ", e.Chars)
		}
		p("FROM %s)", e.Operand)
	case *Call:
		writeCall(b, e)
	case *Cursor:
		b.WriteString("CURSOR(")
		writeQuery(b, e.Query)
		b.WriteByte(')')
	default:
		panic(fmt.Sprintf("sql: %T has no text", e))
	}
}

func writeCall(b *strings.Builder, c *Call) {
	if reserved[c.Name.Name] && !c.Name.Quoted {
		b.WriteString(c.Name.Name)
	} else {
		b.WriteString(Quote(c.Name.Name))
	}
	if valueWords[c.Name.Name] {
		return
	}
	b.WriteByte('(')
	if c.Star {
		b.WriteByte('*')
	}
	if c.Distinct {
		b.WriteString("DISTINCT ")
	}
	writeList(b, c.Args)
	b.WriteByte(')')
	if c.FromLast {
		b.WriteString(" FROM LAST")
	}
	if c.IgnoreNulls != nil {
		b.WriteString(map[bool]string{true: " IGNORE NULLS", false: " RESPECT NULLS"}[*c.IgnoreNulls])
	}
	if c.Filter != nil {
		b.WriteString(" FILTER (WHERE ")
		write(b, c.Filter)
		b.WriteByte(')')
	}
	if c.Over != nil {
		b.WriteString(" OVER ")
		writeWindow(b, c.Over)
	}
}

func writeWindow(b *strings.Builder, w *WindowSpec) {
	if w.Name != nil && w.PartitionBy == nil && w.OrderBy == nil && w.Frame == nil {
		b.WriteString(Quote(w.Name.Name))
		return
	}
	var parts []string
	if w.Name != nil {
		parts = append(parts, Quote(w.Name.Name))
	}
	if w.PartitionBy != nil {
		var list strings.Builder
		writeList(&list, w.PartitionBy)
		parts = append(parts, "PARTITION BY "+list.String())
	}
	if w.OrderBy != nil {
		parts = append(parts, sortText(w.OrderBy))
	}
	if f := w.Frame; f != nil {
		unit := "RANGE"
		if f.Rows {
			unit = "ROWS"
		}
		parts = append(parts, fmt.Sprintf("%s BETWEEN %s AND %s", unit, boundText(f.Start), boundText(f.End)))
	}
	b.WriteString("(" + strings.Join(parts, " ") + ")")
}

func boundText(bound Bound) string {
	switch bound.Kind {
	case Preceding:
		return Text(bound.Offset) + " PRECEDING"
	case Following:
		return Text(bound.Offset) + " FOLLOWING"
	case UnboundedPreceding:
		return "UNBOUNDED PRECEDING"
	case UnboundedFollowing:
		return "UNBOUNDED FOLLOWING"
	}
	return "CURRENT ROW"
}

func sortText(items []SortItem) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = Text(item.Expr)
		if item.Descending {
			texts[i] += " DESC"
		}
		if item.NullsFirst != nil {
			texts[i] += map[bool]string{true: " NULLS FIRST", false: " NULLS LAST"}[*item.NullsFirst]
		}
	}
	return "ORDER BY " + strings.Join(texts, ", ")
}

// QueryText is a query in a canonical form.
func QueryText(q *Query) string {
	var b strings.Builder
	writeQuery(&b, q)
	return b.String()
}

func writeQuery(b *strings.Builder, q *Query) {
	for i, w := range q.With {
		b.WriteString(map[bool]string{true: "WITH ", false: ", "}[i == 0])
		b.WriteString(Quote(w.Name.Name) + identsText(w.Columns) + " AS (")
		writeQuery(b, w.Query)
		b.WriteByte(')')
	}
	if len(q.With) > 0 {
		b.WriteByte(' ')
	}
	writeBody(b, q.Body)
	if q.OrderBy != nil {
		b.WriteString(" " + sortText(q.OrderBy))
	}
	if q.Limit != nil {
		b.WriteString(" LIMIT ")
		write(b, q.Limit)
	}
}

func writeBody(b *strings.Builder, body Body) {
	switch body := body.(type) {
	case *Query:
		b.WriteByte('(')
		writeQuery(b, body)
		b.WriteByte(')')
	case *SetOperation:
		// Left-associative; the right side is a factor.
		writeBody(b, body.Left)
		b.WriteString(" " + body.Op)
		if body.All {
			b.WriteString(" ALL")
		}
		b.WriteByte(' ')
		writeBody(b, body.Right)
	case *Values:
		b.WriteString("VALUES ")
		for i, row := range body.Rows {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteByte('(')
			writeList(b, row)
			b.WriteByte(')')
		}
	case *Select:
		writeSelect(b, body)
	}
}

func writeSelect(b *strings.Builder, s *Select) {
	b.WriteString("SELECT ")
	if s.Stream {
		b.WriteString("STREAM ")
	}
	if s.Distinct {
		b.WriteString("DISTINCT ")
	}
	for i, item := range s.Items {
		if i > 0 {
			b.WriteString(", ")
		}
		switch {
		case item.Of != nil:
			b.WriteString(nameText(*item.Of) + ".*")
		case item.Star:
			b.WriteByte('*')
		default:
			write(b, item.Expr)
			if item.Alias != nil {
				b.WriteString(" AS " + aliasText(*item.Alias))
			}
		}
	}
	b.WriteString(" FROM ")
	writeTable(b, s.From)
	clause := func(word string, e Expr) {
		if e != nil {
			b.WriteString(" " + word + " ")
			write(b, e)
		}
	}
	clause("WHERE", s.Where)
	if s.GroupBy != nil {
		b.WriteString(" GROUP BY ")
		writeList(b, s.GroupBy)
	}
	if w := s.Window; w != nil {
		kind, length := "STAGGER", "RANGE"
		if w.Session {
			kind, length = "SESSION", "GAP"
		}
		b.WriteString(" WINDOWED BY " + kind + " (PARTITION BY ")
		writeList(b, w.PartitionBy)
		b.WriteString(" " + length + " ")
		write(b, w.Length)
		b.WriteByte(')')
	}
	clause("HAVING", s.Having)
	for i, w := range s.Windows {
		b.WriteString(map[bool]string{true: " WINDOW ", false: ", "}[i == 0])
		b.WriteString(Quote(w.Name.Name) + " AS ")
		if w.Spec.Name != nil && w.Spec.PartitionBy == nil && w.Spec.OrderBy == nil && w.Spec.Frame == nil {
			b.WriteString("(" + Quote(w.Spec.Name.Name) + ")")
		} else {
			writeWindow(b, w.Spec)
		}
	}
	clause("QUALIFY", s.Qualify)
}

func aliasText(i Ident) string {
	if i.Name == "ROWTIME" && !i.Quoted {
		return i.Name
	}
	return Quote(i.Name)
}

func nameText(n Name) string {
	parts := make([]string, len(n.Parts))
	for i, p := range n.Parts {
		parts[i] = Quote(p.Name)
	}
	return strings.Join(parts, ".")
}

func identsText(list []Ident) string {
	if list == nil {
		return ""
	}
	names := make([]string, len(list))
	for i, id := range list {
		names[i] = aliasText(id)
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func writeTable(b *strings.Builder, t TableRef) {
	tail := func(over *WindowSpec, alias *Ident, columns []Ident) {
		if over != nil {
			b.WriteString(" OVER ")
			writeWindow(b, over)
		}
		if alias != nil {
			b.WriteString(" AS " + Quote(alias.Name) + identsText(columns))
		}
	}
	switch t := t.(type) {
	case *NamedTable:
		b.WriteString(nameText(t.Name))
		tail(t.Over, t.Alias, t.Columns)
	case *QueryTable:
		b.WriteByte('(')
		writeQuery(b, t.Query)
		b.WriteByte(')')
		tail(t.Over, t.Alias, t.Columns)
	case *FunctionTable:
		b.WriteString("TABLE(")
		writeCall(b, t.Call)
		b.WriteByte(')')
		tail(t.Over, t.Alias, t.Columns)
	case *Join:
		writeTable(b, t.Left)
		if t.Comma {
			b.WriteString(", ")
		} else {
			b.WriteByte(' ')
			if t.Natural {
				b.WriteString("NATURAL ")
			}
			b.WriteString(t.Kind.String() + " ")
		}
		writeTable(b, t.Right)
		if t.On != nil {
			b.WriteString(" ON ")
			write(b, t.On)
		}
		if t.Using != nil {
			b.WriteString(" USING" + identsText(t.Using))
		}
	}
}

// StatementText is a statement in a canonical form.
func StatementText(s Statement) string {
	var b strings.Builder
	replace := func(yes bool) {
		b.WriteString("CREATE ")
		if yes {
			b.WriteString("OR REPLACE ")
		}
	}
	described := func(text *string) {
		if text != nil {
			b.WriteString(" DESCRIPTION " + quoteString(*text))
		}
	}
	columns := func(list []ColumnDef) {
		b.WriteString(" (")
		for i, c := range list {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(Quote(c.Name.Name) + " " + c.Type.Type.String())
			if c.NotNull {
				b.WriteString(" NOT NULL")
			}
		}
		b.WriteByte(')')
	}
	switch s := s.(type) {
	case *CreateStream:
		replace(s.Replace)
		b.WriteString("STREAM " + nameText(s.Name))
		columns(s.Columns)
		described(s.Description)
	case *CreatePump:
		replace(s.Replace)
		b.WriteString("PUMP " + nameText(s.Name))
		if s.Stopped {
			b.WriteString(" STOPPED")
		}
		described(s.Description)
		b.WriteString(" AS " + StatementText(s.Insert))
	case *CreateFunction:
		replace(s.Replace)
		b.WriteString("FUNCTION " + nameText(s.Name))
		columns(s.Params)
		b.WriteString(" RETURNS " + s.Returns.Type.String())
		if s.Determinism != nil {
			b.WriteString(" " + not(!*s.Determinism) + "DETERMINISTIC")
		}
		if s.NullOnNull {
			b.WriteString(" RETURNS NULL ON NULL INPUT")
		}
		b.WriteString(" RETURN ")
		write(&b, s.Body)
	case *CreateView:
		replace(s.Replace)
		b.WriteString("VIEW " + nameText(s.Name) + identsText(s.Columns))
		described(s.Description)
		b.WriteString(" AS ")
		writeQuery(&b, s.Query)
	case *Drop:
		b.WriteString("DROP " + s.What + " " + nameText(s.Name))
		if s.Cascade {
			b.WriteString(" CASCADE")
		}
	case *AlterPump:
		b.WriteString("ALTER PUMP ")
		for i, n := range s.Names {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(nameText(n))
		}
		if s.Names == nil {
			b.WriteString("ALL")
		}
		b.WriteString(map[bool]string{true: " STOP", false: " START"}[s.Stop])
	case *SetSchema:
		b.WriteString("SET SCHEMA " + quoteString(s.Schema))
	case *Insert:
		b.WriteString("INSERT ")
		if s.Expedited {
			b.WriteString("EXPEDITED ")
		}
		b.WriteString("INTO " + nameText(s.Target) + identsText(s.Columns) + " ")
		writeQuery(&b, s.Query)
	case *QueryStatement:
		writeQuery(&b, s.Query)
	case *Explain:
		b.WriteString("EXPLAIN " + StatementText(s.Statement))
	}
	return b.String()
}
