package aggregate

import (
	"crypto/md5"
	"encoding/hex"
	"reflect"
	"testing"
)

func wrap(body string) []byte {
	sum := md5.Sum([]byte(body))
	return append([]byte(magic+body), sum[:]...)
}

var sample = []Record{
	{PartitionKey: "a", Data: []byte("one")},
	{PartitionKey: "b", ExplicitHashKey: "123", Data: []byte{}},
	{PartitionKey: "a", ExplicitHashKey: "123", Data: []byte("three"), Tags: []Tag{{"k", "v"}, {"only", ""}}},
}

func TestRoundTrip(t *testing.T) {
	got, ok := Decode(Append(nil, sample))
	if !ok || !reflect.DeepEqual(got, sample) {
		t.Errorf("decoded %+v, %v; want %+v", got, ok, sample)
	}
	var e Encoder
	for _, r := range sample {
		e.Add(r)
	}
	if n := len(e.AppendTo(nil)); n != e.Size() || e.Len() != len(sample) {
		t.Errorf("size %d and %d records announced, %d and %d written", e.Size(), e.Len(), n, len(sample))
	}
}

// The message is the one that protocol buffers prescribe for one record.
func TestBytes(t *testing.T) {
	b := Append(nil, sample[:1])
	if got, want := hex.EncodeToString(b[:len(b)-16]), "f3899ac2"+"0a0161"+"1a07"+"0800"+"1a036f6e65"; got != want {
		t.Errorf("encoded %s, want %s", got, want)
	}
}

func TestAnythingElseIsAPlainRecord(t *testing.T) {
	good := Append(nil, sample)
	damaged := append([]byte(nil), good...)
	damaged[10] ^= 1
	for name, b := range map[string][]byte{
		"nothing":                     nil,
		"text":                        []byte("hello"),
		"magic alone":                 []byte(magic),
		"magic and sixteen bytes":     wrap(""),
		"wrong checksum":              damaged,
		"cut short":                   good[:len(good)-1],
		"key out of range":            wrap("\x0a\x01a\x1a\x05\x08\x01\x1a\x01x"),
		"hash key out of range":       wrap("\x0a\x01a\x1a\x07\x08\x00\x10\x00\x1a\x01x"),
		"no key":                      wrap("\x0a\x01a\x1a\x03\x1a\x01x"),
		"no data":                     wrap("\x0a\x01a\x1a\x02\x08\x00"),
		"length beyond the end":       wrap("\x0a\x7fa"),
		"giant length":                wrap("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
		"a group":                     wrap("\x0b\x0c"),
		"field number zero":           wrap("\x02\x01a"),
		"a number where a table goes": wrap("\x08\x01"),
		"an endless number":           wrap("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
	} {
		if r, ok := Decode(b); ok {
			t.Errorf("%s: decoded as %+v", name, r)
		}
	}
	if _, ok := Decode(wrap("\x0a\x01a\x1a\x05\x08\x00\x1a\x01x\x78\x05")); !ok {
		t.Error("a field from the future makes it a plain record")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x0a\x01a\x1a\x05\x08\x00\x1a\x01x"))
	f.Fuzz(func(t *testing.T, body []byte) {
		records, ok := Decode(wrap(string(body)))
		if !ok {
			return
		}
		again, ok := Decode(Append(nil, records))
		if len(records) > 0 && (!ok || len(again) != len(records)) {
			t.Fatalf("%d records became %d, %v", len(records), len(again), ok)
		}
	})
}
