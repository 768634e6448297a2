package process

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// What JQ-1.6 gives, as its manual has it and its users rely on. The program is
// the value of the key v.
func TestQueriesGiveWhatJQ16Gives(t *testing.T) {
	for _, c := range []struct{ program, input, want string }{
		{`.a`, `{"a":"x"}`, "x"},
		{`.a.b.c`, `{"a":{"b":{"c":"x"}}}`, "x"},
		{`.["a b"]`, `{"a b":"x"}`, "x"},
		{`."a-b"`, `{"a-b":"x"}`, "x"},
		{`.a[1]`, `{"a":["x","y"]}`, "y"},
		{`.a[-1]`, `{"a":["x","y"]}`, "y"},
		{`.a[1:] | length`, `{"a":["x","y","z"]}`, "2"},
		{`.a`, `{"a":42}`, "42"},
		{`.a`, `{"a":-0.5}`, "-0.5"},
		{`.a`, `{"a":1e3}`, "1000"},
		{`.a`, `{"a":true}`, "true"},
		{`.a`, `{"a":false}`, "false"},
		{`.a // "none"`, `{}`, "none"},
		{`.a // "none"`, `{"a":false}`, "none"},
		{`.a.b? // "none"`, `{"a":"text"}`, "none"},
		{`(.a | tonumber)? // 7`, `{"a":"text"}`, "7"},
		{`try (.a | tonumber) catch "bad"`, `{"a":"text"}`, "bad"},
		{`.a | tonumber + 1`, `{"a":"41"}`, "42"},
		{`.a | tonumber`, `{"a":"1.50"}`, "1.5"},
		{`.a | tostring`, `{"a":{"b":[1,null]}}`, `{"b":[1,null]}`},
		{`.a | ascii_downcase`, `{"a":"ÄBC"}`, "Äbc"},
		{`.a | ascii_upcase`, `{"a":"abc"}`, "ABC"},
		{`.a | length`, `{"a":"éa"}`, "2"},
		{`.a | utf8bytelength`, `{"a":"éa"}`, "3"},
		{`.a | split("/") | .[0]`, `{"a":"x/y"}`, "x"},
		{`.a | split("/") | join("-")`, `{"a":"x/y"}`, "x-y"},
		{`[.a, null, 1, true] | join(",")`, `{"a":"x"}`, "x,,1,true"},
		{`.a | ltrimstr("arn:")`, `{"a":"arn:x"}`, "x"},
		{`.a | rtrimstr(":x")`, `{"a":"arn:x"}`, "arn"},
		{`.a | startswith("ar")`, `{"a":"arn"}`, "true"},
		{`.a | endswith("ar")`, `{"a":"arn"}`, "false"},
		{`.a | test("^[0-9]+$")`, `{"a":"123"}`, "true"},
		{`.a | test("ABC"; "i")`, `{"a":"xabcx"}`, "true"},
		{`.a | sub("(?<x>[a-z]+)-"; "\(.x)_")`, `{"a":"ab-cd-"}`, "ab_cd-"},
		{`.a | gsub("-"; "")`, `{"a":"2026-07-13"}`, "20260713"},
		{`.a | capture("(?<y>[0-9]{4})") | .y`, `{"a":"x2026"}`, "2026"},
		{`[.a | scan("[0-9]")] | length`, `{"a":"a1b2"}`, "2"},
		{`[.a | match("b"; "g").offset] | add`, `{"a":"abab"}`, "4"},
		{`.a | @base64`, `{"a":"hello"}`, "aGVsbG8="},
		{`.a | @base64d`, `{"a":"aGVsbG8="}`, "hello"},
		{`.a | @uri`, `{"a":"a b/c"}`, "a%20b%2Fc"},
		{`.a | @html`, `{"a":"<&>"}`, "&lt;&amp;&gt;"},
		{`.a | @csv`, `{"a":[1,"x\"y"]}`, `1,"x""y"`},
		{`.a | @tsv`, `{"a":[1,"x\ty"]}`, `1	x\ty`},
		{`.a | @sh`, `{"a":"it's"}`, `'it'\''s'`},
		{`.a | @json`, `{"a":[1,"é"]}`, `[1,"é"]`},
		{`@text "v=\(.a)"`, `{"a":1}`, "v=1"},
		{`"\(.a)-\(.b)"`, `{"a":1,"b":"x"}`, "1-x"},
		{`.ts | strftime("%Y")`, `{"ts":1716369573}`, "2024"},
		{`.ts | strftime("%Y-%m-%dT%H:%M:%SZ")`, `{"ts":1716369573}`, "2024-05-22T09:19:33Z"},
		{`.ts | strftime("%A, %B %d, %Y %j %e")`, `{"ts":1716369573}`, "Wednesday, May 22, 2024 143 22"},
		{`.ts / 1000 | strftime("%H")`, `{"ts":1716369573887}`, "09"},
		{`.ts | todate`, `{"ts":1716369573}`, "2024-05-22T09:19:33Z"},
		{`.ts | fromdate`, `{"ts":"2024-05-22T09:19:33Z"}`, "1716369573"},
		{`.ts | fromdateiso8601 | strftime("%d")`, `{"ts":"2024-05-22T09:19:33Z"}`, "22"},
		{`.ts | strptime("%Y-%m-%d") | mktime`, `{"ts":"2024-05-22"}`, "1716336000"},
		{`.ts | gmtime | .[1]`, `{"ts":1716369573}`, "4"},
		{`.ts | gmtime | mktime`, `{"ts":1716369573}`, "1716369573"},
		{`now | type`, `{}`, "number"},
		{`.a | floor`, `{"a":1.7}`, "1"},
		{`.a | sqrt`, `{"a":9}`, "3"},
		{`pow(.a; 2)`, `{"a":3}`, "9"},
		{`.a % 3`, `{"a":-7}`, "-1"},
		{`.a / 2`, `{"a":7}`, "3.5"},
		{`.a * 2`, `{"a":"xy"}`, "xyxy"},
		{`.a - ["x"] | .[0]`, `{"a":["x","y"]}`, "y"},
		{`if .a > 10 then "big" elif .a > 5 then "middle" else "small" end`, `{"a":7}`, "middle"},
		{`.a == "x" and (.b | not)`, `{"a":"x","b":false}`, "true"},
		{`.a | type`, `{"a":null}`, "null"},
		{`.a | keys | .[0]`, `{"a":{"z":1,"b":2}}`, "b"},
		{`.a | has("z")`, `{"a":{"z":1}}`, "true"},
		{`.a | to_entries | map("\(.key)=\(.value)") | join("&")`, `{"a":{"z":1,"b":2}}`, "b=2&z=1"},
		{`.a | with_entries(.value += 1) | .z`, `{"a":{"z":1}}`, "2"},
		{`[.a[] | select(.k == "x")] | .[0].v`, `{"a":[{"k":"y","v":1},{"k":"x","v":2}]}`, "2"},
		{`first(.a[] | select(. > 1))`, `{"a":[1,2,3]}`, "2"},
		{`.a | map(. * 2) | add`, `{"a":[1,2,3]}`, "12"},
		{`.a | sort | reverse | .[0]`, `{"a":[1,3,2]}`, "3"},
		{`.a | unique | length`, `{"a":[1,1,2]}`, "2"},
		{`.a | group_by(.k) | length`, `{"a":[{"k":1},{"k":2},{"k":1}]}`, "2"},
		{`.a | min_by(.k).v`, `{"a":[{"k":2,"v":"b"},{"k":1,"v":"a"}]}`, "a"},
		{`.a | any(. > 2)`, `{"a":[1,3]}`, "true"},
		{`.a | all(. > 2)`, `{"a":[1,3]}`, "false"},
		{`.a | flatten | length`, `{"a":[1,[2,[3]]]}`, "3"},
		{`.a | index("b")`, `{"a":"abc"}`, "1"},
		{`.a | inside("abc")`, `{"a":"b"}`, "true"},
		{`.a | contains("b")`, `{"a":"abc"}`, "true"},
		{`.a | explode | implode`, `{"a":"aé"}`, "aé"},
		{`.a | tojson`, `{"a":[1,{"b":null}]}`, `[1,{"b":null}]`},
		{`.a | fromjson | .b`, `{"a":"{\"b\":7}"}`, "7"},
		{`[.a | splits(", *")] | length`, `{"a":"x, y,z"}`, "3"},
		{`.a | split(", *"; null) | .[1]`, `{"a":"x, y,z"}`, "y"},
		{`.a | [match("(?<x>b)|(c)"; "g") | .captures[0].name] | length`, `{"a":"abcb"}`, "3"},
		{`.a | match("é(b)").captures[0].offset`, `{"a":"aéb"}`, "2"},
		{`[.a | match("a*"; "gn").string] | join("|")`, `{"a":"aaxa"}`, "aa|a"},
		{`.a | capture("(?<x>z)?a") | .x == null`, `{"a":"a"}`, "true"},
		{`[.a | sub("(?<l>.)"; "1\(.l)", "2\(.l)")] | join(",")`, `{"a":"xy"}`, "1xy,2xy"},
		{`.a | test(["X", "i"])`, `{"a":"x"}`, "true"},
		{`[paths | length] | max`, `{"a":{"b":1}}`, "2"},
		{`getpath(["a","b"])`, `{"a":{"b":1}}`, "1"},
		{`setpath(["a","b"]; 5) | .a.b`, `{"a":{"b":1}}`, "5"},
		{`delpaths([["a"]]) | length`, `{"a":1,"b":2}`, "1"},
		{`del(.a) | length`, `{"a":1,"b":2}`, "1"},
		{`.a |= . + 1 | .a`, `{"a":1}`, "2"},
		{`.a += 5 | .a`, `{"a":1}`, "6"},
		{`.a *= 5 | .a`, `{"a":2}`, "10"},
		{`.a -= 1 | .a`, `{"a":2}`, "1"},
		{`.a //= "d" | .a`, `{}`, "d"},
		{`[limit(3; .a[])] | length`, `{"a":[1,2,3,4]}`, "3"},
		{`reduce .a[] as $x (0; . + $x)`, `{"a":[1,2,3]}`, "6"},
		{`[foreach .a[] as $x (0; . + $x)] | .[-1]`, `{"a":[1,2,3]}`, "6"},
		{`def f(x): x * 2; f(.a)`, `{"a":21}`, "42"},
		{`. as {a: $x, b: [$y]} | "\($x)\($y)"`, `{"a":1,"b":[2]}`, "12"},
		{`.a as [$x, $y] | $x + $y`, `{"a":[1,2]}`, "3"},
		{`[.[] | strings] | join("")`, `{"a":"x","b":1}`, "x"},
		{`.a | walk(if type == "number" then . + 1 else . end) | .b`, `{"a":{"b":1}}`, "2"},
		{`.a | transpose | .[1][0]`, `{"a":[[1,2],[3]]}`, "2"},
		{`.a | ascii_downcase | .[0:2]`, `{"a":"HELLO"}`, "he"},
		{`[.a, .b] | @json`, `{"a":1,"b":"x"}`, `[1,"x"]`},
		{`.a | tostring | length`, `{"a":12345678901234567}`, "17"},
		{`.a`, `{"a":9223372036854775807}`, "9223372036854775807"},
		{`.a`, `{"a":1e400}`, "1.7976931348623157e+308"},
		{`.a + 1`, `{"a":9223372036854775807}`, "9223372036854776000"},
		{`.a * .a`, `{"a":9223372036854775807}`, "8.507059173023462e+37"},
		{`.a`, `{"a":"\u00e9\ud83d\ude00"}`, "é😀"},
		{`[.a[] | tonumber?] | add`, `{"a":["1","x","2"]}`, "3"},
		{`input_line_number`, `{}`, "0"},
		{`[leaf_paths] | length`, `{"a":{"b":1}}`, "1"},
		{`[.a | isvalid(tonumber)] | @json`, `{"a":"x"}`, "[false]"},
		{`[truncate_stream(1; [[0],1],[[1,0],2],[[1,0]],[[1]])] | @json`, `{}`, "[[[0],2],[[0]]]"},
		{`.a | debug | ascii`, `{"a":65}`, "A"},
		{`.a | @base32 | @base32d`, `{"a":"hello"}`, "hello"},
		{`[inputs] | length`, `{}`, "0"},
		{`env | length`, `{}`, "0"},
		{`$ENV | length`, `{}`, "0"},
		{`splits("a") | . + ""`, `"x"`, "x"},
		{`[(1,2) + (10,20)] | @json`, `{}`, "[11,12,21,22]"},
		{`[(1,2) * (10,20)] | @json`, `{}`, "[10,20,20,40]"},
	} {
		q := mustQuery(t, `{v: (`+c.program+`)}`)
		got, err := q.Run([]byte(c.input))
		whole := *q
		whole.whole, whole.paths = true, nil
		if same, sameErr := whole.Run([]byte(c.input)); fmt.Sprint(same, sameErr) != fmt.Sprint(got, err) && !strings.Contains(c.program, "now") {
			t.Errorf("%s of %s: %v (%v), of the record as a whole %v (%v)", c.program, c.input, got, err, same, sameErr)
		}
		if err != nil || got["v"] != c.want {
			t.Errorf("%s of %s: %q (%v), want %q", c.program, c.input, got["v"], err, c.want)
		}
	}
}

