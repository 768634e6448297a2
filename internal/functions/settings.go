package functions

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/internal/outbound"
)

const (
	routesFile   = "functions.yaml"
	settingsFile = "function.yaml"
	maxFile      = 1 << 20

	maxTimeout     = 15 * time.Minute
	maxConcurrency = 1000
)

// Settings are what function.yaml in a function's directory may say.
type Settings struct {
	Description string `yaml:"description"`
	// Runtime is bootstrap, python or node; found out by the files if empty.
	Runtime string `yaml:"runtime"`
	// Interpreter runs Python or Node; python3 or node, wherever PATH has them, if
	// empty. A path with a slash is relative to the directory.
	Interpreter string `yaml:"interpreter"`
	// Handler is what the runtime calls: lambda_function.lambda_handler,
	// index.handler.
	Handler string `yaml:"handler"`
	// Timeout ends a call; default one minute.
	Timeout time.Duration `yaml:"timeout"`
	// Memory is what one process and its children may have resident, in MB;
	// default 512.
	Memory int `yaml:"memory"`
	// Concurrency is how many calls may run at the same time; default 8.
	Concurrency int `yaml:"concurrency"`
	// Environment is added to that of the processes.
	Environment map[string]string `yaml:"environment"`
	// Accounts may call the function; empty is all.
	Accounts []string `yaml:"accounts"`
}

// readYAML reads a file of settings into v. Keys that v does not know are errors.
func readYAML(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(raw) > maxFile {
		return fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	if len(strings.TrimSpace(string(raw))) == 0 {
		return nil
	}
	if err := yaml.UnmarshalWithOptions(raw, v, yaml.Strict()); err != nil {
		return fmt.Errorf("%s: %s", path, firstLine(err))
	}
	return nil
}

func firstLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// readSettings reads function.yaml, if there is one, and finds out what is left
// open.
func readSettings(dir string) (Settings, error) {
	s := Settings{Timeout: time.Minute, Memory: 512, Concurrency: 8}
	path := filepath.Join(dir, settingsFile)
	if err := readYAML(path, &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	has := func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular()
	}
	if s.Runtime == "" {
		module, _, _ := strings.Cut(s.Handler, ".")
		switch {
		case has("bootstrap"):
			s.Runtime = "bootstrap"
		case has("lambda_function.py"), s.Handler != "" && has(module+".py"):
			s.Runtime = "python"
		case has("index.mjs"), has("index.js"), has("index.cjs"), s.Handler != "" && (has(module+".mjs") || has(module+".js") || has(module+".cjs")):
			s.Runtime = "node"
		default:
			return s, fmt.Errorf("%s holds no bootstrap, lambda_function.py, index.mjs or index.js, and no %s that names a handler", dir, settingsFile)
		}
	}
	bad := func(format string, args ...any) (Settings, error) {
		return s, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...))
	}
	switch s.Runtime {
	case "bootstrap":
		info, err := os.Stat(filepath.Join(dir, "bootstrap"))
		if err != nil {
			return s, err
		}
		if info.Mode()&0o111 == 0 {
			return s, fmt.Errorf("%s is not executable", filepath.Join(dir, "bootstrap"))
		}
		if s.Handler == "" {
			s.Handler = "bootstrap"
		}
	case "python":
		if s.Handler == "" {
			s.Handler = "lambda_function.lambda_handler"
		}
	case "node":
		if s.Handler == "" {
			s.Handler = "index.handler"
		}
	default:
		return bad("runtime %q is not bootstrap, python or node", s.Runtime)
	}
	if s.Runtime != "bootstrap" && (!strings.Contains(s.Handler, ".") || strings.HasPrefix(s.Handler, "/") || strings.Contains(s.Handler, "..")) {
		return bad("handler %q is not file.function", s.Handler)
	}
	switch {
	case s.Timeout < time.Millisecond || s.Timeout > maxTimeout:
		return bad("timeout %v is out of range; allowed are 1ms to %v", s.Timeout, maxTimeout)
	case s.Memory < 16 || s.Memory > 1<<20:
		return bad("memory %d is out of range; allowed are 16 to %d (MB)", s.Memory, 1<<20)
	case s.Concurrency < 1 || s.Concurrency > maxConcurrency:
		return bad("concurrency %d is out of range; allowed are 1 to %d", s.Concurrency, maxConcurrency)
	}
	for name, value := range s.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return bad("environment: %q cannot be a variable", name)
		}
	}
	for _, a := range s.Accounts {
		if !isAccount(a) {
			return bad("accounts: %q is not 12 digits", a)
		}
	}
	return s, nil
}

// Route is an entry of functions.yaml: a function that runs somewhere else.
type Route struct {
	// Match is a name or ARN, with or without qualifier; with * and ? in it, a
	// pattern.
	Match string `yaml:"match"`
	// Invoker is lambda-api, rie or http.
	Invoker     string `yaml:"invoker"`
	Description string `yaml:"description"`
	// URL is the base of a Lambda API, of an emulator, or what an event is posted
	// to.
	URL string `yaml:"url"`
	// Function is the name to ask a lambda-api for, if it is not the caller's.
	Function string `yaml:"function"`
	// Region, AccessKey, SecretKey and SessionToken sign requests to a lambda-api;
	// without keys they are not signed. SecretKeyFile holds the secret instead.
	Region        string `yaml:"region"`
	AccessKey     string `yaml:"access_key"`
	SecretKey     string `yaml:"secret_key"`
	SecretKeyFile string `yaml:"secret_key_file"`
	SessionToken  string `yaml:"session_token"`
	// Headers are sent with every call.
	Headers map[string]string `yaml:"headers"`
	// Timeout ends a call; default five minutes.
	Timeout time.Duration `yaml:"timeout"`
	// Concurrency is how many calls may run at the same time; default 32, and 1
	// for rie, which can do no more.
	Concurrency int          `yaml:"concurrency"`
	TLS         outbound.TLS `yaml:"tls"`
}

