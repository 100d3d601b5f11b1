package colt5

import (
	"math"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
)

// checkFailsFast: f returns an error within 5 s and does not panic with a runtime error.
func checkFailsFast(t *testing.T, name string, f func() error) {
	t.Helper()
	done := make(chan any, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- r
			}
		}()
		done <- f()
	}()
	select {
	case r := <-done:
		_, panicked := r.(interface{ RuntimeError() })
		assert.False(t, panicked, "%s: panic %v", name, r)
		err, _ := r.(error)
		assert.Error(t, err, name)
	case <-time.After(5 * time.Second):
		assert.Fail(t, "no result after 5 s", name)
	}
}

func TestHugeSizes(t *testing.T) {
	caps := vk.Caps{}
	for name, f := range map[string]func() error{
		"feedforward": func() error { _, err := smallFeedForward().Memory(caps, math.MaxInt32, math.MaxInt32); return err },
		"cross": func() error {
			_, err := smallCross().Memory(caps, math.MaxInt32, math.MaxInt32, math.MaxInt32)
			return err
		},
		"dim": func() error {
			c := smallFeedForward()
			c.Dim = math.MaxInt32
			c.HeavyFFMult = 1
			c.LightFFMult = 1
			_, err := c.Memory(caps, 1, 1)
			return err
		},
		"image": func() error {
			c := smallImage()
			c.ChannelFirst = false
			c.LightHeads, c.LightDimHead, c.LightWindowSize = 1, 1, 1<<30
			_, err := c.Memory(caps, 1, 1<<30, 1<<30)
			return err
		},
	} {
		checkFailsFast(t, name, f)
	}
}

// A depth that does not fit in memory is an error; it does not exhaust the host memory.
func TestHugeDepth(t *testing.T) {
	fx := newFixture(t)
	caps := fx.dev.Caps()
	const depth = 3000000
	for name, f := range map[string]func() error{
		"encoder memory":     func() error { c := smallEncoder(); c.Depth = depth; _, err := c.Memory(caps, 1, 8); return err },
		"vit memory":         func() error { c := smallViT(); c.Depth = depth; _, err := c.Memory(caps, 1); return err },
		"transformer memory": func() error { c := smallTransformer(); c.Depth = depth; _, err := c.Memory(caps, 1, 8); return err },
	} {
		checkFailsFast(t, name, f)
	}
}

// Zero tensors, nil tensors, overlapping tensors and closed parameters are errors, not panics.
func TestUnusableTensors(t *testing.T) {
	fx := newFixture(t)
	k, err := NewTopK(fx.dev, TopKConfig{K: 2, NIters: 3, Eps: 0.1, EpsDecay: 1, CoorDescentKRatio: 1})
	assert.NoError(t, err)
	fx.closeAtEnd(k)
	x := fx.floats([]float32{1, 2, 3}, 3)
	assert.NotPanics(t, func() { assert.Error(t, k.Forward(t.Context(), TopKResult{Values: &Tensor{}}, x, TopKOptions{})) })
	assert.NotPanics(t, func() { assert.Error(t, k.Forward(t.Context(), TopKResult{Values: x}, &Tensor{}, TopKOptions{})) })
	assert.NotPanics(t, func() {
		assert.Error(t, k.Forward(t.Context(), TopKResult{Values: fx.tensor(F32, 2)}, x, TopKOptions{Mask: &Tensor{}}))
	})
	a := mustNewSeeded(fx, NewConditionalRoutedAttention, smallAttention())
	assert.NotPanics(t, func() { assert.Error(t, a.Forward(t.Context(), nil, nil, AttentionOptions{})) })
	assert.NotPanics(t, func() {
		assert.Error(t, a.Forward(t.Context(), &Tensor{}, &Tensor{}, AttentionOptions{Mask: &Tensor{}}))
	})
	y := fx.tensor(F32, 1, 48, 8)
	z := fx.floats(make([]float32, 48*8), 1, 48, 8)
	assert.Error(t, a.Forward(t.Context(), y, y, AttentionOptions{}))
	assert.NoError(t, a.Forward(t.Context(), y, z, AttentionOptions{}))
	w := a.Parameters()[0].Tensor
	assert.Error(t, w.Write(t.Context(), []float32{1}))
	// A parameter that the user closed.
	assert.NoError(t, w.Close())
	assert.Error(t, a.Forward(t.Context(), y, z, AttentionOptions{}))
	assert.NoError(t, a.Close())
	assert.Error(t, a.Init(t.Context(), 1))
}

// After a call with I32 ids the host reads the number of invalid ids, which allocates nothing.
func TestIDsDoNotAllocate(t *testing.T) {
	fx := newFixture(t)
	c := smallEncoder()
	e := mustNewSeeded(fx, NewEncoder, c)
	x, err := FromSlice(t.Context(), fx.dev, make([]int32, 48), 1, 48)
	assert.NoError(t, err)
	fx.closeAtEnd(x)
	y := fx.tensor(F32, 1, 48, 8)
	var stats CallStats
	for _, o := range []BlockOptions{{}, {Stats: &stats}} {
		assert.NoError(t, e.Forward(t.Context(), y, x, o))
		assert.Zero(t, testing.AllocsPerRun(20, func() { _ = e.Forward(t.Context(), y, x, o) }))
	}
}

// Concurrent calls with different shapes, and Close during calls.
func TestConcurrentCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	t.Parallel()
	fx := newFixture(t)
	a := mustNewSeeded(fx, NewEncoder, smallEncoder())
	done, calls := make(chan bool), inShortMode(8, 30)
	for g := range 4 {
		go func() {
			defer func() { done <- true }()
			for i := range calls {
				x, err := FromSlice(t.Context(), fx.dev, make([]int32, 8*(1+(i+g)%12)), 1, 8*(1+(i+g)%12))
				if err != nil {
					return
				}
				y, _ := NewTensor(fx.dev, F32, 1, 8*(1+(i+g)%12), 8)
				stats, routing := CallStats{Profile: i%3 == 0}, []RoutingRecord(nil)
				o := BlockOptions{Stats: &stats}
				if i%2 == 0 {
					o.Routing = &routing
				}
				err = a.Forward(t.Context(), y, x, o)
				if err != nil {
					assert.ErrorIs(t, err, vk.ErrClosed)
				}
				x.Close()
				y.Close()
				if g == 0 && i == calls-1 {
					a.Close()
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}
