package run_test

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// The aggregates are computed a second time here, from their definitions and
// with exact numbers, over frames that are found by looking at all rows again.

// fact is a row of the test: when, whose, and what.
type fact struct {
	at  int64
	key string // "" is NULL
	v   plan.Value
}

// frameOf are the rows that one result is of, in order of arrival.
type frameOf struct {
	at   int64 // of the result
	key  string
	rows []fact
}

const minute = int64(60_000)

// windowKinds are ways to put rows into frames: the SQL around an aggregate, and
// what it means.
var windowKinds = []struct {
	name    string
	sliding bool
	sql     func(aggregate string) string
	frames  func(rows []fact, end int64) []frameOf
}{
	{"tumbling", false,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` FROM S GROUP BY K, STEP(S.ROWTIME BY INTERVAL '1' MINUTE)`
		},
		func(rows []fact, _ int64) []frameOf {
			var out []frameOf
			for _, r := range rows {
				end := r.at - r.at%minute + minute
				at := slices.IndexFunc(out, func(f frameOf) bool { return f.at == end && f.key == r.key })
				if at < 0 {
					at = len(out)
					out = append(out, frameOf{at: end, key: r.key})
				}
				out[at].rows = append(out[at].rows, r)
			}
			return out
		}},
	{"stagger", false,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` FROM S WINDOWED BY STAGGER (PARTITION BY K RANGE INTERVAL '1' MINUTE)`
		},
		func(rows []fact, _ int64) []frameOf {
			var out []frameOf
			open := map[string]int{}
			for _, r := range rows {
				at, ok := open[r.key]
				if !ok || r.at >= out[at].at {
					at = len(out)
					open[r.key] = at
					out = append(out, frameOf{at: r.at + minute, key: r.key})
				}
				out[at].rows = append(out[at].rows, r)
			}
			return out
		}},
	{"session", false,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` FROM S WINDOWED BY SESSION (PARTITION BY K GAP INTERVAL '20' SECOND)`
		},
		func(rows []fact, _ int64) []frameOf {
			var out []frameOf
			open := map[string]int{}
			for _, r := range rows {
				at, ok := open[r.key]
				if !ok || r.at >= out[at].at {
					at = len(out)
					open[r.key] = at
					out = append(out, frameOf{key: r.key})
				}
				out[at].at = r.at + 20_000
				out[at].rows = append(out[at].rows, r)
			}
			return out
		}},
	{"sliding range", true,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` OVER (PARTITION BY K RANGE INTERVAL '45' SECOND PRECEDING) FROM S`
		},
		func(rows []fact, _ int64) []frameOf {
			return sliding(rows, func(have []fact, r fact) []fact {
				from := 0
				for have[from].at < r.at-45_000 {
					from++
				}
				return have[from:]
			})
		}},
	{"sliding rows", true,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` OVER (PARTITION BY K ROWS 3 PRECEDING) FROM S`
		},
		func(rows []fact, _ int64) []frameOf {
			return sliding(rows, func(have []fact, _ fact) []fact { return have[max(0, len(have)-4):] })
		}},
	{"one instant", true,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` OVER (PARTITION BY K RANGE CURRENT ROW) FROM S`
		},
		func(rows []fact, _ int64) []frameOf {
			return sliding(rows, func(have []fact, r fact) []fact {
				from := len(have)
				for from > 0 && have[from-1].at == r.at {
					from--
				}
				return have[from:]
			})
		}},
	{"all rows so far", true,
		func(a string) string {
			return `SELECT STREAM K, ` + a + ` OVER (PARTITION BY K ROWS UNBOUNDED PRECEDING) FROM S`
		},
		func(rows []fact, _ int64) []frameOf {
			return sliding(rows, func(have []fact, _ fact) []fact { return have })
		}},
}

