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
//	  ▲   (functions)  (lane, partition,   (retries)     or error        │
//	  │                 error output)                     output         │
//	  └────────────── read again after a crash ◄─────────────────────────┘
//
// # Lanes and slots
//
// A lane is one ordered part of a source: the log of direct puts, a shard of a
// data stream, a partition of a topic. It is read by one goroutine, which is all
// that an idle delivery stream costs. Function calls of a lane run beside each
// other; their order is restored when they are routed. Records are routed to
// slots: of the lane, of a partition of the delivery stream, or of an error
// output or the backup. A slot has one open buffer and sealed ones behind it,
// which are delivered in order, several at a time only for objects.
//
// Children of a shard are read when everything of their parents is delivered, so
// that a destination which keeps the order of a lane keeps that of a key.
//
// # Again, but not twice
//
// The name of a batch follows from its first record and the version of the
// destination, so an object that is written again overwrites itself. That needs
// the same batches after a crash. The first undelivered one of a lane begins at
// the same record by itself; the extents of all others are stored before they
// are delivered, and records that come again go back to them. Destinations that
// do not overwrite see those records twice whose delivery a crash kept from being
// stored: deliveries are at least once.
//
// A function, or a limit on partitions, may take another way the second time.
// Therefore the account knows records and their parts, not places in slots: what
// took a way that is settled is passed over, and everything else goes where it
// belongs now.
//
// # Failures
//
// A destination tries once; a flight repeats. What it refuses in the end is
// written to the error output, and that, like objects and backups, is tried for
// ever: the lane waits, and nothing is dropped but what outlives the retention of
// direct puts, which is counted and logged.
//
// # Bounds
//
// Buffers share Options.BufferMemory; the largest go to files. Reads under way
// and records that wait for functions have bounds of their own, as has the number
// of deliveries. A lane stops reading when a slot of its has two batches that
// wait, and when its account spans a million records.
//
// # Locks
//
// In this order: Engine.applying, stream.commitMu (one commit of accounts at a
// time, held during it), stream.mu (everything in a delivery stream; never held
// while a peer, the log or metadata is called, but for a lane's look at its
// source's tail), then one of buffer.mu and memory.mu (in this order), the mutex
// of a source, or schedules.mu. Spilling holds buffer.mu during I/O; who appends
// to that buffer waits.
//
// Start reading at Engine in engine.go, then stream.route, stream.fly and
// account.
package delivery
