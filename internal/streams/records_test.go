package streams

import (
	"encoding/binary"
	"testing"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// Records as releases have stored them stay readable, and are written back
// without loss.
func TestStoredRecordsStayReadable(t *testing.T) {
	stored := func(json string) []byte { return append(binary.AppendUvarint(nil, 1), json...) }
	const streamJSON = `{"id":16,"createdAt":1777636800250,"status":"UPDATING","mode":"PROVISIONED","retentionHours":24,"maxRecordKiB":1024,` +
		`"monitoring":["IncomingBytes"],"keyId":"alias/a","dataKey":"1","initial":2,"created":1777636800,"nextShard":3,` +
		`"pending":{"kind":"scale","due":1777636801000,"target":4,"from":2,"nextLog":20,"endLog":24},"scalings":[1777636801000]}`
	st, err := streamTable.Decode("k", stored(streamJSON))
	if err != nil {
		t.Fatal(err)
	}
	if st.ID != 16 || st.Status != kinesis.StreamStatusUpdating || st.Pending.NextLog != 20 || st.KeyID != "alias/a" {
		t.Errorf("%+v", st)
	}
	if got := string(streamTable.Encode(st)[1:]); got != streamJSON {
		t.Errorf("written back:\n%s\n%s", got, streamJSON)
	}
	const shardJSON = `{"log":21,"start":"0","end":"170141183460469231731687303715884105727","parent":0,"adjacent":1,"created":1777636802,` +
		`"opened":1777636801000,"closed":1777636803000,"children":[{"index":4,"start":"0","end":"9","parents":[3]}]}`
	record, err := shardTable.Decode("k", stored(shardJSON))
	if err != nil {
		t.Fatal(err)
	}
	sh, err := record.shard(16, 3)
	if err != nil {
		t.Fatal(err)
	}
	if sh.end != before(uniformStart(1, 2)) || sh.adjacent != 1 || len(sh.children) != 1 {
		t.Errorf("%+v", sh)
	}
	if got := string(shardTable.Encode(sh.toRecord())[1:]); got != shardJSON {
		t.Errorf("written back:\n%s\n%s", got, shardJSON)
	}
	for name, bad := range map[string]string{
		"hash key": `{"start":"x","end":"9"}`, "child": `{"start":"0","end":"9","children":[{"start":"","end":"1"}]}`,
	} {
		if record, err := shardTable.Decode("k", stored(bad)); err == nil {
			if _, err := record.shard(1, 1); err == nil {
				t.Errorf("a shard with a bad %s was read", name)
			}
		}
	}
}

// A record that cannot be read stops the start and names itself.
func TestUnreadableRecordStopsTheStart(t *testing.T) {
	for _, key := range []string{"streams.stream/a/b/c", "streams.shard/0000000000000001/00000001", "streams.stream/a", "streams.consumer/a/b/c/d"} {
		r := newRig(t, nil)
		if _, err := r.commit(t.Context(), meta.Op{Key: key, Value: []byte{1, '{'}}); err != nil {
			t.Fatal(err)
		}
		o := r.opts
		o.Meta = r.meta
		if s, err := New(o); err == nil {
			t.Errorf("started with a bad %s", key)
			_ = s.Close()
		}
	}
}
