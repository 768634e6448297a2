package metatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace/internal/meta"
)

// Linearizable runs clients that read and conditionally write a few records at
// once while the environment restarts and crashes, and has porcupine look for
// one order of all operations that explains every answer and respects real
// time. An operation under way at a crash may have happened or not; one that
// was answered before it has.
func Linearizable(t *testing.T, fresh func(t testing.TB) Environment) {
	histories, lives := 8, 4
	if Torture() {
		histories, lives = 1500, 8
	}
	for seed := range histories {
		h := &recorder{start: time.Now(), values: map[meta.Version]string{}}
		e := fresh(t)
		for life := range lives {
			e = h.live(t, e, uint64(seed), uint64(life))
		}
		e.Close(t)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		switch result, info := porcupine.CheckOperationsVerbose(model, h.operations, 30*time.Second); result {
		case porcupine.Illegal:
			t.Fatalf("seed %d: no order of these operations explains the answers:\n%s\nlongest partial orders: %v",
				seed, h, info.PartialLinearizations())
		case porcupine.Unknown:
			t.Logf("seed %d: gave up looking for an order of %d operations", seed, len(h.operations))
		}
	}
}

const (
	clients       = 5
	keys          = 3
	opsPerLife    = 14 // of each client
	noAnswer      = int64(1) << 62
	unknownResult = "?"
)

// register is the state of the model: the value of each key, "" if absent.
// Values are unique, so that a value stands for a version as well.
type register [keys]string

type step struct {
	key      int
	value    string // "" deletes
	cond     meta.Cond
	expected string // value that had the version the condition names
}

type request struct {
	read  int // key to read, if there are no steps
	steps []step
}

// An answer is a read value, "conflict", "" for a commit that took place, or
// unknownResult.
type answer string

var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(s, input, output any) (bool, any) {
		state, in, out := s.(register), input.(request), output.(answer)
		if len(in.steps) == 0 {
			return string(out) == state[in.read], state
		}
		for _, st := range in.steps {
			current := state[st.key]
			holds := true
			switch st.cond {
			case meta.Absent:
				holds = current == ""
			case meta.Present:
				holds = current != ""
			case meta.IfVersion:
				holds = current != "" && current == st.expected
			}
			if !holds {
				return out == "conflict" || out == unknownResult, state
			}
		}
		if out == "conflict" {
			return false, state
		}
		for _, st := range in.steps {
			state[st.key] = st.value
		}
		return true, state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// recorder collects what clients did and were answered.
type recorder struct {
	start time.Time

	mu         sync.Mutex
	crashed    bool // the answers that come now are of a world that is gone
	operations []porcupine.Operation
	values     map[meta.Version]string // which value each version was seen with, by key
}

func (h *recorder) String() string {
	var b strings.Builder
	for _, o := range h.operations {
		fmt.Fprintf(&b, "client %d [%d, %d] %s\n", o.ClientId, o.Call, o.Return, model.DescribeOperation(o.Input, o.Output))
	}
	return b.String()
}

// live opens a store, lets clients at it, and ends it: by a crash in their
// midst, or in good order. It returns where life goes on.
func (h *recorder) live(t *testing.T, e Environment, seed, life uint64) Environment {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, life))
	s := e.Open(t, meta.Options{SnapshotBytes: 200})
	h.crashed = false
	crashAt := 0
	if random.IntN(3) > 0 {
		crashAt = 1 + random.IntN(clients*opsPerLife)
	}
	crash := make(chan struct{})
	var group sync.WaitGroup
	started := 0
	for client := range clients {
		r := rand.New(rand.NewPCG(seed<<8|life, uint64(client)))
		group.Go(func() {
			for n := range opsPerLife {
				in := h.request(s, r, fmt.Sprintf("%d.%d.%d", life, client, n))
				h.mu.Lock()
				if h.crashed {
					h.mu.Unlock()
					return
				}
				if started++; started == crashAt {
					close(crash)
				}
				call := h.now()
				h.mu.Unlock()
				out, version := perform(t, s, in)
				h.answered(t, int(life)*clients+client, in, call, out, version)
			}
		})
	}
	if crashAt == 0 {
		group.Wait()
		e.Close(t)
		return e
	}
	<-crash
	// No answer slips between the copy and the mark: what was answered before
	// is in the copy, what comes after is open.
	h.mu.Lock()
	after := e.Crash(t, random.Uint64())
	h.crashed = true
	h.mu.Unlock()
	group.Wait()
	e.Close(t)
	return after
}

func (h *recorder) now() int64 { return int64(time.Since(h.start)) }

// request makes up an operation. Conditions on versions use what the store
// shows at this moment, which is soon outdated by others.
func (h *recorder) request(s *meta.Store, r *rand.Rand, value string) request {
	if r.IntN(4) == 0 {
		return request{read: r.IntN(keys)}
	}
	in := request{}
	first := r.IntN(keys)
	for i := range 1 + r.IntN(2) {
		st := step{key: (first + i) % keys, value: fmt.Sprint(value, "/", i), cond: meta.Cond(r.IntN(4))}
		if r.IntN(5) == 0 {
			st.value = ""
		}
		if st.cond == meta.IfVersion {
			record, ok := s.Get(keyName(st.key))
			if !ok {
				st.cond = meta.Absent
			}
			st.expected = string(record.Value)
		}
		in.steps = append(in.steps, st)
	}
	return in
}

func keyName(i int) string { return fmt.Sprintf("key%d", i) }

func perform(t *testing.T, s *meta.Store, in request) (answer, meta.Version) {
	if len(in.steps) == 0 {
		record, _ := s.Get(keyName(in.read))
		return answer(record.Value), record.Version
	}
	var ops []meta.Op
	for _, st := range in.steps {
		op := meta.Op{Key: keyName(st.key), Value: []byte(st.value), Delete: st.value == "", Cond: st.cond}
		if st.cond == meta.IfVersion {
			record, ok := s.Get(op.Key)
			// The version of the expected value; of another one if it is gone.
			if op.Version = record.Version; !ok || string(record.Value) != st.expected {
				op.Version = 1<<62 + 1
			}
		}
		ops = append(ops, op)
	}
	version, err := s.Commit(context.Background(), ops...)
	var conflict *meta.ConflictError
	switch {
	case errors.As(err, &conflict):
		return "conflict", 0
	case err != nil:
		return unknownResult, 0
	}
	return "", version
}

func (h *recorder) answered(t *testing.T, client int, in request, call int64, out answer, version meta.Version) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.now()
	if h.crashed {
		out = unknownResult
	}
	if out == unknownResult {
		if len(in.steps) == 0 {
			return // a read whose answer does not count
		}
		end = noAnswer
	}
	if len(in.steps) == 0 && out != "" {
		// One version, one commit: whoever reads it reads values of that commit.
		commit := string(out[:strings.LastIndex(string(out), "/")])
		if other, ok := h.values[version]; ok && other != commit {
			t.Errorf("version %d was read with values of commits %s and %s", version, other, commit)
		}
		h.values[version] = commit
	}
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
}
