package sql

import (
	"math"
	"strconv"
	"strings"
)

// Precedence, loosest first:
//
//	OR
//	AND
//	NOT
//	comparison, IS, BETWEEN, LIKE, SIMILAR TO, IN, period predicates
//	+ - ||
//	* /
//	sign
//
// IS binds tighter than NOT, as in the standard.

func (p *parser) expressions() []Expr {
	list := []Expr{p.expression()}
	for p.accept(",") {
		list = append(list, p.expression())
	}
	return list
}

func (p *parser) expression() Expr {
	p.nest()
	defer func() { p.depth-- }()
	start := p.start()
	left := p.conjunction()
	for p.accept("OR") {
		left = p.operation(start, "OR", left, p.conjunction())
	}
	return left
}

func (p *parser) operation(start Pos, op string, left, right Expr) Expr {
	return &Operation{p.from(start), op, left, right}
}

func (p *parser) conjunction() Expr {
	start := p.start()
	left := p.negation()
	for p.accept("AND") {
		left = p.operation(start, "AND", left, p.negation())
	}
	return left
}

func (p *parser) negation() Expr {
	start := p.start()
	if !p.accept("NOT") {
		return p.predicate()
	}
	p.nest()
	e := p.negation()
	p.depth--
	return &Unary{p.from(start), "NOT", e}
}

func (p *parser) predicate() Expr {
	start := p.start()
	left := p.additive()
	for {
		next := p.predicateTail(start, left)
		if next == nil {
			return left
		}
		left = next
	}
}

// predicateTail reads one predicate on left; nil if there is none.
func (p *parser) predicateTail(start Pos, left Expr) Expr {
	for _, op := range []string{"=", "<>", "!=", "<", "<=", ">", ">="} {
		if p.accept(op) {
			if p.atAny("ANY", "SOME", "ALL") && p.peek(1).is("(") && (p.peek(2).is("SELECT") || p.peek(2).is("VALUES")) {
				p.reservedWord(p.tokens[0])
			}
			right := p.additive()
			if op == "!=" {
				op = "<>"
			}
			return p.operation(start, op, left, right)
		}
	}
	if p.accept("IS") {
		not := p.accept("NOT")
		if p.accept("DISTINCT") {
			p.expect("FROM")
			right := p.additive()
			return &IsDistinct{p.from(start), left, right, not}
		}
		what := p.expectOne("NULL", "TRUE", "FALSE", "UNKNOWN")
		return &Is{p.from(start), left, not, what}
	}
	not := false
	if p.at("NOT") {
		if next := p.peek(1); !next.is("BETWEEN") && !next.is("LIKE") && !next.is("SIMILAR") && !next.is("IN") {
			p.advance()
			p.unexpected("BETWEEN, LIKE, SIMILAR TO or IN after NOT", "BETWEEN", "LIKE", "SIMILAR", "IN")
		}
		p.advance()
		not = true
	}
	switch {
	case p.accept("BETWEEN"):
		b := &Between{Operand: left, Not: not, Symmetric: p.accept("SYMMETRIC")}
		if !b.Symmetric {
			p.accept("ASYMMETRIC")
		}
		b.Low = p.additive()
		p.expect("AND")
		b.High = p.additive()
		b.node = p.from(start)
		return b
	case p.atAny("LIKE", "SIMILAR"):
		l := &Like{Operand: left, Not: not}
		if p.advance().text == "SIMILAR" {
			l.Similar = true
			p.expect("TO")
		}
		l.Pattern = p.additive()
		if p.accept("ESCAPE") {
			l.Escape = p.additive()
		}
		l.node = p.from(start)
		return l
	case p.accept("IN"):
		in := &In{Operand: left, Not: not}
		p.expect("(")
		if p.atAny("SELECT", "VALUES", "WITH") {
			in.Query = p.query()
		} else {
			in.List = p.expressions()
		}
		p.expect(")")
		in.node = p.from(start)
		return in
	}
	if op := p.periodOperator(left); op != "" {
		right := p.additive()
		return &Period{p.from(start), op, left, right}
	}
	return nil
}

