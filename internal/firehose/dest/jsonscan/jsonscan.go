// Package jsonscan walks over JSON without making values of it.
//
// The one idea: text that json.Valid has accepted needs no second check, so
// finding members and elements is a matter of counting brackets; what is not
// wanted is skipped. On other text the functions may panic: validate first.
package jsonscan

import (
	"bytes"
	"encoding/json"
	"strings"
)

// skipSpace is where the next character stands that is no white space.
func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// skipValue is where the value that begins at at ends.
func skipValue(b []byte, at int) int {
	switch b[at] {
	case '"':
		for at++; b[at] != '"'; at++ {
			if b[at] == '\\' {
				at++
			}
		}
		return at + 1
	case '{', '[':
		depth := 0
		for ; ; at++ {
			switch b[at] {
			case '"':
				at = skipValue(b, at) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return at + 1
				}
			}
		}
	}
	for at < len(b) && strings.IndexByte(",]} \t\r\n", b[at]) < 0 {
		at++
	}
	return at
}

// Members yields the keys (with their quotes) and values of an object.
func Members(object []byte) func(yield func(key, value []byte) bool) {
	return func(yield func(key, value []byte) bool) {
		at := skipSpace(object, 1)
		for object[at] != '}' {
			end := skipValue(object, at)
			key := object[at:end]
			at = skipSpace(object, skipSpace(object, end)+1) // past the colon
			end = skipValue(object, at)
			if !yield(key, object[at:end:end]) {
				return
			}
			if at = skipSpace(object, end); object[at] == ',' {
				at = skipSpace(object, at+1)
			}
		}
	}
}

// Elements yields the Elements of an array.
func Elements(array []byte) func(yield func(value []byte) bool) {
	return func(yield func(value []byte) bool) {
		at := skipSpace(array, 1)
		for array[at] != ']' {
			end := skipValue(array, at)
			if !yield(array[at:end:end]) {
				return
			}
			if at = skipSpace(array, end); array[at] == ',' {
				at = skipSpace(array, at+1)
			}
		}
	}
}

// Unquote is the text of a JSON string.
func Unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it is valid
	return []byte(s)
}
