// Package awsjson reads and writes generated shapes as the JSON of the AWS JSON
// 1.1 protocol: blobs are base64, points in time are numbers of seconds, unknown
// members are passed over, and a value of the wrong type earns the text that the
// service gives for it.
//
// The one idea: a single pass without reflection. Generated types drive a
// decoder that walks the body, so nothing is built that the model does not name.
// The inputs of PutRecord and PutRecords have a scanner of their own, which does
// the same work for the usual form of those bodies several times faster and
// leaves everything unusual to the decoder. The outputs that carry records have
// encoders that size the reply once and write base64 where it belongs.
//
// The package knows no HTTP. Start reading at Unmarshal and Append.
package awsjson

import (
	"bytes"
	"math"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/api"
)

const (
	// maxDepth bounds nesting.
	maxDepth = 64
	// maxItems bounds the items of all lists and maps of one body, so that a body
	// of empty structures cannot take many times its own size.
	maxItems = 1 << 17
	// maxEcho bounds how much of a client's value an error text repeats.
	maxEcho = 4096
)

// Unmarshal reads body, which must be one JSON object, into v. The error is a
// *api.SyntaxError if the body is malformed anywhere, else a *api.TypeError for
// the first member of a wrong type. body is modified; strings and blobs of shapes
// marked with api.RequestAlias point into it, others own their memory.
func Unmarshal(body []byte, v api.Shape) error {
	if done, err := scan(body, v); done {
		return err
	}
	return unmarshal(body, v)
}

// unmarshal is Unmarshal without the scanner.
func unmarshal(body []byte, v api.Shape) error {
	d := decoder{buf: body}
	_, d.alias = v.(api.RequestAlias)
	d.space()
	if d.pos >= len(d.buf) || d.buf[d.pos] != '{' {
		d.syntax("not an object")
		return d.Err()
	}
	if err := v.DecodeFrom(&d); d.bad != nil {
		return err
	}
	d.space()
	if d.pos != len(d.buf) {
		d.syntax("data after the object")
	}
	return d.Err()
}

// decoder implements api.Decoder.
type decoder struct {
	buf   []byte
	pos   int
	depth int
	items int
	first bool // no member or item of the innermost open container has been read
	alias bool // strings and blobs may point into buf
	bad   *api.SyntaxError
	wrong *api.TypeError
}

var _ api.Decoder = (*decoder)(nil)

func (d *decoder) Err() error {
	if d.bad != nil {
		return d.bad
	}
	if d.wrong != nil {
		return d.wrong
	}
	return nil
}

// syntax remembers the first syntax error and moves to the end.
func (d *decoder) syntax(reason string) {
	if d.bad == nil {
		d.bad = &api.SyntaxError{Offset: d.pos, Reason: reason}
	}
	d.pos = len(d.buf)
}

