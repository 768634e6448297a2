package functions

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxFiles bounds what is looked at to see whether a function has changed.
	maxFiles = 20_000
	// A function that does not come up is started again after a pause that
	// doubles from firstPause to maxPause.
	firstPause = 100 * time.Millisecond
	maxPause   = 30 * time.Second
)

// local is a function that runs here: a directory, and the processes that serve
// it.
type local struct {
	r    *Registry
	name string
	dir  string

	mu         sync.Mutex
	closed     bool
	recheckAt  time.Time // when the files are looked at again
	files      fileSet
	settings   Settings
	problem    error
	generation int       // counts changes of the files
	idle       []*worker // the one used last at the end
	workers    map[*worker]struct{}
	active     int             // calls in progress
	queue      []chan struct{} // calls that wait for others to end
	failures   int             // starts that failed since the last that did not
	notBefore  time.Time       // of the next start
	failure    Answer          // of the last start
}

// fileSet is what a directory looked like.
type fileSet struct {
	sum      [sha256.Size]byte
	size     int64
	modified time.Time
}

func newLocal(r *Registry, name, dir string) *local {
	return &local{r: r, name: name, dir: dir, workers: map[*worker]struct{}{}}
}

// scan looks at all files below dir. Directories of their own making, such as
// Python's caches, do not count.
func scan(dir string) (fileSet, error) {
	var s fileSet
	sum := sha256.New()
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path != dir && errors.Is(err, fs.ErrNotExist) {
				return nil // gone since it was listed
			}
			return err
		}
		if seen++; seen > maxFiles {
			return fmt.Errorf("%s holds more than %d files", dir, maxFiles)
		}
		if d.IsDir() {
			if path != dir && (d.Name() == "__pycache__" || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := os.Stat(path) // what a link leads to is what runs
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		fmt.Fprintf(sum, "%s\x00%d\x00%d\x00%o\n", path[len(dir):], info.Size(), info.ModTime().UnixNano(), info.Mode())
		s.size += info.Size()
		if info.ModTime().After(s.modified) {
			s.modified = info.ModTime()
		}
		return nil
	})
	sum.Sum(s.sum[:0])
	return s, err
}

// refresh looks at the files if that was a while ago, and retires the processes
// of files that have changed. fs.ErrNotExist means that the directory is gone.
func (l *local) refresh(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.recheckAt) {
		return nil
	}
	started := time.Now()
	files, err := scan(l.dir)
	// A directory with very many files is looked at less often.
	l.recheckAt = now.Add(max(l.r.o.Recheck, 50*time.Since(started)))
	if err != nil {
		l.problem, l.generation = err, l.generation+1
		l.files = fileSet{}
		l.retireLocked(func(*worker) bool { return true })
		return err
	}
	if files == l.files {
		return nil
	}
	if l.generation > 0 {
		l.r.logger.Info("function changed", "function", l.name)
	}
	l.files = files
	l.generation++
	l.failures, l.notBefore = 0, time.Time{}
	l.settings, l.problem = readSettings(l.dir)
	l.retireLocked(func(*worker) bool { return true })
	l.admitLocked()
	return nil
}

// retireLocked ends idle processes.
func (l *local) retireLocked(which func(*worker) bool) {
	l.idle = slices.DeleteFunc(l.idle, func(w *worker) bool {
		if !which(w) {
			return false
		}
		w.end()
		return true
	})
}

func (l *local) retireIdle(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retireLocked(func(w *worker) bool { return w.lastUsed.Before(since) })
}

// gone tells whether neither directory nor processes are left.
func (l *local) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.workers) > 0 || l.active > 0 {
		return false
	}
	_, err := os.Stat(l.dir)
	return errors.Is(err, fs.ErrNotExist)
}

// foreign tells whether an account may not call the function.
func (l *local) foreign(account string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return account != "" && len(l.settings.Accounts) > 0 && !slices.Contains(l.settings.Accounts, account)
}

