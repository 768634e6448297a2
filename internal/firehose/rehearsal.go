package firehose

import (
	"context"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/objects"
)

// Located is a delivery stream as what goes beyond the service's API sees it.
type Located struct {
	ID, ARN, Name, Account, Region string
	Version                        int
	// Direct says that records are put to it, and not read from somewhere.
	Direct bool
	// Errors is where the error output is: a bucket, seen as the role that writes
	// there, and what all its keys begin with, those of tables too.
	Errors struct {
		Store  objects.Store
		Bucket string
		Prefix string
	}
}

// Locate finds the delivery stream that a call names.
func (s *Service) Locate(call *api.Call, name *string) (*Located, error) {
	st, err := s.resolve(call, name)
	if err != nil {
		return nil, err
	}
	l := &Located{ID: st.record.ID, ARN: st.arn, Name: st.name, Account: st.account, Region: st.region, Version: st.record.Version,
		Direct: st.record.Source.Kinesis == nil && st.record.Source.MSK == nil}
	a := &assembly{parts: &s.options.Parts, stream: st.streamName, d: st.record.Destination.clone().effective()}
	role, bucket, prefix, failures := "", "", "", ""
	if e := a.d.ExtendedS3; e != nil {
		role, bucket, prefix, failures = *e.RoleARN, *e.BucketARN, api.Val(e.Prefix), api.Val(e.ErrorOutputPrefix)
	} else {
		c := a.d.shared().S3Configuration
		role, bucket, prefix, failures = *c.RoleARN, *c.BucketARN, api.Val(c.Prefix), api.Val(c.ErrorOutputPrefix)
	}
	if failures == "" {
		failures = prefix
	}
	l.Errors.Store, l.Errors.Bucket = a.store(role), bucketOf(bucket)
	l.Errors.Prefix, _, _ = strings.Cut(failures, "!{")
	if a.d.Iceberg != nil {
		for _, t := range a.d.Iceberg.DestinationTableConfigurationList {
			if own := api.Val(t.S3ErrorOutputPrefix); own != "" {
				own, _, _ = strings.Cut(own, "!{")
				l.Errors.Prefix = common(l.Errors.Prefix, own)
			}
		}
	}
	return l, nil
}

// common is what both begin with.
func common(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// Ready has the engine learn of a delivery stream that became ACTIVE a moment ago;
// its state is published before that.
func (s *Service) Ready(ctx context.Context, id string) error { return s.reconcile(ctx, id) }

// Rehearsal puts a delivery stream together with another object store. captured
// says that its destination writes there; otherwise it is the real one, and must
// not be delivered to. The caller closes Main.
func (s *Service) Rehearsal(ctx context.Context, call *api.Call, name *string, store objects.Store) (d *delivery.Definition, captured bool, err error) {
	st, err := s.resolve(call, name)
	if err != nil {
		return nil, false, err
	}
	full, err := s.revealed(st)
	if err != nil {
		return nil, false, err
	}
	parts := s.options.Parts
	parts.Objects, parts.As = store, nil
	effective := full.effective()
	a := &assembly{ctx: ctx, parts: &parts, stream: st.streamName, id: st.record.ID, d: effective, shared: effective.shared(), out: new(delivery.Definition),
		current: func() *destination { return effective }}
	for _, step := range []func() error{a.chain, a.outputs, a.main} {
		if err := step(); err != nil {
			return nil, false, invalidArgument("%s", err.Error())
		}
	}
	s.identify(a.out, st)
	return a.out, effective.ExtendedS3 != nil, nil
}
