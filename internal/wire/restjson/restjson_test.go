package restjson

import (
	"errors"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisvideo"
	"github.com/millrace/millrace/internal/api/kinesisvideomedia"
)

func TestEveryVideoOperationIsRoutedByItsPath(t *testing.T) {
	for _, op := range kinesisvideo.Service.Operations {
		if got, params := Route(kinesisvideo.Service, op.Method, op.Path); got != op || params != nil {
			t.Errorf("%s %s: got %v, %v", op.Method, op.Path, got, params)
		}
	}
	for _, c := range [][2]string{{"GET", "/createStream"}, {"POST", "/"}, {"POST", "/createStream/x"}, {"POST", "/CREATESTREAM"}} {
		if op, _ := Route(kinesisvideo.Service, c[0], c[1]); op != nil {
			t.Errorf("%s %s: got %s", c[0], c[1], op.Name)
		}
	}
}

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template, path string
		params         map[string]string
		ok             bool
	}{
		{"/", "/", nil, true},
		{"/things/{Name}", "/things/a", map[string]string{"Name": "a"}, true},
		{"/things/{Name}", "/things/a%2Fb", map[string]string{"Name": "a/b"}, true},
		{"/things/{Name}", "/things/", nil, false},
		{"/things/{Name}", "/things/a/b", nil, false},
		{"/things/{Name}", "/things/%zz", nil, false},
		{"/things/{Name}/tags", "/things/a/tags", map[string]string{"Name": "a"}, true},
		{"/things/{Name}/tags", "/things/a/tag", nil, false},
		{"/{Bucket}/{Key+}", "/b/c/d%20e/f", map[string]string{"Bucket": "b", "Key": "c/d e/f"}, true},
		{"/{Bucket}/{Key+}", "/b", nil, false},
	} {
		params, ok := match(c.template, c.path)
		if ok != c.ok || ok && !reflect.DeepEqual(params, c.params) {
			t.Errorf("%s against %s: got %v, %v", c.path, c.template, params, ok)
		}
	}
}

// located has members in every place.
type located struct {
	kinesisvideo.CreateStreamInput
	got map[string]string
}

func (l *located) SetHTTP(location, name, value string) bool {
	l.got[location+" "+name] += value + ";"
	return value != "bad"
}

func TestDecode(t *testing.T) {
	l := &located{got: map[string]string{}}
	values := Values{Path: map[string]string{"p": "1"}, Query: url.Values{"q": {"2", "3"}}, Header: map[string][]string{"H": {"4", "5"}, "I": nil}}
	if err := Decode([]byte(`{"StreamName":"s"}`), values, l); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"uri p": "1;", "querystring q": "2;3;", "header H": "4;"}
	if api.Val(l.StreamName) != "s" || !reflect.DeepEqual(l.got, want) {
		t.Errorf("got %v, %v", l.StreamName, l.got)
	}
	for _, values := range []Values{{Path: map[string]string{"p": "bad"}}, {Query: url.Values{"q": {"bad"}}}, {Header: map[string][]string{"h": {"bad"}}}} {
		var wrong *api.TypeError
		if err := Decode(nil, values, l); !errors.As(err, &wrong) {
			t.Errorf("%v: got %v", values, err)
		}
	}
	var bad *api.SyntaxError
	if err := Decode([]byte(`{`), Values{}, l); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
	if err := Decode([]byte(" \n"), Values{}, new(kinesisvideo.ListStreamsInput)); err != nil {
		t.Errorf("empty body: %v", err)
	}
}

func TestRawBodies(t *testing.T) {
	headers := map[string]string{}
	out := &kinesisvideomedia.GetMediaOutput{ContentType: api.Ptr("video/webm"), Payload: io.NopCloser(strings.NewReader("raw"))}
	body, stream := Encode([]byte("kept"), out, func(location, name, value string) { headers[location+" "+name] = value })
	raw, err := io.ReadAll(stream)
	if err != nil || string(body) != "kept" || string(raw) != "raw" || headers["header Content-Type"] != "video/webm" {
		t.Errorf("got %q, %q, %v, %v", body, raw, headers, err)
	}
	var in kinesisvideomedia.GetMediaOutput
	if err := Decode([]byte("not JSON"), Values{Header: map[string][]string{"content-type": {"video/webm"}}}, &in); err != nil || api.Val(in.ContentType) != "video/webm" {
		t.Errorf("got %v, %v", in.ContentType, err)
	}
}

func TestDocuments(t *testing.T) {
	body, stream := Encode(nil, &kinesisvideo.CreateStreamOutput{StreamARN: api.Ptr("arn")}, func(location, name, _ string) { t.Errorf("%s %s set", location, name) })
	if string(body) != `{"StreamARN":"arn"}` || stream != nil {
		t.Errorf("got %s, %v", body, stream)
	}
	err := kinesisvideo.NewError("ResourceNotFoundException").(*kinesisvideo.ResourceNotFoundException)
	err.Message = "gone"
	if got := string(AppendError(nil, err)); got != `{"__type":"ResourceNotFoundException","Message":"gone"}` || err.HTTPStatus() != 404 {
		t.Errorf("got %s, %d", got, err.HTTPStatus())
	}
}
