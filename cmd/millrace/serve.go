package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server until SIGTERM or SIGINT, which lets requests in flight finish and
exits 0. A second signal ends at once. SIGHUP reopens the access log and the audit
log, for tools that rotate them.

Every setting can also be given as MILLRACE_… in the environment or in a file
(--config); millrace config prints what is in force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			s, err := server.Open(ctx, server.Options{
				Config: loaded, Version: version(), Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(),
			})
			if err != nil {
				return err
			}
			defer onHangup(func() { _ = s.Reopen() })() // failures are logged
			return s.Run(ctx)
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

// untilSignal returns a context that the first signal ends. From then on signals
// have their usual effect, so that the second one ends the process.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// onHangup calls f for every SIGHUP until the function it returns is called.
func onHangup(f func()) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for range hangups {
			f()
		}
	})
	return func() {
		signal.Stop(hangups)
		close(hangups)
		waiting.Wait()
	}
}
