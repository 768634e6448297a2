package iam

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/sigv4"
)

// Sentinels of the directory.
var (
	ErrExists   = errors.New("iam: already exists")
	ErrNotFound = errors.New("iam: not found")
)

// User is a principal with long-term keys.
type User struct {
	Format   int               `json:"format"`
	Account  string            `json:"account"`
	Name     string            `json:"name"`
	ID       string            `json:"id"` // AIDA…
	Created  time.Time         `json:"created"`
	Policies map[string]string `json:"policies,omitempty"` // inline, JSON by name

	parsed []*Policy
}

// ARN names the user.
func (u *User) ARN() string { return "arn:aws:iam::" + u.Account + ":user/" + u.Name }

// AccessKey is a long-term key. Without a user it is one of the account's root.
type AccessKey struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`               // AKIA…, or as seeded
	Secret  string    `json:"secret,omitempty"` // not in a record that has Sealed
	Sealed  []byte    `json:"sealed,omitempty"` // Secret as the Sealer wrote it; in records only
	Account string    `json:"account"`
	User    string    `json:"user,omitempty"`
	Active  bool      `json:"active"`
	Created time.Time `json:"created"`
}

// Role is a principal that others assume.
type Role struct {
	Format   int               `json:"format"`
	Account  string            `json:"account"`
	Name     string            `json:"name"`
	ID       string            `json:"id"` // AROA…
	Created  time.Time         `json:"created"`
	Trust    string            `json:"trust"` // who may assume it, JSON
	Policies map[string]string `json:"policies,omitempty"`
	// MaxSession is the longest session in seconds; 3600 if zero.
	MaxSession int `json:"maxSession,omitempty"`

	trust  *Policy
	parsed []*Policy
}

// ARN names the role.
func (r *Role) ARN() string { return "arn:aws:iam::" + r.Account + ":role/" + r.Name }

// IdentityPolicies say what the role may do.
func (r *Role) IdentityPolicies() []*Policy { return r.parsed }

// TrustPolicy says who may assume the role.
func (r *Role) TrustPolicy() *Policy { return r.trust }

// Identity is a principal with what it may do.
type Identity struct {
	Principal api.Principal
	Policies  []*Policy // of the user or role
	Session   []*Policy // see Request.Session
	Expires   time.Time // of a session; zero for long-term keys
	// Tags are the session's, for aws:PrincipalTag conditions.
	Tags           map[string]string
	SourceIdentity string
}

// format is the version of the records; newer ones are refused. Records whose
// secret is sealed have sealedFormat: who knows only the first would take them
// for records without a secret.
const (
	format       = 1
	sealedFormat = 2
)

// Sealer encrypts secrets before they reach the store, so that the store's
// files, snapshots and backups do not hold them. purpose is bound to what is
// sealed: it opens under the same purpose only.
type Sealer interface {
	SealSecret(purpose string, secret []byte) []byte
	OpenSecret(purpose string, sealed []byte) ([]byte, error)
}

// Options of a Directory.
type Options struct {
	// Sealer protects secrets in the store. Nil writes them as they are, which
	// is for stores that forget. Records that were written without are sealed
	// when the directory is opened with one.
	Sealer Sealer
	// DefaultAccount is the account of keys that name no other, 12 digits;
	// 000000000000 if empty.
	DefaultAccount string
	Now            func() time.Time // time.Now if nil
}

// Directory answers who an access key is. It implements sigv4.Keys. All methods
// may be called concurrently; what it returns must not be modified.
type Directory struct {
	store   Store
	options Options
	sealer  *sealer
	cancel  func()

	mu    sync.RWMutex
	users map[string]*User // by record key, as the others
	keys  map[string]*AccessKey
	roles map[string]*Role
	bad   error // the first record that could not be read
	// unsealed are the records that Open found with a secret in clear. Records
	// that come later are written by this version.
	unsealed []string

	sealingKey []byte // of sealer

	// sessions remembers opened tokens; it is dropped when it is full and
	// whenever a role or user changes.
	sessions map[string]*session
}

const maxOpenedSessions = 4096

func key(kind string, parts ...string) string {
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "iam/" + kind + "/" + strings.Join(parts, "/")
}

// Open reads the directory from a store and follows it until Close. The first
// Open of a store makes the key that seals session tokens.
func Open(ctx context.Context, store Store, o Options) (*Directory, error) {
	o.DefaultAccount = cmp.Or(o.DefaultAccount, "000000000000")
	if !isAccount(o.DefaultAccount) {
		return nil, fmt.Errorf("account %q is not 12 digits", o.DefaultAccount)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Directory{
		store: store, options: o,
		users: make(map[string]*User), keys: make(map[string]*AccessKey), roles: make(map[string]*Role),
		sessions: make(map[string]*session),
	}
	d.cancel = store.Watch("iam/", d.apply)
	d.mu.RLock()
	missing := d.sealer == nil
	d.mu.RUnlock()
	if missing {
		secret := make([]byte, 32)
		rand.Read(secret)
		value, err := d.encodeSealingKey(secret)
		if err == nil {
			err = store.Commit(ctx, Write{Key: sealingKeyName, Value: value, Create: true})
		}
		// Losing the race is fine: the winner's key has arrived by then.
		if err != nil && !errors.Is(err, ErrConflict) {
			d.cancel()
			return nil, fmt.Errorf("store the key of session tokens: %w", err)
		}
	}
	d.mu.RLock()
	bad, unsealed := d.bad, d.unsealed
	d.mu.RUnlock()
	if bad == nil {
		bad = d.sealRecords(ctx, unsealed)
	}
	if bad != nil {
		d.cancel()
		return nil, bad
	}
	return d, nil
}

// sealRecords writes secrets again that the store holds in clear.
func (d *Directory) sealRecords(ctx context.Context, names []string) error {
	for _, name := range names {
		var value []byte
		var err error
		d.mu.RLock()
		if k := d.keys[name]; k != nil {
			value, err = d.encodeKey(*k)
		} else if name == sealingKeyName {
			value, err = d.encodeSealingKey(d.sealingKey)
		}
		d.mu.RUnlock()
		if err == nil && value != nil {
			err = d.store.Commit(ctx, Write{Key: name, Value: value, Exists: true})
		}
		// A record that is gone by now has no secret to protect.
		if err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("seal record %s: %w", name, err)
		}
	}
	return nil
}

// encodeKey is the record of a key.
func (d *Directory) encodeKey(k AccessKey) ([]byte, error) {
	k.Format, k.Sealed = format, nil
	if d.options.Sealer != nil {
		k.Format = sealedFormat
		k.Sealed = d.options.Sealer.SealSecret(key("access-key", k.ID), []byte(k.Secret))
		k.Secret = ""
	}
	return json.Marshal(&k)
}

func (d *Directory) encodeSealingKey(secret []byte) ([]byte, error) {
	k := sealingKey{Format: format, Key: secret}
	if d.options.Sealer != nil {
		k = sealingKey{Format: sealedFormat, Sealed: d.options.Sealer.SealSecret(sealingKeyName, secret)}
	}
	return json.Marshal(&k)
}

// unsealLocked returns the secret of a record, and notes a record that has it in
// clear and should not.
func (d *Directory) unsealLocked(name string, plain, sealed []byte) ([]byte, error) {
	if sealed == nil {
		if d.options.Sealer != nil {
			d.unsealed = append(d.unsealed, name)
		}
		return plain, nil
	}
	if d.options.Sealer == nil {
		return nil, errors.New("its secret is sealed with a master key, and none is given")
	}
	secret, err := d.options.Sealer.OpenSecret(name, sealed)
	if err != nil {
		return nil, fmt.Errorf("open its secret: %w", err)
	}
	return secret, nil
}

// Close stops following the store.
func (d *Directory) Close() { d.cancel() }

func (d *Directory) apply(writes []Write) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range writes {
		if err := d.applyLocked(w); err != nil && d.bad == nil {
			d.bad = fmt.Errorf("record %s: %w", w.Key, err)
		}
	}
}

func (d *Directory) applyLocked(w Write) error {
	kind, _, _ := strings.Cut(strings.TrimPrefix(w.Key, "iam/"), "/")
	switch kind {
	case "user":
		clear(d.sessions)
		delete(d.users, w.Key)
		return load(w, d.users, func(u *User) (err error) {
			u.parsed, err = parseAll(u.Policies)
			return err
		}, func(u *User) int { return u.Format }, format)
	case "role":
		clear(d.sessions)
		delete(d.roles, w.Key)
		return load(w, d.roles, func(r *Role) (err error) {
			if r.parsed, err = parseAll(r.Policies); err != nil {
				return err
			}
			r.trust, err = ParsePolicy(r.Trust, TrustPolicy)
			return err
		}, func(r *Role) int { return r.Format }, format)
	case "access-key":
		delete(d.keys, w.Key)
		return load(w, d.keys, func(k *AccessKey) error {
			secret, err := d.unsealLocked(w.Key, []byte(k.Secret), k.Sealed)
			k.Secret, k.Sealed = string(secret), nil
			return err
		}, func(k *AccessKey) int { return k.Format }, sealedFormat)
	case "sealing-key":
		if w.Value == nil {
			return nil
		}
		var k sealingKey
		if err := json.Unmarshal(w.Value, &k); err != nil {
			return err
		}
		if k.Format > sealedFormat {
			return newer(k.Format, sealedFormat)
		}
		secret, err := d.unsealLocked(w.Key, k.Key, k.Sealed)
		if err != nil {
			return err
		}
		s, err := newSealer(secret)
		if err != nil {
			return err
		}
		d.sealer, d.sealingKey = s, secret
	}
	return nil
}

func newer(found, known int) error {
	return fmt.Errorf("was written by a newer version (format %d, this one reads up to %d)", found, known)
}

func load[T any](w Write, into map[string]*T, complete func(*T) error, formatOf func(*T) int, known int) error {
	if w.Value == nil {
		return nil
	}
	v := new(T)
	if err := json.Unmarshal(w.Value, v); err != nil {
		return err
	}
	if f := formatOf(v); f > known {
		return newer(f, known)
	}
	if err := complete(v); err != nil {
		return err
	}
	into[w.Key] = v
	return nil
}

func parseAll(policies map[string]string) ([]*Policy, error) {
	list := make([]*Policy, 0, len(policies))
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		p, err := ParsePolicy(policies[name], IdentityPolicy)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, p)
	}
	return list, nil
}

// Secret implements sigv4.Keys: the secret of a long-term key that is active, or
// of a session that has not expired.
func (d *Directory) Secret(accessKey, token string) (string, error) {
	if token != "" {
		s, err := d.session(accessKey, token)
		if err != nil {
			return "", err
		}
		// Whoever asks for a secret verifies. A session that was handed out
		// while nothing was verified must not outlive that.
		if s.Open {
			return "", sigv4.ErrUnknownKey
		}
		return s.Secret, nil
	}
	d.mu.RLock()
	k := d.keys[key("access-key", accessKey)]
	d.mu.RUnlock()
	if k == nil || !k.Active {
		return "", sigv4.ErrUnknownKey
	}
	return k.Secret, nil
}

// Identity says who an access key is. It trusts that the signature has been
// verified, and fails as Secret does.
func (d *Directory) Identity(accessKey, token string) (*Identity, error) {
	if token != "" {
		s, err := d.session(accessKey, token)
		if err != nil {
			return nil, err
		}
		return d.sessionIdentity(s)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	k := d.keys[key("access-key", accessKey)]
	if k == nil || !k.Active {
		return nil, sigv4.ErrUnknownKey
	}
	return d.identityLocked(k.Account, k.User, accessKey)
}

func (d *Directory) identityLocked(account, user, accessKey string) (*Identity, error) {
	if user == "" {
		return &Identity{Principal: RootPrincipal(account, accessKey)}, nil
	}
	u := d.users[key("user", account, user)]
	if u == nil {
		return nil, sigv4.ErrUnknownKey
	}
	return &Identity{Policies: u.parsed, Principal: api.Principal{
		AccountID: u.Account, ARN: u.ARN(), UserID: u.ID, Type: "User", AccessKey: accessKey,
	}}, nil
}

// OpenIdentity says who an access key is where nothing is verified: a known key
// or session is what it is; 12 digits are the root of that account; everything
// else is the root of the default account. It never fails.
func (d *Directory) OpenIdentity(accessKey, token string) *Identity {
	if id, err := d.Identity(accessKey, token); err == nil {
		return id
	}
	return &Identity{Principal: RootPrincipal(d.AccountOf(accessKey), accessKey)}
}

// AccountOf returns the account of an access key: that of a known key, the key
// itself if it is 12 digits, else the default account.
func (d *Directory) AccountOf(accessKey string) string {
	d.mu.RLock()
	k := d.keys[key("access-key", accessKey)]
	d.mu.RUnlock()
	switch {
	case k != nil:
		return k.Account
	case isAccount(accessKey):
		return accessKey
	}
	return d.options.DefaultAccount
}

// RootPrincipal is the owner of an account.
func RootPrincipal(account, accessKey string) api.Principal {
	return api.Principal{AccountID: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account, Type: "Account", AccessKey: accessKey}
}

// Role finds a role by its ARN.
func (d *Directory) Role(arn string) (*Role, bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return nil, false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	r := d.roles[key("role", parts[4], parts[5][strings.LastIndexByte(parts[5], '/')+1:])]
	return r, r != nil
}

// User finds a user.
func (d *Directory) User(account, name string) (*User, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	u := d.users[key("user", account, name)]
	return u, u != nil
}

// Users lists the users of an account by name.
func (d *Directory) Users(account string) []*User {
	return list(d, d.users, func(u *User) (bool, string) { return u.Account == account, u.Name })
}

// Roles lists the roles of an account by name.
func (d *Directory) Roles(account string) []*Role {
	return list(d, d.roles, func(r *Role) (bool, string) { return r.Account == account, r.Name })
}

// AccessKeys lists the keys of a user by id, those of the root if user is
// empty.
func (d *Directory) AccessKeys(account, user string) []*AccessKey {
	return list(d, d.keys, func(k *AccessKey) (bool, string) { return k.Account == account && k.User == user, k.ID })
}

func list[T any](d *Directory, all map[string]*T, wanted func(*T) (bool, string)) []*T {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var found []*T
	for _, v := range all {
		if ok, _ := wanted(v); ok {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b *T) int {
		_, x := wanted(a)
		_, y := wanted(b)
		return strings.Compare(x, y)
	})
	return found
}

// HasKeys says whether any long-term key exists.
func (d *Directory) HasKeys() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.keys) > 0
}

// EnsureRoot makes a root key for an account unless the directory has a key
// already. The secret can be shown this once; made says whether it was.
func (d *Directory) EnsureRoot(ctx context.Context, account string) (k *AccessKey, made bool, err error) {
	if d.HasKeys() {
		return nil, false, nil
	}
	k, err = d.CreateAccessKey(ctx, account, "")
	return k, err == nil, err
}

// CreateAccessKey makes a key for a user, or for the root if user is empty.
func (d *Directory) CreateAccessKey(ctx context.Context, account, user string) (*AccessKey, error) {
	k := &AccessKey{ID: newID("AKIA", 16), Secret: newSecret(), Account: account, User: user, Active: true}
	return k, d.PutAccessKey(ctx, k)
}

// PutAccessKey stores a key that was made elsewhere. It fails with ErrExists if
// the id is taken, and with ErrNotFound if there is no such user.
func (d *Directory) PutAccessKey(ctx context.Context, k *AccessKey) error {
	if !validKeyID(k.ID) || k.Secret == "" || len(k.Secret) > 128 {
		return fmt.Errorf("access key %q: an id has 12 to 128 letters and digits, a secret up to 128 characters", k.ID)
	}
	if !isAccount(k.Account) {
		return fmt.Errorf("access key %s: account %q is not 12 digits", k.ID, k.Account)
	}
	k.Format, k.Created = format, d.options.Now().UTC()
	writes := []Write{}
	if k.User != "" {
		// The user is written as it is, so that it cannot vanish meanwhile.
		u, ok := d.User(k.Account, k.User)
		if !ok {
			return fmt.Errorf("user %s: %w", k.User, ErrNotFound)
		}
		value, err := json.Marshal(u)
		if err != nil {
			return err
		}
		writes = append(writes, Write{Key: key("user", k.Account, k.User), Value: value, Exists: true})
	}
	value, err := d.encodeKey(*k)
	if err != nil {
		return err
	}
	writes = append(writes, Write{Key: key("access-key", k.ID), Value: value, Create: true})
	return d.commit(ctx, ErrExists, writes...)
}

// SetAccessKeyActive lets a key in or locks it out.
func (d *Directory) SetAccessKeyActive(ctx context.Context, id string, active bool) error {
	d.mu.RLock()
	k := d.keys[key("access-key", id)]
	d.mu.RUnlock()
	if k == nil {
		return fmt.Errorf("access key %s: %w", id, ErrNotFound)
	}
	changed := *k
	changed.Active = active
	value, err := d.encodeKey(changed)
	if err != nil {
		return err
	}
	return d.commit(ctx, ErrNotFound, Write{Key: key("access-key", id), Value: value, Exists: true})
}

// DeleteAccessKey removes a key.
func (d *Directory) DeleteAccessKey(ctx context.Context, id string) error {
	return d.commit(ctx, ErrNotFound, Write{Key: key("access-key", id), Exists: true})
}

// PutUser creates a user, or replaces its policies if update is set.
func (d *Directory) PutUser(ctx context.Context, u *User, update bool) error {
	if !validName(u.Name) || !isAccount(u.Account) {
		return fmt.Errorf("user %q of account %q: names have 1 to 64 of A-Z a-z 0-9 _ + = , . @ -, accounts 12 digits", u.Name, u.Account)
	}
	if _, err := parseAll(u.Policies); err != nil {
		return fmt.Errorf("user %s: %w", u.Name, err)
	}
	u.Format = format
	if old, ok := d.User(u.Account, u.Name); ok && update {
		u.ID, u.Created = old.ID, old.Created
	} else {
		u.ID, u.Created = newID("AIDA", 17), d.options.Now().UTC()
	}
	value, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return d.put(ctx, key("user", u.Account, u.Name), value, update)
}

// DeleteUser removes a user and its keys.
func (d *Directory) DeleteUser(ctx context.Context, account, name string) error {
	writes := []Write{{Key: key("user", account, name), Exists: true}}
	for _, k := range d.AccessKeys(account, name) {
		writes = append(writes, Write{Key: key("access-key", k.ID)})
	}
	return d.commit(ctx, ErrNotFound, writes...)
}

// PutRole creates a role, or replaces its policies if update is set.
func (d *Directory) PutRole(ctx context.Context, r *Role, update bool) error {
	if !validName(r.Name) || !isAccount(r.Account) {
		return fmt.Errorf("role %q of account %q: names have 1 to 64 of A-Z a-z 0-9 _ + = , . @ -, accounts 12 digits", r.Name, r.Account)
	}
	if _, err := parseAll(r.Policies); err != nil {
		return fmt.Errorf("role %s: %w", r.Name, err)
	}
	if _, err := ParsePolicy(r.Trust, TrustPolicy); err != nil {
		return fmt.Errorf("role %s: trust %w", r.Name, err)
	}
	if r.MaxSession != 0 && (r.MaxSession < 3600 || r.MaxSession > 43200) {
		return fmt.Errorf("role %s: sessions last 3600 to 43200 seconds at most, not %d", r.Name, r.MaxSession)
	}
	r.Format = format
	if old, ok := d.Role(r.ARN()); ok && update {
		r.ID, r.Created = old.ID, old.Created
	} else {
		r.ID, r.Created = newID("AROA", 17), d.options.Now().UTC()
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return d.put(ctx, key("role", r.Account, r.Name), value, update)
}

// DeleteRole removes a role. Its sessions end with it.
func (d *Directory) DeleteRole(ctx context.Context, account, name string) error {
	return d.commit(ctx, ErrNotFound, Write{Key: key("role", account, name), Exists: true})
}

func (d *Directory) put(ctx context.Context, name string, value []byte, update bool) error {
	if update {
		return d.commit(ctx, ErrNotFound, Write{Key: name, Value: value, Exists: true})
	}
	return d.commit(ctx, ErrExists, Write{Key: name, Value: value, Create: true})
}

func (d *Directory) commit(ctx context.Context, conflict error, writes ...Write) error {
	err := d.store.Commit(ctx, writes...)
	if errors.Is(err, ErrConflict) {
		return conflict
	}
	if err != nil {
		return fmt.Errorf("store identity records: %w", err)
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+=,.@-", c) >= 0) {
			return false
		}
	}
	return true
}

func validKeyID(s string) bool {
	if len(s) < 12 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// newID makes a unique id: a prefix that says of what, and n random letters and
// digits that say nothing.
func newID(prefix string, n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return prefix + string(b)
}

// newSecret makes 40 characters with 240 random bits.
func newSecret() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	b := make([]byte, 40)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[b[i]&63]
	}
	return string(b)
}