// periodOperator reads the operator of a period predicate. Its words are names
// elsewhere, so it is looked for behind a period, which is a row, only.
func (p *parser) periodOperator(left Expr) string {
	if _, ok := left.(*Row); !ok {
		return ""
	}
	prefix := ""
	var words []string
	switch {
	case p.accept("IMMEDIATELY"):
		prefix, words = "IMMEDIATELY ", []string{"PRECEDES", "SUCCEEDS", "LEADS", "LAGS"}
	case p.accept("STRICTLY"):
		prefix, words = "STRICTLY ", []string{"CONTAINS", "OVERLAPS", "PRECEDES", "SUCCEEDS", "LEADS", "LAGS"}
	default:
		for _, w := range []string{"CONTAINS", "OVERLAPS", "EQUALS", "PRECEDES", "SUCCEEDS", "LEADS", "LAGS"} {
			if p.accept(w) {
				return w
			}
		}
		return ""
	}
	return prefix + p.expectOne(words...)
}

func (p *parser) additive() Expr {
	start := p.start()
	left := p.multiplicative()
	for p.atAny("+", "-", "||") {
		op := p.advance().text
		left = p.operation(start, op, left, p.multiplicative())
	}
	return left
}

func (p *parser) multiplicative() Expr {
	start := p.start()
	left := p.unary()
	for p.atAny("*", "/") {
		op := p.advance().text
		left = p.operation(start, op, left, p.unary())
	}
	return left
}

func (p *parser) unary() Expr {
	start := p.start()
	if !p.atAny("+", "-") {
		return p.primary()
	}
	op := p.advance().text
	if t := p.tokens[0]; op == "-" && t.kind == kindInteger && strings.TrimLeft(t.text, "0") == "9223372036854775808" {
		// The smallest BIGINT, whose digits alone are none.
		p.advance()
		return &Number{p.from(start), "-9223372036854775808", Type{Kind: KindBigint}}
	}
	p.nest()
	e := p.unary()
	p.depth--
	return &Unary{p.from(start), op, e}
}

// primary reads a literal, a column, a call or something in parentheses.
func (p *parser) primary() Expr {
	p.nest()
	defer func() { p.depth-- }()
	start, t := p.start(), p.tokens[0]
	switch t.kind {
	case kindInteger, kindDecimal, kindDouble:
		return p.number()
	case kindString, kindUnicode:
		text := p.characters()
		return &String{p.from(start), text}
	case kindBinary:
		p.advance()
		return &Binary{p.from(start), []byte(t.text)}
	case kindQuoted:
		return p.columnOrCall()
	case kindSymbol:
		if t.text == "(" {
			return p.parenthesised()
		}
		p.unexpected("an expression")
	case kindEnd:
		p.unexpected("an expression")
	}
	switch t.text {
	case "TRUE", "FALSE":
		p.advance()
		return &Boolean{p.from(start), t.text == "TRUE"}
	case "NULL", "UNKNOWN":
		p.advance()
		return &Null{p.from(start), t.text == "UNKNOWN"}
	case "DATE", "TIME", "TIMESTAMP":
		return p.datetime()
	case "INTERVAL":
		return p.interval()
	case "CASE":
		return p.caseExpr()
	case "CAST":
		p.advance()
		return p.cast(start, false)
	case "EXISTS":
		p.advance()
		p.expect("(")
		q := p.query()
		p.expect(")")
		return &Exists{p.from(start), q}
	case "CURSOR":
		p.advance()
		p.expect("(")
		q := p.query()
		p.expect(")")
		return &Cursor{p.from(start), q}
	case "ROW":
		p.advance()
		p.expect("(")
		items := p.expressions()
		p.expect(")")
		return &Row{p.from(start), items}
	case "FLOOR", "CEIL", "CEILING":
		return p.floor()
	case "EXTRACT":
		p.advance()
		p.expect("(")
		unit := p.unit()
		p.expect("FROM")
		e := &Extract{Unit: unit, Operand: p.expression()}
		p.expect(")")
		e.node = p.from(start)
		return e
	case "SUBSTRING":
		return p.substring()
	case "OVERLAY":
		p.advance()
		p.expect("(")
		o := &Overlay{Operand: p.expression()}
		p.expect("PLACING")
		o.Placing = p.expression()
		p.expect("FROM")
		o.From = p.expression()
		if p.accept("FOR") {
			o.For = p.expression()
		}
		p.expect(")")
		o.node = p.from(start)
		return o
	case "POSITION":
		p.advance()
		p.expect("(")
		e := &Position{Needle: p.additive()}
		p.expect("IN")
		e.Operand = p.expression()
		p.expect(")")
		e.node = p.from(start)
		return e
	case "TRIM":
		return p.trim()
	}
	if valueWords[t.text] {
		p.advance()
		if p.accept("(") {
			p.expect(")")
		}
		return &Call{node: p.from(start), Name: Ident{node{t.span}, t.text, false}}
	}
	return p.columnOrCall()
}

