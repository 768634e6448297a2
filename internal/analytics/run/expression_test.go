package run_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

func typed(t testing.TB, text string) sql.Type {
	t.Helper()
	typ, err := sql.ParseType(text)
	if err != nil {
		t.Fatal(text, err)
	}
	return typ
}

// The row that expressions are computed from: columns with values, and the same
// with N in front without.
var given = []struct {
	name, typ string
	value     plan.Value
}{
	{"TI", "TINYINT", plan.Value{I: 100}},
	{"SI", "SMALLINT", plan.Value{I: 30000}},
	{"I", "INTEGER", plan.Value{I: 7}},
	{"J", "INTEGER", plan.Value{I: -2147483648}},
	{"Z", "INTEGER", plan.Value{I: 0}},
	{"B", "BIGINT", plan.Value{I: 9000000000000000000}},
	{"D", "DECIMAL(10,2)", plan.Value{I: -1234}},
	{"D5", "DECIMAL(5,3)", plan.Value{I: 2500}},
	{"D18", "DECIMAL(18,0)", plan.Value{I: 999999999999999999}},
	{"R", "REAL", plan.Value{F: 1.5}},
	{"F", "DOUBLE", plan.Value{F: 2.5}},
	{"F0", "DOUBLE", plan.Value{F: 0}},
	{"C", "CHAR(5)", plan.Value{S: "ab   "}},
	{"V", "VARCHAR(20)", plan.Value{S: "héllo wörld"}},
	{"E", "VARCHAR(20)", plan.Value{S: ""}},
	{"X", "VARBINARY(4)", plan.Value{S: "\x01\x02"}},
	{"T", "BOOLEAN", plan.Value{I: 1}},
	{"U", "BOOLEAN", plan.Value{I: 0}},
	{"DT", "DATE", plan.Value{I: 1772323200000}},                  // 2026-03-01
	{"TM", "TIME", plan.Value{I: 45296789}},                       // 12:34:56.789
	{"TS", "TIMESTAMP", plan.Value{I: 1772323200000 + 45296789}},  // 2026-03-01 12:34:56.789
	{"TS0", "TIMESTAMP", plan.Value{I: 1772323200000 + 45296000}}, // 2026-03-01 12:34:56
	{"BEFORE70", "TIMESTAMP", plan.Value{I: -1}},                  // 1969-12-31 23:59:59.999
	{"LEAP", "TIMESTAMP", plan.Value{I: 1709164800000}},           // 2024-02-29
}

var programStart = time.Date(2026, 3, 1, 18, 30, 15, 250e6, time.UTC)

// evaluate computes an expression for the row, which lies among others in its
// batch: its type and value, or ! and the name of the error.
func evaluate(t testing.TB, expression string) string {
	t.Helper()
	var columns []plan.ColumnInfo
	var values, nulls []plan.Value
	for _, g := range given {
		columns = append(columns, plan.ColumnInfo{Name: g.name, Type: typed(t, g.typ)}, plan.ColumnInfo{Name: "N" + g.name, Type: typed(t, g.typ)})
		values = append(values, g.value, plan.Value{Null: true})
		nulls = append(nulls, plan.Value{Null: true}, plan.Value{Null: true})
	}
	columns = append(columns, plan.ColumnInfo{Name: "K", Type: typed(t, "INTEGER")})
	catalog := plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: columns}}}
	compile := func(typ string) (*plan.Program, error) {
		return plan.Compile(`CREATE STREAM "OUT" (R `+typ+`); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM `+expression+` FROM "IN" WHERE K = 1`, catalog, plan.Options{})
	}
	var program *plan.Program
	var err, first error
	for _, typ := range []string{"VARCHAR(65535)", "DOUBLE", "BOOLEAN", "DATE", "TIME", "TIMESTAMP", "VARBINARY(65535)"} {
		if program, err = compile(typ); err == nil {
			break
		}
		if first == nil {
			first = err
		}
	}
	if err != nil {
		return "refused"
	}
	typ := program.Pumps[0].Root.(*plan.Project).Input.Columns()[0].Type
	if program, err = compile(typ.String()); err != nil {
		t.Fatalf("%s as %s: %v", expression, typ, err)
	}
	once := func(before, after int) string {
		a := run.New(program, run.Options{Seed: 1, Now: func() time.Time { return programStart }})
		out, problems := output(t, a), []string{}
		if err := a.Tap(plan.ErrorStream, func(b *run.Batch) {
			for _, i := range b.Sel {
				problems = append(problems, "! "+b.Cols[2].S[i])
			}
		}); err != nil {
			t.Fatal(err)
		}
		a.Start()
		hidden := []plan.Value{{I: 0}, {Null: true}, {Null: true}, {Null: true}}
		rows := run.NewRows(append(append([]plan.ColumnInfo(nil), columns...), plan.HiddenColumns...))
		for range before {
			rows.Add(0, append(append(append([]plan.Value(nil), nulls...), plan.Value{I: 0}), hidden...)...)
		}
		rows.Add(0, append(append(append([]plan.Value(nil), values...), plan.Value{I: 1}), hidden...)...)
		for range after {
			rows.Add(0, append(append(append([]plan.Value(nil), nulls...), plan.Value{I: 2}), hidden...)...)
		}
		if err := a.Insert("IN", rows.Batch()); err != nil {
			t.Fatal(err)
		}
		got := problems
		for _, line := range *out {
			_, value, _ := strings.Cut(line, `{"R":`)
			got = append(got, typ.String()+" "+strings.TrimSuffix(value, "}"))
		}
		return strings.Join(got, " and ")
	}
	got := once(0, 0)
	if again := once(2, 3); again != got {
		t.Errorf("%s is %s, and among other rows %s", expression, got, again)
	}
	return got
}

