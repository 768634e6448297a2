// Package keyring keeps the keys that records are encrypted with at rest.
//
// The one idea: three levels. A master key (32 bytes in a file, or in memory)
// wraps data keys; a data key belongs to one stream and seals its records; and
// named keys are what callers say: an id, an alias or an ARN of either, with a
// state that decides whether data keys made under the name may be used. So a
// name can be switched off without touching records, the master key never
// meets a record, and rotation means one more data key version beside those
// that older records need.
//
//	caller's KeyId ──► named key {state} ──► data key {versions} ──► per-shard key
//	                                          wrapped by master        derived
//
// # Which names exist
//
// alias/aws/kinesis always does. Any other key id or alias comes into being when
// it is first used, enabled, unless the ring is strict: then only keys that were
// made with Create can be used, and others are ErrNotFound. Names are scoped to
// account and region. An ARN of another region is ErrNotFound in any case.
//
// # Nonces
//
// A record's nonce is its index and its arrival time, under a key derived from
// the data key and the number of the shard's log. Log numbers are never used
// twice; an index may be, when a crash undoes a write that nobody was told of,
// but not with the same millisecond.
//
// Start reading at Ring. The stored form is docs/formats/keyring.md.
package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// The reasons why a key cannot be used. Errors of a Ring wrap one of them.
var (
	ErrNotFound     = errors.New("key does not exist")
	ErrDisabled     = errors.New("key is disabled")
	ErrInvalidState = errors.New("key is pending deletion")
	// ErrDamaged means a stored key that this master key does not open: damaged,
	// or wrapped by another.
	ErrDamaged = errors.New("stored key cannot be opened with this master key")
	// ErrConflict is what a Store returns when a record has changed meanwhile.
	ErrConflict = errors.New("key record has changed")
)

// DefaultKey is the key that always exists.
const DefaultKey = "alias/aws/kinesis"

// MasterKeySize is the length of a master key in bytes.
const MasterKeySize = 32

// Overhead is how much longer sealed data is than plain data.
const Overhead = 16

// State of a named key.
type State string

// The states.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
)

// Store is where keys are kept. Values belong to the store.
type Store interface {
	// Get returns a record; version changes with every write and is not zero.
	Get(key string) (value []byte, version uint64, ok bool)
	// List returns the keys that begin with prefix, in order.
	List(prefix string) []string
	// Put writes a record that has the version, or does not exist if version is
	// zero; else ErrConflict. It is durable at return.
	Put(ctx context.Context, key string, value []byte, version uint64) error
}

// Options of a Ring. Store and Master are required.
type Options struct {
	Store  Store
	Master []byte // MasterKeySize bytes
	// Strict refuses names that were not made with Create.
	Strict bool
	Now    func() time.Time // time.Now if nil
}

// Ring finds and makes keys. Its methods may be called concurrently.
type Ring struct {
	store   Store
	master  cipher.AEAD
	secrets cipher.AEAD // under a key derived from the master key
	strict  bool
	now     func() time.Time
	keys    sync.Map // keyVersion → *Key; as many as data keys in use
}

// Scope is whose names are meant.
type Scope struct{ Account, Region string }

// NamedKey describes a named key.
type NamedKey struct {
	Name    string // a key id, or alias/…
	State   State
	Created time.Time
}

type namedRecord struct {
	Format  int   `json:"format"`
	State   State `json:"state"`
	Created int64 `json:"created"` // milliseconds since 1970
}

type dataRecord struct {
	Format   int           `json:"format"`
	Account  string        `json:"account"`
	Region   string        `json:"region"`
	Name     string        `json:"name"`    // of the named key
	Context  string        `json:"context"` // the stream's ARN
	Versions []dataVersion `json:"versions"`
}

type dataVersion struct {
	Created int64  `json:"created"`
	Wrapped []byte `json:"wrapped"` // nonce and sealed key
}

const (
	format      = 1
	namedPrefix = "keyring-name/"
	dataPrefix  = "keyring-data/"
)

type keyVersion struct {
	id      uint64
	version uint32
}

