package orc

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

var update = flag.Bool("update", false, "rewrite goldens")

func fields(t testing.TB, text string) []hive.Field {
	t.Helper()
	var list []hive.Field
	for part := range strings.SplitSeq(text, ";") {
		name, typ, _ := strings.Cut(strings.TrimSpace(part), " ")
		parsed, err := hive.Parse(typ)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, hive.Field{Name: name, Type: parsed})
	}
	return list
}

// fill appends a random value; every third is null.
func fill(r *rand.Rand, c *column.Column, depth int) {
	if r.IntN(3) == 0 && depth > 0 {
		c.AppendNull()
		return
	}
	switch c.Type.Kind {
	case hive.Boolean:
		c.AppendInt(int64(r.IntN(2)))
	case hive.TinyInt:
		c.AppendInt(int64(int8(r.IntN(4) * 40)))
	case hive.SmallInt:
		c.AppendInt(int64(int16(r.Uint32())))
	case hive.Int, hive.Date:
		c.AppendInt(int64(int32(r.Uint32())) >> (r.IntN(4) * 8))
	case hive.BigInt:
		c.AppendInt(int64(r.Uint64()) >> (r.IntN(8) * 8))
	case hive.Timestamp:
		v := (int64(r.Uint64()) >> r.IntN(40)) / []int64{1, 1000, 1_000_000, 1_000_000_000, 10, 700}[r.IntN(6)]
		if v < 0 && v > -1_000_000_000 {
			v = -v // the format has no place for the second before 1970
		}
		c.AppendInt(v)
	case hive.Float:
		c.AppendFloat(float64(float32(r.NormFloat64())))
	case hive.Double:
		c.AppendFloat(r.NormFloat64())
	case hive.Decimal:
		v := column.Int128{Hi: int64(r.Uint64()) >> (r.IntN(8)*9 + 1), Lo: r.Uint64()}
		if r.IntN(3) == 0 {
			v = column.Int128{Hi: -1, Lo: -r.Uint64N(1000) - 1}
		}
		c.AppendDecimal(v)
	case hive.String, hive.Varchar, hive.Char, hive.Binary:
		c.AppendBytes([]byte(strings.Repeat("t", r.IntN(3)) + string(rune('a'+r.IntN(20)))))
	case hive.Array, hive.Map:
		for range r.IntN(4) {
			for i, child := range c.Children {
				d := depth + 1
				if c.Type.Kind == hive.Map && i == 0 {
					d = 0 // keys are never null
				}
				fill(r, child, d)
			}
		}
		c.EndList()
	case hive.Struct:
		for _, child := range c.Children {
			fill(r, child, depth+1)
		}
		c.EndStruct()
	}
}

// want is a value as the reader shows it.
func want(c *column.Column, i int) string {
	if !c.Valid[i] {
		return "null"
	}
	switch c.Type.Kind {
	case hive.Boolean:
		return fmt.Sprint(c.Ints[i] != 0)
	case hive.Float:
		return fmt.Sprint(float32(c.Floats[i]))
	case hive.Double:
		return fmt.Sprint(c.Floats[i])
	case hive.Decimal:
		v := new(big.Int).Lsh(big.NewInt(c.Decimals[i].Hi), 64)
		v.Add(v, new(big.Int).SetUint64(c.Decimals[i].Lo))
		return fmt.Sprintf("%se-%d", v, c.Type.Scale)
	case hive.String, hive.Varchar, hive.Binary:
		return fmt.Sprintf("%q", c.Bytes(i))
	case hive.Char:
		return fmt.Sprintf("%q", fmt.Sprintf("%-*s", c.Type.Length, c.Bytes(i)))
	case hive.Timestamp:
		at := time.Unix(0, c.Ints[i])
		return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())
	case hive.Array, hive.Map:
		var parts []string
		for j := int(c.Start(i)); j < int(c.Ends[i]); j++ {
			s := want(c.Children[0], j)
			if c.Type.Kind == hive.Map {
				s += ":" + want(c.Children[1], j)
			}
			parts = append(parts, s)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case hive.Struct:
		var parts []string
		for _, child := range c.Children {
			parts = append(parts, want(child, i))
		}
		return "(" + strings.Join(parts, ",") + ")"
	}
	return fmt.Sprint(c.Ints[i])
}

