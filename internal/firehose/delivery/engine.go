package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/vfs"
)

// Errors of an Engine.
var (
	// ErrNotFound means a delivery stream that was not applied.
	ErrNotFound = errors.New("delivery: no such delivery stream")
	// ErrFull means that a direct put cannot be stored now: the delivery stream
	// has as much undelivered data as it may have, or the disk is full. Nothing
	// was stored.
	ErrFull = errors.New("delivery: too much undelivered data")
	// ErrSource means a direct put to a delivery stream with a source.
	ErrSource = errors.New("delivery: delivery stream has a source")
	// ErrClosed means an engine whose Run has ended.
	ErrClosed = errors.New("delivery: closed")
)

// Options of an Engine. Log and Meta are required.
type Options struct {
	Log     *shardlog.Log
	Meta    *meta.Store
	Keyring *keyring.Ring // opens and seals direct puts; nil if none is encrypted
	// Spool is a folder for buffers that do not fit into memory. What is in it
	// is removed at the start. Nil keeps buffers in memory only: readers wait
	// when it is used up.
	Spool vfs.FS
	// BufferMemory bounds the memory of all buffers, in bytes; 128 MiB if zero.
	BufferMemory int64
	// DirectRetention is how long direct puts are kept for delivery; 24 hours if
	// zero.
	DirectRetention time.Duration
	// DirectQuota bounds the undelivered bytes of a delivery stream that is put
	// to directly; no bound if zero.
	DirectQuota int64
	// DrainTimeout bounds how long the end of Run delivers what is buffered; 5 s
	// if zero, nothing is delivered if negative.
	DrainTimeout time.Duration

	Streams StreamSource // nil: data streams cannot be sources
	Topics  *Topics      // nil: topics cannot be sources

	Now      func() time.Time // time.Now if nil
	Logger   *slog.Logger
	Metrics  Metrics
	ErrorLog ErrorLog
}

// Status is how a delivery stream is doing.
type Status struct {
	ID      string
	Version int
	Paused  bool
	// Stalled is set while records cannot be delivered and cannot be put aside
	// either: the destination and the error output fail. Error says why.
	Stalled   bool
	LastError *Problem // the newest failure, nil if there was none
	Lanes     []LaneStatus
	// Partitions is how many partitions have undelivered records.
	Partitions int
	// Batches, Records and Bytes are buffered, open or sealed.
	Batches, Records int
	Bytes            int64
	// Oldest is the arrival of the oldest record that was read and is not
	// delivered; the zero time if there is none.
	Oldest time.Time
}

// LaneStatus is how far one lane has been read and delivered. Indexes count
// from 1; records below Delivered are delivered, backed up, dropped by a
// function or in an error output.
type LaneStatus struct {
	Name                       string
	Delivered, Read, Available uint64
	Behind                     time.Duration // age of what is to be read next
	Done                       bool          // a closed shard that is drained
}

// Problem is a failure with its time.
type Problem struct {
	At            time.Time
	Code, Message string
}

// LedgerEntry says what became of one batch.
type LedgerEntry struct {
	Sequence uint64 // counts the entries of a delivery stream
	At       time.Time
	// Output is "delivery", "backup", or the error-output-type.
	Output    string
	Outcome   Outcome
	Objects   []string // what was written
	BatchID   string
	Version   int
	Lane      string
	Partition string
	// From and To are the sequence numbers of the first and last record.
	From, To string
	Records  int
	Failed   int   // of these, refused by the destination
	Bytes    int64 // of records, before compression
	Attempts int
	Took     time.Duration // since the first attempt
	Error    string        // of the last attempt that failed
}

// Outcome is the end of a batch.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered"
	// Partly means that the destination took some records; the others are in the
	// error output.
	Partly Outcome = "partly"
	// Refused means that all records are in the error output.
	Refused Outcome = "refused"
	// Expired means that the records' retention ended before they could be
	// delivered.
	Expired Outcome = "expired"
)

// LedgerEntries is how many entries of a delivery stream's ledger are kept.
const LedgerEntries = 64

// Engine delivers. It is made by New; nothing is read before Run. All other
// methods may be called at any time and concurrently.
type Engine struct{ o Options }

// New makes an engine.
func New(o Options) (*Engine, error) { return &Engine{o: o}, nil }

// Run delivers until ctx ends, then drains: buffers are sealed and delivered
// within Options.DrainTimeout; what is left is read again at the next start.
func (e *Engine) Run(ctx context.Context) error { return nil }

// Apply starts a delivery stream, or continues it under a new version. What was
// buffered is delivered under the version it was read with; later records get
// the new one. It returns once direct puts are taken.
func (e *Engine) Apply(ctx context.Context, d *Definition) error { return nil }

// Remove ends a delivery stream and forgets what is stored about it. With drain,
// everything that was accepted is delivered first, as long as ctx allows;
// otherwise undelivered records are gone.
func (e *Engine) Remove(ctx context.Context, id string, drain bool) error { return nil }

// Put stores records of a direct put and returns when they are durable. Record
// ids are decimal numbers of 56 digits that grow with every record. encrypted
// tells whether they were sealed. Errors: ErrNotFound, ErrSource, ErrFull, those
// of the keyring.
func (e *Engine) Put(ctx context.Context, id string, records [][]byte) (recordIDs []string, encrypted bool, err error) {
	return nil, false, nil
}

// Status tells how a delivery stream is doing.
func (e *Engine) Status(id string) (Status, error) { return Status{}, nil }

// Flush delivers everything that was accepted before the call, without regard to
// hints, and returns when it is delivered or ctx ends.
func (e *Engine) Flush(ctx context.Context, id string) error { return nil }

// Pause stops reading and delivering until Resume. What is under way is
// finished; puts are taken. It survives a restart.
func (e *Engine) Pause(ctx context.Context, id string) error { return nil }

// Resume ends a Pause.
func (e *Engine) Resume(ctx context.Context, id string) error { return nil }

// Ledger returns what became of the newest batches, newest first, at most limit
// or all that are kept if that is 0.
func (e *Engine) Ledger(id string, limit int) ([]LedgerEntry, error) { return nil, nil }
