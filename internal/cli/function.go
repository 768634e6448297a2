package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/client"
)

func functionCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use:   "function",
		Short: "Call functions, and read what they print",
		Long: `Functions transform the records of delivery streams. They are directories below the
server's setting functions, each with a bootstrap, a lambda_function.py or an
index.mjs, or entries of functions.yaml there; whoever runs the server puts them
there.`,
	}
	c.register(cmd)
	cmd.AddCommand(functionList(c), functionInvoke(c), functionLogs(c))
	cmd.ValidArgsFunction = nil
	for _, sub := range cmd.Commands() {
		sub.ValidArgsFunction = cobra.NoFileCompletions
	}
	return cmd
}

// lambdaPath is where the API of functions begins.
const lambdaPath = "/2015-03-31/functions"

// functionInfo is a function as ListFunctions shows it.
type functionInfo struct {
	FunctionName, FunctionArn, Runtime, Handler, Description, State, StateReason, LastModified string
	Timeout, MemorySize                                                                        int
}

func functionList(c *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List functions",
		Args:  cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			all := []functionInfo{}
			for marker := ""; ; {
				target := lambdaPath
				if marker != "" {
					target += "?Marker=" + url.QueryEscape(marker)
				}
				reply, err := cl.Send(ctx, "lambda", http.MethodGet, target, nil, nil)
				if err != nil {
					return err
				}
				var page struct {
					Functions  []functionInfo
					NextMarker string
				}
				if err := json.Unmarshal(reply.Body, &page); err != nil {
					return fmt.Errorf("read the list of functions: %w", err)
				}
				all = append(all, page.Functions...)
				if marker = page.NextMarker; marker == "" {
					break
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			rows := [][]string{{"NAME", "RUNTIME", "HANDLER", "TIMEOUT", "MEMORY", "STATE"}}
			for _, f := range all {
				state := f.State
				if f.StateReason != "" {
					state += ": " + f.StateReason
				}
				memory := "-"
				if f.MemorySize > 0 {
					memory = strconv.Itoa(f.MemorySize) + " MB"
				}
				rows = append(rows, []string{f.FunctionName, dash(f.Runtime), dash(f.Handler), strconv.Itoa(f.Timeout) + "s", memory, state})
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func functionInvoke(c *connection) *cobra.Command {
	var file string
	var event, dryRun, quiet bool
	cmd := &cobra.Command{
		Use:   "invoke NAME [EVENT]",
		Short: "Call a function and print its answer",
		Long: `Call a function with an event, a JSON document: the argument, a file, or {}. The
answer goes to standard output, the end of the function's log to standard error.
A function that fails makes the command fail, with the description of the error
on standard output.`,
		Example: `  millrace function invoke enrich '{"records":[]}'
  millrace function invoke enrich --file event.json --quiet | jq .`,
		Args: cobra.RangeArgs(1, 2),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			payload := []byte("{}")
			switch {
			case len(args) == 2 && file != "":
				return errors.New("give EVENT or --file, not both")
			case len(args) == 2:
				payload = []byte(args[1])
			case file == "-":
				in, _ := input(ctx, cmd, "reading an event")
				var err error
				if payload, err = io.ReadAll(io.LimitReader(in, 8<<20)); err != nil {
					return err
				}
			case file != "":
				var err error
				if payload, err = os.ReadFile(file); err != nil {
					return err
				}
			}
			header := http.Header{"Content-Type": {"application/json"}}
			switch {
			case dryRun && event:
				return errors.New("give --dry-run or --event, not both")
			case dryRun:
				header.Set("X-Amz-Invocation-Type", "DryRun")
			case event:
				header.Set("X-Amz-Invocation-Type", "Event")
			case !quiet:
				header.Set("X-Amz-Log-Type", "Tail")
			}
			reply, err := cl.Send(ctx, "lambda", http.MethodPost, lambdaPath+"/"+url.PathEscape(args[0])+"/invocations", header, payload)
			if err != nil {
				if client.IsCode(err, "ResourceNotFoundException") {
					return advise(err, "`millrace function list` shows what there is")
				}
				return err
			}
			switch {
			case dryRun:
				fmt.Fprintf(cmd.ErrOrStderr(), "%s can be called\n", args[0])
				return nil
			case event:
				fmt.Fprintf(cmd.ErrOrStderr(), "%s will be called\n", args[0])
				return nil
			}
			if log, err := base64.StdEncoding.DecodeString(reply.Header.Get("X-Amz-Log-Result")); err == nil && !quiet {
				_, _ = cmd.ErrOrStderr().Write(log) // remarks only
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", reply.Body); err != nil {
				return err
			}
			if kind := reply.Header.Get("X-Amz-Function-Error"); kind != "" {
				return fmt.Errorf("the function failed: %s", kind)
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the event; - is standard input")
	cmd.Flags().BoolVar(&event, "event", false, "do not wait for the answer")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only find out whether the function could be called")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave the log out")
	return cmd
}

func functionLogs(c *connection) *cobra.Command {
	l := &logReader{}
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a function has printed",
		Example: `  millrace function logs enrich --since 10m
  millrace function logs enrich --filter '?ERROR ?WARN' --follow`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			return l.print(ctx, cl, cmd, "/aws/lambda/"+args[0])
		}),
	}
	l.register(cmd)
	return cmd
}

// logReader prints a log group.
type logReader struct {
	since  time.Duration
	filter string
	follow bool
	times  bool
}

func (l *logReader) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&l.since, "since", time.Hour, "how far back to begin")
	cmd.Flags().StringVar(&l.filter, "filter", "", "filter pattern of CloudWatch Logs: terms, \"phrases\", ?either ?or, -not, { $.selector = value }")
	cmd.Flags().BoolVar(&l.follow, "follow", false, "go on with what comes")
	cmd.Flags().BoolVar(&l.times, "times", false, "lead lines with their time")
}

func (l *logReader) print(ctx context.Context, cl *client.Client, cmd *cobra.Command, group string) error {
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group, StartTime: api.Ptr(time.Now().Add(-l.since).UnixMilli())}
	if l.filter != "" {
		in.FilterPattern = &l.filter
	}
	seen := map[string]bool{} // at the newest time that has been printed
	newest := int64(0)
	for {
		out := &cloudwatchlogs.FilterLogEventsOutput{}
		err := cl.Call(ctx, cloudwatchlogs.OpFilterLogEvents, in, out)
		switch {
		case client.IsCode(err, "ResourceNotFoundException") && l.follow:
			out.Events = nil
		case client.IsCode(err, "ResourceNotFoundException"):
			return fmt.Errorf("nothing has been logged in %s", group)
		case err != nil:
			return err
		}
		for _, e := range out.Events {
			if seen[*e.EventId] {
				continue
			}
			if *e.Timestamp > newest {
				newest = *e.Timestamp
			}
			seen[*e.EventId] = true
			if l.times {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  ", time.UnixMilli(*e.Timestamp).UTC().Format("2006-01-02T15:04:05.000Z"))
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), *e.Message); err != nil {
				return err
			}
		}
		if in.NextToken = out.NextToken; in.NextToken != nil {
			continue
		}
		if !l.follow {
			return nil
		}
		// The next look begins a little before the newest, for what came late.
		if newest > 0 {
			in.StartTime = api.Ptr(newest - 5000)
		}
		if len(seen) > 100_000 {
			clear(seen)
			in.StartTime = api.Ptr(newest + 1)
		}
		if err := client.Sleep(ctx, time.Second); err != nil {
			return nil
		}
	}
}
