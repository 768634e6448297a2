package local

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// Durability says what an acknowledged append has survived.
type Durability uint8

const (
	// DurabilitySync acknowledges what is on stable storage.
	DurabilitySync Durability = iota
	// DurabilityNone acknowledges what the operating system has. It survives the
	// end of the process, not of the machine.
	DurabilityNone
)

// Options of Open. The zero value is usable.
type Options struct {
	// SegmentBytes is the size of a log segment, a multiple of 4096, at least
	// 64 KiB; 64 MiB if zero. A batch must fit into one, so sizes below
	// driver.MaxBatchBytes plus 8 KiB lower the size of batches that are taken:
	// for tests.
	SegmentBytes int
	// SegmentCount is how many log segments there may be, at least 2; 8 if zero.
	// They bound the disk space of the log and, with SegmentBytes, the memory of
	// images. Only as many are made as the load needs.
	SegmentCount int
	// Retention lists the retention classes: a shard's data is filed under the
	// shortest class that is not below its retention, and files of one class go
	// together. Ascending, at most 30; 0, "keep", is always added. Classes of
	// data that exists stay. Six classes from a day to a year if nil.
	Retention []time.Duration
	// Now is the clock for arrival times; time.Now if nil.
	Now func() time.Time
	// Logger hears of what an operator should know; silent if nil.
	Logger *slog.Logger
	// Durability is what an acknowledgement means.
	Durability Durability
	// LowWatermarkBytes is the free space below which appends get ErrFull;
	// 64 MiB if zero, none if negative.
	LowWatermarkBytes int64
	// Repair opens a log with damage in it: everything that is whole is kept,
	// damaged parts are isolated, and Log.Repairs tells what is gone.
	Repair bool
	// ReadOnly opens without writing anything; every change is ErrReadOnly.
	ReadOnly bool
	// MaintenanceInterval is the time between looks at free space, expired files
	// and space to be returned; 1 s if zero.
	MaintenanceInterval time.Duration
	// Metrics is told what happened; nil tells nobody.
	Metrics Metrics
}

// Metrics receives measurements. Methods are called concurrently and must not
// block.
type Metrics interface {
	// GroupWritten reports one durable write to the log: how long it took, its
	// bytes with padding, and how many appends it carried.
	GroupWritten(took time.Duration, bytes, appends int)
	// WriteFailed reports a failed write to the log.
	WriteFailed(err error)
	// SegmentSealed reports that a log segment was turned into sealed files.
	SegmentSealed(took time.Duration, bytes int64)
	// StateChanged reports whether appends are refused for lack of space, or
	// after a failed write.
	StateChanged(full, readOnly bool)
}

type noMetrics struct{}

func (noMetrics) GroupWritten(time.Duration, int, int) {}
func (noMetrics) WriteFailed(error)                    {}
func (noMetrics) SegmentSealed(time.Duration, int64)   {}
func (noMetrics) StateChanged(full, readOnly bool)     {}

const (
	defaultSegmentBytes = 64 << 20
	defaultSegmentCount = 8
	defaultLowWatermark = 64 << 20
	minSegmentBytes     = 64 << 10
	maxSegmentBytes     = 1 << 30
	maxClasses          = 31
	maxSlots            = 4096

	lockName     = "LOCK"
	manifestName = "MANIFEST"
	walDir       = "wal"
	segDir       = "seg"

	// maxInFlight is how many groups may be on their way to the disk at once.
	// One is enough where a write takes 0.1 ms; with 5 ms a second one hides
	// most of the time the disk would otherwise wait for us.
	maxInFlight = 2

	// reservedGroups is how many groups find room in what is kept for metadata and
	// commands, however small segments are: a group takes a block at least.
	reservedGroups = 8
	// quickWrite is the average time of a write up to which one is enough.
	quickWrite = time.Millisecond
)

func (o *Options) complete() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.SegmentCount == 0 {
		o.SegmentCount = defaultSegmentCount
	}
	if o.LowWatermarkBytes == 0 {
		o.LowWatermarkBytes = defaultLowWatermark
	}
	if o.MaintenanceInterval == 0 {
		o.MaintenanceInterval = time.Second
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
	if o.Retention == nil {
		const day = 24 * time.Hour
		o.Retention = []time.Duration{day, 2 * day, 7 * day, 31 * day, 92 * day, 365 * day}
	}
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes || o.SegmentBytes%blockBytes != 0 {
		return fmt.Errorf("segment size %d: must be a multiple of %d from %d to %d", o.SegmentBytes, blockBytes, minSegmentBytes, maxSegmentBytes)
	}
	if o.SegmentCount < 2 || o.SegmentCount > 1024 {
		return fmt.Errorf("segment count %d: must be from 2 to 1024", o.SegmentCount)
	}
	return nil
}

