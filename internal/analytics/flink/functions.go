package flink

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
	columns "github.com/millrace/millrace/internal/analytics/text"
)

// aggregateNames are the functions of groups and windows that mean the same.
var aggregateNames = map[string]string{
	"COUNT": "COUNT", "SUM": "SUM", "AVG": "AVG", "MIN": "MIN", "MAX": "MAX", "STDDEV_POP": "STDDEV_POP", "STDDEV_SAMP": "STDDEV_SAMP", "STDDEV": "STDDEV_SAMP",
	"STD_DEV": "STDDEV_SAMP", "VAR_POP": "VAR_POP", "VAR_SAMP": "VAR_SAMP", "FIRST_VALUE": "FIRST_VALUE", "LAST_VALUE": "LAST_VALUE", "LAG": "LAG",
	"ANY": "", "SOME": "", "EVERY": "", "EXP_AVG": "", "NTH_VALUE": "",
}

// scalarNames are scalar functions that only need their name carried over.
var scalarNames = map[string]string{
	"ABS": "ABS", "CEIL": "CEIL", "CEILING": "CEIL", "FLOOR": "FLOOR", "MOD": "MOD", "POWER": "POWER", "EXP": "EXP", "LN": "LN", "LOG10": "LOG10", "SQRT": "SQRT",
	"COALESCE": "COALESCE", "NULLIF": "NULLIF", "CHAR_LENGTH": "CHAR_LENGTH", "CHARACTER_LENGTH": "CHAR_LENGTH", "UPPER": "UPPER", "LOWER": "LOWER",
	"INITCAP": "INITCAP", "SUBSTRING": "SUBSTRING", "JSON_VALUE": "JSON_VALUE", "JSON_QUERY": "JSON_QUERY",
}

func isAggregate(call *sql.Call) bool {
	_, ok := aggregateNames[call.Name.Name]
	return ok
}

// aggregates reports whether a SELECT without GROUP BY aggregates all the same.
func aggregates(s *sql.Select) bool {
	found := false
	for _, it := range s.Items {
		walk(it.Expr, func(e sql.Expr) bool {
			call, ok := e.(*sql.Call)
			if ok && call.Over != nil {
				return false
			}
			found = found || ok && isAggregate(call)
			return true
		})
	}
	return found
}

// over translates a function with its window.
func (t *translator) over(s *scope, call *sql.Call, spec string) string {
	return t.aggregate(s, call) + " OVER (" + spec + ")"
}

func (t *translator) arguments(s *scope, list []sql.Expr) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = t.expr(s, a)
	}
	return strings.Join(out, ", ")
}

func (t *translator) aggregate(s *scope, call *sql.Call) string {
	name := call.Name.Name
	switch name {
	case "EXP_AVG":
		return t.missing(call, name, "Flink has no mean whose weights halve with age; write an aggregate function in Java")
	case "NTH_VALUE":
		return t.missing(call, name, "Flink has only the first and the last value of a window")
	case "ANY", "SOME":
		x := t.expr(s, call.Args[0])
		return "(MAX(CASE WHEN " + x + " THEN 1 WHEN NOT (" + x + ") THEN 0 END) = 1)"
	case "EVERY":
		x := t.expr(s, call.Args[0])
		return "(MIN(CASE WHEN " + x + " THEN 1 WHEN NOT (" + x + ") THEN 0 END) = 1)"
	case "FIRST_VALUE", "LAST_VALUE":
		if s.sessions {
			return t.missing(call, name, "Flink does not compute it in sessions; take the minimum or maximum of something that grows with time")
		}
		if call.IgnoreNulls == nil || !*call.IgnoreNulls {
			t.differs(call, name, "NULLs are passed over in Flink, as with IGNORE NULLS")
		}
	case "LAG":
		if call.IgnoreNulls != nil && *call.IgnoreNulls {
			return t.missing(call, "LAG … IGNORE NULLS", "LAG counts NULLs in Flink")
		}
	}
	args := t.arguments(s, call.Args)
	if call.Star {
		args = "*"
	}
	if call.Distinct {
		args = "DISTINCT " + args
	}
	return aggregateNames[name] + "(" + args + ")"
}

