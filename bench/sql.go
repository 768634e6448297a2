package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/millrace/millrace/test/harness"
)

// Rows of the streaming SQL measurements: JSON lines of exactly rowBytes with the
// newline, of which a schema maps five members.
const (
	rowBytes   = 150
	rowKeys    = 10_000
	inputName  = "SOURCE_SQL_STREAM_001"
	firstStamp = 1_767_225_600_000 // 2026-01-01, in milliseconds
)

// sqlColumn is a column of the input: a member of the row and its type.
type sqlColumn struct{ name, kind string }

var sqlColumns = []sqlColumn{{"id", "VARCHAR(16)"}, {"kind", "VARCHAR(16)"}, {"n", "INTEGER"}, {"v", "DOUBLE"}, {"ts", "BIGINT"}}

// rowMaker makes rows one after the other, the same ones every time.
type rowMaker struct {
	random   *rand.Rand
	keys     int
	perMilli int // rows in a millisecond of ts
	made     int
}

func newRowMaker(keys, perMilli int) *rowMaker {
	return &rowMaker{random: rand.New(rand.NewPCG(1, 2)), keys: keys, perMilli: perMilli}
}

const filler = "calibrated in may, checked in june, moved in july, due in december"

// next appends a row.
func (m *rowMaker) next(b []byte) []byte {
	from := len(b)
	key := m.random.IntN(m.keys)
	if m.keys > rowKeys {
		key = m.made % m.keys // every key once, before any comes again
	}
	b = fmt.Appendf(b, `{"id":"sensor-%07d","kind":"%c","n":%d,"v":`, key, 'a'+byte(m.random.IntN(2)), m.random.IntN(100_000))
	b = strconv.AppendFloat(b, float64(m.random.IntN(100_000))/1000, 'f', 3, 64)
	b = fmt.Appendf(b, `,"ts":%d,"site":"north-east-%d","ok":%t,"comment":"`, firstStamp+m.made/m.perMilli, m.random.IntN(8), m.random.IntN(3) > 0)
	b = append(b, filler[:rowBytes-3-(len(b)-from)]...)
	m.made++
	return append(b, "\"}\n"...)
}

