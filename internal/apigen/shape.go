package apigen

import (
	"fmt"
	"strconv"
	"strings"
)

// elemType is the Go type of a list's item or a map's value.
func (s *shape) elemType() string {
	switch s.typ {
	case "string":
		if s.enum != nil {
			return s.goName
		}
		if s.nullable {
			return "*string"
		}
		return "string"
	case "integer":
		return "int32"
	case "long":
		return "int64"
	case "double", "float":
		return "float64"
	case "boolean":
		return "bool"
	case "timestamp":
		return "time.Time"
	case "blob":
		return "[]byte"
	case "list":
		return "[]" + s.elem.elemType()
	case "map":
		return "map[" + s.key.elemType() + "]" + s.elem.elemType()
	}
	return s.goName
}

// fieldType is the Go type of a member.
func (s *shape) fieldType() string {
	switch s.typ {
	case "blob", "list", "map":
		return s.elemType()
	}
	return "*" + s.elemType()
}

func (s *shape) eventMember() *member {
	for i := range s.members {
		if s.members[i].shape.eventStream {
			return &s.members[i]
		}
	}
	return nil
}

// inBody gives the members that the message body carries.
func (s *shape) inBody() (in []member) {
	for _, m := range s.members {
		if m.location == "" && !m.shape.eventStream && m.name != s.payload {
			in = append(in, m)
		}
	}
	return in
}

func (g *generator) emptyType(name, doc string) {
	g.p("// %s %s.\ntype %s struct{}\n", name, doc, name)
	g.p("// DecodeFrom reads the structure's members.\nfunc (s *%s) DecodeFrom(d api.Decoder) error {\nif d.BeginStruct() {\nfor _, ok := d.NextMember(); ok; _, ok = d.NextMember() {\nd.Skip()\n}\n}\nreturn d.Err()\n}\n", name)
	g.p("// EncodeTo writes an empty structure.\nfunc (s *%s) EncodeTo(e api.Encoder) {\ne.BeginStruct()\ne.EndStruct()\n}\n", name)
	g.p("// Validate finds nothing to check.\nfunc (s *%s) Validate(*api.Validator) {}\n", name)
}

func (g *generator) structType(s *shape) {
	switch {
	case s.owner != nil && s.isInput:
		g.p("// %s is the input of %s.", s.goName, s.owner.name)
	case s.owner != nil:
		g.p("// %s is the output of %s.", s.goName, s.owner.name)
	default:
		g.p("// %s is a structure of the model.", s.goName)
	}
	g.p("type %s struct {", s.goName)
	for _, m := range s.members {
		switch {
		case m.shape.eventStream:
			g.p("// Events runs the stream. send blocks until the event has been written and\n// flushed, and fails when the client is gone.")
			g.p("Events func(ctx context.Context, send func(*%s) error) error", m.shape.goName)
		case m.name == s.payload:
			if m.shape.typ != "blob" {
				g.fail("%s: payload of type %s", s.name, m.shape.typ)
			}
			g.p("%s io.ReadCloser // the body, raw", m.field)
		default:
			doc := ""
			if s.required[m.name] {
				doc = " // required"
			}
			g.p("%s %s%s", m.field, m.shape.fieldType(), doc)
		}
	}
	g.p("}\n")
	g.decodeMethod(s)
	g.p("// EncodeTo writes the members that are present.\nfunc (s *%s) EncodeTo(e api.Encoder) {\ne.BeginStruct()", s.goName)
	g.encodeMembers(s)
	g.p("e.EndStruct()\n}\n")
	g.validateMethod(s)
	g.httpMethods(s)
	if m := s.eventMember(); m != nil {
		g.p("// StreamEvents runs Events and tells send the name of each event.")
		g.p("func (s *%s) StreamEvents(ctx context.Context, send func(event string, value api.Shape) error) error {", s.goName)
		g.p("return s.Events(ctx, func(u *%s) error {\nname, value := u.Event()\nif value == nil {\nreturn api.ErrNoEvent\n}\nreturn send(name, value)\n})\n}\n", m.shape.goName)
	}
	if s.payload != "" {
		field := upperFirst(s.payload)
		g.p("// StreamBody is the raw body.\nfunc (s *%s) StreamBody() io.ReadCloser { return s.%s }\n", s.goName, field)
		g.p("// SetStreamBody sets the raw body.\nfunc (s *%s) SetStreamBody(r io.ReadCloser) { s.%s = r }\n", s.goName, field)
	}
}

