package server

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is how many kilobytes of the program are in memory.
func resident(t *testing.T) (kilobytes int) {
	t.Helper()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	in := false
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(fields[0], "-"):
			in = fields[len(fields)-1] == program && !strings.Contains(fields[1], "w")
		case in && fields[0] == "Rss:":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			kilobytes += n
		}
	}
	return kilobytes
}

func TestPagesOfTheStartAreReleased(t *testing.T) {
	before := resident(t)
	releaseStart()
	after := resident(t)
	if t.Logf("%d kB, then %d", before, after); before < 4096 || after > before/2 {
		t.Errorf("%d kB of the program are resident, %d before", after, before)
	}
}
