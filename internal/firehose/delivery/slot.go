package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
)

// Outputs of a delivery stream, besides the error outputs, which are known by
// their types.
const (
	outputMain   = ""
	outputBackup = "backup"
)

// version is a Definition at work. The stream's lock guards its fields.
type version struct {
	*Definition
	refs int      // jobs and batches
	old  bool     // another has taken its place
	heir *version // has the same destination, and closes it; this one counts among its uses
}

// record is how batches call the delivery stream.
func (v *version) record() record.Stream {
	s := record.Stream{ARN: v.ARN, Name: v.Name, Account: v.Account, Region: v.Region, Version: v.Version}
	switch {
	case v.Source.Stream != nil:
		s.SourceARN = v.Source.Stream.ARN
	case v.Source.Topic != nil:
		s.SourceARN = v.Source.Topic.ClusterARN
	}
	return s
}

func (v *version) errorType() string {
	if v.ErrorType != "" {
		return v.ErrorType
	}
	return v.Kind.ErrorType()
}

// hints are when a buffer of an output is full.
func (v *version) hints(output string) record.Hints {
	h := v.Hints
	if output == outputBackup && v.BackupHints != (record.Hints{}) {
		h = v.BackupHints
	}
	if h.Bytes <= 0 {
		h.Bytes = 5 << 20
	}
	return h
}

// slotKey names a slot.
type slotKey struct {
	version *version
	output  string
	group   string // lane, partition, or empty for one that all lanes share
}

// slot is a sequence of batches of one output: of a lane, of a partition, or of
// the whole delivery stream. Batches of a slot are delivered in order, so many at
// a time as its width says. The stream's lock guards it.
type slot struct {
	slotKey
	lane   *lane // nil for one that lanes share
	keys   *record.Keys
	hints  record.Hints
	width  int
	open   *batch
	sealed []*batch // waiting first to last; those under way included
	flying int
	// expected counts batches of an earlier run that are being read again.
	expected int
	full     bool // counted as such
	active   bool // counted as a partition with undelivered records
}

// batch is a buffer with what is known about its records. Once it is sealed, it
// does not change any more, but for settling.
type batch struct {
	slot    *slot
	version int
	id      string
	planned string // the id under which its extent is stored; empty if it is not
	buffer  buffer

	lane          *lane // of the first record
	first, last   record.Position
	oldest        int64
	newest        int64
	count         int
	bytes         int64
	lanes         map[*lane]spans
	only          *lane // the one lane there is so far, and
	spans         spans // what the batch has of it: most batches never need the map
	firstOf       map[*lane]record.Position
	lastOf        map[*lane]record.Position
	due           time.Time
	flying, ended bool
}

// groupOf says which slot records of a lane go to.
func (s *stream) slotLocked(key slotKey, l *lane, keys *record.Keys) *slot {
	if sl, ok := s.slots[key]; ok {
		return sl
	}
	v := key.version
	sl := &slot{slotKey: key, lane: l, keys: keys, hints: v.hints(key.output), width: 1}
	if key.output == outputMain {
		switch {
		case v.Concurrency > 0:
			sl.width = v.Concurrency
		case v.Kind == KindS3:
			sl.width = 4
		}
	}
	if l == nil {
		// Batches of several lanes have no order to speak of, and a partition is
		// delivered one batch after the other.
		sl.width = 1
	}
	s.slots[key] = sl
	if key.output == outputMain && v.Partitioning != nil {
		s.activateLocked(sl)
	}
	return sl
}

// activateLocked counts a partition that gets records.
func (s *stream) activateLocked(sl *slot) {
	if !sl.active {
		sl.active = true
		s.partitions++
	}
}

// restLocked no longer counts a partition all of whose records are delivered,
// even if the slot is still there until that is stored.
func (s *stream) restLocked(sl *slot) {
	if sl.active && sl.open == nil && sl.expected == 0 && !slices.ContainsFunc(sl.sealed, func(b *batch) bool { return !b.ended }) {
		sl.active = false
		s.partitions--
	}
}

// dropLocked forgets a slot that has nothing.
func (s *stream) dropLocked(sl *slot) {
	if sl.open != nil || len(sl.sealed) > 0 || sl.expected > 0 {
		return
	}
	delete(s.slots, sl.slotKey)
	s.restLocked(sl)
}

func (s *stream) newBatchLocked(sl *slot) *batch {
	b := &batch{slot: sl, version: sl.slotKey.version.Version}
	b.buffer.memory = s.engine.memory
	sl.slotKey.version.refs++
	interval := sl.hints.Interval
	b.due = s.engine.now().Add(interval)
	return b
}

