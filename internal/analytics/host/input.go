package host

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// What bounds the memory of an application besides its state: pages as they were
// read, and chunks of rows made of them. A chunk is cut at whichever bound comes
// first; a single record may exceed them all.
const (
	pageBytes  = 1 << 20
	chunkQueue = 4       // chunks that wait for the program
	chunkRows  = 4096    // enough that the engine's workers share them
	chunkBytes = 1 << 20 // of records
	chunkWidth = 1 << 20 // of rows
)

// atOnce is how many pages of an application are read or parsed at a time, and how
// many chunks an input has, those that are being filled included.
func atOnce() int { return min(max(2*runtime.GOMAXPROCS(0), 4), 32) }

// input is a source that is read.
type input struct {
	spec    app.Input
	columns []plan.ColumnInfo // of the records
	maxRows int               // of a chunk
	uses    [4]bool           // which of plan.HiddenColumns the program names
	errors  bool              // whether anybody reads the error stream
	parsers sync.Pool
	free    chan *chunk
	series  Series

	from int64         // see startOf
	held chan struct{} // a token for each page that is being read or parsed

	mu     sync.Mutex
	shards map[string]*progress // of the shards that are being read
	known  inputPlaces          // of what the program has been sent
}

// knows says which places the program has.
func (in *input) knows(at inputPlaces) {
	in.mu.Lock()
	defer in.mu.Unlock()
	at.Shards = maps.Clone(at.Shards)
	in.known = at
}

// knownOf are the places that the program has in a source.
func (in *input) knownOf(source uint64) map[uint32]position {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.known.Source != source {
		return nil
	}
	return maps.Clone(in.known.Shards)
}

// sent says that the program gets a chunk.
func (in *input) sent(source uint64, shard uint32, at position, moves bool, forget []uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.known.Source != source || in.known.Shards == nil {
		in.known = inputPlaces{Source: source, From: in.from, Shards: map[uint32]position{}}
	}
	for _, n := range forget {
		delete(in.known.Shards, n)
	}
	if moves {
		in.known.Shards[shard] = at
	}
}

// progress is how far a shard has been read.
type progress struct {
	tail atomic.Uint64 // the index that the shard's next record will have
	next atomic.Uint64 // behind what the program has seen
	// waits is the arrival of what next names, or of a record before it; 0 if nobody
	// knows.
	waits atomic.Int64
}

// behind is how long ago the oldest record arrived that the program has not seen.
func (in *input) behind(now time.Time) (millis int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, p := range in.shards {
		if at := p.waits.Load(); at != 0 && p.next.Load() < p.tail.Load() {
			millis = max(millis, now.UnixMilli()-at)
		}
	}
	return millis
}

// chunk is a piece of a shard on its way to the program.
type chunk struct {
	in     *input
	source uint64
	shard  Shard
	rows   *run.Rows
	// Values of hidden columns, one for each row, of those the program uses.
	arrivals []int64
	keys     []string
	numbers  []string
	names    []string
	noKey    []bool

	refused []refusal
	refuses int // with those that nobody reads

	first          uint64 // index of the first record
	next           uint64 // where the shard is behind the chunk
	end            bool
	moves          bool // next counts
	newest         int64
	records, bytes int
	forget         []uint32 // shards that are no more

	hidden [4]run.Vector
}

// refusal is a record, or a row of one, that goes to the error stream.
type refusal struct{ name, message, row string }

