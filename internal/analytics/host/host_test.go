package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a source in memory.
type log struct {
	mu        sync.Mutex
	id        uint64
	shards    []Shard
	records   map[uint32][]Record
	closed    map[uint32]bool
	changed   chan struct{}
	resharded chan struct{}
	gone      chan struct{}
	perPage   int
	removed   bool
}

func newLog(id uint64, shards int) *log {
	l := &log{id: id, records: map[uint32][]Record{}, closed: map[uint32]bool{}, changed: make(chan struct{}), resharded: make(chan struct{}), gone: make(chan struct{})}
	for i := range shards {
		l.shards = append(l.shards, Shard{Number: uint32(i), Name: fmt.Sprintf("shardId-%012d", i)})
	}
	return l
}

func (l *log) put(shard uint32, data string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[shard] = append(l.records[shard], Record{Index: uint64(len(l.records[shard]) + 1), Arrival: time.Now().UnixMilli(), Key: []byte("k"), Data: []byte(data)})
	close(l.changed)
	l.changed = make(chan struct{})
}

// split closes a shard and opens two.
func (l *log) split(shard uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed[shard] = true
	for range 2 {
		n := uint32(len(l.shards))
		l.shards = append(l.shards, Shard{Number: n, Name: fmt.Sprintf("shardId-%012d", n), Parents: []uint32{shard}})
	}
	close(l.resharded)
	l.resharded = make(chan struct{})
	close(l.changed)
	l.changed = make(chan struct{})
}

// remove deletes the stream.
func (l *log) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removed = true
	close(l.gone)
}

func (l *log) isRemoved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removed
}

// expire takes a shard away, or the first records of one that stays.
func (l *log) expire(shard uint32, records int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if records < 0 {
		l.shards = slices.DeleteFunc(l.shards, func(s Shard) bool { return s.Number == shard })
		return
	}
	for i := range records {
		l.records[shard][i].Index = 0
	}
}

var errNoStream = errors.New("no such stream")

func (l *log) ID() uint64 { return l.id }
func (l *log) Shards() ([]Shard, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return nil, errNoStream
	}
	return slices.Clone(l.shards), nil
}
func (l *log) At(_ context.Context, shard uint32, at time.Time) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records[shard] {
		if r.Index != 0 && (at.IsZero() || r.Arrival >= at.UnixMilli()) {
			return r.Index, nil
		}
	}
	return uint64(len(l.records[shard]) + 1), nil
}
func (l *log) Read(_ context.Context, shard uint32, from uint64, _ int) (*Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.records[shard]
	if l.removed || !slices.ContainsFunc(l.shards, func(s Shard) bool { return s.Number == shard }) {
		return nil, errNoStream
	}
	p := &Page{First: from, Next: from, Tail: uint64(len(all) + 1)}
	for int(p.Next) <= len(all) && all[p.Next-1].Index == 0 {
		p.Next++ // expired
		p.First = p.Next
	}
	for int(p.Next) <= len(all) && len(p.Records) < max(l.perPage, 7) {
		p.Records = append(p.Records, all[p.Next-1])
		p.Next++
	}
	p.End = l.closed[shard] && p.Next == p.Tail
	return p, nil
}
func (l *log) Changed(uint32) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}
func (l *log) Resharded() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.resharded
}
func (l *log) Gone() <-chan struct{} { return l.gone }
func (l *log) SequenceNumber(shard uint32, index uint64, _ int64) string {
	return fmt.Sprintf("%d-%d", shard, index)
}

// sinkhole takes rows, and refuses some.
type sinkhole struct {
	mu     sync.Mutex
	rows   []string
	refuse func() bool
	gate   chan struct{} // if set, a write waits until it is closed
}

func (s *sinkhole) Write(ctx context.Context, rows [][]byte) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil && s.refuse() {
		return errors.New("not now")
	}
	for _, r := range rows {
		s.rows = append(s.rows, string(r))
	}
	return nil
}

func (s *sinkhole) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

type rig struct {
	source *log
	to     *sinkhole
	others map[string]Destination // by ARN
	files  vfs.FS
	object string
	told   []string
	mu     sync.Mutex
	invoke func(ctx context.Context, r app.Resource, payload []byte) ([]byte, error)
	sums   measured
}

// measured adds up samples, by flow, id and name.
type measured struct {
	mu   sync.Mutex
	sums map[string]float64
}

func (m *measured) Series(_, _, _ string, flow Flow, id string) Series {
	return measuring{m, string(flow) + " " + id + " "}
}
func (m *measured) Drop(string, string, string) {}

