package reliability

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/firehose"
	firehosetypes "github.com/aws/aws-sdk-go-v2/service/firehose/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/millrace/millrace/test/harness"
)

// fate is what a peer does with a request.
type fate int

const (
	takes       fate = iota // keeps the records and says so
	fails                   // answers 500, keeps nothing
	busy                    // answers 503 with Retry-After, keeps nothing
	tooLarge                // answers 413 to more than one record, keeps nothing
	speechless              // answers 200 with something else than JSON, keeps nothing
	resets                  // ends the connection, keeps nothing
	stalls                  // answers when it is too late, keeps nothing
	forgets                 // keeps the records and ends the connection
	confused                // keeps the records and answers for another request
	chokes                  // keeps the records and answers 500
	countOfFate             // of fates
)

// peer is an HTTP endpoint that fails at random. It outlives the servers that
// deliver to it.
type peer struct {
	url    string
	honest atomic.Bool  // takes everything from now on
	round  atomic.Int64 // the server's life that requests come from

	mu      sync.Mutex
	random  *rand.Rand
	fates   [countOfFate]int
	kept    map[string]found       // by stream: how often a record was kept
	settled map[string]map[int]int // by stream and record: the round in which it was kept and the answer given
	twice   []error                // records that were settled twice in one round
	broken  error                  // the first request that breaks the contract
}

func startPeer(t *testing.T, seed uint64) *peer {
	p := &peer{random: rand.New(rand.NewPCG(seed, 2)), kept: map[string]found{}, settled: map[string]map[int]int{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + listener.Addr().String() + "/"
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Close(); running.Wait() })
	return p
}

func (p *peer) choose(records int) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := takes
	if !p.honest.Load() {
		switch n := p.random.IntN(100); {
		case n < 8:
			f = fails
		case n < 12:
			f = busy
		case n < 16 && records > 1:
			f = tooLarge
		case n < 20:
			f = speechless
		case n < 26:
			f = resets
		case n < 28:
			f = stalls
		case n < 33:
			f = forgets
		case n < 38:
			f = confused
		case n < 43:
			f = chokes
		}
	}
	p.fates[f]++
	return f
}

// keep notes records, and that the answer to their request is under way.
func (p *peer) keep(stream string, numbers []int, settled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept[stream] == nil {
		p.kept[stream], p.settled[stream] = found{}, map[int]int{}
	}
	round := int(p.round.Load())
	for _, n := range numbers {
		p.kept[stream][n]++
		if !settled {
			continue
		}
		if before, ok := p.settled[stream][n]; ok && before == round {
			p.twice = append(p.twice, fmt.Errorf("%s: record %d was delivered, and answered for, twice in round %d", stream, n, round))
		}
		p.settled[stream][n] = round
	}
}

func (p *peer) complain(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = err
	}
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	stream := strings.Trim(r.URL.Path, "/")
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return // killed while it sent
		}
		body = z
	}
	raw, err := io.ReadAll(io.LimitReader(body, 64<<20))
	if err != nil {
		return // the same
	}
	var in struct {
		RequestID string
		Records   []struct{ Data []byte }
	}
	if err := json.Unmarshal(raw, &in); err != nil || in.RequestID == "" || in.RequestID != r.Header.Get("X-Amz-Firehose-Request-Id") {
		p.complain(fmt.Errorf("request %q of %s: %v: %.200q", r.Header.Get("X-Amz-Firehose-Request-Id"), stream, err, raw))
		return
	}
	numbers := make([]int, len(in.Records))
	for i, record := range in.Records {
		if numbers[i], err = numberOfLine(stream, record.Data); err != nil {
			p.complain(err)
			return
		}
	}
	answer := func(status int, contentType, text string) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
	reply := func(id string) string {
		return fmt.Sprintf(`{"requestId":%q,"timestamp":%d}`, id, time.Now().UnixMilli())
	}
	const jsonType = "application/json"
	switch p.choose(len(numbers)) {
	case takes:
		// On a machine that has been busy for seconds, the other side may have
		// given up: then it is right to come again.
		p.keep(stream, numbers, r.Context().Err() == nil && time.Since(began) < time.Second)
		answer(200, jsonType, reply(in.RequestID))
	case fails:
		answer(500, jsonType, `{"requestId":"`+in.RequestID+`","timestamp":1,"errorMessage":"it happens"}`)
	case busy:
		w.Header().Set("Retry-After", "1")
		answer(503, jsonType, reply(in.RequestID))
	case tooLarge:
		answer(413, jsonType, reply(in.RequestID))
	case speechless:
		answer(200, "text/html", "<p>welcome</p>")
	case resets:
		hangUp(w)
	case stalls:
		<-r.Context().Done()
	case forgets:
		p.keep(stream, numbers, false)
		hangUp(w)
	case confused:
		p.keep(stream, numbers, false)
		answer(200, jsonType, reply("00000000-0000-0000-0000-000000000000"))
	case chokes:
		p.keep(stream, numbers, false)
		answer(500, jsonType, reply(in.RequestID))
	}
}

