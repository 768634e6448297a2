package host

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/vfs"
)

func values(list ...int) (rows []string) {
	for _, v := range list {
		rows = append(rows, fmt.Sprintf("{\"V\":%d}\n", v))
	}
	return rows
}

func put(l *log, shard uint32, list ...int) {
	for _, v := range list {
		l.put(shard, fmt.Sprintf(`{"v":%d}`, v))
	}
}

// A stream that is deleted is told and waited for; one that is made anew under its
// name is read from its first record that came after the start, also by a run that
// goes on, and also if it is deleted while the application stands still.
func TestASourceIsDeletedAndMadeAnew(t *testing.T) {
	for _, start := range []app.Start{app.Now, app.TrimHorizon, app.LastStopped} {
		synctest.Test(t, func(t *testing.T) {
			r := &rig{source: newLog(7, 2), to: &sinkhole{}, files: vfs.NewMemory()}
			put(r.source, 0, 100)
			settle(time.Second)
			h := r.open(t, nil)
			a := application1(passThrough)
			a.Inputs[0].Start = app.Position{Start: start, At: time.Now()}
			var want []string
			if start == app.TrimHorizon {
				want = values(100)
			}
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			put(r.source, 1, 1)
			settle(time.Minute)
			r.source.remove()
			settle(time.Minute)
			if s := h.Status(a.ID); !s.Running || s.Problem != errNoStream.Error() {
				t.Errorf("%+v", s)
			}
			if len(r.told) == 0 || !slices.Contains(r.told, "1.1 InputError no such stream") {
				t.Errorf("told %q", r.told)
			}
			r.mu.Lock()
			r.source = newLog(8, 1)
			put(r.source, 0, 2)
			r.mu.Unlock()
			settle(time.Minute)
			put(r.source, 0, 3)
			settle(time.Minute)
			if s := h.Status(a.ID); s.Problem != "" || s.MillisBehindLatest != 0 {
				t.Errorf("%+v", s)
			}
			if err := h.Stop(t.Context(), a.ID); err != nil {
				t.Fatal(err)
			}
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			settle(time.Minute)
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			// While it stands still.
			r.source.remove()
			r.source = newLog(9, 1)
			put(r.source, 0, 4)
			settle(time.Hour)
			h = r.open(t, nil)
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			put(r.source, 0, 5)
			settle(time.Minute)
			want = append(want, values(1, 2, 3, 4, 5)...)
			if got := r.to.taken(); !slices.Equal(got, want) {
				t.Errorf("start %d: %q, want %q", start, got, want)
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// NOW means now in every shard: also in those that were made by a split before.
func TestNowInShardsThatWereSplitBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		put(r.source, 0, 1)
		r.source.split(0)
		put(r.source, 1, 2)
		settle(time.Hour)
		h := r.open(t, nil)
		a := application1(passThrough)
		a.Inputs[0].Start = app.Position{Start: app.Now, At: time.Now()}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		put(r.source, 1, 3)
		settle(time.Minute)
		r.source.split(2)
		put(r.source, 3, 4) // a new shard is read from its first record
		settle(time.Minute)
		if got, want := r.to.taken(), values(3, 4); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A run that goes on where the last one stopped reads what came in between, in
// shards of which it knows nothing too; another one begins at its own start.
func TestWhereARunBegins(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(a *app.Application)
		want   []string
	}{
		{"the same run", func(*app.Application) {}, values(1, 2, 3, 4)},
		{"where the last one stopped", func(a *app.Application) {
			a.Run, a.Inputs[0].Start = 2, app.Position{Start: app.LastStopped, At: time.Now()}
		}, values(1, 2, 3, 4)},
		{"now", func(a *app.Application) {
			a.Run, a.Inputs[0].Start = 2, app.Position{Start: app.Now, At: time.Now()}
		}, values(1, 4)},
		{"trim horizon", func(a *app.Application) {
			a.Run, a.Inputs[0].Start.Start = 2, app.TrimHorizon
		}, values(1, 1, 2, 3, 4)},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
				h := r.open(t, nil)
				a := application1(passThrough)
				a.Inputs[0].Start = app.Position{Start: app.Now, At: time.Now()}
				if err := h.Start(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				settle(time.Second)
				put(r.source, 0, 1)
				settle(time.Second)
				if err := h.Stop(t.Context(), a.ID); err != nil {
					t.Fatal(err)
				}
				put(r.source, 0, 2)
				r.source.split(0)
				put(r.source, 2, 3)
				settle(time.Hour)
				b := *a
				b.Inputs = slices.Clone(a.Inputs)
				test.change(&b)
				if err := h.Start(t.Context(), &b); err != nil {
					t.Fatal(err)
				}
				settle(time.Minute)
				put(r.source, 1, 4)
				settle(time.Minute)
				if got := r.to.taken(); !slices.Equal(got, test.want) {
					t.Errorf("%q, want %q", got, test.want)
				}
				if err := h.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Shards and records that expire while an application stands still do not hold it
// up; what was lost is counted, and places of shards that are no more go away.
func TestWhatExpiresIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 2), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		a := application1(passThrough)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		put(r.source, 0, 1)
		put(r.source, 1, 2)
		settle(time.Second)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(r.source, 0, 3)
		r.source.split(0)
		put(r.source, 2, 4)
		r.source.expire(0, -1)
		put(r.source, 1, 5, 6, 7)
		r.source.expire(1, 3)
		h = r.open(t, nil)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		r.source.split(1)
		settle(time.Minute)
		r.source.expire(1, -1)
		r.source.split(3)
		put(r.source, 5, 8)
		settle(time.Minute)
		if got, want := r.to.taken(), values(1, 2, 4, 7, 8); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("%q, want %q", got, want)
		}
		if got := r.sums.sum("Input 1.1 LostRecords"); got != 2 {
			t.Errorf("%v records were lost, want 2", got)
		}
		if s := h.Status(a.ID); s.Problem != "" {
			t.Errorf("%+v", s)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, _, ok, err := h.load(fileName(a.ID))
		if _, there := p.Inputs["1.1"].Shards[1]; !ok || err != nil || there {
			t.Errorf("the checkpoint has %+v, %v", p, err)
		}
	})
}

// Shards are spread over the in-application streams of an input, hidden columns
// tell where a row comes from, and rows that cannot be read go to the error stream.
func TestParallelStreamsAndHiddenColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 4), to: &sinkhole{}, files: vfs.NewMemory()}
		errorsTo := &sinkhole{}
		r.others = map[string]Destination{"errors": errorsTo}
		h := r.open(t, nil)
		var pumps []string
		for i := 1; i <= 3; i++ {
			pumps = append(pumps, fmt.Sprintf(`CREATE PUMP P%d AS INSERT INTO "OUT" SELECT STREAM "V", '%d', APPROXIMATE_ARRIVAL_TIME, partition_key, SEQUENCE_NUMBER, "SHARD_ID" FROM "IN_00%d";`, i, i, i))
		}
		a := application1(`CREATE STREAM "OUT" (V INTEGER, I VARCHAR(1), AT TIMESTAMP, K VARCHAR(8), S VARCHAR(8), SHARD VARCHAR(30));` + strings.ReplaceAll(strings.Join(pumps, "\n"), "AT TIMESTAMP", ""))
		a.Code = strings.Replace(a.Code, "AT TIMESTAMP", "ARRIVED TIMESTAMP", 1)
		a.Inputs[0].Streams = []string{"IN_001", "IN_002", "IN_003"}
		a.Outputs[0].CSV = true
		a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: plan.ErrorStream, Destination: app.Resource{ARN: "errors"}})
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		arrived := time.Now()
		for i := range uint32(4) {
			put(r.source, i, int(i))
			r.source.put(i, `{"v":"no"}`)
		}
		settle(time.Minute)
		var want []string
		for i := range 4 {
			want = append(want, fmt.Sprintf("%d,%d,%s,k,%d-1,shardId-%012d\n", i, i%3+1, arrived.UTC().Format("2006-01-02 15:04:05.000"), i, i))
		}
		if got := slices.Sorted(slices.Values(r.to.taken())); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if got := errorsTo.taken(); len(got) != 4 || !strings.Contains(got[0], `"ERROR_NAME":"COERCION_ERROR"`) {
			t.Errorf("the error stream has %q", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A record with more rows than a chunk takes is whole, and delivery streams have
// no keys.
func TestARecordOfManyRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		h := r.open(t, nil)
		a := application1(`CREATE STREAM "OUT" (V INTEGER, K VARCHAR(8), AT1 TIMESTAMP); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V", PARTITION_KEY, APPROXIMATE_ARRIVAL_TIME FROM "IN_001";`)
		a.Inputs[0].Source.Kind = app.DeliveryStream
		a.Inputs[0].Format = run.Format{CSV: true, RowDelimiter: "\n", ColumnDelimiter: ",", Columns: []run.SourceColumn{column("V", "INTEGER", "")}}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		const n = 5 * chunkRows
		r.source.put(0, strings.Repeat("7\n", n))
		r.source.put(0, "8")
		settle(time.Minute)
		got := r.to.taken()
		if len(got) != n+1 || !strings.HasPrefix(got[n-1], `{"V":7,"K":null,"AT1":"2000-`) || !strings.HasPrefix(got[n], `{"V":8,`) {
			t.Errorf("%d rows, the last ones %q", len(got), got[max(len(got)-2, 0):])
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
