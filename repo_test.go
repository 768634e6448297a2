package millrace_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/api/lambda"
)

var update = flag.Bool("update", false, "rewrite checked-in lists")

const module = "github.com/millrace/millrace"

// imports is the picture of which package may import which. A name ending in
// /... stands for everything below it. Every edge has its reason; an edge that
// is not here does not exist.
var imports = []struct{ from, to, why string }{
	{"cmd/millrace", "internal/server", "main runs the server"},
	{"cmd/millrace", "internal/config", "flags are fields of the configuration"},
	{"cmd/millrace", "internal/cli", "main adds the client commands"},
	{"cmd/millrace", "internal/certs", "the ca command prints the authority"},

	{"internal/server/...", "internal/...", "the composition root knows all names"},
	{"internal/testkit/...", "internal/...", "it is the composition root of tests"},

	{"internal/wire/...", "internal/api/...", "wire turns bytes into typed calls"},
	{"internal/wire/...", "internal/wire/...", "the pipeline uses the codecs"},
	{"internal/wire", "internal/sigv4", "the pipeline authenticates"},
	{"internal/wire", "internal/iam", "the pipeline authorises"},
	{"internal/wire", "internal/quota", "the pipeline admits"},

	{"internal/sigv4", "internal/api", "a verified signature is a principal"},
	{"internal/iam/...", "internal/api", "policies speak of principals"},
	{"internal/iam", "internal/sigv4", "the directory answers the verifier's question for a key"},
	{"internal/iam/metastore", "internal/iam", "it keeps what iam works on"},
	{"internal/iam/metastore", "internal/meta", "users and keys are metadata"},
	{"internal/identity/...", "internal/iam", "roles and sessions are principals"},
	{"internal/identity/...", "internal/api", "it answers calls"},
	{"internal/identity/...", "internal/sigv4", "session keys verify signatures"},

	{"internal/streams/...", "internal/api/...", "the service implements the generated handler"},
	{"internal/streams/...", "internal/shardlog", "records live in shard logs"},
	{"internal/streams/...", "internal/shardlog/driver", "shard logs speak in the driver's types"},
	{"internal/streams/...", "internal/meta", "streams are metadata"},
	{"internal/streams/...", "internal/keyring", "records are encrypted with keys of the ring"},
	{"internal/firehose", "internal/firehose/...", "the service is put together from its parts"},
	{"internal/firehose/...", "internal/firehose/record", "records are what all parts speak of"},
	{"internal/firehose/...", "internal/firehose/dest", "destinations have one contract"},
	{"internal/firehose/...", "internal/api/...", "the service implements the generated handler"},
	{"internal/firehose/...", "internal/objects", "objects are written to stores"},
	{"internal/firehose/...", "internal/outbound", "addresses that users set are checked in one place"},
	{"internal/firehose/channels", "internal/firehose/...", "channels are deliveries without a delivery stream"},
	{"internal/firehose/delivery", "internal/firehose/process", "records pass through processors"},
	{"internal/firehose/delivery", "internal/firehose/naming", "partitions are evaluated prefixes"},
	{"internal/firehose/delivery", "internal/firehose/dest/s3", "backups and error outputs are objects"},
	{"internal/firehose/delivery", "internal/aggregate", "aggregated records are opened"},
	{"internal/firehose/delivery", "internal/shardlog", "direct puts live in shard logs"},
	{"internal/firehose/delivery", "internal/shardlog/driver", "shard logs speak in the driver's types"},
	{"internal/firehose/delivery", "internal/meta", "checkpoints and the ledger are metadata"},
	{"internal/firehose/delivery", "internal/keyring", "direct puts can be encrypted"},
	{"internal/firehose/delivery", "internal/vfs", "buffers spill to files"},
	{"internal/firehose", "internal/meta", "delivery streams are metadata"},
	{"internal/firehose", "internal/keyring", "encryption names keys of the ring"},
	{"internal/firehose", "internal/quota", "the service has limits of its own"},
	{"internal/firehose", "internal/sigv4", "destinations sign requests with credentials that are handed on"},
	{"internal/firehose", "internal/shardlog/driver", "a full log is an answer to a put"},
	{"internal/firehose/control", "internal/firehose", "control finds delivery streams"},
	{"internal/firehose/control", "internal/firehose/...", "a test runs the parts of a delivery"},
	{"internal/firehose/control", "internal/meta", "what was put back is metadata"},
	{"internal/firehose/dest/...", "internal/firehose/naming", "objects are named by prefix expressions"},
	{"internal/firehose/dest/...", "internal/firehose/compress", "objects are compressed"},
	{"internal/firehose/dest/...", "internal/firehose/dest/payload", "batches become bodies of requests"},
	{"internal/firehose/dest/...", "internal/firehose/dest/s3", "destinations stage objects"},
	{"internal/firehose/dest/...", "internal/firehose/dest/loaded", "what was stored is stored once"},
	{"internal/firehose/dest/...", "internal/firehose/dest/jsonscan", "records are looked into without making values of them"},
	{"internal/firehose/dest/redshift", "internal/firehose/dest/postgres", "rows are loaded into servers that cannot read buckets"},
	{"internal/firehose/dest/...", "internal/sigv4", "requests to search domains are signed"},
	{"internal/firehose/encode", "internal/firehose/compress", "lines are compressed as objects are"},
	{"internal/firehose/convert/...", "internal/firehose/convert/...", "formats share schemas and values"},
	{"internal/catalog", "internal/api/...", "the service implements the generated handler"},
	{"internal/catalog", "internal/meta", "databases and tables are metadata"},
	{"internal/objects/...", "internal/api", "requests are calls"},
	{"internal/objects/...", "internal/objects", "stores have one contract"},
	{"internal/objects/...", "internal/iam", "buckets are guarded by policies"},
	{"internal/objects/...", "internal/sigv4", "requests are signed"},
	{"internal/objects", "internal/objects/...", "the embedded store stands on its index"},
	{"internal/objects/...", "internal/vfs", "the only door to the file system"},
	{"internal/functions", "internal/api/...", "requests are calls, and descriptions generated types"},
	{"internal/functions", "internal/wire/restjson", "the service speaks REST-JSON"},
	{"internal/functions", "internal/iam", "functions are guarded by policies"},
	{"internal/functions", "internal/sigv4", "requests are signed"},
	{"internal/functions", "internal/outbound", "addresses that users set are checked in one place"},
	{"internal/logs", "internal/api/...", "the service implements the generated handler"},
	{"internal/logs", "internal/meta", "groups and streams are metadata"},
	{"internal/logs", "internal/shardlog", "events live in shard logs"},
	{"internal/logs", "internal/shardlog/driver", "shard logs speak in the driver's types"},
	{"internal/metrics", "internal/firehose/...", "the registry implements what deliveries report to"},
	{"internal/analytics/plan", "internal/analytics/sql", "what is written is given its meaning"},
	{"internal/analytics/text", "internal/analytics/sql", "columns of log lines have types"},
	{"internal/analytics/plan", "internal/analytics/text", "patterns are checked before they run"},
	{"internal/analytics/run", "internal/analytics/text", "patterns are run"},
	{"internal/analytics/run", "internal/analytics/plan", "plans are run"},
	{"internal/analytics/cases", "internal/analytics/...", "cases go through the whole engine"},
	{"internal/analytics/host", "internal/analytics/app", "it runs applications"},
	{"internal/analytics/host", "internal/analytics/run", "programs are run"},
	{"internal/analytics/host", "internal/analytics/sql", "columns have types"},
	{"internal/analytics/host", "internal/analytics/plan", "rows have columns"},
	{"internal/analytics/host", "internal/vfs", "checkpoints are files"},
	{"internal/analytics/discover", "internal/analytics/sql", "columns have types"},
	{"internal/analytics/discover", "internal/analytics/run", "a schema is what records are read with"},
	{"internal/analytics/flink", "internal/analytics/...", "whole applications are translated"},
	{"internal/cli", "internal/analytics/...", "programs can be checked and run without a server"},
	{"internal/analytics/run", "internal/analytics/sql", "plans speak in types of the language"},
	{"internal/analytics", "internal/analytics/...", "the service checks programs and hands applications on"},
	{"internal/analytics", "internal/api/...", "the service implements the generated handlers"},
	{"internal/analytics", "internal/meta", "applications are metadata"},
	{"internal/analytics", "internal/objects", "schemas are guessed from objects"},
	{"internal/analytics/app", "internal/analytics/plan", "an application knows what its program means"},
	{"internal/analytics/app", "internal/analytics/run", "an application says how its records are read"},
	{"internal/keyring", "internal/meta", "wrapped keys are metadata"},
	{"internal/keyring", "internal/vfs", "the master key is a file"},

	{"internal/meta/...", "internal/shardlog", "metadata is a state machine fed by a shard log"},
	{"internal/meta/...", "internal/shardlog/driver", "shard logs speak in the driver's types"},
	{"internal/meta/...", "internal/vfs", "snapshots are files"},
	{"internal/meta/metatest", "internal/meta", "it is the store's contract suite"},
	{"internal/meta/metatest", "internal/shardlog/memory", "the suite needs a log to stand on"},
	{"internal/shardlog", "internal/shardlog/driver", "the log stands on a driver"},
	{"internal/shardlog/local", "internal/shardlog/driver", "it is a driver"},
	{"internal/shardlog/local", "internal/vfs", "the only door to the file system"},
	{"internal/shardlog/memory", "internal/shardlog/driver", "it is a driver"},
	{"internal/shardlog/shardlogtest", "internal/shardlog/...", "it is the drivers' contract suite"},
	{"internal/shardlog/shardlogtest", "internal/vfs", "crashes are made in the file system"},

	{"internal/apigen/...", "internal/apigen", "the command runs the generator"},
	{"internal/api/...", "internal/api", "generated packages share one vocabulary"},

	{"internal/config", "internal/outbound", "allowed targets are checked before the start"},
	{"internal/metrics", "internal/api", "requests are counted by operation"},
	{"internal/metrics", "internal/analytics/host", "the registry implements what applications report to"},
	{"internal/metrics", "internal/quota", "the registry shows what the limiter counts"},
	{"internal/metrics", "internal/streams", "the registry implements what streams report to"},
	{"internal/metrics", "internal/wire", "the registry implements what the pipeline reports to"},
	{"internal/client", "internal/api/...", "the client speaks in generated types"},
	{"internal/client", "internal/sigv4", "the client signs"},
	{"internal/client", "internal/wire/awsjson", "the client encodes"},
	{"internal/client", "internal/wire/eventstream", "the client reads fan-out streams"},
	{"internal/cli", "internal/client", "commands are clients of the public API"},
	{"internal/cli", "internal/api/...", "commands speak in generated types"},
	{"internal/cli", "internal/aggregate", "tail shows the user records of an aggregate"},
	{"internal/cli", "internal/wire/awsjson", "saved descriptions of applications are in its notation"},
	{"internal/cli", "internal/config", "tests name the functions of their servers"},
}

