package cli

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/client"
)

//go:embed demo/*.sql
var demoPrograms embed.FS

// demoApplications are the names of the programs, in the order in which they are
// shown, and the stream that each reads.
var demoApplications = []struct{ name, source string }{
	{"filter", "ticker"}, {"tumbling", "ticker"}, {"sliding", "ticker"}, {"top-k", "ticker"}, {"distinct", "ticker"}, {"stagger", "ticker"},
	{"partial-results", "ticker"}, {"throttled-alerts", "ticker"}, {"joined", "ticker"}, {"reference", "ticker"},
	{"sensor-windows", "sensors"}, {"anomalies", "sensors"}, {"hotspots", "sensors"},
}

const (
	demoPrefix = "demo-"
	demoBucket = "demo-reference"
	demoKey    = "sectors.csv"
	demoRole   = "millrace-sql-demo"
)

// demoColumns are the schemas of the demo streams: name, type, mapping.
var demoColumns = map[string][][3]string{
	"ticker": {
		{"TICKER_SYMBOL", "VARCHAR(4)", "$.TICKER_SYMBOL"}, {"SECTOR", "VARCHAR(16)", "$.SECTOR"}, {"CHANGE", "REAL", "$.CHANGE"},
		{"PRICE", "REAL", "$.PRICE"}, {"EVENT_TIME", "TIMESTAMP", "$.EVENT_TIME"},
	},
	"sensors": {
		{"device", "VARCHAR(16)", "$.device"}, {"zone", "VARCHAR(8)", "$.zone"}, {"reading", "DOUBLE", "$.reading"},
		{"x", "DOUBLE", "$.position.x"}, {"y", "DOUBLE", "$.position.y"}, {"measured", "TIMESTAMP", "$.measured"},
	},
}

// demo is a run of the demonstration.
type demo struct {
	rate, role  string
	ownRole     bool // nobody has named one
	length      time.Duration
	seed        uint64
	clean, json bool
	names       []string

	cmd   *cobra.Command
	cl    *client.Client
	owner string

	mu   sync.Mutex
	put  map[string]int
	apps []*demoApplication
}

// demoApplication is one application and what it has put out.
type demoApplication struct {
	name, title, source, code string

	rows    int
	latest  string
	problem string // what holds it up
}

func sqlDemoCommand() *cobra.Command {
	c := &connection{}
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo [APPLICATION...]",
		Short: "Run sample applications over made-up stock prices and sensors",
		Long: `Make two data streams, demo-ticker and demo-sensors, put made-up records into them,
and run sample applications over them: all, or those that are named. Each delivers
to a data stream with its own name. A table shows what they put out; where standard
output is no terminal, each row is a line.

Ctrl-C ends the generators; the applications stay, and "millrace sql edit", "sql
tail" and "sql status" take them further. --clean deletes at the end all that was
made; so does "millrace sql demo --for 0s --clean" later.

Applications: ` + strings.Join(demoNames(), ", ") + `.`,
		Example: `  millrace sql demo
  millrace sql demo tumbling anomalies --rate 100/s
  millrace sql demo --for 30s --seed 7 --clean`,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			d.cmd, d.cl, d.names = cmd, cl, args
			return d.run(ctx, cmd.Flags().Changed("for"))
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return slices.DeleteFunc(demoNames(), func(n string) bool { return !strings.HasPrefix(n, begun) || slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
	f := cmd.Flags()
	f.StringVar(&d.rate, "rate", "20/s", "how many records go to each stream: 20/s, 600/m")
	f.DurationVar(&d.length, "for", 0, "end after so long (default when interrupted)")
	f.Uint64Var(&d.seed, "seed", 0, "make the same records again (default by chance)")
	f.BoolVar(&d.clean, "clean", false, "at the end, delete the applications, streams and objects")
	f.BoolVar(&d.json, "json", false, "print each row as a JSON line")
	f.StringVar(&d.role, "role", "", "ARN of the role of the applications (default one that is made for it)")
	return cmd
}

func demoNames() []string {
	names := make([]string, len(demoApplications))
	for i, a := range demoApplications {
		names[i] = a.name
	}
	return names
}

func (d *demo) run(ctx context.Context, bounded bool) error {
	perSecond, err := parseRate(d.rate)
	if err != nil {
		return err
	}
	if d.owner, err = account(ctx, d.cl); err != nil {
		return err
	}
	if d.role == "" {
		d.role, d.ownRole = "arn:aws:iam::"+d.owner+":role/"+demoRole, true
	}
	if d.seed == 0 {
		d.seed = rand.Uint64()
	}
	if err := d.choose(); err != nil {
		return err
	}
	d.put = map[string]int{}
	if d.clean {
		// What was made before an error or an interrupt goes too; the end has time of
		// its own.
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if err := d.remove(end); err != nil {
				fmt.Fprintf(d.cmd.ErrOrStderr(), "not all is deleted: %v\n", err)
			}
		}()
	}
	if bounded && d.length <= 0 {
		return nil
	}
	if err := d.make(ctx); err != nil {
		return err
	}
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.length)
		defer cancel()
	}
	if err := d.generate(ctx, perSecond); err != nil {
		return err
	}
	rows := 0
	for _, a := range d.apps {
		rows += a.rows
	}
	fmt.Fprintf(d.cmd.ErrOrStderr(), "%s put into demo-ticker, %d into demo-sensors; %s came out of %s\n",
		plural(d.put["ticker"]), d.put["sensors"], counted(rows, "row"), counted(len(d.apps), "application"))
	if !d.clean {
		fmt.Fprintln(d.cmd.ErrOrStderr(), "the applications go on running: `millrace sql list` shows them, `millrace sql demo --for 0s --clean` deletes them")
	}
	return nil
}

