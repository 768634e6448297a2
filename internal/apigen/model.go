package apigen

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// model is a service model in the form the generator works with.
type model struct {
	metadata   object
	operations []*operation // by name
	shapes     map[string]*shape
	order      []string // shape names in the model's order
}

type operation struct {
	name    string
	method  string
	path    string
	status  int
	input   *shape // nil if the model has none
	output  *shape
	errors  []string
	data    bool
	goIn    string // "PutRecordsInput"
	goOut   string
	inOwn   bool // the input type belongs to this operation alone
	outOwn  bool
	inAlias string // type that goIn is another name for, if not own
	outAs   string
}

type shape struct {
	name     string // in the model
	goName   string
	typ      string
	members  []member
	required map[string]bool
	elem     *shape // list member, map value
	key      *shape
	min, max string // as in the model, "" for none
	pattern  string
	enum     []string
	nullable bool // a text that may be null as an item of a list

	exception   bool
	errorCode   string
	status      int
	event       bool
	eventStream bool
	streaming   bool
	payload     string

	isInput   bool // only ever an operation's input
	fromInput bool // reachable from an input
	used      bool
	owner     *operation // operation whose file holds it
}

type member struct {
	name     string // in the model
	field    string // in Go
	wire     string // in the body, or the name of the header etc.
	location string
	shape    *shape
}

