// Package naming says what the objects of a delivery stream are called.
//
// The one idea: a prefix is compiled once, when a delivery stream is created or
// changed, and every mistake that can be seen then is told then, in the words of
// the service. What is left for run time is appending: literals, parts of one
// instant, and the keys of a partition.
//
//	key    = prefix suffix
//	prefix = { literal | "!{" namespace ":" value "}" }   date added if there is no expression
//	suffix = stream "-" version "-yyyy-MM-dd-HH-mm-ss-" id extension
//
// Nothing in a name depends on when or how often it is made: the instant is that
// of the oldest record, and what looks random follows from the object's id. So
// an object that is written again overwrites itself.
//
// Start reading at Prefix, then Template in template.go; pattern.go is the
// language of timestamps.
package naming
