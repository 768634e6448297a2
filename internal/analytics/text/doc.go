// Package text is what the streaming SQL dialect does with texts: patterns,
// regular expressions, date patterns, log lines and JSON paths.
//
// The one idea: everything is compiled once, from constants when a program is
// planned, and then applied to millions of values without allocating where that
// can be avoided. What cannot be compiled is refused with a reason; what does
// not match is a result, not an error.
//
// Regular expressions are Java's. Those that RE2 can run are run by it, in
// linear time; the others, with back-references and look-around, by a
// backtracking engine with a bound on its time.
package text