// call translates a function.
func (t *translator) call(s *scope, e *sql.Call) string {
	name := e.Name.Name
	if out, ok := t.inlined(s, e); ok {
		return out
	}
	if isAggregate(e) {
		return t.aggregate(s, e)
	}
	if same, ok := scalarNames[name]; ok {
		if name == "SUBSTRING" && len(e.Args) > 1 {
			t.differs(e, "SUBSTRING behind the end", "it is an empty text in Flink, and NULL in this form of the dialect")
		}
		return same + "(" + t.arguments(s, e.Args) + ")"
	}
	arg := func(i int) string { return t.expr(s, e.Args[i]) }
	switch name {
	case "REGEX_REPLACE":
		start, _ := t.boundOf(e.Args[3]).(*plan.Const)
		occurrence, _ := t.boundOf(e.Args[4]).(*plan.Const)
		if !one(start, 1) || !one(occurrence, 0) {
			return t.missing(e, name, "REGEXP_REPLACE of Flink replaces every match from the first character on")
		}
		return "REGEXP_REPLACE(" + arg(0) + ", " + arg(1) + ", " + arg(2) + ")"
	case "CHAR_TO_TIMESTAMP", "CHAR_TO_DATE", "CHAR_TO_TIME":
		t.differs(e, name, "a text that does not fit the pattern is NULL in Flink, and must fit it as a whole; patterns are those of DateTimeFormatter")
		switch name {
		case "CHAR_TO_DATE":
			return "TO_DATE(" + arg(1) + ", " + arg(0) + ")"
		case "CHAR_TO_TIME":
			return "CAST(TO_TIMESTAMP(" + arg(1) + ", " + arg(0) + ") AS TIME(0))"
		}
		return "TO_TIMESTAMP(" + arg(1) + ", " + arg(0) + ")"
	case "TIMESTAMP_TO_CHAR":
		t.differs(e, name, "a NULL stays NULL in Flink, and is the text null here; patterns are those of DateTimeFormatter")
		return "DATE_FORMAT(" + arg(1) + ", " + arg(0) + ")"
	case "DATE_TO_CHAR":
		t.differs(e, name, "a NULL stays NULL in Flink, and is the text null here; patterns are those of DateTimeFormatter")
		return "DATE_FORMAT(CAST(" + arg(1) + " AS TIMESTAMP(3)), " + arg(0) + ")"
	case "TIME_TO_CHAR":
		return t.missing(e, name, "Flink formats no TIME; keep a TIMESTAMP and use DATE_FORMAT")
	case "TO_TIMESTAMP":
		return "CAST(TO_TIMESTAMP_LTZ(" + arg(0) + ", 3) AS TIMESTAMP(3))"
	case "UNIX_TIMESTAMP":
		return milliseconds(t.expr(s, e.Args[0]))
	case "TSDIFF":
		if integer(t.typeOf(e.Args[0]).Kind) {
			return "(" + t.operand(s, e.Args[0], sum) + " - " + t.operand(s, e.Args[1], product) + ")"
		}
		return "(" + milliseconds(arg(0)) + " - " + milliseconds(arg(1)) + ")"
	case "MONOTONIC":
		return arg(0)
	case "CURRENT_ROW_TIMESTAMP":
		return "CAST(CURRENT_ROW_TIMESTAMP() AS TIMESTAMP(3))"
	case "CURRENT_TIMESTAMP", "LOCALTIMESTAMP":
		t.differs(e, name, "it is the time of each row in Flink, and the start of the application here")
		return "LOCALTIMESTAMP"
	case "CURRENT_DATE":
		t.differs(e, name, "it is the day of each row in Flink, and of the start of the application here")
		return "CURRENT_DATE"
	case "CURRENT_TIME", "LOCALTIME":
		t.differs(e, name, "it is the time of each row in Flink, and the start of the application here")
		return "LOCALTIME"
	}
	return t.missing(e, name, "it has no counterpart")
}

// milliseconds are those of a TIMESTAMP since 1970.
func milliseconds(x string) string {
	return "(CAST(EXTRACT(EPOCH FROM " + x + ") AS BIGINT) * 1000 + EXTRACT(MILLISECOND FROM " + x + "))"
}

func one(c *plan.Const, n int64) bool { return c != nil && !c.Value.Null && c.Value.I == n }

// inlined puts the body of a function of the program in place of its call: Flink
// has no functions in SQL.
func (t *translator) inlined(s *scope, e *sql.Call) (string, bool) {
	for _, f := range t.functions[e.Name.Name] {
		if len(f.Params) != len(e.Args) {
			continue
		}
		if t.expanded >= 50 {
			return t.missing(e, e.Name.Name, "it calls itself"), true
		}
		t.expanded++
		defer func() { t.expanded-- }()
		params := map[string]string{}
		for i, p := range f.Params {
			params[p.Name.Name] = t.operand(s, e.Args[i], primary)
		}
		return "(" + t.expr(&scope{params: params}, f.Body) + ")", true
	}
	return "", false
}

