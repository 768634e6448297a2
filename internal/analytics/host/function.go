package host

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
)

// invokeEvery is the time between calls of a function that takes rows which come
// all the time.
const invokeEvery = time.Second

// gather waits until a function is to be called with the rows of items: when all
// rows of a step are there, and invokeEvery has passed since the last call, or
// when they fill an event. ok is false if the queue is closed behind them.
func (r *application) gather(o *output, items []item, bytes int, last time.Time) (all []item, ok bool) {
	t := time.NewTimer(invokeEvery - time.Since(last))
	defer t.Stop()
	due := time.Since(last) >= invokeEvery
	for ok = true; ok && bytes < writeBytes && r.ctx.Err() == nil; {
		whole := items[len(items)-1].last || items[len(items)-1].barrier != nil
		if whole && due {
			break
		}
		before := len(items)
		var more int
		wait := t.C
		if due {
			wait = nil // the rest of the step comes
		}
		items, more, ok = o.queue.take(items, writeBytes-bytes, wait)
		bytes += more
		if ok && len(items) == before {
			due = true
		}
	}
	return items, ok
}

// invoker makes the function that has a function take rows; it returns false if
// the application's end comes first. Rows that the function does not take are sent
// again, with the number of times that they were.
func (r *application) invoker(o *output) func(below uint64, keys []string, rows [][]byte) bool {
	part := "output " + o.spec.ID
	return func(_ uint64, _ []string, data [][]byte) bool {
		rows := make([]app.Row, len(data))
		for i, d := range data {
			rows[i] = app.Row{ID: newID(), Data: d}
		}
		for attempt := 0; len(rows) > 0; {
			n, size := 0, 0
			for n < len(rows) {
				s := app.DeliverySize(rows[n])
				if n > 0 && size+s > maxEvent-eventHead {
					break
				}
				size += s
				n++
			}
			if size > maxEvent-eventHead {
				// One row that no call can hold.
				o.series.Add(RefusedRows, 1)
				r.problem("rows of "+part, o.spec.ID, "OutputError", fmt.Sprintf("a row of %d bytes was left out: it is larger than what a function can be sent", len(rows[0].Data)))
				r.problem("rows of "+part, "", "", "")
				rows = rows[1:]
				continue
			}
			began := time.Now()
			left, err := r.invokeWith(o, rows[:n])
			if err != nil && r.sending.Err() != nil {
				return false
			}
			o.series.Add(LambdaDeliveryDuration, float64(time.Since(began).Microseconds())/1000)
			taken, bytes := n-len(left), 0
			var again []app.Row
			for i, at := 0, 0; i < n; i++ {
				if at < len(left) && left[at] == i {
					at++
					rows[i].Retries++
					again = append(again, rows[i])
					continue
				}
				bytes += len(rows[i].Data)
			}
			rows = append(again, rows[n:]...)
			if taken > 0 {
				attempt = 0
				r.rowsOut.Add(int64(taken))
				o.series.Add(LambdaDeliveryOkRecords, float64(taken))
				o.series.Add(Records, float64(taken))
				o.series.Add(Bytes, float64(bytes))
			}
			if len(left) == 0 {
				o.series.Add(Success, 1)
				r.problem(part, "", "", "")
				continue
			}
			o.series.Add(Success, 0)
			o.series.Add(LambdaDeliveryDeliveryFailedRecords, float64(len(left)))
			r.problem(part, o.spec.ID, "OutputError", err.Error())
			if !pause(r.sending, attempt) {
				return false
			}
			attempt++
		}
		return true
	}
}

// invokeWith calls the function with rows: the places of those that it did not
// take, and why.
func (r *application) invokeWith(o *output, rows []app.Row) (left []int, err error) {
	event, err := app.DeliveryEvent(newID(), r.a.ARN, rows)
	if err == nil {
		var answer []byte
		if answer, err = r.call(r.sending, o.spec.Destination, event); err == nil {
			left, err = app.DeliveryAnswer(rows, answer)
		}
	}
	if err != nil {
		left = make([]int, len(rows))
		for i := range left {
			left[i] = i
		}
		return left, fmt.Errorf("the function that takes rows: %w", err)
	}
	if len(left) > 0 {
		err = errors.New("the function that takes rows did not take all of them")
	}
	return left, err
}
