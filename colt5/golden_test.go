package colt5

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bench is a device and the tensors of a test on it.
type bench struct {
	t   *testing.T
	dev *vk.Device
}

func newBench(t *testing.T) *bench {
	b := &bench{t, gputest.Device(t)}
	t.Cleanup(func() {
		n, text := b.dev.DrainMessages()
		assert.Zero(t, n, text)
	})
	return b
}

// keep closes what a test made when it ends.
func (b *bench) keep(c closer) { b.t.Cleanup(func() { assert.NoError(b.t, c.Close()) }) }

// opened makes what closes with the test.
func opened[C any, M closer](b *bench, make func(*vk.Device, C) (M, error), c C) M {
	b.t.Helper()
	m, err := make(b.dev, c)
	require.NoError(b.t, err)
	b.keep(m)
	return m
}

func (b *bench) tensor(dtype DType, shape ...int) *Tensor {
	b.t.Helper()
	x, err := NewTensor(b.dev, dtype, shape...)
	require.NoError(b.t, err)
	b.keep(x)
	return x
}

func (b *bench) floats(data []float32, shape ...int) *Tensor {
	b.t.Helper()
	x, err := FromFloat32(b.dev, data, shape...)
	require.NoError(b.t, err)
	b.keep(x)
	return x
}

func (b *bench) bytes(data []uint8, shape ...int) *Tensor {
	b.t.Helper()
	x, err := FromUint8(b.dev, data, shape...)
	require.NoError(b.t, err)
	b.keep(x)
	return x
}

// input is an input of a golden case, nil if the case has none of that name.
func (b *bench) input(c *golden.Case, name string) *Tensor {
	b.t.Helper()
	g, ok := c.Inputs[name]
	switch {
	case !ok:
		return nil
	case g.U8 != nil:
		return b.bytes(g.U8, g.Shape...)
	}
	return b.floats(g.F32, g.Shape...)
}

func (b *bench) read(x *Tensor) []float32 {
	b.t.Helper()
	data, err := x.Float32()
	require.NoError(b.t, err)
	return data
}

func (b *bench) readInts(x *Tensor) []int32 {
	b.t.Helper()
	data, err := x.Int32()
	require.NoError(b.t, err)
	return data
}

// set gives parameters the weights of a case.
func (b *bench) set(list []Parameter, c *golden.Case) {
	b.t.Helper()
	require.Len(b.t, c.Weights, len(list))
	for _, p := range list {
		w, ok := c.Weights[p.Name]
		require.True(b.t, ok, p.Name)
		require.Equal(b.t, w.Shape, p.Tensor.Shape(), p.Name)
		require.NoError(b.t, p.Tensor.Write(w.F32))
	}
}

func (b *bench) near(c *golden.Case, name string, got []float32, want golden.Tensor, bound float64) {
	b.t.Helper()
	assert.NoError(b.t, ref.MaxErr(got, want.Float64s()).Within(bound), name)
}

// forEach runs a test for every golden case of a module, several at a time.
func forEach(t *testing.T, module string, test func(*bench, *golden.Case)) {
	paths, err := golden.Cases("../testdata/golden")
	require.NoError(t, err)
	ran := 0
	for _, path := range paths {
		c, err := golden.Load(path)
		require.NoError(t, err)
		if c.Module != module {
			continue
		}
		ran++
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel() // kernels compile for seconds on CPU drivers
			gputest.CountCase()
			test(newBench(t), c)
		})
	}
	require.NotZero(t, ran)
}

func TestGoldenCoordinateDescent(t *testing.T) {
	forEach(t, "CoordinateDescent", func(b *bench, c *golden.Case) {
		var config CoordinateDescentConfig
		require.NoError(b.t, c.DecodeConfig(&config))
		d := opened(b, NewCoordinateDescent, config)
		want := c.Outputs["y"]
		y := b.tensor(F32, want.Shape...)
		for range 2 {
			require.NoError(b.t, d.Forward(y, b.input(c, "s"), b.input(c, "mask")))
			b.near(c, "y", b.read(y), want, c.OutputBound("y"))
		}
	})
}

func TestGoldenTopK(t *testing.T) {
	forEach(t, "TopK", func(b *bench, c *golden.Case) {
		var config TopKConfig
		require.NoError(b.t, c.DecodeConfig(&config))
		k := opened(b, NewTopK, config)
		shape := c.Outputs["values"].Shape
		out := TopKResult{b.tensor(F32, shape...), b.tensor(I32, shape...), b.tensor(F32, shape...), b.tensor(F32, shape...)}
		require.NoError(b.t, k.Forward(out, b.input(c, "x"), b.input(c, "mask")))
		b.near(c, "values", b.read(out.Values), c.Outputs["values"], c.OutputBound("values"))
		b.near(c, "gates", b.read(out.Gates), c.Outputs["gates"], c.OutputBound("gates"))
		b.near(c, "coor_descent_values", b.read(out.CoorDescentValues), c.Outputs["coor_descent_values"], c.OutputBound("coor_descent_values"))
		assert.Equal(b.t, c.Outputs["indices"].I32, b.readInts(out.Indices))
	})
}

