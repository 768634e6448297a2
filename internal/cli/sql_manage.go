package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/analyticscontrol"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/wire/awsjson"
)

// document is a shape as JSON.
func document(s api.Shape) []byte { return awsjson.Append(nil, s) }

// readAtMost reads up to 16 MiB: more than any description or program has.
func readAtMost(r io.Reader, name string) ([]byte, error) {
	const most = 16 << 20
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && len(raw) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return raw, err
}

func startApplication(ctx context.Context, cl *client.Client, name string, from kinesisanalyticsv2.InputStartingPosition) error {
	a, err := waitApplication(ctx, cl, name)
	if err != nil {
		return err
	}
	in := &kinesisanalyticsv2.StartApplicationInput{ApplicationName: &name}
	if from != "" {
		in.RunConfiguration = &kinesisanalyticsv2.RunConfiguration{}
		for _, i := range a.InputDescriptions {
			in.RunConfiguration.SqlRunConfigurations = append(in.RunConfiguration.SqlRunConfigurations, kinesisanalyticsv2.SqlRunConfiguration{
				InputId: i.InputId, InputStartingPositionConfiguration: &kinesisanalyticsv2.InputStartingPositionConfiguration{InputStartingPosition: &from}})
		}
	}
	if err := cl.Call(ctx, kinesisanalyticsv2.OpStartApplication, in, nil); err != nil {
		return err
	}
	_, err = waitApplication(ctx, cl, name)
	return err
}

func stopApplication(ctx context.Context, cl *client.Client, name string) error {
	if err := cl.Call(ctx, kinesisanalyticsv2.OpStopApplication, &kinesisanalyticsv2.StopApplicationInput{ApplicationName: &name}, nil); err != nil {
		return err
	}
	_, err := waitApplication(ctx, cl, name)
	return err
}

// deleteApplication deletes an application and waits until it is gone.
func deleteApplication(ctx context.Context, cl *client.Client, a *application) error {
	name := a.name()
	if err := cl.Call(ctx, kinesisanalyticsv2.OpDeleteApplication, &kinesisanalyticsv2.DeleteApplicationInput{ApplicationName: &name, CreateTimestamp: a.CreateTimestamp}, nil); err != nil {
		return err
	}
	for {
		_, err := describeApplication(ctx, cl, name)
		if client.IsCode(err, "ResourceNotFoundException") {
			return nil
		}
		if err != nil {
			return err
		}
		if err := client.Sleep(ctx, pollInterval/4); err != nil {
			return err
		}
	}
}

// updateCode gives an application another program and waits until it has settled.
func updateCode(ctx context.Context, cl *client.Client, name, code string) (*application, error) {
	a, err := waitApplication(ctx, cl, name)
	if err != nil {
		return nil, err
	}
	in := &kinesisanalyticsv2.UpdateApplicationInput{
		ApplicationName: &name, CurrentApplicationVersionId: a.ApplicationVersionId,
		ApplicationConfigurationUpdate: &kinesisanalyticsv2.ApplicationConfigurationUpdate{
			ApplicationCodeConfigurationUpdate: &kinesisanalyticsv2.ApplicationCodeConfigurationUpdate{
				CodeContentUpdate: &kinesisanalyticsv2.CodeContentUpdate{TextContentUpdate: &code}}},
	}
	if err := cl.Call(ctx, kinesisanalyticsv2.OpUpdateApplication, in, nil); err != nil {
		return nil, err
	}
	return waitApplication(ctx, cl, name)
}