func (g *generator) decodeMethod(s *shape) {
	g.p("// DecodeFrom reads the structure's members.\nfunc (s *%s) DecodeFrom(d api.Decoder) error {\ns.decode(d)\nreturn d.Err()\n}\n", s.goName)
	g.p("func (s *%s) decode(d api.Decoder) {\nif !d.BeginStruct() {\nreturn\n}", s.goName)
	members := s.inBody()
	if len(members) == 0 {
		g.p("for _, ok := d.NextMember(); ok; _, ok = d.NextMember() {\nd.Skip()\n}\n}\n")
		return
	}
	g.p("for name, ok := d.NextMember(); ok; name, ok = d.NextMember() {\nswitch string(name) {")
	for _, m := range members {
		g.p("case %q:", m.wire)
		target := "s." + m.field
		if s.exception && m.field == "Message" {
			g.p("%s, _ = d.String()", target)
			continue
		}
		g.decodeField(target, m.shape)
	}
	g.p("default:\nd.Skip()\n}\n}\n}\n")
}

// decodeField prints the reading of an optional value.
func (g *generator) decodeField(target string, s *shape) {
	switch s.typ {
	case "string":
		g.p("%s = api.DecodeString[%s](d)", target, s.elemType())
	case "integer":
		g.p("%s = api.DecodeInt32(d)", target)
	case "long":
		g.p("%s = api.DecodeInt64(d)", target)
	case "double", "float":
		g.p("%s = api.DecodeFloat64(d)", target)
	case "boolean":
		g.p("%s = api.DecodeBool(d)", target)
	case "timestamp":
		g.p("%s = api.DecodeTime(d)", target)
	case "blob":
		g.p("%s = api.DecodeBlob(d)", target)
	case "structure":
		g.p("if d.Null() {\n%s = nil\n} else {\n%s = new(%s)\n%s.decode(d)\n}", target, target, s.goName, target)
	case "list":
		g.p("%s = nil\nif d.BeginList() {\nlist := %s{}\nfor d.NextItem() {", target, s.elemType())
		if s.elem.isStruct() {
			if s.max != "" {
				// One more than allowed is kept, for validation to see.
				g.p("if len(list) > %s {\nvar extra %s\nextra.decode(d)\ncontinue\n}", s.max, s.elem.goName)
			}
			g.p("list = append(list, %s{})\nlist[len(list)-1].decode(d)", s.elem.goName)
		} else {
			g.decodeElem("item", s.elem)
			g.p("list = append(list, item)")
		}
		g.p("}\n%s = list\n}", target)
	case "map":
		g.p("%s = nil\nif d.BeginMap() {\nm := %s{}\nfor key, ok := d.NextKey(); ok; key, ok = d.NextKey() {", target, s.elemType())
		g.decodeElem("item", s.elem)
		key := "key"
		if s.key.enum != nil {
			key = s.key.goName + "(key)"
		}
		g.p("m[%s] = item\n}\n%s = m\n}", key, target)
	default:
		g.fail("shape %s: type %s", s.name, s.typ)
	}
}

// decodeElem prints the reading of an item into a new variable; null gives the
// zero value.
func (g *generator) decodeElem(name string, s *shape) {
	switch s.typ {
	case "string":
		if s.enum != nil {
			g.p("text, _ := d.String()\n%s := %s(text)", name, s.goName)
		} else if s.nullable {
			g.p("%s := api.DecodeString[string](d)", name)
		} else {
			g.p("%s, _ := d.String()", name)
		}
	case "integer":
		g.p("%s, _ := d.Int32()", name)
	case "long":
		g.p("%s, _ := d.Int64()", name)
	case "double", "float":
		g.p("%s, _ := d.Float64()", name)
	case "boolean":
		g.p("%s, _ := d.Bool()", name)
	case "timestamp":
		g.p("%s, _ := d.Time()", name)
	case "blob":
		g.p("%s, _ := d.Blob()", name)
	case "structure":
		g.p("var %s %s\n%s.decode(d)", name, s.goName, name)
	default:
		g.p("var %s %s", name, s.elemType())
		g.decodeField(name, s)
	}
}

