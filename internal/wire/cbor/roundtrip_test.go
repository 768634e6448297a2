package cbor_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/api/kinesisvideo"
	"github.com/millrace/millrace/internal/api/kinesisvideoarchivedmedia"
	"github.com/millrace/millrace/internal/api/kinesisvideomedia"
	"github.com/millrace/millrace/internal/api/kinesisvideosignaling"
	"github.com/millrace/millrace/internal/api/kinesisvideowebrtcstorage"
	"github.com/millrace/millrace/internal/wire/awsjson"
	"github.com/millrace/millrace/internal/wire/cbor"
)

var services = []*api.Service{
	kinesis.Service, firehose.Service, kinesisanalytics.Service, kinesisanalyticsv2.Service, kinesisvideo.Service,
	kinesisvideoarchivedmedia.Service, kinesisvideomedia.Service, kinesisvideosignaling.Service, kinesisvideowebrtcstorage.Service,
}

// Every generated shape, filled at random in every member, is the same after it
// has been written and read in either codec.
func TestEveryShapeSurvivesEveryCodec(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	shapes := 0
	check := func(name string, fresh func() api.Shape) {
		v := fresh()
		if _, outside := v.(api.HTTPOutput); outside {
			return // some members are not in the body
		}
		shapes++
		for round := range 3 {
			want := fresh()
			fill(rng, reflect.ValueOf(want).Elem(), 5-round)
			for codec, f := range map[string]struct {
				write func([]byte, api.Shape) []byte
				read  func([]byte, api.Shape) error
			}{"JSON": {awsjson.Append, awsjson.Unmarshal}, "CBOR": {cbor.Append, cbor.Unmarshal}} {
				wire := f.write(nil, want)
				got := fresh()
				if err := f.read(bytes.Clone(wire), got); err != nil {
					t.Errorf("%s in %s: %v\n%q", name, codec, err, wire)
				} else if !reflect.DeepEqual(got, want) {
					t.Errorf("%s in %s: read\n%+v, written\n%+v", name, codec, got, want)
				}
			}
		}
	}
	for _, s := range services {
		for _, op := range s.Operations {
			check(s.Package+"."+op.Name+"Input", op.NewInput)
			if !op.Streaming {
				check(s.Package+"."+op.Name+"Output", op.NewOutput)
			}
			for _, code := range op.Errors {
				check(s.Package+"."+code, func() api.Shape { return s.NewError(code) })
			}
		}
	}
	check("kinesis.SubscribeToShardEvent", func() api.Shape { return new(kinesis.SubscribeToShardEvent) })
	if shapes < 700 {
		t.Errorf("only %d shapes", shapes)
	}
}

// fill sets every member. Below depth, structures are left out and collections
// are empty.
func fill(rng *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.UnixMilli(rng.Int64N(4e12) - 1e12).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(rng, v.Field(i), depth-1)
		}
	case reflect.Pointer:
		if depth <= 0 && v.Type().Elem().Kind() == reflect.Struct && v.Type().Elem() != reflect.TypeFor[time.Time]() {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(rng, v.Elem(), depth)
	case reflect.Slice:
		n := rng.IntN(3)
		if depth <= 0 {
			n = 0
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i), depth-1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range rng.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.SetString(fmt.Sprint("key \"é\" ", i))
			fill(rng, value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString([]string{"x", "<\"\\\n\x00é😀>", "0123456789abcdef"}[rng.IntN(3)])
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int32:
		v.SetInt(int64(int32(rng.Uint32())))
	case reflect.Int64:
		v.SetInt(int64(rng.Uint64()))
	case reflect.Float64:
		v.SetFloat(rng.NormFloat64() * 1e10)
	case reflect.Uint8:
		v.SetUint(uint64(rng.IntN(256)))
	}
}
