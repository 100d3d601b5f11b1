package colt5

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBadTensors(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		dtype DType
		shape []int
		want  string
	}{
		{F32, nil, "shape is [], want at least one dimension"},
		{F32, []int{2, 0, 3}, "dimension 1 of shape [2 0 3] is 0, want 1 to"},
		{F32, []int{-1}, "dimension 0 of shape [-1] is -1"},
		{U8, []int{math.MaxInt32, math.MaxInt32, math.MaxInt32}, "fits memory"},
		{DType(9), []int{1}, "dtype is DType(9), want F32, I32, U32 or U8"},
	} {
		_, err := NewTensor(b.dev, test.dtype, test.shape...)
		assert.ErrorContains(t, err, test.want)
	}
	_, err := NewTensor(b.dev, F32, math.MaxInt32, 1<<20)
	assert.ErrorIs(t, err, vk.ErrOutOfMemory)
	_, err = NewTensor(nil, F32, 1)
	assert.ErrorContains(t, err, "device is nil")
	_, err = FromFloat32(b.dev, make([]float32, 5), 2, 3)
	assert.ErrorContains(t, err, "tensor F32 [2 3]: data has 5 elements, want 6")
	x := b.tensor(F32, 2, 3)
	assert.ErrorContains(t, x.Write(make([]float32, 7)), "data is 7 elements of F32, want 6 of F32")
	assert.ErrorContains(t, x.Write(make([]int32, 6)), "data is 6 elements of I32, want 6 of F32")
	assert.ErrorContains(t, x.Write("six"), "data is string, want []float32")
	_, err = x.Int32()
	assert.ErrorContains(t, err, "data has room for 6 elements of I32, the tensor has 6 of F32")
	y, err := NewTensor(b.dev, F32, 1)
	require.NoError(t, err)
	require.NoError(t, y.Close())
	require.NoError(t, y.Close())
	_, err = y.Float32()
	assert.ErrorIs(t, err, vk.ErrClosed)
	assert.NoError(t, (*Tensor)(nil).Close())
}

