package main

import (
	"flag"
	"testing"

	"github.com/millrace/millrace/internal/testkit"
)

var _ = flag.Bool("update", false, "rewrite what scripts expect")

// TestScripts runs whole command lines; see testkit.Scripts for the language.
func TestScripts(t *testing.T) { testkit.Scripts(t, "testdata/*.txt", runWith) }
