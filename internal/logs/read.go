package logs

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/api"
	cwl "github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	maxPage      = 10_000  // events in one reply
	maxPageBytes = 1 << 20 // of messages in one reply
	// readBytes is how much is read at a time, scanBytes how much one call looks
	// at before it answers with what it has and a token.
	readBytes = 512 << 10
	scanBytes = 32 << 20
	// backStep is how many events a reader that goes back looks at at a time.
	backStep = 2000
)

// event is one event as it is read.
type event struct {
	index   driver.Index
	arrived int64
	at      int64
	message []byte // valid until the next one is read
}

// scan reads the events [from, to) in order until f says that it is enough.
func (s *Service) scan(ctx context.Context, shard driver.ShardID, from, to driver.Index, f func(event) bool) error {
	var buf []byte
	for from < to {
		batches, next, err := s.log.Read(ctx, shard, from, readBytes, buf[:0])
		buf = next
		if errors.Is(err, driver.ErrNotFound) {
			return errNoStream
		}
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			return nil
		}
		for _, b := range batches {
			for r, err := range shardlog.Records(b) {
				if err != nil {
					return err
				}
				if r.Index < from {
					continue
				}
				if r.Index >= to {
					return nil
				}
				at, message, err := parseEvent(r.Data)
				if err != nil {
					return &driver.CorruptError{File: fmt.Sprintf("log of shard %d, event %d", shard, r.Index), Reason: err.Error()}
				}
				if !f(event{r.Index, b.At, at, message}) {
					return nil
				}
			}
			from = max(from, b.Next())
		}
	}
	return nil
}

// at is the time of the event at an index, or of the first one behind it.
func (s *Service) at(ctx context.Context, shard driver.ShardID, index driver.Index) (at int64, err error) {
	err = s.scan(ctx, shard, index, ^driver.Index(0), func(e event) bool {
		at = e.at
		return false
	})
	return at, err
}

// readable is the range of a stream's events that may be shown.
func (s *Service) readable(ctx context.Context, g group, shard driver.ShardID) (first, next driver.Index, err error) {
	bounds, err := s.log.Bounds(ctx, shard)
	if err == nil {
		first, next = bounds.First, bounds.Next
		if expired := s.expired(g); expired > 0 {
			first, err = s.log.FirstAt(ctx, shard, expired)
		}
	}
	if errors.Is(err, driver.ErrNotFound) {
		err = errNoStream
	}
	return first, next, err
}

// period is the range of times that a reader asks for: [start, end).
type period struct{ start, end int64 }

func newPeriod(start, end *int64) (period, error) {
	p := period{0, 1<<63 - 1}
	if start != nil {
		p.start = *start
	}
	if end != nil {
		p.end = *end
	}
	if p.start > p.end {
		return p, invalidf("startTime must not be after endTime")
	}
	return p, nil
}

func (p period) holds(at int64) bool { return at >= p.start && at < p.end }

// GetLogEvents reads a stream, a page at a time in either direction. At the end of
// the stream the token that comes back is the one that was sent.
func (s *Service) GetLogEvents(ctx context.Context, call *api.Call, in *cwl.GetLogEventsInput) (*cwl.GetLogEventsOutput, error) {
	name, err := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	g, err := s.group(call, name)
	if err != nil {
		return nil, err
	}
	row, err := s.stream(call, name, *in.LogStreamName)
	if err != nil {
		return nil, err
	}
	when, err := newPeriod(in.StartTime, in.EndTime)
	if err != nil {
		return nil, err
	}
	limit := maxPage
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	first, next, err := s.readable(ctx, g.Value, row.Value.Shard)
	if err != nil {
		return nil, err
	}
	forward, at := in.StartFromHead != nil && *in.StartFromHead, next
	if forward {
		at = first
	}
	if in.NextToken != nil {
		if forward, at, err = readIndexToken(*in.NextToken); err != nil {
			return nil, err
		}
		at = min(max(at, first), next)
	}
	r := reader{s: s, shard: row.Value.Shard, when: when, limit: limit}
	if forward {
		err = r.forward(ctx, at, next)
	} else {
		err = r.backward(ctx, first, at)
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.events, func(a, b cwl.OutputLogEvent) int { return cmp.Compare(*a.Timestamp, *b.Timestamp) })
	ahead, back := indexToken("f", r.end), indexToken("b", r.begin)
	return &cwl.GetLogEventsOutput{Events: r.events, NextForwardToken: &ahead, NextBackwardToken: &back}, nil
}

// reader collects one page of one stream: the events that are wanted among those
// from begin up to end.
type reader struct {
	s          *Service
	shard      driver.ShardID
	when       period
	limit      int
	events     []cwl.OutputLogEvent
	bytes      int
	begin, end driver.Index
}

