package host

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/run"
)

// Keyed is a Destination that stores each row under a key and can be asked which
// keys it has. What an application writes to one is there exactly once
// (Options.ExactlyOnce).
type Keyed interface {
	Destination
	// WriteKeyed is Write with a key for each row, up to 64 characters that no other
	// row has.
	WriteKeyed(ctx context.Context, keys []string, rows [][]byte) error
	// Keys calls f with the key of every row, of whatever writer, that became durable
	// at or after since, and may call it with older ones. The key is the callee's
	// until f returns. A WriteKeyed that has returned, with an error or without,
	// stores nothing any more.
	Keys(ctx context.Context, since time.Time, f func(key []byte)) error
}

// clockSlack is how far the clocks of an application and of its destinations may be
// apart.
const clockSlack = time.Minute

// keyPrefix begins the keys of an output's rows in an epoch.
func keyPrefix(epoch uint64, output string) string {
	h := sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, epoch), output...))
	return "mr" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(h[:])), 36) + "."
}

// appendKey appends the key of a row: its step, which of its rows it is, and a sum
// of what is in it. Should a step not make the same rows again, the sum keeps other
// rows from being taken for those that are there.
func appendKey(dst []byte, prefix string, step, ordinal uint64, row []byte) []byte {
	dst = append(dst, prefix...)
	dst = append(strconv.AppendUint(dst, step, 36), '.')
	dst = append(strconv.AppendUint(dst, ordinal, 36), '.')
	return strconv.AppendUint(dst, uint64(crc32.Checksum(row, castagnoli))<<32|uint64(crc32.ChecksumIEEE(row)), 36)
}

// once writes the rows of an output so that each is at its destination once. It is
// its deliverer's own.
type once struct {
	journal *journal
	prefix  string
	// Rows of steps up to repeat may be there from before.
	repeat uint64
	// found are keys that the destination has, of rows of steps behind from, which may
	// be made or written again. It is looked for if unsure.
	found  map[rowKey]struct{}
	from   uint64
	unsure bool
	since  time.Time
}

// rowKey is what a row's key has behind the prefix.
type rowKey struct{ step, ordinal, sum uint64 }

// parse reads a key; ok is false if it is none of the output's in this epoch.
func (w *once) parse(key []byte) (k rowKey, ok bool) {
	if len(key) <= len(w.prefix) || string(key[:len(w.prefix)]) != w.prefix {
		return rowKey{}, false
	}
	part := 0
	parts := [...]*uint64{&k.step, &k.ordinal, &k.sum}
	for _, c := range key[len(w.prefix):] {
		digit := uint64(0)
		switch {
		case c == '.' && part < 2:
			part++
			continue
		case c >= '0' && c <= '9':
			digit = uint64(c - '0')
		case c >= 'a' && c <= 'z':
			digit = uint64(c-'a') + 10
		default:
			return rowKey{}, false
		}
		*parts[part] = *parts[part]*36 + digit
	}
	return k, part == 2
}

// keysOf are the keys of rows.
func (w *once) keysOf(dst []string, it item) []string {
	from := 0
	var key []byte
	for i, end := range it.arena.ends {
		key = appendKey(key[:0], w.prefix, it.step, it.ordinal+uint64(i), it.arena.bytes[from:end])
		dst = append(dst, string(key))
		from = end
	}
	return dst
}

// write stores rows of steps that are below one, those excepted that are there.
func (w *once) write(ctx context.Context, to Destination, below uint64, keys []string, rows [][]byte, now time.Time) error {
	keyed, ok := to.(Keyed)
	if !ok {
		return to.Write(ctx, rows)
	}
	if err := w.journal.sync(below); err != nil {
		return err
	}
	if w.unsure {
		found := map[rowKey]struct{}{}
		if err := keyed.Keys(ctx, w.since, func(key []byte) {
			if k, ours := w.parse(key); ours && k.step > w.from {
				found[k] = struct{}{}
			}
		}); err != nil {
			return fmt.Errorf("find out which rows are there: %w", err)
		}
		w.found, w.unsure = found, false
	}
	places := make([]int, 0, len(rows))
	leftKeys, left := make([]string, 0, len(rows)), make([][]byte, 0, len(rows))
	for i, key := range keys {
		there := false
		if len(w.found) > 0 {
			k, _ := w.parse([]byte(key))
			_, there = w.found[k]
		}
		if !there {
			places, leftKeys, left = append(places, i), append(leftKeys, key), append(left, rows[i])
		}
	}
	if len(left) == 0 {
		return nil
	}
	// It ends by itself: one that was given up could store rows after it was looked
	// which are there.
	err := keyed.WriteKeyed(context.WithoutCancel(ctx), leftKeys, left)
	var partly *PartlyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &partly):
		return &PartlyError{Left: at(places, partly.Left), Refused: at(places, partly.Refused), Err: partly.Err}
	}
	w.unsure = true
	if w.repeat == 0 {
		first, _ := w.parse([]byte(keys[0]))
		w.since, w.from = now.Add(-clockSlack), first.step-1
	}
	return err
}