func (r *application) newInput(spec app.Input) (*input, error) {
	if _, err := run.NewParser(spec.Format); err != nil {
		return nil, err
	}
	in := &input{spec: spec, free: make(chan *chunk, atOnce()), held: make(chan struct{}, atOnce()), shards: map[string]*progress{},
		series: r.h.o.Metrics.Series(r.a.Account, r.a.Region, r.a.Name, FlowInput, spec.ID)}
	width := 8
	for _, c := range spec.Format.Columns {
		in.columns = append(in.columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
		width += 9
		if k := plan.ClassOf(c.Type); k == plan.ClassString {
			width += 8
		}
	}
	in.maxRows = min(chunkRows, max(chunkWidth/width, 1))
	// A column that is not named cannot be used: hidden ones are not part of *.
	code := strings.ToUpper(r.a.Code)
	for i, c := range plan.HiddenColumns {
		in.uses[i] = strings.Contains(code, c.Name)
	}
	if spec.Source.Kind == app.DeliveryStream {
		in.uses[1], in.uses[2], in.uses[3] = false, false, false // it has none of these
	}
	in.errors = slices.ContainsFunc(r.a.Outputs, func(o app.Output) bool { return o.Stream == plan.ErrorStream })
	in.parsers.New = func() any {
		p, err := run.NewParser(spec.Format)
		if err != nil {
			panic(err) // it could be made before
		}
		return p
	}
	for range cap(in.free) {
		in.free <- &chunk{in: in, rows: run.NewRows(in.columns)}
	}
	return in, nil
}

// recycle empties a chunk for another use.
func (in *input) recycle(c *chunk) {
	if c.rows.Len() > 2*chunkRows {
		c = &chunk{in: in, rows: run.NewRows(in.columns)} // a huge record's room does not stay
	} else {
		c.rows.Reset()
		clear(c.keys)
		clear(c.numbers)
		clear(c.names)
		clear(c.refused)
		*c = chunk{in: in, rows: c.rows, arrivals: c.arrivals[:0], keys: c.keys[:0], numbers: c.numbers[:0],
			names: c.names[:0], noKey: c.noKey[:0], refused: c.refused[:0]}
	}
	in.free <- c
}

// count measures a chunk that the program has taken.
func (in *input) count(c *chunk) {
	in.mu.Lock()
	p := in.shards[c.shard.Name]
	in.mu.Unlock()
	if p != nil && c.moves {
		if c.newest != 0 {
			p.waits.Store(c.newest)
		}
		p.next.Store(c.next)
	}
	if c.records > 0 {
		in.series.Add(Records, float64(c.records))
		in.series.Add(Bytes, float64(c.bytes))
		in.series.Add(Rows, float64(c.rows.Len()))
	}
	if c.refuses > 0 {
		in.series.Add(RefusedRows, float64(c.refuses))
	}
}

// nothing are the values of a hidden column that the program does not use.
var nothing = func() (v struct {
	null    []bool
	ints    []int64
	strings []string
}) {
	v.null, v.ints, v.strings = slices.Repeat([]bool{true}, 2*chunkRows), make([]int64, 2*chunkRows), make([]string, 2*chunkRows)
	return v
}()

// batch shows the rows with their hidden columns, at an instant.
func (c *chunk) batch(now int64) *run.Batch {
	b := c.rows.Batch()
	for i := range b.Time {
		b.Time[i] = now
	}
	n := len(b.Time)
	null, ints, texts := nothing.null, nothing.ints, nothing.strings
	if n > len(null) {
		null, ints, texts = slices.Repeat([]bool{true}, n), make([]int64, n), make([]string, n)
	}
	for i, used := range c.in.uses {
		v := &c.hidden[i]
		switch {
		case !used:
			*v = run.Vector{Null: null[:n], I: ints[:n], S: texts[:n]}
		case i == 0:
			*v = run.Vector{I: c.arrivals}
		case i == 1:
			*v = run.Vector{S: c.keys, Null: c.noKey}
		case i == 2:
			*v = run.Vector{S: c.numbers}
		default:
			*v = run.Vector{S: c.names}
		}
		b.Cols = append(b.Cols, v)
	}
	return b
}

// readInput reads a source, and what has its name after it, until the application
// ends.
func (r *application) readInput(in *input) {
	part := "input " + in.spec.ID
	for attempt := 0; ; attempt++ {
		source, err := r.h.o.OpenSource(r.ctx, r.a, in.spec.Source)
		if err == nil {
			r.problem(part, "", "", "")
			began := time.Now()
			r.readSource(in, source)
			if time.Since(began) > retryLast {
				attempt = 0
			}
			err = fmt.Errorf("the %s %s has been deleted", in.spec.Source.Kind, in.spec.Source.ARN)
		}
		if r.ctx.Err() != nil {
			return
		}
		r.problem(part, in.spec.ID, "InputError", err.Error())
		if !r.pause(attempt) {
			return
		}
	}
}

// readSource has every shard read whose parents have been, until the source is
// gone or the application ends.
func (r *application) readSource(in *input, source Source) {
	part := "input " + in.spec.ID
	ctx, cancel := context.WithCancel(r.ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	known := in.knownOf(source.ID())
	reading, over := map[uint32]bool{}, map[uint32]bool{}
	for n, p := range known {
		if p.End {
			reading[n], over[n] = true, true
		}
	}
	ended := make(chan uint32)
	for attempt := 0; ; {
		resharded := source.Resharded()
		shards, err := source.Shards()
		if err != nil {
			select {
			case <-source.Gone():
				return
			default:
			}
			r.problem(part, in.spec.ID, "InputError", err.Error())
			if !pause(ctx, attempt) {
				return
			}
			attempt++
			continue
		}
		if attempt > 0 {
			attempt = 0
			r.problem(part, "", "", "")
		}
		listed := map[uint32]bool{}
		for _, s := range shards {
			listed[s.Number] = true
		}
		for n := range known {
			if !listed[n] && !reading[n] {
				reading[n], over[n] = true, true // it expired before it was read again
			}
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
			group.Go(func() {
				defer r.guard()
				r.readShard(ctx, in, source, s, from, has, ended)
			})
		}
		if !r.forgetShards(ctx, in, source, over, listed) {
			return
		}
		select {
		case n := <-ended:
			over[n] = true
		case <-resharded:
		case <-source.Gone():
			return
		case <-ctx.Done():
			return
		}
	}
}

// forgetShards has the places of shards forgotten that were read to their end and
// are no more; false if ctx ends.
func (r *application) forgetShards(ctx context.Context, in *input, source Source, over, listed map[uint32]bool) bool {
	var gone []uint32
	for n := range over {
		if !listed[n] {
			gone = append(gone, n)
		}
	}
	if len(gone) == 0 {
		return true
	}
	f := filler{r: r, in: in, source: source}
	if !f.open(ctx) {
		return false
	}
	f.c.forget = gone
	if !f.send(ctx) {
		return false
	}
	for _, n := range gone {
		delete(over, n)
	}
	return true
}

// readShard reads a shard until it ends, is gone, or ctx ends.
func (r *application) readShard(ctx context.Context, in *input, source Source, s Shard, from position, has bool, ended chan<- uint32) {
	part := "shard " + in.spec.ID + "/" + s.Name
	defer r.problem(part, "", "", "")
	at := new(progress)
	in.mu.Lock()
	in.shards[s.Name] = at
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		delete(in.shards, s.Name)
		in.mu.Unlock()
	}()
	next, attempt := from.Next, 0
	failed := func(err error) (over bool) {
		if ctx.Err() != nil {
			return true
		}
		if list, listErr := source.Shards(); listErr == nil && !hasShard(list, s.Number) {
			// Its records have expired.
			r.lostRecords(in, s, "the shard is there no more")
			sendEnd(ctx, ended, s.Number)
			return true
		}
		r.problem(part, in.spec.ID, "InputError", err.Error())
		attempt++
		return !pause(ctx, attempt-1)
	}
	for !has {
		start := time.Time{}
		if in.from > 0 {
			start = time.UnixMilli(in.from)
		}
		first, err := source.At(ctx, s.Number, start)
		if err == nil {
			next, has = first, true
		} else if failed(err) {
			return
		}
	}
	f := filler{r: r, in: in, source: source, shard: s}
	defer func() {
		if f.c != nil {
			in.recycle(f.c)
		}
	}()
	for {
		// What closes a shard without another record shows in Resharded only.
		changed, resharded := source.Changed(s.Number), source.Resharded()
		select {
		case in.held <- struct{}{}:
		case <-ctx.Done():
			return
		}
		page, err := source.Read(ctx, s.Number, next, pageBytes)
		if err != nil {
			<-in.held
			if failed(err) {
				return
			}
			continue
		}
		if attempt > 0 {
			attempt = 0
			r.problem(part, "", "", "")
		}
		if page.First > next && next > 0 {
			in.series.Add(LostRecords, float64(page.First-next))
			r.lostRecords(in, s, fmt.Sprintf("%d records are there no more", page.First-next))
		}
		if n := len(page.Records); n > 0 && at.waits.Load() == 0 {
			at.waits.Store(page.Records[0].Arrival)
		}
		at.tail.Store(page.Tail)
		ok := f.page(ctx, page, next)
		<-in.held
		if !ok {
			return
		}
		next = page.Next
		if page.End {
			sendEnd(ctx, ended, s.Number)
			return
		}
		if len(page.Records) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-resharded:
		case <-ctx.Done():
			return
		}
	}
}

