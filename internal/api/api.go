// Package api is the vocabulary that the wire and the services share: a call,
// who makes it, and how a generated operation is described.
//
// Below it live the generated packages, one a service: types, validation,
// operation tables and modelled errors. They and this package import only the
// standard library, so anyone may import them. Bytes are the business of the
// codecs in internal/wire, which generated types meet through Decoder and
// Encoder.
package api

import (
	"context"
	"net/netip"
	"time"
)

// Principal is who makes a call, once the signature has been checked.
type Principal struct {
	AccountID string // 12 digits
	ARN       string // arn:aws:iam::123456789012:user/name, …:root, arn:aws:sts::…:assumed-role/role/session
	UserID    string // the unique id: access-key-like text, or ROLEID:session
	Type      string // "Account" (root), "User", "AssumedRole", "Anonymous"
	AccessKey string
	// SessionIssuer is the role's ARN for an assumed role, else empty.
	SessionIssuer string
}

// Call is one request that has been recognised and authenticated. It is valid
// until the handler returns, or, for event streams, until the stream ends.
type Call struct {
	Principal Principal
	Account   string // the caller's account, 12 digits
	Region    string // from the credential scope
	Partition string // "aws"
	RequestID string
	Operation *Operation
	Time      time.Time // arrival
	Secure    bool      // came over TLS
	Remote    netip.AddrPort
	Host      string // as the client dialled it
	UserAgent string
	// ReplySize is about how many bytes the reply will have, if the handler
	// knows that it is large; it spares moving the reply while it is written.
	ReplySize int

	finish []func()
}

// OnFinish has f called after the reply has been encoded, whether or not it
// could be sent. Services return pooled buffers with it.
func (c *Call) OnFinish(f func()) { c.finish = append(c.finish, f) }

// Finish runs what OnFinish collected, latest first. Only wire calls it.
func (c *Call) Finish() {
	for i := len(c.finish) - 1; i >= 0; i-- {
		c.finish[i]()
	}
	c.finish = nil
}

// Handler serves one operation. in is the operation's input type.
type Handler func(ctx context.Context, call *Call, in Shape) (Shape, error)

// Binding joins an operation with what serves it. Generated Bind functions
// return one per operation.
type Binding struct {
	Operation *Operation
	Handle    Handler
}
