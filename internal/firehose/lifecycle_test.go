package firehose

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/keyring"
)

func (r *rig) status(name string) firehose.DeliveryStreamStatus {
	r.t.Helper()
	return *r.describe(name).DeliveryStreamStatus
}

func (r *rig) delete(name string, force bool) error {
	_, err := r.DeleteDeliveryStream(r.t.Context(), r.call(), &firehose.DeleteDeliveryStreamInput{DeliveryStreamName: &name, AllowForceDelete: &force})
	return err
}

func (r *rig) put(name, data string) error {
	_, err := r.PutRecord(r.t.Context(), r.call(), &firehose.PutRecordInput{DeliveryStreamName: &name, Record: &firehose.Record{Data: []byte(data)}})
	return err
}

const noSuch = "Firehose s under account 123456789012 not found."

func TestStatesFromCreationToDeletion(t *testing.T) {
	r := newRig(t, nil)
	wantError(t, r.put("s", "x"), "ResourceNotFoundException", noSuch)
	wantError(t, r.delete("s", false), "ResourceNotFoundException", noSuch)
	out, err := r.CreateDeliveryStream(t.Context(), r.call(), input("s", minimal(kindS3)))
	if err != nil {
		t.Fatal(err)
	}
	if want := "arn:aws:firehose:eu-central-1:123456789012:deliverystream/s"; *out.DeliveryStreamARN != want {
		t.Errorf("ARN %s, want %s", *out.DeliveryStreamARN, want)
	}
	// CREATING can be seen, whatever the settings, and takes nothing.
	if got := r.status("s"); got != firehose.DeliveryStreamStatusCreating {
		t.Fatalf("status %s after the call", got)
	}
	wantError(t, r.put("s", "x"), "ResourceNotFoundException", noSuch)
	inUse := "Firehose s under account 123456789012 is not ACTIVE, instead in state CREATING."
	wantError(t, r.delete("s", false), "ResourceInUseException", inUse)
	wantError(t, r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{}}), "ResourceInUseException", inUse)
	wantError(t, r.create(input("s", minimal(kindS3))), "ResourceInUseException", "Firehose s under accountId 123456789012 already exists")
	if wait, any := r.finishDue(t.Context()); !any || wait != tick {
		t.Errorf("next change in %v, want the tick of %v", wait, tick)
	}
	r.settleAll()
	st := r.get("s")
	if d := r.engine.definition(st.record.ID); d == nil || d.Version != 1 || d.ARN != st.arn {
		t.Fatalf("the engine runs %+v", d)
	}
	if err := r.put("s", "x"); err != nil {
		t.Fatal(err)
	}
	if err := r.delete("s", false); err != nil {
		t.Fatal(err)
	}
	if got := r.status("s"); got != firehose.DeliveryStreamStatusDeleting {
		t.Errorf("status %s after the call", got)
	}
	if err := r.delete("s", false); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	wantError(t, r.put("s", "y"), "ResourceNotFoundException", noSuch)
	wantError(t, r.create(input("s", minimal(kindS3))), "ResourceInUseException", "Firehose s under accountId 123456789012 already exists")
	r.settleAll()
	if drained, removed := r.engine.removed[st.record.ID]; !removed || drained {
		t.Errorf("removed %v, drained %v: what is deleted is lost", removed, drained)
	}
	if got := r.registry.stream(st.streamName); got != nil {
		t.Error("still there")
	}
	// The name is free, and is another delivery stream.
	if again := r.mustCreate(input("s", minimal(kindS3))); again.record.ID == st.record.ID {
		t.Error("an id is used twice")
	}
}

func TestStateDelayHoldsChangesBack(t *testing.T) {
	r := newRig(t, func(o *Options) { o.StateDelay = 5 * time.Second })
	if err := r.create(input("s", minimal(kindS3))); err != nil {
		t.Fatal(err)
	}
	r.advance(5*time.Second - time.Millisecond)
	r.finishDue(t.Context())
	if got := r.status("s"); got != firehose.DeliveryStreamStatusCreating {
		t.Errorf("%s before the delay is over", got)
	}
	r.advance(time.Millisecond)
	r.finishDue(t.Context())
	if got := r.status("s"); got != firehose.DeliveryStreamStatusActive {
		t.Errorf("%s when the delay is over", got)
	}
}

