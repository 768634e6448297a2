package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// hashRange is a range of the hash space, both ends inclusive.
type hashRange struct{ start, end hashKey }

// step is one change of the shard map: parents, neighbours in the order of
// their ranges, close, and children over the same ranges open.
type step struct {
	parents  []*shard
	children []*shard
}

// newStep makes the children of a step; logs are theirs, one each. When they
// open is not known before the parents are fenced: see settle.
func newStep(st *stream, parents []*shard, ranges []hashRange, nextShard uint32, logs []driver.ShardID) step {
	children := make([]*shard, len(ranges))
	for i, r := range ranges {
		children[i] = &shard{
			stream: st.id, index: nextShard + uint32(i), log: logs[i], start: r.start, end: r.end,
			parent: int64(parents[0].index), adjacent: -1,
		}
		if len(parents) > 1 {
			children[i].adjacent = int64(parents[1].index)
		}
	}
	return step{parents, children}
}

// settle decides when the parents closed and the children opened. lastAt is when
// the newest record of each parent arrived, 0 if it has none. It returns the
// closed parents.
func (c step) settle(now int64, lastAt []int64) []*shard {
	closed, created := now, int64(0)
	for i, p := range c.parents {
		closed, created = max(closed, p.opened, lastAt[i]), max(created, p.created)
	}
	// The second in the children's sequence numbers puts all of them above all
	// of the parents'.
	created = max(created+1, closed/1000+1)
	indexes := make([]uint32, len(c.parents))
	for i, p := range c.parents {
		indexes[i] = p.index
	}
	refs := make([]childRef, len(c.children))
	for i, child := range c.children {
		child.created, child.opened = created, closed
		refs[i] = childRef{Index: child.index, Start: child.start, End: child.end, Parents: indexes}
	}
	shut := make([]*shard, len(c.parents))
	for i, p := range c.parents {
		shut[i] = new(shard)
		*shut[i] = *p
		shut[i].closed, shut[i].children = closed, refs
	}
	return shut
}

// reshard takes one step whose children have no logs yet. next is the stream's
// record as it shall be, its NextShard not yet counted on. It reports done if
// the step took effect, and not done if the record has changed meanwhile and
// nothing did.
func (s *Service) reshard(ctx context.Context, st *stream, next streamRecord, parents []*shard, ranges []hashRange) (done bool, err error) {
	first, err := s.meta.NextShardID(ctx, len(ranges))
	if err != nil {
		return false, err
	}
	logs := make([]driver.ShardID, len(ranges))
	create := make([]driver.Shard, len(ranges))
	for i := range ranges {
		logs[i] = first + driver.ShardID(i)
		create[i] = driver.Shard{ID: logs[i], Retention: st.retention, NotBefore: s.arrivalFloor(ctx, parents)}
	}
	if err := s.log.Create(ctx, create); err != nil {
		return false, err
	}
	defer func() {
		if !done && err == nil { // nothing refers to them
			err = s.log.Delete(ctx, logs...)
		}
	}()
	steps := []step{newStep(st, parents, ranges, next.NextShard, logs)}
	next.NextShard += uint32(len(ranges))
	return s.take(ctx, st, next, steps)
}

// take lets steps take effect in one commit, all or none. They follow each
// other: a step may close what one before it opens, which then is a shard that
// never was open to anybody. next is the stream's record as it shall be.
//
// The order is what keeps every record in exactly one shard. The fence returns
// when no append to a parent is in flight; from then on the parents' ends are
// final, and writers come back with ErrFenced until the commit shows them the
// children. If the commit fails in a way that leaves its outcome open, the
// fence stays: whoever repeats the transition finds out.
func (s *Service) take(ctx context.Context, st *stream, next streamRecord, steps []step) (done bool, err error) {
	made := map[uint32]*shard{} // by these steps, by index; as they end up
	var parents []*shard        // that were there before
	for _, c := range steps {
		for _, p := range c.parents {
			if made[p.index] == nil {
				parents = append(parents, p)
			}
		}
		for _, child := range c.children {
			made[child.index] = child
		}
	}
	if err := s.fence(ctx, parents); err != nil {
		s.unfence(parents)
		return false, err
	}
	lastAt := make(map[uint32]int64, len(parents))
	for _, p := range parents {
		b, err := s.log.Bounds(ctx, p.log)
		if err != nil {
			s.unfence(parents)
			return false, fmt.Errorf("look up the end of %s: %w", p.id(), err)
		}
		if b.Next > 1 {
			lastAt[p.index] = b.LastAt
		}
	}
	now := s.now().UnixMilli()
	ops := []meta.Op{st.update(next)}
	for _, c := range steps {
		newest := make([]int64, len(c.parents))
		for i, p := range c.parents {
			newest[i] = lastAt[p.index]
		}
		for _, p := range c.settle(now, newest) {
			if made[p.index] != nil {
				made[p.index] = p
				continue
			}
			ops = append(ops, meta.Op{Key: shardKey(st.id, p.index), Value: shardTable.Encode(p.toRecord())})
		}
	}
	for _, c := range steps {
		for _, child := range c.children {
			child = made[child.index]
			ops = append(ops, meta.Op{Key: shardKey(st.id, child.index), Value: shardTable.Encode(child.toRecord()), Cond: meta.Absent})
		}
	}
	conflict, err := s.commit(ctx, ops...)
	if err != nil {
		if errors.Is(err, driver.ErrFull) { // nothing was stored, so writers may go on
			s.unfence(parents)
		}
		return false, err
	}
	if conflict {
		s.unfence(parents)
		return false, nil
	}
	return true, nil
}

