package server

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/millrace/millrace/internal/firehose/channels"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/vfs"
)

// objectsDir holds the buckets.
const objectsDir = "objects"

// openObjects opens the server's own buckets, serves them on the API port, and
// chooses the store that writers of objects use.
func (s *Server) openObjects(ctx context.Context) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	if files == nil {
		files = vfs.NewMemory()
	} else {
		files = vfs.Sub(files, objectsDir)
	}
	s.buckets, err = objects.Open(objects.Options{Files: files, LowWatermark: int64(s.config.LowWatermark), Now: s.options.Now, Logger: s.logger})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	// Requests end before it does, and so do deliveries, which start after it.
	s.onStopBefore("API", "objects", func(context.Context) error { return s.buckets.Close() })

	o := objects.HandlerOptions{Directory: s.directory}
	if s.config.Auth == "keys" {
		o.Verifier = sigv4.NewVerifier(s.directory, sigv4.Options{Window: s.config.ClockWindow, Now: s.options.Now})
	}
	if host, _, err := net.SplitHostPort(s.config.PublicName); err == nil && net.ParseIP(host) == nil {
		o.Hosts = append(o.Hosts, strings.ToLower(host))
	}
	handler := s.buckets.Handler(o)
	s.mux.RouteStream(handler.Recognises, handler)

	s.objects = s.buckets
	if s.config.S3Endpoint != "" {
		r := objects.RemoteOptions{Endpoint: s.config.S3Endpoint, Region: s.config.S3Region, PathStyle: s.config.S3PathStyle}
		if r.Endpoint == "aws" {
			r.Endpoint = ""
		}
		remote, err := objects.NewRemote(ctx, r)
		if err != nil {
			return fmt.Errorf("s3-endpoint: %w", err)
		}
		s.objects = remote
	}
	return nil
}

// channelRunner delivers data streams to buckets. What it delivers with is opened
// later than the streams, and before any of their channels starts.
func (s *Server) channelRunner() *channels.Runner {
	return channels.New(channels.Options{
		Engine: func() *delivery.Engine { return s.delivery },
		Store: func(role string) objects.Store {
			if s.config.Auth != "keys" {
				return s.objects
			}
			return roleAccess{directory: s.directory, buckets: s.buckets, own: s.objects == objects.Store(s.buckets)}.store(s.objects, role)
		},
	})
}
