package memory_test

import (
	"testing"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/shardlog/shardlogtest"
)

func TestContract(t *testing.T) {
	shardlogtest.RunContract(t, func(*testing.T) driver.Driver { return memory.New(memory.Options{}) })
}
