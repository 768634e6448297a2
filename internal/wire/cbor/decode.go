// Package cbor reads and writes generated shapes in the binary form of the AWS
// JSON 1.1 protocol, which Java clients use by default: CBOR maps with the
// members' names as keys and blobs as raw byte strings.
//
// The one deviation from RFC 8949 is what the clients depend on: a point in time
// is tag 1 with an integer number of milliseconds, not seconds.
//
// The one idea is that of awsjson: a single pass without reflection, driven by
// generated types. Byte and text strings of PutRecord and PutRecords point into
// the body, so a record is not copied at all. The package knows no HTTP. Start
// reading at Unmarshal and Append.
package cbor

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

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
	// maxMillis bounds points in time, so that arithmetic on them cannot overflow.
	maxMillis = 1 << 53
)

// Major types, in the place they have in an item's first byte.
const (
	majorUint  = 0 << 5
	majorNint  = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
	majorTag   = 6 << 5
	majorOther = 7 << 5
)

const (
	simpleFalse     = majorOther | 20
	simpleTrue      = majorOther | 21
	simpleNull      = majorOther | 22
	simpleUndefined = majorOther | 23
	floatHalf       = majorOther | 25
	floatSingle     = majorOther | 26
	floatDouble     = majorOther | 27
	indefinite      = 31
	breakByte       = majorOther | indefinite
)

// Unmarshal reads body, which must be one CBOR map, into v. The error is a
// *api.SyntaxError if the body is malformed anywhere, else a *api.TypeError for
// the first member of a wrong type. body may be modified; strings and blobs of
// shapes marked with api.RequestAlias point into it, others own their memory.
func Unmarshal(body []byte, v api.Shape) error {
	if done := scan(body, v); done {
		return nil
	}
	return unmarshal(body, v)
}

// unmarshal is Unmarshal without the scanner.
func unmarshal(body []byte, v api.Shape) error {
	d := decoder{buf: body}
	_, d.alias = v.(api.RequestAlias)
	if d.kind()&0xe0 != majorMap {
		d.syntax("not a map")
		return d.Err()
	}
	if err := v.DecodeFrom(&d); d.bad != nil {
		return err
	}
	if d.pos != len(d.buf) {
		d.syntax("data after the map")
	}
	return d.Err()
}

