package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/vfs"
)

// A journal keeps no more than checkpoints need, also where no row ever makes it
// durable.
func TestAJournalThatNobodyWrites(t *testing.T) {
	defer func(n uint64) { aheadSteps = n }(aheadSteps)
	aheadSteps = 200
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory(), others: map[string]Destination{"out": &ledger{}}}
		h := r.open(t, func(o *Options) { o.ExactlyOnce = true })
		a := application1(`CREATE STREAM "OUT" (V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V" FROM "IN_001" WHERE "V" > 1000000;`)
		a.Outputs[0].Destination.ARN = "out"
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		kept := func() (parts, bytes int) {
			j := h.apps[a.ID].journal
			j.mu.Lock()
			defer j.mu.Unlock()
			for _, p := range j.older {
				bytes += len(p.buf)
			}
			return len(j.older), bytes + len(j.buf)
		}
		for i := range 300 {
			put(r.source, 0, i)
			settle(time.Second)
		}
		if parts, bytes := kept(); parts > 3 || bytes > 4000 {
			t.Errorf("%d files and %d bytes are kept after 300 steps", parts, bytes)
		}
		// Time alone makes steps too.
		settle(time.Hour)
		if parts, bytes := kept(); parts > 3 || bytes > 8000 {
			t.Errorf("%d files and %d bytes are kept after an hour without records", parts, bytes)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// What would have to be done again after a crash is bounded: an output that takes
// nothing holds up the others in the end, and all is well when it is back.
func TestAProgramDoesNotGoFarAhead(t *testing.T) {
	defer func(rows uint64) { aheadRows = rows }(aheadRows)
	aheadRows = 40
	synctest.Test(t, func(t *testing.T) {
		hangs, fast := &sinkhole{gate: make(chan struct{})}, &ledger{}
		faults := new(vfs.Faults)
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.WithFaults(vfs.NewMemory(), faults), others: map[string]Destination{"hangs": hangs, "out": fast}}
		h := r.open(t, func(o *Options) { o.ExactlyOnce = true })
		a := application1(passThrough)
		a.Outputs[0].Destination.ARN = "out"
		a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: "OUT", Destination: app.Resource{Kind: app.DeliveryStream, ARN: "hangs"}})
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		n := 0
		more := func(rows int) {
			for range rows {
				put(r.source, 0, n)
				n++
				synctest.Wait()
			}
			settle(15 * time.Second)
		}
		more(100)
		if got := len(fast.copy()); got < 20 || got > 21 {
			t.Errorf("%d rows of 100 are out, two outputs make 40 of 20", got)
		}
		close(hangs.gate)
		settle(time.Minute)
		if got := len(fast.copy()); got != 100 {
			t.Errorf("%d rows of 100 are out", got)
		}
		// A checkpoint is due when half of it is done, not only when its time comes.
		if m := h.apps[a.ID].mark.made; m < 180 {
			t.Errorf("the last checkpoint has %d rows before it", m)
		}
		// No disk for checkpoints: the program waits, without trying all the time.
		faults.FailFrom(vfs.RenameCall, 1, errors.New("no room"))
		more(100)
		if got := len(fast.copy()); got < 110 || got > 121 {
			t.Errorf("%d rows of 200 are out without checkpoints", got)
		}
		if s := h.Status(a.ID); !strings.Contains(s.Problem, "no room") {
			t.Errorf("%+v", s)
		}
		if tries := faults.Count(vfs.RenameCall); tries > 100 {
			t.Errorf("%d attempts", tries)
		}
		faults.Heal()
		settle(time.Minute)
		if got := len(fast.copy()); got != 200 || len(hangs.taken()) != 200 {
			t.Errorf("%d and %d rows of 200 are out", got, len(hangs.taken()))
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Small rows that nobody takes do not fill the memory with what is around them.
func TestAQueueCountsItsItems(t *testing.T) {
	q := newQueue()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	for ; q.bytes < queueBytes; n++ {
		if !q.put(ctx, item{arena: &arena{bytes: []byte("x"), ends: []int{1}}}) {
			t.Fatal("refused")
		}
	}
	if n > queueBytes/itemBytes {
		t.Errorf("%d items", n)
	}
	cancel()
	if q.put(ctx, item{arena: &arena{bytes: []byte("x"), ends: []int{1}}}) {
		t.Error("there is room")
	}
	items, _, _ := q.take(nil, 1<<30, nil)
	if q.release(items); q.bytes != 0 || len(items) != n {
		t.Errorf("%d bytes are left of %d items", q.bytes, len(items))
	}
}

// closing is a source whose shard closes just after it was found empty.
type closing struct {
	*log
	once sync.Once
}

func (c *closing) Read(ctx context.Context, shard uint32, from uint64, n int) (*Page, error) {
	p, err := c.log.Read(ctx, shard, from, n)
	c.once.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed[0] = true
		c.shards = append(c.shards, Shard{Number: 1, Name: "shardId-000000000001", Parents: []uint32{0}})
		close(c.resharded)
		c.resharded = make(chan struct{})
	})
	return p, err
}

