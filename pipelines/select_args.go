package pipelines

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// SelectArgs names the memory and the sizes of one selection.
type SelectArgs struct {
	Logits  vk.Range // [Rows, N]
	Mask    vk.Range // [Rows / Routes, N], 0: masked; absent: no entry is masked
	Indices vk.Range // [Rows, Blocks, K], or [Items, Windows, Routes, K]
	Valid   vk.Range // the same shape
	Values  vk.Range // the same shape; absent: not wanted
	Scratch vk.Range // at least SelectScratch bytes; its contents are undefined before and after

	Rows, N, K int
	Routes     int // consecutive rows that share a row of the mask, a divisor of Rows; 0: 1

	BlockSize           int // entries of a block; the last block of a row may be shorter. 0: the whole row
	SkipBlocks          int // blocks at the start of every row whose slots stay empty; 0: none. Only with BlockSize
	Windows, WindowSize int // window m is the windowSize of m * WindowSize entries; both 0: no windows. Not with BlockSize

	EmptyIndex int32  // index of an empty slot
	ValidWord  uint32 // valid word of a selected entry; 0: 1. The bits of 1.0 make Valid a tensor of float32 scores
}

// SelectScratch is the least size of SelectArgs.Scratch in bytes; 0 where one workgroup selects. The sizes are those of
// SelectArgs; WindowSize does not matter.
func SelectScratch(caps vk.Caps, c SelectConfig, rows, n, k, blockSize, windows int) uint64 {
	return selectScratch(newSelectLimits(caps), c.Sorted, selectSizes{rows: rows, n: n, k: k, block: blockSize, windows: windows})
}

// Scratch is SelectScratch on this device, without windows.
func (s *Select) Scratch(rows, n, k, blockSize int) uint64 {
	return selectScratch(s.limits, s.config.Sorted, selectSizes{rows: rows, n: n, k: k, block: blockSize})
}

func (s *Select) checkSizes(a SelectArgs) error {
	const op = "Select"
	if err := checkPositive(op, dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"K", a.K}, dim{"Routes", a.Routes}); err != nil {
		return err
	}
	switch {
	case a.N > selectMax:
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, selectMax)
	case a.K > selectMax:
		return fmt.Errorf("pipelines: %s: K is %d, want at most %d", op, a.K, selectMax)
	case a.Rows%a.Routes != 0:
		return fmt.Errorf("pipelines: %s: Routes is %d, want a divisor of Rows, %d", op, a.Routes, a.Rows)
	case a.BlockSize < 0:
		return fmt.Errorf("pipelines: %s: BlockSize is %d, want at least 0", op, a.BlockSize)
	}
	blocks := 0
	if a.BlockSize > 0 {
		blocks = (a.N-1)/a.BlockSize + 1
	}
	if a.SkipBlocks < 0 || a.SkipBlocks > blocks {
		return fmt.Errorf("pipelines: %s: SkipBlocks is %d, want 0 to %d, the blocks of a row", op, a.SkipBlocks, blocks)
	}
	return checkWindows(op, a.Windows, a.WindowSize, a.BlockSize)
}

// checkWindows checks the arguments of windows, of Select and CoorDescent.
func checkWindows(op string, windows, windowSize, block int) error {
	if windows == 0 && windowSize == 0 {
		return nil
	}
	if err := checkPositive(op, dim{"Windows", windows}, dim{"WindowSize", windowSize}); err != nil {
		return err
	}
	if block != 0 {
		return fmt.Errorf("pipelines: %s: BlockSize is %d with %d windows, want 0", op, block, windows)
	}
	if windows > math.MaxInt32/windowSize { // shaders compute the product
		return fmt.Errorf("pipelines: %s: Windows is %d, want at most %d with WindowSize %d", op, windows, math.MaxInt32/windowSize, windowSize)
	}
	return nil
}

// checkRanges checks the memory, and divides the scratch memory.
func (r *selectRecorder) checkRanges() error {
	const op = "Select"
	a, p := r.args, r.plan
	rows, items, n, k := dim{"Rows", a.Rows}, dim{"Rows / Routes", a.Rows / a.Routes}, dim{"N", a.N}, dim{"K", a.K}
	slots := []dim{rows, {"Blocks", int(p.blocks)}, k}
	if a.Windows > 0 {
		slots = []dim{{"Items", items.n}, {"Windows", a.Windows}, {"Routes", a.Routes}, k}
	}
	if err := firstError(
		checkTensor(op, "logits", a.Logits, wordAlign, f32, rows, n),
		checkOptional(op, "mask", a.Mask, byteAlign, u8, items, n),
		checkTensor(op, "indices", a.Indices, wordAlign, i32, slots...),
		checkTensor(op, "valid", a.Valid, wordAlign, u32, slots...),
		checkOptional(op, "values", a.Values, wordAlign, f32, slots...),
	); err != nil {
		return err
	}
	want := p.scratch()
	if want == 0 {
		return nil
	}
	if a.Scratch.Size() < want {
		return fmt.Errorf("pipelines: %s: scratch has %d bytes, want at least %d", op, a.Scratch.Size(), want)
	}
	if err := checkAlign(op, "scratch", a.Scratch, vec4Align); err != nil {
		return err
	}
	offset := uint64(0)
	block := func(bytes uint64) (r vk.Range) {
		if bytes > 0 {
			r = a.Scratch.Slice(offset, bytes)
		}
		offset += bytes
		return r
	}
	r.state, r.counts, r.candidates, r.pairs[0] = block(p.stateBytes), block(p.countBytes), block(p.candidateBytes), block(p.pairBytes)
	if p.merges > 1 {
		r.pairs[1] = block(p.pairBytes)
	}
	return nil
}