func TestBadConfigs(t *testing.T) {
	b := newBench(t)
	nan, inf := math.NaN(), math.Inf(1)
	ff := func(change func(*ConditionalRoutedFeedForwardConfig)) error {
		c := DefaultConditionalRoutedFeedForwardConfig()
		c.Dim, c.NumHeavyTokens = 8, 4
		change(&c)
		_, err := NewConditionalRoutedFeedForward(b.dev, c)
		return err
	}
	router := func(change func(*RouterConfig)) error {
		c := DefaultRouterConfig()
		c.Dim = 8
		change(&c)
		_, err := NewCoordinateDescentRouter(b.dev, c)
		return err
	}
	topK := func(change func(*TopKConfig)) error {
		c := DefaultTopKConfig()
		c.K = 2
		change(&c)
		_, err := NewTopK(b.dev, c)
		return err
	}
	descent := func(change func(*CoordinateDescentConfig)) error {
		c := DefaultCoordinateDescentConfig()
		c.K = 2
		change(&c)
		_, err := NewCoordinateDescent(b.dev, c)
		return err
	}
	for want, err := range map[string]error{
		"Dim is 0, want 1":                       ff(func(c *ConditionalRoutedFeedForwardConfig) { c.Dim = 0 }),
		"NumHeavyTokens is -1, want 1":           ff(func(c *ConditionalRoutedFeedForwardConfig) { c.NumHeavyTokens = -1 }),
		"LightFFMult is 0, want a positive":      ff(func(c *ConditionalRoutedFeedForwardConfig) { c.LightFFMult = 0 }),
		"HeavyFFMult is NaN, want a positive":    ff(func(c *ConditionalRoutedFeedForwardConfig) { c.HeavyFFMult = nan }),
		"int(Dim * LightFFMult) is 0, want 1":    ff(func(c *ConditionalRoutedFeedForwardConfig) { c.LightFFMult = 0.1 }),
		"RouteBlockSize is -3, want 0":           ff(func(c *ConditionalRoutedFeedForwardConfig) { c.Router.RouteBlockSize = -3 }),
		"Eps is 0, want a positive":              router(func(c *RouterConfig) { c.Eps = 0 }),
		"Eps is -1, want a positive":             router(func(c *RouterConfig) { c.Eps = -1 }),
		"Eps is NaN, want a positive":            router(func(c *RouterConfig) { c.Eps = nan }),
		"EpsInit is -2, want a positive":         router(func(c *RouterConfig) { c.EpsInit = -2 }),
		"EpsDecay is 1.5, want at most 1":        router(func(c *RouterConfig) { c.EpsDecay = 1.5 }),
		"NIters is 0, want 1":                    router(func(c *RouterConfig) { c.NIters = 0 }),
		"FetchKRatio is +Inf, want a positive":   router(func(c *RouterConfig) { c.FetchKRatio = inf }),
		"CosineSimScale is 0, want a positive":   router(func(c *RouterConfig) { c.CosineSimScale = 0 }),
		"NumRoutingTokens is 0, want 1":          router(func(c *RouterConfig) { c.NumRoutingTokens = 0 }),
		"K is 0, want 1":                         topK(func(c *TopKConfig) { c.K = 0 }),
		"K is -1, want 1":                        topK(func(c *TopKConfig) { c.K = -1 }),
		"NewTopK: Eps is NaN":                    topK(func(c *TopKConfig) { c.Eps = nan }),
		"CoorDescentKRatio is 0":                 topK(func(c *TopKConfig) { c.CoorDescentKRatio = 0 }),
		"K is 0, want a positive":                descent(func(c *CoordinateDescentConfig) { c.K = 0 }),
		"K is NaN, want a positive":              descent(func(c *CoordinateDescentConfig) { c.K = nan }),
		"NewCoordinateDescent: Eps is 0, want a": descent(func(c *CoordinateDescentConfig) { c.Eps = 0 }),
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestConfigJSON(t *testing.T) {
	var c ConditionalRoutedFeedForwardConfig
	require.NoError(t, json.Unmarshal([]byte(`{"dim": 32, "num_heavy_tokens": 5, "router_kwargs": {"eps_init": null, "eps": 1.0, "route_block_size": 7}}`), &c))
	want := DefaultConditionalRoutedFeedForwardConfig()
	want.Dim, want.NumHeavyTokens, want.Router.EpsInit, want.Router.Eps, want.Router.RouteBlockSize = 32, 5, 0, 1, 7
	assert.Equal(t, want, c)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	var again ConditionalRoutedFeedForwardConfig
	require.NoError(t, json.Unmarshal(text, &again))
	assert.Equal(t, c, again)
	for text, want := range map[string]string{
		`{"dim": 32, "heads": 5}`:             `unknown field "heads"`,
		`{"router_kwargs": {"epsilon": 1}}`:   `unknown field "epsilon"`,
		`{"dim": "big"}`:                      "cannot unmarshal string",
		`{"router_kwargs": {"eps_init": ""}}`: "cannot unmarshal string",
		`[]`:                                  "cannot unmarshal array",
	} {
		assert.ErrorContains(t, json.Unmarshal([]byte(text), &c), want)
	}
	var r RouterConfig
	require.NoError(t, json.Unmarshal([]byte(`{"dim": 8, "straight_through": false, "eps_init": null}`), &r))
	assert.False(t, r.StraightThrough)
	assert.Zero(t, r.EpsInit)
	assert.Equal(t, 20, r.NIters)
}

func TestBadCalls(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config := DefaultConditionalRoutedFeedForwardConfig()
	config.Dim, config.NumHeavyTokens = 8, 4
	f := opened(b, NewConditionalRoutedFeedForward, config)
	rc := DefaultRouterConfig()
	rc.Dim = 8
	r := opened(b, NewCoordinateDescentRouter, rc)
	k := opened(b, NewTopK, TopKConfig{K: 3, NIters: 2, Eps: 1, CoorDescentKRatio: 1, NonDifferentiable: true})
	d := opened(b, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 2, Eps: 1, EpsDecay: 1})
	x, y, flat, ints := b.tensor(F32, 2, 10, 8), b.tensor(F32, 2, 10, 8), b.tensor(F32, 20, 8), b.tensor(I32, 2, 10, 8)
	mask, rows := b.tensor(U8, 2, 9), b.tensor(F32, 2, 10)
	closed, err := NewTensor(b.dev, F32, 2, 10, 8)
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for want, err := range map[string]error{
		"Forward: x is nil, want F32[* * 8]":                      f.Forward(y, nil, FeedForwardOptions{}),
		"x is F32[20 8], want F32[* * 8]":                         f.Forward(y, flat, FeedForwardOptions{}),
		"x is I32[2 10 8], want F32[* * 8]":                       f.Forward(y, ints, FeedForwardOptions{}),
		"y is F32[20 8], want F32[2 10 8]":                        f.Forward(flat, x, FeedForwardOptions{}),
		"y is nil, want F32[2 10 8]":                              f.Forward(nil, x, FeedForwardOptions{}),
		"Mask is U8[2 9], want U8[2 10]":                          f.Forward(y, x, FeedForwardOptions{Mask: mask}),
		"Mask is F32[2 10], want U8[2 10]":                        f.Forward(y, x, FeedForwardOptions{Mask: rows}),
		"NumHeavyTokens is -1, want 0":                            f.Forward(y, x, FeedForwardOptions{NumHeavyTokens: -1}),
		"closed":                                                  f.Forward(y, closed, FeedForwardOptions{}),
		"tokens is 0, want 1":                                     r.Forward(Routing{Scores: rows}, x, 0, RoutingOptions{}),
		"out asks for nothing":                                    r.Forward(Routing{}, x, 4, RoutingOptions{}),
		"Indices is F32[2 10], want I32[2 1 4]":                   r.Forward(Routing{Indices: rows}, x, 4, RoutingOptions{}),
		"Logits is F32[2 10], want F32[2 1 10]":                   r.Forward(Routing{Logits: rows}, x, 4, RoutingOptions{}),
		"RoutingTokens is F32[2 10 8], want them exactly if":      r.Forward(Routing{Logits: rows}, x, 4, RoutingOptions{RoutingTokens: x}),
		"x is nil, want F32":                                      k.Forward(TopKResult{Values: rows}, nil, nil),
		"x is I32[2 10 8], want F32":                              k.Forward(TopKResult{Values: rows}, ints, nil),
		"Values is F32[2 10], want F32[2 3]":                      k.Forward(TopKResult{Values: rows}, b.tensor(F32, 2, 20), nil),
		"TopK.Forward: out asks for nothing":                      k.Forward(TopKResult{}, rows, nil),
		"mask is U8[2 9], want U8[2 10]":                          k.Forward(TopKResult{Values: rows}, rows, mask),
		"CoorDescentValues is F32[2 10], want nil":                k.Forward(TopKResult{CoorDescentValues: rows}, rows, nil),
		"s is F32[2 10 8], want F32[* *]":                         d.Forward(rows, x, nil),
		"CoordinateDescent.Forward: y is F32[2 10 8], want F32[2": d.Forward(x, rows, nil),
	} {
		assert.ErrorContains(t, err, want)
	}
}

// Tensors of another device and closed modules are refused.
func TestOtherDeviceAndClosed(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	other, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, other.Close()) }()
	foreign, err := NewTensor(other, F32, 2, 10, 8)
	require.NoError(t, err)
	defer foreign.Close()
	config := DefaultConditionalRoutedFeedForwardConfig()
	config.Dim, config.NumHeavyTokens = 8, 4
	f, err := NewConditionalRoutedFeedForward(b.dev, config)
	require.NoError(t, err)
	x := b.tensor(F32, 2, 10, 8)
	assert.ErrorContains(t, f.Forward(x, foreign, FeedForwardOptions{}), "x is on another device")
	assert.ErrorContains(t, f.Forward(foreign, x, FeedForwardOptions{}), "y is on another device")
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	y := b.tensor(F32, 2, 10, 8)
	assert.ErrorIs(t, f.Forward(y, x, FeedForwardOptions{}), vk.ErrClosed)
	assert.ErrorIs(t, f.Load("x"), vk.ErrClosed)
	assert.ErrorIs(t, f.Save("x"), vk.ErrClosed)
	assert.ErrorIs(t, f.Init(1), vk.ErrClosed)
	_, err = f.LastCall()
	assert.ErrorIs(t, err, vk.ErrClosed)
	assert.NoError(t, (*ConditionalRoutedFeedForward)(nil).Close())
	assert.NoError(t, (*CoordinateDescentRouter)(nil).Close())
	assert.NoError(t, (*TopK)(nil).Close())
	assert.NoError(t, (*CoordinateDescent)(nil).Close())
	var nowhere *vk.Device
	_, err = NewConditionalRoutedFeedForward(nowhere, config)
	assert.ErrorContains(t, err, "device is nil")
	_, err = NewCoordinateDescentRouter(nowhere, DefaultRouterConfig())
	assert.ErrorContains(t, err, "device is nil")
	_, err = NewTopK(nowhere, TopKConfig{K: 1})
	assert.ErrorContains(t, err, "device is nil")
	_, err = NewCoordinateDescent(nowhere, CoordinateDescentConfig{})
	assert.ErrorContains(t, err, "device is nil")
}

// Truncated and lying files change nothing.
func TestBadFiles(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	rc := DefaultRouterConfig()
	rc.Dim = 8
	r := opened(b, NewCoordinateDescentRouter, rc)
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	require.NoError(t, r.Save(good))
	raw, err := os.ReadFile(good)
	require.NoError(t, err)
	before := b.host(r.Parameters())
	for name, data := range map[string][]byte{
		"empty":     nil,
		"truncated": raw[:len(raw)-1],
		"longer":    append(append([]byte(nil), raw...), 0),
		"header":    raw[:20],
		"length":    append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, raw[8:]...),
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		assert.Error(t, r.Load(path), name)
	}
	assert.ErrorIs(t, r.Load(filepath.Join(dir, "absent")), os.ErrNotExist)
	assert.Error(t, r.Save(filepath.Join(dir, "no", "folder")))
	assert.Equal(t, before, b.host(r.Parameters()))
}
