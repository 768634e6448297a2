package streams

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	defaultReceiveLimit = 10
	defaultReceiveWait  = 9 * time.Second
	// maxReceiveBytes ends a reply before it grows beyond a page of GetRecords;
	// one record is returned in any case.
	maxReceiveBytes = 10 << 20
	// freshReadBytes is how much of a shard is looked at for one receive.
	freshReadBytes = 1 << 20
)

// receiveRequest is what both kinds of receive ask for.
type receiveRequest struct {
	dead       bool
	limit      int
	wait       time.Duration
	visibility *int32
}

// taken is a record on its way out of a queue.
type taken struct {
	place
	delivery // as it was before; Count 0 for a record that was never handed out
	key      *string
	data     []byte
}

// receive hands out what is visible, waiting for it as long as the request says.
func (s *Service) receive(ctx context.Context, call *api.Call, arn string, r receiveRequest) ([]kinesis.QueueRecord, error) {
	v, err := s.queues.deliverable(call, arn)
	if err != nil {
		return nil, err
	}
	timeout := time.NewTimer(r.wait)
	defer timeout.Stop()
	for {
		// What wakes the wait is noted before looking, so that nothing that
		// comes in between is missed.
		wait := s.receiveSignals(v)
		records, err := s.receiveOnce(ctx, v, r)
		if err != nil || len(records) > 0 {
			return records, err
		}
		woken, err := s.awaitVisible(ctx, v, wait, r.dead, timeout.C)
		if err != nil || !woken {
			return []kinesis.QueueRecord{}, err
		}
		if v, err = s.queues.deliverable(call, arn); err != nil {
			return nil, err
		}
	}
}

// receiveSignals are the channels that are closed when a receive may find more.
func (s *Service) receiveSignals(v queueView) []<-chan struct{} {
	s.queues.mu.RLock()
	signals := []<-chan struct{}{v.changed}
	s.queues.mu.RUnlock()
	st := s.registry.stream(v.streamName())
	if st == nil {
		return signals
	}
	signals = append(signals, st.gone)
	for _, sh := range st.open {
		_, changed := s.log.Tail(sh.log)
		signals = append(signals, changed)
	}
	return signals
}

// awaitVisible returns true when a receive is worth another try, and false when
// the time is up.
func (s *Service) awaitVisible(ctx context.Context, v queueView, signals []<-chan struct{}, dead bool, timeout <-chan time.Time) (bool, error) {
	const fixed = 3
	cases := make([]reflect.SelectCase, 0, fixed+len(signals))
	receive := func(ch any) {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)})
	}
	receive(ctx.Done())
	receive(timeout)
	var soon <-chan time.Time
	s.queues.mu.RLock()
	first, ok := v.visible[deadIndex(dead)].Min()
	if dead {
		v.exhausted(func(d due) bool {
			if !ok || d.at < first.at {
				first, ok = d, true
			}
			return false
		})
	}
	s.queues.mu.RUnlock()
	if ok {
		timer := time.NewTimer(max(time.UnixMilli(first.at).Sub(s.now()), time.Millisecond))
		defer timer.Stop()
		soon = timer.C
	}
	receive(soon)
	for _, signal := range signals {
		receive(signal)
	}
	switch chosen, _, _ := reflect.Select(cases); chosen {
	case 0:
		return false, context.Cause(ctx)
	case 1:
		return false, nil
	default:
		return true, nil
	}
}

// receiveOnce hands out what is visible now. Receives of one queue follow each
// other, so that two do not choose the same records and meet in the commit.
func (s *Service) receiveOnce(ctx context.Context, v queueView, r receiveRequest) ([]kinesis.QueueRecord, error) {
	select {
	case v.receiving <- struct{}{}:
		defer func() { <-v.receiving }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		st := s.registry.stream(v.streamName())
		if st == nil || st.id != v.record.StreamID || !st.readable() {
			return nil, resourceNotFound("The stream of queue %s, account %s is gone.", v.name.name, v.name.account)
		}
		now := s.now()
		pass := &receivePass{s: s, v: v, st: st, now: now, horizon: st.trimHorizon(now), limit: r.limit}
		if r.dead {
			pass.bury()
		}
		if err := pass.again(ctx, r.dead); err != nil {
			return nil, err
		}
		if !r.dead {
			if err := pass.fresh(ctx); err != nil {
				return nil, err
			}
		}
		visibility := v.record.Visibility
		if r.visibility != nil {
			visibility = *r.visibility
		}
		out := make([]kinesis.QueueRecord, 0, len(pass.out))
		for i := range pass.out {
			out = append(out, pass.handOut(&pass.out[i], visibility))
		}
		if len(pass.ops) == 0 {
			return out, nil
		}
		conflict, err := s.commit(ctx, pass.ops...)
		if err != nil {
			return nil, err
		}
		if !conflict && (len(out) > 0 || !pass.moved) {
			return out, nil
		}
	}
}

