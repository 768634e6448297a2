package delivery

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/record"
)

// stream is one delivery stream at work.
type stream struct {
	engine *Engine
	id     string
	logger *slog.Logger
	series Series
	direct *direct // nil with a source

	group   sync.WaitGroup // lanes and those who look for them
	flights sync.WaitGroup // deliveries and commits
	// reading ends lanes; sending ends deliveries. Both are made by start.
	reading, sending         context.Context
	stopReading, stopSending context.CancelFunc

	commitMu sync.Mutex // one commit at a time; taken before mu

	mu         sync.Mutex
	version    *version
	lanes      map[string]*lane
	serials    []*lane
	slots      map[slotKey]*slot
	plans      map[string][]*plan // by output and group
	partitions int                // slots of partitions
	full       int                // shared slots with too much to deliver
	records    int                // buffered
	bytes      int64
	backlog    backlog // of direct puts
	putting    int64   // bytes of direct puts under way
	running    bool
	paused     bool
	listed     bool // lanes of the source are there, as many as can be read now
	removed    bool
	draining   bool
	eager      int // flushes under way
	last       *Problem
	stalled    int // deliveries that can go nowhere
	ledger     uint64
	ops        []opRow       // for the next commit
	progress   chan struct{} // closed when something was settled
	gone       chan struct{} // closed when it is removed for good
	due        time.Time     // of the next tick; zero for none
	seat       int           // in the schedule; -1 for none
	commitAt   time.Time     // when the account has to be stored; zero for never
	freshAt    time.Time     // when freshness is reported again
	events     map[string]*sampled
	row        streamRow
}

// look is what a lane asks before it reads.
func (s *stream) look(l *lane) (v *version, blocked, eager bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blocked = s.paused || s.full > 0 || l.full > 0 || s.draining
	if blocked {
		return s.version, blocked, s.eager > 0
	}
	// Some buffer may hold old records while others have passed them: the account
	// cannot grow for ever. And a delivery stream that delivers nothing must not
	// take the memory of all others.
	if l.account.window() >= s.engine.window || s.bytes > readBytes && s.engine.memory.unfair(s.bytes) {
		s.sealAllLocked(nil)
		blocked = true
	}
	return s.version, blocked, s.eager > 0
}

func (s *stream) ref(v *version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.refs++
}

func (s *stream) unref(v *version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unrefLocked(v)
}

// unrefLocked gives up a use of a version and closes the destination of one that
// is over.
func (s *stream) unrefLocked(v *version) {
	v.refs--
	if v.refs > 0 || !v.old {
		return
	}
	if v.heir != nil {
		s.unrefLocked(v.heir)
		return
	}
	s.flights.Go(func() { s.closeMain(v) })
}

func (s *stream) closeMain(v *version) {
	if v.Main == nil {
		return
	}
	if err := v.Main.Close(); err != nil {
		s.logger.Warn("close destination", "version", v.Version, "error", err)
	}
}

// route puts what came of a job into the slots, and enters it in the account.
func (s *stream) route(l *lane, j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := j.version
	out, failed := j.out, j.failed
	var mains router
	mains.init(s, l, v)
	for i := range j.entries {
		e := &j.entries[i]
		n, m := 0, 0
		for n < len(out) && out[n].Index == e.index {
			n++
		}
		for m < len(failed) && failed[m].Record.Index == e.index {
			m++
		}
		several := e.partial != nil || n+m > 1 || n == 1 && out[0].Sub != 0 || m == 1 && failed[0].Record.Sub != 0
		missing := uint32(0)
		if several {
			var done *parts
			if e.partial != nil {
				done = &parts{done: slices.Clone(e.partial.done)}
			}
			for k := range out[:n] {
				if !done.has(out[k].Sub) {
					missing++
				}
			}
			for k := range failed[:m] {
				if !done.has(failed[k].Record.Sub) {
					missing++
				}
			}
			if missing > 0 {
				l.account.expect(e.index, done)
			}
		} else {
			missing = uint32(n + m)
		}
		l.account.enter(e.index, missing, e.backup)
		for k := range out[:n] {
			if r := &out[k]; !several || !e.partial.has(r.Sub) {
				mains.main(r, several)
			}
		}
		for k := range failed[:m] {
			f := &failed[k]
			if several && e.partial.has(f.Record.Sub) {
				continue
			}
			line := s3.FailureLine{
				ErrorType: f.ErrorType, Code: f.Code, Message: f.Message, Attempts: f.Attempts, Ended: f.Ended, FunctionARN: f.FunctionARN,
			}
			mains.failure(&f.Record, line, several)
			s.problemLocked(f.Code, f.Message, f.FunctionARN, false, v, false)
		}
		if e.backup {
			r := &j.raw[e.raw]
			sl := s.slotLocked(slotKey{v, outputBackup, mains.group}, mains.slotLane, nil)
			s.addLocked(sl, l, r, false)
		}
		out, failed = out[n:], failed[m:]
	}
	l.account.next = max(l.account.next, j.next)
	l.account.advance()
	l.read = l.account.next
	if k := len(j.entries); k > 0 && len(j.in) > 0 {
		l.lag = j.in[len(j.in)-1].Arrival
	}
	if l.settled != nil && l.read >= l.settled.end() {
		l.settled = nil
	}
	s.movedLocked(l)
	s.finishPlansLocked()
	if v.Partitioning != nil {
		s.series.Add(PartitionCount, float64(s.partitions))
		exceeded := 0.0
		if mains.overflow {
			exceeded = 1
		}
		s.series.Add(PartitionCountExceeded, exceeded)
	}
	if v.Hints.Interval <= 0 {
		s.sealIdleLocked()
	}
	if s.eager > 0 {
		s.progressLocked()
	}
}

