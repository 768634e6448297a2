package run

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/analytics/text"
)

// logParser makes the evaluators of the log parsers; nil for other functions.
func logParser(e *plan.Call) eval {
	if e.T.Kind != sql.KindRow {
		return nil
	}
	null := plan.Value{Null: true}
	fields := e.T.Fields
	nothing := plan.Value{Row: make([]plan.Value, len(fields))}
	for i := range nothing.Row {
		nothing.Row[i] = null
	}
	// row brings the texts of fields to their types.
	row := func(x *context, groups []text.Group, columns []text.LogColumn) (plan.Value, error) {
		out := make([]plan.Value, len(fields))
		for i, f := range fields {
			if i >= len(groups) || !groups[i].OK {
				if columns != nil && columns[i].NotNull {
					return plan.Value{}, fail(functionError, "the column %s is missing", f.Name)
				}
				out[i] = null
				continue
			}
			s := groups[i].Text
			if isCharacter(f.Type.Kind) {
				out[i] = plan.Value{S: fit(s, f.Type)}
				continue
			}
			if columns != nil && columns[i].Format != nil {
				ms, ok := columns[i].Format.Parse(s, x.now())
				if !ok {
					return plan.Value{}, fail(functionError, "%q is not of the form of the column %s", s, f.Name)
				}
				switch f.Type.Kind {
				case sql.KindDate:
					ms -= mod(ms, sql.MillisPerDay)
				case sql.KindTime:
					ms = mod(ms, sql.MillisPerDay)
				}
				out[i] = plan.Value{I: ms}
				continue
			}
			if s = strings.TrimSpace(s); s == "" {
				out[i] = null
				continue
			}
			if isBinary(f.Type.Kind) {
				out[i] = plan.Value{S: s}
				continue
			}
			v, err := fromText(s, f.Type)
			if err != nil {
				return plan.Value{}, err
			}
			out[i] = v
		}
		return plan.Value{Row: out}, nil
	}
	spec := ""
	if len(e.Args) > 1 {
		spec = e.Args[1].(*plan.Const).Value.S
	}
	var groups []text.Group
	parse := func(f func(x *context, s string) (plan.Value, error)) eval {
		return lift(e, false, func(x *context, args []plan.Value) (plan.Value, error) { return f(x, args[0].S) })
	}
	switch e.Func {
	case "regex_log_parse":
		re, err := text.CompileRegexp(spec)
		if err != nil {
			panic(err)
		}
		return parse(func(x *context, s string) (plan.Value, error) {
			var ok bool
			if groups, ok, err = re.Whole(groups[:0], s); !ok {
				return nothing, err
			}
			return row(x, groups, nil)
		})
	case "fast_regex_log_parse":
		p, err := text.CompileFastRegex(spec)
		if err != nil {
			panic(err)
		}
		return parse(func(x *context, s string) (plan.Value, error) {
			var ok bool
			if groups, ok = p.Parse(groups[:0], s); !ok {
				return nothing, nil
			}
			return row(x, groups, nil)
		})
	case "w3c_log_parse":
		p, err := text.CompileW3C(spec)
		if err != nil {
			panic(err)
		}
		return parse(func(x *context, s string) (plan.Value, error) {
			var ok bool
			if groups, ok = p.Parse(groups[:0], s); !ok {
				return nothing, nil
			}
			return row(x, groups, nil)
		})
	case "sys_log_parse":
		return parse(func(x *context, s string) (plan.Value, error) {
			ms, rest, ok := text.SysLog(s, x.now())
			if !ok {
				return nothing, nil
			}
			return plan.Value{Row: []plan.Value{{I: ms}, {S: fit(rest, fields[1].Type)}}}, nil
		})
	case "variable_column_log_parse":
		var columns []text.LogColumn
		if _, err := strconv.Atoi(spec); err != nil {
			if columns, err = text.ParseColumns(spec, false); err != nil {
				panic(err)
			}
		}
		constant := func(i int) string {
			if i < len(e.Args) {
				return e.Args[i].(*plan.Const).Value.S
			}
			return ""
		}
		delimiter, escape, quote := constant(2), constant(3), constant(4)
		return parse(func(x *context, s string) (plan.Value, error) {
			groups = text.VariableColumns(groups[:0], s, len(fields), delimiter, escape, quote)
			return row(x, groups, columns)
		})
	case "fixed_column_log_parse":
		columns, err := text.ParseColumns(spec, true)
		if err != nil {
			panic(err)
		}
		return parse(func(x *context, s string) (plan.Value, error) {
			groups = text.FixedColumns(groups[:0], s, columns)
			return row(x, groups, columns)
		})
	}
	return nil
}

// compileJSON is JSON_VALUE, the text of a scalar, and JSON_QUERY, that of an
// object or array.
func compileJSON(e *plan.Call) eval {
	steps, err := text.ParsePath(e.Args[1].(*plan.Const).Value.S)
	if err != nil {
		panic(err)
	}
	null := plan.Value{Null: true}
	return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
		raw := json.RawMessage(args[0].S)
		for _, step := range steps {
			if step.Array {
				break
			}
			var object map[string]json.RawMessage
			if json.Unmarshal(raw, &object) != nil {
				return null, nil
			}
			next, ok := object[step.Name]
			if !ok {
				return null, nil
			}
			raw = next
		}
		s := strings.TrimSpace(string(raw))
		if s == "" || !json.Valid([]byte(s)) || s == "null" {
			return null, nil
		}
		composite := s[0] == '{' || s[0] == '['
		if composite != (e.Func == "json_query") {
			return null, nil
		}
		if s[0] == '"' {
			var text string
			if json.Unmarshal([]byte(s), &text) != nil {
				return null, nil
			}
			s = text
		}
		return plan.Value{S: fit(s, e.T)}, nil
	})
}
