package keyring

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/vfs"
)

var scope = Scope{"123456789012", "eu-central-1"}

func open(t *testing.T, store Store, master []byte, strict bool) *Ring {
	t.Helper()
	r, err := Open(Options{Store: store, Master: master, Strict: strict})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNames(t *testing.T) {
	const arn = "arn:aws:kms:eu-central-1:123456789012:"
	for _, strict := range []bool{false, true} {
		r := open(t, InMemory(), NewMasterKey(), strict)
		for ref, known := range map[string]bool{
			DefaultKey: true, arn + DefaultKey: true, "alias/mine": !strict, "1234-abcd": !strict, arn + "key/1234": !strict,
			arn + "alias/mine": !strict, "arn:aws:kms:us-east-1:123456789012:key/1": false, "arn:aws:s3:::x": false, "": false, "alias/": false,
			arn + "alias/": false, arn + "key/": false, arn + "grant/1": false, "a b": false, "alias/%": false, "\u00e9": false,
			strings.Repeat("k", 256): !strict, strings.Repeat("k", 257): false, strings.Repeat("%", 2048): false,
		} {
			if err := r.Check(scope, ref); (err == nil) != known || err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("strict=%v %q: %v", strict, ref, err)
			}
		}
		if err := r.Create(t.Context(), scope, "alias/mine"); err != nil {
			t.Fatal(err)
		}
		if err := r.Check(scope, arn+"alias/mine"); err != nil {
			t.Errorf("strict=%v: a key that was made: %v", strict, err)
		}
		if keys := r.Keys(scope); len(keys) != 1 || keys[0].Name != "alias/mine" || keys[0].State != Enabled {
			t.Errorf("keys %+v", keys)
		}
	}
}

func TestRotationKeepsOldVersions(t *testing.T) {
	store, master := InMemory(), NewMasterKey()
	r := open(t, store, master, false)
	id, err := r.NewDataKey(t.Context(), scope, DefaultKey, "arn")
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.DataKey(id)
	if err != nil {
		t.Fatal(err)
	}
	sealed := first.Shard(7).Seal(nil, []byte("secret"), 5, 1000, []byte("bound"))
	if err := r.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r = open(t, store, master, false)
	second, err := r.DataKey(id)
	if err != nil || second.Version != 2 {
		t.Fatalf("version %d, %v", second.Version, err)
	}
	old, err := r.DataKeyVersion(first.ID, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := old.Shard(7).Open(nil, sealed, 5, 1000, []byte("bound")); err != nil || string(got) != "secret" {
		t.Errorf("opened %q, %v", got, err)
	}
	for name, attempt := range map[string]func() ([]byte, error){
		"new version":   func() ([]byte, error) { return second.Shard(7).Open(nil, sealed, 5, 1000, []byte("bound")) },
		"another shard": func() ([]byte, error) { return old.Shard(8).Open(nil, sealed, 5, 1000, []byte("bound")) },
		"another index": func() ([]byte, error) { return old.Shard(7).Open(nil, sealed, 6, 1000, []byte("bound")) },
		"another time":  func() ([]byte, error) { return old.Shard(7).Open(nil, sealed, 5, 1001, []byte("bound")) },
		"another bound": func() ([]byte, error) { return old.Shard(7).Open(nil, sealed, 5, 1000, []byte("other")) },
	} {
		if got, err := attempt(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s opens %q, %v", name, got, err)
		}
	}
	if _, err := open(t, store, NewMasterKey(), false).DataKey(id); !errors.Is(err, ErrDamaged) {
		t.Errorf("another master key: %v", err)
	}
	if _, err := r.DataKeyVersion(first.ID, 3); !errors.Is(err, ErrNotFound) {
		t.Errorf("a version to come: %v", err)
	}
}

func TestStates(t *testing.T) {
	r := open(t, InMemory(), NewMasterKey(), false)
	id, err := r.NewDataKey(t.Context(), scope, "mine", "arn")
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[State]error{Disabled: ErrDisabled, PendingDeletion: ErrInvalidState, Enabled: nil} {
		if err := r.SetState(t.Context(), scope, "mine", state); err != nil {
			t.Fatal(err)
		}
		if _, err := r.DataKey(id); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", state, err, want)
		}
	}
}

func TestMasterKeyFile(t *testing.T) {
	fs := vfs.NewMemory()
	first, err := OpenMasterKey(fs, "master.key")
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenMasterKey(fs, "master.key")
	if err != nil || !bytes.Equal(first, second) || len(first) != MasterKeySize {
		t.Errorf("read %x, %v; made %x", second, err, first)
	}
	f, err := fs.Open("master.key", vfs.Write)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(5), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMasterKey(fs, "master.key"); err == nil {
		t.Error("a file of another length is taken for a key")
	}
}

func TestSecretsOpenUnderTheirPurposeAndMasterKeyOnly(t *testing.T) {
	master := NewMasterKey()
	r := open(t, InMemory(), master, false)
	sealed := r.SealSecret("a", []byte("secret"))
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("sealed data holds the secret")
	}
	if got, err := open(t, InMemory(), master, false).OpenSecret("a", sealed); err != nil || string(got) != "secret" {
		t.Errorf("opened %q, %v", got, err)
	}
	if bytes.Equal(sealed, r.SealSecret("a", []byte("secret"))) {
		t.Error("the same secret is sealed to the same bytes twice")
	}
	if _, err := r.OpenSecret("b", sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("another purpose: %v", err)
	}
	if _, err := open(t, InMemory(), NewMasterKey(), false).OpenSecret("a", sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("another master key: %v", err)
	}
	for n := range sealed {
		if _, err := r.OpenSecret("a", sealed[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
}
