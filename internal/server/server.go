package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/analytics"
	"github.com/millrace/millrace/internal/analytics/host"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/catalog"
	"github.com/millrace/millrace/internal/certs"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/functions"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/iam/metastore"
	"github.com/millrace/millrace/internal/identity"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/logs"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/metrics"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/streams"
	"github.com/millrace/millrace/internal/vfs"
	"github.com/millrace/millrace/internal/wire"
)

// Options are what Open needs besides the configuration.
type Options struct {
	Config  *config.Loaded
	Version string
	// Stdout gets the endpoints and other things a person wants to copy; Stderr
	// the log. Nil discards.
	Stdout, Stderr io.Writer
	// Files, if set, is used in place of the data directory; the server's
	// authority is then kept in memory.
	Files vfs.FS
	// Now is the clock of the services; time.Now if nil.
	Now func() time.Time
	// Getenv reads the OTEL_ variables; os.Getenv if nil.
	Getenv func(string) string
}

// Server is a millrace that listens.
type Server struct {
	options Options
	config  *config.Config
	logger  *slog.Logger
	stops   []stop // in the order of start

	metrics      *metrics.Registry
	log          *shardlog.Log
	meta         *meta.Store
	keyring      *keyring.Ring
	directory    *iam.Directory
	streams      *streams.Service
	buckets      *objects.Embedded // the server's own
	objects      objects.Store     // of those who write objects
	catalog      *catalog.Service
	logs         *logs.Service
	functions    *functions.Registry
	delivery     *delivery.Engine
	firehose     *firehose.Service
	applications *host.Host
	analytics    *analytics.Service
	limiter      *quota.Limiter
	authority    *certs.Authority // nil with the operator's certificate
	mux          *wire.Mux
	api          *wire.Server
	admin        *http.Server
	rootKey      *iam.AccessKey // made by this start

	listeners     []net.Listener
	adminListener net.Listener
	health        health
	administering errgroup.Group // serves the admin port
	lines         []*lineFile    // logs that are files
	tracing       bool
}

// stop is how a part ends.
type stop struct {
	name string
	f    func(context.Context) error
}

func (s *Server) onStop(name string, f func(context.Context) error) {
	s.stops = append(s.stops, stop{name, f})
}

// Open builds a server and has it listen; requests are answered once Run is
// called. Its errors are one line that says what, where and what to do.
func Open(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{options: o, config: &o.Config.Config}
	s.logger = newLogger(s.config, o.Stderr)
	defer func() {
		if err != nil {
			s.end(context.Background())
		}
	}()
	for _, step := range []func(context.Context) error{
		s.listen, // first: a taken port should not cost a recovery
		s.openMetrics,
		s.openAdmin, // early: probes are answered while the log recovers
		s.openLog,
		s.openMeta,
		s.openKeyring,
		s.openDirectory,
		s.openStreams,
		s.openWire,
		s.openObjects,
		s.openCatalog,
		s.openLogs,
		s.openFunctions,
		s.openFirehose, // late: destinations are built from the others
		s.openControl,
		s.openAnalytics, // last: applications read and write all of them
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// listen takes the ports.
func (s *Server) listen(context.Context) error {
	for i, address := range append([]string{s.config.Listen}, s.config.ExtraListen...) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			key := "listen"
			if i > 0 {
				key = "extra-listen"
			}
			return explainListen(key, address, err)
		}
		s.listeners = append(s.listeners, l)
		s.onStop("listener", func(context.Context) error { return closed(l.Close()) })
	}
	if s.config.AdminListen != "off" {
		l, err := net.Listen("tcp", s.config.AdminListen)
		if err != nil {
			return explainListen("admin-listen", s.config.AdminListen, err)
		}
		s.adminListener = l
		s.onStop("admin listener", func(context.Context) error { return closed(l.Close()) })
	}
	return nil
}

// closed passes over the error of closing twice.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) openMetrics(context.Context) error {
	s.metrics = metrics.New(metrics.Options{Streams: s.config.MetricsStreams, Shards: s.config.MetricsShards, Version: s.options.Version, Now: s.options.Now})
	s.limiter = quota.New(quota.Options{Enforce: s.config.Limits == "aws", Now: s.options.Now})
	s.metrics.Limiter(s.limiter)
	return nil
}

// files is the data directory, nil if everything is in memory.
func (s *Server) files() (vfs.FS, error) {
	if s.options.Files != nil {
		return s.options.Files, nil
	}
	if s.config.Ephemeral {
		return nil, nil
	}
	dir := s.config.DataPath()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explainData(dir, err)
	}
	return vfs.OS(dir), nil
}

