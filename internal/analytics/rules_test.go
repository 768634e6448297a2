package analytics

import (
	"fmt"
	"strings"
	"testing"
)

// replaced is a text with parts of it changed, each of which must be there.
func replaced(t testing.TB, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in %q", pairs[i], text)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestRulesOfInputs(t *testing.T) {
	const invalid = "InvalidArgumentException"
	for name, test := range map[string]struct {
		change        []string
		code, message string
	}{
		"no source":                      {[]string{`"KinesisStreamsInput": {` + streamARN + `, ` + role + `}, `, ``}, invalid, "Exactly one of KinesisStreamsInput and KinesisFirehoseInput must be given for the input SOURCE_SQL_STREAM."},
		"two sources":                    {[]string{`"InputSchema"`, `"KinesisFirehoseInput": {` + hoseARN + `, ` + role + `}, "InputSchema"`}, invalid, "Exactly one of KinesisStreamsInput and KinesisFirehoseInput must be given for the input SOURCE_SQL_STREAM."},
		"the ARN of something else":      {[]string{streamARN, hoseARN}, invalid, "ResourceARN arn:aws:firehose:eu-central-1:123456789012:deliverystream/hose is not the ARN of a data stream."},
		"not a delivery stream":          {[]string{`"KinesisStreamsInput"`, `"KinesisFirehoseInput"`}, invalid, "ResourceARN arn:aws:kinesis:eu-central-1:123456789012:stream/in is not the ARN of a delivery stream."},
		"no role":                        {[]string{`, ` + role, ``}, "ValidationException", "1 validation error detected: …"},
		"a long prefix":                  {[]string{`"SOURCE_SQL_STREAM"`, `"` + strings.Repeat("x", 33) + `"`}, "ValidationException", "1 validation error detected: …"},
		"a control character":            {[]string{`"SOURCE_SQL_STREAM"`, `"S\u0001"`}, invalid, `The NamePrefix "S\x01" has a control character.`},
		"no mapping":                     {[]string{`, "Mapping": "$.price"`, ``}, invalid, `The column "price" has no Mapping, which the record format JSON needs.`},
		"a path that is none":            {[]string{`$.price`, `price`}, invalid, "The schema is not valid: the mapping of column…"},
		"two arrays":                     {[]string{`$.ticker`, `$.a[0:].x`, `$.price`, `$.b[0:].y`}, invalid, "The schema is not valid: the mapping of column…"},
		"a type that is none":            {[]string{`"INTEGER"`, `"NUMBER(3)"`}, invalid, `The type "NUMBER(3)" of column "price" is not valid: …`},
		"an interval":                    {[]string{`"INTEGER"`, `"INTERVAL DAY"`}, invalid, `A column cannot have the type "INTERVAL DAY" of column "price".`},
		"NOT NULL":                       {[]string{`"INTEGER"`, `"INTEGER NOT NULL"`}, invalid, `The type "INTEGER NOT NULL" of column "price" is not valid: …`},
		"a column twice":                 {[]string{`"Name": "price"`, `"Name": "ticker"`}, invalid, `The column name "ticker" is given twice.`},
		"the time of rows":               {[]string{`"Name": "price"`, `"Name": "ROWTIME"`}, invalid, "The column name ROWTIME is that of the time of rows."},
		"a long column name":             {[]string{`"Name": "price"`, `"Name": "` + strings.Repeat("ü", 129) + `"`}, invalid, `The column name "` + strings.Repeat("ü", 129) + `" has more than 128 characters.`},
		"no column name":                 {[]string{`"Name": "price"`, `"Name": ""`}, invalid, `The column name "" is empty.`},
		"mapping of the other kind":      {[]string{`"RecordFormatType": "JSON"`, `"RecordFormatType": "CSV"`}, invalid, "JSONMappingParameters cannot be given for the record format CSV."},
		"CSV without delimiters":         {[]string{`"RecordFormatType": "JSON", "MappingParameters": {"JSONMappingParameters": {"RecordRowPath": "$"}}`, `"RecordFormatType": "CSV"`}, invalid, "CSVMappingParameters are required for the record format CSV."},
		"too many streams":               {[]string{`"InputSchema"`, `"InputParallelism": {"Count": 65}, "InputSchema"`}, "ValidationException", "1 validation error detected: …"},
		"a function that is none":        {[]string{`"InputSchema"`, `"InputProcessingConfiguration": {"InputLambdaProcessor": {` + streamARN + `, ` + role + `}}, "InputSchema"`}, invalid, "The input processing configuration of the input SOURCE_SQL_STREAM does not name a Lambda function."},
		"another encoding":               {[]string{`"UTF-8"`, `"UTF-16"`}, "ValidationException", "1 validation error detected: …"},
		"a column that a program misses": {[]string{`"Name": "price"`, `"Name": "PRICE"`}, "CodeValidationException", "line 1, column …"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			wantError(t, r.v1("CreateApplication", replaced(t, createV1, inputV1, replaced(t, inputV1, test.change...))), test.code, test.message)
			// It is the same rule when the input is added, and when it is changed.
			r.must("v1", "CreateApplication", `{"ApplicationName": "a", "ApplicationCode": "`+program+`"}`)
			wantError(t, r.v1("AddApplicationInput", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "Input": `+replaced(t, inputV1, test.change...)+`}`), test.code, test.message)
			if v := r.get("a").record.Version; v != 1 {
				t.Errorf("a refused change made version %d", v)
			}
		})
	}
}

func TestRulesOfConfigurations(t *testing.T) {
	const (
		invalid = "InvalidArgumentException"
		at1     = `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, `
	)
	lambda := `{"Name": "OUT", "LambdaOutput": {` + lambdaARN + `, ` + role + `}, "DestinationSchema": {"RecordFormatType": "JSON"}}`
	hose := `{"Name": "OUT", "KinesisFirehoseOutput": {` + hoseARN + `, ` + role + `}, "DestinationSchema": {"RecordFormatType": "JSON"}}`
	for name, test := range map[string]struct{ operation, input, code, message string }{
		"a second input":                       {"AddApplicationInput", at1 + `"Input": ` + inputV1 + `}`, invalid, "An application can have at most 1 input."},
		"an output without a place":            {"AddApplicationOutput", at1 + `"Output": {"Name": "OUT", "DestinationSchema": {"RecordFormatType": "JSON"}}}`, invalid, "Exactly one of KinesisStreamsOutput, KinesisFirehoseOutput and LambdaOutput must be given for the output OUT."},
		"an output twice":                      {"AddApplicationOutput", at1 + `"Output": ` + outputV1 + `}`, invalid, "The in-application stream OUT has the output arn:aws:kinesis:eu-central-1:123456789012:stream/out already."},
		"an output to a function that is none": {"AddApplicationOutput", at1 + `"Output": ` + strings.Replace(lambda, lambdaARN, outputARN, 1) + `}`, invalid, "ResourceARN arn:aws:kinesis:eu-central-1:123456789012:stream/out is not the ARN of a Lambda function."},
		"an output without a schema":           {"AddApplicationOutput", at1 + `"Output": {"Name": "OUT", "DestinationSchema": {}}}`, "ValidationException", "1 validation error detected: …"},
		"a table like a stream":                {"AddApplicationReferenceDataSource", at1 + `"ReferenceDataSource": ` + strings.Replace(referenceV1, "COMPANIES", "SOURCE_SQL_STREAM_001", 1) + `}`, invalid, "The table name SOURCE_SQL_STREAM_001 is that of an in-application stream."},
		"a table like a stream of the program": {"AddApplicationReferenceDataSource", at1 + `"ReferenceDataSource": ` + strings.Replace(referenceV1, "COMPANIES", "OUT", 1) + `}`, invalid, "The program cannot have the reference table OUT: line 1, column …"},
		"a table like the stream of errors":    {"AddApplicationReferenceDataSource", at1 + `"ReferenceDataSource": ` + strings.Replace(referenceV1, "COMPANIES", "error_stream", 1) + `}`, invalid, "The table name error_stream is that of the stream of errors."},
		"a bucket that is none":                {"AddApplicationReferenceDataSource", at1 + `"ReferenceDataSource": ` + strings.Replace(referenceV1, "arn:aws:s3:::bucket", "arn:aws:s3:::bucket/key", 1) + `}`, invalid, "BucketARN arn:aws:s3:::bucket/key is not the ARN of a bucket."},
		"a log stream that is none":            {"AddApplicationCloudWatchLoggingOption", at1 + `"CloudWatchLoggingOption": {"LogStreamARN": "arn:aws:logs:eu-central-1:123456789012:log-group:g", ` + role + `}}`, invalid, "LogStreamARN arn:aws:logs:eu-central-1:123456789012:log-group:g is not the ARN of a log stream."},
		"a log stream twice":                   {"AddApplicationCloudWatchLoggingOption", at1 + `"CloudWatchLoggingOption": {` + logARN + `, ` + role + `}}`, invalid, "The log stream arn:aws:logs:eu-central-1:123456789012:log-group:g:log-stream:s is given twice."},
		"no such input":                        {"AddApplicationInputProcessingConfiguration", at1 + `"InputId": "2.1", "InputProcessingConfiguration": ` + processed + `}`, "ResourceNotFoundException", "Input 2.1 not found."},
		"nothing to delete":                    {"DeleteApplicationInputProcessingConfiguration", at1 + `"InputId": "1.1"}`, "ResourceNotFoundException", "Input 1.1 has no input processing configuration."},
		"no such output":                       {"DeleteApplicationOutput", at1 + `"OutputId": "1.2"}`, "ResourceNotFoundException", "Output 1.2 not found."},
		"no such reference":                    {"DeleteApplicationReferenceDataSource", at1 + `"ReferenceId": "1.1"}`, "ResourceNotFoundException", "Reference data source 1.1 not found."},
		"no such logging option":               {"DeleteApplicationCloudWatchLoggingOption", at1 + `"CloudWatchLoggingOptionId": "1.2"}`, "ResourceNotFoundException", "CloudWatch logging option 1.2 not found."},
		"no such application":                  {"DescribeApplication", `{"ApplicationName": "b"}`, "ResourceNotFoundException", "Application b under account 123456789012 not found."},
		"a name twice":                         {"CreateApplication", `{"ApplicationName": "a"}`, "ResourceInUseException", "Application a under account 123456789012 already exists."},
		"a bad name":                           {"CreateApplication", `{"ApplicationName": "a b"}`, "ValidationException", "1 validation error detected: …"},
		"start: no such input":                 {"StartApplication", `{"ApplicationName": "a", "InputConfigurations": [{"Id": "9.1", "InputStartingPositionConfiguration": {}}]}`, "ResourceNotFoundException", "Input 9.1 not found."},
		"start: an input twice":                {"StartApplication", `{"ApplicationName": "a", "InputConfigurations": [{"Id": "1.1", "InputStartingPositionConfiguration": {}}, {"Id": "1.1", "InputStartingPositionConfiguration": {}}]}`, invalid, "Input 1.1 is given twice."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.must("v1", "CreateApplication", createV1)
			wantError(t, r.v1(test.operation, test.input), test.code, test.message)
			if v := r.get("a").record.Version; v != 1 || r.get("a").record.Status != ready {
				t.Errorf("a refused change left version %d, %s", v, r.get("a").record.Status)
			}
		})
	}
	r := newRig(t, nil)
	r.must("v1", "CreateApplication", createV1)
	r.must("v1", "AddApplicationOutput", at1+`"Output": `+lambda+`}`)
	r.must("v1", "AddApplicationOutput", strings.Replace(at1, "1", "2", 1)+`"Output": `+hose+`}`)
	wantError(t, r.v1("AddApplicationOutput", strings.Replace(at1, "1", "3", 1)+`"Output": `+strings.Replace(hose, "OUT", "OUT2", 1)+`}`), invalid, "An application can have at most 3 outputs.")
	r.must("v1", "AddApplicationReferenceDataSource", strings.Replace(at1, "1", "3", 1)+`"ReferenceDataSource": `+referenceV1+`}`)
	wantError(t, r.v1("AddApplicationReferenceDataSource", strings.Replace(at1, "1", "4", 1)+`"ReferenceDataSource": `+strings.Replace(referenceV1, "COMPANIES", "B", 1)+`}`), invalid, "An application can have at most 1 reference data source.")
}

func TestPrograms(t *testing.T) {
	const noStream = `CREATE STREAM s (a INTEGER); CREATE PUMP p AS INSERT INTO s SELECT STREAM x FROM nowhere;`
	for name, test := range map[string]struct{ create, code, message string }{
		"a wrong word":                       {`{"ApplicationName": "a", "ApplicationCode": "CREATE STREEM s (a INTEGER);"}`, "CodeValidationException", "line 1, column 8: …"},
		"a stream that is not there":         {replaced(t, createV1, program, noStream), "CodeValidationException", "line 1, column …"},
		"an extension":                       {replaced(t, createV1, `FROM \"SOURCE_SQL_STREAM_001\"`, `FROM \"SOURCE_SQL_STREAM_001\" LIMIT 3`), "CodeValidationException", "line 1, column …"},
		"an extension of another's":          {replaced(t, createV1, `FROM \"SOURCE_SQL_STREAM_001\"`, `FROM \"SOURCE_SQL_STREAM_001\" LIMIT 3`, `"Inputs"`, `"Tags": [{"Key": "millrace:sql-extensions", "Value": "off"}], "Inputs"`), "CodeValidationException", "line 1, column …"},
		"an extension that is on":            {replaced(t, createV1, `FROM \"SOURCE_SQL_STREAM_001\"`, `FROM \"SOURCE_SQL_STREAM_001\" LIMIT 3`, `"Inputs"`, `"Tags": [{"Key": "millrace:sql-extensions", "Value": "on"}], "Inputs"`), "", ""},
		"what it reads comes with the input": {`{"ApplicationName": "a", "ApplicationCode": "` + noStream + `"}`, "", ""},
		"a column like one of the service's": {strings.ReplaceAll(strings.ReplaceAll(createV1, `\"ticker\"`, `\"SHARD_ID\"`), `"Name": "ticker"`, `"Name": "SHARD_ID"`), "", ""},
		"blank":                              {replaced(t, createV1, program, ` \n`), "", ""},
		"too long":                           {`{"ApplicationName": "a", "ApplicationCode": "` + strings.Repeat(" ", 102401) + `"}`, "ValidationException", "1 validation error detected: …"},
		"deep":                               {replaced(t, createV1, program, "CREATE STREAM s (a INTEGER); CREATE PUMP p AS INSERT INTO s SELECT STREAM "+strings.Repeat("(", 50000)), "CodeValidationException", "line 1, column …"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			err := r.v1("CreateApplication", test.create)
			if test.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, test.code, test.message)
		})
	}
	t.Run("many errors are cut short", func(t *testing.T) {
		r := newRig(t, nil)
		err := r.v1("CreateApplication", replaced(t, createV1, program, strings.Repeat("CREATE STREAM; ", 2000)))
		wantError(t, err, "CodeValidationException", "line 1, …")
		if n := strings.Count(err.Error(), "line 1, column"); n != maxProblems {
			t.Errorf("%d problems are told", n)
		}
	})
	t.Run("a refused update leaves the old version", func(t *testing.T) {
		r := newRig(t, nil)
		r.must("v1", "CreateApplication", createV1)
		r.must("v1", "StartApplication", `{"ApplicationName": "a", "InputConfigurations": []}`)
		r.settle()
		r.host.calls()
		wantError(t, r.v1("UpdateApplication", `{"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ApplicationUpdate": {"ApplicationCodeUpdate": "SELECT"}}`), "CodeValidationException", "line 1, column …")
		r.settle()
		if calls := r.host.calls(); calls != "" || r.get("a").record.Status != running || r.get("a").record.Version != 1 {
			t.Errorf("told %q, %s, version %d", calls, r.get("a").record.Status, r.get("a").record.Version)
		}
	})
}

