package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
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
	// Spool is a folder for buffers that do not fit into memory. Buffers in it are
	// removed at the start. Nil keeps buffers in memory only: lanes wait when it is
	// used up.
	Spool vfs.FS
	// BufferMemory bounds the memory of all buffers, in bytes; 128 MiB if zero.
	BufferMemory int64
	// DirectRetention is how long direct puts are kept for delivery; 24 hours if
	// zero.
	DirectRetention time.Duration
	// DirectQuota bounds the undelivered bytes of a delivery stream that is put
	// to directly; no bound if zero. What an earlier run left is estimated from
	// its first records.
	DirectQuota int64
	// Kept tells whether records that were put directly to the delivery stream of an
	// ARN stay until they expire because somebody reads them beside its lane; nil
	// keeps none. Others are removed once they are delivered.
	Kept func(arn string) bool
	// DrainTimeout bounds how long the end of Run delivers what is buffered; 5 s
	// if zero, nothing is delivered if negative.
	DrainTimeout time.Duration
	// Deliveries bounds the attempts under way at a time that wait for others;
	// 256 if zero. Objects are made by four times as many workers as there are
	// processors, and at least 16.
	Deliveries int

	Streams StreamSource // nil: data streams cannot be sources
	Topics  *Topics      // nil: topics cannot be sources

	Now      func() time.Time // time.Now if nil
	Logger   *slog.Logger
	Metrics  Metrics
	ErrorLog ErrorLog
}

// Engine delivers. It is made by New; nothing is read before Run. All other
// methods may be called at any time and concurrently.
type Engine struct {
	o      Options
	memory *memory
	reads  *semaphore.Weighted // bytes of reads under way
	// gathered is the bytes of records that wait for functions, or are with them.
	gathered *semaphore.Weighted
	local    *semaphore.Weighted // deliveries that make objects
	remote   *semaphore.Weighted // deliveries that wait for others

	window   int        // maxWindow
	applying sync.Mutex // Apply, Remove, Pause, Resume; taken before all others

	mu      sync.RWMutex
	streams map[string]*stream
	running bool
	closed  bool

	schedules schedules
}

const (
	// maxReads bounds the memory of reads under way.
	maxReads = 64 << 20
	// maxGathered bounds that of records which functions are to see, or see.
	maxGathered = 128 << 20
)

// New makes an engine.
func New(o Options) (*Engine, error) {
	if o.Log == nil || o.Meta == nil {
		return nil, errors.New("delivery: a log and metadata are required")
	}
	if o.BufferMemory <= 0 {
		o.BufferMemory = 128 << 20
	}
	if o.DirectRetention <= 0 {
		o.DirectRetention = 24 * time.Hour
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = 5 * time.Second
	}
	if o.Deliveries <= 0 {
		o.Deliveries = 256
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = noMetrics{}
	}
	e := &Engine{
		o: o, window: maxWindow, streams: map[string]*stream{}, reads: semaphore.NewWeighted(maxReads), gathered: semaphore.NewWeighted(maxGathered),
		local: semaphore.NewWeighted(int64(max(16, 4*runtime.GOMAXPROCS(0)))), remote: semaphore.NewWeighted(int64(o.Deliveries)),
	}
	var err error
	if e.memory, err = newMemory(o.BufferMemory, o.Spool); err != nil {
		return nil, err
	}
	e.memory.relieve = e.relieve
	e.schedules.wake = make(chan struct{}, 1)
	return e, nil
}

func (e *Engine) now() time.Time { return e.o.Now() }

// list is the delivery streams at work.
func (e *Engine) list() []*stream {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make([]*stream, 0, len(e.streams))
	for _, s := range e.streams {
		all = append(all, s)
	}
	return all
}

func (e *Engine) find(id string) *stream {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.streams[id]
}

// Run delivers until ctx ends, then drains: buffers are sealed and delivered
// within Options.DrainTimeout; what is left is read again at the next start. It
// can be called once.
func (e *Engine) Run(ctx context.Context) error {
	e.applying.Lock()
	e.mu.Lock()
	e.running = true
	e.mu.Unlock()
	for _, s := range e.list() {
		s.start()
	}
	e.applying.Unlock()

	e.runSchedule(ctx)

	e.applying.Lock()
	defer e.applying.Unlock()
	e.mu.Lock()
	e.closed, e.running = true, false
	e.mu.Unlock()
	all := e.list()
	var group sync.WaitGroup
	for _, s := range all {
		group.Go(func() { s.stop(e.o.DrainTimeout) })
	}
	group.Wait()
	return nil
}

