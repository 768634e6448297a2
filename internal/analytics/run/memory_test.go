package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// keepers are programs whose operators keep much of what comes.
var keepers = map[string]string{
	"GROUP BY": create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("W") FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO DAY)`,
	"GROUP BY of texts": `CREATE STREAM "OUT" (K VARCHAR(64), F VARCHAR(64), M VARCHAR(64), V DOUBLE); CREATE PUMP P AS INSERT INTO "OUT"
SELECT STREAM "ID", FIRST_VALUE("KIND"), MAX("KIND"), STDDEV_POP("V") FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO DAY)`,
	"GROUP BY of distinct": `CREATE STREAM "OUT" (N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM COUNT(DISTINCT "ID") FROM "IN" GROUP BY FLOOR("IN".ROWTIME TO DAY)`,
	"OVER":                 create + `SELECT STREAM "ID", COUNT(*) OVER W, SUM("V") OVER W, MAX("W") OVER W FROM "IN" WINDOW W AS (PARTITION BY "ID" RANGE INTERVAL '1' DAY PRECEDING)`,
	"OVER few keys":        create + `SELECT STREAM "ID", COUNT(*) OVER W, SUM("V") OVER W, MAX("W") OVER W FROM "IN" WINDOW W AS (PARTITION BY "N" RANGE INTERVAL '1' DAY PRECEDING)`,
	"OVER texts":           `CREATE STREAM "OUT" (K VARCHAR(64)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM FIRST_VALUE("ID") OVER W FROM "IN" WINDOW W AS (PARTITION BY "N" RANGE INTERVAL '1' DAY PRECEDING)`,
	"SELECT DISTINCT":      `CREATE STREAM "OUT" (T TIMESTAMP, K VARCHAR(64)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM DISTINCT FLOOR("IN".ROWTIME TO DAY) AS T, "ID" FROM "IN"`,
	"WINDOWED BY STAGGER":  `CREATE STREAM "OUT" (K VARCHAR(64), N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(*) FROM "IN" WINDOWED BY STAGGER (PARTITION BY "ID" RANGE INTERVAL '1' DAY)`,
	"WINDOWED BY SESSION":  `CREATE STREAM "OUT" (K VARCHAR(64), N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(*) FROM "IN" WINDOWED BY SESSION (PARTITION BY "ID" GAP INTERVAL '1' DAY)`,
	"JOIN": `CREATE STREAM "L" (K VARCHAR(64), V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(64), V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'b';` +
		create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '1' DAY PRECEDING) JOIN R OVER (RANGE INTERVAL '1' DAY PRECEDING) ON L.K = R.K`,
	"ORDER BY":                      create + `SELECT STREAM "ID", "N", "V", "W" FROM "IN" ORDER BY FLOOR("IN".ROWTIME TO DAY), "V"`,
	"TOP_K_ITEMS_TUMBLING":          `CREATE STREAM "OUT" (K VARCHAR(64), N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM * FROM TABLE(TOP_K_ITEMS_TUMBLING(CURSOR(SELECT STREAM * FROM "IN"), 'ID', 10000, 3600))`,
	"COUNT_DISTINCT_ITEMS_TUMBLING": `CREATE STREAM "OUT" (N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM NUMBER_OF_DISTINCT_ITEMS FROM TABLE(COUNT_DISTINCT_ITEMS_TUMBLING(CURSOR(SELECT STREAM * FROM "IN"), 'ID', 3600))`,
	"RANDOM_CUT_FOREST":             `CREATE STREAM "OUT" (V DOUBLE, S DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V", ANOMALY_SCORE FROM TABLE(RANDOM_CUT_FOREST(CURSOR(SELECT STREAM "V" FROM "IN"), 50, 256, 10000, 10))`,
	"HOTSPOTS":                      `CREATE STREAM "OUT" (V DOUBLE, W DOUBLE, H VARCHAR(4000)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM V, W, HOTSPOTS_RESULT FROM TABLE(HOTSPOTS(CURSOR(SELECT STREAM "V", "W" FROM "IN"), 1000, 0.001, 900))`,
	"UNION ALL": `CREATE STREAM "A" (K VARCHAR(64), V DOUBLE); CREATE PUMP AP AS INSERT INTO A SELECT STREAM "ID", "V" FROM "IN";
CREATE STREAM "B" (K VARCHAR(64), V DOUBLE); CREATE PUMP BP AS INSERT INTO B SELECT STREAM K, V FROM A ORDER BY FLOOR(A.ROWTIME TO DAY);` +
		create + `SELECT STREAM K, 1, V, V FROM A UNION ALL SELECT STREAM K, 2, V, V FROM B`,
}

func opened(t testing.TB, program string, o run.Options) *run.Application {
	t.Helper()
	p, err := plan.Compile(program, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{Extensions: true})
	if err != nil {
		t.Fatal(err)
	}
	o.Seed, o.Now = 1, func() time.Time { return time.UnixMilli(0) }
	a := run.New(p, o)
	a.Start()
	return a
}

// distinctRows inserts n rows, each with a key of its own, in pieces; the page that
// they came in is given up. It stops at the first error.
func distinctRows(a *run.Application, from, n int) error {
	null := plan.Value{Null: true}
	rows := run.NewRows(append(slices.Clone(sensor), plan.HiddenColumns...))
	for at := from; at < from+n; {
		rows.Reset()
		for range min(1000, from+n-at) {
			rows.Add(int64(at)/10, plan.Value{S: fmt.Sprintf("key number %012d", at)}, plan.Value{S: string("ab"[at&1])}, plan.Value{I: int64(at % 100)}, plan.Value{F: float64(at)}, plan.Value{F: -float64(at)}, plan.Value{I: 0}, null, null, null)
			at++
		}
		if err := a.Insert("IN", rows.Batch()); err != nil {
			return err
		}
	}
	return nil
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What Memory says is what the heap has grown by, for every operator, within a
// third of it and 300 KB: batches and evaluators are memory, but not state.
func TestMemoryFollowsTheHeap(t *testing.T) {
	for name, program := range keepers {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(t *testing.T) {
				rows := 60_000
				switch name {
				case "HOTSPOTS", "RANDOM_CUT_FOREST":
					rows = 2000
				}
				before := heap()
				a := opened(t, program, run.Options{Workers: workers})
				if err := distinctRows(a, 0, rows); err != nil {
					t.Fatal(err)
				}
				grown, said := heap()-before, a.Measured()
				runtime.KeepAlive(a)
				if margin := grown/3 + 300_000; said < grown-margin || said > grown+margin {
					t.Errorf("the heap has grown by %d bytes, the state takes %d", grown, said)
				}
				if near := a.Memory(); near < said/2 || near > 2*said {
					t.Errorf("the estimate is %d bytes, the state takes %d", near, said)
				}
			})
		}
	}
}

// An application whose state reaches its limit says which operator it is, takes
// nothing any more, and goes on from its last snapshot where there is more room.
// Room doubles, so that an insert may take the state past the limit by most of it.
func TestMemoryLimit(t *testing.T) {
	const limit = 2 << 20
	for name, program := range keepers {
		if name == "HOTSPOTS" || name == "COUNT_DISTINCT_ITEMS_TUMBLING" || name == "RANDOM_CUT_FOREST" || name == "TOP_K_ITEMS_TUMBLING" {
			continue // these are bounded by what they are
		}
		t.Run(name, func(t *testing.T) {
			for _, workers := range []int{1, 3} {
				a := opened(t, program, run.Options{Workers: workers, MemoryLimit: limit})
				var snapshot []byte
				fed := 0
				var err error
				for ; err == nil; fed += 500 {
					if fed > 200_000 {
						t.Fatalf("nothing is said of %d bytes", a.Measured())
					}
					if now := a.Measured(); now > limit*7/4 {
						t.Fatalf("%d bytes are more than the limit", now)
					}
					snapshot = a.Snapshot(nil)
					err = distinctRows(a, fed, 500)
				}
				operator, _, _ := strings.Cut(name, " of ")
				operator, _, _ = strings.Cut(operator, " few")
				operator, _, _ = strings.Cut(operator, " texts")
				if !errors.Is(err, run.ErrMemory) || !strings.Contains(err.Error(), operator) && name != "UNION ALL" || !strings.Contains(err.Error(), "pump") {
					t.Fatalf("%v", err)
				}
				if again := a.Advance("IN", 1<<40); !errors.Is(again, run.ErrMemory) {
					t.Errorf("it goes on: %v", again)
				}
				if again := a.WriteSnapshot(&bytes.Buffer{}); !errors.Is(again, run.ErrMemory) || a.Snapshot(nil) != nil {
					t.Errorf("it has a snapshot: %v", again)
				}
				if n, again := a.Freeze().WriteTo(&bytes.Buffer{}); n > 0 || !errors.Is(again, run.ErrMemory) {
					t.Errorf("it can be frozen: %v", again)
				}
				more := opened(t, program, run.Options{Workers: workers, MemoryLimit: 64 << 20})
				if _, err := more.Restore(snapshot); err != nil {
					t.Fatal(err)
				}
				if err := distinctRows(more, fed-500, 1000); err != nil {
					t.Errorf("with more room: %v", err)
				}
			}
		})
	}
}
