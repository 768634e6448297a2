package api

import (
	"context"
	"errors"
	"io"
)

// Service describes a generated service package.
type Service struct {
	ID           string // "Kinesis"
	Package      string // "kinesis": its Go package and its name in logs
	SigningName  string // in the credential scope: "kinesis"
	TargetPrefix string // before the dot in X-Amz-Target; empty for REST services
	APIVersion   string // "2013-12-02"
	Protocol     Protocol
	Operations   []*Operation // by name
	// NewError makes an empty modelled error for its code, nil for an unknown one.
	NewError func(code string) ErrorShape
	// ValidationError makes the error that reports broken constraints.
	ValidationError func(message string) Error
}

// Operation finds an operation by its exact name, nil if there is none.
func (s *Service) Operation(name string) *Operation {
	lo, hi := 0, len(s.Operations)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.Operations[mid].Name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.Operations) && s.Operations[lo].Name == name {
		return s.Operations[lo]
	}
	return nil
}

// Protocol is how a service's calls look on the wire.
type Protocol string

// The protocols of the models.
const (
	ProtocolJSON     Protocol = "json"      // POST / with X-Amz-Target; JSON 1.1 or CBOR bodies
	ProtocolRESTJSON Protocol = "rest-json" // method and path name the operation
)

// Operation describes one operation of a service.
type Operation struct {
	Service   *Service
	Name      string // "PutRecords"
	Action    string // what policies name: "kinesis:PutRecords"
	Method    string // "POST"
	Path      string // "/", or a REST operation's URI template
	Status    int    // of a good reply
	DataPlane bool   // reads or writes records, as the model classifies it
	// HasOutput is false where the model has no output: the reply is an empty body.
	HasOutput bool
	// Streaming says that the output implements EventStream.
	Streaming bool
	// Errors are the codes of the modelled errors.
	Errors    []string
	NewInput  func() Shape
	NewOutput func() Shape
	// Resource names what the input is about: an ARN when kind is ResourceARN, a
	// bare name for other kinds, nothing for ResourceNone.
	Resource func(in Shape) (ref string, kind ResourceKind)
}

// Validate checks the modelled constraints of an input of this operation. The
// error, if any, is the service's validation error.
func (o *Operation) Validate(in Shape) error {
	var v Validator
	in.Validate(&v)
	if v.n == 0 {
		return nil
	}
	if o.Service != nil && o.Service.ValidationError != nil {
		return o.Service.ValidationError(v.Message())
	}
	return v.Err()
}

// ResourceKind says what kind of reference Operation.Resource found.
type ResourceKind string

// The kinds of resource references. All but the first two are bare names;
// a function's may also be a whole or partial ARN.
const (
	ResourceNone           ResourceKind = ""
	ResourceARN            ResourceKind = "arn"
	ResourceStream         ResourceKind = "stream"
	ResourceChannel        ResourceKind = "channel"
	ResourceQueue          ResourceKind = "queue"
	ResourceDeliveryStream ResourceKind = "deliverystream"
	ResourceApplication    ResourceKind = "application"
	ResourceDatabase       ResourceKind = "database"
	ResourceFunction       ResourceKind = "function"
	ResourceLogGroup       ResourceKind = "log-group"
)

// EventStream is implemented by outputs that answer with a stream of events.
type EventStream interface {
	Shape
	// StreamEvents runs until the stream ends, giving send the name and value of
	// each event. An error that send returns means the client is gone and ends
	// the stream; an error of the stream itself may be modelled.
	StreamEvents(ctx context.Context, send func(event string, value Shape) error) error
}

// ErrNoEvent is returned for an event union in which nothing is set.
var ErrNoEvent = errors.New("event stream: no event set")

// HTTPInput is implemented by inputs with members outside the body.
type HTTPInput interface {
	Shape
	// SetHTTP offers each value found in the request. location is "uri",
	// "querystring", "header" or "statusCode"; false means the value cannot be
	// read as the member's type.
	SetHTTP(location, name, value string) bool
}

// HTTPOutput is implemented by outputs with members outside the body.
type HTTPOutput interface {
	Shape
	// HTTPValues gives each member that is present to set.
	HTTPValues(set func(location, name, value string))
}

// StreamingBody is implemented by shapes whose body is raw bytes.
type StreamingBody interface {
	Shape
	// StreamBody is what to send, nil for nothing; SetStreamBody is what was received.
	StreamBody() io.ReadCloser
	SetStreamBody(r io.ReadCloser)
}

// GeneratorVersion is the version of the generator whose code this package fits.
// Generated packages refuse to compile with another.
const GeneratorVersion = 2
