package reliability

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/millrace/millrace/test/harness"
)

// torture asks for the long forms.
var torture = os.Getenv("TORTURE") != ""

func period(short, long time.Duration) time.Duration {
	if torture {
		return long
	}
	return short
}

func newClient(t *testing.T, s *harness.Server) *kinesis.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return kinesis.New(kinesis.Options{
		Region:       harness.Region,
		BaseEndpoint: aws.String(s.URL(false)),
		Credentials:  credentials.NewStaticCredentialsProvider("key", "secret", ""),
		Retryer:      aws.NopRetryer{},
		HTTPClient:   &http.Client{Transport: transport, Timeout: 30 * time.Second},
	})
}

func start(t *testing.T, o harness.Options) *harness.Server {
	t.Helper()
	s, err := harness.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func create(t *testing.T, client *kinesis.Client, stream string, shards int32) {
	t.Helper()
	if _, err := client.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &stream, ShardCount: &shards}); err != nil && !answered(err) {
		t.Fatal(err)
	}
	settle(t, client, stream)
}

func settle(t *testing.T, client *kinesis.Client, stream string) {
	t.Helper()
	if err := kinesis.NewStreamExistsWaiter(client, func(o *kinesis.StreamExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 50*time.Millisecond
		o.ClientOptions = append(o.ClientOptions, reading)
	}).Wait(t.Context(), &kinesis.DescribeStreamInput{StreamName: &stream}, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// TestAcknowledgedRecordsSurviveKill kills the server at random moments under
// concurrent writers and compares every shard with the ledger after each
// restart.
func TestAcknowledgedRecordsSurviveKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	data := filepath.Join(t.TempDir(), "data")
	// Small segments make every round pass through sealing and recycling.
	options := harness.Options{Data: data, Args: []string{"--wal-segment-bytes", "4MiB", "--wal-segments", "4"}}
	l := newLedger()
	const stream = "ledger"
	end := time.Now().Add(period(20*time.Second, 20*time.Minute))
	rounds := 0
	for ; rounds < 2 || time.Now().Before(end); rounds++ {
		s, err := harness.Start(t.Context(), options)
		if err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		client := newClient(t, s)
		if rounds == 0 {
			create(t, client, stream, 7)
		}
		shards, err := read(t.Context(), client, stream)
		if err == nil {
			err = l.audit(shards)
		}
		if err != nil {
			s.Kill()
			t.Fatalf("after %d kills: %v\n%s", rounds, err, s.Output())
		}
		var writers sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for w := range 6 {
			writers.Go(func() { _ = l.write(ctx, client, stream, 1+w*17) })
		}
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		s.Kill()
		cancel()
		writers.Wait()
	}
	s := start(t, options)
	shards, err := read(t.Context(), newClient(t, s), stream)
	if err == nil {
		err = l.audit(shards)
	}
	if err != nil {
		t.Fatal(err)
	}
	if l.count() == 0 {
		t.Fatal("nothing was ever acknowledged")
	}
	t.Logf("%d kills, %d acknowledged records, all there once and in order", rounds, l.count())
}

// TestReshardingSurvivesKill kills the server while shards split and merge.
// Afterwards open shards tile the hash space, the stream settles, and nothing
// acknowledged is lost.
func TestReshardingSurvivesKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	options := harness.Options{Data: data, Args: []string{"--state-delay", "100ms"}}
	l := newLedger()
	const stream = "resharded"
	rounds := 4
	if torture {
		rounds = 200
	}
	for round := range rounds {
		s, err := harness.Start(t.Context(), options)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		client := newClient(t, s)
		if round == 0 {
			create(t, client, stream, 3)
		}
		settle(t, client, stream)
		if err := tiles(t.Context(), client, stream); err != nil {
			s.Kill()
			t.Fatalf("round %d: %v", round, err)
		}
		var writers sync.WaitGroup
		for range 3 {
			writers.Go(func() { _ = l.write(t.Context(), client, stream, 20) })
		}
		target := []int32{5, 3}[round%2]
		if _, err := client.UpdateShardCount(t.Context(), &kinesis.UpdateShardCountInput{
			StreamName: aws.String(stream), TargetShardCount: &target, ScalingType: types.ScalingTypeUniformScaling}); err != nil && !answered(err) {
			s.Kill()
			writers.Wait()
			t.Fatalf("round %d: %v", round, err)
		}
		time.Sleep(time.Duration(30+40*round%300) * time.Millisecond)
		s.Kill()
		writers.Wait()
	}
	s := start(t, options)
	client := newClient(t, s)
	settle(t, client, stream)
	if err := tiles(t.Context(), client, stream); err != nil {
		t.Fatal(err)
	}
	shards, err := read(t.Context(), client, stream)
	if err == nil {
		err = l.audit(shards)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d acknowledged records in %d shards", l.count(), len(shards))
}

// tiles checks that open shards cover the hash space without hole or overlap.
func tiles(ctx context.Context, client *kinesis.Client, stream string) error {
	out, err := client.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &stream, ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}}, reading)
	if err != nil {
		return err
	}
	starts, ends := map[string]int{}, map[string]int{}
	for _, s := range out.Shards {
		starts[*s.HashKeyRange.StartingHashKey]++
		ends[successor(*s.HashKeyRange.EndingHashKey)]++
	}
	if starts["0"] != 1 || ends["340282366920938463463374607431768211456"] != 1 {
		return fmt.Errorf("open shards do not reach both ends: %v %v", starts, ends)
	}
	for s, n := range starts {
		if n != 1 || (s != "0" && ends[s] != 1) {
			return fmt.Errorf("open shards leave a hole or overlap at %s", s)
		}
	}
	return nil
}

