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
	held    chan struct{} // a token for each page that is being read or parsed

	// The loop's own.
	places  map[string]inputPlaces
	last    int64  // the newest instant, in milliseconds since 1970
	steps   uint64 // that have begun
	changed bool   // since the last checkpoint
	saving  *saving
	journal *journal // nil if rows may come twice
	repeats []step   // to be done again
	epoch   uint64

	clock atomic.Int64 // the instant of the step, in milliseconds since 1970

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

// open brings an application to its checkpoint.
func (h *Host) open(a *app.Application, program *plan.Program) (*application, error) {
	m := h.o.Metrics
	r := &application{h: h, a: a, series: m.Series(a.Account, a.Region, a.Name, "", ""), done: make(chan struct{}),
		chunks: make(chan *chunk, chunkQueue), held: make(chan struct{}, atOnce()), changed: true,
		places: map[string]inputPlaces{}, problems: map[string]string{}, told: map[string]telling{}}
	p, snapshot, ok, err := h.load(a.ID)
	damaged := errors.Is(err, errDamaged)
	if err != nil && !damaged {
		return nil, err
	}
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
	o := run.Options{Now: func() time.Time { return time.UnixMilli(r.clock.Load()) }, Seed: rand.Uint64(), Workers: h.o.Workers, MemoryLimit: h.o.MemoryLimit}
	r.engine = run.New(program, o)
	// A run goes on where it was. A new one begins where its inputs say, and takes
	// the state of the one before along if that is where they begin.
	if ok && r.resumes(p) {
		switch _, err := r.engine.Restore(snapshot); {
		case errors.Is(err, run.ErrSnapshot):
			ok, damaged = false, true
			r.engine = run.New(program, o)
		case err != nil:
			return nil, fmt.Errorf("application %s: %w", a.Name, err)
		}
	}
	var before *chain
	if ok && p.Journal != nil && r.resumes(p) {
		before = p.Journal
	}
	if damaged {
		// What it held is made again from the records that are still there.
		r.problem("state", "", "CheckpointError", "the application's checkpoint is damaged: it begins anew")
		r.problem("state", "", "", "")
		h.setAside(a.ID)
	}
	for _, spec := range a.Inputs {
		in, err := r.newInput(spec)
		if err != nil {
			return nil, err
		}
		in.from = startOf(spec.Start, damaged)
		if before, has := p.Inputs[spec.ID]; ok && has && (p.Run == a.Run || spec.Start.Start == app.LastStopped) {
			in.from, in.known = before.From, before
			before.Shards = maps.Clone(before.Shards)
			r.places[spec.ID] = before
		}
		r.inputs = append(r.inputs, in)
	}
	for _, spec := range a.Outputs {
		columns, there := r.engine.Stream(spec.Stream)
		if !there {
			continue // nothing is ever delivered; the service starts such an application
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
	group.Go(r.measure)
	for _, o := range r.outputs {
		group.Go(func() { r.deliver(o) })
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
		select {
		case c := <-r.chunks:
			ok = r.insert(c)
		case <-idle.C:
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

// now is the application's clock, which never goes back.
func (r *application) now() int64 {
	r.last = max(r.last, r.h.o.Now().UnixMilli())
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
		r.fail("MemoryError", fmt.Sprintf("%v: it was stopped, and goes on from its last checkpoint when it is started again", err))
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
