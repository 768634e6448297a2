package metrics

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/streams"
	"github.com/millrace/millrace/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the reference page")

// exercised is a registry in which every metric has at least one series.
func exercised() *Registry {
	r := New(Options{Streams: 1, Shards: 1, Version: "test"})
	r.Limiter(quota.New(quota.Options{}))
	s := r.Streams.Series(streams.Labels{Stream: "s"})
	for m := range streams.MetricCount {
		s.Add(m, 1)
	}
	d := r.Deliveries.Series("", "", "s")
	for _, m := range deliveryMetrics {
		d.Add(m.name, 1)
	}
	a := r.Analytics.Series("", "", "a", "", "")
	for _, m := range applicationMetrics {
		a.Add(m.name, 1)
	}
	r.Request(&wire.Outcome{Call: &api.Call{}, Duration: time.Millisecond})
	r.LineLost("audit-log")
	r.Connection(1)
	r.GroupWritten(time.Millisecond, 1, 1)
	r.SegmentSealed(time.Second, 1)
	r.StateChanged(false, false)
	r.AppendDone(1, 1, 1, time.Millisecond, errors.New("x"))
	r.AppendWaited(time.Millisecond, errors.New("x"))
	return r
}

func TestNamesFollowTheConventions(t *testing.T) {
	r := exercised()
	families, err := r.prometheus.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		help := f.GetHelp()
		if strings.HasPrefix(f.GetName(), namespace) && !strings.HasSuffix(help, ".") {
			t.Errorf("%s: help is no sentence: %q", f.GetName(), help)
		}
	}
}

func TestTheCatalogIsWhatIsServed(t *testing.T) {
	r := exercised()
	families, err := r.prometheus.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var served, listed []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), namespace+"_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		served = append(served, f.GetName()+" "+strings.ToLower(f.GetType().String())+" "+strings.Join(labels, ",")+" "+f.GetHelp())
	}
	for _, a := range r.Catalog() {
		labels := slices.Sorted(slices.Values(a.Labels))
		listed = append(listed, a.Name+" "+a.Kind+" "+strings.Join(labels, ",")+" "+a.Help)
	}
	slices.Sort(served)
	slices.Sort(listed)
	if !slices.Equal(served, listed) {
		for _, s := range served {
			if !slices.Contains(listed, s) {
				t.Errorf("served and not listed: %s", s)
			}
		}
		for _, l := range listed {
			if !slices.Contains(served, l) {
				t.Errorf("listed and not served: %s", l)
			}
		}
	}
}

func TestThePageSaysWhatTheCodeSays(t *testing.T) {
	r := exercised()
	page := filepath.Join("..", "..", "docs", "metrics.md")
	if *update {
		if err := os.WriteFile(page, []byte(r.Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(raw) != r.Reference() {
		t.Error("docs/metrics.md is not what the registry says; run the test with -update")
	}
}

// TestDashboardAndAlertsUseMetricsThereAre looks at every name in the dashboard
// and the pages about operation.
func TestDashboardAndAlertsUseMetricsThereAre(t *testing.T) {
	r := exercised()
	families, err := r.prometheus.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	labels := map[string]map[string]bool{}
	for _, f := range families {
		names := []string{f.GetName()}
		kind := f.GetType().String()
		switch kind {
		case "HISTOGRAM":
			names = append(names, f.GetName()+"_bucket", f.GetName()+"_sum", f.GetName()+"_count")
		case "SUMMARY":
			names = append(names, f.GetName()+"_sum", f.GetName()+"_count")
		}
		has := map[string]bool{"le": kind == "HISTOGRAM", "instance": true, "job": true}
		for _, l := range f.GetMetric()[0].GetLabel() {
			has[l.GetName()] = true
		}
		for _, n := range names {
			known[n], labels[n] = true, has
		}
	}
	docs := filepath.Join("..", "..", "docs")
	raw, err := os.ReadFile(filepath.Join(docs, "grafana", "millrace.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard any
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\b(millrace|go|process|promhttp)_[a-z_]+`)
	matcher := regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	label := regexp.MustCompile(`([a-z]+)\s*(?:=~|!~|!=|=)`)
	checked := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				text, ok := e.(string)
				if !ok || k != "expr" && k != "query" && k != "definition" {
					walk(e)
					continue
				}
				for _, n := range name.FindAllString(text, -1) {
					checked++
					if !known[n] {
						t.Errorf("the dashboard asks for %s, which there is not", n)
					}
				}
				for _, m := range matcher.FindAllStringSubmatch(text, -1) {
					for _, l := range label.FindAllStringSubmatch(m[2], -1) {
						if known[m[1]] && !labels[m[1]][l[1]] {
							t.Errorf("the dashboard asks for %s of %s, which has no such label", l[1], m[1])
						}
					}
				}
			}
		}
	}
	walk(dashboard)
	if checked < 20 {
		t.Errorf("the dashboard has %d names only", checked)
	}
	for _, page := range []string{"running.md", "durability.md", "performance.md"} {
		raw, err := os.ReadFile(filepath.Join(docs, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range regexp.MustCompile("`(millrace_[a-z_]+)").FindAllStringSubmatch(string(raw), -1) {
			if !known[n[1]] {
				t.Errorf("%s names %s, which there is not", page, n[1])
			}
		}
	}
}
