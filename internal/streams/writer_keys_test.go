package streams

import (
	"fmt"
	"testing"
	"time"
)

// A writer finds the keys of what has arrived since an instant, in shards that are
// closed too, and no others.
func TestWriterFindsKeys(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 1)
	w, err := r.OpenWriter(st.arn)
	if err != nil {
		t.Fatal(err)
	}
	write := func(from, to int) {
		t.Helper()
		var records []WriteRecord
		for i := from; i < to; i++ {
			records = append(records, WriteRecord{Key: fmt.Sprint(i), Data: make([]byte, 2000)})
		}
		results, err := w.Write(t.Context(), records)
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range results {
			if res.Code != "" {
				t.Fatal(res.Code, res.Message)
			}
		}
	}
	write(0, 100)
	r.advance(time.Minute)
	since := r.time()
	write(100, 700)
	r.split("s", r.get("s").open[0].id())
	write(700, 800)
	seen := map[string]int{}
	if err := w.Keys(t.Context(), since, func(key []byte) { seen[string(key)]++ }); err != nil {
		t.Fatal(err)
	}
	for i := range 800 {
		if n := seen[fmt.Sprint(i)]; n != min(i/100, 1) {
			t.Errorf("the key %d was seen %d times", i, n)
		}
	}
}
