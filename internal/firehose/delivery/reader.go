package delivery

import (
	"context"
	"fmt"
	"time"
)

// Reader reads the direct puts of one delivery stream for another service of the
// same server, beside the engine's own lane. Records are named by their index,
// which begins at 1. They are there until they expire as long as Options.Kept says
// so, else until they are delivered. Its methods may be called concurrently.
type Reader struct{ s *stream }

// keptLocked tells whether somebody reads direct puts besides the lane.
func (s *stream) keptLocked() bool {
	return s.engine.o.Kept != nil && s.engine.o.Kept(s.version.ARN)
}

// OpenReader finds a delivery stream that is put to directly. Errors:
// ErrNotFound, ErrSource.
func (e *Engine) OpenReader(id string) (*Reader, error) {
	s := e.find(id)
	if s == nil {
		return nil, ErrNotFound
	}
	if s.direct == nil {
		return nil, ErrSource
	}
	return &Reader{s}, nil
}

// Log is the number of the log that holds the records: unique among all logs
// that ever were.
func (r *Reader) Log() uint64 { return uint64(r.s.direct.shard) }

// Lane is the name of the one lane of direct puts.
func (r *Reader) Lane() string { return directLane }

// Gone is closed when the delivery stream has been removed.
func (r *Reader) Gone() <-chan struct{} { return r.s.gone }

// At is the index of the first record that arrived at or after at; of the record
// that comes next, if there is none. At of the zero time is 1.
func (r *Reader) At(ctx context.Context, at time.Time) (uint64, error) {
	if at.IsZero() {
		return 1, nil
	}
	millis := at.UnixMilli()
	if at.After(time.UnixMilli(millis)) {
		millis++ // a record of this millisecond is before the wanted time
	}
	index, err := r.s.direct.log.FirstAt(ctx, r.s.direct.shard, millis)
	if err != nil {
		return 0, fmt.Errorf("find a direct put by time: %w", err)
	}
	return uint64(index), nil
}

// Read fills run with records from an index on: about maxBytes of data but one
// record in any case, if one is there.
func (r *Reader) Read(ctx context.Context, from uint64, maxBytes int, run *Run) error {
	if err := r.s.direct.read(ctx, max(from, 1), maxBytes, run); err != nil {
		return fmt.Errorf("read direct puts: %w", err)
	}
	return nil
}

// Tail returns the index that the next record will have, and a channel that is
// closed when there may be more.
func (r *Reader) Tail() (next uint64, changed <-chan struct{}) { return r.s.direct.tail() }

// RecordID is the id that the put of a record answered.
func (r *Reader) RecordID(index uint64, arrival int64) string {
	return r.s.direct.number(index, arrival)
}
