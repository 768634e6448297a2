package postgres

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/dest/jsonscan"
)

// maxRow bounds one row of an input, in bytes.
const maxRow = 16 << 20

// column is a column of the table, or of what COPY loads into it.
type column struct {
	name       string
	typ        string // as in pg_type: int4, varchar, timestamptz
	length     int    // of char(n) and varchar(n), in characters; 0 is without bound
	notNull    bool
	hasDefault bool
	generated  bool // identity, or the default is a sequence
}

func (c *column) isText() bool {
	switch c.typ {
	case "varchar", "bpchar", "text", "name", "char", "citext":
		return true
	}
	return false
}

// rowError is a row that cannot be loaded; the next one can be read.
type rowError struct {
	column string // empty if it is not about one
	reason string
}

func (e *rowError) Error() string {
	if e.column == "" {
		return e.reason
	}
	return "column " + e.column + ": " + e.reason
}

// errRowTooLong ends an input.
var errRowTooLong = fmt.Errorf("a row is longer than %d MiB", maxRow>>20)

// table is what rows become: the columns in the order of the input, and how
// their fields are converted.
type table struct {
	options    *CopyOptions
	columns    []column
	byName     map[string]int
	paths      [][]pathStep // of JSONPaths, one a column
	date, time format
}

func newTable(o *CopyOptions, columns []column, paths [][]pathStep) (*table, error) {
	t := &table{options: o, columns: columns, byName: map[string]int{}, paths: paths}
	for i, c := range columns {
		name := c.name
		if o.IgnoreCase {
			name = strings.ToLower(name)
		}
		t.byName[name] = i
	}
	if len(paths) > 0 && len(paths) != len(columns) {
		return nil, &OptionError{Option: "JSON", ForJSON: true, Reason: fmt.Sprintf("the JSONPaths file has %d paths for %d columns", len(paths), len(columns))}
	}
	if o.Layout == FixedWidth && len(o.Widths) != len(columns) {
		return nil, &OptionError{Option: "FIXEDWIDTH", Reason: fmt.Sprintf("it has %d columns, %d are to be loaded", len(o.Widths), len(columns))}
	}
	switch strings.ToLower(o.DateFormat) {
	case "", "auto":
	default:
		t.date, _ = compileFormat(o.DateFormat) // checked with the options
	}
	switch strings.ToLower(o.TimeFormat) {
	case "", "auto", "epochsecs", "epochmillisecs":
	default:
		t.time, _ = compileFormat(o.TimeFormat)
	}
	return t, nil
}

// rows reads an input and makes lines of COPY's text format of it.
type rows struct {
	*table
	in     *bufio.Reader
	line   []byte   // the row as it came, for reports
	fields [][]byte // of the row; nil is NULL
	text   []byte   // what fields of escapes and quotes are put together in
	ends   []int
	header int
	number int // of the row, from 1
}

func (t *table) read(in io.Reader) *rows {
	switch t.options.Encoding {
	case "utf16", "utf16le", "utf16be":
		in = &wide{in: bufio.NewReader(in), order: t.options.Encoding}
	}
	return &rows{table: t, in: bufio.NewReaderSize(in, 64<<10), header: t.options.IgnoreHeader, fields: make([][]byte, len(t.columns))}
}

// reset begins another input of the same table.
func (r *rows) reset(in io.Reader) {
	r.in.Reset(in)
	r.number, r.header = 0, r.options.IgnoreHeader
}

// next appends the next row to b as a line. It ends with io.EOF; after a
// *rowError, which appends nothing, it can be called again.
func (r *rows) next(b []byte) ([]byte, error) {
	for {
		var err error
		switch r.options.Layout {
		case JSONAuto, JSONPaths, NoShred:
			err = r.object()
		case CSV:
			err = r.csv()
		default:
			err = r.delimited()
		}
		var bad *rowError
		if err != nil && !errors.As(err, &bad) {
			return b, err
		}
		r.number++
		if r.header > 0 {
			r.header--
			continue
		}
		if err != nil {
			return b, err
		}
		return r.encode(b)
	}
}

