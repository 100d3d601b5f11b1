package ref

import (
	"fmt"
	"math"
)

// CrossEntropyArgs are the arguments of [CrossEntropy].
type CrossEntropyArgs struct {
	Logits   []float32 // [Items, N, V]
	Labels   []int32   // [Items, N]; -1: ignored
	Items, N int
	V        int
	Upstream float32 // gradient of the sum of all losses
}

// CrossEntropyResult is the result of [CrossEntropy].
type CrossEntropyResult = CrossEntropyResultOf[float64]

// CrossEntropyResultOf is [CrossEntropyResult] in one precision.
type CrossEntropyResultOf[T Float] struct {
	Losses  []T // [Items, N]
	Sums    []T // [Items, 2]: the sum of an item's losses, and the number of its labels
	DLogits []T // [Items, N, V]
	Invalid int // labels outside -1..V-1
}

// CrossEntropy is the cross-entropy of logits with labels, and the gradient of Upstream times the sum of all losses.
//
//	loss = log(sum_i exp(logits[i])) - logits[label]
//	dlogits[i] = (exp(logits[i]) / sum_j exp(logits[j]) - (i == label)) * Upstream
//
// Loss and gradient are 0 for ignored and for invalid labels. A logit of -inf has probability 0. Rows with NaN, with +inf
// or with only -inf give NaN.
func CrossEntropy(a CrossEntropyArgs) CrossEntropyResult {
	return crossEntropy(a, convert[float64](a.Logits))
}

// CrossEntropy32 is [CrossEntropy] in plain float32.
func CrossEntropy32(a CrossEntropyArgs) CrossEntropyResultOf[float32] {
	return crossEntropy(a, a.Logits)
}

// crossEntropy reads logits in precision T; a.Logits is not used.
func crossEntropy[T Float](a CrossEntropyArgs, logits []T) CrossEntropyResultOf[T] {
	const op = "CrossEntropy"
	rows := a.Items * a.N
	checkLen(op, "logits", len(logits), rows*a.V)
	checkLen(op, "labels", len(a.Labels), rows)
	if a.V < 1 {
		panic(fmt.Sprintf("ref: %s: V is %d, want at least 1", op, a.V))
	}
	r := CrossEntropyResultOf[T]{Losses: make([]T, rows), Sums: make([]T, 2*a.Items), DLogits: make([]T, rows*a.V)}
	for row, label := range a.Labels {
		if label < 0 || int(label) >= a.V {
			if label != -1 {
				r.Invalid++
			}
			continue
		}
		x, dx := logits[row*a.V:(row+1)*a.V], r.DLogits[row*a.V:(row+1)*a.V]
		best := 0 // the largest, or one that is NaN
		for i, v := range x {
			if v > x[best] || v != v {
				best = i
			}
		}
		var rest T // the sum of exponentials, less the 1 of the largest logit
		for i, v := range x {
			if dx[i] = expT(v - x[best]); i != best { // NaN if the largest is infinite
				rest += dx[i]
			}
		}
		if math.IsInf(float64(x[best]), 0) {
			rest = T(math.NaN())
		}
		r.Losses[row] = x[best] - x[label] + T(math.Log1p(float64(rest)))
		for i := range dx {
			dx[i] /= 1 + rest
			if i == int(label) {
				dx[i]--
			}
			dx[i] *= T(a.Upstream)
		}
		r.Sums[row/a.N*2] += r.Losses[row]
		r.Sums[row/a.N*2+1]++
	}
	return r
}
