// Package index is an ordered, durable map from keys to values in files: what
// objects there are, and where their bytes lie.
//
// The one idea: memory is proportional to what was written lately, never to how
// much there is. A commit goes to a log and to a small table in memory; a full
// table in memory becomes a sorted file; sorted files are merged, in steps that
// grow by the factor four, so that there are few of them. Of a sorted file only
// the first key of every block is kept in memory, about one byte for each
// hundred of the file. docs/formats/objects.md has the bytes.
//
// Commit is durable at return and atomic. A log is written front to back, one
// frame at a time, into room reserved beforehand. A frame whose write or sync
// fails is never written again in its place: it goes to a new log, whose header
// says how far the one before it counts. So replay knows what was acknowledged,
// and takes a bad frame for the end of the log only where nothing vouches for
// more.
//
// Lock order: committing, merging, mu, a memory table's own. Start reading at
// Store.Commit, then Store.recover.
package index
