package run_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// stream runs a program over rows of numbers in the columns A, B, … of IN, one a
// second, and returns the rows of OUT.
func stream(t testing.TB, program string, points [][]float64) []map[string]any {
	t.Helper()
	var columns []plan.ColumnInfo
	for d := range points[0] {
		columns = append(columns, plan.ColumnInfo{Name: string(rune('A' + d)), Type: typed(t, "DOUBLE")})
	}
	p, err := plan.Compile(program, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: columns}}}, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := run.New(p, run.Options{Seed: 1, Now: func() time.Time { return programStart }})
	lines := output(t, a)
	a.Start()
	rows := run.NewRows(append(append([]plan.ColumnInfo(nil), columns...), plan.HiddenColumns...))
	null := plan.Value{Null: true}
	for i, point := range points {
		var row []plan.Value
		for _, v := range point {
			row = append(row, plan.Value{F: v, Null: math.IsNaN(v)})
		}
		rows.Add(int64(i)*1000, append(row, plan.Value{}, null, null, null)...)
	}
	if err := a.Insert("IN", rows.Batch()); err != nil {
		t.Fatal(err)
	}
	if err := a.Advance("IN", int64(len(points))*1000+3600_000); err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for _, line := range *lines {
		var row map[string]any
		if err := json.Unmarshal([]byte(line[strings.IndexByte(line, '{'):]), &row); err != nil {
			t.Fatal(line, err)
		}
		out = append(out, row)
	}
	return out
}

func ranks(values []float64) []float64 {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if values[a] < values[b] {
			return -1
		}
		return 1
	})
	r := make([]float64, len(values))
	for rank, i := range order {
		r[i] = float64(rank)
	}
	return r
}

func correlation(a, b []float64) float64 {
	var sa, sb, saa, sbb, sab float64
	n := float64(len(a))
	for i := range a {
		sa, sb, saa, sbb, sab = sa+a[i], sb+b[i], saa+a[i]*a[i], sbb+b[i]*b[i], sab+a[i]*b[i]
	}
	return (sab - sa*sb/n) / math.Sqrt((saa-sa*sa/n)*(sbb-sb*sb/n))
}

// Scores and their parts agree with those of the algorithm's authors as well as
// random numbers let them.
func TestAForestScoresAsItsAuthorsDo(t *testing.T) {
	raw, err := os.ReadFile("testdata/forest.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(raw), "series\t")[1:] {
		head, body, _ := strings.Cut(part, "\n")
		name, n, _ := strings.Cut(head, "\t")
		dims, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			var points [][]float64
			var want []float64
			var wantParts [][]float64 // of every dimension, high and low together
			for _, line := range strings.Split(strings.TrimSpace(body), "\n") {
				var v []float64
				for _, field := range strings.Split(line, "\t") {
					f, err := strconv.ParseFloat(field, 64)
					if err != nil {
						t.Fatal(err)
					}
					v = append(v, f)
				}
				points, want = append(points, v[:dims]), append(want, v[dims])
				var parts []float64
				for d := range dims {
					parts = append(parts, v[dims+1+2*d]+v[dims+2+2*d])
				}
				wantParts = append(wantParts, parts)
			}
			columns := "A"
			for d := 1; d < dims; d++ {
				columns += ", " + string(rune('A'+d))
			}
			rows := stream(t, `CREATE STREAM "OUT" (S DOUBLE, E VARCHAR(4000)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM ANOMALY_SCORE, ANOMALY_EXPLANATION FROM TABLE(RANDOM_CUT_FOREST_WITH_EXPLANATION(CURSOR(SELECT STREAM `+columns+` FROM "IN"), 100, 256, 100000, 1, true))`, points)
			if len(rows) != len(points) {
				t.Fatalf("%d rows", len(rows))
			}
			var got []float64
			gotParts := make([][]float64, len(rows))
			for i, row := range rows {
				got = append(got, row["S"].(float64))
				var explained map[string]struct {
					Direction string `json:"DIRECTION"`
					Score     string `json:"ATTRIBUTION_SCORE"`
				}
				if err := json.Unmarshal([]byte(row["E"].(string)), &explained); err != nil {
					t.Fatal(row["E"], err)
				}
				sum := 0.0
				for d := range dims {
					v, err := strconv.ParseFloat(explained[string(rune('A'+d))].Score, 64)
					if err != nil {
						t.Fatal(row["E"], err)
					}
					gotParts[i] = append(gotParts[i], v)
					sum += v
				}
				if math.Abs(sum-got[i]) > 0.0002*float64(dims) {
					t.Errorf("row %d has the score %v, and its parts make %v", i, got[i], sum)
				}
				if i < 256 && got[i] != 0 {
					t.Fatalf("row %d has a score while the forest only learns: %v", i, got[i])
				}
			}
			got, want = got[256:], want[256:]
			if c := correlation(ranks(got), ranks(want)); c < 0.9 {
				t.Errorf("the ranks of the scores have the correlation %.3f", c)
			}
			if c := correlation(got, want); c < 0.95 {
				t.Errorf("the scores have the correlation %.3f", c)
			}
			mean := func(v []float64) (sum float64) {
				for _, x := range v {
					sum += x / float64(len(v))
				}
				return
			}
			if g, w := mean(got), mean(want); math.Abs(g-w) > 0.05*w {
				t.Errorf("the mean score is %.4f, want about %.4f", g, w)
			}
			if g, w := slices.Max(got), slices.Max(want); math.Abs(g-w) > 0.2*w {
				t.Errorf("the largest score is %.4f, want about %.4f", g, w)
			}
			for d := range dims {
				var g, w []float64
				for i := 256; i < len(points); i++ {
					g, w = append(g, gotParts[i][d]), append(w, wantParts[i][d])
				}
				if c := correlation(g, w); c < 0.9 {
					t.Errorf("the parts of column %d have the correlation %.3f", d, c)
				}
			}
			t.Logf("rank correlation %.3f, correlation %.3f, means %.4f %.4f, largest %.4f %.4f", correlation(ranks(got), ranks(want)), correlation(got, want), mean(got), mean(want), slices.Max(got), slices.Max(want))
		})
	}
}

