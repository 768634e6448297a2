// Package sql reads the streaming SQL dialect of Kinesis Analytics: text in,
// syntax tree with positions out.
//
// The one idea: the tree says what was written, not what it means. Names are
// folded and literals are read, because that is lexical; which stream a name is,
// whether a window is legal and what type an expression has is the business of
// package plan. So the parser never guesses, and every error it gives points at
// the text that is wrong and says what could stand there.
//
// # Words
//
// A reserved word cannot be a name without quotes. Words that have a meaning in
// one place only (STEP, PUMP, WINDOWED, STAGGER, QUALIFY …) are names everywhere
// else. Unquoted names fold to upper case; that is the only folding there is.
//
// # Recovery
//
// After an error the parser goes on behind the next semicolon, so that one
// reading of a program reports the first error of every statement.
//
// Start reading at Parse; expression.go has the precedence table.
package sql
