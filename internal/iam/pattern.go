package iam

import (
	"strings"
)

// pattern is a text with wildcards. Each element is a byte, or one of the two
// wildcards; what policy variables bring in is bytes only, so that a name with
// a star in it matches itself and nothing else.
type pattern []uint16

const (
	anyRun  = 256 // *
	anyByte = 257 // ?
)

func appendText(p pattern, s string) pattern {
	for i := range len(s) {
		p = append(p, uint16(s[i]))
	}
	return p
}

func appendPattern(p pattern, s string) pattern {
	for i := range len(s) {
		switch s[i] {
		case '*':
			p = append(p, anyRun)
		case '?':
			p = append(p, anyByte)
		default:
			p = append(p, uint16(s[i]))
		}
	}
	return p
}

// literal is the pattern as text, wildcards as they were written.
func (p pattern) literal() string {
	b := make([]byte, len(p))
	for i, c := range p {
		switch c {
		case anyRun:
			b[i] = '*'
		case anyByte:
			b[i] = '?'
		default:
			b[i] = byte(c)
		}
	}
	return string(b)
}

func lower(c uint16) uint16 {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// match reports whether the pattern matches the whole of s. It takes time in
// the product of the lengths at worst: only the last star is ever reconsidered.
func (p pattern) match(s string, fold bool) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == anyRun:
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == anyByte || p[i] == uint16(s[j]) || fold && lower(p[i]) == lower(uint16(s[j]))):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == anyRun {
		i++
	}
	return i == len(p)
}

// matchARN matches each of the six parts of an ARN by itself, so that no star
// reaches over a colon before the resource part.
func (p pattern) matchARN(s string) bool {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 {
		return false
	}
	rest := p
	for n, part := range parts {
		piece := rest
		if n < 5 {
			colon := -1
			for i, c := range rest {
				if c == ':' {
					colon = i
					break
				}
			}
			if colon < 0 {
				return false
			}
			piece, rest = rest[:colon], rest[colon+1:]
		}
		if !piece.match(part, false) {
			return false
		}
	}
	return true
}

// matchText is match for a pattern that has no variables, without making one.
func matchText(p, s string, fold bool) bool {
	if p == "*" {
		return true
	}
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j] || fold && lower(uint16(p[i])) == lower(uint16(s[j]))):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
