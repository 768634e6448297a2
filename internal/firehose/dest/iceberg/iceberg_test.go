package iceberg

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest/pgserver"
	"github.com/millrace/millrace/internal/firehose/record"
)

var server *pgserver.Server // of a SQL catalog; nil where it is not installed

func TestMain(m *testing.M) {
	code := pgserver.Main(m, func(s *pgserver.Server) { server = s })
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

// events is the table of the suite's records.
var events = table.Identifier{"db", "events"}

var eventSchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int32},
	iceberg.NestedField{ID: 2, Name: "text", Type: iceberg.PrimitiveTypes.String},
)

func open(t *testing.T, c Config, deps Deps) *Destination {
	t.Helper()
	d, err := New(c, deps)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// scan reads the suite's records back.
func scan(t *testing.T, d *Destination) []desttest.Entry {
	t.Helper()
	var found []desttest.Entry
	for _, row := range read(t, d, events) {
		found = append(found, desttest.Seen(int(row["id"].(float64)), row["text"].(string)))
	}
	return found
}

func TestContract(t *testing.T) {
	desttest.Run(t, desttest.Harness{
		Open: func(t *testing.T) *desttest.Peer {
			store := &desttest.Store{}
			c := Config{Catalog: Catalog{Type: "files", Warehouse: "s3://lake/warehouse"}, Tables: []Table{{Database: "db", Name: "events"}}}
			d := open(t, c, Deps{Store: store})
			if err := d.catalog.create(t.Context(), "db", "events", eventSchema, nil); err != nil {
				t.Fatal(err)
			}
			return &desttest.Peer{
				Destination: d,
				Stored:      func(t *testing.T) []desttest.Entry { return scan(t, d) },
			}
		},
		Refused:     func(int) []byte { return []byte(`{"id":"eleven","text":"x"}`) },
		RefusedCode: codeMismatch,
		Codes:       []string{codes, "S3."},
		Unordered:   true,
		LargeBytes:  16 << 20, Memory: 100 << 20, // the store is in memory, and a row group
	})
}

func TestFailuresOfATableSayWhichAndWhere(t *testing.T) {
	d := &Destination{config: Config{Tables: []Table{{Database: "db", Name: "a", ErrorOutput: "of a"}, {Database: "db", Name: "b"}}}}
	for _, test := range []struct {
		table *record.Table
		want  string
	}{
		{&record.Table{Database: "db", Name: "a"}, "of a"},
		{&record.Table{Database: "db", Name: "a", Operation: "upsert"}, "of a"}, // no operation, and yet of the table
		{&record.Table{Database: "db", Name: "b"}, ""},
		{&record.Table{Database: "db", Name: "c"}, ""},
		{nil, ""}, // of none, since there are two
	} {
		if got := d.ErrorOutput(&record.Record{Table: test.table}); got != test.want {
			t.Errorf("%+v: %q", test.table, got)
		}
	}
	got := d.FailureFields(&record.Record{Lane: desttest.Lane("s"), Position: record.Position{Index: 7, Sub: 3}})
	if len(got) != 1 || got[0].Name != "EventId" || got[0].Value != fmt.Sprintf("4%055d.3", 7) {
		t.Errorf("%+v", got)
	}
}
