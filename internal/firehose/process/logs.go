package process

import (
	"errors"

	"github.com/millrace/millrace/internal/firehose/record"
)

// logMessages replaces envelopes of CloudWatch Logs by the messages in them, a
// line each. Control messages yield nothing and leave the chain silently.
func (r *run) logMessages() {
	r.filter(func(rec *record.Record) bool {
		lines, control, err := extractMessages(rec.Data)
		if err != nil {
			r.fail(rec, ErrorTypeProcessing, CodeLogEnvelope, "The record is not an envelope of CloudWatch Logs: "+err.Error())
			return false
		}
		rec.Data = lines
		return !control
	})
}

// extractMessages gives the messages of an envelope, each with a newline.
func extractMessages(envelope []byte) (lines []byte, control bool, err error) {
	s := scanner{text: envelope}
	kind, events := "", false
	lines = make([]byte, 0, len(envelope))
	err = s.object(func(name []byte, _ bool) error {
		switch string(name) {
		case "messageType":
			kind, err = s.string()
			return err
		case "logEvents":
			events = true
			return s.array(func() error {
				found := false
				err := s.object(func(name []byte, _ bool) error {
					if string(name) != "message" || s.peek() != '"' {
						_, err := s.skip()
						return err
					}
					found = true
					raw, _, err := s.quoted()
					if err != nil {
						return err
					}
					lines, err = appendText(lines, raw)
					lines = append(lines, '\n')
					return err
				})
				if err == nil && !found {
					err = errors.New("a log event has no message")
				}
				return err
			})
		}
		_, err := s.skip()
		return err
	})
	if err == nil && s.peek() != 0 {
		err = s.unexpected()
	}
	switch {
	case err != nil:
		return nil, false, err
	case kind == "CONTROL_MESSAGE":
		return nil, true, nil
	case kind != "DATA_MESSAGE":
		return nil, false, errors.New("messageType is neither DATA_MESSAGE nor CONTROL_MESSAGE")
	case !events:
		return nil, false, errors.New("logEvents is missing")
	}
	return lines, false, nil
}
