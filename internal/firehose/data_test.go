package firehose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

func batch(name string, records ...string) *firehose.PutRecordBatchInput {
	in := &firehose.PutRecordBatchInput{DeliveryStreamName: &name}
	for _, r := range records {
		in.Records = append(in.Records, firehose.Record{Data: []byte(r)})
	}
	return in
}

func TestPutRecordBatchAnswersInOrder(t *testing.T) {
	r := newRig(t, nil)
	st := r.mustCreate(input("s", minimal(kindS3)))
	call := r.call()
	out, err := r.PutRecordBatch(t.Context(), call, batch("s", "a", "", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if *out.FailedPutCount != 0 || *out.Encrypted || len(out.RequestResponses) != 3 {
		t.Fatalf("%s", golden(t, out))
	}
	for i, e := range out.RequestResponses {
		if want := fmt.Sprintf("%056d", i+1); e.RecordId == nil || *e.RecordId != want || e.ErrorCode != nil || e.ErrorMessage != nil {
			t.Errorf("record %d: %s", i, golden(t, e))
		}
	}
	call.Finish()
	if got := strings.Join(r.engine.puts[st.record.ID], ","); got != "a,,c" {
		t.Errorf("stored %q", got)
	}
	one, err := r.PutRecord(t.Context(), r.call(), &firehose.PutRecordInput{DeliveryStreamName: api.Ptr("s"), Record: &firehose.Record{Data: []byte("d")}})
	if err != nil || *one.RecordId != fmt.Sprintf("%056d", 4) || *one.Encrypted {
		t.Errorf("%v %v", one, err)
	}
}

func TestABatchIsNotLargerThanFourMebibytes(t *testing.T) {
	r := newRig(t, nil)
	st := r.mustCreate(input("s", minimal(kindS3)))
	megabyte := strings.Repeat("x", 1<<20-48576)
	full := batch("s", megabyte, megabyte, megabyte, megabyte, strings.Repeat("x", 4<<20-4*len(megabyte)))
	if _, err := r.PutRecordBatch(t.Context(), r.call(), full); err != nil {
		t.Errorf("4 MiB: %v", err)
	}
	before := len(r.engine.puts[st.record.ID])
	_, err := r.PutRecordBatch(t.Context(), r.call(), batch("s", megabyte, megabyte, megabyte, megabyte, strings.Repeat("x", 4<<20-4*len(megabyte)+1)))
	wantError(t, err, invalid, "Records size exceeds 4 MB limit")
	if got := len(r.engine.puts[st.record.ID]); got != before {
		t.Error("something of a refused batch was stored")
	}
}

func TestPutsNeedADirectPutThatIsActive(t *testing.T) {
	r := newRig(t, nil)
	in := input("k", minimal(kindS3))
	in.DeliveryStreamType = api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource)
	in.KinesisStreamSourceConfiguration = &firehose.KinesisStreamSourceConfiguration{KinesisStreamARN: api.Ptr("arn:aws:kinesis:eu-central-1:123456789012:stream/s"), RoleARN: api.Ptr(testRole)}
	r.mustCreate(in)
	wantError(t, r.put("k", "x"), invalid, "This operation is not permitted on KinesisStreamAsSource delivery stream type.")
	_, err := r.PutRecordBatch(t.Context(), r.call(), batch("k", "x"))
	wantError(t, err, invalid, "This operation is not permitted on KinesisStreamAsSource delivery stream type.")
	_, err = r.PutRecordBatch(t.Context(), r.call(), batch("nobody", "x"))
	wantError(t, err, "ResourceNotFoundException", "Firehose nobody under account 123456789012 not found.")
	// Another account's is not there, whatever it is called.
	r.mustCreate(input("s", minimal(kindS3)))
	_, err = r.PutRecordBatch(t.Context(), testCall("999999999999", testRegion), batch("s", "x"))
	wantError(t, err, "ResourceNotFoundException", "Firehose s under account 999999999999 not found.")
}

func TestFailuresOfTheEngine(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindS3)))
	for _, test := range []struct {
		err        error
		code, text string
		status     int
		kms        string
	}{
		{delivery.ErrFull, "ServiceUnavailableException", "The server has no space left for records of this delivery stream. Nothing was stored; try again later.", 503, ""},
		{fmt.Errorf("append: %w", driver.ErrFull), "ServiceUnavailableException", "The server has no space left for records of this delivery stream. Nothing was stored; try again later.", 503, ""},
		{delivery.ErrClosed, "ServiceUnavailableException", "The server is shutting down.", 503, ""},
		{context.Canceled, "ServiceUnavailableException", "The request ended before the records could be stored.", 503, ""},
		{keyring.ErrDisabled, "InvalidKMSResourceException", "The KMS key of delivery stream s cannot be used: it is disabled.", 400, "DisabledException"},
		{keyring.ErrInvalidState, "InvalidKMSResourceException", "The KMS key of delivery stream s cannot be used: it is pending deletion.", 400, "KMSInvalidStateException"},
		{keyring.ErrNotFound, "InvalidKMSResourceException", "The KMS key of delivery stream s cannot be used: it does not exist.", 400, "NotFoundException"},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			r.engine.err = test.err
			err := r.put("s", "x")
			wantError(t, err, test.code, test.text)
			var e api.Error
			if errors.As(err, &e) && e.HTTPStatus() != test.status {
				t.Errorf("status %d, want %d", e.HTTPStatus(), test.status)
			}
			var kms *firehose.InvalidKMSResourceException
			if errors.As(err, &kms) && *kms.Code != test.kms {
				t.Errorf("code %s, want %s", *kms.Code, test.kms)
			}
			r.engine.err = test.err
			_, err = r.PutRecordBatch(t.Context(), r.call(), batch("s", "x", "y"))
			wantError(t, err, test.code, test.text)
		})
	}
	// One that has just become ACTIVE may not be known to the engine yet.
	r.engine.err = delivery.ErrNotFound
	if err := r.put("s", "x"); err != nil {
		t.Errorf("a moment after the creation: %v", err)
	}
	r.engine.err = errors.New("disk on fire")
	var modelled api.Error
	if err := r.put("s", "x"); err == nil || errors.As(err, &modelled) {
		t.Errorf("our own failure shows as %v", err)
	}
}

