package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/vfs"
)

// A checkpoint becomes valid when the rows that were made before it are durable;
// those that come after it flow meanwhile, and are made again behind it.
func TestACheckpointDoesNotStopTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := vfs.NewMemory()
		slow := &sinkhole{gate: make(chan struct{})}
		r := &rig{source: newLog(7, 1), to: slow, files: memory}
		r.others = map[string]Destination{"fast": &sinkhole{}}
		h := r.open(t, nil)
		a := application1(passThrough)
		a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: "OUT", Destination: app.Resource{ARN: "fast"}})
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		put(r.source, 0, 1)
		settle(11 * time.Second) // a checkpoint begins
		put(r.source, 0, 2, 3)
		settle(30 * time.Second)
		if s := h.Status(a.ID); s.RowsIn != 3 || s.RowsOut != 3 {
			t.Errorf("%+v: the rows behind a checkpoint wait for it", s)
		}
		if _, _, ok, err := h.load(fileName(a.ID)); ok || err != nil {
			t.Errorf("the checkpoint is valid before its rows are delivered: %v, %v", ok, err)
		}
		early := memory.CrashClone(1)
		close(slow.gate)
		synctest.Wait()
		late := memory.CrashClone(1)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			files vfs.FS
			want  []string
		}{{early, values(1, 2, 3)}, {late, values(2, 3)}} {
			r.files, r.to = test.files, &sinkhole{}
			h := r.open(t, nil)
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			if got := r.to.taken(); !slices.Equal(got, test.want) {
				t.Errorf("after a crash %q, want %q", got, test.want)
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Whatever step of making a checkpoint durable a power cut comes at: the state
// that an application goes on with has every record once, and no row is missing.
// The windows say how many records the state has counted.
func TestStateCountsEveryRecordOnce(t *testing.T) {
	const code = `CREATE STREAM "OUT" (V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V" FROM "IN_001";
CREATE STREAM "SUMS" (N BIGINT, S BIGINT, LEAST INTEGER, MOST INTEGER);
CREATE PUMP Q AS INSERT INTO "SUMS" SELECT STREAM COUNT(*), SUM(CAST("V" AS BIGINT)), MIN("V"), MAX("V") FROM "IN_001" GROUP BY FLOOR("IN_001".ROWTIME TO DAY);`
	application := func() *app.Application {
		a := application1(code)
		a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: "SUMS", Destination: app.Resource{ARN: "sums"}})
		return a
	}
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 3))
				memory := vfs.NewMemory()
				r := &rig{source: newLog(7, 2), to: &sinkhole{}, files: memory}
				sums := &sinkhole{}
				r.others = map[string]Destination{"sums": sums}
				moods := rand.New(rand.NewPCG(seed, 4))
				r.to.refuse = func() bool { return moods.IntN(5) == 0 }
				n := 0
				for range 5 {
					// The file system as it is at some step of some checkpoint.
					var mu sync.Mutex
					faults := new(vfs.Faults)
					var left *vfs.Memory
					steps, stop := 0, 1+rng.IntN(30)
					under, cut := memory, rng.Uint64()
					faults.OnSync = func(bool, vfs.Kind, string) {
						mu.Lock()
						defer mu.Unlock()
						if steps++; steps == stop {
							left = under.CrashClone(cut)
						}
					}
					r.files = vfs.WithFaults(memory, faults)
					h := r.open(t, func(o *Options) { o.CheckpointEvery = time.Duration(1+rng.IntN(3)) * time.Second })
					if err := h.Start(t.Context(), application()); err != nil {
						t.Fatal(err)
					}
					for range 10 + rng.IntN(40) {
						open := slices.DeleteFunc(slices.Clone(r.source.shards), func(s Shard) bool { return r.source.closed[s.Number] })
						put(r.source, open[rng.IntN(len(open))].Number, n)
						n++
						settle(time.Duration(rng.IntN(700)) * time.Millisecond)
						if rng.IntN(30) == 0 && len(r.source.shards) < 12 {
							r.source.split(uint32(len(r.source.shards) - 1))
						}
					}
					if err := h.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					if left != nil {
						memory = left
					}
				}
				r.files = memory
				r.to.mu.Lock()
				r.to.refuse = nil
				r.to.mu.Unlock()
				h := r.open(t, nil)
				if err := h.Start(t.Context(), application()); err != nil {
					t.Fatal(err)
				}
				settle(25 * time.Hour)
				if err := h.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("{\"N\":%d,\"S\":%d,\"LEAST\":0,\"MOST\":%d}\n", n, n*(n-1)/2, n-1); !slices.Equal(sums.taken(), []string{want}) {
					t.Errorf("the window is %q, want %q", sums.taken(), want)
				}
				for _, told := range r.told {
					if strings.Contains(told, "damaged") {
						t.Error(told)
					}
				}
				seen := map[string]bool{}
				for _, row := range r.to.taken() {
					seen[row] = true
				}
				if len(seen) != n {
					t.Errorf("%d different rows of %d records", len(seen), n)
				}
			})
		})
	}
}

