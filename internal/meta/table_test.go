package meta_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

type lease struct {
	Owner   string `json:"owner"`
	Counter int    `json:"counter,omitempty"`
}

func TestTableRows(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	leases := meta.Table[lease]{Prefix: "leases", Format: 1}
	commit(t, s, leases.Insert(lease{Owner: "a"}, "app", "shard/1"), leases.Insert(lease{Owner: "b"}, "app", "shard/2"),
		leases.Put(lease{Owner: "c"}, "application", "x"), put("leases2/app", "x"))
	row, ok, err := leases.Get(s, "app", "shard/1")
	if err != nil || !ok || row.Value.Owner != "a" || row.Key != "leases/app/shard%2F1" {
		t.Fatalf("got %+v, %v, %v", row, ok, err)
	}
	if _, ok, err := leases.Get(s, "app", "shard", "1"); ok || err != nil {
		t.Errorf("a row of other parts: %v, %v", ok, err)
	}
	outdated := row
	row.Value.Counter = 7
	commit(t, s, leases.Update(row))
	var conflict *meta.ConflictError
	if _, err := s.Commit(t.Context(), leases.Update(outdated)); !errors.As(err, &conflict) {
		t.Errorf("outdated update: %v", err)
	}
	if _, err := s.Commit(t.Context(), leases.Delete(outdated)); !errors.As(err, &conflict) {
		t.Errorf("outdated deletion: %v", err)
	}
	if _, err := s.Commit(t.Context(), leases.Insert(lease{}, "app", "shard/1")); !errors.As(err, &conflict) {
		t.Errorf("second insert: %v", err)
	}
	rows, err := leases.List(s, "", 0, "app")
	if err != nil || len(rows) != 2 || rows[0].Value.Counter != 7 || rows[1].Value.Owner != "b" {
		t.Errorf("got %+v, %v", rows, err)
	}
	if rows, err := leases.List(s, rows[0].Key, 1); err != nil || len(rows) != 1 || rows[0].Value.Owner != "b" {
		t.Errorf("second page: %+v, %v", rows, err)
	}
	if rows, _ := leases.List(s, "", 0); len(rows) != 3 {
		t.Errorf("whole table: %+v", rows)
	}
	commit(t, s, leases.Delete(rows[1]))
	if _, ok, _ := leases.Get(s, "app", "shard/2"); ok {
		t.Error("still there")
	}
}

func TestTableFormats(t *testing.T) {
	old := meta.Table[lease]{Prefix: "leases", Format: 1}
	current := meta.Table[lease]{Prefix: "leases", Format: 2, Upgrade: func(format uint64, data []byte) (lease, error) {
		var before struct{ Name string }
		err := json.Unmarshal(data, &before)
		return lease{Owner: "was " + before.Name}, err
	}}
	for _, test := range []struct {
		name   string
		table  meta.Table[lease]
		stored string
		want   string
		newer  bool
	}{
		{"present format", old, "\x01{\"owner\":\"a\"}", "a", false},
		{"older format", current, "\x01{\"Name\":\"a\"}", "was a", false},
		{"older format, damaged", current, "\x01{\"Name\":", "corrupt", false},
		{"newer format", old, "\x02{\"owner\":\"a\"}", "newer version", true},
		{"format that never was", meta.Table[lease]{Prefix: "x", Format: 3}, "\x02{}", "corrupt", false},
		{"unknown field", old, "\x01{\"owner\":\"a\",\"other\":1}", "unknown field", false},
		{"no format", old, "", "corrupt", false},
		{"not JSON", old, "\x01nonsense", "corrupt", false},
		{"two values", old, "\x01{} {}", "corrupt", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.table.Decode("leases/k", []byte(test.stored))
			if err != nil {
				got.Owner = err.Error()
			}
			if !strings.Contains(got.Owner, test.want) || errors.Is(err, driver.ErrNewerVersion) != test.newer {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
