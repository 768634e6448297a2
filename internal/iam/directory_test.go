package iam

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/sigv4"
)

func openTest(t *testing.T, s Store, now *time.Time) *Directory {
	t.Helper()
	d, err := Open(context.Background(), s, Options{Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestKeysOfUsersAndRoots(t *testing.T) {
	ctx, now, store := context.Background(), time.Unix(1_700_000_000, 0), &MemoryStore{}
	d := openTest(t, store, &now)
	root, made, err := d.EnsureRoot(ctx, account)
	if err != nil || !made || len(root.ID) != 20 || len(root.Secret) != 40 || !strings.HasPrefix(root.ID, "AKIA") {
		t.Fatalf("root = %+v, %v, %v", root, made, err)
	}
	if _, again, _ := d.EnsureRoot(ctx, account); again {
		t.Error("a second root key is made")
	}
	if err := d.PutUser(ctx, &User{Account: account, Name: "alice", Policies: map[string]string{"all": allow(everything)}}, false); err != nil {
		t.Fatal(err)
	}
	if err := d.PutUser(ctx, &User{Account: account, Name: "alice"}, false); !errors.Is(err, ErrExists) {
		t.Errorf("second user: %v", err)
	}
	k, err := d.CreateAccessKey(ctx, account, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.CreateAccessKey(ctx, account, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("key of nobody: %v", err)
	}

	// Another directory over the same store, as after a restart.
	d = openTest(t, store, &now)
	if s, err := d.Secret(k.ID, ""); err != nil || s != k.Secret {
		t.Errorf("secret = %q, %v", s, err)
	}
	id, err := d.Identity(k.ID, "")
	if err != nil || id.Principal.ARN != "arn:aws:iam::123456789012:user/alice" || id.Principal.Type != "User" || len(id.Policies) != 1 {
		t.Errorf("identity = %+v, %v", id, err)
	}
	if _, err := d.Secret(k.ID, "token"); !errors.Is(err, sigv4.ErrUnknownKey) {
		t.Errorf("long-term key with a token: %v", err)
	}
	if err := d.SetAccessKeyActive(ctx, k.ID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Secret(k.ID, ""); !errors.Is(err, sigv4.ErrUnknownKey) {
		t.Errorf("inactive key: %v", err)
	}
	if err := d.DeleteUser(ctx, account, "alice"); err != nil {
		t.Fatal(err)
	}
	if len(d.AccessKeys(account, "alice")) != 0 {
		t.Error("keys outlive their user")
	}
}

func TestOpenIdentity(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := openTest(t, &MemoryStore{}, &now)
	for key, want := range map[string]string{"999999999999": "999999999999", "AKIAWHATEVER": "000000000000", "12": "000000000000"} {
		if got := d.OpenIdentity(key, "some token").Principal; got.AccountID != want || got.ARN != "arn:aws:iam::"+want+":root" {
			t.Errorf("%s is %+v", key, got)
		}
	}
}

func TestSessions(t *testing.T) {
	ctx, now, store := context.Background(), time.Unix(1_700_000_000, 0), &MemoryStore{}
	d := openTest(t, store, &now)
	role := &Role{Account: account, Name: "reader", Trust: allow(`"Action":"sts:AssumeRole","Principal":"*"`), Policies: map[string]string{"p": allow(everything)}}
	if err := d.PutRole(ctx, role, false); err != nil {
		t.Fatal(err)
	}
	issue := func(open bool) *Credentials {
		c, err := d.Issue(NewSession{Account: account, RoleARN: role.ARN(), RoleID: role.ID, Name: "me", Policies: []string{allow(everything)}, Duration: time.Hour, Unverified: open})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := issue(false)
	d = openTest(t, store, &now) // restarted: the token still opens
	if s, err := d.Secret(c.AccessKey, c.SessionToken); err != nil || s != c.SecretKey {
		t.Errorf("secret: %v", err)
	}
	id, err := d.Identity(c.AccessKey, c.SessionToken)
	if err != nil || id.Principal.ARN != "arn:aws:sts::123456789012:assumed-role/reader/me" || id.Principal.UserID != role.ID+":me" || id.Principal.SessionIssuer != role.ARN() || len(id.Session) != 1 {
		t.Errorf("identity = %+v, %v", id, err)
	}
	unknown := map[string][2]string{
		"without its token":   {c.AccessKey, ""},
		"another key":         {"ASIAOTHER0000000", c.SessionToken},
		"cut off":             {c.AccessKey, c.SessionToken[:len(c.SessionToken)-8]},
		"changed":             {c.AccessKey, c.SessionToken[:40] + "AAAA" + c.SessionToken[44:]},
		"not ours":            {c.AccessKey, "FwoGZXIvYXdzE"},
		"of an open server":   {"", ""},
		"longer than allowed": {c.AccessKey, strings.Repeat("A", 1<<20)},
	}
	open := issue(true)
	unknown["of an open server"] = [2]string{open.AccessKey, open.SessionToken}
	for name, pair := range unknown {
		if _, err := d.Secret(pair[0], pair[1]); !errors.Is(err, sigv4.ErrUnknownKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	now = now.Add(time.Hour)
	if _, err := d.Secret(c.AccessKey, c.SessionToken); !errors.Is(err, sigv4.ErrExpiredToken) {
		t.Errorf("expired: %v", err)
	}
	now = now.Add(-time.Minute)
	if err := d.DeleteRole(ctx, account, "reader"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Identity(c.AccessKey, c.SessionToken); !errors.Is(err, sigv4.ErrUnknownKey) {
		t.Errorf("deleted role: %v", err)
	}
}

func TestNewerRecordIsRefused(t *testing.T) {
	s := &MemoryStore{}
	if err := s.Commit(context.Background(), Write{Key: "iam/user/1/a", Value: []byte(`{"format":2}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), s, Options{}); err == nil || !strings.Contains(err.Error(), "newer version (format 2") {
		t.Errorf("error = %v", err)
	}
}

func TestSeed(t *testing.T) {
	const text = `
streams:
  - name: orders
users:
  - name: alice
    keys:
      - {id: AKIAALICEALICE000000, secret: "0123"}
    policies:
      - name: all
        document:
          Version: "2012-10-17"
          Statement: [{Effect: Allow, Action: "*", Resource: "*"}]
      - name: text
        document: '{"Statement":{"Effect":"Deny","Action":"kinesis:Delete*","Resource":"*"}}'
roles:
  - name: reader
    account: "999999999999"
    trust: {Statement: {Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "123456789012"}}}
`
	ctx, now := context.Background(), time.Unix(1_700_000_000, 0)
	d := openTest(t, &MemoryStore{}, &now)
	for range 2 { // what exists stays
		s, err := ParseSeed([]byte(text), account)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Apply(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	id, err := d.Identity("AKIAALICEALICE000000", "")
	if err != nil || len(id.Policies) != 2 || id.Principal.AccountID != account {
		t.Errorf("alice = %+v, %v", id, err)
	}
	if _, ok := d.Role("arn:aws:iam::999999999999:role/reader"); !ok {
		t.Error("the role is missing")
	}
	for _, c := range []struct{ old, with, want string }{
		{"name: alice", "name: al ice", `line 5: "al ice" is not a user name`},
		{"Effect: Allow, Action: \"*\"", "Effect: Maybe, Action: \"*\"", `line 11: user alice: all: policy: statement 1: Effect "Maybe"`},
		{"999999999999", "99", `line 17: role reader: account "99" is not 12 digits`},
		{"    keys:", "    kees:", `line 6: unknown field "kees"`},
		{"secret: \"0123\"", "", "line 7: user alice: a key needs an id"},
		{"streams:", "streams: [", "line "},
	} {
		_, err := ParseSeed([]byte(strings.Replace(text, c.old, c.with, 1)), account)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.with, err, c.want)
		}
	}
}

// masker is a Sealer that hides a secret from a search for it.
type masker byte

func (m masker) SealSecret(purpose string, secret []byte) []byte {
	sealed := []byte(purpose + "\x00")
	for _, c := range secret {
		sealed = append(sealed, c^byte(m))
	}
	return sealed
}

func (m masker) OpenSecret(purpose string, sealed []byte) ([]byte, error) {
	masked, ok := bytes.CutPrefix(sealed, []byte(purpose+"\x00"))
	if !ok {
		return nil, errors.New("sealed for something else")
	}
	return m.SealSecret("", masked)[1:], nil
}

func TestSecretsAreSealedInTheStore(t *testing.T) {
	store := &MemoryStore{}
	// The first records are of a time before secrets were sealed.
	d, err := Open(t.Context(), store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	old, err := d.CreateAccessKey(t.Context(), "123456789012", "")
	if err != nil {
		t.Fatal(err)
	}
	session, err := d.Issue(NewSession{Account: "123456789012", Duration: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	sealingKey := d.sealingKey
	d.Close()

	sealed := Options{Sealer: masker(0x55)}
	if d, err = Open(t.Context(), store, sealed); err != nil {
		t.Fatal(err)
	}
	young, err := d.CreateAccessKey(t.Context(), "123456789012", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetAccessKeyActive(t.Context(), young.ID, true); err != nil {
		t.Fatal(err)
	}
	d.Close()

	for name, value := range store.records {
		for _, secret := range []string{old.Secret, young.Secret, base64.StdEncoding.EncodeToString(sealingKey)} {
			if bytes.Contains(value, []byte(secret)) {
				t.Errorf("record %s holds a secret: %s", name, value)
			}
		}
	}
	if d, err = Open(t.Context(), store, sealed); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, k := range []*AccessKey{old, young} {
		if secret, err := d.Secret(k.ID, ""); err != nil || secret != k.Secret {
			t.Errorf("key %s: %q, %v", k.ID, secret, err)
		}
	}
	if secret, err := d.Secret(session.AccessKey, session.SessionToken); err != nil || secret != session.SecretKey {
		t.Errorf("session: %v", err)
	}
	if _, err := Open(t.Context(), store, Options{}); err == nil || !strings.Contains(err.Error(), "sealed with a master key") {
		t.Errorf("without a master key: %v", err)
	}
	// A sealed secret under another's name is not that one's.
	name := key("access-key", old.ID)
	if err := store.Commit(t.Context(), Write{Key: name, Value: store.records[key("access-key", young.ID)]}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), store, sealed); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("swapped secrets: %v", err)
	}
}
