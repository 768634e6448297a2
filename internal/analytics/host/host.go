// Package host runs applications: it reads their sources, feeds their programs
// and delivers their rows.
//
// The one idea: one goroutine per application owns its program, and time in it is
// that goroutine's clock. Readers fetch pages of records ahead of it and
// deliverers send rows behind it, both through queues with a bound, so that a
// destination which does not take rows holds up the sources and nothing else. A
// checkpoint is a moment at which no row is on its way: the state of every
// operator and the place in every shard, stored together. What comes after it is
// done again when an application goes on, so rows are delivered at least once, and
// the state counts every record exactly once.
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

// Record is a record of a source. Its bytes belong to its page.
type Record struct {
	Index   uint64
	Arrival int64 // milliseconds since 1970
	Key     []byte
	Data    []byte
}

// Page is what one Read gave.
type Page struct {
	Records []Record
	Next    uint64 // where to go on
	Tail    uint64 // the index that the shard's next record will have
	End     bool   // the shard is closed and nothing follows Next
}

// Source is a resource that is read. Its methods may be called concurrently.
type Source interface {
	// ID is unique among all resources that ever were.
	ID() uint64
	Shards() ([]Shard, error)
	// At is the index of the first record that arrived at or after at, or of the
	// next one; of the zero time it is the first.
	At(ctx context.Context, shard uint32, at time.Time) (uint64, error)
	Read(ctx context.Context, shard uint32, from uint64, maxBytes int) (*Page, error)
	// Changed is closed when there may be more in a shard.
	Changed(shard uint32) <-chan struct{}
	// Resharded is closed when there may be other shards.
	Resharded() <-chan struct{}
	// Gone is closed when the resource is being deleted.
	Gone() <-chan struct{}
	SequenceNumber(shard uint32, index uint64, arrival int64) string
}

// Destination takes rows. Write returns when they are durable; it is called again
// with the same rows after an error.
type Destination interface {
	Write(ctx context.Context, rows [][]byte) error
}

// Options of a Host.
type Options struct {
	// OpenSource and OpenDestination find resources; an error is tried again.
	OpenSource      func(ctx context.Context, a *app.Application, r app.Resource) (Source, error)
	OpenDestination func(ctx context.Context, a *app.Application, r app.Resource) (Destination, error)
	// OpenObject opens the object of a reference table.
	OpenObject func(ctx context.Context, a *app.Application, r app.Reference) (io.ReadCloser, error)
	// Tell is told about what keeps an application from working: its input's or
	// reference's id, which may be empty, a code and a text.
	Tell func(ctx context.Context, a *app.Application, id, code, text string)
	// Files holds checkpoints.
	Files vfs.FS
	// CheckpointEvery is the time between checkpoints; 10 s if zero.
	CheckpointEvery time.Duration
	// IdleEvery is how often an idle source's time goes on; 500 ms if zero.
	IdleEvery time.Duration
	// DrainWithin is how long an application that stops tries to deliver the rows
	// it has made; 5 s if zero.
	DrainWithin time.Duration
	// MaxReference bounds the object of a reference table, in bytes; 1 GB if zero.
	MaxReference int64
	// Now is the clock; time.Now if nil.
	Now    func() time.Time
	Logger *slog.Logger
}

// Status is how an application does.
type Status struct {
	Running bool
	Problem string
	// MillisBehindLatest is how far reading is behind the newest record.
	MillisBehindLatest int64
	RowsIn, RowsOut    int64
}

// Host runs applications.
type Host struct {
	o     Options
	group sync.WaitGroup
	ctx   context.Context
	end   context.CancelFunc

	mu   sync.Mutex
	apps map[string]*application
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
	h := &Host{o: o, apps: map[string]*application{}}
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
	if err := h.Stop(ctx, a.ID); err != nil {
		return err
	}
	run, err := h.open(a)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return errors.New("host: closed")
	}
	h.apps[a.ID] = run
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
