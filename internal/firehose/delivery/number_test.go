package delivery

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

// Numbers are what the picture in number.go says.
func TestNumbersCarryTheirParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 2000 {
		created, index := rng.Int64N(1<<34), rng.Uint64()>>1>>rng.IntN(60)
		arrival := rng.Int64N(1<<35) * 1000
		want := new(big.Int).Lsh(big.NewInt(2), 184)
		part := func(n uint64, shift uint) { want.Or(want, new(big.Int).Lsh(new(big.Int).SetUint64(n), shift)) }
		part(uint64(created), 148)
		part(index, 80)
		part(uint64(max(created, arrival/1000)), 36)
		part(2, 0)
		if got := number(created, index, arrival); got != want.String() || len(got) != numberDigits {
			t.Fatalf("number(%d, %d, %d) is %s, want %s", created, index, arrival, got, want)
		}
	}
}
