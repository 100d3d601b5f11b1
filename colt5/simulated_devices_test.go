package colt5

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The golden cases pass on devices with low limits, except where the workgroups are small: then a call works, or the
// error is vk.ErrUnsupported and names the limit.
func TestSimulatedDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 7 s")
	}
	if !gputest.Device(t).Caps().CPU {
		t.Skip("GPUs with 16 KiB of shared memory have no float32 attention kernel for heads of dim 64")
	}
	t.Cleanup(pretend.Nothing()) // GPUs with 16 KiB of shared memory have no kernel for heads of dim 64
	devices := simulate.Devices()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if name != "all" && name != "invocations" && os.Getenv("COLT5_EVERY_LIMIT") != "1" {
			continue // "all" has the others
		}
		t.Run(name, func(t *testing.T) {
			gputest.Simulate(t, devices[name])
			if name == "invocations" {
				testSmallWorkgroups(newFixture(t))
				return
			}
			for module, test := range map[string]func(*testing.T){
				"attention": TestGoldenAttention, "block": TestGoldenBlock, "cross": TestGoldenCrossAttention,
				"autoregressive": TestGoldenAutoregressiveAttention, "image": TestGoldenImageAttention, "vit": TestGoldenViT,
				"coordinate descent": TestGoldenCoordinateDescent, "top-k": TestGoldenTopK, "router": TestGoldenRouter, "feedforward": TestGoldenFeedForward,
			} {
				t.Run(module, test)
			}
		})
	}
}

func testSmallWorkgroups(fx *fixture) {
	unsupported := 0
	for _, s := range fx.testModules(F32) {
		y, in := fx.upload(s, 1, s.randomInput(1, 1, s.masked))
		if err := s.forward(fx.t.Context(), y, in); err != nil {
			unsupported++
			assert.ErrorIs(fx.t, err, vk.ErrUnsupported, s.name)
			assert.Regexp(fx.t, `maxComputeWorkGroup(Size|Invocations)`, err.Error(), s.name)
		}
	}
	assert.Positive(fx.t, unsupported)
}

// Without timestamps a call gives the same result, and its statistics have no times.
func TestNoTimestamps(t *testing.T) {
	run := func(t *testing.T) (result []float32, stats CallStats) {
		fx := newFixture(t)
		m := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
		x, y := fx.floats(normal(1, smallN*smallDim), 1, smallN, smallDim), fx.tensor(F32, 1, smallN, smallDim)
		for range 2 {
			stats = CallStats{Profile: true}
			require.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{Stats: &stats}))
		}
		return fx.read(y), stats
	}
	want, timed := run(t)
	if timed.Time == 0 {
		t.Skip("the device has no timestamps")
	}
	t.Run("simulated", func(t *testing.T) {
		gputest.Simulate(t, simulate.Limits{NoTimestamps: true})
		got, stats := run(t)
		assert.True(t, sameBits(want, got))
		assert.Zero(t, stats.Time)
		assert.Nil(t, stats.StepTimes)
		timed.Time, timed.StepTimes = 0, nil
		assert.Equal(t, timed, stats)
	})
}
