package redshift

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest/pgserver"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/naming"
)

var server *pgserver.Server // nil where it is not installed

func TestMain(m *testing.M) {
	code := pgserver.Main(m, func(s *pgserver.Server) { server = s })
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

func needServer(t *testing.T) {
	t.Helper()
	if server == nil {
		t.Skip(pgserver.ErrMissing)
	}
}

// open makes a destination over a database, with objects in a store in memory.
func open(t *testing.T, c Config, store *desttest.Store, format compress.Format) *Destination {
	t.Helper()
	c.Bucket = "staging"
	prefix, err := naming.ParsePrefix("in/", naming.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(c, Deps{
		Stage: s3.New(s3.Config{Store: store, Bucket: c.Bucket, Prefix: prefix, Compression: format}),
		Store: store,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const eventTable = "CREATE TABLE events (place serial, id int, text text)"

func TestContract(t *testing.T) {
	needServer(t)
	for _, format := range []compress.Format{compress.None, compress.GZIP} {
		t.Run(string(format), func(t *testing.T) {
			options := "JSON 'auto'"
			if format == compress.GZIP {
				options += " GZIP"
			}
			desttest.Run(t, desttest.Harness{
				Open: func(t *testing.T) *desttest.Peer {
					database := server.Database(t, eventTable)
					tunnel := desttest.NewTCP(t, server.Addr)
					return &desttest.Peer{
						Destination: open(t, Config{Table: "events", Options: options, Endpoint: Endpoint{
							DSN: strings.Replace(server.DSN(database), server.Addr, tunnel.Addr, 1),
						}}, &desttest.Store{}, format),
						Stored: func(t *testing.T) []desttest.Entry {
							var found []desttest.Entry
							for _, row := range server.Query(t, database, "SELECT id, text FROM events ORDER BY place") {
								id, text, _ := strings.Cut(row, "|")
								n, err := strconv.Atoi(id)
								if err != nil {
									t.Fatal(err)
								}
								found = append(found, desttest.Seen(n, text))
							}
							return found
						},
						Break: tunnel.Break,
						Discard: func() func() int {
							return func() int {
								n, _ := strconv.Atoi(server.Query(t, database, "SELECT count(*) FROM events")[0])
								return n
							}
						},
					}
				},
				Codes:      []string{"Redshift.", "S3.", "InternalError"},
				Faults:     desttest.TCPFaults,
				LargeBytes: 16 << 20, Memory: 80 << 20, // the store is in memory
			})
		})
	}
}
