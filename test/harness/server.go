// Package harness runs the real millrace binary for tests: it builds it once,
// starts it on free ports over a directory on the real disk, waits until it
// answers, and ends it in every way a server can end.
//
// Nothing here knows the inside of the server. What a test learns, it learns
// as a user would: from replies, exit codes, and what is printed.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The user that servers started with Keys know. It may do everything, as may
// DeliveryRole and AnalyticsRole, which delivery streams and SQL applications act
// as.
const (
	AccessKey = "AKIACONFORMANCE00001"
	SecretKey = "conformance/secret/conformance/secret+01"
	Region    = "eu-central-1"
	Account   = "000000000000"

	DeliveryRole  = "arn:aws:iam::" + Account + ":role/delivery"
	AnalyticsRole = "arn:aws:iam::" + Account + ":role/analytics"
)

// Root is the top of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var build = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("BINARY_UNDER_TEST"); b != "" {
		return b, nil
	}
	binary := filepath.Join(Root(), "bin", "millrace")
	command := exec.Command("go", "build", "-o", binary, "./cmd/millrace")
	command.Dir = Root()
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build millrace: %w\n%s", err, out)
	}
	return binary, nil
})

// Binary builds millrace if this process has not done so and returns its path.
// The variable BINARY_UNDER_TEST names another one to test.
func Binary() (string, error) { return build() }

// Options say how a server is started.
type Options struct {
	Data string   // data directory; empty means --ephemeral
	Keys bool     // verify signatures, with the user of this package
	Args []string // further flags of serve
	Log  string   // file that standard error is appended to; empty keeps it in memory
	Env  []string // further environment
}

// Server is one running process.
type Server struct {
	Address string // host:port of the API
	Admin   string // host:port of the admin port
	options Options
	command *exec.Cmd
	output  *lockedBuffer
	done    chan struct{}
	err     error
}

// lockedBuffer keeps the last of what a process writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const keptOutput = 1 << 20

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > keptOutput {
		b.buf.Next(keptOutput / 2)
	}
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// FreeAddress returns a loopback address nobody listens on at the moment.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Start runs a server on free ports and returns once it is ready.
func Start(ctx context.Context, o Options) (*Server, error) {
	api, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	return StartAt(ctx, api, admin, o)
}

// StartAt is Start with addresses of the caller's choice, such as those of a
// server that has just been killed.
func StartAt(ctx context.Context, api, admin string, o Options) (*Server, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--listen", api, "--admin-listen", admin, "--region", Region, "--account", Account}
	if o.Data == "" {
		args = append(args, "--ephemeral")
	} else {
		args = append(args, "--data", o.Data)
	}
	if o.Keys {
		seed, err := writeSeed()
		if err != nil {
			return nil, err
		}
		defer os.Remove(seed) // a server reads it once
		args = append(args, "--auth", "keys", "--seed", seed)
	}
	s := &Server{Address: api, Admin: admin, options: o, output: new(lockedBuffer), done: make(chan struct{})}
	s.command = exec.Command(binary, append(args, o.Args...)...)
	s.command.Env = append(os.Environ(), o.Env...)
	s.command.Stdout, s.command.Stderr = s.output, s.output
	if o.Log != "" {
		f, err := os.OpenFile(o.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		s.command.Stdout, s.command.Stderr = f, f
	}
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start millrace: %w", err)
	}
	var exited sync.WaitGroup
	exited.Go(func() {
		s.err = s.command.Wait()
		close(s.done)
	})
	if err := s.waitReady(ctx); err != nil {
		s.Kill()
		return nil, fmt.Errorf("%w\n%s", err, s.Output())
	}
	return s, nil
}

// writeSeed makes the seed file with this package's user and roles, which is the
// caller's to remove.
func writeSeed() (string, error) {
	f, err := os.CreateTemp("", "millrace-seed-*.yaml")
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(f, `users:
  - name: conformance
    keys:
      - id: %s
        secret: %s
    policies:
      - name: everything
        document: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
roles:
  - name: delivery
    trust: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"firehose.amazonaws.com"}}]}'
    policies:
      - name: everything
        document: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
  - name: analytics
    trust: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"kinesisanalytics.amazonaws.com"}}]}'
    policies:
      - name: everything
        document: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
`, AccessKey, SecretKey)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		select {
		case <-s.done:
			return fmt.Errorf("millrace ended before it was ready: %v", s.err)
		case <-ctx.Done():
			return errors.New("millrace was not ready within a minute")
		case <-time.After(10 * time.Millisecond):
		}
		reply, err := http.Get("http://" + s.Admin + "/health/ready")
		if err != nil {
			continue
		}
		reply.Body.Close()
		if reply.StatusCode == http.StatusOK {
			return nil
		}
	}
}

// URL is the API's address in clear text, or over TLS.
func (s *Server) URL(secure bool) string {
	if secure {
		return "https://" + s.Address
	}
	return "http://" + s.Address
}

// PID is the number of the process.
func (s *Server) PID() int { return s.command.Process.Pid }

// Output is what the server has printed of late.
func (s *Server) Output() string {
	if s.options.Log != "" {
		b, _ := os.ReadFile(s.options.Log)
		return string(b)
	}
	return s.output.String()
}

// Done is closed when the process has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Kill ends the process as a crash would, and waits for its end.
func (s *Server) Kill() {
	s.command.Process.Kill()
	<-s.done
}

// Stop asks for an orderly end and returns the exit code.
func (s *Server) Stop(ctx context.Context) (int, error) {
	s.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
		return s.command.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		s.Kill()
		return -1, fmt.Errorf("millrace did not stop: %w", context.Cause(ctx))
	}
}

// CPU is the processor time the server has used.
func (s *Server) CPU() (time.Duration, error) { return ProcessCPU(s.PID()) }

// ProcessCPU is the processor time, user and system, a process has used.
func ProcessCPU(pid int) (time.Duration, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold
	// blanks; counting starts behind it.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, err
	}
	const ticksPerSecond = 100 // USER_HZ, fixed on Linux
	return time.Duration(user+system) * time.Second / ticksPerSecond, nil
}

// ResidentBytes is the memory a process holds.
func ResidentBytes(pid int) (int64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// Run runs one command of the binary to its end and returns what it printed on
// both outputs and its exit code.
func Run(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	binary, err := Binary()
	if err != nil {
		return "", "", 0, err
	}
	command := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}
