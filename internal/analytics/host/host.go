// Package host runs applications: it reads their sources, feeds their programs
// and delivers their rows.
//
// The one idea: one goroutine per application owns its program, and time in it is
// that goroutine's clock. Readers fetch records and make rows of them ahead of it,
// one for each shard, and deliverers send rows behind it, one for each output. What
// lies between is bounded in bytes, so that a destination which does not take rows
// holds up the sources and nothing else.
//
// A checkpoint is the state of every operator and the place in every shard at one
// moment, between two steps of the program. It is written while that goroutine
// stands still, which is short, and becomes valid when all rows that were made
// before that moment are durable where they go; rows made later do not wait for
// it. What comes after the last valid checkpoint is done again when an application
// goes on, so rows are delivered at least once, and the state counts every record
// exactly once. A row that is made again need not be the row that was made before:
// ROWTIME is the time at which the program sees a record. With Options.ExactlyOnce
// it is, and rows are in data streams once: the steps of the program since the
// checkpoint are kept in a journal and repeated (once.go, journal.go).
//
// Start reading at Host, then application.run.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/vfs"
)

// Shard is one ordered part of a source.
type Shard struct {
	Number  uint32
	Name    string
	Parents []uint32
}

// Record is a record of a source.
type Record struct {
	Index   uint64
	Arrival int64  // milliseconds since 1970
	Key     []byte // partition key, nil if the source has none
	Data    []byte
}

// Page is what one Read gave. It is its caller's: neither it nor the bytes of its
// records are used again by the source.
type Page struct {
	Records []Record
	// First is the index of the first record that was looked at. Above what was
	// asked for it means that records are there no more; zero if nobody knows.
	First uint64
	Next  uint64 // where to go on
	Tail  uint64 // the index that the shard's next record will have
	End   bool   // the shard is closed and nothing follows Next
}

// Source is a data stream or a delivery stream that is read. Its methods may be
// called concurrently.
type Source interface {
	// ID is unique among all resources that ever were: it tells a stream from one
	// that had its name before.
	ID() uint64
	// Shards are those that can be read. A delivery stream has one, or as many
	// lanes as it is kept in.
	Shards() ([]Shard, error)
	// At is the index of the first record that arrived at or after at, or of the
	// next one; of the zero time it is the first.
	At(ctx context.Context, shard uint32, at time.Time) (uint64, error)
	// Read returns records of a shard from an index on: about maxBytes of data, but
	// one record in any case if one is there. It does not wait for any.
	Read(ctx context.Context, shard uint32, from uint64, maxBytes int) (*Page, error)
	// Changed is closed when there may be more in a shard than at the time of the
	// call.
	Changed(shard uint32) <-chan struct{}
	// Resharded is closed when there may be other shards than at the time of the
	// call, or one was closed.
	Resharded() <-chan struct{}
	// Gone is closed when the resource is being deleted. The host then opens what
	// has its name until there is something again.
	Gone() <-chan struct{}
	// SequenceNumber names a record; empty if the source does not number records.
	SequenceNumber(shard uint32, index uint64, arrival int64) string
}

// Destination takes rows, each of them a record. Write returns when they are
// durable. After an error it is called again, on a Destination that is opened
// anew: with the same rows, or with those alone that a PartlyError names. The rows
// are the host's again when Write returns.
type Destination interface {
	Write(ctx context.Context, rows [][]byte) error
}

// PartlyError is the answer of a Write that has made rows durable, but not all.
type PartlyError struct {
	// Left are the places of the rows that were not stored and are to be written
	// again, ascending; none if the others were stored or refused.
	Left []int
	// Refused are the places of rows that the destination can never take, because of
	// their size for example, ascending: they are told, counted and left out.
	Refused []int
	Err     error
}

func (e *PartlyError) Error() string { return e.Err.Error() }

// Unwrap returns what kept the rows from being stored.
func (e *PartlyError) Unwrap() error { return e.Err }

