package ref

// PatchAttentionArgs are the arguments of [PatchAttention].
type PatchAttentionArgs = PatchAttentionArgsOf[float32]

// PatchAttentionArgsOf is [PatchAttentionArgs] with tensors of one precision.
type PatchAttentionArgsOf[T Float] struct {
	QKV           []T // [Height, Width, 3, Heads, DimHead]
	Height, Width int // multiples of Patch
	Heads         int
	DimHead       int
	Patch         int // side of a patch in pixels
	Round         Rounding
}

// PatchAttention is full attention within each patch of Patch by Patch pixels.
//
//	y [Height, Width, Heads, DimHead]
//	y[i] = sum_j softmax_j(q[i] . k[j] / sqrt(DimHead)) v[j]    over the pixels j of the patch of pixel i
func PatchAttention(a PatchAttentionArgs) []float64 { return patchAttention(convertPatch[float64](a)) }

// PatchAttention32 is [PatchAttention] in plain float32.
func PatchAttention32(a PatchAttentionArgs) []float32 { return patchAttention(a) }

// convertPatch returns the arguments in precision T.
func convertPatch[T Float](a PatchAttentionArgs) PatchAttentionArgsOf[T] {
	return PatchAttentionArgsOf[T]{
		QKV: convert[T](a.QKV), Height: a.Height, Width: a.Width, Heads: a.Heads, DimHead: a.DimHead, Patch: a.Patch, Round: a.Round,
	}
}

func patchAttention[T Float](a PatchAttentionArgsOf[T]) []T {
	row := a.Heads * a.DimHead
	checkLen("PatchAttention", "QKV", len(a.QKV), a.Height*a.Width*3*row)
	y := make([]T, a.Height*a.Width*row)
	parallel(a.Height*a.Width, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			visible := a.visible(i)
			for h := range a.Heads {
				var keys, values [][]T
				for _, j := range visible {
					keys, values = append(keys, a.part(a.QKV, j, 1, h)), append(values, a.part(a.QKV, j, 2, h))
				}
				attendQuery(y[i*row+h*a.DimHead:][:a.DimHead], a.part(a.QKV, i, 0, h), keys, values, nil, 1, false, false, a.Round)
			}
		}
	})
	return y
}

// part returns a pixel's query (part 0), key (1) or value (2) of a head in a tensor with the layout of QKV.
func (a PatchAttentionArgsOf[T]) part(qkv []T, pixel, part, head int) []T {
	return qkv[((pixel*3+part)*a.Heads+head)*a.DimHead:][:a.DimHead]
}

// visible returns the pixels of the patch of a pixel.
func (a PatchAttentionArgsOf[T]) visible(i int) []int {
	top, left := i/a.Width/a.Patch*a.Patch, i%a.Width/a.Patch*a.Patch
	pixels := make([]int, a.Patch*a.Patch)
	for n := range pixels {
		pixels[n] = (top+n/a.Patch)*a.Width + left + n%a.Patch
	}
	return pixels
}
