package metatest_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/meta/metatest"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStoreOverMemory(t *testing.T) {
	metatest.Run(t, func(testing.TB) metatest.Environment { return metatest.Memory() })
}

func TestStoreOverLocal(t *testing.T) {
	metatest.Run(t, func(testing.TB) metatest.Environment {
		return metatest.Disk(func(ctx context.Context, fs vfs.FS) (driver.Driver, error) {
			// Small segments, so that restarts find sealed ones as well.
			return local.Open(ctx, fs, local.Options{SegmentBytes: 64 << 10, SegmentCount: 4})
		})
	})
}