func TestDrainOnDelete(t *testing.T) {
	r := newRig(t, func(o *Options) { o.DrainOnDelete = true })
	st := r.mustCreate(input("s", minimal(kindS3)))
	if err := r.delete("s", false); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	if !r.engine.removed[st.record.ID] {
		t.Error("not drained")
	}
	// A destination that takes nothing does not keep it from going.
	st = r.mustCreate(input("s", minimal(kindS3)))
	r.engine.drain = errors.New("the destination is down")
	if err := r.delete("s", false); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	if drained, removed := r.engine.removed[st.record.ID]; !removed || drained {
		t.Errorf("removed %v, drained %v", removed, drained)
	}
}

const (
	knownKey   = "arn:aws:kms:eu-central-1:123456789012:key/known"
	unknownKey = "arn:aws:kms:eu-central-1:123456789012:key/unknown"
)

func (r *rig) makeKey() {
	r.t.Helper()
	if err := r.keyring.Create(r.t.Context(), keyring.Scope{Account: testAccount, Region: testRegion}, knownKey); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) setKey(state keyring.State) {
	r.t.Helper()
	if err := r.keyring.SetState(r.t.Context(), keyring.Scope{Account: testAccount, Region: testRegion}, knownKey, state); err != nil {
		r.t.Fatal(err)
	}
}

func customerKey(arn string) *firehose.DeliveryStreamEncryptionConfigurationInput {
	return &firehose.DeliveryStreamEncryptionConfigurationInput{KeyType: api.Ptr(firehose.KeyTypeCustomerManagedCmk), KeyARN: &arn}
}

func TestCreationFailsWithoutItsKey(t *testing.T) {
	r := newRig(t, nil)
	in := input("s", minimal(kindS3))
	in.DeliveryStreamEncryptionConfigurationInput = customerKey(unknownKey)
	st := r.mustCreate(in)
	d := r.describe("s")
	if *d.DeliveryStreamStatus != firehose.DeliveryStreamStatusCreatingFailed || d.FailureDescription == nil {
		t.Fatalf("status %s, %v", *d.DeliveryStreamStatus, d.FailureDescription)
	}
	if f := d.FailureDescription; *f.Type != "KMS_KEY_NOT_FOUND" || *f.Details != "The KMS key "+unknownKey+" cannot be used: it does not exist." {
		t.Errorf("failure %s %q", *f.Type, *f.Details)
	}
	if got := *d.DeliveryStreamEncryptionConfiguration.Status; got != firehose.DeliveryStreamEncryptionStatusEnablingFailed {
		t.Errorf("encryption %s", got)
	}
	if r.engine.definition(st.record.ID) != nil {
		t.Error("it runs")
	}
	wantError(t, r.put("s", "x"), "ResourceNotFoundException", noSuch)
	wantError(t, r.create(input("s", minimal(kindS3))), "ResourceInUseException", "Firehose s under accountId 123456789012 already exists")
	if err := r.delete("s", false); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	r.mustCreate(input("s", minimal(kindS3)))
}