// A shard that closes between a look at it and waiting for more is seen to close.
func TestAShardThatClosesBehindALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &closing{log: newLog(7, 1)}
		r := &rig{source: source.log, to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, func(o *Options) {
			o.OpenSource = func(context.Context, *app.Application, app.Resource) (Source, error) { return source, nil }
		})
		if err := h.Start(t.Context(), application1(passThrough)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		put(source.log, 1, 5)
		settle(time.Minute)
		if got := r.to.taken(); !slices.Equal(got, values(5)) {
			t.Errorf("the child's rows are %q", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A source that was gone for a while and is the same one is read on, not again.
func TestASourceThatIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 2), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		put(r.source, 0, 1)
		put(r.source, 1, 2)
		if err := h.Start(t.Context(), application1(passThrough)); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		r.source.remove()
		settle(time.Second)
		r.source.mu.Lock()
		r.source.removed, r.source.gone = false, make(chan struct{})
		r.source.mu.Unlock()
		put(r.source, 0, 3)
		settle(time.Minute)
		if got := r.to.taken(); !slices.Equal(slices.Sorted(slices.Values(got)), values(1, 2, 3)) {
			t.Errorf("%q", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Places in shards that expired while an application stood still are forgotten, and
// records that were lost are told.
func TestShardsThatExpireMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 3), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		a := application1(passThrough)
		for i := range uint32(3) {
			put(r.source, i, int(i))
		}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if err := h.Stop(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		put(r.source, 1, 10, 11, 12)
		r.source.expire(0, -1)
		r.source.expire(1, 3)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if err := h.Stop(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		p, _, _, err := h.load(fileName(a.ID))
		if _, kept := p.Inputs["1.1"].Shards[0]; kept || err != nil || len(p.Inputs["1.1"].Shards) != 2 {
			t.Errorf("%+v, %v", p, err)
		}
		if want := []string{"1.1 InputError shardId-000000000001 of the data stream  has been lost: 2 records are there no more, and were not read before"}; !slices.Equal(r.told, want) {
			t.Errorf("told %q, want %q", r.told, want)
		}
		if got := r.to.taken(); len(got) != 4 || got[3] != values(12)[0] {
			t.Errorf("%q", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A function that hangs keeps the records of its input waiting, and those of no
// other, however many shards it has.
func TestAFunctionThatHangsHoldsUpItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 40), to: &sinkhole{}, files: vfs.NewMemory()}
		r.invoke = func(ctx context.Context, _ app.Resource, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		other := newLog(8, 1)
		h := r.open(t, func(o *Options) {
			good := o.OpenSource
			o.OpenSource = func(ctx context.Context, a *app.Application, res app.Resource) (Source, error) {
				if res.ARN == "other" {
					return other, nil
				}
				return good(ctx, a, res)
			}
		})
		a := application1(`CREATE STREAM "OUT" (V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V" FROM "IN_001"; CREATE PUMP Q AS INSERT INTO "OUT" SELECT STREAM "V" FROM "MORE_001";`)
		more := a.Inputs[0]
		more.ID, more.Streams, more.Source = "1.2", []string{"MORE_001"}, app.Resource{ARN: "other"}
		a.Inputs[0].Processor = &app.Resource{Kind: app.Function}
		a.Inputs = append(a.Inputs, more)
		for i := range uint32(40) {
			put(r.source, i, 1)
		}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		put(other, 0, 7)
		settle(10 * time.Second)
		if got := r.to.taken(); !slices.Equal(got, values(7)) {
			t.Errorf("%q", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// ROWTIME does not go back with the machine's clock, also not over a restart, and
// the status says why it stands still.
func TestAClockThatGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		var mu sync.Mutex
		back := time.Duration(0)
		open := func() *Host {
			return r.open(t, func(o *Options) {
				o.Now = func() time.Time {
					mu.Lock()
					defer mu.Unlock()
					return time.Now().Add(-back)
				}
			})
		}
		a := application1(`CREATE STREAM "OUT" (V INTEGER, AT1 TIMESTAMP); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V", ROWTIME FROM "IN_001";`)
		a.Outputs[0].CSV = true
		h := open()
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Hour)
		put(r.source, 0, 1)
		settle(time.Second)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		back = 30 * time.Minute
		mu.Unlock()
		h = open()
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		put(r.source, 0, 2)
		settle(time.Second)
		if s := h.Status(a.ID); s.Problem != "the machine's clock has gone back: ROWTIME stands still until it is 2000-01-01T01:00:01Z again" {
			t.Errorf("%+v", s)
		}
		settle(time.Hour)
		if s := h.Status(a.ID); s.Problem != "" {
			t.Errorf("%+v", s)
		}
		put(r.source, 0, 3)
		settle(time.Second)
		if got, want := r.to.taken(), []string{"1,2000-01-01 01:00:00.000\n", "2,2000-01-01 01:00:01.000\n", "3,2000-01-01 01:30:02.000\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// mistaken is a destination that fails in the worst way.
type mistaken struct{}

func (mistaken) Write(context.Context, [][]byte) error { panic("a mistake") }

// A mistake behind the program ends its application too, and what it did not
// deliver is delivered when it goes on.
func TestAMistakeOfADestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory(), others: map[string]Destination{"": mistaken{}}}
		h := r.open(t, nil)
		a := application1(passThrough)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		put(r.source, 0, 1)
		settle(time.Minute)
		if s := h.Status(a.ID); s.Running || s.Problem != "an internal error: a mistake" {
			t.Errorf("%+v", s)
		}
		r.others = nil
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if got := r.to.taken(); !slices.Equal(got, values(1)) {
			t.Errorf("%q", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Starts and stops leave nothing behind.
func TestStartsAndStops(t *testing.T) {
	r := &rig{source: newLog(7, 4), to: &sinkhole{}, files: vfs.NewMemory(), others: map[string]Destination{"out": &ledger{}}}
	h := r.open(t, func(o *Options) { o.ExactlyOnce = true })
	a := application1(passThrough)
	a.Outputs[0].Destination.ARN = "out"
	before := 0
	var heap runtime.MemStats
	heapBefore := uint64(0)
	for i := range 1000 {
		a := *a
		a.ID = fmt.Sprintf("app/%d", i%3)
		a.Version = int64(i)
		put(r.source, uint32(i%4), i)
		if err := h.Update(t.Context(), &a); err != nil {
			t.Fatal(err)
		}
		if err := h.Stop(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if i%500 == 99 {
			runtime.GC()
			runtime.ReadMemStats(&heap)
			if before == 0 {
				before, heapBefore = runtime.NumGoroutine(), heap.HeapAlloc
			}
			if n := runtime.NumGoroutine(); n > before+4 {
				t.Fatalf("%d goroutines after %d starts, %d before", n, i, before)
			}
			if heap.HeapAlloc > heapBefore+16<<20 {
				t.Fatalf("%d bytes after %d starts, %d before", heap.HeapAlloc, i, heapBefore)
			}
		}
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
