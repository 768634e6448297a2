package sql

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep expressions and queries may nest.
const MaxDepth = 200

// Parse reads a program. The tree holds the statements that are right; if some
// are not, the error is of type Errors, with the first error of each.
func Parse(text string) (*Program, error) {
	program := &Program{Text: text}
	p := &parser{lexer: lexer{text: text}}
	p.open()
	for {
		for p.tokens[0].is(";") {
			p.skip()
		}
		if p.tokens[0].kind == kindEnd && p.broken == nil {
			break
		}
		p.creates = nil
		if s := p.recovered(func() Node { return p.statement() }); s != nil {
			program.Statements = append(program.Statements, s.(Statement))
		} else if p.creates != nil {
			program.Refused = append(program.Refused, *p.creates)
		}
	}
	if len(p.errors) > 0 {
		return program, p.errors
	}
	return program, nil
}

// ParseExpression reads a single expression.
func ParseExpression(text string) (Expr, error) {
	p := &parser{lexer: lexer{text: text}}
	p.open()
	e := p.recovered(func() Node {
		e := p.expression()
		if p.tokens[0].kind != kindEnd {
			p.unexpected("the end of the expression")
		}
		return e
	})
	if len(p.errors) > 0 {
		return nil, p.errors
	}
	return e.(Expr), nil
}

// ParseType reads a type, such as VARCHAR(16).
func ParseType(text string) (Type, error) {
	p := &parser{lexer: lexer{text: text}}
	p.open()
	n := p.recovered(func() Node {
		t := p.typeName()
		if p.tokens[0].kind != kindEnd {
			p.unexpected("the end of the type")
		}
		return t
	})
	if len(p.errors) > 0 {
		return Type{}, p.errors
	}
	return n.(TypeName).Type, nil
}

// lookAhead is how many tokens the parser sees.
const lookAhead = 3

type parser struct {
	lexer  lexer
	tokens [lookAhead]token
	errs   [lookAhead]*Error // the lexer's, in place of a token
	last   Span              // of the token passed over last
	depth  int
	parens int    // that are open
	floors int    // those inside FLOOR or CEIL, where TO and a unit before the last one is theirs
	broken *Error // the current token is none
	errors Errors
	// creates is the name that the statement gives.
	creates *Name
}

// bail carries an error up to the statement.
type bail struct{ err *Error }

func (p *parser) open() {
	for i := range p.tokens {
		p.tokens[i], p.errs[i] = p.lexer.next()
	}
	p.broken = p.errs[0]
}

// skip moves on without looking at what is wrong with a token.
func (p *parser) skip() {
	p.last = p.tokens[0].span
	switch {
	case p.errs[0] != nil:
	case p.at("("):
		p.parens++
	case p.at(")"):
		p.parens--
	}
	copy(p.tokens[:], p.tokens[1:])
	copy(p.errs[:], p.errs[1:])
	p.tokens[lookAhead-1], p.errs[lookAhead-1] = p.lexer.next()
	p.broken = p.errs[0]
}

// recovered runs f and, after an error, moves to the end of the statement.
func (p *parser) recovered(f func() Node) (n Node) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case bail:
			p.errors = append(p.errors, r.err)
			n, p.depth, p.parens, p.floors = nil, 0, 0, 0
			// CREATE stands nowhere but at the beginning of a statement.
			for !p.atAny(";", "CREATE") && (p.broken != nil || p.tokens[0].kind != kindEnd) {
				p.skip()
			}
		default:
			panic(r)
		}
	}()
	p.check()
	return f()
}

// check fails if the current token is none.
func (p *parser) check() {
	if p.broken != nil {
		panic(bail{p.broken})
	}
}

func (p *parser) advance() token {
	t := p.tokens[0]
	p.skip()
	p.check()
	return t
}

func (p *parser) failAt(at Span, hint, format string, args ...any) {
	panic(bail{NewError(p.lexer.text, at, hint, format, args...)})
}

// describe names a token in a message.
func (p *parser) describe(t token) string {
	switch t.kind {
	case kindEnd:
		return "the end of the text"
	case kindWord, kindSymbol:
		return strconv.Quote(p.lexer.text[t.span.Start:t.span.End])
	case kindQuoted:
		return "the name " + p.lexer.text[t.span.Start:t.span.End]
	}
	text := p.lexer.text[t.span.Start:t.span.End]
	if len(text) > 40 {
		text = text[:40] + "…"
	}
	return text
}