func TestRatesCutTheTailOfABatch(t *testing.T) {
	var r *rig
	limits := quota.Published()
	limits.Delivery = quota.DeliveryLimits{Calls: 100, Records: 3, Bytes: 2_000_000}
	r = newRig(t, func(o *Options) {
		now := o.Now
		o.Quota = quota.New(quota.Options{Enforce: true, Limits: limits, Now: now})
	})
	st := r.mustCreate(input("s", minimal(kindS3)))
	out, err := r.PutRecordBatch(t.Context(), r.call(), batch("s", "a", "b", "c", "d", "e"))
	if err != nil {
		t.Fatal(err)
	}
	if *out.FailedPutCount != 2 {
		t.Fatalf("%s", golden(t, out))
	}
	for i, e := range out.RequestResponses {
		if stored := i < 3; stored != (e.RecordId != nil) || stored != (e.ErrorCode == nil) {
			t.Errorf("record %d: %s", i, golden(t, e))
		}
	}
	// Clients branch on this word and no other.
	if e := out.RequestResponses[4]; *e.ErrorCode != "ServiceUnavailableException" || *e.ErrorMessage != "Slow down." {
		t.Errorf("%s", golden(t, e))
	}
	if got := strings.Join(r.engine.puts[st.record.ID], ""); got != "abc" {
		t.Errorf("stored %q", got)
	}
	_, err = r.PutRecordBatch(t.Context(), r.call(), batch("s", "f"))
	wantError(t, err, "ServiceUnavailableException", "Slow down.")
	wantError(t, r.put("s", "f"), "ServiceUnavailableException", "Slow down.")
	// Another delivery stream has rates of its own.
	r.mustCreate(input("t", minimal(kindS3)))
	if err := r.put("t", "x"); err != nil {
		t.Error(err)
	}
	r.advance(time.Second)
	if err := r.put("s", "f"); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

func TestOnlyLogsPutWhatIsDecompressed(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.LogsPrincipals = []string{"arn:aws:sts::123456789012:assumed-role/logs/*", "arn:aws:iam::123456789012:user/forwarder"}
	})
	d := minimal(kindS3)
	d.ExtendedS3.ProcessingConfiguration = processing(step(firehose.ProcessorTypeDecompression, "CompressionFormat", "GZIP"))
	r.mustCreate(input("s", d))
	r.mustCreate(input("plain", minimal(kindS3)))
	for arn, allowed := range map[string]bool{
		"arn:aws:sts::123456789012:assumed-role/logs/session": true, "arn:aws:iam::123456789012:user/forwarder": true,
		"arn:aws:iam::123456789012:user/forwarder2": false, "arn:aws:iam::123456789012:user/somebody": false,
	} {
		call := r.call()
		call.Principal.ARN = arn
		_, err := r.PutRecord(t.Context(), call, &firehose.PutRecordInput{DeliveryStreamName: api.Ptr("s"), Record: &firehose.Record{}})
		var source *firehose.InvalidSourceException
		if allowed && err != nil || !allowed && (!errors.As(err, &source) || *source.Code == "" || !strings.HasPrefix(source.Message, "The request does not originate from an allowed source type")) {
			t.Errorf("%s: %v", arn, err)
		}
		if _, err := r.PutRecord(t.Context(), call, &firehose.PutRecordInput{DeliveryStreamName: api.Ptr("plain"), Record: &firehose.Record{}}); err != nil {
			t.Errorf("%s to one that does not decompress: %v", arn, err)
		}
	}
}

