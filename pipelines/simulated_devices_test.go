package pipelines

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/internal/spirv"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// countSteps are the kernels whose tests count steps, of which there are more where dispatches are divided.
var countSteps = []string{"coor_descent", "coor_descent state", "column_sum", "tree_sum", "rmsnorm_backward", "layernorm_backward",
	"router_logits_backward", "gradient_norm"}

// Every kernel works on devices with low limits, except where the workgroups are small: then it works, or the error is
// vk.ErrUnsupported and names the limit.
func TestSimulatedDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	kernels := []struct {
		name string
		test func(*testing.T)
	}{
		{"cross_entropy", TestCrossEntropyBits}, {"mse", TestMSEBits}, {"dropout", TestDropoutThreshold},
		{"mean_pool_backward", TestMeanPoolBackward}, {"causal_select_backward", TestCausalSelectBackward},
		{"rmsnorm", TestRMSNormGather}, {"layernorm", TestLayerNormInPlaceAndSlice}, {"linear", TestLinearEmptySlots}, {"linear oracle", TestLinearOracle},
		{"router_logits", TestRouterLogitsAtOffset}, {"coor_descent", TestCoorDescentGolden}, {"coor_descent state", TestCoorDescentInPlace},
		{"coor_descent_backward", TestCoorDescentBackwardInPlace}, {"gelu_backward", TestGELUBackwardInPlace}, {"column_sum", TestColumnSum},
		{"linear_backward", TestLinearBackwardBits}, {"tree_sum", TestTreeSum}, {"rmsnorm_backward", TestRMSNormBackwardBits}, {"layernorm_backward", TestLayerNormBackwardBits},
		{"gather_backward", TestGatherBackwardBits}, {"router_logits_backward", TestRouterLogitsBackwardBits},
		{"select", TestSelectUnaligned}, {"causal_select", TestCausalSelect},
		{"gather", TestGatherAtOffset}, {"scatter", TestScatterAtOffset}, {"membership_mask", TestMembershipMask},
		{"window_attention", TestWindowAttentionMasksNaN}, {"patch_attention", TestPatchAttentionBits}, {"routed_attention", TestRoutedAttentionEmptyScoreNaN},
		{"window_attention_backward", TestWindowAttentionBackwardBits}, {"patch_attention_backward", TestPatchAttentionBackwardBits},
		{"routed_attention_backward", TestRoutedAttentionBackwardBits},
		{"rotary", TestRotaryTable}, {"cast", TestCast}, {"embed", TestEmbed}, {"embed_backward", TestEmbedBackwardBits}, {"patch_embed", TestPatchEmbedBits}, {"permute", TestPermute},
		{"mean_pool", TestMeanPool}, {"add", TestAdd}, {"copy_rows", TestCopyRows},
		{"gradient_norm", TestGradientNormPositions}, {"optimizer_state", TestOptimizerStateScale}, {"adamw", TestAdamWSkip}, {"precision", testSimulatedPrecision},
	}
	devices := simulate.Devices()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if name != "all" && name != "invocations" && os.Getenv("COLT5_EVERY_LIMIT") != "1" {
			continue // "all" has the others
		}
		t.Run(name, func(t *testing.T) {
			dev := gputest.Simulate(t, devices[name])
			for _, k := range kernels {
				if name == "invocations" || name == "traffic" && slices.Contains(countSteps, k.name) {
					continue
				}
				t.Run(k.name, k.test)
			}
			if name == "invocations" {
				testSmallWorkgroups(t, dev)
				t.Run("linear", TestLinearEmptySlots)
				t.Run("select", TestSelectUnaligned)
			}
		})
	}
}

// The kernels that a GPU gets fit 16 KiB of shared memory, or the error names it.
func TestSimulatedGPU(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	gputest.Simulate(t, simulate.Devices()["shared"])
	defer pretend.Chip(pretend.Chips()["turing"])()
	t.Run("linear", TestLinearOracle)
	for _, tile := range linearTiles[:2] {
		code, err := shaders.SPV(tile.kernel)
		require.NoError(t, err)
		module, err := spirv.Reflect(code, nil)
		require.NoError(t, err)
		assert.EqualValues(t, tile.floatShared(), module.SharedBytes, tile.kernel)
	}
	t.Run("window_attention", TestWindowAttentionMasksNaN)
	t.Run("patch_attention", TestPatchAttentionBits)
	t.Run("routed_attention", TestRoutedAttentionEmptyScoreNaN)
}

// testSmallWorkgroups creates kernels on a device that may be too small for them.
func testSmallWorkgroups(t *testing.T, dev *vk.Device) {
	c := &compiler{dev: dev, caps: dev.Caps(), short: true}
	for _, add := range []func(*compiler){compileNorms, compileRouterLogits, compileSlots, compileRotary, compileEmbedPool} {
		add(c)
	}
	compile(c, NewCast, func(r *Cast) ([]*vk.Kernel, error) { return one(r.kernel()) }, CastConfig{C: 512, Precision: F16})
	compile(c, NewCausalSelect, func(s *CausalSelect) ([]*vk.Kernel, error) { return one(s.kernel, nil) }, CausalSelectConfig{})
	unsupported := 0
	for _, job := range c.jobs {
		if err := job(); err != nil {
			unsupported++
			require.ErrorIs(t, err, vk.ErrUnsupported)
			assert.Regexp(t, `maxComputeWorkGroup(Size|Invocations)`, err.Error())
		}
	}
	assert.Positive(t, unsupported)
	assert.Empty(t, c.close())
}

// testSimulatedPrecision: products in float16 work, or name the missing feature.
func testSimulatedPrecision(t *testing.T) {
	dev := gputest.Device(t)
	l, err := NewLinear(dev, LinearConfig{In: 64, Out: 64, Precision: F16})
	if err != nil {
		assert.ErrorIs(t, err, vk.ErrUnsupported)
		assert.Regexp(t, "VK_KHR_cooperative_matrix|vulkanMemoryModel|shaderFloat16|computeFullSubgroups|accumulates in float32", err.Error())
		return
	}
	assert.True(t, dev.Caps().Float16 && dev.Caps().FullSubgroups)
	assert.NoError(t, l.Close())
}