// openLog opens the engine and the log over it.
func (s *Server) openLog(ctx context.Context) error {
	fs, err := s.files()
	if err != nil {
		return err
	}
	var engine driver.Driver
	if fs == nil {
		engine = memory.New(memory.Options{Now: s.options.Now})
	} else {
		started := time.Now()
		watermark := int64(s.config.LowWatermark)
		if watermark == 0 {
			watermark = -1
		}
		l, err := local.Open(ctx, fs, local.Options{
			SegmentBytes:      int(s.config.WALSegmentBytes),
			SegmentCount:      s.config.WALSegments,
			LowWatermarkBytes: watermark,
			Repair:            s.config.Repair,
			Now:               s.options.Now,
			Logger:            s.logger,
			Metrics:           engineMetrics{s.metrics, &s.health},
		})
		if err != nil {
			return explainData(s.config.DataPath(), err)
		}
		s.logger.Debug("log opened", "took", time.Since(started))
		for _, damage := range l.Repairs() {
			s.logger.Error("damaged data isolated", "file", damage.File, "offset", damage.Offset, "reason", damage.Reason)
		}
		engine = l
	}
	s.log = shardlog.New(engine, shardlog.Options{MaxInflightBytes: int64(s.config.InflightMemory), Metrics: s.metrics})
	s.onStop("log", func(context.Context) error { return s.log.Close() })
	return nil
}

func (s *Server) openMeta(ctx context.Context) error {
	fs, err := s.files()
	if err != nil {
		return err
	}
	if fs != nil {
		fs = vfs.Sub(fs, metaDir)
	} else {
		// Without somewhere to put snapshots the metadata's log would only grow.
		fs = vfs.NewMemory()
	}
	s.meta, err = meta.Open(ctx, s.log, fs, meta.Options{Logger: s.logger})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.health.metadata.Store(s.meta)
	s.onStop("metadata", func(context.Context) error { return s.meta.Close() })
	return nil
}

// openDirectory opens users and keys, applies the seed's, and makes the root key
// of a data directory that has none.
func (s *Server) openDirectory(ctx context.Context) error {
	var err error
	s.directory, err = iam.Open(ctx, metastore.New(s.meta), iam.Options{DefaultAccount: s.config.Account, Sealer: s.keyring, Now: s.options.Now})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStop("users and keys", func(context.Context) error { s.directory.Close(); return nil })
	if s.config.Seed != "" {
		raw, err := os.ReadFile(s.config.Seed)
		if err != nil {
			return fmt.Errorf("seed file: %w", err)
		}
		seed, err := iam.ParseSeed(raw, s.config.Account)
		if err != nil {
			return fmt.Errorf("seed file %s: %w", s.config.Seed, err)
		}
		if err := s.directory.Apply(ctx, seed); err != nil {
			return fmt.Errorf("seed file %s: %w", s.config.Seed, err)
		}
	}
	if s.config.Auth == "keys" && !s.directory.HasKeys() {
		key, made, err := s.directory.EnsureRoot(ctx, s.config.Account)
		if err != nil {
			return fmt.Errorf("make the root key: %w", err)
		}
		if made {
			s.rootKey = key
		}
	}
	return nil
}

