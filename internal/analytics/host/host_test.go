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
		if at.IsZero() || r.Arrival >= at.UnixMilli() {
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
		if _, _, ok, err := h.load(a.ID); ok || err != nil {
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
		const most = (queueBytes + (chunkCount+2)*chunkBytes) / 30000
		for i := range 2 * most {
			r.source.put(0, fmt.Sprintf(`{"k":%q,"v":%d}`, strings.Repeat("x", 30000), i))
		}
		settle(time.Minute)
		if s := h.Status("app/1"); s.Problem != "not now" || s.RowsIn > most || s.RowsOut != 0 || s.MillisBehindLatest < 59000 {
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