func sliding(rows []fact, cut func(have []fact, r fact) []fact) []frameOf {
	var out []frameOf
	have := map[string][]fact{}
	for _, r := range rows {
		have[r.key] = append(have[r.key], r)
		out = append(out, frameOf{r.at, r.key, slices.Clone(cut(have[r.key], r))})
	}
	return out
}

// outcome is an aggregate's value: exact, approximate, NULL, or an error.
type outcome struct {
	null, failed bool
	exact        plan.Value
	near         *float64 // in place of exact
}

var nothing = outcome{null: true}

// overflows reports whether the sum of doubles, added one after the other, ever
// is too large: then it may come out as an error or, in a window that has it from
// other sums, as a number.
func overflows(list []plan.Value) bool {
	total := 0.0
	for _, v := range list {
		if total += math.Abs(v.F); math.IsInf(total, 0) {
			return true
		}
	}
	return false
}

// number is a value as an exact fraction.
func number(v plan.Value, t sql.Type) *big.Rat {
	switch t.Kind {
	case sql.KindDouble, sql.KindReal:
		r := new(big.Rat)
		r.SetFloat64(v.F)
		return r
	case sql.KindDecimal:
		return new(big.Rat).SetFrac(big.NewInt(v.I), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale)), nil))
	}
	return new(big.Rat).SetInt64(v.I)
}

func approximate(t sql.Type) bool { return t.Kind == sql.KindDouble || t.Kind == sql.KindReal }

// stored is a number in a column of a type; truncated to it, an error if it is
// too large.
func stored(r *big.Rat, t sql.Type) outcome {
	if approximate(t) {
		f, _ := r.Float64()
		if math.IsInf(f, 0) || t.Kind == sql.KindReal && math.Abs(f) > math.MaxFloat32 {
			return outcome{failed: true}
		}
		return outcome{near: &f}
	}
	scaled := new(big.Rat).Set(r)
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(18), nil)
	low, high := new(big.Int).Sub(big.NewInt(1), limit), new(big.Int).Sub(limit, big.NewInt(1))
	switch t.Kind {
	case sql.KindDecimal:
		scaled.Mul(scaled, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale)), nil)))
	case sql.KindTinyint:
		low, high = big.NewInt(math.MinInt8), big.NewInt(math.MaxInt8)
	case sql.KindSmallint:
		low, high = big.NewInt(math.MinInt16), big.NewInt(math.MaxInt16)
	case sql.KindInteger:
		low, high = big.NewInt(math.MinInt32), big.NewInt(math.MaxInt32)
	default:
		low, high = big.NewInt(math.MinInt64), big.NewInt(math.MaxInt64)
	}
	i := new(big.Int).Quo(scaled.Num(), scaled.Denom())
	if i.Cmp(low) < 0 || i.Cmp(high) > 0 {
		return outcome{failed: true}
	}
	return outcome{exact: plan.Value{I: i.Int64()}}
}

func values(rows []fact) []plan.Value {
	var list []plan.Value
	for _, r := range rows {
		if !r.v.Null {
			list = append(list, r.v)
		}
	}
	return list
}

func once(list []plan.Value) []plan.Value {
	var out []plan.Value
	for _, v := range list {
		if !slices.ContainsFunc(out, func(o plan.Value) bool { return o.I == v.I && o.F == v.F && o.S == v.S }) {
			out = append(out, v)
		}
	}
	return out
}

func sum(list []plan.Value, t sql.Type) *big.Rat {
	total := new(big.Rat)
	for _, v := range list {
		total.Add(total, number(v, t))
	}
	return total
}

// squares is the sum of the squared distances from the mean.
func squares(list []plan.Value, t sql.Type) *big.Rat {
	mean := sum(list, t)
	mean.Quo(mean, new(big.Rat).SetInt64(int64(len(list))))
	total := new(big.Rat)
	for _, v := range list {
		d := new(big.Rat).Sub(number(v, t), mean)
		total.Add(total, d.Mul(d, d))
	}
	return total
}

