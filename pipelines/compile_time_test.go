//go:build !linux

package pipelines

import "time"

// cpuTime returns the elapsed time of f.
func cpuTime(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
