package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesisanalytics"
	"github.com/aws/aws-sdk-go-v2/service/kinesisanalyticsv2"

	"github.com/millrace/millrace/test/harness"
)

// realRegion names a region as the service's patterns of ARNs want it.
func realRegion(way string) string {
	return "eu-" + strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			return -1
		}
		return r
	}, way) + "-1"
}

var analytics1 = &service{name: "kinesisanalytics", region: realRegion, target: "KinesisAnalytics_20150814", inGo: func(endpoint, region string, keys aws.CredentialsProvider, over *http.Client) any {
	return kinesisanalytics.New(kinesisanalytics.Options{Region: region, BaseEndpoint: &endpoint, Credentials: keys, Retryer: aws.NopRetryer{}, HTTPClient: over})
}}

var analytics2 = &service{name: "kinesisanalyticsv2", region: realRegion, signs: "kinesisanalytics", target: "KinesisAnalytics_20180523", inGo: func(endpoint, region string, keys aws.CredentialsProvider, over *http.Client) any {
	return kinesisanalyticsv2.New(kinesisanalyticsv2.Options{Region: region, BaseEndpoint: &endpoint, Credentials: keys, Retryer: aws.NopRetryer{}, HTTPClient: over})
}}

// newestSnapshots are operations that some clients are too old for.
const newestSnapshots = `^(Create|Delete|Describe|Export|Import|List)Snapshot`

var analytics1Ways = []way{
	{"go/http", analytics1.sdk(false), `^$`},
	{"go/tls", analytics1.sdk(true), `^$`},
	{"boto3/http", subprocess("python", false, nil, analytics1.python("boto3")), `^$`},
	{"boto3/tls", subprocess("python", true, nil, analytics1.python("boto3")), `^$`},
	{"cli/http", subprocess("python", false, nil, analytics1.python("cli")), `^$`},
	{"java/sync-json", subprocess("java", false, nil, java("sync", "kinesisanalytics")), `^$`},
	{"raw/json-h1", analytics1.raw(jsonType, "h1"), `^$`},
	{"raw/json-h2c", analytics1.raw(jsonType, "h2c"), `^$`},
}

func node2() []string {
	return append(node(), "client-kinesis-analytics-v2", "KinesisAnalyticsV2Client")
}

var analytics2Ways = []way{
	{"go/http", analytics2.sdk(false), newestSnapshots},
	{"go/tls", analytics2.sdk(true), newestSnapshots},
	{"boto3/http", subprocess("python", false, nil, analytics2.python("boto3")), `^$`},
	{"boto3/tls", subprocess("python", true, nil, analytics2.python("boto3")), `^$`},
	{"cli/http", subprocess("python", false, nil, analytics2.python("cli")), `^$`},
	{"javascript/h2c", subprocess("node", false, []string{"MODULES=" + inCache("node")}, node2), newestSnapshots},
	{"java/sync-json", subprocess("java", false, nil, java("sync", "kinesisanalyticsv2")), newestSnapshots},
	{"raw/json-h1", analytics2.raw(jsonType, "h1"), `^$`},
	{"raw/json-h2c", analytics2.raw(jsonType, "h2c"), `^$`},
}

// TestEveryAnalyticsOperationThroughEveryClient makes, feeds and ends an
// application with each client of each version of the API, up to the rows that
// come out of it.
func TestEveryAnalyticsOperationThroughEveryClient(t *testing.T) {
	t.Run("v1", func(t *testing.T) {
		analytics1.prove(t, analytics1Ways, 20, "proven-analytics.txt", func(s *scenario) { (&applications{scenario: s}).run() })
	})
	t.Run("v2", func(t *testing.T) {
		analytics2.prove(t, analytics2Ways, 41, "proven-analytics-v2.txt", func(s *scenario) { (&applications{scenario: s, v2: true}).run() })
	})
}

