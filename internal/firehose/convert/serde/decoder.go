package serde

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

const (
	// maxKeyBytes bounds a key.
	maxKeyBytes = 262144
	// maxDepth bounds how deep values nest that no column has.
	maxDepth = 1000
	// maxValues bounds the values that a record becomes: nulls are not written,
	// so that few bytes can stand for many of them.
	maxValues = 1 << 22
	// What is remembered of a record's keys.
	maxPredicted    = 512
	maxPredictedKey = 128
)

// Decoder reads records of one table. It must not be used concurrently.
type Decoder struct {
	root       *node
	options    Options
	foldNames  bool // keys are compared in lower case
	foldKeys   bool // keys of maps are put in lower case
	strict     bool // Hive
	timestamps []joda

	data    []byte
	at      int
	values  int // of the record
	key     []byte
	text    []byte
	scanned number
}

// node reads the values of one column.
type node struct {
	t      *hive.Type
	kids   []*node
	fields map[string]int // members by key
	// seen are the keys of the object before, in their order.
	seen []seen
}

// seen is a key as it stood, and whose it was: -1 is nobody's.
type seen struct {
	raw   []byte
	field int
}

// New makes a decoder of records of a table with the given columns.
func New(fields []hive.Field, o Options) (*Decoder, error) {
	d := &Decoder{options: o, strict: o.Dialect == Hive}
	d.foldNames = d.strict || !o.CaseSensitive
	d.foldKeys = !d.strict && !o.CaseSensitive
	for _, f := range o.TimestampFormats {
		j, err := parseJoda(f)
		if err != nil {
			return nil, err
		}
		d.timestamps = append(d.timestamps, j)
	}
	keys := map[string]string{}
	if !d.strict {
		for column, key := range o.Keys {
			keys[strings.ToLower(column)] = key
		}
	}
	d.root = d.compile(&hive.Type{Kind: hive.Struct, Fields: fields}, keys)
	return d, nil
}

func (d *Decoder) compile(t *hive.Type, keys map[string]string) *node {
	n := &node{t: t}
	switch t.Kind {
	case hive.Array:
		n.kids = []*node{d.compile(t.Elem, keys)}
	case hive.Map:
		n.kids = []*node{d.compile(t.Key, keys), d.compile(t.Elem, keys)}
	case hive.Struct:
		n.fields = make(map[string]int, len(t.Fields))
		for i, f := range t.Fields {
			n.kids = append(n.kids, d.compile(f.Type, keys))
			name := f.Name
			if key, ok := keys[strings.ToLower(name)]; ok {
				name = key
			}
			if d.foldNames {
				name = strings.ToLower(name)
			}
			n.fields[name] = i
		}
	}
	return n
}

// Decode appends the rows of a record to b, which has the decoder's columns, and
// returns how many there are. On an error, which is an *Error, b is as before.
func (d *Decoder) Decode(data []byte, b *column.Batch) (rows int, err error) {
	before := b.Rows
	d.data, d.at, d.values = data, 0, 0
	for {
		d.space()
		if d.at == len(data) {
			if b.Rows > before {
				return b.Rows - before, nil
			}
			err = &Error{MalformedData, "The record was empty or contained only whitespace."}
			break
		}
		if err = d.row(b); err != nil {
			break
		}
		b.EndRow()
	}
	b.Truncate(before)
	return 0, err
}

func (d *Decoder) row(b *column.Batch) error {
	switch d.data[d.at] {
	case '{':
		return d.object(d.root, b.Columns, b.Rows)
	case '[':
		if err := d.skip(0); err != nil {
			return err
		}
		return mismatch("The top level is a JSON array, not an object")
	}
	if err := d.skip(0); err != nil {
		return err
	}
	return &Error{MalformedData, "The input JSON contained a primitive at the top level. The top level must be an object or array."}
}

// wrong is the error of the byte that stands where it cannot.
func (d *Decoder) wrong() error {
	const prefix = "Encountered malformed JSON. "
	if d.at >= len(d.data) {
		return &Error{ParseError, fmt.Sprintf(prefix+"Unexpected end-of-input at offset %d", len(d.data))}
	}
	c := d.data[d.at]
	switch {
	case c < 0x20 || c == 0x7f:
		return &Error{ParseError, fmt.Sprintf(prefix+"Illegal character ((CTRL-CHAR, code %d)) at offset %d", c, d.at)}
	case c >= 0x80:
		r, size := utf8.DecodeRune(d.data[d.at:])
		if r == utf8.RuneError && size == 1 {
			return &Error{ParseError, fmt.Sprintf(prefix+"Invalid UTF-8 byte 0x%02x at offset %d", c, d.at)}
		}
		return &Error{ParseError, fmt.Sprintf(prefix+"Unexpected character ('%c' (code %d / 0x%x)) at offset %d", r, r, r, d.at)}
	}
	return &Error{ParseError, fmt.Sprintf(prefix+"Unexpected character ('%c' (code %d)) at offset %d", c, c, d.at)}
}

