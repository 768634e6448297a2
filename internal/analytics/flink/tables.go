package flink

import (
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
	jsonpath "github.com/millrace/millrace/internal/analytics/text"
)

// typeName is a type in Flink SQL.
func typeName(t sql.Type) string {
	switch t.Kind {
	case sql.KindNull:
		return "VARCHAR(1)"
	case sql.KindReal:
		return "FLOAT"
	case sql.KindTimestamp:
		return "TIMESTAMP(3)"
	case sql.KindTime:
		return "TIME(0)"
	}
	return t.String()
}

// settings are the options of a table, in order.
type settings [][2]string

func (s *settings) add(name, value string) { *s = append(*s, [2]string{name, value}) }

func (s settings) String() string {
	lines := make([]string, len(s))
	for i, o := range s {
		lines[i] = "  " + text(o[0]) + " = " + text(o[1])
	}
	return "WITH (\n" + strings.Join(lines, ",\n") + "\n)"
}

func (t *translator) table(name string, lines []string, s settings) {
	fmt.Fprintf(&t.tables, "CREATE TABLE %s (\n  %s\n) %s;\n\n", quote(name), strings.Join(lines, ",\n  "), s)
}

// kinesis are the options of a table over a data stream.
func kinesis(arn string) settings {
	s := settings{{"connector", "kinesis"}, {"stream.arn", arn}}
	if parts := strings.Split(arn, ":"); len(parts) > 3 {
		s.add("aws.region", parts[3])
	}
	return s
}

// placeholder is the ARN of a data stream that nobody has named.
func placeholder(name string) string {
	return "arn:aws:kinesis:us-east-1:000000000000:stream/" + name
}

func format(s *settings, csv bool, delimiter string) {
	if csv {
		s.add("format", "csv")
		if delimiter != "" && delimiter != "," {
			s.add("csv.field-delimiter", delimiter)
		}
		s.add("csv.ignore-parse-errors", "true")
		return
	}
	s.add("format", "json")
	s.add("json.timestamp-format.standard", "SQL")
	s.add("json.ignore-parse-errors", "true")
}

// times are the columns of time that every table over a data stream has.
const times = "`APPROXIMATE_ARRIVAL_TIME` TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL"

var (
	shardColumns = []string{"`SHARD_ID` VARCHAR(128) METADATA FROM 'shard-id' VIRTUAL", "`SEQUENCE_NUMBER` VARCHAR(128) METADATA FROM 'sequence-number' VIRTUAL"}
	timeColumns  = []string{"`ROWTIME` AS `APPROXIMATE_ARRIVAL_TIME`", "WATERMARK FOR `ROWTIME` AS `ROWTIME` - INTERVAL '1' SECOND"}
)

// sources makes the tables of the inputs.
func (t *translator) sources() {
	for _, in := range t.app.Inputs {
		what := "the input " + sql.Quote(in.Streams[0])
		arn := in.Source.ARN
		switch {
		case arn == "":
			arn = placeholder(in.Streams[0])
		case in.Source.Kind == app.DeliveryStream:
			t.configured(true, what, "Flink cannot read the delivery stream %s; read the data stream that feeds it, or put the records to one", arn)
			arn = placeholder(in.Streams[0])
		}
		if in.Processor != nil {
			t.configured(true, what, "the function %s is not called before records are parsed; do its work in a view, or in a DataStream program", in.Processor.ARN)
		}
		s := kinesis(arn)
		if in.Start.Start == app.TrimHorizon {
			s.add("source.init.position", "TRIM_HORIZON")
		} else {
			s.add("source.init.position", "LATEST")
		}
		format(&s, in.Format.CSV, in.Format.ColumnDelimiter)
		if in.Format.CSV && in.Format.RowDelimiter != "" {
			t.configured(false, what, "a record of CSV is one row in Flink, and may have been several")
		}
		name := in.Streams[0]
		if len(in.Streams) > 1 {
			name = t.name(strings.TrimSuffix(name, "_001"))
		}
		columns := columnNames(t.streams[in.Streams[0]].columns)
		columns = columns[:len(columns)-len(plan.HiddenColumns)]
		t.inputTable(what, name, columns, in, s)
		for i, stream := range in.Streams {
			one := t.streams[stream]
			one.made = true
			one.missing = map[string]string{"PARTITION_KEY": "the connector of Flink does not hand on partition keys; put the key into the record"}
			if len(in.Streams) == 1 {
				continue
			}
			// Shards are spread over the streams.
			list := make([]string, 0, len(columns)+4)
			for _, c := range append(columns, "APPROXIMATE_ARRIVAL_TIME", "SHARD_ID", "SEQUENCE_NUMBER", rowtime) {
				list = append(list, quote(c))
			}
			fmt.Fprintf(&t.body, "CREATE TEMPORARY VIEW %s AS\nSELECT %s\nFROM %s\nWHERE MOD(CAST(SUBSTRING(`SHARD_ID` FROM 9) AS BIGINT), %d) = %d;\n\n",
				quote(stream), strings.Join(list, ", "), quote(name), len(in.Streams), i)
		}
	}
}