// Apply starts a delivery stream, or continues it under a new version. What was
// buffered is delivered under the version it was read with; later records get
// the new one. It returns once direct puts are taken.
func (e *Engine) Apply(ctx context.Context, d *Definition) error {
	e.applying.Lock()
	defer e.applying.Unlock()
	if e.isClosed() {
		return ErrClosed
	}
	switch {
	case d.ID == "" || len(d.ID) > 64:
		return fmt.Errorf("delivery: id %q of a delivery stream is not usable", d.ID)
	case d.Main == nil:
		return errors.New("delivery: a delivery stream needs a destination")
	case d.Source.Stream != nil && e.o.Streams == nil, d.Source.Topic != nil && e.o.Topics == nil:
		return errors.New("delivery: this server has no sources of that kind")
	}
	v := &version{Definition: d}
	if s := e.find(d.ID); s != nil {
		s.apply(v)
		// Under the new version, the old one's batches would not come again.
		return s.storePlans(ctx)
	}
	s := &stream{
		engine: e, id: d.ID, logger: e.o.Logger.With("deliveryStream", d.Name), version: v,
		series: e.o.Metrics.Series(d.Account, d.Region, d.Name),
		lanes:  map[string]*lane{}, slots: map[slotKey]*slot{}, plans: map[string][]*plan{}, events: map[string]*sampled{},
		progress: make(chan struct{}), gone: make(chan struct{}), seat: -1,
	}
	if err := s.load(); err != nil {
		return fmt.Errorf("apply delivery stream %s: %w", d.Name, err)
	}
	directly := d.Source.Stream == nil && d.Source.Topic == nil
	if err := s.openRow(ctx, directly); err != nil {
		return fmt.Errorf("apply delivery stream %s: %w", d.Name, err)
	}
	if directly {
		s.direct = &direct{log: e.o.Log, ring: e.o.Keyring, shard: driver.ShardID(s.row.Log), created: s.row.Created}
	}
	e.mu.Lock()
	e.streams[d.ID] = s
	running := e.running
	e.mu.Unlock()
	if running {
		s.start()
	}
	return nil
}

func (e *Engine) isClosed() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.closed
}

// apply continues under a new version.
func (s *stream) apply(v *version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.version
	s.sealAllLocked(nil)
	s.version, old.old = v, true
	if sameMain(old.Main, v.Main) {
		v.refs++
		old.heir = v
	}
	old.refs++
	s.unrefLocked(old) // closes it if it is not in use
	for _, l := range s.lanes {
		l.nudge()
	}
}

// sameMain reports whether two versions share a destination.
func sameMain(a, b dest.Destination) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// start reads and delivers.
func (s *stream) start() {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return
	}
	s.running = true
	s.reading, s.stopReading = context.WithCancel(context.Background())
	s.sending, s.stopSending = context.WithCancel(context.Background())
	source := s.version.Source
	s.progressLocked()
	s.mu.Unlock()
	switch {
	case source.Stream != nil:
		s.group.Go(func() { s.follow(s.reading) })
	case source.Topic != nil:
		s.group.Go(func() { s.consume(s.reading) })
	default:
		s.group.Go(func() { s.startDirect(s.reading) })
	}
}

// startDirect begins to read direct puts.
func (s *stream) startDirect(ctx context.Context) {
	for {
		rows, err := s.storedLanes()
		if err == nil {
			row := rows[directLane]
			row.Low = max(row.Low, 1)
			s.estimate(ctx, row.Low)
			if _, err = s.addLane(ctx, directLane, s.direct, nil, nil, row, &s.group); err == nil {
				s.setListed()
				return
			}
		}
		s.problem("InternalError", "the stored account cannot be read: "+err.Error(), "", true)
		if !sleep(ctx, 30*time.Second) {
			return
		}
	}
}

