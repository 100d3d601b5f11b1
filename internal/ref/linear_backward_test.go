package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// checkLinearGradients compares the gradients of all arguments with finite differences.
func checkLinearGradients(t *testing.T, a LinearArgs, dy []float32) {
	t.Helper()
	loss := func() float64 { return lossOf(Linear(a), dy) }
	g, g32 := LinearBackward(a, dy), LinearBackward32(a, dy)
	for _, one := range []struct {
		name  string
		x     []float32
		got   []float64
		got32 []float32
	}{
		{"x", a.X, g.X, g32.X}, {"w", a.W, g.W, g32.W}, {"bias", a.Bias, g.Bias, g32.Bias}, {"gamma", a.Gamma, g.Gamma, g32.Gamma},
		{"residual", a.Residual, g.Residual, g32.Residual}, {"base", a.Base, g.Base, g32.Base},
	} {
		if one.x == nil {
			assert.Nil(t, one.got, one.name)
			continue
		}
		checkGradient(t, one.name, one.x, loss, one.got, one.got32)
	}
	for i, v := range a.Score { // a score of 0 skips the slot, which has no gradient
		if v == 0 {
			assert.Zero(t, g.Score[i])
		} else {
			checkGradient(t, "score", a.Score[i:i+1], loss, g.Score[i:i+1], g32.Score[i:i+1])
		}
	}
}

func TestLinearBackward(t *testing.T) {
	const in, out = 5, 7
	plain := LinearArgs{X: coarse(1, 3*in, 1), W: coarse(2, out*in, 1), Rows: 3, In: in, Out: out}
	t.Run("plain", func(t *testing.T) { checkLinearGradients(t, plain, normal(3, 3*out, 1)) })
	t.Run("bias and gelu", func(t *testing.T) {
		a := plain
		a.Bias, a.GELU, a.Gamma = coarse(4, out, 1), true, coarse(5, in, 1)
		checkLinearGradients(t, a, normal(3, 3*out, 1))
	})
	// Two items of four slots; list 1 of 2; a source row that two slots read, empty slots, a score of 0, rows that no slot
	// writes, and rows without bias.
	fused := LinearArgs{
		X: coarse(6, 2*6*in, 1), W: plain.W, Bias: coarse(7, out, 1), Gamma: coarse(8, in, 1), GELU: true,
		Batch: 2, InRows: 6, Rows: 4, OutRows: 5, In: in, Out: out, Lists: 2, List: 1,
		Gather:  []int32{9, 9, 9, 9, 2, 5, 2, 0, 9, 9, 9, 9, 0, 1, 2, 3},
		Score:   []float32{9, 9, 9, 9, 0.5, -1.25, 0, 1, 9, 9, 9, 9, 1, 0.25, 2, 3},
		Valid:   []uint8{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1},
		Scatter: []int32{4, 0, 1, 2, 3, 0, 0, 1}, SkipBias: []uint8{1, 0, 0, 0, 0, 0, 1, 0, 0, 0},
		Residual: coarse(9, 2*5*out, 1), Base: coarse(10, 2*5*out, 1),
	}
	t.Run("fused", func(t *testing.T) {
		checkLinearGradients(t, fused, normal(11, 2*5*out, 1))
		shared := fused
		shared.Gather = []int32{9, 9, 9, 9, 2, 2, 9, 2, 9, 9, 9, 9, 0, 0, 9, 0}
		checkLinearGradients(t, shared, normal(11, 2*5*out, 1))
	})
	t.Run("products", func(t *testing.T) {
		dy := normal(11, 2*5*out, 1)
		g := LinearBackward(fused, dy)
		for slot, want := range []bool{true, true, false, true, true, true, false, true} {
			assert.Equal(t, want, g.Product[slot*out] != 0, "slot %d", slot)
			assert.Equal(t, want, g.Normalised[slot*in] != 0, "slot %d", slot)
		}
		assert.Zero(t, g.Score[0], "another list")
	})
	t.Run("rounding", func(t *testing.T) {
		a := LinearArgs{X: []float32{1.25, 2}, W: []float32{3.5, 1}, Rows: 1, In: 2, Out: 1,
			RoundOperands: func(v float32) float32 { return float32(math.Floor(float64(v))) }}
		g := LinearBackward(a, []float32{2.5})
		assert.Equal(t, []float64{6, 2}, g.X, "floor(2.5) * floor(w)")
		assert.Equal(t, []float64{2, 4}, g.W, "floor(2.5) * floor(x)")
		assert.Equal(t, []float64{2.5}, g.Product)
	})
	assertPanics(t, "ref: LinearBackward: len(dy) is 1, want 21", func() { LinearBackward(plain, make([]float32, 1)) })
}
