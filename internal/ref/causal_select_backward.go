package ref

// CausalSelectBackward is the gradient of the scores of [CausalSelect], which are 1 in the forward pass. It is that of
// sigmoid(logit - threshold), where the threshold, the K-th largest logit of the previous window, is constant.
//
//	logits, dlogits [B, N]    indices, valid, dscore [B, M, K]    M = ceil(N / window)
//	dlogits[indices[k]] = dscore[k] * s * (1 - s)    s = sigmoid(logits[indices[k]] - threshold)
//
// Without a threshold, because windows have at most K tokens, the gradient is 0. So it is for empty slots.
func CausalSelectBackward(logits []float32, indices []int32, valid []uint8, dscore []float32, b, n, window, k int) []float64 {
	return causalSelectBackward(convert[float64](logits), nil, indices, valid, convert[float64](dscore), b, n, window, k)
}

// CausalSelectBackward32 is [CausalSelectBackward] in plain float32.
func CausalSelectBackward32(logits []float32, indices []int32, valid []uint8, dscore []float32, b, n, window, k int) []float32 {
	return causalSelectBackward(logits, nil, indices, valid, dscore, b, n, window, k)
}

// causalSelectBackward has a mask [B, N]: thresholds are those of the valid tokens of a window.
func causalSelectBackward[T Float](logits []T, mask []uint8, indices []int32, valid []uint8, dscore []T, b, n, window, k int) []T {
	const op = "CausalSelectBackward"
	windows := (n + window - 1) / window
	checkLen(op, "logits", len(logits), b*n)
	checkLen(op, "indices", len(indices), b*windows*k)
	checkLen(op, "valid", len(valid), b*windows*k)
	checkLen(op, "dscore", len(dscore), b*windows*k)
	dlogits := make([]T, b*n)
	for item := range b {
		for m := 1; m < windows; m++ {
			from := item*n + (m-1)*window
			before := logits[from : from+window]
			best := topIndices(before, maskSlice(mask, from, window), window)
			if len(best) <= k {
				continue
			}
			threshold := before[best[k-1]]
			for slot := (item*windows + m) * k; slot < (item*windows+m+1)*k; slot++ {
				if valid[slot] == 0 {
					continue
				}
				checkIndex(op, "indices", indices[slot], n)
				at := item*n + int(indices[slot])
				s := 1 / (1 + expT(threshold-logits[at]))
				dlogits[at] += dscore[slot] * s * (1 - s)
			}
		}
	}
	return dlogits
}
