package server_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

// makeDirectory writes testdata/format-1.zip anew. A directory that a release has
// written is never made again: the test is there to open that very one.
var makeDirectory = flag.Bool("make-data-directory", false, "write the stored data directory and what it holds")

const (
	storedDirectory = "testdata/format-1.zip"    // files of a data directory
	storedContent   = "testdata/format-1.golden" // what clients can read of it
)

// storedTime is when the stored directory was written, and what the clock of a
// server that opens it says: records expire.
var storedTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func storedOptions(dir, seed string, segmentBytes int) testkit.Options {
	return testkit.Options{
		Files: vfs.OS(dir),
		Now:   func() time.Time { return storedTime },
		Configure: func(c *config.Config) {
			c.Auth, c.Seed, c.ClockWindow = "keys", seed, 250*365*24*time.Hour
			c.LowWatermark = 0
			if segmentBytes > 0 {
				c.WALSegmentBytes = config.Bytes(segmentBytes)
			}
		},
	}
}

// storedClient calls as the user whose key is in the stored directory.
func storedClient(s *testkit.Server) *testkit.Client {
	c := s.Client(testkit.Forms[0])
	c.Credentials = sigv4.Credentials{AccessKey: "AKIASTOREDSTORED0000", SecretKey: "stored secret"}
	return c
}

func call(t *testing.T, c *testkit.Client, op *api.Operation, in, out api.Shape) {
	t.Helper()
	if err := c.Call(t.Context(), op, in, out); err != nil {
		t.Fatalf("%s: %v", op.Name, err)
	}
}

// storedPayload is the data of one record: of every size, and hard to compress
// away by mistake.
func storedPayload(n, size int) []byte {
	var b []byte
	for i := 0; len(b) < size; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "record %d block %d", n, i))
		b = append(b, sum[:]...)
	}
	return b[:size]
}

// fillStored makes the content of the stored directory.
func fillStored(t *testing.T, c *testkit.Client) {
	t.Helper()
	puts := func(stream string, from, n, size int) {
		in := &kinesis.PutRecordsInput{StreamName: &stream}
		for i := from; i < from+n; i++ {
			in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: storedPayload(i, size*(i%3)), PartitionKey: api.Ptr(fmt.Sprintf("key %d ü", i))})
		}
		call(t, c, kinesis.OpPutRecords, in, nil)
	}
	create(t, c, "plain", 2)
	create(t, c, "secret", 1)
	create(t, c, "large", 3)
	create(t, c, "gone", 1)
	puts("gone", 0, 3, 100)
	call(t, c, kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: api.Ptr("gone")}, nil)
	puts("plain", 0, 20, 50)
	call(t, c, kinesis.OpSplitShard, &kinesis.SplitShardInput{StreamName: api.Ptr("plain"), ShardToSplit: api.Ptr("shardId-000000000000"), NewStartingHashKey: api.Ptr("85070591730234615865843651857942052864")}, nil)
	puts("plain", 20, 20, 50)
	call(t, c, kinesis.OpIncreaseStreamRetentionPeriod, &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: api.Ptr("plain"), RetentionPeriodHours: api.Ptr(int32(168))}, nil)
	call(t, c, kinesis.OpAddTagsToStream, &kinesis.AddTagsToStreamInput{StreamName: api.Ptr("plain"), Tags: map[string]string{"team": "shop", "ü": ""}}, nil)
	summary := new(kinesis.DescribeStreamSummaryOutput)
	call(t, c, kinesis.OpDescribeStreamSummary, &kinesis.DescribeStreamSummaryInput{StreamName: api.Ptr("plain")}, summary)
	call(t, c, kinesis.OpRegisterStreamConsumer, &kinesis.RegisterStreamConsumerInput{StreamARN: summary.StreamDescriptionSummary.StreamARN, ConsumerName: api.Ptr("reader")}, nil)
	puts("secret", 0, 5, 30)
	call(t, c, kinesis.OpStartStreamEncryption, &kinesis.StartStreamEncryptionInput{StreamName: api.Ptr("secret"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: api.Ptr("alias/aws/kinesis")}, nil)
	puts("secret", 5, 10, 30)
	for i := range 10 { // enough for sealed files
		puts("large", 10*i, 10, 2000)
	}
}

