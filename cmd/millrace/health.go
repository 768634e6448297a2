package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
)

func newHealth() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running server whether it is ready",
		Long:  `Ask the admin port whether the server is ready. Exits 0 if it is and 1 if not, for health checks of containers and scripts.`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			if loaded.AdminListen == "off" {
				return fmt.Errorf("the admin port is off; name it with --admin-listen")
			}
			text, err := server.CheckHealth(cmd.Context(), loaded.AdminListen)
			if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
				return fmt.Errorf("no server answers at %s: start one with `millrace serve`, or name its admin port with --admin-listen (%w)", loaded.AdminListen, dial)
			}
			if err != nil {
				return fmt.Errorf("server at %s: %w", loaded.AdminListen, err)
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
