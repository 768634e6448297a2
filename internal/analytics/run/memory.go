package run

import (
	"errors"
)

// ErrMemory says that the state of an application has reached its limit. The
// application takes no rows any more; a snapshot taken before goes on where there
// is more room.
var ErrMemory = errors.New("the application's state is as large as its limit allows")

// Memory is how many bytes the state takes: an estimate that follows what is
// allocated.
func (a *Application) Memory() int64 {
	total := int64(0)
	for _, m := range a.meters {
		total += m.bytes
	}
	return total
}

// meter follows the bytes of an operator's state.
type meter struct{ bytes int64 }
