package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/client"
)

func exportCommand() *cobra.Command {
	c := &connection{}
	var from, output string
	cmd := &cobra.Command{
		Use:   "export STREAM",
		Short: "Write a stream's records as JSON lines",
		Long: `Write the records that are in a stream now as JSON lines, which import reads.
Shards follow each other, parents before their children, so that the records of
one partition key stay in order. Records that arrive meanwhile are left out.`,
		Example: "  millrace export orders --output orders.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) (err error) {
			position, err := parsePosition(from, time.Now())
			if err != nil {
				return err
			}
			if position.sequence != "" {
				return errors.New("export reads all shards: a sequence number belongs to one")
			}
			if _, err := describe(ctx, cl, args[0]); err != nil { // before a file is made
				return err
			}
			w := cmd.OutOrStdout()
			if output != "" && output != "-" {
				f, err := os.Create(output)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
				w = f
			}
			buffered := bufio.NewWriterSize(w, 1<<20)
			bar := newProgress(cmd.ErrOrStderr(), -1, "export")
			defer bar.finish()
			n, err := export(ctx, cl, args[0], position, buffered, bar)
			if err != nil {
				return err
			}
			if err := buffered.Flush(); err != nil {
				return err
			}
			bar.finish()
			fmt.Fprintf(cmd.ErrOrStderr(), "%d records exported from %s\n", n, args[0])
			return nil
		}),
	}
	c.register(cmd)
	cmd.Flags().StringVar(&from, "from", "trim", "where to begin: trim, a duration back from now, or a time")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default standard output)")
	return cmd
}

func export(ctx context.Context, cl *client.Client, stream string, from startingPosition, w io.Writer, bar *progress) (int, error) {
	shards, err := listShards(ctx, cl, stream)
	if err != nil {
		return 0, err
	}
	until := time.Now()
	total := 0
	// Shard ids grow with time, so their order puts parents first.
	for _, s := range shards {
		r := &shardReader{client: cl, stream: stream, shard: *s.ShardId, position: from}
	pages:
		for !r.done {
			records, behind, err := r.next(ctx)
			if err != nil {
				return total, err
			}
			for i := range records {
				if records[i].ApproximateArrivalTimestamp.After(until) {
					break pages
				}
				if err := writeLine(w, newLine(r.shard, &records[i], api.Val(records[i].PartitionKey), records[i].Data)); err != nil {
					return total, err
				}
				total++
				bar.add(len(records[i].Data))
			}
			if len(records) == 0 && behind == 0 && s.SequenceNumberRange.EndingSequenceNumber == nil {
				break
			}
		}
	}
	return total, nil
}

func importCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use:   "import STREAM [FILE]",
		Short: "Put exported JSON lines into a stream",
		Long: `Put records into a stream from JSON lines as export writes them: partitionKey,
and data or dataBase64; explicitHashKey is heeded, everything else ignored.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			var in io.Reader
			name, size := "standard input", int64(-1)
			if len(args) == 1 || args[1] == "-" {
				in, size = input(ctx, cmd, "every line is a record as export writes it")
			} else {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				in, name, size = f, args[1], fileSize(f)
			}
			bar := newProgress(cmd.ErrOrStderr(), size, "import")
			defer bar.finish()
			total := 0
			s := &sender{client: cl, stream: args[0], sent: func(records, _ int) { total += records }}
			err := eachImportLine(in, name, func(l *line, size int) error {
				data, err := l.bytes()
				if err != nil {
					return err
				}
				bar.add(size)
				return s.add(ctx, l.PartitionKey, l.ExplicitHashKey, data)
			})
			err = s.finish(ctx, err)
			bar.finish()
			if err != nil {
				return fmt.Errorf("after %d records: %w", total, err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d records imported into %s\n", total, args[0])
			return nil
		}),
	}
	c.register(cmd)
	return cmd
}

// maxImportLine leaves room for a record of the largest size, escaped.
const maxImportLine = 6*maxLineBytes + 4096

func eachImportLine(r io.Reader, name string, f func(l *line, size int) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxImportLine)
	n := 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("%s, line %d: not a line that export writes: %w", name, n, err)
		}
		if err := f(&l, len(lines.Bytes())+1); err != nil {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s, line %d: %w", name, n+1, err)
	}
	return nil
}

func (l *line) bytes() ([]byte, error) {
	if l.PartitionKey == "" {
		return nil, errors.New("partitionKey is missing")
	}
	switch {
	case l.Data != nil && l.DataBase64 != nil:
		return nil, errors.New("data and dataBase64 are both there")
	case l.Data != nil:
		return []byte(*l.Data), nil
	case l.DataBase64 != nil:
		data, err := base64.StdEncoding.DecodeString(*l.DataBase64)
		if err != nil {
			return nil, fmt.Errorf("dataBase64: %w", err)
		}
		return data, nil
	}
	return nil, errors.New("data or dataBase64 is missing")
}
