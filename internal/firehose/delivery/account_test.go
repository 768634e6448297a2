package delivery

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/firehose/record"
)

// place is one part of a record, or its backup.
type place struct {
	index  uint64
	sub    uint32
	backup bool
}

// The account agrees with a list of everything that is missing, whatever is
// settled in whatever order, and so does what it stores.
func TestAccountAgreesWithAList(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		var a account
		missing := map[place]bool{}
		several := map[uint64]bool{}
		settledParts := map[place]bool{}
		index := uint64(1 + rng.IntN(5))
		a.next = index
		for range 200 {
			switch rng.IntN(3) {
			case 0: // a record, sometimes behind a gap
				if rng.IntN(10) == 0 {
					index += uint64(rng.IntN(5))
				}
				n := rng.IntN(4) // parts
				backup := rng.IntN(2) == 0
				if n > 1 {
					several[index] = true
					a.expect(index, nil)
				}
				for sub := range n {
					missing[place{index, uint32(sub * 3), false}] = true
				}
				if backup {
					missing[place{index, 0, true}] = true
				}
				a.enter(index, uint32(n), backup)
				index++
			default: // a batch arrives: some parts, in order
				backup := rng.IntN(2) == 0
				var parts []place
				for p := range missing {
					if p.backup == backup && rng.IntN(3) == 0 {
						parts = append(parts, p)
					}
				}
				slices.SortFunc(parts, func(p, q place) int {
					if p.index != q.index {
						return int(int64(p.index) - int64(q.index))
					}
					return int(int64(p.sub) - int64(q.sub))
				})
				var list spans
				for _, p := range parts {
					list = list.add(p.index, p.sub, !backup && several[p.index])
					delete(missing, p)
					if !backup {
						settledParts[p] = true
					}
				}
				a.settle(list, backup)
			}
			low := index
			for p := range missing {
				low = min(low, p.index)
			}
			if a.low() != low || a.next != index {
				t.Fatalf("seed %d: low %d and next %d, want %d and %d", seed, a.low(), a.next, low, index)
			}
			delivery, backup, partial := a.encode()
			s, err := decodeSettled(a.low(), delivery, backup, partial)
			if err != nil {
				t.Fatal(err)
			}
			if s.end() > index {
				t.Fatalf("seed %d: settled up to %d of %d", seed, s.end(), index)
			}
			for i := low; i < index; i++ {
				for sub := range uint32(12) {
					p := place{i, sub, false}
					if missing[p] && (s.delivery.has(i) || several[i] && s.partial[i].has(sub)) {
						t.Fatalf("seed %d: %v is missing and counts as settled", seed, p)
					}
					if settledParts[p] && !s.delivery.has(i) && !s.partial[i].has(sub) {
						t.Fatalf("seed %d: %v is settled and counts as missing", seed, p)
					}
				}
				if missing[place{i, 0, true}] && s.backup.has(i) {
					t.Fatalf("seed %d: the backup of %d is missing and counts as settled", seed, i)
				}
			}
		}
	}
}

func TestSpansStaySmall(t *testing.T) {
	var s spans
	for i := range uint64(1000) {
		s = s.add(i, 0, false)
	}
	for sub := range uint32(1000) {
		s = s.add(2000, sub, true)
	}
	var list []span
	s.each(func(p span) { list = append(list, p) })
	if len(list) != 2 || list[0].last().Index != 999 || list[1].last().Sub != 999 {
		t.Errorf("%v", list)
	}
	// Records of a partition lie far apart.
	s = spans{}
	for i := range uint64(1000) {
		s = s.add(1<<40+50*i, 0, false)
	}
	if len(s.before) > 2010 {
		t.Errorf("1000 spans take %d bytes", len(s.before))
	}
}

// TestSpansComeBackAsTheyWere: also those of records that come again, whose
// indexes go back.
func TestSpansComeBackAsTheyWere(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s spans
	var want, got []record.Position
	for range 10_000 {
		several := rng.IntN(3) == 0
		index, sub := rng.Uint64()>>rng.IntN(64), uint32(0)
		if several {
			sub = rng.Uint32() >> rng.IntN(32)
		}
		for i := range uint32(1 + rng.IntN(3)) {
			if several {
				s = s.add(index, sub+i, true)
				want = append(want, record.Position{Index: index, Sub: sub + i})
			} else {
				s = s.add(index+uint64(i), 0, false)
				want = append(want, record.Position{Index: index + uint64(i)})
			}
		}
	}
	s.each(func(p span) {
		for i := range p.n &^ spanSeveral {
			if p.n&spanSeveral != 0 {
				got = append(got, record.Position{Index: p.index, Sub: p.sub + i})
			} else {
				got = append(got, record.Position{Index: p.index + uint64(i)})
			}
		}
	})
	if !slices.Equal(got, want) {
		t.Error("the places are not those that were added")
	}
}

func FuzzDecodeSettled(f *testing.F) {
	f.Add(uint64(1), []byte{1, 2, 3, 4}, []byte{0, 1}, []byte{5, 1, 0, 2})
	f.Add(uint64(1<<63), []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, []byte{}, []byte{1, 255})
	f.Fuzz(func(t *testing.T, low uint64, delivery, backup, partial []byte) {
		s, err := decodeSettled(low, delivery, backup, partial)
		if err != nil {
			return
		}
		// What can be read can be written back.
		again, err := decodeSettled(low, encodeSettled(low, s.delivery), encodeSettled(low, s.backup), encodePartial(s.partial))
		if err != nil || fmt.Sprint(again.delivery) != fmt.Sprint(s.delivery) || fmt.Sprint(again.backup) != fmt.Sprint(s.backup) {
			t.Errorf("%v is %v again: %v", s, again, err)
		}
	})
}
