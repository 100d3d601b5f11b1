package colt5

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEveryModule checks the properties that all modules share. The subtests of a module use the same object, because
// creating its pipelines takes most of the time.
func TestEveryModule(t *testing.T) {
	fx := newFixture(t)
	for _, s := range fx.testModules(F32) {
		t.Run(s.name, func(t *testing.T) {
			for _, test := range []struct {
				name string
				run  func(*fixture, moduleCase)
			}{
				{"batch isolation", checkBatchIsolation}, {"NaN isolation", checkNaNIsolation}, {"determinism", checkDeterminism},
				{"repeated call", checkRepeatedCall}, {"planned memory", checkPlannedMemory}, {"profile", checkProfile},
				{"parameters", checkParameters}, {"save and load", checkSaveLoad}, {"light groups", checkLightGroups},
				{"invalid arguments", checkInvalidArguments}, {"context", checkContext}, {"closed", checkClosed},
			} {
				t.Run(test.name, func(t *testing.T) {
					gputest.CountCase()
					test.run(fx.sub(t), s)
				})
			}
		})
	}
}

// checkBatchIsolation: an edit of the input and mask of one batch item does not change the other items, and each item
// equals its result in a batch of one.
func checkBatchIsolation(fx *fixture, s moduleCase) {
	const items = 4
	for _, masks := range []bool{false, true} {
		if masks && !s.masked {
			continue
		}
		v, other := s.randomInput(1, items, masks), s.randomInput(2, items, masks)
		before := fx.run(s, items, v)
		size := len(before) / items
		for j := range items {
			after := fx.run(s, items, s.withItem(v, other, j, items))
			for i := range items {
				if i == j && masks { // the edit may have no effect: a fully masked item has a constant output
					continue
				}
				same := sameBits(before[i*size:][:size], after[i*size:][:size])
				assert.Equal(fx.t, i != j, same, "item %d after an edit of item %d, masks %v", i, j, masks)
			}
			alone := fx.run(s, 1, s.item(v, j, items))
			assert.True(fx.t, sameBits(before[j*size:][:size], alone), "item %d alone, masks %v", j, masks)
		}
	}
}

// checkDeterminism: repeated calls give the same bits.
func checkDeterminism(fx *fixture, s moduleCase) {
	y, in := fx.upload(s, 1, s.randomInput(3, 1, true))
	var first []float32
	for run := range inShortMode(10, 100) {
		require.NoError(fx.t, y.Write(fx.t.Context(), nanFill(y.Len())))
		require.NoError(fx.t, s.forward(fx.t.Context(), y, in))
		now := fx.read(y)
		if run == 0 {
			first = now
		}
		require.True(fx.t, sameBits(first, now), "run %d", run)
	}
}

// checkRepeatedCall: a second call with the same shapes is one submit, and allocates nothing on the host or the device,
// with and without statistics.
func checkRepeatedCall(fx *fixture, s moduleCase) {
	y, in := fx.upload(s, 2, s.randomInput(4, 2, true))
	fx.checkAllocatesNothing(func() error { return s.forward(fx.t.Context(), y, in) })
	in.stats = new(CallStats)
	fx.checkAllocatesNothing(func() error { return s.forward(fx.t.Context(), y, in) })
	assert.Positive(fx.t, in.stats.Time)
}

// checkAllocatesNothing makes a call once, and then checks that further calls are one submit each and allocate nothing.
func (fx *fixture) checkAllocatesNothing(call func() error) {
	fx.t.Helper()
	require.NoError(fx.t, call())
	before := fx.dev.Stats()
	const runs = 5
	var failed error
	assert.Zero(fx.t, testing.AllocsPerRun(runs, func() {
		if err := call(); err != nil {
			failed = err
		}
	}))
	require.NoError(fx.t, failed)
	after := fx.dev.Stats()
	assert.Equal(fx.t, before.Submits+runs+1, after.Submits) // AllocsPerRun makes one more call
	before.Submits = after.Submits
	assert.Equal(fx.t, before, after)
}

// checkPlannedMemory: Config.Memory predicts exactly what a call allocates.
func checkPlannedMemory(fx *fixture, s moduleCase) {
	if s.vocabulary > 0 { // Memory assumes I32 ids, these are U8; see TestMemoryOfIDs
		return
	}
	for _, items := range []int{1, 3} {
		v := s.randomInput(6, items, false)
		y, in := fx.upload(s, items, v)
		var stats CallStats
		in.stats = &stats
		require.NoError(fx.t, s.forward(fx.t.Context(), y, in))
		fx.checkMemory(s.module, y, in, stats, func() (Memory, error) { return s.memory(fx.dev.Caps(), items, s.n) })
	}
}

func (fx *fixture) checkMemory(m anyModule, y *Tensor, in callArgs, got CallStats, memory func() (Memory, error)) {
	fx.t.Helper()
	want, err := memory()
	require.NoError(fx.t, err)
	assert.Equal(fx.t, want.Workspace, got.Workspace)
	if _, one := m.(*RMSNorm); !one { // which is one kernel
		assert.NotZero(fx.t, want.Workspace)
	}
	assert.Equal(fx.t, want.Outputs, uint64(y.size()))
	inBytes, weights := in.x.size(), 0
	if in.context != nil {
		inBytes += in.context.size()
	}
	assert.Equal(fx.t, want.Inputs, uint64(inBytes))
	for _, p := range m.Parameters() {
		weights += p.Tensor.size()
		if p.Tensor.cast != nil {
			weights += int(p.Tensor.cast.Range().Size())
		}
	}
	assert.Equal(fx.t, want.Weights, uint64(weights))
	assert.Equal(fx.t, want.Weights+want.Inputs+want.Outputs+want.Workspace, want.Total())
}

