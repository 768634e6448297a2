package run_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// peer is DuckDB at the other end of a pipe.
type peer struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

func startPeer(t testing.TB) *peer {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	python := filepath.Join(dir, ".cache", "formats", "bin", "python")
	if _, err := os.Stat(python); errors.Is(err, fs.ErrNotExist) {
		if os.Getenv("PEERS") == "required" {
			t.Fatal("DuckDB is not installed: scripts/install formats")
		}
		t.Skip("DuckDB is not installed: scripts/install formats")
	}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "duckdb_peer.py"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &peer{t, in, bufio.NewReaderSize(out, 1<<20)}
}

// say sends an order and returns the answer's rows.
func (p *peer) say(order map[string]any) ([][]*string, error) {
	raw, err := json.Marshal(order)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(raw, '\n')); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	var answer struct {
		Rows  [][]*string `json:"rows"`
		Error string      `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		p.t.Fatal(err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Rows, nil
}

// both is a piece of SQL in the dialect and in DuckDB's.
type both struct{ m, d string }

func same(format string, args ...any) both {
	m, d := make([]any, len(args)), make([]any, len(args))
	for i, a := range args {
		if b, ok := a.(both); ok {
			m[i], d[i] = b.m, b.d
		} else {
			m[i], d[i] = a, a
		}
	}
	return both{fmt.Sprintf(format, m...), fmt.Sprintf(format, d...)}
}

// frameStart is where a frame begins, which is not 0 PRECEDING.
func frameStart(n int, preceding string) string {
	if n == 0 {
		return "CURRENT ROW"
	}
	return fmt.Sprintf(preceding, n)
}

func differ(mine, duck string, args ...any) both {
	return both{same(mine, args...).m, same(duck, args...).d}
}

// sort of a value, with the type of the column that takes it.
type kind int

const (
	kInt kind = iota
	kDec
	kFloat
	kText
	kBool
	kTime
	kDate
	kinds
)

var kindTypes = [...]string{"BIGINT", "DECIMAL(18,4)", "DOUBLE", "VARCHAR(250)", "BOOLEAN", "TIMESTAMP", "DATE"}

// drawer draws queries.
type drawer struct {
	*rand.Rand
	// columns that can be named, by kind
	columns [kinds][]string
}

func (r *drawer) pick(list ...string) string { return list[r.IntN(len(list))] }

var streamColumns = [kinds][]string{kInt: {"I", "J"}, kDec: {"D"}, kFloat: {"F"}, kText: {"V", "W"}, kBool: {"BO"}, kTime: {"TS"}, kDate: {"DT"}}

func (r *drawer) leaf(k kind) both {
	if c := r.columns[k]; len(c) > 0 && r.IntN(3) > 0 {
		return same("%s", r.pick(c...))
	}
	switch k {
	case kInt:
		return same("%d", r.IntN(21))
	case kDec:
		return same("CAST(%d.%02d AS DECIMAL(8,2))", r.IntN(100), r.IntN(100))
	case kFloat:
		return same("%d.25e0", r.IntN(50))
	case kText:
		return same("CAST('%s' AS VARCHAR(12))", r.pick("", "a", "b", "ab", "aB", "x%y", "a_b", "é", "Zz", "10"))
	case kBool:
		return same("%s", r.pick("TRUE", "FALSE"))
	case kTime:
		return same("TIMESTAMP '2026-0%d-%02d %02d:%02d:%02d'", 1+r.IntN(9), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60))
	}
	return same("DATE '2026-0%d-%02d'", 1+r.IntN(9), 1+r.IntN(28))
}

// expr draws an expression of a kind, of which nothing fails.
func (r *drawer) expr(k kind, depth int) both {
	if depth <= 0 {
		return r.leaf(k)
	}
	d := depth - 1
	switch r.IntN(8) {
	case 0:
		return r.leaf(k)
	case 1: // CASE, searched
		out := same("CASE WHEN %s THEN %s", r.expr(kBool, d), r.expr(k, d))
		if r.IntN(2) == 0 {
			out = same("%s WHEN %s THEN %s", out, r.expr(kBool, d), r.expr(k, d))
		}
		if r.IntN(3) > 0 {
			out = same("%s ELSE %s", out, r.expr(k, d))
		}
		return same("%s END", out)
	case 2: // CASE, simple
		o := kind(r.IntN(int(kinds)))
		return same("CASE %s WHEN %s THEN %s WHEN %s THEN %s ELSE %s END", r.expr(o, d), r.expr(o, d), r.expr(k, d), r.expr(o, d), r.expr(k, d), r.expr(k, d))
	case 3:
		if r.IntN(2) == 0 {
			return same("NULLIF(%s, %s)", r.expr(k, d), r.expr(k, d))
		}
		return same("COALESCE(%s, %s, %s)", r.expr(k, d), r.expr(k, d), r.expr(k, d))
	}
	switch k {
	case kInt:
		switch r.IntN(12) {
		case 0:
			return same("(%s * %s)", r.leaf(kInt), r.leaf(kInt))
		case 1:
			return differ("(%s / %d)", "(%s // %d)", r.expr(kInt, d), 1+r.IntN(7))
		case 2:
			return differ("MOD(%s, %d)", "(%s %% %d)", r.expr(kInt, d), 1+r.IntN(7))
		case 3:
			return same("ABS(%s)", r.expr(kInt, d))
		case 4:
			return differ("CHAR_LENGTH(%s)", "length(%s)", r.expr(kText, d))
		case 5:
			return same("POSITION(%s IN %s)", r.leaf(kText), r.expr(kText, d))
		case 6:
			return same("EXTRACT(%s FROM %s)", r.pick("YEAR", "MONTH", "DAY", "HOUR", "MINUTE"), r.expr(kTime, d))
		case 7:
			return same("CAST(%s AS INTEGER)", r.leaf(kDec))
		case 8:
			return differ("CAST((%s - %s) SECOND(10) AS BIGINT)", "((epoch_ms(%s) - epoch_ms(%s)) // 1000)", r.expr(kTime, d), r.expr(kTime, d))
		case 9:
			return differ("TSDIFF(%s, %s)", "(epoch_ms(%s) - epoch_ms(%s))", r.expr(kTime, d), r.expr(kTime, d))
		}
		return same("(%s %s %s)", r.expr(kInt, d), r.pick("+", "-"), r.expr(kInt, d))
	case kDec:
		switch r.IntN(5) {
		case 0:
			return same("(%s * %s)", r.leaf(kDec), r.leaf(kDec))
		case 1:
			return same("(%s * %s)", r.leaf(kDec), r.leaf(kInt))
		case 2:
			return same("ABS(%s)", r.leaf(kDec))
		case 3:
			return same("%s(%s)", r.pick("FLOOR", "CEIL"), r.leaf(kDec))
		}
		return same("(%s %s %s)", r.leaf(kDec), r.pick("+", "-"), r.leaf(kDec))
	case kFloat:
		switch r.IntN(6) {
		case 0:
			return same("(%s * %s)", r.expr(kFloat, d), r.leaf(kFloat))
		case 1:
			return same("(%s / %d.5e0)", r.expr(kFloat, d), 1+r.IntN(9))
		case 2:
			return same("%s(%s)", r.pick("FLOOR", "CEIL", "ABS"), r.expr(kFloat, d))
		case 3:
			return same("(%s + %s)", r.expr(kFloat, d), r.expr(kInt, d))
		case 4:
			return same("SQRT(ABS(%s))", r.expr(kFloat, d))
		}
		return same("(%s %s %s)", r.expr(kFloat, d), r.pick("+", "-"), r.expr(kFloat, d))
	case kText:
		switch r.IntN(10) {
		case 0:
			return same("%s(%s)", r.pick("UPPER", "LOWER"), r.expr(kText, d))
		case 1:
			return same("SUBSTRING(%s FROM %d FOR %d)", r.expr(kText, d), 1+r.IntN(4), r.IntN(4))
		case 2:
			return same("SUBSTRING(%s FROM %d)", r.expr(kText, d), 1+r.IntN(3))
		case 3:
			side := r.IntN(3)
			return differ("TRIM("+[]string{"LEADING", "TRAILING", "BOTH"}[side]+" 'a' FROM %s)", []string{"ltrim", "rtrim", "trim"}[side]+"(%s, 'a')", r.expr(kText, d))
		case 4:
			return same("CAST(%s AS VARCHAR(24))", r.expr(kInt, d))
		case 5:
			return differ("REGEX_REPLACE(%s, '[a-f]+', '-', 1, 0)", "regexp_replace(%s, '[a-f]+', '-', 'g')", r.expr(kText, d))
		case 6:
			return differ("OVERLAY(%s PLACING 'xy' FROM %[2]d FOR %[3]d)", "(substring(%[1]s, 1, %[2]d - 1) || 'xy' || substring(%[1]s, %[2]d + %[3]d))", r.expr(kText, d), 1+r.IntN(3), r.IntN(3))
		case 7:
			return differ("TIMESTAMP_TO_CHAR('yyyy/MM/dd HH:mm', COALESCE(%s, TIMESTAMP '2020-01-01 00:00:00'))", "strftime(COALESCE(%s, TIMESTAMP '2020-01-01 00:00:00'), '%%Y/%%m/%%d %%H:%%M')", r.leaf(kTime))
		}
		return same("(%s || %s)", r.leaf(kText), r.expr(kText, d))
	case kTime:
		switch r.IntN(5) {
		case 0:
			u := r.pick("SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR")
			return differ("FLOOR(%s TO "+u+")", "CAST(date_trunc('"+u+"', %s) AS TIMESTAMP)", r.expr(kTime, d))
		case 1:
			n := 1 + r.IntN(50)
			return differ("STEP(%s BY INTERVAL '%[2]d' SECOND)", "time_bucket(INTERVAL %[2]d SECOND, %[1]s, TIMESTAMP '1970-01-01')", r.expr(kTime, d), n)
		case 2:
			return same("CAST(%s AS TIMESTAMP)", r.leaf(kDate))
		}
		return same("(%s %s INTERVAL '%d' %s)", r.expr(kTime, d), r.pick("+", "-"), 1+r.IntN(50), r.pick("SECOND", "MINUTE", "HOUR", "DAY", "MONTH"))
	case kDate:
		return same("CAST(%s AS DATE)", r.expr(kTime, d))
	}
	// conditions
	o := kind(r.IntN(int(kinds)))
	switch r.IntN(12) {
	case 0:
		return same("(%s AND %s)", r.expr(kBool, d), r.expr(kBool, d))
	case 1:
		return same("(%s OR %s)", r.expr(kBool, d), r.expr(kBool, d))
	case 2:
		return same("(NOT %s)", r.expr(kBool, d))
	case 3:
		return same("(%s IS%s NULL)", r.expr(o, d), r.pick("", " NOT"))
	case 4:
		what := r.pick("TRUE", "FALSE", "NULL")
		not := r.pick("", " NOT")
		mine := what
		if what == "NULL" {
			mine = "UNKNOWN"
		}
		distinct := " NOT"
		if not != "" {
			distinct = ""
		}
		return differ("(%s IS"+not+" "+mine+")", "(%s IS"+distinct+" DISTINCT FROM "+what+")", r.expr(kBool, d))
	case 5:
		return same("(%s IS%s DISTINCT FROM %s)", r.expr(o, d), r.pick("", " NOT"), r.expr(o, d))
	case 6:
		return same("(%s%s BETWEEN %s AND %s)", r.expr(o, d), r.pick("", " NOT"), r.expr(o, d), r.expr(o, d))
	case 7:
		return same("(%s%s IN (%s, %s, %s))", r.expr(o, d), r.pick("", " NOT"), r.expr(o, d), r.expr(o, d), r.leaf(o))
	case 8:
		return same("(%s%s LIKE '%s')", r.expr(kText, d), r.pick("", " NOT"), r.pick("a%", "%b", "_", "%", "a_b", "%a%b%", ""))
	case 9:
		return same("(%s LIKE '%s' ESCAPE '!')", r.expr(kText, d), r.pick("x!%y", "a!_%", "%!%%"))
	}
	return same("(%s %s %s)", r.expr(o, d), r.pick("=", "<>", "<", "<=", ">", ">="), r.expr(o, d))
}

// aggregate draws an aggregate. over is set in windows.
func (r *drawer) aggregate(over bool) (both, kind) {
	distinct := r.pick("", "", "", "DISTINCT ")
	switch r.IntN(11) {
	case 0:
		return same("COUNT(*)"), kInt
	case 1:
		return same("COUNT(%s%s)", distinct, r.expr(kind(r.IntN(int(kinds))), 1)), kInt
	case 2:
		return same("SUM(%s%s)", distinct, r.expr(kInt, 1)), kInt
	case 3:
		return same("SUM(%s%s)", distinct, r.leaf(kDec)), kDec
	case 4:
		return same("SUM(%s)", r.expr(kFloat, 1)), kFloat
	case 5:
		x := r.expr(kInt, 1)
		if over {
			return same("COUNT(%s)", x), kInt
		}
		return differ("AVG("+distinct+"%s)", "(SUM("+distinct+"%[1]s) // COUNT("+distinct+"%[1]s))", x), kInt
	case 6:
		return same("AVG(%s%s)", distinct, r.expr(kFloat, 1)), kFloat
	case 7:
		return same("%s(%s%s)", r.pick("STDDEV_POP", "STDDEV_SAMP", "VAR_POP", "VAR_SAMP"), distinct, r.expr(kFloat, 1)), kFloat
	case 8:
		if over {
			k := kind(r.IntN(int(kinds)))
			f := r.pick("FIRST_VALUE", "LAST_VALUE")
			nulls := r.pick("", "IGNORE NULLS", "RESPECT NULLS")
			x := r.expr(k, 1)
			return both{f + "(" + x.m + ") " + nulls, f + "(" + x.d + " " + nulls + ")"}, k
		}
		return differ(r.pick("ANY", "EVERY")+"(%s)", "", r.expr(kBool, 1)).duckBool(), kBool
	case 9:
		if over {
			k := kind(r.IntN(int(kinds)))
			n := 1 + r.IntN(4)
			x := r.expr(k, 1)
			return both{fmt.Sprintf("NTH_VALUE(%s, %d)", x.m, n), fmt.Sprintf("NTH_VALUE(%s, %d)", x.d, n)}, k
		}
		k := kind(r.IntN(int(kinds)))
		x := r.expr(k, 1)
		if r.IntN(2) == 0 {
			return differ("FIRST_VALUE(%s)", "first(%s ORDER BY SEQ)", x), k
		}
		return differ("LAST_VALUE(%s)", "last(%s ORDER BY SEQ)", x), k
	}
	k := kind(r.IntN(int(kinds)))
	for k == kBool {
		k = kind(r.IntN(int(kinds)))
	}
	return same("%s(%s)", r.pick("MIN", "MAX"), r.expr(k, 1)), k
}

// duckBool is ANY and EVERY there.
func (b both) duckBool() both {
	name, arg, _ := strings.Cut(b.m, "(")
	if name == "ANY" {
		b.d = "bool_or(" + arg
	} else {
		b.d = "bool_and(" + arg
	}
	return b
}

// question is a query with the types of its columns.
type question struct {
	both
	types   []kind
	ordered bool // rows come in order of their first column
	timed   bool // DuckDB's first column is the row's time
}

// question draws a query.
func (r *drawer) question() question {
	r.columns = streamColumns
	switch r.IntN(12) {
	case 0, 1, 2:
		return r.projection()
	case 3, 4, 5:
		return r.grouped()
	case 6, 7:
		return r.sliding()
	case 8:
		return r.lookup()
	case 9:
		return r.streamJoin()
	case 10:
		return r.nested()
	}
	return r.subqueries()
}

func (r *drawer) where(k int) both {
	if r.IntN(2) == 0 {
		return both{}
	}
	return same(" WHERE %s", r.expr(kBool, k))
}

func list(parts []both) both {
	var m, d []string
	for _, p := range parts {
		m, d = append(m, p.m), append(d, p.d)
	}
	return both{strings.Join(m, ", "), strings.Join(d, ", ")}
}

func (r *drawer) projection() question {
	q := question{types: []kind{kInt}, ordered: true}
	items := []both{same("SEQ")}
	for range 1 + r.IntN(4) {
		k := kind(r.IntN(int(kinds)))
		q.types = append(q.types, k)
		items = append(items, r.expr(k, 3))
	}
	q.both = differ("SELECT STREAM %s FROM S%s", "SELECT %s FROM S%s ORDER BY SEQ", list(items), r.where(3))
	return q
}

func (r *drawer) grouped() question {
	q := question{timed: true}
	var items, keys []both
	for range r.IntN(3) {
		k := kind(r.IntN(int(kinds)))
		e := r.expr(k, 1)
		if strings.Trim(e.d, "0123456789") == "" {
			continue // an ordinal there
		}
		q.types = append(q.types, k)
		items, keys = append(items, e), append(keys, e)
	}
	for range 1 + r.IntN(4) {
		a, k := r.aggregate(false)
		q.types = append(q.types, k)
		items = append(items, a)
	}
	n := []int{10, 30, 60, 7}[r.IntN(4)]
	keys = append(keys, both{fmt.Sprintf("STEP(S.ROWTIME BY INTERVAL '%d' SECOND)", n), fmt.Sprintf("time_bucket(INTERVAL %d SECOND, RT, TIMESTAMP '1970-01-01')", n)})
	having := both{}
	if r.IntN(3) == 0 {
		having = same(" HAVING %s", r.pick("COUNT(*) > 1", "MIN(I) < 3", "SUM(J) IS NOT NULL AND MAX(F) > 0e0", "COUNT(V) = 1 OR COUNT(W) = 2"))
	}
	q.both = differ("SELECT STREAM %[1]s FROM S%[2]s GROUP BY %[3]s%[4]s", "SELECT "+keys[len(keys)-1].d+fmt.Sprintf(" + INTERVAL %d SECOND, ", n)+"%[1]s FROM S%[2]s GROUP BY %[3]s%[4]s", list(items), r.where(2), list(keys), having)
	return q
}

func (r *drawer) sliding() question {
	q := question{types: []kind{kInt}, ordered: true}
	items := []both{same("SEQ")}
	partition := r.pick("", "PARTITION BY I ", "PARTITION BY V, BO ", "PARTITION BY MOD(J, 3) ")
	duck := strings.ReplaceAll(partition, "MOD(J, 3)", "J % 3")
	var w both
	if n := r.IntN(30); r.IntN(2) == 0 {
		w = both{fmt.Sprintf("(%sROWS %s)", partition, frameStart(n, "%d PRECEDING")), fmt.Sprintf("(%sORDER BY SEQ ROWS BETWEEN %d PRECEDING AND CURRENT ROW)", duck, n)}
	} else {
		w = both{fmt.Sprintf("(%sRANGE %s)", partition, frameStart(n, "INTERVAL '%d' SECOND PRECEDING")),
			fmt.Sprintf("(%sORDER BY epoch_ms(RT) * 1000 + PEER RANGE BETWEEN %d + PEER PRECEDING AND CURRENT ROW)", duck, n*1_000_000)}
	}
	for range 1 + r.IntN(3) {
		a, k := r.aggregate(true)
		q.types = append(q.types, k)
		items = append(items, same("%s OVER %s", a, w))
	}
	q.both = differ("SELECT STREAM %s FROM S%s", "SELECT %s FROM S%s ORDER BY SEQ", list(items), r.where(1))
	return q
}

func (r *drawer) lookup() question {
	q := question{types: []kind{kInt}}
	r.columns = [kinds][]string{kInt: {"S.I", "S.J", "T.I"}, kDec: {"S.D"}, kFloat: {"T.F"}, kText: {"S.V", "T.V"}, kBool: {"S.BO"}, kTime: {"S.TS"}, kDate: {"S.DT"}}
	items := []both{same("S.SEQ")}
	for range 1 + r.IntN(3) {
		k := kind(r.IntN(int(kinds)))
		q.types = append(q.types, k)
		items = append(items, r.expr(k, 2))
	}
	on := r.pick("S.I = T.I", "S.V = T.V", "S.I = T.I AND S.V <> T.V", "S.I < T.I AND T.F > 3e0", "S.D = T.I", "S.I = T.I OR S.V = T.V", "T.I = S.J + 1 AND T.V IS NOT NULL")
	q.both = differ("SELECT STREAM %s FROM S %s JOIN T ON %s%s", "SELECT %s FROM S %s JOIN T ON %s%s", list(items), r.pick("INNER", "LEFT"), on, r.where(1))
	return q
}

func (r *drawer) streamJoin() question {
	q := question{types: []kind{kInt, kInt}, timed: true}
	kindOf := r.pick("INNER", "LEFT", "RIGHT", "FULL")
	wl, wr := r.IntN(15), r.IntN(15)
	on := r.pick("L.I = R.I", "L.V = R.V AND L.J <> R.J", "L.I = R.I AND L.F < R.F", "L.I < R.J AND L.V = R.W")
	condition := fmt.Sprintf("(%s) AND (L.RT <= R.RT AND R.RT <= L.RT + INTERVAL %d SECOND OR R.RT <= L.RT AND L.RT <= R.RT + INTERVAL %d SECOND)", on, wl, wr)
	at := fmt.Sprintf("CASE WHEN R.SEQ IS NULL THEN L.RT + INTERVAL %d SECOND WHEN L.SEQ IS NULL THEN R.RT + INTERVAL %d SECOND ELSE GREATEST(L.RT, R.RT) END", wl, wr)
	extra := r.leafOf("L", "R")
	q.types = append(q.types, extra.k)
	q.both = both{
		fmt.Sprintf("SELECT STREAM L.SEQ, R.SEQ, %s FROM S OVER (RANGE INTERVAL '%d' SECOND PRECEDING) AS L %s JOIN S2 OVER (RANGE INTERVAL '%d' SECOND PRECEDING) AS R ON %s", extra.name, wl, kindOf, wr, on),
		fmt.Sprintf("SELECT %s, L.SEQ, R.SEQ, %s FROM S AS L %s JOIN S2 AS R ON %s", at, extra.name, kindOf, condition),
	}
	return q
}

type named struct {
	name string
	k    kind
}

func (r *drawer) leafOf(aliases ...string) named {
	k := kind(r.IntN(int(kinds)))
	return named{r.pick(aliases...) + "." + r.pick(streamColumns[k]...), k}
}

// nested are queries over queries.
func (r *drawer) nested() question {
	x, kx := r.aggregate(false)
	switch r.IntN(4) {
	case 0: // a filter over groups
		q := question{types: []kind{kInt, kx}, timed: true}
		q.both = differ("SELECT STREAM G, A FROM (SELECT STREAM J AS G, %s AS A FROM S GROUP BY J, STEP(S.ROWTIME BY INTERVAL '20' SECOND)) AS Q WHERE G > 0",
			"SELECT WIN, G, A FROM (SELECT time_bucket(INTERVAL 20 SECOND, RT, TIMESTAMP '1970-01-01') + INTERVAL 20 SECOND AS WIN, J AS G, %s AS A FROM S GROUP BY J, WIN) AS Q WHERE G > 0", x)
		return q
	case 1: // both streams
		q := question{types: []kind{kInt, kText}, timed: true}
		q.both = differ("SELECT STREAM I, V FROM S%[1]s UNION ALL SELECT STREAM J, W FROM S2%[1]s", "SELECT RT, I, V FROM S%[1]s UNION ALL SELECT RT, J, W FROM S2%[1]s", r.where(1))
		return q
	case 2: // distinct per window
		q := question{types: []kind{kTime, kInt, kText}}
		q.both = differ("SELECT STREAM DISTINCT FLOOR(S.ROWTIME TO MINUTE), I, %[1]s FROM S%[2]s", "SELECT DISTINCT CAST(date_trunc('minute', RT) AS TIMESTAMP), I, %[1]s FROM S%[2]s", r.expr(kText, 1), r.where(1))
		return q
	}
	// groups of a filtered projection
	e := r.expr(kInt, 2)
	q := question{types: []kind{kInt, kInt}, timed: true}
	q.both = differ("SELECT STREAM X, COUNT(*) FROM (SELECT STREAM %[1]s AS X, V FROM S%[2]s) AS Q GROUP BY X, STEP(Q.ROWTIME BY INTERVAL '30' SECOND)",
		"SELECT time_bucket(INTERVAL 30 SECOND, RT, TIMESTAMP '1970-01-01') + INTERVAL 30 SECOND AS WW, X, COUNT(*) FROM (SELECT RT, %[1]s AS X, V FROM S%[2]s) AS Q GROUP BY X, WW", e, r.where(1))
	return q
}

func (r *drawer) subqueries() question {
	q := question{types: []kind{kInt, kBool, kInt}, ordered: true}
	not := r.pick("", "NOT ")
	tw := r.pick("", " WHERE T.I > 2", " WHERE T.I IS NOT NULL", " WHERE T.V = S.V", " WHERE T.I = S.J", " WHERE T.I < S.J AND T.V <> S.W")
	in := same("%s (SELECT %s FROM T%s)", r.pick("S.I "+not+"IN", "S.J + 1 "+not+"IN"), r.pick("I", "I + 1"), tw)
	if r.IntN(3) == 0 {
		in = same("(S.I, S.V) %sIN (SELECT I, V FROM T)", not)
	}
	exists := same("%sEXISTS (SELECT * FROM T%s)", r.pick("", "NOT "), tw)
	scalar := same("(SELECT %s FROM T%s)", r.pick("COUNT(*)", "MAX(I)", "SUM(I) + S.I", "MIN(I + S.J)"), tw)
	where := r.pick("", " WHERE %s", " WHERE %s OR S.I > 5", " WHERE S.BO AND %s")
	filter := both{}
	if where != "" {
		filter = same(where, [2]both{in, exists}[r.IntN(2)])
	}
	q.both = differ("SELECT STREAM SEQ, %s, %s FROM S%s", "SELECT SEQ, %s, %s FROM S%s ORDER BY SEQ", in, scalar, filter)
	return q
}

// dataSet are the rows of both streams and of the table.
type dataSet struct {
	columns []plan.ColumnInfo // of the streams
	table   []plan.ColumnInfo
	s, s2   []timedRow
	t       [][]plan.Value
}

type timedRow struct {
	at     int64
	values []plan.Value
}

func (r *drawer) data(t testing.TB) *dataSet {
	d := &dataSet{}
	for _, c := range []string{"SEQ INTEGER", "I INTEGER", "J INTEGER", "D DECIMAL(8,2)", "F DOUBLE", "V VARCHAR(12)", "W VARCHAR(12)", "BO BOOLEAN", "TS TIMESTAMP", "DT DATE"} {
		name, typ, _ := strings.Cut(c, " ")
		d.columns = append(d.columns, plan.ColumnInfo{Name: name, Type: typed(t, typ)})
	}
	for _, c := range []string{"I INTEGER", "V VARCHAR(12)", "F DOUBLE"} {
		name, typ, _ := strings.Cut(c, " ")
		d.table = append(d.table, plan.ColumnInfo{Name: name, Type: typed(t, typ)})
	}
	value := func(name string) plan.Value {
		if r.IntN(6) == 0 {
			return plan.Value{Null: true}
		}
		switch name {
		case "I":
			return plan.Value{I: int64(r.IntN(9)) - 2}
		case "J":
			return plan.Value{I: int64(r.IntN(41)) - 20}
		case "D":
			return plan.Value{I: int64(r.IntN(4000)) - 2000}
		case "F":
			return plan.Value{F: float64(r.IntN(400)-200) / 8}
		case "V", "W":
			return plan.Value{S: r.pick("", "a", "b", "ab", "abc", "aB", "é", "x%y", "a_b", "zaz", "10")}
		case "BO":
			return plan.Value{I: int64(r.IntN(2))}
		case "TS":
			return plan.Value{I: testStart + int64(r.IntN(400_000_000))*1000 - 200_000_000_000}
		}
		return plan.Value{I: (20000 + int64(r.IntN(2000))) * 86_400_000}
	}
	stream := func(n int) []timedRow {
		at := testStart
		var rows []timedRow
		for i := range n {
			switch r.IntN(4) {
			case 0:
			case 1:
				at += 10_000 - at%10_000
			default:
				at += r.Int64N(6000)
			}
			row := timedRow{at: at, values: []plan.Value{{I: int64(i)}}}
			for _, c := range d.columns[1:] {
				row.values = append(row.values, value(c.Name))
			}
			rows = append(rows, row)
		}
		return rows
	}
	d.s, d.s2 = stream(30+r.IntN(60)), stream(20+r.IntN(40))
	for range r.IntN(14) {
		var row []plan.Value
		for _, c := range d.table {
			row = append(row, value(c.Name))
		}
		d.t = append(d.t, row)
	}
	return d
}

func literal(v plan.Value, t sql.Type) string {
	if v.Null {
		return "NULL"
	}
	switch t.Kind {
	case sql.KindDecimal:
		return fmt.Sprintf("%d / 100.0", v.I)
	case sql.KindDouble:
		return strconv.FormatFloat(v.F, 'g', -1, 64)
	case sql.KindVarchar:
		return "'" + v.S + "'"
	case sql.KindBoolean:
		return fmt.Sprint(v.I != 0)
	case sql.KindTimestamp:
		return "TIMESTAMP '" + time.UnixMilli(v.I).UTC().Format("2006-01-02 15:04:05.000") + "'"
	case sql.KindDate:
		return "DATE '" + time.UnixMilli(v.I).UTC().Format("2006-01-02") + "'"
	}
	return strconv.FormatInt(v.I, 10)
}

// load puts the rows into DuckDB. RT is the row's time, PEER its place among
// those of the same instant.
func (d *dataSet) load(p *peer) {
	var do []string
	for name, rows := range map[string][]timedRow{"S": d.s, "S2": d.s2} {
		do = append(do, "CREATE OR REPLACE TABLE "+name+" (RT TIMESTAMP, PEER BIGINT, SEQ INTEGER, I INTEGER, J INTEGER, D DECIMAL(8,2), F DOUBLE, V VARCHAR, W VARCHAR, BO BOOLEAN, TS TIMESTAMP, DT DATE)")
		peerOf := 0
		var values []string
		for i, row := range rows {
			if peerOf++; i == 0 || rows[i-1].at != row.at {
				peerOf = 0
			}
			cells := []string{literal(plan.Value{I: row.at}, sql.Type{Kind: sql.KindTimestamp}), strconv.Itoa(peerOf)}
			for k, v := range row.values {
				cells = append(cells, literal(v, d.columns[k].Type))
			}
			values = append(values, "("+strings.Join(cells, ", ")+")")
		}
		do = append(do, "INSERT INTO "+name+" VALUES "+strings.Join(values, ", "))
	}
	do = append(do, "CREATE OR REPLACE TABLE T (I INTEGER, V VARCHAR, F DOUBLE)")
	for _, row := range d.t {
		var cells []string
		for k, v := range row {
			cells = append(cells, literal(v, d.table[k].Type))
		}
		do = append(do, "INSERT INTO T VALUES ("+strings.Join(cells, ", ")+")")
	}
	if _, err := p.say(map[string]any{"do": do}); err != nil {
		p.t.Fatal(err)
	}
}

// answer runs the query here.
func (d *dataSet) answer(t testing.TB, q question, batch, workers int) ([][]*string, error) {
	var columns []string
	for i, k := range q.types {
		columns = append(columns, fmt.Sprintf("C%d %s", i, kindTypes[k]))
	}
	program, err := plan.Compile("CREATE STREAM O ("+strings.Join(columns, ", ")+");\nCREATE PUMP P AS INSERT INTO O "+q.m, plan.Catalog{
		Sources: []plan.Relation{{Name: "S", Columns: d.columns}, {Name: "S2", Columns: d.columns}},
		Tables:  []plan.Relation{{Name: "T", Columns: d.table}},
	}, plan.Options{Extensions: true})
	if err != nil {
		return nil, err
	}
	now := testStart
	app := run.New(program, run.Options{Now: func() time.Time { return time.UnixMilli(now) }, Workers: workers})
	table := run.NewRows(d.table)
	for _, row := range d.t {
		table.Add(0, row...)
	}
	if err := app.SetTable("T", table); err != nil {
		return nil, err
	}
	var rows [][]*string
	var failed error
	types := program.Streams[2].Columns
	if err := app.Tap("O", func(b *run.Batch) {
		for _, i := range b.Sel {
			var row []*string
			text := func(v plan.Value, typ sql.Type) {
				if v.Null {
					row = append(row, nil)
					return
				}
				one := literal(v, typ)
				switch typ.Kind {
				case sql.KindDecimal:
					one = new(big.Rat).SetFrac64(v.I, 10_000).FloatString(4)
				case sql.KindVarchar:
					one = strings.Clone(v.S)
				case sql.KindTimestamp, sql.KindDate:
					_, one, _ = strings.Cut(one, "'")
					one = strings.TrimSuffix(one, "'")
				}
				row = append(row, &one)
			}
			if q.timed {
				text(plan.Value{I: b.Time[i]}, sql.Type{Kind: sql.KindTimestamp})
			}
			for c := range types {
				text(b.Value(types, c, i), types[c].Type)
			}
			rows = append(rows, row)
		}
	}); err != nil {
		return nil, err
	}
	if err := app.Tap(plan.ErrorStream, func(b *run.Batch) {
		for _, i := range b.Sel {
			failed = fmt.Errorf("a row failed: %s %s", b.Cols[2].S[i], b.Cols[3].S[i])
		}
	}); err != nil {
		return nil, err
	}
	app.Start()
	hidden := []plan.Value{{I: 0}, {Null: true}, {Null: true}, {Null: true}}
	all := append(slices.Clone(d.columns), plan.HiddenColumns...)
	i, j := 0, 0
	for i < len(d.s) || j < len(d.s2) {
		name, from, at := "S", d.s, &i
		if i == len(d.s) || j < len(d.s2) && d.s2[j].at < d.s[i].at {
			name, from, at = "S2", d.s2, &j
		}
		in := run.NewRows(all)
		for n := 0; n < batch && *at < len(from); n++ {
			row := from[*at]
			now = max(now, row.at)
			in.Add(row.at, append(slices.Clone(row.values), hidden...)...)
			*at++
		}
		b := in.Batch()
		spoil := b.Lend()
		if err := app.Insert(name, b); err != nil {
			return nil, err
		}
		spoil()
	}
	end := max(d.s[len(d.s)-1].at, d.s2[len(d.s2)-1].at) + 10*minute
	for _, name := range []string{"S", "S2"} {
		if err := app.Advance(name, end); err != nil {
			return nil, err
		}
	}
	return rows, failed
}

// disagree compares answers; empty if they are the same.
func disagree(q question, mine, duck [][]*string) string {
	show := func(row []*string) string {
		var cells []string
		for _, c := range row {
			if c == nil {
				cells = append(cells, "NULL")
			} else {
				cells = append(cells, strconv.Quote(*c))
			}
		}
		return strings.Join(cells, " ")
	}
	shift := 0
	if q.timed {
		shift = 1
	}
	cell := func(c int, a, b *string) int {
		if a == nil || b == nil {
			switch {
			case a == nil && b == nil:
				return 0
			case a == nil:
				return -1
			}
			return 1
		}
		if c >= shift {
			switch q.types[c-shift] {
			case kFloat:
				x, _ := strconv.ParseFloat(*a, 64)
				y, _ := strconv.ParseFloat(*b, 64)
				if math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y), 1e-3) {
					return 0
				}
				if x < y {
					return -1
				}
				return 1
			case kInt, kDec:
				x, ok1 := new(big.Rat).SetString(*a)
				y, ok2 := new(big.Rat).SetString(*b)
				if ok1 && ok2 {
					return x.Cmp(y)
				}
			}
		}
		return strings.Compare(*a, *b)
	}
	row := func(a, b []*string) int {
		for c := range a {
			if n := cell(c, a[c], b[c]); n != 0 {
				return n
			}
		}
		return 0
	}
	if !q.ordered {
		for _, rows := range [][][]*string{mine, duck} {
			sort.SliceStable(rows, func(i, j int) bool { return row(rows[i], rows[j]) < 0 })
		}
	}
	for i := 0; i < max(len(mine), len(duck)); i++ {
		switch {
		case i >= len(mine):
			return fmt.Sprintf("row %d is missing: %s", i+1, show(duck[i]))
		case i >= len(duck):
			return fmt.Sprintf("row %d is too many: %s", i+1, show(mine[i]))
		case row(mine[i], duck[i]) != 0:
			return fmt.Sprintf("row %d is %s, in DuckDB %s", i+1, show(mine[i]), show(duck[i]))
		}
	}
	return ""
}

// Random queries are asked of a program here and of DuckDB, over the same rows.
// What each construct of the dialect is in DuckDB is said where it is drawn; these
// are the places where the two mean something else by the same words, and what is
// asked instead:
//
//   - / and AVG of integers truncate: //, SUM(x) // COUNT(x). AVG of a DECIMAL
//     keeps the scale, truncated.
//   - Results of CASE and COALESCE over literals of different length are
//     blank-padded CHAR, and CHAR is compared without its blanks: literals are cast
//     to VARCHAR.
//   - SUBSTRING counts from 1 and never from the end: only starts of 1 and more.
//   - A window of RANGE ends with the current row, without its later peers: an
//     order that has no peers, and a frame that takes in all of the oldest instant.
//   - EXTRACT(SECOND) has milliseconds; STEP and FLOOR align to 1970.
//   - ROWS n PRECEDING is n rows and the current one in both.
//   - Casts of DOUBLE to integers round halves away from zero, in DuckDB to the
//     even one: only DECIMAL is cast.
//   - Of NULLs, both put none into a join's keys and all into one group.
//
// DuckDB is asked without its optimizer, which takes NULLIF('a', x) LIKE 'a%' in
// WHERE for x IS NOT NULL.
//
// MILLRACE_TORTURE=1 asks many more, MILLRACE_SEED repeats a run.
func TestDuckDB(t *testing.T) {
	shared(t)
	duck := startPeer(t)
	seed, rounds := uint64(time.Now().UnixNano()), 20
	if s := os.Getenv("MILLRACE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("MILLRACE_TORTURE") == "1" {
		rounds = 500
	}
	if testing.Short() {
		rounds = 4
	}
	t.Logf("MILLRACE_SEED=%d", seed)
	r := &drawer{Rand: rand.New(rand.NewPCG(seed, 7))}
	wrong, rows, empty := 0, 0, 0
	for range rounds {
		data := r.data(t)
		data.load(duck)
		for range 100 {
			q := r.question()
			want, err := duck.say(map[string]any{"ask": q.d})
			if err != nil {
				t.Fatalf("DuckDB refuses\n%s\n%v", q.d, err)
			}
			got, err := data.answer(t, q, 1+r.IntN(40), 1+r.IntN(3))
			if rows += len(want); len(want) == 0 {
				empty++
			}
			problem := ""
			if err != nil {
				problem = err.Error()
			} else {
				problem = disagree(q, got, want)
			}
			if problem != "" {
				t.Errorf("%s\nin DuckDB\n%s\n%s", q.m, q.d, problem)
				if wrong++; wrong > 5 {
					t.FailNow()
				}
			}
		}
	}
	t.Logf("%d queries, %d rows, %d queries without rows", rounds*100, rows, empty)
}
