package colt5

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pytorchDir has modules of the PyTorch package: NAME.safetensors and NAME.json by scripts/from_pytorch.py, and
// cases/NAME.safetensors with inputs, PyTorch's outputs and routing. `scripts/compare_pytorch.py files DIR` made them.
const pytorchDir = "testdata/pytorch"

// pytorchBound is the largest difference to PyTorch.
const pytorchBound = 1e-5

// pytorchTest runs a case. name is that of the files without their extension.
type pytorchTest func(fx *fixture, c *golden.Case, name string)

// TestPyTorch loads what from_pytorch.py wrote for every class of the PyTorch package, and compares outputs and routing
// with PyTorch's.
func TestPyTorch(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for several seconds on CPU drivers; TestVerifyPyTorch of vkbench runs cases of most classes")
	}
	tests := map[string]pytorchTest{
		"ConditionalRoutedFeedForward": pytorchModule(NewConditionalRoutedFeedForward,
			func(ctx context.Context, m *ConditionalRoutedFeedForward, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, FeedForwardOptions{Mask: a.mask, Routing: a.routing})
			}),
		"ConditionalRoutedAttention": pytorchModule(NewConditionalRoutedAttention,
			func(ctx context.Context, m *ConditionalRoutedAttention, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, AttentionOptions{Mask: a.mask, Routing: a.routing})
			}),
		"ConditionalRoutedTransformerBlock": pytorchModule(NewConditionalRoutedTransformerBlock,
			func(ctx context.Context, m *ConditionalRoutedTransformerBlock, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, BlockOptions{Mask: a.mask, Routing: a.routing})
			}),
		"Encoder": pytorchModule(NewEncoder,
			func(ctx context.Context, m *Encoder, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, BlockOptions{Mask: a.mask, Routing: a.routing})
			}),
		"ConditionalRoutedCrossAttention": pytorchModule(NewConditionalRoutedCrossAttention,
			func(ctx context.Context, m *ConditionalRoutedCrossAttention, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, a.context, CrossAttentionOptions{Mask: a.mask, ContextMask: a.contextMask, Routing: a.routing})
			}),
		"ConditionalRoutedAutoregressiveAttention": pytorchModule(NewConditionalRoutedAutoregressiveAttention,
			func(ctx context.Context, m *ConditionalRoutedAutoregressiveAttention, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, AutoregressiveOptions{Routing: a.routing})
			}),
		"ConditionalRoutedImageAttention": pytorchModule(NewConditionalRoutedImageAttention,
			func(ctx context.Context, m *ConditionalRoutedImageAttention, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, ImageOptions{Routing: a.routing})
			}),
		"ConditionalRoutedViT": pytorchModule(NewConditionalRoutedViT,
			func(ctx context.Context, m *ConditionalRoutedViT, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, ViTOptions{Routing: a.routing})
			}),
		"LocalMHA": pytorchModule(NewLocalMHA,
			func(ctx context.Context, m *LocalMHA, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, LocalMHAOptions{Mask: a.mask})
			}),
		"FeedForward": pytorchModule(NewFeedForward,
			func(ctx context.Context, m *FeedForward, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, CallOptions{})
			}),
		"RMSNorm": pytorchModule(NewRMSNorm,
			func(ctx context.Context, m *RMSNorm, a pytorchArgs) error {
				return m.Forward(ctx, a.y, a.x, CallOptions{})
			}),
		"CoordinateDescentRouter": pytorchRouter,
		"CoordinateDescent":       testCoordinateDescentCase,
		"TopK":                    testTopKCase,
	}
	paths, err := golden.Cases(filepath.Join(pytorchDir, "cases"))
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, path := range paths {
		c, err := golden.Load(path)
		require.NoError(t, err)
		require.Contains(t, tests, c.Module)
		seen[c.Module] = true
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			tests[c.Module](newFixture(t), c, filepath.Join(pytorchDir, c.Name))
		})
	}
	assert.Len(t, seen, len(tests), "a case of each class")
}

// pytorchArgs are the arguments of a case's call.
type pytorchArgs struct {
	y, x, mask, context, contextMask *Tensor
	routing                          *[]RoutingRecord
}

