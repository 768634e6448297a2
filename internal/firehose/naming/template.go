package naming

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/record"
)

// MaxEvaluated bounds an evaluated prefix, in characters.
const MaxEvaluated = 512

// randomLength is how long a random string is, in characters.
const randomLength = 11

// The namespaces of expressions.
const (
	NamespaceTimestamp = "timestamp"
	NamespaceFirehose  = "firehose"
	NamespaceQuery     = "partitionKeyFromQuery"
	NamespaceFunction  = "partitionKeyFromLambda"
)

// defaultDate is what the service adds where it adds a date.
const defaultDate = "yyyy/MM/dd/HH/"

// Options say what a prefix may contain.
type Options struct {
	// Error says that it is an ErrorOutputPrefix.
	Error bool
	// Partitioning says that dynamic partitioning is enabled.
	Partitioning bool
	// Location is the time zone of timestamps; nil is UTC.
	Location *time.Location
}

// Values are what a prefix is evaluated with.
type Values struct {
	// At is the arrival of the oldest record of the object.
	At time.Time
	// ErrorType is the error output's type: "processing-failed" and so on.
	ErrorType string
	// Keys are the partition's.
	Keys *record.Keys
	// ID is the object's: random strings follow from it. Empty makes them new
	// each time.
	ID string
}

// KeyError says that a record has no value for a partition key.
type KeyError struct{ Namespace, Key string }

func (e *KeyError) Error() string {
	return fmt.Sprintf("partition key %s of namespace %s is missing, null or empty", e.Key, e.Namespace)
}

// LengthError says that an evaluated prefix is too long.
type LengthError struct {
	Of     string // "prefix" or "ErrorOutputPrefix"
	Length int    // in characters
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("Length of evaluated %s cannot be greater than %d", e.Of, MaxEvaluated)
}

type partKind uint8

const (
	partLiteral partKind = iota
	partTimestamp
	partRandom
	partErrorType
	partQuery
	partFunction
)

type part struct {
	kind    partKind
	text    string // the literal, the key, or the expression as written
	pattern pattern
}

// Template is a compiled prefix. It is immutable.
type Template struct {
	text        string
	error       bool
	location    *time.Location
	parts       []part
	expressions bool
	// span is the length of everything but partition keys where timestamps are
	// at their longest, in characters.
	span int
}

// ParsePrefix compiles a prefix by itself. A text without expressions gets the
// date appended, and in an ErrorOutputPrefix the error type before it. Errors
// are in the words of the service. Rules about a pair of prefixes are those of
// Prefix.
func ParsePrefix(text string, o Options) (*Template, error) {
	t := &Template{text: text, error: o.Error, location: o.Location}
	if t.location == nil {
		t.location = time.UTC
	}
	if err := t.parse(text, o); err != nil {
		return nil, err
	}
	if !t.expressions {
		if o.Error {
			t.add(part{kind: partErrorType}, part{kind: partLiteral, text: "/"})
		}
		t.addDate()
	}
	if o.Error && t.expressions && !t.has(partErrorType) {
		return nil, errors.New("!{firehose:error-output-type} must be included in ErrorOutputPrefix when it contains expressions")
	}
	// Partition keys are not known yet and count as nothing; the error type
	// counts as the longest one.
	t.span = utf8.RuneCount(t.appendParts(nil, &Values{At: longestInstant(t.location), ErrorType: longestErrorType}, false))
	if t.span > MaxEvaluated {
		return nil, t.tooLong(t.span)
	}
	return t, nil
}

const longestErrorType = "AmazonOpenSearchService-failed"

// longestInstant is one whose names are long: a Wednesday in September.
func longestInstant(location *time.Location) time.Time {
	return time.Date(2026, time.September, 30, 15, 59, 59, 999_999_999, location)
}

func (t *Template) add(parts ...part) { t.parts = append(t.parts, parts...) }

func (t *Template) addDate() {
	p, err := parsePattern(defaultDate)
	if err != nil {
		panic("naming: " + err.Error())
	}
	t.add(part{kind: partTimestamp, text: defaultDate, pattern: p})
}

func (t *Template) has(kind partKind) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.kind == kind })
}

func (t *Template) parse(text string, o Options) error {
	for text != "" {
		literal, rest, found := strings.Cut(text, "!{")
		if literal != "" {
			t.add(part{kind: partLiteral, text: literal})
		}
		if !found {
			return nil
		}
		body, after, closed := strings.Cut(rest, "}")
		namespace, value, colon := strings.Cut(body, ":")
		if !closed || !colon || namespace == "" || value == "" || strings.Contains(body, "!{") {
			return fmt.Errorf("Invalid expression usage: %s", clip("!{"+body))
		}
		p, err := parseExpression(namespace, value, o)
		if err != nil {
			return err
		}
		if p.kind != partTimestamp {
			p.text = value
		} else {
			p.text = "!{" + body + "}"
		}
		t.add(p)
		t.expressions = true
		text = after
	}
	return nil
}

// clip keeps texts of users short enough for a message.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= 100 {
		return s
	}
	return string([]rune(s)[:100]) + "…"
}

