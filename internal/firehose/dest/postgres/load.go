package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace/millrace/internal/firehose/dest/loaded"
	"github.com/millrace/millrace/internal/firehose/record"
)

// chunk is how much is sent with one COPY; a refused row costs sending at most
// that much again.
const chunk = 1 << 20

// Load is one transaction in which rows are copied into a table. Rows come in
// units, which are stored or refused whole: a row of a file, or all rows of a
// record.
type Load struct {
	ctx    context.Context
	tx     pgx.Tx
	copy   string // the COPY statement
	table  *table
	refuse func(unit int, line []byte, err error) error

	text  []byte
	units []unit
	rows  int // stored
}

type unit struct {
	id   int
	end  int // in text
	rows int
}

// Target is what is loaded into.
type Target struct {
	Table   string // as written in SQL
	Columns string // a list as in SQL; empty is all columns that are not generated
	Options *CopyOptions
	// JSONPaths is the text of the file that Options name.
	JSONPaths []byte
	// Exactly names a table of the same database that remembers what was
	// loaded, in the same transaction; empty loads again what is delivered again.
	Exactly string
}

// Begin opens a transaction and prepares copying into the target. refuse is
// told of every unit that the server refuses, by its number and with its lines; its
// error ends the load. The caller ends it with Commit or Rollback.
func (d *Database) Begin(ctx context.Context, target Target, refuse func(unit int, line []byte, err error) error) (*Load, error) {
	if target.Exactly != "" {
		if err := d.prepareLedger(ctx, target.Exactly); err != nil {
			return nil, err
		}
	}
	tx, err := d.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	l := &Load{ctx: ctx, tx: tx, refuse: refuse}
	if err := l.prepare(target); err != nil {
		l.Rollback()
		return nil, d.schemaMissing(ctx, target.Table, err)
	}
	return l, nil
}

// schemaMissing tells a table that is missing because its schema is, which the
// server does not.
func (d *Database) schemaMissing(ctx context.Context, name string, err error) error {
	var server *pgconn.PgError
	if !errors.As(err, &server) || server.Code != "42P01" {
		return err
	}
	var missing bool
	const query = "SELECT cardinality(p) > 1 AND to_regnamespace(quote_ident(p[cardinality(p) - 1])) IS NULL FROM parse_ident($1) p"
	if d.pool.QueryRow(ctx, query, name).Scan(&missing) == nil && missing {
		return &codedError{"SchemaNotFound", "the schema of " + name + " does not exist"}
	}
	return err
}

// catalogQuery finds the columns of a table: a name that is not there is an
// error of the server.
const catalogQuery = `
SELECT c.oid::regclass::text, a.attname::text, t.typname::text, a.atttypmod, a.attnotnull, a.atthasdef,
	a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.oid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum`

