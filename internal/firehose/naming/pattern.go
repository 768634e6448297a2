package naming

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A pattern is text in the language of java.time.format.DateTimeFormatter, in
// English as spoken in the United States: weeks begin on Sunday, and the first
// week of a year is the one with 1 January.
//
// Sections in brackets are optional; since an instant has every field, they are
// always printed and only have to be closed in order.
type pattern []field

// field is a run of one letter, or a literal.
type field struct {
	letter byte // 0 is a literal
	count  int
	pad    int // width to fill with blanks from the left; 0 is none
	text   string
}

var errIncompleteText = errors.New("pattern ends with an incomplete string literal")

func letter(c byte) bool { return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' }

func parsePattern(text string) (pattern, error) {
	var p pattern
	literal := func(s string) {
		if n := len(p); n > 0 && p[n-1].letter == 0 && p[n-1].pad == 0 {
			p[n-1].text += s
			return
		}
		p = append(p, field{text: s})
	}
	run := func(i int) int {
		n := i + 1
		for n < len(text) && text[n] == text[i] {
			n++
		}
		return n - i
	}
	depth := 0
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case letter(c):
			f := field{letter: c, count: run(i)}
			i += f.count
			if c == 'p' {
				if i == len(text) || !letter(text[i]) {
					return nil, errors.New("pad letter 'p' must be followed by a letter to pad")
				}
				f = field{letter: text[i], count: run(i), pad: f.count}
				i += f.count
			}
			if err := f.valid(); err != nil {
				return nil, err
			}
			p = append(p, f)
		case c == '\'':
			s, n, err := quotedText(text[i:])
			if err != nil {
				return nil, err
			}
			literal(s)
			i += n
		case c == '[':
			depth++
			i++
		case c == ']':
			if depth == 0 {
				return nil, errors.New("']' without '['")
			}
			depth--
			i++
		case c == '{' || c == '}' || c == '#':
			return nil, fmt.Errorf("reserved character %q", c)
		default:
			literal(text[i : i+1])
			i++
		}
	}
	return p, nil
}

// quotedText reads the quoted literal that s begins with, and how long it is. A
// quote inside is written twice, and nothing in between stands for a quote.
func quotedText(s string) (text string, length int, err error) {
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			i++
			continue
		}
		if i == 1 {
			return "'", 2, nil
		}
		return strings.ReplaceAll(s[1:i], "''", "'"), i + 1, nil
	}
	return "", 0, errIncompleteText
}

// valid checks that there is such a letter and that it may stand so often.
func (f field) valid() error {
	most := 0
	switch f.letter {
	case 'y', 'u', 'A', 'n', 'N', 'g':
		most = 19
	case 'Y':
		most = MaxEvaluated
	case 'S':
		most = 9
	case 'M', 'L', 'Q', 'q', 'E', 'e', 'G', 'Z', 'X', 'x':
		most = 5
	case 'c':
		if f.count == 2 {
			return errors.New("letter 'c' cannot stand 2 times")
		}
		most = 5
	case 'z':
		most = 4
	case 'd', 'H', 'k', 'K', 'h', 'm', 's', 'w':
		most = 2
	case 'D':
		most = 3
	case 'F', 'a', 'W':
		most = 1
	case 'B':
		if f.count != 1 && f.count != 4 && f.count != 5 {
			return fmt.Errorf("letter 'B' cannot stand %d times", f.count)
		}
		return nil
	case 'O', 'v':
		if f.count != 1 && f.count != 4 {
			return fmt.Errorf("letter %q cannot stand %d times", f.letter, f.count)
		}
		return nil
	case 'V':
		if f.count != 2 {
			return errors.New("letter 'V' has to stand 2 times")
		}
		return nil
	default:
		return fmt.Errorf("unknown letter %q", f.letter)
	}
	if f.count > most {
		return fmt.Errorf("letter %q cannot stand %d times", f.letter, f.count)
	}
	return nil
}