// encode appends the fields as a line.
func (r *rows) encode(b []byte) ([]byte, error) {
	start := len(b)
	for i := range r.columns {
		if i > 0 {
			b = append(b, '\t')
		}
		if r.fields[i] == nil {
			b = append(b, `\N`...)
			continue
		}
		var err error
		if b, err = r.field(b, &r.columns[i], r.fields[i]); err != nil {
			return b[:start], &rowError{r.columns[i].name, err.Error()}
		}
	}
	return append(b, '\n'), nil
}

// field appends a value that is not NULL, which it may become here.
func (t *table) field(b []byte, c *column, v []byte) ([]byte, error) {
	o := t.options
	if !utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0 {
		if o.InvalidChar == 0 {
			return b, errors.New("invalid UTF-8 or a zero byte; ACCEPTINVCHARS would replace it")
		}
		v = replaceInvalid(v, o.InvalidChar)
	}
	if c.isText() {
		if o.TrimBlanks {
			v = bytes.TrimRight(v, " \t\r\n")
		}
		if o.EmptyAsNull && len(v) == 0 || o.BlanksAsNull && len(bytes.TrimSpace(v)) == 0 {
			return append(b, `\N`...), nil
		}
		if c.length > 0 && o.TruncateColumns {
			v = truncate(v, c.length)
		}
		return escape(b, v), nil
	}
	v = bytes.TrimSpace(v)
	if len(v) == 0 {
		return append(b, `\N`...), nil
	}
	var at time.Time
	var err error
	layout := ""
	switch c.typ {
	case "date":
		if t.date != nil {
			at, err = t.date.parse(string(v))
			layout = time.DateOnly
		}
	case "timestamp", "timestamptz":
		layout = "2006-01-02 15:04:05.999999-07:00"
		switch {
		case t.time != nil:
			at, err = t.time.parse(string(v))
		case strings.EqualFold(o.TimeFormat, "epochsecs"):
			at, err = epoch(string(v), time.Second)
		case strings.EqualFold(o.TimeFormat, "epochmillisecs"):
			at, err = epoch(string(v), time.Millisecond)
		default:
			layout = ""
		}
	}
	switch {
	case layout == "":
		return escape(b, v), nil
	case err != nil && o.AcceptAnyDate:
		return append(b, `\N`...), nil
	case err != nil:
		return b, err
	case at.Year() < 1 || at.Year() > 9999:
		return b, fmt.Errorf("%q is out of range", clip(string(v)))
	}
	return at.AppendFormat(b, layout), nil
}

