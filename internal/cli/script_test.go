package cli

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// TestScripts runs the commands against real servers; see testkit.Scripts for
// the language.
func TestScripts(t *testing.T) { testkit.Scripts(t, "testdata/*.txt", execute) }

// execute runs a command line as the program does.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{Use: "millrace", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands()...)
	Tidy(root)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "millrace: %v\n", err)
		return 1
	}
	return 0
}
