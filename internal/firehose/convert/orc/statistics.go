package orc

import (
	"bytes"
	"math"
	"math/big"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// maxBound is how long a text may be to be a bound in statistics.
const maxBound = 1024

// statistics are of a row group, a stripe, or the file.
type statistics struct {
	count   uint64 // without nulls
	hasNull bool

	min, max int64 // of integers, dates, and timestamps in milliseconds
	sum      int64
	overflow bool // of sum

	minFloat, maxFloat, sumFloat float64
	minDecimal, maxDecimal       column.Int128

	minText, maxText []byte
	long             bool // a text was too long for a bound
	bytes            int64
	trues            uint64
}

func (s *statistics) reset() {
	*s = statistics{minText: s.minText[:0], maxText: s.maxText[:0]}
}

func (s *statistics) int(v int64) {
	if s.count == 0 || v < s.min {
		s.min = v
	}
	if s.count == 0 || v > s.max {
		s.max = v
	}
	s.count++
	sum := s.sum + v
	s.overflow = s.overflow || (v > 0) != (sum > s.sum) && v != 0
	s.sum = sum
}

func (s *statistics) float(v float64) {
	if s.count == 0 || v < s.minFloat {
		s.minFloat = v
	}
	if s.count == 0 || v > s.maxFloat {
		s.maxFloat = v
	}
	s.count++
	s.sumFloat += v
}

func lessDecimal(a, b column.Int128) bool { return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo }

func (s *statistics) decimal(v column.Int128) {
	if s.count == 0 || lessDecimal(v, s.minDecimal) {
		s.minDecimal = v
	}
	if s.count == 0 || lessDecimal(s.maxDecimal, v) {
		s.maxDecimal = v
	}
	s.count++
}

func (s *statistics) text(v []byte) {
	switch {
	case len(v) > maxBound:
		s.long = true
	case s.count == 0:
		s.minText, s.maxText = append(s.minText[:0], v...), append(s.maxText[:0], v...)
	case bytes.Compare(v, s.minText) < 0:
		s.minText = append(s.minText[:0], v...)
	case bytes.Compare(v, s.maxText) > 0:
		s.maxText = append(s.maxText[:0], v...)
	}
	s.count++
	s.bytes += int64(len(v))
}

// merge adds what other says, of a column of the kind.
func (s *statistics) merge(o *statistics, k hive.Kind) {
	s.hasNull = s.hasNull || o.hasNull
	if o.count == 0 {
		return
	}
	first := s.count == 0
	if first || o.min < s.min {
		s.min = o.min
	}
	if first || o.max > s.max {
		s.max = o.max
	}
	if first || o.minFloat < s.minFloat {
		s.minFloat = o.minFloat
	}
	if first || o.maxFloat > s.maxFloat {
		s.maxFloat = o.maxFloat
	}
	if first || lessDecimal(o.minDecimal, s.minDecimal) {
		s.minDecimal = o.minDecimal
	}
	if first || lessDecimal(s.maxDecimal, o.maxDecimal) {
		s.maxDecimal = o.maxDecimal
	}
	if k.Text() {
		if first || bytes.Compare(o.minText, s.minText) < 0 {
			s.minText = append(s.minText[:0], o.minText...)
		}
		if first || bytes.Compare(o.maxText, s.maxText) > 0 {
			s.maxText = append(s.maxText[:0], o.maxText...)
		}
	}
	s.long = s.long || o.long
	sum := s.sum + o.sum
	s.overflow = s.overflow || o.overflow || o.sum != 0 && (o.sum > 0) != (sum > s.sum)
	s.sum = sum
	s.sumFloat += o.sumFloat
	s.count += o.count
	s.bytes += o.bytes
	s.trues += o.trues
}

func sintField(b []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), protowire.EncodeZigZag(v))
}

func uintField(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func message(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func doubleField(b []byte, field protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), math.Float64bits(v))
}

func packed(b []byte, field protowire.Number, values ...uint64) []byte {
	var p []byte
	for _, v := range values {
		p = protowire.AppendVarint(p, v)
	}
	return message(b, field, p)
}

// encode is the message ColumnStatistics.
func (s *statistics) encode(t *hive.Type) []byte {
	b := uintField(nil, 1, s.count)
	var inner []byte
	switch t.Kind {
	case hive.TinyInt, hive.SmallInt, hive.Int, hive.BigInt:
		if s.count > 0 {
			inner = sintField(sintField(nil, 1, s.min), 2, s.max)
			if !s.overflow {
				inner = sintField(inner, 3, s.sum)
			}
		}
		b = message(b, 2, inner)
	case hive.Float, hive.Double:
		if s.count > 0 {
			inner = doubleField(doubleField(doubleField(nil, 1, s.minFloat), 2, s.maxFloat), 3, s.sumFloat)
		}
		b = message(b, 3, inner)
	case hive.String, hive.Char, hive.Varchar:
		if s.count > 0 {
			if !s.long {
				inner = message(message(nil, 1, s.minText), 2, s.maxText)
			}
			inner = sintField(inner, 3, s.bytes)
		}
		b = message(b, 4, inner)
	case hive.Boolean:
		b = message(b, 5, packed(nil, 1, s.trues))
	case hive.Decimal:
		if s.count > 0 {
			inner = message(message(nil, 1, []byte(decimalText(s.minDecimal, t.Scale))), 2, []byte(decimalText(s.maxDecimal, t.Scale)))
		}
		b = message(b, 6, inner)
	case hive.Date:
		if s.count > 0 {
			inner = sintField(sintField(nil, 1, s.min), 2, s.max)
		}
		b = message(b, 7, inner)
	case hive.Binary:
		if s.count > 0 {
			inner = sintField(nil, 1, s.bytes)
		}
		b = message(b, 8, inner)
	case hive.Timestamp:
		if s.count > 0 {
			// In UTC: the other two fields are in the writer's time zone.
			inner = sintField(sintField(nil, 3, s.min), 4, s.max)
		}
		b = message(b, 9, inner)
	}
	if s.hasNull {
		return uintField(b, 10, 1)
	}
	return uintField(b, 10, 0)
}

// decimalText is a decimal without trailing zeros behind the point, as Hive
// writes it.
func decimalText(v column.Int128, scale int) string {
	n := new(big.Int).Lsh(big.NewInt(v.Hi), 64)
	n.Add(n, new(big.Int).SetUint64(v.Lo))
	digits := new(big.Int).Abs(n).String()
	for len(digits) <= scale {
		digits = "0" + digits
	}
	whole, fraction := digits[:len(digits)-scale], digits[len(digits)-scale:]
	for len(fraction) > 0 && fraction[len(fraction)-1] == '0' {
		fraction = fraction[:len(fraction)-1]
	}
	text := whole
	if fraction != "" {
		text += "." + fraction
	}
	if n.Sign() < 0 {
		return "-" + text
	}
	return text
}
