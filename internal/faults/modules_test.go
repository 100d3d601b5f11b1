//go:build linux

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/faults"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEveryModule makes calls of the construction, the forward and the backward pass of every module fail, one in each run: the
// error names the call, and nothing is left. The device computes nothing, so results are those of TestEveryCall.
func TestEveryModule(t *testing.T) {
	needLoader(t)
	loader.ComputeNothing(1 << 42)
	defer loader.ComputeNothing(0)
	all := makers(2, 256, 32, 8)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		require.NoError(t, openAndRun(t.Context(), all[name]), name)
		loader.Inject(faults.Fault{})
		require.NoError(t, openAndRun(t.Context(), all[name]), name)
		calls := loader.Calls()
		require.Greater(t, calls, 50, name)
		ways := []faults.Fault{{Result: faults.OutOfHostMemory}, {Result: faults.OutOfDeviceMemory}, {Result: faults.Unknown}, {Mode: faults.Lose}}
		for i := 0; i < calls*len(ways); i += stride(397, 61) {
			gputest.CountCase()
			f := ways[i%len(ways)]
			f.At = i/len(ways) + 1
			what := fmt.Sprintf("%s: %v", name, f)
			loader.Inject(f)
			err := openAndRun(t.Context(), all[name])
			call, times := loader.Failed()
			switch {
			case times == 0:
				assert.NoError(t, err, what)
			case err == nil && mayFail(call):
			case err == nil && f.Result != faults.Unknown && slices.Contains(memoryCalls, call):
				// a workspace that does not fit is tried again without the plans of other calls
			case f.Mode == faults.Lose:
				assert.ErrorIs(t, err, vk.ErrDeviceLost, what)
			default:
				require.Error(t, err, "%s of %s", what, call)
				assert.Contains(t, err.Error(), call, what)
				assert.Equal(t, f.Result != faults.Unknown, errors.Is(err, vk.ErrOutOfMemory), what)
			}
			if err != nil {
				assert.Less(t, len(err.Error()), 1000, what)
				assert.True(t, strings.HasPrefix(err.Error(), "vk: ") || strings.HasPrefix(err.Error(), "colt5: "), "%s: %v", what, err)
			}
			require.Empty(t, loader.Live(), "%s: left", what)
			require.Empty(t, loader.Misuse(), what)
			if t.Failed() {
				return
			}
		}
		loader.Inject(faults.Fault{})
	}
}

var memoryCalls = []string{"vkCreateBuffer", "vkAllocateMemory", "vkBindBufferMemory"}

// openAndRun opens a device, makes a module, runs its forward and backward pass, and closes all.
func openAndRun(ctx context.Context, make func(context.Context, *vk.Device) (moduleCall, error)) error {
	d, err := vk.Open(vk.Options{CacheDir: "-", Timeout: timeLimit})
	if err != nil {
		return err
	}
	c, err := make(ctx, d)
	if err == nil {
		_, err = runCall(ctx, d, c)
		if e := c.module.Close(); err == nil {
			err = e
		}
	}
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}