// Log is the embedded engine. It implements driver.Driver.
type Log struct {
	o    Options
	fs   vfs.FS
	lock io.Closer

	// tableMu guards shards and the two fields of shard that belong to it. It is
	// only ever held for a look-up or an insertion.
	tableMu sync.RWMutex
	shards  map[driver.ShardID]*shard

	// commandMu serialises changes of the shard table, from check to effect.
	commandMu sync.Mutex

	// mu is the one lock every append takes: it orders the log.
	mu        sync.Mutex
	wake      sync.Cond     // a group can be taken, or closing
	current   *segment      // takes reservations; nil between segments
	offset    int           // where the next group or frame goes
	open      *group        // fills; nil if nothing is reserved behind the last group
	closed    []*group      // full, not yet taken by a writer
	rescue    *segment      // takes the groups of an abandoned segment
	lastGroup *group        // the newest group that was closed
	writing   int           // groups on their way to the disk
	writeTime time.Duration // of late, on average
	lsn       uint64        // of the newest frame
	ready     []*segment
	roomMade  chan struct{} // closed and replaced when ready or a state changes
	err       error         // why appends fail for good: ErrReadOnly or ErrClosed
	dead      bool          // storing failed for good: no further group is written, also while closing
	starved   int           // appends that wait for a segment
	full      bool
	reserved  int // bytes of the last segment that only metadata and commands may take

	committed atomic.Uint64 // LSN up to which everything is durable

	slots []atomic.Pointer[segment] // by slot, for references

	// segments holds those that are not sealed, by sequence: guarded by mu.
	segments []*segment

	files   atomic.Pointer[fileSet]
	handles handleCache

	// sealMu is held by whoever changes the set of files or writes the manifest.
	sealMu       sync.Mutex
	classes      []time.Duration // by number; fixed after Open
	replayFrom   uint64
	sealedLSN    uint64 // up to here everything is sealed
	nextFile     uint64
	sequence     uint64 // of the newest segment use
	spare        []*slot
	slotCount    int
	held         int         // backups that need removed files to stay
	dropped      []*file     // out of the set, but perhaps in the manifest on disk
	removable    []*file     // in neither, but still with a name
	retired      []*segment  // sealed; reusable once the manifest says so
	trimmed      atomic.Bool // truncations or deletions the manifest does not have
	reclaimable  atomic.Bool // truncations or deletions whose space is not given back
	noRoom       bool        // the last seal met a full disk
	sealFailures int

	// compactMu is held while files are rewritten, before sealMu.
	compactMu   sync.Mutex
	compactable chan struct{}         // 1-buffered
	unreadable  map[uint64]bool       // damaged files, which stay as they are; guarded by compactMu
	mostlyDead  atomic.Pointer[*file] // the last one seen
	punched     map[hole]bool         // guarded by sealMu

	images imagePool

	notify func(driver.ShardID, driver.Index, int64)

	background chan struct{} // 1-buffered: something to seal or prepare
	stop       context.CancelFunc
	stopped    context.Context
	work       sync.WaitGroup
	closing    atomic.Bool
	closeOnce  sync.Once
	closeErr   error
	repairs    []driver.CorruptError
}

var _ driver.Driver = (*Log)(nil)

// shard is what is known of one shard log. An idle one is this and its place in
// the table.
type shard struct {
	id driver.ShardID

	// Guarded by Log.mu: what the next append gets.
	assigned driver.Index // next index
	lastAt   int64
	deleted  bool

	// mu guards the rest: what readers may see. It is taken inside Log.mu never,
	// inside nothing, and held for a few instructions.
	mu        sync.Mutex
	first     driver.Index
	next      driver.Index // durable
	durableAt int64
	retention time.Duration
	classes   uint32 // set of classes with sealed data
	gone      bool
	usual     uint16       // how many batches the last segments had of it, at most maxUsual
	sealed    driver.Index // everything below is in sealed files
	refs      []ref        // batches in log segments, by base
}

// ref is a batch in a log segment. It holds no pointer, so that the collector
// need not look at millions of them.
type ref struct {
	base   driver.Index
	at     int64
	offset uint32 // of the batch header in the segment
	size   uint32 // of the payload
	count  uint32
	slot   uint32
}

func (r *ref) next() driver.Index { return r.base + driver.Index(r.count) }

// slot is a file of the ring.
type slot struct {
	number int
	name   string
	file   vfs.File
	broken bool // never to be written again
}

// segment is one use of a slot.
type segment struct {
	*slot
	sequence uint64
	salt     uint64
	size     int
	image    []byte
	supplied int // how far pages of old images have been moved under the image; guarded by Log.mu

	// Guarded by Log.mu.
	groups    int  // closed or open groups that are not yet published
	finished  bool // takes no further reservations
	abandoned bool // a write failed: nothing more is written here
	end       int  // durable end

	// pins counts readers of the image; the sealer frees it when it has removed
	// the references and the last reader has gone.
	pins atomic.Int32
	drop atomic.Bool

	lastLSN uint64 // of the newest published frame; guarded by Log.mu

	// For recovery: where the good frames end, and whether there are any.
	stopped int
	kept    bool

	// touched are the shards with references to this segment, in order of their
	// first. Only the publisher appends, and the sealer reads when the segment
	// has no unpublished group.
	touched []*shard
}