// successor adds one to a decimal number.
func successor(n string) string {
	b := []byte(n)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != '9' {
			b[i]++
			return string(b)
		}
		b[i] = '0'
	}
	return "1" + string(b)
}

// logInput is an operation of the history that porcupine judges: a put, or a
// read of everything from the trim horizon.
type logInput struct {
	put    bool
	number uint64
}

// TestPutsAndReadsAreLinearizable records a history of concurrent puts and
// whole reads of one shard, kills the server in the middle, and asks whether
// one order of events explains all of it.
func TestPutsAndReadsAreLinearizable(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	const stream = "history"
	api, err := harness.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := harness.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s, err := harness.StartAt(t.Context(), api, admin, harness.Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Kill() }()
	client := newClient(t, s)
	create(t, client, stream, 1)

	var mu sync.Mutex
	var history []porcupine.Operation
	origin := time.Now()
	note := func(id int, in logInput, out []uint64, call, ret int64) {
		mu.Lock()
		defer mu.Unlock()
		history = append(history, porcupine.Operation{ClientId: id, Input: in, Output: out, Call: call, Return: ret})
	}
	var workers sync.WaitGroup
	half := period(800*time.Millisecond, 5*time.Second)
	const never = int64(1) << 62
	work := func(id int, until time.Time) {
		for i := uint64(0); time.Now().Before(until); i++ {
			call := time.Since(origin).Nanoseconds()
			if id < 3 {
				n := uint64(id)<<40 | uint64(call)
				b := recordData(n)
				_, err := client.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String(stream), Data: b, PartitionKey: aws.String("k")})
				ret := time.Since(origin).Nanoseconds()
				if err != nil {
					ret = never // it may have happened at any later time, or never
				}
				note(id, logInput{put: true, number: n}, nil, call, ret)
				if err != nil {
					return
				}
				time.Sleep(15 * time.Millisecond)
				continue
			}
			records, err := readShard(t.Context(), client, stream, "shardId-000000000000")
			if err != nil {
				return
			}
			ret := time.Since(origin).Nanoseconds()
			out := []uint64{}
			for _, r := range records {
				n, err := numberOf(r.Data)
				if err != nil {
					t.Error(err)
				}
				out = append(out, n)
			}
			note(id, logInput{}, out, call, ret)
			time.Sleep(20 * time.Millisecond)
		}
	}
	until := time.Now().Add(2 * half)
	for id := range 5 {
		workers.Go(func() { work(id, until) })
	}
	time.Sleep(half)
	s.Kill()
	workers.Wait()
	s, err = harness.StartAt(t.Context(), api, admin, harness.Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	until = time.Now().Add(half)
	for id := 10; id < 15; id++ {
		workers.Go(func() { work(id-10, until) })
	}
	workers.Wait()

	// A put that failed may be absent from all later reads. Those that no read
	// ever shows are taken out; the others must fit.
	shown := map[uint64]bool{}
	for _, op := range history {
		for _, n := range op.Output.([]uint64) {
			shown[n] = true
		}
	}
	kept := history[:0]
	for _, op := range history {
		in := op.Input.(logInput)
		if in.put && op.Return == never && !shown[in.number] {
			continue
		}
		kept = append(kept, op)
	}
	model := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, in, out any) (bool, any) {
			log, op := state.(string), in.(logInput)
			if op.put {
				return true, log + strconv.FormatUint(op.number, 36) + ","
			}
			var b strings.Builder
			for _, n := range out.([]uint64) {
				b.WriteString(strconv.FormatUint(n, 36) + ",")
			}
			return b.String() == log, state
		},
	}
	switch porcupine.CheckOperationsTimeout(model, kept, time.Minute) {
	case porcupine.Illegal:
		t.Errorf("no order of events explains %d operations", len(kept))
	case porcupine.Unknown:
		t.Logf("%d operations are too many to judge within a minute", len(kept))
	default:
		t.Logf("%d operations fit one order", len(kept))
	}
}

