package iceberg

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

// do is a record for db.people: an operation and a JSON object.
type do struct{ operation, data string }

// batch makes a batch of records that begin at a place.
func batch(from int, records ...do) *record.Batch {
	var list []record.Record
	for i, r := range records {
		list = append(list, record.Record{
			Data: []byte(r.data), Arrival: desttest.Arrival + int64(from+i), Lane: desttest.Lane("shard"),
			Position: record.Position{Index: uint64(from + i)},
			Table:    &record.Table{Database: "db", Name: "people", Operation: r.operation},
		})
	}
	return record.Of(desttest.Stream, desttest.ID(from), list...)
}

var peopleSchema = iceberg.NewSchemaWithIdentifiers(0, []int{1},
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
	iceberg.NestedField{ID: 2, Name: "name", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 3, Name: "town", Type: iceberg.PrimitiveTypes.String},
)

var people = table.Identifier{"db", "people"}

// lake is a destination over a warehouse of files, with a table of people.
func lake(t *testing.T, c Config, spec *iceberg.PartitionSpec) (*Destination, *desttest.Store) {
	t.Helper()
	store := &desttest.Store{}
	c.Catalog = Catalog{Type: "files", Warehouse: "s3://lake/warehouse"}
	d := open(t, c, Deps{Store: store})
	t.Cleanup(func() { _ = d.Close() })
	if !c.TableCreation {
		if err := d.catalog.create(t.Context(), "db", "people", peopleSchema, spec); err != nil {
			t.Fatal(err)
		}
	}
	return d, store
}

