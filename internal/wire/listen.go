package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"sync/atomic"
	"time"
)

// Defaults and fixed bounds of the listener.
const (
	// maxHeaderBytes bounds request line and headers together. Presigned
	// requests with long session tokens stay far below it.
	maxHeaderBytes = 64 << 10
	// maxFrameBytes bounds one HTTP/2 frame, and so the read buffer that a
	// connection keeps.
	maxFrameBytes = 256 << 10
	// handshakeTimeout bounds writing during a TLS handshake. Reading is
	// bounded by HeaderTimeout, which starts with the connection.
	handshakeTimeout = 10 * time.Second
	// recordTypeHandshake is the first byte of every TLS connection and of no
	// HTTP request.
	recordTypeHandshake = 0x16
)

// ServerOptions describe a Server. Handler is required; zero values of the
// rest take the stated defaults.
type ServerOptions struct {
	Handler http.Handler
	// TLS serves connections that start with a TLS handshake. Nil refuses them.
	TLS *tls.Config
	// MaxConnections bounds open connections over all listeners; one above it
	// is closed as soon as it is accepted. Default 10,000.
	MaxConnections int
	// MaxStreams is the number of concurrent requests allowed on one HTTP/2
	// connection. Default 2,000: a KCL worker opens a stream for every shard.
	MaxStreams int
	// HeaderTimeout bounds the time from the first byte that may come (or from
	// the accept, for the first request) to the end of the headers, the TLS
	// handshake included. Default 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout closes a connection without requests. Default 3 min, more
	// than the keep-alive of the SDKs, so that the client closes first.
	IdleTimeout time.Duration
	Logger      *slog.Logger
	// OnConnection is called when a connection has been opened (+1), has ended
	// (-1) or was turned away (0). It must not block.
	OnConnection func(delta int)
}

// Server serves HTTP/1.1 and HTTP/2, in clear text and over TLS, on every
// listener it is given. Which of the five forms a connection has is decided by
// its first bytes:
//
//	0x16               TLS record      handshake, then look again
//	PRI * HTTP/2.0     HTTP/2 preface  with or without ALPN, with or without TLS
//	anything else      HTTP/1.1
//
// Java clients before SDK 2.30 start HTTP/2 over TLS without negotiating it, so
// the result of ALPN is offered but never relied upon.
type Server struct {
	http   http.Server
	tls    *tls.Config
	max    int64
	open   atomic.Int64
	notify func(int)
}

// NewServer returns a server that serves nothing until Serve is called.
func NewServer(o ServerOptions) *Server {
	orDefault := func(d, fallback time.Duration) time.Duration {
		if d <= 0 {
			return fallback
		}
		return d
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 10_000
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = 2_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnConnection == nil {
		o.OnConnection = func(int) {}
	}
	s := &Server{max: int64(o.MaxConnections), notify: o.OnConnection}
	if o.TLS != nil {
		s.tls = o.TLS.Clone()
		s.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	// The connection that net/http sees is always "unencrypted": TLS ends in
	// conn, below it. This makes net/http look for the HTTP/2 preface itself.
	protocols.SetUnencryptedHTTP2(true)
	s.http = http.Server{
		Handler:           o.Handler,
		Protocols:         protocols,
		ReadHeaderTimeout: orDefault(o.HeaderTimeout, 10*time.Second),
		IdleTimeout:       orDefault(o.IdleTimeout, 3*time.Minute),
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          o.MaxStreams,
			MaxReadFrameSize:              maxFrameBytes,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     1 << 20,
		},
		// Probes and port scanners make net/http talkative; none of it is an
		// operator's business unless asked for.
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	return s
}

// Serve accepts from l until Shutdown or Close, and then returns nil. It may be
// called for several listeners at once.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(&listener{Listener: l, server: s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting and returns when the requests in flight have been
// answered and their connections closed, or with ctx.Err() when ctx ends first.
// Long replies are the handler's to end: see Mux.Drain.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close ends every connection at once.
func (s *Server) Close() error { return s.http.Close() }

// Connections is the number of open connections.
func (s *Server) Connections() int { return int(s.open.Load()) }

// listener wraps what it accepts and enforces the connection limit. It does
// nothing that could wait: a slow peer costs its own goroutine, never the
// accept loop.
type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.server.open.Add(1) > l.server.max {
			l.server.open.Add(-1)
			l.server.notify(0)
			c.Close()
			continue
		}
		l.server.notify(1)
		return &conn{Conn: c, server: l.server}, nil
	}
}

type connKey struct{}

// conn looks at its first byte when it is first read, in the goroutine that
// serves it, and puts TLS below itself if the peer starts with it.
type conn struct {
	net.Conn // the socket
	server   *Server
	looked   bool // by Read only, which has one caller at a time
	tls      atomic.Pointer[tls.Conn]
	closed   atomic.Bool
}

// secure tells whether the request's connection came over TLS.
func secure(ctx context.Context) bool {
	c, ok := ctx.Value(connKey{}).(*conn)
	return ok && c.tls.Load() != nil
}

// connectionState describes the TLS connection of a request, nil in clear text.
func connectionState(ctx context.Context) *tls.ConnectionState {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return nil
	}
	t := c.tls.Load()
	if t == nil {
		return nil
	}
	state := t.ConnectionState()
	return &state
}

var errNoTLS = errors.New("TLS is switched off")

func (c *conn) Read(p []byte) (int, error) {
	if c.looked {
		if t := c.tls.Load(); t != nil {
			return t.Read(p)
		}
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	c.looked = true
	if p[0] != recordTypeHandshake {
		return n, err
	}
	if c.server.tls == nil {
		return 0, errNoTLS
	}
	seen := append([]byte(nil), p[:n]...)
	t := tls.Server(&prefixed{Conn: c.Conn, seen: seen}, c.server.tls)
	c.Conn.SetWriteDeadline(time.Now().Add(handshakeTimeout))
	if err := t.Handshake(); err != nil {
		return 0, err
	}
	c.Conn.SetWriteDeadline(time.Time{})
	c.tls.Store(t)
	return t.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	if t := c.tls.Load(); t != nil {
		return t.Write(p)
	}
	return c.Conn.Write(p)
}

// CloseWrite lets net/http end a connection whose request it has not read to
// the end without the reply being lost to a reset.
func (c *conn) CloseWrite() error {
	if t := c.tls.Load(); t != nil {
		return t.CloseWrite()
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	c.server.open.Add(-1)
	c.server.notify(-1)
	if t := c.tls.Load(); t != nil {
		return t.Close()
	}
	return c.Conn.Close()
}

// prefixed gives back bytes that were read to look at them.
type prefixed struct {
	net.Conn
	seen []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.seen) > 0 {
		n := copy(b, p.seen)
		p.seen = p.seen[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
