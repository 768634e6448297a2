package meta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// commandFormat is the format of commands this release writes, and the newest
// it understands.
const commandFormat = 1

// The bits of an operation's kind byte.
const (
	kindDelete        = 1 << 0
	kindCondShift     = 1
	kindKnown         = kindDelete | 3<<kindCondShift
	minOperationBytes = 3 // kind, key length, one byte of key
)

// appendCommand appends the encoded form of ops to dst.
func appendCommand(dst []byte, ops []Op) []byte {
	dst = append(dst, commandFormat)
	dst = binary.AppendUvarint(dst, uint64(len(ops)))
	for i := range ops {
		op := &ops[i]
		kind := byte(op.Cond) << kindCondShift
		if op.Delete {
			kind |= kindDelete
		}
		dst = append(dst, kind)
		if op.Cond == IfVersion {
			dst = binary.AppendUvarint(dst, uint64(op.Version))
		}
		dst = appendString(dst, op.Key)
		if !op.Delete {
			dst = appendString(dst, op.Value)
		}
	}
	return dst
}

func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// commandSize bounds the encoded size of ops from above.
func commandSize(ops []Op) int {
	size := 1 + binary.MaxVarintLen64
	for i := range ops {
		size += 1 + 3*binary.MaxVarintLen64 + len(ops[i].Key) + len(ops[i].Value)
	}
	return size
}

// operation is a decoded Op whose key and value point into the command.
type operation struct {
	key, value []byte
	version    Version
	cond       Cond
	delete     bool
}

// decodeCommand appends the command's operations to ops. The error is
// driver.ErrNewerVersion for a format of a newer release, otherwise it says
// what is wrong with the bytes.
func decodeCommand(command []byte, ops []operation) ([]operation, error) {
	r := reader{rest: command}
	if format := r.byte(); format > commandFormat {
		return nil, fmt.Errorf("command has format %d, this release knows formats up to %d: %w",
			format, commandFormat, driver.ErrNewerVersion)
	} else if format == 0 && r.err == nil {
		return nil, errMalformed("format is zero")
	}
	count := r.uvarint()
	if r.err != nil {
		return nil, r.err
	}
	if count == 0 || count > uint64(len(r.rest)/minOperationBytes) {
		return nil, errMalformed("impossible number of operations")
	}
	for range count {
		kind := r.byte()
		if kind&^byte(kindKnown) != 0 {
			return nil, errMalformed("unknown kind of operation")
		}
		op := operation{cond: Cond(kind >> kindCondShift), delete: kind&kindDelete != 0}
		if op.cond == IfVersion {
			op.version = Version(r.uvarint())
		}
		op.key = r.key()
		if !op.delete {
			op.value = r.bytes()
		}
		if r.err != nil {
			return nil, r.err
		}
		ops = append(ops, op)
	}
	if r.err == nil && len(r.rest) > 0 {
		r.err = errMalformed("bytes after the last operation")
	}
	return ops, r.err
}

type errMalformed string

func (e errMalformed) Error() string { return string(e) }

// reader takes values from the front of a byte slice. After the first error it
// returns zeros. What it returns points into the slice.
type reader struct {
	rest []byte
	err  error
}

var errCutOff = errors.New("bytes end within a value")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.rest = err, nil
	}
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail(errCutOff)
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	switch {
	case n <= 0:
		r.fail(errCutOff)
		return 0
	case n > 1 && r.rest[n-1] == 0:
		r.fail(errMalformed("number is not in its shortest form"))
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.fail(errCutOff)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) key() []byte {
	key := r.bytes()
	if r.err == nil && (len(key) == 0 || len(key) > MaxKeyBytes) {
		r.fail(errMalformed("key is empty or too long"))
	}
	return key
}
