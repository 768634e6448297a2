package opensearch

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
)

// Rotation is how often documents go to a new index, named after the time at
// which their records arrived, in UTC.
type Rotation string

// The rotations, as the API writes them; empty is none.
const (
	NoRotation Rotation = "NoRotation"
	OneHour    Rotation = "OneHour"
	OneDay     Rotation = "OneDay"
	OneWeek    Rotation = "OneWeek"
	OneMonth   Rotation = "OneMonth"
)

// suffix is what is added to an index's name.
func (r Rotation) suffix(at time.Time, iso bool) (string, error) {
	switch r {
	case "", NoRotation:
		return "", nil
	case OneHour:
		return at.Format("-2006-01-02-15"), nil
	case OneDay:
		return at.Format("-2006-01-02"), nil
	case OneMonth:
		return at.Format("-2006-01"), nil
	case OneWeek:
		year, week := at.ISOWeek()
		if !iso {
			// Weeks begin on Sunday and belong to the year of their Saturday; the
			// first is the one with the year's first Saturday.
			saturday := at.AddDate(0, 0, int(time.Saturday-at.Weekday()))
			year, week = saturday.Year(), (saturday.YearDay()-1)/7+1
		}
		return fmt.Sprintf("-%04d-w%02d", year, week), nil
	}
	return "", fmt.Errorf("opensearch: there is no rotation %q", string(r))
}

// index appends the name of the index for a record that arrived at a time in
// milliseconds.
func (d *Destination) index(b []byte, arrival int64) []byte {
	suffix, _ := d.config.Rotation.suffix(time.UnixMilli(arrival).UTC(), d.config.ISOWeeks) // New has checked it
	return append(append(b, d.config.Index...), suffix...)
}

// laneNames makes names of documents.
type laneNames struct{ stream string }

// fullSequence is the length of the sequence numbers of shards, which are unique.
const fullSequence = 56

// document appends the name of a record's document: the sequence number, and
// which part of it. Where sequence numbers are not unique among all lanes and
// for all time, the lane and the time of arrival are put to it.
func (l *laneNames) document(b []byte, r *record.Record) []byte {
	lane, number := "", strconv.FormatUint(r.Index, 10)
	if r.Lane != nil {
		lane, number = r.Lane.Name(), r.Lane.SequenceNumber(r.Index, r.Arrival)
	}
	if len(number) < fullSequence {
		h := fnv.New64a()
		_, _ = h.Write([]byte(l.stream + "\x00" + lane))
		b = strconv.AppendUint(b, h.Sum64(), 16)
		b = append(b, '-')
		b = strconv.AppendInt(b, r.Arrival, 10)
		b = append(b, '-')
	}
	b = append(b, number...)
	b = append(b, '.')
	return strconv.AppendUint(b, uint64(r.Sub), 10)
}
