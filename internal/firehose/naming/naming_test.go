package naming

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/record"
)

var arrival = time.Date(2026, time.July, 13, 14, 5, 9, 123e6, time.UTC)

func TestPrefixesOfObjects(t *testing.T) {
	keys := &record.Keys{Query: map[string]string{"customer": "42"}, Function: map[string]string{"region": "eu/west"}}
	for _, c := range []struct {
		name, prefix, errorPrefix string
		options                   PairOptions
		want, wantFailed          string
	}{
		{"nothing given", "", "", PairOptions{}, "2026/07/13/14/", "processing-failed/2026/07/13/14/"},
		{"a literal gets the date and no slash", "legacy", "", PairOptions{}, "legacy2026/07/13/14/", "legacyprocessing-failed/2026/07/13/14/"},
		{"a literal with a slash", "logs/", "", PairOptions{}, "logs/2026/07/13/14/", "logs/processing-failed/2026/07/13/14/"},
		{"any expression, and nothing is appended", "a/!{timestamp:yyyy}", "e/!{firehose:error-output-type}", PairOptions{}, "a/2026", "e/processing-failed"},
		{"one that is no timestamp too", "a/!{firehose:random-string}/", "e/!{firehose:error-output-type}/!{firehose:error-output-type}", PairOptions{},
			"a/XXXXXXXXXXX/", "e/processing-failed/processing-failed"},
		{"a literal error prefix", "", "failed/", PairOptions{}, "2026/07/13/14/", "failed/processing-failed/2026/07/13/14/"},
		{"a literal error prefix beside expressions", "!{timestamp:yyyy}/", "failed/", PairOptions{}, "2026/", "failed/processing-failed/2026/07/13/14/"},
		{"error prefix with a time", "", "!{timestamp:yyyy-MM-dd}/!{firehose:error-output-type}/", PairOptions{}, "2026/07/13/14/", "2026-07-13/processing-failed/"},
		{"another time zone", "", "", PairOptions{Location: mustLocation("Asia/Tokyo")}, "2026/07/13/23/", "processing-failed/2026/07/13/23/"},
		{"its names", "!{timestamp:VV z Z}", "!{firehose:error-output-type}/", PairOptions{Location: mustLocation("America/New_York")},
			"America/New_York EDT -0400", "processing-failed/"},
		{"hive style", "year=!{timestamp:yyyy}/month=!{timestamp:MM}/", "!{firehose:error-output-type}/", PairOptions{}, "year=2026/month=07/", "processing-failed/"},
		{"partitions", "c=!{partitionKeyFromQuery:customer}/r=!{partitionKeyFromLambda:region}/!{timestamp:HH}/", "!{firehose:error-output-type}/",
			PairOptions{Partitioning: true, Query: true, QueryKeys: []string{"customer", "unused"}, Function: true},
			"c=42/r=eu/west/14/", "processing-failed/"},
		{"exclamation marks and braces", "a!b{c}$", "", PairOptions{}, "a!b{c}$2026/07/13/14/", "a!b{c}$processing-failed/2026/07/13/14/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			main, failures, err := Prefix(c.prefix, c.errorPrefix, c.options)
			if err != nil {
				t.Fatal(err)
			}
			got, err := main.Evaluate(Values{At: arrival, Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.prefix, "random") {
				got = regexp.MustCompile(`/[0-9A-Za-z]{11}/`).ReplaceAllString(got, "/XXXXXXXXXXX/")
			}
			if got != c.want {
				t.Errorf("prefix %q, want %q", got, c.want)
			}
			got, err = failures.Evaluate(Values{At: arrival, ErrorType: "processing-failed", Keys: keys})
			if err != nil || got != c.wantFailed {
				t.Errorf("error prefix %q (%v), want %q", got, err, c.wantFailed)
			}
		})
	}
}

func mustLocation(name string) *time.Location {
	l, err := LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return l
}

