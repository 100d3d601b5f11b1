package pipelines

import (
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// CoorDescentArgs names the memory and the sizes. Scores may be Logits, unless SelectedScores or Windows are set.
type CoorDescentArgs struct {
	Logits  vk.Range // [Rows, N]
	Mask    vk.Range // [Rows / Routes, N], 0: masked; absent: no entry is masked
	Scores  vk.Range // [Rows, N], or [Items, Windows, Routes, N]; absent: not wanted
	State   vk.Range // [Rows, ceil(N / BlockSize), Iters, 4], or [Items, Windows, Routes, Iters, 4]; absent: not wanted
	Scratch vk.Range // of CoorDescentScratch bytes; absent if that is 0
	Rows, N int
	Routes  int // consecutive rows that share a row of the mask; 0: 1

	// SelectedScores receives the scores of the entries that Indices names: Slots entries per segment. All absent, with
	// Slots 0: not wanted.
	Indices        vk.Range // [Rows, ceil(N / BlockSize), Slots], or [Items, Windows, Routes, Slots]; counted from the start of the row
	Valid          vk.Range // the same shape, 0: an empty slot; absent: every slot is valid
	SelectedScores vk.Range // the same shape
	Slots          int

	// BlockSize is the length of a block; the last block of a row may be shorter. 0: N.
	BlockSize int
	// Windows is the number of windows of a row; window m has the first m * WindowSize entries. Both 0: blocks. Not with
	// BlockSize.
	Windows, WindowSize int
	// K is the number of entries to select per segment: a real number, 1e-6 to 1e30. For a shorter last block it is
	// min(K, its length).
	K float64
	// RowK has a K for each row, which is clamped to 1e-6 .. 1e30, NaN to either bound: [Rows] f32. Absent: K. With RowK, K and
	// SelectAllUpTo are 0, and State, blocks and windows are absent.
	RowK vk.Range
	// SelectAllUpTo is the length of a block, or with Windows the N, up to which all valid entries are selected: they
	// score 1. 0: none.
	SelectAllUpTo int
	// PadLastBlock treats a shorter last block as one of BlockSize entries whose missing entries are masked: K and
	// SelectAllUpTo apply to BlockSize.
	PadLastBlock bool
}

// CoorDescentScratch is the size of the scratch memory in bytes, for rows of n entries in blocks of blockSize (0: n),
// or with a number of windows per row (0: none).
func CoorDescentScratch(caps vk.Caps, rows, n, blockSize, windows int) uint64 {
	a := CoorDescentArgs{N: n, BlockSize: blockSize, Windows: windows}
	if rows < 1 || n < 1 || blockSize < 0 || windows < 0 {
		return 0
	}
	plans := coorDescentPlans(limitsOfCaps(caps), a.segmentLength())
	plan := plans[len(plans)-1]
	if plan.vec4PerThread > 0 {
		return 0
	}
	return 2 * uint64(rows) * uint64(a.segments()) * plan.partialBytes()
}

// Scratch is CoorDescentScratch on this device, without windows.
func (c *CoorDescent) Scratch(rows, n, blockSize int) uint64 {
	return CoorDescentScratch(c.kernels.dev.Caps(), rows, n, blockSize, 0)
}

// segmentLength is the length of the longest segment.
func (a CoorDescentArgs) segmentLength() int {
	if a.BlockSize == 0 || a.BlockSize > a.N {
		return a.N
	}
	return a.BlockSize
}

// segments is the number of segments of a row.
func (a CoorDescentArgs) segments() int {
	if a.Windows > 0 {
		return a.Windows
	}
	return (a.N-1)/a.segmentLength() + 1
}

// targets are the k of a segment and of a shorter last block; 0: all entries are selected.
func (a CoorDescentArgs) targets() (k, last float32) {
	target := func(length int, k float64) float32 {
		if length <= a.SelectAllUpTo {
			return 0
		}
		return float32(k)
	}
	switch remainder := a.N % a.segmentLength(); {
	case a.PadLastBlock && a.BlockSize > 0:
		k = target(a.BlockSize, a.K)
		return k, k
	case remainder > 0:
		return target(a.segmentLength(), a.K), target(remainder, min(a.K, float64(remainder)))
	}
	k = target(a.segmentLength(), a.K)
	return k, k
}

// entries is the number of entries in all segments of a row.
func (a CoorDescentArgs) entries() float64 {
	if a.Windows == 0 {
		return float64(a.N)
	}
	partial := min(a.Windows, (a.N-1)/a.WindowSize+1) // windows shorter than a row
	return float64(a.WindowSize)*float64(partial)*float64(partial-1)/2 + float64(a.Windows-partial)*float64(a.N)
}

// resultBytes is the memory of the scores, of the selected scores and of their indices.
func (a CoorDescentArgs) resultBytes() float64 {
	return float64(a.Scores.Size() + a.Indices.Size() + a.Valid.Size() + a.SelectedScores.Size())
}

const minCoorDescentK, maxCoorDescentK = 1e-6, 1e30

// check compares the arguments with the config. Routes is at least 1.
func (c *CoorDescent) check(a CoorDescentArgs) error {
	const op = "CoorDescent"
	if !a.RowK.IsZero() && (a.K != 0 || a.SelectAllUpTo != 0 || !a.State.IsZero() || a.Windows != 0 || a.BlockSize != 0 && a.BlockSize < a.N) {
		return fmt.Errorf("pipelines: %s: RowK has %d bytes, want K and SelectAllUpTo 0, and no state, blocks or windows: K is %g, "+
			"SelectAllUpTo %d, state has %d bytes, BlockSize is %d and Windows %d", op, a.RowK.Size(), a.K, a.SelectAllUpTo, a.State.Size(), a.BlockSize, a.Windows)
	}
	if err := a.checkSizes(op); err != nil {
		return err
	}
	return c.checkRanges(a)
}

// checkSizes checks what does not concern ranges. Routes is at least 1.
func (a CoorDescentArgs) checkSizes(op string) error {
	if err := checkPositive(op, dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Routes", a.Routes}); err != nil {
		return err
	}
	switch {
	case a.BlockSize < 0:
		return fmt.Errorf("pipelines: %s: BlockSize is %d, want at least 0", op, a.BlockSize)
	case a.N > maxRowLength:
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, maxRowLength)
	case a.Slots < 0 || a.Slots > maxRowLength:
		return fmt.Errorf("pipelines: %s: Slots is %d, want 0 to %d", op, a.Slots, maxRowLength)
	case a.Rows%a.Routes != 0:
		return fmt.Errorf("pipelines: %s: Rows is %d, want a multiple of Routes %d", op, a.Rows, a.Routes)
	case a.RowK.IsZero() && !(a.K >= minCoorDescentK && a.K <= maxCoorDescentK):
		return fmt.Errorf("pipelines: %s: K is %g, want %g to %g", op, a.K, minCoorDescentK, maxCoorDescentK)
	case a.SelectAllUpTo < 0 || a.SelectAllUpTo > math.MaxInt32:
		return fmt.Errorf("pipelines: %s: SelectAllUpTo is %d, want 0 to %d", op, a.SelectAllUpTo, math.MaxInt32)
	}
	if err := checkWindows(op, a.Windows, a.WindowSize, a.BlockSize); err != nil {
		return err
	}
	segments := dim{"Rows * Blocks", a.Rows * a.segments()}
	if a.Windows > 0 {
		segments.name = "Rows * Windows"
	}
	return checkPositive(op, segments)
}