// escape appends a value as COPY reads it.
func escape(b, v []byte) []byte {
	for {
		i := 0
		for i < len(v) && v[i] != '\\' && (v[i] > '\r' || v[i] < '\t' || v[i] == '\v' || v[i] == '\f') {
			i++
		}
		if i == len(v) {
			return append(b, v...)
		}
		b = append(b, v[:i]...)
		switch v[i] {
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\\`...)
		}
		v = v[i+1:]
	}
}

func replaceInvalid(v []byte, with byte) []byte {
	clean := make([]byte, 0, len(v))
	for len(v) > 0 {
		r, n := utf8.DecodeRune(v)
		if r == utf8.RuneError && n <= 1 || r == 0 {
			clean = append(clean, with)
		} else {
			clean = append(clean, v[:n]...)
		}
		v = v[n:]
	}
	return clean
}

// truncate cuts v, which is UTF-8, to so many characters.
func truncate(v []byte, most int) []byte {
	if len(v) <= most {
		return v
	}
	at := 0
	for range most {
		if at >= len(v) {
			break
		}
		_, n := utf8.DecodeRune(v[at:])
		at += n
	}
	return v[:at]
}

// readLine reads up to a newline, which it leaves out, and appends to r.line.
func (r *rows) readLine() error {
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		if len(r.line) > maxRow {
			return errRowTooLong
		}
		switch {
		case err == nil:
			r.line = r.line[:len(r.line)-1]
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(part) > 0:
			return nil
		default:
			return err
		}
	}
}

// trimReturn takes a carriage return off the end of a line.
func trimReturn(line []byte) []byte { return bytes.TrimSuffix(line, []byte("\r")) }

// delimited reads a row of fields between delimiters, or of fixed width.
func (r *rows) delimited() error {
	o := r.options
	for {
		r.line = r.line[:0]
		if err := r.readLine(); err != nil {
			return err
		}
		for o.Escape && endsEscaped(r.line) {
			r.line = append(r.line, '\n')
			if err := r.readLine(); err != nil {
				if errors.Is(err, io.EOF) {
					break
				}
				return err
			}
		}
		r.line = trimReturn(r.line)
		if o.IgnoreBlankLines && len(r.line) == 0 {
			continue
		}
		break
	}
	r.text, r.ends = r.text[:0], r.ends[:0]
	if o.Layout == FixedWidth {
		return r.fixed()
	}
	null := make([]bool, 0, len(r.columns))
	rest := r.line
	for {
		quoted := o.RemoveQuotes && len(rest) > 0 && (rest[0] == '"' || rest[0] == '\'')
		i := 0
		if quoted {
			if end := bytes.IndexByte(rest[1:], rest[0]); end >= 0 {
				r.text = append(r.text, rest[1:1+end]...)
				i = end + 2
			}
		}
		for i < len(rest) && rest[i] != o.Delimiter {
			if o.Escape && rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			r.text = append(r.text, rest[i])
			i++
		}
		null = append(null, string(rest[:i]) == o.Null)
		r.ends = append(r.ends, len(r.text))
		if i >= len(rest) {
			break
		}
		rest = rest[i+1:]
		if len(r.ends) > len(r.columns)+1 {
			break
		}
	}
	return r.assign(null)
}

// endsEscaped tells a line whose newline is escaped.
func endsEscaped(line []byte) bool {
	n := 0
	for n < len(line) && line[len(line)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

func (r *rows) fixed() error {
	rest := r.line
	null := make([]bool, 0, len(r.columns))
	for _, w := range r.options.Widths {
		field := rest
		if utf8.RuneCount(rest) > w.Width {
			field = truncate(rest, w.Width)
		}
		rest = rest[len(field):]
		field = bytes.TrimRight(field, " ")
		r.text = append(r.text, field...)
		r.ends = append(r.ends, len(r.text))
		null = append(null, string(field) == r.options.Null)
	}
	return r.assign(null)
}

// csv reads a row of RFC 4180.
func (r *rows) csv() error {
	o := r.options
	for {
		r.line, r.text, r.ends = r.line[:0], r.text[:0], r.ends[:0]
		if err := r.readLine(); err != nil {
			return err
		}
		if len(trimReturn(r.line)) > 0 || !o.IgnoreBlankLines {
			break
		}
	}
	var null []bool
	at, whole := 0, false
	for {
		begin := at
		if at < len(r.line) && r.line[at] == o.Quote {
			at++
			for {
				if at >= len(r.line) { // the field goes on in the next line
					r.line = append(r.line, '\n')
					if err := r.readLine(); err != nil {
						if errors.Is(err, io.EOF) {
							return &rowError{"", "a quoted field does not end"}
						}
						return err
					}
				}
				if at >= len(r.line) {
					continue
				}
				if r.line[at] == o.Quote {
					at++
					if at >= len(r.line) || r.line[at] != o.Quote {
						break
					}
				}
				r.text = append(r.text, r.line[at])
				at++
			}
		}
		for at < len(r.line) && r.line[at] != o.Delimiter {
			r.text = append(r.text, r.line[at])
			at++
		}
		field := r.line[begin:at]
		if at >= len(r.line) {
			whole = true
			if bytes.HasSuffix(field, []byte("\r")) && len(r.text) > 0 {
				r.text = r.text[:len(r.text)-1]
				field = trimReturn(field)
			}
		}
		null = append(null, string(field) == o.Null)
		r.ends = append(r.ends, len(r.text))
		if whole || len(r.ends) > len(r.columns)+1 {
			break
		}
		at++
	}
	return r.assign(null)
}

// assign makes columns of the fields in r.text.
func (r *rows) assign(null []bool) error {
	if n := len(r.ends); n > len(r.columns) {
		// A delimiter after the last field is forgiven.
		if n == len(r.columns)+1 && n >= 2 && r.ends[n-1] == r.ends[n-2] && r.options.Layout == Delimited {
			r.ends = r.ends[:n-1]
		} else {
			return &rowError{"", "Extra column(s) found"}
		}
	} else if n < len(r.columns) && !r.options.FillRecord {
		return &rowError{"", "Delimiter not found"}
	}
	begin := 0
	clear(r.fields)
	for i, end := range r.ends {
		if !null[i] {
			r.fields[i] = r.text[begin:end:end]
			if r.fields[i] == nil {
				r.fields[i] = []byte{}
			}
		}
		begin = end
	}
	return nil
}

// object reads a row that is a JSON object.
func (r *rows) object() error {
	if err := r.readObject(); err != nil {
		return err
	}
	if !json.Valid(r.line) {
		return &rowError{"", "Invalid JSON: " + jsonFault(r.line)}
	}
	clear(r.fields)
	r.text = r.text[:0]
	switch r.options.Layout {
	case NoShred:
		r.fields[0] = r.line
	case JSONPaths:
		for i, steps := range r.paths {
			if raw := follow(r.line, steps); raw != nil {
				r.fields[i] = r.value(&r.columns[i], raw)
			}
		}
	default:
		for key, raw := range jsonscan.Members(r.line) {
			name := jsonscan.Unquote(key)
			if r.options.IgnoreCase {
				name = bytes.ToLower(name)
			}
			if i, ok := r.byName[string(name)]; ok {
				r.fields[i] = r.value(&r.columns[i], raw)
			}
		}
	}
	return nil
}

// value is the text of a JSON value; nil for null.
func (r *rows) value(c *column, raw []byte) []byte {
	switch {
	case raw[0] == 'n':
		return nil
	case raw[0] == '"' && c.typ != "json" && c.typ != "jsonb":
		v := jsonscan.Unquote(raw)
		if v == nil {
			v = []byte{}
		}
		return v
	case raw[0] == '[' && strings.HasPrefix(c.typ, "_"):
		return appendArray(nil, raw)
	}
	return raw
}

// appendArray makes an array of the server's of a JSON array.
func appendArray(b, raw []byte) []byte {
	b = append(b, '{')
	n := 0
	for element := range jsonscan.Elements(raw) {
		if n++; n > 1 {
			b = append(b, ',')
		}
		switch element[0] {
		case '[':
			b = appendArray(b, element)
		case 'n':
			b = append(b, "NULL"...)
		default:
			text := element
			if element[0] == '"' {
				text = jsonscan.Unquote(element)
			}
			b = append(b, '"')
			for _, c := range text {
				if c == '"' || c == '\\' {
					b = append(b, '\\')
				}
				b = append(b, c)
			}
			b = append(b, '"')
		}
	}
	return append(b, '}')
}

// readObject reads from a brace to the one that closes it into r.line. What
// stands between objects must be white space.
func (r *rows) readObject() error {
	r.line = r.line[:0]
	depth, inString, escaped := 0, false, false
	for {
		buffered, err := r.in.Peek(1)
		if len(buffered) == 0 {
			if errors.Is(err, io.EOF) && len(r.line) > 0 {
				return &rowError{"", "Invalid JSON: an object does not end"}
			}
			return err
		}
		buffered, _ = r.in.Peek(r.in.Buffered())
		begin := 0 // of what belongs to the object
		for i := 0; i < len(buffered); i++ {
			c := buffered[i]
			if depth == 0 {
				begin = i
				switch c {
				case ' ', '\t', '\n', '\r':
					begin = i + 1
					continue
				case '{':
					depth = 1
					continue
				}
				// No object: what is in this line is lost.
				_, _ = r.in.Discard(i)
				if err := r.readLine(); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				return &rowError{"", fmt.Sprintf("Invalid JSON: %q where an object should begin", c)}
			}
			switch {
			case escaped:
				escaped = false
			case inString:
				// Text is most of most records.
				end := bytes.IndexByte(buffered[i:], '"')
				if end < 0 {
					end = len(buffered) - i
				}
				if back := bytes.IndexByte(buffered[i:i+end], '\\'); back >= 0 {
					i += back
					escaped = true
				} else if i += end; i < len(buffered) {
					inString = false
				}
			case c == '"':
				inString = true
			case c == '{' || c == '[':
				depth++
			case c == '}' || c == ']':
				if depth--; depth == 0 {
					r.line = append(r.line, buffered[begin:i+1]...)
					_, _ = r.in.Discard(i + 1)
					return nil
				}
			}
		}
		r.line = append(r.line, buffered[min(begin, len(buffered)):]...)
		if len(r.line) > maxRow {
			return errRowTooLong
		}
		_, _ = r.in.Discard(len(buffered))
	}
}

func jsonFault(raw []byte) string {
	var v json.RawMessage
	if err := json.Unmarshal(raw, &v); err != nil {
		return err.Error()
	}
	return "cannot be read"
}

// pathStep is a member or, if member is empty, an element.
type pathStep struct {
	member string
	index  int
}

// maxPaths bounds a JSONPaths file.
const (
	maxPaths     = 2000
	maxPathsFile = 1 << 20
)

// ParseJSONPaths reads a JSONPaths file: {"jsonpaths": ["$.a", "$['b'][0]"]}.
func ParseJSONPaths(raw []byte) ([][]pathStep, error) {
	var file struct {
		Paths []string `json:"jsonpaths"`
	}
	if len(raw) > maxPathsFile {
		return nil, fmt.Errorf("the JSONPaths file is longer than %d bytes", maxPathsFile)
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("the JSONPaths file cannot be read: %w", err)
	}
	if len(file.Paths) == 0 || len(file.Paths) > maxPaths {
		return nil, fmt.Errorf("the JSONPaths file has %d paths", len(file.Paths))
	}
	all := make([][]pathStep, 0, len(file.Paths))
	for _, text := range file.Paths {
		steps, ok := parsePath(text)
		if !ok {
			return nil, fmt.Errorf("%q is no path of a JSONPaths file", clip(text))
		}
		all = append(all, steps)
	}
	return all, nil
}

func parsePath(text string) ([]pathStep, bool) {
	rest, ok := strings.CutPrefix(text, "$")
	if !ok {
		return nil, false
	}
	var steps []pathStep
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "['"), strings.HasPrefix(rest, `["`):
			end := strings.Index(rest[2:], rest[1:2]+"]")
			if end < 1 {
				return nil, false
			}
			steps = append(steps, pathStep{member: rest[2 : 2+end]})
			rest = rest[end+4:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, false
			}
			n, err := strconv.Atoi(rest[1:end])
			if err != nil || n < 0 {
				return nil, false
			}
			steps = append(steps, pathStep{index: n})
			rest = rest[end+1:]
		case rest[0] == '.':
			rest = rest[1:]
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, false
			}
			steps = append(steps, pathStep{member: rest[:end]})
			rest = rest[end:]
		default:
			return nil, false
		}
	}
	return steps, len(steps) > 0
}

