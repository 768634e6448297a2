package process

import (
	"encoding/base32"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"

	"github.com/itchyny/gojq"
)

// A query may run for no more than so many steps, but a single step can double
// what it is given, and some functions do their work in one. So every place of a
// program where a value grows is followed by a look at how much it weighs, and
// what grows out of proportion by itself has its size computed before.
//
// A value that is used twice in another weighs twice: what is small in memory but
// has no end to whoever walks it (two of a list of two of a list …) is caught
// like any other.

// maxWeight bounds a value that a query makes: a byte of text weighs 1, and every
// value nodeWeight more.
const (
	maxWeight  = 16 << 20
	nodeWeight = 16
	// maxIndex is beyond every list of that weight.
	maxIndex = maxWeight / nodeWeight
	// maxDigits bounds text that is read as a number.
	maxDigits = 400
)

var errHeavy = errors.New("a value in MetadataExtractionQuery became too large")

// prelude puts checks around functions that can do much at once; an inner
// definition calls the function of the same name that it hides. Behind them are
// functions of JQ-1.6 that the interpreter does not have.
const prelude = matchers + `
def _transpose: transpose; def transpose: _guard_transpose | _transpose;
def _setpath(p; v): setpath(p; v); def setpath(p; v): _setpath(p | _guard_path; v) | _guard;
def _fromstream(f): fromstream(f); def fromstream(f): _fromstream(f | _guard_event) | _guard;
def _tonumber: tonumber; def tonumber: _guard_digits | _tonumber | _guard_number;
def join($separator): _guard_join($separator);
def fromjson: _guard_fromjson;
def _tojson: tojson; def tojson: _guard | _tojson;
def _implode: implode; def implode: _guard | _implode;
def _flatten: flatten; def flatten: _guard | _flatten;
def _flatten($depth): flatten($depth); def flatten($depth): _guard | _flatten($depth);
def _add: add; def add: _guard | _add | _guard;
def add(f): [f] | add;
def ascii: [.] | implode;
def leaf_paths: paths(scalars);
def recurse_down: recurse;
def isvalid(f): try (f | true) catch false;
def date: todate;
def dateadd(unit; n): . + n;
def datesub(unit; n): . - n;
def truncate_stream($depth; stream): $depth | truncate_stream(stream);
def pow10: exp10;
def debug: .;
def stderr: .;
def input: error("No more inputs");
def inputs: empty;
def input_line_number: 0;
def input_filename: null;
.`

// guards are the functions that a guarded program calls.
var guards = []gojq.CompilerOption{
	gojq.WithFunction("_guard", 0, 0, func(v any, _ []any) any {
		if weigh(v, maxWeight) < 0 {
			return errHeavy
		}
		return v
	}),
	gojq.WithFunction("_guard_add", 2, 2, func(_ any, a []any) any { return guardAdd(a[0], a[1]) }),
	gojq.WithFunction("_guard_multiply", 2, 2, func(_ any, a []any) any { return guardMultiply(a[0], a[1]) }),
	gojq.WithFunction("_guard_index", 0, 0, func(v any, _ []any) any { return clampIndex(v) }),
	gojq.WithFunction("_guard_path", 0, 0, func(v any, _ []any) any { return clampPath(v) }),
	gojq.WithFunction("_guard_event", 0, 0, func(v any, _ []any) any {
		event, ok := v.([]any)
		if !ok || len(event) == 0 {
			return v
		}
		event = append([]any{clampPath(event[0])}, event[1:]...)
		return event
	}),
	gojq.WithFunction("_guard_transpose", 0, 0, func(v any, _ []any) any {
		rows, _ := v.([]any)
		columns := 0
		for _, row := range rows {
			r, _ := row.([]any)
			columns = max(columns, len(r))
		}
		if len(rows)*columns > maxIndex {
			return errHeavy
		}
		return v
	}),
	gojq.WithFunction("_guard_digits", 0, 0, func(v any, _ []any) any {
		if s, ok := v.(string); ok && len(s) > maxDigits {
			return fmt.Errorf("text of %d bytes cannot be a number", len(s))
		}
		return v
	}),
	gojq.WithFunction("_guard_number", 0, 0, func(v any, _ []any) any { return toNumber(v) }),
	gojq.WithFunction("_guard_base32", 0, 0, func(v any, _ []any) any {
		s, ok := v.(string)
		if !ok {
			text, err := gojq.Marshal(v)
			if err != nil {
				return err
			}
			s = string(text)
		}
		return base32.StdEncoding.EncodeToString([]byte(s))
	}),
	gojq.WithFunction("_guard_base32d", 0, 0, func(v any, _ []any) any {
		s, _ := v.(string)
		b, err := base32.StdEncoding.DecodeString(s)
		if err != nil || s == "" {
			return fmt.Errorf("%s is not valid base32 data", gojq.Preview(v))
		}
		return string(b)
	}),
	gojq.WithFunction("_guard_join", 1, 1, func(v any, a []any) any { return join(v, a[0]) }),
	gojq.WithFunction("_guard_fromjson", 0, 0, func(v any, _ []any) any {
		s, ok := v.(string)
		if !ok {
			return fmt.Errorf("fromjson cannot be applied to: %s", gojq.Preview(v))
		}
		out, err := decodeJSON([]byte(s))
		if err != nil {
			return fmt.Errorf("%s cannot be parsed as JSON: %w", gojq.Preview(v), err)
		}
		return out
	}),
}