func hangUp(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// moody is a function that ends its own process now and then, refuses some
// records, and passes the rest.
const moody = `import base64, json, os, random

def lambda_handler(event, context):
    if random.random() < 0.1:
        os._exit(3)
    if random.random() < 0.1:
        raise RuntimeError("not today")
    out = []
    for record in event["records"]:
        number = json.loads(base64.b64decode(record["data"]))["number"]
        result = "ProcessingFailed" if number % 50 == 7 else "Ok"
        out.append({"recordId": record["recordId"], "result": result, "data": record["data"]})
    return {"records": out}
`

func delivering(t *testing.T, s *harness.Server) (*firehose.Client, *s3.Client) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	keys := credentials.NewStaticCredentialsProvider("key", "secret", "")
	return firehose.New(firehose.Options{Region: harness.Region, BaseEndpoint: aws.String(s.URL(false)), Credentials: keys, Retryer: aws.NopRetryer{}, HTTPClient: client}),
		s3.New(s3.Options{Region: harness.Region, BaseEndpoint: aws.String(s.URL(false)), Credentials: keys, UsePathStyle: true, Retryer: aws.NopRetryer{}, HTTPClient: client})
}

const (
	searchFailed = "AmazonOpenSearchService-failed"

	lake = "lake"
	role = "arn:aws:iam::" + harness.Account + ":role/delivery"
)

func places(stream string) (prefix, failures *string) {
	return aws.String(stream + "/data/"), aws.String(stream + "/failed/!{firehose:error-output-type}/")
}

// toObjects delivers after so many seconds. With none there is an object for every
// few puts, and a kill is likely to come between an object and the note that it
// is there.
func toObjects(stream string, seconds int32, processing *firehosetypes.ProcessingConfiguration) *firehose.CreateDeliveryStreamInput {
	prefix, failures := places(stream)
	return &firehose.CreateDeliveryStreamInput{DeliveryStreamName: &stream, ExtendedS3DestinationConfiguration: &firehosetypes.ExtendedS3DestinationConfiguration{
		BucketARN: aws.String("arn:aws:s3:::" + lake), RoleARN: aws.String(role), Prefix: prefix, ErrorOutputPrefix: failures,
		BufferingHints:          &firehosetypes.BufferingHints{SizeInMBs: aws.Int32(1), IntervalInSeconds: &seconds},
		ProcessingConfiguration: processing,
	}}
}

func toPeer(stream string, retry int32, backup firehosetypes.HttpEndpointS3BackupMode) *firehose.CreateDeliveryStreamInput {
	prefix, failures := places(stream)
	return &firehose.CreateDeliveryStreamInput{DeliveryStreamName: &stream, HttpEndpointDestinationConfiguration: &firehosetypes.HttpEndpointDestinationConfiguration{
		EndpointConfiguration: &firehosetypes.HttpEndpointConfiguration{Url: aws.String("https://destinations.millrace.internal/" + stream)},
		BufferingHints:        &firehosetypes.HttpEndpointBufferingHints{SizeInMBs: aws.Int32(1), IntervalInSeconds: aws.Int32(0)},
		RetryOptions:          &firehosetypes.HttpEndpointRetryOptions{DurationInSeconds: &retry},
		RoleARN:               aws.String(role), S3BackupMode: backup,
		S3Configuration: &firehosetypes.S3DestinationConfiguration{BucketARN: aws.String("arn:aws:s3:::" + lake), RoleARN: aws.String(role), Prefix: prefix, ErrorOutputPrefix: failures,
			BufferingHints: &firehosetypes.BufferingHints{SizeInMBs: aws.Int32(1), IntervalInSeconds: aws.Int32(60)}},
	}}
}

