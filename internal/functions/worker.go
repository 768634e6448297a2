package functions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// endGrace is what a process has between SIGTERM and SIGKILL.
	endGrace = 300 * time.Millisecond
	// memoryCheck is how often the memory of a process with an event is looked at.
	memoryCheck = 50 * time.Millisecond
)

// worker is one process of a local function with its Runtime API.
type worker struct {
	local      *local
	settings   Settings
	generation int
	lastUsed   time.Time // guarded by local.mu, while it is idle
	registered chan struct{}

	command  *exec.Cmd
	listener net.Listener
	server   *http.Server
	output   *output
	dead     chan struct{} // closed when the process is no more
	events   chan *event   // to whoever asks for the next one
	begun    time.Time

	endOnce sync.Once
	ending  chan struct{} // closed by end

	mu       sync.Mutex
	phase    phase
	polling  bool   // a request for the next event waits
	current  *event // the last one handed out
	initTook time.Duration
	initFail *Answer // what the process said of its failed start
	exit     error   // how the process ended
	overrun  bool    // ended for its memory
}

// phase is where a process stands in the order of calls that the Runtime API
// allows.
type phase int

const (
	starting phase = iota // has not asked for an event yet
	ready                 // has asked, and waits
	busy                  // has an event, and owes its answer
	answered              // has answered, and has not asked again
	failing               // has reported that it cannot start
)

// event is one call as the process sees it.
type event struct {
	call
	deadline time.Time
	taken    chan struct{} // closed when the process has it
	answer   chan Answer   // receives at most one
}

// startWorker starts a process for a function. The caller has a slot for it.
func (r *Registry) startWorker(l *local, s Settings, generation int, first call) (*worker, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the process: %w", err)
	}
	w := &worker{
		local: l, settings: s, generation: generation, registered: make(chan struct{}), listener: listener,
		dead: make(chan struct{}), ending: make(chan struct{}), events: make(chan *event), begun: time.Now(),
	}
	stream := r.o.Now().UTC().Format("2006/01/02") + "/[" + latest + "]" + strings.ReplaceAll(newID(), "-", "")
	w.output, err = newOutput(r.ctx, r.o.Logs, r.o.Now, "/aws/lambda/"+l.name, stream)
	if err != nil {
		listener.Close()
		return nil, err
	}
	w.output.begin(first)
	w.command, err = w.newCommand(stream, &r.o)
	if err == nil {
		err = r.starter.start(w.command)
	}
	if err != nil {
		listener.Close()
		w.output.abandon()
		return nil, err
	}
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second, ErrorLog: discard}
	if !r.spawn(func() { _ = w.server.Serve(listener) }) || !r.spawn(w.output.read) || !r.spawn(w.watch) {
		// The registry closes; nobody would wait for the process.
		killGroup(w.command)
		_ = w.command.Wait()
		w.server.Close()
		listener.Close()
		w.output.abandon()
		return nil, errors.New("the server is stopping")
	}
	return w, nil
}

// newCommand is the process with its environment. Nothing of the server's own
// environment is in it but where programs are found.
func (w *worker) newCommand(stream string, o *Options) (*exec.Cmd, error) {
	l, s := w.local, &w.settings
	var c *exec.Cmd
	switch s.Runtime {
	case "python":
		path, err := interpreter(l.dir, cmp.Or(s.Interpreter, "python3"))
		if err != nil {
			return nil, err
		}
		c = exec.Command(path, "-u", "-c", pythonLoop)
	case "node":
		path, err := interpreter(l.dir, cmp.Or(s.Interpreter, "node"))
		if err != nil {
			return nil, err
		}
		c = exec.Command(path, "--input-type=module", "-e", nodeLoop)
	default:
		c = exec.Command(filepath.Join(l.dir, "bootstrap"))
	}
	c.Dir = l.dir
	c.Stdout, c.Stderr = w.output.writer, w.output.writer
	c.SysProcAttr = processAttributes()
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME"), "TMPDIR": os.TempDir(), "LANG": "en_US.UTF-8", "TZ": ":UTC",
		"PYTHONDONTWRITEBYTECODE": "1",
		"AWS_LAMBDA_RUNTIME_API":  w.listener.Addr().String(), "_HANDLER": s.Handler,
		"LAMBDA_TASK_ROOT": l.dir, "LAMBDA_RUNTIME_DIR": l.dir,
		"AWS_LAMBDA_FUNCTION_NAME": l.name, "AWS_LAMBDA_FUNCTION_VERSION": latest,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(s.Memory), "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + l.name, "AWS_LAMBDA_LOG_STREAM_NAME": stream,
		"AWS_REGION": o.Region, "AWS_DEFAULT_REGION": o.Region,
	}
	for _, line := range o.Environment {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	for name, value := range s.Environment {
		env[name] = value
	}
	for name, value := range env {
		c.Env = append(c.Env, name+"="+value)
	}
	slices.Sort(c.Env)
	return c, nil
}

