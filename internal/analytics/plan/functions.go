package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/analytics/text"
)

// function binds the call of a scalar function.
type function struct {
	min, max int // arguments; max -1 for any number
	bind     func(b *binder, e *sql.Call) Expr
}

// aggregates are the functions of groups and windows; those with false only go
// with OVER.
var aggregates = map[string]bool{
	"COUNT": true, "SUM": true, "AVG": true, "MIN": true, "MAX": true, "STDDEV_POP": true, "STDDEV_SAMP": true, "STDDEV": true, "STD_DEV": true,
	"VAR_POP": true, "VAR_SAMP": true, "ANY": true, "SOME": true, "EVERY": true, "FIRST_VALUE": true, "LAST_VALUE": true, "EXP_AVG": true,
	"LAG": false, "NTH_VALUE": false,
}

var unavailable = map[string]string{
	"LEAD": "it would need rows that have not come yet", "RANK": "use GROUP_RANK", "DENSE_RANK": "use GROUP_RANK", "ROW_NUMBER": "use GROUP_RANK",
	"PERCENT_RANK": "use GROUP_RANK", "CUME_DIST": "use GROUP_RANK",
}

// elsewhere are functions of other dialects, and what to write here.
var elsewhere = map[string]string{
	"DATEDIFF": "write (a - b) SECOND, or TSDIFF for milliseconds", "TIMESTAMPDIFF": "write (a - b) SECOND, or TSDIFF for milliseconds",
	"DATEADD": "add an interval, such as INTERVAL '1' DAY", "DATE_ADD": "add an interval, such as INTERVAL '1' DAY", "TIMESTAMPADD": "add an interval, such as INTERVAL '1' DAY",
	"DATE_TRUNC": "write FLOOR(t TO MINUTE)", "DATE_FORMAT": "write TIMESTAMP_TO_CHAR", "TO_CHAR": "write TIMESTAMP_TO_CHAR", "TO_DATE": "write CHAR_TO_DATE",
	"NOW": "write CURRENT_ROW_TIMESTAMP", "GETDATE": "write CURRENT_ROW_TIMESTAMP", "SYSDATE": "write CURRENT_ROW_TIMESTAMP", "FROM_UNIXTIME": "write TO_TIMESTAMP, which takes milliseconds",
	"IFNULL": "write COALESCE", "NVL": "write COALESCE", "ISNULL": "write COALESCE", "IF": "write CASE", "IIF": "write CASE", "DECODE": "write CASE",
	"LEN": "write CHAR_LENGTH", "LENGTH": "write CHAR_LENGTH", "SUBSTR": "write SUBSTRING", "CONCAT": "write ||", "INSTR": "write POSITION", "CHARINDEX": "write POSITION",
	"REPLACE": "write REGEX_REPLACE", "REGEXP_REPLACE": "write REGEX_REPLACE", "LTRIM": "write TRIM(LEADING FROM s)", "RTRIM": "write TRIM(TRAILING FROM s)",
	"LEFT": "write SUBSTRING", "RIGHT": "write SUBSTRING", "LCASE": "write LOWER", "UCASE": "write UPPER", "LOG": "write LN or LOG10", "POW": "write POWER",
	"ROUND": "write CAST(x AS DECIMAL(18,2)), which rounds", "GREATEST": "write CASE", "LEAST": "write CASE", "MEDIAN": "it would have to keep every value",
	"YEAR": "write EXTRACT(YEAR FROM t)", "VARIANCE": "write VAR_SAMP or VAR_POP", "APPROX_COUNT_DISTINCT": "write COUNT_DISTINCT_ITEMS_TUMBLING, a table function",
	"JSON_EXTRACT": "write JSON_VALUE, an addition to the dialect", "UUID": "there is none: rows are the same when they are computed again", "RAND": "there is none: rows are the same when they are computed again",
}

// tableFunctions stand in TABLE(…).
var tableFunctions = []string{"TOP_K_ITEMS_TUMBLING", "COUNT_DISTINCT_ITEMS_TUMBLING", "GROUP_RANK", "RANDOM_CUT_FOREST", "RANDOM_CUT_FOREST_WITH_EXPLANATION", "HOTSPOTS"}

var functions map[string]function

