package delivery

import (
	"fmt"
	"runtime"
	"testing"
)

// A delivery stream that nothing happens to costs a goroutine and little more.
func TestIdleDeliveryStreamsCostLittle(t *testing.T) {
	const n = 1000
	r := newRig(t, nil)
	r.start()
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before, goroutines := used(), runtime.NumGoroutine()
	for i := range n {
		p := newPeer()
		d := define(p)
		d.ID = fmt.Sprint("d", i)
		if err := r.engine.Apply(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		// Each has delivered something: what that took is given back.
		r.put(d.ID, "record")
		r.flush(d.ID)
	}
	if each := (int64(used()) - int64(before)) / n; each > 24<<10 {
		t.Errorf("%d bytes for each", each)
	} else {
		t.Logf("%d bytes for each", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > n+n/10 {
		t.Errorf("%d goroutines for %d delivery streams", more, n)
	}
}