// lostRecords tells of records that were gone before they were read.
func (r *application) lostRecords(in *input, s Shard, what string) {
	part := "records of " + in.spec.ID + "/" + s.Name
	r.problem(part, in.spec.ID, "InputError", fmt.Sprintf("%s of the %s %s has been lost: %s, and were not read before", s.Name, in.spec.Source.Kind, in.spec.Source.ARN, what))
	r.problem(part, "", "", "")
}

func sendEnd(ctx context.Context, ended chan<- uint32, shard uint32) {
	select {
	case ended <- shard:
	case <-ctx.Done():
	}
}

// filler makes chunks of the records of a shard.
type filler struct {
	r      *application
	in     *input
	source Source
	shard  Shard
	c      *chunk // being filled, nil if none
}

// open has a chunk to be filled; false if ctx ends first.
func (f *filler) open(ctx context.Context) bool {
	if f.c != nil {
		return true
	}
	select {
	case f.c = <-f.in.free:
		f.c.source, f.c.shard = f.source.ID(), f.shard
		return true
	case <-ctx.Done():
		return false
	}
}

// send has the program take the chunk; false if ctx ends first.
func (f *filler) send(ctx context.Context) bool {
	// The chunk is the program's once it is sent.
	at, shard, moves, forget := position{f.c.next, f.c.end}, f.shard.Number, f.c.moves, f.c.forget
	select {
	case f.r.chunks <- f.c:
		f.c = nil
		f.in.sent(f.source.ID(), shard, at, moves, forget)
		return true
	case <-ctx.Done():
		f.in.recycle(f.c)
		f.c = nil
		return false
	}
}

