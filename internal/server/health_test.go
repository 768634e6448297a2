package server

import (
	"context"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

func TestReadinessSaysThatMetadataHasStopped(t *testing.T) {
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	defer log.Close()
	store, err := meta.Open(t.Context(), log, nil, meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	h := new(health)
	h.metadata.Store(store)
	steps := []struct {
		do     func()
		ready  bool
		reason string
	}{
		{func() {}, false, "starting"},
		{func() { h.enter(serving) }, true, "ready"},
		{func() { h.full.Store(true) }, true, "disk is full"},
		{func() {
			// What cannot be read ends the store; the next commit finds out.
			if err := log.Append(context.Background(), []*driver.Batch{shardlog.NewBatch(meta.LogShard, []byte("\xffgarbage"))}); err != nil {
				t.Fatal(err)
			}
			for err := error(nil); err == nil; {
				_, err = store.Commit(t.Context(), meta.Op{Key: "k", Value: []byte("v")})
			}
		}, false, "metadata: stopped"},
		{func() { h.readOnly.Store(true) }, false, "read-only"},
		{func() { h.enter(stopping) }, false, "stopping"},
	}
	for _, s := range steps {
		s.do()
		ready, reason := h.check()
		if ready != s.ready || !strings.Contains(reason, s.reason) || strings.Contains(reason, "\n") {
			t.Errorf("%v %q, want %v %q", ready, reason, s.ready, s.reason)
		}
	}
}