func TestTags(t *testing.T) {
	r := newRig(t, nil)
	tag := func(k, v string) firehose.Tag { return firehose.Tag{Key: &k, Value: &v} }
	in := input("s", minimal(kindS3))
	in.Tags = []firehose.Tag{tag("b", "1"), tag("a", "1"), {Key: api.Ptr("empty")}}
	r.mustCreate(in)
	list := func(start string, limit int32) string {
		t.Helper()
		in := &firehose.ListTagsForDeliveryStreamInput{DeliveryStreamName: api.Ptr("s")}
		if start != "" {
			in.ExclusiveStartTagKey = &start
		}
		if limit > 0 {
			in.Limit = &limit
		}
		out, err := r.ListTagsForDeliveryStream(t.Context(), r.call(), in)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, tag := range out.Tags {
			fmt.Fprintf(&b, "%s=%s ", *tag.Key, *tag.Value)
		}
		fmt.Fprint(&b, *out.HasMoreTags)
		return b.String()
	}
	add := func(tags ...firehose.Tag) error {
		_, err := r.TagDeliveryStream(t.Context(), r.call(), &firehose.TagDeliveryStreamInput{DeliveryStreamName: api.Ptr("s"), Tags: tags})
		return err
	}
	if got, want := list("", 0), "a=1 b=1 empty= false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := add(tag("a", "2"), tag("c", "3")); err != nil {
		t.Fatal(err)
	}
	if got, want := list("", 2), "a=2 b=1 true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := list("aa", 0), "b=1 c=3 empty= false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := r.UntagDeliveryStream(t.Context(), r.call(), &firehose.UntagDeliveryStreamInput{DeliveryStreamName: api.Ptr("s"), TagKeys: []string{"b", "nobody"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := list("", 0), "a=2 c=3 empty= false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := *r.describe("s").VersionId; got != "1" {
		t.Errorf("tags make version %s", got)
	}
	var many []firehose.Tag
	for i := range 48 {
		many = append(many, tag(fmt.Sprint("k", i), ""))
	}
	wantError(t, add(many...), "LimitExceededException", "Failed to add tags to Firehose s under account 123456789012 because a delivery stream cannot have more than 50 tags.")
	if err := add(many[:47]...); err != nil {
		t.Errorf("50 tags: %v", err)
	}
	if err := add(tag("a", "3")); err != nil {
		t.Errorf("another value with 50 tags: %v", err)
	}
	for _, err := range []error{
		func() error {
			_, err := r.TagDeliveryStream(t.Context(), r.call(), &firehose.TagDeliveryStreamInput{DeliveryStreamName: api.Ptr("x")})
			return err
		}(),
		func() error {
			_, err := r.ListTagsForDeliveryStream(t.Context(), r.call(), &firehose.ListTagsForDeliveryStreamInput{DeliveryStreamName: api.Ptr("x")})
			return err
		}(),
	} {
		wantError(t, err, "ResourceNotFoundException", "Firehose x under account 123456789012 not found.")
	}
}

func TestListDeliveryStreams(t *testing.T) {
	r := newRig(t, nil)
	for i := range 12 {
		in := input(fmt.Sprintf("s%02d", i), minimal(kindS3))
		if i%4 == 0 {
			in.DeliveryStreamType = api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource)
			in.KinesisStreamSourceConfiguration = &firehose.KinesisStreamSourceConfiguration{KinesisStreamARN: api.Ptr("arn:aws:kinesis:eu-central-1:123456789012:stream/s"), RoleARN: api.Ptr(testRole)}
		}
		if err := r.create(in); err != nil {
			t.Fatal(err)
		}
	}
	list := func(in firehose.ListDeliveryStreamsInput) string {
		out, err := r.ListDeliveryStreams(t.Context(), r.call(), &in)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out.DeliveryStreamNames, " ") + fmt.Sprint(" ", *out.HasMoreDeliveryStreams)
	}
	for _, test := range []struct {
		in   firehose.ListDeliveryStreamsInput
		want string
	}{
		{firehose.ListDeliveryStreamsInput{}, "s00 s01 s02 s03 s04 s05 s06 s07 s08 s09 true"},
		{firehose.ListDeliveryStreamsInput{ExclusiveStartDeliveryStreamName: api.Ptr("s09")}, "s10 s11 false"},
		{firehose.ListDeliveryStreamsInput{ExclusiveStartDeliveryStreamName: api.Ptr("s09z"), Limit: api.Ptr(int32(1))}, "s10 true"},
		{firehose.ListDeliveryStreamsInput{DeliveryStreamType: api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource)}, "s00 s04 s08 false"},
		{firehose.ListDeliveryStreamsInput{DeliveryStreamType: api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource), Limit: api.Ptr(int32(2)), ExclusiveStartDeliveryStreamName: api.Ptr("s00")}, "s04 s08 false"},
		{firehose.ListDeliveryStreamsInput{DeliveryStreamType: api.Ptr(firehose.DeliveryStreamTypeMSKAsSource)}, " false"},
		{firehose.ListDeliveryStreamsInput{Limit: api.Ptr(int32(10000)), ExclusiveStartDeliveryStreamName: api.Ptr("zzz")}, " false"},
	} {
		if got := list(test.in); got != test.want {
			t.Errorf("%s: got %s, want %s", golden(t, test.in), got, test.want)
		}
	}
}