func outputEvent(e event) cwl.OutputLogEvent {
	text := strings.ToValidUTF8(string(e.message), "\uFFFD")
	return cwl.OutputLogEvent{Timestamp: &e.at, IngestionTime: &e.arrived, Message: &text}
}

func (r *reader) forward(ctx context.Context, from, next driver.Index) error {
	r.begin, r.end, r.events = from, from, []cwl.OutputLogEvent{}
	looked := 0
	return r.s.scan(ctx, r.shard, from, next, func(e event) bool {
		if r.when.holds(e.at) {
			if r.bytes += len(e.message); len(r.events) > 0 && r.bytes > maxPageBytes {
				return false
			}
			r.events = append(r.events, outputEvent(e))
		}
		r.end = e.index + 1
		looked += len(e.message) + eventOverhead
		return len(r.events) < r.limit && looked < scanBytes
	})
}

func (r *reader) backward(ctx context.Context, first, to driver.Index) error {
	r.begin, r.end, r.events = to, to, []cwl.OutputLogEvent{}
	for looked := 0; r.begin > first && looked < scanBytes; {
		from := first
		if r.begin-first > backStep {
			from = r.begin - backStep
		}
		type found struct {
			index driver.Index
			event cwl.OutputLogEvent
		}
		var part []found
		err := r.s.scan(ctx, r.shard, from, r.begin, func(e event) bool {
			looked += len(e.message) + eventOverhead
			if r.when.holds(e.at) {
				part = append(part, found{e.index, outputEvent(e)})
			}
			return true
		})
		if err != nil {
			return err
		}
		r.begin = from
		for _, f := range slices.Backward(part) {
			r.bytes += len(*f.event.Message)
			if len(r.events) == r.limit || len(r.events) > 0 && r.bytes > maxPageBytes {
				r.begin = f.index + 1
				slices.Reverse(r.events)
				return nil
			}
			r.events = append(r.events, f.event)
		}
		if len(r.events) == r.limit {
			break
		}
	}
	slices.Reverse(r.events)
	return nil
}

func indexToken(direction string, index driver.Index) string {
	return fmt.Sprintf("%s/%056d/s", direction, index)
}

var errToken = &cwl.InvalidParameterException{Message: "The specified nextToken is invalid."}

func readIndexToken(text string) (forward bool, index driver.Index, err error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 || parts[2] != "s" || parts[0] != "f" && parts[0] != "b" {
		return false, 0, errToken
	}
	n, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return false, 0, errToken
	}
	return parts[0] == "f", driver.Index(n), nil
}

func nameToken(name string) *string {
	token := base64.RawURLEncoding.EncodeToString([]byte(name))
	return &token
}

func readNameToken(token *string) (string, error) {
	if token == nil {
		return "", nil
	}
	name, err := base64.RawURLEncoding.DecodeString(*token)
	if err != nil || len(name) == 0 {
		return "", errToken
	}
	return string(name), nil
}

// key is an event's place among all events of a group: by arrival, then by stream,
// then by index. The order never changes, so a key is where a page ends.
type key struct {
	arrived int64
	stream  string
	index   driver.Index
}

func (k key) compare(l key) int {
	return cmp.Or(cmp.Compare(k.arrived, l.arrived), strings.Compare(k.stream, l.stream), cmp.Compare(k.index, l.index))
}

func (k key) token() *string {
	return nameToken(fmt.Sprintf("%d/%d/%s", k.arrived, k.index, k.stream))
}

func readKey(token *string) (key, error) {
	text, err := readNameToken(token)
	if err != nil || token == nil {
		return key{}, err
	}
	parts := strings.SplitN(text, "/", 3)
	if len(parts) != 3 {
		return key{}, errToken
	}
	arrived, err1 := strconv.ParseInt(parts[0], 10, 64)
	index, err2 := strconv.ParseUint(parts[1], 10, 64)
	if err1 != nil || err2 != nil || arrived < 0 {
		return key{}, errToken
	}
	return key{arrived, parts[2], driver.Index(index)}, nil
}

// found is an event that a filter let through.
type found struct {
	key   key
	shard driver.ShardID
	at    int64
	text  string
}

// latest is a heap with the last of the collected events on top: the one that goes
// when there are too many.
type latest []found