// movedLocked is called when records of a lane may have been settled.
func (s *stream) movedLocked(l *lane) {
	low := l.account.low()
	if low == l.stored {
		return
	}
	l.dirty = true
	s.scheduleCommitLocked()
	if s.direct != nil {
		s.backlog.settle(low)
	}
}

// router finds the slots of one job's records.
type router struct {
	s        *stream
	lane     *lane
	version  *version
	slotLane *lane  // nil where lanes share
	group    string // of what is not partitioned
	slot     *slot  // of the last record
	key      []byte // of the last record's partition
	overflow bool
	line     []byte
}

func (r *router) init(s *stream, l *lane, v *version) {
	*r = router{s: s, lane: l, version: v, slotLane: l, group: l.name}
	if v.Merge {
		r.slotLane, r.group = nil, ""
	}
}

// Codes of failures that are found when records are sorted into partitions.
const (
	codePartition       = "DynamicPartitioning.MetadataExtractionFailed"
	codePartitionLimit  = "DynamicPartitioning.ActivePartitionLimitExceeded"
	errorTypePartitions = "activePartitionExceeded"
	errorTypeProcessing = "processing-failed"
)

// main puts a record where the destination gets it from.
func (r *router) main(rec *record.Record, several bool) {
	s := r.s
	p := r.version.Partitioning
	if p == nil {
		if r.slot == nil || s.slots[r.slot.slotKey] != r.slot {
			r.slot = s.slotLocked(slotKey{r.version, outputMain, r.group}, r.slotLane, nil)
		}
		s.addLocked(r.slot, r.lane, rec, several)
		return
	}
	before := len(r.key)
	key, err := p.Prefix.AppendPartition(r.key, rec.Keys)
	if err != nil {
		r.failure(rec, s3.FailureLine{ErrorType: errorTypeProcessing, Code: codePartition, Message: err.Error(), Attempts: 1, Ended: s.engine.now()}, several)
		s.problemLocked(codePartition, err.Error(), "", false, r.version, false)
		return
	}
	same := r.slot != nil && string(key[before:]) == r.slot.group && r.slot.active && s.slots[r.slot.slotKey] == r.slot
	r.key = key[:0]
	if !same {
		k := slotKey{r.version, outputMain, string(key[before:])}
		sl := s.slots[k]
		if sl == nil || !sl.active {
			limit := p.MaxActive
			if limit <= 0 {
				limit = 500
			}
			if s.partitions >= limit {
				r.overflow = true
				const message = "The number of active partitions exceeds the limit of the delivery stream."
				r.failure(rec, s3.FailureLine{ErrorType: errorTypePartitions, Code: codePartitionLimit, Message: message, Attempts: 1, Ended: s.engine.now()}, several)
				s.problemLocked(codePartitionLimit, message, "", false, r.version, false)
				return
			}
			if sl == nil {
				sl = s.slotLocked(k, nil, cloneKeys(rec.Keys))
			}
			s.activateLocked(sl)
		}
		r.slot = sl
	}
	s.addLocked(r.slot, r.lane, rec, several)
}

func cloneKeys(k *record.Keys) *record.Keys {
	if k == nil {
		return nil
	}
	c := *k // the maps are never changed
	return &c
}

// failure puts a record's line where the error output gets it from.
func (r *router) failure(rec *record.Record, line s3.FailureLine, several bool) {
	s := r.s
	line.Arrival, line.Data = rec.Arrival, rec.Data
	if rec.Original != nil {
		line.Data = rec.Original
	}
	r.line = line.Append(r.line[:0])
	f := record.Record{Data: r.line, Arrival: rec.Arrival, Position: rec.Position, Lane: r.lane}
	sl := s.slotLocked(slotKey{r.version, line.ErrorType, r.group}, r.slotLane, nil)
	s.addLocked(sl, r.lane, &f, several)
}

