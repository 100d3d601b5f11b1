package ref

// CoorDescentWindows descends on prefixes of each row: window m on the first
// min(m * prefix, n) entries, whatever m with the same k.
//
//	s [Items * Routes, N]    mask [Items, N] optional    score [Items, Windows, Routes, N], 0 beyond the prefix
func CoorDescentWindows(s []float32, mask []uint8, items, routes, n, windows, prefix int, c CoorDescentConfig) []float64 {
	return coorDescentWindows(convert[float64](s), mask, items, routes, n, windows, prefix, c)
}

// CoorDescentWindows32 is [CoorDescentWindows] in plain float32.
func CoorDescentWindows32(s []float32, mask []uint8, items, routes, n, windows, prefix int, c CoorDescentConfig) []float32 {
	return coorDescentWindows(s, mask, items, routes, n, windows, prefix, c)
}

func coorDescentWindows[T Float](s []T, mask []uint8, items, routes, n, windows, prefix int, c CoorDescentConfig) []T {
	checkLen("CoorDescentWindows", "s", len(s), items*routes*n)
	checkOptional("CoorDescentWindows", "mask", mask, items*n)
	score := make([]T, items*windows*routes*n)
	at := 0
	for item := range items {
		for window := range windows {
			seen := min(window*prefix, n)
			for route := range routes {
				row := (item*routes + route) * n
				copy(score[at:], coorDescent(s[row:row+seen], maskSlice(mask, item*n, seen), 1, seen, c))
				at += n
			}
		}
	}
	return score
}

// ChosenScores picks the scores of chosen entries, and 0 for slots that are not filled or whose index is none.
//
//	scores [Rows, N]    indices [Rows, Slots]    filled [Rows, Slots] optional    chosen [Rows, Slots]
func SelectedScores[T Float](scores []T, indices []int32, valid []uint32, rows, n, slots int) []T {
	checkLen("ChosenScores", "scores", len(scores), rows*n)
	checkLen("ChosenScores", "indices", len(indices), rows*slots)
	checkOptional("ChosenScores", "filled", valid, rows*slots)
	selected := make([]T, rows*slots)
	for i, index := range indices {
		if index >= 0 && int(index) < n && (valid == nil || valid[i] != 0) {
			selected[i] = scores[i/slots*n+int(index)]
		}
	}
	return selected
}
