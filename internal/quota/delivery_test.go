package quota

import (
	"testing"
	"time"
)

func TestDeliveryAdmitsAFront(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	limits := Published()
	limits.Delivery = DeliveryLimits{Calls: 2, Records: 5, Bytes: 2_000_000}
	of := func(sizes ...int) [][]byte {
		records := make([][]byte, len(sizes))
		for i, n := range sizes {
			records[i] = make([]byte, n)
		}
		return records
	}
	for _, enforce := range []bool{true, false} {
		now = time.Unix(1_000_000, 0)
		l := New(Options{Enforce: enforce, Limits: limits, Now: func() time.Time { return now }})
		step := func(name string, id uint64, records [][]byte, want int) {
			t.Helper()
			if !enforce {
				want = len(records)
			}
			if got := l.Delivery(id, records); got != want {
				t.Errorf("enforce %v: %s: %d, want %d", enforce, name, got, want)
			}
		}
		step("within all", 1, of(1, 1, 1), 3)
		step("records run out", 1, of(1, 1, 1, 1), 2)
		step("calls run out", 1, of(1), 0)
		step("another stream", 2, of(1, 1), 2)
		now = now.Add(time.Second)
		step("bytes run out", 1, of(900_000, 900_000, 900_000), 2)
		step("an empty batch of a stream without calls left", 2, of(), 0)
		now = now.Add(time.Hour)
		step("full again", 1, of(1, 1, 1, 1, 1), 5)
		// The largest record always fits into a full bucket.
		now = now.Add(time.Hour)
		step("the largest record", 1, of(1_024_000), 1)
		c := l.Counts()[Deliver]
		if c.Exceeded != 2+1+1 {
			t.Errorf("enforce %v: %+v", enforce, c)
		}
		now = now.Add(time.Hour)
		l.Sweep()
		if n := l.Buckets(); n != 0 {
			t.Errorf("%d buckets are left", n)
		}
	}
}
