package local_test

import (
	"testing"

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
