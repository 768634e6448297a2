//go:build unix

package host

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/vfs"
)

// endless is a source that has the same page as often as is asked for, up to so
// many records in each shard.
type endless struct {
	pages  []*Page
	shards []Shard
	each   uint64 // records
	wake   chan struct{}
}

func (e *endless) ID() uint64               { return 1 }
func (e *endless) Shards() ([]Shard, error) { return e.shards, nil }
func (e *endless) At(context.Context, uint32, time.Time) (uint64, error) {
	return 1, nil
}
func (e *endless) Read(_ context.Context, _ uint32, from uint64, _ int) (*Page, error) {
	if from > e.each {
		return &Page{Next: from, Tail: from}, nil
	}
	template := e.pages[int(from)%len(e.pages)]
	n := min(len(template.Records), int(e.each-from+1))
	p := &Page{Next: from + uint64(n), Tail: e.each + 1}
	// A page is made of new memory, as a stream's is.
	size := 0
	for i := range n {
		size += len(template.Records[i].Data)
	}
	buf := make([]byte, 0, size)
	p.Records = make([]Record, n)
	for i := range n {
		at := len(buf)
		buf = append(buf, template.Records[i].Data...)
		p.Records[i] = Record{Index: from + uint64(i), Arrival: template.Records[i].Arrival, Key: template.Records[i].Key, Data: buf[at:]}
	}
	return p, nil
}
func (e *endless) Changed(uint32) <-chan struct{}              { return e.wake }
func (e *endless) Resharded() <-chan struct{}                  { return nil }
func (e *endless) Gone() <-chan struct{}                       { return nil }
func (e *endless) SequenceNumber(uint32, uint64, int64) string { return "1" }

type discard struct{ rows, bytes atomic.Int64 }

func (d *discard) Write(_ context.Context, rows [][]byte) error {
	n := 0
	for _, r := range rows {
		n += len(r)
	}
	d.rows.Add(int64(len(rows)))
	d.bytes.Add(int64(n))
	return nil
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var throughput = map[string]string{
	"tumbling": `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, S DOUBLE, A DOUBLE);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN_001" GROUP BY "ID", FLOOR("IN_001".ROWTIME TO SECOND)`,
	"filter": `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, S DOUBLE, A DOUBLE);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", "N", "V" * 2, "W" FROM "IN_001" WHERE "V" > 50 AND "KIND" = 'b'`,
}

// From pages of 150-byte JSON records with five mapped columns and 10,000 keys to
// encoded rows, through everything but the streams.
func BenchmarkThroughput(b *testing.B) {
	for _, program := range []string{"tumbling", "filter"} {
		b.Run(program, func(b *testing.B) { benchmarkThroughput(b, throughput[program], 4) })
	}
}

func benchmarkThroughput(b *testing.B, code string, shards int) {
	source := &endless{wake: make(chan struct{}), each: uint64(b.N) * 1000 / uint64(shards)}
	for i := range shards {
		source.shards = append(source.shards, Shard{Number: uint32(i), Name: fmt.Sprintf("shardId-%012d", i)})
	}
	key := uint32(1)
	for range 8 {
		p := &Page{}
		for range 6600 {
			key = key*1664525 + 1013904223
			data := fmt.Sprintf(`{"id":"sensor-%05d","kind":"%c","n":%d,"v":%d.375,"w":0.5,"site":"north-east-7","comment":"calibrated in may","firmware":"4.11.2","okay":true}`, int(key>>8)%10000, "ab"[key>>30&1], key>>20, key>>16&127)
			p.Records = append(p.Records, Record{Arrival: 1, Key: []byte("k"), Data: []byte(data)})
		}
		source.pages = append(source.pages, p)
	}
	to := new(discard)
	h, err := New(Options{
		OpenSource:      func(context.Context, *app.Application, app.Resource) (Source, error) { return source, nil },
		OpenDestination: func(context.Context, *app.Application, app.Resource) (Destination, error) { return to, nil },
		Files:           vfs.NewMemory(), CheckpointEvery: time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	a := &app.Application{ID: "b", Name: "b", Run: 1, Code: code,
		Inputs: []app.Input{{ID: "1.1", Streams: []string{"IN_001"}, Start: app.Position{Start: app.TrimHorizon},
			Format: run.Format{Columns: []run.SourceColumn{column("ID", "VARCHAR(16)", "$.id"), column("KIND", "VARCHAR(16)", "$.kind"), column("N", "INTEGER", "$.n"), column("V", "DOUBLE", "$.v"), column("W", "DOUBLE", "$.w")}}}},
		Outputs: []app.Output{{ID: "1.1", Stream: "OUT"}},
	}
	b.ReportAllocs()
	b.SetBytes(150 * 1000)
	b.ResetTimer()
	began := processorTime()
	if err := h.Start(b.Context(), a); err != nil {
		b.Fatal(err)
	}
	want := int64(source.each) * int64(shards)
	for h.Status(a.ID).RowsIn < want {
		time.Sleep(time.Millisecond)
	}
	took := processorTime() - began
	b.StopTimer()
	b.ReportMetric(float64(want)/took.Seconds(), "rows/cpu-s")
	b.ReportMetric(0, "ns/op")
	if err := h.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
