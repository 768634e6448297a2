package awsjson

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// scan reads the inputs that carry most of the traffic, if their body has the
// usual form: known members, each at most once, strings without escapes. It
// answers false, with body and v as they were, for everything else; the decoder
// then says what is there or what is wrong with it.
//
// A body is walked twice. The first walk checks all of the syntax and changes
// nothing. The second decodes base64 where it stands; should that fail, what has
// been decoded is written back before the decoder takes over.
func scan(body []byte, v api.Shape) (done bool, err error) {
	s := scanner{buf: body}
	switch in := v.(type) {
	case *kinesis.PutRecordsInput:
		return s.putRecords(in), nil
	case *kinesis.PutRecordInput:
		return s.putRecord(in), nil
	}
	return false, nil
}

// scanner walks a body. Its methods answer false for anything unusual, which
// ends the scan.
type scanner struct {
	buf   []byte
	pos   int
	texts []string // strings that the input points to; never grown in place
	chunk int      // how many more of them are expected
}

func (s *scanner) space() {
	for s.pos < len(s.buf) && s.buf[s.pos] <= ' ' {
		switch s.buf[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// byte passes c and the space around it.
func (s *scanner) byte(c byte) bool {
	s.space()
	if s.pos >= len(s.buf) || s.buf[s.pos] != c {
		return false
	}
	s.pos++
	s.space()
	return true
}

// quoted gives the raw text between the quotes that are next, up to the first
// quote whatever is in between.
func (s *scanner) quoted() ([]byte, bool) {
	if s.pos >= len(s.buf) || s.buf[s.pos] != '"' {
		return nil, false
	}
	start := s.pos + 1
	n := bytes.IndexByte(s.buf[start:], '"')
	if n < 0 {
		return nil, false
	}
	s.pos = start + n + 1
	return s.buf[start : start+n : start+n], true
}

// name gives a member's name and passes the colon.
func (s *scanner) name() ([]byte, bool) {
	n, ok := s.quoted()
	return n, ok && s.byte(':')
}

// text gives a pointer to the string that is next.
func (s *scanner) text() (*string, bool) {
	b, ok := s.quoted()
	if !ok || !simple(b) {
		return nil, false
	}
	if len(s.texts) == cap(s.texts) {
		s.texts = make([]string, 0, max(4, s.chunk))
	}
	s.texts = append(s.texts, aliasString(b))
	return &s.texts[len(s.texts)-1], true
}

// simple reports whether b stands for itself in a string: UTF-8 without escapes
// and control characters.
func simple(b []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	wide := uint64(0)
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		x := w ^ ('\\' * ones)
		// A byte's high bit is set in what it is compared to if the byte is below
		// 0x20 or a backslash; bytes above 0x7f never count.
		if ((w-0x20*ones)|(x-ones))&^w&highs != 0 {
			return false
		}
		wide |= w & highs
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c == '\\' {
			return false
		} else if c >= 0x80 {
			wide = 1
		}
	}
	return wide == 0 || utf8.Valid(b)
}

func (s *scanner) putRecords(in *kinesis.PutRecordsInput) bool {
	if !s.byte('{') {
		return false
	}
	var out kinesis.PutRecordsInput
	for {
		name, ok := s.name()
		if !ok {
			return false
		}
		switch string(name) {
		case "Records":
			if out.Records != nil {
				return false
			}
			if out.Records, ok = s.records(); !ok {
				return false
			}
		case "StreamName":
			if out.StreamName != nil {
				return false
			}
			out.StreamName, ok = s.text()
		case "StreamARN":
			if out.StreamARN != nil {
				return false
			}
			out.StreamARN, ok = s.text()
		default:
			return false
		}
		if !ok {
			return false
		}
		if more, ok := s.end('}'); !ok {
			return false
		} else if !more {
			break
		}
	}
	if s.pos != len(s.buf) {
		return false
	}
	for i := range out.Records {
		n, bad := decodeBase64(out.Records[i].Data, out.Records[i].Data)
		if bad != nil {
			for _, r := range out.Records[:i] {
				encodeBack(r.Data)
			}
			return false
		}
		out.Records[i].Data = out.Records[i].Data[:n] // the capacity keeps the place
	}
	for i := range out.Records {
		r := &out.Records[i]
		r.Data = r.Data[:len(r.Data):len(r.Data)]
	}
	*in = out
	return true
}

// encodeBack restores text that has been decoded in place. Its length is the
// capacity of what was decoded.
func encodeBack(decoded []byte) {
	base64.StdEncoding.Encode(decoded[:cap(decoded)], bytes.Clone(decoded))
}

// end passes a comma or the closing byte.
func (s *scanner) end(closing byte) (more, ok bool) {
	s.space()
	if s.pos >= len(s.buf) {
		return false, false
	}
	c := s.buf[s.pos]
	if c != ',' && c != closing {
		return false, false
	}
	s.pos++
	s.space()
	return c == ',', true
}

// records reads the list of records, leaving their data as it is.
func (s *scanner) records() ([]kinesis.PutRecordsRequestEntry, bool) {
	const most = 500
	if !s.byte('[') {
		return nil, false
	}
	list := make([]kinesis.PutRecordsRequestEntry, 1)
	start := s.pos
	for {
		if !s.record(&list[len(list)-1]) {
			return nil, false
		}
		more, ok := s.end(']')
		if !ok || !more {
			return list, ok
		}
		if len(list) == cap(list) {
			// Guess the rest from what there has been.
			if len(list) == most {
				return nil, false
			}
			n := min(len(list)*(len(s.buf)-start)/(s.pos-start)+2, most)
			list = append(make([]kinesis.PutRecordsRequestEntry, 0, max(n, len(list)+1)), list...)
			s.chunk = 2 * (n - len(list))
			if list[0].ExplicitHashKey == nil || list[0].PartitionKey == nil {
				s.chunk /= 2
			}
		}
		list = append(list, kinesis.PutRecordsRequestEntry{})
	}
}

func (s *scanner) record(r *kinesis.PutRecordsRequestEntry) bool {
	if !s.byte('{') {
		return false
	}
	for {
		name, ok := s.name()
		if !ok {
			return false
		}
		switch string(name) {
		case "Data":
			if r.Data != nil {
				return false
			}
			r.Data, ok = s.quoted()
		case "PartitionKey":
			if r.PartitionKey != nil {
				return false
			}
			r.PartitionKey, ok = s.text()
		case "ExplicitHashKey":
			if r.ExplicitHashKey != nil {
				return false
			}
			r.ExplicitHashKey, ok = s.text()
		default:
			return false
		}
		if !ok {
			return false
		}
		more, ok := s.end('}')
		if !ok || !more {
			return ok
		}
	}
}

func (s *scanner) putRecord(in *kinesis.PutRecordInput) bool {
	if !s.byte('{') {
		return false
	}
	var out kinesis.PutRecordInput
	s.chunk = 6
	for more := true; more; {
		name, ok := s.name()
		if !ok {
			return false
		}
		var member **string
		switch string(name) {
		case "Data":
			if out.Data != nil {
				return false
			}
			out.Data, ok = s.quoted()
		case "PartitionKey":
			member = &out.PartitionKey
		case "StreamName":
			member = &out.StreamName
		case "StreamARN":
			member = &out.StreamARN
		case "ExplicitHashKey":
			member = &out.ExplicitHashKey
		case "SequenceNumberForOrdering":
			member = &out.SequenceNumberForOrdering
		default:
			return false
		}
		if member != nil {
			if *member != nil {
				return false
			}
			*member, ok = s.text()
		}
		if !ok {
			return false
		}
		if more, ok = s.end('}'); !ok {
			return false
		}
	}
	if s.pos != len(s.buf) {
		return false
	}
	if out.Data != nil {
		n, bad := decodeBase64(out.Data, out.Data)
		if bad != nil {
			return false
		}
		out.Data = out.Data[:n:n]
	}
	*in = out
	return true
}