// at are places of places.
func at(places, of []int) (list []int) {
	for _, i := range of {
		if i >= 0 && i < len(places) {
			list = append(list, places[i])
		}
	}
	return list
}

// passed says that rows of all steps below one are durable.
func (w *once) passed(below uint64) {
	if w.repeat != 0 && below > w.repeat {
		w.repeat = 0 // nothing is made again any more
	}
	if w.repeat == 0 {
		w.found = nil
	}
}

// repeatable reports whether the program makes the same rows again when it is given
// the same records: functions answer as they like.
func repeatable(a *app.Application) bool {
	for _, in := range a.Inputs {
		if in.Processor != nil {
			return false
		}
	}
	for _, out := range a.Outputs {
		if out.Destination.Kind == app.DataStream {
			return true
		}
	}
	return false
}

// errBroken says that steps cannot be repeated.
var errBroken = errors.New("what the application did since its last checkpoint cannot be repeated: rows may come twice")

// repeatSteps does the steps behind the checkpoint again; false if the application
// ends. The error is errBroken if they could not all be done. Checkpoints are taken
// on the way: an application that never runs for as long as that takes would not
// get anywhere.
func (r *application) repeatSteps(group *sync.WaitGroup) (bool, error) {
	steps := r.repeats
	r.repeats = nil
	from := repeater{r: r, sources: map[string]Source{}, pages: map[shardOf]*pageLeft{}}
	began := time.Now()
	last, said := began, false
	defer func() {
		if said {
			r.problem("steps", "", "", "")
		}
	}()
	for i := range steps {
		s := &steps[i]
		if r.ctx.Err() != nil {
			return false, nil
		}
		if !said && time.Since(began) > slowAfter {
			said = true
			r.problem("steps", "", "CheckpointError", "what the application did since its last checkpoint is being repeated, which takes its time")
		}
		if r.saving != nil {
			select {
			case err := <-r.saving.done:
				r.checkpointed(err)
			default:
			}
		} else if time.Since(last) >= r.h.o.CheckpointEvery {
			if last = time.Now(); !r.checkpoint(group) {
				return false, nil
			}
		}
		switch s.kind {
		case stepStart:
			r.begin(*s)
			r.engine.Start()
			if !r.flush() {
				return false, nil
			}
		case stepAdvance:
			if !r.advanceTo(*s) {
				return false, nil
			}
		case stepInsert:
			c, ok, err := from.again(s)
			if err != nil || !ok {
				return ok, err
			}
			if !r.insertAt(c, *s) {
				return false, nil
			}
		}
	}
	return true, nil
}

// repeater reads what was read before.
type repeater struct {
	r       *application
	sources map[string]Source     // by input
	pages   map[shardOf]*pageLeft // what was read and not used yet
}

type shardOf struct {
	input string
	shard uint32
}

type pageLeft struct {
	records []Record
	next    uint64 // where to go on behind them
}

// pagesKept bounds the pages that are kept for the next steps of their shards.
const pagesKept = 64

// read is Source.Read for the records of a step, most of which are behind those of
// another one and were read with them.
func (p *repeater) read(source Source, s *step, from uint64) (*pageLeft, error) {
	key := shardOf{s.input, s.shard}
	if left := p.pages[key]; left != nil && len(left.records) > 0 && left.records[0].Index == from {
		return left, nil
	}
	page, err := source.Read(p.r.ctx, s.shard, from, pageBytes)
	if err != nil {
		return nil, err
	}
	if len(p.pages) >= pagesKept {
		clear(p.pages)
	}
	left := &pageLeft{page.Records, page.Next}
	p.pages[key] = left
	return left, nil
}

// again makes the chunk of a step; ok is false if the application ends.
func (p *repeater) again(s *step) (c *chunk, ok bool, err error) {
	r, sources := p.r, p.sources
	var in *input
	for _, i := range r.inputs {
		if i.spec.ID == s.input {
			in = i
		}
	}
	if in == nil {
		return nil, true, errBroken
	}
	f := filler{r: r, in: in, shard: Shard{Number: s.shard, Name: s.shardName}}
	if s.records > 0 {
		part := "input " + in.spec.ID
		for attempt := 0; sources[s.input] == nil; attempt++ {
			source, err := r.h.o.OpenSource(r.ctx, r.a, in.spec.Source)
			if err == nil {
				r.problem(part, "", "", "")
				sources[s.input] = source
				break
			}
			r.problem(part, in.spec.ID, "InputError", err.Error())
			if !r.pause(attempt) {
				return nil, false, nil
			}
		}
		if f.source = sources[s.input]; f.source.ID() != s.source {
			return nil, true, errBroken
		}
	}
	c = <-in.free // nobody else fills chunks yet
	c.source, c.shard, f.c = s.source, f.shard, c
	left := s.records
	for next, attempt := s.first, 0; left > 0; {
		page, err := p.read(f.source, s, next)
		if err != nil {
			if r.ctx.Err() != nil {
				return nil, false, nil
			}
			list, listErr := f.source.Shards()
			if listErr == nil && !hasShard(list, s.shard) {
				in.recycle(c)
				return nil, true, errBroken
			}
			select {
			case <-f.source.Gone():
				in.recycle(c)
				return nil, true, errBroken
			default:
			}
			part := "shard " + in.spec.ID + "/" + s.shardName
			r.problem(part, in.spec.ID, "InputError", err.Error())
			if !r.pause(attempt) {
				return nil, false, nil
			}
			r.problem(part, "", "", "")
			attempt++
			continue
		}
		parser := in.parsers.Get().(*run.Parser)
		for len(page.records) > 0 {
			rec := &page.records[0]
			if left == 0 || rec.Index >= s.next {
				break
			}
			if left == s.records && rec.Index != s.first {
				break // the first is there no more
			}
			f.read(parser, rec, rec.Data)
			f.passed(rec)
			page.records = page.records[1:]
			left--
		}
		in.parsers.Put(parser)
		if left > 0 && (len(page.records) > 0 || page.next >= s.next || page.next == next || left == s.records) {
			in.recycle(c)
			return nil, true, errBroken
		}
		next = page.next
	}
	c.next, c.end, c.moves, c.forget = s.next, s.end, s.moves, s.forget
	return c, true, nil
}

