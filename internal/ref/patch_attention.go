package ref

// PatchAttentionArgs are the arguments of [PatchAttention].
type PatchAttentionArgs struct {
	QKV           []float32 // [Height, Width, 3, Heads, DimHead]
	Height, Width int       // multiples of Patch
	Heads         int
	DimHead       int
	Patch         int // side of a patch in pixels
	Round         Rounding
}

// PatchAttention is full attention within each patch of Patch by Patch pixels.
//
//	y [Height, Width, Heads, DimHead]
//	y[i] = sum_j softmax_j(q[i] . k[j] / sqrt(DimHead)) v[j]    over the pixels j of the patch of pixel i
func PatchAttention(a PatchAttentionArgs) []float64 { return patchAttention[float64](a) }

// PatchAttention32 is [PatchAttention] in plain float32.
func PatchAttention32(a PatchAttentionArgs) []float32 { return patchAttention[float32](a) }

func patchAttention[T Float](a PatchAttentionArgs) []T {
	row := a.Heads * a.DimHead
	checkLen("PatchAttention", "QKV", len(a.QKV), a.Height*a.Width*3*row)
	qkv, y := convert[T](a.QKV), make([]T, a.Height*a.Width*row)
	part := func(pixel, part, head int) []T { return qkv[(pixel*3+part)*row+head*a.DimHead:][:a.DimHead] }
	parallel(a.Height*a.Width, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			top, left := i/a.Width/a.Patch*a.Patch, i%a.Width/a.Patch*a.Patch
			pixel := func(n int) int { return (top+n/a.Patch)*a.Width + left + n%a.Patch }
			for h := range a.Heads {
				var keys, values [][]T
				for n := range a.Patch * a.Patch {
					keys, values = append(keys, part(pixel(n), 1, h)), append(values, part(pixel(n), 2, h))
				}
				attendQuery(y[i*row+h*a.DimHead:][:a.DimHead], part(i, 0, h), keys, values, nil, 1, false, false, a.Round)
			}
		}
	})
	return y
}
