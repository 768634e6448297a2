package streams

import (
	"crypto/md5"
	"math/big"
	"math/rand/v2"
	"testing"
)

func bigHash(h hashKey) *big.Int {
	n := new(big.Int).SetUint64(h.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(h.lo))
}

func TestHashKeyAgainstBigIntegers(t *testing.T) {
	space := new(big.Int).Lsh(big.NewInt(1), 128)
	r := rand.New(rand.NewPCG(3, 4))
	random := func() hashKey {
		return hashKey{r.Uint64() >> r.IntN(65), r.Uint64() >> r.IntN(65)}
	}
	for range 20_000 {
		a, b := random(), random()
		x, y := bigHash(a), bigHash(b)
		if a.String() != x.String() {
			t.Fatalf("%#v = %s, want %v", a, a, x)
		}
		if back, ok := parseHashKey(x.String()); !ok || back != a {
			t.Fatalf("parse %v = %v, %v", x, back, ok)
		}
		if a.compare(b) != x.Cmp(y) || a.less(b) != (x.Cmp(y) < 0) {
			t.Fatalf("%v against %v: %d", x, y, a.compare(b))
		}
		if sum := new(big.Int).Add(x, y); bigHash(a.add(b)).Cmp(sum.Mod(sum, space)) != 0 {
			t.Fatalf("%v + %v = %v", x, y, a.add(b))
		}
		if diff := new(big.Int).Sub(x, y); bigHash(a.sub(b)).Cmp(diff.Mod(diff, space)) != 0 {
			t.Fatalf("%v - %v = %v", x, y, a.sub(b))
		}
	}
}

func TestParseHashKeyBounds(t *testing.T) {
	for text, ok := range map[string]bool{
		"0": true, "1": true, "340282366920938463463374607431768211455": true,
		"340282366920938463463374607431768211456": false, "999999999999999999999999999999999999999": false,
		"1000000000000000000000000000000000000000": false, "": false, "00": false, "01": false, "-1": false, "+1": false, "1e3": false, " 1": false,
	} {
		if _, got := parseHashKey(text); got != ok {
			t.Errorf("parse %q: %v, want %v", text, got, ok)
		}
	}
}

func TestUniformRangesTileTheSpace(t *testing.T) {
	space := new(big.Int).Lsh(big.NewInt(1), 128)
	for _, n := range []uint32{1, 2, 3, 4, 7, 10, 1000, 99_999, 100_000} {
		width := new(big.Int).Div(space, big.NewInt(int64(n)))
		next := hashKey{}
		for i := range n {
			start, end := uniformRange(i, n)
			if start != next {
				t.Fatalf("n=%d: shard %d starts at %v, want %v", n, i, start, next)
			}
			if i+1 < n && bigHash(after(end).sub(start)).Cmp(width) != 0 {
				t.Fatalf("n=%d: shard %d is not %v wide", n, i, width)
			}
			next = after(end)
		}
		if next != (hashKey{}) {
			t.Fatalf("n=%d: the last shard ends before the space does", n)
		}
	}
}

func TestHashOfPartitionKeyIsItsMD5(t *testing.T) {
	for _, key := range []string{"a", "", "partitionKey-ü", string(make([]byte, 256))} {
		sum := md5.Sum([]byte(key))
		if want := new(big.Int).SetBytes(sum[:]); bigHash(hashOf(key)).Cmp(want) != 0 {
			t.Errorf("hash of %q = %v, want %v", key, hashOf(key), want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { hashOf("partition key") }); n != 0 {
		t.Errorf("hashing allocates %v times", n)
	}
}

func FuzzHashKey(f *testing.F) {
	f.Add("340282366920938463463374607431768211455")
	f.Fuzz(func(t *testing.T, text string) {
		if h, ok := parseHashKey(text); ok && h.String() != text {
			t.Fatalf("%q reads as %v", text, h)
		}
	})
}
