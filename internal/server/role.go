package server

import (
	"cmp"
	"context"
	"io"
	"net/http"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/functions"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/objects"
)

// roleAccess holds what deliveries and applications do to what their roles may do.
type roleAccess struct {
	directory *iam.Directory
	buckets   *objects.Embedded
	// own says that objects go to buckets, whose owners are known here.
	own bool
	// session names what acts: "delivery" if empty.
	session string
	// service, if set, must be trusted by the role at each use: it was not asked
	// when the role was named.
	service string
}

// may asks the policies of a role. account owns the resource; empty is the
// role's own.
func (a roleAccess) may(role, action, resource, account string) iam.Decision {
	r, ok := a.directory.Role(role)
	if !ok {
		return iam.Decision{Reason: "role " + role + " does not exist"}
	}
	if a.service != "" {
		if err := trusts(r, a.service); err != nil {
			return iam.Decision{Reason: "role " + role + " does not trust " + a.service}
		}
	}
	session := cmp.Or(a.session, "delivery")
	return iam.Evaluate(iam.Request{
		Principal: api.Principal{
			AccountID: r.Account, ARN: "arn:aws:sts::" + r.Account + ":assumed-role/" + r.Name + "/" + session, Type: "AssumedRole", SessionIssuer: r.ARN(), UserID: r.ID + ":" + session,
		},
		Action: action, Resource: resource, ResourceAccount: account,
		Values: func() map[string][]string { return nil },
	}, r.IdentityPolicies(), nil)
}

// trusts is nil if a service may assume a role.
func trusts(role *iam.Role, service string) error {
	return iam.EvaluateTrust(iam.Request{
		Principal: api.Principal{AccountID: role.Account, ARN: service, Type: "Service"},
		Action:    "sts:AssumeRole", Resource: role.ARN(), ResourceAccount: role.Account,
		Values: func() map[string][]string { return nil },
	}, nil, role.TrustPolicy()).Err()
}

// invoker runs functions as a role.
func (a roleAccess) invoker(invoker process.Invoker, role string) process.Invoker {
	return roleInvoker{invoker, a, role}
}

type roleInvoker struct {
	process.Invoker
	access roleAccess
	role   string
}

func (i roleInvoker) Invoke(ctx context.Context, arn string, payload []byte) (process.Answer, error) {
	account := ""
	if name, ok := functions.ParseName(arn); ok {
		account = name.Account
	}
	if d := i.access.may(i.role, "lambda:InvokeFunction", arn, account); !d.Allowed {
		return process.Answer{}, &process.InvokeError{Code: "Lambda.InvokeAccessDenied", Message: d.Reason}
	}
	return i.Invoker.Invoke(ctx, arn, payload)
}

// store is an object store as a role sees it.
func (a roleAccess) store(store objects.Store, role string) objects.Store {
	return roleStore{store, a, role}
}

type roleStore struct {
	objects.Store
	access roleAccess
	role   string
}

func (s roleStore) check(ctx context.Context, action, bucket, key string) error {
	account := ""
	if s.access.own {
		// A bucket that is not there is for the store to refuse.
		if list, _, err := s.access.buckets.Buckets(ctx, bucket, "", 1); err == nil && len(list) == 1 && list[0].Name == bucket {
			account = list[0].Account
		}
	}
	resource := "arn:aws:s3:::" + bucket
	if key != "" {
		resource += "/" + key
	}
	if d := s.access.may(s.role, action, resource, account); !d.Allowed {
		return &objects.Error{Code: objects.CodeAccessDenied, Status: http.StatusForbidden, Message: d.Reason}
	}
	return nil
}

func (s roleStore) Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o objects.PutOptions) (objects.Info, error) {
	if err := s.check(ctx, "s3:PutObject", bucket, key); err != nil {
		return objects.Info{}, err
	}
	return s.Store.Put(ctx, bucket, key, body, size, o)
}

func (s roleStore) Get(ctx context.Context, bucket, key string, r objects.Range) (io.ReadCloser, objects.Info, error) {
	if err := s.check(ctx, "s3:GetObject", bucket, key); err != nil {
		return nil, objects.Info{}, err
	}
	return s.Store.Get(ctx, bucket, key, r)
}

func (s roleStore) Head(ctx context.Context, bucket, key string) (objects.Info, error) {
	if err := s.check(ctx, "s3:GetObject", bucket, key); err != nil {
		return objects.Info{}, err
	}
	return s.Store.Head(ctx, bucket, key)
}

func (s roleStore) Delete(ctx context.Context, bucket, key string) error {
	if err := s.check(ctx, "s3:DeleteObject", bucket, key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, bucket, key)
}

func (s roleStore) List(ctx context.Context, bucket, prefix, after string, max int) ([]objects.Info, bool, error) {
	if err := s.check(ctx, "s3:ListBucket", bucket, ""); err != nil {
		return nil, false, err
	}
	return s.Store.List(ctx, bucket, prefix, after, max)
}
