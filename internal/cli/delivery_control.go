package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api"
	control "github.com/millrace/millrace/internal/api/deliverycontrol"
	"github.com/millrace/millrace/internal/client"
)

func deliveryStatus(c *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Show how far a delivery stream has got",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			out := &control.GetDeliveryStatusOutput{}
			if err := cl.Call(ctx, control.OpGetDeliveryStatus, &control.GetDeliveryStatusInput{DeliveryStreamName: &args[0]}, out); err != nil {
				return deliveryHint(err)
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return printJSON(w, out)
			}
			state := "delivering"
			switch {
			case api.Val(out.Paused):
				state = "paused"
			case api.Val(out.Stalled):
				state = "stalled: neither the destination nor the error output takes records"
			}
			rows := [][]string{
				{"state", state},
				{"version", strconv.Itoa(int(api.Val(out.Version)))},
				{"buffered", fmt.Sprintf("%s, %d bytes", plural(int(api.Val(out.BufferedRecords))), api.Val(out.BufferedBytes))},
			}
			if out.OldestRecord != nil {
				rows = append(rows, []string{"oldest", ago(*out.OldestRecord)})
			}
			if n := api.Val(out.Partitions); n > 0 {
				rows = append(rows, []string{"partitions", strconv.Itoa(int(n))})
			}
			if p := out.LastError; p != nil {
				rows = append(rows, []string{"last error", fmt.Sprintf("%s ago: %s: %s", ago(api.Val(p.At)), api.Val(p.Code), api.Val(p.Message))})
			}
			if err := table(w, rows); err != nil {
				return err
			}
			lanes := [][]string{{"LANE", "DELIVERED", "READ", "AVAILABLE"}}
			for _, l := range out.Lanes {
				lanes = append(lanes, []string{api.Val(l.Name), place(l.Delivered), place(l.Read), place(l.Available)})
			}
			fmt.Fprintln(w)
			return table(w, lanes)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// place counts the records before an index.
func place(index *int64) string { return strconv.FormatInt(max(api.Val(index)-1, 0), 10) }

func deliveryLedger(c *connection) *cobra.Command {
	var asJSON bool
	var limit int32
	cmd := &cobra.Command{
		Use:   "ledger NAME",
		Short: "List what has been delivered, latest first",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			out := &control.ListDeliveriesOutput{}
			if err := cl.Call(ctx, control.OpListDeliveries, &control.ListDeliveriesInput{DeliveryStreamName: &args[0], Limit: &limit}, out); err != nil {
				return deliveryHint(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), out.Deliveries)
			}
			rows := [][]string{{"AGE", "OUTPUT", "OUTCOME", "RECORDS", "BYTES", "ATTEMPTS", "OBJECTS"}}
			for _, d := range out.Deliveries {
				what := strings.Join(d.Objects, " ")
				if e := api.Val(d.Error); e != "" {
					what = strings.TrimSpace(what + " (" + e + ")")
				}
				records := strconv.Itoa(int(api.Val(d.Records)))
				if n := api.Val(d.Failed); n > 0 {
					records += fmt.Sprintf(" (%d failed)", n)
				}
				rows = append(rows, []string{ago(api.Val(d.At)), api.Val(d.Output), api.Val(d.Outcome), records,
					strconv.FormatInt(api.Val(d.Bytes), 10), strconv.Itoa(int(api.Val(d.Attempts))), what})
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().Int32VarP(&limit, "limit", "n", 20, "how many deliveries, at most; the latest 256 are kept")
	return cmd
}

func deliveryFlush(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "flush NAME",
		Short: "Deliver what is buffered now, and wait until that is done",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if err := cl.Call(ctx, control.OpFlushDeliveryStream, &control.FlushDeliveryStreamInput{DeliveryStreamName: &args[0]}, nil); err != nil {
				return deliveryHint(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "flushed %s\n", args[0])
			return nil
		}),
	}
}

