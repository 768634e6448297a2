package sql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Pos is a byte offset into a program, from 0.
type Pos int

// Span is a piece of a program, End exclusive.
type Span struct{ Start, End Pos }

// Through is the span from s's start to e's end.
func (s Span) Through(e Span) Span { return Span{s.Start, max(s.End, e.End)} }

// Error is one thing wrong with a program.
type Error struct {
	Span    Span
	Line    int // from 1
	Column  int // in characters, from 1
	Message string
	Hint    string // what to do about it; may be empty
}

func (e *Error) Error() string {
	text := fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Errors are all things wrong with a program, in order of their place. It is
// never empty where it is an error.
type Errors []*Error

func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Place is the line and column of a position, both from 1. Columns count
// characters.
func Place(text string, at Pos) (line, column int) {
	at = min(max(at, 0), Pos(len(text)))
	before := text[:at]
	start := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[start:]) + 1
}

// NewError describes something wrong in a piece of a program.
func NewError(text string, at Span, hint, format string, args ...any) *Error {
	line, column := Place(text, at.Start)
	return &Error{Span: at, Line: line, Column: column, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Excerpt shows the line of an error with a caret line below it:
//
//	SELECT STREAM a FORM s
//	                ^^^^
func (e *Error) Excerpt(text string) string {
	start := strings.LastIndexByte(text[:min(int(e.Span.Start), len(text))], '\n') + 1
	end := len(text)
	if i := strings.IndexByte(text[start:], '\n'); i >= 0 {
		end = start + i
	}
	line := strings.ReplaceAll(strings.TrimRight(text[start:end], "\r"), "\t", " ")
	width := 1
	if stop := min(int(e.Span.End), end); stop > int(e.Span.Start) {
		width = utf8.RuneCountInString(text[e.Span.Start:stop])
	}
	return line + "\n" + strings.Repeat(" ", e.Column-1) + strings.Repeat("^", max(width, 1))
}

// Nearest is the candidate that a misspelt word most likely stands for, empty if
// none is near.
func Nearest(word string, candidates []string) string {
	best, distance := "", min(max(1, len(word)/3), len(word)-1)+1
	upper := strings.ToUpper(word)
	for _, c := range candidates {
		if c == word {
			continue
		}
		if d := editDistance(upper, strings.ToUpper(c)); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, substitutions and swaps of
// neighbours.
func editDistance(a, b string) int {
	if len(a) > 128 || len(b) > 128 {
		return 128
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