func (d *Decoder) space() {
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// peek is the next byte behind white space, 0 at the end.
func (d *Decoder) peek() byte {
	if d.at < len(d.data) {
		if c := d.data[d.at]; c > ' ' {
			return c
		}
	}
	d.space()
	if d.at == len(d.data) {
		return 0
	}
	return d.data[d.at]
}

// object reads the members of an object into columns that have row values each.
// Members that are not there stay without a value.
func (d *Decoder) object(n *node, columns []*column.Column, row int) error {
	if d.values += len(columns); d.values > maxValues {
		return mismatch("The record has more than %d values", maxValues)
	}
	d.at++ // {
	if d.peek() == '}' {
		d.at++
		return nil
	}
	for i := 0; ; i++ {
		if d.peek() != '"' {
			return d.wrong()
		}
		field, err := d.member(n, i)
		if err != nil {
			return err
		}
		if d.peek() != ':' {
			return d.wrong()
		}
		d.at++
		d.peek()
		if field < 0 {
			err = d.skip(0)
		} else {
			c := columns[field]
			if c.Len() > row {
				c.Truncate(row) // the key came before
			}
			err = d.value(n.kids[field], c)
		}
		if err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.at++
		case '}':
			d.at++
			return nil
		default:
			return d.wrong()
		}
	}
}

// member reads the key at the i-th place of an object and finds whose it is.
func (d *Decoder) member(n *node, i int) (field int, err error) {
	rest := d.data[d.at+1:]
	if i < len(n.seen) {
		s := &n.seen[i]
		if len(rest) > len(s.raw) && rest[len(s.raw)] == '"' && bytes.Equal(rest[:len(s.raw)], s.raw) {
			d.at += len(s.raw) + 2
			return s.field, nil
		}
	}
	raw, escaped, err := d.quoted()
	if err != nil {
		return 0, err
	}
	if len(raw) > maxKeyBytes {
		return 0, mismatch("A key has more than %d bytes", maxKeyBytes)
	}
	key := raw
	if escaped {
		d.key = unescape(d.key[:0], raw)
		key = d.key
	}
	field = d.find(n, key)
	if escaped || len(raw) > maxPredictedKey || i > len(n.seen) || i >= maxPredicted {
		return field, nil
	}
	if i == len(n.seen) {
		n.seen = append(n.seen, seen{})
	}
	n.seen[i].raw, n.seen[i].field = append(n.seen[i].raw[:0], raw...), field
	return field, nil
}

func (d *Decoder) find(n *node, key []byte) int {
	if d.foldNames {
		d.text = appendLower(d.text[:0], key)
		key = d.text
	}
	if field, ok := n.fields[string(key)]; ok {
		return field
	}
	if d.options.DotsToUnderscores && bytes.IndexByte(key, '.') >= 0 {
		if field, ok := n.fields[string(bytes.ReplaceAll(key, []byte{'.'}, []byte{'_'}))]; ok {
			return field
		}
	}
	return -1
}