// Options of a Host. OpenSource, OpenDestination and Files are required.
type Options struct {
	// OpenSource and OpenDestination find data streams and delivery streams, in the
	// role that the resource names. An error keeps an application waiting: it is
	// told, shown in the status, and the call repeated for as long as it runs.
	OpenSource      func(ctx context.Context, a *app.Application, r app.Resource) (Source, error)
	OpenDestination func(ctx context.Context, a *app.Application, r app.Resource) (Destination, error)
	// Invoke calls a function, for records before they are parsed and for outputs.
	// What the function itself reports as its failure is an error too. Without it
	// applications with functions wait.
	Invoke func(ctx context.Context, a *app.Application, r app.Resource, payload []byte) ([]byte, error)
	// OpenObject opens the object of a reference table. Without it applications
	// with reference tables wait.
	OpenObject func(ctx context.Context, a *app.Application, r app.Reference) (io.ReadCloser, error)
	// Tell is told about what keeps an application from working, once for each
	// reason: the id of its input or reference, which may be empty, a code
	// (InputError, ReferenceDataError …) and a text.
	Tell func(ctx context.Context, a *app.Application, id, code, text string)
	// Metrics is where measurements go; nil if nowhere.
	Metrics Metrics
	// Files holds checkpoints, the last two of each application, and journals.
	Files vfs.FS
	// MemoryLimit bounds the state of an application, in bytes: one that needs more
	// is stopped and its last checkpoint stays. 0 is no bound.
	MemoryLimit int64
	// Workers bounds the goroutines that compute at a time for one application; 0
	// is GOMAXPROCS, 1 none besides its own.
	Workers int
	// ExactlyOnce has rows written to data streams once, also when an application
	// goes on after a crash, if its destinations are Keyed and no function processes
	// its records. It costs a journal of what the program was given, which is made
	// durable before the rows that came of it are written.
	ExactlyOnce bool
	// CheckpointEvery is the time between checkpoints; 10 s if zero.
	CheckpointEvery time.Duration
	// IdleEvery is how often an idle source's time goes on; 500 ms if zero.
	IdleEvery time.Duration
	// DrainWithin is how long an application that stops tries to deliver the rows
	// it has made; 5 s if zero.
	DrainWithin time.Duration
	// InvokeWithin bounds one call of a function; 5 min if zero.
	InvokeWithin time.Duration
	// MaxReference bounds the object of a reference table, in bytes; 1 GB if zero.
	MaxReference int64
	// Now is the clock; time.Now if nil.
	Now    func() time.Time
	Logger *slog.Logger
}

// Status is how an application does.
type Status = app.Status

// Host runs applications.
type Host struct {
	o     Options
	group sync.WaitGroup
	ctx   context.Context
	end   context.CancelFunc

	mu    sync.Mutex
	apps  map[string]*application
	named map[string]*app.Application // the newest version that there was of each
}

// New makes a host that runs nothing yet.
func New(o Options) (*Host, error) {
	if o.OpenSource == nil || o.OpenDestination == nil || o.Files == nil {
		return nil, errors.New("host: sources, destinations and files are required")
	}
	if o.CheckpointEvery <= 0 {
		o.CheckpointEvery = 10 * time.Second
	}
	if o.IdleEvery <= 0 {
		o.IdleEvery = 500 * time.Millisecond
	}
	if o.DrainWithin <= 0 {
		o.DrainWithin = 5 * time.Second
	}
	if o.InvokeWithin <= 0 {
		o.InvokeWithin = 5 * time.Minute
	}
	if o.MaxReference <= 0 {
		o.MaxReference = 1 << 30
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Tell == nil {
		o.Tell = func(context.Context, *app.Application, string, string, string) {}
	}
	if o.Metrics == nil {
		o.Metrics = nowhere{}
	}
	h := &Host{o: o, apps: map[string]*application{}, named: map[string]*app.Application{}}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h, nil
}

// Start begins a run, or goes on with one that has a checkpoint.
func (h *Host) Start(ctx context.Context, a *app.Application) error {
	return h.replace(ctx, a)
}

// Update goes on with another version of an application. The state of pumps that
// have not changed is kept.
func (h *Host) Update(ctx context.Context, a *app.Application) error {
	return h.replace(ctx, a)
}

func (h *Host) replace(ctx context.Context, a *app.Application) error {
	// What cannot be run leaves alone what runs.
	program, err := a.Compile()
	if err != nil {
		return err
	}
	if err := h.Stop(ctx, a.ID); err != nil {
		return err
	}
	run, err := h.open(a, program)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		run.cancel()
		run.endSending()
		return errors.New("host: closed")
	}
	h.apps[a.ID], h.named[a.ID] = run, a
	h.group.Go(run.run)
	return nil
}

// Stop ends a run behind a checkpoint. What does not run is no error.
func (h *Host) Stop(ctx context.Context, id string) error {
	h.mu.Lock()
	run := h.apps[id]
	h.mu.Unlock()
	if run == nil {
		return nil
	}
	run.stop()
	select {
	case <-run.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.mu.Lock()
	if h.apps[id] == run {
		delete(h.apps, id)
	}
	h.mu.Unlock()
	return nil
}

// Remove ends a run and forgets its checkpoint.
func (h *Host) Remove(ctx context.Context, id string) error {
	if err := h.Stop(ctx, id); err != nil {
		return err
	}
	h.mu.Lock()
	a := h.named[id]
	delete(h.named, id)
	h.mu.Unlock()
	if a != nil {
		h.o.Metrics.Drop(a.Account, a.Region, a.Name)
	}
	return h.forget(id)
}

// Status is how an application does; the zero value for one that does not run.
func (h *Host) Status(id string) Status {
	h.mu.Lock()
	run := h.apps[id]
	h.mu.Unlock()
	if run == nil {
		return Status{}
	}
	return run.status()
}

// Close stops all applications behind checkpoints and waits for them.
func (h *Host) Close(ctx context.Context) error {
	h.end()
	done := make(chan struct{})
	var waiter sync.WaitGroup
	waiter.Go(func() {
		h.group.Wait()
		close(done)
	})
	select {
	case <-done:
		waiter.Wait()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("applications did not stop: %w", ctx.Err())
	}
}
