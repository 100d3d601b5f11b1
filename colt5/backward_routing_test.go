package colt5

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The backward pass, and what it computes again, has the logits and lists of the forward pass: a block has three routers, two
// of which share a step, and three selections.
func TestBackwardReusesLists(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 8 s on CPU drivers; TestFeedForward has gradients")
	}
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedTransformerBlock, smallBlock())
	shape := []int{1, smallN, smallDim}
	inputs := feed{"x": fx.floats(normal(3, product(shape)), shape...)}
	r := fx.backwardRun(m.Parameters(), inputs, normal(5, product(shape)), shape, func(ctx context.Context, y *Tensor, in feed) error {
		return m.Forward(ctx, y, in["x"], BlockOptions{})
	})
	stats := CallStats{Profile: true}
	r.options.Stats = &stats
	fx.gradients(r)
	if stats.StepTimes == nil {
		t.Skip("the device has no timestamps")
	}
	steps := map[string]int{}
	for _, s := range stats.StepTimes {
		for _, kernel := range []string{"router_logits", "select"} {
			if strings.HasPrefix(s.Name, kernel) && !strings.Contains(s.Name, "backward") {
				steps[kernel]++
			}
		}
	}
	require.NotEmpty(t, steps)
	assert.Equal(t, map[string]int{"router_logits": 2, "select": 3}, steps)
}