// follow finds what a path leads to; nil if there is nothing.
func follow(raw []byte, steps []pathStep) []byte {
	for _, step := range steps {
		var found []byte
		switch {
		case step.member != "" && raw[0] == '{':
			for key, value := range jsonscan.Members(raw) {
				if string(jsonscan.Unquote(key)) == step.member {
					found = value
				}
			}
		case step.member == "" && raw[0] == '[':
			n := 0
			for value := range jsonscan.Elements(raw) {
				if n == step.index {
					found = value
					break
				}
				n++
			}
		}
		if found == nil {
			return nil
		}
		raw = found
	}
	return raw
}

// wide reads UTF-16 as UTF-8.
type wide struct {
	in    *bufio.Reader
	order string // utf16 takes the byte order mark, or big endian without one
	begun bool
	rest  []byte
}

func (w *wide) Read(p []byte) (int, error) {
	for len(w.rest) == 0 {
		unit, err := w.unit()
		if err != nil {
			return 0, err
		}
		if !w.begun {
			w.begun = true
			if unit == 0xfffe && w.order == "utf16" {
				w.order = "utf16le"
				continue
			}
			if unit == 0xfeff {
				continue
			}
		}
		r := rune(unit)
		if utf16.IsSurrogate(r) {
			second, err := w.unit()
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			r = utf16.DecodeRune(r, rune(second))
		}
		w.rest = utf8.AppendRune(nil, r)
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wide) unit() (uint16, error) {
	var b [2]byte
	if _, err := io.ReadFull(w.in, b[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, errors.New("half a character of UTF-16")
		}
		return 0, err
	}
	if w.order == "utf16le" {
		return binary.LittleEndian.Uint16(b[:]), nil
	}
	return binary.BigEndian.Uint16(b[:]), nil
}
