package iam

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
)

const (
	account = "123456789012"
	orders  = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
)

func alice() api.Principal {
	return api.Principal{AccountID: account, ARN: "arn:aws:iam::" + account + ":user/alice", UserID: "AIDAALICEALICEALICE12", Type: "User"}
}

func mustParse(t testing.TB, text string, kind Kind) *Policy {
	t.Helper()
	p, err := ParsePolicy(text, kind)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func statement(body string) string {
	return `{"Version":"2012-10-17","Statement":{` + body + `}}`
}

func allow(rest string) string { return statement(`"Effect":"Allow",` + rest) }
func deny(rest string) string  { return statement(`"Effect":"Deny",` + rest) }

const everything = `"Action":"*","Resource":"*"`

func TestEvaluate(t *testing.T) {
	const (
		noIdentity = "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: kinesis:PutRecord on resource: " + orders + " because no identity-based policy allows the kinesis:PutRecord action"
		noResource = "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: kinesis:PutRecord on resource: " + orders + " because no resource-based policy allows the kinesis:PutRecord action"
		noSession  = "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: kinesis:PutRecord on resource: " + orders + " because no session policy allows the kinesis:PutRecord action"
		denied     = "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: kinesis:PutRecord on resource: " + orders + " with an explicit deny in "
		toAlice    = `"Principal":{"AWS":"arn:aws:iam::123456789012:user/alice"},`
		toAccount  = `"Principal":{"AWS":"123456789012"},`
		put        = `"Action":"kinesis:PutRecord","Resource":"` + orders + `"`
	)
	for _, c := range []struct {
		name, identity, resource, session string
		owner                             string
		root                              bool
		want                              string
	}{
		{name: "no policy", want: noIdentity},
		{name: "everything allowed", identity: allow(everything)},
		{name: "action in another case", identity: allow(`"Action":"Kinesis:putrecord","Resource":"*"`)},
		{name: "wildcards", identity: allow(`"Action":"kinesis:Put*","Resource":"arn:aws:kinesis:*:123456789012:stream/or?ers"`)},
		{name: "another resource", identity: allow(`"Action":"*","Resource":"` + orders + `2"`), want: noIdentity},
		{name: "resource in another case", identity: allow(`"Action":"*","Resource":"arn:aws:kinesis:us-east-1:123456789012:stream/ORDERS"`), want: noIdentity},
		{name: "one of several", identity: allow(`"Action":["a:b","kinesis:PutRecord"],"Resource":["` + orders + `/x","` + orders + `"]`)},
		{name: "not action", identity: allow(`"NotAction":"kinesis:Get*","Resource":"*"`)},
		{name: "excepted action", identity: allow(`"NotAction":"kinesis:Put*","Resource":"*"`), want: noIdentity},
		{name: "excepted resource", identity: allow(`"Action":"*","NotResource":"` + orders + `"`), want: noIdentity},
		{name: "deny wins", identity: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + everything + `},{"Effect":"Deny",` + put + `}]}`, want: denied + "an identity-based policy"},
		{name: "resource policy alone", resource: allow(toAlice + put)},
		{name: "resource policy of the account alone", resource: allow(toAccount + put), want: noIdentity},
		{name: "resource policy for everybody", resource: allow(`"Principal":"*",` + put)},
		{name: "resource policy denies", identity: allow(everything), resource: deny(toAlice + put), want: denied + "a resource-based policy"},
		{name: "all but alice are denied", identity: allow(everything), resource: deny(`"NotPrincipal":{"AWS":"arn:aws:iam::123456789012:user/alice"},` + put)},
		{name: "all but bob are denied", identity: allow(everything), resource: deny(`"NotPrincipal":{"AWS":"arn:aws:iam::123456789012:user/bob"},` + put), want: denied + "a resource-based policy"},
		{name: "cross-account, identity only", owner: "999999999999", identity: allow(everything), want: noResource},
		{name: "cross-account, resource only", owner: "999999999999", resource: allow(toAlice + put), want: noIdentity},
		{name: "cross-account, both", owner: "999999999999", identity: allow(everything), resource: allow(toAccount + put)},
		{name: "root", root: true},
		{name: "root across accounts", root: true, owner: "999999999999", want: noResource},
		{name: "root denied", root: true, resource: deny(`"Principal":"*",` + put), want: denied + "a resource-based policy"},
		{name: "session narrows", identity: allow(everything), session: allow(`"Action":"kinesis:Get*","Resource":"*"`), want: noSession},
		{name: "session allows", identity: allow(everything), session: allow(put)},
		{name: "session gives nothing", session: allow(put), want: noIdentity},
		{name: "session denies", identity: allow(everything), session: deny(put), want: denied + "a session policy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Request{Principal: alice(), Action: "kinesis:PutRecord", Resource: orders, ResourceAccount: account}
			if c.owner != "" {
				r.ResourceAccount = c.owner
			}
			if c.root {
				r.Principal.Type = "Account"
			}
			if c.session != "" {
				r.Session = []*Policy{mustParse(t, c.session, IdentityPolicy)}
			}
			var identity []*Policy
			if c.identity != "" {
				identity = append(identity, mustParse(t, c.identity, IdentityPolicy))
			}
			var resource *Policy
			if c.resource != "" {
				resource = mustParse(t, c.resource, ResourcePolicy)
			}
			d := Evaluate(r, identity, resource)
			if d.Allowed != (c.want == "") || d.Reason != c.want {
				t.Errorf("got  %+v\nwant %s", d, c.want)
			}
			var modelled api.Error
			if err := d.Err(); err != nil && (!errors.As(err, &modelled) || modelled.ErrorCode() != "AccessDeniedException") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	context := map[string][]string{
		"s": {"Blue"}, "n": {"10"}, "d": {"2026-03-04T05:06:07Z"}, "b": {"true"}, "bin": {"aGk="},
		"aws:SourceIp": {"10.1.2.3"}, "v6": {"2001:db8::1"}, "arn": {"arn:aws:iam::1:role/a/b"},
		"set": {"red", "green"}, "star": {"*"}, "aws:ResourceTag/owner": {"alice"},
	}
	for _, c := range []struct {
		condition string
		want      bool
	}{
		{`"StringEquals":{"s":"Blue"}`, true},
		{`"StringEquals":{"S":["Red","Blue"]}`, true},
		{`"StringEquals":{"s":"blue"}`, false},
		{`"StringEquals":{"absent":"x"}`, false},
		{`"StringEqualsIfExists":{"absent":"x"}`, true},
		{`"StringEqualsIfExists":{"s":"x"}`, false},
		{`"StringNotEquals":{"s":["Red","Blue"]}`, false},
		{`"StringNotEquals":{"absent":"x"}`, true},
		{`"StringEqualsIgnoreCase":{"s":"BLUE"}`, true},
		{`"StringNotEqualsIgnoreCase":{"s":"BLUE"}`, false},
		{`"StringLike":{"s":"B*e"}`, true},
		{`"StringLike":{"s":"B?e"}`, false},
		{`"StringNotLike":{"s":"B*"}`, false},
		{`"StringEquals":{"s":"Blue","n":"10"}`, true},
		{`"StringEquals":{"s":"Blue","n":"11"}`, false},
		{`"NumericEquals":{"n":10.0}`, true},
		{`"NumericNotEquals":{"n":10}`, false},
		{`"NumericLessThan":{"n":"10"}`, false},
		{`"NumericLessThanEquals":{"n":"10"}`, true},
		{`"NumericGreaterThan":{"n":9}`, true},
		{`"NumericGreaterThanEquals":{"n":11}`, false},
		{`"NumericEquals":{"s":1}`, false},
		{`"DateEquals":{"d":"2026-03-04T06:06:07+01:00"}`, true},
		{`"DateNotEquals":{"d":"2026-03-04"}`, true},
		{`"DateLessThan":{"d":"2026-03-05"}`, true},
		{`"DateLessThanEquals":{"d":"1"}`, false},
		{`"DateGreaterThan":{"d":"2026-03-04T05:06:07Z"}`, false},
		{`"DateGreaterThanEquals":{"d":"2026-03-04T05:06:07Z"}`, true},
		{`"Bool":{"b":true}`, true},
		{`"Bool":{"b":"false"}`, false},
		{`"BinaryEquals":{"bin":"aGk="}`, true},
		{`"BinaryEquals":{"bin":"aGo="}`, false},
		{`"IpAddress":{"aws:SourceIp":["192.168.0.0/16","10.0.0.0/8"]}`, true},
		{`"IpAddress":{"aws:SourceIp":"10.1.2.4"}`, false},
		{`"IpAddress":{"v6":"2001:db8::/32"}`, true},
		{`"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`, false},
		{`"ArnLike":{"arn":"arn:aws:iam::*:role/a/*"}`, true},
		{`"ArnEquals":{"arn":"arn:aws:*"}`, false},
		{`"ArnNotLike":{"arn":"arn:aws:iam::1:role/*"}`, false},
		{`"ArnNotEquals":{"arn":"arn:aws:iam::2:role/*"}`, true},
		{`"Null":{"absent":"true"}`, true},
		{`"Null":{"s":"true"}`, false},
		{`"Null":{"s":false}`, true},
		{`"ForAllValues:StringEquals":{"set":["red","green","blue"]}`, true},
		{`"ForAllValues:StringEquals":{"set":["red"]}`, false},
		{`"ForAllValues:StringEquals":{"absent":["red"]}`, true},
		{`"ForAnyValue:StringLike":{"set":"gr*"}`, true},
		{`"ForAnyValue:StringEquals":{"set":"blue"}`, false},
		{`"ForAnyValue:StringEquals":{"absent":"blue"}`, false},
		{`"ForAnyValue:StringNotEquals":{"set":"red"}`, true},
		{`"ForAllValues:StringNotEquals":{"set":"red"}`, false},
		{`"StringEquals":{"aws:ResourceTag/owner":"${aws:username}"}`, true},
		{`"StringEquals":{"s":"${absent, 'Blue'}"}`, true},
		{`"StringEquals":{"s":"${absent}"}`, false},
		{`"StringLike":{"s":"${star}"}`, false},
		{`"StringLike":{"star":"${*}"}`, true},
		{`"StringEquals":{"aws:PrincipalAccount":"123456789012","aws:userid":"AIDAALICEALICEALICE12"}`, true},
	} {
		t.Run(c.condition, func(t *testing.T) {
			p := mustParse(t, allow(everything+`,"Condition":{`+c.condition+`}`), IdentityPolicy)
			d := Evaluate(Request{Principal: alice(), Action: "kinesis:PutRecord", Resource: orders, Context: context}, []*Policy{p}, nil)
			if d.Allowed != c.want {
				t.Errorf("allowed = %v, want %v", d.Allowed, c.want)
			}
		})
	}
}

// A value that a variable brings in is text, whatever it looks like.
func TestVariablesInResources(t *testing.T) {
	const resource = "arn:aws:kinesis:us-east-1:123456789012:stream/"
	p := mustParse(t, allow(`"Action":"*","Resource":"`+resource+`${aws:username}-*"`), IdentityPolicy)
	star := alice()
	star.ARN = "arn:aws:iam::123456789012:user/*"
	for _, c := range []struct {
		who  api.Principal
		name string
		want bool
	}{
		{alice(), "alice-orders", true}, {alice(), "bob-orders", false}, {star, "bob-orders", false}, {star, "*-orders", true},
		{api.Principal{AccountID: account, Type: "AssumedRole", ARN: "arn:aws:sts::1:assumed-role/alice/s"}, "alice-orders", false},
	} {
		if d := Evaluate(Request{Principal: c.who, Action: "kinesis:PutRecord", Resource: resource + c.name}, []*Policy{p}, nil); d.Allowed != c.want {
			t.Errorf("%s on %s: %+v", c.who.ARN, c.name, d)
		}
	}
	old := mustParse(t, strings.Replace(allow(`"Action":"*","Resource":"`+resource+`${aws:username}-*"`), "2012", "2008", 1), IdentityPolicy)
	if Evaluate(Request{Principal: alice(), Action: "kinesis:PutRecord", Resource: resource + "alice-orders"}, []*Policy{old}, nil).Allowed {
		t.Error("variables are expanded in the old version of the language")
	}
}

func TestParsePolicyRefusals(t *testing.T) {
	deep := allow(`"Action":"*","Resource":` + strings.Repeat("[", 100) + strings.Repeat("]", 100))
	for _, c := range []struct {
		name, text string
		kind       Kind
		want       string
	}{
		{"not JSON", "{\n  \"Version\": x}", IdentityPolicy, "policy, line 2 column 14: invalid character 'x' looking for beginning of value"},
		{"empty", "", IdentityPolicy, "policy, line 1 column 1: ends too early"},
		{"two", allow(everything) + "{}", IdentityPolicy, "something follows the policy"},
		{"large", strings.Repeat(" ", MaxPolicyBytes+1), IdentityPolicy, "policy: has 20481 bytes; at most 20480 are allowed"},
		{"deep", deep, IdentityPolicy, "is nested too deeply"},
		{"version", `{"Version":"2020-01-01","Statement":[]}`, IdentityPolicy, `Version "2020-01-01" is unknown`},
		{"no statement", `{"Version":"2012-10-17","Statement":[]}`, IdentityPolicy, "has 0 statements"},
		{"unknown element", allow(everything + `,"Actions":"x"`), IdentityPolicy, `unknown field "Actions"`},
		{"effect", statement(`"Effect":"allow",` + everything), IdentityPolicy, `statement 1: Effect "allow" is neither Allow nor Deny`},
		{"action", allow(`"Resource":"*"`), IdentityPolicy, "exactly one of Action and NotAction"},
		{"action form", allow(`"Action":"PutRecord","Resource":"*"`), IdentityPolicy, `action "PutRecord" is not of the form`},
		{"resource", allow(`"Action":"*"`), IdentityPolicy, "exactly one of Resource and NotResource"},
		{"resource form", allow(`"Action":"*","Resource":"orders"`), IdentityPolicy, `resource "orders" is neither an ARN`},
		{"principal of a user's policy", allow(everything + `,"Principal":"*"`), IdentityPolicy, "has no Principal"},
		{"no principal", allow(everything), ResourcePolicy, "Principal is required"},
		{"principal kind", allow(everything + `,"Principal":{"User":"x"}`), ResourcePolicy, `unknown kind "User"`},
		{"principal wildcard", allow(everything + `,"Principal":{"AWS":"arn:aws:iam::*:root"}`), ResourcePolicy, "wildcards are not allowed"},
		{"not principal with allow", allow(everything + `,"NotPrincipal":{"AWS":"123456789012"}`), ResourcePolicy, "NotPrincipal with Allow"},
		{"trust with resource", allow(everything + `,"Principal":"*"`), TrustPolicy, "has no Resource"},
		{"operator", allow(everything + `,"Condition":{"StringIs":{"a":"b"}}`), IdentityPolicy, "Condition StringIs, a: the operator is unknown"},
		{"number", allow(everything + `,"Condition":{"NumericEquals":{"a":"b"}}`), IdentityPolicy, `"b" is not a number`},
		{"network", allow(everything + `,"Condition":{"IpAddress":{"a":"10.0.0.0/40"}}`), IdentityPolicy, "neither an address nor a range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParsePolicy(c.text, c.kind)
			var policy *PolicyError
			if !errors.As(err, &policy) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(allow(everything), "arn:aws:kinesis:*")
	f.Add(allow(`"Action":"*","Resource":"arn:${aws:username}:*","Condition":{"ForAllValues:StringLikeIfExists":{"a":["${b,'c'}",1,true]}}`), "x")
	f.Fuzz(func(t *testing.T, text, resource string) {
		p, err := ParsePolicy(text, IdentityPolicy)
		if err != nil {
			return
		}
		Evaluate(Request{Principal: alice(), Action: "kinesis:PutRecord", Resource: resource, Context: map[string][]string{"a": {resource}}}, []*Policy{p}, nil)
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 50 || len(text) > 50 {
			return
		}
		if a, b := matchText(pattern, text, true), appendPattern(nil, pattern).match(text, true); a != b {
			t.Errorf("%q on %q: %v and %v", pattern, text, a, b)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	p := mustParse(b, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"kinesis:Delete*","Resource":"*"},{"Effect":"Allow","Action":["kinesis:Get*","kinesis:Put*"],"Resource":"arn:aws:kinesis:*:123456789012:stream/or*"}]}`, IdentityPolicy)
	list := []*Policy{p}
	r := Request{Principal: alice(), Action: "kinesis:PutRecord", Resource: orders, Context: CallContext(&api.Call{Time: time.Unix(0, 0)})}
	b.ReportAllocs()
	for b.Loop() {
		if !Evaluate(r, list, nil).Allowed {
			b.Fatal("refused")
		}
	}
}