// check finds what cannot be printed: text wider than its padding.
func (p pattern) check(t time.Time) error {
	for _, f := range p {
		if f.pad == 0 {
			continue
		}
		if n := len(f.append(nil, t)); n > f.pad {
			return fmt.Errorf("%d characters exceed a padding to %d", n, f.pad)
		}
	}
	return nil
}

func (p pattern) append(dst []byte, t time.Time) []byte {
	for i := range p {
		f := &p[i]
		switch {
		case f.letter == 0:
			dst = append(dst, f.text...)
		case f.pad > 0:
			s := f.append(nil, t)
			for range f.pad - len(s) {
				dst = append(dst, ' ')
			}
			dst = append(dst, s...)
		default:
			dst = f.append(dst, t)
		}
	}
	return dst
}

// appendInt adds n with at least width digits.
func appendInt(dst []byte, n int64, width int) []byte {
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	var digits [20]byte
	s := strconv.AppendInt(digits[:0], n, 10)
	for range width - len(s) {
		dst = append(dst, '0')
	}
	return append(dst, s...)
}

// appendYear adds a year the way a count of its letter asks for.
func appendYear(dst []byte, year, count int) []byte {
	if count == 2 {
		return appendInt(dst, int64(((year%100)+100)%100), 2)
	}
	if count >= 4 && (year > 9999 || len(strconv.Itoa(year)) > count) && year > 0 {
		dst = append(dst, '+')
	}
	return appendInt(dst, int64(year), count)
}

// text adds a name in the form that a count asks for: 3 and less short, 4 full, 5
// its first letter.
func appendName(dst []byte, full string, count, short int) []byte {
	switch count {
	case 4:
		return append(dst, full...)
	case 5:
		return append(dst, full[:1]...)
	}
	return append(dst, full[:min(short, len(full))]...)
}

func (f *field) append(dst []byte, t time.Time) []byte {
	number := func(n int) []byte { return appendInt(dst, int64(n), f.count) }
	switch f.letter {
	case 'y': // year of era
		year := t.Year()
		if year <= 0 {
			year = 1 - year
		}
		return appendYear(dst, year, f.count)
	case 'u':
		return appendYear(dst, t.Year(), f.count)
	case 'Y':
		year, _ := week(t)
		return appendYear(dst, year, f.count)
	case 'M', 'L':
		if f.count < 3 {
			return number(int(t.Month()))
		}
		return appendName(dst, t.Month().String(), f.count, 3)
	case 'd':
		return number(t.Day())
	case 'D':
		return number(t.YearDay())
	case 'H':
		return number(t.Hour())
	case 'k':
		return number((t.Hour()+23)%24 + 1)
	case 'K':
		return number(t.Hour() % 12)
	case 'h':
		return number((t.Hour()+11)%12 + 1)
	case 'm':
		return number(t.Minute())
	case 's':
		return number(t.Second())
	case 'S':
		nano := t.Nanosecond()
		for range 9 - f.count {
			nano /= 10
		}
		return number(nano)
	case 'n':
		return number(t.Nanosecond())
	case 'N':
		return appendInt(dst, nanoOfDay(t), f.count)
	case 'A':
		return appendInt(dst, nanoOfDay(t)/1e6, f.count)
	case 'a':
		if t.Hour() < 12 {
			return append(dst, "AM"...)
		}
		return append(dst, "PM"...)
	case 'B':
		return append(dst, dayPeriod(t, f.count)...)
	case 'E':
		return appendName(dst, t.Weekday().String(), f.count, 3)
	case 'e', 'c':
		if f.count < 3 {
			return number(int(t.Weekday()) + 1)
		}
		return appendName(dst, t.Weekday().String(), f.count, 3)
	case 'F': // which of its weekdays in the month, as the language's own table has it
		return number((t.Day()-1)%7 + 1)
	case 'w':
		_, w := week(t)
		return number(w)
	case 'W':
		first := int(t.AddDate(0, 0, 1-t.Day()).Weekday())
		return number((t.Day()-1+first)/7 + 1)
	case 'Q', 'q':
		return appendQuarter(dst, (int(t.Month())+2)/3, f.count)
	case 'G':
		return append(dst, era(t.Year() > 0, f.count)...)
	case 'g':
		midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
		return appendInt(dst, midnight.Unix()/86400+40587, f.count)
	case 'V':
		return append(dst, t.Location().String()...)
	case 'z':
		return append(dst, zoneName(t, f.count == 4, false)...)
	case 'v':
		return append(dst, zoneName(t, f.count == 4, true)...)
	default: // O X x Z
		return f.appendOffset(dst, t)
	}
}

