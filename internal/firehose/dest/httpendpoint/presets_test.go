package httpendpoint

import (
	"strings"
	"testing"
)

func TestPresetsAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Presets() {
		if p.Name == "" || p.Title == "" || p.EndpointName == "" || seen[p.Name] {
			t.Errorf("%q: named twice or not at all", p.Name)
		}
		seen[p.Name] = true
		for what, b := range map[string]struct{ b, limit Bounds }{"size": {p.Size, Bounds{Min: 1, Max: 64}}, "interval": {p.Interval, Bounds{Min: 0, Max: 900}}} {
			if b.b.Min < b.limit.Min || b.b.Max > b.limit.Max || b.b.Default < b.b.Min || b.b.Default > b.b.Max {
				t.Errorf("%s: %s is %+v", p.Name, what, b.b)
			}
		}
		values := map[string]string{}
		for name, known := range p.Vars {
			values[name] = "x1"
			if len(known) > 0 {
				values[name] = known[0]
			}
		}
		var attributes []Attribute
		for _, a := range p.Attributes {
			attributes = append(attributes, Attribute{a.Name, "v"})
		}
		c, err := p.Endpoint(values, "key", attributes)
		if err != nil || !strings.HasPrefix(c.URL, "https://") || len(c.URL) > 1000 {
			t.Errorf("%s: %+v, %v", p.Name, c, err)
		}
		if again, ok := FindPreset(p.Name); !ok || again.Title != p.Title {
			t.Errorf("%s is not found", p.Name)
		}
	}
	for _, partner := range []string{"datadog", "newrelic", "mongodb", "coralogix", "dynatrace", "honeycomb", "logicmonitor", "sumologic", "elastic", "splunk", "logzio", "grafana"} {
		found := false
		for name := range seen {
			found = found || strings.HasPrefix(name, partner)
		}
		if !found {
			t.Errorf("there is no preset for %s", partner)
		}
	}
}

func TestPresetEndpoint(t *testing.T) {
	for _, c := range []struct {
		name, preset string
		values       map[string]string
		attributes   []Attribute
		url, err     string
	}{
		{"filled in", "datadog-logs", map[string]string{"site": "datadoghq.eu"}, nil, "https://aws-kinesis-http-intake.logs.datadoghq.eu/v1/input", ""},
		{"two places", "sumologic", map[string]string{"deployment": "endpoint1", "type": "log", "token": "T"}, nil, "https://endpoint1.sumologic.net/receiver/v1/kinesis/log/T", ""},
		{"the only known value", "grafana-metrics", map[string]string{"cell": "prod-1"}, nil, "https://aws-metric-streams-prod-1.grafana.net/aws-metrics/api/v1/push", ""},
		{"not filled in", "sumologic", map[string]string{"type": "log"}, nil, "", "needs deployment, token"},
		{"no such place", "datadog-logs", map[string]string{"region": "x"}, nil, "", "has no region"},
		{"an attribute is missing", "dynatrace-logs", map[string]string{"environment": "e"}, nil, "", "needs the attribute dt-url"},
		{"an attribute is there", "dynatrace-logs", map[string]string{"environment": "e"}, []Attribute{{"dt-url", "https://e"}}, "https://e.live.dynatrace.com/api/v2/logs/ingest/aws_firehose", ""},
		{"not a URL", "datadog-logs", map[string]string{"site": "a b"}, nil, "", "is not a URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, ok := FindPreset(c.preset)
			if !ok {
				t.Fatal("no such preset")
			}
			got, err := p.Endpoint(c.values, "k", c.attributes)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got.URL != c.url {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if _, ok := FindPreset("nobody"); ok {
		t.Error("a preset that is not there was found")
	}
	if _, err := parsePresets([]byte("presets: [{name: a, url: 'https://{x}'}]")); err == nil {
		t.Error("a place without its variable")
	}
}