func (g *generator) encodeMembers(s *shape) {
	for _, m := range s.inBody() {
		f := "s." + m.field
		t := m.shape.typ
		if s.exception && m.field == "Message" {
			g.p("if %s != \"\" {\ne.Member(%q)\ne.String(%s)\n}", f, m.wire, f)
			continue
		}
		collection := t == "list" || t == "map" || t == "blob"
		if collection && s.required[m.name] && !s.isInput {
			// Clients rely on a required collection being there, so none is written
			// as an empty one.
			g.p("e.Member(%q)", m.wire)
			g.encodeValue(f, m.shape)
			continue
		}
		g.p("if %s != nil {\ne.Member(%q)", f, m.wire)
		switch {
		case collection:
			g.encodeValue(f, m.shape)
		case t == "structure":
			g.p("%s.EncodeTo(e)", f)
		default:
			g.encodeValue("*"+f, m.shape)
		}
		g.p("}")
	}
}

func (g *generator) encodeValue(v string, s *shape) {
	switch s.typ {
	case "string":
		if s.enum != nil {
			v = "string(" + v + ")"
		}
		if s.nullable {
			g.p("if %s == nil {\ne.Null()\n} else {\ne.String(*%s)\n}", v, v)
			break
		}
		g.p("e.String(%s)", v)
	case "integer":
		g.p("e.Int64(int64(%s))", v)
	case "long":
		g.p("e.Int64(%s)", v)
	case "double", "float":
		g.p("e.Float64(%s)", v)
	case "boolean":
		g.p("e.Bool(%s)", v)
	case "timestamp":
		g.p("e.Time(%s)", v)
	case "blob":
		g.p("e.Blob(%s)", v)
	case "structure":
		g.p("%s.EncodeTo(e)", v)
	case "list":
		g.p("e.BeginList(len(%s))", v)
		if s.elem.isStruct() {
			g.p("for i := range %s {\n%s[i].EncodeTo(e)\n}", v, v)
		} else {
			g.p("for _, item := range %s {", v)
			g.encodeValue("item", s.elem)
			g.p("}")
		}
		g.p("e.EndList()")
	case "map":
		g.p("e.BeginMap(len(%s))\nfor _, key := range slices.Sorted(maps.Keys(%s)) {", v, v)
		if s.key.enum != nil {
			g.p("e.Key(string(key))")
		} else {
			g.p("e.Key(key)")
		}
		if s.elem.isStruct() {
			g.p("item := %s[key]\nitem.EncodeTo(e)", v)
		} else {
			g.encodeValue(v+"[key]", s.elem)
		}
		g.p("}\ne.EndMap()")
	}
}

func (g *generator) validateMethod(s *shape) {
	keep := g.buf.String()
	g.buf.Reset()
	if s.fromInput {
		for _, m := range s.members {
			if !m.shape.eventStream && m.name != s.payload {
				g.validateMember(s, m)
			}
		}
	}
	body := g.buf.String()
	g.buf.Reset()
	g.buf.WriteString(keep)
	if strings.TrimSpace(body) == "" {
		g.p("// Validate finds nothing to check.\nfunc (s *%s) Validate(*api.Validator) {}\n", s.goName)
		return
	}
	g.p("// Validate checks the model's constraints.\nfunc (s *%s) Validate(v *api.Validator) {\n%s}\n", s.goName, body)
}

func (g *generator) validateMember(parent *shape, m member) {
	s, f, path := m.shape, "s."+m.field, strconv.Quote(lowerFirst(m.name))
	keep := g.buf.String()
	g.buf.Reset()
	deref := "*" + f
	switch s.typ {
	case "string":
		if s.enum != nil {
			g.p("v.Enum(%s, string(%s), enum%s)", path, deref, s.goName)
		}
		if s.pattern != "" {
			g.p("v.Pattern(%s, %s, pattern%s)", path, deref, s.goName)
		}
		if s.max != "" || s.min != "" && s.min != "0" {
			g.p("v.Length(%s, string(%s), %s, %s)", path, deref, bound(s.min), bound(s.max))
		}
	case "integer", "long":
		n := deref
		if s.typ == "integer" {
			n = "int64(" + deref + ")"
		}
		if s.min != "" {
			g.p("v.Min(%s, %s, %s)", path, n, s.min)
		}
		if s.max != "" && s.max != "9223372036854775807" {
			g.p("v.Max(%s, %s, %s)", path, n, s.max)
		}
	case "double", "float":
		if s.min != "" {
			g.p("v.MinFloat(%s, %s, %s)", path, deref, s.min)
		}
		if s.max != "" {
			g.p("v.MaxFloat(%s, %s, %s)", path, deref, s.max)
		}
	case "blob":
		if s.max != "" || s.min != "" && s.min != "0" {
			g.p("v.BlobLength(%s, len(%s), %s, %s)", path, f, bound(s.min), bound(s.max))
		}
	case "structure":
		if s.constrained(map[*shape]bool{}) {
			g.p("v.Enter(%s)\n%s.Validate(v)\nv.Leave()", path, f)
		}
	case "list":
		g.validateList(path, f, s)
	case "map":
		if s.key.typ != "string" || s.elem.typ != "string" {
			if s.constrained(map[*shape]bool{}) {
				g.fail("shape %s: constraints in a map of %s", s.name, s.elem.typ)
			}
			break
		}
		key, val := g.rule(s.key), g.rule(s.elem)
		if s.min != "" || s.max != "" || key != "nil" || val != "nil" {
			g.p("api.ValidateMap(v, %s, %s, %s, %s, %s, %s)", path, f, bound(s.min), bound(s.max), key, val)
		}
	}
	body := g.buf.String()
	g.buf.Reset()
	g.buf.WriteString(keep)
	switch required := parent.required[m.name]; {
	case required && body != "":
		g.p("if %s == nil {\nv.Required(%s)\n} else {\n%s}", f, path, body)
	case required:
		g.p("if %s == nil {\nv.Required(%s)\n}", f, path)
	case body != "":
		g.p("if %s != nil {\n%s}", f, body)
	}
}

