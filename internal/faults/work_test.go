//go:build linux

package faults_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The most work of a dispatch. Systems reset a device on which one dispatch takes some seconds. So much takes a slow GPU,
// with 50 GFLOP/s, a second. Traffic is not divided: of a million tokens, a tensor that a dispatch reads or writes has
// some gigabytes.
const (
	maxFlops = 50e9
	maxBytes = 50e9
)

type closer interface{ Close() error }

// largeCall is a call of a module in a graph.
type largeCall struct {
	inputs     map[string][]int // shapes; ids are U8, all others F32
	y          []int
	parameters []colt5.Parameter
	forward    func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error
	module     closer
}

// large makes all modules at large sizes.
func large(t *testing.T, d *vk.Device, items, n, c int) map[string]largeCall {
	ctx, list := t.Context(), map[string]largeCall{}
	x := map[string][]int{"x": {items, n, c}}
	y := []int{items, n, c}
	ff := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	ff.Dim, ff.NumHeavyTokens = c, 1024
	{
		m, err := colt5.NewConditionalRoutedFeedForward(ctx, d, ff)
		require.NoError(t, err)
		list["feedforward"] = largeCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
			return m.Forward(ctx, y, in["x"], colt5.FeedForwardOptions{})
		}, m}
	}
	{
		a := colt5.Default[colt5.ConditionalRoutedAttentionConfig]()
		a.Dim, a.NumHeavyTokensQ, a.NumHeavyTokensKV = c, 1024, 1024
		m, err := colt5.NewConditionalRoutedAttention(ctx, d, a)
		require.NoError(t, err)
		list["attention"] = largeCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
			return m.Forward(ctx, y, in["x"], colt5.AttentionOptions{})
		}, m}
	}
	{
		a := colt5.Default[colt5.ConditionalRoutedCrossAttentionConfig]()
		a.Dim, a.NumTokensQ, a.NumTokensKV = c, 1024, 1024
		m, err := colt5.NewConditionalRoutedCrossAttention(ctx, d, a)
		require.NoError(t, err)
		in := map[string][]int{"x": y, "context": {items, 2 * n, c}}
		list["cross"] = largeCall{in, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
			return m.Forward(ctx, y, in["x"], in["context"], colt5.CrossAttentionOptions{})
		}, m}
	}
	{
		a := colt5.Default[colt5.AutoregressiveTransformerConfig]()
		a.Dim, a.Depth, a.NumTokens, a.CausalQueryRouting, a.NumHeavyTokensQ, a.NumHeavyTokensKV = c, 2, 256, true, 32, 1024
		m, err := colt5.NewAutoregressiveTransformer(ctx, d, a)
		require.NoError(t, err)
		n := n / 2 // coordinate descent over the tokens before each window grows with the square
		list["autoregressive transformer"] = largeCall{map[string][]int{"ids": {items, n}}, []int{items, n, 256}, m.Parameters(),
			func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
				return m.Forward(ctx, y, in["ids"], colt5.AutoregressiveOptions{})
			}, m}
	}
	{
		a := colt5.Default[colt5.EncoderConfig]()
		a.Dim, a.Depth, a.NumTokens = c, 2, 256
		a.NumHeavyAttnTokensQ, a.NumHeavyAttnTokensKV, a.NumHeavyFFTokens = 1024, 1024, 1024
		m, err := colt5.NewEncoder(ctx, d, a)
		require.NoError(t, err)
		list["encoder"] = largeCall{map[string][]int{"ids": {items, n}}, y, m.Parameters(),
			func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
				return m.Forward(ctx, y, in["ids"], colt5.BlockOptions{})
			}, m}
	}
	{
		a := colt5.Default[colt5.ConditionalRoutedImageAttentionConfig]()
		a.Dim, a.NumHeavyTokensQ, a.NumHeavyTokensKV, a.ChannelFirst = c, 1024, 1024, true
		m, err := colt5.NewConditionalRoutedImageAttention(ctx, d, a)
		require.NoError(t, err)
		image := []int{items, c, n / 128, 128}
		list["image"] = largeCall{map[string][]int{"x": image}, image, m.Parameters(),
			func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
				return m.Forward(ctx, y, in["x"], colt5.ImageOptions{})
			}, m}
	}
	{
		a := colt5.Default[colt5.LocalMHAConfig]()
		a.Dim, a.WindowSize = c, 128
		m, err := colt5.NewLocalMHA(ctx, d, a)
		require.NoError(t, err)
		list["local attention"] = largeCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
			return m.Forward(ctx, y, in["x"], colt5.LocalMHAOptions{})
		}, m}
	}
	{
		m, err := colt5.NewFeedForward(ctx, d, colt5.FeedForwardConfig{Dim: c, Mult: 4})
		require.NoError(t, err)
		list["plain feedforward"] = largeCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error {
			return m.Forward(ctx, y, in["x"], colt5.CallOptions{})
		}, m}
	}
	return list
}