// TestBadStarts wants one clear line and exit code 1.
func TestBadStarts(t *testing.T) {
	held := filepath.Join(t.TempDir(), "held")
	start(t, harness.Options{Data: held})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(config, []byte("lisen: 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(args ...string) []string {
		return append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)
	}
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"data directory in use", serve("--data", held), "in use"},
		{"data directory is a file", serve("--data", file), file},
		{"unknown flag", serve("--dta", "x"), "dta"},
		{"unknown key in the file", serve("--config", config, "--ephemeral"), "lisen"},
		{"open to the network", []string{"serve", "--listen", "0.0.0.0:0", "--ephemeral"}, "allow-open-network"},
		{"unknown command", []string{"serv"}, "serv"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, stderr, code, err := harness.Run(ctx, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if code != 1 || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, said %q; want 1 and a word on %q", code, stderr, c.says)
			}
			if strings.Contains(stderr, "goroutine ") {
				t.Errorf("it panicked: %s", stderr)
			}
		})
	}
}

// TestDamagedDataIsRefused flips one bit in each of the files of a data
// directory that has been killed, and wants either every record or a refusal
// that names the place; never fewer records, never an altered one.
func TestDamagedDataIsRefused(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	options := harness.Options{Data: data, Args: []string{"--wal-segment-bytes", "4MiB", "--wal-segments", "4"}}
	s, err := harness.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, s)
	const stream = "damaged"
	create(t, client, stream, 3)
	l := newLedger()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() { _ = l.write(ctx, client, stream, 100) })
	}
	writers.Wait()
	s.Kill()
	var files []string
	filepath.WalkDir(data, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && info.Size() > 64 {
				files = append(files, p)
			}
		}
		return nil
	})
	refused, served, failed := 0, 0, 0
	for i, f := range files {
		if !torture && len(files) > 12 && i%(len(files)/12+1) != 0 {
			continue
		}
		copyOf := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copyOf, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
		inside, _ := filepath.Rel(data, f)
		target := filepath.Join(copyOf, inside)
		raw, err := os.ReadFile(target)
		if err != nil {
			t.Fatal(err)
		}
		at := len(raw) / 3
		raw[at] ^= 0x10
		if err := os.WriteFile(target, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := harness.Start(t.Context(), harness.Options{Data: copyOf, Args: options.Args})
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), filepath.Base(inside)) && !strings.Contains(err.Error(), filepath.Dir(target)) {
				t.Errorf("%s: refused without naming the file: %v", inside, err)
			}
			continue
		}
		shards, err := read(t.Context(), newClient(t, s), stream)
		s.Kill() // its output is complete from here on
		if err == nil {
			served++
			if err := l.audit(shards); err != nil {
				t.Errorf("%s, byte %d: served damaged data: %v", inside, at, err)
			}
		} else {
			failed++
			if !strings.Contains(s.Output(), filepath.Base(inside)) {
				t.Errorf("%s, byte %d: reading fails with %v, and the log does not name the file: %s", inside, at, err, s.Output())
			}
		}
	}
	t.Logf("%d files: %d starts refused, %d reads refused, %d served everything", len(files), refused, failed, served)
}