// receivePass chooses what one receive hands out and collects what that changes.
type receivePass struct {
	s       *Service
	v       queueView
	st      *stream
	now     time.Time
	horizon int64
	limit   int

	out   []taken
	bytes int
	ops   []meta.Op
	moved bool // deliveries changed without being handed out: there may be more behind them
}

func (p *receivePass) full() bool { return len(p.out) >= p.limit || p.bytes >= maxReceiveBytes }

// exhausted calls f with the live deliveries that have been received as often
// as they may, by when they become visible, until it returns false. The caller
// holds the lock of queues.
func (v queueView) exhausted(f func(due) bool) {
	if v.record.MaxReceive == 0 {
		return
	}
	v.visible[deadIndex(false)].Scan(func(d due) bool {
		return v.deliveries[d.place].Count < v.record.MaxReceive || f(d)
	})
}

// bury makes dead letters of exhausted deliveries whose visibility timeout has
// passed, for whoever asks for dead letters need not wait until somebody asks
// for live records.
func (p *receivePass) bury() {
	p.s.queues.mu.RLock()
	defer p.s.queues.mu.RUnlock()
	p.v.exhausted(func(d due) bool {
		if d.at > p.now.UnixMilli() || len(p.ops) >= deleteChunk {
			return false
		}
		c := p.v.deliveries[d.place]
		row := meta.Row[deliveryRecord]{Key: deliveryTable.Key(deliveryParts(p.v.record.ID, d.place)...), Version: c.version, Value: c.deliveryRecord}
		row.Value.Dead = true
		p.ops = append(p.ops, deliveryTable.Update(row))
		p.moved = true
		return true
	})
}

// again takes deliveries whose visibility timeout has passed.
func (p *receivePass) again(ctx context.Context, dead bool) error {
	type candidate struct {
		place
		delivery
	}
	var candidates []candidate
	p.s.queues.mu.RLock()
	p.v.visible[deadIndex(dead)].Scan(func(d due) bool {
		if d.at > p.now.UnixMilli() || len(candidates) == deleteChunk {
			return false
		}
		c := candidate{d.place, p.v.deliveries[d.place]}
		candidates = append(candidates, c)
		return len(candidates) < 4*p.limit
	})
	p.s.queues.mu.RUnlock()
	for _, c := range candidates {
		if p.full() {
			return nil
		}
		row := meta.Row[deliveryRecord]{Key: deliveryTable.Key(deliveryParts(p.v.record.ID, c.place)...), Version: c.version, Value: c.deliveryRecord}
		if !dead && p.v.record.MaxReceive > 0 && c.Count >= p.v.record.MaxReceive {
			row.Value.Dead = true
			p.ops = append(p.ops, deliveryTable.Update(row))
			p.moved = true
			continue
		}
		t := taken{place: c.place, delivery: c.delivery}
		found := false
		if c.Arrival >= p.horizon {
			var err error
			if found, err = p.read(ctx, &t); err != nil {
				return err
			}
		}
		if !found { // trimmed
			p.ops = append(p.ops, deliveryTable.Delete(row))
			p.moved = true
			continue
		}
		p.add(t)
	}
	return nil
}

func (p *receivePass) add(t taken) {
	p.out = append(p.out, t)
	p.bytes += len(t.data)
}

// read fetches a record that was handed out before.
func (p *receivePass) read(ctx context.Context, t *taken) (found bool, err error) {
	sh := p.st.listed(t.shard, p.now)
	if sh == nil {
		return false, nil
	}
	batches, _, err := p.s.log.Read(ctx, sh.log, t.index, 1, nil)
	if err != nil {
		return false, fmt.Errorf("read shard %s: %w", sh.id(), err)
	}
	if len(batches) == 0 {
		return false, nil
	}
	err = p.each(sh, batches[:1], t.index, func(index driver.Index, _ int64, key *string, data []byte) bool {
		found = index == t.index
		t.key, t.data = key, data
		return false
	})
	return found, err
}

// each calls f with the records at and after from until it returns false.
func (p *receivePass) each(sh *shard, batches []driver.StoredBatch, from driver.Index, f func(index driver.Index, at int64, key *string, data []byte) bool) error {
	for _, b := range batches {
		for r, err := range shardlog.Records(b) {
			if err != nil {
				return fmt.Errorf("read shard %s: %w", sh.id(), err)
			}
			if r.Index < from {
				continue
			}
			key, data, err := p.s.openQueued(p.st, sh, r, b.At)
			if err != nil {
				return err
			}
			if !f(r.Index, b.At, key, data) {
				return nil
			}
		}
	}
	return nil
}

