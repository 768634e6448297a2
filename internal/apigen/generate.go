// Package apigen makes the packages below internal/api from the models in
// model/. The one idea: whatever a model states (types, constraints, errors,
// actions, bindings) is written by hand nowhere, so that adding an operation is
// regenerating plus one file in its service.
//
// Generated code drives api.Decoder and api.Encoder and knows no wire format;
// the codecs in internal/wire know no service. The output depends on the models
// and on this package alone: same input, same bytes.
//
// Start reading at Generate; model.go is the input, shape.go what is made of a
// structure, pattern.go the translation of regular expressions.
package apigen

import (
	"bytes"
	"cmp"
	"fmt"
	"go/format"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Version is the generator's version: api.GeneratorVersion must be the same for
// generated code to compile. Raise both when generated code needs a new api.
const Version = 2

// service is what models do not say about a service.
type service struct {
	model    string // file in model/
	pkg      string
	title    string
	prefix   string            // of actions in policies
	aliases  []string          // operations whose input may alias the request
	resource []resourceMember  // input members that name the resource, best first
	rename   map[string]string // shapes whose name is taken in the generated package
	refusal  string            // the error that reports broken constraints; ValidationException if empty
	// printed is the order in which refusals list an enumeration's values, where
	// it is known not to be the model's.
	printed map[string][]string
	// nullable are shapes of texts that may be null as items of lists, which the
	// models do not say.
	nullable []string
}

type resourceMember struct{ name, kind string }

var services = []service{
	{
		model: "kinesis", pkg: "kinesis", title: "Kinesis Data Streams", prefix: "kinesis",
		aliases: []string{"PutRecord", "PutRecords"},
		resource: []resourceMember{{"ConsumerARN", "ARN"}, {"ResourceARN", "ARN"}, {"ChannelARN", "ARN"}, {"QueueARN", "ARN"}, {"StreamARN", "ARN"},
			{"StreamName", "Stream"}, {"ChannelName", "Channel"}, {"QueueName", "Queue"}},
	},
	{
		model: "firehose", pkg: "firehose", title: "Firehose", prefix: "firehose",
		aliases:  []string{"PutRecord", "PutRecordBatch"},
		printed:  map[string][]string{"CompressionFormat": {"ZIP", "HADOOP_SNAPPY", "Snappy", "GZIP", "UNCOMPRESSED"}},
		resource: []resourceMember{{"DeliveryStreamARN", "ARN"}, {"DeliveryStreamName", "DeliveryStream"}},
	},
	{
		model: "kinesisanalytics", pkg: "kinesisanalytics", title: "Kinesis Analytics, version 1", prefix: "kinesisanalytics",
		resource: []resourceMember{{"ResourceARN", "ARN"}, {"ApplicationName", "Application"}},
		nullable: []string{"ParsedInputRecordField"},
	},
	{
		model: "kinesisanalyticsv2", pkg: "kinesisanalyticsv2", title: "Kinesis Analytics, version 2", prefix: "kinesisanalytics",
		resource: []resourceMember{{"ResourceARN", "ARN"}, {"ApplicationName", "Application"}},
		nullable: []string{"ParsedInputRecordField"},
	},
	{model: "kinesisvideo", pkg: "kinesisvideo", title: "Kinesis Video Streams", prefix: "kinesisvideo", resource: videoResources},
	{model: "kinesis-video-media", pkg: "kinesisvideomedia", title: "Kinesis Video Streams media", prefix: "kinesisvideo", resource: videoResources},
	{model: "kinesis-video-archived-media", pkg: "kinesisvideoarchivedmedia", title: "Kinesis Video Streams archived media", prefix: "kinesisvideo", resource: videoResources},
	{model: "kinesis-video-signaling", pkg: "kinesisvideosignaling", title: "Kinesis Video Streams signaling", prefix: "kinesisvideo", resource: videoResources, rename: map[string]string{"Service": "SignalingService"}},
	{
		model: "glue", pkg: "glue", title: "Glue, of which the tables of the data catalog are kept", prefix: "glue",
		resource: []resourceMember{{"ResourceArn", "ARN"}, {"DatabaseName", "Database"}},
	},
	{
		model: "lambda", pkg: "lambda", title: "Lambda, of which functions can be called and read", prefix: "lambda",
		resource: []resourceMember{{"FunctionName", "Function"}},
	},
	{
		model: "millrace-delivery", pkg: "deliverycontrol", title: "delivery control, which is millrace's own", prefix: "firehose",
		resource: []resourceMember{{"DeliveryStreamName", "DeliveryStream"}},
	},
	{
		model: "millrace-analytics", pkg: "analyticscontrol", title: "application control, which is millrace's own", prefix: "kinesisanalytics",
		resource: []resourceMember{{"ApplicationName", "Application"}},
	},
	{
		model: "logs", pkg: "cloudwatchlogs", title: "CloudWatch Logs, of which groups, streams and events are kept", prefix: "logs",
		resource: []resourceMember{{"resourceArn", "ARN"}, {"logGroupIdentifier", "LogGroup"}, {"logGroupName", "LogGroup"}},
		refusal:  "InvalidParameterException",
	},
	{model: "kinesis-video-webrtc-storage", pkg: "kinesisvideowebrtcstorage", title: "Kinesis Video Streams WebRTC storage", prefix: "kinesisvideo", resource: videoResources},
}

var videoResources = []resourceMember{
	{"ResourceARN", "ARN"}, {"StreamARN", "ARN"}, {"ChannelARN", "ARN"}, {"channelArn", "ARN"},
	{"StreamName", "Stream"}, {"ChannelName", "Channel"},
}

// Header is the first line of every generated file.
const Header = "// Code generated by internal/apigen. DO NOT EDIT.\n"

// Generate makes all packages. Keys are slash-separated paths below internal/api.
func Generate(modelDir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, s := range services {
		m, err := loadModel(modelDir, s.model, s.rename)
		if err != nil {
			return nil, fmt.Errorf("load model: %w", err)
		}
		made, err := generate(s, m)
		if err != nil {
			return nil, fmt.Errorf("generate %s: %w", s.pkg, err)
		}
		for name, data := range made {
			files[s.pkg+"/"+name] = data
		}
	}
	return files, nil
}

// Write puts generated files below dir and removes generated files that are no
// longer made. Files without the header are left alone.
func Write(dir string, files map[string][]byte) error {
	old, err := Existing(dir)
	if err != nil {
		return err
	}
	for name := range old {
		if files[name] == nil {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if bytes.Equal(old[name], files[name]) {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Existing reads the generated files below dir.
func Existing(dir string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.go"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(data, []byte(Header)) {
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return nil, err
			}
			files[filepath.ToSlash(rel)] = data
		}
	}
	return files, nil
}

// generator makes one package.
type generator struct {
	service
	*model
	buf   bytes.Buffer
	files map[string][]byte
	err   error
	ruled map[string]bool // shapes that need a rule
}

func generate(s service, m *model) (map[string][]byte, error) {
	g := &generator{service: s, model: m, files: map[string][]byte{}, ruled: map[string]bool{}}
	for _, n := range s.nullable {
		if sh := m.shapes[n]; sh == nil || sh.typ != "string" || sh.enum != nil || g.rule(sh) != "nil" {
			return nil, fmt.Errorf("shape %s: only plain texts can be null", n)
		}
		m.shapes[n].nullable = true
	}
	g.servicePart()
	g.finish("service.go")
	for _, op := range m.operations {
		g.operationPart(op)
		g.finish(snake(op.name) + ".go")
	}
	for _, n := range m.order {
		if sh := m.shapes[n]; sh.used && sh.isStruct() && sh.owner == nil && !sh.exception {
			if sh.eventStream {
				g.unionType(sh)
			} else {
				g.structType(sh)
			}
		}
	}
	g.finish("types.go")
	for _, n := range m.order {
		if sh := m.shapes[n]; sh.used && sh.enum != nil {
			g.enumType(sh)
		}
	}
	g.finish("enums.go")
	g.newErrorPart()
	for _, n := range m.order {
		if sh := m.shapes[n]; sh.exception {
			g.errorType(sh)
		}
	}
	g.finish("errors.go")
	g.constraintVars()
	g.finish("constraints.go")
	return g.files, g.err
}

func (g *generator) p(format string, args ...any) {
	fmt.Fprintf(&g.buf, format, args...)
	g.buf.WriteByte('\n')
}

func (g *generator) fail(format string, args ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, args...)
	}
}

