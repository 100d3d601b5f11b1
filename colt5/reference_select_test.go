package colt5

import (
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Comparisons of CoordinateDescent and TopK with the CPU reference, where no golden case exists.

// Logits of any rank, with one k for all rows and with a k for each.
func TestCoordinateDescentReference(t *testing.T) {
	c := Default[CoordinateDescentConfig]()
	c.K = 2.5
	rc := ref.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}
	for _, shape := range [][]int{{31}, {1, 31}, {6, 31}, {2, 3, 31}, {2, 1, 3, 31}} {
		for _, each := range []bool{false, true} {
			for _, masked := range []bool{false, true} {
				gputest.CountCase()
				t.Run(fmt.Sprint(shape, each, masked), func(t *testing.T) {
					fx, rows := newFixture(t), product(shape)/31
					s, k, o := normal(1, product(shape)), make([]float32, rows), CoordinateDescentOptions{}
					for i := range k {
						k[i] = float32(c.K)
						if each {
							k[i] = 0.5 + 1.75*float32(i)
						}
					}
					if each {
						lead := shape[:len(shape)-1]
						if len(lead) == 0 {
							lead = []int{1}
						}
						o.K = fx.floats(k, lead...)
					}
					var mask []uint8
					if masked {
						mask = randomMask(2, rows, 31)
						o.Mask = fx.bytes(mask, shape...)
					}
					d, y := mustNewWithoutWeights(fx, NewCoordinateDescent, c), fx.tensor(F32, shape...)
					require.NoError(t, d.Forward(t.Context(), y, fx.floats(s, shape...), o))
					fx.checkReference(fx.read(y), ref.Result{Y: ref.CoorDescentRows(s, mask, k, 31, rc)}, ref.ResultOf[float32]{Y: ref.CoorDescentRows32(s, mask, k, 31, rc)})
				})
			}
		}
	}
}

// The schedule of eps of a TopK.
func TestTopKSchedule(t *testing.T) {
	const rows, n = 3, 53
	x, mask := normal(1, rows*n), randomMask(2, rows, n)
	for _, schedule := range [][3]float64{{0.1, 0, 1}, {0.3, 4, 0.7}, {0.2, 2, 1}, {0.5, 0, 0.5}} {
		gputest.CountCase()
		fx, c := newFixture(t), Default[TopKConfig]()
		c.K, c.Eps, c.EpsInit, c.EpsDecay = 5, schedule[0], schedule[1], schedule[2]
		k, soft := mustNewWithoutWeights(fx, NewTopK, c), fx.tensor(F32, rows, 5)
		require.NoError(t, k.Forward(t.Context(), TopKResult{CoorDescentValues: soft}, fx.floats(x, rows, n), TopKOptions{Mask: fx.bytes(mask, rows, n)}))
		rc := ref.DefaultTopKConfig(5)
		rc.Eps, rc.EpsInit, rc.EpsDecay = c.Eps, c.EpsInit, c.EpsDecay
		fx.checkReference(fx.read(soft), ref.Result{Y: ref.TopK(x, mask, rows, n, rc).CoorDescentValues}, ref.ResultOf[float32]{Y: ref.TopK32(x, mask, rows, n, rc).CoorDescentValues})
	}
}

// A NaN of either sign ranks below minus infinity, for TopK and for routers.
func TestNaNRanksLast(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	negative := math.Float32frombits(math.Float32bits(nan) | 1<<31)
	x := []float32{nan, 1, negative, -inf, inf, 2}
	c := Default[TopKConfig]()
	c.K, c.NonDifferentiable = 6, true
	k, indices := mustNewWithoutWeights(fx, NewTopK, c), fx.tensor(I32, 6)
	require.NoError(t, k.Forward(t.Context(), TopKResult{Indices: indices}, fx.floats(x, 6), TopKOptions{}))
	got, err := indices.Int32(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []int32{4, 5, 1, 3, 0, 2}, got)

	rc := Default[RouterConfig]()
	rc.Dim = 1
	r := mustNew(fx, NewCoordinateDescentRouter, rc)
	require.NoError(t, r.Parameters()[0].Tensor.Write(t.Context(), []float32{1}))
	indices = fx.tensor(I32, 1, 1, 5)
	require.NoError(t, r.Forward(t.Context(), RouterResult{Indices: indices}, fx.floats(x, 1, 6, 1), 5, RouterOptions{}))
	got, err = indices.Int32(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []int32{4, 5, 1, 3, 0}, got)
}
