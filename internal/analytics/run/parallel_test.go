package run_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/analytics/cases"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// The clock of the regular expressions stops by itself when none has been used for a while.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/dlclark/regexp2.runClock"))
}

// shared has workers share the smallest batches, and operators that multiply rows
// put out a few at a time; where results may be more than some, lanes of joins wait
// with two.
func shared(t testing.TB) {
	rows, out := run.ForkRows(1), run.OutRows(3)
	lane, few := run.LaneRows(2, 50)
	t.Cleanup(func() { run.ForkRows(rows); run.OutRows(out); run.LaneRows(lane, few) })
}

// multiplied is a join in which every row of one side meets all of the other.
func multiplied(t *testing.T, o run.Options) (a *run.Application, insert func() error) {
	o.Now = func() time.Time { return time.UnixMilli(0) }
	a = opened(t, programs["join"], o)
	null := plan.Value{Null: true}
	rows := run.NewRows(append(slices.Clone(sensor), plan.HiddenColumns...))
	for i := range 4000 {
		rows.Add(int64(i/2000), plan.Value{S: fmt.Sprint("k", i%2)}, plan.Value{S: string("ab"[i/2000])}, plan.Value{I: int64(i)}, plan.Value{F: float64(i)}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
	}
	batch := rows.Batch()
	return a, func() error {
		if err := a.Insert("IN", batch); err != nil {
			return err
		}
		return a.Advance("IN", 100_000)
	}
}

// However many results one batch of a join has, they are not all kept before they
// are put out: workers fit where one does.
func TestJoinsThatMultiplyRows(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		a, insert := multiplied(t, run.Options{Workers: workers, MemoryLimit: 24 << 20})
		n, sum, high := 0, 0.0, int64(0)
		if err := a.Tap("OUT", func(b *run.Batch) {
			for _, i := range b.Sel {
				n++
				sum += b.Cols[2].F[i]*float64(n%97) + b.Cols[3].F[i]*float64(n%89)
				if b.Time[i] < high {
					t.Fatal("rows go back in time")
				}
				high = b.Time[i]
			}
		}); err != nil {
			t.Fatal(err)
		}
		if err := insert(); err != nil {
			t.Fatalf("%d workers: %v", workers, err)
		}
		if n != 2_000_000 || sum != 359907251532 {
			t.Errorf("%d workers: %d rows, %.0f", workers, n, sum)
		}
	}
}

// A mistake behind a join leaves no worker waiting; the main function looks for
// goroutines that are left.
func TestAMistakeBehindAJoin(t *testing.T) {
	a, insert := multiplied(t, run.Options{Workers: 4})
	n := 0
	if err := a.Tap("OUT", func(b *run.Batch) {
		if n += len(b.Sel); n > 500_000 {
			panic("a mistake")
		}
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if r := recover(); r != "a mistake" {
			t.Errorf("%v", r)
		}
	}()
	t.Errorf("it went on: %v", insert())
}

// The shared cases give their rows for any number of workers and any batches, and
// stopped, or killed and gone on from an older snapshot, behind every insert.
func TestCasesSharedByWorkers(t *testing.T) {
	shared(t)
	files, err := filepath.Glob("../testdata/cases/*.json")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := cases.Parse(raw)
		if err != nil {
			t.Fatal(name, err)
		}
		t.Run(c.Name, func(t *testing.T) {
			for _, workers := range []int{1, 2, 3, 8} {
				for _, batch := range []int{1, 3, 1000} {
					for _, o := range []cases.Options{{}, {Resume: true}, {Resume: true, Relay: true}, {Kill: true}} {
						o.Batch, o.Workers = batch, workers
						if err := c.Run(o); err != nil {
							t.Errorf("%+v: %v", o, err)
						}
					}
				}
			}
		})
	}
}

