package identity

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
)

var stsOperations = map[string]operation{
	"GetCallerIdentity":         {serve: (*Handler).getCallerIdentity},
	"AssumeRole":                {serve: (*Handler).assumeRole},
	"AssumeRoleWithWebIdentity": {serve: (*Handler).assumeRoleWithWebIdentity, unsigned: true},
	"GetSessionToken":           {serve: (*Handler).getSessionToken},
	"GetAccessKeyInfo":          {serve: (*Handler).getAccessKeyInfo},
}

const (
	minDuration        = 900
	maxRoleDuration    = 43200
	maxTokenDuration   = 129600
	maxSessionPolicies = 2048
	maxTags            = 50
)

// getCallerIdentity says who signed the request. No permission is needed.
func (h *Handler) getCallerIdentity(c *call) ([]element, error) {
	p := c.who.Principal
	return []element{text("Arn", p.ARN), text("UserId", p.UserID), text("Account", p.AccountID)}, nil
}

// getAccessKeyInfo says to which account a key belongs.
func (h *Handler) getAccessKeyInfo(c *call) ([]element, error) {
	id := c.form.Get("AccessKeyId")
	if err := c.length("AccessKeyId", 16, 128); err != nil {
		return nil, err
	}
	return []element{text("Account", h.o.Directory.AccountOf(id))}, nil
}

// getSessionToken makes temporary credentials for the caller itself.
func (h *Handler) getSessionToken(c *call) ([]element, error) {
	p := c.who.Principal
	if !c.who.Expires.IsZero() {
		return nil, denied("Cannot call GetSessionToken with session credentials")
	}
	limit, standard := maxTokenDuration, 43200
	if p.Type == "Account" {
		limit, standard = 3600, 3600
	}
	seconds, err := c.duration(standard, maxTokenDuration)
	if err != nil {
		return nil, err
	}
	n := iam.NewSession{Account: p.AccountID, Duration: time.Duration(min(seconds, limit)) * time.Second, Unverified: h.open()}
	if p.Type == "User" {
		n.User = p.ARN[strings.LastIndexByte(p.ARN, '/')+1:]
	}
	issued, err := h.o.Directory.Issue(n)
	if err != nil {
		return nil, err
	}
	return []element{credentials(issued)}, nil
}

func (h *Handler) open() bool { return h.o.Verifier == nil }

func credentials(c *iam.Credentials) element {
	return group("Credentials",
		text("AccessKeyId", c.AccessKey), text("SecretAccessKey", c.SecretKey),
		text("SessionToken", c.SessionToken), text("Expiration", c.Expires.Format("2006-01-02T15:04:05Z")))
}