// Open makes a Ring.
func Open(o Options) (*Ring, error) {
	if o.Store == nil {
		return nil, errors.New("keyring: a store is required")
	}
	if len(o.Master) != MasterKeySize {
		return nil, fmt.Errorf("keyring: master key has %d bytes, want %d", len(o.Master), MasterKeySize)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	derived, err := hkdf.Expand(sha256.New, o.Master, "millrace secrets\x00", 32)
	if err != nil {
		panic(err) // only for an absurd length
	}
	return &Ring{store: o.Store, master: newGCM(o.Master), secrets: newGCM(derived), strict: o.Strict, now: o.Now}, nil
}

// SealSecret encrypts a secret that other packages store, under a key of its own
// that comes from the master key. OpenSecret needs the same purpose, so that no
// sealed secret can be put in another's place.
func (r *Ring) SealSecret(purpose string, secret []byte) []byte {
	nonce := make([]byte, 12, 12+len(secret)+Overhead)
	rand.Read(nonce)
	return r.secrets.Seal(nonce, nonce, secret, []byte(purpose))
}

// OpenSecret is the reverse of SealSecret: ErrDamaged when anything is not as it
// was sealed, the master key included.
func (r *Ring) OpenSecret(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < 12+Overhead {
		return nil, ErrDamaged
	}
	secret, err := r.secrets.Open(nil, sealed[:12], sealed[12:], []byte(purpose))
	if err != nil {
		return nil, ErrDamaged
	}
	return secret, nil
}

// NewMasterKey makes a master key.
func NewMasterKey() []byte {
	key := make([]byte, MasterKeySize)
	rand.Read(key)
	return key
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of a wrong length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// maxName is the longest name of a key.
const maxName = 256

// parseName makes the name of a key from any form in which callers write it. No
// key can have what is not a name: letters, digits and a few signs.
func parseName(scope Scope, ref string) (name string, ok bool) {
	name = ref
	if strings.HasPrefix(ref, "arn:") {
		parts := strings.SplitN(ref, ":", 6)
		if len(parts) != 6 || parts[2] != "kms" || parts[3] != scope.Region {
			return "", false
		}
		var isKey bool
		if name, isKey = strings.CutPrefix(parts[5], "key/"); !isKey && !strings.HasPrefix(name, "alias/") {
			return "", false
		}
	}
	if name == "" || name == "alias/" || len(name) > maxName {
		return "", false
	}
	for i := range len(name) {
		if c := name[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/_-.:+=@", c) >= 0) {
			return "", false
		}
	}
	return name, true
}

func escape(s string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(s)
}

func namedKey(scope Scope, name string) string {
	return namedPrefix + escape(scope.Account) + "/" + escape(scope.Region) + "/" + escape(name)
}

func dataKey(id uint64) string { return fmt.Sprintf("%s%016x", dataPrefix, id) }

// Create makes a named key, enabled. A key that is there already is left alone.
func (r *Ring) Create(ctx context.Context, scope Scope, ref string) error {
	name, ok := parseName(scope, ref)
	if !ok {
		return fmt.Errorf("create key %q: %w", ref, ErrNotFound)
	}
	value, err := json.Marshal(namedRecord{Format: format, State: Enabled, Created: r.now().UnixMilli()})
	if err != nil {
		panic(err)
	}
	if err := r.store.Put(ctx, namedKey(scope, name), value, 0); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("create key %q: %w", ref, err)
	}
	return nil
}

// SetState enables or disables a named key, or marks it for deletion. Records
// that were sealed under it cannot be read while it is not enabled.
func (r *Ring) SetState(ctx context.Context, scope Scope, ref string, state State) error {
	for {
		name, record, version, err := r.named(scope, ref)
		if err == nil && version == 0 {
			if err = r.Create(ctx, scope, ref); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("change state of key %q: %w", ref, err)
		}
		record.State = state
		value, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		if err = r.store.Put(ctx, namedKey(scope, name), value, version); err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("change state of key %q: %w", ref, err)
		}
	}
}

// named reads a named key. Version zero means that it is not stored, and may be.
func (r *Ring) named(scope Scope, ref string) (name string, record namedRecord, version uint64, err error) {
	name, ok := parseName(scope, ref)
	if !ok {
		return "", record, 0, ErrNotFound
	}
	value, version, ok := r.store.Get(namedKey(scope, name))
	if !ok {
		if r.strict && name != DefaultKey {
			return "", record, 0, ErrNotFound
		}
		return name, namedRecord{Format: format, State: Enabled}, 0, nil
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return "", record, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if record.Format != format {
		return "", record, 0, fmt.Errorf("key %q has format %d, this version knows %d", name, record.Format, format)
	}
	return name, record, version, nil
}

// Check reports whether a named key can be used: nil, ErrNotFound, ErrDisabled
// or ErrInvalidState.
func (r *Ring) Check(scope Scope, ref string) error {
	_, record, _, err := r.named(scope, ref)
	if err != nil {
		return err
	}
	switch record.State {
	case Disabled:
		return fmt.Errorf("key %q: %w", ref, ErrDisabled)
	case PendingDeletion:
		return fmt.Errorf("key %q: %w", ref, ErrInvalidState)
	}
	return nil
}

// Keys lists the named keys of a scope that are stored.
func (r *Ring) Keys(scope Scope) []NamedKey {
	prefix := namedKey(scope, "")
	var out []NamedKey
	for _, key := range r.store.List(prefix) {
		value, _, ok := r.store.Get(key)
		var record namedRecord
		if !ok || json.Unmarshal(value, &record) != nil {
			continue
		}
		name := strings.NewReplacer("%2F", "/", "%25", "%").Replace(strings.TrimPrefix(key, prefix))
		out = append(out, NamedKey{Name: name, State: record.State, Created: time.UnixMilli(record.Created)})
	}
	return out
}

// NewDataKey makes a data key under a named key, and the named key itself if it
// may come into being. context says what it is for: the stream's ARN. The id is
// what DataKey takes.
func (r *Ring) NewDataKey(ctx context.Context, scope Scope, ref, context string) (id string, err error) {
	if err := r.Check(scope, ref); err != nil {
		return "", err
	}
	name, _, version, err := r.named(scope, ref)
	if err != nil {
		return "", err
	}
	if version == 0 {
		if err := r.Create(ctx, scope, ref); err != nil {
			return "", err
		}
	}
	for {
		var raw [8]byte
		rand.Read(raw[:])
		number := binary.BigEndian.Uint64(raw[:])
		record := dataRecord{Format: format, Account: scope.Account, Region: scope.Region, Name: name, Context: context}
		record.Versions = []dataVersion{r.wrap(number, 1)}
		value, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		err = r.store.Put(ctx, dataKey(number), value, 0)
		if errors.Is(err, ErrConflict) {
			continue // a number drawn twice
		}
		if err != nil {
			return "", fmt.Errorf("make data key under %q: %w", ref, err)
		}
		return fmt.Sprintf("%016x", number), nil
	}
}

// wrap makes a fresh data key version.
func (r *Ring) wrap(id uint64, version uint32) dataVersion {
	secret := make([]byte, 32)
	rand.Read(secret)
	nonce := make([]byte, 12, 12+32+16)
	rand.Read(nonce)
	return dataVersion{Created: r.now().UnixMilli(), Wrapped: r.master.Seal(nonce, nonce, secret, wrapContext(id, version))}
}

func wrapContext(id uint64, version uint32) []byte {
	b := append([]byte(nil), "millrace data key\x00"...)
	b = binary.BigEndian.AppendUint64(b, id)
	return binary.BigEndian.AppendUint32(b, version)
}

// Rotate gives a data key another version, which seals from now on. Records
// sealed with older ones stay readable.
func (r *Ring) Rotate(ctx context.Context, id string) error {
	for {
		number, err := parseID(id)
		if err != nil {
			return err
		}
		record, stored, err := r.data(number)
		if err != nil {
			return err
		}
		record.Versions = append(record.Versions, r.wrap(number, uint32(len(record.Versions)+1)))
		value, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		if err = r.store.Put(ctx, dataKey(number), value, stored); err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("rotate data key %s: %w", id, err)
		}
	}
}

func parseID(id string) (uint64, error) {
	var number uint64
	if len(id) != 16 {
		return 0, fmt.Errorf("data key %q: %w", id, ErrNotFound)
	}
	for _, c := range []byte(id) {
		d := strings.IndexByte("0123456789abcdef", c)
		if d < 0 {
			return 0, fmt.Errorf("data key %q: %w", id, ErrNotFound)
		}
		number = number<<4 | uint64(d)
	}
	return number, nil
}

