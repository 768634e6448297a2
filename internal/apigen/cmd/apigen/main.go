// Command apigen makes the generated API packages, and the stripped models they
// are made from.
//
//	go run ./internal/apigen/cmd/apigen generate      model/ → internal/api
//	go run ./internal/apigen/cmd/apigen strip WHEEL   botocore wheel → model/
//
// Both are run from the root of the module.
package main

import (
	"fmt"
	"os"

	"github.com/millrace/millrace/internal/apigen"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "generate":
		files, err := apigen.Generate("model")
		if err != nil {
			return err
		}
		return apigen.Write("internal/api", files)
	case len(args) == 2 && args[0] == "strip":
		return apigen.Strip(args[1], "model")
	}
	return fmt.Errorf("usage: apigen generate | apigen strip WHEEL")
}