func init() {
	unaryDouble := func(name string) function {
		return function{1, 1, func(b *binder, e *sql.Call) Expr {
			return &Call{Func: name, Args: []Expr{convert(b.numeric(e.Args[0]), doubleType, false)}, T: doubleType}
		}}
	}
	textToText := func(name string) function {
		return function{1, 1, func(b *binder, e *sql.Call) Expr {
			x := b.character(e.Args[0])
			return &Call{Func: name, Args: []Expr{x}, T: varchar(x.Type().Length)}
		}}
	}
	now := func(name string, k sql.Kind) function {
		return function{0, 0, func(*binder, *sql.Call) Expr { return &Call{Func: name, T: sql.Type{Kind: k}} }}
	}
	rounding := func(name string) function {
		return function{1, 1, func(b *binder, e *sql.Call) Expr {
			x := b.numeric(e.Args[0])
			t := x.Type()
			if isInteger(t.Kind) {
				return x
			}
			if t.Kind == sql.KindDecimal {
				t = sql.Type{Kind: sql.KindDecimal, Precision: min(max(t.Precision-t.Scale+1, 1), 18)}
			}
			return &Call{Func: name, Args: []Expr{x}, T: t}
		}}
	}
	charLength := function{1, 1, func(b *binder, e *sql.Call) Expr {
		return &Call{Func: "char_length", Args: []Expr{b.character(e.Args[0])}, T: integerType}
	}}
	charTo := func(name string, k sql.Kind) function {
		return function{2, 2, func(b *binder, e *sql.Call) Expr {
			f := b.character(e.Args[0])
			b.checkFormat(e.Args[0], f)
			return &Call{Func: name, Args: []Expr{f, b.character(e.Args[1])}, T: sql.Type{Kind: k}}
		}}
	}
	toChar := func(name string, k sql.Kind) function {
		return function{2, 2, func(b *binder, e *sql.Call) Expr {
			f := b.character(e.Args[0])
			b.checkFormat(e.Args[0], f)
			x := b.expr(e.Args[1])
			if x.Type().Kind == sql.KindNull {
				x = &Const{Value{Null: true}, sql.Type{Kind: k}}
			}
			if x.Type().Kind != k {
				b.fail(e.Args[1], "convert it with CAST", "%s takes a %s, not a %s", e.Name.Name, k, x.Type())
			}
			return &Call{Func: "to_char", Args: []Expr{f, x}, T: varchar(1024)}
		}}
	}
	functions = map[string]function{
		"ABS": {1, 1, func(b *binder, e *sql.Call) Expr {
			x := typedNull(b.expr(e.Args[0]), integerType)
			if !isNumeric(x.Type().Kind) && x.Type().Kind != sql.KindInterval {
				b.fail(e.Args[0], "", "ABS takes a number or an interval, not a %s", x.Type())
			}
			return &Call{Func: "abs", Args: []Expr{x}, T: x.Type()}
		}},
		"CEIL": rounding("ceil"), "CEILING": rounding("ceil"), "FLOOR": rounding("floor"),
		"MOD": {2, 2, func(b *binder, e *sql.Call) Expr {
			l, r := b.integer(e.Args[0]), b.integer(e.Args[1])
			return &Call{Func: "mod", Args: []Expr{l, r}, T: typedNull(b.expr(e.Args[1]), bigintType).Type()}
		}},
		"POWER": {2, 2, func(b *binder, e *sql.Call) Expr {
			return &Call{Func: "power", Args: []Expr{convert(b.numeric(e.Args[0]), doubleType, false), convert(b.numeric(e.Args[1]), doubleType, false)}, T: doubleType}
		}},
		"EXP": unaryDouble("exp"), "LN": unaryDouble("ln"), "LOG10": unaryDouble("log10"), "SQRT": unaryDouble("sqrt"),
		"COALESCE": {1, -1, func(b *binder, e *sql.Call) Expr {
			args := make([]Expr, len(e.Args))
			for i, a := range e.Args {
				args[i] = b.expr(a)
			}
			t := b.commonOf(e, args)
			for i := range args {
				args[i] = convert(args[i], t, false)
			}
			return &Call{Func: "coalesce", Args: args, T: t}
		}},
		"NULLIF": {2, 2, func(b *binder, e *sql.Call) Expr {
			x := b.expr(e.Args[0])
			l, r := b.same(e, x, b.expr(e.Args[1]))
			return &Case{Whens: []When{{&Call{Func: "=", Args: []Expr{l, r}, T: booleanType}, &Const{Value{Null: true}, x.Type()}}}, Else: x, T: x.Type()}
		}},
		"CHAR_LENGTH": charLength, "CHARACTER_LENGTH": charLength,
		"UPPER": textToText("upper"), "LOWER": textToText("lower"), "INITCAP": textToText("initcap"),
		"SUBSTRING": {2, 3, func(b *binder, e *sql.Call) Expr {
			x := b.character(e.Args[0])
			args := []Expr{x, b.integer(e.Args[1])}
			if len(e.Args) == 3 {
				args = append(args, b.integer(e.Args[2]))
			}
			return &Call{Func: "substring_comma", Args: args, T: varchar(x.Type().Length)}
		}},
		"REGEX_REPLACE": {5, 5, func(b *binder, e *sql.Call) Expr {
			args := []Expr{b.character(e.Args[0]), b.character(e.Args[1]), b.character(e.Args[2]), b.integer(e.Args[3]), b.integer(e.Args[4])}
			b.checkRegexp(e.Args[1], args[1])
			return &Call{Func: "regex_replace", Args: args, T: varchar(sql.MaxLength)}
		}},
		"CHAR_TO_TIMESTAMP": charTo("char_to_timestamp", sql.KindTimestamp), "CHAR_TO_DATE": charTo("char_to_date", sql.KindDate), "CHAR_TO_TIME": charTo("char_to_time", sql.KindTime),
		"TIMESTAMP_TO_CHAR": toChar("TIMESTAMP_TO_CHAR", sql.KindTimestamp), "DATE_TO_CHAR": toChar("DATE_TO_CHAR", sql.KindDate), "TIME_TO_CHAR": toChar("TIME_TO_CHAR", sql.KindTime),
		"TO_TIMESTAMP": {1, 1, func(b *binder, e *sql.Call) Expr {
			return &Call{Func: "to_timestamp", Args: []Expr{b.integer(e.Args[0])}, T: timestampType}
		}},
		"UNIX_TIMESTAMP": {1, 1, func(b *binder, e *sql.Call) Expr {
			x := b.expr(e.Args[0])
			if x.Type().Kind != sql.KindTimestamp && x.Type().Kind != sql.KindNull {
				b.fail(e.Args[0], "convert it with CAST", "UNIX_TIMESTAMP takes a TIMESTAMP, not a %s", x.Type())
			}
			return &Call{Func: "unix_timestamp", Args: []Expr{typedNull(x, timestampType)}, T: bigintType}
		}},
		"TSDIFF": {2, 2, func(b *binder, e *sql.Call) Expr {
			var args []Expr
			for _, a := range e.Args {
				x := b.expr(a)
				if k := x.Type().Kind; k == sql.KindNull {
					return &Const{Value{Null: true}, bigintType}
				} else if k != sql.KindTimestamp && !isInteger(k) {
					b.fail(a, "", "TSDIFF takes two TIMESTAMPs or two numbers of milliseconds, not a %s", x.Type())
				}
				args = append(args, x)
			}
			if (args[0].Type().Kind == sql.KindTimestamp) != (args[1].Type().Kind == sql.KindTimestamp) {
				b.fail(e, "", "TSDIFF takes two TIMESTAMPs or two numbers of milliseconds, not one of each")
			}
			return &Call{Func: "tsdiff", Args: args, T: bigintType}
		}},
		"MONOTONIC": {1, 1, func(b *binder, e *sql.Call) Expr {
			x := b.expr(e.Args[0])
			return &Call{Func: "monotonic", Args: []Expr{x}, T: x.Type()}
		}},
		"CURRENT_ROW_TIMESTAMP": now("current_row_timestamp", sql.KindTimestamp),
		"CURRENT_TIMESTAMP":     now("current_timestamp", sql.KindTimestamp), "LOCALTIMESTAMP": now("current_timestamp", sql.KindTimestamp),
		"CURRENT_DATE": now("current_date", sql.KindDate), "CURRENT_TIME": now("current_time", sql.KindTime), "LOCALTIME": now("current_time", sql.KindTime),
		"REGEX_LOG_PARSE": {2, 2, func(b *binder, e *sql.Call) Expr {
			x, pattern := b.character(e.Args[0]), b.constantText(e.Args[1])
			re, err := text.CompileRegexp(pattern)
			if err != nil {
				b.fail(e.Args[1], "", "the regular expression is wrong: %v", err)
			}
			return b.parsed("regex_log_parse", x, pattern, numbered(re.Groups()))
		}},
		"FAST_REGEX_LOG_PARSE":  {2, 2, fastRegex},
		"FAST_REGEX_LOG_PARSER": {2, 2, fastRegex},
		"SYS_LOG_PARSE": {1, 1, func(b *binder, e *sql.Call) Expr {
			fields := []sql.Field{{Name: "COLUMN1", Type: timestampType}, {Name: "COLUMN2", Type: varchar(1024)}}
			return b.parsed("sys_log_parse", b.character(e.Args[0]), "", fields)
		}},
		"W3C_LOG_PARSE": {2, 2, func(b *binder, e *sql.Call) Expr {
			x, format := b.character(e.Args[0]), b.constantText(e.Args[1])
			p, err := text.CompileW3C(format)
			if err != nil {
				b.fail(e.Args[1], "", "%v", err)
			}
			return b.parsed("w3c_log_parse", x, format, numbered(p.Columns()))
		}},
		"VARIABLE_COLUMN_LOG_PARSE": {3, 5, func(b *binder, e *sql.Call) Expr {
			x := b.character(e.Args[0])
			var fields []sql.Field
			spec := ""
			if n, ok := e.Args[1].(*sql.Number); ok && n.Type.Kind == sql.KindInteger {
				count, _ := strconv.Atoi(n.Text)
				if count < 1 || count > 1000 {
					b.fail(n, "", "the number of columns is 1 to 1000")
				}
				fields, spec = numbered(count), n.Text
			} else {
				spec = b.constantText(e.Args[1])
				if count, err := strconv.Atoi(spec); err == nil && count > 0 && count <= 1000 {
					fields = numbered(count)
				} else {
					columns, err := text.ParseColumns(spec, false)
					if err != nil {
						b.fail(e.Args[1], "", "%v", err)
					}
					fields = fieldsOf(columns)
				}
			}
			c := b.parsed("variable_column_log_parse", x, spec, fields).(*Call)
			for _, a := range e.Args[2:] {
				c.Args = append(c.Args, &Const{Value{S: b.constantText(a)}, varchar(sql.MaxLength)})
			}
			if c.Args[2].(*Const).Value.S == "" {
				b.fail(e.Args[2], "", "the delimiter cannot be empty")
			}
			return c
		}},
		"FIXED_COLUMN_LOG_PARSE": {2, 2, func(b *binder, e *sql.Call) Expr {
			x, spec := b.character(e.Args[0]), b.constantText(e.Args[1])
			columns, err := text.ParseColumns(spec, true)
			if err != nil {
				b.fail(e.Args[1], "", "%v", err)
			}
			return b.parsed("fixed_column_log_parse", x, spec, fieldsOf(columns))
		}},
		"JSON_VALUE": {2, 2, func(b *binder, e *sql.Call) Expr { return b.json("json_value", e) }},
		"JSON_QUERY": {2, 2, func(b *binder, e *sql.Call) Expr { return b.json("json_query", e) }},
	}
}

// json binds the functions on JSON text, an addition to the dialect.
func (b *binder) json(name string, e *sql.Call) Expr {
	b.extension(e, e.Name.Name)
	path := b.constantText(e.Args[1])
	if _, err := text.ParsePath(path); err != nil {
		b.fail(e.Args[1], "", "%v", err)
	}
	return &Call{Func: name, Args: []Expr{b.character(e.Args[0]), &Const{Value{S: path}, varchar(len(path))}}, T: varchar(4096)}
}

func fastRegex(b *binder, e *sql.Call) Expr {
	x, pattern := b.character(e.Args[0]), b.constantText(e.Args[1])
	p, err := text.CompileFastRegex(pattern)
	if err != nil {
		b.fail(e.Args[1], "", "%v", err)
	}
	return b.parsed("fast_regex_log_parse", x, pattern, numbered(p.Groups()))
}

func (b *binder) parsed(name string, x Expr, spec string, fields []sql.Field) Expr {
	return &Call{Func: name, Args: []Expr{x, &Const{Value{S: spec}, varchar(sql.MaxLength)}}, T: sql.Type{Kind: sql.KindRow, Fields: fields}}
}

func numbered(n int) []sql.Field {
	fields := make([]sql.Field, n)
	for i := range fields {
		fields[i] = sql.Field{Name: "COLUMN" + strconv.Itoa(i+1), Type: varchar(1024)}
	}
	return fields
}

func fieldsOf(columns []text.LogColumn) []sql.Field {
	fields := make([]sql.Field, len(columns))
	for i, c := range columns {
		fields[i] = sql.Field{Name: c.Name, Type: c.Type}
	}
	return fields
}

func (b *binder) constantText(e sql.Expr) string {
	c, ok := b.expr(e).(*Const)
	if !ok || c.Value.Null || !isCharacter(c.T.Kind) {
		b.fail(e, "", "a constant text in ' is needed here")
	}
	return c.Value.S
}

func (b *binder) numeric(e sql.Expr) Expr {
	x := b.expr(e)
	switch {
	case isNumeric(x.Type().Kind):
		return x
	case x.Type().Kind == sql.KindNull:
		return &Const{Value{Null: true}, doubleType}
	}
	b.fail(e, "convert it with CAST", "a number is needed here, not a %s", x.Type())
	return nil
}

func (b *binder) checkFormat(at sql.Node, e Expr) {
	if c, ok := e.(*Const); ok && !c.Value.Null {
		if _, err := text.CompileDatePattern(c.Value.S); err != nil {
			b.fail(at, "", "%v", err)
		}
	}
}

func (b *binder) extension(at sql.Node, what string) {
	if !b.c.options.Extensions {
		b.fail(at, "turn on millrace's additions to the dialect for this application to use it", "%s is not part of the dialect", what)
	}
}

// call binds a function that is neither an aggregate nor analytic here.
func (b *binder) call(e *sql.Call) Expr {
	name := e.Name.Name
	if f, ok := b.c.functions[name]; ok {
		if x := b.userFunction(e, f); x != nil {
			return x
		}
	}
	if _, ok := aggregates[name]; ok {
		switch {
		case e.Over != nil:
			b.fail(e, "put the query into FROM of another one and filter there", "a window function cannot stand %s", b.where)
		case name == "LAG" || name == "NTH_VALUE":
			b.fail(e, "", "%s needs OVER", name)
		}
		b.fail(e, "", "the aggregate %s cannot stand %s", name, b.where)
	}
	if e.Over != nil {
		if why, ok := unavailable[name]; ok {
			b.fail(e, why, "there is no %s over a stream", name)
		}
		b.fail(e, "", "%s is not a function of windows", name)
	}
	f, ok := functions[name]
	if ok && (e.Star || e.Distinct) {
		b.fail(e, "", "%s takes neither * nor DISTINCT", name)
	}
	if !ok {
		b.c.known(name)
		if why, ok := unavailable[name]; ok {
			b.fail(e, why, "there is no %s over a stream", name)
		}
		for _, t := range tableFunctions {
			if t == name {
				b.fail(e, "write FROM TABLE("+name+"(CURSOR(SELECT STREAM …), …))", "%s is a table function", name)
			}
		}
		if name == "SESSION" || name == "HOP" || name == "TUMBLE" {
			b.fail(e, "group by FLOOR or STEP of ROWTIME", "there is no function %s", name)
		}
		hint := elsewhere[name]
		if near := sql.Nearest(name, b.functionNames()); hint == "" && near != "" {
			hint = "did you mean " + near + "?" // functions need no quotes, reserved or not
		}
		b.fail(&e.Name, hint, "there is no function %s", sql.Quote(name))
	}
	if len(e.Args) < f.min || f.max >= 0 && len(e.Args) > f.max {
		b.fail(e, "", "%s takes %s, not %d", name, argumentCount(f.min, f.max), len(e.Args))
	}
	return f.bind(b, e)
}

func argumentCount(low, high int) string {
	plural := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return strconv.Itoa(n) + " arguments"
	}
	switch {
	case high < 0:
		return "at least " + plural(low)
	case low == high:
		return plural(low)
	}
	return strconv.Itoa(low) + " to " + plural(high)
}

func (b *binder) functionNames() []string {
	var names []string
	for n := range functions {
		names = append(names, n)
	}
	for n := range aggregates {
		names = append(names, n)
	}
	for n := range b.c.functions {
		names = append(names, n)
	}
	return append(names, tableFunctions...)
}

