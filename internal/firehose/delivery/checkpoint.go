package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// The tables of this package: docs/formats/delivery.md.
//
//	delivery.stream/{delivery stream id}
//	delivery.lane/{delivery stream id}/{lane}
//	delivery.plan/{delivery stream id}/{batch id}
//	delivery.ledger/{delivery stream id}/{sequence}
var (
	streamTable = meta.Table[streamRow]{Prefix: "delivery.stream", Format: 1}
	laneTable   = meta.Table[laneRow]{Prefix: "delivery.lane", Format: 1}
	planTable   = meta.Table[planRow]{Prefix: "delivery.plan", Format: 1}
	ledgerTable = meta.Table[LedgerEntry]{Prefix: "delivery.ledger", Format: 1}
)

// streamRow is what is stored about a delivery stream as a whole.
type streamRow struct {
	Log     uint64 `json:"log,omitempty"`     // number of the shard log of direct puts
	Created int64  `json:"created,omitempty"` // seconds since 1970
	// Retention is that of the log, in milliseconds.
	Retention int64  `json:"retention,omitempty"`
	Source    uint64 `json:"source,omitempty"` // id of the data stream that is read
	Paused    bool   `json:"paused,omitempty"`
}

// laneRow is the stored account of a lane: everything below Low is settled, and
// of what follows, what Delivery, Backup and Partial say.
type laneRow struct {
	Low      uint64 `json:"low"`
	Delivery []byte `json:"delivery,omitempty"`
	Backup   []byte `json:"backup,omitempty"`
	Partial  []byte `json:"partial,omitempty"`
	End      bool   `json:"end,omitempty"` // the source came to its end, and all is settled
}

// planRow is the extent of a batch that would not come again by itself as it is.
type planRow struct {
	Output  string                        `json:"output"`
	Group   string                        `json:"group"`
	Version int                           `json:"version"`
	Lane    string                        `json:"lane"`  // of the first record
	First   record.Position               `json:"first"` // and where it is
	Lanes   map[string][2]record.Position `json:"lanes"`
}

// plan is a planRow that waits for its records to be read again.
type plan struct {
	planRow
	id    string
	batch *batch // once there was a record
}

// opRow is a write that goes with the next commit.
type opRow struct{ meta.Op }

func planKey(output, group string) string { return output + "\x00" + group }

// planFor finds the stored batch that a record belongs to.
func (s *stream) planFor(sl *slot, l *lane, at record.Position) *plan {
	if len(s.plans) == 0 {
		return nil
	}
	for _, p := range s.plans[planKey(sl.output, sl.group)] {
		if extent, ok := p.Lanes[l.name]; ok && at.Compare(extent[0]) >= 0 && at.Compare(extent[1]) <= 0 {
			return p
		}
	}
	return nil
}

// finishPlansLocked seals stored batches all of whose records have come. They
// may be fewer than before: a function can answer differently.
func (s *stream) finishPlansLocked() {
	for key, list := range s.plans {
		for i := 0; i < len(list); {
			p := list[i]
			if !s.passedLocked(p) {
				i++
				continue
			}
			list = slices.Delete(list, i, i+1)
			if p.batch == nil {
				s.ops = append(s.ops, opRow{meta.Op{Key: planTable.Key(s.id, p.id), Delete: true}})
				s.scheduleCommitLocked()
				continue
			}
			p.batch.slot.expected--
			s.sealBatchLocked(p.batch.slot, p.batch)
		}
		if len(list) == 0 {
			delete(s.plans, key)
			continue
		}
		s.plans[key] = list
	}
}

func (s *stream) passedLocked(p *plan) bool {
	for name, extent := range p.Lanes {
		l := s.lanes[name]
		if l == nil {
			// A lane that will be there soon, unless nothing is stored about it.
			if row, ok, err := laneTable.Get(s.engine.o.Meta, s.id, name); err == nil && ok && !row.Value.End {
				return false
			}
			continue
		}
		if !l.ended && l.account.next <= extent[1].Index {
			return false
		}
	}
	return true
}

// plan is what is stored about the extent of a batch.
func (b *batch) plan() planRow {
	row := planRow{
		Output: b.slot.output, Group: b.slot.group, Version: b.version, Lane: b.lane.name, First: b.first, Lanes: map[string][2]record.Position{},
	}
	b.extents(func(l *lane, first, last record.Position) { row.Lanes[l.name] = [2]record.Position{first, last} })
	return row
}

