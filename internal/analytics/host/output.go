package host

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// output is where the rows of a stream go.
type output struct {
	spec    app.Output
	encoder *run.Encoder
	series  Series
	queue   *queue
	lost    atomic.Bool  // the end came before rows could be delivered
	since   atomic.Int64 // when the rows were taken that are being delivered, in nanoseconds since 1970; 0 if none

	once *once // nil if rows may come twice

	// The loop's own.
	filling *arena
	step    bool   // rows of this step have been pushed before
	ordinal uint64 // rows of this step that have been pushed
}

func (r *application) newOutput(spec app.Output, columns []plan.ColumnInfo) *output {
	q := newQueue()
	return &output{spec: spec, encoder: run.NewEncoder(columns, spec.CSV), queue: q, filling: q.empty(),
		series: r.h.o.Metrics.Series(r.a.Account, r.a.Region, r.a.Name, FlowOutput, spec.ID)}
}

// take encodes rows that the program has made. It waits while the destination has
// too many of them: that holds up the program, and so its sources.
func (r *application) take(o *output, b *run.Batch) {
	for _, i := range b.Sel {
		a := o.filling
		if a.bytes = o.encoder.Append(a.bytes, b, i); !o.spec.CSV {
			a.bytes = append(a.bytes, '\n')
		}
		a.ends = append(a.ends, len(a.bytes))
		if len(a.bytes) >= arenaBytes && !r.push(o, false) {
			o.filling.bytes, o.filling.ends = o.filling.bytes[:0], o.filling.ends[:0]
		}
	}
}

// push hands rows to the deliverer, at the end of a step with a mark; false if the
// application ends first.
func (r *application) push(o *output, last bool) bool {
	if o.lost.Load() {
		return false
	}
	if len(o.filling.bytes) == 0 {
		if last && o.step {
			o.step = false
			return o.queue.put(r.sending, item{last: true, step: r.steps})
		}
		return true
	}
	rows := uint64(len(o.filling.ends))
	if !o.queue.put(r.sending, item{arena: o.filling, last: last, step: r.steps, ordinal: o.ordinal}) {
		o.lost.Store(true)
		return false
	}
	o.filling, o.step = o.queue.empty(), !last
	o.ordinal += rows
	r.made += rows
	r.changed = true
	return true
}

// deliver sends rows until the queue is closed, each until it is taken.
func (r *application) deliver(o *output) {
	send := r.writer(o)
	if o.spec.Destination.Kind == app.Function {
		send = r.invoker(o)
	}
	var items []item
	var rows [][]byte
	var keys []string
	var last time.Time // when a function was called
	for {
		var bytes int
		var ok bool
		items, bytes, ok = o.queue.take(items[:0], writeBytes, nil)
		if !ok {
			return
		}
		if o.spec.Destination.Kind == app.Function {
			items, ok = r.gather(o, items, bytes, last)
			last = time.Now()
		}
		rows, keys = rows[:0], keys[:0]
		below := uint64(0)
		for _, it := range items {
			if it.arena != nil {
				rows, below = it.arena.rows(rows), it.step
				if o.once != nil {
					keys = o.once.keysOf(keys, it)
				}
			}
		}
		o.since.Store(time.Now().UnixNano())
		if len(rows) > 0 && !(r.sending.Err() == nil && send(below, keys, rows)) {
			o.lost.Store(true) // made again when the application goes on
		}
		o.since.Store(0)
		clear(rows)
		clear(keys)
		lost := o.lost.Load()
		for _, it := range items {
			if it.barrier != nil {
				it.barrier.pass(lost)
			}
		}
		o.queue.release(items)
		clear(items)
		if !ok {
			return
		}
	}
}

// writer makes the function that writes rows to a stream, until they are durable;
// it returns false if the application's end comes first.
func (r *application) writer(o *output) func(below uint64, keys []string, rows [][]byte) bool {
	part := "output " + o.spec.ID
	var to Destination
	return func(below uint64, keys []string, rows [][]byte) bool {
		began := r.h.o.Now()
		for attempt := 0; ; attempt++ {
			var err error
			left := len(rows)
			if to == nil {
				to, err = r.h.o.OpenDestination(r.sending, r.a, o.spec.Destination)
			}
			if err == nil {
				if o.once != nil {
					err = o.once.write(r.sending, to, below, keys, rows, began)
				} else {
					err = to.Write(r.sending, rows)
				}
				if err != nil {
					to = nil
				}
				var partly *PartlyError
				switch {
				case err == nil:
					left = 0
				case errors.As(err, &partly):
					rest, refused := pick(rows, partly.Left), pick(rows, partly.Refused)
					r.delivered(o, rows, rest, refused)
					if len(refused) > 0 {
						r.problem("rows of "+part, o.spec.ID, "OutputError", fmt.Sprintf("rows that the %s %s can never take were left out: %v", o.spec.Destination.Kind, o.spec.Destination.ARN, err))
						r.problem("rows of "+part, "", "", "")
					}
					if left = len(rest); left < len(rows) {
						attempt = 0
					}
					rows = rest
					if keys != nil {
						keys = pick(keys, partly.Left)
					}
				}
			}
			if left == 0 {
				o.series.Add(Success, 1)
				if err == nil {
					r.delivered(o, rows, nil, nil)
				}
				if o.once != nil {
					o.once.passed(below)
				}
				r.problem(part, "", "", "")
				return true
			}
			o.series.Add(Success, 0)
			if r.sending.Err() != nil {
				return false
			}
			r.problem(part, o.spec.ID, "OutputError", err.Error())
			if !pause(r.sending, attempt) {
				return false
			}
		}
	}
}

// pick are the rows at places, in their order.
func pick[T any](rows []T, places []int) []T {
	rest := make([]T, 0, len(places))
	last := -1
	for _, i := range places {
		if i > last && i < len(rows) {
			rest = append(rest, rows[i])
			last = i
		}
	}
	return rest
}

// delivered counts rows that have become durable: all but the rest, and those that
// were refused.
func (r *application) delivered(o *output, rows, rest, refused [][]byte) {
	n := len(rows) - len(rest) - len(refused)
	if len(refused) > 0 {
		o.series.Add(RefusedRows, float64(len(refused)))
	}
	if n > 0 {
		r.rowsOut.Add(int64(n))
		o.series.Add(Records, float64(n))
		o.series.Add(Bytes, float64(total(rows)-total(rest)-total(refused)))
	}
}

func total(rows [][]byte) (bytes int) {
	for _, row := range rows {
		bytes += len(row)
	}
	return bytes
}