// fence closes shards to writers. Those with an append in flight are waited for
// side by side, so that many take as long as one.
func (s *Service) fence(ctx context.Context, shards []*shard) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for _, sh := range shards {
		group.Go(func() error {
			if err := s.log.Fence(ctx, sh.log); err != nil {
				return fmt.Errorf("fence %s: %w", sh.id(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Service) unfence(shards []*shard) {
	for _, sh := range shards {
		s.log.Unfence(sh.log)
	}
}

// arrivalFloor is the arrival time that the records of new shards must not be
// below: the newest of their parents, which is later than now only if the clock
// was set back.
func (s *Service) arrivalFloor(ctx context.Context, parents []*shard) int64 {
	floor := s.now().UnixMilli()
	for _, p := range parents {
		if b, err := s.log.Bounds(ctx, p.log); err == nil && b.Next > 1 {
			floor = max(floor, b.LastAt)
		}
	}
	return floor
}

func (s *Service) finishSplit(ctx context.Context, st *stream) (done bool, err error) {
	p := st.record.Pending
	parent := st.shard(p.Shards[0])
	key, ok := parseHashKey(p.Key)
	if parent == nil || parent.closed != 0 || !ok {
		return s.abandon(ctx, st)
	}
	return s.reshard(ctx, st, settled(st.record), []*shard{parent}, []hashRange{{parent.start, before(key)}, {key, parent.end}})
}

func (s *Service) finishMerge(ctx context.Context, st *stream) (done bool, err error) {
	p := st.record.Pending
	low, high := st.shard(p.Shards[0]), st.shard(p.Shards[1])
	if low == nil || high == nil || low.closed != 0 || high.closed != 0 {
		return s.abandon(ctx, st)
	}
	return s.reshard(ctx, st, settled(st.record), []*shard{low, high}, []hashRange{{low.start, high.end}})
}

// abandon ends a transition whose shards are not what they were. No call can
// bring that about: only one change of a stream is accepted at a time.
func (s *Service) abandon(ctx context.Context, st *stream) (done bool, err error) {
	s.logger.Error("a change of shards does not fit the stream any more", "stream", st.name, "change", st.record.Pending.Kind)
	conflict, err := s.commit(ctx, st.update(settled(st.record)))
	return !conflict, err
}

// sweep plans a change of a stream's shard count: the exact sweep. The wanted
// ranges are those of a new stream of that size. From left to right, a wanted
// range is made by merging the shard that begins it with its right neighbours,
// a neighbour that reaches beyond its end being split there first.
type sweep struct {
	ends []hashKey // last hash of each wanted range
	at   int       // wanted ranges before this one are done
}

// newSweep plans from the open shards to target of them. from is how many were
// open when the change began: a border closer to an old one than target + from
// snaps to it, since rounding would otherwise split off slivers.
func newSweep(open []*shard, target, from uint32) *sweep {
	w := &sweep{ends: make([]hashKey, target)}
	tolerance := hashKey{0, uint64(target) + uint64(from)}
	o := 0
	for i := range target {
		_, end := uniformRange(i, target)
		// The old end at or above the wanted one, or the one below it.
		for o < len(open)-1 && open[o].end.compare(end) < 0 {
			o++
		}
		best := open[o].end
		if o > 0 && distance(open[o-1].end, end).compare(distance(best, end)) < 0 {
			best = open[o-1].end
		}
		if distance(best, end).compare(tolerance) <= 0 {
			end = best
		}
		w.ends[i] = end
	}
	return w
}

// step is the next change of the shard map: one parent and two ranges for a
// split, two parents and one range for a merge. It depends on nothing but the
// open shards, so that a sweep goes on where a restart left it.
func (w *sweep) step(open []*shard) (parents []*shard, ranges []hashRange, ok bool) {
	for ; w.at < len(w.ends); w.at++ {
		// Every wanted range before this one is one open shard.
		current, end := open[w.at], w.ends[w.at]
		switch current.end.compare(end) {
		case 0:
			continue
		case 1:
			return []*shard{current}, []hashRange{{current.start, end}, {after(end), current.end}}, true
		}
		right := open[w.at+1]
		if right.end.compare(end) > 0 {
			return []*shard{right}, []hashRange{{right.start, end}, {after(end), right.end}}, true
		}
		return []*shard{current, right}, []hashRange{{current.start, right.end}}, true
	}
	return nil, nil, false
}

// count is how many shards the sweep still makes from the open ones.
func (w *sweep) count(open []*shard) int {
	made, i := 0, w.at
	currentEnd := open[i].end
	for n, end := range w.ends[w.at:] {
		for currentEnd.compare(end) < 0 {
			i++
			if open[i].end.compare(end) > 0 {
				made += 2 + 1 // split the neighbour, merge its lower part
				currentEnd = end
				break
			}
			made++
			currentEnd = open[i].end
		}
		if currentEnd.compare(end) > 0 {
			made += 2
		}
		if n == len(w.ends)-w.at-1 {
			break
		}
		// What the next wanted range begins with: the rest of open[i], or the
		// shard behind it.
		if open[i].end.compare(end) > 0 {
			currentEnd = open[i].end
		} else {
			i++
			currentEnd = open[i].end
		}
	}
	return made
}

// scaleSteps is how many steps of a scaling take effect together: enough to make
// the commit's cost nothing beside the steps', few enough that writers to the
// shards concerned wait for milliseconds and a commit stays far below its limit
// (a step writes at most four records of a few hundred bytes).
const scaleSteps = 512

// finishScale makes one batch of steps after another until the wanted shards are
// open, then the stream is ACTIVE.
func (s *Service) finishScale(ctx context.Context, st *stream) (done bool, err error) {
	plan := newSweep(st.open, st.record.Pending.Target, st.record.Pending.From)
	first := true
	for {
		record, pending := st.record, *st.record.Pending
		record.Pending = &pending
		at := plan.at
		steps, more := plan.steps(st, &record, s.scaleSteps)
		if !more {
			break
		}
		if first || len(steps) == 0 {
			// All logs at once: a log made for each step would cost a sync each. What
			// an earlier attempt left over may exist or not, so it is not used.
			first, plan.at = false, at
			again, err := s.prepareLogs(ctx, st, plan.count(st.open))
			if again || err != nil {
				return false, err
			}
		} else if done, err := s.take(ctx, st, record, steps); err != nil {
			return false, err
		} else if !done {
			plan.at = at
		}
		// The steps' own effect, or what somebody else did to the record.
		if st = s.current(st); st == nil || st.record.Pending == nil || st.record.Pending.Kind != kindScale {
			return false, nil
		}
	}
	p := st.record.Pending
	left := remainingLogs(p)
	record := settled(st.record)
	if p.Change != nil {
		record.set(p.Change)
	}
	conflict, err := s.commit(ctx, st.update(record))
	if !conflict && err == nil && len(left) > 0 {
		err = s.log.Delete(ctx, left...)
	}
	return !conflict, err
}

// steps are the next changes of a stream, at most limit and no more than there
// are logs for; record counts on for them. more tells whether the sweep is not
// over, also when there are no logs for it.
func (w *sweep) steps(st *stream, record *streamRecord, limit int) (steps []step, more bool) {
	open := slices.Clone(st.open)
	for len(steps) < limit {
		parents, ranges, ok := w.step(open)
		if !ok {
			return steps, len(steps) > 0
		}
		if record.Pending.EndLog-record.Pending.NextLog < uint64(len(ranges)) {
			return steps, true
		}
		logs := make([]driver.ShardID, len(ranges))
		for i := range logs {
			logs[i] = driver.ShardID(record.Pending.NextLog)
			record.Pending.NextLog++
		}
		c := newStep(st, parents, ranges, record.NextShard, logs)
		record.NextShard += uint32(len(ranges))
		steps = append(steps, c)
		// What follows begins at the wanted range that is being made.
		i := w.at + slices.Index(open[w.at:], parents[0])
		open = slices.Replace(open, i, i+len(parents), c.children...)
	}
	return steps, true
}

func remainingLogs(p *transition) []driver.ShardID {
	var ids []driver.ShardID
	for id := p.NextLog; id < p.EndLog; id++ {
		ids = append(ids, driver.ShardID(id))
	}
	return ids
}

// prepareLogs allots and makes the logs for n shards to come, and drops those
// of an earlier attempt. The numbers are stored first, so that no log is ever
// without somebody who knows it.
func (s *Service) prepareLogs(ctx context.Context, st *stream, n int) (again bool, err error) {
	old := remainingLogs(st.record.Pending)
	if len(old) > 0 {
		if err := s.log.Delete(ctx, old...); err != nil {
			return false, err
		}
	}
	first, err := s.meta.NextShardID(ctx, n)
	if err != nil {
		return false, err
	}
	record, pending := st.record, *st.record.Pending
	pending.NextLog, pending.EndLog = uint64(first), uint64(first)+uint64(n)
	record.Pending = &pending
	if conflict, err := s.commit(ctx, st.update(record)); conflict || err != nil {
		return conflict, err
	}
	floor := s.arrivalFloor(ctx, st.open)
	shards := make([]driver.Shard, n)
	for i := range shards {
		shards[i] = driver.Shard{ID: first + driver.ShardID(i), Retention: st.retention, NotBefore: floor}
	}
	return false, s.log.Create(ctx, shards)
}
