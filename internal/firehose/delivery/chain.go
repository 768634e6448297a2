package delivery

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Template is a compiled prefix; *naming.Template is one.
type Template interface {
	Evaluate(naming.Values) (string, error)
	// QueryKeys and FunctionKeys are the partition keys it uses.
	QueryKeys() []string
	FunctionKeys() []string
}

// Writer makes objects of backups and error outputs; *s3.Writer is one.
type Writer interface {
	// WriteBatch stores a batch as one object, below the error prefix if errorType
	// is not empty. It is durable at return.
	WriteBatch(ctx context.Context, b *record.Batch, errorType string) (key string, err error)
	// WriteFailures stores lines, which end with newlines, as one object.
	WriteFailures(ctx context.Context, stream record.Stream, errorType, id string, at time.Time, lines []byte) (key string, err error)
}

// Chain is what records pass through between their source and the buffers.
type Chain interface{}