// weigh gives what is left of budget after v, negative once nothing is.
func weigh(v any, budget int) int {
	budget -= nodeWeight
	switch v := v.(type) {
	case string:
		budget -= len(v)
	case *big.Int:
		budget -= v.BitLen() / 8
	case []any:
		if budget -= len(v) * nodeWeight; budget < 0 {
			return -1
		}
		budget += len(v) * nodeWeight
		for _, item := range v {
			if budget = weigh(item, budget); budget < 0 {
				return -1
			}
		}
	case map[string]any:
		for name, item := range v {
			if budget = weigh(item, budget-len(name)); budget < 0 {
				return -1
			}
		}
	}
	return budget
}

// guardAdd gives l as it is to be added to r.
func guardAdd(l, r any) any {
	switch l := l.(type) {
	case string:
		if r, ok := r.(string); ok && len(l)+len(r) > maxWeight {
			return errHeavy
		}
	case []any:
		if r, ok := r.([]any); ok && weigh(r, weigh(l, maxWeight)) < 0 {
			return errHeavy
		}
	case map[string]any:
		if r, ok := r.(map[string]any); ok && weigh(r, weigh(l, maxWeight)) < 0 {
			return errHeavy
		}
	case int:
		if r, ok := r.(int); ok && (l > 0 && r > math.MaxInt-l || l < 0 && r < math.MinInt-l) {
			return float64(l)
		}
	case *big.Int:
		return toNumber(l)
	}
	return l
}

// guardMultiply gives l as it is to be multiplied by r.
func guardMultiply(l, r any) any {
	repeated := func(s string, n any) any {
		times, ok := gojq.ToFloat64(n)
		if ok && times*float64(len(s)) > maxWeight {
			return errHeavy
		}
		return l
	}
	switch v := l.(type) {
	case string:
		return repeated(v, r)
	case map[string]any:
		if weigh(r, weigh(v, maxWeight)) < 0 {
			return errHeavy
		}
	case int:
		switch r := r.(type) {
		case string:
			return repeated(r, v)
		case int:
			if product := v * r; v != 0 && (product/v != r || v == -1 && r == math.MinInt) {
				return float64(v)
			}
		}
	case float64:
		if s, ok := r.(string); ok {
			return repeated(s, v)
		}
	case *big.Int:
		return toNumber(v)
	}
	return l
}

// toNumber makes whole numbers beyond 64 bits what they are in JQ-1.6.
func toNumber(v any) any {
	if n, ok := v.(*big.Int); ok {
		f, _ := new(big.Float).SetInt(n).Float64()
		return f
	}
	return v
}

// clampIndex keeps an index where no list reaches, but not far beyond.
func clampIndex(v any) any {
	switch n := v.(type) {
	case int:
		return max(min(n, maxIndex), -maxIndex-1)
	case float64:
		if !math.IsNaN(n) {
			return max(min(n, maxIndex), -maxIndex-1)
		}
	case *big.Int:
		return max(-1, n.Sign()) * maxIndex
	}
	return v
}

func clampPath(v any) any {
	path, ok := v.([]any)
	if !ok {
		return v
	}
	clamped := make([]any, len(path))
	for i, p := range path {
		clamped[i] = clampIndex(p)
	}
	return clamped
}

// join is the function of that name.
func join(v, separator any) any {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	default:
		return fmt.Errorf("join cannot be applied to: %s", gojq.Preview(v))
	}
	if len(items) == 0 {
		return ""
	}
	between, ok := separator.(string)
	if !ok && (separator != nil || len(items) > 1) {
		return fmt.Errorf("join: the separator is not text: %s", gojq.Preview(separator))
	}
	if len(items)*len(between) > maxWeight {
		return errHeavy
	}
	var b strings.Builder
	for i, item := range items {
		if i > 0 {
			b.WriteString(between)
		}
		switch item := item.(type) {
		case nil:
		case string:
			b.WriteString(item)
		case bool:
			b.WriteString(strconv.FormatBool(item))
		case int, float64, *big.Int:
			text, err := gojq.Marshal(item)
			if err != nil {
				return err
			}
			b.Write(text)
		default:
			return fmt.Errorf("join: text and %s cannot be joined", gojq.Preview(item))
		}
		if b.Len() > maxWeight {
			return errHeavy
		}
	}
	return b.String()
}