func deliveryPause(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "pause NAME",
		Short: "Stop deliveries; records are still taken",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if err := cl.Call(ctx, control.OpPauseDeliveryStream, &control.PauseDeliveryStreamInput{DeliveryStreamName: &args[0]}, nil); err != nil {
				return deliveryHint(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "paused %s\n", args[0])
			return nil
		}),
	}
}

func deliveryResume(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "resume NAME",
		Short: "Go on with deliveries",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if err := cl.Call(ctx, control.OpResumeDeliveryStream, &control.ResumeDeliveryStreamInput{DeliveryStreamName: &args[0]}, nil); err != nil {
				return deliveryHint(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "resumed %s\n", args[0])
			return nil
		}),
	}
}

func deliveryTest(c *connection) *cobra.Command {
	var file string
	var count int
	var seed uint64
	var newline, asJSON bool
	cmd := &cobra.Command{
		Use:   "test NAME",
		Short: "Show what would become of sample records, without delivering them",
		Long: `Send sample records through a delivery stream's function, processors, partitions,
format and naming, and show what its destination and its error output would get.
Nothing is delivered, and nothing stored. The samples are the lines of a file, or
made-up stock prices.`,
		Example: `  millrace delivery test clicks
  millrace delivery test clicks --file samples.jsonl --json`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			in := &control.TestDeliveryStreamInput{DeliveryStreamName: &args[0]}
			add := func(line []byte) error {
				if len(in.Records) == maxDeliveryRecords {
					return fmt.Errorf("a test takes %d records at most", maxDeliveryRecords)
				}
				if newline {
					line = append(line, '\n')
				}
				in.Records = append(in.Records, control.Record{Data: line})
				return nil
			}
			if file != "" {
				if err := eachFileLine(file, add); err != nil {
					return err
				}
				if len(in.Records) == 0 {
					return fmt.Errorf("%s holds no records", file)
				}
			} else {
				t := newTicker(seed)
				for range count {
					if err := add(t.next()); err != nil {
						return err
					}
				}
			}
			out := &control.TestDeliveryStreamOutput{}
			if err := cl.Call(ctx, control.OpTestDeliveryStream, in, out); err != nil {
				return deliveryHint(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), out)
			}
			return printTest(cmd.OutOrStdout(), len(in.Records), out)
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file whose lines are the samples")
	cmd.Flags().IntVarP(&count, "count", "n", 5, "how many records to make up without a file")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "make up other records")
	cmd.Flags().BoolVar(&newline, "newline", false, "end every record with a newline")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with all bytes")
	return cmd
}

// printTest shows what would be delivered.
func printTest(w io.Writer, sent int, out *control.TestDeliveryStreamOutput) error {
	delivered := len(out.Records)
	for _, o := range out.Objects {
		if api.Val(o.Output) == "delivery" {
			delivered += int(api.Val(o.Records))
		}
	}
	fmt.Fprintf(w, "%s in, %d to %s, %d dropped, %d failed\n", plural(sent), delivered, api.Val(out.Destination), api.Val(out.Dropped), len(out.Failures))
	for _, o := range out.Objects {
		encoding := ""
		if o.ContentEncoding != nil {
			encoding = ", Content-Encoding " + *o.ContentEncoding
		}
		fmt.Fprintf(w, "\n%s s3://%s/%s\n  %d bytes%s\n", api.Val(o.Output), api.Val(o.Bucket), api.Val(o.Key), api.Val(o.Size), encoding)
		show(w, o.Data)
	}
	if len(out.Records) > 0 {
		fmt.Fprintln(w)
	}
	for _, r := range out.Records {
		where := ""
		if r.Partition != nil {
			where += " partition " + *r.Partition
		}
		if r.Table != nil {
			where += " " + api.Val(r.Operation) + " " + *r.Table
		}
		fmt.Fprintf(w, "record %d%s\n", api.Val(r.Index)+1, where)
		show(w, r.Data)
	}
	for _, f := range out.Failures {
		fmt.Fprintf(w, "\nrecord %d %s %s\n  %s\n", api.Val(f.Index)+1, api.Val(f.ErrorOutputType), api.Val(f.Code), api.Val(f.Message))
		show(w, f.Data)
	}
	return nil
}

