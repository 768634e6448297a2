package sql

import (
	"fmt"
	"strings"
)

// Milliseconds of the units.
const (
	MillisPerSecond int64 = 1000
	MillisPerMinute       = 60 * MillisPerSecond
	MillisPerHour         = 60 * MillisPerMinute
	MillisPerDay          = 24 * MillisPerHour
)

// ParseDate reads yyyy-MM-dd, exactly, as milliseconds since 1970.
func ParseDate(text string) (int64, bool) {
	days, ok := days(text)
	return days * MillisPerDay, ok && len(text) == 10
}

// ParseTime reads HH:mm:ss with an optional fraction as milliseconds since
// midnight. Digits of the fraction beyond the third are cut off.
func ParseTime(text string) (int64, bool) {
	if len(text) < 8 || text[2] != ':' || text[5] != ':' {
		return 0, false
	}
	h, ok1 := digits(text[:2])
	m, ok2 := digits(text[3:5])
	s, ok3 := digits(text[6:8])
	if !ok1 || !ok2 || !ok3 || h > 23 || m > 59 || s > 59 {
		return 0, false
	}
	ms := h*MillisPerHour + m*MillisPerMinute + s*MillisPerSecond
	if len(text) == 8 {
		return ms, true
	}
	fraction, ok := parseFraction(text[8:])
	return ms + fraction, ok
}

// ParseTimestamp reads yyyy-MM-dd HH:mm:ss with an optional fraction as
// milliseconds since 1970.
func ParseTimestamp(text string) (int64, bool) {
	if len(text) < 19 || text[10] != ' ' {
		return 0, false
	}
	days, ok1 := days(text[:10])
	ms, ok2 := ParseTime(text[11:])
	return days*MillisPerDay + ms, ok1 && ok2
}

// parseFraction reads .f as milliseconds.
func parseFraction(text string) (int64, bool) {
	if len(text) < 2 || len(text) > 10 || text[0] != '.' {
		return 0, false
	}
	if _, ok := digits(text[1:]); !ok {
		return 0, false
	}
	ms, _ := digits((text[1:] + "00")[:3])
	return ms, true
}

// digits reads a text that is digits only, at most 18 of them.
func digits(text string) (int64, bool) {
	if text == "" || len(text) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(text) {
		if !isDigit(text[i]) {
			return 0, false
		}
		n = n*10 + int64(text[i]-'0')
	}
	return n, true
}

// days reads yyyy-MM-dd as days since 1970.
func days(text string) (int64, bool) {
	if len(text) < 10 || text[4] != '-' || text[7] != '-' {
		return 0, false
	}
	y, ok1 := digits(text[:4])
	m, ok2 := digits(text[5:7])
	d, ok3 := digits(text[8:10])
	if !ok1 || !ok2 || !ok3 || m < 1 || m > 12 || d < 1 || d > DaysInMonth(y, m) {
		return 0, false
	}
	return DaysSinceEpoch(y, m, d), true
}

// DaysInMonth is the number of days of a month of the Gregorian calendar, which
// is taken to have been in use for ever.
func DaysInMonth(year, month int64) int64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// DaysSinceEpoch is the day's number, 1970-01-01 being 0.
func DaysSinceEpoch(year, month, day int64) int64 {
	// Years begin in March, so that the leap day is a year's last.
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	y := year - era*400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + y*365 + y/4 - y/100 + dayOfYear - 719468
}

// Civil is the inverse of DaysSinceEpoch.
func Civil(days int64) (year, month, day int64) {
	days += 719468
	era := floorDiv(days, 146097)
	d := days - era*146097
	y := (d - d/1460 + d/36524 - d/146096) / 365
	d -= y*365 + y/4 - y/100
	m := (5*d + 2) / 153
	day = d - (153*m+2)/5 + 1
	year, month = y+era*400, m+3
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// ParseInterval reads the value of an interval literal: months or milliseconds.
// problem says what is wrong with it, empty if nothing is.
func ParseInterval(text string, q Qualifier) (value int64, problem string) {
	if q.Precision < 1 || q.Precision > 10 {
		return 0, "an interval's leading precision is 1 to 10"
	}
	rest := strings.TrimSpace(text)
	sign := int64(1)
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		if rest[0] == '-' {
			sign = -1
		}
		rest = strings.TrimSpace(rest[1:])
	}
	malformed := fmt.Sprintf("%q is not an interval %s, which is written %s", text, q, form(q))
	for unit := q.Start; unit <= q.End; unit++ {
		if unit != q.Start {
			separator := byte(':')
			switch {
			case unit == Month:
				separator = '-'
			case unit == Hour:
				separator = ' '
			}
			if rest == "" || rest[0] != separator {
				return 0, malformed
			}
			rest = strings.TrimLeft(rest[1:], " ")
		}
		n := 0
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		field, ok := digits(rest[:n])
		if !ok {
			return 0, malformed
		}
		if unit == q.Start {
			if len(strings.TrimLeft(rest[:n], "0")) > q.Precision {
				return 0, fmt.Sprintf("%s has more digits than the leading precision %d of %s allows; write %s(%d)", rest[:n], q.Precision, unit, unit, n)
			}
		} else if high := limit(unit); field > high {
			return 0, fmt.Sprintf("%s is 0 to %d in an interval %s", unit, high, q)
		}
		rest = rest[n:]
		switch unit {
		case Year:
			value += field * 12
		case Month:
			value += field
		case Day:
			value += field * MillisPerDay
		case Hour:
			value += field * MillisPerHour
		case Minute:
			value += field * MillisPerMinute
		case Second:
			value += field * MillisPerSecond
			if rest != "" && rest[0] == '.' {
				fraction, ok := parseFraction(rest)
				if !ok {
					return 0, malformed
				}
				if len(rest)-1 > max(q.Fraction, 3) {
					return 0, fmt.Sprintf("%q has more fraction digits than the precision %d allows", text, q.Fraction)
				}
				value += fraction
				rest = ""
			}
		}
	}
	if rest != "" {
		return 0, malformed
	}
	return sign * value, ""
}

func limit(u Unit) int64 {
	switch u {
	case Month:
		return 11
	case Hour:
		return 23
	}
	return 59
}

// form shows how an interval is written.
func form(q Qualifier) string {
	parts := map[Unit]string{Year: "YY", Month: "MM", Day: "DD", Hour: "HH", Minute: "MM", Second: "SS.SSS"}
	var b strings.Builder
	b.WriteByte('\'')
	for u := q.Start; u <= q.End; u++ {
		if u != q.Start {
			b.WriteString(map[Unit]string{Month: "-", Hour: " ", Minute: ":", Second: ":"}[u])
		}
		b.WriteString(parts[u])
	}
	b.WriteByte('\'')
	return b.String()
}