// matrix are programs with operators of every kind, over the sensors.
var matrix = map[string]string{
	"tumbling": create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND)`,
	"tumbling distinct": `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, F DOUBLE, L DOUBLE, D DOUBLE);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(DISTINCT "N"), FIRST_VALUE("V"), LAST_VALUE("V"), STDDEV_SAMP("V") FROM "IN" GROUP BY "ID", "KIND", STEP("IN".ROWTIME BY INTERVAL '2' SECOND)`,
	"tumbling with failures": `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, S INTEGER);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(*), SUM("N" * 40000000 / ("N" - 17)) FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND) HAVING COUNT(*) > 1`,
	"filter": `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, S DOUBLE, A DOUBLE);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM UPPER("ID"), 100 / ("N" - 3), "V" * 2, "W" FROM "IN" WHERE "V" > 20 AND 10 / ("N" - 5) < 7`,
	"sliding":       create + `SELECT STREAM "ID", COUNT(*) OVER W, SUM("V") OVER W, AVG("V") OVER W FROM "IN" WINDOW W AS (PARTITION BY "ID" RANGE INTERVAL '1' SECOND PRECEDING)`,
	"sliding sizes": create + `SELECT STREAM "ID", COUNT("N") OVER (PARTITION BY "ID", "KIND" ROWS 5 PRECEDING), MAX("V") OVER (PARTITION BY "ID", "KIND" RANGE INTERVAL '3' SECOND PRECEDING), LAG("V", 2) OVER (PARTITION BY "ID", "KIND" ROWS 5 PRECEDING) FROM "IN" WHERE "V" > 5`,
	"distinct":      `CREATE STREAM "OUT" (T TIMESTAMP, K VARCHAR(16)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM DISTINCT FLOOR("IN".ROWTIME TO SECOND) AS T, "ID" FROM "IN"`,
	"stagger":       `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(*) FROM "IN" WINDOWED BY STAGGER (PARTITION BY "ID" RANGE INTERVAL '1' SECOND)`,
	"join": `CREATE STREAM L (K VARCHAR(16), V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(16), V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'b';` +
		create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '1' SECOND PRECEDING) LEFT JOIN R OVER (RANGE INTERVAL '1' SECOND PRECEDING) ON L.K = R.K AND L.V < R.V`,
	"full join": `CREATE STREAM L (K VARCHAR(16), V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(16), V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'b' AND "N" > 40;` +
		create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '1' SECOND PRECEDING) FULL JOIN R OVER (RANGE INTERVAL '2' SECOND PRECEDING) ON L.K = R.K`,
	"join failing": `CREATE STREAM L (K VARCHAR(16), N INTEGER, V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "N", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(16), N INTEGER, V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "N", "V" FROM "IN" WHERE "KIND" = 'b';` +
		create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '2' SECOND PRECEDING) RIGHT JOIN R OVER (RANGE INTERVAL '1' SECOND PRECEDING) ON 40 / (L.N - 7) = MOD(R.N, 20) AND L.K = R.K AND 100 / (L.N - R.N) < 30`,
	"join rows": `CREATE STREAM L (K VARCHAR(16), V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(16), V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'b';` +
		create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (ROWS 7 PRECEDING) LEFT JOIN R OVER (RANGE INTERVAL '1' SECOND PRECEDING) ON L.K = R.K`,
	"pipeline": `CREATE STREAM MID (K VARCHAR(16), N BIGINT, S DOUBLE); CREATE PUMP M AS INSERT INTO MID SELECT STREAM "ID", COUNT(*), SUM("V") FROM "IN" WHERE "N" <> 7 GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND);` +
		create + `SELECT STREAM K, SUM(N) OVER W, SUM(S) OVER W, MIN(S) OVER W FROM MID WINDOW W AS (PARTITION BY K RANGE INTERVAL '4' SECOND PRECEDING)`,
	"sorted": `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(*) AS C FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND) ORDER BY FLOOR("IN".ROWTIME TO SECOND), C DESC`,
	"union": create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" WHERE "KIND" = 'a' GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND);
CREATE PUMP P2 AS INSERT INTO "OUT" SELECT STREAM "ID", "N", "V" + 1, "W" FROM "IN" WHERE "KIND" = 'b' AND "V" > 80`,
}

