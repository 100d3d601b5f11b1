package colt5

import (
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// goldenInput uploads an input of a golden case; nil if the case has no input of that name.
func (fx *fixture) goldenInput(c *golden.Case, name string) *Tensor {
	fx.t.Helper()
	g, ok := c.Inputs[name]
	switch {
	case !ok:
		return nil
	case g.U8 != nil:
		return fx.bytes(g.U8, g.Shape...)
	case g.I32 != nil:
		return fx.ints(g.I32, g.Shape...)
	}
	return fx.floats(g.F32, g.Shape...)
}

// setWeights writes the weights of a golden case to parameters.
func (fx *fixture) setWeights(list []Parameter, c *golden.Case) {
	fx.t.Helper()
	require.Len(fx.t, c.Weights, len(list))
	for _, p := range list {
		w, ok := c.Weights[p.Name]
		require.True(fx.t, ok, p.Name)
		require.Equal(fx.t, w.Shape, p.Tensor.Shape(), p.Name)
		require.NoError(fx.t, p.Tensor.Write(fx.t.Context(), w.F32))
	}
}

func (fx *fixture) checkNear(c *golden.Case, name string, got []float32, want golden.Tensor, bound float64) {
	fx.t.Helper()
	assert.NoError(fx.t, ref.MaxErr(got, want.Float64s()).Within(bound), name)
}

// shortGolden are the cases of go test -short, one or two for each module whose layers no other module of the list has. The
// tests of `vkbench verify` run most of them too: the driver's cache keeps their kernels for both.
var shortGolden = []string{
	"coor_descent_00", "coor_descent_edge0", "topk_11", "router_10", "router_edge0", "feedforward_1", "attention_2", "cross_2",
	"autoregressive_1", "image_1",
}

// forEachGolden runs a parallel subtest for every golden case of a module.
func forEachGolden(t *testing.T, module string, test func(*fixture, *golden.Case)) {
	paths, err := golden.Cases("../testdata/golden")
	require.NoError(t, err)
	ran := 0
	for _, path := range paths {
		c, err := golden.Load(path)
		require.NoError(t, err)
		if c.Module != module {
			continue
		}
		if testing.Short() && !slices.Contains(shortGolden, c.Name) {
			continue
		}
		ran++
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel() // CPU drivers compile kernels for seconds
			gputest.CountCase()
			test(newFixture(t), c)
		})
	}
	if testing.Short() && ran == 0 {
		t.Skip("other cases have its layers; TestEveryModule runs the module")
	}
	require.NotZero(t, ran)
}

func TestGoldenCoordinateDescent(t *testing.T) {
	forEachGolden(t, "CoordinateDescent", func(fx *fixture, c *golden.Case) { testCoordinateDescentCase(fx, c, "") })
}

func testCoordinateDescentCase(fx *fixture, c *golden.Case, _ string) {
	var config CoordinateDescentConfig
	require.NoError(fx.t, c.DecodeConfig(&config))
	d := mustNewWithoutWeights(fx, NewCoordinateDescent, config)
	want := c.Outputs["y"]
	y := fx.tensor(F32, want.Shape...)
	for range 2 {
		require.NoError(fx.t, d.Forward(fx.t.Context(), y, fx.goldenInput(c, "s"), CoordinateDescentOptions{Mask: fx.goldenInput(c, "mask")}))
		fx.checkNear(c, "y", fx.read(y), want, c.OutputBound("y"))
	}
}

func TestGoldenTopK(t *testing.T) {
	forEachGolden(t, "TopK", func(fx *fixture, c *golden.Case) { testTopKCase(fx, c, "") })
}

func testTopKCase(fx *fixture, c *golden.Case, _ string) {
	var config TopKConfig
	require.NoError(fx.t, c.DecodeConfig(&config))
	k := mustNewWithoutWeights(fx, NewTopK, config)
	shape := c.Outputs["values"].Shape
	out := TopKResult{fx.tensor(F32, shape...), fx.tensor(I32, shape...), fx.tensor(F32, shape...), fx.tensor(F32, shape...)}
	require.NoError(fx.t, k.Forward(fx.t.Context(), out, fx.goldenInput(c, "x"), TopKOptions{Mask: fx.goldenInput(c, "mask")}))
	fx.checkNear(c, "values", fx.read(out.Values), c.Outputs["values"], c.OutputBound("values"))
	fx.checkNear(c, "gates", fx.read(out.Gates), c.Outputs["gates"], c.OutputBound("gates"))
	fx.checkNear(c, "coor_descent_values", fx.read(out.CoorDescentValues), c.Outputs["coor_descent_values"], c.OutputBound("coor_descent_values"))
	assert.Equal(fx.t, c.Outputs["indices"].I32, fx.readInts(out.Indices))
}

func TestGoldenRouter(t *testing.T) {
	forEachGolden(t, "CoordinateDescentRouter", func(fx *fixture, c *golden.Case) {
		var config RouterConfig
		require.NoError(fx.t, c.DecodeConfig(&config))
		r := mustNew(fx, NewCoordinateDescentRouter, config)
		fx.setWeights(r.Parameters(), c)
		testRouterCase(fx, c, r)
	})
}

