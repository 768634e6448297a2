package iceberg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
)

// TestCommitsThatCross lets something else happen to the table while a batch's
// files are written.
func TestCommitsThatCross(t *testing.T) {
	for _, c := range []struct {
		name     string
		between  func(t *testing.T, other *Destination)
		conflict bool
		want     int // rows in the end
	}{
		{
			name: "rows of another stream",
			between: func(t *testing.T, other *Destination) {
				b := batch(0, do{"", `{"id":7}`}, do{"delete", `{"id":1}`})
				b.Stream.ARN += "2"
				deliver(t, other, b)
			},
			want: 3,
		},
		{
			name:     "the same records",
			between:  func(t *testing.T, other *Destination) { deliver(t, other, batch(10, do{"", `{"id":2}`})) },
			conflict: true,
			want:     3,
		},
		{
			name: "another schema",
			between: func(t *testing.T, other *Destination) {
				b := batch(0, do{"", `{"id":7,"shoe":44}`})
				b.Stream.ARN += "2"
				deliver(t, other, b)
			},
			conflict: true,
			want:     4,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, store := lake(t, Config{}, nil)
			other := open(t, Config{Catalog: d.config.Catalog, SchemaEvolution: true}, Deps{Store: store})
			defer func() { _ = other.Close() }()
			deliver(t, d, batch(0, do{"", `{"id":1}`}))
			var met atomic.Bool
			store.Fail = func(operation, _, key string) error {
				if operation == "put" && strings.Contains(key, "/data/") {
					if !met.Swap(true) {
						c.between(t, other)
					}
				}
				return nil
			}
			b := batch(10, do{"", `{"id":2}`}, do{"", `{"id":3}`})
			_, err := d.Deliver(t.Context(), b)
			var e *dest.Error
			if c.conflict && (!errors.As(err, &e) || e.Code != codeConflict || e.Permanent) || !c.conflict && err != nil {
				t.Errorf("the first attempt: %v", err)
			}
			deliver(t, d, b)
			if rows := read(t, d, people); len(rows) != c.want {
				t.Errorf("rows are\n%s\nwant %d", show(rows), c.want)
			}
			// Every manifest list is one of a snapshot.
			lists := 0
			for _, key := range store.Keys("lake") {
				if strings.Contains(key, "/metadata/snap-") {
					lists++
				}
			}
			if n := len(library(t, d, people).Metadata().Snapshots()); n != lists {
				t.Errorf("%d manifest lists for %d snapshots", lists, n)
			}
		})
	}
}

// TestPartitions cuts by transforms of several types, into more partitions than
// files are open at a time, and has the library find rows by their bounds.
func TestPartitions(t *testing.T) {
	schema := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64},
		iceberg.NestedField{ID: 2, Name: "name", Type: iceberg.PrimitiveTypes.String},
		iceberg.NestedField{ID: 3, Name: "at", Type: iceberg.PrimitiveTypes.TimestampTz},
		iceberg.NestedField{ID: 4, Name: "price", Type: iceberg.DecimalTypeOf(9, 2)},
		iceberg.NestedField{ID: 5, Name: "in", Type: &iceberg.StructType{FieldList: []iceberg.NestedField{{ID: 6, Name: "day", Type: iceberg.PrimitiveTypes.Date}}}},
	)
	by := func(id int, transform iceberg.Transform) iceberg.PartitionField {
		return iceberg.PartitionField{SourceIDs: []int{id}, FieldID: 1000 + id, Name: fmt.Sprintf("by_%d", id), Transform: transform}
	}
	spec := iceberg.NewPartitionSpec(by(1, iceberg.BucketTransform{NumBuckets: 16}), by(2, iceberg.TruncateTransform{Width: 2}),
		by(3, iceberg.DayTransform{}), by(4, iceberg.IdentityTransform{}), by(6, iceberg.MonthTransform{}))
	store := &desttest.Store{}
	d := open(t, Config{Catalog: Catalog{Type: "files", Warehouse: "s3://lake/warehouse"}}, Deps{Store: store})
	defer func() { _ = d.Close() }()
	if err := d.catalog.create(t.Context(), "db", "people", schema, &spec); err != nil {
		t.Fatal(err)
	}
	var rows []do
	const count = 400
	for i := range count {
		rows = append(rows, do{"", fmt.Sprintf(`{"id":%d,"name":"ab %d, and a name longer than a bound is","at":"2026-07-%02dT10:00:00Z","price":"%d.5","in":{"day":"2026-0%d-01"}}`, i, i%7, 1+i%3, i%2, 1+i%4)})
	}
	rows = append(rows, do{"", `{"id":-1}`}, do{"", `{"name":"no id"}`})
	if got := failures(deliver(t, d, batch(0, rows...))); got != "" {
		t.Fatal(got)
	}
	tab := library(t, d, people)
	partitions := map[string]int64{}
	tasks, err := tab.Scan().PlanFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, task := range tasks {
		p := task.File.Partition()
		var key []string
		for _, id := range slices.Sorted(maps.Keys(p)) {
			key = append(key, fmt.Sprint(p[id]))
		}
		partitions[strings.Join(key, " ")] += task.File.Count()
		total += task.File.Count()
	}
	if total != count+2 || len(partitions) <= maxOpenFiles {
		t.Errorf("%d rows in %d partitions", total, len(partitions))
	}
	for _, c := range []struct {
		filter iceberg.BooleanExpression
		want   int
	}{
		{iceberg.EqualTo(iceberg.Reference("id"), int64(123)), 1},
		{iceberg.EqualTo(iceberg.Reference("name"), "ab 3, and a name longer than a bound is"), 57},
		{iceberg.GreaterThan(iceberg.Reference("name"), "ab 5, and a name longer than a bound is"), 57 + 1},
		{iceberg.IsNull(iceberg.Reference("at")), 2},
		{iceberg.LessThan(iceberg.Reference("price"), "1.00"), 200},
	} {
		_, batches, err := tab.Scan(table.WithRowFilter(c.filter)).ToArrowRecords(t.Context())
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		got := 0
		for b, err := range batches {
			if err != nil {
				t.Fatalf("%s: %v", c.filter, err)
			}
			got += int(b.NumRows())
			b.Release()
		}
		if got != c.want {
			t.Errorf("%s finds %d rows, want %d", c.filter, got, c.want)
		}
	}
}

