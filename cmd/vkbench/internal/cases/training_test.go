package cases

import (
	"context"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBackwardNames(t *testing.T) {
	names, with16 := Names(All()), with16Bit()
	seen := map[string]bool{}
	for _, name := range names {
		assert.False(t, seen[name], "two cases %s", name)
		seen[name] = true
	}
	for _, m := range Modules() {
		assert.Contains(t, names, m.Name+BackwardSuffix)
		assert.Equal(t, slices.Contains(with16, m.Name), slices.Contains(with16, m.Name+BackwardSuffix), m.Name)
	}
	assert.Contains(t, with16, trainStep)
}

// TestBackwardOutputs requires every output of a backward pass to be noticed where the run does not write it.
func TestBackwardOutputs(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	dev := gputest.Device(t)
	gputest.CountCase()
	names := validateUnwritten(t, "feedforward_backward", []int{2, 40, 16, 5}, func(ctx context.Context, w *Workload) { require.NoError(t, w.Validate(ctx)) })
	assert.Equal(t, []string{"y", "gradient of x", "gradients of parameters"}, names)
	names = validateUnwritten(t, "cross_backward", []int{1, 16, 64, 16, 1, 0}, func(context.Context, *Workload) {})
	assert.Equal(t, []string{"y", "gradient of x", "gradient of context", "gradients of parameters"}, names)
	names = validateUnwritten(t, "train_step", []int{1, 128, 16, 1}, func(context.Context, *Workload) {})
	assert.Equal(t, []string{"loss and norm of the gradients", "parameters"}, names)

	require.NoError(t, scope.Run(t.Context(), dev, func(s *scope.Scope) error {
		w, err := setupTrainStep(&Builder{Scope: s}, []int{1, 128, 16, 1})
		require.NoError(t, err)
		require.NoError(t, w.Validate(t.Context()))
		require.NoError(t, w.Outputs[1].poison(t.Context()))
		assert.ErrorContains(t, w.Outputs[1].validate(t.Context()), "the step changed 0 of ")
		return nil
	}))
}

// validateUnwritten sets a case up, calls run, poisons all outputs and validates them. It returns their names.
func validateUnwritten(t *testing.T, name string, size []int, run func(context.Context, *Workload)) (names []string) {
	t.Helper()
	list, err := Select(All(), []string{name}, nil)
	require.NoError(t, err)
	require.NoError(t, scope.Run(t.Context(), gputest.Device(t), func(s *scope.Scope) error {
		w, err := list[0].Setup(&Builder{Scope: s, Precision: pipelines.F32}, size)
		require.NoError(t, err)
		run(t.Context(), w)
		for _, o := range w.Outputs {
			require.NoError(t, o.poison(t.Context()))
			assert.Error(t, o.validate(t.Context()), o.name)
			names = append(names, o.name)
		}
		return nil
	}))
	return names
}
