package gputest

import (
	"os"
	"testing"
)

// Reduced reports whether the longest sweeps run a part of their cases: with -short, and in make test, which so takes a third
// of the time. make test-full sets COLT5_TEST_FULL=1 and runs all.
func Reduced() bool { return testing.Short() || os.Getenv("COLT5_TEST_FULL") != "1" }