func (g *generator) validateList(path, f string, s *shape) {
	switch s.elem.typ {
	case "string":
		rule := g.rule(s.elem)
		if s.min != "" || s.max != "" || rule != "nil" {
			g.p("api.ValidateStrings(v, %s, %s, %s, %s, %s)", path, f, bound(s.min), bound(s.max), rule)
		}
	case "structure":
		if s.min != "" || s.max != "" {
			g.p("v.ListLength(%s, len(%s), %s, %s)", path, f, bound(s.min), bound(s.max))
		}
		if s.elem.constrained(map[*shape]bool{}) {
			g.p("for i := range %s {\nif v.Full() {\nbreak\n}\nv.EnterItem(%s, i)\n%s[i].Validate(v)\nv.Leave()\n}", f, path, f)
		}
	case "integer", "long":
		if s.min != "" || s.max != "" || s.elem.min != "" || s.elem.max != "" {
			g.p("api.ValidateNumbers(v, %s, %s, %s, %s, %s, %s)", path, f, bound(s.min), bound(s.max), numberBound(s.elem.min, "math.MinInt64"), numberBound(s.elem.max, "math.MaxInt64"))
		}
	default:
		if s.elem.constrained(map[*shape]bool{}) {
			g.fail("shape %s: constraints in a list of %s", s.name, s.elem.typ)
		}
		if s.min != "" || s.max != "" {
			g.p("v.ListLength(%s, len(%s), %s, %s)", path, f, bound(s.min), bound(s.max))
		}
	}
}

