package ref_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

// float64Bound is the error bound of float64 results. Golden values are rounded to float32.
const float64Bound = 1e-6

// forEachCase runs a test on every golden case of a module, of which there must be at least atLeast.
func forEachCase(t *testing.T, module string, atLeast int, test func(t *testing.T, c *golden.Case)) {
	paths, err := golden.Cases("../../testdata/golden")
	require.NoError(t, err)
	n := 0
	for _, path := range paths {
		c, err := golden.Load(path)
		require.NoError(t, err)
		if c.Module == module {
			n++
			t.Run(c.Name, func(t *testing.T) { test(t, c) })
		}
	}
	require.GreaterOrEqual(t, n, atLeast)
}

// checkGolden compares a golden tensor with the results in both precisions. bound is that of float32.
func checkGolden(t *testing.T, what string, want golden.Tensor, got64 []float64, got32 []float32, bound float64) {
	t.Helper()
	require.NotEmpty(t, want.F32, what)
	assert.NoError(t, ref.MaxErr(want.F32, got64).Within(float64Bound), what+" in float64")
	assert.NoError(t, ref.MaxErr(got32, want.Float64s()).Within(bound), what+" in float32")
}

// descent holds the options of a coordinate descent with their names in a golden case. EpsInit may be null.
type descent struct {
	K        float64  `json:"k"`
	Iters    int      `json:"n_iters"`
	Eps      float64  `json:"eps"`
	EpsInit  *float64 `json:"eps_init"`
	EpsDecay float64  `json:"eps_decay"`
}

func (d descent) config() ref.CoorDescentConfig {
	c := ref.CoorDescentConfig{K: d.K, Iters: d.Iters, Eps: d.Eps, EpsDecay: d.EpsDecay}
	if d.EpsInit != nil {
		c.EpsInit = *d.EpsInit
	}
	return c
}

func TestGoldenCoorDescent(t *testing.T) {
	forEachCase(t, "CoordinateDescent", 18, func(t *testing.T, c *golden.Case) {
		var config descent
		require.NoError(t, c.DecodeConfig(&config))
		s, mask, d := c.Inputs["s"], c.Inputs["mask"].U8, config.config()
		rows, n := s.Shape[0], s.Shape[1]
		checkGolden(t, "score", c.Outputs["y"], ref.CoorDescent(s.F32, mask, rows, n, d),
			ref.CoorDescent32(s.F32, mask, rows, n, d), c.OutputBound("y"))
		g := c.Upstream["y"].F32
		ds, _ := ref.CoorDescentBackward(s.F32, mask, g, rows, n, d)
		ds32, _ := ref.CoorDescentBackward32(s.F32, mask, g, rows, n, d)
		checkGolden(t, "gradient", c.InputGrads["s"], ds, ds32, c.InputGradBound())
	})
}

func TestGoldenTopK(t *testing.T) {
	forEachCase(t, "TopK", 6, func(t *testing.T, c *golden.Case) {
		var o struct {
			K     int     `json:"k"`
			Iters int     `json:"n_iters"`
			Eps   float64 `json:"eps"`
			Ratio float64 `json:"coor_descent_k_ratio"`
		}
		require.NoError(t, c.DecodeConfig(&o))
		x, mask := c.Inputs["x"], c.Inputs["mask"].U8
		rows, n := x.Shape[0], x.Shape[1]
		config := ref.TopKConfig{K: o.K, Ratio: o.Ratio, Iters: o.Iters, Eps: o.Eps}
		got, got32 := ref.TopK(x.F32, mask, rows, n, config), ref.TopK32(x.F32, mask, rows, n, config)
		assert.Equal(t, c.Outputs["indices"].I32, got.Indices)
		assert.Equal(t, c.Outputs["indices"].I32, got32.Indices)
		checkGolden(t, "values", c.Outputs["values"], got.Values, got32.Values, c.OutputBound("values"))
		checkGolden(t, "gates", c.Outputs["gates"], got.Gates, got32.Gates, c.OutputBound("gates"))
		checkGolden(t, "soft", c.Outputs["coor_descent_values"], got.CoorDescentValues, got32.CoorDescentValues,
			c.OutputBound("coor_descent_values"))

		up := ref.TopKUpstream{Values: c.Upstream["values"].F32, CoorDescentValues: c.Upstream["coor_descent_values"].F32}
		checkGolden(t, "dx", c.InputGrads["x"], ref.TopKBackward(x.F32, mask, rows, n, config, up),
			ref.TopKBackward32(x.F32, mask, rows, n, config, up), c.InputGradBound())
	})
}

// routerOptions holds the options of a router: the config of a router case, router_kwargs of a module.
type routerOptions struct {
	Eps         float64  `json:"eps"`
	Iters       int      `json:"n_iters"`
	EpsInit     *float64 `json:"eps_init"`
	EpsDecay    float64  `json:"eps_decay"`
	Cosine      bool     `json:"cosine_sim_routing"`
	FetchKRatio float64  `json:"fetch_k_ratio"`
}

