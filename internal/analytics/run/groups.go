package run

import (
	"hash/maphash"
	"math"
	"math/bits"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// groups numbers distinct rows of keys: open addressing over numbers of groups,
// whose keys are kept in columns. Numbers of groups that have been removed are
// given again, the last one first.
type groups struct {
	columns []plan.ColumnInfo
	keys    *table  // columns only, by number; those of removed groups are empty
	n       int     // numbers are below
	free    []int32 // numbers that are not in use
	slots   []slot
	mask    uint32
}

// slot is the hash of a group's key and, in the low half, its number + 1.
type slot uint64

const noSlot = slot(0)

func makeSlot(hash uint32, id int) slot { return slot(hash)<<32 | slot(uint32(id+1)) }
func (s slot) hash() uint32             { return uint32(s >> 32) }
func (s slot) id() int                  { return int(uint32(s)) - 1 }

const firstSlots = 16

var seed = maphash.MakeSeed()

func newGroups(columns []plan.ColumnInfo) *groups {
	g := &groups{columns: columns}
	g.clear()
	return g
}

// len is one more than the largest number of a group.
func (g *groups) len() int { return g.n }

// live is how many groups there are.
func (g *groups) live() int { return g.n - len(g.free) }

// clear forgets all groups. Room for many is given back; keys that were shown
// keep their texts.
func (g *groups) clear() {
	if len(g.slots) > 1<<16 || g.keys == nil {
		g.keys = newTable(g.columns)
		g.slots, g.mask, g.free = make([]slot, firstSlots), firstSlots-1, nil
	} else {
		for _, c := range g.keys.cols {
			c.drop(c.n)
		}
		clear(g.slots)
	}
	g.n, g.free = 0, g.free[:0]
}

func mix(h, v uint64) uint64 {
	h ^= v
	h *= 0x9E3779B97F4A7C15
	return h ^ h>>29
}

// firstHash begins the hash of a row of keys.
const firstHash = uint64(0x243F6A8885A308D3)

// hashRow is the hash of a row of keys.
func hashRow(columns []plan.ColumnInfo, cols []*Vector, i int32) uint64 {
	h := firstHash
	for k := range columns {
		v := cols[k]
		if v.null(i) {
			h = mix(h, 0xA0761D6478BD642F)
			continue
		}
		switch plan.ClassOf(columns[k].Type) {
		case plan.ClassInt:
			h = mix(h, uint64(v.I[i]))
		case plan.ClassFloat:
			h = mix(h, floatKey(v.F[i]))
		case plan.ClassString:
			s := v.S[i]
			if columns[k].Type.Kind == sql.KindChar {
				s = trimRight(s)
			}
			h = mix(h, maphash.String(seed, s))
		}
	}
	return h
}

// floatKey are the bits of a number, the same for those that are equal as keys.
func floatKey(f float64) uint64 {
	switch {
	case f == 0:
		return 0 // minus zero is zero
	case f != f:
		return math.Float64bits(math.NaN())
	}
	return math.Float64bits(f)
}

// folded takes the hash of a row to the bits that slots have.
func folded(h uint64) uint32 { return uint32(h) ^ bits.RotateLeft32(uint32(h>>32), 16) }

// find is the number of a row's group; fresh if it is a new one.
func (g *groups) find(cols []*Vector, i int32) (id int, fresh bool) {
	return g.findHashed(folded(hashRow(g.columns, cols, i)), cols, i)
}

func (g *groups) findHashed(h uint32, cols []*Vector, i int32) (id int, fresh bool) {
	for at := h & g.mask; ; at = (at + 1) & g.mask {
		s := g.slots[at]
		if s == noSlot {
			return g.add(cols, i, h, at), true
		}
		if s.hash() == h && g.same(s.id(), cols, i) {
			return s.id(), false
		}
	}
}

// findAll puts the numbers of the groups of rows into ids; hashes are those of the
// rows' keys, by position, if they are known.
func (g *groups) findAll(cols []*Vector, sel, ids []int32, hashes []uint64) {
	if len(g.columns) == 1 && cols[0].Null == nil && g.keys.cols[0].Null == nil {
		switch kind := g.columns[0].Type.Kind; {
		case kind == sql.KindVarchar:
			g.findTexts(cols, sel, ids, hashes)
			return
		case plan.ClassOf(g.columns[0].Type) == plan.ClassInt:
			g.findIntegers(cols, sel, ids)
			return
		}
	}
	for _, i := range sel {
		var h uint64
		if hashes != nil {
			h = hashes[i]
		} else {
			h = hashRow(g.columns, cols, i)
		}
		id, _ := g.findHashed(folded(h), cols, i)
		ids[i] = int32(id)
	}
}

// findTexts is findAll for one key of texts without nulls.
func (g *groups) findTexts(cols []*Vector, sel, ids []int32, hashes []uint64) {
	values, keys := cols[0].S, g.keys.cols[0]
rows:
	for _, i := range sel {
		v := values[i]
		var h uint32
		if hashes != nil {
			h = folded(hashes[i])
		} else {
			h = folded(mix(firstHash, maphash.String(seed, v)))
		}
		for at := h & g.mask; ; at = (at + 1) & g.mask {
			s := g.slots[at]
			if s == noSlot {
				ids[i] = int32(g.add(cols, i, h, at))
				continue rows
			}
			if id := s.id(); s.hash() == h && keys.S[id] == v {
				ids[i] = int32(id)
				continue rows
			}
		}
	}
}

// findIntegers is findAll for one key of integers without nulls.
func (g *groups) findIntegers(cols []*Vector, sel, ids []int32) {
	values, keys := cols[0].I, g.keys.cols[0]
rows:
	for _, i := range sel {
		v := values[i]
		h := folded(mix(firstHash, uint64(v)))
		for at := h & g.mask; ; at = (at + 1) & g.mask {
			s := g.slots[at]
			if s == noSlot {
				ids[i] = int32(g.add(cols, i, h, at))
				continue rows
			}
			if id := s.id(); s.hash() == h && keys.I[id] == v {
				ids[i] = int32(id)
				continue rows
			}
		}
	}
}

// add makes a group at a slot that is empty.
func (g *groups) add(cols []*Vector, i int32, h, at uint32) int {
	id := g.n
	if n := len(g.free); n > 0 {
		id = int(g.free[n-1])
		g.free = g.free[:n-1]
		for k, c := range g.keys.cols {
			c.put(id, cols[k], i)
		}
	} else {
		g.n++
		for k, c := range g.keys.cols {
			c.add(cols[k], i)
		}
	}
	g.slots[at] = makeSlot(h, id)
	if g.live()*4 > len(g.slots)*3 {
		g.resize(len(g.slots) * 2)
	}
	return id
}

// look is find without making a group; -1 if there is none.
func (g *groups) look(cols []*Vector, i int32) int {
	return g.lookHashed(folded(hashRow(g.columns, cols, i)), cols, i)
}

func (g *groups) lookHashed(h uint32, cols []*Vector, i int32) int {
	for at := h & g.mask; ; at = (at + 1) & g.mask {
		s := g.slots[at]
		if s == noSlot {
			return -1
		}
		if s.hash() == h && g.same(s.id(), cols, i) {
			return s.id()
		}
	}
}

func (g *groups) same(id int, cols []*Vector, i int32) bool {
	for k := range g.columns {
		mine, v := &g.keys.cols[k].Vector, cols[k]
		if a, b := mine.null(int32(id)), v.null(i); a || b {
			if a != b {
				return false
			}
			continue
		}
		switch plan.ClassOf(g.columns[k].Type) {
		case plan.ClassInt:
			if mine.I[id] != v.I[i] {
				return false
			}
		case plan.ClassFloat:
			if mine.F[id] != v.F[i] && !(mine.F[id] != mine.F[id] && v.F[i] != v.F[i]) {
				return false
			}
		case plan.ClassString:
			if mine.S[id] != v.S[i] && (g.columns[k].Type.Kind != sql.KindChar || trimRight(mine.S[id]) != trimRight(v.S[i])) {
				return false
			}
		}
	}
	return true
}

// vectors are the keys, by number of group.
func (g *groups) vectors() []*Vector {
	list := make([]*Vector, len(g.keys.cols))
	for k, c := range g.keys.cols {
		list[k] = &c.Vector
	}
	return list
}

func (g *groups) resize(n int) {
	old := g.slots
	g.slots = make([]slot, n)
	g.mask = uint32(n - 1)
	for _, s := range old {
		if s == noSlot {
			continue
		}
		at := s.hash() & g.mask
		for g.slots[at] != noSlot {
			at = (at + 1) & g.mask
		}
		g.slots[at] = s
	}
}

// remove forgets a group; its number is given again.
func (g *groups) remove(id int) {
	at := folded(hashRow(g.columns, g.vectors(), int32(id))) & g.mask
	for g.slots[at].id() != id {
		at = (at + 1) & g.mask
	}
	// What would not be found behind an empty slot moves up.
	for next := (at + 1) & g.mask; g.slots[next] != noSlot; next = (next + 1) & g.mask {
		home := g.slots[next].hash() & g.mask
		if (next-home)&g.mask >= (next-at)&g.mask {
			g.slots[at] = g.slots[next]
			at = next
		}
	}
	g.slots[at] = noSlot
	for _, c := range g.keys.cols {
		c.empty(id)
	}
	g.free = append(g.free, int32(id))
}

// sparse reports that most numbers are not in use, so that compact is worth its
// while.
func (g *groups) sparse() bool { return len(g.free) > 1024 && len(g.free) > g.n/4*3 }

// compact numbers the groups anew, without gaps and in the same order; old has
// the former number of each.
func (g *groups) compact() (old []int32) {
	inUse := make([]bool, g.n)
	for i := range inUse {
		inUse[i] = true
	}
	for _, id := range g.free {
		inUse[id] = false
	}
	fresh := newGroups(g.columns)
	vectors := g.vectors()
	for id, is := range inUse {
		if is {
			fresh.find(vectors, int32(id))
			old = append(old, int32(id))
		}
	}
	*g = *fresh
	return old
}

// renumbering has the new numbers of groups that compact gave, by their old ones,
// which were below n.
func renumbering(n int, old []int32) []int32 {
	fresh := make([]int32, n)
	for id, was := range old {
		fresh[was] = int32(id)
	}
	return fresh
}