// testOnly is what tests may import in addition.
var testOnly = []struct{ to, why string }{
	{"internal/testkit/...", "a real server inside a test"},
	{"internal/shardlog/...", "a real log under whatever is tested"},
	{"internal/vfs", "a file system in memory"},
	{"internal/meta/...", "a real store under whatever is tested"},
	{"internal/api/...", "calls to make"},
	{"internal/wire/...", "every wire test runs in every protocol"},
	{"internal/sigv4", "signed requests"},
	{"internal/firehose/dest/desttest/...", "every destination runs through one suite"},
	{"internal/analytics/cases", "the cases run in every way a program can be run"},
}

func covers(pattern, name string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == base || strings.HasPrefix(name, base+"/")
	}
	return pattern == name
}

// file is one parsed Go file of the main module.
type file struct {
	path    string // slash-separated, from the root
	pkg     string // its folder
	test    bool
	raw     []byte
	syntax  *ast.File
	fileSet *token.FileSet
}

var skipped = map[string]bool{".git": true, ".cache": true, "node_modules": true, "data": true}

// walk visits the files of the checkout that are its own.
func walk(t *testing.T, visit func(name string, raw []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (skipped[d.Name()] || name == "bin"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		raw, err := os.ReadFile(name)
		if err == nil {
			visit(filepath.ToSlash(name), raw)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// otherModule tells files of the test and benchmark modules.
func otherModule(name string) bool {
	return strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "bench/")
}

func goFiles(t *testing.T) []file {
	t.Helper()
	var files []file
	walk(t, func(name string, raw []byte) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "/testdata/") {
			return
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, name, raw, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		files = append(files, file{path: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), raw: raw, syntax: syntax, fileSet: set})
	})
	return files
}

func TestImportsPointDown(t *testing.T) {
	used := make([]bool, len(imports))
	for _, f := range goFiles(t) {
		if otherModule(f.path) || f.pkg == "." {
			continue
		}
		for _, spec := range f.syntax.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			to, ours := strings.CutPrefix(name, module+"/")
			if !ours || to == f.pkg {
				continue
			}
			allowed := false
			for i, edge := range imports {
				if covers(edge.from, f.pkg) && covers(edge.to, to) {
					allowed, used[i] = true, true
				}
			}
			if f.test {
				for _, edge := range testOnly {
					allowed = allowed || covers(edge.to, to)
				}
			}
			if !allowed {
				t.Errorf("%s imports %s: the table in repo_test.go has no such edge", f.path, to)
			}
		}
	}
	for i, edge := range imports {
		if !used[i] {
			t.Errorf("%s → %s (%s): nobody needs this edge any more", edge.from, edge.to, edge.why)
		}
	}
}

