package process

import (
	"bytes"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/firehose/record"
)

// maxKeys bounds the partition keys of a record.
const maxKeys = 50

type state uint8

const (
	stateMissing state = iota // the function did not return it
	stateOK
	stateDropped
	stateFailed
	stateDuplicated
	stateInvalid // it returned something else; message says what
)

// outcome is what became of one record.
type outcome struct {
	state   state
	message string
	data    []byte
	keys    map[string]string
	table   *record.Table
}

// reply is a function's answer, sorted by the records it was asked about.
type reply struct {
	outcomes []outcome
	event    *event
	next     int            // where the next record is expected
	index    map[string]int // by record id, made when the order is another
	arena    []byte         // for data
}

// parseReply reads an answer. The only error is that it is not JSON, all of it;
// one without records returns none of them.
func parseReply(text []byte, e *event) (*reply, error) {
	r := &reply{outcomes: make([]outcome, len(e.ids)), event: e}
	s := scanner{text: text}
	if s.peek() != '{' {
		if _, err := s.skip(); err != nil {
			return nil, err
		}
	} else {
		seen := false
		err := s.object(func(name []byte, simple bool) error {
			if string(name) != "records" || s.peek() != '[' || seen {
				_, err := s.skip()
				return err
			}
			seen = true
			return s.array(func() error { return r.item(&s) })
		})
		if err != nil {
			return nil, err
		}
	}
	if s.peek() != 0 || s.at < len(text) {
		return nil, s.unexpected()
	}
	return r, nil
}

// item reads one record of the answer.
func (r *reply) item(s *scanner) error {
	if s.peek() != '{' {
		_, err := s.skip()
		return err
	}
	var (
		id, data []byte
		got      outcome
		hasData  bool
	)
	invalid := func(message string) {
		if got.message == "" {
			got.message = message
		}
	}
	status := ""
	err := s.object(func(name []byte, _ bool) error {
		switch string(name) {
		case "recordId":
			if s.peek() == '"' {
				raw, simple, err := s.quoted()
				if err == nil && !simple {
					raw, err = appendText(nil, raw)
				}
				id = raw
				return err
			}
		case "result":
			if s.peek() == '"' {
				var err error
				status, err = s.string()
				return err
			}
		case "data", "kafkaRecordValue":
			if (string(name) == "data") == (r.event.meta.Source == Kafka) {
				break
			}
			switch s.peek() {
			case '"':
				raw, simple, err := s.quoted()
				if err == nil && !simple {
					raw, err = appendText(nil, raw)
				}
				data, hasData = raw, true
				return err
			case 'n':
			default:
				invalid("The data of the record is not a string.")
			}
		case "metadata":
			if s.peek() == '{' {
				return r.metadata(s, &got, invalid)
			}
		}
		_, err := s.skip()
		return err
	})
	if err != nil {
		return err
	}
	i, ok := r.find(id)
	if !ok {
		return nil // never sent
	}
	out := &r.outcomes[i]
	if out.state != stateMissing {
		*out = outcome{state: stateDuplicated}
		return nil
	}
	switch status {
	case "Ok":
		got.state = stateOK
		if !hasData {
			invalid("The record has the result Ok and no data.")
		} else if got.data, ok = r.decode(data); !ok {
			invalid("The data of the record is not base64.")
		}
		if got.message != "" {
			got.state = stateInvalid
		}
	case "Dropped":
		got = outcome{state: stateDropped}
	case "ProcessingFailed":
		got = outcome{state: stateFailed}
	default:
		got = outcome{state: stateInvalid, message: "The result of the record is none of Ok, Dropped, ProcessingFailed."}
	}
	*out = got
	return nil
}

// find gives the index of a record id. Functions return records in the order
// they got them, or nearly so.
func (r *reply) find(id []byte) (int, bool) {
	if id == nil {
		return 0, false
	}
	if r.index == nil {
		if r.next < len(r.outcomes) && bytes.Equal(id, r.event.id(r.next)) {
			r.next++
			return r.next - 1, true
		}
		r.index = make(map[string]int, len(r.outcomes))
		for i := range r.outcomes {
			r.index[string(r.event.id(i))] = i
		}
	}
	i, ok := r.index[string(id)]
	return i, ok
}

// decode reads padded base64 of the standard alphabet. The bytes lie in memory
// that all records of the answer share.
func (r *reply) decode(text []byte) ([]byte, bool) {
	if len(text)%4 != 0 || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, false // the decoder passes over line breaks
	}
	size := len(text) / 4 * 3
	if cap(r.arena)-len(r.arena) < size {
		r.arena = make([]byte, 0, max(size, min(len(r.outcomes)*size, MaxPayload)))
	}
	start := len(r.arena)
	n, err := base64x.StdEncoding.Decode(r.arena[start:start+size], text)
	if err != nil || n < size-2 {
		return nil, false
	}
	r.arena = r.arena[:start+n]
	return r.arena[start : start+n : start+n], true
}

// metadata reads partition keys and the record's place in a table.
func (r *reply) metadata(s *scanner, got *outcome, invalid func(string)) error {
	return s.object(func(name []byte, _ bool) error {
		switch {
		case string(name) == "partitionKeys" && s.peek() == '{':
			keys := map[string]string{}
			err := s.object(func(name []byte, simple bool) error {
				key, err := appendText(nil, name)
				if err != nil {
					return err
				}
				value, err := scalar(s)
				if err != nil {
					return err
				}
				keys[string(key)] = value
				if len(keys) > maxKeys {
					invalid("The record has more than 50 partition keys.")
					delete(keys, string(key))
				}
				return nil
			})
			got.keys = keys
			return err
		case string(name) == "otfMetadata" && s.peek() == '{':
			got.table = &record.Table{}
			return s.object(func(name []byte, _ bool) error {
				value, err := scalar(s)
				switch string(name) {
				case "destinationDatabaseName":
					got.table.Database = value
				case "destinationTableName":
					got.table.Name = value
				case "operation":
					got.table.Operation = value
				}
				return err
			})
		}
		_, err := s.skip()
		return err
	})
}

// scalar passes a value and gives it as text: strings as they are, numbers and
// booleans as they are written, nothing for null, lists and objects.
func scalar(s *scanner) (string, error) {
	switch s.peek() {
	case '"':
		return s.string()
	case '{', '[', 'n':
		_, err := s.skip()
		return "", err
	}
	text, err := s.skip()
	return string(text), err
}
