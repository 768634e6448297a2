package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// envPrefix starts the variables that are settings.
const envPrefix = "MILLRACE_"

// otherVariables start with envPrefix and are read elsewhere: the client
// commands' endpoint, and the settings file's own path.
var otherVariables = []string{"MILLRACE_CONFIG", "MILLRACE_ENDPOINT"}

// option is one field of Config with what its tags say.
type option struct {
	key, group, doc string
	allowed         []string
	index           int
}

func (o *option) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.key, "-", "_"))
}

// options lists the settings in the order of the struct.
var options = func() []*option {
	var list []*option
	group := ""
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if g := tag.Get("group"); g != "" {
			group = g
		}
		o := &option{key: tag.Get("key"), group: group, doc: tag.Get("doc"), index: i}
		if one := tag.Get("one"); one != "" {
			o.allowed = strings.Split(one, ",")
		}
		list = append(list, o)
	}
	return list
}()

func find(key string) *option {
	for _, o := range options {
		if o.key == key {
			return o
		}
	}
	return nil
}

func (o *option) field(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().Field(o.index) }

// set parses and stores values; only lists take more than one. Values that
// come as one string are split at commas for lists.
func (o *option) set(c *Config, values ...string) error {
	f := o.field(c)
	if f.Kind() == reflect.Slice {
		if len(values) == 1 {
			values = strings.FieldsFunc(values[0], func(r rune) bool { return r == ',' || r == ' ' })
		}
		f.Set(reflect.ValueOf(values))
		return nil
	}
	if len(values) != 1 {
		return errors.New("takes one value, not a list")
	}
	v := values[0]
	switch p := f.Addr().Interface().(type) {
	case *string:
		if o.allowed != nil && !slices.Contains(o.allowed, v) {
			return fmt.Errorf("%q is not one of %s", v, strings.Join(o.allowed, ", "))
		}
		*p = v
	case *bool:
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		*p = b
	case *int:
		n, err := strconv.Atoi(strings.ReplaceAll(v, "_", ""))
		if err != nil {
			return fmt.Errorf("%q is not a whole number", v)
		}
		*p = n
	case *time.Duration:
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("%q is not a duration; write 500ms, 2s or 5m", v)
		}
		*p = d
	case *Bytes:
		b, err := parseBytes(v)
		if err != nil {
			return err
		}
		*p = b
	default:
		panic("config: unsupported type of " + o.key)
	}
	return nil
}

func parseBytes(v string) (Bytes, error) {
	number := strings.TrimRight(v, "KMGTiB ")
	shift, ok := map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[strings.TrimSpace(v[len(number):])]
	n, err := strconv.ParseInt(strings.ReplaceAll(number, "_", ""), 10, 64)
	if err != nil || !ok || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is not a size; write 512, 64KiB, 20MiB or 1GiB", v)
	}
	return Bytes(n) << shift, nil
}

func (o *option) render(c *Config) string {
	switch v := o.field(c).Interface().(type) {
	case []string:
		return strings.Join(v, ",")
	default:
		return fmt.Sprint(v)
	}
}

// AddFlags gives a command one flag for every setting, and --config.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "file with settings (YAML)")
	d := Default()
	for _, o := range options {
		v := &flagValue{option: o, scratch: Default(), text: o.render(d)}
		f := flags.VarPF(v, o.key, "", o.help())
		if o.field(d).Kind() == reflect.Bool {
			f.NoOptDefVal = "true"
		}
		f.DefValue = v.text
	}
}

// help is the doc text with the allowed words.
func (o *option) help() string {
	if o.allowed == nil {
		return o.doc
	}
	return strings.Join(o.allowed, " or ") + ": " + o.doc
}

// flagValue keeps a flag's text until Load; it parses at once so that errors
// name the flag.
type flagValue struct {
	*option
	scratch *Config
	text    string
	given   []string
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Set(s string) error {
	if err := v.set(v.scratch, s); err != nil {
		return err
	}
	if v.field(v.scratch).Kind() == reflect.Slice {
		v.given = append(v.given, v.field(v.scratch).Interface().([]string)...)
	} else {
		v.given = []string{s}
	}
	v.text = strings.Join(v.given, ",")
	return nil
}

func (v *flagValue) Type() string {
	switch v.field(v.scratch).Interface().(type) {
	case bool:
		return ""
	case int:
		return "number"
	case time.Duration:
		return "duration"
	case Bytes:
		return "size"
	case []string:
		return "list"
	}
	if v.allowed != nil {
		return strings.Join(v.allowed, "|")
	}
	return "string"
}

// Loaded is a configuration that knows where each value came from.
type Loaded struct {
	Config
	// File is the settings file that was read, empty if none.
	File   string
	origin map[string]string
}

// Origin says where a setting's value came from: default, the file with its
// line, the variable, or the flag.
func (l *Loaded) Origin(key string) string {
	if o, ok := l.origin[key]; ok {
		return o
	}
	return "default"
}

// Load puts together what is in force. flags may be nil; environ is in the
// form of os.Environ. Its errors are one line that names the place, the
// setting and what is allowed.
func Load(flags *pflag.FlagSet, environ []string) (*Loaded, error) {
	l := &Loaded{Config: *Default(), origin: map[string]string{}}
	env := map[string]string{}
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			env[k] = v
		}
	}

	l.File = env["MILLRACE_CONFIG"]
	if flags != nil {
		if f := flags.Lookup("config"); f != nil && f.Changed {
			l.File = f.Value.String()
		}
	}
	if l.File != "" {
		if err := l.readFile(); err != nil {
			return nil, err
		}
	}
	if err := l.readEnvironment(env); err != nil {
		return nil, err
	}
	if flags != nil {
		var err error
		flags.Visit(func(f *pflag.Flag) {
			v, ok := f.Value.(*flagValue)
			if !ok || err != nil {
				return
			}
			if e := v.set(&l.Config, v.given...); e != nil {
				err = fmt.Errorf("flag --%s: %w", v.key, e)
			}
			l.origin[v.key] = "flag --" + v.key
		})
		if err != nil {
			return nil, err
		}
	}

	var p *problem
	if err := l.check(); errors.As(err, &p) {
		if o := l.Origin(p.key); o != "default" {
			return nil, fmt.Errorf("%s: %w", o, err)
		}
		return nil, err
	}
	return l, nil
}

