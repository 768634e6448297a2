package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// input is a command's standard input, its size if it is a file, else -1. A read
// that waits for more ends when ctx does. Somebody at a terminal is told what
// is waited for.
func input(ctx context.Context, cmd *cobra.Command, what string) (io.Reader, int64) {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok {
		if size := fileSize(f); size >= 0 {
			return in, size
		}
		if term.IsTerminal(int(f.Fd())) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s; Ctrl-D ends\n", what)
		}
	}
	return &interruptible{ctx: ctx, r: in, done: make(chan struct{}, 1)}, -1
}

// interruptible is a reader whose reads end with a context, though those of what
// it reads from, such as a pipe, cannot be ended. One that is under way when the
// context ends goes on in the background until it returns or the process ends,
// into memory that nobody looks at any more.
type interruptible struct {
	ctx context.Context
	r   io.Reader

	reading sync.WaitGroup
	done    chan struct{}
	buffer  [64 << 10]byte
	ready   []byte // of buffer; the rest of the last read
	err     error
}

func (i *interruptible) Read(p []byte) (int, error) {
	if len(i.ready) == 0 && i.err == nil {
		i.reading.Go(func() {
			n, err := i.r.Read(i.buffer[:])
			i.ready, i.err = i.buffer[:n], err
			i.done <- struct{}{}
		})
		select {
		case <-i.done:
		case <-i.ctx.Done():
			return 0, i.ctx.Err()
		}
	}
	n := copy(p, i.ready)
	i.ready = i.ready[n:]
	if len(i.ready) > 0 {
		return n, nil
	}
	return n, i.err
}
