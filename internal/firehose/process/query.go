package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/millrace/millrace/internal/firehose/record"
)

const (
	// maxSteps bounds the instructions that a query runs for one record: that is
	// the same on any machine, however busy. maxQueryTime is for what few steps
	// could still take.
	maxSteps     = 1_000_000
	maxQueryTime = 10 * time.Second
	// maxKeyBytes bounds the keys and values of one record together.
	maxKeyBytes = 64 << 10
)

// Query is a program of MetadataExtraction, compiled. It is immutable and may be
// run concurrently.
type Query struct {
	text    string
	keys    []string // nil if the program does not show them
	routing bool
	code    *gojq.Code
	paths   *pathNode // of a program that is nothing but paths; nil for others
	fields  []string  // what the program can see of a record
	whole   bool      // that is all of it
}

// NewQuery compiles a program. Errors are to be given as an
// InvalidArgumentException.
func NewQuery(text string) (*Query, error) {
	if n := len([]rune(text)); n > maxQuery {
		return nil, fmt.Errorf("MetadataExtractionQuery has %d characters; at most %d are allowed", n, maxQuery)
	}
	parsed, err := gojq.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("MetadataExtractionQuery is not a valid JQ-1.6 expression: %s", clip(err.Error()))
	}
	q := &Query{text: text, keys: objectKeys(parsed), paths: compilePaths(parsed)}
	if len(q.keys) > maxKeys {
		return nil, fmt.Errorf("MetadataExtractionQuery has %d keys; at most %d are allowed", len(q.keys), maxKeys)
	}
	if len(parsed.Imports) > 0 {
		return nil, errors.New("MetadataExtractionQuery cannot import modules")
	}
	fields, ok := fieldsOf(parsed)
	q.fields, q.whole = fields, !ok
	if q.code, err = gojq.Compile(guard(parsed), append(guards, matchGuards...)...); err != nil {
		return nil, fmt.Errorf("MetadataExtractionQuery is not a valid JQ-1.6 expression: %s", clip(err.Error()))
	}
	return q, nil
}

// String is the program as it was written.
func (q *Query) String() string { return q.text }

// Keys are the keys that the program gives, or nil if only running it shows them.
func (q *Query) Keys() []string { return q.keys }