func TestRefusedPrefixes(t *testing.T) {
	query := PairOptions{Partitioning: true, Query: true, QueryKeys: []string{"a"}}
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		name, prefix, errorPrefix string
		options                   PairOptions
		want                      string
	}{
		{"expressions alone", "!{timestamp:yyyy}", "", PairOptions{}, "ErrorOutputPrefix cannot be null or empty when Prefix contains expressions"},
		{"never closed", "a!{timestamp:yyyy", "e", PairOptions{}, "Invalid expression usage"},
		{"nothing in it", "a!{}", "e", PairOptions{}, "Invalid expression usage"},
		{"no colon", "!{timestamp}", "e", PairOptions{}, "Invalid expression usage"},
		{"no value", "!{timestamp:}", "e", PairOptions{}, "Invalid expression usage"},
		{"no namespace", "!{:yyyy}", "e", PairOptions{}, "Invalid expression usage"},
		{"one in another", "!{timestamp:!{timestamp:yyyy}}", "e", PairOptions{}, "Invalid expression usage"},
		{"unknown namespace", "!{customer:id}", "e", PairOptions{}, "Namespace to the left of colon (customer) is an invalid keyword!"},
		{"namespaces know case", "!{Timestamp:yyyy}", "e", PairOptions{}, "Namespace to the left of colon (Timestamp) is an invalid keyword!"},
		{"unknown value", "!{firehose:stream-name}", "e", PairOptions{}, "Invalid conversion character used in the value of the expression"},
		{"unquoted letter", "!{timestamp:yyyyTHH}", "e", PairOptions{}, "Invalid conversion character used in the value of the expression"},
		{"error type in Prefix", "!{firehose:error-output-type}/", "e", PairOptions{}, "Prefix must not contain any occurrence of !{firehose:error-output-type}"},
		{"no error type in ErrorOutputPrefix", "", "!{timestamp:yyyy}/", PairOptions{}, "must be included"},
		{"partitions in ErrorOutputPrefix", "!{partitionKeyFromQuery:a}/", "!{partitionKeyFromQuery:a}/!{firehose:error-output-type}", query, "ErrorOutputPrefix must not contain any occurrence of"},
		{"partitions without partitioning", "!{partitionKeyFromQuery:a}/", "e", PairOptions{}, "partitionKeyFromQuery namespace can only be part of a prefix expression when Dynamic Partitioning is enabled"},
		{"functions too", "!{partitionKeyFromLambda:a}/", "e", PairOptions{}, "partitionKeyFromLambda namespace can only be part of a prefix expression when Dynamic Partitioning is enabled"},
		{"partitioning without partitions", "!{timestamp:yyyy}/", "e", query, "S3 Prefix should contain Dynamic Partitioning namespaces"},
		{"partitioning and nothing", "", "", query, "S3 Prefix should contain Dynamic Partitioning namespaces"},
		{"a key that the query does not give", "!{partitionKeyFromQuery:b}/", "e", query, "partitionKeyFromQuery key b of Prefix is not produced"},
		{"a key of no query", "!{partitionKeyFromQuery:b}/", "e", PairOptions{Partitioning: true, Function: true}, "MetadataExtraction processor must be present"},
		{"a key of no function", "!{partitionKeyFromLambda:b}/", "e", query, "Lambda processor must be present"},
		{"too long", long, "", PairOptions{}, "Length of evaluated prefix cannot be greater than 512"},
		{"too long once evaluated", strings.Repeat("!{timestamp:EEEE}", 60), "e", PairOptions{}, "Length of evaluated prefix cannot be greater than 512"},
		{"too long for errors", "", long, PairOptions{}, "Length of evaluated ErrorOutputPrefix cannot be greater than 512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Prefix(c.prefix, c.errorPrefix, c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a text with %q", err, c.want)
			}
		})
	}
}

// The live service was asked about every letter alone.
func TestLettersThatTheServiceRefuses(t *testing.T) {
	const refused = "CIJPRTUVbfijloprt"
	for c := byte('A'); c <= 'z'; c++ {
		if !letter(c) {
			continue
		}
		_, err := ParsePrefix("!{timestamp:"+string(c)+"}", Options{})
		if want := strings.IndexByte(refused, c) >= 0; (err != nil) != want {
			t.Errorf("letter %c: %v, refused by the service: %v", c, err, want)
		}
	}
}

