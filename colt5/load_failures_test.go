package colt5

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLoadAllOrNone interrupts a load at every tensor, in every way. The weights and what Forward computes must not
// change.
func TestLoadAllOrNone(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	fx := newLoadFixture(t)
	failure := errors.New("the file has shrunk")
	before, output := fx.values(fx.m.Parameters()), fx.output()
	n := len(before)
	check := func(err error, is error) {
		t.Helper()
		assert.ErrorIs(t, err, is)
		assert.Equal(t, before, fx.values(fx.m.Parameters()))
		assert.True(t, sameBits(output, fx.output()))
	}
	for at := 1; at <= n; at++ {
		src := newSource(fx.m.Parameters())
		src.read = func(n int) error {
			if n == at {
				return failure
			}
			return nil
		}
		check(fx.load(src, safetensors.LoadOptions{}), failure)

		ctx, cancel := context.WithCancel(t.Context())
		src.count, src.read = 0, func(n int) error {
			if n == at {
				cancel()
			}
			return nil
		}
		check(fx.m.LoadFrom(ctx, src, safetensors.LoadOptions{}), context.Canceled)

		last := src.names[at-1]
		src.count, src.read = 0, nil
		src.data[last] = src.data[last][1:]
		assert.ErrorContains(t, fx.load(src, safetensors.LoadOptions{}), " elements, want ")
		assert.Equal(t, before, fx.values(fx.m.Parameters()))
	}
	for at := range n { // no memory for the at-th parameter, and a tensor that fails
		src := newSource(fx.m.Parameters())
		src.read = func(n int) error {
			if n == at+1 {
				return failure
			}
			return nil
		}
		fx.m.weights.allocStaged = fx.noMemoryAfter(at)
		check(fx.load(src, safetensors.LoadOptions{}), failure)
	}
	fx.m.weights.allocStaged = nil
	src := newSource(fx.m.Parameters())
	submits := fx.dev.Stats().Submits
	require.NoError(t, fx.load(src, safetensors.LoadOptions{}))
	assert.EqualValues(t, n+1, fx.dev.Stats().Submits-submits, "one for each upload, and one that changes the weights")
	assert.Equal(t, src.data, fx.values(fx.m.Parameters()))
	assert.False(t, sameBits(output, fx.output()))
}

// noMemoryAfter returns an allocator of staged tensors that fails after n of them.
func (fx *loadFixture) noMemoryAfter(n int) func(shape []int) (*Tensor, error) {
	return func(shape []int) (*Tensor, error) {
		if n--; n < 0 {
			return nil, fmt.Errorf("new weights: %w", vk.ErrOutOfMemory)
		}
		return NewTensor(fx.dev, F32, shape...)
	}
}

// TestLoadInPlace: without device memory for a second copy the weights are written one by one. If that fails midway, the
// module refuses to compute until all weights have been replaced.
func TestLoadInPlace(t *testing.T) {
	fx := newLoadFixture(t)
	ctx, failure := t.Context(), errors.New("the file has shrunk")
	fx.m.weights.allocStaged = fx.noMemoryAfter(1)
	src := newSource(fx.m.Parameters())
	require.NoError(t, fx.load(src, safetensors.LoadOptions{}))
	assert.Equal(t, src.data, fx.values(fx.m.Parameters()))
	output := fx.output()
	n := len(src.names)
	y := fx.tensor(F32, 1, 20, 12)
	for name, repair := range map[string]func() error{
		"load": func() error { return fx.load(src, safetensors.LoadOptions{}) },
		"init": func() error { return fx.m.Init(ctx, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			src.count, src.read = 0, func(at int) error {
				if at == n+2 { // the second tensor of the second pass
					return failure
				}
				return nil
			}
			require.ErrorIs(t, fx.load(src, safetensors.LoadOptions{}), failure)
			src.read = nil
			for _, err := range []error{fx.m.Forward(ctx, y, fx.x, FeedForwardOptions{}), fx.m.Save(ctx, path)} {
				assert.ErrorIs(t, err, failure)
				assert.ErrorContains(t, err, "the weights are incomplete since an earlier call failed; Load or Init must succeed first")
			}
			assert.NoFileExists(t, path)
			part := &memorySource{data: src.data, shape: src.shape, names: src.names[:2]}
			assert.ErrorContains(t, fx.load(part, safetensors.LoadOptions{AllowMissing: true}), fmt.Sprintf("2 of %d parameters, want all", n))
			require.NoError(t, repair())
			if name == "load" {
				assert.True(t, sameBits(output, fx.output()))
			}
			fx.output()
			require.NoError(t, fx.m.Save(ctx, path))
		})
	}
}

// TestLoadInPlaceShared: modules that share weights, all or some, refuse to compute on those of a load that failed midway.
func TestLoadInPlaceShared(t *testing.T) {
	fx := newLoadFixture(t)
	ctx, failure := t.Context(), errors.New("the file has shrunk")
	other, own := mustNewSeeded(fx.fixture, NewConditionalRoutedFeedForward, fx.m.Config()), mustNewSeeded(fx.fixture, NewConditionalRoutedFeedForward, fx.m.Config())
	list := fx.m.Parameters()
	require.NoError(t, other.Share(ctx, list[len(list)-1:]))
	fx.m.weights.allocStaged = fx.noMemoryAfter(1)
	src := newSource(list)
	forward := func(m *ConditionalRoutedFeedForward) error {
		return m.Forward(ctx, fx.tensor(F32, 1, 20, 12), fx.x, FeedForwardOptions{})
	}
	fail := func() {
		t.Helper()
		src.count, src.read = 0, func(at int) error {
			if at == len(src.names)+2 {
				return failure
			}
			return nil
		}
		require.ErrorIs(t, fx.load(src, safetensors.LoadOptions{}), failure)
		src.read = nil
		for _, m := range []*ConditionalRoutedFeedForward{fx.m, other} {
			assert.ErrorIs(t, forward(m), failure)
		}
		require.NoError(t, forward(own))
	}
	fail()
	require.NoError(t, fx.load(src, safetensors.LoadOptions{}))
	require.NoError(t, forward(fx.m))
	require.NoError(t, forward(other))

	fail()
	require.NoError(t, own.Share(ctx, list[:1]), "the state belongs to the elements")
	assert.ErrorIs(t, forward(own), failure)
	require.NoError(t, other.Init(ctx, 5)) // replaces the element that it shares, and none of the others
	require.NoError(t, forward(other))
	assert.ErrorIs(t, forward(fx.m), failure)
	require.NoError(t, fx.m.Init(ctx, 5))
	for _, m := range []*ConditionalRoutedFeedForward{fx.m, other, own} {
		require.NoError(t, forward(m))
	}
}
