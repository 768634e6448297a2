package s3

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/vfs"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bucket = "bucket"

// embedded is a real store with a bucket.
func embedded(t testing.TB) *objects.Embedded {
	t.Helper()
	store, err := objects.Open(objects.Options{Files: vfs.OS(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.CreateBucket(context.Background(), bucket, "000000000000", "us-east-1"); err != nil {
		t.Fatal(err)
	}
	return store
}

func prefixes(t testing.TB, prefix, errorPrefix string, o naming.PairOptions) (main, failures *naming.Template) {
	t.Helper()
	main, failures, err := naming.Prefix(prefix, errorPrefix, o)
	if err != nil {
		t.Fatal(err)
	}
	return main, failures
}

// contents reads all objects, in the order of their keys.
func contents(t testing.TB, store *objects.Embedded) map[string]string {
	t.Helper()
	list, _, err := store.List(context.Background(), bucket, "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, o := range list {
		all[o.Key] = string(get(t, store, o.Key))
	}
	return all
}

func get(t testing.TB, store *objects.Embedded, key string) []byte {
	t.Helper()
	r, _, err := store.Get(context.Background(), bucket, key, objects.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// faulty is a store that can be broken.
type faulty struct {
	Store
	fault atomic.Pointer[desttest.Fault]
	// discard counts objects' lines instead of keeping them.
	discard atomic.Bool
	lines   atomic.Int64
	zipped  bool
}

func (f *faulty) Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o objects.PutOptions) (objects.Info, error) {
	if f.discard.Load() {
		if f.zipped {
			z, err := gzip.NewReader(body)
			if err != nil {
				return objects.Info{}, err
			}
			body = z
		}
		buffer := make([]byte, 64<<10)
		for {
			n, err := body.Read(buffer)
			f.lines.Add(int64(bytes.Count(buffer[:n], []byte("\n"))))
			if errors.Is(err, io.EOF) {
				return objects.Info{}, nil
			}
			if err != nil {
				return objects.Info{}, err
			}
		}
	}
	if fault := f.fault.Load(); fault != nil {
		switch *fault {
		case desttest.Hang:
			_, _ = body.Read(make([]byte, 10))
			<-ctx.Done()
			return objects.Info{}, ctx.Err()
		case desttest.Reset:
			_, _ = io.CopyN(io.Discard, body, 100)
			return objects.Info{}, errors.New("connection reset by peer")
		default:
			return objects.Info{}, &objects.Error{Code: objects.CodeSlowDown, Status: http.StatusServiceUnavailable, Message: "Please reduce your request rate."}
		}
	}
	return f.Store.Put(ctx, bucket, key, body, size, o)
}

func TestContract(t *testing.T) {
	for _, format := range []compress.Format{compress.None, compress.GZIP} {
		t.Run(string(format), func(t *testing.T) {
			desttest.Run(t, desttest.Harness{
				Codes:  []string{"S3.", "InternalError"},
				Faults: []desttest.Fault{desttest.Unavailable, desttest.Reset, desttest.Hang},
				Open: func(t *testing.T) *desttest.Peer {
					store := embedded(t)
					broken := &faulty{Store: store}
					main, failures := prefixes(t, "", "", naming.PairOptions{})
					return &desttest.Peer{
						Destination: New(Config{Store: broken, Bucket: bucket, Prefix: main, ErrorPrefix: failures, Compression: format}),
						Stored: func(t *testing.T) []desttest.Entry {
							all := contents(t, store)
							var keys []string
							for k := range all {
								keys = append(keys, k)
							}
							slices.Sort(keys)
							var found []desttest.Entry
							for _, k := range keys {
								data := []byte(all[k])
								if format == compress.GZIP {
									data = unzip(t, data)
								}
								found = append(found, desttest.Parse(t, data)...)
							}
							return found
						},
						Break: func(_ *testing.T, f desttest.Fault) func() {
							broken.fault.Store(&f)
							return func() { broken.fault.Store(nil) }
						},
						Discard: func() func() int {
							broken.zipped = format == compress.GZIP
							broken.discard.Store(true)
							return func() int { return int(broken.lines.Load()) }
						},
					}
				},
			})
		})
	}
}

func unzip(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const id = "3f0c9a5e11d24f7b8c6d0e1f2a3b4c5d"

func batch(keys *record.Keys, data ...string) *record.Batch {
	rs := make([]record.Record, len(data))
	for i, d := range data {
		rs[i] = record.Record{Data: []byte(d), Arrival: time.Date(2026, 7, 13, 14, 5, 9+i, 0, time.UTC).UnixMilli(), Position: record.Position{Index: uint64(i)}, Keys: keys}
	}
	return record.Of(record.Stream{Name: "clicks", Version: 3}, id, rs...)
}

// conversion writes what it is told.
type conversion struct {
	rows   int
	failed []dest.Failure
	err    error
}

func (c conversion) Extension() string       { return ".parquet" }
func (c conversion) ContentEncoding() string { return "hadoop-snappy" }

func (c conversion) Convert(_ context.Context, b *record.Batch, w io.Writer) (int, []dest.Failure, error) {
	_, _ = io.WriteString(w, "PAR1")
	err := b.Each(func(_ int, r *record.Record) error {
		_, err := w.Write(bytes.ToUpper(r.Data))
		return err
	})
	return c.rows, c.failed, errors.Join(err, c.err)
}

// The table of object headers, and what decides on names.
func TestObjects(t *testing.T) {
	const name = "clicks-3-2026-07-13-14-05-09-3f0c9a5e-11d2-4f7b-8c6d-0e1f2a3b4c5d"
	for _, c := range []struct {
		name           string
		config         Config
		prefix         string
		key, encoding  string
		body           string
		withoutHeaders bool
	}{
		{name: "bytes back to back", key: "2026/07/13/14/" + name, body: "abcabcabc"},
		{name: "GZIP", config: Config{Compression: compress.GZIP}, key: "2026/07/13/14/" + name + ".gz", encoding: "gzip"},
		{name: "ZIP", config: Config{Compression: compress.ZIP}, key: "2026/07/13/14/" + name + ".zip", encoding: "zip"},
		{name: "Snappy", config: Config{Compression: compress.Snappy}, key: "2026/07/13/14/" + name + ".snappy", encoding: "snappy-java"},
		{name: "HADOOP_SNAPPY", config: Config{Compression: compress.HadoopSnappy}, key: "2026/07/13/14/" + name + ".snappy", encoding: "hadoop-snappy"},
		{name: "conversion", config: Config{Converter: conversion{rows: 3}}, key: "2026/07/13/14/" + name + ".parquet", encoding: "hadoop-snappy", body: "PAR1ABCABCABC"},
		{name: "an extension of one's own", config: Config{Compression: compress.GZIP, Extension: ".json"}, key: "2026/07/13/14/" + name + ".json", encoding: "gzip"},
		{name: "even for conversion", config: Config{Converter: conversion{rows: 3}, Extension: ".x"}, key: "2026/07/13/14/" + name + ".x", encoding: "hadoop-snappy", body: "PAR1ABCABCABC"},
		{name: "a prefix", prefix: "logs/", key: "logs/2026/07/13/14/" + name, body: "abcabcabc"},
		{name: "a time zone", config: Config{Location: time.FixedZone("", 9*3600)}, key: "2026/07/13/23/" + strings.Replace(name, "-14-05", "-23-05", 1), body: "abcabcabc"},
		{name: "no header", config: Config{Compression: compress.GZIP}, key: "2026/07/13/14/" + name + ".gz", withoutHeaders: true},
		{name: "delimiters", config: Config{Delimiter: []byte("c")}, key: "2026/07/13/14/" + name, body: "abcabcabc"},
		{name: "delimiters that are not there", config: Config{Delimiter: []byte("\n")}, key: "2026/07/13/14/" + name, body: "abc\nabc\nabc\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := embedded(t)
			c.config.Store, c.config.Bucket, c.config.KMSKey = store, bucket, "arn:aws:kms:us-east-1:0:key/k"
			c.config.ContentEncoding = !c.withoutHeaders
			c.config.Prefix, c.config.ErrorPrefix = prefixes(t, c.prefix, "", naming.PairOptions{Location: c.config.Location})
			d := New(c.config)
			for range 2 { // the second attempt overwrites the first
				result, err := d.Deliver(t.Context(), batch(nil, "abc", "abc", "abc"))
				if err != nil {
					t.Fatal(err)
				}
				if len(result.Objects) != 1 || result.Objects[0].Name != "s3://"+bucket+"/"+c.key || result.Objects[0].Records != 3 {
					t.Errorf("delivered %+v, want %s", result.Objects, c.key)
				}
			}
			all := contents(t, store)
			body, ok := all[c.key]
			if len(all) != 1 || !ok {
				t.Fatalf("the bucket holds %q", all)
			}
			if c.body != "" && body != c.body {
				t.Errorf("body %q, want %q", body, c.body)
			}
			info, err := store.Head(t.Context(), bucket, c.key)
			if err != nil || info.ContentType != "application/octet-stream" || info.ContentEncoding != c.encoding {
				t.Errorf("type %q, encoding %q (%v), want %q", info.ContentType, info.ContentEncoding, err, c.encoding)
			}
			if key, err := d.Key(batch(nil, "abc")); err != nil || key != c.key {
				t.Errorf("key %s (%v)", key, err)
			}
		})
	}
}

func TestPartitions(t *testing.T) {
	store := embedded(t)
	main, failures := prefixes(t, "c=!{partitionKeyFromQuery:c}/!{timestamp:HH}/", "e/!{firehose:error-output-type}/", naming.PairOptions{Partitioning: true, Query: true})
	d := New(Config{Store: store, Bucket: bucket, Prefix: main, ErrorPrefix: failures})
	result, err := d.Deliver(t.Context(), batch(&record.Keys{Query: map[string]string{"c": "42"}}, "a"))
	if err != nil || !strings.HasPrefix(result.Objects[0].Name, "s3://bucket/c=42/14/clicks-3-") {
		t.Errorf("delivered %+v (%v)", result, err)
	}
	_, err = d.Deliver(t.Context(), batch(nil, "a"))
	var e *dest.Error
	if !errors.As(err, &e) || e.Code != "S3.InvalidPrefixConfigurationException" || !e.Permanent {
		t.Errorf("without keys: %v", err)
	}
}

func TestConversions(t *testing.T) {
	failed := func(n int) (list []dest.Failure) {
		for i := range n {
			list = append(list, dest.Failure{Index: i, Code: "DataFormatConversion.ParseError", Message: "bad"})
		}
		return list
	}
	for _, c := range []struct {
		name            string
		conversion      conversion
		objects, failed int
		err             string
	}{
		{"some records", conversion{rows: 1, failed: failed(2)}, 1, 2, ""},
		{"no record", conversion{failed: failed(3)}, 0, 3, ""},
		{"the catalog is away", conversion{rows: 1, err: &dest.Error{Code: "DataFormatConversion.ThrottledByGlue"}}, 0, 0, "DataFormatConversion.ThrottledByGlue"},
		{"any other error", conversion{rows: 1, err: errors.New("boom")}, 0, 0, "InternalError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := embedded(t)
			main, failures := prefixes(t, "", "", naming.PairOptions{})
			result, err := New(Config{Store: store, Bucket: bucket, Prefix: main, ErrorPrefix: failures, Converter: c.conversion}).Deliver(t.Context(), batch(nil, "a", "b", "c"))
			if len(result.Objects) != c.objects || len(result.Failed) != c.failed {
				t.Errorf("delivered %+v", result)
			}
			if c.objects == 1 && result.Objects[0].Records != 3-c.failed {
				t.Errorf("%d records", result.Objects[0].Records)
			}
			var e *dest.Error
			if c.err != "" && (!errors.As(err, &e) || e.Code != c.err) || c.err == "" && err != nil {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if n := len(contents(t, store)); n != c.objects {
				t.Errorf("the bucket holds %d objects", n)
			}
		})
	}
}

func TestErrorsOfStores(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&objects.Error{Code: "NoSuchBucket", Status: 404}, "S3.NoSuchBucket"},
		{fmt.Errorf("put: %w", &objects.Error{Code: "AccessDenied", Status: 403}), "S3.AccessDenied"},
		{&objects.Error{Code: "KMS.NotFoundException", Status: 400}, "S3.KMS.NotFoundException"},
		{&objects.Error{Code: "KeyTooLongError", Status: 400}, "S3.KeyTooLongError"},
		{&objects.Error{Code: "InternalError", Status: 500}, "InternalError"},
		{&dest.Error{Code: "File.NoSpace"}, "File.NoSpace"},
		{errors.New("connection refused"), "InternalError"},
	} {
		main, failures := prefixes(t, "", "", naming.PairOptions{})
		config := Config{Store: refusing{c.err}, Bucket: bucket, Prefix: main, ErrorPrefix: failures}
		_, err := New(config).Deliver(t.Context(), batch(nil, strings.Repeat("a", 1<<20)))
		var e *dest.Error
		if !errors.As(err, &e) || e.Code != c.want || e.Permanent != (c.want == "S3.KeyTooLongError") {
			t.Errorf("%v became %v, want %s", c.err, err, c.want)
		}
		if _, err := NewWriter(config).WriteFailures(t.Context(), record.Stream{Name: "s"}, "processing-failed", id, time.Now(), []byte("x\n")); !errors.As(err, &e) || e.Code != c.want {
			t.Errorf("failures: %v became %v", c.err, err)
		}
	}
}

type refusing struct{ err error }

func (r refusing) Put(context.Context, string, string, io.Reader, int64, objects.PutOptions) (objects.Info, error) {
	return objects.Info{}, r.err
}

func TestBackupsAndErrorOutputs(t *testing.T) {
	store := embedded(t)
	main, failures := prefixes(t, "", "failed/!{firehose:error-output-type}/!{timestamp:yyyy}/", naming.PairOptions{})
	w := NewWriter(Config{Store: store, Bucket: bucket, Prefix: main, ErrorPrefix: failures, Converter: conversion{rows: 1}, Extension: ".x"})
	const name = "clicks-3-2026-07-13-14-05-09-3f0c9a5e-11d2-4f7b-8c6d-0e1f2a3b4c5d"
	if got, err := w.WriteBatch(t.Context(), batch(nil, "a", "b"), "splunk-failed"); err != nil || got != "s3://bucket/failed/splunk-failed/2026/"+name {
		t.Errorf("error batch %s (%v)", got, err)
	}
	if got, err := w.WriteBatch(t.Context(), batch(nil, "a", "b"), ""); err != nil || got != "s3://bucket/2026/07/13/14/"+name+".x" {
		t.Errorf("backup %s (%v)", got, err)
	}
	if got, err := w.WriteBatch(t.Context(), record.Of(record.Stream{}, id), ""); err != nil || got != "" {
		t.Errorf("empty backup %s (%v)", got, err)
	}
	at := time.Date(2026, 7, 13, 14, 5, 9, 0, time.UTC)
	got, err := w.WriteFailures(t.Context(), record.Stream{Name: "clicks", Version: 3}, "processing-failed", id, at, []byte("{}\n"))
	if err != nil || got != "s3://bucket/failed/processing-failed/2026/"+name {
		t.Errorf("failures %s (%v)", got, err)
	}
	if body := contents(t, store)["failed/processing-failed/2026/"+name]; body != "{}\n" {
		t.Errorf("failures are %q", body)
	}
}

// One line of each kind, members in the order of the service.
func TestFailureLines(t *testing.T) {
	var got []byte
	for _, l := range []FailureLine{
		{ErrorType: "processing-failed", FunctionARN: "arn:aws:lambda:us-east-1:0:function:f"},
		{ErrorType: "decompression-failed"},
		{ErrorType: "format-conversion-failed", Fields: []dest.Field{{Name: "sequenceNumber", Value: "4954"}, {Name: "subSequenceNumber", Value: int64(0)}, {Name: "dataCatalogTable", Value: []dest.Field{{Name: "catalogId", Value: nil}, {Name: "tableName", Value: "t"}}}}},
		{ErrorType: "AmazonOpenSearchService-failed", Fields: []dest.Field{{Name: "esDocumentId", Value: "1.0"}, {Name: "esIndexName", Value: "i"}, {Name: "esTypeName", Value: ""}}},
		{ErrorType: "splunk-failed", Fields: []dest.Field{{Name: "EventId", Value: "4954.0"}}},
		{ErrorType: "http-endpoint-failed", Fields: []dest.Field{{Name: "subsequenceNumber", Value: 0}, {Name: "dataId", Value: "4954.0"}, {Name: "score", Value: 0.5}, {Name: "yes", Value: true}, {Name: "none", Value: []dest.Field{}}}},
	} {
		l.Code, l.Message, l.Attempts, l.Arrival = "Code.X", "a \"quoted\"\n\xffé", 4, 1716369573887
		l.Ended, l.Data = time.UnixMilli(1716369600001), []byte("\x00raw")
		line := l.Append(nil)
		if !json.Valid(line) || bytes.Count(line, []byte("\n")) != 1 {
			t.Errorf("not a line of JSON: %s", line)
		}
		got = append(got, line...)
	}
	golden := filepath.Join("testdata", "failures.jsonl")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// nowhere is a store that reads what it is given.
type nowhere struct{}

func (nowhere) Put(_ context.Context, _, _ string, body io.Reader, _ int64, _ objects.PutOptions) (objects.Info, error) {
	n, err := io.Copy(io.Discard, struct{ io.Reader }{body})
	return objects.Info{Size: n}, err
}

func BenchmarkDeliver(b *testing.B) {
	const count, size = 16 << 10, 1 << 10
	random := rand.New(rand.NewPCG(1, 2))
	data := make([][]byte, count)
	for i := range data {
		line := fmt.Appendf(nil, `{"timestamp":"2026-07-13T14:%02d:%02d.%03dZ","level":"INFO","service":"checkout","host":"ip-10-0-%d-%d","events":[`,
			random.IntN(60), random.IntN(60), random.IntN(1000), random.IntN(255), random.IntN(255))
		for len(line) < size-120 {
			line = fmt.Appendf(line, `{"requestId":"%016x","path":"/api/v1/orders/%d","status":%d,"latencyMs":%.3f},`, random.Uint64(), random.IntN(100000), 200+random.IntN(5), random.Float64()*100)
		}
		data[i] = append(line, "null]}\n"...)
	}
	main, failures := prefixes(b, "", "", naming.PairOptions{})
	for _, format := range []compress.Format{compress.None, compress.GZIP, compress.Snappy, compress.Zstd} {
		for _, s := range []struct {
			name  string
			store Store
		}{{"nowhere", nowhere{}}, {"embedded", embedded(b)}} {
			b.Run(fmt.Sprintf("format=%s/store=%s", format, s.name), func(b *testing.B) {
				d := New(Config{Store: s.store, Bucket: bucket, Prefix: main, ErrorPrefix: failures, Compression: format})
				batch := record.NewBatch(func(f func(int, *record.Record) error) error {
					var r record.Record
					for i := range data {
						r.Data = data[i]
						if err := f(i, &r); err != nil {
							return err
						}
					}
					return nil
				})
				batch.ID, batch.Count, batch.Stream = id, count, record.Stream{Name: "bench", Version: 1}
				total := int64(0)
				for _, d := range data {
					total += int64(len(d))
				}
				b.SetBytes(total)
				b.ReportAllocs()
				runtime.GC()
				for b.Loop() {
					if _, err := d.Deliver(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
