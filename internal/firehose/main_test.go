package firehose

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite goldens")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
