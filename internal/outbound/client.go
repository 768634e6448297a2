package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// Options shape a client. The zero value talks HTTP/1.1 to public addresses.
type Options struct {
	Policy Policy
	TLS    TLS
	// Timeout bounds a whole exchange, from connecting to the last byte of the
	// answer; 0 leaves it to the request's context.
	Timeout time.Duration
	// ConnectTimeout bounds connecting, and again the TLS handshake; 0 is 10 s.
	ConnectTimeout time.Duration
	// MaxHeaderBytes bounds the head of an answer; 0 is 64 KiB.
	MaxHeaderBytes int64
	// MaxConns bounds the connections to one host; 0 is 64.
	MaxConns int
	// HTTP2 lets the peer choose it.
	HTTP2 bool
	// Jar keeps cookies; nil forgets them.
	Jar http.CookieJar
}

// TLS is what an operator may say about a peer's certificate and ours. The
// files are read by Client.
type TLS struct {
	CAFile             string `yaml:"ca_file"`              // PEM; instead of the system's authorities
	CertFile           string `yaml:"cert_file"`            // PEM chain shown to the peer
	KeyFile            string `yaml:"key_file"`             // its private key, PEM
	ServerName         string `yaml:"server_name"`          // expected name, if it is not the host
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"` // believe any certificate
}

// Config reads the files and makes the TLS configuration. It wants TLS 1.2.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, fmt.Errorf("cert_file and key_file go together; only one is set")
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Client makes a client that obeys the policy, follows no redirect, uses no
// proxy of the environment and decompresses nothing behind the caller's back.
// The caller ends it with CloseIdleConnections.
func Client(o Options) (*http.Client, error) {
	config, err := o.TLS.Config()
	if err != nil {
		return nil, err
	}
	connect := o.ConnectTimeout
	if connect == 0 {
		connect = 10 * time.Second
	}
	header := o.MaxHeaderBytes
	if header == 0 {
		header = 64 << 10
	}
	conns := o.MaxConns
	if conns == 0 {
		conns = 64
	}
	return &http.Client{
		Timeout: o.Timeout,
		Jar:     o.Jar,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return o.Policy.dial(ctx, network, address, connect)
			},
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    connect,
			ForceAttemptHTTP2:      o.HTTP2,
			DisableCompression:     true,
			MaxResponseHeaderBytes: header,
			MaxConnsPerHost:        conns,
			MaxIdleConnsPerHost:    conns,
			IdleConnTimeout:        60 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
