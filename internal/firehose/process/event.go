package process

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/firehose/record"
)

// event is the payload of an invocation while it is written, and the record ids
// in it.
type event struct {
	payload []byte
	ids     []span
	meta    *SourceMeta
	split   bool // places count parts
}

// span is a piece of the payload.
type span struct{ from, to int }

func (e *event) begin() {
	s := &e.meta.Stream
	e.payload = append(e.payload, `{"invocationId":"`...)
	e.payload = appendUUID(e.payload)
	e.payload = append(e.payload, `","deliveryStreamArn":`...)
	e.payload = appendString(e.payload, s.ARN)
	switch e.meta.Source {
	case Kinesis:
		e.payload = append(e.payload, `,"sourceKinesisStreamArn":`...)
		e.payload = appendString(e.payload, s.SourceARN)
	case Kafka:
		e.payload = append(e.payload, `,"sourceMSKArn":`...)
		e.payload = appendString(e.payload, s.SourceARN)
	}
	e.payload = append(e.payload, `,"region":`...)
	e.payload = appendString(e.payload, s.Region)
	e.payload = append(e.payload, `,"records":[`...)
}

// appendUUID adds a random UUID.
func appendUUID(dst []byte) []byte {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	for i, n := range []int{0, 4, 6, 8, 10} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, id[n:[]int{4, 6, 8, 10, 16}[i]])
	}
	return dst
}

// add writes one record. It answers false, and writes nothing, if the payload
// became too large.
func (e *event) add(r *record.Record) bool {
	length := base64x.StdEncoding.EncodedLen(len(r.Data))
	before := len(e.payload)
	// The members around the data take less than this, strings of lane and keys
	// aside, whose six-fold length covers escapes.
	if before+length+512+6*len(r.PartitionKey) > MaxPayload-2 {
		return false
	}
	b := e.payload
	if len(e.ids) > 0 {
		b = append(b, ',')
	}
	sub := r.Sub
	if e.split {
		sub /= SubRecords
	}
	number := strconv.FormatUint(r.Index, 10)
	lane := ""
	if r.Lane != nil {
		number, lane = r.Lane.SequenceNumber(r.Index, r.Arrival), r.Lane.Name()
	}
	b = append(b, `{"recordId":"`...)
	from := len(b)
	b = append(b, number...) // digits
	b = appendDigits(b, uint64(r.Sub), 6)
	e.ids = append(e.ids, span{from, len(b)})
	b = append(b, `","approximateArrivalTimestamp":`...)
	b = strconv.AppendInt(b, r.Arrival, 10)
	if e.meta.Source == Kafka {
		b = append(b, `,"mskRecordMetadata":{"offset":"`...)
		b = strconv.AppendUint(b, r.Index, 10)
		b = append(b, `","partitionId":`...)
		b = appendString(b, lane)
		b = append(b, `,"approximateArrivalTimestamp":`...)
		b = strconv.AppendInt(b, r.Arrival, 10)
		b = append(b, `},"kafkaRecordValue":"`...)
	} else {
		b = append(b, `,"data":"`...)
	}
	b = slices.Grow(b, length)
	base64x.StdEncoding.EncodeUnsafe(&b, r.Data)
	b = append(b, '"')
	if e.meta.Source == Kinesis {
		b = append(b, `,"kinesisRecordMetadata":{"shardId":`...)
		b = appendString(b, lane)
		b = append(b, `,"partitionKey":`...)
		b = appendString(b, string(r.PartitionKey))
		b = append(b, `,"sequenceNumber":"`...)
		b = append(b, number...)
		b = append(b, `","subsequenceNumber":`...)
		b = strconv.AppendUint(b, uint64(sub), 10)
		b = append(b, `,"approximateArrivalTimestamp":`...)
		b = strconv.AppendInt(b, r.Arrival, 10)
		b = append(b, '}')
	}
	b = append(b, '}')
	if len(b) > MaxPayload-2 {
		e.payload, e.ids = b[:before], e.ids[:len(e.ids)-1]
		return false
	}
	e.payload = b
	return true
}

func (e *event) end() []byte {
	e.payload = append(e.payload, `]}`...)
	return e.payload
}

// id is the i-th record id.
func (e *event) id(i int) []byte { return e.payload[e.ids[i].from:e.ids[i].to] }

func appendDigits(dst []byte, n uint64, width int) []byte {
	var digits [20]byte
	s := strconv.AppendUint(digits[:0], n, 10)
	for range width - len(s) {
		dst = append(dst, '0')
	}
	return append(dst, s...)
}

// appendString adds s as a JSON string; what is not UTF-8 becomes the
// replacement character.
func appendString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && s[i] >= 0x20 && s[i] < utf8.RuneSelf && s[i] != '"' && s[i] != '\\' {
			i++
		}
		dst = append(dst, s[start:i]...)
		if i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	return append(dst, '"')
}
