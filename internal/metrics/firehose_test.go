package metrics

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/internal/firehose/delivery"
)

// Every name that a delivery or the service reports has its series here: Add drops
// the others in silence.
func TestEveryDeliveryMetricIsKnown(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^\s+(\w+)\s+(?:delivery\.)?Metric\s*=\s*"([^"]+)"`)
	suffix := regexp.MustCompile(`(?m)^\s+suffix\w+\s+=\s+"(\.\w+)"`)
	found := 0
	for _, dir := range []string{"../firehose", "../firehose/delivery"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range declared.FindAllStringSubmatch(string(raw), -1) {
				found++
				if _, ok := deliveryIndex[delivery.Metric(m[2])]; !ok {
					t.Errorf("%s: nothing counts %s", f, m[2])
				}
			}
			for _, m := range suffix.FindAllStringSubmatch(string(raw), -1) {
				found++
				known := false
				for name := range deliveryIndex {
					known = known || strings.HasPrefix(string(name), "DeliveryTo") && strings.HasSuffix(string(name), m[1])
				}
				if !known {
					t.Errorf("%s: no kind has a metric with %s", f, m[1])
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d names were found: the declarations look different now", found)
	}
}

func exposition(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String()
}

func TestDeliverySeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeliveries(2, time.Now)
		s := d.Series("123456789012", "eu-west-1", "clicks")
		s.Add(delivery.IncomingBytes, 10)
		s.Add(delivery.IncomingBytes, 5)
		s.Add("DeliveryToS3.Success", 1)
		s.Add("DeliveryToS3.Success", 0)
		s.Add("DeliveryToS3.DataFreshness", 7)
		s.Add("DeliveryToS3.DataFreshness", 3)
		s.Add(delivery.KinesisMillisBehindLatest, 1500)
		s.Add(delivery.ExecuteProcessingDuration, 250)
		s.Add(delivery.PartitionCount, 9)
		s.Add(delivery.PartitionCount, 4)
		s.Add("Made.Up", 1)
		const want = `
# HELP millrace_firehose_delivery_to_s3_data_freshness_seconds DeliveryToS3.DataFreshness of CloudWatch: the highest of this minute and the last, in seconds; absent if nothing was delivered.
# TYPE millrace_firehose_delivery_to_s3_data_freshness_seconds gauge
millrace_firehose_delivery_to_s3_data_freshness_seconds{account="123456789012",region="eu-west-1",stream="clicks"} 7
# HELP millrace_firehose_delivery_to_s3_success_attempts_total DeliveryToS3.Success of CloudWatch: attempts.
# TYPE millrace_firehose_delivery_to_s3_success_attempts_total counter
millrace_firehose_delivery_to_s3_success_attempts_total{account="123456789012",region="eu-west-1",stream="clicks"} 2
# HELP millrace_firehose_delivery_to_s3_success_total DeliveryToS3.Success of CloudWatch: attempts that succeeded.
# TYPE millrace_firehose_delivery_to_s3_success_total counter
millrace_firehose_delivery_to_s3_success_total{account="123456789012",region="eu-west-1",stream="clicks"} 1
# HELP millrace_firehose_execute_processing_duration_seconds ExecuteProcessing.Duration of CloudWatch, in seconds.
# TYPE millrace_firehose_execute_processing_duration_seconds summary
millrace_firehose_execute_processing_duration_seconds_sum{account="123456789012",region="eu-west-1",stream="clicks"} 0.25
millrace_firehose_execute_processing_duration_seconds_count{account="123456789012",region="eu-west-1",stream="clicks"} 1
# HELP millrace_firehose_incoming_bytes_total IncomingBytes of CloudWatch.
# TYPE millrace_firehose_incoming_bytes_total counter
millrace_firehose_incoming_bytes_total{account="123456789012",region="eu-west-1",stream="clicks"} 15
# HELP millrace_firehose_kinesis_behind_latest_seconds KinesisMillisBehindLatest of CloudWatch: the highest of this minute and the last, in seconds; absent if nothing was delivered.
# TYPE millrace_firehose_kinesis_behind_latest_seconds gauge
millrace_firehose_kinesis_behind_latest_seconds{account="123456789012",region="eu-west-1",stream="clicks"} 1.5
# HELP millrace_firehose_partitions PartitionCount of CloudWatch: the newest value.
# TYPE millrace_firehose_partitions gauge
millrace_firehose_partitions{account="123456789012",region="eu-west-1",stream="clicks"} 4
`
		if got := exposition(t, d); got != want[1:] {
			t.Errorf("got\n%s\nwant%s", got, want)
		}
		time.Sleep(2 * time.Minute)
		if strings.Contains(exposition(t, d), "millrace_firehose_delivery_to_s3_data_freshness_seconds") {
			t.Error("an old freshness is shown")
		}
		if again := d.Series("123456789012", "eu-west-1", "clicks"); again != s {
			t.Error("a second series for one delivery stream")
		}
		d.Series("1", "r", "second")
		third := d.Series("1", "r", "third")
		if third != d.Series("1", "r", "fourth") || third != delivery.Series(d.other) {
			t.Error("the number of series has no bound")
		}
		d.Drop("1", "r", "second")
		if d.Series("1", "r", "fifth") == delivery.Series(d.other) {
			t.Error("a dropped series keeps its place")
		}
	})
}
