package colt5

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The defects of coordinate descent, top-k and routers; see defects_test.go.

// Defect: ties at score 1 are broken arbitrarily. Here selection is by logits, and of equal logits the lower index is
// selected.
func TestDefect05TiesAreArbitrary(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.Dim, config.FetchKRatio = smallDim, 2
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	fx.setParameter(r, "routing_token", unitVector(smallDim, 0))
	const n, k = 40, 9
	out := RouterResult{Indices: fx.tensor(I32, 1, 1, k), SoftScores: fx.tensor(F32, 1, 1, n)}
	logits := shuffled(1, n)
	require.NoError(t, r.Forward(t.Context(), out, fx.floats(tokensWithChannels(2, smallDim, logits), 1, n, smallDim), k, RouterOptions{}))
	saturated := 0
	for _, s := range fx.read(out.SoftScores) {
		if s == 1 {
			saturated++
		}
	}
	assert.Greater(t, saturated, k, "no ties at score 1")
	for i, index := range fx.readInts(out.Indices) {
		assert.Equal(t, float32(n-1-i), logits[index])
	}
	// Many ties: 3 tokens with logit 9, and the first 6 of those with logit 2.
	for i := range logits {
		logits[i] = float32(min(i%8, 2))
	}
	for i := range 3 {
		logits[8*i+1+i] = 9
	}
	require.NoError(t, r.Forward(t.Context(), out, fx.floats(tokensWithChannels(2, smallDim, logits), 1, n, smallDim), k, RouterOptions{}))
	want := ref.Select(logits, nil, 1, n, k).Indices
	assert.Equal(t, []int32{1, 10, 19}, want[:3])
	assert.Equal(t, want, fx.readInts(out.Indices))

	// In a module, with all logits equal.
	a := fx.heavyOnly(nil)
	y := fx.attention(a, tokensWithChannels(3, smallDim, make([]float32, 30)), 1, nil)
	assert.Equal(t, []int{0, 1, 2, 3, 4, 5}, rowsNotEqual(y, fx.parameters(a.Parameters())["null_q_token"]))
}

// Defect: top-k ignores its mask in the selection.
func TestDefect10TopKIgnoresMask(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[TopKConfig]()
	config.K = 3
	k := mustNewWithoutWeights(fx, NewTopK, config)
	x := []float32{9, 1, 8, 2, 7, 3}
	out := TopKResult{fx.tensor(F32, 1, 3), fx.tensor(I32, 1, 3), fx.tensor(F32, 1, 3), fx.tensor(F32, 1, 3)}
	require.NoError(t, k.Forward(t.Context(), out, fx.floats(x, 1, 6), TopKOptions{Mask: fx.bytes([]uint8{0, 1, 0, 1, 1, 1}, 1, 6)}))
	assert.Equal(t, []int32{4, 5, 3}, fx.readInts(out.Indices))
	assert.Equal(t, []float32{7, 3, 2}, fx.read(out.Values))
	require.NoError(t, k.Forward(t.Context(), out, fx.floats(x, 1, 6), TopKOptions{Mask: fx.bytes([]uint8{0, 1, 0, 0, 0, 0}, 1, 6)}))
	assert.Equal(t, []int32{1, -1, -1}, fx.readInts(out.Indices))
	assert.Equal(t, []float32{1, 0, 0}, fx.read(out.Values))
	assert.Equal(t, []float32{1, 0, 0}, fx.read(out.Gates))
	assert.Zero(t, fx.read(out.CoorDescentValues)[1])
}

// Defect: random routing without a mask crashes.
func TestDefect11RandomRoutingWithoutMask(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.Dim = smallDim
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	x := fx.floats(normal(1, 2*30*smallDim), 2, 30, smallDim)
	out := RouterResult{Indices: fx.tensor(I32, 2, 1, 10), Scores: fx.tensor(F32, 2, 1, 10)}
	require.NoError(t, r.Forward(t.Context(), out, x, 10, RouterOptions{RandomSeed: 3}))
	indices := fx.readInts(out.Indices)
	for item := range 2 {
		seen := slices.Clone(indices[item*10:][:10])
		slices.Sort(seen)
		assert.Len(t, slices.Compact(seen), 10, "a token is selected twice")
		assert.GreaterOrEqual(t, seen[0], int32(0))
		assert.Less(t, seen[len(seen)-1], int32(30))
	}
	assert.NotEqual(t, indices[:10], indices[10:])
	assert.Equal(t, slices.Repeat([]float32{1}, 20), fx.read(out.Scores))
}