// TestEveryPackageIsExplained wants one package comment of substance in each.
func TestEveryPackageIsExplained(t *testing.T) {
	docs := map[string]string{}
	for _, f := range goFiles(t) {
		if f.pkg == "." || (f.test && docs[f.pkg] != "") {
			continue
		}
		if _, ok := docs[f.pkg]; !ok && !f.test {
			docs[f.pkg] = ""
		}
		if f.syntax.Doc != nil && !f.test {
			docs[f.pkg] += f.syntax.Doc.Text()
		}
	}
	const short = 120
	empty := regexp.MustCompile(`^Package \w+ (contains|provides|implements) (the )?\w+\.?\s*$`)
	for _, pkg := range slices.Sorted(maps.Keys(docs)) {
		if doc := docs[pkg]; len(doc) < short || empty.MatchString(doc) {
			t.Errorf("package %s says too little about itself: %q", pkg, doc)
		}
	}
}

func TestPackagesHaveNamesOfTheirOwn(t *testing.T) {
	for _, f := range goFiles(t) {
		switch path.Base(f.pkg) {
		case "util", "utils", "common", "types", "mocks", "helpers":
			t.Errorf("%s: a package is named for what it is about", f.path)
		}
	}
}

// forbidden is what must not be in any file of the checkout.
var forbidden = []struct {
	pattern *regexp.Regexp
	why     string
	except  *regexp.Regexp // of file names
}{
	{regexp.MustCompile(`(?i)\b(todo|fixme|xxx)\b[^#\n]*$`), "an open end without an issue", regexp.MustCompile(`^repo_test\.go$|^model/|package-lock\.json$`)},
	{regexp.MustCompile(`/(work|root|home|Users)/[a-z]`), "a path of somebody's machine", regexp.MustCompile(`^repo_test\.go$|^packaging/|^model/`)},
	{regexp.MustCompile(`/tmp/[a-z]+`), "a path of somebody's machine", regexp.MustCompile(`^repo_test\.go$|_test\.go$|^docs/|^README\.md$`)},
	{regexp.MustCompile(`\b(registry|repo1?|proxy|files|index)\.[a-z0-9.-]+\.(org|io)\b`), "a registry's host", regexp.MustCompile(`^model/`)},
}

