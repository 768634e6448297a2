package text

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// DatePattern is a compiled pattern of Java's SimpleDateFormat.
type DatePattern struct{ parts []datePart }

type datePart struct {
	letter  byte // 0 for a literal
	count   int
	literal string
	// adjacent says that another field follows directly, so that as many characters
	// are read as there are letters.
	adjacent bool
}

// MaxDatePattern is the longest date pattern, in bytes.
const MaxDatePattern = 512

// CompileDatePattern compiles a date pattern.
func CompileDatePattern(pattern string) (*DatePattern, error) {
	if len(pattern) > MaxDatePattern {
		return nil, fmt.Errorf("a date pattern has at most %d characters", MaxDatePattern)
	}
	p := &DatePattern{}
	literal := func(s string) {
		if n := len(p.parts); n > 0 && p.parts[n-1].letter == 0 {
			p.parts[n-1].literal += s
		} else {
			p.parts = append(p.parts, datePart{literal: s})
		}
	}
	for i := 0; i < len(pattern); {
		c := pattern[i]
		switch {
		case c == '\'':
			if strings.HasPrefix(pattern[i:], "''") {
				literal("'")
				i += 2
				continue
			}
			i++
			closed := false
			for i < len(pattern) {
				if pattern[i] == '\'' {
					if strings.HasPrefix(pattern[i:], "''") {
						literal("'")
						i += 2
						continue
					}
					closed = true
					i++
					break
				}
				literal(pattern[i : i+1])
				i++
			}
			if !closed {
				return nil, fmt.Errorf("the date pattern %q has a ' without its other half", pattern)
			}
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			if strings.IndexByte("GyYMLwWDdFEuaHkKhmsSzZX", c) < 0 {
				return nil, fmt.Errorf("the date pattern %q has the letter %c, which means nothing; text stands in '", pattern, c)
			}
			n := 1
			for i+n < len(pattern) && pattern[i+n] == c {
				n++
			}
			if c == 'X' && n > 3 {
				return nil, fmt.Errorf("the date pattern %q has more than three X", pattern)
			}
			p.parts = append(p.parts, datePart{letter: c, count: n})
			i += n
		default:
			literal(pattern[i : i+1])
			i++
		}
	}
	for i := 0; i+1 < len(p.parts); i++ {
		p.parts[i].adjacent = p.parts[i].number() && p.parts[i+1].letter != 0
	}
	return p, nil
}

// number reports whether the part is written with digits.
func (d datePart) number() bool {
	switch d.letter {
	case 0, 'G', 'E', 'a', 'z', 'Z', 'X':
		return false
	case 'M', 'L':
		return d.count < 3
	}
	return true
}

// Append appends an instant in the pattern, in English and UTC.
func (p *DatePattern) Append(dst []byte, millis int64) []byte {
	t := time.UnixMilli(millis).UTC()
	pad := func(n, width int) {
		s := strconv.Itoa(n)
		for i := len(s); i < width; i++ {
			dst = append(dst, '0')
		}
		dst = append(dst, s...)
	}
	year := func(y, count int) {
		if count == 2 {
			pad(((y%100)+100)%100, 2)
		} else {
			pad(y, count)
		}
	}
	for _, d := range p.parts {
		switch d.letter {
		case 0:
			dst = append(dst, d.literal...)
		case 'G':
			if t.Year() > 0 {
				dst = append(dst, "AD"...)
			} else {
				dst = append(dst, "BC"...)
			}
		case 'y':
			year(t.Year(), d.count)
		case 'Y':
			y, _ := javaWeek(t)
			year(y, d.count)
		case 'M', 'L':
			switch {
			case d.count >= 4:
				dst = append(dst, t.Month().String()...)
			case d.count == 3:
				dst = append(dst, t.Month().String()[:3]...)
			default:
				pad(int(t.Month()), d.count)
			}
		case 'w':
			_, w := javaWeek(t)
			pad(w, d.count)
		case 'W':
			first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
			pad((t.Day()+int(first.Weekday())-1)/7+1, d.count)
		case 'D':
			pad(t.YearDay(), d.count)
		case 'd':
			pad(t.Day(), d.count)
		case 'F':
			pad((t.Day()-1)/7+1, d.count)
		case 'E':
			name := t.Weekday().String()
			if d.count < 4 {
				name = name[:3]
			}
			dst = append(dst, name...)
		case 'u':
			pad((int(t.Weekday())+6)%7+1, d.count)
		case 'a':
			if t.Hour() < 12 {
				dst = append(dst, "AM"...)
			} else {
				dst = append(dst, "PM"...)
			}
		case 'H':
			pad(t.Hour(), d.count)
		case 'k':
			pad((t.Hour()+23)%24+1, d.count)
		case 'K':
			pad(t.Hour()%12, d.count)
		case 'h':
			pad((t.Hour()+11)%12+1, d.count)
		case 'm':
			pad(t.Minute(), d.count)
		case 's':
			pad(t.Second(), d.count)
		case 'S':
			pad(t.Nanosecond()/1e6, d.count)
		case 'z':
			if d.count >= 4 {
				dst = append(dst, "Coordinated Universal Time"...)
			} else {
				dst = append(dst, "UTC"...)
			}
		case 'Z':
			dst = append(dst, "+0000"...)
		case 'X':
			dst = append(dst, 'Z')
		}
	}
	return dst
}

