package streams

import (
	"context"
	"fmt"
	"time"
)

// keysPage is how much of a shard Keys looks at together, in bytes.
const keysPage = 1 << 20

// Keys calls f with the partition key of every record of the stream, of whatever
// writer, that arrived at or after since and was durable when Keys was called. The
// key is f's until it returns.
func (w *Writer) Keys(ctx context.Context, since time.Time, f func(key []byte)) error {
	shards, err := w.r.Shards()
	if err != nil {
		return err
	}
	var page ReaderPage
	for _, sh := range shards {
		tail, _ := w.r.Tail(sh.Number)
		next, err := w.r.At(ctx, sh.Number, since)
		for err == nil && next < tail {
			before := next
			if err = w.r.Read(ctx, sh.Number, next, keysPage, &page); err != nil {
				break
			}
			for _, rec := range page.Records {
				f(rec.Key)
			}
			if next = page.Next; next == before {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("read keys of shard %s: %w", sh.Name, err)
		}
	}
	return nil
}
