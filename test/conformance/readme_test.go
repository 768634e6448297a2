package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/test/harness"
)

var shellBlocks = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestReadmeFromRecordsToParquet runs the commands of the README's way to a
// Parquet file as they stand, but for the server's address and for where its
// binary comes from, and looks at what DuckDB prints in the end.
func TestReadmeFromRecordsToParquet(t *testing.T) {
	install(t, "python")
	install(t, "formats")
	raw, err := os.ReadFile(filepath.Join(harness.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## Five minutes to a Parquet file\n")
	if !ok {
		t.Fatal("the README has no such section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	dir := t.TempDir()
	s := started(t, harness.Options{Data: filepath.Join(dir, "data"), Args: []string{"--region", "us-east-1"}})
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	blocks := shellBlocks.FindAllStringSubmatch(section, -1)
	for _, b := range blocks {
		script.WriteString(b[1])
	}
	if len(blocks) < 5 {
		t.Fatalf("only %d blocks of commands", len(blocks))
	}
	text := strings.NewReplacer("127.0.0.1:4567", s.Address, "go run ./cmd/millrace", binary).Replace(script.String())
	c := exec.CommandContext(t.Context(), "bash", "-e", "-u", "-c", text)
	c.Dir = dir
	c.Env = append(os.Environ(), "PATH="+inCache("formats", "bin")+":"+inCache("python", "bin")+":"+os.Getenv("PATH"),
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "LC_ALL=C.UTF-8", "PYTHONUTF8=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nof\n%s", err, out, text)
	}
	for _, want := range []string{"10000 records put to quotes", "delivered", "s3://lake/quotes/day=20", "TECHNOLOGY", " up ", " down "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output has no %q:\n%s", want, out)
		}
	}
}
