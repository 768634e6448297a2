package local_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/shardlog/shardlogtest"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	for name, fsys := range map[string]func(t *testing.T) vfs.FS{
		"memory": func(t *testing.T) vfs.FS { return vfs.NewMemory() },
		"disk":   func(t *testing.T) vfs.FS { return vfs.OS(t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			shardlogtest.RunContract(t, func(t *testing.T) driver.Driver {
				l, err := local.Open(t.Context(), fsys(t), local.Options{SegmentBytes: 256 << 10, SegmentCount: 4})
				if err != nil {
					t.Fatal(err)
				}
				return l
			})
		})
	}
}

func opener(ctx context.Context, fsys vfs.FS, segmentBytes int) (driver.Driver, func(context.Context) error, error) {
	l, err := local.Open(ctx, fsys, local.Options{SegmentBytes: segmentBytes, SegmentCount: 4, MaintenanceInterval: 20 * time.Millisecond})
	if err != nil {
		return nil, nil, err
	}
	return l, l.Maintain, nil
}

func TestCrash(t *testing.T)  { shardlogtest.RunCrash(t, opener) }
func TestFaults(t *testing.T) { shardlogtest.RunFaults(t, opener) }

func TestDamage(t *testing.T)   { shardlogtest.RunDamage(t, opener) }
func TestTornTail(t *testing.T) { shardlogtest.RunTornTail(t, opener) }
func TestHistory(t *testing.T)  { shardlogtest.RunHistory(t, opener) }
