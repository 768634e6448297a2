package iam

import (
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
)

// Request is a question to the policies.
type Request struct {
	Principal       api.Principal
	Action          string // "kinesis:PutRecords"
	Resource        string // ARN, or "*" if the action has none
	ResourceAccount string // owner of the resource; the principal's own if empty
	// Context holds the condition keys that do not follow from the principal,
	// see CallContext. Keys are compared without regard to case.
	Context map[string][]string
	// Values makes the Context when a policy first asks for a key of it; most
	// never do. It is used if Context is nil.
	Values func() map[string][]string
	// Session holds the session policies, which take away and never give. nil
	// means there are none; an empty list allows nothing.
	Session []*Policy
}

// Decision is an answer. Reason is the text for a caller that is refused.
type Decision struct {
	Allowed bool
	Reason  string
}

// Err returns the refusal as an AccessDeniedException, and nil if the request
// is allowed.
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return api.NewFrontError(api.CodeAccessDenied, d.Reason)
}

// CallContext returns the condition keys of a call.
func CallContext(call *api.Call) map[string][]string {
	m := map[string][]string{
		"aws:CurrentTime":     {call.Time.UTC().Format(time.RFC3339)},
		"aws:EpochTime":       {strconv.FormatInt(call.Time.Unix(), 10)},
		"aws:SecureTransport": {strconv.FormatBool(call.Secure)},
		"aws:RequestedRegion": {call.Region},
	}
	if call.Remote.IsValid() {
		m["aws:SourceIp"] = []string{call.Remote.Addr().Unmap().String()}
	}
	if call.UserAgent != "" {
		m["aws:UserAgent"] = []string{call.UserAgent}
	}
	return m
}

// Evaluate decides a request. An explicit deny in any policy wins. Within an
// account it is enough that the identity's policies or the resource's allow the
// action; across accounts both must. Session policies must allow it as well.
// The root of an account may do everything in it that no policy denies.
// resource is the policy of the resource, nil if it has none.
//
// A resource policy that names an account hands the decision to that account:
// in the same account it gives no permission by itself.
func Evaluate(r Request, identity []*Policy, resource *Policy) Decision {
	e := &environment{request: &r}
	refuse := func(why string) Decision {
		arn := r.Principal.ARN
		if arn == "" {
			arn = "anonymous"
		}
		return Decision{Reason: "User: " + arn + " is not authorized to perform: " + r.Action + " on resource: " + r.Resource + " " + why}
	}
	silent := func(kind string) Decision {
		return refuse("because no " + kind + " policy allows the " + r.Action + " action")
	}
	const deny = "with an explicit deny in "

	byIdentity := e.policies(identity)
	byResource := verdict{}
	if resource != nil {
		byResource = e.policies([]*Policy{resource})
	}
	bySession := verdict{allow: true}
	if r.Session != nil {
		bySession = e.policies(r.Session)
	}
	switch {
	case byIdentity.deny:
		return refuse(deny + "an identity-based policy")
	case byResource.deny:
		return refuse(deny + "a resource-based policy")
	case bySession.deny:
		return refuse(deny + "a session policy")
	}
	cross := r.ResourceAccount != "" && r.ResourceAccount != r.Principal.AccountID
	own := byIdentity.allow || r.Principal.Type == "Account"
	switch {
	case cross && !own, !cross && !own && !(byResource.allow && byResource.direct):
		return silent("identity-based")
	case cross && !byResource.allow:
		return silent("resource-based")
	case !bySession.allow:
		return silent("session")
	}
	return Decision{Allowed: true}
}

// verdict is what a set of policies says.
type verdict struct {
	allow, deny bool
	direct      bool // an allowing statement names the principal itself, not its account
}

// environment is a request with what follows from it.
type environment struct{ request *Request }

func (e *environment) policies(list []*Policy) (v verdict) {
	for _, p := range list {
		for i := range p.Statements {
			s := &p.Statements[i]
			matched, direct := e.applies(s)
			switch {
			case !matched:
			case s.Deny:
				v.deny = true
				return v
			default:
				v.allow = true
				v.direct = v.direct || direct
			}
		}
	}
	return v
}

func (e *environment) applies(s *Statement) (matched, direct bool) {
	if len(s.Actions) > 0 && !e.action(s.Actions) || len(s.NotActions) > 0 && e.action(s.NotActions) {
		return false, false
	}
	if len(s.Resources) > 0 && !e.resource(s.Resources, s.variables) || len(s.NotResources) > 0 && e.resource(s.NotResources, s.variables) {
		return false, false
	}
	direct = true
	if s.principal != nil {
		if matched, direct = s.principal.match(&e.request.Principal); !matched {
			return false, false
		}
	}
	if s.notPrincipal != nil {
		if excepted, _ := s.notPrincipal.match(&e.request.Principal); excepted {
			return false, false
		}
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(e, s.variables) {
			return false, false
		}
	}
	return true, direct
}

