// Package iam knows who may do what: users, access keys, roles, sessions, and
// the policies that speak about them.
//
// The one idea: evaluation is a pure function. Evaluate takes a request and
// parsed policies and returns a decision with its text; Directory is the only
// part with state, and that is a snapshot of records in a Store it does not
// own. Sessions are state of nobody: a session token carries its session,
// sealed with the server's key.
//
// Start reading at Evaluate, then Directory.
package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
)

// Kind is where a policy is attached. It decides which elements it must and
// must not have.
type Kind uint8

const (
	IdentityPolicy Kind = iota // of a user or role: no Principal
	ResourcePolicy             // of a stream or consumer: Principal and Resource
	TrustPolicy                // of a role, about who may assume it: Principal, no Resource
)

// Bounds of policies.
const (
	MaxPolicyBytes  = 20 << 10
	maxStatements   = 200
	maxValues       = 1000 // of one element
	maxPolicyNested = 8    // braces and brackets; the language needs 6
)

// PolicyError says what is wrong with a policy. Line and Column are 1-based
// and 0 if unknown.
type PolicyError struct {
	Line, Column int
	Text         string
}

// Error implements error.
func (e *PolicyError) Error() string {
	if e.Line == 0 {
		return "policy: " + e.Text
	}
	return fmt.Sprintf("policy, line %d column %d: %s", e.Line, e.Column, e.Text)
}

// Policy is a parsed policy. It is immutable.
type Policy struct {
	Version    string // "2012-10-17" or "2008-10-17"
	ID         string
	Statements []Statement
}

// Statement is one rule of a policy.
type Statement struct {
	Sid          string
	Deny         bool
	Actions      []string
	NotActions   []string
	Resources    []string
	NotResources []string
	principal    *principals
	notPrincipal *principals
	conditions   []condition
	variables    bool // policy variables are expanded
}

// principals is a Principal or NotPrincipal element.
type principals struct {
	everybody bool
	kinds     map[string][]string // "AWS", "Service", "Federated", "CanonicalUser"
}

type stringList []string

// UnmarshalJSON reads a string or a list of them.
func (s *stringList) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*s = stringList{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil || list == nil {
		return errors.New("expected a string or a list of strings")
	}
	if len(list) > maxValues {
		return fmt.Errorf("a list has more than %d values", maxValues)
	}
	*s = list
	return nil
}

// scalars is stringList that also takes numbers and booleans, as condition values
// may be written.
type scalars []string

func (s *scalars) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
	} else {
		list = []json.RawMessage{b}
	}
	if len(list) > maxValues {
		return fmt.Errorf("a condition has more than %d values", maxValues)
	}
	*s = scalars{}
	for _, raw := range list {
		switch raw = bytes.TrimSpace(raw); {
		case len(raw) > 0 && raw[0] == '"':
			var one string
			if err := json.Unmarshal(raw, &one); err != nil {
				return err
			}
			*s = append(*s, one)
		case len(raw) > 0 && (raw[0] == '{' || raw[0] == '[' || raw[0] == 'n'):
			return errors.New("condition values are strings, numbers or booleans")
		default:
			*s = append(*s, string(raw))
		}
	}
	return nil
}

func (p *principals) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		if one != "*" {
			return fmt.Errorf("Principal %q: a bare string can only be \"*\"", one)
		}
		p.everybody = true
		return nil
	}
	var kinds map[string]stringList
	if err := json.Unmarshal(b, &kinds); err != nil {
		return err
	}
	if len(kinds) == 0 {
		return errors.New("Principal is empty")
	}
	p.kinds = make(map[string][]string, len(kinds))
	for kind, values := range kinds {
		switch kind {
		case "AWS":
			for _, v := range values {
				if v == "*" {
					p.everybody = true
				} else if !isAccount(v) && !strings.HasPrefix(v, "arn:") && !isUniqueID(v) {
					return fmt.Errorf("Principal %q is neither an account, an ARN nor \"*\"", v)
				} else if strings.ContainsAny(v, "*?") {
					return fmt.Errorf("Principal %q: wildcards are not allowed inside a principal", v)
				}
			}
		case "Service", "Federated", "CanonicalUser":
		default:
			return fmt.Errorf("Principal of unknown kind %q; known are AWS, Service, Federated and CanonicalUser", kind)
		}
		p.kinds[kind] = values
	}
	return nil
}

func isAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isUniqueID(s string) bool {
	return len(s) == 21 && (strings.HasPrefix(s, "AIDA") || strings.HasPrefix(s, "AROA"))
}

type rawStatement struct {
	Sid          string
	Effect       string
	Action       stringList
	NotAction    stringList
	Resource     stringList
	NotResource  stringList
	Principal    *principals
	NotPrincipal *principals
	Condition    map[string]map[string]scalars
}

type rawStatements []rawStatement

func (s *rawStatements) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if len(b) > 0 && b[0] == '{' {
		*s = make(rawStatements, 1)
		return d.Decode(&(*s)[0])
	}
	var list []rawStatement
	if err := d.Decode(&list); err != nil {
		return err
	}
	*s = list
	return nil
}

