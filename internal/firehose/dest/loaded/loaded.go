// Package loaded keeps the account of what of a delivery stream a destination
// already has, for destinations that can store the account together with the
// records.
//
// The one idea: a batch that comes again after a crash may be cut differently,
// so its name alone does not tell what is in it. What tells is the run of
// places in each lane that was stored. The times of arrival belong to it: in a
// delivery stream that was made anew, places begin anew too.
package loaded

import "github.com/millrace/millrace/internal/firehose/record"

// Span is a run of records of a lane, both ends included.
type Span struct {
	Lane        string
	First, Last record.Position
	// Oldest and Newest bound the arrival, in milliseconds since 1970.
	Oldest, Newest int64
}

// Set is what was stored before.
type Set []Span

// Has says that a record was.
func (s Set) Has(r *record.Record) bool {
	for i := range s {
		p := &s[i]
		if p.Oldest <= r.Arrival && r.Arrival <= p.Newest && p.First.Compare(r.Position) <= 0 && r.Compare(p.Last) <= 0 && p.Lane == laneName(r) {
			return true
		}
	}
	return false
}

func laneName(r *record.Record) string {
	if r.Lane == nil {
		return ""
	}
	return r.Lane.Name()
}

// Spans collects the records of one delivery, a span for each lane.
type Spans struct {
	List []Span
	at   int
}

// Add counts a record in.
func (s *Spans) Add(r *record.Record) {
	name := laneName(r)
	if len(s.List) == 0 || s.List[s.at].Lane != name {
		s.at = -1
		for i := range s.List {
			if s.List[i].Lane == name {
				s.at = i
			}
		}
		if s.at < 0 {
			s.at = len(s.List)
			s.List = append(s.List, Span{name, r.Position, r.Position, r.Arrival, r.Arrival})
		}
	}
	p := &s.List[s.at]
	p.Oldest, p.Newest = min(p.Oldest, r.Arrival), max(p.Newest, r.Arrival)
	if r.Compare(p.Last) > 0 {
		p.Last = r.Position
	}
	if r.Compare(p.First) < 0 {
		p.First = r.Position
	}
}