// Open opens the log in fsys, or makes one if fsys is empty.
//
// Errors name the file and say what is wrong: a data directory in use is
// vfs.ErrLocked, one from a newer release driver.ErrNewerVersion, damage a
// *driver.CorruptError.
func Open(ctx context.Context, fsys vfs.FS, o Options) (*Log, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := &Log{
		o:           o,
		fs:          fsys,
		shards:      map[driver.ShardID]*shard{},
		roomMade:    make(chan struct{}),
		background:  make(chan struct{}, 1),
		slots:       make([]atomic.Pointer[segment], maxSlots),
		nextFile:    1,
		compactable: make(chan struct{}, 1),
		unreadable:  map[uint64]bool{},
		punched:     map[hole]bool{},
	}
	l.wake.L = &l.mu
	l.images.size = o.SegmentBytes
	l.reserved = alignUp(max(o.SegmentBytes/16, reservedGroups*blockBytes))
	l.handles.init(fsys)
	l.stopped, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	if !o.ReadOnly {
		if err := fsys.MkdirAll("."); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
		lock, err := fsys.Lock(lockName)
		if err != nil {
			if errors.Is(err, vfs.ErrLocked) {
				return nil, fmt.Errorf("data directory is in use by another process: %w", err)
			}
			return nil, fmt.Errorf("lock data directory: %w", err)
		}
		l.lock = lock
	}
	if err := l.recover(ctx); err != nil {
		l.stop()
		l.release()
		return nil, err
	}
	if o.ReadOnly {
		l.err = driver.ErrReadOnly
		return l, nil
	}
	for range maxInFlight {
		l.work.Go(l.write)
	}
	l.work.Go(l.maintain)
	l.work.Go(l.compactor)
	return l, nil
}

// Repairs tells what Open with Options.Repair had to leave out.
func (l *Log) Repairs() []driver.CorruptError { return l.repairs }

// release closes files and frees memory; nothing runs any more.
func (l *Log) release() {
	for i := range l.slots {
		if s := l.slots[i].Load(); s != nil {
			if s.image != nil {
				freeImage(s.image)
				s.image = nil
			}
			if s.file != nil {
				s.file.Close()
			}
		}
	}
	for _, s := range l.spare {
		s.file.Close()
	}
	l.handles.close()
	l.images.drain(0)
	if l.lock != nil {
		l.lock.Close()
	}
}

func (l *Log) Notify(f func(driver.ShardID, driver.Index, int64)) { l.notify = f }

// lookup returns a shard of the table.
func (l *Log) lookup(id driver.ShardID) *shard {
	l.tableMu.RLock()
	s := l.shards[id]
	l.tableMu.RUnlock()
	return s
}

// wakeWaitersLocked lets everyone who waits for room look again.
func (l *Log) wakeWaitersLocked() {
	close(l.roomMade)
	l.roomMade = make(chan struct{})
}

// poke asks for the background work to be looked at.
func (l *Log) poke() {
	select {
	case l.background <- struct{}{}:
	default:
	}
}

// Close ends the log: appends that are in flight are stored, later ones fail.
func (l *Log) Close() error {
	l.closeOnce.Do(func() {
		l.closing.Store(true)
		if !l.o.ReadOnly {
			// Says that nothing acknowledged lies behind the last frame, which
			// makes damage to it tell from a torn tail.
			l.logCommands([]command{{code: commandClosed}}, nil)
		}
		l.mu.Lock()
		l.err = driver.ErrClosed
		l.wakeWaitersLocked()
		l.wake.Broadcast()
		l.mu.Unlock()
		l.stop()
		l.work.Wait()
		l.sealMu.Lock()
		if !l.o.ReadOnly && l.trimmed.Load() {
			l.closeErr = l.writeManifest()
		}
		l.sealMu.Unlock()
		l.tableMu.Lock()
		l.release()
		l.tableMu.Unlock()
	})
	return l.closeErr
}

// newSalt makes a number that no earlier use of a segment has had.
func newSalt() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// unpin ends a reader's use of the image.
func (s *segment) unpin(l *Log) {
	if s.pins.Add(-1) == 0 && s.drop.Load() {
		l.dropImage(s)
	}
}

// dropImage frees the image once: pins go to minus infinity.
func (l *Log) dropImage(s *segment) {
	if s.pins.CompareAndSwap(0, -1<<20) {
		l.images.put(s.image)
		s.image = nil
	}
}