func (s *Server) openStreams(context.Context) error {
	var err error
	s.streams, err = streams.New(streams.Options{
		Log: s.log, Meta: s.meta, Keyring: s.keyring, Quota: s.limiter,
		Now: s.options.Now, StateDelay: s.config.StateDelay, TrimInterval: s.config.RetentionSweep,
		MaxShards: s.config.MaxShards, Logger: s.logger, Metrics: s.metrics.Streams,
		Limits: streams.Limits{Daily: s.config.Limits == "aws"}, Channels: s.channelRunner(),
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	return nil
}

// openWire puts the services behind one port.
func (s *Server) openWire(ctx context.Context) error {
	var verifier *sigv4.Verifier
	if s.config.Auth == "keys" {
		verifier = sigv4.NewVerifier(s.directory, sigv4.Options{
			Window: s.config.ClockWindow, AllowUnsignedPayload: s.config.AllowUnsignedPayload, Now: s.options.Now,
		})
	}
	traces, err := metrics.OpenTraces(ctx, s.options.Getenv, s.options.Version)
	if err != nil {
		return err
	}
	observe, err := s.openObservers()
	if err != nil {
		return err
	}
	o := wire.Options{
		Directory: s.directory, Verifier: verifier, Limiter: s.limiter,
		MaxBody: int64(s.config.MaxBody), BodyMemory: int64(s.config.BodyMemory),
		Logger: s.logger, Observe: observe, Now: s.options.Now,
	}
	if traces != nil {
		s.tracing = true
		traces.Stream = func(o *wire.Outcome) string { return streamOf(s.resource(o)) }
		o.Trace = traces.Begin
		s.onStop("traces", traces.Close)
	}
	s.mux = wire.NewMux(o)
	s.mux.Register(kinesis.Service, s.streams, kinesis.Bind(s.streams))
	issuers, err := s.openIssuers()
	if err != nil {
		return err
	}
	s.mux.Route(identity.Recognises, identity.New(identity.Options{
		Directory: s.directory, Verifier: verifier, Issuers: issuers, Now: s.options.Now, Logger: s.logger,
	}))

	tlsConfig, err := s.openTLS()
	if err != nil {
		return err
	}
	s.api = wire.NewServer(wire.ServerOptions{
		Handler: s.mux, TLS: tlsConfig, MaxConnections: s.config.MaxConnections, MaxStreams: s.config.MaxStreams,
		HeaderTimeout: s.config.HeaderTimeout, IdleTimeout: s.config.IdleTimeout,
		Logger: s.logger, OnConnection: s.metrics.Connection,
	})
	s.onStop("API", s.drain)
	return nil
}

// drain stops accepting, ends event streams, and waits for requests in flight
// until ctx ends.
func (s *Server) drain(ctx context.Context) error {
	s.mux.Drain()
	err := s.api.Shutdown(ctx)
	if err != nil {
		s.logger.Warn("requests cut off", "in flight", s.mux.InFlight(), "reason", err)
		err = s.api.Close()
	}
	return closed(err)
}

func (s *Server) openTLS() (*tls.Config, error) {
	if !s.config.TLS {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.config.TLSCert != "" {
		files, err := certs.Watch(s.config.TLSCert, s.config.TLSKey, nil, func(err error) {
			s.logger.Error("certificate not renewed", "error", err)
		})
		if err != nil {
			return nil, err
		}
		t.GetCertificate = files.Certificate
		return t, nil
	}
	dir := ""
	if !s.config.Ephemeral && s.options.Files == nil {
		dir = filepath.Join(s.config.DataPath(), certs.Directory)
	}
	names := slices.Clone(s.config.TLSNames)
	for _, l := range s.listeners {
		if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && !net.ParseIP(host).IsUnspecified() {
			names = append(names, host)
		}
	}
	if host, _, err := net.SplitHostPort(s.config.PublicName); err == nil {
		names = append(names, host)
	}
	a, err := certs.Open(dir, certs.Names(names...), nil)
	if err != nil {
		return nil, err
	}
	s.authority = a
	t.GetCertificate = a.Certificate
	return t, nil
}

// Run serves until ctx ends, drains within the shutdown timeout, and ends
// everything. It is called once.
func (s *Server) Run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	background, failed := errgroup.WithContext(work)
	background.Go(func() error { return s.streams.Run(failed) })
	background.Go(func() error { return s.logs.Run(failed) })
	background.Go(func() error { return s.functions.Run(failed) })
	background.Go(func() error { return s.delivery.Run(failed) })
	background.Go(func() error { return s.firehose.Run(failed) })
	changing, stopChanging := context.WithCancel(failed)
	defer stopChanging()
	var applications errgroup.Group
	applications.Go(func() error { return s.analytics.Run(changing) })

	var accepting errgroup.Group
	for _, l := range s.listeners {
		accepting.Go(func() error { return s.api.Serve(l) })
	}

	err := s.seedStreams(ctx)
	if err == nil {
		s.health.enter(serving)
		s.announce()
		releaseStart()
		select {
		case <-ctx.Done():
			s.logger.Info("stopping", "in flight", s.mux.InFlight(), "connections", s.api.Connections())
		case <-failed.Done():
			s.logger.Error("background work failed")
		}
	}
	s.health.enter(stopping)

	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownTimeout)
	defer cancel()
	// Background work ends once the API has: requests may wait for it. Applications
	// end before the rest of it, which takes the rows that they have made.
	s.onStopBefore("API", "background", func(ctx context.Context) error {
		stopChanging()
		err := errors.Join(applications.Wait(), s.applications.Close(ctx))
		stopWork()
		return errors.Join(err, background.Wait())
	})
	err = errors.Join(err, s.end(deadline), accepting.Wait())
	if err == nil {
		s.logger.Info("stopped")
	}
	return err
}

// onStopBefore has a part end right after the named one, as if it had started
// before it.
func (s *Server) onStopBefore(named, name string, f func(context.Context) error) {
	i := slices.IndexFunc(s.stops, func(p stop) bool { return p.name == named })
	s.stops = slices.Insert(s.stops, i, stop{name, f})
}

// end ends the parts, latest first.
func (s *Server) end(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Backward(s.stops) {
		if err := p.f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
		}
	}
	s.stops = nil
	return errors.Join(errs...)
}

// Address is where the API answers, host:port.
func (s *Server) Address() string { return s.listeners[0].Addr().String() }

// AdminAddress is where the admin port answers, empty if it is closed.
func (s *Server) AdminAddress() string {
	if s.adminListener == nil {
		return ""
	}
	return s.adminListener.Addr().String()
}

// Authority is the certificate that clients must trust, in PEM; nil with a
// certificate of the operator's, or without TLS.
func (s *Server) Authority() []byte {
	if s.authority == nil {
		return nil
	}
	return s.authority.PEM()
}

// Directory is the server's users and keys.
func (s *Server) Directory() *iam.Directory { return s.directory }

// Ready tells whether requests are answered.
func (s *Server) Ready() bool {
	ready, _ := s.health.check()
	return ready
}

// Traces tells whether spans are sent.
func (s *Server) Traces() bool { return s.tracing }