// choose reads the programs of the applications that are wanted.
func (d *demo) choose() error {
	for _, name := range d.names {
		if !slices.Contains(demoNames(), strings.TrimPrefix(name, demoPrefix)) {
			return fmt.Errorf("there is no sample application %s; there are %s", name, strings.Join(demoNames(), ", "))
		}
	}
	for _, a := range demoApplications {
		if len(d.names) > 0 && !slices.Contains(d.names, a.name) && !slices.Contains(d.names, demoPrefix+a.name) {
			continue
		}
		raw, err := demoPrograms.ReadFile("demo/" + a.name + ".sql")
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(raw), "\n")
		d.apps = append(d.apps, &demoApplication{name: demoPrefix + a.name, title: strings.Trim(first, "-. "), source: a.source, code: string(raw)})
	}
	return nil
}

// sources are the streams that the chosen applications read.
func (d *demo) sources() []string {
	var names []string
	for _, a := range d.apps {
		if !slices.Contains(names, a.source) {
			names = append(names, a.source)
		}
	}
	return names
}

// make creates streams, the object and applications that are missing, and starts
// what does not run.
func (d *demo) make(ctx context.Context) error {
	group, creating := errgroup.WithContext(ctx)
	if d.ownRole {
		group.Go(func() error { return d.makeRole(creating) })
	}
	for _, s := range d.sources() {
		group.Go(func() error { return makeStream(creating, d.cl, demoPrefix+s, 1) })
	}
	for _, a := range d.apps {
		group.Go(func() error { return makeStream(creating, d.cl, a.name, 1) })
	}
	if slices.ContainsFunc(d.apps, func(a *demoApplication) bool { return a.name == demoPrefix+"reference" }) {
		group.Go(func() error { return d.object(creating) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	group, creating = errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, a := range d.apps {
		group.Go(func() error {
			if err := d.application(creating, a); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, a := range d.apps {
		fmt.Fprintf(d.cmd.ErrOrStderr(), "%-22s  %s\n", a.name, a.title)
	}
	fmt.Fprintf(d.cmd.ErrOrStderr(), "in another terminal, `millrace sql edit %s` changes a program while it runs\n", d.apps[min(1, len(d.apps)-1)].name)
	return nil
}

// makeRole makes the role of the applications. Where roles are asked for nothing,
// or the caller may make none, an application says itself that it lacks one.
func (d *demo) makeRole(ctx context.Context) error {
	err := iamCall(ctx, d.cl, "CreateRole", map[string]string{"RoleName": demoRole, "AssumeRolePolicyDocument": `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"Service":"kinesisanalytics.amazonaws.com"},"Action":"sts:AssumeRole"}]}`}, nil)
	if err == nil {
		streams := "arn:aws:kinesis:*:" + d.owner + ":stream/" + demoPrefix + "*"
		err = iamCall(ctx, d.cl, "PutRolePolicy", map[string]string{"RoleName": demoRole, "PolicyName": "demo", "PolicyDocument": `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"kinesis:*","Resource":"` + streams + `"},
			{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::` + demoBucket + `/*"}]}`}, nil)
	}
	var refused *client.Error
	if errors.As(err, &refused) && !client.IsCode(err, "EntityAlreadyExists") {
		fmt.Fprintf(d.cmd.ErrOrStderr(), "the applications have no role of their own: %v\n", err)
	} else if refused == nil {
		return err
	}
	return nil
}

// object stores the table of sectors.
func (d *demo) object(ctx context.Context) error {
	if err := makeBucket(ctx, d.cl, demoBucket); err != nil {
		return err
	}
	var b strings.Builder
	for _, s := range sectors {
		fmt.Fprintf(&b, "%s,%s%s companies\n", s, s[:1], strings.ToLower(s[1:]))
	}
	_, err := d.cl.Send(ctx, "s3", http.MethodPut, "/"+demoBucket+"/"+demoKey, nil, []byte(b.String()))
	return err
}

func (d *demo) application(ctx context.Context, a *demoApplication) error {
	have, err := describeApplication(ctx, d.cl, a.name)
	if err != nil && !client.IsCode(err, "ResourceNotFoundException") {
		return err
	}
	if have == nil {
		var columns []map[string]any
		for _, c := range demoColumns[a.source] {
			columns = append(columns, map[string]any{"Name": c[0], "SqlType": c[1], "Mapping": c[2]})
		}
		arn := "arn:aws:kinesis:" + d.cl.Region() + ":" + d.owner + ":stream/"
		program := map[string]any{
			"Inputs": []map[string]any{{
				"NamePrefix": "SOURCE_SQL_STREAM", "KinesisStreamsInput": map[string]any{"ResourceARN": arn + demoPrefix + a.source},
				"InputSchema": map[string]any{"RecordColumns": columns, "RecordEncoding": "UTF-8", "RecordFormat": map[string]any{
					"RecordFormatType": "JSON", "MappingParameters": map[string]any{"JSONMappingParameters": map[string]any{"RecordRowPath": "$"}}}},
			}},
			"Outputs": []map[string]any{{
				"Name": "DESTINATION_SQL_STREAM", "KinesisStreamsOutput": map[string]any{"ResourceARN": arn + a.name}, "DestinationSchema": map[string]any{"RecordFormatType": "JSON"},
			}},
		}
		if a.name == demoPrefix+"reference" {
			program["ReferenceDataSources"] = []map[string]any{{
				"TableName": "Sectors", "S3ReferenceDataSource": map[string]any{"BucketARN": "arn:aws:s3:::" + demoBucket, "FileKey": demoKey},
				"ReferenceSchema": map[string]any{
					"RecordFormat": map[string]any{"RecordFormatType": "CSV", "MappingParameters": map[string]any{
						"CSVMappingParameters": map[string]any{"RecordRowDelimiter": "\n", "RecordColumnDelimiter": ","}}},
					"RecordColumns": []map[string]any{{"Name": "Sector", "SqlType": "VARCHAR(16)"}, {"Name": "Name", "SqlType": "VARCHAR(40)"}},
				},
			}}
		}
		in := &kinesisanalyticsv2.CreateApplicationInput{}
		if err := fill(in, map[string]any{
			"ApplicationName": a.name, "ApplicationDescription": a.title, "RuntimeEnvironment": "SQL-1_0", "ServiceExecutionRole": d.role,
			"ApplicationConfiguration": map[string]any{"SqlApplicationConfiguration": program,
				"ApplicationCodeConfiguration": map[string]any{"CodeContentType": "PLAINTEXT", "CodeContent": map[string]any{"TextContent": a.code}}},
		}); err != nil {
			return err
		}
		if err := d.cl.Call(ctx, kinesisanalyticsv2.OpCreateApplication, in, nil); err != nil {
			return err
		}
	} else if *have.ApplicationStatus == "RUNNING" {
		return nil
	}
	return startApplication(ctx, d.cl, a.name, kinesisanalyticsv2.InputStartingPositionNow)
}

// generate puts records and shows rows until ctx ends.
func (d *demo) generate(ctx context.Context, perSecond float64) error {
	table := newLiveTable(d.cmd.OutOrStdout())
	out := &lockedWriter{w: d.cmd.OutOrStdout()}
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range d.apps {
		p := &printer{w: out, remarks: d.cmd.ErrOrStderr()}
		p.each = func(_ string, _ *kinesis.Record, data []byte) error {
			row := strings.TrimRight(string(data), "\n")
			d.mu.Lock()
			a.rows++
			a.latest = row
			d.mu.Unlock()
			switch {
			case d.json:
				name, err := json.Marshal(a.name)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(out, "{\"application\":%s,\"row\":%s}\n", name, row)
				return err
			case !table.terminal:
				_, err := fmt.Fprintf(out, "%s  %s\n", a.name, rowText(data))
				return err
			}
			return nil
		}
		group.Go(func() error {
			return tail(ctx, d.cl, a.name, "", startingPosition{kind: kinesis.ShardIteratorTypeLatest}, true, p)
		})
	}
	for _, s := range d.sources() {
		group.Go(func() error { return d.feed(ctx, s, perSecond) })
	}
	group.Go(func() error { return d.watch(ctx, !table.terminal || d.json) })
	if table.terminal && !d.json {
		group.Go(func() error {
			for {
				if err := table.draw(d.screen()); err != nil {
					return err
				}
				if err := client.Sleep(ctx, boundInterval); err != nil {
					return err
				}
			}
		})
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil && client.IsCode(err, "ResourceNotFoundException") {
		return nil
	}
	return err
}

// watch looks for what holds applications up until ctx ends, and tells it if
// tell is set.
func (d *demo) watch(ctx context.Context, tell bool) error {
	for {
		for _, a := range d.apps {
			how, err := applicationStatus(ctx, d.cl, a.name)
			switch {
			case client.IsCode(err, "ResourceNotFoundException"):
				continue // deleted meanwhile
			case err != nil:
				return err
			case how == nil:
				return nil
			}
			problem := oneLine(api.Val(how.Problem))
			d.mu.Lock()
			news := problem != "" && problem != a.problem
			a.problem = problem
			d.mu.Unlock()
			if tell && news {
				fmt.Fprintf(d.cmd.ErrOrStderr(), "%s is held up: %s\n", a.name, problem)
			}
		}
		if err := client.Sleep(ctx, 5*pollInterval); err != nil {
			return err
		}
	}
}

// screen is the table of applications.
func (d *demo) screen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	rows := [][]string{{"APPLICATION", "ROWS", "LATEST"}}
	for _, a := range d.apps {
		text := rowText([]byte(a.latest))
		if a.problem != "" {
			text = "held up: " + a.problem
		}
		rows = append(rows, []string{a.name, strconv.Itoa(a.rows), text})
	}
	return append(aligned(rows), "", fmt.Sprintf("%s put into demo-ticker, %d into demo-sensors; Ctrl-C ends", plural(d.put["ticker"]), d.put["sensors"]))
}

// feed puts the records of one stream, as many as are due.
func (d *demo) feed(ctx context.Context, source string, perSecond float64) error {
	next := d.generator(source)
	s := &sender{client: d.cl, stream: demoPrefix + source, sent: func(records, _ int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.put[source] += records
	}}
	began := time.Now()
	for n := 0; ; {
		for due := int(perSecond*time.Since(began).Seconds()) + 1; n < due; n++ {
			key, record := next()
			if err := s.add(ctx, key, "", record); err != nil {
				return err
			}
		}
		if err := s.flush(ctx); err != nil {
			return err
		}
		pause := max(10*time.Millisecond, time.Duration(float64(time.Second)/perSecond/2))
		if err := client.Sleep(ctx, min(pause, time.Second)); err != nil {
			return err
		}
	}
}

const demoTime = "2006-01-02 15:04:05.000"

// generator makes the records of a demo stream. The same seed makes the same, but
// for their times.
func (d *demo) generator(source string) func() (key string, record []byte) {
	random := rand.New(rand.NewPCG(d.seed, uint64(len(source))))
	if source == "ticker" {
		t := newTicker(d.seed)
		return func() (string, []byte) {
			record := t.next()
			var s stock
			// What was just encoded is read again for its key.
			if err := json.Unmarshal(record, &s); err != nil {
				panic(err)
			}
			// An event is up to three seconds old when it is put.
			at := time.Now().Add(-time.Duration(random.IntN(3000)) * time.Millisecond).UTC().Format(demoTime)
			return s.Symbol, append(record[:len(record)-1], `,"EVENT_TIME":"`+at+`"}`...)
		}
	}
	zones := []string{"hall", "yard", "roof"}
	type sensor struct {
		device, zone string
		level, x, y  float64
	}
	var sensors []sensor
	for i := range 12 {
		zone := zones[i%len(zones)]
		// The sensors of the hall stand close together.
		spread := 20.0
		if zone == "hall" {
			spread = 0.3
		}
		sensors = append(sensors, sensor{fmt.Sprintf("%s-%d", zone, i/len(zones)+1), zone, 20 + random.NormFloat64(), 5 + spread*random.Float64(), 5 + spread*random.Float64()})
	}
	return func() (string, []byte) {
		s := &sensors[random.IntN(len(sensors))]
		s.level += 0.05 * random.NormFloat64()
		reading := s.level + 0.1*random.NormFloat64()
		if random.IntN(100) == 0 {
			reading += 15 // something is wrong with it
		}
		record, err := json.Marshal(map[string]any{
			"device": s.device, "zone": s.zone, "reading": cents(reading),
			"position": map[string]any{"x": cents(s.x + 0.05*random.NormFloat64()), "y": cents(s.y + 0.05*random.NormFloat64())},
			"measured": time.Now().UTC().Format(demoTime),
		})
		if err != nil || math.IsNaN(reading) {
			panic("a reading cannot be encoded")
		}
		return s.device, record
	}
}

// remove deletes what the demonstration makes.
func (d *demo) remove(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	drop := func(stream string) error {
		err := d.cl.Call(ctx, kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamName: &stream}, nil)
		if client.IsCode(err, "ResourceNotFoundException") {
			return nil
		}
		if err != nil {
			return err
		}
		return waitGone(ctx, d.cl, stream)
	}
	for _, a := range d.apps {
		group.Go(func() error {
			have, err := waitApplication(ctx, d.cl, a.name)
			if err == nil {
				err = deleteApplication(ctx, d.cl, have)
			}
			if err != nil && !client.IsCode(err, "ResourceNotFoundException") {
				return err
			}
			return drop(a.name)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	left, err := applicationNames(ctx, d.cl)
	if err != nil {
		return err
	}
	// The sources stay as long as applications of another run read them.
	for _, l := range left {
		if strings.HasPrefix(*l.ApplicationName, demoPrefix) {
			return nil
		}
	}
	for _, s := range []string{"ticker", "sensors"} {
		if err := drop(demoPrefix + s); err != nil {
			return err
		}
	}
	if d.ownRole {
		for _, action := range []string{"DeleteRolePolicy", "DeleteRole"} {
			parameters := map[string]string{"RoleName": demoRole}
			if action == "DeleteRolePolicy" {
				parameters["PolicyName"] = "demo"
			}
			// Whoever may not delete one has not made it.
			var refused *client.Error
			if err := iamCall(ctx, d.cl, action, parameters, nil); err != nil && !errors.As(err, &refused) {
				return err
			}
		}
	}
	for _, target := range []string{"/" + demoBucket + "/" + demoKey, "/" + demoBucket} {
		if _, err := d.cl.Send(ctx, "s3", http.MethodDelete, target, nil, nil); err != nil && !client.IsCode(err, "NoSuchBucket") {
			return err
		}
	}
	fmt.Fprintln(d.cmd.ErrOrStderr(), "deleted the applications, streams and objects of the demonstration")
	return nil
}
