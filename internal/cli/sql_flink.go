package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/flink"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

func sqlFlinkCommand() *cobra.Command {
	var s sources
	var output string
	var strict bool
	cmd := &cobra.Command{
		Use: "to-flink FILE", Short: "Translate a program, or a whole application, into Flink SQL",
		Long: `Translate into Flink SQL: a program, whose inputs --schema or --input describe as for
"millrace sql check", or what describe-application has printed (a file that ends in
.json), with inputs, outputs and reference data.

The script goes to standard output. What has no counterpart in Flink, and what means
something else there, is told on standard error with its place, and stands in the
first lines of the script too.`,
		Example: `  millrace sql to-flink trades.json >trades.flink.sql
  millrace sql to-flink per-minute.sql --input trades.jsonl --strict`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := args[0]
			raw, err := readFile(cmd, file)
			if err != nil {
				return err
			}
			var list []*app.Application
			if strings.HasSuffix(file, ".json") {
				all, err := parseApplications(raw, nil)
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				for _, a := range all {
					d, err := a.definition()
					if err != nil {
						return fmt.Errorf("%s: %w", file, err)
					}
					list = append(list, d)
				}
			} else {
				d, err := s.application(cmd, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), string(raw))
				if err != nil {
					return err
				}
				list = append(list, d)
			}
			var out bytes.Buffer
			missing := 0
			for i, d := range list {
				shown := file
				if strings.HasSuffix(file, ".json") {
					shown = d.Name
				}
				if _, err := compileApplication(cmd, d, shown); err != nil {
					return err
				}
				script, err := flink.Translate(d)
				if err != nil {
					return err
				}
				if i > 0 {
					out.WriteString("\n")
				}
				out.WriteString(script.SQL)
				missing += script.Missing()
				for _, n := range script.Notes {
					word := "differs"
					if n.Missing {
						word = "missing"
					}
					place := shown
					if n.Line > 0 {
						place = fmt.Sprintf("%s:%d:%d", shown, n.Line, n.Column)
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s: %s: %s\n", place, word, n.What, n.Text)
				}
			}
			w := cmd.OutOrStdout()
			if output != "" {
				if err := os.WriteFile(output, out.Bytes(), 0o644); err != nil {
					return err
				}
			} else if _, err := io.Copy(w, &out); err != nil {
				return err
			}
			if missing > 0 {
				text := fmt.Sprintf("%s of %s not translated", counted(missing, "construct"), file)
				if strict {
					return fmt.Errorf("%s", text)
				}
				fmt.Fprintln(cmd.ErrOrStderr(), text)
			}
			return nil
		},
	}
	s.register(cmd)
	cmd.Flags().StringVarP(&output, "out", "o", "", "file for the script (default standard output)")
	cmd.Flags().BoolVar(&strict, "strict", false, "fail if anything is not translated")
	return cmd
}

// application makes an application of a program and its described inputs, with
// outputs left to the program.
func (s *sources) application(cmd *cobra.Command, name, code string) (*app.Application, error) {
	if err := s.open(cmd); err != nil {
		return nil, err
	}
	d := &app.Application{Name: name, Code: code, Extensions: s.extensions}
	for _, stream := range s.names {
		d.Inputs = append(d.Inputs, app.Input{Streams: []string{stream}, Format: s.formats[stream]})
	}
	for _, r := range s.schemas.Reference {
		ref := app.Reference{Table: r.Table, Format: run.Format{CSV: r.Format == "CSV", RowDelimiter: r.RowDelimiter, ColumnDelimiter: r.ColumnDelimiter}}
		for _, col := range r.Columns {
			t, err := sql.ParseType(col.Type)
			if err != nil {
				return nil, fmt.Errorf("%s: column %s: %w", s.schema, col.Name, err)
			}
			ref.Format.Columns = append(ref.Format.Columns, run.SourceColumn{Name: col.Name, Type: t, Mapping: col.Mapping})
		}
		d.References = append(d.References, ref)
	}
	return d, nil
}