func (r *Ring) data(number uint64) (record dataRecord, version uint64, err error) {
	value, version, ok := r.store.Get(dataKey(number))
	if !ok {
		return record, 0, fmt.Errorf("data key %016x: %w", number, ErrNotFound)
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return record, 0, fmt.Errorf("data key %016x: %w: %w", number, ErrDamaged, err)
	}
	if record.Format != format {
		return record, 0, fmt.Errorf("data key %016x has format %d, this version knows %d", number, record.Format, format)
	}
	return record, version, nil
}

// DataKey returns the version of a data key that seals now. Fails as Check does
// when its named key cannot be used.
func (r *Ring) DataKey(id string) (*Key, error) {
	number, err := parseID(id)
	if err != nil {
		return nil, err
	}
	return r.DataKeyVersion(number, 0)
}

// DataKeyVersion returns the version of a data key that a record names; 0 is
// the newest.
func (r *Ring) DataKeyVersion(id uint64, version uint32) (*Key, error) {
	record, _, err := r.data(id)
	if err != nil {
		return nil, err
	}
	if err := r.Check(Scope{record.Account, record.Region}, record.Name); err != nil {
		return nil, err
	}
	if version == 0 {
		version = uint32(len(record.Versions))
	}
	if version == 0 || int64(version) > int64(len(record.Versions)) {
		return nil, fmt.Errorf("data key %016x has no version %d: %w", id, version, ErrNotFound)
	}
	if k, ok := r.keys.Load(keyVersion{id, version}); ok {
		return k.(*Key), nil
	}
	wrapped := record.Versions[version-1].Wrapped
	if len(wrapped) != 12+32+16 {
		return nil, fmt.Errorf("data key %016x: %w", id, ErrDamaged)
	}
	secret, err := r.master.Open(nil, wrapped[:12], wrapped[12:], wrapContext(id, version))
	if err != nil {
		return nil, fmt.Errorf("data key %016x: %w", id, ErrDamaged)
	}
	k, _ := r.keys.LoadOrStore(keyVersion{id, version}, &Key{ID: id, Version: version, secret: secret})
	return k.(*Key), nil
}

// Key is one version of a data key.
type Key struct {
	ID      uint64
	Version uint32
	secret  []byte
}

// Shard derives the key of one shard log.
func (k *Key) Shard(log uint64) *ShardKey {
	info := make([]byte, 0, 32)
	info = append(info, "millrace shard key\x00"...)
	info = binary.BigEndian.AppendUint64(info, log)
	secret, err := hkdf.Expand(sha256.New, k.secret, string(info), 32)
	if err != nil {
		panic(err) // only for an absurd length
	}
	return &ShardKey{ID: k.ID, Version: k.Version, aead: newGCM(secret)}
}

// ShardKey seals and opens the records of one shard log.
type ShardKey struct {
	ID      uint64
	Version uint32
	aead    cipher.AEAD
}

// Seal appends sealed data to dst: data and Overhead more bytes. index and at
// are the record's place and arrival time, below 2^48 each; bound is what the
// record must be opened with again.
func (k *ShardKey) Seal(dst, data []byte, index uint64, at int64, bound []byte) []byte {
	n := nonce(index, at)
	return k.aead.Seal(dst, n[:], data, bound)
}

// Open is the reverse of Seal. It may write to dst before it fails; data may
// be opened in place. ErrDamaged when anything is not as it was sealed.
func (k *ShardKey) Open(dst, sealed []byte, index uint64, at int64, bound []byte) ([]byte, error) {
	n := nonce(index, at)
	out, err := k.aead.Open(dst, n[:], sealed, bound)
	if err != nil {
		return nil, ErrDamaged
	}
	return out, nil
}

func nonce(index uint64, at int64) (n [12]byte) {
	binary.BigEndian.PutUint32(n[0:], uint32(index>>16))
	binary.BigEndian.PutUint16(n[4:], uint16(index))
	binary.BigEndian.PutUint32(n[6:], uint32(uint64(at)>>16))
	binary.BigEndian.PutUint16(n[10:], uint16(at))
	return n
}
