package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DeleteResourcePolicy removes the policy of a stream, consumer or queue;
// ResourceNotFound if it has none.
func (s *Service) DeleteResourcePolicy(ctx context.Context, call *api.Call, in *kinesis.DeleteResourcePolicyInput) (*kinesis.DeleteResourcePolicyOutput, error) {
	for {
		r, err := s.resolveResource(call, api.Val(in.ResourceARN))
		if err != nil {
			return nil, err
		}
		if r.busy != nil {
			return nil, r.busy
		}
		old := s.registry.attributesOf(r.arn)
		if old.Policy == "" {
			return nil, resourceNotFound("No resource policy found for resource ARN %s", r.arn)
		}
		conflict, err := s.writeAttributes(ctx, r, old, attributesRecord{Tags: old.Tags})
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.DeleteResourcePolicyOutput{}, nil
		}
	}
}