func TestAuthorisation(t *testing.T) {
	r := newRig(t, nil)
	in := input("s", minimal(kindRedshift))
	in.Tags = []firehose.Tag{{Key: api.Ptr("team"), Value: api.Ptr("a")}}
	in.RedshiftDestinationConfiguration.ProcessingConfiguration = processing(step(firehose.ProcessorTypeLambda, "LambdaArn", testFunction, "RoleArn", "arn:aws:iam::123456789012:role/caller"))
	in.RedshiftDestinationConfiguration.S3Configuration.RoleARN = api.Ptr("arn:aws:iam::123456789012:role/staging")
	call := r.call()
	call.Operation = firehose.OpCreateDeliveryStream
	arn, owner := r.ResourceARN(call, in)
	if want := "arn:aws:firehose:eu-central-1:123456789012:deliverystream/s"; arn != want || owner != testAccount {
		t.Errorf("%s of %s", arn, owner)
	}
	tags, roles := r.Passes(call, in)
	var names []string
	for _, role := range roles {
		names = append(names, role.ARN[strings.LastIndexByte(role.ARN, '/')+1:])
	}
	if got := strings.Join(names, " "); !tags || got != "delivery staging caller" {
		t.Errorf("tags %v, roles %s", tags, got)
	}
	values := r.ConditionValues(call, in)
	if values["aws:RequestTag/team"][0] != "a" || values["aws:TagKeys"][0] != "team" || len(values) != 2 {
		t.Errorf("values %v", values)
	}
	r.mustCreate(in)
	call.Operation = firehose.OpPutRecord
	if values := r.ConditionValues(call, &firehose.PutRecordInput{DeliveryStreamName: api.Ptr("s")}); values["aws:ResourceTag/team"][0] != "a" {
		t.Errorf("values %v", values)
	}
	call.Operation = firehose.OpListDeliveryStreams
	if arn, _ := r.ResourceARN(call, &firehose.ListDeliveryStreamsInput{}); arn != "*" {
		t.Errorf("listing is about %s", arn)
	}
}