// estimate adds what an earlier run left to the backlog.
func (s *stream) estimate(ctx context.Context, low uint64) {
	if s.engine.o.DirectQuota <= 0 {
		return
	}
	bounds, err := s.engine.o.Log.Bounds(ctx, s.direct.shard)
	if err != nil || uint64(bounds.Next) <= low {
		return
	}
	var run Run
	if err := s.direct.read(ctx, low, 64<<10, &run); err != nil || len(run.Records) == 0 {
		return
	}
	size := int64(0)
	for _, r := range run.Records {
		size += int64(len(r.Data))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := int64(uint64(bounds.Next) - run.Records[0].Index)
	s.backlog.puts = slices.Insert(s.backlog.puts, 0, backlogPut{uint64(bounds.Next) - 1, size * left / int64(len(run.Records))})
	s.backlog.bytes += s.backlog.puts[0].bytes
}

// stop ends reading, delivers what is buffered for a while, and ends that too.
func (s *stream) stop(drain time.Duration) {
	s.mu.Lock()
	if !s.running {
		s.removed = true
		s.mu.Unlock()
		s.flights.Wait()
		s.closeMain(s.version)
		return
	}
	s.draining = true
	s.progressLocked()
	s.mu.Unlock()
	s.stopReading()
	s.group.Wait()
	if drain > 0 {
		s.mu.Lock()
		if !s.paused {
			s.sealAllLocked(nil)
		}
		s.mu.Unlock()
		timer := time.AfterFunc(drain, s.stopSending)
		s.settleAll(s.sending)
		timer.Stop()
	}
	s.stopSending()
	s.flights.Wait()
	s.mu.Lock()
	s.running = false
	for _, sl := range s.slotListLocked() {
		for _, b := range append(sl.sealed, sl.open) {
			if b != nil {
				b.buffer.close()
				s.unrefLocked(sl.slotKey.version)
			}
		}
	}
	for _, list := range s.plans {
		for _, p := range list {
			if p.batch != nil {
				p.batch.buffer.close()
			}
		}
	}
	clear(s.slots)
	v := s.version
	s.mu.Unlock()
	s.flights.Wait()
	s.closeMain(v)
}

// settleAll waits until nothing is sealed any more, and the accounts are stored.
func (s *stream) settleAll(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		n := 0
		for _, sl := range s.slots {
			n += len(sl.sealed)
			if sl.open != nil {
				n++
			}
		}
		progress, paused := s.progress, s.paused
		s.mu.Unlock()
		if n == 0 || paused {
			_ = s.commit(ctx)
			return
		}
		select {
		case <-progress:
		case <-ctx.Done():
		}
	}
}

