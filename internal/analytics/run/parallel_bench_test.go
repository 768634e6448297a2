//go:build unix

package run_test

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// loaded is an application with rows to insert, so many at a time, of 10,000 keys.
func loaded(b *testing.B, program string, workers, batch int) (a *run.Application, insert func()) {
	a = opened(b, programs[program], run.Options{Workers: workers})
	if err := a.Tap("OUT", func(*run.Batch) {}); err != nil {
		b.Fatal(err)
	}
	null := plan.Value{Null: true}
	names := names(10_000)
	perMilli := int64(100)
	if program == "join" {
		perMilli = 2 // a row meets about one of the other side
	}
	key, n, next := uint32(1), int64(0), 0
	var batches []*run.Batch
	for range max(2, 50_000/batch) {
		rows := run.NewRows(append(slices.Clone(sensor), plan.HiddenColumns...))
		for range batch {
			key = key*1664525 + 1013904223
			rows.Add(0, plan.Value{S: names[int(key>>8)%len(names)]}, plan.Value{S: string("ab"[key>>30&1])}, plan.Value{I: int64(key >> 20)}, plan.Value{F: float64(key>>16&127) + 0.5}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
		}
		batches = append(batches, rows.Batch())
	}
	return a, func() {
		batch := batches[next%len(batches)]
		next++
		for r := range batch.Time {
			batch.Time[r] = n / perMilli
			n++
		}
		if err := a.Insert("IN", batch); err != nil {
			b.Fatal(err)
		}
	}
}

// threadSeconds is what the calling thread has used.
func threadSeconds(b testing.TB) float64 {
	const thisThread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(thisThread, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// BenchmarkWorkers runs the same rows through one worker and through several, in
// turn. Neighbours on the machine would decide how long several take, so their
// parts are done one after the other and measured: speed-up is the processor time
// of one worker over that of the longest way through the work of several, cpu-ratio
// the processor time of several over that of one. Waking workers and waiting for
// them, some microseconds a batch, is not in it.
func BenchmarkWorkers(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, program := range []string{"tumbling", "sliding range", "filter", "join"} {
		for _, workers := range []int{2, 8} {
			for _, batch := range []int{1, 1000, 10000} {
				b.Run(fmt.Sprintf("program=%s/workers=%d/batch=%d", program, workers, batch), func(b *testing.B) {
					var used [2]float64
					saved := 0.0
					_, one := loaded(b, program, 1, batch)
					a, several := loaded(b, program, workers, batch)
					a.Observe(func(n int, part func(i int)) {
						sum, longest := 0.0, 0.0
						for i := range n {
							at := threadSeconds(b)
							part(i)
							took := threadSeconds(b) - at
							sum, longest = sum+took, max(longest, took)
						}
						saved += sum - longest
					})
					rounds := max(1, 20_000/batch)
					b.ResetTimer()
					for range b.N {
						for i, insert := range []func(){one, several} {
							at := threadSeconds(b)
							for range rounds {
								insert()
							}
							used[i] += threadSeconds(b) - at
						}
					}
					b.ReportMetric(used[0]/(used[1]-saved), "speed-up")
					b.ReportMetric(used[1]/used[0], "cpu-ratio")
					b.ReportMetric(float64(b.N*rounds*batch)/used[0]/1e6, "Mrows/cpu-s")
				})
			}
		}
	}
}

// BenchmarkSnapshot has a million keys in a window.
func BenchmarkSnapshot(b *testing.B) {
	for _, workers := range []int{1, 2} {
		p, err := plan.Compile(programs["tumbling minute"], plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{})
		if err != nil {
			b.Fatal(err)
		}
		open := func() *run.Application {
			return run.New(p, run.Options{Seed: 1, Workers: workers, Now: func() time.Time { return time.UnixMilli(0) }})
		}
		a := open()
		a.Start()
		null := plan.Value{Null: true}
		const keys = 1_000_000
		for from := 0; from < keys; from += 10_000 {
			rows := run.NewRows(append(slices.Clone(sensor), plan.HiddenColumns...))
			for i := range 10_000 {
				rows.Add(int64(from/100), plan.Value{S: fmt.Sprintf("sensor-%07d", from+i)}, plan.Value{S: "a"}, plan.Value{I: 1}, plan.Value{F: float64(i) * 0.37}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
			}
			if err := a.Insert("IN", rows.Batch()); err != nil {
				b.Fatal(err)
			}
		}
		var size int64
		b.Run(fmt.Sprintf("freeze/workers=%d", workers), func(b *testing.B) {
			cpu := processorSeconds(b)
			for range b.N {
				size = a.Freeze().Size()
			}
			b.ReportMetric((processorSeconds(b)-cpu)/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(size), "bytes")
		})
		snapshot := a.Snapshot(nil)
		b.Run(fmt.Sprintf("restore/workers=%d", workers), func(b *testing.B) {
			cpu := processorSeconds(b)
			for range b.N {
				if _, err := open().Restore(snapshot); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((processorSeconds(b)-cpu)/float64(b.N), "cpu-s/op")
		})
	}
}
