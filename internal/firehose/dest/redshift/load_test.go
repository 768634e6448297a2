package redshift

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

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

// TestLoads runs COPY commands with options that need more than a row.
func TestLoads(t *testing.T) {
	needServer(t)
	for _, c := range []struct {
		name, table, columns, options string
		format                        compress.Format
		objects                       map[string]string
		records                       []string
		query                         string
		want                          string
		code                          string
	}{
		{
			name: "bars, as the service begins", table: "CREATE TABLE t (a int, b text)",
			records: []string{"1|x\n", "2|y\n"}, query: "SELECT * FROM t ORDER BY a", want: "1|x,2|y",
		},
		{
			name: "CSV in gzip", table: "CREATE TABLE t (a int, b text)", options: "CSV GZIP", format: compress.GZIP,
			records: []string{"1,\"x,", "y\"\n"}, query: "SELECT * FROM t", want: "1|x,y",
		},
		{
			name: "zstd", table: "CREATE TABLE t (a int)", options: "ZSTD", format: compress.Zstd,
			records: []string{"1\n"}, query: "SELECT * FROM t", want: "1",
		},
		{
			name: "columns by number and default", table: "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a int, b text DEFAULT 'none', c timestamptz)", columns: "a, c",
			options: "JSON 'auto' TIMEFORMAT 'epochmillisecs'",
			records: []string{`{"a":1,"c":1783951509000}`}, query: "SELECT id, a, b, extract(epoch FROM c)::bigint FROM t", want: "1|1|none|1783951509",
		},
		{
			name: "JSONPaths from the bucket", table: "CREATE TABLE t (a int, b text)", options: "JSON 's3://staging/paths.json'",
			objects: map[string]string{"paths.json": `{"jsonpaths":["$.x.a","$.y[0]"]}`},
			records: []string{`{"x":{"a":7},"y":["z"]}`}, query: "SELECT * FROM t", want: "7|z",
		},
		{
			name: "MAXERROR forgives", table: "CREATE TABLE t (a int, b varchar(2))", options: "MAXERROR 3",
			records: []string{"1|x\nbad|x\n", "2|long\n3|y\n"}, query: "SELECT * FROM t ORDER BY a; SELECT line, reason LIKE '%bad%', raw_line FROM millrace_load_errors ORDER BY line",
			want: "1|x,3|y,2|t|bad\tx\n,3|f|2\tlong\n",
		},
		{name: "MAXERROR is reached", table: "CREATE TABLE t (a int, b text)", options: "MAXERROR 2", records: []string{"x|1\ny|2\n"}, code: "Redshift.DataLoadFailed"},
		{name: "the first bad row ends it", table: "CREATE TABLE t (a int, b text)", records: []string{"1|x\ny|2\n"}, code: "Redshift.DataLoadFailed"},
		{name: "too few fields", table: "CREATE TABLE t (a int, b text)", records: []string{"1\n"}, code: "Redshift.Delimiter"},
		{name: "too many fields", table: "CREATE TABLE t (a int, b text)", records: []string{"1|2|3\n"}, code: "Redshift.ColumnMismatch"},
		{name: "gzip that is not said", table: "CREATE TABLE t (a int)", format: compress.GZIP, records: []string{"1\n"}, code: "Redshift.CompressionMismatch"},
		{name: "gzip that is not there", table: "CREATE TABLE t (a int)", options: "GZIP", records: []string{"1\n"}, code: "Redshift.CompressionMismatch"},
		{name: "no such paths", table: "CREATE TABLE t (a int)", options: "JSON 's3://staging/none'", records: []string{"{}"}, code: "Redshift.IncorrectJsonPathsFile"},
		{name: "bad paths", table: "CREATE TABLE t (a int)", options: "JSON 's3://staging/p'", objects: map[string]string{"p": `{"jsonpaths":["a"]}`}, records: []string{"{}"}, code: "Redshift.InvalidJsonPathFormat"},
		{name: "options that are none", table: "CREATE TABLE t (a int)", options: "FASTER", records: []string{"1\n"}, code: "Redshift.IncorrectCopyOptions"},
		{name: "options that JSON has not", table: "CREATE TABLE t (a int)", options: "JSON 'auto' ESCAPE", records: []string{"{}"}, code: "Redshift.InvalidCopyOptionForJson"},
	} {
		t.Run(c.name, func(t *testing.T) {
			database := server.Database(t, c.table)
			store := &desttest.Store{}
			for key, text := range c.objects {
				if _, err := store.Put(t.Context(), "staging", key, strings.NewReader(text), -1, objects.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			d := open(t, Config{Table: "t", Columns: c.columns, Options: c.options, Endpoint: Endpoint{DSN: server.DSN(database)}}, store, c.format)
			defer func() { _ = d.Close() }()
			r, err := d.Deliver(t.Context(), batch(0, c.records...))
			var e *dest.Error
			switch {
			case c.code != "" && (!errors.As(err, &e) || e.Code != c.code || e.Permanent):
				t.Fatalf("got %v, want %s", err, c.code)
			case c.code != "":
				if got := server.Query(t, database, "SELECT count(*) FROM t")[0]; got != "0" {
					t.Errorf("%s rows of a failed load are there", got)
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			if got := strings.Join(server.Query(t, database, c.query), ","); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(r.Objects) != 1 || !strings.HasPrefix(r.Objects[0].Name, "s3://staging/in/2026/07/13/14/") {
				t.Errorf("objects: %+v", r.Objects)
			}
		})
	}
}

// TestReplaysCutDifferently delivers what a crash would make of a source.
func TestReplaysCutDifferently(t *testing.T) {
	needServer(t)
	database := server.Database(t, "CREATE TABLE t (a int)")
	d := open(t, Config{Table: "t", Options: "JSON 'auto'", Endpoint: Endpoint{DSN: server.DSN(database)}}, &desttest.Store{}, compress.GZIP)
	d.target.Options.Compression = "gzip"
	defer func() { _ = d.Close() }()
	var all []string
	for n := range 40 {
		all = append(all, fmt.Sprintf(`{"a":%d}`, n))
	}
	for _, cut := range [][2]int{{0, 10}, {0, 15}, {0, 5}, {5, 30}, {28, 40}, {0, 40}} {
		if _, err := d.Deliver(t.Context(), batch(cut[0], all[cut[0]:cut[1]]...)); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Query(t, database, "SELECT count(*), count(DISTINCT a) FROM t")[0]; got != "40|40" {
		t.Errorf("the table has %s rows, want 40", got)
	}
}

// cluster is as much of Redshift as COPY needs: it notes statements and answers
// them.
type cluster struct {
	dsn    string
	answer func(sql string) *pgproto3.ErrorResponse

	mu         sync.Mutex
	statements []string
}

func newCluster(t *testing.T, answer func(sql string) *pgproto3.ErrorResponse) *cluster {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{dsn: "postgres://user:password@" + l.Addr().String() + "/dev?sslmode=disable", answer: answer}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		group.Wait()
	})
	return c
}

func (c *cluster) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	sql := ""
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pgproto3.Parse:
			sql = m.Query
			b.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Bind:
			b.Send(&pgproto3.BindComplete{})
		case *pgproto3.Describe:
			b.Send(&pgproto3.NoData{})
		case *pgproto3.Execute:
			c.mu.Lock()
			c.statements = append(c.statements, sql)
			c.mu.Unlock()
			if refused := c.answer(sql); refused != nil {
				b.Send(refused)
			} else {
				b.Send(&pgproto3.CommandComplete{CommandTag: []byte("COPY")})
			}
		case *pgproto3.Sync:
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if b.Flush() != nil {
				return
			}
		case *pgproto3.Terminate:
			return
		}
	}
}

