package text

import (
	"reflect"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for path, want := range map[string][]Step{
		"$":              nil,
		"$.a":            {{Name: "a"}},
		"$.a.b.c":        {{Name: "a"}, {Name: "b"}, {Name: "c"}},
		"$.list[0:]":     {{Name: "list"}, {Array: true}},
		"$.list[0:].x":   {{Name: "list"}, {Array: true}, {Name: "x"}},
		"$[0:].x":        {{Array: true}, {Name: "x"}},
		"$['a.b'].c":     {{Name: "a.b"}, {Name: "c"}},
		`$["a b"]`:       {{Name: "a b"}},
		"$.with blank.é": {{Name: "with blank"}, {Name: "é"}},
	} {
		got, err := ParsePath(path)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, %v", path, got, err)
		}
	}
	for _, path := range []string{"", "a", "$a", "$.", "$..a", "$.a.", "$[0]", "$[1:]", "$[*]", "$['a]", "$[a]", "$" + strings.Repeat(".a", 101)} {
		if got, err := ParsePath(path); err == nil {
			t.Errorf("%q is %v", path, got)
		}
	}
}

// A path that is one means the same when its steps are written one by one.
func FuzzPath(f *testing.F) {
	for _, path := range []string{"$", "$.a.b", "$.list[0:].x", "$['a.b'].c", `$["x"]`, "$[0:]", "$.", "$['']"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		steps, err := ParsePath(path)
		if err != nil {
			return
		}
		var out strings.Builder
		out.WriteByte('$')
		for _, s := range steps {
			switch {
			case s.Array:
				out.WriteString("[0:]")
			case s.Name == "" || strings.ContainsAny(s.Name, ".["):
				if strings.ContainsAny(s.Name, "']") {
					return
				}
				out.WriteString("['" + s.Name + "']")
			default:
				out.WriteString("." + s.Name)
			}
		}
		again, err := ParsePath(out.String())
		if err != nil || !reflect.DeepEqual(again, steps) {
			t.Fatalf("%q is %v, and %q is %v, %v", path, steps, out.String(), again, err)
		}
	})
}