// testRouterCase compares a router, which has the weights of a golden case, with the case.
func testRouterCase(fx *fixture, c *golden.Case, r *CoordinateDescentRouter) {
	var call struct {
		NumTokens int `json:"num_tokens"`
	}
	require.NoError(fx.t, c.DecodeCall(&call))
	options := RouterOptions{Mask: fx.goldenInput(c, "mask")}
	if r.config.LearnedRoutingTokens {
		options.RoutingTokens = fx.goldenInput(c, "routing_tokens")
	}
	checkRouting(fx, c, r, "", fx.goldenInput(c, "x"), call.NumTokens, options)
}

// checkRouting compares all outputs of a router with a route of a golden case.
func checkRouting(fx *fixture, c *golden.Case, r *CoordinateDescentRouter, name string, x *Tensor, tokens int, options RouterOptions) {
	want, ok := c.Routings[name]
	require.True(fx.t, ok)
	batch, n, dim, routes := x.shape[0], x.shape[1], r.config.Dim, r.config.NumRoutingTokens
	k := r.Slots(n, tokens)
	out := RouterResult{
		Indices: fx.tensor(I32, batch, routes, k), Scores: fx.tensor(F32, batch, routes, k), Tokens: fx.tensor(F32, batch, routes, k, dim),
		Logits: fx.tensor(F32, batch, routes, n), SoftScores: fx.tensor(F32, batch, routes, n),
	}
	require.NoError(fx.t, r.Forward(fx.t.Context(), out, x, tokens, options))
	scores := fx.read(out.Scores)
	block := n
	if s := int(r.config.RouteBlockSize); s > 0 {
		block = s
	}
	blocks := n / block
	// Golden rows are in the order (batch, block, route), outputs in the order (batch, route, block). Logits of masked
	// tokens are not compared.
	got := blockRows(fx.read(out.Logits), batch, routes, blocks, block)
	if mask, ok := c.Inputs["mask"]; ok {
		all := make([]float32, len(got))
		for i := range all {
			all[i] = float32(mask.U8[i/n/routes*n+i%n])
		}
		for i, valid := range blockRows(all, batch, routes, blocks, block) {
			if valid == 0 {
				got[i], want.Logits.F32[i] = 0, 0
			}
		}
	}
	fx.checkNear(c, "logits", got, want.Logits, c.ScoreBound())
	fx.checkNear(c, "scores_all", blockRows(fx.read(out.SoftScores), batch, routes, blocks, block), want.ScoresAll, c.ScoreBound())
	indices, tokensOut := fx.readInts(out.Indices), fx.read(out.Tokens)
	y, hasY := c.Outputs["y"]
	for row := range batch * routes * blocks {
		slots := k / blocks
		from := row * slots
		gotSlots, wantSlots := validSlots(indices[from:from+slots], scores[from:from+slots]), validSlots(want.Indices.I32[from:from+slots], want.Scores.F32[from:from+slots])
		require.Len(fx.t, gotSlots, len(wantSlots))
		for i, g := range gotSlots {
			w := wantSlots[i]
			require.Equal(fx.t, want.Indices.I32[from+w], indices[from+g], "row %d", row)
			require.InDelta(fx.t, want.Scores.F32[from+w], scores[from+g], c.ScoreBound(), "row %d", row)
			if hasY && name == "" {
				fx.checkNear(c, "y", tokensOut[(from+g)*dim:(from+g+1)*dim], golden.Tensor{F32: y.F32[(from+w)*dim : (from+w+1)*dim]}, c.OutputBound("y"))
			}
		}
	}
}

// validSlots returns the slots that are not empty, by ascending token index.
func validSlots(indices []int32, scores []float32) []int {
	var list []int
	for i, s := range scores {
		if s != 0 {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b int) int { return int(indices[a] - indices[b]) })
	return list
}

// blockRows reorders [B, R, blocks, n] to [B, blocks, R, n].
func blockRows(x []float32, b, r, blocks, n int) []float32 {
	y := make([]float32, 0, len(x))
	for i := range b {
		for j := range blocks {
			for route := range r {
				y = append(y, x[((i*r+route)*blocks+j)*n:][:n]...)
			}
		}
	}
	return y
}

func TestGoldenFeedForward(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedFeedForward", func(fx *fixture, c *golden.Case) {
		var config ConditionalRoutedFeedForwardConfig
		require.NoError(fx.t, c.DecodeConfig(&config))
		f := mustNew(fx, NewConditionalRoutedFeedForward, config)
		fx.setWeights(f.Parameters(), c)
		x, mask := fx.goldenInput(c, "x"), fx.goldenInput(c, "mask")
		y := fx.tensor(F32, x.Shape()...)
		var before []float32
		for range 3 {
			require.NoError(fx.t, f.Forward(fx.t.Context(), y, x, FeedForwardOptions{Mask: mask}))
			now := fx.read(y)
			fx.checkNear(c, "y", now, c.Outputs["y"], c.OutputBound("y"))
			if before != nil {
				assert.True(fx.t, sameBits(before, now))
			}
			before = now
		}
		if _, ok := c.Routings["router"]; !ok {
			return
		}
		router := RouterConfig{Dim: config.Dim, NumRoutingTokens: 1, StraightThrough: config.RouterStraightThrough, RouterSettings: config.Router}
		r := mustNew(fx, NewCoordinateDescentRouter, router)
		for name, w := range c.Weights {
			if strings.HasPrefix(name, "router.") {
				require.NoError(fx.t, r.Parameters()[0].Tensor.Write(t.Context(), w.F32))
			}
		}
		checkRouting(fx, c, r, "router", x, config.NumHeavyTokens, RouterOptions{Mask: mask})
	})
}
