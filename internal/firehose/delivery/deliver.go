package delivery

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/record"
)

// retryObjects is how objects are retried: for as long as there are records.
var retryObjects = dest.Retry{Duration: -1, Initial: time.Second, Max: 30 * time.Second}

// fly delivers a batch, and everything that belongs to it.
func (s *stream) fly(b *batch, plan bool) {
	ctx := s.sending
	landed := false
	defer func() { s.land(b, landed) }()
	if plan {
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
			err := s.storePlan(ctx, b)
			if err == nil {
				break
			}
			s.logger.Error("store the extent of a batch", "error", err)
			if !sleep(ctx, pause) {
				return
			}
		}
	}
	f := &flight{stream: s, batch: b, version: b.slot.slotKey.version}
	entry, ok := f.run(ctx)
	if !ok {
		return
	}
	s.mu.Lock()
	s.settleLocked(b, entry)
	s.mu.Unlock()
	landed = s.persist(ctx) == nil
}

// settleLocked enters a batch's end in the accounts and the ledger.
func (s *stream) settleLocked(b *batch, entry LedgerEntry) {
	b.eachLane(func(l *lane, list spans) {
		l.account.settle(list, b.slot.output == outputBackup)
		l.dirty = true
		s.movedLocked(l)
		l.nudge()
	})
	if b.planned != "" {
		s.ops = append(s.ops, opRow{deletePlan(s.id, b.planned)})
	}
	s.ledgerLocked(entry)
	b.ended = true
	s.records -= b.count
	s.bytes -= b.bytes
	s.restLocked(b.slot)
}

// land takes a batch out of its slot. One that has not arrived is read again at
// the next start.
func (s *stream) land(b *batch, landed bool) {
	b.buffer.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := b.slot
	sl.flying--
	sl.sealed = slices.DeleteFunc(sl.sealed, func(o *batch) bool { return o == b })
	if !b.ended {
		s.records -= b.count
		s.bytes -= b.bytes
	}
	s.unrefLocked(sl.slotKey.version)
	if landed || !s.draining {
		s.pumpLocked(sl)
	}
	if open := sl.open; open != nil && len(sl.sealed) == 0 && (!open.due.After(s.engine.now()) || s.draining || s.eager > 0) {
		s.sealLocked(sl)
	}
	s.dropLocked(sl)
	s.progressLocked()
}

// flight is the delivery of one batch.
type flight struct {
	stream  *stream
	batch   *batch
	version *version // whose batch it is

	began    time.Time
	attempts int
	objects  []string
	lastErr  string
	stalled  bool
	refused  []refusal // by index
}

// refusal is a record that the destination does not take. A batch may hold
// millions of small ones, and be refused as a whole: what is the same for all is
// there once.
type refusal struct {
	index int // in the batch
	why   *reason
}

// reason is why, and since when.
type reason struct {
	code, message string
	attempts      int
	ended         time.Time
	fields        []dest.Field
}

// run delivers until there is nothing left to do about the batch. False means
// that ctx ended before.
func (f *flight) run(ctx context.Context) (LedgerEntry, bool) {
	s, b := f.stream, f.batch
	f.began = s.engine.now()
	outcome := Delivered
	failed := 0
	switch b.slot.output {
	case outputMain:
		var ok bool
		if outcome, failed, ok = f.deliver(ctx); !ok {
			return LedgerEntry{}, false
		}
	case outputBackup:
		ok := f.write(ctx, "BackupToS3", f.backup, f.source(), "")
		if !ok {
			return LedgerEntry{}, false
		}
	default:
		if !f.write(ctx, "", f.errors, f.source(), b.slot.output) {
			return LedgerEntry{}, false
		}
	}
	now := s.engine.now()
	output := b.slot.output
	if output == outputMain {
		output = "delivery"
	}
	return LedgerEntry{
		At: now, Output: output, Outcome: outcome, Objects: f.objects, BatchID: b.id, Version: b.version, Lane: b.lane.name,
		Partition: f.partition(), From: f.numberOf(true), To: f.numberOf(false), Records: b.count, Failed: failed, Bytes: b.bytes,
		Attempts: f.attempts, Took: now.Sub(f.began), Error: clip(f.lastErr, 512),
	}, true
}

