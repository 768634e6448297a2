package streams

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

// refusing is an engine whose appends fail while err is set.
type refusing struct {
	driver.Driver
	err atomic.Pointer[error]
}

func (d *refusing) Append(ctx context.Context, batches []*driver.Batch) error {
	if err := d.err.Load(); err != nil {
		return *err
	}
	return d.Driver.Append(ctx, batches)
}

// A full disk is an answer that clients retry; an engine that cannot go on is our
// failure. Neither loses a record, and records flow again when the disk does.
func TestPutsIntoAFullOrReadOnlyLog(t *testing.T) {
	engine := &refusing{}
	r := newRig(t, func(o *Options) {
		engine.Driver = memory.New(memory.Options{Now: o.Now})
		o.Log = shardlog.New(engine, shardlog.Options{})
		t.Cleanup(func() {
			if err := o.Log.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	r.create("s", 2)
	put := func() error {
		call := r.call()
		defer call.Finish()
		_, err := r.PutRecord(t.Context(), call, &kinesis.PutRecordInput{StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k"), Data: []byte("x")})
		return err
	}
	puts := func() error {
		call := r.call()
		defer call.Finish()
		_, err := r.PutRecords(t.Context(), call, &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: []kinesis.PutRecordsRequestEntry{
			{PartitionKey: api.Ptr("a"), Data: []byte("x")}, {PartitionKey: api.Ptr("b"), Data: []byte("y")},
		}})
		return err
	}
	for cause, status := range map[error]int{driver.ErrFull: 503, driver.ErrReadOnly: 500, driver.ErrClosed: 503} {
		engine.err.Store(&cause)
		for name, f := range map[string]func() error{"PutRecord": put, "PutRecords": puts} {
			err := f()
			var modelled api.Error
			switch found := errors.As(err, &modelled); {
			case err == nil:
				t.Errorf("%s, %v: succeeds", name, cause)
			case !found && status != 500:
				t.Errorf("%s, %v: %v is no answer", name, cause, err)
			case found && (modelled.HTTPStatus() != status || modelled.ErrorCode() != "ServiceUnavailable"):
				t.Errorf("%s, %v: %d %s, want %d", name, cause, modelled.HTTPStatus(), modelled.ErrorCode(), status)
			}
		}
	}
	engine.err.Store(nil)
	if err := puts(); err != nil {
		t.Errorf("with space again: %v", err)
	}
	n := 0
	for _, shard := range []string{"0", "1"} {
		n += len(r.read(r.mustIterator("s", shard, trim, nil, nil), 0).Records)
	}
	if n != 2 {
		t.Errorf("%d records are stored, 2 were acknowledged", n)
	}
}

// With AUTO the server spreads records evenly and takes none of the producer's
// hints.
func TestAutoDistributionSpreadsRecordsEvenly(t *testing.T) {
	r := newRig(t, nil)
	st := r.createOnDemand("s")
	set := func(arn string, v kinesis.RecordDistributionStrategy) error {
		_, err := r.UpdateStreamRecordDistributionStrategy(t.Context(), r.call(), &kinesis.UpdateStreamRecordDistributionStrategyInput{StreamARN: &arn, RecordDistributionStrategy: &v})
		return err
	}
	entries := make([]kinesis.PutRecordsRequestEntry, 400)
	for i := range entries {
		entries[i] = kinesis.PutRecordsRequestEntry{Data: []byte("x")}
	}
	put := func() error {
		call := r.call()
		defer call.Finish()
		_, err := r.PutRecords(t.Context(), call, &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), Records: entries})
		return err
	}
	err := put()
	wantError(t, err, "ValidationException", "10 validation errors detected: Value null at 'records.1.member.partitionKey' failed to satisfy constraint: Member must not be null…")

	if err := set(st.arn, kinesis.RecordDistributionStrategyAuto); err != nil {
		t.Fatal(err)
	}
	// Half name a key and a hash key, which would all go to one shard.
	for i := range entries[:200] {
		entries[i].PartitionKey, entries[i].ExplicitHashKey = api.Ptr("same"), api.Ptr("0")
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	keys := 0
	for _, sh := range st.open {
		out := r.read(r.mustIterator("s", sh.id(), trim, nil, nil), 0)
		if n := len(out.Records); n < 75 || n > 125 {
			t.Errorf("%s got %d of 400 records", sh.id(), n)
		}
		for _, rec := range out.Records {
			if rec.PartitionKey != nil {
				keys++
			}
		}
	}
	if keys != 200 {
		t.Errorf("%d records have a partition key, 200 were sent with one", keys)
	}
	about, err := r.DescribeStreamSummary(t.Context(), r.call(), &kinesis.DescribeStreamSummaryInput{StreamName: api.Ptr("s")})
	if err != nil || api.Val(about.StreamDescriptionSummary.RecordDistributionStrategy) != kinesis.RecordDistributionStrategyAuto {
		t.Errorf("summary %v, %v", about, err)
	}

	plain := r.create("p", 1)
	wantError(t, set(plain.arn, kinesis.RecordDistributionStrategyAuto), "InvalidArgumentException", "RecordDistributionStrategy AUTO is only supported…")
	if err := set(st.arn, kinesis.RecordDistributionStrategyUserPartitionKey); err != nil {
		t.Fatal(err)
	}
	wantError(t, put(), "ValidationException", "10 validation errors detected: Value null at 'records.201.member.partitionKey'…")
}

func TestIteratorsBelongToTheirStreamAndRegion(t *testing.T) {
	r := newRig(t, nil)
	s, other := r.create("s", 1), r.create("other", 1)
	it := r.mustIterator("s", "0", trim, nil, nil)
	get := func(region, arn string) error {
		call := testCall(testAccount, region)
		defer call.Finish()
		in := &kinesis.GetRecordsInput{ShardIterator: &it}
		if arn != "" {
			in.StreamARN = &arn
		}
		_, err := r.GetRecords(t.Context(), call, in)
		return err
	}
	for _, arn := range []string{"", s.arn} {
		if err := get(testRegion, arn); err != nil {
			t.Errorf("StreamARN %q: %v", arn, err)
		}
	}
	for _, arn := range []string{other.arn, "arn:aws:kinesis:" + testRegion + ":999999999999:stream/s", "arn:aws:kinesis:mars-1:" + testAccount + ":stream/s", "junk", s.arn + "/consumer/c:1"} {
		wantError(t, get(testRegion, arn), "InvalidArgumentException", "StreamARN "+arn+" does not name the stream of the shard iterator.")
	}
	wantError(t, get("mars-1", ""), "InvalidArgumentException", "Invalid ShardIterator.")
}

func TestConsumerThatIsStillCreating(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 1)
	r.opts.StateDelay = time.Hour
	r.restart()
	out, err := r.RegisterStreamConsumer(t.Context(), r.call(), &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("c")})
	if err != nil {
		t.Fatal(err)
	}
	const creation = "1777636800"
	_, err = r.SubscribeToShard(t.Context(), r.call(), &kinesis.SubscribeToShardInput{
		ConsumerARN: out.Consumer.ConsumerARN, ShardId: api.Ptr("0"), StartingPosition: api.Ptr(from(trim)),
	})
	wantError(t, err, "ResourceInUseException", "Consumer c with creation timestamp "+creation+" under stream: s , account "+testAccount+" is not in ACTIVE status.")
	_, err = r.PutResourcePolicy(t.Context(), r.call(), &kinesis.PutResourcePolicyInput{ResourceARN: out.Consumer.ConsumerARN, Policy: api.Ptr(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kinesis:SubscribeToShard","Resource":"` + *out.Consumer.ConsumerARN + `"}]}`)})
	wantError(t, err, "ResourceInUseException", "Consumer c with creation timestamp "+creation+" under stream s and account "+testAccount+" is not in ACTIVE status.")
	_, err = r.DeregisterStreamConsumer(t.Context(), r.call(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: out.Consumer.ConsumerARN})
	wantError(t, err, "ResourceInUseException", "Consumer c with creation timestamp …")
}

// A key that cannot be used starts no encryption, and leaves the stream as it is.
func TestEncryptionDoesNotStartWithAKeyThatCannotBeUsed(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	start := func(key string) error {
		_, err := r.StartStreamEncryption(t.Context(), r.call(), &kinesis.StartStreamEncryptionInput{
			StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: &key,
		})
		return err
	}
	stop := func() error {
		_, err := r.StopStreamEncryption(t.Context(), r.call(), &kinesis.StopStreamEncryptionInput{
			StreamName: api.Ptr("s"), EncryptionType: api.Ptr(kinesis.EncryptionTypeKms), KeyId: api.Ptr("alias/mine"),
		})
		return err
	}
	scope := keyring.Scope{Account: testAccount, Region: testRegion}
	for state, code := range map[keyring.State]string{keyring.Disabled: "KMSDisabledException", keyring.PendingDeletion: "KMSInvalidStateException"} {
		if err := r.keyring.SetState(t.Context(), scope, "alias/mine", state); err != nil {
			t.Fatal(err)
		}
		wantError(t, start("alias/mine"), code, "…")
	}
	wantError(t, start("arn:aws:kms:mars-1:"+testAccount+":key/1234"), "KMSNotFoundException", "…")
	if st := r.get("s"); st.encryption != nil || st.status != kinesis.StreamStatusActive {
		t.Errorf("the stream is %s, encrypted with %v", st.status, st.encryption)
	}

	// Encryption can be stopped although its key is out of use, and records flow
	// again; what was sealed waits for the key.
	if err := r.keyring.SetState(t.Context(), scope, "alias/mine", keyring.Enabled); err != nil {
		t.Fatal(err)
	}
	if err := start("alias/mine"); err != nil {
		t.Fatal(err)
	}
	r.put("s", "k", []byte("sealed"))
	if err := r.keyring.SetState(t.Context(), scope, "alias/mine", keyring.Disabled); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.put("s", "k", []byte("plain"))
	it := r.mustIterator("s", "0", trim, nil, nil)
	_, err := r.GetRecords(t.Context(), r.call(), &kinesis.GetRecordsInput{ShardIterator: &it})
	wantError(t, err, "KMSDisabledException", "…")
	if err := r.keyring.SetState(t.Context(), scope, "alias/mine", keyring.Enabled); err != nil {
		t.Fatal(err)
	}
	if got := texts(r.read(it, 0).Records); got != "sealed plain" {
		t.Errorf("read %q", got)
	}
}

// FuzzShardIterator opens texts that are not ours, and changed ones of ours.
func FuzzShardIterator(f *testing.F) {
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	f.Cleanup(func() { log.Close() })
	r := &rig{t: f, log: log}
	r.opts = Options{Log: log, Now: r.time}
	r.start()
	f.Cleanup(r.stop)
	good := shardIterator{issued: 1, stream: streamName{testAccount, testRegion, "s"}, id: 3, shard: 4, next: 5}
	text := r.sealIterator(good)
	f.Add(text, 0, byte(0))
	f.Add(`"`+text+`"`, 0, byte(0))
	f.Add(text, 20, byte(1))
	f.Add("AAAAAAAAAAE=", 0, byte(0))
	f.Fuzz(func(t *testing.T, text string, at int, change byte) {
		if it, ok := r.openIterator(text); ok && it != good {
			t.Errorf("%q opens as %+v", text, it)
		}
		// One bit anywhere in what is ours makes it nobody's.
		b := []byte(r.sealIterator(good))
		if at >= 0 && at < len(b) && change != 0 {
			b[at] ^= change
			if it, ok := r.openIterator(string(b)); ok {
				t.Errorf("changed at %d by %#x it opens as %+v", at, change, it)
			}
		}
	})
}

// Clients that ask for large pages and do not take them cannot fill the memory;
// readers beside them still move on.
func TestPagesThatNobodyTakesAreBounded(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	for range 24 {
		r.put("s", "k", make([]byte, 1<<20))
	}
	it := r.mustIterator("s", "0", trim, nil, nil)
	get := func() (call *api.Call, size int, err error) {
		call = r.call()
		out, err := r.GetRecords(t.Context(), call, &kinesis.GetRecordsInput{ShardIterator: &it})
		if err != nil {
			return call, 0, err
		}
		for _, rec := range out.Records {
			size += len(rec.Data)
		}
		return call, size, nil
	}
	before := pageMemory.Load()
	var stuck []*api.Call
	var held, last int
	for range 60 {
		call, size, err := get()
		stuck = append(stuck, call)
		if err != nil {
			t.Fatal(err)
		}
		held, last = held+size, size
	}
	if held > 300<<20 || last < 1<<20 {
		t.Errorf("60 replies that nobody takes hold %d MiB of data, the last %d bytes", held>>20, last)
	}
	// Beyond a second bound there is nothing but an answer that is retried.
	pageMemory.Add(2 * maxPageMemory)
	call, _, err := get()
	call.Finish()
	pageMemory.Add(-2 * maxPageMemory)
	wantError(t, err, "ServiceUnavailable", "Too many replies…")
	for _, call := range stuck {
		call.Finish()
	}
	if now := pageMemory.Load(); now != before {
		t.Errorf("%d bytes are charged for pages that are gone", now-before)
	}
	call, size, err := get()
	call.Finish()
	if err != nil || size != 10<<20 {
		t.Errorf("a page after all were taken has %d bytes, %v", size, err)
	}
}
