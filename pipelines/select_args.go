package pipelines

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// SelectArgs names memory and sizes of one selection.
type SelectArgs struct {
	Logits, Mask, Indices, Valid, Values vk.Range
	Scratch                              vk.Range // of at least SelectScratch bytes; its contents do not matter before or after
	Rows, N, K                           int
	Routes                               int    // rows that share a row of the mask, a divisor of Rows; 0: 1
	BlockSize                            int    // each block of so many entries chooses K of its own; 0: the whole row
	SkipBlocks                           int    // so many blocks at the start of every row stay empty; 0: none. Only with BlockSize
	Windows, Prefix                      int    // window m chooses from the first m * Prefix entries; both 0: no windows. Not with BlockSize
	EmptyIndex                           int32  // the index in an empty slot
	ValidWord                            uint32 // what marks a filled slot in Filled; 0: 1. The bits of 1.0 make Filled a tensor of scores
}

// SelectScratch is the number of bytes that SelectArgs.Scratch must have at least; 0 for short blocks. The sizes are those of
// SelectArgs, whatever Prefix is.
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
		return fmt.Errorf("pipelines: Select: N is %d, want at most %d", a.N, selectMax)
	case a.K > selectMax:
		return fmt.Errorf("pipelines: Select: K is %d, want at most %d", a.K, selectMax)
	case a.Rows%a.Routes != 0:
		return fmt.Errorf("pipelines: Select: Routes is %d, want a divisor of Rows, %d", a.Routes, a.Rows)
	case a.BlockSize < 0:
		return fmt.Errorf("pipelines: Select: BlockSize is %d, want at least 0", a.BlockSize)
	}
	blocks := 0
	if a.BlockSize > 0 {
		blocks = (a.N-1)/a.BlockSize + 1
	}
	if a.SkipBlocks < 0 || a.SkipBlocks > blocks {
		return fmt.Errorf("pipelines: Select: SkipBlocks is %d, want 0 to %d, the blocks of a row", a.SkipBlocks, blocks)
	}
	return checkWindows(op, a.Windows, a.Prefix, a.BlockSize)
}

// checkWindows checks windows, which see prefixes of a row.
func checkWindows(op string, windows, prefix, block int) error {
	if windows == 0 && prefix == 0 {
		return nil
	}
	if err := checkPositive(op, dim{"Windows", windows}, dim{"Prefix", prefix}); err != nil {
		return err
	}
	if block != 0 {
		return fmt.Errorf("pipelines: %s: BlockSize is %d with %d windows, want 0", op, block, windows)
	}
	if windows > math.MaxInt32/prefix { // shaders multiply them
		return fmt.Errorf("pipelines: %s: Windows is %d, want at most %d with Prefix %d", op, windows, math.MaxInt32/prefix, prefix)
	}
	return nil
}

// checkRanges checks the memory, and cuts up the scratch memory.
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
		checkTensor(op, "filled", a.Valid, wordAlign, u32, slots...),
		checkOptional(op, "values", a.Values, wordAlign, f32, slots...),
	); err != nil {
		return err
	}
	want := p.scratch()
	if want == 0 {
		return nil
	}
	if a.Scratch.Size() < want {
		return fmt.Errorf("pipelines: Select: scratch has %d bytes, want at least %d", a.Scratch.Size(), want)
	}
	if err := checkAlign(op, "scratch", a.Scratch, vec4Align); err != nil {
		return err
	}
	r.state, r.counts = a.Scratch.Slice(0, p.stateBytes), a.Scratch.Slice(p.stateBytes, p.countBytes)
	r.candidates = a.Scratch.Slice(p.stateBytes+p.countBytes, p.candidateBytes)
	r.pairs[0] = a.Scratch.Slice(p.stateBytes+p.countBytes+p.candidateBytes, p.pairBytes)
	if p.merges > 1 {
		r.pairs[1] = a.Scratch.Slice(p.stateBytes+p.countBytes+p.pairBytes, p.pairBytes)
	}
	return nil
}