func (f *flight) partition() string {
	if f.batch.slot.output == outputMain && f.version.Partitioning != nil {
		return clip(f.batch.slot.group, 512)
	}
	return ""
}

func (f *flight) numberOf(first bool) string {
	b := f.batch
	if first {
		return b.lane.SequenceNumber(b.first.Index, b.oldest)
	}
	last := b.lane
	at := b.first.Index
	b.extents(func(l *lane, _, end record.Position) {
		if l == last {
			at = end.Index
		}
	})
	return last.SequenceNumber(at, b.newest)
}

// newest is the version whose settings an attempt follows: a retry goes where an
// update says, as long as that is the same kind of place. Objects stay with the
// version they are named after. done ends the use.
func (f *flight) newest() (v *version, done func()) {
	s := f.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	v = f.version
	if now := s.version; now.Kind == v.Kind && v.Kind != KindS3 {
		v = now
	}
	v.refs++
	return v, func() { s.unref(v) }
}

// errors and backup are the writers of the newest version.
func (f *flight) errors() Writer {
	v, done := f.newest()
	defer done()
	return v.Errors
}

func (f *flight) backup() Writer {
	v, done := f.newest()
	defer done()
	return v.Backup
}

// source is the batch as destinations see it.
func (f *flight) source() *record.Batch {
	b, s := f.batch, f.stream
	r := record.NewBatch(func(each func(int, *record.Record) error) error { return b.buffer.each(s.laneOf, each) })
	r.Stream = f.version.record()
	r.Stream.Version = b.version
	r.ID, r.Keys, r.Lane, r.First, r.Last = b.id, b.slot.keys, b.lane, b.first, b.last
	r.Partition = f.partition()
	r.Oldest, r.Newest, r.Count, r.Bytes = b.oldest, b.newest, b.count, b.bytes
	r.FirstAttempt = f.began
	return r
}

// deliver sends the batch to the destination, again and again as the retry says,
// and what is refused in the end to the error output.
func (f *flight) deliver(ctx context.Context) (outcome Outcome, failed int, ok bool) {
	s, b := f.stream, f.batch
	whole := f.source()
	retry := f.version.Retry
	if f.version.Kind == KindS3 {
		retry = retryObjects
	}
	clock := newClock(retry, f.began)
	rest := whole           // what is still to be delivered
	var places []int        // of its records in whole; nil for all
	var problem *dest.Error // of the last attempt
	for {
		if !f.admit(ctx) {
			return "", 0, false
		}
		v, done := f.newest()
		f.attempts++
		rest.Attempt = f.attempts
		result, err := f.attempt(ctx, v, rest)
		done()
		now := s.engine.now()
		if err != nil && ctx.Err() != nil {
			return "", 0, false
		}
		for _, o := range result.Objects {
			f.objects = append(f.objects, clip(o.Name, 1024))
		}
		f.measure(v, rest, result, err, now)
		var again []int
		problem = nil
		var after time.Duration
		if err != nil {
			problem = asError(err)
			f.lastErr = problem.Error()
			after = problem.After
			s.problem(problem.Code, problem.Message, "", false)
			if !problem.Permanent {
				again = everything(rest.Count)
			} else {
				f.refuse(places, everything(rest.Count), problem, now)
			}
		}
		for _, r := range result.Failed {
			if err != nil {
				break
			}
			if r.Retry {
				again = append(again, r.Index)
				f.lastErr = r.Code + ": " + r.Message
				problem = &dest.Error{Code: r.Code, Message: r.Message}
				continue
			}
			f.refused = append(f.refused, f.refusal(places, r, now))
		}
		if n := len(result.Failed); err == nil && n > 0 {
			first := result.Failed[0]
			s.problem(first.Code, first.Message, "", false)
		}
		if len(again) == 0 {
			break
		}
		pause, more := clock.next(now, result.Waited, after)
		if s.expired(b) {
			return Expired, b.count, true
		}
		if !more {
			// What may be accepted later is refused now.
			for _, r := range result.Failed {
				if err == nil && r.Retry {
					f.refused = append(f.refused, f.refusal(places, r, now))
				}
			}
			if err != nil {
				if done, result, ok := f.abandon(ctx, rest, problem); !ok {
					return "", 0, false
				} else if done {
					for _, o := range result.Objects {
						f.objects = append(f.objects, clip(o.Name, 1024))
					}
					return Refused, rest.Count + len(f.refused), true
				}
				f.refuse(places, again, problem, now)
			}
			break
		}
		if err == nil {
			next := make([]int, len(again))
			for i, index := range again {
				next[i] = at(places, index)
			}
			places = next
			rest = whole.Subset(places)
			rest.FirstAttempt = f.began
		}
		if !f.wait(ctx, pause) {
			return "", 0, false
		}
	}
	switch {
	case len(f.refused) == 0:
		return Delivered, 0, true
	case len(f.refused) == b.count:
		outcome = Refused
	default:
		outcome = Partly
	}
	return outcome, len(f.refused), f.putAside(ctx, whole)
}

