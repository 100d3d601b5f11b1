package ref

import "github.com/colt5-vulkan/colt5/internal/half"

// Cast converts rows to F16, or to BF16 with bf16, and pads them with zeros.
//
//	x [Rows, C]    y [Rows, columns], columns >= C
func Cast(x []float32, c, columns int, bf16 bool) []uint16 {
	const op = "Cast"
	checkLen(op, "x", len(x), len(x)/c*c)
	y := make([]uint16, len(x)/c*columns)
	for i, v := range x {
		to := &y[i/c*columns+i%c]
		if *to = half.ToF16(v); bf16 {
			*to = half.ToBF16(v)
		}
	}
	return y
}