func (p *parser) number() Expr {
	t := p.advance()
	n := &Number{node{t.span}, t.text, Type{Kind: KindDouble}}
	switch t.kind {
	case kindInteger:
		v, err := strconv.ParseInt(t.text, 10, 64)
		switch {
		case err != nil:
			p.failAt(t.span, "write it with an exponent for a DOUBLE, such as 1e20", "%s does not fit into BIGINT", t.text)
		case v <= math.MaxInt32:
			n.Type = Type{Kind: KindInteger}
		default:
			n.Type = Type{Kind: KindBigint}
		}
	case kindDecimal:
		whole, fraction, _ := strings.Cut(t.text, ".")
		whole = strings.TrimLeft(whole, "0")
		n.Type = Type{Kind: KindDecimal, Precision: max(len(whole)+len(fraction), 1), Scale: len(fraction)}
		if n.Type.Precision > MaxPrecision {
			p.failAt(t.span, "write it with an exponent for a DOUBLE", "%s has more than %d digits", t.text, MaxPrecision)
		}
	case kindDouble:
		if v, err := strconv.ParseFloat(t.text, 64); err != nil || math.IsInf(v, 0) {
			p.failAt(t.span, "", "%s does not fit into DOUBLE", t.text)
		}
	}
	return n
}

// parenthesised reads (e), (a, b), (query) and (a - b) qualifier.
func (p *parser) parenthesised() Expr {
	start := p.start()
	p.advance()
	if p.atAny("SELECT", "VALUES", "WITH") {
		q := p.query()
		p.expect(")")
		return &Subquery{p.from(start), q}
	}
	items := p.expressions()
	p.expect(")")
	if len(items) > 1 {
		return &Row{p.from(start), items}
	}
	if d, ok := items[0].(*Operation); ok && d.Op == "-" && p.tokens[0].kind == kindWord && unitOf(p.tokens[0].text) != UnitNone {
		q := p.qualifier()
		return &Difference{p.from(start), d.Left, d.Right, q}
	}
	return items[0]
}

func (p *parser) unit() Unit {
	t := p.tokens[0]
	u := unitOf(t.text)
	if t.kind != kindWord || u == UnitNone {
		p.unexpected("YEAR, MONTH, DAY, HOUR, MINUTE or SECOND", unitNames[1:]...)
	}
	p.advance()
	return u
}

// datetime reads DATE '…', TIME '…' and TIMESTAMP '…'.
func (p *parser) datetime() Expr {
	start := p.start()
	word := p.advance().text
	t := p.tokens[0]
	if t.kind != kindString {
		p.failAt(t.span, "a column of this name is written \""+word+"\"", "expected a %s in ', found %s", strings.ToLower(word), p.describe(t))
	}
	p.advance()
	d := &Datetime{Text: t.text}
	var ok bool
	var form string
	switch word {
	case "DATE":
		d.Kind, form = KindDate, "yyyy-MM-dd"
		d.Millis, ok = ParseDate(t.text)
	case "TIME":
		d.Kind, form = KindTime, "HH:mm:ss, with up to three fraction digits"
		d.Millis, ok = ParseTime(t.text)
	default:
		d.Kind, form = KindTimestamp, "yyyy-MM-dd HH:mm:ss, with up to three fraction digits"
		d.Millis, ok = ParseTimestamp(t.text)
	}
	if !ok {
		p.failAt(t.span, "", "%s is no %s, which is written %s", p.describe(t), word, form)
	}
	d.node = p.from(start)
	return d
}

// interval reads INTERVAL '…' qualifier.
func (p *parser) interval() Expr {
	start := p.start()
	p.advance()
	i := &Interval{}
	if p.atAny("+", "-") {
		i.Negative = p.advance().text == "-"
	}
	t := p.tokens[0]
	if t.kind != kindString {
		p.unexpected("the interval's value in '")
	}
	p.advance()
	i.Text = t.text
	if w := p.tokens[0]; w.kind == kindWord && strings.HasSuffix(w.text, "S") && unitOf(strings.TrimSuffix(w.text, "S")) != UnitNone {
		p.failAt(w.span, "write "+strings.TrimSuffix(w.text, "S"), "the units of intervals have no plural")
	}
	i.Qualifier = p.qualifier()
	v, problem := ParseInterval(t.text, i.Qualifier)
	if problem != "" {
		p.failAt(t.span, "", "%s", problem)
	}
	i.Value = v
	if i.Negative {
		i.Value = -v
	}
	i.node = p.from(start)
	return i
}

