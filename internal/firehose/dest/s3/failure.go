package s3

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/dest"
)

// FailureLine is one line of an error output.
type FailureLine struct {
	// ErrorType says whose failure it is, on which the names and the order of
	// members depend.
	ErrorType     string
	Code, Message string
	Attempts      int
	Arrival       int64     // milliseconds since 1970
	Ended         time.Time // of the last attempt
	Data          []byte    // what the record was
	FunctionARN   string    // the function to blame; empty if none
	// Fields are members that a destination adds.
	Fields []dest.Field
}

// Append adds the line, with its newline. Failures of processing have their data
// first and the function last, those of conversion say lastErrorCode and
// lastErrorMessage; all others are alike.
func (l *FailureLine) Append(dst []byte) []byte {
	dst = slices.Grow(dst, base64.StdEncoding.EncodedLen(len(l.Data))+len(l.Message)+256)
	code, message := "errorCode", "errorMessage"
	switch l.ErrorType {
	case "processing-failed":
		dst = append(dst, '{')
		dst = l.data(dst)
		dst = member(dst, code, l.Code)
		dst = member(dst, message, l.Message)
		dst = l.count(append(dst, ','))
		dst = l.ended(l.arrival(dst))
		if l.FunctionARN != "" {
			dst = member(dst, "lambdaARN", l.FunctionARN)
		}
		return append(appendFields(dst, l.Fields), '}', '\n')
	case "format-conversion-failed":
		dst = l.arrival(l.count(append(dst, '{')))
		dst = member(dst, "lastErrorCode", l.Code)
		dst = member(dst, "lastErrorMessage", l.Message)
		dst = append(l.ended(dst), ',')
		return append(appendFields(l.data(dst), l.Fields), '}', '\n')
	}
	dst = l.arrival(l.count(append(dst, '{')))
	dst = member(dst, code, l.Code)
	dst = member(dst, message, l.Message)
	dst = l.ended(dst)
	if l.ErrorType == "AmazonOpenSearchService-failed" {
		// What was sent comes behind what it was to become.
		dst = append(appendFields(dst, l.Fields), ',')
		return append(l.data(dst), '}', '\n')
	}
	dst = append(dst, ',')
	return append(appendFields(l.data(dst), l.Fields), '}', '\n')
}

func (l *FailureLine) data(dst []byte) []byte {
	dst = append(dst, `"rawData":"`...)
	return append(base64.StdEncoding.AppendEncode(dst, l.Data), '"')
}

func (l *FailureLine) count(dst []byte) []byte {
	return strconv.AppendInt(append(dst, `"attemptsMade":`...), int64(l.Attempts), 10)
}

func (l *FailureLine) arrival(dst []byte) []byte {
	return strconv.AppendInt(append(dst, `,"arrivalTimestamp":`...), l.Arrival, 10)
}

func (l *FailureLine) ended(dst []byte) []byte {
	return strconv.AppendInt(append(dst, `,"attemptEndingTimestamp":`...), l.Ended.UnixMilli(), 10)
}

func member(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, ',', '"'), name...), '"', ':')
	return appendString(dst, value)
}

func appendFields(dst []byte, fields []dest.Field) []byte {
	for _, f := range fields {
		dst = append(append(append(dst, ',', '"'), f.Name...), '"', ':')
		dst = appendValue(dst, f.Value)
	}
	return dst
}

func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendString(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(dst, "null"...)
		}
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	case bool:
		return strconv.AppendBool(dst, v)
	case []dest.Field:
		dst = append(dst, '{')
		start := len(dst)
		dst = appendFields(dst, v)
		if len(dst) > start {
			dst = slices.Delete(dst, start, start+1) // the first comma
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// appendString adds s as a JSON string; what is not UTF-8 becomes the replacement
// character.
func appendString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