func less(a, b plan.Value) int {
	return cmp.Or(cmp.Compare(a.I, b.I), cmp.Compare(a.F, b.F), cmp.Compare(a.S, b.S))
}

func exactly(v plan.Value) outcome {
	if v.Null {
		return nothing
	}
	return outcome{exact: v}
}

// aggregate is one to test: its SQL, for which types, where, and its definition.
type aggregate struct {
	sql            string
	numeric        bool
	boolean        bool
	onlyOver       bool
	neverOver      bool
	adds           bool // values, so that these may become too large on the way
	neverClustered bool // overflow of the squares is out of the question
	of             func(rows []fact, t sql.Type, end int64) outcome
}

func aggregatesToTest() []aggregate {
	list := []aggregate{
		{sql: "COUNT(*)", of: func(rows []fact, _ sql.Type, _ int64) outcome {
			return outcome{exact: plan.Value{I: int64(len(rows))}}
		}},
		{sql: "COUNT(V)", of: func(rows []fact, _ sql.Type, _ int64) outcome {
			return outcome{exact: plan.Value{I: int64(len(values(rows)))}}
		}},
		{sql: "COUNT(DISTINCT V)", of: func(rows []fact, _ sql.Type, _ int64) outcome {
			return outcome{exact: plan.Value{I: int64(len(once(values(rows))))}}
		}},
		{sql: "MIN(V)", of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows); len(list) > 0 {
				return exactly(slices.MinFunc(list, less))
			}
			return nothing
		}},
		{sql: "MAX(DISTINCT V)", of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows); len(list) > 0 {
				return exactly(slices.MaxFunc(list, less))
			}
			return nothing
		}},
		{sql: "FIRST_VALUE(V)", of: func(rows []fact, _ sql.Type, _ int64) outcome { return exactly(rows[0].v) }},
		{sql: "LAST_VALUE(V)", of: func(rows []fact, _ sql.Type, _ int64) outcome { return exactly(rows[len(rows)-1].v) }},
		{sql: "ANY(V)", boolean: true, neverOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			list := values(rows)
			if list == nil {
				return nothing
			}
			return exactly(plan.Value{I: slices.MaxFunc(list, less).I})
		}},
		{sql: "EVERY(V)", boolean: true, neverOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			list := values(rows)
			if list == nil {
				return nothing
			}
			return exactly(plan.Value{I: slices.MinFunc(list, less).I})
		}},
		{sql: "EXP_AVG(V, INTERVAL '10' SECOND)", numeric: true, of: func(rows []fact, t sql.Type, end int64) outcome {
			above, below := 0.0, 0.0
			for _, r := range rows {
				if !r.v.Null {
					f, _ := number(r.v, t).Float64()
					w := math.Exp2(-float64(rows[len(rows)-1].at-r.at) / 10_000)
					above, below = above+w*f, below+w
				}
			}
			if below == 0 {
				return nothing
			}
			mean := above / below
			return outcome{near: &mean}
		}},
		{sql: "FIRST_VALUE(V) IGNORE NULLS", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows); len(list) > 0 {
				return exactly(list[0])
			}
			return nothing
		}},
		{sql: "LAST_VALUE(V) IGNORE NULLS", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows); len(list) > 0 {
				return exactly(list[len(list)-1])
			}
			return nothing
		}},
		{sql: "LAG(V)", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if len(rows) < 2 {
				return nothing
			}
			return exactly(rows[len(rows)-2].v)
		}},
		{sql: "LAG(V, 2, V)", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if len(rows) < 3 {
				return exactly(rows[len(rows)-1].v)
			}
			return exactly(rows[len(rows)-3].v)
		}},
		{sql: "LAG(V, 1) IGNORE NULLS", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows[:len(rows)-1]); len(list) > 0 {
				return exactly(list[len(list)-1])
			}
			return nothing
		}},
		{sql: "NTH_VALUE(V, 2)", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if len(rows) < 2 {
				return nothing
			}
			return exactly(rows[1].v)
		}},
		{sql: "NTH_VALUE(V, 3) FROM LAST", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if len(rows) < 3 {
				return nothing
			}
			return exactly(rows[len(rows)-3].v)
		}},
		{sql: "NTH_VALUE(V, 2) FROM FIRST IGNORE NULLS", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows); len(list) > 1 {
				return exactly(list[1])
			}
			return nothing
		}},
		{sql: "NTH_VALUE(V, 2) FROM LAST IGNORE NULLS", onlyOver: true, of: func(rows []fact, _ sql.Type, _ int64) outcome {
			if list := values(rows); len(list) > 1 {
				return exactly(list[len(list)-2])
			}
			return nothing
		}},
	}
	for _, distinct := range []bool{false, true} {
		word, of := "", func(list []plan.Value) []plan.Value { return list }
		if distinct {
			word, of = "DISTINCT ", once
		}
		list = append(list,
			aggregate{sql: "SUM(" + word + "V)", numeric: true, adds: true, of: func(rows []fact, t sql.Type, _ int64) outcome {
				v := of(values(rows))
				if len(v) == 0 {
					return nothing
				}
				return stored(sum(v, t), t)
			}},
			aggregate{sql: "AVG(" + word + "V)", numeric: true, adds: true, of: func(rows []fact, t sql.Type, _ int64) outcome {
				v := of(values(rows))
				if len(v) == 0 {
					return nothing
				}
				total := sum(v, t)
				if t.Kind == sql.KindReal {
					t.Kind = sql.KindDouble
				}
				return stored(total.Quo(total, new(big.Rat).SetInt64(int64(len(v)))), t)
			}})
		for _, f := range []string{"VAR_POP", "VAR_SAMP", "STDDEV_POP", "STDDEV_SAMP"} {
			sample, root := int64(0), strings.HasPrefix(f, "STDDEV")
			if strings.HasSuffix(f, "SAMP") {
				sample = 1
			}
			list = append(list, aggregate{sql: f + "(" + word + "V)", numeric: true, neverClustered: true, of: func(rows []fact, t sql.Type, _ int64) outcome {
				v := of(values(rows))
				n := int64(len(v)) - sample
				if n <= 0 {
					return nothing
				}
				s := squares(v, t)
				f, _ := s.Quo(s, new(big.Rat).SetInt64(n)).Float64()
				if root {
					f = math.Sqrt(f)
				}
				return outcome{near: &f}
			}})
		}
	}
	return list
}

