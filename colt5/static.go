package colt5

import (
	"errors"
	"fmt"
	"math"
)

// staticLists sets a router's lists to evenly spaced tokens.
func (b *builder) staticLists(c *routerState) {
	if b.given("Mask") || b.given("ContextMask") {
		b.fail(errors.New("static routing has a mask, want none: the tokens are spaced on the host"))
		return
	}
	half := (c.lists()*c.k + 3) / 4 * 4 // each half is aligned
	lists := b.table(tableKey{name: fmt.Sprintf("static lists %+v", c.selectionShape)}, 2*half, func() []float32 {
		return c.evenlySpaced(half)
	})
	size := 4 * uint64(c.lists()*c.k)
	if !lists.IsZero() {
		c.indices, c.valid = allocation{Range: lists.Slice(0, size)}, allocation{Range: lists.Slice(4*uint64(half), size)}
	}
}

// evenlySpaced returns the words of indices, and from element half on those of the valid words. Of n tokens, the i-th of k is
// number floor(i * n / k); all if there are no more than k.
func (s selectionShape) evenlySpaced(half int) []float32 {
	words := make([]float32, 2*half)
	for first := 0; first < s.lists()*s.k; first += s.perBlock {
		from, to := s.selectable(first/s.k, first%s.k/s.perBlock)
		n := to - from
		for i := range min(n, s.perBlock) {
			token := from + i
			if n > s.perBlock {
				token = from + i*n/s.perBlock
			}
			words[first+i], words[half+first+i] = math.Float32frombits(uint32(token)), 1
		}
	}
	return words
}