// record translates a parser of log lines into a column for each of its members.
func (t *translator) record(s *scope, e sql.Expr, name string, typ sql.Type) []item {
	call, ok := e.(*sql.Call)
	if !ok {
		if col, isColumn := e.(*sql.Column); isColumn {
			return t.passed(s, col, name, typ)
		}
		t.missing(e, sql.Text(e), "a row is no value in Flink")
		return nil
	}
	var texts []string
	x := ""
	if len(call.Args) > 0 {
		x = t.expr(s, call.Args[0])
	}
	literal := func(i int) (string, bool) {
		if i >= len(call.Args) {
			return "", false
		}
		c, ok := t.boundOf(call.Args[i]).(*plan.Const)
		if !ok || c.Value.Null {
			return "", false
		}
		return c.Value.S, plan.ClassOf(c.T) == plan.ClassString
	}
	extract := func(pattern string, groups int) {
		for i := range groups {
			texts = append(texts, fmt.Sprintf("REGEXP_EXTRACT(%s, %s, %d)", x, text(pattern), i+1))
		}
	}
	switch call.Name.Name {
	case "REGEX_LOG_PARSE":
		pattern, _ := literal(1)
		extract("^(?:"+pattern+")$", len(typ.Fields))
	case "W3C_LOG_PARSE":
		format, _ := literal(1)
		extract(w3cPattern(format), len(typ.Fields))
	case "VARIABLE_COLUMN_LOG_PARSE":
		if len(call.Args) > 3 {
			t.missing(call, call.Name.Name, "SPLIT_INDEX knows no quotes and no escapes")
			return nil
		}
		delimiter, _ := literal(2)
		for i, f := range typ.Fields {
			texts = append(texts, t.parsed(call, fmt.Sprintf("SPLIT_INDEX(%s, %s, %d)", x, text(delimiter), i), f.Type))
		}
	case "FIXED_COLUMN_LOG_PARSE":
		spec, _ := literal(1)
		list, err := columns.ParseColumns(spec, true)
		if err != nil || len(list) != len(typ.Fields) {
			t.missing(call, call.Name.Name, "its columns cannot be read")
			return nil
		}
		for _, c := range list {
			piece := fmt.Sprintf("SUBSTRING(%s FROM %d", x, c.Start+1)
			if c.Length >= 0 {
				piece += fmt.Sprintf(" FOR %d", c.Length)
			}
			piece += ")"
			if c.Type.Kind != sql.KindChar && c.Type.Kind != sql.KindVarchar {
				piece = "TRIM(" + piece + ")"
			}
			texts = append(texts, t.parsed(call, piece, c.Type))
		}
	default:
		t.missing(call, call.Name.Name, "Flink has no such parser; write its pattern as a regular expression for REGEXP_EXTRACT")
		return nil
	}
	var out []item
	for i, f := range typ.Fields {
		out = append(out, item{name: name + "_" + f.Name, text: texts[i], typ: f.Type})
	}
	return out
}

// passed hands a row of a query below on.
func (t *translator) passed(s *scope, col *sql.Column, name string, typ sql.Type) []item {
	for _, tb := range s.tables {
		for _, c := range tb.columns {
			if c.name != col.Parts[len(col.Parts)-1].Name || c.fields == nil {
				continue
			}
			var out []item
			for _, f := range typ.Fields {
				out = append(out, item{name: name + "_" + f.Name, text: c.fields[f.Name], typ: f.Type})
			}
			return out
		}
	}
	t.missing(col, sql.Text(col), "a row is no value in Flink")
	return nil
}

// parsed converts a piece of a line.
func (t *translator) parsed(at sql.Node, piece string, to sql.Type) string {
	if to.Kind == sql.KindChar || to.Kind == sql.KindVarchar {
		return piece
	}
	if to.Kind == sql.KindTimestamp || to.Kind == sql.KindDate || to.Kind == sql.KindTime {
		t.differs(at, "a column of a date or time", "it is read in the form of a literal, whatever format the columns say")
	}
	return "TRY_CAST(" + piece + " AS " + typeName(to) + ")"
}

var w3cFormats = map[string]string{
	"COMMON": `%h %l %u %t "%r" %>s %b`, "COMMON WITH VHOST": `%v %h %l %u %t "%r" %>s %b`,
	"NCSA EXTENDED": `%h %l %u %t "%r" %>s %b "%[Referer]i" "%[User-agent]i"`, "REFERER": `%[Referer]i ---> %U`, "AGENT": `%[User-agent]i`,
}

var specifier = regexp.MustCompile(`%[<>!0-9,]*(\[[^\]]*\]|\{[^}]*\})?[<>]?[A-Za-z]`)

// w3cPattern is the regular expression of a log format.
func w3cPattern(format string) string {
	if named, ok := w3cFormats[strings.ToUpper(strings.TrimSpace(format))]; ok {
		format = named
	}
	var b strings.Builder
	b.WriteString("^")
	at := 0
	for _, m := range specifier.FindAllStringIndex(format, -1) {
		b.WriteString(regexp.QuoteMeta(format[at:m[0]]))
		switch {
		case m[0] > 0 && format[m[0]-1] == '"':
			b.WriteString(`([^"]*)`)
		case strings.HasSuffix(format[m[0]:m[1]], "t"):
			b.WriteString(`(\[[^\]]*\])`)
		case m[1] == len(format) && strings.HasSuffix(format[m[0]:m[1]], "i"):
			b.WriteString(`(.*)`)
		default:
			b.WriteString(`(\S*)`)
		}
		at = m[1]
	}
	b.WriteString(regexp.QuoteMeta(format[at:]))
	return b.String() + "$"
}
