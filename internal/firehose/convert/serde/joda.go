package serde

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// joda is a pattern of the Joda-Time library, compiled for parsing.
type joda struct {
	pattern string
	millis  bool // "millis": the number of milliseconds since 1970
	steps   []step
}

// step is a field of a pattern, or a literal.
type step struct {
	letter  byte // 0 for a literal
	count   int
	literal string
	// tight is set for a field of digits right before another: it takes exactly
	// count digits, as it could not be told where it ends.
	tight bool
}

const maxPattern = 1024

// parseJoda compiles a pattern. Letters that stand for fields a timestamp cannot
// be made of are errors.
func parseJoda(pattern string) (joda, error) {
	j := joda{pattern: pattern}
	switch {
	case pattern == "millis":
		j.millis = true
		return j, nil
	case pattern == "":
		return j, fmt.Errorf("serde: a timestamp format is empty")
	case len(pattern) > maxPattern:
		return j, fmt.Errorf("serde: a timestamp format has more than %d characters", maxPattern)
	}
	literal := func(s string) {
		if n := len(j.steps); n > 0 && j.steps[n-1].letter == 0 {
			j.steps[n-1].literal += s
			return
		}
		j.steps = append(j.steps, step{literal: s})
	}
	for i := 0; i < len(pattern); {
		c := pattern[i]
		switch {
		case c == '\'':
			if i+1 < len(pattern) && pattern[i+1] == '\'' {
				literal("'")
				i += 2
				continue
			}
			// Up to the closing quote; two stand for one. Joda lets the last be left out.
			var b strings.Builder
			for i++; i < len(pattern); i++ {
				if pattern[i] == '\'' {
					if i+1 == len(pattern) || pattern[i+1] != '\'' {
						break
					}
					i++
				}
				b.WriteByte(pattern[i])
			}
			literal(b.String())
			i = min(i+1, len(pattern))
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			n := 1
			for i+n < len(pattern) && pattern[i+n] == c {
				n++
			}
			if !strings.ContainsRune("GCyYMdDEeaKhHkmsSzZxw", rune(c)) {
				return j, fmt.Errorf("serde: Illegal pattern component: %s in timestamp format %q", pattern[i:i+n], pattern)
			}
			j.steps = append(j.steps, step{letter: c, count: n})
			i += n
		default:
			literal(string(c))
			i++
		}
	}
	for i := range j.steps[:len(j.steps)-1] {
		j.steps[i].tight = j.steps[i].numeric() && j.steps[i+1].numeric()
	}
	return j, nil
}

// numeric tells fields of digits.
func (s *step) numeric() bool {
	switch s.letter {
	case 0, 'G', 'E', 'a', 'z', 'Z':
		return false
	case 'M':
		return s.count < 3
	}
	return true
}

var (
	months   = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}
	weekdays = []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
	// zones are the abbreviations that mean one thing.
	zones = map[string]int64{"utc": 0, "gmt": 0, "ut": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}
)

// name takes the longest of names, or their first three letters, from the
// reader's beginning and returns its number from 1.
func (r *reader) name(names []string) int {
	for i, name := range names {
		for _, n := range []int{len(name), 3} {
			if len(r.s) >= n && bytes.EqualFold(r.s[:n], []byte(name[:n])) {
				r.s = r.s[n:]
				return i + 1
			}
		}
	}
	r.bad = true
	return 0
}

