package hive

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"int", "int"}, {" INT ", "int"}, {"integer", "int"}, {"Boolean", "boolean"}, {"tinyint", "tinyint"}, {"smallint", "smallint"}, {"bigint", "bigint"},
		{"float", "float"}, {"double", "double"}, {"string", "string"}, {"binary", "binary"}, {"date", "date"}, {"timestamp", "timestamp"},
		{"decimal", "decimal(10,0)"}, {"decimal(5)", "decimal(5,0)"}, {"decimal( 38 , 38 )", "decimal(38,38)"}, {"numeric(3,1)", "decimal(3,1)"},
		{"char(255)", "char(255)"}, {"varchar( 65535 )", "varchar(65535)"},
		{"array<int>", "array<int>"}, {"map<string,array<int>>", "map<string,array<int>>"},
		{"struct<a:int,B:string>", "struct<a:int,B:string>"}, {"struct< a : int , b : map < int , date > >", "struct<a:int,b:map<int,date>>"},
		{"struct<`order by`:int,`a``b`:int,order-id:int>", "struct<`order by`:int,`a``b`:int,order-id:int>"},
		{"struct<timestamp:string,from:array<struct<map:int>>>", "struct<timestamp:string,from:array<struct<map:int>>>"},
		{strings.Repeat("array<", 32) + "int" + strings.Repeat(">", 32), strings.Repeat("array<", 32) + "int" + strings.Repeat(">", 32)},
	} {
		got, err := Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got.String() != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"set<string>", "Error: type expected at the position 0 of 'set<string>' but 'set' is found."},
		{"array<set<int>>", "Error: type expected at the position 6 of 'array<set<int>>' but 'set' is found."},
		{"uniontype<int,string>", "Error: type expected at the position 0 of 'uniontype<int,string>' but 'uniontype' is found."},
		{"", "Error: type expected at the end of ''"},
		{"array<int", "Error: > expected at the end of 'array<int'"},
		{"array<int>>", "Error: unexpected character at the end of 'array<int>>'"},
		{"array<int> int", "Error: unexpected character at the end of 'array<int> int'"},
		{"map<string>", "Error: , expected at the position 10 of 'map<string>' but '>' is found."},
		{"map<array<int>,int>", "Error: primitive type expected at the position 4 of 'map<array<int>,int>' but 'array' is found."},
		{"struct<>", "Error: name expected at the position 7 of 'struct<>' but '>' is found."},
		{"struct<a>", "Error: : expected at the position 8 of 'struct<a>' but '>' is found."},
		{"struct<a:int,A:int>", "Error: the member 'A' appears twice in 'struct<a:int,A:int>'"},
		{"struct<a:int,>", "Error: name expected at the position 13 of 'struct<a:int,>' but '>' is found."},
		{"struct<`a:int>", "Error: name expected at the position 7 of 'struct<`a:int>' but '`' is found."},
		{"decimal(39,2)", "Decimal precision out of allowed range [1,38]"},
		{"decimal(0)", "Decimal precision out of allowed range [1,38]"},
		{"decimal(2,3)", "Decimal scale must be less than or equal to precision"},
		{"decimal(1 0,2)", "Error: ) expected at the position 10 of 'decimal(1 0,2)' but '0' is found."},
		{"decimal(99999999999999999999)", "Error: number expected at the position 8 of 'decimal(99999999999999999999)' but '99999999999999999999' is found."},
		{"decimal(-1)", "Error: number expected at the position 8 of 'decimal(-1)' but '-1' is found."},
		{"char", "Error: ( expected at the end of 'char'"},
		{"char(256)", "Char length 256 out of allowed range [1, 255]"},
		{"varchar(0)", "Varchar length 0 out of allowed range [1, 65535]"},
		{"varchar(foo)", "Error: number expected at the position 8 of 'varchar(foo)' but 'foo' is found."},
		{strings.Repeat("array<", 40) + "int" + strings.Repeat(">", 40), "Error: types nest deeper than 32 in '" + strings.Repeat("array<", 40) + "int" + strings.Repeat(">", 40) + "'"},
	} {
		_, err := Parse(c.text)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.text, err, c.want)
		}
	}
}

func TestLeaves(t *testing.T) {
	parsed, err := Parse("struct<a:int,b:map<string,struct<c:int,d:array<int>>>>")
	if err != nil {
		t.Fatal(err)
	}
	if n := parsed.Leaves(); n != 4 {
		t.Errorf("%d leaves, want 4", n)
	}
}

// FuzzParse holds that what is parsed is written so that it is parsed again, and
// means the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"int", "decimal(5,2)", "array<struct<`a``b`:map<string,varchar(5)>>>", "set<string>", "struct<a:int", "char(", "struct<a:int,a:int>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(first.String())
		if err != nil {
			t.Fatalf("%q is written %q: %v", text, first, err)
		}
		if first.String() != again.String() {
			t.Fatalf("%q: %s, then %s", text, first, again)
		}
	})
}