func TestFailuresOfQueries(t *testing.T) {
	for _, c := range []struct{ program, input, want string }{
		{`{a:.a}`, `not json`, "Non JSON record provided"},
		{`{a:.a}`, ``, "Non JSON record provided"},
		{`{a:.a}`, `{"a":1}{"a":2}`, "Non JSON record provided"},
		{`{a:.a}`, strings.Repeat("[", 10_000), "deeper than"},
		{`{a:.a}`, `{}`, "partition key a is null"},
		{`{a:.a}`, `{"a":""}`, "partition key a is empty"},
		{`{a:.a}`, `{"a":[1]}`, "partition key a is neither"},
		{`{a:.a}`, `{"a":{}}`, "partition key a is neither"},
		{`{a:.a}`, `[1]`, "MetadataExtractionQuery failed: expected an object"},
		{`.a`, `{"a":1}`, "gave 1 and not an object"},
		{`empty`, `{}`, "gave no result"},
		{`{a:.a[]}`, `{"a":[1,2]}`, "more than one result"},
		{`{a:.a[]|tonumber}`, `{"a":["1","x"]}`, "MetadataExtractionQuery failed"},
		{`error("x")`, `{}`, "MetadataExtractionQuery failed"},
		{`{a:.a|halt_error}`, `{"a":"x"}`, "MetadataExtractionQuery failed"},
		{`[range(51)] | map({key:"k\(.)",value:1}) | from_entries`, `{}`, "gave 51 keys"},
		{`{a:("x" * 100000)}`, `{}`, "more than 65536 bytes"},
	} {
		got, err := mustQuery(t, c.program).Run([]byte(c.input))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %.40s: %v, %v, want %q", c.program, c.input, got, err, c.want)
		}
	}
}