func TestEncryptionIsSwitched(t *testing.T) {
	r := newRig(t, nil)
	r.makeKey()
	st := r.mustCreate(input("s", minimal(kindS3)))
	start := func(in *firehose.DeliveryStreamEncryptionConfigurationInput) error {
		_, err := r.StartDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StartDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("s"), DeliveryStreamEncryptionConfigurationInput: in})
		return err
	}
	stop := func() error {
		_, err := r.StopDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StopDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("s")})
		return err
	}
	want := func(status, keyType, arn string, encrypted bool) {
		t.Helper()
		e := r.describe("s").DeliveryStreamEncryptionConfiguration
		if string(*e.Status) != status || string(api.Val(e.KeyType)) != keyType || api.Val(e.KeyARN) != arn {
			t.Errorf("%s %s %s, want %s %s %s", *e.Status, api.Val(e.KeyType), api.Val(e.KeyARN), status, keyType, arn)
		}
		out, err := r.PutRecord(t.Context(), r.call(), &firehose.PutRecordInput{DeliveryStreamName: api.Ptr("s"), Record: &firehose.Record{}})
		if err != nil || *out.Encrypted != encrypted {
			t.Errorf("put: %v, encrypted %v", err, out)
		}
	}
	dataKey := func() string {
		if d := r.engine.definition(st.record.ID); d.Encryption != nil {
			return d.Encryption.DataKey
		}
		return ""
	}
	want("DISABLED", "", "", false)
	if err := stop(); err != nil {
		t.Errorf("stop what is not started: %v", err)
	}
	if err := start(nil); err != nil {
		t.Fatal(err)
	}
	want("ENABLING", "AWS_OWNED_CMK", "", false)
	busy := "Encryption of Firehose s under account 123456789012 is ENABLING."
	wantError(t, start(nil), "ResourceInUseException", busy)
	wantError(t, stop(), "ResourceInUseException", busy)
	r.settleAll()
	want("ENABLED", "AWS_OWNED_CMK", "", true)
	own := dataKey()
	if own == "" {
		t.Fatal("records are not sealed")
	}
	if err := start(customerKey(knownKey)); err != nil {
		t.Fatal(err)
	}
	if dataKey() != own {
		t.Error("the old key is not in force while the new one is made")
	}
	r.settleAll()
	want("ENABLED", "CUSTOMER_MANAGED_CMK", knownKey, true)
	customer := dataKey()
	if customer == own {
		t.Error("the key has not changed")
	}
	// A key that is not there leaves the one before in force.
	if err := start(customerKey(unknownKey)); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	want("ENABLING_FAILED", "CUSTOMER_MANAGED_CMK", unknownKey, false)
	if f := r.describe("s").DeliveryStreamEncryptionConfiguration.FailureDescription; f == nil || *f.Type != "KMS_KEY_NOT_FOUND" {
		t.Errorf("failure %v", f)
	}
	if dataKey() != customer {
		t.Error("the old key is gone")
	}
	r.setKey(keyring.Disabled)
	if err := start(customerKey(knownKey)); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	if f := r.describe("s").DeliveryStreamEncryptionConfiguration.FailureDescription; f == nil || *f.Type != "DISABLED_KMS_KEY" {
		t.Errorf("failure %v", f)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	want("DISABLED", "", "", false)
	if dataKey() != "" {
		t.Error("records are still sealed")
	}
	if got := *r.describe("s").VersionId; got != "1" {
		t.Errorf("version %s: encryption is no update", got)
	}
}

func TestEncryptionInputs(t *testing.T) {
	r := newRig(t, nil)
	r.mustCreate(input("s", minimal(kindS3)))
	for _, test := range []struct {
		name string
		in   *firehose.DeliveryStreamEncryptionConfigurationInput
		text string
	}{
		{"own key with ARN", &firehose.DeliveryStreamEncryptionConfigurationInput{KeyType: api.Ptr(firehose.KeyTypeAwsOwnedCmk), KeyARN: api.Ptr(knownKey)},
			"KeyARN cannot be specified when KeyType is AWS_OWNED_CMK."},
		{"customer's key without", &firehose.DeliveryStreamEncryptionConfigurationInput{KeyType: api.Ptr(firehose.KeyTypeCustomerManagedCmk)},
			"KeyARN must be specified when KeyType is CUSTOMER_MANAGED_CMK."},
		{"another region", customerKey("arn:aws:kms:us-west-2:123456789012:key/k"),
			"The region of the KMS key arn:aws:kms:us-west-2:123456789012:key/k does not match the region of the delivery stream, eu-central-1: region mismatch."},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.StartDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StartDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("s"), DeliveryStreamEncryptionConfigurationInput: test.in})
			wantError(t, err, invalid, test.text)
			in := input("t", minimal(kindS3))
			in.DeliveryStreamEncryptionConfigurationInput = test.in
			wantError(t, r.create(in), invalid, test.text)
		})
	}
	kinesis := input("k", minimal(kindS3))
	kinesis.DeliveryStreamType = api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource)
	kinesis.KinesisStreamSourceConfiguration = &firehose.KinesisStreamSourceConfiguration{KinesisStreamARN: api.Ptr("arn:aws:kinesis:eu-central-1:123456789012:stream/s"), RoleARN: api.Ptr(testRole)}
	r.mustCreate(kinesis)
	_, err := r.StartDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StartDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("k")})
	wantError(t, err, invalid, "Server-side encryption is only supported for delivery streams of type DirectPut; k has type KinesisStreamAsSource. Encrypt its source instead.")
	if d := r.describe("k"); d.DeliveryStreamEncryptionConfiguration != nil {
		t.Error("a source's delivery stream shows encryption")
	}
}

