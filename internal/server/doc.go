// Package server joins everything: it is the only package that knows all names.
//
// The one idea: start is one list, and stop is the same list backwards. Open
// builds the parts in the order in which they need each other and remembers how
// each is ended; Run serves until its context ends, drains, and ends them in
// reverse. What the parts do is their own business; nothing here decides
// anything about streams, requests or bytes.
//
// Start reading at Open.
package server