// typesToTest have ordinary values and extreme ones.
var typesToTest = []struct {
	sql               string
	numeric           bool
	ordinary, extreme []plan.Value
}{
	{"TINYINT", true, ints(1, 2, 3, -4, 0, 1), ints(127, 127, -128, -128, 100)},
	{"SMALLINT", true, ints(100, 200, -300, 0, 7), ints(32767, 32767, -32768, -32768)},
	{"INTEGER", true, ints(29, 32, -5, 0, 1_000_000), ints(math.MaxInt32, math.MaxInt32, math.MinInt32, math.MinInt32, 1)},
	{"BIGINT", true, ints(29, 32, -5, 0, 1_000_000_000_000), ints(math.MaxInt64, math.MaxInt64, math.MinInt64, math.MinInt64, 1)},
	{"DECIMAL(10,2)", true, ints(150, -275, 0, 1, 33333), ints(9_999_999_999, -9_999_999_999)},
	{"DECIMAL(18,4)", true, ints(15000, -27500, 0, 1), ints(999_999_999_999_999_999, 999_999_999_999_999_999, -999_999_999_999_999_999)},
	{"DOUBLE", true, floats(1.5, -2.25, 0, 3e10, 0.1, 0.2), floats(1.7e308, 1.7e308, -1.7e308, -1.7e308, 1e-300)},
	{"REAL", true, floats(1.5, -2.25, 0, 1024, 0.125), floats(3e38, 3e38, -3e38)},
	{"VARCHAR(10)", false, texts("b", "a", "", "ab", "Z", "é"), nil},
	{"CHAR(3)", false, texts("b  ", "a  ", "   ", "abc"), nil},
	{"VARBINARY(4)", false, texts("\x00", "\xff\x01", "a"), nil},
	{"BOOLEAN", false, ints(0, 1), nil},
	{"DATE", false, ints(0, 86400000, -86400000), nil},
	{"TIME", false, ints(0, 86399999, 1), nil},
	{"TIMESTAMP", false, ints(0, 1767225600123, -1), nil},
}