func numberBound(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

// rule is the expression of what an item, key or value must satisfy.
func (g *generator) rule(s *shape) string {
	if s.min == "" && s.max == "" && s.pattern == "" && s.enum == nil {
		return "nil"
	}
	g.ruled[s.name] = true
	return "rule" + s.goName
}

// constrained reports whether anything in s can fail validation.
func (s *shape) constrained(seen map[*shape]bool) bool {
	if seen[s] {
		return false
	}
	seen[s] = true
	if s.min != "" || s.max != "" || s.pattern != "" || s.enum != nil || len(s.required) > 0 {
		return true
	}
	for _, m := range s.members {
		if m.shape.constrained(seen) {
			return true
		}
	}
	return s.elem != nil && s.elem.constrained(seen) || s.key != nil && s.key.constrained(seen)
}

// unionType prints the union of an event stream: a field for each event. The
// exceptions among the model's members travel as errors instead.
func (g *generator) unionType(s *shape) {
	g.p("// %s is one event of a stream; exactly one field is set.\ntype %s struct {", s.goName, s.goName)
	var events []member
	for _, m := range s.members {
		if m.shape.event {
			events = append(events, m)
			g.p("%s *%s", m.field, m.shape.goName)
		} else if !m.shape.exception {
			g.fail("shape %s: member %s is neither event nor exception", s.name, m.name)
		}
	}
	g.p("}\n")
	g.p("// Event gives the name and value of the field that is set, nil for none.\nfunc (s *%s) Event() (string, api.Shape) {\nswitch {", s.goName)
	for _, m := range events {
		g.p("case s.%s != nil:\nreturn %q, s.%s", m.field, m.name, m.field)
	}
	g.p("}\nreturn \"\", nil\n}\n")
	g.p("// SetEvent sets the field of an event by name and returns its value to decode\n// into, nil for an unknown name.\nfunc (s *%s) SetEvent(name string) api.Shape {\nswitch name {", s.goName)
	for _, m := range events {
		g.p("case %q:\ns.%s = new(%s)\nreturn s.%s", m.name, m.field, m.shape.goName, m.field)
	}
	g.p("}\nreturn nil\n}\n")
}

func (g *generator) errorType(s *shape) {
	code := s.errorCode
	g.p("// %s is a modelled error with status %d.\ntype %s struct {", s.goName, s.status, s.goName)
	for _, m := range s.members {
		if m.field == "Message" {
			g.p("Message string")
		} else {
			g.p("%s %s", m.field, m.shape.fieldType())
		}
	}
	g.p("}\n")
	g.p("// Error implements error.\nfunc (s *%s) Error() string {\nif s.Message == \"\" {\nreturn %q\n}\nreturn %q + s.Message\n}\n", s.goName, code, code+": ")
	g.p("// ErrorCode is the error's name on the wire.\nfunc (s *%s) ErrorCode() string { return %q }\n", s.goName, code)
	g.p("// ErrorMessage is the text for the caller.\nfunc (s *%s) ErrorMessage() string { return s.Message }\n", s.goName)
	g.p("// HTTPStatus is the status of the reply.\nfunc (s *%s) HTTPStatus() int { return %d }\n", s.goName, s.status)
	g.decodeMethod(s)
	g.p("// EncodeTo writes the members that are present.\nfunc (s *%s) EncodeTo(e api.Encoder) {\ne.BeginStruct()\ns.EncodeMembers(e)\ne.EndStruct()\n}\n", s.goName)
	g.p("// EncodeMembers writes the members into an open structure.\nfunc (s *%s) EncodeMembers(e api.Encoder) {", s.goName)
	g.encodeMembers(s)
	g.p("}\n")
	g.p("// Validate finds nothing to check.\nfunc (s *%s) Validate(*api.Validator) {}\n", s.goName)
}

// httpMethods prints what moves members between the structure and the parts of
// an HTTP message outside its body.
func (g *generator) httpMethods(s *shape) {
	var in, out []string
	for _, m := range s.members {
		if m.location == "" {
			continue
		}
		f := "s." + m.field
		var parse, text string
		switch m.shape.typ {
		case "string":
			parse = fmt.Sprintf("%s = api.Ptr(%s(value))", f, m.shape.elemType())
			text = "string(*" + f + ")"
		case "integer":
			parse = fmt.Sprintf("n, err := strconv.ParseInt(value, 10, 32)\nif err != nil {\nreturn false\n}\n%s = api.Ptr(int32(n))", f)
			text = "strconv.FormatInt(int64(*" + f + "), 10)"
		case "long":
			parse = fmt.Sprintf("n, err := strconv.ParseInt(value, 10, 64)\nif err != nil {\nreturn false\n}\n%s = &n", f)
			text = "strconv.FormatInt(*" + f + ", 10)"
		case "boolean":
			parse = fmt.Sprintf("b, err := strconv.ParseBool(value)\nif err != nil {\nreturn false\n}\n%s = &b", f)
			text = "strconv.FormatBool(*" + f + ")"
		default:
			g.fail("shape %s: member %s of type %s outside the body", s.name, m.name, m.shape.typ)
			continue
		}
		same := fmt.Sprintf("name == %q", m.wire)
		if m.location == "header" {
			same = fmt.Sprintf("strings.EqualFold(name, %q)", m.wire)
		}
		in = append(in, fmt.Sprintf("case location == %q && %s:\n%s", m.location, same, parse))
		out = append(out, fmt.Sprintf("if %s != nil {\nset(%q, %q, %s)\n}", f, m.location, m.wire, text))
	}
	if len(in) == 0 {
		return
	}
	g.p("// SetHTTP takes over a value from outside the body.\nfunc (s *%s) SetHTTP(location, name, value string) bool {\nswitch {\n%s\n}\nreturn true\n}\n", s.goName, strings.Join(in, "\n"))
	g.p("// HTTPValues gives the members that travel outside the body.\nfunc (s *%s) HTTPValues(set func(location, name, value string)) {\n%s\n}\n", s.goName, strings.Join(out, "\n"))
}