// expressions are pairs of an expression and its result.
func expressions(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		if got := evaluate(t, pairs[i]); got != pairs[i+1] {
			t.Errorf("%s is %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
}

func TestIntegerArithmetic(t *testing.T) {
	expressions(t,
		`I + 1`, `INTEGER 8`, `I - 10`, `INTEGER -3`, `I * I`, `INTEGER 49`, `I / 2`, `INTEGER 3`, `-I / 2`, `INTEGER -3`,
		`-I`, `INTEGER -7`, `+I`, `INTEGER 7`, `- -I`, `INTEGER 7`, `1 + 2 * 3 - 4 / 2`, `INTEGER 5`, `(1 + 2) * 3`, `INTEGER 9`,
		`I + B`, `BIGINT 9000000000000000007`, `TI + SI`, `SMALLINT 30100`, `TI + I`, `INTEGER 107`, `2147483647`, `INTEGER 2147483647`, `2147483648`, `BIGINT 2147483648`, `-9223372036854775808`, `BIGINT -9223372036854775808`, `9223372036854775808`, `refused`, `I - 9223372036854775808`, `refused`,
		// Overflow is an error, and never another number.
		`TI + TI`, `! NUMERIC_OVERFLOW`, `TI * TI`, `! NUMERIC_OVERFLOW`, `SI + SI`, `! NUMERIC_OVERFLOW`, `J - 1`, `! NUMERIC_OVERFLOW`, `-J`, `! NUMERIC_OVERFLOW`, `J / -1`, `! NUMERIC_OVERFLOW`, `J * -1`, `! NUMERIC_OVERFLOW`,
		`B + B`, `! NUMERIC_OVERFLOW`, `B * 2`, `! NUMERIC_OVERFLOW`, `-B - B`, `! NUMERIC_OVERFLOW`, `B * B`, `! NUMERIC_OVERFLOW`, `(-B - 223372036854775808) / -1`, `! NUMERIC_OVERFLOW`, `-B - 223372036854775808`, `BIGINT -9223372036854775808`,
		`I / Z`, `! DIVIDE_BY_ZERO`, `I / 0`, `! DIVIDE_BY_ZERO`, `MOD(I, Z)`, `! DIVIDE_BY_ZERO`,
		`I + NI`, `INTEGER null`, `NI / Z`, `INTEGER null`, `-NI`, `INTEGER null`, `NI * NB`, `BIGINT null`,
		`MOD(I, 4)`, `INTEGER 3`, `MOD(-4, 3)`, `INTEGER -1`, `MOD(4, -3)`, `INTEGER 1`, `MOD(J, -1)`, `INTEGER 0`, `MOD(NI, 3)`, `INTEGER null`, `MOD(B, 7)`, `INTEGER 2`, `MOD(F, 2)`, `refused`, `MOD(D, 2)`, `refused`,
		`V + 1`, `refused`, `T + 1`, `refused`, `DT + 1`, `refused`, `V || 1`, `refused`,
	)
}

func TestDecimalArithmetic(t *testing.T) {
	expressions(t,
		`2.50`, `DECIMAL(3,2) 2.50`, `.5`, `DECIMAL(1,1) 0.5`, `5.`, `DECIMAL(1,0) 5`,
		`D + D`, `DECIMAL(11,2) -24.68`, `D - D5`, `DECIMAL(12,3) -14.840`, `D * D5`, `DECIMAL(15,5) -30.85000`, `D5 * D5`, `DECIMAL(10,6) 6.250000`,
		// d = p1 - s1 + s2, s = max(6, s1 + p2 + 1), both within 18.
		`D5 / D5`, `DECIMAL(14,9) 1.000000000`, `D / D5`, `DECIMAL(18,7) -4.9360000`, `5.0 / 2`, `DECIMAL(13,12) 2.500000000000`, `1.0 / 3`, `DECIMAL(13,12) 0.333333333333`, `2.0 / 3`, `DECIMAL(13,12) 0.666666666667`, `-2.0 / 3`, `DECIMAL(13,12) -0.666666666667`,
		`D + I`, `DECIMAL(13,2) -5.34`, `I + D5`, `DECIMAL(14,3) 9.500`, `D + 1.005`, `DECIMAL(12,3) -11.335`, `D + B`, `! NUMERIC_OVERFLOW`, `D5 + F`, `DOUBLE 5`, `R + D5`, `DOUBLE 4`,
		`D18 + D18`, `! NUMERIC_OVERFLOW`, `D18 * D18`, `! NUMERIC_OVERFLOW`, `D18 - D18`, `DECIMAL(18,0) 0`, `-D`, `DECIMAL(10,2) 12.34`, `D / Z`, `! DIVIDE_BY_ZERO`, `D / 0.0`, `! DIVIDE_BY_ZERO`, `D + ND`, `DECIMAL(11,2) null`,
		`ABS(D)`, `DECIMAL(10,2) 12.34`, `FLOOR(D)`, `DECIMAL(9,0) -13`, `CEIL(D)`, `DECIMAL(9,0) -12`, `CEILING(D5)`, `DECIMAL(3,0) 3`, `FLOOR(D5)`, `DECIMAL(3,0) 2`,
		`D < D5`, `BOOLEAN true`, `D5 = 2.5`, `BOOLEAN true`, `D5 > 2`, `BOOLEAN true`, `D5 = F`, `BOOLEAN true`, `D18 > D`, `BOOLEAN true`, `D18 = D18 + 0`, `BOOLEAN true`,
	)
}

func TestApproximateNumbers(t *testing.T) {
	expressions(t,
		`1e3`, `DOUBLE 1000`, `-1.5E-6`, `DOUBLE -0.0000015`, `F + I`, `DOUBLE 9.5`, `F * R`, `DOUBLE 3.75`, `F / 2`, `DOUBLE 1.25`, `R + R`, `DOUBLE 3`, `R * 2`, `DOUBLE 3`, `F - NF`, `DOUBLE null`,
		`F / F0`, `! DIVIDE_BY_ZERO`, `1e308 * 10`, `! NUMERIC_OVERFLOW`, `-F`, `DOUBLE -2.5`, `ABS(-F)`, `DOUBLE 2.5`, `ABS(J)`, `! NUMERIC_OVERFLOW`, `ABS(-I)`, `INTEGER 7`, `ABS(NI)`, `INTEGER null`,
		`CEIL(-3.3e0)`, `DOUBLE -3`, `FLOOR(-3.3e0)`, `DOUBLE -4`, `CEIL(I)`, `INTEGER 7`, `FLOOR(NF)`, `DOUBLE null`, `CEIL(2.0)`, `DECIMAL(2,0) 2`,
		`POWER(2, 10)`, `DOUBLE 1024`, `POWER(F, NI)`, `DOUBLE null`, `POWER(-1, 0.5)`, `! FUNCTION_ERROR`, `POWER(10, 400)`, `! FUNCTION_ERROR`, `POWER(0, -1)`, `! FUNCTION_ERROR`,
		`EXP(0)`, `DOUBLE 1`, `EXP(1000)`, `! FUNCTION_ERROR`, `EXP(709.785)`, `! FUNCTION_ERROR`, `EXP(NF)`, `DOUBLE null`, `LN(1)`, `DOUBLE 0`, `LN(0)`, `! FUNCTION_ERROR`, `LN(-1)`, `! FUNCTION_ERROR`, `LOG10(1000)`, `DOUBLE 3`, `LOG10(Z)`, `! FUNCTION_ERROR`, `LOG10(NF)`, `DOUBLE null`,
		`SQRT(16)`, `DOUBLE 4`, `SQRT(-1)`, `! FUNCTION_ERROR`, `SQRT(NI)`, `DOUBLE null`,
	)
}

// A bare NULL is of the type that its place asks for.
func TestBareNulls(t *testing.T) {
	expressions(t,
		`ABS(NULL)`, `INTEGER null`, `MOD(7, NULL)`, `BIGINT null`, `MOD(NULL, 7)`, `INTEGER null`, `CEIL(NULL)`, `DOUBLE null`, `POWER(NULL, 2)`, `DOUBLE null`, `1 + NULL`, `INTEGER null`, `NULL / 2`, `INTEGER null`,
		`FLOOR(NULL TO DAY)`, `TIMESTAMP null`, `STEP(NULL BY INTERVAL '1' DAY)`, `TIMESTAMP null`, `STEP(NULL BY 5)`, `BIGINT null`, `EXTRACT(YEAR FROM NULL)`, `BIGINT null`,
		`TS + NULL`, `TIMESTAMP null`, `NULL + TS`, `TIMESTAMP null`, `DT - NULL`, `DATE null`, `CAST(INTERVAL '1' DAY * NULL AS VARCHAR(5))`, `VARCHAR(5) null`, `CAST(INTERVAL '1' DAY / NULL AS VARCHAR(5))`, `VARCHAR(5) null`, `CAST(INTERVAL '1' DAY + NULL AS VARCHAR(5))`, `VARCHAR(5) null`, `CAST((TS - NULL) SECOND AS VARCHAR(5))`, `VARCHAR(5) null`,
		`NULL || 'a'`, `VARCHAR(1) null`, `NULL LIKE 'a'`, `BOOLEAN null`, `NULL IN (1, 2)`, `BOOLEAN null`, `NULL BETWEEN 1 AND 2`, `BOOLEAN null`, `NULL IS DISTINCT FROM 1`, `BOOLEAN true`, `NULL = NULL`, `BOOLEAN null`, `NOT NULL`, `BOOLEAN null`, `TRIM(NULL FROM 'a')`, `VARCHAR(1) null`, `TIMESTAMP_TO_CHAR('yyyy', NULL)`, `VARCHAR(1024) "null"`,
	)
}

func TestCasts(t *testing.T) {
	expressions(t,
		`CAST(F AS INTEGER)`, `INTEGER 3`, `CAST(-F AS INTEGER)`, `INTEGER -3`, `CAST(2.4e0 AS BIGINT)`, `BIGINT 2`, `CAST(D AS INTEGER)`, `INTEGER -12`, `CAST(-12.5 AS SMALLINT)`, `SMALLINT -13`, `CAST(12.5 AS TINYINT)`, `TINYINT 13`,
		`CAST(SI AS TINYINT)`, `! NUMERIC_OVERFLOW`, `CAST(B AS INTEGER)`, `! NUMERIC_OVERFLOW`, `CAST(1e30 AS BIGINT)`, `! NUMERIC_OVERFLOW`, `CAST(9.3e18 AS BIGINT)`, `! NUMERIC_OVERFLOW`, `CAST(127.5 AS TINYINT)`, `! NUMERIC_OVERFLOW`, `CAST(-128.4 AS TINYINT)`, `TINYINT -128`,
		`CAST(I AS DECIMAL(5,2))`, `DECIMAL(5,2) 7.00`, `CAST(D AS DECIMAL(4,1))`, `DECIMAL(4,1) -12.3`, `CAST(0.25 AS DECIMAL(3,1))`, `DECIMAL(3,1) 0.3`, `CAST(-0.25 AS DECIMAL(3,1))`, `DECIMAL(3,1) -0.3`, `CAST(SI AS DECIMAL(4,0))`, `! NUMERIC_OVERFLOW`, `CAST(99.95 AS DECIMAL(3,1))`, `! NUMERIC_OVERFLOW`, `CAST(1e17 AS DECIMAL(18,2))`, `! NUMERIC_OVERFLOW`,
		`CAST(I AS DOUBLE)`, `DOUBLE 7`, `CAST(D AS REAL)`, `REAL -12.34`, `CAST(D AS DOUBLE)`, `DOUBLE -12.34`, `CAST(1e300 AS REAL)`, `! NUMERIC_OVERFLOW`,
		`CAST(I AS VARCHAR(10))`, `VARCHAR(10) "7"`, `CAST(J AS VARCHAR(3))`, `VARCHAR(3) "-21"`, `CAST(D AS VARCHAR(10))`, `VARCHAR(10) "-12.34"`, `CAST(I AS CHAR(3))`, `CHAR(3) "7  "`, `CAST(F AS VARCHAR(10))`, `VARCHAR(10) "2.5"`, `CAST(T AS VARCHAR(10))`, `VARCHAR(10) "TRUE"`, `CAST(U AS CHAR(6))`, `CHAR(6) "FALSE "`,
		`CAST(' 42 ' AS INTEGER)`, `INTEGER 42`, `CAST('4x' AS INTEGER)`, `! CAST_ERROR`, `CAST('' AS INTEGER)`, `! CAST_ERROR`, `CAST(V AS INTEGER)`, `! CAST_ERROR`, `CAST('4.5' AS INTEGER)`, `INTEGER 5`, `CAST('1e2' AS INTEGER)`, `INTEGER 100`, `CAST('99999999999' AS INTEGER)`, `! NUMERIC_OVERFLOW`, `CAST('-9223372036854775808' AS BIGINT)`, `BIGINT -9223372036854775808`, `CAST('9223372036854775808' AS BIGINT)`, `! NUMERIC_OVERFLOW`,
		`CAST('12.345' AS DECIMAL(4,2))`, `DECIMAL(4,2) 12.35`, `CAST('0x10' AS INTEGER)`, `! CAST_ERROR`, `CAST('1_000' AS INTEGER)`, `! CAST_ERROR`, `CAST('NaN' AS DOUBLE)`, `! CAST_ERROR`, `CAST('Infinity' AS DOUBLE)`, `! CAST_ERROR`, `CAST('1e400' AS DOUBLE)`, `! NUMERIC_OVERFLOW`, `CAST('2.5' AS DOUBLE)`, `DOUBLE 2.5`, `CAST('1e99999999999' AS DECIMAL(5,2))`, `! NUMERIC_OVERFLOW`,
		`CAST('True' AS BOOLEAN)`, `BOOLEAN true`, `CAST('FALSE' AS BOOLEAN)`, `BOOLEAN false`, `CAST('yes' AS BOOLEAN)`, `! CAST_ERROR`, `CAST(I AS BOOLEAN)`, `refused`, `CAST(T AS INTEGER)`, `refused`,
		`CAST('2026-03-01' AS DATE)`, `DATE "2026-03-01"`, `CAST('2026-03-01 ' AS DATE)`, `! CAST_ERROR`, `CAST('2026-3-1' AS DATE)`, `! CAST_ERROR`, `CAST('2026-02-29' AS DATE)`, `! CAST_ERROR`, `CAST('12:34:56' AS TIME)`, `TIME "12:34:56"`, `CAST('12:34' AS TIME)`, `! CAST_ERROR`, `CAST('12:34:56.5' AS TIME)`, `TIME "12:34:56.500"`, `CAST('24:00:00' AS TIME)`, `! CAST_ERROR`,
		`CAST('2026-03-01 12:34:56' AS TIMESTAMP)`, `TIMESTAMP "2026-03-01 12:34:56.000"`, `CAST('2026-03-01 12:34:56.7' AS TIMESTAMP)`, `TIMESTAMP "2026-03-01 12:34:56.700"`, `CAST('2026-03-01' AS TIMESTAMP)`, `! CAST_ERROR`, `CAST('2026-03-01T12:34:56' AS TIMESTAMP)`, `! CAST_ERROR`,
		`CAST(DT AS VARCHAR(10))`, `VARCHAR(10) "2026-03-01"`, `CAST(DT AS VARCHAR(9))`, `! CAST_ERROR`, `CAST(TM AS VARCHAR(20))`, `VARCHAR(20) "12:34:56.789"`, `CAST(TM AS VARCHAR(7))`, `! CAST_ERROR`, `CAST(TS0 AS VARCHAR(19))`, `VARCHAR(19) "2026-03-01 12:34:56"`, `CAST(TS AS VARCHAR(30))`, `VARCHAR(30) "2026-03-01 12:34:56.789"`, `CAST(TS AS VARCHAR(19))`, `VARCHAR(19) "2026-03-01 12:34:56"`, `CAST(TS AS VARCHAR(18))`, `! CAST_ERROR`, `CAST(TS AS CHAR(25))`, `CHAR(25) "2026-03-01 12:34:56.789  "`,
		`CAST(DT AS TIMESTAMP)`, `TIMESTAMP "2026-03-01 00:00:00.000"`, `CAST(TS AS DATE)`, `DATE "2026-03-01"`, `CAST(TS AS TIME)`, `TIME "12:34:56.789"`, `CAST(BEFORE70 AS DATE)`, `DATE "1969-12-31"`, `CAST(BEFORE70 AS TIME)`, `TIME "23:59:59.999"`, `CAST(TM AS TIMESTAMP)`, `TIMESTAMP "2026-03-01 12:34:56.789"`, `CAST(DT AS TIME)`, `refused`, `CAST(TM AS DATE)`, `refused`, `CAST(I AS TIMESTAMP)`, `refused`, `CAST(TS AS BIGINT)`, `refused`,
		`CAST(V AS VARCHAR(5))`, `VARCHAR(5) "héllo"`, `CAST(V AS CHAR(13))`, `CHAR(13) "héllo wörld  "`, `CAST(C AS VARCHAR(3))`, `VARCHAR(3) "ab "`, `CAST(C AS CHAR(7))`, `CHAR(7) "ab     "`,
		`CAST(X AS BINARY(4))`, `BINARY(4) "AQIAAA=="`, `CAST(X AS VARBINARY(1))`, `VARBINARY(1) "AQ=="`, `CAST(X AS VARCHAR(4))`, `refused`, `CAST(V AS VARBINARY(4))`, `refused`,
		`CAST(NI AS VARCHAR(3))`, `VARCHAR(3) null`, `CAST(NV AS INTEGER)`, `INTEGER null`, `CAST(NTS AS DATE)`, `DATE null`, `CAST(NULL AS DOUBLE)`, `DOUBLE null`, `CAST(NT AS VARCHAR(5))`, `VARCHAR(5) null`, `CAST(NX AS BINARY(2))`, `BINARY(2) null`,
	)
}

func TestIntervals(t *testing.T) {
	text := func(interval string) string { return "CAST(" + interval + " AS VARCHAR(30))" }
	for interval, want := range map[string]string{
		`INTERVAL '6' DAY`: "+6", `INTERVAL '-6' DAY`: "-6", `INTERVAL -'6' DAY`: "-6", `INTERVAL -'-6' DAY`: "+6", `INTERVAL '6:11' MINUTE TO SECOND`: "+6:11", `INTERVAL '2 00:06:11' DAY TO SECOND`: "+2 00:06:11",
		`INTERVAL '3 4' DAY TO HOUR`: "+3 04", `INTERVAL '3 4:5' DAY TO MINUTE`: "+3 04:05", `INTERVAL '59:59.999' MINUTE TO SECOND(3)`: "+59:59.999", `INTERVAL '1.5' SECOND`: "+1.500", `INTERVAL '2-3' YEAR TO MONTH`: "+2-03", `INTERVAL '5' YEAR`: "+5", `INTERVAL '5' MONTH`: "+5",
		`INTERVAL '120' SECOND(3)`: "+120", `INTERVAL '10:20:30' HOUR TO SECOND`: "+10:20:30", `INTERVAL '0' SECOND`: "+0", `INTERVAL '-1:30' HOUR TO MINUTE`: "-1:30",
		`(TS - TS0) SECOND`: "+0", `(TS - BEFORE70) DAY`: "+20513", `(TM - TIME '11:57:23') MINUTE`: "+37", `(TIME '12:03:34' - TIME '11:57:23') MINUTE`: "+6", `(TIME '12:03:34' - TIME '11:57:23') SECOND`: "+371", `(TIME '12:03:34' - TIME '11:57:23') MINUTE TO SECOND`: "+6:11", `(TIME '11:57:23' - TIME '12:03:34') MINUTE TO SECOND`: "-6:11",
		`(DATE '2026-03-01' - DATE '2025-12-31') DAY`: "+60", `(DATE '2026-03-01' - DATE '2024-02-29') YEAR TO MONTH`: "+2-00", `(DATE '2026-03-01' - DATE '2024-03-02') YEAR`: "+1", `(DATE '2024-01-31' - DATE '2024-02-29') MONTH`: "-1",
		`INTERVAL '1' HOUR + INTERVAL '30' MINUTE`: "+1:30", `INTERVAL '1' DAY - INTERVAL '1' HOUR`: "+0 23", `INTERVAL '1' MINUTE * 90`: "+90", `90 * INTERVAL '1' MINUTE`: "+90", `INTERVAL '1' HOUR / 2`: "+0", `INTERVAL '1:00' HOUR TO MINUTE / 2`: "+0:30", `INTERVAL '10' SECOND * 1.25`: "+12.500", `-INTERVAL '5' MINUTE`: "-5", `ABS(INTERVAL '-5' MINUTE)`: "+5", `INTERVAL '1' YEAR + INTERVAL '2' MONTH`: "+1-02",
		`CAST('1 02:03:04' AS INTERVAL DAY TO SECOND)`: "+1 02:03:04", `B * INTERVAL '0 00:00:00.001' DAY TO SECOND`: "+104166666666 16:00:00",
	} {
		if got := evaluate(t, text(interval)); got != `VARCHAR(30) "`+want+`"` {
			t.Errorf("%s is %s, want %s", interval, got, want)
		}
	}
	expressions(t,
		text(`INTERVAL '120' SECOND`), `refused`, text(`INTERVAL '3' DAYS`), `refused`, text(`INTERVAL '1:60' HOUR TO MINUTE`), `refused`, text(`INTERVAL '1' HOUR TO DAY`), `refused`, text(`INTERVAL '1 24' DAY TO HOUR`), `refused`, text(`INTERVAL '1-12' YEAR TO MONTH`), `refused`, text(`INTERVAL 'x' DAY`), `refused`,
		`CAST(INTERVAL '1 02:03' DAY TO MINUTE AS VARCHAR(4))`, `VARCHAR(4) "+1 0"`, text(`B * INTERVAL '1' DAY`), `! NUMERIC_OVERFLOW`, text(`INTERVAL '1' DAY / 0`), `! DIVIDE_BY_ZERO`, text(`INTERVAL '1' DAY / 0e0`), `! DIVIDE_BY_ZERO`, text(`INTERVAL '1' DAY * 1e30`), `! NUMERIC_OVERFLOW`, text(`NI * INTERVAL '1' DAY`), `VARCHAR(30) null`,
		`CAST(INTERVAL '90' MINUTE AS BIGINT)`, `BIGINT 90`, `CAST(INTERVAL '1:30' HOUR TO MINUTE AS BIGINT)`, `refused`, `CAST((TS - BEFORE70) DAY AS DECIMAL(3,0))`, `! NUMERIC_OVERFLOW`, `CAST(INTERVAL '1.9' SECOND AS BIGINT)`, `BIGINT 1`, `CAST(5 AS INTERVAL DAY)`, `refused`, text(`CAST('x' AS INTERVAL DAY)`), `! CAST_ERROR`,
		`TS + INTERVAL '1' DAY`, `TIMESTAMP "2026-03-02 12:34:56.789"`, `TS - INTERVAL '13' HOUR`, `TIMESTAMP "2026-02-28 23:34:56.789"`, `INTERVAL '1' DAY + DT`, `DATE "2026-03-02"`, `DT + INTERVAL '1' MONTH`, `DATE "2026-04-01"`, `DATE '2026-01-31' + INTERVAL '1' MONTH`, `DATE "2026-02-28"`, `LEAP + INTERVAL '1' YEAR`, `TIMESTAMP "2025-02-28 00:00:00.000"`, `DATE '2026-03-31' - INTERVAL '1' MONTH`, `DATE "2026-02-28"`,
		`TM + INTERVAL '12' HOUR`, `TIME "00:34:56.789"`, `TM - INTERVAL '13' HOUR`, `TIME "23:34:56.789"`, `NTS + INTERVAL '1' DAY`, `TIMESTAMP null`, `TS - DT`, `refused`, `DT - DT`, `refused`, `TS + TS`, `refused`, `(TS - DT) DAY`, `refused`,
		`INTERVAL '1' HOUR = INTERVAL '60' MINUTE`, `BOOLEAN true`, `(TS - TS0) SECOND < INTERVAL '1' SECOND`, `BOOLEAN true`, `INTERVAL '1' MONTH < INTERVAL '1' DAY`, `refused`,
		`INTERVAL '1' DAY`, `refused`,
	)
}

func TestLogic(t *testing.T) {
	expressions(t,
		`T AND U`, `BOOLEAN false`, `T OR U`, `BOOLEAN true`, `NOT T`, `BOOLEAN false`, `NOT NT`, `BOOLEAN null`, `T AND NT`, `BOOLEAN null`, `U AND NT`, `BOOLEAN false`, `NT AND U`, `BOOLEAN false`, `T OR NT`, `BOOLEAN true`, `NT OR T`, `BOOLEAN true`, `U OR NT`, `BOOLEAN null`, `NT AND NT`, `BOOLEAN null`, `UNKNOWN`, `BOOLEAN null`,
		// The right side is not computed where the left decides.
		`U AND I / Z = 1`, `BOOLEAN false`, `T OR I / Z = 1`, `BOOLEAN true`,
		`T IS TRUE`, `BOOLEAN true`, `NT IS TRUE`, `BOOLEAN false`, `NT IS NOT TRUE`, `BOOLEAN true`, `U IS FALSE`, `BOOLEAN true`, `NT IS UNKNOWN`, `BOOLEAN true`, `T IS NOT UNKNOWN`, `BOOLEAN true`, `NI IS NULL`, `BOOLEAN true`, `I IS NOT NULL`, `BOOLEAN true`, `NOT NI IS NULL`, `BOOLEAN false`, `NT IS NOT FALSE`, `BOOLEAN true`,
		`I IS DISTINCT FROM NI`, `BOOLEAN true`, `NI IS NOT DISTINCT FROM NI`, `BOOLEAN true`, `I IS NOT DISTINCT FROM 7`, `BOOLEAN true`, `I IS DISTINCT FROM 7`, `BOOLEAN false`, `NI IS DISTINCT FROM NJ`, `BOOLEAN false`, `NV IS NOT DISTINCT FROM V`, `BOOLEAN false`,
		`I = 7`, `BOOLEAN true`, `I <> 7`, `BOOLEAN false`, `I < NI`, `BOOLEAN null`, `I >= 7`, `BOOLEAN true`, `I <= 6`, `BOOLEAN false`, `I > F`, `BOOLEAN true`, `V = 'héllo wörld'`, `BOOLEAN true`, `'a' < 'B'`, `BOOLEAN false`, `T = U`, `BOOLEAN false`, `T > U`, `BOOLEAN true`, `I = V`, `refused`, `TS = DT`, `refused`, `T = 1`, `refused`, `X = X'0102'`, `BOOLEAN true`,
		// CHAR is compared with its padding made equal.
		`C = 'ab'`, `BOOLEAN true`, `C = 'ab '`, `BOOLEAN true`, `'ab' = 'ab   '`, `BOOLEAN true`, `C <> 'abc'`, `BOOLEAN true`, `C < 'ab!'`, `BOOLEAN true`,
		`I BETWEEN 7 AND 8`, `BOOLEAN true`, `I BETWEEN 8 AND 7`, `BOOLEAN false`, `I NOT BETWEEN 1 AND 6`, `BOOLEAN true`, `I BETWEEN NI AND 8`, `BOOLEAN null`, `I BETWEEN NI AND 6`, `BOOLEAN false`,
		`I IN (1, 7)`, `BOOLEAN true`, `I NOT IN (1, 7)`, `BOOLEAN false`, `I IN (1, NI)`, `BOOLEAN null`, `I IN (7, NI)`, `BOOLEAN true`, `I NOT IN (1, NI)`, `BOOLEAN null`, `NI IN (1)`, `BOOLEAN null`, `V IN ('x', 'héllo wörld')`, `BOOLEAN true`,
		`COALESCE(NI, I)`, `INTEGER 7`, `COALESCE(NI, NULL, 5, I)`, `INTEGER 5`, `COALESCE(NI, NJ)`, `INTEGER null`, `COALESCE(NI, F)`, `DOUBLE 2.5`, `COALESCE(NV, 'x')`, `VARCHAR(20) "x"`, `COALESCE(I, 'x')`, `refused`, `COALESCE(NI, D5)`, `DECIMAL(13,3) 2.500`,
		`COALESCE(I, I / Z)`, `INTEGER 7`,
		`NULLIF(I, 7)`, `INTEGER null`, `NULLIF(I, 8)`, `INTEGER 7`, `NULLIF(NI, 8)`, `INTEGER null`, `NULLIF(I, NI)`, `INTEGER 7`, `NULLIF(C, 'ab')`, `CHAR(5) null`,
		`CASE WHEN I > 5 THEN 'hot' ELSE 'cold' END`, `CHAR(4) "hot "`, `CASE I WHEN 1 THEN 'a' WHEN 7 THEN 'bbb' END`, `CHAR(3) "bbb"`, `CASE I WHEN 1 THEN 'a' END`, `CHAR(1) null`, `CASE NI WHEN NULL THEN 1 ELSE 2 END`, `INTEGER 2`, `CASE WHEN NT THEN 1 ELSE 2 END`, `INTEGER 2`, `CASE WHEN T THEN 1 ELSE 2.5 END`, `DECIMAL(11,1) 1.0`, `CASE WHEN T THEN I ELSE F END`, `DOUBLE 7`, `CASE WHEN U THEN V ELSE 'x' END`, `VARCHAR(20) "x"`, `CASE WHEN T THEN NULL ELSE I END`, `INTEGER null`, `CASE WHEN T THEN I ELSE V END`, `refused`,
		// Branches that are not taken cannot fail.
		`CASE WHEN Z = 0 THEN -1 ELSE I / Z END`, `INTEGER -1`, `CASE WHEN I / Z = 1 THEN 1 ELSE 2 END`, `! DIVIDE_BY_ZERO`, `CASE WHEN T THEN I / Z END`, `! DIVIDE_BY_ZERO`,
	)
}

func TestStrings(t *testing.T) {
	expressions(t,
		`CHAR_LENGTH(V)`, `INTEGER 11`, `CHARACTER_LENGTH(C)`, `INTEGER 5`, `CHAR_LENGTH(E)`, `INTEGER 0`, `CHAR_LENGTH(NV)`, `INTEGER null`, `CHAR_LENGTH(I)`, `refused`,
		`UPPER(V)`, `VARCHAR(20) "HÉLLO WÖRLD"`, `LOWER('ÀB')`, `VARCHAR(2) "àb"`, `UPPER(NV)`, `VARCHAR(20) null`, `INITCAP('hello bIG-world x')`, `VARCHAR(17) "Hello Big-world X"`, `INITCAP(NV)`, `VARCHAR(20) null`, `INITCAP('  a')`, `VARCHAR(3) "  A"`,
		`'a' || 'bc'`, `VARCHAR(3) "abc"`, `C || '!'`, `VARCHAR(6) "ab   !"`, `V || NV`, `VARCHAR(40) null`, `V || E`, `VARCHAR(40) "héllo wörld"`, `X || X`, `VARBINARY(8) "AQIBAg=="`,
		`POSITION('l' IN V)`, `INTEGER 3`, `POSITION('ö' IN V)`, `INTEGER 8`, `POSITION('zz' IN V)`, `INTEGER 0`, `POSITION('' IN V)`, `INTEGER 1`, `POSITION('' IN E)`, `INTEGER 1`, `POSITION(NV IN V)`, `INTEGER null`, `POSITION('a' IN NV)`, `INTEGER null`,
		`SUBSTRING(V FROM 2 FOR 3)`, `VARCHAR(20) "éll"`, `SUBSTRING(V FROM 7)`, `VARCHAR(20) "wörld"`, `SUBSTRING(V FROM -1 FOR 4)`, `VARCHAR(20) "hé"`, `SUBSTRING(V FROM 0 FOR 1)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM -5 FOR 2)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM 50)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM 12)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM 11)`, `VARCHAR(20) "d"`, `SUBSTRING(V FROM 1 FOR 0)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM 1 FOR -1)`, `! FUNCTION_ERROR`, `SUBSTRING(V FROM NI)`, `VARCHAR(20) null`, `SUBSTRING(NV FROM 1)`, `VARCHAR(20) null`, `SUBSTRING(E FROM 1)`, `VARCHAR(20) ""`,
		`SUBSTRING(V, 2, 3)`, `VARCHAR(20) "éll"`, `SUBSTRING(V, 50)`, `VARCHAR(20) null`, `SUBSTRING(V, 50, 2)`, `VARCHAR(20) null`, `SUBSTRING(V, -1, 4)`, `VARCHAR(20) "hé"`, `SUBSTRING(E, 1)`, `VARCHAR(20) null`, `SUBSTRING(E, 0)`, `VARCHAR(20) ""`, `SUBSTRING(V, 11, 0)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM -9223372036854775807 FOR 3)`, `VARCHAR(20) ""`, `SUBSTRING(V FROM 2 FOR 9223372036854775807)`, `VARCHAR(20) "éllo wörld"`, `SUBSTRING(V FROM B)`, `VARCHAR(20) ""`,
		`SUBSTRING(X FROM 2 FOR 1)`, `VARBINARY(4) "Ag=="`, `SUBSTRING(X FROM 9)`, `VARBINARY(4) ""`,
		`SUBSTRING(V FROM '[a-l]+o')`, `VARCHAR(20) "llo"`, `SUBSTRING(V FROM 'q')`, `VARCHAR(20) null`, `SUBSTRING(V FROM '(')`, `refused`, `SUBSTRING(V FROM '(?<=w)ö')`, `VARCHAR(20) "ö"`, `SUBSTRING(V FROM V)`, `VARCHAR(20) "héllo wörld"`, `SUBSTRING('a(b' FROM '\(b')`, `VARCHAR(3) "(b"`,
		`SUBSTRING('foobar' SIMILAR '%\"o_b\"%' ESCAPE '\')`, `VARCHAR(6) "oob"`, `SUBSTRING('foobar' SIMILAR '%#"x#"%' ESCAPE '#')`, `VARCHAR(6) null`, `SUBSTRING(NV SIMILAR '%#"x#"%' ESCAPE '#')`, `VARCHAR(20) null`, `SUBSTRING('aaa' SIMILAR 'a#"%#"a' ESCAPE '#')`, `VARCHAR(3) "a"`,
		`OVERLAY('abcdef' PLACING 'XY' FROM 2)`, `VARCHAR(8) "aXYdef"`, `OVERLAY('abcdef' PLACING 'XY' FROM 2 FOR 4)`, `VARCHAR(8) "aXYf"`, `OVERLAY('abcdef' PLACING 'XY' FROM 2 FOR 0)`, `VARCHAR(8) "aXYbcdef"`, `OVERLAY('abc' PLACING 'XY' FROM 9)`, `VARCHAR(5) "abcXY"`, `OVERLAY('abc' PLACING 'XY' FROM 0)`, `VARCHAR(5) "XYbc"`, `OVERLAY('abc' PLACING 'XY' FROM 1 FOR -1)`, `! FUNCTION_ERROR`, `OVERLAY(V PLACING NV FROM 1)`, `VARCHAR(40) null`, `OVERLAY(V PLACING 'é' FROM 2 FOR 9223372036854775807)`, `VARCHAR(21) "hé"`, `OVERLAY(V PLACING 'xyz' FROM -9223372036854775807)`, `VARCHAR(23) "xyzhéllo wörld"`,
		`TRIM('  a ')`, `VARCHAR(4) "a"`, `TRIM(LEADING FROM '  a ')`, `VARCHAR(4) "a "`, `TRIM(TRAILING 'x' FROM 'axx')`, `VARCHAR(3) "a"`, `TRIM(BOTH 'é' FROM 'éaé')`, `VARCHAR(3) "a"`, `TRIM('x' FROM 'xax')`, `VARCHAR(3) "a"`, `TRIM(BOTH V FROM 'xax')`, `! FUNCTION_ERROR`, `TRIM(BOTH E FROM 'xax')`, `! FUNCTION_ERROR`, `TRIM(NV)`, `VARCHAR(20) null`, `TRIM(C)`, `VARCHAR(5) "ab"`,
		`REGEX_REPLACE('banana', 'a', 'o', 1, 0)`, `VARCHAR(65535) "bonono"`, `REGEX_REPLACE('banana', '(an)', '<$1>', 1, 2)`, `VARCHAR(65535) "ban<an>a"`, `REGEX_REPLACE('banana', 'a', 'o', 0, 0)`, `! FUNCTION_ERROR`, `REGEX_REPLACE('banana', 'a', 'o', 1, -1)`, `! FUNCTION_ERROR`, `REGEX_REPLACE('banana', 'a', 'o', 9, 0)`, `VARCHAR(65535) "banana"`, `REGEX_REPLACE('banana', 'a', '$2', 1, 0)`, `! FUNCTION_ERROR`, `REGEX_REPLACE(NV, 'a', 'o', 1, 0)`, `VARCHAR(65535) null`, `REGEX_REPLACE('x', V, NV, 1, 0)`, `VARCHAR(65535) null`,
		`V LIKE 'h_llo%'`, `BOOLEAN true`, `V NOT LIKE '%x%'`, `BOOLEAN true`, `NV LIKE '%'`, `BOOLEAN null`, `V LIKE NV`, `BOOLEAN null`, `'50%' LIKE '50!%' ESCAPE '!'`, `BOOLEAN true`, `'50x' LIKE '50!%' ESCAPE '!'`, `BOOLEAN false`, `'a' LIKE 'a!'`, `BOOLEAN false`, `V LIKE '!' ESCAPE '!'`, `refused`, `E LIKE '%'`, `BOOLEAN true`, `E LIKE ''`, `BOOLEAN true`, `E LIKE '_'`, `BOOLEAN false`, `I LIKE '7'`, `refused`,
		`V SIMILAR TO 'h(é|e)l+o%'`, `BOOLEAN true`, `'c' SIMILAR TO '[a-e^c]'`, `BOOLEAN false`, `NV SIMILAR TO 'x'`, `BOOLEAN null`, `V SIMILAR TO '('`, `refused`,
	)
}

func TestDatesAndTimes(t *testing.T) {
	expressions(t,
		`CHAR_TO_TIMESTAMP('yyyy-MM-dd HH:mm', '2026-03-01 12:34:56')`, `TIMESTAMP "2026-03-01 12:34:00.000"`, `CHAR_TO_TIMESTAMP('yyyy-hh-mm', '2009-09-16 10:00')`, `TIMESTAMP "2009-01-01 09:16:00.000"`, `CHAR_TO_TIMESTAMP('yyyy', V)`, `! FUNCTION_ERROR`, `CHAR_TO_TIMESTAMP('yyyy-MM', '2026-13')`, `! FUNCTION_ERROR`, `CHAR_TO_TIMESTAMP('yyyy', NV)`, `TIMESTAMP null`, `CHAR_TO_TIMESTAMP(NV, '2026')`, `TIMESTAMP null`, `CHAR_TO_TIMESTAMP('b', '2026')`, `refused`, `CHAR_TO_TIMESTAMP(V, '2026')`, `! FUNCTION_ERROR`,
		`CHAR_TO_DATE('yyyy-MM-dd HH', '2026-03-01 12')`, `DATE "2026-03-01"`, `CHAR_TO_TIME('HH:mm:ss', '12:34:56')`, `TIME "12:34:56"`, `CHAR_TO_TIME('yyyy HH', '2026 13')`, `TIME "13:00:00"`,
		`TIMESTAMP_TO_CHAR('yyyy/MM/dd hh:mm:ss.SSS a', TS)`, `VARCHAR(1024) "2026/03/01 12:34:56.789 PM"`, `TIMESTAMP_TO_CHAR('yyyy', NTS)`, `VARCHAR(1024) "null"`, `DATE_TO_CHAR('EEE d MMM', DT)`, `VARCHAR(1024) "Sun 1 Mar"`, `TIME_TO_CHAR('HH''h''', TM)`, `VARCHAR(1024) "12h"`, `TIME_TO_CHAR('HH', NTM)`, `VARCHAR(1024) "null"`, `DATE_TO_CHAR('yyyy', TS)`, `refused`,
		`TO_TIMESTAMP(B / 10000000)`, `TIMESTAMP "1998-07-09 16:00:00.000"`, `TO_TIMESTAMP(NB)`, `TIMESTAMP null`, `UNIX_TIMESTAMP(TS)`, `BIGINT 1772368496789`, `UNIX_TIMESTAMP(NTS)`, `BIGINT null`, `UNIX_TIMESTAMP(DT)`, `refused`, `TSDIFF(TS, TS0)`, `BIGINT 789`, `TSDIFF(TS0, TS)`, `BIGINT -789`, `TSDIFF(NTS, TS)`, `BIGINT null`, `TSDIFF(NULL, TS)`, `BIGINT null`, `TSDIFF(I, NULL)`, `BIGINT null`, `TSDIFF(TS, I)`, `refused`,
		`EXTRACT(YEAR FROM TS)`, `BIGINT 2026`, `EXTRACT(MONTH FROM DT)`, `BIGINT 3`, `EXTRACT(DAY FROM BEFORE70)`, `BIGINT 31`, `EXTRACT(HOUR FROM TM)`, `BIGINT 12`, `EXTRACT(MINUTE FROM TS)`, `BIGINT 34`, `EXTRACT(SECOND FROM TS)`, `DECIMAL(5,3) 56.789`, `EXTRACT(SECOND FROM BEFORE70)`, `DECIMAL(5,3) 59.999`, `EXTRACT(YEAR FROM NTS)`, `BIGINT null`, `EXTRACT(HOUR FROM INTERVAL '1 02:03' DAY TO MINUTE)`, `BIGINT 2`, `EXTRACT(HOUR FROM DT)`, `BIGINT 0`, `EXTRACT(MINUTE FROM INTERVAL '-1:30' HOUR TO MINUTE)`, `BIGINT -30`,
		`FLOOR(TS TO HOUR)`, `TIMESTAMP "2026-03-01 12:00:00.000"`, `FLOOR(TS TO YEAR)`, `TIMESTAMP "2026-01-01 00:00:00.000"`, `FLOOR(TS TO MONTH)`, `TIMESTAMP "2026-03-01 00:00:00.000"`, `FLOOR(BEFORE70 TO DAY)`, `TIMESTAMP "1969-12-31 00:00:00.000"`, `FLOOR(BEFORE70 TO SECOND)`, `TIMESTAMP "1969-12-31 23:59:59.000"`, `CEIL(TS TO MINUTE)`, `TIMESTAMP "2026-03-01 12:35:00.000"`, `CEIL(TS0 TO SECOND)`, `TIMESTAMP "2026-03-01 12:34:56.000"`, `CEIL(TS TO MONTH)`, `TIMESTAMP "2026-04-01 00:00:00.000"`, `CEILING(TS TO YEAR)`, `TIMESTAMP "2027-01-01 00:00:00.000"`, `CEIL(BEFORE70 TO DAY)`, `TIMESTAMP "1970-01-01 00:00:00.000"`, `FLOOR(TM TO MINUTE)`, `TIME "12:34:00"`, `FLOOR(DT TO MONTH)`, `DATE "2026-03-01"`, `FLOOR(NTS TO DAY)`, `TIMESTAMP null`, `CEIL(TIME '23:59:59' TO HOUR)`, `TIME "00:00:00"`,
		`STEP(TS BY INTERVAL '10' SECOND)`, `TIMESTAMP "2026-03-01 12:34:50.000"`, `STEP(BEFORE70 BY INTERVAL '10' SECOND)`, `TIMESTAMP "1969-12-31 23:59:50.000"`, `STEP(TIMESTAMP '2004-09-27 12:00:00' BY INTERVAL '5' DAY)`, `TIMESTAMP "2004-09-24 00:00:00.000"`, `STEP(TS BY INTERVAL '5' MONTH)`, `TIMESTAMP "2025-11-01 00:00:00.000"`, `STEP(TS BY INTERVAL '10' YEAR)`, `TIMESTAMP "2020-01-01 00:00:00.000"`, `STEP(TM BY INTERVAL '1' HOUR)`, `TIME "12:00:00"`, `STEP(DT BY INTERVAL '7' DAY)`, `DATE "2026-02-26"`, `STEP(I BY 5)`, `BIGINT 5`, `STEP(-I BY 5)`, `BIGINT -10`, `STEP(NI BY 5)`, `BIGINT null`, `STEP(NTS BY INTERVAL '1' DAY)`, `TIMESTAMP null`, `STEP(I BY 0)`, `refused`, `STEP(TS BY INTERVAL '0' SECOND)`, `refused`,
		`MONOTONIC(I)`, `INTEGER 7`, `CURRENT_TIMESTAMP`, `TIMESTAMP "2026-03-01 18:30:15.250"`, `LOCALTIMESTAMP`, `TIMESTAMP "2026-03-01 18:30:15.250"`, `CURRENT_DATE`, `DATE "2026-03-01"`, `CURRENT_TIME`, `TIME "18:30:15.250"`, `LOCALTIME`, `TIME "18:30:15.250"`, `CURRENT_ROW_TIMESTAMP`, `TIMESTAMP "2026-03-01 18:30:15.250"`, `ROWTIME`, `TIMESTAMP "1970-01-01 00:00:00.000"`,
		`DATE '2026-03-01'`, `DATE "2026-03-01"`, `DATE '2026-03-01 '`, `refused`, `DATE '2026-02-29'`, `refused`, `TIME '12:34:56.789'`, `TIME "12:34:56.789"`, `TIMESTAMP '2026-03-01 12:34:56'`, `TIMESTAMP "2026-03-01 12:34:56.000"`, `TIMESTAMP '2026-03-01'`, `refused`,
		`X'3F67'`, `BINARY(2) "P2c="`, `X'3F6'`, `refused`, `u&'\0041b'`, `CHAR(2) "Ab"`, `u&'a\D83D\DE00\\b'`, `CHAR(4) "a😀\\b"`, `u&'!D83D!DE00' UESCAPE '!'`, `CHAR(1) "😀"`, `u&'\D83Dx'`, `refused`, `u&'\DE00'`, `refused`, `u&'\D83D\0041'`, `refused`, `u&'\D83D\\'`, `refused`, `u&'\D83D'`, `refused`, `u&'\12'`, `refused`, `'it''s'`, `CHAR(4) "it's"`,
	)
}

// One row fails, once, and the error stream says everything about it.
func TestErrorRows(t *testing.T) {
	columns := []plan.ColumnInfo{{Name: "a", Type: typed(t, "INTEGER")}, {Name: "b", Type: typed(t, "VARCHAR(10)")}}
	program, err := plan.Compile(`CREATE STREAM "OUT" (X INTEGER NOT NULL, Y INTEGER);
CREATE PUMP "my pump" AS INSERT INTO "OUT" SELECT STREAM 100 / "a", CAST("b" AS INTEGER) FROM "IN";`,
		plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: columns}}}, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := run.New(program, run.Options{Now: func() time.Time { return programStart }})
	out := output(t, a)
	var got []string
	if err := a.Tap(plan.ErrorStream, func(b *run.Batch) {
		for _, i := range b.Sel {
			v := func(c int) plan.Value { return b.Value(run.ErrorColumns, c, i) }
			row, err := hex.DecodeString(v(5).S)
			if err != nil {
				t.Fatal(err)
			}
			if v(0).I != programStart.UnixMilli() || v(1).S != "ERROR" || v(3).S == "" {
				t.Errorf("%v %v %v", v(0), v(1), v(3))
			}
			got = append(got, fmt.Sprint(v(2).S, " ", v(4).I, " ", v(6).S, " ", v(6).Null, " ", string(row)))
		}
	}); err != nil {
		t.Fatal(err)
	}
	a.Start()
	rows := run.NewRows(append(append([]plan.ColumnInfo(nil), columns...), plan.HiddenColumns...))
	for i, r := range [][2]plan.Value{{{I: 5}, {S: "1"}}, {{I: 0}, {S: "x"}}, {{I: 4}, {S: "x"}}, {{Null: true}, {S: "2"}}, {{I: 3}, {Null: true}}} {
		rows.Add(int64(i)*1000, r[0], r[1], plan.Value{}, plan.Value{Null: true}, plan.Value{Null: true}, plan.Value{Null: true})
	}
	if err := a.Insert("IN", rows.Batch()); err != nil {
		t.Fatal(err)
	}
	a.Refuse("PARSE_ERROR", "no JSON", "{\x00", 7000)
	if want := `1970-01-01T00:00:00Z{"X":20,"Y":1} 1970-01-01T00:00:04Z{"X":33,"Y":null}`; strings.Join(*out, " ") != want {
		t.Errorf("%s\nwant %s", strings.Join(*out, " "), want)
	}
	want := []string{
		`DIVIDE_BY_ZERO 1000 my pump false {"a":0,"b":"x"}`,
		`CAST_ERROR 2000 my pump false {"a":4,"b":"x"}`,
		`NULL_VIOLATION 3000 my pump false {"X":null,"Y":2}`,
		"PARSE_ERROR 7000  true {\x00",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	names := ""
	for _, c := range run.ErrorColumns {
		names += c.Name + " " + c.Type.String() + ", "
	}
	if want := "ERROR_TIME TIMESTAMP, ERROR_LEVEL VARCHAR(10), ERROR_NAME VARCHAR(32), MESSAGE VARCHAR(4096), DATA_ROWTIME TIMESTAMP, DATA_ROW VARCHAR(49152), PUMP_NAME VARCHAR(128), "; names != want {
		t.Errorf("%s\nwant %s", names, want)
	}
}
