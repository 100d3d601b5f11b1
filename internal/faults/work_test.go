//go:build linux

package faults_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The most work of a dispatch. Systems reset a device on which one dispatch takes some seconds. So much takes a slow GPU,
// with 50 GFLOP/s and 20 GB/s, a second and less.
const (
	maxFlops = 50e9
	maxBytes = 1.5e9
)

// TestDispatchWork: no dispatch of a forward and backward pass over a million tokens exceeds maxFlops or maxBytes.
func TestDispatchWork(t *testing.T) {
	needLoader(t)
	for _, gpu := range []bool{false, true} {
		loader.PretendGPU(gpu)
		loader.ComputeNothing(1 << 42)
		d, err := vk.Open(vk.Options{CacheDir: "-"})
		require.NoError(t, err)
		all := makers(8, 1<<17, 512, 1024)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			c, err := all[name](t.Context(), d)
			require.NoError(t, err, name)
			stats, err := runCall(t.Context(), d, c)
			require.NoError(t, err, name)
			require.NoError(t, c.module.Close())
			var most, mostBytes vk.StepTime
			for _, s := range stats.StepTimes {
				if s.Flops > most.Flops {
					most = s
				}
				if s.Bytes > mostBytes.Bytes {
					mostBytes = s
				}
			}
			t.Logf("gpu %v %s: %d steps, %.3g flops in %s, %.3g bytes in %s", gpu, name, len(stats.StepTimes), most.Flops, most.Name, mostBytes.Bytes, mostBytes.Name)
			assert.NotEmpty(t, stats.StepTimes, name)
			assert.LessOrEqual(t, most.Flops, maxFlops, "%s: %s", name, most.Name)
			assert.LessOrEqual(t, mostBytes.Bytes, maxBytes, "%s: %s", name, mostBytes.Name)
		}
		require.NoError(t, d.Close())
		loader.ComputeNothing(0)
		loader.PretendGPU(false)
		assert.Empty(t, loader.Live())
	}
}
