package pipelines

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Windows are prefixes: short, empty, or longer than the row; with each of the three algorithms.
func TestSelectWindows(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	ties := func(i int) float32 { return float32(i * 7 % 5) }
	for _, c := range []selectCase{
		{rows: 1, n: 1, k: 1, windows: 1, prefix: 1}, {rows: 1, n: 1, k: 3, windows: 5, prefix: 1, emptyIndex: -1}, {rows: 4, n: 8, k: 2, windows: 5, prefix: 2, routes: 2},
		{rows: 6, n: 13, k: 20, windows: 5, prefix: 3, routes: 3, valid: oneIn(2, 1), emptyIndex: -1}, {rows: 2, n: 100, k: 7, windows: 5, prefix: 60},
		{rows: 4, n: 509, k: 100, windows: 63, prefix: 8, routes: 2}, {rows: 2, n: 509, k: 64, windows: 63, prefix: 8, valid: oneIn(3, 0), unaligned: true},
		{rows: 4, n: 1024, k: 77, windows: 5, prefix: 256, routes: 2, logits: ties}, {rows: 4, n: 1021, k: 300, windows: 5, prefix: 257, routes: 4, logits: ties, unaligned: true},
		{rows: 2, n: 8192, k: 1024, windows: 63, prefix: 128, routes: 2}, {rows: 2, n: 4096, k: 2500, windows: 5, prefix: 1000, routes: 2, valid: oneIn(3, 2)}, // sorted in dispatches of its own
		{rows: 1, n: 8209, k: 3000, windows: 5, prefix: 2000}, {rows: 2, n: 8209, k: 500, windows: 5, prefix: 2053, routes: 2, valid: oneIn(2, 0)},
		{rows: 2, n: 33001, k: 1000, windows: 5, prefix: 8200, routes: 2, valid: oneIn(4, 3), emptyIndex: -1}, {rows: 1, n: 33000, k: 999, windows: 5, prefix: 8250, unaligned: true},
		{rows: 2, n: 33003, k: 700, windows: 5, prefix: 8001, logits: ties}, {rows: 1, n: 33000, k: 100, windows: 63, prefix: 525, valid: func(i int) bool { return i > 20000 }},
		{rows: 2, n: 33001, k: 9000, windows: 5, prefix: 8000, routes: 2, logits: ties}, {rows: 1, n: 40000, k: 3000, windows: 5, prefix: 10000, unaligned: true},
	} {
		if testing.Short() { // all take 35 s
			continue
		}
		runSortedAndUnsorted(t, c, nil)
		if c.n < 9000 && c.windows < 60 && !testing.Short() {
			runSortedAndUnsorted(t, c, &forcedLimits{threads: 64, sortCapacity: 1024, maxGroupsX: 7})
		}
	}
	for name, valid := range map[string]func(int) bool{
		"none": func(int) bool { return false }, "second half": func(i int) bool { return i%500 >= 250 }, "first": func(i int) bool { return i%500 == 0 },
	} {
		if testing.Short() && name != "second half" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			runSortedAndUnsorted(t, selectCase{rows: 4, n: 500, k: 130, windows: 5, prefix: 125, routes: 2, valid: valid, emptyIndex: -1}, nil)
		})
	}
}

// Windows have the algorithm of blocks of N entries. The example of the autoregressive module takes one dispatch.
func TestSelectDispatchesOfWindows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s")
	}
	limits := &forcedLimits{threads: 256, sortCapacity: 1024}
	for _, test := range []struct {
		selectCase
		want []string
	}{
		{selectCase{rows: 4, n: 8192, k: 1024, windows: 64, prefix: 128, routes: 2}, []string{"select"}},
		{selectCase{rows: 1, n: 8193, k: 1000, windows: 5, prefix: 2000}, []string{"select_sample", "select_gather", "select_rank"}},
		{selectCase{rows: 1, n: 8193, k: 1025, windows: 2, prefix: 8000}, []string{
			"fill", "select_digit", "select_digit", "select_digit", "select_digit", "select_compact", "select_sort", "select_merge"}},
	} {
		t.Run(test.String(), func(t *testing.T) { assert.Equal(t, test.want, runSelect(t, test.selectCase, true, limits)) })
	}
}

// Skipped blocks at the start of a row stay empty.
func TestSelectSkippedBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	for _, c := range []selectCase{
		{rows: 3, n: 10, k: 2, block: 4, skipBlocks: 1}, {rows: 3, n: 10, k: 2, block: 4, skipBlocks: 3, emptyIndex: -1}, {rows: 2, n: 5, k: 3, block: 8, skipBlocks: 1},
		{rows: 4, n: 1000, k: 50, block: 333, routes: 2, skipBlocks: 2, valid: oneIn(2, 0), emptyIndex: -1}, {rows: 2, n: 4096, k: 32, block: 128, skipBlocks: 1, unaligned: true},
		{rows: 2, n: 70003, k: 600, block: 33001, skipBlocks: 1, valid: oneIn(2, 1)}, {rows: 2, n: 70003, k: 6000, block: 33001, skipBlocks: 1},
	} {
		if testing.Short() && c.n == 70003 {
			continue
		}
		runSortedAndUnsorted(t, c, nil)
	}
}

// Ranges that start between multiples of 16 bytes.
func TestSelectUnaligned(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	for _, c := range []selectCase{
		{rows: 1, n: 1, k: 1}, {rows: 3, n: 256, k: 9, valid: oneIn(3, 1)}, {rows: 5, n: 7, k: 3, routes: 5}, {rows: 1, n: 8192, k: 1024}, {rows: 1, n: 1024, k: 2000, emptyIndex: -1},
		{rows: 2, n: 32768, k: 9000, valid: oneIn(3, 1)}, {rows: 1, n: 32768, k: 1024}, {rows: 33, n: 32768, k: 10}, {rows: 1, n: 65536, k: 5000}, {rows: 1, n: 66000, k: 2000, block: 33000},
	} {
		if testing.Short() && c.n > 8192 {
			continue
		}
		c.unaligned = true
		runSortedAndUnsorted(t, c, nil)
	}
}