func (l *Loaded) readFile() error {
	raw, err := os.ReadFile(l.File)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return fmt.Errorf("config file %s: %w", l.File, err)
	}
	at := func(n ast.Node) string {
		return fmt.Sprintf("%s:%d", l.File, n.GetToken().Position.Line)
	}
	entries, err := mapping(l.File, raw)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		key := entry.Key.GetToken().Value
		o := find(key)
		if o == nil {
			return fmt.Errorf("%s: unknown setting %q%s", at(entry.Key), key, didYouMean(key, keys()))
		}
		if where, twice := l.origin[key]; twice {
			return fmt.Errorf("%s: %s: is set twice, first at %s", at(entry.Key), key, where)
		}
		var values []string
		switch v := entry.Value.(type) {
		case *ast.SequenceNode:
			values = []string{}
			for _, item := range v.Values {
				s, ok := scalar(item)
				if !ok {
					return fmt.Errorf("%s: %s: a list of plain values is wanted here", at(item), key)
				}
				values = append(values, s)
			}
			if o.field(&l.Config).Kind() != reflect.Slice {
				return fmt.Errorf("%s: %s: takes one value, not a list", at(entry.Key), key)
			}
			o.field(&l.Config).Set(reflect.ValueOf(values))
			l.origin[key] = at(entry.Key)
			continue
		default:
			s, ok := scalar(v)
			if !ok {
				return fmt.Errorf("%s: %s: a plain value is wanted here", at(entry.Key), key)
			}
			values = []string{s}
		}
		if err := o.set(&l.Config, values...); err != nil {
			return fmt.Errorf("%s: %s: %w", at(entry.Key), key, err)
		}
		l.origin[key] = at(entry.Key)
	}
	return nil
}

// mapping parses a file whose top level is a mapping; an empty file is one too.
func mapping(name string, raw []byte) ([]*ast.MappingValueNode, error) {
	file, err := parser.ParseBytes(raw, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(name, err)
	}
	var entries []*ast.MappingValueNode
	for _, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode:
		case *ast.MappingNode:
			entries = append(entries, body.Values...)
		case *ast.MappingValueNode:
			entries = append(entries, body)
		default:
			return nil, fmt.Errorf("%s:%d: settings are written as name: value", name, body.GetToken().Position.Line)
		}
	}
	return entries, nil
}

// syntaxError makes one line of the parser's illustrated message.
func syntaxError(name string, err error) error {
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		return fmt.Errorf("%s:%d: %s", name, y.GetToken().Position.Line, y.GetMessage())
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%s: %s", name, text)
}

func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.NullNode:
		return "", true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func (l *Loaded) readEnvironment(env map[string]string) error {
	if v, ok := env["INITIALIZE_STREAMS"]; ok && env["MILLRACE_INITIALIZE_STREAMS"] == "" {
		l.InitializeStreams = v
		l.origin["initialize-streams"] = "environment INITIALIZE_STREAMS"
	}
	known := map[string]*option{}
	for _, o := range options {
		known[o.variable()] = o
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(otherVariables, name) {
			continue
		}
		o := known[name]
		if o == nil {
			return fmt.Errorf("environment %s: no such setting%s", name, didYouMean(name, slices.Collect(maps.Keys(known))))
		}
		if err := o.set(&l.Config, env[name]); err != nil {
			return fmt.Errorf("environment %s: %w", name, err)
		}
		l.origin[o.key] = "environment " + name
	}
	return nil
}

func keys() []string {
	var list []string
	for _, o := range options {
		list = append(list, o.key)
	}
	return list
}

// didYouMean is a clause naming the closest word, or where to look when none is
// close.
func didYouMean(word string, words []string) string {
	best, distance := "", len(word)/2+1
	slices.Sort(words)
	for _, w := range words {
		if d := editDistance(strings.ToLower(word), strings.ToLower(w)); d < distance {
			best, distance = w, d
		}
	}
	if best == "" {
		return "; millrace config lists all"
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// DidYouMean is the same for flags: it completes an error about a name that
// does not exist.
func DidYouMean(word string) string { return didYouMean(word, keys()) }

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
