package verify

import (
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGradientsReplay has cases whose routers see 16-bit products, here with operands of 32 bits: the tokens of the case are
// replayed. Those of a case that names others give other gradients.
func TestGradientsReplay(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 25 s on CPU drivers; TestBackwardOfOutputs of package colt5 computes gradients of modules")
	}
	dev := gputest.Device(t)
	run := func(name string, change func(c *golden.Case)) *comparison {
		gputest.CountCase()
		c, err := golden.Load(goldenDir + name + ".safetensors")
		require.NoError(t, err)
		require.NoError(t, c.SetPrecision("f32"))
		require.True(t, c.RoutingMayDiffer())
		change(c)
		m, ok := moduleOf(c.Module)
		require.True(t, ok)
		found := &comparison{}
		require.NoError(t, scope.Run(t.Context(), dev, func(s *scope.Scope) error {
			_, err := check(s, c, m.setup, true, found)
			return err
		}))
		return found
	}
	for _, test := range []struct{ name, router string }{
		{"vit_1", "transformer.layers.1.1.router"},
		{"block_1", "conditional_ff.router"},
	} {
		if testing.Short() && test.name != "block_1" {
			continue // 15 s
		}
		own := run(test.name, func(*golden.Case) {})
		assert.Empty(t, own.problems)
		assert.Nil(t, own.remark())
		other := run(test.name, func(c *golden.Case) {
			route, ok := c.Routings[test.router]
			require.True(t, ok, "%v", c.Routings)
			selected := map[int32]bool{}
			count := len(route.Indices.I32) / route.Indices.Shape[0]
			for _, i := range route.Indices.I32[:count] {
				selected[i] = true
			}
			for i := range int32(count) + 1 { // a token of the first item that is not selected
				if !selected[i] {
					route.Indices.I32[0] = i
					return
				}
			}
		})
		assert.Greater(t, other.worst.err, 100*own.worst.err)
		assert.Regexp(t, `^1 of \d+ lists name other tokens than the case`, other.remark())
		assert.Less(t, own.worst.err, 1e-3)
	}

	const router = "transformer.layers.1.0.kv_router"
	of := func(score float32) func(c *golden.Case) {
		return func(c *golden.Case) {
			scores := c.Routings[router].ScoresAll.F32
			scores[slices.Index(scores, 1)] = score
			for _, g := range c.WeightGrads {
				g.F32[0] += 100 // would be a problem if compared
			}
		}
	}
	near := run("vit_1", of(0.985))
	assert.Empty(t, near.problems)
	assert.Equal(t, "gradients not compared: they jump where a soft score reaches 1, and one of "+router+" is 1, in the case 0.985", near.remark())
	assert.Contains(t, strings.Join(run("vit_1", of(0.97)).problems, "; "), "is 1, want 0.97")
}
