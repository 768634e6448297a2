package cli

import "testing"

// Programs of the demonstrations ask for stocks of one sector.
func TestEverySectorHasStocks(t *testing.T) {
	for seed := range uint64(200) {
		seen := map[string]bool{}
		for _, s := range newTicker(seed).stocks {
			seen[s.Sector] = true
		}
		if len(seen) != len(sectors) {
			t.Errorf("seed %d has stocks of %d sectors, not %d", seed, len(seen), len(sectors))
		}
	}
}
