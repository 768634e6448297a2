package firehose

import (
	"os"
	"strings"
	"testing"
)

// The file in docs/destinations.md is one that a server takes.
func TestDocumentedDestinationsAreTaken(t *testing.T) {
	text, err := os.ReadFile("../../docs/destinations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```yaml\n")
	file, _, end := strings.Cut(rest, "\n```")
	if !ok || !end {
		t.Fatal("no file in the page")
	}
	o, err := ParseOperator([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if len(o.destinations) != 6 || len(o.endpoints) != 2 || len(o.topics) != 1 {
		t.Errorf("%d destinations, %d endpoints, %d topics", len(o.destinations), len(o.endpoints), len(o.topics))
	}
}