func (l *local) describe() Description {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := Description{Name: l.name, Invoker: "local", Settings: l.settings, Modified: l.files.modified, CodeSize: l.files.size, CodeSum: l.files.sum}
	if l.problem != nil {
		d.Problem = l.problem.Error()
	}
	return d
}

// close ends all processes.
func (l *local) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.idle = nil
	for w := range l.workers {
		w.end()
	}
	for _, waiting := range l.queue {
		close(waiting)
	}
	l.queue = nil
}

func stopping() *Error {
	return &Error{Code: "ServiceException", Status: 503, Message: "The server is stopping.", Throttled: true, Delivery: "Lambda.ServiceUnavailable"}
}

func unusable(problem error) *Error {
	return &Error{Code: "InvalidRuntimeException", Status: 502, Message: problem.Error(), Delivery: "Lambda.InvocationFailure", Err: problem}
}

// enter takes a place among the calls that may run at the same time.
func (l *local) enter(ctx context.Context, wait bool) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return stopping()
	}
	if l.problem != nil {
		defer l.mu.Unlock()
		return unusable(l.problem)
	}
	if l.active < l.settings.Concurrency && len(l.queue) == 0 {
		l.active++
		l.mu.Unlock()
		return nil
	}
	if !wait || len(l.queue) >= maxConcurrency {
		l.mu.Unlock()
		return tooMany("Rate Exceeded.")
	}
	admitted := make(chan struct{})
	l.queue = append(l.queue, admitted)
	l.mu.Unlock()
	select {
	case <-admitted:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			return stopping()
		}
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		if i := slices.Index(l.queue, admitted); i >= 0 {
			l.queue = slices.Delete(l.queue, i, i+1)
			l.mu.Unlock()
			return ctx.Err()
		}
		// Admitted in the same moment: the place goes to the next.
		l.active--
		l.admitLocked()
		l.mu.Unlock()
		return ctx.Err()
	}
}

// admitLocked lets calls in as far as there is room.
func (l *local) admitLocked() {
	for len(l.queue) > 0 && l.active < max(l.settings.Concurrency, 1) {
		l.active++
		close(l.queue[0])
		l.queue = l.queue[1:]
	}
}

func (l *local) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.admitLocked()
}