type measuring struct {
	m    *measured
	name string
}

func (s measuring) Add(m Metric, v float64) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.sums == nil {
		s.m.sums = map[string]float64{}
	}
	s.m.sums[s.name+string(m)] += v
}

func (m *measured) sum(name string) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sums[name]
}

func (r *rig) open(t *testing.T, change func(*Options)) *Host {
	o := Options{
		OpenSource: func(context.Context, *app.Application, app.Resource) (Source, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.source == nil || r.source.isRemoved() {
				return nil, errNoStream
			}
			return r.source, nil
		},
		OpenDestination: func(_ context.Context, _ *app.Application, res app.Resource) (Destination, error) {
			if to := r.others[res.ARN]; to != nil {
				return to, nil
			}
			return r.to, nil
		},
		OpenObject: func(context.Context, *app.Application, app.Reference) (io.ReadCloser, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.object == "" {
				return nil, errors.New("NoSuchKey")
			}
			return io.NopCloser(strings.NewReader(r.object)), nil
		},
		Tell: func(_ context.Context, _ *app.Application, id, code, text string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, id+" "+code+" "+text)
		},
		Files: r.files, CheckpointEvery: 10 * time.Second, Metrics: &r.sums,
	}
	if r.invoke != nil {
		o.Invoke = func(ctx context.Context, _ *app.Application, f app.Resource, payload []byte) ([]byte, error) {
			return r.invoke(ctx, f, payload)
		}
	}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func column(name, typ, mapping string) run.SourceColumn {
	t, err := sql.ParseType(typ)
	if err != nil {
		panic(err)
	}
	return run.SourceColumn{Name: name, Type: t, Mapping: mapping}
}

func application1(code string) *app.Application {
	return &app.Application{
		ID: "app/1", Name: "a", Version: 1, Run: 1, Code: code,
		Inputs: []app.Input{{ID: "1.1", Streams: []string{"IN_001"}, Start: app.Position{Start: app.TrimHorizon},
			Format: run.Format{Columns: []run.SourceColumn{column("K", "VARCHAR(8)", "$.k"), column("V", "INTEGER", "$.v")}}}},
		Outputs: []app.Output{{ID: "1.1", Stream: "OUT"}},
	}
}

