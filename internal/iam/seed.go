package iam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Seed is what a seed file says about users and roles. Everything else in the
// file is somebody else's.
//
//	users:
//	  - name: producer
//	    account: "123456789012"        # may be left out
//	    keys:
//	      - id: AKIAEXAMPLEEXAMPLE00
//	        secret: …
//	    policies:
//	      - name: put
//	        document: {Version: "2012-10-17", Statement: […]}   # or JSON text
//	roles:
//	  - name: reader
//	    trust: {…}
//	    policies: […]
type Seed struct {
	Users []SeedUser `yaml:"users"`
	Roles []SeedRole `yaml:"roles"`
}

// SeedUser is a user with keys and inline policies.
type SeedUser struct {
	Name     string       `yaml:"name"`
	Account  string       `yaml:"account"`
	Keys     []SeedKey    `yaml:"keys"`
	Policies []SeedPolicy `yaml:"policies"`
}

// SeedKey is an access key.
type SeedKey struct {
	ID     string `yaml:"id"`
	Secret string `yaml:"secret"`
}

// SeedPolicy is an inline policy: JSON text, or the same as YAML.
type SeedPolicy struct {
	Name     string `yaml:"name"`
	Document any    `yaml:"document"`
}

// SeedRole is a role.
type SeedRole struct {
	Name       string       `yaml:"name"`
	Account    string       `yaml:"account"`
	Trust      any          `yaml:"trust"`
	Policies   []SeedPolicy `yaml:"policies"`
	MaxSession int          `yaml:"max-session-seconds"`
}

// SeedError is a failure with its place in the file.
type SeedError struct {
	Line int // 1-based, 0 if unknown
	Text string
}

// Error implements error.
func (e *SeedError) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Text)
}

// ParseSeed reads the users and roles of a seed file, YAML or JSON, and checks
// them. Accounts that were left out become defaultAccount.
func ParseSeed(data []byte, defaultAccount string) (*Seed, error) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, syntaxError(err)
	}
	s := new(Seed)
	for _, section := range [...]struct {
		name string
		into any
	}{{"users", &s.Users}, {"roles", &s.Roles}} {
		node := find(file, "$."+section.name)
		if node == nil {
			continue
		}
		if err := yaml.NodeToValue(node, section.into, yaml.Strict()); err != nil {
			return nil, syntaxError(err)
		}
	}
	at := func(err error, path string, args ...any) error {
		e := &SeedError{Text: err.Error()}
		if node := find(file, fmt.Sprintf(path, args...)); node != nil {
			e.Line = node.GetToken().Position.Line
		}
		return e
	}
	for i := range s.Users {
		u := &s.Users[i]
		u.Account = orDefault(u.Account, defaultAccount)
		if !validName(u.Name) {
			return nil, at(fmt.Errorf("%q is not a user name", u.Name), "$.users[%d].name", i)
		}
		if !isAccount(u.Account) {
			return nil, at(fmt.Errorf("user %s: account %q is not 12 digits", u.Name, u.Account), "$.users[%d].account", i)
		}
		for j, k := range u.Keys {
			if !validKeyID(k.ID) || k.Secret == "" {
				return nil, at(fmt.Errorf("user %s: a key needs an id of 12 to 128 letters and digits, and a secret", u.Name), "$.users[%d].keys[%d].id", i, j)
			}
		}
		for j, p := range u.Policies {
			if err := p.check(IdentityPolicy); err != nil {
				return nil, at(fmt.Errorf("user %s: %w", u.Name, err), "$.users[%d].policies[%d].document", i, j)
			}
		}
	}
	for i := range s.Roles {
		r := &s.Roles[i]
		r.Account = orDefault(r.Account, defaultAccount)
		if !validName(r.Name) {
			return nil, at(fmt.Errorf("%q is not a role name", r.Name), "$.roles[%d].name", i)
		}
		if !isAccount(r.Account) {
			return nil, at(fmt.Errorf("role %s: account %q is not 12 digits", r.Name, r.Account), "$.roles[%d].account", i)
		}
		if r.MaxSession != 0 && (r.MaxSession < 3600 || r.MaxSession > 43200) {
			return nil, at(fmt.Errorf("role %s: sessions last 3600 to 43200 seconds at most", r.Name), "$.roles[%d].max-session-seconds", i)
		}
		if err := (SeedPolicy{Name: "trust", Document: r.Trust}).check(TrustPolicy); err != nil {
			return nil, at(fmt.Errorf("role %s: %w", r.Name, err), "$.roles[%d].trust", i)
		}
		for j, p := range r.Policies {
			if err := p.check(IdentityPolicy); err != nil {
				return nil, at(fmt.Errorf("role %s: %w", r.Name, err), "$.roles[%d].policies[%d].document", i, j)
			}
		}
	}
	return s, nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func find(file *ast.File, path string) ast.Node {
	p, err := yaml.PathString(path)
	if err != nil {
		return nil
	}
	node, err := p.FilterFile(file)
	if err != nil {
		return nil
	}
	return node
}

func syntaxError(err error) error {
	var located yaml.Error
	if errors.As(err, &located) {
		return &SeedError{Line: located.GetToken().Position.Line, Text: located.GetMessage()}
	}
	return &SeedError{Text: err.Error()}
}

// text is the document as JSON.
func (p SeedPolicy) text() (string, error) {
	if s, ok := p.Document.(string); ok {
		return s, nil
	}
	b, err := json.Marshal(p.Document)
	return string(b), err
}

func (p SeedPolicy) check(kind Kind) error {
	if p.Name == "" {
		return errors.New("a policy needs a name")
	}
	text, err := p.text()
	if err == nil {
		_, err = ParsePolicy(text, kind)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

func policyTexts(list []SeedPolicy) (map[string]string, error) {
	m := make(map[string]string, len(list))
	for _, p := range list {
		text, err := p.text()
		if err != nil {
			return nil, err
		}
		m[p.Name] = text
	}
	return m, nil
}

// Apply creates what a seed names and the directory lacks. What exists stays
// as it is.
func (d *Directory) Apply(ctx context.Context, s *Seed) error {
	for _, u := range s.Users {
		policies, err := policyTexts(u.Policies)
		if err != nil {
			return err
		}
		if err := d.PutUser(ctx, &User{Account: u.Account, Name: u.Name, Policies: policies}, false); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
		for _, k := range u.Keys {
			err := d.PutAccessKey(ctx, &AccessKey{ID: k.ID, Secret: k.Secret, Account: u.Account, User: u.Name, Active: true})
			if err != nil && !errors.Is(err, ErrExists) {
				return err
			}
		}
	}
	for _, r := range s.Roles {
		policies, err := policyTexts(r.Policies)
		if err != nil {
			return err
		}
		trust, err := SeedPolicy{Document: r.Trust}.text()
		if err != nil {
			return err
		}
		err = d.PutRole(ctx, &Role{Account: r.Account, Name: r.Name, Trust: trust, Policies: policies, MaxSession: r.MaxSession}, false)
		if err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	return nil
}