func hasShard(list []Shard, number uint32) bool {
	for _, s := range list {
		if s.Number == number {
			return true
		}
	}
	return false
}

// openJournal has the application go on where a checkpoint's journal ends, or begin
// one.
func (r *application) openJournal(before *chain) error {
	files, base := r.h.o.Files, fileName(r.a.ID)
	if !r.h.o.ExactlyOnce || !repeatable(r.a) {
		return removeJournals(files, base, func(uint64) bool { return false })
	}
	number := uint64(1)
	r.epoch = rand.Uint64()
	if before != nil {
		steps, next, err := readJournals(files, base, *before)
		if err != nil {
			return err
		}
		r.repeats, r.epoch, r.steps, number = steps, before.Epoch, before.Step, next
		r.mark = mark{file: before.File, step: before.Step}
		if len(steps) > 0 {
			r.repeating = before
		}
	} else if err := removeJournals(files, base, func(uint64) bool { return false }); err != nil {
		return err
	}
	r.journal = newJournal(files, base, r.epoch, number, r.steps+uint64(len(r.repeats)))
	for _, o := range r.outputs {
		if o.spec.Destination.Kind != app.DataStream {
			continue
		}
		o.once = &once{journal: r.journal, prefix: keyPrefix(r.epoch, o.spec.ID)}
		if before != nil {
			o.once.repeat, o.once.from, o.once.unsure = r.steps+uint64(len(r.repeats)), r.steps, true
			o.once.since = time.UnixMilli(before.At).Add(-clockSlack)
		}
	}
	return nil
}

// catchUp brings the program to where it was and starts what runs once; false if
// the application ends.
func (r *application) catchUp(group *sync.WaitGroup) bool {
	journal := r.journal
	switch {
	case journal == nil:
	case len(r.repeats) == 0 && r.steps == 0:
		// Rows must have a checkpoint behind them from which they are made again.
		if !r.checkpointNow(group) {
			return false
		}
	case len(r.repeats) > 0:
		r.journal = nil // the steps are in it
		ok, err := r.repeatSteps(group)
		r.journal, r.repeating = journal, nil
		if ok && r.saving != nil {
			select {
			case err := <-r.saving.done:
				r.checkpointed(err)
			case <-r.ctx.Done():
				ok = false
			}
		}
		if !ok {
			return false
		}
		for _, in := range r.inputs {
			if at, has := r.places[in.spec.ID]; has {
				in.knows(at)
			}
		}
		if err != nil && !r.breakOff(group, err) {
			return false
		}
	}
	r.begin(step{kind: stepStart, now: r.now()})
	r.engine.Start()
	return r.flush()
}

// breakOff begins another epoch: keys of the one before say nothing about what is
// made from here on.
func (r *application) breakOff(group *sync.WaitGroup, why error) bool {
	r.problem("journal", "", "CheckpointError", why.Error())
	r.problem("journal", "", "", "")
	old := r.journal
	b := newBarrier(len(r.outputs))
	for _, o := range r.outputs {
		if !o.queue.put(r.sending, item{barrier: b}) {
			return false
		}
	}
	select {
	case <-b.done:
	case <-r.ctx.Done():
		return false
	}
	if b.lost {
		return false
	}
	old.close()
	r.epoch = rand.Uint64()
	r.journal = newJournal(old.files, old.base, r.epoch, old.rotate(), r.steps)
	for _, o := range r.outputs {
		if o.once != nil {
			o.once = &once{journal: r.journal, prefix: keyPrefix(r.epoch, o.spec.ID)}
		}
	}
	return r.checkpointNow(group)
}

// checkpointNow returns when a checkpoint is valid; false if the application ends
// first.
func (r *application) checkpointNow(group *sync.WaitGroup) bool {
	for attempt := 0; ; attempt++ {
		if !r.checkpoint(group) {
			return false
		}
		select {
		case err := <-r.saving.done:
			if r.checkpointed(err); err == nil {
				return true
			}
		case <-r.ctx.Done():
			return false
		}
		if !r.pause(attempt) {
			return false
		}
	}
}
