package colt5

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fixture is a test with the device that the package's tests share. What its methods create is closed when the test
// ends.
type fixture struct {
	t   *testing.T
	dev *vk.Device
}

func newFixture(t *testing.T) *fixture {
	fx := &fixture{t, gputest.Device(t)}
	t.Cleanup(func() {
		n, text := fx.dev.DrainMessages()
		assert.Zero(t, n, text)
	})
	return fx
}

// sub returns the fixture of a subtest.
func (fx *fixture) sub(t *testing.T) *fixture { return &fixture{t, fx.dev} }

func (fx *fixture) closeAtEnd(c closer) { fx.t.Cleanup(func() { assert.NoError(fx.t, c.Close()) }) }

// mustNew creates a module.
func mustNew[C any, M closer](fx *fixture, newModule func(context.Context, *vk.Device, C) (M, error), c C) M {
	fx.t.Helper()
	m, err := newModule(fx.t.Context(), fx.dev, c)
	require.NoError(fx.t, err)
	fx.closeAtEnd(m)
	return m
}

// mustNewWithoutWeights creates a module without weights.
func mustNewWithoutWeights[C any, M closer](fx *fixture, newModule func(*vk.Device, C) (M, error), c C) M {
	fx.t.Helper()
	m, err := newModule(fx.dev, c)
	require.NoError(fx.t, err)
	fx.closeAtEnd(m)
	return m
}

// mustNewSeeded creates a module with the initial weights of seed 5, which differ from those that New sets.
func mustNewSeeded[C any, M anyModule](fx *fixture, newModule func(context.Context, *vk.Device, C) (M, error), c C) M {
	fx.t.Helper()
	m := mustNew(fx, newModule, c)
	require.NoError(fx.t, m.Init(fx.t.Context(), 5))
	return m
}

func (fx *fixture) tensor(dtype DType, shape ...int) *Tensor {
	fx.t.Helper()
	x, err := NewTensor(fx.dev, dtype, shape...)
	require.NoError(fx.t, err)
	fx.closeAtEnd(x)
	return x
}

func (fx *fixture) floats(data []float32, shape ...int) *Tensor {
	fx.t.Helper()
	x, err := FromSlice(fx.t.Context(), fx.dev, data, shape...)
	require.NoError(fx.t, err)
	fx.closeAtEnd(x)
	return x
}

func (fx *fixture) ints(data []int32, shape ...int) *Tensor {
	fx.t.Helper()
	x, err := FromSlice(fx.t.Context(), fx.dev, data, shape...)
	require.NoError(fx.t, err)
	fx.closeAtEnd(x)
	return x
}

func (fx *fixture) bytes(data []uint8, shape ...int) *Tensor {
	fx.t.Helper()
	x, err := FromSlice(fx.t.Context(), fx.dev, data, shape...)
	require.NoError(fx.t, err)
	fx.closeAtEnd(x)
	return x
}

func (fx *fixture) read(x *Tensor) []float32 {
	fx.t.Helper()
	data, err := x.Float32(fx.t.Context())
	require.NoError(fx.t, err)
	return data
}

func (fx *fixture) readInts(x *Tensor) []int32 {
	fx.t.Helper()
	data, err := x.Int32(fx.t.Context())
	require.NoError(fx.t, err)
	return data
}

// readFinite reads a tensor and fails if it holds a NaN or an infinity.
func (fx *fixture) readFinite(y *Tensor) []float32 {
	fx.t.Helper()
	got := fx.read(y)
	require.False(fx.t, slices.ContainsFunc(got, func(v float32) bool { return v-v != 0 }), "NaN or infinity")
	return got
}

// finiteOutput returns what forward writes to a tensor that was filled with NaN. An element that forward does not write
// fails the test.
func (fx *fixture) finiteOutput(forward func(y *Tensor) error, shape ...int) []float32 {
	fx.t.Helper()
	y := fx.tensor(F32, shape...)
	require.NoError(fx.t, y.Write(fx.t.Context(), nanFill(y.Len())))
	require.NoError(fx.t, forward(y))
	return fx.readFinite(y)
}

// parameters reads parameters to the host, by name.
func (fx *fixture) parameters(list []Parameter) map[string][]float32 {
	fx.t.Helper()
	w := map[string][]float32{}
	for _, p := range list {
		w[p.Name] = fx.read(p.Tensor)
	}
	return w
}

// setParameter writes one parameter of a module.
func (fx *fixture) setParameter(m anyModule, name string, data []float32) {
	fx.t.Helper()
	for _, p := range m.Parameters() {
		if p.Name == name {
			require.NoError(fx.t, p.Tensor.Write(fx.t.Context(), data), name)
			return
		}
	}
	require.Fail(fx.t, "no parameter "+name)
}

// inShortMode returns short with -test.short, and full without.
func inShortMode[T any](short, full T) T {
	if testing.Short() {
		return short
	}
	return full
}

// normal returns n samples of the standard normal distribution.
func normal(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// randomMask masks about a third of the tokens, and all tokens of batch item 1.
func randomMask(seed uint64, b, n int) []uint8 {
	r := rand.New(rand.NewPCG(seed, 2))
	m := make([]uint8, b*n)
	for i := range m {
		if r.IntN(3) > 0 && i/n != 1 {
			m[i] = 1
		}
	}
	return m
}

func nanFill(n int) []float32 { return slices.Repeat([]float32{float32(math.NaN())}, n) }

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
}

func float64s(list []float32) []float64 {
	wide := make([]float64, len(list))
	for i, v := range list {
		wide[i] = float64(v)
	}
	return wide
}

func (fx *fixture) readBytes(x *Tensor) []uint8 {
	fx.t.Helper()
	data := make([]uint8, x.Len())
	require.NoError(fx.t, x.Read(fx.t.Context(), data))
	return data
}
