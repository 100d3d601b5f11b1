package ref

// MeanPoolBackward is the gradient of [MeanPool].
//
//	dy [B, C]    mask [B, N], nil: all tokens    dx [B, N, C]
//	dx[b, i] = dy[b] / number of tokens of item b whose mask is not 0; 0 for masked tokens
func MeanPoolBackward(dy []float32, mask []uint8, b, n, c int) []float64 {
	return meanPoolBackward(convert[float64](dy), mask, b, n, c)
}

// MeanPoolBackward32 is [MeanPoolBackward] in plain float32.
func MeanPoolBackward32(dy []float32, mask []uint8, b, n, c int) []float32 {
	return meanPoolBackward(dy, mask, b, n, c)
}

func meanPoolBackward[T Float](dy []T, mask []uint8, b, n, c int) []T {
	checkLen("MeanPoolBackward", "dy", len(dy), b*c)
	checkOptional("MeanPoolBackward", "mask", mask, b*n)
	dx := make([]T, b*n*c)
	for item := range b {
		tokens := 0
		for i := range n {
			if isValid(mask, item*n+i) {
				tokens++
			}
		}
		for i := range n {
			if isValid(mask, item*n+i) {
				for j, v := range dy[item*c : (item+1)*c] {
					dx[(item*n+i)*c+j] = v / T(tokens)
				}
			}
		}
	}
	return dx
}