// invoke runs one call. A caller that gives up does not end the call: as in
// Lambda the function runs on to its end, or its timeout.
func (l *local) invoke(ctx context.Context, c call) (Answer, error) {
	if err := l.enter(ctx, c.Wait); err != nil {
		return Answer{}, err
	}
	type outcome struct {
		answer Answer
		err    error
	}
	done := make(chan outcome, 1)
	if !l.r.spawn(func() {
		defer l.leave()
		a, err := l.run(ctx, c)
		done <- outcome{a, err}
	}) {
		l.leave()
		return Answer{}, stopping()
	}
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// run finds a process for a call and has it served.
func (l *local) run(ctx context.Context, c call) (Answer, error) {
	for {
		w, paused, err := l.take(ctx, c)
		if err != nil {
			return Answer{}, err
		}
		if w == nil {
			return paused, nil
		}
		answer, err := w.serve(ctx, c)
		l.give(w, answer)
		if !errors.Is(err, errGone) {
			return answer, err
		}
	}
}

// take gets a process for a call: a warm one, or a new one. If the function keeps
// failing to start, and was tried just now, there is no process but the failure
// of that time.
func (l *local) take(ctx context.Context, c call) (w *worker, paused Answer, err error) {
	l.mu.Lock()
	for len(l.idle) > 0 {
		w := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		if w.alive() {
			l.mu.Unlock()
			return w, Answer{}, nil
		}
	}
	if l.failures > 0 && l.r.o.Now().Before(l.notBefore) {
		defer l.mu.Unlock()
		return nil, l.failure, nil
	}
	l.mu.Unlock()

	if err := l.r.slot(ctx, c.Wait); err != nil {
		return nil, Answer{}, err
	}
	l.mu.Lock()
	settings, generation, problem := l.settings, l.generation, l.problem
	l.mu.Unlock()
	if problem != nil {
		l.r.unslot()
		return nil, Answer{}, unusable(problem)
	}
	w, err = l.r.startWorker(l, settings, generation, c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.r.unslot()
		l.startedLocked(failed("Runtime.InvalidEntrypoint", "RequestId: "+c.RequestID+" Error: "+err.Error()), true)
		return nil, l.failure, nil
	}
	l.workers[w] = struct{}{}
	close(w.registered)
	if l.closed {
		w.end()
		return nil, Answer{}, stopping()
	}
	return w, Answer{}, nil
}

// startedLocked notes how a start went.
func (l *local) startedLocked(a Answer, bad bool) {
	if !bad {
		l.failures = 0
		return
	}
	pause := min(firstPause<<min(l.failures, 16), maxPause)
	l.failures++
	l.failure = a
	l.notBefore = l.r.o.Now().Add(pause)
}

// give puts a process back.
func (l *local) give(w *worker, a Answer) {
	l.giveBack(w, a)
	l.r.signalIdle()
}

func (l *local) giveBack(w *worker, a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	initialised, served := w.started()
	if w.generation == l.generation {
		switch {
		case !initialised && !w.alive():
			l.startedLocked(a, true)
		case served:
			l.startedLocked(a, false)
		}
	}
	if w.generation != l.generation || l.closed || !w.alive() {
		w.end()
		return
	}
	w.lastUsed = l.r.o.Now()
	l.idle = append(l.idle, w)
}

// ended forgets a process that is no more.
func (l *local) ended(w *worker) {
	l.mu.Lock()
	delete(l.workers, w)
	if i := slices.Index(l.idle, w); i >= 0 {
		l.idle = slices.Delete(l.idle, i, i+1)
	}
	l.mu.Unlock()
	l.r.unslot()
}

// oldestIdle is the process that has been idle for longest, and since when.
func (l *local) oldestIdle() (*worker, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) == 0 {
		return nil, time.Time{}
	}
	return l.idle[0], l.idle[0].lastUsed
}

// evict ends a process if it is still idle.
func (l *local) evict(w *worker) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.idle, w)
	if i < 0 {
		return false
	}
	l.idle = slices.Delete(l.idle, i, i+1)
	w.end()
	return true
}

// slot takes one of the places that all processes share. A process that is idle
// gives way.
func (r *Registry) slot(ctx context.Context, wait bool) error {
	for {
		select {
		case r.slots <- struct{}{}:
			return nil
		default:
		}
		idle := r.nextIdle() // before the look for one, so that none is missed
		if !r.evictOldest() && !wait {
			return tooMany("Rate Exceeded.")
		}
		select {
		case r.slots <- struct{}{}:
			return nil
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ctx.Done():
			return stopping()
		}
	}
}

func (r *Registry) unslot() { <-r.slots }

// nextIdle is closed when a process has become idle, and could give way.
func (r *Registry) nextIdle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idled == nil {
		r.idled = make(chan struct{})
	}
	return r.idled
}

func (r *Registry) signalIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idled != nil {
		close(r.idled)
		r.idled = nil
	}
}

func (r *Registry) evictOldest() bool {
	r.mu.Lock()
	locals := make([]*local, 0, len(r.locals))
	for _, l := range r.locals {
		locals = append(locals, l)
	}
	r.mu.Unlock()
	var oldest *worker
	var since time.Time
	for _, l := range locals {
		if w, at := l.oldestIdle(); w != nil && (oldest == nil || at.Before(since)) {
			oldest, since = w, at
		}
	}
	return oldest != nil && oldest.local.evict(oldest)
}

// spawn runs f unless the registry has been closed.
func (r *Registry) spawn(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.group.Go(f)
	return true
}
