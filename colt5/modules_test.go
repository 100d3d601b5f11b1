package colt5

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What every module keeps to, on the same objects: kernels compile once.
func TestEveryModule(t *testing.T) {
	b := newBench(t)
	for _, s := range b.subjects(F32) {
		t.Run(s.name, func(t *testing.T) {
			for _, test := range []struct {
				name string
				run  func(*bench, subject)
			}{
				{"items do not see each other", itemsAreAlone}, {"a hundred runs", hundredRuns}, {"repeated call", repeatedCall},
				{"memory", memoryAsMeasured}, {"save and load", saveAndLoad}, {"profile", profiles},
			} {
				t.Run(test.name, func(t *testing.T) {
					gputest.CountCase()
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
	if s.ids > 0 { // I32 ids: see TestMemoryOfIDs
		return
	}
	for _, items := range []int{1, 3} {
		v := s.some(6, items, false)
		y, in := b.upload(s, items, v)
		require.NoError(b.t, s.forward(y, in))
		b.checkMemory(s.module, y, in, func() (Memory, error) { return s.memory(b.dev.Caps(), items, s.n) })
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
		if p.Tensor.cast != nil {
			weights += int(p.Tensor.cast.Range().Size())
		}
	}
	assert.Equal(b.t, want.Weights, uint64(weights))
	assert.Equal(b.t, want.Weights+want.Inputs+want.Outputs+want.Workspace, want.Total())
}

// TestMemoryOfIDs is memoryAsMeasured for the modules that read ids.
func TestMemoryOfIDs(t *testing.T) {
	gputest.CountCase()
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
	gputest.CountCase()
	b := newBench(t)
	for _, s := range b.subjects(F32) {
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
