package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/vfs"
)

// taker is a function that takes rows.
type taker struct {
	mu    sync.Mutex
	calls [][]string  // the rows of each call
	at    []time.Time // of each
	taken map[string]int
	hints map[string]int // of the last call with the row
	ids   map[string]string
	// unique says that no two rows have the same text.
	unique bool
	// answer is what the n-th call, from 0, says of a row; empty leaves it out.
	answer  func(call int, row string) string
	failure func(call int) ([]byte, error)
}

func (f *taker) invoke(_ context.Context, _ app.Resource, payload []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var in struct {
		InvocationID, ApplicationARN string
		Records                      []struct {
			RecordID string
			Metadata struct{ RetryHint *int } `json:"lambdaDeliveryRecordMetadata"`
			Data     []byte
		}
	}
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, err
	}
	if f.taken == nil {
		f.taken, f.hints, f.ids = map[string]int{}, map[string]int{}, map[string]string{}
	}
	call := len(f.calls)
	var rows []string
	var out []string
	for _, r := range in.Records {
		row := string(r.Data)
		rows = append(rows, row)
		if old := f.ids[row]; f.unique && old != "" && old != r.RecordID {
			return nil, fmt.Errorf("the id of %s has changed", row)
		}
		f.ids[row], f.hints[row] = r.RecordID, *r.Metadata.RetryHint
		result := "Ok"
		if f.answer != nil {
			result = f.answer(call, row)
		}
		if result != "" {
			out = append(out, fmt.Sprintf(`{"recordId":%q,"result":%q}`, r.RecordID, result))
		}
	}
	f.calls, f.at = append(f.calls, rows), append(f.at, time.Now())
	if f.failure != nil {
		if b, err := f.failure(call); b != nil || err != nil {
			return b, err
		}
	}
	for i, r := range in.Records {
		if f.answer == nil || f.answer(call, rows[i]) == "Ok" {
			f.taken[string(r.Data)]++
		}
	}
	return []byte(`{"records":[` + strings.Join(out, ",") + `]}`), nil
}

func toFunction(code string) *app.Application {
	a := application1(code)
	a.Outputs[0].Destination = app.Resource{Kind: app.Function, ARN: "f"}
	return a
}

// Rows that a function does not take are sent again, they alone, under their id
// and with the number of times they were sent.
func TestAFunctionTakesRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &taker{
			unique: true,
			answer: func(call int, row string) string {
				switch {
				case call == 2 && strings.Contains(row, "1"):
					return "DeliveryFailed"
				case call == 2 && strings.Contains(row, "2"):
					return ""
				case call == 3 && strings.Contains(row, "2"):
					return "ok" // not a result
				}
				return "Ok"
			},
			failure: func(call int) ([]byte, error) {
				switch call {
				case 0:
					return nil, errors.New("ServiceException")
				case 1:
					return []byte(`[]`), nil
				}
				return nil, nil
			},
		}
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory(), invoke: f.invoke}
		h := r.open(t, nil)
		r.source.put(0, `{"v":1}{"v":2}{"v":3}`)
		a := toFunction(passThrough)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		one, two, three := "{\"V\":1}\n", "{\"V\":2}\n", "{\"V\":3}\n"
		want := [][]string{{one, two, three}, {one, two, three}, {one, two, three}, {one, two}, {two}}
		if !slices.EqualFunc(f.calls, want, slices.Equal[[]string]) {
			t.Errorf("calls %q, want %q", f.calls, want)
		}
		if f.hints[one] != 3 || f.hints[two] != 4 || f.hints[three] != 2 {
			t.Errorf("hints %v", f.hints)
		}
		if s := h.Status(a.ID); s.RowsOut != 3 || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		for name, want := range map[Metric]float64{LambdaDeliveryOkRecords: 3, LambdaDeliveryDeliveryFailedRecords: 9, Success: 1, Records: 3} {
			if got := r.sums.sum("Output 1.1 " + string(name)); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// All rows of a window come in one call, and rows that come all the time in one
// call a second.
func TestCallsForRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &taker{}
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory(), invoke: f.invoke}
		h := r.open(t, nil)
		code := strings.ReplaceAll(strings.ReplaceAll(perSecond, "TO SECOND", "TO MINUTE"), "VARCHAR(8)", "VARCHAR(300)")
		a := toFunction(code)
		a.Inputs[0].Format.Columns[0] = column("K", "VARCHAR(300)", "$.k")
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		for i := range 3000 { // a megabyte of rows, several arenas
			r.source.put(0, fmt.Sprintf(`{"k":"%0300d","v":1}`, i))
		}
		settle(2 * time.Minute)
		if len(f.calls) != 1 || len(f.calls[0]) != 3000 {
			t.Errorf("%d calls, the first with %d rows", len(f.calls), len(f.calls[0]))
		}
		if err := h.Stop(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		f.calls, f.at = nil, nil
		a = toFunction(passThrough)
		a.ID = "app/2"
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		f.calls, f.at = nil, nil
		for i := range 100 {
			r.source.put(0, fmt.Sprintf(`{"v":%d}`, i))
			settle(100 * time.Millisecond)
		}
		settle(2 * time.Second)
		if n := len(f.calls); n < 9 || n > 12 {
			t.Errorf("%d calls in ten seconds", n)
		}
		for i := 1; i < len(f.at); i++ {
			if d := f.at[i].Sub(f.at[i-1]); d < invokeEvery {
				t.Errorf("two calls within %v", d)
			}
		}
		if got := len(slices.Concat(f.calls...)); got != 100 {
			t.Errorf("%d rows, want 100", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A call holds no more than a function can be sent, and one that hangs is given up.
func TestAFunctionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		largest := 0
		var mu sync.Mutex
		hang := true
		f := &taker{}
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		r.invoke = func(ctx context.Context, res app.Resource, payload []byte) ([]byte, error) {
			mu.Lock()
			largest = max(largest, len(payload))
			hangs := hang
			mu.Unlock()
			if hangs {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return f.invoke(ctx, res, payload)
		}
		h := r.open(t, func(o *Options) { o.InvokeWithin = 30 * time.Second })
		a := toFunction(`CREATE STREAM "OUT" (K VARCHAR(60000)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "K" || "K" || "K" || "K" || "K" FROM "IN_001";`)
		a.Inputs[0].Format.Columns[0] = column("K", "VARCHAR(12000)", "$.k")
		a.Inputs[0].Streams = []string{"IN_001"}
		for range 100 { // six megabytes
			r.source.put(0, fmt.Sprintf(`{"k":%q,"v":1}`, strings.Repeat("x", 12000)))
		}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if s := h.Status(a.ID); !strings.Contains(s.Problem, "no answer within 30s") || s.RowsOut != 0 {
			t.Errorf("%+v", s)
		}
		mu.Lock()
		hang = false
		mu.Unlock()
		settle(2 * time.Minute)
		if s := h.Status(a.ID); s.RowsOut != 100 || s.Problem != "" || largest > maxEvent {
			t.Errorf("%+v; the largest call has %d bytes", s, largest)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