func ints(list ...int64) (out []plan.Value) {
	for _, i := range list {
		out = append(out, plan.Value{I: i})
	}
	return out
}

func floats(list ...float64) (out []plan.Value) {
	for _, f := range list {
		out = append(out, plan.Value{F: f})
	}
	return out
}

func texts(list ...string) (out []plan.Value) {
	for _, s := range list {
		out = append(out, plan.Value{S: s})
	}
	return out
}

const testStart = int64(1772445600000) // 2026-03-02 10:00:00

// facts draws rows over some minutes, with gaps, equal instants and NULLs.
func facts(r *rand.Rand, pool []plan.Value, n int) []fact {
	at := testStart
	var rows []fact
	for range n {
		switch r.IntN(5) {
		case 0:
		case 1:
			at += 20_000
		case 2:
			at += minute - at%minute // on the border
		default:
			at += r.Int64N(15_000)
		}
		f := fact{at: at, key: []string{"", "a", "b"}[r.IntN(3)], v: plan.Value{Null: true}}
		if r.IntN(4) > 0 && len(pool) > 0 {
			f.v = pool[r.IntN(len(pool))]
		}
		rows = append(rows, f)
	}
	return rows
}

func TestAggregates(t *testing.T) {
	seed := uint64(20260302)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, typ := range typesToTest {
		columnType := typed(t, typ.sql)
		sets := map[string][]plan.Value{"ordinary": typ.ordinary, "only NULL": nil}
		if typ.extreme != nil {
			sets["extreme"] = typ.extreme
		}
		for _, set := range []string{"ordinary", "extreme", "only NULL"} {
			pool, ok := sets[set]
			if !ok {
				continue
			}
			rows := facts(r, pool, 40)
			end := rows[len(rows)-1].at + 10*minute
			for _, kind := range windowKinds {
				for _, a := range aggregatesToTest() {
					switch {
					case a.numeric && !typ.numeric, a.boolean && typ.sql != "BOOLEAN",
						a.onlyOver && !kind.sliding, a.neverOver && kind.sliding,
						set == "extreme" && approximate(columnType) && (a.neverClustered || strings.HasPrefix(a.sql, "EXP_AVG")):
						continue
					}
					name := fmt.Sprintf("%s of %s, %s, %s", a.sql, typ.sql, set, kind.name)
					var want []string
					for _, f := range kind.frames(rows, end) {
						o := a.of(f.rows, columnType, f.at)
						switch {
						case set == "extreme" && typ.sql == "DOUBLE" && a.adds && overflows(values(f.rows)):
							want = append(want, fmt.Sprintf("%d %q ?", f.at-testStart, f.key))
						case !o.failed:
							want = append(want, resultLine(f.at, f.key, o))
						}
					}
					checkAggregate(t, name, typ.sql, kind.sql(a.sql), rows, end, want, kind.sliding)
				}
			}
		}
	}
	t.Log("seed", seed)
}

func resultLine(at int64, key string, o outcome) string {
	line := fmt.Sprintf("%d %q ", at-testStart, key)
	switch {
	case o.null:
		return line + "NULL"
	case o.near != nil:
		return line + "~" + fmt.Sprint(*o.near)
	}
	return line + fmt.Sprintf("%d %v %q", o.exact.I, o.exact.F, o.exact.S)
}