// TestMemoryOfIDs is checkPlannedMemory for the modules that take token ids.
func TestMemoryOfIDs(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	e, a := mustNewSeeded(fx, NewEncoder, smallEncoder()), mustNewSeeded(fx, NewAutoregressiveTransformer, smallTransformer())
	x, err := FromSlice(t.Context(), fx.dev, make([]int32, 2*smallN), 2, smallN)
	require.NoError(t, err)
	fx.closeAtEnd(x)
	y, logits := fx.tensor(F32, 2, smallN, smallDim), fx.tensor(F32, 2, smallN, 256)
	var stats CallStats
	require.NoError(t, e.Forward(t.Context(), y, x, BlockOptions{Stats: &stats}))
	fx.checkMemory(e, y, callArgs{x: x}, stats, func() (Memory, error) { return smallEncoder().Memory(fx.dev.Caps(), 2, smallN) })
	require.NoError(t, a.Forward(t.Context(), logits, x, AutoregressiveOptions{Stats: &stats}))
	fx.checkMemory(a, logits, callArgs{x: x}, stats, func() (Memory, error) { return smallTransformer().Memory(fx.dev.Caps(), 2, smallN) })
}

// checkSaveLoad: loading a saved file restores all weights and the output bits.
func checkSaveLoad(fx *fixture, s moduleCase) {
	v := s.randomInput(7, 2, true)
	before, path := fx.run(s, 2, v), filepath.Join(fx.t.TempDir(), "module.safetensors")
	saved := fx.parameters(s.module.Parameters())
	require.NoError(fx.t, s.module.Save(fx.t.Context(), path))
	require.NoError(fx.t, s.module.Init(fx.t.Context(), 99))
	changed := false
	for name, data := range fx.parameters(s.module.Parameters()) {
		if slices.Max(saved[name]) != slices.Min(saved[name]) { // the initial values of gammas and biases are constant
			assert.NotEqual(fx.t, saved[name], data, name)
			changed = true
		}
	}
	assert.Equal(fx.t, !changed, sameBits(before, fx.run(s, 2, v)))
	require.NoError(fx.t, s.module.Load(fx.t.Context(), path))
	assert.Equal(fx.t, saved, fx.parameters(s.module.Parameters()))
	assert.True(fx.t, sameBits(before, fx.run(s, 2, v)))
}

// checkProfile: profiled calls give the same bits and the time of every step. They have a barrier after every step;
// other calls run independent steps concurrently.
func checkProfile(fx *fixture, s moduleCase) {
	v := s.randomInput(8, 2, true)
	y, in := fx.upload(s, 2, v)
	call := func(profile bool) ([]float32, CallStats) {
		stats := CallStats{Profile: profile}
		in.stats = &stats
		require.NoError(fx.t, y.Write(fx.t.Context(), nanFill(y.Len())))
		require.NoError(fx.t, s.forward(fx.t.Context(), y, in))
		assert.Equal(fx.t, profile, stats.Profile)
		return fx.readFinite(y), stats
	}
	before, plain := call(false)
	assert.Empty(fx.t, plain.StepTimes)
	profiled, stats := call(true)
	assert.True(fx.t, sameBits(before, profiled))
	assert.GreaterOrEqual(fx.t, len(stats.StepTimes), len(stats.StepNames))
	assert.NotEmpty(fx.t, stats.StepNames)
	assert.Equal(fx.t, len(stats.StepNames)-1, stats.Barriers)
	if s.sequential {
		assert.LessOrEqual(fx.t, plain.Barriers, stats.Barriers)
	} else {
		assert.Less(fx.t, plain.Barriers, stats.Barriers)
	}
	fx.t.Logf("%d steps, %d barriers", len(stats.StepNames), plain.Barriers)
	assert.Positive(fx.t, stats.Flops)
	assert.Positive(fx.t, stats.Bytes)
}

// checkParameters: changing any parameter changes the output.
func checkParameters(fx *fixture, s moduleCase) {
	v := s.randomInput(9, 1, false)
	before := fx.run(s, 1, v)
	for _, p := range s.module.Parameters() {
		old := fx.read(p.Tensor)
		require.NoError(fx.t, p.Tensor.Write(fx.t.Context(), normal(77, p.Tensor.Len())))
		assert.False(fx.t, sameBits(before, fx.run(s, 1, v)), p.Name)
		require.NoError(fx.t, p.Tensor.Write(fx.t.Context(), old))
	}
	assert.True(fx.t, sameBits(before, fx.run(s, 1, v)))
}

// checkClosed: operations of a closed module are errors; closing it again is none.
func checkClosed(fx *fixture, s moduleCase) {
	ctx := fx.t.Context()
	y, in := fx.upload(s, 1, s.randomInput(1, 1, true))
	require.NoError(fx.t, s.module.Close())
	require.NoError(fx.t, s.module.Close())
	for name, err := range map[string]error{
		"Forward": s.forward(ctx, y, in), "Load": s.module.Load(ctx, "x"), "Save": s.module.Save(ctx, "x"), "Init": s.module.Init(ctx, 1),
	} {
		assert.ErrorIs(fx.t, err, vk.ErrClosed, name)
		assert.ErrorContains(fx.t, err, "colt5: "+typeName(s.module)+"."+name+": ")
	}
}