// unexpected fails because the current token is not what the grammar wants.
// words are keywords that could stand here, for a better hint.
func (p *parser) unexpected(want string, words ...string) {
	t := p.tokens[0]
	before := p.lexer.text[p.last.Start:p.last.End]
	hint := ""
	switch {
	case t.kind == kindWord:
		words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w[0] < 'A' || w[0] > 'Z' })
		if near := Nearest(t.text, words); near != "" {
			hint = "did you mean " + near + "?"
		}
	case t.is("=") && before == "=":
		hint = "equality is written ="
	case before == ",":
		hint = "there is a comma too many before it"
	}
	p.failAt(t.span, hint, "expected %s, found %s", want, p.describe(t))
}

func (p *parser) at(text string) bool        { return p.tokens[0].is(text) }
func (p *parser) peek(n int) token           { return p.tokens[n] }
func (p *parser) start() Pos                 { return p.tokens[0].span.Start }
func (p *parser) from(start Pos) node        { return node{Span{start, p.last.End}} }
func (p *parser) atAny(texts ...string) bool { return slices.ContainsFunc(texts, p.at) }

// accept moves past a keyword or symbol if it is there.
func (p *parser) accept(text string) bool {
	if p.at(text) {
		p.advance()
		return true
	}
	return false
}

// acceptAll moves past several words if all are there.
func (p *parser) acceptAll(words ...string) bool {
	for i, w := range words {
		if !p.tokens[i].is(w) || p.errs[i] != nil {
			return false
		}
	}
	for range words {
		p.advance()
	}
	return true
}

// expect moves past a keyword or symbol that must be there.
func (p *parser) expect(text string) token {
	if !p.at(text) {
		p.unexpected(strconv.Quote(text), text)
	}
	return p.advance()
}