func appendLower(dst, s []byte) []byte {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return append(dst[:0], bytes.ToLower(s)...)
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// value reads one value into c. White space before it is skipped already.
func (d *Decoder) value(n *node, c *column.Column) error {
	if d.at == len(d.data) {
		return d.wrong()
	}
	if d.data[d.at] == 'n' {
		if err := d.literal("null"); err != nil {
			return err
		}
		c.AppendNull()
		return nil
	}
	switch n.t.Kind {
	case hive.String, hive.Char, hive.Varchar:
		return d.textValue(n.t, c)
	case hive.TinyInt, hive.SmallInt, hive.Int, hive.BigInt, hive.Float, hive.Double, hive.Decimal:
		return d.numberValue(n.t, c)
	case hive.Boolean:
		return d.boolean(c)
	case hive.Timestamp:
		return d.timestamp(c)
	case hive.Date:
		return d.date(c)
	case hive.Binary:
		return d.binary(c)
	case hive.Array:
		return d.array(n, c)
	case hive.Map:
		return d.mapping(n, c)
	}
	return d.structure(n, c)
}

func (d *Decoder) literal(word string) error {
	rest := d.data[d.at:]
	if len(rest) >= len(word) && string(rest[:len(word)]) == word {
		d.at += len(word)
		if d.at < len(d.data) && wordByte(d.data[d.at]) {
			return d.wrong()
		}
		return nil
	}
	for i := range word {
		if i >= len(rest) || rest[i] != word[i] {
			break
		}
		d.at++
	}
	return d.wrong()
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// described is the value at hand as the service's messages put it: its class in
// Java, and its text. The value is skipped.
func (d *Decoder) described() (class, text string, err error) {
	start := d.at
	c := d.data[start]
	if err := d.skip(0); err != nil {
		return "", "", err
	}
	text = shown(d.data[start:d.at])
	switch {
	case c == '"':
		raw := d.data[start+1 : d.at-1]
		return "java.lang.String", shown(unescape(nil, raw)), nil
	case c == 't' || c == 'f':
		return "java.lang.Boolean", text, nil
	case c == '{':
		return "JSONObject", text, nil
	case c == '[':
		return "JSONArray", text, nil
	case strings.ContainsAny(text, ".eE"):
		return "java.lang.Double", text, nil
	}
	return "java.lang.Long", text, nil
}

// notObject is the error of the value at hand, where an object is needed.
func (d *Decoder) notObject() error {
	class, text, err := d.described()
	if err != nil {
		return err
	}
	if d.strict {
		return mismatch("java.io.IOException: Start of Object expected")
	}
	return mismatch("Data is not JSONObject  but %s with value %s", class, text)
}

// notParsed is the error of the value at hand, where a text is needed that can be
// read as something.
func (d *Decoder) notParsed() error {
	_, text, err := d.described()
	if err != nil {
		return err
	}
	return mismatch("For input string: %q", text)
}

func (d *Decoder) structure(n *node, c *column.Column) error {
	row := c.Len()
	switch {
	case d.data[d.at] == '{':
		if err := d.object(n, c.Children, row); err != nil {
			return err
		}
	case d.data[d.at] == '[' && !d.strict:
		if err := d.positions(n, c, row); err != nil {
			return err
		}
	default:
		return d.notObject()
	}
	for _, child := range c.Children {
		if child.Len() == row {
			child.AppendNull()
		}
	}
	c.EndStruct()
	return nil
}

// positions reads an array as the members of a structure, in their order.
func (d *Decoder) positions(n *node, c *column.Column, row int) error {
	if d.values += len(n.kids); d.values > maxValues {
		return mismatch("The record has more than %d values", maxValues)
	}
	return d.elements(func(i int) error {
		if i < len(n.kids) {
			return d.value(n.kids[i], c.Children[i])
		}
		return d.skip(0)
	})
}

// elements calls f before each element of an array.
func (d *Decoder) elements(f func(i int) error) error {
	d.at++ // [
	if d.peek() == ']' {
		d.at++
		return nil
	}
	for i := 0; ; i++ {
		if d.peek() == 0 {
			return d.wrong()
		}
		if err := f(i); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.at++
		case ']':
			d.at++
			return nil
		default:
			return d.wrong()
		}
	}
}

func (d *Decoder) array(n *node, c *column.Column) error {
	kid, child := n.kids[0], c.Children[0]
	if d.data[d.at] != '[' {
		if d.strict {
			if err := d.skip(0); err != nil {
				return err
			}
			return mismatch("java.io.IOException: Start of Array expected")
		}
		if err := d.value(kid, child); err != nil {
			return err
		}
		c.EndList()
		return nil
	}
	// The same as elements, without a function: arrays of numbers are hot.
	d.at++
	if d.peek() == ']' {
		d.at++
		c.EndList()
		return nil
	}
	for {
		if d.peek() == 0 {
			return d.wrong()
		}
		if err := d.value(kid, child); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.at++
		case ']':
			d.at++
			c.EndList()
			return nil
		default:
			return d.wrong()
		}
	}
}

func (d *Decoder) mapping(n *node, c *column.Column) error {
	if d.data[d.at] != '{' {
		if d.data[d.at] == '[' && !d.strict {
			if err := d.skip(0); err != nil {
				return err
			}
			return mismatch("A map column cannot hold a JSON array.")
		}
		return d.notObject()
	}
	keys, values := c.Children[0], c.Children[1]
	first := keys.Len()
	d.at++
	if d.peek() == '}' {
		d.at++
		c.EndList()
		return nil
	}
	for {
		if d.peek() != '"' {
			return d.wrong()
		}
		if err := d.mapKey(n.t.Key, keys); err != nil {
			return err
		}
		if d.peek() != ':' {
			return d.wrong()
		}
		d.at++
		d.peek()
		if err := d.value(n.kids[1], values); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.at++
		case '}':
			d.at++
			dropRepeated(keys, values, first)
			c.EndList()
			return nil
		default:
			return d.wrong()
		}
	}
}