func TestNothingForbidden(t *testing.T) {
	walk(t, func(name string, raw []byte) {
		if bytes.IndexByte(raw[:min(len(raw), 8000)], 0) >= 0 || strings.HasSuffix(name, ".sum") || strings.Contains(name, "/testdata/") {
			return
		}
		for i, line := range strings.Split(string(raw), "\n") {
			for _, f := range forbidden {
				if f.except.MatchString(name) {
					continue
				}
				if found := f.pattern.FindString(line); found != "" {
					t.Errorf("%s:%d: %q: %s", name, i+1, found, f.why)
				}
			}
		}
	})
}

var generatedHeader = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// TestGeneratedFilesSaySo also keeps hand-written files out of the generated
// packages.
func TestGeneratedFilesSaySo(t *testing.T) {
	n := 0
	for _, f := range goFiles(t) {
		generated := generatedHeader.Match(f.raw[:bytes.Index(f.raw, []byte("package "))])
		inside := strings.HasPrefix(f.pkg, "internal/api/")
		switch {
		case inside && !generated && !f.test:
			t.Errorf("%s is written by hand among generated files", f.path)
		case generated && !inside:
			t.Errorf("%s is generated but not below internal/api", f.path)
		}
		if generated {
			n++
		}
	}
	if n == 0 {
		t.Error("no generated file was found")
	}
}

