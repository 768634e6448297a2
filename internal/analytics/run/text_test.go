package run

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// The ways to read and write values that are short cuts agree with the long ones.

func TestFloatsHaveTheirShortestText(t *testing.T) {
	check := func(f float64) {
		t.Helper()
		want := strconv.FormatFloat(f, 'f', -1, 64)
		if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
			want = strconv.FormatFloat(f, 'e', -1, 64)
		}
		if got := string(appendFloat(nil, f, 64)); got != want {
			t.Errorf("%v is written %s", want, got)
		}
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 0.5, -0.5, 0.001, -0.001, 0.0005, 0.1, 0.3, 0.1 + 0.2, 1.005, 999999999999.999, 1e12, 1e12 + 0.001, 1e15, 1e21, 1e-7, math.MaxFloat64, 1.0 / 3} {
		check(f)
		check(-f)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		switch f := r.Float64(); r.IntN(4) {
		case 0:
			check(math.Float64frombits(r.Uint64()&^(0x7FF<<52) | uint64(r.IntN(2046))<<52))
		case 1:
			check(float64(r.Int64N(2e15)-1e15) / 1000)
		case 2:
			check(math.Nextafter(float64(r.Int64N(2e9)-1e9)/1000, f*2e9-1e9))
		case 3:
			check(float64(r.Int64N(2e6)-1e6) / float64(1+r.IntN(10000)))
		}
	}
}

func TestDecimalsAreComputedTheSameWithFewBits(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	amount := func() int64 {
		v := r.Int64() >> r.IntN(64)
		if r.IntN(2) == 0 {
			v = -v
		}
		return v
	}
	short := 0
	for range 200_000 {
		op := []string{"+", "-", "*", "/"}[r.IntN(4)]
		a, b, as, bs := amount(), amount(), r.IntN(19), r.IntN(19)
		to := sql.Type{Kind: sql.KindDecimal, Precision: 18, Scale: r.IntN(19)}
		got, ok := shortArithmetic(op, a, as, b, bs, to)
		if !ok {
			continue
		}
		short++
		checked, err := checkedDecimal(got, to)
		want, wantErr := longArithmetic(op, a, as, b, bs, to)
		if (err == nil) != (wantErr == nil) || err == nil && checked.I != want {
			t.Fatalf("%d (%d) %s %d (%d) is %d (%d), %v; not %d, %v", a, as, op, b, bs, want, to.Scale, wantErr, got, err)
		}
	}
	if short < 10_000 {
		t.Errorf("only %d results were computed the short way", short)
	}
}

func TestDecimalsAreWritten(t *testing.T) {
	for _, c := range []struct {
		v     int64
		scale int
		want  string
	}{
		{0, 0, "0"}, {0, 2, "0.00"}, {5, 2, "0.05"}, {-5, 2, "-0.05"}, {50, 2, "0.50"}, {123456, 2, "1234.56"}, {-100, 2, "-1.00"},
		{7, 18, "0.000000000000000007"}, {math.MaxInt64, 4, "922337203685477.5807"}, {math.MinInt64, 4, "-922337203685477.5808"}, {math.MinInt64, 0, "-9223372036854775808"},
	} {
		if got := string(appendDecimal(nil, c.v, c.scale)); got != c.want {
			t.Errorf("%d / 10^%d is written %s, not %s", c.v, c.scale, got, c.want)
		}
	}
}

func TestNumbersOfFewDigitsAreRead(t *testing.T) {
	for _, c := range []struct {
		s     string
		n     int64
		scale int
		ok    bool
	}{
		{"0", 0, 0, true}, {"12.50", 1250, 2, true}, {"-12.5", -125, 1, true}, {"+3", 3, 0, true}, {".5", 5, 1, true}, {"5.", 5, 0, true},
		{"123456789012345678", 123456789012345678, 0, true}, {"1234567890123456789", 0, 0, false}, {"1.2.3", 0, 0, false},
		{"", 0, 0, false}, {"-", 0, 0, false}, {".", 0, 0, false}, {"1e3", 0, 0, false}, {"1a", 0, 0, false},
	} {
		n, scale, ok := smallDecimal(c.s)
		if ok != c.ok || ok && (n != c.n || scale != c.scale) {
			t.Errorf("%q is read as %d, %d, %v", c.s, n, scale, ok)
		}
	}
}

// FuzzStrings compares what looks at eight bytes at once with what looks at one.
func FuzzStrings(f *testing.F) {
	for _, s := range []string{``, `"`, `abc"`, `abcdefgh"`, `abcdefg\n"`, "abcdefgh\x1f", "abcdefgh\x7f\x80\"", `é€😀\ud83d\ude00"`, `\u12`, `\x"`, `\`, "\x00\x01!\"#", "\xff\"\xfe"} {
		f.Add(s)
		f.Add(strings.Repeat("x", 9) + s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i := range min(len(s), 10) {
			want := i
			for want < len(s) && s[want] >= 0x20 && s[want] != '"' && s[want] != '\\' {
				want++
			}
			if got := plain(s, i); got != want {
				t.Fatalf("plain(%q, %d) is %d, not %d", s, i, got, want)
			}
			for want = i; want < len(s) && s[want] >= 0x20 && s[want] < 0x80 && s[want] != '"' && s[want] != '\\'; {
				want++
			}
			if got := simple(s, i); got != want {
				t.Fatalf("simple(%q, %d) is %d, not %d", s, i, got, want)
			}
		}
		read, passed := scanner{s: `"` + s}, scanner{s: `"` + s}
		_, ok := read.str()
		if passed.pass() != ok || passed.i != read.i {
			t.Fatalf("reading %q ends at %d (%v), passing over it at %d", s, read.i, ok, passed.i)
		}
	})
}