func everything(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func at(places []int, i int) int {
	if places == nil {
		return i
	}
	return places[i]
}

func asError(err error) *dest.Error {
	var e *dest.Error
	if errors.As(err, &e) {
		return e
	}
	return &dest.Error{Code: "InternalError", Message: err.Error(), Err: err}
}

func (f *flight) refuse(places, indexes []int, e *dest.Error, now time.Time) {
	why := &reason{code: e.Code, message: clip(e.Message, 8192), attempts: f.attempts, ended: now}
	f.refused = slices.Grow(f.refused, len(indexes))
	for _, i := range indexes {
		f.refused = append(f.refused, refusal{at(places, i), why})
	}
}

// refusal is that of one record, often for the reason of the one before.
func (f *flight) refusal(places []int, r dest.Failure, now time.Time) refusal {
	why := &reason{r.Code, clip(r.Message, 8192), f.attempts, now, r.Fields}
	if n := len(f.refused); n > 0 && len(r.Fields) == 0 {
		if last := f.refused[n-1].why; len(last.fields) == 0 && last.code == why.code && last.message == why.message && last.attempts == why.attempts && last.ended.Equal(now) {
			why = last
		}
	}
	return refusal{at(places, r.Index), why}
}

// abandon hands the batch back to a destination that keeps what it could not
// deliver itself. done is false for all others.
func (f *flight) abandon(ctx context.Context, rest *record.Batch, problem *dest.Error) (done bool, result dest.Result, ok bool) {
	v, end := f.newest()
	defer end()
	a, is := v.Main.(dest.Abandoner)
	if !is {
		return false, result, true
	}
	clock := newClock(retryObjects, f.stream.engine.now())
	for {
		if !f.admit(ctx) {
			return false, result, false
		}
		result, err := a.Abandon(ctx, rest, problem)
		if err == nil {
			f.unstall()
			return true, result, true
		}
		if !f.stall(ctx, clock, asError(err)) {
			return false, result, false
		}
	}
}

// attempt makes one delivery, when there is a worker for it.
func (f *flight) attempt(ctx context.Context, v *version, b *record.Batch) (dest.Result, error) {
	workers := f.stream.engine.remote
	if v.Kind == KindS3 {
		workers = f.stream.engine.local
	}
	if err := workers.Acquire(ctx, 1); err != nil {
		return dest.Result{}, err
	}
	defer workers.Release(1)
	return v.Main.Deliver(ctx, b)
}

// admit waits while the delivery stream is paused. False if ctx ended.
func (f *flight) admit(ctx context.Context) bool {
	s := f.stream
	for ctx.Err() == nil {
		s.mu.Lock()
		paused, progress := s.paused, s.progress
		s.mu.Unlock()
		if !paused {
			return true
		}
		select {
		case <-progress:
		case <-ctx.Done():
		}
	}
	return false
}

// wait is a pause between attempts.
func (f *flight) wait(ctx context.Context, d time.Duration) bool { return sleep(ctx, d) }

// stall waits before what has to succeed is tried again.
func (f *flight) stall(ctx context.Context, clock *clock, e *dest.Error) bool {
	s := f.stream
	f.lastErr = e.Error()
	s.problem(e.Code, e.Message, "", true)
	if !f.stalled {
		f.stalled = true
		s.mu.Lock()
		s.stalled++
		s.mu.Unlock()
	}
	pause, _ := clock.next(s.engine.now(), 0, e.After)
	if !sleep(ctx, pause) {
		f.unstall()
		return false
	}
	return true
}

func (f *flight) unstall() {
	if f.stalled {
		f.stalled = false
		f.stream.mu.Lock()
		f.stream.stalled--
		f.stream.mu.Unlock()
	}
}

// write stores an object of a backup or an error output, and does not give up:
// the lane waits meanwhile. False if ctx ended.
func (f *flight) write(ctx context.Context, metric string, writer func() Writer, b *record.Batch, errorType string) bool {
	s := f.stream
	clock := newClock(retryObjects, s.engine.now())
	for {
		if !f.admit(ctx) {
			return false
		}
		f.attempts++
		name, err := f.writeOnce(ctx, writer(), b, errorType)
		if err != nil && ctx.Err() != nil {
			f.unstall()
			return false
		}
		now := s.engine.now()
		if metric != "" {
			s.series.Add(Metric(metric+suffixSuccess), success(err == nil))
		}
		if err == nil {
			if metric != "" {
				s.series.Add(Metric(metric+suffixRecords), float64(b.Count))
				s.series.Add(Metric(metric+suffixBytes), float64(b.Bytes))
				s.series.Add(Metric(metric+suffixFreshness), seconds(now.Sub(time.UnixMilli(b.Oldest))))
			}
			if name != "" {
				f.objects = append(f.objects, clip(name, 1024))
			}
			f.unstall()
			return true
		}
		if s.expired(f.batch) {
			f.unstall()
			return true
		}
		if !f.stall(ctx, clock, asError(err)) {
			return false
		}
	}
}

var errNoWriter = &dest.Error{Code: "S3.InvalidPrefixConfigurationException", Message: "No bucket is configured for what cannot be delivered."}

func (f *flight) writeOnce(ctx context.Context, w Writer, b *record.Batch, errorType string) (string, error) {
	if w == nil {
		return "", errNoWriter
	}
	workers := f.stream.engine.local
	if err := workers.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer workers.Release(1)
	return w.WriteBatch(ctx, b, errorType)
}

func success(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

// aside is an error output and the type of what goes there.
type aside struct{ errorType, output string }

// putAside writes the records that were refused to the error output, as one
// object for each type and table, named after the batch.
func (f *flight) putAside(ctx context.Context, whole *record.Batch) bool {
	v := f.version
	slices.SortStableFunc(f.refused, func(a, b refusal) int { return a.index - b.index })
	newest, done := f.newest()
	defer done()
	output := func(int) string { return "" }
	if placer, ok := newest.Main.(dest.Placer); ok && len(newest.ErrorsOf) > 0 {
		names := f.outputs(whole, placer)
		output = func(i int) string { return names[i] }
	}
	lists := map[aside][]refusal{}
	for i, r := range f.refused {
		t := v.errorType()
		if isConversion(r.why.code) {
			t = "format-conversion-failed"
		} else if v.Kind == KindS3 {
			t = errorTypeProcessing
		}
		to := aside{t, output(i)}
		lists[to] = append(lists[to], r)
	}
	annotator, _ := newest.Main.(dest.Annotator)
	order := slices.SortedFunc(maps.Keys(lists), func(a, b aside) int {
		return cmp.Or(strings.Compare(a.errorType, b.errorType), strings.Compare(a.output, b.output))
	})
	for _, to := range order {
		lines := failureLines(whole, to.errorType, lists[to], annotator)
		if to.output != "" {
			// Two outputs may have the same prefix.
			lines.ID = idOf(lines.ID, to.output)
		}
		if !f.write(ctx, "", func() Writer { return f.errorsOf(to.output) }, lines, to.errorType) {
			return false
		}
	}
	return true
}

// outputs names the error outputs of the refused records. Those behind a record
// that cannot be read stay with the destination's.
func (f *flight) outputs(whole *record.Batch, placer dest.Placer) []string {
	names := make([]string, len(f.refused))
	n := 0
	err := whole.Each(func(i int, r *record.Record) error {
		if n < len(names) && f.refused[n].index == i {
			names[n] = placer.ErrorOutput(r)
			n++
		}
		return nil
	})
	if err != nil {
		f.stream.logger.Error("read what failed", "error", err)
	}
	return names
}

// errorsOf is the error output of a name, or the destination's if the newest
// version has none of that name.
func (f *flight) errorsOf(name string) Writer {
	v, done := f.newest()
	defer done()
	if w := v.ErrorsOf[name]; w != nil {
		return w
	}
	return v.Errors
}

// idOf is the id of an object beside that of the batch, the same every time.
func idOf(id, output string) string {
	h := sha256.Sum256([]byte(id + "\x00" + output))
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

func isConversion(code string) bool {
	const prefix = "DataFormatConversion."
	return len(code) > len(prefix) && code[:len(prefix)] == prefix
}

// failureLines is the batch of the lines about refused records; they are made
// while it is read.
func failureLines(whole *record.Batch, errorType string, list []refusal, annotator dest.Annotator) *record.Batch {
	lines := record.NewBatch(func(each func(int, *record.Record) error) error {
		var text []byte
		n := 0
		return whole.Each(func(i int, r *record.Record) error {
			if n == len(list) || list[n].index != i {
				return nil
			}
			why := list[n].why
			line := s3.FailureLine{
				ErrorType: errorType, Code: why.code, Message: why.message, Attempts: why.attempts, Arrival: r.Arrival, Ended: why.ended,
				Data: r.Data, Fields: why.fields,
			}
			if r.Original != nil {
				line.Data = r.Original
			}
			if annotator != nil {
				line.Fields = append(annotator.FailureFields(r), why.fields...)
			}
			text = line.Append(text[:0])
			out := record.Record{Data: text, Arrival: r.Arrival, Lane: r.Lane, Position: r.Position}
			err := each(n, &out)
			n++
			return err
		})
	})
	lines.Stream, lines.ID, lines.Lane, lines.First, lines.Last = whole.Stream, whole.ID, whole.Lane, whole.First, whole.Last
	lines.Oldest, lines.Newest, lines.Count, lines.Attempt = whole.Oldest, whole.Newest, len(list), 1
	return lines
}

// clock decides when a delivery is repeated.
type clock struct {
	dest.Retry
	start  time.Time // of counting; zero before
	pause  time.Duration
	waited time.Duration // not counted
}

func newClock(r dest.Retry, began time.Time) *clock {
	if r.Initial <= 0 {
		r.Initial = time.Second
	}
	if r.Max <= 0 {
		r.Max = 2 * time.Minute
	}
	if r.Factor < 1 {
		r.Factor = 2
	}
	if r.Jitter <= 0 {
		r.Jitter = 0.15
	}
	c := &clock{Retry: r, pause: r.Initial}
	if r.FromFirstAttempt {
		c.start = began
	}
	return c
}

// next is called after an attempt that failed at now, waited of which is not to
// be counted, and says whether and when there is another.
func (c *clock) next(now time.Time, waited, after time.Duration) (pause time.Duration, more bool) {
	if c.Duration == 0 {
		return 0, false
	}
	switch {
	case c.start.IsZero():
		c.start = now // counting starts with the first failure
	case !c.FromFirstAttempt:
		c.waited += waited
	}
	elapsed := now.Sub(c.start) - c.waited
	if c.Duration > 0 && elapsed >= c.Duration {
		return 0, false
	}
	pause = time.Duration(float64(c.pause) * (1 + c.Jitter*(2*rand.Float64()-1)))
	c.pause = min(time.Duration(float64(c.pause)*c.Factor), c.Max)
	pause = max(pause, after)
	if c.Duration > 0 {
		// The last attempt is made when the time is over, not later.
		pause = min(pause, max(c.Duration-elapsed, 0))
	}
	return pause, true
}
