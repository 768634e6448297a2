package logs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	cwl "github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	// maxBatch bounds a request, in bytes of messages and 26 more for each event.
	maxBatch      = 1 << 20
	eventOverhead = 26
	maxSpan       = 24 * time.Hour
	maxPast       = 14 * 24 * time.Hour
	maxFuture     = 2 * time.Hour
)

// PutLogEvents appends events to a stream. They are durable at return. Sequence
// tokens are taken and not looked at, as the service does since 2023.
func (s *Service) PutLogEvents(ctx context.Context, call *api.Call, in *cwl.PutLogEventsInput) (*cwl.PutLogEventsOutput, error) {
	g, err := s.group(call, *in.LogGroupName)
	if err != nil {
		return nil, err
	}
	row, err := s.stream(call, *in.LogGroupName, *in.LogStreamName)
	if err != nil {
		return nil, err
	}
	size := 0
	for i, e := range in.LogEvents {
		n := len(*e.Message) + eventOverhead
		if n > maxBatch {
			return nil, invalidf("Log event too large: %d bytes exceeds limit of %d", n, maxBatch)
		}
		size += n
		if i > 0 && *e.Timestamp < *in.LogEvents[i-1].Timestamp {
			return nil, invalidf("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if size > maxBatch {
		return nil, invalidf("Upload too large: %d bytes exceeds limit of %d", size, maxBatch)
	}
	events := in.LogEvents
	if span := *events[len(events)-1].Timestamp - *events[0].Timestamp; span > maxSpan.Milliseconds() {
		return nil, invalidf("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	out := &cwl.PutLogEventsOutput{}
	events, out.RejectedLogEventsInfo = admit(events, s.now(), g.Value.Retention)
	next := driver.Index(0)
	if len(events) > 0 {
		records := make([][]byte, len(events))
		for i, e := range events {
			records[i] = appendEvent(make([]byte, 0, len(*e.Message)+12), *e.Timestamp, *e.Message)
		}
		if next, err = s.append(ctx, row.Value.Shard, records); err != nil {
			return nil, err
		}
	} else if bounds, err := s.log.Bounds(ctx, row.Value.Shard); err == nil {
		next = bounds.Next
	}
	token := sequenceToken(next)
	out.NextSequenceToken = &token
	return out, nil
}

// sequenceToken has the form that clients know; nothing depends on it.
func sequenceToken(next driver.Index) string { return fmt.Sprintf("%056d", next) }

// append stores records and returns the index behind them.
func (s *Service) append(ctx context.Context, shard driver.ShardID, records [][]byte) (driver.Index, error) {
	batch := shardlog.NewBatch(shard, records...)
	err := s.log.Append(ctx, []*driver.Batch{batch})
	if err == nil {
		err = batch.Err
	}
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return 0, errNoStream // removed meanwhile
	case errors.Is(err, driver.ErrFull):
		return 0, &cwl.ServiceUnavailableException{Message: "There is no room for log events."}
	case err != nil:
		return 0, err
	}
	return batch.Base + driver.Index(batch.Count), nil
}

// admit leaves out the events at both ends that are too old or too new, and says
// where they are.
func admit(events []cwl.InputLogEvent, now time.Time, days int32) ([]cwl.InputLogEvent, *cwl.RejectedLogEventsInfo) {
	var info cwl.RejectedLogEventsInfo
	rejected := false
	oldest, newest := now.Add(-maxPast).UnixMilli(), now.Add(maxFuture).UnixMilli()
	expired := int64(0)
	if days > 0 {
		expired = now.Add(-retention(days)).UnixMilli()
	}
	first, end := 0, len(events)
	past := func(limit int64) *int32 {
		n := int32(0)
		for int(n) < len(events) && *events[n].Timestamp < limit {
			n++
		}
		if n == 0 {
			return nil
		}
		rejected = true
		first = max(first, int(n))
		return &n
	}
	info.TooOldLogEventEndIndex = past(oldest)
	info.ExpiredLogEventEndIndex = past(expired)
	for end > first && *events[end-1].Timestamp > newest {
		end--
	}
	if end < len(events) {
		n := int32(end)
		info.TooNewLogEventStartIndex, rejected = &n, true
	}
	if !rejected {
		return events, nil
	}
	return events[first:end], &info
}

const (
	// What Log was given waits within these bounds; beyond them it is lost, and
	// counted.
	maxQueued      = 10_000
	maxQueuedBytes = 16 << 20
)

// queue is what Log was given and Run has not written yet.
type queue struct {
	mu     sync.Mutex
	lines  []line
	bytes  int
	lost   int
	signal chan struct{} // holds a signal while there are lines
}

type place struct{ account, region, group, stream string }

type line struct {
	place
	record []byte
}

// Log takes an event for a stream that is made, with its group, if it is not there
// yet. It never waits: the event is written a moment later, and dropped if too many
// are waiting. The event's bytes are the caller's again at return.
func (s *Service) Log(_ context.Context, account, region, group, stream string, at time.Time, event []byte) {
	if len(event) == 0 || len(event)+eventOverhead > maxBatch {
		event = event[:min(len(event), maxBatch-eventOverhead)]
		if len(event) == 0 {
			return
		}
	}
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) >= maxQueued || q.bytes+len(event) > maxQueuedBytes {
		q.lost++
		return
	}
	q.bytes += len(event)
	q.lines = append(q.lines, line{place{account, region, group, stream}, appendEvent(make([]byte, 0, len(event)+12), at.UnixMilli(), string(event))})
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// write stores what Log is given, until ctx ends and nothing is left.
func (s *Service) write(ctx context.Context) {
	for {
		select {
		case <-s.queue.signal:
			s.Flush(context.WithoutCancel(ctx))
		case <-ctx.Done():
			s.Flush(context.WithoutCancel(ctx))
			return
		}
	}
}

// Flush stores what Log has been given so far.
func (s *Service) Flush(ctx context.Context) {
	q := &s.queue
	q.mu.Lock()
	lines, lost := q.lines, q.lost
	q.lines, q.bytes, q.lost = nil, 0, 0
	q.mu.Unlock()
	if lost > 0 {
		s.logger.Warn("log events lost: too many at once", "events", lost)
	}
	var order []place
	records := map[place][][]byte{}
	for _, l := range lines {
		if records[l.place] == nil {
			order = append(order, l.place)
		}
		records[l.place] = append(records[l.place], l.record)
	}
	for _, p := range order {
		if err := s.store(ctx, p, records[p]); err != nil {
			s.logger.Error("log events not stored", "group", p.group, "stream", p.stream, "events", len(records[p]), "error", err)
		}
	}
}

// store appends to a stream of the server's own.
func (s *Service) store(ctx context.Context, p place, records [][]byte) error {
	call := &api.Call{Account: p.account, Region: p.region}
	row, err := s.stream(call, p.group, p.stream)
	if errors.Is(err, errNoStream) {
		if err = s.makeOwn(ctx, call, p); err == nil {
			row, err = s.stream(call, p.group, p.stream)
		}
	}
	if err != nil {
		return err
	}
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && n < 10_000 && (n == 0 || size+len(records[n]) <= 4<<20) {
			size += len(records[n])
			n++
		}
		if _, err := s.append(ctx, row.Value.Shard, records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

func (s *Service) makeOwn(ctx context.Context, call *api.Call, p place) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	var exists *cwl.ResourceAlreadyExistsException
	if _, err := s.group(call, p.group); errors.Is(err, errNoGroup) {
		g := group{Created: s.now().UnixMilli(), Retention: ownRetention, Class: string(cwl.LogGroupClassStandard), Own: true}
		if err := s.createGroup(ctx, call, p.group, g); err != nil {
			return err
		}
	}
	if err := s.createStream(ctx, call, p.group, p.stream, true); err != nil && !errors.As(err, &exists) {
		return err
	}
	return nil
}
