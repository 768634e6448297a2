package delivery

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Direct puts are stored as docs/formats/delivery.md says, also those of earlier
// releases, and what a newer one stored is told from damage.
func TestStoredDirectPuts(t *testing.T) {
	r := newRig(t, nil)
	d := &direct{log: r.log, ring: r.ring, shard: 17}
	plain := &directPut{shard: 17, records: [][]byte{[]byte("data"), {}}}
	dst := make([]byte, plain.size())
	plain.Encode(dst, 5, 6)
	if got := hex.EncodeToString(dst); got != "05106461746101"+"10" {
		t.Errorf("stored as %s", got)
	}
	id, err := r.ring.NewDataKey(t.Context(), keyring.Scope{Account: "a", Region: "r"}, "k", "c")
	if err != nil {
		t.Fatal(err)
	}
	key, err := d.sealing(id)
	if err != nil {
		t.Fatal(err)
	}
	sealed := &directPut{shard: 17, records: [][]byte{[]byte("one"), []byte("two")}, key: key}
	dst = make([]byte, sealed.size())
	sealed.Encode(dst, 5, 6)
	var stored [][]byte
	for rec, err := range shardlog.Records(driver.StoredBatch{Base: 5, Count: 2, At: 6, Payload: dst}) {
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, rec.Data)
	}
	if len(stored[0]) != 1+12+3+16 || stored[0][0] != 0x11 || binary.BigEndian.Uint64(stored[0][1:]) != key.ID || binary.BigEndian.Uint32(stored[0][9:]) != 1 {
		t.Errorf("%x", stored[0])
	}
	for i, want := range []string{"one", "two"} {
		if got, err := d.open(bytes.Clone(stored[i]), uint64(5+i), 6); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	// A record is bound to its place.
	if _, err := d.open(bytes.Clone(stored[0]), 6, 6); !errors.Is(err, keyring.ErrDamaged) {
		t.Errorf("a record in another's place: %v", err)
	}
	for name, c := range map[string]struct {
		stored []byte
		want   error
	}{
		"empty":          {nil, errDirect},
		"version 0":      {[]byte{0, 1}, errDirect},
		"unknown flag":   {[]byte{0x12, 1}, errDirect},
		"cut off":        {stored[0][:20], errDirect},
		"newer":          {[]byte{0x20}, driver.ErrNewerVersion},
		"changed":        {append(bytes.Clone(stored[0][:31]), stored[0][31]^1), keyring.ErrDamaged},
		"without a ring": {stored[1], nil},
	} {
		if c.want == nil {
			d := &direct{shard: 17}
			if _, err := d.open(bytes.Clone(c.stored), 6, 6); err == nil {
				t.Error("opened without a key")
			}
			continue
		}
		if _, err := d.open(bytes.Clone(c.stored), 5, 6); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// Rows as releases have stored them stay readable, and are written back without
// loss.
func TestStoredRowsStayReadable(t *testing.T) {
	stored := func(json string) []byte { return append(binary.AppendUvarint(nil, 1), json...) }
	const streamJSON = `{"log":16,"created":1777636800,"retention":86400000,"source":3,"paused":true}`
	if row, err := streamTable.Decode("k", stored(streamJSON)); err != nil || string(streamTable.Encode(row)[1:]) != streamJSON || !row.Paused {
		t.Errorf("%+v, %v", row, err)
	}
	const laneJSON = `{"low":7,"delivery":"AgM=","backup":"AQ==","partial":"CAEAAg==","end":true}`
	row, err := laneTable.Decode("k", stored(laneJSON))
	if err != nil || string(laneTable.Encode(row)[1:]) != laneJSON {
		t.Errorf("%+v, %v", row, err)
	}
	s, err := decodeSettled(row.Low, row.Delivery, row.Backup, row.Partial)
	if err != nil || !s.delivery.has(9) || !s.delivery.has(11) || s.delivery.has(8) || s.delivery.has(12) || s.backup.has(7) || !s.partial[8].has(1) || s.partial[8].has(2) {
		t.Errorf("%+v, %v", s, err)
	}
	const planJSON = `{"output":"backup","group":"g","version":2,"lane":"l","first":{"Index":3,"Sub":4},"lanes":{"l":[{"Index":3,"Sub":4},{"Index":5,"Sub":0}]}}`
	if row, err := planTable.Decode("k", stored(planJSON)); err != nil || string(planTable.Encode(row)[1:]) != planJSON {
		t.Errorf("%s, %v", planTable.Encode(row)[1:], err)
	}
	entry := LedgerEntry{Sequence: 1, At: time.Unix(1777636800, 0).UTC(), Output: "delivery", Outcome: Delivered, Objects: []string{"o"}, BatchID: "b", Version: 1, Lane: "l", Records: 2, Bytes: 3, Attempts: 1, Took: time.Second}
	const ledgerJSON = `{"sequence":1,"at":"2026-05-01T12:00:00Z","output":"delivery","outcome":"delivered","objects":["o"],"batchId":"b","version":1,"lane":"l","records":2,"bytes":3,"attempts":1,"took":1000000000}`
	if got := string(ledgerTable.Encode(entry)[1:]); got != ledgerJSON {
		t.Errorf("written as %s", got)
	}
	if _, err := laneTable.Decode("k", append([]byte{2}, "{}"...)); !errors.Is(err, driver.ErrNewerVersion) {
		t.Errorf("a newer row: %v", err)
	}
	if got := batchID("d", 16, "", "l", "l", record.Position{Index: 1}, 1); got != batchID("d", 16, "", "l", "l", record.Position{Index: 1}, 1) || len(got) != 32 {
		t.Errorf("%s", got)
	} else if got != goldenBatchID {
		t.Errorf("batch ids are %s now: objects of a replay would have other names after an upgrade", got)
	}
}

const goldenBatchID = "236d1b342199e932db7995f852d70fbd"
