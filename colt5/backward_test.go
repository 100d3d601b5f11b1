package colt5

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// backwardRun is a module in a graph of its own, with a backward pass.
type backwardRun struct {
	graph   *Graph
	inputs  feed // by name
	y       *Tensor
	options GraphOptions
}

// backwardGraph makes the graph of a module. forward gets values by the names of inputs; a missing one is nil.
func (fx *fixture) backwardGraph(inputs feed, forward func(ctx context.Context, y *Tensor, in feed) error) *Graph {
	fx.t.Helper()
	g, in := fx.graph(), feed{}
	maps.DeleteFunc(inputs, func(_ string, t *Tensor) bool { return t == nil })
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		in[name] = g.Input(name, inputs[name].DType(), make([]int, len(inputs[name].Shape()))...)
	}
	y := g.Value("y")
	require.NoError(fx.t, forward(fx.t.Context(), y, in))
	g.Output("y", y)
	return g
}

// backwardRun makes a run that computes the gradients of all parameters and f32 inputs, for an upstream gradient dy.
func (fx *fixture) backwardRun(parameters []Parameter, inputs feed, dy []float32, shape []int,
	forward func(ctx context.Context, y *Tensor, in feed) error) backwardRun {
	fx.t.Helper()
	r := backwardRun{graph: fx.backwardGraph(inputs, forward), inputs: inputs, y: fx.tensor(F32, shape...)}
	back := &Backward{Upstream: feed{"y": fx.floats(dy, shape...)}, Inputs: feed{}}
	for name, t := range inputs {
		if t.DType() == F32 {
			back.Inputs[name] = fx.tensor(F32, t.Shape()...)
		}
	}
	if len(parameters) > 0 {
		var err error
		back.Parameters, err = NewGradients(fx.dev, parameters)
		require.NoError(fx.t, err)
		fx.closeAtEnd(back.Parameters)
	}
	r.options.Backward = back
	return r
}

// gradients runs forward and backward, and returns all gradients by name. They and the paddings between them were NaN before.
func (fx *fixture) gradients(r backwardRun) map[string][]float32 {
	fx.t.Helper()
	back, got := r.options.Backward, map[string][]float32{}
	fill := func(t *Tensor) { require.NoError(fx.t, t.Write(fx.t.Context(), nanFill(t.Len()))) }
	for _, t := range back.Inputs {
		fill(t)
	}
	if back.Parameters != nil {
		fill(back.Parameters.Flat())
	}
	tensors := maps.Clone(r.inputs)
	tensors["y"] = r.y
	require.NoError(fx.t, r.graph.Run(fx.t.Context(), tensors, r.options))
	for name, t := range back.Inputs {
		got["in."+name] = fx.read(t)
	}
	if back.Parameters != nil {
		flat, end := fx.read(back.Parameters.Flat()), 0
		for _, p := range back.Parameters.List() {
			got[p.Name] = fx.read(p.Tensor)
			require.Equal(fx.t, got[p.Name], flat[end:][:p.Tensor.Len()], p.Name)
			for end += p.Tensor.Len(); end%(gradientAlignment/4) != 0; end++ {
				require.Zero(fx.t, flat[end], "the padding after %s", p.Name)
			}
		}
		require.Len(fx.t, flat, end)
	}
	return got
}

// checkBackward compares the gradients of a module's inputs and parameters with the CPU reference, and two runs with each other.
func (fx *fixture) checkBackward(parameters []Parameter, inputs feed, shape []int, forward func(ctx context.Context, y *Tensor, in feed) error,
	reference func(dy []float32) (ref.Gradients, ref.GradientsOf[float32])) {
	fx.t.Helper()
	dy := normal(77, product(shape))
	r := fx.backwardRun(parameters, inputs, dy, shape, forward)
	got := fx.gradients(r)
	want, plain := reference(dy)
	for name, g := range want.Inputs {
		if t := inputs[name]; t != nil && t.DType() == F32 {
			assert.NoError(fx.t, ref.MaxErr(got["in."+name], g).Within(ref.Bound(plain.Inputs[name], g, gradientFloor)), "gradient of %s", name)
		}
	}
	for _, p := range parameters {
		g, ok := want.Params[p.Name]
		require.True(fx.t, ok, p.Name)
		assert.NoError(fx.t, ref.MaxErr(got[p.Name], g).Within(ref.Bound(plain.Params[p.Name], g, gradientFloor)), "gradient of %s", p.Name)
	}
	assert.Equal(fx.t, got, fx.gradients(r), "the second run")
}

// gradientFloor is the smallest bound of a gradient's error: see referenceFloor.
const gradientFloor = 4 * referenceFloor

// splitRun is the gradients of the items of a batch, given in parts of so many items, added in a balanced binary tree.
func treeSum(parts []map[string][]float32) map[string][]float32 {
	if len(parts) == 1 {
		return parts[0]
	}
	a, b := treeSum(parts[:len(parts)/2]), treeSum(parts[len(parts)/2:])
	sum := map[string][]float32{}
	for name := range a {
		sum[name] = make([]float32, len(a[name]))
		for i := range sum[name] {
			sum[name][i] = a[name][i] + b[name][i]
		}
	}
	return sum
}

// TestMicroBatches: the gradients of parameters have the same bits however a batch of 8 is split, and the gradient of an item's
// input does not depend on the other items.
func TestMicroBatches(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 6 s; package train has a test with micro-batches")
	}
	fx := newFixture(t)
	const items, n = 8, smallN
	for _, s := range fx.testModules(F32) {
		if s.module == nil || s.vocabulary == 0 && s.name != "block" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			fx := fx.sub(t)
			v := s.randomInput(3, items, true)
			_, all := fx.upload(s, items, v)
			shape := append([]int{items}, s.y...)
			dy := normal(5, product(shape))
			forward := func(ctx context.Context, y *Tensor, in feed) error {
				return s.forward(ctx, y, callArgs{x: in["x"], mask: in["mask"]})
			}
			split := func(size int) (parts []map[string][]float32) {
				for first := 0; first < items; first += size {
					x, err := all.x.Rows(first, size)
					require.NoError(t, err)
					fx.closeAtEnd(x)
					inputs := feed{"x": x}
					if all.mask != nil {
						mask, err := all.mask.Rows(first, size)
						require.NoError(t, err)
						fx.closeAtEnd(mask)
						inputs["mask"] = mask
					}
					width := product(s.y)
					r := fx.backwardRun(s.module.Parameters(), inputs, dy[first*width:(first+size)*width], append([]int{size}, s.y...), forward)
					g := fx.gradients(r)
					delete(g, "in.x")
					parts = append(parts, g)
				}
				return parts
			}
			want := treeSum(split(8))
			for _, size := range inShortMode([]int{1}, []int{1, 2, 4}) {
				got := treeSum(split(size))
				for name := range want {
					assert.True(t, sameBits(want[name], got[name]), "%s in parts of %d items", name, size)
				}
			}
		})
	}
}