func TestWhatCannotBeStarted(t *testing.T) {
	const invalid, unusable = "InvalidArgumentException", "InvalidApplicationConfigurationException"
	hose := replaced(t, createV1, `"KinesisStreamsInput": {`+streamARN, `"KinesisFirehoseInput": {`+hoseARN)
	join := strings.Replace(createV2, `FROM \"SOURCE_SQL_STREAM_001\"`, `FROM \"SOURCE_SQL_STREAM_001\" AS s JOIN \"COMPANIES\" AS c ON s.\"ticker\" = c.\"ticker\"`, 1)
	join = strings.Replace(join, `SELECT STREAM \"ticker\", `, `SELECT STREAM s.\"ticker\", `, 1)
	for name, test := range map[string]struct{ version, create, then, position, code, message string }{
		"no input":     {"v1", `{"ApplicationName": "a", "ApplicationCode": "` + program + `"}`, "", "", unusable, "Application a has no input."},
		"no code":      {"v1", replaced(t, createV1, `"ApplicationCode": "`+program+`", `, ``), "", "", unusable, "Application a has no code."},
		"a lost table": {"v2", join, `DeleteApplicationReferenceDataSource {"ApplicationName": "a", "CurrentApplicationVersionId": 1, "ReferenceId": "1.1"}`, "", unusable, "The code of application a is not valid: line 1, column …"},
		"an oldest that a delivery stream has not": {"v1", hose, "", "TRIM_HORIZON", invalid, "The starting position TRIM_HORIZON is not supported for input 1.1, which is a delivery stream."},
		"an unknown position":                      {"v1", createV1, "", "YESTERDAY", "ValidationException", "1 validation error detected: …"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.must(test.version, "CreateApplication", test.create)
			if operation, input, ok := strings.Cut(test.then, " "); ok {
				r.must(test.version, operation, input)
			}
			configurations := ""
			if test.position != "" {
				configurations = fmt.Sprintf(`{"Id": "1.1", "InputStartingPositionConfiguration": {"InputStartingPosition": %q}}`, test.position)
			}
			wantError(t, r.v1("StartApplication", `{"ApplicationName": "a", "InputConfigurations": [`+configurations+`]}`), test.code, test.message)
			if r.get("a").record.Status != ready {
				t.Error("it starts")
			}
		})
	}
}

