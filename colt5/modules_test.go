package colt5

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// subject is a small module, its inputs described so that one test can go through all modules.
type subject struct {
	name   string
	module anyModule
	x, y   []int // shapes of an item
	ids    int   // x holds ids of a vocabulary of so many: U8; 0: floats
	masked bool  // it takes a mask of x's tokens
	second []int // shape of an item of another input: context; nil: none

	forward func(y *Tensor, in inputs) error
	memory  func(caps vk.Caps, b int) (Memory, error)
}

// inputs are the tensors of a call.
type inputs struct{ x, mask, second, secondMask *Tensor }

const (
	smallN   = 48
	smallDim = 8
)

func smallAttention() ConditionalRoutedAttentionConfig {
	c := DefaultConditionalRoutedAttentionConfig()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 6, 9, 4, 2, 8
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV = 4, 2, 2
	return c
}

func smallFeedForward() ConditionalRoutedFeedForwardConfig {
	c := DefaultConditionalRoutedFeedForwardConfig()
	c.Dim, c.NumHeavyTokens, c.HeavyFFMult, c.LightFFMult = smallDim, 7, 2, 1
	return c
}

func smallBlock() ConditionalRoutedTransformerBlockConfig {
	a, f, c := smallAttention(), smallFeedForward(), DefaultConditionalRoutedTransformerBlockConfig()
	c.Dim, c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = smallDim, a.NumHeavyTokensQ, a.NumHeavyTokensKV, f.NumHeavyTokens
	c.LightDimHead, c.LightHeads, c.LightWindowSize = a.LightDimHead, a.LightHeads, a.LightWindowSize
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.LightFFMult, c.HeavyFFMult = a.HeavyDimHead, a.HeavyHeads, a.NumRoutedKV, f.LightFFMult, f.HeavyFFMult
	return c
}

func smallEncoder() EncoderConfig {
	return EncoderConfig{Depth: 2, NumTokens: 256, ConditionalRoutedTransformerBlockConfig: smallBlock()}
}

func smallCross() ConditionalRoutedCrossAttentionConfig {
	c := DefaultConditionalRoutedCrossAttentionConfig()
	c.Dim, c.NumTokensQ, c.NumTokensKV, c.DimHead, c.Heads, c.KVRoutingTokens = smallDim, 6, 9, 4, 2, 2
	return c
}

func smallAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	c := DefaultConditionalRoutedAutoregressiveAttentionConfig()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 5, 9, 4, 2, 8
	c.HeavyWindowSize, c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.RotaryEmb, c.CausalQueryRouting = 16, 4, 2, 2, true, true
	return c
}

func smallTransformer() AutoregressiveTransformerConfig {
	return AutoregressiveTransformerConfig{
		Depth: 2, NumTokens: 256, FFMult: 2, ConditionalRoutedAutoregressiveAttentionConfig: smallAutoregressive(),
	}
}

func smallImage() ConditionalRoutedImageAttentionConfig {
	c := DefaultConditionalRoutedImageAttentionConfig()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 6, 9, 4, 2, 4
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.ChannelFirst = 4, 2, 2, true
	return c
}

func smallViT() ConditionalRoutedViTConfig {
	c := DefaultConditionalRoutedViTConfig()
	c.ImageSize, c.PatchSize, c.NumClasses, c.Dim, c.Depth = Size{16, 24}, Square(2), 5, smallDim, 2
	c.AttnNumHeavyTokensQ, c.AttnNumHeavyTokensKV, c.AttnNumRoutedKV, c.AttnHeavyDimHead, c.AttnHeavyHeads = 6, 9, 2, 4, 2
	c.AttnLightDimHead, c.AttnLightHeads, c.AttnLightWindowSize = 4, 2, 4
	c.FFNumHeavyTokens, c.FFHeavyMult, c.FFLightMult = 7, 2, 1
	return c
}

// create makes a module that closes with the test.
func create[C any, M anyModule](b *bench, make func(*vk.Device, C) (M, error), c C) M {
	b.t.Helper()
	m, err := make(b.dev, c)
	require.NoError(b.t, err)
	b.keep(m)
	require.NoError(b.t, m.Init(5))
	return m
}

