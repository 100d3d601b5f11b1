package vk_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBarriers(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	var r [4]vk.Range
	for i := range r {
		r[i] = newBuffer(t, d, fmt.Sprint(i), 256).Range()
	}
	a, b, c, e := r[0], r[1], r[2], r[3]
	fill := func(r vk.Range) func(*vk.CommandList) error {
		return func(t *vk.CommandList) error { return t.Fill(r, 1) }
	}
	copy := func(dst, src vk.Range) func(*vk.CommandList) error {
		return func(t *vk.CommandList) error { return t.Copy(dst, src) }
	}
	run := func(x, y, out vk.Range) func(*vk.CommandList) error {
		return func(t *vk.CommandList) error { return t.Dispatch(mixDispatch(k, x, y, out, 2)) }
	}
	type steps = []func(*vk.CommandList) error
	none := vk.Range{}
	for name, want := range map[string]struct {
		steps  steps
		levels []int // number of barriers before each step
	}{
		"one":                        {steps{fill(a)}, []int{0}},
		"read after write":           {steps{fill(a), run(none, a, b)}, []int{0, 1}},
		"read after write, argument": {steps{fill(a), run(a, c, b)}, []int{0, 1}},
		"write after write":          {steps{fill(a), fill(a)}, []int{0, 1}},
		"write after read":           {steps{copy(b, a), fill(a)}, []int{0, 1}},
		"read after read":            {steps{copy(b, a), copy(c, a), run(a, a, e)}, []int{0, 0, 0}},
		"independent":                {steps{fill(a), copy(b, c), run(none, e, e)}, []int{0, 0, 0}},
		"absent arguments":           {steps{run(none, a, b), run(none, c, e)}, []int{0, 0}},
		"in place, twice":            {steps{run(a, b, a), run(a, b, a)}, []int{0, 1}},
		"two parts":                  {steps{fill(a.Slice(0, 128)), fill(a.Slice(128, 128)), copy(b, a)}, []int{0, 0, 1}},
		"a word in common":           {steps{fill(a.Slice(0, 132)), fill(a.Slice(128, 128))}, []int{0, 1}},
		"inside":                     {steps{fill(a), fill(a.Slice(64, 4))}, []int{0, 1}},
		"around":                     {steps{fill(a.Slice(64, 4)), copy(b, a)}, []int{0, 1}},
		"copy within a buffer":       {steps{copy(a.Slice(0, 64), a.Slice(64, 64)), copy(a.Slice(128, 64), a.Slice(64, 64)), fill(a.Slice(64, 64))}, []int{0, 0, 1}},
		"one barrier for two":        {steps{fill(a), fill(b), copy(c, a), copy(e, b)}, []int{0, 0, 1, 1}},
		"a chain":                    {steps{fill(a), copy(b, a), copy(c, b), copy(e, c)}, []int{0, 1, 2, 3}},
		"not the step before":        {steps{fill(a), fill(b), copy(c, e), copy(b, a)}, []int{0, 0, 0, 1}},
		"a branch after another":     {steps{fill(a), copy(b, a), fill(c), copy(e, c)}, []int{0, 1, 0, 1}},
		"a long branch and a short":  {steps{fill(a), copy(b, a), fill(b), fill(c), run(b, c, e)}, []int{0, 1, 2, 0, 3}},
		"memory reused":              {steps{fill(a), copy(b, a), fill(a), copy(c, a)}, []int{0, 1, 2, 3}},
		"two readers, then a writer": {steps{fill(a), copy(b, a), copy(c, b), copy(e, a), fill(a)}, []int{0, 1, 2, 1, 2}},
		"a gap between ranges":       {steps{fill(a.Slice(0, 64)), fill(a.Slice(128, 64)), fill(a.Slice(64, 64)), copy(b, a)}, []int{0, 0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			minimal, full := newList(t, d, vk.CommandListConfig{}), newList(t, d, vk.CommandListConfig{BarrierEverywhere: true})
			for _, step := range want.steps {
				require.NoError(t, step(minimal))
				require.NoError(t, step(full))
			}
			got := groups(minimal.Schedule())
			assert.Equal(t, want.levels, got)
			assert.Equal(t, slices.Max(want.levels), minimal.Barriers())
			_, everywhere := full.Schedule()
			assert.NotContains(t, everywhere, false)
			assert.NoError(t, minimal.Run(t.Context()))
			assert.NoError(t, full.Run(t.Context()))
			assert.Equal(t, slices.Max(want.levels), minimal.Barriers())
			assert.Equal(t, len(want.steps), full.Barriers())
		})
	}
}

// groups returns the number of barriers before each step, in recorded order.
func groups(order []int, barriers []bool) []int {
	list, n := make([]int, len(order)), 0
	for i, step := range order {
		if barriers[i] {
			n++
		}
		list[step] = n
	}
	return list
}

// TestSmallStepsFirst: within a level steps with few workgroups come first, because after a large step they would start
// late.
func TestSmallStepsFirst(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	x, y := newBuffer(t, d, "x", 1<<16).Range(), newBuffer(t, d, "y", 1<<16).Range()
	l, slow := newList(t, d, vk.CommandListConfig{}), newList(t, d, vk.CommandListConfig{Profile: true})
	for _, l := range []*vk.CommandList{l, slow} {
		out := func(at, words uint64) vk.Dispatch {
			return mixDispatch(k, vk.Range{}, x.Slice(0, 4*words), y.Slice(at, 4*words), 1)
		}
		for _, step := range []vk.Dispatch{out(0, 1000), out(4096, 10), out(0, 1000), out(8192, 100), out(12288, 20)} {
			require.NoError(t, l.Dispatch(step))
		}
		require.NoError(t, l.Fill(y.Slice(1<<15, 4), 1))
		require.NoError(t, l.Run(t.Context()))
	}
	order, barriers := l.Schedule()
	assert.Equal(t, []int{5, 1, 4, 3, 0, 2}, order)
	assert.Equal(t, []bool{false, false, false, false, false, true}, barriers)
	order, barriers = slow.Schedule()
	assert.Equal(t, []int{0, 1, 2, 3, 4, 5}, order, "recorded order")
	assert.Equal(t, []bool{false, true, true, true, true, true}, barriers)
	steps, err := slow.StepTimes()
	require.NoError(t, err)
	var names []string
	for _, s := range steps {
		names = append(names, s.Name)
	}
	assert.Equal(t, slow.StepNames(), names)
}

// TestBarrierKinds: a barrier is between the kinds of the steps on its two sides, so barriers between dispatches do not
// involve transfers and a sequence of barriers orders all steps.
func TestBarrierKinds(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	x, y := newBuffer(t, d, "x", 256).Range(), newBuffer(t, d, "y", 256).Range()
	run := func(in, out vk.Range) vk.Dispatch { return mixDispatch(k, vk.Range{}, in, out, 1) }
	record := func(c vk.CommandListConfig, flops float64) []string {
		l := newList(t, d, c)
		require.NoError(t, l.Fill(x, 1))
		for range 2 {
			step := run(x, y)
			step.Flops = flops
			require.NoError(t, l.Dispatch(step))
			require.NoError(t, l.Dispatch(run(y, x)))
		}
		require.NoError(t, l.Copy(x.Slice(0, 16), y.Slice(0, 16)))
		require.NoError(t, l.Dispatch(run(y.Slice(64, 16), x.Slice(64, 16))))
		require.NoError(t, l.Run(t.Context()))
		require.NoError(t, l.Run(t.Context()))
		return l.BarrierKinds()
	}
	const start, end = "CT CT", "CT CT" // with the timestamps
	assert.Equal(t, []string{start, "T C", "C C", "C C", "C C", "C CT", end}, record(vk.CommandListConfig{}, 0))
	assert.Equal(t, []string{start, "T C", "C C", "CT C", "C C", "C CT", end}, record(vk.CommandListConfig{}, vk.SegmentFlops), "a new submit")
	assert.Equal(t, []string{start, "T T", "T C", "C C", "C C", "C C", "C T", "T C", end}, record(vk.CommandListConfig{BarrierEverywhere: true}, 0))
}

