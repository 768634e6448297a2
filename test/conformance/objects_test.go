package conformance

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/test/harness"
)

// objectsEnvironment is what the clients of buckets run in.
func objectsEnvironment(secure bool, more ...string) []string {
	env := append(os.Environ(), environment("us-east-1", secure)...)
	return append(env, more...)
}

func succeeds(t *testing.T, env []string, name string, arguments ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, arguments...)
	c.Env = env
	c.Dir = t.TempDir()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

// Objects through boto3: transfer manager, checksums, pages, conditions,
// presigned addresses; in clear text with buckets in the path and in the host,
// and over TLS.
func TestObjectsBoto3(t *testing.T) {
	install(t, "python")
	for name, c := range map[string]struct {
		secure bool
		style  string
	}{"path": {false, "path"}, "tls": {true, "path"}} {
		t.Run(name, func(t *testing.T) {
			succeeds(t, objectsEnvironment(c.secure, "BUCKET=boto3-"+name, "STYLE="+c.style), inCache("python", "bin", "python"), inClients("python", "objects.py"))
		})
	}
	t.Run("host", func(t *testing.T) {
		env := objectsEnvironment(false, "BUCKET=boto3-host", "STYLE=virtual")
		for i, v := range env {
			// A name that every label before it resolves to this machine.
			if strings.HasPrefix(v, "ENDPOINT=") {
				env[i] = strings.Replace(v, "127.0.0.1", "localhost", 1)
			}
		}
		if !resolves("boto3-host.localhost") {
			t.Skip("names below localhost do not resolve here")
		}
		succeeds(t, env, inCache("python", "bin", "python"), inClients("python", "objects.py"))
	})
}

func resolves(host string) bool {
	out, err := exec.Command("getent", "hosts", host).Output()
	return err == nil && len(out) > 0
}

// Objects through the commands of the AWS CLI.
func TestObjectsCLI(t *testing.T) {
	install(t, "python")
	dir := t.TempDir()
	for name, size := range map[string]int{"tree/a/1": 10, "tree/a/ü + 2": 100_000, "tree/b/large": 20 << 20, "tree/empty": 0} {
		b := make([]byte, size)
		rand.Read(b)
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := objectsEnvironment(false, "AWS_ENDPOINT_URL="+server.URL(false), "LC_ALL=C.UTF-8", "PYTHONUTF8=1")
	aws := func(arguments ...string) string {
		t.Helper()
		return succeeds(t, env, inCache("python", "bin", "aws"), arguments...)
	}
	aws("s3", "mb", "s3://cli-bucket")
	aws("s3", "cp", filepath.Join(dir, "tree/b/large"), "s3://cli-bucket/one/large", "--no-progress")
	aws("s3", "sync", filepath.Join(dir, "tree"), "s3://cli-bucket/tree", "--no-progress")
	if out := aws("s3", "sync", filepath.Join(dir, "tree"), "s3://cli-bucket/tree", "--no-progress"); strings.Contains(out, "upload:") {
		t.Errorf("a second sync uploads again:\n%s", out)
	}
	if out := aws("s3", "ls", "s3://cli-bucket/tree/"); strings.Count(out, "PRE ") != 2 || !strings.Contains(out, "empty") {
		t.Errorf("the list:\n%s", out)
	}
	aws("s3", "cp", "s3://cli-bucket/one/large", "s3://cli-bucket/two/large", "--no-progress")
	aws("s3", "mv", "s3://cli-bucket/two/large", "s3://cli-bucket/three", "--no-progress")
	back := filepath.Join(dir, "back")
	aws("s3", "sync", "s3://cli-bucket/tree", back, "--no-progress")
	aws("s3", "cp", "s3://cli-bucket/three", filepath.Join(back, "b", "three"), "--no-progress")
	for _, pair := range [][2]string{{"tree/a/1", "a/1"}, {"tree/a/ü + 2", "a/ü + 2"}, {"tree/b/large", "b/large"}, {"tree/b/large", "b/three"}, {"tree/empty", "empty"}} {
		a, err := os.ReadFile(filepath.Join(dir, pair[0]))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(back, pair[1]))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s came back as %d bytes: %v", pair[0], len(b), err)
		}
	}
	aws("s3", "rm", "s3://cli-bucket", "--recursive", "--quiet")
	if out := aws("s3", "ls", "s3://cli-bucket", "--recursive"); strings.TrimSpace(out) != "" {
		t.Errorf("after rm there is\n%s", out)
	}
	aws("s3", "rb", "s3://cli-bucket")
}

// Parquet through DuckDB: an upload in parts, ranges, globs and partitions.
func TestObjectsDuckDB(t *testing.T) {
	install(t, "python")
	install(t, "objects")
	env := objectsEnvironment(false, "AWS_ENDPOINT_URL="+server.URL(false), "BUCKET=duck-bucket")
	aws := inCache("python", "bin", "aws")
	succeeds(t, env, aws, "s3", "mb", "s3://duck-bucket")
	succeeds(t, env, inCache("objects", "bin", "python"), inClients("python", "duck.py"))
	succeeds(t, env, aws, "s3", "rb", "s3://duck-bucket", "--force")
}

// The server's own way out: what is stored can be verified while nobody serves it.
func TestObjectsAreVerified(t *testing.T) {
	install(t, "python")
	dir := t.TempDir()
	s, err := harness.Start(t.Context(), harness.Options{Data: filepath.Join(dir, "data"), Keys: true})
	if err != nil {
		t.Fatal(err)
	}
	env := objectsEnvironment(false, "AWS_ENDPOINT_URL="+s.URL(false))
	aws := inCache("python", "bin", "aws")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	succeeds(t, env, aws, "s3", "mb", "s3://checked")
	succeeds(t, env, aws, "s3", "cp", file, "s3://checked/file", "--no-progress")
	if code, err := s.Stop(t.Context()); err != nil || code != 0 {
		t.Fatalf("stop: %d, %v", code, err)
	}
	out, stderr, code, err := harness.Run(t.Context(), "verify", "--data", filepath.Join(dir, "data"))
	if err != nil || code != 0 || !strings.Contains(out, "objects/bucket checked  12582912 bytes, 1 entries") {
		t.Errorf("verify: %d, %v\n%s%s", code, err, out, stderr)
	}
}
