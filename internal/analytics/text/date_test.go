package text

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

var goldenNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// otherwise is where they differ on purpose: weeks and weekdays are read, and do
// not make a date; digits are those of ASCII.
var otherwise = map[string]string{
	"parse u 1": "0", "parse u 7": "0", "parse w 1": "0", "parse w 10": "0", "parse W 1": "0", "parse F 2": "0", "parse E Mon": "0",
	"parse yyyy-MM-dd ０026-03-01": "fail", "parse HH:mm １２:30": "fail",
}

// Date patterns do what java.text.SimpleDateFormat does.
func TestDatePatternsAreJavas(t *testing.T) {
	lines := 0
	golden(t, "testdata/dates.txt", func(line int, f []string) {
		lines++
		p, err := CompileDatePattern(f[1][1:])
		got := "bad"
		switch {
		case err != nil:
		case f[0] == "format":
			ms, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				t.Fatal(line, err)
			}
			got = quoted(string(p.Append(nil, ms)))
		default:
			ms, ok := p.Parse(f[2][1:], goldenNow)
			if got = strconv.FormatInt(ms, 10); !ok {
				got = "fail"
			}
		}
		if want, ok := otherwise[f[0]+" "+f[1][1:]+" "+strings.TrimPrefix(f[2], `"`)]; ok {
			f[3] = want
		}
		if got != f[3] {
			t.Errorf("line %d: %s %q of %s is %s, want %s", line, f[0], f[1][1:], f[2], got, f[3])
		}
	})
	if lines < 2000 {
		t.Errorf("%d lines", lines)
	}
}

func TestADatePatternIsBounded(t *testing.T) {
	if _, err := CompileDatePattern(strings.Repeat("y", MaxDatePattern+1)); err == nil {
		t.Error("a pattern of any length is taken")
	}
	p, err := CompileDatePattern("yyyy-MM-dd HH:mm:ss.SSS")
	if err != nil {
		t.Fatal(err)
	}
	if ms, ok := p.Parse(strings.Repeat("9", 1000)+"-01-01 00:00:00.000", goldenNow); ok {
		t.Errorf("a year of 1000 digits is %d", ms)
	}
}

// What is written in a pattern that says everything reads as the same.
func FuzzDatePattern(f *testing.F) {
	f.Add("yyyy-MM-dd'T'HH:mm:ss.SSSZ", "2026-03-01T12:00:00.000+0100", int64(1772366400123))
	f.Add("EEE, d MMM yy hh:mm a z", "Sun, 1 Mar 26 01:00 PM PST", int64(0))
	f.Add("G y D w W F E u k K h S X", "AD 1 1 1 1 1 Mon 1 1 1 1 1 Z", int64(-1))
	whole, err := CompileDatePattern("G yyyyy-MM-dd HH:mm:ss.SSS " + strings.Repeat("X", 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, pattern, s string, ms int64) {
		if p, err := CompileDatePattern(pattern); err == nil {
			p.Parse(s, goldenNow)
			p.Append(nil, ms)
		}
		ms %= 200_000_000_000_000
		written := string(whole.Append(nil, ms))
		if again, ok := whole.Parse(written, goldenNow); !ok || again != ms {
			t.Fatalf("%d is written %q and read as %d, %v", ms, written, again, ok)
		}
	})
}