func nanoOfDay(t time.Time) int64 {
	return int64(t.Hour()*3600+t.Minute()*60+t.Second())*1e9 + int64(t.Nanosecond())
}

// week gives the week-based year and week of t.
func week(t time.Time) (year, number int) {
	year = t.Year()
	// The days before t's week since the year began, or a little less than
	// nothing in its first week.
	before := t.YearDay() - 1 - int(t.Weekday())
	next := time.Date(year+1, time.January, 1, 0, 0, 0, 0, time.UTC)
	if length := next.AddDate(0, 0, -1).YearDay(); before+7 > length {
		return year + 1, 1
	}
	return year, (before+6)/7 + 1
}

func appendQuarter(dst []byte, quarter, count int) []byte {
	switch count {
	case 3:
		return append(dst, 'Q', '0'+byte(quarter))
	case 4:
		return append(dst, [...]string{"1st", "2nd", "3rd", "4th"}[quarter-1]+" quarter"...)
	case 5:
		count = 1
	}
	return appendInt(dst, int64(quarter), count)
}

func era(current bool, count int) string {
	switch {
	case count == 4 && current:
		return "Anno Domini"
	case count == 4:
		return "Before Christ"
	case count == 5 && current:
		return "A"
	case count == 5:
		return "B"
	case current:
		return "AD"
	}
	return "BC"
}

func dayPeriod(t time.Time, count int) string {
	if t.Minute() == 0 {
		switch {
		case t.Hour() == 0 && count == 5:
			return "mi"
		case t.Hour() == 0:
			return "midnight"
		case t.Hour() == 12 && count == 5:
			return "n"
		case t.Hour() == 12:
			return "noon"
		}
	}
	switch h := t.Hour(); {
	case h < 6 || h >= 21:
		return "at night"
	case h < 12:
		return "in the morning"
	case h < 18:
		return "in the afternoon"
	}
	return "in the evening"
}

func (f *field) appendOffset(dst []byte, t time.Time) []byte {
	_, seconds := t.Zone()
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	hour, minute, second := seconds/3600, seconds/60%60, seconds%60
	if f.letter == 'O' || f.letter == 'Z' && f.count == 4 {
		dst = append(dst, "GMT"...)
		if seconds == 0 {
			return dst
		}
		width := 1
		if f.count == 4 {
			width = 2
		}
		dst = appendInt(append(dst, sign), int64(hour), width)
		if f.count == 4 || minute != 0 || second != 0 {
			dst = appendInt(append(dst, ':'), int64(minute), 2)
		}
		if second != 0 {
			dst = appendInt(append(dst, ':'), int64(second), 2)
		}
		return dst
	}
	count := f.count
	if f.letter == 'Z' && count < 4 {
		count = 2 // +0000, without Z
	}
	// 1: +HH and minutes if any; 2, 3: +HH and minutes; 4, 5: seconds too, if any.
	// Odd counts have colons, and all but x and short Z write Z for none.
	minutes := count > 1 || minute != 0
	seconds = 0
	if count > 3 {
		seconds = second
	}
	if hour == 0 && (minute == 0 || !minutes) && seconds == 0 {
		if f.letter == 'X' || f.letter == 'Z' && f.count == 5 {
			return append(dst, 'Z')
		}
		sign = '+'
	}
	colon := count > 1 && count%2 == 1
	dst = appendInt(append(dst, sign), int64(hour), 2)
	if minutes {
		if colon {
			dst = append(dst, ':')
		}
		dst = appendInt(dst, int64(minute), 2)
	}
	if seconds != 0 {
		if colon {
			dst = append(dst, ':')
		}
		dst = appendInt(dst, int64(seconds), 2)
	}
	return dst
}
