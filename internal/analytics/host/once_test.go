package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/vfs"
)

// ledger is a destination that keeps rows under keys. It fails as it likes: before
// it stores, after it has stored, and in the middle.
type ledger struct {
	mu     sync.Mutex
	rows   []entry
	moods  *rand.Rand // nil is a good one
	stored func()     // called with every write, before it returns
	scans  int
}

type entry struct {
	key, row string
	at       time.Time
}

func (l *ledger) Write(context.Context, [][]byte) error { return errors.New("not without keys") }

func (l *ledger) WriteKeyed(_ context.Context, keys []string, rows [][]byte) error {
	l.mu.Lock()
	mood, n := 9, len(rows)
	if l.moods != nil {
		mood, n = l.moods.IntN(8), l.moods.IntN(len(rows)+1)
	}
	if mood == 0 {
		l.mu.Unlock()
		return errors.New("not now")
	}
	if mood > 2 {
		n = len(rows)
	}
	for i := range n {
		l.rows = append(l.rows, entry{keys[i], string(rows[i]), time.Now()})
	}
	l.mu.Unlock()
	if l.stored != nil {
		l.stored()
	}
	switch mood {
	case 1:
		return errors.New("nobody knows what became of it")
	case 2:
		e := &PartlyError{Err: errors.New("too fast")}
		for i := n; i < len(rows); i++ {
			e.Left = append(e.Left, i)
		}
		if len(e.Left) > 0 {
			return e
		}
	}
	return nil
}

func (l *ledger) Keys(_ context.Context, since time.Time, f func(key []byte)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scans++
	if l.moods != nil && l.moods.IntN(4) == 0 {
		return errors.New("not now")
	}
	for _, e := range l.rows {
		if !e.at.Before(since) {
			f([]byte(e.key))
		}
	}
	return nil
}

func (l *ledger) copy() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.rows)
}

func (l *ledger) texts() (rows []string) {
	for _, e := range l.copy() {
		rows = append(rows, e.row)
	}
	return rows
}

const onceCode = `CREATE STREAM "OUT" (V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V" FROM "IN_001";
CREATE STREAM "SUMS" (K VARCHAR(8), N BIGINT, S BIGINT);
CREATE PUMP Q AS INSERT INTO "SUMS" SELECT STREAM "K", COUNT(*), SUM(CAST("V" AS BIGINT)) FROM "IN_001" GROUP BY "K", STEP("IN_001".ROWTIME BY INTERVAL '3' SECOND);`

func onceApplication() *app.Application {
	a := application1(onceCode)
	a.Outputs[0].Destination.ARN = "out"
	a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: "SUMS", Destination: app.Resource{ARN: "sums"}})
	return a
}

