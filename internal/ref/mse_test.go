package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMSE(t *testing.T) {
	y, target := coarse(1, 3*5, 1), coarse(2, 3*5, 1)
	const count, upstream = 40, 1.5
	loss := func() (sum float64) {
		losses, _ := MSE(y, target, 3, count, upstream)
		return lossOf(losses, []float32{upstream, upstream, upstream})
	}
	_, dy := MSE(y, target, 3, count, upstream)
	_, dy32 := MSE32(y, target, 3, count, upstream)
	checkGradient(t, "y", y, loss, dy, dy32)

	losses, dy := MSE([]float32{1, 2, 3, 4}, []float32{1, 0, 3, 1}, 2, 4, 1)
	assert.Equal(t, []float64{1, 2.25}, losses)
	assert.Equal(t, []float64{0, 1, 0, 1.5}, dy)
	assertPanics(t, "ref: MSE: len(target) is 1, want 15", func() { MSE(y, target[:1], 3, 1, 1) })
}
