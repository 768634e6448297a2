// Package discover guesses the schema of records from samples of them.
//
// The one idea: a schema is the join over all samples of the smallest type that
// holds each value, so that more samples can only widen it. Names are made legal
// by the rules of the service, and nested objects become columns whose names are
// joined with an underscore.
package discover

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// ErrUnknown says that the samples are neither JSON nor delimited text.
var ErrUnknown = errors.New("the samples are neither JSON nor delimited text")

// MaxSamples is how many samples are looked at.
const MaxSamples = 1000

// Schema guesses the format of records. ErrUnknown if it cannot.
func Schema(samples []string) (run.Format, error) {
	if len(samples) > MaxSamples {
		samples = samples[:MaxSamples]
	}
	samples = slices.DeleteFunc(slices.Clone(samples), func(s string) bool { return strings.TrimSpace(s) == "" || !utf8.ValidString(s) })
	if len(samples) == 0 {
		return run.Format{}, ErrUnknown
	}
	if f, ok := fromJSON(samples); ok {
		return f, nil
	}
	return fromText(samples)
}

// Most is Schema for records of which a few may be wrong: if most of the samples
// are JSON, those that are not are left out, as the program leaves them out.
func Most(samples []string) (run.Format, error) {
	f, err := Schema(samples)
	if err == nil {
		return f, nil
	}
	documents := slices.DeleteFunc(slices.Clone(samples), func(s string) bool {
		t := strings.TrimSpace(s)
		return t == "" || t[0] != '{' && t[0] != '[' || !isDocuments(t)
	})
	if 2*len(documents) <= len(samples) {
		return f, err
	}
	return Schema(documents)
}

// isDocuments reports whether a text is JSON, one document or several.
func isDocuments(text string) bool {
	d := json.NewDecoder(strings.NewReader(text))
	for d.More() {
		var document json.RawMessage
		if d.Decode(&document) != nil {
			return false
		}
	}
	return true
}

// guess is what is known of a column.
type guess struct {
	path    string // JSON path
	name    string // parts of the path, joined
	boolean bool
	integer bool
	float   bool
	wide    bool // integers beyond 32 bits
	text    bool
	length  int
}

func (g *guess) number(s string) {
	if _, err := strconv.ParseInt(s, 10, 32); err == nil {
		g.integer = true
	} else if _, err := strconv.ParseInt(s, 10, 64); err == nil {
		g.integer, g.wide = true, true
	} else {
		g.float = true
	}
	g.length = max(g.length, len(s))
}

func (g *guess) string(s string) {
	g.text = true
	g.length = max(g.length, utf8.RuneCountInString(s))
}

// sqlType is the smallest type that holds what was seen.
func (g *guess) sqlType() sql.Type {
	numbers := g.integer || g.float
	switch {
	case g.text || g.boolean && numbers || !g.boolean && !numbers:
		for _, n := range []int{4, 16, 64, 256, 1024, 4096} {
			if g.length <= n {
				return sql.Type{Kind: sql.KindVarchar, Length: n}
			}
		}
		return sql.Type{Kind: sql.KindVarchar, Length: 16384}
	case g.boolean:
		return sql.Type{Kind: sql.KindBoolean}
	case g.float:
		return sql.Type{Kind: sql.KindDouble}
	case g.wide:
		return sql.Type{Kind: sql.KindBigint}
	}
	return sql.Type{Kind: sql.KindInteger}
}

type collector struct {
	order []*guess
	paths map[string]*guess
	array string // the flattened array
}

func (c *collector) at(path, name string) *guess {
	g := c.paths[path]
	if g == nil && len(c.order) < 1000 {
		g = &guess{path: path, name: name}
		c.paths[path] = g
		c.order = append(c.order, g)
	}
	if g == nil {
		g = &guess{} // beyond the last column that there can be
	}
	return g
}

func fromJSON(samples []string) (run.Format, bool) {
	c := &collector{paths: map[string]*guess{}}
	for _, s := range samples {
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		n := 0
		for d.More() {
			if !c.document(d) {
				return run.Format{}, false
			}
			n++
		}
		if n == 0 {
			return run.Format{}, false
		}
	}
	if len(c.order) == 0 {
		return run.Format{}, false
	}
	f := run.Format{RowPath: "$"}
	names := map[string]bool{}
	for i, g := range c.order {
		f.Columns = append(f.Columns, run.SourceColumn{Name: unique(names, columnName(g.name, i)), Type: g.sqlType(), Mapping: g.path})
	}
	return f, true
}

// document reads one JSON object in the order of its members, or an array of them:
// its elements are rows then.
func (c *collector) document(d *json.Decoder) bool {
	switch t, err := d.Token(); {
	case err != nil:
		return false
	case t == json.Delim('{'):
		return c.object(d, "$", "", 0)
	case t == json.Delim('['):
		return c.arrayValue(d, "$", "", 0)
	}
	return false
}

func (c *collector) object(d *json.Decoder, path, name string, depth int) bool {
	if depth > 50 {
		return false
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return false
		}
		key := t.(string)
		step := "." + key
		if strings.ContainsAny(key, ".[") {
			step = "['" + key + "']"
		}
		if key == "" || strings.Contains(key, "]") {
			// No path leads there.
			var skipped json.RawMessage
			if d.Decode(&skipped) != nil {
				return false
			}
			continue
		}
		full := key
		if name != "" {
			full = name + "_" + key
		}
		if !c.value(d, path+step, full, depth+1) {
			return false
		}
	}
	_, err := d.Token()
	return err == nil
}

