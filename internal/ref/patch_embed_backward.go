package ref

// PatchEmbedGrads are the gradients of [PatchEmbed]. Shapes are those of the arguments.
type PatchEmbedGrads = PatchEmbedGradsOf[float64]

// PatchEmbedGradsOf is [PatchEmbedGrads] in one precision.
type PatchEmbedGradsOf[T Float] struct{ X, Weight, Bias []T }

// PatchEmbedBackward is the gradient of [PatchEmbed]: [LayerNormBackward] of each patch, back in the place of the patch.
//
//	dy [patches, PatchHeight * PatchWidth * Channels]
func PatchEmbedBackward(a PatchEmbedArgs, dy []float32) PatchEmbedGrads {
	return patchEmbedBackward(a, convert[float64](a.X), convert[float64](dy))
}

// PatchEmbedBackward32 is [PatchEmbedBackward] in plain float32.
func PatchEmbedBackward32(a PatchEmbedArgs, dy []float32) PatchEmbedGradsOf[float32] {
	return patchEmbedBackward(a, a.X, dy)
}

// patchEmbedBackward reads x and dy in precision T; a.X is not used.
func patchEmbedBackward[T Float](a PatchEmbedArgs, x, dy []T) PatchEmbedGradsOf[T] {
	const op = "PatchEmbedBackward"
	length := a.PatchHeight * a.PatchWidth * a.Channels
	checkLen(op, "x", len(x), a.B*a.Channels*a.Height*a.Width)
	checkLen(op, "weight", len(a.Weight), length)
	checkLen(op, "bias", len(a.Bias), length)
	checkLen(op, "dy", len(dy), len(x))
	weight := convert[T](a.Weight)
	g := PatchEmbedGradsOf[T]{X: make([]T, len(x)), Weight: make([]T, length), Bias: make([]T, length)}
	patch, dpatch := make([]T, length), make([]T, length)
	columns, patches := a.Width/a.PatchWidth, a.Height/a.PatchHeight*(a.Width/a.PatchWidth)
	for row := range a.B * patches {
		item, top, left := row/patches, row%patches/columns*a.PatchHeight, row%columns*a.PatchWidth
		place := func(i int) int {
			y, x, channel := i/a.Channels/a.PatchWidth, i/a.Channels%a.PatchWidth, i%a.Channels
			return ((item*a.Channels+channel)*a.Height+top+y)*a.Width + left + x
		}
		for i := range patch {
			patch[i] = x[place(i)]
		}
		layerNormRowBackward(dpatch, g.Weight, g.Bias, patch, weight, dy[row*length:(row+1)*length])
		for i, v := range dpatch {
			g.X[place(i)] = v
		}
	}
	return g
}
