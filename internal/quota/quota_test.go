package quota

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWriteRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		admitted := func() (n int) {
			for l.Write(1, 10, 1<<20) {
				n++
			}
			return n
		}
		if n := admitted(); n != 1000 {
			t.Errorf("at once: %d records, want 1000", n)
		}
		time.Sleep(500 * time.Millisecond)
		if n := admitted(); n != 500 {
			t.Errorf("after half a second: %d records, want 500", n)
		}
		if !l.Write(2, 10, 1<<20) {
			t.Error("another shard is refused")
		}
		time.Sleep(time.Hour)
		if n := admitted(); n != 1000 {
			t.Errorf("after an hour: %d records, want 1000", n)
		}
	})
}

func TestWriteBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		const largest = 10 << 20
		if !l.Write(1, largest, largest) {
			t.Fatal("the largest record of a stream is refused by a full bucket")
		}
		if l.Write(1, 1, largest) {
			t.Error("a byte more is admitted")
		}
		time.Sleep(time.Second)
		if !l.Write(1, 1<<20, largest) {
			t.Error("a second's bytes are refused after a second")
		}
		if l.Write(2, 1<<20+1, 1<<20) {
			t.Error("more than the bucket holds is admitted")
		}
	})
}

// Refused work costs nothing: what is too large now does not delay what fits.
func TestRefusalsAreFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		if !l.Write(1, 1<<19, 1<<20) {
			t.Fatal("half a bucket is refused")
		}
		for range 10_000 {
			if l.Write(1, 1<<20, 1<<20) {
				t.Fatal("a bucket and a half is admitted")
			}
		}
		if !l.Write(1, 1<<19, 1<<20) {
			t.Error("the other half is refused")
		}
	})
}

func TestReadDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		if !l.Read(1) {
			t.Fatal("the first call is refused")
		}
		l.ReadBytes(1, 10<<20)
		for range 3 {
			time.Sleep(time.Second)
			if l.Read(1) {
				t.Fatal("a call is admitted before the last one's bytes are paid for")
			}
		}
		time.Sleep(1001 * time.Millisecond)
		if !l.Read(1) {
			t.Error("a call is refused after the debt is paid")
		}
		calls := 0
		for l.Read(2) {
			calls++
		}
		if calls != 5 {
			t.Errorf("%d calls at once, want 5", calls)
		}
	})
}

func TestOtherKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		for _, c := range []struct {
			name string
			want int
			f    func() bool
		}{
			{"iterators", 5, func() bool { return l.Iterator(1) }},
			{"subscribes", 1, func() bool { return l.Subscribe("consumer", 1) }},
			{"another shard of the consumer", 1, func() bool { return l.Subscribe("consumer", 2) }},
			{"CreateStream", 5, func() bool { return l.Call("1", "r", "CreateStream", "a") }},
			{"CreateStream elsewhere", 5, func() bool { return l.Call("1", "s", "CreateStream", "a") }},
			{"DescribeLimits", 1, func() bool { return l.Call("1", "r", "DescribeLimits", "") }},
			{"ListStreamConsumers of one stream", 5, func() bool { return l.Call("1", "r", "ListStreamConsumers", "a") }},
			{"ListStreamConsumers of another", 5, func() bool { return l.Call("1", "r", "ListStreamConsumers", "b") }},
		} {
			n := 0
			for n < 10_000 && c.f() {
				n++
			}
			if n != c.want {
				t.Errorf("%s: %d at once, want %d", c.name, n, c.want)
			}
		}
		for range 10_000 {
			if !l.Call("1", "r", "PutRecord", "a") {
				t.Fatal("an operation without a limit is refused")
			}
		}
	})
}

func TestFanOutIsSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		start, sent := time.Now(), 0
		for sent < 20<<20 {
			time.Sleep(l.FanOut("c", 1, 1<<20))
			sent += 1 << 20
		}
		if took := time.Since(start); took != 9*time.Second {
			t.Errorf("20 MiB took %v, want 9s: 2 MiB a second after a burst of 2 MiB", took)
		}
	})
}

// Without enforcement everything is admitted, counted, and leaves no debt.
func TestCountedWithoutEnforcement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{})
		for range 1500 {
			if !l.Write(1, 10, 1<<20) {
				t.Fatal("refused")
			}
		}
		if got, want := l.Counts()[Write], (Count{Allowed: 1000, Exceeded: 500}); got != want {
			t.Errorf("counts = %+v, want %+v", got, want)
		}
		time.Sleep(time.Second)
		l.Write(1, 10, 1<<20)
		if got := l.Counts()[Write].Exceeded; got != 500 {
			t.Errorf("%d exceeded after a second of rest, want 500", got)
		}
		if l.FanOut("c", 1, 1<<30) != 0 {
			t.Error("fan-out is slowed")
		}
	})
}

func TestCountedTogetherAsOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, all := New(Options{}), New(Options{})
		for round := range 20 {
			var sizes []int
			for i := range 100 {
				sizes = append(sizes, (i*7919+round*104729)%60_000)
			}
			for _, n := range sizes {
				one.Write(1, n, 1<<20)
			}
			all.CountWrites(1, slices.Values(sizes), 1<<20)
			if one, all := one.Counts()[Write], all.Counts()[Write]; one != all {
				t.Fatalf("round %d: counted %+v together, %+v one by one", round, all, one)
			}
			time.Sleep(300 * time.Millisecond)
		}
		if c := all.Counts()[Write]; c.Allowed == 0 || c.Exceeded == 0 {
			t.Errorf("%+v: the test meets one case only", c)
		}
	})
}

func TestIdleBucketsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Enforce: true})
		for i := range uint64(100_000) {
			l.Write(i, 100, 1<<20)
		}
		if n := l.Buckets(); n != 100_000 {
			t.Errorf("%d buckets in use, want 100000", n)
		}
		time.Sleep(time.Second)
		l.Sweep()
		if n := l.Buckets(); n != 0 {
			t.Errorf("%d buckets are left when all are full", n)
		}
		// Insertions alone keep the number bounded as well.
		for i := range uint64(1_000_000) {
			l.Write(i, 1, 1<<20)
			time.Sleep(100 * time.Microsecond)
		}
		if n := l.Buckets(); n > 30_000 {
			t.Errorf("%d buckets are kept, and about 10 are not full", n)
		}
	})
}

func TestNamesCannotFillMemory(t *testing.T) {
	now := time.Unix(0, 0)
	l := New(Options{Enforce: true, Now: func() time.Time { return now }, Limits: Limits{Control: map[string]ControlLimit{"Op": {1, PerStream}}}})
	for i := range partitions*maxBuckets + 200_000 {
		l.Call("1", "r", "Op", fmt.Sprint(i))
		if i%maxBuckets == 0 {
			now = now.Add(time.Second)
		}
	}
	if n := l.Buckets(); n > partitions*maxBuckets {
		t.Errorf("%d buckets", n)
	}
}

// Whatever the pattern of calls, no window of time admits more than the rate
// over it plus one burst, and a caller below the rate is never refused.
func TestRateHolds(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			l := New(Options{Enforce: true})
			type event struct {
				at    time.Time
				bytes int
			}
			var admitted []event
			for range 3000 {
				time.Sleep(time.Duration(random.ExpFloat64() * float64(20*time.Millisecond)))
				size := random.IntN(100_000)
				if l.Write(1, size, 1<<20) {
					admitted = append(admitted, event{time.Now(), size})
				}
				time.Sleep(100 * time.Millisecond)
				if !l.Write(2, 100_000, 1<<20) {
					t.Fatalf("seed %d: a caller below the rate is refused", seed)
				}
			}
			for i := 0; i < len(admitted); i += 37 {
				total := 0
				for _, e := range admitted[i:] {
					total += e.bytes
					if bound := float64(1<<20)*(1+e.at.Sub(admitted[i].at).Seconds()) + 1; float64(total) > bound {
						t.Fatalf("seed %d: %d bytes in %v", seed, total, e.at.Sub(admitted[i].at))
					}
				}
			}
		})
	}
}

func TestConcurrentCallers(t *testing.T) {
	now := time.Unix(1000, 0)
	l := New(Options{Enforce: true, Now: func() time.Time { return now }})
	var group sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 8 {
		group.Go(func() {
			n := 0
			for range 1000 {
				if l.Write(1, 1, 1<<20) {
					n++
				}
				l.Counts()
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	group.Wait()
	if total != 1000 {
		t.Errorf("%d records admitted together, want 1000", total)
	}
}

func BenchmarkCountWrites(b *testing.B) {
	l := New(Options{})
	sizes := make([]int, 32)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.CountWrites(uint64(i&1023), slices.Values(sizes), 1<<20)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(sizes)), "ns/record")
}

func BenchmarkWrite(b *testing.B) {
	for _, enforce := range []bool{false, true} {
		b.Run(fmt.Sprintf("enforce=%v", enforce), func(b *testing.B) {
			l := New(Options{Enforce: enforce})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.Write(uint64(i&1023), 1024, 1<<20)
			}
		})
	}
}