func TestEncryptionCallsOfADay(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Daily = true })
	r.mustCreate(input("s", minimal(kindS3)))
	toggle := func(i int) error {
		if i%2 == 0 {
			_, err := r.StartDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StartDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("s")})
			return err
		}
		_, err := r.StopDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StopDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("s")})
		return err
	}
	for i := range maxEncryptionCalls {
		if err := toggle(i); err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
		r.settleAll()
	}
	const text = "StartDeliveryStreamEncryption and StopDeliveryStreamEncryption can be called at most 25 times together per delivery stream in 24 hours."
	wantError(t, toggle(0), "LimitExceededException", text)
	wantError(t, toggle(1), "LimitExceededException", text)
	r.restart()
	wantError(t, toggle(1), "LimitExceededException", text)
	r.advance(24 * time.Hour)
	if err := toggle(1); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestDeletionWaitsForTheKey(t *testing.T) {
	r := newRig(t, nil)
	r.makeKey()
	in := input("s", minimal(kindS3))
	in.DeliveryStreamEncryptionConfigurationInput = customerKey(knownKey)
	r.mustCreate(in)
	if got := *r.describe("s").DeliveryStreamEncryptionConfiguration.Status; got != firehose.DeliveryStreamEncryptionStatusEnabled {
		t.Fatalf("encryption %s", got)
	}
	r.setKey(keyring.Disabled)
	if err := r.delete("s", false); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	d := r.describe("s")
	if *d.DeliveryStreamStatus != firehose.DeliveryStreamStatusDeletingFailed || d.FailureDescription == nil || *d.FailureDescription.Type != "RETIRE_KMS_GRANT_FAILED" {
		t.Fatalf("%s %v", *d.DeliveryStreamStatus, d.FailureDescription)
	}
	wantError(t, r.delete("s", false), "ResourceInUseException", "Firehose s under account 123456789012 is in state DELETING_FAILED; set AllowForceDelete to delete it anyway.")
	if err := r.delete("s", true); err != nil {
		t.Fatal(err)
	}
	r.settleAll()
	if r.registry.stream(streamName{testAccount, testRegion, "s"}) != nil {
		t.Error("still there")
	}
}

func TestQuotasOfAnAccount(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxStreams = 2 })
	for i := range 2 {
		if err := r.create(input(fmt.Sprint("s", i), minimal(kindS3))); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, r.create(input("s2", minimal(kindS3))), "LimitExceededException", "You have already consumed your firehose quota of 2 hoses. Firehose names: [s0, s1]")
	// Another region has its own.
	if _, err := r.CreateDeliveryStream(t.Context(), testCall(testAccount, "us-west-2"), input("s2", minimal(kindS3))); err != nil {
		t.Error(err)
	}
	if _, err := r.CreateDeliveryStream(t.Context(), testCall("999999999999", testRegion), input("s2", minimal(kindS3))); err != nil {
		t.Error(err)
	}
}

func TestStreamsUnderOneKey(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Daily = true })
	r.makeKey()
	for i := range maxStreamsUnderKey {
		in := input(fmt.Sprint("s", i), minimal(kindS3))
		in.DeliveryStreamEncryptionConfigurationInput = customerKey(knownKey)
		if err := r.create(in); err != nil {
			t.Fatal(err)
		}
	}
	in := input("more", minimal(kindS3))
	in.DeliveryStreamEncryptionConfigurationInput = customerKey(knownKey)
	const text = "The KMS key " + knownKey + " is in use by 500 delivery streams, which is the limit."
	wantError(t, r.create(in), "LimitExceededException", text)
	r.mustCreate(input("plain", minimal(kindS3)))
	_, err := r.StartDeliveryStreamEncryption(t.Context(), r.call(), &firehose.StartDeliveryStreamEncryptionInput{DeliveryStreamName: api.Ptr("plain"), DeliveryStreamEncryptionConfigurationInput: customerKey(knownKey)})
	wantError(t, err, "LimitExceededException", text)
}