// storedDump writes what clients can read.
func storedDump(t *testing.T, c *testkit.Client) string {
	t.Helper()
	var b strings.Builder
	list := new(kinesis.ListStreamsOutput)
	call(t, c, kinesis.OpListStreams, &kinesis.ListStreamsInput{}, list)
	for _, name := range list.StreamNames {
		out := new(kinesis.DescribeStreamSummaryOutput)
		call(t, c, kinesis.OpDescribeStreamSummary, &kinesis.DescribeStreamSummaryInput{StreamName: &name}, out)
		s := out.StreamDescriptionSummary
		fmt.Fprintf(&b, "stream %s %s %s, retention %d h, encryption %s %s, created %s\n", name, api.Val(s.StreamARN), api.Val(s.StreamStatus),
			api.Val(s.RetentionPeriodHours), api.Val(s.EncryptionType), api.Val(s.KeyId), s.StreamCreationTimestamp.UTC().Format(time.RFC3339))
		tags := new(kinesis.ListTagsForStreamOutput)
		call(t, c, kinesis.OpListTagsForStream, &kinesis.ListTagsForStreamInput{StreamName: &name}, tags)
		for _, tag := range tags.Tags {
			fmt.Fprintf(&b, "  tag %q=%q\n", api.Val(tag.Key), api.Val(tag.Value))
		}
		consumers := new(kinesis.ListStreamConsumersOutput)
		call(t, c, kinesis.OpListStreamConsumers, &kinesis.ListStreamConsumersInput{StreamARN: s.StreamARN}, consumers)
		for _, consumer := range consumers.Consumers {
			fmt.Fprintf(&b, "  consumer %s %s\n", api.Val(consumer.ConsumerARN), api.Val(consumer.ConsumerStatus))
		}
		shards := new(kinesis.ListShardsOutput)
		call(t, c, kinesis.OpListShards, &kinesis.ListShardsInput{StreamName: &name}, shards)
		for _, shard := range shards.Shards {
			fmt.Fprintf(&b, "  %s of %q, hash keys %s to %s, from %s to %q\n", api.Val(shard.ShardId), api.Val(shard.ParentShardId),
				api.Val(shard.HashKeyRange.StartingHashKey), api.Val(shard.HashKeyRange.EndingHashKey),
				api.Val(shard.SequenceNumberRange.StartingSequenceNumber), api.Val(shard.SequenceNumberRange.EndingSequenceNumber))
			iterator := new(kinesis.GetShardIteratorOutput)
			call(t, c, kinesis.OpGetShardIterator, &kinesis.GetShardIteratorInput{StreamName: &name, ShardId: shard.ShardId, ShardIteratorType: api.Ptr(kinesis.ShardIteratorTypeTrimHorizon)}, iterator)
			for at := iterator.ShardIterator; at != nil; {
				page := new(kinesis.GetRecordsOutput)
				call(t, c, kinesis.OpGetRecords, &kinesis.GetRecordsInput{ShardIterator: at}, page)
				for _, r := range page.Records {
					fmt.Fprintf(&b, "    %s %q %d bytes %x\n", api.Val(r.SequenceNumber), api.Val(r.PartitionKey), len(r.Data), sha256.Sum256(r.Data))
				}
				if at = page.NextShardIterator; len(page.Records) == 0 {
					break
				}
			}
		}
	}
	return b.String()
}