// storePlan stores the extent of a batch.
func (s *stream) storePlan(ctx context.Context, b *batch) error {
	s.mu.Lock()
	op := planTable.Put(b.plan(), s.id, b.id)
	s.mu.Unlock()
	if _, err := s.engine.o.Meta.Commit(ctx, op); err != nil {
		return fmt.Errorf("store extent of a batch: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.planned = b.id
	return nil
}

// storePlans stores the extents of all sealed batches. No batch ends meanwhile.
func (s *stream) storePlans(ctx context.Context) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	var ops []meta.Op
	for _, sl := range s.slots {
		for _, b := range sl.sealed {
			if b.planned == "" && !b.ended {
				b.planned = b.id
				ops = append(ops, planTable.Put(b.plan(), s.id, b.id))
			}
		}
	}
	s.mu.Unlock()
	// A batch that ends now removes its extent with the next commit.
	if _, err := s.engine.o.Meta.Commit(ctx, ops...); err != nil {
		return fmt.Errorf("store extents of batches: %w", err)
	}
	return nil
}

// maxCommit is how much of the accounts goes into one commit.
const maxCommit = 4 << 20

// commit stores the accounts of lanes that changed, with what else is waiting to
// be stored. Callers that come while another commits share the next one.
func (s *stream) commit(ctx context.Context) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	for {
		more, err := s.commitSome(ctx)
		if err != nil || !more {
			return err
		}
	}
}

func (s *stream) commitSome(ctx context.Context) (more bool, err error) {
	type place struct {
		lane *lane
		low  uint64
	}
	s.mu.Lock()
	if s.removed {
		s.mu.Unlock()
		return false, nil
	}
	var ops []meta.Op
	var places []place
	size := 0
	for _, l := range s.lanes {
		if !l.dirty {
			continue
		}
		if size > maxCommit {
			more = true
			break
		}
		l.dirty = false
		row := laneRow{Low: l.account.low()}
		if row.Low < l.account.next {
			row.Delivery, row.Backup, row.Partial = l.account.encode()
		}
		// What an earlier run settled and this one has not come to yet is settled.
		if l.settled != nil {
			row.Delivery, row.Backup, row.Partial = l.mergeSettled(row)
		}
		row.End = l.ended && row.Low == l.account.next
		op := laneTable.Put(row, s.id, l.name)
		size += len(op.Value)
		ops = append(ops, op)
		places = append(places, place{l, row.Low})
	}
	waiting := s.ops
	if !more {
		s.ops = nil
		for _, op := range waiting {
			ops = append(ops, op.Op)
		}
	}
	s.mu.Unlock()
	if len(ops) == 0 {
		return false, nil
	}
	_, err = s.engine.o.Meta.Commit(ctx, ops...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		for _, p := range places {
			p.lane.dirty = true
		}
		if !more {
			s.ops = append(waiting, s.ops...)
		}
		s.scheduleCommitLocked()
		return false, fmt.Errorf("store accounts: %w", err)
	}
	for _, p := range places {
		if p.low == p.lane.stored {
			continue
		}
		p.lane.stored = p.low
		switch {
		case s.direct != nil && !s.keptLocked():
			// Should it not happen, retention does it.
			_ = s.engine.o.Log.Truncate(ctx, s.direct.shard, driver.Index(p.low))
		case p.lane.kafka != nil:
			p.lane.kafka.committed(p.low)
		}
	}
	return more, nil
}

// mergeSettled adds what an earlier run settled behind the place where this one
// is: without it, a second crash would deliver that again.
func (l *lane) mergeSettled(row laneRow) (delivery, backup, partial []byte) {
	now, err := decodeSettled(row.Low, row.Delivery, row.Backup, row.Partial)
	if err != nil {
		return row.Delivery, row.Backup, row.Partial
	}
	merge := func(a, b runs) []byte {
		for _, r := range b {
			if from := max(r[0], l.account.next); from < r[1] {
				a = append(a, [2]uint64{from, r[1]})
			}
		}
		return encodeSettled(row.Low, a)
	}
	partials := now.partial
	for index, p := range l.settled.partial {
		if index >= l.account.next {
			if partials == nil {
				partials = map[uint64]*parts{}
			}
			partials[index] = p
		}
	}
	return merge(now.delivery, l.settled.delivery), merge(now.backup, l.settled.backup), encodePartial(partials)
}

