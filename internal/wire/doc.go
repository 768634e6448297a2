// Package wire turns HTTP requests into calls of services and their answers
// into replies.
//
// The one idea: the order in which a request is checked is part of the
// contract, so it is written down once, top to bottom, in pipeline.go, and
// everything else is there to keep that file readable. Which operations exist,
// how their bodies look and what they must satisfy comes from generated tables;
// bytes are the business of the codec packages below this one; who may call is
// decided by sigv4 and iam. Services know nothing of any of it.
//
// Start reading at exchange.run in pipeline.go, then Mux, then Server in
// listen.go, which accepts the five forms of connection.
//
// What is not done here: protocols that name the operation in the path or in a
// form. They are handlers of their own, joined by Mux.Route.
package wire