// applications is the scenario of one version.
type applications struct {
	*scenario
	v2 bool
	// streams puts and gets records; which client does is no matter here.
	streams *kinesis.Client
	version int
}

const floods = "floods"

func (a *applications) run() {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	a.streams = kinesis.New(kinesis.Options{
		Region: a.region, BaseEndpoint: aws.String(server.URL(false)), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider(harness.AccessKey, harness.SecretKey, ""),
	})
	prefix := "v1-"
	if a.v2 {
		prefix = "v2-"
	}
	in, out := prefix+"levels", prefix+"warnings"
	for name, shards := range map[string]int32{in: 2, out: 1} {
		if _, err := a.streams.CreateStream(a.ctx, &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
			a.check("streams", func() { fail("%v", err) })
			return
		}
	}
	arn := "arn:aws:kinesisanalytics:" + a.region + ":" + harness.Account + ":application/" + floods
	logARN := "arn:aws:logs:" + a.region + ":" + harness.Account + ":log-group:/floods:log-stream:"
	function := "arn:aws:lambda:" + a.region + ":" + harness.Account + ":function:decode"
	input := M{"NamePrefix": "LEVELS", "KinesisStreamsInput": a.role(M{"ResourceARN": a.arn(in)}), "InputSchema": a.schema("river", "VARCHAR(16)", "level", "DOUBLE")}
	output := M{"Name": "WARNINGS", "KinesisStreamsOutput": a.role(M{"ResourceARN": a.arn(out)}), "DestinationSchema": M{"RecordFormatType": "JSON"}}
	code := func(limit string) string {
		return `CREATE OR REPLACE STREAM WARNINGS ("river" VARCHAR(16), "level" DOUBLE); CREATE OR REPLACE PUMP P AS INSERT INTO WARNINGS SELECT STREAM "river", "level" FROM "LEVELS_001" WHERE "level" > ` + limit + `;`
	}

	a.check("create", func() {
		m := M{"ApplicationName": floods, "ApplicationDescription": "warns", "Tags": []any{M{"Key": "made-by", "Value": "conformance"}},
			"CloudWatchLoggingOptions": []any{a.role(M{"LogStreamARN": logARN + "a"})}}
		a.program(m, code("3"), []any{input}, []any{output})
		got := a.call("CreateApplication", m)
		summary := at(got, "ApplicationSummary")
		if a.v2 {
			summary = at(got, "ApplicationDetail")
			want(text(summary, "RuntimeEnvironment") == "SQL-1_0" && text(summary, "ServiceExecutionRole") == harness.AnalyticsRole && number(summary, "ApplicationVersionId") == 1, "detail %v", summary)
		}
		want(text(summary, "ApplicationARN") == arn && text(summary, "ApplicationName") == floods && text(summary, "ApplicationStatus") == "READY", "created %v", got)
		a.version = 1
	})
	a.check("create again", func() {
		m := M{"ApplicationName": floods}
		a.program(m, "", nil, nil)
		a.refuse("CreateApplication", m, "ResourceInUseException", "Application floods under account "+harness.Account+" already exists.")
	})
	a.check("a program with a mistake", func() {
		m := M{"ApplicationName": "wrong"}
		a.program(m, `CREATE STREAM S (A INTEGER); CREATE PUMP P AS INSERT INTO S SELECT STREAM "levle" FROM "LEVELS_001";`, []any{input}, nil)
		a.refuse("CreateApplication", m, "CodeValidationException", "levle")
	})
	a.check("missing", func() {
		a.refuse("DescribeApplication", M{"ApplicationName": "missing"}, "ResourceNotFoundException", "Application missing under account "+harness.Account+" not found.")
	})
	a.check("describe", func() {
		d := a.detail(floods)
		want(text(d, "ApplicationARN") == arn && text(d, "ApplicationDescription") == "warns" && text(d, "ApplicationStatus") == "READY" && number(d, "ApplicationVersionId") == 1, "detail %v", d)
		created, _ := at(d, "CreateTimestamp").(time.Time)
		want(time.Since(created).Abs() < time.Minute, "created at %v", at(d, "CreateTimestamp"))
		i := at(a.sql(d), "InputDescriptions", 0)
		want(text(i, "InputId") == "1.1" && slices.Equal(list(i, "InAppStreamNames"), []any{"LEVELS_001"}) && number(i, "InputParallelism", "Count") == 1, "input %v", i)
		want(text(i, "KinesisStreamsInputDescription", "ResourceARN") == a.arn(in) && text(i, "InputSchema", "RecordColumns", 1, "SqlType") == "DOUBLE" &&
			text(i, "InputSchema", "RecordFormat", "MappingParameters", "JSONMappingParameters", "RecordRowPath") == "$", "input %v", i)
		o := at(a.sql(d), "OutputDescriptions", 0)
		want(text(o, "OutputId") == "1.1" && text(o, "Name") == "WARNINGS" && text(o, "DestinationSchema", "RecordFormatType") == "JSON", "output %v", o)
		want(text(d, "CloudWatchLoggingOptionDescriptions", 0, "LogStreamARN") == logARN+"a", "logging %v", at(d, "CloudWatchLoggingOptionDescriptions"))
		want(a.codeOf(d) == code("3"), "code %q", a.codeOf(d))
	})
	a.check("list", func() {
		m := M{"ApplicationName": "ebbs"}
		a.program(m, "", nil, nil)
		a.call("CreateApplication", m)
		got := a.call("ListApplications", M{"Limit": 1})
		want(len(list(got, "ApplicationSummaries")) == 1 && text(got, "ApplicationSummaries", 0, "ApplicationName") == "ebbs", "first page %v", got)
		next := M{"ExclusiveStartApplicationName": "ebbs", "Limit": 1}
		if a.v2 {
			want(text(got, "NextToken") != "", "no token in %v", got)
			next = M{"NextToken": text(got, "NextToken"), "Limit": 1}
		} else {
			want(at(got, "HasMoreApplications") == true, "no more after %v", got)
		}
		got = a.call("ListApplications", next)
		want(text(got, "ApplicationSummaries", 0, "ApplicationName") == floods && at(got, "HasMoreApplications") != true && at(got, "NextToken") == nil, "second page %v", got)
	})
	a.check("add an input", func() {
		got := a.call("AddApplicationInput", M{"ApplicationName": "ebbs", "CurrentApplicationVersionId": 1, "Input": input})
		if a.v2 {
			want(number(got, "ApplicationVersionId") == 2 && text(got, "InputDescriptions", 0, "InputId") == "2.1", "added %v", got)
		}
		a.refuse("AddApplicationInput", M{"ApplicationName": "ebbs", "CurrentApplicationVersionId": 2, "Input": input}, "InvalidArgumentException", "at most 1 input")
	})
	a.check("a stale version", func() {
		a.refuse("AddApplicationOutput", M{"ApplicationName": floods, "CurrentApplicationVersionId": 7, "Output": output}, "ConcurrentModificationException", "")
	})
	a.check("outputs", func() {
		more := M{"Name": "error_stream", "LambdaOutput": a.role(M{"ResourceARN": function}), "DestinationSchema": M{"RecordFormatType": "CSV"}}
		got := a.change("AddApplicationOutput", M{"Output": more})
		if a.v2 {
			want(len(list(got, "OutputDescriptions")) == 2, "added %v", got)
		}
		o := at(a.sql(a.detail(floods)), "OutputDescriptions", 1)
		want(text(o, "OutputId") == fmt.Sprintf("%d.1", a.version) && text(o, "LambdaOutputDescription", "ResourceARN") == function, "output %v", o)
		a.change("DeleteApplicationOutput", M{"OutputId": text(o, "OutputId")})
		a.refuse("DeleteApplicationOutput", M{"ApplicationName": floods, "CurrentApplicationVersionId": a.version, "OutputId": "9.9"}, "ResourceNotFoundException", "9.9")
		want(len(list(a.sql(a.detail(floods)), "OutputDescriptions")) == 1, "the output stays")
	})
	a.check("processing", func() {
		p := M{"InputLambdaProcessor": a.role(M{"ResourceARN": function})}
		a.change("AddApplicationInputProcessingConfiguration", M{"InputId": "1.1", "InputProcessingConfiguration": p})
		i := at(a.sql(a.detail(floods)), "InputDescriptions", 0)
		want(text(i, "InputProcessingConfigurationDescription", "InputLambdaProcessorDescription", "ResourceARN") == function, "input %v", i)
		a.change("DeleteApplicationInputProcessingConfiguration", M{"InputId": "1.1"})
		want(at(a.sql(a.detail(floods)), "InputDescriptions", 0, "InputProcessingConfigurationDescription") == nil, "the function stays")
	})
	a.check("reference data", func() {
		object := M{"BucketARN": "arn:aws:s3:::rivers", "FileKey": "rivers.csv"}
		if !a.v2 {
			object["ReferenceRoleARN"] = harness.AnalyticsRole
		}
		a.change("AddApplicationReferenceDataSource", M{"ReferenceDataSource": M{"TableName": "RIVERS", "S3ReferenceDataSource": object, "ReferenceSchema": M{
			"RecordFormat":  M{"RecordFormatType": "CSV", "MappingParameters": M{"CSVMappingParameters": M{"RecordRowDelimiter": "\n", "RecordColumnDelimiter": ","}}},
			"RecordColumns": []any{M{"Name": "river", "SqlType": "VARCHAR(16)"}, M{"Name": "sea", "SqlType": "VARCHAR(16)"}},
		}}})
		r := at(a.sql(a.detail(floods)), "ReferenceDataSourceDescriptions", 0)
		want(text(r, "TableName") == "RIVERS" && text(r, "S3ReferenceDataSourceDescription", "FileKey") == "rivers.csv", "reference %v", r)
		a.change("DeleteApplicationReferenceDataSource", M{"ReferenceId": text(r, "ReferenceId")})
	})
	a.check("logging", func() {
		a.change("AddApplicationCloudWatchLoggingOption", M{"CloudWatchLoggingOption": a.role(M{"LogStreamARN": logARN + "b"})})
		l := at(a.detail(floods), "CloudWatchLoggingOptionDescriptions", 1)
		a.change("DeleteApplicationCloudWatchLoggingOption", M{"CloudWatchLoggingOptionId": text(l, "CloudWatchLoggingOptionId")})
		want(len(list(a.detail(floods), "CloudWatchLoggingOptionDescriptions")) == 1, "the option stays")
	})
	a.check("update", func() {
		u := M{"ApplicationUpdate": M{"ApplicationCodeUpdate": code("2")}}
		if a.v2 {
			u = M{"ApplicationConfigurationUpdate": M{"ApplicationCodeConfigurationUpdate": M{"CodeContentUpdate": M{"TextContentUpdate": code("2")}}}}
		}
		a.change("UpdateApplication", u)
		d := a.detail(floods)
		want(a.codeOf(d) == code("2") && number(d, "ApplicationVersionId") == int64(a.version), "after the update %v", d)
	})
	a.check("discover", func() {
		ask := M{"ResourceARN": a.arn(in), "RoleARN": harness.AnalyticsRole}
		if a.v2 {
			ask = M{"ResourceARN": a.arn(in), "ServiceExecutionRole": harness.AnalyticsRole}
		}
		a.refuse("DiscoverInputSchema", ask, "UnableToDetectSchemaException", "no records")
		a.put(in, `{"river":"rhine","level":2.5}`, `{"river":"elbe","level":1.5}`)
		got := a.call("DiscoverInputSchema", ask)
		columns := list(got, "InputSchema", "RecordColumns")
		want(len(columns) == 2 && text(columns, 0, "Name") == "river" && text(columns, 0, "Mapping") == "$.river" && text(columns, 1, "SqlType") == "DOUBLE", "columns %v", columns)
		want(text(got, "InputSchema", "RecordFormat", "RecordFormatType") == "JSON" && len(list(got, "ParsedInputRecords")) == 2 && len(list(got, "RawInputRecords")) == 2, "discovered %v", got)
	})
	a.check("stop what does not run", func() {
		a.refuse("StopApplication", M{"ApplicationName": floods}, "ResourceInUseException", "READY")
	})
	a.check("start", func() {
		position := M{"InputStartingPosition": "TRIM_HORIZON"}
		start := M{"ApplicationName": floods, "InputConfigurations": []any{M{"Id": "1.1", "InputStartingPositionConfiguration": position}}}
		if a.v2 {
			start = M{"ApplicationName": floods, "RunConfiguration": M{"SqlRunConfigurations": []any{M{"InputId": "1.1", "InputStartingPositionConfiguration": position}}}}
		}
		a.call("StartApplication", start)
		a.becomes(floods, "RUNNING")
		a.refuse("StartApplication", start, "ResourceInUseException", "RUNNING")
		a.rows(out, "{\"river\":\"rhine\",\"level\":2.5}\n")
		a.put(in, `{"river":"oder","level":4}`, `{"river":"ems","level":0.5}`, `no record`)
		a.rows(out, "{\"river\":\"oder\",\"level\":4}\n", "{\"river\":\"rhine\",\"level\":2.5}\n")
	})
	a.check("update while it runs", func() {
		u := M{"ApplicationUpdate": M{"ApplicationCodeUpdate": code("0")}}
		if a.v2 {
			u = M{"ApplicationConfigurationUpdate": M{"ApplicationCodeConfigurationUpdate": M{"CodeContentUpdate": M{"TextContentUpdate": code("0")}}}}
		}
		a.change("UpdateApplication", u)
		a.becomes(floods, "RUNNING")
		a.put(in, `{"river":"ems","level":0.5}`)
		a.rows(out, "{\"river\":\"ems\",\"level\":0.5}\n", "{\"river\":\"oder\",\"level\":4}\n", "{\"river\":\"rhine\",\"level\":2.5}\n")
	})
	a.check("tags", func() {
		a.call("TagResource", M{"ResourceARN": arn, "Tags": []any{M{"Key": "river", "Value": "rhine"}}})
		a.call("UntagResource", M{"ResourceARN": arn, "TagKeys": []any{"made-by"}})
		got := a.call("ListTagsForResource", M{"ResourceARN": arn})
		want(len(list(got, "Tags")) == 1 && text(got, "Tags", 0, "Key") == "river" && text(got, "Tags", 0, "Value") == "rhine", "tags %v", got)
	})
	if a.v2 {
		a.flink()
	}
	a.check("stop", func() {
		a.call("StopApplication", M{"ApplicationName": floods})
		a.becomes(floods, "READY")
	})
	a.check("delete", func() {
		created := at(a.detail(floods), "CreateTimestamp").(time.Time)
		a.refuse("DeleteApplication", M{"ApplicationName": floods, "CreateTimestamp": created.Add(time.Hour)}, "InvalidArgumentException", "CreateTimestamp")
		for _, name := range []string{floods, "ebbs"} {
			a.call("DeleteApplication", M{"ApplicationName": name, "CreateTimestamp": at(a.detail(name), "CreateTimestamp")})
		}
		for range 1000 {
			if len(list(a.call("ListApplications", M{}), "ApplicationSummaries")) == 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		fail("the applications stay")
	})
}

// flink calls what version 2 has for other applications: the answers are those of
// the service for an SQL application.
func (a *applications) flink() {
	const no = "SQL-1_0"
	name := M{"ApplicationName": floods}
	with := func(more M) M {
		m := M{"ApplicationName": floods}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	vpc := M{"SubnetIds": []any{"subnet-1"}, "SecurityGroupIds": []any{"sg-1"}}
	snapshot := with(M{"SnapshotName": "s"})
	prefix := M{"BucketARN": "arn:aws:s3:::rivers", "KeyPrefix": "snapshots/"}
	for _, c := range []struct {
		op         string
		in         M
		code, text string
	}{
		{"AddApplicationVpcConfiguration", with(M{"CurrentApplicationVersionId": a.version, "VpcConfiguration": vpc}), "InvalidApplicationConfigurationException", no},
		{"DeleteApplicationVpcConfiguration", with(M{"CurrentApplicationVersionId": a.version, "VpcConfigurationId": "1.1"}), "InvalidApplicationConfigurationException", no},
		{"CreateApplicationPresignedUrl", with(M{"UrlType": "FLINK_DASHBOARD_URL"}), "InvalidArgumentException", no},
		{"CreateApplicationSnapshot", snapshot, "UnsupportedOperationException", no},
		{"DeleteApplicationSnapshot", with(M{"SnapshotName": "s", "SnapshotCreationTimestamp": time.UnixMilli(1_700_000_000_000)}), "UnsupportedOperationException", no},
		{"DescribeApplicationSnapshot", snapshot, "UnsupportedOperationException", no},
		{"ListApplicationSnapshots", name, "UnsupportedOperationException", no},
		{"DescribeApplicationOperation", with(M{"OperationId": "o"}), "UnsupportedOperationException", no},
		{"ListApplicationOperations", name, "UnsupportedOperationException", no},
		{"DescribeApplicationVersion", with(M{"ApplicationVersionId": 1}), "UnsupportedOperationException", no},
		{"ListApplicationVersions", name, "UnsupportedOperationException", no},
		{"RollbackApplication", with(M{"CurrentApplicationVersionId": a.version}), "UnsupportedOperationException", no},
		{"UpdateApplicationMaintenanceConfiguration", with(M{"ApplicationMaintenanceConfigurationUpdate": M{"ApplicationMaintenanceWindowStartTimeUpdate": "00:00"}}), "UnsupportedOperationException", no},
		{"CreateSnapshot", snapshot, "UnsupportedOperationException", no},
		{"DeleteSnapshot", M{"SnapshotName": "s", "SnapshotCreationTimestamp": time.UnixMilli(1_700_000_000_000)}, "ResourceNotFoundException", "Snapshot s not found."},
		{"DescribeSnapshot", M{"SnapshotName": "s"}, "ResourceNotFoundException", "Snapshot s not found."},
		{"DescribeSnapshotOperation", M{"SnapshotName": "s", "SnapshotOperationId": "o"}, "ResourceNotFoundException", "Snapshot s not found."},
		{"ListSnapshotOperations", M{"SnapshotName": "s"}, "ResourceNotFoundException", "Snapshot s not found."},
		{"ExportSnapshot", M{"SnapshotName": "s", "ExportDestinationConfiguration": M{"DestinationType": "S3", "ExportRoleArn": harness.AnalyticsRole, "DestinationS3PrefixLocation": prefix}}, "ResourceNotFoundException", "Snapshot s not found."},
		{"ImportSnapshot", M{"SnapshotName": "s", "ImportSourceConfiguration": M{"SourceType": "S3", "ImportRoleArn": harness.AnalyticsRole, "SourceS3PrefixLocation": prefix}}, "UnsupportedOperationException", no},
	} {
		a.check(c.op, func() { a.decline(c.op, c.in, c.code, c.text) })
	}
	a.check("ListSnapshots", func() {
		got := a.call("ListSnapshots", M{})
		want(len(list(got, "SnapshotInfoList")) == 0, "snapshots %v", got)
	})
}

// role adds the role of a resource, which version 1 has.
func (a *applications) role(m M) M {
	if !a.v2 {
		m["RoleARN"] = harness.AnalyticsRole
	}
	return m
}

// schema is that of JSON records with members of these names and types.
func (a *applications) schema(columns ...string) M {
	var list []any
	for c := range slices.Chunk(columns, 2) {
		list = append(list, M{"Name": c[0], "SqlType": c[1], "Mapping": "$." + c[0]})
	}
	return M{"RecordFormat": M{"RecordFormatType": "JSON", "MappingParameters": M{"JSONMappingParameters": M{"RecordRowPath": "$"}}}, "RecordEncoding": "UTF-8", "RecordColumns": list}
}

// program puts code, inputs and outputs where a version wants them.
func (a *applications) program(m M, code string, inputs, outputs []any) {
	to := m
	if a.v2 {
		m["RuntimeEnvironment"], m["ServiceExecutionRole"] = "SQL-1_0", harness.AnalyticsRole
		to = M{}
		config := M{"SqlApplicationConfiguration": to}
		if code != "" {
			config["ApplicationCodeConfiguration"] = M{"CodeContent": M{"TextContent": code}, "CodeContentType": "PLAINTEXT"}
		}
		m["ApplicationConfiguration"] = config
	} else if code != "" {
		m["ApplicationCode"] = code
	}
	if inputs != nil {
		to["Inputs"] = inputs
	}
	if outputs != nil {
		to["Outputs"] = outputs
	}
}

func (a *applications) detail(name string) any {
	return at(a.call("DescribeApplication", M{"ApplicationName": name}), "ApplicationDetail")
}

// sql is where a version describes inputs, outputs and tables.
func (a *applications) sql(d any) any {
	if a.v2 {
		return at(d, "ApplicationConfigurationDescription", "SqlApplicationConfigurationDescription")
	}
	return d
}

func (a *applications) codeOf(d any) string {
	if a.v2 {
		return text(d, "ApplicationConfigurationDescription", "ApplicationCodeConfigurationDescription", "CodeContentDescription", "TextContent")
	}
	return text(d, "ApplicationCode")
}

// change makes a call that adds a version.
func (a *applications) change(op string, m M) M {
	m["ApplicationName"], m["CurrentApplicationVersionId"] = floods, a.version
	got := a.call(op, m)
	a.version++
	if a.v2 && op != "UpdateApplication" {
		want(number(got, "ApplicationVersionId") == int64(a.version), "%s answers %v, want version %d", op, got, a.version)
	}
	return got
}

// becomes waits for a status.
func (a *applications) becomes(name, status string) {
	for range 1000 {
		if text(a.detail(name), "ApplicationStatus") == status {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	fail("%s does not become %s", name, status)
}

func (a *applications) put(stream string, records ...string) {
	in := &kinesis.PutRecordsInput{StreamName: &stream}
	for i, r := range records {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String(fmt.Sprint(i)), Data: []byte(r)})
	}
	if out, err := a.streams.PutRecords(a.ctx, in); err != nil || *out.FailedRecordCount != 0 {
		fail("put: %v, %v", out, err)
	}
}

// rows waits until the records of a stream's shard are these, in order of their
// bytes. More than these are a failure.
func (a *applications) rows(stream string, wanted ...string) {
	var got []string
	for range 1500 {
		got = nil
		it, err := a.streams.GetShardIterator(a.ctx, &kinesis.GetShardIteratorInput{StreamName: &stream, ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
		if err != nil {
			fail("iterator: %v", err)
		}
		page, err := a.streams.GetRecords(a.ctx, &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
		if err != nil {
			fail("records: %v", err)
		}
		for _, r := range page.Records {
			got = append(got, string(r.Data))
		}
		if len(got) >= len(wanted) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	slices.Sort(got)
	want(slices.Equal(got, wanted), "%s has %s", stream, strings.Join(got, ""))
}
