package streams

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// fromFields builds a number the slow way, field by field in hex.
func fromFields(created int64, shard uint32, index uint64, at int64) string {
	text := fmt.Sprintf("2%09x%x%016x00%09x%08x2", created, shard&15, index, at, shard)
	n, ok := new(big.Int).SetString(text, 16)
	if !ok {
		panic(text)
	}
	return n.String()
}

func TestSequenceNumberWorkedExample(t *testing.T) {
	const text = "49590338271490256608559692538361571095921575989136588898"
	want := sequenceNumber{created: 1542776258, shard: 6, index: 0x67648a17, at: 1545084650, version: 2}
	got, ok := parseSequenceNumber(text)
	if !ok || got != want {
		t.Errorf("parse %s = %+v, %v; want %+v", text, got, ok, want)
	}
	if got := want.String(); got != text {
		t.Errorf("format = %s, want %s", got, text)
	}
}

func TestSequenceNumberNeighbourDistance(t *testing.T) {
	want, _ := new(big.Int).SetString("22300745198530623141535718272648361505980432", 10)
	for index := range uint32(15) {
		a, _ := new(big.Int).SetString(startOf(&shard{index: index, created: 1700000000}).String(), 10)
		b, _ := new(big.Int).SetString(startOf(&shard{index: index + 1, created: 1700000000}).String(), 10)
		if d := b.Sub(b, a); d.Cmp(want) != 0 {
			t.Errorf("shard %d to %d: %v, want %v", index, index+1, d, want)
		}
	}
}

func TestSequenceNumberAgainstBigIntegers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		n := sequenceNumber{
			created: r.Int64N(maxCreated), shard: r.Uint32(), index: r.Uint64() >> (1 + r.IntN(63)),
			at: r.Int64N(1 << 36), version: 2,
		}
		want := fromFields(n.created, n.shard, n.index, n.at)
		if got := n.String(); got != want || len(got) != sequenceDigits {
			t.Fatalf("%+v = %s, want %s", n, got, want)
		}
		if back, ok := parseSequenceNumber(want); !ok || back != n {
			t.Fatalf("parse %s = %+v, %v, want %+v", want, back, ok, n)
		}
	}
}

func TestSequenceNumberBounds(t *testing.T) {
	sh := &shard{index: 3, created: 1700000000, closed: 1700000900_500}
	start, end := startOf(sh), endOf(sh)
	first := recordNumber(sh, 1, 1700000000_000)
	last := recordNumber(sh, endIndex-1, 1<<36*1000-1)
	texts := []string{start.String(), first.String(), recordNumber(sh, 2, 1).String(), last.String(), end.String()}
	for i := range len(texts) - 1 {
		if texts[i] >= texts[i+1] {
			t.Errorf("number %d %s is not below %s", i, texts[i], texts[i+1])
		}
	}
	child := startOf(&shard{index: 4, created: 1700000901})
	if end.String() >= child.String() {
		t.Errorf("a child's numbers start at %s, below its parent's end %s", child, end)
	}
}

func TestParseSequenceNumberRefuses(t *testing.T) {
	hex := func(s string) string { n, _ := new(big.Int).SetString(s, 16); return n.String() }
	for name, text := range map[string]string{
		"empty": "", "sign": "-1", "plus": "+1", "letter": "4959033827149025660855969253836157109592157598913658889x",
		"leading zero":              "049590338271490256608559692538361571095921575989136588898",
		"version 3":                 hex("205bf4e5c260000000067648a170005c181eea000000063"),
		"top digit of index over 7": hex("205bf4e5c268000000067648a170005c181eea000000062"),
		"first digit 1":             hex("105bf4e5c260000000067648a170005c181eea000000062"),
		"first digit 3":             hex("305bf4e5c260000000067648a170005c181eea000000062"),
		"creation too large":        fromFields(maxCreated, 0, 1, 1),
		"too long":                  strings.Repeat("9", 130), "over 192 bits": strings.Repeat("9", 129),
	} {
		if n, ok := parseSequenceNumber(text); ok {
			t.Errorf("%s: parsed as %+v", name, n)
		}
	}
	if n, ok := parseSequenceNumber(hex("205bf4e5c26ab05c181eeacccccccccccccc07000000061")); !ok || n.version != 1 || n.shard != 6 || n.created != 1542776258 || n.at != 1545084650 {
		t.Errorf("version 1 = %+v, %v", n, ok)
	}
	if n, ok := parseSequenceNumber(hex("105bf4e5c2abffffffffffffffff0006")); !ok || n.version != 0 || n.shard != 6 || n.created != 1542776258 {
		t.Errorf("version 0 = %+v, %v", n, ok)
	}
	if n, ok := parseSequenceNumber("0"); !ok || n.version != 0 {
		t.Errorf("0 = %+v, %v", n, ok)
	}
}

func FuzzSequenceNumber(f *testing.F) {
	f.Add("49590338271490256608559692538361571095921575989136588898")
	f.Add("0")
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := parseSequenceNumber(text)
		if !ok || n.version != 2 {
			return
		}
		if want := fromFields(n.created, n.shard, n.index, n.at); n.String() != want {
			t.Fatalf("%+v = %s, want %s", n, n, want)
		}
	})
}

func BenchmarkSequenceNumberAppend(b *testing.B) {
	n := sequenceNumber{created: 1542776258, shard: 6, index: 0x67648a17, at: 1545084650, version: 2}
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = n.appendTo(dst[:0])
		n.index++
	}
}

func BenchmarkSequenceNumberParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		parseSequenceNumber("49590338271490256608559692538361571095921575989136588898")
	}
}