// objectKeys reads the keys off a program that ends in an object.
func objectKeys(q *gojq.Query) []string {
	for q.Op == gojq.OpPipe && q.Right != nil {
		q = q.Right
	}
	t := q.Term
	for t != nil && t.Type == gojq.TermTypeQuery && len(t.SuffixList) == 0 {
		return objectKeys(t.Query)
	}
	if t == nil || t.Type != gojq.TermTypeObject || len(t.SuffixList) > 0 {
		return nil
	}
	keys := []string{}
	for _, kv := range t.Object.KeyVals {
		key := kv.Key
		switch {
		case kv.KeyString != nil && kv.KeyString.Queries == nil:
			key = kv.KeyString.Str
		case key == "" || kv.KeyQuery != nil:
			return nil
		}
		key = strings.TrimPrefix(key, "$")
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// query gives records their keys, or their place in a table.
func (r *run) query(ctx context.Context) error {
	start := time.Now()
	q := r.chain.config.Query
	var stop error
	var e extraction
	r.filter(func(rec *record.Record) bool {
		if stop = ctx.Err(); stop != nil {
			return true
		}
		keys, err := q.run(&e, rec.Data)
		if err != nil {
			r.fail(rec, ErrorTypeProcessing, CodeMetadata, err.Error())
			return false
		}
		if q.routing {
			found := keys.Query
			table := record.Table{Database: found["destinationDatabaseName"], Name: found["destinationTableName"], Operation: found["operation"]}
			if rec.Table == nil { // what a function says comes first
				rec.Table = &table
			}
			return true
		}
		if rec.Keys != nil {
			keys = &record.Keys{Query: keys.Query, Function: rec.Keys.Function}
		}
		rec.Keys = keys
		return true
	})
	r.stats.QueryTime = time.Since(start)
	return stop
}

// Run gives the keys of one record.
func (q *Query) Run(data []byte) (map[string]string, error) {
	keys, err := q.run(&extraction{}, data)
	if err != nil {
		return nil, err
	}
	return keys.Query, nil
}

// run gives keys that nobody changes: several records may have them.
func (q *Query) run(e *extraction, data []byte) (*record.Keys, error) {
	if q.paths != nil {
		if keys := q.paths.extract(e, data, len(q.keys)); keys != nil {
			return keys, nil
		}
	}
	found, err := q.interpret(data)
	if err != nil {
		return nil, err
	}
	return &record.Keys{Query: found}, nil
}

func (q *Query) interpret(data []byte) (map[string]string, error) {
	var value any
	var err error
	if q.whole {
		value, err = decodeJSON(data)
	} else {
		value, err = decodeFields(data, q.fields)
	}
	if err != nil {
		return nil, fmt.Errorf("Non JSON record provided: %w", err)
	}
	steps := &stepContext{Context: context.Background(), left: maxSteps, deadline: time.Now().Add(maxQueryTime)}
	iter := q.code.RunWithContext(steps, value)
	result, ok := iter.Next()
	if !ok {
		return nil, errors.New("MetadataExtractionQuery gave no result")
	}
	if err, ok := result.(error); ok {
		return nil, queryError(err)
	}
	object, ok := result.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("MetadataExtractionQuery gave %s and not an object", gojq.Preview(result))
	}
	if more, ok := iter.Next(); ok {
		if err, ok := more.(error); ok {
			return nil, queryError(err)
		}
		return nil, errors.New("MetadataExtractionQuery gave more than one result")
	}
	if len(object) > maxKeys {
		return nil, fmt.Errorf("MetadataExtractionQuery gave %d keys; at most %d are allowed", len(object), maxKeys)
	}
	keys, size := make(map[string]string, len(object)), 0
	for _, key := range slices.Sorted(maps.Keys(object)) { // the same words for the same record
		if q.routing && key == "operation" && object[key] == nil {
			continue // inserts need not be called so
		}
		text, err := keyText(object[key])
		if err != nil {
			return nil, fmt.Errorf("partition key %s %w", clip(key), err)
		}
		if size += len(key) + len(text); size > maxKeyBytes {
			return nil, fmt.Errorf("partition keys have more than %d bytes", maxKeyBytes)
		}
		keys[key] = text
	}
	return keys, nil
}

func queryError(err error) error {
	if errors.Is(err, errSteps) || errors.Is(err, errHeavy) {
		return err
	}
	return fmt.Errorf("MetadataExtractionQuery failed: %s", clip(err.Error()))
}

// keyText is a result as part of a name.
func keyText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("is null")
	case string:
		if v == "" {
			return "", errors.New("is empty")
		}
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64, *big.Int:
		b, err := gojq.Marshal(v)
		return string(b), err
	}
	return "", errors.New("is neither text nor number nor boolean")
}

var errSteps = errors.New("MetadataExtractionQuery took too many steps or too long")

// stepContext ends after so many questions whether it has ended. The interpreter
// asks before every instruction, so this counts them.
type stepContext struct {
	context.Context
	left     int
	deadline time.Time
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (c *stepContext) Done() <-chan struct{} {
	c.left--
	if c.left < 0 || c.left%64 == 0 && time.Now().After(c.deadline) {
		c.left = -1
		return closed
	}
	return nil
}

func (c *stepContext) Err() error {
	if c.left < 0 {
		return errSteps
	}
	return nil
}

// decodeJSON reads one JSON value the way the interpreter wants it. Whole numbers
// of 64 bits stay exact; others are as precise as a float64, and those beyond its
// range are the largest of it.
func decodeJSON(text []byte) (any, error) {
	s := scanner{text: text}
	v, err := s.any(0)
	if err == nil && (s.peek() != 0 || s.at < len(text)) {
		err = s.unexpected()
	}
	return v, err
}

func (s *scanner) any(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON is nested deeper than %d", maxDepth)
	}
	switch s.peek() {
	case '{':
		m := map[string]any{}
		err := s.object(func(raw []byte, simple bool) error {
			name := string(raw)
			if !simple {
				b, err := appendText(nil, raw)
				if err != nil {
					return err
				}
				name = string(b)
			}
			v, err := s.any(depth + 1)
			m[name] = v
			return err
		})
		return m, err
	case '[':
		a := []any{}
		err := s.array(func() error {
			v, err := s.any(depth + 1)
			a = append(a, v)
			return err
		})
		return a, err
	case '"':
		return s.string()
	case 't':
		return true, s.word("true")
	case 'f':
		return false, s.word("false")
	case 'n':
		return nil, s.word("null")
	}
	text, err := s.number()
	if err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(string(text)); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil { // out of range
		f = math.Copysign(math.MaxFloat64, f)
	}
	return f, nil
}
