// Command connect is Redpanda Connect with the components that bench needs, built
// from the last module under its earlier name, Benthos, which can be had as a
// whole: reading files, archives and compression, and the Parquet encoder.
//
// bench runs it with the pipelines beside this file, as a user of it would.
package main

import (
	"context"

	"github.com/benthosdev/benthos/v4/public/service"

	_ "github.com/benthosdev/benthos/v4/public/components/io"            // input and output file
	_ "github.com/benthosdev/benthos/v4/public/components/pure/extended" // parquet_encode
)

func main() { service.RunCLI(context.Background()) }
