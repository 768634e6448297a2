// Package cli holds the commands that talk to a running server: thin clients
// of the public API, one file a command.
//
// A command knows nothing that a user with an SDK could not know, so it works
// against any server that speaks the protocol. What a command prints for
// people goes to standard output, progress and remarks to standard error; with
// --json the output is one JSON value or one per line. Errors say what to do
// next. Start reading at Commands.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

// connection are the flags every command has that calls a server.
type connection struct {
	config  client.Config
	profile string
	timeout time.Duration
}

func (c *connection) register(cmd *cobra.Command) {
	cmd.ValidArgsFunction = c.completeStream
	f := cmd.PersistentFlags()
	f.StringVar(&c.config.Endpoint, "endpoint", "", "server to call (default $MILLRACE_ENDPOINT, $AWS_ENDPOINT_URL_KINESIS, $AWS_ENDPOINT_URL, "+client.DefaultEndpoint+")")
	f.StringVar(&c.config.Region, "region", "", "region the streams are in (default $AWS_REGION, $AWS_DEFAULT_REGION, "+client.DefaultRegion+")")
	f.StringVar(&c.profile, "profile", "", "profile of the shared credentials file (default $AWS_PROFILE)")
	f.StringVar(&c.config.CA, "ca", "", "file with the certificate to trust for https endpoints, as millrace ca prints it (default $AWS_CA_BUNDLE)")
	f.DurationVar(&c.timeout, "timeout", 0, "give up after so long (default never)")
}

func (c *connection) open() (*client.Client, error) {
	config, err := client.FromEnvironment(c.config, c.profile, os.Getenv)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "millrace-cli"
	return client.New(config)
}

// Commands returns the commands of this package, each ready to be added to the
// root command.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		streamCommand(), putCommand(), tailCommand(), shardsCommand(),
		exportCommand(), importCommand(), benchCommand(), keysCommand(), sqlCommand(),
		deliveryCommand(), functionCommand(),
	}
}

// Tidy makes a tree of commands say what it takes: a command that is called with
// too few or too many arguments how it is used, a group that is called with a
// word it does not know which one comes close.
func Tidy(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		Tidy(c)
	}
	if !cmd.HasSubCommands() {
		if check := cmd.Args; check != nil {
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return fmt.Errorf("%w; usage: %s", err, cmd.UseLine())
				}
				return nil
			}
		}
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%s; did you mean %q?", text, near[0])
		}
		return fmt.Errorf("%s; see %s --help", text, cmd.CommandPath())
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// run gives a command's body an open client that is closed behind it, and a
// context that ends when the user interrupts.
func (c *connection) run(f func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := c.open()
		if err != nil {
			return err
		}
		defer cl.Close()
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if c.timeout <= 0 {
			return explain(f(ctx, cl, cmd, args))
		}
		limited, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		err = f(limited, cl, cmd, args)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			return fmt.Errorf("not finished after %s; --timeout gives it longer", c.timeout)
		}
		return explain(err)
	}
}

// advice is an error with what to do about it.
type advice struct {
	error
	text string
}

func advise(err error, text string) error { return &advice{err, text} }

func (a *advice) Error() string { return strings.TrimSuffix(a.error.Error(), ".") + "; " + a.text }
func (a *advice) Unwrap() error { return a.error }

// hint adds to the reply that there is no such stream what a person can do.
func hint(err error, stream string) error {
	if client.IsCode(err, "ResourceNotFoundException") && strings.Contains(err.Error(), "Stream "+stream) {
		return advise(err, "`millrace stream list` shows what there is in this region, `millrace stream create "+stream+"` makes it")
	}
	return err
}

// explain adds to the refusal of a caller what a person can do about it, and
// names an interrupt.
func explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New(strings.ReplaceAll(err.Error(), context.Canceled.Error(), "interrupted"))
	case client.IsCode(err, "UnrecognizedClientException"), client.IsCode(err, "InvalidClientTokenId"),
		client.IsCode(err, "InvalidSignatureException"), client.IsCode(err, "SignatureDoesNotMatch"),
		client.IsCode(err, "MissingAuthenticationTokenException"):
		return advise(err, "the server verifies keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to one of its own, or name a --profile that has one")
	case client.IsCode(err, "AccessDeniedException"), client.IsCode(err, "AccessDenied"):
		return advise(err, "who may manage users, as the root key may, changes that with `millrace keys policy`")
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows in aligned columns.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

const pollInterval = 200 * time.Millisecond

// waitActive returns once the stream is ACTIVE.
func waitActive(ctx context.Context, cl *client.Client, name string) error {
	for {
		s, err := describe(ctx, cl, name)
		if err != nil {
			return err
		}
		if *s.StreamStatus == kinesis.StreamStatusActive {
			return nil
		}
		if err := client.Sleep(ctx, pollInterval); err != nil {
			return err
		}
	}
}

// waitGone returns once there is no stream of the name.
func waitGone(ctx context.Context, cl *client.Client, name string) error {
	for {
		_, err := describe(ctx, cl, name)
		if client.IsCode(err, "ResourceNotFoundException") {
			return nil
		}
		if err != nil {
			return err
		}
		if err := client.Sleep(ctx, pollInterval); err != nil {
			return err
		}
	}
}

func describe(ctx context.Context, cl *client.Client, name string) (*kinesis.StreamDescriptionSummary, error) {
	out := &kinesis.DescribeStreamSummaryOutput{}
	if err := cl.Call(ctx, kinesis.OpDescribeStreamSummary, &kinesis.DescribeStreamSummaryInput{StreamName: &name}, out); err != nil {
		return nil, hint(err, name)
	}
	return out.StreamDescriptionSummary, nil
}

// listShards returns all shards that are listed, by id.
func listShards(ctx context.Context, cl *client.Client, name string) ([]kinesis.Shard, error) {
	var shards []kinesis.Shard
	in := &kinesis.ListShardsInput{StreamName: &name}
	for {
		out := &kinesis.ListShardsOutput{}
		if err := cl.Call(ctx, kinesis.OpListShards, in, out); err != nil {
			return nil, hint(err, name)
		}
		shards = append(shards, out.Shards...)
		if out.NextToken == nil {
			return shards, nil
		}
		in = &kinesis.ListShardsInput{NextToken: out.NextToken}
	}
}
