package process

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON values may be nested.
const maxDepth = 512

// scanner walks JSON text. Positions are in bytes; methods that fail leave it
// anywhere.
type scanner struct {
	text []byte
	at   int
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek is the next byte after space; 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.at == len(s.text) {
		return 0
	}
	return s.text[s.at]
}

func (s *scanner) unexpected() error {
	if s.at >= len(s.text) {
		return errors.New("unexpected end of JSON")
	}
	return fmt.Errorf("unexpected character %q at byte %d", s.text[s.at], s.at)
}

// take passes c and the space before it.
func (s *scanner) take(c byte) error {
	if s.peek() != c || s.at == len(s.text) {
		return s.unexpected()
	}
	s.at++
	return nil
}

// quoted passes a string and gives what is between its quotes, and whether that
// stands for itself.
func (s *scanner) quoted() (raw []byte, simple bool, err error) {
	if err := s.take('"'); err != nil {
		return nil, false, err
	}
	start := s.at
	for {
		n := bytes.IndexByte(s.text[s.at:], '"')
		if n < 0 {
			s.at = len(s.text)
			return nil, false, s.unexpected()
		}
		s.at += n
		raw = s.text[start:s.at]
		back := len(raw)
		for back > 0 && raw[back-1] == '\\' {
			back--
		}
		s.at++
		if (len(raw)-back)%2 == 0 {
			break
		}
	}
	return raw, bytes.IndexByte(raw, '\\') < 0, nil
}

// appendText adds what the inside of a string stands for. It fails for escapes
// that do not exist.
func appendText(dst, raw []byte) ([]byte, error) {
	for {
		n := bytes.IndexByte(raw, '\\')
		if n < 0 {
			return append(dst, raw...), nil
		}
		dst = append(dst, raw[:n]...)
		if raw = raw[n+1:]; len(raw) == 0 {
			return nil, errors.New("incomplete escape")
		}
		c := raw[0]
		raw = raw[1:]
		switch c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, ok := hexRune(raw)
			if !ok {
				return nil, errors.New("invalid escape")
			}
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
					low, _ = hexRune(raw[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					raw = raw[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return nil, errors.New("invalid escape")
		}
	}
}

// validEscapes is appendText for those who do not want the text.
func validEscapes(raw []byte) error {
	for {
		n := bytes.IndexByte(raw, '\\')
		if n < 0 {
			return nil
		}
		if raw = raw[n+1:]; len(raw) == 0 {
			return errors.New("incomplete escape")
		}
		switch c := raw[0]; c {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			raw = raw[1:]
		case 'u':
			if _, ok := hexRune(raw[1:]); !ok {
				return errors.New("invalid escape")
			}
			raw = raw[5:]
		default:
			return errors.New("invalid escape")
		}
	}
}

func hexRune(b []byte) (rune, bool) {
	if len(b) < 4 {
		return -1, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil && b[0] != '+' && b[0] != '-'
}

// text passes a string and gives what it stands for.
func (s *scanner) string() (string, error) {
	raw, simple, err := s.quoted()
	if err != nil || simple {
		return string(raw), err
	}
	b, err := appendText(make([]byte, 0, len(raw)), raw)
	return string(b), err
}

// skip passes a value of any kind and gives its text.
func (s *scanner) skip() ([]byte, error) {
	s.space()
	start := s.at
	err := s.value(0)
	return s.text[start:s.at], err
}

func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON is nested deeper than %d", maxDepth)
	}
	switch c := s.peek(); c {
	case '{':
		return s.object(func([]byte, bool) error { return s.value(depth + 1) })
	case '[':
		return s.array(func() error { return s.value(depth + 1) })
	case '"':
		raw, simple, err := s.quoted()
		if err == nil && !simple {
			err = validEscapes(raw)
		}
		return err
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		_, err := s.number()
		return err
	}
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.text[s.at:], []byte(w)) {
		return s.unexpected()
	}
	s.at += len(w)
	return nil
}

// number passes a number and gives its text.
func (s *scanner) number() ([]byte, error) {
	start := s.at
	digits := func() bool {
		from := s.at
		for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
			s.at++
		}
		return s.at > from
	}
	if s.at < len(s.text) && s.text[s.at] == '-' {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] == '0' {
		s.at++
	} else if !digits() {
		return nil, s.unexpected()
	}
	if s.at < len(s.text) && s.text[s.at] == '.' {
		s.at++
		if !digits() {
			return nil, s.unexpected()
		}
	}
	if s.at < len(s.text) && s.text[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.text) && (s.text[s.at] == '+' || s.text[s.at] == '-') {
			s.at++
		}
		if !digits() {
			return nil, s.unexpected()
		}
	}
	return s.text[start:s.at], nil
}

// object passes an object; member is called at every value with its raw name and
// has to pass the value.
func (s *scanner) object(member func(name []byte, simple bool) error) error {
	if err := s.take('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		name, simple, err := s.quoted()
		if err == nil && !simple {
			err = validEscapes(name)
		}
		if err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
		if err := member(name, simple); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.unexpected()
		}
	}
}

// array passes an array; item is called at every item and has to pass it.
func (s *scanner) array(item func() error) error {
	if err := s.take('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.unexpected()
		}
	}
}
