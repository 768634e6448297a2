package postgres

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest/pgserver"
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

// needServer skips a test where PostgreSQL is not installed.
func needServer(t *testing.T) {
	t.Helper()
	if server == nil {
		t.Skip(pgserver.ErrMissing)
	}
}

const eventTable = "CREATE TABLE events (place serial, id int CHECK (id >= 0), text text)"

func TestContract(t *testing.T) {
	needServer(t)
	desttest.Run(t, desttest.Harness{
		Open: func(t *testing.T) *desttest.Peer {
			database := server.Database(t, eventTable)
			tunnel := desttest.NewTCP(t, server.Addr)
			d, err := New(Config{DSN: strings.Replace(server.DSN(database), server.Addr, tunnel.Addr, 1), Table: "events"}, Deps{})
			if err != nil {
				t.Fatal(err)
			}
			return &desttest.Peer{
				Destination: d,
				Stored:      func(t *testing.T) []desttest.Entry { return stored(t, database) },
				Break:       tunnel.Break,
				Discard: func() func() int {
					return func() int { // the rows are in another process
						n, _ := strconv.Atoi(server.Query(t, database, "SELECT count(*) FROM events")[0])
						return n
					}
				},
			}
		},
		Refused:     func(n int) []byte { return []byte(`{"id":-` + strconv.Itoa(n+1) + `,"text":"x"}`) },
		RefusedCode: codes + "DataLoadFailed",
		Codes:       []string{codes},
		Faults:      desttest.TCPFaults,
	})
}

func stored(t *testing.T, database string) []desttest.Entry {
	t.Helper()
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
}