// snapshotStored has the metadata of a directory write a snapshot, which a server
// does after more changes than a small directory should hold.
func snapshotStored(t *testing.T, dir string) {
	t.Helper()
	engine, err := local.Open(t.Context(), vfs.OS(dir), local.Options{SegmentBytes: 64 << 10, SegmentCount: 3})
	if err != nil {
		t.Fatal(err)
	}
	log := shardlog.New(engine, shardlog.Options{})
	defer log.Close()
	store, err := meta.Open(t.Context(), log, vfs.Sub(vfs.OS(dir), "meta"), meta.Options{SnapshotBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, remove := range []bool{false, true} {
		if _, err := store.Commit(t.Context(), meta.Op{Key: "stored/made", Value: []byte("x"), Delete: remove}); err != nil {
			t.Fatal(err)
		}
	}
}

// writeStored makes the stored directory.
func writeStored(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	seed := filepath.Join(t.TempDir(), "seed.yaml")
	if err := os.WriteFile(seed, []byte(`
users:
  - name: stored
    keys: [{id: AKIASTOREDSTORED0000, secret: stored secret}]
    policies: [{name: all, document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "kinesis:*", Resource: "*"}]}}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testkit.Start(t, storedOptions(dir, seed, 64<<10))
	fillStored(t, storedClient(s))
	content := storedDump(t, storedClient(s))
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	snapshotStored(t, dir)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if err := z.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{storedDirectory: b.Bytes(), storedContent: []byte(content)} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unpackStored makes a copy of the stored directory.
func unpackStored(t *testing.T) string {
	t.Helper()
	z, err := zip.OpenReader(storedDirectory)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	if err := os.CopyFS(dir, z); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The first format opens with today's code, with log segments of its size and of
// another, is read back exactly, and can be written.
func TestTheFirstFormatOpens(t *testing.T) {
	if *makeDirectory {
		writeStored(t)
	}
	want, err := os.ReadFile(storedContent)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"MANIFEST", "master.key", "wal/*", "seg/*/*", "meta/*"} {
		if found, err := filepath.Glob(filepath.Join(unpackStored(t), kind)); err != nil || len(found) == 0 {
			t.Errorf("the stored directory has no %s", kind)
		}
	}
	for _, segmentBytes := range []int{64 << 10, 0} {
		t.Run(fmt.Sprintf("segments of %d bytes", segmentBytes), func(t *testing.T) {
			dir := unpackStored(t)
			if err := server.VerifyDirectory(t.Context(), dir, io.Discard); err != nil {
				t.Fatalf("verify: %v", err)
			}
			for range 2 { // the second time as today's code left it
				s := testkit.Start(t, storedOptions(dir, "", segmentBytes))
				c := storedClient(s)
				if got := storedDump(t, c); got != string(want) {
					t.Errorf("what is read differs from %s at %q", storedContent, difference(got, string(want)))
				}
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			s := testkit.Start(t, storedOptions(dir, "", segmentBytes))
			c := storedClient(s)
			put(t, c, "secret", "new")
			if got := read(t, c, "secret"); len(got) != 16 || got[15] != "new" {
				t.Errorf("secret has %d records after a put, want 16", len(got))
			}
		})
	}
}

// difference is the first line of got that is not in want.
func difference(got, want string) string {
	lines := strings.Split(want, "\n")
	for _, line := range strings.Split(got, "\n") {
		if !slices.Contains(lines, line) {
			return line
		}
	}
	return "a missing line"
}

// A directory one version ahead is refused in one line that says so, whichever
// file is ahead.
func TestANewerFormatIsRefused(t *testing.T) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	le := binary.LittleEndian
	ahead := map[string]func(b []byte){
		"MANIFEST": func(b []byte) {
			le.PutUint32(b[8:], 2)
			le.PutUint32(b[24:], crc32.Update(crc32.Checksum(b[:24], castagnoli), castagnoli, b[28:]))
		},
		"wal/*": func(b []byte) {
			for _, h := range [][]byte{b, b[2048:]} {
				le.PutUint32(h[8:], 2)
				le.PutUint32(h[40:], crc32.Checksum(h[:40], castagnoli))
			}
		},
		"meta/*": func(b []byte) {
			le.PutUint32(b[8:], 2)
			le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
		},
		"seg/*/*": func(b []byte) {
			le.PutUint32(b[8:], 2)
			le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
		},
	}
	for kind, change := range ahead {
		for _, repair := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, repair=%v", kind, repair), func(t *testing.T) {
				dir := unpackStored(t)
				names, err := filepath.Glob(filepath.Join(dir, kind))
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range names {
					b, err := os.ReadFile(name)
					if errors.Is(err, fs.ErrNotExist) || len(b) < 64 {
						continue
					}
					change(b)
					if err := os.WriteFile(name, b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				o := storedOptions(dir, "", 64<<10)
				configure := o.Configure
				o.Configure = func(c *config.Config) { configure(c); c.Repair = repair }
				s, err := testkit.Open(t.Context(), o)
				if err == nil {
					s.Stop()
				}
				if err == nil || !strings.Contains(err.Error(), "was written by a newer version of millrace") || strings.Contains(err.Error(), "\n") {
					t.Errorf("start: %v", err)
				}
			})
		}
	}
}
