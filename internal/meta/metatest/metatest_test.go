package metatest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/meta/metatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStoreOverMemory(t *testing.T) {
	metatest.Run(t, func(testing.TB) metatest.Environment { return metatest.Memory() })
}
