// Package objects keeps named bytes in buckets.
//
// The one idea: whoever writes objects speaks to a Store and does not learn
// where they go. Embedded is a store of the server's own, in files under the
// data directory, which also answers the S3 REST protocol; Remote is any
// endpoint that speaks that protocol. Both keep one promise: an object appears
// as a whole or not at all, and Put returns when it is safe.
//
// Start reading at Store, then Embedded in embedded.go for what lies on disk
// (docs/formats/objects.md has the bytes), then Handler.ServeCall in handler.go
// for the protocol.
package objects