// A checkpoint whose rows were lost is none, however late that shows.
func TestACheckpointWhoseRowsAreLost(t *testing.T) {
	memory := vfs.NewMemory()
	h := &Host{o: Options{Files: memory}}
	w, err := h.write("a", []byte(`{"run":1}`), func(io.Writer) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	b := newBarrier(2)
	b.pass(true)
	b.pass(false)
	if err := h.complete("a", w, b, nil); !errors.Is(err, errLost) {
		t.Error(err)
	}
	if left, err := memory.ReadDir("."); len(left) != 0 || err != nil {
		t.Errorf("%v, %v are left of it", left, err)
	}
}

// A disk that is full holds up nothing but checkpoints, and is told.
func TestCheckpointsThatFail(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.OpenCall, vfs.WriteCall, vfs.SyncCall, vfs.RenameCall} {
		synctest.Test(t, func(t *testing.T) {
			faults := new(vfs.Faults)
			memory := vfs.NewMemory()
			r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.WithFaults(memory, faults)}
			h := r.open(t, nil)
			a := application1(passThrough)
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			put(r.source, 0, 1)
			settle(15 * time.Second)
			faults.FailFrom(kind, 1, errors.New("no room"))
			put(r.source, 0, 2)
			settle(15 * time.Second)
			if s := h.Status(a.ID); s.RowsOut != 2 || !strings.Contains(s.Problem, "no room") {
				t.Errorf("%v: %+v", kind, s)
			}
			if p, _, ok, err := (&Host{o: Options{Files: memory}}).load(fileName(a.ID)); !ok || err != nil || p.Inputs["1.1"].Shards[0].Next != 2 {
				t.Errorf("%v: the checkpoint before has %+v, %v, %v", kind, p, ok, err)
			}
			faults.Heal()
			put(r.source, 0, 3)
			settle(15 * time.Second)
			if s := h.Status(a.ID); s.RowsOut != 3 || s.Problem != "" {
				t.Errorf("%v: %+v", kind, s)
			}
			if p, _, ok, err := h.load(fileName(a.ID)); !ok || err != nil || p.Inputs["1.1"].Shards[0].Next != 4 {
				t.Errorf("%v: the checkpoint has %+v, %v, %v", kind, p, ok, err)
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A damaged checkpoint is kept aside and told, and the run begins again: nothing
// is lost. One that a later version has written is left alone.
func TestCheckpointsThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := vfs.NewMemory()
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: memory}
		a := application1(passThrough)
		run := func(want []string) {
			t.Helper()
			h := r.open(t, nil)
			if err := h.Start(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			if got := r.to.taken(); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		change := func(f func(raw []byte) []byte) {
			t.Helper()
			raw, err := vfs.ReadFile(memory, fileName(a.ID), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFile(memory, fileName(a.ID), f(raw)); err != nil {
				t.Fatal(err)
			}
		}
		told := func(want ...string) {
			t.Helper()
			if !slices.EqualFunc(r.told, want, strings.HasSuffix) {
				t.Errorf("told %q, want %q", r.told, want)
			}
			r.told = nil
		}
		put(r.source, 0, 1)
		run(values(1))
		change(func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw })
		run(values(1, 1))
		told("CheckpointError the application's checkpoint is damaged: it begins anew")
		if _, err := memory.Stat(fileName(a.ID) + damagedSuffix); err != nil {
			t.Error(err)
		}
		change(func(raw []byte) []byte { return raw[:len(raw)-1] })
		a.Run, a.Inputs[0].Start = 2, app.Position{Start: app.LastStopped, At: time.Now()}
		run(values(1, 1, 1)) // nobody knows where the last run stopped
		told("it begins anew")
		// Where there is one before, what came between is made again.
		put(r.source, 0, 2)
		run(values(1, 1, 1, 2))
		put(r.source, 0, 3)
		run(values(1, 1, 1, 2, 3))
		change(func(raw []byte) []byte { return raw[:len(raw)/2] })
		run(values(1, 1, 1, 2, 3, 3))
		told("it goes on from the one before")
		put(r.source, 0, 4)
		run(values(1, 1, 1, 2, 3, 3, 4))
		told()
		change(func(raw []byte) []byte {
			raw[len(checkpointMagic)]++
			n := len(raw) - 4
			return binary.LittleEndian.AppendUint32(raw[:n], crc32.Checksum(raw[:n], castagnoli))
		})
		h := r.open(t, nil)
		if err := h.Start(t.Context(), a); err == nil || !strings.Contains(err.Error(), "version '3'") {
			t.Errorf("a later version: %v", err)
		}
		if err := h.Remove(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if left, err := memory.ReadDir("."); len(left) != 0 || err != nil {
			t.Errorf("%v, %v are left of it", left, err)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	memory := vfs.NewMemory()
	h := &Host{o: Options{Files: memory}}
	w, err := h.write("a", []byte(`{"run":3,"inputs":{"1.1":{"source":7,"from":9,"shards":{"2":{"next":5,"end":true}}}}}`), func(w io.Writer) error {
		_, err := w.Write([]byte("snapshot"))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	if err := h.complete("a", w, newBarrier(0), nil); err != nil {
		f.Fatal(err)
	}
	good, err := vfs.ReadFile(memory, fileName("a"), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	if p, snapshot, err := parseCheckpoint(good); err != nil || string(snapshot) != "snapshot" || p.Run != 3 || p.Inputs["1.1"].Shards[2] != (position{5, true}) {
		f.Fatalf("%+v, %q, %v", p, snapshot, err)
	}
	f.Add(good[:len(good)-4])
	f.Fuzz(func(t *testing.T, raw []byte) {
		whole := binary.LittleEndian.AppendUint32(slices.Clone(raw), crc32.Checksum(raw, castagnoli))
		if _, snapshot, err := parseCheckpoint(whole); err == nil && len(snapshot) > len(raw) {
			t.Errorf("%d bytes of %d", len(snapshot), len(raw))
		}
	})
}

// An application whose state outgrows its limit ends with a reason; what it has
// delivered and its last checkpoint stay, and with more memory it goes on as if
// nothing had happened.
func TestAStateThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		r.source.perPage = 1000
		code := strings.ReplaceAll(strings.ReplaceAll(perSecond, "TO SECOND", "TO HOUR"), "VARCHAR(8)", "VARCHAR(100)")
		a := application1(code)
		a.Inputs[0].Format.Columns[0] = column("K", "VARCHAR(100)", "$.k")
		h := r.open(t, func(o *Options) { o.MemoryLimit = 4 << 20 })
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		n := 0
		more := func(keys int) {
			for range keys {
				r.source.put(0, fmt.Sprintf(`{"k":"%0100d","v":1}`, n))
				n++
			}
		}
		more(1000)
		settle(15 * time.Second) // a checkpoint
		if s := h.Status(a.ID); !s.Running || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		if got := r.sums.sum("  StateBytes"); got == 0 {
			t.Error("nobody knows how large the state is")
		}
		more(100000)
		settle(15 * time.Second)
		s := h.Status(a.ID)
		if s.Running || !strings.Contains(s.Problem, "pump P") || !strings.Contains(s.Problem, "4194304") {
			t.Errorf("%+v", s)
		}
		if len(r.told) != 1 || !strings.Contains(r.told[0], "MemoryError") {
			t.Errorf("told %q", r.told)
		}
		if err := h.Stop(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if s := h.Status(a.ID); s != (Status{}) {
			t.Errorf("%+v", s)
		}
		if p, _, ok, err := h.load(fileName(a.ID)); !ok || err != nil || p.Inputs["1.1"].Shards[0].Next != 1001 {
			t.Errorf("the checkpoint has %+v, %v, %v", p, ok, err)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		h = r.open(t, nil)
		a.Run, a.Inputs[0].Start = 2, app.Position{Start: app.LastStopped, At: time.Now()}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(2 * time.Hour)
		if got := r.to.taken(); len(got) != n || !strings.HasSuffix(got[0], `"N":1,"S":1}`+"\n") {
			t.Errorf("%d rows of %d keys", len(got), n)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