// ParsePolicy reads and checks a policy. The errors are *PolicyError.
func ParsePolicy(text string, kind Kind) (*Policy, error) {
	if len(text) > MaxPolicyBytes {
		return nil, &PolicyError{Text: fmt.Sprintf("has %d bytes; at most %d are allowed", len(text), MaxPolicyBytes)}
	}
	if at := tooDeep(text); at >= 0 {
		return nil, errorAt(text, at, "is nested too deeply")
	}
	var raw struct {
		Version   string
		ID        string `json:"Id"`
		Statement rawStatements
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		var syntax *json.SyntaxError
		var typed *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			return nil, errorAt(text, int(syntax.Offset)-1, strings.TrimPrefix(err.Error(), "json: "))
		case errors.As(err, &typed):
			return nil, errorAt(text, int(d.InputOffset()), fmt.Sprintf("%s cannot be a %s", orPolicy(typed.Field), typed.Value))
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errorAt(text, len(text), "ends too early")
		}
		return nil, &PolicyError{Text: strings.TrimPrefix(err.Error(), "json: ")}
	}
	if rest := strings.TrimSpace(text[d.InputOffset():]); rest != "" {
		return nil, errorAt(text, len(text)-len(rest), "something follows the policy")
	}
	p := &Policy{Version: raw.Version, ID: raw.ID}
	switch raw.Version {
	case "":
		p.Version = "2008-10-17"
	case "2012-10-17", "2008-10-17":
	default:
		return nil, &PolicyError{Text: fmt.Sprintf("Version %q is unknown; known are 2012-10-17 and 2008-10-17", raw.Version)}
	}
	if len(raw.Statement) == 0 || len(raw.Statement) > maxStatements {
		return nil, &PolicyError{Text: fmt.Sprintf("has %d statements; 1 to %d are allowed", len(raw.Statement), maxStatements)}
	}
	seen := make(map[string]bool)
	for i := range raw.Statement {
		s, err := raw.Statement[i].check(kind, p.Version == "2012-10-17")
		if err == nil && s.Sid != "" && seen[s.Sid] {
			err = errors.New("this Sid occurs twice")
		}
		if err != nil {
			name := fmt.Sprintf("statement %d", i+1)
			if sid := raw.Statement[i].Sid; sid != "" {
				name += fmt.Sprintf(" (%s)", sid)
			}
			return nil, &PolicyError{Text: name + ": " + err.Error()}
		}
		seen[s.Sid] = true
		p.Statements = append(p.Statements, s)
	}
	return p, nil
}

func orPolicy(field string) string {
	if field == "" {
		return "a policy"
	}
	return field
}

func tooDeep(text string) int {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxPolicyNested {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

func errorAt(text string, at int, what string) *PolicyError {
	at = min(max(at, 0), len(text))
	before := text[:at]
	line := strings.Count(before, "\n") + 1
	return &PolicyError{Line: line, Column: at - strings.LastIndexByte(before, '\n'), Text: what}
}

func (r *rawStatement) check(kind Kind, variables bool) (Statement, error) {
	s := Statement{
		Sid: r.Sid, Actions: r.Action, NotActions: r.NotAction, Resources: r.Resource, NotResources: r.NotResource,
		principal: r.Principal, notPrincipal: r.NotPrincipal, variables: variables,
	}
	switch r.Effect {
	case "Allow":
	case "Deny":
		s.Deny = true
	case "":
		return s, errors.New("Effect is missing")
	default:
		return s, fmt.Errorf("Effect %q is neither Allow nor Deny", r.Effect)
	}
	if (len(s.Actions) == 0) == (len(s.NotActions) == 0) {
		return s, errors.New("exactly one of Action and NotAction is required")
	}
	for _, list := range [...][]string{s.Actions, s.NotActions} {
		for _, a := range list {
			if prefix, name, ok := strings.Cut(a, ":"); a != "*" && (!ok || prefix == "" || name == "") {
				return s, fmt.Errorf("action %q is not of the form service:Operation", a)
			}
		}
	}
	has := len(s.Resources) > 0
	if kind == TrustPolicy {
		if has || len(s.NotResources) > 0 {
			return s, errors.New("a trust policy has no Resource")
		}
	} else if has == (len(s.NotResources) > 0) {
		return s, errors.New("exactly one of Resource and NotResource is required")
	}
	for _, list := range [...][]string{s.Resources, s.NotResources} {
		for _, a := range list {
			if a != "*" && strings.Count(a, ":") < 5 && !strings.HasSuffix(a, "*") || a == "" {
				return s, fmt.Errorf("resource %q is neither an ARN nor \"*\"", a)
			}
		}
	}
	switch {
	case s.principal != nil && s.notPrincipal != nil:
		return s, errors.New("Principal and NotPrincipal exclude each other")
	case kind == IdentityPolicy && (s.principal != nil || s.notPrincipal != nil):
		return s, errors.New("a policy of a user or role has no Principal")
	case kind != IdentityPolicy && s.principal == nil && s.notPrincipal == nil:
		return s, errors.New("Principal is required")
	case s.notPrincipal != nil && !s.Deny:
		return s, errors.New("NotPrincipal with Allow would let everybody else in; it is allowed with Deny only")
	}
	for operator, keys := range r.Condition {
		for key, values := range keys {
			c, err := newCondition(operator, key, values, variables)
			if err != nil {
				return s, fmt.Errorf("Condition %s, %s: %w", operator, key, err)
			}
			s.conditions = append(s.conditions, c)
		}
	}
	sort.Slice(s.conditions, func(i, j int) bool {
		a, b := s.conditions[i], s.conditions[j]
		return a.name+a.key < b.name+b.key
	})
	return s, nil
}