func TestCopyByTheCluster(t *testing.T) {
	c := newCluster(t, func(string) *pgproto3.ErrorResponse { return nil })
	store := &desttest.Store{}
	d := open(t, Config{
		Table: "public.events", Columns: "a, b", Options: "JSON 'auto' GZIP;", RoleARN: "arn:aws:iam::000000000000:role/o'neill",
		Endpoint: Endpoint{DSN: c.dsn, ServerCopy: true},
	}, store, compress.GZIP)
	defer func() { _ = d.Close() }()
	if _, err := d.Deliver(t.Context(), batch(7, `{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	const name = "2026/07/13/14/suite-1-2026-07-13-14-05-09-00000000-0000-0000-0000-5eed00000007"
	const want = "COPY public.events (a, b) FROM 's3://staging/manifests/" + name + "' CREDENTIALS 'aws_iam_role=arn:aws:iam::000000000000:role/o''neill' MANIFEST JSON 'auto' GZIP;"
	if len(c.statements) != 1 || c.statements[0] != want {
		t.Errorf("statements are %q, want %q", c.statements, want)
	}
	if got := string(store.Object("staging", "manifests/"+name)); got != `{"entries":[{"url":"s3://staging/in/`+name+`.gz","mandatory":true}]}` {
		t.Errorf("the manifest is %s", got)
	}
}

func TestCodesOfTheCluster(t *testing.T) {
	for _, c := range []struct{ state, message, want string }{
		{"XX000", "Load into table 'events' failed.  Check 'stl_load_errors' system table for details.", "DataLoadFailed"},
		{"XX000", "S3ServiceException:Access Denied,Status 403,Error AccessDenied,Rid X,ExtRid Y", "S3BucketAccessDenied"},
		{"XX000", "S3ServiceException:The bucket is in this region: eu-west-1,Status 301,Error PermanentRedirect", "IncorrectOrMissingRegion"},
		{"XX000", "The specified key does not exist", "MissingS3File"},
		{"XX000", "Delimiter not found", "Delimiter"},
		{"XX000", "Invalid JSONPath format: Member is not an object.", "InvalidJsonPathFormat"},
		{"XX000", "COPY options: file is not compressed with gzip", "CompressionMismatch"},
		{"42P01", `relation "events" does not exist`, "TableNotFound"},
		{"42703", `column "x" of relation "events" does not exist`, "ColumnNotFound"},
		{"42501", "permission denied for relation events", "InsufficientPrivilege"},
		{"53100", "Disk Full", "DiskFull"},
		{"57014", "canceled on user's request", "QueryCancelled"},
		{"0A000", "something else", "PSQLException"},
	} {
		t.Run(c.message, func(t *testing.T) {
			k := newCluster(t, func(string) *pgproto3.ErrorResponse {
				return &pgproto3.ErrorResponse{Severity: "ERROR", Code: c.state, Message: c.message}
			})
			d := open(t, Config{Table: "events", Endpoint: Endpoint{DSN: k.dsn, ServerCopy: true}}, &desttest.Store{}, compress.None)
			defer func() { _ = d.Close() }()
			_, err := d.Deliver(t.Context(), batch(0, "x"))
			var e *dest.Error
			if !errors.As(err, &e) || e.Code != codes+c.want || !strings.Contains(e.Message, c.message) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestOneCopyAtATime holds the first COPY back: what arrives meanwhile shares
// the next manifest, except what has failed before and what has given up.
func TestOneCopyAtATime(t *testing.T) {
	entered, release := make(chan bool), make(chan bool)
	c := newCluster(t, func(string) *pgproto3.ErrorResponse {
		entered <- true
		<-release
		return nil
	})
	store := &desttest.Store{}
	d := open(t, Config{Table: "t", Endpoint: Endpoint{DSN: c.dsn, ServerCopy: true, Connections: 4}}, store, compress.None)
	defer func() { _ = d.Close() }()
	var group sync.WaitGroup
	results := make([]error, 6)
	begin := func(ctx context.Context, n, attempt int) {
		before := d.waits()
		b := batch(n*10, "x")
		b.Attempt = attempt
		group.Go(func() { _, results[n] = d.Deliver(ctx, b) })
		for d.waits() == before && n > 0 {
			runtime.Gosched()
		}
	}
	begin(t.Context(), 0, 1)
	<-entered
	begin(t.Context(), 1, 1)
	begin(t.Context(), 2, 1)
	begin(t.Context(), 3, 2)
	gone, cancel := context.WithCancel(t.Context())
	begin(gone, 4, 1)
	cancel()
	for d.waits() != 3 {
		runtime.Gosched()
	}
	for range 3 {
		release <- true
		if len(c.seen()) < 3 {
			<-entered
		}
	}
	group.Wait()
	for n, err := range results {
		if (err != nil) != (n == 4) {
			t.Errorf("batch %d: %v", n, err)
		}
	}
	var sizes []string
	for _, sql := range c.seen() {
		_, rest, _ := strings.Cut(sql, "s3://staging/")
		key, _, _ := strings.Cut(rest, "'")
		sizes = append(sizes, fmt.Sprint(strings.Count(string(store.Object("staging", key)), "mandatory")))
	}
	if got := strings.Join(sizes, ","); got != "1,2,1" && got != "1,1,2" {
		t.Errorf("the manifests list %s objects, want one, two together, and the one that failed before", got)
	}
}

func (c *cluster) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.statements...)
}

func (d *Destination) waits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

func TestAbandon(t *testing.T) {
	store := &desttest.Store{}
	d := open(t, Config{Table: "t", Endpoint: Endpoint{DSN: "postgres://127.0.0.1:1/x?sslmode=disable", ServerCopy: true}}, store, compress.None)
	defer func() { _ = d.Close() }()
	b := batch(3, "x\n")
	_, err := d.Deliver(t.Context(), b)
	var e *dest.Error
	if !errors.As(err, &e) || e.Code != "Redshift.ConnectionFailed" {
		t.Fatalf("got %v", err)
	}
	store.Fail = func(_, _, key string) error {
		if strings.HasPrefix(key, "errors/") {
			return &objects.Error{Code: objects.CodeAccessDenied, Status: 403}
		}
		return nil
	}
	if _, err := d.Abandon(t.Context(), b, err); err == nil {
		t.Error("Abandon succeeds without a manifest")
	}
	store.Fail = nil
	r, err := d.Abandon(t.Context(), b, err)
	if err != nil {
		t.Fatal(err)
	}
	const name = "2026/07/13/14/suite-1-2026-07-13-14-05-09-00000000-0000-0000-0000-5eed00000003"
	if len(r.Objects) != 1 || r.Objects[0].Name != "s3://staging/errors/manifests/"+name || r.Objects[0].Records != 1 {
		t.Errorf("objects: %+v", r.Objects)
	}
	if got := string(store.Object("staging", "errors/manifests/"+name)); got != `{"entries":[{"url":"s3://staging/in/`+name+`","mandatory":true}]}` {
		t.Errorf("the manifest is %s", got)
	}
	if got := string(store.Object("staging", "in/"+name)); got != "x\n" {
		t.Errorf("the object holds %q", got)
	}
}

func TestConnectionString(t *testing.T) {
	for _, c := range []struct{ jdbc, want string }{
		{"jdbc:redshift://c.abc.us-east-1.redshift.amazonaws.com:5439/dev", "postgres://c.abc.us-east-1.redshift.amazonaws.com:5439/dev?sslmode=require"},
		{"jdbc:postgresql://w.redshift-serverless.amazonaws.com/dev?sslMode=verify-full&user=x", "postgres://w.redshift-serverless.amazonaws.com:5439/dev?sslmode=verify-full"},
		{"jdbc:mysql://h:1/d", ""},
		{"redshift://h:1/d", ""},
		{"jdbc:redshift:", ""},
	} {
		got, err := ConnectionString(c.jdbc)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %s, %v; want %s", c.jdbc, got, err, c.want)
		}
	}
}
