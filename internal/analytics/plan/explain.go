package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// Explain shows a program as the operators of its pumps, the last one first, with
// what each keeps in memory.
func Explain(p *Program) string {
	var b strings.Builder
	for _, pump := range p.Pumps {
		state := ""
		if pump.Stopped {
			state = " (stopped)"
		}
		fmt.Fprintf(&b, "pump %s into %s%s\n", sql.Quote(pump.Name), sql.Quote(pump.Target.Name), state)
		explain(&b, pump.Root, 1)
	}
	return b.String()
}

func explain(b *strings.Builder, n Node, depth int) {
	fmt.Fprintf(b, "%s%s\n", strings.Repeat("  ", depth), describe(n))
	visitExprs(n, func(e Expr) {
		Walk(e, func(part Expr) {
			if s, ok := part.(*Subquery); ok {
				fmt.Fprintf(b, "%s%s\n", strings.Repeat("  ", depth+1), subqueryNames[s.Kind])
				explain(b, s.Query, depth+2)
			}
		})
	})
	for _, in := range n.Inputs() {
		explain(b, in, depth+1)
	}
}

func describe(n Node) string {
	in := func(i int) []ColumnInfo { return n.Inputs()[i].Columns() }
	switch n := n.(type) {
	case *Scan:
		kind := "stream"
		if n.Stream.Source {
			kind = "input stream"
		}
		return kind + " " + sql.Quote(n.Stream.Name)
	case *TableScan:
		return "reference table " + sql.Quote(n.Table.Name)
	case *Rows:
		return fmt.Sprintf("%d constant rows", len(n.Values))
	case *Filter:
		return "filter " + exprText(n.Condition, in(0))
	case *Project:
		text := "project " + exprTexts(n.Exprs, in(0))
		if n.Time != nil {
			text += "; ROWTIME is " + exprText(n.Time, in(0)) + ", which the clock does not advance"
		}
		return text
	case *Aggregate:
		when := "at the end of the table"
		switch {
		case n.Time != nil:
			when = "when " + exprText(n.Keys[n.TimeIndex], in(0)) + " changes"
		case n.Order >= 0:
			when = "when " + exprText(n.Keys[n.Order], in(0)) + " changes, which takes a row"
		}
		return fmt.Sprintf("group by %s: %s; complete %s; keeps the groups of one window", exprTexts(n.Keys, in(0)), aggTexts(n.Aggs, in(0)), when)
	case *Stagger:
		kind := "stagger"
		if n.Session {
			kind = "session"
		}
		return fmt.Sprintf("%s window of %s by %s: %s; keeps the open windows", kind, millis(n.Length), exprTexts(n.Keys, in(0)), aggTexts(n.Aggs, in(0)))
	case *Distinct:
		if n.Key < 0 {
			return "distinct"
		}
		return fmt.Sprintf("distinct; keeps the rows of one value of %s", sql.Quote(n.Columns()[n.Key].Name))
	case *Windowed:
		var texts []string
		for _, w := range n.Windows {
			text := aggText(w.Agg, in(0)) + " over "
			if len(w.PartitionBy) > 0 {
				text += "each " + exprTexts(w.PartitionBy, in(0)) + ", "
			}
			switch {
			case w.Preceding == Unbounded:
				text += "all rows so far, which are kept for ever"
			case w.Rows:
				text += fmt.Sprintf("%d rows", w.Preceding+1)
			default:
				text += "the last " + millis(w.Preceding)
			}
			texts = append(texts, text)
		}
		return "window " + strings.Join(texts, "; ")
	case *Join:
		side := func(rows bool, size int64) string {
			if rows {
				return fmt.Sprintf("%d rows", size+1)
			}
			return millis(size)
		}
		text := fmt.Sprintf("%s, keeps %s on the left and %s on the right", strings.ToLower(n.Kind.String()), side(n.LeftRows, n.LeftWindow), side(n.RightRows, n.RightWindow))
		for i := range n.LeftKeys {
			text += fmt.Sprintf("; %s = %s", exprText(n.LeftKeys[i], in(0)), exprText(n.RightKeys[i], in(1)))
		}
		if n.Condition != nil {
			text += "; and " + exprText(n.Condition, n.Columns())
		}
		return text
	case *SemiJoin:
		text := "rows that meet one"
		if n.Anti {
			text = "rows that meet none"
		}
		if n.Rows {
			text += fmt.Sprintf(" of the last %d rows", n.Window+1)
		} else {
			text += " of " + millis(n.Window)
		}
		for i := range n.InputKeys {
			text += fmt.Sprintf("; %s = %s", exprText(n.InputKeys[i], in(0)), exprText(n.OtherKeys[i], in(1)))
		}
		if n.Condition != nil {
			both := append(append(append([]ColumnInfo(nil), in(0)...), ColumnInfo{Name: "ROWTIME"}), in(1)...)
			text += "; and " + exprText(n.Condition, append(both, ColumnInfo{Name: "ROWTIME"}))
		}
		return text
	case *Lookup:
		text := "look up"
		if n.Left {
			text += ", keeping rows without a match"
		}
		for i := range n.InputKeys {
			text += fmt.Sprintf("; %s = %s", exprText(n.InputKeys[i], in(0)), exprText(n.TableKeys[i], in(1)))
		}
		if n.Condition != nil {
			text += "; and " + exprText(n.Condition, n.Columns())
		}
		return text
	case *Union:
		return "union all in order of ROWTIME; keeps what waits for the slower side"
	case *SetOp:
		return strings.ToLower(n.Op) + " of tables"
	case *Sort:
		if n.Table {
			return "sort"
		}
		key := sql.Quote(n.Columns()[n.Keys[0].Column].Name)
		if p, ok := n.Input.(*Project); ok {
			key = exprText(p.Exprs[n.Keys[0].Column], p.Input.Columns())
		}
		return "sort each batch of one " + key + "; keeps one batch"
	case *Limit:
		return fmt.Sprintf("the first %d rows", n.Count)
	case *TableFunction:
		return "table function " + n.Name
	}
	return fmt.Sprintf("%T", n)
}