func (l *Load) prepare(target Target) error {
	rows, err := l.tx.Query(l.ctx, catalogQuery, target.Table)
	if err != nil {
		return err
	}
	var (
		all  []column
		name string
	)
	for rows.Next() {
		var c column
		var modifier int32
		if err := rows.Scan(&name, &c.name, &c.typ, &modifier, &c.notNull, &c.hasDefault, &c.generated); err != nil {
			rows.Close()
			return err
		}
		if (c.typ == "varchar" || c.typ == "bpchar") && modifier > 4 {
			c.length = int(modifier - 4)
		}
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	columns, err := choose(all, target.Columns, target.Options.ExplicitIDs)
	if err != nil {
		return err
	}
	var paths [][]pathStep
	if target.Options.Layout == JSONPaths {
		if paths, err = ParseJSONPaths(target.JSONPaths); err != nil {
			return &OptionError{Option: "JSON", ForJSON: true, Reason: err.Error()}
		}
	}
	if target.Options.Layout == NoShred && len(columns) > 1 {
		columns = columns[:1]
	}
	if l.table, err = newTable(target.Options, columns, paths); err != nil {
		return err
	}
	quoted := make([]string, 0, len(columns))
	for _, c := range columns {
		quoted = append(quoted, pgx.Identifier{c.name}.Sanitize())
	}
	l.copy = "COPY " + name + " (" + strings.Join(quoted, ", ") + ") FROM STDIN"
	return nil
}

// choose picks the columns of a list; without one, all that are not generated.
func choose(all []column, list string, explicit bool) ([]column, error) {
	names, err := identifiers(list)
	if err != nil {
		return nil, &codedError{"SyntaxError", err.Error()}
	}
	var chosen []column
	if len(names) == 0 {
		for _, c := range all {
			if !c.generated || explicit {
				chosen = append(chosen, c)
			}
		}
		if len(chosen) == 0 {
			return nil, &codedError{"ColumnMismatch", "the table has no columns to load"}
		}
		return chosen, nil
	}
next:
	for _, name := range names {
		for _, c := range chosen {
			if c.name == name {
				return nil, &codedError{"ColumnSpecifiedMoreThanOnce", "column " + name + " is listed twice"}
			}
		}
		for _, c := range all {
			if c.name == name {
				chosen = append(chosen, c)
				continue next
			}
		}
		return nil, &codedError{"ColumnNotFound", "the table has no column " + name}
	}
	return chosen, nil
}

// codedError is a failure that the code of the service is known of.
type codedError struct{ code, message string }

func (e *codedError) Error() string { return e.message }

// identifiers reads names between commas, in lower case where they stand
// without quotes, around which there may be one pair of parentheses.
func identifiers(list string) ([]string, error) {
	rest := strings.TrimSpace(list)
	if strings.HasPrefix(rest, "(") && strings.HasSuffix(rest, ")") {
		rest = strings.TrimSpace(rest[1 : len(rest)-1])
	}
	var names []string
	for rest != "" {
		var name string
		if rest[0] == '"' {
			end := strings.IndexByte(rest[1:], '"')
			if end < 1 {
				return nil, fmt.Errorf("the list of columns cannot be read at %q", clip(rest))
			}
			name, rest = rest[1:1+end], strings.TrimSpace(rest[end+2:])
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			name, rest = strings.ToLower(strings.TrimSpace(rest[:end])), rest[end:]
			if name == "" || strings.ContainsAny(name, " \"'();") {
				return nil, fmt.Errorf("the list of columns cannot be read at %q", clip(name))
			}
		}
		names = append(names, name)
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			return nil, fmt.Errorf("the list of columns cannot be read at %q", clip(rest))
		}
		if rest = strings.TrimSpace(rest[1:]); rest == "" {
			return nil, errors.New("the list of columns ends with a comma")
		}
	}
	return names, nil
}

// add queues rows of one unit, which are lines at the end of l.text from begin.
func (l *Load) add(id, rows int) error {
	l.units = append(l.units, unit{id, len(l.text), rows})
	if len(l.text) < chunk {
		return nil
	}
	return l.flush()
}

func (l *Load) flush() error {
	err := l.send(l.units, 0)
	l.text, l.units = l.text[:0], l.units[:0]
	if cap(l.text) > 4*chunk {
		l.text = nil
	}
	return err
}

// send stores units whose text begins at begin. A unit that the server refuses
// is found by the line that it names, or by halving; what stands before a
// refused line is sent once more.
func (l *Load) send(units []unit, begin int) error {
	for len(units) > 0 {
		err := l.copyIn(l.text[begin:units[len(units)-1].end])
		if err == nil {
			for _, u := range units {
				l.rows += u.rows
			}
			return nil
		}
		server, ok := rowFault(err)
		if !ok {
			return err
		}
		at := locate(server.Where, units)
		switch {
		case len(units) == 1:
			return l.refuse(units[0].id, l.text[begin:units[0].end], err)
		case at < 0:
			half := len(units) / 2
			if err := l.send(units[:half], begin); err != nil {
				return err
			}
			begin, units = units[half-1].end, units[half:]
			continue
		}
		if err := l.send(units[:at], begin); err != nil {
			return err
		}
		if at > 0 {
			begin = units[at-1].end
		}
		if err := l.refuse(units[at].id, l.text[begin:units[at].end], err); err != nil {
			return err
		}
		begin, units = units[at].end, units[at+1:]
	}
	return nil
}

var copyLine = regexp.MustCompile(`COPY .*, line (\d+)`)

// locate is the unit of the line that a server's message speaks of; -1 if none.
func locate(where string, units []unit) int {
	m := copyLine.FindStringSubmatch(where)
	if m == nil {
		return -1
	}
	line, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	for i, u := range units {
		if line -= u.rows; line <= 0 {
			return i
		}
	}
	return -1
}

// copyIn sends lines; when the server refuses them the transaction is as before.
func (l *Load) copyIn(text []byte) error {
	if _, err := l.tx.Exec(l.ctx, "SAVEPOINT millrace_rows"); err != nil {
		return err
	}
	_, err := l.tx.Conn().PgConn().CopyFrom(l.ctx, bytes.NewReader(text), l.copy)
	end := "RELEASE SAVEPOINT millrace_rows"
	if err != nil {
		if _, ok := rowFault(err); !ok {
			return err
		}
		end = "ROLLBACK TO SAVEPOINT millrace_rows"
	}
	if _, endErr := l.tx.Exec(l.ctx, end); endErr != nil {
		return endErr
	}
	return err
}

