package ref

// TreeSum is the sum of the items of x [Items, C] in the balanced binary tree of their numbers: the first power of two
// items that is at least half of them, plus the rest, and so on in both parts.
func TreeSum(x []float32, c int) []float64 { return treeSum(convert[float64](x), c) }

// TreeSum32 is [TreeSum] in float32. It has the bits of every computation that adds in this order.
func TreeSum32(x []float32, c int) []float32 { return treeSum(x, c) }

func treeSum[T Float](x []T, c int) []T {
	checkLen("TreeSum", "x", len(x), max(len(x)/c, 1)*c)
	items, half := len(x)/c, 1
	if items == 1 {
		return append([]T(nil), x...)
	}
	for 2*half < items {
		half *= 2
	}
	y := treeSum(x[:half*c], c)
	for i, v := range treeSum(x[half*c:], c) {
		y[i] += v
	}
	return y
}