// interpreter finds a program: in the function's directory, or where PATH says.
func interpreter(dir, name string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is needed to run this function: %w", name, err)
	}
	return path, nil
}

// watch waits for the process and its end.
func (w *worker) watch() {
	exited := make(chan error, 1)
	var waiting sync.WaitGroup
	waiting.Go(func() { exited <- w.command.Wait() })
	ending := w.ending
	var grace <-chan time.Time
	var err error
	for over := false; !over; {
		select {
		case err = <-exited:
			over = true
		case <-ending:
			// An idle process may have something to put away.
			terminateGroup(w.command)
			timer := time.NewTimer(endGrace)
			defer timer.Stop()
			ending, grace = nil, timer.C
		case <-grace:
			killGroup(w.command)
			grace = nil
		}
	}
	waiting.Wait()
	// What the process started shall not outlive it.
	killGroup(w.command)
	w.mu.Lock()
	w.exit = err
	if err == nil {
		w.exit = errExited
	}
	w.mu.Unlock()
	w.output.end()
	close(w.dead)
	w.server.Close()
	<-w.registered
	w.local.ended(w)
}

var errExited = errors.New("exit status 0")

// end asks the process to end. It does not wait.
func (w *worker) end() { w.endOnce.Do(func() { close(w.ending) }) }

// kill ends the process and all it started, at once.
func (w *worker) kill() { killGroup(w.command) }

func (w *worker) alive() bool {
	select {
	case <-w.dead:
		return false
	case <-w.ending:
		return false
	default:
		return true
	}
}

// started tells whether the process ever asked for an event, and whether it got
// one.
func (w *worker) started() (initialised, served bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.initTook > 0, w.current != nil
}

// errGone is a process that served other calls and ended before it took this one.
var errGone = errors.New("the process has ended")