// addLocked puts a record into a slot. It seals what is full.
func (s *stream) addLocked(sl *slot, l *lane, r *record.Record, several bool) {
	if p := s.planFor(sl, l, r.Position); p != nil {
		// Everything before it in the slot belongs before it.
		if sl.open != nil && sl.open.only == l {
			s.sealLocked(sl)
		}
		if p.batch == nil {
			p.batch = s.newBatchLocked(sl)
			p.batch.version, p.batch.planned = p.Version, p.id
			sl.expected++
		}
		if l.name == p.Lane && r.Position == p.First {
			p.batch.id = p.id
		}
		s.putLocked(p.batch, l, r, several)
		return
	}
	if b := sl.open; b != nil && b.bytes+int64(len(r.Data)) > sl.hints.Bytes {
		s.sealLocked(sl)
	}
	if sl.open == nil {
		sl.open = s.newBatchLocked(sl)
		if sl.hints.Interval > 0 { // otherwise the end of routing seals it
			s.scheduleLocked(sl.open.due)
		}
		if now := s.engine.now(); !s.freshAt.After(now) {
			s.freshAt = now.Add(freshInterval)
			s.scheduleLocked(s.freshAt)
		}
	}
	s.putLocked(sl.open, l, r, several)
	if sl.open.bytes >= sl.hints.Bytes {
		s.sealLocked(sl)
	}
}

func (s *stream) putLocked(b *batch, l *lane, r *record.Record, several bool) {
	if b.count == 0 {
		b.lane, b.first, b.oldest, b.newest, b.only = l, r.Position, r.Arrival, r.Arrival, l
	}
	b.last = r.Position
	b.oldest, b.newest = min(b.oldest, r.Arrival), max(b.newest, r.Arrival)
	b.count++
	b.bytes += int64(len(r.Data))
	s.records++
	s.bytes += int64(len(r.Data))
	b.buffer.append(l.serial, r)
	if b.only != nil && b.only != l {
		b.lanes = map[*lane]spans{b.only: b.spans}
		b.firstOf = map[*lane]record.Position{b.only: b.first}
		b.lastOf = map[*lane]record.Position{}
		if b.spans.last.n > 0 {
			b.lastOf[b.only] = b.spans.last.last()
		}
		b.only, b.spans = nil, spans{}
	}
	if b.only != nil {
		b.spans = b.spans.add(r.Index, r.Sub, several)
		return
	}
	b.lanes[l] = b.lanes[l].add(r.Index, r.Sub, several)
	if _, ok := b.firstOf[l]; !ok {
		b.firstOf[l] = r.Position
	}
	b.lastOf[l] = r.Position
}

// last is the place of the last record of a span.
func (p span) last() record.Position {
	if p.n&spanSeveral != 0 {
		return record.Position{Index: p.index, Sub: p.sub + p.n&^spanSeveral - 1}
	}
	return record.Position{Index: p.index + uint64(p.n) - 1}
}

// extents are the places of the first and last record of each lane.
func (b *batch) extents(f func(l *lane, first, last record.Position)) {
	if b.only != nil {
		f(b.only, b.first, b.last)
		return
	}
	for l, first := range b.firstOf {
		f(l, first, b.lastOf[l])
	}
}

// eachLane gives what the batch has of every lane.
func (b *batch) eachLane(f func(l *lane, list spans)) {
	if b.only != nil {
		f(b.only, b.spans)
		return
	}
	for l, list := range b.lanes {
		f(l, list)
	}
}

// sealLocked ends the open batch of a slot and has it delivered.
func (s *stream) sealLocked(sl *slot) {
	b := sl.open
	if b == nil {
		return
	}
	sl.open = nil
	s.sealBatchLocked(sl, b)
}

func (s *stream) sealBatchLocked(sl *slot, b *batch) {
	if b.id == "" {
		// Also a batch of an earlier run that comes without its first record, because
		// that took another way this time: should it come back, it may begin a batch
		// of its own, which must not replace this one.
		b.id = batchID(s.id, s.row.Log^s.row.Source, sl.output, sl.group, b.lane.name, b.first, b.version)
	}
	sl.sealed = append(sl.sealed, b)
	s.pumpLocked(sl)
}

// batchID depends on where the batch begins, and on nothing that a restart would
// change. origin is the number of the log or data stream that is read.
func batchID(stream string, origin uint64, output, group, lane string, first record.Position, version int) string {
	h := sha256.New()
	b := binary.BigEndian.AppendUint64(nil, origin)
	for _, text := range []string{stream, output, group, lane} {
		b = appendBytes(b, text)
	}
	b = binary.BigEndian.AppendUint64(b, first.Index)
	b = binary.BigEndian.AppendUint32(b, first.Sub)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// pumpLocked starts deliveries of a slot's batches, as many as may be, and keeps
// count of slots that have more than they can deliver.
func (s *stream) pumpLocked(sl *slot) {
	if !s.paused && s.running {
		for _, b := range sl.sealed {
			if sl.flying >= sl.width {
				break
			}
			if b.flying {
				continue
			}
			b.flying = true
			// The first batch of one lane begins where the lane will be read again
			// after a crash; all others need to be stored to come again as they are.
			plan := b.planned == "" && (sl.flying > 0 || sl.lane == nil || b.only == nil || b.only.kafka != nil)
			sl.flying++
			s.flights.Go(func() { s.fly(b, plan) })
		}
	}
	full := len(sl.sealed)-sl.flying >= 2
	if full == sl.full {
		return
	}
	sl.full = full
	n := 1
	if !full {
		n = -1
	}
	if sl.lane != nil {
		sl.lane.full += n
		sl.lane.nudge()
		return
	}
	s.full += n
	for _, l := range s.lanes {
		l.nudge()
	}
}
