package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/millrace/millrace/internal/identity"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/vfs"
)

// masterKeyFile is the master key's name in the data directory.
const masterKeyFile = "master.key"

// openKeyring opens the keys that encrypt streams and the secrets of users. The
// master key is a file beside the data; in memory it is as short-lived as what
// it protects.
func (s *Server) openKeyring(context.Context) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	master := keyring.NewMasterKey()
	if files != nil {
		if err := s.checkMasterKey(files); err != nil {
			return err
		}
		if master, err = keyring.OpenMasterKey(files, masterKeyFile); err != nil {
			return explainData(s.config.DataPath(), err)
		}
	}
	s.keyring, err = keyring.Open(keyring.Options{
		Master: master, Store: keyring.InMetadata(s.meta), Strict: s.config.KMS == "strict", Now: s.options.Now,
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	return nil
}

// checkMasterKey refuses a directory that has lost its master key: one made in
// its place would open nothing, and hide the loss.
func (s *Server) checkMasterKey(files vfs.FS) error {
	if _, err := files.Stat(masterKeyFile); !errors.Is(err, fs.ErrNotExist) {
		return nil // opening tells what else may be wrong
	}
	for _, prefix := range []string{"iam/", "keyring-"} {
		if len(s.meta.List(prefix, "", 1)) > 0 {
			return fmt.Errorf("data directory %s: %s is missing, and secrets and encrypted records cannot be read without it; put it back from a backup", s.config.DataPath(), masterKeyFile)
		}
	}
	return nil
}

// openIssuers reads who may sign web identity tokens.
func (s *Server) openIssuers() ([]identity.Issuer, error) {
	if s.config.WebIdentityIssuers == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(s.config.WebIdentityIssuers)
	if err != nil {
		return nil, fmt.Errorf("web-identity-issuers: %w", err)
	}
	issuers, err := identity.ParseIssuers(raw)
	if err != nil {
		return nil, fmt.Errorf("web-identity-issuers: %s: %w", s.config.WebIdentityIssuers, err)
	}
	return issuers, nil
}
