package iceberg

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"

	"github.com/millrace/millrace/internal/firehose/dest/jsonscan"
)

// maxDepth is how deeply records may be nested.
const maxDepth = 16

// typeError is a value that does not fit its column.
type typeError struct {
	column, want, got string
	missing           bool // there is no value for a column that needs one
}

func (e *typeError) Error() string {
	if e.missing {
		return fmt.Sprintf("column %s: the record has no value for it, and it is required", e.column)
	}
	return fmt.Sprintf("column %s: %s is no %s", e.column, e.got, e.want)
}

// mismatch is the error of a value, shown in short.
func mismatch(column string, t iceberg.Type, raw []byte) error {
	got := string(raw)
	if len(got) > 80 {
		got = strings.ToValidUTF8(got[:80], "") + "…"
	}
	return &typeError{column: column, want: t.String(), got: got}
}

// The values of nested columns, before they are appended.
type (
	structValue []any // by field; nil is null
	listValue   []any
	mapValue    struct{ keys, values []any }
)

// depth is how deeply brackets are nested in JSON.
func depth(raw []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// fields makes the values of a struct's fields from an object. known counts the
// members that fields were found for.
func fields(column string, list []iceberg.NestedField, object []byte, into []any) (known int, err error) {
	clear(into)
	for key, raw := range jsonscan.Members(object) {
		name := jsonscan.Unquote(key)
		for i := range list {
			if list[i].Name != string(name) {
				continue
			}
			known++
			into[i] = nil
			if raw[0] != 'n' {
				if into[i], err = value(join(column, list[i].Name), list[i].Type, raw); err != nil {
					return known, err
				}
			}
			break
		}
	}
	for i := range list {
		if into[i] == nil && list[i].Required {
			return known, &typeError{column: join(column, list[i].Name), missing: true}
		}
	}
	return known, nil
}

func join(column, name string) string {
	if column == "" {
		return name
	}
	return column + "." + name
}

// value makes a value of a type from JSON that is not null: a bool, int32, int64,
// float32, float64, string or []byte, the way Parquet holds the type, a *big.Int
// for the digits of a decimal, or one of the nested values.
func value(column string, t iceberg.Type, raw []byte) (any, error) {
	bad := func() (any, error) { return nil, mismatch(column, t, raw) }
	text := string(raw)
	quoted := raw[0] == '"'
	if quoted {
		unquoted := jsonscan.Unquote(raw)
		if !utf8.Valid(unquoted) {
			return bad()
		}
		text = string(unquoted)
	}
	nested := raw[0] == '{' || raw[0] == '['
	switch t := t.(type) {
	case iceberg.BooleanType:
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		case "1":
			return true, nil
		case "0":
			return false, nil
		}
	case iceberg.Int32Type:
		if n, ok := integer(text, 32); ok {
			return int32(n), nil
		}
	case iceberg.Int64Type:
		if n, ok := integer(text, 64); ok {
			return n, nil
		}
	case iceberg.Float32Type:
		if f, err := strconv.ParseFloat(text, 32); err == nil && numeric(text) {
			return float32(f), nil
		}
	case iceberg.Float64Type:
		if f, err := strconv.ParseFloat(text, 64); err == nil && numeric(text) {
			return f, nil
		}
	case iceberg.DecimalType:
		if n, ok := decimal(text, t.Precision(), t.Scale()); ok {
			return n, nil
		}
	case iceberg.DateType:
		if n, ok := integer(text, 32); ok {
			return int32(n), nil
		}
		if at, err := time.Parse(time.DateOnly, text); err == nil {
			return int32(at.Unix() / 86_400), nil
		}
	case iceberg.TimeType:
		if n, ok := integer(text, 64); ok && n >= 0 && n < 86_400_000_000 {
			return n, nil
		}
		for _, layout := range []string{"15:04:05.999999999", "15:04"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at.Sub(at.Truncate(24 * time.Hour)).Microseconds(), nil
			}
		}
	case iceberg.TimestampType, iceberg.TimestampTzType:
		if n, ok := integer(text, 64); ok {
			return n, nil
		}
		if at, ok := instant(text); ok {
			return at.UnixMicro(), nil
		}
	case iceberg.TimestampNsType, iceberg.TimestampTzNsType:
		if n, ok := integer(text, 64); ok {
			return n, nil
		}
		if at, ok := instant(text); ok && at.Year() > 1678 && at.Year() < 2262 {
			return at.UnixNano(), nil
		}
	case iceberg.StringType:
		if !nested {
			return text, nil
		}
	case iceberg.UUIDType:
		if id, err := uuid.Parse(text); err == nil && quoted {
			return id[:], nil
		}
	case iceberg.BinaryType:
		if b, ok := octets(text, -1); ok && quoted {
			return b, nil
		}
	case iceberg.FixedType:
		if b, ok := octets(text, t.Len()); ok && quoted {
			return b, nil
		}
	case *iceberg.StructType:
		object, ok := inner(raw, text, quoted, '{')
		if !ok {
			return bad()
		}
		v := make(structValue, len(t.FieldList))
		if _, err := fields(column, t.FieldList, object, v); err != nil {
			return nil, err
		}
		return v, nil
	case *iceberg.ListType:
		list, ok := inner(raw, text, quoted, '[')
		if !ok {
			return bad()
		}
		v := listValue{}
		for raw := range jsonscan.Elements(list) {
			element, err := optional(column+".element", t.Element, raw, t.ElementRequired)
			if err != nil {
				return nil, err
			}
			v = append(v, element)
		}
		return v, nil
	case *iceberg.MapType:
		object, ok := inner(raw, text, quoted, '{')
		if !ok {
			return bad()
		}
		v := mapValue{}
		for key, raw := range jsonscan.Members(object) {
			k, err := value(column+".key", t.KeyType, key)
			if err != nil {
				return nil, err
			}
			e, err := optional(column+".value", t.ValueType, raw, t.ValueRequired)
			if err != nil {
				return nil, err
			}
			v.keys, v.values = append(v.keys, k), append(v.values, e)
		}
		return v, nil
	default:
		return nil, &typeError{column: column, want: t.String() + " that can be written here", got: "its type"}
	}
	return bad()
}