// naked are the places that may start a goroutine by hand, and why somebody
// still waits for it.
var naked = map[string]string{}

func TestGoroutinesAreWaitedFor(t *testing.T) {
	used := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test || otherModule(f.path) {
			continue
		}
		function := ""
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				function = n.Name.Name
			case *ast.GoStmt:
				place := f.path + " " + function
				used[place] = true
				if naked[place] == "" {
					t.Errorf("%s: go statement in %s; use an errgroup or WaitGroup.Go, or name it in repo_test.go with its reason",
						f.fileSet.Position(n.Pos()), function)
				}
			}
			return true
		})
	}
	for place := range naked {
		if !used[place] {
			t.Errorf("%s starts no goroutine by hand any more", place)
		}
	}
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	codeSpan     = regexp.MustCompile("`([^`\n]+)`")
)

// TestLinksResolve follows every relative link of every page.
func TestLinksResolve(t *testing.T) {
	walk(t, func(name string, raw []byte) {
		if !strings.HasSuffix(name, ".md") {
			return
		}
		for _, m := range markdownLink.FindAllStringSubmatch(string(raw), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	})
}

// TestArchitectureNamesWhatExists checks the files and the identifiers of
// ARCHITECTURE.md: a span with a slash or a file ending is a path, package.Name
// is an exported identifier of some package of that name.
func TestArchitectureNamesWhatExists(t *testing.T) {
	raw, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("\n")); n >= 300 {
		t.Errorf("ARCHITECTURE.md has %d lines; it stays under 300", n)
	}
	declared := map[string]bool{}
	for _, f := range goFiles(t) {
		for _, d := range f.syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				declared[f.syntax.Name.Name+"."+d.Name.Name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						declared[f.syntax.Name.Name+"."+s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							declared[f.syntax.Name.Name+"."+n.Name] = true
						}
					}
				}
			}
		}
	}
	isPath := regexp.MustCompile(`^[a-z.][\w./-]*(/|\.(go|md|yaml|json|txt))$|^(cmd|internal|model|test|bench|docs|packaging|scripts)/[\w./-]+$`)
	isName := regexp.MustCompile(`^([a-z][a-z0-9]*)\.([A-Za-z]\w*)$`)
	checked := 0
	for _, m := range codeSpan.FindAllStringSubmatch(string(raw), -1) {
		span := m[1]
		switch {
		case isPath.MatchString(span):
			checked++
			if _, err := os.Stat(strings.TrimSuffix(span, "/")); err != nil {
				t.Errorf("ARCHITECTURE.md names %s, which is not there", span)
			}
		case isName.MatchString(span):
			checked++
			if !declared[span] {
				t.Errorf("ARCHITECTURE.md names %s, which nobody declares", span)
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d names were checked", checked)
	}
}

// TestBinaryPackages makes the growth of the binary visible in review.
func TestBinaryPackages(t *testing.T) {
	command := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/millrace")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(slices.Values(strings.Fields(string(out))))
	const list = "testdata/binary-packages.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(list, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(raw))
	for _, p := range got {
		if !slices.Contains(want, p) {
			t.Errorf("the binary contains %s, which %s does not list; go test -run BinaryPackages . -update", p, list)
		}
	}
	for _, p := range want {
		if !slices.Contains(got, p) {
			t.Errorf("%s lists %s, which the binary no longer contains", list, p)
		}
	}
}

// TestDependenciesAreExplained wants a line in docs/dependencies.md for every
// module outside the standard library that the code imports itself.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^\s*([a-z0-9.-]+\.[a-z]+/\S+) v`).FindAllStringSubmatch(string(mod), -1) {
		modules = append(modules, m[1])
	}
	direct := map[string]string{}
	for _, f := range goFiles(t) {
		if otherModule(f.path) {
			continue
		}
		for _, spec := range f.syntax.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			best := ""
			for _, m := range modules {
				if (name == m || strings.HasPrefix(name, m+"/")) && len(m) > len(best) {
					best = m
				}
			}
			if best != "" {
				direct[best] = f.path
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(direct)) {
		if !bytes.Contains(page, []byte("`"+m+"`")) {
			t.Errorf("%s (imported by %s) has no line in docs/dependencies.md", m, direct[m])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		if direct[m[1]] == "" {
			t.Errorf("docs/dependencies.md explains %s, which nothing imports", m[1])
		}
	}
}

// TestEveryFormatHasItsPage wants the index of byte formats to be complete.
func TestEveryFormatHasItsPage(t *testing.T) {
	index, err := os.ReadFile("docs/formats/README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/formats/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if name := filepath.Base(p); name != "README.md" && !bytes.Contains(index, []byte(fmt.Sprintf("(%s)", name))) {
			t.Errorf("docs/formats/README.md does not list %s", name)
		}
	}
}