// With shingles the forest begins to score behind its sample of full ones, and a
// row without a number neither counts nor scores.
func TestWhereAForestBeginsToScore(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var points [][]float64
	for i := range 60 {
		v := r.NormFloat64()
		if i%10 == 5 {
			v = math.NaN()
		}
		points = append(points, []float64{v})
	}
	rows := stream(t, `CREATE STREAM "OUT" (S DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM ANOMALY_SCORE FROM TABLE(RANDOM_CUT_FOREST(CURSOR(SELECT STREAM A FROM "IN"), 20, 20, 1000, 3))`, points)
	counted := 0
	for i, row := range rows {
		score := row["S"].(float64)
		if math.IsNaN(points[i][0]) {
			if score != 0 {
				t.Errorf("row %d has no number and the score %v", i, score)
			}
			continue
		}
		counted++
		if (score > 0) != (counted > 2+20) {
			t.Errorf("row %d, number %d that counts, has the score %v", i, counted, score)
		}
	}
}

// Hotspots are the clusters that DBSCAN finds, one of each point with every other.
func TestHotspotsAreClusters(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const window, radius, least = 100, 0.5, 6
	var points [][]float64
	for i := range 400 {
		center := float64(i % 5 * 3)
		points = append(points, []float64{center + r.NormFloat64()*float64(i%5)*0.4, center + r.NormFloat64()*0.3, -center})
	}
	points[200][1] = math.NaN()
	rows := stream(t, `CREATE STREAM "OUT" (H VARCHAR(20000)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM HOTSPOTS_RESULT FROM TABLE(HOTSPOTS(CURSOR(SELECT STREAM A, B, C FROM "IN"), 100, 0.5, 6))`, points)
	var last [][]float64
	for i, row := range rows {
		if p := points[i]; !math.IsNaN(p[1]) {
			if last = append(last, p); len(last) > window {
				last = last[1:]
			}
		}
		want := map[string]int{}
		seen := make([]bool, len(last))
		for a := range last {
			if seen[a] {
				continue
			}
			queue, members := []int{a}, 0
			low, high := slices.Clone(last[a]), slices.Clone(last[a])
			seen[a] = true
			for len(queue) > 0 {
				p := last[queue[0]]
				queue = queue[1:]
				members++
				for d, v := range p {
					low[d], high[d] = min(low[d], v), max(high[d], v)
				}
				for b, q := range last {
					if !seen[b] && math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2]) <= radius {
						seen[b] = true
						queue = append(queue, b)
					}
				}
			}
			if members >= least {
				volume := 1.0
				for d := range low {
					if low[d] == high[d] {
						volume *= radius
					} else {
						volume *= high[d] - low[d]
					}
				}
				want[fmt.Sprintf("%.6g %v %v", float64(members)/volume, low, high)]++
			}
		}
		var got struct {
			Hotspots []struct {
				Density              float64
				MinValues, MaxValues []float64
			}
		}
		if err := json.Unmarshal([]byte(row["H"].(string)), &got); err != nil || got.Hotspots == nil {
			t.Fatal(row["H"], err)
		}
		for _, h := range got.Hotspots {
			want[fmt.Sprintf("%.6g %v %v", h.Density, h.MinValues, h.MaxValues)]--
		}
		for k, n := range want {
			if n != 0 {
				t.Fatalf("row %d: %+d %s: %s", i, n, k, row["H"])
			}
		}
	}
}