// TestIndependentOfPrevious: the dispatches of a group do not depend on each other, although their arguments overlap.
func TestIndependentOfPrevious(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	x, y, z := newBuffer(t, d, "x", 4096).Range(), newBuffer(t, d, "y", 4096).Range(), newBuffer(t, d, "z", 4096).Range()
	l := newList(t, d, vk.CommandListConfig{})
	part := func(a, y vk.Range) vk.Dispatch {
		run := mixDispatch(k, vk.Range{}, a, y, 1)
		run.IndependentOfPrevious = true
		return run
	}
	assert.ErrorContains(t, l.Dispatch(part(x, y)), "IndependentOfPrevious needs a dispatch recorded just before")
	require.NoError(t, l.Fill(x, 1))
	assert.ErrorContains(t, l.Dispatch(part(x, y)), "IndependentOfPrevious needs a dispatch recorded just before")
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, x, y, 1)))
	require.NoError(t, l.Dispatch(part(x, y)))
	require.NoError(t, l.Dispatch(part(z, y))) // the group depends on everything that one of its dispatches depends on
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, y, z, 1)))
	require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, x, y, 1)))
	order, barriers := l.Schedule()
	assert.Equal(t, []int{0, 1, 1, 1, 2, 3}, groups(order, barriers))
	require.NoError(t, l.CheckHazards())
	for i := range barriers { // the hazard checker exempts groups, and nothing else
		if barriers[i] {
			barriers[i] = false
			require.ErrorContains(t, l.CheckHazards(), "hazard: ")
			barriers[i] = true
		}
	}
	require.NoError(t, l.Run(t.Context()))
}

// A list is scheduled once, by Barriers or by the first run, and again if a step is added.
func TestScheduleOnce(t *testing.T) {
	d := openDevice(t, vk.Options{})
	r := newBuffer(t, d, "r", 256).Range()
	l := newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Fill(r, 1))
	assert.Equal(t, 0, l.Barriers())
	require.NoError(t, l.Fill(r, 2))
	assert.Equal(t, 1, l.Barriers())
	before := l.Order()
	require.NoError(t, l.Run(t.Context()))
	after := l.Order()
	require.Len(t, after, 2)
	assert.Same(t, &before[0], &after[0])
	assert.Equal(t, uint32(2), download(t, r)[0])
}

// TestIndirect: steps wait for memory that a dispatch accesses through addresses in device memory, and a run needs it.
func TestIndirect(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	x, y, table := newBuffer(t, d, "x", 4096), newBuffer(t, d, "y", 4096).Range(), newBuffer(t, d, "table", 4096).Range()
	l := newList(t, d, vk.CommandListConfig{})
	run := func(indirect vk.Access) vk.Dispatch {
		run := mixDispatch(k, vk.Range{}, table, y, 1)
		run.Indirect = []vk.Access{indirect}
		return run
	}
	require.NoError(t, l.Fill(table, 0))
	require.NoError(t, l.Fill(x.Range(), 0))
	assert.Equal(t, 0, l.Barriers())
	require.NoError(t, l.Dispatch(run(vk.ReadWrite(x.Range().Slice(16, 16)))))
	require.NoError(t, l.Fill(x.Range().Slice(0, 16), 1))
	assert.Equal(t, 1, l.Barriers())
	require.NoError(t, l.Fill(x.Range().Slice(16, 16), 1))
	assert.Equal(t, 2, l.Barriers())

	assert.ErrorContains(t, l.Dispatch(run(vk.Read(vk.Range{}))), "indirect access 0 is the zero Range")
	assert.ErrorContains(t, l.Dispatch(run(vk.Read(l.NewBinding("b", 16).Range()))), `indirect access 0 is of binding "b", want a range of a buffer`)
	assert.Zero(t, l.NewBinding("c", 16).Range().Address())
	assert.Zero(t, vk.Range{}.Address())
	assert.Equal(t, x.Range().Address()+16, x.Range().Slice(16, 16).Address())

	l = newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Dispatch(run(vk.Write(x.Range()))))
	require.NoError(t, x.Close())
	assert.ErrorIs(t, l.Run(t.Context()), vk.ErrClosed)
}