// mapKey reads the key of a map's entry.
func (d *Decoder) mapKey(t *hive.Type, c *column.Column) error {
	raw, escaped, err := d.quoted()
	if err != nil {
		return err
	}
	if len(raw) > maxKeyBytes {
		return mismatch("A key has more than %d bytes", maxKeyBytes)
	}
	if escaped {
		d.key = unescape(d.key[:0], raw)
		raw = d.key
	}
	if d.foldKeys {
		d.text = appendLower(d.text[:0], raw)
		raw = d.text
	}
	switch t.Kind {
	case hive.String, hive.Char, hive.Varchar:
		c.AppendBytes(cut(t, raw))
		return nil
	case hive.Boolean:
		return appendBoolean(c, raw)
	case hive.Date:
		return appendDate(c, raw)
	case hive.Timestamp:
		return d.appendTimestamp(c, raw)
	case hive.Binary:
		return appendBase64(c, raw)
	}
	return appendNumberText(t, c, raw)
}

// dropRepeated keeps the last entry of every key of a map whose entries begin at
// first: readers take keys to be different.
func dropRepeated(keys, values *column.Column, first int) {
	n := keys.Len() - first
	if n < 2 {
		return
	}
	last := map[string]int{}
	if n <= 16 {
		repeated := false
		for i := first + 1; i < first+n && !repeated; i++ {
			for j := first; j < i; j++ {
				repeated = repeated || keys.Equal(i, j)
			}
		}
		if !repeated {
			return
		}
	}
	for i := first; i < first+n; i++ {
		last[string(keys.Image(i))] = i
	}
	if len(last) == n {
		return
	}
	k, v := column.New(keys.Type), column.New(values.Type)
	for i := first; i < first+n; i++ {
		if last[string(keys.Image(i))] == i {
			k.AppendFrom(keys, i)
			v.AppendFrom(values, i)
		}
	}
	keys.Truncate(first)
	values.Truncate(first)
	for i := range k.Len() {
		keys.AppendFrom(k, i)
		values.AppendFrom(v, i)
	}
}

// textValue reads any value as characters.
func (d *Decoder) textValue(t *hive.Type, c *column.Column) error {
	switch d.data[d.at] {
	case '"':
		raw, escaped, err := d.quoted()
		if err != nil {
			return err
		}
		if t.Kind == hive.String {
			if escaped {
				c.Data = unescape(c.Data, raw)
			} else {
				c.Data = append(c.Data, raw...)
			}
			c.EndBytes()
			return nil
		}
		if escaped {
			d.text = unescape(d.text[:0], raw)
			raw = d.text
		}
		c.AppendBytes(cut(t, raw))
		return nil
	case '{', '[':
		if d.strict {
			if err := d.skip(0); err != nil {
				return err
			}
			return errText
		}
		var err error
		if d.text, err = d.compact(d.text[:0], 0); err != nil {
			return err
		}
		c.AppendBytes(cut(t, d.text))
		return nil
	}
	start := d.at
	if err := d.skip(0); err != nil {
		return err
	}
	c.AppendBytes(cut(t, d.data[start:d.at]))
	return nil
}

// cut keeps as many characters as the type has room for.
func cut(t *hive.Type, s []byte) []byte {
	if t.Kind == hive.String || len(s) <= t.Length {
		return s
	}
	n := 0
	for at := range string(s) {
		if n == t.Length {
			return s[:at]
		}
		n++
	}
	return s
}

func (d *Decoder) boolean(c *column.Column) error {
	switch d.data[d.at] {
	case 't':
		if err := d.literal("true"); err != nil {
			return err
		}
		c.AppendInt(1)
		return nil
	case 'f':
		if err := d.literal("false"); err != nil {
			return err
		}
		c.AppendInt(0)
		return nil
	case '"':
		raw, err := d.content()
		if err != nil {
			return err
		}
		if d.strict {
			return mismatch("Current token (VALUE_STRING) not of boolean type")
		}
		return appendBoolean(c, raw)
	}
	return d.notParsed()
}

func appendBoolean(c *column.Column, s []byte) error {
	switch {
	case bytes.EqualFold(s, []byte("true")):
		c.AppendInt(1)
	case bytes.EqualFold(s, []byte("false")):
		c.AppendInt(0)
	default:
		return mismatch("For input string: %q", shown(s))
	}
	return nil
}

// content is the text of the string at hand.
func (d *Decoder) content() ([]byte, error) {
	raw, escaped, err := d.quoted()
	if err != nil {
		return nil, err
	}
	if escaped {
		d.text = unescape(d.text[:0], raw)
		raw = d.text
	}
	return raw, nil
}

func (d *Decoder) binary(c *column.Column) error {
	if d.data[d.at] != '"' {
		return d.notParsed()
	}
	raw, err := d.content()
	if err != nil {
		return err
	}
	return appendBase64(c, raw)
}

func appendBase64(c *column.Column, s []byte) error {
	// The decoder passes over line breaks, as MIME has them.
	data, err := base64.StdEncoding.AppendDecode(c.Data, s)
	if err != nil {
		return mismatch("A binary value is not base64: %s", strings.TrimPrefix(err.Error(), "illegal "))
	}
	c.Data = data
	c.EndBytes()
	return nil
}
