package server

import (
	"context"

	"github.com/millrace/millrace/internal/keyring"
)

// masterKeyFile is the master key's name in the data directory.
const masterKeyFile = "master.key"

// openKeyring opens the keys that encrypt streams. The master key is a file
// beside the data; in memory it is as short-lived as what it protects.
func (s *Server) openKeyring(context.Context) (*keyring.Ring, error) {
	fs, err := s.files()
	if err != nil {
		return nil, err
	}
	master := keyring.NewMasterKey()
	if fs != nil {
		if master, err = keyring.OpenMasterKey(fs, masterKeyFile); err != nil {
			return nil, explainData(s.config.DataPath(), err)
		}
	}
	ring, err := keyring.Open(keyring.Options{Master: master, Store: keyring.InMetadata(s.meta)})
	if err != nil {
		return nil, explainData(s.config.DataPath(), err)
	}
	return ring, nil
}
