package ref

import "testing"

// TestPatchAttention has keys 0, so the result is the mean of the values of the patch.
func TestPatchAttention(t *testing.T) {
	const h, w = 4, 6
	qkv := make([]float32, 3*h*w)
	for i := range h * w {
		qkv[3*i], qkv[3*i+2] = 1, float32(i)
	}
	want := make([]float64, h*w)
	for i := range want {
		want[i] = float64(i/w/2*2*w+i%w/2*2) + (0+1+w+w+1)/4.
	}
	a := PatchAttentionArgs{QKV: qkv, Height: h, Width: w, Heads: 1, DimHead: 1, Patch: 2}
	assertNear(t, want, PatchAttention(a), PatchAttention32(a))
	assertPanics(t, "ref: PatchAttention: len(QKV) is 72, want 144", func() { a.Heads = 2; PatchAttention(a) })

	// With patches of one pixel the result is the value itself.
	a.Heads, a.Patch, a.QKV = 1, 1, normal(1, 3*h*w, 30)
	for i := range want {
		want[i] = float64(a.QKV[3*i+2])
	}
	assertNear(t, want, PatchAttention(a), PatchAttention32(a))
}