// Counts of TOP_K are right as long as there are counters for all values; beyond,
// they are at most too large, and what is frequent is never missed.
func TestTopKBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, distinct := range []int{900, 5000} {
		exact := map[float64]float64{}
		var points [][]float64
		for range 3600 {
			v := float64(r.IntN(distinct))
			if r.IntN(2) == 0 {
				v = math.Floor(math.Abs(r.NormFloat64()) * 5)
			}
			exact[v]++
			points = append(points, []float64{v})
		}
		rows := stream(t, `CREATE STREAM "OUT" (A DOUBLE, N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM A, MOST_FREQUENT_VALUES FROM TABLE(TOP_K_ITEMS_TUMBLING(CURSOR(SELECT STREAM A FROM "IN"), 'A', 10, 3600))`, points)
		if len(rows) != 10 {
			t.Fatalf("%d rows: %v", len(rows), rows)
		}
		var counts []float64
		for _, n := range exact {
			counts = append(counts, n)
		}
		slices.SortFunc(counts, func(a, b float64) int { return int(b - a) })
		for i, row := range rows {
			n, true := row["N"].(float64), exact[row["A"].(float64)]
			slack := 0.0
			if len(exact) > 1000 {
				slack = 3600.0 / 1000
			}
			if n < true || n > true+slack || n < counts[i] || n > counts[i]+slack {
				t.Errorf("%d values: number %d is %v with %v, in truth %v; the true count at this place is %v", len(exact), i, row["A"], n, true, counts[i])
			}
		}
	}
}

// Distinct values are counted exactly up to 10,000 of them, and afterwards within
// a few standard errors of 0.81 %.
func TestCountsOfDistinctValues(t *testing.T) {
	for _, n := range []int{1, 100, 9999, 10000, 10001, 20000, 50000, 200000} {
		points := make([][]float64, 0, n)
		for i := range n {
			points = append(points, []float64{float64(i) * 1.37})
		}
		c := newDistinct(t, points)
		if n <= 10000 && c != n {
			t.Errorf("%d values are counted as %d", n, c)
		}
		if e := math.Abs(float64(c)/float64(n) - 1); e > 4*0.0081 {
			t.Errorf("%d values are counted as %d, %.2f %% off", n, c, 100*e)
		}
	}
}

// newDistinct counts the distinct values of one window.
func newDistinct(t *testing.T, points [][]float64) int {
	columns := []plan.ColumnInfo{{Name: "A", Type: typed(t, "DOUBLE")}}
	p, err := plan.Compile(`CREATE STREAM "OUT" (N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM NUMBER_OF_DISTINCT_ITEMS FROM TABLE(COUNT_DISTINCT_ITEMS_TUMBLING(CURSOR(SELECT STREAM A FROM "IN"), 'A', 60))`, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: columns}}}, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := run.New(p, run.Options{Seed: 1, Now: func() time.Time { return programStart }})
	lines := output(t, a)
	a.Start()
	null := plan.Value{Null: true}
	rows := run.NewRows(append(append([]plan.ColumnInfo(nil), columns...), plan.HiddenColumns...))
	for range 2 {
		for _, point := range points {
			rows.Add(0, plan.Value{F: point[0]}, plan.Value{}, null, null, null)
		}
	}
	if err := a.Insert("IN", rows.Batch()); err != nil {
		t.Fatal(err)
	}
	if err := a.Advance("IN", 120_000); err != nil {
		t.Fatal(err)
	}
	if len(*lines) != 1 {
		t.Fatal(*lines)
	}
	_, value, _ := strings.Cut((*lines)[0], `{"N":`)
	n, err := strconv.Atoi(strings.TrimSuffix(value, "}"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
