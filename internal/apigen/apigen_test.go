package apigen

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"flag"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRegeneratingChangesNothing(t *testing.T) {
	want, err := Generate("../../model")
	if err != nil {
		t.Fatal(err)
	}
	have, err := Existing("../api")
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if !bytes.Equal(want[name], have[name]) {
			t.Errorf("internal/api/%s is not what the models give: run make generate", name)
		}
	}
	for name := range have {
		if want[name] == nil {
			t.Errorf("internal/api/%s is generated code that nothing generates", name)
		}
	}
	again, err := Generate("../../model")
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(want, again, bytes.Equal) {
		t.Error("two runs differ")
	}
}

var sample = service{model: "sample", pkg: "sample", title: "Sample", prefix: "sample",
	aliases: []string{"PutThing"}, nullable: []string{"Hole"}, resource: []resourceMember{{"ThingName", "Stream"}}}

// The sample model has one of everything, also of what no model uses today. What
// is made of it compiles and looks as it did.
func TestSampleModel(t *testing.T) {
	m, err := loadModel("testdata", "sample", nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := generate(sample, m)
	if err != nil {
		t.Fatal(err)
	}
	typeCheck(t, files)
	var all []byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, "==== "+name+"\n"...)
		all = append(all, files[name]...)
	}
	path := filepath.Join("testdata", "sample.golden")
	if *update {
		if err := os.WriteFile(path, all, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(all, want) {
		t.Errorf("%s differs; run with -update and read the diff", path)
	}
}

func typeCheck(t *testing.T, files map[string][]byte) {
	t.Helper()
	set := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := parser.ParseFile(set, name, files[name], 0)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	conf := types.Config{Importer: importer.ForCompiler(set, "source", nil)}
	if _, err := conf.Check("sample", set, parsed, nil); err != nil {
		t.Fatal(err)
	}
}

func TestModelsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ model, want string }{
		"two shapes of one name":   {`{"metadata":{"protocol":"json"},"operations":{"A":{"input":{"shape":"In"}}},"shapes":{"In":{"type":"structure","members":{"m":{"shape":"X"},"n":{"shape":"x"}}},"X":{"type":"structure"},"x":{"type":"structure"}}}`, "X is both"},
		"a shape named as a value": {`{"metadata":{"protocol":"json"},"operations":{"A":{"input":{"shape":"In"}}},"shapes":{"In":{"type":"structure","members":{"m":{"shape":"E"},"n":{"shape":"EA"}}},"E":{"type":"string","enum":["A"]},"EA":{"type":"structure"}}}`, "EA is both"},
		"a reserved name":          {`{"metadata":{"protocol":"json"},"operations":{"A":{"input":{"shape":"In"}}},"shapes":{"In":{"type":"structure","members":{"m":{"shape":"Handler"}}},"Handler":{"type":"structure"}}}`, "Handler is both"},
		"an unknown shape":         {`{"metadata":{"protocol":"json"},"operations":{"A":{"input":{"shape":"Nope"}}},"shapes":{}}`, `unknown shape "Nope"`},
		"an unknown type":          {`{"metadata":{"protocol":"json"},"operations":{"A":{"input":{"shape":"In"}}},"shapes":{"In":{"type":"structure","members":{"m":{"shape":"Q"}}},"Q":{"type":"quaternion"}}}`, "type quaternion"},
		"an unknown protocol":      {`{"metadata":{"protocol":"soap"},"operations":{},"shapes":{}}`, "soap"},
		"an untranslated pattern":  {`{"metadata":{"protocol":"json"},"operations":{"A":{"input":{"shape":"In"}}},"shapes":{"In":{"type":"structure","members":{"m":{"shape":"P"}}},"P":{"type":"string","pattern":"(?<=x)y"}}}`, "add it to translations"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := parseJSON([]byte(c.model))
			if err != nil {
				t.Fatal(err)
			}
			m, err := newModel(v.(object), nil)
			if err == nil {
				_, err = generate(service{model: "m", pkg: "m"}, m)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for value, want := range map[string]string{
		"TRIM_HORIZON": "TrimHorizon", "IncomingBytes": "IncomingBytes", "ALL": "All", "KMS": "Kms", "FLINK-1_20": "Flink1_20",
		"S3_TABLES": "S3Tables", "UTF-8": "Utf8", "1_2": "1_2", "gzip": "Gzip", "Snappy": "Snappy",
	} {
		if got := camel(value); got != want {
			t.Errorf("camel(%s) = %s, want %s", value, got, want)
		}
	}
	for name, want := range map[string]string{
		"PutRecords": "put_records", "GetHLSStreamingSessionURL": "get_hls_streaming_session_url", "UpdateS3Thing": "update_s3_thing",
	} {
		if got := snake(name); got != want {
			t.Errorf("snake(%s) = %s, want %s", name, got, want)
		}
	}
}

func TestTranslatedPatternsMeanTheSame(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{`^(?!\s*$).+`, []string{"a", " a ", "a b"}, []string{"", " ", "\t "}},
		{`^(?!aws:)[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`, []string{"", "a", "aws", "Aws:x", "é 1/2"}, []string{"aws:", "aws:x", "a*"}},
		{`^(?=^\$)(?=^\S+$).*$`, []string{"$", "$.a[0:]"}, []string{"", "a", "$ ", "$a b"}},
		{`jdbc:(redshift|postgresql)://((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)+(redshift(-serverless)?)\.([a-zA-Z0-9\.\-]+):\d{1,5}/[a-zA-Z0-9_$-]+`,
			[]string{"jdbc:redshift://my-cluster.abc.redshift.amazonaws.com:5439/db", "jdbc:postgresql://a.redshift-serverless.b:1/c"},
			[]string{"jdbc:redshift://-a.redshift.b:1/c", "jdbc:redshift://a-.redshift.b:1/c", "jdbc:redshift://redshift.b:1/c", "jdbc:redshift://" + strings.Repeat("a", 64) + ".redshift.b:1/c"}},
		{`[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*`, []string{"", "a b\t", "é😀"}, []string{"\n", "\x01"}},
		{`[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*`, []string{"", "a\r\n", "😀"}, []string{"\x01", "\uFFFE"}},
		{`[\u0001-\uFFFF]*`, []string{"", "é\n"}, []string{"\x00", "😀"}},
		{`\d{1}+:\d{12}+`, []string{"1:123456789012"}, []string{"11:123456789012", "1:12"}},
	} {
		re, except, err := re2(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		match := func(s string) bool {
			return regexp.MustCompile(`\A(?:`+re+`)\z`).MatchString(s) && (except == "" || !regexp.MustCompile(`\A(?:`+except+`)`).MatchString(s))
		}
		for _, s := range c.yes {
			if !match(s) {
				t.Errorf("%s refuses %q", c.pattern, s)
			}
		}
		for _, s := range c.no {
			if match(s) {
				t.Errorf("%s takes %q", c.pattern, s)
			}
		}
	}
}

func TestPatternsOfOneClassNeedNoRegularExpression(t *testing.T) {
	for pattern, want := range map[string]string{
		`[a-zA-Z0-9_.-]+`:         "api.NewClassPattern(`[a-zA-Z0-9_.-]+`, 0x03ff600000000000, 0x07fffffe87fffffe, false)",
		`^[0-9]*$`:                "api.NewClassPattern(`^[0-9]*$`, 0x03ff000000000000, 0x0000000000000000, true)",
		`[^:*]*`:                  "api.NewPattern(`[^:*]*`, `[^:*]*`)",
		`[\p{L}]+`:                "api.NewPattern(`[\\p{L}]+`, `[\\p{L}]+`)",
		`^(0|([1-9]\d{0,38}))$`:   "api.NewDecimalPattern(`^(0|([1-9]\\d{0,38}))$`, 1+38)",
		`arn:x:kinesis:stream/.+`: "api.NewPattern(`arn:x:kinesis:stream/.+`, `arn:x:kinesis:stream/.+`)",
	} {
		if got, err := patternExpr(pattern); err != nil || got != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
	}
}

func TestStripKeepsEverythingButProse(t *testing.T) {
	const model = `{"metadata":{"a":1.50},"shapes":{"S":{"type":"structure","documentation":"<p>prose</p>","members":{"documentation":{"shape":"D","documentation":"more"},"b":{"shape":"D"}}},"D":{"type":"string","pattern":"<&>"}},"documentation":"all"}`
	const want = `{
  "metadata": {
    "a": 1.50
  },
  "shapes": {
    "S": {
      "type": "structure",
      "members": {
        "documentation": {
          "shape": "D"
        },
        "b": {
          "shape": "D"
        }
      }
    },
    "D": {
      "type": "string",
      "pattern": "<&>"
    }
  }
}
`
	dir := t.TempDir()
	wheel := filepath.Join(dir, "botocore.whl")
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range Models {
		for version, text := range map[string]string{"2013-12-02": model, "2012-01-01": `{"old":true}`} {
			w, err := z.Create("botocore/data/" + m.Folder + "/" + version + "/service-2.json.gz")
			if err != nil {
				t.Fatal(err)
			}
			g := gzip.NewWriter(w)
			if m.Operations != nil { // has to have what is kept of it
				text = `{"operations":{"` + strings.Join(m.Operations, `":{},"`) + `":{}},"shapes":{}}`
			}
			if _, err := g.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wheel, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Strip(wheel, dir); err != nil {
		t.Fatal(err)
	}
	for _, m := range Models {
		if m.Operations != nil {
			continue // TestStripKeepsOnlyWhatIsServed
		}
		got, err := os.ReadFile(filepath.Join(dir, m.Name+".json"))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s", m.Name, err, got)
		}
	}
}

func TestStripKeepsOnlyWhatIsServed(t *testing.T) {
	parse := func(text string) any {
		v, err := parseJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const model = `{"metadata":{},"operations":{"A":{"input":{"shape":"AIn"},"errors":[{"shape":"E"}]},"B":{"input":{"shape":"BIn"}},"C":{"output":{"shape":"Tree"}}},` +
		`"shapes":{"AIn":{"type":"structure","members":{"shape":{"shape":"List"}}},"BIn":{"type":"structure","members":{"x":{"shape":"Text"}}},"E":{"type":"structure","members":{},"exception":true},` +
		`"List":{"type":"list","member":{"shape":"Text"}},"Text":{"type":"string"},"Tree":{"type":"structure","members":{"next":{"shape":"Tree"},"m":{"shape":"Map"}}},"Map":{"type":"map","key":{"shape":"Key"},"value":{"shape":"Text"}},"Key":{"type":"string"},"Stray":{"type":"string"}}}`
	for name, c := range map[string]struct {
		keep       []string
		operations string
		shapes     string
	}{
		"errors and lists, also behind a member called shape": {[]string{"A"}, "A", "AIn E List Text"},
		"recursion and maps": {[]string{"C"}, "C", "Text Tree Map Key"},
		"two":                {[]string{"C", "B"}, "B C", "BIn Text Tree Map Key"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := keepOperations(parse(model), c.keep)
			if err != nil {
				t.Fatal(err)
			}
			keys := func(o object) string {
				var names []string
				for _, f := range o {
					names = append(names, f.key)
				}
				return strings.Join(names, " ")
			}
			if got := keys(v.(object).obj("operations")); got != c.operations {
				t.Errorf("operations %s, want %s", got, c.operations)
			}
			if got := keys(v.(object).obj("shapes")); got != c.shapes {
				t.Errorf("shapes %s, want %s", got, c.shapes)
			}
		})
	}
	if _, err := keepOperations(parse(model), []string{"D"}); err == nil || !strings.Contains(err.Error(), "no operation D") {
		t.Errorf("an operation that is not there: %v", err)
	}
}

// What is in model/ has been stripped and formatted by Strip.
func TestModelsHaveNoProse(t *testing.T) {
	for _, m := range Models {
		data, err := os.ReadFile("../../model/" + m.Name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		v, err := parseJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(formatJSON(stripProse(v)), data) {
			t.Errorf("%s is not as Strip leaves it", m.Name)
		}
		if m.Operations == nil {
			continue
		}
		if v, err = keepOperations(v, m.Operations); err != nil || !bytes.Equal(formatJSON(v), data) {
			t.Errorf("%s is not as Strip leaves it: %v", m.Name, err)
		}
	}
}

func TestWriteRemovesOnlyGeneratedFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "p"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"p/old.go": Header + "\npackage p\n", "p/hand.go": "package p\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(dir, map[string][]byte{"p/new.go": []byte(Header)}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"p/old.go": false, "p/hand.go": true, "p/new.go": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
