// Package conformance holds what unmodified clients must be able to do.
//
// One scenario calls every operation in an order that makes sense of it and
// checks what comes back. It runs once for each client: the AWS SDK for Go
// inside the test, boto3, the AWS CLI and the SDKs for JavaScript and Java
// (synchronous and asynchronous) as subprocesses that are told line by line
// what to call, and requests signed and encoded here, in JSON and in CBOR. The
// scenario speaks the service's own member names throughout, so a client adds
// nothing but its wire: HTTP/1.1, HTTP/2 in clear text, or TLS.
//
// The scenario of delivery streams is in firehose_test.go; it runs for the clients
// that most of their users have.
//
// A second part sends bytes that no client would send and compares the exact
// answers: texts_test.go.
//
// known-failures.txt names checks that fail today. An entry that passes fails
// the build, so the file cannot rot.
package conformance