// sensorRows are rows of some seconds, in pieces of at most batch rows.
func sensorRows(seed uint64, n, batch int) []*run.Batch {
	r := rand.New(rand.NewPCG(seed, 7))
	null := plan.Value{Null: true}
	var list []*run.Batch
	at := int64(1_000_000)
	for n > 0 {
		rows := run.NewRows(append(slices.Clone(sensor), plan.HiddenColumns...))
		for range min(n, batch) {
			if r.IntN(4) == 0 {
				at += r.Int64N(60)
			}
			if r.IntN(200) == 0 {
				at += 1500
			}
			id, v := plan.Value{S: fmt.Sprint("key", r.IntN(23))}, plan.Value{F: 100 * r.Float64()}
			if r.IntN(30) == 0 {
				id = null
			}
			if r.IntN(20) == 0 {
				v = null
			}
			rows.Add(at, id, plan.Value{S: string(rune('a' + r.IntN(2)))}, plan.Value{I: r.Int64N(100)}, v, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
		}
		n -= batch
		list = append(list, rows.Batch())
	}
	return list
}

// way is how a program is run.
type way struct {
	batch, workers int
	every          int   // batches after which the program is stopped and another goes on
	then           []int // workers of those, in turn
	kill           bool  // the other goes on from one snapshot earlier, and is fed again
}

// lines are the rows of OUT and of the error stream that a program gives.
func lines(t *testing.T, program string, seed uint64, w way) []string {
	t.Helper()
	p, err := plan.Compile(program, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{Extensions: true})
	if err != nil {
		t.Fatal(err)
	}
	var out, failed []string
	open := func(workers int) *run.Application {
		a := run.New(p, run.Options{Seed: 1, Workers: workers, Now: func() time.Time { return time.UnixMilli(0) }})
		for _, name := range []string{"OUT", plan.ErrorStream} {
			to := &out
			if name == plan.ErrorStream {
				to = &failed
			}
			columns, _ := a.Stream(name)
			if err := a.Tap(name, func(b *run.Batch) {
				for _, i := range b.Sel {
					*to = append(*to, fmt.Sprint(name, " ", b.Time[i], " ", string(run.AppendJSON(nil, columns, b, i))))
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	a := open(w.workers)
	a.Start()
	do := func(b *run.Batch) {
		if err := a.Insert("IN", b); err != nil {
			t.Fatal(err)
		}
	}
	var snapshot []byte
	var fed []*run.Batch // since the snapshot
	var put, lost int    // rows that there were
	turn := 0
	for i, b := range sensorRows(seed, 700, w.batch) {
		do(b)
		fed = append(fed, b)
		if w.every == 0 || i%w.every > 0 {
			continue
		}
		now := a.Snapshot(nil)
		if !w.kill {
			snapshot, put, lost, fed = now, len(out), len(failed), nil
		}
		if snapshot != nil {
			out, failed = out[:put], failed[:lost]
			a = open(w.then[turn%len(w.then)])
			turn++
			kept, err := a.Restore(snapshot)
			if err != nil || len(kept) < len(p.Pumps) {
				t.Fatal(kept, err)
			}
			for _, b := range fed {
				do(b)
			}
		}
		snapshot, put, lost, fed = a.Snapshot(nil), len(out), len(failed), nil
	}
	if err := a.Advance("IN", 9_000_000); err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d rows came out", len(out))
	}
	slices.Sort(failed) // those of one instant come in no particular order
	return append(out, failed...)
}

// Programs of every kind give the same rows in the same order whatever the number
// of workers and the batches, stopped and taken up by other numbers of workers,
// and killed and gone on from an older snapshot.
func TestResultsDoNotDependOnWorkers(t *testing.T) {
	shared(t)
	for name, program := range matrix {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 2; seed++ {
				want := lines(t, program, seed, way{batch: 1, workers: 1})
				for _, workers := range []int{1, 2, 3, 8} {
					for _, batch := range []int{1, 3, 1000} {
						every := max(1, 90/batch)
						for _, w := range []way{
							{batch: batch, workers: workers},
							{batch: batch, workers: workers, every: every, then: []int{8, 1, 3, workers}},
							{batch: batch, workers: workers, every: every, then: []int{1, 2, workers}, kill: true},
						} {
							if got := lines(t, program, seed, w); !slices.Equal(got, want) {
								t.Fatalf("seed %d, %+v: %s", seed, w, difference(got, want))
							}
						}
					}
				}
			}
		})
	}
}

func difference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("row %d of %d is\n%s, want\n%s", i, len(got), got[i], strings.Join(want[i:min(i+3, len(want))], "\n"))
		}
	}
	return fmt.Sprintf("%d rows, want %d", len(got), len(want))
}
