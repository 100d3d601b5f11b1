package ref

import "testing"

func TestPatchEmbedBackward(t *testing.T) {
	a := PatchEmbedArgs{X: coarse(1, 2*3*4*6, 1), Weight: coarse(2, 18, 1), Bias: coarse(3, 18, 1), B: 2, Channels: 3,
		Height: 4, Width: 6, PatchHeight: 2, PatchWidth: 3}
	dy := normal(4, len(a.X), 1)
	loss := func() float64 { return lossOf(PatchEmbed(a), dy) }
	g, g32 := PatchEmbedBackward(a, dy), PatchEmbedBackward32(a, dy)
	checkGradient(t, "x", a.X, loss, g.X, g32.X)
	checkGradient(t, "weight", a.Weight, loss, g.Weight, g32.Weight)
	checkGradient(t, "bias", a.Bias, loss, g.Bias, g32.Bias)
	assertPanics(t, "ref: PatchEmbedBackward: len(dy) is 1, want 144", func() { PatchEmbedBackward(a, dy[:1]) })
}
