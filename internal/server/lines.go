package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// lineFile is a log of lines in a file that others may rename, such as
// logrotate: Reopen goes on in a new file of the old name.
type lineFile struct {
	key, path string
	lost      func(error) // told of lines that could not be written

	mu   sync.Mutex
	file *os.File
}

func openLineFile(key, path string, lost func(error)) (*lineFile, error) {
	l := &lineFile{key: key, path: path, lost: lost}
	f, err := l.open()
	if err != nil {
		return nil, err
	}
	l.file = f
	return l, nil
}

func (l *lineFile) open() (*os.File, error) {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; name a file that can be written, or stdout, stderr or off", l.key, err)
	}
	return f, nil
}

// Write appends a line.
func (l *lineFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	n, err := l.file.Write(p)
	l.mu.Unlock()
	if err != nil {
		l.lost(err)
	}
	return n, err
}

// reopen goes on in the file that has the name now. On failure lines go on into
// the old one.
func (l *lineFile) reopen() error {
	f, err := l.open()
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.file
	l.file = f
	l.mu.Unlock()
	return old.Close()
}

func (l *lineFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// openLines opens what a log setting names; nil is off.
func (s *Server) openLines(key, target string) (io.Writer, error) {
	switch target {
	case "off", "":
		return nil, nil
	case "stdout":
		return s.options.Stdout, nil
	case "stderr":
		return s.options.Stderr, nil
	}
	var failing sync.Once
	f, err := openLineFile(key, target, func(err error) {
		s.metrics.LineLost(key)
		failing.Do(func() { s.logger.Error("lines are lost", "log", key, "error", err) })
	})
	if err != nil {
		return nil, err
	}
	s.lines = append(s.lines, f)
	s.onStop(key, func(context.Context) error { return f.close() })
	return f, nil
}

// Reopen makes the access log and the audit log, if they are files, go on in the
// files that have their names now. It may be called at any time during Run.
func (s *Server) Reopen() error {
	var errs []error
	for _, l := range s.lines {
		if err := l.reopen(); err != nil {
			errs = append(errs, err)
			s.logger.Error("log not reopened", "error", err)
		}
	}
	return errors.Join(errs...)
}
