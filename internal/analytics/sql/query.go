package sql

// query reads a query with WITH, ORDER BY and LIMIT around it.
func (p *parser) query() *Query {
	p.nest()
	defer func() { p.depth-- }()
	start := p.start()
	q := &Query{}
	if p.accept("WITH") {
		for {
			from := p.start()
			w := With{Name: p.ident("a name for the query")}
			if p.at("(") {
				w.Columns = p.identList("a column's name")
			}
			p.expect("AS")
			p.expect("(")
			w.Query = p.query()
			p.expect(")")
			w.node = p.from(from)
			q.With = append(q.With, w)
			if !p.accept(",") {
				break
			}
		}
	}
	q.Body = p.unions()
	if p.at("ORDER") {
		q.OrderBy = p.orderBy()
	}
	if p.accept("LIMIT") && !p.accept("ALL") {
		q.Limit = p.additive()
	}
	q.node = p.from(start)
	return q
}

func (p *parser) unions() Body {
	start := p.start()
	left := p.intersections()
	for p.atAny("UNION", "EXCEPT") {
		op := p.advance().text
		s := &SetOperation{Op: op, All: p.accept("ALL"), Left: left}
		if !s.All {
			p.accept("DISTINCT")
		}
		s.Right = p.intersections()
		s.node = p.from(start)
		left = s
	}
	return left
}

func (p *parser) intersections() Body {
	start := p.start()
	left := p.queryFactor()
	for p.accept("INTERSECT") {
		s := &SetOperation{Op: "INTERSECT", All: p.accept("ALL"), Left: left}
		if !s.All {
			p.accept("DISTINCT")
		}
		s.Right = p.queryFactor()
		s.node = p.from(start)
		left = s
	}
	return left
}

func (p *parser) queryFactor() Body {
	switch {
	case p.at("SELECT"):
		return p.selectBody()
	case p.accept("VALUES"):
		v := &Values{}
		start := p.last.Start
		for {
			p.accept("ROW")
			p.expect("(")
			v.Rows = append(v.Rows, p.expressions())
			p.expect(")")
			if !p.accept(",") {
				break
			}
		}
		v.node = p.from(start)
		return v
	case p.accept("("):
		q := p.query()
		p.expect(")")
		return q
	}
	p.unexpected("SELECT, VALUES or a query in parentheses", "SELECT", "VALUES")
	return nil
}

func (p *parser) selectBody() *Select {
	start := p.start()
	p.expect("SELECT")
	s := &Select{Stream: p.accept("STREAM")}
	if p.accept("DISTINCT") {
		s.Distinct = true
	} else {
		p.accept("ALL")
	}
	for {
		s.Items = append(s.Items, p.selectItem())
		if !p.accept(",") {
			break
		}
	}
	if !p.at("FROM") {
		// A misspelt FROM has been taken for the last item's alias.
		if a := s.Items[len(s.Items)-1].Alias; a != nil && !a.Quoted && Nearest(a.Name, []string{"FROM"}) != "" {
			p.failAt(a.span, "did you mean FROM?", "expected \",\" or FROM, found %q", p.lexer.text[a.span.Start:a.span.End])
		}
		p.unexpected("\",\" or FROM", "FROM", "AS")
	}
	p.advance()
	from := p.start()
	s.From = p.tableRef()
	for p.accept(",") {
		j := &Join{Kind: CrossJoin, Comma: true, Left: s.From, Right: p.tableRef()}
		j.node = p.from(from)
		s.From = j
	}
	if p.accept("WHERE") {
		s.Where = p.expression()
	}
	switch {
	case p.accept("GROUP"):
		p.expect("BY")
		s.GroupBy = p.expressions()
	case p.at("WINDOWED"):
		s.Window = p.windowedBy()
	}
	if p.accept("HAVING") {
		s.Having = p.expression()
	}
	for {
		switch {
		case s.Windows == nil && p.accept("WINDOW"):
			s.Windows = p.windows()
			continue
		case s.Qualify == nil && p.accept("QUALIFY"):
			s.Qualify = p.expression()
			continue
		}
		break
	}
	s.node = p.from(start)
	return s
}

func (p *parser) windows() []WindowDef {
	var list []WindowDef
	for {
		start := p.start()
		d := WindowDef{Name: p.ident("the window's name")}
		p.expect("AS")
		d.Spec = p.windowSpec()
		d.node = p.from(start)
		list = append(list, d)
		if !p.accept(",") {
			return list
		}
	}
}

func (p *parser) selectItem() SelectItem {
	start := p.start()
	if p.accept("*") {
		return SelectItem{node: p.from(start), Star: true}
	}
	if t := p.tokens[0]; (t.kind == kindQuoted || t.kind == kindWord && !reserved[t.text]) && p.peek(1).is(".") && p.peek(2).is("*") {
		n := Name{Parts: []Ident{p.ident("a name")}}
		n.node = n.Parts[0].node
		p.advance()
		p.advance()
		return SelectItem{node: p.from(start), Star: true, Of: &n}
	}
	item := SelectItem{Expr: p.expression()}
	item.Alias = p.alias(true)
	item.node = p.from(start)
	return item
}

// notAlias are words without reservation that cannot be a table's or column's
// alias unless AS precedes them, because they go on with the query.
var notAlias = map[string]bool{"WINDOWED": true, "QUALIFY": true, "MATCH_RECOGNIZE": true}

// alias reads [AS] name. ROWTIME is a column's name too.
func (p *parser) alias(column bool) *Ident {
	if p.accept("AS") {
		if t := p.tokens[0]; column && t.is("ROWTIME") {
			p.advance()
			return &Ident{node{t.span}, t.text, false}
		}
		i := p.ident("an alias")
		return &i
	}
	if t := p.tokens[0]; t.kind == kindQuoted || t.kind == kindWord && !reserved[t.text] && !notAlias[t.text] {
		i := p.ident("an alias")
		return &i
	}
	return nil
}

func (p *parser) windowedBy() *WindowedBy {
	start := p.start()
	p.advance()
	p.expect("BY")
	if !p.atAny("STAGGER", "SESSION") && p.tokens[0].kind == kindWord && Nearest(p.tokens[0].text, []string{"STAGGER", "SESSION"}) == "" {
		p.failAt(p.tokens[0].span, "tumbling windows are GROUP BY STEP(ROWTIME BY INTERVAL '1' MINUTE), sliding ones OVER (RANGE INTERVAL '1' MINUTE PRECEDING)", "expected STAGGER, found %s", p.describe(p.tokens[0]))
	}
	w := &WindowedBy{Session: p.expectOne("STAGGER", "SESSION") == "SESSION"}
	p.expect("(")
	p.expect("PARTITION")
	p.expect("BY")
	w.PartitionBy = p.expressions()
	if w.Session {
		p.expect("GAP")
	} else {
		p.expect("RANGE")
	}
	w.Length = p.additive()
	p.expect(")")
	w.node = p.from(start)
	return w
}

func (p *parser) orderBy() []SortItem {
	p.expect("ORDER")
	p.expect("BY")
	var list []SortItem
	for {
		start := p.start()
		item := SortItem{Expr: p.expression()}
		if p.accept("DESC") {
			item.Descending = true
		} else {
			p.accept("ASC")
		}
		if p.accept("NULLS") {
			first := p.expectOne("FIRST", "LAST") == "FIRST"
			item.NullsFirst = &first
		}
		item.node = p.from(start)
		list = append(list, item)
		if !p.accept(",") {
			return list
		}
	}
}

// windowSpec reads what stands in parentheses after OVER or AS.
func (p *parser) windowSpec() *WindowSpec {
	start := p.start()
	p.expect("(")
	w := &WindowSpec{}
	if t := p.tokens[0]; t.kind == kindQuoted || t.kind == kindWord && !reserved[t.text] {
		name := p.ident("a window's name")
		w.Name = &name
	}
	if p.accept("PARTITION") {
		p.expect("BY")
		w.PartitionBy = p.expressions()
	}
	if p.at("ORDER") {
		w.OrderBy = p.orderBy()
	}
	if p.atAny("ROWS", "RANGE") {
		w.Frame = p.frame()
	}
	if !p.at(")") {
		p.unexpected("PARTITION BY, ORDER BY, ROWS, RANGE or \")\"", "PARTITION", "ORDER", "ROWS", "RANGE")
	}
	p.advance()
	w.node = p.from(start)
	return w
}

func (p *parser) frame() *Frame {
	start := p.start()
	f := &Frame{Rows: p.expectOne("ROWS", "RANGE") == "ROWS"}
	if p.accept("BETWEEN") {
		f.Start = p.bound()
		p.expect("AND")
		f.End = p.bound()
	} else {
		f.Start = p.bound()
		f.End = Bound{Kind: CurrentRow}
		if f.Start.Kind == Following || f.Start.Kind == UnboundedFollowing {
			f.End, f.Start = f.Start, f.End
		}
	}
	f.node = p.from(start)
	return f
}