func routerDefaults() routerOptions {
	first := 4.0
	return routerOptions{Eps: 0.03, Iters: 20, EpsInit: &first, EpsDecay: 0.7, FetchKRatio: 9.0 / 8}
}

func (o routerOptions) config(numTokens int, straightThrough bool, block int) ref.RouterConfig {
	c := ref.RouterConfig{
		NumTokens: numTokens, BlockSize: block, FetchKRatio: o.FetchKRatio, StraightThrough: straightThrough,
		Descent: descent{Iters: o.Iters, Eps: o.Eps, EpsInit: o.EpsInit, EpsDecay: o.EpsDecay}.config(),
	}
	if o.Cosine {
		c.CosineScale = 8
	}
	return c
}

func TestGoldenRouter(t *testing.T) {
	forEachCase(t, "CoordinateDescentRouter", 16, func(t *testing.T, c *golden.Case) {
		config := struct {
			routerOptions
			Dim             int  `json:"dim"`
			Routes          int  `json:"num_routing_tokens"`
			Block           int  `json:"route_block_size"`
			StraightThrough bool `json:"straight_through"`
			Learned         bool `json:"learned_routing_tokens"`
		}{routerOptions: routerDefaults(), Routes: 1, StraightThrough: true}
		require.NoError(t, c.DecodeConfig(&config))
		var call struct {
			NumTokens int `json:"num_tokens"`
		}
		require.NoError(t, c.DecodeCall(&call))
		x, tokens := c.Inputs["x"], c.Weights["routing_token"].F32
		if config.Learned {
			tokens = c.Inputs["routing_tokens"].F32
		}
		a := ref.RouterArgs{
			RouterConfig: config.config(call.NumTokens, config.StraightThrough, config.Block),
			X:            x.F32, Mask: c.Inputs["mask"].U8, Tokens: tokens, TokensPerItem: config.Learned,
			B: x.Shape[0], N: x.Shape[1], C: x.Shape[2], R: config.Routes,
		}
		got, got32 := ref.CoordinateDescentRouter(a), ref.CoordinateDescentRouter32(a)
		require.True(t, got.Routed)
		checkRoute(t, c, "", a, got, got32)

		rows := a.B * a.R
		y := byIndex(c.Outputs["y"].F32, c.Routings[""].Indices.I32, c.Routings[""].Scores.F32, rows, a.C)
		y64 := byIndex(got.Tokens, got.Indices, got.Scores, rows, a.C)
		y32 := byIndex(got32.Tokens, got32.Indices, got32.Scores, rows, a.C)
		checkGolden(t, "tokens", golden.Tensor{F32: y}, y64, y32, c.OutputBound("y"))

		// The upstream gradient has the golden order of the tokens. Empty slots have none.
		dselected := make([]float32, len(got.Tokens))
		for row := range rows {
			place := map[int32]int{}
			want := c.Routings[""]
			for slot := row * got.K; slot < (row+1)*got.K; slot++ {
				if want.Scores.F32[slot] != 0 {
					place[want.Indices.I32[slot]] = slot
				}
			}
			for slot := row * got.K; slot < (row+1)*got.K; slot++ {
				if from, ok := place[got.Indices[slot]]; ok && got.Valid[slot] != 0 {
					copy(dselected[slot*a.C:(slot+1)*a.C], c.Upstream["y"].F32[from*a.C:(from+1)*a.C])
				}
			}
		}
		g, g32 := ref.CoordinateDescentRouterBackward(a, nil, dselected), ref.CoordinateDescentRouterBackward32(a, nil, dselected)
		checkGolden(t, "dx", c.InputGrads["x"], g.X, g32.X, c.InputGradBound())
		dtokens, bound := c.WeightGrads["routing_token"], c.WeightGradBound("routing_token")
		if config.Learned {
			dtokens, bound = c.InputGrads["routing_tokens"], c.InputGradBound()
		}
		checkGolden(t, "gradient of the routing tokens", dtokens, g.Tokens, g32.Tokens, bound)
	})
}

// checkRoute compares logits, soft scores, and the set and scores of the selected tokens of each row.
func checkRoute(t *testing.T, c *golden.Case, name string, a ref.RouterArgs, got ref.Routing, got32 ref.RoutingOf[float32]) {
	t.Helper()
	want, ok := c.Routings[name]
	require.True(t, ok)
	blocks := want.Logits.Shape[0] / (a.B * a.R)
	checkGolden(t, "logits", want.Logits, byBlock(got.Logits, a, blocks), byBlock(got32.Logits, a, blocks), c.OutputBound("y"))
	checkGolden(t, "soft scores", want.ScoresAll, byBlock(got.SoftScores, a, blocks), byBlock(got32.SoftScores, a, blocks), c.ScoreBound())
	require.Len(t, got.Indices, len(want.Indices.I32))
	for row := range a.B * a.R {
		lo, hi := row*got.K, (row+1)*got.K
		wantSet := validIndices(want.Indices.I32[lo:hi], want.Scores.F32[lo:hi])
		assert.NoError(t, ref.SameSet(validIndices(got.Indices[lo:hi], got.Scores[lo:hi]), wantSet), "row %d", row)
		assert.NoError(t, ref.SameSet(validIndices(got32.Indices[lo:hi], got32.Scores[lo:hi]), wantSet), "row %d in float32", row)
		for slot := lo; slot < hi; slot++ {
			assert.Equal(t, got.Valid[slot] != 0, got.Scores[slot] != 0)
		}
	}
	checkGolden(t, "scores", golden.Tensor{F32: byIndex(want.Scores.F32, want.Indices.I32, want.Scores.F32, a.B*a.R, 1)},
		byIndex(got.Scores, got.Indices, got.Scores, a.B*a.R, 1), byIndex(got32.Scores, got32.Indices, got32.Scores, a.B*a.R, 1),
		c.OutputBound("y"))
}