func millis(ms int64) string {
	if ms == 0 {
		return "the current instant"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func aggTexts(aggs []Agg, columns []ColumnInfo) string {
	texts := make([]string, len(aggs))
	for i, a := range aggs {
		texts[i] = aggText(a, columns)
	}
	return strings.Join(texts, ", ")
}

func aggText(a Agg, columns []ColumnInfo) string {
	arg := "*"
	if a.Arg != nil {
		arg = exprText(a.Arg, columns)
	}
	if a.Distinct {
		arg = "distinct " + arg
	}
	return a.Func + "(" + arg + ")"
}

func exprTexts(list []Expr, columns []ColumnInfo) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = exprText(e, columns)
	}
	return strings.Join(texts, ", ")
}

// exprText shows an expression with the names of its columns.
func exprText(e Expr, columns []ColumnInfo) string {
	switch e := e.(type) {
	case *Column:
		if e.Index < len(columns) && columns[e.Index].Name != "" {
			return sql.Quote(columns[e.Index].Name)
		}
		return fmt.Sprintf("#%d", e.Index)
	case *Rowtime:
		return "ROWTIME"
	case *Const:
		switch {
		case e.Value.Null:
			return "NULL"
		case ClassOf(e.T) == ClassString:
			return "'" + strings.ReplaceAll(e.Value.S, "'", "''") + "'"
		case e.T.Kind == sql.KindInterval && !e.T.Interval.YearMonth():
			return millis(e.Value.I)
		case e.T.Kind == sql.KindTimestamp:
			return time.UnixMilli(e.Value.I).UTC().Format("2006-01-02 15:04:05.999")
		}
		return valueText(e.Value, e.T)
	case *Call:
		args := make([]string, len(e.Args))
		for i, a := range e.Args {
			args[i] = exprText(a, columns)
		}
		if e.Unit != sql.UnitNone {
			return fmt.Sprintf("%s(%s %s)", strings.TrimSuffix(e.Func, "_to"), args[0], strings.ToLower(e.Unit.String()))
		}
		if len(args) == 2 && !isWordFunction(e.Func) {
			return "(" + args[0] + " " + e.Func + " " + args[1] + ")"
		}
		return e.Func + "(" + strings.Join(args, ", ") + ")"
	case *Case:
		text := "case"
		for _, w := range e.Whens {
			text += " when " + exprText(w.Condition, columns) + " then " + exprText(w.Result, columns)
		}
		return text + " else " + exprText(e.Else, columns) + " end"
	case *Cast:
		return "(" + exprText(e.Arg, columns) + " as " + e.T.String() + ")"
	case *Field:
		return exprText(e.Arg, columns) + "." + e.Arg.Type().Fields[e.Index].Name
	case *Param:
		return "outer " + e.Name
	case *Subquery:
		switch e.Kind {
		case ExistsQuery:
			return "exists(query)"
		case InQuery:
			return "(" + exprTexts(e.Operand, columns) + ") in (query)"
		}
		return "(query)"
	}
	return fmt.Sprintf("%T", e)
}

func isWordFunction(name string) bool {
	return name != "and" && name != "or" && name[0]|0x20 >= 'a' && name[0]|0x20 <= 'z'
}

// Ends are the streams that pumps write to and none reads, in order of creation.
func Ends(p *Program) []string {
	read := map[*Stream]bool{}
	for _, pump := range p.Pumps {
		visit(pump.Root, func(n Node) {
			if s, ok := n.(*Scan); ok {
				read[s.Stream] = true
			}
		})
	}
	var names []string
	for _, s := range p.Streams {
		if !s.Source && !read[s] {
			names = append(names, s.Name)
		}
	}
	return names
}
