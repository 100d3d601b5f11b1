package colt5

import (
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
)

// TestLengthsInBatch: sequences of different lengths that share a batch, padded and masked, get the outputs that each has
// in a call of its own, in every module with a mask of tokens.
func TestLengthsInBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	fx := newFixture(t)
	lengths := []int{smallN, 31, 9, 8, 1}
	ran := 0
	for _, s := range fx.testModules(F32) {
		if !s.masked || s.pixels != nil {
			continue
		}
		ran++
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			fx, items := fx.sub(t), len(lengths)
			v := s.randomInput(3, items, true)
			for i, n := range lengths {
				for j := range smallN {
					v.mask[i*smallN+j] = 0
					if j < n {
						v.mask[i*smallN+j] = 1
					}
				}
			}
			if v.contextMask != nil {
				for i := range v.contextMask {
					v.contextMask[i] = 1
				}
			}
			together := fx.run(s, items, v)
			width := len(together) / (items * smallN)
			for i, n := range lengths {
				alone, item := s, s.item(v, i, items)
				alone.x, alone.y = slices.Clone(s.x), slices.Clone(s.y)
				alone.x[0], alone.y[0] = n, n
				item.mask, item.contextMask = nil, nil
				item.x, item.ids = item.x[:min(len(item.x), n*smallDim)], item.ids[:min(len(item.ids), n)]
				assert.InDeltaSlice(t, fx.run(alone, 1, item), together[i*smallN*width:][:n*width], 1e-5, "%d tokens", n)
			}
		})
	}
	assert.GreaterOrEqual(t, ran, 4)
}
