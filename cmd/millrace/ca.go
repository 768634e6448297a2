package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/certs"
	"github.com/millrace/millrace/internal/config"
)

func newCA() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate that TLS clients must trust",
		Long: `Print the certificate of the server's own authority in PEM. Clients that are told
to trust it accept the server's certificate:

  millrace ca --out ca.pem
  export AWS_CA_BUNDLE=$PWD/ca.pem          # AWS CLI, boto3, Go
  export NODE_EXTRA_CA_CERTS=$PWD/ca.pem    # JavaScript
  keytool -importcert -noprompt -alias millrace -file ca.pem -cacerts    # Java

The authority is made when a data directory is first used, by serve or by this
command.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			if loaded.Ephemeral {
				return errors.New("an ephemeral server keeps its authority in memory; use a data directory, or set tls-cert")
			}
			dir := filepath.Join(loaded.DataPath(), certs.Directory)
			pem, err := certs.ReadPEM(dir)
			if errors.Is(err, fs.ErrNotExist) {
				var a *certs.Authority
				if a, err = certs.Open(dir, nil, nil); err == nil {
					pem = a.PEM()
				}
			}
			if err != nil {
				return err
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(pem)
				return err
			}
			if err := os.WriteFile(out, pem, 0o644); err != nil {
				return fmt.Errorf("write the certificate: %w", err)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "written to", out)
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to a file instead of standard output")
	config.AddFlags(cmd.Flags())
	return cmd
}
