package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
	// tellAgain is how long what is told of a part keeps it from being told again.
	tellAgain = time.Minute
	// maxProblem bounds what is told, in bytes: a function's answer may be in it.
	maxProblem = 1 << 10
	// slowAfter is how long a destination may take for rows before the status says so.
	slowAfter = 10 * time.Second
	// sampleEvery is how often what has no event of its own is measured.
	sampleEvery = time.Second
	// kpuMemory is what the service counts as the memory of one unit, in bytes.
	kpuMemory = 4 << 30
)

// application is a program that runs.
type application struct {
	h      *Host
	a      *app.Application
	engine *run.Application
	series Series
	ctx    context.Context // ends when the application is to stop
	cancel context.CancelFunc
	// sending outlives ctx by the time that rows have to be delivered in the end.
	sending    context.Context
	endSending context.CancelFunc
	done       chan struct{}

	inputs  []*input
	outputs []*output
	chunks  chan *chunk

	// The loop's own.
	places  map[string]inputPlaces
	last    int64  // the newest instant, in milliseconds since 1970
	steps   uint64 // that have begun
	made    uint64 // rows for outputs
	changed bool   // since the last checkpoint
	saving  *saving
	mark    mark     // of the last valid checkpoint
	unsaved bool     // the last attempt at one failed
	journal *journal // nil if rows may come twice
	repeats []step   // to be done again
	// repeating is where the steps come from that are being repeated; nil if none are.
	repeating *chain
	epoch     uint64

	clock  atomic.Int64 // the instant of the step, in milliseconds since 1970
	behind bool         // the machine's clock is behind last

	mu       sync.Mutex
	problems map[string]string // by what has them
	told     map[string]telling
	failure  string // why the application has ended by itself

	rowsIn, rowsOut atomic.Int64
	busy            atomic.Int64 // nanoseconds of work
	state           atomic.Int64 // bytes
}

// telling is what was told of a part, and when.
type telling struct {
	text string
	at   time.Time
}

// open brings an application to its checkpoint. A mistake in the engine is an error
// as in guard.
func (h *Host) open(a *app.Application, program *plan.Program) (_ *application, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.o.Logger.Error("application met a mistake of the engine", "application", a.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("application %s cannot go on: an internal error: %v", a.Name, p)
		}
	}()
	m := h.o.Metrics
	r := &application{h: h, a: a, series: m.Series(a.Account, a.Region, a.Name, "", ""), done: make(chan struct{}),
		chunks: make(chan *chunk, chunkQueue), changed: true,
		places: map[string]inputPlaces{}, problems: map[string]string{}, told: map[string]telling{}}
	r.ctx, r.cancel = context.WithCancel(h.ctx)
	r.sending, r.endSending = context.WithCancel(context.WithoutCancel(h.ctx))
	ready := false
	defer func() {
		if !ready {
			r.cancel()
			r.endSending()
		}
	}()
	// Time in the program stands still in a step, so that a step can be repeated.
	r.clock.Store(h.o.Now().UnixMilli())
	p, ok, damaged, err := r.restore(program)
	if err != nil {
		return nil, fmt.Errorf("application %s: %w", a.Name, err)
	}
	var before *chain
	if ok {
		before, r.last = p.Journal, p.Now
	}
	if damaged {
		// What it held is made again from the records that are still there.
		how := "it begins anew"
		if ok {
			how = "it goes on from the one before"
		}
		r.problem("state", "", "CheckpointError", "the application's checkpoint is damaged: "+how)
		r.problem("state", "", "", "")
	}
	for _, spec := range a.Inputs {
		in, err := r.newInput(spec)
		if err != nil {
			return nil, err
		}
		in.from = startOf(spec.Start, damaged)
		if before, has := p.Inputs[spec.ID]; ok && has && (p.Run == a.Run || spec.Start.Start == app.LastStopped) {
			in.from = before.From
			in.knows(before)
			r.places[spec.ID] = before
		}
		r.inputs = append(r.inputs, in)
	}
	for _, spec := range a.Outputs {
		columns, there := r.engine.Stream(spec.Stream)
		if !there {
			// Nothing is ever delivered. The service starts such an application in silence.
			r.problem("output "+spec.ID, spec.ID, "OutputError", fmt.Sprintf("the program creates no in-application stream %s: names of outputs are compared in their case, and a name without quotes is in upper case", spec.Stream))
			continue
		}
		o := r.newOutput(spec, columns)
		if err := r.engine.Tap(spec.Stream, func(b *run.Batch) { r.take(o, b) }); err != nil {
			return nil, err
		}
		r.outputs = append(r.outputs, o)
	}
	if err := r.openJournal(before); err != nil {
		return nil, err
	}
	ready = true
	return r, nil
}

