package ref

// Permute reads x with strides.
//
//	y[i_0, i_1, ..] = x[sum_a i_a * strides[a]]    y is row-major with the given shape
func Permute[E any](x []E, shape, strides []int) []E {
	count := 1
	for _, n := range shape {
		count *= n
	}
	checkLen("Permute", "x", len(x), count)
	y := make([]E, 0, count)
	var walk func(axis, from int)
	walk = func(axis, from int) {
		if axis == len(shape) {
			y = append(y, x[from])
			return
		}
		for i := range shape[axis] {
			walk(axis+1, from+i*strides[axis])
		}
	}
	walk(0, 0)
	return y
}