const everything = "b boolean; i8 tinyint; i16 smallint; i32 int; i64 bigint; f float; d double; dec decimal(38,4); s string; v varchar(9); c char(4); " +
	"bin binary; day date; ts timestamp; list array<int>; m map<string,bigint>; st struct<x:int,y:string,z:array<timestamp>>; deep array<struct<k:string,m:map<int,array<double>>>>"

func TestWhatIsWrittenIsRead(t *testing.T) {
	some := 0.3
	for name, o := range map[string]Options{
		"defaults":            {},
		"small groups":        {RowIndexStride: 100},
		"uneven groups, ZLIB": {RowIndexStride: 137, Compression: ZLIB},
		"old":                 {RowIndexStride: 137, OldFormat: true, Compression: None},
		"dictionaries":        {RowIndexStride: 137, DictionaryThreshold: 1},
		"few dictionaries":    {RowIndexStride: 137, DictionaryThreshold: 0.01, OldFormat: true},
		"filters":             {RowIndexStride: 137, BloomColumns: []string{"I64", "s", "ts", "dec", "d", "list", "none"}},
		"stripes":             {RowIndexStride: 137, StripeBytes: 20_000, DictionaryThreshold: 0.9},
		"padding":             {StripeBytes: 20_000, Padding: true, PaddingTolerance: &some, BlockBytes: 60_000, Compression: None},
	} {
		t.Run(name, func(t *testing.T) {
			list := fields(t, everything)
			r := rand.New(rand.NewPCG(1, 2))
			all := column.NewBatch(list)
			var out bytes.Buffer
			w, err := New(&out, list, &o)
			if err != nil {
				t.Fatal(err)
			}
			for all.Rows < 3000 {
				b := column.NewBatch(list)
				for range 1 + r.IntN(700) {
					for _, c := range b.Columns {
						fill(r, c, 1)
					}
					b.EndRow()
				}
				for i := range b.Rows {
					for j, c := range all.Columns {
						c.AppendFrom(b.Columns[j], i)
					}
					all.EndRow()
				}
				if err := w.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			check(t, out.Bytes(), all, &o)
		})
	}
}

// check reads a file and compares it with rows, from the beginning of each stripe
// and from each row group.
func check(t *testing.T, data []byte, all *column.Batch, o *Options) {
	t.Helper()
	f := openFile(t, data)
	if int(f.footer.number(6)) != all.Rows {
		t.Errorf("%d rows, want %d", f.footer.number(6), all.Rows)
	}
	if o.OldFormat != (f.version[1] == 11) {
		t.Errorf("version %v", f.version)
	}
	stride := int(f.footer.number(8))
	first := 0
	for n, s := range f.stripes {
		groups := (s.rows + stride - 1) / stride
		for group := -1; group < groups; group++ {
			from := max(0, group) * stride
			// The root is never null and has no streams.
			var columns []*columnReader
			for _, id := range f.types[0][2][0].numbers(t) {
				columns = append(columns, s.column(id, group))
			}
			to := s.rows
			if group >= 0 {
				to = min(s.rows, from+50)
			}
			for i := from; i < to; i++ {
				for j, c := range columns {
					if got, want := c.value(), want(all.Columns[j], first+i); got != want {
						t.Fatalf("stripe %d, row %d, read from group %d: %s is %s, want %s", n, i, group, all.Fields[j].Name, got, want)
					}
				}
			}
		}
		first += s.rows
	}
	if first != all.Rows {
		t.Errorf("stripes have %d rows of %d", first, all.Rows)
	}
	if o.StripeBytes == 20_000 && len(f.stripes) < 3 {
		t.Errorf("%d stripes", len(f.stripes))
	}
	checkFilters(t, f, all, o)
}

// checkFilters looks for what must be in the Bloom filters, and for what is not.
func checkFilters(t *testing.T, f *fileReader, all *column.Batch, o *Options) {
	if len(o.BloomColumns) == 0 {
		return
	}
	found := 0
	for id, typ := range map[uint64]string{5: "i64", 9: "s"} {
		for _, s := range f.stripes {
			raw, ok := s.raw[[2]uint64{id, bloomFilterStream}]
			if !ok {
				t.Fatalf("no filter of %s", typ)
			}
			stride, wrong := o.RowIndexStride, 0
			filters := parse(t, f.unpack(raw))[1]
			for g, m := range filters {
				filter := parse(t, m.b)
				bits, hashes := filter.bytes(3), int32(filter.number(1))
				has := func(hash uint64) bool {
					for i := int32(1); i <= hashes; i++ {
						at := int32(hash) + i*int32(hash>>32)
						if at < 0 {
							at = ^at
						}
						if at %= int32(len(bits) * 8); bits[at/8]&(1<<(at%8)) == 0 {
							return false
						}
					}
					return true
				}
				c := all.Columns[id-1]
				for i := g * stride; i < min((g+1)*stride, s.rows); i++ {
					if !c.Valid[i] {
						continue
					}
					hash := uint64(0)
					if typ == "s" {
						hash = hashBytes(c.Bytes(i))
					} else {
						hash = hashLong(c.Ints[i])
					}
					if !has(hash) {
						t.Fatalf("%s of row %d is not in the filter", typ, i)
					}
					found++
				}
				for i := range 100 {
					if has(hashLong(math.MaxInt64 - int64(i)*7)) {
						wrong++
					}
				}
			}
			if wrong > 10*len(filters) {
				t.Errorf("%s: %d of %d values that are not there seem to be", typ, wrong, 100*len(filters))
			}
		}
	}
	if found == 0 {
		t.Error("nothing looked for")
	}
}

// TestHashes pins the hashes to values that the format's first implementation
// computes.
func TestHashes(t *testing.T) {
	for text, want := range map[string]uint64{
		"": 0x74a18dc8f20adb48, "hello": 0x3928100018224141, "exactly8": 0xe4e6132a08b53339, "a longer text than eight": 0x31ceb653d00c642b,
	} {
		if got := hashBytes([]byte(text)); got != want {
			t.Errorf("%q: %x, want %x", text, got, want)
		}
	}
	for v, want := range map[int64]uint64{0: 0, 1: 0x5bca7c69b794f8ce, -1: 0x5bca868437950d03, 1234567890123: 0x2331ba7f2269f7c6, math.MinInt64: 0x3be7d0f7780de548} {
		if got := hashLong(v); got != want {
			t.Errorf("%d: %x, want %x", v, got, want)
		}
	}
}

func TestNothingIsAFile(t *testing.T) {
	var out bytes.Buffer
	w, err := New(&out, fields(t, "a int"), &Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, out.Bytes())
	if len(f.stripes) != 0 || f.footer.number(6) != 0 {
		t.Errorf("%d stripes, %d rows", len(f.stripes), f.footer.number(6))
	}
}

func TestGolden(t *testing.T) {
	list := fields(t, "a int; b string; c array<double>; d timestamp; e decimal(9,2)")
	r := rand.New(rand.NewPCG(3, 4))
	b := column.NewBatch(list)
	for range 40 {
		for _, c := range b.Columns {
			fill(r, c, 1)
		}
		b.EndRow()
	}
	for name, o := range map[string]Options{"v012": {Compression: None, RowIndexStride: 16, BloomColumns: []string{"b"}}, "v011": {Compression: None, OldFormat: true, DictionaryThreshold: 1}} {
		var out bytes.Buffer
		w, err := New(&out, list, &o)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".orc.base64")
		got := base64.StdEncoding.EncodeToString(out.Bytes()) + "\n"
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the file is not what it was; -update if that is meant", name)
		}
	}
}

