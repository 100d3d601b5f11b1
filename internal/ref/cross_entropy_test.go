package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCrossEntropy(t *testing.T) {
	a := CrossEntropyArgs{Logits: coarse(1, 2*3*5, 2), Labels: []int32{0, 4, -1, 2, 5, 2}, Items: 2, N: 3, V: 5, Upstream: 1.5}
	loss := func() (sum float64) {
		for _, v := range CrossEntropy(a).Losses {
			sum += v * float64(a.Upstream)
		}
		return sum
	}
	r, r32 := CrossEntropy(a), CrossEntropy32(a)
	checkGradient(t, "logits", a.Logits, loss, r.DLogits, r32.DLogits)
	assertNear(t, r.Losses, r.Losses, r32.Losses)
	assert.InDeltaSlice(t, []float64{r.Losses[0] + r.Losses[1], 2, r.Losses[3] + r.Losses[5], 2}, r.Sums, 1e-12)
	assert.Equal(t, 1, r.Invalid, "label 5")
	assert.Equal(t, make([]float64, 5), r.DLogits[2*5:3*5], "an ignored label")
	assert.Equal(t, make([]float64, 5), r.DLogits[4*5:5*5], "an invalid label")
	a.Labels = a.Labels[:1]
	assertPanics(t, "ref: CrossEntropy: len(labels) is 1, want 6", func() { CrossEntropy(a) })
}

// Probabilities 1/2, 1/4, 1/4 at any offset, and excluded classes.
func TestCrossEntropyByHand(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, offset := range []float32{0, 1e4} {
		x := []float32{offset, -inf, offset - log(2), offset - log(2)}
		for label, want := range map[int32]float64{0: math.Log(2), 2: math.Log(4)} {
			r := CrossEntropy(CrossEntropyArgs{Logits: x, Labels: []int32{label}, Items: 1, N: 1, V: 4, Upstream: 2})
			assert.InDelta(t, want, r.Losses[0], 1e-3)
			gradient := []float64{1, 0, 0.5, 0.5}
			gradient[label] -= 2
			assert.InDeltaSlice(t, gradient, r.DLogits, 1e-3)
		}
	}
	r := CrossEntropy(CrossEntropyArgs{Logits: []float32{1e30, -1e30, 3}, Labels: []int32{1}, Items: 1, N: 1, V: 3, Upstream: 1})
	assert.InEpsilon(t, 2e30, r.Losses[0], 1e-6)
	assert.Equal(t, []float64{1, -1, 0}, r.DLogits)
	r = CrossEntropy(CrossEntropyArgs{Logits: []float32{-inf, 3}, Labels: []int32{0}, Items: 1, N: 1, V: 2, Upstream: 1})
	assert.True(t, math.IsInf(r.Losses[0], 1), "the label is excluded")
	for _, x := range [][]float32{{inf, 1}, {-inf, -inf}, {float32(math.NaN()), 1}} {
		assert.True(t, math.IsNaN(CrossEntropy(CrossEntropyArgs{Logits: x, Labels: []int32{1}, Items: 1, N: 1, V: 2}).Losses[0]), x)
	}
}