// Remove ends a delivery stream and forgets what is stored about it. With drain,
// everything that was accepted is delivered first, as long as ctx allows;
// otherwise undelivered records are gone. It also forgets one that was never
// applied.
func (e *Engine) Remove(ctx context.Context, id string, drain bool) error {
	if drain {
		if err := e.Flush(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	e.applying.Lock()
	defer e.applying.Unlock()
	e.mu.Lock()
	s := e.streams[id]
	delete(e.streams, id)
	e.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		s.removed = true
		v := s.version
		s.mu.Unlock()
		close(s.gone)
		e.schedules.remove(s)
		s.stop(-1)
		e.o.Metrics.Drop(v.Account, v.Region, v.Name)
	}
	log, err := forget(ctx, e.o.Meta, id)
	if err != nil {
		return fmt.Errorf("remove delivery stream: %w", err)
	}
	if log != 0 {
		if err := e.o.Log.Delete(ctx, log); err != nil {
			return fmt.Errorf("remove delivery stream: %w", err)
		}
	}
	return nil
}

// Put stores records of a direct put, up to 500, and returns when they are
// durable. Record ids are decimal numbers of 56 digits that grow with every
// record. encrypted tells whether they were sealed. Errors: ErrNotFound,
// ErrSource, ErrFull, those of the keyring.
func (e *Engine) Put(ctx context.Context, id string, records [][]byte) (recordIDs []string, encrypted bool, err error) {
	s := e.find(id)
	if s == nil {
		return nil, false, ErrNotFound
	}
	if s.direct == nil {
		return nil, false, ErrSource
	}
	if len(records) == 0 {
		return nil, false, nil
	}
	size := int64(0)
	for _, r := range records {
		size += int64(len(r))
	}
	s.mu.Lock()
	encryption, removed := s.version.Encryption, s.removed
	full := e.o.DirectQuota > 0 && s.backlog.bytes+s.putting+size > e.o.DirectQuota
	s.putting += size
	s.mu.Unlock()
	var stored uint64 // index of the last record
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.putting -= size
		if stored > 0 && e.o.DirectQuota > 0 {
			s.backlog.add(stored, size)
		}
	}()
	switch {
	case removed:
		return nil, false, ErrNotFound
	case full:
		s.series.Add(ThrottledRecords, float64(len(records)))
		return nil, false, ErrFull
	}
	put := &directPut{shard: s.direct.shard, records: records}
	if encryption != nil {
		if put.key, err = s.direct.sealing(encryption.DataKey); err != nil {
			return nil, false, err
		}
	}
	b := &driver.Batch{Shard: s.direct.shard, Count: len(records), Size: put.size(), Payload: put}
	err = e.o.Log.Append(ctx, []*driver.Batch{b})
	if err == nil {
		err = b.Err
	}
	if err != nil {
		switch {
		case errors.Is(err, driver.ErrFull):
			return nil, false, fmt.Errorf("%w: %w", ErrFull, err)
		case errors.Is(err, driver.ErrNotFound):
			return nil, false, ErrNotFound
		}
		return nil, false, fmt.Errorf("store direct put: %w", err)
	}
	stored = uint64(b.Base) + uint64(len(records)) - 1
	recordIDs = make([]string, len(records))
	var one [numberDigits]byte
	var digits strings.Builder // of all, in one piece
	digits.Grow(numberDigits * len(records))
	for i := range recordIDs {
		digits.Write(appendNumber(one[:0], s.direct.created, uint64(b.Base)+uint64(i), b.At))
	}
	text := digits.String()
	for i := range recordIDs {
		recordIDs[i] = text[i*numberDigits : (i+1)*numberDigits]
	}
	return recordIDs, put.key != nil, nil
}

