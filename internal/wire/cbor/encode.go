package cbor

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// Append writes v as a CBOR map behind dst. Structures have indefinite length,
// as the service writes them; lists and maps have their count in front.
func Append(dst []byte, v api.Shape) []byte {
	e := encoder{dst: grow(dst, v)}
	v.EncodeTo(&e)
	return e.dst
}

// grow makes room for the outputs that carry records, so that they are copied
// only once.
func grow(dst []byte, v api.Shape) []byte {
	var records []kinesis.Record
	switch v := v.(type) {
	case *kinesis.GetRecordsOutput:
		records = v.Records
	case *kinesis.SubscribeToShardEvent:
		records = v.Records
	case *kinesis.PutRecordsOutput:
		const entry = 160 // names and the usual lengths of shard ids and sequence numbers
		return slices.Grow(dst, 256+entry*len(v.Records))
	default:
		return dst
	}
	const overhead = 160 // of a record: names, heads, the time
	n := 1024
	for i := range records {
		r := &records[i]
		n += overhead + len(r.Data) + len(api.Val(r.PartitionKey)) + len(api.Val(r.SequenceNumber))
	}
	return slices.Grow(dst, n)
}

// AppendError writes the body of an error reply behind dst: the code, the text if
// there is one, and the members of modelled errors that have others.
func AppendError(dst []byte, err api.Error) []byte {
	e := encoder{dst: dst}
	e.BeginStruct()
	e.Member("__type")
	e.String(err.ErrorCode())
	if shape, ok := err.(api.ErrorShape); ok {
		shape.EncodeMembers(&e)
	} else if text := err.ErrorMessage(); text != "" {
		if err.ErrorCode() == api.CodeSerialization {
			e.Member("Message") // the service's spelling for values of a wrong type
		} else {
			e.Member("message")
		}
		e.String(text)
	}
	e.EndStruct()
	return e.dst
}

// encoder implements api.Encoder.
type encoder struct{ dst []byte }

var _ api.Encoder = (*encoder)(nil)

func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return append(dst, major|25, byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return append(dst, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, major|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// BeginStruct implements api.Encoder.
func (e *encoder) BeginStruct() { e.dst = append(e.dst, majorMap|indefinite) }

// EndStruct implements api.Encoder.
func (e *encoder) EndStruct() { e.dst = append(e.dst, breakByte) }

// Member implements api.Encoder.
func (e *encoder) Member(name string) { e.String(name) }

// BeginList implements api.Encoder.
func (e *encoder) BeginList(n int) { e.dst = appendHead(e.dst, majorArray, uint64(n)) }

// EndList implements api.Encoder.
func (e *encoder) EndList() {}

// BeginMap implements api.Encoder.
func (e *encoder) BeginMap(n int) { e.dst = appendHead(e.dst, majorMap, uint64(n)) }

// Key implements api.Encoder.
func (e *encoder) Key(key string) { e.String(key) }

// EndMap implements api.Encoder.
func (e *encoder) EndMap() {}

// String implements api.Encoder.
func (e *encoder) String(s string) {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	e.dst = append(appendHead(e.dst, majorText, uint64(len(s))), s...)
}

// Null implements api.Encoder.
func (e *encoder) Null() { e.dst = append(e.dst, simpleNull) }

// Int64 implements api.Encoder.
func (e *encoder) Int64(n int64) {
	if n < 0 {
		e.dst = appendHead(e.dst, majorNint, uint64(^n))
	} else {
		e.dst = appendHead(e.dst, majorUint, uint64(n))
	}
}

// Float64 implements api.Encoder.
func (e *encoder) Float64(f float64) {
	n := math.Float64bits(f)
	e.dst = append(e.dst, floatDouble, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// Bool implements api.Encoder.
func (e *encoder) Bool(b bool) {
	if b {
		e.dst = append(e.dst, simpleTrue)
	} else {
		e.dst = append(e.dst, simpleFalse)
	}
}

// Time implements api.Encoder.
func (e *encoder) Time(t time.Time) {
	const tagEpoch = 1
	e.dst = append(e.dst, majorTag|tagEpoch)
	e.Int64(t.UnixMilli())
}

// Blob implements api.Encoder.
func (e *encoder) Blob(b []byte) {
	e.dst = append(appendHead(e.dst, majorBytes, uint64(len(b))), b...)
}
