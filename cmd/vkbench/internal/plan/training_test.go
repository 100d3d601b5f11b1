package plan

import (
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// plannedTraining returns the output of plan -train by part.
func plannedTraining(t *testing.T, args ...string) map[string]float64 {
	t.Helper()
	code, out, remarks := program.Run(append([]string{"plan", "-train", "-o", "json"}, args...)...)
	require.Equal(t, command.ExitOK, code, remarks)
	parts, sum := map[string]float64{}, 0.0
	for _, r := range commandtest.Objects(t, out) {
		parts[r["part"].(string)] = r["bytes"].(float64)
		sum += r["bytes"].(float64)
	}
	assert.Len(t, parts, 7)
	assert.Equal(t, 2*parts["total"], sum)
	return parts
}

// TestPlanTraining compares training steps with calls of all modules.
func TestPlanTraining(t *testing.T) {
	for _, args := range []string{
		"feedforward 2x40x16x5", "attention 2x150x16x5", "block 2x140x16x5", "cross 1x32x640x16x1x0", "autoregressive 2x300x16x40", "image 1x16x16x16x8x20",
		"vit 1x16x2x16x1", "encoder 2x70x16x5x1", "autoregressive_transformer 1x140x16x5x1",
	} {
		call, step := planned(t, strings.Fields(args)...), plannedTraining(t, strings.Fields(args)...)
		assert.Equal(t, call["weights"], step["weights"], args)
		assert.Greater(t, step["workspace"], call["workspace"], args)
		assert.InDelta(t, step["weights"], step["gradients"], 16*100, args)
		assert.InDelta(t, 2*step["gradients"], step["optimizer"], 64<<10, args)
	}
	for _, precision := range []string{"f16", "bf16"} {
		parts := plannedTraining(t, "autoregressive_transformer", "2x8192x512x1024x6", "-precision", precision)
		assert.Less(t, parts["total"], 3.0*(1<<30), precision)
		least := plannedTraining(t, "autoregressive_transformer", "2x8192x512x1024x6", "-precision", precision, "-recompute", "-1")
		assert.Less(t, least["total"], 1.5*(1<<30), precision)
		half := plannedTraining(t, "autoregressive_transformer", "2x8192x512x1024x6", "-precision", precision, "-recompute", "3")
		assert.Less(t, least["total"], half["total"], precision)
		assert.Less(t, half["total"], parts["total"], precision)
	}
}

func TestPlanTrainingTooSmall(t *testing.T) {
	code, out, remarks := program.Run("plan", "-train", "autoregressive_transformer", "2000x8192x512")
	assert.Equal(t, command.ExitFailed, code)
	assert.Contains(t, out, "a training step of autoregressive_transformer 2000x8192x512 on an NVIDIA H200")
	assert.Regexp(t, `a training step of autoregressive_transformer needs .* TiB, but the device has 140.40 GiB; the largest batch that fits is \d+\n`, remarks)
	program.RejectsUsage(t, [][2]string{
		{"plan -train", "plan got 0 arguments"},
		{"plan -recompute 1 encoder 2x8", "-recompute needs -train"},
		{"plan -train -recompute -2 encoder 2x8", "-recompute is -2, want a number of layers, or -1 for all"},
		{"plan -train encoder 2x0", "N is 0, want 1 to"},
		{"plan -train vit 2147483647", "B is 2147483647, want 1 to 33554431"},
	})
}

// TestPlanMatchesTraining compares the plan with the memory of a trainer.
func TestPlanMatchesTraining(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers")
	}
	dev := gputest.Device(t)
	gputest.CountCase()
	size := []int{2, 140, 16, 1024, 1}
	want := plannedTraining(t, "autoregressive_transformer", dims.Format(size), "-device", dev.Info().UUID)
	before := dev.Stats().BufferBytes
	require.NoError(t, scope.Run(t.Context(), dev, func(s *scope.Scope) error {
		m := examples.AutoregressiveTransformer()
		c, err := m.Call(t.Context(), dev, m.Config(size, colt5.F32), size)
		require.NoError(t, err)
		scope.Keep(s, c.Module, nil)
		g, err := c.LossGraph(t.Context(), dev)
		require.NoError(t, err)
		scope.Keep(s, g, nil)
		trainer, err := train.NewTrainer(t.Context(), g, c.Parameters, train.OptimizerConfig{Clip: 1})
		require.NoError(t, err)
		scope.Keep(s, trainer, nil)
		b := &train.Batch{Items: size[0], Length: size[1], IDs: make([]uint8, size[0]*size[1]), Labels: make([]int32, size[0]*size[1])}
		require.NoError(t, trainer.Step(t.Context(), b))
		require.NoError(t, trainer.Wait(t.Context()))
		assert.Equal(t, want["total"], float64(dev.Stats().BufferBytes-before))
		return nil
	}))
}
