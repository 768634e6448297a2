package loaded

import (
	"testing"

	"github.com/millrace/millrace/internal/firehose/record"
)

type lane string

func (l lane) Name() string                        { return string(l) }
func (l lane) SequenceNumber(uint64, int64) string { return "" }

func at(l string, index uint64, sub uint32, arrival int64) *record.Record {
	return &record.Record{Lane: lane(l), Position: record.Position{Index: index, Sub: sub}, Arrival: arrival}
}

func TestSpansOfSeveralLanes(t *testing.T) {
	var s Spans
	for _, r := range []*record.Record{at("b", 7, 1, 70), at("a", 3, 0, 65), at("b", 7, 2, 71), at("a", 5, 0, 60), at("b", 9, 0, 72)} {
		s.Add(r)
	}
	want := []Span{
		{"b", record.Position{Index: 7, Sub: 1}, record.Position{Index: 9}, 70, 72},
		{"a", record.Position{Index: 3}, record.Position{Index: 5}, 60, 65},
	}
	if len(s.List) != 2 || s.List[0] != want[0] || s.List[1] != want[1] {
		t.Fatalf("got %+v, want %+v", s.List, want)
	}
	set := Set(s.List)
	for _, c := range []struct {
		r    *record.Record
		want bool
		why  string
	}{
		{at("b", 8, 0, 71), true, "inside"},
		{at("b", 7, 1, 70), true, "the first"},
		{at("b", 9, 0, 72), true, "the last"},
		{at("b", 7, 0, 70), false, "a part before the first"},
		{at("b", 9, 1, 72), false, "a part after the last"},
		{at("a", 8, 0, 71), false, "another lane"},
		{at("b", 8, 0, 5000), false, "the same place in a stream made anew"},
		{&record.Record{Position: record.Position{Index: 8}, Arrival: 71}, false, "no lane"},
	} {
		if got := set.Has(c.r); got != c.want {
			t.Errorf("%s: %v", c.why, got)
		}
	}
}