// Everything at once: states are those of some order, and the engine ends with
// the newest version of each.
func TestConcurrentCalls(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindS3)))
	ctx, cancel := context.WithCancel(t.Context())
	var running, calls sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	updated := make([]int, 4)
	for w := range 4 {
		calls.Go(func() {
			for i := range 25 {
				name := fmt.Sprintf("w%d-%d", w, i%3)
				_ = r.create(input(name, minimal(kind(i%int(kinds)))))
				_ = r.delete(name, false)
				if _, err := r.TagDeliveryStream(ctx, r.call(), &firehose.TagDeliveryStreamInput{DeliveryStreamName: api.Ptr("s"), Tags: []firehose.Tag{{Key: api.Ptr(fmt.Sprint("w", w))}}}); err != nil {
					t.Error(err)
				}
				d, err := r.DescribeDeliveryStream(ctx, r.call(), &firehose.DescribeDeliveryStreamInput{DeliveryStreamName: api.Ptr("s")})
				if err != nil {
					t.Error(err)
					continue
				}
				_, err = r.UpdateDestination(ctx, r.call(), &firehose.UpdateDestinationInput{
					DeliveryStreamName: api.Ptr("s"), DestinationId: api.Ptr(destinationID), CurrentDeliveryStreamVersionId: d.DeliveryStreamDescription.VersionId,
					ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{Prefix: api.Ptr(fmt.Sprintf("%d/%d/", w, i))},
				})
				var lost *firehose.ConcurrentModificationException
				switch {
				case err == nil:
					updated[w]++
				case !errors.As(err, &lost):
					t.Error(err)
				}
				call := r.call()
				if _, err := r.PutRecordBatch(ctx, call, batch("s", "a", "b")); err != nil {
					t.Error(err)
				}
				call.Finish()
				_, _ = r.ListDeliveryStreams(ctx, r.call(), &firehose.ListDeliveryStreamsInput{})
			}
		})
	}
	calls.Wait()
	cancel()
	running.Wait()
	r.settleAll()
	total := 1
	for _, n := range updated {
		total += n
	}
	st := r.get("s")
	if st.record.Version != total || len(st.record.Tags) != 4 {
		t.Errorf("version %d after %d updates, tags %v", st.record.Version, total-1, st.record.Tags)
	}
	if d := r.engine.definition(st.record.ID); d.Version != total {
		t.Errorf("version %d runs", d.Version)
	}
	if got := len(r.engine.puts[st.record.ID]); got != 200 {
		t.Errorf("%d records", got)
	}
	for id := range r.engine.running {
		if r.registry.byID(id) == nil {
			t.Errorf("%s runs and is not there", id)
		}
	}
}