// guard puts the checks into a program.
func guard(q *gojq.Query) *gojq.Query {
	guardTree(reflect.ValueOf(q))
	outer, err := gojq.Parse(prelude)
	if err != nil {
		panic("process: " + err.Error())
	}
	q.FuncDefs = append(outer.FuncDefs, q.FuncDefs...)
	return q
}

func call(name string, args ...*gojq.Query) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: name, Args: args}}}
}

func pipe(left, right *gojq.Query) *gojq.Query {
	return &gojq.Query{Left: left, Op: gojq.OpPipe, Right: right}
}

func paren(q *gojq.Query) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: q}}
}

// bind is "value as $name | body".
func bind(value *gojq.Query, name string, body *gojq.Query) *gojq.Query {
	return &gojq.Query{Left: paren(value), Patterns: []*gojq.Pattern{{Name: name}}, Op: gojq.OpPipe, Right: body}
}

// guardTree walks a syntax tree, the leaves first, and changes queries and terms
// where they stand.
func guardTree(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		guardTree(v.Elem())
		switch node := v.Interface().(type) {
		case *gojq.Query:
			guardOperator(node)
		case *gojq.Term:
			guardTerm(node)
		case *gojq.Index:
			guardIndex(node)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			guardTree(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			guardTree(v.Index(i))
		}
	}
}

func guardOperator(q *gojq.Query) {
	const left, right = "$__left", "$__right"
	variable := func(name string) *gojq.Query { return call(name) }
	switch q.Op {
	case gojq.OpAdd, gojq.OpMul:
		check := "_guard_add"
		if q.Op == gojq.OpMul {
			check = "_guard_multiply"
		}
		*q = *paren(bind(q.Right, right, bind(q.Left, left, &gojq.Query{
			Left: call(check, variable(left), variable(right)), Op: q.Op, Right: variable(right),
		})))
	case gojq.OpUpdateAdd, gojq.OpUpdateMul:
		op, check := gojq.OpAdd, "_guard_add"
		if q.Op == gojq.OpUpdateMul {
			op, check = gojq.OpMul, "_guard_multiply"
		}
		identity := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeIdentity}}
		*q = *paren(pipe(bind(q.Right, right, &gojq.Query{
			Left: paren(q.Left), Op: gojq.OpModify,
			Right: paren(&gojq.Query{Left: call(check, identity, variable(right)), Op: op, Right: variable(right)}),
		}), call("_guard")))
	case gojq.OpAssign, gojq.OpModify, gojq.OpUpdateSub, gojq.OpUpdateDiv, gojq.OpUpdateMod, gojq.OpUpdateAlt:
		inner := *q
		*q = *paren(pipe(paren(&inner), call("_guard")))
	}
}

func guardTerm(t *gojq.Term) {
	if t.Type == gojq.TermTypeFormat && t.Str == nil && (t.Format == "@base32" || t.Format == "@base32d") {
		*t = gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: "_guard_" + t.Format[1:]}, SuffixList: t.SuffixList}
		return
	}
	switch {
	case t.Type == gojq.TermTypeArray && t.Array.Query != nil,
		t.Type == gojq.TermTypeObject && len(t.Object.KeyVals) > 0,
		t.Type == gojq.TermTypeString && len(t.Str.Queries) > 0,
		t.Type == gojq.TermTypeFormat:
	default:
		return
	}
	inner := *t
	inner.SuffixList = nil
	*t = gojq.Term{Type: gojq.TermTypeQuery, Query: pipe(&gojq.Query{Term: &inner}, call("_guard")), SuffixList: t.SuffixList}
}

// guardIndex bounds computed indexes. Written ones are looked at once.
func guardIndex(x *gojq.Index) {
	for _, q := range []**gojq.Query{&x.Start, &x.End} {
		if *q == nil {
			continue
		}
		if t := (*q).Term; t != nil && t.Type == gojq.TermTypeNumber && len(t.SuffixList) == 0 {
			if n, err := strconv.Atoi(t.Number); err == nil && n <= maxIndex {
				continue
			}
		}
		*q = pipe(*q, call("_guard_index"))
	}
}
