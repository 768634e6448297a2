package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/internal/firehose/dest"
)

// maxMessage bounds one message of a server, in bytes.
const maxMessage = 8 << 20

// Options are how a database is reached.
type Options struct {
	// DSN is a connection string, as a URL or as words. TLS is asked for there.
	DSN string
	// Credentials, if set, are asked before every connection, so that a password
	// that was changed is used from then on.
	Credentials func(ctx context.Context) (user, password string, err error)
	// Dial, if set, makes connections.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Connections is how many there are at most; 4 if zero.
	Connections int
	// Simple keeps to the simple query protocol, without parameters.
	Simple bool
	// Codes is what error codes begin with, as "Redshift.".
	Codes string
}

// Database is a server to load into. Its methods may be called concurrently.
type Database struct {
	options Options
	pool    *pgxpool.Pool

	mu     sync.Mutex
	ledger map[string]bool // tables that are known to exist
	conns  sync.WaitGroup  // connections that are not yet closed
}

// Open prepares connections; the first is made when it is needed.
func Open(o Options) (*Database, error) {
	config, err := pgxpool.ParseConfig(o.DSN)
	if err != nil {
		return nil, fmt.Errorf("read the connection string: %w", withoutSecret(err))
	}
	d := &Database{options: o, ledger: map[string]bool{}}
	config.MaxConns = 4
	if o.Connections > 0 {
		config.MaxConns = int32(min(o.Connections, 1000))
	}
	config.MinConns = 0
	config.MaxConnIdleTime = time.Minute
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 30 * time.Second
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	if o.Simple {
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	}
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	if _, ok := config.ConnConfig.RuntimeParams["application_name"]; !ok {
		config.ConnConfig.RuntimeParams["application_name"] = "millrace"
	}
	if o.Dial != nil {
		config.ConnConfig.DialFunc = o.Dial
	}
	config.ConnConfig.MaxProtocolMessageBodyLen = maxMessage
	if o.Credentials != nil {
		config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
			user, password, err := o.Credentials(ctx)
			if err != nil {
				return &credentialsError{err}
			}
			c.User, c.Password = user, password
			return nil
		}
	}
	// A connection that was given up on is closed behind the caller's back.
	config.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		d.conns.Go(func() { <-c.PgConn().CleanupDone() })
		return nil
	}
	if d.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		return nil, fmt.Errorf("prepare connections: %w", withoutSecret(err))
	}
	return d, nil
}

// Close ends connections. It may be called twice.
func (d *Database) Close() {
	d.pool.Close()
	d.conns.Wait()
}

// withoutSecret takes a connection string that an error repeats out of it.
func withoutSecret(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		text := parse.Error()
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			return errors.New(text[i+3:])
		}
		return errors.New("it cannot be parsed")
	}
	return err
}

type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }

// Explain makes a *dest.Error of whatever went wrong with the server, in the
// codes of the service after the prefix of Options.
func (d *Database) Explain(err error) error {
	var known *dest.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	code, message := explain(err)
	return &dest.Error{Code: d.options.Codes + code, Message: message, Err: err}
}

// byState are codes by SQLSTATE.
var byState = map[string]string{
	"28000": "AuthenticationFailed", "28P01": "AuthenticationFailed",
	"3D000": "DatabaseNotFound", "3F000": "SchemaNotFound", "42P01": "TableNotFound", "42703": "ColumnNotFound",
	"42601": "SyntaxError", "42602": "SyntaxError", "42501": "InsufficientPrivilege", "42701": "ColumnSpecifiedMoreThanOnce",
	"23502": "ColumnNotNullWithoutDefault",
	"53100": "DiskFull", "53200": "OutOfMemory", "53300": "TooManyClients", "53400": "ConnectionsLimitExceeded",
	"25006": "ReadOnlyCluster", "57014": "QueryCancelled",
	"57P01": "ConnectionFailed", "57P02": "ConnectionFailed", "57P03": "ConnectionFailed",
}