// Everything that is stored is there after a restart, runs again, and goes on
// where it was interrupted.
func TestRestart(t *testing.T) {
	r := newRig(t, nil)
	r.makeKey()
	for k := range kinds {
		in := input(fmt.Sprint("kind-", int(k)), minimal(k))
		in.Tags = []firehose.Tag{{Key: api.Ptr("k"), Value: api.Ptr("v")}}
		if k == kindS3 {
			in.DeliveryStreamEncryptionConfigurationInput = customerKey(knownKey)
		}
		r.mustCreate(in)
	}
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("kind-0"), ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{Prefix: api.Ptr("new/")}}); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for k := range kinds {
		name := fmt.Sprint("kind-", int(k))
		before[name] = golden(t, r.describe(name))
	}
	if err := r.create(input("half", minimal(kindS3))); err != nil {
		t.Fatal(err)
	}
	if err := r.delete("kind-1", false); err != nil {
		t.Fatal(err)
	}
	r.restart()
	for name, want := range before {
		if name == "kind-1" {
			continue
		}
		if got := golden(t, r.describe(name)); got != want {
			t.Errorf("%s is described as\n%s\nafter the restart, was\n%s", name, got, want)
		}
		if r.engine.definition(r.get(name).record.ID) == nil {
			t.Errorf("%s does not run", name)
		}
	}
	if d := r.engine.definition(r.get("kind-0").record.ID); d.Version != 2 || d.Encryption == nil {
		t.Errorf("runs as %+v", d)
	}
	if got := r.status("half"); got != firehose.DeliveryStreamStatusCreating {
		t.Errorf("half is %s", got)
	}
	r.settleAll()
	if got := r.status("half"); got != firehose.DeliveryStreamStatusActive {
		t.Errorf("half becomes %s", got)
	}
	if r.registry.stream(streamName{testAccount, testRegion, "kind-1"}) != nil {
		t.Error("the deletion was forgotten")
	}
}

// A delivery stream that can no longer be put together keeps what it is given
// and says why it does not deliver.
func TestBrokenAfterRestart(t *testing.T) {
	operator, err := ParseOperator([]byte("destinations:\n  archive: {type: s3, bucket: archive}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options) { o.Parts.Operator = operator })
	d := minimal(kindHTTP)
	d.HTTP.EndpointConfiguration.Url = api.Ptr("https://destinations.millrace.internal/archive")
	st := r.mustCreate(input("s", d))
	r.opts.Parts.Operator = nil
	r.restart()
	definition := r.engine.definition(st.record.ID)
	if definition == nil {
		t.Fatal("it does not run")
	}
	if _, err := definition.Main.Deliver(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "There is no destination named archive on this server") {
		t.Errorf("delivery says %v", err)
	}
	if err := r.put("s", "kept"); err != nil {
		t.Error(err)
	}
	// The operator's file is put back.
	r.opts.Parts.Operator = operator
	r.restart()
	if _, broken := r.engine.definition(st.record.ID).Main.(brokenDestination); broken {
		t.Error("still broken")
	}
}

// An engine that fails does not undo what is stored: Run brings it into line.
func TestEngineFailuresAreRepeated(t *testing.T) {
	r := newRig(t, nil)
	st := r.mustCreate(input("s", minimal(kindS3)))
	r.engine.apply = errors.New("disk on fire")
	if err := r.update(&firehose.UpdateDestinationInput{DeliveryStreamName: api.Ptr("s"), ExtendedS3DestinationUpdate: &firehose.ExtendedS3DestinationUpdate{Prefix: api.Ptr("new/")}}); err != nil {
		t.Fatal(err)
	}
	if d := r.engine.definition(st.record.ID); d.Version != 1 {
		t.Fatalf("version %d runs", d.Version)
	}
	r.finishDue(t.Context())
	if d := r.engine.definition(st.record.ID); d.Version != 2 {
		t.Errorf("version %d runs after Run", d.Version)
	}
	applies := r.engine.applies
	r.finishDue(t.Context())
	if r.engine.applies != applies {
		t.Error("what runs is applied again")
	}
}
