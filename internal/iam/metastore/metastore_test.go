package metastore

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

// A directory over the metadata log is there again when the log is read anew.
func TestDirectorySurvivesRestart(t *testing.T) {
	ctx := context.Background()
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	defer log.Close()
	open := func() (*iam.Directory, func()) {
		m, err := meta.Open(ctx, log, nil, meta.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := iam.Open(ctx, New(m), iam.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return d, func() {
			d.Close()
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	d, stop := open()
	k, _, err := d.EnsureRoot(ctx, "123456789012")
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Issue(iam.NewSession{Account: "123456789012", Duration: 1e12})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.PutUser(ctx, &iam.User{Account: "123456789012", Name: "alice"}, false); err != nil {
		t.Fatal(err)
	}
	if err := d.PutUser(ctx, &iam.User{Account: "123456789012", Name: "alice"}, false); !errors.Is(err, iam.ErrExists) {
		t.Errorf("second user: %v", err)
	}
	if err := d.DeleteUser(ctx, "123456789012", "alice"); err != nil {
		t.Fatal(err)
	}
	stop()

	d, stop = open()
	defer stop()
	if s, err := d.Secret(k.ID, ""); err != nil || s != k.Secret {
		t.Errorf("root key: %q, %v", s, err)
	}
	if s, err := d.Secret(c.AccessKey, c.SessionToken); err != nil || s != c.SecretKey {
		t.Errorf("session: %v", err)
	}
	if len(d.Users("123456789012")) != 0 {
		t.Error("a deleted user is back")
	}
}