// show prints the beginning of some bytes, if they are text.
func show(w io.Writer, data []byte) {
	const most = 2000
	text := string(data[:min(len(data), most)])
	for cut := 0; cut < utf8.UTFMax && !utf8.ValidString(text) && len(text) > 0 && len(data) > most; cut++ {
		text = text[:len(text)-1] // a character that was cut in two
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		fmt.Fprintln(w, "  (not text)")
		return
	}
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(w, "  "+line)
	}
	if len(data) > most {
		fmt.Fprintln(w, "  …")
	}
}

func deliveryRedrive(c *connection) *cobra.Command {
	var kind, prefix, since, until string
	var most, max int32
	var dryRun, again, asJSON bool
	cmd := &cobra.Command{
		Use:   "redrive NAME",
		Short: "Put records that failed back to the delivery stream",
		Long: `Read the objects of a delivery stream's error output and put their records back.
The objects stay. Each is put back once, unless --again is given, and the same
record at most --max-redrives times, so that records which always fail do not go
round for ever. Only delivery streams that are put to directly can be redriven.`,
		Example: `  millrace delivery redrive clicks --type processing-failed --since 24h --dry-run
  millrace delivery redrive clicks`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			in := &control.RedriveRecordsInput{DeliveryStreamName: &args[0], DryRun: &dryRun, Again: &again, MaxRedrives: &max}
			if kind != "" {
				in.ErrorOutputType = &kind
			}
			if prefix != "" {
				in.Prefix = &prefix
			}
			var err error
			if in.Since, err = moment(since); err != nil {
				return fmt.Errorf("--since: %w", err)
			}
			if in.Until, err = moment(until); err != nil {
				return fmt.Errorf("--until: %w", err)
			}
			records, skipped, objects := 0, 0, []control.Redriven{}
			for {
				in.MaxObjects = api.Ptr(int32(100))
				if most > 0 {
					in.MaxObjects = api.Ptr(min(100, most-int32(len(objects))))
				}
				out := &control.RedriveRecordsOutput{}
				if err := cl.Call(ctx, control.OpRedriveRecords, in, out); err != nil {
					return deliveryHint(err)
				}
				records += int(api.Val(out.Records))
				skipped += int(api.Val(out.Skipped))
				objects = append(objects, out.Objects...)
				if in.NextToken = out.NextToken; in.NextToken == nil || most > 0 && len(objects) >= int(most) {
					break
				}
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				for i := range objects {
					if err := e.Encode(&objects[i]); err != nil {
						return err
					}
				}
				return nil
			}
			for _, o := range objects {
				if o.Reason != nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  left: %s\n", api.Val(o.Name), *o.Reason)
					continue
				}
				note := ""
				if n := api.Val(o.Skipped); n > 0 {
					note = fmt.Sprintf(", %d left: put back %d times already", n, max)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s%s\n", api.Val(o.Name), plural(int(api.Val(o.Records))), note)
			}
			verb := "put back"
			if dryRun {
				verb = "would be put back"
			}
			what := "objects"
			if len(objects) == 1 {
				what = "object"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s of %d %s %s, %d left\n", plural(records), len(objects), what, verb, skipped)
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&kind, "type", "", "error-output-type to take: processing-failed, format-conversion-failed …")
	f.StringVar(&prefix, "prefix", "", "only objects whose keys begin so")
	f.StringVar(&since, "since", "", "only objects written since then: a duration such as 24h, or a time such as 2026-07-01T12:00:00Z")
	f.StringVar(&until, "until", "", "only objects written before then (default now)")
	f.Int32Var(&most, "objects", 0, "stop after so many objects (default all)")
	f.Int32Var(&max, "max-redrives", 3, "how often the same record is put back at most")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be put back")
	f.BoolVar(&again, "again", false, "take objects that have been put back before, too")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

// moment reads a time, or how long ago it was.
func moment(text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return api.Ptr(time.Now().Add(-d)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a duration such as 24h nor a time such as 2026-07-01T12:00:00Z", text)
	}
	return &t, nil
}
