package colt5_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func feedForwardConfig(p colt5.DType) colt5.ConditionalRoutedFeedForwardConfig {
	c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens, c.Precision = 32, 5, p
	return c
}

// A precision that the device does not support is an error of New that names the missing feature. With a supported one,
// results are close to those of f32, and changes of parameters take effect.
func TestPrecision(t *testing.T) {
	dev := gputest.Device(t)
	for _, p := range []colt5.DType{colt5.F16, colt5.BF16} {
		t.Run(p.String(), func(t *testing.T) {
			f, err := colt5.NewConditionalRoutedFeedForward(t.Context(), dev, feedForwardConfig(p))
			if missing := p.Supported(dev.Caps()); missing != nil {
				require.ErrorIs(t, err, vk.ErrUnsupported)
				require.ErrorContains(t, err, "colt5: NewConditionalRoutedFeedForward: Precision: ")
				require.ErrorContains(t, err, "needs ")
				return
			}
			require.NoError(t, err)
			defer func() { assert.NoError(t, f.Close()) }()
			gputest.CountCase()
			exact, err := colt5.NewConditionalRoutedFeedForward(t.Context(), dev, feedForwardConfig(colt5.F32))
			require.NoError(t, err)
			defer func() { assert.NoError(t, exact.Close()) }()
			checkPrecision(t, dev, f, exact)
		})
	}
}

func checkPrecision(t *testing.T, dev *vk.Device, f, exact *colt5.ConditionalRoutedFeedForward) {
	const b, n, c = 2, 40, 32
	data := make([]float32, b*n*c)
	for i := range data {
		data[i] = float32(math.Sin(float64(i) * 0.7))
	}
	x, err := colt5.FromSlice(t.Context(), dev, data, b, n, c)
	require.NoError(t, err)
	defer x.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, b, n, c)
	require.NoError(t, err)
	defer y.Close()
	run := func(m *colt5.ConditionalRoutedFeedForward) []float32 {
		t.Helper()
		require.NoError(t, m.Forward(t.Context(), y, x, colt5.FeedForwardOptions{}))
		out, err := y.Float32(t.Context())
		require.NoError(t, err)
		return out
	}
	checkNear := func(got, want []float32) {
		t.Helper()
		for i := range want {
			require.InDelta(t, want[i], got[i], 2e-2, "element %d", i)
		}
	}
	want, got := run(exact), run(f)
	checkNear(got, want)
	assert.NotEqual(t, want, got, "the results are those of f32")
	assert.Equal(t, got, run(f), "runs differ")

	before := dev.Stats()
	require.NoError(t, f.Forward(t.Context(), y, x, colt5.FeedForwardOptions{}))
	after := dev.Stats()
	assert.Equal(t, before.Submits+1, after.Submits, "unchanged weights are not cast again")
	assert.Equal(t, before.Allocations, after.Allocations)

	// Changes of parameters by Write and by Init take effect.
	for i, p := range f.Parameters() {
		values, err := p.Tensor.Float32(t.Context())
		require.NoError(t, err)
		for j := range values {
			values[j] = values[j]*0.5 + 0.01
		}
		require.NoError(t, p.Tensor.Write(t.Context(), values))
		require.NoError(t, exact.Parameters()[i].Tensor.Write(t.Context(), values))
	}
	changed := run(f)
	checkNear(changed, run(exact))
	assert.NotEqual(t, got, changed)
	require.NoError(t, f.Init(t.Context(), 0))
	assert.Equal(t, got, run(f))

	// Memory includes the 16-bit copies of the weights, and is an upper bound of the workspace.
	m, err := f.Config().Memory(dev.Caps(), b, n)
	require.NoError(t, err)
	exactMemory, err := exact.Config().Memory(dev.Caps(), b, n)
	require.NoError(t, err)
	assert.Greater(t, m.Weights, exactMemory.Weights)
	var call colt5.CallStats
	require.NoError(t, f.Forward(t.Context(), y, x, colt5.FeedForwardOptions{Stats: &call}))
	planned, err := f.Config().Memory(dev.Caps(), b, n)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, planned.Workspace, call.Workspace)
}