// javaWeek is the week-based year and week of the American calendar: weeks begin
// on Sunday, and the first is the one with 1 January.
func javaWeek(t time.Time) (year, week int) {
	day := t.YearDay() - 1
	first := (int(t.Weekday()) - day%7 + 7) % 7 // weekday of 1 January
	week = (day+first)/7 + 1
	// The days before the next 1 January in its week belong to the next year.
	next := time.Date(t.Year()+1, 1, 1, 0, 0, 0, 0, time.UTC)
	if sunday := next.AddDate(0, 0, -int(next.Weekday())); !t.Before(sunday) {
		return t.Year() + 1, 1
	}
	return t.Year(), week
}

var months = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

var weekdays = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// Parse reads an instant from the beginning of a text. Fields that the pattern
// does not have are those of 1970-01-01 00:00:00. now decides about years of two
// digits. ok is false if the text does not match or is no date.
func (p *DatePattern) Parse(s string, now time.Time) (millis int64, ok bool) {
	f := dateFields{year: 1970, month: 1, day: 1, hour: -1, half: -1}
	for _, d := range p.parts {
		if d.letter == 0 {
			if s, ok = strings.CutPrefix(s, d.literal); !ok {
				return 0, false
			}
			continue
		}
		if s, ok = f.read(d, s, now); !ok {
			return 0, false
		}
	}
	millis, ok = f.millis()
	if start := now.UTC().AddDate(-80, 0, 0); ok && f.short && millis < start.UnixMilli() {
		f.year += 100
		return f.millis()
	}
	return millis, ok
}

type dateFields struct {
	year, month, day   int64
	short              bool // the year had two digits, and may be that of 80 years ago
	dayOfYear          int64
	hour               int64 // 0 to 23
	half, twelve       int64 // AM 0, PM 1; 0 to 11
	hasTwelve, bc      bool
	minute, second, ms int64
	offset             int64 // milliseconds east
}

// read takes one field off the text.
func (f *dateFields) read(d datePart, s string, now time.Time) (string, bool) {
	if !d.number() {
		return f.readText(d, s)
	}
	if d.adjacent {
		if len(s) < d.count {
			return s, false
		}
	}
	trimmed := strings.TrimLeft(s, " \t")
	width := len(trimmed)
	if d.adjacent {
		width = d.count - (len(s) - width)
	}
	s = trimmed
	n := 0
	for n < width && n < 18 && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n == 0 {
		return s, false
	}
	v, _ := strconv.ParseInt(s[:n], 10, 64)
	rest := s[n:]
	within := func(low, high int64) bool { return v >= low && v <= high }
	switch d.letter {
	case 'y', 'Y':
		if d.count <= 2 && n == 2 {
			low := int64(now.UTC().Year()) - 80
			v += low - mod(low, 100)
			if v < low {
				v += 100
			}
			f.short = v == low
		}
		f.year = v
		return rest, within(1, maxYear)
	case 'M', 'L':
		f.month = v
		return rest, within(1, 12)
	case 'd':
		f.day = v
		return rest, within(1, 31)
	case 'D':
		f.dayOfYear = v
		return rest, within(1, 366)
	case 'H':
		f.hour = v
		return rest, within(0, 23)
	case 'k':
		f.hour = v % 24
		return rest, within(1, 24)
	case 'K':
		f.twelve, f.hasTwelve = v, true
		return rest, within(0, 11)
	case 'h':
		f.twelve, f.hasTwelve = v%12, true
		return rest, within(1, 12)
	case 'm':
		f.minute = v
		return rest, within(0, 59)
	case 's':
		f.second = v
		return rest, within(0, 59)
	case 'S':
		f.ms = v
		return rest, within(0, 999)
	case 'w':
		return rest, within(1, 53)
	case 'W', 'F':
		return rest, within(1, 6)
	case 'u':
		return rest, within(1, 7)
	}
	return rest, true
}

// maxYear is the last year whose milliseconds have 64 bits.
const maxYear = 292_000_000

func mod(a, b int64) int64 { return (a%b + b) % b }