// TestAbuse throws hostile connections at a server and wants it to answer an
// honest client all the while, with bounded memory.
func TestAbuse(t *testing.T) {
	s := start(t, harness.Options{Args: []string{"--header-timeout", "1s"}})
	client := newClient(t, s)
	create(t, client, "honest", 1)
	before, err := harness.ResidentBytes(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	honest := func(t *testing.T) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := client.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: aws.String("honest"), Data: []byte("x"), PartitionKey: aws.String("k")}); err != nil {
			t.Errorf("an honest client is refused: %v", err)
		}
	}
	dial := func(t *testing.T) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", s.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	t.Run("connections that say nothing are closed", func(t *testing.T) {
		conns := make([]net.Conn, 200)
		for i := range conns {
			conns[i] = dial(t)
			fmt.Fprintf(conns[i], "POST / HT")
		}
		honest(t)
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(15 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a connection without a request stays open")
			}
		}
	})
	t.Run("headers that never end", func(t *testing.T) {
		c := dial(t)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\n")
		line := "X-Filler: " + strings.Repeat("f", 8000) + "\r\n"
		c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		sent := 0
		for ; sent < 10_000; sent++ {
			if _, err := io.WriteString(c, line); err != nil {
				break
			}
		}
		if sent == 10_000 {
			t.Error("80 MB of headers were taken")
		}
		honest(t)
	})
	t.Run("a body that is announced and not sent", func(t *testing.T) {
		for range 50 {
			c := dial(t)
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Length: 20000000\r\n\r\n{")
		}
		honest(t)
	})
	t.Run("a body that is too large", func(t *testing.T) {
		c := dial(t)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Length: 99999999999\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		reply, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || reply.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("reply %v, %v; want 413", reply, err)
		}
		honest(t)
	})
	t.Run("rapid resets over HTTP/2", func(t *testing.T) {
		c := dial(t)
		io.WriteString(c, http2.ClientPreface)
		f := http2.NewFramer(c, c)
		f.WriteSettings()
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for _, h := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "x"}} {
			enc.WriteField(h)
		}
		header := bytes.Clone(block.Bytes())
		c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		for id := uint32(1); id < 40_000; id += 2 {
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header, EndHeaders: true}) != nil {
				break
			}
			if f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				break
			}
		}
		honest(t)
	})
	t.Run("continuation frames that never end", func(t *testing.T) {
		c := dial(t)
		io.WriteString(c, http2.ClientPreface)
		f := http2.NewFramer(c, c)
		f.AllowIllegalWrites = true
		f.WriteSettings()
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
		c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		sent := 0
		filler := bytes.Repeat([]byte{0}, 16000)
		for ; sent < 5_000; sent++ {
			if f.WriteContinuation(1, false, filler) != nil {
				break
			}
		}
		if sent == 5_000 {
			t.Error("80 MB of continuation frames were taken")
		}
		honest(t)
	})
	t.Run("bytes that are no protocol", func(t *testing.T) {
		for _, junk := range []string{"\x16\x03\x01\xff\xff", "\x00\x00\x00\x00", "GET", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "SSH-2.0-x\r\n"} {
			c := dial(t)
			io.WriteString(c, junk)
			c.(*net.TCPConn).CloseWrite()
			c.SetReadDeadline(time.Now().Add(15 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q keeps a connection open", junk)
			}
		}
		honest(t)
	})
	select {
	case <-s.Done():
		t.Fatalf("the server ended: %s", s.Output())
	default:
	}
	after, err := harness.ResidentBytes(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	if after > before+200<<20 {
		t.Errorf("memory went from %d MiB to %d MiB", before>>20, after>>20)
	}
}