// checkAggregate runs a query and compares its rows, in order if it is a sliding
// one and else by time.
func checkAggregate(t *testing.T, name, typ, query string, rows []fact, end int64, want []string, ordered bool) {
	t.Helper()
	columns := []plan.ColumnInfo{{Name: "K", Type: typed(t, "VARCHAR(4)")}, {Name: "V", Type: typed(t, typ)}}
	catalog := plan.Catalog{Sources: []plan.Relation{{Name: "S", Columns: columns}}}
	var program *plan.Program
	var err error
	// The type of the result is the plan's to say.
	for _, to := range []string{"VARCHAR(65535)", "DOUBLE", "BOOLEAN", "DATE", "TIME", "TIMESTAMP", "VARBINARY(65535)"} {
		if program, err = plan.Compile(`CREATE STREAM "OUT" (K VARCHAR(4), R `+to+`); CREATE PUMP P AS INSERT INTO "OUT" `+query, catalog, plan.Options{Extensions: true}); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	result := program.Pumps[0].Root.(*plan.Project).Input.Columns()[1].Type
	program, err = plan.Compile(`CREATE STREAM "OUT" (K VARCHAR(4), R `+result.String()+`); CREATE PUMP P AS INSERT INTO "OUT" `+query, catalog, plan.Options{Extensions: true})
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	now := testStart
	app := run.New(program, run.Options{Now: func() time.Time { return time.UnixMilli(now) }})
	var got []string
	if err := app.Tap("OUT", func(b *run.Batch) {
		for _, i := range b.Sel {
			at := fmt.Sprintf("%d %q ", b.Time[i]-testStart, b.Value(program.Streams[1].Columns, 0, i).S)
			switch v := b.Value(program.Streams[1].Columns, 1, i); {
			case v.Null:
				got = append(got, at+"NULL")
			case approximate(result):
				got = append(got, at+fmt.Sprintf("0 %v \"\"", v.F))
			default:
				got = append(got, at+fmt.Sprintf("%d %v %q", v.I, v.F, v.S))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	app.Start()
	hidden := []plan.Value{{I: 0}, {Null: true}, {Null: true}, {Null: true}}
	for i := 0; i < len(rows); {
		in := run.NewRows(append(slices.Clone(columns), plan.HiddenColumns...))
		for n := 0; n < 1+len(rows)/3 && i < len(rows); n, i = n+1, i+1 {
			f := rows[i]
			in.Add(f.at, append([]plan.Value{{S: f.key, Null: f.key == ""}, f.v}, hidden...)...)
			now = f.at
		}
		b := in.Batch()
		spoil := b.Lend()
		if err := app.Insert("S", b); err != nil {
			t.Fatal(err)
		}
		spoil()
	}
	if err := app.Advance("S", end); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if head, _, either := strings.Cut(w, "?"); either {
			about := func(line string) bool { return strings.HasPrefix(line, head) }
			got, want = slices.DeleteFunc(got, about), slices.DeleteFunc(slices.Clone(want), about)
		}
	}
	if !ordered {
		sort.Strings(got)
		sort.Strings(want)
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d rows, want %d\n%s\nwant\n%s", name, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
		return
	}
	for i := range want {
		if !sameResult(got[i], want[i]) {
			t.Errorf("%s: row %d is %s, want %s", name, i+1, got[i], want[i])
			return
		}
	}
}

// sameResult compares lines; behind ~ is an approximate number.
func sameResult(got, want string) bool {
	head, near, ok := strings.Cut(want, "~")
	if !ok {
		return got == want
	}
	var g, w float64
	var i int64
	rest, found := strings.CutPrefix(got, head)
	if !found {
		return false
	}
	if _, err := fmt.Sscan(rest, &i, &g); err != nil {
		return false
	}
	if _, err := fmt.Sscan(near, &w); err != nil {
		return false
	}
	return math.Abs(g-w) <= 1e-9*math.Max(math.Abs(w), math.Abs(g)) || math.Abs(g-w) < 1e-9 || float32(g) == float32(w)
}