func (s *shape) isStruct() bool { return s.typ == "structure" }

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// camel writes an enumeration's value as part of a Go name: TRIM_HORIZON as
// TrimHorizon, IncomingBytes unchanged, FLINK-1_20 as Flink1_20.
func camel(value string) string {
	words := strings.FieldsFunc(value, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	var b strings.Builder
	for _, w := range words {
		if s := b.String(); s != "" && unicode.IsDigit(rune(s[len(s)-1])) && unicode.IsDigit(rune(w[0])) {
			b.WriteByte('_')
		}
		if w == strings.ToUpper(w) {
			w = strings.ToLower(w)
		}
		b.WriteString(upperFirst(w))
	}
	return b.String()
}

// snake writes an operation's name as a file name: PutRecords as put_records.
func snake(name string) string {
	var b strings.Builder
	r := []rune(name)
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 && (unicode.IsLower(r[i-1]) || unicode.IsDigit(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// loadModel reads a stripped model.
func loadModel(dir, name string, rename map[string]string) (*model, error) {
	data, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return nil, err
	}
	v, err := parseJSON(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	root, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("%s: not an object", name)
	}
	m, err := newModel(root, rename)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func newModel(root object, rename map[string]string) (*model, error) {
	m := &model{metadata: root.obj("metadata"), shapes: map[string]*shape{}}
	raw := root.obj("shapes")
	for _, f := range raw {
		m.order = append(m.order, f.key)
		s := &shape{name: f.key, goName: upperFirst(f.key)}
		if n := rename[f.key]; n != "" {
			s.goName = n
		}
		m.shapes[f.key] = s
	}
	ref := func(v any) (*shape, error) {
		o, _ := v.(object)
		s := m.shapes[o.str("shape")]
		if s == nil {
			return nil, fmt.Errorf("unknown shape %q", o.str("shape"))
		}
		return s, nil
	}
	for _, f := range raw {
		if err := m.shapes[f.key].load(f.value.(object), ref); err != nil {
			return nil, fmt.Errorf("shape %s: %w", f.key, err)
		}
	}
	for _, s := range m.shapes {
		// Some models leave out that errors carry a text, which all of them do.
		if s.exception && !slices.ContainsFunc(s.members, func(m member) bool { return m.field == "Message" }) {
			s.members = append(s.members, member{name: "message", field: "Message", wire: "message", shape: &shape{typ: "string", name: "message", goName: "Message"}})
		}
	}
	uses := map[*shape]int{}
	for _, s := range m.shapes {
		for _, mem := range s.members {
			uses[mem.shape]++
		}
		if s.elem != nil {
			uses[s.elem]++
		}
	}
	for _, f := range root.obj("operations") {
		o := f.value.(object)
		http := o.obj("http")
		op := &operation{name: f.key, method: http.str("method"), path: http.str("requestUri"), status: 200,
			goIn: f.key + "Input", goOut: f.key + "Output"}
		if n, err := strconv.Atoi(fmt.Sprint(http.get("responseCode"))); err == nil {
			op.status = n
		}
		op.data = o.obj("staticContextParams").obj("OperationType").str("value") == "data"
		var err error
		if in := o.get("input"); in != nil {
			if op.input, err = ref(in); err != nil {
				return nil, err
			}
			uses[op.input]++
		}
		if out := o.get("output"); out != nil {
			if op.output, err = ref(out); err != nil {
				return nil, err
			}
			uses[op.output]++
		}
		for _, e := range o.list("errors") {
			s, err := ref(e)
			if err != nil {
				return nil, err
			}
			op.errors = append(op.errors, s.errorCode)
			s.use(nil)
		}
		m.operations = append(m.operations, op)
	}
	slices.SortFunc(m.operations, func(a, b *operation) int { return strings.Compare(a.name, b.name) })
	for _, op := range m.operations {
		if s := op.input; s == nil {
			op.inOwn = true
		} else if uses[s] == 1 {
			op.inOwn, s.isInput, s.goName, s.owner = true, true, op.goIn, op
		} else if s.goName != op.goIn {
			op.inAlias = s.goName
		}
		if s := op.output; s == nil {
			op.outOwn = true
		} else if uses[s] == 1 {
			op.outOwn, s.goName, s.owner = true, op.goOut, op
		} else if s.goName != op.goOut {
			op.outAs = s.goName
		}
	}
	for _, op := range m.operations {
		if op.input != nil {
			op.input.use(func(s *shape) bool { was := s.fromInput; s.fromInput = true; return !was })
		}
		if op.output != nil {
			op.output.use(nil)
		}
	}
	for _, s := range m.shapes {
		if s.exception {
			s.use(nil)
		}
	}
	return m, m.checkNames()
}

// use marks s and everything it refers to. mark says whether to go on into s.
func (s *shape) use(mark func(*shape) bool) {
	if mark == nil {
		mark = func(s *shape) bool { return !s.used }
	}
	again := mark(s)
	s.used = true
	if !again {
		return
	}
	for _, m := range s.members {
		m.shape.use(mark)
	}
	if s.elem != nil {
		s.elem.use(mark)
	}
	if s.key != nil {
		s.key.use(mark)
	}
}

func (s *shape) load(o object, ref func(any) (*shape, error)) error {
	s.typ = o.str("type")
	s.required = map[string]bool{}
	for _, r := range o.list("required") {
		s.required[r.(string)] = true
	}
	for _, e := range o.list("enum") {
		s.enum = append(s.enum, e.(string))
	}
	for key, p := range map[string]*string{"min": &s.min, "max": &s.max} {
		if v := o.get(key); v != nil {
			*p = fmt.Sprint(v)
		}
	}
	s.pattern = o.str("pattern")
	s.exception, s.event, s.eventStream = o.flag("exception"), o.flag("event"), o.flag("eventstream")
	s.streaming, s.payload = o.flag("streaming"), o.str("payload")
	if s.exception {
		s.errorCode, s.status = s.name, 400
		if o.flag("fault") {
			s.status = 500
		}
		if s.name == "ServiceUnavailableException" {
			s.status = 503 // JSON models leave statuses out
		}
		e := o.obj("error")
		if c := e.str("code"); c != "" {
			s.errorCode = c
		}
		if n, err := strconv.Atoi(fmt.Sprint(e.get("httpStatusCode"))); err == nil {
			s.status = n
		}
	}
	var err error
	for _, f := range o.obj("members") {
		mo := f.value.(object)
		mem := member{name: f.key, field: upperFirst(f.key), wire: f.key, location: mo.str("location")}
		if n := mo.str("locationName"); n != "" {
			mem.wire = n
		}
		if mem.shape, err = ref(mo); err != nil {
			return err
		}
		s.members = append(s.members, mem)
	}
	if e := o.get("member"); e != nil {
		if s.elem, err = ref(e); err != nil {
			return err
		}
	}
	if k := o.get("key"); k != nil {
		if s.key, err = ref(k); err != nil {
			return err
		}
		if s.elem, err = ref(o.get("value")); err != nil {
			return err
		}
	}
	return nil
}

// checkNames refuses a model in which two things would get one Go name.
func (m *model) checkNames() error {
	names := map[string]string{"Handler": "the interface", "Bind": "the function", "Service": "the variable", "NewError": "the function"}
	add := func(name, what string) error {
		if old := names[name]; old != "" {
			return fmt.Errorf("the Go name %s is both %s and %s", name, old, what)
		}
		names[name] = what
		return nil
	}
	for _, n := range m.order {
		s := m.shapes[n]
		if !s.used || !s.isStruct() && s.enum == nil {
			continue
		}
		if err := add(s.goName, "shape "+n); err != nil {
			return err
		}
		if s.enum == nil {
			continue
		}
		if err := add(s.goName+"Values", "values of "+n); err != nil {
			return err
		}
		for _, v := range s.enum {
			if err := add(s.goName+camel(v), "value "+v+" of "+n); err != nil {
				return err
			}
		}
	}
	for _, op := range m.operations {
		if err := add("Op"+op.name, "operation "+op.name); err != nil {
			return err
		}
		if op.input == nil || op.inAlias != "" {
			if err := add(op.goIn, "input of "+op.name); err != nil {
				return err
			}
		}
		if op.output == nil || op.outAs != "" {
			if err := add(op.goOut, "output of "+op.name); err != nil {
				return err
			}
		}
	}
	return nil
}
