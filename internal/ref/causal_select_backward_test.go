package ref

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCausalSelectBackward(t *testing.T) {
	const b, n, window, k = 2, 14, 4, 2
	logits := coarse(1, b*n, 1)
	logits[5] = logits[4] // a tie
	indices, valid := CausalSelect(logits, b, n, window, k)
	dscore := normal(2, len(indices), 1)
	constant := slices.Clone(logits) // of which the thresholds are
	loss := func() (sum float64) {
		for slot, index := range indices {
			item, m := slot/(4*k), slot/k%4
			if valid[slot] == 0 {
				continue
			}
			before := slices.Clone(constant[item*n+(m-1)*window : item*n+m*window])
			slices.Sort(before)
			threshold := before[window-k]
			sum += float64(dscore[slot]) / (1 + math.Exp(float64(threshold)-float64(logits[item*n+int(index)])))
		}
		return sum
	}
	got := CausalSelectBackward(logits, indices, valid, dscore, b, n, window, k)
	got32 := CausalSelectBackward32(logits, indices, valid, dscore, b, n, window, k)
	checkGradient(t, "logits", logits, loss, got, got32)
	assert.NotEqual(t, make([]float64, b*n), got)
	assert.Equal(t, make([]float64, window), got[:window], "the first window has no queries")

	// Without a threshold there is no gradient.
	indices, valid = CausalSelect(logits, b, n, 2, 2)
	assert.Equal(t, make([]float64, b*n), CausalSelectBackward(logits, indices, valid, normal(3, len(indices), 1), b, n, 2, 2))
	assertPanics(t, "ref: CausalSelectBackward: len(dscore) is 1, want 28", func() {
		CausalSelectBackward(logits, indices, valid, dscore[:1], b, n, 2, 2)
	})
}
