package pipelines

import (
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// CoorDescentArgs names memory and sizes. Scores may be the same range as Logits where nothing else is wanted of them: no Chosen, no Windows.
type CoorDescentArgs struct {
	Logits  vk.Range // [Rows, N]
	Mask    vk.Range // [Rows / Routes, N], 0: not a valid entry; absent: all are
	Scores  vk.Range // [Rows, N], or [Items, Windows, Routes, N]; absent: only those of chosen entries are wanted
	State   vk.Range // [Rows, ceil(N / BlockSize), Iters, 4], or [Items, Windows, Routes, Iters, 4]; absent: not wanted
	Scratch vk.Range // as many bytes as CoorDescentScratch says; absent if that is 0
	Rows, N int
	Routes  int // consecutive rows that share a row of the mask; 0: 1

	// Chosen gets the scores of the entries that Indices names: Slots of them for each block or window. All absent, and Slots 0: not wanted.
	Indices        vk.Range // [Rows, ceil(N / BlockSize), Slots], or [Items, Windows, Routes, Slots]; counted from the start of the row
	Valid          vk.Range // the same shape, 0: an empty slot; absent: slots are filled where their index is one
	SelectedScores vk.Range // the same shape
	Slots          int

	// BlockSize cuts each row in blocks of that many entries, the last one shorter if need be, each a descent of its own. 0: N.
	BlockSize int
	// Windows descents on each row, window m on its first m * Prefix entries. Both 0: no windows. Not with BlockSize.
	Windows, Prefix int
	// K is how many entries a block or window is to choose: a real number, 1e-6 to 1e30. A shorter last block aims at min(K, its length).
	K float64
	// WholeUpTo exempts blocks that are not longer than this, or windows if N is not: their scores are their mask. 0: none.
	SelectAllUpTo int
	// Padded takes a shorter last block for a full one whose missing entries are masked: it aims at K, and WholeUpTo is compared with BlockSize.
	PadLastBlock bool
}

// CoorDescentScratch is the number of bytes of scratch memory for rows of n entries in blocks of blockSize (0: n), or for so many
// windows (0: none) on each of them.
func CoorDescentScratch(caps vk.Caps, rows, n, blockSize, windows int) uint64 {
	a := CoorDescentArgs{N: n, BlockSize: blockSize, Windows: windows}
	if rows < 1 || n < 1 || blockSize < 0 || windows < 0 {
		return 0
	}
	p := planCoorDescent(caps, a.segmentLength())
	if p.vec4PerThread > 0 {
		return 0
	}
	return 2 * uint64(rows) * uint64(a.segments()) * p.partialBytes()
}

// Scratch is CoorDescentScratch on this device, without windows.
func (c *CoorDescent) Scratch(rows, n, blockSize int) uint64 {
	return CoorDescentScratch(c.kernels.dev.Caps(), rows, n, blockSize, 0)
}

// block is the length of the longest block or window.
func (a CoorDescentArgs) segmentLength() int {
	if a.BlockSize == 0 || a.BlockSize > a.N {
		return a.N
	}
	return a.BlockSize
}

// units is the number of blocks or windows of a row.
func (a CoorDescentArgs) segments() int {
	if a.Windows > 0 {
		return a.Windows
	}
	return (a.N-1)/a.segmentLength() + 1
}

// aims are the k of a block or window, and of a shorter last block; 0: taken whole.
func (a CoorDescentArgs) targets() (k, last float32) {
	aim := func(length int, k float64) float32 {
		if length <= a.SelectAllUpTo {
			return 0
		}
		return float32(k)
	}
	switch rest := a.N % a.segmentLength(); {
	case a.PadLastBlock && a.BlockSize > 0:
		k = aim(a.BlockSize, a.K)
		return k, k
	case rest > 0:
		return aim(a.segmentLength(), a.K), aim(rest, min(a.K, float64(rest)))
	}
	k = aim(a.segmentLength(), a.K)
	return k, k
}

// entries that the descents on a row look at.
func (a CoorDescentArgs) entries() float64 {
	if a.Windows == 0 {
		return float64(a.N)
	}
	part := min(a.Windows, (a.N-1)/a.Prefix+1) // windows that see less than a row
	return float64(a.Prefix)*float64(part)*float64(part-1)/2 + float64(a.Windows-part)*float64(a.N)
}

// resultBytes is the memory of scores and chosen scores, with what says which these are.
func (a CoorDescentArgs) resultBytes() float64 {
	return float64(a.Scores.Size() + a.Indices.Size() + a.Valid.Size() + a.SelectedScores.Size())
}

// check wants Routes with its default filled in.
func (c *CoorDescent) check(a CoorDescentArgs) error {
	const op = "CoorDescent"
	if err := checkPositive(op, dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Routes", a.Routes}); err != nil {
		return err
	}
	const leastK, mostK, most = 1e-6, 1e30, 1<<30 - 1 // the bytes of a row are counted in 32 bits
	switch {
	case a.BlockSize < 0:
		return fmt.Errorf("pipelines: CoorDescent: BlockSize is %d, want at least 0", a.BlockSize)
	case a.N > most:
		return fmt.Errorf("pipelines: CoorDescent: N is %d, want at most %d", a.N, most)
	case a.Slots < 0 || a.Slots > most:
		return fmt.Errorf("pipelines: CoorDescent: Slots is %d, want 0 to %d", a.Slots, most)
	case a.Rows%a.Routes != 0:
		return fmt.Errorf("pipelines: CoorDescent: Rows is %d, want a multiple of Routes %d", a.Rows, a.Routes)
	case !(a.K >= leastK && a.K <= mostK):
		return fmt.Errorf("pipelines: CoorDescent: K is %g, want %g to %g", a.K, leastK, mostK)
	case a.SelectAllUpTo < 0 || a.SelectAllUpTo > math.MaxInt32:
		return fmt.Errorf("pipelines: CoorDescent: WholeUpTo is %d, want 0 to %d", a.SelectAllUpTo, math.MaxInt32)
	}
	if err := checkWindows(op, a.Windows, a.Prefix, a.BlockSize); err != nil {
		return err
	}
	units := dim{"Rows * Blocks", a.Rows * a.segments()}
	if a.Windows > 0 {
		units.name = "Rows * Windows"
	}
	if err := checkPositive(op, units); err != nil {
		return err
	}
	return c.checkRanges(a)
}

func (c *CoorDescent) checkRanges(a CoorDescentArgs) error {
	const op = "CoorDescent"
	rows, n, masks := dim{"Rows", a.Rows}, dim{"N", a.N}, dim{"Rows / Routes", a.Rows / a.Routes}
	units, scores := []dim{rows, {"Blocks", a.segments()}}, []dim{rows, n}
	if a.Windows > 0 {
		units = []dim{{"Items", masks.n}, {"Windows", a.Windows}, {"Routes", a.Routes}}
		scores = append(units[:3:3], n)
	}
	with := func(last ...dim) []dim { return slices.Concat(units, last) }
	slots := with(dim{"Slots", a.Slots})
	for _, err := range []error{
		checkTensor(op, "logits", a.Logits, wordAlign, f32, rows, n),
		checkOptional(op, "mask", a.Mask, byteAlign, u8, masks, n),
		checkOptional(op, "scores", a.Scores, wordAlign, f32, scores...),
		checkOptional(op, "state", a.State, vec4Align, f32, with(dim{"Iters", c.config.Iters}, dim{"Values", 4})...),
		checkOptional(op, "indices", a.Indices, wordAlign, i32, slots...),
		checkOptional(op, "filled", a.Valid, wordAlign, u32, slots...),
		checkOptional(op, "chosen", a.SelectedScores, wordAlign, f32, slots...),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case a.SelectedScores.IsZero() && a.Scores.IsZero():
		return fmt.Errorf("pipelines: CoorDescent: scores and chosen are missing, want one of them or both")
	case a.SelectedScores.IsZero() != (a.Slots == 0) || a.SelectedScores.IsZero() != a.Indices.IsZero() || a.SelectedScores.IsZero() && !a.Valid.IsZero():
		return fmt.Errorf("pipelines: CoorDescent: Slots is %d with indices of %d, filled of %d and chosen of %d bytes, want all, or filled absent, or none",
			a.Slots, a.Indices.Size(), a.Valid.Size(), a.SelectedScores.Size())
	case a.Scores == a.Logits && (!a.SelectedScores.IsZero() || a.Windows > 0):
		return fmt.Errorf("pipelines: CoorDescent: scores and logits are the same range, want another one with chosen or windows")
	}
	bytes := CoorDescentScratch(c.kernels.dev.Caps(), a.Rows, a.N, a.BlockSize, a.Windows)
	if bytes == 0 && a.Scratch.IsZero() {
		return nil
	}
	return checkRange(op, "scratch", a.Scratch, vec4Align, bytes, "what CoorDescentScratch says")
}
