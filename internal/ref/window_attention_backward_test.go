package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWindowAttentionBackward(t *testing.T) {
	const b, n, h, d = 2, 11, 2, 3
	for _, a := range []WindowAttentionArgs{{Window: 2}, {Window: 4, Causal: true}, {Window: 3, Causal: true, Exact: true},
		{Window: 16}} {
		for _, mask := range [][]uint8{nil, randomMask(4, b*n, 0.6), make([]uint8, b*n)} {
			a.QKV, a.Mask, a.B, a.N, a.Heads, a.DimHead = coarse(1, b*n*3*h*d, 1), mask, b, n, h, d
			dy := normal(2, b*n*h*d, 1)
			dqkv := WindowAttentionBackward(a, dy)
			checkGradient(t, "qkv", a.QKV, func() float64 { return lossOf(WindowAttention(a), dy) }, dqkv, WindowAttentionBackward32(a, dy))
			for token := range b * n {
				if !isValid(mask, token) {
					assert.Equal(t, make([]float64, 2*h*d), dqkv[(token*3+1)*h*d:(token*3+3)*h*d], "masked keys and values")
				}
			}
		}
	}
	a := WindowAttentionArgs{QKV: make([]float32, 6), B: 1, N: 1, Heads: 1, DimHead: 2, Window: 1}
	assertPanics(t, "ref: WindowAttentionBackward: len(dy) is 1, want 2", func() { WindowAttentionBackward(a, make([]float32, 1)) })
}

// TestAttentionBackwardLargeLogits checks that logits of some hundreds, and ties among the largest, give finite gradients.
func TestAttentionBackwardLargeLogits(t *testing.T) {
	a := WindowAttentionArgs{QKV: coarse(1, 9*3*2*4, 20), B: 1, N: 9, Heads: 2, DimHead: 4, Window: 4}
	copy(a.QKV[(3*3+1)*8:], a.QKV[(4*3+1)*8:(4*3+2)*8]) // tokens 3 and 4 have equal keys
	dy := normal(2, 9*2*4, 1)
	dqkv := WindowAttentionBackward(a, dy)
	for _, v := range dqkv {
		assert.False(t, v-v != 0)
	}
	assert.NoError(t, MaxErr(WindowAttentionBackward32(a, dy), dqkv).Within(1e-3))
}
