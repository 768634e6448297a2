// Package run executes planned programs.
//
// The one idea: rows travel in batches of typed columns, pushed from the input
// streams through a graph of operators in topological order, and so do promises
// about time. A batch says what has come; a bound says that nothing older will.
// Operators keep what later rows may need and no more, and everything they put
// out follows from rows and bounds alone, never from how rows were cut into
// batches or from the clock of the machine. That makes results repeatable, and a
// program can stop anywhere and go on.
//
// # Batches
//
// A Batch has vectors of its full length and a selection: the positions that
// count, in order. Filters only narrow the selection. Vectors belong to the
// operator that made them and change with its next batch; whoever keeps rows
// copies them (table).
//
// # Errors of rows
//
// An expression that fails for a row marks the row, and the operator drops it
// and reports it to the error stream. Branches of CASE that are not taken are not
// evaluated and cannot fail.
//
// Start reading at Application in application.go.
package run