func TestGoldenRouter(t *testing.T) {
	forEach(t, "CoordinateDescentRouter", func(b *bench, c *golden.Case) {
		var config RouterConfig
		require.NoError(b.t, c.DecodeConfig(&config))
		var call struct {
			NumTokens int `json:"num_tokens"`
		}
		require.NoError(b.t, c.DecodeCall(&call))
		r := opened(b, NewCoordinateDescentRouter, config)
		options := RoutingOptions{Mask: b.input(c, "mask")}
		if config.LearnedRoutingTokens {
			options.RoutingTokens = b.input(c, "routing_tokens")
		}
		b.set(r.Parameters(), c)
		checkRouting(b, c, r, "", b.input(c, "x"), call.NumTokens, options)
	})
}

// checkRouting compares everything that a router computes with the route of a golden case.
func checkRouting(b *bench, c *golden.Case, r *CoordinateDescentRouter, name string, x *Tensor, tokens int, options RoutingOptions) {
	want, ok := c.Routes[name]
	require.True(b.t, ok)
	batch, n, dim, routes := x.shape[0], x.shape[1], r.config.Dim, r.config.NumRoutingTokens
	k := r.Slots(n, tokens)
	out := Routing{
		Indices: b.tensor(I32, batch, routes, k), Scores: b.tensor(F32, batch, routes, k), Tokens: b.tensor(F32, batch, routes, k, dim),
		Logits: b.tensor(F32, batch, routes, n), SoftScores: b.tensor(F32, batch, routes, n),
	}
	require.NoError(b.t, r.Forward(out, x, tokens, options))
	scores := b.read(out.Scores)
	block := n
	if s := int(r.config.RouteBlockSize); s > 0 {
		block = s
	}
	blocks := n / block
	// The golden rows are (batch, block, route), ours (batch, route, block). Raw logits are compared where tokens are real.
	got := blockRows(b.read(out.Logits), batch, routes, blocks, block)
	if mask, ok := c.Inputs["mask"]; ok {
		all := make([]float32, len(got))
		for i := range all {
			all[i] = float32(mask.U8[i/n/routes*n+i%n])
		}
		for i, real := range blockRows(all, batch, routes, blocks, block) {
			if real == 0 {
				got[i], want.Logits.F32[i] = 0, 0
			}
		}
	}
	b.near(c, "logits", got, want.Logits, c.ScoreBound())
	b.near(c, "scores_all", blockRows(b.read(out.SoftScores), batch, routes, blocks, block), want.ScoresAll, c.ScoreBound())
	indices, tokensOut := b.readInts(out.Indices), b.read(out.Tokens)
	y, hasY := c.Outputs["y"]
	for row := range batch * routes * blocks {
		slots := k / blocks
		from := row * slots
		gotOrder, wantOrder := order(indices[from:from+slots], scores[from:from+slots]), order(want.Indices.I32[from:from+slots], want.Scores.F32[from:from+slots])
		require.Len(b.t, gotOrder, len(wantOrder))
		for i, g := range gotOrder {
			w := wantOrder[i]
			require.Equal(b.t, want.Indices.I32[from+w], indices[from+g], "row %d", row)
			require.InDelta(b.t, want.Scores.F32[from+w], scores[from+g], c.ScoreBound(), "row %d", row)
			if hasY && name == "" {
				b.near(c, "y", tokensOut[(from+g)*dim:(from+g+1)*dim], golden.Tensor{F32: y.F32[(from+w)*dim : (from+w+1)*dim]}, c.OutputBound("y"))
			}
		}
	}
}

// order lists the filled slots by rising index.
func order(indices []int32, scores []float32) []int {
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
	forEach(t, "ConditionalRoutedFeedForward", func(b *bench, c *golden.Case) {
		var config ConditionalRoutedFeedForwardConfig
		require.NoError(b.t, c.DecodeConfig(&config))
		f := opened(b, NewConditionalRoutedFeedForward, config)
		b.set(f.Parameters(), c)
		x, mask := b.input(c, "x"), b.input(c, "mask")
		y := b.tensor(F32, x.Shape()...)
		var before []float32
		for range 3 {
			require.NoError(b.t, f.Forward(y, x, FeedForwardOptions{Mask: mask}))
			now := b.read(y)
			b.near(c, "y", now, c.Outputs["y"], c.OutputBound("y"))
			if before != nil {
				assert.True(b.t, slices.EqualFunc(before, now, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }))
			}
			before = now
		}
		if _, ok := c.Routes["router"]; !ok {
			return
		}
		router := RouterConfig{Dim: config.Dim, NumRoutingTokens: 1, StraightThrough: config.RouterStraightThrough, RouterOptions: config.Router}
		r := opened(b, NewCoordinateDescentRouter, router)
		for name, w := range c.Weights {
			if strings.HasPrefix(name, "router.") {
				require.NoError(b.t, r.Parameters()[0].Tensor.Write(w.F32))
			}
		}
		checkRouting(b, c, r, "router", x, config.NumHeavyTokens, RoutingOptions{Mask: mask})
	})
}