// Precisions have short names in JSON. The long names of earlier versions are still read.
func TestPrecisionNames(t *testing.T) {
	for p, names := range map[colt5.DType][2]string{
		colt5.F32: {`"f32"`, `"float32"`}, colt5.F16: {`"f16"`, `"float16"`}, colt5.BF16: {`"bf16"`, `"bfloat16"`},
	} {
		raw, err := json.Marshal(p)
		require.NoError(t, err)
		assert.Equal(t, names[0], string(raw))
		for _, name := range names {
			var back colt5.DType
			require.NoError(t, json.Unmarshal([]byte(name), &back))
			assert.Equal(t, p, back)
			var c colt5.ConditionalRoutedAttentionConfig
			require.NoError(t, json.Unmarshal([]byte(`{"dim": 8, "precision": `+name+`}`), &c))
			assert.Equal(t, p, c.Precision)
			raw, err := json.Marshal(c)
			require.NoError(t, err)
			assert.Contains(t, string(raw), `"precision":`+names[0])
		}
	}
	var p colt5.DType
	assert.ErrorContains(t, json.Unmarshal([]byte(`"half"`), &p), `dtype is "half", want f32, f16, bf16, i32 or u8`)
	_, err := json.Marshal(colt5.DType(7))
	assert.ErrorContains(t, err, "dtype is DType(7), want f32, f16, bf16, i32 or u8")
	assert.ErrorIs(t, colt5.DType(7).Supported(vk.Caps{}), vk.ErrUnsupported)
	assert.ErrorContains(t, colt5.DType(7).Supported(vk.Caps{}), "DType(7)")
}

// f16FeedForward creates a feedforward with precision f16 and returns its weight light_ff.1.weight. forward runs it,
// always on the same input.
func f16FeedForward(t *testing.T) (w *colt5.Tensor, forward func() []float32) {
	t.Helper()
	dev := gputest.Device(t)
	gputest.CountCase()
	const n, c = 3, 32
	f, err := colt5.NewConditionalRoutedFeedForward(t.Context(), dev, feedForwardConfig(colt5.F16))
	require.NoError(t, err)
	data := make([]float32, n*c)
	for i := range data {
		data[i] = float32(i%7) - 3
	}
	x, err := colt5.FromSlice(t.Context(), dev, data, 1, n, c)
	require.NoError(t, err)
	y, err := colt5.NewTensor(dev, colt5.F32, 1, n, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, errors.Join(f.Close(), x.Close(), y.Close())) })
	require.Equal(t, "light_ff.1.weight", f.Parameters()[2].Name)
	return f.Parameters()[2].Tensor, func() []float32 {
		t.Helper()
		require.NoError(t, f.Forward(t.Context(), y, x, colt5.FeedForwardOptions{}))
		got, err := y.Float32(t.Context())
		require.NoError(t, err)
		return got
	}
}

// A weight that another module writes as its output takes effect in the next call.
func TestPrecisionWeightAsOutput(t *testing.T) {
	dev := gputest.Device(t)
	if colt5.F16.Supported(dev.Caps()) != nil {
		return // TestPrecision checks the error
	}
	w, forward := f16FeedForward(t)
	before := forward()
	logits := make([]float32, w.Len())
	for i := range logits {
		logits[i] = float32(i % 11)
	}
	in, err := colt5.FromSlice(t.Context(), dev, logits, w.Shape()...)
	require.NoError(t, err)
	defer in.Close()
	d, err := colt5.NewCoordinateDescent(dev, colt5.CoordinateDescentConfig{K: 3, NIters: 5, Eps: 1, EpsDecay: 1})
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, d.Forward(t.Context(), w, in, colt5.CoordinateDescentOptions{}))
	after := forward()
	assert.NotEqual(t, before, after)
	written, err := w.Float32(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.Write(t.Context(), written))
	assert.Equal(t, after, forward(), "the same weights, written by the host")
}

// A weight that is written during a call takes effect in the next call, even if that call cast it in the middle of the
// write.
func TestPrecisionWriteDuringCall(t *testing.T) {
	dev := gputest.Device(t)
	if colt5.F16.Supported(dev.Caps()) != nil {
		return // TestPrecision checks the error
	}
	w, forward := f16FeedForward(t)
	forward()

	// A large transfer delays the write, but not the call.
	large, err := colt5.NewTensor(dev, colt5.F32, 48<<20)
	require.NoError(t, err)
	defer large.Close()
	values := make([]float32, w.Len())
	for i := range values {
		values[i] = float32(i%5) * 0.1
	}
	done := make(chan error, 2)
	go func() { done <- large.Write(t.Context(), make([]float32, large.Len())) }()
	time.Sleep(20 * time.Millisecond)
	go func() { done <- w.Write(t.Context(), values) }()
	time.Sleep(20 * time.Millisecond)
	forward()
	require.NoError(t, errors.Join(<-done, <-done))

	got := forward()
	require.NoError(t, w.Write(t.Context(), values))
	assert.Equal(t, forward(), got)
}
