package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/test/harness"
)

// TestFormats makes a table with boto3, converts records by it to Parquet and ORC,
// and has pyarrow and DuckDB read the objects and compare every value with the
// record it came from.
func TestFormats(t *testing.T) {
	install(t, "python")
	install(t, "formats")
	s := started(t, harness.Options{})
	dir := t.TempDir()
	env := append(os.Environ(),
		"AWS_ACCESS_KEY_ID="+harness.AccessKey, "AWS_SECRET_ACCESS_KEY="+harness.SecretKey, "AWS_DEFAULT_REGION="+harness.Region,
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "AWS_EC2_METADATA_DISABLED=true",
		"ENDPOINT="+s.URL(false), "ACCOUNT="+harness.Account)
	succeeds(t, env, inCache("python", "bin", "python"), inClients("python", "formats.py"), dir)
	reader := filepath.Join(harness.Root(), "internal", "firehose", "convert", "testdata", "read.py")
	for _, format := range []string{"parquet", "orc"} {
		t.Log(succeeds(t, os.Environ(), inCache("formats", "bin", "python"), reader,
			filepath.Join(dir, "converted."+format), filepath.Join(dir, "records.json"), filepath.Join(dir, "schema.json")))
	}
}