func sqlListCommand() *cobra.Command {
	c := &connection{}
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List SQL applications", Args: cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			all, err := applicationNames(ctx, cl)
			if err != nil {
				return err
			}
			type line struct {
				Name, Status string
				Version      int64
				Problem      string `json:",omitempty"`
			}
			list := []line{}
			rows := [][]string{{"NAME", "STATUS", "VERSION"}}
			troubled := false
			for _, a := range all {
				l := line{Name: api.Val(a.ApplicationName), Status: string(api.Val(a.ApplicationStatus)), Version: api.Val(a.ApplicationVersionId)}
				if l.Status == string(kinesisanalytics.ApplicationStatusRunning) {
					how, err := applicationStatus(ctx, cl, l.Name)
					if err != nil && !client.IsCode(err, "ResourceNotFoundException") { // deleted meanwhile
						return err
					}
					if err == nil && how != nil {
						l.Problem = api.Val(how.Problem)
					}
				}
				list = append(list, l)
				row := []string{l.Name, l.Status, strconv.FormatInt(l.Version, 10)}
				if l.Problem != "" {
					row = append(row, oneLine(l.Problem))
					troubled = true
				}
				rows = append(rows, row)
			}
			if troubled {
				rows[0] = append(rows[0], "HELD UP BY")
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func sqlStatusCommand() *cobra.Command {
	c := &connection{}
	var code bool
	cmd := &cobra.Command{
		Use: "status APPLICATION", Short: "Show what an application reads, runs and writes", Args: cobra.ExactArgs(1),
		Example: `  millrace sql status trades
  millrace sql status trades --code >trades.sql`,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			a, err := describeApplication(ctx, cl, args[0])
			if err != nil {
				return err
			}
			text := api.Val(a.ApplicationCode)
			if code {
				if text != "" && !strings.HasSuffix(text, "\n") {
					text += "\n"
				}
				_, err := io.WriteString(cmd.OutOrStdout(), text)
				return err
			}
			d, err := a.definition()
			if err != nil {
				return err
			}
			rows := [][]string{{"status", string(*a.ApplicationStatus)}, {"version", strconv.FormatInt(api.Val(a.ApplicationVersionId), 10)}}
			format := func(csv bool) string {
				if csv {
					return "CSV"
				}
				return "JSON"
			}
			how, err := applicationStatus(ctx, cl, args[0])
			if err != nil {
				return err
			}
			rows = append(rows, how.rows()...)
			for _, in := range d.Inputs {
				row := fmt.Sprintf("%s from %s, %s of %s", strings.Join(in.Streams, ", "), resourceName(in.Source), format(in.Format.CSV), counted(len(in.Format.Columns), "column"))
				if in.Processor != nil {
					row += ", through " + resourceName(*in.Processor)
				}
				rows = append(rows, []string{"input", row})
			}
			for _, r := range d.References {
				rows = append(rows, []string{"reference", fmt.Sprintf("%s from s3://%s/%s", r.Table, r.Bucket, r.Key)})
			}
			if program, err := d.Compile(); err == nil {
				for _, p := range program.Pumps {
					row := p.Name + " into " + p.Target.Name
					if p.Stopped {
						row += ", stopped"
					}
					rows = append(rows, []string{"pump", row})
				}
			}
			for _, o := range d.Outputs {
				rows = append(rows, []string{"output", fmt.Sprintf("%s to %s, %s", o.Stream, resourceName(o.Destination), format(o.CSV))})
			}
			for _, l := range a.CloudWatchLoggingOptionDescriptions {
				group, stream := logStream(api.Val(l.LogStreamARN))
				rows = append(rows, []string{"log", group + " " + stream})
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	cmd.Flags().BoolVar(&code, "code", false, "print the program, and nothing else")
	return cmd
}

// howItDoes is what a server tells of an application beyond the service's API.
type howItDoes struct {
	analyticscontrol.GetApplicationStatusOutput
}

// applicationStatus asks how an application does; nil if the server has no word
// for it.
func applicationStatus(ctx context.Context, cl *client.Client, name string) (*howItDoes, error) {
	h := &howItDoes{}
	err := cl.Call(ctx, analyticscontrol.OpGetApplicationStatus, &analyticscontrol.GetApplicationStatusInput{ApplicationName: &name}, &h.GetApplicationStatusOutput)
	switch {
	case client.IsCode(err, "UnknownOperationException"):
		return nil, nil
	case client.IsCode(err, "AccessDeniedException"):
		return nil, nil // describing it is another permission
	}
	return h, applicationHint(err)
}

// rows are the lines of status.
func (h *howItDoes) rows() [][]string {
	if h == nil || api.Val(h.ApplicationStatus) != string(kinesisanalytics.ApplicationStatusRunning) {
		return nil
	}
	problem := oneLine(api.Val(h.Problem))
	count := fmt.Sprintf("%d in, %d out", api.Val(h.RowsIn), api.Val(h.RowsOut))
	if ms := api.Val(h.MillisBehindLatest); ms > 0 {
		count += ", " + (time.Duration(ms) * time.Millisecond).String() + " behind"
	} else if problem == "" {
		count += ", nothing left to read"
	}
	rows := [][]string{{"rows", count}}
	switch {
	case !api.Val(h.Runs) && problem != "":
		rows = append(rows, []string{"ended", problem})
	case problem != "":
		rows = append(rows, []string{"held up", problem})
	}
	return rows
}

// oneLine is a text for a cell of a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// logStream takes the ARN of a log stream apart.
func logStream(arn string) (group, stream string) {
	_, rest, _ := strings.Cut(arn, ":log-group:")
	group, stream, _ = strings.Cut(rest, ":log-stream:")
	return group, stream
}

func sqlStartCommand() *cobra.Command {
	c := &connection{}
	var from string
	cmd := &cobra.Command{
		Use: "start APPLICATION", Short: "Start an application and wait until it runs", Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			position, ok := map[string]kinesisanalyticsv2.InputStartingPosition{
				"": "", "now": kinesisanalyticsv2.InputStartingPositionNow, "trim": kinesisanalyticsv2.InputStartingPositionTrimHorizon,
				"stopped": kinesisanalyticsv2.InputStartingPositionLastStoppedPoint,
			}[from]
			if !ok {
				return fmt.Errorf("--from %q is neither now, trim nor stopped", from)
			}
			if err := startApplication(ctx, cl, args[0], position); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "started %s\n", args[0])
			return nil
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	cmd.Flags().StringVar(&from, "from", "", "where to begin: now, trim (the oldest record), or stopped (where it was stopped; the default, and now at the first start)")
	return cmd
}

func sqlStopCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use: "stop APPLICATION", Short: "Stop an application and wait until it is READY", Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if err := stopApplication(ctx, cl, args[0]); err != nil {
				return applicationHint(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "stopped %s\n", args[0])
			return nil
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	return cmd
}

func sqlDeleteCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use: "delete APPLICATION", Short: "Delete an application and its state, and wait until it is gone", Args: cobra.ExactArgs(1),
		Long: `Delete an application and its state. The streams that it reads and writes stay.`,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			a, err := describeApplication(ctx, cl, args[0])
			if err != nil {
				return err
			}
			if err := deleteApplication(ctx, cl, a); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", args[0])
			return nil
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	return cmd
}

func sqlLogsCommand() *cobra.Command {
	c := &connection{}
	l := &logReader{}
	cmd := &cobra.Command{
		Use: "logs APPLICATION", Short: "Print what keeps an application from reading or delivering", Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			a, err := describeApplication(ctx, cl, args[0])
			if err != nil {
				return err
			}
			if len(a.CloudWatchLoggingOptionDescriptions) == 0 {
				return fmt.Errorf("%s does not log: it has no CloudWatch logging option; `millrace sql status %s` shows what holds it up", args[0], args[0])
			}
			group, _ := logStream(api.Val(a.CloudWatchLoggingOptionDescriptions[0].LogStreamARN))
			return l.print(ctx, cl, cmd, group)
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	l.register(cmd)
	return cmd
}

func sqlEditCommand() *cobra.Command {
	c := &connection{}
	var file string
	var dryRun, extensions bool
	cmd := &cobra.Command{
		Use: "edit APPLICATION", Short: "Change the program of an application, and say what goes on with its state",
		Long: `Change the program of an application: by a file, or in the editor that VISUAL or
EDITOR names, or vi. The program is checked before it is sent, and what is wrong is shown
with a caret. A running application goes on: pumps that mean the same as before
keep their windows, others begin anew.`,
		Example: `  millrace sql edit trades
  millrace sql edit trades --file trades.sql --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			a, err := describeApplication(ctx, cl, args[0])
			if err != nil {
				return err
			}
			before, err := a.definition()
			if err != nil {
				return err
			}
			after := *before
			shown := file
			if file == "" {
				if after.Code, shown, err = edited(ctx, cmd, before); err != nil {
					return err
				}
			} else {
				raw, err := readFile(cmd, file)
				if err != nil {
					return err
				}
				after.Code = string(raw)
			}
			if after.Code == before.Code {
				if file == "" {
					os.Remove(shown)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s has this program already\n", args[0])
				return nil
			}
			program, err := compileApplication(cmd, &after, shown)
			if err != nil {
				if file == "" {
					return advise(err, "the text is kept: `millrace sql edit "+args[0]+" --file "+shown+"` sends it")
				}
				return err
			}
			kept := fate(before, program)
			running := *a.ApplicationStatus == kinesisanalytics.ApplicationStatusRunning
			if dryRun {
				fmt.Fprintf(cmd.OutOrStdout(), "%s would have version %d\n", args[0], api.Val(a.ApplicationVersionId)+1)
			} else {
				if extensions {
					if err := cl.Call(ctx, kinesisanalyticsv2.OpTagResource, &kinesisanalyticsv2.TagResourceInput{ResourceARN: a.ApplicationARN,
						Tags: []kinesisanalyticsv2.Tag{{Key: api.Ptr("millrace:sql-extensions"), Value: api.Ptr("on")}}}, nil); err != nil {
						return err
					}
				}
				now, err := updateCode(ctx, cl, args[0], after.Code)
				if client.IsCode(err, "CodeValidationException") && strings.Contains(err.Error(), "additions to the dialect") {
					err = advise(err, "--extensions does")
				}
				if err != nil {
					return err
				}
				if file == "" {
					os.Remove(shown)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s has version %d and is %s\n", args[0], api.Val(now.ApplicationVersionId), *now.ApplicationStatus)
			}
			for _, line := range kept {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			if !running {
				fmt.Fprintf(cmd.ErrOrStderr(), "`millrace sql start %s` runs it\n", args[0])
			}
			return nil
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the program; - is standard input")
	cmd.Flags().BoolVar(&extensions, "extensions", false, "let the application use what is not part of the original dialect, by its tag millrace:sql-extensions=on")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the program and say what would happen to state, and change nothing")
	return cmd
}

// edited lets the user change a program, and returns it and the file it is in.
func edited(ctx context.Context, cmd *cobra.Command, d *app.Application) (code, file string, err error) {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if f, ok := cmd.InOrStdin().(*os.File); editor == "" && ok && term.IsTerminal(int(f.Fd())) {
		editor, _ = exec.LookPath("vi")
	}
	if editor == "" {
		return "", "", errors.New("neither VISUAL nor EDITOR names an editor; give the program with --file")
	}
	f, err := os.CreateTemp("", filepath.Base(d.Name)+"-*.sql")
	if err != nil {
		return "", "", err
	}
	if _, err := f.WriteString(d.Code); err != nil {
		return "", "", err
	}
	if err := f.Close(); err != nil {
		return "", "", err
	}
	words := strings.Fields(editor)
	run := exec.CommandContext(ctx, words[0], append(words[1:], f.Name())...)
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return "", "", fmt.Errorf("the editor %s: %w; the program is in %s", words[0], err, f.Name())
	}
	raw, err := os.ReadFile(f.Name())
	return string(raw), f.Name(), err
}

// fate says of each pump what becomes of its state when a program is replaced.
func fate(before *app.Application, after *plan.Program) []string {
	old := map[string]string{}
	if program, err := before.Compile(); err == nil {
		for _, p := range program.Pumps {
			old[p.Name] = p.Text
		}
	}
	var lines []string
	for _, p := range after.Pumps {
		text, was := old[p.Name]
		delete(old, p.Name)
		switch {
		case !was:
			lines = append(lines, "pump "+p.Name+" is new")
		case text == p.Text:
			lines = append(lines, "pump "+p.Name+" goes on with its state")
		default:
			lines = append(lines, "pump "+p.Name+" has changed and begins anew")
		}
	}
	if program, err := before.Compile(); err == nil {
		for _, p := range program.Pumps {
			if _, gone := old[p.Name]; gone {
				lines = append(lines, "pump "+p.Name+" is gone")
			}
		}
	}
	return lines
}

func sqlTailCommand() *cobra.Command {
	c := &connection{}
	var from, output, filter string
	var noFollow, asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use: "tail APPLICATION", Short: "Follow the rows that an application writes to data streams",
		Long: `Print the rows that an application delivers to data streams, and wait for more until
interrupted. With several outputs each row is led by the name of its stream in
the application. Rows that go to delivery streams and functions are theirs.`,
		Example: `  millrace sql tail trades
  millrace sql tail trades --output PER_MINUTE --from 15m --no-follow`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			position, err := parsePosition(from, time.Now())
			if err != nil {
				return err
			}
			if position.sequence != "" {
				return errors.New("--from is trim, latest, a duration or a time")
			}
			a, err := describeApplication(ctx, cl, args[0])
			if err != nil {
				return err
			}
			d, err := a.definition()
			if err != nil {
				return err
			}
			var chosen []app.Output
			for _, o := range d.Outputs {
				if o.Destination.Kind == app.DataStream && (output == "" || o.Stream == output) {
					chosen = append(chosen, o)
				}
			}
			if chosen == nil && output != "" {
				return fmt.Errorf("%s delivers no stream %s to a data stream; `millrace sql status %s` shows its outputs", args[0], output, args[0])
			}
			if chosen == nil {
				return fmt.Errorf("%s has no output to a data stream; `millrace sql status %s` shows what it has", args[0], args[0])
			}
			if status := *a.ApplicationStatus; !noFollow && status == kinesisanalytics.ApplicationStatusReady {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is %s: `millrace sql start %s` runs it\n", args[0], status, args[0])
			}
			out := &lockedWriter{w: cmd.OutOrStdout()}
			group, ctx := errgroup.WithContext(ctx)
			for _, o := range chosen {
				p := &printer{w: out, remarks: cmd.ErrOrStderr(), raw: !asJSON, asJSON: asJSON, limit: limit}
				if filter != "" {
					if p.filter, err = compileQuery(filter); err != nil {
						return fmt.Errorf("--jq: %w", err)
					}
				}
				p.w = &leadWriter{w: out, trim: !asJSON}
				if len(chosen) > 1 && !asJSON {
					p.w = &leadWriter{w: out, lead: o.Stream + " ", trim: true}
				}
				group.Go(func() error { return tail(ctx, cl, shortName(o.Destination), "", position, !noFollow, p) })
			}
			err = group.Wait()
			if errors.Is(err, errLimit) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeApplication
	f := cmd.Flags()
	f.StringVar(&from, "from", "latest", "where to begin: trim, latest, a duration back from now, or a time")
	f.StringVar(&output, "output", "", "the rows of this stream of the application only")
	f.BoolVar(&noFollow, "no-follow", false, "stop at the newest row")
	f.IntVarP(&limit, "limit", "n", 0, "stop after so many rows")
	f.StringVar(&filter, "jq", "", "jq expression that selects and reshapes rows")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a record, with its metadata")
	return cmd
}

// lockedWriter lets several printers write whole lines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// leadWriter leads lines with a name. A record that ends with a newline of its own
// stays one line.
type leadWriter struct {
	w    io.Writer
	lead string
	trim bool
}

func (l *leadWriter) Write(p []byte) (int, error) {
	text := string(p)
	if l.trim {
		text = strings.TrimRight(text, "\n") + "\n"
	}
	if _, err := io.WriteString(l.w, l.lead+text); err != nil {
		return 0, err
	}
	return len(p), nil
}