// decoder implements api.Decoder.
type decoder struct {
	buf   []byte
	pos   int
	depth int
	items int
	alias bool // strings and blobs may point into buf
	bad   *api.SyntaxError
	wrong *api.TypeError
	// rest is how many items or pairs the open containers still hold, -1 for
	// those that end with a break.
	rest [maxDepth + 1]int64
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

func (d *decoder) syntax(reason string) {
	if d.bad == nil {
		d.bad = &api.SyntaxError{Offset: d.pos, Reason: reason}
	}
	d.pos = len(d.buf)
}

// kind gives the first byte of the next item, past any tags: they say how to look
// at a value, never what it is.
func (d *decoder) kind() byte {
	for d.pos < len(d.buf) {
		c := d.buf[d.pos]
		if c&0xe0 != majorTag {
			return c
		}
		if _, open, ok := d.head(); !ok || open {
			d.syntax("malformed tag")
		}
	}
	d.syntax("unexpected end")
	return breakByte
}

// head reads an item's first byte and its argument. open means indefinite length.
func (d *decoder) head() (arg uint64, open, ok bool) {
	b := d.buf[d.pos:]
	switch info := b[0] & 31; {
	case info < 24:
		d.pos++
		return uint64(info), false, true
	case info == 24 && len(b) >= 2:
		d.pos += 2
		return uint64(b[1]), false, true
	case info == 25 && len(b) >= 3:
		d.pos += 3
		return uint64(binary.BigEndian.Uint16(b[1:])), false, true
	case info == 26 && len(b) >= 5:
		d.pos += 5
		return uint64(binary.BigEndian.Uint32(b[1:])), false, true
	case info == 27 && len(b) >= 9:
		d.pos += 9
		return binary.BigEndian.Uint64(b[1:]), false, true
	case info == indefinite:
		d.pos++
		return 0, true, true
	}
	d.syntax("malformed item")
	return 0, false, false
}

func isNull(c byte) bool { return c == simpleNull || c == simpleUndefined }

// Null implements api.Decoder.
func (d *decoder) Null() bool {
	if d.bad != nil || !isNull(d.kind()) {
		return false
	}
	d.pos++
	return true
}

// open enters a container whose first byte is next.
func (d *decoder) open() bool {
	n, open, ok := d.head()
	if !ok {
		return false
	}
	if d.depth++; d.depth > maxDepth {
		d.syntax("nested too deeply")
		return false
	}
	if n > uint64(len(d.buf)-d.pos) {
		d.syntax("more items than bytes")
		return false
	}
	d.rest[d.depth] = int64(n)
	if open {
		d.rest[d.depth] = -1
	}
	return true
}

// next reports whether the innermost container has another item, and leaves the
// container if not.
func (d *decoder) next() bool {
	if d.bad != nil {
		return false
	}
	switch rest := &d.rest[d.depth]; {
	case *rest > 0:
		*rest--
		return true
	case *rest < 0 && d.pos >= len(d.buf):
		d.syntax("unexpected end")
		return false
	case *rest < 0 && d.buf[d.pos] != breakByte:
		return true
	case *rest < 0:
		d.pos++
	}
	d.depth--
	return false
}

// BeginStruct implements api.Decoder.
func (d *decoder) BeginStruct() bool { return d.begin(majorMap, "Expected null") }

// BeginMap implements api.Decoder.
func (d *decoder) BeginMap() bool { return d.begin(majorMap, "Expected map or null") }

// BeginList implements api.Decoder.
func (d *decoder) BeginList() bool { return d.begin(majorArray, "Expected list or null") }

func (d *decoder) begin(major byte, scalar string) bool {
	if d.bad != nil {
		return false
	}
	c := d.kind()
	switch {
	case d.bad != nil:
	case c&0xe0 == major:
		return d.open()
	case isNull(c):
		d.pos++
	case c&0xe0 == majorArray || c&0xe0 == majorMap:
		d.mismatch(startOf(c))
	default:
		d.mismatch(scalar)
	}
	return false
}

func startOf(c byte) string {
	if c&0xe0 == majorArray {
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
	if !d.next() {
		return nil, false
	}
	if d.kind()&0xe0 != majorText {
		d.syntax("key is not a text string")
		return nil, false
	}
	return d.text()
}

// NextItem implements api.Decoder.
func (d *decoder) NextItem() bool { return d.next() && d.count() }

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

// text reads the text string that is next.
func (d *decoder) text() ([]byte, bool) {
	b, ok := d.bytes(majorText)
	if ok && !utf8.Valid(b) {
		d.syntax("text is not UTF-8")
		return nil, false
	}
	return b, ok
}

// bytes reads the byte or text string that is next. Chunks are joined in place.
func (d *decoder) bytes(major byte) ([]byte, bool) {
	n, open, ok := d.head()
	if !ok {
		return nil, false
	}
	if !open {
		return d.take(n)
	}
	start, w := d.pos, d.pos
	for {
		if d.pos >= len(d.buf) {
			d.syntax("unexpected end")
			return nil, false
		}
		if d.buf[d.pos] == breakByte {
			d.pos++
			return d.buf[start:w:w], true
		}
		if d.buf[d.pos]&0xe0 != major {
			d.syntax("chunk of another type")
			return nil, false
		}
		n, open, ok := d.head()
		if !ok || open {
			d.syntax("chunk without length")
			return nil, false
		}
		chunk, ok := d.take(n)
		if !ok {
			return nil, false
		}
		w += copy(d.buf[w:], chunk)
	}
}

func (d *decoder) take(n uint64) ([]byte, bool) {
	if n > uint64(len(d.buf)-d.pos) {
		d.syntax("string longer than the body")
		return nil, false
	}
	start := d.pos
	d.pos += int(n)
	return d.buf[start:d.pos:d.pos], true
}

// refuse deals with a value that is not what was wanted: null, or a mismatch
// whose text ends in target.
func (d *decoder) refuse(c byte, target string) {
	class := ""
	switch c & 0xe0 {
	case majorUint, majorNint:
		class = "class java.lang.Long"
	case majorBytes:
		class = "class java.nio.HeapByteBuffer"
	case majorText:
		class = "class java.lang.String"
	case majorArray, majorMap:
		d.mismatch(startOf(c))
		return
	default:
		switch c {
		case simpleNull, simpleUndefined:
			d.pos++
			return
		case simpleFalse, simpleTrue:
			class = "class java.lang.Boolean"
		case floatHalf, floatSingle, floatDouble:
			class = "class java.lang.Double"
		default:
			class = "class java.lang.Object"
		}
	}
	d.mismatch(class + target)
}

// String implements api.Decoder.
func (d *decoder) String() (string, bool) {
	if d.bad != nil {
		return "", false
	}
	if c := d.kind(); c&0xe0 != majorText {
		d.refuse(c, " can not be converted to an String")
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

func aliasString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Blob implements api.Decoder.
func (d *decoder) Blob() ([]byte, bool) {
	if d.bad != nil {
		return nil, false
	}
	if c := d.kind(); c&0xe0 != majorBytes {
		d.refuse(c, " can not be converted to a Blob")
		return nil, false
	}
	b, ok := d.bytes(majorBytes)
	if !ok {
		return nil, false
	}
	if d.alias {
		return b, true
	}
	return append([]byte{}, b...), true
}

// number reads any number; whole says that n holds it, otherwise f does.
func (d *decoder) number(target string) (n int64, f float64, whole, ok bool) {
	if d.bad != nil {
		return 0, 0, false, false
	}
	c := d.kind()
	switch {
	case c&0xe0 == majorUint || c&0xe0 == majorNint:
		arg, open, ok := d.head()
		if !ok || open {
			d.syntax("malformed number")
			return 0, 0, false, false
		}
		n = int64(min(arg, math.MaxInt64))
		if c&0xe0 == majorNint {
			n = ^n
		}
		return n, 0, true, true
	case c == floatHalf || c == floatSingle || c == floatDouble:
		arg, _, ok := d.head()
		switch c {
		case floatHalf:
			f = half(uint16(arg))
		case floatSingle:
			f = float64(math.Float32frombits(uint32(arg)))
		default:
			f = math.Float64frombits(arg)
		}
		return 0, f, false, ok
	}
	d.refuse(c, target)
	return 0, 0, false, false
}

// half reads a half-precision number.
func half(h uint16) float64 {
	exp, frac := int(h>>10&31), float64(h&0x3ff)
	var f float64
	switch exp {
	case 0:
		f = math.Ldexp(frac, -24)
	case 31:
		f = math.Inf(1)
		if frac != 0 {
			return math.NaN()
		}
	default:
		f = math.Ldexp(frac+1024, exp-25)
	}
	if h>>15 == 1 {
		f = -f
	}
	return f
}

// truncate drops the fraction and clamps to 64 bits; NaN gives 0.
func truncate(f float64) int64 {
	switch {
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	case math.IsNaN(f):
		return 0
	}
	return int64(f)
}

// Int32 implements api.Decoder.
func (d *decoder) Int32() (int32, bool) {
	n, ok := d.integer(" can not be converted to an Integer")
	return int32(min(max(n, math.MinInt32), math.MaxInt32)), ok
}

// Int64 implements api.Decoder.
func (d *decoder) Int64() (int64, bool) { return d.integer(" can not be converted to an Long") }

func (d *decoder) integer(target string) (int64, bool) {
	n, f, whole, ok := d.number(target)
	if ok && !whole {
		n = truncate(f)
	}
	return n, ok
}

// Float64 implements api.Decoder.
func (d *decoder) Float64() (float64, bool) {
	n, f, whole, ok := d.number(" can not be converted to an Double")
	if whole {
		f = float64(n)
	}
	return f, ok
}

// Bool implements api.Decoder.
func (d *decoder) Bool() (bool, bool) {
	if d.bad != nil {
		return false, false
	}
	switch c := d.kind(); {
	case c == simpleTrue || c == simpleFalse:
		d.pos++
		return c == simpleTrue, true
	case c&0xe0 == majorText:
		s, ok := d.text()
		if ok && d.wrong == nil {
			d.wrong = &api.TypeError{Message: "'" + echo(s) + "' can not be converted to an Boolean"}
		}
	default:
		d.refuse(c, " can not be converted to an Boolean")
	}
	return false, false
}

// Time implements api.Decoder. Integers are milliseconds, with or without their
// tag. Floating-point numbers come from clients that follow RFC 8949 and are
// seconds, unless that would be thousands of years from now.
func (d *decoder) Time() (time.Time, bool) {
	n, f, whole, ok := d.number(" can not be converted to milliseconds since epoch")
	if !ok {
		return time.Time{}, false
	}
	if !whole {
		const farthestSecond = 1e11
		if math.Abs(f) < farthestSecond {
			f *= 1000
		}
		n = truncate(f)
	}
	return time.UnixMilli(min(max(n, -maxMillis), maxMillis)).UTC(), true
}

// Skip implements api.Decoder.
func (d *decoder) Skip() {
	if d.bad != nil {
		return
	}
	switch c := d.kind(); c & 0xe0 {
	case majorUint, majorNint:
		if _, open, ok := d.head(); ok && open {
			d.syntax("malformed number")
		}
	case majorBytes:
		d.bytes(majorBytes)
	case majorText:
		d.text()
	case majorArray:
		if d.open() {
			for d.next() {
				d.Skip()
			}
		}
	case majorMap:
		if d.open() {
			for d.next() {
				d.Skip() // keys of members that are passed over may be anything
				d.Skip()
			}
		}
	default:
		if c == breakByte {
			d.syntax("value expected")
			return
		}
		if arg, _, ok := d.head(); ok && c == majorOther|24 && arg < 32 {
			d.syntax("malformed simple value")
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
	return string(s[:n]) + "… (" + strconv.Itoa(len(s)) + " bytes)"
}
