package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api/kinesis"
)

// completionTimeout is how long a shell waits for names before it does without.
const completionTimeout = time.Second

// completeStream lets shells complete the first argument from the streams there
// are. Without a server that answers there is nothing to complete.
func (c *connection) completeStream(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	cl, err := c.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	out := &kinesis.ListStreamsOutput{}
	if err := cl.Call(ctx, kinesis.OpListStreams, &kinesis.ListStreamsInput{}, out); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := slices.DeleteFunc(out.StreamNames, func(name string) bool { return !strings.HasPrefix(name, begun) })
	return names, cobra.ShellCompDirectiveNoFileComp
}