// Rollback gives up what was loaded. After Commit it does nothing.
func (l *Load) Rollback() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), time.Second)
	defer cancel()
	_ = l.tx.Rollback(ctx) // a connection that cannot is closed
}

// Commit stores what was loaded.
func (l *Load) Commit() error {
	if err := l.flush(); err != nil {
		return err
	}
	return l.tx.Commit(l.ctx)
}

// prepareLedger makes the table that remembers loads, if it is not there.
func (d *Database) prepareLedger(ctx context.Context, name string) error {
	d.mu.Lock()
	known := d.ledger[name]
	d.mu.Unlock()
	if known {
		return nil
	}
	id, err := qualified(name)
	if err != nil {
		return err
	}
	var there bool
	if err := d.pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", id).Scan(&there); err != nil {
		return err
	}
	if !there {
		// Two that do this at the same time meet in the system's tables: one fails,
		// and the table is there.
		_, err := d.pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+id+` (
			stream text, lane text, first_index bigint, first_sub bigint, last_index bigint, last_sub bigint,
			oldest bigint, newest bigint, batch text, object text, rows bigint, loaded_at timestamptz NOT NULL DEFAULT now(),
			PRIMARY KEY (stream, lane, first_index, first_sub, oldest, batch))`)
		if err != nil {
			if server, ok := rowFault(err); !ok || server.Code != "23505" {
				return err
			}
		}
	}
	// What a source could still replay is far younger.
	if _, err := d.pool.Exec(ctx, "DELETE FROM "+id+" WHERE loaded_at < now() - interval '400 days'"); err != nil {
		return err
	}
	d.mu.Lock()
	d.ledger[name] = true
	d.mu.Unlock()
	return nil
}

// qualified quotes a name that may have a schema before it.
func qualified(name string) (string, error) {
	parts := strings.Split(name, ".")
	for _, p := range parts {
		if p == "" || len(parts) > 2 {
			return "", fmt.Errorf("%q is no name of a table", clip(name))
		}
	}
	return pgx.Identifier(parts).Sanitize(), nil
}

// Earlier waits until no other load of this batch is under way, and finds what
// was loaded of it before.
func (l *Load) Earlier(exactly string, b *record.Batch) (loaded.Set, error) {
	id, err := qualified(exactly)
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(b.Stream.ARN + "\x00" + b.ID))
	if _, err := l.tx.Exec(l.ctx, "SELECT pg_advisory_xact_lock($1)", int64(h.Sum64())); err != nil {
		return nil, err
	}
	rows, err := l.tx.Query(l.ctx, "SELECT lane, first_index, first_sub, last_index, last_sub, oldest, newest FROM "+id+
		" WHERE stream = $1 AND newest >= $2 AND oldest <= $3", b.Stream.ARN, b.Oldest, b.Newest)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found loaded.Set
	for rows.Next() {
		var s loaded.Span
		var numbers [4]int64
		if err := rows.Scan(&s.Lane, &numbers[0], &numbers[1], &numbers[2], &numbers[3], &s.Oldest, &s.Newest); err != nil {
			return nil, err
		}
		s.First = record.Position{Index: uint64(numbers[0]), Sub: uint32(numbers[1])}
		s.Last = record.Position{Index: uint64(numbers[2]), Sub: uint32(numbers[3])}
		found = append(found, s)
	}
	return found, rows.Err()
}

// Remember notes in the load's transaction what it loaded.
func (l *Load) Remember(exactly string, b *record.Batch, object string, s *loaded.Spans) error {
	if err := l.flush(); err != nil {
		return err
	}
	id, err := qualified(exactly)
	if err != nil {
		return err
	}
	for _, p := range s.List {
		_, err := l.tx.Exec(l.ctx, "INSERT INTO "+id+
			" (stream, lane, first_index, first_sub, last_index, last_sub, oldest, newest, batch, object, rows) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
			b.Stream.ARN, p.Lane, int64(p.First.Index), int64(p.First.Sub), int64(p.Last.Index), int64(p.Last.Sub), p.Oldest, p.Newest, b.ID, object, int64(l.rows))
		if err != nil {
			return err
		}
	}
	return nil
}
