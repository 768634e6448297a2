package delivery

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/vfs"
)

var (
	seeds    = flag.Int("ledger.seeds", 60, "random histories of TestEveryRecordArrives")
	onlySeed = flag.Uint64("ledger.seed", 0, "the one history to run")
)

// Whatever happens (failures of every peer before and after it stored something,
// full buffers, pauses, updates, crashes at any moment), each accepted record is
// at the destination or in an error output once, and in the backup once.
func TestEveryRecordArrives(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *onlySeed != 0 {
		first, last = *onlySeed, *onlySeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { history(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

// faults makes a peer fail at random while trouble is up.
func faults(p *peer, random func(int) int, trouble *atomic.Bool, partial bool) {
	p.fault = func(attempt int, b *record.Batch, stored bool) (dest.Result, error) {
		if !trouble.Load() {
			return dest.Result{}, nil
		}
		switch random(6) {
		case 0:
			return dest.Result{}, &dest.Error{Code: "S3.SlowDown", Message: "busy", After: time.Duration(random(3)) * time.Second}
		case 1:
			if partial && !stored {
				var r dest.Result
				for i := range b.Count {
					if random(3) == 0 {
						r.Failed = append(r.Failed, dest.Failure{Index: i, Code: "DataFormatConversion.ParseError", Message: "odd"})
					}
				}
				return r, nil
			}
		}
		return dest.Result{}, nil
	}
	p.wait = func(ctx context.Context) {
		if trouble.Load() {
			sleep(ctx, time.Duration(random(4))*time.Second)
		}
	}
}

func history(t *testing.T, rng *rand.Rand) {
	// Peers ask for chance from many goroutines; the order of their questions is
	// not part of a seed's history, everything else is.
	turn := make(chan struct{}, 1)
	peerRNG := rand.New(rand.NewPCG(rng.Uint64(), 1))
	random := func(n int) int {
		turn <- struct{}{}
		defer func() { <-turn }()
		return peerRNG.IntN(n)
	}
	var trouble atomic.Bool
	trouble.Store(true)
	main, backup, errors := newPeer(), newPeer(), newPeer()
	partial := rng.IntN(2) == 0
	faults(main, random, &trouble, partial)
	faults(backup, random, &trouble, false)
	faults(errors, random, &trouble, false)

	spool := vfs.NewMemory()
	var source *fakeStream // or direct puts
	if rng.IntN(3) == 0 {
		source = newFakeStream(1, 3)
	}
	r := newRig(t, func(o *Options) {
		o.Streams = source
		if rng.IntN(2) == 0 {
			o.BufferMemory = 64 << 10
			if rng.IntN(2) == 0 {
				o.Spool = spool
			}
		}
	})
	d := define(main)
	d.Errors = errors
	d.Hints = record.Hints{Bytes: int64(200 + rng.IntN(20000)), Interval: time.Duration(rng.IntN(20)) * time.Second}
	d.Concurrency = rng.IntN(6)
	d.Merge = rng.IntN(4) == 0
	if source != nil {
		d.Source.Stream = &StreamConfig{ARN: "arn:stream", From: time.Now()}
	}
	withBackup := rng.IntN(2) == 0
	if withBackup {
		d.Backup, d.BackupHints = backup, record.Hints{Bytes: int64(200 + rng.IntN(5000)), Interval: time.Duration(1+rng.IntN(20)) * time.Second}
	}
	var config process.Config
	partitioned := rng.IntN(2) == 0
	if partitioned {
		query, err := process.NewQuery(`{k: .k}`)
		if err != nil {
			t.Fatal(err)
		}
		config.Query = query
		if rng.IntN(2) == 0 {
			config.Split = &process.Split{}
		}
		d.Partitioning = &Partitioning{Prefix: template(t, "p=!{partitionKeyFromQuery:k}/"), MaxActive: 1 + rng.IntN(30)}
	}
	if rng.IntN(3) == 0 {
		// A function that answers at random: even so, nothing gets lost.
		config.Function = &process.Function{ARN: "f", Buffer: record.Hints{Bytes: 500, Interval: time.Duration(rng.IntN(5)) * time.Second}}
	}
	flaky := config.Function != nil
	d.Chain = process.NewChain(config, &function{
		invoker: invoker{result: func(data string) (string, string, map[string]string) {
			if trouble.Load() && random(5) == 0 {
				return "ProcessingFailed", data, nil
			}
			return "Ok", data, nil
		}},
		wait: func([]byte) { time.Sleep(time.Duration(random(3)) * time.Second) },
	})
	r.start(d)
	var parts, raw []string
	n := 0
	killed, updated := false, false
	for range 40 + rng.IntN(60) {
		switch rng.IntN(12) {
		default:
			var put []string
			for range 1 + rng.IntN(20) {
				var text strings.Builder
				for range 1 + rng.IntN(3)*btoi(config.Split != nil) {
					n++
					part := fmt.Sprintf(`{"k":"%c","n":%d,"x":"%s"}`, 'a'+rune(rng.IntN(10)), n, strings.Repeat("x", rng.IntN(200)))
					parts = append(parts, part)
					text.WriteString(part)
				}
				put = append(put, text.String())
			}
			raw = append(raw, put...)
			if source == nil {
				r.put("d1", put...)
				break
			}
			for _, text := range put {
				source.put(fmt.Sprint("key", rng.IntN(20)), text)
			}
		case 0, 1:
			time.Sleep(time.Duration(rng.IntN(30)) * time.Second)
		case 2:
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			synctest.Wait()
		case 3, 4:
			killed = true
			r.kill()
			r.start(d)
		case 5:
			if rng.IntN(3) == 0 {
				r.stop()
				r.start(d)
			}
		case 6:
			if rng.IntN(3) == 0 {
				updated = true
				next := *d
				next.Version++
				d = &next
				if err := r.engine.Apply(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
		case 7:
			if err := r.engine.Pause(t.Context(), "d1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rng.IntN(10)) * time.Second)
			if err := r.engine.Resume(t.Context(), "d1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	trouble.Store(false)
	r.flush("d1")
	synctest.Wait()

	got := main.all()
	for _, text := range errors.all() {
		var l failureLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got = append(got, string(l.RawData))
	}
	copied := backup.all()
	if killed && updated {
		// An update between a crash and the replay gives objects other names.
		got, copied = unique(got), unique(copied)
	}
	if flaky || partial || partitioned && d.Partitioning.MaxActive < 10 {
		// What fails at random, or depends on which partitions are there, can be in
		// both places after a crash; nothing may be in neither.
		got = unique(got)
	}
	same(t, fmt.Sprintf("destination and error output (%+v, backup %v, %+v)", d.Hints, withBackup, config), got, parts)
	if withBackup {
		same(t, "backup", copied, raw)
	}
	st, err := r.engine.Status("d1")
	if err != nil || st.Records != 0 || st.Bytes != 0 || st.Batches != 0 || st.Partitions != 0 || st.Stalled || total(st) != len(raw) {
		t.Errorf("%+v, %v", st, err)
	}
	if left := r.meta.List("delivery.plan/", "", 0); len(left) != 0 {
		t.Errorf("%d extents of batches are left", len(left))
	}
	if used := r.engine.memory.used; used != 0 {
		t.Errorf("%d bytes of memory are taken", used)
	}
	r.stop()
	names, err := spool.ReadDir(".")
	if err != nil || len(names) != 0 {
		t.Errorf("%d files are left: %v", len(names), err)
	}
}

// total is how many records were delivered.
func total(st Status) int {
	n := 0
	for _, l := range st.Lanes {
		n += int(l.Delivered) - 1
	}
	return n
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func unique(list []string) []string {
	seen := map[string]bool{}
	out := list[:0:0]
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
