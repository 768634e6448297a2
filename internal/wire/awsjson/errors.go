package awsjson

import (
	"strings"

	"github.com/millrace/millrace/internal/api"
)

// DecodeError reads the body of an error reply: a modelled error of the service
// with all its members where the code is known, else an *api.FrontError. status
// is the reply's. A body that is no error reply gives an *api.FrontError with an
// empty code. body is modified.
func DecodeError(s *api.Service, status int, body []byte) api.Error {
	var head errorHead
	copied := append([]byte(nil), body...)
	if err := unmarshal(copied, &head); err != nil {
		return &api.FrontError{Message: err.Error(), Status: status}
	}
	// Some services write a namespace in front and an address behind.
	code := head.code
	if i := strings.LastIndexByte(code, '#'); i >= 0 {
		code = code[i+1:]
	}
	code, _, _ = strings.Cut(code, ":")
	if s != nil && s.NewError != nil {
		if modelled := s.NewError(code); modelled != nil && unmarshal(body, modelled) == nil {
			return modelled
		}
	}
	return &api.FrontError{Code: code, Message: head.message, Status: status}
}

// errorHead is what all error replies have in common.
type errorHead struct{ code, message string }

func (h *errorHead) DecodeFrom(d api.Decoder) error {
	if d.BeginStruct() {
		for name, ok := d.NextMember(); ok; name, ok = d.NextMember() {
			switch string(name) {
			case "__type", "code":
				h.code, _ = d.String()
			case "message", "Message":
				h.message, _ = d.String()
			default:
				d.Skip()
			}
		}
	}
	return d.Err()
}

func (h *errorHead) EncodeTo(api.Encoder)    {}
func (h *errorHead) Validate(*api.Validator) {}
