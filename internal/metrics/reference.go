package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// About describes a metric.
type About struct {
	Name   string
	Kind   string // counter, gauge, histogram or summary
	Help   string
	Labels []string
}

func (a About) desc() *prometheus.Desc { return prometheus.NewDesc(a.Name, a.Help, a.Labels, nil) }

// Catalog lists the server's own metrics by name.
func (r *Registry) Catalog() []About {
	all := slices.Clone(r.catalog)
	for _, d := range descriptions {
		for _, a := range d.about {
			if a.Name != "" {
				all = append(all, a)
			}
		}
	}
	for _, d := range deliveryMetrics {
		for _, a := range d.about {
			if a.Name != "" {
				all = append(all, a)
			}
		}
	}
	for _, d := range applicationMetrics {
		for _, a := range d.about {
			if a.Name != "" {
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, func(a, b About) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Reference is the page of documentation about all metrics.
func (r *Registry) Reference() string {
	var b strings.Builder
	b.WriteString(`# Metrics

` + "`/metrics`" + ` on the admin port, in Prometheus' form. This page is made from the code.

Times are in seconds and sizes in bytes, as is usual with Prometheus, also where CloudWatch's metric of the same name is
in milliseconds. Metrics of Go's runtime (` + "`go_…`" + `) and of the process (` + "`process_…`" + `) come from
Prometheus' own library.

## Streams, shards and consumers

The names are CloudWatch's, namespace AWS/Kinesis, written as Prometheus writes names. Series of a stream have
` + "`shard`" + ` and ` + "`consumer`" + ` empty. Shards have series once EnableEnhancedMonitoring asks for them, consumers always;
both end with what they are about. A series begins with its first sample.

` + "`metrics-streams`" + ` streams have series of their own; those made later are counted together as ` + "`stream=\"other\"`" + `.
Shards and consumers beyond ` + "`metrics-shards`" + ` have none; what goes through shards is counted by their stream in any case.

`)
	streams := func(name string) bool { return strings.HasPrefix(name, namespace+"_stream_") }
	deliveries := func(name string) bool { return strings.HasPrefix(name, namespace+"_firehose_") }
	applications := func(name string) bool { return strings.HasPrefix(name, namespace+"_analytics_") }
	table(&b, r.Catalog(), streams)
	b.WriteString(`
## Delivery streams

The names are CloudWatch's, namespace AWS/Firehose. ` + "`DeliveryTo…`" + ` is about the destination itself, ` + "`BackupToS3`" + ` about what is
kept beside it; ` + "`DataFreshness`" + ` is the age of the oldest record that has not been delivered. What the API has no word for (files,
topics, data streams, databases) is ` + "`other`" + ` in the names of metrics. ` + "`metrics-streams`" + ` delivery streams have series of their own.

`)
	table(&b, r.Catalog(), deliveries)
	b.WriteString(`
## SQL applications

The names are CloudWatch's, namespace AWS/KinesisAnalytics, with its dimensions ` + "`Application`, `Flow` (`Input` or `Output`) and `Id`" + ` as
labels; what is about an application as a whole has ` + "`flow` and `id`" + ` empty. ` + "`metrics-streams`" + ` applications have series of their own, each of
up to 16 inputs and outputs; they begin with their first sample and end when the application is deleted.

`)
	table(&b, r.Catalog(), applications)
	b.WriteString("\n## The server\n\n")
	table(&b, r.Catalog(), func(name string) bool { return !streams(name) && !deliveries(name) && !applications(name) })
	return b.String()
}

func table(b *strings.Builder, all []About, want func(string) bool) {
	b.WriteString("| metric | kind | labels | meaning |\n|---|---|---|---|\n")
	for _, a := range all {
		if want(a.Name) {
			b.WriteString("| `" + a.Name + "` | " + a.Kind + " | " + strings.Join(a.Labels, ", ") + " | " + a.Help + " |\n")
		}
	}
}