// show renders rows in order.
func show(rows []map[string]any) string {
	var lines []string
	for _, r := range rows {
		text, _ := json.Marshal(r)
		lines = append(lines, string(text))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func deliver(t *testing.T, d *Destination, b *record.Batch) dest.Result {
	t.Helper()
	r, err := d.Deliver(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func failures(r dest.Result) string {
	var lines []string
	for _, f := range r.Failed {
		lines = append(lines, fmt.Sprintf("%d %s: %s", f.Index, f.Code, f.Message))
	}
	return strings.Join(lines, "\n")
}

func TestUpdatesAndDeletes(t *testing.T) {
	byTown := iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{3}, FieldID: 1000, Name: "town", Transform: iceberg.IdentityTransform{}})
	for _, c := range []struct {
		name   string
		spec   *iceberg.PartitionSpec
		keys   []string
		before []do
		batch  []do
		want   string
		failed string
	}{
		{
			name:   "a later batch updates and deletes",
			before: []do{{"insert", `{"id":1,"name":"Ada"}`}, {"", `{"id":2,"name":"Bo"}`}, {"", `{"id":3,"name":"Cy"}`}},
			batch:  []do{{"update", `{"id":2,"name":"Bob"}`}, {"delete", `{"id":3}`}, {"update", `{"id":4,"name":"Di"}`}},
			want:   "{\"id\":1,\"name\":\"Ada\",\"town\":null}\n{\"id\":2,\"name\":\"Bob\",\"town\":null}\n{\"id\":4,\"name\":\"Di\",\"town\":null}",
		},
		{
			name: "the order within a batch counts",
			batch: []do{
				{"insert", `{"id":1,"name":"a"}`}, {"update", `{"id":1,"name":"b"}`}, {"insert", `{"id":2,"name":"c"}`}, {"delete", `{"id":2}`},
				{"delete", `{"id":3}`}, {"insert", `{"id":3,"name":"d"}`}, {"insert", `{"id":4,"name":"e"}`}, {"insert", `{"id":4,"name":"f"}`},
			},
			want: "{\"id\":1,\"name\":\"b\",\"town\":null}\n{\"id\":3,\"name\":\"d\",\"town\":null}\n{\"id\":4,\"name\":\"e\",\"town\":null}\n{\"id\":4,\"name\":\"f\",\"town\":null}",
		},
		{
			name:   "a refused update leaves the row alone",
			before: []do{{"", `{"id":1,"name":"Ada"}`}},
			batch:  []do{{"update", `{"id":1,"name":["no"]}`}, {"delete", `{"name":"Ada"}`}, {"upsert", `{"id":1}`}, {"delete", `{"id":"one"}`}},
			want:   `{"id":1,"name":"Ada","town":null}`,
			failed: `0 Iceberg.InvalidColumnValue: column name: ["no"] is no string
1 Iceberg.MissingColumnWithinRecord: the record has no value for a column of the unique key
2 Iceberg.InvalidOperation: "upsert" is no operation; insert, update and delete are
3 Iceberg.InvalidColumnValue: column id: "one" is no long`,
		},
		{
			name: "a partitioned table, by two keys", spec: &byTown, keys: []string{"town", "id"},
			before: []do{{"", `{"id":1,"town":"Oslo","name":"x"}`}, {"", `{"id":1,"town":"Rome","name":"y"}`}},
			batch:  []do{{"update", `{"id":1,"town":"Rome","name":"z"}`}},
			want:   "{\"id\":1,\"name\":\"x\",\"town\":\"Oslo\"}\n{\"id\":1,\"name\":\"z\",\"town\":\"Rome\"}",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := Config{}
			if c.keys != nil {
				config.Tables = []Table{{Database: "db", Name: "people", UniqueKeys: c.keys}}
			}
			d, _ := lake(t, config, c.spec)
			if len(c.before) > 0 {
				deliver(t, d, batch(0, c.before...))
			}
			b := batch(1000, c.batch...)
			if got := failures(deliver(t, d, b)); got != c.failed {
				t.Errorf("failed are\n%s\nwant\n%s", got, c.failed)
			}
			if got := show(read(t, d, people)); got != c.want {
				t.Errorf("rows are\n%s\nwant\n%s", got, c.want)
			}
			deliver(t, d, b)
			if got := show(read(t, d, people)); got != c.want {
				t.Errorf("delivered again, rows are\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestChangesThatATableCannotTake(t *testing.T) {
	byTown := iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{3}, FieldID: 1000, Name: "town", Transform: iceberg.IdentityTransform{}})
	for _, c := range []struct {
		name   string
		config Config
		spec   *iceberg.PartitionSpec
		code   string
	}{
		{"a key that is no column", Config{Tables: []Table{{Database: "db", Name: "people", UniqueKeys: []string{"id", "shoe"}}}}, nil, codeUniqueKeys},
		{"a partition that is no key", Config{}, &byTown, codeUniqueKeys},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := lake(t, c.config, c.spec)
			_, err := d.Deliver(t.Context(), batch(0, do{"update", `{"id":1}`}))
			var e *dest.Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
	d, _ := lake(t, Config{AppendOnly: true}, nil)
	r := deliver(t, d, batch(0, do{"update", `{"id":1}`}, do{"", `{"id":2}`}))
	if len(r.Failed) != 1 || r.Failed[0].Code != codeOperation {
		t.Errorf("append only: %+v", r.Failed)
	}
}

// TestReplaysCutDifferently delivers what a crash would make of a source: runs
// that overlap and are cut at other places, with names of their own.
func TestReplaysCutDifferently(t *testing.T) {
	d, _ := lake(t, Config{}, nil)
	var all []do
	for n := range 20 {
		all = append(all, do{"", fmt.Sprintf(`{"id":%d}`, n)})
	}
	for _, cut := range [][2]int{{0, 5}, {0, 8}, {0, 3}, {3, 12}, {10, 20}, {0, 20}} {
		deliver(t, d, batch(cut[0], all[cut[0]:cut[1]]...))
	}
	if rows := read(t, d, people); len(rows) != 20 {
		t.Errorf("the table has %d rows, want 20", len(rows))
	}
	// A stream made anew begins at the same places, later.
	b := batch(0, all...)
	late := record.NewBatch(func(f func(int, *record.Record) error) error {
		return b.Each(func(i int, r *record.Record) error { r.Arrival += 1e6; return f(i, r) })
	})
	late.Stream, late.ID, late.Count, late.Oldest, late.Newest = b.Stream, b.ID, b.Count, b.Oldest+1e6, b.Newest+1e6
	deliver(t, d, late)
	if rows := read(t, d, people); len(rows) != 40 {
		t.Errorf("the table has %d rows, want 40", len(rows))
	}
}

func TestRouting(t *testing.T) {
	d, _ := lake(t, Config{}, nil)
	b := batch(0, do{"", `{"id":1}`}, do{"", `{"id":2}`}, do{"", `{"id":3}`}, do{"", `{"id":4}`}, do{"", `{"nothing":4}`}, do{"", `{"id":6`}, do{"", `[7]`})
	routed := record.NewBatch(func(f func(int, *record.Record) error) error {
		return b.Each(func(i int, r *record.Record) error {
			switch i {
			case 1:
				r.Table = &record.Table{Database: "db", Name: "ghosts"}
			case 2:
				r.Table = nil
			case 3:
				r.Table = &record.Table{Database: "d-b", Name: "people"}
			}
			return f(i, r)
		})
	})
	routed.Stream, routed.ID, routed.Count, routed.Oldest, routed.Newest = b.Stream, b.ID, b.Count, b.Oldest, b.Newest
	r := deliver(t, d, routed)
	const want = `1 Iceberg.NoSuchTable: table does not exist: db.ghosts
2 Iceberg.InvalidTableName: the record names no table, and 0 tables are configured
3 Iceberg.InvalidTableName: "d-b"."people" names no table; letters, digits, dots and underscores do
4 Iceberg.MissingColumnWithinRecord: column id: the record has no value for it, and it is required
5 Iceberg.MalformedData: the record is not exactly one JSON document
6 Iceberg.MalformedData: the record is no JSON object`
	if got := failures(r); got != want {
		t.Errorf("failed are\n%s\nwant\n%s", got, want)
	}
	if !r.Failed[0].Retry || r.Failed[1].Retry {
		t.Error("a missing table may appear, a bad name does not become good")
	}
	if got := show(read(t, d, people)); got != `{"id":1,"name":null,"town":null}` {
		t.Errorf("rows are %s", got)
	}
}

func TestTableCreationAndEvolution(t *testing.T) {
	d, _ := lake(t, Config{
		TableCreation: true, SchemaEvolution: true,
		Tables: []Table{{Database: "db", Name: "people", Partition: []string{"town"}, UniqueKeys: []string{"id", "town"}}},
	}, nil)
	deliver(t, d, batch(0, do{"", `{"id":1,"town":"Oslo","score":1}`}, do{"", `{"id":2,"town":"Rome","score":1.5,"tags":["a","b"],"at":{"x":1,"y":null}}`}))
	deliver(t, d, batch(10, do{"", `{"id":3,"town":"Rome","late":true,"score":2}`}, do{"update", `{"id":1,"town":"Oslo","score":9}`}))
	tab := library(t, d, people)
	var columns []string
	for _, f := range tab.Schema().Fields() {
		columns = append(columns, f.Name+" "+f.Type.String())
	}
	const want = "id long, town string, score double, tags list<string>, at struct<#: x: optional long>, late boolean"
	got := regexp.MustCompile(`\d+: `).ReplaceAllString(strings.Join(columns, ", "), "#: ")
	if got != want {
		t.Errorf("columns are %s, want %s", got, want)
	}
	if spec := tab.Spec(); spec.NumFields() != 1 {
		n := spec.NumFields()
		t.Errorf("the table has %d partition fields", n)
	}
	const rows = `{"at":null,"id":1,"late":null,"score":9,"tags":null,"town":"Oslo"}
{"at":null,"id":3,"late":true,"score":2,"tags":null,"town":"Rome"}
{"at":{"x":1},"id":2,"late":null,"score":1.5,"tags":["a","b"],"town":"Rome"}`
	if got := show(read(t, d, people)); got != rows {
		t.Errorf("rows are\n%s\nwant\n%s", got, rows)
	}
}

// TestConflicts has two destinations write to one table in turn, and a store
// that loses the answer to a commit.
func TestConflicts(t *testing.T) {
	a, store := lake(t, Config{}, nil)
	b := open(t, Config{Catalog: a.config.Catalog}, Deps{Store: store})
	defer func() { _ = b.Close() }()
	for n := range 3 {
		deliver(t, a, batch(n*10, do{"", fmt.Sprintf(`{"id":%d}`, n*2)}))
		other := batch(n*10, do{"update", fmt.Sprintf(`{"id":%d}`, n*2+1)})
		other.Stream.ARN += "2"
		deliver(t, b, other)
	}
	if rows := read(t, a, people); len(rows) != 6 {
		t.Errorf("the table has %d rows, want 6", len(rows))
	}
	// The metadata is stored, the answer is not heard.
	lost := batch(100, do{"", `{"id":100}`})
	store.After = func(operation, _, key string) error {
		if operation == "put" && strings.HasSuffix(key, "metadata.json") {
			return &objects.Error{Code: objects.CodeServiceUnavailable, Status: http.StatusServiceUnavailable}
		}
		return nil
	}
	_, err := a.Deliver(t.Context(), lost)
	var e *dest.Error
	if !errors.As(err, &e) || e.Permanent {
		t.Errorf("a lost answer is %v", err)
	}
	store.After = nil
	deliver(t, a, lost)
	if rows := read(t, a, people); len(rows) != 7 {
		t.Errorf("the table has %d rows, want 7", len(rows))
	}
}

func TestCodesOfFaults(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{objects.CodeAccessDenied, "S3.AccessDenied"},
		{objects.CodeNoSuchBucket, "S3.NoSuchBucket"},
		{objects.CodeSlowDown, "S3.SlowDown"},
		{objects.CodeInternal, codeInternal},
	} {
		t.Run(c.code, func(t *testing.T) {
			for _, operation := range []string{"get", "put"} {
				d, store := lake(t, Config{}, nil)
				before := len(store.Keys("lake"))
				store.Fail = func(o, _, key string) error {
					if o == operation && (o == "get" || strings.Contains(key, "/data/")) {
						return &objects.Error{Code: c.code, Status: 500, Message: "no"}
					}
					return nil
				}
				_, err := d.Deliver(t.Context(), batch(0, do{"", `{"id":1}`}))
				var e *dest.Error
				if !errors.As(err, &e) || e.Code != c.want {
					t.Errorf("%s: got %v, want %s", operation, err, c.want)
				}
				if n := len(store.Keys("lake")); n != before {
					t.Errorf("%s: a failed attempt leaves %d objects behind", operation, n-before)
				}
			}
		})
	}
	d, _ := lake(t, Config{}, nil)
	if err := d.Check(t.Context(), "db", "people"); err != nil {
		t.Error(err)
	}
	var e *dest.Error
	if err := d.Check(t.Context(), "db", "nobody"); !errors.As(err, &e) || e.Code != codeNoSuchTable {
		t.Errorf("Check of a missing table: %v", err)
	}
}
