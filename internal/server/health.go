package server

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/millrace/millrace/internal/analytics"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/metrics"
)

// phase is where a server is in its life.
type phase int32

const (
	starting phase = iota // recovers and opens its parts
	serving
	stopping
)

// health is what readiness depends on. It is told by those who know and holds no
// reference to them, so the admin port can ask it from the first moment to the
// last.
type health struct {
	phase          atomic.Int32
	full, readOnly atomic.Bool
	metadata       atomic.Pointer[meta.Store]        // nil before it is open
	applications   atomic.Pointer[analytics.Service] // likewise
}

func (h *health) enter(p phase) { h.phase.Store(int32(p)) }

// check tells whether requests are answered as they should be, and in a line
// why not. A full disk is no reason: reads go on, puts are refused with an error
// that clients retry, and a balancer that takes the server away helps nobody.
func (h *health) check() (ready bool, reason string) {
	switch phase(h.phase.Load()) {
	case starting:
		return false, "starting"
	case stopping:
		return false, "stopping"
	}
	if h.readOnly.Load() {
		return false, "the log is read-only after a failed write; look at the disk and restart"
	}
	if m := h.metadata.Load(); m != nil {
		if err := m.Err(); err != nil && !errors.Is(err, meta.ErrClosed) {
			return false, err.Error()
		}
	}
	if h.full.Load() {
		return true, "ready, but puts are refused: the disk is full"
	}
	// Nor is an application that waits for something a reason.
	if a := h.applications.Load(); a != nil {
		if n := a.HeldUp(); n > 0 {
			return true, fmt.Sprintf("ready, but %d of the SQL applications are held up: see /applications on the admin port", n)
		}
	}
	return true, "ready"
}

// engineMetrics lets health hear of the engine's state on its way to the
// registry.
type engineMetrics struct {
	*metrics.Registry
	health *health
}

// StateChanged implements the engine's Metrics.
func (m engineMetrics) StateChanged(full, readOnly bool) {
	m.health.full.Store(full)
	m.health.readOnly.Store(readOnly)
	m.Registry.StateChanged(full, readOnly)
}
