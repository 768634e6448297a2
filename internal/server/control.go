package server

import (
	"context"

	"github.com/millrace/millrace/internal/api/deliverycontrol"
	"github.com/millrace/millrace/internal/firehose/control"
)

// openControl serves what delivery streams can do beyond the service's API.
func (s *Server) openControl(context.Context) error {
	c := control.New(control.Options{Streams: s.firehose, Engine: s.delivery, Meta: s.meta, Now: s.options.Now, Logger: s.logger})
	s.mux.Register(deliverycontrol.Service, c, deliverycontrol.Bind(c))
	return nil
}
