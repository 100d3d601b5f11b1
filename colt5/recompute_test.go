package colt5

import (
	"context"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recomputeCases are the small modules whose forward pass computes something worth keeping.
func (fx *fixture) recomputeCases(p DType) []moduleCase {
	var list []moduleCase
	slow := p != F32 && fx.dev.Caps().CPU // compiling 16-bit kernels
	for _, s := range fx.testModules(p) {
		if s.name != "rmsnorm" && (!slow || s.name == "block" || s.name == "plain feedforward") {
			list = append(list, s)
		}
	}
	if p == F32 || slow {
		return list
	}
	transformer, image, local := smallTransformer(), smallImage(), smallLocalMHA() // attentions have 16 bits with heads of 8
	transformer.LightDimHead, transformer.HeavyDimHead, image.LightDimHead, image.HeavyDimHead, local.DimHead = 8, 8, 8, 8, 8
	local.PreNorm = false
	tokens, pixels := []int{smallN, smallDim}, []int{smallDim, 8, 12}
	for _, k := range []moduleType{
		newModuleType(moduleCase{name: "transformer with heads of 8", layers: 2, x: tokens[:1], y: []int{smallN, 256}, vocabulary: 256},
			withPrecision(p, transformer), NewAutoregressiveTransformer, func(ctx context.Context, m *AutoregressiveTransformer, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, AutoregressiveOptions{})
			}),
		newModuleType(moduleCase{name: "image with heads of 8", x: pixels, y: pixels, masked: true, pixels: pixels[1:]},
			withPrecision(p, image), NewConditionalRoutedImageAttention, func(ctx context.Context, m *ConditionalRoutedImageAttention, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, ImageOptions{Mask: in.mask})
			}),
		newModuleType(moduleCase{name: "local attention with heads of 8", x: tokens, y: tokens, masked: true},
			withPrecision(p, local), NewLocalMHA, func(ctx context.Context, m *LocalMHA, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, LocalMHAOptions{Mask: in.mask})
			}),
	} {
		list = append(list, k.create(fx))
	}
	return list
}

// TestRecompute: activation checkpointing saves memory, costs work, and changes no bit of results and gradients.
func TestRecompute(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 7 s on CPU drivers")
	}
	fx := newFixture(t)
	for _, p := range []DType{F32, F16} {
		if p.Supported(fx.dev.Caps()) != nil {
			continue
		}
		for _, s := range fx.recomputeCases(p) {
			t.Run(p.String()+" "+s.name, func(t *testing.T) {
				gputest.CountCase()
				fx := fx.sub(t)
				const items = 2
				_, in := fx.upload(s, items, s.randomInput(3, items, true))
				shape := append([]int{items}, s.y...)
				r := fx.backwardRun(s.module.Parameters(), feed{"x": in.x, "mask": in.mask, "context": in.context, "contextMask": in.contextMask},
					normal(5, product(shape)), shape, func(ctx context.Context, y *Tensor, v feed) error {
						return s.forward(ctx, y, callArgs{x: v["x"], mask: v["mask"], context: v["context"], contextMask: v["contextMask"]})
					})
				results := func(layers int) (map[string][]float32, CallStats) {
					var stats CallStats
					r.options.Backward.Recompute, r.options.Stats = layers, &stats
					got := fx.gradients(r)
					got["y"] = fx.readFinite(r.y)
					return got, stats
				}
				kept, few := results(0)
				again, more := results(-1)
				for name := range kept {
					assert.True(t, sameBits(kept[name], again[name]), name)
				}
				assert.Less(t, few.Flops, more.Flops)
				if s.layers == 2 {
					half, some := results(1)
					for name := range kept {
						assert.True(t, sameBits(kept[name], half[name]), name)
					}
					assert.Less(t, few.Flops, some.Flops)
					assert.Less(t, some.Flops, more.Flops)
				}
			})
		}
	}
}

func TestRecomputeErrors(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewFeedForward, smallPlainFeedForward())
	r := fx.backwardRun(m.Parameters(), feed{"x": fx.floats(normal(1, smallDim), 1, smallDim)}, normal(2, smallDim), []int{1, smallDim},
		func(ctx context.Context, y *Tensor, in feed) error { return m.Forward(ctx, y, in["x"], CallOptions{}) })
	r.options.Backward.Recompute = -2
	require.EqualError(t, r.graph.Run(t.Context(), feed{"x": r.inputs["x"], "y": r.y}, r.options),
		"colt5: Graph.Run: Backward.Recompute is -2, want a number of layers, or -1 for all")
	_, err := r.graph.TrainingMemory(fx.dev.Caps(), map[string][]int{"x": {1, smallDim}}, -2)
	require.EqualError(t, err, "colt5: Graph.TrainingMemory: recompute is -2, want a number of layers, or -1 for all")
}

// TestRecomputeGroups: hidden activations of several groups of rows are kept at their places.
func TestRecomputeGroups(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	m.layer.(*routedFeedForward).budget = 1 // 128 rows
	shape := []int{1, 300, smallDim}
	r := fx.backwardRun(m.Parameters(), feed{"x": fx.floats(normal(1, product(shape)), shape...)}, normal(2, product(shape)), shape,
		func(ctx context.Context, y *Tensor, in feed) error {
			return m.Forward(ctx, y, in["x"], FeedForwardOptions{})
		})
	kept := fx.gradients(r)
	r.options.Backward.Recompute = -1
	assert.Equal(t, kept, fx.gradients(r))
}