// byBlock reorders [B, R, N] to the row order of a golden case: batch, block, route.
func byBlock[T ref.Float](v []T, a ref.RouterArgs, blocks int) []T {
	var out []T
	n := a.N / blocks
	for b := range a.B {
		for block := range blocks {
			for r := range a.R {
				start := (b*a.R+r)*a.N + block*n
				out = append(out, v[start:start+n]...)
			}
		}
	}
	return out
}

// validIndices returns the indices of the slots whose score is not 0.
func validIndices[T ref.Float](indices []int32, scores []T) []int32 {
	var list []int32
	for i, index := range indices {
		if scores[i] != 0 {
			list = append(list, index)
		}
	}
	return list
}

// byIndex returns v [rows, K, C] with the slots of each row sorted by index. Empty slots are last and zero.
func byIndex[T ref.Float](v []T, indices []int32, scores []T, rows, c int) []T {
	out := make([]T, len(v))
	k := len(indices) / rows
	for row := range rows {
		var slots []int
		for slot := row * k; slot < (row+1)*k; slot++ {
			if scores[slot] != 0 {
				slots = append(slots, slot)
			}
		}
		slices.SortFunc(slots, func(i, j int) int { return int(indices[i] - indices[j]) })
		for i, slot := range slots {
			copy(out[(row*k+i)*c:], v[slot*c:(slot+1)*c])
		}
	}
	return out
}

func TestGoldenFeedForward(t *testing.T) {
	routed := 0
	forEachCase(t, "ConditionalRoutedFeedForward", 9, func(t *testing.T, c *golden.Case) {
		config := struct {
			Dim             int           `json:"dim"`
			NumHeavyTokens  int           `json:"num_heavy_tokens"`
			LightMult       float64       `json:"light_ff_mult"`
			HeavyMult       float64       `json:"heavy_ff_mult"`
			StraightThrough bool          `json:"router_straight_through"`
			Router          routerOptions `json:"router_kwargs"`
		}{StraightThrough: true, Router: routerDefaults()}
		require.NoError(t, c.DecodeConfig(&config))
		x := c.Inputs["x"]
		a := ref.ConditionalRoutedFeedForwardArgs{
			Router: ref.RouterArgs{
				RouterConfig: config.Router.config(config.NumHeavyTokens, config.StraightThrough, 0),
				X:            x.F32, Mask: c.Inputs["mask"].U8, Tokens: c.Weights["router.routing_token"].F32,
				B: x.Shape[0], N: x.Shape[1], C: x.Shape[2], R: 1,
			},
			Light: branchParams(c, "light_ff.", config.Dim, config.LightMult),
			Heavy: branchParams(c, "heavy_ff.", config.Dim, config.HeavyMult),
		}
		checkGolden(t, "y", c.Outputs["y"], ref.ConditionalRoutedFeedForward(a), ref.ConditionalRoutedFeedForward32(a), c.OutputBound("y"))
		in, dy := ref.ConditionalRoutedFeedForwardInput{
			X: x.F32, Mask: a.Router.Mask, B: x.Shape[0], N: x.Shape[1], C: x.Shape[2], Router: a.Router.RouterConfig,
		}, c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedFeedForwardBackward(in, dy, weights(c), ""),
			ref.ConditionalRoutedFeedForwardBackward32(in, dy, weights(c), ""))
		got, got32 := ref.CoordinateDescentRouter(a.Router), ref.CoordinateDescentRouter32(a.Router)
		assert.Equal(t, len(c.Routings) > 0, got.Routed)
		if got.Routed {
			routed++
			checkRoute(t, c, "router", a.Router, got, got32)
		}
	})
	assert.Equal(t, 7, routed)
}

// branchParams returns the weights of the light or heavy branch.
func branchParams(c *golden.Case, prefix string, dim int, mult float64) ref.FeedForwardParams {
	w := map[string][]float32{}
	for name, tensor := range c.Weights {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			w[rest] = tensor.F32
		}
	}
	return ref.FeedForwardParams{
		Gamma: w["0.gamma"], W1: w["1.weight"], B1: w["1.bias"], W2: w["3.weight"], B2: w["3.bias"],
		Dim: dim, Hidden: int(float64(dim) * mult),
	}
}