// TestFormatVersion3 writes to a table whose rows have ids.
func TestFormatVersion3(t *testing.T) {
	d, _ := lake(t, Config{}, nil)
	change := func(version int, next int64) {
		t.Helper()
		files := d.catalog.(*fileTables)
		now, last, err := files.last(t.Context(), "db", "people")
		if err != nil {
			t.Fatal(err)
		}
		m, err := set(now.meta, map[string]any{"format-version": version, "next-row-id": next})
		if err != nil {
			t.Fatal(err)
		}
		if err := files.write(t.Context(), files.location("db", "people"), last+1, m); err != nil {
			t.Fatal(err)
		}
	}
	deliver(t, d, batch(0, do{"", `{"id":1}`}))
	change(3, 100)
	deliver(t, d, batch(10, do{"", `{"id":2}`}, do{"", `{"id":3}`}))
	deliver(t, d, batch(20, do{"update", `{"id":3,"name":"x"}`}))
	if got := show(read(t, d, people)); got != "{\"id\":1,\"name\":null,\"town\":null}\n{\"id\":2,\"name\":null,\"town\":null}\n{\"id\":3,\"name\":\"x\",\"town\":null}" {
		t.Errorf("rows are\n%s", got)
	}
	// The one row of the second version gets its id with the first commit.
	if next := library(t, d, people).Metadata().NextRowID(); next != 100+1+2+1 {
		t.Errorf("the next row is %d", next)
	}
	change(4, 0)
	var e *dest.Error
	if _, err := d.Deliver(t.Context(), batch(30, do{"", `{"id":4}`})); !errors.As(err, &e) || e.Code != codeTableName {
		t.Errorf("an unknown format version: %v", err)
	}
}

