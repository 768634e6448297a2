// Package restjson moves generated shapes in and out of the parts of a REST-JSON
// message: members in the path, the query and the headers, and the body, which is
// either a JSON document or raw bytes.
//
// The one idea is that a message's parts are plain values here: the package knows
// neither requests nor responses, so that server and client use the same code.
// The document itself is awsjson's; the protocols differ only around it. Start
// reading at Route, Decode and Encode.
package restjson

import (
	"bytes"
	"io"
	"net/url"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/wire/awsjson"
)

// ErrorTypeHeader carries an error's code beside the body, for clients that look
// there first.
const ErrorTypeHeader = "X-Amzn-Errortype"

// Route finds the operation for a method and an escaped path. params has the
// values of the path's labels, unescaped. A nil operation means that none fits.
func Route(s *api.Service, method, path string) (op *api.Operation, params map[string]string) {
	for _, op := range s.Operations {
		if op.Method != method {
			continue
		}
		if params, ok := match(op.Path, path); ok {
			return op, params
		}
	}
	return nil, nil
}

// match compares a path with a template such as /streams/{StreamName}/tags or
// /objects/{Key+}, whose last label takes the rest of the path.
func match(template, path string) (params map[string]string, ok bool) {
	want := strings.Split(strings.Trim(template, "/"), "/")
	have := strings.Split(strings.Trim(path, "/"), "/")
	for i, w := range want {
		label, isLabel := strings.CutPrefix(w, "{")
		if !isLabel {
			if i >= len(have) || have[i] != w {
				return nil, false
			}
			continue
		}
		if i >= len(have) {
			return nil, false
		}
		label = strings.TrimSuffix(label, "}")
		value := have[i]
		label, greedy := strings.CutSuffix(label, "+")
		if greedy {
			value = strings.Join(have[i:], "/")
		}
		value, err := url.PathUnescape(value)
		if err != nil || value == "" {
			return nil, false
		}
		if params == nil {
			params = map[string]string{}
		}
		params[label] = value
		if greedy {
			return params, true
		}
	}
	return params, len(have) == len(want)
}

// Values are what travels outside a body, each by the name it has there. Names of
// headers are compared without regard to case.
type Values struct {
	Path   map[string]string
	Query  url.Values
	Header map[string][]string // in canonical form, as net/http keeps it
}

// Decode reads a message into v. An empty body stands for an empty document.
// Errors are those of awsjson; a value outside the body that does not fit its
// member is a *api.TypeError. body may be modified.
func Decode(body []byte, values Values, v api.Shape) error {
	if len(bytes.TrimSpace(body)) > 0 {
		if _, raw := v.(api.StreamingBody); !raw {
			if err := awsjson.Unmarshal(body, v); err != nil {
				return err
			}
		}
	}
	in, ok := v.(api.HTTPInput)
	if !ok {
		return nil
	}
	set := func(location, name string, texts ...string) error {
		for _, text := range texts {
			if !in.SetHTTP(location, name, text) {
				return &api.TypeError{Message: "class java.lang.String can not be converted to the type of " + name}
			}
		}
		return nil
	}
	for name, text := range values.Path {
		if err := set("uri", name, text); err != nil {
			return err
		}
	}
	for name, texts := range values.Query {
		if err := set("querystring", name, texts...); err != nil {
			return err
		}
	}
	for name, texts := range values.Header {
		if len(texts) == 0 {
			continue
		}
		if err := set("header", name, texts[0]); err != nil {
			return err
		}
	}
	return nil
}

// Encode writes a message: set receives what travels outside the body, and the
// body is either the document behind dst or, for shapes with a raw body, stream.
func Encode(dst []byte, v api.Shape, set func(location, name, value string)) (body []byte, stream io.ReadCloser) {
	if out, ok := v.(api.HTTPOutput); ok {
		out.HTTPValues(set)
	}
	if raw, ok := v.(api.StreamingBody); ok {
		return dst, raw.StreamBody()
	}
	return awsjson.Append(dst, v), nil
}

// AppendError writes the body of an error reply behind dst. The code belongs into
// ErrorTypeHeader.
func AppendError(dst []byte, err api.Error) []byte { return awsjson.AppendError(dst, err) }
