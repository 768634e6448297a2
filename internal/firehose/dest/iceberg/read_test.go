package iceberg

import (
	"encoding/json"
	"testing"

	"github.com/apache/iceberg-go/table"
)

// read returns the rows of a table as the library sees them, as JSON objects.
func read(t *testing.T, d *Destination, id table.Identifier) []map[string]any {
	t.Helper()
	tab, err := d.catalog.LoadTable(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	_, batches, err := tab.Scan().ToArrowRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	for b, err := range batches {
		if err != nil {
			t.Fatal(err)
		}
		text, err := b.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var part []map[string]any
		if err := json.Unmarshal(text, &part); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, part...)
		b.Release()
	}
	return rows
}