const perSecond = `CREATE STREAM "OUT" (K VARCHAR(8), N BIGINT, S INTEGER);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "K", COUNT(*), SUM("V") FROM "IN_001" GROUP BY "K", FLOOR("IN_001".ROWTIME TO SECOND);`

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRowsGoThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 2), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		if err := h.Start(t.Context(), application1(perSecond)); err != nil {
			t.Fatal(err)
		}
		r.source.put(0, `{"k":"a","v":1}`)
		r.source.put(1, `{"k":"a","v":2}`)
		r.source.put(1, `{"k":"b","v":3}{"k":"b","v":"x"}`)
		settle(3 * time.Second)
		want := []string{`{"K":"a","N":2,"S":3}` + "\n", `{"K":"b","N":1,"S":3}` + "\n"}
		if got := r.to.taken(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		r.source.split(1)
		synctest.Wait()
		r.source.put(3, `{"k":"c","v":4}`)
		settle(3 * time.Second)
		if got := r.to.taken(); len(got) != 3 || got[2] != `{"K":"c","N":1,"S":4}`+"\n" {
			t.Errorf("after the split: %q", got)
		}
		if s := h.Status("app/1"); !s.Running || s.RowsIn != 4 || s.RowsOut != 3 || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A window that is open when an application stops is complete when it goes on.
func TestStoppedAndGoneOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		code := strings.ReplaceAll(perSecond, "TO SECOND", "TO HOUR")
		h := r.open(t, nil)
		if err := h.Start(t.Context(), application1(code)); err != nil {
			t.Fatal(err)
		}
		r.source.put(0, `{"k":"a","v":1}`)
		settle(time.Second)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.source.put(0, `{"k":"a","v":2}`)
		h = r.open(t, nil)
		if err := h.Start(t.Context(), application1(code)); err != nil {
			t.Fatal(err)
		}
		settle(2 * time.Hour)
		if got := r.to.taken(); len(got) != 1 || got[0] != `{"K":"a","N":2,"S":3}`+"\n" {
			t.Errorf("%q", got)
		}
		// A new run from now on knows nothing of the one before.
		a := application1(code)
		a.Run, a.Inputs[0].Start = 2, app.Position{Start: app.Now, At: time.Now()}
		settle(time.Second)
		if err := h.Stop(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(2 * time.Hour)
		if got := r.to.taken(); len(got) != 1 {
			t.Errorf("the new run read what was there: %q", got)
		}
		if err := h.Remove(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, ok, err := h.load(fileName(a.ID)); ok || err != nil {
			t.Errorf("a checkpoint stays: %v, %v", ok, err)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever moments an application is stopped at, gracefully or not, and whatever
// its destination refuses: every record is counted, and what comes out of a
// resumed run repeats rows but changes none.
func TestEveryRecordCounts(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				r := &rig{source: newLog(7, 3), to: &sinkhole{}, files: vfs.NewMemory()}
				moods := rand.New(rand.NewPCG(seed, 2)) // under the destination's mutex
				r.to.refuse = func() bool { return moods.IntN(4) == 0 }
				code := `CREATE STREAM "OUT" (V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V" FROM "IN_001";`
				n := 0
				for range 6 {
					memory := r.files.(*vfs.Memory)
					h := r.open(t, func(o *Options) { o.CheckpointEvery = time.Duration(1+rng.IntN(5)) * time.Second })
					if err := h.Start(t.Context(), application1(code)); err != nil {
						t.Fatal(err)
					}
					for range rng.IntN(40) {
						r.source.put(uint32(rng.IntN(len(r.source.shards))), fmt.Sprintf(`{"k":"a","v":%d}`, n))
						n++
						if rng.IntN(4) == 0 {
							settle(time.Duration(rng.IntN(2000)) * time.Millisecond)
						}
					}
					var after vfs.FS = memory
					if rng.IntN(2) == 0 {
						after = memory.CrashClone(rng.Uint64()) // what a power cut would leave
					}
					if err := h.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					r.files = after
				}
				r.to.mu.Lock()
				r.to.refuse = nil
				r.to.mu.Unlock()
				h := r.open(t, nil)
				if err := h.Start(t.Context(), application1(code)); err != nil {
					t.Fatal(err)
				}
				settle(time.Minute)
				if err := h.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				seen := map[string]int{}
				for _, row := range r.to.taken() {
					seen[row]++
				}
				for i := range n {
					if seen[fmt.Sprintf("{\"V\":%d}\n", i)] == 0 {
						t.Fatalf("record %d of %d is missing", i, n)
					}
				}
				if len(seen) != n {
					t.Errorf("%d different rows of %d records", len(seen), n)
				}
			})
		})
	}
}

