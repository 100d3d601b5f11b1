package ref

// CausalSelect selects the first K tokens of each window whose logit is at least the K-th largest logit of the previous
// window. If windows have at most K tokens, it selects all. Window 0 selects none.
//
//	logits [B, N]    indices, valid [B, M, K]    M = ceil(N / window)
func CausalSelect(logits []float32, b, n, window, k int) (indices []int32, valid []uint8) {
	checkLen("CausalSelect", "logits", len(logits), b*n)
	windows := (n + window - 1) / window
	indices, valid = make([]int32, b*windows*k), make([]uint8, b*windows*k)
	for item := range b {
		row := logits[item*n : (item+1)*n]
		for m := 1; m < windows; m++ {
			before := row[(m-1)*window : m*window]
			best := topIndices(before, nil, k)
			slot := (item*windows + m) * k
			taken := 0
			for i := m * window; i < min((m+1)*window, n) && taken < k; i++ {
				if window > k && !(row[i] >= before[best[k-1]]) {
					continue
				}
				indices[slot+taken], valid[slot+taken] = int32(i), 1
				taken++
			}
		}
	}
	return indices, valid
}