// byText are codes by what a message of Redshift, whose states say little,
// contains; the first that fits counts.
var byText = []struct{ text, code string }{
	{"access denied", "S3BucketAccessDenied"},
	{"accessdenied", "S3BucketAccessDenied"},
	{"permanentredirect", "IncorrectOrMissingRegion"},
	{"authorizationheadermalformed", "IncorrectOrMissingRegion"},
	{"specified key does not exist", "MissingS3File"},
	{"nosuchkey", "MissingS3File"},
	{"does not exist in s3", "MissingS3File"},
	{"delimiter not found", "Delimiter"},
	{"jsonpath format", "InvalidJsonPathFormat"},
	{"jsonpaths", "IncorrectJsonPathsFile"},
	{"not compressed", "CompressionMismatch"},
	{"gzip", "CompressionMismatch"},
	{"stl_load_errors", "DataLoadFailed"},
	{"sys_load_error_detail", "DataLoadFailed"},
	{"resize", "Resize"},
	{"read-only", "ReadOnlyCluster"},
	{"too many clients", "TooManyClients"},
	{"connection limit", "ConnectionsLimitExceeded"},
	{"analyze", "AnalyzeTableAccessDenied"},
	{"number of columns", "ColumnMismatch"},
	{"more columns than", "MissingColumn"},
	{"disk full", "DiskFull"},
	{"invalid copy option", "InvalidCopyOptions"},
}

func explain(err error) (code, message string) {
	var (
		server  *pgconn.PgError
		connect *pgconn.ConnectError
		option  *OptionError
		row     *rowError
		header  tls.RecordHeaderError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		secret  *credentialsError
		coded   *codedError
		size    *pgproto3.ExceededMaxBodyLenErr
	)
	switch {
	case errors.As(err, &coded):
		return coded.code, coded.message
	case errors.As(err, &secret):
		return "AuthenticationFailed", "the credentials cannot be had: " + secret.Error()
	case errors.As(err, &server):
		message = server.Message
		if server.Detail != "" {
			message += " (" + server.Detail + ")"
		}
		if strings.HasPrefix(server.Where, "COPY") {
			message += "; " + clipTo(server.Where, 300)
		}
		if code, ok := byState[server.Code]; ok {
			return code, message
		}
		lower := strings.ToLower(server.Message)
		for _, known := range byText {
			if strings.Contains(lower, known.text) {
				return known.code, message
			}
		}
		switch {
		case strings.HasPrefix(server.Code, "22"), strings.HasPrefix(server.Code, "23"):
			return "DataLoadFailed", message
		case strings.HasPrefix(server.Code, "08"):
			return "ConnectionFailed", message
		}
		return "PSQLException", message + " (SQLSTATE " + server.Code + ")"
	case errors.As(err, &option):
		if option.ForJSON {
			return "InvalidCopyOptionForJson", option.Error()
		}
		return "IncorrectCopyOptions", option.Error()
	case errors.As(err, &row):
		switch row.reason {
		case "Delimiter not found":
			return "Delimiter", row.Error()
		case "Extra column(s) found":
			return "ColumnMismatch", row.Error()
		}
		return "DataLoadFailed", row.Error()
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &header):
		return "SslFailure", rootText(err)
	case strings.Contains(err.Error(), "refused TLS"):
		return "SslNotSupported", "the server does not speak TLS"
	case errors.Is(err, context.DeadlineExceeded):
		return "ConnectionFailed", "no answer in time"
	case errors.As(err, &size):
		return "ConnectionFailed", "the server sent a message that is too large"
	case errors.As(err, &connect):
		return "ConnectionFailed", rootText(err)
	}
	return "ConnectionFailed", clipTo(err.Error(), 300)
}

// rootText is the innermost text of an error: outer ones name users and hosts
// in ways that change with the driver.
func rootText(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return clipTo(err.Error(), 300)
		}
		err = next
	}
}

func clipTo(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// rowFault tells errors that are about a row from those about the table.
func rowFault(err error) (*pgconn.PgError, bool) {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return nil, false
	}
	switch {
	case server.Code == "22023", server.Code == "22P06": // parameters of the statement
		return server, false
	case strings.HasPrefix(server.Code, "22"), strings.HasPrefix(server.Code, "23"), server.Code == "54000", server.Code == "P0001":
		return server, true
	}
	return server, false
}