// Power cuts at any moment, of the files' and of the destinations', and
// destinations that fail in every way: every row is there once, and the rows of
// windows, which depend on when the program saw its records, add up.
func TestRowsAreThereOnce(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 5))
				memory := vfs.NewMemory()
				r := &rig{source: newLog(7, 2), to: &sinkhole{}, files: memory}
				out, sums := &ledger{}, &ledger{}
				r.others = map[string]Destination{"out": out, "sums": sums}
				n, cuts, damages := 0, 0, 0
				for range 6 {
					var mu sync.Mutex
					var left *vfs.Memory
					var outThen, sumsThen []entry
					steps, stop := 0, 1+rng.IntN(120)
					under, cut := memory, rng.Uint64()
					moment := func() {
						mu.Lock()
						defer mu.Unlock()
						if steps++; steps == stop {
							left = under.CrashClone(cut)
							outThen, sumsThen = out.copy(), sums.copy()
						}
					}
					faults := &vfs.Faults{OnSync: func(bool, vfs.Kind, string) { moment() }}
					out.stored, sums.stored = moment, moment
					out.moods, sums.moods = rand.New(rand.NewPCG(rng.Uint64(), 6)), rand.New(rand.NewPCG(rng.Uint64(), 7))
					r.files = vfs.WithFaults(memory, faults)
					h := r.open(t, func(o *Options) {
						o.ExactlyOnce = true
						o.CheckpointEvery = time.Duration(1+rng.IntN(10)) * time.Second
					})
					if err := h.Start(t.Context(), onceApplication()); err != nil {
						t.Fatal(err)
					}
					for range 10 + rng.IntN(40) {
						open := slices.DeleteFunc(slices.Clone(r.source.shards), func(s Shard) bool { return r.source.closed[s.Number] })
						r.source.put(open[rng.IntN(len(open))].Number, fmt.Sprintf(`{"k":"%c","v":%d}`, 'a'+rune(rng.IntN(3)), n))
						n++
						settle(time.Duration(rng.IntN(700)) * time.Millisecond)
						if rng.IntN(30) == 0 && len(r.source.shards) < 12 {
							r.source.split(uint32(len(r.source.shards) - 1))
						}
					}
					if err := h.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					mu.Lock()
					if left != nil { // what has happened since has not
						cuts++
						memory = left
						out.rows, sums.rows = outThen, sumsThen
					}
					mu.Unlock()
					// The disk may also spoil a checkpoint; there is one before it.
					name := fileName("app/1")
					if _, err := memory.Stat(name + previousSuffix); err == nil && rng.IntN(4) == 0 {
						if raw, err := vfs.ReadFile(memory, name, 1<<20); err == nil {
							raw[rng.IntN(len(raw))] ^= 1
							if err := vfs.WriteFile(memory, name, raw); err != nil {
								t.Fatal(err)
							}
							damages++
						}
					}
				}
				out.stored, sums.stored, out.moods, sums.moods = nil, nil, nil, nil
				r.files = memory
				h := r.open(t, func(o *Options) { o.ExactlyOnce = true })
				if err := h.Start(t.Context(), onceApplication()); err != nil {
					t.Fatal(err)
				}
				settle(time.Minute)
				if err := h.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				seen := map[string]int{}
				for _, row := range out.texts() {
					seen[row]++
				}
				for row, times := range seen {
					if times != 1 {
						t.Errorf("%d times %q", times, row)
					}
				}
				if len(seen) != n {
					t.Errorf("%d different rows of %d records", len(seen), n)
				}
				count, sum := 0, 0
				for _, row := range sums.texts() {
					var v struct{ N, S int }
					if err := json.Unmarshal([]byte(row), &v); err != nil {
						t.Fatal(err)
					}
					count, sum = count+v.N, sum+v.S
				}
				if count != n || sum != n*(n-1)/2 {
					t.Errorf("windows count %d records of %d, and their sum is %d, want %d", count, n, sum, n*(n-1)/2)
				}
				for _, told := range r.told {
					if strings.Contains(told, "anew") || strings.Contains(told, "repeated") {
						t.Error(told)
					}
					if strings.Contains(told, "damaged") {
						damages--
					}
				}
				if damages != 0 {
					t.Errorf("%d damages were not told", damages)
				}
				t.Logf("%d records, %d power cuts", n, cuts)
				// Journals are kept as far as the checkpoint before the last one.
				p, _, ok, err := h.load(fileName("app/1") + previousSuffix)
				numbers, listErr := journals(memory, fileName("app/1"))
				if !ok || err != nil || listErr != nil || len(numbers) == 0 || numbers[0] < p.Journal.File {
					t.Errorf("the journals %d are left, %v; the checkpoint before is %+v, %v, %v", numbers, listErr, p.Journal, ok, err)
				}
			})
		})
	}
}

