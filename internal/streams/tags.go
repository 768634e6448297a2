package streams

import (
	"context"
	"maps"
	"strings"
	"unicode"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// maxTags bounds the tags of one resource.
const maxTags = 50

// resource is what tags and policies hang on.
type resource struct {
	arn     string
	account string // the owner
	what    string // for texts: "stream orders"
	// guard is an operation that fails if the resource has changed; part of
	// every commit about it.
	guard meta.Op
	// busy refuses a policy while the resource is not ACTIVE; nil otherwise.
	busy error
}

// resolveResource finds the stream, consumer, channel or queue with an ARN.
func (s *Service) resolveResource(call *api.Call, arn string) (resource, error) {
	region, account, kind, ok := parseARN(arn)
	if !ok {
		return resource{}, invalidArgument("ResourceARN %s is not the ARN of a Kinesis resource.", arn)
	}
	if strings.HasPrefix(kind, "channel/") {
		if ch := s.registry.channel(arn); ch != nil && region == call.Region {
			return ch.resource(), nil
		}
		return resource{}, resourceNotFound("Channel %s, account %s not found.", strings.TrimPrefix(kind, "channel/"), account)
	}
	if strings.HasPrefix(kind, "queue/") {
		if r, ok := s.queues.resource(arn); ok && region == call.Region {
			return r, nil
		}
		return resource{}, resourceNotFound("Queue %s, account %s not found.", strings.TrimPrefix(kind, "queue/"), account)
	}
	if strings.Contains(kind, "/consumer/") {
		n, name, created, ok := parseConsumerARN(arn)
		if !ok {
			return resource{}, invalidArgument("ResourceARN %s is not the ARN of a consumer.", arn)
		}
		c := s.registry.consumer(arn)
		if c == nil || region != call.Region {
			return resource{}, consumerNotFound(name, account)
		}
		st := s.registry.stream(n)
		if st == nil {
			return resource{}, streamNotFound(n.account, n.name)
		}
		r := resource{arn: arn, account: account, what: "consumer " + name, guard: st.update(st.record)}
		if c.status != kinesis.ConsumerStatusActive {
			r.busy = resourceInUse("Consumer %s with creation timestamp %d under stream %s and account %s is not in ACTIVE status.", name, created, n.name, account)
		}
		return r, nil
	}
	st, err := s.resolve(call, nil, &arn)
	if err != nil {
		return resource{}, err
	}
	return st.resource(), nil
}

func (st *stream) resource() resource {
	r := resource{arn: st.arn, account: st.account, what: "stream " + st.name, guard: st.update(st.record)}
	if !st.readable() {
		r.busy = notActive(st)
	}
	return r
}

// writeAttributes stores a resource's tags and policy as they shall be.
func (s *Service) writeAttributes(ctx context.Context, r resource, old attributesVersion, next attributesRecord) (conflict bool, err error) {
	row := meta.Row[attributesRecord]{Key: attributesTable.Key(r.arn), Version: old.version, Value: next}
	var op meta.Op
	switch {
	case next.empty() && old.version == 0:
		return false, nil
	case next.empty():
		op = attributesTable.Delete(row)
	case old.version == 0:
		op = attributesTable.Insert(next, r.arn)
	default:
		op = attributesTable.Update(row)
	}
	return s.commit(ctx, r.guard, op)
}

// addTags merges tags into those of a resource.
func (s *Service) addTags(ctx context.Context, r resource, tags map[string]string) (conflict bool, err error) {
	old := s.registry.attributesOf(r.arn)
	next := attributesRecord{Tags: maps.Clone(old.Tags), Policy: old.Policy}
	if next.Tags == nil {
		next.Tags = map[string]string{}
	}
	maps.Copy(next.Tags, tags)
	if err := checkTags(r.what, r.account, tags, len(next.Tags)); err != nil {
		return false, err
	}
	return s.writeAttributes(ctx, r, old, next)
}

// removeTags removes tags from a resource; keys that are not there are ignored.
func (s *Service) removeTags(ctx context.Context, r resource, keys []string) (conflict bool, err error) {
	old := s.registry.attributesOf(r.arn)
	next := attributesRecord{Tags: maps.Clone(old.Tags), Policy: old.Policy}
	for _, k := range keys {
		delete(next.Tags, k)
	}
	if len(next.Tags) == len(old.Tags) {
		return false, nil
	}
	return s.writeAttributes(ctx, r, old, next)
}

// checkTags refuses tags that break a rule; total is how many the resource
// would have with them. what is "stream orders" or the like.
func checkTags(what, account string, tags map[string]string, total int) error {
	for k, v := range tags {
		if len(k) >= 4 && strings.EqualFold(k[:4], "aws:") {
			return invalidArgument("Failed to add tags to %s under account %s because tag keys that start with aws: are reserved.", what, account)
		}
		if strings.ContainsFunc(k, notTagRune) || strings.ContainsFunc(v, notTagRune) {
			return invalidArgument("Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @.")
		}
		// The text above allows a percent sign; the next check does not.
		if strings.Contains(k, "%") || strings.Contains(v, "%") {
			return invalidArgument("Failed to add tags to %s under account %s because some tags contained illegal characters. "+
				"The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'.", what, account)
		}
	}
	if total > maxTags {
		return invalidArgument("Failed to add tags to %s under account %s because a given stream cannot have more than %d tags associated with it.", what, account, maxTags)
	}
	return nil
}

func notTagRune(r rune) bool {
	return !(unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r) || unicode.IsSpace(r) || strings.ContainsRune("_.:,/=+-%@", r))
}