// Programs that want too much of the machine. Each has to end soon, with an
// error, and without having had more memory than many honest ones have together.
func TestQueriesThatWantTooMuch(t *testing.T) {
	for _, program := range []string{
		`{a: (def f: f; f)}`,
		`{a: (def f: 1 + f; f)}`,
		`{a: ([repeat(1)] | length)}`,
		`{a: ([range(1e12)] | length)}`,
		`{a: (reduce range(1e12) as $i (0; . + $i))}`,
		`{a: last(range(1e12))}`,
		`{a: (reduce range(64) as $i ("xx"; . + .) | length)}`,
		`{a: (reduce range(64) as $i ("xx"; . * 2) | length)}`,
		`{a: ("x" * 1e9 | length)}`,
		`{a: (1e9 * "x" | length)}`,
		`{a: (reduce range(64) as $i ([1]; . + .) | length)}`,
		`{a: (reduce range(64) as $i ([]; [., .]) | tojson | length)}`,
		`{a: (reduce range(64) as $i ([]; [., .]) | . == . | tostring)}`,
		`{a: (reduce range(64) as $i ({}; {a: ., b: .}) | [..] | length)}`,
		`{a: (reduce range(64) as $i ([]; . as $x | .[0] = $x | .[1] = $x) | tojson | length)}`,
		`{a: (reduce range(64) as $i ([1]; .[0:0] = .) | length)}`,
		`{a: (reduce range(64) as $i ("x"; "\(.)\(.)") | length)}`,
		`{a: (reduce range(64) as $i ("<"; @html "\(.)\(.)") | length)}`,
		`{a: (reduce range(64) as $i ("x"; [., .] | join("")) | length)}`,
		`{a: (reduce range(64) as $i ("x"; [., .] | add) | length)}`,
		`{a: (reduce range(64) as $i ("\""; tojson) | length)}`,
		`{a: ([range(100000)] | map("") | join("x" * 100000) | length)}`,
		`{a: ([[range(3000)]] + [range(3000) | []] | transpose | length)}`,
		`{a: ("x" * 1000000 | gsub(""; "x" * 1000000) | length)}`,
		`{a: ("1" * 1000000 | tonumber)}`,
		`{a: (reduce range(64) as $i ({}; .a += . | .b = .) | tojson | length)}`,
		`{a: (reduce range(64) as $i ([1]; . *= 2; .) | length)}`,
		`{a: (reduce range(64) as $i (["x"]; .[0] += .[0]) | .[0] | length)}`,
		`{a: ([range(300) | tostring] | combinations(5) | length)}`,
		`{a: (def join($x): 1; reduce range(64) as $i ([]; [., .]) | tojson | length)}`,
	} {
		q, err := NewQuery(program)
		if err != nil {
			continue // refused at once is as good
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := q.Run([]byte(`{}`))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: %v", program, got)
		}
		if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 4000 {
			t.Errorf("%s allocated %d MiB in all", program, allocated)
		}
		if held := (after.HeapSys - before.HeapSys) >> 20; held < 1<<40 && held > 500 {
			t.Errorf("%s made the heap %d MiB larger", program, held)
		}
	}
}