// restore makes the engine and brings it to the newest checkpoint that can be used:
// ok is false if there is none. A run goes on where it was. A new one begins where
// its inputs say, and takes the state of the one before along if that is where they
// begin.
func (r *application) restore(program *plan.Program) (p places, ok, damaged bool, err error) {
	o := run.Options{Now: func() time.Time { return time.UnixMilli(r.clock.Load()) }, Seed: rand.Uint64(), Workers: r.h.o.Workers, MemoryLimit: r.h.o.MemoryLimit}
	r.engine = run.New(program, o)
	for _, suffix := range []string{"", previousSuffix} {
		name := fileName(r.a.ID) + suffix
		p, snapshot, ok, err := r.h.load(name)
		switch {
		case err == nil && !ok:
			continue
		case err == nil && !r.resumes(p):
			return places{}, false, damaged, nil
		case err == nil:
			if _, err = r.engine.Restore(snapshot); err == nil {
				return p, true, damaged, nil
			}
			r.engine = run.New(program, o)
		}
		if !errors.Is(err, errDamaged) && !errors.Is(err, run.ErrSnapshot) {
			return places{}, false, damaged, err
		}
		damaged = true
		r.h.setAside(name)
	}
	return places{}, false, damaged, nil
}

// resumes reports whether the application takes along the state of a checkpoint.
func (r *application) resumes(p places) bool {
	return p.Run == r.a.Run || slices.ContainsFunc(r.a.Inputs, func(in app.Input) bool { return in.Start.Start == app.LastStopped })
}

// startOf is the arrival of the first records that an input reads in shards which
// it has no place in, in milliseconds since 1970; 0 is the oldest there are.
func startOf(p app.Position, damaged bool) int64 {
	if p.Start == app.TrimHorizon || p.Start == app.LastStopped && damaged || p.At.IsZero() {
		return 0
	}
	return p.At.UnixMilli()
}

func (r *application) stop() { r.cancel() }

// problem remembers, and tells, what keeps a part from working; an empty text
// says that it works.
func (r *application) problem(part, id, code, text string) {
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + " …"
	}
	now := r.h.o.Now()
	r.mu.Lock()
	old, had := r.problems[part]
	before := r.told[part]
	tell := text != "" && (text != before.text || now.Sub(before.at) >= tellAgain && !had)
	if tell {
		r.told[part] = telling{text, now}
	}
	if text == "" {
		delete(r.problems, part)
	} else {
		r.problems[part] = text
	}
	r.mu.Unlock()
	if had && text == "" && old != "" {
		r.h.o.Logger.Info("application goes on", "application", r.a.Name, "part", part)
	}
	if tell {
		r.h.o.Logger.Warn("application is held up", "application", r.a.Name, "part", part, "reason", text)
		r.h.o.Tell(context.WithoutCancel(r.ctx), r.a, id, code, text)
	}
}

// fail ends an application that cannot go on. Its last checkpoint stays.
func (r *application) fail(code, text string) {
	r.mu.Lock()
	first := r.failure == ""
	if first {
		r.failure = text
	}
	r.mu.Unlock()
	if first {
		r.h.o.Logger.Error("application has ended", "application", r.a.Name, "account", r.a.Account, "reason", text)
		r.h.o.Tell(context.WithoutCancel(r.ctx), r.a, "", code, text)
	}
	r.cancel()
}

