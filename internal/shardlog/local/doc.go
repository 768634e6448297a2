// Package local is the embedded engine: shard logs in files of one machine.
//
// The one idea: all shards share one write-ahead log, so a group of appends costs
// one durable write whatever the number of shards, and what was logged is later
// sorted by shard into files that never change. Nothing is written per shard on
// the way to an acknowledgement.
//
//	append ──► image of the current segment ──► wal/NNNNNNNN   durable, acknowledged
//	                     │ full
//	                     ▼
//	            seg/<class>/<id>, sorted by shard ──► MANIFEST ──► the segment returns to the ring
//
// The byte layouts are in docs/formats: wal.md, segment.md, manifest.md. Start
// reading at Log.Append in writer.go, then Log.seal in seal.go, Log.Read in
// reader.go, and Log.recover in recover.go.
//
// # Writing
//
// An append takes Log.mu once, for as long as it takes to add up sizes: it gets a
// range of the current segment's image, a log sequence number, and the indexes and
// arrival times of its batches. So the order of the log is the order of the lock.
// It then encodes and checksums in its own goroutine and waits for its group. A
// group is everything reserved since the last one was taken; a writer takes it as
// soon as it is free, so one lonely append waits for one write and nothing else,
// and the busier the disk the larger the groups. A writer waits until all ranges
// of its group are filled (encoders never block), writes them with one call, waits
// for the group before it, and publishes: readers see batches only now, in log
// order, after they are durable. Up to maxInFlight writers overlap where writes
// are slow; where they are quicker than quickWrite one at a time is enough, and
// more appends share it.
//
// # Failed writes
//
// The range of a failed write is never written again, and what may be on disk there
// is never trusted: the segment is abandoned, and this and all later groups of it
// are written once more to a segment whose sequence lies between the abandoned one
// and the next current one. Replay so meets frames in the order of their numbers,
// perhaps some twice. If that fails as well the log is read-only until a restart.
//
// # Recovery
//
// The manifest names the sealed files, the state of every shard, and the segment
// from which to replay; only the ring is read, at most SegmentCount segments. What
// recovery drops is exactly what follows the first missing frame when no valid
// frame anywhere claims that frame to be durable (each carries the number up to
// which everything was when it was made): a torn tail, never acknowledged. If one
// does claim so, an acknowledged frame is damaged: Open fails and names it, or with
// Options.Repair goes on behind the damage and reports it in Log.Repairs. After a
// restart nothing is ever appended to a segment of an earlier run: a frame of the
// earlier run that was dropped could otherwise come back between new ones.
//
// Segments that hold no kept frame are marked free before the first new frame is
// written, for the same reason.
//
// With Options.Repair all sealed files are read at the start. What is whole in a
// damaged one moves to a new file, the damaged one to the folder damaged, and reads
// go on behind what is missing. Without it, reads that meet damage fail.
//
// # Full disks
//
// The ring is zeroed when it is made, so commits need no space. Below the low
// watermark, and when a seal meets a full disk, appends get ErrFull; reads and the
// removal of expired data go on, and appends resume at the next look. What makes
// space is not refused: deletions, truncations, and appends to shards that are kept
// for ever, which is where metadata lives. The end of the last segment of the ring
// is reserved for them, and sealing leaves the disk enough for the manifest and for
// the segment that a restart needs.
//
// # Locks
//
// commandMu or compactMu before sealMu before mu before tableMu before shard.mu; each may be
// skipped. No file is read or written with mu, tableMu or shard.mu held. A reader
// takes a shard's state first and the set of files second; the sealer replaces the
// set first and the state second: a reader finds every batch in at least one of the
// two. Memory images are pinned under shard.mu while a reference to them is
// visible, and freed when the last pin goes after the references have.
//
// # What it does not do
//
// It does not look into batches, does not hide expired records before their file
// goes (package shardlog's callers do), and has no cache of data besides the images
// of segments that are not sealed: sealed data is in the operating system's.
package local