func (c *collector) value(d *json.Decoder, path, name string, depth int) bool {
	t, err := d.Token()
	if err != nil {
		return false
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return c.object(d, path, name, depth)
		}
		return c.arrayValue(d, path, name, depth)
	case json.Number:
		c.at(path, name).number(t.String())
	case string:
		c.at(path, name).string(t)
	case bool:
		c.at(path, name).boolean = true
	case nil:
		c.at(path, name)
	}
	return true
}

// arrayValue flattens the first array of objects; others are taken whole.
func (c *collector) arrayValue(d *json.Decoder, path, name string, depth int) bool {
	start := d.InputOffset()
	flattened := c.array == "" || c.array == path
	whole := false
	for d.More() {
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return false
		}
		if !flattened || len(raw) == 0 || raw[0] != '{' {
			whole = true
			continue
		}
		c.array = path
		inner := json.NewDecoder(strings.NewReader(string(raw)))
		inner.UseNumber()
		if _, err := inner.Token(); err != nil || !c.object(inner, path+"[0:]", name, depth+1) {
			return false
		}
	}
	if _, err := d.Token(); err != nil {
		return false
	}
	if whole || c.array != path {
		g := c.at(path+"[0:]", name)
		g.text = true
		g.length = max(g.length, int(d.InputOffset()-start)+1)
	}
	return true
}

// columnName makes a legal name by the service's rules.
func columnName(name string, index int) string {
	var b strings.Builder
	for _, r := range name {
		if r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z' {
			b.WriteRune(r)
		}
	}
	clean := b.String()
	legal := clean == name && clean != "" && len(clean) <= 100 && (clean[0]|0x20 >= 'a' && clean[0]|0x20 <= 'z') && !sql.Reserved(clean)
	if legal {
		return clean
	}
	if clean == "" {
		clean = strconv.Itoa(index)
	}
	return "COL_" + clean[:min(len(clean), 96)]
}

func unique(names map[string]bool, name string) string {
	for n, base := 1, name; names[name]; n++ {
		name = base + "_" + strconv.Itoa(n)
	}
	names[name] = true
	return name
}

// fromText guesses delimiters and the types of columns by position.
func fromText(samples []string) (run.Format, error) {
	row := "\n"
	for _, s := range samples {
		if strings.Contains(s, "\r\n") {
			row = "\r\n"
		}
	}
	var lines []string
	for _, s := range samples {
		for _, l := range strings.Split(s, row) {
			if strings.TrimSpace(l) != "" {
				lines = append(lines, l)
			}
		}
	}
	if c := strings.TrimSpace(lines[0])[0]; c == '{' || c == '[' {
		return run.Format{}, ErrUnknown // commas of JSON that could not be read
	}
	best, columns := "", 1
	for _, delimiter := range []string{",", ";", "|", "\t"} {
		n := len(fields(lines[0], delimiter))
		same := true
		for _, l := range lines {
			same = same && len(fields(l, delimiter)) == n
		}
		if same && n > columns {
			best, columns = delimiter, n
		}
	}
	if best == "" || columns > 1000 {
		return run.Format{}, ErrUnknown
	}
	guesses := make([]guess, columns)
	header := len(lines) > 1 && isHeader(fields(lines[0], best))
	for i, l := range lines {
		if i == 0 && header {
			continue
		}
		for k, field := range fields(l, best) {
			if _, err := strconv.ParseFloat(field, 64); err == nil {
				guesses[k].number(field)
			} else if field != "" {
				guesses[k].string(field)
			}
		}
	}
	f := run.Format{CSV: true, RowDelimiter: row, ColumnDelimiter: best}
	names := map[string]bool{}
	first := fields(lines[0], best)
	for i := range guesses {
		name := "COL_" + strconv.Itoa(i)
		if header {
			name = columnName(first[i], i)
		}
		f.Columns = append(f.Columns, run.SourceColumn{Name: unique(names, name), Type: guesses[i].sqlType()})
	}
	return f, nil
}

// fields splits a line at a delimiter, but not within quotes, and takes quotes and
// white space around fields away.
func fields(line, delimiter string) []string {
	var list []string
	for more := true; more; {
		var field string
		trimmed := strings.TrimLeft(line, " ")
		if inner, quoted := strings.CutPrefix(trimmed, `"`); quoted {
			var b strings.Builder
			for {
				text, rest, closed := strings.Cut(inner, `"`)
				b.WriteString(text)
				inner = rest
				if again, double := strings.CutPrefix(inner, `"`); closed && double {
					b.WriteByte('"')
					inner = again
					continue
				}
				break
			}
			// What follows the closing quote belongs to the field.
			var tail string
			tail, line, more = strings.Cut(inner, delimiter)
			field = b.String() + tail
		} else {
			field, line, more = strings.Cut(line, delimiter)
		}
		list = append(list, strings.TrimSpace(field))
	}
	return list
}

// isHeader reports whether the fields of a line look like names.
func isHeader(fields []string) bool {
	for _, f := range fields {
		if f == "" || f[0] >= '0' && f[0] <= '9' || f[0] == '-' {
			return false
		}
		if strings.EqualFold(f, "true") || strings.EqualFold(f, "false") {
			return false
		}
	}
	return true
}
