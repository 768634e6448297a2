// Package firehose is Data Firehose: delivery streams, their configuration, and
// the way in for records that are put to them directly.
//
// The one idea: a delivery stream is a record of metadata, and everything else
// follows from it. What this package keeps in memory (the registry) is a pure
// function of these records, rebuilt by a watch and published as immutable
// states. What runs (the engine of package delivery) is brought into line with
// the newest state after every change and at every start, by one function that
// may be repeated: reconcile. So a crash between a commit and its effect is
// nothing special.
//
// # A configuration's way
//
// A destination is stored as its owner gave it, in the shapes of the API, with
// its secrets sealed. Defaults are filled in when it is looked at (effective),
// so that an update is merged into what was said and not into what followed
// from it. Rules are checked on the result, before anything is stored. From the
// effective destination come the description, by copying members by name, and
// the definition that the engine runs, in assemble.go, the only file that knows
// every kind of destination.
//
// # Changes that take time
//
// A delivery stream that is being created or deleted, and an encryption that is
// being switched, carry a transition in the record: what is to happen and when.
// Run finishes it. Nothing is finished before the reply of the call that began
// it, so that clients that wait for a state always have something to wait for.
//
// # Locks
//
// registry.mu guards the maps of the registry; no I/O happens under it. A
// delivery stream is reconciled under its entry in Service.running, which may be
// held during I/O; registry.mu is only ever taken inside it.
//
// One file is one operation, with its rules above it. Start reading at state.go,
// then transitions.go, validate.go and assemble.go.
package firehose
