package metrics

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/host"
)

// Every name that the host reports has its series here: Add drops the others in
// silence.
func TestEveryApplicationMetricIsKnown(t *testing.T) {
	raw, err := os.ReadFile("../analytics/host/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\s+\w+\s+Metric\s*=\s*"([^"]+)"`).FindAllStringSubmatch(string(raw), -1)
	for _, m := range names {
		if _, ok := applicationIndex[host.Metric(m[1])]; !ok {
			t.Errorf("nothing counts %s", m[1])
		}
	}
	if len(names) != len(applicationMetrics) {
		t.Errorf("%d names are declared, %d are counted", len(names), len(applicationMetrics))
	}
}

func TestApplicationSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplications(2, time.Now)
		in := a.Series("123456789012", "eu-west-1", "clicks", host.FlowInput, "1.1")
		in.Add(host.Bytes, 10)
		in.Add(host.Bytes, 5)
		in.Add(host.MillisBehindLatest, 1500)
		in.Add(host.MillisBehindLatest, 20)
		in.Add(host.InputProcessingDuration, 250)
		in.Add("Made.Up", 1)
		out := a.Series("123456789012", "eu-west-1", "clicks", host.FlowOutput, "2.1")
		out.Add(host.Success, 1)
		out.Add(host.Success, 0)
		whole := a.Series("123456789012", "eu-west-1", "clicks", "", "")
		whole.Add(host.KPUs, 0.5)
		whole.Add(host.CheckpointBytes, 7)
		whole.Add(host.CheckpointBytes, 5)
		const want = `
# HELP millrace_analytics_behind_latest_seconds MillisBehindLatest of CloudWatch, in seconds: the highest of this minute and the last; absent if the application does not run.
# TYPE millrace_analytics_behind_latest_seconds gauge
millrace_analytics_behind_latest_seconds{account="123456789012",application="clicks",flow="Input",id="1.1",region="eu-west-1"} 1.5
# HELP millrace_analytics_bytes_total Bytes of CloudWatch.
# TYPE millrace_analytics_bytes_total counter
millrace_analytics_bytes_total{account="123456789012",application="clicks",flow="Input",id="1.1",region="eu-west-1"} 15
# HELP millrace_analytics_checkpoint_bytes Size of an application's checkpoint: the newest value.
# TYPE millrace_analytics_checkpoint_bytes gauge
millrace_analytics_checkpoint_bytes{account="123456789012",application="clicks",flow="",id="",region="eu-west-1"} 5
# HELP millrace_analytics_input_processing_duration_seconds InputProcessing.Duration of CloudWatch, in seconds.
# TYPE millrace_analytics_input_processing_duration_seconds summary
millrace_analytics_input_processing_duration_seconds_sum{account="123456789012",application="clicks",flow="Input",id="1.1",region="eu-west-1"} 0.25
millrace_analytics_input_processing_duration_seconds_count{account="123456789012",application="clicks",flow="Input",id="1.1",region="eu-west-1"} 1
# HELP millrace_analytics_kpus KPUs of CloudWatch: the highest of this minute and the last; absent if the application does not run.
# TYPE millrace_analytics_kpus gauge
millrace_analytics_kpus{account="123456789012",application="clicks",flow="",id="",region="eu-west-1"} 0.5
# HELP millrace_analytics_success_attempts_total Success of CloudWatch: attempts.
# TYPE millrace_analytics_success_attempts_total counter
millrace_analytics_success_attempts_total{account="123456789012",application="clicks",flow="Output",id="2.1",region="eu-west-1"} 2
# HELP millrace_analytics_success_total Success of CloudWatch: attempts that succeeded.
# TYPE millrace_analytics_success_total counter
millrace_analytics_success_total{account="123456789012",application="clicks",flow="Output",id="2.1",region="eu-west-1"} 1
`
		if got := exposition(t, a); got != want[1:] {
			t.Errorf("got\n%s\nwant%s", got, want)
		}
		time.Sleep(2 * time.Minute)
		if strings.Contains(exposition(t, a), "kpus") {
			t.Error("what an application took is shown long after it was sampled")
		}
	})
}

// Neither applications nor the inputs and outputs that one has had make series
// without end, and what is beyond the bound is counted together.
func TestApplicationSeriesAreBounded(t *testing.T) {
	a := newApplications(2, time.Now)
	for i := range 100 {
		a.Series("1", "r", "changed", host.FlowOutput, fmt.Sprintf("%d.1", i)).Add(host.Records, 1)
	}
	a.Series("1", "r", "second", "", "").Add(host.KPUs, 1)
	if a.Series("1", "r", "third", host.FlowInput, "1.1") != host.Series(a.other) {
		t.Error("the number of applications has no bound")
	}
	a.Series("1", "r", "third", host.FlowInput, "1.1").Add(host.Records, 7)
	lines := regexp.MustCompile(`(?m)^millrace_analytics_records_total\{.*application="(\w+)".*,id="(.*?)".*\} (\d+)$`).FindAllStringSubmatch(exposition(t, a), -1)
	if len(lines) != maxFlows+1+1 {
		t.Errorf("%d series, want %d", len(lines), maxFlows+2)
	}
	for _, l := range lines {
		want := "1"
		switch {
		case l[1] == "other":
			want = "7"
		case l[2] == "other":
			want = fmt.Sprint(100 - maxFlows)
		}
		if l[3] != want {
			t.Errorf("%s %s has %s, want %s", l[1], l[2], l[3], want)
		}
	}
	a.Drop("1", "r", "second")
	if a.Series("1", "r", "third", "", "") == host.Series(a.other) {
		t.Error("what is dropped keeps its place")
	}
}