// expectOne moves past one of several words.
func (p *parser) expectOne(words ...string) string {
	for _, w := range words {
		if p.accept(w) {
			return w
		}
	}
	p.unexpected(oneOf(words), words...)
	return ""
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// nest guards against programs that nest without end.
func (p *parser) nest() {
	if p.depth++; p.depth > MaxDepth {
		p.failAt(p.tokens[0].span, "split it up with views or streams in between", "the text nests more than %d levels deep", MaxDepth)
	}
}

// ident reads a name.
func (p *parser) ident(what string) Ident {
	t := p.tokens[0]
	switch {
	case t.kind == kindQuoted:
	case t.kind == kindWord && !reserved[t.text]:
	case t.kind == kindWord:
		p.failAt(t.span, "put it in quotes: \""+p.lexer.text[t.span.Start:t.span.End]+"\"", "expected %s, found the reserved word %s", what, t.text)
	default:
		p.unexpected(what)
	}
	p.advance()
	return Ident{node{t.span}, t.text, t.kind == kindQuoted}
}

// name reads a qualified name.
func (p *parser) name(what string) Name {
	n := Name{Parts: []Ident{p.ident(what)}}
	for p.accept(".") {
		n.Parts = append(n.Parts, p.ident(what))
	}
	if len(n.Parts) > 3 {
		p.failAt(n.Parts[0].span.Through(p.last), "", "a name has at most two qualifiers")
	}
	n.node = node{n.Parts[0].span.Through(p.last)}
	return n
}

// created reads the name of what a statement creates.
func (p *parser) created(what string) Name {
	n := p.name(what)
	p.creates = &n
	return n
}

func (p *parser) identList(what string) []Ident {
	p.expect("(")
	list := []Ident{p.ident(what)}
	for p.accept(",") {
		list = append(list, p.ident(what))
	}
	p.expect(")")
	return list
}

func (p *parser) stringLiteral(what string) string {
	if t := p.tokens[0]; t.kind != kindString && t.kind != kindUnicode {
		p.unexpected(what)
	}
	return p.characters()
}

func (p *parser) statement() Statement {
	start := p.start()
	s := p.statementBody(start)
	if p.tokens[0].kind != kindEnd && !p.at(";") {
		if p.at("CREATE") {
			// Nothing is wrong with the statement itself.
			p.errors = append(p.errors, NewError(p.lexer.text, p.tokens[0].span, "end the statement before it with ;", "expected \";\" or the end of the text, found %s", p.describe(p.tokens[0])))
			return s
		}
		// A misspelt keyword has been taken for the alias of what is before it.
		if before := p.lexer.text[p.last.Start:p.last.End]; before != "" && isLetter(before[0]) && !reserved[strings.ToUpper(before)] {
			if near := Nearest(strings.ToUpper(before), followingWords); near != "" {
				p.failAt(p.last, "did you mean "+near+"?", "%q does not belong here", before)
			}
		}
		p.unexpected("\";\" or the end of the text")
	}
	return s
}

// followingWords begin what comes behind a table.
var followingWords = []string{"WHERE", "GROUP", "HAVING", "ORDER", "WINDOW", "WINDOWED", "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "UNION", "OVER", "LIMIT"}

var statementWords = []string{"CREATE", "DROP", "ALTER", "INSERT", "SELECT", "SET", "EXPLAIN", "WITH", "VALUES"}

func (p *parser) statementBody(start Pos) Statement {
	switch {
	case p.accept("CREATE"):
		return p.create(start)
	case p.accept("DROP"):
		d := &Drop{What: p.expectOne("STREAM", "PUMP", "FUNCTION", "VIEW")}
		d.Name = p.name("a name")
		if !p.accept("RESTRICT") {
			d.Cascade = p.accept("CASCADE")
		}
		d.node = p.from(start)
		return d
	case p.accept("ALTER"):
		p.expect("PUMP")
		a := &AlterPump{}
		if !p.accept("ALL") {
			a.Names = []Name{p.name("a pump's name")}
			for p.accept(",") {
				a.Names = append(a.Names, p.name("a pump's name"))
			}
		}
		a.Stop = p.expectOne("START", "STOP") == "STOP"
		a.node = p.from(start)
		return a
	case p.at("INSERT"):
		return p.insert()
	case p.accept("SET"):
		p.expect("SCHEMA")
		s := &SetSchema{Schema: p.stringLiteral("the schema's name in '")}
		s.node = p.from(start)
		return s
	case p.accept("EXPLAIN"):
		e := &Explain{}
		p.nest()
		e.Statement = p.statementBody(p.start())
		p.depth--
		e.node = p.from(start)
		return e
	case p.atAny("SELECT", "WITH", "VALUES", "("):
		q := &QueryStatement{Query: p.query()}
		q.node = p.from(start)
		return q
	}
	p.unexpected("a statement", statementWords...)
	return nil
}

func (p *parser) create(start Pos) Statement {
	replace := p.accept("OR")
	if replace {
		p.expect("REPLACE")
	}
	if p.at("TABLE") {
		p.failAt(p.tokens[0].span, "rows that come and go are a STREAM; a reference table is added to the application as a reference data source", "tables are not created in SQL")
	}
	switch what := p.expectOne("STREAM", "PUMP", "FUNCTION", "VIEW"); what {
	case "STREAM":
		s := &CreateStream{Replace: replace, Name: p.created("the stream's name")}
		p.expect("(")
		s.Columns = p.columns()
		p.closeList("the columns")
		s.Description = p.description()
		s.node = p.from(start)
		return s
	case "PUMP":
		s := &CreatePump{Replace: replace, Name: p.created("the pump's name")}
		if p.accept("STOPPED") {
			s.Stopped = true
		} else {
			p.accept("STARTED")
		}
		s.Description = p.description()
		p.expect("AS")
		s.Insert = p.insert()
		s.node = p.from(start)
		return s
	case "FUNCTION":
		return p.createFunction(start, replace)
	}
	s := &CreateView{Replace: replace, Name: p.created("the view's name")}
	if p.at("(") {
		s.Columns = p.identList("a column's name")
	}
	s.Description = p.description()
	p.expect("AS")
	s.Query = p.query()
	s.node = p.from(start)
	return s
}

// closeList moves past the parenthesis behind a list.
func (p *parser) closeList(what string) {
	if !p.at(")") {
		p.unexpected("\",\" or \")\" behind " + what)
	}
	p.advance()
}

func (p *parser) description() *string {
	if !p.accept("DESCRIPTION") {
		return nil
	}
	text := p.stringLiteral("a description in '")
	return &text
}

func (p *parser) columns() []ColumnDef {
	var list []ColumnDef
	for {
		start := p.start()
		c := ColumnDef{Name: p.ident("a column's name")}
		c.Type = p.typeName()
		if p.accept("NOT") {
			p.expect("NULL")
			c.NotNull = true
		}
		c.node = p.from(start)
		list = append(list, c)
		if !p.accept(",") {
			return list
		}
	}
}

func (p *parser) createFunction(start Pos, replace bool) Statement {
	f := &CreateFunction{Replace: replace, Name: p.created("the function's name")}
	p.expect("(")
	if !p.at(")") {
		f.Params = p.columns()
	}
	p.closeList("the parameters")
	p.expect("RETURNS")
	f.Returns = p.typeName()
	for !p.accept("RETURN") {
		switch {
		case p.accept("LANGUAGE"):
			p.expect("SQL")
		case p.accept("SPECIFIC"):
			p.name("a name")
		case p.acceptAll("NOT", "DETERMINISTIC"):
			no := false
			f.Determinism = &no
		case p.accept("DETERMINISTIC"):
			yes := true
			f.Determinism = &yes
		case p.accept("CONTAINS"):
			p.expect("SQL")
		case p.atAny("READS", "MODIFIES"):
			p.advance()
			p.expect("SQL")
			p.expect("DATA")
		case p.accept("RETURNS"):
			p.expect("NULL")
			p.expect("ON")
			p.expect("NULL")
			p.expect("INPUT")
			f.NullOnNull = true
		case p.accept("CALLED"):
			p.expect("ON")
			p.expect("NULL")
			p.expect("INPUT")
		default:
			p.unexpected("RETURN or an attribute of the function", "RETURN", "LANGUAGE", "SPECIFIC", "DETERMINISTIC", "CONTAINS", "READS", "MODIFIES", "RETURNS", "CALLED")
		}
	}
	f.Body = p.expression()
	f.node = p.from(start)
	return f
}

func (p *parser) insert() *Insert {
	start := p.start()
	p.expect("INSERT")
	s := &Insert{Expedited: p.accept("EXPEDITED")}
	p.expect("INTO")
	s.Target = p.name("the name of a stream")
	// A parenthesis opens a list of columns, unless a query stands in it.
	if p.at("(") && !p.peek(1).is("SELECT") && !p.peek(1).is("VALUES") && !p.peek(1).is("WITH") && !p.peek(1).is("(") {
		p.expect("(")
		for {
			if t := p.tokens[0]; t.is("ROWTIME") {
				p.advance()
				s.Columns = append(s.Columns, Ident{node{t.span}, t.text, false})
			} else {
				s.Columns = append(s.Columns, p.ident("a column's name"))
			}
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
	}
	s.Query = p.query()
	s.node = p.from(start)
	return s
}

// otherTypes are names that types have elsewhere, and what they are here.
var otherTypes = map[string]string{
	"TEXT": "VARCHAR with a length", "STRING": "VARCHAR with a length", "NVARCHAR": "VARCHAR with a length", "JSON": "VARCHAR with a length",
	"UUID": "VARCHAR(36)", "BOOL": "BOOLEAN", "LONG": "BIGINT", "INT2": "SMALLINT", "INT4": "INTEGER", "INT8": "BIGINT", "NUMBER": "DECIMAL",
	"DATETIME": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMP", "BLOB": "VARBINARY with a length", "BYTES": "VARBINARY with a length",
}

// typeName reads a type.
func (p *parser) typeName() TypeName {
	start := p.start()
	t := p.tokens[0]
	if t.kind != kindWord {
		p.unexpected("a type")
	}
	done := func(typ Type) TypeName { return TypeName{p.from(start), typ} }
	simple := map[string]Kind{
		"BOOLEAN": KindBoolean, "TINYINT": KindTinyint, "SMALLINT": KindSmallint, "INTEGER": KindInteger, "INT": KindInteger, "BIGINT": KindBigint,
		"REAL": KindReal, "FLOAT": KindDouble, "DATE": KindDate, "TIME": KindTime, "TIMESTAMP": KindTimestamp,
	}
	if k, ok := simple[t.text]; ok {
		p.advance()
		return done(Type{Kind: k})
	}
	switch t.text {
	case "DOUBLE":
		p.advance()
		p.accept("PRECISION")
		return done(Type{Kind: KindDouble})
	case "DECIMAL", "DEC", "NUMERIC":
		p.advance()
		typ := Type{Kind: KindDecimal, Precision: 18}
		if p.accept("(") {
			typ.Precision = p.integer("the precision", 1, MaxPrecision)
			if p.accept(",") {
				typ.Scale = p.integer("the scale", 0, typ.Precision)
			}
			p.expect(")")
		}
		return done(typ)
	case "CHAR", "CHARACTER":
		p.advance()
		k := KindChar
		if p.accept("VARYING") {
			k = KindVarchar
		}
		return done(Type{Kind: k, Length: p.length()})
	case "VARCHAR":
		p.advance()
		return done(Type{Kind: KindVarchar, Length: p.length()})
	case "BINARY":
		p.advance()
		k := KindBinary
		if p.accept("VARYING") {
			k = KindVarbinary
		}
		return done(Type{Kind: k, Length: p.length()})
	case "VARBINARY":
		p.advance()
		return done(Type{Kind: KindVarbinary, Length: p.length()})
	case "INTERVAL":
		p.advance()
		return done(Type{Kind: KindInterval, Interval: p.qualifier()})
	}
	if here := otherTypes[t.text]; here != "" {
		p.failAt(t.span, "write "+here, "there is no type %s", t.text)
	}
	p.unexpected("a type", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DECIMAL", "NUMERIC", "REAL", "DOUBLE", "FLOAT", "CHAR", "VARCHAR", "BINARY", "VARBINARY", "DATE", "TIME", "TIMESTAMP", "INTERVAL")
	return TypeName{}
}

func (p *parser) length() int {
	if !p.accept("(") {
		return 1
	}
	n := p.integer("the length", 1, MaxLength)
	p.expect(")")
	return n
}

// integer reads an unsigned integer within bounds.
func (p *parser) integer(what string, low, high int) int {
	t := p.tokens[0]
	if t.kind != kindInteger {
		p.unexpected(what + ", a number")
	}
	n, err := strconv.Atoi(t.text)
	if err != nil || n < low || n > high {
		p.failAt(t.span, "", "%s is %d to %d, not %s", what, low, high, t.text)
	}
	p.advance()
	return n
}

// qualifier reads the fields of an interval.
func (p *parser) qualifier() Qualifier {
	t := p.tokens[0]
	q := Qualifier{Precision: 2, Fraction: 3}
	if q.Start = unitOf(t.text); t.kind != kindWord || q.Start == UnitNone {
		p.unexpected("YEAR, MONTH, DAY, HOUR, MINUTE or SECOND", unitNames[1:]...)
	}
	q.End = q.Start
	p.advance()
	if p.at("(") {
		p.advance()
		q.Precision = p.integer("the number of digits", 1, 10)
		if q.Start == Second && p.accept(",") {
			q.Fraction = p.integer("the number of fraction digits", 0, 9)
		}
		p.expect(")")
	}
	// TO may also belong to FLOOR around the interval; it is the interval's only
	// where the pair is one, and where FLOOR does not end behind it.
	if p.at("TO") && p.parens == p.floors && p.peek(2).is(")") {
		return q
	}
	if next := p.peek(1); p.at("TO") && next.kind == kindWord && legalPair(q.Start, unitOf(next.text)) {
		p.advance()
		q.End = unitOf(p.advance().text)
		if q.End == Second && p.at("(") {
			p.advance()
			q.Fraction = p.integer("the number of fraction digits", 0, 9)
			p.expect(")")
		}
	} else if p.at("TO") && next.kind == kindWord && unitOf(next.text) != UnitNone && unitOf(next.text) < q.Start {
		p.failAt(p.tokens[0].span.Through(next.span), "write "+next.text+" TO "+q.Start.String(), "an interval goes from the larger unit to the smaller one")
	}
	return q
}

func legalPair(start, end Unit) bool {
	switch start {
	case Year:
		return end == Month
	case Day, Hour, Minute:
		return end > start
	}
	return false
}

// characters reads a string in either form.
func (p *parser) characters() string {
	t := p.advance()
	if t.kind == kindString {
		return t.text
	}
	escape := byte('\\')
	if p.accept("UESCAPE") {
		e := p.tokens[0]
		if e.kind != kindString || len(e.text) != 1 {
			p.failAt(e.span, "", "UESCAPE is followed by one character in '")
		}
		p.advance()
		escape = e.text[0]
	}
	text, ok := unescape(t.text, escape)
	if !ok || !utf8.ValidString(text) {
		p.failAt(t.span, "", "%c is followed by four hexadecimal digits, or by itself", escape)
	}
	return text
}
