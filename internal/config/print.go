package config

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
)

// Print writes what is in force, a line for each setting with where its value
// came from. Nothing printed is secret: keys and certificates are named by
// file, and passwords are no settings.
func (l *Loaded) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	group := ""
	for _, o := range options {
		if o.group != group {
			if group != "" {
				fmt.Fprintln(t)
			}
			group = o.group
			fmt.Fprintf(t, "# %s\n", group)
		}
		fmt.Fprintf(t, "%s: %s\t# %s\n", o.key, o.yaml(&l.Config), l.Origin(o.key))
	}
	return t.Flush()
}

// yaml renders a value as the settings file has it.
func (o *option) yaml(c *Config) string {
	quote := func(s string) string {
		if s == "" || strings.ContainsAny(s, ":#{}[]&*!|>'\"%@`, ") || strings.Trim(s, "0123456789.-+e_") == "" ||
			s == "true" || s == "false" || s == "off" || s == "on" {
			return `"` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`) + `"`
		}
		return s
	}
	switch v := o.field(c).Interface().(type) {
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case string:
		return quote(v)
	default:
		return fmt.Sprint(v)
	}
}

// Sample is a settings file that names every setting with its default.
func Sample() string {
	var b strings.Builder
	b.WriteString("# Settings of millrace with their defaults. Read with --config FILE or\n" +
		"# MILLRACE_CONFIG. Environment variables and flags override what stands here.\n")
	group := ""
	d := Default()
	for _, o := range options {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n# ---- %s ----\n", group)
		}
		b.WriteByte('\n')
		for _, line := range wrap(o.help(), 76) {
			b.WriteString("# " + line + "\n")
		}
		fmt.Fprintf(&b, "%s: %s\n", o.key, o.yaml(d))
	}
	return b.String()
}

// Reference is the documentation page of all settings.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

Every setting has one name. It is a flag of ` + "`millrace serve`" + `, a variable, and a key of the settings file; a flag
overrides the variable, the variable the file, the file the default. Names that do not exist are errors.
` + "`millrace config`" + ` prints what is in force and where each value came from. [millrace.sample.yaml](millrace.sample.yaml)
is a settings file with all defaults; it is read with ` + "`--config FILE` or `MILLRACE_CONFIG`" + `.

Sizes are written as 512, 64KiB, 20MiB or 1GiB, durations as 500ms, 2s or 5m. Lists are separated by commas in flags and
variables, and are YAML lists in the file.

This page is generated from the settings themselves.
`)
	group := ""
	d := Default()
	for _, o := range options {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n## %s\n\n| setting | variable | default | meaning |\n|---|---|---|---|\n", group)
		}
		def := "`" + o.render(d) + "`"
		if def == "``" {
			def = "–"
		}
		doc := o.doc
		if o.allowed != nil {
			doc = "`" + strings.Join(o.allowed, "` or `") + "`. " + doc
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", o.key, o.variable(), def, strings.ReplaceAll(doc, "|", `\|`))
	}
	b.WriteString(`
## Traces

OpenTelemetry traces are off unless one of the standard variables ` + "`OTEL_EXPORTER_OTLP_ENDPOINT`," + `
` + "`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_TRACES_EXPORTER=otlp`" + ` is set. Spans leave over OTLP/HTTP; the other
` + "`OTEL_…`" + ` variables of the specification (service name, resource attributes, sampler, headers, batch sizes) apply.

## Seed file

` + "`seed`" + ` names a YAML file of what should exist. What already exists is left as it is.

` + "```yaml" + `
streams:
  - name: orders
    shards: 4
    region: eu-west-1        # the region setting if left out
    retention-hours: 48
    tags: {team: shop}
  - name: clicks
    on-demand: true
users:
  - name: writer
    keys:
      - id: AKIAEXAMPLEWRITER000
        secret: a-secret-of-your-own
    policies:
      - name: write-orders
        document: |
          {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesis:Put*",
           "Resource": "arn:aws:kinesis:*:*:stream/orders"}]}
roles:
  - name: reader
    trust: |
      {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    policies:
      - name: read
        document: |
          {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["kinesis:Get*", "kinesis:List*",
           "kinesis:Describe*"], "Resource": "*"}]}
` + "```" + `
`)
	return b.String()
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// missing lists the settings a text does not mention; the test of the sample
// file uses it.
func missing(text string) []string {
	var list []string
	for _, o := range options {
		if !strings.Contains(text, "\n"+o.key+":") {
			list = append(list, o.key)
		}
	}
	return list
}

// equal compares two configurations.
func equal(a, b *Config) bool { return reflect.DeepEqual(a, b) }
