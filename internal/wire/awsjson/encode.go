package awsjson

import (
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/api"
)

// Append writes v as a JSON object behind dst. Nothing is escaped for HTML.
func Append(dst []byte, v api.Shape) []byte {
	if out, done := appendHot(dst, v); done {
		return out
	}
	return appendShape(dst, v)
}

// appendShape is Append without the special encoders.
func appendShape(dst []byte, v api.Shape) []byte {
	e := encoder{dst: dst, start: len(dst)}
	v.EncodeTo(&e)
	return e.dst
}

// AppendError writes the body of an error reply behind dst: the code, the text if
// there is one, and the members of modelled errors that have others.
func AppendError(dst []byte, err api.Error) []byte {
	e := encoder{dst: dst, start: len(dst)}
	e.BeginStruct()
	e.Member("__type")
	e.String(err.ErrorCode())
	if shape, ok := err.(api.ErrorShape); ok {
		shape.EncodeMembers(&e)
	} else if text := err.ErrorMessage(); text != "" {
		e.Member(messageKey(err.ErrorCode()))
		e.String(text)
	}
	e.EndStruct()
	return e.dst
}

// messageKey is the member that holds an error's text. The service spells it with
// a capital for values of a wrong type.
func messageKey(code string) string {
	if code == api.CodeSerialization {
		return "Message"
	}
	return "message"
}

// encoder implements api.Encoder. Whether a comma is due shows in the last byte
// written.
type encoder struct {
	dst   []byte
	start int
}

var _ api.Encoder = (*encoder)(nil)

func (e *encoder) comma() {
	if len(e.dst) == e.start {
		return
	}
	switch e.dst[len(e.dst)-1] {
	case '{', '[', ':':
	default:
		e.dst = append(e.dst, ',')
	}
}

// BeginStruct implements api.Encoder.
func (e *encoder) BeginStruct() { e.comma(); e.dst = append(e.dst, '{') }

// EndStruct implements api.Encoder.
func (e *encoder) EndStruct() { e.dst = append(e.dst, '}') }

// BeginMap implements api.Encoder.
func (e *encoder) BeginMap(int) { e.BeginStruct() }

// EndMap implements api.Encoder.
func (e *encoder) EndMap() { e.EndStruct() }

// BeginList implements api.Encoder.
func (e *encoder) BeginList(int) { e.comma(); e.dst = append(e.dst, '[') }

// EndList implements api.Encoder.
func (e *encoder) EndList() { e.dst = append(e.dst, ']') }

// Member implements api.Encoder.
func (e *encoder) Member(name string) {
	e.comma()
	e.dst = append(e.dst, '"')
	e.dst = append(e.dst, name...)
	e.dst = append(e.dst, '"', ':')
}

// Key implements api.Encoder.
func (e *encoder) Key(key string) {
	e.String(key)
	e.dst = append(e.dst, ':')
}

// String implements api.Encoder.
func (e *encoder) String(s string) { e.comma(); e.dst = appendString(e.dst, s) }

// Null implements api.Encoder.
func (e *encoder) Null() { e.comma(); e.dst = append(e.dst, "null"...) }

// Int64 implements api.Encoder.
func (e *encoder) Int64(n int64) { e.comma(); e.dst = strconv.AppendInt(e.dst, n, 10) }

// Float64 implements api.Encoder.
func (e *encoder) Float64(f float64) {
	e.comma()
	switch abs := math.Abs(f); {
	case math.IsNaN(f):
		e.dst = append(e.dst, `"NaN"`...)
	case math.IsInf(f, 1):
		e.dst = append(e.dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		e.dst = append(e.dst, `"-Infinity"`...)
	case abs != 0 && (abs < 1e-6 || abs >= 1e21):
		e.dst = strconv.AppendFloat(e.dst, f, 'e', -1, 64)
	default:
		e.dst = strconv.AppendFloat(e.dst, f, 'f', -1, 64)
	}
}

// Bool implements api.Encoder.
func (e *encoder) Bool(b bool) { e.comma(); e.dst = strconv.AppendBool(e.dst, b) }

// Time implements api.Encoder.
func (e *encoder) Time(t time.Time) { e.comma(); e.dst = appendTime(e.dst, t) }

// Blob implements api.Encoder.
func (e *encoder) Blob(b []byte) {
	e.comma()
	e.dst = append(e.dst, '"')
	e.dst = appendBase64(e.dst, b)
	e.dst = append(e.dst, '"')
}

// appendTime writes seconds with as many of three decimals as are needed.
func appendTime(dst []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		dst = append(dst, '-')
		ms = -ms
	}
	dst = strconv.AppendInt(dst, ms/1000, 10)
	if f := ms % 1000; f != 0 {
		dst = append(dst, '.', byte('0'+f/100), byte('0'+f/10%10), byte('0'+f%10))
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
	}
	return dst
}

func appendBase64(dst, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = slices.Grow(dst, base64x.StdEncoding.EncodedLen(len(b)))
	base64x.StdEncoding.EncodeUnsafe(&dst, b)
	return dst
}

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	if bare(s) {
		dst = append(dst, s...)
		return append(dst, '"')
	}
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		default:
			if c < 0x20 {
				dst = append(dst, `\u00`...)
				dst = append(dst, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			} else {
				dst = append(dst, "\ufffd"...)
			}
		}
		i++
		done = i
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}

// bare reports whether s is ASCII that needs no escapes, eight bytes at a time.
func bare(s string) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for len(s) >= 8 {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		quote, slash := w^('"'*ones), w^('\\'*ones)
		if ((w-0x20*ones)|(quote-ones)|(slash-ones)|w)&highs != 0 {
			return false
		}
		s = s[8:]
	}
	for i := 0; i < len(s); i++ {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}