func (f *dateFields) readText(d datePart, s string) (string, bool) {
	switch d.letter {
	case 'M', 'L':
		i, rest, ok := readName(s, months, 3)
		f.month = int64(i + 1)
		return rest, ok
	case 'E':
		_, rest, ok := readName(s, weekdays, 3)
		return rest, ok
	case 'a':
		i, rest, ok := readName(s, []string{"am", "pm"}, 2)
		f.half = int64(i)
		return rest, ok
	case 'G':
		i, rest, ok := readName(s, []string{"bc", "ad"}, 2)
		f.bc = i == 0
		return rest, ok
	}
	return f.readZone(d, s)
}

// readName takes a name, in full or its first short letters, off the text.
func readName(s string, names []string, short int) (index int, rest string, ok bool) {
	lower := strings.ToLower(s[:min(len(s), 16)])
	for i, n := range names {
		if strings.HasPrefix(lower, n) {
			return i, s[len(n):], true
		}
	}
	for i, n := range names {
		if strings.HasPrefix(lower, n[:min(short, len(n))]) {
			return i, s[min(short, len(n)):], true
		}
	}
	return 0, s, false
}

// zones are the hours east of Greenwich of names of time zones; a name stands
// behind those that begin with it.
var zones = []struct {
	name  string
	hours int64
}{
	{"pacific standard time", -8}, {"pacific daylight time", -7}, {"mountain standard time", -7}, {"mountain daylight time", -6},
	{"central standard time", -6}, {"central daylight time", -5}, {"eastern standard time", -5}, {"eastern daylight time", -4},
	{"greenwich mean time", 0}, {"coordinated universal time", 0},
	{"pst", -8}, {"pdt", -7}, {"mst", -7}, {"mdt", -6}, {"cst", -6}, {"cdt", -5}, {"est", -5}, {"edt", -4}, {"akst", -9}, {"akdt", -8}, {"hst", -10},
	{"west", 1}, {"wet", 0}, {"cest", 2}, {"cet", 1}, {"eest", 3}, {"eet", 2}, {"msk", 3}, {"jst", 9}, {"utc", 0}, {"ut", 0},
}

func (f *dateFields) readZone(d datePart, s string) (string, bool) {
	if d.letter == 'X' && strings.HasPrefix(s, "Z") {
		return s[1:], true
	}
	colon := d.letter == 'X' && d.count == 3
	if d.letter != 'X' {
		lower := strings.ToLower(s[:min(len(s), 32)])
		if strings.HasPrefix(lower, "gmt") {
			if s = s[3:]; s == "" || s[0] != '+' && s[0] != '-' {
				return s, true
			}
			colon = true
		} else {
			for _, z := range zones {
				if strings.HasPrefix(lower, z.name) {
					f.offset = z.hours * sql.MillisPerHour
					return s[len(z.name):], true
				}
			}
		}
	}
	if s == "" || s[0] != '+' && s[0] != '-' {
		return s, false
	}
	sign := int64(1)
	if s[0] == '-' {
		sign = -1
	}
	s = s[1:]
	digit := func() (int64, bool) {
		if s == "" || s[0] < '0' || s[0] > '9' {
			return 0, false
		}
		v := int64(s[0] - '0')
		s = s[1:]
		return v, true
	}
	h, ok := digit()
	if !ok {
		return s, false
	}
	if second, ok := digit(); ok {
		h = h*10 + second
	} else if d.letter == 'X' || !colon {
		return s, false
	}
	var m int64
	if !(d.letter == 'X' && d.count == 1) {
		if colon {
			if s, ok = strings.CutPrefix(s, ":"); !ok {
				return s, false
			}
		}
		first, ok1 := digit()
		second, ok2 := digit()
		if m = first*10 + second; !ok1 || !ok2 || m > 59 {
			return s, false
		}
	}
	f.offset = sign * (h*sql.MillisPerHour + m*sql.MillisPerMinute)
	return s, h <= 23
}

func (f *dateFields) millis() (int64, bool) {
	hour := max(f.hour, 0)
	if f.hour >= 0 && f.half >= 0 && f.hour/12 != f.half {
		return 0, false
	}
	if f.hour < 0 && f.hasTwelve {
		hour = f.twelve + 12*max(f.half, 0)
	} else if f.hour < 0 && f.half == 1 {
		hour = 12
	}
	year := f.year
	if f.bc {
		year = 1 - year
	}
	var days int64
	if f.dayOfYear > 0 {
		if f.dayOfYear == 366 && sql.DaysInMonth(year, 2) < 29 {
			return 0, false
		}
		days = sql.DaysSinceEpoch(year, 1, 1) + f.dayOfYear - 1
	} else {
		if f.day > sql.DaysInMonth(year, f.month) {
			return 0, false
		}
		days = sql.DaysSinceEpoch(year, f.month, f.day)
	}
	return days*sql.MillisPerDay + hour*sql.MillisPerHour + f.minute*sql.MillisPerMinute + f.second*sql.MillisPerSecond + f.ms - f.offset, true
}