// fresh takes records that were never handed out, from one shard after the
// other, beginning where the last receive stopped.
func (p *receivePass) fresh(ctx context.Context) error {
	shards := p.st.visible(p.now)
	if len(shards) == 0 {
		return nil
	}
	p.s.queues.mu.RLock()
	outstanding := len(p.v.deliveries)
	start, _ := slices.BinarySearchFunc(shards, p.v.next, func(sh *shard, next uint32) int { return cmp.Compare(sh.index, next) })
	p.s.queues.mu.RUnlock()
	for i := range shards {
		room := min(p.limit-len(p.out), maxDeliveries-outstanding-len(p.out))
		if p.full() || room <= 0 {
			return nil
		}
		sh := shards[(start+i)%len(shards)]
		if err := p.freshFrom(ctx, sh, room); err != nil {
			return err
		}
		p.s.queues.mu.Lock()
		p.v.next = sh.index + 1
		p.s.queues.mu.Unlock()
	}
	return nil
}

func (p *receivePass) freshFrom(ctx context.Context, sh *shard, room int) error {
	p.s.queues.mu.RLock()
	at, known := p.v.cursors[sh.index]
	p.s.queues.mu.RUnlock()
	// A shard without a cursor was made after the queue: it is read from its
	// beginning.
	from := max(at.next, 1)
	bounds, err := p.s.log.Bounds(ctx, sh.log)
	if err != nil {
		return fmt.Errorf("read shard %s: %w", sh.id(), err)
	}
	if from >= bounds.Next {
		return nil
	}
	next := from
	if readable, err := p.s.log.FirstAt(ctx, sh.log, p.horizon); err != nil {
		return fmt.Errorf("read shard %s: %w", sh.id(), err)
	} else {
		next = max(next, readable)
	}
	if next < bounds.Next {
		batches, _, err := p.s.log.Read(ctx, sh.log, next, freshReadBytes, nil)
		if err != nil {
			return fmt.Errorf("read shard %s: %w", sh.id(), err)
		}
		err = p.each(sh, batches, next, func(index driver.Index, at int64, key *string, data []byte) bool {
			t := taken{place: place{sh.index, index}, key: key, data: data}
			t.Arrival = at
			p.add(t)
			next = index + 1
			room--
			return room > 0 && !p.full()
		})
		if err != nil {
			return err
		}
	}
	if next == from {
		return nil
	}
	record := cursorRecord{Next: uint64(next)}
	if known {
		p.ops = append(p.ops, cursorTable.Update(meta.Row[cursorRecord]{Key: cursorTable.Key(cursorParts(p.v.record.ID, sh.index)...), Version: at.version, Value: record}))
		return nil
	}
	// Nothing else in the commit would fail if the queue were deleted meanwhile.
	p.ops = append(p.ops, cursorTable.Insert(record, cursorParts(p.v.record.ID, sh.index)...), p.v.update(p.v.record))
	return nil
}

// handOut makes the reply's record and the operation that remembers it.
func (p *receivePass) handOut(t *taken, visibility int32) kinesis.QueueRecord {
	record := t.deliveryRecord
	record.Count++
	record.VisibleAt = p.now.Add(time.Duration(visibility) * time.Second).UnixMilli()
	record.Receipt = newReceiptID()
	parts := deliveryParts(p.v.record.ID, t.place)
	if t.version == 0 {
		record.FirstAt = p.now.UnixMilli()
		p.ops = append(p.ops, deliveryTable.Insert(record, parts...))
	} else {
		p.ops = append(p.ops, deliveryTable.Update(meta.Row[deliveryRecord]{Key: deliveryTable.Key(parts...), Version: t.version, Value: record}))
	}
	return kinesis.QueueRecord{
		ReceiptHandle:               api.Ptr(p.s.sealReceipt(p.v.record.ID, receipt{t.place, record.Receipt})),
		RecordId:                    api.Ptr(fmt.Sprintf("%016x%08x%016x", p.v.record.StreamID, t.shard, uint64(t.index))),
		PartitionKey:                t.key,
		Data:                        t.data,
		ApproximateArrivalTimestamp: api.Ptr(time.UnixMilli(t.Arrival).UTC()),
		FirstReceiveTimestamp:       api.Ptr(time.UnixMilli(record.FirstAt).UTC()),
		ReceiveCount:                api.Ptr(record.Count),
	}
}

func newReceiptID() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

func newReceiveRequest(dead bool, limit, wait, visibility *int32) receiveRequest {
	r := receiveRequest{dead: dead, limit: defaultReceiveLimit, wait: defaultReceiveWait, visibility: visibility}
	if limit != nil {
		r.limit = int(*limit)
	}
	if wait != nil {
		r.wait = time.Duration(*wait) * time.Second
	}
	return r
}

// openQueued reads a stored record into memory of its own.
func (s *Service) openQueued(st *stream, sh *shard, r shardlog.Record, at int64) (key *string, data []byte, err error) {
	stored, err := parseStored(r.Data)
	if err != nil {
		return nil, nil, damaged(sh, uint64(r.Index), err)
	}
	if stored.hasKey {
		key = api.Ptr(strings.Clone(stored.key))
	}
	data = stored.data
	if stored.sealed {
		if data, err = s.unseal(&page{}, st, sh, stored, uint64(r.Index), at); err != nil {
			return nil, nil, err
		}
	}
	return key, append([]byte{}, data...), nil
}