// What version 2 has for Flink is refused as the model allows, and makes nothing.
func TestWhatIsForFlink(t *testing.T) {
	const (
		a           = `{"ApplicationName": "a"`
		unsupported = "UnsupportedOperationException"
		notSQL      = " not supported for application a, whose runtime environment is SQL-1_0."
	)
	for operation, test := range map[string]struct{ input, code, message string }{
		"AddApplicationVpcConfiguration":            {a + `, "VpcConfiguration": {"SubnetIds": ["s"], "SecurityGroupIds": ["g"]}}`, "InvalidApplicationConfigurationException", "VPC configurations are" + notSQL},
		"DeleteApplicationVpcConfiguration":         {a + `, "VpcConfigurationId": "1.1"}`, "InvalidApplicationConfigurationException", "VPC configurations are" + notSQL},
		"CreateApplicationPresignedUrl":             {a + `, "UrlType": "FLINK_DASHBOARD_URL"}`, "InvalidArgumentException", "Presigned URLs are" + notSQL},
		"CreateApplicationSnapshot":                 {a + `, "SnapshotName": "s"}`, unsupported, "Snapshots are" + notSQL},
		"DeleteApplicationSnapshot":                 {a + `, "SnapshotName": "s", "SnapshotCreationTimestamp": "2026-05-01T12:00:00Z"}`, unsupported, "Snapshots are" + notSQL},
		"DescribeApplicationSnapshot":               {a + `, "SnapshotName": "s"}`, unsupported, "Snapshots are" + notSQL},
		"ListApplicationSnapshots":                  {a + `}`, unsupported, "Snapshots are" + notSQL},
		"CreateSnapshot":                            {a + `, "SnapshotName": "s"}`, unsupported, "Snapshots are" + notSQL},
		"DescribeSnapshot":                          {`{"SnapshotName": "s"}`, "ResourceNotFoundException", "Snapshot s not found."},
		"DeleteSnapshot":                            {`{"SnapshotName": "s", "SnapshotCreationTimestamp": "2026-05-01T12:00:00Z"}`, "ResourceNotFoundException", "Snapshot s not found."},
		"ListSnapshots":                             {`{"SourceApplicationName": "a"}`, unsupported, "Snapshots are" + notSQL},
		"ListSnapshotOperations":                    {`{"SnapshotName": "s"}`, "ResourceNotFoundException", "Snapshot s not found."},
		"DescribeApplicationOperation":              {a + `, "OperationId": "o"}`, unsupported, "Operations are" + notSQL},
		"ListApplicationOperations":                 {a + `}`, unsupported, "Operations are" + notSQL},
		"DescribeApplicationVersion":                {a + `, "ApplicationVersionId": 1}`, unsupported, "Descriptions of versions are" + notSQL},
		"ListApplicationVersions":                   {a + `}`, unsupported, "Lists of versions are" + notSQL},
		"RollbackApplication":                       {a + `, "CurrentApplicationVersionId": 1}`, unsupported, "A rollback is" + notSQL},
		"UpdateApplicationMaintenanceConfiguration": {a + `, "ApplicationMaintenanceConfigurationUpdate": {"ApplicationMaintenanceWindowStartTimeUpdate": "03:00"}}`, unsupported, "Maintenance configurations are" + notSQL},
		"StopApplication":                           {a + `, "Force": true}`, "InvalidArgumentException", "Force is not supported for the runtime environment SQL-1_0."},
		"StartApplication":                          {a + `, "RunConfiguration": {"FlinkRunConfiguration": {}}}`, "InvalidArgumentException", "RunConfiguration can have SqlRunConfigurations only for the runtime environment SQL-1_0."},
		"UpdateApplication":                         {a + `, "CurrentApplicationVersionId": 1, "ApplicationConfigurationUpdate": {"EnvironmentPropertyUpdates": {"PropertyGroups": []}}}`, "InvalidArgumentException", "ApplicationConfigurationUpdate can have SqlApplicationConfigurationUpdate and ApplicationCodeConfigurationUpdate only for the runtime environment SQL-1_0."},
		"CreateApplication":                         {`{"ApplicationName": "b", "RuntimeEnvironment": "FLINK-1_20", "ServiceExecutionRole": "arn:aws:iam::123456789012:role/sql"}`, unsupported, "The runtime environment FLINK-1_20 is not supported; applications are SQL-1_0."},
	} {
		t.Run(operation, func(t *testing.T) {
			r := newRig(t, nil)
			r.must("v2", "CreateApplication", createV2)
			wantError(t, r.v2(operation, test.input), test.code, test.message)
			if strings.HasPrefix(test.input, a) {
				wantError(t, r.v2(operation, strings.Replace(test.input, `"a"`, `"nobody"`, 1)), map[bool]string{true: "InvalidArgumentException", false: "ResourceNotFoundException"}[operation == "StartApplication" || operation == "UpdateApplication"], "…")
			}
		})
	}
}