// TestMetadataIsKept says that a commit leaves alone what it is not about.
func TestMetadataIsKept(t *testing.T) {
	m, err := makeMetadata(peopleSchema, nil, "s3://lake/x")
	if err != nil {
		t.Fatal(err)
	}
	const big = 9007199254740993 // no float64
	if m, err = set(m, map[string]any{
		"from-the-future": map[string]any{"n": json.Number("9007199254740993")},
		"refs":            map[string]any{"main": map[string]any{"snapshot-id": 1, "type": "branch", "max-ref-age-ms": big}, "v1": map[string]any{"snapshot-id": big, "type": "tag"}},
		"properties":      map[string]string{"write.metadata.previous-versions-max": "2", "write.metadata.path": "s3://lake/elsewhere/"},
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		s := &snapshot{ID: int64(i + 10), Sequence: m.LastSequence + 1, List: "s3://lake/l", Summary: map[string]string{"operation": "append"}, Schema: &m.CurrentSchema}
		if before := m.current(); before != nil {
			s.Parent = &before.ID
		}
		c := proceed(m, s)
		next, err := advance(m, c, fmt.Sprintf("s3://lake/%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := advance(next, c, ""); !errors.Is(err, errCommit) {
			t.Errorf("the same commit again: %v", err)
		}
		m = next
	}
	if got := string(m.raw["from-the-future"]); got != `{"n":9007199254740993}` {
		t.Errorf("an unknown member is %s", got)
	}
	if got := string(m.raw["refs"]); got != `{"main":{"max-ref-age-ms":9007199254740993,"snapshot-id":13,"type":"branch"},"v1":{"snapshot-id":9007199254740993,"type":"tag"}}` {
		t.Errorf("refs are %s", got)
	}
	if got := string(m.raw["metadata-log"]); strings.Count(got, "metadata-file") != 2 || !strings.Contains(got, "s3://lake/3") {
		t.Errorf("the log of metadata is %s", got)
	}
	if got := m.metadataPath(); got != "s3://lake/elsewhere" {
		t.Errorf("metadata goes to %s", got)
	}
	if got := string(m.raw["snapshot-log"]); strings.Count(got, "snapshot-id") != 4 {
		t.Errorf("the log of snapshots is %s", got)
	}
}

// TestRESTCatalogByCredentials has tokens that end early and requests that are
// signed.
func TestRESTCatalogByCredentials(t *testing.T) {
	store := &desttest.Store{}
	var mu sync.Mutex
	logins := 0
	var signed []string
	good := restServer(t, store, "token 2")
	server := desttest.NewHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/v1/oauth/tokens" {
			if _ = r.ParseForm(); r.PostForm.Get("client_id") != "me" || r.PostForm.Get("client_secret") != "secret" || r.PostForm.Get("scope") != "all" {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = w.Write([]byte(`{"error":"invalid_client","error_description":"who is it?"}`))
				return
			}
			logins++
			_, _ = fmt.Fprintf(w, `{"access_token":"token %d","token_type":"bearer","expires_in":3600}`, logins)
			return
		}
		if a := r.Header.Get("Authorization"); strings.HasPrefix(a, "AWS4") {
			signed = append(signed, a)
			r.Header.Set("Authorization", "Bearer token 2")
		}
		good.ServeHTTP(w, r)
	}))
	try := func(c Catalog, deps Deps) error {
		c.Type, c.URI = "rest", server.URL
		deps.Store, deps.Client = store, client(t)
		d := open(t, Config{Catalog: c, TableCreation: true}, deps)
		defer func() { _ = d.Close() }()
		_, err := d.Deliver(t.Context(), batch(0, do{"", `{"id":1}`}))
		return err
	}
	var e *dest.Error
	if err := try(Catalog{Credential: "me:secret"}, Deps{}); !errors.As(err, &e) || e.Code != codeCatalogAccess || !strings.Contains(e.Message, "who is it?") {
		t.Errorf("bad credentials: %v", err)
	}
	// The first token is refused; the second is good.
	if err := try(Catalog{Credential: "me:secret", Scope: "all"}, Deps{}); err != nil {
		t.Error(err)
	}
	if logins != 2 {
		t.Errorf("%d logins, want 2", logins)
	}
	if err := try(Catalog{SigV4: SigV4{Region: "eu-west-1", Service: "glue"}}, Deps{Credentials: func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}, nil
	}}); err != nil {
		t.Error(err)
	}
	if len(signed) == 0 || !strings.Contains(signed[0], "/eu-west-1/glue/aws4_request") || !strings.Contains(signed[0], "x-amz-content-sha256") {
		t.Errorf("signed are %v", signed)
	}
}

func TestDecimals(t *testing.T) {
	for _, c := range []struct {
		text             string
		precision, scale int
		want             string // empty: refused
	}{
		{"1.005", 9, 2, "101"}, {"-1.005", 9, 2, "-101"}, {"1.0049", 9, 2, "100"}, {"-0.004", 9, 2, "0"}, {"-0.005", 9, 2, "-1"},
		{"1e2", 9, 2, "10000"}, {"1e7", 9, 2, ""}, {"12.5e-1", 9, 2, "125"}, {"1e999999999", 38, 0, ""}, {"0e999", 9, 2, "0"},
		{"9.995", 3, 2, ""}, {"9.994", 3, 2, "999"}, {".5", 9, 1, "5"}, {"5.", 9, 1, "50"}, {".", 9, 1, ""}, {"1.-5", 9, 2, ""}, {"--1", 9, 2, ""}, {"1e", 9, 2, ""},
	} {
		n, ok := decimal(c.text, c.precision, c.scale)
		if got := fmt.Sprint(n); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("decimal(%q, %d, %d) = %v, %v, want %q", c.text, c.precision, c.scale, n, ok, c.want)
		}
	}
}

// FuzzMetadata reads metadata that others wrote, and makes a commit on it.
func FuzzMetadata(f *testing.F) {
	m, err := makeMetadata(peopleSchema, nil, "s3://lake/x")
	if err != nil {
		f.Fatal(err)
	}
	text, err := m.text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.Replace(text, []byte(`"refs":{}`), []byte(`"refs":null,"snapshot-log":null`), 1))
	f.Add([]byte("\x1f\x8b"))
	f.Add([]byte(`{"format-version":2,"schemas":[{"schema-id":0}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMetadata(data)
		if err != nil || m.Version < 2 {
			return
		}
		s := &snapshot{ID: 5, Sequence: m.LastSequence + 1, Schema: &m.CurrentSchema}
		if before := m.current(); before != nil {
			s.Parent = &before.ID
		}
		next, err := advance(m, proceed(m, s), "s3://lake/before")
		if err != nil {
			return
		}
		if now := next.current(); now == nil || now.ID != 5 && m.current() == nil {
			t.Errorf("the snapshot is not there")
		}
	})
}
