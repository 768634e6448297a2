package postgres

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// format is a compiled DATEFORMAT or TIMEFORMAT.
type format []piece

// piece is a field of a date or a literal.
type piece struct {
	field   string // of formatFields, or empty
	literal byte
}

// formatFields are the parts of a format, longer ones first.
var formatFields = []string{"YYYY", "HH24", "HH12", "MON", "YY", "MM", "DD", "HH", "MI", "SS", "AM", "PM", "OF"}

func compileFormat(text string) (format, error) {
	var f format
	upper := strings.ToUpper(text)
next:
	for i := 0; i < len(text); {
		for _, field := range formatFields {
			if strings.HasPrefix(upper[i:], field) {
				f = append(f, piece{field: field})
				i += len(field)
				continue next
			}
		}
		c := text[i]
		if c >= 'A' && c <= 'Z' && c != 'T' && c != 'Z' || c >= 'a' && c <= 'z' {
			return nil, fmt.Errorf("%q is no part of a date at %q", text, clip(text[i:]))
		}
		f = append(f, piece{literal: c})
		i++
	}
	if len(f) == 0 {
		return nil, fmt.Errorf("the format is empty")
	}
	return f, nil
}

var months = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}

// parse reads a time. Fractions of a second after SS are taken as they come.
func (f format) parse(text string) (time.Time, error) {
	year, month, day, hour, minute, second, nano := 1970, 1, 1, 0, 0, 0, 0
	half, zone := "", time.UTC
	rest := text
	bad := func(what string) (time.Time, error) {
		return time.Time{}, fmt.Errorf("%q does not fit the format: %s", clip(text), what)
	}
	// digits takes from one to most digits.
	digits := func(most int) (int, bool) {
		n := 0
		for n < len(rest) && n < most && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		v, err := strconv.Atoi(rest[:n])
		if err != nil {
			return 0, false
		}
		rest = rest[n:]
		return v, true
	}
	for _, p := range f {
		var ok bool
		switch p.field {
		case "":
			if rest == "" || rest[0] != p.literal {
				return bad(fmt.Sprintf("no %q", p.literal))
			}
			rest, ok = rest[1:], true
		case "YYYY":
			year, ok = digits(4)
		case "YY":
			if year, ok = digits(2); year < 70 {
				year += 2000
			} else {
				year += 1900
			}
		case "MM":
			month, ok = digits(2)
		case "MON":
			for i, name := range months {
				if len(rest) >= 3 && strings.EqualFold(rest[:3], name) {
					month, ok, rest = i+1, true, rest[3:]
					break
				}
			}
		case "DD":
			day, ok = digits(2)
		case "HH", "HH24", "HH12":
			hour, ok = digits(2)
		case "MI":
			minute, ok = digits(2)
		case "SS":
			second, ok = digits(2)
			if strings.HasPrefix(rest, ".") {
				end := 1
				for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
					end++
				}
				if fraction := rest[1:end]; fraction != "" {
					nano, _ = strconv.Atoi((fraction + "000000000")[:9])
					rest = rest[end:]
				}
			}
		case "AM", "PM":
			if len(rest) >= 2 && (strings.EqualFold(rest[:2], "am") || strings.EqualFold(rest[:2], "pm")) {
				half, rest, ok = strings.ToLower(rest[:2]), rest[2:], true
			}
		case "OF":
			if strings.HasPrefix(rest, "Z") {
				rest, ok = rest[1:], true
				break
			}
			if len(rest) >= 3 && (rest[0] == '+' || rest[0] == '-') {
				sign := 1
				if rest[0] == '-' {
					sign = -1
				}
				rest = rest[1:]
				var h, m int
				if h, ok = digits(2); ok {
					rest = strings.TrimPrefix(rest, ":")
					m, _ = digits(2)
				}
				zone = time.FixedZone("", sign*(h*3600+m*60))
			}
		}
		if !ok {
			return bad("no " + p.field)
		}
	}
	if strings.TrimSpace(rest) != "" {
		return bad("more follows")
	}
	switch half {
	case "pm":
		if hour < 12 {
			hour += 12
		}
	case "am":
		hour %= 12
	}
	if month < 1 || month > 12 || day < 1 || day > 31 || hour > 24 || minute > 59 || second > 60 {
		return bad("out of range")
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nano, zone)
	if t.Day() != day && hour < 24 {
		return bad("there is no such day")
	}
	return t, nil
}

// epoch reads seconds or milliseconds since 1970, with or without a fraction.
func epoch(text string, unit time.Duration) (time.Time, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil || f < -1e15 || f > 1e15 {
			return time.Time{}, fmt.Errorf("%q is no number of seconds or milliseconds", clip(text))
		}
		n, fraction = int64(f), ""
	}
	if n > 1e15 || n < -1e15 {
		return time.Time{}, fmt.Errorf("%q is out of range", clip(text))
	}
	var part int64
	if fraction != "" {
		f, err := strconv.ParseFloat("0."+fraction, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("%q is no number of seconds or milliseconds", clip(text))
		}
		part = int64(f * float64(unit))
	}
	if unit == time.Second {
		return time.Unix(n, part).UTC(), nil
	}
	return time.UnixMilli(n).Add(time.Duration(part)).UTC(), nil
}