// Indexes beyond any list read nothing and cannot make a list that long.
func TestIndexesFarAway(t *testing.T) {
	for _, program := range []string{
		`{a: (.b[500000000] = 1 | .b | length)}`,
		`{a: (.b[1e300] = 1 | .b | length)}`,
		`{a: (setpath(["b", 500000000]; 1) | .b | length)}`,
		`{a: (.i as $i | .b[$i] |= 1 | .b | length)}`,
		`{a: ([fromstream(([["b",500000000],1], [["b"]]))] | .[0].b | length)}`,
	} {
		if got, err := mustQuery(t, program).Run([]byte(`{"b":[],"i":536870910}`)); err == nil {
			t.Errorf("%s: %v", program, got)
		}
	}
	got, err := mustQuery(t, `{a: (.b[500000000] // "none"), c: (.b[-500000000] // "none"), d: .b[0], e: (.b[0:900000000] | length)}`).Run([]byte(`{"b":["x"]}`))
	if want := "map[a:none c:none d:x e:1]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v (%v), want %s", got, err, want)
	}
}

func TestKeysOfQueries(t *testing.T) {
	for _, c := range []struct {
		program string
		want    []string
	}{
		{`{customer: .cust, y: (.ts|strftime("%Y"))}`, []string{"customer", "y"}},
		{`{"a b": 1, a, "c"}`, []string{"a b", "a", "c"}},
		{`.x | {a: .a}`, []string{"a"}},
		{`({a: .a})`, []string{"a"}},
		{`. as $x | {$x}`, []string{"x"}},
		{`{(.k): 1}`, nil},
		{`{"a\(.k)": 1}`, nil},
		{`.`, nil},
		{`{a:1} + {b:2}`, nil},
		{`{a:1}.a`, nil},
		{`{}`, []string{}},
	} {
		if got := mustQuery(t, c.program).Keys(); !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%s: %q, want %q", c.program, got, c.want)
		}
	}
}

