package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/aggregate"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/keyring"
)

const (
	// readBytes is how much a lane reads at a time.
	readBytes = 1 << 20
	// maxWindow bounds the records of a lane between the oldest unsettled one and
	// where it reads, and with it the memory of accounts.
	maxWindow = 1 << 20
	// invocations are how many function calls of a lane are under way at most.
	invocations       = 5
	invocationsSplunk = 10
)

// lane reads one lane of a source and routes what comes of it.
type lane struct {
	stream *stream
	name   string
	serial uint32 // in the buffers of the stream
	source source
	shard  *Shard  // of a data stream
	kafka  *member // of a topic

	cancel context.CancelFunc // ends run
	wake   chan struct{}      // something changed that the lane may wait for; capacity 1
	next   uint64             // where to read on; the lane's goroutine only

	// The stream's lock guards what follows.
	account account
	settled *settled // of an earlier run, until it is passed
	full    int      // slots of the lane alone with too much to deliver
	ended   bool     // the source came to its end, and all was routed
	dirty   bool     // the stored account is behind
	read    uint64   // index behind the last record that was routed
	lag     int64    // arrival of the last record that was routed
	stored  uint64   // low of the stored account
}

// Name and SequenceNumber make it a record.Lane.
func (l *lane) Name() string { return l.name }

// SequenceNumber names a record.
func (l *lane) SequenceNumber(index uint64, arrival int64) string {
	return l.source.number(index, arrival)
}

func (l *lane) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// entry is one record as it was read.
type entry struct {
	index   uint64
	deliver bool // not only to be backed up
	backup  bool
	raw     int    // place in job.raw, if it is to be backed up
	partial *parts // of an earlier run
}

// job is what goes through the chain at once.
type job struct {
	version *version
	entries []entry
	raw     []record.Record // for the backup
	in      []record.Record
	bytes   int64
	since   time.Time

	out    []record.Record
	failed []process.Failed
	// refused are those that the chain does not see.
	refused []process.Failed
	stats   process.Stats
	err     error
	took    time.Duration
	done    chan struct{} // closed when it has been processed; nil where nobody waits

	held  int64  // of what may be gathered
	arena []byte // owns the bytes, where a job is gathered from several reads
	next  uint64
	read  process.Count
}

var jobs = sync.Pool{New: func() any { return new(job) }}

func (j *job) release(e *Engine) {
	e.gathered.Release(j.held)
	clear(j.in)
	clear(j.raw)
	clear(j.entries)
	*j = job{entries: j.entries[:0], raw: j.raw[:0], in: j.in[:0]}
	jobs.Put(j)
}

var runPool = sync.Pool{New: func() any { return new(Run) }}

// errBusy means that as much has been gathered for functions as may be.
var errBusy = errors.New("delivery: too much is waiting for functions")

