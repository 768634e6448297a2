package firehose

import (
	"errors"

	"github.com/millrace/millrace/internal/firehose/dest"
)

var errPending = errors.New("this destination cannot be used on this server")

func (a *assembly) redshift() (dest.Destination, error)      { return nil, errPending }
func (a *assembly) elasticsearch() (dest.Destination, error) { return nil, errPending }
func (a *assembly) openSearch() (dest.Destination, error)    { return nil, errPending }
func (a *assembly) serverless() (dest.Destination, error)    { return nil, errPending }
func (a *assembly) snowflake() (dest.Destination, error)     { return nil, errPending }
func (a *assembly) iceberg() (dest.Destination, error)       { return nil, errPending }