func (p *parser) bound() Bound {
	start := p.start()
	var b Bound
	switch {
	case p.accept("UNBOUNDED"):
		b.Kind = UnboundedPreceding
		if p.expectOne("PRECEDING", "FOLLOWING") == "FOLLOWING" {
			b.Kind = UnboundedFollowing
		}
	case p.acceptAll("CURRENT", "ROW"):
		b.Kind = CurrentRow
	default:
		b.Offset = p.additive()
		b.Kind = Preceding
		if p.expectOne("PRECEDING", "FOLLOWING") == "FOLLOWING" {
			b.Kind = Following
		}
	}
	b.node = p.from(start)
	return b
}

func (p *parser) over() *WindowSpec {
	if !p.accept("OVER") {
		return nil
	}
	if p.at("(") {
		return p.windowSpec()
	}
	name := p.ident("a window's name or \"(\"")
	return &WindowSpec{node: name.node, Name: &name}
}

// tableRef reads a table with the joins after it.
func (p *parser) tableRef() TableRef {
	p.nest()
	defer func() { p.depth-- }()
	start := p.start()
	left := p.tablePrimary()
	for {
		j := &Join{Left: left}
		switch {
		case p.atAny("LATERAL", "MATCH_RECOGNIZE", "TABLESAMPLE"):
			p.failAt(p.tokens[0].span, "", "%s is not part of the dialect", p.tokens[0].text)
		case p.accept("CROSS"):
			j.Kind = CrossJoin
			p.expect("JOIN")
			j.Right = p.tablePrimary()
			j.node = p.from(start)
			left = j
			continue
		case p.accept("NATURAL"):
			j.Natural = true
			fallthrough
		case p.atAny("JOIN", "INNER", "LEFT", "RIGHT", "FULL"):
			switch {
			case p.accept("INNER"):
			case p.accept("LEFT"):
				j.Kind = LeftJoin
			case p.accept("RIGHT"):
				j.Kind = RightJoin
			case p.accept("FULL"):
				j.Kind = FullJoin
			}
			if j.Kind != InnerJoin {
				p.accept("OUTER")
			}
			p.expect("JOIN")
			j.Right = p.tablePrimary()
		default:
			return left
		}
		switch {
		case j.Natural:
		case p.accept("ON"):
			j.On = p.expression()
		case p.accept("USING"):
			j.Using = p.identList("a column's name")
		}
		j.node = p.from(start)
		left = j
	}
}

func (p *parser) tablePrimary() TableRef {
	start := p.start()
	if p.at("LATERAL") || p.at("UNNEST") {
		p.failAt(p.tokens[0].span, "", "%s is not part of the dialect", p.tokens[0].text)
	}
	switch {
	case p.accept("("):
		if p.atAny("SELECT", "VALUES", "WITH", "(") {
			t := &QueryTable{Query: p.query()}
			p.expect(")")
			t.Over = p.over()
			t.Alias, t.Columns = p.tableAlias()
			t.node = p.from(start)
			return t
		}
		t := p.tableRef()
		p.expect(")")
		return t
	case p.accept("TABLE"):
		p.expect("(")
		at := p.tokens[0].span
		call, ok := p.primary().(*Call)
		if !ok {
			p.failAt(at, "", "TABLE contains the call of a table function")
		}
		p.expect(")")
		t := &FunctionTable{Call: call, Over: p.over()}
		t.Alias, t.Columns = p.tableAlias()
		t.node = p.from(start)
		return t
	}
	// FROM STREAM s is not the dialect, but the keyword is often put there.
	if p.at("STREAM") {
		p.failAt(p.tokens[0].span, "write SELECT STREAM … FROM name", "STREAM stands after SELECT, not in FROM")
	}
	t := &NamedTable{Name: p.name("the name of a stream")}
	t.Over = p.over()
	t.Alias, t.Columns = p.tableAlias()
	if t.Over == nil {
		t.Over = p.over() // FROM s AS a OVER (…) is written as well
	}
	t.node = p.from(start)
	return t
}

func (p *parser) tableAlias() (*Ident, []Ident) {
	a := p.alias(false)
	if a == nil || !p.at("(") {
		return a, nil
	}
	return a, p.identList("a column's name")
}
