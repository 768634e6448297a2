package serde

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// quoted reads the string at hand, which must be valid, and returns what stands
// between the quotes.
func (d *Decoder) quoted() (raw []byte, escaped bool, err error) {
	data := d.data
	start := d.at + 1
	i := start
	wide := false
	for {
		// Eight bytes at a time up to one that matters: a quote, a backslash, a
		// control character, or a byte of a character that is not ASCII. Which
		// of the flagged bytes is the first is exact, the others need not be.
		for i+8 <= len(data) {
			w := binary.LittleEndian.Uint64(data[i:])
			q, b := w^(ones*'"'), w^(ones*'\\')
			flags := (q - ones) &^ q
			flags |= (b - ones) &^ b
			flags |= (w - ones*0x20) &^ w
			if !wide {
				flags |= w
			}
			if flags &= highs; flags != 0 {
				i += bits.TrailingZeros64(flags) >> 3
				break
			}
			i += 8
		}
		if i >= len(data) {
			d.at = len(data)
			return nil, false, d.wrong()
		}
		switch c := data[i]; {
		case c == '"':
			raw = data[start:i]
			if wide && !utf8.Valid(raw) {
				d.at = start
				for d.at < i {
					if r, size := utf8.DecodeRune(data[d.at:i]); r == utf8.RuneError && size == 1 {
						break
					} else {
						d.at += size
					}
				}
				return nil, false, d.wrong()
			}
			d.at = i + 1
			return raw, escaped, nil
		case c == '\\':
			escaped = true
			n := escape(data[i:])
			if n == 0 {
				d.at = min(i+1, len(data))
				return nil, false, d.wrong()
			}
			i += n
		case c < 0x20:
			d.at = i
			return nil, false, d.wrong()
		default:
			wide = wide || c >= utf8.RuneSelf
			i++
		}
	}
}

// escape is the length of the escape sequence s begins with, 0 if it is none.
func escape(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(s) < 6 {
			return 0
		}
		for _, c := range s[2:6] {
			if hex(c) < 0 {
				return 0
			}
		}
		return 6
	}
	return 0
}

func hex(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c - 'a' + 10)
	case 'A' <= c && c <= 'F':
		return rune(c - 'A' + 10)
	}
	return -1
}

func unicode(s []byte) rune { // of \uXXXX
	return hex(s[2])<<12 | hex(s[3])<<8 | hex(s[4])<<4 | hex(s[5])
}

// unescape appends the text of a string that quoted has accepted. Halves of
// surrogate pairs that stand alone become U+FFFD.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch raw[i+1] {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := unicode(raw[i:])
			i += 6
			if utf16.IsSurrogate(r) {
				if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
					if pair := utf16.DecodeRune(r, unicode(raw[i:])); pair != utf8.RuneError {
						r = pair
						i += 6
					}
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default:
			c = raw[i+1]
		}
		dst = append(dst, c)
		i += 2
	}
	return dst
}

// skip passes over the value at hand, which must be valid.
func (d *Decoder) skip(depth int) error {
	if d.at >= len(d.data) {
		return d.wrong()
	}
	switch c := d.data[d.at]; {
	case c == '"':
		_, _, err := d.quoted()
		return err
	case c == '-' || '0' <= c && c <= '9':
		_, err := d.number()
		return err
	case c == 't':
		return d.literal("true")
	case c == 'f':
		return d.literal("false")
	case c == 'n':
		return d.literal("null")
	case c != '{' && c != '[':
		return d.wrong()
	}
	if depth == maxDepth {
		return mismatch("The record nests deeper than %d", maxDepth)
	}
	object := d.data[d.at] == '{'
	last := d.data[d.at] + 2 // the closing bracket, in ASCII
	d.at++
	if d.peek() == last {
		d.at++
		return nil
	}
	for {
		if object {
			if d.peek() != '"' {
				return d.wrong()
			}
			if _, _, err := d.quoted(); err != nil {
				return err
			}
			if d.peek() != ':' {
				return d.wrong()
			}
			d.at++
		}
		d.peek()
		if err := d.skip(depth + 1); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.at++
		case last:
			d.at++
			return nil
		default:
			return d.wrong()
		}
	}
}

// compact appends the value at hand without white space, its keys folded as the
// options say.
func (d *Decoder) compact(dst []byte, depth int) ([]byte, error) {
	if d.at >= len(d.data) {
		return dst, d.wrong()
	}
	c := d.data[d.at]
	if c != '{' && c != '[' {
		start := d.at
		err := d.skip(depth)
		return append(dst, d.data[start:d.at]...), err
	}
	if depth == maxDepth {
		return dst, mismatch("The record nests deeper than %d", maxDepth)
	}
	last := c + 2
	dst = append(dst, c)
	d.at++
	if d.peek() == last {
		d.at++
		return append(dst, last), nil
	}
	for {
		if c == '{' {
			if d.peek() != '"' {
				return dst, d.wrong()
			}
			raw, _, err := d.quoted()
			if err != nil {
				return dst, err
			}
			dst = append(dst, '"')
			if d.foldKeys {
				d.key = appendLower(d.key[:0], raw)
				raw = d.key
			}
			dst = append(append(dst, raw...), '"', ':')
			if d.peek() != ':' {
				return dst, d.wrong()
			}
			d.at++
		}
		d.peek()
		var err error
		if dst, err = d.compact(dst, depth+1); err != nil {
			return dst, err
		}
		switch d.peek() {
		case ',':
			d.at++
			dst = append(dst, ',')
		case last:
			d.at++
			return append(dst, last), nil
		default:
			return dst, d.wrong()
		}
	}
}