// member is a node of the record's structure as Flink declares it.
type member struct {
	name     string
	typ      string // of a leaf
	children []*member
	array    bool
}

func (m *member) child(name string) *member {
	for _, c := range m.children {
		if c.name == name {
			return c
		}
	}
	c := &member{name: name}
	m.children = append(m.children, c)
	return c
}

func (m *member) declared() string {
	if m.typ != "" {
		return m.typ
	}
	parts := make([]string, len(m.children))
	for i, c := range m.children {
		parts[i] = quote(c.name) + " " + c.declared()
	}
	row := "ROW<" + strings.Join(parts, ", ") + ">"
	if m.array {
		return "ARRAY<" + row + ">"
	}
	return row
}

// inputTable makes the table of one input. Columns whose mapping is not their own
// name are computed; an array that is flattened needs a view in addition.
func (t *translator) inputTable(what, name string, columns []string, in app.Input, s settings) {
	if in.Format.CSV {
		lines := make([]string, 0, len(columns)+5)
		for _, c := range in.Format.Columns {
			lines = append(lines, quote(c.Name)+" "+typeName(c.Type))
		}
		t.table(name, append(append(append(lines, times), shardColumns...), timeColumns...), s)
		return
	}
	root := &member{}
	type computed struct {
		column, path string
		leaf         *member
		typ          string
	}
	var others []computed
	var array *member // that is flattened
	var arrayPath string
	plain := true
	prefix := strings.TrimPrefix(in.Format.RowPath, "$")
	for _, c := range in.Format.Columns {
		path := "$" + prefix + strings.TrimPrefix(c.Mapping, "$")
		steps, err := jsonpath.ParsePath(path)
		if err != nil || len(steps) == 0 {
			t.configured(true, what, "the mapping %s of %s has no counterpart", c.Mapping, sql.Quote(c.Name))
			others = append(others, computed{column: c.Name, path: "CAST(NULL AS " + typeName(c.Type) + ")"})
			continue
		}
		at := root
		var names []string
		inside := false
		for i, step := range steps {
			if step.Array {
				if i == len(steps)-1 {
					at.typ = "STRING" // the text of the array
					continue
				}
				if len(names) == 0 {
					t.configured(true, what, "a record that is an array of rows is one row in Flink, and its columns are NULL; put the rows as records of their own")
					continue
				}
				at.array = true
				array, arrayPath = at, dotted(names)
				names, inside = []string{"item"}, true
				continue
			}
			at = at.child(step.Name)
			names = append(names, step.Name)
		}
		typ := typeName(c.Type)
		switch {
		case at.typ == "":
			at.typ = typ
		case at.typ != typ:
			// Two columns take the member in two types.
			at.typ = "STRING"
			plain = false
		}
		if inside || len(names) != 1 || names[0] != c.Name {
			plain = false
		}
		others = append(others, computed{c.Name, dotted(names), at, typ})
	}
	shared := false
	for i, o := range others {
		if o.leaf != nil && o.leaf.typ == "STRING" && o.leaf.typ != o.typ && !strings.HasPrefix(o.typ, "VARCHAR") {
			others[i].path = "TRY_CAST(" + o.path + " AS " + o.typ + ")"
			shared = true
		}
	}
	var lines []string
	for _, m := range root.children {
		lines = append(lines, quote(m.name)+" "+m.declared())
	}
	if array == nil && plain {
		t.table(name, append(append(append(lines, times), shardColumns...), timeColumns...), s)
		return
	}
	if array == nil && !shared {
		// Computed columns, unless one is called as another member is.
		clash := false
		for _, o := range others {
			for _, m := range root.children {
				clash = clash || o.column == m.name && o.path != quote(m.name)
			}
		}
		if !clash {
			for _, o := range others {
				if o.path != quote(o.column) {
					lines = append(lines, quote(o.column)+" AS "+o.path)
				}
			}
			t.table(name, append(append(append(lines, times), shardColumns...), timeColumns...), s)
			return
		}
	}
	records := t.name(name + "_RECORDS")
	t.table(records, append(append(append(lines, times), shardColumns...), timeColumns...), s)
	var items, names []string
	for _, o := range others {
		cast, path := "", o.path
		if rest, ok := strings.CutPrefix(path, "TRY_CAST("); ok {
			cast, path = "TRY_CAST(", rest
		}
		if strings.HasPrefix(path, "`item`.") {
			path = strings.TrimPrefix(path, "`item`.")
		} else if !strings.HasPrefix(path, "CAST(") {
			path = "`r`." + path
		}
		items = append(items, cast+path)
		names = append(names, quote(o.column))
	}
	for _, c := range []string{"APPROXIMATE_ARRIVAL_TIME", "SHARD_ID", "SEQUENCE_NUMBER", rowtime} {
		items = append(items, "`r`."+quote(c))
		names = append(names, quote(c))
	}
	from := quote(records) + " AS `r`"
	if array != nil {
		var members []string
		for _, m := range array.children {
			members = append(members, quote(m.name))
		}
		from += "\nLEFT JOIN UNNEST(`r`." + arrayPath + ") AS `item` (" + strings.Join(members, ", ") + ") ON TRUE"
	}
	fmt.Fprintf(&t.body, "CREATE TEMPORARY VIEW %s (%s) AS\nSELECT %s\nFROM %s;\n\n", quote(name), strings.Join(names, ", "), strings.Join(items, ", "), from)
}

func dotted(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ".")
}

// external makes a table for a stream that is not translated.
func (t *translator) external(s *stream) {
	var lines []string
	for _, c := range s.columns {
		lines = append(lines, quote(c.Name)+" "+typeName(c.Type))
	}
	set := kinesis(placeholder(s.name))
	set.add("source.init.position", "LATEST")
	format(&set, false, "")
	t.table(s.name, append(append(lines, times), timeColumns...), set)
}

// reference makes the table of reference data.
func (t *translator) reference(r *reference) {
	if r.made {
		return
	}
	r.made = true
	from := "its object"
	if r.Bucket != "" {
		from = "s3://" + r.Bucket + "/" + r.Key
	}
	t.configured(false, "the reference table "+sql.Quote(r.Table), "a lookup needs a connector that can be asked for a key: load %s into a database table, and say in the options where it is", from)
	var lines []string
	for _, c := range r.Format.Columns {
		lines = append(lines, quote(c.Name)+" "+typeName(c.Type))
	}
	s := settings{{"connector", "jdbc"}, {"url", "jdbc:postgresql://localhost:5432/reference"}, {"table-name", r.Table}, {"lookup.cache", "PARTIAL"},
		{"lookup.partial-cache.max-rows", "100000"}, {"lookup.partial-cache.expire-after-write", "1 h"}}
	t.table(r.Table, lines, s)
}

// sink makes the table of an output, and returns its name.
func (t *translator) sink(s *stream, o app.Output, viewed bool) string {
	name := s.name
	if viewed {
		name = t.name(s.name + "_SINK")
	}
	var lines []string
	for _, c := range s.columns {
		line := quote(c.Name) + " " + typeName(c.Type)
		if c.NotNull {
			line += " NOT NULL"
			t.notNull = true
		}
		lines = append(lines, line)
	}
	arn := o.Destination.ARN
	var set settings
	switch {
	case arn == "":
		set = kinesis(placeholder(s.name))
	case o.Destination.Kind == app.DeliveryStream:
		set = settings{{"connector", "firehose"}, {"delivery-stream", arn[strings.LastIndexByte(arn, '/')+1:]}}
		if parts := strings.Split(arn, ":"); len(parts) > 3 {
			set.add("aws.region", parts[3])
		}
	case o.Destination.Kind == app.Function:
		t.configured(true, "the output "+sql.Quote(s.name), "Flink has no table over a function such as %s; its rows are printed here. Call the function in a DataStream program", arn)
		set = settings{{"connector", "print"}}
	default:
		set = kinesis(arn)
	}
	if set[0][1] != "print" {
		if o.CSV {
			set.add("format", "csv")
		} else {
			set.add("format", "json")
			set.add("json.timestamp-format.standard", "SQL")
		}
	}
	t.table(name, lines, set)
	return name
}