func TestStatistics(t *testing.T) {
	list := fields(t, "a bigint; s string; d decimal(9,2); b boolean; ts timestamp")
	b := column.NewBatch(list)
	for i := range 10 {
		b.Columns[0].AppendInt(int64(i - 3))
		b.Columns[1].AppendBytes([]byte(strings.Repeat("z", i)))
		b.Columns[2].AppendDecimal(column.Int128{Lo: uint64(i) * 10})
		b.Columns[3].AppendInt(int64(i % 2))
		b.Columns[4].AppendInt(int64(i) * 1e9)
		b.EndRow()
	}
	b.EndRow() // nulls
	var out bytes.Buffer
	w, err := New(&out, list, &Options{RowIndexStride: 4, StripeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, out.Bytes())
	stat := func(i int) (m, inner fieldsOf, number fieldsOf) {
		m = parse(t, f.footer[7][i].b)
		for k, v := range m {
			if k != 1 && k != 10 {
				inner = parse(t, v[0].b)
			}
		}
		return m, inner, m
	}
	for i, count := range []uint64{11, 10, 10, 10, 10, 10} {
		if m, _, _ := stat(i); m.number(1) != count || m.number(10) != uint64(min(i, 1)) {
			t.Errorf("column %d: %d values, nulls %d", i, m.number(1), m.number(10))
		}
	}
	if _, in, _ := stat(1); unzigzag(in.number(1)) != -3 || unzigzag(in.number(2)) != 6 || unzigzag(in.number(3)) != 15 {
		t.Errorf("integers: %v", in)
	}
	if _, in, _ := stat(2); string(in.bytes(1)) != "" || string(in.bytes(2)) != "zzzzzzzzz" || unzigzag(in.number(3)) != 45 {
		t.Errorf("texts: %v", in)
	}
	if _, in, _ := stat(3); string(in.bytes(1)) != "0" || string(in.bytes(2)) != "0.9" {
		t.Errorf("decimals: %q %q", in.bytes(1), in.bytes(2))
	}
	if _, in, _ := stat(4); in[1][0].numbers(t)[0] != 5 {
		t.Errorf("booleans: %v", in)
	}
	if _, in, _ := stat(5); unzigzag(in.number(3)) != 0 || unzigzag(in.number(4)) != 9000 {
		t.Errorf("timestamps: %v", in)
	}
}

// TestStripesAreBounded writes more than a stripe may hold, incompressible.
func TestStripesAreBounded(t *testing.T) {
	list := fields(t, "s string")
	r := rand.New(rand.NewPCG(5, 6))
	var out bytes.Buffer
	w, err := New(&out, list, &Options{StripeBytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	b := column.NewBatch(list)
	text := make([]byte, 1000)
	for range 70 {
		for range 1000 {
			for i := range text {
				text[i] = byte(r.Uint32())
			}
			b.Columns[0].AppendBytes(text)
			b.EndRow()
		}
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		b.Truncate(0)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, out.Bytes())
	if len(f.stripes) != 3 {
		t.Errorf("%d stripes of 70 MB, want 3", len(f.stripes))
	}
}

func FuzzRuns(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, uint8(3))
	f.Add(bytes.Repeat([]byte{7, 0}, 600), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		c, err := newCodec(None)
		if err != nil {
			t.Fatal(err)
		}
		var values []int64
		// Differences as well as values, so that runs of all kinds come up.
		last := int64(0)
		for i := 0; i+1 < len(data); i += 2 {
			v := int64(int8(data[i])) << (data[i+1] & 63)
			if data[i+1] >= 64 {
				v = last + int64(int8(data[i]))
			}
			values = append(values, v)
			last = v
		}
		for _, signed := range []bool{true, false} {
			for _, old := range []bool{true, false} {
				s := &stream{codec: c}
				e := intEncoder{out: s, signed: signed, old: old}
				for _, v := range values {
					e.add(v)
				}
				e.flush()
				r := &runReader{t: t, b: s.done}
				for i, v := range values {
					if got := r.int(old, signed); got != v {
						t.Fatalf("value %d is %d, want %d (signed %t, old %t)", i, got, v, signed, old)
					}
				}
				if len(r.b)+len(r.ints) != 0 {
					t.Fatal("more than there was")
				}
			}
		}
		s := &stream{codec: c}
		e := bitEncoder{bytes: byteEncoder{out: s}}
		for _, b := range data {
			e.add(b&how != 0)
		}
		e.flush()
		r := &runReader{t: t, b: s.done}
		for i, b := range data {
			if r.bool() != (b&how != 0) {
				t.Fatalf("bit %d", i)
			}
		}
	})
}