// subjects are small modules of every kind.
func (b *bench) subjects() []subject {
	b.t.Helper()
	tokens, image := []int{smallN, smallDim}, []int{smallDim, 8, 12}
	ff, at := create(b, NewConditionalRoutedFeedForward, smallFeedForward()), create(b, NewConditionalRoutedAttention, smallAttention())
	bl, en := create(b, NewConditionalRoutedTransformerBlock, smallBlock()), create(b, NewEncoder, smallEncoder())
	cr, au := create(b, NewConditionalRoutedCrossAttention, smallCross()), create(b, NewConditionalRoutedAutoregressiveAttention, smallAutoregressive())
	tr, im := create(b, NewAutoregressiveTransformer, smallTransformer()), create(b, NewConditionalRoutedImageAttention, smallImage())
	vi := create(b, NewConditionalRoutedViT, smallViT())
	sequence := func(f func(vk.Caps, int, int) (Memory, error)) func(vk.Caps, int) (Memory, error) {
		return func(caps vk.Caps, b int) (Memory, error) { return f(caps, b, smallN) }
	}
	return []subject{
		{name: "feedforward", module: ff, x: tokens, y: tokens, masked: true, memory: sequence(smallFeedForward().Memory),
			forward: func(y *Tensor, in inputs) error { return ff.Forward(y, in.x, FeedForwardOptions{Mask: in.mask}) }},
		{name: "attention", module: at, x: tokens, y: tokens, masked: true, memory: sequence(smallAttention().Memory),
			forward: func(y *Tensor, in inputs) error { return at.Forward(y, in.x, AttentionOptions{Mask: in.mask}) }},
		{name: "block", module: bl, x: tokens, y: tokens, masked: true, memory: sequence(smallBlock().Memory),
			forward: func(y *Tensor, in inputs) error { return bl.Forward(y, in.x, BlockOptions{Mask: in.mask}) }},
		{name: "encoder", module: en, x: tokens[:1], y: tokens, ids: 256, masked: true,
			forward: func(y *Tensor, in inputs) error { return en.Forward(y, in.x, BlockOptions{Mask: in.mask}) }},
		{name: "cross", module: cr, x: tokens, y: tokens, masked: true, second: []int{70, smallDim},
			forward: func(y *Tensor, in inputs) error {
				return cr.Forward(y, in.x, in.second, CrossAttentionOptions{Mask: in.mask, ContextMask: in.secondMask})
			},
			memory: func(caps vk.Caps, b int) (Memory, error) { return smallCross().Memory(caps, b, smallN, 70) }},
		{name: "autoregressive", module: au, x: tokens, y: tokens, memory: sequence(smallAutoregressive().Memory),
			forward: func(y *Tensor, in inputs) error { return au.Forward(y, in.x, AutoregressiveOptions{}) }},
		{name: "autoregressive transformer", module: tr, x: tokens[:1], y: []int{smallN, 256}, ids: 256,
			forward: func(y *Tensor, in inputs) error { return tr.Forward(y, in.x, AutoregressiveOptions{}) }},
		{name: "image", module: im, x: image, y: image,
			forward: func(y *Tensor, in inputs) error { return im.Forward(y, in.x, ImageOptions{}) },
			memory:  func(caps vk.Caps, b int) (Memory, error) { return smallImage().Memory(caps, b, 8, 12) }},
		{name: "vit", module: vi, x: []int{3, 16, 24}, y: []int{5}, memory: smallViT().Memory,
			forward: func(y *Tensor, in inputs) error { return vi.Forward(y, in.x) }},
	}
}

// values are what the tensors of a call hold.
type values struct {
	x                []float32
	ids              []uint8
	mask, secondMask []uint8
	second           []float32
}

