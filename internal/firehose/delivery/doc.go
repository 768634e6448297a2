// Package delivery moves records from where they were put to where they shall
// go: it reads lanes, has records processed, buffers, delivers, repeats, and
// remembers how far it is.
//
// The one idea: nothing that is buffered needs to survive, because a lane can be
// read again. What survives is a small account of each lane, which says of every
// record whether all that came of it has arrived somewhere: at the destination,
// in the backup, or in an error output. A record leaves its source only then.
//
//	lane ─► chain ─► slots of buffers ─► sealed batch ─► destination ─► account
//	  ▲   (functions)  (lane, partition,    (worker, retry,                │
//	  └── reads on       error output)       error output)  ◄── replays ───┘
package delivery
