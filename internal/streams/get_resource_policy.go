package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// GetResourcePolicy returns the policy of a stream, consumer or queue as it was
// put. Without one the reply is a success with an empty object, not an error.
func (s *Service) GetResourcePolicy(ctx context.Context, call *api.Call, in *kinesis.GetResourcePolicyInput) (*kinesis.GetResourcePolicyOutput, error) {
	r, err := s.resolveResource(call, api.Val(in.ResourceARN))
	if err != nil {
		return nil, err
	}
	out := &kinesis.GetResourcePolicyOutput{}
	if policy := s.registry.attributesOf(r.arn).Policy; policy != "" {
		out.Policy = &policy
	}
	return out, nil
}