// TestPromisesNameTestsThatExist checks the tables of docs/durability.md: a row
// begins with a test file and names tests that are in it.
func TestPromisesNameTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("docs/durability.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(string(page), -1) {
		spans := codeSpan.FindAllStringSubmatch(row[1], -1)
		raw, err := os.ReadFile(spans[0][1])
		if err != nil {
			t.Errorf("docs/durability.md: %v", err)
			continue
		}
		if len(spans) < 2 {
			t.Errorf("docs/durability.md names no test of %s", spans[0][1])
		}
		for _, span := range spans[1:] {
			named++
			if !bytes.Contains(raw, []byte("\nfunc "+span[1]+"(t *testing.T)")) {
				t.Errorf("docs/durability.md names %s, which is not in %s", span[1], spans[0][1])
			}
		}
	}
	for i, promise := range strings.Split(string(page), "\n### ")[1:] {
		if !strings.Contains(promise, "_test.go` `Test") {
			t.Errorf("docs/durability.md: promise %d has no test", i+1)
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named", named)
	}
}

// clientNames are the columns of docs/supported-operations.md, by how the names
// of test/conformance/proven*.txt begin.
var clientNames = []struct{ prefix, name string }{
	{"go/", "Go"},
	{"boto3/", "boto3"},
	{"cli/", "AWS CLI"},
	{"javascript/", "JavaScript"},
	{"java/sync-", "Java sync"},
	{"java/async-", "Java async"},
	{"raw/json-", "bare JSON"},
	{"raw/cbor-", "bare CBOR"},
}

// operationsTable lists the operations of a service and the clients that the
// conformance suite saw them served to, which stand in a file.
func operationsTable(t *testing.T, service *api.Service, file string) string {
	t.Helper()
	raw, err := os.ReadFile("test/conformance/" + file)
	if err != nil {
		t.Fatal(err)
	}
	proven := map[string][]string{}
	all := map[string]int{} // ways by client
	seen := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		name, list, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		proven[name] = strings.Fields(list)
		for _, way := range proven[name] {
			for _, c := range clientNames {
				if strings.HasPrefix(way, c.prefix) && !seen[way] {
					seen[way] = true
					all[c.prefix]++
				}
			}
		}
	}
	var b strings.Builder
	row := func(cells ...string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	head, rule := []string{"operation"}, []string{"---"}
	for _, c := range clientNames {
		if all[c.prefix] > 0 {
			head, rule = append(head, c.name), append(rule, "---")
		}
	}
	row(head...)
	row(rule...)
	for _, o := range service.Operations {
		if len(proven[o.Name]) == 0 {
			t.Errorf("%s of %s is served to no client of the conformance suite", o.Name, service.ID)
		}
		cells := []string{"`" + o.Name + "`"}
		for _, c := range clientNames {
			n := 0
			for _, way := range proven[o.Name] {
				if strings.HasPrefix(way, c.prefix) {
					n++
				}
			}
			switch {
			case all[c.prefix] == 0:
			case n == 0:
				cells = append(cells, "–")
			case n == all[c.prefix]:
				cells = append(cells, "yes")
			default:
				cells = append(cells, fmt.Sprintf("%d of %d", n, all[c.prefix]))
			}
		}
		row(cells...)
	}
	for name := range proven {
		if service.Operation(name) == nil {
			t.Errorf("%s has %s, which is no operation", file, name)
		}
	}
	return b.String()
}