// guard keeps a mistake in the engine, which one program's data may be the first
// to find, from ending what other applications do.
func (r *application) guard() {
	if p := recover(); p != nil {
		r.h.o.Logger.Error("application met a mistake of the engine", "application", r.a.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		r.fail("InternalError", fmt.Sprintf("an internal error: %v", p))
	}
}

func (r *application) status() Status {
	s := Status{RowsIn: r.rowsIn.Load(), RowsOut: r.rowsOut.Load()}
	for _, in := range r.inputs {
		s.MillisBehindLatest = max(s.MillisBehindLatest, in.behind(r.h.o.Now()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Running, s.Problem = r.failure == "", r.failure
	if s.Running {
		var all []string
		for _, part := range slices.Sorted(maps.Keys(r.problems)) {
			if text := r.problems[part]; !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
		for _, o := range r.outputs {
			if since := o.since.Load(); since != 0 && r.problems["output "+o.spec.ID] == "" && time.Since(time.Unix(0, since)) > slowAfter {
				all = append(all, fmt.Sprintf("the %s %s has not taken rows since %s", o.spec.Destination.Kind, o.spec.Destination.ARN, time.Unix(0, since).UTC().Format(time.RFC3339)))
			}
		}
		s.Problem = strings.Join(all, "; ")
	}
	return s
}

func (r *application) pause(attempt int) bool { return pause(r.ctx, attempt) }

// pause waits before the next attempt, longer each time; false if ctx ends.
func pause(ctx context.Context, attempt int) bool {
	d := min(retryFirst<<min(attempt, 20), retryLast)
	d = d/2 + rand.N(d/2+1)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run is the application's own goroutine.
func (r *application) run() {
	defer close(r.done)
	var group sync.WaitGroup
	defer func() {
		group.Wait()
		if r.journal != nil {
			r.journal.close()
		}
	}()
	defer func() {
		for _, o := range r.outputs {
			o.queue.close()
		}
		r.cancel()
		r.endSending()
	}()
	defer r.guard()
	group.Go(func() {
		<-r.ctx.Done()
		t := time.NewTimer(r.h.o.DrainWithin)
		defer t.Stop()
		select {
		case <-t.C:
			r.endSending()
		case <-r.sending.Done():
		}
	})
	group.Go(func() {
		defer r.guard()
		r.measure()
	})
	for _, o := range r.outputs {
		group.Go(func() {
			defer r.guard()
			r.deliver(o)
		})
	}
	if !r.references() {
		return
	}
	if !r.catchUp(&group) {
		return
	}
	for _, in := range r.inputs {
		group.Go(func() {
			defer r.guard()
			r.readInput(in)
		})
	}
	r.loop(&group)
}

// loop feeds the program until the application ends.
func (r *application) loop(group *sync.WaitGroup) {
	idle, due := time.NewTicker(r.h.o.IdleEvery), time.NewTicker(r.h.o.CheckpointEvery)
	defer idle.Stop()
	defer due.Stop()
	for {
		var saved chan error
		if r.saving != nil {
			saved = r.saving.done
		}
		ok := true
		chunks, ticks := r.chunks, idle.C
		if n := r.ahead(); n >= 0.5 && r.saving == nil && !r.unsaved {
			if !r.checkpoint(group) {
				return
			}
			continue
		} else if n >= 1 {
			chunks, ticks = nil, nil
		}
		select {
		case c := <-chunks:
			ok = r.insert(c)
		case <-ticks:
			ok = r.advance()
		case <-due.C:
			// One that waits for its rows to be delivered is the next one, too.
			if r.changed && r.saving == nil {
				ok = r.checkpoint(group)
			}
		case err := <-saved:
			r.checkpointed(err)
		case <-r.ctx.Done():
			r.finish(group)
			return
		}
		if !ok {
			return
		}
	}
}

// What an application does beyond its last valid checkpoint, it does again after a
// crash: how much that can be is bounded, and with it the journal.
var (
	aheadSteps uint64 = 1 << 18
	aheadRows  uint64 = 4 << 20
)

// ahead is how far the program is beyond its last valid checkpoint, as a part of
// what it may be. At a half a checkpoint is due; at the whole the program waits for
// it, and so for the outputs that do not take their rows.
func (r *application) ahead() float64 {
	if r.journal == nil {
		return 0
	}
	return max(float64(r.steps-r.mark.step)/float64(aheadSteps), float64(r.made-r.mark.made)/float64(aheadRows))
}

// finish ends an application behind a last checkpoint, if its rows can be
// delivered in time.
func (r *application) finish(group *sync.WaitGroup) {
	if r.saving != nil {
		r.checkpointed(<-r.saving.done)
	}
	r.mu.Lock()
	failed := r.failure != ""
	r.mu.Unlock()
	if failed || !r.changed || r.sending.Err() != nil {
		return
	}
	if r.checkpoint(group) && r.saving != nil {
		r.checkpointed(<-r.saving.done)
	}
}

// clockBack is how far the machine's clock may go back before the status says so.
const clockBack = 10 * time.Second

// now is the application's clock, which never goes back, also not from one start to
// the next.
func (r *application) now() int64 {
	now := r.h.o.Now().UnixMilli()
	if behind := r.last-now > clockBack.Milliseconds(); behind != r.behind {
		r.behind = behind
		text := ""
		if behind {
			text = "the machine's clock has gone back: ROWTIME stands still until it is " + time.UnixMilli(r.last).UTC().Format(time.RFC3339) + " again"
		}
		r.problem("clock", "", "ClockError", text)
	}
	r.last = max(r.last, now)
	return r.last
}

// advance says that time has passed; false if the application ends.
func (r *application) advance() bool {
	return r.advanceTo(step{kind: stepAdvance, now: r.now()})
}

// begin begins a step: what comes of it belongs to its instant.
func (r *application) begin(s step) {
	r.last = max(r.last, s.now)
	r.clock.Store(s.now)
	if r.journal != nil {
		r.journal.append(&s)
	}
	r.steps++
	for _, o := range r.outputs {
		o.ordinal = 0
	}
}

func (r *application) advanceTo(s step) bool {
	began := time.Now()
	now := s.now
	r.begin(s)
	for _, in := range r.inputs {
		for _, name := range in.spec.Streams {
			if err := r.engine.Advance(name, now); err != nil {
				r.refused(err)
				return false
			}
		}
	}
	return r.stepped(began)
}

// insert feeds the program; false if the application ends.
func (r *application) insert(c *chunk) bool {
	s := step{kind: stepInsert, now: r.now()}
	if r.journal != nil {
		s.input, s.source, s.shard, s.shardName = c.in.spec.ID, c.source, c.shard.Number, c.shard.Name
		s.first, s.next, s.records, s.end, s.moves, s.forget = c.first, c.next, uint64(c.records), c.end, c.moves, c.forget
	}
	return r.insertAt(c, s)
}

func (r *application) insertAt(c *chunk, s step) bool {
	began := time.Now()
	now := s.now
	r.begin(s)
	in := c.in
	for i := range c.refused {
		f := &c.refused[i]
		r.engine.Refuse(f.name, f.message, f.row, now)
	}
	if n := c.rows.Len(); n > 0 {
		stream := in.spec.Streams[int(c.shard.Number)%len(in.spec.Streams)]
		if err := r.engine.Insert(stream, c.batch(now)); err != nil {
			r.refused(err)
			return false
		}
		r.rowsIn.Add(int64(n))
	}
	at := r.places[in.spec.ID]
	if at.Shards == nil || at.Source != c.source {
		at = inputPlaces{Source: c.source, From: in.from, Shards: map[uint32]position{}}
	}
	for _, n := range c.forget {
		delete(at.Shards, n)
	}
	if c.moves {
		at.Shards[c.shard.Number] = position{Next: c.next, End: c.end}
	}
	r.places[in.spec.ID] = at
	r.changed = true
	in.count(c)
	in.recycle(c)
	return r.stepped(began)
}

// refused ends the application for what the engine does not take.
func (r *application) refused(err error) {
	if errors.Is(err, run.ErrMemory) {
		r.fail("MemoryError", fmt.Sprintf("%v: its program has ended, and goes on from the last checkpoint when the application is stopped and started, or updated", err))
		return
	}
	r.fail("InternalError", "an internal error: "+err.Error())
}

// stepped hands on what the program made of a step.
func (r *application) stepped(began time.Time) bool {
	r.busy.Add(int64(time.Since(began)))
	r.state.Store(r.engine.Memory())
	return r.flush()
}

// flush hands the rows that the program made to the deliverers; false if the
// application ends first.
func (r *application) flush() bool {
	for _, o := range r.outputs {
		if !r.push(o, true) {
			return false // what waits is made again when the application goes on
		}
	}
	return true
}

// measure samples what has no event of its own.
func (r *application) measure() {
	every := time.NewTicker(sampleEvery)
	defer every.Stop()
	last := time.Now()
	for {
		select {
		case <-every.C:
		case <-r.ctx.Done():
			return
		}
		for _, in := range r.inputs {
			in.series.Add(MillisBehindLatest, float64(in.behind(r.h.o.Now())))
		}
		now := time.Now()
		cores := 0.0
		if passed := now.Sub(last); passed > 0 {
			cores = float64(r.busy.Swap(0)) / float64(passed)
		}
		last = now
		state := r.state.Load()
		r.series.Add(KPUs, max(cores, float64(state)/kpuMemory))
		r.series.Add(StateBytes, float64(state))
	}
}
