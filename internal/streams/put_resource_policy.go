package streams

import (
	"context"
	"encoding/json"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// maxPolicyBytes bounds a resource policy.
const maxPolicyBytes = 20 << 10

// PutResourcePolicy gives a stream, consumer or queue the policy that decides
// what others may do with it, in place of the one it has. The policy is JSON of
// at most 20 KiB; every statement has an Effect, a Principal and an Action, and
// names no other Resource than the ARN itself; else InvalidArgument. The
// resource must be ACTIVE (a stream may be UPDATING), else ResourceInUse.
func (s *Service) PutResourcePolicy(ctx context.Context, call *api.Call, in *kinesis.PutResourcePolicyInput) (*kinesis.PutResourcePolicyOutput, error) {
	policy := api.Val(in.Policy)
	for {
		r, err := s.resolveResource(call, api.Val(in.ResourceARN))
		if err != nil {
			return nil, err
		}
		if r.busy != nil {
			return nil, r.busy
		}
		if err := checkPolicy(policy, r.arn); err != nil {
			return nil, err
		}
		old := s.registry.attributesOf(r.arn)
		conflict, err := s.writeAttributes(ctx, r, old, attributesRecord{Tags: old.Tags, Policy: policy})
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.PutResourcePolicyOutput{}, nil
		}
	}
}

// checkPolicy refuses what is no policy for the resource with an ARN. What the
// statements mean is the business of package iam.
func checkPolicy(policy, arn string) error {
	if len(policy) > maxPolicyBytes {
		return invalidArgument("Policy must not be larger than %d bytes.", maxPolicyBytes)
	}
	var document struct {
		Statement json.RawMessage
	}
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return invalidArgument("Policy is not a valid JSON document.")
	}
	var statements []map[string]json.RawMessage
	if json.Unmarshal(document.Statement, &statements) != nil {
		var one map[string]json.RawMessage
		if json.Unmarshal(document.Statement, &one) != nil || one == nil {
			return invalidArgument("Policy must have a Statement.")
		}
		statements = append(statements, one)
	}
	if len(statements) == 0 {
		return invalidArgument("Policy must have a Statement.")
	}
	for _, st := range statements {
		var effect string
		if json.Unmarshal(st["Effect"], &effect) != nil || effect != "Allow" && effect != "Deny" {
			return invalidArgument("Policy has a statement whose Effect is neither Allow nor Deny.")
		}
		if st["Principal"] == nil && st["NotPrincipal"] == nil {
			return invalidArgument("Policy has a statement without a Principal.")
		}
		if st["Action"] == nil && st["NotAction"] == nil {
			return invalidArgument("Policy has a statement without an Action.")
		}
		for _, resource := range oneOrMore(st["Resource"]) {
			if resource != arn {
				return invalidArgument("Policy has a statement for Resource %s, while it is attached to %s.", resource, arn)
			}
		}
		if st["Resource"] == nil || st["NotResource"] != nil {
			return invalidArgument("Policy has a statement without a Resource.")
		}
	}
	return nil
}

// oneOrMore reads a string or a list of strings; anything else is one string
// that names nothing.
func oneOrMore(raw json.RawMessage) []string {
	if raw == nil {
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	var many []string
	if json.Unmarshal(raw, &many) == nil {
		return many
	}
	return []string{""}
}