// shapes are the dimensions of all segments, and of the scores.
func (a CoorDescentArgs) shapes() (segments, scores []dim) {
	rows, n := dim{"Rows", a.Rows}, dim{"N", a.N}
	if a.Windows > 0 {
		segments = []dim{{"Items", a.Rows / a.Routes}, {"Windows", a.Windows}, {"Routes", a.Routes}}
		return segments, slices.Concat(segments, []dim{n})
	}
	return []dim{rows, {"Blocks", a.segments()}}, []dim{rows, n}
}

func (c *CoorDescent) checkRanges(a CoorDescentArgs) error {
	const op = "CoorDescent"
	rows, n, items := dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Rows / Routes", a.Rows / a.Routes}
	segments, scores := a.shapes()
	slots := slices.Concat(segments, []dim{{"Slots", a.Slots}})
	state := slices.Concat(segments, []dim{{"Iters", c.config.Iters}, {"Values", 4}})
	if err := firstError(
		checkTensor(op, "logits", a.Logits, wordAlign, f32, rows, n),
		checkOptional(op, "mask", a.Mask, byteAlign, u8, items, n),
		checkOptional(op, "scores", a.Scores, wordAlign, f32, scores...),
		checkOptional(op, "state", a.State, vec4Align, f32, state...),
		checkOptional(op, "row k", a.RowK, wordAlign, f32, rows),
		checkOptional(op, "indices", a.Indices, wordAlign, i32, slots...),
		checkOptional(op, "valid", a.Valid, wordAlign, u32, slots...),
		checkOptional(op, "selected scores", a.SelectedScores, wordAlign, f32, slots...),
	); err != nil {
		return err
	}
	switch {
	case a.SelectedScores.IsZero() && a.Scores.IsZero():
		return fmt.Errorf("pipelines: CoorDescent: scores and selected scores are both missing, want at least one of them")
	case a.SelectedScores.IsZero() != (a.Slots == 0) || a.SelectedScores.IsZero() != a.Indices.IsZero() || a.SelectedScores.IsZero() && !a.Valid.IsZero():
		return fmt.Errorf("pipelines: CoorDescent: Slots is %d, indices has %d bytes, valid %d and selected scores %d, want all, all but valid, or none",
			a.Slots, a.Indices.Size(), a.Valid.Size(), a.SelectedScores.Size())
	case a.Scores == a.Logits && (!a.SelectedScores.IsZero() || a.Windows > 0):
		return fmt.Errorf("pipelines: CoorDescent: scores and logits are the same range, want different ranges with selected scores or windows")
	}
	bytes := CoorDescentScratch(c.kernels.dev.Caps(), a.Rows, a.N, a.BlockSize, a.Windows)
	if bytes == 0 && a.Scratch.IsZero() {
		return nil
	}
	return checkRange(op, "scratch", a.Scratch, vec4Align, bytes, "CoorDescentScratch")
}