// load reads what is stored about a delivery stream.
func (s *stream) load() error {
	store := s.engine.o.Meta
	row, ok, err := streamTable.Get(store, s.id)
	if err != nil {
		return err
	}
	if ok {
		s.row, s.paused = row.Value, row.Value.Paused
	}
	plans, err := planTable.List(store, "", 0, s.id)
	if err != nil {
		return err
	}
	for _, row := range plans {
		parts, err := meta.SplitKey(row.Key)
		if err != nil || len(parts) != 3 {
			return fmt.Errorf("read %q: not the key of a batch", row.Key)
		}
		key := planKey(row.Value.Output, row.Value.Group)
		s.plans[key] = append(s.plans[key], &plan{planRow: row.Value, id: parts[2]})
	}
	ledger, err := ledgerTable.List(store, "", 0, s.id)
	if err != nil {
		return err
	}
	if n := len(ledger); n > 0 {
		s.ledger = ledger[n-1].Value.Sequence
	}
	return nil
}

// storedLanes are the accounts of lanes, by name.
func (s *stream) storedLanes() (map[string]laneRow, error) {
	rows, err := laneTable.List(s.engine.o.Meta, "", 0, s.id)
	if err != nil {
		return nil, err
	}
	lanes := make(map[string]laneRow, len(rows))
	for _, row := range rows {
		parts, err := meta.SplitKey(row.Key)
		if err != nil || len(parts) != 3 {
			return nil, fmt.Errorf("read %q: not the key of a lane", row.Key)
		}
		lanes[parts[2]] = row.Value
	}
	return lanes, nil
}

// openRow makes the stored part of a delivery stream that has none, and the log
// of direct puts. The log comes last: a crash in between leaves a row whose log is
// made at the next start.
func (s *stream) openRow(ctx context.Context, direct bool) error {
	e := s.engine
	retention := e.o.DirectRetention
	changed := false
	if s.row.Created == 0 {
		s.row.Created, changed = max(1, e.now().Unix()), true
	}
	if direct && s.row.Log == 0 {
		id, err := e.o.Meta.NextShardID(ctx, 1)
		if err != nil {
			return err
		}
		s.row.Log, changed = uint64(id), true
	}
	kept := s.row.Retention == retention.Milliseconds()
	if direct && !kept {
		s.row.Retention, changed = retention.Milliseconds(), true
	}
	if changed {
		if err := s.storeRow(ctx); err != nil {
			return err
		}
	}
	if !direct {
		return nil
	}
	id := driver.ShardID(s.row.Log)
	if _, err := e.o.Log.Bounds(ctx, id); err == nil {
		if kept {
			return nil
		}
		return e.o.Log.SetRetention(ctx, retention, id)
	} else if !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	return e.o.Log.Create(ctx, []driver.Shard{{ID: id, Retention: retention, NotBefore: s.row.Created * 1000}})
}

func (s *stream) storeRow(ctx context.Context) error {
	_, err := s.engine.o.Meta.Commit(ctx, streamTable.Put(s.row, s.id))
	return err
}

// forget removes what is stored about a delivery stream.
func forget(ctx context.Context, store *meta.Store, id string) (log driver.ShardID, err error) {
	row, ok, err := streamTable.Get(store, id)
	if err != nil {
		return 0, err
	}
	var ops []meta.Op
	for _, prefix := range []string{laneTable.Prefix, planTable.Prefix, ledgerTable.Prefix} {
		for _, r := range store.List(prefix+"/"+meta.Key(id)+"/", "", 0) {
			ops = append(ops, meta.Op{Key: r.Key, Delete: true})
		}
	}
	if ok {
		ops = append(ops, meta.Op{Key: row.Key, Delete: true})
	}
	if _, err := store.Commit(ctx, ops...); err != nil {
		return 0, err
	}
	return driver.ShardID(row.Value.Log), nil
}

// ledgerLocked notes what became of a batch, and forgets the oldest entry.
func (s *stream) ledgerLocked(entry LedgerEntry) {
	s.ledger++
	entry.Sequence = s.ledger
	key := func(n uint64) string { return fmt.Sprintf("%016x", n) }
	s.ops = append(s.ops, opRow{ledgerTable.Put(entry, s.id, key(entry.Sequence))})
	if entry.Sequence > LedgerEntries {
		s.ops = append(s.ops, opRow{meta.Op{Key: ledgerTable.Key(s.id, key(entry.Sequence-LedgerEntries)), Delete: true}})
	}
}

// persist commits until it works or ctx ends.
func (s *stream) persist(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for {
		err := s.commit(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, meta.ErrClosed) {
			return err
		}
		s.logger.Error("store how far delivery is", "error", err)
		if !sleep(ctx, pause) {
			return err
		}
		pause = min(pause*2, 5*time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// clip shortens texts that are stored.
func clip(text string, n int) string {
	if len(text) > n {
		return strings.ToValidUTF8(text[:n], "")
	}
	return text
}