// Flush delivers everything that was accepted before the call, without regard to
// hints, and returns when it is delivered or ctx ends. Of a data stream that is
// being resharded, it is what the shards hold that are being read.
func (e *Engine) Flush(ctx context.Context, id string) error {
	s := e.find(id)
	if s == nil {
		return ErrNotFound
	}
	s.mu.Lock()
	s.eager++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.eager--
	}()
	var targets map[*lane]uint64
	for {
		s.mu.Lock()
		lanes := slices.Clone(s.serials)
		progress, removed, over := s.progress, s.removed, s.draining
		ready := s.running && s.listed
		s.mu.Unlock()
		switch {
		case removed:
			return ErrNotFound
		case over, e.isClosed():
			return ErrClosed
		}
		if ready && targets == nil {
			targets = map[*lane]uint64{}
			for _, l := range lanes {
				targets[l] = l.target()
			}
		}
		done := ready
		s.mu.Lock()
		for l, target := range targets {
			if low := l.account.low(); low < target && !(l.ended && low == l.account.next) && s.lanes[l.name] == l {
				done = false
			}
			l.nudge()
		}
		s.sealAllLocked(nil)
		s.mu.Unlock()
		if done {
			return s.persist(ctx)
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Pause stops reading and delivering until Resume. What is under way is
// finished; puts are taken. It survives a restart.
func (e *Engine) Pause(ctx context.Context, id string) error { return e.setPaused(ctx, id, true) }

// Resume ends a Pause.
func (e *Engine) Resume(ctx context.Context, id string) error { return e.setPaused(ctx, id, false) }

func (e *Engine) setPaused(ctx context.Context, id string, paused bool) error {
	e.applying.Lock()
	defer e.applying.Unlock()
	s := e.find(id)
	if s == nil {
		return ErrNotFound
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	row := s.row
	row.Paused = paused
	s.mu.Unlock()
	if _, err := e.o.Meta.Commit(ctx, streamTable.Put(row, s.id)); err != nil {
		return fmt.Errorf("pause delivery stream: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.row.Paused, s.paused = paused, paused
	for _, sl := range s.slotListLocked() {
		s.pumpLocked(sl)
	}
	for _, l := range s.lanes {
		l.nudge()
	}
	s.progressLocked()
	return nil
}

// Status is how a delivery stream is doing.
type Status struct {
	ID      string
	Version int
	Paused  bool
	// Stalled is set while records cannot be delivered and cannot be put aside
	// either: the destination and the error output fail.
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
	Done                       bool // a closed shard that is drained
}

// Problem is a failure with its time.
type Problem struct {
	At            time.Time
	Code, Message string
}

// Status tells how a delivery stream is doing.
func (e *Engine) Status(id string) (Status, error) {
	s := e.find(id)
	if s == nil {
		return Status{}, ErrNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		ID: s.id, Version: s.version.Version, Paused: s.paused, Stalled: s.stalled > 0, LastError: s.last,
		Partitions: s.partitions, Records: s.records, Bytes: s.bytes,
	}
	for _, sl := range s.slots {
		st.Batches += len(sl.sealed)
		if sl.open != nil {
			st.Batches++
		}
	}
	if oldest := s.oldestLocked(outputMain); oldest > 0 {
		st.Oldest = time.UnixMilli(oldest)
	}
	for _, l := range s.lanes {
		available := l.target()
		st.Lanes = append(st.Lanes, LaneStatus{
			Name: l.name, Delivered: l.account.low(), Read: l.read, Available: available, Done: l.ended && l.account.low() == l.account.next,
		})
	}
	slices.SortFunc(st.Lanes, func(a, b LaneStatus) int { return strings.Compare(a.Name, b.Name) })
	return st, nil
}

// LedgerEntry says what became of one batch.
type LedgerEntry struct {
	Sequence uint64    `json:"sequence"` // counts the entries of a delivery stream
	At       time.Time `json:"at"`
	// Output is "delivery", "backup", or the error-output-type.
	Output    string   `json:"output"`
	Outcome   Outcome  `json:"outcome"`
	Objects   []string `json:"objects,omitempty"` // what was written
	BatchID   string   `json:"batchId"`
	Version   int      `json:"version"`
	Lane      string   `json:"lane"` // of the first record
	Partition string   `json:"partition,omitempty"`
	// From and To are the sequence numbers of the first record and of the last one
	// of the same lane.
	From     string        `json:"from,omitempty"`
	To       string        `json:"to,omitempty"`
	Records  int           `json:"records"`
	Failed   int           `json:"failed,omitempty"` // of these, refused by the destination
	Bytes    int64         `json:"bytes"`            // of records, before compression
	Attempts int           `json:"attempts"`
	Took     time.Duration `json:"took"`            // since the first attempt
	Error    string        `json:"error,omitempty"` // of the last attempt that failed
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

// LedgerEntries is how many entries of a delivery stream's ledger are kept: more
// than one round of a hundred partitions, and about 100 KiB of metadata.
const LedgerEntries = 256

// Ledger returns what became of the newest batches, newest first, at most limit
// or all that are kept if that is 0.
func (e *Engine) Ledger(id string, limit int) ([]LedgerEntry, error) {
	if e.find(id) == nil {
		return nil, ErrNotFound
	}
	rows, err := ledgerTable.List(e.o.Meta, "", 0, id)
	if err != nil {
		return nil, err
	}
	slices.Reverse(rows)
	if limit > 0 {
		rows = rows[:min(limit, len(rows))]
	}
	entries := make([]LedgerEntry, len(rows))
	for i, row := range rows {
		entries[i] = row.Value
	}
	return entries, nil
}

// relieve seals the open batches of the delivery stream that buffers most:
// memory is used up and nothing can be spilled. It reports whether anything is
// sealed, there or elsewhere, so that there will be room.
func (e *Engine) relieve() bool {
	var largest *stream
	var most int64
	sealed := false
	for _, s := range e.list() {
		s.mu.Lock()
		var open int64
		for _, sl := range s.slots {
			if sl.open != nil {
				open += sl.open.buffer.held.Load()
			}
			sealed = sealed || len(sl.sealed) > 0
		}
		s.mu.Unlock()
		if open > most {
			largest, most = s, open
		}
	}
	if largest == nil {
		return sealed
	}
	largest.mu.Lock()
	defer largest.mu.Unlock()
	largest.sealAllLocked(nil)
	return true
}
