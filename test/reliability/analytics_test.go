package reliability

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesisanalyticsv2"
	analyticstypes "github.com/aws/aws-sdk-go-v2/service/kinesisanalyticsv2/types"

	"github.com/millrace/millrace/test/harness"
)

func newAnalyticsClient(t *testing.T, s *harness.Server) *kinesisanalyticsv2.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return kinesisanalyticsv2.New(kinesisanalyticsv2.Options{
		Region: harness.Region, BaseEndpoint: aws.String(s.URL(false)), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		HTTPClient:  &http.Client{Transport: transport, Timeout: 30 * time.Second},
	})
}

const countedCode = `CREATE STREAM "EACH" ("n" BIGINT); CREATE PUMP P AS INSERT INTO "EACH" SELECT STREAM "n" FROM "IN_001";
CREATE STREAM "SUMS" ("k" VARCHAR(1), "rows" BIGINT, "sum" BIGINT);
CREATE PUMP Q AS INSERT INTO "SUMS" SELECT STREAM "k", COUNT(*), SUM("n") FROM "IN_001" GROUP BY "k", FLOOR("IN_001".ROWTIME TO SECOND);`

// createCounting makes and starts an application that passes on what each of its
// rows has, and counts them by key and second.
func createCounting(t *testing.T, client *kinesisanalyticsv2.Client, from, each, sums string) {
	t.Helper()
	arn := func(stream string) *string {
		return aws.String("arn:aws:kinesis:" + harness.Region + ":" + harness.Account + ":stream/" + stream)
	}
	to := func(name, stream string) analyticstypes.Output {
		return analyticstypes.Output{Name: &name, KinesisStreamsOutput: &analyticstypes.KinesisStreamsOutput{ResourceARN: arn(stream)},
			DestinationSchema: &analyticstypes.DestinationSchema{RecordFormatType: analyticstypes.RecordFormatTypeJson}}
	}
	column := func(name, kind string) analyticstypes.RecordColumn {
		return analyticstypes.RecordColumn{Name: &name, SqlType: &kind, Mapping: aws.String("$." + name)}
	}
	_, err := client.CreateApplication(t.Context(), &kinesisanalyticsv2.CreateApplicationInput{
		ApplicationName: aws.String("counting"), RuntimeEnvironment: analyticstypes.RuntimeEnvironmentSql10,
		ServiceExecutionRole: aws.String(harness.AnalyticsRole),
		ApplicationConfiguration: &analyticstypes.ApplicationConfiguration{
			ApplicationCodeConfiguration: &analyticstypes.ApplicationCodeConfiguration{
				CodeContentType: analyticstypes.CodeContentTypePlaintext, CodeContent: &analyticstypes.CodeContent{TextContent: aws.String(countedCode)},
			},
			SqlApplicationConfiguration: &analyticstypes.SqlApplicationConfiguration{
				Inputs: []analyticstypes.Input{{
					NamePrefix: aws.String("IN"), KinesisStreamsInput: &analyticstypes.KinesisStreamsInput{ResourceARN: arn(from)},
					InputSchema: &analyticstypes.SourceSchema{
						RecordColumns: []analyticstypes.RecordColumn{column("n", "BIGINT"), column("k", "VARCHAR(1)")},
						RecordFormat: &analyticstypes.RecordFormat{
							RecordFormatType:  analyticstypes.RecordFormatTypeJson,
							MappingParameters: &analyticstypes.MappingParameters{JSONMappingParameters: &analyticstypes.JSONMappingParameters{RecordRowPath: aws.String("$")}},
						},
					},
				}},
				Outputs: []analyticstypes.Output{to("EACH", each), to("SUMS", sums)},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.StartApplication(t.Context(), &kinesisanalyticsv2.StartApplicationInput{
		ApplicationName: aws.String("counting"),
		RunConfiguration: &analyticstypes.RunConfiguration{SqlRunConfigurations: []analyticstypes.SqlRunConfiguration{{
			InputId:                            aws.String("1.1"),
			InputStartingPositionConfiguration: &analyticstypes.InputStartingPositionConfiguration{InputStartingPosition: analyticstypes.InputStartingPositionTrimHorizon},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// updateCounting gives the application another program in which the pumps that it has
// are as they were; an error means that the server has been killed meanwhile.
func updateCounting(ctx context.Context, client *kinesisanalyticsv2.Client, round int) error {
	name := aws.String("counting")
	d, err := client.DescribeApplication(ctx, &kinesisanalyticsv2.DescribeApplicationInput{ApplicationName: name})
	if err != nil {
		return err
	}
	code := fmt.Sprintf(`%s CREATE STREAM "MORE" ("n" BIGINT); CREATE PUMP R AS INSERT INTO "MORE" SELECT STREAM "n" + %d FROM "EACH";`, countedCode, round)
	_, err = client.UpdateApplication(ctx, &kinesisanalyticsv2.UpdateApplicationInput{
		ApplicationName: name, CurrentApplicationVersionId: d.ApplicationDetail.ApplicationVersionId,
		ApplicationConfigurationUpdate: &analyticstypes.ApplicationConfigurationUpdate{
			ApplicationCodeConfigurationUpdate: &analyticstypes.ApplicationCodeConfigurationUpdate{CodeContentUpdate: &analyticstypes.CodeContentUpdate{TextContentUpdate: &code}},
		},
	})
	return err
}

// splitOne splits an open shard of a stream in the middle.
func splitOne(ctx context.Context, client *kinesis.Client, stream string) error {
	list, err := client.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &stream})
	if err != nil {
		return err
	}
	for _, sh := range list.Shards {
		if sh.SequenceNumberRange.EndingSequenceNumber != nil {
			continue
		}
		start, _ := new(big.Int).SetString(*sh.HashKeyRange.StartingHashKey, 10)
		end, _ := new(big.Int).SetString(*sh.HashKeyRange.EndingHashKey, 10)
		middle := start.Add(start, end)
		middle.Rsh(middle, 1)
		_, err := client.SplitShard(ctx, &kinesis.SplitShardInput{StreamName: &stream, ShardToSplit: sh.ShardId, NewStartingHashKey: aws.String(middle.String())})
		return err
	}
	return nil
}

// spoil changes a byte of the newest checkpoint in a data directory, if it is not
// the only one; done says that it was.
func spoil(data string, random *rand.Rand) (done bool, err error) {
	names, err := filepath.Glob(filepath.Join(data, "applications", "*.checkpoint"))
	if err != nil || len(names) != 1 {
		return false, err
	}
	if _, err := os.Stat(names[0] + ".previous"); err != nil {
		return false, nil
	}
	raw, err := os.ReadFile(names[0])
	if err != nil {
		return false, err
	}
	raw[random.IntN(len(raw))] ^= 1
	return true, os.WriteFile(names[0], raw, 0o644)
}

// numbered puts rows with ascending numbers until the server does not answer.
func numbered(ctx context.Context, client *kinesis.Client, stream string, next *int) error {
	for ctx.Err() == nil {
		in := &kinesis.PutRecordsInput{StreamName: &stream}
		for range 20 {
			in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String(strconv.Itoa(*next)),
				Data: fmt.Appendf(nil, `{"n":%d,"k":"%c"}`, *next, 'a'+rune(*next%3))})
			*next++
		}
		if _, err := client.PutRecords(ctx, in); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// TestApplicationsCountEveryRecord kills the server at random moments while an
// application runs, also while it is given another program and while its source is
// resharded, and spoils checkpoints in between. Every record that the source has
// comes out of it once, and is counted once in the windows, although those follow
// the time of processing.
func TestApplicationsCountEveryRecord(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	options := harness.Options{Data: filepath.Join(t.TempDir(), "data"), Args: []string{"--exactly-once", "--checkpoint-interval", "700ms"}}
	const from, each, sums = "numbers", "each", "sums"
	next := 0
	end := time.Now().Add(period(15*time.Second, 10*time.Minute))
	rounds, updates, splits, spoiled := 0, 0, 0, 0
	for ; rounds < 3 || time.Now().Before(end); rounds++ {
		s, err := harness.Start(t.Context(), options)
		for tries := 0; err != nil && tries < 5 && strings.Contains(err.Error(), "is taken by another process"); tries++ {
			s, err = harness.Start(t.Context(), options) // a port that was free has been taken since
		}
		if err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		client := newClient(t, s)
		if rounds == 0 {
			for stream, shards := range map[string]int32{from: 3, each: 2, sums: 1} {
				create(t, client, stream, shards)
			}
			createCounting(t, newAnalyticsClient(t, s), from, each, sums)
		}
		var writer sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		writer.Go(func() { _ = numbered(ctx, client, from, &next) })
		time.Sleep(time.Duration(random.IntN(1200)) * time.Millisecond)
		if random.IntN(3) == 0 {
			updates++
			round, analytics := rounds, newAnalyticsClient(t, s)
			writer.Go(func() { _ = updateCounting(ctx, analytics, round) })
		}
		if random.IntN(4) == 0 && splits < 8 {
			splits++
			writer.Go(func() { _ = splitOne(ctx, client, from) })
		}
		time.Sleep(time.Duration(random.IntN(1200)) * time.Millisecond)
		s.Kill()
		cancel()
		writer.Wait()
		if random.IntN(3) == 0 {
			done, err := spoil(options.Data, random)
			if err != nil {
				t.Fatal(err)
			}
			if done {
				spoiled++
			}
		}
	}
	s := start(t, options)
	client := newClient(t, s)
	all := func(stream string, f func(data []byte)) {
		t.Helper()
		shards, err := read(t.Context(), client, stream)
		if err != nil {
			t.Fatal(err)
		}
		for _, records := range shards {
			for _, r := range records {
				f(r.Data)
			}
		}
	}
	number := func(data []byte) (row struct{ N, Rows, Sum int }) {
		if err := json.Unmarshal(data, &row); err != nil {
			t.Fatal(err)
		}
		return row
	}
	stored, sum := map[int]int{}, 0
	all(from, func(data []byte) { n := number(data).N; stored[n]++; sum += n })
	var out map[int]int
	var counted, total int
	for wait := time.Now().Add(30 * time.Second); time.Now().Before(wait); time.Sleep(200 * time.Millisecond) {
		out, counted, total = map[int]int{}, 0, 0
		all(each, func(data []byte) { out[number(data).N]++ })
		all(sums, func(data []byte) { row := number(data); counted += row.Rows; total += row.Sum })
		if len(out) >= len(stored) && counted >= len(stored) {
			break
		}
	}
	wrong := 0
	for n := range next {
		if stored[n] > 1 || out[n] != stored[n] {
			if wrong++; wrong <= 10 {
				t.Errorf("record %d is %d times in the source and came out %d times", n, stored[n], out[n])
			}
		}
	}
	if counted != len(stored) || total != sum {
		t.Errorf("windows count %d records with the sum %d; the source has %d with %d", counted, total, len(stored), sum)
	}
	if t.Failed() {
		t.Fatal(s.Output())
	}
	t.Logf("%d kills, %d updates, %d splits, %d spoiled checkpoints, %d records", rounds, updates, splits, spoiled, len(stored))
}
