//go:build linux

package faults_test

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

type closer interface{ Close() error }

// moduleCall is a call of a module in a graph.
type moduleCall struct {
	inputs     map[string][]int // shapes; ids are U8, all others F32
	y          []int
	parameters []colt5.Parameter
	forward    func(ctx context.Context, y *colt5.Tensor, in map[string]*colt5.Tensor) error
	module     closer
}

// makers returns a constructor of a call for every kind of module with weights: of items with n tokens of dim c, of which heavy are
// routed.
func makers(items, n, c, heavy int) map[string]func(context.Context, *vk.Device) (moduleCall, error) {
	type tensors = map[string]*colt5.Tensor
	x, y := map[string][]int{"x": {items, n, c}}, []int{items, n, c}
	ids := map[string][]int{"ids": {items, n}}
	return map[string]func(context.Context, *vk.Device) (moduleCall, error){
		"feedforward": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
			a.Dim, a.NumHeavyTokens = c, heavy
			m, err := colt5.NewConditionalRoutedFeedForward(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			return moduleCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], colt5.FeedForwardOptions{})
			}, m}, nil
		},
		"attention": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.ConditionalRoutedAttentionConfig]()
			a.Dim, a.NumHeavyTokensQ, a.NumHeavyTokensKV = c, heavy, heavy
			m, err := colt5.NewConditionalRoutedAttention(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			return moduleCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], colt5.AttentionOptions{})
			}, m}, nil
		},
		"cross": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.ConditionalRoutedCrossAttentionConfig]()
			a.Dim, a.NumTokensQ, a.NumTokensKV = c, heavy, heavy
			m, err := colt5.NewConditionalRoutedCrossAttention(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			in := map[string][]int{"x": y, "context": {items, 2 * n, c}}
			return moduleCall{in, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], in["context"], colt5.CrossAttentionOptions{})
			}, m}, nil
		},
		"autoregressive transformer": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.AutoregressiveTransformerConfig]()
			a.Dim, a.Depth, a.NumTokens, a.CausalQueryRouting, a.NumHeavyTokensQ, a.NumHeavyTokensKV = c, 2, 256, true, 32, heavy
			m, err := colt5.NewAutoregressiveTransformer(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			n := n / 2 // coordinate descent over the tokens before each window grows with the square
			return moduleCall{map[string][]int{"ids": {items, n}}, []int{items, n, 256}, m.Parameters(),
				func(ctx context.Context, y *colt5.Tensor, in tensors) error {
					return m.Forward(ctx, y, in["ids"], colt5.AutoregressiveOptions{})
				}, m}, nil
		},
		"encoder": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.EncoderConfig]()
			a.Dim, a.Depth, a.NumTokens = c, 2, 256
			a.NumHeavyAttnTokensQ, a.NumHeavyAttnTokensKV, a.NumHeavyFFTokens = heavy, heavy, heavy
			m, err := colt5.NewEncoder(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			return moduleCall{ids, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["ids"], colt5.BlockOptions{})
			}, m}, nil
		},
		"image": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.ConditionalRoutedImageAttentionConfig]()
			a.Dim, a.NumHeavyTokensQ, a.NumHeavyTokensKV, a.ChannelFirst = c, heavy, heavy, true
			a.LightWindowSize = min(a.LightWindowSize, n/32)
			m, err := colt5.NewConditionalRoutedImageAttention(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			width := min(128, n/8)
			image := []int{items, c, n / width, width}
			return moduleCall{map[string][]int{"x": image}, image, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], colt5.ImageOptions{})
			}, m}, nil
		},
		"ViT": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.ConditionalRoutedViTConfig]()
			a.ImageSize, a.PatchSize, a.NumClasses, a.Dim, a.Depth = colt5.Size{Height: n / 8, Width: 64}, colt5.Size{Height: 8, Width: 8}, 10, c, 1
			a.AttnNumHeavyTokensQ, a.AttnNumHeavyTokensKV, a.AttnHeavyDimHead, a.AttnHeavyHeads = 4, 4, 16, 2
			a.AttnLightWindowSize, a.AttnLightDimHead, a.AttnLightHeads = 4, 16, 2
			a.FFNumHeavyTokens, a.FFHeavyMult, a.FFLightMult = 4, 4, 2
			m, err := colt5.NewConditionalRoutedViT(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			in := map[string][]int{"x": {items, a.Channels, a.ImageSize.Height, a.ImageSize.Width}}
			return moduleCall{in, []int{items, 10}, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], colt5.ViTOptions{})
			}, m}, nil
		},
		"local attention": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			a := colt5.Default[colt5.LocalMHAConfig]()
			a.Dim, a.WindowSize = c, 128
			m, err := colt5.NewLocalMHA(ctx, d, a)
			if err != nil {
				return moduleCall{}, err
			}
			return moduleCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], colt5.LocalMHAOptions{})
			}, m}, nil
		},
		"plain feedforward": func(ctx context.Context, d *vk.Device) (moduleCall, error) {
			m, err := colt5.NewFeedForward(ctx, d, colt5.FeedForwardConfig{Dim: c, Mult: 4})
			if err != nil {
				return moduleCall{}, err
			}
			return moduleCall{x, y, m.Parameters(), func(ctx context.Context, y *colt5.Tensor, in tensors) error {
				return m.Forward(ctx, y, in["x"], colt5.CallOptions{})
			}, m}, nil
		},
	}
}

// runCall plans and runs a forward and backward pass.
func runCall(ctx context.Context, d *vk.Device, c moduleCall) (stats colt5.CallStats, err error) {
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