func (e *environment) action(patterns []string) bool {
	for _, p := range patterns {
		if matchText(p, e.request.Action, true) {
			return true
		}
	}
	return false
}

func (e *environment) resource(patterns []string, variables bool) bool {
	for _, p := range patterns {
		if !variables || !strings.Contains(p, "${") {
			if matchText(p, e.request.Resource, false) {
				return true
			}
			continue
		}
		if expanded, ok := e.expand(p, true); ok && expanded.match(e.request.Resource, false) {
			return true
		}
	}
	return false
}

// match reports whether the element names the principal; direct is false if it
// only names the account.
func (p *principals) match(who *api.Principal) (matched, direct bool) {
	if p.everybody {
		return true, true
	}
	for _, name := range p.kinds["AWS"] {
		switch {
		case who.ARN == "":
		case name == who.ARN, name == who.SessionIssuer && name != "", name == who.UserID:
			return true, true
		case isUniqueID(name) && strings.HasPrefix(who.UserID, name+":"):
			return true, true
		case name == who.AccountID, strings.HasPrefix(name, "arn:") && strings.HasSuffix(name, ":iam::"+who.AccountID+":root"):
			matched = true
		}
	}
	for _, name := range p.kinds["Service"] {
		if who.Type == "Service" && name == who.ARN {
			return true, true
		}
	}
	for _, name := range p.kinds["Federated"] {
		if who.Type == "Federated" && name == who.ARN {
			return true, true
		}
	}
	return matched, false
}

// lookup finds the values of a condition key.
func (e *environment) lookup(key string) ([]string, bool) {
	p := &e.request.Principal
	one := func(v string) ([]string, bool) { return []string{v}, v != "" }
	switch strings.ToLower(key) {
	case "aws:principalarn":
		if p.SessionIssuer != "" {
			return one(p.SessionIssuer)
		}
		return one(p.ARN)
	case "aws:principalaccount":
		return one(p.AccountID)
	case "aws:principaltype":
		return one(p.Type)
	case "aws:userid":
		return one(p.UserID)
	case "aws:username":
		if p.Type != "User" {
			return nil, false
		}
		return one(p.ARN[strings.LastIndexByte(p.ARN, '/')+1:])
	case "aws:resourceaccount":
		if e.request.ResourceAccount == "" {
			return one(p.AccountID)
		}
		return one(e.request.ResourceAccount)
	}
	if e.request.Context == nil && e.request.Values != nil {
		e.request.Context = e.request.Values()
	}
	if v, ok := e.request.Context[key]; ok {
		return v, len(v) > 0
	}
	for k, v := range e.request.Context {
		if strings.EqualFold(k, key) {
			return v, len(v) > 0
		}
	}
	return nil, false
}

// expand replaces policy variables. It fails if one has no value, or more than
// one: the pattern then matches nothing.
func (e *environment) expand(s string, variables bool) (pattern, bool) {
	p := make(pattern, 0, len(s)+32)
	for variables {
		before, rest, ok := strings.Cut(s, "${")
		if !ok {
			break
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			break
		}
		p = appendPattern(p, before)
		s = after
		switch name {
		case "*", "?", "$":
			p = appendText(p, name)
			continue
		}
		name, fallback, defaulted := strings.Cut(name, ",")
		values, there := e.lookup(strings.TrimSpace(name))
		switch {
		case there && len(values) == 1:
			p = appendText(p, values[0])
		case !there && defaulted:
			p = appendText(p, strings.Trim(strings.TrimSpace(fallback), "'"))
		default:
			return nil, false
		}
	}
	return appendPattern(p, s), true
}

// EvaluateTrust decides whether a principal may assume a role. Unlike other
// resource policies the trust policy must always allow it; if it names only the
// principal's account, or the principal is of another account, an identity
// policy must allow it too.
func EvaluateTrust(r Request, identity []*Policy, trust *Policy) Decision {
	e := &environment{request: &r}
	byTrust := e.policies([]*Policy{trust})
	byIdentity := e.policies(identity)
	bySession := verdict{allow: true}
	if r.Session != nil {
		bySession = e.policies(r.Session)
	}
	cross := r.ResourceAccount != r.Principal.AccountID
	own := byIdentity.allow || r.Principal.Type == "Account" || r.Principal.Type == "Federated"
	if byTrust.deny || byIdentity.deny || bySession.deny || !byTrust.allow || !bySession.allow || !own && (cross || !byTrust.direct) {
		return Decision{Reason: "User: " + r.Principal.ARN + " is not authorized to perform: " + r.Action + " on resource: " + r.Resource}
	}
	return Decision{Allowed: true}
}
