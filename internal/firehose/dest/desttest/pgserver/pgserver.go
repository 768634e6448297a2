// Package pgserver runs a real PostgreSQL server for tests.
//
// The one idea: a server a test binary, on a port of the system's choice, with
// its data in a temporary folder and nothing synced; databases are cheap, so
// every test has one of its own. The binaries are put in place by scripts/install.
package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running server.
type Server struct {
	Addr  string // host and port
	dir   string
	cmd   *exec.Cmd
	log   *os.File
	count atomic.Int64
}

// ErrMissing says that the binaries are not installed.
var ErrMissing = errors.New("PostgreSQL is not installed: scripts/install postgres")

// Main is what a TestMain calls: it runs the tests with a server, which is nil if
// the binaries are missing, unless the environment says PEERS=required.
func Main(m *testing.M, use func(s *Server)) (code int) {
	s, err := start()
	switch {
	case err == nil:
		use(s)
		defer func() {
			if err := s.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
				code = 1
			}
		}()
	case !errors.Is(err, ErrMissing) || os.Getenv("PEERS") == "required":
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// root is the folder of the checkout.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// nobody is whom the server runs as where the tests run as root, which it refuses.
const nobody = 65534

func start() (*Server, error) {
	checkout, err := root()
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(checkout, ".cache", "postgres", "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
		return nil, ErrMissing
	}
	dir, err := os.MkdirTemp("", "millrace-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		as = asUser(nobody)
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.Dir, initdb.SysProcAttr = dir, as
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(dir))
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", dir,
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=60", "-c", "shared_buffers=32MB")
	s.cmd.Dir, s.cmd.SysProcAttr, s.cmd.Stdout, s.cmd.Stderr = dir, as, s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return s, nil
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(filepath.Join(dir, "log"))
			return nil, errors.Join(fmt.Errorf("PostgreSQL does not answer: %w: %s", err, out), s.stop())
		}
	}
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) stop() error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	waitErr := s.cmd.Wait()
	if state := s.cmd.ProcessState; state != nil && state.ExitCode() >= 0 {
		waitErr = nil
	}
	return errors.Join(waitErr, s.log.Close(), os.RemoveAll(s.dir))
}

// DSN is the connection string of a database.
func (s *Server) DSN(database string) string {
	return "postgres://postgres@" + s.Addr + "/" + database + "?sslmode=disable"
}

// Database makes a database, runs SQL in it, and returns its name.
func (s *Server) Database(t *testing.T, sql ...string) string {
	t.Helper()
	name := "test" + strconv.FormatInt(s.count.Add(1), 10)
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	for _, text := range sql {
		s.Exec(t, name, text)
	}
	return name
}

// Exec runs SQL in a database.
func (s *Server) Exec(t *testing.T, database, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Query returns the rows of a query as text, fields between bars, NULL as ∅.
func (s *Server) Query(t *testing.T, database, sql string) []string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	results, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var rows []string
	for _, r := range results {
		for _, row := range r.Rows {
			fields := make([][]byte, 0, len(row))
			for _, f := range row {
				if f == nil {
					f = []byte("∅")
				}
				fields = append(fields, f)
			}
			rows = append(rows, string(bytes.Join(fields, []byte("|"))))
		}
	}
	return rows
}
