package snowflake

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/record"
)

var rowBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

// appendRow appends a record as one line of JSON. why says what is wrong with a
// record that cannot be one.
func (a *attempt) appendRow(row []byte, r *record.Record) (_ []byte, why string) {
	data := bytes.Trim(r.Data, " \t\r\n")
	switch {
	case len(data) == 0 || data[0] != '{':
		return row, "The record is not a JSON object."
	case !utf8.Valid(data):
		return row, "The record is not UTF-8."
	}
	if a.config.Mapping != JSONMapping {
		row = append(row, '{')
		row = appendText(row, a.config.ContentColumn)
		row = append(row, ':')
	}
	before := len(row)
	buffer := bytes.NewBuffer(row)
	if err := json.Compact(buffer, data); err != nil {
		return row[:before], "The record is not one JSON object: " + err.Error()
	}
	row = buffer.Bytes()
	if a.config.Mapping == MetadataMapping {
		row = append(row, ',')
		row = appendText(row, a.config.MetadataColumn)
		row = append(row, ':')
		row = appendMetadata(row, a.batch.Stream, r)
	}
	if a.config.Mapping != JSONMapping {
		row = append(row, '}')
	}
	return append(row, '\n'), ""
}

// appendMetadata says where a record comes from.
func appendMetadata(row []byte, s record.Stream, r *record.Record) []byte {
	member := func(name, value string) {
		row = appendText(row, name)
		row = append(row, ':')
		row = appendText(row, value)
		row = append(row, ',')
	}
	row = append(row, '{')
	if s.SourceARN == "" {
		member("firehoseDeliveryStreamName", s.Name)
	} else {
		_, name, _ := strings.Cut(s.SourceARN, "/")
		member("kinesisStreamName", name)
		if r.Lane != nil {
			member("kinesisShardId", r.Lane.Name())
		}
		member("kinesisPartitionKey", string(r.PartitionKey))
		if r.Lane != nil {
			member("kinesisSequenceNumber", r.Lane.SequenceNumber(r.Index, r.Arrival))
		}
		row = append(row, `"subsequenceNumber":`...)
		row = strconv.AppendUint(row, uint64(r.Sub), 10)
		row = append(row, ',')
	}
	row = append(row, `"IngestionTime":`...)
	row = strconv.AppendInt(row, r.Arrival, 10)
	return append(row, '}')
}

func appendText(row []byte, s string) []byte {
	text, _ := json.Marshal(s) // fails never for a string
	return append(row, text...)
}
