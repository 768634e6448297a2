package serde

import (
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/firehose/convert/column"
)

func parseStandard(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

// exact is the number's value, if its exponent is reasonable.
func exact(s string) (*big.Rat, bool) {
	if _, e, ok := strings.Cut(strings.ToLower(s), "e"); ok {
		if n, err := strconv.Atoi(e); err != nil || n > 400 || n < -400 {
			return nil, false
		}
	}
	return new(big.Rat).SetString(s)
}

func sameInt(s string, v int64) bool {
	want, ok := exact(s)
	return !ok || want.Cmp(new(big.Rat).SetInt64(v)) == 0
}

// sameDecimal compares with the exact value, rounded half away from zero.
func sameDecimal(s string, v column.Int128, scale int) bool {
	want, ok := exact(s)
	if !ok {
		return true
	}
	want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	half := big.NewRat(1, 2)
	negative := want.Sign() < 0
	want.Abs(want).Add(want, half)
	n := new(big.Int).Quo(want.Num(), want.Denom())
	if negative {
		n.Neg(n)
	}
	got := new(big.Int).Lsh(big.NewInt(v.Hi), 64)
	got.Add(got, new(big.Int).SetUint64(v.Lo))
	return got.Cmp(n) == 0
}

func TestJoda(t *testing.T) {
	for _, c := range []struct{ pattern, text, want string }{
		{"yyyy-MM-dd HH:mm:ss", "2018-02-07 15:13:01", "2018-02-07 15:13:01"},
		{"yyyy-MM-dd'T'HH:mm:ss.SSSZ", "2018-02-07T15:13:01.5+0130", "2018-02-07 13:43:01.5"},
		{"yyyy-MM-dd'T'HH:mm:ssZZ", "2018-02-07T15:13:01-08:00", "2018-02-07 23:13:01"},
		{"yyyy-MM-dd'T'HH:mm:ssZ", "2018-02-07T15:13:01Z", "2018-02-07 15:13:01"},
		{"EEE, dd MMM yyyy HH:mm:ss z", "Wed, 07 Feb 2018 15:13:01 GMT", "2018-02-07 15:13:01"},
		{"EEEE d MMMM yyyy", "Wednesday 7 February 2018", "2018-02-07 00:00:00"},
		{"MM/dd/yy hh:mm a", "2/7/18 12:05 am", "2018-02-07 00:05:00"},
		{"MM/dd/yy hh:mm a", "2/7/18 1:05 PM", "2018-02-07 13:05:00"},
		{"MM/dd/yy KK:mm a", "02/07/68 0:05 PM", "1968-02-07 12:05:00"},
		{"kk:mm", "24:30", "1970-01-01 00:30:00"},
		{"yyyyMMddHHmmssSSS", "20180207151301005", "2018-02-07 15:13:01.005"},
		{"yyyy/DDD", "2020/366", "2020-12-31 00:00:00"},
		{"xxxx-'W'ww-e", "2020-W53-5", "2021-01-01 00:00:00"},
		{"xxxx-'W'ww", "2018-W01", "2018-01-01 00:00:00"},
		{"'at' HH 'o''clock'", "at 15 o'clock", "1970-01-01 15:00:00"},
		{"yyyy-MM-dd HH:mm ZZZ", "2018-07-07 15:13 Europe/Berlin", "2018-07-07 13:13:00"},
		{"yyyy-MM-dd HH:mm z", "2018-07-07 15:13 PST", "2018-07-07 23:13:00"},
		{"y G", "2018 ad", "2018-01-01 00:00:00"},
		{"CC", "21", "2170-01-01 00:00:00"},
		{"millis", "1518033528123", "2018-02-07 19:58:48.123"},
		{"yyyy-MM-dd", "2018-02-30", ""},
		{"yyyy-MM-dd", "2018-02-07 ", ""},
		{"yyyy-MM-dd", "18-2-7x", ""},
		{"HH:mm", "24:00", ""},
		{"HH:mm", "23:60", ""},
		{"yyyy DDD", "2019 366", ""},
		{"millis", "1.5", ""},
	} {
		j, err := parseJoda(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		at, ok := j.parse([]byte(c.text))
		got := ""
		if ok {
			list := fields(t, "t timestamp")
			b := column.NewBatch(list)
			b.Columns[0].AppendInt(at)
			got = show(b.Columns[0], 0)
		}
		if got != c.want {
			t.Errorf("%s of %q: got %q, want %q", c.pattern, c.text, got, c.want)
		}
	}
	for pattern, want := range map[string]string{
		"":                        "serde: a timestamp format is empty",
		"yyyy-MM-bb":              `serde: Illegal pattern component: bb in timestamp format "yyyy-MM-bb"`,
		strings.Repeat("y-", 600): "serde: a timestamp format has more than 1024 characters",
	} {
		if _, err := parseJoda(pattern); err == nil || err.Error() != want {
			t.Errorf("%.20s: error %v, want %s", pattern, err, want)
		}
	}
}
