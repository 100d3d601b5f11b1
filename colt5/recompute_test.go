package colt5

import (
	"context"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// trainingCases are small modules with a forward and a backward pass worth keeping something for. 16-bit operands need heads of
// 8 elements.
func (fx *fixture) recomputeCases(p DType) []moduleCase {
	var list []moduleCase
	for _, s := range fx.testModules(p) {
		if s.name != "rmsnorm" {
			list = append(list, s)
		}
	}
	return list
}

// TestRecompute: activation checkpointing saves memory, costs work, and changes no bit of results and gradients.
func TestRecompute(t *testing.T) {
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
	require.EqualError(t, err, "colt5: Graph.TrainingMemory: Recompute is -2, want a number of layers, or -1 for all")
}