// sealAllLocked seals all open batches: of one lane alone, or of everything.
func (s *stream) sealAllLocked(l *lane) {
	for _, sl := range s.slotListLocked() {
		if l == nil || sl.lane == l {
			s.sealLocked(sl)
		}
	}
}

// sealIdleLocked seals open batches that need not wait, where the slot has nothing
// else to deliver.
func (s *stream) sealIdleLocked() {
	for _, sl := range s.slotListLocked() {
		if sl.open != nil && len(sl.sealed) == 0 && sl.hints.Interval <= 0 {
			s.sealLocked(sl)
		}
	}
}

func (s *stream) slotListLocked() []*slot {
	list := make([]*slot, 0, len(s.slots))
	for _, sl := range s.slots {
		list = append(list, sl)
	}
	return list
}

// idle is called by a lane that has read and routed everything there is.
func (s *stream) idle(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.eager > 0 {
		s.sealAllLocked(nil)
	}
}

// end is called by a lane that came to its end: what it has alone is delivered
// at once, since others wait for it.
func (s *stream) end(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.ended = true
	s.sealAllLocked(l)
	s.finishPlansLocked()
	l.dirty = true
	s.commitAt = s.engine.now()
	s.scheduleLocked(s.commitAt)
	s.progressLocked()
}

// freshInterval is how often the age of what is not delivered is reported.
const freshInterval = time.Minute

// tick does what is due and says when the next thing is.
func (s *stream) tick(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if s.removed || !s.running {
		return next
	}
	for _, sl := range s.slotListLocked() {
		if sl.open == nil {
			continue
		}
		if sl.open.due.After(now) {
			earliest(sl.open.due)
			continue
		}
		// While another is being delivered the buffer may as well grow; the end of
		// that delivery seals it.
		if len(sl.sealed) == 0 {
			s.sealLocked(sl)
		}
	}
	if !s.commitAt.IsZero() && !s.commitAt.After(now) {
		s.commitAt = time.Time{}
		s.flights.Go(func() { _ = s.commit(s.sending) })
	}
	earliest(s.commitAt)
	if s.records > 0 {
		if !s.freshAt.After(now) {
			s.freshAt = now.Add(freshInterval)
			if oldest := s.oldestLocked(outputMain); oldest > 0 {
				s.series.Add(s.version.Kind.metric(suffixFreshness), seconds(now.Sub(time.UnixMilli(oldest))))
			}
		}
		earliest(s.freshAt)
	}
	return next
}

// oldestLocked is the arrival of the oldest buffered record of an output; 0 for
// none.
func (s *stream) oldestLocked(output string) int64 {
	var oldest int64
	see := func(b *batch) {
		if b != nil && b.count > 0 && (oldest == 0 || b.oldest < oldest) {
			oldest = b.oldest
		}
	}
	for _, sl := range s.slots {
		if sl.output != output {
			continue
		}
		see(sl.open)
		for _, b := range sl.sealed {
			see(b)
		}
	}
	return oldest
}

func (s *stream) scheduleLocked(at time.Time) {
	if s.due.IsZero() || at.Before(s.due) {
		s.due = at
		s.engine.schedule(s, at)
	}
}

// commitDelay is how long a settled place that no delivery stores may wait.
const commitDelay = time.Second

func (s *stream) scheduleCommitLocked() {
	if s.commitAt.IsZero() {
		s.commitAt = s.engine.now().Add(commitDelay)
		s.scheduleLocked(s.commitAt)
	}
}

// progressLocked wakes who waits for something to be settled.
func (s *stream) progressLocked() {
	close(s.progress)
	s.progress = make(chan struct{})
}

// setListed says that the lanes of the source were looked for.
func (s *stream) setListed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.listed {
		s.listed = true
		s.progressLocked()
	}
}

// addLane enters a lane and starts to read it.
func (s *stream) addLane(ctx context.Context, name string, source source, shard *Shard, kafka *member, row laneRow, group *sync.WaitGroup) (*lane, error) {
	settled, err := decodeSettled(row.Low, row.Delivery, row.Backup, row.Partial)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.lanes[name]; old != nil {
		return old, nil
	}
	l := &lane{
		stream: s, name: name, serial: uint32(len(s.serials)), source: source, shard: shard, kafka: kafka,
		wake: make(chan struct{}, 1), next: row.Low, read: row.Low, stored: row.Low, ended: row.End,
	}
	l.account.next = row.Low
	if settled.end() > 0 {
		l.settled = settled
	}
	s.lanes[name] = l
	s.serials = append(s.serials, l)
	s.progressLocked()
	ctx, l.cancel = context.WithCancel(ctx)
	if l.ended {
		l.cancel()
	} else {
		group.Go(func() { l.run(ctx) })
	}
	return l, nil
}

// laneOf finds a lane by its number in buffers.
func (s *stream) laneOf(serial uint32) record.Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(serial) < len(s.serials) {
		return s.serials[serial]
	}
	return nil
}