// write makes a file of n rows.
func (m *rowMaker) write(name string, n int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	var line []byte
	for range n {
		line = m.next(line[:0])
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// schemaFile describes an input for the command line, in the form of a case.
func schemaFile(name string, columns []sqlColumn) error {
	var list []object
	for _, c := range columns {
		list = append(list, object{"name": c.name, "type": c.kind, "mapping": "$." + c.name})
	}
	raw, err := json.Marshal(object{"inputs": []object{{"stream": inputName, "columns": list}}})
	if err != nil {
		return err
	}
	return os.WriteFile(name, raw, 0o644)
}

// fileProgram is a program that is run over a file of rows.
type fileProgram struct {
	name     string
	rows     float64 // of the usual number
	perMilli int
	code     string
	// flink is the same query for Flink: the columns of its result, and a SELECT.
	flinkColumns, flinkQuery string
}

const resultStream = `CREATE STREAM "OUT" (id VARCHAR(16), n BIGINT, total DOUBLE, average DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM `

var filePrograms = []fileProgram{
	{
		name: "tumbling 10 s, count, sum and average per key", rows: 1, perMilli: 20,
		code: resultStream + `"id", COUNT(*), SUM("v"), AVG("v") FROM "` + inputName + `" GROUP BY "id", STEP("` + inputName + `".ROWTIME BY INTERVAL '10' SECOND);`,

		flinkColumns: "id STRING, n BIGINT, total DOUBLE, average DOUBLE",
		flinkQuery: "SELECT id, COUNT(*), SUM(v), AVG(v) FROM TABLE(TUMBLE(TABLE source, DESCRIPTOR(event_time), INTERVAL '10' SECOND)) " +
			"GROUP BY window_start, window_end, id",
	},
	{
		name: "filter and projection, a quarter of the rows", rows: 1, perMilli: 20,
		code: `CREATE STREAM "OUT" (id VARCHAR(16), n INTEGER, twice DOUBLE, ts BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM ` +
			`"id", "n", "v" * 2, "ts" FROM "` + inputName + `" WHERE "v" > 50 AND "kind" = 'b';`,
		flinkColumns: "id STRING, n INT, twice DOUBLE, ts BIGINT",
		flinkQuery:   "SELECT id, n, v * 2, ts FROM source WHERE v > 50 AND kind = 'b'",
	},
	{
		name: "sliding 60 s, count, sum and average per key", rows: 0.2, perMilli: 2,
		code: resultStream + `"id", COUNT(*) OVER w, SUM("v") OVER w, AVG("v") OVER w FROM "` + inputName + `" ` +
			`WINDOW w AS (PARTITION BY "id" RANGE INTERVAL '60' SECOND PRECEDING);`,
		flinkColumns: "id STRING, n BIGINT, total DOUBLE, average DOUBLE",
		flinkQuery: "SELECT id, COUNT(*) OVER w, SUM(v) OVER w, AVG(v) OVER w FROM source " +
			"WINDOW w AS (PARTITION BY id ORDER BY event_time RANGE BETWEEN INTERVAL '60' SECOND PRECEDING AND CURRENT ROW)",
	},
	{
		name: "join of two streams within 10 s", rows: 0.2, perMilli: 2,
		code: `CREATE STREAM L (id VARCHAR(16), v DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "id", "v" FROM "` + inputName + `" WHERE "kind" = 'a';
CREATE STREAM R (id VARCHAR(16), v DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "id", "v" FROM "` + inputName + `" WHERE "kind" = 'b';
CREATE STREAM "OUT" (id VARCHAR(16), a DOUBLE, b DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM L.id, L.v, R.v
FROM L OVER (RANGE INTERVAL '10' SECOND PRECEDING) JOIN R OVER (RANGE INTERVAL '10' SECOND PRECEDING) ON L.id = R.id;`,
		flinkColumns: "id STRING, a DOUBLE, b DOUBLE",
		flinkQuery: "SELECT l.id, l.v, r.v FROM source l JOIN source r ON l.id = r.id AND l.kind = 'a' AND r.kind = 'b' AND " +
			"r.event_time BETWEEN l.event_time - INTERVAL '10' SECOND AND l.event_time + INTERVAL '10' SECOND",
	},
	{
		name: "RANDOM_CUT_FOREST, 100 trees of 256, one dimension", rows: 0.05, perMilli: 20,
		code: `CREATE STREAM "OUT" (v DOUBLE, score DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "v", ANOMALY_SCORE ` +
			`FROM TABLE(RANDOM_CUT_FOREST(CURSOR(SELECT STREAM "v" FROM "` + inputName + `")));`,
	},
}

// sqlRun runs a program over files with the command line, writes what it prints
// to a file, and returns the processor time of the whole process.
func (b *bench) sqlRun(code, target string, args ...string) (time.Duration, error) {
	binary, err := harness.Binary()
	if err != nil {
		return 0, err
	}
	program, err := os.CreateTemp(filepath.Dir(target), "program-*.sql")
	if err != nil {
		return 0, err
	}
	defer os.Remove(program.Name())
	if _, err := io.WriteString(program, code); err != nil {
		return 0, err
	}
	if err := program.Close(); err != nil {
		return 0, err
	}
	out, err := os.Create(target)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	var said bytes.Buffer
	command := exec.CommandContext(b.ctx, binary, append([]string{"sql", "run", program.Name()}, args...)...)
	command.Stdout, command.Stderr = out, &said
	if err := command.Run(); err != nil {
		return 0, fmt.Errorf("sql run: %w\n%s", err, said.Bytes())
	}
	return command.ProcessState.UserTime() + command.ProcessState.SystemTime(), out.Close()
}

// lines counts those of a file.
func lines(name string) (int, error) {
	raw, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	n, buf := 0, make([]byte, 1<<20)
	for {
		k, err := raw.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// spread is the least and the most of some measurements of one thing.
type spread struct{ low, high, sum float64 }

func (s *spread) add(v float64, n int) {
	if n == 0 || v < s.low {
		s.low = v
	}
	s.high = max(s.high, v)
	s.sum += v
}

const sqlTurns = 3

// sqlFiles runs each program over a file of rows, from JSON to JSON.
func (b *bench) sqlFiles() error {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	schema, target := filepath.Join(dir, "schema.json"), filepath.Join(dir, "out")
	if err := schemaFile(schema, sqlColumns); err != nil {
		return err
	}
	for _, p := range filePrograms {
		source := filepath.Join(dir, "rows.json")
		n := int(p.rows * float64(b.sqlRows()))
		if err := newRowMaker(rowKeys, p.perMilli).write(source, n); err != nil {
			return err
		}
		var rate spread
		for turn := range sqlTurns {
			cpu, err := b.sqlRun(p.code, target, "--schema", schema, "--input", source, "--rowtime", "ts")
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			rate.add(float64(n)/cpu.Seconds(), turn)
		}
		made, err := lines(target)
		if err != nil {
			return err
		}
		b.row("sql run: "+p.name, fmt.Sprintf("%.0f to %.0f rows / CPU s", rate.low, rate.high), "", true,
			fmt.Sprintf("%d rows from a file of JSON lines, %d rows to another; the whole process", n, made))
	}
	return nil
}

// sqlRows is how many rows a measurement over files takes.
func (b *bench) sqlRows() int { return max(1, int(b.duration/time.Second)) * 1_000_000 }