// routes is functions.yaml as it was read last.
type routes struct{ list []*remote }

func (t *routes) close() {
	for _, e := range t.list {
		e.client.CloseIdleConnections()
	}
}

// exact finds the entry for just this name, with its qualifier before without.
func (t *routes) exact(name Name, arn string) *remote {
	unqualified := name
	unqualified.Qualifier = ""
	for _, want := range []Name{name, unqualified} {
		full := strings.TrimSuffix(arn, ":"+name.Qualifier)
		short := want.Function
		if want.Qualifier != "" {
			full, short = arn, short+":"+want.Qualifier
		}
		for _, e := range t.list {
			if e.Match == full || e.Match == short {
				return e
			}
		}
	}
	return nil
}

func (t *routes) pattern(name Name, arn string) *remote {
	full := strings.TrimSuffix(arn, ":"+name.Qualifier)
	for _, e := range t.list {
		if e.isPattern() && (matches(e.Match, arn) || matches(e.Match, full) || matches(e.Match, name.Function)) {
			return e
		}
	}
	return nil
}

func (t *routes) describe() []Description {
	var all []Description
	for _, e := range t.list {
		name := e.Match
		if n, ok := ParseName(e.Match); ok {
			name = n.Function
		}
		d := e.description(name)
		d.Pattern = e.isPattern()
		all = append(all, d)
	}
	return all
}

func (r *Registry) routesStamp() string {
	if r.o.Dir == "" {
		return ""
	}
	info, err := os.Stat(filepath.Join(r.o.Dir, routesFile))
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// refresh reads functions.yaml again if it has changed.
func (r *Registry) refresh() {
	now := r.o.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := now.Sub(r.checked); r.closed || d >= 0 && d < r.o.Recheck {
		return
	}
	r.checked = now
	stamp := r.routesStamp()
	if stamp == r.stamp {
		return
	}
	r.stamp = stamp
	next, err := r.loadRoutes()
	if err != nil {
		r.logger.Error("functions.yaml not read again", "error", err)
		return
	}
	r.routes.Swap(next).close()
}

func (r *Registry) loadRoutes() (*routes, error) {
	t := &routes{}
	if r.o.Dir == "" {
		return t, nil
	}
	var file struct {
		Functions []Route `yaml:"functions"`
	}
	path := filepath.Join(r.o.Dir, routesFile)
	if err := readYAML(path, &file); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return t, nil
		}
		return nil, err
	}
	for i, route := range file.Functions {
		e, err := newRemote(route, r)
		if err != nil {
			return nil, fmt.Errorf("%s: function %d: %w", path, i+1, err)
		}
		t.list = append(t.list, e)
	}
	return t, nil
}

// check completes a route.
func (e *Route) check() error {
	if e.Match == "" {
		return errors.New("match is empty; write a name, an ARN or a pattern")
	}
	if _, ok := ParseName(e.Match); !ok && !e.isPattern() {
		return fmt.Errorf("match %q is neither a name, nor an ARN, nor a pattern", e.Match)
	}
	u, err := url.Parse(e.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("url %q is not an http or https address", e.URL)
	}
	concurrency := 32
	switch e.Invoker {
	case "lambda-api", "http":
	case "rie":
		concurrency = 1
	default:
		return fmt.Errorf("invoker %q is not lambda-api, rie or http", e.Invoker)
	}
	if e.SecretKeyFile != "" {
		if e.SecretKey != "" {
			return errors.New("secret_key and secret_key_file are both set")
		}
		raw, err := os.ReadFile(e.SecretKeyFile)
		if err != nil {
			return fmt.Errorf("secret_key_file: %w", err)
		}
		e.SecretKey = strings.TrimSpace(string(raw))
	}
	if (e.AccessKey == "") != (e.SecretKey == "") {
		return errors.New("access_key and secret_key go together; only one is set")
	}
	if e.AccessKey != "" && e.Invoker != "lambda-api" {
		return fmt.Errorf("invoker %s does not sign; leave access_key out", e.Invoker)
	}
	if e.Concurrency == 0 {
		e.Concurrency = concurrency
	}
	if e.Timeout == 0 {
		e.Timeout = 5 * time.Minute
	}
	if e.Concurrency < 1 || e.Concurrency > maxConcurrency {
		return fmt.Errorf("concurrency %d is out of range; allowed are 1 to %d", e.Concurrency, maxConcurrency)
	}
	if e.Timeout < time.Millisecond || e.Timeout > maxTimeout {
		return fmt.Errorf("timeout %v is out of range; allowed are 1ms to %v", e.Timeout, maxTimeout)
	}
	return nil
}

func (e *Route) isPattern() bool { return strings.ContainsAny(e.Match, "*?") }
