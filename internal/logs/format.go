package logs

import (
	"encoding/binary"
	"errors"
)

// An event is one record of its log stream's shard log, docs/formats/log-event.md:
// a version, the event's own time as a zigzag varint of milliseconds, and its
// message. The time of its arrival is the batch's.
const eventVersion = 1

var (
	errEvent        = errors.New("malformed log event")
	errEventVersion = errors.New("log event of a newer version")
)

func appendEvent(dst []byte, at int64, message string) []byte {
	dst = append(dst, eventVersion)
	dst = binary.AppendVarint(dst, at)
	return append(dst, message...)
}

// parseEvent reads an event; the message points into b.
func parseEvent(b []byte) (at int64, message []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errEvent
	}
	if b[0] > eventVersion {
		return 0, nil, errEventVersion
	}
	at, n := binary.Varint(b[1:])
	if b[0] != eventVersion || n <= 0 {
		return 0, nil, errEvent
	}
	return at, b[1+n:], nil
}