// userFunction puts the body of a function in place of its call; nil if no
// overload takes so many arguments and the name is also the service's.
func (b *binder) userFunction(e *sql.Call, overloads []*sql.CreateFunction) Expr {
	args := make([]Expr, len(e.Args))
	for i, a := range e.Args {
		args[i] = b.expr(a)
	}
	var wrong string
	// An overload whose types are those of the arguments comes before one that a
	// number as it is written fits into.
	fits := func(f *sql.CreateFunction, literals bool) bool {
		if len(f.Params) != len(args) {
			return false
		}
		for i, p := range f.Params {
			if t, want := args[i].Type(), p.Type.Type; t.Kind != sql.KindNull && !declared(t, want) && !(literals && literal(e.Args[i], t, want)) {
				wrong = "argument " + strconv.Itoa(i+1) + " of " + f.Name.Last().Name + " is " + want.String() + ", not " + t.String()
				return false
			}
		}
		return true
	}
	at := slices.IndexFunc(overloads, func(f *sql.CreateFunction) bool { return fits(f, false) })
	if at < 0 {
		at = slices.IndexFunc(overloads, func(f *sql.CreateFunction) bool { return fits(f, true) })
	}
	if at >= 0 {
		f := overloads[at]
		params := map[string]Expr{}
		for i, p := range f.Params {
			params[p.Name.Name] = convert(args[i], p.Type.Type, true)
		}
		if b.c.depth >= 50 {
			b.fail(e, "", "the function %s calls itself", sql.Quote(e.Name.Name))
		}
		body := &binder{c: b.c, params: params, where: "in a function"}
		result := body.alone(f.Body)
		if t := result.Type(); t.Kind != sql.KindNull && !exactly(t, f.Returns.Type) {
			b.fail(e, "", "the function %s returns %s, but its expression is a %s", sql.Quote(e.Name.Name), f.Returns.Type, t)
		}
		result = convert(result, f.Returns.Type, true)
		if f.NullOnNull {
			var null Expr
			for i := range args {
				isNull := &Call{Func: "is_null", Args: []Expr{args[i]}, T: booleanType}
				if null == nil {
					null = isNull
				} else {
					null = &Call{Func: "or", Args: []Expr{null, isNull}, T: booleanType}
				}
			}
			if null != nil {
				result = &Case{Whens: []When{{null, &Const{Value{Null: true}, f.Returns.Type}}}, Else: result, T: f.Returns.Type}
			}
		}
		return result
	}
	if _, builtin := functions[e.Name.Name]; builtin {
		return nil
	}
	if wrong == "" {
		b.fail(e, "", "no function %s takes %s", sql.Quote(e.Name.Name), argumentCount(len(args), len(args)))
	}
	b.fail(e, "convert arguments with CAST", "%s", wrong)
	return nil
}

// alone binds the body of a function, which sees nothing of the query it is
// called in.
func (b *binder) alone(e sql.Expr) Expr {
	outer := b.c.outer
	defer func() { b.c.outer = outer; b.c.depth-- }()
	b.c.outer = nil
	b.c.depth++
	return b.expr(e)
}

// declared reports whether a function's argument has the declared type. Lengths
// of texts are not part of it, nor are the digits of DECIMAL.
func declared(t, want sql.Type) bool {
	return t.Kind == want.Kind || isCharacter(t.Kind) && isCharacter(want.Kind) || isBinary(t.Kind) && isBinary(want.Kind)
}

// literal reports whether an argument is an integer as it is written, which has
// no type of its own, and whether the declared type holds it.
func literal(e sql.Expr, t, want sql.Type) bool {
	if sign, ok := e.(*sql.Unary); ok {
		e = sign.Operand
	}
	n, ok := e.(*sql.Number)
	return ok && isInteger(n.Type.Kind) && isInteger(want.Kind) && t.Kind <= want.Kind
}

// exactly reports whether the expression of a function has the declared type: an
// integer may be of a smaller one, or be brought to INTEGER.
func exactly(t, want sql.Type) bool {
	switch {
	case isCharacter(t.Kind):
		return isCharacter(want.Kind)
	case isBinary(t.Kind):
		return isBinary(want.Kind)
	case isApproximate(t.Kind):
		return isApproximate(want.Kind)
	case isInteger(t.Kind) && isInteger(want.Kind):
		return t.Kind <= want.Kind || want.Kind == sql.KindInteger
	}
	return t.Kind == want.Kind
}

