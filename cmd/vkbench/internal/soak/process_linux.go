package soak

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strings"
)

// readProcess returns the resident memory of this process in bytes, and the numbers of its threads and open files; NaN: not known.
func readProcess() (bytes, threads, files float64) {
	bytes, threads, files = math.NaN(), math.NaN(), math.NaN()
	if f, err := os.Open("/proc/self/status"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ":")
			var n float64
			if _, err := fmt.Sscan(value, &n); err != nil {
				continue
			}
			switch name {
			case "VmRSS":
				bytes = 1024 * n
			case "Threads":
				threads = n
			}
		}
	}
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		files = float64(len(list))
	}
	return bytes, threads, files
}