// TestSupportedOperationsPageIsCurrent makes the page of the operations that
// the code has and the clients that the conformance suite saw them served to.
func TestSupportedOperationsPageIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString(supportedIntroduction)
	b.WriteString("## Data Streams\n\n" + operationsTable(t, kinesis.Service, "proven.txt"))
	b.WriteString("\n## Data Firehose\n\n" + operationsTable(t, firehose.Service, "proven-firehose.txt"))
	b.WriteString("\n## Kinesis Analytics, version 1\n\n" + operationsTable(t, kinesisanalytics.Service, "proven-analytics.txt"))
	b.WriteString("\n## Kinesis Analytics, version 2\n\n" + flinkOperations + operationsTable(t, kinesisanalyticsv2.Service, "proven-analytics-v2.txt"))
	b.WriteString("\n## Glue\n\n" + operationsTable(t, glue.Service, "proven-glue.txt"))
	b.WriteString("\n## CloudWatch Logs\n\n" + operationsTable(t, cloudwatchlogs.Service, "proven-logs.txt"))
	list := func(heading string, names []string) {
		fmt.Fprintf(&b, "\n## %s, %d operations\n\n", heading, len(names))
		for i, name := range names {
			names[i] = "`" + name + "`"
		}
		b.WriteString(strings.Join(names, ", ") + ".\n")
	}
	list("S3", objectOperations(t))
	var functions []string
	for _, o := range lambda.Service.Operations {
		functions = append(functions, o.Name)
	}
	list("Lambda", functions)
	for _, table := range []struct{ variable, heading string }{{"stsOperations", "STS"}, {"iamOperations", "IAM"}} {
		list(table.heading, keysOfTable(t, table.variable))
	}
	const page = "docs/supported-operations.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if old, err := os.ReadFile(page); err != nil || string(old) != b.String() {
		t.Errorf("%s is out of date (%v); go test -run SupportedOperations . -update", page, err)
	}
}

// objectOperations returns the names that internal/objects gives to operations
// that do something, in order.
func objectOperations(t *testing.T) []string {
	t.Helper()
	names := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.pkg != "internal/objects" || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || len(c.Args) != 3 {
				return true
			}
			if called, ok := c.Fun.(*ast.Ident); !ok || called.Name != "op" {
				return true
			}
			if how, ok := c.Args[2].(*ast.SelectorExpr); ok && slices.Contains([]string{"getUnset", "refuseDocument", "deleteUnset"}, how.Sel.Name) {
				return true // answered as what no bucket has
			}
			if name, ok := c.Args[0].(*ast.BasicLit); ok {
				text, err := strconv.Unquote(name.Value)
				if err != nil {
					t.Fatal(err)
				}
				names[text] = true
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(names))
}

const flinkOperations = `Applications are SQL-1_0. What is about presigned URLs, VPCs, snapshots, operations, versions, rollbacks and maintenance windows is for
Apache Flink, and answered as the service answers it for an SQL application: refused, with the error that the model names.

`

const supportedIntroduction = `# Supported operations

This page is generated from the code and from what the conformance suite saw: an operation is listed because a method serves
it, and a client has a *yes* because that client, unmodified, called it over each of its wires and was answered as the model
says. A dash means that the tested version of the client does not have the operation.

The clients are the AWS SDKs for Go v2 (HTTP/1.1; HTTP/2 over TLS), JavaScript v3 (HTTP/2 in clear text and over TLS) and
Java v2 (synchronous in CBOR and JSON; asynchronous over HTTP/2 in clear text and TLS), boto3 (clear text and TLS), the AWS CLI,
and requests made by hand. Their versions are pinned in ` + "`test/`" + `.

Services without a table have their tests in ` + "`test/conformance`" + ` too, or tests of their own, by
what is done with them rather than by operation: buckets with boto3, the AWS CLI and DuckDB, for example. What is not listed is
not served.

Where an operation differs from the service, [the README](../README.md#what-it-does-not-do) says so.

`

// keysOfTable returns the string keys of a map in internal/identity, in order.
func keysOfTable(t *testing.T, variable string) []string {
	t.Helper()
	var names []string
	for _, f := range goFiles(t) {
		if f.pkg != "internal/identity" || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || spec.Names[0].Name != variable {
				return true
			}
			for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
				name, err := strconv.Unquote(e.(*ast.KeyValueExpr).Key.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, name)
			}
			return false
		})
	}
	if len(names) == 0 {
		t.Errorf("internal/identity has no table %s", variable)
	}
	slices.Sort(names)
	return names
}