// parse reads s, all of it.
func (j *joda) parse(s []byte) (int64, bool) {
	if j.millis {
		var n number
		size, ok := n.scan(s)
		if !ok || size != len(s) {
			return 0, false
		}
		v, ok := n.int()
		return v * 1_000_000, ok
	}
	r := reader{s: s}
	year, month, day, ofYear, century := 1970, 1, 1, 0, -1
	weekYear, week, weekday := 0, 0, 0
	hour, minute, second := 0, 0, 0
	var nanos, offset int64
	var place *time.Location
	afternoon, before := -1, false
	for i := range j.steps {
		f := &j.steps[i]
		if f.letter == 0 {
			if !bytes.HasPrefix(r.s, []byte(f.literal)) {
				return 0, false
			}
			r.s = r.s[len(f.literal):]
			continue
		}
		low, high := 1, 9
		if f.tight {
			low, high = f.count, f.count
		}
		switch f.letter {
		case 'G':
			before = r.either("AD", "BC") == 1
		case 'C':
			century = r.digits(low, high)
		case 'y', 'Y', 'x':
			negative := len(r.s) > 0 && r.s[0] == '-' && !f.tight
			if negative {
				r.s = r.s[1:]
			}
			n := len(r.s)
			y := r.digits(low, high)
			if f.count == 2 && n-len(r.s) == 2 && !negative {
				// The hundred years around 2000, the pivot that Joda would move with
				// the present.
				if y += 2000; y >= 2050 {
					y -= 100
				}
			}
			if negative {
				y = -y
			}
			if f.letter == 'x' {
				weekYear = y
			} else {
				year = y
			}
		case 'w':
			week = r.digits(low, min(high, 2))
			if week < 1 || week > 53 {
				return 0, false
			}
		case 'e':
			weekday = r.digits(1, 1)
			if weekday < 1 || weekday > 7 {
				return 0, false
			}
		case 'E':
			weekday = r.name(weekdays)
		case 'M':
			if f.count >= 3 {
				month = r.name(months)
			} else {
				month = r.digits(low, min(high, 2))
			}
		case 'd':
			day = r.digits(low, min(high, 2))
		case 'D':
			if ofYear = r.digits(low, min(high, 3)); ofYear < 1 {
				return 0, false
			}
		case 'H', 'k', 'h', 'K':
			hour = r.digits(low, min(high, 2))
			switch {
			case f.letter == 'H' && hour > 23, f.letter == 'K' && hour > 11,
				f.letter == 'k' && (hour < 1 || hour > 24), f.letter == 'h' && (hour < 1 || hour > 12):
				return 0, false
			case f.letter == 'k':
				hour %= 24
			case f.letter == 'h':
				hour %= 12
			}
		case 'm':
			minute = r.digits(low, min(high, 2))
		case 's':
			second = r.digits(low, min(high, 2))
		case 'S':
			// A fraction of as many digits as there are, up to those of the pattern.
			n := len(r.s)
			nanos = int64(r.digits(1, min(9, f.count)))
			for range 9 - (n - len(r.s)) {
				nanos *= 10
			}
		case 'a':
			afternoon = r.either("AM", "PM")
		case 'Z', 'z':
			offset, place = r.zoneName(f)
		}
		if r.bad {
			return 0, false
		}
	}
	if len(r.s) != 0 || minute > 59 || second > 59 {
		return 0, false
	}
	if century >= 0 {
		year = century*100 + year%100
	}
	if before {
		year = 1 - year
	}
	if afternoon == 1 && hour < 12 {
		hour += 12
	}
	var date int64
	switch {
	case week > 0:
		if weekday == 0 {
			weekday = 1
		}
		// The week with 4 January is the first.
		fourth := days(weekYear, 1, 4)
		monday := fourth - (fourth+3)%7
		if (fourth+3)%7 < 0 {
			monday -= 7
		}
		date = monday + int64(week-1)*7 + int64(weekday-1)
	case ofYear > 0:
		if ofYear > 366 || ofYear == 366 && !leap(year) {
			return 0, false
		}
		date = days(year, 1, 1) + int64(ofYear-1)
	case !validDay(year, month, day):
		return 0, false
	default:
		date = days(year, month, day)
	}
	at := (int64(hour)*3600+int64(minute)*60+int64(second))*nanosPerSecond + nanos
	if place != nil {
		// The offset depends on the day.
		t := time.Unix(date*24*3600, 0).UTC()
		_, seconds := time.Date(t.Year(), t.Month(), t.Day(), hour, minute, second, 0, place).Zone()
		offset = int64(seconds) * nanosPerSecond
	}
	return date*nanosPerDay + at - offset, true
}

// either takes one of two words of two letters and says which; -1 for neither.
func (r *reader) either(first, second string) int {
	if len(r.s) >= 2 {
		for i, word := range []string{first, second} {
			if bytes.EqualFold(r.s[:2], []byte(word)) {
				r.s = r.s[2:]
				return i
			}
		}
	}
	r.bad = true
	return -1
}

// zoneName reads a time zone: an offset, an abbreviation, or for ZZZ a name such
// as Europe/Zurich.
func (r *reader) zoneName(f *step) (offset int64, place *time.Location) {
	if len(r.s) == 0 {
		r.bad = true
		return 0, nil
	}
	if c := r.s[0]; f.letter == 'Z' && f.count < 3 || c == '+' || c == '-' {
		return r.zone(), nil
	}
	n := 0
	for n < len(r.s) && (wordByte(r.s[n]) || r.s[n] == '/') {
		n++
	}
	name := string(r.s[:n])
	r.s = r.s[n:]
	if hours, ok := zones[strings.ToLower(name)]; ok {
		return hours * 3600 * nanosPerSecond, nil
	}
	if f.letter == 'Z' && n > 0 && n < 64 {
		if place, err := time.LoadLocation(name); err == nil {
			return 0, place
		}
	}
	r.bad = true
	return 0, nil
}
