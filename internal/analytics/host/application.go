package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

const (
	pageBytes  = 1 << 20
	pageQueue  = 4 // pages of all shards that wait for the program
	rowQueue   = 4 // batches of rows that wait for a destination
	retryFirst = 100 * time.Millisecond
	retryLast  = 30 * time.Second
)

// application is a program that runs.
type application struct {
	h      *Host
	a      *app.Application
	engine *run.Application
	ctx    context.Context // ends when the application is to stop
	cancel context.CancelFunc
	// sending outlives ctx by the time that rows have to be delivered in the end.
	sending    context.Context
	endSending context.CancelFunc
	done       chan struct{}

	inputs  []*input
	outputs []*output
	pages   chan fetched
	before  map[string]inputPlaces // of the checkpoint, never changed
	places  map[string]inputPlaces // the loop's own
	resumed bool
	last    int64 // the newest instant, in milliseconds since 1970

	mu       sync.Mutex
	problems map[string]string // by what has them
	behind   map[string]int64  // by input and shard

	rowsIn, rowsOut atomic.Int64
}

// input is a source that is read.
type input struct {
	spec    app.Input
	parser  *run.Parser
	columns []plan.ColumnInfo
	source  Source
	opened  chan struct{} // closed when source is there
}

// fetched is a page on its way to the program.
type fetched struct {
	in    *input
	shard Shard
	page  *Page
}

// output is where the rows of a stream go.
type output struct {
	spec    app.Output
	pending [][]byte
	queue   chan [][]byte
	flying  sync.WaitGroup // batches that are not durable yet
	lost    atomic.Bool    // the end came before rows could be delivered
}