// run reads until ctx ends, or the source does.
func (l *lane) run(ctx context.Context) {
	s := l.stream
	var (
		queue   []*job // under way, in order
		pending *job   // being gathered
		group   sync.WaitGroup
		ended   bool
		pause   time.Duration // after an error
		busy    bool          // nothing more can be gathered now
	)
	defer func() {
		l.cancel()
		group.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, j := range append(queue, pending) {
			if j != nil {
				s.unrefLocked(j.version)
				s.engine.gathered.Release(j.held)
			}
		}
	}()
	for ctx.Err() == nil {
		for len(queue) > 0 && isClosed(queue[0].done) {
			j := queue[0]
			queue = queue[1:]
			if j.err != nil { // only that of a context that ended
				s.unref(j.version)
				s.engine.gathered.Release(j.held)
				return
			}
			if !l.finish(ctx, j) {
				return
			}
		}
		v, blocked, eager := s.look(l)
		now := s.engine.now()
		width := invocations
		if v.Kind == KindSplunk {
			width = invocationsSplunk
		}
		if pending != nil && len(queue) < width {
			limits := pending.version.Chain.BatchLimits()
			if pending.bytes >= limits.Bytes || now.Sub(pending.since) >= limits.Interval || eager || ended || busy || pending.version != v {
				j := pending
				j.done = make(chan struct{})
				queue, pending = append(queue, j), nil
				group.Go(func() { l.process(ctx, j); close(j.done) })
				continue
			}
		}
		var changed, ending <-chan struct{}
		var timer *time.Timer
		gathering := v.Chain.BatchLimits().Bytes > 0
		canRead := !ended && !blocked && !busy && pause == 0 && (pending == nil || pending.bytes < pending.version.Chain.BatchLimits().Bytes)
		if canRead {
			ending = l.source.ending() // before looking
			var tail uint64
			tail, changed = l.source.tail()
			if l.next < tail || ending != nil && l.next >= tail && l.atEnd(ctx) {
				var err error
				if ended, err = l.fetch(ctx, v, gathering, &pending); err != nil {
					if ctx.Err() != nil {
						return
					}
					if err == errBusy {
						// Others have gathered much; what is here need not wait for more.
						busy = true
					} else {
						pause = l.failed(err)
					}
				}
				continue
			}
		}
		if pending == nil && len(queue) == 0 {
			if ended {
				s.end(l)
				return
			}
			if canRead {
				s.idle(l)
			}
		}
		var head <-chan struct{}
		if len(queue) > 0 {
			head = queue[0].done
		}
		var due <-chan time.Time
		switch {
		case pause > 0:
			timer = time.NewTimer(pause)
		case busy:
			timer = time.NewTimer(50 * time.Millisecond)
		case pending != nil && len(queue) < width:
			timer = time.NewTimer(pending.version.Chain.BatchLimits().Interval - now.Sub(pending.since))
		}
		if timer != nil {
			due = timer.C
		}
		select {
		case <-head:
		case <-due:
			pause, busy = 0, false
		case <-changed:
		case <-ending:
		case <-l.wake:
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// atEnd asks whether a source that has nothing to read now has come to its end.
func (l *lane) atEnd(ctx context.Context) bool {
	run := runPool.Get().(*Run)
	defer runPool.Put(run)
	return l.source.read(ctx, l.next, 1, run) == nil && run.End
}

// failed notes that reading failed and says how long to wait.
func (l *lane) failed(err error) time.Duration {
	s := l.stream
	code := "Kinesis.ServiceException"
	switch {
	case l.shard == nil && l.kafka == nil:
		code = "InternalError"
		for _, k := range []struct {
			err    error
			code   string
			metric Metric
		}{
			{keyring.ErrDisabled, "Firehose.KMS.KeyDisabled", KMSKeyDisabled},
			{keyring.ErrInvalidState, "Firehose.KMS.InvalidStateException", KMSKeyInvalidState},
			{keyring.ErrNotFound, "Firehose.KMS.NotFoundException", KMSKeyNotFound},
		} {
			if errors.Is(err, k.err) {
				code = k.code
				s.series.Add(k.metric, 1)
			}
		}
	case l.kafka != nil:
		code = "MSK.ServiceException"
	}
	s.problem(code, "records cannot be read: "+err.Error(), "", false)
	return 5 * time.Second
}

// fetch reads once and either routes what it read or adds it to what is gathered
// for a function.
func (l *lane) fetch(ctx context.Context, v *version, gathering bool, pending **job) (ended bool, err error) {
	s := l.stream
	e := s.engine
	if err := e.reads.Acquire(ctx, readBytes); err != nil {
		return false, err
	}
	defer e.reads.Release(readBytes)
	run := runPool.Get().(*Run)
	defer func() {
		if cap(run.buf) <= 4*readBytes {
			runPool.Put(run)
		}
	}()
	want := readBytes
	if gathering {
		want = int(min(readBytes, v.Chain.BatchLimits().Bytes))
		if !e.gathered.TryAcquire(int64(want)) {
			return false, errBusy
		}
	}
	if err := l.source.read(ctx, l.next, want, run); err != nil {
		if gathering {
			e.gathered.Release(int64(want))
		}
		return false, err
	}
	if run.Lost > 0 {
		s.lost(l, run.Lost)
	}
	j := *pending
	if j == nil {
		j = jobs.Get().(*job)
		s.ref(v)
		j.version, j.since = v, e.now()
	}
	before, from := j.bytes, l.next
	l.open(j, run, gathering)
	l.next = run.Next
	j.next = run.Next
	if gathering {
		size := min(j.bytes-before, int64(want))
		e.gathered.Release(int64(want) - size)
		j.held += size
		if j.next == from && len(j.entries) == 0 { // nothing at all
			s.unref(v)
			j.release(s.engine)
			j = nil
		}
		*pending = j
		return run.End, nil
	}
	l.process(ctx, j)
	if j.err != nil {
		s.unref(v)
		return false, j.err
	}
	if !l.finish(ctx, j) {
		return false, ctx.Err()
	}
	return run.End, nil
}

// target is the index behind everything that the source has now.
func (l *lane) target() uint64 {
	if l.kafka != nil {
		return l.kafka.available()
	}
	next, _ := l.source.tail()
	return next
}

// open makes records of what was read: passes over what is settled and opens
// aggregates. With copying the bytes are the job's own.
func (l *lane) open(j *job, run *Run, copying bool) {
	s := l.stream
	backup := j.version.Backup != nil
	if copying {
		size := 0
		for i := range run.Records {
			size += len(run.Records[i].Data) + len(run.Records[i].PartitionKey)
		}
		// Records keep pointing into arenas that were used up.
		if cap(j.arena)-len(j.arena) < size {
			j.arena = make([]byte, 0, max(size, 64<<10))
		}
	}
	keep := func(b []byte) []byte {
		if !copying || b == nil {
			return b
		}
		at := len(j.arena)
		j.arena = append(j.arena, b...)
		return j.arena[at:len(j.arena):len(j.arena)]
	}
	s.mu.Lock()
	settled := l.settled
	s.mu.Unlock()
	for i := range run.Records {
		r := &run.Records[i]
		e := entry{index: r.Index, deliver: true, backup: backup}
		if settled != nil {
			e.deliver = !settled.delivery.has(r.Index)
			e.backup = backup && !settled.backup.has(r.Index)
			e.partial = settled.partial[r.Index]
		}
		if !e.deliver && !e.backup {
			j.entries = append(j.entries, e)
			continue
		}
		rec := record.Record{Data: keep(r.Data), Arrival: r.Arrival, Lane: l, PartitionKey: keep(r.PartitionKey)}
		rec.Index = r.Index
		if rec.Data == nil {
			rec.Data = []byte{}
		}
		j.read.Records++
		j.read.Bytes += int64(len(rec.Data))
		if e.backup {
			e.raw = len(j.raw)
			j.raw = append(j.raw, rec)
		}
		j.entries = append(j.entries, e)
		if !e.deliver {
			continue
		}
		j.bytes += int64(len(rec.Data))
		if l.kafka != nil && len(rec.Data) > l.kafka.maxRecord() {
			j.refused = append(j.refused, process.Failed{
				Record: rec, ErrorType: errorTypeProcessing, Code: "MSK.RecordTooLarge", Attempts: 1, Ended: s.engine.now(),
				Message: "The record of the topic is larger than a delivery stream takes.",
			})
			s.series.Add(FailedValidationRecords, 1)
			s.series.Add(FailedValidationBytes, float64(len(rec.Data)))
			continue
		}
		if l.shard != nil && aggregate.Is(rec.Data) {
			if parts, ok := aggregate.Decode(rec.Data); ok {
				l.openAggregate(j, rec, parts)
				continue
			}
		}
		j.in = append(j.in, rec)
	}
}

// openAggregate adds the user records that belong to the shard's range: after a
// resharding, an aggregate may hold some that went with its first key only.
func (l *lane) openAggregate(j *job, whole record.Record, parts []aggregate.Record) {
	source := l.source.(*shardSource)
	for i := range parts {
		p := &parts[i]
		hash, ok := [16]byte{}, false
		if p.ExplicitHashKey != "" {
			hash, ok = source.stream.Explicit(p.ExplicitHashKey)
		}
		if !ok {
			hash = source.stream.Hash(p.PartitionKey)
		}
		if slices.Compare(hash[:], l.shard.Start[:]) < 0 || slices.Compare(hash[:], l.shard.End[:]) > 0 {
			continue
		}
		r := whole
		r.Data, r.PartitionKey, r.Sub = p.Data, []byte(p.PartitionKey), uint32(i)
		j.in = append(j.in, r)
	}
}

// process runs a job through the chain.
func (l *lane) process(ctx context.Context, j *job) {
	s := l.stream
	v := j.version
	if v.Chain.Empty() || len(j.in) == 0 {
		j.out, j.failed = j.in, j.refused
		return
	}
	meta := process.SourceMeta{Stream: v.record()}
	switch {
	case l.shard != nil:
		meta.Source = process.Kinesis
	case l.kafka != nil:
		meta.Source = process.Kafka
	}
	start := s.engine.now()
	j.out, j.failed, j.stats, j.err = v.Chain.ProcessOwn(ctx, j.in, meta)
	j.took = s.engine.now().Sub(start)
	j.failed = append(j.failed, j.refused...)
	// Failures are listed by step; here they stand beside their neighbours.
	slices.SortStableFunc(j.failed, func(a, b process.Failed) int { return a.Record.Position.Compare(b.Record.Position) })
}

// finish routes a job that has been processed. False if ctx ended.
func (l *lane) finish(ctx context.Context, j *job) bool {
	s := l.stream
	size := int64(0)
	for i := range j.out {
		size += int64(len(j.out[i].Data) + 64)
	}
	for i := range j.failed {
		size += int64(len(j.failed[i].Record.Data)*3/2 + 256)
	}
	for i := range j.raw {
		size += int64(len(j.raw[i].Data) + 64)
	}
	if err := s.engine.memory.reserve(ctx, size); err != nil {
		s.unref(j.version)
		s.engine.gathered.Release(j.held)
		return false
	}
	s.measure(l, j)
	s.route(l, j)
	s.unref(j.version)
	j.release(s.engine)
	return true
}
