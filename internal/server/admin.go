package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"
)

// openAdmin puts health, metrics and profiles on the admin port.
func (s *Server) openAdmin(context.Context) error {
	if s.adminListener == nil {
		return nil
	}
	mux := http.NewServeMux()
	text := func(w http.ResponseWriter, status int, line string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		io.WriteString(w, line+"\n")
	}
	mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "live") })
	mux.HandleFunc("GET /health/ready", func(w http.ResponseWriter, _ *http.Request) {
		ready, reason := s.health.check()
		if ready {
			text(w, http.StatusOK, reason)
		} else {
			text(w, http.StatusServiceUnavailable, reason)
		}
	})
	mux.HandleFunc("GET /applications", func(w http.ResponseWriter, _ *http.Request) {
		a := s.health.applications.Load()
		if a == nil {
			text(w, http.StatusServiceUnavailable, "starting")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err := json.NewEncoder(w).Encode(a.Overviews()); err != nil {
			s.logger.Debug("answer on the admin port", "error", err)
		}
	})
	mux.Handle("GET /metrics", s.metrics.Handler())
	profile := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			a, err := netip.ParseAddrPort(r.RemoteAddr)
			if !s.config.RemoteProfiling && (err != nil || !a.Addr().Unmap().IsLoopback()) {
				text(w, http.StatusForbidden, "profiles are for this machine only; remote-profiling opens them")
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("/debug/pprof/", profile(pprof.Index))
	mux.HandleFunc("/debug/pprof/cmdline", profile(pprof.Cmdline))
	mux.HandleFunc("/debug/pprof/profile", profile(pprof.Profile))
	mux.HandleFunc("/debug/pprof/symbol", profile(pprof.Symbol))
	mux.HandleFunc("/debug/pprof/trace", profile(pprof.Trace))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, "millrace "+s.options.Version+"\n\n/health/live\n/health/ready\n/applications\n/metrics\n/debug/pprof/")
	})
	s.admin = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	s.administering.Go(func() error {
		if err := s.admin.Serve(s.adminListener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	// Probes learn of a stop from readiness, so the admin port outlives the rest.
	s.onStop("admin", func(ctx context.Context) error {
		var err error
		if s.admin.Shutdown(ctx) != nil {
			err = closed(s.admin.Close())
		}
		return errors.Join(err, s.administering.Wait())
	})
	return nil
}

// CheckHealth asks the admin port at address whether the server is ready.
func CheckHealth(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(address)+"/health/ready", nil)
	if err != nil {
		return "", err
	}
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, 1024))
	if err != nil {
		return "", err
	}
	if reply.StatusCode != http.StatusOK {
		return "", &NotReadyError{strings.TrimSpace(string(body))}
	}
	return string(body), nil
}

// NotReadyError is a server that answers and is not ready.
type NotReadyError struct{ Text string }

func (e *NotReadyError) Error() string { return "not ready: " + e.Text }

// reachable is an address one can dial for one that was listened on.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
