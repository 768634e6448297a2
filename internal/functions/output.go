package functions

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log"
	"os"
	"sync"
	"time"
)

// discard is where the listeners of processes log: a process that breaks its
// connection is no news.
var discard = log.New(io.Discard, "", 0)

// maxLine bounds one line of a function's log, in bytes; longer ones are cut into
// several.
const maxLine = 256 << 10

// output is what a process prints, on its way into a log.
//
// The process writes to a pipe whose writing end is kept open here as well. To
// know that everything printed before an answer has been read, sync writes a mark
// into the same pipe and waits until it comes out at the other end.
type output struct {
	ctx           context.Context
	logs          Logs
	now           func() time.Time
	group, stream string
	reader        *os.File
	writer        *os.File
	mark          []byte
	over          chan struct{} // closed when nothing more comes

	mu      sync.Mutex
	about   call
	partial []byte
	last    []byte // the end of the log of the current call
	most    int64  // memory used in the current call
	reached chan struct{}
	ended   bool
}

func newOutput(ctx context.Context, logs Logs, now func() time.Time, group, stream string) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	var secret [16]byte
	rand.Read(secret[:])
	o := &output{ctx: ctx, logs: logs, now: now, group: group, stream: stream, reader: r, writer: w, over: make(chan struct{})}
	o.mark = []byte("\x00" + hex.EncodeToString(secret[:]) + "\n")
	return o, nil
}

// abandon gives the pipe back when no process came of it.
func (o *output) abandon() {
	o.reader.Close()
	o.writer.Close()
}

// begin says which call is being logged from now on.
func (o *output) begin(c call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.about, o.last, o.most = c, o.last[:0], 0
}

// read moves lines from the pipe to the log until the process has ended.
func (o *output) read() {
	defer close(o.over)
	defer o.reader.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := o.reader.Read(buf)
		o.take(buf[:n])
		if err != nil {
			o.mu.Lock()
			o.flushLocked()
			o.mu.Unlock()
			return
		}
	}
}

// take cuts bytes into lines.
func (o *output) take(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.partial = append(o.partial, p...)
	for {
		i := bytes.IndexByte(o.partial, '\n')
		if i < 0 {
			break
		}
		line := o.partial[:i+1]
		if before, found := bytes.CutSuffix(line, o.mark); found {
			// What stands before the mark is a line that has not ended yet.
			if len(before) > 0 {
				o.logLocked(before)
			}
			if o.reached != nil {
				close(o.reached)
				o.reached = nil
			}
		} else {
			o.logLocked(line[:i])
		}
		o.partial = append(o.partial[:0], o.partial[i+1:]...)
	}
	if len(o.partial) >= maxLine {
		o.flushLocked()
	}
}

func (o *output) flushLocked() {
	if len(o.partial) > 0 {
		o.logLocked(o.partial)
		o.partial = o.partial[:0]
	}
}

// line adds a line of the server's own.
func (o *output) line(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked([]byte(text))
}

func (o *output) logLocked(line []byte) {
	for first := true; first || len(line) > 0; first = false {
		part := line[:min(len(line), maxLine)]
		line = line[len(part):]
		o.last = append(append(o.last, part...), '\n')
		if extra := len(o.last) - tailBytes; extra > tailBytes {
			o.last = append(o.last[:0], o.last[extra:]...)
		}
		if o.logs != nil && len(part) > 0 {
			o.logs.Log(o.ctx, o.about.Account, o.about.Region, o.group, o.stream, o.now(), bytes.Clone(part))
		}
	}
}

// tail is the end of the current call's log.
func (o *output) tail() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.last[max(0, len(o.last)-tailBytes):])
}

// peak raises the most memory used in this call, and returns it.
func (o *output) peak(used int64) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.most = max(o.most, used)
	return o.most
}

// sync returns when everything printed so far is in the log. dead is closed when
// the process has ended; then the end of the pipe says the same.
func (o *output) sync(dead <-chan struct{}) {
	reached := make(chan struct{})
	o.mu.Lock()
	if o.ended {
		o.mu.Unlock()
		<-o.over
		return
	}
	o.reached = reached
	o.mu.Unlock()
	// The pipe may be full for a moment; read empties it. A deadline keeps a
	// process that floods it from holding up its own end.
	_ = o.writer.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := o.writer.Write(o.mark); err != nil {
		return
	}
	select {
	case <-reached:
	case <-o.over:
	case <-dead:
		<-o.over
	}
}

// end says that the process is no more. What it left in the pipe is still read,
// but not for long: a process that got away may keep the pipe open for ever.
func (o *output) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	o.writer.Close()
	_ = o.reader.SetReadDeadline(time.Now().Add(time.Second))
	<-o.over
}
