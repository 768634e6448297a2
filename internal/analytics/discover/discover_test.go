package discover

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/run"
)

func TestSchema(t *testing.T) {
	for name, c := range map[string]struct {
		samples []string
		want    string
	}{
		"demo ticker": {
			[]string{`{"TICKER_SYMBOL":"QXZ","SECTOR":"HEALTHCARE","CHANGE":-0.05,"PRICE":84.51}`, `{"TICKER_SYMBOL":"AB","SECTOR":"X","CHANGE":1,"PRICE":2}`},
			"$ TICKER_SYMBOL VARCHAR(4) $.TICKER_SYMBOL, SECTOR VARCHAR(16) $.SECTOR, CHANGE DOUBLE $.CHANGE, PRICE DOUBLE $.PRICE",
		},
		"names": {
			[]string{`{"USER":1,"USER@DOMAIN":2,"@@":3,"user":4,"1a":5}`},
			"$ COL_USER INTEGER $.USER, COL_USERDOMAIN INTEGER $.USER@DOMAIN, COL_2 INTEGER $.@@, COL_user INTEGER $.user, COL_1a INTEGER $.1a",
		},
		"types widen": {
			[]string{`{"a":1,"b":true,"c":1,"d":null}`, `{"a":3000000000,"b":2,"c":"x","d":null,"e":false}`},
			"$ a BIGINT $.a, b VARCHAR(4) $.b, c VARCHAR(4) $.c, d VARCHAR(4) $.d, e BOOLEAN $.e",
		},
		"nesting and arrays": {
			[]string{`{"o":{"p":{"q":"` + strings.Repeat("x", 17) + `"}},"items":[{"sku":"a","n":1},{"sku":"bb","n":2}],"tags":["x","y"],"more":[{"z":1}]}`},
			"$ o_p_q VARCHAR(64) $.o.p.q, items_sku VARCHAR(4) $.items[0:].sku, items_n INTEGER $.items[0:].n, tags VARCHAR(16) $.tags[0:], more VARCHAR(16) $.more[0:]",
		},
		"several documents": {[]string{`{"a":1} {"a":2.5}`}, "$ a DOUBLE $.a"},
		"csv with a header": {
			[]string{"id,name,value\n1,ab,2.5\n2,c,3\n"},
			"csv \"\\n\" \",\" id INTEGER , name VARCHAR(4) , COL_value DOUBLE ",
		},
		"an array of objects":  {[]string{`[{"a":1,"b":"x"},{"a":2}]`, `[]`}, "$ a INTEGER $[0:].a, b VARCHAR(4) $[0:].b"},
		"an array of values":   {[]string{`[1,2]`}, "$ COL_0 VARCHAR(16) $[0:]"},
		"names without a path": {[]string{`{"a.b":{"c":1},"":2,"d[0]":[1],"e":3}`}, "$ COL_ab_c INTEGER $['a.b'].c, e INTEGER $.e"},
		"csv with quotes":      {[]string{`1,"x, ""y""",z` + "\n" + `2, "p" ,q`}, "csv \"\\n\" \",\" COL_0 INTEGER , COL_1 VARCHAR(16) , COL_2 VARCHAR(4) "},
		"csv with open quotes": {[]string{`1,"x`, `2,y`}, "csv \"\\n\" \",\" COL_0 INTEGER , COL_1 VARCHAR(4) "},
		"some are wrong":       {[]string{`{"a":1}`, `oops`, `{"a":`, `{"a":2.5} {"b":1}`, `{"b":2}`}, "$ a DOUBLE $.a, b INTEGER $.b"},
		"csv without":          {[]string{"1;x\r\n", "2;yy\r\n"}, "csv \"\\r\\n\" \";\" COL_0 INTEGER , COL_1 VARCHAR(4) "},
	} {
		f, err := Most(c.samples)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := f.RowPath
		if f.CSV {
			got = fmt.Sprintf("csv %q %q", f.RowDelimiter, f.ColumnDelimiter)
		}
		var columns []string
		for _, col := range f.Columns {
			columns = append(columns, col.Name+" "+col.Type.String()+" "+col.Mapping)
		}
		if got += " " + strings.Join(columns, ", "); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestNoSchema(t *testing.T) {
	for _, samples := range [][]string{nil, {""}, {"plain words"}, {`{"a":`}, {"\xff\xfe"}, {`{"a":1, "b":2`, `{"a":1, "b":2`}, {`{"a":1}`, "x"}, {`{}`}, {`[`}} {
		if f, err := Most(samples); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q gives %+v, %v", samples, f, err)
		}
	}
}

func FuzzSchema(f *testing.F) {
	f.Add(`{"a":[{"b":1}]}`, "x,y\n1,2")
	f.Fuzz(func(t *testing.T, a, b string) {
		format, err := Most([]string{a, b})
		if err == nil && (len(format.Columns) == 0 || len(format.Columns) > 1000) {
			t.Fatal(len(format.Columns))
		}
		if err == nil {
			if _, err := run.NewParser(format); err != nil {
				t.Fatal(err)
			}
		}
	})
}