func parseExpression(namespace, value string, o Options) (part, error) {
	const badValue = "Invalid conversion character used in the value of the expression"
	switch namespace {
	case NamespaceTimestamp:
		p, err := parsePattern(value)
		if err != nil {
			return part{}, fmt.Errorf("%s: !{timestamp:%s}: %w", badValue, clip(value), err)
		}
		return part{kind: partTimestamp, pattern: p}, nil
	case NamespaceFirehose:
		switch value {
		case "random-string":
			return part{kind: partRandom}, nil
		case "error-output-type":
			if !o.Error {
				return part{}, errors.New("Prefix must not contain any occurrence of !{firehose:error-output-type}")
			}
			return part{kind: partErrorType}, nil
		}
		return part{}, fmt.Errorf("%s: !{firehose:%s}", badValue, clip(value))
	case NamespaceQuery, NamespaceFunction:
		if o.Error {
			return part{}, fmt.Errorf("ErrorOutputPrefix must not contain any occurrence of the namespace %s", namespace)
		}
		if !o.Partitioning {
			return part{}, fmt.Errorf("%s namespace can only be part of a prefix expression when Dynamic Partitioning is enabled", namespace)
		}
		kind := partQuery
		if namespace == NamespaceFunction {
			kind = partFunction
		}
		return part{kind: kind}, nil
	}
	return part{}, fmt.Errorf("Namespace to the left of colon (%s) is an invalid keyword!", clip(namespace))
}

func (t *Template) tooLong(length int) error {
	if t.error {
		return &LengthError{"ErrorOutputPrefix", length}
	}
	return &LengthError{"prefix", length}
}

// String is the prefix as it was written.
func (t *Template) String() string { return t.text }

// Expressions reports whether the prefix has any.
func (t *Template) Expressions() bool { return t.expressions }

// Namespaces are those that the prefix uses, each once, in order.
func (t *Template) Namespaces() []string {
	var names []string
	for _, p := range t.parts {
		name := ""
		switch p.kind {
		case partTimestamp:
			name = NamespaceTimestamp
		case partRandom, partErrorType:
			name = NamespaceFirehose
		case partQuery:
			name = NamespaceQuery
		case partFunction:
			name = NamespaceFunction
		}
		if t.expressions && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// QueryKeys are the keys of partitionKeyFromQuery that the prefix uses.
func (t *Template) QueryKeys() []string { return t.keys(partQuery) }

// FunctionKeys are the keys of partitionKeyFromLambda that the prefix uses.
func (t *Template) FunctionKeys() []string { return t.keys(partFunction) }

func (t *Template) keys(kind partKind) []string {
	var keys []string
	for _, p := range t.parts {
		if p.kind == kind && !slices.Contains(keys, p.text) {
			keys = append(keys, p.text)
		}
	}
	return keys
}

// Evaluate makes the prefix of an object. It fails with *KeyError,
// *LengthError, or where a part of the instant does not fit its pattern.
func (t *Template) Evaluate(v Values) (string, error) {
	out, err := t.Append(nil, v)
	return string(out), err
}

// Append is Evaluate into a buffer.
func (t *Template) Append(dst []byte, v Values) ([]byte, error) {
	if err := t.check(v.Keys); err != nil {
		return dst, err
	}
	start := len(dst)
	v.At = v.At.In(t.location)
	for _, p := range t.parts {
		if p.kind == partTimestamp {
			if err := p.pattern.check(v.At); err != nil {
				return dst, fmt.Errorf("evaluate prefix %s: %w", t.text, err)
			}
		}
	}
	dst = t.appendParts(dst, &v, false)
	if n := utf8.RuneCount(dst[start:]); n > MaxEvaluated {
		return dst[:start], t.tooLong(n)
	}
	return dst, nil
}

// AppendPartition makes the name of the partition that records with these keys
// belong to: the prefix with keys put in, and timestamps and random strings left
// as they are written, for those follow from the object and not from the record.
// It fails as Evaluate would for an object of that partition.
func (t *Template) AppendPartition(dst []byte, keys *record.Keys) ([]byte, error) {
	if err := t.check(keys); err != nil {
		return dst, err
	}
	length := t.span
	for _, p := range t.parts {
		length += utf8.RuneCountInString(p.key(keys))
	}
	if length > MaxEvaluated {
		return dst, t.tooLong(length)
	}
	return t.appendParts(dst, &Values{Keys: keys}, true), nil
}

// check finds keys without value.
func (t *Template) check(keys *record.Keys) error {
	for _, p := range t.parts {
		switch p.kind {
		case partQuery:
			if p.key(keys) == "" {
				return &KeyError{NamespaceQuery, p.text}
			}
		case partFunction:
			if p.key(keys) == "" {
				return &KeyError{NamespaceFunction, p.text}
			}
		}
	}
	return nil
}

func (p *part) key(keys *record.Keys) string {
	switch {
	case keys == nil:
	case p.kind == partQuery:
		return keys.Query[p.text]
	case p.kind == partFunction:
		return keys.Function[p.text]
	}
	return ""
}

func (t *Template) appendParts(dst []byte, v *Values, partition bool) []byte {
	for i := range t.parts {
		p := &t.parts[i]
		switch p.kind {
		case partLiteral:
			dst = append(dst, p.text...)
		case partTimestamp:
			if partition {
				dst = append(dst, p.text...)
			} else {
				dst = p.pattern.append(dst, v.At)
			}
		case partRandom:
			if partition {
				dst = append(dst, "!{firehose:random-string}"...)
			} else {
				dst = appendRandom(dst, v.ID, i)
			}
		case partErrorType:
			dst = append(dst, v.ErrorType...)
		default:
			dst = append(dst, p.key(v.Keys)...)
		}
	}
	return dst
}

// appendRandom adds the random string at the n-th part of the object id.
func appendRandom(dst []byte, id string, n int) []byte {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var seed [32]byte
	if id == "" {
		_, _ = rand.Read(seed[:]) // never fails
	} else {
		seed = sha256.Sum256(binary.BigEndian.AppendUint32([]byte(id), uint32(n)))
	}
	for i := range randomLength {
		// Two bytes a character keep the bias below 0.1 %.
		dst = append(dst, digits[int(binary.BigEndian.Uint16(seed[2*i:]))%len(digits)])
	}
	return dst
}
