package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/config"
)

func newConfig() *cobra.Command {
	var sample, reference bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the settings in force and where each comes from",
		Long: `Print the settings that serve would use with the same flags, environment and
file, each with where its value comes from. Nothing is started.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case sample:
				fmt.Fprint(cmd.OutOrStdout(), config.Sample())
				return nil
			case reference:
				fmt.Fprint(cmd.OutOrStdout(), config.Reference())
				return nil
			}
			loaded, err := config.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return loaded.Print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&sample, "sample", false, "print a settings file with all defaults instead")
	cmd.Flags().BoolVar(&reference, "reference", false, "print the documentation of all settings instead")
	config.AddFlags(cmd.Flags())
	return cmd
}