func TestPartitionsAreTheirKeysAlone(t *testing.T) {
	template, err := ParsePrefix("c=!{partitionKeyFromQuery:c}/!{timestamp:HH}/!{firehose:random-string}/", Options{Partitioning: true})
	if err != nil {
		t.Fatal(err)
	}
	keys := &record.Keys{Query: map[string]string{"c": "1"}}
	got, err := template.AppendPartition(nil, keys)
	if want := "c=1/!{timestamp:HH}/!{firehose:random-string}/"; err != nil || string(got) != want {
		t.Errorf("partition %q (%v), want %q", got, err, want)
	}
	for _, empty := range []*record.Keys{nil, {}, {Query: map[string]string{"c": ""}}, {Function: map[string]string{"c": "1"}}} {
		var missing *KeyError
		if _, err := template.AppendPartition(nil, empty); !errors.As(err, &missing) || missing.Key != "c" || missing.Namespace != NamespaceQuery {
			t.Errorf("partition of %+v: %v", empty, err)
		}
		if _, err := template.Evaluate(Values{At: arrival, Keys: empty}); !errors.As(err, &missing) {
			t.Errorf("prefix of %+v: %v", empty, err)
		}
	}
	keys.Query["c"] = strings.Repeat("é", 490) // 490 + "c=/" + "HH/" + 11 + "/" is 508
	if _, err := template.AppendPartition(nil, keys); err != nil {
		t.Errorf("a partition of 508 characters: %v", err)
	}
	keys.Query["c"] = strings.Repeat("é", 495)
	var long *LengthError
	if _, err := template.AppendPartition(nil, keys); !errors.As(err, &long) || long.Length != 513 {
		t.Errorf("a partition of 513 characters: %v", err)
	}
	if _, err := template.Evaluate(Values{At: arrival, Keys: keys}); !errors.As(err, &long) {
		t.Errorf("a prefix of 513 characters: %v", err)
	}
}

