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

// Where scores saturated at 1, the choice among them was arbitrary. Here logits decide, and of equal ones the lower index.
func TestDefect05TiesAreArbitrary(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config := DefaultRouterConfig()
	config.Dim, config.FetchKRatio = smallDim, 2
	r := opened(b, NewCoordinateDescentRouter, config)
	b.write(r, "routing_token", unit(smallDim, 0))
	const n, k = 40, 9
	out := Routing{Indices: b.tensor(I32, 1, 1, k), SoftScores: b.tensor(F32, 1, 1, n)}
	logits := shuffled(1, n)
	require.NoError(t, r.Forward(out, b.floats(tokensWith(2, smallDim, logits), 1, n, smallDim), k, RoutingOptions{}))
	saturated := 0
	for _, s := range b.read(out.SoftScores) {
		if s == 1 {
			saturated++
		}
	}
	assert.Greater(t, saturated, k, "there is nothing to choose among")
	for i, index := range b.readInts(out.Indices) {
		assert.Equal(t, float32(n-1-i), logits[index])
	}
	// Three values, many of each: 5 tokens of the largest, and the first 4 of the next.
	for i := range logits {
		logits[i] = float32(min(i%8, 2))
	}
	for i := range 3 {
		logits[8*i+1+i] = 9
	}
	require.NoError(t, r.Forward(out, b.floats(tokensWith(2, smallDim, logits), 1, n, smallDim), k, RoutingOptions{}))
	want := ref.Select(logits, nil, 1, n, k).Indices
	assert.Equal(t, []int32{1, 10, 19}, want[:3])
	assert.Equal(t, want, b.readInts(out.Indices))

	// Inside a module: all tokens alike.
	a := b.noLight(nil)
	y := b.attend(a, tokensWith(3, smallDim, make([]float32, 30)), 1, nil)
	assert.Equal(t, []int{0, 1, 2, 3, 4, 5}, rowsUnlike(y, b.host(a.Parameters())["null_q_token"]))
}

// The differentiable top-k looked at its mask for the scores, but not for the choice.
func TestDefect10TopKIgnoresMask(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config := DefaultTopKConfig()
	config.K = 3
	k := opened(b, NewTopK, config)
	x := []float32{9, 1, 8, 2, 7, 3}
	out := TopKResult{b.tensor(F32, 1, 3), b.tensor(I32, 1, 3), b.tensor(F32, 1, 3), b.tensor(F32, 1, 3)}
	require.NoError(t, k.Forward(out, b.floats(x, 1, 6), b.bytes([]uint8{0, 1, 0, 1, 1, 1}, 1, 6)))
	assert.Equal(t, []int32{4, 5, 3}, b.readInts(out.Indices))
	assert.Equal(t, []float32{7, 3, 2}, b.read(out.Values))
	require.NoError(t, k.Forward(out, b.floats(x, 1, 6), b.bytes([]uint8{0, 1, 0, 0, 0, 0}, 1, 6)))
	assert.Equal(t, []int32{1, -1, -1}, b.readInts(out.Indices))
	assert.Equal(t, []float32{1, 0, 0}, b.read(out.Values))
	assert.Equal(t, []float32{1, 0, 0}, b.read(out.Gates))
	assert.Zero(t, b.read(out.CoorDescentValues)[1])
}

// Random routing without a mask crashed.
func TestDefect11RandomRoutingWithoutMask(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config := DefaultRouterConfig()
	config.Dim = smallDim
	r := opened(b, NewCoordinateDescentRouter, config)
	x := b.floats(normal(1, 2*30*smallDim), 2, 30, smallDim)
	out := Routing{Indices: b.tensor(I32, 2, 1, 10), Scores: b.tensor(F32, 2, 1, 10)}
	require.NoError(t, r.Forward(out, x, 10, RoutingOptions{RandomSeed: 3}))
	indices := b.readInts(out.Indices)
	for item := range 2 {
		seen := slices.Clone(indices[item*10:][:10])
		slices.Sort(seen)
		assert.Len(t, slices.Compact(seen), 10, "a token twice")
		assert.GreaterOrEqual(t, seen[0], int32(0))
		assert.Less(t, seen[len(seen)-1], int32(30))
	}
	assert.NotEqual(t, indices[:10], indices[10:])
	assert.Equal(t, slices.Repeat([]float32{1}, 20), b.read(out.Scores))
}

// Rows of more than 131,072 columns were impossible.
func TestDefect14LongRows(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	for _, n := range []int{131073, 262147} {
		s, k := normal(1, n), 1000
		c := CoordinateDescentConfig{K: 1125, NIters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}
		y := b.tensor(F32, 1, n)
		require.NoError(t, opened(b, NewCoordinateDescent, c).Forward(y, b.floats(s, 1, n), nil))
		rc := ref.CoorDescentConfig{K: c.K, Iters: c.NIters, Eps: c.Eps, EpsInit: float64(c.EpsInit), EpsDecay: c.EpsDecay}
		want, naive := ref.CoorDescent(s, nil, 1, n, rc), ref.CoorDescent32(s, nil, 1, n, rc)
		assert.NoError(t, ref.MaxErr(b.read(y), want).Within(ref.Bound(naive, want, 5e-6)), "%d columns", n)
		top := opened(b, NewTopK, TopKConfig{K: k, NIters: 20, Eps: 0.1, CoorDescentKRatio: 9.0 / 8})
		out := TopKResult{Indices: b.tensor(I32, 1, k)}
		require.NoError(t, top.Forward(out, b.floats(s, 1, n), nil))
		assert.Equal(t, ref.Select(s, nil, 1, n, k).Indices, b.readInts(out.Indices), "%d columns", n)
	}
}

// Half precision broke coordinate descent, whose rounding is divided by eps. Here logits, and everything in it, are float32 at least: plain
// float32 with logits near 15 would be off by 5e-5, float16 by all there is.
func TestDefect15LowPrecisionDescent(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	const n, k = 500, 40
	logits := normal(1, n)
	for i := range logits {
		logits[i] = 15 + 0.3*logits[i]
	}
	config := DefaultRouterConfig()
	config.Dim, config.StraightThrough = smallDim, false
	r := opened(b, NewCoordinateDescentRouter, config)
	b.write(r, "routing_token", unit(smallDim, 0))
	x := tokensWith(2, smallDim, logits)
	out := Routing{Scores: b.tensor(F32, 1, 1, k), Logits: b.tensor(F32, 1, 1, n), SoftScores: b.tensor(F32, 1, 1, n)}
	require.NoError(t, r.Forward(out, b.floats(x, 1, n, smallDim), k, RoutingOptions{}))
	want := ref.CoordinateDescentRouter(ref.RouterArgs{
		RouterConfig: refRouter(config.RouterOptions, false, k), X: x, Tokens: unit(smallDim, 0), B: 1, N: n, C: smallDim, R: 1,
	})
	assert.Equal(t, logits, b.read(out.Logits), "logits pass float32 alone")
	assert.NoError(t, ref.MaxErr(b.read(out.SoftScores), want.SoftScores).Within(1e-5))
	assert.NoError(t, ref.MaxErr(b.read(out.Scores), want.Scores).Within(1e-5))
}

// The fused backward's gradients were off by up to 1e-1 past 20 iterations. The sweep that the backward kernels follow agrees with differences of
// the forward pass at any number of them.
func TestDefect16FusedBackward(t *testing.T) {
	const n, h = 60, 1.0 / (1 << 14)
	s, g, mask := normal(1, n), normal(2, n), someMask(3, 1, n)
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
		assert.Greater(t, slices.Max(got), 1e-2, "the gradients are too small to say anything")
	}
}