// assumeRole makes temporary credentials of a role whose trust policy lets the
// caller in. Where nothing is verified, the role need not exist.
func (h *Handler) assumeRole(c *call) ([]element, error) {
	n, role, err := h.roleSession(c)
	if err != nil {
		return nil, err
	}
	p := c.who.Principal
	if p.Type == "AssumedRole" && n.Duration > time.Hour {
		return nil, badRequest("ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	n.SourceIdentity = c.form.Get("SourceIdentity")
	if n.SourceIdentity != "" {
		if err := c.word("SourceIdentity", 2, 64); err != nil {
			return nil, err
		}
	} else {
		n.SourceIdentity = c.who.SourceIdentity
	}
	if n.Tags, err = c.tags(); err != nil {
		return nil, err
	}
	if !h.open() {
		context := c.context()
		if id := c.form.Get("ExternalId"); id != "" {
			context["sts:ExternalId"] = []string{id}
		}
		context["sts:RoleSessionName"] = []string{n.Name}
		if n.SourceIdentity != "" {
			context["sts:SourceIdentity"] = []string{n.SourceIdentity}
		}
		for k, v := range n.Tags {
			context["aws:RequestTag/"+k] = []string{v}
			context["aws:TagKeys"] = append(context["aws:TagKeys"], k)
		}
		request := iam.Request{
			Principal: p, Action: "sts:AssumeRole", Resource: n.RoleARN, ResourceAccount: n.Account,
			Context: context, Session: c.who.Session,
		}
		// A role that is not there and one that may not be assumed look alike.
		if role == nil {
			return nil, denied("User: " + p.ARN + " is not authorized to perform: sts:AssumeRole on resource: " + n.RoleARN)
		}
		if d := iam.EvaluateTrust(request, c.who.Policies, role.TrustPolicy()); !d.Allowed {
			return nil, denied(d.Reason)
		}
	}
	return h.issueRole(n, role)
}

// roleSession reads what both ways to assume a role have in common.
func (h *Handler) roleSession(c *call) (n iam.NewSession, role *iam.Role, err error) {
	if err := c.length("RoleArn", 20, 2048); err != nil {
		return n, nil, err
	}
	if err := c.word("RoleSessionName", 2, 64); err != nil {
		return n, nil, err
	}
	seconds, err := c.duration(3600, maxRoleDuration)
	if err != nil {
		return n, nil, err
	}
	n = iam.NewSession{Name: c.form.Get("RoleSessionName"), Duration: time.Duration(seconds) * time.Second, Unverified: h.open()}
	if p := c.form.Get("Policy"); p != "" {
		if len(p) > maxSessionPolicies {
			return n, nil, badRequest("ValidationError", "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to %d", maxSessionPolicies)
		}
		if _, err := iam.ParsePolicy(p, iam.IdentityPolicy); err != nil {
			return n, nil, err
		}
		n.Policies = []string{p}
	}
	if arn := c.form.Get("PolicyArns.member.1.arn"); arn != "" {
		return n, nil, badRequest("ValidationError", "Policy %s does not exist: there are no managed policies here; send the policy itself.", clip(arn))
	}
	arn := c.form.Get("RoleArn")
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !digits12(parts[4]) || !strings.HasPrefix(parts[5], "role/") || strings.HasSuffix(arn, "/") || strings.ContainsAny(arn, "*?<>& \n") {
		return n, nil, badRequest("ValidationError", "%s is invalid", clip(arn))
	}
	n.Account = parts[4]
	role, ok := h.o.Directory.Role(arn)
	if !ok {
		n.RoleARN, n.RoleID = arn, "AROA00000000000000000"
		return n, nil, nil
	}
	n.RoleARN, n.RoleID = role.ARN(), role.ID
	longest := 3600
	if role.MaxSession > 0 {
		longest = role.MaxSession
	}
	if seconds > longest {
		return n, nil, badRequest("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return n, role, nil
}

func digits12(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

func (h *Handler) issueRole(n iam.NewSession, role *iam.Role) ([]element, error) {
	issued, err := h.o.Directory.Issue(n)
	if err != nil {
		return nil, err
	}
	name := n.RoleARN[strings.LastIndexByte(n.RoleARN, '/')+1:]
	result := []element{
		credentials(issued),
		group("AssumedRoleUser",
			text("AssumedRoleId", n.RoleID+":"+n.Name),
			text("Arn", "arn:aws:sts::"+n.Account+":assumed-role/"+name+"/"+n.Name)),
	}
	if len(n.Policies) > 0 {
		result = append(result, text("PackedPolicySize", strconv.Itoa((len(n.Policies[0])*100+maxSessionPolicies-1)/maxSessionPolicies)))
	}
	if n.SourceIdentity != "" {
		result = append(result, text("SourceIdentity", n.SourceIdentity))
	}
	return result, nil
}

// assumeRoleWithWebIdentity makes temporary credentials of a role for whoever
// holds a token of a trusted issuer. It is not signed.
func (h *Handler) assumeRoleWithWebIdentity(c *call) ([]element, error) {
	n, role, err := h.roleSession(c)
	if err != nil {
		return nil, err
	}
	if err := c.length("WebIdentityToken", 4, 20000); err != nil {
		return nil, err
	}
	claims, provider, err := h.verifyToken(c.form.Get("WebIdentityToken"))
	if err != nil {
		return nil, err
	}
	if !h.open() {
		refused := denied("Not authorized to perform sts:AssumeRoleWithWebIdentity")
		if role == nil {
			return nil, refused
		}
		context := c.context()
		context[provider+":sub"] = []string{claims.Subject}
		context[provider+":aud"] = claims.Audience
		context["sts:RoleSessionName"] = []string{n.Name}
		d := iam.EvaluateTrust(iam.Request{
			Principal: api.Principal{AccountID: n.Account, Type: "Federated", ARN: "arn:aws:iam::" + n.Account + ":oidc-provider/" + provider},
			Action:    "sts:AssumeRoleWithWebIdentity", Resource: n.RoleARN, ResourceAccount: n.Account, Context: context,
		}, nil, role.TrustPolicy())
		if !d.Allowed {
			return nil, refused
		}
	}
	result, err := h.issueRole(n, role)
	if err != nil {
		return nil, err
	}
	audience := ""
	if len(claims.Audience) > 0 {
		audience = claims.Audience[0]
	}
	return append(result, text("SubjectFromWebIdentityToken", claims.Subject), text("Audience", audience), text("Provider", provider)), nil
}

func (c *call) length(name string, shortest, longest int) error {
	v, there := c.form[name]
	path := strings.ToLower(name[:1]) + name[1:]
	switch {
	case !there || len(v[0]) == 0:
		return badRequest("ValidationError", "1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", path)
	case len(v[0]) < shortest:
		return badRequest("ValidationError", "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must have length greater than or equal to %d", clip(v[0]), path, shortest)
	case len(v[0]) > longest:
		return badRequest("ValidationError", "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", clip(v[0]), path, longest)
	}
	return nil
}

// word checks a parameter that matches [\w+=,.@-]*.
func (c *call) word(name string, shortest, longest int) error {
	if err := c.length(name, shortest, longest); err != nil {
		return err
	}
	for _, r := range c.form.Get(name) {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+=,.@-", r)) {
			return badRequest("ValidationError", `1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`,
				clip(c.form.Get(name)), strings.ToLower(name[:1])+name[1:])
		}
	}
	return nil
}

func (c *call) duration(standard, longest int) (int, error) {
	raw := c.form.Get("DurationSeconds")
	if raw == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(raw)
	switch {
	case err != nil:
		return 0, badRequest("ValidationError", "DurationSeconds must be a number, not '%s'", clip(raw))
	case n < minDuration:
		return 0, badRequest("ValidationError", "1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to %d", n, minDuration)
	case n > longest:
		return 0, badRequest("ValidationError", "1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to %d", n, longest)
	}
	return n, nil
}

func (c *call) tags() (map[string]string, error) {
	var tags map[string]string
	for i := 1; ; i++ {
		prefix := fmt.Sprintf("Tags.member.%d.", i)
		k, there := c.form[prefix+"Key"]
		if !there {
			return tags, nil
		}
		v := c.form.Get(prefix + "Value")
		switch {
		case i > maxTags:
			return nil, badRequest("ValidationError", "1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to %d", maxTags)
		case len(k[0]) < 1 || len(k[0]) > 128 || len(v) > 256:
			return nil, badRequest("ValidationError", "Tag keys have 1 to 128 characters, values up to 256.")
		}
		if _, twice := tags[k[0]]; twice {
			return nil, badRequest("InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		if tags == nil {
			tags = make(map[string]string)
		}
		tags[k[0]] = v
	}
}
