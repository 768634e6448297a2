package server

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseStart gives back the pages of the program that the start has touched; they
// come back from the page cache where they are touched again. Much of the program
// is libraries of destinations that may never be used, but initialising them has
// brought in pages all over it, sixteen at a time.
func releaseStart() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // it stays as it is
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		// 00400000-022ec000 r-xp 00000000 fe:00 10887730    /usr/bin/millrace
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1][1] == 'w' || fields[5] != program {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		from, err1 := strconv.ParseUint(low, 16, 64)
		to, err2 := strconv.ParseUint(high, 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		// A failure leaves the pages where they are.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED)
	}
}
