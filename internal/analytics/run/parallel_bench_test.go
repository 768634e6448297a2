package run_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// loaded is an application with rows to insert, so many at a time, of 10,000 keys.
func loaded(b *testing.B, program string, workers, batch int) (insert func()) {
	p, err := plan.Compile(programs[program], plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{Extensions: true})
	if err != nil {
		b.Fatal(err)
	}
	a := run.New(p, run.Options{Seed: 1, Workers: workers, Now: func() time.Time { return time.UnixMilli(0) }})
	a.Start()
	if err := a.Tap("OUT", func(*run.Batch) {}); err != nil {
		b.Fatal(err)
	}
	null := plan.Value{Null: true}
	names := names(10_000)
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
	return func() {
		batch := batches[next%len(batches)]
		next++
		for r := range batch.Time {
			batch.Time[r] = n / 100
			n++
		}
		if err := a.Insert("IN", batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWorkers runs the same rows through one worker and through two, in turn,
// and says how much sooner two are done and how much more processor time they
// take. Neighbours disturb the first more than the second.
func BenchmarkWorkers(b *testing.B) {
	for _, program := range []string{"tumbling", "sliding range", "filter", "join", "forest"} {
		for _, batch := range []int{1, 1000, 10000} {
			b.Run(fmt.Sprintf("program=%s/batch=%d", program, batch), func(b *testing.B) {
				var wall [2]time.Duration
				var used [2]float64
				inserts := [2]func(){loaded(b, program, 1, batch), loaded(b, program, 2, batch)}
				rounds := max(1, 20_000/batch)
				b.ResetTimer()
				for range b.N {
					for i, insert := range inserts {
						cpu, at := processorSeconds(b), time.Now()
						for range rounds {
							insert()
						}
						wall[i] += time.Since(at)
						used[i] += processorSeconds(b) - cpu
					}
				}
				b.ReportMetric(wall[0].Seconds()/wall[1].Seconds(), "speed-up")
				b.ReportMetric(used[1]/used[0], "cpu-ratio")
				b.ReportMetric(float64(b.N*rounds*batch)/used[0]/1e6, "Mrows/cpu-s")
			})
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
