package ref

import "testing"

func TestPatchAttentionBackward(t *testing.T) {
	for _, patch := range []int{1, 2, 3} {
		a := PatchAttentionArgs{Height: 6 / patch * patch, Width: 2 * patch, Heads: 2, DimHead: 2, Patch: patch}
		pixels := a.Height * a.Width
		a.QKV = coarse(1, pixels*3*4, 1)
		dy := normal(2, pixels*4, 1)
		loss := func() float64 { return lossOf(PatchAttention(a), dy) }
		checkGradient(t, "qkv", a.QKV, loss, PatchAttentionBackward(a, dy), PatchAttentionBackward32(a, dy))
	}
	assertPanics(t, "ref: PatchAttentionBackward: len(dy) is 0, want 2", func() {
		PatchAttentionBackward(PatchAttentionArgs{QKV: make([]float32, 6), Height: 1, Width: 1, Heads: 1, DimHead: 2, Patch: 1}, nil)
	})
}
