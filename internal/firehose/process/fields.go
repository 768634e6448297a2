package process

import (
	"slices"

	"github.com/itchyny/gojq"
)

// fieldsOf finds the members of a record that a program can see, so that no
// others need to be made into values. ok is false for a program that looks at
// its input as a whole, or may do so.
func fieldsOf(q *gojq.Query) (fields []string, ok bool) {
	var f fieldFinder
	f.query(q)
	return f.names, !f.whole
}

// fieldFinder walks those parts of a syntax tree whose input is the record.
type fieldFinder struct {
	names []string
	whole bool
}

func (f *fieldFinder) queries(list []*gojq.Query) {
	for _, q := range list {
		f.query(q)
	}
}

func (f *fieldFinder) query(q *gojq.Query) {
	switch {
	case q == nil || f.whole:
	case len(q.FuncDefs) > 0 || len(q.Imports) > 0 || q.Meta != nil:
		f.whole = true
	case q.Term != nil:
		f.term(q.Term)
	case q.Op == gojq.OpPipe && len(q.Patterns) == 0:
		f.query(q.Left) // what it gives is the input of the rest
	case q.Op == gojq.OpPipe:
		f.patterns(q.Patterns)
		f.query(q.Left)
		f.query(q.Right)
	case q.Op == gojq.OpComma, q.Op == gojq.OpAdd, q.Op == gojq.OpSub, q.Op == gojq.OpMul, q.Op == gojq.OpDiv, q.Op == gojq.OpMod,
		q.Op == gojq.OpEq, q.Op == gojq.OpNe, q.Op == gojq.OpGt, q.Op == gojq.OpLt, q.Op == gojq.OpGe, q.Op == gojq.OpLe,
		q.Op == gojq.OpAnd, q.Op == gojq.OpOr, q.Op == gojq.OpAlt:
		f.query(q.Left)
		f.query(q.Right)
	default: // an assignment gives all of its input
		f.whole = true
	}
}

// patterns may compute names from the record; such programs are rare.
func (f *fieldFinder) patterns(list []*gojq.Pattern) {
	for _, p := range list {
		if p.Name == "" {
			f.whole = true
		}
	}
}

func (f *fieldFinder) term(t *gojq.Term) {
	switch t.Type {
	case gojq.TermTypeNull, gojq.TermTypeTrue, gojq.TermTypeFalse, gojq.TermTypeNumber, gojq.TermTypeBreak:
	case gojq.TermTypeIndex:
		f.index(t.Index)
	case gojq.TermTypeFunc:
		// A variable has a value of its own. A function gets the record.
		if t.Func.Name[0] != '$' && t.Func.Name != "now" && t.Func.Name != "empty" {
			f.whole = true
		}
	case gojq.TermTypeObject:
		for _, kv := range t.Object.KeyVals {
			f.text(kv.KeyString)
			f.query(kv.KeyQuery)
			f.query(kv.Val)
			if kv.Val == nil { // {a}, {"a"}, {$a}
				switch {
				case kv.KeyString != nil && len(kv.KeyString.Queries) == 0:
					f.add(kv.KeyString.Str)
				case kv.Key == "" || kv.KeyQuery != nil || kv.KeyString != nil:
					f.whole = true
				case kv.Key[0] != '$':
					f.add(kv.Key)
				}
			}
		}
	case gojq.TermTypeArray:
		f.query(t.Array.Query)
	case gojq.TermTypeUnary:
		f.term(t.Unary.Term)
	case gojq.TermTypeFormat:
		if t.Str == nil {
			f.whole = true
		}
		f.text(t.Str)
	case gojq.TermTypeString:
		f.text(t.Str)
	case gojq.TermTypeIf:
		f.query(t.If.Cond)
		f.query(t.If.Then)
		for _, e := range t.If.Elif {
			f.query(e.Cond)
			f.query(e.Then)
		}
		if t.If.Else == nil { // it gives its input
			f.whole = true
		}
		f.query(t.If.Else)
	case gojq.TermTypeTry:
		f.query(t.Try.Body) // the error is the input of what catches it
	case gojq.TermTypeReduce:
		f.patterns(t.Reduce.Patterns)
		f.query(t.Reduce.Query)
		f.query(t.Reduce.Start)
	case gojq.TermTypeForeach:
		f.patterns(t.Foreach.Patterns)
		f.query(t.Foreach.Query)
		f.query(t.Foreach.Start)
	case gojq.TermTypeLabel:
		f.query(t.Label.Body)
	case gojq.TermTypeQuery:
		f.query(t.Query)
	default: // the record itself, or all that is in it
		f.whole = true
	}
	// What stands in brackets behind a term is computed from the record.
	for _, s := range t.SuffixList {
		if s.Index != nil {
			f.text(s.Index.Str)
			f.query(s.Index.Start)
			f.query(s.Index.End)
		}
	}
}

func (f *fieldFinder) index(x *gojq.Index) {
	switch {
	case x.IsSlice || x.Start == nil && x.Str == nil && x.Name == "":
		f.whole = true
	case x.Start != nil:
		t := x.Start.Term
		if t == nil || t.Type != gojq.TermTypeString || len(t.SuffixList) > 0 || len(t.Str.Queries) > 0 || len(x.Start.FuncDefs) > 0 {
			f.whole = true
			return
		}
		f.add(t.Str.Str)
	case x.Str != nil && len(x.Str.Queries) > 0:
		f.whole = true
	case x.Str != nil:
		f.add(x.Str.Str)
	default:
		f.add(x.Name)
	}
}

func (f *fieldFinder) text(s *gojq.String) {
	if s != nil {
		f.queries(s.Queries)
	}
}

func (f *fieldFinder) add(name string) {
	if !slices.Contains(f.names, name) {
		f.names = append(f.names, name)
	}
}

// decodeFields is decodeJSON of an object of which only some members matter. The
// others are passed over, but have to be JSON all the same.
func decodeFields(text []byte, fields []string) (any, error) {
	s := scanner{text: text}
	if s.peek() != '{' {
		return decodeJSON(text)
	}
	values := make(map[string]any, len(fields))
	err := s.object(func(raw []byte, simple bool) error {
		name := raw
		if !simple {
			var err error
			if name, err = appendText(nil, raw); err != nil {
				return err
			}
		}
		for _, f := range fields {
			if string(name) == f {
				v, err := s.any(1)
				values[f] = v
				return err
			}
		}
		return s.value(1)
	})
	if err == nil && (s.peek() != 0 || s.at < len(text)) {
		err = s.unexpected()
	}
	return values, err
}