func (p *parser) caseExpr() Expr {
	start := p.start()
	p.advance()
	c := &Case{}
	if p.at("END") || p.at("ELSE") {
		p.unexpected("WHEN", "WHEN")
	}
	if !p.at("WHEN") {
		c.Operand = p.expression()
	}
	for p.accept("WHEN") {
		w := When{Condition: p.expression()}
		p.expect("THEN")
		w.Result = p.expression()
		c.Whens = append(c.Whens, w)
	}
	if len(c.Whens) == 0 {
		p.unexpected("WHEN", "WHEN")
	}
	if p.accept("ELSE") {
		c.Else = p.expression()
	}
	if !p.at("END") {
		p.unexpected("WHEN, ELSE or END", "WHEN", "ELSE", "END")
	}
	p.advance()
	c.node = p.from(start)
	return c
}

func (p *parser) cast(start Pos, try bool) Expr {
	p.expect("(")
	c := &Cast{Operand: p.expression(), Try: try}
	p.expect("AS")
	c.To = p.typeName()
	p.expect(")")
	c.node = p.from(start)
	return c
}

// floor reads FLOOR(x), FLOOR(x TO unit) and the same with CEIL.
func (p *parser) floor() Expr {
	start := p.start()
	word := p.advance()
	p.expect("(")
	outer := p.floors
	p.floors = p.parens
	e := p.expression()
	p.floors = outer
	if p.accept("TO") {
		f := &FloorTo{Ceil: word.text != "FLOOR", Operand: e, Unit: p.unit()}
		p.expect(")")
		f.node = p.from(start)
		return f
	}
	p.expect(")")
	if p.at("TO") && unitOf(p.peek(1).text) != UnitNone {
		p.failAt(p.tokens[0].span, "write "+word.text+"(x TO "+p.peek(1).text+")", "TO stands inside the parentheses of %s", word.text)
	}
	name := word.text
	if name == "CEILING" {
		name = "CEIL"
	}
	return &Call{node: p.from(start), Name: Ident{node{word.span}, name, false}, Args: []Expr{e}}
}

// substring reads the forms of SUBSTRING.
func (p *parser) substring() Expr {
	start := p.start()
	word := p.advance()
	p.expect("(")
	e := p.expression2("SIMILAR")
	switch {
	case p.accept("FROM"):
		s := &Substring{Operand: e, From: p.expression()}
		if p.accept("FOR") {
			s.For = p.expression()
		}
		p.expect(")")
		s.node = p.from(start)
		return s
	case p.accept("SIMILAR"):
		s := &SubstringSimilar{Operand: e, Pattern: p.additive()}
		p.expect("ESCAPE")
		s.Escape = p.additive()
		p.expect(")")
		s.node = p.from(start)
		return s
	case p.accept(","):
		args := append([]Expr{e}, p.expressions()...)
		p.expect(")")
		return &Call{node: p.from(start), Name: Ident{node{word.span}, word.text, false}, Args: args}
	}
	p.unexpected("FROM, SIMILAR or \",\"", "FROM", "SIMILAR")
	return nil
}

// expression2 reads an expression that ends before a word which could otherwise
// go on with it.
func (p *parser) expression2(stop string) Expr {
	start := p.start()
	e := p.additive()
	if p.at(stop) {
		return e
	}
	for {
		next := p.predicateTail(start, e)
		if next == nil {
			return e
		}
		e = next
	}
}

func (p *parser) trim() Expr {
	start := p.start()
	p.advance()
	p.expect("(")
	t := &Trim{Side: "BOTH"}
	sided := p.atAny("LEADING", "TRAILING", "BOTH")
	if sided {
		t.Side = p.advance().text
	}
	switch {
	case sided && p.accept("FROM"):
		t.Operand = p.expression()
	default:
		e := p.expression()
		if p.accept("FROM") {
			t.Chars, t.Operand = e, p.expression()
		} else if sided {
			p.unexpected("FROM", "FROM")
		} else {
			t.Operand = e
		}
	}
	p.expect(")")
	t.node = p.from(start)
	return t
}