func (d *decoder) space() {
	for d.pos < len(d.buf) {
		switch d.buf[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek gives the first byte of the next token, 0 at the end.
func (d *decoder) peek() byte {
	d.space()
	if d.pos >= len(d.buf) {
		d.syntax("unexpected end")
		return 0
	}
	return d.buf[d.pos]
}

func (d *decoder) literal(word string) bool {
	if len(d.buf)-d.pos >= len(word) && string(d.buf[d.pos:d.pos+len(word)]) == word {
		d.pos += len(word)
		return true
	}
	d.syntax("unknown literal")
	return false
}

// Null implements api.Decoder.
func (d *decoder) Null() bool {
	return d.bad == nil && d.peek() == 'n' && d.literal("null")
}

func (d *decoder) open() bool {
	d.pos++
	d.depth++
	d.first = true
	if d.depth > maxDepth {
		d.syntax("nested too deeply")
		return false
	}
	return true
}

// next moves to the next member or item of a container, past the comma. It
// answers false after the closing byte.
func (d *decoder) next(closing byte) bool {
	if d.bad != nil {
		return false
	}
	c := d.peek()
	switch {
	case d.bad != nil:
		return false
	case c == closing:
		d.pos++
		d.depth--
		d.first = false
		return false
	case d.first:
		d.first = false
		return true
	case c != ',':
		d.syntax("comma expected")
		return false
	}
	d.pos++
	if c = d.peek(); c == closing {
		d.syntax("value expected")
	}
	return d.bad == nil
}

// BeginStruct implements api.Decoder.
func (d *decoder) BeginStruct() bool { return d.begin('{', "Expected null") }

// BeginMap implements api.Decoder.
func (d *decoder) BeginMap() bool { return d.begin('{', "Expected map or null") }

// BeginList implements api.Decoder.
func (d *decoder) BeginList() bool { return d.begin('[', "Expected list or null") }

func (d *decoder) begin(opening byte, scalar string) bool {
	if d.bad != nil {
		return false
	}
	c := d.peek()
	switch {
	case c == opening:
		return d.open()
	case c == 'n':
		d.literal("null")
		return false
	case c == '[' || c == '{':
		d.mismatch(startOf(c))
	default:
		d.mismatch(scalar)
	}
	return false
}

func startOf(c byte) string {
	if c == '[' {
		return "Start of list found where not expected"
	}
	return "Start of structure or map found where not expected."
}

// mismatch passes over the next value and remembers text if it is the first.
func (d *decoder) mismatch(text string) {
	d.Skip()
	if d.wrong == nil {
		d.wrong = &api.TypeError{Message: text}
	}
}

// NextMember implements api.Decoder.
func (d *decoder) NextMember() ([]byte, bool) {
	if !d.next('}') {
		return nil, false
	}
	if d.buf[d.pos] != '"' {
		d.syntax("member name expected")
		return nil, false
	}
	name, ok := d.text()
	if !ok {
		return nil, false
	}
	if d.peek() != ':' {
		d.syntax("colon expected")
		return nil, false
	}
	d.pos++
	return name, true
}

// NextItem implements api.Decoder.
func (d *decoder) NextItem() bool { return d.next(']') && d.count() }

func (d *decoder) count() bool {
	if d.items++; d.items > maxItems {
		d.syntax("too many items")
		return false
	}
	return true
}

// NextKey implements api.Decoder.
func (d *decoder) NextKey() (string, bool) {
	name, ok := d.NextMember()
	if !ok || !d.count() {
		return "", false
	}
	return string(name), true
}

// plain marks the bytes that stand for themselves inside a string and need no
// further look.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// text reads a string, which begins at pos. Escapes are resolved in place.
func (d *decoder) text() ([]byte, bool) {
	d.pos++
	start := d.pos
	if n := bytes.IndexByte(d.buf[start:], '"'); n >= 0 && simple(d.buf[start:start+n]) {
		d.pos = start + n + 1
		return d.buf[start : start+n : start+n], true
	}
	return d.unusualText(start)
}

// unusualText reads a string that has escapes or a mistake.
func (d *decoder) unusualText(start int) ([]byte, bool) {
	w := d.pos
	wide := false
	for d.pos < len(d.buf) {
		c := d.buf[d.pos]
		switch {
		case c == '"':
			d.pos++
			if s := d.buf[start:w:w]; !wide || utf8.Valid(s) {
				return s, true
			}
			d.syntax("string is not UTF-8")
			return nil, false
		case c == '\\':
			var r rune
			if r, d.pos = unescape(d.buf, d.pos); r < 0 {
				d.syntax("unknown escape")
				return nil, false
			}
			// An escape is never shorter than what it stands for.
			w += utf8.EncodeRune(d.buf[w:w+utf8.RuneLen(r)], r)
			continue
		case c < 0x20:
			d.syntax("control character in a string")
			return nil, false
		case c >= 0x80:
			wide = true
		}
		d.buf[w] = c
		w++
		d.pos++
	}
	d.syntax("unexpected end")
	return nil, false
}

// unescape reads the escape at buf[i] and gives the place behind it, or a
// negative rune. Halves of surrogate pairs on their own become U+FFFD.
func unescape(buf []byte, i int) (rune, int) {
	if i+1 >= len(buf) {
		return -1, i
	}
	switch c := buf[i+1]; c {
	case '"', '\\', '/':
		return rune(c), i + 2
	case 'b':
		return '\b', i + 2
	case 'f':
		return '\f', i + 2
	case 'n':
		return '\n', i + 2
	case 'r':
		return '\r', i + 2
	case 't':
		return '\t', i + 2
	case 'u':
		r := hex4(buf, i+2)
		if r < 0 {
			return -1, i
		}
		i += 6
		if utf16.IsSurrogate(r) {
			if i+1 < len(buf) && buf[i] == '\\' && buf[i+1] == 'u' {
				if pair := utf16.DecodeRune(r, hex4(buf, i+2)); pair != utf8.RuneError {
					return pair, i + 6
				}
			}
			return utf8.RuneError, i
		}
		return r, i
	}
	return -1, i
}

func hex4(buf []byte, i int) rune {
	if i+4 > len(buf) {
		return -1
	}
	var r rune
	for _, c := range buf[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// number reads a number, which begins at pos. whole says that it has neither
// fraction nor exponent.
func (d *decoder) number() (text []byte, whole, ok bool) {
	start, b, i := d.pos, d.buf, d.pos
	digits := func() bool {
		from := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case !digits():
		d.syntax("digit expected")
		return nil, false, false
	}
	whole = true
	if i < len(b) && b[i] == '.' {
		i++
		whole = false
		if !digits() {
			d.syntax("digit expected")
			return nil, false, false
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		whole = false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			d.syntax("digit expected")
			return nil, false, false
		}
	}
	d.pos = i
	return b[start:i], whole, true
}

// kind says what the next value is: one of `"`, `t` for booleans, `0` for
// numbers, `n`, `[`, `{`, and 0 for nothing that begins a value.
func (d *decoder) kind() byte {
	switch c := d.peek(); c {
	case '"', 'n', '[', '{', 't':
		return c
	case 'f':
		return 't'
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0'
	}
	return 0
}

// The names that the service has for what it found.
const (
	classString  = "class java.lang.String"
	classBoolean = "class java.lang.Boolean"
	classNumber  = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
)

// refuse deals with a value that is not what was wanted: null, or a mismatch
// whose text ends in target.
func (d *decoder) refuse(kind byte, target string) {
	switch kind {
	case 'n':
		d.literal("null")
	case '[', '{':
		d.mismatch(startOf(kind))
	case '"':
		d.mismatch(classString + target)
	case 't':
		d.mismatch(classBoolean + target)
	case '0':
		d.mismatch(classNumber + target)
	default:
		d.syntax("value expected")
	}
}

// String implements api.Decoder.
func (d *decoder) String() (string, bool) {
	if d.bad != nil {
		return "", false
	}
	k := d.kind()
	if k != '"' {
		d.refuse(k, " can not be converted to an String")
		return "", false
	}
	b, ok := d.text()
	if !ok {
		return "", false
	}
	if d.alias {
		return aliasString(b), true
	}
	return string(b), true
}

// Int32 implements api.Decoder.
func (d *decoder) Int32() (int32, bool) {
	n, ok := d.integer(" can not be converted to an Integer")
	return int32(min(max(n, math.MinInt32), math.MaxInt32)), ok
}

// Int64 implements api.Decoder.
func (d *decoder) Int64() (int64, bool) { return d.integer(" can not be converted to an Long") }

func (d *decoder) integer(target string) (int64, bool) {
	if d.bad != nil {
		return 0, false
	}
	if k := d.kind(); k != '0' {
		d.refuse(k, target)
		return 0, false
	}
	text, whole, ok := d.number()
	if !ok {
		return 0, false
	}
	return truncated(text, whole), true
}

// truncated gives a number without its fraction, clamped to 64 bits.
func truncated(text []byte, whole bool) int64 {
	if !whole {
		// Without an exponent the digits before the point are exact.
		full := text
		for i, c := range full {
			if c == '.' {
				text = full[:i]
			}
			if c == 'e' || c == 'E' {
				f, _ := strconv.ParseFloat(string(full), 64) // ±Inf when out of range
				switch {
				case f >= math.MaxInt64:
					return math.MaxInt64
				case f <= math.MinInt64:
					return math.MinInt64
				}
				return int64(f)
			}
		}
	}
	n, _ := strconv.ParseInt(string(text), 10, 64) // clamps
	return n
}

// Float64 implements api.Decoder.
func (d *decoder) Float64() (float64, bool) {
	if d.bad != nil {
		return 0, false
	}
	if k := d.kind(); k != '0' {
		d.refuse(k, " can not be converted to an Double")
		return 0, false
	}
	text, _, ok := d.number()
	if !ok {
		return 0, false
	}
	f, _ := strconv.ParseFloat(string(text), 64)
	return min(max(f, -math.MaxFloat64), math.MaxFloat64), true
}

// Bool implements api.Decoder.
func (d *decoder) Bool() (bool, bool) {
	if d.bad != nil {
		return false, false
	}
	switch k := d.kind(); {
	case k == 't' && d.buf[d.pos] == 't':
		return true, d.literal("true")
	case k == 't':
		return false, d.literal("false")
	case k == '"':
		s, ok := d.text()
		if ok && d.wrong == nil {
			d.wrong = &api.TypeError{Message: "'" + echo(s) + "' can not be converted to an Boolean"}
		}
	default:
		d.refuse(k, " can not be converted to an Boolean")
	}
	return false, false
}

// maxMillis bounds points in time, so that arithmetic on them cannot overflow.
const maxMillis = 1 << 53

// Time implements api.Decoder.
func (d *decoder) Time() (time.Time, bool) {
	if d.bad != nil {
		return time.Time{}, false
	}
	if k := d.kind(); k != '0' {
		d.refuse(k, " can not be converted to milliseconds since epoch")
		return time.Time{}, false
	}
	text, _, ok := d.number()
	if !ok {
		return time.Time{}, false
	}
	return time.UnixMilli(millis(text)).UTC(), true
}

// millis turns a number of seconds into whole milliseconds, exactly where the
// number is written without an exponent.
func millis(text []byte) int64 {
	var n int64
	i := 0
	if text[0] == '-' {
		i++
	}
	places := -1 // digits after the point, -1 before it
	for ; i < len(text) && places < 3; i++ {
		switch c := text[i]; {
		case c == '.':
			places = 0
		case c == 'e' || c == 'E':
			return floatMillis(text)
		default:
			if places >= 0 {
				places++
			}
			if n = n*10 + int64(c-'0'); n > 10*maxMillis {
				return floatMillis(text)
			}
		}
	}
	for ; i < len(text); i++ {
		if c := text[i]; c == 'e' || c == 'E' {
			return floatMillis(text)
		}
	}
	for places = max(places, 0); places < 3; places++ {
		n *= 10
	}
	if text[0] == '-' {
		n = -n
	}
	return min(max(n, -maxMillis), maxMillis)
}

func floatMillis(text []byte) int64 {
	f, _ := strconv.ParseFloat(string(text), 64)
	return int64(min(max(f*1000, -maxMillis), maxMillis))
}

// Blob implements api.Decoder.
func (d *decoder) Blob() ([]byte, bool) {
	if d.bad != nil {
		return nil, false
	}
	if k := d.kind(); k != '"' {
		d.refuse(k, " can not be converted to a Blob")
		return nil, false
	}
	src, ok := d.text()
	if !ok {
		return nil, false
	}
	dst := src
	if !d.alias {
		dst = make([]byte, len(src)/4*3)
	}
	n, err := decodeBase64(dst, src)
	if err != nil {
		if d.wrong == nil {
			d.wrong = err
		}
		return nil, false
	}
	return dst[:n:n], true
}

// Skip implements api.Decoder.
func (d *decoder) Skip() {
	// Bit i of stack is set if container i of those opened here is a structure.
	var stack uint64
	for open := 0; d.bad == nil; {
		switch k := d.kind(); k {
		case '"':
			d.text()
		case '0':
			d.number()
		case 'n':
			d.literal("null")
		case 't':
			if d.buf[d.pos] == 't' {
				d.literal("true")
			} else {
				d.literal("false")
			}
		case '[', '{':
			if !d.open() {
				return
			}
			stack <<= 1
			if k == '{' {
				stack |= 1
			}
			open++
		default:
			d.syntax("value expected")
			return
		}
		// Close what ends here and move to the next value.
		for {
			if open == 0 {
				return
			}
			more := false
			if stack&1 == 1 {
				_, more = d.NextMember()
			} else {
				more = d.next(']')
			}
			if more {
				break
			}
			if d.bad != nil {
				return
			}
			stack >>= 1
			open--
		}
	}
}

// echo shortens a value of the client's for an error text.
func echo(s []byte) string {
	if len(s) <= maxEcho {
		return string(s)
	}
	n := maxEcho
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return string(s[:n]) + "…"
}