// optional is value for JSON that may be null.
func optional(column string, t iceberg.Type, raw []byte, required bool) (any, error) {
	if raw[0] != 'n' {
		return value(column, t, raw)
	}
	if required {
		return nil, &typeError{column: column, missing: true}
	}
	return nil, nil
}

// inner finds an object or a list, which may also stand in a string.
func inner(raw []byte, text string, quoted bool, open byte) ([]byte, bool) {
	if quoted {
		raw = []byte(strings.TrimSpace(text))
		if len(raw) == 0 || !json.Valid(raw) || depth(raw) > maxDepth {
			return nil, false
		}
	}
	return raw, raw[0] == open
}

// integer reads a whole number, also one with an exponent or a fraction of zeros.
func integer(text string, bits int) (int64, bool) {
	if n, err := strconv.ParseInt(text, 10, bits); err == nil {
		return n, true
	}
	if !numeric(text) {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 || bits == 32 && (f > math.MaxInt32 || f < math.MinInt32) {
		return 0, false
	}
	return int64(f), true
}

// numeric keeps words like Infinity and hexadecimal numbers out.
func numeric(text string) bool {
	return text != "" && strings.Trim(text, "0123456789+-.eE") == ""
}

var instants = []string{
	"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05.999999999Z0700",
	"2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
}

// instant reads ISO 8601, without an offset as UTC.
func instant(text string) (time.Time, bool) {
	for _, layout := range instants {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// octets decodes base64, MIME base64, URL-safe base64 or hexadecimal digits,
// whichever fits first, to n bytes unless n is negative.
func octets(text string, n int) ([]byte, bool) {
	unfolded := strings.NewReplacer("\r", "", "\n", "").Replace(text)
	for _, decode := range []func(string) ([]byte, error){
		base64.StdEncoding.Strict().DecodeString, base64.RawStdEncoding.Strict().DecodeString,
		base64.URLEncoding.Strict().DecodeString, base64.RawURLEncoding.Strict().DecodeString, hex.DecodeString,
	} {
		if b, err := decode(unfolded); err == nil && (n < 0 || len(b) == n) {
			return b, true
		}
	}
	return nil, false
}

// maxExponent bounds exponents of decimals: a few letters must not make many
// digits.
const maxExponent = 1000

// decimal reads a number as its digits at a scale; what is beyond the scale is
// rounded, half away from zero.
func decimal(text string, precision, scale int) (*big.Int, bool) {
	if !numeric(text) || len(text) >= 100 {
		return nil, false
	}
	mantissa, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		n, err := strconv.Atoi(text[i+1:])
		if err != nil || n > maxExponent || n < -maxExponent {
			return nil, false
		}
		mantissa, exponent = text[:i], n
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	n, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok || strings.ContainsAny(fraction, "+-") {
		return nil, false
	}
	switch shift := exponent - len(fraction) + scale; {
	case n.Sign() == 0:
	case shift >= 0:
		n.Mul(n, ten(shift))
	default:
		half := ten(-shift)
		cut := new(big.Int)
		n.QuoRem(n, half, cut)
		if cut.Abs(cut).Lsh(cut, 1).Cmp(half) >= 0 {
			if strings.HasPrefix(text, "-") {
				n.Sub(n, big.NewInt(1))
			} else {
				n.Add(n, big.NewInt(1))
			}
		}
	}
	return n, n.CmpAbs(ten(precision)) < 0
}

func ten(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// infer is the type that a new column gets for a value; nil for null and for
// what has no type yet, such as an empty list. next gives out field ids.
func infer(raw []byte, next func() int) iceberg.Type {
	switch raw[0] {
	case 'n':
		return nil
	case 't', 'f':
		return iceberg.PrimitiveTypes.Bool
	case '"':
		return iceberg.PrimitiveTypes.String
	case '[':
		for e := range jsonscan.Elements(raw) {
			if t := infer(e, next); t != nil {
				return &iceberg.ListType{ElementID: next(), Element: t}
			}
		}
		return nil
	case '{':
		s := &iceberg.StructType{}
		for key, raw := range jsonscan.Members(raw) {
			if t := infer(raw, next); t != nil && len(s.FieldList) < maxNewColumns {
				s.FieldList = append(s.FieldList, iceberg.NestedField{ID: next(), Name: string(jsonscan.Unquote(key)), Type: t})
			}
		}
		if len(s.FieldList) == 0 {
			return nil
		}
		return s
	}
	if _, ok := integer(string(raw), 64); ok && !strings.ContainsAny(string(raw), ".eE") {
		return iceberg.PrimitiveTypes.Int64
	}
	return iceberg.PrimitiveTypes.Float64
}
