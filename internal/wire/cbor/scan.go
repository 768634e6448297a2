package cbor

import (
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// scan reads the inputs that carry most of the traffic, if their body has the
// usual form: known members, each at most once, strings in one piece. It answers
// false, with body and v as they were, for everything else, malformed bodies
// included; the decoder then says what is there or what is wrong with it.
//
// Against the decoder it saves the calls through interfaces and an allocation for
// each string: all strings of a request share a few arrays.
func scan(body []byte, v api.Shape) bool {
	switch in := v.(type) {
	case *kinesis.PutRecordsInput:
		s := scanner{decoder: decoder{buf: body}}
		return s.putRecords(in)
	case *kinesis.PutRecordInput:
		s := scanner{decoder: decoder{buf: body}, chunk: 6}
		return s.putRecord(in)
	}
	return false
}

type scanner struct {
	decoder
	texts []string // strings that the input points to; never grown in place
	chunk int      // how many more of them are expected
}

// enter opens a container of the given type.
func (s *scanner) enter(major byte) bool {
	return s.pos < len(s.buf) && s.buf[s.pos]&0xe0 == major && s.open()
}

// whole gives the string of the given type that is next, if it is in one piece.
func (s *scanner) whole(major byte) ([]byte, bool) {
	if s.pos >= len(s.buf) || s.buf[s.pos]&0xe0 != major || s.buf[s.pos]&31 == indefinite {
		return nil, false
	}
	if major == majorText {
		return s.decoder.text()
	}
	return s.bytes(major)
}

func (s *scanner) text(to **string) bool {
	if *to != nil {
		return false
	}
	b, ok := s.whole(majorText)
	if !ok {
		return false
	}
	if len(s.texts) == cap(s.texts) {
		s.texts = make([]string, 0, max(4, s.chunk))
	}
	s.texts = append(s.texts, aliasString(b))
	*to = &s.texts[len(s.texts)-1]
	return true
}

func (s *scanner) blob(to *[]byte) bool {
	if *to != nil {
		return false
	}
	b, ok := s.whole(majorBytes)
	*to = b
	return ok
}

// done reports that the body has been read to its end without a mistake.
func (s *scanner) done() bool { return s.bad == nil && s.pos == len(s.buf) }

func (s *scanner) putRecords(in *kinesis.PutRecordsInput) bool {
	if !s.enter(majorMap) {
		return false
	}
	var out kinesis.PutRecordsInput
	for s.next() {
		name, ok := s.whole(majorText)
		if !ok {
			return false
		}
		switch string(name) {
		case "Records":
			if out.Records != nil {
				return false
			}
			out.Records, ok = s.records()
		case "StreamName":
			ok = s.text(&out.StreamName)
		case "StreamARN":
			ok = s.text(&out.StreamARN)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	if !s.done() {
		return false
	}
	*in = out
	return true
}

func (s *scanner) records() ([]kinesis.PutRecordsRequestEntry, bool) {
	const most = 500
	if !s.enter(majorArray) {
		return nil, false
	}
	list := []kinesis.PutRecordsRequestEntry{}
	start := s.pos
	for s.next() {
		if len(list) == cap(list) {
			if len(list) == most {
				return nil, false
			}
			n := 1
			if len(list) > 0 {
				// Guess the rest from what there has been.
				n = max(min(len(list)*(len(s.buf)-start)/(s.pos-start)+2, most), len(list)+1)
				s.chunk = 2 * (n - len(list))
				if list[0].ExplicitHashKey == nil || list[0].PartitionKey == nil {
					s.chunk /= 2
				}
			}
			list = append(make([]kinesis.PutRecordsRequestEntry, 0, n), list...)
		}
		list = append(list, kinesis.PutRecordsRequestEntry{})
		if !s.record(&list[len(list)-1]) {
			return nil, false
		}
	}
	return list, s.bad == nil
}

func (s *scanner) record(r *kinesis.PutRecordsRequestEntry) bool {
	if !s.enter(majorMap) {
		return false
	}
	for s.next() {
		name, ok := s.whole(majorText)
		if !ok {
			return false
		}
		switch string(name) {
		case "Data":
			ok = s.blob(&r.Data)
		case "PartitionKey":
			ok = s.text(&r.PartitionKey)
		case "ExplicitHashKey":
			ok = s.text(&r.ExplicitHashKey)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return s.bad == nil
}

func (s *scanner) putRecord(in *kinesis.PutRecordInput) bool {
	if !s.enter(majorMap) {
		return false
	}
	var out kinesis.PutRecordInput
	for s.next() {
		name, ok := s.whole(majorText)
		if !ok {
			return false
		}
		switch string(name) {
		case "Data":
			ok = s.blob(&out.Data)
		case "PartitionKey":
			ok = s.text(&out.PartitionKey)
		case "StreamName":
			ok = s.text(&out.StreamName)
		case "StreamARN":
			ok = s.text(&out.StreamARN)
		case "ExplicitHashKey":
			ok = s.text(&out.ExplicitHashKey)
		case "SequenceNumberForOrdering":
			ok = s.text(&out.SequenceNumberForOrdering)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	if !s.done() {
		return false
	}
	*in = out
	return true
}
