//go:build !linux

package soak

import "math"

// readProcess knows nothing on this system.
func readProcess() (bytes, threads, files float64) { return math.NaN(), math.NaN(), math.NaN() }
