package host

import (
	"context"
	"errors"

	"github.com/millrace/millrace/internal/analytics/app"
)

// Hold takes in an application that should run and cannot, for a reason in its own
// definition: a program that has lost a table, or uses what is not allowed any
// more. What ran of it ends behind a checkpoint, from which it goes on when it is
// started or updated with a definition that can be run. Until then the reason is
// its problem, and it is told like any other.
func (h *Host) Hold(ctx context.Context, a *app.Application, reason error) error {
	if err := h.Stop(ctx, a.ID); err != nil {
		return err
	}
	r := &application{h: h, a: a, done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(h.ctx)
	close(r.done)
	h.mu.Lock()
	if h.ctx.Err() != nil {
		h.mu.Unlock()
		r.cancel()
		return errors.New("host: closed")
	}
	h.apps[a.ID], h.named[a.ID] = r, a
	h.mu.Unlock()
	r.fail("CodeError", "the program cannot be run: "+reason.Error())
	return nil
}