// pytorchConfig reads NAME.json, which must be the configuration of the case.
func pytorchConfig[C any](fx *fixture, c *golden.Case, name string) C {
	fx.t.Helper()
	data, err := os.ReadFile(name + ".json")
	require.NoError(fx.t, err)
	assert.JSONEq(fx.t, string(c.Config), string(data))
	var config C
	require.NoError(fx.t, json.Unmarshal(data, &config))
	return config
}

// pytorchModule returns the test of a module with an output y.
func pytorchModule[C any, M anyModule](newModule func(context.Context, *vk.Device, C) (M, error),
	forward func(context.Context, M, pytorchArgs) error) pytorchTest {
	return func(fx *fixture, c *golden.Case, name string) {
		ctx := fx.t.Context()
		m, err := newModule(ctx, fx.dev, pytorchConfig[C](fx, c, name))
		require.NoError(fx.t, err)
		fx.closeAtEnd(m)
		require.NoError(fx.t, m.Load(ctx, name+".safetensors"))

		want := c.Outputs["y"]
		var routing []RoutingRecord
		a := pytorchArgs{
			y: fx.tensor(F32, want.Shape...), x: fx.goldenInput(c, "x"), mask: fx.goldenInput(c, "mask"),
			context: fx.goldenInput(c, "context"), contextMask: fx.goldenInput(c, "context_mask"), routing: &routing,
		}
		require.NoError(fx.t, forward(ctx, m, a))
		checkAbsolute(fx.t, golden.Compared(c, fx.read(a.y)), golden.Compared(c, want.Float64s()))
		fx.checkRoutingRecords(c, routing)
		checkSaved(fx, c, m, name)
	}
}

// checkAbsolute compares outputs with PyTorch's.
func checkAbsolute(t *testing.T, got []float32, want []float64) {
	t.Helper()
	e := ref.MaxErr(got, want)
	require.False(t, math.IsInf(e.Rel, 0), e)
	assert.LessOrEqual(t, math.Abs(e.Got-e.Want), pytorchBound, e)
}

// checkSaved compares the file that Save writes with the one that was loaded: the same names, shapes and bits.
func checkSaved(fx *fixture, c *golden.Case, m anyModule, name string) {
	path := filepath.Join(fx.t.TempDir(), "saved.safetensors")
	require.NoError(fx.t, m.Save(fx.t.Context(), path))
	saved, loaded := fx.openWeights(path), fx.openWeights(name+".safetensors")
	want := slices.Sorted(slices.Values(loaded.Names()))
	require.Equal(fx.t, want, slices.Sorted(slices.Values(saved.Names())))
	for _, tensor := range want {
		a, err := saved.ReadFloat32(tensor)
		require.NoError(fx.t, err)
		b, err := loaded.ReadFloat32(tensor)
		require.NoError(fx.t, err)
		assert.True(fx.t, sameBits(a, b), tensor)
		assert.True(fx.t, sameBits(a, c.Weights[tensor].F32), tensor)
	}
}

func (fx *fixture) openWeights(path string) *safetensors.File {
	fx.t.Helper()
	f, err := safetensors.Open(path)
	require.NoError(fx.t, err)
	fx.closeAtEnd(f)
	return f
}

func pytorchRouter(fx *fixture, c *golden.Case, name string) {
	config := pytorchConfig[RouterConfig](fx, c, name)
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	require.NoError(fx.t, r.Load(fx.t.Context(), name+".safetensors"))
	testRouterCase(fx, c, r)
}

// TestPyTorchScope requires a test that can fail: with the default route_scope, image attention differs from PyTorch.
func TestPyTorchScope(t *testing.T) {
	fx := newFixture(t)
	c, err := golden.Load(filepath.Join(pytorchDir, "cases", "image.safetensors"))
	require.NoError(t, err)
	c.Config = []byte(strings.Replace(string(c.Config), `"route_scope": "window"`, `"route_scope": "image"`, 1))
	m := goldenModule(fx, c, NewConditionalRoutedImageAttention)
	require.Equal(t, RouteScopeImage, m.config.RouteScope)
	y := fx.tensor(F32, c.Outputs["y"].Shape...)
	require.NoError(t, m.Forward(t.Context(), y, fx.goldenInput(c, "x"), ImageOptions{}))
	e := ref.MaxErr(fx.read(y), c.Outputs["y"].Float64s())
	assert.Greater(t, e.Rel, 0.01, "docs/pytorch.md says that the scopes differ")
}