// filtered is a value where a condition is true, and else NULL, which aggregates
// leave out.
func filtered(condition, e Expr) Expr {
	return &Case{Whens: []When{{condition, e}}, Else: &Const{Value{Null: true}, e.Type()}, T: e.Type()}
}

// aggregate binds the arguments of an aggregate with in, the binder of the rows
// that are aggregated.
func (b *binder) aggregate(e *sql.Call, in *binder) Agg {
	name := e.Name.Name
	a := Agg{Func: strings.ToLower(name), Distinct: e.Distinct}
	switch name {
	case "STDDEV", "STD_DEV":
		a.Func = "stddev_samp"
	case "SOME":
		a.Func = "any"
	}
	var filter Expr
	if e.Filter != nil {
		if !b.c.options.Extensions {
			b.fail(e.Filter, "use CASE inside the aggregate, or turn on millrace's additions to the dialect", "FILTER is not part of the dialect")
		}
		switch name {
		case "FIRST_VALUE", "LAST_VALUE", "LAG", "NTH_VALUE":
			b.fail(e.Filter, "filter in a query in FROM", "%s does not go with FILTER", name)
		}
		filter = in.boolean(in.expr(e.Filter), e.Filter)
	}
	want := 1
	switch name {
	case "EXP_AVG":
		want = 2
	case "LAG", "NTH_VALUE":
		want = len(e.Args)
		if low, high := 1, 3; name == "LAG" && (want < low || want > high) || name == "NTH_VALUE" && want != 2 {
			b.fail(e, "", "%s takes %s, not %d", name, map[bool]string{true: "1 to 3 arguments", false: "2 arguments"}[name == "LAG"], want)
		}
	}
	if e.Star {
		if name != "COUNT" {
			b.fail(e, "", "only COUNT takes *")
		}
		a.T = bigintType
		if filter != nil {
			a.Arg = filtered(filter, &Const{Value{I: 1}, integerType})
		}
		return a
	}
	if len(e.Args) != want {
		b.fail(e, "", "%s takes %s, not %d", name, argumentCount(want, want), len(e.Args))
	}
	if e.Distinct {
		switch a.Func {
		case "count":
			if !b.c.options.Extensions {
				b.fail(e, "use COUNT_DISTINCT_ITEMS_TUMBLING, group by the value in a first step, or turn on millrace's additions to the dialect", "COUNT(DISTINCT …) is not part of the dialect")
			}
		case "sum", "avg", "min", "max", "stddev_pop", "stddev_samp", "var_pop", "var_samp":
		default:
			b.fail(e, "", "%s does not go with DISTINCT", name)
		}
	}
	a.Arg = in.expr(e.Args[0])
	t := a.Arg.Type()
	if t.Kind == sql.KindNull {
		a.Arg, t = &Const{Value{Null: true}, integerType}, integerType
	}
	if filter != nil {
		a.Arg = filtered(filter, a.Arg)
	}
	switch a.Func {
	case "count":
		a.T = bigintType
	case "sum", "avg":
		switch {
		case isInteger(t.Kind), isApproximate(t.Kind):
			a.T = t
			if t.Kind == sql.KindReal && a.Func == "avg" {
				a.T = doubleType
			}
		case t.Kind == sql.KindDecimal:
			a.T = sql.Type{Kind: sql.KindDecimal, Precision: 18, Scale: t.Scale}
		default:
			b.fail(e.Args[0], "", "%s takes a number, not a %s", name, t)
		}
	case "stddev_pop", "stddev_samp", "var_pop", "var_samp", "exp_avg":
		if !isNumeric(t.Kind) {
			b.fail(e.Args[0], "", "%s takes a number, not a %s", name, t)
		}
		a.Arg, a.T = convert(a.Arg, doubleType, false), doubleType
		if a.Func == "exp_avg" {
			c, ok := in.expr(e.Args[1]).(*Const)
			if !ok || c.T.Kind != sql.KindInterval || c.T.Interval.YearMonth() || c.Value.I <= 0 {
				b.fail(e.Args[1], "", "EXP_AVG takes its half-life as an interval of days to seconds")
			}
			a.HalfLife = c.Value.I
		}
	case "any", "every":
		a.Arg, a.T = in.boolean(a.Arg, e.Args[0]), booleanType
	case "min", "max":
		if t.Kind == sql.KindRow {
			b.fail(e.Args[0], "", "%s takes values that have an order, not a %s", name, t)
		}
		a.T = t
	default:
		a.T = t
	}
	return a
}
