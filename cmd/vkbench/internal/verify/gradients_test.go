package verify

import (
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
	for _, test := range []struct{ name, router, gradient, note string }{
		{"vit_1", "transformer.layers.0.0.q_router", "grad.param.to_patch_embedding.", " lists name other tokens than the case"},
		{"block_1", "conditional_ff.router", "grad.param.conditional_ff.", " lists name other tokens than the case"},
	} {
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
		assert.Contains(t, strings.Join(other.problems, "; "), test.gradient)
		assert.Regexp(t, `^1 of \d+`+test.note, other.remark())
		assert.Less(t, own.worst.err, 1e-3)
	}
}
