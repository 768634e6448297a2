// Package streams is Kinesis Data Streams: streams, their shards, the records
// in them, and those who read.
//
// The one idea: a stream is a map from a 128-bit hash space to shard logs, and
// that map is data like any other. It lives in package meta as small records;
// what this package keeps in memory (the registry) is a pure function of them,
// rebuilt by a watch and published as immutable snapshots. A call takes one
// snapshot and works on it; a change is one atomic conditional commit, decided
// by metadata and not by a lock here. So a reader sees the map before or after
// a change and never in between, and a restart has nothing to repair.
//
// # Changes that take time
//
// A stream that is being created, changed or deleted carries a transition in
// its record: what is to happen and when. Whoever accepted the call commits the
// transition and, with a StateDelay of zero, finishes it before answering;
// otherwise, and after a restart or a failure, Run finishes it. Finishing is
// safe to repeat from any point.
//
// # Resharding
//
// A split or a merge fences the logs of the shards that close, so that no
// append is in flight; makes the logs of the children; and commits the closed
// parents, the new children and the stream's record at once. Writers that meet
// the fence route again with the new map. An UpdateShardCount is a series of
// such steps.
//
// # Locks
//
// registry.mu guards the maps of the registry and is held for look-ups and
// while a commit is being published, never during I/O. A stream's transition is
// finished under its entry in Service.finishing, which may be held during I/O;
// registry.mu is only ever taken inside it.
//
// One file is one operation, with its rules above it. Start reading at state.go,
// then transitions.go and reshard.go.
package streams