// What is missing is told once, and waited for.
func TestWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		a := application1(`CREATE STREAM "OUT" (V INTEGER, N VARCHAR(8)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM s."V", t."N" FROM "IN_001" s LEFT JOIN "NAMES" t ON s."K" = t."K";`)
		a.References = []app.Reference{{ID: "2.1", Table: "NAMES", Format: run.Format{CSV: true, RowDelimiter: "\n", ColumnDelimiter: ",", Columns: []run.SourceColumn{column("K", "VARCHAR(8)", ""), column("N", "VARCHAR(8)", "")}}}}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if s := h.Status(a.ID); !s.Running || s.Problem != "NoSuchKey" {
			t.Errorf("%+v", s)
		}
		r.mu.Lock()
		r.object = "a,Anna\nb,Bob\n"
		r.mu.Unlock()
		settle(time.Minute)
		if s := h.Status(a.ID); s.Problem != "no such stream" {
			t.Errorf("%+v", s)
		}
		r.mu.Lock()
		r.source = newLog(1, 1)
		r.mu.Unlock()
		settle(time.Minute)
		r.source.put(0, `{"k":"b","v":1}`)
		r.source.put(0, `{"k":"z","v":2}`)
		settle(time.Second)
		if got, want := r.to.taken(), []string{`{"V":1,"N":"Bob"}` + "\n", `{"V":2,"N":null}` + "\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if want := []string{"2.1 ReferenceDataError NoSuchKey", "1.1 InputError no such stream"}; !slices.Equal(r.told, want) {
			t.Errorf("told %q, want %q", r.told, want)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A destination that stays away holds up the source, not the memory, and a stop
// does not wait for it for ever.
func TestADestinationThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{refuse: func() bool { return true }}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		a := application1(`CREATE STREAM "OUT" (K VARCHAR(40000), V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "K", "V" FROM "IN_001";`)
		a.Inputs[0].Format.Columns[0] = column("K", "VARCHAR(40000)", "$.k")
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		most := (queueBytes + atOnce()*chunkBytes) / 30000
		for i := range 2 * most {
			r.source.put(0, fmt.Sprintf(`{"k":%q,"v":%d}`, strings.Repeat("x", 30000), i))
		}
		settle(time.Minute)
		if s := h.Status("app/1"); s.Problem != "not now" || s.RowsIn > int64(most) || s.RowsOut != 0 || s.MillisBehindLatest < 59000 {
			t.Errorf("%+v, at most %d rows fit", s, most)
		}
		before := time.Now()
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(before); took > 10*time.Second {
			t.Errorf("the end took %v", took)
		}
		// When it is back, every row comes.
		r.to.mu.Lock()
		r.to.refuse = nil
		r.to.mu.Unlock()
		h = r.open(t, nil)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if got := r.to.taken(); len(got) != 2*most {
			t.Errorf("%d rows of %d", len(got), 2*most)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A row goes through as fast as goroutines hand it on: no timer is waited for,
// whatever the intervals are.
func TestARowWaitsForNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, func(o *Options) { o.IdleEvery, o.CheckpointEvery = time.Hour, time.Hour })
		if err := h.Start(t.Context(), application1(passThrough)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		for i := range 3 {
			put(r.source, 0, i)
			synctest.Wait()
			if got, want := r.to.taken(), values(0, 1, 2)[:i+1]; !slices.Equal(got, want) || time.Since(began) != 0 {
				t.Errorf("%q after %v, want %q", got, time.Since(began), want)
			}
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A destination that hangs shows in the status, and holds up nothing else.
func TestADestinationThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &sinkhole{gate: make(chan struct{})}
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory(), others: map[string]Destination{"hangs": hangs}}
		h := r.open(t, nil)
		a := application1(passThrough)
		a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: "OUT", Destination: app.Resource{ARN: "hangs"}})
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		put(r.source, 0, 1)
		settle(5 * time.Second)
		if s := h.Status(a.ID); s.Problem != "" || s.RowsOut != 1 {
			t.Errorf("%+v", s)
		}
		settle(time.Minute)
		if s := h.Status(a.ID); s.Problem != "the data stream hangs has not taken rows since 2000-01-01T00:00:00Z" {
			t.Errorf("%+v", s)
		}
		close(hangs.gate)
		settle(time.Second)
		if s := h.Status(a.ID); s.Problem != "" || s.RowsOut != 2 {
			t.Errorf("%+v", s)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// partly is a destination that takes every second row, and a row of nine never.
type partly struct {
	sinkhole
	calls [][]string
}

func (p *partly) Write(ctx context.Context, rows [][]byte) error {
	e := &PartlyError{Err: errors.New("too fast")}
	var call []string
	for i, row := range rows {
		call = append(call, string(row))
		switch {
		case strings.Contains(string(row), "9"):
			e.Refused = append(e.Refused, i)
		case i%2 == 1:
			e.Left = append(e.Left, i)
		default:
			_ = p.sinkhole.Write(ctx, [][]byte{row})
		}
	}
	p.calls = append(p.calls, call)
	if len(e.Left)+len(e.Refused) == 0 {
		return nil
	}
	return e
}

// What a destination took is not written again, and what it can never take is left
// out and told.
func TestADestinationThatTakesSomeRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &partly{}
		r := &rig{source: newLog(7, 1), files: vfs.NewMemory(), others: map[string]Destination{"partly": to}}
		h := r.open(t, nil)
		a := application1(passThrough)
		a.Outputs[0].Destination.ARN = "partly"
		r.source.put(0, `{"v":1}{"v":2}{"v":9}{"v":3}{"v":4}`)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		want := [][]string{values(1, 2, 9, 3, 4), values(2, 3), values(3)}
		if !slices.EqualFunc(to.calls, want, slices.Equal[[]string]) {
			t.Errorf("calls %q, want %q", to.calls, want)
		}
		if s := h.Status(a.ID); s.RowsOut != 4 || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		for name, want := range map[Metric]float64{RefusedRows: 1, Records: 4, Bytes: 32, Success: 1} {
			if got := r.sums.sum("Output 1.1 " + string(name)); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if told := strings.Join(r.told, "\n"); !strings.Contains(told, "can never take") {
			t.Errorf("told %q", told)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Another version reads its reference object again, also if nothing else has
// changed; one that cannot be compiled leaves alone what runs, unless it is held.
func TestUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory(), object: "a,Anna\n"}
		h := r.open(t, func(o *Options) { o.MaxReference = 1000 })
		a := application1(`CREATE STREAM "OUT" (N VARCHAR(8), C BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM t."N", COUNT(*) OVER (ROWS 1000 PRECEDING) FROM "IN_001" s LEFT JOIN "NAMES" t ON s."K" = t."K";`)
		a.References = []app.Reference{{ID: "2.1", Table: "NAMES", Bucket: "b", Key: "k", Loaded: 1, Format: run.Format{CSV: true, RowDelimiter: "\n", ColumnDelimiter: ",", Columns: []run.SourceColumn{column("K", "VARCHAR(8)", ""), column("N", "VARCHAR(8)", "")}}}}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		step := func(want string) {
			t.Helper()
			r.source.put(0, `{"k":"a"}`)
			settle(time.Second)
			if got := r.to.taken(); len(got) == 0 || got[len(got)-1] != want+"\n" {
				t.Errorf("%q, want %s", got, want)
			}
		}
		step(`{"N":"Anna","C":1}`)
		r.mu.Lock()
		r.object = "a,Ada\n"
		r.mu.Unlock()
		settle(time.Hour)
		step(`{"N":"Anna","C":2}`)
		b := *a
		b.Version, b.References = 2, slices.Clone(a.References)
		b.References[0].Loaded = 2
		if err := h.Update(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		step(`{"N":"Ada","C":3}`)
		c := b
		c.Code = "CREATE STREAM"
		var refused sql.Errors
		if err := h.Update(t.Context(), &c); !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
		step(`{"N":"Ada","C":4}`)
		r.mu.Lock()
		r.object = strings.Repeat("a,Ava\n", 200)
		r.mu.Unlock()
		if err := h.Update(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if s := h.Status(a.ID); s.Problem != "object k in bucket b is larger than the 1000 bytes that a reference table may have" {
			t.Errorf("%+v", s)
		}
		// A definition that cannot be run is held, and the state with it.
		if err := h.Hold(t.Context(), &c, errors.New("line 1")); err != nil {
			t.Fatal(err)
		}
		if s := h.Status(a.ID); s.Running || s.Problem != "the program cannot be run: line 1" {
			t.Errorf("%+v", s)
		}
		d := b
		d.References = slices.Clone(b.References)
		d.References[0].Format = run.Format{RowPath: "$", Columns: []run.SourceColumn{column("K", "VARCHAR(8)", "$.k"), column("N", "INTEGER", "$.n")}}
		d.Outputs = append(slices.Clone(a.Outputs), app.Output{ID: "1.2", Stream: "out"})
		d.Code = strings.Replace(a.Code, "N VARCHAR(8)", "N INTEGER", 1)
		r.mu.Lock()
		r.object, r.told = "{\"k\":\"b\",\"n\":\"x\"}\noops {\n{\"k\":\"a\",\"n\":5}", nil
		r.mu.Unlock()
		if err := h.Update(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
		step(`{"N":5,"C":1}`)
		if want := []string{
			"1.2 OutputError the program creates no in-application stream out: names of outputs are compared in their case, and a name without quotes is in upper case",
			`2.1 ReferenceDataError object k in bucket b: 2 of its rows could not be read and are not in the table, the first because`,
		}; !slices.EqualFunc(r.told, want, strings.HasPrefix) {
			t.Errorf("told %q, want %q", r.told, want)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// broken is a source that fails in the worst way.
type broken struct{ *log }

func (broken) Read(context.Context, uint32, uint64, int) (*Page, error) { panic("a mistake") }

// What one application's data brings to light in the code ends that application
// and no other.
func TestAMistakeEndsOneApplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, func(o *Options) {
			good := o.OpenSource
			o.OpenSource = func(ctx context.Context, a *app.Application, res app.Resource) (Source, error) {
				if a.ID == "app/2" {
					return broken{newLog(8, 1)}, nil
				}
				return good(ctx, a, res)
			}
		})
		a, b := application1(passThrough), application1(passThrough)
		b.ID = "app/2"
		for _, a := range []*app.Application{a, b} {
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		put(r.source, 0, 1)
		settle(time.Second)
		if s := h.Status(b.ID); s.Running || s.Problem != "an internal error: a mistake" {
			t.Errorf("%+v", s)
		}
		if s := h.Status(a.ID); !s.Running || s.RowsOut != 1 {
			t.Errorf("%+v", s)
		}
		if !slices.Equal(r.told, []string{" InternalError an internal error: a mistake"}) {
			t.Errorf("told %q", r.told)
		}
		if err := h.Stop(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
