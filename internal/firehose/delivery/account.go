package delivery

import (
	"encoding/binary"
	"errors"
	"slices"
)

// account says of every record of a lane, from the first that is not settled on,
// how much of what came of it has not arrived anywhere yet. A record is settled
// when that is nothing. It is small: four bytes a record between the oldest
// unsettled one and the place where the lane reads.
//
// What the account says is stored after deliveries. Read again, it tells which
// records to pass over: those that are settled, not those that went through some
// buffer. A function that answers differently the second time thus loses nothing.
type account struct {
	segments []segment
	next     uint64 // index behind the last record that was entered
	multi    map[uint64]*parts
}

// segment is a run of consecutive indexes.
type segment struct {
	first uint64
	cells []uint32
}

// A cell counts the parts of a record that are to be delivered, and has a bit
// for its backup.
const (
	cellBackup = 1 << 31
	cellParts  = cellBackup - 1
)

// parts are those of a record that became several: ranges [from, to) of Sub that
// have arrived, in order.
type parts struct{ done [][2]uint32 }

func (p *parts) find(sub uint32) (int, bool) {
	return slices.BinarySearchFunc(p.done, sub, func(r [2]uint32, sub uint32) int {
		switch {
		case r[0] > sub:
			return 1
		case r[1] <= sub:
			return -1
		}
		return 0
	})
}

func (p *parts) has(sub uint32) bool {
	if p == nil {
		return false
	}
	_, found := p.find(sub)
	return found
}

// set adds n parts from sub on, none of which is there yet.
func (p *parts) set(sub, n uint32) {
	i, _ := p.find(sub)
	before := i > 0 && p.done[i-1][1] == sub
	after := i < len(p.done) && p.done[i][0] == sub+n
	switch {
	case before && after:
		p.done[i-1][1] = p.done[i][1]
		p.done = slices.Delete(p.done, i, i+1)
	case before:
		p.done[i-1][1] += n
	case after:
		p.done[i][0] = sub
	default:
		p.done = slices.Insert(p.done, i, [2]uint32{sub, sub + n})
	}
}

// span is a part of a lane that is in one batch: n records of one part each that
// follow each other or, with several set, n parts of one record.
type span struct {
	index uint64
	sub   uint32
	n     uint32 // with the top bit set for several
}

const spanSeveral = 1 << 31

// spans are what a batch has of a lane, in the order in which it was added. All
// but the last are kept as the differences between them: where records go to many
// partitions, nearly each is a span of its own, and takes two bytes so.
type spans struct {
	before []byte
	behind uint64 // the index where the next difference begins
	last   span   // n is 0 while there is none
}

func (s spans) add(index uint64, sub uint32, several bool) spans {
	last := &s.last
	switch {
	case last.n == 0:
	case !several && last.n&spanSeveral == 0 && last.index+uint64(last.n) == index,
		several && last.n&spanSeveral != 0 && last.index == index && last.sub+last.n&^spanSeveral == sub:
		last.n++
		return s
	default:
		s.before = binary.AppendVarint(s.before, int64(last.index-s.behind))
		s.before = binary.AppendUvarint(s.before, uint64(last.n&^spanSeveral)<<1|uint64(last.n>>31))
		if last.n&spanSeveral != 0 {
			s.before = binary.AppendUvarint(s.before, uint64(last.sub))
		}
		s.behind = last.index
	}
	n := uint32(1)
	if several {
		n |= spanSeveral
	} else {
		sub = 0
	}
	s.last = span{index, sub, n}
	return s
}

// each calls f for every span, in order.
func (s spans) each(f func(span)) {
	index := uint64(0)
	for rest := s.before; len(rest) > 0; {
		difference, n := binary.Varint(rest)
		rest = rest[n:]
		count, n := binary.Uvarint(rest)
		rest = rest[n:]
		index += uint64(difference)
		p := span{index: index, n: uint32(count >> 1)}
		if count&1 != 0 {
			sub, n := binary.Uvarint(rest)
			rest = rest[n:]
			p.sub, p.n = uint32(sub), p.n|spanSeveral
		}
		f(p)
	}
	if s.last.n > 0 {
		f(s.last)
	}
}

// enter takes in the next record: how many parts are to be delivered, and
// whether it is to be backed up. Indexes only grow.
func (a *account) enter(index uint64, missing uint32, backup bool) {
	cell := min(missing, cellParts)
	if backup {
		cell |= cellBackup
	}
	a.next = index + 1
	n := len(a.segments)
	if n == 0 && cell == 0 {
		return
	}
	if n == 0 || a.segments[n-1].first+uint64(len(a.segments[n-1].cells)) != index {
		a.segments = append(a.segments, segment{first: index})
		n++
	}
	a.segments[n-1].cells = append(a.segments[n-1].cells, cell)
}

// expect notes that a record has several parts.
func (a *account) expect(index uint64, done *parts) {
	if a.multi == nil {
		a.multi = map[uint64]*parts{}
	}
	if done == nil {
		done = &parts{}
	}
	a.multi[index] = done
}

// low is the index of the first record that is not settled.
func (a *account) low() uint64 {
	if len(a.segments) == 0 {
		return a.next
	}
	return a.segments[0].first
}

// window is how many records there are from the first unsettled one on.
func (a *account) window() int {
	n := 0
	for i := range a.segments {
		n += len(a.segments[i].cells)
	}
	return n
}

func (a *account) cell(index uint64) *uint32 {
	i, found := slices.BinarySearchFunc(a.segments, index, func(s segment, index uint64) int {
		switch {
		case s.first > index:
			return 1
		case s.first+uint64(len(s.cells)) <= index:
			return -1
		}
		return 0
	})
	if !found {
		return nil
	}
	return &a.segments[i].cells[index-a.segments[i].first]
}

// settle says that what a batch had of the lane has arrived.
func (a *account) settle(list spans, backup bool) {
	list.each(func(s span) {
		if s.n&spanSeveral != 0 {
			p := a.multi[s.index]
			n := s.n &^ spanSeveral
			if p != nil {
				p.set(s.sub, n)
			}
			if c := a.cell(s.index); c != nil {
				*c -= min(n, *c&cellParts)
				if *c&cellParts == 0 {
					delete(a.multi, s.index)
				}
			}
			return
		}
		for i := range uint64(s.n) {
			c := a.cell(s.index + i)
			switch {
			case c == nil:
			case backup:
				*c &^= cellBackup
			case *c&cellParts > 0:
				*c--
			}
		}
	})
	a.advance()
}

// advance forgets records that are settled.
func (a *account) advance() {
	for len(a.segments) > 0 {
		s := &a.segments[0]
		n := 0
		for n < len(s.cells) && s.cells[n] == 0 {
			n++
		}
		s.first += uint64(n)
		s.cells = s.cells[n:]
		if len(s.cells) > 0 {
			return
		}
		a.segments = a.segments[1:]
	}
	a.segments = nil
}

// settled is what a stored account says about the records from low on. Lists
// hold the lengths of runs, in turn not settled and settled.
type settled struct {
	delivery, backup runs
	partial          map[uint64]*parts
}

// runs are ranges of indexes [from, to), in order.
type runs [][2]uint64

func (r runs) has(index uint64) bool {
	_, found := slices.BinarySearchFunc(r, index, func(p [2]uint64, index uint64) int {
		switch {
		case p[0] > index:
			return 1
		case p[1] <= index:
			return -1
		}
		return 0
	})
	return found
}

// end is the index behind all that is known to be settled.
func (s *settled) end() uint64 {
	var end uint64
	for _, r := range []runs{s.delivery, s.backup} {
		if len(r) > 0 {
			end = max(end, r[len(r)-1][1])
		}
	}
	for index := range s.partial {
		end = max(end, index+1)
	}
	return end
}

// encode stores what is settled above low. Between segments there are no
// records, which is as good as settled.
func (a *account) encode() (delivery, backup, partial []byte) {
	delivery = a.encodeRuns(cellParts)
	backup = a.encodeRuns(cellBackup)
	return delivery, backup, encodePartial(a.multi)
}

func encodePartial(multi map[uint64]*parts) (out []byte) {
	indexes := make([]uint64, 0, len(multi))
	for index, p := range multi {
		if len(p.done) > 0 {
			indexes = append(indexes, index)
		}
	}
	slices.Sort(indexes)
	for _, index := range indexes {
		p := multi[index]
		out = binary.AppendUvarint(out, index)
		out = binary.AppendUvarint(out, uint64(len(p.done)))
		for _, r := range p.done {
			out = binary.AppendUvarint(out, uint64(r[0]))
			out = binary.AppendUvarint(out, uint64(r[1]))
		}
	}
	return out
}

// encodeSettled is the form in which encode stores runs.
func encodeSettled(low uint64, list runs) (out []byte) {
	at := low
	for _, r := range list {
		to := r[1]
		out = binary.AppendUvarint(out, r[0]-at)
		out = binary.AppendUvarint(out, to-r[0])
		at = to
	}
	return out
}

func (a *account) encodeRuns(mask uint32) []byte {
	var out []byte
	var run uint64
	done := false
	flip := func() {
		out = binary.AppendUvarint(out, run)
		run, done = 0, !done
	}
	for i := range a.segments {
		s := &a.segments[i]
		if i > 0 {
			before := &a.segments[i-1]
			if gap := s.first - before.first - uint64(len(before.cells)); gap > 0 {
				if !done {
					flip()
				}
				run += gap
			}
		}
		for _, cell := range s.cells {
			if is := cell&mask == 0; is != done {
				flip()
			}
			run++
		}
	}
	if done {
		flip()
	}
	return out
}

var errAccount = errors.New("stored account is damaged")

// decodeSettled reads what encode wrote.
func decodeSettled(low uint64, delivery, backup, partial []byte) (*settled, error) {
	s := &settled{}
	var err error
	if s.delivery, err = decodeRuns(low, delivery); err != nil {
		return nil, err
	}
	if s.backup, err = decodeRuns(low, backup); err != nil {
		return nil, err
	}
	r := chunkReader{rest: partial}
	for len(r.rest) > 0 {
		index, n := r.uvarint(), r.uvarint()
		if n > uint64(len(r.rest)) {
			return nil, errAccount
		}
		p := &parts{done: make([][2]uint32, n)}
		last := uint64(0)
		for i := range p.done {
			from, to := r.uvarint(), r.uvarint()
			if from < last || to <= from || to > 1<<32-1 {
				return nil, errAccount
			}
			p.done[i], last = [2]uint32{uint32(from), uint32(to)}, to
		}
		if s.partial == nil {
			s.partial = map[uint64]*parts{}
		}
		s.partial[index] = p
	}
	if r.bad {
		return nil, errAccount
	}
	return s, nil
}

func decodeRuns(low uint64, b []byte) (runs, error) {
	var out runs
	for at, done := low, false; len(b) > 0; done = !done {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > 1<<63 || at+n < at {
			return nil, errAccount
		}
		b = b[size:]
		if done && n > 0 {
			out = append(out, [2]uint64{at, at + n})
		}
		at += n
	}
	return out, nil
}