// imports that a file may need, found by the words that use them.
var imports = []struct{ word, path string }{
	{"context.", "context"}, {"io.", "io"}, {"maps.", "maps"}, {"math.", "math"}, {"slices.", "slices"}, {"strconv.", "strconv"}, {"strings.", "strings"}, {"time.", "time"},
	{"api.", "github.com/millrace/millrace/internal/api"},
}

// finish writes what has been printed since the last call to a file.
func (g *generator) finish(name string) {
	body := g.buf.String()
	g.buf.Reset()
	if strings.TrimSpace(body) == "" || g.err != nil {
		return
	}
	doc, rest, found := strings.Cut(body, "\n//package\n")
	if !found {
		doc, rest = "", body
	}
	var b bytes.Buffer
	b.WriteString(Header + "\n" + doc)
	if found {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "package %s\n\nimport (\n", g.pkg)
	for _, i := range imports {
		if uses(rest, i.word) {
			if i.word == "api." {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%q\n", i.path)
		}
	}
	b.WriteString(")\n")
	b.WriteString(rest)
	out, err := format.Source(b.Bytes())
	if err != nil {
		g.fail("%s: %w\n%s", name, err, b.Bytes())
		return
	}
	g.files[name] = bytes.Replace(out, []byte("\nimport ()\n"), nil, 1)
}

// uses reports whether a package is referred to outside of comments.
func uses(code, word string) bool {
	for line := range strings.Lines(code) {
		line, _, _ = strings.Cut(line, "//")
		for i := strings.Index(line, word); i >= 0; {
			if i == 0 || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.\"`", rune(line[i-1])) {
				return true
			}
			next := strings.Index(line[i+1:], word)
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	return false
}

// servicePart prints the service, its handler interface and its bindings.
func (g *generator) servicePart() {
	g.p("%s\n//package", comment(fmt.Sprintf("Package %s is the vocabulary of %s, API version %s: a type for each structure, with what reads, writes and checks it, the modelled errors, and the table of operations. It is made from model/%s.json; Handler is what a service implements.",
		g.pkg, g.title, g.metadata.str("apiVersion"), g.service.model)))
	g.p("// The package compiles only with the version of package api it was made for.")
	g.p("const _ = uint(api.GeneratorVersion-%d) + uint(%d-api.GeneratorVersion)\n", Version, Version)
	signing := g.metadata.str("signingName")
	if signing == "" {
		signing = g.metadata.str("endpointPrefix")
	}
	protocol := map[string]string{"json": "api.ProtocolJSON", "rest-json": "api.ProtocolRESTJSON"}[g.metadata.str("protocol")]
	if protocol == "" {
		g.fail("protocol %q", g.metadata.str("protocol"))
	}
	g.p("// Service describes the service and lists its operations.")
	g.p("var Service = &api.Service{")
	g.p("ID: %q,\nPackage: %q,\nSigningName: %q,\nTargetPrefix: %q,\nAPIVersion: %q,\nProtocol: %s,",
		g.metadata.str("serviceId"), g.pkg, signing, g.metadata.str("targetPrefix"), g.metadata.str("apiVersion"), protocol)
	g.p("NewError: NewError,")
	if v := g.shapes[cmp.Or(g.refusal, "ValidationException")]; v != nil && v.exception {
		g.p("ValidationError: func(message string) api.Error { return &%s{Message: message} },", v.goName)
	}
	g.p("}\n")
	g.p("func init() {\nService.Operations = []*api.Operation{")
	for _, op := range g.operations {
		g.p("Op%s,", op.name)
	}
	g.p("}\nfor _, op := range Service.Operations {\nop.Service = Service\n}\n}\n")

	g.p("// Handler serves the operations. Each method receives an input that has been\n// decoded and validated, and returns either an output or an error; an api.Error\n// is the caller's to see, any other an internal failure.")
	g.p("type Handler interface {")
	for _, op := range g.operations {
		g.p("%s(ctx context.Context, call *api.Call, in *%s) (*%s, error)", op.name, op.goIn, op.goOut)
	}
	g.p("}\n")
	g.p("// Bind joins every operation with the method of h that serves it. A nil output\n// without an error stands for an empty one.")
	g.p("func Bind(h Handler) []api.Binding {\nreturn []api.Binding{")
	for _, op := range g.operations {
		g.p("{Operation: Op%s, Handle: handle(h.%s)},", op.name, op.name)
	}
	g.p("}\n}\n")
	g.p(`func handle[In, Out any, PIn interface {
	*In
	api.Shape
}, POut interface {
	*Out
	api.Shape
}](method func(context.Context, *api.Call, PIn) (POut, error)) api.Handler {
	return func(ctx context.Context, call *api.Call, in api.Shape) (api.Shape, error) {
		out, err := method(ctx, call, in.(PIn))
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = new(Out)
		}
		return out, nil
	}
}
`)
}

// operationPart prints an operation and the types that are its own.
func (g *generator) operationPart(op *operation) {
	g.p("// Op%s describes %s.", op.name, op.name)
	g.p("var Op%s = &api.Operation{", op.name)
	g.p("Name: %q,\nAction: %q,\nMethod: %q,\nPath: %q,\nStatus: %d,", op.name, g.prefix+":"+op.name, op.method, op.path, op.status)
	if op.data {
		g.p("DataPlane: true,")
	}
	if op.output != nil {
		g.p("HasOutput: true,")
		if op.output.eventMember() != nil {
			g.p("Streaming: true,")
		}
	}
	if len(op.errors) > 0 {
		g.p("Errors: []string{")
		for _, e := range op.errors {
			g.p("%q,", e)
		}
		g.p("},")
	}
	g.p("NewInput: func() api.Shape { return new(%s) },\nNewOutput: func() api.Shape { return new(%s) },", op.goIn, op.goOut)
	g.resourceFunc(op)
	g.p("}\n")
	alias := slices.Contains(g.aliases, op.name)
	switch {
	case op.input == nil:
		g.emptyType(op.goIn, "is the input of "+op.name+", which takes nothing")
	case op.inOwn:
		g.structType(op.input)
	case op.inAlias != "":
		g.p("// %s is the input of %s.\ntype %s = %s\n", op.goIn, op.name, op.goIn, op.inAlias)
	}
	if alias {
		g.p("// AliasesRequest marks that strings and blobs may point into the request's buffer.\nfunc (*%s) AliasesRequest() {}\n", op.goIn)
	}
	switch {
	case op.output == nil:
		g.emptyType(op.goOut, "is the output of "+op.name+", which returns nothing")
	case op.outOwn:
		g.structType(op.output)
	case op.outAs != "":
		g.p("// %s is the output of %s.\ntype %s = %s\n", op.goOut, op.name, op.goOut, op.outAs)
	}
}

func (g *generator) resourceFunc(op *operation) {
	var lines []string
	for _, r := range g.resource {
		if op.input == nil {
			break
		}
		for _, m := range op.input.members {
			if m.name == r.name {
				lines = append(lines, fmt.Sprintf("if s.%s != nil {\nreturn *s.%s, api.Resource%s\n}", m.field, m.field, r.kind))
			}
		}
	}
	if len(lines) == 0 {
		g.p("Resource: func(api.Shape) (string, api.ResourceKind) { return \"\", api.ResourceNone },")
		return
	}
	g.p("Resource: func(in api.Shape) (string, api.ResourceKind) {\ns := in.(*%s)\n%s\nreturn \"\", api.ResourceNone\n},", op.goIn, strings.Join(lines, "\n"))
}

// enumType prints an enumeration.
func (g *generator) enumType(s *shape) {
	g.p("// %s is one of the values below. Values that a newer client sends are kept as\n// they are and refused by validation.\ntype %s string\n", s.goName, s.goName)
	g.p("// Values of %s.\nconst (", s.goName)
	for _, v := range s.enum {
		g.p("%s%s %s = %q", s.goName, camel(v), s.goName, v)
	}
	g.p(")\n")
	g.p("// %sValues lists the values of %s in the model's order.\nfunc %sValues() []%s {\nreturn []%s{", s.goName, s.goName, s.goName, s.goName, s.goName)
	for _, v := range s.enum {
		g.p("%s%s,", s.goName, camel(v))
	}
	g.p("}\n}\n")
}

// constraintVars prints patterns, enumerations and rules that Validate uses.
func (g *generator) constraintVars() {
	var lines []string
	for _, n := range g.order {
		s := g.shapes[n]
		if !s.fromInput {
			continue
		}
		if s.typ == "string" && s.pattern != "" {
			e, err := patternExpr(s.pattern)
			if err != nil {
				g.fail("shape %s: %w", n, err)
			}
			lines = append(lines, fmt.Sprintf("pattern%s = %s", s.goName, e))
		}
		if s.enum != nil {
			values := s.enum
			if printed := g.printed[s.name]; printed != nil {
				if !slices.Equal(slices.Sorted(slices.Values(values)), slices.Sorted(slices.Values(printed))) {
					g.fail("shape %s: the values that are printed are not the model's", n)
				}
				values = printed
			}
			var v []string
			for _, e := range values {
				v = append(v, fmt.Sprintf("%q", e))
			}
			lines = append(lines, fmt.Sprintf("enum%s = api.Enum{%s}", s.goName, strings.Join(v, ", ")))
		}
		if g.ruled[s.name] {
			lines = append(lines, fmt.Sprintf("rule%s = %s", s.goName, ruleExpr(s)))
		}
	}
	if len(lines) > 0 {
		g.p("var (\n%s\n)", strings.Join(lines, "\n"))
	}
}

func ruleExpr(s *shape) string {
	r := fmt.Sprintf("&api.Rule{Min: %s, Max: %s", bound(s.min), bound(s.max))
	if s.pattern != "" {
		r += ", Pattern: pattern" + s.goName
	}
	if s.enum != nil {
		r += ", Enum: enum" + s.goName
	}
	return r + "}"
}

func bound(s string) string {
	if s == "" {
		return "api.NoLimit"
	}
	return s
}

// newErrorPart prints the table of errors by code.
func (g *generator) newErrorPart() {
	g.p("// NewError makes an empty error for its code on the wire, nil for an unknown one.\nfunc NewError(code string) api.ErrorShape {\nswitch code {")
	for _, n := range g.order {
		if s := g.shapes[n]; s.exception {
			g.p("case %q:\nreturn new(%s)", s.errorCode, s.goName)
		}
	}
	g.p("}\nreturn nil\n}\n")
}

// comment breaks a text into comment lines.
func comment(text string) string {
	const width = 79
	var b strings.Builder
	line := "//"
	for _, w := range strings.Fields(text) {
		if len(line)+1+len(w) > width {
			b.WriteString(line + "\n")
			line = "//"
		}
		line += " " + w
	}
	return b.String() + line
}
