package colt5

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// The limits of sizes, which doc.go lists. They follow from the kernels, and are checked here in the words of the
// configurations: the fields when a module is made, the sizes of a call while its workspace is laid out. Both are common
// to Forward and Memory, so that neither accepts what the other refuses.
const (
	maxRow     = 1<<30 - 1 // elements of a row: kernels count its bytes in 32 bits
	maxRow16   = 1<<27 - 1 // the same of a weight with 16-bit elements
	maxWindow  = 1<<30 - 1 // tokens of a sequence and of a window: kernels add a position and a window in 32 bits
	maxSelect  = 1 << 28   // tokens that a router selects from
	maxHeads   = 1 << 16
	maxDimHead = 128
	maxPatch   = 1024 // pixels of a side
	maxDepth   = 1 << 14
	maxPooled  = 520_000 // tokens whose mean is taken
	maxSum     = 1 << 34 // elements of a sum of two tensors
	maxRows    = math.MaxInt32
	maxIters   = 1 << 16 // of coordinate descent
	maxGroups  = 1 << 17 // groups of rows, in all layers: each is recorded, so more would take long and much memory
)

// maxBytes is more than any device has. Sums of sizes end there, so that they never wrap; Memory reports them as an error.
const maxBytes = 1 << 60

// The ranges of the real numbers of coordinate descent, in which the products and quotients of its kernel are finite.
const (
	minEps, maxEps = 1e-30, 1e30
	minK, maxK     = 1e-6, 1e30
)

// limitGroups counts groups of rows, and reports whether there are too many. A layer asks before it makes them.
func (b *builder) limitGroups(count int) bool {
	if b.groups += count; b.groups > maxGroups {
		b.fail(fmt.Errorf("%w: the call needs more than %d groups of rows, want fewer tokens or a smaller hidden size", vk.ErrOutOfMemory, maxGroups))
	}
	return b.err != nil
}

// limitRow checks the logits of a row for coordinate descent.
func (b *builder) limitRow(n int) {
	if n > maxRow {
		b.fail(fmt.Errorf("a row has %d logits, want at most %d", n, maxRow))
	}
}

// limitTokens checks the tokens of a sequence for an attention to windows.
func (b *builder) limitTokens(n int) {
	if n > maxWindow {
		b.fail(fmt.Errorf("a sequence has %d tokens, want at most %d", n, maxWindow))
	}
}

// limitPooled checks the tokens of an item whose mean is taken.
func (b *builder) limitPooled(n int) {
	if n > maxPooled {
		b.fail(fmt.Errorf("the mean is of %d tokens, want at most %d", n, maxPooled))
	}
}

// limitSum checks the elements of a sum of two tensors.
func (b *builder) limitSum(n int) {
	if n > maxSum {
		b.fail(fmt.Errorf("the sum has %d elements, want at most %d", n, maxSum))
	}
}

// limitHeads checks the rows of heads that an attention reads, parts of them for each token.
func (b *builder) limitHeads(tokens, parts, heads int) {
	if rows := float64(tokens) * float64(parts) * float64(heads); rows > math.MaxUint32 {
		b.fail(fmt.Errorf("an attention reads %d tokens with %d heads each, want at most %d heads in all", tokens, parts*heads, uint32(math.MaxUint32)))
	}
}

// limitSelection checks the selection of a router, or of a TopK.
func (b *builder) limitSelection(rows, n, segments int) {
	switch {
	case n > maxSelect:
		b.fail(fmt.Errorf("%d tokens or entries to select from, want at most %d", n, maxSelect))
	case rows > maxRows || float64(rows)*float64(segments) > maxRows:
		b.fail(fmt.Errorf("%d batch items and routes with %d blocks or windows each, want at most %d in all", rows, segments, maxRows))
	}
}
