package colt5

import (
	"context"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
)

// TestBackwardSumsItems: the only step that adds to a parameter's gradient adds the batch items too, up to 8 of them.
func TestBackwardSumsItems(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	const n, dim = 3, 8
	m := mustNewSeeded(fx, NewFeedForward, FeedForwardConfig{Dim: dim, Mult: 2})
	for _, c := range []struct {
		items, uses, trees, fewRows int
		part                        bool // of the parameters
	}{
		{items: 1, uses: 1},
		{items: 2, uses: 1, trees: 2, fewRows: 3}, // the weights' kernels have a tree sum
		{items: 2, uses: 1, trees: 1, fewRows: 1, part: true},
		{items: 2, uses: 2, trees: 5},
		{items: 9, uses: 1, trees: 10},
	} {
		shape := []int{c.items, n, dim}
		x, dy := normal(1, c.items*n*dim), normal(2, c.items*n*dim)
		parameters := m.Parameters()
		if c.part {
			parameters = parameters[:2]
		}
		r := fx.backwardRun(parameters, feed{"x": fx.floats(x, shape...)}, dy, shape, func(ctx context.Context, y *Tensor, in feed) error {
			if c.uses == 1 {
				return m.Forward(ctx, y, in["x"], CallOptions{})
			}
			middle := y.value.graph.Value("middle")
			if err := m.Forward(ctx, middle, in["x"], CallOptions{}); err != nil {
				return err
			}
			return m.Forward(ctx, y, middle, CallOptions{})
		})
		var stats CallStats
		r.options.Stats = &stats
		fx.gradients(r)
		trees, fewRows := 0, 0
		for _, name := range stats.StepNames {
			if name == "tree_sum" {
				trees++
			}
			if strings.HasPrefix(name, "column_sum_few") {
				fewRows++
			}
		}
		assert.Equal(t, []int{c.trees, c.fewRows}, []int{trees, fewRows}, "%+v: %v", c, stats.StepNames)
	}
}