func TestRandomStringsFollowFromTheObject(t *testing.T) {
	template, err := ParsePrefix("!{firehose:random-string}/!{firehose:random-string}", Options{})
	if err != nil {
		t.Fatal(err)
	}
	of := func(id string) string {
		s, err := template.Evaluate(Values{At: arrival, ID: id})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if first, again := of("1"), of("1"); first != again {
		t.Error("one object has two names")
	}
	if one, two := of(""), of(""); of("1") == of("2") || one == two {
		t.Error("two objects have one name")
	}
	if first, second, _ := strings.Cut(of("1"), "/"); first == second || len(first) != 11 || len(second) != 11 {
		t.Errorf("occurrences %q and %q", first, second)
	}
}

func TestWhatATemplateUses(t *testing.T) {
	template, err := ParsePrefix("!{timestamp:yyyy}!{partitionKeyFromLambda:b}!{partitionKeyFromQuery:a}!{partitionKeyFromQuery:c}!{partitionKeyFromQuery:a}", Options{Partitioning: true})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(template.Namespaces(), template.QueryKeys(), template.FunctionKeys(), template.Expressions())
	if want := "[timestamp partitionKeyFromLambda partitionKeyFromQuery] [a c] [b] true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	plain, err := ParsePrefix("logs/", Options{})
	if err != nil || plain.Expressions() || len(plain.Namespaces()) != 0 || plain.String() != "logs/" {
		t.Errorf("a literal uses %v (%v)", plain.Namespaces(), err)
	}
}

func TestObjectNames(t *testing.T) {
	const id = "3f0c9a5e11d24f7b8c6d0e1f2a3b4c5d"
	for _, c := range []struct {
		zone, extension, id, want string
	}{
		{"", ".gz", id, "clicks-3-2026-07-13-14-05-09-3f0c9a5e-11d2-4f7b-8c6d-0e1f2a3b4c5d.gz"},
		{"Asia/Tokyo", "", id, "clicks-3-2026-07-13-23-05-09-3f0c9a5e-11d2-4f7b-8c6d-0e1f2a3b4c5d"},
		{"", ".parquet", "7", "clicks-3-2026-07-13-14-05-09-7.parquet"},
	} {
		if got := ObjectName("clicks", 3, arrival, mustLocation(c.zone), c.id, c.extension); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	if got := ObjectName("s", 1, arrival, nil, "x", ""); got != "s-1-2026-07-13-14-05-09-x" {
		t.Errorf("without a location: %s", got)
	}
}

func TestTimeZones(t *testing.T) {
	for _, name := range []string{"Mars/Olympus", "Local", "../etc/passwd", "utc+1"} {
		if _, err := LoadLocation(name); err == nil {
			t.Errorf("%s is a time zone", name)
		}
	}
	for _, c := range []struct{ zone, at, pattern, want string }{
		{"Europe/Dublin", "2026-01-15T12:00:00Z", "z zzzz v vvvv", "GMT Greenwich Mean Time IT Irish Time"},
		{"Europe/Dublin", "2026-07-15T12:00:00Z", "z zzzz", "IST Irish Standard Time"},
		{"America/Sao_Paulo", "2026-07-15T12:00:00Z", "z", "BRT"},
		{"Europe/London", "2026-07-15T12:00:00Z", "z", "BST"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(p.append(nil, at.In(mustLocation(c.zone)))); got != c.want {
			t.Errorf("%s in %s: %q, want %q", c.pattern, c.zone, got, c.want)
		}
	}
}

func FuzzPrefix(f *testing.F) {
	for _, s := range []string{"", "legacy", "!{timestamp:yyyy/MM/dd}", "!{firehose:random-string}", "!{partitionKeyFromQuery:a}", "!{", "!{timestamp:'}", "!{timestamp:ppppH[VV]}", "!{timestamp:YYYY-'W'ww}", "a!{firehose:error-output-type}b"} {
		f.Add(s, int64(1783951509123), "Asia/Kolkata")
	}
	f.Fuzz(func(t *testing.T, text string, millis int64, zone string) {
		location, err := LoadLocation(zone)
		if err != nil {
			location = time.UTC
		}
		const year9999 = 253402300799999
		at := time.UnixMilli(millis % year9999)
		for _, o := range []Options{{Location: location}, {Error: true, Location: location}, {Partitioning: true, Location: location}} {
			template, err := ParsePrefix(text, o)
			if err != nil {
				continue
			}
			keys := &record.Keys{Query: map[string]string{}, Function: map[string]string{}}
			for _, k := range template.QueryKeys() {
				keys.Query[k] = "q"
			}
			for _, k := range template.FunctionKeys() {
				keys.Function[k] = "f"
			}
			v := Values{At: at, ErrorType: "splunk-failed", Keys: keys, ID: "1"}
			got, err := template.Evaluate(v)
			if err != nil {
				continue
			}
			if utf8.RuneCountInString(got) > MaxEvaluated {
				t.Errorf("%q became %d characters", text, utf8.RuneCountInString(got))
			}
			if again, err := template.Evaluate(v); err != nil || again != got {
				t.Errorf("%q is %q and then %q (%v)", text, got, again, err)
			}
			if !template.Expressions() && !strings.HasPrefix(got, text) {
				t.Errorf("the literal %q became %q", text, got)
			}
			if slices.Contains(template.Namespaces(), NamespaceQuery) && !o.Partitioning {
				t.Errorf("%q has partitions", text)
			}
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	template, err := ParsePrefix("c=!{partitionKeyFromQuery:c}/year=!{timestamp:yyyy}/month=!{timestamp:MM}/day=!{timestamp:dd}/", Options{Partitioning: true})
	if err != nil {
		b.Fatal(err)
	}
	v := Values{At: arrival, Keys: &record.Keys{Query: map[string]string{"c": "customer-1"}}}
	var buffer []byte
	b.Run("object", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buffer, _ = template.Append(buffer[:0], v)
		}
	})
	b.Run("partition", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buffer, _ = template.AppendPartition(buffer[:0], v.Keys)
		}
	})
}