// serve has the process handle one call. It returns when the call is over; ctx
// ends only the wait for a process that is not ready. With errGone another process
// may have the call.
func (w *worker) serve(ctx context.Context, c call) (Answer, error) {
	w.mu.Lock()
	cold := w.initTook == 0
	w.mu.Unlock()
	w.output.begin(c)
	initTimeout := max(w.local.r.o.InitTimeout, w.settings.Timeout)
	limit := time.NewTimer(initTimeout - time.Since(w.begun))
	if !cold {
		// It has answered before; all it has to do is ask.
		limit.Reset(initTimeout)
	}
	defer limit.Stop()
	memory := time.NewTicker(memoryCheck)
	defer memory.Stop()
	e := &event{call: c, taken: make(chan struct{}), answer: make(chan Answer, 1)}
	for handed := false; !handed; {
		select {
		case w.events <- e:
			handed = true
		case <-w.dead:
			if _, served := w.started(); served {
				return Answer{}, errGone
			}
			return w.stillborn(c), nil
		case <-memory.C:
			w.checkMemory()
		case <-limit.C:
			w.kill()
			<-w.dead
			text := fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", c.RequestID, initTimeout.Seconds())
			w.output.line(text)
			return failed("Sandbox.Timedout", text), nil
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}

	begun := time.Now()
	deadline := time.NewTimer(w.settings.Timeout)
	defer deadline.Stop()
	w.output.line("START RequestId: " + c.RequestID + " Version: " + latest)
	var answer Answer
	note := ""
	for over := false; !over; {
		select {
		case answer = <-e.answer:
			over = true
		case <-w.dead:
			over = true
			select {
			case answer = <-e.answer: // it answered, and ended
			default:
				answer = failed("Runtime.ExitError", "RequestId: "+c.RequestID+" Error: "+w.exitText())
				note = "RequestId: " + c.RequestID + " Error: " + w.exitText()
			}
		case <-deadline.C:
			w.kill()
			<-w.dead
			over = true
			note = fmt.Sprintf("%s %s Task timed out after %.2f seconds", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), c.RequestID, w.settings.Timeout.Seconds())
			answer = failed("Sandbox.Timedout", fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", c.RequestID, w.settings.Timeout.Seconds()))
		case <-memory.C:
			w.checkMemory()
		}
	}
	took := time.Since(begun)
	// What the process printed before it answered is in the log before its end.
	w.output.sync(w.dead)
	if note != "" {
		w.output.line(note)
	}
	w.output.line("END RequestId: " + c.RequestID)
	w.output.line(w.report(c, took, cold))
	if c.Tail {
		answer.Log = w.output.tail()
	}
	return answer, nil
}

// report is the line that sums up a call.
func (w *worker) report(c call, took time.Duration, cold bool) string {
	ms := float64(took) / float64(time.Millisecond)
	text := fmt.Sprintf("REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
		c.RequestID, ms, int64(ms)+1, w.settings.Memory, w.output.peak(peakMemory(w.command))>>20)
	if cold {
		w.mu.Lock()
		text += fmt.Sprintf("Init Duration: %.2f ms\t", float64(w.initTook)/float64(time.Millisecond))
		w.mu.Unlock()
	}
	return text
}

// checkMemory ends a process that takes more than it may.
func (w *worker) checkMemory() {
	used := groupMemory(w.command)
	w.output.peak(used)
	if used > int64(w.settings.Memory)<<20 {
		w.mu.Lock()
		w.overrun = true
		w.mu.Unlock()
		w.kill()
	}
}

// exitText says how the process ended, as Lambda words it.
func (w *worker) exitText() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := "Runtime exited without providing a reason"
	if w.exit != nil && w.exit != errExited {
		text = "Runtime exited with error: " + w.exit.Error()
	}
	if w.overrun {
		text += fmt.Sprintf(" (it used more than %d MB of memory)", w.settings.Memory)
	}
	return text
}

// stillborn is the answer to a call whose process ended before it asked for an
// event.
func (w *worker) stillborn(c call) Answer {
	w.output.sync(w.dead)
	w.mu.Lock()
	said := w.initFail
	w.mu.Unlock()
	if said != nil {
		return *said
	}
	text := "RequestId: " + c.RequestID + " Error: " + w.exitText()
	w.output.line(text)
	return failed("Runtime.ExitError", text)
}

// starter starts processes from one thread that lives as long as the registry.
// The system ends a process whose parent asked for it when the thread that
// started it ends, and threads of the runtime come and go.
type starter struct {
	requests chan startRequest
	stop     chan struct{}
}

type startRequest struct {
	command *exec.Cmd
	done    chan error
}

func newStarter(group *sync.WaitGroup) *starter {
	s := &starter{requests: make(chan startRequest), stop: make(chan struct{})}
	group.Go(func() {
		// Never unlocked: the thread ends with this function.
		runtime.LockOSThread()
		for {
			select {
			case r := <-s.requests:
				r.done <- r.command.Start()
			case <-s.stop:
				return
			}
		}
	})
	return s
}

func (s *starter) start(c *exec.Cmd) error {
	r := startRequest{c, make(chan error, 1)}
	select {
	case s.requests <- r:
		return <-r.done
	case <-s.stop:
		return errors.New("the server is stopping")
	}
}

func (s *starter) close() { close(s.stop) }
