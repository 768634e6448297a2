// Package analytics keeps streaming SQL applications: it serves both versions of
// their API, checks what they are made of, and has a Host run them.
//
// The one idea: an application is one record, and both APIs are views of it. The
// record holds configurations in the shapes of version 1, which has all that
// version 2 has of SQL applications and roles besides; a call of version 2 is
// brought into those shapes (reshape), does the same work, and its answer is
// brought back. So there is one set of rules, and an application made with one
// version is changed with the other.
//
// # Order of things
//
// Every change writes the whole record on condition that it is still what the
// change was made from. The registry is a pure function of the metadata. The host
// is brought into line with the record afterwards, by Run, and again at every
// start; a host that fails is asked again. A record that runs has a run number
// that tells a new start from a server that has come back.
//
// # What is checked
//
// A program is compiled against the schemas of inputs and reference tables when it
// is stored and when either of them changes. Before there is an input, only its
// grammar is checked: nobody knows yet what it may read. Whether streams, objects
// and roles exist is not checked, as in the service: an application that lacks
// one runs and says so in its log.
//
// Start reading at Service in service.go, then configure in configure.go, and
// rules.go. The two APIs are v1.go and v2.go.
package analytics
