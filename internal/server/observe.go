package server

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/wire"
)

func newLogger(c *config.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		panic("server: log level was not validated: " + c.LogLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// openObservers returns what is told of every request: metrics always, the
// access log and the audit log if they are on.
func (s *Server) openObservers() (func(*wire.Outcome), error) {
	access, err := s.openLines("access-log", s.config.AccessLog)
	if err != nil {
		return nil, err
	}
	audit, err := s.openLines("audit-log", s.config.AuditLog)
	if err != nil {
		return nil, err
	}
	var accessLog, auditLog *slog.Logger
	if access != nil {
		if s.config.LogFormat == "json" {
			accessLog = slog.New(slog.NewJSONHandler(access, nil))
		} else {
			accessLog = slog.New(slog.NewTextHandler(access, nil))
		}
	}
	if audit != nil {
		auditLog = slog.New(slog.NewJSONHandler(audit, nil))
	}
	return func(o *wire.Outcome) {
		s.metrics.Request(o)
		if accessLog != nil {
			s.logAccess(accessLog, o)
		}
		if auditLog != nil && o.Call.Operation != nil && !o.Call.Operation.DataPlane {
			s.logAudit(auditLog, o)
		}
	}, nil
}

// logAccess writes a line for any request. Of what a client sent, it shows names
// and headers only.
func (s *Server) logAccess(l *slog.Logger, o *wire.Outcome) {
	operation := ""
	if o.Call.Operation != nil {
		operation = o.Call.Operation.Name
	}
	attrs := []slog.Attr{
		slog.String("id", o.Call.RequestID),
		slog.String("remote", o.Call.Remote.String()),
		slog.String("method", o.Method),
		slog.String("path", o.Path),
		slog.String("operation", operation),
		slog.String("stream", streamOf(s.resource(o))),
		slog.Int("status", o.Status),
		slog.String("code", o.Code),
		slog.Int64("in", o.BytesIn),
		slog.Int64("out", o.BytesOut),
		slog.Duration("took", o.Duration.Round(time.Microsecond)),
		slog.Int("http", o.Major),
		slog.String("encoding", o.Encoding),
		slog.String("account", o.Call.Account),
		slog.String("region", o.Call.Region),
		slog.String("principal", o.Call.Principal.ARN),
		slog.String("key", o.Call.Principal.AccessKey),
		slog.String("host", o.Call.Host),
		slog.String("agent", o.Call.UserAgent),
	}
	if o.Attempt != "" {
		attrs = append(attrs, slog.String("attempt", o.Attempt))
	}
	l.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// resource is the ARN of what a request was about, "*" or empty for nothing in
// particular.
func (s *Server) resource(o *wire.Outcome) string {
	if o.Input == nil {
		return o.Resource
	}
	return s.mux.Resource(o.Call, o.Input)
}

// streamOf is the name of the stream or delivery stream that an ARN, such as that
// of a consumer, belongs to; empty if there is none.
func streamOf(arn string) string {
	_, rest, ok := strings.Cut(arn, ":stream/")
	if !ok {
		_, rest, ok = strings.Cut(arn, ":deliverystream/")
	}
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// logAudit writes who did what to which resource and how it went. What else a
// request holds stays out: policies, tags and tokens may be secrets.
func (s *Server) logAudit(l *slog.Logger, o *wire.Outcome) {
	result := "ok"
	if o.Code != "" {
		result = o.Code
	}
	l.LogAttrs(context.Background(), slog.LevelInfo, "call",
		slog.String("action", o.Call.Operation.Action),
		slog.String("resource", s.resource(o)),
		slog.String("result", result),
		slog.String("principal", o.Call.Principal.ARN),
		slog.String("key", o.Call.Principal.AccessKey),
		slog.String("account", o.Call.Account),
		slog.String("region", o.Call.Region),
		slog.String("remote", o.Call.Remote.String()),
		slog.String("agent", o.Call.UserAgent),
		slog.String("id", o.Call.RequestID),
	)
}