// columnOrCall reads what begins with a name.
func (p *parser) columnOrCall() Expr {
	start, t := p.start(), p.tokens[0]
	if p.peek(1).is("(") && (t.kind == kindQuoted || !reserved[t.text] || callWords[t.text]) {
		p.advance()
		return p.call(start, Ident{node{t.span}, t.text, t.kind == kindQuoted})
	}
	var c Column
	for {
		t := p.tokens[0]
		if t.kind == kindWord && systemColumns[t.text] {
			p.advance()
			c.Parts = append(c.Parts, Ident{node{t.span}, t.text, false})
		} else if len(c.Parts) == 0 && t.kind == kindWord && reserved[t.text] {
			p.reservedWord(t)
		} else {
			c.Parts = append(c.Parts, p.ident("a column's name"))
		}
		if !p.at(".") {
			break
		}
		p.advance()
	}
	if len(c.Parts) > 4 {
		p.failAt(Span{start, p.last.End}, "", "a column has at most three qualifiers")
	}
	c.node = p.from(start)
	return &c
}

// reservedWord fails because a word stands where an expression should.
func (p *parser) reservedWord(t token) {
	hint := "a column of this name is written \"" + t.text + "\""
	switch {
	case t.is("ROLLUP"), t.is("CUBE"), t.is("GROUPING"):
		p.failAt(t.span, "write a query for each grouping", "%s is not part of the dialect", t.text)
	case (t.is("ANY") || t.is("SOME") || t.is("ALL")) && p.peek(1).is("("):
		p.failAt(t.span, "write IN or NOT IN, or compare with (SELECT MAX(…) FROM …)", "a comparison with %s of a query is not part of the dialect", t.text)
	case clauseWords[t.text]:
		hint = ""
		if p.lexer.text[p.last.Start:p.last.End] == "," {
			hint = "there is a comma too many before it"
		}
		p.failAt(t.span, hint, "expected an expression, found %s", t.text)
	case callWords[t.text]:
		hint = "a function is followed by \"(\"; " + hint
	}
	p.failAt(t.span, hint, "expected an expression, found the reserved word %s", t.text)
}

// clauseWords begin what comes behind an expression; nobody has columns of these
// names.
var clauseWords = map[string]bool{"AND": true, "AS": true, "BY": true, "ELSE": true, "END": true, "EXCEPT": true, "FROM": true, "GROUP": true, "HAVING": true,
	"INTERSECT": true, "INTO": true, "IS": true, "JOIN": true, "LIMIT": true, "ON": true, "OR": true, "ORDER": true, "OVER": true, "SELECT": true, "THEN": true,
	"UNION": true, "USING": true, "WHEN": true, "WHERE": true, "WINDOW": true, "WITH": true}

// call reads the arguments of a function and what analytic functions have behind
// them.
func (p *parser) call(start Pos, name Ident) Expr {
	if !name.Quoted {
		switch name.Name {
		case "STEP":
			p.expect("(")
			s := &Step{Operand: p.expression()}
			if !p.at("BY") {
				p.unexpected("BY", "BY")
			}
			p.advance()
			s.By = p.expression()
			p.expect(")")
			s.node = p.from(start)
			return s
		case "TRY_CAST":
			return p.cast(start, true)
		}
	}
	p.expect("(")
	c := &Call{Name: name}
	switch {
	case p.accept("*"):
		c.Star = true
	case p.at(")"):
	default:
		if p.accept("DISTINCT") {
			c.Distinct = true
		} else {
			p.accept("ALL")
		}
		c.Args = p.expressions()
	}
	p.expect(")")
	if p.at("FROM") && (p.peek(1).is("FIRST") || p.peek(1).is("LAST")) && c.Name.Name == "NTH_VALUE" {
		p.advance()
		c.FromLast = p.advance().text == "LAST"
	}
	if p.atAny("IGNORE", "RESPECT") {
		ignore := p.advance().text == "IGNORE"
		p.expect("NULLS")
		c.IgnoreNulls = &ignore
	}
	if p.at("FILTER") && p.peek(1).is("(") {
		p.advance()
		p.advance()
		p.expect("WHERE")
		c.Filter = p.expression()
		p.expect(")")
	}
	c.Over = p.over()
	c.node = p.from(start)
	return c
}