// open compiles an application and brings it to its checkpoint.
func (h *Host) open(a *app.Application) (*application, error) {
	program, err := a.Compile()
	if err != nil {
		return nil, err
	}
	r := &application{h: h, a: a, done: make(chan struct{}), pages: make(chan fetched, pageQueue), problems: map[string]string{}, behind: map[string]int64{}}
	r.ctx, r.cancel = context.WithCancel(h.ctx)
	r.sending, r.endSending = context.WithCancel(context.WithoutCancel(h.ctx))
	p, snapshot, ok, err := h.load(a.ID)
	if err != nil {
		return nil, err
	}
	for _, in := range a.Inputs {
		parser, err := run.NewParser(in.Format)
		if err != nil {
			return nil, err
		}
		i := &input{spec: in, parser: parser, opened: make(chan struct{})}
		for _, c := range in.Format.Columns {
			i.columns = append(i.columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
		}
		i.columns = append(i.columns, plan.HiddenColumns...)
		r.inputs = append(r.inputs, i)
	}
	// A run goes on where it was. A new one begins where its inputs say, and takes
	// the state of the one before along if that is where they begin.
	goesOn := ok && (p.Run == a.Run || slices.ContainsFunc(a.Inputs, func(in app.Input) bool { return in.Start.Start == app.LastStopped }))
	r.engine = run.New(program, run.Options{Now: h.o.Now})
	if goesOn {
		r.before, r.resumed = p.Inputs, p.Run == a.Run
		if _, err := r.engine.Restore(snapshot); err != nil {
			return nil, fmt.Errorf("application %s: %w", a.Name, err)
		}
	}
	r.places = map[string]inputPlaces{}
	for id, at := range r.before {
		r.places[id] = inputPlaces{Source: at.Source, Shards: maps.Clone(at.Shards)}
	}
	for _, out := range a.Outputs {
		columns, there := r.engine.Stream(out.Stream)
		if !there {
			continue // nothing is ever delivered; the service starts such an application
		}
		o := &output{spec: out, queue: make(chan [][]byte, rowQueue)}
		var buffer []byte
		if err := r.engine.Tap(out.Stream, func(b *run.Batch) {
			for _, i := range b.Sel {
				buffer = appendRow(buffer[:0], columns, b, i, out.CSV)
				o.pending = append(o.pending, slices.Clone(buffer))
			}
		}); err != nil {
			return nil, err
		}
		r.outputs = append(r.outputs, o)
	}
	return r, nil
}

func appendRow(dst []byte, columns []plan.ColumnInfo, b *run.Batch, i int32, csv bool) []byte {
	if csv {
		return run.AppendCSV(dst, columns, b, i)
	}
	return append(run.AppendJSON(dst, columns, b, i), '\n')
}

func (r *application) stop() { r.cancel() }

// problem remembers, and tells once, what keeps a part from working; an empty
// text says that it works.
func (r *application) problem(part, id, code, text string) {
	r.mu.Lock()
	old := r.problems[part]
	if text == "" {
		delete(r.problems, part)
	} else {
		r.problems[part] = text
	}
	r.mu.Unlock()
	if text != "" && text != old {
		r.h.o.Logger.Warn("application is held up", "application", r.a.Name, "part", part, "reason", text)
		r.h.o.Tell(r.ctx, r.a, id, code, text)
	}
}

func (r *application) status() Status {
	s := Status{Running: true, RowsIn: r.rowsIn.Load(), RowsOut: r.rowsOut.Load()}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, part := range slices.Sorted(maps.Keys(r.problems)) {
		s.Problem = r.problems[part]
		break
	}
	for _, ms := range r.behind {
		s.MillisBehindLatest = max(s.MillisBehindLatest, ms)
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
	defer group.Wait()
	defer r.endSending()
	defer r.cancel()
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
	if !r.references() {
		return
	}
	for _, o := range r.outputs {
		group.Go(func() { r.deliver(o) })
	}
	r.engine.Start()
	for _, in := range r.inputs {
		group.Go(func() { r.readInput(in) })
	}
	idle, saving := time.NewTicker(r.h.o.IdleEvery), time.NewTicker(r.h.o.CheckpointEvery)
	defer idle.Stop()
	defer saving.Stop()
	changed := false
	for {
		select {
		case f := <-r.pages:
			r.insert(f)
			changed = true
		case <-idle.C:
			r.advance()
		case <-saving.C:
			if changed {
				changed = !r.checkpoint()
			}
			continue
		case <-r.ctx.Done():
			r.checkpoint()
			for _, o := range r.outputs {
				close(o.queue)
			}
			return
		}
		if !r.flush() {
			// The end came while rows waited for a destination. They are made again.
			for _, o := range r.outputs {
				close(o.queue)
			}
			return
		}
	}
}

// now is the application's clock, which never goes back.
func (r *application) now() int64 {
	r.last = max(r.last, r.h.o.Now().UnixMilli())
	return r.last
}

func (r *application) advance() {
	now := r.now()
	for _, in := range r.inputs {
		for _, name := range in.spec.Streams {
			if err := r.engine.Advance(name, now); err != nil {
				panic(err) // the program was compiled with these streams
			}
		}
	}
}

// insert parses a page and feeds the program.
func (r *application) insert(f fetched) {
	now := r.now()
	stream := f.in.spec.Streams[int(f.shard.Number)%len(f.in.spec.Streams)]
	rows := run.NewRows(f.in.columns)
	for _, rec := range f.page.Records {
		hidden := []plan.Value{{I: rec.Arrival}, {S: string(rec.Key), Null: rec.Key == nil},
			{S: f.in.source.SequenceNumber(f.shard.Number, rec.Index, rec.Arrival)}, {S: f.shard.Name}}
		f.in.parser.Parse(rows, string(rec.Data), now, hidden, func(name, message, row string) { r.engine.Refuse(name, message, row, now) })
	}
	r.rowsIn.Add(int64(rows.Len()))
	if rows.Len() > 0 {
		if err := r.engine.Insert(stream, rows.Batch()); err != nil {
			panic(err)
		}
	}
	at := r.places[f.in.spec.ID]
	if at.Shards == nil || at.Source != f.in.source.ID() {
		at = inputPlaces{Source: f.in.source.ID(), Shards: map[uint32]position{}}
	}
	at.Shards[f.shard.Number] = position{Next: f.page.Next, End: f.page.End}
	r.places[f.in.spec.ID] = at
	behind := int64(0)
	if n := len(f.page.Records); n > 0 && f.page.Next < f.page.Tail {
		behind = max(0, now-f.page.Records[n-1].Arrival)
	}
	r.mu.Lock()
	r.behind[f.in.spec.ID+"/"+f.shard.Name] = behind
	r.mu.Unlock()
}

// flush hands the rows that the program made to the deliverers; false if the
// application ends first.
func (r *application) flush() bool {
	for _, o := range r.outputs {
		if len(o.pending) == 0 {
			continue
		}
		rows := o.pending
		o.pending = nil
		o.flying.Add(1)
		select {
		case o.queue <- rows:
		case <-r.sending.Done():
			o.lost.Store(true)
			o.flying.Done()
			return false
		}
	}
	return true
}

// deliver sends rows until the queue is closed, each batch until it is taken.
func (r *application) deliver(o *output) {
	part := "output " + o.spec.ID
	var to Destination
	for rows := range o.queue {
		for attempt := 0; ; attempt++ {
			var err error
			if to == nil {
				to, err = r.h.o.OpenDestination(r.sending, r.a, o.spec.Destination)
			}
			if err == nil {
				if err = to.Write(r.sending, rows); err != nil {
					to = nil
				}
			}
			if err == nil {
				r.rowsOut.Add(int64(len(rows)))
				r.problem(part, "", "", "")
				break
			}
			r.problem(part, "", "OutputError", err.Error())
			if !pause(r.sending, attempt) {
				o.lost.Store(true) // made again when the application goes on
				break
			}
		}
		o.flying.Done()
	}
}

// checkpoint stores where the application is, once all rows are delivered; false
// if it could not.
func (r *application) checkpoint() bool {
	if !r.flush() {
		return false
	}
	for _, o := range r.outputs {
		o.flying.Wait()
	}
	for _, o := range r.outputs {
		if o.lost.Load() {
			return false
		}
	}
	err := r.h.store(r.a.ID, places{Run: r.a.Run, Inputs: r.places}, r.engine.Snapshot(nil))
	if err != nil {
		r.problem("checkpoint", "", "CheckpointError", err.Error())
		return false
	}
	r.problem("checkpoint", "", "", "")
	return true
}

// references loads the reference tables; false if the application ends first.
func (r *application) references() bool {
	for _, ref := range r.a.References {
		part := "reference " + ref.ID
		for attempt := 0; ; attempt++ {
			err := r.reference(ref)
			if err == nil {
				r.problem(part, "", "", "")
				break
			}
			r.problem(part, ref.ID, "ReferenceDataError", err.Error())
			if !r.pause(attempt) {
				return false
			}
		}
	}
	return true
}

func (r *application) reference(ref app.Reference) error {
	if r.h.o.OpenObject == nil {
		return errors.New("there is no object store")
	}
	body, err := r.h.o.OpenObject(r.ctx, r.a, ref)
	if err != nil {
		return err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, r.h.o.MaxReference+1))
	if err != nil {
		return err
	}
	if int64(len(raw)) > r.h.o.MaxReference {
		return fmt.Errorf("the object is larger than %d bytes", r.h.o.MaxReference)
	}
	parser, err := run.NewParser(ref.Format)
	if err != nil {
		return err
	}
	var columns []plan.ColumnInfo
	for _, c := range ref.Format.Columns {
		columns = append(columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
	}
	rows := run.NewRows(columns)
	now := r.now()
	parser.Parse(rows, string(raw), now, nil, func(name, message, row string) { r.engine.Refuse(name, message, row, now) })
	return r.engine.SetTable(ref.Table, rows)
}

// readInput opens a source and has every shard read whose parents have been.
func (r *application) readInput(in *input) {
	part := "input " + in.spec.ID
	var group sync.WaitGroup
	defer group.Wait()
	for attempt := 0; ; attempt++ {
		source, err := r.h.o.OpenSource(r.ctx, r.a, in.spec.Source)
		if err == nil {
			in.source = source
			close(in.opened)
			r.problem(part, "", "", "")
			break
		}
		r.problem(part, in.spec.ID, "InputError", err.Error())
		if !r.pause(attempt) {
			return
		}
	}
	reading := map[uint32]bool{}
	ended := make(chan uint32)
	over := map[uint32]bool{}
	known := r.known(in)
	for n, p := range known {
		if p.End {
			reading[n], over[n] = true, true
		}
	}
	for {
		resharded := in.source.Resharded()
		shards, err := in.source.Shards()
		if err != nil {
			r.problem(part, in.spec.ID, "InputError", err.Error())
		}
		listed := map[uint32]bool{}
		for _, s := range shards {
			listed[s.Number] = true
		}
		for _, s := range shards {
			ready := !reading[s.Number]
			for _, p := range s.Parents {
				ready = ready && (over[p] || !listed[p])
			}
			if !ready {
				continue
			}
			reading[s.Number] = true
			from, has := known[s.Number]
			child := slices.ContainsFunc(s.Parents, func(p uint32) bool { return over[p] })
			group.Go(func() { r.readShard(in, s, from, has, child, ended) })
		}
		select {
		case n := <-ended:
			over[n] = true
		case <-resharded:
		case <-in.source.Gone():
			r.problem(part, in.spec.ID, "InputError", "the source has been deleted")
			<-r.ctx.Done()
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// known are the places that a checkpoint has of a source.
func (r *application) known(in *input) map[uint32]position {
	at, ok := r.before[in.spec.ID]
	if !ok || at.Source != in.source.ID() || !r.resumed && in.spec.Start.Start != app.LastStopped {
		return nil
	}
	return at.Shards
}

// readShard fetches pages until the shard ends.
func (r *application) readShard(in *input, s Shard, from position, has, child bool, ended chan<- uint32) {
	part := "shard " + in.spec.ID + "/" + s.Name
	next := from.Next
	for attempt := 0; !has; attempt++ {
		at := in.spec.Start.At
		if child || in.spec.Start.Start == app.TrimHorizon {
			at = time.Time{}
		}
		var err error
		if next, err = in.source.At(r.ctx, s.Number, at); err == nil {
			has = true
			break
		}
		r.problem(part, in.spec.ID, "InputError", err.Error())
		if !r.pause(attempt) {
			return
		}
	}
	attempt := 0
	for {
		changed := in.source.Changed(s.Number)
		page, err := in.source.Read(r.ctx, s.Number, next, pageBytes)
		if err != nil {
			if r.ctx.Err() != nil {
				return
			}
			r.problem(part, in.spec.ID, "InputError", err.Error())
			if !r.pause(attempt) {
				return
			}
			attempt++
			continue
		}
		attempt = 0
		r.problem(part, "", "", "")
		if len(page.Records) > 0 || page.Next != next || page.End {
			select {
			case r.pages <- fetched{in, s, page}:
			case <-r.ctx.Done():
				return
			}
			next = page.Next
		}
		if page.End {
			select {
			case ended <- s.Number:
			case <-r.ctx.Done():
			}
			return
		}
		if len(page.Records) > 0 {
			continue
		}
		resharded := in.source.Resharded()
		select {
		case <-changed:
		case <-resharded:
		case <-in.source.Gone():
			return
		case <-r.ctx.Done():
			return
		}
	}
}
