// Command millrace is the server and the tools that go with it. One file holds
// one subcommand; none holds logic: flags become a configuration or a call of
// the public API, and everything else happens in the packages below. Start
// reading at root.go.
package main

import (
	"context"
	"os"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }
