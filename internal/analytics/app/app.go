// Package app is a streaming SQL application as its host sees it: what it reads,
// what it runs and where its rows go, without a trace of the API that it was
// described in.
//
// The one idea: an Application is immutable and complete. The service that keeps
// applications makes a new one for each version, and whoever runs it needs to ask
// nothing further. What the program means is found here too (Compile), so that
// what is refused when a program is stored and what can be started are the same.
package app

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// Application is one version of an application.
type Application struct {
	// ID is unique among all applications that ever were: what a host keeps of an
	// application is kept under it.
	ID                    string
	ARN                   string
	Account, Region, Name string
	// Version counts changes of the configuration, from 1.
	Version int64
	// Run counts starts, from 1. An application that was running when its host
	// ended goes on in the same run, where it was; positions of inputs are those
	// of a new run.
	Run  uint64
	Code string
	// Extensions allows what is not part of the dialect.
	Extensions bool
	Inputs     []Input
	References []Reference
	Outputs    []Output
	Logging    []LogStream
}

// Kind says what a resource is.
type Kind uint8

// The kinds of resources.
const (
	DataStream Kind = iota
	DeliveryStream
	Function
)

func (k Kind) String() string {
	return [...]string{"data stream", "delivery stream", "function"}[k]
}

// Resource is something outside, and the role that it is used in.
type Resource struct {
	Kind Kind
	ARN  string
	Role string // may be empty
}

// Input is a source and the in-application streams it feeds.
type Input struct {
	ID     string
	Source Resource
	// Processor, if set, sees records before they are parsed.
	Processor *Resource
	// Streams are the in-application streams that the shards of the source are
	// spread over, 1 to 64.
	Streams []string
	Format  run.Format
	Start   Position
}

// Start is where an input begins to read.
type Start uint8

// The starts.
const (
	Now         Start = iota // behind the newest record of the instant
	TrimHorizon              // at the oldest record
	LastStopped              // where the run before ended; like Now if there was none
)

// Position is where an input begins to read in a run.
type Position struct {
	Start Start
	At    time.Time // of the request to start
}

// Reference is an object that is read as a table.
type Reference struct {
	ID     string
	Table  string
	Bucket string // a name
	Key    string
	Role   string // may be empty
	Format run.Format
	// Loaded is the version that asked for the object to be read: a host that
	// holds the table of another version reads it again.
	Loaded int64
}

// Output is where the rows of an in-application stream go.
type Output struct {
	ID          string
	Stream      string // in exactly this case; need not exist
	Destination Resource
	CSV         bool // else JSON
}

// LogStream is where errors of the configuration are told.
type LogStream struct {
	ID   string
	ARN  string
	Role string // may be empty
}

// StreamName is the name of an input's in-application stream, from 1.
func StreamName(prefix string, n int) string { return fmt.Sprintf("%s_%03d", prefix, n) }

// Catalog is what there is before the program's first statement.
func (a *Application) Catalog() plan.Catalog {
	var c plan.Catalog
	for _, in := range a.Inputs {
		for _, name := range in.Streams {
			c.Sources = append(c.Sources, plan.Relation{Name: name, Columns: columns(in.Format)})
		}
	}
	for _, r := range a.References {
		c.Tables = append(c.Tables, plan.Relation{Name: r.Table, Columns: columns(r.Format)})
	}
	return c
}

func columns(f run.Format) []plan.ColumnInfo {
	columns := make([]plan.ColumnInfo, len(f.Columns))
	for i, c := range f.Columns {
		columns[i] = plan.ColumnInfo{Name: c.Name, Type: c.Type}
	}
	return columns
}

// Compile plans the program. The error is of type sql.Errors.
func (a *Application) Compile() (*plan.Program, error) {
	return plan.Compile(a.Code, a.Catalog(), plan.Options{Extensions: a.Extensions})
}

// Status is how an application does at its host.
type Status struct {
	Running bool
	// Problem is what keeps it from reading or delivering, for people; empty if
	// nothing does.
	Problem string
	// MillisBehindLatest is how far reading is behind the newest record.
	MillisBehindLatest int64
	RowsIn, RowsOut    int64
}
