package firehose

import (
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// ResourceARN is the ARN of the delivery stream that a call is about and the
// account that owns it, which is the caller's; "*" for calls about none in
// particular. It does not look whether the delivery stream is there.
func (s *Service) ResourceARN(call *api.Call, in api.Shape) (arn, owner string) {
	if call.Operation == nil || call.Operation.Resource == nil {
		return "*", call.Account
	}
	name, kind := call.Operation.Resource(in)
	if name == "" || kind == api.ResourceNone {
		return "*", call.Account
	}
	return streamName{call.Account, call.Region, name}.arn(), call.Account
}

// PassedRole is a role that a call hands to the service.
type PassedRole struct{ ARN, Account string }

// Passes tells what else a call asks for: whether it tags what it creates, and
// which roles it passes.
func (s *Service) Passes(call *api.Call, in api.Shape) (tags bool, roles []PassedRole) {
	switch in := in.(type) {
	case *firehose.CreateDeliveryStreamInput:
		tags = len(in.Tags) > 0
	case *firehose.UpdateDestinationInput:
	default:
		return false, nil
	}
	for _, arn := range rolesOf(in) {
		roles = append(roles, PassedRole{arn, arnAccount(arn)})
	}
	return tags, roles
}

// ResourcePolicy finds none: delivery streams have no policies of their own.
func (s *Service) ResourcePolicy(string) (policy string, ok bool) { return "", false }

// ConditionValues are aws:ResourceTag/… of the delivery stream, and
// aws:RequestTag/… and aws:TagKeys of the tags that a call brings or takes.
func (s *Service) ConditionValues(call *api.Call, in api.Shape) map[string][]string {
	values := map[string][]string{}
	arn, _ := s.ResourceARN(call, in)
	if name, ok := parseStreamARN(arn); ok {
		if st := s.registry.stream(name); st != nil {
			for k, v := range st.record.Tags {
				values["aws:ResourceTag/"+k] = []string{v}
			}
		}
	}
	var tags []firehose.Tag
	var keys []string
	switch in := in.(type) {
	case *firehose.CreateDeliveryStreamInput:
		tags = in.Tags
	case *firehose.TagDeliveryStreamInput:
		tags = in.Tags
	case *firehose.UntagDeliveryStreamInput:
		keys = in.TagKeys
	}
	for _, t := range tags {
		values["aws:RequestTag/"+api.Val(t.Key)] = []string{api.Val(t.Value)}
		keys = append(keys, api.Val(t.Key))
	}
	if len(keys) > 0 {
		values["aws:TagKeys"] = keys
	}
	return values
}
