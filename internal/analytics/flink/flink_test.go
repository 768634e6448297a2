package flink

import (
	"bufio"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/cases"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

var update = flag.Bool("update", false, "rewrite the scripts in testdata")

// sample reads a program whose first lines say what it reads and writes:
//
//	-- input NAME: COLUMN TYPE [= $.path], …
//	-- reference NAME: COLUMN TYPE, …
//	-- output NAME to ARN
func sample(t testing.TB, file string) *app.Application {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a := &app.Application{Name: strings.TrimSuffix(filepath.Base(file), ".sql"), Code: string(raw), Extensions: true}
	lines := bufio.NewScanner(strings.NewReader(a.Code))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "-- ")
		if !ok {
			break
		}
		verb, rest, _ := strings.Cut(rest, " ")
		name, list, _ := strings.Cut(rest, ": ")
		switch verb {
		case "input":
			streams := strings.Split(name, " ")
			a.Inputs = append(a.Inputs, app.Input{Source: app.Resource{ARN: "arn:aws:kinesis:us-east-1:000000000000:stream/demo"}, Streams: streams, Format: schema(t, list)})
		case "reference":
			a.References = append(a.References, app.Reference{Table: name, Bucket: "bucket", Key: "key.csv", Format: schema(t, list)})
		case "output":
			stream, arn, _ := strings.Cut(name, " to ")
			o := app.Output{Stream: stream, Destination: app.Resource{ARN: arn}}
			if strings.Contains(arn, ":function:") {
				o.Destination.Kind = app.Function
			}
			if strings.Contains(arn, ":firehose:") {
				o.Destination.Kind = app.DeliveryStream
			}
			a.Outputs = append(a.Outputs, o)
		}
	}
	return a
}

func schema(t testing.TB, list string) run.Format {
	t.Helper()
	f := run.Format{RowPath: "$"}
	for _, part := range strings.Split(list, "; ") {
		name, rest, _ := strings.Cut(part, " ")
		typ, path, mapped := strings.Cut(rest, " = ")
		if !mapped {
			path = "$." + name
		}
		parsed, err := sql.ParseType(typ)
		if err != nil {
			t.Fatalf("%s: %v", part, err)
		}
		f.Columns = append(f.Columns, run.SourceColumn{Name: name, Type: parsed, Mapping: path})
	}
	return f
}

// TestSampleApplications compares the scripts of the sample applications with
// those that the planner of Flink has been shown.
func TestSampleApplications(t *testing.T) {
	files, err := filepath.Glob("testdata/*.sql")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".sql"), func(t *testing.T) {
			script, err := Translate(sample(t, file))
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".sql") + ".flink"
			if *update {
				if err := os.WriteFile(golden, []byte(script.SQL), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if script.SQL != string(want) {
				t.Errorf("the script is\n%s\nand not\n%s", script.SQL, want)
			}
		})
	}
}

// TestAllCasesAreTranslatedOrNoted translates every program of the repository's
// cases: each gives a script, in which every pump is either translated or noted.
func TestAllCasesAreTranslatedOrNoted(t *testing.T) {
	files, err := filepath.Glob("../testdata/cases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	out := os.Getenv("FLINK_SCRIPTS")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := cases.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if c.Error != "" {
			continue
		}
		a := application(t, c)
		script, err := Translate(a)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if out != "" {
			if err := os.WriteFile(filepath.Join(out, c.Name+".flink"), []byte(script.SQL), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if script.Missing() == 0 && !strings.Contains(script.SQL, "INSERT INTO") {
			t.Errorf("%s: nothing is inserted, and nothing said about it:\n%s", c.Name, script.SQL)
		}
	}
}

func application(t testing.TB, c *cases.Case) *app.Application {
	t.Helper()
	a := &app.Application{Name: c.Name, Code: c.SQL, Extensions: true}
	columns := func(list []cases.Column) []run.SourceColumn {
		var out []run.SourceColumn
		for _, col := range list {
			typ, err := sql.ParseType(col.Type)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			out = append(out, run.SourceColumn{Name: col.Name, Type: typ, Mapping: col.Mapping})
		}
		return out
	}
	for _, in := range c.Inputs {
		a.Inputs = append(a.Inputs, app.Input{Streams: []string{in.Stream}, Format: run.Format{
			CSV: in.Format == "CSV", RowPath: in.RowPath, RowDelimiter: in.RowDelimiter, ColumnDelimiter: in.ColumnDelimiter, Columns: columns(in.Columns)}})
	}
	for _, r := range c.Reference {
		a.References = append(a.References, app.Reference{Table: r.Table, Format: run.Format{CSV: r.Format == "CSV", Columns: columns(r.Columns)}})
	}
	return a
}
