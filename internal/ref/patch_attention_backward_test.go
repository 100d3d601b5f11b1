package ref

import "testing"

func TestPatchAttentionBackward(t *testing.T) {
	for _, patch := range []int{1, 2, 3} {
		a := PatchAttentionArgs{QKV: coarse(1, 6*12*3*2*2, 1), Height: 6, Width: 12, Heads: 2, DimHead: 2, Patch: patch}
		dy := normal(2, 6*12*4, 1)
		checkGradient(t, "qkv", a.QKV, func() float64 { return lossOf(PatchAttention(a), dy) }, PatchAttentionBackward(a, dy), PatchAttentionBackward32(a, dy))
	}
	assertPanics(t, "ref: PatchAttentionBackward: len(dy) is 0, want 2", func() {
		PatchAttentionBackward(PatchAttentionArgs{QKV: make([]float32, 6), Height: 1, Width: 1, Heads: 1, DimHead: 2, Patch: 1}, nil)
	})
}