// Defect: rows of more than 131,072 columns are not supported.
func TestDefect14LongRows(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 6 s on CPU drivers")
	}
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	for _, n := range []int{131073, 262147} {
		s, k := normal(1, n), 1000
		c := CoordinateDescentConfig{K: 1125, NIters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}
		y := fx.tensor(F32, 1, n)
		require.NoError(t, mustNewWithoutWeights(fx, NewCoordinateDescent, c).Forward(t.Context(), y, fx.floats(s, 1, n), CoordinateDescentOptions{}))
		rc := ref.CoorDescentConfig{K: c.K, Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}
		want, naive := ref.CoorDescent(s, nil, 1, n, rc), ref.CoorDescent32(s, nil, 1, n, rc)
		assert.NoError(t, ref.MaxErr(fx.read(y), want).Within(ref.Bound(naive, want, 5e-6)), "%d columns", n)
		top := mustNewWithoutWeights(fx, NewTopK, TopKConfig{K: k, NIters: 20, Eps: 0.1, EpsDecay: 1, CoorDescentKRatio: 9.0 / 8})
		out := TopKResult{Indices: fx.tensor(I32, 1, k)}
		require.NoError(t, top.Forward(t.Context(), out, fx.floats(s, 1, n), TopKOptions{}))
		assert.Equal(t, ref.Select(s, nil, 1, n, k).Indices, fx.readInts(out.Indices), "%d columns", n)
	}
}

// Defect: half precision inputs break coordinate descent, because rounding errors are divided by eps. Here coordinate
// descent computes in f32 with compensation: for logits near 15, plain f32 has an error of 5e-5 and f16 no correct
// digit.
func TestDefect15LowPrecisionDescent(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const n, k = 500, 40
	logits := normal(1, n)
	for i := range logits {
		logits[i] = 15 + 0.3*logits[i]
	}
	config := Default[RouterConfig]()
	config.Dim, config.StraightThrough = smallDim, false
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	fx.setParameter(r, "routing_token", unitVector(smallDim, 0))
	x := tokensWithChannels(2, smallDim, logits)
	out := RouterResult{Scores: fx.tensor(F32, 1, 1, k), Logits: fx.tensor(F32, 1, 1, n), SoftScores: fx.tensor(F32, 1, 1, n)}
	require.NoError(t, r.Forward(t.Context(), out, fx.floats(x, 1, n, smallDim), k, RouterOptions{}))
	want := ref.CoordinateDescentRouter(ref.RouterArgs{
		RouterConfig: refRouter(config.RouterSettings, false, k), X: x, Tokens: unitVector(smallDim, 0), B: 1, N: n, C: smallDim, R: 1,
	})
	assert.Equal(t, logits, fx.read(out.Logits), "logits are f32")
	assert.NoError(t, ref.MaxErr(fx.read(out.SoftScores), want.SoftScores).Within(1e-5))
	assert.NoError(t, ref.MaxErr(fx.read(out.Scores), want.Scores).Within(1e-5))
}

// Defect: the fused backward's gradients have errors of up to 1e-1 past 20 iterations. The CPU reference of the
// backward sweep, from which the backward kernels will be tested, agrees with finite differences of the forward pass
// for any number of iterations.
func TestDefect16FusedBackward(t *testing.T) {
	t.Parallel()
	const n, h = 60, 1.0 / (1 << 14)
	s, g, mask := normal(1, n), normal(2, n), randomMask(3, 1, n)
	for _, iters := range []int{20, 21, 50, 200} {
		c := ref.CoorDescentConfig{K: 9, Iters: iters, Eps: 0.1, EpsInit: 4, EpsDecay: 0.7}
		loss := func(i int, by float32) (float64, float64) {
			edited := slices.Clone(s)
			edited[i] += by
			sum := 0.0
			for j, y := range ref.CoorDescent(edited, mask, 1, n, c) {
				sum += y * float64(g[j])
			}
			return sum, float64(edited[i])
		}
		got, _ := ref.CoorDescentBackward(s, mask, g, 1, n, c)
		worst := 0.0
		for i := range s {
			up, to := loss(i, h)
			down, from := loss(i, -h)
			worst = math.Max(worst, math.Abs((up-down)/(to-from)-got[i]))
		}
		assert.Less(t, worst, 1e-5, fmt.Sprintf("%d iterations", iters))
		assert.Greater(t, slices.Max(got), 1e-2, "the gradients are too small for the comparison")
	}
}