func TestExpressionsThatRecordsBringAreForgotten(t *testing.T) {
	q := mustQuery(t, `{a: (. as $x | .t | test($x.p))}`)
	for i := range 3 * maxExpressions {
		got, err := q.Run(fmt.Appendf(nil, `{"t":"x%d","p":"^x%d$"}`, i, i))
		if err != nil || got["a"] != "true" {
			t.Fatalf("run %d: %v (%v)", i, got, err)
		}
	}
	expressions.mu.Lock()
	defer expressions.mu.Unlock()
	if n := len(expressions.compiled); n > maxExpressions {
		t.Errorf("%d expressions are kept", n)
	}
}

// A megabyte of matches in a record must not take more than its time.
func TestManyMatches(t *testing.T) {
	text := strings.Repeat("-é", 10_000)
	q := mustQuery(t, `{a: (.t | gsub("-"; "") | length), b: (.t | [splits("-")] | length), c: ([.t | match("é"; "g").offset] | last)}`)
	got, err := q.Run([]byte(`{"t":"` + text + `"}`))
	if want := "map[a:10000 b:10001 c:19999]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v (%v), want %s", got, err, want)
	}
}

func TestWhatProgramsSee(t *testing.T) {
	for program, want := range map[string]string{
		`{a: .a, b}`:                                    "[a b]",
		`{a: (.ts | strftime("%Y"))}`:                   "[ts]",
		`{a: .a[.i], b: .["c"].d}`:                      "[a i c]",
		`{a: (.a // .b | ascii_downcase)}`:              "[a b]",
		`{a: "\(.a)-\(.b.c)", "k\(.d)": 1}`:             "[a b d]",
		`{a: (if .a then .b else "x" end)}`:             "[a b]",
		`{a: [.a[] | .x], b: now, c: (try .d catch .)}`: "[a d]",
		`{a: (.a as $x | $x + .b)}`:                     "[a b]",
		`{a: (reduce .a[] as $x (.s; . + $x))}`:         "[a s]",
		`{a: @base64 "\(.a)", b: -.b}`:                  "[a b]",
		`{a: 1}`:                                        "[]",
		`{a: .}`:                                        "all",
		`{a: length}`:                                   "all",
		`{a: tostring}`:                                 "all",
		`{a: [..]}`:                                     "all",
		`{a: (.b = 1 | .b)}`:                            "all",
		`{a: (. as {$x} | $x)}`:                         "all",
		`{a: .[.k]}`:                                    "all",
		`{a: (if .a then 1 end)}`:                       "all",
		`def f: .a; {a: f}`:                             "all",
		`{a: @json}`:                                    "all",
		`.[] | {a: .}`:                                  "all",
		`.x | {a: .y}`:                                  "[x]",
	} {
		q := mustQuery(t, program)
		got := fmt.Sprint(q.fields)
		if q.whole {
			got = "all"
		}
		if got != want {
			t.Errorf("%s sees %s, want %s", program, got, want)
		}
	}
}