func (h latest) Len() int           { return len(h) }
func (h latest) Less(i, j int) bool { return h[i].key.compare(h[j].key) > 0 }
func (h latest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *latest) Push(x any)        { *h = append(*h, x.(found)) }
func (h *latest) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// FilterLogEvents searches the streams of a group. A page holds the first events,
// in the order of key, that are wanted; a stream of which only a part could be
// looked at ends the page there for all. An empty page with a token is no end.
func (s *Service) FilterLogEvents(ctx context.Context, call *api.Call, in *cwl.FilterLogEventsInput) (*cwl.FilterLogEventsOutput, error) {
	name, err := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	g, err := s.group(call, name)
	if err != nil {
		return nil, err
	}
	if in.LogStreamNames != nil && in.LogStreamNamePrefix != nil {
		return nil, invalidf("LogStreamNames and logStreamNamePrefix cannot both be set")
	}
	when, err := newPeriod(in.StartTime, in.EndTime)
	if err != nil {
		return nil, err
	}
	pattern := &Pattern{}
	if in.FilterPattern != nil {
		if pattern, err = ParsePattern(*in.FilterPattern); err != nil {
			return nil, invalidf("%v", err)
		}
	}
	after, err := readKey(in.NextToken)
	if err != nil {
		return nil, err
	}
	rows, err := streams.List(s.meta, "", 0, call.Account, call.Region, name)
	if err != nil {
		return nil, err
	}
	list := sorted(rows, func(name string, _ stream) bool {
		return (in.LogStreamNames == nil || slices.Contains(in.LogStreamNames, name)) && (in.LogStreamNamePrefix == nil || strings.HasPrefix(name, *in.LogStreamNamePrefix))
	})
	for _, want := range in.LogStreamNames {
		if !slices.ContainsFunc(list, func(r named[stream]) bool { return r.name == want }) {
			return nil, errNoStream
		}
	}
	search := &search{s: s, after: after, when: when, pattern: pattern, limit: maxPage, share: max(readBytes, scanBytes/max(len(list), 1))}
	if in.Limit != nil {
		search.limit = int(*in.Limit)
	}
	for _, r := range list {
		if err := search.stream(ctx, g.Value, r); err != nil && !errors.Is(err, errNoStream) {
			return nil, err
		}
	}
	return search.page(), nil
}

// search collects one page over streams.
type search struct {
	s       *Service
	after   key // where the page before ended
	when    period
	pattern *Pattern
	limit   int
	share   int // bytes to look at in one stream

	events  latest
	bytes   int
	full    bool // events had to be left out
	horizon *key // what is behind it has not been looked at everywhere
}

func (q *search) stream(ctx context.Context, g group, r named[stream]) error {
	first, next, err := q.s.readable(ctx, g, r.value.Shard)
	if err != nil || first >= next {
		return err
	}
	// An event arrives two hours before its own time at the earliest.
	arrived := max(q.after.arrived, q.when.start-maxFuture.Milliseconds())
	if arrived > 0 {
		from, err := q.s.log.FirstAt(ctx, r.value.Shard, arrived)
		if err != nil {
			return err
		}
		first = max(first, from)
	}
	looked := 0
	return q.s.scan(ctx, r.value.Shard, first, next, func(e event) bool {
		k := key{e.arrived, r.name, e.index}
		if k.compare(q.after) <= 0 {
			return true
		}
		if q.horizon != nil && k.compare(*q.horizon) > 0 || q.full && k.compare(q.events[0].key) > 0 {
			return false
		}
		if q.when.holds(e.at) && q.pattern.Match(e.message) {
			f := found{k, r.value.Shard, e.at, strings.ToValidUTF8(string(e.message), "\uFFFD")}
			heap.Push(&q.events, f)
			q.bytes += len(f.text)
			for len(q.events) > q.limit || len(q.events) > 1 && q.bytes > maxPageBytes {
				q.bytes -= len(heap.Pop(&q.events).(found).text)
				q.full = true
			}
		}
		if looked += len(e.message) + eventOverhead; looked >= q.share && e.index+1 < next {
			q.horizon = &k
			return false
		}
		return true
	})
}

// page makes the reply of what was collected.
func (q *search) page() *cwl.FilterLogEventsOutput {
	out := &cwl.FilterLogEventsOutput{Events: []cwl.FilteredLogEvent{}, SearchedLogStreams: []cwl.SearchedLogStream{}}
	slices.SortFunc(q.events, func(a, b found) int { return a.key.compare(b.key) })
	// Everything up to end has been looked at in all streams.
	var end *key
	if q.full {
		end = &q.events[len(q.events)-1].key
	}
	if q.horizon != nil && (end == nil || q.horizon.compare(*end) < 0) {
		end = q.horizon
	}
	if end != nil {
		out.NextToken = end.token()
		last := *end
		q.events = slices.DeleteFunc(q.events, func(f found) bool { return f.key.compare(last) > 0 })
	}
	slices.SortStableFunc(q.events, func(a, b found) int { return cmp.Compare(a.at, b.at) })
	for _, f := range q.events {
		id := fmt.Sprintf("%020d%020d%016d", f.key.arrived, f.shard, f.key.index)
		out.Events = append(out.Events, cwl.FilteredLogEvent{LogStreamName: &f.key.stream, Timestamp: &f.at, IngestionTime: &f.key.arrived, Message: &f.text, EventId: &id})
	}
	return out
}