// TestDispatchWork: no dispatch of a forward and backward pass over a million tokens exceeds maxFlops.
func TestDispatchWork(t *testing.T) {
	needLoader(t)
	for _, gpu := range []bool{false, true} {
		loader.PretendGPU(gpu)
		loader.ComputeNothing(1 << 42)
		d, err := vk.Open(vk.Options{CacheDir: "-"})
		require.NoError(t, err)
		all := large(t, d, 8, 1<<17, 512)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			c := all[name]
			stats, err := runLarge(t.Context(), d, c)
			require.NoError(t, err, name)
			require.NoError(t, c.module.Close())
			var most, mostBytes vk.StepTime
			for _, s := range stats.StepTimes {
				if s.Flops > most.Flops {
					most = s
				}
				if s.Bytes > mostBytes.Bytes {
					mostBytes = s
				}
			}
			t.Logf("gpu %v %s: %d steps, %.3g flops in %s, %.3g bytes in %s", gpu, name, len(stats.StepTimes), most.Flops, most.Name, mostBytes.Bytes, mostBytes.Name)
			assert.NotEmpty(t, stats.StepTimes, name)
			assert.LessOrEqual(t, most.Flops, maxFlops, "%s: %s", name, most.Name)
			assert.LessOrEqual(t, mostBytes.Bytes, maxBytes, "%s: %s", name, mostBytes.Name)
		}
		require.NoError(t, d.Close())
		loader.ComputeNothing(0)
		loader.PretendGPU(false)
		assert.Empty(t, loader.Live())
	}
}

// runLarge plans and runs a forward and backward pass.
func runLarge(ctx context.Context, d *vk.Device, c largeCall) (stats colt5.CallStats, err error) {
	g := colt5.NewGraph(d)
	open := []closer{g}
	defer func() {
		for _, o := range open {
			err = errors.Join(err, o.Close())
		}
	}()
	tensor := func(dtype colt5.DType, shape []int) *colt5.Tensor {
		x, e := colt5.NewTensor(d, dtype, shape...)
		err = errors.Join(err, e)
		open = append(open, x)
		return x
	}
	values, tensors := map[string]*colt5.Tensor{}, map[string]*colt5.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(c.inputs)) {
		dtype := colt5.F32
		if name == "ids" {
			dtype = colt5.U8
		}
		values[name], tensors[name] = g.Input(name, dtype, make([]int, len(c.inputs[name]))...), tensor(dtype, c.inputs[name])
	}
	y := g.Value("y")
	if err := c.forward(ctx, y, values); err != nil {
		return stats, err
	}
	g.Output("y", y)
	gradients, e := colt5.NewGradients(d, c.parameters)
	err = errors.Join(err, e)
	open = append(open, gradients)
	tensors["y"] = tensor(colt5.F32, c.y)
	back := &colt5.Backward{Upstream: map[string]*colt5.Tensor{"y": tensor(colt5.F32, c.y)}, Parameters: gradients}
	if err != nil {
		return stats, err
	}
	stats.Profile = true
	return stats, g.Run(ctx, tensors, colt5.GraphOptions{Backward: back, Stats: &stats})
}
