package ref

// PatchEmbedArgs are the arguments of [PatchEmbed].
type PatchEmbedArgs struct {
	X                       []float32 // [B, Channels, Height, Width]
	Weight, Bias            []float32 // [PatchHeight * PatchWidth * Channels]
	B                       int
	Channels, Height, Width int
	PatchHeight, PatchWidth int // divisors of Height and Width
}

// PatchEmbed splits images into patches and applies [LayerNorm] to each. A row of y is a patch with layout
// [PatchHeight, PatchWidth, Channels]. Patches are row-major within the image.
//
//	x [B, Channels, Height, Width]    y [B * Height/PatchHeight * Width/PatchWidth, PatchHeight * PatchWidth * Channels]
func PatchEmbed(a PatchEmbedArgs) []float64 { return patchEmbed[float64](a) }

// PatchEmbed32 is [PatchEmbed] in plain float32.
func PatchEmbed32(a PatchEmbedArgs) []float32 { return patchEmbed[float32](a) }

func patchEmbed[T Float](a PatchEmbedArgs) []T {
	const op = "PatchEmbed"
	length := a.PatchHeight * a.PatchWidth * a.Channels
	checkLen(op, "x", len(a.X), a.B*a.Channels*a.Height*a.Width)
	checkLen(op, "weight", len(a.Weight), length)
	checkLen(op, "bias", len(a.Bias), length)
	checkLen(op, "Height in whole patches", a.Height/a.PatchHeight*a.PatchHeight, a.Height)
	checkLen(op, "Width in whole patches", a.Width/a.PatchWidth*a.PatchWidth, a.Width)
	weight, bias := convert[T](a.Weight), convert[T](a.Bias)
	y := make([]T, 0, len(a.X))
	for b := range a.B {
		for top := 0; top < a.Height; top += a.PatchHeight {
			for left := 0; left < a.Width; left += a.PatchWidth {
				first := len(y)
				for i := top; i < top+a.PatchHeight; i++ {
					for j := left; j < left+a.PatchWidth; j++ {
						for c := range a.Channels {
							y = append(y, T(a.X[((b*a.Channels+c)*a.Height+i)*a.Width+j]))
						}
					}
				}
				layerNormRow(y[first:], weight, bias)
			}
		}
	}
	return y
}