func createDelivery(t *testing.T, client *firehose.Client, in *firehose.CreateDeliveryStreamInput) {
	t.Helper()
	if _, err := client.CreateDeliveryStream(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := client.DescribeDeliveryStream(t.Context(), &firehose.DescribeDeliveryStreamInput{DeliveryStreamName: in.DeliveryStreamName})
		if err != nil {
			t.Fatal(err)
		}
		if out.DeliveryStreamDescription.DeliveryStreamStatus == firehosetypes.DeliveryStreamStatusActive {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s", *in.DeliveryStreamName, out.DeliveryStreamDescription.DeliveryStreamStatus)
		}
	}
}

// drained flushes a delivery stream until nothing is buffered and nothing is left
// to read.
func drained(ctx context.Context, s *harness.Server, stream string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		common := []string{stream, "--endpoint", s.URL(false), "--region", harness.Region}
		if _, stderr, code, err := harness.Run(ctx, append([]string{"delivery", "flush"}, common...)...); err != nil || code != 0 {
			return fmt.Errorf("flush %s: exit code %d, %v: %s", stream, code, err, stderr)
		}
		stdout, stderr, code, err := harness.Run(ctx, append([]string{"delivery", "status", "--json"}, common...)...)
		if err != nil || code != 0 {
			return fmt.Errorf("status of %s: exit code %d, %v: %s", stream, code, err, stderr)
		}
		var status struct {
			BufferedRecords int
			Lanes           []struct{ Delivered, Available int64 }
		}
		if err := json.Unmarshal([]byte(stdout), &status); err != nil {
			return fmt.Errorf("status of %s: %w: %s", stream, err, stdout)
		}
		left := int64(status.BufferedRecords)
		for _, l := range status.Lanes {
			left += l.Available - l.Delivered
		}
		if left == 0 && len(status.Lanes) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not drained: %s", stream, stdout)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// toCluster retries for two seconds, so that some of what is refused for now goes
// to the error output and some comes through.
func toCluster(stream string) *firehose.CreateDeliveryStreamInput {
	prefix, failures := places(stream)
	return &firehose.CreateDeliveryStreamInput{DeliveryStreamName: &stream, AmazonopensearchserviceDestinationConfiguration: &firehosetypes.AmazonopensearchserviceDestinationConfiguration{
		ClusterEndpoint: aws.String(clusterName), IndexName: aws.String("logs"), IndexRotationPeriod: firehosetypes.AmazonopensearchserviceIndexRotationPeriodNoRotation,
		BufferingHints: &firehosetypes.AmazonopensearchserviceBufferingHints{SizeInMBs: aws.Int32(1), IntervalInSeconds: aws.Int32(0)},
		RetryOptions:   &firehosetypes.AmazonopensearchserviceRetryOptions{DurationInSeconds: aws.Int32(2)},
		RoleARN:        aws.String(role), S3BackupMode: firehosetypes.AmazonopensearchserviceS3BackupModeFailedDocumentsOnly,
		S3Configuration: &firehosetypes.S3DestinationConfiguration{BucketARN: aws.String("arn:aws:s3:::" + lake), RoleARN: aws.String(role), Prefix: prefix, ErrorOutputPrefix: failures},
	}}
}

// clusterName is what the API calls the cluster; the operator says where it is.
const clusterName = "https://search.example.com"

// TestAcceptedRecordsAreDeliveredOrAccountedFor puts to delivery streams whose
// destinations and functions fail at random, fills the disk at random, kills the
// server at random, with the disk full or not, and splits and merges the shards of
// a source. In the end every accepted record is delivered, in the backup or in an
// error output. Objects hold none twice; an endpoint gets a record again only when
// its answer was wrong, or was lost in a crash; a cluster has one document of each
// record, however often it was written.
func TestAcceptedRecordsAreDeliveredOrAccountedFor(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	p := startPeer(t, seed)
	search := startCluster(t, seed)
	// All that the records of the long form take, and metadata.
	full := startDisk(t, int64(period(512<<20, 16<<30)))
	data := filepath.Join(dir, "data")
	if full != nil {
		data = filepath.Join(full.dir, "data")
	}
	destinations := filepath.Join(dir, "destinations.yaml")
	text := fmt.Sprintf("endpoints:\n  %s: {endpoint: %q, timeout: 2s, request_bytes: 65536}\ndestinations:\n", clusterName, search.url)
	for _, name := range []string{"failed-only", "backed-up"} {
		text += fmt.Sprintf("  %s: {type: http, url: %q, timeout: 2s, gzip: %t}\n", name, p.url+name, name == "backed-up")
	}
	if err := os.WriteFile(destinations, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	function := filepath.Join(dir, "functions", "moody")
	if err := os.MkdirAll(function, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(function, "lambda_function.py"), []byte(moody), 0o600); err != nil {
		t.Fatal(err)
	}
	options := harness.Options{Data: data, Args: []string{
		"--wal-segment-bytes", "4MiB", "--wal-segments", "4", "--low-watermark", "8MiB", "--destinations", destinations, "--functions", filepath.Join(dir, "functions"),
	}}
	const source = "sourced" // a data stream and the delivery stream that reads it
	streams := map[string]*deliveries{}
	for _, name := range []string{"objects", "moody", source, "failed-only", "backed-up", "search"} {
		streams[name] = newDeliveries(name)
	}
	prepare := func(s *harness.Server, fh *firehose.Client, objects *s3.Client) {
		create(t, newClient(t, s), source, 2)
		if _, err := objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(lake)}); err != nil {
			t.Fatal(err)
		}
		createDelivery(t, fh, toObjects("objects", 0, nil))
		createDelivery(t, fh, toObjects("moody", 1, &firehosetypes.ProcessingConfiguration{Enabled: aws.Bool(true), Processors: []firehosetypes.Processor{{
			Type: firehosetypes.ProcessorTypeLambda, Parameters: []firehosetypes.ProcessorParameter{
				{ParameterName: firehosetypes.ProcessorParameterNameLambdaArn, ParameterValue: aws.String("arn:aws:lambda:" + harness.Region + ":" + harness.Account + ":function:moody")},
				{ParameterName: firehosetypes.ProcessorParameterNameLambdaNumberOfRetries, ParameterValue: aws.String("1")},
			},
		}}}))
		from := toObjects(source, 0, nil)
		from.DeliveryStreamType = firehosetypes.DeliveryStreamTypeKinesisStreamAsSource
		from.KinesisStreamSourceConfiguration = &firehosetypes.KinesisStreamSourceConfiguration{
			KinesisStreamARN: aws.String("arn:aws:kinesis:" + harness.Region + ":" + harness.Account + ":stream/" + source), RoleARN: aws.String(role)}
		createDelivery(t, fh, from)
		createDelivery(t, fh, toPeer("failed-only", 0, firehosetypes.HttpEndpointS3BackupModeFailedDataOnly))
		createDelivery(t, fh, toPeer("backed-up", 3, firehosetypes.HttpEndpointS3BackupModeAllData))
		createDelivery(t, fh, toCluster("search"))
	}
	end := time.Now().Add(period(8*time.Second, 10*time.Minute))
	rounds, reshards, fills, fullStarts, failedStarts := 0, 0, 0, 0, 0
	var refusals atomic.Int64 // puts
	stillFull := false
	for ; rounds < 3 || time.Now().Before(end); rounds++ {
		p.round.Store(int64(rounds))
		s, err := harness.Start(t.Context(), options)
		if stillFull {
			// Something else has taken even what the server keeps back for a start: it
			// may say so and end.
			fullStarts++
			if err != nil && strings.Contains(err.Error(), "no space left on the disk") {
				failedStarts++
				if err := full.empty(); err != nil {
					t.Fatal(err)
				}
				stillFull = false
				s, err = harness.Start(t.Context(), options)
			}
		}
		if err != nil {
			t.Fatalf("round %d, disk full %t: %v", rounds, stillFull, err)
		}
		t.Cleanup(s.Kill) // should the test end before it does
		fh, objects := delivering(t, s)
		if rounds == 0 {
			prepare(s, fh, objects)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var workers sync.WaitGroup
		load := func(put func(ctx context.Context) error) {
			workers.Go(func() {
				for ctx.Err() == nil { // until the server is killed
					var refused smithy.APIError
					if errors.As(put(ctx), &refused) {
						refusals.Add(1)
					}
					select {
					case <-ctx.Done():
						return
					case <-time.After(20 * time.Millisecond):
					}
				}
			})
		}
		for name, d := range streams {
			if name == source {
				client := newClient(t, s)
				load(func(ctx context.Context) error { return d.putSource(ctx, client, name, 50) })
				continue
			}
			load(func(ctx context.Context) error { return d.put(ctx, fh, 50) })
		}
		target := int32(1 + random.IntN(4))
		workers.Go(func() {
			client := newClient(t, s)
			if _, err := client.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{StreamName: aws.String(source), TargetShardCount: &target, ScalingType: types.ScalingTypeUniformScaling}); err == nil {
				reshards++
			}
		})
		life := time.Duration(500+random.IntN(2500)) * time.Millisecond
		if full != nil {
			if stillFull {
				time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
				if err := full.empty(); err != nil {
					t.Fatal(err)
				}
			}
			if stillFull = false; random.IntN(2) == 0 {
				fills++
				time.Sleep(life / 3)
				// Down to the last block, below the watermark, or near it.
				if err := full.fill([]int64{0, 256 << 10, random.Int64N(16 << 20)}[random.IntN(3)]); err != nil {
					t.Fatal(err)
				}
				life /= 2
				if stillFull = random.IntN(2) == 0; !stillFull {
					time.Sleep(life)
					if err := full.empty(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		time.Sleep(life)
		s.Kill()
		cancel()
		workers.Wait()
	}

	p.round.Store(int64(rounds))
	p.honest.Store(true)
	search.honest.Store(true)
	if stillFull {
		if err := full.empty(); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, options)
	_, objects := delivering(t, s)
	for name, d := range streams {
		if err := drained(t.Context(), s, name); err != nil {
			t.Error(err)
		}
		b, err := readBucket(t.Context(), objects, lake, name)
		if err != nil {
			t.Fatal(err)
		}
		report := fmt.Sprintf("%s: %d accepted, %d in objects", name, d.count(), len(b.objects))
		for kind, f := range b.errors {
			report += fmt.Sprintf(", %d %s", len(f), kind)
		}
		union, err := found(nil), error(nil)
		switch name {
		case "failed-only":
			union, err = d.once(b.objects, b.errors["http-endpoint-failed"])
		case "search":
			union, err = d.once(b.objects, b.errors[searchFailed])
			for n := range b.errors[searchFailed] {
				if unmappable(n) && search.writes[n] > 0 {
					t.Errorf("search: record %d is a document and no mapping fits it", n)
				}
			}
			for n := range search.ids {
				union[n]++
			}
			report += ", " + search.report()
		case "backed-up":
			// The backup alone has them all.
			union, err = d.once(b.objects)
		default:
			union, err = d.once(append(slices.Collect(maps.Values(b.errors)), b.objects)...)
		}
		if err != nil {
			t.Error(err)
		}
		if name == "backed-up" {
			if err := d.missing(union); err != nil {
				t.Errorf("in the backup: %v", err)
			}
			union = found{}
			maps.Copy(union, b.errors["http-endpoint-failed"])
		}
		if kept := p.kept[name]; kept != nil {
			times, most := 0, 0
			for n, k := range kept {
				union[n] += k
				times, most = times+k-1, max(most, k)
			}
			report += fmt.Sprintf(", %d kept by the endpoint and %d of them again, at most %d times", len(kept), times, most)
		}
		if err := d.missing(union); err != nil {
			t.Error(err)
		}
		if d.count() == 0 || len(union) == 0 {
			t.Errorf("%s did nothing", name)
		}
		for stream, kind := range map[string]string{"moody": "processing-failed", "failed-only": "http-endpoint-failed", "search": searchFailed} {
			if name == stream && len(b.errors[kind]) == 0 {
				t.Errorf("%s has no %s", name, kind)
			}
		}
		t.Log(report)
	}
	if err := errors.Join(p.broken, search.broken, shorten(p.twice)); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d reshardings; the disk was full %d times, at %d starts, of which %d ended, and %d puts were refused; requests taken %d, 500 %d, 503 %d, 413 %d, not JSON %d, reset %d, stalled %d, kept and reset %d, kept and wrong id %d, kept and 500 %d",
		rounds, reshards, fills, fullStarts, failedStarts, refusals.Load(), p.fates[takes], p.fates[fails], p.fates[busy], p.fates[tooLarge], p.fates[speechless], p.fates[resets], p.fates[stalls], p.fates[forgets], p.fates[confused], p.fates[chokes])
	if full != nil && fills > 2 && refusals.Load() == 0 {
		t.Error("the disk was full and nothing was refused")
	}
	if kinds := len(slices.DeleteFunc(p.fates[:], func(n int) bool { return n == 0 })); kinds < 4 {
		t.Errorf("requests had %d fates only", kinds)
	}
}