// Without the option the same cuts bring rows twice: the test above tests
// something.
func TestRowsMayComeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, once := range []bool{false, true} {
			memory := vfs.NewMemory()
			r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: memory}
			out := &ledger{}
			sink := &sinkhole{}
			r.others = map[string]Destination{"out": sink, "sums": sink}
			if once {
				r.others = map[string]Destination{"out": out, "sums": &ledger{}}
			}
			h := r.open(t, func(o *Options) { o.ExactlyOnce, o.CheckpointEvery = once, time.Hour })
			if err := h.Start(t.Context(), onceApplication()); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			put(r.source, 0, 1, 2)
			settle(time.Second)
			cut := memory.CrashClone(1)
			var got []string
			if once {
				got = out.texts()
			} else {
				got = sink.taken()
			}
			if !slices.Equal(got, values(1, 2)) {
				t.Errorf("%q before the cut", got)
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.files = cut
			if once {
				out.rows = out.rows[:2]
			}
			h = r.open(t, func(o *Options) { o.ExactlyOnce = once })
			if err := h.Start(t.Context(), onceApplication()); err != nil {
				t.Fatal(err)
			}
			put(r.source, 0, 3)
			settle(time.Second)
			seen := map[string]int{}
			if once {
				got = out.texts()
			} else {
				got = sink.taken()
			}
			for _, row := range got {
				seen[row]++
			}
			if twice := slices.ContainsFunc(slices.Collect(maps.Values(seen)), func(n int) bool { return n > 1 }); twice == once {
				t.Errorf("once is %v: %q", once, got)
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What cannot be repeated, because its records are there no more, is told; what
// is there is read on, nothing is lost, and the next crash is repeatable again.
func TestStepsThatCannotBeRepeated(t *testing.T) {
	for _, gone := range []string{"records", "stream"} {
		t.Run(gone, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := vfs.NewMemory()
				r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: memory}
				out := &ledger{}
				r.others = map[string]Destination{"out": out, "sums": &ledger{}}
				start := func() *Host {
					h := r.open(t, func(o *Options) { o.ExactlyOnce, o.CheckpointEvery = true, time.Hour })
					if err := h.Start(t.Context(), onceApplication()); err != nil {
						t.Fatal(err)
					}
					settle(time.Second)
					return h
				}
				crash := func(h *Host) {
					memory = memory.CrashClone(1)
					rows := out.copy()
					if err := h.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					r.files, out.rows = memory, rows
				}
				h := start()
				put(r.source, 0, 1)
				settle(time.Second)
				put(r.source, 0, 2)
				settle(time.Second)
				crash(h)
				if gone == "records" {
					r.source.expire(0, 1)
					put(r.source, 0, 3)
				} else {
					r.source = newLog(8, 1)
					put(r.source, 0, 3)
				}
				h = start()
				if told := strings.Join(r.told, "\n"); !strings.Contains(told, "cannot be repeated") {
					t.Errorf("told %q", told)
				}
				put(r.source, 0, 4)
				settle(time.Second)
				crash(h)
				h = start()
				put(r.source, 0, 5)
				settle(time.Second)
				seen := map[string]int{}
				for _, row := range out.texts() {
					seen[row]++
				}
				for i, row := range values(1, 2, 3, 4, 5) {
					if n := seen[row]; n < 1 || n > 1 && i != 1 || gone == "stream" && n != 1 {
						t.Errorf("%d times %q", n, row)
					}
				}
				if err := h.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestJournals(t *testing.T) {
	steps := []step{
		{kind: stepStart, now: 1},
		{kind: stepAdvance, now: -1},
		{kind: stepInsert, now: 5, input: "1.1", shardName: "shardId-000000000001", source: 1 << 63, shard: 1, first: 2, next: 9, records: 7, end: true, moves: true, forget: []uint32{0, 1 << 31}},
	}
	for _, s := range steps {
		got, err := parseStep(s.append(nil))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(s) {
			t.Errorf("%+v, %v, want %+v", got, err, s)
		}
	}
	// Every cut of the files leaves whole steps, and writing goes on behind them.
	faults := new(vfs.Faults)
	memory := vfs.NewMemory()
	files := vfs.WithFaults(memory, faults)
	j := newJournal(files, "a", 7, 1, 0)
	n := uint64(0)
	rng := rand.New(rand.NewPCG(1, 1))
	var clones []*vfs.Memory
	var durable []uint64
	for range 200 {
		for range rng.IntN(4) {
			j.append(&step{kind: stepAdvance, now: int64(n)})
			n++
		}
		if rng.IntN(10) == 0 {
			j.rotate()
		}
		if rng.IntN(5) == 0 {
			faults.Fail(vfs.AnyCall, 1+rng.IntN(3), errors.New("no room"))
		}
		if j.sync(n) == nil && j.durable != n {
			t.Fatalf("%d steps are durable of %d", j.durable, n)
		}
		faults.Heal()
		clones, durable = append(clones, memory.CrashClone(rng.Uint64())), append(durable, j.durable)
	}
	j.close()
	for i, c := range clones {
		got, next, err := readJournals(c, "a", chain{Epoch: 7, File: 1})
		if err != nil || uint64(len(got)) < durable[i] {
			t.Fatalf("cut %d: %d steps, %v; %d were durable", i, len(got), err, durable[i])
		}
		for k, s := range got {
			if s.now != int64(k) {
				t.Fatalf("cut %d: step %d is %+v", i, k, s)
			}
		}
		j := newJournal(c, "a", 7, next, uint64(len(got)))
		j.append(&step{kind: stepAdvance, now: int64(len(got))})
		if err := j.sync(uint64(len(got)) + 1); err != nil {
			t.Fatal(err)
		}
		j.close()
		if more, _, err := readJournals(c.CrashClone(1), "a", chain{Epoch: 7, File: 1}); err != nil || len(more) != len(got)+1 {
			t.Fatalf("cut %d: %d steps, %v, want %d", i, len(more), err, len(got)+1)
		}
	}
}

func FuzzParseStep(f *testing.F) {
	s := step{kind: stepInsert, now: 5, input: "1.1", shardName: "s", source: 7, first: 2, next: 9, records: 7, end: true, forget: []uint32{3}}
	f.Add(s.append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := parseStep(raw); err == nil {
			if again, err := parseStep(s.append(nil)); err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
				t.Errorf("%+v, %v, want %+v", again, err, s)
			}
		}
		parseJournal(slices.Concat(journalStart(1, 2), raw), 1, 2)
	})
}

// slow is a source that takes a second for a record.
type slow struct{ *log }

func (s slow) Read(ctx context.Context, shard uint32, from uint64, n int) (*Page, error) {
	time.Sleep(time.Second)
	p, err := s.log.Read(ctx, shard, from, n)
	if err == nil && len(p.Records) > 1 {
		p.Records, p.Next, p.End = p.Records[:1], p.Records[0].Index+1, false
	}
	return p, err
}

// An application that never runs for as long as repeating its steps takes gets
// through them all the same, and its rows are there once.
func TestRepeatingGoesOnFromCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := vfs.NewMemory()
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: memory}
		out, sums := &ledger{}, &ledger{}
		r.others = map[string]Destination{"out": out, "sums": sums}
		n := 60
		life := func(source Source, every time.Duration, live func()) {
			t.Helper()
			h := r.open(t, func(o *Options) {
				o.ExactlyOnce, o.CheckpointEvery = true, every
				o.OpenSource = func(context.Context, *app.Application, app.Resource) (Source, error) { return source, nil }
			})
			if err := h.Start(t.Context(), onceApplication()); err != nil {
				t.Fatal(err)
			}
			live()
			left := memory.CrashClone(1)
			rows, sumRows := out.copy(), sums.copy()
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			memory, r.files, out.rows, sums.rows = left, left, rows, sumRows
		}
		life(r.source, time.Hour, func() {
			settle(time.Second)
			for i := range n {
				r.source.put(0, fmt.Sprintf(`{"k":"a","v":%d}`, i))
				synctest.Wait()
			}
			settle(10 * time.Second)
		})
		if len(out.rows) != n {
			t.Fatalf("%d rows", len(out.rows))
		}
		step := func() uint64 {
			p, _, ok, err := (&Host{o: Options{Files: memory}}).load(fileName("app/1"))
			if !ok || err != nil || p.Journal == nil {
				t.Fatalf("%+v, %v, %v", p, ok, err)
			}
			return p.Journal.Step
		}
		for range 6 {
			before := step()
			life(slow{r.source}, 10*time.Second, func() { settle(25 * time.Second) })
			if after := step(); after <= before {
				t.Fatalf("the checkpoint stays at step %d", after)
			}
		}
		life(r.source, 10*time.Second, func() {
			for i := range 10 {
				r.source.put(0, fmt.Sprintf(`{"k":"a","v":%d}`, n+i))
			}
			settle(time.Minute)
		})
		got := slices.Sorted(slices.Values(out.texts()))
		want := make([]int, n+10)
		for i := range want {
			want[i] = i
		}
		if wanted := slices.Sorted(slices.Values(values(want...))); !slices.Equal(got, wanted) {
			t.Errorf("%d rows %q", len(got), got)
		}
		count := 0
		for _, row := range sums.texts() {
			var v struct{ N int }
			if err := json.Unmarshal([]byte(row), &v); err != nil {
				t.Fatal(err)
			}
			count += v.N
		}
		if count != n+10 {
			t.Errorf("windows count %d records of %d", count, n+10)
		}
	})
}

// Steps that were read together are read together again.
func TestRepeatingReadsPagesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := vfs.NewMemory()
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: memory, others: map[string]Destination{"out": &ledger{}, "sums": &ledger{}}}
		r.source.perPage = 1000
		start := func(source Source) *Host {
			h := r.open(t, func(o *Options) {
				o.ExactlyOnce, o.CheckpointEvery = true, time.Hour
				o.OpenSource = func(context.Context, *app.Application, app.Resource) (Source, error) { return source, nil }
			})
			if err := h.Start(t.Context(), onceApplication()); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			return h
		}
		h := start(r.source)
		for i := range 200 {
			put(r.source, 0, i)
			synctest.Wait()
		}
		settle(time.Second)
		r.files = memory.CrashClone(1)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		counted := &counting{log: r.source}
		h = start(counted)
		if n := counted.reads.Load(); n > 5 || h.Status("app/1").RowsIn != 200 {
			t.Errorf("%d reads, %+v", n, h.Status("app/1"))
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// counting counts reads.
type counting struct {
	*log
	reads atomic.Int64
}

func (c *counting) Read(ctx context.Context, shard uint32, from uint64, n int) (*Page, error) {
	c.reads.Add(1)
	return c.log.Read(ctx, shard, from, n)
}
