package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
)

func newVerify() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read a whole data directory and check it, while no server runs on it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return server.VerifyDirectory(cmd.Context(), data, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&data, "data", config.Default().Data, "data directory")
	return cmd
}

func newBackup() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "backup DIRECTORY",
		Short: "Copy a data directory to a new one and verify the copy",
		Long: `Copy a data directory to a new one and verify the copy. No server may run on
it meanwhile. A snapshot of the file system is a backup as well, also of a
running server: what it holds is what a power failure would have left, and
opens like that.

The copy holds the master key and the certificate authority's key: keep it as
safe as the original.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := server.CopyDirectory(cmd.Context(), data, args[0], cmd.OutOrStdout()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "backed up %s to %s\n", data, args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", config.Default().Data, "data directory")
	return cmd
}

func newRestore() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make a data directory from a backup",
		Long:  "Copy a backup to a data directory, which must not exist yet or be empty, and verify it.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := server.CopyDirectory(cmd.Context(), args[0], data, cmd.OutOrStdout()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "restored %s to %s\n", args[0], data)
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", config.Default().Data, "data directory")
	return cmd
}
