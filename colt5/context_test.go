package colt5

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkContext: with a context that is done already, or nil, every operation is an error with its name, and changes
// nothing.
func checkContext(fx *fixture, s moduleCase) {
	t := fx.t
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	path := filepath.Join(t.TempDir(), "weights.safetensors")
	require.NoError(t, s.module.Save(t.Context(), path))
	v := s.randomInput(1, 1, true)
	before, weights := fx.run(s, 1, v), fx.parameters(s.module.Parameters())
	y, in := fx.upload(s, 1, v)
	for want, ctx := range map[string]context.Context{
		context.Canceled.Error(): cancelled, context.DeadlineExceeded.Error(): expired, "the context is nil": nil,
	} {
		stats, routing := CallStats{Flops: 1}, []RoutingRecord{{K: 1}}
		in.stats, in.routing = &stats, &routing
		for name, err := range map[string]error{
			"Forward": s.forward(ctx, y, in), "Init": s.module.Init(ctx, 9), "Load": s.module.Load(ctx, path),
			"Save": s.module.Save(ctx, filepath.Join(t.TempDir(), "other")),
		} {
			assert.ErrorContains(t, err, "colt5: "+typeName(s.module)+"."+name+": ")
			assert.ErrorContains(t, err, want)
			if ctx != nil {
				assert.ErrorIs(t, err, ctx.Err(), name)
			}
		}
	}
	assert.Equal(t, weights, fx.parameters(s.module.Parameters()))
	assert.True(t, sameBits(before, fx.run(s, 1, v)))
}

// Tensors and constructors return the error of a context that is done already.
func TestDoneContext(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	x := fx.floats([]float32{1, 2}, 2)
	assert.ErrorIs(t, x.Write(ctx, []float32{3, 4}), context.Canceled)
	assert.ErrorIs(t, x.Read(ctx, make([]float32, 2)), context.Canceled)
	_, err := x.Float32(ctx)
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []float32{1, 2}, fx.read(x))
	_, err = FromSlice(ctx, fx.dev, []float32{1}, 1)
	assert.ErrorIs(t, err, context.Canceled)
	_, err = NewConditionalRoutedAttention(ctx, fx.dev, smallAttention())
	assert.ErrorIs(t, err, context.Canceled)
	var none context.Context
	_, err = NewConditionalRoutedAttention(none, fx.dev, smallAttention())
	assert.ErrorContains(t, err, "colt5: NewConditionalRoutedAttention: the context is nil")
}

// slowCall is a feedforward, and a call of it that takes long enough to be cancelled: about 0.3 s on a CPU driver, less
// in short mode; about 100 ms (4.4 TFLOP) on an H200.
func slowCall(t *testing.T, dev *vk.Device) (m *ConditionalRoutedFeedForward, y, x *Tensor) {
	t.Helper()
	fx := &fixture{t, dev}
	c := Default[ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens = 128, 4096
	n := inShortMode(1024, 8192)
	if !dev.Caps().CPU {
		c.Dim, c.HeavyFFMult, n = 512, 16, 1<<18
		c.NumHeavyTokens = n
	}
	return mustNewSeeded(fx, NewConditionalRoutedFeedForward, c), fx.tensor(F32, 1, n, c.Dim), fx.floats(normal(1, n*c.Dim), 1, n, c.Dim)
}

// A call whose context ends while the device runs returns the context's error. The submitted work runs on; the next
// call waits for it and gives the right bits.
func TestCancelDuringCall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s; TestCancelRun of package vk cancels runs")
	}
	gputest.CountCase()
	fx := newFixture(t)
	m, y, x := slowCall(t, fx.dev)
	require.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{})) // records the plan
	start := time.Now()
	require.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{}))
	whole := time.Since(start)
	want := fx.read(y)
	for wantErr, start := range map[error]func(time.Duration) (context.Context, context.CancelFunc){
		context.DeadlineExceeded: func(d time.Duration) (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), d)
		},
		context.Canceled: func(d time.Duration) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(d, cancel)
			return ctx, cancel
		},
	} {
		var err error
		stats, routing := CallStats{Flops: 1}, []RoutingRecord{{K: 1}}
		for try := 1; try <= 10 && err == nil; try++ { // a try fails if the call ends before the context does
			ctx, cancel := start(whole / time.Duration(3*try))
			err = m.Forward(ctx, y, x, FeedForwardOptions{Stats: &stats, Routing: &routing})
			cancel()
		}
		require.ErrorIs(t, err, wantErr)
		assert.ErrorContains(t, err, "colt5: ConditionalRoutedFeedForward.Forward: ")
		assert.Equal(t, CallStats{}, stats, "a failed call has no statistics")
		assert.Empty(t, routing)
		other := fx.tensor(F32, y.Shape()...)
		require.NoError(t, m.Forward(t.Context(), other, x, FeedForwardOptions{}))
		assert.True(t, sameBits(want, fx.read(other)))
		require.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{}))
		assert.True(t, sameBits(want, fx.read(y)))
	}
}

// A call that waits for another call of the same module returns when its context ends; the other call is not affected.
func TestCancelWhileWaitingForModule(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers")
	}
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	x, y := fx.floats(normal(1, smallN*smallDim), 1, smallN, smallDim), fx.tensor(F32, 1, smallN, smallDim)
	require.NoError(t, m.enter(t.Context(), "Forward")) // as if a call were running
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for name, call := range map[string]func() error{
		"Forward": func() error { return m.Forward(ctx, y, x, FeedForwardOptions{}) },
		"Init":    func() error { return m.Init(ctx, 1) },
	} {
		err := call()
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "colt5: ConditionalRoutedFeedForward."+name+": ")
	}
	m.leave()
	assert.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{}))
}

// If the device does not finish within vk.Options.Timeout, the error says how to continue, and later calls of the
// module give the right bits.
func TestDeviceTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s; package vk tests timeouts")
	}
	gputest.CountCase()
	fx := newFixture(t)
	m, y, x := slowCall(t, fx.dev)
	require.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{}))
	start := time.Now()
	require.NoError(t, m.Forward(t.Context(), y, x, FeedForwardOptions{}))
	whole := time.Since(start)
	want := fx.read(y)

	// Uploads of the weights take less than a third of the call.
	dev, err := vk.Open(vk.Options{Timeout: max(whole/3, time.Millisecond)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, dev.Close()) })
	m, y, x = slowCall(t, dev)
	err = m.Forward(t.Context(), y, x, FeedForwardOptions{})
	if err == nil {
		t.Skip("this call was three times faster than the first")
	}
	require.ErrorIs(t, err, vk.ErrTimeout)
	assert.ErrorContains(t, err, "colt5: ConditionalRoutedFeedForward.Forward: ")
	assert.ErrorContains(t, err, "the work is still running: call Wait of the device to wait longer, raise Options.Timeout, or close the device")
	for range 20 { // each call waits for the work in flight first, at most for the timeout
		if err = dev.Wait(t.Context()); err == nil {
			break
		}
		require.ErrorIs(t, err, vk.ErrTimeout)
	}
	require.NoError(t, err)
	got, err := y.Float32(t.Context())
	require.NoError(t, err)
	assert.True(t, sameBits(want, got), "the call finished after the timeout")

	fx = &fixture{t, dev}
	few := normal(2, 32*m.config.Dim)
	x, y = fx.floats(few, 1, 32, m.config.Dim), fx.tensor(F32, 1, 32, m.config.Dim)
	for range 20 { // on a busy machine it may not fit the timeout at once
		if err = m.Forward(t.Context(), y, x, FeedForwardOptions{}); !errors.Is(err, vk.ErrTimeout) {
			break
		}
	}
	require.NoError(t, err, "a call that fits the timeout")
	fx.readFinite(y)
}
