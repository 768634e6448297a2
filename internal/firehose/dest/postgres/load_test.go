package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// batch makes a batch of records that begin at a place.
func batch(from int, records ...string) *record.Batch {
	var list []record.Record
	for i, r := range records {
		list = append(list, record.Record{
			Data: []byte(r), Arrival: desttest.Arrival + int64(from+i), Lane: desttest.Lane("shard"),
			Position: record.Position{Index: uint64(from + i)},
		})
	}
	return record.Of(desttest.Stream, desttest.ID(from), list...)
}

func open(t *testing.T, c Config) *Destination {
	t.Helper()
	d, err := New(c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestRefusedRecords has the server refuse records for all sorts of reasons,
// among many that it takes.
func TestRefusedRecords(t *testing.T) {
	needServer(t)
	for _, c := range []struct{ name, table, good, bad, message string }{
		{"a value out of range", "CREATE TABLE t (id serial, n int2)", `{"n":%d}`, `{"n":99999}`, "out of range"},
		{"a text that is too long", "CREATE TABLE t (id serial, n int, s varchar(3))", `{"n":%d,"s":"abc"}`, `{"n":1,"s":"abcd"}`, "too long"},
		{"a broken rule", "CREATE TABLE t (id serial, n int CHECK (n < 5000))", `{"n":%d}`, `{"n":5000}`, "violates check constraint"},
		{"a key that is there", "CREATE TABLE t (n int PRIMARY KEY)", `{"n":%d}`, `{"n":0}`, "already exists"},
		{"a column without a value", "CREATE TABLE t (id serial, n int NOT NULL)", `{"n":%d}`, `{"n":null}`, "violates not-null constraint"},
		{"a rule that is checked in the end", "CREATE TABLE p (n int PRIMARY KEY); INSERT INTO p SELECT generate_series(0, 3000); CREATE TABLE t (id serial, n int REFERENCES p)", `{"n":%d}`, `{"n":-1}`, "violates foreign key constraint"},
		{"a second row of two", "CREATE TABLE t (id serial, n int)", `{"n":%d}`, `{"n":1}{"n":"x"}`, "invalid input syntax"},
		{"no JSON", "CREATE TABLE t (id serial, n int)", `{"n":%d}`, `{"n":`, "Invalid JSON"},
		{"nothing", "CREATE TABLE t (id serial, n int)", `{"n":%d}`, "\n", "holds no row"},
	} {
		t.Run(c.name, func(t *testing.T) {
			database := server.Database(t, c.table)
			d := open(t, Config{DSN: server.DSN(database), Table: "t"})
			var records []string
			bad := map[int]bool{1: true, 700: true, 701: true, 1999: true}
			for n := range 2000 {
				if bad[n] {
					records = append(records, c.bad)
				} else {
					records = append(records, fmt.Sprintf(c.good, n))
				}
			}
			r, err := d.Deliver(t.Context(), batch(0, records...))
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Failed) != len(bad) {
				t.Errorf("%d failed, want %d", len(r.Failed), len(bad))
			}
			for _, f := range r.Failed {
				if !bad[f.Index] || !strings.Contains(f.Message, c.message) || f.Retry {
					t.Errorf("failed: %+v", f)
				}
			}
			if got := server.Query(t, database, "SELECT count(*) FROM t")[0]; got != "1996" {
				t.Errorf("the table has %s rows, want 1996", got)
			}
		})
	}
}

// TestReplaysCutDifferently delivers what a crash would make of a source: runs
// that overlap and are cut at other places, with names of their own.
func TestReplaysCutDifferently(t *testing.T) {
	needServer(t)
	database := server.Database(t, "CREATE TABLE t (n int)")
	d := open(t, Config{DSN: server.DSN(database), Table: "t"})
	var all []string
	for n := range 50 {
		all = append(all, fmt.Sprintf(`{"n":%d}`, n))
	}
	for _, cut := range [][2]int{{0, 10}, {0, 15}, {0, 5}, {5, 30}, {28, 50}, {0, 50}} {
		if _, err := d.Deliver(t.Context(), batch(cut[0], all[cut[0]:cut[1]]...)); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Query(t, database, "SELECT count(*), count(DISTINCT n) FROM t")[0]; got != "50|50" {
		t.Errorf("the table has %s rows, want 50", got)
	}
	// Without the account everything is loaded again.
	other := open(t, Config{DSN: server.DSN(database), Table: "t", Ledger: "none"})
	if _, err := other.Deliver(t.Context(), batch(0, all...)); err != nil {
		t.Fatal(err)
	}
	if got := server.Query(t, database, "SELECT count(*) FROM t")[0]; got != "100" {
		t.Errorf("the table has %s rows, want 100", got)
	}
}

// TestALostAnswerToTheCommit cuts the connection when the server has committed.
func TestALostAnswerToTheCommit(t *testing.T) {
	needServer(t)
	database := server.Database(t, "CREATE TABLE t (n int)")
	var cut atomic.Bool
	d, err := New(Config{DSN: server.DSN(database), Table: "t"}, Deps{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &deaf{Conn: c, cut: &cut}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	b := batch(0, `{"n":1}`, `{"n":2}`)
	cut.Store(true)
	var e *dest.Error
	if _, err := d.Deliver(t.Context(), b); !errors.As(err, &e) || e.Code != codes+"ConnectionFailed" {
		t.Fatalf("got %v", err)
	}
	cut.Store(false)
	if _, err := d.Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := server.Query(t, database, "SELECT count(*) FROM t")[0]; got != "2" {
		t.Errorf("the table has %s rows, want 2", got)
	}
}

// deaf hears nothing any more once it has said commit.
type deaf struct {
	net.Conn
	cut  *atomic.Bool
	over atomic.Bool
}

func (d *deaf) Write(p []byte) (int, error) {
	if d.cut.Load() && strings.Contains(string(p), "commit") {
		d.over.Store(true)
	}
	return d.Conn.Write(p)
}

func (d *deaf) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if d.over.Load() { // the answer came and is lost
		_ = d.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func TestCodesOfFaults(t *testing.T) {
	needServer(t)
	database := server.Database(t, "CREATE TABLE t (n int); CREATE ROLE reader LOGIN; GRANT SELECT ON t TO reader; GRANT CREATE ON SCHEMA public TO reader")
	dsn := server.DSN(database)
	for _, c := range []struct {
		name   string
		config Config
		code   string
	}{
		{"no such database", Config{DSN: server.DSN("nowhere"), Table: "t"}, "DatabaseNotFound"},
		{"no such table", Config{DSN: dsn, Table: "u"}, "TableNotFound"},
		{"no such schema", Config{DSN: dsn, Table: "s.t"}, "SchemaNotFound"},
		{"no such column", Config{DSN: dsn, Table: "t", Columns: "n, m"}, "ColumnNotFound"},
		{"a column twice", Config{DSN: dsn, Table: "t", Columns: "n, N"}, "ColumnSpecifiedMoreThanOnce"},
		{"more than a table", Config{DSN: dsn, Table: "t; DROP TABLE t"}, "SyntaxError"},
		{"no such user", Config{DSN: strings.Replace(dsn, "postgres@", "nobody@", 1), Table: "t"}, "AuthenticationFailed"},
		{"a user who may not", Config{DSN: strings.Replace(dsn, "postgres@", "reader@", 1), Table: "t"}, "InsufficientPrivilege"},
		{"a server that only reads", Config{DSN: dsn + "&default_transaction_read_only=on", Table: "t", Ledger: "none"}, "ReadOnlyCluster"},
		{"a server without TLS", Config{DSN: strings.Replace(dsn, "sslmode=disable", "sslmode=require", 1), Table: "t"}, "SslNotSupported"},
		{"no server", Config{DSN: "postgres://postgres@127.0.0.1:1/x?sslmode=disable", Table: "t"}, "ConnectionFailed"},
		{"a statement that takes too long", Config{DSN: dsn + "&statement_timeout=1", Table: "slow", Ledger: "none"}, "QueryCancelled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.config.Table == "slow" {
				server.Exec(t, database, "CREATE TABLE slow (n int); CREATE FUNCTION wait() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(10); RETURN NEW; END' LANGUAGE plpgsql; CREATE TRIGGER w BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION wait()")
			}
			d := open(t, c.config)
			_, err := d.Deliver(t.Context(), batch(0, `{"n":1}`))
			var e *dest.Error
			if !errors.As(err, &e) || e.Code != codes+c.code || e.Permanent || e.Message == "" {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}

func TestBadConfigurations(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{Table: "t"}, "dsn and table are needed"},
		{Config{DSN: "postgres://u:hush@h:port/x", Table: "t"}, "read the connection string"},
		{Config{DSN: "host=x", Table: "t", Options: "NONSENSE"}, "is not known"},
		{Config{DSN: "host=x", Table: "t", Options: "GZIP"}, "is for objects"},
		{Config{DSN: "host=x", Table: "t", Options: "JSON 's3://b/k'"}, "name it in json_paths"},
		{Config{DSN: "host=x", Table: "t", JSONPaths: "/nowhere"}, "no such file"},
	} {
		_, err := New(c.config, Deps{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%+v: %v, want %q", c.config, err, c.want)
		}
	}
}
