package process

import (
	"bytes"

	"github.com/millrace/millrace/internal/firehose/record"
)

// split takes records apart. One that has more than 500 parts, or is not what it
// should be, goes on as it is: a later step says what is wrong with it.
func (r *run) split() {
	whole := r.records
	r.records = make([]record.Record, 0, len(whole))
	var parts [][]byte
	for i := range whole {
		rec := whole[i]
		rec.Sub *= SubRecords
		if delimiter := r.chain.config.Split.Delimiter; len(delimiter) > 0 {
			parts = splitDelimited(parts[:0], rec.Data, delimiter)
		} else {
			parts = splitJSON(parts[:0], rec.Data)
		}
		if len(parts) == 0 || len(parts) > maxSubRecords {
			r.records = append(r.records, rec)
			continue
		}
		for n, part := range parts {
			sub := rec
			sub.Sub += uint32(n)
			sub.Data = part
			r.records = append(r.records, sub)
		}
	}
}

// splitDelimited gives what is between delimiters, without empty parts. It stops
// behind the first part too many.
func splitDelimited(parts [][]byte, b, delimiter []byte) [][]byte {
	for len(b) > 0 && len(parts) <= maxSubRecords {
		part, rest, _ := bytes.Cut(b, delimiter)
		if len(part) > 0 {
			parts = append(parts, part[:len(part):len(part)])
		}
		b = rest
	}
	return parts
}

// splitJSON gives the values that follow each other in b, without the space
// around them; none if b is anything else. It stops behind the first value too
// many.
func splitJSON(parts [][]byte, b []byte) [][]byte {
	s := scanner{text: b}
	for s.space(); s.at < len(b) && len(parts) <= maxSubRecords; s.space() {
		value, err := s.skip()
		if err != nil {
			return nil
		}
		parts = append(parts, value[:len(value):len(value)])
	}
	return parts
}
