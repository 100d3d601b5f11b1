package ref

// PermuteBackward is the gradient of [Permute]: the inverse permutation.
//
//	dx[sum_a i_a * strides[a]] = dy[i_0, i_1, ..]    dy is row-major with the given shape
func PermuteBackward[T Float](dy []T, shape, strides []int) []T {
	places := make([]int, len(dy))
	for i := range places {
		places[i] = i
	}
	dx := make([]T, len(dy))
	for i, place := range Permute(places, shape, strides) {
		dx[place] = dy[i]
	}
	return dx
}