// page has the program take a page that was read from an index on; false if ctx
// ends first.
func (f *filler) page(ctx context.Context, page *Page, from uint64) bool {
	if f.in.spec.Processor != nil && len(page.Records) > 0 {
		if !f.process(ctx, page.Records) {
			return false
		}
	} else if !f.parse(ctx, page.Records) {
		return false
	}
	if f.c == nil {
		if page.Next == from && !page.End {
			return true
		}
		// The place alone has changed, or was behind another chunk.
		if n := len(page.Records); n > 0 && page.Records[n-1].Index+1 == page.Next && !page.End {
			return true
		}
		if !f.open(ctx) {
			return false
		}
	}
	f.c.next, f.c.end, f.c.moves = page.Next, page.End, true
	return f.send(ctx)
}

// parse makes rows of records; false if ctx ends first.
func (f *filler) parse(ctx context.Context, records []Record) bool {
	began := time.Now()
	parser := f.in.parsers.Get().(*run.Parser)
	defer f.in.parsers.Put(parser)
	for i := range records {
		rec := &records[i]
		if f.c == nil {
			f.r.busy.Add(int64(time.Since(began)))
			if !f.open(ctx) {
				return false
			}
			began = time.Now()
		}
		f.read(parser, rec, rec.Data)
		if full := f.passed(rec); full {
			f.r.busy.Add(int64(time.Since(began)))
			if !f.send(ctx) {
				return false
			}
			began = time.Now()
		}
	}
	f.r.busy.Add(int64(time.Since(began)))
	return true
}

// passed moves the chunk's place behind a record, and says whether it is full.
func (f *filler) passed(rec *Record) (full bool) {
	c := f.c
	if c.records == 0 {
		c.first = rec.Index
	}
	c.next, c.moves, c.newest = rec.Index+1, true, rec.Arrival
	c.records++
	c.bytes += len(rec.Data)
	return c.rows.Len() >= f.in.maxRows || c.bytes >= chunkBytes || len(c.refused) >= chunkRows
}

// read makes rows of what a record has.
func (f *filler) read(parser *run.Parser, rec *Record, data []byte) {
	c := f.c
	before := c.rows.Len()
	parser.ParseBytes(c.rows, data, 0, nil, c.refuse)
	n := c.rows.Len() - before
	if n == 0 {
		return
	}
	uses := &f.in.uses
	if uses[0] {
		c.arrivals = fill(c.arrivals, rec.Arrival, n)
	}
	if uses[1] {
		c.keys, c.noKey = fill(c.keys, string(rec.Key), n), fill(c.noKey, rec.Key == nil, n)
	}
	if uses[2] {
		c.numbers = fill(c.numbers, f.source.SequenceNumber(f.shard.Number, rec.Index, rec.Arrival), n)
	}
	if uses[3] {
		c.names = fill(c.names, f.shard.Name, n)
	}
}

func fill[T any](s []T, v T, n int) []T {
	for range n {
		s = append(s, v)
	}
	return s
}

func (c *chunk) refuse(name, message, row string) {
	c.refuses++
	if c.in.errors {
		c.refused = append(c.refused, refusal{name, message, strings.Clone(row)})
	}
}