// some are random inputs for b items, those of masks only with masks.
func (s subject) some(seed uint64, b int, masks bool) values {
	var v values
	if s.ids > 0 {
		r := rand.New(rand.NewPCG(seed, 3))
		v.ids = make([]uint8, b*product(s.x))
		for i := range v.ids {
			v.ids[i] = uint8(r.IntN(s.ids))
		}
	} else {
		v.x = normal(seed, b*product(s.x))
	}
	if s.second != nil {
		v.second = normal(seed+1, b*product(s.second))
	}
	if masks && s.masked {
		v.mask = someMask(seed, b, s.x[0])
		if s.second != nil {
			v.secondMask = someMask(seed+1, b, s.second[0])
		}
	}
	return v
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// upload makes tensors of values, and one for the output.
func (b *bench) upload(s subject, items int, v values) (*Tensor, inputs) {
	b.t.Helper()
	batch := func(shape []int) []int { return append([]int{items}, shape...) }
	var in inputs
	if s.ids > 0 {
		in.x = b.bytes(v.ids, batch(s.x)...)
	} else {
		in.x = b.floats(v.x, batch(s.x)...)
	}
	if v.mask != nil {
		in.mask = b.bytes(v.mask, items, s.x[0])
	}
	if s.second != nil {
		in.second = b.floats(v.second, batch(s.second)...)
	}
	if v.secondMask != nil {
		in.secondMask = b.bytes(v.secondMask, items, s.second[0])
	}
	return b.tensor(F32, batch(s.y)...), in
}

// result is the output for values; inputs stay as they are.
func (b *bench) result(s subject, items int, v values) []float32 {
	b.t.Helper()
	y, in := b.upload(s, items, v)
	require.NoError(b.t, y.Write(nans(y.Len())))
	require.NoError(b.t, s.forward(y, in))
	if in.x.DType() == F32 {
		require.Equal(b.t, v.x, b.read(in.x), "the input changed")
	}
	got := b.read(y)
	require.False(b.t, slices.ContainsFunc(got, func(v float32) bool { return v-v != 0 }), "NaN or infinity")
	return got
}

// What every module keeps to, on the same objects: kernels compile once.
func TestEveryModule(t *testing.T) {
	b := newBench(t)
	for _, s := range b.subjects() {
		t.Run(s.name, func(t *testing.T) {
			for _, test := range []struct {
				name string
				run  func(*bench, subject)
			}{
				{"items do not see each other", itemsAreAlone}, {"a hundred runs", hundredRuns}, {"repeated call", repeatedCall},
				{"memory", memoryAsMeasured}, {"save and load", saveAndLoad}, {"profile", profiles},
			} {
				t.Run(test.name, func(t *testing.T) {
					gputest.Count()
					test.run(&bench{t, b.dev}, s)
				})
			}
		})
	}
}

// itemsAreAlone edits one item of a batch, input and mask, and looks for changes in the others; they come out as in a batch of one.
func itemsAreAlone(b *bench, s subject) {
	const items = 4
	for _, masks := range []bool{false, true} {
		if masks && !s.masked {
			continue
		}
		v, other := s.some(1, items, masks), s.some(2, items, masks)
		before := b.result(s, items, v)
		size := len(before) / items
		for j := range items {
			after := b.result(s, items, s.with(v, other, j, items))
			for i := range items {
				if i == j && masks { // it may have no token left, and then its null tokens
					continue
				}
				same := sameBits(before[i*size:][:size], after[i*size:][:size])
				assert.Equal(b.t, i != j, same, "item %d after an edit of item %d, masks %v", i, j, masks)
			}
			alone := b.result(s, 1, s.item(v, j, items))
			assert.True(b.t, sameBits(before[j*size:][:size], alone), "item %d alone, masks %v", j, masks)
		}
	}
}

// item is the values of one item.
func (s subject) item(v values, j, items int) values {
	return values{part(v.x, j, items), part(v.ids, j, items), part(v.mask, j, items), part(v.secondMask, j, items), part(v.second, j, items)}
}

func part[E any](list []E, j, items int) []E {
	n := len(list) / items
	return slices.Clone(list[j*n : (j+1)*n])
}

// with is v, but for item j, which is that of other.
func (s subject) with(v, other values, j, items int) values {
	return values{
		replaced(v.x, other.x, j, items), replaced(v.ids, other.ids, j, items), replaced(v.mask, other.mask, j, items),
		replaced(v.secondMask, other.secondMask, j, items), replaced(v.second, other.second, j, items),
	}
}

func replaced[E any](list, other []E, j, items int) []E {
	if list == nil {
		return nil
	}
	n := len(list) / items
	return slices.Concat(list[:j*n], other[j*n:(j+1)*n], list[(j+1)*n:])
}

func hundredRuns(b *bench, s subject) {
	y, in := b.upload(s, 1, s.some(3, 1, true))
	var first []float32
	for run := range 100 {
		require.NoError(b.t, y.Write(nans(y.Len())))
		require.NoError(b.t, s.forward(y, in))
		now := b.read(y)
		if run == 0 {
			first = now
		}
		require.True(b.t, sameBits(first, now), "run %d", run)
	}
}

// repeatedCall: a second call with the same shapes is one submit and allocates nothing, on the host and on the device.
func repeatedCall(b *bench, s subject) {
	y, in := b.upload(s, 2, s.some(4, 2, true))
	require.NoError(b.t, s.forward(y, in))
	before := b.dev.Stats()
	const runs = 5
	var failed error
	assert.Zero(b.t, testing.AllocsPerRun(runs, func() {
		if err := s.forward(y, in); err != nil {
			failed = err
		}
	}))
	require.NoError(b.t, failed)
	after := b.dev.Stats()
	assert.Equal(b.t, before.Submits+runs+1, after.Submits) // AllocsPerRun runs once more
	before.Submits = after.Submits
	assert.Equal(b.t, before, after)
}

// memoryAsMeasured: what Memory tells is what a call takes.
func memoryAsMeasured(b *bench, s subject) {
	if s.memory == nil {
		b.t.Skip("of I32 ids, see TestMemoryOfIDs")
	}
	for _, items := range []int{1, 3} {
		v := s.some(6, items, false)
		y, in := b.upload(s, items, v)
		require.NoError(b.t, s.forward(y, in))
		b.checkMemory(s.module, y, in, func() (Memory, error) { return s.memory(b.dev.Caps(), items) })
	}
}

func (b *bench) checkMemory(m anyModule, y *Tensor, in inputs, memory func() (Memory, error)) {
	b.t.Helper()
	want, err := memory()
	require.NoError(b.t, err)
	got, err := m.LastCall()
	require.NoError(b.t, err)
	assert.Equal(b.t, want.Workspace, got.Workspace)
	assert.NotZero(b.t, want.Workspace)
	assert.Equal(b.t, want.Outputs, uint64(y.size()))
	inBytes, weights := in.x.size(), 0
	if in.second != nil {
		inBytes += in.second.size()
	}
	assert.Equal(b.t, want.Inputs, uint64(inBytes))
	for _, p := range m.Parameters() {
		weights += p.Tensor.size()
	}
	assert.Equal(b.t, want.Weights, uint64(weights))
	assert.Equal(b.t, want.Weights+want.Inputs+want.Outputs+want.Workspace, want.Total())
}

// TestMemoryOfIDs is memoryAsMeasured for the modules that read ids.
func TestMemoryOfIDs(t *testing.T) {
	gputest.Count()
	b := newBench(t)
	e, a := create(b, NewEncoder, smallEncoder()), create(b, NewAutoregressiveTransformer, smallTransformer())
	x, err := FromInt32(b.dev, make([]int32, 2*smallN), 2, smallN)
	require.NoError(t, err)
	b.keep(x)
	y, logits := b.tensor(F32, 2, smallN, smallDim), b.tensor(F32, 2, smallN, 256)
	require.NoError(t, e.Forward(y, x, BlockOptions{}))
	b.checkMemory(e, y, inputs{x: x}, func() (Memory, error) { return smallEncoder().Memory(b.dev.Caps(), 2, smallN) })
	require.NoError(t, a.Forward(logits, x, AutoregressiveOptions{}))
	b.checkMemory(a, logits, inputs{x: x}, func() (Memory, error) { return smallTransformer().Memory(b.dev.Caps(), 2, smallN) })
}

// saveAndLoad: the file holds everything that the output depends on.
func saveAndLoad(b *bench, s subject) {
	v := s.some(7, 2, true)
	before, path := b.result(s, 2, v), filepath.Join(b.t.TempDir(), "module.safetensors")
	saved := b.host(s.module.Parameters())
	require.NoError(b.t, s.module.Save(path))
	require.NoError(b.t, s.module.Init(99))
	for name, data := range b.host(s.module.Parameters()) {
		if slices.Max(saved[name]) != slices.Min(saved[name]) { // gammas and biases start with one value
			assert.NotEqual(b.t, saved[name], data, name)
		}
	}
	assert.False(b.t, sameBits(before, b.result(s, 2, v)))
	require.NoError(b.t, s.module.Load(path))
	assert.Equal(b.t, saved, b.host(s.module.Parameters()))
	assert.True(b.t, sameBits(before, b.result(s, 2, v)))
}

// profiles: timed calls give the same, and tell the time of every step. Their steps run one after the other, as they were recorded, others side by side.
func profiles(b *bench, s subject) {
	v := s.some(8, 2, true)
	before := b.result(s, 2, v)
	plain, err := s.module.LastCall()
	require.NoError(b.t, err)
	s.module.Profile(true)
	defer s.module.Profile(false)
	assert.True(b.t, sameBits(before, b.result(s, 2, v)))
	stats, err := s.module.LastCall()
	require.NoError(b.t, err)
	assert.GreaterOrEqual(b.t, len(stats.StepTimes), len(stats.Steps))
	assert.NotEmpty(b.t, stats.Steps)
	assert.Equal(b.t, len(stats.Steps)-1, stats.Barriers)
	assert.Less(b.t, plain.Barriers, stats.Barriers)
	b.t.Logf("%d steps, %d barriers", len(stats.Steps), plain.Barriers)
	assert.Positive(b.t, stats.Flops)
	assert.Positive(b.t, stats.Bytes)
}

// Every parameter counts: another value of any of them changes some output.
func TestEveryParameterCounts(t *testing.T) {
	gputest.Count()
	b := newBench(t)
	for _, s := range b.subjects() {
		v := s.some(9, 1, false)
		before := b.result(s, 1, v)
		for _, p := range s.module.Parameters() {
			old := b.read(p.Tensor)
			require.NoError(t, p.Tensor.Write(normal(77, p.Tensor.Len())))
			assert.False(t, sameBits(before, b.result(s, 1, v)), fmt.Sprintf("%s: %s", s.name, p.Name))
			require.NoError(t, p.Tensor.Write(old))
		}
		assert.True(t, sameBits(before, b.result(s, 1, v)), s.name)
	}
}
