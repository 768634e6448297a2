package delivery

import (
	"context"

	"github.com/millrace/millrace/internal/firehose/record"
)

// Writer makes objects of backups and error outputs; *s3.Writer is one.
type Writer interface {
	// WriteBatch stores a batch as one object, below the error prefix if errorType
	// is not empty, and gives its name. It is durable at return.
	WriteBatch(ctx context.Context, b *record.Batch, errorType string) (name string, err error)
}
