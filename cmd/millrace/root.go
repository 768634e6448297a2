package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/cli"
	"github.com/millrace/millrace/internal/config"
)

// newRoot lists every command; a new one is a constructor in its own file and a
// line here.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "millrace",
		Short:         "A durable server for applications written for Kinesis",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddGroup(&cobra.Group{ID: "server", Title: "The server:"}, &cobra.Group{ID: "client", Title: "Calls of a running server:"})
	root.AddCommand(
		newServe(),
		newConfig(),
		newHealth(),
		newCA(),
		newVersion(),
		newVerify(),
		newBackup(),
		newRestore(),
		newMan(),
	)
	for _, cmd := range root.Commands() {
		if name := cmd.Name(); name != "man" && name != "version" {
			cmd.GroupID = "server"
		}
	}
	for _, cmd := range cli.Commands() {
		cmd.GroupID = "client"
		root.AddCommand(cmd)
	}
	cli.Tidy(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		const unknown = "unknown flag: --"
		if name, ok := strings.CutPrefix(err.Error(), unknown); ok && cmd.Flags().Lookup("config") != nil {
			return fmt.Errorf("%w%s", err, config.DidYouMean(name))
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	return root
}

// run executes a command line and returns the exit code. Errors are one line on
// standard error.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return runWith(ctx, args, os.Stdin, stdout, stderr)
}

func runWith(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetIn(stdin)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	fmt.Fprintf(stderr, "millrace: %v\n", err)
	return 1
}

// exitCode ends the process with a code and says nothing.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }
