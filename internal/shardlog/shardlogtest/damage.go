package shardlogtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

func files(t testing.TB, fsys vfs.FS, dir string) []string {
	t.Helper()
	infos, err := fsys.ReadDir(dir)
	must(t, err)
	var names []string
	for _, info := range infos {
		name := path.Join(dir, info.Name)
		if info.Dir {
			names = append(names, files(t, fsys, name)...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

func change(t testing.TB, fsys vfs.FS, name string, do func(data []byte)) {
	t.Helper()
	data, err := vfs.ReadFile(fsys, name, 1<<30)
	must(t, err)
	do(data)
	f, err := fsys.Open(name, vfs.Write)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

// prepared is a log with sealed and unsealed data, as a crash left it.
func prepared(t *testing.T, open Opener) (*vfs.Memory, *ledger) {
	memory := vfs.NewMemory()
	ctx := context.Background()
	d, maintain, err := open(ctx, memory, 64<<10)
	must(t, err)
	l := &ledger{shards: map[driver.ShardID]*ledgerShard{}}
	next := driver.ShardID(1)
	must(t, history(ctx, d, maintain, 99, 60, l, &next))
	must(t, maintain(ctx))
	clone := memory.CrashClone(0)
	must(t, d.Close())
	return clone, l
}

// RunDamage flips bits all over a data directory. Each flip is refused by name at
// the start, or named when the data is read, or changes nothing that can be read,
// or belongs to the last frame, which then is a torn tail.
func RunDamage(t *testing.T, open Opener) {
	ctx := context.Background()
	memory, l := prepared(t, open)
	rng := rand.New(rand.NewPCG(3, 3))
	flips := 60
	if Long() {
		flips = 1000
	}
	refused, named, harmless, torn := 0, 0, 0, 0
	for _, name := range files(t, memory, ".") {
		if name == "LOCK" {
			continue
		}
		info, err := memory.Stat(name)
		must(t, err)
		for n := range flips {
			at := rng.Int64N(info.Size)
			if n < 5 {
				at = int64(n) * 11 % info.Size
			} else if n < 10 {
				at = info.Size - 1 - int64(n*13)%info.Size
			}
			clone := memory.CrashClone(0)
			change(t, clone, name, func(data []byte) { data[at] ^= 1 << (at % 8) })
			where := fmt.Sprintf("bit flipped in %s at %d", name, at)
			d, _, err := open(ctx, clone, 64<<10)
			if err != nil {
				var corrupt *driver.CorruptError
				if !errors.As(err, &corrupt) && !errors.Is(err, driver.ErrNewerVersion) {
					t.Fatalf("%s: open: %v, want a CorruptError", where, err)
				}
				if errors.As(err, &corrupt) && corrupt.File != name {
					t.Errorf("%s: open blames %v", where, corrupt)
				}
				refused++
				continue
			}
			state := l.clone()
			err = state.check(ctx, d)
			var corrupt *driver.CorruptError
			switch {
			case err == nil:
				harmless++
			case errors.As(err, &corrupt):
				if corrupt.File != name {
					t.Errorf("%s: read blames %v", where, corrupt)
				}
				named++
			default:
				// The only thing that may be missing is the newest append.
				short := missing(ctx, d, l)
				if !strings.HasPrefix(name, "wal/") || short > 4 {
					t.Fatalf("%s: %v", where, err)
				}
				torn++
			}
			must(t, d.Close())
		}
	}
	t.Logf("refused %d, named %d, harmless %d, torn tail %d", refused, named, harmless, torn)
	if refused == 0 || named == 0 {
		t.Error("no flip was noticed, so nothing was tested")
	}
}

// missing counts acknowledged records that are not there.
func missing(ctx context.Context, d driver.Driver, l *ledger) int {
	n := 0
	for id, s := range l.shards {
		if s.gone {
			continue
		}
		if b, err := d.Bounds(ctx, id); err == nil {
			n += max(0, len(s.acknowledged)+1-int(b.Next))
		} else {
			n += len(s.acknowledged)
		}
	}
	return n
}

// RunTornTail cuts the last append at every byte: what was there before stays,
// the append is there entirely or not at all, and writing goes on.
func RunTornTail(t *testing.T, open Opener) {
	ctx := context.Background()
	memory := vfs.NewMemory()
	d, _, err := open(ctx, memory, 64<<10)
	must(t, err)
	create(t, d, 1, 2)
	for n := range 5 {
		appendAll(t, d, batch(1, 1, record(1, n+1)), batch(2, 1, record(2, n+1)))
	}
	before := memory.CrashClone(0)
	appendAll(t, d, batch(1, 1, record(1, 6)), batch(2, 1, record(2, 6)))
	after := memory.CrashClone(0)
	must(t, d.Close())

	var name string
	var old, new []byte
	for _, candidate := range files(t, after, "wal") {
		a, err := vfs.ReadFile(before, candidate, 1<<30)
		must(t, err)
		b, err := vfs.ReadFile(after, candidate, 1<<30)
		must(t, err)
		if string(a) != string(b) {
			name, old, new = candidate, a, b
		}
	}
	start, end := 0, len(new)
	for old[start] == new[start] {
		start++
	}
	for old[end-1] == new[end-1] {
		end--
	}
	stride := 1
	if !Long() {
		stride = 7
	}
	for cut := start; cut <= end; cut += stride {
		clone := after.CrashClone(0)
		change(t, clone, name, func(data []byte) { copy(data[cut:], old[cut:]) })
		d, _, err := open(ctx, clone, 64<<10)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		for id := driver.ShardID(1); id <= 2; id++ {
			got, err := d.Bounds(ctx, id)
			must(t, err)
			want := driver.Index(6)
			if cut >= end {
				want = 7
			}
			if got.Next != want {
				t.Fatalf("cut at %d of %d–%d: shard %d ends at %d, want %d", cut, start, end, id, got.Next, want)
			}
			again := batch(id, 1, "after the crash")
			appendAll(t, d, again)
			if again.Base != want {
				t.Fatalf("cut at %d: next append to shard %d got index %d, want %d", cut, id, again.Base, want)
			}
		}
		must(t, d.Close())
	}
}

// RunHistory makes one random history in several ways — segment sizes, restarts,
// maintenance — and compares what can be read with a model.
func RunHistory(t *testing.T, open Opener) {
	seeds := uint64(2)
	steps := 300
	if Long() {
		seeds, steps = 40, 3000
	}
	ctx := context.Background()
	for seed := uint64(1); seed <= seeds; seed++ {
		for _, segmentBytes := range []int{64 << 10, 256 << 10, 1 << 20} {
			for _, restart := range []int{0, 29} {
				where := fmt.Sprintf("seed %d, segments of %d bytes, restart every %d", seed, segmentBytes, restart)
				memory := vfs.NewMemory()
				d, maintain, err := open(ctx, memory, segmentBytes)
				must(t, err)
				l := &ledger{shards: map[driver.ShardID]*ledgerShard{}}
				next := driver.ShardID(1)
				for step := range steps {
					if err := history(ctx, d, maintain, seed*1_000_000+uint64(step), 1, l, &next); err != nil {
						t.Fatalf("%s: step %d: %v", where, step, err)
					}
					if restart > 0 && step%restart == restart-1 {
						must(t, d.Close())
						if d, maintain, err = open(ctx, memory, segmentBytes); err != nil {
							t.Fatalf("%s: step %d: reopen: %v", where, step, err)
						}
					}
				}
				if err := l.check(ctx, d); err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				must(t, d.Close())
			}
		}
	}
}
