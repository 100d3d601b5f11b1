package ref

import (
	"math"
	"testing"
)

func TestPatchEmbed(t *testing.T) {
	// One item, 2 channels of 2 x 4 pixels, patches of 2 x 2 pixels. Both channels of a pixel are adjacent in y.
	a := PatchEmbedArgs{
		X:      []float32{1, 2, 5, 6, 3, 4, 7, 8, -1, -2, -5, -6, -3, -4, -7, -8},
		Weight: []float32{1, 1, 1, 1, 1, 1, 1, 2}, Bias: []float32{0, 0, 0, 0, 0, 0, 10, 0},
		B: 1, Channels: 2, Height: 2, Width: 4, PatchHeight: 2, PatchWidth: 2,
	}
	var want []float64
	for _, patch := range [][]float64{{1, -1, 2, -2, 3, -3, 4, -4}, {5, -5, 6, -6, 7, -7, 8, -8}} { // both have mean 0
		var squares float64
		for _, v := range patch {
			squares += v * v
		}
		for _, v := range patch {
			want = append(want, v/math.Sqrt(squares/8+1e-5))
		}
		want[len(want)-2] += 10
		want[len(want)-1] *= 2
	}
	assertNear(t, want, PatchEmbed(a), PatchEmbed32(a))

	for _, bad := range []struct {
		want   string
		change func(*PatchEmbedArgs)
	}{
		{"ref: PatchEmbed: len(x) is 16, want 32", func(a *PatchEmbedArgs) { a.B = 2 }},
		{"ref: PatchEmbed: len(weight) is 7, want 8", func(a *PatchEmbedArgs) { a.Weight = a.Weight[1:] }},
		{"ref: PatchEmbed: len(bias) is 7, want 8", func(a *PatchEmbedArgs) { a.Bias = a.Bias[1:] }},
		{"ref: PatchEmbed: len(Height in whole patches) is 0, want 2", func(a *PatchEmbedArgs) { a.PatchHeight, a.PatchWidth = 4, 1 }},
		{"ref: PatchEmbed: len(Width in whole patches) is 0, want 4", func(a *PatchEmbedArgs) { a.PatchHeight, a.PatchWidth, a.Channels, a.Height = 1, 8, 1, 4 }},
	} {
		a := a
		bad.change(&a)
		assertPanics(t, bad.want, func() { PatchEmbed(a) })
	}
}
