package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/itchyny/gojq"
	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

const maxLineBytes = 10 << 20 // the largest record any stream accepts

func putCommand() *cobra.Command {
	c := &connection{}
	var key, hash, keyFrom string
	var files []string
	var whole, asJSON bool
	cmd := &cobra.Command{
		Use:   "put STREAM [DATA]",
		Short: "Put records: the argument, or each line of standard input or of files",
		Long: `Put records into a stream: the argument as one record, or else each line of the
files or of standard input, without its line end. Empty lines are left out.

Without --key every record gets a random partition key. --key-from takes it from
the record itself: a jq expression for JSON records.`,
		Example: `  millrace put orders '{"id":1}' --key customer-7
  kubectl logs -f app | millrace put logs
  millrace put orders --file orders.jsonl --key-from .customer`,
		Args: cobra.RangeArgs(1, 2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if len(args) == 2 && len(files) > 0 {
				return errors.New("give DATA or --file, not both")
			}
			keys, err := newKeyer(key, keyFrom)
			if err != nil {
				return err
			}
			total := 0
			var bar *progress
			s := &sender{client: cl, stream: args[0], sent: func(records, size int) {
				total += records
				if bar != nil {
					bar.add(size)
				}
			}}
			if asJSON {
				s.stored = func(in *kinesis.PutRecordsRequestEntry, out *kinesis.PutRecordsResultEntry) error {
					return writeLine(cmd.OutOrStdout(), line{ShardID: *out.ShardId, SequenceNumber: *out.SequenceNumber, PartitionKey: *in.PartitionKey})
				}
			}
			add := func(data []byte) error {
				k, err := keys.of(data)
				if err != nil {
					return err
				}
				return s.add(ctx, k, hash, data)
			}
			putAll := func(r io.Reader, size int64, name string) error {
				bar = newProgress(cmd.ErrOrStderr(), size, name)
				defer bar.finish()
				if whole {
					data, err := io.ReadAll(io.LimitReader(r, maxLineBytes+1))
					if err != nil {
						return err
					}
					if len(data) > maxLineBytes {
						return fmt.Errorf("%s is larger than a record may be (%d bytes)", name, maxLineBytes)
					}
					if err := add(data); err != nil {
						return err
					}
				} else if err := eachLine(r, name, add); err != nil {
					return s.finish(ctx, err)
				}
				return s.finish(ctx, nil)
			}
			switch {
			case len(args) == 2:
				if err := add([]byte(args[1])); err != nil {
					return err
				}
				if err := s.flush(ctx); err != nil {
					return err
				}
			case len(files) > 0:
				for _, name := range files {
					f, err := os.Open(name)
					if err != nil {
						return err
					}
					err = putAll(f, fileSize(f), filepath.Base(name))
					f.Close()
					if err != nil {
						return fmt.Errorf("after %d records: %w", total, err)
					}
				}
			default:
				what := "every line becomes a record"
				if whole {
					what = "all lines become one record"
				}
				in, size := input(ctx, cmd, what)
				if !whole && size < 0 {
					if err := putPipe(ctx, s, in, add); err != nil {
						return fmt.Errorf("after %d records: %w", total, err)
					}
					break
				}
				if err := putAll(in, size, "standard input"); err != nil {
					return fmt.Errorf("after %d records: %w", total, err)
				}
			}
			noun := "records"
			if total == 1 {
				noun = "record"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d %s put into %s\n", total, noun, args[0])
			return nil
		}),
	}
	c.register(cmd)
	cmd.Flags().StringVarP(&key, "key", "k", "", "partition key of all records (default: random)")
	cmd.Flags().StringVar(&keyFrom, "key-from", "", "jq expression that takes the partition key from a JSON record")
	cmd.Flags().StringVar(&hash, "explicit-hash-key", "", "hash key that overrides the partition key's hash")
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "file to put, line by line; may be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON line for each record: its shard and sequence number")
	cmd.Flags().BoolVar(&whole, "whole", false, "one record a file instead of one a line")
	return cmd
}

// putPipe reads lines from something that may pause. What has been read is sent
// as soon as no further complete line is at hand.
func putPipe(ctx context.Context, s *sender, r io.Reader, add func([]byte) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(b)
		if len(line) > 0 {
			if err := add(line); err != nil {
				return s.finish(ctx, fmt.Errorf("standard input, line %d: %w", n, err))
			}
		}
		if errors.Is(err, io.EOF) {
			return s.flush(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return s.finish(ctx, fmt.Errorf("standard input, line %d: %w", n, err))
		}
		ahead, _ := b.Peek(b.Buffered())
		if bytes.IndexByte(ahead, '\n') < 0 {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
	}
}

func eachLine(r io.Reader, name string, f func([]byte) error) error {
	b := bufio.NewReaderSize(r, 256<<10)
	for n := 1; ; n++ {
		line, err := readLine(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
		if len(line) > 0 {
			if err := f(line); err != nil {
				return fmt.Errorf("%s, line %d: %w", name, n, err)
			}
		}
		if err != nil {
			return nil
		}
	}
}

// readLine returns a copy of the next line without its end. The last line comes
// with io.EOF.
func readLine(b *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := b.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLineBytes {
			return nil, fmt.Errorf("longer than a record may be (%d bytes)", maxLineBytes)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		return bytes.TrimSuffix(line, []byte("\r")), err
	}
}

// keyer finds the partition key of a record.
type keyer struct {
	fixed string
	query *gojq.Code
}

func newKeyer(fixed, query string) (*keyer, error) {
	if query == "" {
		return &keyer{fixed: fixed}, nil
	}
	if fixed != "" {
		return nil, errors.New("give --key or --key-from, not both")
	}
	code, err := compileQuery(query)
	if err != nil {
		return nil, fmt.Errorf("--key-from: %w", err)
	}
	return &keyer{query: code}, nil
}

func (k *keyer) of(data []byte) (string, error) {
	if k.query == nil {
		if k.fixed != "" {
			return k.fixed, nil
		}
		return rand.Text(), nil
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return "", fmt.Errorf("--key-from needs JSON records: %w", err)
	}
	found, _ := k.query.Run(v).Next()
	switch value := found.(type) {
	case error:
		return "", value
	case string:
		if value != "" {
			return value, nil
		}
	case nil:
	default:
		text, err := json.Marshal(value)
		return string(text), err
	}
	return "", errors.New("--key-from finds no key in the record")
}

func compileQuery(text string) (*gojq.Code, error) {
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return code, nil
}
