// Package reliability tries to make the real binary lose, repeat, reorder or
// alter a record that it has acknowledged, on a real disk.
//
// The instrument is a ledger: writers note every acknowledgement with its
// shard, its sequence number and the record's own number; after each crash
// everything is read back and compared. `go test` runs short forms; the
// variable TORTURE asks for the long ones.
package reliability
