package api

import "net/http"

// Error is a modelled error: something the caller can act on. Anything else a
// service returns becomes an internal failure.
type Error interface {
	error
	ErrorCode() string    // short name on the wire, "ResourceNotFoundException"
	ErrorMessage() string // text on the wire; may be empty
	HTTPStatus() int
}

// ErrorShape is a generated error: it can be written with all its members.
type ErrorShape interface {
	Error
	Shape
	// EncodeMembers writes the members into a structure that is already open.
	EncodeMembers(e Encoder)
}

// FrontError is an error of the front end: no model lists it, every service may
// answer with it.
type FrontError struct {
	Code    string
	Message string
	Status  int
}

// Error implements error.
func (e *FrontError) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// ErrorCode is the short name on the wire.
func (e *FrontError) ErrorCode() string { return e.Code }

// ErrorMessage is the text on the wire; it may be empty.
func (e *FrontError) ErrorMessage() string { return e.Message }

// HTTPStatus is the status of the reply.
func (e *FrontError) HTTPStatus() int { return e.Status }

// Codes of front-end errors.
const (
	CodeSerialization         = "SerializationException"
	CodeUnknownOperation      = "UnknownOperationException"
	CodeMissingAuthentication = "MissingAuthenticationTokenException"
	CodeIncompleteSignature   = "IncompleteSignatureException"
	CodeInvalidSignature      = "InvalidSignatureException"
	CodeUnrecognizedClient    = "UnrecognizedClientException"
	CodeExpiredToken          = "ExpiredTokenException"
	CodeThrottling            = "ThrottlingException"
	CodeAccessDenied          = "AccessDeniedException"
	CodeValidation            = "ValidationException"
	CodeInternalFailure       = "InternalFailure"
	CodeServiceUnavailable    = "ServiceUnavailable"
)

// NewFrontError makes a front-end error with the status that belongs to its code.
func NewFrontError(code, message string) *FrontError {
	status := http.StatusBadRequest
	switch code {
	case CodeInternalFailure:
		status = http.StatusInternalServerError
	case CodeServiceUnavailable:
		status = http.StatusServiceUnavailable
	}
	return &FrontError{Code: code, Message: message, Status: status}
}

// SyntaxError means that a body cannot be read at all. Clients are told no more
// than that; the reason is for the log.
type SyntaxError struct {
	Offset int // in the body
	Reason string
}

// Error implements error.
func (e *SyntaxError) Error() string { return "malformed body: " + e.Reason }

// TypeError means that a body is well formed and a member has the wrong type.
type TypeError struct {
	Message string // for the client
}

// Error implements error.
func (e *TypeError) Error() string { return e.Message }
