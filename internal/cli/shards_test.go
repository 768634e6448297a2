package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

var update = flag.Bool("update", false, "rewrite goldens")

// makeShard takes the key range in sixteenths of the space, upper end exclusive.
func makeShard(id string, from, to int64, closed bool, parents ...string) kinesis.Shard {
	const sixteenth = "21267647932558653966460912964485513216" // 2^124
	at := func(n int64, less int64) *string {
		v := hashKey(sixteenth)
		v.Mul(v, bigInt(n))
		v.Sub(v, bigInt(less))
		return api.Ptr(v.String())
	}
	s := kinesis.Shard{
		ShardId:             api.Ptr("shardId-00000000000" + id),
		HashKeyRange:        &kinesis.HashKeyRange{StartingHashKey: at(from, 0), EndingHashKey: at(to, 1)},
		SequenceNumberRange: &kinesis.SequenceNumberRange{StartingSequenceNumber: api.Ptr("1")},
	}
	if closed {
		s.SequenceNumberRange.EndingSequenceNumber = api.Ptr("2")
	}
	if len(parents) > 0 {
		s.ParentShardId = api.Ptr("shardId-00000000000" + parents[0])
	}
	if len(parents) > 1 {
		s.AdjacentParentShardId = api.Ptr("shardId-00000000000" + parents[1])
	}
	return s
}

func TestDrawShards(t *testing.T) {
	var b strings.Builder
	drawShards(&b, []kinesis.Shard{
		makeShard("0", 0, 8, true),
		makeShard("1", 8, 16, true),
		makeShard("2", 0, 4, false, "0"),
		makeShard("3", 4, 8, true, "0"),
		makeShard("4", 8, 15, true, "1"),
		makeShard("5", 15, 16, false, "1"),
		makeShard("6", 4, 15, false, "3", "4"),
	})
	path := filepath.Join("testdata", "shards.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("drawn:\n%s\nwant:\n%s", b.String(), want)
	}
}
