package serde

import (
	"math"

	"github.com/millrace/millrace/internal/firehose/convert/column"
)

// Timestamps are nanoseconds since 1970 in 64 bits, in the time zone that the
// text is in or, without one, in UTC. What is beyond (before 1678, after 2262)
// wraps around, as it does in the service.

const nanosPerSecond = 1_000_000_000

// millisFrom is the smallest number that counts milliseconds; smaller ones are
// seconds.
const millisFrom = 1_000_000_000_000

// days is the number of a day since 1970, by the Gregorian calendar.
func days(year, month, day int) int64 {
	// Years begin in March, so that the leap day is a year's last.
	y := int64(year)
	if month <= 2 {
		y--
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	ofEra := y - era*400
	ofYear := int64((153*((month+9)%12)+2)/5 + day - 1)
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + ofYear - 719468
}

func leap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

var monthDays = [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

func validDay(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 {
		return false
	}
	n := monthDays[month-1]
	if month == 2 && leap(year) {
		n++
	}
	return day <= n
}

// reader reads fields of digits.
type reader struct {
	s   []byte
	bad bool
}

// digits reads a number of low to high digits.
func (r *reader) digits(low, high int) int {
	n, i := 0, 0
	for i < len(r.s) && i < high && r.s[i] >= '0' && r.s[i] <= '9' {
		n = n*10 + int(r.s[i]-'0')
		i++
	}
	r.s = r.s[i:]
	r.bad = r.bad || i < low
	return n
}

// take passes over a byte that must be there.
func (r *reader) take(c byte) {
	if len(r.s) == 0 || r.s[0] != c {
		r.bad = true
		return
	}
	r.s = r.s[1:]
}

// fraction reads up to nine digits behind a point as nanoseconds.
func (r *reader) fraction() int64 {
	before := len(r.s)
	n := int64(r.digits(1, 9))
	for range 9 - (before - len(r.s)) {
		n *= 10
	}
	return n
}

// date reads a date with fields of at least low digits.
func (r *reader) date(low int) int64 {
	y := r.digits(4, 4)
	r.take('-')
	m := r.digits(low, 2)
	r.take('-')
	d := r.digits(low, 2)
	if r.bad || !validDay(y, m, d) {
		r.bad = true
		return 0
	}
	return days(y, m, d)
}

// clock reads a time of day in nanoseconds, with an optional fraction.
func (r *reader) clock(low int) int64 {
	h := r.digits(low, 2)
	r.take(':')
	m := r.digits(low, 2)
	r.take(':')
	s := r.digits(low, 2)
	if h > 23 || m > 59 || s > 59 {
		r.bad = true
	}
	nanos := (int64(h)*3600 + int64(m)*60 + int64(s)) * nanosPerSecond
	if !r.bad && len(r.s) > 0 && r.s[0] == '.' {
		r.s = r.s[1:]
		nanos += r.fraction()
	}
	return nanos
}

// zone reads Z, +hh:mm, +hhmm or +hh as nanoseconds east of UTC.
func (r *reader) zone() int64 {
	if len(r.s) == 0 {
		r.bad = true
		return 0
	}
	sign := int64(1)
	switch r.s[0] {
	case 'Z':
		r.s = r.s[1:]
		return 0
	case '-':
		sign = -1
	case '+':
	default:
		r.bad = true
		return 0
	}
	r.s = r.s[1:]
	h, m := r.digits(2, 2), 0
	if len(r.s) > 0 && r.s[0] == ':' {
		r.s = r.s[1:]
		m = r.digits(2, 2)
	} else if len(r.s) > 0 && r.s[0] >= '0' && r.s[0] <= '9' {
		m = r.digits(2, 2)
	}
	if h > 18 || m > 59 {
		r.bad = true
	}
	return sign * (int64(h)*3600 + int64(m)*60) * nanosPerSecond
}

const nanosPerDay = 24 * 3600 * nanosPerSecond

// sqlTimestamp reads yyyy-[m]m-[d]d [h]h:[m]m:[s]s[.f{1,9}].
func sqlTimestamp(s []byte) (int64, bool) {
	r := reader{s: s}
	day := r.date(1)
	r.take(' ')
	at := r.clock(1)
	return day*nanosPerDay + at, !r.bad && len(r.s) == 0
}

// isoTimestamp reads yyyy-MM-ddTHH:mm:ss[.f{1,9}][zone].
func isoTimestamp(s []byte) (int64, bool) {
	r := reader{s: s}
	day := r.date(2)
	r.take('T')
	at := r.clock(2)
	if len(r.s) > 0 {
		at -= r.zone()
	}
	return day*nanosPerDay + at, !r.bad && len(r.s) == 0
}

// epoch is a number of seconds or milliseconds since 1970.
func epoch(n *number) (int64, bool) {
	if v, ok := n.int(); ok {
		if v > -millisFrom && v < millisFrom {
			return v * nanosPerSecond, true
		}
		return v * 1_000_000, true
	}
	f := n.float()
	unit := 9
	if math.Abs(f) >= millisFrom {
		unit = 6
	}
	if !n.exact {
		// More digits than nanoseconds need: those of a float will do.
		f *= math.Pow10(unit)
		if math.Abs(f) >= 1<<63 || n.integer {
			return 0, false
		}
		return int64(f), true
	}
	v, e := n.digits, n.exponent+unit
	for ; e < 0 && v > 0; e++ {
		v /= 10
	}
	if e > 18 && v > 0 {
		return 0, false
	}
	at := int64(v)
	for ; e > 0; e-- {
		at *= 10
	}
	if n.negative {
		at = -at
	}
	return at, true
}

// timestamp reads a value of a column of timestamps.
func (d *Decoder) timestamp(c *column.Column) error {
	switch b := d.data[d.at]; {
	case b == '"':
		raw, err := d.content()
		if err != nil {
			return err
		}
		return d.appendTimestamp(c, raw)
	case b == '-' || '0' <= b && b <= '9':
		n, err := d.number()
		if err != nil {
			return err
		}
		if d.strict {
			return d.appendTimestamp(c, n.raw)
		}
		return appendEpoch(c, n)
	}
	return d.notParsed()
}

func appendEpoch(c *column.Column, n *number) error {
	at, ok := epoch(n)
	if !ok {
		return mismatch("For input string: %q", shown(n.raw))
	}
	c.AppendInt(at)
	return nil
}

const timestampForm = "Timestamp format must be yyyy-mm-dd hh:mm:ss[.fffffffff]"

func (d *Decoder) appendTimestamp(c *column.Column, s []byte) error {
	if d.strict {
		for i := range d.timestamps {
			if at, ok := d.timestamps[i].parse(s); ok {
				c.AppendInt(at)
				return nil
			}
		}
		if at, ok := sqlTimestamp(s); ok {
			c.AppendInt(at)
			return nil
		}
		return mismatch(timestampForm+", found %q", shown(s))
	}
	if len(s) > 10 {
		switch s[10] {
		case 'T':
			if at, ok := isoTimestamp(s); ok {
				c.AppendInt(at)
				return nil
			}
		}
	}
	if at, ok := sqlTimestamp(s); ok {
		c.AppendInt(at)
		return nil
	}
	var n number
	if size, ok := n.scan(s); ok && size == len(s) {
		return appendEpoch(c, &n)
	}
	return mismatch(timestampForm+", found %q", shown(s))
}

// date reads a value of a column of dates.
func (d *Decoder) date(c *column.Column) error {
	if d.data[d.at] != '"' {
		return d.notParsed()
	}
	raw, err := d.content()
	if err != nil {
		return err
	}
	return appendDate(c, raw)
}

func appendDate(c *column.Column, s []byte) error {
	r := reader{s: s}
	day := r.date(1)
	if r.bad || len(r.s) != 0 {
		return mismatch("Date format must be yyyy-[m]m-[d]d, found %q", shown(s))
	}
	c.AppendInt(day)
	return nil
}
